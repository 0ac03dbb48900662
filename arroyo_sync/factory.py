"""The factory that puts the gate before the user's strategy, and outlives rebalances.

Threads: Arroyo's processor calls everything on its own thread. `SynchronizedStrategyFactory.held` and ``manager`` may
be read by any.
"""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Callable, Mapping
from typing import ClassVar, TypeVar

import confluent_kafka
from arroyo.backends.abstract import Consumer
from arroyo.processing.strategies.abstract import ProcessingStrategy, ProcessingStrategyFactory
from arroyo.types import Commit, Partition

from arroyo_sync.errors import ConfigurationError
from arroyo_sync.flow_control import FlowControlledConsumer
from arroyo_sync.line import HoldLimits
from arroyo_sync.remote import RemoteOffsetSource
from arroyo_sync.state import PartitionKey, StateCallback, SynchronizedPartitionStateManager, ignore_state_change
from arroyo_sync.strategy import REJECTED_WAIT_SECONDS, SynchronizedStrategy
from arroyo_sync.watermarks import KafkaWatermarks

logger = logging.getLogger(__name__)

TPayload = TypeVar("TPayload")


class SynchronizedStrategyFactory(ProcessingStrategyFactory[TPayload]):
    """Makes the user's strategies with a gate before each.

    One source, one factory, one consumer, one processor::

        factory = SynchronizedStrategyFactory(ForwarderFactory(), commit_log)
        consumer = factory.flow_control(KafkaConsumer(config))
        StreamProcessor(consumer, Topic("events"), factory).run()

    :param factory: makes the strategy that gets the released messages.
    :param source: tells how far the leaders have committed. Started by the first poll or assignment, stopped by
        `shutdown`.
    :param limits: how much a partition may hold; see `HoldLimits`.
    :param on_state_change: called at every change of a partition's state; see `SynchronizedPartitionStateManager`.
    :param slice_seconds: for how long at most the gate works or waits before the processor has its turn.
    :param stop_timeout: for how many seconds `shutdown` waits for the source to end.
    :raises ConfigurationError: the source already belongs to another factory.
    """

    _taken_sources: ClassVar[weakref.WeakSet[RemoteOffsetSource]] = weakref.WeakSet()

    def __init__(
        self,
        factory: ProcessingStrategyFactory[TPayload],
        source: RemoteOffsetSource,
        *,
        limits: HoldLimits | None = None,
        on_state_change: StateCallback = ignore_state_change,
        slice_seconds: float = 0.005,
        stop_timeout: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if slice_seconds <= 0:
            raise ConfigurationError(f"slice_seconds={slice_seconds}: must be more than 0 (the default is 0.005)")
        if source in self._taken_sources:
            raise ConfigurationError(
                "this source already belongs to another SynchronizedStrategyFactory: make one source for each factory"
            )
        self._taken_sources.add(source)
        self._factory = factory
        self._source = source
        self._limits = limits or HoldLimits()
        self._slice_seconds = slice_seconds
        self._stop_timeout = stop_timeout
        self._clock = clock
        self.manager = SynchronizedPartitionStateManager(on_state_change)
        """The offsets and state of every partition, across rebalances."""
        self._flow: FlowControlledConsumer[TPayload] | None = None
        self._watermarks: KafkaWatermarks | None = None
        self._gate: SynchronizedStrategy[TPayload] | None = None
        self._has_warned = False

    def flow_control(self, consumer: Consumer[TPayload]) -> FlowControlledConsumer[TPayload]:
        """The consumer to give to the StreamProcessor, around yours.

        :raises ConfigurationError: called a second time.
        """
        if self._flow is not None:
            raise ConfigurationError(
                "flow_control() was called before: a factory serves one consumer; make a source and a factory for each"
            )
        # Arroyo has no call for a partition's end offset; its consumer's own handle knows it without asking the broker.
        handle = getattr(consumer, "_KafkaConsumer__consumer", None)
        if isinstance(handle, confluent_kafka.Consumer):
            self._watermarks = KafkaWatermarks(handle)
        self._flow = FlowControlledConsumer(
            consumer,
            self.manager,
            self._check_source,
            slice_seconds=self._slice_seconds,
            rejected_wait_seconds=REJECTED_WAIT_SECONDS,
            on_close=self._watermarks.close if self._watermarks is not None else None,
        )
        return self._flow

    def create_with_partitions(
        self, commit: Commit, partitions: Mapping[Partition, int]
    ) -> ProcessingStrategy[TPayload]:
        """The user's strategy behind a new gate. Called by Arroyo in a rebalance.

        :raises ConfigurationError: for partitions of more than one topic.
        """
        if self._flow is not None:
            partitions = self._flow.rewind_retained(partitions)
        elif not self._has_warned:
            self._has_warned = True
            logger.warning(
                "flow_control() was never called: releases are slow, a partition that waits stops all others, and "
                "under group.protocol=consumer messages are lost in rebalances. Give StreamProcessor the consumer "
                "that factory.flow_control(consumer) returns"
            )
        self._source.start(self.manager)
        self._source.assign(
            {(partition.topic.name, partition.index): offset for partition, offset in partitions.items()},
            self._watermarks,
        )
        self._gate = SynchronizedStrategy(
            self._factory.create_with_partitions(commit, partitions),
            self.manager,
            self._source,
            partitions,
            limits=self._limits,
            slice_seconds=self._slice_seconds,
            watermarks=self._watermarks,
            clock=self._clock,
        )
        if self._flow is not None:
            self._flow.attach(self._gate)
        return self._gate

    def shutdown(self) -> None:
        """Stop the source, within ``stop_timeout`` seconds, and shut the user's factory down."""
        try:
            self._source.stop(self._stop_timeout)
        finally:
            self._factory.shutdown()

    @property
    def held(self) -> Mapping[PartitionKey, int]:
        """How many messages of each assigned partition are held or left over, at this moment."""
        gate = self._gate
        return {} if gate is None else {line.key: len(line.held) for line in gate.lines}

    def _check_source(self) -> None:
        self._source.start(self.manager)
        self._source.check()
