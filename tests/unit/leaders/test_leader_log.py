"""How rewinds are logged: all of a group's in one line, at most once a minute."""

from __future__ import annotations

import pytest

from arroyo_sync.core.log_throttle import LOG_INTERVAL_SECONDS
from arroyo_sync.leaders.leader_log import Rewind, RewindLog
from tests.support.fakes import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log(clock: Clock) -> RewindLog:
    return RewindLog(clock)


def rewind(partition: int, previous: int, offset: int, group: str = "g") -> Rewind:
    return Rewind(("events", partition), group, previous, offset)


def test_the_first_rewind_is_logged_at_once_with_both_offsets(log: RewindLog, caplog: pytest.LogCaptureFixture) -> None:
    """The line says what it may be, so that nobody takes a restart for a fault."""
    log.add([rewind(3, 10, 4)])
    (line,) = caplog.messages
    assert line.startswith("events[3]: group 'g' went back from 10 to 4. After a restart that is normal")
    assert "published from several threads" in line


def test_further_ones_are_counted_for_a_minute_and_the_worst_is_named(
    log: RewindLog, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """A thousand keys that alternate make two lines, not two hundred thousand."""
    log.add([rewind(0, 10, 9)])
    for _ in range(100):
        log.add([rewind(partition, 100, 99) for partition in range(1_000)])
    log.add([rewind(7, 500, 100)])
    assert len(caplog.messages) == 1
    clock.now += LOG_INTERVAL_SECONDS
    log.log_due()
    assert caplog.messages[1].startswith(
        "Group 'g' went back 100001 times, in 1000 partitions, the furthest in events[7] from 500 to 100. "
    )
    assert "After a restart that is normal" in caplog.messages[1]
    clock.now += LOG_INTERVAL_SECONDS
    log.log_due()
    assert len(caplog.messages) == 2, "nothing is left"


def test_each_group_has_a_line_of_its_own(log: RewindLog, caplog: pytest.LogCaptureFixture) -> None:
    """One that goes back all the time hides no other."""
    log.add([rewind(0, 10, 9, "a"), rewind(1, 10, 9, "a")])
    log.add([rewind(0, 8, 7, "b"), rewind(0, 9, 1, "a")])
    assert [line.partition(".")[0] for line in caplog.messages] == [
        "Group 'a' went back 2 times, in 2 partitions, the furthest in events[0] from 10 to 9",
        "events[0]: group 'b' went back from 8 to 7",
    ]


def test_the_furthest_is_the_one_that_lost_most_offsets(
    log: RewindLog, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Wherever in the partition that was, and whichever came first."""
    log.add([rewind(0, 10, 9)])
    log.add([rewind(1, 1000, 990), rewind(2, 2000, 1980), rewind(3, 3000, 2980), rewind(4, 4000, 3990)])
    clock.now += LOG_INTERVAL_SECONDS
    log.log_due()
    assert "the furthest in events[2] from 2000 to 1980" in caplog.messages[1]
