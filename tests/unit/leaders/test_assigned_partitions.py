"""What is known of the partitions that are read, and what is forgotten when they aren't read any more."""

from __future__ import annotations

import pytest

from arroyo_sync.core.state import SynchronizedPartitionStateManager
from arroyo_sync.kafka.questions.asker import PartitionRange
from arroyo_sync.leaders import offset_table
from arroyo_sync.leaders.assigned_partitions import AssignedPartitions, Rejection, Truncation
from arroyo_sync.leaders.commit_report import CommitReport
from arroyo_sync.leaders.leader_offsets import READ_WAIT_SECONDS, LeaderOffsets
from arroyo_sync.leaders.offset_table import OffsetTable
from arroyo_sync.leaders.verification import KnownEnd, Reason, TopicId
from tests.unit.leaders.test_leader_offsets import KEY, NOW, OTHER, Fixture, reading

THIRD = ("another", 0)


def suspect(*groups: str) -> Fixture:
    """A report from before the first answer, by which nothing tells that it is of this topic."""
    fixture = Fixture(*groups)
    fixture.offsets.assign({KEY: None, OTHER: None})
    for group in groups or ("g",):
        fixture.publish(100, group)
    fixture.answer({KEY: PartitionRange(0, 900), OTHER: PartitionRange(0, 900)}, {0: 1000})
    return fixture


def test_a_topic_counts_as_read_while_one_of_its_partitions_is() -> None:
    """Assigned twice it is there once; what wasn't assigned can't be taken away."""
    fixture = Fixture()
    fixture.assign(KEY, OTHER, THIRD)
    fixture.assign(KEY)
    assert fixture.offsets.topics() == {"events", "another"}
    fixture.offsets.revoke([KEY, ("events", 7)])
    fixture.offsets.revoke([KEY])
    assert fixture.offsets.topics() == {"events", "another"}
    fixture.offsets.revoke([OTHER])
    assert fixture.offsets.topics() == {"another"}


def test_nothing_is_asked_about_a_revoked_partition() -> None:
    """Whatever was still open about it."""
    fixture = suspect()
    assert fixture.offsets.suspects() == {"g": {KEY: 100}}
    fixture.offsets.ask_anew()
    assert sorted(fixture.offsets.unanswered()) == [KEY, OTHER]
    fixture.offsets.revoke([KEY])
    assert (fixture.offsets.unanswered(), fixture.offsets.suspects()) == ([OTHER], {})


def test_a_suspicion_ends_with_the_assignment() -> None:
    """Nobody is shown a report as rejected of which nothing is known any more."""
    fixture = suspect()
    assert fixture.offsets.rejected() == [KEY]
    fixture.offsets.mark_long_suspect("g", [KEY, OTHER])
    assert fixture.offsets.published([KEY])[KEY]["g"].rejected
    fixture.offsets.revoke([KEY])
    assert fixture.offsets.rejected() == []
    assert not fixture.offsets.published([KEY])[KEY]["g"].rejected
    fixture.offsets.assign({KEY: None})
    fixture.answer({KEY: PartitionRange(0, 900)}, {0: 1000})
    assert fixture.offsets.suspects() == {"g": {KEY: 100}}
    assert not fixture.offsets.published([KEY])[KEY]["g"].rejected, "a new suspicion has a while of its own"


def test_only_the_long_suspect_groups_reports_are_shown_as_rejected() -> None:
    """A suspicion alone isn't shown: mostly a commit lifts it at once."""
    fixture = suspect("a", "b")
    assert fixture.offsets.suspects() == {"a": {KEY: 100}, "b": {KEY: 100}}
    fixture.offsets.mark_long_suspect("b", [KEY])
    said = fixture.offsets.published([KEY])[KEY]
    assert (said["a"].rejected, said["b"].rejected) == (False, True)
    assert said["b"].rejected_because == "from before its first message, by that one's timestamp"


def test_a_groups_own_commit_lifts_its_suspicion_and_no_other() -> None:
    """Where it reaches as far, and was asked for since trust began."""
    fixture = suspect("a", "b")
    question = fixture.offsets.begin_question([KEY])
    fixture.offsets.apply_committed("a", {KEY: 99, OTHER: 99}, question)
    assert fixture.offsets.suspects().keys() == {"a", "b"}
    fixture.offsets.apply_committed("a", {KEY: 100}, question)
    assert fixture.offsets.suspects().keys() == {"b"}
    fixture.offsets.apply_committed("b", {KEY: 100}, question)
    assert (fixture.offsets.suspects(), fixture.remote()) == ({}, 100)
    assert fixture.offsets.rejected() == []


def test_a_commit_lifts_a_suspicion_of_what_was_published_before_the_assignment() -> None:
    """Asked for as soon as the partition is assigned; also where the topic has no id, and the report carries one."""
    for topic_id in (None, "one"):
        fixture = Fixture()
        fixture.offsets.apply([CommitReport(KEY, "g", 100, 0, 0, 0, None, topic_id)], NOW)
        fixture.offsets.assign({KEY: None})
        fixture.offsets.set_topic_id("events", TopicId(None))
        question = fixture.offsets.begin_question([KEY])
        fixture.answer({KEY: PartitionRange(0, 900)}, {0: 1000})
        assert fixture.remote() is None
        fixture.offsets.apply_committed("g", {KEY: 100}, question)
        assert fixture.remote() == 100


def test_a_commit_that_was_asked_for_before_trust_began_lifts_nothing() -> None:
    """It may have been of the topic that was there before."""
    fixture = suspect()
    question = fixture.offsets.begin_question([KEY])
    fixture.offsets.assign({KEY: None})
    fixture.answer({KEY: PartitionRange(0, 900)}, {0: 1000})
    fixture.offsets.apply_committed("g", {KEY: 100}, question)
    assert (fixture.offsets.suspects(), fixture.remote()) == ({"g": {KEY: 100}}, None)


def test_nothing_is_asked_for_before_the_replay_is_over() -> None:
    """What history passes over isn't worth a question, nor a warning; but it is whether partitions are truncated."""
    fixture = suspect()
    fixture.offsets.revoke([OTHER])
    fixture.offsets.assign({OTHER: None})

    def asked() -> list[object]:
        offsets = fixture.offsets
        return [offsets.assigned(), offsets.unanswered(), offsets.suspects(), offsets.partitions_without_report("g")]

    assert asked() == [[KEY, OTHER], [OTHER], {"g": {KEY: 100}}, [OTHER]]
    fixture.offsets.disable()
    assert asked() == [[KEY, OTHER], [], {}, []]


def test_a_topic_id_that_is_known_judges_nothing_anew() -> None:
    """It is told once a second, and there may be ten thousand partitions."""
    assigned = AssignedPartitions(OffsetTable(["g"]))
    for key in (KEY, OTHER, THIRD):
        assigned.begin_trust(key, KnownEnd())
    assert assigned.set_topic_id("events", TopicId("one")) == [KEY, OTHER]
    assert assigned.set_topic_id("events", TopicId("one")) == []
    assert assigned.set_topic_id("events", TopicId("two")) == [KEY, OTHER]
    assert assigned.set_topic_id("another", TopicId("two")) == [THIRD]
    assert assigned.set_topic_id("events", None) == [KEY, OTHER]
    assert assigned.set_topic_id("events", None) == []


def test_a_committed_offset_that_fills_in_counts_at_once() -> None:
    """In each partition that it fills; shown with no timestamp, and when it was read."""
    fixture = reading()
    assert fixture.offsets.seed_from_committed([(KEY, "g", 50), (OTHER, "g", 60)], NOW) == 2
    assert (fixture.remote(), fixture.remote(OTHER)) == (50, 60)
    assert fixture.offsets.published([KEY])[KEY]["g"][:3] == (50, -1, NOW)


def test_a_question_about_many_partitions_is_answered_about_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though they are gone through in parts."""
    monkeypatch.setattr(offset_table, "CHUNK", 1)
    fixture = suspect("a", "b")
    fixture.publish(100, "a", OTHER)
    assert fixture.offsets.partitions_unknown("b") == [OTHER]
    fixture.offsets.forget([KEY, OTHER])
    assert fixture.offsets.partitions_unknown("b") == [KEY, OTHER]
    fixture.offsets.revoke([KEY, OTHER])
    assert fixture.offsets.topics() == set()


# What a cached end, and what was received, is worth.


def test_what_the_client_had_cached_before_shows_not_even_one_message() -> None:
    """It may be the end of an earlier topic."""
    fixture = Fixture()
    fixture.assign(KEY, cached=1000)
    fixture.publish(1)
    fixture.offsets.cached({KEY: 1000})
    assert fixture.remote() is None


def test_each_cached_end_counts_by_itself() -> None:
    """Whether others are known, or of partitions that are read."""
    fixture = Fixture()
    fixture.assign(KEY, cached=7)
    fixture.publish(900)
    fixture.offsets.cached({OTHER: 5, ("events", 2): None, KEY: 950})
    assert fixture.remote() == 900


def test_what_is_received_after_a_truncation_counts_without_a_question() -> None:
    """The follower reads on in the log that is there."""
    fixture = Fixture()
    fixture.assign(KEY)
    cell = fixture.manager.cell(*KEY)
    cell.received = 100
    fixture.answer({KEY: PartitionRange(0, 60)})
    fixture.answer({KEY: PartitionRange(0, 60)})
    cell.received = 130
    fixture.publish(110)
    assert fixture.remote() == 110


def test_a_report_at_the_end_of_a_truncated_partition_is_possible() -> None:
    """It is verified by the next answer; what lies one beyond is rejected."""
    fixture = Fixture("a", "b")
    fixture.assign(KEY)
    fixture.publish(60, "a")
    fixture.publish(61, "b")
    fixture.ask(100)
    assert fixture.ask(60) == [Rejection(KEY, "b", 61, Reason.BEYOND_END, 60)]
    fixture.ask(60)
    fixture.publish(60, "b")
    assert fixture.remote() == 60


def read_again() -> Fixture:
    """The partition is known to reach to 300, and the brokers are to be asked anew: the commit log is another one."""
    fixture = Fixture()
    fixture.assign(KEY, cached=1000)
    fixture.answer({KEY: PartitionRange(0, 300)})
    fixture.offsets.ask_anew()
    return fixture


def test_a_partition_that_is_asked_about_anew_is_still_known_to_reach_as_far() -> None:
    """So a log that was truncated meanwhile is found."""
    fixture = read_again()
    question = fixture.offsets.begin_question([KEY])
    answers = {KEY: PartitionRange(0, 200)}
    assert fixture.offsets.apply_answers(answers, question, {}) == [Truncation(KEY, 300, 200, None)]


@pytest.mark.parametrize(
    ("position", "received", "read_to"),
    [(10, 11, 11), (10, 200, 200), (10, 250, 250), (5, 8, 8), (11, None, 11), (10, None, None), (5, None, None)],
)
def test_what_was_read_of_a_truncated_partition_may_be_gone(
    position: int, received: int | None, read_to: int | None
) -> None:
    """Also far below where it ends: it was cut somewhere below, and has grown since. It begins at 10."""
    fixture = read_again()
    fixture.manager.set_local_offset(*KEY, position)
    fixture.manager.cell(*KEY).received = received
    question = fixture.offsets.begin_question([KEY])
    answers = {KEY: PartitionRange(10, 200)}
    assert fixture.offsets.apply_answers(answers, question, {}) == [Truncation(KEY, 300, 200, read_to)]


def test_what_was_received_is_remembered_when_the_brokers_are_asked_anew() -> None:
    """So is that it is truncated by an answer that lies between."""
    fixture = read_again()
    fixture.manager.cell(*KEY).received = 700
    fixture.offsets.ask_anew()
    question = fixture.offsets.begin_question([KEY])
    answers = {KEY: PartitionRange(0, 650)}
    assert fixture.offsets.apply_answers(answers, question, {}) == [Truncation(KEY, 700, 650, 700)]


@pytest.mark.parametrize("is_revoked", [True, False])
def test_that_a_partition_was_truncated_is_seen_in_its_next_assignment(is_revoked: bool) -> None:
    """The first member of a group that notices ends, and the others' partitions are assigned anew."""
    fixture = Fixture()
    fixture.offsets.assign({KEY: None})
    fixture.answer({KEY: PartitionRange(0, 300)})
    fixture.manager.cell(*KEY).received = 310
    if is_revoked:
        fixture.offsets.revoke([KEY])
    fixture.offsets.assign({KEY: None})
    fixture.manager.set_local_offset(*KEY, 250)
    question = fixture.offsets.begin_question([KEY])
    answers = {KEY: PartitionRange(0, 305)}
    assert fixture.offsets.apply_answers(answers, question, {}) == [Truncation(KEY, 310, 305, 250)]
    question = fixture.offsets.begin_question([KEY])
    assert fixture.offsets.apply_answers(answers, question, {}) == [], "it is told once"


def test_a_question_before_there_is_a_gate_knows_where_the_assignment_begins() -> None:
    """The user's factory comes in between, and may take seconds."""
    fixture = Fixture()
    fixture.offsets.assign({KEY: None})
    fixture.answer({KEY: PartitionRange(0, 300)})
    fixture.offsets.revoke([KEY])
    fixture.offsets.assign({KEY: None}, {KEY: 250})
    assert fixture.offsets.begin_question([KEY]).known[KEY] == (300, None, 250)
    fixture.offsets.ask_anew()
    assert fixture.offsets.begin_question([KEY]).known[KEY] == (300, None, 250)
    question = fixture.offsets.begin_question([KEY])
    answers = {KEY: PartitionRange(0, 295)}
    assert fixture.offsets.apply_answers(answers, question, {}) == [Truncation(KEY, 300, 295, 250)]
    assert fixture.offsets.begin_question([KEY]).known[KEY] == (295, None, 250)


def test_how_far_a_topic_reached_is_forgotten_with_its_id() -> None:
    """Nothing of it was assigned for long: by now it may be another topic of its name."""
    fixture = Fixture()
    fixture.offsets.assign({KEY: None})
    fixture.answer({KEY: PartitionRange(0, 300)})
    fixture.offsets.assign({KEY: None})
    fixture.offsets.set_topic_id("events", None)
    assert fixture.offsets.begin_question([KEY]).known[KEY].end == 300, "while it is assigned, the id may be doubted"
    fixture.offsets.revoke([KEY])
    fixture.offsets.set_topic_id("others", None)
    fixture.offsets.assign({KEY: None})
    assert fixture.offsets.begin_question([KEY]).known[KEY].end == 300
    fixture.offsets.revoke([KEY])
    fixture.offsets.set_topic_id("events", None)
    fixture.offsets.assign({KEY: None})
    assert fixture.offsets.begin_question([KEY]).known[KEY].end == 0


def test_how_far_a_topic_reached_is_forgotten_if_it_has_another_id_once_nothing_of_it_is_assigned() -> None:
    fixture = Fixture()
    fixture.offsets.set_topic_id("events", TopicId("one"))
    fixture.offsets.assign({KEY: None})
    fixture.answer({KEY: PartitionRange(0, 300)})
    fixture.offsets.revoke([KEY])
    for topic_id, end in (("one", 300), ("two", 0)):
        fixture.offsets.set_topic_id("events", TopicId(topic_id))
        fixture.offsets.assign({KEY: None})
        assert fixture.offsets.begin_question([KEY]).known[KEY].end == end
        fixture.offsets.revoke([KEY])


def test_what_is_received_of_a_partition_that_is_asked_about_anew_counts_without_a_question() -> None:
    """As before."""
    fixture = read_again()
    fixture.answer({KEY: PartitionRange(0, 300)})
    fixture.manager.cell(*KEY).received = 700
    fixture.publish(600)
    assert fixture.remote() == 600


def test_what_was_cached_when_trust_began_proves_nothing_when_the_brokers_are_asked_anew() -> None:
    """It is no younger for that."""
    fixture = read_again()
    fixture.answer({KEY: PartitionRange(0, 300)})
    fixture.publish(900)
    fixture.offsets.cached({KEY: 1000})
    assert fixture.remote() is None
    fixture.offsets.cached({KEY: 950})
    assert fixture.remote() == 900


def test_what_is_cached_of_a_truncated_partition_proves_nothing_when_the_brokers_are_asked_anew() -> None:
    """The client may not have noticed the truncation yet."""
    fixture = Fixture()
    fixture.assign(KEY, cached=7)
    fixture.answer({KEY: PartitionRange(0, 300)})
    fixture.answer({KEY: PartitionRange(0, 200)})
    fixture.offsets.ask_anew()
    fixture.answer({KEY: PartitionRange(0, 200)})
    fixture.publish(250)
    fixture.offsets.cached({KEY: 300})
    assert fixture.remote() is None


def test_what_is_received_concerns_what_waits_for_it_alone() -> None:
    """It is asked for each message that could verify an offset: where none waits, nothing is looked at again."""
    assigned = AssignedPartitions(OffsetTable(["g"]))
    assigned.begin_trust(KEY, KnownEnd(end=50))
    assert not assigned.reach(OTHER, 100), "it isn't assigned"
    assert not assigned.reach(KEY, 40), "it is known to reach further"
    assert not assigned.reach(KEY, 60), "nothing is published"
    assert assigned.known_ends[KEY].end == 60


# What the gate is shown.


@pytest.mark.parametrize("offset", [None, 1000], ids=["tombstone", "impossible"])
def test_what_waits_for_proof_is_shown_whatever_other_groups_have_published(offset: int | None) -> None:
    """Nothing, something that can't be, or something that waits, too: the lowest of what waits counts."""
    fixture = Fixture("a", "b", "c")
    fixture.assign(KEY)
    fixture.publish(200, "b")
    fixture.publish(300, "c")
    assert dict(fixture.offsets.unverified) == {KEY: 200}
    fixture.publish(offset, "a")
    fixture.ask(100)
    fixture.publish(200, "b")
    assert dict(fixture.offsets.unverified) == {KEY: 200}
    assert fixture.offsets.rejected() == [KEY], "c, at least"


def test_what_merely_waits_for_proof_is_shown_to_nobody_as_rejected() -> None:
    """A follower that is a little behind sees many of those."""
    fixture = Fixture()
    fixture.assign(KEY)
    fixture.publish(200)
    assert fixture.offsets.rejected() == []


def test_the_gate_is_woken_only_where_another_message_could_verify_something() -> None:
    """Each time it looks at what it has received."""
    fixture = Fixture()
    fixture.assign(KEY)
    woken: list[object] = []
    fixture.manager.wake = lambda keys=(): woken.append(list(keys))  # type: ignore[assignment]
    for offset in (300, 400, 200):
        fixture.publish(offset)
    assert woken == [[KEY], [KEY]], "400 isn't looked for before 300 was met"
    fixture.publish(None)
    assert woken == [[KEY], [KEY]], "nothing is looked for any more"


def test_a_report_of_another_topic_is_rejected_as_soon_as_its_partition_is_assigned() -> None:
    """Where the topic's id is known, no other answer is needed for that."""
    fixture = Fixture()
    fixture.offsets.assign({OTHER: None})
    fixture.offsets.set_topic_id("events", TopicId("one"))
    fixture.offsets.apply([CommitReport(KEY, "g", 5, 0, 0, 0, None, "two")], NOW)
    assert fixture.offsets.rejected() == []
    fixture.offsets.assign({KEY: None})
    assert fixture.offsets.rejected() == [KEY]


# Answers that don't count.


def test_an_answer_to_a_question_from_before_another_assignment_is_ignored() -> None:
    """However often the partition was assigned before, and whatever was published meanwhile."""
    fixture = Fixture()
    for _ in range(3):
        fixture.assign(KEY)
        fixture.publish(100)
    question = fixture.offsets.begin_question([KEY])
    fixture.offsets.assign({KEY: None})
    assert fixture.answer_to(question, 100) == []
    assert (fixture.remote(), fixture.offsets.unanswered()) == (None, [KEY])


def test_an_answer_about_what_was_not_asked_or_is_not_read_any_more_is_ignored() -> None:
    """Nothing is known of what was known when it was asked."""
    fixture = Fixture()
    fixture.offsets.assign({KEY: None, OTHER: None})
    fixture.publish(100)
    assert fixture.answer_to(fixture.offsets.begin_question([OTHER]), 100) == []
    assert fixture.remote() is None
    question = fixture.offsets.begin_question([KEY])
    fixture.offsets.revoke([KEY])
    assert fixture.answer_to(question, 100) == []
    assert dict(fixture.manager.partitions).keys() == {OTHER}


def test_an_answer_verifies_reports_that_carry_the_topics_id() -> None:
    """It may come after the id, and before the next report."""
    fixture = Fixture()
    fixture.offsets.assign({KEY: None})
    fixture.offsets.set_topic_id("events", TopicId("one"))
    fixture.offsets.apply([CommitReport(KEY, "g", 5, 0, 0, 0, None, "one")], NOW)
    assert fixture.ask(10) == []
    assert fixture.remote() == 5


class Lock:
    """Notes what is done with it."""

    def __init__(self, *, is_held: bool) -> None:
        self.is_held = is_held
        self.calls: list[object] = []

    def acquire(self, timeout: float) -> bool:
        self.calls.append(timeout)
        return not self.is_held

    def release(self) -> None:
        self.calls.append("release")


@pytest.mark.parametrize("is_held", [False, True], ids=["free", "held"])
def test_a_look_takes_the_lock_part_by_part_and_waits_for_it_once(
    is_held: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be a signal handler's, which interrupted whoever holds the lock: then it goes without."""
    monkeypatch.setattr(offset_table, "CHUNK", 1)
    fixture = Fixture()
    fixture.publish(1)
    fixture.publish(2, key=OTHER)
    lock = Lock(is_held=is_held)
    monkeypatch.setattr(fixture.offsets, "_lock", lock)
    assert {key: said["g"].offset for key, said in fixture.offsets.published().items()} == {KEY: 1, OTHER: 2}
    assert lock.calls == ([READ_WAIT_SECONDS] if is_held else [READ_WAIT_SECONDS, "release"] * 2)


def test_rejections_are_told_once_the_replay_is_over() -> None:
    """Of every partition, each once. What history holds was mostly made good by what follows."""
    fixture = Fixture(is_open=False)
    fixture.assign(KEY, OTHER)
    fixture.publish(1000)
    fixture.publish(2000, key=OTHER)
    fixture.answer({KEY: PartitionRange(0, 10), OTHER: PartitionRange(0, 20)})
    assert fixture.offsets.take_rejections() == []
    fixture.offsets.enable()
    assert sorted(fixture.offsets.take_rejections()) == [
        Rejection(KEY, "g", 1000, Reason.BEYOND_END, 10),
        Rejection(OTHER, "g", 2000, Reason.BEYOND_END, 20),
    ]
    assert fixture.offsets.take_rejections() == []


def test_a_change_of_state_is_told_when_no_lock_is_held() -> None:
    """So whoever is told may ask for what is published."""
    told: list[tuple[object, ...]] = []
    offsets = LeaderOffsets(["g"])
    offsets.attach(
        SynchronizedPartitionStateManager(lambda *change: told.append((*change[:2], offsets._lock.locked())))
    )
    offsets.enable()
    offsets.assign({KEY: None})
    offsets.apply([CommitReport(KEY, "g", 0, 0, 0, 0)], NOW)
    offsets.apply_answers({KEY: PartitionRange(0, 0)}, offsets.begin_question([KEY]), {})
    assert told == [(*KEY, False)]


def test_what_is_forgotten_of_partitions_that_are_read_counts_no_more_whatever_others_there_are() -> None:
    """Those that aren't read are passed over, each by itself."""
    fixture = Fixture()
    fixture.publish(5, key=OTHER)
    fixture.assign(KEY)
    fixture.publish(0)
    assert fixture.remote() == 0
    fixture.offsets.forget_log_partition(0)
    assert (fixture.remote(), fixture.offsets.published([KEY, OTHER])) == (None, {KEY: {}, OTHER: {}})


def test_the_leader_groups_are_named_in_order() -> None:
    """Each once, however they were given."""
    assert LeaderOffsets(["b", "a", "b"]).groups == ("a", "b")
