"""Whether the cluster of a run is whole, as its operator would look."""

from __future__ import annotations

import time
from collections.abc import Callable

from confluent_kafka import KafkaException

from tests.integration.cluster.admin import metadata_of
from tests.integration.cluster.broker import Broker
from tests.integration.cluster.cluster import KafkaCluster

LOOK_SECONDS = 0.3


class Wholeness:
    """Looks every so often. For the driver's thread.

    :param note: called when it is whole again: since when it wasn't, and until when, by the monotonic clock.
    """

    def __init__(self, cluster: KafkaCluster, note: Callable[[float, float], None]) -> None:
        self.what_is_broken = ""
        """In words; nothing if all is as it should be."""
        self.lacking: set[int] = set()
        """The brokers that don't serve, or that lack replicas."""
        self._cluster = cluster
        self._note = note
        self._look_at = 0.0
        self._broken_at: float | None = None
        self._answered: dict[int, int | None] = {}
        """By broker, its process that has answered."""

    def is_whole(self) -> bool:
        """Whether all brokers serve and all replicas are in sync, so that any one of them may fail."""
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + LOOK_SECONDS
            self.what_is_broken = self._ask()
            if self.what_is_broken and self._broken_at is None:
                self._broken_at = now - 2 * LOOK_SECONDS
            elif not self.what_is_broken and self._broken_at is not None:
                self._note(self._broken_at, now)
                self._broken_at = None
        return not self.what_is_broken

    def _ask(self) -> str:
        silent = [broker.node_id for broker in self._cluster.brokers if not self._serves(broker)]
        self.lacking = set(silent)
        if silent:
            return f"brokers {silent} don't serve"
        try:
            metadata = self._cluster.admin.list_topics(timeout=1.0)
        except KafkaException as error:
            return f"no metadata: {error.args[0]}"
        if len(metadata.brokers) != len(self._cluster.brokers):
            return f"of three brokers the cluster knows {sorted(metadata.brokers)}"
        broken: list[str] = []
        for name, topic in metadata.topics.items():
            for index, each in topic.partitions.items():
                if len(each.isrs) != len(each.replicas) or each.leader < 0:
                    broken.append(f"{name}[{index}] led by {each.leader}, in sync {each.isrs}")
                    self.lacking.update(set(each.replicas) - set(each.isrs))
        return f"{len(broken)} partitions, as {broken[0]}" if broken else ""

    def _serves(self, broker: Broker) -> bool:
        """Whether it has answered since its start.

        For some seconds the cluster takes one that was killed for alive. A topic that is deleted then, before the
        broker has registered anew, may keep it out for good ("existed in isrMembers, but not in the topics map", Kafka
        4.3.1).
        """
        if broker.is_serving and self._answered.get(broker.node_id) != broker.pid:
            metadata = metadata_of(broker.address)
            if metadata is None or broker.node_id not in metadata.brokers:
                return False
            self._answered[broker.node_id] = broker.pid
        return broker.is_serving
