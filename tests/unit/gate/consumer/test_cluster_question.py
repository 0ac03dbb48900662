"""The source is told which cluster the follower reads from: once, and before anything is assigned."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from arroyo_sync.core.state import SynchronizedPartitionStateManager
from arroyo_sync.gate.consumer import cluster_question
from arroyo_sync.gate.consumer.cluster_question import (
    ASSIGNED_TIMEOUT_SECONDS,
    RETRY_SECONDS,
    TIMEOUT_SECONDS,
    ClusterQuestion,
)
from arroyo_sync.gate.flow_control import FlowControlledConsumer
from tests.support.fakes import EVENTS, Clock, ScriptedConsumer
from tests.support.pipelines import Pipeline

UNREACHABLE = KafkaException(KafkaError(KafkaError._TRANSPORT))


class Fixture:
    """A consumer whose brokers give these answers, one after the other."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: str | KafkaException | None) -> None:
        self.answers = list(answers)
        self.clock = Clock()
        self.inner = ScriptedConsumer()
        self.told: list[str] = []
        self.timeouts: list[float] = []
        monkeypatch.setattr(cluster_question, "cluster_of", self.cluster_of)
        self.question = ClusterQuestion(self.inner, self.told.append, self.clock)

    def cluster_of(self, consumer: object, topic: str, timeout: float) -> str | None:
        assert (consumer, topic) == (self.inner, "events")
        self.timeouts.append(timeout)
        answer = self.answers.pop(0)
        if isinstance(answer, KafkaException):
            raise answer
        return answer

    def ask(self, seconds_later: float = 0.0) -> int:
        """How often the brokers were asked, once it is so much later."""
        self.clock.now += seconds_later
        self.question.ask_if_due()
        return len(self.timeouts)


def test_brokers_that_tell_are_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not before the topic is known, since they are asked by its name; then at once, whatever the clock counts from."""
    fixture = Fixture(monkeypatch, "the cluster")
    fixture.clock.now = 0.0
    assert fixture.ask() == 0
    fixture.question.begin("events")
    assert [fixture.ask(), fixture.ask(100.0)] == [1, 1]
    assert (fixture.told, fixture.timeouts) == (["the cluster"], [TIMEOUT_SECONDS])


def test_brokers_that_do_not_answer_are_asked_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each question keeps the processor waiting, so not with every poll."""
    fixture = Fixture(monkeypatch, UNREACHABLE, "the cluster")
    fixture.question.begin("events")
    assert [fixture.ask(), fixture.ask(RETRY_SECONDS - 0.1), fixture.ask(0.1)] == [1, 1, 2]
    assert fixture.told == ["the cluster"]


def test_a_cluster_that_has_no_id_yet_is_asked_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Redpanda's, until its brokers have found each other."""
    fixture = Fixture(monkeypatch, "redpanda.initializing", "redpanda.id")
    fixture.question.begin("events")
    assert [fixture.ask(), fixture.ask(RETRY_SECONDS - 0.1), fixture.ask(0.1), fixture.ask(100.0)] == [1, 1, 2, 2]
    assert fixture.told == ["redpanda.id"]


def test_why_the_cluster_is_not_known_can_be_read_in_the_debug_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It asks every second, and other lines tell of brokers that don't answer: so no more than that."""
    caplog.set_level(logging.DEBUG)
    fixture = Fixture(monkeypatch, UNREACHABLE)
    fixture.question.begin("events")
    fixture.ask()
    (line,) = caplog.records
    assert line.levelno == logging.DEBUG
    assert line.getMessage() == f"Can't ask which cluster the follower reads from: {UNREACHABLE}"


def test_brokers_that_know_no_id_are_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is the source told."""
    fixture = Fixture(monkeypatch, None)
    fixture.question.begin("events")
    assert [fixture.ask(), fixture.ask(100.0)] == [1, 1]
    assert fixture.told == []


def test_of_a_pattern_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no topic of that name."""
    fixture = Fixture(monkeypatch)
    fixture.question.begin("^events-.*")
    assert fixture.ask() == 0


def test_what_the_source_raises_is_logged(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """It ends no processor, and isn't asked for again."""
    fixture = Fixture(monkeypatch, "the cluster")

    def fail(cluster_id: str) -> None:
        raise RuntimeError(cluster_id)

    question = ClusterQuestion(fixture.inner, fail, fixture.clock)
    question.begin("events")
    question.ask_if_due()
    question.ask_if_due()
    (line,) = caplog.records
    assert line.levelno == logging.ERROR
    assert line.getMessage() == "The source couldn't check which cluster the follower reads from"


def test_the_source_is_told_of_the_cluster_of_the_topic_that_is_subscribed_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the first poll."""
    monkeypatch.setattr(cluster_question, "cluster_of", lambda consumer, topic, timeout: f"the cluster of {topic}")
    told: list[str] = []
    manager = SynchronizedPartitionStateManager()
    flow = FlowControlledConsumer(ScriptedConsumer(), manager, lambda: None, check_cluster=told.append)
    flow.subscribe([EVENTS])
    flow.poll(0.0)
    assert told == ["the cluster of events"]


def test_a_follower_asks_while_nothing_is_assigned_and_else_when_no_message_came(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a callback it would abort the process (see `wait_for_added_partitions`). Beside messages it is to be short."""
    asked: list[tuple[int, float]] = []
    told: list[str] = []
    answers: list[str] = []

    def cluster_of(consumer: Any, topic: str, timeout: float) -> str:
        asked.append((len(consumer.tell()), timeout))
        if not answers:
            raise UNREACHABLE
        return answers.pop()

    monkeypatch.setattr(cluster_question, "cluster_of", cluster_of)
    monkeypatch.setattr(cluster_question, "RETRY_SECONDS", 0.0)
    pipeline = Pipeline()
    monkeypatch.setattr(pipeline.flow._cluster_question, "_check_cluster", told.append)
    pipeline.flow._cluster_question.begin("events")
    pipeline.run(2)
    assert asked == [(0, TIMEOUT_SECONDS)] * 2
    pipeline.start(0)
    asked.clear()
    pipeline.run(1)
    assert asked == [(1, ASSIGNED_TIMEOUT_SECONDS)]
    answers.append("the cluster")
    pipeline.run(3)
    assert (len(asked), told) == (2, ["the cluster"])
