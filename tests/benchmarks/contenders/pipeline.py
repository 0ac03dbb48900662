"""Arroyo's pipelines of today: ``bare``, and behind this project's gate ``gated``, ``plain`` and ``unwrapped``.

``plain`` is what the README says and nothing else. ``gated`` and ``unwrapped`` are built of an Arroyo consumer of their
own with the settings that the README names, as ``bare`` is, and call ``tune_interpreter``; ``unwrapped`` has no flow
control.

The follower is the same step in all of them: it notes the delivery (after parsing the payload or computing, if told
so) and hands the message to Arroyo's ``CommitOffsets``.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from arroyo.backends.kafka import KafkaConsumer, KafkaPayload
from arroyo.processing import StreamProcessor
from arroyo.processing.strategies import CommitOffsets, ProcessingStrategy, ProcessingStrategyFactory
from arroyo.types import BrokerValue, Commit, FilteredPayload, Message, Partition, Topic

from arroyo_sync import CommitLogConsumer, SynchronizedStrategyFactory, tune_interpreter
from arroyo_sync.gate.interpreter import GC_THRESHOLDS, SWITCH_INTERVAL_SECONDS
from tests.benchmarks.contenders.child import Contender, emit, main
from tests.benchmarks.contenders.recorder import Recorder
from tests.benchmarks.contenders.statistics import Statistics
from tests.benchmarks.contenders.traffic import Traffic
from tests.support.passing_step import PassingStep

Work = Callable[[bytes], object]
"""What the follower does with a payload."""


PIECES: dict[str, Callable[[], None]] = {
    "switch interval": lambda: sys.setswitchinterval(SWITCH_INTERVAL_SECONDS),
    "collector": lambda: gc.set_threshold(*GC_THRESHOLDS),
}
"""What `tune_interpreter` does, one by one."""


def work(config: Mapping[str, Any]) -> Work | None:
    """What the configuration's ``follower`` names: ``nothing``, ``json``, or ``compute`` with its ``loops``."""
    if config["follower"] == "json":
        return json.loads
    if config["follower"] == "compute":
        loops = range(config["loops"])

        def compute(payload: bytes) -> None:
            for _ in loops:
                pass

        return compute
    return None


def data_consumer(config: Mapping[str, Any], **settings: Any) -> KafkaConsumer:
    """Arroyo's consumer with the settings of ``config`` and these."""
    return KafkaConsumer(
        {
            "bootstrap.servers": config["bootstrap_servers"],
            "group.id": config["group_id"],
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            **config["consumer"],
            **settings,
        }
    )


class CollectorWatch:
    """How long the garbage collector held up the process, from now on."""

    def __init__(self) -> None:
        self._began = 0
        self._pauses: list[int] = []
        gc.callbacks.append(self._note)

    def _note(self, phase: str, details: dict[str, int]) -> None:
        if phase == "start":
            self._began = time.perf_counter_ns()
        else:
            self._pauses.append(time.perf_counter_ns() - self._began)

    def totals(self) -> dict[str, object]:
        """Milliseconds in all and at most, and how many collections."""
        pauses = [0, *self._pauses]
        return {
            "collector_ms": sum(pauses) / 1e6,
            "collector_longest_ms": max(pauses) / 1e6,
            "collections": len(self._pauses),
        }


class Follower(PassingStep):
    """Notes each delivery and hands it on."""

    def __init__(self, recorder: Recorder, work: Work | None, next_step: ProcessingStrategy[Any]) -> None:
        super().__init__(next_step)
        self._record = recorder.record
        self._work = work

    def submit(self, message: Message[FilteredPayload | KafkaPayload]) -> None:
        """See Arroyo."""
        value = message.value
        assert isinstance(value, BrokerValue)
        self._record(value.partition.index, value.offset)
        if self._work is not None:
            self._work(value.payload.value)
        self._next_step.submit(message)


class FollowerFactory(ProcessingStrategyFactory[KafkaPayload]):
    """Makes a `Follower`, and tells of the assignment."""

    def __init__(self, recorder: Recorder, work: Work | None, on_assigned: Callable[[int], None]) -> None:
        self._recorder = recorder
        self._work = work
        self._on_assigned = on_assigned

    def create_with_partitions(
        self, commit: Commit, partitions: Mapping[Partition, int]
    ) -> ProcessingStrategy[KafkaPayload]:
        """See Arroyo."""
        self._on_assigned(len(partitions))
        return Follower(self._recorder, self._work, CommitOffsets(commit))


class Pipeline(Contender):
    """A ``StreamProcessor`` over the data topic, with or without the gate before the follower."""

    def run(self) -> None:
        """See `Contender`."""
        config = self.config
        for piece in config.get("pieces", ()):
            PIECES[piece]()
        self._collector = CollectorWatch() if config.get("watch_collector") else None
        self._traffic = Traffic()
        if config.get("traffic"):
            self._traffic.install()
        self._statistics = Statistics(self._position) if config.get("statistics") else None
        reports = self._statistics.settings() if self._statistics else {}
        follower = FollowerFactory(self.recorder, work(config), lambda partitions: emit("ready", partitions=partitions))
        make = getattr(self, f"_{config['contender']}")
        self._consumer, factory = make(follower, reports)
        self._processor = StreamProcessor(self._consumer, Topic(config["topic"]), factory)
        self._processor.run()

    def _bare(self, follower: FollowerFactory, reports: dict[str, Any]) -> tuple[Any, Any]:
        tune_interpreter()
        return data_consumer(self.config, **reports), follower

    def _plain(self, follower: FollowerFactory, reports: dict[str, Any]) -> tuple[Any, Any]:
        factory = self._gate(follower)
        consumer = factory.consumer(
            {
                "bootstrap.servers": self.config["bootstrap_servers"],
                "group.id": self.config["group_id"],
                "auto.offset.reset": "earliest",
                **self.config["consumer"],
                **reports,
            }
        )
        return consumer, factory

    def _gated(self, follower: FollowerFactory, reports: dict[str, Any]) -> tuple[Any, Any]:
        tune_interpreter()
        factory = self._gate(follower)
        return factory.flow_control(data_consumer(self.config, **reports)), factory

    def _unwrapped(self, follower: FollowerFactory, reports: dict[str, Any]) -> tuple[Any, Any]:
        tune_interpreter()
        return data_consumer(self.config, **reports), self._gate(follower)

    def _gate(self, follower: FollowerFactory) -> SynchronizedStrategyFactory[KafkaPayload]:
        commit_log = CommitLogConsumer(
            {"bootstrap.servers": self.config["bootstrap_servers"]},
            topic=Topic(self.config["commit_log_topic"]),
            groups=set(self.config["leader_groups"]),
            start=self.config.get("start", "all"),
        )
        return SynchronizedStrategyFactory(follower, commit_log)

    def stop(self) -> None:
        """See `Contender`."""
        self._processor.signal_shutdown()

    def details(self) -> dict[str, object]:
        """See `Contender`."""
        statistics = self._statistics.snapshot() if self._statistics else {}
        collector = self._collector.totals() if self._collector else {}
        traffic = self.config.get("traffic")
        sent = {"traffic": self._traffic.snapshot(traffic)} if traffic else {}
        return {**statistics, **collector, **sent}

    def _position(self) -> int:
        return sum(self._consumer.tell().values())


if __name__ == "__main__":
    main(Pipeline)
