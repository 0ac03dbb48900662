"""The peer: Arroyo 0.2.2, the last release with ``SynchronizedConsumer``, run in an environment of its own.

``peer`` is its ``StreamProcessor`` over its ``SynchronizedConsumer``, ``peer_bare`` the same without the latter, both
with the librdkafka settings that this project's README names; ``peer_defaults`` is ``peer`` with librdkafka's own.

Its processor commits whenever the strategy says so, and each commit waits for the broker, so the follower does it once
a second, as today's Arroyo would.

The peer crashes where its commit log isn't empty at the start: that is mended, see below, so that it can be restarted.
"""
# The old Arroyo isn't there when types are checked, so its names are Any.
# mypy: disable-error-code="import-not-found, attr-defined, misc, no-any-unimported"

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from arroyo.backends.kafka import KafkaConsumer
from arroyo.processing import StreamProcessor
from arroyo.processing.strategies import ProcessingStrategy, ProcessingStrategyFactory
from arroyo.types import Topic
from arroyo.utils.metrics import get_metrics

from tests.benchmarks.contenders.child import Contender, emit, main
from tests.benchmarks.contenders.recorder import Recorder
from tests.benchmarks.contenders.statistics import Statistics

COMMIT_EVERY_SECONDS = 1.0


class Follower(ProcessingStrategy):  # type: ignore[type-arg]
    """Notes each delivery and commits once a second."""

    def __init__(self, recorder: Recorder, parse: bool, commit: Callable[[Mapping[Any, Any]], None]) -> None:
        self._record = recorder.record
        self._parse = parse
        self._commit = commit
        self._positions: dict[Any, Any] = {}
        self._committed_at = time.time()

    def poll(self) -> None:
        """See Arroyo."""
        if time.time() - self._committed_at > COMMIT_EVERY_SECONDS:
            self._flush()

    def submit(self, message: Any) -> None:
        """See Arroyo."""
        self._record(message.partition.index, message.offset)
        if self._parse:
            json.loads(message.payload.value)
        self._positions[message.partition] = message

    def _flush(self) -> None:
        from arroyo.types import Position

        if self._positions:
            self._commit({key: Position(last.next_offset, last.timestamp) for key, last in self._positions.items()})
            self._positions.clear()
        self._committed_at = time.time()

    def close(self) -> None:
        """See Arroyo."""

    def terminate(self) -> None:
        """See Arroyo."""

    def join(self, timeout: float | None = None) -> None:
        """See Arroyo."""
        self._flush()


class FollowerFactory(ProcessingStrategyFactory):  # type: ignore[type-arg]
    """Makes a `Follower` and says ``ready``."""

    def __init__(self, recorder: Recorder, parse: bool) -> None:
        self._recorder = recorder
        self._parse = parse

    def create_with_partitions(self, commit: Any, partitions: Mapping[Any, int]) -> Any:
        """See Arroyo."""
        emit("ready", partitions=len(partitions))
        return Follower(self._recorder, self._parse, commit)


class Peer(Contender):
    """The old ``StreamProcessor`` over the data topic."""

    def run(self) -> None:
        """See `Contender`."""
        config = self.config
        self._statistics = Statistics(self._position) if config.get("statistics") else None
        common = {
            "bootstrap.servers": config["bootstrap_servers"],
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
        }
        own_settings = self._statistics.settings() if self._statistics else {}
        self._consumer = consumer = KafkaConsumer(
            {**common, "group.id": config["group_id"], **config["consumer"], **own_settings}
        )
        if config["contender"] != "peer_bare":
            from arroyo.synchronized import SynchronizedConsumer

            # It sets this only after its thread has started, which crashes where a record is read before that.
            SynchronizedConsumer._SynchronizedConsumer__metrics = get_metrics()
            consumer = SynchronizedConsumer(
                consumer,
                KafkaConsumer({**common, "group.id": f"commit-log-{uuid.uuid4().hex}"}),
                Topic(config["commit_log_topic"]),
                set(config["leader_groups"]),
            )
        factory = FollowerFactory(self.recorder, config["follower"] == "json")
        self._processor = StreamProcessor(consumer, Topic(config["topic"]), factory)
        self._processor.run()

    def stop(self) -> None:
        """See `Contender`."""
        self._processor.signal_shutdown()

    def details(self) -> dict[str, object]:
        """See `Contender`."""
        return self._statistics.snapshot() if self._statistics else {}

    def _position(self) -> int:
        return sum(self._consumer.tell().values())


if __name__ == "__main__":
    main(Peer)
