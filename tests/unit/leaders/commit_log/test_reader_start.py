"""The start of the reading thread's work: until the brokers have answered, and the commit log is there."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
from confluent_kafka import KafkaError, KafkaException, Message

from arroyo_sync.core.errors import BrokersUnreachable, CommitLogMissing
from arroyo_sync.core.log_throttle import LOG_INTERVAL_SECONDS
from arroyo_sync.kafka.questions.broker_watch import PATIENCE_SECONDS
from arroyo_sync.leaders.commit_log.reader import (
    ASK_TIMEOUT_SECONDS,
    CONNECTING_POLL_SECONDS,
    RETRY_SECONDS,
)
from tests.unit.leaders.commit_log.test_reader import TOPIC, Fixture, record

REFUSED = KafkaException(KafkaError(KafkaError._TRANSPORT, "connection refused"))
CONNECT_SECONDS = 30.0
"""The fixture's."""


def no_broker(*, at_poll: Callable[[Fixture, int], None], wait_for_topic: bool = False) -> Fixture:
    """A reader whose brokers don't answer. Each attempt is followed by a poll, in which a test does something.

    :param at_poll: is given the poll's number, from 1 on.
    """
    fixture = Fixture(wait_for_topic=wait_for_topic)
    fixture.client.metadata_error = REFUSED
    poll = fixture.client.poll

    def counted(timeout: float) -> Message | None:
        message = poll(timeout)
        at_poll(fixture, len(fixture.client.polls))
        return message

    fixture.client.poll = counted  # type: ignore[method-assign]
    return fixture


def answering(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The lines about who answers."""
    return [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING and "answer" in each.msg]


def test_what_is_waited_for_can_be_asked_before_a_broker_has_answered() -> None:
    """With the brokers' addresses, and the last error, once there is one."""
    told: list[str] = []

    def note(fixture: Fixture, attempt: int) -> None:
        told.append(fixture.reader.missing())
        if attempt == 2:
            fixture.client.metadata_error = None

    fixture = no_broker(at_poll=note)
    fixture.run(0)
    assert told == ["it waits for a broker's answer", "it waits for an answer of kafka:9092: connection refused"]
    assert fixture.client.listed == [(TOPIC, ASK_TIMEOUT_SECONDS)] * 3
    assert fixture.client.polls == [CONNECTING_POLL_SECONDS] * 2
    assert fixture.stopping.waits == []


def test_the_start_ends_when_the_time_to_connect_is_over_to_the_second() -> None:
    """Not at the attempt before; the error says what was tried for how long, and holds what the client said."""

    def pass_time(fixture: Fixture, attempt: int) -> None:
        fixture.clock.now = began + (CONNECT_SECONDS if attempt == 2 else CONNECT_SECONDS - 0.5)

    fixture = no_broker(at_poll=pass_time)
    began = fixture.clock.now
    with pytest.raises(BrokersUnreachable, match="no broker of kafka:9092 answered within 30 s") as unreachable:
        fixture.run(0)
    assert unreachable.value.__cause__ is REFUSED
    assert len(fixture.client.polls) == 2


def test_brokers_that_never_answer_are_told_of_once_after_three_seconds(caplog: pytest.LogCaptureFixture) -> None:
    """Before that it may be a moment, and after it the error says the rest."""
    lines: list[int] = []

    def pass_time(fixture: Fixture, attempt: int) -> None:
        lines.append(len(answering(caplog)))
        after = [PATIENCE_SECONDS - 0.5, PATIENCE_SECONDS, CONNECT_SECONDS / 2, CONNECT_SECONDS]
        fixture.clock.now = began + after[attempt - 1]

    fixture = no_broker(at_poll=pass_time)
    began = fixture.clock.now
    with pytest.raises(BrokersUnreachable):
        fixture.run(0)
    assert lines == [0, 0, 1, 1]
    assert answering(caplog) == [
        "Commit log log: no broker of kafka:9092 answers: connection refused. It is tried again"
    ]


def test_brokers_that_come_and_go_before_the_topic_is_there_are_told_of_each_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Once each time, when it has lasted, and that they answer, though the topic is still waited for."""

    def answer(fixture: Fixture, attempt: int) -> None:
        if fixture.clock.now >= began[-1] + PATIENCE_SECONDS:
            silent.append(attempt)
            if len(silent) in (2, 5):
                fixture.client.metadata_error = None

    def wait_for_topic() -> None:
        if len(fixture.stopping.waits) == 3:
            fixture.client.metadata_error = REFUSED
            began.append(fixture.clock.now)
        if len(fixture.stopping.waits) == 6:
            fixture.client.partitions = {0}

    silent: list[int] = []
    fixture = no_broker(at_poll=answer, wait_for_topic=True)
    fixture.client.partitions.clear()
    fixture.stopping.meanwhile = wait_for_topic
    began = [fixture.clock.now]
    fixture.run(0)
    silence = "Commit log log: no broker of kafka:9092 answers: connection refused. It is tried again"
    assert answering(caplog) == [silence, "Commit log log: kafka:9092 answers now"] * 2


def test_brokers_that_are_away_while_the_topic_is_waited_for_have_as_long_again_as_at_the_start() -> None:
    """They had answered; the topic may be waited for for hours, and a restart of theirs ended the follower."""

    def answer(fixture: Fixture, attempt: int) -> None:
        if attempt == 2:
            fixture.client.metadata_error = None

    def wait_for_topic() -> None:
        if len(fixture.stopping.waits) == 1:
            fixture.clock.now += 3600
            fixture.client.metadata_error = REFUSED
        else:
            fixture.client.partitions = {0}

    fixture = no_broker(at_poll=answer, wait_for_topic=True)
    fixture.client.metadata_error = None
    fixture.client.partitions.clear()
    fixture.stopping.meanwhile = wait_for_topic
    fixture.run(1)
    assert fixture.client.assigned.keys() == {0}


def test_a_refused_password_ends_the_start_at_once() -> None:
    """The client tells of it by the way: the question only ran out of time."""

    def refuse(fixture: Fixture, attempt: int) -> None:
        fixture.reader.on_error(KafkaError(KafkaError._AUTHENTICATION, "wrong password"))

    fixture = no_broker(at_poll=refuse)
    with pytest.raises(KafkaException, match="wrong password") as refused:
        fixture.run(0)
    assert refused.value.__cause__ is REFUSED
    assert len(fixture.client.polls) == 1


def test_a_topic_that_may_not_be_read_ends_the_start_at_once() -> None:
    """Waiting gives no permission."""
    fixture = Fixture()
    fixture.client.topic_error = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED, "not yours")
    with pytest.raises(KafkaException, match="not yours"):
        fixture.run(0)
    assert len(fixture.client.listed) == 1


def test_a_topic_that_appears_at_the_second_look_is_read() -> None:
    """It may be new, and its first broker not know it yet."""
    fixture = Fixture(())

    def create() -> None:
        fixture.client.partitions = {0}

    fixture.stopping.meanwhile = create
    fixture.client.ends = {0: 1}
    fixture.run(1)
    fixture.step(record(0, 7))
    assert (fixture.stopping.waits, fixture.ready) == ([RETRY_SECONDS], [True])


def test_a_topic_that_is_not_there_at_the_second_look_ends_the_start(caplog: pytest.LogCaptureFixture) -> None:
    """The error says where it was looked for and what to do; nothing is called waiting that doesn't wait."""
    fixture = Fixture(())
    with pytest.raises(CommitLogMissing) as missing:
        fixture.run(0)
    assert str(missing.value) == (
        "topic 'log' doesn't exist at kafka:9092. Is the name right? Create it, or give wait_for_topic=True to wait "
        "for it"
    )
    assert fixture.stopping.waits == [RETRY_SECONDS]
    assert caplog.messages == []


def test_a_topic_that_is_waited_for_is_told_of_once_a_minute_until_it_is_there(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """For as long as it takes, and a look each half second."""
    fixture = Fixture((), wait_for_topic=True)
    looks = round(LOG_INTERVAL_SECONDS / RETRY_SECONDS) + 10
    told: set[str] = set()

    def create_at_last() -> None:
        told.add(fixture.reader.missing())
        if len(fixture.stopping.waits) == looks:
            fixture.client.partitions = {0}

    fixture.stopping.meanwhile = create_at_last
    fixture.client.ends = {0: 1}
    fixture.run(1)
    assert fixture.stopping.waits == [RETRY_SECONDS] * looks
    assert told == {"it waits for the topic to exist"}
    assert caplog.messages == ["Commit log log doesn't exist: waiting for it, nothing is released"] * 2
    fixture.step(record(0, 7))
    assert fixture.ready == [True]


@pytest.mark.parametrize("what", ["a broker", "the topic"])
def test_a_source_that_is_stopped_while_it_waits_ends_without_an_error(
    what: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing more is looked for, and nothing read."""

    def stop(fixture: Fixture, attempt: int) -> None:
        fixture.stopping.set()

    if what == "a broker":
        fixture = no_broker(at_poll=stop)
    else:
        fixture = Fixture((), wait_for_topic=True)
        fixture.stopping.meanwhile = fixture.stopping.set
    fixture.run(0)
    assert len(fixture.client.listed) == 1
    assert (fixture.client.assigned, fixture.ready) == ({}, [])
    assert not any(each.levelno >= logging.ERROR for each in caplog.records)
