"""The reader on three brokers, whose partitions change their leaders."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from arroyo_sync.leaders.commit_log import reader as commit_log_reader
from tests.integration.cluster.cluster import KafkaCluster
from tests.integration.cluster.reading import TIMEOUT_SECONDS, CommitLog, reading

PARTITIONS = 9


def test_a_commit_log_that_is_created_again_is_read_from_its_new_leaders(
    kafka_cluster: Callable[..., KafkaCluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its leader epochs begin anew: a client that knew the old topic takes them for outdated, and keeps its leaders."""
    monkeypatch.setattr(commit_log_reader, "MISSING_SECONDS", TIMEOUT_SECONDS)
    cluster = kafka_cluster(brokers=3)
    cluster.create_topic("commit-log", PARTITIONS)
    log = CommitLog(cluster, "commit-log")
    with reading(cluster, "commit-log") as (_, remote):
        for broker in cluster.brokers:
            broker.kill()
            broker.start()
            cluster.wait_until_in_sync()
        for partition in range(PARTITIONS):
            log.publish(1, partition=partition, log_partition=partition)
            remote.wait_for(1, partition=partition)
        cluster.recreate_topic("commit-log")
        log.renew()
        for partition in range(PARTITIONS):
            log.publish(2, partition=partition, log_partition=partition)
        for partition in range(PARTITIONS):
            remote.wait_for(2, partition=partition)
