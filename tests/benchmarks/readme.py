"""The README's table of numbers, rendered from the results of a run: what is measured is what is said.

Each row says what it is about, what this plugin does (as `plain`, the README's lines and nothing else) and what stands
beside it. A row whose numbers weren't measured is left out.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.benchmarks.numbers import greatest, least

BEGIN, END = "<!-- table of the benchmarks -->", "<!-- end of the table -->"
README = Path(__file__).parents[2] / "README.md"

Row = tuple[str, str, str]
Cases = Mapping[str, Any]
Show = Callable[[Mapping[str, Any]], str]

NAMES = {
    "busy_floor": "busy floor",
    "floor": "floor",
    "bare": "bare",
    "peer": "peer",
    "peer_defaults": "peer with librdkafka's defaults",
}


def table(document: Mapping[str, Any]) -> str:
    """The table as Markdown, a line each row."""
    scenarios = {name: found["cases"] for name, found in document["scenarios"].items()}
    rows = [row for scenario, render in RENDERERS if scenario in scenarios for row in render(scenarios[scenario])]
    lines = [("", "this plugin", "beside it"), ("---",) * 3, *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def write(document: Mapping[str, Any]) -> None:
    """Replace the table between `BEGIN` and `END`."""
    text = README.read_text()
    found = re.search(f"{re.escape(BEGIN)}\n.*?{re.escape(END)}", text, re.DOTALL)
    if found is None:
        raise ValueError(f"{README} has no lines {BEGIN!r} and {END!r}")
    README.write_text(text[: found.start()] + marked(document) + text[found.end() :])


def marked(document: Mapping[str, Any]) -> str:
    """The table with the lines around it, as the README has it."""
    return f"{BEGIN}\n{table(document)}{END}"


def _release_latency(cases: Cases) -> Iterator[Row]:
    for rate, mine in _by_rate(cases).items():
        where = f"commit record written to the first message that it releases, {rate} messages/s, {_every(mine)}"
        for quantile, what in (("p50", f"{where}: p50"), ("p99", "the same, p99")):
            yield (
                what,
                _several(mine, _ours, f"first_{quantile}_ms", _ms),
                _beside(mine, ("busy_floor", "floor", "peer"), f"first_{quantile}_ms", _ms),
            )
    ratios = [case["peer_p50_over_gated_p50"] for case in cases.values()]
    few, many = _show({"median": least(ratios)}, "{:,.0f}"), _show({"median": greatest(ratios)}, "{:,.0f}")
    yield "all messages, p50: the peer's over ours", f"{few} to {many}", f"{len(cases)} cases"
    drain = _show({"median": least(case["drain_over_bare"] for case in cases.values())}, "{:.1f}")
    yield "handing on what one record releases", f"at least {drain} times bare's speed", ""


def _idle_release(cases: Cases) -> Iterator[Row]:
    for name, case in cases.items():

        def both(entry: Mapping[str, Any]) -> str:
            return f"{_ms(entry['p50_ms'])} / {_ms(entry['p99_ms'])}"

        beside = "; ".join(f"{NAMES[each]} {both(case[each])} ms" for each in ("floor", "peer") if each in case)
        yield f"first message, nothing new arriving, {name}, p50 / p99", f"{both(_ours(case))} ms", beside


def _catch_up(cases: Cases) -> Iterator[Row]:
    titles = {"nothing": "catching up, 200 B, a follower that does nothing", "json": "catching up, 2 kB of JSON parsed"}
    for name, case in cases.items():
        peer = f"peer {_show(case['peer']['over_bare'], '{:.2f}')} of its own bare" if "peer" in case else ""
        ours = _ours(case)["over_bare"]
        spread = _show(ours, "{:.2f} of bare ({low:.2f} to {high:.2f})")
        yield titles[name], spread, peer


def _independence(cases: Cases) -> Iterator[Row]:
    tailing, far_ahead = cases["tailing"], cases["far ahead"]
    plain = "plain, stopped" in tailing
    held, alive = (tailing[f"plain, {each}" if plain else each]["p99_ms"] for each in ("stopped", "alive"))
    yield (
        f"one partition held for {tailing['seconds']:.0f} s: the others' p99",
        f"{_ms(held)} ms",
        f"{_ms(alive)} ms with none held",
    )
    ratio = far_ahead["plain_throughput_ratio" if plain else "throughput_ratio"]
    yield "the same, catching up: messages a second", f"{_show(ratio, '{:.2f}')} of those with none held", ""


def _refetch(cases: Cases) -> Iterator[Row]:
    for name, case in cases.items():
        peer = f"peer {_show(case['peer']['received_per_message'], '{:.2f}')}" if "peer" in case else ""
        ours = _show(_ours(case)["received_per_message"], "{:.2f}")
        yield f"received from the broker for each message, a deep backlog, {name}", ours, peer


def _overhead(cases: Cases) -> Iterator[Row]:
    tailing = {name.removeprefix("tailing, "): case for name, case in cases.items() if name.startswith("tailing, ")}
    for rate, mine in _by_rate(tailing).items():
        yield (
            f"CPU a message, {rate} messages/s, {_every(mine)}",
            _several(mine, _ours, "cpu_us_per_message", _us, "us"),
            _beside(mine, ("bare", "busy_floor", "peer"), "cpu_us_per_message", _us, "us"),
        )
    nothing = cases.get("idle, nothing there", {})
    for name, case in cases.items():
        if not name.startswith("idle"):
            continue
        waiting = name.removeprefix("idle, ")
        aside = "" if case is nothing else ", where nothing waits"
        beside = {"bare": {**nothing["bare"], "aside": aside}} if nothing else {}
        beside |= {each: case[each] for each in ("peer", "peer_defaults") if each in case}
        for what, key, show in (
            ("of a core while it only waits", "cpu_fraction", _percent),
            ("memory at most", "peak_rss_bytes", _megabytes),
        ):
            others = [f"{NAMES[each]} {show(entry[key])}{entry.get('aside', '')}" for each, entry in beside.items()]
            yield f"{what}, {waiting}", show(_ours(case)[key]), "; ".join(others)


def _restart(cases: Cases) -> Iterator[Row]:
    for name, case in cases.items():
        ours = [
            f"{_seconds(case[f'gated, {start}'])} ({start})" for start in ("all", "recent") if f"gated, {start}" in case
        ]
        if "plain" in case:
            ours.append(f"{_seconds(case['plain'])} (the README's lines)")
        beside = [f"{NAMES[each]} {_seconds(case[each])}" for each in ("bare", "peer") if each in case]
        yield f"gap in deliveries, {name}", "; ".join(ours), "; ".join(beside)


def _bytes(cases: Cases) -> Iterator[Row]:
    log, questions, connections = cases["commit log"], cases["questions"], cases["connections"]
    where = "100 partitions, 10 reports a second each"
    yield (
        f"what a follower reads of the commit log, {where}",
        f"{_kilobytes(log['received_bytes_a_second'])}/s in {_show(log['fetches_a_second'], '{:.0f}')} fetches/s",
        "bare nothing",
    )
    answers, asked = _kilobytes(questions["received_bytes_a_second"]), _show(questions["requests_a_second"], "{:.1f}")
    yield f"what its questions cost the brokers, {where}", f"{answers}/s, {asked} requests/s", "bare nothing"
    yield "connections", _show(connections["gated"], "{:.0f}"), f"bare {_show(connections['bare'], '{:.0f}')}"


RENDERERS: list[tuple[str, Callable[[Cases], Iterable[Row]]]] = [
    ("release_latency", _release_latency),
    ("idle_release", _idle_release),
    ("catch_up", _catch_up),
    ("independence", _independence),
    ("refetch", _refetch),
    ("overhead", _overhead),
    ("restart", _restart),
    ("bytes", _bytes),
]
"""The scenarios that have rows, in the order of the table."""


def _ours(case: Cases) -> Any:
    return case["plain"] if "plain" in case else case["gated"]


def _by_rate(cases: Cases) -> dict[str, dict[str, Any]]:
    """The cases of each rate, by interval; their names are like ``5,000/s, every 10 ms``."""
    found: dict[str, dict[str, Any]] = {}
    for name, case in cases.items():
        rate, _, interval = name.partition("/s, every ")
        found.setdefault(rate, {})["1 s" if interval == "1000 ms" else interval] = case
    return found


def _every(mine: Cases) -> str:
    return f"a record every {', '.join(mine)}"


def _several(mine: Cases, pick: Callable[[Cases], Any], key: str, show: Show, unit: str = "ms") -> str:
    """One contender's values of one rate, in the order of the intervals."""
    return f"{', '.join(show(pick(case)[key]) for case in mine.values())} {unit}"


def _beside(mine: Cases, names: Iterable[str], key: str, show: Show, unit: str = "ms") -> str:
    there = [name for name in names if all(name in case for case in mine.values())]
    return "; ".join(f"{NAMES[name]} {_several(mine, operator.itemgetter(name), key, show, unit)}" for name in there)


def _show(value: Mapping[str, Any], form: str) -> str:
    """The median, and what else the form names."""
    median = value["median"]
    return "-" if median is None else form.format(median, **value)


def _ms(value: Mapping[str, Any]) -> str:
    return _show(value, "{:,.0f}" if (value["median"] or 0) >= 100 else "{:.2f}")


def _seconds(entry: Mapping[str, Any]) -> str:
    return _show(entry["silent_seconds"], "{:.2f} s")


def _kilobytes(value: Mapping[str, Any]) -> str:
    return _show({"median": value["median"] and value["median"] / 1e3}, "{:.0f} kB")


def _us(value: Mapping[str, Any]) -> str:
    return _show(value, "{:.1f}")


def _percent(value: Mapping[str, Any]) -> str:
    return _show(value, "{:.2%}")


def _megabytes(value: Mapping[str, Any]) -> str:
    return _show({"median": value["median"] and value["median"] / 1e6}, "{:.0f} MB")
