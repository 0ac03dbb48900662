"""Questions to real brokers, of which some are down: what each tells costs no other its answer."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer

from arroyo_sync.core.state import PartitionKey
from arroyo_sync.kafka.errors import TOPIC_IS_GONE
from arroyo_sync.kafka.questions import broker_watch, committed_offsets
from arroyo_sync.kafka.questions.asker import Asker, PartitionRange
from tests.integration.cluster.admin import Kafka
from tests.integration.cluster.broker import Broker
from tests.integration.cluster.cluster import KafkaCluster
from tests.integration.cluster.coordinators import group_coordinated_by
from tests.integration.cluster.reading import QUICK, TIMEOUT_SECONDS
from tests.integration.cluster.waiting import wait_until

Names = Callable[..., str]
Answers = dict[PartitionKey, object]

WAIT_SECONDS = 180.0
"""For what is asked for again and again, with up to `TIMEOUT_SECONDS` for each question."""
QUESTION_SECONDS = 600.0
"""The timeout of a question that a broker never answers: whoever waits for it is seen to wait."""


@contextmanager
def asking(kafka: Kafka) -> Iterator[Asker]:
    """An asker, which leaves no thread behind."""
    asker = Asker({"bootstrap.servers": kafka.bootstrap_servers, **QUICK}, lambda error: None)
    try:
        yield asker
    finally:
        asker.stop(TIMEOUT_SECONDS)
        wait_until(lambda: not own_threads(), WAIT_SECONDS, lambda: f"{own_threads()} to end")


def own_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("arroyo-sync")]


def write(kafka: Kafka, topic: str, partitions: int, count: int, timestamp_ms: int = 0) -> None:
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, **QUICK})
    for partition in range(partitions):
        for _ in range(count):
            producer.produce(topic, b"x", partition=partition, timestamp=timestamp_ms)
    assert producer.flush(TIMEOUT_SECONDS) == 0


def test_partitions_tell_where_they_begin_and_end_and_when_their_first_message_was_written(
    kafka: Kafka, topic_name: Names
) -> None:
    """Each for itself: an empty one, one whose head was deleted, one that isn't there, and a topic that isn't."""
    topic, missing = topic_name("events"), topic_name("missing")
    written_at = int(time.time() * 1000) - 60_000
    kafka.create_topic(topic, 3)
    write(kafka, topic, 2, 5, timestamp_ms=written_at)
    kafka.delete_records(topic, {1: 2})
    keys = [(topic, 0), (topic, 1), (topic, 2)]
    with asking(kafka) as asker:
        assert asker.ranges(keys, TIMEOUT_SECONDS) == {
            keys[0]: PartitionRange(0, 5),
            keys[1]: PartitionRange(2, 5),
            keys[2]: PartitionRange(0, 0),
        }
        with_first = CollectedAnswers()
        asker.ask_ranges(keys, TIMEOUT_SECONDS, with_first)
        with_first.wait_for(set(keys))  # that is where they begin and end; when, comes later
        wait_until(
            lambda: not any(getattr(each, "is_look_up_pending", False) for each in with_first.answers.values()),
            WAIT_SECONDS,
            "when their first messages were written",
        )
        assert with_first.answers == {
            keys[0]: PartitionRange(0, 5, written_at),
            keys[1]: PartitionRange(2, 5, written_at),
            keys[2]: PartitionRange(0, 0),
        }
        found = CollectedAnswers()
        asker.ask_offsets_for_time(keys[:2], written_at, TIMEOUT_SECONDS, found)
        found.wait_for(set(keys[:2]))
        assert found.answers == {keys[0]: (0, written_at), keys[1]: (2, written_at)}
        later = CollectedAnswers()
        asker.ask_offsets_for_time(keys[:2], written_at + 1, TIMEOUT_SECONDS, later)
        later.wait_for(set(keys[:2]))
        assert later.answers == dict.fromkeys(keys[:2], (None, None))
        ends = asker.end_offsets([keys[0], (topic, 7), (missing, 0)], TIMEOUT_SECONDS)
        assert ends[keys[0]] == 5
        for key in ((topic, 7), (missing, 0)):
            error = ends[key]
            assert isinstance(error, KafkaError)
            assert error.code() in TOPIC_IS_GONE
    assert missing not in kafka.admin.list_topics(timeout=TIMEOUT_SECONDS).topics


def test_a_topic_that_is_created_anew_has_another_id(kafka: Kafka, topic_name: Names) -> None:
    """And one that doesn't exist has none."""
    topic, missing = topic_name("events"), topic_name("missing")
    kafka.create_topic(topic)
    with asking(kafka) as asker:
        first = asker.topic_ids([topic, missing], TIMEOUT_SECONDS)
        assert isinstance(first[topic], str)
        assert isinstance(first[missing], KafkaError)
        assert asker.topic_ids([topic], TIMEOUT_SECONDS) == {topic: first[topic]}
        kafka.recreate_topic(topic)
        second = asker.topic_ids([topic], TIMEOUT_SECONDS)[topic]
        assert isinstance(second, str)
        assert second != first[topic]


def test_once_stopped_every_question_is_answered_with_an_error(
    kafka: Kafka, topic_name: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, and no client or thread is made; stopping again does nothing."""
    monkeypatch.setattr(committed_offsets, "IDLE_SECONDS", 3_600.0)  # else the group's thread may end by itself before
    topic = topic_name("events")
    kafka.create_topic(topic)
    key = (topic, 0)
    with asking(kafka) as asker:
        assert asker.end_offsets([key], TIMEOUT_SECONDS) == {key: 0}
        wait_until(  # a broker that has just begun is its coordinator a moment later
            lambda: asker.committed("g", [key], TIMEOUT_SECONDS) == {key: None},
            WAIT_SECONDS,
            "the group's coordinator",
        )
        wait_until(lambda: own_threads() == ["arroyo-sync commits of g"], WAIT_SECONDS, "those that asked to end")
        asker.stop(TIMEOUT_SECONDS)
        asker.stop(TIMEOUT_SECONDS)
        answers = [
            asker.end_offsets([key], TIMEOUT_SECONDS)[key],
            asker.committed("g", [key], TIMEOUT_SECONDS)[key],
            asker.committed("other", [key], TIMEOUT_SECONDS)[key],
            asker.topic_ids([topic], TIMEOUT_SECONDS)[topic],
        ]
        assert [each.code() for each in answers if isinstance(each, KafkaError)] == [KafkaError._DESTROY] * 4


class Cluster:
    """Three brokers, each of which alone leads two of six partitions."""

    def __init__(self, kafka: KafkaCluster) -> None:
        self.kafka = kafka
        self.topic = "events"
        self.keys = [(self.topic, partition) for partition in range(6)]
        kafka.create_topic(self.topic, 6, replication=1)
        write(kafka, self.topic, 6, 5)
        topic = kafka.admin.list_topics(self.topic, timeout=TIMEOUT_SECONDS).topics[self.topic]
        # Once: of a broker that was away, another one may learn late that it is back.
        self._leaders = {(self.topic, each.id): each.leader for each in topic.partitions.values()}

    def led_by(self, broker: Broker) -> set[PartitionKey]:
        return {key for key, leader in self._leaders.items() if leader == broker.node_id}

    def wait_until_it_serves(self) -> None:
        """Each partition's leader knows itself to be that."""

        def serves() -> bool:
            try:
                return self.kafka.watermarks(self.topic) == dict.fromkeys(range(6), (0, 5))
            except KafkaException:
                return False

        wait_until(serves, WAIT_SECONDS, "each broker to lead its partitions again")


@pytest.fixture(scope="module")
def three_brokers_settings() -> dict[str, Any]:
    """A group's commits are on its coordinator alone."""
    return {"min_insync_replicas": 1, "properties": {"offsets.topic.replication.factor": "1"}}


@pytest.fixture(scope="module")
def prepared(cluster_of_the_file: KafkaCluster) -> Cluster:
    return Cluster(cluster_of_the_file)


@pytest.fixture
def cluster(prepared: Cluster, three_brokers: KafkaCluster) -> Cluster:
    """The tests share it; `three_brokers` mends it after each."""
    prepared.wait_until_it_serves()
    return prepared


class CollectedAnswers:
    """Collects answers."""

    def __init__(self) -> None:
        self.answers: Answers = {}

    def __call__(self, answers: Mapping[PartitionKey, object]) -> None:
        self.answers = {**self.answers, **answers}

    def wait_for(self, keys: set[PartitionKey]) -> None:
        wait_until(lambda: self.answers.keys() >= keys, WAIT_SECONDS, lambda: f"answers of {keys}: {self.answers}")


@pytest.mark.parametrize("how", ["paused", "killed"])
def test_the_living_brokers_answers_do_not_wait_for_one_that_is_down(
    cluster: Cluster, how: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever of the three it is, for one of them counts as the controller; one line each says that it is so.

    They come though the question about the dead broker's partitions is still open.
    """
    monkeypatch.setattr(broker_watch, "PATIENCE_SECONDS", 0.0)
    with asking(cluster.kafka) as asker:
        assert set(asker.end_offsets(cluster.keys, TIMEOUT_SECONDS).values()) == {5}
        for broker in cluster.kafka.brokers:
            lost = cluster.led_by(broker)
            caplog.clear()
            broker.pause() if how == "paused" else broker.kill()
            first = CollectedAnswers()
            asker.ask_end_offsets(cluster.keys, QUESTION_SECONDS, first)
            living = set(cluster.keys) - lost
            first.wait_for(living)
            assert {key: first.answers[key] for key in living} == dict.fromkeys(living, 5)
            if how == "paused":  # the end of a killed one may be noticed as soon
                assert first.answers.keys() == living
            # Only about these: so soon the living ones need not answer.
            failures = asker.end_offsets(lost, 0.5)
            assert {key for key, end in failures.items() if isinstance(end, KafkaError)} == lost
            # A paused one is asked until its connection is closed, after `socket.timeout.ms`.
            wait_until(
                lambda: isinstance(asker.topic_ids([cluster.topic], 2.0)[cluster.topic], str),
                WAIT_SECONDS,
                "the topic's id",
            )
            cluster.kafka.restore()
            cluster.wait_until_it_serves()
            wait_until(
                lambda: set(asker.end_offsets(cluster.keys, TIMEOUT_SECONDS).values()) == {5},
                WAIT_SECONDS,
                "all to answer",
            )
            named = ", ".join(f"{topic}[{partition}]" for topic, partition in sorted(lost))
            lines = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
            away, back = lines
            assert away.startswith(f"The brokers don't answer about {named}, so ")
            assert back.startswith(f"The brokers answer again about {named}, after ")


def test_a_broker_that_is_paused_can_not_keep_the_asker_from_being_stopped(cluster: Cluster) -> None:
    """The question that it has is answered with an error, soon, and no thread is left."""
    broker = cluster.kafka.brokers[0]
    answers = CollectedAnswers()
    asker = Asker({"bootstrap.servers": cluster.kafka.bootstrap_servers, **QUICK}, lambda error: None)
    asker.end_offsets(cluster.keys, TIMEOUT_SECONDS)
    asker.committed("g", cluster.keys, TIMEOUT_SECONDS)
    broker.pause()
    asker.ask_end_offsets(cluster.keys, 1_000.0, answers)
    asker.stop(0.5)
    answers.wait_for(set(cluster.keys))
    wait_until(lambda: not own_threads(), WAIT_SECONDS, lambda: f"{own_threads()} to end")


def test_a_coordinator_that_is_down_keeps_no_other_group_waiting(cluster: Cluster) -> None:
    """Each group has a consumer and a thread of its own; that broker's groups get an error."""
    kafka, key = cluster.kafka, cluster.keys[0]
    kafka.commit_offsets("makes the topic", cluster.topic, {0: 0})
    groups = {each.node_id: group_coordinated_by(kafka, each.node_id) for each in kafka.brokers}
    for number, group in groups.items():
        kafka.commit_offsets(group, cluster.topic, {0: number})
    dead, *living = kafka.brokers
    with asking(kafka) as asker:
        for number, group in groups.items():
            assert asker.committed(group, [key], TIMEOUT_SECONDS) == {key: number}
        dead.kill()
        of_dead = CollectedAnswers()
        asker.ask_committed(groups[dead.node_id], [key], 20.0, of_dead)  # time for the others, also on a slow machine
        for broker in living:
            assert asker.committed(groups[broker.node_id], [key], TIMEOUT_SECONDS) == {key: broker.node_id}
        assert of_dead.answers == {}, "it is still waited for"
        of_dead.wait_for({key})
        assert isinstance(of_dead.answers[key], KafkaError)
