"""``release_latency``: from the producing of a commit record to the follower's code, while data keeps coming.

Per rate, each contender runs once a repetition, the leaders committing every 10 ms, 100 ms and 1 s in turn. The leaders
are 50 ms behind the data, so the messages are there when their record comes. Bare's speed, for the drain, is taken on
the messages of the gated run.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.benchmarks.bench import Bench, Data, Run
from tests.benchmarks.latency import Released, arrival_ms, released, throughput
from tests.benchmarks.numbers import distribution, greatest, least, median_of_ratios, summarise

PARTITIONS = 4
LAG_SECONDS = 0.05
WARM_UP_SECONDS = 0.5


def run(bench: Bench) -> dict[str, Any]:
    """All rates and intervals, for the floor, the gate with and without the wrapper, and the peer."""
    rates = bench.pick([5_000], [1_000, 5_000])
    seconds = bench.pick({0.01: 0.6, 0.1: 0.8}, {0.01: 2.0, 0.1: 3.0, 1.0: 6.1})
    contenders = bench.pick(["floor", "gated", "peer"], ["floor", "gated", "unwrapped", "peer"])
    cases: dict[str, Any] = {}
    for rate in rates:
        plan = [(0.05, WARM_UP_SECONDS), *seconds.items()]
        runs: dict[str, list[Run | None]] = {name: [] for name in contenders}
        bare: list[float | None] = []
        for _, name in bench.alternating(contenders):
            topic = bench.create_topic("latency", PARTITIONS)
            what = f"release_latency, {rate:,}/s, {name}"
            made = bench.attempt(what, lambda n=name, t=topic, r=rate, p=plan: tail(bench, n, t, r, p))  # type: ignore[misc]
            runs[name].append(made)
            if name == "gated":
                bare.append(None if made is None else bare_speed(bench, topic, made))
            bench.cluster.delete_topic(topic)
        for step, interval in enumerate(seconds, 1):
            cases[f"{rate:,}/s, every {interval * 1_000:g} ms"] = _case(runs, step, bare)
    return {"cases": cases, "summary": _summary(cases)}


def tail(
    bench: Bench, name: str, topic: str, rate: int, plan: list[tuple[float, float]], stopped: list[int] | None = None
) -> Run:
    """One contender follows leaders that are close behind the data.

    :param plan: pairs of the interval between the leaders' commits and how long it is kept up, both in seconds.
    :param stopped: partitions whose leader commits nothing.
    """
    commit_log = bench.create_topic("commit-log", 1)
    total = int(rate * sum(seconds for _, seconds in plan)) + 10_000
    steps: list[dict[str, Any]] = [
        {"kind": "stream", "rate": rate, "interval_seconds": interval, "lag_seconds": LAG_SECONDS, "seconds": seconds}
        for interval, seconds in plan
    ]
    with bench.contender(name, topic, PARTITIONS, commit_log=commit_log, capacity=total) as contender:
        feeder = bench.feed(
            name, topic, PARTITIONS, commit_log, steps=[*steps, {"kind": "finish"}], stopped=stopped or []
        )
        records, published = feeder.finish()
        run = contender.finish(records, [len(records.offset)] if name == "floor" else published)
    run.published = published
    bench.cluster.delete_topic(commit_log)
    return run


def bare_speed(bench: Bench, topic: str, gated: Run) -> float | None:
    """The speed of the same pipeline without a gate on the same messages, in messages per second."""
    bench.progress("bare on the same messages")
    data = Data(topic, gated.published, 200)
    made = bench.attempt("release_latency, bare", lambda: bench.catch_up("bare", data, record="times"))
    return None if made is None else throughput(made.deliveries)


def first_ms(run: Run, step: int) -> Any:
    """Per record of a step, the latency of the first message that it releases; the floor's: of the record itself."""
    assert run.records is not None
    if run.contender == "floor":
        return arrival_ms(run.deliveries, run.records, step)
    return _released(run, step).first_ms


def _released(run: Run, step: int) -> Released:
    assert run.records is not None
    return released(run.deliveries, run.records, step, range(PARTITIONS))


def _case(runs: dict[str, list[Run | None]], step: int, bare: list[float | None]) -> dict[str, Any]:
    """One rate and interval: every contender's latencies, and the ratios of runs of the same repetition."""
    found: dict[str, Any] = {}
    for name, mine in runs.items():
        repetitions = [{"first_ms": distribution(first_ms(each, step))} if each is not None else None for each in mine]
        if name != "floor":
            for entry, each in zip(repetitions, mine, strict=True):
                if entry is not None and each is not None:
                    details = _released(each, step)
                    drain = float(np.median(details.drain)) if len(details.drain) else None
                    entry |= {"all_ms": distribution(details.all_ms), "drain_per_second": drain}  # type: ignore[dict-item]
        found[name] = {"repetitions": repetitions}
    for name in found:
        for quantile in ("p50", "p99"):
            values = _values(found, name, "first_ms", quantile)
            found[name][f"first_{quantile}_ms"] = summarise(values)
            found[name][f"first_{quantile}_over_floor"] = median_of_ratios(
                values, _values(found, "floor", "first_ms", quantile)
            )
    drains = [None if each is None else each["drain_per_second"] for each in found["gated"]["repetitions"]]
    found["bare_per_second"] = summarise(bare)
    found["drain_over_bare"] = median_of_ratios(drains, bare)
    found["peer_p50_over_gated_p50"] = median_of_ratios(
        _values(found, "peer", "all_ms", "p50"), _values(found, "gated", "all_ms", "p50")
    )
    return found


def _values(found: dict[str, Any], name: str, what: str, quantile: str) -> list[float | None]:
    return [None if each is None else each[what][quantile] for each in found[name]["repetitions"]]


def _summary(cases: dict[str, Any]) -> dict[str, float | None]:
    each = list(cases.values())
    return {
        "release_latency.worst_first_p50_over_floor": greatest(c["gated"]["first_p50_over_floor"] for c in each),
        "release_latency.worst_first_p99_over_floor": greatest(c["gated"]["first_p99_over_floor"] for c in each),
        "release_latency.least_drain_over_bare": least(c["drain_over_bare"] for c in each),
        "release_latency.least_peer_p50_over_gated_p50": least(c["peer_p50_over_gated_p50"] for c in each),
    }
