"""What is left to do when messages that were read are gone: the group begins where others take their place.

A living consumer reads on in the middle of a topic that was deleted and created again, or of a partition that was
truncated, without a word, and what it commits there would make a restart skip all that lies before. The source notices,
and makes the manager fail with `TopicRecreated` or `PartitionTruncated`.

Guarantees
    - From then on nothing is committed but, before partitions are revoked or the consumer is closed, of those that it
      has: on a new topic where ``auto.offset.reset`` says (with ``error``: its beginning); in a truncated one no later
      than where other messages take the place of what is gone. So does each other one that turns out to end before
      what is committed or was read: the source has failed by one broker's answer.
    - With ``latest`` that isn't past where the assignment began. It may have begun on the new topic already, before
      that was noticed: what has come since is the group's, and the end is beyond it by now.
    - The source is asked once more after the last commit of an assignment, so that none of the earlier topic is the
      last word on the new one. The client may have come to its end before the source noticed.
      (What librdkafka itself commits as it revokes or closes comes after that, milliseconds later.)
    - A partition that can't be asked costs the others nothing: what has answered within `QUERY_TIMEOUT_SECONDS` is
      committed before the rest is asked again. Nothing is committed of what hasn't answered.
    - One that the new topic doesn't have is given up, with a word.
    - Between the two, while there is no topic, nothing that is staged is committed any more: under KIP-848 the
      partitions of a deleted topic are revoked at once, and what librdkafka commits then may reach the new topic.
    - On another cluster (`AnotherCluster`) nothing is committed at all: what is committed there is the group's.
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

from arroyo_sync.core.errors import (
    WHAT_WAS_READ_IS_GONE,
    AnotherCluster,
    PartitionTruncated,
    TopicMissing,
    TopicRecreated,
)
from arroyo_sync.core.interruptions import INTERRUPTIONS
from arroyo_sync.core.log_guard import guarded_logger
from arroyo_sync.core.state import SynchronizedPartitionStateManager
from arroyo_sync.gate.consumer.beginning_questions import BeginningQuestions, NotAsked, shown
from arroyo_sync.gate.consumer.start_positions import QUERY_TIMEOUT_SECONDS, StartPositions
from arroyo_sync.kafka.commits import NO_MEMBER, commit_staged, committed_so_far, drop_staged
from arroyo_sync.kafka.errors import code_of

logger = guarded_logger(__name__)

TIMEOUT_SECONDS = 15.0
CHECK_SECONDS = 1.0
"""For how long the source may ask whether the topic is the same."""
RETRY_SECONDS = 0.5


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
                self._ask_once_more(partitions)
                self._commit_beginnings(list(partitions))
        finally:
            self._is_leaving = False

    def _ask_once_more(self, partitions: Collection[Partition]) -> None:
        """Have the manager fail if it is another topic now, unless it has. If there is none, nothing of it may be
        committed any more: by then it could be the new one's."""
        if self._check_topic is None or isinstance(self._manager.failure, TopicRecreated | AnotherCluster):
            return
        try:
            try:
                self._check_topic(CHECK_SECONDS)
            except TopicMissing:
                self._start.give_way(partitions)
                drop_staged(self._inner, partitions)
        except INTERRUPTIONS:
            raise
        except Exception:
            logger.exception("The source couldn't check whether the topic is still the same")

    def _commit_beginnings(self, pending: list[Partition]) -> None:
        failure = self._manager.failure
        if not isinstance(failure, TopicRecreated | PartitionTruncated):
            return
        questions = BeginningQuestions(self._inner, failure, self._start.positions, lambda: not self._given_up.empty())
        began = time.monotonic()
        deadline = began + TIMEOUT_SECONDS
        error: Exception | None = None
        while pending and time.monotonic() < deadline:
            if error is not None:
                is_given_up = self._has_given_up(min(RETRY_SECONDS, deadline - time.monotonic()))
                if is_given_up or time.monotonic() >= deadline:
                    break
            beginnings: dict[Partition, int] = {}
            try:
                beginnings, failed = questions.ask(pending, deadline)
                pending = list(failed)
                before = self._commit(beginnings, pending)
            except LookupError as exc:
                error, pending = exc, [*beginnings, *pending]
                break  # this consumer can't be asked
            except INTERRUPTIONS:
                raise
            except Exception as exc:
                error, pending = exc, [*beginnings, *pending]
                if code_of(exc) in NO_MEMBER:
                    _tell_of_lost_membership(pending, exc)
                    return
                continue
            if beginnings:
                begins = "goes on" if isinstance(failure, PartitionTruncated) else "begins on the new topic"
                logger.warning("The group %s at %s", begins, _named(beginnings, before))
            if not any(questions.is_sure(each) for each in pending):
                deadline = min(deadline, began + QUERY_TIMEOUT_SECONDS)  # the others may be whole, and cost no more
            for each in failed.values():
                if error is None or not isinstance(each, NotAsked):
                    error = each
            gone = questions.gone(failed, deadline)
            pending = [partition for partition in pending if partition not in gone]
        _tell_of_missing(pending, questions, error)

    def _commit(
        self, beginnings: Mapping[Partition, int], unknown: Collection[Partition]
    ) -> Mapping[Partition, int | None]:
        """Commit these, and nothing that was staged of the partitions whose beginning isn't known. Returns what was
        committed before, as far as that can be asked."""
        drop_staged(self._inner, unknown)
        self._start.give_way(unknown)
        if not beginnings:
            return {}
        self._inner.stage_offsets(beginnings)
        self._start.give_way()  # a later assignment mustn't try again where an earlier one began
        before = committed_so_far(self._inner, beginnings, QUERY_TIMEOUT_SECONDS)
        commit_staged(self._inner, beginnings)
        return before

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


def _tell_of_lost_membership(pending: Collection[Partition], error: Exception) -> None:
    logger.warning(
        "The group has taken %s away from this follower, which can't commit where they begin: whoever has them now "
        "does. If nobody has, reset them before you restart: %s",
        shown(pending),
        error,
    )


def _tell_of_missing(pending: Collection[Partition], questions: BeginningQuestions, error: Exception | None) -> None:
    sure = [each for each in pending if questions.is_sure(each)]
    unsure = [each for each in pending if not questions.is_sure(each)]
    if sure:
        logger.error(
            "Couldn't commit where the group begins: %s. Its commits of %s are of what was there before: reset them "
            "before you restart, or messages are skipped",
            error,
            shown(sure),
        )
    if unsure:
        logger.error(
            "Couldn't commit where the group begins: %s. Reset what it has committed of %s past the end, as of a "
            "truncated partition, before you restart, or messages are skipped",
            error,
            shown(unsure),
        )


def _named(offsets: Mapping[Partition, int], before: Mapping[Partition, int | None]) -> str:
    """Each with what it takes the place of: where it was no other topic, somebody has to put that back."""
    named = []
    for each, offset in sorted(offsets.items()):
        committed = before.get(each)
        named.append(f"{shown([each])}: {offset}" + ("" if committed is None else f" (before: {committed})"))
    return ", ".join(named)
