"""The last step of a leader's pipeline, for one assignment: it commits, and publishes what was committed.

`CommitLogPublisher` makes it, and its module says what is guaranteed.

Threads: the processor's calls everything.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from arroyo.processing.strategies.commit import CommitOffsets
from arroyo.types import Commit, FilteredPayload, Message, Partition

from arroyo_sync.core.interruptions import INTERRUPTIONS
from arroyo_sync.core.log_guard import guarded_logger
from arroyo_sync.core.log_throttle import LastingFailure
from arroyo_sync.kafka.commits import last_error
from arroyo_sync.leaders.commit_log.publishing.publish_queue import PublishQueue, QueuedPartition
from arroyo_sync.leaders.commit_log.publishing.received_times import ReceivedTimes
from arroyo_sync.leaders.commit_log.publishing.report_writer import ReportWriter
from arroyo_sync.leaders.commit_log.publishing.start_questions import StartQuestions

logger = guarded_logger(__name__)

COMMIT_RETRY_SECONDS = 1.0
"""How often the start of an assignment is committed while that fails."""
START_PATIENCE_SECONDS = 5.0
"""For how long that fails before it is told of: while its group forms, a member that is well may not commit."""

StartOffsets = Mapping[Partition, int]


@dataclass(frozen=True, slots=True)
class SharedParts:
    """What outlives a step: the parts of the publisher that makes one after the other."""

    group: str
    queue: PublishQueue
    writer: ReportWriter
    questions: StartQuestions | None
    """``None``: the data topic's cluster can't be asked."""
    received: ReceivedTimes | None
    start_failure: LastingFailure
    """Where an assignment starts can't be committed."""
    clock: Callable[[], float]
    """Monotonic seconds."""


class PublishStep(CommitOffsets):
    """Commits offsets and publishes them, for one assignment. `CommitLogPublisher.step` makes it.

    :param starts: where newly assigned partitions start, to be committed.
    :param starts_before: where partitions in question started, which the step before could not commit.
    """

    def __init__(self, commit: Commit, shared: SharedParts, starts: StartOffsets, starts_before: StartOffsets) -> None:
        super().__init__(commit)
        self.ended_at: float | None = None
        """When it was joined or terminated, by the clock. Written by the processor's thread."""
        self._commit = commit
        self._shared = shared
        self._writer = shared.writer
        self._partitions = shared.queue.partitions
        self._received = shared.received
        self._starts = dict(starts)
        """Offsets that are still to be committed."""
        self._starts_before = dict(starts_before)
        """The same, if the brokers answer that the group has committed nothing."""
        self._starts_due_at = -math.inf
        self._only_starts = True
        """Whether nothing but `starts` was passed to ``commit`` while they are still to be committed."""
        self._writer.begin()
        self._commit_starts()
        self._end_failure_if_moot()

    @property
    def has_ended(self) -> bool:
        """Whether it was joined or terminated."""
        return self.ended_at is not None

    @property
    def failed_deliveries(self) -> int:
        """How many records the producer refused, could not deliver or never answered, of all the publisher's steps."""
        return self._writer.failed_deliveries

    @property
    def uncommitted_starts(self) -> Mapping[Partition, int]:
        """Where partitions started of which nothing was committed since."""
        return {**self._starts_before, **self._starts}

    def submit(self, message: Message[Any]) -> None:
        """Commit the message's offsets, and publish those whose partition is due. Never waits for delivery.

        :raises: what ``commit`` raises, and then nothing of this message is published.
        """
        super().submit(message)
        if self.ended_at is not None:
            return
        received: Sequence[float] = ()
        # Of a message that was filtered out Arroyo shows a step of the user's nothing either.
        if self._received is not None and not isinstance(message.payload, FilteredPayload):
            received = self._received.of(message)
        timestamp = message.timestamp
        for partition, offset in message.committable.items():
            queued = self._partitions.get(partition)
            if queued is None:
                queued = self._writer.add(partition)
            queued.newest = (offset, timestamp)
            if received or not queued.pending:
                self._writer.report(queued, received)
        if self._starts or self._starts_before:
            self._only_starts = False
            for partition in message.committable:
                self._starts.pop(partition, None)
                self._starts_before.pop(partition, None)
            self._end_failure_if_moot()

    def poll(self) -> None:
        """Let Arroyo commit, and publish what is due: new offsets, retries, heartbeats. Never waits for delivery."""
        if self._starts:
            self._commit_starts()
        else:
            super().poll()
        if self.ended_at is not None:
            return
        questions = self._shared.questions
        if questions is not None and questions.committed:
            self._take_answers(questions)
        self._writer.poll()

    def close(self) -> None:
        """Nothing yet: the steps before this one hand on their last messages in their `join`."""

    def terminate(self) -> None:
        """Publish nothing more. What is in flight may still arrive."""
        if not self.has_ended:  # a late one says nothing of the step that has come since
            self._end()

    def join(self, timeout: float | None = None) -> None:
        """Commit all that is staged, publish every partition's offset once more, and wait for the deliveries.

        Blocks for at most ``timeout`` seconds after the commit, and never for more than one: a commit log that can't be
        written holds up no rebalance. What wasn't confirmed in time is logged; it may still arrive.
        """
        try:
            super().join(timeout)
        except INTERRUPTIONS:
            raise
        except Exception as error:
            if not self._starts or not self._only_starts:
                raise
            # Nothing of the pipeline's own was to be committed. A member that was missed may not commit.
            self._log_unable_to_start(error)
        if not self.has_ended:
            self._writer.finish(timeout)
            self._end()

    def _commit_starts(self) -> None:
        """Commit where newly assigned partitions start, and then publish it. What fails is tried again in `poll`."""
        now = self._shared.clock()
        if not self._starts or now < self._starts_due_at:
            return
        try:
            self._commit(dict(self._starts), force=True)
        except INTERRUPTIONS:
            raise
        except Exception as error:
            # Not raised: it would end the processor, out of the assignment, for partitions that may be idle. Arroyo
            # commits what it has staged with the first message, and what it raises then comes out.
            self._starts_due_at = now + COMMIT_RETRY_SECONDS
            self._log_unable_to_start(error)
            return
        if self._shared.start_failure.end():
            logger.warning("Group %s has committed where it starts", self._shared.group)
        starts, self._starts = self._starts, {}
        for partition, offset in starts.items():
            self._publish(self._writer.add(partition), offset)

    def _log_unable_to_start(self, error: Exception) -> None:
        if self._shared.start_failure.should_log():
            error = last_error(error)
            logger.warning(
                "Group %s can't commit where it starts, it is tried again while it has the partitions: %s: %s",
                self._shared.group,
                type(error).__name__,
                error,
            )

    def _end_failure_if_moot(self) -> None:
        if not self._starts and not self._starts_before and self._shared.start_failure.end():
            logger.warning(
                "Where group %s starts needn't be committed any more: it commits messages there, or has lost the "
                "partitions",
                self._shared.group,
            )

    def _take_answers(self, questions: StartQuestions) -> None:
        for partition, offset in questions.take_committed().items():
            queued = self._partitions.get(partition)
            start = self._starts_before.pop(partition, None)
            if queued is None or not queued.is_unclear:
                continue
            if offset is not None:
                self._publish(queued, offset)
            elif start is not None:
                self._starts[partition] = start
        self._end_failure_if_moot()

    def _publish(self, queued: QueuedPartition, offset: int) -> None:
        queued.newest = (offset, None)
        self._writer.report(queued)

    def _end(self) -> None:
        self.ended_at = self._shared.clock()
        self._shared.start_failure.restart()  # while its group forms anew, a member that is well may not commit
        if self._shared.questions is not None:
            self._shared.questions.withdraw()
        self._writer.stop()
