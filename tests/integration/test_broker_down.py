"""A follower of which a partition's broker is down, on a real cluster: the other partitions go on as before."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from arroyo.backends.kafka import KafkaConsumer, KafkaPayload
from arroyo.processing.processor import StreamProcessor
from arroyo.processing.strategies.abstract import ProcessingStrategy
from arroyo.processing.strategies.commit import CommitOffsets
from arroyo.types import Commit, Partition, Topic
from confluent_kafka import Consumer, Producer

from arroyo_sync.gate.factory import SynchronizedStrategyFactory
from arroyo_sync.gate.partition_buffer import HoldLimits
from arroyo_sync.leaders.commit_log.consumer import CommitLogConsumer
from arroyo_sync.leaders.commit_log.record import CommitRecord, encode
from arroyo_sync.leaders.group_offsets import GroupOffsetsSource
from arroyo_sync.leaders.offset_source import OffsetSource
from arroyo_sync.status.command import main
from arroyo_sync.status.reader import StatusQuery, StatusReader
from tests.integration.cluster.cluster import KafkaCluster
from tests.integration.cluster.coordinators import group_coordinated_by
from tests.integration.cluster.followers import patient_settings, produce_numbered
from tests.integration.cluster.reading import QUICK, CommitLog, running
from tests.integration.cluster.running import LastStep, Running
from tests.integration.cluster.waiting import wait_until

Names = Callable[..., str]

BACKLOG = 20_000
HELD = 2_000
SELDOM_MISSED = {"broker.session.timeout.ms": "10000"}
"""A broker that stands still for some seconds isn't missed. Arroyo ends if its group's coordinator is, for a moment."""


@pytest.fixture(scope="module")
def three_brokers_settings() -> dict[str, Any]:
    return {"min_insync_replicas": 1, "properties": SELDOM_MISSED}


class World:
    """Three brokers, a data topic of which each partition has one replica, and a commit log on all brokers."""

    def __init__(self, kafka: KafkaCluster, name: Names) -> None:
        self.kafka = kafka
        self.topic, log, self.other_topic = name("events"), name("commit-log"), name("other")
        kafka.create_topic(self.topic, 3, replication=1)
        kafka.create_topic(log)
        kafka.create_topic(self.other_topic)  # while all brokers are there: the client asks the controller for it
        self.log = CommitLog(kafka, log)
        kafka.commit_offsets("makes the topic of commits", self.topic, {0: 0})
        metadata = kafka.admin.list_topics(self.topic, timeout=30)
        leaders = {partition: each.leader for partition, each in metadata.topics[self.topic].partitions.items()}
        # The broker that clients take for the controller, since that is whom they ask for much else.
        self.dead_partition = next(partition for partition in leaders if leaders[partition] == metadata.controller_id)
        self.living = set(leaders) - {self.dead_partition}
        self.dead = kafka.brokers[leaders[self.dead_partition] - 1]
        other = kafka.brokers[leaders[min(self.living)] - 1]
        # Arroyo itself ends if the coordinator of its own group goes away for a moment.
        self.group, self.leader = (
            group_coordinated_by(kafka, other.node_id, name(prefix)) for prefix in ("forwarder", "writers")
        )
        produce_numbered(kafka.bootstrap_servers, self.topic, range(3), 10)
        for partition in range(3):
            self.leader_commits(partition, 10)
        # Arroyo itself asks the broker of a partition that has no commit where it begins.
        kafka.commit_offsets(self.group, self.topic, dict.fromkeys(range(3), 0))

    def leader_commits(self, partition: int, offset: int) -> None:
        self.log.publish(offset, partition, self.leader, self.topic)
        self.kafka.commit_offsets(self.leader, self.topic, {partition: offset})

    def source(self, kind: str) -> OffsetSource:
        settings = {"bootstrap.servers": self.kafka.bootstrap_servers, **QUICK}
        if kind == "group offsets":
            return GroupOffsetsSource(settings, groups={self.leader})
        return CommitLogConsumer(settings, topic=Topic(self.log.topic), groups={self.leader}, start="recent")

    def status(self, kind: str) -> StatusQuery:
        settings = {"bootstrap.servers": self.kafka.bootstrap_servers, **QUICK}
        log = self.log.topic if kind == "commit log" else None
        return StatusQuery(self.topic, self.group, (self.leader,), settings, log)

    @contextmanager
    def follower(self, kind: str) -> Iterator[Follower]:
        """It holds less than the backlog, so that not all of that is proven by being received."""
        last = Follower(CommitOffsets)
        limits = HoldLimits(messages=HELD, resume_messages=HELD // 2)
        last.gate = SynchronizedStrategyFactory(last, self.source(kind), limits=limits)
        settings = patient_settings(self.kafka.bootstrap_servers, self.group, "eager")
        consumer = KafkaConsumer({**settings, **QUICK})
        with Running(StreamProcessor(last.gate.flow_control(consumer), Topic(self.topic), last.gate)):
            yield last

    @contextmanager
    def another_member(self) -> Iterator[None]:
        """Of the follower's group, for another topic: a rebalance that leaves the follower all its partitions."""
        settings = patient_settings(self.kafka.bootstrap_servers, self.group, "eager")
        consumer = Consumer({**settings, **QUICK})
        consumer.subscribe([self.other_topic])

        def is_assigned() -> bool:
            consumer.poll(0.1)
            return consumer.assignment() != []

        try:
            wait_until(is_assigned, 60, "the other member to have its partition")
            yield
        finally:
            consumer.close()


class Follower(LastStep):
    """What comes out of the gate, and how often the partitions were assigned."""

    gate: SynchronizedStrategyFactory[Any]
    assignments = 0

    def create_with_partitions(
        self, commit: Commit, partitions: Mapping[Partition, int]
    ) -> ProcessingStrategy[KafkaPayload]:
        self.assignments += 1
        return super().create_with_partitions(commit, partitions)


@pytest.mark.parametrize("kind", ["commit log", "group offsets"])
def test_a_partition_whose_broker_is_down_holds_up_no_other_after_a_rebalance(
    three_brokers: KafkaCluster, topic_name: Names, kind: str
) -> None:
    """They have a backlog that the leader has committed. The broker stays away all the while."""
    world = World(three_brokers, topic_name)
    expected = {(partition, offset) for partition in world.living for offset in range(10, 10 + BACKLOG)}
    with world.follower(kind) as follower:
        wait_until(lambda: len(follower.received) == 30, 60, "the follower to read")
        world.dead.kill()
        for partition in world.living:
            produce_numbered(three_brokers.bootstrap_servers, world.topic, [partition], BACKLOG)
        wait_until(
            lambda: all(follower.gate.held.get((world.topic, partition), 0) >= HELD for partition in world.living),
            60,
            lambda: f"as much to be held as may be: {follower.gate.held}",
        )
        assignments = follower.assignments
        with world.another_member():
            wait_until(lambda: follower.assignments > assignments, 60, "the follower to be assigned anew")
            for partition in world.living:
                world.leader_commits(partition, 10 + BACKLOG)
            committed_at = time.monotonic()
            wait_until(lambda: expected <= {*follower.received}, 60, lambda: f"{len(follower.received)} messages")
            print(f"{len(expected)} messages came {time.monotonic() - committed_at:.1f} s after the leader's commit")
            assert not world.dead.is_serving

    def threads() -> list[str]:
        return [each.name for each in threading.enumerate() if each.name.startswith("arroyo-sync")]

    wait_until(lambda: not threads(), 60, lambda: f"{threads()} to end")


@pytest.mark.parametrize("kind", ["commit log", "group offsets"])
def test_what_was_published_is_verified_partition_by_partition(
    three_brokers: KafkaCluster, topic_name: Names, kind: str
) -> None:
    """Where nothing but the brokers can tell whether it is possible; and of the dead one's once it is back."""
    world = World(three_brokers, topic_name)
    source = world.source(kind)
    with running(source) as remote:
        world.dead.kill()
        source.assign({(world.topic, partition): 10 for partition in range(3)}, None)
        for partition in world.living:
            remote.wait_for(10, partition, world.topic)
        assert remote.of((world.topic, world.dead_partition)) is None
        # The end, the remote offset, and whether there is an error.
        expected = {world.dead_partition: (None, 10, True), **dict.fromkeys(world.living, (10, 10, False))}
        told: dict[int, tuple[int | None, int | None, bool]] = {}

        def is_told() -> bool:
            for each in status.read().partitions:
                told[each.partition] = each.high_watermark, each.remote_offset, each.error is not None
            return told == expected

        with StatusReader(world.status(kind)) as status:
            # The groups' coordinator may have been the dead one, and be on its way to another. And what isn't told in
            # time by a broker that is only slow is left out.
            wait_until(is_told, 120, lambda: f"{expected}, not {told}")
        assert not world.dead.is_serving
        world.dead.start()
        world.kafka.wait_until_ready()
        remote.wait_for(10, world.dead_partition, world.topic)


def test_groups_and_tail_show_what_the_other_brokers_of_the_commit_log_have(
    three_brokers: KafkaCluster, topic_name: Names, capsys: pytest.CaptureFixture[str]
) -> None:
    """They name the partition that is missing, and exit with 2: not all of it could be told."""
    kafka, log, events = three_brokers, topic_name("commit-log"), topic_name("events")
    kafka.create_topic(log, 3, replication=1)
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    for partition in range(3):
        key, value = encode(CommitRecord(events, partition, "writers", 10 + partition, 1.0))
        producer.produce(log, value, key, partition)
    assert producer.flush(30) == 0
    leaders = {index: each.leader for index, each in kafka.admin.list_topics(log).topics[log].partitions.items()}
    kafka.brokers[leaders[1] - 1].kill()
    for command, told in {"groups": "partitions 0, 2  2 records", "tail": f"{events}[2]  writers  12"}.items():
        arguments = ["--bootstrap-servers", kafka.bootstrap_servers, "--commit-log", log, "--timeout", "30"]
        assert main([command, *arguments]) == 2
        output = capsys.readouterr()
        assert told in output.out
        assert f"{events}[1]" not in output.out
        assert output.err.startswith(f"arroyo-sync: without what is in {log}[1] (")
        assert output.err.count("\n") == 1


def test_a_status_costs_only_the_partitions_of_that_broker_their_verdicts(
    three_brokers: KafkaCluster, topic_name: Names, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are unknown, with the reason; the others have theirs."""
    world = World(three_brokers, topic_name)
    three_brokers.commit_offsets(world.group, world.topic, dict.fromkeys(range(3), 10))
    world.dead.kill()
    command = ["status", "--json", "--bootstrap-servers", three_brokers.bootstrap_servers, "--topic", world.topic]
    command += ["--commit-log", world.log.topic, "--leader-group", world.leader, "--follower-group", world.group]
    assert main([*command, "--timeout", "60"]) == 2  # the commit log needs another leader
    verdicts = {each["partition"]: each for each in json.loads(capsys.readouterr().out)["verdicts"]}
    grades = {partition: each["grade"] for partition, each in verdicts.items()}
    assert grades == {world.dead_partition: "unknown", **dict.fromkeys(world.living, "ok")}
    assert "where it ends" in verdicts[world.dead_partition]["reason"]
