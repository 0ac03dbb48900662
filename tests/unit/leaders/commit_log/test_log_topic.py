"""What the topic's id tells: asked now and then, each answer taken once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from confluent_kafka import KafkaError

from arroyo_sync.kafka.questions.asker import Asker
from arroyo_sync.leaders.commit_log.log_topic import IDENTITY_SECONDS, TopicIdentity
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
