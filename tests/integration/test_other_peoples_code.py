"""The user's code around the gate, on the real broker: callbacks and handlers that ask back, factories around ours."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from arroyo.backends.kafka import KafkaPayload
from arroyo.processing.processor import StreamProcessor
from arroyo.processing.strategies.abstract import ProcessingStrategy, ProcessingStrategyFactory
from arroyo.processing.strategies.commit import CommitOffsets
from arroyo.types import Commit, Message, Partition, Topic, Value

from arroyo_sync import CommitLogConsumer, Snapshot, SynchronizedStrategyFactory, UnexpectedMessage
from tests.integration.cluster.admin import Kafka
from tests.integration.cluster.followers import produce_numbered
from tests.integration.cluster.reading import CommitLog
from tests.integration.cluster.running import LastStep, Running
from tests.integration.cluster.waiting import wait_until
from tests.support.passing_step import PassingStep

SECONDS = 60.0
COUNT = 20


class World:
    """A data topic of one partition, a commit log, and a follower's three parts."""

    def __init__(self, kafka: Kafka, topic_name: Callable[..., str], **settings: Any) -> None:
        self.events, commit_log = topic_name("events"), topic_name("commit-log")
        self.group, self.leader = topic_name("follower"), topic_name("leader")
        for topic in (self.events, commit_log):
            kafka.create_topic(topic)
        self._servers = {"bootstrap.servers": kafka.bootstrap_servers}
        self._log = CommitLog(kafka, commit_log)
        self.steps = LastStep(CommitOffsets)
        self.source = CommitLogConsumer(self._servers, topic=Topic(commit_log), groups={self.leader})
        self.factory = SynchronizedStrategyFactory(self.steps, self.source, **settings)
        produce_numbered(kafka.bootstrap_servers, self.events, [0], COUNT)

    def publish(self, offset: int) -> None:
        self._log.publish(offset, 0, self.leader, self.events)

    def processor(self, factory: ProcessingStrategyFactory[KafkaPayload]) -> StreamProcessor[KafkaPayload]:
        settings = {"group.id": self.group, "auto.offset.reset": "earliest"}
        consumer = self.factory.consumer({**self._servers, **settings})
        return StreamProcessor(consumer, Topic(self.events), factory)

    def wait_for(self, count: int) -> None:
        wait_until(lambda: len(self.steps.received) == count, SECONDS, lambda: f"{count}, not {self.steps.received}")


def test_a_callback_and_a_log_handler_may_ask_for_a_snapshot(kafka: Kafka, topic_name: Callable[..., str]) -> None:
    """At every change of state, on whichever thread makes it, and for every line that is logged, as of a rewind."""
    snapshots: list[Snapshot] = []
    lines: list[str] = []

    def changed(*_: object) -> None:
        snapshots.append(world.factory.snapshot())

    world: World = World(kafka, topic_name, on_state_change=changed)

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            world.factory.snapshot()
            lines.append(record.getMessage())

    handler, logger = Handler(), logging.getLogger("arroyo_sync")
    logger.addHandler(handler)
    try:
        with Running(world.processor(world.factory)):
            world.publish(10)
            world.wait_for(10)
            world.publish(5)
            wait_until(lambda: any("went back from 10 to 5" in line for line in lines), SECONDS, lambda: f"{lines}")
            world.publish(COUNT)
            world.wait_for(COUNT)
    finally:
        logger.removeHandler(handler)
    assert world.factory.manager.callback_errors == 0
    assert len(snapshots) >= 4


class MakesValues(PassingStep):
    """Hands each message on as what most of Arroyo's steps make of it: a value that has lost its one offset."""

    def submit(self, message: Message[KafkaPayload]) -> None:
        super().submit(Message(Value(message.payload, message.committable, message.timestamp)))


class Wrapper(ProcessingStrategyFactory[KafkaPayload]):
    """A runner's factory around ours, which doesn't hand ``shutdown`` on. It may put a step before the gate."""

    def __init__(self, inner: ProcessingStrategyFactory[KafkaPayload], is_step_before: bool) -> None:
        self._inner = inner
        self._is_step_before = is_step_before

    def create_with_partitions(
        self, commit: Commit, partitions: Mapping[Partition, int]
    ) -> ProcessingStrategy[KafkaPayload]:
        strategy = self._inner.create_with_partitions(commit, partitions)
        return MakesValues(strategy) if self._is_step_before else strategy


def test_a_gate_behind_another_step_says_what_to_do(kafka: Kafka, topic_name: Callable[..., str]) -> None:
    """The step before it makes values of the consumer's messages, and nothing has gone through."""
    world = World(kafka, topic_name)
    world.publish(COUNT)
    with Running(world.processor(Wrapper(world.factory, is_step_before=True))) as running:
        error = running.wait_for_end()
    assert isinstance(error, UnexpectedMessage)
    assert "make SynchronizedStrategyFactory the outermost factory" in str(error)
    assert world.steps.received == []


def test_a_source_ends_with_its_consumer_though_nobody_shuts_the_factory_down(
    kafka: Kafka, topic_name: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    """A warning says whose ``shutdown`` is missing."""
    world = World(kafka, topic_name)
    world.publish(COUNT)
    with Running(world.processor(Wrapper(world.factory, is_step_before=False))):
        world.wait_for(COUNT)
    assert not world.source.statistics().alive
    assert any("shutdown" in record.getMessage() and "Wrapper" in record.getMessage() for record in caplog.records)
