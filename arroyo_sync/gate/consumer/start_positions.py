"""Makes the positions durable that an assignment begins at, before anything of them has gone downstream.

Without that, a position that ``auto.offset.reset`` resolved lives in the process's memory alone for as long as the gate
is closed: the next rebalance or restart resolves anew, and what came meanwhile is lost.

Guarantees
    - The positions of newly assigned partitions are committed inside the assignment callback, before the gate exists.
    - Where librdkafka begins elsewhere without a word (a reset without ``arroyo.strict.offset.reset``, a gap), the
      offset of the first message that is held is committed too, as soon as no message comes or the pipeline commits.
    - Nothing is committed that would pass a message: nothing before these positions comes in this assignment.
    - Nothing is committed over what the pipeline has staged since: a partition gives way to it.
    - What is still pending is tried once more before its partitions are given up.
    - While the group's coordinator is away, the processor's thread waits for it `QUERY_TIMEOUT_SECONDS` in the
      assignment, and a second at most in each later try.
    - One that couldn't be committed is remembered in this process: where the next assignment of the partition would
      begin later, since ``auto.offset.reset`` was resolved anew, it begins there. (librdkafka may assign twice with no
      revocation in between, and the brokers refuse the first one's commits: ``ILLEGAL_GENERATION``.)
    - The others are remembered for as long as the partitions are assigned.

Threads: the processor's thread calls everything.

Failures
    What a commit raises is logged and tried again; it ends neither the assignment nor the processor, nor does the
    pipeline's next commit. Arroyo keeps what is staged until a commit goes well, and its ``CommitOffsets`` sends that
    from its polls and as it is joined, with nobody to catch what is raised. So these positions are staged for no longer
    than a commit from here takes, and taken back if it fails.

    Where Arroyo doesn't keep what is staged (another consumer, ``arroyo.enable.auto.commit``), nothing can be taken
    back: the positions stay staged, and what the pipeline stages later wins. librdkafka, which commits by itself then,
    raises nothing in the pipeline; another consumer's next commit may.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from arroyo.backends.abstract import Consumer
from arroyo.types import Commit, Partition

from arroyo_sync.core.interruptions import INTERRUPTIONS
from arroyo_sync.core.log_guard import guarded_logger
from arroyo_sync.core.log_throttle import LOG_INTERVAL_SECONDS, LogThrottle
from arroyo_sync.kafka.arroyo_consumer import staged_offsets, unstage_offsets
from arroyo_sync.kafka.commits import NO_MEMBER, check_coordinator, commit_staged, committed_offsets, last_error
from arroyo_sync.kafka.errors import code_of

logger = guarded_logger(__name__)

RETRY_SECONDS = 5.0
"""From the end of a commit that failed to the next."""
QUERY_TIMEOUT_SECONDS = 5.0
"""Of a question to the brokers, within a rebalance."""
FIRST_ANSWER_SECONDS = 0.1
LAST_ANSWER_SECONDS = 1.0
"""For how long the coordinator is waited for in the first try after the assignment, and at most: each has twice as long
as the one before, for brokers that are slow or distant."""


class StartPositions:
    """Commits where the consumer's partitions begin.

    :param clock: monotonic, in seconds.
    """

    def __init__(self, inner: Consumer[Any], clock: Callable[[], float]) -> None:
        self._inner = inner
        self._clock = clock
        self._throttle = LogThrottle(LOG_INTERVAL_SECONDS, clock)
        self._not_before = clock()
        self._answer_seconds = FIRST_ANSWER_SECONDS
        self._waiting: dict[Partition, int] = {}  # to be staged for the next try
        # Never committed, and not to be staged any more: of partitions that were revoked since, or staged for good.
        self._given_up: dict[Partition, int] = {}
        self.positions: dict[Partition, int] = {}
        """Where each partition that is assigned began."""
        self.is_pending = False
        """Whether something is still to be committed. Read by the consumer's poll when no message came."""
        self._is_failure_told = False

    def note(self, positions: Mapping[Partition, int]) -> None:
        """Partitions were just assigned at these positions, of which nothing is to be committed."""
        self.positions.update(positions)

    def commit(self, positions: Mapping[Partition, int]) -> None:
        """Commit these positions, of partitions that were just assigned. Blocks until the broker has answered."""
        self.give_way()
        self.note(positions)
        self._not_before = self._clock()  # a new assignment: whatever failed before may go well now
        self._answer_seconds = FIRST_ANSWER_SECONDS
        self._waiting.update(positions)
        self.is_pending = True
        self._try(QUERY_TIMEOUT_SECONDS)

    def earlier(self, positions: Mapping[Partition, int]) -> dict[Partition, int]:
        """Of the partitions that are being assigned, where those begin that began earlier before, if nobody could
        commit that. Blocks until the broker has answered, if there are any.
        """
        began_earlier: dict[Partition, int] = {}
        for partition, position in positions.items():
            given_up = self._given_up.pop(partition, position)
            began_at = self._waiting.get(partition, given_up)
            if began_at < position:
                began_earlier[partition] = began_at
        uncommitted = self._uncommitted(began_earlier) if began_earlier else ()
        return {partition: began_earlier[partition] for partition in uncommitted}

    def _uncommitted(self, partitions: Collection[Partition]) -> Collection[Partition]:
        """Those of which the group has committed nothing, as far as can be told."""
        try:
            committed = committed_offsets(self._inner, partitions, QUERY_TIMEOUT_SECONDS)
        except LookupError:
            return ()  # another consumer, whose positions aren't ours to move
        except INTERRUPTIONS:
            raise
        except Exception as error:
            logger.debug("Can't ask what is committed of %s: %s", [*partitions], error)
            return partitions  # to read something twice is better than to lose it
        return [partition for partition, offset in committed.items() if offset is None]

    def stage(self, positions: Mapping[Partition, int]) -> None:
        """Commit these positions, of partitions that have no messages before them, with the next try."""
        self.is_pending = True
        staged = staged_offsets(self._inner)
        for partition, offset in positions.items():
            self._waiting[partition] = offset
            # Where the pipeline has staged what lies before this position, a commit of that is its own anyway.
            if staged is None or partition in staged:
                try:
                    self._inner.stage_offsets({partition: offset})
                    del self._waiting[partition]
                except INTERRUPTIONS:
                    raise
                except Exception:
                    pass  # then it waits

    def give_way(self, partitions: Iterable[Partition] = ()) -> None:
        """To what the pipeline has staged by now, whose commit may be about to clear it, and in these partitions."""
        for partition in (*partitions, *(staged_offsets(self._inner) or ())):
            self._waiting.pop(partition, None)

    def commit_if_due(self) -> None:
        """Commit what is staged if something of it is pending, unless that failed a moment ago."""
        if self.is_pending and self._clock() >= self._not_before:
            self.give_way()
            answer_seconds = self._answer_seconds
            self._answer_seconds = min(2.0 * answer_seconds, LAST_ANSWER_SECONDS)
            self._try(answer_seconds)

    def commit_at_last(self) -> None:
        """Commit what is pending, however short ago that failed: partitions are about to be given up."""
        if self.is_pending:
            self.give_way()
            self._try(LAST_ANSWER_SECONDS, is_last=True)

    def forget(self, partitions: Iterable[Partition]) -> None:
        """These were revoked: whoever has them now commits."""
        for partition in partitions:
            self.positions.pop(partition, None)
            offset = self._waiting.pop(partition, None)
            if offset is not None:
                self._given_up[partition] = offset
        if not self.positions:
            self._is_failure_told = False  # that was the last word about them

    def _try(self, answer_seconds: float, *, is_last: bool = False) -> None:
        waiting = self._waiting
        # A first message past its position isn't among them: librdkafka may have committed more of it by now.
        by_name = {each: offset for each, offset in waiting.items() if offset == self.positions.get(each)}
        try:
            if waiting:
                self._inner.stage_offsets(waiting)
            if staged_offsets(self._inner) is None:
                self._waiting = {}  # they stay staged; so by name this time alone, since more may be committed later
                self._given_up.update(waiting)
            for partition in [*waiting, *self.positions][:1]:
                check_coordinator(self._inner, partition, answer_seconds)
            commit_staged(self._inner, by_name)
        except INTERRUPTIONS:
            raise
        except Exception as exc:
            unstage_offsets(self._inner, waiting)
            self._failed(exc, is_last=is_last)
        else:
            self._waiting = {}
            self.is_pending = False
            for partition in self.positions:
                self._given_up.pop(partition, None)
            if self._is_failure_told:
                self._is_failure_told = False
                logger.warning("The positions that this assignment began at are committed now: a restart begins there")

    def _failed(self, error: Exception, *, is_last: bool) -> None:
        self._not_before = self._clock() + RETRY_SECONDS
        if is_last:
            logger.warning(
                "The positions that this assignment began at could not be committed before its partitions are given "
                "up: of one that the group has committed nothing of, whoever reads it next begins where "
                "auto.offset.reset says: %s",
                error,
            )
            self._is_failure_told = True
        elif self._throttle.should_log("commit"):
            self._is_failure_told = True
            logger.warning(
                "The positions that this assignment begins at could not be committed; it is tried again every %g s. "
                "Until then a restart begins where auto.offset.reset says, in a partition of which the group has "
                "committed nothing: %s",
                RETRY_SECONDS,
                error,
            )


def commit_once(commit: Commit, consumer: object, positions: Mapping[Partition, int]) -> None:
    """Without the flow control: commit where an assignment begins, which is of new partitions alone.

    A failure is logged. What fails stays staged, since the pipeline's next commit is the one other try that there is.
    But the group answers none any more if it has moved on, and what that commit raises would end the processor.
    """
    try:
        commit(positions, force=True)
    except INTERRUPTIONS:
        raise
    except Exception as exc:
        error = last_error(exc)
        logger.warning("The positions that this assignment begins at could not be committed: %s", error)
        if code_of(error) in NO_MEMBER:
            unstage_offsets(consumer, positions)
