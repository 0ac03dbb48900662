"""The factory that puts the gate before the user's strategy, and outlives rebalances.

Threads: Arroyo's processor calls everything on its own thread. `SynchronizedStrategyFactory.held`, ``manager`` and
`SynchronizedStrategyFactory.snapshot` may be read by any. A `Monitor` watches from a thread of its own.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, TypeVar, cast

from arroyo.backends.abstract import Consumer
from arroyo.processing.strategies.abstract import ProcessingStrategy, ProcessingStrategyFactory
from arroyo.types import Commit, Partition

from arroyo_sync.core.checks import (
    check_callable,
    check_consumer,
    check_instance,
    check_members,
    check_seconds,
    check_share,
    refused,
)
from arroyo_sync.core.errors import ConfigurationError
from arroyo_sync.core.interruptions import INTERRUPTIONS
from arroyo_sync.core.log_guard import guarded_logger
from arroyo_sync.core.log_throttle import mark_told
from arroyo_sync.core.source import (
    EndOffsetsSource,
    RemoteOffsetSource,
    SelectiveSource,
    check_follower,
    check_source,
)
from arroyo_sync.core.state import PartitionKey, StateCallback, SynchronizedPartitionStateManager, ignore_state_change
from arroyo_sync.gate.consumer.rebalance_protocol import refuse_old_brokers
from arroyo_sync.gate.consumer.start_positions import commit_once
from arroyo_sync.gate.data_consumer import make_data_consumer
from arroyo_sync.gate.flow_control import FlowControlledConsumer
from arroyo_sync.gate.follower_snapshot import death_of, survey, take_snapshot
from arroyo_sync.gate.partition_buffer import HoldLimits, PartitionBuffer
from arroyo_sync.gate.strategy import POLL_INTERVAL_SECONDS, REJECTED_WAIT_SECONDS, SynchronizedStrategy
from arroyo_sync.kafka.arroyo_consumer import (
    KafkaWatermarks,
    client_of,
    consumer_behind,
    group_of,
    is_kip848,
    outermost_factory,
    wait_for_added_partitions,
)
from arroyo_sync.kafka.redaction import keep_secrets
from arroyo_sync.observe.metrics_reporter import GateCounts
from arroyo_sync.observe.monitor import Monitor, OnStall
from arroyo_sync.observe.snapshot import Snapshot
from arroyo_sync.observe.stalls import Stall
from arroyo_sync.observe.verdict import Verdict
from arroyo_sync.observe.waits import Survey
from arroyo_sync.sentry.events import FollowerEvents, tell_ends_once
from arroyo_sync.sentry.spans import ProcessSpans

logger = guarded_logger(__name__)

TPayload = TypeVar("TPayload")


class SynchronizedStrategyFactory(ProcessingStrategyFactory[TPayload]):
    """Makes the user's strategies with a gate before each.

    One source, one factory, one consumer, one processor::

        factory = SynchronizedStrategyFactory(ForwarderFactory(), commit_log)
        StreamProcessor(factory.consumer(config), Topic("events"), factory).run()

    :param factory: makes the strategy that gets the released messages.
    :param source: tells how far the leaders have committed. Started by the first poll or assignment, stopped when the
        consumer of `flow_control` closes, at the latest by `shutdown`.
    :param limits: how much a partition may hold; see `HoldLimits`.
    :param on_state_change: called at every change of a partition's state; see `SynchronizedPartitionStateManager`.
    :param slice_seconds: for how long at most the gate works, or waits while a partition is open, at a time.
    :param stop_timeout: for how many seconds `shutdown` waits for the monitor's last check, and then for the source.
    :param stalled_after: seconds without progress, while messages wait, after which a partition counts as stalled: that
        is logged, counted, and sent to Sentry.
    :param on_stall: what else to do then, once in a partition's wait, also if it is taken away and comes back in that:
        call this with the `Stall`, on the monitor's thread; or "raise": the processor ends with `FollowerStalled`.
    :param monitor_interval: seconds between two checks of the monitor, so between two values of a metric. ``None``: no
        monitor, so no metrics, and stalls are not found.
    :param sentry_spans: the part of the released messages, above 0 and up to 1, that get a ``queue.process`` span in
        Sentry; see `ProcessSpans`. ``None``: none, and no step for it in the pipeline.
    :raises ConfigurationError: a setting is impossible, or the source already belongs to another factory.
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
        stalled_after: float = 300.0,
        on_stall: OnStall = None,
        monitor_interval: float | None = 1.0,
        sentry_spans: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        keep_secrets()  # before anything can fail with settings in its variables
        what = "your ProcessingStrategyFactory, the first argument; the source is the second"
        check_members("factory", factory, ("create_with_partitions", "shutdown"), what)
        check_source("source", source)
        check_instance("limits", limits, HoldLimits, may_be_none=True)
        check_callable("on_state_change", on_state_change, "something to call with every change of a partition's state")
        check_seconds("slice_seconds", slice_seconds)
        check_seconds("stop_timeout", stop_timeout, may_be_zero=True)
        check_seconds("stalled_after", stalled_after)
        if on_stall != "raise":
            check_callable("on_stall", on_stall, '"raise", something to call with a Stall,', may_be_none=True)
        if monitor_interval is not None:
            check_seconds("monitor_interval", monitor_interval)
        if sentry_spans is not None:
            check_share("sentry_spans", sentry_spans)
        check_callable("clock", clock, "something to call for monotonic seconds")
        if monitor_interval is not None:
            tell_ends_once()
        self._take(source)
        self._factory = factory
        self._source = source
        self._limits = HoldLimits() if limits is None else limits
        self._sentry_spans = sentry_spans
        self._slice_seconds = slice_seconds
        self._stop_timeout = stop_timeout
        self._clock = clock
        self.manager = SynchronizedPartitionStateManager(on_state_change)
        """The offsets and state of every partition, across rebalances."""
        self.manager.has_monitor = monitor_interval is not None
        self._flow: FlowControlledConsumer[TPayload] | None = None
        self._watermarks: KafkaWatermarks | None = None
        self._gate: SynchronizedStrategy[TPayload] | None = None
        self._has_warned = False
        self._is_stopped = False
        self._outermost: object | None = None  # the factory that the processor was given, if that is known
        self._events = FollowerEvents()
        self._monitor = Monitor(
            self._observe,
            survey=partial(self._survey, source) if isinstance(source, SelectiveSource) else None,
            ask_ends=source.end_offsets if isinstance(source, EndOffsetsSource) else None,
            gate_counts=self._gate_counts,
            end=self._end,
            tell=self._events.tell,
            stalled_after=stalled_after,
            on_stall=on_stall,
            interval=monitor_interval,
            clock=clock,
        )

    @classmethod
    def _take(cls, source: RemoteOffsetSource) -> None:
        """Note whose source it is."""
        try:
            is_taken = source in cls._taken_sources
            cls._taken_sources.add(source)
        except TypeError:
            raise refused("source", source, "must be hashable, and its class must allow weak references") from None
        if is_taken:
            raise ConfigurationError(
                "this source already belongs to another SynchronizedStrategyFactory: make one source for each factory"
            )

    def consumer(self, configuration: Mapping[str, Any]) -> FlowControlledConsumer[TPayload]:
        """The consumer to give to the StreamProcessor: Arroyo's ``KafkaConsumer`` with the flow control around it.

        :param configuration: librdkafka's settings and Arroyo's, ``bootstrap.servers`` and ``group.id`` at least. Where
            it is silent, the consumer gets what suits the gate; see `data_consumer_settings`.
            With ``group.protocol=consumer`` the brokers are asked whether they know it; if they don't, the processor
            ends with `ConfigurationError`.
        :raises ConfigurationError: the settings can't be right, or as `flow_control`.
        """
        consumer = make_data_consumer(configuration)
        if is_kip848(consumer):
            refuse_old_brokers(configuration, self.manager.fail)
        # Its payloads are KafkaPayload, as those of any factory that is given a consumer of Kafka.
        return self.flow_control(cast("Consumer[TPayload]", consumer))

    def flow_control(self, consumer: Consumer[TPayload]) -> FlowControlledConsumer[TPayload]:
        """The consumer to give to the StreamProcessor, around yours, if `consumer` doesn't serve.

        :raises ConfigurationError: called a second time, or the consumer's group is one of the leader groups.
        """
        if self._flow is not None:
            raise ConfigurationError(
                "flow_control() was called before: a factory serves one consumer; make a source and a factory for each"
            )
        check_consumer("consumer", consumer)
        self._check_group(consumer)
        wait_for_added_partitions(consumer)
        # Arroyo has no call for a partition's end offset; its consumer's own handle knows it without asking the broker.
        client = client_of(consumer)
        if client is not None:
            self._watermarks = KafkaWatermarks(client)
        self._flow = FlowControlledConsumer(
            consumer,
            self.manager,
            self._check_source,
            slice_seconds=self._slice_seconds,
            rejected_wait_seconds=REJECTED_WAIT_SECONDS,
            before_close=self._watermarks.close if self._watermarks is not None else None,
            after_close=self._consumer_closed,
            clock=self._clock,
            # A source that only looks like the contract may be without these.
            on_subscribe=getattr(self._source, "subscribe", None),
            check_topic=getattr(self._source, "check_topic", None),
            check_cluster=getattr(self._source, "check_cluster", None),
        )
        return self._flow

    def create_with_partitions(
        self, commit: Commit, partitions: Mapping[Partition, int]
    ) -> ProcessingStrategy[TPayload]:
        """The user's strategy behind a new gate. Called by Arroyo in a rebalance.

        :raises ConfigurationError: for partitions of several topics, and if the processor has another consumer than
            `flow_control` returned. Without `flow_control`, also for ``group.protocol=consumer`` and a group that is a
            leader group. All of the consumer as far as it can be found.
        """
        if self._flow is None:
            self._begin_without_flow_control(commit, partitions)
        elif consumer_behind(commit) is not None:
            self._flow.check_subscribed()
        self._outermost = outermost_factory(commit)
        self._start()
        self._source.assign(
            {(partition.topic.name, partition.index): offset for partition, offset in partitions.items()},
            self._watermarks,
        )
        next_step = self._factory.create_with_partitions(commit, partitions)
        if self._sentry_spans is not None:
            next_step = ProcessSpans(next_step, self._sentry_spans, self._hold_seconds)
        self._gate = SynchronizedStrategy(
            next_step,
            self.manager,
            self._source,
            partitions,
            limits=self._limits,
            slice_seconds=self._slice_seconds,
            poll_interval_seconds=0.0 if self._flow is None else POLL_INTERVAL_SECONDS,
            watermarks=self._watermarks,
            clock=self._clock,
        )
        if self._flow is not None:
            self._flow.attach(self._gate)
        return self._gate

    def shutdown(self) -> None:
        """Stop the monitor and the source, each within ``stop_timeout`` seconds, and shut the user's factory down."""
        try:
            self._stop()
        finally:
            self._factory.shutdown()

    @property
    def held(self) -> Mapping[PartitionKey, int]:
        """How many messages of each assigned partition are buffered, at this moment."""
        gate = self._gate
        return {} if gate is None else {buffer.key: len(buffer.held) for buffer in gate.buffers}

    def snapshot(self) -> Snapshot:
        """How everything stands: offsets, lags, what is held, what each leader published, and whom it waits for.

        Never blocks for long; any thread may call it. Where a partition ends is known as of the monitor's last check.
        """
        return self._observe(self._monitor.ends, None)

    @property
    def stalls(self) -> Sequence[Stall]:
        """What stood still at the monitor's last check, longest first. Any thread may read it."""
        return self._monitor.stalls

    @property
    def verdicts(self) -> Sequence[Verdict]:
        """How each partition stands, the worst first. How long it has waited is known as of the monitor's last check.

        Any thread may read it.
        """
        return self._monitor.verdicts()

    def _hold_seconds(self, partition: int, offset: int) -> float:
        """For how long a message was held that the gate forwards now. On the processor's thread."""
        buffer = None if self._gate is None else self._gate.buffers.by_index.get(partition)
        if buffer is None or not buffer.held or buffer.held[0].offset != offset:
            return 0.0
        return self._clock() - buffer.held[0].since

    # The start and the end.

    def _check_group(self, consumer: object) -> None:
        group = group_of(consumer)
        if group is not None and group in getattr(self._source, "groups", ()):
            raise ConfigurationError(
                f"group.id={group!r} is also one of the leader groups: the follower would take the leader's partitions "
                "from it, and wait for itself for ever. Give the follower a group.id of its own"
            )

    def _begin_without_flow_control(self, commit: Commit, partitions: Mapping[Partition, int]) -> None:
        consumer = consumer_behind(commit)
        self._check_group(consumer)
        if is_kip848(consumer):
            raise ConfigurationError(
                "group.protocol=consumer without flow_control(): messages would be lost in rebalances. Give "
                "StreamProcessor the consumer that factory.flow_control(consumer) returns"
            )
        if not self._has_warned:
            self._has_warned = True
            logger.warning(
                "flow_control() was never called: releases are slow, and a partition that waits stops all others. "
                "Give StreamProcessor the consumer that factory.flow_control(consumer) returns"
            )
        commit_once(commit, consumer, partitions)

    def _consumer_closed(self) -> None:
        """Stop what would run on where the processor shuts another factory down, one that doesn't hand it on."""
        outermost = type(self._outermost)
        if getattr(outermost, "shutdown", None) is ProcessingStrategyFactory.shutdown:
            logger.warning(
                "%s doesn't hand shutdown() on, so the source of remote offsets would still run: it is stopped since "
                "the consumer has closed. Make SynchronizedStrategyFactory the outermost factory",
                outermost.__qualname__,
            )
        try:
            self._stop()
        except INTERRUPTIONS:
            raise
        except Exception:
            logger.exception("The source could not be stopped when the consumer closed")

    def _stop(self) -> None:
        if not self._is_stopped:
            self._is_stopped = True
            try:
                self._monitor.stop(self._stop_timeout)
                self._tell_of_death()
            finally:  # also if Ctrl-C ends the wait: else the source would run on
                self._source.stop(self._stop_timeout)

    def _tell_of_death(self) -> None:
        """Whether or not the monitor could: Arroyo's own event of it was kept back."""
        try:
            if self.manager.has_monitor and (death := death_of(self._source)) is not None:
                self._events.tell_of_death(death)
        except INTERRUPTIONS:
            raise
        except Exception:
            logger.exception("Couldn't tell Sentry whether the source has died")

    # The monitor's side.

    def _end(self, stalled: Exception) -> None:
        mark_told(stalled)  # it was, before this
        self.manager.fail(stalled)

    def _observe(self, ends: Mapping[PartitionKey, int], partitions: Collection[PartitionKey] | None) -> Snapshot:
        return take_snapshot(
            self._buffers(),
            self._source,
            ends,
            partitions,
            now=self._clock(),
            wall_now=time.time(),
            empty_polls=self._empty_polls(),
        )

    def _survey(self, source: SelectiveSource, ends: Mapping[PartitionKey, int]) -> Survey:
        return survey(self._buffers(), source, ends, self._empty_polls())

    def _buffers(self) -> Iterable[PartitionBuffer]:
        return () if self._gate is None else self._gate.buffers

    def _empty_polls(self) -> int | None:
        return None if self._flow is None else self._flow.empty_polls

    def _gate_counts(self) -> GateCounts:
        return GateCounts() if self._flow is None else GateCounts(self._flow.pauses, self._flow.resumes)

    def _start(self) -> None:
        self._source.start(self.manager)
        self._monitor.start()

    def _check_source(self) -> None:
        self._start()
        check_follower(self.manager, self._source)
