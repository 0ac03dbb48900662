"""Forwards what is released to the next step, partition by partition in turns, one slice or round at a time.

Guarantees
    - Remote offsets are read anew between two messages whenever they moved.
    - A message that was just released waits for at most one message of each other partition, however much those have.
    - The next step is polled at least once in `Drain.poll_interval_seconds` while messages follow each other, and
      before a rejection counts.

Threads: the processor's thread calls everything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any

from arroyo.processing.strategies.abstract import MessageRejected, ProcessingStrategy

from arroyo_sync.core.state import SynchronizedPartitionStateManager
from arroyo_sync.gate.partition_buffer import PartitionBuffer
from arroyo_sync.gate.partition_buffers import PartitionBuffers

_TURN_MESSAGES = 50
"""How many messages a partition forwards before the next one's turn, so that one long backlog doesn't use up every
slice."""

_ROUND_MESSAGES = 2
"""And in a round, which is all that goes on before the consumer's next message. More than one, so that what is buffered
of a partition becomes less though its messages keep coming."""

_ROUND_TURNS = 4
"""So many partitions have their turn in a round; the queue goes on with the others in the next one. With a hundred that
drain, what comes of all others would else have one turn in two hundred."""

_MORE_RELEASES_SECONDS = 0.0003
"""How long a partition that opened waits, its first message forwarded, for others to open. A leader commits its
partitions at once, but the records come in two or three fetches, a fraction of a millisecond apart, and the source's
thread can't take them in while this one computes: it would get the interpreter's lock after 5 ms."""


class Drain:
    """The way from the partition buffers to the next step.

    :param slice_seconds: for how long at most it forwards before it returns.
    :param poll_interval_seconds: how often the next step is polled while messages follow each other; 0: before every
        message, as Arroyo does.
    :param clock: monotonic, in seconds.
    """

    def __init__(
        self,
        next_step: ProcessingStrategy[Any],
        manager: SynchronizedPartitionStateManager,
        buffers: PartitionBuffers,
        *,
        slice_seconds: float,
        poll_interval_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self._next_submit = next_step.submit
        self._next_poll = next_step.poll
        self._manager = manager
        self._buffers = buffers
        self._slice_seconds = slice_seconds
        self._poll_interval_seconds = poll_interval_seconds
        self._clock = clock
        self._slice_ends_at = clock()
        self.poll_at = clock()
        """When the next step is to be polled at the latest, though messages follow each other."""
        self.was_rejected = False
        """Whether the next step has rejected the last message that it was given since its last poll."""
        self.needs_poll = False
        """Whether the next step took messages that no poll has followed yet."""

    def begin_poll_interval(self, now: float) -> None:
        """The next step is polled now."""
        self.poll_at = now + self._poll_interval_seconds

    def forward_slice(self) -> None:
        """Forward what is released, the partitions taking turns, until the slice ends or the next step rejects."""
        self._begin_slice()
        released = self._buffers.released
        while self._forward_opened() and released:
            if not self._take_turn(next(iter(released)), _TURN_MESSAGES):
                return

    def forward_round(self) -> None:
        """The same, but no more than a few messages of a few partitions: others come, of which some may be released."""
        self._begin_slice()
        released = self._buffers.released
        if not self._forward_opened():
            return
        for buffer in list(islice(released, _ROUND_TURNS)):
            if buffer in released and not self._take_turn(buffer, _ROUND_MESSAGES):
                return
            if not self._forward_opened():
                return

    def _begin_slice(self) -> None:
        self._slice_ends_at = self._clock() + self._slice_seconds

    def _forward_opened(self) -> bool:
        """Have each partition that has opened forward a message. False: the slice is over."""
        opened = self._buffers.opened
        served: dict[PartitionBuffer, None] = {}
        while opened:
            while opened:
                buffer = next(iter(opened))
                del opened[buffer]
                served[buffer] = None
                if not self._take_turn(buffer, 1):
                    return False
            self._wait_for_more_releases(served)
        return True

    def _take_turn(self, buffer: PartitionBuffer, messages: int) -> bool:
        """Forward so many messages of the partition, fewer if no more are released, or others open. False: see above.

        Arroyo's processor polls the next step between two submits; here it is once an interval, and when it rejects.
        """
        buffers, manager, clock = self._buffers, self._manager, self._clock
        # To the end of the queue before its turn: the next one is next, whatever ends this one's turn.
        buffers.released.pop(buffer, None)
        buffers.released[buffer] = None
        for _ in range(messages):
            if not buffer.is_released:
                buffers.released.pop(buffer, None)
                return True
            is_taken = self._forward_oldest(buffer)
            if not is_taken and self.needs_poll:
                self.needs_poll = False
                self._next_poll()  # where it may make room
                is_taken = buffer.is_released and self._forward_oldest(buffer)
            if not is_taken:
                self.was_rejected = True
                return False
            self.needs_poll = True
            now = clock()
            if now >= self._slice_ends_at:
                return False
            if now >= self.poll_at:
                self.needs_poll = False
                self.begin_poll_interval(now)
                self._next_poll()
            if manager.version != buffers.seen_version:
                buffers.refresh_remote_offsets()
                if buffers.opened:
                    return True
        return True

    def _forward_oldest(self, buffer: PartitionBuffer) -> bool:
        """Submit the buffer's oldest message; False if it was rejected and stays."""
        try:
            self._next_submit(buffer.held[0].message)
        except MessageRejected:
            return False
        buffers = self._buffers
        buffers.remove(buffer, 0)
        if buffer is not buffers.last_forwarded:
            buffers.note_progress(buffer)
        return True

    def _wait_for_more_releases(self, served: Mapping[PartitionBuffer, None]) -> None:
        """Let the source's thread write other remote offsets, if partitions hold messages that haven't just opened."""
        buffers = self._buffers
        if buffers.held_messages > sum(len(buffer.held) for buffer in {**buffers.released, **served}):
            self._manager.wait_for_move(buffers.seen_version, _MORE_RELEASES_SECONDS)
            if self._manager.version != buffers.seen_version:
                buffers.refresh_remote_offsets()
