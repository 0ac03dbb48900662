"""One follower: the package's real classes under Arroyo's real processor, with the model's parts around them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import arroyo.processing.processor
from arroyo.backends.abstract import Consumer
from arroyo.commit import CommitPolicy
from arroyo.dlq import DlqPolicy, InvalidMessage
from arroyo.processing.processor import StreamProcessor
from arroyo.processing.strategies.abstract import ProcessingStrategy, ProcessingStrategyFactory
from arroyo.types import BrokerValue, Commit, Message, Partition

import arroyo_sync.gate.factory
from arroyo_sync.core.errors import SourceDied
from arroyo_sync.gate.factory import SynchronizedStrategyFactory
from arroyo_sync.gate.flow_control import FlowControlledConsumer
from arroyo_sync.gate.partition_buffer import MESSAGE_OVERHEAD_BYTES, HoldLimits
from tests.model.judge import Judge
from tests.model.scripted import (
    PARTITIONS,
    SLICE_SECONDS,
    TOPIC,
    Behaviour,
    Brokers,
    Clock,
    ModelSource,
    ScriptedConsumer,
    ScriptedStep,
)

JOIN_TIMEOUT_SECONDS = 0.1

processor_module: Any = arroyo.processing.processor
factory_module: Any = arroyo_sync.gate.factory


def limits_in_messages(limits: HoldLimits) -> tuple[int, int]:
    """The limit and the low mark that count: the model's messages have no payload."""
    return (
        min(limits.messages, -(-limits.bytes // MESSAGE_OVERHEAD_BYTES)),
        min(limits.resume_messages, limits.resume_bytes // MESSAGE_OVERHEAD_BYTES),
    )


class ObservedGate(ProcessingStrategy[bytes]):
    """The gate as the processor calls it, with the judge looking on."""

    def __init__(self, gate: ProcessingStrategy[bytes], world: World) -> None:
        self._gate = gate
        self._world = world
        self._judge = world.judge

    def poll(self) -> None:
        self._world.hook("gate poll")
        self._judge.call_begins()
        self._gate.poll()
        self._judge.poll_ended()

    def submit(self, message: Message[bytes]) -> None:
        assert isinstance(message.value, BrokerValue)
        partition, offset = message.value.partition.index, message.value.offset
        self._world.hook("gate submit")
        self._judge.call_begins(partition, offset)
        was_taken = False
        try:
            self._gate.submit(message)
            was_taken = True
        except InvalidMessage as invalid:
            was_taken = (invalid.partition.index, invalid.offset) == (partition, offset)
            raise
        finally:
            self._judge.offer_ended(partition, offset, was_taken)

    def close(self) -> None:
        self._gate.close()

    def join(self, timeout: float | None = None) -> None:
        submits = self._judge.submits
        self._gate.join(timeout)
        step = self._world.step
        if self._judge.submits != submits:
            self._judge.violation("Order", "join handed something on")
        if step.end != ["close", "join"]:
            self._judge.violation("Order", f"the next step was ended by {step.end}")
        self._judge.strategy_ended()

    def terminate(self) -> None:
        self._gate.terminate()
        self._judge.strategy_ended()


class ObservedFactory(ProcessingStrategyFactory[bytes]):
    """What the processor is given: the package's factory, whose gates are observed."""

    def __init__(self, factory: SynchronizedStrategyFactory[bytes], world: World) -> None:
        self._factory = factory
        self._world = world

    def create_with_partitions(self, commit: Commit, partitions: Mapping[Partition, int]) -> ProcessingStrategy[bytes]:
        return ObservedGate(self._factory.create_with_partitions(commit, partitions), self._world)

    def shutdown(self) -> None:
        self._factory.shutdown()


class StepFactory(ProcessingStrategyFactory[bytes]):
    """The user's factory."""

    def __init__(self, world: World) -> None:
        self._world = world

    def create_with_partitions(self, commit: Commit, partitions: Mapping[Partition, int]) -> ProcessingStrategy[bytes]:
        world = self._world
        world.judge.strategy_made(
            {partition.index: offset for partition, offset in partitions.items()},
            {partition.index: offset for partition, offset in world.consumer.offsets.items()},
        )
        world.step = ScriptedStep(commit, world.behaviour, world.judge, world.clock, world.hook)
        return world.step


class World:
    """The follower, and all that can happen to it.

    :param is_kip848: partitions are assigned and revoked one by one, and others are retained; else all at once.
    :param is_wrapped: whether the processor has the flow control around the consumer.
    :param before: the follower that has ended, by whatever means; this one takes its place.
    """

    def __init__(
        self,
        partitions: int,
        groups: Sequence[str],
        *,
        is_kip848: bool = True,
        is_wrapped: bool = True,
        limits: HoldLimits,
        commit_policy: CommitPolicy | None = None,
        dlq_policy: DlqPolicy[bytes] | None = None,
        before: World | None = None,
    ) -> None:
        self.partitions, self.groups = partitions, groups
        self.clock = Clock()
        processor_module.time = self.clock
        self.behaviour = Behaviour()
        self.hooks: dict[str, Callable[[], None]] = {}
        self.places: set[str] = set()
        """Where the code has come."""
        if before is None:
            self.judge = Judge(range(partitions), groups, *limits_in_messages(limits), is_wrapped)
            self.brokers = Brokers(partitions)
        else:
            self.judge, self.brokers = before.judge, before.brokers
            self.judge.follower_started()
        self.consumer = ScriptedConsumer(self.brokers, self.judge, self.clock, is_kip848=is_kip848)
        self.source = ModelSource(groups, self.hook)
        self.step: ScriptedStep
        self.factory = SynchronizedStrategyFactory(
            StepFactory(self),
            self.source,
            limits=limits,
            on_state_change=self._state_changed,
            slice_seconds=SLICE_SECONDS,
            monitor_interval=None,
            clock=self.clock,
        )
        self.manager = self.factory.manager
        self.manager.wait_for_move = self._wait_for_move  # type: ignore[method-assign]
        self.consumer.states = self.manager.partitions
        self.flow: FlowControlledConsumer[bytes] | None = None
        if is_wrapped:
            self.flow = self.factory.flow_control(self.consumer)
        self.outermost: Consumer[bytes] = self.flow if self.flow is not None else self.consumer
        self.processor = StreamProcessor(
            cast(Consumer[bytes], _PausesSeen(self.outermost, self.judge)),
            TOPIC,
            ObservedFactory(self.factory, self),
            commit_policy or CommitPolicy(None, 1),
            dlq_policy,
            join_timeout=JOIN_TIMEOUT_SECONDS,
        )
        self.is_over = False
        if before is not None:
            for index, watched in self.judge.partitions.items():
                for group, leader in watched.leaders.items():
                    if leader.newest is not None:
                        self.source.note(index, group, leader.newest)

    # What happens to it. All of it on one thread: another thread's work is put at a `hook`.

    def run_once(self) -> None:
        """One turn of the processor. A dead source must end it."""
        was_dead, had_strategy = self.judge.is_dead, self.judge.has_strategy
        try:
            self.processor._run_once()
        except SourceDied:
            if not self.judge.is_dead:
                self.judge.violation("Loud", "SourceDied though the source lives")
            self._end_as_processor_does()
            return
        # A turn that took the last partition away asked nobody; the next one will, if there is the flow control.
        if was_dead and (self.judge.has_strategy or (self.flow is not None and not had_strategy)):
            self.judge.violation("Loud", "the source is dead, and the processor went on")

    def produce(self, partition: int, count: int = 1) -> None:
        self.brokers.ends[partition] += count
        self.judge.produced(partition, self.brokers.ends[partition])

    def publish(self, partition: int, group: str, offset: int | None) -> None:
        """A leader group publishes its offset."""
        self.judge.published(partition, group, offset)
        self.source.note(partition, group, offset)

    def ask_brokers(self, silent: Collection[int] = ()) -> None:
        """The source asks where the partitions end, as it does when it doubts an offset; of some nobody answers."""
        ends = {index: end for index, end in self.brokers.ends.items() if index not in silent}
        self.judge.broker_told_ends(ends)
        self.source.judge(ends)

    def die(self) -> None:
        self.judge.source_died()
        self.source.die()

    def shut_down(self) -> None:
        self.processor._shutdown()
        self.is_over = True
        if not self.source.is_stopped:
            self.judge.violation("Loud", "the source was not stopped")

    def hook(self, place: str) -> None:
        """The code has come to this place: do what was planned for it."""
        self.places.add(place)
        planned = self.hooks.pop(place, None)
        if planned is not None:
            planned()

    # What it looks like from outside.

    @property
    def carried(self) -> BrokerValue[bytes] | None:
        """The message that the processor carries over to its next turn."""
        message: BrokerValue[bytes] | None = self.processor._StreamProcessor__message  # type: ignore[attr-defined]
        return message

    @property
    def has_work(self) -> bool:
        """Whether anything waits in the gate or is in flight behind it."""
        return any(watched.waiting or watched.in_flight for watched in self.judge.partitions.values())

    def is_readable(self, index: int) -> bool:
        """Whether the consumer has a next message of the partition."""
        offset = self.consumer.offsets.get(PARTITIONS[index])
        return offset is not None and offset < self.brokers.ends[index]

    # For the judge.

    def check(self) -> None:
        """What can be seen between two actions."""
        held = {} if not self.judge.has_strategy else {key[1]: count for key, count in self.factory.held.items()}
        for index, watched in self.judge.partitions.items():
            count = held.get(index, 0)
            if watched.is_assigned and count != len(watched.waiting):
                promise = "No loss" if count < len(watched.waiting) else "Bounded"
                self.judge.violation(promise, f"p{index} holds {count}, and should hold {watched.waiting}")

    def _state_changed(self, topic: str, partition: int, previous: Any, current: Any) -> None:
        self.judge.state_changed(partition, previous[0], *current)

    def _wait_for_move(self, version: int, timeout: float) -> bool:
        """The manager's, in the model's time."""
        self.hook("wait")
        if self.manager.version == version:
            self.judge.slept(timeout)
            self.clock.now += timeout
        return self.manager.version != version

    def _end_as_processor_does(self) -> None:
        """`StreamProcessor.run` does this with an exception."""
        self.is_over = True
        strategy = self.processor._StreamProcessor__processing_strategy  # type: ignore[attr-defined]
        if strategy is not None:
            strategy.terminate()
            self.processor._StreamProcessor__processing_strategy = None  # type: ignore[attr-defined]
        self.outermost.close()
        self.processor._StreamProcessor__processor_factory.shutdown()  # type: ignore[attr-defined]


class _PausesSeen:
    """The consumer as the processor sees it; the judge learns of its pauses."""

    def __init__(self, consumer: Consumer[bytes], judge: Judge) -> None:
        self._consumer = consumer
        self._judge = judge

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)

    def pause(self, partitions: Sequence[Partition]) -> None:
        self._judge.processor_paused.update(each.index for each in partitions)
        self._consumer.pause(partitions)

    def resume(self, partitions: Sequence[Partition]) -> None:
        self._judge.processor_paused.difference_update(each.index for each in partitions)
        self._judge.user_paused.difference_update(each.index for each in partitions)
        self._consumer.resume(partitions)


@contextmanager
def models() -> Iterator[None]:
    """Within, worlds may be made: Arroyo's processor gets the model's time, and nobody logs.

    Worlds are made by the ten thousand, so the log's filters, which need no second call, are set once.
    """
    time, keep_secrets = processor_module.time, factory_module.keep_secrets
    logging.disable(logging.CRITICAL)
    keep_secrets()
    factory_module.keep_secrets = lambda: None
    try:
        yield
    finally:
        factory_module.keep_secrets = keep_secrets
        processor_module.time = time
        logging.disable(logging.NOTSET)
