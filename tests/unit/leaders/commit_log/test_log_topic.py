"""What the topic's id tells: asked now and then, each answer taken once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError

from arroyo_sync.kafka.questions.asker import Asker
from arroyo_sync.leaders.commit_log.log_topic import IDENTITY_SECONDS, IDENTITY_TIMEOUT_SECONDS, TopicIdentity
from tests.support.fakes import Clock

GONE = KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)


class ScriptedAsker:
    """Gives the answers of its script, one a question, at once."""

    def __init__(self, *answers: str | KafkaError) -> None:
        self.answers = list(answers)

    def ask_topic_ids(self, topics: list[str], timeout: float, on_answer: Callable[[Any], None]) -> None:
        on_answer(dict.fromkeys(topics, self.answers.pop(0)))


def seen(*answers: str | KafkaError) -> list[tuple[bool, bool]]:
    """Whether it has changed and whether it is missing, after each answer."""
    clock = Clock()
    identity = TopicIdentity(cast(Asker, ScriptedAsker(*answers)), "log", clock)
    told = []
    for _ in answers:
        assert not identity.has_changed(), "it asks"
        told.append((identity.has_changed(), identity.take_missing()))
        assert not identity.has_changed(), "it doesn't ask yet"
        assert not identity.take_missing(), "each is told once"
        clock.now += IDENTITY_SECONDS
    return told


def test_another_id_is_another_topic() -> None:
    """The first one is what there is; that it couldn't be asked says nothing."""
    timed_out = KafkaError(KafkaError._TIMED_OUT)
    assert seen("a", "a", timed_out, "a", "b", "b") == [(False, False)] * 4 + [(True, False), (False, False)]


def test_a_topic_that_is_gone_is_missing() -> None:
    """And another one once it is there again."""
    assert seen("a", GONE, GONE, "b") == [(False, False), (False, True), (False, True), (True, False)]


class PatientAsker:
    """Keeps what it is asked. A test gives the answers."""

    def __init__(self) -> None:
        self.questions: list[tuple[list[str], float]] = []
        self.on_answer: list[Callable[[Any], None]] = []

    def ask_topic_ids(self, topics: list[str], timeout: float, on_answer: Callable[[Any], None]) -> None:
        self.questions.append((topics, timeout))
        self.on_answer.append(on_answer)


def test_brokers_that_take_their_time_are_asked_once_until_they_answer() -> None:
    """Else the questions to brokers that are down would pile up; once they have answered, it is asked every 3 s."""
    clock, asker = Clock(), PatientAsker()
    identity = TopicIdentity(cast(Asker, asker), "log", clock)
    for _ in range(5):
        assert not identity.has_changed()
        identity.ask()
        clock.now += IDENTITY_SECONDS
    assert asker.questions == [(["log"], IDENTITY_TIMEOUT_SECONDS)]
    asker.on_answer[0]({"log": "a"})
    assert not identity.has_changed(), "it takes the answer"
    assert not identity.has_changed(), "it asks again"
    assert len(asker.questions) == 2
    asker.on_answer[1]({"log": "b"})
    assert identity.has_changed()
    clock.now += IDENTITY_SECONDS / 2
    assert not identity.has_changed()
    assert len(asker.questions) == 2, "it isn't time yet"
    clock.now += IDENTITY_SECONDS / 2
    assert not identity.has_changed()
    assert len(asker.questions) == 3


def test_the_id_is_asked_for_at_once_on_a_machine_that_has_just_started() -> None:
    """Its monotonic clock begins at zero."""
    clock, asker = Clock(), PatientAsker()
    clock.now = 0.0
    identity = TopicIdentity(cast(Asker, asker), "log", clock)
    assert not identity.has_changed()
    assert len(asker.questions) == 1


def test_why_the_id_is_not_known_can_be_read_in_the_debug_log(caplog: pytest.LogCaptureFixture) -> None:
    """With the topic and what the broker said; it is no warning, since old brokers know no ids."""
    caplog.set_level("DEBUG")
    clock = Clock()
    refused = KafkaError(KafkaError._UNSUPPORTED_FEATURE, "the brokers know no topic ids")
    identity = TopicIdentity(cast(Asker, ScriptedAsker(refused)), "log", clock)
    identity.ask()
    assert not identity.has_changed()
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("DEBUG", f"Can't ask for the id of log: {refused}")
    ]
