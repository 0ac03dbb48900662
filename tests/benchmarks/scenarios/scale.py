"""``scale``: what the gate costs with 1 to 1,000 partitions and 1 to 10 leader groups, in process, with no broker.

Three costs, in microseconds: of ``submit`` of a released message, of ``poll`` when no remote offset has moved, and of
one remote offset that moves, from the leader's statement through the gate's ``poll`` to the one message it releases.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import numpy as np
from arroyo.backends.kafka import KafkaPayload
from arroyo.processing.strategies.noop import Noop
from arroyo.types import BrokerValue, Message, Partition, Topic

from arroyo_sync import HighWatermarks, RemoteOffsetSource, SynchronizedPartitionStateManager, SynchronizedStrategy
from arroyo_sync.core.state import PartitionKey
from arroyo_sync.leaders.commit_report import CommitReport
from arroyo_sync.leaders.leader_offsets import LeaderOffsets
from tests.benchmarks.bench import Bench
from tests.benchmarks.numbers import summarise

TOPIC = Topic("events")
PARTITIONS = (1, 10, 100, 1_000)
GROUPS = (1, 3, 10)
FAR = 10**9
CHUNK = 100
"""So many calls are timed together, and the median over the chunks counts: other programs share the machine."""


class _Source(RemoteOffsetSource):
    """The reader's bookkeeping without its Kafka."""

    def __init__(self, groups: int) -> None:
        self.leaders = LeaderOffsets(f"group-{number}" for number in range(groups))
        self.leaders.enable()
        self._log_offset = 0

    @property
    def unverified(self) -> Mapping[PartitionKey, int]:
        return self.leaders.unverified

    def start(self, manager: SynchronizedPartitionStateManager) -> None:
        self.leaders.attach(manager)

    def check(self) -> None:
        pass

    def stop(self, timeout: float) -> None:
        pass

    def assign(self, positions: Mapping[PartitionKey, int], watermarks: HighWatermarks | None) -> None:
        self.leaders.assign(positions)

    def revoke(self, partitions: Collection[PartitionKey]) -> None:
        self.leaders.revoke(partitions)

    def received(self, topic: str, partition: int, next_offset: int) -> None:
        self.leaders.received((topic, partition), next_offset)

    def publish(self, group: str, partition: int, offset: int) -> None:
        """One commit record."""
        self._log_offset += 1
        report = CommitReport((TOPIC.name, partition), group, offset, 1, 0, self._log_offset)
        self.leaders.apply([report], 0.0)


def run(bench: Bench) -> dict[str, Any]:
    """The three costs for every number of partitions and groups, the median and spread over the repetitions."""
    costs: dict[tuple[int, int], list[dict[str, float]]] = {}
    for repetition in range(bench.repetitions):
        for partitions in PARTITIONS:
            for groups in GROUPS:
                bench.progress(f"repetition {repetition + 1}: {partitions} partitions, {groups} groups")
                with _no_collection():
                    measured = _measure(partitions, groups, bench.pick(2_000, 20_000))
                costs.setdefault((partitions, groups), []).append(measured)
    points = [
        {
            "partitions": partitions,
            "groups": groups,
            **{name: summarise([each[name] for each in mine]) for name in mine[0]},
        }
        for (partitions, groups), mine in costs.items()
    ]
    return {"cases": {"points": points}, "summary": {}}


def _measure(partitions: int, groups: int, rounds: int) -> dict[str, float]:
    manager = SynchronizedPartitionStateManager()
    source = _Source(groups)
    source.start(manager)
    keys = [Partition(TOPIC, index) for index in range(partitions)]
    source.assign({(TOPIC.name, index): 0 for index in range(partitions)}, None)
    gate: SynchronizedStrategy[Any] = SynchronizedStrategy(Noop(), manager, source, dict.fromkeys(keys, 0))
    # All groups but the first are far ahead, so that every record of the first one moves the remote offset.
    for group in source.leaders.groups[1:]:
        for index in range(partitions):
            source.publish(group, index, FAR)
            source.received(TOPIC.name, index, FAR)
    offsets = [0] * partitions

    def message(index: int) -> Message[KafkaPayload]:
        offsets[index] += 1
        payload = KafkaPayload(None, b"x" * 200, [])
        return Message(BrokerValue(payload, Partition(TOPIC, index), offsets[index] - 1, datetime(2026, 1, 1)))

    first = source.leaders.groups[0]
    moving: list[int] = []
    for number in range(rounds):
        index = number % partitions
        gate.submit(message(index))
        gate.poll()
        begin = time.perf_counter_ns()
        source.publish(first, index, offsets[index])
        gate.poll()
        moving.append(time.perf_counter_ns() - begin)

    for index in range(partitions):
        source.publish(first, index, FAR)
        source.received(TOPIC.name, index, FAR)
    gate.poll()
    batch = [message(number % partitions) for number in range(rounds)]
    submits, polls = [], []
    for start in range(0, rounds, CHUNK):
        begin = time.perf_counter_ns()
        for each in batch[start : start + CHUNK]:
            gate.submit(each)
        submitted = time.perf_counter_ns()
        for _ in range(CHUNK):
            gate.poll()
        submits.append(submitted - begin)
        polls.append(time.perf_counter_ns() - submitted)
    if gate.buffers.held_messages:
        raise RuntimeError("the gate held messages that were released: the costs are not those of handing on")
    return {
        "submit_us": float(np.median(submits)) / CHUNK / 1e3,
        "poll_us": float(np.median(polls)) / CHUNK / 1e3,
        "move_us": float(np.median(moving)) / 1e3,
    }


@contextmanager
def _no_collection() -> Iterator[None]:
    """Without Python's garbage collector, whose pauses depend on all that the benchmark itself holds."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
