"""A leader's last step with its surroundings: a producer whose deliveries are scripted, and a clock moved by hand."""

from __future__ import annotations

import json
import logging
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from arroyo.backends.abstract import Producer, ProducerFuture
from arroyo.backends.kafka import KafkaPayload
from arroyo.types import BrokerValue, Message, Partition, Topic

from arroyo_sync.leaders.commit_log.publishing.publisher import PublishCommitLog
from tests.support.fakes import Clock

COMMIT_LOG = Topic("commit-log")
EVENTS = [Partition(Topic("events"), index) for index in range(3)]
NAIVE_UTC = datetime(2024, 1, 2, 3, 4, 5, 500_000)
UNIX_SECONDS = 1704164645.5
SYSLOG_IS_GONE = OSError("syslog socket is gone")

AnyFuture = ProducerFuture[BrokerValue[KafkaPayload]]


class Commits:
    """Arroyo's ``commit``; remembers every call."""

    def __init__(self) -> None:
        self.calls: list[tuple[dict[Partition, int], bool]] = []
        self.history: dict[Partition, list[int]] = {}
        self.by_others: dict[Partition, list[int]] = {}
        """What other members of the group have committed."""
        self.error: Exception | None = None

    def __call__(self, offsets: Mapping[Partition, int], force: bool = False) -> None:
        if self.error is not None:
            raise self.error
        self.calls.append((dict(offsets), force))
        for partition, offset in offsets.items():
            self.history.setdefault(partition, []).append(offset)


class ScriptedProducer(Producer[KafkaPayload]):
    """Its records are in flight until `deliver` or `fail` settles the oldest; ``refuses`` makes it refuse new ones."""

    def __init__(self, commits: Commits, make_future: Callable[[], AnyFuture]) -> None:
        self._commits = commits
        self._make_future = make_future
        self.records: list[tuple[int, int]] = []
        """The published ``(partition, offset)``, in order."""
        self.payloads: list[KafkaPayload] = []
        self.in_flight: list[tuple[int, AnyFuture]] = []
        self.refuses: Exception | None = None
        self.refusals = math.inf
        """How many records it refuses."""
        self.delivers_at_once = False
        self.on_produce: Callable[[], None] | None = None
        self.published = threading.Condition()
        self.wrongs: list[str] = []
        """What no test may see. Not raised, since the step takes whatever is raised for a failed delivery."""

    def produce(self, destination: Topic | Partition, payload: KafkaPayload) -> AnyFuture:
        if self.refuses is not None and self.refusals > 0:
            self.refusals -= 1
            raise self.refuses
        assert payload.key is not None
        topic, partition, group = payload.key.decode().split(":", 2)
        offset = json.loads(payload.value)["offset"]
        if (destination, topic, group) != (COMMIT_LOG, "events", "writers"):
            self.wrongs.append(f"{payload.key!r} published to {destination}")
        key = EVENTS[int(partition)]
        if offset not in [*self._commits.history.get(key, []), *self._commits.by_others.get(key, [])]:
            self.wrongs.append(f"{offset} published, which was not committed")
        if any(each == int(partition) for each, _ in self.in_flight):
            self.wrongs.append(f"two records of partition {partition} in flight")
        future = self._make_future()
        with self.published:
            self.records.append((int(partition), offset))
            self.payloads.append(payload)
            self.in_flight.append((int(partition), future))
            self.published.notify_all()
        if self.on_produce is not None:
            self.on_produce()
        if self.delivers_at_once:
            self.deliver()
        return future

    def deliver(self) -> None:
        for _, future in self.in_flight:
            future.set_result(BrokerValue(self.payloads[-1], Partition(COMMIT_LOG, 0), 0, NAIVE_UTC))
        self.in_flight.clear()

    def fail(self, error: Exception) -> None:
        for _, future in self.in_flight:
            future.set_exception(error)
        self.in_flight.clear()

    def take(self) -> list[tuple[int, int]]:
        assert self.wrongs == []
        records, self.records = self.records, []
        return records

    def close(self) -> Future[None]:
        raise AssertionError("the producer outlives the step")


class Leader:
    """A `PublishCommitLog` with its surroundings. An interval of ten fake seconds: the thread has nothing to do."""

    def __init__(self, make_future: Callable[[], AnyFuture], **options: Any) -> None:
        self.clock = Clock()
        self.commits = Commits()
        self.producer = ScriptedProducer(self.commits, make_future)
        options = {"interval": 10.0, "heartbeat": 100.0, "clock": self.clock, **options}
        self.step = PublishCommitLog(self.commits, self.producer, COMMIT_LOG, "writers", **options)

    def commit(self, partition: int, next_offset: int, timestamp: datetime = NAIVE_UTC) -> None:
        self.step.submit(Message(BrokerValue(b"", EVENTS[partition], next_offset - 1, timestamp)))

    def after(self, seconds: float) -> list[tuple[int, int]]:
        """What `poll` publishes when so much time has gone by."""
        self.clock.now += seconds
        self.step.poll()
        return self.producer.take()


def make_future() -> AnyFuture:
    future: Future[BrokerValue[KafkaPayload]] = Future()
    future.set_running_or_notify_cancel()
    return future


@contextmanager
def log_handler_that_raises(
    error: BaseException, *, times: float = math.inf, spared: threading.Thread | None = None
) -> Iterator[None]:
    """So many times, and does nothing after that.

    :param spared: a thread on which it does nothing.
    """

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            nonlocal times
            if times > 0 and threading.current_thread() is not spared:
                times -= 1
                raise error

    logger, handler = logging.getLogger("arroyo_sync.leaders.commit_log"), Handler()
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
