"""A consumer around the user's: it wakes the processor for the gate, pauses full partitions, seeks back in a rebalance.

Guarantees
    - While the gate holds something, `FlowControlledConsumer.poll` blocks for at most a slice (5 ms), or for 0.25 s
      while all that could come would be held too, and returns as soon as a remote offset moves. While it holds nothing,
      it polls as the inner consumer would.
    - Once the data topic was deleted and created again, or a partition truncated, nothing is committed but where to
      begin there; see `ReplacedLog`.
    - Nothing is lost in a rebalance; see `Rebalances`.
    - `FlowControlledConsumer.close` returns, also where it is the first to hear of an assignment.

Threads
    The processor's thread calls everything, rebalance callbacks included, which run inside `poll`.

Sources
    ``arroyo/processing/processor.py`` (it polls for a second), ``arroyo/backends/kafka/consumer.py``, both of 2.48.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol, TypeVar

from arroyo.backends.abstract import Consumer
from arroyo.errors import ConsumerError
from arroyo.types import BrokerValue, Partition, Topic
from confluent_kafka import KafkaError, KafkaException

from arroyo_sync.core.checks import check_callable, check_consumer, check_instance, check_seconds
from arroyo_sync.core.errors import ConfigurationError
from arroyo_sync.core.state import SynchronizedPartitionStateManager
from arroyo_sync.gate.consumer.cluster_question import ASSIGNED_TIMEOUT_SECONDS, ClusterQuestion
from arroyo_sync.gate.consumer.pauses import Pauses
from arroyo_sync.gate.consumer.poll_waits import CLOSED_IDLE_WAIT_SECONDS, PollWaits
from arroyo_sync.gate.consumer.rebalances import OnAssign, OnRevoke, Rebalances
from arroyo_sync.gate.consumer.replaced_log import ReplacedLog
from arroyo_sync.gate.consumer.start_positions import StartPositions
from arroyo_sync.gate.drain import Drain
from arroyo_sync.gate.partition_buffers import PartitionBuffers
from arroyo_sync.kafka.arroyo_consumer import hand_out_rebalances, is_kip848, uses_auto_commit
from arroyo_sync.kafka.commits import commit_through_refused_logins
from arroyo_sync.kafka.errors import LoginRefusals, code_of

TPayload = TypeVar("TPayload")


class Gate(Protocol):
    """What the flow control needs of the gate; `SynchronizedStrategy` documents it."""

    @property
    def buffers(self) -> PartitionBuffers: ...
    @property
    def drain(self) -> Drain: ...


class FlowControlledConsumer(Consumer[TPayload]):
    """An Arroyo consumer around ``inner``, made by ``SynchronizedStrategyFactory.flow_control``.

    :param check_source: called by every poll that has no gate to do so; it starts the source and raises when it is
        dead.
    :param slice_seconds: for how long a poll waits at most while something is held and a partition is open.
    :param rejected_wait_seconds: for how long it waits after the next step rejected a message.
    :param before_close: called before the inner consumer is closed; ``after_close`` after it.
    :param check_topic: see `RemoteOffsetSource.check_topic`.
    :param check_cluster: see `RemoteOffsetSource.check_cluster`.
    :param on_subscribe: called with the topic's name before the inner consumer subscribes; not for a pattern.
    :raises ConfigurationError: an argument can't be right; the message names it.
    """

    def __init__(
        self,
        inner: Consumer[TPayload],
        manager: SynchronizedPartitionStateManager,
        check_source: Callable[[], None],
        *,
        slice_seconds: float = 0.005,
        rejected_wait_seconds: float = 0.010,
        before_close: Callable[[], None] | None = None,
        after_close: Callable[[], None] | None = None,
        on_subscribe: Callable[[str], None] | None = None,
        check_topic: Callable[[float], None] | None = None,
        check_cluster: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        check_consumer("inner", inner)
        check_instance("manager", manager, SynchronizedPartitionStateManager)
        check_callable("check_source", check_source, "something to call without arguments")
        check_seconds("slice_seconds", slice_seconds)
        check_seconds("rejected_wait_seconds", rejected_wait_seconds)
        check_callable("before_close", before_close, "something to call without arguments", may_be_none=True)
        check_callable("after_close", after_close, "something to call without arguments", may_be_none=True)
        check_callable("clock", clock, "something to call for monotonic seconds")
        self._inner = inner
        self._inner_poll = inner.poll
        self._manager = manager
        self._check_source = check_source
        self._rejected_wait_seconds = rejected_wait_seconds
        self._before_close = before_close
        self._after_close = after_close
        self._on_subscribe = on_subscribe
        # The current gate's; None while nothing is assigned.
        self._buffers: PartitionBuffers | None = None
        self._drain: Drain | None = None
        self._waits = PollWaits(slice_seconds)
        self._clock = clock
        self._logins = LoginRefusals(clock)
        self._pauses = Pauses(inner)
        self._start = StartPositions(inner, clock)
        self._replaced_log = ReplacedLog(inner, manager, check_topic, self._start)
        self._cluster_question = ClusterQuestion(inner, check_cluster, clock)
        self._is_closing = False
        self._is_let_go = False
        """Whether the inner consumer was told to close."""
        self._is_subscribed = False
        self._rebalances = Rebalances(
            inner,
            self._pauses,
            self._start,
            self._leave,
            lambda: self._replaced_log.is_replaced,
            lambda: self._is_closing,
        )
        self._resume_offsets = self._rebalances.resume_offsets
        self.empty_polls = 0
        """How often the inner consumer had no message; it isn't asked for one while everything is paused from outside.
        Written by the processor's thread, read by any: it tells a follower that is given nothing from one that hangs,
        or whose step rejects."""
        # Under auto-commit what is staged is librdkafka's, which commits it as the consumer is closed.
        self._inner_stage_offsets = self._stage_unless_replaced if uses_auto_commit(inner) else inner.stage_offsets
        # Only under KIP-848 are partitions retained. Where it is known not to be on, nothing has to be noted of what is
        # staged, which saves 4 % of a message's cost.
        if is_kip848(inner) is False:
            self.stage_offsets = self._inner_stage_offsets  # type: ignore[method-assign]

    # Reading.

    def poll(self, timeout: float | None = None) -> BrokerValue[TPayload] | None:
        """The next message, or None after ``timeout`` seconds, or earlier when the gate wants to be polled.

        :raises SourceDied: when nothing is assigned and the source has ended; otherwise the gate raises it.
        :raises ConfigurationError: for ``partition.assignment.strategy=cooperative-sticky``.
        """
        buffers, drain = self._buffers, self._drain
        if buffers is None or drain is None:
            self._check_source()
            return self._poll_unassigned(timeout)
        is_all_paused = self._pauses.is_all_paused
        if buffers.pause_changes:
            self._pauses.apply(buffers.take_pause_changes())
        try:
            message = self._inner_poll(0.0)  # not by `_poll_for`, which would be one more call for each message
        except ConsumerError as exc:
            self._logins.ride_out(exc)
            message = None
        if message is None:
            if not is_all_paused:
                self.empty_polls += 1
            if self._rebalances.retained:
                self._rebalances.wake_retained()
            if drain.needs_poll or self._drain is not drain:  # or there was a rebalance, and all is another gate's now
                return None
            if self._cluster_question.is_pending:  # nobody answered before the assignment
                self._cluster_question.ask_if_due(ASSIGNED_TIMEOUT_SECONDS)
            if self._start.is_pending and not self._replaced_log.is_replaced:
                self._start.commit_if_due()
            if not buffers.held_messages:
                buffers.report_local_offsets()
                message = self._poll_for(timeout)
                if message is None:
                    return None
        if message is not None:
            self._waits.last_message = message
            if not is_all_paused:
                return message
            # The processor polls for a rebalance alone while it has paused everything. A message that comes in the same
            # poll, from a partition just assigned, it would throw away.
            self._inner.seek({message.partition: message.offset})
            return None
        if drain.was_rejected and buffers.released:
            wait_seconds = self._rejected_wait_seconds
        elif buffers.released:
            return None
        elif is_all_paused:
            # Nothing can come but a rebalance, so the message that the processor carries is tried as often as without
            # a gate. A remote offset that moves ends the wait.
            wait_seconds = CLOSED_IDLE_WAIT_SECONDS
        else:
            wait_seconds = self._waits.next_seconds(buffers)
        if timeout is not None and timeout < wait_seconds:
            wait_seconds = timeout
        self._manager.wait_for_move(buffers.seen_version, wait_seconds)
        return None

    def _poll_unassigned(self, timeout: float | None) -> BrokerValue[TPayload] | None:
        self._cluster_question.ask_if_due()
        try:
            return self._poll_for(timeout)
        except KafkaException as exc:
            # librdkafka refuses Arroyo's assign() with this error, in the first assignment.
            if code_of(exc) == KafkaError._STATE and "set assignment" in str(exc):
                raise ConfigurationError(
                    "Arroyo doesn't work with partition.assignment.strategy=cooperative-sticky, nor with "
                    "group.protocol in capitals: use range or roundrobin, or group.protocol=consumer (KIP-848)"
                ) from exc
            raise

    def _poll_for(self, timeout: float | None) -> BrokerValue[TPayload] | None:
        try:
            return self._inner_poll(timeout)
        except ConsumerError as exc:
            self._logins.ride_out(exc)
            return None

    # Pausing.

    @property
    def pauses(self) -> int:
        """How many partitions were paused for the gate so far. Any thread may read it."""
        return self._pauses.pauses

    @property
    def resumes(self) -> int:
        """How many were resumed, having drained. Any thread may read it."""
        return self._pauses.resumes

    def pause(self, partitions: Sequence[Partition]) -> None:
        """Pause partitions from outside, in addition to what the gate pauses."""
        self._pauses.pause(partitions)

    def resume(self, partitions: Sequence[Partition]) -> None:
        """Take back a `pause`; what the gate paused stays so until there is room."""
        self._pauses.resume(partitions)

    def paused(self) -> Sequence[Partition]:
        """What was paused from outside. The gate's own pauses don't show."""
        self._inner.paused()  # raises if the consumer is closed
        return self._pauses.outside

    # Offsets.

    def seek(self, offsets: Mapping[Partition, int]) -> None:
        """Read on from these offsets; what the gate holds at or past them is forgotten, since it comes again.

        A message that the processor carries, since it was rejected, isn't handed on before them. On the processor's
        thread, outside the next step's ``submit``.
        """
        before = dict(self._inner.tell())
        self._inner.seek(offsets)
        for partition, offset in offsets.items():
            self._rebalances.sought(partition, offset)
            if self._buffers is None:
                continue
            carried = self._buffers.carried_offset(partition, before[partition])
            self._buffers.seek(partition, offset)
            if carried == offset:
                self._inner.seek({partition: offset + 1})  # that one comes from the processor
                carried = None
            self._buffers.discard_carried(partition, carried)

    def stage_offsets(self, offsets: Mapping[Partition, int]) -> None:
        """Stage offsets to be committed. On the hot path: once or twice a message."""
        for partition, offset in offsets.items():
            self._resume_offsets[partition.index] = offset
        self._inner_stage_offsets(offsets)

    def _stage_unless_replaced(self, offsets: Mapping[Partition, int]) -> None:
        if not self._replaced_log.is_replaced:
            self._inner.stage_offsets(offsets)

    def commit_offsets(self) -> Mapping[Partition, int] | None:
        """Commit the staged offsets; nothing, once what was read is gone.

        Where the assignment begins is committed after them, if that is pending; no error of that comes up.
        """
        if self._replaced_log.is_replaced:
            return None
        if not self._start.is_pending:
            return commit_through_refused_logins(self._inner, self._clock)
        self._start.give_way()
        committed = commit_through_refused_logins(self._inner, self._clock)
        self._start.commit_if_due()
        return committed

    def tell(self) -> Mapping[Partition, int]:
        """The inner consumer's positions: past what the gate holds."""
        return self._rebalances.tell()

    # Rebalances.

    def subscribe(
        self, topics: Sequence[Topic], on_assign: OnAssign | None = None, on_revoke: OnRevoke | None = None
    ) -> None:
        """Subscribe to one topic.

        :raises ConfigurationError: for several topics; the gate knows a partition by its index.
        """
        if len(topics) != 1:
            raise ConfigurationError(f"the gate takes one topic, not {[topic.name for topic in topics]}")
        if self._on_subscribe is not None and not topics[0].name.startswith("^"):  # librdkafka's sign of a pattern
            self._on_subscribe(topics[0].name)
        self._is_subscribed = True
        self._rebalances.subscribe(topics, on_assign, on_revoke, self._detach)
        self._cluster_question.begin(topics[0].name)

    def check_subscribed(self) -> None:
        """Return if the processor has subscribed this consumer, which is about to get a gate.

        :raises ConfigurationError: it was never subscribed, so the processor polls another one.
        """
        if not self._is_subscribed:
            raise ConfigurationError(
                "the StreamProcessor has another consumer than the one that flow_control() returned: messages would be "
                "lost in rebalances. Give it what factory.flow_control(consumer) returns, not the consumer itself"
            )

    def attach(self, gate: Gate) -> None:
        """Serve this gate from now on."""
        self._buffers, self._drain = gate.buffers, gate.drain
        gate.buffers.on_start_elsewhere = self._rebalances.begin_elsewhere

    def _detach(self) -> None:
        self._buffers = self._drain = None

    def _leave(self, partitions: Collection[Partition]) -> None:
        """All commits of these partitions are made, and they are about to be given up."""
        if not self._replaced_log.is_replaced:
            self._start.commit_at_last()
        self._replaced_log.leave(partitions)

    # The rest is the inner consumer's.

    def unsubscribe(self) -> None:
        self._inner.unsubscribe()

    def close(self, timeout: float | None = None) -> None:
        """Close the inner consumer, then stop the source.

        Whether the topic was created anew is asked once more. If so, it may take some seconds to commit where the group
        begins. Called again meanwhile, by another thread or a signal handler, it ends that.
        """
        if self._is_closing:
            self._replaced_log.give_up()
            return
        if self._is_let_go:  # Arroyo's isn't closed if a callback raised as its client was
            self._inner.close(timeout)
            return
        self._is_closing = True
        if self._before_close is not None:
            self._before_close()
        try:
            if not self._inner.closed:
                self._leave(self._start.positions)
                hand_out_rebalances(self._inner)
        finally:
            try:
                self._is_let_go = True
                self._inner.close(timeout)
            finally:
                self._is_closing = False
                if self._after_close is not None:
                    self._after_close()

    @property
    def closed(self) -> bool:
        return self._inner.closed

    @property
    def member_id(self) -> str:
        return self._inner.member_id
