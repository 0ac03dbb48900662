"""The reader on three brokers, one of which goes away, and whose partitions change their leaders."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from arroyo_sync.leaders.commit_log import reader as commit_log_reader
from tests.integration.cluster.cluster import KafkaCluster
from tests.integration.cluster.reading import EVENTS, TIMEOUT_SECONDS, CommitLog, Remote, reading

Names = Callable[..., str]

PARTITIONS = 9


def test_leader_elections_are_ridden_out(three_brokers: KafkaCluster, topic_name: Names) -> None:
    """One of three brokers is killed and comes back; nothing that is published meanwhile is missed."""
    topic = topic_name("commit-log")
    three_brokers.create_topic(topic, 6)
    assert three_brokers.topic_config(topic)["min.insync.replicas"] == "2"
    log = CommitLog(three_brokers, topic)

    def publish(offset: int, remote: Remote) -> None:
        for partition in range(6):
            log.publish(offset, partition, log_partition=partition)
        for partition in range(6):
            remote.wait_for(offset, partition)

    with reading(three_brokers, topic) as (source, remote):
        publish(1, remote)
        three_brokers.brokers[0].kill()
        publish(2, remote)
        three_brokers.brokers[0].start()
        three_brokers.wait_until_ready()
        publish(3, remote)
        source.check()
        assert source.ready
        assert source.statistics().rewinds == 0


def test_a_log_partition_whose_broker_is_down_at_the_start_keeps_the_gate_shut(
    three_brokers: KafkaCluster, topic_name: Names, caplog: pytest.LogCaptureFixture
) -> None:
    """The newest report of any partition may lie in it. The others are read meanwhile. Its return is told."""
    topic = topic_name("commit-log")
    three_brokers.create_topic(topic, 3, replication=1)
    log = CommitLog(three_brokers, topic)
    for partition in range(3):
        log.publish(10 + partition, partition, log_partition=partition)
    metadata = three_brokers.admin.list_topics(topic, timeout=TIMEOUT_SECONDS)
    away = 1
    broker = three_brokers.brokers[metadata.topics[topic].partitions[away].leader - 1]
    broker.kill()
    others = {(EVENTS, 0), (EVENTS, 2)}
    with reading(three_brokers, topic, is_ready=False) as (source, remote):
        remote.wait_until(lambda: source.published().keys() == others, "the other partitions to be read")
        remote.wait_until(lambda: f"don't answer about {topic}[{away}]" in caplog.text, "the broker to be missed")
        assert not source.ready
        broker.start()
        three_brokers.wait_until_ready()
        source.wait_until_ready(TIMEOUT_SECONDS)
        assert source.published().keys() == {*others, (EVENTS, away)}
        remote.wait_until(lambda: f"answer again about {topic}[{away}]" in caplog.text, "its return to be told")


def test_a_commit_log_that_is_created_again_is_read_from_its_new_leaders(
    three_brokers: KafkaCluster, topic_name: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its leader epochs begin anew: a client that knew the old topic takes them for outdated, and keeps its leaders."""
    monkeypatch.setattr(commit_log_reader, "MISSING_SECONDS", TIMEOUT_SECONDS)
    topic = topic_name("commit-log")
    three_brokers.create_topic(topic, PARTITIONS)
    log = CommitLog(three_brokers, topic)
    with reading(three_brokers, topic) as (_, remote):
        for broker in three_brokers.brokers:  # each partition changes its leader more than once
            broker.pause()
            three_brokers.wait_until_replaced(broker)
            broker.resume()
            three_brokers.wait_until_in_sync()
        for partition in range(PARTITIONS):
            log.publish(1, partition=partition, log_partition=partition)
            remote.wait_for(1, partition=partition)
        three_brokers.recreate_topic(topic)
        log.renew()
        for partition in range(PARTITIONS):
            log.publish(2, partition=partition, log_partition=partition)
        for partition in range(PARTITIONS):
            remote.wait_for(2, partition=partition)
