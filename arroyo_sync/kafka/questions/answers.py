"""The brokers' answers: taken from the client's futures, and told to whoever asked."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from confluent_kafka import KafkaError, KafkaException

from arroyo_sync.core.interruptions import INTERRUPTIONS
from arroyo_sync.core.log_guard import guarded_logger

logger = guarded_logger(__name__)

LEAST_SECONDS = 1.0
MOST_SECONDS = 4.0

V = TypeVar("V")


class Patience:
    """How long the brokers are given for an answer: twice as long after each silence, half as long after an answer.

    So slow brokers, or distant ones, are heard at last, and one that is gone costs little time where others answer.
    """

    def __init__(self) -> None:
        self.seconds = LEAST_SECONDS

    def note(self, is_answered: bool) -> None:
        """Whether the last question was answered, by anybody and with whatever."""
        self.seconds = max(LEAST_SECONDS, self.seconds / 2) if is_answered else min(MOST_SECONDS, self.seconds * 2)


def deliver_answer(on_answer: Callable[[V], None], answer: V) -> None:
    """Tell an answer. What that raises is logged, since nobody else on a client's thread could."""
    try:
        on_answer(answer)
    except INTERRUPTIONS:
        raise
    except Exception:
        logger.exception("What was to be done with an answer of the brokers failed")


def result_of(future: Future[V]) -> V | KafkaError:
    """What a future of the client holds, which is done."""
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, KafkaException):
        failure: KafkaError = error.args[0]
        return failure
    return KafkaError(KafkaError._FAIL, str(error))


def unable_to_ask(error: Exception) -> KafkaError:
    """What is answered in place of the brokers, who weren't asked. It may be asked again."""
    return KafkaError(KafkaError._TIMED_OUT, f"nobody could be asked: {error}")
