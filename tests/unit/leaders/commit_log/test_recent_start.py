"""Which commits a recent start takes, and when it gives up on them."""

from __future__ import annotations

from collections.abc import Collection

import pytest
from confluent_kafka import KafkaError, KafkaException

from arroyo_sync.core.state import PartitionKey, SynchronizedPartitionStateManager
from arroyo_sync.kafka.committed_offsets import CommittedOffsets
from arroyo_sync.leaders.commit_log.recent_start import RETRY_SECONDS, RecentStart
from arroyo_sync.leaders.commit_report import CommitReport
from arroyo_sync.leaders.leader_offsets import LeaderOffsets
from tests.support.fakes import Clock

FIRST, SECOND = ("events", 0), ("events", 1)


class Fixture:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.manager = SynchronizedPartitionStateManager()
        self.offsets = LeaderOffsets(["a", "b"])
        self.offsets.attach(self.manager)
        self.commits: dict[str, dict[PartitionKey, int] | KafkaException] = {}
        self.questions: list[tuple[str, list[PartitionKey]]] = []
        self.read_all = 0
        monkeypatch.setattr(CommittedOffsets, "ask", lambda _, *arguments: self.ask(*arguments))
        configuration = {"bootstrap.servers": "data:9092"}
        self.recent = RecentStart("log", self.offsets, configuration, self.begin_again, Clock())

    def begin_again(self) -> None:
        self.read_all += 1

    def ask(self, group: str, partitions: Collection[PartitionKey], timeout: float) -> dict[PartitionKey, int]:
        self.questions.append((group, list(partitions)))
        answer = self.commits[group]
        if isinstance(answer, KafkaException):
            raise answer
        return {key: offset for key, offset in answer.items() if key in partitions}

    def publish(self, offset: int | None, key: PartitionKey, group: str) -> None:
        self.offsets.apply([CommitReport(key, group, offset, 0, 0, 0)], 0.0)

    def remote(self, key: PartitionKey) -> int | None:
        return self.manager.cell(*key).remote


@pytest.fixture
def fixture(monkeypatch: pytest.MonkeyPatch) -> Fixture:
    return Fixture(monkeypatch)


def test_only_groups_that_said_nothing_of_an_assigned_partition_are_asked(fixture: Fixture) -> None:
    """Once the end of the log was read; and a tombstone is something said."""
    fixture.commits = {"a": {FIRST: 10, SECOND: 10}, "b": {FIRST: 20, SECOND: 20}}
    fixture.publish(5, FIRST, "a")
    fixture.publish(None, SECOND, "a")
    fixture.publish(5, ("events", 7), "b")
    fixture.offsets.assign({FIRST: None, SECOND: None})
    assert fixture.recent.step() == float("inf")
    assert fixture.questions == [], "the replay isn't over"
    fixture.offsets.enable()
    assert fixture.recent.step() == float("inf")
    assert fixture.questions == [("b", [FIRST, SECOND])]
    fixture.offsets.received(FIRST, 100)
    assert (fixture.remote(FIRST), fixture.remote(SECOND)) == (5, None)


def test_each_partition_is_asked_about_once(fixture: Fixture) -> None:
    """A group without a commit there will publish what it commits."""
    fixture.commits = {"a": {FIRST: 10}, "b": {FIRST: 10}}
    fixture.offsets.enable()
    fixture.offsets.assign({FIRST: None, SECOND: None})
    for _ in range(3):
        fixture.recent.step()
    assert fixture.questions == [("a", [FIRST, SECOND]), ("b", [FIRST, SECOND])]
    third = ("events", 2)
    fixture.commits["a"] = {third: 5}
    fixture.commits["b"] = {third: 5}
    fixture.offsets.assign({third: None})
    fixture.recent.step()
    assert fixture.questions[2:] == [("a", [third]), ("b", [third])]
    assert fixture.read_all == 0


def test_a_group_without_any_commit_has_all_read_instead(fixture: Fixture, caplog: pytest.LogCaptureFixture) -> None:
    """Once, and nothing is asked any more."""
    fixture.commits = {"a": {}, "b": {FIRST: 10}}
    fixture.offsets.enable()
    fixture.offsets.assign({FIRST: None})
    for _ in range(2):
        assert fixture.recent.step() == float("inf")
    assert (fixture.read_all, fixture.questions) == (1, [("a", [FIRST])])
    assert "Commit log log is read from its beginning, since group 'a' has no commits at data:9092" in caplog.text


def test_brokers_that_do_not_answer_are_asked_again(fixture: Fixture, caplog: pytest.LogCaptureFixture) -> None:
    """Soon; the other groups are asked meanwhile."""
    fixture.commits = {"a": KafkaException(KafkaError(KafkaError._TIMED_OUT)), "b": {FIRST: 10}}
    fixture.offsets.enable()
    fixture.offsets.assign({FIRST: None})
    for _ in range(2):
        assert fixture.recent.step() == RETRY_SECONDS
    assert len(caplog.records) == 1
    fixture.commits["a"] = {FIRST: 7}
    assert fixture.recent.step() == float("inf")
    fixture.offsets.received(FIRST, 100)
    assert fixture.remote(FIRST) == 7
    assert fixture.read_all == 0


def test_a_missing_permission_ends_the_source(fixture: Fixture) -> None:
    """Waiting doesn't mend it; nor a password that is refused, which librdkafka tells of by the way."""
    fixture.commits = {"a": KafkaException(KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED)), "b": {}}
    fixture.offsets.enable()
    fixture.offsets.assign({FIRST: None})
    with pytest.raises(KafkaException):
        fixture.recent.step()
    fixture.commits["a"] = KafkaException(KafkaError(KafkaError._TIMED_OUT))
    fixture.recent._on_error(KafkaError(KafkaError._AUTHENTICATION, "wrong password"))
    with pytest.raises(KafkaException, match="wrong password"):
        fixture.recent.step()


def test_closing_closes_what_was_opened(fixture: Fixture) -> None:
    """Nothing, here; it may be called again."""
    fixture.recent.close()
    fixture.recent.close()
