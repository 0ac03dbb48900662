"""Arroyo's pipelines of today: ``bare``, and behind this project's gate ``gated`` and ``unwrapped``.

The follower is the same step in all of them: it notes the delivery (after parsing the payload, if told so) and hands
the message to Arroyo's ``CommitOffsets``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from arroyo.backends.kafka import KafkaConsumer, KafkaPayload
from arroyo.processing import StreamProcessor
from arroyo.processing.strategies import CommitOffsets, ProcessingStrategy, ProcessingStrategyFactory
from arroyo.types import BrokerValue, Commit, FilteredPayload, Message, Partition, Topic

from arroyo_sync import tune_interpreter
from tests.benchmarks.contenders.child import Contender, emit, main
from tests.benchmarks.contenders.recorder import Recorder
from tests.benchmarks.contenders.statistics import Statistics
from tests.benchmarks.contenders.traffic import Traffic


class Follower(ProcessingStrategy[FilteredPayload | KafkaPayload]):
    """Notes each delivery and hands it on."""

    def __init__(self, recorder: Recorder, parse: bool, next_step: ProcessingStrategy[Any]) -> None:
        self._record = recorder.record
        self._parse = parse
        self._next_step = next_step

    def poll(self) -> None:
        """See Arroyo."""
        self._next_step.poll()

    def submit(self, message: Message[FilteredPayload | KafkaPayload]) -> None:
        """See Arroyo."""
        value = message.value
        assert isinstance(value, BrokerValue)
        self._record(value.partition.index, value.offset)
        if self._parse:
            json.loads(value.payload.value)
        self._next_step.submit(message)

    def close(self) -> None:
        """See Arroyo."""
        self._next_step.close()

    def terminate(self) -> None:
        """See Arroyo."""
        self._next_step.terminate()

    def join(self, timeout: float | None = None) -> None:
        """See Arroyo."""
        self._next_step.join(timeout)


class FollowerFactory(ProcessingStrategyFactory[KafkaPayload]):
    """Makes a `Follower` and says ``ready``."""

    def __init__(self, recorder: Recorder, parse: bool) -> None:
        self._recorder = recorder
        self._parse = parse

    def create_with_partitions(
        self, commit: Commit, partitions: Mapping[Partition, int]
    ) -> ProcessingStrategy[KafkaPayload]:
        """See Arroyo."""
        emit("ready", partitions=len(partitions))
        return Follower(self._recorder, self._parse, CommitOffsets(commit))


class Pipeline(Contender):
    """A ``StreamProcessor`` over the data topic, with or without the gate before the follower."""

    def run(self) -> None:
        """See `Contender`."""
        config = self.config
        tune_interpreter()  # as the README says
        self._traffic = Traffic()
        if config.get("traffic"):
            self._traffic.install()
        self._statistics = Statistics(self._position) if config.get("statistics") else None
        factory: ProcessingStrategyFactory[KafkaPayload] = FollowerFactory(self.recorder, config["follower"] == "json")
        self._consumer = inner = KafkaConsumer(
            {
                "bootstrap.servers": config["bootstrap_servers"],
                "group.id": config["group_id"],
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                **config["consumer"],
                **(self._statistics.settings() if self._statistics else {}),
            }
        )
        consumer: Any = inner
        if config["contender"] != "bare":
            from arroyo_sync import SynchronizedStrategyFactory
            from arroyo_sync.leaders.commit_log.consumer import CommitLogConsumer

            commit_log = CommitLogConsumer(
                {"bootstrap.servers": config["bootstrap_servers"]},
                topic=Topic(config["commit_log_topic"]),
                groups=set(config["leader_groups"]),
                start=config.get("start", "all"),
            )
            factory = gate = SynchronizedStrategyFactory(factory, commit_log)
            if config["contender"] == "gated":
                consumer = gate.flow_control(inner)
        self._processor = StreamProcessor(consumer, Topic(config["topic"]), factory)
        self._processor.run()

    def stop(self) -> None:
        """See `Contender`."""
        self._processor.signal_shutdown()

    def details(self) -> dict[str, object]:
        """See `Contender`."""
        traffic = self.config.get("traffic")
        counts = self._statistics.snapshot() if self._statistics else {}
        return {**counts, "traffic": self._traffic.snapshot(traffic)} if traffic else counts

    def _position(self) -> int:
        return sum(self._consumer.tell().values())


if __name__ == "__main__":
    main(Pipeline)
