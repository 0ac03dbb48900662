"""``interpreter``: what each piece of `tune_interpreter` brings to a follower that has the README's lines else.

Runs only when it is asked for. A leader commits every 10 ms. Once the follower's step computes for a tenth of a
millisecond a message, in Python; once 40,000 messages of other partitions are held; once both.
"""

from __future__ import annotations

from typing import Any

from confluent_kafka import Producer

from tests.benchmarks.bench import Bench, Run
from tests.benchmarks.latency import released
from tests.benchmarks.numbers import distribution, summarise
from tests.benchmarks.scenarios.tailing import PARTITIONS, tail

PIECES: dict[str, list[str]] = {
    "nothing": [],
    "switch interval": ["switch interval"],
    "collector": ["collector"],
    "both": ["switch interval", "collector"],
}
RATE = 2_000
INTERVAL_SECONDS = 0.01
HELD = 10_000
"""Messages of each of four partitions whose leader has stopped."""
COMPUTING: dict[str, Any] = {"follower": "compute", "loops": 4_000}


def run(bench: Bench) -> dict[str, Any]:
    """All pieces, alternating."""
    cases = {
        "computing": _case(bench, 0, COMPUTING),
        "40,000 held": _case(bench, HELD, {}),
        "40,000 held, computing": _case(bench, HELD, COMPUTING),
    }
    return {"cases": cases, "summary": {}}


def _case(bench: Bench, held: int, work: dict[str, Any]) -> dict[str, Any]:
    runs: dict[str, list[Run | None]] = {name: [] for name in PIECES}
    for _, name in bench.alternating(list(PIECES), at_most=3):
        what = f"interpreter, {held} held, {name}"
        made = bench.attempt(what, lambda n=name: _run(bench, PIECES[n], held, work))  # type: ignore[misc]
        runs[name].append(made)
    return {name: _numbers(mine) for name, mine in runs.items()}


def _run(bench: Bench, pieces: list[str], held: int, work: dict[str, Any]) -> Run:
    stopped = list(range(PARTITIONS, 2 * PARTITIONS)) if held else []
    partitions = PARTITIONS + len(stopped)
    topic = bench.create_topic("interpreter", partitions)
    producer = Producer({"bootstrap.servers": bench.cluster.bootstrap_servers, "linger.ms": 5, "log_level": 2})
    for number in range(held * len(stopped)):
        producer.produce(topic, b"x" * 200, partition=stopped[number % len(stopped)])
        producer.poll(0)
    if producer.flush(60):
        raise RuntimeError("the broker didn't take all messages within 60 s")
    start = [0] * PARTITIONS + [held] * len(stopped)
    plan = [(0.05, 1.0), (INTERVAL_SECONDS, bench.pick(1.0, 5.0))]
    options = {"pieces": pieces, "watch_collector": True, **work}
    run = tail(bench, "plain", topic, RATE, plan, stopped, start=start, **options)
    bench.cluster.delete_topic(topic)
    return run


def _numbers(runs: list[Run | None]) -> dict[str, Any]:
    values: dict[str, list[float | None]] = {}
    for run in runs:
        found: dict[str, Any] = {}
        if run is not None:
            assert run.records is not None
            first = distribution(released(run.deliveries, run.records, 1, range(PARTITIONS)).first_ms)
            found = {"first_p50_ms": first["p50"], "first_p99_ms": first["p99"], **run.result}
        for name in ("first_p50_ms", "first_p99_ms", "collector_ms", "collector_longest_ms"):
            values.setdefault(name, []).append(found.get(name))
    return {name: summarise(each) for name, each in values.items()}
