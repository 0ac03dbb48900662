"""How often and how long the reading thread asks, waits and takes: seconds of its clock, records and bytes."""

from __future__ import annotations

import pytest
from confluent_kafka import OFFSET_BEGINNING, TIMESTAMP_CREATE_TIME, KafkaError, KafkaException, Message

from arroyo_sync.core.errors import CommitLogMissing
from arroyo_sync.kafka.errors import FRESH_SECONDS, PARDON_SECONDS
from arroyo_sync.leaders.commit_log.batch_decoder import BATCH_BYTES
from arroyo_sync.leaders.commit_log.reader import (
    ASK_TIMEOUT_SECONDS,
    ASKING_POLL_SECONDS,
    LAG_SECONDS,
    MISSING_SECONDS,
    POLL_SECONDS,
    RETRY_SECONDS,
)
from tests.unit.leaders.commit_log.test_reader import TOPIC, Fixture, event, record

REFRESH_SECONDS = 10.0
"""The fixture's ``topic.metadata.refresh.interval.ms``."""
TIMED_OUT = KafkaError(KafkaError._TIMED_OUT)


def reading(*, ends: int = 100) -> Fixture:
    """A reader of a log of one partition that is being replayed, whose clock shows a round number."""
    fixture = Fixture()
    fixture.client.ends = {0: ends}
    fixture.run(1)
    fixture.clock.now = 2_000.0
    fixture.step(record(0, 7))
    return fixture


def step_at(fixture: Fixture, now: float) -> None:
    """A step in which no time passes, as a message is there; the partition is in doubt in no way."""
    fixture.clock.now = now
    fixture.step(event(KafkaError._TRANSPORT))
    assert fixture.clock.now == now


def test_a_poll_is_short_until_something_is_read() -> None:
    """Until then it's the brokers' answers that are waited for, which end no poll; later a record ends it."""
    fixture = Fixture()
    fixture.client.ends = {0: 1}
    fixture.asker.late = {0}
    fixture.run(2)
    assert fixture.client.polls == [ASKING_POLL_SECONDS] * 2
    fixture.asker.answers.pop()()
    fixture.step()
    assert fixture.client.polls[2:] == [POLL_SECONDS]


def test_the_lag_is_looked_at_once_a_second() -> None:
    """For each partition the client is asked; more often would cost time that reading needs."""
    fixture = reading()
    before = fixture.client.lag_asked
    for seconds in (0.0, 0.5, LAG_SECONDS - 0.125):
        step_at(fixture, 2_000.0 + seconds)
    assert fixture.client.lag_asked == before
    step_at(fixture, 2_000.0 + LAG_SECONDS)
    assert fixture.client.lag_asked == before + 1
    step_at(fixture, 2_000.0 + LAG_SECONDS)
    assert fixture.client.lag_asked == before + 1


def test_the_lag_is_unknown_until_the_client_was_asked() -> None:
    """Which it is at the first step, also on a machine that has just started, whose monotonic clock begins at zero."""
    fixture = Fixture()
    fixture.clock.now = 0.0
    fixture.client.ends = {0: 4}
    assert fixture.reader.lag is None
    fixture.run(1)
    assert fixture.clock.now < LAG_SECONDS
    assert fixture.reader.lag == 4


def test_added_partitions_are_looked_for_as_often_as_the_settings_say() -> None:
    """From the start on, and after each look; the topic's id is asked for beside it."""
    fixture = Fixture()
    began = fixture.clock.now
    fixture.run(1)
    assert (len(fixture.client.listed), fixture.identity.asked) == (1, 1)
    for looks, now in enumerate((began + REFRESH_SECONDS, began + 2 * REFRESH_SECONDS), start=1):
        step_at(fixture, now - 0.125)
        assert len(fixture.client.listed) == looks
        step_at(fixture, now)
        assert (len(fixture.client.listed), fixture.identity.asked) == (1 + looks, 1 + looks)
    assert fixture.client.listed == [(TOPIC, ASK_TIMEOUT_SECONDS)] * 3


def test_the_partitions_are_looked_at_again_only_after_the_interval_when_that_failed() -> None:
    """The brokers are asked whether they are there instead."""
    fixture = Fixture()
    began = fixture.clock.now
    fixture.run(1)
    fixture.client.metadata_error = KafkaException(TIMED_OUT)
    fixture.clock.now = began + REFRESH_SECONDS
    fixture.step(event(KafkaError._TRANSPORT))
    fixture.step(event(KafkaError._TRANSPORT))
    assert len(fixture.client.listed) == 2
    assert fixture.asker.questions == [[("log", 0)]]


def test_an_error_at_a_later_look_that_waiting_does_not_mend_ends_it() -> None:
    """Such as a permission that was taken away."""
    fixture = Fixture()
    fixture.run(1)
    fixture.client.metadata_error = KafkaException(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED, "not yours"))
    fixture.clock.now += REFRESH_SECONDS
    with pytest.raises(KafkaException, match="not yours"):
        fixture.step()


def long_opened() -> Fixture:
    fixture = reading(ends=0)
    fixture.clock.now += FRESH_SECONDS
    fixture.step()
    return fixture


def test_partitions_that_may_not_be_looked_at_later_are_looked_at_again_soon() -> None:
    """Until they may: librdkafka reads none of them before it has looked."""
    fixture = long_opened()
    fixture.client.topic_error = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)
    began = fixture.clock.now = fixture.clock.now + REFRESH_SECONDS
    before = len(fixture.client.listed)
    for looks in range(1, 6):
        step_at(fixture, began + looks * RETRY_SECONDS)
        step_at(fixture, began + looks * RETRY_SECONDS)
        assert len(fixture.client.listed) == before + looks
    fixture.client.metadata_error = KafkaException(TIMED_OUT)
    fixture.clock.now += RETRY_SECONDS
    fixture.step(event(KafkaError._TRANSPORT))
    assert len(fixture.client.listed) == before + 6
    fixture.client.topic_error = fixture.client.metadata_error = None
    began = fixture.clock.now + RETRY_SECONDS
    for at in (0.0, RETRY_SECONDS, RETRY_SECONDS + REFRESH_SECONDS - 0.125):
        step_at(fixture, began + at)
    assert len(fixture.client.listed) == before + 8
    step_at(fixture, began + RETRY_SECONDS + REFRESH_SECONDS)
    assert len(fixture.client.listed) == before + 9


def test_partitions_that_may_not_be_looked_at_for_a_minute_end_it() -> None:
    """Not so where they may in between."""
    fixture = long_opened()
    refused = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED, "not yours")
    fixture.clock.now += REFRESH_SECONDS
    for _ in range(int(3 * PARDON_SECONDS)):
        fixture.client.topic_error = None if fixture.client.topic_error else refused
        step_at(fixture, fixture.clock.now + RETRY_SECONDS)
    fixture.client.topic_error = refused
    for _ in range(int(PARDON_SECONDS / RETRY_SECONDS)):
        step_at(fixture, fixture.clock.now + RETRY_SECONDS)
    with pytest.raises(KafkaException, match="not yours"):
        step_at(fixture, fixture.clock.now + RETRY_SECONDS)


def test_partitions_that_the_client_was_refused_are_looked_at_at_once() -> None:
    """That it met this as it looked by itself, it tells by the way alone."""
    fixture = long_opened()
    before = len(fixture.client.listed)
    fixture.reader.on_error(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED, "log [0]: no longer available"))
    step_at(fixture, fixture.clock.now)
    assert len(fixture.client.listed) == before + 1


def test_a_new_client_looks_soon_at_partitions_that_were_refused() -> None:
    """Nobody else asks what it needs to know to read them."""
    fixture = long_opened()
    fixture.step(event(KafkaError.TOPIC_AUTHORIZATION_FAILED))
    before = len(fixture.client.listed)
    fixture.run(0)
    step_at(fixture, fixture.clock.now + RETRY_SECONDS)
    assert len(fixture.client.listed) == before + 1


def test_a_topic_that_is_gone_is_looked_for_every_half_second_for_ten_seconds() -> None:
    """No more often, and not a second longer."""
    fixture = reading()
    before = len(fixture.client.listed)
    fixture.client.partitions.clear()
    fixture.reader.on_error(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART))
    step_at(fixture, 2_100.0)
    step_at(fixture, 2_100.0)
    assert len(fixture.client.listed) == before + 1
    step_at(fixture, 2_100.0 + RETRY_SECONDS - 0.125)
    assert len(fixture.client.listed) == before + 1
    step_at(fixture, 2_100.0 + RETRY_SECONDS)
    assert len(fixture.client.listed) == before + 2
    step_at(fixture, 2_100.0 + MISSING_SECONDS - 0.125)
    with pytest.raises(CommitLogMissing) as missing:
        step_at(fixture, 2_100.0 + MISSING_SECONDS - 0.125 + RETRY_SECONDS)
    assert str(missing.value) == "topic 'log' doesn't exist any more: was it deleted?"


def test_a_topic_counts_as_deleted_once_it_was_gone_for_exactly_ten_seconds() -> None:
    """The bound itself counts."""
    fixture = reading()
    fixture.client.partitions.clear()
    fixture.reader.on_error(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART))
    step_at(fixture, 2_100.0)
    with pytest.raises(CommitLogMissing):
        step_at(fixture, 2_100.0 + MISSING_SECONDS)


def test_where_a_partition_ends_is_asked_every_half_second_until_it_is_told() -> None:
    """With a second for each question: a broker that is down isn't asked at every step."""
    fixture = Fixture()
    fixture.asker.errors = {0: TIMED_OUT}
    fixture.clock.now = 2_000.0
    fixture.run(1)
    assert fixture.asker.range_timeouts == [ASK_TIMEOUT_SECONDS]
    step_at(fixture, 2_000.0 + RETRY_SECONDS - 0.125)
    assert len(fixture.asker.range_timeouts) == 1
    step_at(fixture, 2_000.0 + RETRY_SECONDS)
    assert len(fixture.asker.range_timeouts) == 2
    step_at(fixture, 2_000.0 + RETRY_SECONDS)
    assert len(fixture.asker.range_timeouts) == 2


@pytest.mark.parametrize("teller", ["the callback", "a partition"])
def test_what_is_to_be_done_at_once_is_done_so_on_a_machine_that_has_just_started(teller: str) -> None:
    """Its monotonic clock begins at zero: the first question, a look for a topic that is gone, and reading again."""
    fixture = Fixture()
    fixture.clock.now = 0.0
    fixture.client.ends = {0: 1}
    fixture.run(1)
    assert fixture.client.assigned == {0: OFFSET_BEGINNING}

    before = len(fixture.client.listed)
    if teller == "the callback":
        fixture.reader.on_error(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART))
        step_at(fixture, 0.25)
    else:
        fixture.clock.now = 0.25
        fixture.step(event(KafkaError.UNKNOWN_TOPIC_OR_PART))
    assert len(fixture.client.listed) == before + 1

    fixture.step(event(KafkaError._AUTO_OFFSET_RESET))
    assert fixture.client.assigned == {}
    step_at(fixture, 0.375)
    assert fixture.client.assigned == {0: OFFSET_BEGINNING}


def taken(fixture: Fixture, *messages: Message) -> int:
    """How many records the next step would take with the first one, at most."""
    counts: list[int] = []
    consume = fixture.client.consume

    def count(count: int, timeout: float) -> list[Message]:
        counts.append(count)
        return consume(count, timeout)

    fixture.client.consume = count  # type: ignore[method-assign]
    fixture.step(*messages)
    fixture.client.consume = consume  # type: ignore[method-assign]
    return counts[0]


def of_bytes(count: int, log_offset: int) -> Message:
    """A record of so many bytes."""
    return Message(TOPIC, 0, log_offset, b"", bytes(count), None, None, (TIMESTAMP_CREATE_TIME, 1))


def test_as_many_records_are_taken_as_fit_in_the_bytes_allowed() -> None:
    """If they are as large as those before were on average, and a byte more."""
    fixture = reading()
    fixture.step(of_bytes(3_000, 1), of_bytes(5_998, 2))
    fixture.step(of_bytes(3_999, 3))
    assert taken(fixture, of_bytes(0, 4)) == BATCH_BYTES // 4_000


def test_a_record_that_takes_more_than_half_of_the_bytes_allowed_is_taken_alone() -> None:
    """Another one like it would be too much."""
    assert taken(reading(), of_bytes(BATCH_BYTES // 2 + 1, 1)) == 1
    assert taken(reading(), of_bytes(BATCH_BYTES // 2, 1)) == 2
