"""Tailing: contenders follow leaders that are 50 ms behind the data. The runs, for `release_latency` and `overhead`.

Per rate, each contender runs once a repetition, the leaders committing every 10 ms, 100 ms and 1 s in turn. The
messages are there when their record comes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.benchmarks.bench import FLOORS, Bench, Data, Run
from tests.benchmarks.latency import throughput

PARTITIONS = 4
LAG_SECONDS = 0.05
WARM_UP_SECONDS = 0.5

CONTENDERS = ("floor", "busy_floor", "bare", "gated", "plain", "unwrapped", "peer")
SELDOM = ("unwrapped", "peer")


@dataclass
class Tailing:
    """The runs at one rate."""

    steps: dict[str, int]
    """The case's name, ``1,000/s, every 10 ms``, and the number of the step of the plan that it is."""
    runs: dict[str, list[Run | None]]
    """Per contender, by repetition."""
    bare_speeds: list[float | None]
    """By repetition, how fast the pipeline without a gate goes through the messages of the gated run, all at once."""


def runs(bench: Bench) -> list[Tailing]:
    """The runs at every rate: made once for all scenarios that ask."""
    if "tailing" not in bench.shared:
        bench.shared["tailing"] = [_runs(bench, rate) for rate in bench.pick([5_000], [1_000, 5_000])]
    made: list[Tailing] = bench.shared["tailing"]
    return made


def _runs(bench: Bench, rate: int) -> Tailing:
    seconds = bench.pick({0.01: 0.6, 0.1: 0.8}, {0.01: 2.0, 0.1: 2.0, 1.0: 4.1})
    contenders = [name for name in CONTENDERS if not bench.quick or name != "unwrapped"]
    plan = [(0.05, WARM_UP_SECONDS), *seconds.items()]
    made: dict[str, list[Run | None]] = {name: [] for name in contenders}
    speeds: list[float | None] = []
    for _, name in bench.alternating(contenders, SELDOM):
        topic = bench.create_topic("tailing", PARTITIONS)
        run = bench.attempt(f"tailing, {rate:,}/s, {name}", lambda n=name, t=topic: tail(bench, n, t, rate, plan))  # type: ignore[misc]
        made[name].append(run)
        if name == "gated":
            speeds.append(None if run is None else _bare_speed(bench, topic, run))
        bench.cluster.delete_topic(topic)
    names = [f"{rate:,}/s, every {interval * 1_000:g} ms" for interval in seconds]
    return Tailing({name: step for step, name in enumerate(names, 1)}, made, speeds)


def tail(
    bench: Bench,
    name: str,
    topic: str,
    rate: int,
    plan: list[tuple[float, float]],
    stopped: list[int] | None = None,
    start: list[int] | None = None,
    **options: Any,
) -> Run:
    """One contender follows leaders that are close behind the data.

    :param plan: pairs of the interval between the leaders' commits and how long it is kept up, both in seconds.
    :param stopped: partitions whose leader commits nothing.
    :param start: per partition, how many messages are there already.
    :param options: of the contender, see `Bench.contender`.
    """
    commit_log = bench.create_topic("commit-log", 1)
    start = [0] * PARTITIONS if start is None else start
    partitions = len(start)
    total = int(rate * sum(seconds for _, seconds in plan)) + 10_000
    steps: list[dict[str, Any]] = [
        {"kind": "stream", "rate": rate, "interval_seconds": interval, "lag_seconds": LAG_SECONDS, "seconds": seconds}
        for interval, seconds in plan
    ]
    usage: list[dict[str, Any]] = []
    with bench.contender(name, topic, partitions, commit_log=commit_log, capacity=total, **options) as contender:
        steps.append({"kind": "finish"})
        feeder = bench.feed(name, topic, partitions, commit_log, steps=steps, stopped=stopped or [], start=start)
        records, published = feeder.finish(lambda: usage.append(contender.program.usage()))
        run = contender.finish(records, [len(records.offset)] if name in FLOORS else published)
    run.published, run.usage = published, usage
    bench.cluster.delete_topic(commit_log)
    return run


def _bare_speed(bench: Bench, topic: str, gated: Run) -> float | None:
    """The speed of the same pipeline without a gate on the same messages, in messages per second."""
    bench.progress("bare on the same messages")
    data = Data(topic, gated.published, 200)
    made = bench.attempt("tailing, bare", lambda: bench.catch_up("bare", data, record="times"))
    return None if made is None else throughput(made.deliveries)
