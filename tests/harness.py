"""The gate by itself, and the gate in a whole pipeline under Arroyo's own processor, around the fakes."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from arroyo.backends.kafka import KafkaPayload
from arroyo.commit import IMMEDIATE
from arroyo.dlq import DlqPolicy
from arroyo.processing.processor import StreamProcessor
from arroyo.processing.strategies.abstract import ProcessingStrategy, ProcessingStrategyFactory
from arroyo.types import Commit, Message, Partition

from arroyo_sync.factory import SynchronizedStrategyFactory
from arroyo_sync.flow_control import FlowControlledConsumer
from arroyo_sync.line import HoldLimits
from arroyo_sync.remote import HighWatermarks
from arroyo_sync.state import (
    PartitionKey,
    StateAndOffsets,
    SynchronizedPartitionState,
    SynchronizedPartitionStateManager,
)
from arroyo_sync.strategy import SynchronizedStrategy
from arroyo_sync.testing import ManualSource
from tests.fakes import EVENTS, At, Clock, ScriptedConsumer, ScriptedStep, at, message, partition

TIMEOUT_SECONDS = 30.0
"""For what a test waits for; reached only when it fails."""

BuildStrategy = Callable[[Commit], ProcessingStrategy[KafkaPayload]]


class NotedSource(ManualSource):
    """A source moved by hand that notes what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.doubted: dict[PartitionKey, int] = {}
        self.calls: list[tuple[Any, ...]] = []
        """``("assign", {key: position}, watermarks)``, ``("revoke", {keys})``, ``("received", key, next_offset)``."""
        self.starts = 0
        self.checks = 0
        self.stop_timeouts: list[float] = []

    @property
    def unproven(self) -> Mapping[PartitionKey, int]:
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


class GateHarness:
    """A gate with a step, a source and a clock by script.

    :param positions: the first offset of each partition, by index.
    """

    def __init__(
        self,
        positions: Mapping[int, int] | None = None,
        *,
        limits: HoldLimits | None = None,
        slice_seconds: float = 0.005,
        watermarks: HighWatermarks | None = None,
        source: NotedSource | None = None,
    ) -> None:
        self.clock = Clock()
        self.step = ScriptedStep()
        self.source = source or NotedSource()
        self.states: list[tuple[int, SynchronizedPartitionState | None]] = []
        """Every change of a partition's state."""
        self.manager = SynchronizedPartitionStateManager(self._note_state)
        self.source.start(self.manager)
        self.gate: SynchronizedStrategy[KafkaPayload] = SynchronizedStrategy(
            self.step,
            self.manager,
            self.source,
            {partition(index): offset for index, offset in (positions or {0: 0}).items()},
            limits=limits,
            slice_seconds=slice_seconds,
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
        while self.gate.has_left_over:
            assert time.monotonic() < deadline, "still left over"
            self.gate.poll()

    def held(self) -> dict[int, list[int]]:
        """The offsets that are held or left over, of the partitions that have any."""
        return {line.partition.index: [held.offset for held in line.held] for line in self.gate.lines if line.held}

    def local(self, index: int) -> int | None:
        """The local offset, as the manager knows it."""
        return self.manager.partitions[EVENTS.name, index][1].local

    def _note_state(self, topic: str, index: int, before: StateAndOffsets, after: StateAndOffsets) -> None:
        assert topic == EVENTS.name
        self.states.append((index, after[0]))


class _Factory(ProcessingStrategyFactory[KafkaPayload]):
    """Makes what it is told to, behind a check of the promises."""

    def __init__(self, pipeline: Pipeline, build: BuildStrategy) -> None:
        self._pipeline = pipeline
        self._build = build
        self.shutdowns = 0

    def create_with_partitions(
        self, commit: Commit, partitions: Mapping[Partition, int]
    ) -> ProcessingStrategy[KafkaPayload]:
        self._pipeline.assignments.append({each.index: offset for each, offset in partitions.items()})
        return PromiseCheck(self._pipeline, self._build(commit))

    def shutdown(self) -> None:
        self.shutdowns += 1


class PromiseCheck(ProcessingStrategy[KafkaPayload]):
    """The first step behind the gate: notes what comes, and checks safety and order as it comes."""

    def __init__(self, pipeline: Pipeline, next_step: ProcessingStrategy[KafkaPayload]) -> None:
        self._pipeline = pipeline
        self._next_step = next_step
        self._last: dict[int, int] = {}

    def submit(self, message: Message[KafkaPayload]) -> None:
        index, offset = at(message)
        remote = self._pipeline.manager.partitions[EVENTS.name, index][1].remote
        assert remote is not None, f"not safe: {index}:{offset} with no remote offset"
        assert offset < remote, f"not safe: {index}:{offset} at a remote offset of {remote}"
        self._pipeline.released.append((index, offset))  # before the step takes it, since it may commit it at once
        try:
            self._next_step.submit(message)
        except Exception:
            self._pipeline.released.pop()
            raise
        assert offset > self._last.get(index, -1), f"out of order: {index}:{offset} after {self._last[index]}"
        self._last[index] = offset

    def poll(self) -> None:
        self._next_step.poll()

    def close(self) -> None:
        self._next_step.close()

    def terminate(self) -> None:
        self._next_step.terminate()

    def join(self, timeout: float | None = None) -> None:
        self._next_step.join(timeout)


class Pipeline:
    """The three objects of the README around a scripted consumer, with every promise checked that can be at each step.

    :param build: makes the user's strategy; by default a `ScriptedStep` that commits, kept in ``steps``.
    :param waits_really: whether the wrapper's waits take time. Otherwise they are noted and end at once.
    :param limits: and other keywords: the factory's.
    """

    def __init__(
        self,
        *,
        build: BuildStrategy | None = None,
        is_kip848: bool = True,
        is_wrapped: bool = True,
        waits_really: bool = False,
        dlq_policy: DlqPolicy[KafkaPayload] | None = None,
        join_timeout: float | None = None,
        **settings: Any,
    ) -> None:
        self.steps: list[ScriptedStep] = []
        """The user's strategies, one for each assignment."""
        self.assignments: list[dict[int, int]] = []
        """The partitions and offsets that each was made with, by index."""
        self.released: list[At] = []
        """What went through the gate and was taken, in order."""
        self.waits: list[float] = []
        """For how long, in seconds, the wrapper would have waited, one entry a wait."""
        self.on_wait: Callable[[], None] = lambda: None
        """Called when the wrapper begins to wait."""
        self.invalid: set[At] = set()
        """Messages that are not lost though they never went through, since they went to the dead letters."""

        settings.setdefault("monitor_interval", None)  # no thread that nobody asked for
        self.consumer = ScriptedConsumer(is_kip848=is_kip848)
        self.consumer.on_commit = self._check_no_loss
        self.source = NotedSource()
        self.user_factory = _Factory(self, build or self._scripted_step)
        self.factory: SynchronizedStrategyFactory[KafkaPayload] = SynchronizedStrategyFactory(
            self.user_factory, self.source, **settings
        )
        self.manager = self.factory.manager
        self._watch_waits(waits_really)
        self._outer = self.factory.flow_control(self.consumer) if is_wrapped else self.consumer
        self.processor: StreamProcessor[KafkaPayload] = StreamProcessor(
            self._outer, EVENTS, self.factory, commit_policy=IMMEDIATE, dlq_policy=dlq_policy, join_timeout=join_timeout
        )

    @property
    def flow(self) -> FlowControlledConsumer[KafkaPayload]:
        """The wrapper, if there is one."""
        assert isinstance(self._outer, FlowControlledConsumer)
        return self._outer

    @property
    def step(self) -> ScriptedStep:
        """The step of the newest assignment."""
        return self.steps[-1]

    def release(self, index: int, remote_offset: int | None) -> None:
        self.source.set_remote_offset(EVENTS.name, index, remote_offset)

    def produce(self, index: int, offsets: Iterable[int], value: bytes = b"") -> None:
        self.consumer.produce(index, *offsets, value=value)

    def start(self, *indexes: int) -> None:
        """Get these partitions assigned."""
        self.consumer.rebalance(*indexes)
        self.run_until(lambda: not self.consumer.events)

    def run(self, times: int = 1) -> None:
        """So many rounds of the processor's loop."""
        for _ in range(times):
            self.processor._run_once()

    def run_until(self, condition: Callable[[], bool]) -> None:
        """Rounds of the processor's loop until the condition holds; it fails after 30 seconds."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not condition():
            assert time.monotonic() < deadline, f"after {len(self.released)} messages the condition doesn't hold"
            self.run()

    def run_until_quiet(self) -> None:
        """Rounds until everything that can be read is read and everything released has gone through."""
        before = None
        while before != (state := (len(self.released), dict(self.consumer.tell()), dict(self.factory.held))):
            before = state
            self.run(20)

    def held(self, index: int) -> int:
        """How many messages the gate holds of the partition."""
        return self.factory.held.get((EVENTS.name, index), 0)

    def released_of(self, index: int) -> list[int]:
        """The offsets of the partition that went through, in order."""
        return [offset for each, offset in self.released if each == index]

    def stop(self) -> None:
        """End as the processor does when it was signalled."""
        self.processor.signal_shutdown()
        self.processor.run()

    def _scripted_step(self, commit: Commit) -> ScriptedStep:
        self.steps.append(ScriptedStep(commit))
        return self.steps[-1]

    def _watch_waits(self, waits_really: bool) -> None:
        wait_for_move = self.manager.wait_for_move

        def watched(version: int, timeout: float) -> bool:
            self.waits.append(timeout)
            self.on_wait()
            return wait_for_move(version, timeout if waits_really else 0.0)

        self.manager.wait_for_move = watched  # type: ignore[method-assign]

    def _check_no_loss(self, offsets: Mapping[int, int]) -> None:
        for index, offset in offsets.items():
            first = self.assignments[0].get(index, 0)
            due = {(index, value.offset) for value in self.consumer.messages(index) if first <= value.offset < offset}
            lost = due - set(self.released) - self.invalid
            assert not lost, f"{index}: {offset} is committed, but {sorted(lost)} never went through"
