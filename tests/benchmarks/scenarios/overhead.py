"""``overhead``: what a pipeline costs while it tails, while there is nothing to do, and with a deep backlog waiting.

CPU time is user + system of the whole process, librdkafka's threads and the commit-log reader included, and counts from
the moment that partitions were assigned: starting Python isn't part of it. Tailing, it is that of one step of a run of
`tailing`, over the messages that were delivered meanwhile. (`busy_floor` reads the commit log beside a pipeline without
a gate: what it costs more than `bare` is the price of hearing of every commit.)
"""

from __future__ import annotations

import time
from typing import Any

from tests.benchmarks.bench import Bench, Data, Run
from tests.benchmarks.numbers import greatest, median_of_ratios, summarise
from tests.benchmarks.scenarios import tailing
from tests.benchmarks.scenarios.tailing import PARTITIONS

TAILING_CONTENDERS = ("bare", "busy_floor", "gated", "plain", "peer")
SETTLE_SECONDS = 1.5
SELDOM = ("peer", "peer_defaults")
IDLE_REPETITIONS = 3


def run(bench: Bench) -> dict[str, Any]:
    """Tailing, idle with nothing there, and idle with a backlog that no leader has committed."""
    cases = _tailing(bench)
    worst = {name: greatest(case[name]["over_bare"] for case in cases.values()) for name in ("gated", "plain")}
    if not bench.quick:
        empty = Data(bench.create_topic("overhead-empty", PARTITIONS), [0] * PARTITIONS, 0)
        cases["idle, nothing there"] = _idle(bench, empty, ["bare", "gated", "plain", "peer"])
    waiting = bench.load("overhead", PARTITIONS, bench.pick(100_000, 1_000_000), b"x" * 200)
    holding = _idle(bench, waiting, bench.pick(["gated", "plain"], ["gated", "plain", "peer", "peer_defaults"]))
    cases[f"idle, {sum(waiting.ends):,} messages waiting"] = holding
    bench.cluster.delete_topic(waiting.topic)
    return {
        "cases": cases,
        "summary": {
            "overhead.tailing_cpu_over_bare": worst["gated"],
            "overhead.plain_tailing_cpu_over_bare": worst["plain"],
            "overhead.idle_cpu_fraction": holding["gated"]["cpu_fraction"]["median"],
            "overhead.plain_idle_cpu_fraction": holding["plain"]["cpu_fraction"]["median"],
        },
    }


def _tailing(bench: Bench) -> dict[str, Any]:
    """CPU time a message, by rate and interval."""
    cases: dict[str, Any] = {}
    for made in tailing.runs(bench):
        for case, step in made.steps.items():
            costs = {
                name: [None if each is None else each.cpu_us_per_message(step) for each in made.runs[name]]
                for name in TAILING_CONTENDERS
            }
            cases[f"tailing, {case}"] = {
                name: {
                    "cpu_us_per_message": summarise(mine),
                    "over_bare": median_of_ratios(mine, costs["bare"]),
                }
                for name, mine in costs.items()
            }
    return cases


def _idle(bench: Bench, data: Data, contenders: list[str]) -> dict[str, Any]:
    fractions: dict[str, list[float | None]] = {name: [] for name in contenders}
    peaks: dict[str, list[float | None]] = {name: [] for name in contenders}
    for _, name in bench.alternating(contenders, SELDOM, IDLE_REPETITIONS):
        made = bench.attempt(f"overhead, idle, {name}", lambda n=name: _wait(bench, n, data))  # type: ignore[misc]
        fractions[name].append(None if made is None else made.result["idle_cpu_fraction"])
        peaks[name].append(None if made is None else made.result["peak_rss_bytes"])
    return {
        name: {"cpu_fraction": summarise(fractions[name]), "peak_rss_bytes": summarise(peaks[name])}
        for name in contenders
    }


def _wait(bench: Bench, name: str, data: Data) -> Run:
    """Do nothing for a while: no leader has committed anything."""
    commit_log = bench.create_topic("commit-log", 1)
    with bench.contender(name, data.topic, PARTITIONS, commit_log=commit_log, capacity=10) as contender:
        records = bench.publish(name, data.topic, commit_log, [0] * PARTITIONS)
        time.sleep(SETTLE_SECONDS)
        before = contender.program.usage()
        time.sleep(bench.pick(1.0, 6.0))
        after = contender.program.usage()
        run = contender.finish(records, [0] * PARTITIONS)
    elapsed = (after["now_ns"] - before["now_ns"]) / 1e9
    run.result["idle_cpu_fraction"] = (after["cpu_seconds"] - before["cpu_seconds"]) / elapsed
    bench.cluster.delete_topic(commit_log)
    return run
