"""What is left to do when messages that were read are gone: the group begins where others take their place.

A living consumer reads on in the middle of a topic that was deleted and created again, or of a partition that was
truncated, without a word, and what it commits there would make a restart skip all that lies before. The source notices,
and makes the manager fail with `TopicRecreated` or `PartitionTruncated`.

Guarantees
    - From then on nothing is committed but, before partitions are revoked or the consumer is closed, of those that it
      has: on a new topic where ``auto.offset.reset`` says (with ``error``: its beginning); where a truncated one ends,
      if the group has committed beyond. So does each other one that turns out to end before what is committed or was
      read: the source has failed by one broker's answer.
    - With ``latest`` that isn't past where the assignment began. It may have begun on the new topic already, before
      that was noticed: what has come since is the group's, and the end is beyond it by now.
    - The source is asked once more after the last commit of an assignment, so that none of the earlier topic is the
      last word on the new one. The client may have come to its end before the source noticed.
      (What librdkafka itself commits as it revokes or closes comes after that, milliseconds later.)
    - A partition that can't be asked costs the others nothing: what has answered within `QUERY_TIMEOUT_SECONDS` is
      committed before the rest is asked again. Nothing is committed of what hasn't answered.
    - One that the new topic doesn't have is given up, with a word.
    - No question begins after `TIMEOUT_SECONDS`, nor one of a partition that is only maybe truncated after
      `QUERY_TIMEOUT_SECONDS`, and nothing is raised. `ReplacedLog.give_up` ends it sooner, also in a pause.

Threads: the processor's thread calls everything but `ReplacedLog.give_up` and a second `ReplacedLog.leave`, which any
may call, and a signal handler.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from queue import Empty, SimpleQueue
from typing import Any

from arroyo.backends.abstract import Consumer
from arroyo.types import Partition
from confluent_kafka import KafkaError

from arroyo_sync.core.errors import WHAT_WAS_READ_IS_GONE, PartitionTruncated, TopicRecreated
from arroyo_sync.core.log_guard import guarded_logger
from arroyo_sync.core.state import SynchronizedPartitionStateManager
from arroyo_sync.gate.consumer.start_positions import QUERY_TIMEOUT_SECONDS, StartPositions
from arroyo_sync.kafka.arroyo_consumer import (
    committed_offset,
    end_offset,
    reset_offset,
    staged_offsets,
    unstage_offsets,
)
from arroyo_sync.kafka.commits import commit_staged
from arroyo_sync.kafka.errors import code_of

logger = guarded_logger(__name__)

TIMEOUT_SECONDS = 15.0
CHECK_SECONDS = 1.0
"""For how long the source may ask whether the topic is the same."""
SHORTEST_QUERY_SECONDS = 0.1
PATIENCE_FACTOR = 4.0
"""How much longer a question may take, once nobody has answered one: the brokers may be well, and slow."""
RETRY_SECONDS = 0.5
GONE_SECONDS = 3.0
"""For how long the client must say that it knows no such partition, while the topic has others. It says so, too, until
it has heard of a topic that was just created."""

NO_MEMBER = frozenset(
    {
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.FENCED_INSTANCE_ID,
        KafkaError.FENCED_MEMBER_EPOCH,
    }
)
"""Errors of a commit that say that the group has taken the partitions away: no other try would be answered else."""


class _NotAsked(Exception):
    """Of a partition whose turn didn't come."""


class ReplacedLog:
    """Knows whether the topic is another one now, or a part of it is, and commits where the group begins there.

    :param inner: Arroyo's consumer.
    :param check_topic: `RemoteOffsetSource.check_topic`.
    :param start: knows where its partitions began.
    """

    def __init__(
        self,
        inner: Consumer[Any],
        manager: SynchronizedPartitionStateManager,
        check_topic: Callable[[float], None] | None,
        start: StartPositions,
    ) -> None:
        self._inner = inner
        self._manager = manager
        self._check_topic = check_topic
        self._start = start
        # An event that a signal handler may set while the thread that it interrupts waits for it: a lock wouldn't do.
        self._given_up: SimpleQueue[None] = SimpleQueue()
        self._is_leaving = False

    @property
    def is_replaced(self) -> bool:
        """Whether what is read isn't what was assigned, so that nothing may be committed."""
        return isinstance(self._manager.failure, WHAT_WAS_READ_IS_GONE)

    def leave(self, partitions: Collection[Partition]) -> None:
        """These partitions are about to be given up, and all commits of theirs are made. Commit where they begin on the
        new topic, or go on in a truncated one, if that is what is there now. Called again meanwhile, it ends that.
        """
        if self._is_leaving:
            self.give_up()
            return
        self._is_leaving = True
        try:
            if partitions:
                self._ask_once_more()
                self._commit_beginnings(list(partitions))
        finally:
            self._is_leaving = False

    def _ask_once_more(self) -> None:
        """Have the manager fail if it is another topic now, unless it has."""
        if self._check_topic is None or isinstance(self._manager.failure, TopicRecreated):
            return
        try:
            self._check_topic(CHECK_SECONDS)
        except Exception:
            logger.exception("The source couldn't check whether the topic is still the same")

    def _commit_beginnings(self, pending: list[Partition]) -> None:
        failure = self._manager.failure
        if not isinstance(failure, WHAT_WAS_READ_IS_GONE):
            return
        known = failure.ends if isinstance(failure, PartitionTruncated) else None
        began = time.monotonic()
        deadline = began + TIMEOUT_SECONDS
        error: Exception | None = None
        unknown_since: dict[Partition, float] = {}
        patience = 1.0
        while pending and time.monotonic() < deadline:
            if error is not None:
                is_given_up = self._has_given_up(min(RETRY_SECONDS, deadline - time.monotonic()))
                if is_given_up or time.monotonic() >= deadline:
                    break
            beginnings: dict[Partition, int] = {}
            try:
                # Those that are known to be truncated have answered a moment ago: the others may not.
                sure = [each for each in pending if known is None or each.index in known]
                beginnings, failed = self._ask(sure, failure, deadline, patience)
                unsure = [each for each in pending if each not in sure]
                more_beginnings, more_failed = self._ask(unsure, failure, deadline, patience)
                beginnings, failed = beginnings | more_beginnings, failed | more_failed
                if len(failed) == len(pending) and not any(isinstance(each, _NotAsked) for each in failed.values()):
                    patience *= PATIENCE_FACTOR
                pending = list(failed)
                self._commit(beginnings, pending)
            except Exception as exc:
                error = exc
                pending = [*beginnings, *pending]
                if code_of(exc) in NO_MEMBER:
                    logger.warning(
                        "The group has taken %s away from this follower, which can't commit where they begin: whoever "
                        "has them now does. If nobody has, reset them before you restart: %s",
                        _shown(pending),
                        exc,
                    )
                    return
                if isinstance(exc, LookupError):
                    break  # this consumer can't be asked
                continue
            if beginnings:
                begins = "goes on" if isinstance(failure, PartitionTruncated) else "begins on the new topic"
                logger.warning("The group %s at %s", begins, _named(beginnings))
            if known is not None and not any(each.index in known for each in pending):
                deadline = min(deadline, began + QUERY_TIMEOUT_SECONDS)  # the others may be whole, and cost no more
            for each in failed.values():
                if error is None or not isinstance(each, _NotAsked):
                    error = each
            if isinstance(failure, TopicRecreated):
                gone = self._gone(failed, unknown_since, deadline)
                pending = [partition for partition in pending if partition not in gone]
        # Of another partition than those that are known to be truncated it is only possible.
        sure = [each for each in pending if known is None or each.index in known]
        unsure = [each for each in pending if each not in sure]
        if sure:
            logger.error(
                "Couldn't commit where the group begins: %s. Its commits of %s are of what was there before: reset "
                "them before you restart, or messages are skipped",
                error,
                _shown(sure),
            )
        if unsure:
            logger.error(
                "Couldn't commit where the group begins: %s. Reset what it has committed of %s past the end, as of a "
                "truncated partition, before you restart, or messages are skipped",
                error,
                _shown(unsure),
            )

    def _ask(
        self, pending: Collection[Partition], failure: Exception, deadline: float, patience: float
    ) -> tuple[dict[Partition, int], dict[Partition, Exception]]:
        """Where these begin; and what was raised for the others, in the order in which they are to be asked next.

        Each question has its share of what is left of `QUERY_TIMEOUT_SECONDS`, so that brokers that are down leave time
        for the others.

        :param patience: how many shares it has: more, where one was too short for all.
        :raises LookupError: this consumer can't be asked.
        """
        found: dict[Partition, int] = {}
        failed: dict[Partition, Exception] = {}
        ends_at = min(deadline, time.monotonic() + QUERY_TIMEOUT_SECONDS)
        for number, partition in enumerate(pending):
            left = ends_at - time.monotonic()
            if left <= 0.0 or (failed and not self._given_up.empty()):
                unasked: list[Partition] = list(pending)[number:]
                return found, {**dict.fromkeys(unasked, _NotAsked("no time was left to ask")), **failed}
            try:
                timeout = max(SHORTEST_QUERY_SECONDS, min(left, patience * left / (len(pending) - number)))
                beginning = self._beginning(partition, failure, timeout)
            except LookupError:
                raise
            except Exception as exc:
                failed[partition] = exc
            else:
                if beginning is not None:
                    found[partition] = beginning
        return found, failed

    def _gone(
        self, failed: Mapping[Partition, Exception], unknown_since: dict[Partition, float], deadline: float
    ) -> Collection[Partition]:
        """Those that the new topic doesn't have: it may have fewer partitions.

        :param unknown_since: since when the client has said of which that it doesn't know them; kept up to date.
        """
        now = time.monotonic()
        unknown = [each for each, error in failed.items() if code_of(error) == KafkaError._UNKNOWN_PARTITION]
        since = {each: unknown_since.get(each, now) for each in unknown}
        unknown_since.clear()
        unknown_since.update(since)
        gone = [each for each in unknown if now >= since[each] + GONE_SECONDS]
        if not gone or now >= deadline:
            return ()
        timeout = max(SHORTEST_QUERY_SECONDS, min(CHECK_SECONDS, deadline - now))
        try:
            reset_offset(self._inner, Partition(gone[0].topic, 0), timeout)  # every topic that is there has this one
        except Exception:
            return ()
        logger.warning("The new topic has no %s: nothing is committed of it", _shown(gone))
        return gone

    def _commit(self, beginnings: Mapping[Partition, int], unknown: Collection[Partition]) -> None:
        """Commit these, and nothing that was staged of the partitions whose beginning isn't known."""
        staged = staged_offsets(self._inner) or {}
        unstage_offsets(self._inner, {each: staged[each] for each in unknown if each in staged})
        self._start.give_way(unknown)
        if beginnings:
            self._inner.stage_offsets(beginnings)
            self._start.give_way()  # a later assignment mustn't try again where an earlier one began
            commit_staged(self._inner, beginnings)

    def give_up(self) -> None:
        """Let `leave` try no more."""
        self._given_up.put(None)

    def _has_given_up(self, timeout: float) -> bool:
        """Whether `give_up` was called, or is within so many seconds."""
        try:
            self._given_up.get(timeout=max(0.0, timeout))
        except Empty:
            return False
        return True

    def _beginning(self, partition: Partition, failure: Exception, timeout: float) -> int | None:
        """``None``: the group begins where it would have anyway."""
        began_at = self._start.positions.get(partition)
        if not isinstance(failure, PartitionTruncated):
            return reset_offset(self._inner, partition, timeout, latest_at_most=began_at)
        asked_at = time.monotonic()
        # Though it is what is committed: an offset may be staged beyond.
        committed = committed_offset(self._inner, partition, timeout)
        committed = began_at if committed is None else committed
        end = failure.ends.get(partition.index)
        if end is None:
            # What the other brokers have to say may have been on its way to the source.
            left = timeout - (time.monotonic() - asked_at)
            end = end_offset(self._inner, partition, max(SHORTEST_QUERY_SECONDS, left))
            staged = (staged_offsets(self._inner) or {}).get(partition)
            reached = [each for each in (committed, staged, self._inner.tell().get(partition)) if each is not None]
            if max(reached, default=0) <= end:
                return None
        return None if committed is None else min(committed, end)


def _shown(partitions: Collection[Partition]) -> str:
    return ", ".join(f"{each.topic.name}[{each.index}]" for each in partitions)


def _named(offsets: dict[Partition, int]) -> str:
    return ", ".join(
        f"{_shown([each])}: {offset}" for each, offset in sorted(offsets.items(), key=lambda item: item[0].index)
    )
