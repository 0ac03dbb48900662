"""The gate: it forwards a message once every leader group has committed it, and holds it until then.

Guarantees
    - Nothing goes downstream at or past the remote offset. Its version is compared for every message, and when it moved
      the offset is read anew.
    - Within a partition messages go downstream in offset order, and no partition waits for another: a message that the
      consumer brings waits for two messages at most of each of four partitions of which released ones are buffered, and
      for one of each that has just opened.
    - ``MessageRejected`` and ``InvalidMessage`` from below lose nothing and reorder nothing.
    - What is held is bounded: `arroyo_sync.gate.partition_buffers` keeps it.

Threads
    The processor's thread calls all methods. Other threads may read what `PartitionBuffers` says they may.

Failures
    A dead source comes out of `submit` and `poll` as `SourceDied`, after which nothing is released. `join` releases
    nothing at all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from arroyo.dlq import InvalidMessage
from arroyo.processing.strategies.abstract import MessageRejected, ProcessingStrategy
from arroyo.types import Message, Partition

from arroyo_sync.core.checks import (
    check_callable,
    check_instance,
    check_members,
    check_positions,
    check_seconds,
    check_step,
)
from arroyo_sync.core.errors import StepRejectedInPoll, UnexpectedMessage
from arroyo_sync.core.source import HighWatermarks, RemoteOffsetSource, check_source
from arroyo_sync.core.state import SynchronizedPartitionStateManager
from arroyo_sync.gate.drain import Drain
from arroyo_sync.gate.partition_buffer import HoldLimits
from arroyo_sync.gate.partition_buffers import PartitionBuffers

TPayload = TypeVar("TPayload")

REJECTED_WAIT_SECONDS = 0.010
"""How long to leave a step alone that rejected a message; Arroyo's processor waits as long."""

POLL_INTERVAL_SECONDS = 0.001
"""How often the next step is polled while messages follow each other. Arroyo polls it before every message, which costs
a plain pipeline a fifth of its time."""


class SynchronizedStrategy(ProcessingStrategy[TPayload], Generic[TPayload]):
    """Gates the submission of messages to ``next_step`` on the remote offset of their partition.

    It stands first in the pipeline, which `SynchronizedStrategyFactory` sees to: it takes single messages of a consumer
    (``BrokerValue``) of one topic, of the partitions it was made for.

    :param positions: the partitions of this assignment, and the offset of the first message that will come of each.
    :param slice_seconds: for how long `poll` forwards released messages before it returns.
    :param poll_interval_seconds: how often the next step is polled while messages follow each other; 0: before every
        message, as Arroyo does. More than 0 is for a consumer that heeds `Drain.needs_poll`.
    :param watermarks: handed to the source when trust begins anew, since a position moved back.
    :param clock: monotonic, in seconds.
    :raises ConfigurationError: an argument can't be right; the message names it.
    """

    def __init__(
        self,
        next_step: ProcessingStrategy[TPayload],
        manager: SynchronizedPartitionStateManager,
        source: RemoteOffsetSource,
        positions: Mapping[Partition, int],
        *,
        limits: HoldLimits | None = None,
        slice_seconds: float = 0.005,
        poll_interval_seconds: float = 0.0,
        watermarks: HighWatermarks | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        check_step("next_step", next_step)
        check_instance("manager", manager, SynchronizedPartitionStateManager)
        check_source("source", source)
        check_positions("positions", positions)
        check_instance("limits", limits, HoldLimits, may_be_none=True)
        check_seconds("slice_seconds", slice_seconds)
        check_seconds("poll_interval_seconds", poll_interval_seconds, may_be_zero=True)
        if watermarks is not None:
            check_members("watermarks", watermarks, ("cached",), "HighWatermarks or None")
        check_callable("clock", clock, "something to call for monotonic seconds")
        self.buffers = PartitionBuffers(
            manager,
            source,
            positions,
            limits=HoldLimits() if limits is None else limits,
            report_interval_seconds=slice_seconds,
            watermarks=watermarks,
            clock=clock,
        )
        """What is held. Any thread may read of it what its docs say."""
        self.drain = Drain(
            next_step,
            manager,
            self.buffers,
            slice_seconds=slice_seconds,
            poll_interval_seconds=poll_interval_seconds,
            clock=clock,
        )
        """How it goes downstream. For the flow control, on the processor's thread."""
        self._manager = manager
        self._clock = clock
        self._next_step = next_step
        self._next_submit = next_step.submit
        self._next_poll = next_step.poll
        self._messages_follow = False  # whether `submit` took a message since the processor's last poll
        # Whether the room that the next poll makes is left to the message that was just rejected; and whether the last
        # one's was, which it is every other time at most: a step may reject the messages of one partition alone.
        self._gives_way = self._gave_way = False
        self._is_next_closed = False
        self._has_deadline = False
        self._deadline: float | None = None

    def submit(self, message: Message[TPayload]) -> None:
        """Forward the message if it is released and nothing of its partition is buffered, else hold it.

        :raises MessageRejected: from the next step, or because the partition is full: the message was not taken.
        :raises InvalidMessage: from the next step. If it names another message, this one was not taken.
        :raises SourceDied: the source has ended.
        :raises UnexpectedMessage: this is not a consumer's message of an assigned partition, or the gate is closed.
        """
        buffers = self.buffers
        if self._manager.version != buffers.seen_version:
            buffers.refresh_remote_offsets()
        value: Any = message.value
        try:
            buffer = buffers.by_index[value.partition.index]
            offset = value.offset
        except (AttributeError, KeyError):
            raise self._unexpected(message) from None
        if not buffer.expected <= offset < buffer.pass_through_below:
            buffers.hold(buffer, offset, message)
            self._messages_follow = True
            return
        # A bound method that is an attribute is called faster through a local (CPython specializes that load, and not a
        # method call on the instance); so in `poll`, and in the consumer around.
        submit = self._next_submit
        try:
            submit(message)
        except InvalidMessage as exc:
            if exc.offset == offset and exc.partition == buffer.partition:
                buffers.received(buffer, offset)
            else:
                buffers.remove_named(exc)
            raise
        except MessageRejected:
            gave_way = self._gave_way
            if not self.drain.needs_poll:
                self._gives_way = not gave_way
                self.drain.was_rejected = True
                raise
            self._messages_follow = False
            self._gives_way = True
            self.poll()  # where the next step may make room, as it could have before
            self._gave_way = gave_way  # that poll was none of the processor's
            self.submit(message)  # no poll is owed any more, so there is no third try
            return
        self._messages_follow = True
        buffer.expected = offset + 1
        if buffer is not buffers.last_forwarded:
            buffers.note_progress(buffer)

    def poll(self) -> None:
        """Poll the next step, and forward what is released: for one slice, or for one round if the consumer has brought
        a message since the last poll; nothing, if a message was just rejected, to which the room is left.

        While messages follow each other, held or not, the next step may be polled once an interval, not before every
        message. It is polled before the consumer waits for messages of the partitions that the gate holds something of,
        and before a rejection goes up.

        :raises InvalidMessage: from the next step; the message that it names is no longer held.
        :raises SourceDied: the source has ended.
        :raises StepRejectedInPoll: the next step raised ``MessageRejected`` out of its ``poll``.
        """
        buffers, drain = self.buffers, self.drain
        if self._manager.version != buffers.seen_version:
            buffers.refresh_remote_offsets()
        follows = self._messages_follow
        drain.needs_poll = False
        if follows:
            self._messages_follow = False
            clock = self._clock
            now = clock()
            if now < drain.poll_at:
                drain.needs_poll = True
                if not buffers.released:
                    return
            else:
                drain.begin_poll_interval(now)
        drain.was_rejected = False  # of what was rejected before this poll nothing is known any more
        self._gave_way, self._gives_way = self._gives_way, False
        try:
            if not drain.needs_poll:
                poll = self._next_poll
                poll()
            if buffers.released and not self._gave_way:
                if follows:
                    drain.forward_round()
                else:
                    drain.forward_slice()
        except InvalidMessage as exc:
            buffers.remove_named(exc)
            raise
        except MessageRejected as exc:
            raise self._step_rejected("poll") from exc
        if buffers.last_forwarded is not None:
            buffers.report_if_due()

    def close(self) -> None:
        """Take no more messages. What is buffered stays."""
        self.buffers.close()

    def join(self, timeout: float | None = None) -> None:
        """Drop what is buffered, released or not, then close the next step and join it.

        What is dropped stays in Kafka and is read again. The whole ``timeout``, in seconds and counted from the first
        call (Arroyo calls again after an InvalidMessage), is for the work in flight below.

        :raises InvalidMessage: from the next step.
        :raises StepRejectedInPoll: the next step raised ``MessageRejected``.
        """
        if not self._has_deadline:
            self._has_deadline = True
            self._deadline = None if timeout is None else self._clock() + timeout
        if not self._is_next_closed:
            self._is_next_closed = True
            self.buffers.drop_all()
            self._next_step.close()
        try:
            self._next_step.join(self._remaining_seconds())  # by position, as Arroyo calls it
        except MessageRejected as exc:
            raise self._step_rejected("join") from exc
        self.buffers.forget_assignment()

    def terminate(self) -> None:
        """Drop what is buffered and terminate the next step, at once."""
        self.close()
        self.buffers.drop_all()
        self._is_next_closed = True
        try:
            self.buffers.forget_assignment()
        finally:  # a source of the user's may raise
            self._next_step.terminate()

    def _remaining_seconds(self) -> float | None:
        return None if self._deadline is None else max(0.0, self._deadline - self._clock())

    def _unexpected(self, message: Message[Any]) -> UnexpectedMessage:
        partition = getattr(message.value, "partition", None)
        if partition is None or not hasattr(message.value, "offset"):
            return UnexpectedMessage(
                f"the gate takes single messages of a consumer (BrokerValue), not {type(message.value).__name__}: "
                "it stands first in the pipeline, before any step that changes or batches messages. If another "
                "factory wraps it, make SynchronizedStrategyFactory the outermost factory"
            )
        where = f"{partition.topic.name}[{partition.index}] offset {message.value.offset}"
        if self.buffers.is_closed:
            return UnexpectedMessage(f"the gate is closed and takes no more messages: {where}")
        assigned = sorted(buffer.partition.index for buffer in self.buffers)
        return UnexpectedMessage(f"{where} is of no partition that is assigned: {assigned}")

    def _step_rejected(self, method: str) -> StepRejectedInPoll:
        return StepRejectedInPoll(
            f"{self._next_step!r} raised MessageRejected out of {method}(), where Arroyo allows it only out of "
            "submit(): a step behind it rejected a message that it had already taken out of its queue. "
            "Put a step that can hold on to it in between, or give the rejecting step a larger buffer; "
            "the message is read again after a restart"
        )
