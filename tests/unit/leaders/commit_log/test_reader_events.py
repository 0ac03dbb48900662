"""What else than records comes to the reading thread: what a person reads of it, and what becomes of the records."""

from __future__ import annotations

import logging

import pytest
from confluent_kafka import OFFSET_BEGINNING, TIMESTAMP_CREATE_TIME, KafkaError, KafkaException, Message

from arroyo_sync.core.log_throttle import LOG_INTERVAL_SECONDS
from arroyo_sync.kafka.errors import FRESH_SECONDS, PARDON_SECONDS, RENEWAL_SECONDS
from tests.unit.leaders.commit_log.test_reader import TOPIC, Fixture, event, record

REFRESH_SECONDS = 10.0
"""The fixture's ``topic.metadata.refresh.interval.ms``."""
FROM_THE_FUTURE_MS = 10**14


def lines(caplog: pytest.LogCaptureFixture, level: int = logging.WARNING) -> list[tuple[str, str]]:
    """Levels and texts of the lines of this level and above."""
    return [(each.levelname, each.getMessage()) for each in caplog.records if each.levelno >= level]


def opened(*partitions: int) -> Fixture:
    """A reader whose gate is open, of a log of these partitions, of each of which one record was read."""
    fixture = Fixture(partitions)
    fixture.client.ends = dict.fromkeys(partitions, 1)
    fixture.run(1)
    fixture.step(*[record(0, 7 + each, partition=each, log_partition=each) for each in partitions])
    assert fixture.ready == [True]
    return fixture


def test_the_ends_of_several_partitions_may_be_met_at_once() -> None:
    """Each counts, beside the records of others."""
    fixture = Fixture((0, 1, 2))
    fixture.client.ends = {0: 5, 1: 5, 2: 1}
    fixture.run(1)
    fixture.step(event(KafkaError._PARTITION_EOF, 0), event(KafkaError._PARTITION_EOF, 1), record(0, 7, 0, 2))
    assert (fixture.ready, fixture.remote()) == ([True], 7)


def test_an_error_that_names_no_partition_says_nothing_of_any(caplog: pytest.LogCaptureFixture) -> None:
    """It comes to the client's callback as well; the records beside it count."""
    fixture = opened(0)
    caplog.clear()
    fixture.step(event(KafkaError._TRANSPORT, log_partition=-1), record(1, 9))
    assert (fixture.ready, fixture.remote()) == ([True], 9)
    assert lines(caplog) == []


def test_a_partition_that_stops_for_a_while_is_told_of_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """Each cause by itself; where it is, and that it is tried again."""
    fixture = opened(0, 3)
    caplog.clear()
    transport = Message(TOPIC, 3, 0, None, None, None, KafkaError(KafkaError._TRANSPORT, "connection reset"), (0, -1))
    moved = Message(TOPIC, 0, 0, None, None, None, KafkaError(KafkaError.LEADER_NOT_AVAILABLE, "no leader"), (0, -1))
    first = [
        ("WARNING", "Commit log log[3]: connection reset. It is tried again"),
        ("WARNING", "Commit log log[0]: no leader. It is tried again"),
    ]
    fixture.step(transport, moved, transport)
    fixture.step(moved, transport)
    assert lines(caplog) == first
    fixture.clock.now += LOG_INTERVAL_SECONDS
    fixture.step(transport)
    assert lines(caplog) == [*first, first[0]]


@pytest.mark.parametrize(
    ("code", "is_asked"),
    [
        pytest.param(KafkaError.TOPIC_AUTHORIZATION_FAILED, False, id="refused at a partition"),
        pytest.param(KafkaError.TOPIC_AUTHORIZATION_FAILED, True, id="refused at the question where it ends"),
        pytest.param(KafkaError.UNSUPPORTED_COMPRESSION_TYPE, False, id="no client can read past it"),
    ],
)
def test_the_error_that_ended_the_reading_is_the_brokers_own(code: int, is_asked: bool) -> None:
    """So that the person who must change something reads why."""
    error = KafkaError(code, "not yours")
    if is_asked:
        fixture = Fixture()
        fixture.asker.errors = {0: error}
    else:
        fixture = opened(0)
        fixture.client.messages.append(Message(TOPIC, 0, 0, None, None, None, error, (0, -1)))
    with pytest.raises(KafkaException) as ended:
        fixture.run(1)
    assert ended.value.args[0] is error


@pytest.mark.parametrize(
    "code",
    [
        pytest.param(KafkaError.GROUP_AUTHORIZATION_FAILED, id="a group that may not be used"),
        pytest.param(KafkaError._AUTHENTICATION, id="a question that failed with a login"),
    ],
)
def test_what_concerns_no_partition_is_only_a_debug_line(code: int, caplog: pytest.LogCaptureFixture) -> None:
    """librdkafka looks for the group, and an assigned reader doesn't need it; of logins the client tells apart."""
    caplog.set_level("DEBUG")
    fixture = opened(0)
    caplog.clear()
    message = event(code)
    fixture.step(message)
    assert lines(caplog, logging.DEBUG) == [("DEBUG", f"Commit log log: {message.error()}")]
    assert fixture.ready == [True]


REFUSED = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED, "not yours")
REFUSED_EVENT = Message(TOPIC, 3, 0, None, None, None, REFUSED, (0, -1))
REFUSED_LINE = (
    "WARNING",
    "Kafka refuses a permission for commit log log[3]: not yours. It is asked again. If that lasts for a minute, "
    "the source ends",
)


def opened_for_long() -> Fixture:
    fixture = opened(0, 3)
    fixture.clock.now += FRESH_SECONDS + 1.0
    return fixture


def run_until_another_is_wanted(fixture: Fixture) -> None:
    """With another client, until the reader wants the next one."""
    fixture.run(1_000)
    assert not fixture.stopping.is_set(), "it wants none"


def test_a_partition_that_is_refused_later_is_read_on_by_another_client(caplog: pytest.LogCaptureFixture) -> None:
    """This one would tell of it no more. The gate stays open, and the brokers are asked."""
    fixture = opened_for_long()
    caplog.clear()
    fixture.client.messages += [REFUSED_EVENT, record(1, 9)]
    began = fixture.clock.now
    run_until_another_is_wanted(fixture)
    assert fixture.clock.now >= began + RENEWAL_SECONDS
    assert (fixture.ready, fixture.remote()) == ([True], 9)
    assert fixture.asker.questions == [[("log", 0), ("log", 3)]]
    assert lines(caplog) == [REFUSED_LINE]


def test_a_partition_that_each_client_is_refused_is_unheard() -> None:
    """It alone, though its broker may tell where it ends."""
    fixture = opened_for_long()
    fixture.brokers.ends = {0: 1, 3: 1}
    for _ in range(2):
        fixture.client.messages.append(REFUSED_EVENT)
        run_until_another_is_wanted(fixture)
    assert fixture.fetch_check.unheard_since.keys() == {3}


def test_a_partition_of_which_it_is_refused_later_to_ask_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    fixture = Fixture((0, 3))
    fixture.asker.errors = {3: REFUSED}
    fixture.clock.now += FRESH_SECONDS + 1.0
    fixture.run(1)
    assert lines(caplog) == [REFUSED_LINE]


def test_a_partition_that_each_client_is_refused_for_a_minute_ends_the_reading() -> None:
    """As where the permission was taken away, though it may still be asked where the partition ends."""
    fixture = opened_for_long()
    began = fixture.clock.now
    for _ in range(3):
        fixture.client.messages.append(REFUSED_EVENT)
        run_until_another_is_wanted(fixture)
    fixture.client.messages.append(REFUSED_EVENT)
    with pytest.raises(KafkaException, match="not yours"):
        fixture.run(1)
    assert began + PARDON_SECONDS <= fixture.clock.now <= began + 2 * PARDON_SECONDS


@pytest.mark.parametrize(
    "heard", [record(0, 9, log_partition=3), event(KafkaError._PARTITION_EOF, 3)], ids=["a record", "its end"]
)
def test_a_partition_that_is_heard_in_between_is_not_refused_for_a_minute(heard: Message) -> None:
    fixture = opened_for_long()
    for _ in range(10):
        fixture.step(REFUSED_EVENT)
        fixture.clock.now += RENEWAL_SECONDS
        fixture.step(heard)
        fixture.clock.now += RENEWAL_SECONDS


def test_where_a_partition_ends_that_cannot_be_asked_is_a_debug_line(caplog: pytest.LogCaptureFixture) -> None:
    """With the partition and the reason; `missing` says it to whoever waits."""
    caplog.set_level("DEBUG")
    fixture = Fixture((0, 3))
    unled = KafkaError(KafkaError.LEADER_NOT_AVAILABLE)
    fixture.asker.errors = {3: unled}
    fixture.run(1)
    assert lines(caplog, logging.DEBUG) == [("DEBUG", f"Commit log log[3]: can't ask where it ends: {unled}")]


def test_a_position_that_is_gone_is_told_of_with_its_partitions(caplog: pytest.LogCaptureFixture) -> None:
    """In one line, since the gate shuts once."""
    fixture = opened(0, 1, 3)
    caplog.clear()
    fixture.step(event(KafkaError._AUTO_OFFSET_RESET, 3), event(KafkaError.OFFSET_OUT_OF_RANGE, 0))
    assert lines(caplog) == [
        (
            "ERROR",
            "Commit log log: the position in partitions [0, 3] is gone. They are read again from their beginning, and "
            "the gate is shut until then",
        )
    ]
    assert fixture.ready == [True, False]


def test_a_beginning_that_is_refused_again_and_again_is_asked_for_twice_a_second_and_told_of_once_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As where remote segments are lost, or the log is deleted as fast as it is read: each try shuts the gate again."""
    fixture = opened(0)
    caplog.clear()
    before, began_at = len(fixture.asker.range_timeouts), fixture.clock.now
    while fixture.clock.now < began_at + 10.0:
        fixture.step(*[event(KafkaError._AUTO_OFFSET_RESET, each) for each in fixture.client.assigned])
    assert 18 <= len(fixture.asker.range_timeouts) - before <= 21
    assert [level for level, _ in lines(caplog)] == ["ERROR"]
    fixture.clock.now += LOG_INTERVAL_SECONDS
    fixture.step()
    fixture.step(event(KafkaError._AUTO_OFFSET_RESET))
    assert [level for level, _ in lines(caplog)] == ["ERROR", "ERROR"]


def test_partitions_that_were_added_are_told_of(caplog: pytest.LogCaptureFixture) -> None:
    """Once, by their numbers."""
    caplog.set_level("INFO")
    fixture = opened(0)
    caplog.clear()
    fixture.client.partitions |= {1, 2}
    for _ in range(2):
        fixture.clock.now += REFRESH_SECONDS
        fixture.step()
    assert lines(caplog, logging.INFO) == [("INFO", "Commit log log: partitions [1, 2] were added")]


def test_a_topic_that_was_created_again_is_told_of_and_read_from_its_beginning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Also after a recent start: of a new topic, no part was ever read."""
    fixture = Fixture(start="recent")
    fixture.client.ends, fixture.client.since = {0: 100}, {0: 40}
    fixture.run(1)
    assert fixture.client.assigned == {0: 40}
    fixture.identity.is_another = True
    fixture.run(100)
    assert lines(caplog) == [("ERROR", "Commit log log was deleted and created again: it is read from its beginning")]
    assert fixture.client.assigned == {}
    fixture.run(1)
    assert fixture.client.assigned == {0: OFFSET_BEGINNING}


def test_a_reader_that_is_stopped_tells_of_no_other_topic(caplog: pytest.LogCaptureFixture) -> None:
    """It forgets nothing either: the gate is as it was."""
    fixture = opened(0)
    assert fixture.stopping.is_set()
    assert lines(caplog) == []
    assert (set(fixture.client.assigned), fixture.ready) == ({0}, [True])


def test_what_was_read_before_a_position_was_gone_makes_no_timestamp_plausible() -> None:
    """A record from the future counts as old as the one before it in its partition: now there is none before it."""
    fixture = opened(0, 1)
    fixture.client.ends = {0: 11, 1: 2}
    fixture.step(record(10, 5), record(1, 9, log_partition=1))
    assert fixture.remote() == 5, "it is later"
    fixture.step(event(KafkaError._AUTO_OFFSET_RESET, 0))
    fixture.step()
    stamp = (TIMESTAMP_CREATE_TIME, FROM_THE_FUTURE_MS)
    fixture.step(Message(TOPIC, 0, 10, b"events:0:g", b"5", None, None, stamp))
    assert (fixture.ready, fixture.remote()) == ([True, False, True], 9)


def test_what_an_added_partition_said_of_the_topic_counts_though_the_topic_was_learnt_later() -> None:
    """What it said of others is dropped."""
    fixture = opened(0)
    fixture.client.partitions.add(1)
    fixture.client.ends = {0: 1, 1: 3}
    fixture.clock.now += REFRESH_SECONDS
    fixture.step()
    fixture.step()
    other = Message(TOPIC, 1, 1, b"other:0:g", b"5", None, None, (TIMESTAMP_CREATE_TIME, 1))
    fixture.step(record(0, 90, partition=2, log_partition=1), other)
    fixture.reader.follow("events")
    fixture.step()
    assert fixture.remote(2) is None, "it isn't replayed yet"
    fixture.step(event(KafkaError._PARTITION_EOF, 1))
    assert (fixture.remote(2), fixture.ready) == (90, [True])
    assert fixture.offsets.published().keys() == {("events", 0), ("events", 2)}
