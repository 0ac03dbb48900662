"""The gate: it hands a message on once every leader has committed it, and holds it until then.

Guarantees
    - Nothing goes downstream at or past the remote offset. Its version is compared for every message, and when it moved
      the offset is read anew.
    - Within a partition messages go downstream in offset order; a partition is a line, and no line waits for another.
    - ``MessageRejected`` and ``InvalidMessage`` from below lose nothing and reorder nothing.
    - What is held is bounded: `arroyo_sync.gate.partition_buffers` keeps it.

Threads
    All methods are called by the processor's thread. Other threads may read what `Lines` says they may.

Failures
    A dead source comes out of `submit` and `poll` as `SourceDied`, after which nothing is released, in `join` neither.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from arroyo.dlq import InvalidMessage
from arroyo.processing.strategies.abstract import MessageRejected, ProcessingStrategy
from arroyo.types import Message, Partition

from arroyo_sync.core.errors import SourceDied, StepRejectedInPoll, UnexpectedMessage
from arroyo_sync.core.source import HighWatermarks, RemoteOffsetSource
from arroyo_sync.core.state import SynchronizedPartitionStateManager
from arroyo_sync.gate.partition_buffer import HoldLimits, Line
from arroyo_sync.gate.partition_buffers import Lines

logger = logging.getLogger(__name__)

TPayload = TypeVar("TPayload")

REJECTED_WAIT_SECONDS = 0.010
"""How long to leave a step alone that rejected a message; Arroyo's processor waits as long."""

POLL_INTERVAL_SECONDS = 0.001
"""How often the next step is polled while messages follow each other. Arroyo polls it before every message, which costs
a plain pipeline a fifth of its time."""

_TURN_MESSAGES = 50
"""How many messages a line hands on before the next line's turn, so that one long line doesn't use up every slice."""

_GATHER_SECONDS = 0.0003
"""How long a line that opened waits, its first message handed on, for others to open. A leader commits its partitions
at once, but the records come in two or three fetches, a fraction of a millisecond apart, and the source's thread can't
take them in while this one computes: it would get the interpreter's lock after 5 ms."""


class SynchronizedStrategy(Lines, ProcessingStrategy[TPayload], Generic[TPayload]):
    """Gates the submission of messages to ``next_step`` on the remote offset of their partition.

    It stands first in the pipeline, which `SynchronizedStrategyFactory` sees to: it takes single messages of a consumer
    (``BrokerValue``) of one topic, of the partitions it was made for.

    :param positions: the partitions of this assignment, and the offset of the first message that will come of each.
    :param slice_seconds: for how long `poll` hands on released messages before it returns.
    :param poll_interval_seconds: how often the next step is polled while messages follow each other; 0: before every
        message, as Arroyo does. More than 0 is for a consumer that heeds `owes_poll`.
    :param watermarks: handed to the source when trust begins anew, since a position moved back.
    :param clock: monotonic, in seconds.
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
        super().__init__(
            manager,
            source,
            positions,
            limits=limits or HoldLimits(),
            tell_interval_seconds=slice_seconds,
            watermarks=watermarks,
            clock=clock,
        )
        self._next_step = next_step
        self._next_submit = next_step.submit
        self._next_poll = next_step.poll
        self._slice_seconds = slice_seconds
        self._poll_interval_seconds = poll_interval_seconds

        # Plain attributes, since the flow control reads them before every message.
        self.was_rejected = False
        """Whether the last slice ended with a rejection by the next step."""
        self.owes_poll = False
        """Whether the next step took messages that no poll has followed yet."""
        self._streams = False  # whether a message went straight through since the processor's last poll
        self._poll_at = clock()
        self._is_next_closed = False
        self._has_deadline = False
        self._deadline: float | None = None

    def submit(self, message: Message[TPayload]) -> None:
        """Hand the message on if it is released and nothing of its partition waits, else hold it.

        :raises MessageRejected: from the next step, or because the partition is full: the message was not taken.
        :raises InvalidMessage: from the next step. If it names another message, this one was not taken.
        :raises SourceDied: the source has ended.
        :raises UnexpectedMessage: this is not a consumer's message of an assigned partition, or the gate is closed.
        """
        if self._manager.version != self.seen_version:
            self._look_at_source()
        value: Any = message.value
        try:
            line = self._open_lines[value.partition.index]
            offset = value.offset
        except (AttributeError, KeyError):
            raise self._unexpected(message) from None
        if not line.expected <= offset < line.open_until:
            self._hold(line, offset, message)
            return
        # A bound method that is an attribute is called faster through a local (CPython specializes that load, and not a
        # method call on the instance); so in `poll`, and in the consumer around.
        submit = self._next_submit
        try:
            submit(message)
        except InvalidMessage as exc:
            if exc.offset == offset and exc.partition == line.partition:
                self._received(line, offset)
            else:
                self._take_out_named(exc)
            raise
        except MessageRejected:
            if not self.owes_poll:
                raise
            self._streams = False
            self.poll()  # where the next step may make room, as it could have before
            self.owes_poll = False  # the slice may have left one owed, but there is no third try
            self.submit(message)
            return
        self._streams = True
        line.expected = offset + 1
        if line is not self._current:
            self._untold.add(line)
            self._current = line

    def poll(self) -> None:
        """Poll the next step, and hand on what is released, for one slice.

        While messages stream through, or are handed on, the next step may be polled once an interval, not before every
        message. What is owed to it is made good before the consumer waits, and before a rejection goes up.

        :raises InvalidMessage: from the next step; the message that it names is no longer held.
        :raises SourceDied: the source has ended.
        :raises StepRejectedInPoll: the next step raised ``MessageRejected`` out of its ``poll``.
        """
        if self._manager.version != self.seen_version:
            self._look_at_source()
        if self._streams:
            self._streams = False
            clock = self._clock
            now = clock()
            if now < self._poll_at and not self._released:
                self.owes_poll = True
                return
            self._poll_at = now + self._poll_interval_seconds
        self.owes_poll = False
        poll = self._next_poll
        try:
            poll()
            if self._released:
                self._hand_on_slice()
        except InvalidMessage as exc:
            self._take_out_named(exc)
            raise
        except MessageRejected as exc:
            raise self._step_rejected("poll") from exc
        if self._current is not None and self._clock() >= self._tell_at:
            self.tell_local_offsets()

    def join(self, timeout: float | None = None) -> None:
        """Hand on what is released, drop what is held, then close the next step and join it.

        Blocks for about ``timeout`` seconds, counted from the first call: Arroyo calls again after an InvalidMessage.

        :raises InvalidMessage: from the next step.
        :raises StepRejectedInPoll: the next step raised ``MessageRejected`` out of ``poll`` or ``join``.
        """
        if not self._has_deadline:
            self._has_deadline = True
            self._deadline = None if timeout is None else self._clock() + timeout
        if not self._is_next_closed:
            try:
                self._hand_on_until_deadline()
            except InvalidMessage as exc:
                self._take_out_named(exc)
                raise
            except MessageRejected as exc:
                raise self._step_rejected("poll") from exc
            self._drop_held()
            self._is_next_closed = True
            self._next_step.close()
        try:
            self._next_step.join(self._remaining_seconds())
        except MessageRejected as exc:
            raise self._step_rejected("join") from exc
        self._forget_assignment()

    def terminate(self) -> None:
        """Drop what is held and terminate the next step."""
        self.close()
        self._drop_held()
        self._is_next_closed = True
        self._forget_assignment()
        self._next_step.terminate()

    # Releasing.

    def _hand_on_slice(self) -> None:
        """Hand on what is released, the lines taking turns, until the slice ends or the next step rejects.

        Arroyo's processor polls the next step between two submits; here it is once an interval, and when it rejects.
        """
        deadline = self._clock() + self._slice_seconds
        self.was_rejected = False
        has_opened = False
        while self._released:
            if self._opened:
                line, turn = next(iter(self._opened)), 1
                del self._opened[line]
                has_opened = True
            elif has_opened:
                has_opened = False
                self._gather()
                continue
            else:
                line, turn = next(iter(self._released)), _TURN_MESSAGES
            # To the end of the queue before its turn: the next line is next, whatever ends this one's turn.
            del self._released[line]
            self._released[line] = None
            for _ in range(turn):
                if not line.is_released:
                    self._released.pop(line, None)
                    break
                is_taken = self._hand_on(line)
                if not is_taken and self.owes_poll:
                    self.owes_poll = False
                    self._next_poll()  # where it may make room
                    is_taken = line.is_released and self._hand_on(line)
                if not is_taken:
                    self.was_rejected = True
                    return
                self.owes_poll = True
                now = self._clock()
                if now >= deadline:
                    return
                if now >= self._poll_at:
                    self.owes_poll = False
                    self._poll_at = now + self._poll_interval_seconds
                    self._next_poll()
                if self._manager.version != self.seen_version:
                    self._look_at_source()
                    if self._opened:
                        break

    def _gather(self) -> None:
        """Let the source's thread tell of other lines that open, if there are any that could."""
        if self.held_messages > sum(len(line.held) for line in self._released):
            self._manager.wait_for_move(self.seen_version, _GATHER_SECONDS)
            if self._manager.version != self.seen_version:
                self._look_at_source()

    def _hand_on(self, line: Line) -> bool:
        """Submit the line's oldest message; False if it was rejected and stays."""
        try:
            self._next_submit(line.held[0].message)
        except MessageRejected:
            return False
        self._take_out(line, 0)
        self._untold.add(line)
        self._current = line
        return True

    def _hand_on_until_deadline(self) -> None:
        while True:
            try:
                self._look_at_source()
                if not self._released:
                    return
                self._hand_on_slice()
            except SourceDied as error:  # the source has logged the traceback, if there is need for one
                logger.error("While the gate was joined: %s", error)
                return
            remaining = self._remaining_seconds()
            if self._released and remaining == 0:
                logger.warning("Timed out: the next step did not take all that was released")
                return
            if self.was_rejected:
                wait = REJECTED_WAIT_SECONDS if remaining is None else min(remaining, REJECTED_WAIT_SECONDS)
                self._manager.wait_for_move(self.seen_version, wait)
                self._next_poll()  # where a step with a full queue makes room

    def _remaining_seconds(self) -> float | None:
        return None if self._deadline is None else max(0.0, self._deadline - self._clock())

    # Refusing.

    def _unexpected(self, message: Message[Any]) -> UnexpectedMessage:
        partition = getattr(message.value, "partition", None)
        if partition is None or not hasattr(message.value, "offset"):
            return UnexpectedMessage(
                f"the gate takes single messages of a consumer (BrokerValue), not {type(message.value).__name__}: "
                "it stands first in the pipeline, and batching comes behind it"
            )
        where = f"{partition.topic.name}[{partition.index}] offset {message.value.offset}"
        if not self._open_lines and self._lines:
            return UnexpectedMessage(f"the gate is closed and takes no more messages: {where}")
        return UnexpectedMessage(f"{where} is of no partition that is assigned: {sorted(self._lines)}")

    def _step_rejected(self, method: str) -> StepRejectedInPoll:
        return StepRejectedInPoll(
            f"{self._next_step!r} raised MessageRejected out of {method}(), where Arroyo allows it only out of "
            "submit(): a step behind it rejected a message that it had already taken out of its queue. "
            "Put a step that can hold on to it in between, or give the rejecting step a larger buffer; "
            "the message is read again after a restart"
        )
