"""A whole follower with any number of partitions and no broker, in a process of its own, whose CPU time it tells.

All is the real thing but the data consumer, which hands out what it is given, and the reader's Kafka. A monitor looks
once a second, and its metrics go to a backend that does nothing. The leaders' offset of every partition is known before
the assignment, as it is once the commit log was read; one message of each partition is released, one is held.

Configuration on the first line of standard input, one line of JSON out.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from arroyo.backends.abstract import Consumer
from arroyo.backends.kafka import KafkaPayload
from arroyo.processing import StreamProcessor
from arroyo.processing.strategies import CommitOffsets, ProcessingStrategy, ProcessingStrategyFactory
from arroyo.types import BrokerValue, Commit, Message, Partition, Topic
from arroyo.utils.metrics import DummyMetricsBackend, Metrics, Tags, configure_metrics

from arroyo_sync import SynchronizedStrategyFactory
from arroyo_sync.observe.metrics_reporter import MetricsReporter
from arroyo_sync.observe.monitor import Monitor
from tests.benchmarks.contenders.child import emit, usage
from tests.benchmarks.scenarios.scale.source import BookkeepingSource
from tests.support.passing_step import PassingStep

TOPIC = Topic("events")
GROUP = "leaders"
LOOKS = 5
WAITED_SECONDS = 60.0
"""Long enough to be told of, too short for a stall."""
SETTLE_SECONDS = 1.2
"""Until the monitor has looked once more."""
READY_SECONDS = 60.0
MOVES_PER_SECOND = 10
"""Of the one partition that moves. Where all do, each moves once a second."""
TICK_SECONDS = 0.1


class FakeConsumer(Consumer[KafkaPayload]):
    """Hands out what `give` was given; `poll` waits for it. Assigns all partitions in the first poll.

    Threads: `give` may be called by any, all else by the processor's.
    """

    def __init__(self, partitions: Sequence[Partition]) -> None:
        self._positions = dict.fromkeys(partitions, 0)
        self._on_assign: Any = None
        self._staged: dict[Partition, int] = {}
        self._given: deque[BrokerValue[KafkaPayload]] = deque()
        self._is_given = threading.Event()
        self._is_closed = False
        self.assigned_at = 0.0

    def give(self, values: Sequence[BrokerValue[KafkaPayload]]) -> None:
        """Messages that have arrived."""
        self._given.extend(values)
        self._is_given.set()

    def subscribe(self, topics: Sequence[Topic], on_assign: Any = None, on_revoke: Any = None) -> None:
        self._on_assign = on_assign

    def poll(self, timeout: float | None = None) -> BrokerValue[KafkaPayload] | None:
        if self._on_assign is not None:
            on_assign, self._on_assign = self._on_assign, None
            self.assigned_at = time.perf_counter()
            on_assign(dict(self._positions))
        if not self._given and timeout:
            self._is_given.wait(timeout)
        self._is_given.clear()
        if not self._given:
            return None
        value = self._given.popleft()
        self._positions[value.partition] = value.next_offset
        return value

    def tell(self) -> Mapping[Partition, int]:
        return self._positions

    def stage_offsets(self, offsets: Mapping[Partition, int]) -> None:
        self._staged.update(offsets)

    def commit_offsets(self) -> Mapping[Partition, int]:
        staged, self._staged = self._staged, {}
        return staged

    def pause(self, partitions: Sequence[Partition]) -> None: ...
    def resume(self, partitions: Sequence[Partition]) -> None: ...
    def seek(self, offsets: Mapping[Partition, int]) -> None: ...
    def unsubscribe(self) -> None: ...

    def paused(self) -> Sequence[Partition]:
        return []

    def close(self, timeout: float | None = None) -> None:
        self._is_closed = True

    @property
    def closed(self) -> bool:
        return self._is_closed

    @property
    def member_id(self) -> str:
        return "fake"


class Released(PassingStep):
    """Counts, and knows when the first message came."""

    def __init__(self, counts: Counts, next_step: ProcessingStrategy[Any]) -> None:
        super().__init__(next_step)
        self._counts = counts

    def submit(self, message: Message[Any]) -> None:
        self._counts.add()
        self._next_step.submit(message)


class Counts(ProcessingStrategyFactory[Any]):
    """Makes the user's step, and keeps what it has seen."""

    def __init__(self) -> None:
        self.released = 0
        self.first_at: float | None = None

    def add(self) -> None:
        """One more."""
        if self.first_at is None:
            self.first_at = time.perf_counter()
        self.released += 1

    def create_with_partitions(self, commit: Commit, partitions: Mapping[Partition, int]) -> ProcessingStrategy[Any]:
        return Released(self, CommitOffsets(commit))


class NoMetrics(Metrics):
    """Takes every metric and does nothing with it."""

    def increment(self, name: Any, value: float = 1, tags: Tags | None = None) -> None: ...
    def gauge(self, name: Any, value: float, tags: Tags | None = None) -> None: ...
    def timing(self, name: Any, value: float, tags: Tags | None = None) -> None: ...


class Follower:
    """The follower, and its leaders and producers: this runs on a thread beside the processor's."""

    def __init__(self, partitions: int) -> None:
        self._partitions = [Partition(TOPIC, index) for index in range(partitions)]
        self._next_offsets = [0] * partitions
        self._payload = KafkaPayload(None, b"x" * 200, [])
        self.consumer = FakeConsumer(self._partitions)
        self.source = BookkeepingSource([GROUP], TOPIC.name)
        self.counts = Counts()
        self.factory: SynchronizedStrategyFactory[KafkaPayload] = SynchronizedStrategyFactory(self.counts, self.source)
        self.processor = StreamProcessor(self.factory.flow_control(self.consumer), TOPIC, self.factory)

    def begin(self) -> None:
        """Two messages of each partition, of which the leaders have committed the first."""
        every = range(len(self._partitions))
        self.source.publish(GROUP, [(index, 1) for index in every])
        for _ in range(2):
            self.consumer.give([self._message(index) for index in every])

    def wait_until_held(self) -> None:
        """Wait until each partition holds one message, and has released all others."""
        deadline = time.monotonic() + READY_SECONDS
        wanted = sum(self._next_offsets) - len(self._partitions)
        while self.counts.released < wanted or sum(self.factory.held.values()) != len(self._partitions):
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.counts.released} of {wanted} messages were released")
            time.sleep(0.01)

    def move(self, indexes: Collection[int]) -> None:
        """The leaders go on by one message in these partitions, and another one arrives."""
        self.source.publish(GROUP, [(index, self._next_offsets[index]) for index in indexes])
        self.consumer.give([self._message(index) for index in indexes])

    def move_one(self, seconds: float) -> None:
        """One partition moves."""
        for _ in range(int(seconds * MOVES_PER_SECOND)):
            self.move([0])
            time.sleep(1 / MOVES_PER_SECOND)

    def move_all(self, seconds: float) -> None:
        """Each partition moves once a second."""
        count, done, begin = len(self._partitions), 0, time.perf_counter()
        while (elapsed := time.perf_counter() - begin) < seconds:
            due = int(elapsed * count)
            for start in range(done, due, 500):
                self.move([number % count for number in range(start, min(start + 500, due))])
            done = due
            time.sleep(TICK_SECONDS)

    def looks_ms(self, backend: Metrics, waited_seconds: float = 0.0) -> list[float]:
        """What a monitor's look takes of its thread's time.

        :param waited_seconds: for how long all partitions have waited, as far as the monitor knows.
        """
        passed_seconds = 0.0
        monitor = Monitor(
            self.factory._observe,
            survey=partial(self.factory._survey, self.source),
            ask_ends=None,
            gate_counts=self.factory._gate_counts,
            end=lambda error: None,
            tell=lambda problem, snapshot: None,
            stalled_after=300.0,
            clock=lambda: time.monotonic() + passed_seconds,
            reporter=MetricsReporter(lambda: backend),
        )
        monitor.check_once()
        passed_seconds = waited_seconds
        monitor.check_once()
        taken = []
        for _ in range(LOOKS):
            begin = time.thread_time()
            monitor.check_once()
            taken.append((time.thread_time() - begin) * 1e3)
        return taken

    def _message(self, index: int) -> BrokerValue[KafkaPayload]:
        offset = self._next_offsets[index]
        self._next_offsets[index] = offset + 1
        return BrokerValue(self._payload, self._partitions[index], offset, datetime(2026, 1, 1))


def measure(follower: Follower, partitions: int, seconds: float, empty_bytes: float) -> dict[str, Any]:
    """All that is told of this number of partitions."""
    follower.wait_until_held()
    assert follower.counts.first_at is not None
    found: dict[str, Any] = {
        "partitions": partitions,
        "first_release_ms": (follower.counts.first_at - follower.consumer.assigned_at) * 1e3,
        "bytes_a_partition": (usage()["rss_bytes"] - empty_bytes) / partitions,
    }

    def cpu(work: Callable[[float], object]) -> float:
        time.sleep(SETTLE_SECONDS)
        begin, cpu_begin = time.perf_counter(), time.process_time()
        work(seconds)
        return (time.process_time() - cpu_begin) / (time.perf_counter() - begin)

    found["idle_cpu"] = cpu(time.sleep)
    found["one_moves_cpu"] = cpu(follower.move_one)
    found["all_move_cpu"] = cpu(follower.move_all)
    found["look_ms"] = follower.looks_ms(DummyMetricsBackend())
    found["look_all_wait_ms"] = follower.looks_ms(DummyMetricsBackend(), WAITED_SECONDS)
    found["look_with_metrics_ms"] = follower.looks_ms(NoMetrics())
    follower.wait_until_held()
    return found


def main() -> None:
    """Measure one number of partitions."""
    config = json.loads(sys.stdin.readline())
    configure_metrics(NoMetrics())
    empty_bytes = usage()["rss_bytes"]
    follower = Follower(config["partitions"])
    follower.begin()
    found: dict[str, Any] = {}

    def work() -> None:
        try:
            found.update(measure(follower, config["partitions"], config["seconds"], empty_bytes))
        finally:
            follower.processor.signal_shutdown()

    worker = threading.Thread(target=work, name="leaders")
    worker.start()
    follower.processor.run()
    worker.join()
    if found:
        emit("measured", **found)


if __name__ == "__main__":
    main()
