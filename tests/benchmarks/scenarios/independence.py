"""``independence``: partition 3's leader is stopped for the whole run. What do the other three lose?

The gate runs once with all leaders alive and once with that one stopped. Tailing, the three
others' throughput and p99 are compared. With the leaders far ahead the pipeline's speed is what counts, so there it is
all messages per second: a pipeline that waits for the held partition would be slower.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.benchmarks.bench import Bench, Run
from tests.benchmarks.latency import released, throughput
from tests.benchmarks.numbers import distribution, median_of_ratios, summarise
from tests.benchmarks.scenarios.catch_up import SKIP
from tests.benchmarks.scenarios.tailing import WARM_UP_SECONDS, tail

PARTITIONS = 4
STOPPED = 3
OTHERS = range(STOPPED)
RATE = 5_000
INTERVAL_SECONDS = 0.1
FAR_AHEAD_MESSAGES = 2_000_000
"""About 12 s of work for this pipeline, a quarter less with one partition held."""
FAR_AHEAD_REPETITIONS = 3

CASES: dict[str, tuple[str, list[int]]] = {
    "alive": ("gated", []),
    "stopped": ("gated", [STOPPED]),
    "plain, alive": ("plain", []),
    "plain, stopped": ("plain", [STOPPED]),
}
"""Each case's contender, and the partitions whose leader is stopped."""
SELDOM = ("plain, alive", "plain, stopped")


def run(bench: Bench) -> dict[str, Any]:
    """Tailing, then far ahead."""
    tailing = _tailing(bench, bench.pick(1.0, 10.0))
    far_ahead = _far_ahead(bench, bench.pick(150_000, FAR_AHEAD_MESSAGES))
    return {
        "cases": {"tailing": tailing, "far ahead": far_ahead},
        "summary": {
            "independence.throughput_ratio": tailing["throughput_ratio"]["median"],
            "independence.p99_ratio": tailing["p99_ratio"]["median"],
            "independence.far_ahead_throughput_ratio": far_ahead["throughput_ratio"]["median"],
            "independence.plain_throughput_ratio": tailing["plain_throughput_ratio"]["median"],
            "independence.plain_p99_ratio": tailing["plain_p99_ratio"]["median"],
            "independence.plain_far_ahead_throughput_ratio": far_ahead["plain_throughput_ratio"]["median"],
        },
    }


def _tailing(bench: Bench, seconds: float) -> dict[str, Any]:
    speeds: dict[str, list[float | None]] = {case: [] for case in CASES}
    latencies: dict[str, list[dict[str, Any] | None]] = {case: [] for case in CASES}
    plan = [(INTERVAL_SECONDS, WARM_UP_SECONDS), (INTERVAL_SECONDS, seconds)]
    for _, case in bench.alternating(list(CASES), SELDOM, bench.pick(1, 4)):
        topic = bench.create_topic("independence", PARTITIONS)
        made = bench.attempt(
            f"independence, tailing, {case}",
            lambda t=topic, c=CASES[case]: tail(bench, c[0], t, RATE, plan, c[1]),  # type: ignore[misc]
        )
        bench.cluster.delete_topic(topic)
        speeds[case].append(None if made is None else _speed_of_others(made))
        latencies[case].append(None if made is None else _latency_of_others(made))
    p99 = {case: [None if each is None else each["p99"] for each in mine] for case, mine in latencies.items()}
    return {
        "seconds": seconds,
        **{
            case: {
                "messages_per_second": summarise(speeds[case]),
                "p99_ms": summarise(p99[case]),
                "repetitions": latencies[case],
            }
            for case in CASES
        },
        **_ratios("throughput_ratio", speeds),
        **_ratios("p99_ratio", p99),
    }


def _speed_of_others(run: Run) -> float:
    """What the other partitions delivered while the leaders worked (the warm-up left out), per second."""
    assert run.records is not None
    published = run.records.time_ns[run.records.step == 1]
    begin, end = int(published.min()), int(published.max())
    times = run.deliveries.time_ns[run.deliveries.partition != STOPPED]
    return float(np.count_nonzero((times >= begin) & (times < end)) / (end - begin) * 1e9)


def _latency_of_others(run: Run) -> dict[str, Any]:
    assert run.records is not None
    return distribution(released(run.deliveries, run.records, 1, OTHERS).first_ms)


def _far_ahead(bench: Bench, messages: int) -> dict[str, Any]:
    data = bench.load("independence", PARTITIONS, messages, b"x" * 200)
    speeds: dict[str, list[float | None]] = {case: [] for case in CASES}
    for _, case in bench.alternating(list(CASES), SELDOM, bench.pick(1, FAR_AHEAD_REPETITIONS)):
        made = bench.attempt(
            f"independence, far ahead, {case}",
            lambda c=CASES[case]: bench.catch_up(c[0], data, stopped=c[1]),  # type: ignore[misc]
        )
        speeds[case].append(None if made is None else throughput(made.deliveries, SKIP))
    bench.cluster.delete_topic(data.topic)
    return {
        **{case: {"messages_per_second": summarise(speeds[case])} for case in CASES},
        **_ratios("throughput_ratio", speeds),
    }


def _ratios(name: str, values: dict[str, list[float | None]]) -> dict[str, Any]:
    """Stopped over alive, of both contenders."""
    return {
        name: median_of_ratios(values["stopped"], values["alive"]),
        f"plain_{name}": median_of_ratios(values["plain, stopped"], values["plain, alive"]),
    }
