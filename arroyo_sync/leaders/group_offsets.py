"""A source for leaders that publish no commit log: it asks the brokers what their groups have committed.

Slower than a commit log by the leaders' commit policy (a second or so) and by ``interval_seconds``, and each question
costs the brokers a request a group. Everything else is the same: see `OffsetSource` for its guarantees and threads.

    - It is ready once a broker has answered. A partition stays unknown until every group was asked about it.
    - Only partitions that the follower reads are asked about, and at once when they are assigned; what is known of the
      others is forgotten.
    - A group that has nothing committed (any more) is unknown there.

Failures
    Brokers that don't answer are logged and asked again; what the groups had committed before stays in force meanwhile.
    Failed authentication and missing permission end the source, and so does a start at which no broker answers in time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from arroyo_sync.core.checks import check_seconds
from arroyo_sync.core.errors import BrokersUnreachable
from arroyo_sync.core.log_throttle import LOG_INTERVAL_SECONDS, LogThrottle
from arroyo_sync.core.source import HighWatermarks, SourceStatistics
from arroyo_sync.core.state import PartitionKey
from arroyo_sync.kafka.client_settings import servers_of
from arroyo_sync.kafka.committed_offsets import CommittedOffsets
from arroyo_sync.kafka.errors import is_fatal, more_telling
from arroyo_sync.leaders.commit_report import CommitReport
from arroyo_sync.leaders.offset_source import OffsetSource

logger = logging.getLogger(__name__)

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
        # The reading thread's.
        self._answers = 0
        self._known: set[tuple[PartitionKey, str]] = set()
        self._last_error: KafkaError | None = None
        self._end: KafkaError | None = None

    def assign(self, positions: Mapping[PartitionKey, int], watermarks: HighWatermarks | None) -> None:
        super().assign(positions, watermarks)
        with self._changed:
            self._assignments += 1
            self._assigned.update(dict.fromkeys(positions, self._assignments))
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
            unverified=len(self.unverified),
            logs_silence=True,
        )

    def _missing(self) -> str:
        reason = f" ({self._last_error.str()})" if self._last_error is not None else ""
        return f"it waits for an answer of {servers_of(self._configuration)}{reason}"

    def _on_error(self, error: KafkaError) -> None:
        """Told by librdkafka out of ``poll``."""
        self._last_error = more_telling(self._last_error, error)
        if is_fatal(error):
            self._end = self._end or error  # others follow it: that all brokers are down, for one
        elif self._throttle.should_log(error.code()):
            logger.warning("%s: %s. It is tried again", self.name, error.str())

    def _read(self) -> None:
        committed = CommittedOffsets(self._configuration, self._on_error)
        try:
            self._reach(committed)
            while not self._stopping.is_set():
                with self._changed:
                    asked = dict(self._assigned)
                    assignments = self._assignments
                if asked:
                    for group in self._offsets.groups:
                        if not self._stopping.is_set():
                            self._ask(committed, group, asked)
                with self._changed:
                    self._changed.wait_for(
                        lambda before=assignments: self._assignments != before or self._stopping.is_set(),  # type: ignore[misc]
                        self._interval_seconds,
                    )
        finally:
            committed.close()

    def _reach(self, committed: CommittedOffsets) -> None:
        """Block until a broker answers, which makes the source ready, or until it is to stop."""
        deadline = self._clock() + self._connect_timeout
        while not self._stopping.is_set():
            try:
                committed.reach(self._offsets.groups[0], REACH_TIMEOUT_SECONDS)
            except KafkaException as error:
                self._raise_what_ends(error)
                if self._clock() < deadline:
                    continue
                reason = (self._last_error or error.args[0]).str()
                servers = servers_of(self._configuration)
                raise BrokersUnreachable(
                    f"no broker of {servers} answered within {self._connect_timeout:g} s: {reason}"
                ) from error
            self._set_ready(True)
            return

    def _ask(self, committed: CommittedOffsets, group: str, asked: Mapping[PartitionKey, int]) -> None:
        """Ask what a group has committed, and take it in."""
        try:
            offsets = committed.ask(group, asked, TIMEOUT_SECONDS)
        except KafkaException as error:
            self._raise_what_ends(error)
            if self._throttle.should_log((group, error.args[0].code())):
                logger.warning(
                    "%s: can't ask what group %r has committed: %s. It is tried again",
                    self.name,
                    group,
                    error.args[0].str(),
                )
            return
        self._answers += 1
        reports = []
        for key in asked:
            offset = offsets.get(key)
            if offset is not None:
                self._known.add((key, group))
            elif (key, group) in self._known:
                self._known.discard((key, group))
            else:
                continue
            reports.append(CommitReport(key, group, offset, -1, 0, self._answers))
        # What was assigned anew meanwhile is asked about again: this answer may be older than that.
        self._apply(reports, lambda report: self._assigned.get(report.key) == asked[report.key])

    def _raise_what_ends(self, error: KafkaException) -> None:
        if self._end is not None:
            raise KafkaException(self._end) from error
        if is_fatal(error.args[0]):
            raise error
