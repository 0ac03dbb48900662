"""How often the log's brokers are asked after an error of the client, until all of them have answered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from confluent_kafka import KafkaError

from arroyo_sync.core.state import PartitionKey
from arroyo_sync.kafka.questions.asker import Asker
from arroyo_sync.leaders.commit_log.log_topic import REACHABILITY_SECONDS, ReachabilityCheck
from tests.support.fakes import Clock


class PatientAsker:
    """Keeps what it is asked. A test gives the answers."""

    def __init__(self) -> None:
        self.questions: list[tuple[list[PartitionKey], float]] = []
        self.on_answer: list[Callable[[Any], None]] = []

    def ask_end_offsets(self, partitions: list[PartitionKey], timeout: float, on_answer: Callable[[Any], None]) -> None:
        self.questions.append((partitions, timeout))
        self.on_answer.append(on_answer)


class Fixture:
    def __init__(self) -> None:
        self.clock = Clock()
        self.asker = PatientAsker()
        self.reachability = ReachabilityCheck(cast(Asker, self.asker), "log", self.clock)

    def asked_after(self, seconds: float) -> int:
        """How many questions there were when it was called once more, so much later."""
        self.clock.now += seconds
        self.reachability.ask([0, 1])
        return len(self.asker.questions)


def test_without_an_error_nobody_is_asked() -> None:
    """However long it runs."""
    fixture = Fixture()
    assert [fixture.asked_after(REACHABILITY_SECONDS) for _ in range(3)] == [0, 0, 0]


def test_brokers_that_do_not_answer_are_asked_once_a_second() -> None:
    """At once after the error, and a question is over when the next one begins."""
    fixture = Fixture()
    fixture.reachability.want()
    assert fixture.asked_after(0.0) == 1
    assert fixture.asker.questions == [([("log", 0), ("log", 1)], REACHABILITY_SECONDS)]
    assert [fixture.asked_after(REACHABILITY_SECONDS / 4) for _ in range(4)] == [1, 1, 1, 2]
    assert fixture.asked_after(0.0) == 2


def test_the_check_ends_once_every_partition_of_one_question_was_answered() -> None:
    """An error is no answer, and half an answer isn't one."""
    fixture = Fixture()
    fixture.reachability.want()
    assert fixture.asked_after(0.0) == 1
    fixture.asker.on_answer[0]({("log", 0): 7, ("log", 1): KafkaError(KafkaError._TIMED_OUT)})
    assert fixture.asked_after(REACHABILITY_SECONDS) == 2
    fixture.asker.on_answer[1]({("log", 1): 7})
    assert fixture.asked_after(REACHABILITY_SECONDS) == 3
    fixture.asker.on_answer[2]({("log", 0): 7})
    fixture.asker.on_answer[2]({("log", 1): 7})
    assert [fixture.asked_after(REACHABILITY_SECONDS) for _ in range(3)] == [3, 3, 3]
    fixture.reachability.want()
    assert fixture.asked_after(0.0) == 4


def test_the_brokers_are_asked_at_once_on_a_machine_that_has_just_started() -> None:
    """Its monotonic clock begins at zero."""
    fixture = Fixture()
    fixture.clock.now = 0.0
    fixture.reachability.want()
    assert fixture.asked_after(0.0) == 1
