"""The server properties of the test brokers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

CONTROLLER = "CONTROLLER"
PLAINTEXT = "PLAINTEXT"

# Where Kafka's default is made for machines that run for months, so that a test would wait for it.
DEFAULTS = {
    "auto.create.topics.enable": "false",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.num.partitions": "4",
    # Groups: a rebalance takes less than a second, a member that was killed is missed after six.
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "group.consumer.min.heartbeat.interval.ms": "100",
    "group.consumer.heartbeat.interval.ms": "300",
    "group.consumer.min.session.timeout.ms": "1000",
    "group.consumer.session.timeout.ms": "6000",
    # Brokers: one that was killed is replaced, and can come back, after three seconds.
    "broker.heartbeat.interval.ms": "300",
    "broker.session.timeout.ms": "3000",
    "initial.broker.registration.timeout.ms": "180000",  # by default it ends after one minute, on a busy machine too
    # Topics with short retention or compaction: they are looked at every second.
    "log.initial.task.delay.ms": "500",
    "log.retention.check.interval.ms": "1000",
    "log.cleaner.backoff.ms": "500",
    "log.segment.delete.delay.ms": "1000",
    "log.cleaner.dedupe.buffer.size": "8388608",  # by default 128 MB, a third of our heap
}


@dataclass(frozen=True)
class Node:
    """A broker's place: its id, its folder, the port of each listener and the port that clients are told."""

    node_id: int
    directory: Path
    ports: Mapping[str, int]
    advertised: Mapping[str, int]

    @property
    def data(self) -> Path:
        return self.directory / "data"

    @property
    def properties(self) -> Path:
        """The file of its server properties."""
        return self.directory / "server.properties"

    @property
    def temporary(self) -> Path:
        """Where native libraries are unpacked."""
        return self.directory / "tmp"


def scram(listener: str) -> dict[str, str]:
    """Server properties for a listener that asks for a password, see `admin.Kafka.add_user`."""
    prefix = f"listener.name.{listener.lower()}"
    return {
        f"{prefix}.sasl.enabled.mechanisms": "SCRAM-SHA-256",
        f"{prefix}.scram-sha-256.sasl.jaas.config": "org.apache.kafka.common.security.scram.ScramLoginModule required;",
    }


def server_properties(
    node: Node,
    nodes: Sequence[Node],
    protocols: Mapping[str, str],
    min_insync_replicas: int,
    overrides: Mapping[str, str],
) -> str:
    """The contents of ``server.properties`` for one of the ``nodes``; ``protocols`` has one entry a client listener."""
    voters = ",".join(f"{each.node_id}@127.0.0.1:{each.ports[CONTROLLER]}" for each in nodes)
    properties = {
        "process.roles": "broker,controller",
        "node.id": str(node.node_id),
        "controller.quorum.voters": voters,
        "controller.listener.names": CONTROLLER,
        "inter.broker.listener.name": PLAINTEXT,
        "listeners": _addresses(node.ports),
        "advertised.listeners": _addresses(node.advertised),
        "listener.security.protocol.map": ",".join(
            f"{name}:{protocol}" for name, protocol in {**protocols, CONTROLLER: PLAINTEXT}.items()
        ),
        "log.dirs": str(node.data),
        "min.insync.replicas": str(min_insync_replicas),
        "default.replication.factor": str(len(nodes)),
        "offsets.topic.replication.factor": str(len(nodes)),
        "transaction.state.log.replication.factor": str(len(nodes)),
        "transaction.state.log.min.isr": str(min_insync_replicas),
        "share.coordinator.state.topic.replication.factor": str(len(nodes)),
        "share.coordinator.state.topic.min.isr": str(min_insync_replicas),
        **DEFAULTS,
        **overrides,
    }
    return "".join(f"{key}={_escaped(value)}\n" for key, value in properties.items())


def _addresses(ports: Mapping[str, int]) -> str:
    return ",".join(f"{name}://127.0.0.1:{port}" for name, port in ports.items())


def _escaped(value: str) -> str:
    """As Java's properties form wants it: a backslash escapes, a line ends the value."""
    return value.replace("\\", "\\\\").replace("\n", "\\n")
