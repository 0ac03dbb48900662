"""The gate in a whole pipeline, under Arroyo's own processor and around a consumer by script."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest
from arroyo.backends.kafka import KafkaPayload
from arroyo.commit import IMMEDIATE
from arroyo.dlq import DlqPolicy
from arroyo.processing import processor
from arroyo.processing.processor import StreamProcessor
from arroyo.processing.strategies.abstract import MessageRejected, ProcessingStrategy, ProcessingStrategyFactory
from arroyo.types import Commit, Message, Partition

from arroyo_sync.gate.factory import SynchronizedStrategyFactory
from arroyo_sync.gate.flow_control import FlowControlledConsumer
from tests.support.fakes import EVENTS, At, ScriptedConsumer, ScriptedStep, at
from tests.support.harness import TIMEOUT_SECONDS, NotedSource
from tests.support.passing_step import PassingStep

BuildStrategy = Callable[[Commit], ProcessingStrategy[KafkaPayload]]

both_protocols = pytest.mark.parametrize("is_kip848", [False, True], ids=["eager", "KIP-848"])


def pause_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arroyo's processor pauses everything at the second rejection in a row, not after five seconds of them."""
    monkeypatch.setattr(processor, "BACKPRESSURE_THRESHOLD", -1.0)


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
        self._pipeline.checks.append(PromiseCheck(self._pipeline, self._build(commit)))
        return self._pipeline.checks[-1]

    def shutdown(self) -> None:
        self.shutdowns += 1


class PromiseCheck(PassingStep):
    """The first step behind the gate: notes what comes, and checks safety and order as it comes."""

    def __init__(self, pipeline: Pipeline, next_step: ProcessingStrategy[KafkaPayload]) -> None:
        super().__init__(next_step)
        self._pipeline = pipeline
        self._last: dict[int, int] = {}

    def forget_order(self, index: int) -> None:
        """The partition begins anew, as by a seek of the user's."""
        self._last.pop(index, None)

    def submit(self, message: Message[KafkaPayload]) -> None:
        index, offset = at(message)
        remote = self._pipeline.manager.partitions[EVENTS.name, index][1].remote
        assert remote is not None, f"not safe: {index}:{offset} with no remote offset"
        assert offset < remote, f"not safe: {index}:{offset} at a remote offset of {remote}"
        self._pipeline.released.append((index, offset))  # before the step takes it, since it may commit it at once
        try:
            super().submit(message)
        except Exception:
            self._pipeline.released.pop()
            raise
        assert offset > self._last.get(index, -1), f"out of order: {index}:{offset} after {self._last[index]}"
        self._last[index] = offset


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
        self.checks: list[PromiseCheck] = []
        """What stands between the gate and each of them."""
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

    def reject_partition(self, index: int) -> None:
        """Let the user's step reject every message of this partition; `accept` ends it."""

        def reject(at: At) -> None:
            if at[0] == index:
                raise MessageRejected

        self.step.before_submit = reject

    def accept(self) -> None:
        self.step.before_submit = lambda at: None

    def start(self, *indexes: int) -> None:
        """Get these partitions assigned."""
        self.consumer.rebalance(*indexes)
        self.run_until(lambda: not self.consumer.events)

    def rebalance_now(self, *indexes: int) -> None:
        """Let the assignment become this one while the processor carries a message, so doesn't poll."""
        assigned = {each.index for each in self.consumer.tell()}
        if gone := assigned - set(indexes):
            self.consumer.revoke(*sorted(gone))
        if new := set(indexes) - assigned:
            self.consumer.assign(*sorted(new))

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
        if not self.assignments:
            return  # where the first assignment begins: nothing before it can be lost
        for index, offset in offsets.items():
            first = self.assignments[0].get(index, 0)
            due = {(index, value.offset) for value in self.consumer.messages(index) if first <= value.offset < offset}
            lost = due - set(self.released) - self.invalid
            assert not lost, f"{index}: {offset} is committed, but {sorted(lost)} never went through"


def pipeline_of(*indexes: int, produced: int = 20, **settings: Any) -> Pipeline:
    """A pipeline with these partitions assigned, and so many messages in each of the topic's three."""
    pipeline = Pipeline(**settings)
    for index in range(3):
        pipeline.produce(index, range(produced))
    pipeline.start(*indexes)
    return pipeline
