from __future__ import annotations

import logging
import re
from dataclasses import replace

import pytest
from arroyo.utils import metrics as arroyo_metrics
from arroyo.utils.metrics import Tags

from arroyo_sync.observe.metrics import GATED_LAG, METRICS, REFUSED_VALUES
from arroyo_sync.observe.metrics_reporter import GateCounts, MetricsReporter, send
from arroyo_sync.observe.snapshot import LeaderSnapshot, PartitionSnapshot, ReleaseSnapshot, Snapshot
from tests.support.every_metric import PARTITION, SNAPSHOT, STATISTICS, later, released, report_everything
from tests.support.metrics_backend import RecordingMetrics, StrictMetrics


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
    assert backend.of("arroyo_sync.lag.leader") == [
        (10, {**tags, "leader_group": "fast"}),
        (70, {**tags, "leader_group": "slow"}),
    ]


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
        (7, {"reason": "other_topic"}),
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


def test_a_heartbeat_tells_no_message_latency(reporter: MetricsReporter, backend: RecordingMetrics) -> None:
    """It repeats the last offset: on a quiet partition the message would seem to get older and older."""
    reporter.report(SNAPSHOT)
    reporter.report(later(SNAPSHOT, 6.0, 300.0))
    backend.sent.clear()
    (partition,) = later(SNAPSHOT, 7.0, 10_300.0).partitions
    leaders = tuple(replace(each, published_at=(each.published_at or 0.0) + 10.0) for each in partition.leaders[1:])
    reporter.report(replace(SNAPSHOT, partitions=(replace(partition, leaders=(partition.leaders[0], *leaders)),)))
    assert backend.of("commit_log_latency") == [(7.0, {"partition": "3", "group": "slow"})]
    assert backend.of("commit_log_msg_latency") == []


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
    report_everything(reporter)
    send(backend, REFUSED_VALUES, 1)  # of which none were, here
    sent = {(each.name, each.kind, tuple(each.tags)) for each in backend.sent}
    assert sent == {(metric.name, metric.kind.value, metric.tags) for metric in METRICS}


def test_wanted_only_while_a_backend_is_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    """With Arroyo's dummy backend nothing needs to be computed."""
    monkeypatch.setattr(arroyo_metrics, "_metrics_backend", None)
    assert not MetricsReporter().is_wanted
    arroyo_metrics.configure_metrics(RecordingMetrics())
    assert MetricsReporter().is_wanted


class RefusingMetrics(RecordingMetrics):
    """Raises on the metrics with these names, and takes all others."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.refuses = set(names)

    def record(self, kind: str, name: str, value: float, tags: Tags | None) -> None:
        if name in self.refuses:
            raise RuntimeError(f"no {name} here")
        super().record(kind, name, value, tags)


def test_a_value_that_the_backend_refuses_costs_only_itself() -> None:
    """Whatever is refused, all the others arrive; and how many were refused is a metric."""
    full = RecordingMetrics()
    MetricsReporter(lambda: full).report(SNAPSHOT, gate=GateCounts(1, 1))
    names = {each.name for each in full.sent}
    for refused in names:
        backend = RefusingMetrics(refused)
        reporter = MetricsReporter(lambda backend=backend: backend)  # type: ignore[misc]
        reporter.report(SNAPSHOT, gate=GateCounts(1, 1))
        assert {each.name for each in backend.sent} == (names - {refused}) | {REFUSED_VALUES.name}
        assert backend.of(REFUSED_VALUES.name) == [(len(full.of(refused)), {})]


def test_what_a_counter_lost_by_a_refusal_is_sent_with_the_next() -> None:
    """So the sum is right in the end."""
    backend = RefusingMetrics("arroyo_sync.commit_log.read")
    reporter = MetricsReporter(lambda: backend)
    reporter.report(SNAPSHOT)
    backend.refuses.clear()
    reporter.report(replace(SNAPSHOT, source=replace(STATISTICS, read=130)))
    assert backend.of("arroyo_sync.commit_log.read") == [(130, {})]


def test_refusals_are_one_line_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """Which names a metric, says how many others were refused, and holds the error."""
    now = 0.0
    backend = RefusingMetrics(*(metric.name for metric in METRICS))
    reporter = MetricsReporter(lambda: backend, clock=lambda: now)
    for _ in range(60):
        reporter.report(Snapshot(2000.0, (PARTITION,)))
        now += 1.0
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert re.match(r"The metrics backend refused arroyo_sync.remote_offset and \d+ other metrics;", record.message)
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "no arroyo_sync.remote_offset here"
    reporter.report(SNAPSHOT)
    assert len(caplog.records) == 2


def test_a_boolean_is_sent_as_a_number(backend: RecordingMetrics) -> None:
    """No backend reads ``True``."""
    send(backend, GATED_LAG, True, "events", 3)
    assert [(type(each.value), each.value) for each in backend.sent] == [(int, 1)]


def test_a_strict_backend_takes_everything() -> None:
    """Whatever some real backend refuses, drops or garbles: see `StrictMetrics`."""
    backend = StrictMetrics()
    reporter = MetricsReporter(lambda: backend)
    report_everything(reporter)
    assert {each.name for each in backend.sent} == {metric.name for metric in METRICS} - {REFUSED_VALUES.name}
    assert reporter.refused == 0


def test_partitions_take_turns(reporter: MetricsReporter, backend: RecordingMetrics) -> None:
    """A report need not have all of them: what happened since a partition's own last report is sent with its next."""

    def turn(taken_at: float, partition: int, hold_seconds: float, published_at: float) -> None:
        leader = LeaderSnapshot("g", 5, published_at, record_latency_ms=1.0)
        release = ReleaseSnapshot(taken_at - 1.5, hold_seconds, None)
        shown = PartitionSnapshot("events", partition, leaders=(leader,), last_release=release)
        reporter.report(Snapshot(taken_at, (shown,)), assigned={("events", 0), ("events", 1)})

    turn(10.0, 0, 1.0, 100.0)
    turn(11.0, 1, 2.0, 100.0)
    assert (backend.of("arroyo_sync.hold_time"), backend.of("commit_log_latency")) == ([], [])
    turn(12.0, 0, 3.0, 101.0)
    turn(13.0, 1, 4.0, 101.0)
    assert [value for value, _ in backend.of("arroyo_sync.hold_time")] == [3000.0, 4000.0]
    assert [tags["partition"] for _, tags in backend.of("commit_log_latency")] == ["0", "1"]


def test_what_was_sent_of_a_partition_that_went_away_is_forgotten(
    reporter: MetricsReporter, backend: RecordingMetrics
) -> None:
    """It comes back as a new one: what its leader published meanwhile isn't a latency of now."""
    before = PartitionSnapshot("events", 0, leaders=(LeaderSnapshot("g", 5, 100.0, record_latency_ms=1.0),))
    after = PartitionSnapshot("events", 0, leaders=(LeaderSnapshot("g", 5, 200.0, record_latency_ms=1.0),))
    reporter.report(Snapshot(10.0, (before,)))
    reporter.report(Snapshot(11.0, ()), assigned=[])
    reporter.report(Snapshot(12.0, (after,)))
    assert backend.of("commit_log_latency") == []


def test_followers_of_one_process_hide_nothing_of_each_other(backend: RecordingMetrics) -> None:
    """A backend keeps of each gauge what came last: the one that is well would hide the one that stands still."""
    ill, well = MetricsReporter(lambda: backend), MetricsReporter(lambda: backend)
    waiting = replace(SNAPSHOT, source=replace(STATISTICS, ready=False, unverified=2, lag=5), source_error="it died")
    ill.report(waiting, stalled=(3, 1), waiting=(2, 0))
    backend.sent.clear()
    well.report(replace(SNAPSHOT, source=replace(STATISTICS, ready=True, unverified=1, lag=4)), waiting=(1, 1))
    last = {(each.name, each.tags.get("waits_for")): each.value for each in backend.sent}
    assert last["arroyo_sync.stalled", "leader"] == 3
    assert last["arroyo_sync.stalled", "follower"] == 1
    assert last["arroyo_sync.waiting", "leader"] == 3
    assert last["arroyo_sync.waiting", "follower"] == 1
    assert last["arroyo_sync.reader.alive", None] == 0
    assert last["arroyo_sync.reader.ready", None] == 0
    assert last["arroyo_sync.unverified", None] == 3
    assert last["arroyo_sync.commit_log.lag", None] == 9
    assert last["arroyo_sync.held.messages", None] == 12  # whose it is, the tags say


def test_a_follower_that_has_ended_or_another_backend_does_not_count(backend: RecordingMetrics) -> None:
    """Its successor in the same process isn't ill by what it left behind."""
    ended, other, well = (MetricsReporter(lambda to=to: to) for to in (backend, RecordingMetrics(), backend))  # type: ignore[misc]
    for each in (ended, other):
        each.report(replace(SNAPSHOT, source_error="it died"), stalled=(3, 0))
    ended.end()
    ended.end()
    ended.report(replace(SNAPSHOT, source_error="it died"), stalled=(3, 0))  # its backend hung until now
    backend.sent.clear()
    well.report(SNAPSHOT)
    assert [value for value, _ in backend.of("arroyo_sync.stalled")] == [0, 0]
    assert backend.of("arroyo_sync.reader.alive") == [(1, {})]
