"""In which order partitions are asked where the group begins, and how long each question may take.

What comes of the answers is in `test_replaced_log.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace

import pytest
from arroyo.types import Partition
from confluent_kafka import KafkaError, KafkaException

from arroyo_sync.core.errors import PartitionTruncated, TopicRecreated
from arroyo_sync.gate.consumer import beginning_questions
from arroyo_sync.gate.consumer.beginning_questions import GONE_SECONDS, BeginningQuestions, NotAsked
from tests.support.fakes import Clock, ScriptedConsumer, partition

NO_BROKER = RuntimeError("no broker")
UNKNOWN_PARTITION = KafkaException(KafkaError(KafkaError._UNKNOWN_PARTITION))


class Fixture:
    """A consumer of a topic that was created anew, whose brokers give these answers, by the partition's index."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = Clock()
        self.answers: dict[int, int | Exception] = {}
        self.seconds_an_answer = 0.0
        self.asked: list[tuple[int, float]] = []
        """Each question: the partition's index, and how long it might take."""
        self.inner = ScriptedConsumer()
        self.questions = BeginningQuestions(self.inner, TopicRecreated("events", "one", "two"), {}, lambda: False)
        monkeypatch.setattr(beginning_questions, "time", SimpleNamespace(monotonic=self.clock))
        monkeypatch.setattr(beginning_questions, "reset_offset", self.reset_offset)

    def reset_offset(
        self, consumer: object, partition: Partition, timeout: float, *, latest_at_most: int | None = None
    ) -> int:
        assert (consumer, partition.topic.name) == (self.inner, "events")
        self.asked.append((partition.index, timeout))
        self.clock.now += self.seconds_an_answer
        answer = self.answers.get(partition.index, NO_BROKER)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def ask(self, *indexes: int) -> tuple[dict[int, int], dict[int, str]]:
        """Which partitions begin where, and why the others aren't known to."""
        found, failed = self.questions.ask([partition(each) for each in indexes], self.clock.now + 15.0)
        return (
            {each.index: offset for each, offset in found.items()},
            {each.index: str(error) for each, error in failed.items()},
        )


@pytest.fixture
def fixture(monkeypatch: pytest.MonkeyPatch) -> Fixture:
    return Fixture(monkeypatch)


def test_each_round_in_which_nobody_answers_makes_the_questions_longer(fixture: Fixture) -> None:
    """Four times as long as in the one before, and no longer than all of them have together."""
    firsts: list[float] = []
    for _ in range(4):
        fixture.asked.clear()
        fixture.ask(*range(64))
        firsts.append(fixture.asked[0][1])
    assert firsts == [beginning_questions.SHORTEST_QUERY_SECONDS, 4 * 5.0 / 64, 16 * 5.0 / 64, 5.0]


def test_while_somebody_answers_the_questions_stay_as_short(fixture: Fixture) -> None:
    """So it is some brokers that are down, not all that are slow."""
    fixture.answers[2] = 7
    assert fixture.ask(0, 1, 2) == ({2: 7}, {0: "no broker", 1: "no broker"})
    fixture.asked.clear()
    fixture.ask(0, 1)
    assert fixture.asked == [(0, 5.0 / 2), (1, 5.0)]


def test_what_was_not_asked_stands_before_what_failed(fixture: Fixture) -> None:
    """So that its turn comes first in the next round. A reason is told of it, too."""
    fixture.seconds_an_answer = 2.5
    _, failed = fixture.ask(0, 1, 2)
    assert list(failed.items()) == [(2, "no time was left to ask"), (0, "no broker"), (1, "no broker")]


def topic_questions(fixture: Fixture, left: float) -> list[float]:
    """Partition 1 is unknown for so long that it may be gone, and so much time is left.

    :returns: how long each question may take by which it is known that the topic is there: that about partition 0.
    """
    fixture.answers[0] = 3
    failed: dict[Partition, Exception] = {partition(1): UNKNOWN_PARTITION}
    deadline = fixture.clock.now + GONE_SECONDS + left
    assert list(fixture.questions.gone(failed, deadline)) == []
    fixture.clock.now += GONE_SECONDS
    fixture.questions.gone(failed, deadline)
    return [timeout for index, timeout in fixture.asked if index == 0]


@pytest.mark.parametrize(
    ("left", "timeouts"),
    [(10.0, [beginning_questions.TOPIC_TIMEOUT_SECONDS]), (0.5, [0.5]), (0.0625, [0.1]), (0.0, []), (-1.0, [])],
)
def test_whether_a_topic_is_there_is_asked_for_no_longer_than_time_is_left(
    fixture: Fixture, left: float, timeouts: list[float]
) -> None:
    """A moment at least, and not at all if none is."""
    assert topic_questions(fixture, left) == timeouts


def test_partitions_of_a_truncated_topic_are_never_taken_for_gone(
    fixture: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the same topic, and has as many as before: the client doesn't know them yet."""
    fixture.questions = BeginningQuestions(
        fixture.inner, PartitionTruncated("events", {1: 3}, {1: 5}), {}, lambda: False
    )
    assert topic_questions(fixture, 10.0) == []


def test_a_question_whose_turn_did_not_come_makes_none_longer(fixture: Fixture) -> None:
    """All that were asked have failed, but what is left may be on brokers that answer."""
    fixture.seconds_an_answer = 5.0
    _, failed = fixture.questions.ask([partition(0), partition(1)], fixture.clock.now + 15.0)
    assert [type(error) for error in failed.values()] == [NotAsked, RuntimeError]
    fixture.asked.clear()
    fixture.seconds_an_answer = 0.0
    fixture.ask(0, 1)
    assert fixture.asked[0] == (0, 5.0 / 2)


class Truncated:
    """Asks about one partition after others were truncated. Each question takes a second, and answers as it is told."""

    def __init__(self, fixture: Fixture, monkeypatch: pytest.MonkeyPatch, **answers: int | None) -> None:
        self._fixture = fixture
        self.asked: list[tuple[str, float, int | None]] = []
        """By the name of its function, each question, how long it might take, and where "latest" is at the latest."""
        for name, answer in answers.items():
            monkeypatch.setattr(beginning_questions, name, self._question(name, answer))

    def _question(self, name: str, answer: int | None) -> Callable[..., int | None]:
        def ask(consumer: object, asked: Partition, *others: float, latest_at_most: int | None = None) -> int | None:
            assert (consumer, asked) == (self._fixture.inner, partition(0))
            self.asked.append((name, others[-1], latest_at_most))
            self._fixture.clock.now += 1.0
            return answer

        return ask

    def ask(self, ends: Mapping[int, int], began_at: Mapping[Partition, int]) -> tuple[dict[int, int], dict[int, str]]:
        """As `Fixture.ask`, after partitions were found to end there."""
        failure = PartitionTruncated("events", ends, dict.fromkeys(ends, 500))
        self._fixture.questions = BeginningQuestions(self._fixture.inner, failure, began_at, lambda: False)
        return self._fixture.ask(0)


def test_the_questions_about_a_truncated_partition_share_its_time(
    fixture: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has what those before it have left. With nothing committed, it begins where the assignment did."""
    truncated = Truncated(
        fixture, monkeypatch, committed_offset=None, reset_offset=380, first_offset_since=None, end_offset=395
    )
    assert truncated.ask({0: 400}, {partition(0): 390}) == ({0: 380}, {})
    assert truncated.asked == [
        ("committed_offset", 5.0, None),
        ("reset_offset", 4.0, 390),
        ("first_offset_since", 3.0, None),
        ("end_offset", 2.0, None),
    ]


def test_a_truncated_partition_that_has_grown_past_what_is_committed_begins_with_what_is_young(
    fixture: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was cut below what is committed, 80, and others lie there now: the first of them is 60."""
    truncated = Truncated(fixture, monkeypatch, committed_offset=80, first_offset_since=60)
    assert truncated.ask({0: 97}, {partition(0): 70}) == ({0: 60}, {})


def test_another_partition_that_is_empty_and_was_never_read_is_whole(
    fixture: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is committed or staged of it, and nobody knows where it began."""
    truncated = Truncated(fixture, monkeypatch, committed_offset=None, end_offset=0)
    assert truncated.ask({1: 400}, {}) == ({}, {})
    assert truncated.asked == [("committed_offset", 5.0, None), ("end_offset", 4.0, None)]
