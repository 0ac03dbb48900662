"""Turns snapshots into metrics.

Guarantees
    A gauge without a tag for the topic tells of all followers of the process that send to the same backend: how many
    partitions stand still in all, and whether all readers are alive.
    A value that the backend refuses costs nothing but itself: all others are sent. Refusals are counted, and logged at
    most once a minute.

Threads: none; the monitor's thread calls it. With no metrics backend configured there is nothing to call it for.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from typing import NamedTuple, cast
from weakref import WeakKeyDictionary

from arroyo.utils.metric_defs import MetricName
from arroyo.utils.metrics import DummyMetricsBackend, Metrics, get_metrics

from arroyo_sync.core.log_guard import guarded_logger
from arroyo_sync.core.log_throttle import LOG_INTERVAL_SECONDS, LogThrottle
from arroyo_sync.core.source import SourceStatistics
from arroyo_sync.core.state import PartitionKey
from arroyo_sync.observe.metrics import (
    COMMIT_LOG_LAG,
    COMMIT_LOG_LATENCY,
    COMMIT_LOG_MSG_LATENCY,
    GATED_LAG,
    HELD_BYTES,
    HELD_MESSAGES,
    HOLD_TIME,
    IMPOSSIBLE_OFFSETS,
    IS_PAUSED,
    LEADER_LAG,
    LOCAL_OFFSET,
    OLDEST_HELD,
    PAUSES,
    READER_ALIVE,
    READER_READY,
    RECORDS_MALFORMED,
    RECORDS_READ,
    RECORDS_SKIPPED,
    REFUSED_VALUES,
    RELEASE_LATENCY,
    RELEASED_LAG,
    REMOTE_OFFSET,
    RESUMES,
    REWINDS,
    STALLED,
    TOMBSTONES,
    UNVERIFIED,
    WAITING,
    Kind,
    MetricDef,
)
from arroyo_sync.observe.snapshot import LeaderSnapshot, PartitionSnapshot, ReleaseSnapshot, Snapshot

logger = guarded_logger(__name__)


class GateCounts(NamedTuple):
    """What is counted where it happens."""

    pauses: int = 0
    """Partitions paused since the start, being full."""
    resumes: int = 0
    """Partitions resumed since the start."""


class _SharedGauges:
    """What the followers of this process last sent of the gauges that don't say whose they are.

    The backend is the process's, and keeps of each gauge what came last: a follower that is well would hide one that
    isn't. Any thread may call anything.
    """

    LEAST = frozenset({READER_ALIVE, READER_READY})
    SUMMED = frozenset({STALLED, WAITING, COMMIT_LOG_LAG, UNVERIFIED})

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: WeakKeyDictionary[MetricsReporter, dict[object, float]] = WeakKeyDictionary()

    def together(
        self,
        reporter: MetricsReporter,
        backend: Metrics,
        metric: MetricDef,
        tag_values: tuple[object, ...],
        value: float,
    ) -> float:
        """What all of them come to, with this value of this one's."""
        if metric not in self.LEAST and metric not in self.SUMMED:
            return value
        which = (id(backend), metric, tag_values)
        with self._lock:
            if reporter.has_ended:
                return value
            self._values.setdefault(reporter, {})[which] = value
            values = [each[which] for each in self._values.values() if which in each]
        return min(values) if metric in self.LEAST else sum(values)

    def forget(self, reporter: MetricsReporter) -> None:
        """It sends nothing more; or what it still sends, since its backend hung, doesn't count for the others."""
        with self._lock:
            reporter.has_ended = True
            self._values.pop(reporter, None)


_shared = _SharedGauges()


class MetricsReporter:
    """Turns snapshots into numbers. Remembers what it sent, since counters and timings are sent only what is new.

    Not thread-safe.

    :param clock: monotonic seconds.
    """

    def __init__(
        self, backend: Callable[[], Metrics] = get_metrics, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._backend = backend
        self._throttle = LogThrottle(LOG_INTERVAL_SECONDS, clock)
        self.refused = 0
        """How many values the backend has refused so far."""
        self.has_ended = False
        """Whether `end` was called. Under the lock of what all reporters share."""
        # What it refused in this report: a metric's name, and the last error of it.
        self._errors: dict[str, Exception] = {}
        self._counted: dict[tuple[MetricDef, str | None], int] = {}
        # What each group had published as of the last report: when, and which offset.
        self._published: dict[PartitionKey, dict[str, tuple[float | None, int | None]]] = {}
        # When the last report was made, and the last one of each partition, by the snapshots' time.
        self._last_at: float | None = None
        self._reported_at: dict[PartitionKey, float] = {}

    @property
    def is_wanted(self) -> bool:
        """Whether anybody would get the numbers."""
        return not isinstance(self._backend(), DummyMetricsBackend)

    def report(
        self,
        snapshot: Snapshot,
        *,
        stalled: tuple[int, int] = (0, 0),
        waiting: tuple[int, int] = (0, 0),
        gate: GateCounts | None = None,
        assigned: Collection[PartitionKey] | None = None,
    ) -> None:
        """Send everything once, and what is known of the snapshot's partitions. What the backend raises is logged and
        counted.

        :param stalled: how many partitions stand still because of a leader, and because of the follower.
        :param waiting: how many wait, and don't stand still yet, likewise.
        :param gate: what the gate counts by itself.
        :param assigned: all that are assigned, if they aren't all in this snapshot. What was sent of others is
            forgotten.
        """
        kept = {partition.key for partition in snapshot.partitions}.union(assigned or ())
        for key in self._reported_at.keys() - kept:
            del self._reported_at[key], self._published[key]
        backend = self._backend()
        for partition in snapshot.partitions:
            self._report_partition(backend, partition)
        is_ready = snapshot.source is None or snapshot.source.ready
        self._report_latencies(backend, snapshot, is_ready)
        self._send(backend, STALLED, stalled[0], "leader")
        self._send(backend, STALLED, stalled[1], "follower")
        self._send(backend, WAITING, waiting[0], "leader")
        self._send(backend, WAITING, waiting[1], "follower")
        self._send(backend, READER_ALIVE, snapshot.source_error is None)
        if snapshot.source is not None:
            self._report_source(backend, snapshot.source)
        self._report_releases(backend, snapshot)
        if gate is not None:
            self._count(backend, PAUSES, gate.pauses)
            self._count(backend, RESUMES, gate.resumes)
        self._count(backend, REFUSED_VALUES, self.refused)
        self._log_refused()

    def end(self) -> None:
        """Nothing more is reported, and what was doesn't count for the process any more."""
        _shared.forget(self)

    def _report_partition(self, backend: Metrics, partition: PartitionSnapshot) -> None:
        for metric, value in (
            (REMOTE_OFFSET, partition.remote_offset),
            (LOCAL_OFFSET, partition.local_offset),
            (GATED_LAG, partition.gated_lag),
            (RELEASED_LAG, partition.released_lag),
            (HELD_MESSAGES, partition.held_messages),
            (HELD_BYTES, partition.held_bytes),
            (OLDEST_HELD, partition.oldest_held_seconds or 0.0),
            (IS_PAUSED, partition.is_full),
        ):
            if value is not None:
                self._send(backend, metric, value, *partition.key)
        for leader in partition.leaders:
            lag = partition.gated_lag_of(leader)
            if lag is not None:
                self._send(backend, LEADER_LAG, lag, *partition.key, leader.group)

    def _report_latencies(self, backend: Metrics, snapshot: Snapshot, is_ready: bool) -> None:
        """Of records that were read since the last report; not of a replay, whose records are old by nature.

        A heartbeat repeats the last offset, and with it how old the message was: that isn't told again.
        """
        for partition in snapshot.partitions:
            before = self._published.get(partition.key, {})
            for leader in partition.leaders:
                published_at, offset = before.get(leader.group, (leader.published_at, None))
                if is_ready and leader.published_at != published_at:
                    self._send_latencies(backend, partition.partition, leader, leader.published_offset != offset)
            self._published[partition.key] = {
                leader.group: (leader.published_at, leader.published_offset) for leader in partition.leaders
            }

    def _report_source(self, backend: Metrics, source: SourceStatistics) -> None:
        self._send(backend, READER_READY, source.ready)
        self._send(backend, UNVERIFIED, source.unverified)
        if source.lag is not None:
            self._send(backend, COMMIT_LOG_LAG, source.lag)
        self._count(backend, RECORDS_READ, source.read)
        self._count(backend, RECORDS_SKIPPED, source.other_groups, "other_group")
        self._count(backend, RECORDS_SKIPPED, source.other_topics, "other_topic")
        self._count(backend, RECORDS_SKIPPED, source.logical, "logical_offset")
        for reason, count in source.malformed.items():
            self._count(backend, RECORDS_MALFORMED, count, reason)
        self._count(backend, TOMBSTONES, source.tombstones)
        self._count(backend, REWINDS, source.rewinds)
        self._count(backend, IMPOSSIBLE_OFFSETS, source.impossible)

    def _report_releases(self, backend: Metrics, snapshot: Snapshot) -> None:
        """Of the releases since their partitions' last report, the last one of each partition, the longest."""
        new: list[ReleaseSnapshot] = []
        for partition in snapshot.partitions:
            since = self._reported_at.get(partition.key, self._last_at)
            release = partition.last_release
            if release is not None and since is not None and release.at > since:
                new.append(release)
        self._reported_at.update((partition.key, snapshot.taken_at) for partition in snapshot.partitions)
        self._last_at = snapshot.taken_at
        latencies = [release.latency_seconds for release in new if release.latency_seconds is not None]
        if new:
            self._send(backend, HOLD_TIME, max(release.hold_seconds for release in new) * 1000)
        if latencies:
            self._send(backend, RELEASE_LATENCY, max(latencies) * 1000)

    def _count(self, backend: Metrics, metric: MetricDef, total: int, tag_value: str | None = None) -> None:
        """Send by how much a total has grown."""
        grown = total - self._counted.get((metric, tag_value), 0)
        if grown <= 0 or self._send(backend, metric, grown, *([] if tag_value is None else [tag_value])):
            self._counted[metric, tag_value] = total  # what is refused is counted with the next

    def _send_latencies(self, backend: Metrics, partition: int, leader: LeaderSnapshot, has_moved: bool) -> None:
        if leader.record_latency_ms is not None:
            self._send(backend, COMMIT_LOG_LATENCY, leader.record_latency_ms, partition, leader.group)
        if has_moved and leader.message_latency_ms is not None:
            self._send(backend, COMMIT_LOG_MSG_LATENCY, leader.message_latency_ms, partition, leader.group)

    def _send(self, backend: Metrics, metric: MetricDef, value: float, *tag_values: object) -> bool:
        """Whether the backend took it."""
        try:
            send(backend, metric, _shared.together(self, backend, metric, tag_values, value), *tag_values)
        except Exception as error:
            self.refused += 1
            self._errors[metric.name] = error
            return False
        return True

    def _log_refused(self) -> None:
        """One line for all that was refused in a report, however much that is."""
        errors, self._errors = self._errors, {}
        if errors and self._throttle.should_log("refused"):
            name, error = next(iter(errors.items()))
            others = f" and {len(errors) - 1} other metrics" if len(errors) > 1 else ""
            logger.warning(
                "The metrics backend refused %s%s; all that it takes is sent. %d values were refused so far",
                name,
                others,
                self.refused,
                exc_info=error,
            )


def send(backend: Metrics, metric: MetricDef, value: float, *tag_values: object) -> None:
    """Send one number, with the values of the metric's tags in their order."""
    # Arroyo's MetricName is a closed Literal of its own names; backends take any text.
    name = cast(MetricName, metric.name)
    if isinstance(value, bool):
        value = int(value)  # DogStatsD's client would write "True", which no server reads
    tags = {name: str(value) for name, value in zip(metric.tags, tag_values, strict=True)} or None
    if metric.kind is Kind.COUNTER:
        backend.increment(name, value, tags)
    elif metric.kind is Kind.GAUGE:
        backend.gauge(name, value, tags)
    else:
        backend.timing(name, value, tags)
