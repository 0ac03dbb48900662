"""Asks where a group begins once what it has read is gone, partition by partition.

After `TopicRecreated` that is where ``auto.offset.reset`` says. After `PartitionTruncated` it is the lowest of three:
what the group has committed, where the partition ended, and the first message of the `LOOK_BACK_SECONDS` before that
was noticed. For it was truncated some time before, to an offset that nobody tells, and has grown since: what has come
by then is the group's, too. In place of what a group has committed that has committed nothing, it is where
``auto.offset.reset`` says, as on a new topic: where the brokers tell no ids it may be one, and the commits have gone
with the earlier one.

Guarantees
    - Each question has its share of what is left of `QUERY_TIMEOUT_SECONDS`, so that brokers that are down leave time
      for the other partitions. The shares grow once nobody has answered: brokers may be well, and slow.
    - What failed is asked after what wasn't asked yet.

Threads: the processor's thread calls everything.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

from arroyo.backends.abstract import Consumer
from arroyo.types import Partition
from confluent_kafka import KafkaError, KafkaException

from arroyo_sync.core.errors import PartitionTruncated, TopicRecreated
from arroyo_sync.core.interruptions import INTERRUPTIONS
from arroyo_sync.core.log_guard import guarded_logger
from arroyo_sync.gate.consumer.start_positions import QUERY_TIMEOUT_SECONDS
from arroyo_sync.kafka.arroyo_consumer import end_offset, first_offset_since, reset_offset, staged_offsets
from arroyo_sync.kafka.commits import committed_offset
from arroyo_sync.kafka.errors import code_of

logger = guarded_logger(__name__)

TOPIC_TIMEOUT_SECONDS = 1.0
"""Of the question whether the topic is there at all."""
SHORTEST_QUERY_SECONDS = 0.1
PATIENCE_FACTOR = 4.0
"""How much longer a question may take, once nobody has answered one."""
LOOK_BACK_SECONDS = 180.0
"""From a truncation to when it is noticed: partitions are asked about every 30 s, and in an election a question may go
unanswered. The rest is for clocks."""
CAN_NOT_LOOK_UP = frozenset(
    {
        KafkaError.UNSUPPORTED_VERSION,
        KafkaError.UNSUPPORTED_FOR_MESSAGE_FORMAT,
        KafkaError.INVALID_REQUEST,
        KafkaError._UNSUPPORTED_FEATURE,
    }
)
"""Errors that say that the brokers don't know the question. All others pass."""
GONE_SECONDS = 3.0
"""For how long the client must say that it knows no such partition, while the topic has others. It says so, too, until
it has heard of a topic that was just created."""


class NotAsked(Exception):
    """Of a partition whose turn didn't come."""


class BeginningQuestions:
    """Asks after one failure of the source, in one call of `ReplacedLog.leave`.

    :param inner: Arroyo's consumer.
    :param began_at: where each of its partitions began.
    :param is_given_up: whether nothing that may fail again is to be asked any more.
    """

    def __init__(
        self,
        inner: Consumer[Any],
        failure: TopicRecreated | PartitionTruncated,
        began_at: Mapping[Partition, int],
        is_given_up: Callable[[], bool],
    ) -> None:
        self._inner = inner
        self._failure = failure
        self._began_at = began_at
        self._is_given_up = is_given_up
        self._patience = 1.0
        """How many shares of the time a question has."""
        self._unknown_since: dict[Partition, float] = {}
        """Since when the client has said that it doesn't know them."""

    def is_sure(self, partition: Partition) -> bool:
        """Whether it is known to be another topic's, or truncated. It is only possible of those that a broker hasn't
        told of as a partition was found to be truncated."""
        return not isinstance(self._failure, PartitionTruncated) or partition.index in self._failure.ends

    def ask(
        self, pending: Collection[Partition], deadline: float
    ) -> tuple[dict[Partition, int], dict[Partition, Exception]]:
        """Where these begin, but for those that begin where they would have anyway; and what was raised for those that
        are to be asked again, in that order.

        :raises LookupError: this consumer can't be asked.
        """
        # Those that are known to be truncated have answered a moment ago: the others may not.
        sure = [each for each in pending if self.is_sure(each)]
        found, failed = self._ask(sure, deadline)
        more_found, more_failed = self._ask([each for each in pending if not self.is_sure(each)], deadline)
        found, failed = found | more_found, failed | more_failed
        if len(failed) == len(pending) and not any(isinstance(each, NotAsked) for each in failed.values()):
            self._patience *= PATIENCE_FACTOR
        return found, failed

    def _ask(
        self, pending: Collection[Partition], deadline: float
    ) -> tuple[dict[Partition, int], dict[Partition, Exception]]:
        found: dict[Partition, int] = {}
        failed: dict[Partition, Exception] = {}
        ends_at = min(deadline, time.monotonic() + QUERY_TIMEOUT_SECONDS)
        for number, partition in enumerate(pending):
            left = ends_at - time.monotonic()
            if left <= 0.0 or (failed and self._is_given_up()):
                unasked: list[Partition] = list(pending)[number:]
                return found, {**dict.fromkeys(unasked, NotAsked("no time was left to ask")), **failed}
            share = self._patience * left / (len(pending) - number)
            try:
                beginning = self._beginning(partition, max(SHORTEST_QUERY_SECONDS, min(left, share)))
            except INTERRUPTIONS:
                raise
            except LookupError:
                raise
            except Exception as exc:
                failed[partition] = exc
            else:
                if beginning is not None:
                    found[partition] = beginning
        return found, failed

    def _beginning(self, partition: Partition, timeout: float) -> int | None:
        """``None``: the group begins where it would have anyway."""
        began_at = self._began_at.get(partition)
        if not isinstance(self._failure, PartitionTruncated):
            return reset_offset(self._inner, partition, timeout, latest_at_most=began_at)
        ends_at = time.monotonic() + timeout
        # Though it is what is committed: an offset may be staged beyond.
        committed = committed_offset(self._inner, partition, timeout)
        end = told = self._failure.ends.get(partition.index)
        if end is None:
            # What the other brokers have to say may have been on its way to the source.
            end = end_offset(self._inner, partition, _left(ends_at))
            staged = (staged_offsets(self._inner) or {}).get(partition)
            position = self._inner.tell().get(partition)
            reached = [each for each in (committed, began_at, staged, position) if each is not None]
            if max(reached, default=0) <= end:
                return None
        if committed is None:
            committed = reset_offset(self._inner, partition, _left(ends_at), latest_at_most=began_at)
        since = self._first_since(partition, self._failure.noticed_at - LOOK_BACK_SECONDS, _left(ends_at))
        if since is None:
            # By time nothing is found that this consumer may not read yet: what an open transaction has written. It
            # lies beyond where the partition ends for this consumer; to the source, which asked first, it may be there.
            since = end if told is None else end_offset(self._inner, partition, _left(ends_at))
        return min(committed, end, since)

    def _first_since(self, partition: Partition, unix_seconds: float, timeout: float) -> int | None:
        """The first message as young as that; ``None``: there is none, or the brokers can't tell."""
        try:
            return first_offset_since(self._inner, partition, round(unix_seconds * 1000), timeout)
        except KafkaException as exc:
            if code_of(exc) not in CAN_NOT_LOOK_UP:
                raise
            logger.warning("The brokers can't look up by time what may have come in place of what is gone: %s", exc)
            return None

    def gone(self, failed: Mapping[Partition, Exception], deadline: float) -> Collection[Partition]:
        """Of those that failed, the ones that the new topic doesn't have: it may have fewer partitions."""
        now = time.monotonic()
        unknown = [each for each, error in failed.items() if code_of(error) == KafkaError._UNKNOWN_PARTITION]
        self._unknown_since = {each: self._unknown_since.get(each, now) for each in unknown}
        gone = [each for each in unknown if now >= self._unknown_since[each] + GONE_SECONDS]
        if not isinstance(self._failure, TopicRecreated) or not gone or now >= deadline:
            return ()
        timeout = max(SHORTEST_QUERY_SECONDS, min(TOPIC_TIMEOUT_SECONDS, deadline - now))
        try:
            reset_offset(self._inner, Partition(gone[0].topic, 0), timeout)  # every topic that is there has this one
        except INTERRUPTIONS:
            raise
        except Exception:
            return ()
        logger.warning("The new topic has no %s: nothing is committed of it", shown(gone))
        return gone


def _left(ends_at: float) -> float:
    return max(SHORTEST_QUERY_SECONDS, ends_at - time.monotonic())


def shown(partitions: Collection[Partition]) -> str:
    return ", ".join(f"{each.topic.name}[{each.index}]" for each in partitions)
