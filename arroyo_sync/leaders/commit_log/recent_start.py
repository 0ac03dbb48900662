"""A start that reads only the end of the commit log, and takes the leader groups' commits for the rest.

Why this is safe
    The order is: (1) ask where the commit log ends, E, and where the records of the last ``lookback_seconds`` begin, S,
    which is never past E; (2) read from S on, past E; (3) for the groups and assigned partitions of which no record was
    read, ask the brokers for the groups' committed offsets, C, and take them. A record always takes the place of C, and
    where a record was read, C isn't taken.

    - Whatever a leader publishes after (1) lies at or past E, so past S: it is read, and counts. So a leader that goes
      back shuts the gate as soon as its record arrives, just as for a reader that has read all.
    - Where C is taken, the leader had published nothing for ``lookback_seconds`` before (1): it had committed nothing
      new for that long. The broker's copy lags behind by the leader's commit policy, a second or so, and has caught up
      long since. So C is what the leader published last, or what it has committed since and is about to publish. If its
      publishing failed, C is later; but then, too, the leader has done the work below C before it committed it.
    - Timestamps that are wrong only move S. Wherever it lies up to E, the two points above hold.

    They need that C is the leaders' own: read from the cluster where they commit, under the names that they publish.
    Only the user knows that, so the default is to read all. If a group has committed nothing at all that can be seen,
    also of what it has reported of lately, all is read, too. Else a partition without a commit is unknown until the
    group publishes something of it.

Threads: for the checking thread. Nothing blocks; answers come on the asker's threads, and wake the checking one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from functools import partial

from confluent_kafka import KafkaError

from arroyo_sync.core.log_guard import guarded_logger
from arroyo_sync.core.log_throttle import LOG_INTERVAL_SECONDS, LogThrottle
from arroyo_sync.core.state import PartitionKey
from arroyo_sync.kafka.errors import ClientErrors
from arroyo_sync.kafka.questions.asker import Asker
from arroyo_sync.kafka.questions.committed_offsets import Commits
from arroyo_sync.leaders.leader_offsets import LeaderOffsets

logger = guarded_logger(__name__)

TIMEOUT_SECONDS = 2.0
RETRY_SECONDS = 1.0


class RecentStart:
    """Step (3): fills in the commits of groups of which the end of the commit log says nothing.

    :param topic: the commit log, for log lines.
    :param asker: asks the cluster where the groups commit.
    :param errors: what that one's clients have told.
    :param servers: that cluster's, for log lines.
    :param read_all: called if nothing can be seen of a group's commits: the whole commit log is to be read instead.
    :param wake: called when an answer has come, so that `step` is called.
    :param clock: monotonic seconds.
    """

    def __init__(
        self,
        topic: str,
        offsets: LeaderOffsets,
        asker: Asker,
        errors: ClientErrors,
        servers: str,
        read_all: Callable[[], None],
        wake: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:
        self._topic = topic
        self._offsets = offsets
        self._asker = asker
        self._errors = errors
        self._servers = servers
        self._read_all = read_all
        self._wake = wake
        self._clock = clock
        self._throttle = LogThrottle(LOG_INTERVAL_SECONDS, clock)
        # Written by the threads that ask, emptied by the checking one; a deque takes both.
        self._answers: deque[tuple[str, Commits]] = deque()
        # The checking thread's.
        self._is_over = False
        self._waits_for: set[str] = set()
        self._retry_at: dict[str, float] = {}
        self._with_commits: set[str] = set()
        # A group is asked once about each partition: what it commits later, it publishes.
        self._asked: set[tuple[str, PartitionKey]] = set()

    def step(self) -> float:
        """Take in the answers that have come, and ask what is to be asked.

        :returns: in how many seconds it wants to be called again at the latest.
        :raises KafkaException: an error that can't be ridden out.
        """
        while self._answers and not self._is_over:
            self._take(*self._answers.popleft())
        if self._is_over:
            return float("inf")
        again_seconds = float("inf")
        for group in self._offsets.groups:
            if group in self._waits_for:
                continue
            partitions = [
                key for key in self._offsets.partitions_without_report(group) if (group, key) not in self._asked
            ]
            if not partitions:
                continue
            seconds = self._retry_at.get(group, 0.0) - self._clock()
            if seconds > 0:
                again_seconds = min(again_seconds, seconds)
                continue
            self._ask(group, partitions)
        if self._answers:  # some are known at once
            return min(again_seconds, self.step())
        return again_seconds

    def _ask(self, group: str, partitions: Collection[PartitionKey]) -> None:
        self._waits_for.add(group)
        self._asker.ask_committed(group, partitions, TIMEOUT_SECONDS, partial(self._note_answer, group))

    def _note_answer(self, group: str, answer: Commits) -> None:
        """Called by the asker, on any thread, once for each question."""
        self._answers.append((group, answer))
        self._wake()

    def _take(self, group: str, answer: Commits) -> None:
        self._waits_for.discard(group)
        errors = [each for each in answer.values() if isinstance(each, KafkaError)]
        committed = {key: offset for key, offset in answer.items() if isinstance(offset, int)}
        if committed:
            self._with_commits.add(group)
            filled = self._offsets.seed_from_committed(
                [(key, group, offset) for key, offset in committed.items()], self._clock()
            )
            if filled:
                logger.info(
                    "Commit log %s: took what group %r has committed of %d partitions", self._topic, group, filled
                )
        if errors:
            self._asked.update((group, key) for key in committed)
            self._retry(group, errors)
            return
        self._errors.granted(f"group {group!r}")
        if group in self._with_commits:
            self._asked.update((group, key) for key in answer)
        elif elsewhere := [key for key in self._offsets.partitions_reported(group) if key not in answer]:
            self._ask(group, [*answer, *elsewhere])  # does it commit here at all?
        else:
            self._is_over = True
            logger.warning(
                "Commit log %s is read from its beginning, since group %r has committed nothing at %s of the "
                "partitions that are assigned, or that it has reported of",
                self._topic,
                group,
                self._servers,
            )
            self._read_all()

    def _retry(self, group: str, errors: Sequence[KafkaError]) -> None:
        for error in errors:
            self._errors.raise_final(error, f"group {group!r}")
        self._retry_at[group] = self._clock() + RETRY_SECONDS
        if self._throttle.should_log(group):
            logger.warning(
                "Commit log %s: can't ask what group %r has committed: %s. It is tried again",
                self._topic,
                group,
                errors[0].str(),
            )
