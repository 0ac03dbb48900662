"""The questions to the brokers on librdkafka's mock cluster, where a first look is had: no controller answers there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any, cast

import pytest
from arroyo.types import Partition, Topic
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from arroyo_sync.kafka.commits import drop_staged
from arroyo_sync.kafka.errors import TOPIC_IS_GONE
from arroyo_sync.kafka.questions import broker_watch
from arroyo_sync.kafka.questions.asker import Asker
from arroyo_sync.kafka.questions.cluster_client import ClusterClient

TIMEOUT_SECONDS = 30.0


@pytest.fixture
def servers() -> Iterator[str]:
    """A mock cluster with one message in partition 0 of the topic ``log``."""
    producer = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "none", "log_level": 0})
    brokers = producer.list_topics(timeout=TIMEOUT_SECONDS).brokers.values()
    producer.produce("log", b"42", partition=0)
    assert producer.flush(TIMEOUT_SECONDS) == 0
    yield ",".join(f"{each.host}:{each.port}" for each in brokers)
    producer.flush(0)  # the cluster lives as long as its client


def ends_of_log(servers: str, timeout: float) -> Mapping[int, int | KafkaError]:
    """What an asker answers, once."""
    asker = Asker({"bootstrap.servers": servers, "log_level": 0}, lambda error: None)
    answers: SimpleQueue[Mapping[int, int | KafkaError]] = SimpleQueue()
    try:
        asker.ask_topic_ends("log", timeout, answers.put)
        answer = answers.get(timeout=TIMEOUT_SECONDS)
    finally:
        asker.stop(TIMEOUT_SECONDS)
    assert answers.empty()
    return answer


def test_nothing_is_committed_of_what_was_staged_and_dropped(servers: str) -> None:
    """As librdkafka closes a client that commits by itself, which else commits what is stored."""
    settings = {"bootstrap.servers": servers, "group.id": "follower", "auto.offset.reset": "earliest", "log_level": 0}
    client = Consumer({**settings, "enable.auto.commit": True, "enable.auto.offset.store": False})
    client.subscribe(["log"])
    assert client.consume(1, timeout=TIMEOUT_SECONDS) != []
    partition = TopicPartition("log", 0)
    client.commit(offsets=[TopicPartition("log", 0, 0)], asynchronous=False)
    client.store_offsets(offsets=[TopicPartition("log", 0, 1)])
    arroyo_s = SimpleNamespace(_KafkaConsumer__consumer=client, _KafkaConsumer__use_auto_commit=True)
    drop_staged(cast(Any, arroyo_s), [Partition(Topic("log"), 0)])
    client.close()
    other = Consumer(settings)
    try:
        assert other.committed([partition], timeout=TIMEOUT_SECONDS)[0].offset == 0
    finally:
        other.close()


def test_where_a_topic_ends_is_told_though_no_controller_describes_it(servers: str) -> None:
    """Any broker lists its partitions. Else nothing is verified there, and nothing ever released."""
    assert ends_of_log(servers, 4.0)[0] == 1


def test_where_nobody_tells_which_partitions_a_topic_has_that_is_answered_and_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Who waits for it would wait for ever else, without a line that says why."""
    monkeypatch.setattr(broker_watch, "PATIENCE_SECONDS", 0.0)
    assert ends_of_log("127.0.0.1:1", 0.2) == {}
    assert caplog.messages[0].startswith("The brokers don't answer about log[0], so nothing new is learnt of them")


def test_where_partitions_end_is_asked_without_the_controller(servers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any broker tells who leads them: one that waits for a controller would delay what is released at the start."""
    described: list[object] = []
    monkeypatch.setattr(ClusterClient, "describe", lambda *arguments: described.append(arguments))
    asker = Asker({"bootstrap.servers": servers, "log_level": 0}, lambda error: None)
    try:
        assert asker.end_offsets([("log", 0)], TIMEOUT_SECONDS) == {("log", 0): 1}
    finally:
        asker.stop(TIMEOUT_SECONDS)
    assert described == []


def test_a_question_about_a_topic_that_is_not_there_does_not_create_it(servers: str) -> None:
    """These brokers create it unless the client forbids that, which it does whatever the user's settings say."""
    settings: dict[str, str | int | float | bool] = {"bootstrap.servers": servers, "log_level": 0}
    asker = Asker({**settings, "allow.auto.create.topics": True}, lambda error: None)
    try:
        answer = asker.end_offsets([("missing", 0)], TIMEOUT_SECONDS)[("missing", 0)]
        assert isinstance(answer, KafkaError)
        assert answer.code() in TOPIC_IS_GONE
    finally:
        asker.stop(TIMEOUT_SECONDS)
    assert "missing" not in AdminClient(settings).list_topics(timeout=TIMEOUT_SECONDS).topics
