from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import replace

import pytest

from arroyo_sync.core.source import SourceStatistics
from arroyo_sync.core.state import PartitionKey
from arroyo_sync.observe.snapshot import LeaderSnapshot, NextMessage, PartitionSnapshot, Snapshot
from arroyo_sync.observe.stalls import WaitsFor
from arroyo_sync.observe.verdict import Grade
from arroyo_sync.observe.waits import WAITING_AFTER_SECONDS
from arroyo_sync.status.answers.log_records import GroupsOnLog, Repeated
from arroyo_sync.status.check import (
    FETCH_SECONDS,
    FETCHED_AT_ONCE,
    ExitStatus,
    Status,
    StatusCheck,
    with_stopped_groups,
)
from arroyo_sync.status.members import Member, Members

NOW = 10_000.0
STALLED_AFTER = 300.0
LOOK_AGAIN = 5.0
OLD = 1000.0
MOVED_SINCE = Repeated(40, NOW - 1.0)
"""Of a leader whose last report is newer than what was read of the commit log."""


def partition(
    local: int | None,
    remote: int | None,
    high: int = 100,
    index: int = 0,
    *,
    low: int = 0,
    group: str = "writers",
    report_age: float = OLD,
) -> PartitionSnapshot:
    leader = LeaderSnapshot(group, remote, published_at=None if remote is None else NOW - report_age)
    return PartitionSnapshot("events", index, local, remote, low, high, (leader,))


class Brokers:
    """What is read, look after look, and the message at each position, by partition: its offset and its age."""

    def __init__(
        self,
        *looks: list[PartitionSnapshot],
        ages: Mapping[int, float | None] | None = None,
        names: Collection[str] = (),
    ) -> None:
        self.looks = list(looks)
        self.ages = {0: OLD, 1: OLD} if ages is None else ages
        self.names = names
        self.unfetched: Collection[int] = ()
        """The partitions that are asked about without an answer."""
        self.gap = 0
        """How many offsets hold no message before the first one that is found."""
        self.source: SourceStatistics | None = None
        self.topic_ids: list[str | None] = [None]
        """Look after look."""
        self.reported: dict[tuple[PartitionKey, str], Repeated] = {(("events", 0), "writers"): MOVED_SINCE}
        self.names_are_all = True
        self.seconds_for_messages = 0.0
        """How long each search for messages takes."""
        self.seconds_for_names = 0.0
        self.names_asked = 0
        self.tails: list[float] = []
        """Since when the commit log's end was read, each time."""
        self.now = NOW
        self.slept: list[float] = []
        self.asked: list[Mapping[PartitionKey, int]] = []
        self.check = StatusCheck(self, "forwarder", STALLED_AFTER, LOOK_AGAIN, self.sleep, lambda: self.now)

    def read(self) -> Snapshot:
        looked = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        topic_id = self.topic_ids.pop(0) if len(self.topic_ids) > 1 else self.topic_ids[0]
        return Snapshot(self.now, tuple(looked), self.source, topic_id=topic_id)

    def find_messages(self, positions: Mapping[PartitionKey, int]) -> Mapping[PartitionKey, NextMessage]:
        self.asked.append(positions)
        self.now += self.seconds_for_messages
        found = {}
        for key, position in positions.items():
            if key[1] in self.unfetched:
                found[key] = NextMessage(None, error="no answer within 3 s")
            elif key[1] in self.ages:
                age = self.ages[key[1]]
                found[key] = NextMessage(None) if age is None else NextMessage(position + self.gap, NOW - age)
        return found

    def groups_on_log(self) -> GroupsOnLog:
        self.names_asked += 1
        self.now += self.seconds_for_names
        return GroupsOnLog(self.names, self.names_are_all)

    def reported_since(self, since: float) -> Mapping[tuple[PartitionKey, str], Repeated]:
        self.tails.append(since)
        return self.reported

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


HEARTBEATS = partition(50, 50, report_age=4)
KEY = ("events", 0), "writers"

OK, WAITING, STALLED, UNKNOWN = Grade.OK, Grade.WAITING, Grade.STALLED, Grade.UNKNOWN


@pytest.mark.parametrize(
    ("looks", "exit_status", "grade", "waits_for"),
    [
        pytest.param([[partition(100, 100)]], 0, OK, None, id="nothing waits"),
        pytest.param([[partition(50, 50)]], 1, STALLED, WaitsFor.LEADER, id="the leader's last report is old"),
        pytest.param([[partition(50, 50, report_age=60)]], 0, WAITING, WaitsFor.LEADER, id="not so old yet"),
        pytest.param([[partition(50, 50, report_age=4)]], 0, OK, WaitsFor.LEADER, id="a busy leader reports"),
        pytest.param([[partition(50, 80)]], 0, WAITING, WaitsFor.FOLLOWER, id="the follower doesn't move in two looks"),
        pytest.param(
            [[partition(50, 80)], [partition(60, 80)]], 0, OK, WaitsFor.FOLLOWER, id="a healthy follower's commit lags"
        ),
        pytest.param([[partition(50, 50)], [partition(50, 60)]], 0, OK, WaitsFor.FOLLOWER, id="the leader works"),
        pytest.param([[partition(None, 80)]], 2, UNKNOWN, None, id="nothing was ever committed"),
        pytest.param([[partition(50, None)]], 2, UNKNOWN, WaitsFor.LEADER, id="the leader never reported"),
        pytest.param([[partition(100, None)]], 2, UNKNOWN, None, id="the leader never reported, and all is done"),
        pytest.param([[partition(5, 50, low=20)]], 1, STALLED, None, id="committed below the log's beginning"),
        pytest.param([[partition(500, 50)]], 1, STALLED, None, id="committed beyond the log's end"),
        pytest.param(
            [[partition(50, 50), partition(100, None, 100, 1)]], 1, STALLED, WaitsFor.LEADER, id="a stall is worse"
        ),
    ],
)
def test_the_verdict(
    looks: list[list[PartitionSnapshot]], exit_status: int, grade: Grade, waits_for: WaitsFor | None
) -> None:
    """From the first look and, where it can't tell, a second one."""
    status = Brokers(*looks).check.check_once()
    assert (status.exit_status, status.grade) == (exit_status, grade)
    assert status.verdicts[0].waits_for == waits_for


@pytest.mark.parametrize(
    ("ages", "grade", "seconds"),
    [
        pytest.param({0: 20.0}, STALLED, 25.0, id="younger than the report"),
        pytest.param({0: 249_380_884.0}, STALLED, 1005.0, id="mirrored"),
        pytest.param({0: -4.0}, WAITING, 5.0, id="just written, by a clock that is ahead of ours"),
        pytest.param({0: -3600.0}, STALLED, 1005.0, id="from the future"),
        pytest.param({}, STALLED, 1005.0, id="not told"),
        pytest.param({0: None}, OK, None, id="there is none: markers, aborted messages, compacted"),
    ],
)
def test_a_wait_is_never_as_old_as_a_message_says(
    ages: Mapping[int, float | None], grade: Grade, seconds: float | None
) -> None:
    """It is as old as the leader's last report, and younger if the message came later."""
    brokers = Brokers([partition(50, 50)], ages=ages)
    brokers.check = StatusCheck(brokers, "forwarder", 10.0, LOOK_AGAIN, brokers.sleep)
    (verdict,) = brokers.check.check_once().verdicts
    assert (verdict.grade, verdict.waiting_seconds) == (grade, seconds)


def unanswered(partition: PartitionSnapshot) -> PartitionSnapshot:
    """The same, of which a broker hasn't told where the follower is."""
    return replace(partition, local_offset=None, error="what group 'forwarder' has committed: timed out")


@pytest.mark.parametrize(
    ("looks", "exit_statuses"),
    [
        pytest.param(
            [partition(50, 50), partition(50, 50), unanswered(partition(50, 50)), partition(50, 50)],
            [1, 2, 1],
            id="in a watch",
        ),
        pytest.param([partition(50, 50), unanswered(partition(50, 50)), partition(50, 50)], [2, 1], id="at the second"),
        pytest.param([unanswered(partition(50, 50)), partition(50, 50)], [2, 1], id="at the first"),
    ],
)
def test_a_look_at_which_a_partition_is_not_told_hides_no_stall(
    looks: list[PartitionSnapshot], exit_statuses: list[int]
) -> None:
    """The next one was "ok", as if what waits had begun to wait then."""
    brokers = Brokers(*[[look] for look in looks])
    assert [brokers.check.check_once().exit_status for _ in exit_statuses] == exit_statuses


def test_a_partition_that_is_told_at_the_second_look_is_judged_by_its_reports() -> None:
    """As at the first, of which another partition wanted a second one."""
    other = partition(50, 80, index=1)
    brokers = Brokers([unanswered(partition(50, 50)), other], [partition(50, 50), other])
    (stall,) = brokers.check.check_once().stalls
    assert (stall.partition, stall.waiting_seconds) == (0, OLD + LOOK_AGAIN)


def test_what_a_watch_has_seen_counts_for_more_than_a_report() -> None:
    """Nothing waited at the last look: a message with the time of an event of long ago has come since."""
    brokers = Brokers([partition(100, 100, 100)], [partition(100, 100, 200)])
    brokers.check.check_once()
    brokers.now += 2.0
    (verdict,) = brokers.check.check_once().verdicts
    assert (verdict.waits_for, verdict.waiting_seconds) == (WaitsFor.LEADER, 0.0)


@pytest.mark.parametrize(
    ("looks", "exit_status", "grade", "waits_for"),
    [
        pytest.param([partition(99, 100)], 2, UNKNOWN, None, id="for the follower"),
        pytest.param([partition(99, 99)], 2, UNKNOWN, None, id="for a leader"),
        pytest.param([partition(99, 99, report_age=4)], 2, UNKNOWN, None, id="for a leader that reports"),
        pytest.param([partition(99, None)], 2, UNKNOWN, None, id="for a leader that never reported"),
        pytest.param([partition(99, 100), partition(100, 101, 101)], 0, OK, None, id="the follower goes on"),
        pytest.param([partition(99, 99), partition(99, 100, 101)], 0, OK, WaitsFor.FOLLOWER, id="the leader goes on"),
        pytest.param([partition(98, 98)], 1, STALLED, WaitsFor.LEADER, id="two offsets are no marker"),
    ],
)
def test_one_offset_whose_message_could_not_be_fetched_is_not_all_right(
    looks: list[PartitionSnapshot], exit_status: int, grade: Grade, waits_for: WaitsFor | None
) -> None:
    """It was taken for a transaction's marker: "ok", and a message waited for days."""
    brokers = Brokers(*[[look] for look in looks])
    brokers.unfetched = (0,)
    status = brokers.check.check_once()
    assert (status.exit_status, status.grade) == (exit_status, grade)
    (verdict,) = status.verdicts
    assert verdict.waits_for is waits_for
    if grade is UNKNOWN and looks[0].remote_offset is not None:
        assert verdict.reason == "can't be told: its first waiting message couldn't be fetched (no answer within 3 s)"


def test_what_could_not_be_fetched_is_asked_for_again() -> None:
    """Where something waits, or nothing, is told as soon as it is known."""
    brokers = Brokers([partition(99, 99)])
    brokers.unfetched = (0,)
    assert brokers.check.check_once().exit_status is ExitStatus.UNKNOWN
    brokers.unfetched, brokers.ages = (), {0: None}
    assert brokers.check.check_once().exit_status is ExitStatus.GOING_ON
    assert len(brokers.asked) == 3


@pytest.mark.parametrize(
    ("then", "exit_status"),
    [
        pytest.param((99, 99, 100), ExitStatus.UNKNOWN, id="it stays"),
        pytest.param((100, 100, 101), ExitStatus.GOING_ON, id="another one comes"),
    ],
)
def test_one_offset_that_there_was_no_time_to_look_at_is_no_marker(
    then: tuple[int, int, int], exit_status: ExitStatus
) -> None:
    """It was taken for one, and what had waited there for hours was "ok"."""
    markers = [partition(99, 99, index=index) for index in range(FETCHED_AT_ONCE)]
    last = FETCHED_AT_ONCE
    looks = [[*markers, partition(*each, index=last)] for each in ((99, 99, 100), then)]
    brokers = Brokers(*looks, ages=dict.fromkeys(range(FETCHED_AT_ONCE)))
    brokers.seconds_for_messages = FETCH_SECONDS
    assert brokers.check.check_once().exit_status is exit_status


def test_a_leader_that_reports_needs_no_second_look() -> None:
    """It just hasn't got there yet."""
    brokers = Brokers([partition(50, 50, report_age=4.0)])
    assert brokers.check.check_once().exit_status is ExitStatus.GOING_ON
    assert brokers.slept == []


def test_of_many_partitions_the_messages_are_fetched_part_by_part_those_of_the_longest_lag_first() -> None:
    """As many as there is time for."""
    count = FETCHED_AT_ONCE + 50
    brokers = Brokers(
        [partition(50, 50, 100 + index, index) for index in range(count)], ages=dict.fromkeys(range(count))
    )
    brokers.check.check_once()
    assert [{key[1] for key in each} for each in brokers.asked] == [set(range(50, count)), set(range(50))]


DOUBT = (
    "for how long messages wait for a leader in 1 partition: the first of them couldn't be fetched in time or has no "
    "time that can be true, or the end of the commit log is too busy to tell. A --watch shows it"
)


def many(last: PartitionSnapshot) -> tuple[list[PartitionSnapshot], list[PartitionSnapshot]]:
    """Two looks at many partitions that have a longer lag than this one, and whose leader works."""
    first = [partition(50, 50, 500, 1 + index, report_age=4) for index in range(FETCHED_AT_ONCE)]
    then = [partition(50, 60, 500, 1 + index, report_age=1) for index in range(FETCHED_AT_ONCE)]
    return [*first, HEARTBEATS], [*then, last]


@pytest.mark.parametrize(
    "seconds", [pytest.param(0.1, id="at the first look"), pytest.param(FETCH_SECONDS, id="at the second")]
)
def test_a_leader_that_repeats_its_offset_is_seen_among_many_partitions(seconds: float) -> None:
    """Those with the longest lag hid it: nobody knew when what waits there was written, and all was "ok"."""
    brokers = Brokers(*many(HEARTBEATS), ages=dict.fromkeys(range(FETCHED_AT_ONCE + 1), OLD))
    brokers.reported = {KEY: Repeated(50, NOW - 400)}
    brokers.seconds_for_messages = seconds
    (stall,) = brokers.check.check_once().stalls
    assert (stall.partition, stall.waiting_seconds >= 400.0) == (0, True)


@pytest.mark.parametrize(
    ("last", "exit_status"),
    [
        pytest.param(HEARTBEATS, 2, id="its leader stands still between the looks"),
        pytest.param(partition(50, 60, report_age=1), 0, id="it works"),
    ],
)
@pytest.mark.parametrize("is_answered", [False, True], ids=["no answer", "no time"])
def test_a_message_that_was_not_fetched_is_said_where_it_leaves_a_doubt(
    last: PartitionSnapshot, exit_status: int, is_answered: bool
) -> None:
    """For how long a message has waited that nobody has seen can't be told by a leader that heartbeats."""
    brokers = Brokers([HEARTBEATS], [last], ages={})
    if not is_answered:
        brokers.unfetched = (0,)
    status = brokers.check.check_once()
    assert brokers.slept == [LOOK_AGAIN]
    assert status.exit_status == exit_status
    assert status.doubts == ((DOUBT,) if exit_status == 2 else ())


def test_what_was_found_is_not_looked_for_again_until_it_is_passed() -> None:
    """A watch fetches no message twice."""
    brokers = Brokers([partition(50, 50)], [partition(50, 50)], [partition(60, 60)])
    brokers.check.check_once()
    brokers.check.check_once()
    assert brokers.asked == [{("events", 0): 50}, {("events", 0): 60}]


def test_that_nothing_is_there_is_looked_at_again_when_something_is_written() -> None:
    """Where an aborted message lay, the next one may be a real one behind it."""
    brokers = Brokers([partition(50, 50, 60)], [partition(50, 50, 60)], [partition(50, 50, 70)], ages={0: None})
    for _ in range(3):
        brokers.check.check_once()
    assert len(brokers.asked) == 2


@pytest.mark.parametrize(
    ("then", "topic_ids", "is_asked"),
    [
        pytest.param(partition(60, 60, 79), [None], True, id="the partition ends before it"),
        pytest.param(partition(60, 60, 80), [None], True, id="the partition ends where it was"),
        pytest.param(partition(60, 60, 81), [None], False, id="it is the last one"),
        pytest.param(partition(0, 80), [None], True, id="the follower has gone back: others may come before it"),
        pytest.param(partition(50, 50), ["old", "old", "new"], True, id="it is of an earlier topic, by its id"),
        pytest.param(partition(50, 50), ["old", "old", None], False, id="the id isn't told"),
        pytest.param(partition(50, 50), [None, None, "new"], False, id="nor was it before"),
        pytest.param(partition(50, 50), ["old"], False, id="the same topic"),
    ],
)
def test_what_was_found_counts_only_where_it_can_still_be(
    then: PartitionSnapshot, topic_ids: list[str | None], is_asked: bool
) -> None:
    """A topic that is created again during a watch has another first message, which isn't at that offset."""
    brokers = Brokers([partition(50, 50)], [partition(50, 50)], [then])
    brokers.topic_ids, brokers.gap = topic_ids, 30
    for _ in range(2):
        brokers.check.check_once()
    assert [each[("events", 0)] for each in brokers.asked] == ([50, then.local_offset] if is_asked else [50])


def test_what_was_written_since_the_end_was_told_is_found_too() -> None:
    """The brokers are asked for it after the ends."""
    brokers = Brokers([partition(99, 99)])
    brokers.gap = 1
    (shown,) = brokers.check.check_once().snapshot.partitions
    assert shown.next_message == NextMessage(100, NOW - OLD)


def test_that_nothing_was_there_says_nothing_of_another_topic() -> None:
    """Which may end at the same offset."""
    brokers = Brokers([partition(50, 50)], ages={0: None})
    brokers.topic_ids = ["old", "new"]
    for _ in range(2):
        brokers.check.check_once()
    assert len(brokers.asked) == 2


def test_after_a_topic_was_created_again_a_watch_says_what_a_new_call_says() -> None:
    """The first message of the earlier topic, at 500, stayed the first one that waits: for a leader without a name."""
    new = [partition(0, 10, 10)]
    brokers = Brokers([partition(500, 500, 1000)], [partition(500, 500, 1000)], new)
    brokers.check.check_once()
    verdicts = brokers.check.check_once().verdicts
    (verdict,) = verdicts
    (fresh,) = Brokers(new).check.check_once().verdicts
    assert (verdict.waits_for, verdict.behind) == (fresh.waits_for, fresh.behind) == (WaitsFor.FOLLOWER, 10)


def test_watching_needs_no_second_look_later_on() -> None:
    """What the watch has seen is what counts: a partition that moved is as old as its last move."""
    brokers = Brokers([partition(50, 50)], [partition(50, 60)], [partition(60, 60)])
    assert brokers.check.check_once().exit_status is ExitStatus.GOING_ON
    brokers.now += 200
    assert brokers.check.check_once().exit_status is ExitStatus.GOING_ON
    brokers.now += 299
    assert brokers.check.check_once().exit_status is ExitStatus.GOING_ON
    brokers.now += 1
    (stall,) = brokers.check.check_once().stalls
    assert stall.waiting_seconds == 300.0
    assert brokers.slept == [LOOK_AGAIN]


def test_a_follower_that_has_committed_nothing_can_not_be_told() -> None:
    """Its name may be wrong."""
    status = Brokers([partition(None, 0, 0)]).check.check_once()
    assert status.exit_status is ExitStatus.UNKNOWN
    assert status.doubts == ("group 'forwarder' has committed nothing of events: is its name right, and has it run?",)


@pytest.mark.parametrize(
    ("group", "names", "says"),
    [
        ("typo", ["writers", "indexers"], "is its name right? These have: 'indexers', 'writers'"),
        ("typo", [], "and no other has: is its name right, and does it publish?"),
        ("writers,indexers", ["writers"], "are these several groups? Give --leader-group for each"),
    ],
)
def test_a_group_that_never_reported_is_said_with_those_that_did(group: str, names: list[str], says: str) -> None:
    """What is configured can't be right."""
    brokers = Brokers([partition(100, None, group=group)], names=names)
    brokers.source = SourceStatistics(ready=True, alive=True)
    status = brokers.check.check_once()
    (doubt,) = status.doubts
    assert doubt.startswith(f"group {group!r} has never reported of this topic")
    assert doubt.endswith(says)


@pytest.mark.parametrize(
    ("names", "is_all", "says"),
    [
        pytest.param(
            [f"group-{index:02}" for index in range(30)],
            True,
            "These have: 'group-07', .*'group-17', .*'group-27', .* and 20 more",
            id="many: those that are most alike",
        ),
        pytest.param(["group-1"], False, "These have: 'group-1'. There may be more: .* read whole in time", id="some"),
        pytest.param([], False, "and does it publish. There may be more: the log .*", id="none so far"),
    ],
)
def test_of_groups_that_reported_the_likely_ones_are_named(names: list[str], is_all: bool, says: str) -> None:
    """A long list was cut in its middle, where the right spelling may be."""
    brokers = Brokers([partition(100, None, group="group-7")], names=names)
    brokers.source = SourceStatistics(ready=True, alive=True)
    brokers.names_are_all = is_all
    (doubt,) = brokers.check.check_once().doubts
    assert re.search(says + "$", doubt), doubt


def test_of_a_topic_that_is_no_commit_log_it_is_said_that_it_is_none() -> None:
    """Rather than that nobody reports on it. It isn't read once more for that."""
    brokers = Brokers([partition(100, None)])
    brokers.source = SourceStatistics(ready=True, alive=True, is_foreign=True)
    status = brokers.check.check_once()
    assert status.doubts == ("the commit log holds no commit records: is its name right, or is it another topic's?",)
    assert status.exit_status is ExitStatus.UNKNOWN
    assert brokers.names_asked == 0


@pytest.mark.parametrize(
    ("look", "unheard_seconds", "exit_status"),
    [
        pytest.param(partition(50, 50), 31.0, 2, id="messages wait for a leader"),
        pytest.param(partition(50, 50, report_age=4), 31.0, 2, id="and it seems to report"),
        pytest.param(partition(50, 50), 14.0, 1, id="not for long enough to be said"),
        pytest.param(partition(50, 80), 31.0, 0, id="they wait for the follower"),
        pytest.param(partition(500, 50), 31.0, 1, id="the follower can't start"),
        pytest.param(partition(100, 100), 31.0, 0, id="nothing waits"),
    ],
)
def test_a_commit_log_that_is_not_heard_proves_nothing_of_a_leader(
    look: PartitionSnapshot, unheard_seconds: float, exit_status: int
) -> None:
    """It is the command that doesn't reach a broker, and leaders were blamed for it."""
    brokers = Brokers([look])
    brokers.source = SourceStatistics(
        ready=True, alive=True, unheard=(2,), unheard_seconds=unheard_seconds, unheard_because="timed out"
    )
    status = brokers.check.check_once()
    assert status.exit_status == exit_status
    assert status.doubts == (
        (
            "Nothing of partition 2 of the commit log has been heard for 31 s (timed out), so leaders may have "
            "reported: look at those brokers, and whether this command reaches them",
        )
        if exit_status == 2
        else ()
    )


def test_where_the_commit_log_is_not_heard_a_partition_that_waits_for_a_leader_can_not_be_told() -> None:
    """And what stands still for certain comes before it."""
    brokers = Brokers([partition(50, 50), partition(500, 50, index=1)])
    brokers.source = SourceStatistics(ready=True, alive=True, unheard=(2,), unheard_seconds=31.0)
    told, stalled = reversed(brokers.check.check_once().verdicts)
    assert (stalled.partition, stalled.grade) == (1, STALLED)
    assert (told.grade, told.waits_for, told.group, told.behind) == (UNKNOWN, None, None, 50)
    assert told.reason == "can't be told: part of the commit log isn't heard, so its leaders may have reported"


@pytest.mark.parametrize(
    ("seconds", "kept_seconds"),
    [pytest.param(1.0, 60.0, id="a short log"), pytest.param(12.0, 120.0, id="a long one")],
)
def test_which_groups_have_reported_is_asked_now_and_then(seconds: float, kept_seconds: float) -> None:
    """Not at each look of a watch: the whole commit log is read for it. A long one seldom: looks come between."""
    brokers = Brokers([partition(100, None)], names=["indexers"])
    brokers.source = SourceStatistics(ready=True, alive=True)
    brokers.seconds_for_names = seconds
    said = brokers.check.check_once().doubts
    for _ in range(9):
        brokers.sleep(kept_seconds / 10)
        assert brokers.check.check_once().doubts == said
    assert brokers.names_asked == 1
    brokers.names = ["indexers", "transactions"]
    brokers.sleep(kept_seconds / 10)
    assert "'transactions'" in brokers.check.check_once().doubts[0]
    assert brokers.names_asked == 2


def test_the_exit_statuses_are_those_that_are_documented() -> None:
    """They are an interface: 0 all right, 1 stalled, 2 can't tell."""
    assert [(each.name, each.value) for each in ExitStatus] == [("GOING_ON", 0), ("STALLED", 1), ("UNKNOWN", 2)]


def test_json_tells_the_verdict_and_everything_it_rests_on() -> None:
    """For scripts."""
    status = Brokers([partition(50, 50), partition(None, 0, 0, 1)]).check.check_once()
    told = json.loads(json.dumps(status.to_json()))
    assert (told["status"], told["grade"]) == ("stalled", "stalled")
    assert told["stalls"] == [
        {
            "topic": "events",
            "partition": 0,
            "waits_for": "leader",
            "group": "writers",
            "group_offset": 50,
            "behind": 50,
            "waiting_seconds": 1005.0,
        }
    ]
    assert [(each["partition"], each["grade"], each["behind_is_exact"]) for each in told["verdicts"]] == [
        (0, "stalled", False),
        (1, "ok", True),
    ]
    assert [each["gated_lag"] for each in told["partitions"]] == [50, 0]
    assert Status(Snapshot(NOW, ())).to_json()["status"] == "going_on"


@pytest.mark.parametrize(
    ("reported", "looks", "grade", "seconds"),
    [
        pytest.param((50, NOW - 400), [HEARTBEATS], STALLED, 405.0, id="for long"),
        pytest.param((50, NOW - 60), [HEARTBEATS], WAITING, 65.0, id="for a while"),
        pytest.param((50, NOW - 9000), [HEARTBEATS], STALLED, OLD + 5, id="for longer than the message is there"),
        pytest.param(
            (50, NOW - 400), [HEARTBEATS, partition(50, 60, report_age=1)], OK, 0.0, id="until the second look"
        ),
        pytest.param((50, NOW - 9), [HEARTBEATS], OK, 9.0, id="it moved lately"),
        pytest.param((40, NOW - 400), [HEARTBEATS], OK, 4.0, id="it moved since the log was read"),
    ],
)
def test_a_leader_that_repeats_its_offset_is_seen_at_one_look(
    reported: tuple[int, float], looks: list[PartitionSnapshot], grade: Grade, seconds: float
) -> None:
    """Its last report is fresh, but the commit log's end tells that it is the same as long before."""
    brokers = Brokers(*[[look] for look in looks])
    brokers.reported = {KEY: Repeated(*reported)}
    status = brokers.check.check_once()
    assert (status.grade, status.verdicts[0].waiting_seconds) == (grade, seconds)
    assert brokers.tails == [NOW - STALLED_AFTER - WAITING_AFTER_SECONDS]


@pytest.mark.parametrize(
    ("reported", "ages", "then", "exit_status"),
    [
        pytest.param({}, {0: OLD}, HEARTBEATS, 2, id="the log's end is too busy to hold it"),
        pytest.param(
            {KEY: Repeated(50, NOW - 100, is_older=True)}, {0: OLD}, HEARTBEATS, 2, id="it is cut: maybe for long"
        ),
        pytest.param({KEY: Repeated(50, NOW - 100)}, {0: OLD}, HEARTBEATS, 0, id="it is whole: for a while"),
        pytest.param({KEY: Repeated(50, NOW - 400, is_older=True)}, {0: OLD}, HEARTBEATS, 1, id="long enough"),
        pytest.param({}, {0: OLD}, partition(50, 60, report_age=1), 0, id="it moves"),
        pytest.param({}, {0: -100.0}, HEARTBEATS, 2, id="the message's time can't be believed"),
        pytest.param({}, {0: -100.0}, partition(50, 60, report_age=1), 0, id="nor then, but it moves"),
        pytest.param({}, {0: None}, HEARTBEATS, 0, id="there is no message"),
    ],
)
def test_a_leader_that_may_have_repeated_its_offset_for_long_is_not_all_right(
    reported: dict[tuple[PartitionKey, str], Repeated],
    ages: dict[int, float | None],
    then: PartitionSnapshot,
    exit_status: int,
) -> None:
    """A busy log, or a time that says nothing, made a leader that had stood still for hours "ok"."""
    brokers = Brokers([HEARTBEATS], [then], ages=ages)
    brokers.reported = reported
    status = brokers.check.check_once()
    assert status.exit_status == exit_status
    assert status.doubts == ((DOUBT,) if exit_status == 2 else ())


def committed(look: PartitionSnapshot, offset: int) -> PartitionSnapshot:
    """The same, where the leader has committed that far on the brokers."""
    return replace(look, leaders=tuple(replace(each, committed_offset=offset) for each in look.leaders))


@pytest.mark.parametrize(
    ("look", "then", "open_from", "count"),
    [
        pytest.param(committed(partition(50, 50), 61), None, None, 11, id="more than it may owe"),
        pytest.param(committed(partition(50, 50), 60), None, None, None, id="no more"),
        pytest.param(committed(partition(30, 20), 90), None, None, 60, id="the follower is further than the report"),
        pytest.param(committed(partition(50, 50, report_age=200), 100), None, None, None, id="not for long"),
        pytest.param(committed(partition(50, 50), 100), partition(50, 100, report_age=1), None, None, id="it reports"),
        pytest.param(committed(partition(50, 50), 100), None, 50, None, id="behind an open transaction"),
    ],
)
def test_a_leader_that_commits_much_for_long_and_does_not_report_is_not_all_right(
    look: PartitionSnapshot, then: PartitionSnapshot | None, open_from: int | None, count: int | None
) -> None:
    """That nothing new arrived in the five seconds between two looks made it "waiting", and all well."""
    brokers = Brokers([look], [then or look])
    if open_from is not None:
        brokers.find_messages = lambda positions: {  # type: ignore[method-assign]
            key: NextMessage(None, open_from=open_from) for key in positions
        }
    status = brokers.check.check_once()
    said = f"whether group 'writers' reports: it has committed up to {count} messages on the brokers"
    assert [doubt.partition(" without")[0] for doubt in status.doubts] == ([] if count is None else [said])
    assert (status.exit_status, status.stalls) == (0 if count is None else 2, ())


def test_a_watch_is_not_told_to_watch() -> None:
    """It sees by itself for how long something waits."""
    brokers = Brokers([HEARTBEATS], ages={})
    assert brokers.check.check_once().exit_status is ExitStatus.UNKNOWN
    brokers.sleep(1.0)
    status = brokers.check.check_once()
    assert (status.exit_status, status.doubts) == (ExitStatus.GOING_ON, ())


@pytest.mark.parametrize(
    ("look", "ages"),
    [
        pytest.param(partition(100, 100, report_age=4), {0: OLD}, id="nothing waits"),
        pytest.param(HEARTBEATS, {0: 9.0}, id="the message is new"),
        pytest.param(HEARTBEATS, {0: -50.0}, id="its time is of a clock that is a little ahead"),
        pytest.param(HEARTBEATS, {0: -61.0}, id="its time can't be believed"),
        pytest.param(partition(50, 50), {0: OLD}, id="the report is old enough"),
    ],
)
def test_the_end_of_the_commit_log_is_read_only_where_it_can_tell_more(
    look: PartitionSnapshot, ages: dict[int, float]
) -> None:
    """A healthy pipeline's status costs nothing more."""
    brokers = Brokers([look], ages=ages)
    brokers.reported = {KEY: Repeated(50, NOW - 400)}
    brokers.check.check_once()
    assert brokers.tails == []


def with_next_message(status: Status, message: NextMessage) -> Status:
    """Of its one partition."""
    partition = replace(status.snapshot.partitions[0], next_message=message)
    return replace(status, snapshot=replace(status.snapshot, partitions=(partition,)))


def test_behind_a_transaction_that_is_open_no_group_is_dead() -> None:
    """It may have begun this moment, and nobody gets past it."""
    status = with_next_message(Brokers([partition(50, 80)]).check.check_once(), NextMessage(None, open_from=50))
    assert with_stopped_groups(status, {"forwarder": ()}, "forwarder", STALLED_AFTER).doubts == ()


ONE_MEMBER = (Member("client", "/10.0.0.1", (0,)),)


@pytest.mark.parametrize(
    ("members", "age", "waits_for", "exit_status"),
    [
        pytest.param({"forwarder": ()}, 3 * 86_400.0, "follower", 2, id="the follower is dead"),
        pytest.param({"writers": ()}, 3 * 86_400.0, "leader", 2, id="a leader without a commit log is dead"),
        pytest.param({"writers": ()}, 3 * 86_400.0, "reports", 0, id="the age of its reports tells of a leader"),
        pytest.param({"writers": ()}, 3 * 86_400.0, "commits", 2, id="but for one that died between commit and report"),
        pytest.param({"forwarder": ()}, -9e9, "follower", 2, id="the producer writes another unit"),
        pytest.param({"forwarder": ()}, math.nan, "follower", 2, id="nobody knows since when"),
        pytest.param({"forwarder": ()}, 20.0, "follower", 0, id="it is just restarted"),
        pytest.param({"forwarder": ()}, -20.0, "follower", 0, id="likewise, and the producer's clock is ahead"),
        pytest.param({"forwarder": ()}, None, "follower", 0, id="what waits wasn't looked for"),
        pytest.param({"forwarder": ONE_MEMBER}, 3 * 86_400.0, "follower", 0, id="it runs"),
        pytest.param({"forwarder": "it may not be asked"}, 3 * 86_400.0, "follower", 0, id="it can't be told"),
        pytest.param({"writers": ()}, 3 * 86_400.0, "follower", 0, id="nobody waits for the one that is dead"),
        pytest.param({}, 3 * 86_400.0, "follower", 0, id="nobody asked"),
    ],
)
def test_a_group_without_members_is_a_doubt_where_messages_have_waited_for_long(
    members: Members, age: float | None, waits_for: str, exit_status: int
) -> None:
    """One call can't prove a stall of it: a check was green for ever, whatever it showed of the members."""
    looked = partition(50, 80) if waits_for == "follower" else partition(50, 50, report_age=60)
    if waits_for == "leader":
        looked = replace(looked, leaders=(LeaderSnapshot("writers", 50),))
    if waits_for == "commits":
        looked = replace(looked, leaders=(replace(looked.leaders[0], committed_offset=60),))
    status = Brokers([looked], ages={} if age is None else {0: age}).check.check_once()
    if age is not None and math.isnan(age):
        status = with_next_message(status, NextMessage(50))
    assert (status.grade, status.exit_status) == (WAITING, 0)
    doubted = with_stopped_groups(status, members, "forwarder", STALLED_AFTER)
    assert doubted.exit_status == exit_status
    (group,) = members or {"": ""}
    waiting = 30 if waits_for == "follower" else 50
    said = (
        f"up to {waiting} messages wait for group '{group}', which has no members: it is stopped, or no consumer group"
    )
    assert doubted.doubts == ((said,) if exit_status else ())


@pytest.mark.parametrize(
    ("names", "with_log", "says"),
    [
        ((), False, "has committed nothing of this topic: is its name right, and has it run?"),
        (["writers"], True, "has reported of this topic, but took that back, or (with --recent) hasn't lately"),
    ],
    ids=["without a commit log", "of which the end was read"],
)
def test_a_silent_group_is_told_in_the_words_of_where_it_was_looked_for(
    names: list[str], with_log: bool, says: str
) -> None:
    """It may report, and not lately; or need not at all."""
    brokers = Brokers([partition(100, None)], names=names)
    brokers.source = SourceStatistics(ready=True, alive=True) if with_log else None
    assert brokers.check.check_once().doubts == (f"group 'writers' {says}",)
