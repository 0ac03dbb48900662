from __future__ import annotations

from dataclasses import replace

import pytest
from arroyo.utils import metrics as arroyo_metrics

from arroyo_sync.core.source import SourceStatistics
from arroyo_sync.observe.metrics import METRICS
from arroyo_sync.observe.metrics_reporter import GateCounts, MetricsReporter
from arroyo_sync.observe.snapshot import LeaderSnapshot, PartitionSnapshot, ReleaseSnapshot, Snapshot
from tests.support.metrics_backend import RecordingMetrics

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
    """The same, with another record of the slow group."""
    leader = replace(
        SLOW, published_at=1001.0, record_latency_ms=record_latency_ms, message_latency_ms=message_latency_ms
    )
    return replace(snapshot, partitions=(replace(PARTITION, leaders=(FAST, leader)),))


@pytest.fixture
def backend() -> RecordingMetrics:
    return RecordingMetrics()


@pytest.fixture
def reporter(backend: RecordingMetrics) -> MetricsReporter:
    return MetricsReporter(lambda: backend)


def test_a_partitions_offsets_lags_and_what_is_held(reporter: MetricsReporter, backend: RecordingMetrics) -> None:
    """The lag is split into what waits for a leader, by group, and what waits for the follower."""
    reporter.report(SNAPSHOT)
    tags = {"topic": "events", "partition": "3"}
    expected = {
        "remote_offset": 30,
        "local_offset": 10,
        "lag.gated": 70,
        "lag.released": 20,
        "held.messages": 12,
        "held.bytes": 9000,
        "held.oldest": 1.5,
        "paused": 1,
    }
    for name, value in expected.items():
        assert backend.of(f"arroyo_sync.{name}") == [(value, tags)], name
    assert backend.of("arroyo_sync.lag.leader") == [(10, {**tags, "group": "fast"}), (70, {**tags, "group": "slow"})]


def test_what_is_unknown_is_not_sent(reporter: MetricsReporter, backend: RecordingMetrics) -> None:
    """Unknown is no number: 0 or -1 would look like an offset."""
    reporter.report(Snapshot(0.0, (PartitionSnapshot("events", 3, local_offset=10),)))
    assert {each.name for each in backend.sent} == {
        "arroyo_sync.local_offset",
        "arroyo_sync.lag.released",
        "arroyo_sync.held.oldest",
        "arroyo_sync.stalled",
        "arroyo_sync.waiting",
        "arroyo_sync.reader.alive",
    }


def test_counters_tell_what_is_new(reporter: MetricsReporter, backend: RecordingMetrics) -> None:
    """The source counts since its start; a counter gets the difference, and nothing when there is none."""
    reporter.report(SNAPSHOT)
    assert backend.of("arroyo_sync.commit_log.read") == [(100, {})]
    assert backend.of("arroyo_sync.commit_log.malformed") == [
        (3, {"reason": "key"}),
        (4, {"reason": "offset"}),
    ]
    assert backend.of("arroyo_sync.commit_log.skipped") == [
        (40, {"reason": "other_group"}),
        (1, {"reason": "logical_offset"}),
    ]
    assert backend.of("arroyo_sync.commit_log.tombstones") == [(2, {})]
    assert backend.of("arroyo_sync.rewinds") == [(5, {})]
    assert backend.of("arroyo_sync.impossible_offsets") == [(6, {})]
    backend.sent.clear()
    reporter.report(replace(SNAPSHOT, source=replace(STATISTICS, read=130, malformed={"key": 3, "offset": 9})))
    counted = [(each.name, each.value) for each in backend.sent if each.kind == "increment"]
    assert counted == [
        ("arroyo_sync.commit_log.read", 30),
        ("arroyo_sync.commit_log.malformed", 5),
    ]


def test_the_source_and_its_end(reporter: MetricsReporter, backend: RecordingMetrics) -> None:
    """Alive, ready, and how far behind; a dead one is 0."""
    reporter.report(SNAPSHOT)
    assert backend.of("arroyo_sync.reader.alive") == [(1, {})]
    assert backend.of("arroyo_sync.reader.ready") == [(1, {})]
    assert backend.of("arroyo_sync.commit_log.lag") == [(8, {})]
    assert backend.of("arroyo_sync.unverified") == [(7, {})]
    backend.sent.clear()
    reporter.report(replace(SNAPSHOT, source_error="it died"))
    assert backend.of("arroyo_sync.reader.alive") == [(0, {})]


def test_sentrys_own_latencies_of_records_read_since_the_last_report(
    reporter: MetricsReporter, backend: RecordingMetrics
) -> None:
    """Once a record: a series whose last record was told already is silent until the next one."""
    reporter.report(SNAPSHOT)
    backend.sent.clear()
    reporter.report(later(SNAPSHOT, 6.0, 300.0))
    reporter.report(later(SNAPSHOT, 6.0, 300.0))
    tags = {"partition": "3", "group": "slow"}
    assert backend.of("commit_log_latency") == [(6.0, tags)]
    assert backend.of("commit_log_msg_latency") == [(300.0, tags)]


def test_a_replay_tells_no_latencies(reporter: MetricsReporter, backend: RecordingMetrics) -> None:
    """Records of a replay were written long ago: their age says nothing about how the leaders do."""
    replaying = replace(SNAPSHOT, source=replace(STATISTICS, ready=False))
    reporter.report(replaying)
    reporter.report(later(replaying))
    reporter.report(later(SNAPSHOT))
    assert backend.of("commit_log_latency") == []


def test_stalled_partitions_and_what_the_gate_counts(reporter: MetricsReporter, backend: RecordingMetrics) -> None:
    """Stalls are a gauge by whom is waited for; pauses are counters."""
    reporter.report(SNAPSHOT, stalled=(2, 1), gate=GateCounts(4, 3))
    assert backend.of("arroyo_sync.stalled") == [(2, {"waits_for": "leader"}), (1, {"waits_for": "follower"})]
    assert backend.of("arroyo_sync.pauses") == [(4, {})]
    assert backend.of("arroyo_sync.resumes") == [(3, {})]


def released(at: float, hold_seconds: float, latency_seconds: float | None) -> PartitionSnapshot:
    return replace(PARTITION, last_release=ReleaseSnapshot(at, hold_seconds, latency_seconds))


def test_the_longest_hold_and_latency_of_what_was_released_since_the_last_report(
    reporter: MetricsReporter, backend: RecordingMetrics
) -> None:
    """In milliseconds; what was told before isn't told again, and an unknown latency is no latency."""
    reporter.report(Snapshot(2000.0, (released(1999.5, 0.1, 0.1),)))
    partitions = released(2000.5, 0.5, 0.002), released(2000.6, 3.0, None), released(1999.5, 9.0, 9.0)
    reporter.report(Snapshot(2001.0, partitions))
    reporter.report(Snapshot(2002.0, partitions))
    assert backend.of("arroyo_sync.hold_time") == [(3000.0, {})]
    assert backend.of("arroyo_sync.release_latency") == [(2.0, {})]


def test_every_metric_is_sent_with_the_tags_and_kind_that_its_definition_says(
    reporter: MetricsReporter, backend: RecordingMetrics
) -> None:
    """The table of metrics is complete and true: what is defined is sent, and nothing else is."""
    reporter.report(SNAPSHOT)
    reporter.report(later(SNAPSHOT), gate=GateCounts(1, 1))
    reporter.report(Snapshot(2001.0, (released(2000.5, 0.5, 0.002),), STATISTICS))
    sent = {(each.name, each.kind, tuple(each.tags)) for each in backend.sent}
    assert sent == {(metric.name, metric.kind.value, metric.tags) for metric in METRICS}


def test_wanted_only_while_a_backend_is_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    """With Arroyo's dummy backend nothing needs to be computed."""
    monkeypatch.setattr(arroyo_metrics, "_metrics_backend", None)
    assert not MetricsReporter().is_wanted
    arroyo_metrics.configure_metrics(RecordingMetrics())
    assert MetricsReporter().is_wanted
