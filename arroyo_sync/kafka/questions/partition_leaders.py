"""Who leads each partition, as the brokers told last, and whose leaders are to be asked for again.

Where partitions end is asked only of leaders that the client itself has just looked up, as far as that can be seen from
here: librdkafka looks leaders up that it doesn't know, and a race in that (2.16.0 and before,
``rd_kafka_topic_partition_list_query_leaders_async``) corrupts its memory. It forgets them when a broker answers that
it leads a partition no more, or that there is no such topic, and what it has looked up a while ago; what is told about
a topic's ids and partitions, it doesn't take in.

Pure: a clock is given. Threads: any may call anything; nothing blocks. The lock is a leaf: nothing that takes another
one is called while it is held, and `ClusterClient` never holds its own when it calls.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple

from confluent_kafka import KafkaError

from arroyo_sync.core.state import PartitionKey
from arroyo_sync.kafka.client_settings import METADATA_MAX_AGE_SECONDS
from arroyo_sync.kafka.errors import no_answer

LEADERS_SECONDS = 5.0
"""After how long the leaders of a topic's partitions are asked for again, beside the next question."""

KEPT_SECONDS = METADATA_MAX_AGE_SECONDS / 3
"""For how long the client counts as knowing what it has looked up: less than it does, since a question may wait."""

LEADS_NO_MORE = frozenset(
    {
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.REPLICA_NOT_AVAILABLE,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.UNKNOWN_TOPIC_ID,
        KafkaError.KAFKA_STORAGE_ERROR,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH,
    }
)
"""Answers after which librdkafka looks the leaders up anew."""


class _Topic(NamedTuple):
    """What the brokers told of a topic."""

    told_at: float
    """When they told who leads, or that they can't."""
    looked_up_at: float
    """When they told the client who leads."""
    leaders: Mapping[int, int | None]
    """The partitions and the brokers that lead them; ``None``: nobody does at the moment."""
    error: KafkaError | None = None


class KnownLeaders(NamedTuple):
    """Of some partitions, at one moment."""

    led: dict[int, list[PartitionKey]]
    """The partitions of each leading broker."""
    unknown: list[PartitionKey]
    """Those of which no leader is known."""
    due: set[str]
    """The topics whose leaders are unknown, old or outdated, and aren't asked for at the moment."""


class PartitionLeaders:
    """Of one cluster.

    :param clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        # Guards what follows; written and read by any thread.
        self._lock = threading.Lock()
        self._topics: dict[str, _Topic] = {}
        # Topics of which a partition got no answer: who leads it now?
        self._outdated: set[str] = set()
        # Those whose leaders the client has forgotten: one has said that it is none, or a broker refuses to tell.
        self._forgotten: set[str] = set()
        self._sought: set[str] = set()  # whose leaders are asked for at the moment

    def look_up(self, partitions: Collection[PartitionKey]) -> KnownLeaders:
        """Who leads the partitions, and which of their topics' leaders are to be asked for."""
        with self._lock:
            now = self._clock()
            due = {topic for topic, _ in partitions if self._is_old(topic, now)} - self._sought
            return KnownLeaders(*self._by_leader(partitions), due)

    def look_up_found(
        self, partitions: Iterable[PartitionKey]
    ) -> tuple[dict[int, list[PartitionKey]], dict[PartitionKey, KafkaError]]:
        """The partitions of each leading broker, now that they were asked for, and why nobody leads the others."""
        with self._lock:
            led, unknown = self._by_leader(partitions)
            return led, {key: self._why_not_led(key) for key in unknown}

    def begin_search(self, topics: Collection[str]) -> None:
        """The topics' leaders are asked for, until `end_search`."""
        with self._lock:
            self._sought.update(topics)

    def end_search(self, topics: Collection[str]) -> None:
        """They no longer are, whether they were found or not."""
        with self._lock:
            self._sought.difference_update(topics)

    def keep(self, topic: str, leaders: Mapping[int, int]) -> None:
        """Take in who leads all partitions of the topic. -1: no broker leads the partition."""
        known = {partition: None if leader < 0 else leader for partition, leader in leaders.items()}
        with self._lock:
            self._outdated.discard(topic)
            self._forgotten.discard(topic)
            now = self._clock()
            self._topics[topic] = _Topic(now, now, known)

    def confirm(self, topic: str, leaders: Mapping[int, int]) -> None:
        """The brokers have told who leads, but the client hasn't looked that up: if others do, it is to."""
        told = {partition: None if leader < 0 else leader for partition, leader in leaders.items()}
        with self._lock:
            known = self._topics.get(topic)
            if known is not None and known.error is None and known.leaders != told:
                self._outdated.add(topic)
                self._forgotten.add(topic)

    def keep_error(self, topic: str, error: KafkaError, *, is_answer: bool = False) -> None:
        """Take in why nobody tells who leads the topic's partitions.

        :param is_answer: whether a broker has told that, so that the client has forgotten who led.
        """
        with self._lock:
            if is_answer:
                self._forgotten.add(topic)
            # Else who led is kept: a broker that no longer does says so itself.
            known = self._topics.get(topic, _Topic(0.0, float("-inf"), {}))
            self._topics[topic] = known._replace(told_at=self._clock(), error=error)

    def note_unanswered(self, errors: Mapping[PartitionKey, KafkaError]) -> None:
        """These partitions got no answer: other brokers may lead them now."""
        with self._lock:
            self._outdated.update(topic for topic, _ in errors)
            self._forgotten.update(topic for (topic, _), error in errors.items() if error.code() in LEADS_NO_MORE)

    # The lock is held.

    def _by_leader(
        self, partitions: Iterable[PartitionKey]
    ) -> tuple[dict[int, list[PartitionKey]], list[PartitionKey]]:
        """The partitions of each leading broker, and those of which none is known."""
        led: dict[int, list[PartitionKey]] = {}
        unknown: list[PartitionKey] = []
        now = self._clock()
        for key in partitions:
            topic = self._topics.get(key[0])
            leader_id = None
            if topic is not None and not self._is_forgotten(key[0], topic, now):
                leader_id = topic.leaders.get(key[1])
            if leader_id is None:
                unknown.append(key)
            else:
                led.setdefault(leader_id, []).append(key)
        return led, unknown

    def _is_forgotten(self, name: str, topic: _Topic, now: float) -> bool:
        """Whether the client may know no more who leads the topic."""
        return name in self._forgotten or now - topic.looked_up_at >= KEPT_SECONDS

    def _is_old(self, name: str, now: float) -> bool:
        topic = self._topics.get(name)
        return topic is None or name in self._outdated or now - topic.told_at >= LEADERS_SECONDS

    def _why_not_led(self, key: PartitionKey) -> KafkaError:
        topic = self._topics.get(key[0])
        if topic is None:
            return no_answer()
        if topic.error is not None:
            return topic.error
        if self._is_forgotten(key[0], topic, self._clock()):
            return no_answer()
        if key[1] not in topic.leaders:
            return KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART, f"topic {key[0]} has no partition {key[1]}")
        return KafkaError(KafkaError.LEADER_NOT_AVAILABLE, "no broker leads the partition at the moment")
