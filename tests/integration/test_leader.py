"""`PublishCommitLog` in a real pipeline on a real broker: what arrives, and what happens when nothing can."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from arroyo.backends.kafka import KafkaConsumer, KafkaPayload, KafkaProducer
from arroyo.processing.processor import StreamProcessor
from arroyo.processing.strategies.abstract import ProcessingStrategy, ProcessingStrategyFactory
from arroyo.types import Commit, Partition, Topic

from arroyo_sync.leaders.commit_log.publishing.publisher import PublishCommitLog
from tests.integration.cluster.admin import Kafka
from tests.integration.cluster.cluster import KafkaCluster
from tests.integration.cluster.followers import patient_settings, produce_numbered
from tests.integration.cluster.leaders import CommitLog
from tests.integration.cluster.waiting import wait_until

SECONDS = 60.0
PARTITIONS = range(3)


class Leader(ProcessingStrategyFactory[KafkaPayload]):
    """A pipeline on a thread of its own that does nothing but commit and publish."""

    def __init__(self, settings: Mapping[str, Any], topic: str, producer: KafkaProducer, commit_log: str) -> None:
        self.committed: dict[int, int] = {}
        """Per partition the last offset that was passed to Arroyo's commit."""
        self.steps: list[PublishCommitLog] = []
        """One for each assignment."""
        self._group = settings["group.id"]
        self._producer = producer
        self._commit_log = Topic(commit_log)
        self._error: BaseException | None = None
        self._processor = StreamProcessor(KafkaConsumer(settings), Topic(topic), self, join_timeout=SECONDS)
        self._thread = threading.Thread(target=self._run, name=f"leader-{topic}", daemon=True)
        self._thread.start()

    def create_with_partitions(
        self, commit: Commit, partitions: Mapping[Partition, int]
    ) -> ProcessingStrategy[KafkaPayload]:
        def noting(offsets: Mapping[Partition, int], force: bool = False) -> None:
            commit(offsets, force)
            self.committed.update({partition.index: offset for partition, offset in offsets.items()})

        # A heartbeat would come between what is counted here, if that takes long.
        step = PublishCommitLog(noting, self._producer, self._commit_log, self._group, interval=0.02, heartbeat=3_600.0)
        self.steps.append(step)
        return step

    def stop(self) -> None:
        self._processor.signal_shutdown()
        self._thread.join(SECONDS)
        assert not self._thread.is_alive()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            self._processor.run()
        except BaseException as error:
            self._error = error


@contextmanager
def leader(
    kafka: Kafka, topic: str, group: str, commit_log: str, log_cluster: Kafka, **producer: Any
) -> Iterator[Leader]:
    publisher = KafkaProducer({"bootstrap.servers": log_cluster.bootstrap_servers, "log_level": 0, **producer})
    running = Leader(patient_settings(kafka.bootstrap_servers, group, "eager"), topic, publisher, commit_log)
    try:
        yield running
    finally:
        running.stop()
        publisher.close().result(SECONDS)


@pytest.fixture
def topics(kafka: Kafka, topic_name: Callable[..., str]) -> tuple[str, str, str]:
    """An events topic of three partitions with 200 messages each, a commit log's name, and a group."""
    events = topic_name("events")
    kafka.create_topic(events, partitions=3)
    produce_numbered(kafka.bootstrap_servers, events, PARTITIONS, 200)
    return events, topic_name("commit-log"), topic_name("writers")


@pytest.fixture
def read_log() -> Iterator[Callable[[Kafka, str], CommitLog]]:
    with ExitStack() as stack:

        def read_log(cluster: Kafka, topic: str) -> CommitLog:
            log = CommitLog(cluster.bootstrap_servers, topic)
            stack.callback(log.close)
            return log

        yield read_log


def test_each_partitions_commits_arrive_in_order_and_end_with_the_newest(
    kafka: Kafka, topics: tuple[str, str, str], read_log: Callable[[Kafka, str], CommitLog]
) -> None:
    """Nothing past what was committed, in order per key, far fewer records than messages, and the broker agrees."""
    events, commit_log, group = topics
    kafka.create_topic(commit_log)
    log = read_log(kafka, commit_log)
    end = {f"{events}:{partition}:{group}": 200 for partition in PARTITIONS}
    with leader(kafka, events, group, commit_log, kafka) as running:
        log.wait_for(end)
        assert running.committed == {0: 200, 1: 200, 2: 200}
        before = len(log.records)
    log.read_to_end()
    assert sorted(log.records[before:]) == sorted(end.items()), "once more in join"
    for key in end:
        offsets = [offset for each, offset in log.records if each == key]
        assert offsets == sorted(offsets)
    assert len(log.records) < 300
    assert kafka.committed_offsets(group, events) == {0: 200, 1: 200, 2: 200}


def test_a_commit_log_that_does_not_answer_holds_up_nothing_and_gets_the_newest_offset_afterwards(
    kafka: Kafka,
    topics: tuple[str, str, str],
    kafka_cluster: Callable[..., KafkaCluster],
    read_log: Callable[[Kafka, str], CommitLog],
) -> None:
    """While its broker is paused the pipeline commits on; after it, and a restart of the broker, all is published."""
    events, commit_log, group = topics
    log_cluster = kafka_cluster()
    log_cluster.create_topic(commit_log)
    log = read_log(log_cluster, commit_log)
    broker = log_cluster.brokers[0]
    with leader(kafka, events, group, commit_log, log_cluster, **{"reconnect.backoff.max.ms": 500}) as running:
        log.wait_for({f"{events}:{partition}:{group}": 200 for partition in PARTITIONS})
        broker.pause()
        produce_numbered(kafka.bootstrap_servers, events, PARTITIONS, 100)
        wait_until(lambda: kafka.committed_offsets(group, events) == {0: 300, 1: 300, 2: 300}, SECONDS, "the commits")
        broker.resume()
        log.wait_for({f"{events}:{partition}:{group}": 300 for partition in PARTITIONS})
        broker.kill()
        produce_numbered(kafka.bootstrap_servers, events, PARTITIONS, 100)
        wait_until(lambda: set(running.committed.values()) == {400}, SECONDS, "the commits")
        broker.start()
        log.wait_for({f"{events}:{partition}:{group}": 400 for partition in PARTITIONS})


def test_records_that_are_refused_are_retried_until_they_are_taken(
    kafka: Kafka,
    topics: tuple[str, str, str],
    read_log: Callable[[Kafka, str], CommitLog],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A topic that takes only tiny records refuses each: counted, logged once. When it takes them, all is well."""
    events, commit_log, group = topics
    kafka.create_topic(commit_log, config={"max.message.bytes": "10"})
    log = read_log(kafka, commit_log)

    def warnings() -> list[str]:
        return [
            each.getMessage()
            for each in caplog.records
            if each.name == "arroyo_sync.leaders.commit_log.publishing.delivery_log" and each.levelno >= 30
        ]

    with leader(kafka, events, group, commit_log, kafka) as running:
        wait_until(lambda: bool(running.steps) and running.steps[0].failed_deliveries >= 10, SECONDS, "ten refusals")
        wait_until(lambda: set(running.committed.values()) == {200}, SECONDS, "all commits")
        assert log.newest() == {}
        kafka.set_topic_config(commit_log, {"max.message.bytes": "1000000"})
        log.wait_for({f"{events}:{partition}:{group}": 200 for partition in PARTITIONS})
        # Before its end, at which it says what isn't confirmed within a second.
        wait_until(lambda: len(warnings()) > 1, SECONDS, lambda: f"the line that it is over: {warnings()}")
        told = warnings()
    assert told[1:] == [f"Commits of group {group} are published to {commit_log} again"]
    assert "MSG_SIZE_TOO_LARGE" in told[0]
    assert commit_log in told[0]


def test_the_members_of_a_group_publish_what_is_theirs(
    kafka: Kafka, topics: tuple[str, str, str], read_log: Callable[[Kafka, str], CommitLog]
) -> None:
    """A second member joins and leaves midway: after each rebalance every partition's record is the newest commit."""
    events, commit_log, group = topics
    kafka.create_topic(commit_log)
    log = read_log(kafka, commit_log)
    with leader(kafka, events, group, commit_log, kafka) as first:
        log.wait_for({f"{events}:{partition}:{group}": 200 for partition in PARTITIONS})
        with leader(kafka, events, group, commit_log, kafka) as second:
            wait_until(lambda: len(second.steps) == 1 and len(first.steps) == 2, SECONDS, "the partitions to be shared")
            produce_numbered(kafka.bootstrap_servers, events, PARTITIONS, 100)
            log.wait_for({f"{events}:{partition}:{group}": 300 for partition in PARTITIONS})
            assert set(second.committed) | set(first.committed) == {0, 1, 2}
            assert second.committed
        wait_until(lambda: len(first.steps) == 3, SECONDS, "the partitions to come back")
        produce_numbered(kafka.bootstrap_servers, events, PARTITIONS, 100)
        log.wait_for({f"{events}:{partition}:{group}": 400 for partition in PARTITIONS})
