from __future__ import annotations

import logging

import pytest

from arroyo_sync.core.source import SourceStatistics
from arroyo_sync.observe.problems import REMINDER_SECONDS, Problem, ProblemKind, ProblemReporter, find_problems
from arroyo_sync.observe.snapshot import LeaderSnapshot, PartitionSnapshot, Snapshot
from arroyo_sync.observe.stalls import Stall, WaitsFor


def stall(partition: int, seconds: float, group: str | None = "writers", group_offset: int | None = 5) -> Stall:
    waits_for = WaitsFor.LEADER if group else WaitsFor.FOLLOWER
    return Stall("events", partition, waits_for, seconds, 5, 5, 100, group, group_offset)


NOTHING = Snapshot(0.0, ())
KIND = ProblemKind


def test_all_partitions_that_wait_for_one_group_are_one_problem() -> None:
    """The line tells of the worst, and how many more there are."""
    (problem,) = find_problems(NOTHING, [stall(3, 500), stall(1, 400)], [])
    assert problem.cause == (KIND.STALL, "events", "writers")
    assert problem.partitions == (3, 1)
    assert problem.message == (
        "events[3] has stood still for 500 s at 5: 100 messages wait for group 'writers', which is at 5"
        " (and 1 more partitions likewise)"
    )


def test_two_groups_and_the_follower_itself_are_three_problems() -> None:
    """Each cause is told by itself, since each is somebody else's."""
    problems = find_problems(NOTHING, [stall(0, 500), stall(1, 500, "others"), stall(2, 500, None)], [])
    assert [problem.cause for problem in problems] == [
        (KIND.STALL, "events", "writers"),
        (KIND.STALL, "events", "others"),
        (KIND.STALL, "events", None),
    ]


def test_a_group_that_never_published_is_a_problem_before_it_is_a_stall_and_then_not_another_one() -> None:
    """It has a name of its own, since its remedy is another: the group's name may be wrong."""
    silent = stall(3, 60, "typo", None)
    assert [each.kind for each in find_problems(NOTHING, [], [silent])] == [KIND.NEVER_REPORTED]
    assert [each.kind for each in find_problems(NOTHING, [silent], [silent])] == [KIND.NEVER_REPORTED]


def test_a_group_that_publishes_is_not_silent() -> None:
    """Waiting for a minute for a group that has published is no problem yet."""
    assert find_problems(NOTHING, [], [stall(3, 60)]) == []


@pytest.mark.parametrize(("is_ready", "kinds"), [(False, []), (True, [KIND.NEVER_REPORTED])])
def test_no_group_is_called_silent_before_the_replay_is_over(is_ready: bool, kinds: list[ProblemKind]) -> None:
    """What it published may not have been read yet."""
    snapshot = Snapshot(0.0, (), source=SourceStatistics(ready=is_ready, alive=True))
    assert [each.kind for each in find_problems(snapshot, [], [stall(3, 60, "typo", None)])] == kinds


def test_an_impossible_offset_names_group_partition_and_both_offsets() -> None:
    """What the broker refuted."""
    leader = LeaderSnapshot("writers", 500, is_rejected=True)
    partitions = tuple(
        PartitionSnapshot("events", index, 5, None, high_watermark=100, leaders=(leader,)) for index in (3, 4)
    )
    (problem,) = find_problems(Snapshot(0.0, partitions), [], [])
    assert problem.cause == (KIND.IMPOSSIBLE_OFFSET, "events", "writers")
    assert problem.partitions == (3, 4)
    assert problem.message.startswith("group 'writers' has published offset 500 of events[3], which ends at 100:")


def test_a_dead_source_is_the_only_problem() -> None:
    """All else follows from it."""
    (problem,) = find_problems(Snapshot(0.0, (), source_error="it died"), [stall(0, 500)], [])
    assert (problem.kind, problem.message) == (KIND.SOURCE_DIED, "it died")


class Teller:
    """Keeps what it is told, and is the clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.told: list[Problem] = []
        self.bulletin = ProblemReporter(lambda problem, snapshot: self.told.append(problem), lambda: self.now)


FIRST = Problem(KIND.STALL, "events[3] stands still", "events", (3,), "writers")
GROWN = Problem(KIND.STALL, "events[3] still stands still", "events", (3, 4), "writers")
OTHER = Problem(KIND.STALL, "events[5] stands still", "events", (5,), "others")


@pytest.fixture
def teller() -> Teller:
    return Teller()


def test_a_problem_is_told_when_it_begins_and_not_at_every_look(teller: Teller) -> None:
    """Also when it grows: the cause is the same."""
    for problem in (FIRST, FIRST, GROWN):
        teller.bulletin.update([problem], NOTHING)
    assert teller.told == [FIRST]


def test_a_problem_that_lasts_is_told_again_after_the_reminder_interval(teller: Teller) -> None:
    """With what is known then."""
    teller.bulletin.update([FIRST], NOTHING)
    teller.now = REMINDER_SECONDS
    teller.bulletin.update([GROWN], NOTHING)
    assert teller.told == [FIRST, GROWN]


def test_a_problem_that_comes_and_goes_is_told_once_in_the_interval(teller: Teller) -> None:
    """Flapping makes no flood."""
    for problems in ([FIRST], [], [FIRST], [], [FIRST]):
        teller.bulletin.update(problems, NOTHING)
    assert teller.told == [FIRST]


def test_another_cause_is_told_at_once(teller: Teller) -> None:
    """The limit is each cause's own."""
    teller.bulletin.update([FIRST], NOTHING)
    teller.bulletin.update([FIRST, OTHER], NOTHING)
    assert teller.told == [FIRST, OTHER]


def test_silence_that_the_source_logs_is_not_logged_again(teller: Teller, caplog: pytest.LogCaptureFixture) -> None:
    """It is told in every other way."""
    silent = find_problems(NOTHING, [], [stall(3, 60, "typo", None)])
    source = SourceStatistics(ready=True, alive=True, logs_silence=True)
    teller.bulletin.update(silent, Snapshot(0.0, (), source=source))
    assert (len(teller.told), caplog.messages) == (1, [])


def test_the_end_of_a_problem_is_one_log_line(teller: Teller, caplog: pytest.LogCaptureFixture) -> None:
    """A warning when it begins, and once that it is over. Neither is an error: Sentry would make it a second event."""
    caplog.set_level(logging.INFO, logger="arroyo_sync.observe.problems")
    teller.bulletin.update([FIRST], NOTHING)
    teller.bulletin.update([GROWN, OTHER], NOTHING)
    teller.bulletin.update([OTHER], NOTHING)
    teller.bulletin.update([OTHER], NOTHING)
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("WARNING", "events[3] stands still"),
        ("WARNING", "events[5] stands still"),
        ("INFO", "Over: events[3] still stands still"),
    ]
