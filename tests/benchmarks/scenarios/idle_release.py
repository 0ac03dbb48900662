"""``idle_release``: nothing new arrives, messages are held for 1 s or 6 s, then commits release them one by one.

Six seconds, because Arroyo pauses all partitions once its next step has rejected for five.
"""

from __future__ import annotations

from typing import Any

from tests.benchmarks.bench import FLOORS, Bench, Run
from tests.benchmarks.numbers import distribution, greatest, median_of_ratios, summarise
from tests.benchmarks.scenarios.release_latency import first_ms

PARTITIONS = 4
GAP_SECONDS = 0.025
SELDOM = ("unwrapped", "peer")


def run(bench: Bench) -> dict[str, Any]:
    """The floor, the gate as it is used in three ways, and the peer, after each time of holding."""
    contenders = bench.pick(["floor", "gated", "plain"], ["floor", "gated", "plain", "unwrapped", "peer"])
    holds = bench.pick([1.0], [1.0, 6.0])
    each_held = bench.pick(5, 20)
    cases: dict[str, Any] = {}
    for seconds in holds:
        runs: dict[str, list[Run | None]] = {name: [] for name in contenders}
        for _, name in bench.alternating(contenders, SELDOM):
            what = f"idle_release, held {seconds:g} s, {name}"
            runs[name].append(
                bench.attempt(what, lambda n=name, s=seconds: _run(bench, n, s, each_held))  # type: ignore[misc]
            )
        cases[f"held for {seconds:g} s"] = _case(runs)
    return {
        "cases": cases,
        "summary": {
            "idle_release.p99_over_floor_p99": greatest(case["gated"]["p99_over_floor"] for case in cases.values()),
            "idle_release.plain_p99_over_floor_p99": greatest(
                case["plain"]["p99_over_floor"] for case in cases.values()
            ),
        },
    }


def _run(bench: Bench, name: str, seconds: float, messages: int) -> Run:
    topic, commit_log = bench.create_topic("idle", PARTITIONS), bench.create_topic("commit-log", 1)
    steps = [
        # The first few of a run are slow everywhere: code is cold, and the broker has a new topic.
        {"kind": "hold", "messages": 2, "seconds": 0.2, "gap_seconds": GAP_SECONDS},
        {"kind": "hold", "messages": messages, "seconds": seconds, "gap_seconds": GAP_SECONDS},
    ]
    capacity = 10 * PARTITIONS * messages
    with bench.contender(name, topic, PARTITIONS, commit_log=commit_log, capacity=capacity) as contender:
        records, published = bench.feed(name, topic, PARTITIONS, commit_log, steps=steps).finish()
        run = contender.finish(records, [len(records.offset)] if name in FLOORS else published)
    bench.cluster.delete_topic(topic)
    bench.cluster.delete_topic(commit_log)
    return run


def _case(runs: dict[str, list[Run | None]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, mine in runs.items():
        repetitions = [None if each is None else distribution(first_ms(each, 1)) for each in mine]
        found[name] = {"repetitions": repetitions}
        for quantile in ("p50", "p99"):
            values = [None if each is None else each[quantile] for each in repetitions]
            floor = [None if each is None else each[quantile] for each in found["floor"]["repetitions"]]
            found[name][f"{quantile}_ms"] = summarise(values)
            found[name][f"{quantile}_over_floor"] = median_of_ratios(values, floor)
    return found
