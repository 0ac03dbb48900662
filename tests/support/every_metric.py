"""Snapshots of a follower, and reports of them in which every metric is sent."""

from __future__ import annotations

from dataclasses import replace

from arroyo_sync.core.source import SourceStatistics
from arroyo_sync.observe.metrics_reporter import GateCounts, MetricsReporter
from arroyo_sync.observe.snapshot import LeaderSnapshot, PartitionSnapshot, ReleaseSnapshot, Snapshot

SLOW = LeaderSnapshot("slow", 30, published_at=1000.0, record_latency_ms=4.0, message_latency_ms=250.0)
FAST = LeaderSnapshot("fast", 90, published_at=1000.0, record_latency_ms=5.0, message_latency_ms=50.0)
PARTITION = PartitionSnapshot(
    "events",
    3,
    local_offset=10,
    remote_offset=30,
    high_watermark=100,
    leaders=(FAST, SLOW),
    held_messages=12,
    held_bytes=9000,
    oldest_held_seconds=1.5,
    is_full=True,
)
STATISTICS = SourceStatistics(
    ready=True,
    alive=True,
    read=100,
    other_groups=40,
    other_topics=7,
    logical=1,
    tombstones=2,
    malformed={"key": 3, "offset": 4},
    rewinds=5,
    impossible=6,
    unverified=7,
    lag=8,
)
SNAPSHOT = Snapshot(2000.0, (PARTITION,), STATISTICS)


def later(snapshot: Snapshot, record_latency_ms: float = 4.0, message_latency_ms: float = 250.0) -> Snapshot:
    """The same, with another record of the slow group, of a later offset."""
    leader = replace(
        SLOW,
        published_at=1001.0,
        published_offset=(SLOW.published_offset or 0) + 1,
        record_latency_ms=record_latency_ms,
        message_latency_ms=message_latency_ms,
    )
    return replace(snapshot, partitions=(replace(PARTITION, leaders=(FAST, leader)),))


def released(at: float, hold_seconds: float, latency_seconds: float | None) -> PartitionSnapshot:
    return replace(PARTITION, last_release=ReleaseSnapshot(at, hold_seconds, latency_seconds))


def report_everything(reporter: MetricsReporter) -> None:
    """Every metric at least once, but that of refusals."""
    reporter.report(SNAPSHOT)
    reporter.report(later(SNAPSHOT), gate=GateCounts(1, 1))
    reporter.report(Snapshot(2001.0, (released(2000.5, 0.5, 0.002),), STATISTICS))
