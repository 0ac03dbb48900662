"""What becomes of a question that can't be sent, and before which questions it is asked who leads.

What brokers answer is shown on the mock cluster and on real ones.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec

from arroyo_sync.core.errors import ConfigurationError
from arroyo_sync.core.state import PartitionKey
from arroyo_sync.kafka.errors import is_silence
from arroyo_sync.kafka.questions.broker_watch import BrokerWatch
from arroyo_sync.kafka.questions.cluster_client import ClusterClient
from arroyo_sync.kafka.questions.partition_leaders import LEADERS_SECONDS
from tests.support.answers import TIMEOUT_SECONDS, Answers
from tests.support.fakes import Clock

NOBODY = {"bootstrap.servers": "127.0.0.1:1"}
REFUSED = {**NOBODY, "security.protocol": "nonsense"}

TOPIC = "events"
FIRST, SECOND = (TOPIC, 0), (TOPIC, 1)
END = SimpleNamespace(offset=17)
NOT_LEADER = KafkaError(KafkaError.NOT_LEADER_FOR_PARTITION)
LATEST = OffsetSpec.latest()  # type: ignore[no-untyped-call] # confluent-kafka gives it no types


def client_of(settings: dict[str, str]) -> ClusterClient:
    return ClusterClient(settings, lambda error: None, BrokerWatch("", time.monotonic), time.monotonic)


def test_once_it_is_stopped_a_question_is_given_up_at_once() -> None:
    """Also one that would begin a thread of its own."""
    client = client_of(NOBODY)
    client.stop(0.0)
    with pytest.raises(KafkaException) as raised:
        client.reach(60.0)
    assert raised.value.args[0].code() == KafkaError._DESTROY
    answers: list[object] = []
    client.list_partitions("events", 60.0, answers.append)
    client.describe(["events"], 60.0, answers.append)
    assert answers[0] == []
    assert len(answers) == 2


def test_without_a_token_that_is_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was told that it had been stopped, and counted as an answer."""
    client = client_of(NOBODY)
    monkeypatch.setattr(client._client, "_get", lambda: (None, ""))
    answers: list[Mapping[str, object]] = []
    client.describe([TOPIC], 60.0, answers.append)
    (error,) = answers[0].values()
    assert isinstance(error, KafkaError)
    assert is_silence(error)
    assert error.str() == "nobody could be asked: there is no token to log in with"
    with pytest.raises(KafkaException, match="there is no token to log in with"):
        client.reach(60.0)
    client.stop(0.0)


def test_settings_that_are_refused_leave_no_question_in_flight() -> None:
    """They are told to whoever asks, and the end waits for nothing."""
    client = client_of(REFUSED)
    with pytest.raises(ConfigurationError):
        client.reach(60.0)
    with pytest.raises(ConfigurationError):
        client.list_partitions("events", 60.0, lambda found: None)
    with pytest.raises(ConfigurationError):
        client.describe(["events"], 60.0, lambda found: None)
    begun_at = time.monotonic()
    client.stop(60.0)
    assert time.monotonic() - begun_at < 30.0


class Admin:
    """In the place of the administrator's client. It answers at once, and notes what it is asked for."""

    def __init__(self) -> None:
        self.leaders = {0: 1, 1: 2}
        """Which broker leads each partition of the one topic."""
        self.errors: dict[PartitionKey, KafkaError] = {}
        """In place of partitions' ends."""
        self.asked: list[str] = []
        self.topic_error: KafkaError | None = None
        """In place of who leads the topic."""
        self.may_tell = threading.Event()
        """Whether it tells who leads, or whoever asks for that waits."""
        self.may_tell.set()
        self.waiting: list[threading.Thread] = []
        """The threads that have asked for that."""

    def list_topics(self, name: str, timeout: float) -> object:
        self.asked.append("who leads")
        self.waiting.append(threading.current_thread())
        assert self.may_tell.wait(TIMEOUT_SECONDS)
        partitions = {index: SimpleNamespace(id=index, leader=each) for index, each in self.leaders.items()}
        topic = SimpleNamespace(error=self.topic_error, partitions=partitions)
        return SimpleNamespace(cluster_id="one", topics={name: topic})

    def list_offsets(
        self, specs: Mapping[TopicPartition, OffsetSpec], isolation_level: object, request_timeout: float
    ) -> Mapping[TopicPartition, Future[Any]]:
        self.asked.append("ends")
        futures: dict[TopicPartition, Future[Any]] = {each: Future() for each in specs}
        for each, future in futures.items():
            error = self.errors.get((each.topic, each.partition))
            if error is None:
                future.set_result(END)
            else:
                future.set_exception(KafkaException(error))
        return futures

    def describe_topics(self, topics: object, request_timeout: float) -> Mapping[str, Future[Any]]:
        self.asked.append("ids")
        future: Future[Any] = Future()
        nodes = {index: SimpleNamespace(id=each) for index, each in self.leaders.items()}
        partitions = [SimpleNamespace(id=index, leader=node) for index, node in nodes.items()]
        future.set_result(SimpleNamespace(topic_id="id", partitions=partitions))
        return {TOPIC: future}


class Fixture:
    """A client with that in it, for which no time passes by itself."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.admin = Admin()
        monkeypatch.setattr("arroyo_sync.kafka.questions.cluster_client.AdminClient", lambda settings: self.admin)
        self.clock = clock = Clock()
        self.client = ClusterClient(NOBODY, lambda error: None, BrokerWatch("", clock), clock)

    def ask(self, partitions: Collection[PartitionKey]) -> Answers:
        """Ask where the partitions end."""
        answers = Answers()
        self.client.ask_offsets(partitions, [LATEST], 60.0, answers)
        return answers

    def end(self, key: PartitionKey) -> object:
        """Where the partition ends, by the next question, and forget what was asked for before that."""
        self.admin.asked.clear()
        return self.ask([key]).wait_for(key)

    def stop(self) -> None:
        self.admin.may_tell.set()
        self.client.stop(TIMEOUT_SECONDS)
        self.join()

    def join(self) -> None:
        """Until nobody asks who leads any more."""
        for thread in self.admin.waiting:
            thread.join(TIMEOUT_SECONDS)
        assert not any(thread.is_alive() for thread in self.admin.waiting)


@pytest.fixture
def fixture(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fixture]:
    fixture = Fixture(monkeypatch)
    yield fixture
    fixture.stop()


def test_who_leads_is_asked_for_once(fixture: Fixture) -> None:
    """Then the brokers are asked that lead, each with a question of its own."""
    assert fixture.end(FIRST) == [END]
    assert fixture.admin.asked == ["who leads", "ends"]
    assert fixture.end(SECOND) == [END]
    assert fixture.admin.asked == ["ends"]
    fixture.admin.asked.clear()
    answers = fixture.ask([FIRST, SECOND])
    assert [answers.wait_for(key) for key in (FIRST, SECOND)] == [[END], [END]]
    assert fixture.admin.asked == ["ends", "ends"]


def test_after_a_broker_that_leads_no_more_it_is_asked_who_does_before_anybody_is_asked_again(
    fixture: Fixture,
) -> None:
    """The client has forgotten who leads any partition of that topic, and a race in looking it up corrupts memory."""
    fixture.end(FIRST)
    fixture.admin.errors = {FIRST: NOT_LEADER}
    assert fixture.end(FIRST) == [NOT_LEADER]
    assert fixture.admin.asked == ["ends"]
    fixture.admin.errors = {}
    assert fixture.end(SECOND) == [END]
    assert fixture.admin.asked == ["who leads", "ends"]
    assert fixture.end(FIRST) == [END]
    assert fixture.admin.asked == ["ends"]


@pytest.mark.parametrize("are_others", [True, False], ids=["others", "the same"])
def test_leaders_that_come_with_a_topics_id_are_looked_up_if_they_are_others(
    fixture: Fixture, are_others: bool
) -> None:
    """The client doesn't take these in."""
    fixture.end(FIRST)
    if are_others:
        fixture.admin.leaders = {0: 2, 1: 2}
    described: list[object] = []
    fixture.client.describe([TOPIC], 60.0, described.append)
    assert len(described) == 1
    assert fixture.end(FIRST) == [END]
    assert fixture.admin.asked == (["who leads", "ends"] if are_others else ["ends"])


def test_of_a_topic_that_a_broker_does_not_know_nobody_is_asked_where_it_ends(fixture: Fixture) -> None:
    """That answer takes the place of the leaders in the client, which would look them up by itself."""
    fixture.end(FIRST)
    fixture.clock.now += LEADERS_SECONDS
    fixture.admin.topic_error = unknown = KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)
    assert fixture.end(FIRST) == [END], "who leads is asked for beside it"
    fixture.join()
    assert fixture.end(FIRST) == unknown
    fixture.join()
    assert set(fixture.admin.asked) == {"who leads"}
    fixture.admin.topic_error = None
    assert fixture.end(FIRST) == [END]
    assert fixture.admin.asked == ["who leads", "ends"]


def test_a_question_that_comes_while_it_is_asked_who_leads_is_answered_as_well(fixture: Fixture) -> None:
    """Its topic isn't due then, since another question has it asked for."""
    fixture.admin.may_tell.clear()
    first, second = fixture.ask([FIRST]), fixture.ask([FIRST])
    assert (first.given, second.given) == ({}, {})
    fixture.admin.may_tell.set()
    assert [each.wait_for(FIRST) for each in (first, second)] == [[END], [END]]
