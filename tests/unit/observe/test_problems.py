from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pytest

from arroyo_sync.core.source import SourceStatistics
from arroyo_sync.observe.problems import (
    REMINDER_SECONDS,
    RETURN_SECONDS,
    SHOWN,
    SILENCE_SECONDS,
    UNCONFIRMED_ADVICE,
    WHAT_TO_DO,
    Problem,
    ProblemKind,
    ProblemReporter,
    find_problems,
)
from arroyo_sync.observe.snapshot import LeaderSnapshot, PartitionSnapshot, Snapshot
from arroyo_sync.observe.stalls import WaitsFor
from arroyo_sync.observe.verdict import Grade, Verdict
from arroyo_sync.observe.waits import Limits

LIMITS = Limits(stalled_after=300.0, waiting_after=15.0)


def verdict(
    partition: int,
    seconds: float,
    group: str | None = "writers",
    group_offset: int | None = 5,
    grade: Grade = Grade.STALLED,
    reason: str = "",
) -> Verdict:
    waits_for = WaitsFor.LEADER if group else WaitsFor.FOLLOWER
    return Verdict("events", partition, grade, waits_for, group, group_offset, seconds, 100, True, 5, 5, reason)


NOTHING = Snapshot(0.0, ())
KIND = ProblemKind


def problems_of(
    *verdicts: Verdict, snapshot: Snapshot = NOTHING, replaying: float = 0.0, ready: float = 0.0
) -> list[Problem]:
    return find_problems(snapshot, verdicts, LIMITS, replaying_seconds=replaying, ready_seconds=ready)


def test_all_partitions_that_wait_for_one_group_are_one_problem() -> None:
    """The line tells of the worst, how many more there are, and what to do."""
    (problem,) = problems_of(verdict(3, 500), verdict(1, 400))
    assert problem.cause == (KIND.STALL, "events", "writers")
    assert problem.partitions == (3, 1)
    assert str(problem) == (
        "events[3] has stood still for 500 s at 5: 100 messages wait for group 'writers', which is at 5"
        " (and 1 more partition likewise). Is a member of that group stopped or hung? To restart this follower heals"
        " nothing"
    )


def test_two_groups_and_the_follower_itself_are_three_problems() -> None:
    """Each cause is told by itself, since each is somebody else's."""
    problems = problems_of(verdict(0, 500), verdict(1, 500, "others"), verdict(2, 500, None))
    assert [problem.cause for problem in problems] == [
        (KIND.STALL, "events", "writers"),
        (KIND.STALL, "events", "others"),
        (KIND.STALL, "events", WaitsFor.FOLLOWER),
    ]
    assert str(problems[2]).endswith(
        "Look at the follower's own steps behind the gate: one of them is slow, rejects, or hangs"
    )


SILENT = Snapshot(0.0, (PartitionSnapshot("events", 3, 5, None, leaders=(LeaderSnapshot("typo"),)),))


def test_a_group_that_never_reported_is_a_problem_of_its_own_before_and_after_it_is_a_stall() -> None:
    """It has a name of its own, since its remedy is another: the group's name may be wrong."""
    for grade, seconds in ((Grade.UNKNOWN, 15.0), (Grade.STALLED, 300.0)):
        (problem,) = problems_of(verdict(3, seconds, "typo", None, grade), snapshot=SILENT)
        assert problem.cause == (KIND.NEVER_REPORTED, "events", "typo")
        assert "Is the group's name right" in problem.advice
    assert problems_of(verdict(3, 14.0, "typo", None, Grade.UNKNOWN), snapshot=SILENT) == []


def seen_by(**statistics: Any) -> str:
    """What is said of a silent group where the source knows this."""
    snapshot = replace(SILENT, source=SourceStatistics(ready=True, alive=True, **statistics))
    (problem,) = problems_of(verdict(3, 15.0, "typo", None, Grade.UNKNOWN), snapshot=snapshot)
    (idle,) = problems_of(snapshot=snapshot, ready=SILENCE_SECONDS)
    assert problem.advice == idle.advice
    return problem.advice.partition("Is the group's name right")[0]


def test_silence_says_who_does_publish() -> None:
    """A wrong name is seen at once beside the right ones, and a wrong commit log by what it holds."""
    assert seen_by() == ""
    assert seen_by(groups_seen=()) == "Nobody has published anything on the commit log. "
    assert seen_by(groups_seen=("writers", "indexers")) == "Groups seen on the commit log: 'indexers', 'writers'. "
    many = seen_by(groups_seen=[f"g{index:02}" for index in range(SHOWN + 2)])
    assert many.endswith("'g08', 'g09' and 2 more. ")
    assert seen_by(groups_seen=[f"g{index:02}" for index in range(SHOWN)]).endswith("'g09'. ")
    assert seen_by(groups_seen=[f"g{index:02}" for index in range(SHOWN + 1)]).endswith("'g09' and 1 more. ")
    foreign = "The commit log holds no commit records: was another topic's name given? "
    assert seen_by(groups_seen=(), is_foreign=True) == foreign


def test_a_silent_group_that_nobody_waits_for_has_a_minute() -> None:
    """It may have nothing to do yet, and a leader without heartbeats then publishes nothing."""
    assert problems_of(snapshot=SILENT, ready=SILENCE_SECONDS - 1) == []
    (problem,) = problems_of(snapshot=SILENT, ready=SILENCE_SECONDS)
    assert problem.cause == (KIND.SILENT, "events", "typo")


def test_nobody_is_silent_before_the_replay_is_over() -> None:
    """What the group published may not have been read yet."""
    replaying = replace(SILENT, source=SourceStatistics(ready=False, alive=True))
    waiting = verdict(3, 15.0, "typo", None, Grade.UNKNOWN)
    assert problems_of(waiting, snapshot=replaying, replaying=100.0) == []


def unheard(seconds: float, *partitions: int, ready: bool = True) -> Snapshot:
    source = SourceStatistics(
        ready=ready, alive=True, unheard=partitions, unheard_seconds=seconds, unheard_because="certificate expired"
    )
    return replace(SILENT, source=source)


CUT_OFF = "Nothing of partitions 0, 2 of the commit log has been heard for 300 s (certificate expired)"


def test_a_follower_that_is_cut_off_says_so_though_nothing_waits() -> None:
    """It looked as if all were well. One cause; before a stall's time a broker may just restart."""
    (problem,) = problems_of(snapshot=unheard(300.0, 0, 2))
    assert (problem.cause, problem.message) == ((KIND.CUT_OFF, None, None), CUT_OFF)
    assert "start it again" in problem.advice
    silent = unheard(300.0, 0, 2)
    assert silent.source is not None
    unexplained = replace(silent, source=replace(silent.source, unheard_because=""))
    assert problems_of(snapshot=unexplained)[0].message == CUT_OFF.removesuffix(" (certificate expired)")
    assert problems_of(snapshot=unheard(299.0, 0, 2)) == []
    replaying = problems_of(snapshot=unheard(300.0, 0, 2, ready=False), replaying=300.0)
    assert [each.kind for each in replaying] == [KIND.CUT_OFF, KIND.LONG_REPLAY]


@pytest.mark.parametrize("reason", ["", "It has committed and doesn't report it"])
@pytest.mark.parametrize(("grade", "kind"), [(Grade.STALLED, KIND.STALL), (Grade.WAITING, KIND.WAITING)])
def test_a_leader_is_not_blamed_by_a_follower_that_may_not_have_heard_it(
    grade: Grade, kind: ProblemKind, reason: str
) -> None:
    """To look at the leader may be in vain, and may not: its report may lie in another partition of the log."""
    waiting = verdict(3, 20.0, grade=grade, reason=reason)
    (problem,) = problems_of(waiting, snapshot=unheard(15.0, 1))
    assert problem.kind is kind
    assert problem.advice == (
        "Nothing of partition 1 of the commit log has been heard for 15 s (certificate expired), so the group may have "
        "reported: look first at those brokers, and whether this follower reaches them. Else: "
        + (reason or WHAT_TO_DO[WaitsFor.LEADER])
    )
    (problem,) = problems_of(waiting, snapshot=unheard(14.0, 1))
    assert "may have reported" not in problem.advice


def test_a_group_that_may_not_have_been_heard_may_have_the_right_name() -> None:
    (problem,) = problems_of(verdict(3, 15.0, "typo", None, Grade.UNKNOWN), snapshot=unheard(15.0, *range(12)))
    assert problem.kind is KIND.NEVER_REPORTED
    assert problem.advice.startswith("Nothing of partitions 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more of the commit log")
    assert "Is the group's name right" in problem.advice


def test_a_slow_step_of_the_follower_is_one_whatever_it_hears() -> None:
    slow = verdict(3, 300.0, None)
    problems = problems_of(slow, snapshot=unheard(300.0, 0, 2))
    assert [each.kind for each in problems] == [KIND.CUT_OFF, KIND.STALL]
    assert "may have reported" not in problems[1].advice


def test_a_wait_is_a_problem_and_one_with_the_stall_of_the_same_group() -> None:
    """What waits for a group that stands still in another partition is the same cause."""
    waiting = verdict(3, 60, grade=Grade.WAITING)
    assert [each.kind for each in problems_of(waiting)] == [KIND.WAITING]
    assert [each.kind for each in problems_of(verdict(1, 300), waiting)] == [KIND.STALL]
    assert problems_of(verdict(3, 1, grade=Grade.OK)) == []


def test_a_reason_stands_in_place_of_the_usual_advice() -> None:
    """It knows more."""
    (problem,) = problems_of(verdict(3, 500, reason="It doesn't publish"))
    assert str(problem).endswith("which is at 5. It doesn't publish")


def test_an_impossible_offset_names_group_partition_and_both_offsets_and_explains_the_stall() -> None:
    """What the broker refuted; that its partitions stand still is the same cause."""
    leader = LeaderSnapshot("writers", 500, is_rejected=True)
    partitions = tuple(
        PartitionSnapshot("events", index, 5, None, high_watermark=100, leaders=(leader,)) for index in (3, 4)
    )
    (problem,) = problems_of(verdict(3, 500), snapshot=Snapshot(0.0, partitions))
    assert problem.cause == (KIND.IMPOSSIBLE_OFFSET, "events", "writers")
    assert problem.partitions == (3, 4)
    assert problem.message.startswith("group 'writers' has published offset 500 of events[3], which ends at 100:")


def test_an_impossible_offset_explains_its_own_partitions_alone() -> None:
    """The group stands still in another one, too, and that needs somebody."""
    leader = LeaderSnapshot("writers", 500, is_rejected=True)
    partition = PartitionSnapshot("events", 3, 5, None, high_watermark=100, leaders=(leader,))
    snapshot = Snapshot(0.0, (partition,))
    problems = problems_of(verdict(3, 500), verdict(0, 400), verdict(3, 300, "others"), snapshot=snapshot)
    assert [(each.cause, each.partitions) for each in problems] == [
        ((KIND.IMPOSSIBLE_OFFSET, "events", "writers"), (3,)),
        ((KIND.STALL, "events", "writers"), (0,)),
        ((KIND.STALL, "events", "others"), (3,)),
    ]


def unconfirmed(partition: int, seconds: float, grade: Grade = Grade.STALLED) -> Verdict:
    return Verdict("events", partition, grade, WaitsFor.LEADER, None, None, seconds, 100, True, 5, None)


@pytest.mark.parametrize("grade", [Grade.STALLED, Grade.WAITING])
def test_what_waits_for_the_brokers_word_blames_no_group_and_hides_no_slow_step(grade: Grade) -> None:
    """Who is told "that group" where none is named would restart one that is well."""
    slow = replace(verdict(2, 400, None), grade=grade)
    first, second = problems_of(unconfirmed(1, 500, grade), slow, snapshot=unheard(20.0, 0, 2))
    assert (first.partitions, first.group) == ((1,), None)
    assert str(first).endswith("isn't known (yet). " + UNCONFIRMED_ADVICE)
    assert (second.partitions, second.advice) == ((2,), WHAT_TO_DO[WaitsFor.FOLLOWER])


def test_where_a_source_tells_of_no_group_its_leaders_are_meant() -> None:
    """One that knows offsets alone."""
    plain = replace(unconfirmed(1, 500), remote_offset=5)
    (problem,) = problems_of(plain)
    assert "for the leaders, which are at 5. Is a leader stopped or hung?" in str(problem)


@pytest.mark.parametrize(
    ("because", "wanted", "unwanted"),
    [
        (None, "reset its group's offsets", "mirror"),
        ("of an earlier topic of that name", "mirror", "reset"),
        ("from before its first message, by that one's timestamp", "wait: it is believed once", "reset"),
    ],
    ids=["beyond the end", "by its id", "by its time"],
)
def test_only_an_offset_that_is_beyond_the_end_is_mended_by_resetting_the_group(
    because: str | None, wanted: str, unwanted: str
) -> None:
    """By its id a report is rejected wherever the group stands, as on a mirror, and by its time until the next one: it
    would work again for nothing."""
    leader = LeaderSnapshot("writers", 500, is_rejected=True, rejected_because=because)
    partition = PartitionSnapshot("events", 3, 5, None, high_watermark=100, leaders=(leader,))
    (problem,) = problems_of(snapshot=Snapshot(0.0, (partition,)))
    assert (wanted in problem.advice, unwanted in problem.advice) == (True, False)
    if "wait" in wanted:
        assert problem.advice == (
            "Was the topic deleted and created again? Then restart the leader. Else wait: it is believed once the "
            "group publishes again, or has committed that far. Are the topic's timestamps not the time of writing, as "
            "of events or on a mirror? Then this comes and goes"
        )
    until = "publishes again, or its commit reaches that far" if "wait" in wanted else "publishes one that can be"
    assert problem.message.endswith(f"the partition stays closed until the group {until}")


def test_of_an_end_that_is_not_known_nothing_is_said() -> None:
    """As while the partition's broker is away."""
    leader = LeaderSnapshot("writers", 500, is_rejected=True)
    (problem,) = problems_of(snapshot=Snapshot(0.0, (PartitionSnapshot("events", 3, 5, None, leaders=(leader,)),)))
    assert problem.message.startswith("group 'writers' has published offset 500 of events[3]: that is beyond the ")


def test_an_impossible_offset_is_none_before_everything_was_read() -> None:
    """The commit log may begin with what the group published of an earlier topic of that name."""
    leader = LeaderSnapshot("writers", 500, is_rejected=True, rejected_because="of an earlier topic of that name")
    partition = PartitionSnapshot("events", 3, 5, None, high_watermark=100, leaders=(leader,))
    source = SourceStatistics(ready=False, alive=True, lag=7)
    assert problems_of(snapshot=Snapshot(0.0, (partition,), source), replaying=10.0) == []
    (problem,) = problems_of(snapshot=Snapshot(0.0, (partition,), replace(source, ready=True)))
    assert problem.kind is KIND.IMPOSSIBLE_OFFSET


def test_a_dead_source_is_the_only_problem() -> None:
    """All else follows from it."""
    (problem,) = problems_of(verdict(0, 500), snapshot=Snapshot(0.0, (), source_error="it died"))
    assert problem.kind is KIND.SOURCE_DIED
    assert str(problem) == "it died. The follower ends with it; once the cause is mended, start it again"
    assert str(replace(problem, message="was it deleted?")).startswith("was it deleted? The follower ends with it; ")


def test_a_replay_that_lasts_is_told_and_blames_nobody() -> None:
    """Else nothing would say why the follower stands still."""
    replaying = Snapshot(0.0, (), SourceStatistics(ready=False, alive=True, lag=7))
    assert problems_of(snapshot=replaying, replaying=299.0) == []
    (problem,) = problems_of(snapshot=replaying, replaying=300.0)
    assert problem.cause == (KIND.LONG_REPLAY, None, None)
    begins = "the source has been reading what leaders published before its start for 300 s"
    assert problem.message == f"{begins}, 7 records to go. Nothing is released before its end"
    assert problem.advice == "If that number doesn't fall, look at the brokers of the commit log"
    unknown = Snapshot(0.0, (), SourceStatistics(ready=False, alive=True, lag=None))
    assert problems_of(snapshot=unknown, replaying=300.0)[0].message.startswith(f"{begins}. Nothing")
    assert problems_of(replaying=300.0)[0].message.startswith(f"{begins}. Nothing"), "of a source that tells nothing"


def test_how_many_partitions_more_is_said_in_words() -> None:
    (two,) = problems_of(verdict(3, 500), verdict(1, 400))
    (three,) = problems_of(verdict(3, 500), verdict(1, 400), verdict(2, 300))
    assert ("(and 1 more partition likewise)" in two.message, "(and 2 more partitions likewise)" in three.message) == (
        True,
        True,
    )


def test_of_what_waits_for_nobody_there_is_nothing_to_do() -> None:
    """Its reason says all."""
    (problem,) = problems_of(replace(verdict(3, 500), waits_for=None, group=None, reason="can't start there"))
    assert (problem.advice, problem.message) == ("", "events[3] can't start there")


ASSIGNED = Snapshot(0.0, tuple(PartitionSnapshot("events", each) for each in range(6)))
"""With every partition of the problems below."""


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
        teller.bulletin.update([problem], lambda: ASSIGNED)
    assert teller.told == [FIRST]


def test_a_problem_that_lasts_is_told_again_after_the_reminder_interval(teller: Teller) -> None:
    """With what is known then."""
    teller.bulletin.update([FIRST], lambda: ASSIGNED)
    teller.now = REMINDER_SECONDS
    teller.bulletin.update([GROWN], lambda: ASSIGNED)
    assert teller.told == [FIRST, GROWN]


def test_a_problem_that_comes_and_goes_is_told_once_in_the_interval(teller: Teller) -> None:
    """Flapping makes no flood."""
    for problems in ([FIRST], [], [FIRST], [], [FIRST]):
        teller.bulletin.update(problems, lambda: ASSIGNED)
    assert teller.told == [FIRST]


def test_a_problem_that_comes_back_is_a_line_again_after_a_minute_and_no_event(
    teller: Teller, caplog: pytest.LogCaptureFixture
) -> None:
    """An operator who believes the last line would else take it for well while it stands still."""
    for at, problems in ((0.0, [FIRST]), (20.0, []), (40.0, [FIRST]), (60.0, [FIRST]), (70.0, [FIRST]), (80.0, [])):
        teller.now = at
        teller.bulletin.update(problems, lambda: ASSIGNED)
    assert caplog.messages == ["events[3] stands still", "Over: events[3] stands still"] * 2
    assert teller.told == [FIRST]


def test_what_comes_back_as_a_mere_wait_is_told_too(teller: Teller, caplog: pytest.LogCaptureFixture) -> None:
    """Though the wait itself was never told to be over, since it had become a stall."""
    waiting = Problem(KIND.WAITING, "events[3] waits", "events", (3,), "writers")
    for at, problems in ((0.0, [waiting]), (45.0, [FIRST]), (50.0, []), (70.0, [waiting])):
        teller.now = at
        teller.bulletin.update(problems, lambda: ASSIGNED)
    assert caplog.messages[-2:] == ["Over: events[3] stands still", "events[3] waits"]


def test_a_problem_that_goes_on_is_not_told_again_since_another_one_of_the_same_group_is_over(
    teller: Teller, caplog: pytest.LogCaptureFixture
) -> None:
    """Each has its own reminder."""
    elsewhere = Problem(KIND.WAITING, "events[5] waits", "events", (5,), "writers")
    for begin in (0.0, 120.0):
        told_at(teller, (begin, [IMPOSSIBLE, elsewhere], 100.0), (begin + 50.0, [IMPOSSIBLE], 100.0))
    told_at(teller, (REMINDER_SECONDS - 1.0, [IMPOSSIBLE], 100.0))
    assert caplog.messages == [str(IMPOSSIBLE), *[str(elsewhere), f"Over: {elsewhere}"] * 2]
    told_at(teller, (REMINDER_SECONDS, [IMPOSSIBLE], 100.0))
    assert caplog.messages[-1] == str(IMPOSSIBLE)
    assert teller.told == [IMPOSSIBLE] * 2


def test_another_cause_is_told_at_once(teller: Teller) -> None:
    """The limit is each cause's own."""
    teller.bulletin.update([FIRST], lambda: ASSIGNED)
    teller.bulletin.update([FIRST, OTHER], lambda: ASSIGNED)
    assert teller.told == [FIRST, OTHER]


def test_silence_is_a_line_at_first_and_an_event_once_messages_wait_for_the_group(
    teller: Teller, caplog: pytest.LogCaptureFixture
) -> None:
    """One voice: the second line takes the place of the first, and one says that it is over."""
    silent = problems_of(snapshot=SILENT, ready=60.0)
    waited_for = problems_of(verdict(3, 15.0, "typo", None, Grade.UNKNOWN), snapshot=SILENT, ready=70.0)
    for problems in (silent, silent, waited_for, waited_for, []):
        teller.bulletin.update(problems, lambda: ASSIGNED)
    assert [problem.kind for problem in teller.told] == [KIND.NEVER_REPORTED]
    first, second, third = caplog.messages
    assert first.startswith("group 'typo' has published nothing of events so far. ")
    assert second.startswith("events[3] has stood still for 15 s at 5: 100 messages wait for group 'typo', ")
    assert third.startswith("Over: events[3] has stood still for 15 s")


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(record.levelname, record.message) for record in caplog.records]


def test_the_end_of_a_problem_is_one_log_line_at_the_same_level(
    teller: Teller, caplog: pytest.LogCaptureFixture
) -> None:
    """As loud as its beginning. Neither is an error: Sentry would make it a second event."""
    caplog.set_level(logging.INFO, logger="arroyo_sync.observe.problems")
    teller.bulletin.update([FIRST], lambda: ASSIGNED)
    teller.bulletin.update([GROWN, OTHER], lambda: ASSIGNED)
    teller.bulletin.update([OTHER], lambda: ASSIGNED)
    teller.bulletin.update([OTHER], lambda: ASSIGNED)
    assert lines(caplog) == [
        ("WARNING", "events[3] stands still"),
        ("WARNING", "events[5] stands still"),
        ("WARNING", "Over: events[3] still stands still"),
    ]


def test_the_end_of_what_was_not_told_is_not_told(teller: Teller, caplog: pytest.LogCaptureFixture) -> None:
    """A problem that flaps within a minute is told once, and its first end."""
    for problems in ([FIRST], [], [FIRST], []):
        teller.bulletin.update(problems, lambda: ASSIGNED)
    assert lines(caplog) == [("WARNING", "events[3] stands still"), ("WARNING", "Over: events[3] stands still")]


def test_a_wait_is_a_log_line_and_no_event_and_its_stall_does_not_end_it(
    teller: Teller, caplog: pytest.LogCaptureFixture
) -> None:
    """Waiting, then standing still, then over: three lines and one event."""
    waiting = Problem(KIND.WAITING, "events[3] waits", "events", (3,), "writers")
    for problems in ([waiting], [FIRST], []):
        teller.bulletin.update(problems, lambda: ASSIGNED)
    assert teller.told == [FIRST]
    assert [message for _, message in lines(caplog)] == [
        "events[3] waits",
        "events[3] stands still",
        "Over: events[3] stands still",
    ]


@pytest.mark.parametrize(
    ("kind", "whose"), [(KIND.STALL, "writers"), (KIND.WAITING, "writers"), (KIND.STALL, None), (KIND.WAITING, None)]
)
def test_what_waits_for_a_report_that_turns_out_impossible_is_not_over(
    teller: Teller, caplog: pytest.LogCaptureFixture, kind: ProblemKind, whose: str | None
) -> None:
    """The partition is as shut as before. While the report was to be confirmed, the wait was for nobody by name."""
    waits = Problem(kind, "events[3] waits", "events", (3,), whose, waits_for=WaitsFor.LEADER)
    for problems in ([waits], [IMPOSSIBLE]):
        teller.bulletin.update(problems, lambda: ASSIGNED)
    assert caplog.messages == ["events[3] waits", str(IMPOSSIBLE)]


def test_a_wait_that_comes_back_after_an_impossible_report_is_told_again(
    teller: Teller, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever reads "Over" last believes that all is well."""
    waits = Problem(KIND.STALL, "events[3] waits", "events", (3,), waits_for=WaitsFor.LEADER)
    told_at(teller, (0.0, [waits], 100.0), (30.0, [IMPOSSIBLE], 100.0), (61.0, [], 100.0), (70.0, [waits], 100.0))
    assert caplog.messages == [str(waits), str(IMPOSSIBLE), f"Over: {IMPOSSIBLE.message}", str(waits)]


@pytest.mark.parametrize(
    "waits",
    [
        Problem(KIND.STALL, "events[5] waits", "events", (5,), "writers", waits_for=WaitsFor.LEADER),
        Problem(KIND.WAITING, "events[5] waits", "events", (5,), "writers", waits_for=WaitsFor.LEADER),
        Problem(KIND.STALL, "events[3] waits", "events", (3,), "others", waits_for=WaitsFor.LEADER),
        Problem(KIND.STALL, "events[3] waits", "events", (3,), waits_for=WaitsFor.FOLLOWER),
        Problem(KIND.STALL, "more[3] waits", "more", (3,), "writers", waits_for=WaitsFor.LEADER),
    ],
    ids=["in another partition", "in another partition, not for long", "for another group", "slow", "another topic"],
)
def test_what_an_impossible_report_has_nothing_to_do_with_is_over(
    teller: Teller, caplog: pytest.LogCaptureFixture, waits: Problem
) -> None:
    for problems in ([waits], [IMPOSSIBLE]):
        teller.bulletin.update(problems, lambda: ASSIGNED)
    assert caplog.messages[-1] == f"Over: {waits.message}"


def test_silence_is_not_over_because_nothing_is_assigned(teller: Teller, caplog: pytest.LogCaptureFixture) -> None:
    """As in a rebalance, or at the end: whoever reads "Over" last would think that the group has published."""
    for problems, snapshot in (([SILENCE], ASSIGNED), ([], NOTHING), ([], NOTHING), ([SILENCE], ASSIGNED)):
        teller.bulletin.update(problems, lambda at=snapshot: at)  # type: ignore[misc]
    assert caplog.messages == [str(SILENCE)]
    teller.bulletin.update([], lambda: ASSIGNED)
    assert caplog.messages[1:] == [f"Over: {SILENCE.message}"]


def test_a_stall_that_is_over_is_told_so_though_the_group_is_waited_for_again(
    teller: Teller, caplog: pytest.LogCaptureFixture
) -> None:
    """Only what is no stall yet gives way to one."""
    told_at(teller, (0.0, [FIRST], 100.0), (1.0, [WAITS], 100.0))
    assert caplog.messages == [str(FIRST), str(WAITS), f"Over: {FIRST.message}"]


def test_what_is_over_is_told_as_it_was_last(teller: Teller, caplog: pytest.LogCaptureFixture) -> None:
    """More partitions may have come to it since it was told."""
    told_at(teller, (0.0, [FIRST], 100.0), (1.0, [GROWN], 100.0), (2.0, [], 100.0))
    assert caplog.messages == [str(FIRST), f"Over: {GROWN.message}"]


def test_an_event_shows_how_everything_stood() -> None:
    told: list[tuple[Problem, Snapshot]] = []
    ProblemReporter(lambda problem, snapshot: told.append((problem, snapshot)), lambda: 0.0).update(
        [FIRST], lambda: ASSIGNED
    )
    assert told == [(FIRST, ASSIGNED)]


def test_what_another_member_has_now_is_not_said_to_be_over(teller: Teller, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody here can know."""
    others = replace(ASSIGNED, partitions=ASSIGNED.partitions[4:])
    for problems, snapshot in (([FIRST], ASSIGNED), ([], others)):
        teller.bulletin.update(problems, lambda at=snapshot: at)  # type: ignore[misc]
    assert lines(caplog)[1] == ("WARNING", "No longer assigned here: events[3] stands still")


@pytest.mark.parametrize("comes_back", [False, True])
def test_while_nothing_is_assigned_a_problem_may_come_back(
    teller: Teller, caplog: pytest.LogCaptureFixture, comes_back: bool
) -> None:
    """As in an eager rebalance, which takes everything away for a moment: who reads that it is elsewhere goes there."""
    looks = [(0.0, [FIRST], ASSIGNED), (10.0, [], NOTHING), (10.0 + RETURN_SECONDS - 1, [], NOTHING)]
    later = 10.0 + RETURN_SECONDS
    looks.append((later, [FIRST], ASSIGNED) if comes_back else (later, [], NOTHING))
    for teller.now, problems, snapshot in looks:
        assert len(caplog.messages) == (teller.now > 0.0)
        teller.bulletin.update(problems, lambda at=snapshot: at)  # type: ignore[misc]
    elsewhere = [] if comes_back else [f"No longer assigned here: {FIRST.message}"]
    assert caplog.messages == [str(FIRST), *elsewhere]
    assert teller.told == [FIRST]


@pytest.mark.parametrize("between", [[FIRST, OTHER], [OTHER]], ids=["all goes on", "one is over"])
def test_each_time_that_nothing_is_assigned_has_its_own_minute(
    teller: Teller, caplog: pytest.LogCaptureFixture, between: list[Problem]
) -> None:
    """A rebalance an hour after another one."""
    for teller.now, problems, snapshot in (
        (0.0, [FIRST, OTHER], ASSIGNED),
        (10.0, [], NOTHING),
        (11.0, between, ASSIGNED),
    ):
        teller.bulletin.update(problems, lambda at=snapshot: at)  # type: ignore[misc]
    told = len(caplog.messages)
    for teller.now in (800.0, 800.0 + RETURN_SECONDS - 1):
        teller.bulletin.update([], lambda: NOTHING)
    assert len(caplog.messages) == told
    teller.now = 800.0 + RETURN_SECONDS
    teller.bulletin.update([], lambda: NOTHING)
    assert caplog.messages[-1] == f"No longer assigned here: {OTHER.message}"


IMPOSSIBLE = Problem(KIND.IMPOSSIBLE_OFFSET, "writers can't be there", "events", (3,), "writers")
SILENCE = Problem(KIND.SILENT, "typo is silent", "events", (), "typo")
WAITS = Problem(KIND.WAITING, "events[3] waits", "events", (3,), "writers")
DIED = Problem(KIND.SOURCE_DIED, "it died")
LONG = Problem(KIND.LONG_REPLAY, "it reads on")


def told_at(teller: Teller, *looks: tuple[float, list[Problem], float]) -> None:
    """At these times, with these problems, the source having been ready for so long."""
    for teller.now, problems, ready in looks:
        teller.bulletin.update(problems, lambda: ASSIGNED, ready)


LOST = Problem(KIND.CUT_OFF, "Nothing of partition 0 of the commit log has been heard for 300 s")


def test_a_replay_that_ends_while_part_of_the_log_is_not_heard_is_over(
    teller: Teller, caplog: pytest.LogCaptureFixture
) -> None:
    """They are two causes, though neither is of a topic or a group."""
    replay = Problem(KIND.LONG_REPLAY, "the source has been reading for 300 s")
    told_at(teller, (0.0, [LOST, replay], 0.0), (1.0, [LOST], 1.0), (RETURN_SECONDS, [LOST], 60.0))
    assert caplog.messages == [str(LOST), str(replay), f"Over: {replay.message}"]


@pytest.mark.parametrize("problem", [FIRST, IMPOSSIBLE, SILENCE, WAITS, LOST], ids=lambda problem: problem.kind.value)
def test_nothing_is_over_because_the_source_died(
    teller: Teller, caplog: pytest.LogCaptureFixture, problem: Problem
) -> None:
    """Its end hides everything else: who reads "Over" last would think that the leader is well again."""
    told_at(teller, (0.0, [problem], 100.0), (1.0, [DIED], 0.0), (2.0, [DIED], 0.0))
    assert caplog.messages == [str(problem), "it died"]


@pytest.mark.parametrize("problem", [FIRST, IMPOSSIBLE, SILENCE, WAITS, LOST], ids=lambda problem: problem.kind.value)
def test_nothing_is_over_because_the_source_replays_and_what_goes_on_is_not_told_anew(
    teller: Teller, caplog: pytest.LogCaptureFixture, problem: Problem
) -> None:
    """For as long as it isn't ready, nor when it has only just become so, since all waits begin anew then."""
    told_at(teller, (0.0, [problem], 100.0), (10.0, [], 0.0), (950.0, [], 0.0), (951.0, [], 0.0))
    told_at(teller, (951.0 + SILENCE_SECONDS - 1, [], SILENCE_SECONDS - 1))
    told_at(teller, (951.0 + SILENCE_SECONDS, [problem], SILENCE_SECONDS))
    assert caplog.messages == [str(problem)] * 2, "when it began, and the reminder"


@pytest.mark.parametrize("problem", [FIRST, IMPOSSIBLE, SILENCE, WAITS], ids=lambda problem: problem.kind.value)
def test_what_a_replay_has_ended_is_over_once(
    teller: Teller, caplog: pytest.LogCaptureFixture, problem: Problem
) -> None:
    """When it would have been found again."""
    told_at(teller, (0.0, [problem], 100.0), (10.0, [], 0.0), (20.0, [], 0.0), (20.0 + SILENCE_SECONDS - 1, [], 59.0))
    assert caplog.messages == [str(problem)]
    told_at(teller, *((80.0 + each, [], SILENCE_SECONDS + each) for each in range(3)))
    assert caplog.messages == [str(problem), f"Over: {problem}"]


def test_a_stall_is_not_over_while_its_wait_that_a_replay_began_anew_goes_on(
    teller: Teller, caplog: pytest.LogCaptureFixture
) -> None:
    """It stands still again once it has lasted as long; and it is over when nothing waits for the group any more."""
    told_at(teller, (0.0, [FIRST], 900.0), (10.0, [], 0.0), (20.0, [], 0.0), (35.0, [WAITS], 15.0))
    told_at(teller, (200.0, [WAITS], 180.0), (320.0, [FIRST], 300.0), (321.0, [], 301.0))
    assert caplog.messages == ["events[3] stands still", "events[3] waits", "Over: events[3] stands still"]
    assert teller.told == [FIRST]


def test_of_the_source_itself_it_is_known_when_it_is_over(teller: Teller, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing else has to be seen for that."""
    told_at(teller, (0.0, [LONG], 0.0), (1.0, [], 0.0))
    assert caplog.messages == ["it reads on", "Over: it reads on"]


def test_a_source_that_dies_in_a_replay_has_not_ended_it(teller: Teller, caplog: pytest.LogCaptureFixture) -> None:
    """One voice: what it died of takes the place of how long it has read."""
    told_at(teller, (0.0, [LONG], 0.0), (1.0, [DIED], 0.0))
    assert caplog.messages == ["it reads on", "it died"]


def test_while_nothing_is_to_be_told_no_snapshot_of_everything_is_taken(teller: Teller) -> None:
    """A replay may take long, and has better things to do."""
    told_at(teller, (0.0, [FIRST], 100.0))
    for ready in (0.0, 0.0, 1.0):
        teller.bulletin.update([], lambda: pytest.fail("it was taken"), ready)
