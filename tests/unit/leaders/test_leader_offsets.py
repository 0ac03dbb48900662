"""From what leader groups published to the remote offset, and what must be proven in between."""

from __future__ import annotations

import itertools
import random
import sys
import threading
import tracemalloc
from collections.abc import Iterator, Mapping, Sequence

import pytest

from arroyo_sync.core.state import MAX_OFFSET, PartitionKey, SynchronizedPartitionStateManager
from arroyo_sync.kafka.questions.asker import PartitionRange
from arroyo_sync.leaders.assigned_partitions import Question, Rejection, Truncation
from arroyo_sync.leaders.commit_report import FROM_BROKER, CommitReport
from arroyo_sync.leaders.leader_log import Rewind
from arroyo_sync.leaders.leader_offsets import LeaderOffsets
from arroyo_sync.leaders.offset_table import CHUNK
from arroyo_sync.leaders.verification import Reason, TopicId
from tests.support.assigned import read_without_end

KEY = ("events", 0)
OTHER = ("events", 1)
NOW = 7.0


class Fixture:
    """Leader offsets with a manager, in few words."""

    def __init__(self, *groups: str, is_open: bool = True) -> None:
        self.manager = SynchronizedPartitionStateManager()
        self.offsets = LeaderOffsets(groups or ("g",))
        self.offsets.attach(self.manager)
        self._positions: Iterator[int] = itertools.count()
        if is_open:
            self.offsets.enable()

    def publish(
        self,
        offset: int | None,
        group: str = "g",
        key: PartitionKey = KEY,
        log_partition: int = 0,
        timestamp_ms: int | None = None,
    ) -> list[Rewind]:
        position = next(self._positions)
        report = CommitReport(
            key, group, offset, position if timestamp_ms is None else timestamp_ms, log_partition, position
        )
        return self.offsets.apply([report], NOW)

    def remote(self, key: PartitionKey = KEY) -> int | None:
        return self.manager.cell(*key).remote

    def assign(self, *keys: PartitionKey, cached: int | None = None) -> None:
        """The follower reads the partitions. Of those without a report the brokers answer at once that they're empty,
        which says nothing of what is published later."""
        self.offsets.assign(dict.fromkeys(keys, cached))
        published = self.offsets.published()
        self.answer({key: PartitionRange(0, 0) for key in keys if key not in published})

    def answer(self, answers: Mapping[PartitionKey, PartitionRange], log_ends: Mapping[int, int] = {}) -> None:
        """The brokers are asked now, and answer at once."""
        self.offsets.apply_answers(answers, self.offsets.begin_question(answers), log_ends)

    def ask(self, end: int, key: PartitionKey = KEY) -> list[Rejection]:
        """The broker is asked now where the partition ends, and answers at once."""
        return self.answer_to(self.offsets.begin_question([key]), end, key)

    def answer_to(self, question: Question, end: int, key: PartitionKey = KEY) -> list[Rejection]:
        """The broker answers a question that was put before."""
        self.offsets.apply_answers({key: PartitionRange(0, end)}, question, {})
        return self.offsets.take_rejections()


def reading(*groups: str, is_open: bool = True) -> Fixture:
    """The follower reads both partitions, which are known to reach as far as any test goes."""
    fixture = Fixture(*groups, is_open=is_open)
    read_without_end(fixture.offsets, KEY, OTHER)
    return fixture


# The remote offset.


def test_the_slowest_leader_counts() -> None:
    """The remote offset is the minimum over all groups."""
    fixture = reading("a", "b", "c")
    for group, offset in (("a", 30), ("b", 10), ("c", 20)):
        fixture.publish(offset, group)
    assert fixture.remote() == 10
    fixture.publish(25, "b")
    assert fixture.remote() == 20


def test_a_group_that_published_nothing_keeps_the_remote_offset_unknown() -> None:
    """Unknown is neither zero nor infinity."""
    fixture = reading("a", "b")
    fixture.publish(30, "a")
    assert fixture.remote() is None
    fixture.publish(0, "b")
    assert fixture.remote() == 0


def test_a_tombstone_makes_the_group_unknown_until_it_publishes_again() -> None:
    """In the partition that it names, and nowhere else."""
    fixture = reading("a", "b")
    for key in (KEY, OTHER):
        fixture.publish(30, "a", key)
        fixture.publish(40, "b", key)
    fixture.publish(None, "a")
    assert (fixture.remote(), fixture.remote(OTHER)) == (None, 30)
    fixture.publish(31, "a")
    assert fixture.remote() == 31


def test_nothing_is_known_before_everything_was_replayed() -> None:
    """`open` writes what was applied before, `shut` takes it back."""
    fixture = reading(is_open=False)
    fixture.publish(30)
    assert fixture.remote() is None
    fixture.offsets.enable()
    assert fixture.remote() == 30
    fixture.offsets.disable()
    assert fixture.remote() is None
    fixture.publish(31)
    assert fixture.remote() is None
    fixture.offsets.enable()
    assert fixture.remote() == 31


def test_a_rewind_is_obeyed_and_told_once() -> None:
    """A lower offset counts at once. During a replay it is no news."""
    fixture = reading(is_open=False)
    assert fixture.publish(30) == fixture.publish(20) == []
    fixture.offsets.enable()
    assert fixture.publish(5) == [Rewind(KEY, "g", 20, 5)]
    assert fixture.remote() == 5
    assert fixture.publish(5) == [], "a heartbeat"
    assert fixture.publish(6) == []


def test_a_rewind_counts_at_once_though_it_is_not_verified() -> None:
    """Nothing is released past it while the topic's id, which its report carries, isn't known yet."""
    fixture = reading()
    fixture.publish(100)
    fixture.offsets.apply([CommitReport(KEY, "g", 50, 10**9, 0, 10**9, None, "one")], NOW)
    assert fixture.remote() == 50


def test_reports_that_are_no_longer_current_are_passed_over_each_by_itself() -> None:
    """What is read of a topic that nobody follows any more, say, between others."""
    fixture = reading()
    reports = [CommitReport(key, "g", 5, 0, 0, position) for position, key in enumerate((KEY, OTHER))]
    assert fixture.offsets.apply(reports, NOW, lambda report: report.key == OTHER) == []
    assert (fixture.remote(), fixture.remote(OTHER)) == (None, 5)


def test_a_committed_offset_fills_in_only_for_what_was_never_published() -> None:
    """And any record takes its place, be it lower, older or without a timestamp."""
    fixture = reading(is_open=False)
    fixture.publish(10)
    filled = fixture.offsets.seed_from_committed([(KEY, "g", 99), (OTHER, "g", 50)], NOW)
    fixture.offsets.enable()
    assert (filled, fixture.remote(), fixture.remote(OTHER)) == (1, 10, 50)
    fixture.publish(3, key=OTHER, timestamp_ms=-1, log_partition=5)
    assert fixture.remote(OTHER) == 3


def test_a_rewind_below_a_committed_offset_that_filled_in_is_told() -> None:
    """The group has gone back behind what it had committed before."""
    fixture = reading()
    fixture.offsets.seed_from_committed([(KEY, "g", 50)], NOW)
    assert fixture.publish(40) == [Rewind(KEY, "g", 50, 40)]


# One key in several commit-log partitions, as after an expansion.


def report(offset: int | None, timestamp_ms: int, log_partition: int, log_offset: int) -> CommitReport:
    return CommitReport(KEY, "g", offset, timestamp_ms, log_partition, log_offset)


REPORTS = {
    "an expansion": [
        report(10, 1, 0, 0),
        report(20, 2, 0, 1),
        report(30, 3, 1, 0),
        report(40, 4, 1, 1),
    ],
    "a rewind in the new partition": [
        report(10, 1, 0, 0),
        report(90, 2, 0, 1),
        report(95, 3, 1, 0),
        report(50, 4, 1, 1),
    ],
    "a rewind across the partitions": [report(90, 1, 0, 0), report(50, 2, 1, 0), report(40, 3, 2, 0)],
    "clocks that disagree within a partition": [
        report(10, 9, 0, 0),
        report(20, 3, 0, 1),
        report(30, 5, 1, 0),
    ],
    "the same timestamp": [report(70, 5, 0, 0), report(60, 5, 1, 0), report(65, 5, 2, 0)],
    "a tombstone at the same timestamp": [report(70, 5, 0, 0), report(None, 5, 1, 0)],
    "a tombstone that was superseded": [report(None, 5, 0, 0), report(70, 6, 1, 0)],
}
EXPECTED: dict[str, int | None] = {
    "an expansion": 40,
    "a rewind in the new partition": 50,
    "a rewind across the partitions": 40,
    "clocks that disagree within a partition": 30,
    "the same timestamp": 60,
    "a tombstone at the same timestamp": None,
    "a tombstone that was superseded": 70,
}


def interleavings(reports: Sequence[CommitReport]) -> Iterator[tuple[CommitReport, ...]]:
    """Every order of reading that keeps the order within each partition."""
    for order in itertools.permutations(reports):
        positions: dict[int, int] = {}
        for each in order:
            if each.log_offset < positions.get(each.log_partition, 0):
                break
            positions[each.log_partition] = each.log_offset
        else:
            yield order


@pytest.mark.parametrize("name", REPORTS)
def test_a_key_in_two_partitions_counts_the_same_in_every_order_of_reading(name: str) -> None:
    """The last record of each partition counts, of those the latest, on a tie the lowest."""
    for order in interleavings(REPORTS[name]):
        fixture = reading()
        for each in order:
            fixture.offsets.apply([each], NOW)
        assert fixture.remote() == EXPECTED[name], order


def test_what_a_forgotten_partition_said_no_longer_counts() -> None:
    """What the others said does, and is told to nobody as a rewind."""
    fixture = reading("g")
    fixture.publish(10, log_partition=0)
    fixture.publish(20, log_partition=1)
    fixture.publish(30, key=OTHER, log_partition=1)
    fixture.offsets.forget_log_partition(1)
    assert (fixture.remote(), fixture.remote(OTHER)) == (10, None)
    fixture.offsets.forget_log_partition(0)
    assert fixture.remote() is None


@pytest.mark.parametrize("log_partitions", [1, 2])
def test_within_a_log_partition_the_later_log_offset_counts_in_whatever_order_they_are_read(
    log_partitions: int,
) -> None:
    """Also the same record twice, and with another commit-log partition beside."""
    reports = [report(10, 5, 0, 0), report(1000, 9, 0, 1), report(500, 7, 0, 2)]
    for order in itertools.permutations([*reports, reports[0]]):
        fixture = reading()
        if log_partitions == 2:
            fixture.offsets.apply([report(3, 1, 1, 50)], NOW)
        fixture.offsets.apply(order, NOW)
        assert fixture.remote() == 500, order


# What the gate hears of.


def test_the_manager_has_the_remote_offsets_of_assigned_partitions_alone() -> None:
    """A report of any other makes no cell and wakes nobody, and counts once the partition is assigned."""
    fixture = Fixture()
    fixture.assign(KEY)
    version = fixture.manager.version
    fixture.publish(100, key=OTHER)
    assert (list(fixture.manager.partitions), fixture.manager.version) == ([KEY], version)
    fixture.assign(OTHER)
    fixture.ask(100, OTHER)
    assert fixture.manager.partitions[OTHER][1].remote == 100
    fixture.offsets.revoke([OTHER])
    assert OTHER not in fixture.manager.partitions
    version = fixture.manager.version
    fixture.publish(101, key=OTHER)
    assert fixture.manager.version == version


def test_a_snapshot_holds_what_is_published_of_assigned_partitions() -> None:
    """While none is assigned it holds everything: who looks from outside assigns nothing."""
    fixture = Fixture()
    fixture.publish(100)
    fixture.publish(200, key=OTHER)
    assert fixture.offsets.published().keys() == {KEY, OTHER}
    fixture.assign(KEY, ("events", 2))
    assert fixture.offsets.published().keys() == {KEY}


def test_other_topics_can_be_dropped() -> None:
    """Nothing is known of them afterwards."""
    fixture = Fixture()
    fixture.publish(100)
    fixture.publish(100, key=("other", 0))
    fixture.offsets.retain_topic("events")
    assert list(fixture.offsets.published()) == [KEY]


# Proof.


def test_a_partition_that_is_not_assigned_is_not_in_the_manager() -> None:
    """What was published of it is kept for when it is."""
    fixture = Fixture()
    fixture.publish(1_000_000)
    assert dict(fixture.manager.partitions) == {}
    assert (fixture.manager.version, fixture.offsets.unverified_partitions()) == (0, [])
    fixture.offsets.assign({KEY: None})
    assert fixture.ask(1_000_000) == []
    assert fixture.remote() == 1_000_000


def test_nothing_is_proven_when_a_partition_is_assigned() -> None:
    """When `assign` returns, the manager holds no remote offset of it; other partitions keep theirs."""
    fixture = reading()
    fixture.publish(100)
    fixture.publish(100, key=OTHER)
    fixture.assign(KEY)
    assert (fixture.remote(), fixture.remote(OTHER)) == (None, 100)
    assert dict(fixture.offsets.unverified) == {KEY: MAX_OFFSET}, "no message that is received can verify it"
    assert fixture.offsets.unverified_partitions() == [KEY]


def test_offset_zero_needs_no_proof() -> None:
    """It releases nothing, and an empty partition never proves anything."""
    fixture = Fixture()
    fixture.assign(KEY)
    fixture.publish(0)
    assert fixture.remote() == 0
    assert not fixture.offsets.unverified


def test_a_message_received_proves_every_offset_up_to_it() -> None:
    """And not one more."""
    fixture = Fixture()
    fixture.assign(KEY)
    fixture.publish(100)
    fixture.offsets.received(KEY, 99)
    assert (fixture.remote(), dict(fixture.offsets.unverified)) == (None, {KEY: 100})
    fixture.offsets.received(KEY, 100)
    assert (fixture.remote(), dict(fixture.offsets.unverified)) == (100, {})


def test_what_the_gate_received_before_needs_no_question() -> None:
    """A follower that tails has its messages before the leaders commit them."""
    fixture = Fixture()
    fixture.assign(KEY)
    fixture.manager.cell(*KEY).received = 100
    fixture.publish(100)
    assert fixture.remote() == 100
    assert not fixture.offsets.unverified


def test_what_was_received_before_the_assignment_proves_nothing() -> None:
    """It may have been another topic of the same name."""
    fixture = Fixture()
    fixture.manager.cell(*KEY).received = 100
    fixture.publish(100)
    fixture.assign(KEY)
    assert fixture.remote() is None


def test_the_last_proven_offset_stays_in_force_while_a_newer_one_is_in_doubt() -> None:
    """A follower that lags goes on with what it knows."""
    fixture = Fixture()
    fixture.assign(KEY)
    fixture.publish(100)
    fixture.ask(100)
    fixture.publish(200)
    assert (fixture.remote(), dict(fixture.offsets.unverified)) == (100, {KEY: 200})


def test_the_oldest_offset_in_doubt_comes_into_force_by_itself() -> None:
    """Else a follower that is a little behind would wait for the newest one for ever."""
    fixture = Fixture()
    fixture.assign(KEY)
    for offset in (200, 300, 400):
        fixture.publish(offset)
    fixture.offsets.received(KEY, 199)
    assert (fixture.remote(), dict(fixture.offsets.unverified)) == (None, {KEY: 200})
    fixture.offsets.received(KEY, 200)
    assert (fixture.remote(), dict(fixture.offsets.unverified)) == (200, {KEY: 400})


def test_a_rewind_below_what_is_proven_counts_at_once() -> None:
    """And one between what is proven and what is in doubt waits for proof itself."""
    fixture = Fixture()
    fixture.assign(KEY)
    fixture.publish(100)
    fixture.ask(100)
    fixture.publish(300)
    fixture.publish(200)
    assert (fixture.remote(), dict(fixture.offsets.unverified)) == (100, {KEY: 200})
    fixture.publish(50)
    assert (fixture.remote(), dict(fixture.offsets.unverified)) == (50, {})
    fixture.publish(80)
    assert fixture.remote() == 80, "the partition still reaches to 100"


def test_the_lowest_offset_in_doubt_over_all_groups_is_shown() -> None:
    """The gate looks at one number a partition."""
    fixture = Fixture("a", "b")
    fixture.assign(KEY)
    fixture.publish(300, "a")
    fixture.publish(200, "b")
    assert dict(fixture.offsets.unverified) == {KEY: 200}
    fixture.offsets.received(KEY, 200)
    assert (fixture.remote(), dict(fixture.offsets.unverified)) == (None, {KEY: 300})
    fixture.offsets.received(KEY, 300)
    assert (fixture.remote(), dict(fixture.offsets.unverified)) == (200, {})


def test_an_impossible_offset_makes_its_group_unknown_and_no_other() -> None:
    """It says which, and the gate is shut until the group publishes a possible one."""
    fixture = Fixture("a", "b")
    fixture.publish(1000, "a")
    fixture.publish(5, "b")
    fixture.assign(KEY)
    assert fixture.ask(10) == [Rejection(KEY, "a", 1000, Reason.BEYOND_END, 10)]
    assert (fixture.remote(), dict(fixture.offsets.unverified)) == (None, {})
    fixture.publish(7, "a")
    assert fixture.remote() == 5


def test_an_impossible_offset_never_counts_by_itself() -> None:
    """A topic that was created again may grow past it: neither growth nor another assignment makes it true."""
    fixture = Fixture()
    fixture.publish(1000)
    fixture.assign(KEY)
    fixture.ask(10)
    fixture.offsets.received(KEY, 2000)
    fixture.ask(2000)
    assert fixture.remote() is None
    fixture.offsets.revoke([KEY])
    assert fixture.remote() is None
    fixture.assign(KEY)
    fixture.ask(3000)
    assert fixture.remote() is None


def test_the_same_impossible_offset_published_again_is_judged_again() -> None:
    """A heartbeat repeats it: after an election that the end offset lagged behind, it is true this time."""
    fixture = Fixture()
    fixture.assign(KEY)
    fixture.publish(100)
    assert len(fixture.ask(95)) == 1
    fixture.publish(100)
    assert (fixture.remote(), dict(fixture.offsets.unverified)) == (None, {KEY: 100})
    assert fixture.ask(100) == []
    assert fixture.remote() == 100


def test_a_commit_that_is_merely_read_again_is_not_judged_again() -> None:
    """Else a topic that was created again would grow past it. Another commit is."""
    fixture = Fixture()
    fixture.assign(KEY)

    def commit(offset: int) -> None:
        fixture.offsets.apply([CommitReport(KEY, "g", offset, -1, FROM_BROKER, next(fixture._positions))], NOW)

    commit(100)
    assert len(fixture.ask(95)) == 1
    commit(100)
    assert (fixture.ask(200), fixture.remote()) == ([], None)
    commit(99)
    assert fixture.remote() == 99


def test_a_lower_answer_begins_trust_anew() -> None:
    """What lies beyond is rejected, and the rest is verified by the next answer; only then is anything in force."""
    fixture = Fixture("a", "b")
    fixture.assign(KEY)
    fixture.publish(50, "a")
    fixture.publish(100, "b")
    fixture.ask(100)
    assert fixture.remote() == 50
    question = fixture.offsets.begin_question([KEY])
    assert fixture.offsets.apply_answers({KEY: PartitionRange(0, 60)}, question, {}) == [Truncation(KEY, 100, 60, None)]
    assert fixture.offsets.take_rejections() == [Rejection(KEY, "b", 100, Reason.BEYOND_END, 60)]
    assert (fixture.remote(), fixture.offsets.unanswered()) == (None, [KEY])
    fixture.offsets.received(KEY, 120)
    fixture.ask(130)
    assert fixture.remote() is None, "the rejected one stays so, however far the partition has grown"
    fixture.publish(55, "b")
    assert fixture.remote() == 50


def test_what_was_received_since_the_question_is_known_after_a_lower_answer() -> None:
    """A busy partition must not flap. What was received before counts no more, nor does what the client had cached."""
    fixture = Fixture()
    fixture.assign(KEY, cached=7)
    cell = fixture.manager.cell(*KEY)
    cell.received = 100
    question = fixture.offsets.begin_question([KEY])
    cell.received = 105
    (truncation,) = fixture.offsets.apply_answers({KEY: PartitionRange(0, 60)}, question, {})
    assert truncation == Truncation(KEY, 100, 60, 105), "nobody knows which of it came before"
    assert fixture.offsets.begin_question([KEY]).known[KEY] == (105, 105, None)

    fixture = Fixture()
    fixture.assign(KEY, cached=7)
    cell = fixture.manager.cell(*KEY)
    cell.received = 100
    fixture.answer({KEY: PartitionRange(0, 60)})
    fixture.answer({KEY: PartitionRange(0, 60)})
    fixture.publish(100)
    fixture.offsets.cached({KEY: 100})
    assert (fixture.remote(), dict(fixture.offsets.unverified)) == (None, {KEY: 100})
    cell.received = 101
    fixture.offsets.received(KEY, 101)
    assert fixture.remote() == 100


def test_an_answer_that_is_lower_than_what_became_known_meanwhile_lowers_nothing() -> None:
    """It is merely older."""
    fixture = Fixture()
    fixture.assign(KEY)
    question = fixture.offsets.begin_question([KEY])
    fixture.offsets.received(KEY, 100)
    fixture.publish(100)
    assert fixture.offsets.apply_answers({KEY: PartitionRange(0, 60)}, question, None) == []
    assert fixture.remote() == 100


def test_reports_of_a_commit_log_that_was_created_anew_are_judged_by_answers_of_its_own() -> None:
    """Its offsets lie below those where the earlier log ended, so the earlier answer would take them for older ones."""
    fixture = Fixture("g")
    fixture.assign(KEY)
    fixture.answer({KEY: PartitionRange(0, 300)}, {0: 1000})
    fixture.offsets.forget_log_partition(0)
    fixture.offsets.ask_anew()
    fixture.publish(490)
    assert fixture.remote() is None, "not before the brokers were asked again"
    assert fixture.offsets.unanswered() == [KEY]
    fixture.answer({KEY: PartitionRange(0, 500, first_timestamp_ms=0)}, {0: 1})
    assert (fixture.remote(), fixture.offsets.take_rejections()) == (490, [])
    fixture.publish(600)
    assert fixture.remote() == 490, "and the partition is still known to reach to 500"


def test_a_topic_id_that_becomes_known_judges_what_waited_for_it() -> None:
    """In all partitions of that topic; each rejection is told once."""
    fixture = reading()
    for key in (KEY, OTHER):
        reports = [CommitReport(key, "g", 5, 0, 0, next(fixture._positions), None, "one")]
        fixture.offsets.apply(reports, NOW)
    assert (fixture.remote(), fixture.remote(OTHER)) == (None, None)
    fixture.offsets.set_topic_id("events", TopicId("one"))
    assert (fixture.remote(), fixture.remote(OTHER)) == (5, 5)
    fixture.offsets.apply([CommitReport(KEY, "g", 6, 0, 0, next(fixture._positions), None, "two")], NOW)
    (rejection,) = fixture.offsets.take_rejections()
    assert (rejection.offset, rejection.reason) == (6, Reason.EARLIER_TOPIC)
    assert (fixture.remote(), fixture.offsets.take_rejections()) == (None, [])


def test_an_answer_judges_only_what_was_published_before_the_question() -> None:
    """The partition may have grown since, and the leader with it."""
    fixture = Fixture()
    fixture.assign(KEY)
    question = fixture.offsets.begin_question([KEY])
    fixture.publish(100)
    assert fixture.answer_to(question, 90) == []
    assert dict(fixture.offsets.unverified) == {KEY: 100}
    assert fixture.ask(100) == []
    assert fixture.remote() == 100


def test_an_answer_refutes_the_older_of_two_and_leaves_the_younger_in_doubt() -> None:
    """The older one must not come into force when the topic grows."""
    fixture = Fixture()
    fixture.assign(KEY)
    fixture.publish(100)
    question = fixture.offsets.begin_question([KEY])
    fixture.publish(110)
    assert fixture.answer_to(question, 90) == []
    fixture.offsets.received(KEY, 105)
    assert (fixture.remote(), dict(fixture.offsets.unverified)) == (None, {KEY: 110})


def test_an_answer_proves_the_older_of_two() -> None:
    """It is in force, and the newer one is refuted or in doubt by its own age."""
    fixture = Fixture()
    fixture.assign(KEY)
    fixture.publish(100)
    question = fixture.offsets.begin_question([KEY])
    fixture.publish(110)
    fixture.answer_to(question, 105)
    assert (fixture.remote(), dict(fixture.offsets.unverified)) == (100, {KEY: 110})


def test_an_answer_to_a_question_from_before_the_assignment_is_ignored() -> None:
    """It may be about the topic that was there before."""
    fixture = Fixture()
    fixture.publish(100)
    question = fixture.offsets.begin_question([KEY])
    fixture.assign(KEY)
    assert fixture.answer_to(question, 100) == []
    assert fixture.remote() is None


def test_a_cached_end_counts_only_once_it_was_fetched_anew() -> None:
    """The client may still have the end of an earlier topic of the same name."""
    fixture = Fixture()
    fixture.assign(KEY, cached=1000)
    fixture.publish(900)
    fixture.offsets.cached({KEY: 1000})
    assert fixture.remote() is None, "the same value as at the assignment"
    fixture.offsets.cached({KEY: None, OTHER: 950})
    assert fixture.remote() is None
    fixture.offsets.cached({KEY: 950})
    assert fixture.remote() == 900, "another one was fetched since"


def test_revoking_ends_all_doubt() -> None:
    """Nothing is asked about a partition that the follower doesn't read."""
    fixture = Fixture()
    fixture.assign(KEY)
    fixture.publish(100)
    fixture.offsets.revoke([KEY])
    assert (fixture.remote(), dict(fixture.offsets.unverified)) == (None, {})
    assert dict(fixture.manager.partitions) == {}


def test_nothing_is_asked_about_before_the_replay_is_over() -> None:
    """What history passes over isn't worth a question."""
    fixture = Fixture(is_open=False)
    fixture.assign(KEY)
    fixture.publish(100)
    assert fixture.offsets.unverified_partitions() == []
    fixture.offsets.enable()
    assert fixture.offsets.unverified_partitions() == [KEY]


def test_an_assignment_before_the_start_counts_too() -> None:
    """The gate's first assignment and the source's start may come in either order."""
    offsets = LeaderOffsets(["g"])
    offsets.assign({KEY: None})
    offsets.apply([CommitReport(KEY, "g", 9, 0, 0, 0)], NOW)
    manager = SynchronizedPartitionStateManager()
    offsets.attach(manager)
    offsets.enable()
    offsets.apply_answers({KEY: PartitionRange(0, 0)}, offsets.begin_question([KEY]), {})
    manager.cell(*KEY).received = 10
    offsets.apply([CommitReport(KEY, "g", 10, 0, 0, 1)], NOW)
    assert manager.cell(*KEY).remote == 10


def test_the_gate_is_told_where_a_message_could_verify_an_offset() -> None:
    """After `unverified` says so, and under the manager's next version: so the gate sees what it has received by then,
    and sees what it receives later by itself."""
    fixture = Fixture()
    fixture.assign(KEY)
    fixture.manager.take_moved()
    version = fixture.manager.version
    seen: list[int | None] = []
    wake = fixture.manager.wake
    fixture.manager.wake = lambda keys=(): (seen.append(fixture.offsets.unverified.get(KEY)), wake(keys))  # type: ignore[assignment,func-returns-value]
    fixture.publish(100)
    assert seen[-1] == 100
    assert fixture.manager.version > version
    assert fixture.manager.take_moved() == {KEY}


def test_a_later_decision_is_never_overwritten_by_an_earlier_one() -> None:
    """While one thread publishes ever higher offsets, an assignment by another one always leaves the gate shut."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    fixture = Fixture()
    stop = threading.Event()

    def publish() -> None:
        for offset in itertools.count(1):
            if stop.is_set():
                return
            fixture.publish(offset)

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        for _ in range(300):
            fixture.assign(KEY)
            assert fixture.remote() is None
            fixture.offsets.revoke([KEY])
    finally:
        stop.set()
        thread.join(30)
        sys.setswitchinterval(interval)


# What it can tell, and what it costs.


def test_published_shows_what_every_group_said_last() -> None:
    """Trusted or not, with the broker's timestamp and when it was read."""
    fixture = Fixture("a", "b")
    fixture.publish(10, "a", timestamp_ms=1234)
    assert list(fixture.offsets.published()) == [KEY]
    assert list(fixture.offsets.published()[KEY]) == ["a"]
    assert fixture.offsets.published()[KEY]["a"][:3] == (10, 1234, NOW)


def test_published_shows_the_partitions_that_are_asked_about() -> None:
    """For a look that costs what it looks at: assigned or not."""
    fixture = Fixture()
    fixture.assign(KEY)
    fixture.publish(10)
    fixture.publish(20, key=OTHER)
    assert list(fixture.offsets.published()) == [KEY]
    assert list(fixture.offsets.published([OTHER, ("events", 9)])) == [OTHER]
    assert fixture.offsets.published([]) == {}


def test_rejected_names_the_assigned_partitions_with_what_published_shows_as_rejected() -> None:
    """Until the group publishes another offset, or the partition is revoked."""
    fixture = Fixture()
    fixture.assign(KEY, OTHER)
    fixture.publish(10)
    fixture.publish(5, key=OTHER)
    fixture.ask(5)
    fixture.ask(5, OTHER)
    assert fixture.offsets.rejected() == [KEY]
    assert [key for key, by_group in fixture.offsets.published().items() if by_group["g"].rejected] == [KEY]
    fixture.publish(4)
    assert fixture.offsets.rejected() == []
    fixture.publish(10)
    fixture.ask(5)
    assert fixture.offsets.rejected() == [KEY]
    fixture.offsets.revoke([KEY])
    assert fixture.offsets.rejected() == []


def test_silent_names_the_assigned_partitions_of_which_a_group_said_nothing() -> None:
    """A tombstone is as good as silence."""
    fixture = Fixture("a", "b")
    fixture.assign(KEY, OTHER)
    fixture.publish(10, "a")
    fixture.publish(None, "a", OTHER)
    assert (fixture.offsets.partitions_unknown("a"), fixture.offsets.partitions_unknown("b")) == ([OTHER], [KEY, OTHER])
    assert fixture.offsets.reported == {"a"}


def test_what_a_group_has_published_of_is_told_whether_it_is_read_or_not() -> None:
    """In order; a tombstone was published, too."""
    fixture = Fixture("a", "b", "c")
    fixture.assign(KEY)
    fixture.publish(5, "a", OTHER)
    fixture.publish(None, "a", KEY)
    fixture.publish(5, "b", OTHER)
    told = {group: fixture.offsets.partitions_reported(group) for group in "abc"}
    assert told == {"a": [KEY, OTHER], "b": [OTHER], "c": []}


def test_a_group_that_published_stays_known_as_one_but_not_for_another_topic() -> None:
    """Its name is right, whatever was forgotten since; what it said of another topic says nothing about this one."""
    fixture = Fixture("a", "b")
    fixture.publish(10, "a")
    fixture.publish(10, "b", ("another", 0))
    fixture.offsets.forget([KEY])
    assert fixture.offsets.reported == {"a", "b"}
    fixture.publish(10, "a")
    fixture.offsets.retain_topic(KEY[0])
    assert fixture.offsets.reported == {"a"}


def test_forgotten_partitions_are_unknown_and_no_longer_in_doubt() -> None:
    """For a source that knows only of assigned partitions."""
    fixture = Fixture()
    fixture.assign(KEY)
    fixture.publish(10)
    fixture.offsets.forget([KEY, OTHER])
    assert (fixture.remote(), dict(fixture.offsets.unverified), fixture.offsets.published()) == (None, {}, {})


def test_state_for_two_thousand_partitions_and_ten_groups_fits_in_10_mb() -> None:
    """All Python objects, the manager's among them, with numbers of the size that they have in the field."""
    groups = [f"leader-group-{index}" for index in range(10)]
    tracemalloc.start()
    try:
        manager = SynchronizedPartitionStateManager()
        offsets = LeaderOffsets(groups)
        offsets.attach(manager)
        offsets.enable()
        keys = [("events", partition) for partition in range(2_000)]
        read_without_end(offsets, *keys)
        for partition, key in enumerate(keys):
            position = 10**9 + partition * 10
            offsets.apply(
                [
                    CommitReport(
                        key,
                        group,
                        position + index,
                        position * 1000 + index,
                        index,
                        position - index,
                        position + 0.5,
                    )
                    for index, group in enumerate(groups)
                ],
                float(position),
            )
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(manager.partitions) == 2_000
    print(f"{size / 1e6:.1f} MB")
    assert size < 10_000_000


def test_an_offset_that_moves_touches_one_partition_however_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted in partitions written to the manager, so that no clock is needed."""
    fixture = Fixture()
    fixture.offsets.assign({("events", partition): None for partition in range(300)})
    for partition in range(300):
        fixture.publish(10, key=("events", partition))
    written: list[PartitionKey] = []
    write = fixture.manager.store_remote_offsets
    monkeypatch.setattr(
        fixture.manager,
        "store_remote_offsets",
        lambda offsets: write([(written.append(key), (key, offset))[1] for key, offset in offsets]),  # type: ignore[func-returns-value]
    )
    fixture.publish(11, key=("events", 5))
    assert written == [("events", 5)]


def test_no_lock_is_held_for_more_than_a_chunk_of_partitions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening, shutting, assigning and replaying many partitions let others in between."""
    fixture = Fixture(is_open=False)
    sizes: list[int] = []
    write = fixture.manager.store_remote_offsets

    def count(offsets: Iterator[tuple[PartitionKey, int | None]]) -> None:
        items = list(offsets)
        sizes.append(len(items))
        write(items)

    monkeypatch.setattr(fixture.manager, "store_remote_offsets", count)
    keys = [("events", partition) for partition in range(500)]
    fixture.offsets.assign(dict.fromkeys(keys))
    fixture.offsets.apply([CommitReport(key, "g", 10, 1, 0, 1) for key in keys], NOW)
    fixture.offsets.enable()
    fixture.offsets.disable()
    fixture.offsets.forget_log_partition(0)
    fixture.offsets.revoke(keys)
    assert sum(sizes) == 6 * 500
    assert max(sizes) == CHUNK <= 100, "at 5 us each"


def test_random_histories_never_put_more_in_force_than_was_proven_and_published() -> None:
    """Against a model that knows the truth: how far the partition reaches, and what each group said last."""
    source = random.Random(7)
    for _ in range(200):
        fixture = Fixture("a", "b")
        said: dict[str, int | None] = {"a": None, "b": None}
        end = 0
        fixture.assign(KEY)
        for _ in range(100):
            action = source.randrange(6)
            if action <= 2:
                group = source.choice("ab")
                said[group] = source.choice([None, source.randrange(end + 20), source.randrange(end + 1)])
                fixture.publish(said[group], group)
            elif action == 3:
                end += source.randrange(10)
                fixture.offsets.received(KEY, source.randrange(end + 1))
            elif action == 4:
                fixture.ask(end)
            else:
                fixture.assign(KEY)
                assert fixture.remote() in (None, 0)
            remote = fixture.remote()
            if remote is not None:
                assert all(offset is not None and remote <= offset for offset in said.values())
                assert remote <= end


def test_a_committed_offset_stands_in_for_no_commit_log_partition() -> None:
    """So no partition that is forgotten takes it away."""
    fixture = Fixture()
    fixture.offsets.seed_from_committed([(KEY, "g", 5)], NOW)
    fixture.offsets.forget_log_partition(0)
    assert fixture.offsets.published()[KEY]["g"].offset == 5
    assert FROM_BROKER < 0


def test_a_rewind_is_not_logged_by_the_manager_as_well(caplog: pytest.LogCaptureFixture) -> None:
    """Who publishes lower offsets all the time would fill the log, though the source says so once a minute."""
    caplog.set_level("DEBUG")
    fixture = Fixture()
    fixture.assign(KEY)
    fixture.offsets.received(KEY, 100)
    for offset in (10, 5, 10, 5):
        fixture.publish(offset)
    assert fixture.remote() == 5
    assert caplog.messages == []
