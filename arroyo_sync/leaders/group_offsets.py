"""A source for leaders that publish no commit log: it asks the brokers what their groups have committed.

Slower than a commit log by the leaders' commit policy (a second or so) and by ``interval_seconds``, and each question
costs the brokers a request a group. Everything else is the same: see `OffsetSource` for its guarantees and threads.

    - It is ready once a broker has answered. A partition stays unknown until every group was asked about it.
    - Only partitions that the follower reads are asked about, and at once when they are assigned; what is known of the
      others is forgotten.
    - A group that has nothing committed (any more) is unknown there.

Failures
    Brokers that don't answer are logged and asked again; what the groups had committed before stays in force meanwhile.
    A group whose coordinator is down delays no other group. The last stable commit counts: a transaction of the leader
    that hangs hides nothing.
    Failed authentication and missing permission end the source: in its first minute at once, later if that goes on for
    a minute. So does a start at which no broker answers in time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from arroyo_sync.core.checks import check_seconds
from arroyo_sync.core.log_guard import guarded_logger
from arroyo_sync.core.log_throttle import LOG_INTERVAL_SECONDS, LogThrottle
from arroyo_sync.core.source import HighWatermarks, SourceStatistics
from arroyo_sync.core.state import PartitionKey
from arroyo_sync.kafka.client_settings import servers_of
from arroyo_sync.kafka.errors import is_refused_permission
from arroyo_sync.kafka.questions.committed_offsets import Commits
from arroyo_sync.kafka.questions.first_answer import FirstAnswer
from arroyo_sync.leaders.commit_report import FROM_BROKER, CommitReport
from arroyo_sync.leaders.offset_source import OffsetSource

logger = guarded_logger(__name__)

REACH_TIMEOUT_SECONDS = 1.0
TIMEOUT_SECONDS = 2.0


class GroupOffsetsSource(OffsetSource):
    """Turns the offsets that leader groups commit on the brokers into remote offsets. A `RemoteOffsetSource`.

    :param configuration: librdkafka settings of the data topic's cluster, where the groups commit.
    :param groups: the leader groups, of which the slowest counts.
    :param interval_seconds: how often they are asked.
    :param connect_timeout: after how many seconds without an answer, at the start, the source ends.
    :param clock: monotonic seconds.
    :raises ConfigurationError: a setting is missing, empty or impossible.
    """

    advice = "The gate stays shut. If the data topic is on another cluster, give the source that one's settings"

    def __init__(
        self,
        configuration: Mapping[str, Any],
        *,
        groups: Collection[str],
        interval_seconds: float = 0.5,
        connect_timeout: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(configuration, groups, None, clock)
        check_seconds("interval_seconds", interval_seconds)
        check_seconds("connect_timeout", connect_timeout)
        self.name = f"group offsets of {', '.join(self._offsets.groups)}"
        self._interval_seconds = interval_seconds
        self._connect_timeout = connect_timeout
        self._throttle = LogThrottle(LOG_INTERVAL_SECONDS, clock)
        # The partitions that the follower reads, each with the number of its assignment. Written under `_changed`,
        # before a partition's offsets are forgotten; read by the reading thread under the lock of `LeaderOffsets`.
        self._assigned: dict[PartitionKey, int] = {}
        self._assignments = 0
        # Answers that aren't taken in yet: the group, the partitions that were asked, and what came. Guarded by
        # `_changed`; written by the threads that ask.
        self._unread: list[tuple[str, Mapping[PartitionKey, int], Commits]] = []
        # The reading thread's.
        self._answers = 0
        self._known: set[tuple[PartitionKey, str]] = set()
        # Of each group: when to ask it again, and the number of the assignment that it was asked about.
        self._due_at = dict.fromkeys(self._offsets.groups, 0.0)
        self._asked = dict.fromkeys(self._offsets.groups, 0)
        self._waits_for: set[str] = set()
        # The groups of which the log says that they can't be asked.
        self._unanswered: set[str] = set()
        # Why no broker has answered yet; read by any thread.
        self._reason: KafkaError | None = None

    def assign(self, positions: Mapping[PartitionKey, int], watermarks: HighWatermarks | None) -> None:
        super().assign(positions, watermarks)
        with self._changed:
            self._assignments += 1
            self._assigned.update(dict.fromkeys(positions, self._assignments))
            if self._ready_since is not None:
                self._ready_since = self._clock()  # of these partitions nothing has been asked yet
            self._changed.notify_all()

    def revoke(self, partitions: Collection[PartitionKey]) -> None:
        with self._changed:
            for key in partitions:
                self._assigned.pop(key, None)
        super().revoke(partitions)
        self._offsets.forget(partitions)

    def statistics(self) -> SourceStatistics:
        """A snapshot of what it has done. Doesn't block."""
        return SourceStatistics(
            ready=self._is_ready,
            alive=self._is_alive,
            read=self._answers,
            rewinds=self._rewinds,
            impossible=self._verifier.impossible,
            unverified=self._verifier.unverified,
            groups_reported=sorted(self._offsets.reported),
        )

    def _warn_of_silence(self) -> None:
        if self._assigned:  # what is told of no partition is forgotten
            super()._warn_of_silence()

    def _missing(self) -> str:
        reason = f" ({self._reason.str()})" if self._reason is not None else ""
        return f"it waits for an answer of {servers_of(self._configuration)}{reason}"

    def _read(self) -> None:
        self._reach()
        while not self._stopping.is_set():
            with self._changed:
                asked, assignments = dict(self._assigned), self._assignments
                answers, self._unread = self._unread, []
            for answer in answers:
                self._take(*answer)
            wait_seconds = self._ask_groups(asked, assignments)
            with self._changed:
                self._changed.wait_for(
                    lambda before=assignments: self._unread or self._assignments != before or self._stopping.is_set(),  # type: ignore[misc]
                    wait_seconds,
                )

    def _reach(self) -> None:
        """Block until a broker answers, which makes the source ready, or until it is to stop."""
        first_answer = FirstAnswer(
            self._configuration, self._connect_timeout, self._data_errors, name=self.name, clock=self._clock
        )
        while not self._stopping.is_set():
            try:
                self._asker.reach(REACH_TIMEOUT_SECONDS)
            except KafkaException as error:
                self._reason = first_answer.failed(error)
                continue
            first_answer.arrived()
            self._set_ready(True)
            return

    def _ask_groups(self, asked: Mapping[PartitionKey, int], assignments: int) -> float:
        """Ask each group that is due and has answered its last question.

        :returns: in how many seconds the next one is due.
        """
        now = self._clock()
        for group in self._offsets.groups if asked else ():
            if group in self._waits_for or (now < self._due_at[group] and self._asked[group] == assignments):
                continue
            self._waits_for.add(group)
            self._asked[group] = assignments
            self._due_at[group] = now + self._interval_seconds
            self._asker.ask_committed(group, asked, TIMEOUT_SECONDS, partial(self._note_answer, group, asked))
        due_at = [self._due_at[group] for group in self._offsets.groups if group not in self._waits_for]
        return max(0.0, min(due_at) - now) if due_at and asked else TIMEOUT_SECONDS

    def _note_answer(self, group: str, asked: Mapping[PartitionKey, int], answer: Commits) -> None:
        """Called by the asker, on any thread, once for each question."""
        with self._changed:
            self._unread.append((group, asked, answer))
            self._changed.notify_all()

    def _take(self, group: str, asked: Mapping[PartitionKey, int], answer: Commits) -> None:
        """Take in what a group has committed. Where that couldn't be told, what was known stays."""
        self._waits_for.discard(group)
        reports: list[CommitReport] = []
        errors = [each for each in answer.values() if isinstance(each, KafkaError)]
        if len(errors) < len(answer):
            self._answers += 1
        for key, offset in answer.items():
            if isinstance(offset, KafkaError):
                continue
            if offset is not None:
                self._known.add((key, group))
            elif (key, group) in self._known:
                self._known.discard((key, group))
            else:
                continue
            reports.append(CommitReport(key, group, offset, -1, FROM_BROKER, self._answers))
        for error in errors:
            self._data_errors.raise_fatal(KafkaException(error), f"group {group!r}")
        if any(map(is_refused_permission, errors)):  # whether that goes on is to be known soon, whatever the interval
            self._due_at[group] = min(self._due_at[group], self._clock() + TIMEOUT_SECONDS)
        if not errors:
            self._data_errors.granted(f"group {group!r}")
        if errors:
            if self._throttle.should_log((group, errors[0].code())):
                self._unanswered.add(group)
                logger.warning(
                    "%s: can't ask what group %r has committed of %d partitions: %s. It is tried again",
                    self.name,
                    group,
                    len(errors),
                    errors[0].str(),
                )
        elif group in self._unanswered:
            self._unanswered.discard(group)
            logger.warning("%s: group %r can be asked again what it has committed", self.name, group)
        # What was assigned anew meanwhile is asked about again: this answer may be older than that.
        self._apply(reports, lambda report: self._assigned.get(report.key) == asked[report.key])
