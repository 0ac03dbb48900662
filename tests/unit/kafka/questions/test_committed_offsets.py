"""A group that may not be looked at for a while, or no more: what its consumer tells, and when another one asks."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import pytest
from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from arroyo_sync.kafka.errors import RENEWAL_SECONDS
from arroyo_sync.kafka.questions import committed_offsets
from arroyo_sync.kafka.questions.committed_offsets import GroupCommits
from tests.support.answers import Answers
from tests.support.fakes import Clock
from tests.support.threads import PATIENCE_SECONDS

KEY = ("events", 0)
REFUSED = "GROUP_AUTHORIZATION_FAILED"


class Group:
    """On the brokers."""

    def __init__(self) -> None:
        self.is_refused = False
        self.is_silent = False
        self.consumers: list[Consumer] = []


class Consumer:
    """Tells once in its life that the group is refused, and else that there was no answer, as librdkafka does."""

    def __init__(self, group: Group) -> None:
        self.group = group
        self.events: list[Message] = []
        self.has_told = False
        self.is_closed = False
        group.consumers.append(self)

    def committed(self, partitions: Collection[TopicPartition], timeout: float) -> list[TopicPartition]:
        if not (self.group.is_refused or self.group.is_silent):
            return [TopicPartition(each.topic, each.partition, 7) for each in partitions]
        if self.group.is_refused and not self.has_told:
            self.has_told = True
            refused = KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED, "FindCoordinator response error")
            self.events.append(Message(None, -1, -1, None, None, None, refused, (0, -1)))
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT))

    def poll(self, timeout: float) -> Message | None:
        return self.events.pop() if self.events else None

    def close(self) -> None:
        self.is_closed = True


class Fixture:
    def __init__(self) -> None:
        self.group = Group()
        self.clock = Clock()
        self.commits = GroupCommits({"bootstrap.servers": "kafka:9092"}, "g", lambda error: None, self.clock)

    def ask(self) -> int | str:
        """What the group has committed, or the name of the error."""
        answers = Answers()
        self.commits.ask([KEY], 10.0, answers)
        answer = answers.wait_for(KEY)
        assert isinstance(answer, int | KafkaError)
        return answer.name() if isinstance(answer, KafkaError) else answer


@pytest.fixture
def fixture(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fixture]:
    fixture = Fixture()
    monkeypatch.setattr(committed_offsets, "make_client", lambda *_: Consumer(fixture.group))
    yield fixture
    fixture.commits.stop()
    fixture.commits.join(PATIENCE_SECONDS)


def test_another_consumer_asks_about_a_group_that_was_refused(fixture: Fixture) -> None:
    """Else that would still count while the group's coordinator is away, long after it was over."""
    assert fixture.ask() == 7
    fixture.group.is_refused = True
    assert [fixture.ask() for _ in range(3)] == [REFUSED] * 3
    assert len(fixture.group.consumers) == 1
    fixture.clock.now += RENEWAL_SECONDS
    assert fixture.ask() == REFUSED
    assert [each.is_closed for each in fixture.group.consumers] == [True, False]
    fixture.group.is_refused, fixture.group.is_silent = False, True
    fixture.clock.now += RENEWAL_SECONDS
    assert [fixture.ask(), fixture.ask()] == ["_TIMED_OUT"] * 2
    fixture.clock.now += RENEWAL_SECONDS
    assert fixture.ask() == "_TIMED_OUT"
    assert len(fixture.group.consumers) == 3, "it wasn't refused"


def test_a_consumer_that_was_refused_for_a_moment_is_replaced_all_the_same(fixture: Fixture) -> None:
    """It wouldn't tell if it is once more, and that would be taken for a coordinator that is away."""
    fixture.group.is_refused = True
    assert fixture.ask() == REFUSED
    fixture.group.is_refused = False
    assert fixture.ask() == 7
    fixture.clock.now += RENEWAL_SECONDS
    assert fixture.ask() == 7
    fixture.group.is_refused = True
    assert fixture.ask() == REFUSED
