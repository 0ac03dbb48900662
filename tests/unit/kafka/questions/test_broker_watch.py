"""When it is told that partitions can't be asked about, and that they can again."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError

from arroyo_sync.core.log_throttle import LOG_INTERVAL_SECONDS
from arroyo_sync.core.state import PartitionKey
from arroyo_sync.kafka.questions.broker_watch import (
    LOOK_UP_FAILS,
    PATIENCE_SECONDS,
    SHOWN_PARTITIONS,
    BrokerWatch,
)
from tests.support.fakes import Clock

FIRST, SECOND = ("events", 0), ("events", 1)
TIMED_OUT = KafkaError(KafkaError._TIMED_OUT, "the broker didn't answer in time")
UNKNOWN = KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART, "unknown topic")


class Fixture:
    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog
        self.clock = Clock()
        self.watch = BrokerWatch("Give it another configuration", self.clock)

    def lines(self, *answers: dict[PartitionKey, KafkaError | None], after_seconds: float = 0.0) -> list[str]:
        """What these answers bring to the log."""
        self.clock.now += after_seconds
        self._caplog.clear()
        for answer in answers:
            self.watch.update(answer)
        return [each.getMessage() for each in self._caplog.records]


@pytest.fixture
def fixture(caplog: pytest.LogCaptureFixture) -> Fixture:
    return Fixture(caplog)


def test_a_broker_that_is_away_and_comes_back_gives_one_line_each(fixture: Fixture) -> None:
    """For all its partitions, and with how long it was."""
    away: dict[PartitionKey, KafkaError | None] = {FIRST: TIMED_OUT, SECOND: TIMED_OUT}
    assert fixture.lines(away) == []
    (line,) = fixture.lines(away, away, after_seconds=PATIENCE_SECONDS)
    assert line == (
        "The brokers don't answer about events[0], events[1], so nothing new is learnt of them: "
        "the broker didn't answer in time. They are asked again, and other partitions go on"
    )
    assert fixture.lines(away, after_seconds=10 * LOG_INTERVAL_SECONDS) == []
    back: dict[PartitionKey, KafkaError | None] = {FIRST: None, SECOND: None}
    (line,) = fixture.lines(back, back, after_seconds=7.0)
    assert line == "The brokers answer again about events[0], events[1], after 610 s"


def test_of_a_look_up_that_fails_no_more_is_told_than_that(caplog: pytest.LogCaptureFixture) -> None:
    """Where the partition begins and ends is asked apart, and may well be answered."""
    clock = Clock()
    watch = BrokerWatch("", clock, consequence=LOOK_UP_FAILS)
    for _ in range(2):
        watch.update({FIRST: KafkaError(KafkaError.UNKNOWN, "remote storage is away")})
        clock.now += PATIENCE_SECONDS
    assert caplog.messages == [
        "The brokers don't answer about events[0], where an offset is looked up by time: remote storage is away. They "
        "are asked again, and other partitions go on"
    ]


def test_what_happens_to_a_partition_that_comes_back_is_told_anew(fixture: Fixture) -> None:
    """Somebody else had it meanwhile: that it was away then is no news, and the next outage is one of its own."""
    away: dict[PartitionKey, KafkaError | None] = {FIRST: TIMED_OUT}
    assert fixture.lines(away) == []
    assert len(fixture.lines(away, after_seconds=PATIENCE_SECONDS)) == 1
    fixture.watch.forget([FIRST])
    assert fixture.lines({FIRST: None}, away, after_seconds=10 * LOG_INTERVAL_SECONDS) == []
    assert len(fixture.lines(away, after_seconds=PATIENCE_SECONDS)) == 1
    (line,) = fixture.lines({FIRST: None}, after_seconds=7.0)
    assert line == "The brokers answer again about events[0], after 10 s"


def test_a_leader_that_is_found_anew_in_time_is_not_told_of(fixture: Fixture) -> None:
    """Neither that it was gone nor that it is back."""
    assert fixture.lines({FIRST: TIMED_OUT}) == []
    assert fixture.lines({FIRST: None}, after_seconds=PATIENCE_SECONDS) == []
    assert fixture.lines({FIRST: TIMED_OUT}, after_seconds=PATIENCE_SECONDS) == []
    assert fixture.lines({SECOND: KafkaError(KafkaError._FAIL, "No leaders found")}) == []


def test_a_topic_that_is_not_there_is_told_of_at_once_with_advice(fixture: Fixture) -> None:
    """Waiting doesn't mend it."""
    (line,) = fixture.lines({FIRST: UNKNOWN, SECOND: None})
    assert line.startswith("The brokers don't answer about events[0], so ")
    assert line.endswith(". Give it another configuration")


def test_a_broker_that_comes_and_goes_is_told_of_once_a_minute(fixture: Fixture) -> None:
    """Both times: that it is back isn't said of what wasn't said to be away."""
    for _ in range(3):
        fixture.lines({FIRST: TIMED_OUT})
        fixture.lines({FIRST: TIMED_OUT}, {FIRST: None}, after_seconds=PATIENCE_SECONDS)
    assert fixture.lines({FIRST: UNKNOWN}, {FIRST: None}) == []
    assert len(fixture.lines({FIRST: UNKNOWN}, {FIRST: None}, after_seconds=LOG_INTERVAL_SECONDS)) == 2


def test_many_partitions_are_not_all_named(fixture: Fixture) -> None:
    """But counted."""
    (line,) = fixture.lines({("events", index): UNKNOWN for index in range(SHOWN_PARTITIONS + 7)})
    assert "events[0], events[1], events[2], events[3], events[4] and 7 more" in line
