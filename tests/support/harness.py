"""The gate by itself, with everything around it by script."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import Any

from arroyo.backends.kafka import KafkaPayload
from arroyo.processing.strategies.abstract import ProcessingStrategy

from arroyo_sync.core.source import HighWatermarks
from arroyo_sync.core.state import (
    PartitionKey,
    StateAndOffsets,
    SynchronizedPartitionState,
    SynchronizedPartitionStateManager,
)
from arroyo_sync.gate.partition_buffer import HoldLimits
from arroyo_sync.gate.strategy import SynchronizedStrategy
from arroyo_sync.testing import ManualSource
from tests.support.fakes import EVENTS, Clock, ScriptedStep, message, partition

TIMEOUT_SECONDS = 30.0
"""For what a test waits for; reached only when it fails."""


class NotedSource(ManualSource):
    """A source moved by hand that notes what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.doubted: dict[PartitionKey, int] = {}
        self.calls: list[tuple[Any, ...]] = []
        """``("assign", {key: position}, watermarks)``, ``("revoke", {keys})``, ``("received", key, next_offset)``."""
        self.starts = 0
        self.checks = 0
        self.refreshes = 0
        self.stop_timeouts: list[float] = []

    @property
    def unverified(self) -> Mapping[PartitionKey, int]:
        return self.doubted

    def start(self, manager: SynchronizedPartitionStateManager) -> None:
        self.starts += 1
        super().start(manager)

    def check(self) -> None:
        self.checks += 1
        super().check()

    def stop(self, timeout: float) -> None:
        self.stop_timeouts.append(timeout)
        super().stop(timeout)

    def assign(self, positions: Mapping[PartitionKey, int], watermarks: HighWatermarks | None) -> None:
        self.calls.append(("assign", dict(positions), watermarks))

    def revoke(self, partitions: Collection[PartitionKey]) -> None:
        self.calls.append(("revoke", set(partitions)))

    def received(self, topic: str, partition: int, next_offset: int) -> None:
        self.calls.append(("received", (topic, partition), next_offset))

    def refresh_known_ends(self) -> None:
        self.refreshes += 1


class CarefulSource(NotedSource):
    """Takes back what it published when trust begins anew, as a source does that must prove it again."""

    def assign(self, positions: Mapping[PartitionKey, int], watermarks: HighWatermarks | None) -> None:
        super().assign(positions, watermarks)
        for topic, index in positions:
            self.set_remote_offset(topic, index, None)


class GateHarness:
    """A gate with a step, a source and a clock by script.

    :param positions: the first offset of each partition, by index.
    :param step: the next step; by default the one by script.
    """

    def __init__(
        self,
        positions: Mapping[int, int] | None = None,
        *,
        limits: HoldLimits | None = None,
        slice_seconds: float = 0.005,
        poll_interval_seconds: float = 0.0,
        watermarks: HighWatermarks | None = None,
        source: NotedSource | None = None,
        step: ProcessingStrategy[Any] | None = None,
    ) -> None:
        self.clock = Clock()
        self.step = ScriptedStep()
        self.source = source or NotedSource()
        self.states: list[tuple[int, SynchronizedPartitionState | None]] = []
        """Every change of a partition's state."""
        self.manager = SynchronizedPartitionStateManager(self._note_state)
        self.source.start(self.manager)
        self.gate: SynchronizedStrategy[KafkaPayload] = SynchronizedStrategy(
            step or self.step,
            self.manager,
            self.source,
            {partition(index): offset for index, offset in (positions or {0: 0}).items()},
            limits=limits,
            slice_seconds=slice_seconds,
            poll_interval_seconds=poll_interval_seconds,
            watermarks=watermarks,
            clock=self.clock,
        )

    def release(self, index: int, remote_offset: int | None) -> None:
        """Set the partition's remote offset: everything below it is released."""
        self.source.set_remote_offset(EVENTS.name, index, remote_offset)

    def submit(self, index: int, *offsets: int, value: bytes = b"") -> None:
        for offset in offsets:
            self.gate.submit(message(index, offset, value))

    def hold(self, index: int, *offsets: int) -> None:
        """Submit messages that must not go through."""
        taken = len(self.step.taken)
        self.submit(index, *offsets)
        assert len(self.step.taken) == taken

    def poll_until_empty(self) -> None:
        """Poll until nothing is left over."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        self.gate.poll()
        while self.gate.buffers.released:
            assert time.monotonic() < deadline, "still left over"
            self.gate.poll()

    def held(self) -> dict[int, list[int]]:
        """The offsets that are held or left over, of the partitions that have any."""
        return {line.partition.index: [held.offset for held in line.held] for line in self.gate.buffers if line.held}

    def local(self, index: int) -> int | None:
        """The local offset, as the manager knows it."""
        return self.manager.partitions[EVENTS.name, index][1].local

    def _note_state(self, topic: str, index: int, before: StateAndOffsets, after: StateAndOffsets) -> None:
        assert topic == EVENTS.name
        self.states.append((index, after[0]))
