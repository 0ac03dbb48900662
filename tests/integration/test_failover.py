"""Another cluster behind the same address, as after a failover: what it says of a topic of that name isn't believed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import pytest
from arroyo.types import Topic

from arroyo_sync.core.errors import AnotherCluster
from arroyo_sync.leaders.commit_log.consumer import CommitLogConsumer
from tests.chaos.proxy import Proxy
from tests.integration.cluster.cluster import KafkaCluster
from tests.integration.cluster.followers import Follower, patient_settings, produce_numbered
from tests.integration.cluster.reading import QUICK, CommitLog
from tests.integration.cluster.waiting import wait_until

TIMEOUT_SECONDS = 90.0
TOPIC, LOG, LEADER, FOLLOWER = "events", "commit-log", "writers", "follower"


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    proxy = Proxy(0)
    yield proxy
    proxy.close()


def test_a_follower_ends_and_leaves_the_offsets_of_the_other_cluster_as_they_are(
    kafka_cluster: Callable[..., KafkaCluster], proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    """They are mirrored there, and its group goes on with them once a person has looked."""
    ports: list[int] = []  # more than one of each, where somebody else took the first

    def advertise(node_id: int, listener: str, port: int) -> int:
        if listener == "PROXIED":
            ports.append(port)
            return proxy.port
        return port

    first, first_port = kafka_cluster(listeners={"PROXIED": "PLAINTEXT"}, advertise=advertise), ports[-1]
    second, second_port = kafka_cluster(listeners={"PROXIED": "PLAINTEXT"}, advertise=advertise), ports[-1]
    for kafka in (first, second):
        kafka.create_topic(TOPIC)
        kafka.create_topic(LOG)
        produce_numbered(kafka.bootstrap_servers, TOPIC, [0], 423)
    log = CommitLog(first, LOG)
    log.publish(423, topic=TOPIC, group=LEADER)
    second.commit_offsets(FOLLOWER, TOPIC, {0: 300})
    proxy.lead_to(first_port)

    address = f"127.0.0.1:{proxy.port}"
    source = CommitLogConsumer({"bootstrap.servers": address, **QUICK}, topic=Topic(LOG), groups={LEADER})
    follower = Follower(patient_settings(address, FOLLOWER, "eager"), TOPIC, source=source)
    follower.start()
    try:
        follower.wait_until_received(423, TIMEOUT_SECONDS)
        wait_until(
            lambda: first.committed_offsets(FOLLOWER, TOPIC) == {0: 423}, TIMEOUT_SECONDS, "the follower's commit"
        )
        proxy.lead_to(second_port)
        error = follower.wait_until_ended(TIMEOUT_SECONDS)
    finally:
        follower.processor.signal_shutdown()
    assert isinstance(error, AnotherCluster)
    told = [each.getMessage() for each in caplog.records if each.levelno >= logging.ERROR]
    assert [each for each in told if "topic" in each] == [
        f"commit log {LOG} has ended, nothing more is released: {error}"
    ], told
    assert second.committed_offsets(FOLLOWER, TOPIC) == {0: 300}
