"""The reader, the gate and Arroyo's processor together, on a real broker, where a commit log can't be trusted."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
from arroyo.backends.kafka import KafkaConsumer, KafkaPayload
from arroyo.errors import ConsumerError
from arroyo.processing.processor import StreamProcessor
from arroyo.processing.strategies.abstract import ProcessingStrategy, ProcessingStrategyFactory
from arroyo.types import BrokerValue, Commit, Partition, Topic

from arroyo_sync.core.errors import SourceDied, TopicRecreated
from arroyo_sync.gate.factory import SynchronizedStrategyFactory
from arroyo_sync.leaders.commit_log import reader as commit_log_reader
from arroyo_sync.leaders.commit_log.consumer import CommitLogConsumer
from arroyo_sync.testing import RecordingStep
from tests.integration.cluster.admin import Kafka
from tests.integration.cluster.followers import PROTOCOLS, patient_settings, produce_numbered
from tests.integration.cluster.reading import QUICK, TIMEOUT_SECONDS, CommitLog
from tests.integration.cluster.waiting import wait_until

Names = Callable[..., str]


class Recording(ProcessingStrategyFactory[KafkaPayload]):
    """Every strategy is the same recording step."""

    def __init__(self) -> None:
        self.step = RecordingStep()

    def create_with_partitions(
        self, commit: Commit, partitions: Mapping[Partition, int]
    ) -> ProcessingStrategy[KafkaPayload]:
        return self.step


class Follower:
    """A follower whose processor is run by hand, on the test's thread."""

    def __init__(self, kafka: Kafka, topic: str, commit_log: str, group: str, protocol: str) -> None:
        self.key = (topic, 0)
        self.source = CommitLogConsumer(
            {"bootstrap.servers": kafka.bootstrap_servers, **QUICK}, topic=Topic(commit_log), groups={"g"}
        )
        self.recording = Recording()
        self.factory = SynchronizedStrategyFactory(self.recording, self.source)
        consumer = KafkaConsumer(patient_settings(kafka.bootstrap_servers, group, protocol))
        self.processor = StreamProcessor(self.factory.flow_control(consumer), Topic(topic), self.factory)

    def run_until(self, is_so: Callable[[], bool], what: str) -> None:
        def step() -> bool:
            self.processor._run_once()
            return is_so()

        wait_until(step, TIMEOUT_SECONDS, what)

    @property
    def released(self) -> list[int]:
        values = [message.value for message in self.recording.step.messages]
        return [value.offset for value in values if isinstance(value, BrokerValue)]

    @property
    def held(self) -> int:
        return self.factory.held.get(self.key, 0)

    def close(self) -> None:
        self.processor._shutdown()


@pytest.fixture
def names(kafka: Kafka, topic_name: Names) -> tuple[str, str, str]:
    """A data topic, a commit log, and a follower's group."""
    events, commit_log = topic_name("events"), topic_name("commit-log")
    kafka.create_topic(events)
    kafka.create_topic(commit_log)
    return events, commit_log, topic_name("followers")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_data_topic_created_again_before_the_follower_starts_releases_nothing(
    kafka: Kafka, names: tuple[str, str, str], protocol: str
) -> None:
    """Under the old commit log, until the leaders say something possible."""
    events, commit_log, group = names
    log = CommitLog(kafka, commit_log)
    produce_numbered(kafka.bootstrap_servers, events, [0], 100)
    log.publish(100, topic=events)
    kafka.recreate_topic(events)
    produce_numbered(kafka.bootstrap_servers, events, [0], 5)
    follower = Follower(kafka, events, commit_log, group, protocol)
    try:
        follower.run_until(lambda: follower.held == 5, "all messages to be held")
        follower.run_until(lambda: follower.source.statistics().impossible == 1, "the old offset to be refuted")
        produce_numbered(kafka.bootstrap_servers, events, [0], 200)
        follower.run_until(lambda: follower.held == 205, "the topic to grow past it")
        assert follower.released == []
        log.publish(3, topic=events)
        follower.run_until(lambda: follower.held == 202, "what may be released")
        assert follower.released == [0, 1, 2]
    finally:
        follower.close()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_data_topic_created_again_while_the_follower_runs_releases_nothing(
    kafka: Kafka, names: tuple[str, str, str], protocol: str
) -> None:
    """It ends: Arroyo may say that its position is gone, the source says that the topic is another. Restarted, it waits
    for a possible offset."""
    events, commit_log, group = names
    log = CommitLog(kafka, commit_log)
    produce_numbered(kafka.bootstrap_servers, events, [0], 100)
    log.publish(100, topic=events)
    follower = Follower(kafka, events, commit_log, group, protocol)
    try:
        follower.run_until(lambda: len(follower.released) == 100, "the messages of the old topic")
        follower.run_until(lambda: bool(follower.source._verifier._topics.ids), "it to know the topic's id")
        kafka.recreate_topic(events)
        produce_numbered(kafka.bootstrap_servers, events, [0], 5)
        with pytest.raises((ConsumerError, TopicRecreated)):
            follower.run_until(lambda: False, "the processor to end")
        assert follower.released == list(range(100))
        follower.close()
        follower = Follower(kafka, events, commit_log, f"{group}-restarted", protocol)
        follower.run_until(lambda: follower.held == 5, "the messages of the new topic")
        follower.run_until(lambda: follower.source.statistics().impossible == 1, "the old offset to be rejected")
        assert follower.released == []
        log.publish(3, topic=events)
        follower.run_until(lambda: follower.held == 2, "what may be released")
        assert follower.released == [0, 1, 2]
    finally:
        follower.close()


def test_a_source_that_died_ends_the_processor_and_releases_nothing_more(
    kafka: Kafka, names: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even when the strategy is closed and joined, with offsets that would allow it."""
    monkeypatch.setattr(commit_log_reader, "MISSING_SECONDS", 0.5)
    events, commit_log, group = names
    log = CommitLog(kafka, commit_log)
    produce_numbered(kafka.bootstrap_servers, events, [0], 10)
    log.publish(4, topic=events)
    follower = Follower(kafka, events, commit_log, group, "eager")
    try:
        # Both: of the messages that have come, six may be held before any is released.
        follower.run_until(lambda: follower.held == 6 and len(follower.released) == 4, "what isn't released yet")
        kafka.delete_topic(commit_log)
        with pytest.raises(SourceDied, match="doesn't exist any more"):
            follower.run_until(lambda: False, "the processor to end")
        follower.factory.manager.set_remote_offset(events, 0, 10)
    finally:
        follower.close()
    assert follower.released == [0, 1, 2, 3]
    with pytest.raises(SourceDied):
        follower.source.check()
