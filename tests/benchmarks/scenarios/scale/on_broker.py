"""What a follower of many partitions costs on the real broker, beside the same pipeline without a gate.

CPU time is user + system of the whole process. A pipeline without a gate holds nothing: idle, it has delivered all.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from confluent_kafka import Producer

from tests.benchmarks import commit_records
from tests.benchmarks.bench import LEADER_GROUP, Bench, Contender, Run
from tests.benchmarks.numbers import summarise
from tests.benchmarks.promises import CommitRecords

PARTITIONS = (10, 100, 1_000)
IDLE, ONE_MOVES, ALL_MOVE = "idle_cpu", "one_moves_cpu", "all_move_cpu"
SETTLE_SECONDS = 2.0
"""Until what an assignment asks is answered, and the monitor has looked."""
MOVES_PER_SECOND = 10
"""Of the one partition that moves. Where all do, each moves once a second."""


def measure_on_broker(bench: Bench) -> list[dict[str, Any]]:
    """The share of a core, by contender and number of partitions."""
    contenders = bench.pick(["gated"], ["bare", "gated"])
    found: dict[tuple[str, int], list[Run | None]] = {}
    for partitions in bench.pick((10, 1_000), PARTITIONS):
        for round_ in range(bench.pick(1, 2)):
            for name in contenders if round_ % 2 == 0 else reversed(contenders):
                bench.progress(f"round {round_ + 1}: {partitions} partitions, {name}")
                what = f"scale, {partitions} partitions, {name}"
                run = bench.attempt(what, lambda n=name, p=partitions: _run(bench, n, p))  # type: ignore[misc]
                found.setdefault((name, partitions), []).append(run)
    return [
        {
            "contender": name,
            "partitions": partitions,
            **{
                state: summarise([None if run is None else run.result[state] for run in runs])
                for state in (IDLE, ONE_MOVES, ALL_MOVE)
            },
        }
        for (name, partitions), runs in found.items()
    ]


class _Leaders:
    """Produces messages, and says of each partition's earlier ones that they were committed."""

    def __init__(self, bench: Bench, topic: str, commit_log: str, partitions: int) -> None:
        self._topic = topic
        self._commit_log = commit_log
        self._producer = Producer(
            {"bootstrap.servers": bench.cluster.bootstrap_servers, "linger.ms": 2, "log_level": 2}
        )
        self._rows: list[tuple[int, ...]] = []
        self.ends = [0] * partitions

    def move(self, indexes: Sequence[int]) -> None:
        """A message more in each, and the one before it is committed."""
        for partition in indexes:
            if self.ends[partition]:
                self._commit(partition, self.ends[partition])
            self._producer.produce(self._topic, b"x" * 200, partition=partition)
            self.ends[partition] += 1
        self._producer.poll(0)

    def commit_all(self) -> None:
        """The last ones, too."""
        for partition, end in enumerate(self.ends):
            self._commit(partition, end)
        self.flush()

    def flush(self) -> None:
        """Wait until the broker has everything."""
        if self._producer.flush(60):
            raise RuntimeError("the broker didn't take all messages within 60 s")

    def records(self) -> CommitRecords:
        """What was published."""
        return CommitRecords.of_rows(self._rows)

    def _commit(self, partition: int, offset: int) -> None:
        key, value = commit_records.encode("json", self._topic, partition, LEADER_GROUP, offset)
        self._rows.append((time.perf_counter_ns(), partition, offset, 0, 0))
        self._producer.produce(self._commit_log, value, key)


def _run(bench: Bench, name: str, partitions: int) -> Run:
    topic, commit_log = bench.create_topic("scale", partitions), bench.create_topic("commit-log", 1)
    leaders = _Leaders(bench, topic, commit_log, partitions)
    every = range(partitions)
    seconds = bench.pick(0.5, 3.0)
    with bench.contender(
        name, topic, partitions, commit_log=commit_log, capacity=100 * partitions + 1_000
    ) as contender:
        leaders.move(every)
        leaders.move(every)
        leaders.flush()
        found = {}
        time.sleep(SETTLE_SECONDS)
        begun = _usage(contender)
        time.sleep(seconds)
        found[IDLE] = _share(begun, _usage(contender))

        begun = _usage(contender)
        for _ in range(int(seconds * MOVES_PER_SECOND)):
            leaders.move([0])
            time.sleep(1 / MOVES_PER_SECOND)
        found[ONE_MOVES] = _share(begun, _usage(contender))

        begun = _usage(contender)
        done, begin = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - begin) < seconds:
            due = int(elapsed * partitions)
            leaders.move([number % partitions for number in range(done, due)])
            done = due
            time.sleep(0.05)
        found[ALL_MOVE] = _share(begun, _usage(contender))

        leaders.commit_all()
        run = contender.finish(leaders.records(), leaders.ends)
    run.result.update(found)
    bench.cluster.delete_topic(topic)
    bench.cluster.delete_topic(commit_log)
    return run


def _usage(contender: Contender) -> dict[str, Any]:
    return contender.program.usage()


def _share(before: dict[str, Any], after: dict[str, Any]) -> float:
    """Of a core."""
    seconds: float = (after["cpu_seconds"] - before["cpu_seconds"]) / (after["now_ns"] - before["now_ns"]) * 1e9
    return seconds
