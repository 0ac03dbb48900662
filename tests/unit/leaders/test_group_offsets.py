"""The source that asks for the groups' commits, step by step, with brokers that answer what their script says."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from math import ceil
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from arroyo_sync.core.source import LeaderOffset, SourceStatistics
from arroyo_sync.core.state import PartitionKey, SynchronizedPartitionStateManager
from arroyo_sync.kafka.errors import FRESH_SECONDS, PARDON_SECONDS
from arroyo_sync.kafka.questions.asker import PartitionRange
from arroyo_sync.leaders import offset_source
from arroyo_sync.leaders.group_offsets import TIMEOUT_SECONDS, GroupOffsetsSource
from arroyo_sync.leaders.verifier import SUSPICION_PATIENCE_SECONDS
from tests.support.fakes import Clock
from tests.support.scripted_asker import ScriptedAsker, asker_of
from tests.support.threads import PATIENCE_SECONDS

CONFIGURATION = {"bootstrap.servers": "127.0.0.1:1"}
KEY, OTHER = ("events", 0), ("events", 1)
NO_ANSWER = KafkaError(KafkaError._TIMED_OUT, "the coordinator is down")


@pytest.fixture(autouse=True)
def _scripted_asker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offset_source, "Asker", ScriptedAsker)


class Waits(threading.Condition):
    """The waits of the reading thread: a step of the test is in each, and its time is over if that doesn't end it."""

    def __init__(self, clock: Clock, stopping: threading.Event) -> None:
        super().__init__()
        self._clock = clock
        self._stopping = stopping
        self.steps: list[Callable[[], None]] = []
        self.lasted: list[float | None] = []
        """How long each wait was that nothing has ended."""

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        (self.steps.pop(0) if self.steps else self._stopping.set)()
        is_ended = predicate()
        if not is_ended:
            self.lasted.append(timeout)
            assert timeout is not None
            self._clock.now += timeout
        return is_ended


class Fixture:
    """A source whose reading thread is the test's own."""

    def __init__(self, *groups: str, **arguments: Any) -> None:
        self.clock = Clock()
        self.source = GroupOffsetsSource(CONFIGURATION, groups=groups or {"g"}, clock=self.clock, **arguments)
        self.asker = asker_of(self.source)
        self.manager = SynchronizedPartitionStateManager()
        self.source._manager = self.manager
        self.source._offsets.attach(self.manager)
        self.waits = Waits(self.clock, self.source._stopping)
        self.source._changed = self.waits

    def assign(self, *keys: PartitionKey) -> None:
        """Anew, if they are assigned already."""
        self.source.assign(dict.fromkeys(keys, 0), None)

    def run(self, *steps: Callable[[], None]) -> None:
        """What the reading thread does from its start until these steps are done, one in each of its waits."""
        self.source._stopping.clear()
        self.waits.steps = list(steps)
        self.source._read()
        self.source._verifier.ask()

    def ask(self) -> None:
        """Another interval later the groups are asked, and what those answer that do is taken in."""
        self.clock.now += 1.0
        self.run(self.idle)

    def idle(self) -> None:
        """A step in which nothing happens."""

    def commit(self, offset: int | KafkaError, key: PartitionKey = KEY, group: str = "g") -> None:
        self.asker.committed.setdefault(group, {})[key] = offset

    def answer(self) -> None:
        """The slow group whose question is the oldest answers."""
        self.asker.late.pop(0)()

    def asked(self) -> list[tuple[str, list[PartitionKey]]]:
        """What was asked since the last call."""
        questions = [(group, keys) for group, keys, _ in self.asker.asked("commits")]
        self.asker.questions.clear()
        return questions

    def remote(self, key: PartitionKey = KEY) -> int | None:
        return self.manager.cell(*key).remote


def test_the_commit_of_the_slowest_group_is_the_remote_offset() -> None:
    """Of each partition, at the next question, forwards and back."""
    fixture = Fixture("a", "b")
    fixture.assign(KEY, OTHER)
    for group, key, offset in (("a", KEY, 50), ("b", KEY, 20), ("a", OTHER, 7), ("b", OTHER, 9)):
        fixture.commit(offset, key, group)
    fixture.ask()
    assert (fixture.remote(KEY), fixture.remote(OTHER)) == (20, 7)
    fixture.commit(60, KEY, "b")
    fixture.commit(6, OTHER, "a")
    fixture.ask()
    assert (fixture.remote(KEY), fixture.remote(OTHER)) == (50, 6)
    assert fixture.source.statistics().rewinds == 1


def test_it_tells_what_it_has_done() -> None:
    """An answer that tells of anything counts as read; the groups are those that have committed anything."""
    fixture = Fixture("a", "b", "c")
    fixture.assign(KEY, OTHER)
    fixture.commit(5, KEY, "b")
    fixture.commit(NO_ANSWER, OTHER, "b")
    fixture.commit(NO_ANSWER, KEY, "c")
    fixture.commit(NO_ANSWER, OTHER, "c")
    fixture.ask()
    told = SourceStatistics(ready=True, alive=False, read=2, groups_reported=["b"])
    assert fixture.source.statistics() == told
    for offset in (4, 3):
        fixture.commit(offset, KEY, "b")
        fixture.ask()
    fixture.commit(1, KEY, "a")
    fixture.ask()
    told = SourceStatistics(ready=True, alive=False, read=8, rewinds=2, groups_reported=["a", "b"])
    assert fixture.source.statistics() == told


def test_a_commit_beyond_the_end_is_impossible_once(caplog: pytest.LogCaptureFixture) -> None:
    """However often the brokers tell it; another one that can be counts."""
    fixture = Fixture()
    fixture.asker.ranges = {KEY: PartitionRange(0, 100)}
    fixture.assign(KEY)
    fixture.ask()
    fixture.commit(5_000)
    for _ in range(4):
        fixture.ask()
    assert (fixture.source.statistics().impossible, fixture.remote()) == (1, None)
    assert len([line for line in caplog.messages if "group 'g' published offset 5000" in line]) == 1
    assert list(fixture.source.rejected()) == [KEY]
    fixture.commit(50)
    fixture.ask()
    assert (fixture.source.statistics().impossible, fixture.remote()) == (1, 50)


def test_what_is_known_of_a_group_is_its_last_commit_and_when_it_was_told() -> None:
    """Where it never committed, nothing; where the commit is gone, that, since it was told so first."""
    fixture = Fixture()
    fixture.assign(OTHER, KEY)
    fixture.commit(50)
    fixture.ask()
    assert fixture.source.published() == {KEY: {"g": LeaderOffset(50, -1, fixture.clock.now)}}
    assert fixture.remote() == 50
    fixture.asker.committed.clear()
    fixture.ask()
    gone = fixture.source.published()[KEY]["g"]
    assert (gone.offset, gone.read_at_seconds, fixture.remote()) == (None, fixture.clock.now, None)
    fixture.ask()
    assert fixture.source.published() == {KEY: {"g": gone}}
    fixture.commit(51)
    fixture.ask()
    assert fixture.remote() == 51


def test_the_groups_are_asked_again_once_an_interval() -> None:
    """Half a second, unless another is wished; and every question has two seconds."""
    for arguments, interval in (({}, 0.5), ({"interval_seconds": 3.0}, 3.0)):
        fixture = Fixture("a", "b", **arguments)
        fixture.assign(KEY)
        fixture.run(*[fixture.idle] * 5)  # an answer ends each other wait
        assert fixture.waits.lasted == [interval, interval]
        assert fixture.asker.asked("commits") == [(group, [KEY], 2.0) for group in ("a", "b")] * 3


def test_a_group_that_does_not_answer_delays_no_other() -> None:
    """It isn't asked again before it has answered, and at once if that took longer than an interval."""
    fixture = Fixture("a", "b")
    fixture.asker.slow = {"a"}
    fixture.commit(50, group="a")
    fixture.commit(20, group="b")
    fixture.assign(KEY)
    fixture.run(*[fixture.idle] * 5)
    assert fixture.waits.lasted == [0.5, 0.5]
    assert fixture.asked() == [("a", [KEY]), ("b", [KEY]), ("b", [KEY]), ("b", [KEY])]
    assert fixture.remote() is None
    fixture.run(fixture.answer, fixture.idle)
    assert fixture.asked() == [("a", [KEY]), ("b", [KEY])]
    assert fixture.waits.lasted == [0.5, 0.5, 0.5]
    assert fixture.remote() == 20


def test_only_assigned_partitions_are_asked_about() -> None:
    """At once when they are assigned, however long the interval; nothing is asked while there are none."""
    fixture = Fixture(interval_seconds=3_600.0)
    fixture.commit(50, KEY)
    fixture.commit(60, OTHER)
    fixture.run(
        fixture.idle,
        lambda: fixture.assign(KEY),
        fixture.idle,
        lambda: fixture.assign(OTHER),
        fixture.idle,
    )
    assert fixture.waits.lasted == [TIMEOUT_SECONDS]
    assert fixture.asked() == [("g", [KEY]), ("g", [KEY, OTHER])]
    assert (fixture.remote(KEY), fixture.remote(OTHER)) == (50, 60)
    fixture.source.revoke([KEY])
    fixture.source.revoke([("never", 0)])
    assert fixture.source.published([KEY, OTHER]).keys() == {OTHER}
    fixture.clock.now += 3_600.0
    fixture.run(fixture.idle)
    assert fixture.asked() == [("g", [OTHER])]
    assert (fixture.remote(KEY), fixture.remote(OTHER)) == (None, 60)


def test_what_is_assigned_while_a_group_does_not_answer_is_asked_about_when_it_has() -> None:
    """The assignment ends the wait, but a group has one question at a time."""
    fixture = Fixture()
    fixture.asker.slow = {"g"}
    fixture.assign(KEY)
    fixture.run(fixture.idle, lambda: fixture.assign(OTHER), fixture.idle)
    assert fixture.waits.lasted == [TIMEOUT_SECONDS, TIMEOUT_SECONDS]
    fixture.run(fixture.answer)
    assert fixture.asked() == [("g", [KEY]), ("g", [KEY, OTHER])]


def test_an_answer_from_before_an_assignment_does_not_count_for_it() -> None:
    """The group may have gone back since. Of the partitions that aren't assigned anew it does."""
    fixture = Fixture()
    fixture.asker.slow = {"g"}
    fixture.commit(50, KEY)
    fixture.commit(60, OTHER)
    fixture.assign(KEY, OTHER)
    fixture.run()
    fixture.commit(30, KEY)
    fixture.assign(KEY)
    fixture.run(fixture.answer)
    assert (fixture.remote(KEY), fixture.remote(OTHER)) == (None, 60)
    fixture.run(fixture.answer)
    assert (fixture.remote(KEY), fixture.remote(OTHER)) == (30, 60)


def test_an_answer_about_a_revoked_partition_does_not_count() -> None:
    """Nothing is kept of it."""
    fixture = Fixture()
    fixture.asker.slow = {"g"}
    fixture.commit(50, KEY)
    fixture.commit(60, OTHER)
    fixture.assign(KEY, OTHER)
    fixture.run()
    fixture.source.revoke([KEY])
    fixture.run(fixture.answer)
    assert fixture.source.published([KEY, OTHER]).keys() == {OTHER}


def test_a_group_that_cannot_be_asked_keeps_what_it_had_committed(caplog: pytest.LogCaptureFixture) -> None:
    """A line says so, once a minute, and one that it can be asked again. What is told of other partitions counts."""
    fixture = Fixture("a", "b")
    for key in (KEY, OTHER):
        fixture.commit(50, key, "a")
        fixture.commit(90, key, "b")
    fixture.assign(KEY, OTHER)
    fixture.ask()
    assert caplog.messages == []
    fixture.commit(NO_ANSWER, KEY, "a")
    fixture.commit(60, OTHER, "a")
    for _ in range(60):
        fixture.ask()
    assert (fixture.remote(KEY), fixture.remote(OTHER)) == (50, 60)
    one = "can't ask what group 'a' has committed of 1 partitions: the coordinator is down. It is tried again"
    assert caplog.messages == [f"group offsets of a, b: {one}"]
    fixture.commit(NO_ANSWER, OTHER, "a")
    fixture.ask()
    assert caplog.messages[1:] == [f"group offsets of a, b: {one.replace('1 partitions', '2 partitions')}"]
    fixture.commit(70, KEY, "a")
    fixture.commit(80, OTHER, "a")
    for _ in range(3):
        fixture.ask()
    assert caplog.messages[2:] == ["group offsets of a, b: group 'a' can be asked again what it has committed"]
    assert {record.levelno for record in caplog.records} == {logging.WARNING}
    assert (fixture.remote(KEY), fixture.remote(OTHER)) == (70, 80)


def test_each_cause_has_its_own_line_and_each_group(caplog: pytest.LogCaptureFixture) -> None:
    """A group that comes and goes within a minute is told of once."""
    fixture = Fixture("a", "b")
    fixture.assign(KEY)
    for group, error in (("a", NO_ANSWER), ("b", NO_ANSWER), ("a", KafkaError(KafkaError._TRANSPORT, "refused"))):
        fixture.commit(error, KEY, group)
        fixture.ask()
    answers: list[int | KafkaError] = [5, NO_ANSWER, 6]
    for answer in answers:
        fixture.commit(answer, KEY, "a")
        fixture.ask()
    assert [line.removeprefix("group offsets of a, b: ") for line in caplog.messages] == [
        "can't ask what group 'a' has committed of 1 partitions: the coordinator is down. It is tried again",
        "can't ask what group 'b' has committed of 1 partitions: the coordinator is down. It is tried again",
        "can't ask what group 'a' has committed of 1 partitions: refused. It is tried again",
        "group 'a' can be asked again what it has committed",
    ]


def test_a_missing_permission_ends_it() -> None:
    """Of one partition as of all; waiting doesn't mend it."""
    fixture = Fixture()
    fixture.assign(KEY, OTHER)
    fixture.commit(50, KEY)
    fixture.commit(KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED, "group g is not for you"), OTHER)
    with pytest.raises(KafkaException, match="group g is not for you"):
        fixture.ask()


GROUP_REFUSED = KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED, "group g is not for you")


def test_a_permission_that_is_refused_for_a_moment_is_told_of_and_that_it_is_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As that a group can't be asked for another reason. What it had committed stays in force."""
    fixture = Fixture()
    fixture.assign(KEY)
    fixture.commit(50)
    fixture.ask()
    fixture.clock.now += FRESH_SECONDS
    for _ in range(int(2 * PARDON_SECONDS)):
        for answer in (GROUP_REFUSED, 60):
            fixture.commit(answer)
            fixture.ask()
    assert fixture.remote() == 60
    assert [line.partition("group g")[0] for line in caplog.messages[:2]] == [
        "Kafka refuses a permission for group 'g': ",
        "group offsets of g: can't ask what group 'g' has committed of 1 partitions: ",
    ]
    assert caplog.messages[2] == "group offsets of g: group 'g' can be asked again what it has committed"


@pytest.mark.parametrize("interval_seconds", [0.5, 300.0])
def test_a_permission_that_is_refused_for_a_minute_ends_it_however_seldom_the_groups_are_asked(
    interval_seconds: float,
) -> None:
    fixture = Fixture(interval_seconds=interval_seconds)
    fixture.assign(KEY)
    fixture.commit(50)
    fixture.ask()
    fixture.clock.now += FRESH_SECONDS + interval_seconds
    fixture.commit(GROUP_REFUSED)
    began = fixture.clock.now
    with pytest.raises(KafkaException, match="group g is not for you"):
        fixture.run(*[fixture.idle] * 1_000)
    assert began + PARDON_SECONDS <= fixture.clock.now <= began + PARDON_SECONDS + 2 * TIMEOUT_SECONDS


def test_the_clients_own_end_proves_a_commit() -> None:
    """As it does for what is published on a commit log."""

    class Cached:
        end = 0

        def cached(self, topic: str, partition: int) -> int | None:
            return self.end

    fixture = Fixture()
    fixture.asker.ranges = {KEY: PartitionRange(0, 0)}
    watermarks = Cached()
    fixture.source.assign({KEY: 0}, watermarks)
    fixture.ask()
    fixture.commit(5)
    fixture.clock.now += 0.75
    fixture.run(fixture.idle)
    assert (len(fixture.source.unverified), fixture.remote()) == (1, None)
    watermarks.end = 10
    fixture.source.refresh_known_ends()
    assert (len(fixture.source.unverified), fixture.remote()) == (0, 5)


def test_a_commit_that_no_broker_verifies_for_long_is_counted() -> None:
    """As what a leader has published is."""
    fixture = Fixture()
    fixture.asker.ranges = {KEY: NO_ANSWER}
    fixture.assign(KEY)
    fixture.commit(5)
    fixture.ask()
    assert fixture.source.statistics().unverified == 0
    for _ in range(ceil(SUSPICION_PATIENCE_SECONDS) + 1):
        fixture.ask()
    assert (fixture.source.statistics().unverified, fixture.remote()) == (1, None)


def test_an_answer_on_another_thread_is_taken_in_at_once() -> None:
    """However long the interval; the reading thread waits for it."""
    source = GroupOffsetsSource(CONFIGURATION, groups={"g"}, interval_seconds=3_600.0)
    asker = asker_of(source)
    asker.committed, asker.slow = {"g": {KEY: 50}}, {"g"}
    manager = SynchronizedPartitionStateManager()
    source.start(manager)
    try:
        source.wait_until_ready(PATIENCE_SECONDS)
        source.assign({KEY: 0}, None)
        assert asker.is_asked.wait(PATIENCE_SECONDS)
        version = manager.version
        assert manager.cell(*KEY).remote is None
        (answer,) = asker.late
        answer()
        while manager.cell(*KEY).remote is None:
            assert manager.wait_for_move(version, PATIENCE_SECONDS), "nothing has woken the reading thread"
            version += 1
        assert manager.cell(*KEY).remote == 50
    finally:
        source.stop(PATIENCE_SECONDS)


def test_silence_is_told_of_partitions_that_are_assigned_for_long(caplog: pytest.LogCaptureFixture) -> None:
    """What was told of a revoked partition is forgotten, which is nobody's silence; nor is a question on its way."""
    clock = Clock()
    source = GroupOffsetsSource(CONFIGURATION, groups={"g"}, clock=clock)
    source._offsets.attach(SynchronizedPartitionStateManager())

    def warnings() -> list[str]:
        caplog.clear()
        source._warn_of_silence()
        return [record.getMessage() for record in caplog.records]

    source._set_ready(True)
    clock.now += offset_source.SILENCE_SECONDS
    assert warnings() == []
    source.assign({KEY: 0}, None)
    assert warnings() == []
    clock.now += offset_source.SILENCE_SECONDS
    (line,) = warnings()
    assert "group 'g' has published nothing at all" in line
    source.revoke([KEY])
    assert warnings() == []
