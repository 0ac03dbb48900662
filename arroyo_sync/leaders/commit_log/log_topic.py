"""What the brokers tell of the commit-log topic: its partitions, where they begin and end, and whether it is the same.

Threads: for the reading thread. The classes never block; the functions block for at most their ``timeout``.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from arroyo_sync.core.state import PartitionKey
from arroyo_sync.kafka.asker import Asker
from arroyo_sync.kafka.errors import TOPIC_IS_GONE

logger = logging.getLogger(__name__)

IDENTITY_TIMEOUT_SECONDS = 5.0

DOUBT_SECONDS = 1.0
"""How often the brokers are asked while it is in doubt whether all of them answer, and for how long."""

LATEST_TIMESTAMP = -1
"""In place of a time in a ListOffsets request: the end (Kafka's protocol guide)."""
EARLIEST_TIMESTAMP = -2
"""The beginning."""


class OffsetRange(NamedTuple):
    """What of a partition is to be read: the offsets from ``start`` up to ``end``, which is not among them."""

    start: int
    end: int


def list_partitions(consumer: Consumer, topic: str, timeout: float) -> list[int]:
    """The topic's partitions. Empty: there is no such topic.

    :raises KafkaException: the brokers didn't answer, or don't permit it.
    """
    metadata = consumer.list_topics(topic, timeout=timeout).topics.get(topic)
    if metadata is None:
        return []
    if metadata.error is not None:
        if metadata.error.code() in TOPIC_IS_GONE:
            return []
        raise KafkaException(metadata.error)
    return sorted(metadata.partitions)


def ask_spans(consumer: Consumer, topic: str, partitions: Collection[int], timeout: float) -> dict[int, OffsetRange]:
    """Where the partitions begin and end now.

    :raises KafkaException: not all could be asked about.
    """
    # The end first: what arrives in between lies past it.
    ends = _ask(consumer, topic, dict.fromkeys(partitions, LATEST_TIMESTAMP), timeout)
    starts = _ask(consumer, topic, dict.fromkeys(partitions, EARLIEST_TIMESTAMP), timeout)
    return {partition: OffsetRange(starts[partition], ends[partition]) for partition in partitions}


def ask_starts(
    consumer: Consumer, topic: str, spans: Mapping[int, OffsetRange], timestamp_ms: int, timeout: float
) -> dict[int, OffsetRange]:
    """The spans without the records before ``timestamp_ms``; a span without any later record begins at its end.

    :raises KafkaException: not all could be asked about.
    """
    found = _ask(consumer, topic, dict.fromkeys(spans, timestamp_ms), timeout)
    # -1: no record is that late. What arrived since the span was asked for lies past its end, so the end will do.
    return {
        partition: OffsetRange(span.end if found[partition] < 0 else min(found[partition], span.end), span.end)
        for partition, span in spans.items()
    }


def _ask(consumer: Consumer, topic: str, timestamps: Mapping[int, int], timeout: float) -> dict[int, int]:
    answers = consumer.offsets_for_times(
        [TopicPartition(topic, partition, timestamp) for partition, timestamp in timestamps.items()], timeout=timeout
    )
    for answer in answers:
        if answer.error is not None:
            raise KafkaException(answer.error)
    return {answer.partition: answer.offset for answer in answers}


class TopicIdentity:
    """Notices that a topic was deleted and created again under the same name.

    A consumer may go on in the middle of the new topic without a word: only the topic's id tells. If the brokers know
    no ids, or don't answer, it goes unnoticed.

    :param asker: asks the commit log's cluster.
    """

    def __init__(self, asker: Asker, topic: str) -> None:
        self._asker = asker
        self._topic = topic
        self._is_asked = False
        self._known_id: str | None = None
        # Written by the thread that answers, emptied by the reading one; a deque takes both.
        self._answers: deque[str | KafkaError] = deque()

    def ask(self) -> None:
        """Ask the brokers, unless the last question isn't answered yet."""
        if not self._is_asked:
            self._is_asked = True
            self._asker.ask_topic_ids([self._topic], IDENTITY_TIMEOUT_SECONDS, self._hear)

    def has_changed(self) -> bool:
        """Whether an answer has arrived that tells of another topic than the answer before. Each is told once."""
        if not self._answers:
            return False
        self._is_asked = False
        answer = self._answers.popleft()
        if isinstance(answer, KafkaError):
            logger.debug("Can't ask for the id of %s: %s", self._topic, answer)
            return False
        previous, self._known_id = self._known_id, answer
        return previous is not None and previous != answer

    def _hear(self, answers: Mapping[str, str | KafkaError]) -> None:
        """Called by the asker, on any thread."""
        self._answers.append(answers[self._topic])


class BrokerDoubts:
    """Asks the log's brokers, after an error of the client, until all of them answer.

    The asker says which of them don't, and that they do again. The client's word isn't enough: librdkafka says that all
    brokers are down whenever it happens to be connected to none (as after idle connections were closed, with texts such
    as "0/2 brokers are down"), and never that they are back.

    :param asker: asks the commit log's cluster.
    :param clock: monotonic seconds.
    """

    def __init__(self, asker: Asker, topic: str, clock: Callable[[], float]) -> None:
        self._asker = asker
        self._topic = topic
        self._clock = clock
        self._is_raised = False
        self._ask_at = 0.0
        self._asked: frozenset[int] = frozenset()
        # Of the newest question; added to by the threads that answer.
        self._answered: set[int] = set()

    def add(self) -> None:
        """The client told of an error."""
        self._is_raised = True

    def ask(self, partitions: Collection[int]) -> None:
        """Ask about these partitions, if there is a doubt and it is time to."""
        now = self._clock()
        if not self._is_raised or now < self._ask_at:
            return
        if self._asked and self._asked <= self._answered:
            self._is_raised, self._asked = False, frozenset()
            return
        self._ask_at = now + DOUBT_SECONDS
        self._asked, self._answered = frozenset(partitions), set()
        answered = self._answered

        def note(answers: Mapping[PartitionKey, int | KafkaError]) -> None:
            answered.update(partition for (_, partition), end in answers.items() if not isinstance(end, KafkaError))

        if partitions:
            self._asker.ask_end_offsets([(self._topic, each) for each in partitions], DOUBT_SECONDS, note)
