"""A Kafka cluster as its administrator sees it: topics, records and groups, and each change waited for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ClusterMetadata,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    TopicMetadata,
    UserScramCredentialUpsertion,
)

from tests.integration.cluster.waiting import wait_until

TIMEOUT_SECONDS = 90.0

T = TypeVar("T")

_COORDINATOR_IS_NOT_READY = {
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    KafkaError._WAIT_COORD,
}
"""What a group's first requests may hear, while the topic of committed offsets is being made."""

_LEADER_IS_AWAY = {
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.OFFSET_NOT_AVAILABLE,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError._NOENT,  # librdkafka's "No leaders found"
}
"""What is heard for a moment of a broker that stood still for longer than its session, also of the only one."""


def connect(address: str) -> AdminClient:
    """An administrator's client that is quiet, and quick to come back when a broker does."""
    return AdminClient(
        {
            "bootstrap.servers": address,
            "log_level": 0,
            "reconnect.backoff.ms": 20,
            "reconnect.backoff.max.ms": 200,
            # Told of no controller, as by the only broker when it has stood still, it looks for one when this is over.
            "topic.metadata.refresh.interval.ms": 500,
        }
    )


def metadata_of(address: str) -> ClusterMetadata | None:
    """What this very broker knows of the cluster now, ``None`` if it doesn't answer within a second."""
    try:
        metadata = connect(address).list_topics(timeout=1.0)
    except KafkaException:
        return None
    # A client may ask another broker as soon as it knows one. This one is new, so it rarely does.
    return metadata if str(metadata.orig_broker_name).startswith(f"{address}/") else None


def topics_shown(settings: Mapping[str, Any]) -> set[str] | None:
    """The topics that a client with these settings is shown; ``None`` if its login is refused, or nobody answers.

    A password or a permission that was given counts a moment after the controller has it.
    """
    try:
        return set(AdminClient({"log_level": 0, **settings}).list_topics(timeout=5.0).topics)
    except KafkaException:
        return None


class Kafka:
    """A cluster that runs already, at ``bootstrap_servers``.

    Every method that changes something returns when every broker of the cluster shows the change, so that the next call
    of any client sees it. All block, for at most `TIMEOUT_SECONDS`, and raise ``TimeoutError`` after that, or the
    client's ``KafkaException`` if the cluster refuses.
    """

    def __init__(self, bootstrap_servers: str) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._admin: AdminClient | None = None

    @property
    def bootstrap_servers(self) -> str:
        """The addresses for clients, without authentication."""
        return self._bootstrap_servers

    @property
    def admin(self) -> AdminClient:
        """confluent-kafka's own client, for whatever has no method here."""
        if self._admin is None:
            self._admin = connect(self.bootstrap_servers)
        return self._admin

    def create_topic(
        self,
        name: str,
        partitions: int = 1,
        config: Mapping[str, str] | None = None,
        replication: int | None = None,
        replicas: Sequence[Sequence[int]] | None = None,
    ) -> None:
        """Create a topic with these settings.

        :param replication: by default the cluster's own.
        :param replicas: by partition the brokers that are to have it, the first one leads. By default any.
        """
        topic = NewTopic(name, partitions, replication or -1, config=dict(config or {}))
        if replicas is not None:
            topic.replica_assignment = [list(each) for each in replicas]
        _result(self.admin.create_topics([topic])[name])
        self._wait_for_partitions(name, partitions)

    def add_partitions(self, name: str, total: int) -> None:
        """Grow a topic to ``total`` partitions."""
        _result(self.admin.create_partitions([NewPartitions(name, total)])[name])
        self._wait_for_partitions(name, total)

    def delete_topic(self, name: str) -> None:
        """Delete a topic with all its records."""
        _result(self.admin.delete_topics([name])[name])
        self._wait_for_topic(name, lambda topic: topic is None, "to be gone")

    def recreate_topic(self, name: str, partitions: int | None = None, config: Mapping[str, str] | None = None) -> None:
        """Delete a topic and create one of the same name (and, by default, number of partitions), empty.

        At once, as an operator does: who is told of a topic that is gone for long rightly ends.
        """
        if partitions is None:
            partitions = len(self.admin.list_topics(timeout=TIMEOUT_SECONDS).topics[name].partitions)
        before = self._topic_id(name)
        topic = NewTopic(name, partitions, -1, config=dict(config or {}))
        _result(self.admin.delete_topics([name])[name])

        def is_another() -> bool:
            try:
                return self._topic_id(name) != before
            except KafkaException:  # there is none at the moment
                return False

        def is_created() -> bool:
            try:
                _result(self.admin.create_topics([topic])[name])
            except KafkaException as exception:
                if exception.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise
                return is_another()  # else the name is still taken
            return True

        wait_until(is_created, TIMEOUT_SECONDS, f"the name {name} to be free")
        # The old one has partitions and leaders, too, where its end isn't known yet.
        wait_until(is_another, TIMEOUT_SECONDS, f"the new {name} to be known")
        self._wait_for_partitions(name, partitions)

    def wait_for_leaders(self, name: str) -> None:
        """Wait until every broker knows a leader of each of the topic's partitions."""
        self._wait_for_topic(name, lambda topic: topic is not None and _is_led(topic), "with leaders")

    def topic_config(self, name: str) -> dict[str, str]:
        """All settings of a topic, with the defaults."""
        resource = ConfigResource(ResourceType.TOPIC, name)
        return {key: entry.value for key, entry in _result(self.admin.describe_configs([resource])[resource]).items()}

    def set_topic_config(self, name: str, config: Mapping[str, str]) -> None:
        """Change settings of a topic, and wait until the brokers have them."""
        entries = [
            ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET) for key, value in config.items()
        ]
        resource = ConfigResource(ResourceType.TOPIC, name, incremental_configs=entries)
        _result(self.admin.incremental_alter_configs([resource])[resource])
        wait_until(
            lambda: config.items() <= self.topic_config(name).items(), TIMEOUT_SECONDS, f"{name} to be configured"
        )

    def add_user(self, name: str, password: str) -> None:
        """Let one log in at the listeners of `settings.scram`. A broker knows the password a moment later."""
        credential = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 4096)
        upsertion = UserScramCredentialUpsertion(name, credential, password.encode())
        _result(self.admin.alter_user_scram_credentials([upsertion])[name])

    def delete_records(self, name: str, before: Mapping[int, int]) -> None:
        """Delete, per partition, the records below an offset."""
        partitions = [TopicPartition(name, partition, offset) for partition, offset in before.items()]
        for future in self.admin.delete_records(partitions).values():
            _result(future)

    def watermarks(self, name: str) -> dict[int, tuple[int, int]]:
        """Per partition, the offset of the first record and the one after the last."""
        found: dict[int, tuple[int, int]] = {}

        def is_told() -> bool:
            try:
                found.update(self._watermarks(name))
            except KafkaException as exception:
                if exception.args[0].code() in _LEADER_IS_AWAY:
                    return False
                raise
            return True

        wait_until(is_told, TIMEOUT_SECONDS, f"the leaders of {name}")
        return found

    def _watermarks(self, name: str) -> dict[int, tuple[int, int]]:
        partitions = self.admin.list_topics(timeout=TIMEOUT_SECONDS).topics[name].partitions
        low, high = (
            self.admin.list_offsets({TopicPartition(name, partition): spec for partition in partitions})
            for spec in (OffsetSpec.earliest(), OffsetSpec.latest())  # type: ignore[no-untyped-call]
        )
        ends = {each.partition: _result(future).offset for each, future in high.items()}
        return {each.partition: (_result(future).offset, ends[each.partition]) for each, future in low.items()}

    def committed_offsets(self, group: str, name: str) -> dict[int, int]:
        """Per partition of the topic, the offset that a group has committed; partitions without one are missing."""
        partitions = [TopicPartition(name, partition) for partition in self.watermarks(name)]
        committed: list[TopicPartition] = []

        def is_answered() -> bool:
            try:
                committed[:] = consumer.committed(partitions, timeout=TIMEOUT_SECONDS)
            except KafkaException as exception:
                if exception.args[0].code() in _COORDINATOR_IS_NOT_READY:
                    return False
                raise
            return True

        with self._as_group(group) as consumer:
            wait_until(is_answered, TIMEOUT_SECONDS, f"the coordinator of {group}")
        return {each.partition: each.offset for each in committed if each.error is None and each.offset >= 0}

    def commit_offsets(self, group: str, name: str, offsets: Mapping[int, int]) -> None:
        """Set what a group has committed, forwards or back. It must have no members."""
        partitions = [TopicPartition(name, partition, offset) for partition, offset in offsets.items()]

        def is_done() -> bool:
            try:
                committed = consumer.commit(offsets=partitions, asynchronous=False)
            except KafkaException as exception:
                if exception.args[0].code() in _COORDINATOR_IS_NOT_READY:
                    return False
                raise
            return all(each.error is None for each in committed or ())

        with self._as_group(group) as consumer:
            wait_until(is_done, TIMEOUT_SECONDS, f"the coordinator of {group}")

    @contextmanager
    def _as_group(self, group: str) -> Iterator[Consumer]:
        """A consumer that speaks for the group and never joins it.

        The administrator's client would ask the coordinator too, but aborts the process if that one is gone
        (confluentinc/librdkafka#4605).
        """
        consumer = Consumer({"bootstrap.servers": self.bootstrap_servers, "group.id": group, "log_level": 0})
        try:
            yield consumer
        finally:
            consumer.close()

    def _topic_id(self, name: str) -> str:
        described = _result(self.admin.describe_topics(TopicCollection([name]))[name])
        return str(described.topic_id)

    def _addresses(self) -> list[str]:
        """The brokers that should come to show a change."""
        brokers = self.admin.list_topics(timeout=TIMEOUT_SECONDS).brokers.values()
        return [f"{broker.host}:{broker.port}" for broker in brokers]

    def _wait_for_partitions(self, name: str, count: int) -> None:
        def is_complete(topic: TopicMetadata | None) -> bool:
            return topic is not None and len(topic.partitions) == count and _is_led(topic)

        self._wait_for_topic(name, is_complete, f"to have {count} partitions with leaders")

        # The metadata may tell of a leader before that broker has opened its log.
        def is_led() -> bool:
            try:
                return len(self._watermarks(name)) == count
            except KafkaException:
                return False

        wait_until(is_led, TIMEOUT_SECONDS, f"the leaders of {name}")

    def _wait_for_topic(self, name: str, is_so: Callable[[TopicMetadata | None], bool], what: str) -> None:
        self._wait_until_all_see(lambda metadata: is_so(metadata.topics.get(name)), f"{name} {what}", TIMEOUT_SECONDS)

    def _wait_until_all_see(self, is_so: Callable[[ClusterMetadata], bool], what: str, timeout: float) -> None:
        for address in self._addresses():
            self._wait_until_seen(address, is_so, what, timeout)

    def _wait_until_seen(
        self, address: str, is_so: Callable[[ClusterMetadata], bool], what: str, timeout: float
    ) -> None:
        def is_seen() -> bool:
            metadata = metadata_of(address)
            return metadata is not None and is_so(metadata)

        wait_until(is_seen, timeout, lambda: f"{address} to show {what}{self._log_of(address)}")

    def _log_of(self, address: str) -> str:
        """For errors: the end of that broker's log, if we have it."""
        return ""


def _is_led(topic: TopicMetadata) -> bool:
    partitions = topic.partitions.values()
    return topic.error is None and len(partitions) > 0 and all(partition.leader >= 0 for partition in partitions)


def _result(future: Future[T]) -> T:
    """What a request came to, or its error."""
    return future.result(TIMEOUT_SECONDS)
