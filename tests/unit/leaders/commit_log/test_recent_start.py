"""Which commits a recent start takes, and when it gives up on them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from typing import cast

import pytest
from confluent_kafka import KafkaError, KafkaException

from arroyo_sync.core.state import PartitionKey, SynchronizedPartitionStateManager
from arroyo_sync.kafka.errors import FRESH_SECONDS, PARDON_SECONDS, ClientErrors
from arroyo_sync.kafka.questions.asker import Asker
from arroyo_sync.kafka.questions.committed_offsets import Commits
from arroyo_sync.leaders.commit_log.recent_start import RETRY_SECONDS, TIMEOUT_SECONDS, RecentStart
from arroyo_sync.leaders.commit_report import CommitReport
from arroyo_sync.leaders.leader_offsets import LeaderOffsets
from tests.support.assigned import read_without_end
from tests.support.fakes import Clock

FIRST, SECOND = ("events", 0), ("events", 1)


class Fixture:
    def __init__(self) -> None:
        self.manager = SynchronizedPartitionStateManager()
        self.offsets = LeaderOffsets(["a", "b"])
        self.offsets.attach(self.manager)
        self.commits: dict[str, dict[PartitionKey, int | KafkaError] | KafkaError | None] = {}
        """Per group what it has committed, why none of it can be told, or ``None``: it doesn't answer yet."""
        self.questions: list[tuple[str, list[PartitionKey]]] = []
        self.waiting: dict[str, Callable[[], None]] = {}
        self.read_all = self.woken = 0
        self.clock = Clock()
        self.recent = RecentStart(
            "log",
            self.offsets,
            cast(Asker, self),
            ClientErrors(self.clock),
            "data:9092",
            self.begin_again,
            self.wake,
            self.clock,
        )

    def begin_again(self) -> None:
        self.read_all += 1

    def wake(self) -> None:
        self.woken += 1

    def ask_committed(
        self, group: str, partitions: Collection[PartitionKey], timeout: float, on_answer: Callable[[Commits], None]
    ) -> None:
        assert timeout == TIMEOUT_SECONDS
        self.questions.append((group, list(partitions)))

        def answer() -> None:
            commits = self.commits[group]
            assert commits is not None
            if isinstance(commits, KafkaError):
                on_answer(dict.fromkeys(partitions, commits))
            else:
                on_answer({key: commits.get(key) for key in partitions})

        if self.commits[group] is None:
            self.waiting[group] = answer
        else:
            answer()

    def publish(self, offset: int | None, key: PartitionKey, group: str) -> None:
        self.offsets.apply([CommitReport(key, group, offset, 0, 0, 0)], 0.0)

    def remote(self, key: PartitionKey) -> int | None:
        return self.manager.cell(*key).remote


@pytest.fixture
def fixture() -> Fixture:
    return Fixture()


def test_only_groups_that_said_nothing_of_an_assigned_partition_are_asked(fixture: Fixture) -> None:
    """Once the end of the log was read; and a tombstone is something said."""
    fixture.commits = {"a": {FIRST: 10, SECOND: 10}, "b": {FIRST: 20, SECOND: 20}}
    fixture.publish(5, FIRST, "a")
    fixture.publish(None, SECOND, "a")
    fixture.publish(5, ("events", 7), "b")
    read_without_end(fixture.offsets, FIRST, SECOND)
    assert fixture.recent.step() == float("inf")
    assert fixture.questions == [], "the replay isn't over"
    fixture.offsets.enable()
    assert fixture.recent.step() == float("inf")
    assert fixture.questions == [("b", [FIRST, SECOND])]
    assert (fixture.remote(FIRST), fixture.remote(SECOND)) == (5, None)


def test_each_partition_is_asked_about_once(fixture: Fixture) -> None:
    """A group without a commit there will publish what it commits."""
    fixture.commits = {"a": {FIRST: 10}, "b": {FIRST: 10}}
    fixture.offsets.enable()
    read_without_end(fixture.offsets, FIRST, SECOND)
    for _ in range(3):
        fixture.recent.step()
    assert fixture.questions == [("a", [FIRST, SECOND]), ("b", [FIRST, SECOND])]
    third = ("events", 2)
    fixture.commits["a"] = {third: 5}
    fixture.commits["b"] = {third: 5}
    read_without_end(fixture.offsets, third)
    fixture.recent.step()
    assert fixture.questions[2:] == [("a", [third]), ("b", [third])]
    assert fixture.read_all == 0


def test_a_group_without_any_commit_has_all_read_instead(fixture: Fixture, caplog: pytest.LogCaptureFixture) -> None:
    """Once, and nothing is asked any more."""
    fixture.commits = {"a": {}, "b": {FIRST: 10}}
    fixture.offsets.enable()
    read_without_end(fixture.offsets, FIRST)
    for _ in range(2):
        assert fixture.recent.step() == float("inf")
    assert (fixture.read_all, fixture.questions) == (1, [("a", [FIRST]), ("b", [FIRST])])
    assert caplog.messages == [
        "Commit log log is read from its beginning, since group 'a' has committed nothing at data:9092 of the "
        "partitions that are assigned, or that it has reported of",
    ]


@pytest.mark.parametrize(
    ("committed", "read_all"),
    [
        pytest.param({SECOND: 5}, 0, id="it commits here: it will publish what it commits of these"),
        pytest.param({}, 1, id="it doesn't, or that has expired: an older report may tell"),
    ],
)
def test_a_group_without_a_commit_of_these_is_asked_about_those_that_it_reports_of(
    fixture: Fixture, committed: dict[PartitionKey, int | KafkaError], read_all: int
) -> None:
    """As where a partition that was just added is all that this follower has."""
    fixture.commits = {"a": committed, "b": {FIRST: 9}}
    fixture.publish(5, SECOND, "a")
    fixture.offsets.enable()
    read_without_end(fixture.offsets, FIRST)
    for _ in range(2):
        assert fixture.recent.step() == float("inf")
    assert fixture.read_all == read_all
    assert fixture.questions == [("a", [FIRST]), ("b", [FIRST]), ("a", [FIRST, SECOND])]


def test_brokers_that_do_not_answer_are_asked_again(fixture: Fixture, caplog: pytest.LogCaptureFixture) -> None:
    """Soon; the other groups are asked meanwhile."""
    fixture.commits = {"a": KafkaError(KafkaError._TIMED_OUT), "b": {FIRST: 10}}
    fixture.offsets.enable()
    read_without_end(fixture.offsets, FIRST)
    for _ in range(2):
        assert fixture.recent.step() == RETRY_SECONDS
        assert fixture.recent.step() == RETRY_SECONDS
        fixture.clock.now += RETRY_SECONDS
    assert fixture.questions == [("a", [FIRST]), ("b", [FIRST]), ("a", [FIRST])]
    assert len([each for each in caplog.records if "can't ask" in each.getMessage()]) == 1
    fixture.commits["a"] = {FIRST: 7}
    assert fixture.recent.step() == float("inf")
    assert fixture.remote(FIRST) == 7
    assert fixture.read_all == 0


def test_a_missing_permission_ends_the_source(fixture: Fixture) -> None:
    """Waiting doesn't mend it, and the brokers' own error says which it is."""
    refusal = KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED)
    fixture.commits = {"a": refusal, "b": {}}
    fixture.offsets.enable()
    read_without_end(fixture.offsets, FIRST)
    with pytest.raises(KafkaException) as raised:
        fixture.recent.step()
    assert raised.value.args == (refusal,)


def test_a_permission_that_is_refused_later_ends_the_source_if_that_goes_on(fixture: Fixture) -> None:
    """It is asked for again meanwhile, and the group counts as one that hasn't answered."""
    refusal = KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED)
    fixture.commits = {"a": refusal, "b": {FIRST: 10}}
    fixture.offsets.enable()
    read_without_end(fixture.offsets, FIRST)
    fixture.clock.now += FRESH_SECONDS + 1.0
    for _ in range(30):
        assert fixture.recent.step() == RETRY_SECONDS
        fixture.clock.now += RETRY_SECONDS
    assert fixture.remote(FIRST) is None
    fixture.commits["a"] = {FIRST: 10}
    fixture.recent.step()
    assert (fixture.remote(FIRST), fixture.read_all) == (10, 0)
    fixture.commits["a"] = refusal
    read_without_end(fixture.offsets, SECOND)
    for _ in range(int(PARDON_SECONDS / RETRY_SECONDS)):
        fixture.recent.step()
        fixture.clock.now += RETRY_SECONDS
    with pytest.raises(KafkaException) as raised:
        fixture.recent.step()
    assert raised.value.args == (refusal,)


def test_a_partition_without_a_commit_that_is_assigned_later_stays_unknown(fixture: Fixture) -> None:
    """A group that has committed others is at the right cluster, so nothing is read again and all others go on."""
    third = ("events", 2)
    fixture.commits = {"a": {FIRST: 10, third: 5}, "b": {FIRST: 10, third: 5}}
    fixture.offsets.enable()
    for key in (FIRST, SECOND, third):
        read_without_end(fixture.offsets, key)
        fixture.recent.step()
    assert [fixture.remote(key) for key in (FIRST, SECOND, third)] == [10, None, 5]
    assert fixture.read_all == 0
    fixture.publish(7, SECOND, "a")
    fixture.publish(8, SECOND, "b")
    assert fixture.remote(SECOND) == 7


def test_a_group_that_does_not_answer_keeps_no_other_waiting(fixture: Fixture) -> None:
    """Its coordinator may be down. It isn't asked twice meanwhile, and its answer wakes the one that takes it in."""
    fixture.commits = {"a": None, "b": {FIRST: 10}}
    fixture.offsets.enable()
    read_without_end(fixture.offsets, FIRST)
    for _ in range(3):
        fixture.recent.step()
    assert fixture.questions == [("a", [FIRST]), ("b", [FIRST])]
    assert set(fixture.offsets.published()[FIRST]) == {"b"}
    fixture.commits["a"] = {FIRST: 7}
    woken = fixture.woken
    fixture.waiting["a"]()
    assert fixture.woken == woken + 1
    fixture.recent.step()
    assert fixture.remote(FIRST) == 7


def test_one_partition_that_can_not_be_told_of_keeps_no_other_waiting(fixture: Fixture) -> None:
    """It alone is asked about again, and that nothing was told of it doesn't mean that nothing is committed."""
    fixture.commits = {"a": {FIRST: 10, SECOND: KafkaError(KafkaError._TIMED_OUT)}, "b": {FIRST: 20, SECOND: 20}}
    fixture.offsets.enable()
    read_without_end(fixture.offsets, FIRST, SECOND)
    assert fixture.recent.step() == RETRY_SECONDS
    assert fixture.remote(FIRST) == 10
    fixture.clock.now += RETRY_SECONDS
    fixture.commits["a"] = {SECOND: 15}
    fixture.recent.step()
    assert fixture.questions[2:] == [("a", [SECOND])]
    assert fixture.remote(SECOND) == 15
    assert fixture.read_all == 0


def test_while_one_group_does_not_answer_others_are_asked_about_what_is_assigned(fixture: Fixture) -> None:
    """What comes to the follower later isn't held up by it either."""
    fixture.commits = {"a": None, "b": {FIRST: 10}}
    fixture.offsets.enable()
    read_without_end(fixture.offsets, FIRST)
    fixture.recent.step()
    fixture.commits["b"] = {SECOND: 20}
    read_without_end(fixture.offsets, SECOND)
    fixture.recent.step()
    assert fixture.questions[2:] == [("b", [SECOND])]
    assert fixture.offsets.published()[SECOND]["b"].offset == 20


def test_while_one_group_is_left_in_peace_others_are_asked_about_what_is_assigned(fixture: Fixture) -> None:
    """Only the group that couldn't be told of waits for its next question, which then is about all that it lacks."""
    fixture.commits = {"a": KafkaError(KafkaError._TIMED_OUT), "b": {FIRST: 10}}
    fixture.offsets.enable()
    read_without_end(fixture.offsets, FIRST)
    fixture.recent.step()
    fixture.commits["b"] = {SECOND: 20}
    read_without_end(fixture.offsets, SECOND)
    assert fixture.recent.step() == RETRY_SECONDS
    assert fixture.questions[2:] == [("b", [SECOND])]
    fixture.clock.now += RETRY_SECONDS
    fixture.recent.step()
    assert fixture.questions[3:] == [("a", [FIRST, SECOND])]


def test_the_first_question_does_not_wait_for_a_clock_that_has_just_begun(fixture: Fixture) -> None:
    """A monotonic clock may begin at zero, as on a machine that was just started."""
    fixture.clock.now = 0.0
    fixture.commits = {"a": {FIRST: 10}, "b": {FIRST: 20}}
    fixture.offsets.enable()
    read_without_end(fixture.offsets, FIRST)
    fixture.recent.step()
    assert fixture.remote(FIRST) == 10


def test_what_is_taken_is_logged_with_the_group_and_how_many(
    fixture: Fixture, caplog: pytest.LogCaptureFixture
) -> None:
    """And it is as old as the answer. A partition of which a record came meanwhile isn't among the taken ones."""
    caplog.set_level(logging.INFO)
    fixture.commits = {"a": None, "b": {FIRST: 20, SECOND: 20}}
    fixture.offsets.enable()
    read_without_end(fixture.offsets, FIRST, SECOND)
    fixture.recent.step()
    fixture.publish(5, FIRST, "a")
    fixture.commits["a"] = {FIRST: 10, SECOND: 15}
    fixture.waiting["a"]()
    fixture.clock.now += 3.0
    fixture.recent.step()
    assert caplog.messages == [
        "Commit log log: took what group 'b' has committed of 2 partitions",
        "Commit log log: took what group 'a' has committed of 1 partitions",
    ]
    assert (fixture.remote(FIRST), fixture.remote(SECOND)) == (5, 15)
    taken = fixture.offsets.published()[SECOND]
    assert taken["a"].read_at_seconds == taken["b"].read_at_seconds + 3.0 == fixture.clock.now


def test_each_group_that_can_not_be_told_of_is_named_with_the_reason(
    fixture: Fixture, caplog: pytest.LogCaptureFixture
) -> None:
    """One line a group, so that none hides behind another."""
    fixture.commits = {
        "a": KafkaError(KafkaError._TIMED_OUT, "no word of its coordinator"),
        "b": KafkaError(KafkaError.COORDINATOR_LOAD_IN_PROGRESS, "it is loading"),
    }
    fixture.offsets.enable()
    read_without_end(fixture.offsets, FIRST)
    fixture.recent.step()
    assert caplog.messages == [
        "Commit log log: can't ask what group 'a' has committed: no word of its coordinator. It is tried again",
        "Commit log log: can't ask what group 'b' has committed: it is loading. It is tried again",
    ]
