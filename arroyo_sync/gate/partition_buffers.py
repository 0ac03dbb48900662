"""The partition buffers of one assignment: what the gate holds, what of it is released, and what the manager is told.

Guarantees
    - What is held is bounded, in messages and in bytes a partition.
    - A partition's messages leave its buffer in offset order, except one that an exception names.
    - What a partition received is noted before unverified offsets are looked for, and again when the source says that
      there are some. So none waits for a message that is there already.

Threads
    All methods are called by the processor's thread. Other threads may iterate over the buffers and read
    `PartitionBuffers.held_messages`; they see values that were true a moment ago.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from arroyo.dlq import InvalidMessage
from arroyo.processing.strategies.abstract import MessageRejected
from arroyo.types import Message, Partition

from arroyo_sync.core.errors import ConfigurationError
from arroyo_sync.core.log_guard import guarded_logger
from arroyo_sync.core.source import HighWatermarks, RemoteOffsetSource, check_follower
from arroyo_sync.core.state import SynchronizedPartitionStateManager
from arroyo_sync.gate.partition_buffer import HoldLimits, PartitionBuffer

logger = guarded_logger(__name__)


class PartitionBuffers:
    """The buffers of the partitions in ``positions``, which are of one topic.

    :param positions: the partitions of this assignment, and the offset of the first message that will come of each.
    :param report_interval_seconds: how often the manager is told the local offsets while messages stream through.
    :param watermarks: handed to the source when trust begins anew, since a position moved back.
    :param clock: monotonic, in seconds.
    :raises ConfigurationError: for partitions of several topics.
    """

    def __init__(
        self,
        manager: SynchronizedPartitionStateManager,
        source: RemoteOffsetSource,
        positions: Mapping[Partition, int],
        *,
        limits: HoldLimits,
        report_interval_seconds: float,
        watermarks: HighWatermarks | None,
        clock: Callable[[], float],
    ) -> None:
        topics = {partition.topic.name for partition in positions}
        if len(topics) > 1:
            raise ConfigurationError(
                f"the gate takes one topic, not {sorted(topics)}: run a StreamProcessor and a source for each"
            )
        self._manager = manager
        self._source = source
        self._report_interval_seconds = report_interval_seconds
        self._watermarks = watermarks
        self._clock = clock

        self._all = {
            partition.index: PartitionBuffer(
                partition, manager.cell(partition.topic.name, partition.index), position, limits
            )
            for partition, position in positions.items()
        }
        # Plain attributes, since the gate or the flow control reads them for every message.
        self.by_index: Mapping[int, PartitionBuffer] = self._all
        """The buffers that take messages, by the partition's index: hashing an Arroyo Partition, a dataclass in
        another, costs ten times as much. Empty once closed, so that a closed gate costs an open one nothing."""
        self.seen_version = -1
        """The manager's version whose remote offsets were read. None at first: the source may have died between the
        last gate's reading and this one's making."""
        self.held_messages = 0
        """How many messages are buffered: held, or pending release."""
        self.pause_changes: dict[Partition, bool] = {}
        """Partitions that became full (True) or drained (False), for `take_pause_changes`."""
        self.released: dict[PartitionBuffer, None] = {}
        """Buffers with messages pending release (a slice ended, or the next step rejected), in the order of their
        turns. Mostly empty."""
        self.opened: dict[PartitionBuffer, None] = {}
        """Those of them that opened since they had a turn: each forwards one message before any other buffer goes on,
        so that no release waits until another partition's messages are through."""
        self.last_forwarded: PartitionBuffer | None = None
        """The buffer that took or forwarded a message last, if the manager hasn't been told its local offset yet."""

        self.on_start_elsewhere: Callable[[Partition, int], None] | None = None
        """Called with the offset of a partition's first message, if that is held and lies past ``positions``."""
        self._positions = {partition.index: position for partition, position in positions.items()}

        # Buffers whose local offset moved since the manager was told; `last_forwarded` is among them. It stands apart,
        # since messages come in long runs of one partition.
        self._unreported: set[PartitionBuffer] = set()
        self._report_at = clock()
        # Every buffer that is open is among them, and others that were a moment ago; see `has_open`.
        self._maybe_open = set(self._all.values())

        manager.take_moved()  # they were moved for another gate
        for buffer in self._all.values():
            buffer.refresh_remote_offset()
        manager.set_local_offsets([(buffer.key, buffer.expected) for buffer in self._all.values()])

    def __iter__(self) -> Iterator[PartitionBuffer]:
        """The buffers of this assignment. Any thread may iterate, see the module's docstring."""
        return iter(self._all.values())

    def close(self) -> None:
        """Take no more messages. What is buffered stays."""
        self.by_index = {}

    @property
    def is_closed(self) -> bool:
        """Whether messages are no longer taken."""
        return not self.by_index and bool(self._all)

    # Taking and giving.

    def hold(self, buffer: PartitionBuffer, offset: int, message: Message[Any]) -> None:
        """Buffer a message, unless the processor carried it over a seek: then it is read again, or was skipped.

        :raises MessageRejected: the buffer is full.
        """
        if offset != buffer.expected:
            if offset == buffer.carried:
                buffer.set_carried(None)
                self._maybe_open.add(buffer)
                return
            self._skip_or_go_back(buffer, offset)
        was_full = buffer.is_full
        if was_full and buffer.is_at_limit:
            raise MessageRejected
        buffer.append(offset, message, self._clock())
        self.held_messages += 1
        if buffer.is_full and not was_full:
            self.pause_changes[buffer.partition] = True
        self.received(buffer, offset)

    def received(self, buffer: PartitionBuffer, offset: int) -> None:
        """Note that the message at ``offset`` was taken, and let it verify a published offset that is pending."""
        buffer.expected = buffer.cell.received = offset + 1
        if buffer is not self.last_forwarded:
            self.note_progress(buffer)
        if self._source.unverified:
            self._verify(buffer)
        elif len(buffer.held) > 1:
            return  # behind others, which are in `released` if they are to be
        if buffer.is_released:
            self.released[buffer] = None

    def note_progress(self, buffer: PartitionBuffer) -> None:
        """The buffer's local offset moved: the manager is to be told."""
        self._unreported.add(buffer)
        self.last_forwarded = buffer

    def remove(self, buffer: PartitionBuffer, index: int) -> None:
        """Remove one message from its buffer; at the low mark, ask for more."""
        was_full = buffer.is_full
        buffer.remove(index)
        self.held_messages -= 1
        if not buffer.held:
            self._maybe_open.add(buffer)
        if not buffer.is_released:  # it opens anew, if it does
            self.released.pop(buffer, None)
            self.opened.pop(buffer, None)
        if was_full and not buffer.is_full:
            self.pause_changes[buffer.partition] = False

    def remove_named(self, invalid: InvalidMessage) -> None:
        """Remove the message that the exception names, if it is buffered; every other stays."""
        buffer = self._all.get(invalid.partition.index)
        if buffer is None or buffer.partition != invalid.partition:
            return
        for index, message in enumerate(buffer.held):
            if message.offset == invalid.offset:
                self.remove(buffer, index)
                self.note_progress(buffer)
                return
            if message.offset > invalid.offset:
                break  # it was handed on, as most that are named were
        if buffer.carried == invalid.offset:
            buffer.set_carried(None)  # the processor carries it no more

    def drop_all(self) -> None:
        """Forget what is buffered: it stays in Kafka and is read again."""
        dropped = self.held_messages
        for buffer in self._all.values():
            buffer.clear()
        self.held_messages = 0
        self.released.clear()
        self.opened.clear()
        self.pause_changes.clear()
        if dropped:
            logger.info("Dropped %d buffered messages: they stay in Kafka and are read again", dropped)

    def forget_assignment(self) -> None:
        """The partitions are no longer the follower's, or will be another gate's."""
        keys = [buffer.key for buffer in self._all.values()]
        self._manager.set_local_offsets([(key, None) for key in keys])
        self._source.revoke(keys)  # it remembers what was received
        for buffer in self._all.values():
            buffer.cell.received = None

    # What the flow control asks.

    @property
    def is_verification_pending(self) -> bool:
        """Whether an offset that was published waits for a message, or for the brokers, to prove that it can be."""
        return bool(self._source.unverified)

    def has_open(self) -> bool:
        """Whether the next message of some partition would be handed on as it comes. Cheap however many there are."""
        while self._maybe_open:
            buffer = next(iter(self._maybe_open))
            if buffer.expected < buffer.pass_through_below:
                return True
            self._maybe_open.remove(buffer)
        return False

    def is_newest_held(self, index: int, offset: int) -> bool:
        """Whether this message is the last one that its partition holds."""
        buffer = self.by_index.get(index)
        return buffer is not None and bool(buffer.held) and buffer.held[-1].offset == offset

    def take_pause_changes(self) -> Mapping[Partition, bool]:
        """Which partitions to pause (True: full) and to resume (False: drained) since the last call."""
        changes, self.pause_changes = self.pause_changes, {}
        return changes

    def report_if_due(self) -> None:
        """`report_local_offsets`, if the interval has passed."""
        if self._clock() >= self._report_at:
            self.report_local_offsets()

    def report_local_offsets(self) -> None:
        """Write the local offsets that moved to the manager, which is spared one lock a message."""
        if self.by_index and self.last_forwarded is not None:
            for buffer in self._unreported:
                buffer.note_received()
            self._manager.set_local_offsets([(buffer.key, buffer.local_offset) for buffer in self._unreported])
            self._unreported.clear()
            self.last_forwarded = None
            self._report_at = self._clock() + self._report_interval_seconds

    def seek(self, partition: Partition, offset: int) -> None:
        """The consumer will go on at ``offset``: forget what is buffered at or past it, since it comes again."""
        buffer = self.by_index.get(partition.index)
        if buffer is not None and offset != buffer.expected:
            self._move_position(buffer, offset)

    def carried_offset(self, partition: Partition, position: int) -> int | None:
        """Which message of the partition the processor carries: one that it was given, and that the gate hasn't taken.

        :param position: the consumer's, past the last message that it gave.
        """
        buffer = self.by_index.get(partition.index)
        if buffer is None or buffer.carried is not None:
            return None if buffer is None else buffer.carried  # since a seek before this one
        return position - 1 if position > buffer.expected else None

    def discard_carried(self, partition: Partition, offset: int | None) -> None:
        """Don't take the message at this offset when the processor submits it, as it does next: it was sought away."""
        buffer = self.by_index.get(partition.index)
        if buffer is not None:
            buffer.set_carried(offset)

    # Remote offsets.

    def refresh_remote_offsets(self) -> None:
        """Read the remote offsets that moved.

        :raises SourceDied: and then the version stays unseen, so that every later call raises again.
        :raises Exception: what the manager was made to fail with, likewise.
        """
        version = self._manager.version
        check_follower(self._manager, self._source)
        has_unverified = bool(self._source.unverified)
        if has_unverified:
            refresh = getattr(self._source, "refresh_known_ends", None)  # one that only looks like the contract
            if refresh is not None:
                refresh()
        for topic, index in self._manager.take_moved():
            buffer = self._all.get(index)
            if buffer is not None and buffer.key[0] == topic:
                if has_unverified:
                    self._verify(buffer)
                buffer.refresh_remote_offset()
                self._maybe_open.add(buffer)
                if buffer.is_released:
                    if buffer not in self.released:
                        buffer.record_release(self._clock())
                        self.released[buffer] = self.opened[buffer] = None
                else:
                    self.released.pop(buffer, None)
                    self.opened.pop(buffer, None)
        self.seen_version = version

    def _verify(self, buffer: PartitionBuffer) -> None:
        """What the partition has received verifies what leaders published below."""
        buffer.note_received()
        received, lowest = buffer.cell.received, self._source.unverified.get(buffer.key)
        if received is not None and lowest is not None and lowest <= received:
            self._source.received(*buffer.key, received)

    def _skip_or_go_back(self, buffer: PartitionBuffer, offset: int) -> None:
        """The message to be held is not the next one."""
        if offset < buffer.expected:
            self._move_position(buffer, offset)
        elif self.on_start_elsewhere is not None and buffer.expected == self._positions[buffer.partition.index]:
            self.on_start_elsewhere(buffer.partition, offset)

    def _move_position(self, buffer: PartitionBuffer, offset: int) -> None:
        """The partition is read from ``offset`` on. If that is further back, trust in it begins anew."""
        self.report_local_offsets()  # else what was received would be reported later, as if it had come again
        while buffer.held and buffer.held[-1].offset >= offset:
            self.remove(buffer, len(buffer.held) - 1)
        if offset < buffer.expected:
            logger.info("%s[%d]: reading again from %d, back from %d", *buffer.key, offset, buffer.expected)
            self._source.assign({buffer.key: offset}, self._watermarks)  # it remembers what was received
            buffer.cell.received = None
        buffer.position = buffer.expected = offset
        self._maybe_open.add(buffer)
        self._manager.set_local_offset(*buffer.key, buffer.local_offset)
