"""Stored before it is processed: a leader writes events into a database, a follower reads each row by its id.

    python examples/stored_first.py                              with a broker inside this process
    python examples/stored_first.py --bootstrap-servers $KAFKA   on a cluster, with topics of its own
    python examples/stored_first.py --postgresql postgresql://user:password@localhost/database

The leader stores in batches, one transaction each, as a writer to a database does, and announces what it has committed.
Two followers read the same topic and look every event's row up: one behind the gate, one without it. The database is
SQLite, in a file that is removed at the end, or a PostgreSQL (``pip install '.[postgresql]'``), in a table of
its own. For a few seconds one line a second shows both; watch the misses: behind the gate there are none. The exit
status is 1 if the gated follower missed a row or an event.
"""

from __future__ import annotations

import argparse
import logging
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager

from arroyo.backends.kafka import KafkaConsumer, KafkaPayload, KafkaProducer
from arroyo.processing.processor import StreamProcessor
from arroyo.processing.strategies import CommitOffsets, RunTask
from arroyo.processing.strategies.abstract import ProcessingStrategy, ProcessingStrategyFactory
from arroyo.processing.strategies.batching import BatchStep, ValuesBatch
from arroyo.types import Commit, FilteredPayload, Message, Partition, Topic
from demo.broker import EMBEDDED_PARTITIONS, BrokerError, Stage, embedded, on_cluster
from demo.database import Database, DatabaseError, postgresql, sqlite
from demo.journal import Journal
from demo.pipelines import Pipeline, Traffic
from runner import close_producer

from arroyo_sync import CommitLogConsumer, CommitLogPublisher, SynchronizedStrategyFactory

LEADER, GATED, PLAIN = "writer", "with the gate", "without it"
BATCH_EVENTS, BATCH_SECONDS = 1_000, 1.0
READY_SECONDS = 60.0
DRAIN_SECONDS = 15.0

Payload = FilteredPayload | KafkaPayload


def text_of(payload: Payload) -> str:
    """An event's text, which is its id in the database."""
    return "" if isinstance(payload, FilteredPayload) else payload.value.decode()


class Writer(ProcessingStrategyFactory[KafkaPayload]):
    """Stores batches of events and then publishes what it has committed."""

    def __init__(self, stage: Stage, database: Database, producer: KafkaProducer) -> None:
        self.is_assigned = threading.Event()
        self._rows = database.connect()
        self._publisher = CommitLogPublisher(producer, Topic(stage.commit_log), stage.group(LEADER), interval=0.05)

    def create_with_partitions(
        self, commit: Commit, partitions: Mapping[Partition, int]
    ) -> ProcessingStrategy[KafkaPayload]:
        self.is_assigned.set()
        publish = self._publisher.step(commit, partitions)
        return BatchStep(BATCH_EVENTS, BATCH_SECONDS, RunTask(self._store, publish))

    def shutdown(self) -> None:
        self._rows.close()

    def _store(self, message: Message[ValuesBatch[KafkaPayload]]) -> int:
        """One transaction a batch. The rows are there when it returns, and only then are its offsets committed."""
        self._rows.store(text_of(value.payload) for value in message.payload)
        return len(message.payload)


class Reader(ProcessingStrategyFactory[KafkaPayload]):
    """Looks the row of every event up, and counts."""

    def __init__(self, database: Database) -> None:
        self.events = 0
        self.misses = 0
        self.is_assigned = threading.Event()
        self._rows = database.connect()

    def create_with_partitions(
        self, commit: Commit, partitions: Mapping[Partition, int]
    ) -> ProcessingStrategy[KafkaPayload]:
        self.is_assigned.set()
        return RunTask[KafkaPayload, None](self._look_up, CommitOffsets(commit))

    def shutdown(self) -> None:
        self._rows.close()

    def _look_up(self, message: Message[Payload]) -> None:
        self.misses += not self._rows.has(text_of(message.payload))
        self.events += 1


class Running(Pipeline):
    """A processor on a thread of its own."""

    def __init__(self, name: str, build: Callable[[], StreamProcessor[KafkaPayload]]) -> None:
        super().__init__(name)
        self._processor = build()

    def work(self) -> None:
        self._processor.run()

    def stop(self) -> None:
        self._processor.signal_shutdown()


def gated(stage: Stage, reader: Reader) -> StreamProcessor[KafkaPayload]:
    """The follower behind the gate."""
    source = CommitLogConsumer(
        {"bootstrap.servers": stage.bootstrap_servers, **stage.settings, "log_level": 2},
        topic=Topic(stage.commit_log),
        groups={stage.group(LEADER)},
    )
    factory = SynchronizedStrategyFactory(reader, source)
    consumer = factory.consumer(stage.consumer_settings("gated", "gated"))
    return StreamProcessor(consumer, Topic(stage.events), factory)


def plain(stage: Stage, reader: Reader) -> StreamProcessor[KafkaPayload]:
    """The same follower as any Arroyo consumer."""
    return StreamProcessor(KafkaConsumer(stage.consumer_settings("plain", "plain")), Topic(stage.events), reader)


def run(stage: Stage, database: Database, rate: float, seconds: float) -> int:
    """Everything; the exit status."""
    journal = Journal([LEADER])
    producer = KafkaProducer({**stage.producer_settings(), "linger.ms": 1})
    writer, readers = Writer(stage, database, producer), {GATED: Reader(database), PLAIN: Reader(database)}
    leader = KafkaConsumer(stage.consumer_settings(LEADER, LEADER))
    traffic = Traffic(stage, journal, rate)
    pipelines: list[Pipeline] = [
        Running(LEADER, lambda: StreamProcessor(leader, Topic(stage.events), writer)),
        Running(GATED, lambda: gated(stage, readers[GATED])),
        Running(PLAIN, lambda: plain(stage, readers[PLAIN])),
    ]
    began_at = time.monotonic()
    try:
        for pipeline in pipelines:
            pipeline.start()
        for is_assigned in (writer.is_assigned, *(reader.is_assigned for reader in readers.values())):
            if not is_assigned.wait(READY_SECONDS):
                print(f"the pipelines got no partitions within {READY_SECONDS:g} seconds", file=sys.stderr)
                return 2
        traffic.start()
        began_at = time.monotonic()
        while time.monotonic() - began_at < seconds:
            traffic.join(1.0)
            print_line(time.monotonic() - began_at, readers)
    finally:
        traffic.stop()
        traffic.join(15.0)
        produced = sum(len(offsets) for offsets in journal.produced.values())
        gives_up_at = time.monotonic() + DRAIN_SECONDS
        while min(reader.events for reader in readers.values()) < produced and time.monotonic() < gives_up_at:
            time.sleep(0.1)
        if produced:
            print_line(time.monotonic() - began_at, readers)
        for pipeline in pipelines:
            pipeline.stop()
        for pipeline in pipelines:
            pipeline.join(30.0)
        close_producer(producer, "The last commits")
    errors = [f"{pipeline.name}: {pipeline.error}" for pipeline in (traffic, *pipelines) if pipeline.error is not None]
    for error in errors:
        print(error, file=sys.stderr)
    print(f"\n{produced} events were produced.")
    for name, reader in readers.items():
        print(f"{name:>13}: {reader.events} looked up, {reader.misses} not there yet")
    return 1 if errors or readers[GATED].misses or readers[GATED].events < produced else 0


def print_line(elapsed: float, readers: Mapping[str, Reader]) -> None:
    """How both followers stand."""
    counts = "   ".join(f"{name}: {each.misses:5d} of {each.events:5d} missed" for name, each in readers.items())
    print(f"{elapsed:3.0f} s  {counts}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Count the rows that a follower misses, with the gate and without it.")
    parser.add_argument("--bootstrap-servers", metavar="HOST:PORT,...", help="a cluster, instead of the one inside")
    parser.add_argument("--postgresql", metavar="ADDRESS", help="a PostgreSQL as libpq names it, instead of SQLite")
    parser.add_argument("--rate", type=float, default=500.0, help="events a second (default: %(default)g)")
    parser.add_argument("--seconds", type=float, default=6.0, help="of traffic (default: %(default)g)")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    stage: AbstractContextManager[Stage]
    if options.bootstrap_servers is None:
        # The embedded broker's topics have four partitions and the writers' timestamps, the commit log too.
        for handler in logging.getLogger().handlers:
            handler.addFilter(lambda record: "message.timestamp.type=CreateTime" not in record.getMessage())
        stage = embedded()
    else:
        stage = on_cluster(options.bootstrap_servers, EMBEDDED_PARTITIONS)
    try:
        with stage as where, sqlite() if options.postgresql is None else postgresql(options.postgresql) as database:
            return run(where, database, options.rate, options.seconds)
    except (BrokerError, DatabaseError) as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
