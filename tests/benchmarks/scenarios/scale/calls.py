"""What single calls of the gate cost with 1 to 10,000 partitions and 1 to 10 leader groups, in process, with no broker.

Three costs, in microseconds: of ``submit`` of a released message, of ``poll`` when no remote offset has moved, and of
one remote offset that moves, from the leader's statement through the gate's ``poll`` to the one message it releases.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import numpy as np
from arroyo.backends.kafka import KafkaPayload
from arroyo.processing.strategies.noop import Noop
from arroyo.types import BrokerValue, Message, Partition, Topic

from arroyo_sync import SynchronizedPartitionStateManager, SynchronizedStrategy
from tests.benchmarks.bench import Bench
from tests.benchmarks.numbers import summarise
from tests.benchmarks.scenarios.scale.source import FAR, BookkeepingSource

TOPIC = Topic("events")
PARTITIONS = (1, 100, 1_000, 10_000)
GROUPS = (1, 10)
CHUNK = 100
"""So many calls are timed together, and the median over the chunks counts: other programs share the machine."""


def measure_calls(bench: Bench) -> list[dict[str, Any]]:
    """The three costs for every number of partitions and groups, the median and spread over the repetitions."""
    costs: dict[tuple[int, int], list[dict[str, float]]] = {}
    for repetition in range(bench.pick(1, 3)):
        for partitions in bench.pick((1_000,), PARTITIONS):
            for groups in GROUPS:
                bench.progress(f"repetition {repetition + 1}: {partitions} partitions, {groups} groups")
                with _no_collection():
                    measured = _measure(partitions, groups, bench.pick(2_000, 20_000))
                costs.setdefault((partitions, groups), []).append(measured)
    return [
        {
            "partitions": partitions,
            "groups": groups,
            **{name: summarise([each[name] for each in mine]) for name in mine[0]},
        }
        for (partitions, groups), mine in costs.items()
    ]


def _measure(partitions: int, groups: int, rounds: int) -> dict[str, float]:
    manager = SynchronizedPartitionStateManager()
    source = BookkeepingSource([f"group-{number}" for number in range(groups)], TOPIC.name)
    source.start(manager)
    keys = [Partition(TOPIC, index) for index in range(partitions)]
    source.assign({(TOPIC.name, index): 0 for index in range(partitions)}, None)
    gate: SynchronizedStrategy[Any] = SynchronizedStrategy(Noop(), manager, source, dict.fromkeys(keys, 0))
    # All groups but the first are far ahead, so that every record of the first one moves the remote offset.
    for group in source.leaders.groups[1:]:
        source.publish(group, [(index, FAR) for index in range(partitions)])
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
        source.publish(first, [(index, offsets[index])])
        gate.poll()
        moving.append(time.perf_counter_ns() - begin)

    source.publish(first, [(index, FAR) for index in range(partitions)])
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
