"""``overhead``: what a pipeline costs while there is little or nothing to do, and with a deep backlog waiting.

CPU time is user + system of the whole process, librdkafka's threads and the commit-log reader included, and counts from
the moment that partitions were assigned: starting Python isn't part of it.
"""

from __future__ import annotations

import time
from typing import Any

from tests.benchmarks.bench import Bench, Data, Run
from tests.benchmarks.numbers import summarise
from tests.benchmarks.scenarios.release_latency import tail

PARTITIONS = 4
RATE = 5_000
INTERVAL_SECONDS = 0.1
SETTLE_SECONDS = 1.5


def run(bench: Bench) -> dict[str, Any]:
    """Tailing, idle with nothing there, and idle with a backlog that no leader has committed."""
    cases: dict[str, Any] = {}
    if not bench.quick:
        cases["tailing"] = _tailing(bench, ["bare", "gated", "peer"])
        empty = Data(bench.create_topic("overhead-empty", PARTITIONS), [0] * PARTITIONS, 0)
        cases["idle, nothing there"] = _idle(bench, empty, ["bare", "gated", "peer"])
    waiting = bench.load("overhead", PARTITIONS, bench.pick(100_000, 1_000_000), b"x" * 200)
    holding = _idle(bench, waiting, bench.pick(["gated"], ["gated", "peer"]))
    cases[f"idle, {sum(waiting.ends):,} messages waiting"] = holding
    bench.cluster.delete_topic(waiting.topic)
    return {
        "cases": cases,
        "summary": {"overhead.idle_cpu_fraction": holding["gated"]["cpu_fraction"]["median"]},
    }


def _tailing(bench: Bench, contenders: list[str]) -> dict[str, Any]:
    costs: dict[str, list[float | None]] = {name: [] for name in contenders}
    for _, name in bench.alternating(contenders):
        topic = bench.create_topic("overhead", PARTITIONS)
        plan = [(INTERVAL_SECONDS, 5.0)]
        made = bench.attempt(
            f"overhead, tailing, {name}",
            lambda n=name, t=topic, p=plan: tail(bench, n, t, RATE, p),  # type: ignore[misc]
        )
        costs[name].append(None if made is None else made.own_cpu_seconds / len(made.deliveries) * 1e6)
        bench.cluster.delete_topic(topic)
    return {name: {"cpu_us_per_message": summarise(mine)} for name, mine in costs.items()}


def _idle(bench: Bench, data: Data, contenders: list[str]) -> dict[str, Any]:
    fractions: dict[str, list[float | None]] = {name: [] for name in contenders}
    peaks: dict[str, list[float | None]] = {name: [] for name in contenders}
    for _, name in bench.alternating(contenders):
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
        time.sleep(bench.pick(1.0, 10.0))
        after = contender.program.usage()
        run = contender.finish(records, [0] * PARTITIONS)
    elapsed = (after["now_ns"] - before["now_ns"]) / 1e9
    run.result["idle_cpu_fraction"] = (after["cpu_seconds"] - before["cpu_seconds"]) / elapsed
    bench.cluster.delete_topic(commit_log)
    return run
