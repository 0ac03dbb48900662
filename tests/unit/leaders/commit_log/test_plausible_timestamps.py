"""The timestamps by which records are compared: none from the future."""

from __future__ import annotations

import pytest
from confluent_kafka import (
    TIMESTAMP_CREATE_TIME,
    TIMESTAMP_LOG_APPEND_TIME,
    TIMESTAMP_NOT_AVAILABLE,
    Message,
)

from arroyo_sync.core.source import CLOCK_TOLERANCE_SECONDS
from arroyo_sync.leaders.commit_log.plausible_timestamps import NO_TIMESTAMP, PlausibleTimestamps

NOW_MS = 1_700_000_000_000
LIMIT_MS = NOW_MS + int(CLOCK_TOLERANCE_SECONDS * 1000)
FUTURE_MS = 2**60


def batch(*timestamps: int | None, log_partition: int = 0, begin: int = 0) -> list[Message]:
    return [
        Message(
            "log",
            log_partition,
            begin + index,
            b"events:0:g",
            b"1",
            None,
            None,
            (TIMESTAMP_NOT_AVAILABLE, 0) if timestamp is None else (TIMESTAMP_CREATE_TIME, timestamp),
        )
        for index, timestamp in enumerate(timestamps)
    ]


def counted(timestamps: PlausibleTimestamps, messages: list[Message]) -> list[int]:
    timestamps.begin(messages)
    counting = [timestamps.of(message)[0] for message in messages]
    timestamps.end()
    return counting


@pytest.fixture
def timestamps() -> PlausibleTimestamps:
    return PlausibleTimestamps(lambda: NOW_MS / 1000)


@pytest.mark.parametrize(
    ("given", "counting"),
    [
        pytest.param([5, 7, 6], [5, 7, 6], id="the past, as it is"),
        pytest.param([LIMIT_MS, LIMIT_MS + 1], [LIMIT_MS, LIMIT_MS], id="clocks may differ by a minute"),
        pytest.param([5, FUTURE_MS, 7], [5, 5, 7], id="one from the future counts as the one before"),
        pytest.param([5, FUTURE_MS, FUTURE_MS + 1, 7], [5, 5, 5, 7], id="several, too"),
        pytest.param([FUTURE_MS, 7], [NO_TIMESTAMP, 7], id="with none before it, as the oldest"),
        pytest.param([None, 5, None, FUTURE_MS], [NO_TIMESTAMP, 5, NO_TIMESTAMP, 5], id="what has none is passed over"),
    ],
)
def test_a_timestamp_from_the_future_counts_as_the_plausible_one_before_it(
    timestamps: PlausibleTimestamps, given: list[int | None], counting: list[int]
) -> None:
    """In one batch, and record by record: how the log was cut into batches changes nothing."""
    assert counted(timestamps, batch(*given)) == counting
    timestamps.forget(0)
    one_by_one = [counted(timestamps, [message])[0] for message in batch(*given)]
    assert one_by_one == counting


def test_what_came_before_is_of_the_same_commit_log_partition(timestamps: PlausibleTimestamps) -> None:
    """And nothing came before in one that is read again."""
    counted(timestamps, batch(5))
    assert counted(timestamps, batch(FUTURE_MS, log_partition=1)) == [NO_TIMESTAMP]
    assert counted(timestamps, batch(FUTURE_MS, begin=1)) == [5]
    timestamps.forget(0)
    timestamps.forget(7)
    assert counted(timestamps, batch(FUTURE_MS)) == [NO_TIMESTAMP]


def test_what_came_before_is_known_of_each_commit_log_partition(timestamps: PlausibleTimestamps) -> None:
    """Whichever was read last."""
    counted(timestamps, batch(5, log_partition=1))
    counted(timestamps, batch(6))
    assert counted(timestamps, batch(FUTURE_MS, log_partition=1, begin=1)) == [5]
    assert counted(timestamps, batch(FUTURE_MS, begin=1)) == [6]


def test_only_what_is_from_the_future_is_told_as_that(timestamps: PlausibleTimestamps) -> None:
    """Neither what is just within the tolerance, nor what has no timestamp."""
    messages = batch(LIMIT_MS, LIMIT_MS + 1, None)
    timestamps.begin(messages)
    assert [timestamps.of(message)[1] for message in messages] == [False, True, False]


def test_a_record_may_be_asked_for_alone(timestamps: PlausibleTimestamps) -> None:
    """Mostly only the last one of a key is."""
    messages = batch(5, FUTURE_MS, 7, FUTURE_MS)
    timestamps.begin(messages)
    assert timestamps.of(messages[3]) == (7, True)
    assert timestamps.of(messages[1]) == (5, True)
    assert timestamps.of(messages[2]) == (7, False)


@pytest.mark.parametrize(
    ("kind", "is_create_time"), [(TIMESTAMP_CREATE_TIME, True), (TIMESTAMP_LOG_APPEND_TIME, False)]
)
def test_it_notes_whether_writers_set_the_timestamps(
    timestamps: PlausibleTimestamps, kind: int, is_create_time: bool
) -> None:
    """The message says so, so the topic's configuration needn't be asked for."""
    message = Message("log", 0, 0, b"", b"", None, None, (kind, 5))
    timestamps.begin([message])
    timestamps.of(message)
    assert timestamps.has_create_time is is_create_time
