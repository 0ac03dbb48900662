"""What goes wrong around the reader, on real brokers: it rides it out, or it ends loudly."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from arroyo.types import Topic
from confluent_kafka import Consumer, KafkaException, TopicPartition

from arroyo_sync.core.errors import BrokersUnreachable, CommitLogMissing, ConfigurationError, NotReady, SourceDied
from arroyo_sync.leaders.commit_log import log_topic
from arroyo_sync.leaders.commit_log import reader as commit_log_reader
from arroyo_sync.leaders.commit_log.consumer import CommitLogConsumer
from arroyo_sync.leaders.commit_log.reader import CommitLogReader
from arroyo_sync.leaders.offset_source import OffsetSource
from tests.integration.cluster.admin import Kafka, topics_shown
from tests.integration.cluster.cluster import KafkaCluster
from tests.integration.cluster.reading import QUICK, TIMEOUT_SECONDS, CommitLog, Remote, reading, running
from tests.integration.cluster.settings import scram
from tests.integration.cluster.waiting import wait_until

Names = Callable[..., str]

SASL = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "SCRAM-SHA-256", "sasl.username": "user"}


def wait_until_dead(source: OffsetSource) -> SourceDied:
    """The error with which the gate ends."""
    with pytest.raises(SourceDied) as died:
        source.wait_until_ready(TIMEOUT_SECONDS)
    with pytest.raises(SourceDied):
        source.check()
    return died.value


# A commit log that isn't there.


def test_a_commit_log_that_does_not_exist_ends_the_source_in_words(
    kafka: Kafka, topic_name: Names, caplog: pytest.LogCaptureFixture
) -> None:
    """One exception with its cause, one line, no traceback; the gate is woken to notice."""
    topic = topic_name("missing")
    with reading(kafka, topic, is_ready=False) as (source, remote):
        died = wait_until_dead(source)
        assert isinstance(died.__cause__, CommitLogMissing)
        assert topic in str(died)
        assert "wait_for_topic=True" in str(died)
        remote.wait_until(lambda: remote.manager.version > 0, "the gate to be woken")
    (line,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert "nothing more is released" in line.getMessage()
    assert line.exc_info is None


def test_a_commit_log_that_does_not_exist_is_waited_for_if_asked(
    kafka: Kafka, topic_name: Names, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said so meanwhile; once it exists, all is as ever."""
    topic = topic_name("late")
    with reading(kafka, topic, is_ready=False, wait_for_topic=True) as (source, remote):
        remote.wait_until(lambda: any("waiting for it" in each.getMessage() for each in caplog.records), "a line")

        def says_so() -> bool:
            with pytest.raises(NotReady) as told:
                source.wait_until_ready(0.0)
            return "it waits for the topic to exist" in str(told.value)  # or that no broker answers at the moment

        remote.wait_until(says_so, "it to be said by whoever waits, too")
        kafka.create_topic(topic)
        CommitLog(kafka, topic).publish(5)
        source.wait_until_ready(TIMEOUT_SECONDS)
        remote.wait_for(5)


def test_a_commit_log_that_is_deleted_ends_the_source(
    kafka: Kafka, topic_name: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is missed when the client looks for partitions, and isn't back after a while."""
    monkeypatch.setattr(commit_log_reader, "MISSING_SECONDS", 0.5)
    topic = topic_name("commit-log")
    kafka.create_topic(topic)
    log = CommitLog(kafka, topic)
    log.publish(5)
    with reading(kafka, topic) as (source, remote):
        kafka.delete_topic(topic)
        remote.wait_until(lambda: source._error is not None, "the source to end")
        assert isinstance(wait_until_dead(source).__cause__, CommitLogMissing)
        assert not source.ready


# A client that says nothing.


def test_progress_a_client_that_fetches_no_more_is_replaced(
    kafka: Kafka, topic_name: Names, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Paused behind the reader's back, it is like one that has lost all brokers for good (librdkafka#5301)."""
    monkeypatch.setattr(log_topic, "FETCH_CHECK_SECONDS", 0.3)
    clients: list[Consumer] = []
    run = CommitLogReader.run

    def noted(reader: CommitLogReader, consumer: Consumer, identity: log_topic.TopicIdentity) -> None:
        clients.append(consumer)
        run(reader, consumer, identity)

    monkeypatch.setattr(CommitLogReader, "run", noted)
    topic = topic_name("commit-log")
    kafka.create_topic(topic)
    log = CommitLog(kafka, topic)
    log.publish(5)
    with reading(kafka, topic) as (source, remote):
        remote.wait_for(5)
        clients[0].pause([TopicPartition(topic, 0)])
        log.publish(6)  # a fetch that was on its way still tells where the log ends now

        def is_replaced() -> bool:
            log.publish(9)
            return len(clients) > 1

        remote.wait_until(is_replaced, "a new client")
        remote.wait_for(9)
        assert source.ready
    assert "there is more in partitions [0], which this process's client fetches no more" in caplog.text


# Brokers that aren't there.


def test_unreachable_brokers_end_the_source_after_a_bounded_time(caplog: pytest.LogCaptureFixture) -> None:
    """One clear line with the address and the reason; until then, `wait_until_ready` names both as well."""
    now = 0.0  # it stands still until all is seen that happens before the end
    source = CommitLogConsumer(
        {"bootstrap.servers": "127.0.0.1:1", **QUICK},
        topic=Topic("log"),
        groups={"g"},
        connect_timeout=2.0,
        clock=lambda: now,
    )
    with running(source, is_ready=False):
        wait_until(lambda: "refused" in source._missing(), TIMEOUT_SECONDS, "a first attempt")
        with pytest.raises(NotReady, match=r"an answer of 127\.0\.0\.1:1: .*refused"):
            source.wait_until_ready(0.0)
        now = 2.0
        died = wait_until_dead(source)
        assert isinstance(died.__cause__, BrokersUnreachable)
        assert "no broker of 127.0.0.1:1 answered within 2 s" in str(died)
        assert "refused" in str(died)
    assert len([each for each in caplog.records if each.levelno >= logging.ERROR]) == 1


def test_a_setting_that_librdkafka_does_not_know_ends_the_source_in_words() -> None:
    """With its name."""
    configuration = {"bootstrap.servers": "127.0.0.1:1", "no.such.setting": 1}
    source = CommitLogConsumer(configuration, topic=Topic("log"), groups={"g"})
    with running(source, is_ready=False):
        died = wait_until_dead(source)
        assert isinstance(died.__cause__, ConfigurationError)
        assert "no.such.setting" in str(died)


def test_stop_returns_in_time_whatever_the_brokers_do(
    kafka_cluster: Callable[..., KafkaCluster], caplog: pytest.LogCaptureFixture
) -> None:
    """A broker that stands still, with the client in the middle of a question to it; then one that restarts, which the
    reader rides out."""
    cluster = kafka_cluster()
    cluster.create_topic("commit-log")
    log = CommitLog(cluster, "commit-log")
    log.publish(5)

    def told() -> list[str]:
        return [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]

    with reading(cluster, "commit-log") as (source, remote):
        broker = cluster.brokers[0]
        broker.kill()
        remote.wait_until(lambda: len(told()) == 1, "the loss to be told")
        assert remote[0] == 5, "what the leaders committed stays true"
        source.check()
        broker.start()
        cluster.wait_until_ready()
        log.publish(6)
        remote.wait_for(6)
        remote.wait_until(lambda: len(told()) == 2, "it to be told that the broker is back")

        broker.pause()
        source.assign({("events", 0): 0}, None)  # so that the broker is asked
        stopping = threading.Thread(target=source.stop, args=(2.0,), daemon=True)
        stopping.start()
        stopping.join(TIMEOUT_SECONDS)
        assert not stopping.is_alive(), "it waits for the broker"
        broker.resume()
    away, back = told()[:2]
    assert away.startswith("The brokers don't answer about commit-log[0], so nothing new is learnt of them: ")
    assert back.startswith("The brokers answer again about commit-log[0], after ")


# Permission.


@pytest.fixture(scope="module")
def secure_cluster(java_and_maven: None) -> Iterator[KafkaCluster]:
    """With a listener that asks for a password."""
    with KafkaCluster(
        listeners={"SECURE": "SASL_PLAINTEXT"},
        properties={
            **scram("SECURE"),
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
            "allow.everyone.if.no.acl.found": "false",
        },
    ) as cluster:
        cluster.create_topic("commit-log")
        cluster.add_user("user", "right")
        settings = {"bootstrap.servers": cluster.bootstrap_servers_of("SECURE"), **SASL, "sasl.password": "right"}
        wait_until(lambda: topics_shown(settings) is not None, TIMEOUT_SECONDS, "the broker to know the password")
        yield cluster


@pytest.mark.parametrize(
    ("password", "message"),
    [
        pytest.param("wrong", "[Aa]uthentication", id="authentication"),
        pytest.param("right", "authoriz", id="permission"),
    ],
)
def test_what_only_a_person_can_mend_ends_the_source(secure_cluster: KafkaCluster, password: str, message: str) -> None:
    """A wrong password at once, though the client would try for ever; a topic that the user may not read as well."""
    configuration: dict[str, Any] = {
        "bootstrap.servers": secure_cluster.bootstrap_servers_of("SECURE"),
        **SASL,
        "sasl.password": password,
        **QUICK,
    }
    source = CommitLogConsumer(configuration, topic=Topic("commit-log"), groups={"g"}, connect_timeout=TIMEOUT_SECONDS)
    with running(source, is_ready=False):
        died = wait_until_dead(source)
        assert isinstance(died.__cause__, KafkaException)
        assert source._error is died.__cause__
        with pytest.raises(SourceDied, match=message):
            source.check()


def test_a_password_that_the_data_cluster_refuses_ends_the_source(secure_cluster: KafkaCluster) -> None:
    """Else nothing could ever be checked, and the gate would stay shut for no reason that can be seen."""
    data_configuration = {
        "bootstrap.servers": secure_cluster.bootstrap_servers_of("SECURE"),
        **SASL,
        "sasl.password": "wrong",
        **QUICK,
    }
    CommitLog(secure_cluster, "commit-log").publish(5)
    with reading(secure_cluster, "commit-log", data_configuration=data_configuration) as (source, remote):
        source.assign({("events", 0): 0}, None)
        remote.wait_until(lambda: source._error is not None, "the source to end")
        with pytest.raises(SourceDied, match=r"[Aa]uthentication"):
            source.check()
        assert remote[0] is None


# Being dead.


def test_a_reader_that_breaks_says_so_with_its_traceback(
    kafka: Kafka, topic_name: Names, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistake of ours is a death like any other, and `stop` still works."""
    topic = topic_name("commit-log")
    kafka.create_topic(topic)
    log = CommitLog(kafka, topic)
    with reading(kafka, topic) as (source, remote):
        version = remote.manager.version

        def fail(*_: object) -> None:
            raise ZeroDivisionError("a mistake")

        monkeypatch.setattr(source._reader, "_process", fail)
        log.publish(5)
        assert remote.manager.wait_for_move(version, TIMEOUT_SECONDS), "the gate is woken"
        died = wait_until_dead(source)
        assert isinstance(died.__cause__, ZeroDivisionError)
        assert remote[0] is None
    assert any(record.exc_info for record in caplog.records if "nothing more is released" in record.getMessage())


def test_a_source_that_was_stopped_releases_nothing_more(kafka: Kafka, topic_name: Names) -> None:
    """And can be stopped again, also from another thread, but not started."""
    topic = topic_name("commit-log")
    kafka.create_topic(topic)
    with reading(kafka, topic) as (source, remote):
        threads = [threading.Thread(target=source.stop, args=(TIMEOUT_SECONDS,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT_SECONDS)
        with pytest.raises(SourceDied, match="was stopped"):
            source.check()
        source.start(remote.manager)
        assert len(source._threads) == 2
        with pytest.raises(ConfigurationError, match="make one source for each gate"):
            source.start(Remote().manager)
