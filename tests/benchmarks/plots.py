"""The pictures: latency curves, throughput bars, curves of scale."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tests.benchmarks.numbers import CURVE_POINTS

COLOURS = {
    "floor": "#7f7f7f",
    "bare": "#4c78a8",
    "busy_floor": "#404040",
    "gated": "#2a9d4a",
    "plain": "#8e5bb5",
    "unwrapped": "#e6a817",
    "peer_bare": "#c9a0a0",
    "peer": "#c0392b",
}
LABELS = {
    "floor": "floor: bare consumer of the commit log",
    "bare": "Arroyo without a gate",
    "busy_floor": "busy floor: the same beside a pipeline",
    "gated": "arroyo-sync",
    "plain": "arroyo-sync, the README's lines alone",
    "unwrapped": "arroyo-sync without flow control",
    "peer_bare": "Arroyo 0.2.2 without a gate",
    "peer": "SynchronizedConsumer (Arroyo 0.2.2)",
}
STYLE: Any = {
    "font.size": 9,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.dpi": 150,
}


def draw(document: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draw what was measured into ``folder``: one PNG for each scenario that has a picture. Returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    scenarios = document["scenarios"]
    drawn: list[Path] = []
    with mpl.rc_context(STYLE):
        for name, picture in PICTURES.items():
            if name in scenarios:
                figure = picture(scenarios[name]["cases"])
                engine = figure.get_layout_engine()
                assert engine is not None
                engine.set(rect=(0, 0.04, 1, 0.96))  # type: ignore[call-arg]  # room for the line below
                figure.text(0.995, 0.005, _origin(document), ha="right", va="bottom", fontsize=6, color="#888888")
                drawn.append(folder / f"{name}.png")
                figure.savefig(drawn[-1])
    return drawn


def _origin(document: Mapping[str, Any]) -> str:
    where = document["environment"]
    kind = "quick run" if where["quick"] else f"{where['repetitions']} repetitions"
    return f"{where['cpus']} shared cores, broker on loopback, Python {where['python']}, {kind}"


def latency_curves(cases: Mapping[str, Any]) -> Figure:
    """ECDFs on a logarithmic axis, one panel a case."""
    columns = min(3, len(cases))
    rows = -(-len(cases) // columns)
    figure = Figure(figsize=(3.4 * columns, 2.5 * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for axis, (title, case) in zip(axes.flat, cases.items(), strict=False):
        for name, entry in case.items():
            if name in COLOURS:
                _curve(axis, name, entry["repetitions"])
        axis.set_xscale("log")
        axis.set_title(title, fontsize=9)
    for axis in axes[-1]:
        axis.set_xlabel("commit record produced → follower's code, ms")
    for axis in axes[:, 0]:
        axis.set_ylabel("share released")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(4, len(labels)), frameon=False, fontsize=8)
    return figure


def _curve(axis: Axes, name: str, repetitions: list[Any]) -> None:
    """Every repetition's curve thinly, named once."""
    label: str | None = LABELS[name]
    for entry in repetitions:
        curve = entry and entry.get("first_ms", entry)["curve"]
        if curve:
            shares = [point / 100 for point in CURVE_POINTS]
            axis.plot(curve, shares, color=COLOURS[name], alpha=0.6, linewidth=1.2, label=label)
            label = None


def throughput_bars(cases: Mapping[str, Any]) -> Figure:
    """Messages per second, the bar at the median, the whisker from the lowest to the highest repetition."""
    titles = {"nothing": "follower does nothing, 200 B", "json": "follower parses 2 kB of JSON"}
    figure = Figure(figsize=(9.5, 3.2), layout="constrained")
    axes = figure.subplots(1, len(cases), squeeze=False)[0]
    for axis, (case, found) in zip(axes, cases.items(), strict=True):
        for place, (name, entry) in enumerate(reversed(found.items())):
            speed = entry["messages_per_second"]
            if speed["median"] is None:
                continue
            whisker = [[speed["median"] - speed["low"]], [speed["high"] - speed["median"]]]
            axis.barh(place, speed["median"], xerr=whisker, color=COLOURS[name], ecolor="#333333", capsize=2)
        names = [_with_ratio(name, found[name]["over_bare"]["median"]) for name in reversed(found)]
        axis.set_yticks(range(len(found)), names)
        axis.set_title(titles[case], fontsize=9)
        axis.set_xlabel("messages per second")
        axis.xaxis.set_major_formatter(lambda value, _: f"{value / 1_000:g}k")
        axis.xaxis.set_major_locator(mpl.ticker.MaxNLocator(5))
        axis.grid(axis="y", visible=False)
    figure.suptitle("catching up, the leaders far ahead", fontsize=10)
    return figure


def cpu_bars(cases: Mapping[str, Any]) -> Figure:
    """CPU time a message while tailing, a group of bars each rate and interval, with whiskers as above."""
    tailing = {name.removeprefix("tailing, "): case for name, case in cases.items() if name.startswith("tailing, ")}
    names = [name for name in COLOURS if all(name in case for case in tailing.values())]
    figure = Figure(figsize=(9.5, 3.2), layout="constrained")
    axis = figure.subplots()
    width = 0.8 / max(1, len(names))
    for place, name in enumerate(names):
        costs = [(at, case[name]["cpu_us_per_message"]) for at, case in enumerate(tailing.values())]
        known = [
            (at + (place - len(names) / 2 + 0.5) * width, cost) for at, cost in costs if cost["median"] is not None
        ]
        whiskers = [
            [cost["median"] - cost["low"] for _, cost in known],
            [cost["high"] - cost["median"] for _, cost in known],
        ]
        axis.bar(
            [at for at, _ in known],
            [cost["median"] for _, cost in known],
            width,
            yerr=whiskers,
            color=COLOURS[name],
            ecolor="#333333",
            capsize=2,
            label=LABELS[name],
        )
    axis.set_xticks(range(len(tailing)), list(tailing))
    axis.set_ylabel("CPU, us a message")
    axis.grid(axis="x", visible=False)
    figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=8)
    return figure


def _with_ratio(name: str, ratio: float | None) -> str:
    return LABELS[name] if ratio is None or "bare" in name else f"{LABELS[name]}\n{ratio:.2f} of that without a gate"


def scale_curves(cases: Mapping[str, Any]) -> Figure:
    """Cost against the number of partitions, one line a number of groups."""
    titles = {"submit_us": "submit", "poll_us": "poll, nothing moved", "move_us": "one remote offset moves"}
    points = cases["points"]
    groups = sorted({point["groups"] for point in points})
    figure = Figure(figsize=(9, 2.8), layout="constrained")
    axes = figure.subplots(1, len(titles), squeeze=False)[0]
    for axis, (cost, title) in zip(axes, titles.items(), strict=True):
        for number, group in enumerate(groups):
            mine = sorted((each for each in points if each["groups"] == group), key=lambda each: each["partitions"])
            middle = [each[cost]["median"] for each in mine]
            below = [each[cost]["median"] - each[cost]["low"] for each in mine]
            above = [each[cost]["high"] - each[cost]["median"] for each in mine]
            label = f"{group} leader group{'s' if group > 1 else ''}"
            shade = mpl.colormaps["viridis"](0.15 + 0.35 * number)
            partitions = [each["partitions"] for each in mine]
            axis.errorbar(
                partitions, middle, [below, above], marker="o", markersize=3, capsize=2, label=label, color=shade
            )
        axis.set_xscale("log")
        axis.set_ylim(bottom=0)
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("partitions")
    axes[0].set_ylabel("microseconds")
    axes[0].legend(frameon=False, fontsize=8)
    return figure


PICTURES = {
    "release_latency": latency_curves,
    "idle_release": latency_curves,
    "catch_up": throughput_bars,
    "overhead": cpu_bars,
    "scale": scale_curves,
}
