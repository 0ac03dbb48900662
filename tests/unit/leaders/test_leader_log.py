"""How what leader groups do is logged: what is of one cause in one line, at most once a minute."""

from __future__ import annotations

import pytest

from arroyo_sync.core.log_throttle import LOG_INTERVAL_SECONDS
from arroyo_sync.leaders.leader_log import Doubt, DoubtLog, Rewind, RewindLog
from arroyo_sync.leaders.verification import Reason
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


def doubt(partition: int, group: str = "g", reason: Reason = Reason.BEYOND_END) -> Doubt:
    return Doubt(("events", partition), group, reason, f"published offset {partition}00. That can't be")


def test_doubts_of_one_cause_are_one_line(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """Which names ten of the other partitions. Another group or reason is another cause."""
    earlier = doubt(3, reason=Reason.EARLIER_TOPIC)
    DoubtLog(clock).log([doubt(0), doubt(1), doubt(2, "h"), earlier, *map(doubt, range(4, 14))], is_monitored=False)
    assert caplog.messages == [
        "events[0]: group 'g' published offset 000. That can't be. Likewise events[1], events[4], events[5], "
        "events[6], events[7], events[8], events[9], events[10], events[11], events[12] and 1 more partitions",
        "events[2]: group 'h' published offset 200. That can't be",
        "events[3]: group 'g' published offset 300. That can't be",
    ]


def test_a_doubt_that_lasts_is_told_once_a_minute_and_is_an_error_once_in_fifteen(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a topic that is a mirror it lasts for good. Partitions that come at other moments are named with the next."""
    log = DoubtLog(clock)
    for _ in range(91):
        log.log([doubt(0)], is_monitored=False)
        clock.now += 5.0
        log.log([doubt(1)], is_monitored=False)
        clock.now += 5.0
    first, second, *rest = caplog.messages
    assert (first, second) == (
        "events[0]: group 'g' published offset 000. That can't be",
        "events[0]: group 'g' published offset 000. That can't be. Likewise events[1]",
    )
    assert rest == [second] * 14
    errors = [number for number, record in enumerate(caplog.records) if record.levelname == "ERROR"]
    assert errors == [0, 15]
    assert {record.levelname for record in caplog.records} == {"ERROR", "WARNING"}


def test_a_thousand_partitions_that_report_at_other_moments_are_one_line_a_minute(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Ten at each look kept their phases for good: a hundred lines a minute."""
    log = DoubtLog(clock)
    for look in range(600):
        log.log([doubt(index) for index in range(look % 100 * 10, look % 100 * 10 + 10)], is_monitored=True)
        clock.now += 0.1
    assert len(caplog.messages) == 1
    clock.now += 1.0
    log.log([doubt(7)], is_monitored=True)
    assert caplog.messages[1].endswith("and 989 more partitions")


def test_a_cause_that_was_told_hides_no_other(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """Neither its line, nor that it is an error, though both are found at one look."""
    log = DoubtLog(clock)
    log.log([doubt(0)], is_monitored=False)
    log.log([doubt(0), doubt(1, "h")], is_monitored=False)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("ERROR", "events[0]: group 'g' published offset 000. That can't be"),
        ("ERROR", "events[1]: group 'h' published offset 100. That can't be"),
    ]


@pytest.mark.parametrize(
    ("seconds", "others"), [(LOG_INTERVAL_SECONDS, ". Likewise events[1]"), (LOG_INTERVAL_SECONDS * 1440, "")]
)
def test_a_doubt_of_days_ago_is_not_named_with_one_of_now(
    seconds: float, others: str, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """All that were doubted since the last line were, also those that are well again, or another follower's."""
    log = DoubtLog(clock)
    log.log([doubt(0)], is_monitored=True)
    clock.now += 1.0
    log.log([doubt(1)], is_monitored=True)
    clock.now += seconds
    log.log([doubt(2)], is_monitored=True)
    assert caplog.messages[1] == f"events[2]: group 'g' published offset 200. That can't be{others}"
