"""What a follower tells of itself while it runs on the real broker: snapshots, metrics, and Sentry events."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from arroyo.backends.kafka import KafkaConsumer
from arroyo.processing.processor import StreamProcessor
from arroyo.processing.strategies.commit import CommitOffsets
from arroyo.types import Topic
from arroyo.utils import metrics as arroyo_metrics
from confluent_kafka import Producer

from arroyo_sync.core.errors import FollowerStalled, SourceDied
from arroyo_sync.gate.factory import SynchronizedStrategyFactory
from arroyo_sync.gate.partition_buffer import HoldLimits
from arroyo_sync.leaders.commit_log.consumer import CommitLogConsumer
from arroyo_sync.leaders.commit_log.record import CommitRecord, encode
from arroyo_sync.observe.snapshot import PartitionSnapshot
from arroyo_sync.observe.verdict import Grade
from arroyo_sync.observe.waits import Limits
from tests.integration.cluster.admin import Kafka
from tests.integration.cluster.followers import patient_settings, produce_numbered
from tests.integration.cluster.reading import REMOTE_SECONDS
from tests.integration.cluster.running import LastStep, Running
from tests.integration.cluster.waiting import wait_until
from tests.support.metrics_backend import RecordingMetrics
from tests.support.sentry_transport import CatchingTransport, sentry

PARTITIONS = 2
MESSAGES = 100


class World:
    """A follower of two partitions with two leader groups, whose commits the test publishes."""

    def __init__(self, kafka: Kafka, name: Callable[..., str]) -> None:
        self.kafka = kafka
        self.topic, self.commit_log = name("events"), name("commits")
        self.writers, self.indexers, self.group = name("writers"), name("indexers"), name("forwarder")
        kafka.create_topic(self.topic, PARTITIONS)
        kafka.create_topic(self.commit_log)
        produce_numbered(kafka.bootstrap_servers, self.topic, range(PARTITIONS), MESSAGES)

    def publish(self, group: str, partition: int, offset: int) -> None:
        producer = Producer({"bootstrap.servers": self.kafka.bootstrap_servers, "linger.ms": 0, "log_level": 0})
        now = time.time()
        key, value = encode(CommitRecord(self.topic, partition, group, offset, now - 2.0))
        producer.produce(self.commit_log, value, key, timestamp=int(now * 1000))
        assert producer.flush(REMOTE_SECONDS) == 0

    def follower(self, **keywords: Any) -> tuple[SynchronizedStrategyFactory[Any], Running]:
        settings = {"bootstrap.servers": self.kafka.bootstrap_servers, "topic.metadata.refresh.interval.ms": 500}
        source = CommitLogConsumer(settings, topic=Topic(self.commit_log), groups={self.writers, self.indexers})
        factory = SynchronizedStrategyFactory(LastStep(CommitOffsets), source, **{"monitor_interval": 0.05, **keywords})
        consumer = KafkaConsumer(patient_settings(self.kafka.bootstrap_servers, self.group, "eager"))
        processor = StreamProcessor(factory.flow_control(consumer), Topic(self.topic), factory)
        return factory, Running(processor)


def begin_to_stall(factory: SynchronizedStrategyFactory[Any], seconds: float) -> None:
    """From now on a wait of so many seconds is a stall: not while all is only coming, for as long as that may take."""
    factory._monitor._limits = Limits(seconds, seconds)


@pytest.fixture
def world(kafka: Kafka, topic_name: Callable[..., str]) -> World:
    return World(kafka, topic_name)


@pytest.fixture
def transport() -> Iterator[CatchingTransport]:
    with sentry() as transport:
        yield transport


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> RecordingMetrics:
    backend = RecordingMetrics()
    monkeypatch.setattr(arroyo_metrics, "_metrics_backend", backend)
    return backend


def test_a_snapshot_and_the_metrics_tell_for_whom_the_follower_waits(world: World, backend: RecordingMetrics) -> None:
    """Offsets, the two lags and what is held; every leader's own lag; and Sentry's two latencies of live records."""
    factory, running = world.follower()
    for group, offset in ((world.writers, 60), (world.indexers, 40)):
        for index in range(PARTITIONS):
            world.publish(group, index, offset)

    seen: list[PartitionSnapshot] = []

    def has_arrived() -> bool:
        partition = factory.snapshot().partition(world.topic, 0)
        if partition is None or partition.high_watermark is None:
            return False
        seen.append(partition)
        return (partition.local_offset, partition.held_messages) == (40, 60)  # of those that have come, 60 may be held

    def local_offsets() -> dict[str, float]:
        return {tags["partition"]: value for value, tags in backend.of("arroyo_sync.local_offset")}

    with running:
        wait_until(has_arrived, 60, lambda: f"60 messages held: {factory.snapshot()}")
        partition = seen[-1]
        assert (partition.local_offset, partition.remote_offset, partition.high_watermark) == (40, 40, 100)
        assert (partition.released_lag, partition.state.name) == (0, "SYNCHRONIZED")
        assert partition.blocked_by is not None
        assert partition.blocked_by.group == world.indexers
        assert {leader.group: partition.gated_lag_of(leader) for leader in partition.leaders} == {
            world.writers: 40,
            world.indexers: 60,
        }
        # A latency, and a release, are told of what is new since the last report.
        wait_until(lambda: local_offsets() == {"0": 40, "1": 40}, 60, "what has come as a metric")
        world.publish(world.indexers, 0, 50)
        wait_until(lambda: backend.of("commit_log_latency") != [], 60, "a latency")
        wait_until(lambda: backend.of("arroyo_sync.release_latency") != [], 60, "a release")
        wait_until(lambda: backend.of("arroyo_sync.local_offset")[-2:][0][0] == 50, 60, "the offset as a metric")

    ((latency_ms, tags), *_) = backend.of("commit_log_latency")
    assert tags == {"partition": "0", "group": world.indexers}
    assert 0 <= latency_ms < 60_000
    ((message_latency_ms, _), *_) = backend.of("commit_log_msg_latency")
    assert message_latency_ms == pytest.approx(latency_ms + 2000, abs=500)
    ((release_ms, _), *_), ((hold_ms, _), *_) = (
        backend.of(f"arroyo_sync.{name}") for name in ("release_latency", "hold_time")
    )
    assert 0 <= release_ms <= hold_ms < 60_000
    gated = {tags["partition"]: value for value, tags in backend.of("arroyo_sync.lag.gated")}
    assert gated == {"0": 50, "1": 60}
    assert sum(value for value, _ in backend.of("arroyo_sync.commit_log.read")) == 5
    assert backend.of("arroyo_sync.reader.alive")[-1] == (1, {})


def test_the_lag_of_a_partition_that_the_gate_has_paused_goes_on_growing(world: World) -> None:
    """The consumer doesn't fetch it, so the broker is asked where it ends."""
    factory, running = world.follower(limits=HoldLimits(messages=10, resume_messages=5))
    with running:
        wait_until(lambda: [each.is_full for each in factory.snapshot().partitions] == [True, True], 60, "full")
        produce_numbered(world.kafka.bootstrap_servers, world.topic, [0], 400)
        wait_until(lambda: [each.gated_lag for each in factory.snapshot().partitions] == [500, 100], 60, "the lag")


def is_ready(factory: SynchronizedStrategyFactory[Any]) -> bool:
    source = factory.snapshot().source
    return source is not None and source.ready


def test_a_commit_log_that_is_deleted_is_one_event(
    world: World, transport: CatchingTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader ends, the follower with it, and Sentry holds the snapshot of that moment, and nothing else of it."""
    # That one group is silent is an event, too, if its end takes some seconds more.
    monkeypatch.setattr("arroyo_sync.observe.monitor.WAITING_AFTER_SECONDS", 3_600.0)
    factory, running = world.follower()
    world.publish(world.writers, 0, 60)
    with running:
        wait_until(lambda: is_ready(factory) and len(factory.snapshot().partitions) == PARTITIONS, 60, "all is ready")
        world.kafka.delete_topic(world.commit_log)
        error = running.wait_for_end()
    assert isinstance(error, SourceDied)
    (event,) = transport.events  # neither the reader's own line, nor the exception that Arroyo logs
    assert event["fingerprint"][:2] == ["arroyo_sync", "source-died"]
    assert f"topic '{world.commit_log}' doesn't exist any more" in event["message"]
    context = event["contexts"]["arroyo_sync"]
    assert context["source"]["alive"] is False
    assert context["partitions_assigned"] in (0, PARTITIONS)  # the last look may come after the strategy has ended


def test_an_impossible_offset_and_a_silent_group_are_events_that_name_them(
    world: World, transport: CatchingTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the partition and the group as tags, once; the source's own lines about it make none."""
    monkeypatch.setattr("arroyo_sync.observe.monitor.WAITING_AFTER_SECONDS", 0.5)
    _, running = world.follower()

    def kinds() -> dict[str, dict[str, str]]:
        return {each["fingerprint"][1]: each["tags"] for each in transport.events}

    with running:
        for offset in (5000, 5001, 5002):
            world.publish(world.writers, 0, offset)
        wait_until(lambda: set(kinds()) == {"impossible-offset", "never-reported"}, 60, lambda: f"{kinds()}")
    assert len(transport.events) == 2
    assert kinds()["impossible-offset"] == {
        "arroyo_sync": "impossible-offset",
        "topic": world.topic,
        "partition": "0",
        "group": world.writers,
    }
    assert kinds()["never-reported"]["group"] == min(world.writers, world.indexers)


def test_a_leader_that_stands_still_ends_a_follower_that_asked_for_it(world: World) -> None:
    """The error names the partition and the leader, and how far behind it is."""
    factory, running = world.follower(stalled_after=3_600.0, on_stall="raise")
    for partition in range(PARTITIONS):
        world.publish(world.writers, partition, 60)
        world.publish(world.indexers, partition, 40)

    def snapshot() -> list[tuple[int | None, int | None]]:
        return [(each.local_offset, each.held_messages) for each in factory.snapshot().partitions]

    with running:
        wait_until(lambda: snapshot() == [(40, 60)] * PARTITIONS, 60, lambda: f"everything has come: {snapshot()}")
        begin_to_stall(factory, 1.0)
        error = running.wait_for_end()
    assert isinstance(error, FollowerStalled)
    assert f"60 messages wait for group '{world.indexers}', which is at 40" in str(error)


def test_offsets_that_hold_no_message_end_no_follower(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Two interleaved transactions end at 4 with their last message at 1; of another, 20 messages were aborted."""
    name = f"{world.topic}-transactions"
    world.kafka.create_topic(name, PARTITIONS)
    settings = {"bootstrap.servers": world.kafka.bootstrap_servers, "log_level": 0}
    producers = [Producer({**settings, "transactional.id": f"{name}-{each}"}) for each in range(2)]
    for producer in producers:
        producer.init_transactions(60)
        producer.begin_transaction()
        producer.produce(name, b"one", partition=0)
        assert producer.flush(30) == 0
    producers[0].produce(name, b"one", partition=1)
    for producer in producers:
        producer.commit_transaction(60)
    producers[0].begin_transaction()
    for _ in range(20):
        producers[0].produce(name, b"aborted", partition=1)
    producers[0].flush(30)
    producers[0].abort_transaction(60)
    world.topic = name
    for group in (world.writers, world.indexers):
        world.publish(group, 0, 2)
        world.publish(group, 1, 1)
    factory, running = world.follower(stalled_after=3_600.0, on_stall="raise")

    def snapshot() -> list[tuple[int | None, int | None]]:
        return [(each.local_offset, each.high_watermark) for each in factory.snapshot().partitions]

    with running:
        wait_until(lambda: snapshot() == [(2, 4), (1, 23)], 60, lambda: f"everything has come: {snapshot()}")
        begin_to_stall(factory, 2.0)
        seen = factory.snapshot().taken_at
        wait_until(lambda: factory.snapshot().taken_at > seen + 4.0, 60, "twice the time of a stall")
        assert [verdict.grade for verdict in factory.verdicts] == [Grade.OK, Grade.OK]
    assert "stood still" not in caplog.text


def test_a_trailing_message_that_a_leader_does_not_report_is_said_to_be_one_perhaps(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """As Snuba's errors consumer leaves replacements unreported until the next insert: both possibilities are said."""
    for group in (world.writers, world.indexers):
        for partition in range(PARTITIONS):
            world.publish(group, partition, MESSAGES - 1)
    factory, running = world.follower(stalled_after=3_600.0)

    def snapshot() -> list[tuple[int | None, int | None, int | None]]:
        partitions = factory.snapshot().partitions
        return [(each.local_offset, each.held_messages, each.high_watermark) for each in partitions]

    with running:
        come = [(MESSAGES - 1, 1, MESSAGES)] * PARTITIONS
        wait_until(lambda: snapshot() == come, 60, lambda: f"everything has come: {snapshot()}")
        begin_to_stall(factory, 1.0)
        wait_until(lambda: len(factory.stalls) == PARTITIONS, 60, lambda: f"both stand still: {factory.verdicts}")
        assert [verdict.behind for verdict in factory.verdicts] == [1, 1]
        wait_until(lambda: "either the leader stands still" in caplog.text, 60, "both possibilities")
        for group in (world.writers, world.indexers):
            for partition in range(PARTITIONS):
                world.publish(group, partition, MESSAGES)
        wait_until(lambda: "Over: " in caplog.text, 60, "it is said to be over")
