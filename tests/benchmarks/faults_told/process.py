"""A leader or a follower as a process of its own, that journals whatever it tells an operator.

``python -m tests.benchmarks.faults_told.process leader|follower SETTINGS-AS-JSON``. SIGUSR1: its next message hangs in
the user's step, while every other thread goes on. SIGTERM: it ends cleanly.

A line of the journal is JSON: when (Unix seconds), what (``log``, ``metric``, ``event`` or ``end``), and its text.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TextIO

import sentry_sdk
from arroyo.backends.kafka import KafkaConsumer, KafkaPayload, KafkaProducer
from arroyo.processing.processor import StreamProcessor
from arroyo.processing.strategies.abstract import ProcessingStrategy, ProcessingStrategyFactory
from arroyo.processing.strategies.commit import CommitOffsets
from arroyo.processing.strategies.run_task import RunTask
from arroyo.types import Commit, Message, Partition, Topic
from arroyo.utils.metrics import Metrics, Tags, configure_metrics
from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import Transport

from arroyo_sync import CommitLogConsumer, CommitLogPublisher, SynchronizedStrategyFactory
from tests.integration.cluster.followers import consumer_settings

GAUGES = ("arroyo_sync.waiting", "arroyo_sync.stalled", "arroyo_sync.reader.alive")


@dataclass(frozen=True)
class Settings:
    """What a process is told."""

    bootstrap_servers: str
    topic: str
    commit_log: str
    group: str
    leader_groups: tuple[str, ...]
    stalled_after: float
    journal: str


class Journal:
    """Lines of what was told, written at once. Any thread may write."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, kind: str, text: str) -> None:
        self._file.write(json.dumps([time.time(), kind, text]) + "\n")
        self._file.flush()


class JournalHandler(logging.Handler):
    """Warnings and worse."""

    def __init__(self, journal: Journal) -> None:
        super().__init__(logging.WARNING)
        self._journal = journal

    def emit(self, record: logging.LogRecord) -> None:
        self._journal.write("log", f"{record.levelname} {record.getMessage()}")


class JournalMetrics(Metrics):
    """The gauges that alerts look at, whenever one changes."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._last: dict[str, float] = {}

    def increment(self, name: str, value: float = 1, tags: Tags | None = None) -> None:
        pass

    def timing(self, name: str, value: float, tags: Tags | None = None) -> None:
        pass

    def gauge(self, name: str, value: float, tags: Tags | None = None) -> None:
        series = " ".join([name, *sorted((tags or {}).values())])
        if name in GAUGES and self._last.get(series) != value:
            self._last[series] = value
            self._journal.write("metric", f"{series} {value:g}")


class JournalTransport(Transport):
    """Sentry's events."""

    def __init__(self, journal: Journal) -> None:
        super().__init__()
        self._journal = journal

    def capture_envelope(self, envelope: Envelope) -> None:
        event = envelope.get_event()
        if event is not None:
            self._journal.write("event", str(event.get("message") or event.get("logentry") or event.get("exception")))


class Factory(ProcessingStrategyFactory[KafkaPayload]):
    """The step that may hang, then the last step."""

    def __init__(self, publisher: CommitLogPublisher | None) -> None:
        self._publisher = publisher
        self.hangs = False

    def create_with_partitions(
        self, commit: Commit, partitions: Mapping[Partition, int]
    ) -> ProcessingStrategy[KafkaPayload]:
        if self._publisher is not None:
            return RunTask(self._work, self._publisher.step(commit, partitions))
        return RunTask(self._work, CommitOffsets(commit))

    def _work(self, message: Message[KafkaPayload]) -> KafkaPayload:
        while self.hangs:
            time.sleep(0.1)
        return message.payload


def main(role: str, settings: Settings) -> None:
    """Run until SIGTERM."""
    with open(settings.journal, "a") as file:
        journal = Journal(file)
        logging.getLogger().addHandler(JournalHandler(journal))
        configure_metrics(JournalMetrics(journal))
        sentry_sdk.init(dsn="http://public@127.0.0.1:9/1", transport=JournalTransport(journal))
        brokers = {"bootstrap.servers": settings.bootstrap_servers}
        consuming = consumer_settings(settings.bootstrap_servers, settings.group, "eager")
        publisher = None
        if role == "leader":
            # As examples/leader.py: a record that nobody confirms is given up after ten seconds.
            producer = KafkaProducer({**brokers, "message.timeout.ms": 10_000})
            publisher = CommitLogPublisher(producer, Topic(settings.commit_log), settings.group)
        factory = Factory(publisher)
        consumer: Any
        outermost: ProcessingStrategyFactory[KafkaPayload] = factory
        if role == "leader":
            consumer = KafkaConsumer(consuming)
        else:
            source = CommitLogConsumer(brokers, topic=Topic(settings.commit_log), groups=set(settings.leader_groups))
            gated = SynchronizedStrategyFactory(factory, source, stalled_after=settings.stalled_after)
            consumer, outermost = gated.consumer(consuming), gated
        processor = StreamProcessor(consumer, Topic(settings.topic), outermost)
        signal.signal(signal.SIGUSR1, lambda *_: setattr(factory, "hangs", True))
        signal.signal(signal.SIGTERM, lambda *_: processor.signal_shutdown())
        try:
            processor.run()
        finally:
            journal.write("end", str(sys.exc_info()[1] or "cleanly"))


if __name__ == "__main__":
    arguments = json.loads(sys.argv[2])
    main(sys.argv[1], Settings(**{**arguments, "leader_groups": tuple(arguments["leader_groups"])}))
