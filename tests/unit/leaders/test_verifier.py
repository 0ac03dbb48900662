"""When the brokers are asked about the data topic, and what their answers do."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError, KafkaException

from arroyo_sync.core.errors import AnotherCluster, ConfigurationError, PartitionTruncated, TopicRecreated
from arroyo_sync.core.state import PartitionKey, SynchronizedPartitionStateManager
from arroyo_sync.kafka.questions.answers import LEAST_SECONDS, MOST_SECONDS
from arroyo_sync.kafka.questions.asker import Asker, PartitionRange
from arroyo_sync.kafka.questions.topic_watch import REACH_SECONDS, UNREAD_SECONDS
from arroyo_sync.kafka.topic_ids import FORGET_SECONDS
from arroyo_sync.leaders.assigned_partitions import Question
from arroyo_sync.leaders.commit_report import CommitReport
from arroyo_sync.leaders.leader_offsets import LeaderOffsets
from arroyo_sync.leaders.verification import LOG_END_UNKNOWN, Reason
from arroyo_sync.leaders.verifier import (
    INTERVAL_SECONDS,
    QUERY_TIMEOUT_SECONDS,
    REFRESH_SECONDS,
    REFRESHED_AT_ONCE,
    SUSPICION_PATIENCE_SECONDS,
    OnLogEnds,
    Verifier,
)
from tests.support.fakes import Clock

FIRST, SECOND = ("events", 0), ("events", 1)
TIMEOUT_SECONDS = 30.0
CHECK_TIMEOUT_SECONDS = 2.5
NO_ANSWER = KafkaError(KafkaError._TIMED_OUT)


class Brokers:
    """Answer what they know, each subject by itself, and at once."""

    def __init__(self) -> None:
        self.cluster_id: str | None = None
        """As a broker has told."""
        self.moves_to: str | None = None
        """Of which cluster they are, if of another one than they have told."""
        self.is_reached = True
        """Whether they tell of which cluster they are."""
        self.reach_timeouts: list[float] = []
        self.told: dict[PartitionKey, PartitionRange] = {}
        self.topic_id: str | KafkaError = NO_ANSWER
        self.committed: dict[tuple[str, PartitionKey], int | None] = {}
        self.log_ends: dict[int, int] = {}
        self.knows_log = True
        """Whether anybody tells which partitions the log has."""
        self.log_timeouts: list[float] = []
        self.timeouts: list[float] = []
        """Of the questions about partitions."""
        self.questions: list[set[PartitionKey]] = []
        self.blocking: list[set[PartitionKey]] = []
        """Those for whose answers is waited."""
        self.questions_about_first_messages: list[set[PartitionKey]] = []
        self.slow: set[PartitionKey] = set()
        """Those whose first messages take long to be found, and maybe their ends as well."""
        self.all_are_slow = False
        self.is_one_broker = False
        """Whether one broker answers about all partitions."""
        self.late: list[Callable[[], None]] = []
        self.commits_are_slow = False
        self.questions_about_ids = 0
        self.questions_about_commits: list[tuple[str, set[PartitionKey]]] = []
        self.before_answer: Callable[[], None] = lambda: None
        self.before_blocking_answer: Callable[[], None] = lambda: None
        self.cannot_wait: Exception | None = None
        """What is raised in place of these."""
        self.asked = threading.Event()

    def ask_log_ends(self, timeout: float, on_log_ends: OnLogEnds) -> None:
        self.log_timeouts.append(timeout)
        if self.knows_log:
            on_log_ends(self.log_ends)
        else:
            self.late.append(lambda: on_log_ends(None))

    def ask_ranges(
        self,
        partitions: Collection[PartitionKey],
        timeout: float,
        on_answer: Callable[[Mapping[PartitionKey, PartitionRange | KafkaError]], None],
        *,
        with_first_messages: bool,
    ) -> None:
        self.timeouts.append(timeout)
        self.questions.append(set(partitions))
        self.questions_about_first_messages += [set(partitions)] if with_first_messages else []
        self.before_answer()
        self.asked.set()
        if self.is_one_broker:
            on_answer({key: self.told.get(key, NO_ANSWER) for key in partitions})
            return
        for key in partitions:  # each by a broker of its own
            if (with_first_messages or self.all_are_slow) and key in self.slow:
                self.late.append(lambda key=key: on_answer({key: self.told[key]}))  # type: ignore[misc]
                if not self.all_are_slow:
                    begin, end, *_ = self.told[key]
                    on_answer({key: PartitionRange(begin, end, is_first_known=False, is_look_up_pending=True)})
            else:
                on_answer({key: self.told.get(key, NO_ANSWER)})

    def ask_topic_ids(
        self, topics: Collection[str], timeout: float, on_answer: Callable[[Mapping[str, str | KafkaError]], None]
    ) -> None:
        assert LEAST_SECONDS <= timeout <= MOST_SECONDS
        self.questions_about_ids += 1
        on_answer(dict.fromkeys(topics, self.topic_id))

    def reach(self, timeout: float) -> None:
        """As the brokers tell of which cluster they are."""
        self.reach_timeouts.append(timeout)
        if not self.is_reached:
            raise KafkaException(NO_ANSWER)
        self.cluster_id = self.moves_to or self.cluster_id

    def ranges(
        self, partitions: Collection[PartitionKey], timeout: float
    ) -> dict[PartitionKey, PartitionRange | KafkaError]:
        assert timeout == QUERY_TIMEOUT_SECONDS
        self.blocking.append(set(partitions))
        if self.cannot_wait is not None:
            raise self.cannot_wait
        self.before_blocking_answer()
        return {key: self.told.get(key, NO_ANSWER) for key in partitions}

    def topic_ids(self, topics: Collection[str], timeout: float) -> dict[str, str | KafkaError]:
        assert timeout in (CHECK_TIMEOUT_SECONDS, QUERY_TIMEOUT_SECONDS)
        self.questions_about_ids += 1
        return dict.fromkeys(topics, self.topic_id)

    def ask_committed(
        self,
        group: str,
        partitions: Collection[PartitionKey],
        timeout: float,
        on_answer: Callable[[Mapping[PartitionKey, int | KafkaError | None]], None],
    ) -> None:
        assert LEAST_SECONDS <= timeout <= MOST_SECONDS
        self.questions_about_commits.append((group, set(partitions)))
        if self.commits_are_slow:
            self.late.append(lambda: on_answer(dict.fromkeys(partitions, 0)))
            return
        on_answer({key: self.committed.get((group, key), NO_ANSWER) for key in partitions})


class Fixture:
    def __init__(self, *groups: str) -> None:
        self.clock = Clock()
        self.has_monitor = False
        self.brokers = Brokers()
        self.manager = SynchronizedPartitionStateManager()
        self.offsets = LeaderOffsets(groups or ["g"])
        self.offsets.attach(self.manager)
        self.offsets.enable()
        self.verifier = Verifier(
            self.offsets, cast(Asker, self.brokers), self.brokers.ask_log_ends, self.clock, lambda: self.has_monitor
        )
        self._log_offsets = itertools.count()

    def assign(self, *keys: PartitionKey) -> None:
        self.offsets.assign(dict.fromkeys(keys))
        self.verifier.assign(keys)

    def ends(self, **ends: int) -> None:
        """Where the first and the second partition end."""
        self.brokers.told = {
            {"first": FIRST, "second": SECOND}[name]: PartitionRange(0, end) for name, end in ends.items()
        }

    def read(self, *keys: PartitionKey) -> None:
        """The partitions are assigned, and empty so far."""
        self.assign(*keys)
        self.brokers.told = dict.fromkeys(keys, PartitionRange(0, 0))
        self.verifier.ask()
        self.brokers.questions.clear()
        self.brokers.questions_about_ids = 0
        self.clock.now += INTERVAL_SECONDS

    def publish(
        self,
        offset: int,
        key: PartitionKey = FIRST,
        timestamp_ms: int = 0,
        topic_id: str | None = None,
        group: str = "g",
    ) -> None:
        report = CommitReport(key, group, offset, timestamp_ms, 0, next(self._log_offsets), None, topic_id)
        self.offsets.apply([report], 0.0)

    def remote(self, key: PartitionKey = FIRST) -> int | None:
        return self.manager.cell(*key).remote


def test_a_follower_that_keeps_up_asks_for_nothing_but_the_id() -> None:
    """Once a second; the partitions once, at the assignment."""
    fixture = Fixture()
    fixture.assign(FIRST)
    fixture.ends(first=0)
    fixture.verifier.ask()
    assert fixture.brokers.questions == [{FIRST}]
    for _ in range(5):
        fixture.clock.now += INTERVAL_SECONDS
        assert fixture.verifier.ask() == INTERVAL_SECONDS
    assert fixture.brokers.questions == [{FIRST}]
    assert fixture.brokers.questions_about_ids == 6


def test_nothing_is_asked_while_nothing_is_assigned() -> None:
    """However often it is called."""
    fixture = Fixture()
    fixture.publish(5)
    assert fixture.verifier.ask() == float("inf")
    assert (fixture.brokers.questions, fixture.brokers.questions_about_ids) == ([], 0)


def test_all_assigned_partitions_are_asked_about_now_and_then() -> None:
    """In one question, also without a pending offset: a log may have been truncated."""
    fixture = Fixture()
    fixture.read(FIRST, SECOND)
    fixture.clock.now += REFRESH_SECONDS
    fixture.verifier.ask()
    assert fixture.brokers.questions == [{FIRST, SECOND}]


@pytest.mark.parametrize(
    "count",
    [
        pytest.param(2 * REFRESHED_AT_ONCE + 1, id="many"),
        pytest.param(40 * REFRESHED_AT_ONCE, id="so many that each turn takes more"),
    ],
)
def test_many_assigned_partitions_are_asked_about_in_turns(count: int) -> None:
    """One turn a second, however often it is woken; each partition once before the next round begins."""
    fixture = Fixture()
    keys = [("events", index) for index in range(count)]
    fixture.read(*keys)
    fixture.clock.now += REFRESH_SECONDS
    for turn in range(int(REFRESH_SECONDS / INTERVAL_SECONDS)):
        fixture.verifier.ask()
        fixture.verifier.ask()
        assert len(fixture.brokers.questions) <= turn + 1
        fixture.clock.now += INTERVAL_SECONDS
    asked = fixture.brokers.questions
    assert sorted(key for question in asked for key in question) == keys
    assert max(map(len, asked)) <= max(REFRESHED_AT_ONCE, -(-count * INTERVAL_SECONDS // REFRESH_SECONDS))


def test_each_has_its_turn_though_the_turns_are_late() -> None:
    """The next round begins when the last one is over, and until then nobody is woken but for a turn."""
    fixture = Fixture()
    keys = [("events", index) for index in range(30 * REFRESHED_AT_ONCE)]
    fixture.read(*keys)
    fixture.clock.now += REFRESH_SECONDS
    for _ in range(29):
        assert fixture.verifier.ask() > 0.0
        fixture.clock.now += 1.1 * INTERVAL_SECONDS
    fixture.verifier.ask()
    assert sorted(key for question in fixture.brokers.questions for key in question) == keys
    fixture.clock.now += INTERVAL_SECONDS
    fixture.verifier.ask()
    assert len(fixture.brokers.questions) == 31


def test_a_revoked_partition_loses_its_turn() -> None:
    """Others keep theirs."""
    fixture = Fixture()
    keys = [("events", index) for index in range(2 * REFRESHED_AT_ONCE)]
    fixture.read(*keys)
    fixture.clock.now += REFRESH_SECONDS
    fixture.verifier.ask()
    fixture.offsets.revoke(keys[-2:])
    fixture.verifier.revoke(keys[-2:])
    fixture.clock.now += INTERVAL_SECONDS
    fixture.verifier.ask()
    assert fixture.brokers.questions == [set(keys[:REFRESHED_AT_ONCE]), set(keys[REFRESHED_AT_ONCE:-2])]


def test_all_partitions_with_a_pending_offset_are_in_one_question() -> None:
    """And those that the brokers can't tell of are asked about again."""
    fixture = Fixture()
    fixture.read(FIRST, SECOND)
    fixture.publish(5, FIRST)
    fixture.publish(6, SECOND)
    fixture.ends(first=10)
    assert fixture.verifier.ask() == INTERVAL_SECONDS
    assert fixture.brokers.questions == [{FIRST, SECOND}]
    assert (fixture.remote(FIRST), fixture.remote(SECOND)) == (5, None)
    fixture.clock.now += INTERVAL_SECONDS
    fixture.ends(second=10)
    fixture.verifier.ask()
    assert fixture.brokers.questions[1:] == [{SECOND}]
    assert fixture.remote(SECOND) == 6


def test_a_partition_is_asked_about_once_a_second() -> None:
    """It says when it wants to be called again; other partitions needn't wait for that one."""
    fixture = Fixture()
    fixture.read(FIRST, SECOND)
    fixture.ends(first=5, second=5)
    fixture.publish(5, FIRST)
    fixture.verifier.ask()
    fixture.clock.now += 0.25
    fixture.ends(first=9, second=9)
    fixture.publish(9, FIRST)
    assert fixture.verifier.ask() == INTERVAL_SECONDS - 0.25
    fixture.publish(9, SECOND)
    assert fixture.verifier.ask() == INTERVAL_SECONDS - 0.25
    assert fixture.brokers.questions == [{FIRST}, {SECOND}]
    fixture.clock.now += INTERVAL_SECONDS - 0.25
    fixture.verifier.ask()
    assert fixture.brokers.questions == [{FIRST}, {SECOND}, {FIRST}]
    assert (fixture.remote(FIRST), fixture.remote(SECOND)) == (9, 9)


def test_a_partition_that_is_assigned_anew_is_asked_about_at_once() -> None:
    """Nothing is released before."""
    fixture = Fixture()
    fixture.ends(first=5)
    fixture.assign(FIRST)
    fixture.publish(5)
    fixture.verifier.ask()
    fixture.assign(FIRST)
    assert fixture.remote() is None
    fixture.verifier.ask()
    assert len(fixture.brokers.questions) == 2
    assert fixture.remote() == 5
    fixture.verifier.revoke([FIRST])
    fixture.verifier.ask()
    assert len(fixture.brokers.questions) == 2


def test_where_nobody_tells_of_the_log_it_is_asked_again_and_given_longer() -> None:
    """Slow brokers would never be heard else, and nothing released. One question at a time: the last one is open."""
    fixture = Fixture()
    fixture.brokers.knows_log = False
    fixture.ends(first=5)
    fixture.assign(FIRST)
    for _ in range(3):
        fixture.verifier.ask()
        fixture.clock.now += INTERVAL_SECONDS
        fixture.verifier.ask()
        assert fixture.brokers.questions == []
        fixture.brokers.late.pop()()
    assert fixture.brokers.log_timeouts == [1.0, 2.0, 4.0]
    fixture.brokers.knows_log = True
    fixture.publish(5)
    fixture.verifier.ask()
    assert (fixture.brokers.log_timeouts[3:], fixture.brokers.timeouts) == ([4.0], [1.0])
    assert fixture.remote() == 5


def test_brokers_that_say_nothing_of_a_partition_are_given_longer_the_next_time() -> None:
    """That others answer makes the silent ones no faster; once they are heard, no more time is needed."""
    fixture = Fixture()
    fixture.brokers.is_one_broker = True
    fixture.assign(FIRST, SECOND)
    first, both = PartitionRange(0, 5), {FIRST: PartitionRange(0, 5), SECOND: PartitionRange(0, 5)}
    for ranges in ({}, {FIRST: first}, {FIRST: first}, both):
        fixture.brokers.told = ranges
        fixture.verifier.ask()
        fixture.clock.now += INTERVAL_SECONDS
    fixture.publish(9)
    fixture.publish(9, SECOND)
    fixture.verifier.ask()
    assert fixture.brokers.timeouts == [1.0, 2.0, 4.0, 4.0, 2.0]


@pytest.mark.parametrize("ends", [{}, {0: 10, 1: LOG_END_UNKNOWN}], ids=["nothing", "not of all"])
def test_where_the_log_ends_has_longer_to_be_told_once_it_was_not(ends: dict[int, int]) -> None:
    """Those that are slow there would be asked with every look else."""
    fixture = Fixture()
    fixture.brokers.log_ends = ends
    fixture.assign(FIRST)
    fixture.verifier.ask()
    fixture.assign(FIRST)
    fixture.verifier.ask()
    assert fixture.brokers.log_timeouts == [1.0, 2.0 if ends else 1.0]


def test_a_question_that_can_not_be_put_is_put_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else its partition would be taken to be asked about for ever."""
    fixture = Fixture()
    fixture.ends(first=5)
    fixture.assign(FIRST)
    with monkeypatch.context() as patched:
        patched.setattr(fixture.brokers, "ask_ranges", _raise_memory_error)
        with pytest.raises(MemoryError):
            fixture.verifier.ask()
    fixture.clock.now += INTERVAL_SECONDS
    fixture.verifier.ask()
    assert fixture.brokers.questions == [{FIRST}]


def _raise_memory_error(*arguments: object, **keywords: object) -> None:
    raise MemoryError


def test_the_topic_s_id_is_asked_for_from_its_subscription_on() -> None:
    """Before it is told where the follower begins."""
    fixture = Fixture()
    fixture.verifier.subscribe("events")
    fixture.brokers.topic_id = "one"
    assert fixture.verifier.ask() == UNREAD_SECONDS
    fixture.assign(FIRST)
    fixture.brokers.topic_id = "two"
    with pytest.raises(TopicRecreated, match="was one and is two"):
        fixture.verifier.ask()


def test_partitions_may_be_asked_about_before_it_is_told_that_they_are_assigned() -> None:
    """Its thread may look between the two halves of an assignment, also of the first."""
    fixture = Fixture()
    fixture.offsets.assign({FIRST: None})
    fixture.verifier.ask()
    assert fixture.brokers.questions == [{FIRST}]
    assert fixture.brokers.questions_about_ids == 1


def test_an_answer_judges_only_what_was_published_before_the_question() -> None:
    """What a leader publishes while the broker thinks may lie beyond its answer, and is true."""
    fixture = Fixture()
    fixture.read(FIRST)
    fixture.publish(5)
    fixture.brokers.before_answer = lambda: fixture.publish(8)
    fixture.ends(first=6)
    fixture.verifier.ask()
    assert (fixture.remote(), fixture.verifier.impossible) == (5, 0)
    assert dict(fixture.offsets.unverified) == {FIRST: 8}


def busy_leader(fixture: Fixture, seconds: int, *groups: str, answers: bool = True) -> list[tuple[int, bool]]:
    """A leader publishes four times a second what the follower hasn't received: it is slow, or full.

    :returns: each time how many partitions count as unverified, and whether something is pending.
    """
    seen = []
    for _ in range(4 * seconds):
        fixture.clock.now += INTERVAL_SECONDS / 4
        offset = int(4 * fixture.clock.now)
        fixture.brokers.told = {FIRST: PartitionRange(0, offset)} if answers else {}
        fixture.verifier.ask()
        for group in groups or ("g",):
            fixture.publish(offset + 1, group=group)
        seen.append((fixture.verifier.unverified, bool(fixture.offsets.unverified)))
    return seen


def test_a_follower_that_is_slow_has_nothing_unverified_though_something_is_pending_at_any_time() -> None:
    """What is published lies past the end that is known, until the next question: the alert called that ill."""
    fixture = Fixture()
    fixture.read(FIRST)
    seen = busy_leader(fixture, 60)
    assert {count for count, _ in seen} == {0}
    assert all(is_pending for _, is_pending in seen)


def test_what_no_broker_verifies_for_a_heartbeat_and_a_half_counts_as_unverified_until_one_does() -> None:
    """While the leader goes on to publish."""
    fixture = Fixture()
    fixture.read(FIRST)
    busy_leader(fixture, 20)
    counts = [count for count, _ in busy_leader(fixture, 20, answers=False)]
    assert (counts[4 * 14], counts[4 * 17], counts[-1]) == (0, 1, 1)
    counts = [count for count, _ in busy_leader(fixture, 3)]
    assert counts[-1] == 0


def test_what_is_pending_is_looked_at_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it is woken: a look goes through all of it."""
    fixture = Fixture()
    began = fixture.clock.now
    looks: list[float] = []

    def pending() -> dict[tuple[PartitionKey, str], int | None]:
        looks.append(fixture.clock.now - began)
        return {}

    monkeypatch.setattr(fixture.offsets, "pending", pending)
    for _ in range(9):
        fixture.verifier.ask()
        fixture.clock.now += INTERVAL_SECONDS / 4
    assert looks == [0.0, INTERVAL_SECONDS, 2 * INTERVAL_SECONDS]


def test_a_report_that_stays_pending_is_not_hidden_by_what_another_group_has_verified() -> None:
    """Of the same partition: nothing is released there. It counts once, and no more when it is taken away."""
    fixture = Fixture("g", "idle")
    fixture.read(FIRST)
    fixture.brokers.topic_id = NO_ANSWER
    fixture.publish(1, topic_id="id", group="idle")
    assert busy_leader(fixture, 20)[-1] == (1, True)
    fixture.publish(1, topic_id="id", group="g")
    assert fixture.verifier.unverified == 1
    fixture.offsets.revoke([FIRST])
    fixture.clock.now += INTERVAL_SECONDS
    fixture.verifier.ask()
    assert fixture.verifier.unverified == 0


def test_a_rewind_that_is_pending_verifies_nothing() -> None:
    """It is in force at once, which may release nothing of it."""
    fixture = Fixture()
    fixture.ends(first=100)
    fixture.assign(FIRST)
    fixture.publish(100)
    fixture.verifier.ask()
    fixture.brokers.topic_id = NO_ANSWER
    for offset in range(90, 70, -1):
        fixture.publish(offset, topic_id="id")
        fixture.clock.now += INTERVAL_SECONDS
        fixture.verifier.ask()
    assert (fixture.remote(), fixture.verifier.unverified) == (71, 1)


@pytest.mark.parametrize("has_monitor", [True, False])
def test_what_a_monitor_tells_of_is_no_error_here(has_monitor: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Sentry's SDK makes an event of every error: an idle leader's heartbeats made one a minute for each partition."""
    fixture = Fixture()
    fixture.has_monitor = has_monitor
    fixture.ends(first=6)
    fixture.assign(FIRST)
    fixture.publish(1_000)
    fixture.verifier.ask()
    assert [line.levelno for line in caplog.records] == [logging.WARNING if has_monitor else logging.ERROR]


def test_an_impossible_offset_is_counted_each_time_and_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """A heartbeat repeats it every few seconds."""
    fixture = Fixture()
    fixture.ends(first=6)
    fixture.assign(FIRST)
    for _ in range(3):
        fixture.publish(1_000)
        fixture.verifier.ask()
        fixture.clock.now += INTERVAL_SECONDS
    assert fixture.verifier.impossible == 3
    assert fixture.remote() is None
    (line,) = caplog.records
    assert line.levelno == logging.ERROR
    assert line.getMessage() == (
        "events[0]: group 'g' published offset 1000, but the partition ends at 6. Was the topic deleted and created "
        "again under an old commit log? The group counts as unknown there until it publishes a possible offset"
    )
    fixture.clock.now += 60.0
    fixture.publish(1_000)
    fixture.verifier.ask()
    assert len(caplog.records) == 2


def test_no_partition_and_no_reason_hides_another(caplog: pytest.LogCaptureFixture) -> None:
    """What is found at one look, of one cause, is one line."""
    fixture = Fixture()
    fixture.ends(first=6, second=6)
    fixture.assign(FIRST, SECOND)
    fixture.publish(1_000, FIRST)
    fixture.publish(1_000, SECOND)
    fixture.verifier.ask()
    fixture.brokers.topic_id = "two"
    fixture.publish(3, FIRST, topic_id="one")
    fixture.clock.now += INTERVAL_SECONDS
    fixture.verifier.ask()
    impossible, earlier = caplog.messages
    assert impossible.startswith("events[0]: group 'g' published offset 1000, but the partition ends at 6.")
    assert impossible.endswith(" until it publishes a possible offset. Likewise events[1]")
    assert earlier.startswith("events[0]: group 'g' published offset 3 of an earlier topic")
    assert fixture.verifier.impossible == 3


# A data topic that was deleted and created again.


def test_another_topic_id_ends_it() -> None:
    """With an error that names the topic and both ids."""
    fixture = Fixture()
    fixture.read(FIRST)
    fixture.brokers.topic_id = "one"
    fixture.verifier.ask()
    fixture.clock.now += INTERVAL_SECONDS
    fixture.verifier.ask()
    fixture.clock.now += INTERVAL_SECONDS
    fixture.brokers.topic_id = "two"
    with pytest.raises(TopicRecreated, match=r"'events' was deleted and created again .* was one and is two"):
        fixture.verifier.ask()


def test_safety_what_brokers_of_another_cluster_say_of_a_topic_of_that_name_is_not_believed() -> None:
    """It would be a truncation, since what the follower has read isn't there; the group's commits would be set back."""
    fixture = Fixture()
    fixture.verifier.expect_cluster("the follower's")
    fixture.brokers.cluster_id = "another"
    fixture.assign(FIRST)
    fixture.manager.cell(*FIRST).received = 500
    fixture.ends(first=0)
    with pytest.raises(ConfigurationError) as raised:
        fixture.verifier.ask()
    assert str(raised.value) == (
        'the follower reads the data topic from the cluster "the follower\'s", but the source asks the cluster '
        "'another' about it, where a topic of that name is another one. Give the source the settings of the follower's "
        "consumer: as data_configuration, if the commit log is on another cluster"
    )
    assert fixture.remote() is None


def reading(cluster_id: str | None = "one", topic_id: str | KafkaError = "id") -> Fixture:
    """With brokers of this cluster, and a topic that they say has this id."""
    fixture = Fixture()
    fixture.brokers.cluster_id, fixture.brokers.topic_id = cluster_id, topic_id
    fixture.read(FIRST)
    return fixture


@pytest.mark.parametrize(
    "ask",
    [
        pytest.param(lambda verifier: verifier.ask(), id="as ever"),
        pytest.param(lambda verifier: verifier.check_topics(CHECK_TIMEOUT_SECONDS), id="at the end"),
    ],
)
@pytest.mark.parametrize("followers", [None, "one"])
def test_another_cluster_behind_the_same_address_is_not_taken_for_another_topic(
    followers: str | None, ask: Callable[[Verifier], object]
) -> None:
    """After a failover. The topic of that name has another id there, and the group's commits are to be left alone."""
    fixture = Fixture()
    if followers is not None:
        fixture.verifier.expect_cluster(followers)
    fixture.brokers.cluster_id, fixture.brokers.topic_id = "one", "id"
    fixture.read(FIRST)
    fixture.brokers.topic_id, fixture.brokers.moves_to = "other id", "two"
    with pytest.raises(ConfigurationError) as raised:
        ask(fixture.verifier)
    assert str(raised.value) == (
        "the brokers that the source asks about the data topic were of the cluster 'one' and are of 'two' now, where a "
        "topic of that name is another one. Was an address pointed to another cluster? The group's offsets are left as "
        "they are: see to those of the cluster that the follower is to read, and restart it"
    )


@pytest.mark.parametrize("told", ["one", None])
def test_another_topic_of_the_same_cluster_is_another_one(told: str | None) -> None:
    """Also where brokers tell no clusters."""
    fixture = reading(told)
    fixture.brokers.topic_id = "other id"
    with pytest.raises(TopicRecreated):
        fixture.verifier.ask()


@pytest.mark.parametrize("moves_to", ["one", "two"])
def test_while_nobody_tells_of_which_cluster_it_is_another_id_says_nothing(moves_to: str) -> None:
    """Brokers that are far away, or busy, may tell the one and not the other in time."""
    fixture = reading()
    fixture.brokers.topic_id, fixture.brokers.moves_to, fixture.brokers.is_reached = "other id", moves_to, False
    for _ in range(2):
        fixture.verifier.ask()
        fixture.clock.now += INTERVAL_SECONDS
    assert fixture.brokers.reach_timeouts == [REACH_SECONDS] * 2
    fixture.brokers.is_reached = True
    with pytest.raises(TopicRecreated if moves_to == "one" else AnotherCluster):
        fixture.verifier.ask()


def test_safety_while_a_topic_may_be_another_one_no_report_of_the_earlier_one_counts() -> None:
    """A leader that lived through it heartbeats on, as long as the broker hangs that is asked for its cluster."""
    fixture = reading()
    fixture.ends(first=100)
    fixture.publish(50, topic_id="id")
    fixture.verifier.ask()
    assert fixture.remote() == 50
    fixture.brokers.topic_id, fixture.brokers.is_reached = "other id", False
    for _ in range(3):
        fixture.clock.now += INTERVAL_SECONDS
        fixture.verifier.ask()
        assert fixture.remote() is None
        fixture.publish(60, topic_id="id")
        assert fixture.remote() is None
        fixture.publish(70, topic_id="other id")
    assert fixture.remote() is None
    fixture.brokers.topic_id = "id"
    for _ in range(2):
        fixture.publish(60, topic_id="id")
        fixture.clock.now += INTERVAL_SECONDS
        fixture.verifier.ask()
    assert fixture.remote() == 60


def test_an_assignment_just_before_the_first_question_is_made_is_asked_about_by_another() -> None:
    """It counted as asked about by that one, whose answer it doesn't take, and waited for all that it looks up."""
    fixture = Fixture()
    fixture.assign(FIRST)
    fixture.ends(first=100)
    begin = fixture.offsets.begin_question

    def begin_question(keys: Collection[PartitionKey]) -> Question:
        question = begin(keys)
        if not fixture.brokers.questions:
            fixture.assign(FIRST)
        return question

    fixture.offsets.begin_question = begin_question  # type: ignore[method-assign]
    fixture.brokers.all_are_slow, fixture.brokers.slow = True, {FIRST}
    fixture.verifier.ask()
    assert not fixture.verifier._in_flight


def test_who_ends_goes_back_on_another_topic_though_nobody_tells_of_which_cluster_it_is() -> None:
    """Nobody asks after that: to read again is safer than to skip."""
    fixture = reading()
    fixture.brokers.topic_id, fixture.brokers.is_reached = "other id", False
    with pytest.raises(TopicRecreated):
        fixture.verifier.check_topics(CHECK_TIMEOUT_SECONDS)


def test_slow_brokers_have_as_long_to_tell_of_their_cluster_as_to_tell_an_id() -> None:
    fixture = reading()
    fixture.brokers.topic_id = NO_ANSWER
    for _ in range(3):
        fixture.clock.now += INTERVAL_SECONDS
        fixture.verifier.ask()
    fixture.brokers.topic_id, fixture.brokers.is_reached = "other id", False
    fixture.clock.now += INTERVAL_SECONDS
    fixture.verifier.ask()
    assert fixture.brokers.reach_timeouts == [MOST_SECONDS / 2]


def test_where_topics_have_no_ids_another_cluster_is_found_before_a_lower_end_counts() -> None:
    """It would be a truncation, and the group's commits over there would be set back."""
    fixture = reading(topic_id=KafkaError(KafkaError._UNSUPPORTED_FEATURE))
    fixture.brokers.moves_to = "two"
    with pytest.raises(AnotherCluster):
        fixture.verifier.check_topics(CHECK_TIMEOUT_SECONDS)


def test_brokers_that_have_told_their_cluster_and_do_not_now_are_of_the_same() -> None:
    """As one that was just added to Redpanda's."""
    fixture = reading()
    fixture.brokers.cluster_id = None
    fixture.ends(first=10)
    fixture.publish(5)
    fixture.verifier.ask()
    assert fixture.remote() == 5


@pytest.mark.parametrize(("followers", "asked"), [("one", "one"), ("one", None), (None, "one")])
def test_a_cluster_that_is_the_same_or_of_which_nothing_is_known_is_believed(
    followers: str | None, asked: str | None
) -> None:
    """Not every broker, nor every consumer, can tell."""
    fixture = Fixture()
    if followers is not None:
        fixture.verifier.expect_cluster(followers)
    fixture.brokers.cluster_id = asked
    fixture.assign(FIRST)
    fixture.ends(first=10)
    fixture.publish(5)
    fixture.verifier.ask()
    assert fixture.remote() == 5


def test_whether_the_topic_is_the_same_can_be_asked_between_the_turns() -> None:
    """Another id raises at once; no answer, and an id that was never told, say nothing."""
    fixture = Fixture()
    fixture.read(FIRST)
    fixture.verifier.check_topics(CHECK_TIMEOUT_SECONDS)
    assert fixture.brokers.questions_about_ids == 0
    fixture.brokers.topic_id = "one"
    fixture.verifier.ask()
    for answer in ("one", NO_ANSWER):
        fixture.brokers.topic_id = answer
        fixture.verifier.check_topics(CHECK_TIMEOUT_SECONDS)
    fixture.brokers.topic_id = "two"
    with pytest.raises(TopicRecreated, match=r"'events' was deleted and created again .* was one and is two"):
        fixture.verifier.check_topics(CHECK_TIMEOUT_SECONDS)
    assert fixture.brokers.questions_about_ids == 4


@pytest.mark.parametrize(("seconds", "is_forgotten"), [(FORGET_SECONDS, True), (FORGET_SECONDS - 0.1, False)])
def test_who_had_no_partition_for_long_begins_as_after_a_restart(seconds: float, is_forgotten: bool) -> None:
    """Else one that is given a partition days after the topic was created again would set its group back."""
    fixture = Fixture()
    fixture.brokers.topic_id = "one"
    fixture.read(FIRST)
    fixture.offsets.revoke([FIRST])
    fixture.verifier.revoke([FIRST])
    fixture.verifier.ask()
    fixture.clock.now += seconds
    fixture.verifier.ask()
    fixture.brokers.topic_id = "two"
    if is_forgotten:
        fixture.verifier.check_topics(CHECK_TIMEOUT_SECONDS)
        fixture.assign(FIRST)
        fixture.ends(first=10)
        fixture.publish(5, topic_id="two")
        fixture.verifier.ask()
        assert fixture.remote() == 5
    else:
        with pytest.raises(TopicRecreated):
            fixture.verifier.check_topics(CHECK_TIMEOUT_SECONDS)


def test_a_topic_that_is_assigned_again_in_time_is_not_forgotten() -> None:
    """The time begins anew when its last partition goes."""
    fixture = Fixture()
    fixture.brokers.topic_id = "one"
    for _ in range(2):
        fixture.read(FIRST)
        fixture.offsets.revoke([FIRST])
        fixture.verifier.revoke([FIRST])
        fixture.verifier.ask()
        fixture.clock.now += FORGET_SECONDS - 2 * INTERVAL_SECONDS
    fixture.verifier.ask()
    fixture.brokers.topic_id = "two"
    with pytest.raises(TopicRecreated):
        fixture.verifier.check_topics(CHECK_TIMEOUT_SECONDS)


@pytest.mark.parametrize("code", [KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._TIMED_OUT])
def test_a_topic_that_is_away_for_a_while_is_still_the_same(code: int) -> None:
    """Only another id says that it isn't."""
    fixture = Fixture()
    fixture.read(FIRST)
    for answer in ("one", KafkaError(code), "one"):
        fixture.brokers.topic_id = answer
        fixture.verifier.ask()
        fixture.clock.now += INTERVAL_SECONDS


def test_a_report_of_another_topic_id_is_rejected_and_told_with_its_group(caplog: pytest.LogCaptureFixture) -> None:
    """However far the new topic reaches. One with the topic's own id counts."""
    fixture = Fixture()
    fixture.brokers.topic_id = "two"
    fixture.ends(first=900)
    fixture.assign(FIRST)
    fixture.publish(423, topic_id="one")
    fixture.verifier.ask()
    assert (fixture.remote(), fixture.verifier.impossible) == (None, 1)
    (line,) = caplog.records
    assert line.levelno == logging.ERROR
    assert line.getMessage() == (
        "events[0]: group 'g' published offset 423 of an earlier topic of that name: its report carries another topic "
        "id. Restart that leader (or is the topic a mirror? See FOLLOWERS.md). The group counts as unknown there until "
        "it publishes of this topic"
    )
    fixture.publish(7, topic_id="two")
    assert fixture.remote() == 7


@pytest.mark.parametrize("code", [KafkaError._UNSUPPORTED_FEATURE, KafkaError.TOPIC_AUTHORIZATION_FAILED])
def test_a_topic_whose_id_cannot_be_asked_is_followed_without(code: int) -> None:
    """What its reports carry says nothing then."""
    fixture = Fixture()
    fixture.brokers.topic_id = KafkaError(code)
    fixture.ends(first=900)
    fixture.assign(FIRST)
    fixture.verifier.ask()
    fixture.publish(423, topic_id="one")
    assert fixture.remote() == 423


def test_a_suspect_report_is_told_and_lifted_by_the_groups_own_commit(caplog: pytest.LogCaptureFixture) -> None:
    """Which is asked for once a second, while the suspicion stands and no longer. What a heartbeat heals isn't told."""
    fixture = Fixture()
    fixture.brokers.log_ends = {0: 10}
    fixture.brokers.told = {FIRST: PartitionRange(0, 900, first_timestamp_ms=5_000)}
    fixture.assign(FIRST)
    fixture.publish(423, timestamp_ms=4_999)
    fixture.verifier.ask()
    for committed in (NO_ANSWER, None, 422):
        fixture.clock.now += INTERVAL_SECONDS
        if not isinstance(committed, KafkaError):
            fixture.brokers.committed["g", FIRST] = committed
        fixture.verifier.ask()
        assert fixture.remote() is None
    assert caplog.messages == []
    assert not fixture.offsets.published()[FIRST]["g"].rejected
    fixture.clock.now += SUSPICION_PATIENCE_SECONDS
    fixture.verifier.ask()
    leader = fixture.offsets.published()[FIRST]["g"]
    assert (leader.rejected, leader.rejected_because) == (True, Reason.BEFORE_FIRST_MESSAGE.value)
    (line,) = caplog.records
    assert line.getMessage().startswith(
        "events[0]: group 'g' published offset 423 before the first message that is there was written"
    )
    fixture.brokers.committed["g", FIRST] = 423
    fixture.clock.now += INTERVAL_SECONDS
    fixture.verifier.ask()
    assert fixture.remote() == 423
    assert not fixture.offsets.published()[FIRST]["g"].rejected
    asked = len(fixture.brokers.questions_about_commits)
    fixture.clock.now += INTERVAL_SECONDS
    fixture.verifier.ask()
    assert fixture.brokers.questions_about_commits == [("g", {FIRST})] * asked
    assert fixture.verifier.impossible == 0


@pytest.mark.parametrize(
    ("committed", "says"),
    [
        pytest.param(422, "and hasn't committed that far on the brokers", id="too little"),
        pytest.param(
            KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED, "not allowed"),
            "and what it has committed can't be asked for (not allowed)",
            id="not told",
        ),
    ],
)
def test_a_suspicion_says_what_the_groups_own_commit_says_of_it(
    committed: Any, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    """That it could not be asked for proves nothing."""
    fixture = Fixture()
    fixture.brokers.log_ends = {0: 10}
    fixture.brokers.told = {FIRST: PartitionRange(0, 900, first_timestamp_ms=5_000)}
    fixture.brokers.committed["g", FIRST] = committed
    fixture.assign(FIRST)
    fixture.publish(423, timestamp_ms=4_999)
    fixture.verifier.ask()
    fixture.clock.now += SUSPICION_PATIENCE_SECONDS
    fixture.verifier.ask()
    assert caplog.messages == [
        f"events[0]: group 'g' published offset 423 before the first message that is there was written, {says}: it may "
        "speak of an earlier topic of that name, unless the topic's timestamps aren't the time of writing. The group "
        "counts as unknown there until it publishes again, or its commit reaches that far"
    ]
    fixture.clock.now += 59.0
    fixture.verifier.ask()
    assert len(caplog.messages) == 1
    fixture.clock.now += INTERVAL_SECONDS
    fixture.verifier.ask()
    assert len(caplog.messages) == 2, "once a minute"


def suspicious(*keys: PartitionKey) -> Fixture:
    """What is published of the partitions was written before their first message."""
    fixture = Fixture()
    fixture.brokers.log_ends = {0: 10}
    fixture.brokers.told = {key: PartitionRange(0, 900, first_timestamp_ms=5_000) for key in keys}
    fixture.assign(*keys)
    for key in keys:
        fixture.publish(20, key, timestamp_ms=4_999)
    return fixture


def test_every_suspicion_that_lasts_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """Those that last, with their partitions, and no others."""
    fixture = suspicious(FIRST, SECOND)
    fixture.verifier.ask()
    fixture.publish(30, SECOND, timestamp_ms=5_000)
    fixture.clock.now += SUSPICION_PATIENCE_SECONDS - 0.5
    fixture.verifier.ask()
    fixture.publish(20, SECOND, timestamp_ms=4_999)
    fixture.verifier.ask()
    fixture.clock.now += INTERVAL_SECONDS
    fixture.verifier.ask()
    assert [line[:9] for line in caplog.messages] == ["events[0]"]
    fixture.clock.now += SUSPICION_PATIENCE_SECONDS
    fixture.verifier.ask()
    assert len(caplog.messages) == 1, "one cause is told once a minute"
    fixture.clock.now += 60.0
    fixture.verifier.ask()
    assert len(caplog.messages) == 2
    assert "events[0]" in caplog.messages[1]
    assert "events[1]" in caplog.messages[1]
    assert fixture.brokers.questions_about_commits[-1] == ("g", {FIRST, SECOND})


def test_an_error_lifts_no_suspicion(caplog: pytest.LogCaptureFixture) -> None:
    """Though it has a number, which may be higher than the offset."""
    fixture = suspicious(FIRST)
    fixture.brokers.committed["g", FIRST] = KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED)  # type: ignore[assignment]
    fixture.verifier.ask()
    assert fixture.offsets.suspects() == {"g": {FIRST: 20}}
    assert fixture.remote() is None


def test_an_answer_to_an_older_question_does_not_make_a_suspicion_an_old_one(caplog: pytest.LogCaptureFixture) -> None:
    """One that went away meanwhile has a while of its own."""
    fixture = suspicious(FIRST)
    fixture.brokers.commits_are_slow = True
    fixture.verifier.ask()
    fixture.publish(30, timestamp_ms=5_000)
    fixture.clock.now += SUSPICION_PATIENCE_SECONDS
    fixture.verifier.ask()
    fixture.publish(20, timestamp_ms=4_999)
    fixture.brokers.late.pop()()
    fixture.verifier.ask()
    assert caplog.messages == []
    assert not fixture.offsets.published()[FIRST]["g"].rejected


UNDATED = PartitionRange(0, 900, None, is_first_known=False)
"""Of a partition of which the first message can't be looked up."""


def undated(**report: Any) -> Fixture:
    """A report that is older than the answer about such a partition."""
    fixture = Fixture()
    fixture.brokers.topic_id = "one"
    fixture.brokers.log_ends = {0: 10}
    fixture.brokers.told = {FIRST: UNDATED}
    fixture.assign(FIRST)
    fixture.publish(423, timestamp_ms=5_000, **report)
    fixture.verifier.ask()
    return fixture


def test_progress_a_report_with_the_topics_id_waits_for_no_look_up_of_the_first_message() -> None:
    """Remote storage that is down kept the gate shut, as long as it was. It isn't looked up again."""
    fixture = undated(topic_id="one")
    assert fixture.remote() == 423
    fixture.clock.now += INTERVAL_SECONDS
    fixture.verifier.ask()
    assert fixture.brokers.questions_about_first_messages == [{FIRST}]


@pytest.mark.parametrize(("first_timestamp_ms", "remote"), [(5_000, 423), (5_001, None)])
def test_safety_an_older_report_without_an_id_waits_until_the_first_message_was_looked_up(
    first_timestamp_ms: int, remote: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    """However long that takes. It is no suspect before, and nobody is told that it is."""
    fixture = undated()
    for _ in range(int(2 * SUSPICION_PATIENCE_SECONDS)):
        fixture.clock.now += INTERVAL_SECONDS
        fixture.verifier.ask()
    assert fixture.remote() is None
    assert (caplog.messages, fixture.offsets.suspects()) == ([], {})
    assert not fixture.offsets.published()[FIRST]["g"].rejected
    assert len(fixture.brokers.questions_about_first_messages) == 1 + 2 * SUSPICION_PATIENCE_SECONDS
    fixture.brokers.told = {FIRST: PartitionRange(0, 900, first_timestamp_ms)}
    for _ in range(2):
        fixture.clock.now += INTERVAL_SECONDS
        fixture.verifier.ask()
    assert fixture.remote() == remote
    assert len(fixture.brokers.questions_about_first_messages) == 2 + 2 * SUSPICION_PATIENCE_SECONDS


def test_a_groups_commit_is_not_asked_for_without_suspicion() -> None:
    """A leader that commits elsewhere, or whose commits have expired, is followed as ever."""
    fixture = Fixture()
    fixture.brokers.log_ends = {0: 10}
    fixture.brokers.told = {FIRST: PartitionRange(0, 900, first_timestamp_ms=5_000)}
    fixture.assign(FIRST)
    fixture.publish(423, timestamp_ms=5_000)
    fixture.verifier.ask()
    fixture.clock.now += INTERVAL_SECONDS
    fixture.verifier.ask()
    assert fixture.remote() == 423
    assert fixture.brokers.questions_about_commits == []


def test_a_truncated_partition_is_told_and_asked_about_again_at_once(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is released of it before it has been answered."""
    fixture = Fixture()
    fixture.ends(first=100)
    fixture.assign(FIRST)
    fixture.publish(50)
    fixture.verifier.ask()
    assert fixture.remote() == 50
    fixture.clock.now += REFRESH_SECONDS
    fixture.ends(first=60)
    fixture.verifier.ask()
    assert fixture.remote() is None
    assert caplog.messages == [
        "events[0]: ends at 60, though it reached to 100 before: it was truncated, as by an unclean election. What its "
        "leaders published is verified anew"
    ]
    fixture.verifier.ask()
    assert fixture.remote() == 50


def test_what_one_election_has_truncated_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """Sentry's SDK makes an event of each: one of every partition that the broker leads."""
    fixture = Fixture()
    fixture.ends(first=100, second=100)
    fixture.assign(FIRST, SECOND)
    fixture.verifier.ask()
    fixture.brokers.is_one_broker = True
    fixture.clock.now += REFRESH_SECONDS
    fixture.ends(first=60, second=70)
    fixture.verifier.ask()
    (line,) = caplog.messages
    assert line.startswith("events[0]: ends at 60, though it reached to 100 before")
    assert line.endswith("is verified anew. Likewise events[1]")


def about_to_refresh(
    received: Mapping[PartitionKey, int], *others: PartitionKey, topic_id: str | None = None
) -> Fixture:
    """A follower that has received so much of partitions that reach to 100, and nothing of the others, is about to ask
    where they end."""
    fixture = Fixture()
    fixture.brokers.told = dict.fromkeys((*received, *others), PartitionRange(0, 100))
    if topic_id is not None:
        fixture.brokers.topic_id = topic_id
    fixture.assign(*received, *others)
    fixture.verifier.ask()
    for key, offset in received.items():
        fixture.manager.cell(*key).received = offset
    fixture.clock.now += REFRESH_SECONDS
    return fixture


def test_a_follower_that_has_read_what_is_lost_ends() -> None:
    """Else what it holds of it would go downstream once the leaders are past what takes its place."""
    fixture = about_to_refresh({FIRST: 98}, SECOND)
    remotes: list[int | None] = []
    fixture.brokers.before_blocking_answer = lambda: remotes.append(fixture.remote(SECOND))
    fixture.ends(first=60, second=120)
    fixture.publish(50, SECOND)
    assert fixture.remote(SECOND) == 50
    with pytest.raises(
        PartitionTruncated, match=r"^events\[0\] ends at 60, though it was read to 98: it was "
    ) as raised:
        fixture.verifier.ask()
    assert (raised.value.ends, raised.value.read_to) == ({0: 60}, {0: 98})
    assert fixture.brokers.blocking == [{SECOND}], "in time: it may be truncated as well"
    assert remotes == [None], "nothing is released any more, of no partition"


def test_a_follower_that_has_read_what_is_lost_ends_so_if_nothing_else_can_be_asked(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """By another error nobody would know where its group goes on."""
    caplog.set_level(logging.DEBUG)
    fixture = about_to_refresh({FIRST: 98}, SECOND)
    fixture.brokers.cannot_wait = RuntimeError("no more threads")
    fixture.ends(first=60, second=100)
    with pytest.raises(PartitionTruncated):
        fixture.verifier.ask()
    assert "Can't ask whether events is another topic: no more threads" in caplog.messages


def test_a_follower_that_has_read_what_is_lost_ends_so_if_the_topic_is_not_there_at_the_moment() -> None:
    """It may be deleted, and then there is another one: that is asked again as the group leaves."""
    fixture = about_to_refresh({FIRST: 98}, topic_id="one")
    fixture.publish(50)
    fixture.brokers.topic_id = KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)
    fixture.ends(first=60)
    with pytest.raises(PartitionTruncated):
        fixture.verifier.ask()


def test_partitions_of_another_topic_are_none_of_the_truncated_one() -> None:
    """A partition is known by its index to whoever goes on there."""
    other = ("others", 0)
    fixture = about_to_refresh({SECOND: 95, other: 95})
    fixture.brokers.is_one_broker = True
    fixture.brokers.told = dict.fromkeys((SECOND, other), PartitionRange(0, 97))
    with pytest.raises(PartitionTruncated) as raised:
        fixture.verifier.ask()
    assert (raised.value.topic, raised.value.ends) == ("events", {1: 97})


def test_other_partitions_that_are_truncated_as_well_are_told_of_with_the_first() -> None:
    """Each has a broker of its own, and once the follower has ended they may have grown as far again."""
    third, fourth = ("events", 2), ("events", 3)
    fixture = about_to_refresh(dict.fromkeys((FIRST, SECOND, third), 95), fourth)
    fixture.brokers.told = dict.fromkeys((FIRST, SECOND, fourth), PartitionRange(0, 97))
    with pytest.raises(PartitionTruncated) as raised:
        fixture.verifier.ask()
    assert raised.value.ends == {0: 97, 1: 97}, "of the third one nobody tells, and of the fourth nothing was read"
    assert raised.value.read_to == {0: 95, 1: 95}


def test_whether_partitions_are_truncated_is_asked_while_the_commit_log_is_read_again() -> None:
    """That may take long, and they grow meanwhile."""
    fixture = about_to_refresh({FIRST: 95})
    fixture.offsets.disable()
    fixture.ends(first=97)
    with pytest.raises(PartitionTruncated) as raised:
        fixture.verifier.ask()
    assert (raised.value.ends, raised.value.read_to) == ({0: 97}, {0: 95})


def test_a_follower_ends_though_the_partition_has_grown_past_what_it_has_read() -> None:
    """It was cut to 60, and is at 97 before the brokers can be asked: at what was read up to 95 others lie now."""
    fixture = about_to_refresh({FIRST: 95})
    fixture.ends(first=97)
    with pytest.raises(
        PartitionTruncated,
        match=r"^events\[0\] ends at 97, having reached further, and was read to 95: it was truncated, as by an "
        r"unclean election, and what was read may be gone\. Restart",
    ) as raised:
        fixture.verifier.ask()
    assert (raised.value.ends, raised.value.read_to) == ({0: 97}, {0: 95})


def test_of_what_one_election_has_truncated_the_line_names_what_was_read_past_an_end() -> None:
    """That is sure, of the others it is only possible."""
    fixture = about_to_refresh({FIRST: 50, SECOND: 98})
    fixture.brokers.is_one_broker = True
    fixture.ends(first=60, second=60)
    expected = r"^events\[1\] ends at 60, though it was read to 98 \(and 1 more were truncated\): it was"
    with pytest.raises(PartitionTruncated, match=expected) as raised:
        fixture.verifier.ask()
    assert (raised.value.ends, raised.value.read_to) == ({0: 60, 1: 60}, {0: 50, 1: 98})


@pytest.mark.parametrize(
    ("position", "received", "is_lost"),
    [(61, None, True), (1, None, True), (0, None, False), (0, 1, True)],
    ids=["it begins past the end", "it begins within", "it begins where the log does", "it has read of it"],
)
def test_what_is_lost_is_that_before_where_the_follower_reads_on(
    position: int, received: int | None, is_lost: bool
) -> None:
    """Also where nothing was received since it began: what takes the place of what is gone lies below."""
    fixture = Fixture()
    fixture.ends(first=100)
    fixture.assign(FIRST)
    fixture.manager.set_local_offset(*FIRST, position)
    fixture.verifier.ask()
    fixture.manager.cell(*FIRST).received = received
    fixture.clock.now += REFRESH_SECONDS
    fixture.ends(first=60)
    with pytest.raises(PartitionTruncated) if is_lost else nullcontext():
        fixture.verifier.ask()


def test_what_is_handed_on_while_the_brokers_are_asked_is_not_lost() -> None:
    """It came after the place where the partition ended, and after it was truncated."""
    fixture = Fixture()
    fixture.ends(first=100)
    fixture.assign(FIRST)
    fixture.manager.set_local_offset(*FIRST, 0)
    fixture.verifier.ask()
    fixture.clock.now += REFRESH_SECONDS
    fixture.ends(first=60)
    fixture.brokers.before_answer = lambda: fixture.manager.set_local_offset(*FIRST, 80)
    fixture.verifier.ask()


def test_a_new_topic_that_ends_at_less_is_not_taken_for_a_truncated_one() -> None:
    """Its id is asked for then, though that wasn't due."""
    fixture = about_to_refresh({FIRST: 98}, topic_id="one")
    fixture.publish(50)
    fixture.ends(first=10)
    fixture.brokers.topic_id = "two"
    with pytest.raises(TopicRecreated):
        fixture.verifier.ask()


# Its thread.


def test_the_thread_asks_when_it_is_woken() -> None:
    """It calls the periodic checks, too, and ends when it is told to."""
    fixture = Fixture()
    fixture.ends(first=5)
    fixture.read(FIRST)
    fixture.ends(first=5)
    fixture.brokers.asked.clear()
    periodic_checks = threading.Semaphore(0)

    def check() -> float:
        periodic_checks.release()
        return 3_600.0

    thread = threading.Thread(target=fixture.verifier.run, args=(check,), daemon=True)
    thread.start()
    try:
        assert periodic_checks.acquire(timeout=TIMEOUT_SECONDS)
        fixture.publish(5)
        fixture.verifier.wake()
        assert fixture.brokers.asked.wait(TIMEOUT_SECONDS)
    finally:
        fixture.verifier.stop()
        thread.join(TIMEOUT_SECONDS)
    assert not thread.is_alive()
    assert fixture.remote() == 5, "what it was told when it asked last is applied before it ends"
    assert periodic_checks.acquire(blocking=False), "a check follows each time that it has asked"


def test_progress_a_report_that_needs_no_look_up_waits_for_none() -> None:
    """With slow remote storage every rebalance shut the gate for as long as that takes, ten seconds of each.

    A younger report, and one that carries the topic's id, is judged by the ends alone.
    """
    fixture = Fixture()
    fixture.brokers.topic_id = "one"
    fixture.brokers.slow = {FIRST, SECOND}
    fixture.brokers.log_ends = {0: 100}
    fixture.publish(5, topic_id="one")
    fixture.publish(6, SECOND)
    fixture.assign(FIRST, SECOND)
    fixture.brokers.told = dict.fromkeys((FIRST, SECOND), PartitionRange(0, 10, first_timestamp_ms=0))
    fixture.verifier.ask()
    fixture.verifier.ask()
    assert (fixture.remote(FIRST), fixture.remote(SECOND)) == (5, None)
    for _ in range(3):
        fixture.clock.now += INTERVAL_SECONDS
        fixture.verifier.ask()
    assert fixture.brokers.questions_about_first_messages == [{FIRST, SECOND}], "it is on its way"
    for answer in fixture.brokers.late:
        answer()
    fixture.verifier.ask()
    assert fixture.remote(SECOND) == 6


def test_a_slow_look_up_delays_its_own_partition_alone_and_is_asked_for_once() -> None:
    """The other one is verified at once; later answers about ends, and refreshes, look nothing up."""
    fixture = Fixture()
    fixture.brokers.slow = {FIRST}
    fixture.publish(5)
    fixture.publish(6, SECOND)
    fixture.assign(FIRST, SECOND)
    fixture.brokers.log_ends = {0: 100}  # so both reports are older, and the first message tells
    fixture.brokers.told = dict.fromkeys((FIRST, SECOND), PartitionRange(0, 10, first_timestamp_ms=0))
    for _ in range(3):
        fixture.verifier.ask()
        fixture.clock.now += INTERVAL_SECONDS
    assert (fixture.remote(FIRST), fixture.remote(SECOND)) == (None, 6)
    assert fixture.brokers.questions_about_first_messages == [{FIRST, SECOND}]
    fixture.brokers.late.pop()()
    fixture.verifier.ask()
    assert fixture.remote(FIRST) == 5
    fixture.clock.now += REFRESH_SECONDS
    fixture.verifier.ask()
    assert fixture.brokers.questions[-1] == {FIRST, SECOND}
    assert fixture.brokers.questions_about_first_messages == [{FIRST, SECOND}]


def test_a_partition_in_which_trust_begins_anew_does_not_wait_for_the_answer_to_an_older_question() -> None:
    """That one doesn't count: the topic may be another since."""
    fixture = Fixture()
    fixture.brokers.slow = {FIRST}
    fixture.publish(5)
    fixture.assign(FIRST)
    fixture.ends(first=10)
    fixture.verifier.ask()
    fixture.assign(FIRST)
    fixture.brokers.slow = set()
    fixture.brokers.late.pop()()
    assert fixture.remote() is None
    fixture.verifier.ask()
    assert fixture.remote() == 5


def test_an_older_answer_does_not_make_it_ask_again_for_what_is_being_looked_up() -> None:
    """A look-up by time may take long, and the broker is to do it once."""
    fixture = Fixture()
    fixture.read(FIRST)
    fixture.ends(first=10)
    fixture.brokers.slow = {FIRST}
    fixture.brokers.all_are_slow = True
    fixture.publish(5)
    fixture.verifier.ask()
    fixture.assign(FIRST)
    fixture.verifier.ask()
    about_end, about_first_message = fixture.brokers.late
    asked = len(fixture.brokers.questions)
    about_end()
    for _ in range(3):
        fixture.clock.now += INTERVAL_SECONDS
        fixture.verifier.ask()
    assert len(fixture.brokers.questions) == asked
    about_first_message()
    fixture.verifier.ask()
    assert fixture.remote() == 5


def test_nothing_is_kept_of_revoked_partitions() -> None:
    """A follower may have had thousands in its life; one that was never asked about, too."""
    fixture = Fixture()
    fixture.assign(FIRST, SECOND)
    fixture.ends(first=10)
    fixture.brokers.slow = {FIRST}
    fixture.verifier.ask()
    assert fixture.verifier._asked_at.keys() == {FIRST, SECOND}
    assert fixture.verifier._in_flight == {FIRST}
    fixture.verifier.revoke([FIRST, SECOND, ("events", 7)])
    assert not fixture.verifier._asked_at
    assert not fixture.verifier._in_flight


class Running:
    """The thread of a verifier that has nothing to ask, and the periodic checks that it makes."""

    def __init__(self, seconds: float) -> None:
        self.fixture = Fixture()
        self.checks = threading.Semaphore(0)
        self._seconds = seconds
        self._thread = threading.Thread(target=self.fixture.verifier.run, args=(self._check,), daemon=True)
        self._thread.start()

    def _check(self) -> float:
        self.checks.release()
        return self._seconds

    def stop(self) -> None:
        self.fixture.verifier.stop()
        self._thread.join(TIMEOUT_SECONDS)
        assert not self._thread.is_alive()


def test_the_thread_waits_until_it_is_woken() -> None:
    """Once for each time that it is, whatever else is due; and it ends at once."""
    running = Running(3_600.0)
    assert running.checks.acquire(timeout=TIMEOUT_SECONDS)
    for _ in range(2):
        running.fixture.verifier.wake()
        assert running.checks.acquire(timeout=TIMEOUT_SECONDS)
    assert not running.checks.acquire(timeout=0.05)
    running.stop()


def test_the_thread_wakes_by_itself_when_a_periodic_check_is_due() -> None:
    """As often as the check itself has said."""
    running = Running(0.001)
    for _ in range(3):
        assert running.checks.acquire(timeout=TIMEOUT_SECONDS)
    running.stop()


def test_an_id_that_is_not_answered_is_waited_for() -> None:
    """A broker that is away for a moment is no broker that knows no ids."""
    fixture = Fixture()
    fixture.ends(first=900)
    fixture.assign(FIRST)
    fixture.publish(423, topic_id="one")
    fixture.verifier.ask()
    assert fixture.remote() is None
    fixture.brokers.topic_id = "one"
    fixture.clock.now += INTERVAL_SECONDS
    fixture.verifier.ask()
    assert fixture.remote() == 423


def test_an_id_that_was_told_once_stays_known_when_it_can_not_be_asked_any_more() -> None:
    """Permissions change; the topic doesn't."""
    fixture = Fixture()
    fixture.brokers.topic_id = "one"
    fixture.read(FIRST)
    fixture.brokers.topic_id = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)
    fixture.verifier.ask()
    fixture.publish(0, topic_id="two")
    fixture.verifier.ask()
    assert (fixture.remote(), fixture.verifier.impossible) == (None, 1)


def test_what_a_group_has_committed_is_asked_for_once_a_second_while_it_is_suspected() -> None:
    """However often it is woken, and it says when it is due again; a new suspicion is asked about at once."""
    fixture = suspicious(FIRST)
    assert [fixture.verifier.ask() for _ in range(3)] == [INTERVAL_SECONDS] * 3
    assert len(fixture.brokers.questions_about_commits) == 1
    fixture.clock.now += INTERVAL_SECONDS
    fixture.verifier.ask()
    assert len(fixture.brokers.questions_about_commits) == 2
    fixture.publish(30, timestamp_ms=5_000)
    fixture.verifier.ask()
    fixture.publish(20, timestamp_ms=4_999)
    fixture.verifier.ask()
    assert len(fixture.brokers.questions_about_commits) == 3


def test_the_id_is_asked_for_once_a_second_however_often_it_is_woken() -> None:
    """Each report that waits for proof wakes it."""
    fixture = Fixture()
    fixture.read(FIRST)
    for _ in range(3):
        fixture.verifier.ask()
    assert fixture.brokers.questions_about_ids == 1


def test_it_says_when_the_next_question_is_due() -> None:
    """Whichever it is: about a partition, the id, or all of them."""
    fixture = Fixture()
    fixture.assign(FIRST)
    assert fixture.verifier.ask() == INTERVAL_SECONDS
    fixture.clock.now += 0.5
    fixture.brokers.told = {SECOND: PartitionRange(0, 0)}
    fixture.assign(SECOND)
    assert fixture.verifier.ask() == 0.5, "the first one has no answer yet"
    fixture.ends(first=0, second=0)
    fixture.clock.now += 0.5
    assert fixture.verifier.ask() == 0.5, "the id"
    fixture.clock.now += REFRESH_SECONDS - 1.25
    assert fixture.verifier.ask() == 0.25, "all of them"
