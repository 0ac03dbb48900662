"""What is staged is committed, whoever commits for Arroyo, and what was refused is known."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import confluent_kafka
import pytest
from arroyo.types import Partition
from arroyo.utils.retries import BasicRetryPolicy, RetryException
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from arroyo_sync.core.log_throttle import LOG_INTERVAL_SECONDS, LogThrottle
from arroyo_sync.kafka import errors
from arroyo_sync.kafka.commits import (
    check_coordinator,
    commit_staged,
    commit_through_refused_logins,
    committed_offset,
    committed_offsets,
    last_error,
)
from arroyo_sync.kafka.errors import PARDON_SECONDS
from tests.support.fakes import EVENTS, Clock, ScriptedConsumer


class AutoCommitting(ScriptedConsumer):
    """As Arroyo's consumer under ``arroyo.enable.auto.commit``: its own commit does nothing."""

    def __init__(self, client: object) -> None:
        super().__init__()
        self._KafkaConsumer__consumer = client
        self._KafkaConsumer__use_auto_commit = True

    def commit_offsets(self) -> Mapping[Partition, int]:
        raise AssertionError("does nothing in Arroyo")


class Client(confluent_kafka.Consumer):
    """A client whose commits have these outcomes, in turn."""

    outcomes: list[list[TopicPartition] | Exception]
    offsets: list[list[TopicPartition] | None]
    """What each was to commit; ``None``: what is staged."""

    answers: list[TopicPartition] | Exception
    asked: list[tuple[list[TopicPartition], float]]

    def committed(self, partitions: list[TopicPartition], timeout: float | None = None) -> list[TopicPartition]:
        assert timeout is not None
        self.asked.append((partitions, timeout))
        if isinstance(self.answers, Exception):
            raise self.answers
        return self.answers

    def commit(self, *, asynchronous: bool, offsets: list[TopicPartition] | None = None) -> Any:  # type: ignore[override]
        assert not asynchronous
        self.offsets.append(offsets)
        outcome = self.outcomes[len(self.offsets) - 1]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


@pytest.fixture
def client() -> Iterator[Client]:
    client = Client({"bootstrap.servers": "127.0.0.1:1", "group.id": "follower", "log_level": 0})
    client.offsets, client.asked = [], []
    yield client
    client.close()


def test_a_consumer_that_commits_itself_is_asked_to() -> None:
    consumer = ScriptedConsumer()
    consumer.assign(0)
    consumer.stage_offsets({Partition(EVENTS, 0): 4})
    commit_staged(consumer)
    assert consumer.committed == {0: 4}


NOTHING_MORE = KafkaException(KafkaError(KafkaError._NO_OFFSET))


def test_under_auto_commit_the_client_commits_and_is_waited_for(client: Client) -> None:
    """Also when librdkafka has committed all of it meanwhile."""
    client.outcomes = [[TopicPartition("events", 0, 4)], NOTHING_MORE]
    for _ in client.outcomes:
        commit_staged(AutoCommitting(client))
    assert client.offsets == [None, None]


def test_under_auto_commit_offsets_can_be_named(client: Client) -> None:
    """Of what is staged librdkafka commits nothing that lies before its last commit. The others are committed too."""
    client.outcomes = [[TopicPartition("events", 0, 4)], NOTHING_MORE]
    commit_staged(AutoCommitting(client), {Partition(EVENTS, 0): 4})
    assert client.offsets == [[TopicPartition("events", 0, 4)], None]


@pytest.mark.parametrize("by_name", [{}, {Partition(EVENTS, 0): 4}], ids=["what is staged", "by name"])
@pytest.mark.parametrize("is_of_one_partition", [True, False])
def test_a_commit_that_fails_raises(
    client: Client, is_of_one_partition: bool, by_name: Mapping[Partition, int]
) -> None:
    """As a whole, or for one partition, which the client doesn't raise."""
    error = KafkaError(KafkaError.UNKNOWN_MEMBER_ID)
    if is_of_one_partition:
        refused = SimpleNamespace(error=error)
        client.outcomes = [[TopicPartition("events", 0, 4), refused]]  # type: ignore[list-item]
    else:
        client.outcomes = [KafkaException(error)]
    with pytest.raises(KafkaException) as raised:
        commit_staged(AutoCommitting(client), by_name)
    assert raised.value.args[0].code() == KafkaError.UNKNOWN_MEMBER_ID


AWAY = KafkaException(KafkaError(KafkaError._WAIT_COORD))


def test_of_tries_that_failed_the_last_error_is_raised() -> None:
    """Arroyo's own, after its third, says nothing: the line that tells of it had no cause."""

    class Retrying(ScriptedConsumer):
        def commit_offsets(self) -> Mapping[Partition, int]:
            def fail() -> Mapping[Partition, int]:
                raise AWAY

            return BasicRetryPolicy(3).call(fail)

    with pytest.raises(KafkaException) as raised:
        commit_staged(Retrying())
    assert raised.value is AWAY


def test_the_last_error_is_of_arroyo_s_retries_alone() -> None:
    """What another exception has for its cause says less than itself."""
    error = ValueError("a reason")
    error.__cause__ = AWAY
    without = RetryException()
    assert (last_error(error), last_error(without)) == (error, without)
    without.__cause__ = KeyboardInterrupt()
    assert last_error(without) is without


def test_what_is_committed_is_asked_in_one_question(client: Client) -> None:
    """``None`` stands for nothing."""
    client.answers = [TopicPartition("events", 1, -1001), TopicPartition("events", 0, 7)]
    partitions = [Partition(EVENTS, 0), Partition(EVENTS, 1)]
    assert committed_offsets(AutoCommitting(client), partitions, 2.5) == {partitions[0]: 7, partitions[1]: None}
    ((asked, timeout),) = client.asked
    assert ([(each.topic, each.partition) for each in asked], timeout) == ([("events", 0), ("events", 1)], 2.5)
    client.answers = [TopicPartition("events", 0, 7)]
    assert committed_offset(AutoCommitting(client), partitions[0], 2.5) == 7


def test_a_partition_that_is_refused_makes_no_answer(client: Client) -> None:
    client.answers = [SimpleNamespace(topic="events", partition=0, offset=-1001, error=AWAY.args[0])]  # type: ignore[list-item]
    with pytest.raises(KafkaException, match="_WAIT_COORD"):
        committed_offset(AutoCommitting(client), Partition(EVENTS, 0), 1.0)


def test_whether_the_coordinator_answers(client: Client) -> None:
    """Another consumer can't be asked, and commits as it likes."""
    client.answers = AWAY
    with pytest.raises(KafkaException, match="_WAIT_COORD"):
        check_coordinator(AutoCommitting(client), Partition(EVENTS, 0), 0.1)
    client.answers = [TopicPartition("events", 0, -1001)]
    check_coordinator(AutoCommitting(client), Partition(EVENTS, 0), 0.2)
    check_coordinator(ScriptedConsumer(), Partition(EVENTS, 0), 0.1)
    assert [timeout for _, timeout in client.asked] == [0.1, 0.2]


class Refused(ScriptedConsumer):
    """Its first commits fail so, while the clock goes on by ``seconds`` each time."""

    def __init__(self, clock: Clock, errors: list[Exception], seconds: float = 1.0) -> None:
        super().__init__()
        self.commits = 0
        self._clock = clock
        self._errors = errors
        self._seconds = seconds

    def commit_offsets(self) -> Mapping[Partition, int]:
        self.commits += 1
        self._clock.now += self._seconds
        if self._errors:
            raise self._errors.pop(0)
        return {Partition(EVENTS, 0): 7}


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Nothing waits between two tries. Returns for how long it would have."""
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    monkeypatch.setattr(errors, "_token_throttle", LogThrottle(LOG_INTERVAL_SECONDS, Clock()))
    return waited


def failed_commit(code: int, fatal: bool = False) -> KafkaException:
    return KafkaException(KafkaError(code, "Commit failed", fatal))


@pytest.mark.parametrize("code", [KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED])
def test_a_commit_that_met_a_refused_login_is_made_again(
    code: int, at_once: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever asked for it may announce it as it returns, so it returns when it was made."""
    clock = Clock()
    consumer = Refused(clock, [failed_commit(code), failed_commit(code)])
    assert commit_through_refused_logins(consumer, clock) == {Partition(EVENTS, 0): 7}
    assert consumer.commits == 3
    assert at_once == [0.2, 0.2]
    assert [each.getMessage() for each in caplog.records] == [
        "Kafka refuses a login: Commit failed. The client logs in anew. If it is refused for a minute, it can't go on"
    ]


def test_a_commit_whose_login_is_refused_for_a_minute_fails(at_once: list[float]) -> None:
    """Counted from the first one."""
    clock = Clock()
    failed = [failed_commit(KafkaError._AUTHENTICATION) for _ in range(5)]
    consumer = Refused(clock, [*failed], PARDON_SECONDS / 3)
    with pytest.raises(KafkaException) as raised:
        commit_through_refused_logins(consumer, clock)
    assert raised.value is failed[3]


@pytest.mark.parametrize(
    "error",
    [
        failed_commit(KafkaError.UNKNOWN_MEMBER_ID),
        failed_commit(KafkaError.GROUP_AUTHORIZATION_FAILED),
        failed_commit(KafkaError._AUTHENTICATION, fatal=True),
        KafkaException(),
        KafkaException("what another consumer raises"),
        RetryException(),
    ],
    ids=str,
)
def test_what_else_fails_a_commit_is_raised_at_once(error: Exception, at_once: list[float]) -> None:
    clock = Clock()
    consumer = Refused(clock, [error])
    with pytest.raises(type(error)) as raised:
        commit_through_refused_logins(consumer, clock)
    assert raised.value is error
    assert consumer.commits == 1
    assert not at_once
