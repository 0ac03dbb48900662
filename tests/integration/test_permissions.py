"""Access rules on a real broker: leader, follower and the commands work with what the operators' page tells to grant.

They need no more. What is missing is named.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from arroyo.backends.kafka import KafkaConsumer, KafkaPayload, KafkaProducer
from arroyo.processing.processor import StreamProcessor
from arroyo.processing.strategies.abstract import ProcessingStrategy, ProcessingStrategyFactory
from arroyo.processing.strategies.commit import CommitOffsets
from arroyo.types import Commit, Partition, Topic
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
)

from arroyo_sync import CommitLogConsumer, CommitLogPublisher, SourceDied, SynchronizedStrategyFactory, raise_if_refused
from arroyo_sync.core.state import SynchronizedPartitionStateManager
from tests.integration.cluster.admin import topics_shown
from tests.integration.cluster.cluster import NEVER_MISSED, KafkaCluster
from tests.integration.cluster.followers import patient_settings, produce_numbered
from tests.integration.cluster.reading import CommitLog
from tests.integration.cluster.running import LastStep, Running
from tests.integration.cluster.settings import scram
from tests.integration.cluster.waiting import wait_until

WAIT_SECONDS = 120.0
MESSAGES = 20
LEADER, FOLLOWER, RECENT = "leader", "follower", "recent"
"""The users; the last one's followers begin with ``start="recent"``."""
READ, WRITE, DESCRIBE = AclOperation.READ, AclOperation.WRITE, AclOperation.DESCRIBE
TOPIC, GROUP = ResourceType.TOPIC, ResourceType.GROUP
GRANTED: Mapping[str, list[tuple[ResourceType, str, AclOperation]]] = {
    LEADER: [(TOPIC, "events", READ), (TOPIC, "commits", WRITE), (GROUP, "writers", READ)],
    FOLLOWER: [(TOPIC, "events", READ), (TOPIC, "commits", READ), (GROUP, "forwarder", READ)],
    RECENT: [
        *((TOPIC, "events", READ), (TOPIC, "commits", READ), (GROUP, "recent-forwarder", READ)),
        (GROUP, "writers", DESCRIBE),
    ],
}


@pytest.fixture(scope="module")
def cluster(java_and_maven: None) -> Iterator[KafkaCluster]:
    """A leader has worked on the first of its messages."""
    properties = {
        **scram("SECURE"),
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
        "allow.everyone.if.no.acl.found": "false",
        **NEVER_MISSED,
    }
    with KafkaCluster(listeners={"SECURE": "SASL_PLAINTEXT"}, properties=properties) as running:
        for topic in ("events", "commits"):
            running.create_topic(topic)
        for user, granted in GRANTED.items():
            running.add_user(user, "secret")
            rules = [
                AclBinding(
                    kind, name, ResourcePatternType.LITERAL, f"User:{user}", "*", operation, AclPermissionType.ALLOW
                )
                for kind, name, operation in granted
            ]
            for done in running.admin.create_acls(rules).values():
                done.result(WAIT_SECONDS)
        for user, granted in GRANTED.items():
            wait_until(lambda: may_begin(running, user, len(granted)), WAIT_SECONDS, f"{user} to be let in")  # noqa: B023
        produce_numbered(running.bootstrap_servers, "events", [0], MESSAGES)
        CommitLog(running, "commits").publish(1, group="writers", topic="events")
        yield running


def may_begin(cluster: KafkaCluster, user: str, rules: int) -> bool:
    """Whether the broker knows the user's password and rules: it does a moment after the controller."""
    any_name: Any = None
    every = AclBindingFilter(
        ResourceType.ANY,
        any_name,
        ResourcePatternType.ANY,
        f"User:{user}",
        any_name,
        AclOperation.ANY,
        AclPermissionType.ANY,
    )
    if len(cluster.admin.describe_acls(every).result(WAIT_SECONDS)) < rules:
        return False
    return "events" in (topics_shown(settings(cluster, user)) or ())


def settings(cluster: KafkaCluster, user: str) -> dict[str, Any]:
    return {
        "bootstrap.servers": cluster.bootstrap_servers_of("SECURE"),
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "SCRAM-SHA-256",
        "sasl.username": user,
        "sasl.password": "secret",
        "log_level": 0,
    }


def data_settings(cluster: KafkaCluster, user: str, group: str) -> dict[str, Any]:
    own = {**settings(cluster, user), "error_cb": raise_if_refused}
    return {**patient_settings(own["bootstrap.servers"], group, "eager"), **own}


class Leader(ProcessingStrategyFactory[KafkaPayload]):
    def __init__(self, producer: KafkaProducer) -> None:
        self._publisher = CommitLogPublisher(producer, Topic("commits"), "writers")

    def create_with_partitions(
        self, commit: Commit, partitions: Mapping[Partition, int]
    ) -> ProcessingStrategy[KafkaPayload]:
        return self._publisher.step(commit, partitions)


@pytest.mark.parametrize(
    ("user", "group", "start"), [(FOLLOWER, "forwarder", "all"), (RECENT, "recent-forwarder", "recent")]
)
def test_what_is_granted_is_enough(
    cluster: KafkaCluster, user: str, group: str, start: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is missed, and no line speaks of permissions: what isn't needed isn't tried."""
    producer = KafkaProducer(settings(cluster, LEADER))
    follower = LastStep(CommitOffsets)
    configuration = data_settings(cluster, user, group)
    source = CommitLogConsumer(configuration, topic=Topic("commits"), groups={"writers"}, start=start)
    factory = SynchronizedStrategyFactory(follower, source)
    with ExitStack() as stack:
        stack.callback(lambda: producer.close().result(WAIT_SECONDS))
        flow = factory.consumer(configuration)
        stack.enter_context(Running(StreamProcessor(flow, Topic("events"), factory)))
        leading = KafkaConsumer(data_settings(cluster, LEADER, "writers"))
        stack.enter_context(Running(StreamProcessor(leading, Topic("events"), Leader(producer))))
        wait_until(lambda: len(follower.received) == MESSAGES, WAIT_SECONDS, "all messages behind the gate")
    assert "authoriz" not in caplog.text


def test_a_commit_log_can_be_read_under_any_group(cluster: KafkaCluster) -> None:
    """Its settings need name none: the reader joins no group, so whether it might is of no matter."""
    source = CommitLogConsumer(settings(cluster, FOLLOWER), topic=Topic("commits"), groups={"writers"})
    source.start(SynchronizedPartitionStateManager())
    try:
        source.wait_until_ready(WAIT_SECONDS)
        wait_until(lambda: source.statistics().groups_reported == ["writers"], WAIT_SECONDS, "the leader's report")
        source.check()
    finally:
        source.stop(WAIT_SECONDS)


def test_recent_without_the_leaders_group_ends_with_what_is_missing(cluster: KafkaCluster) -> None:
    """Of a group that has reported nothing lately. librdkafka only says that the time is over."""
    follower = LastStep(CommitOffsets)
    configuration = data_settings(cluster, FOLLOWER, "forwarder")
    source = CommitLogConsumer(configuration, topic=Topic("commits"), groups={"silent"}, start="recent")
    factory = SynchronizedStrategyFactory(follower, source)
    with Running(StreamProcessor(factory.consumer(configuration), Topic("events"), factory)) as running:
        error = running.wait_for_end()
    assert isinstance(error, SourceDied)
    assert "must be allowed to describe group 'silent'" in str(error)


@pytest.mark.parametrize(
    ("command", "says"),
    [
        pytest.param(
            ["status", "--topic", "events", "--follower-group", "forwarder", "--leader-group", "writers"],
            '"members": {"forwarder": [], "writers": "Broker: Group authorization failed"}',
            id="status",
        ),
        pytest.param(["groups"], "writers", id="groups"),
        pytest.param(["tail"], "writers", id="tail"),
    ],
)
def test_the_commands_need_no_more(cluster: KafkaCluster, command: list[str], says: str, tmp_path: Path) -> None:
    """Of a leader group that the user may not describe, `status` can't tell commits and members, and says why."""
    CommitLog(cluster, "commits").publish(MESSAGES, group="writers", topic="events")
    cluster.commit_offsets("forwarder", "events", {0: MESSAGES})
    file = tmp_path / "kafka.properties"
    file.write_text("".join(f"{name}={value}\n" for name, value in settings(cluster, FOLLOWER).items()))
    whole = [
        sys.executable,
        "-m",
        "arroyo_sync",
        command[0],
        "--json",
        "--config",
        str(file),
        "--commit-log",
        "commits",
    ]
    done = subprocess.run([*whole, *command[1:]], capture_output=True, text=True, env=os.environ, timeout=WAIT_SECONDS)
    assert (done.returncode, done.stderr) == (0, "")
    assert says in done.stdout
