"""The lines of one assignment: what the gate holds of them, what of it is released, and what the manager is told.

Guarantees
    - What is held is bounded, in messages and in bytes a partition.
    - A line's messages leave it in offset order, except one that an exception names.
    - What a line received is told before a doubt about it is looked for, so no published offset waits for a proof that
      is there already.

Threads
    All methods are called by the processor's thread. Other threads may read `Lines.lines` and `Lines.held_messages`;
    they see values that were true a moment ago.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from arroyo.dlq import InvalidMessage
from arroyo.processing.strategies.abstract import MessageRejected
from arroyo.types import Message, Partition

from arroyo_sync.core.errors import ConfigurationError
from arroyo_sync.core.source import HighWatermarks, RemoteOffsetSource
from arroyo_sync.core.state import SynchronizedPartitionStateManager
from arroyo_sync.gate.partition_buffer import HoldLimits, Line

logger = logging.getLogger(__name__)


class Lines:
    """The lines of the partitions in ``positions``, which are of one topic.

    :param positions: the partitions of this assignment, and the offset of the first message that will come of each.
    :param tell_interval_seconds: how often the manager is told the local offsets while messages stream through.
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
        tell_interval_seconds: float,
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
        self._tell_interval_seconds = tell_interval_seconds
        self._watermarks = watermarks
        self._clock = clock

        # By the partition's index: hashing an Arroyo Partition, a dataclass in another, costs ten times as much.
        self._lines = {
            partition.index: Line(partition, manager.cell(partition.topic.name, partition.index), position, limits)
            for partition, position in positions.items()
        }
        # What messages look their line up in: emptied by `close`, so that a closed gate costs an open one nothing.
        self._open_lines = self._lines
        # Lines whose oldest message is released, in the order of their turns. Mostly empty.
        self._released: dict[Line, None] = {}
        # Those of them that opened since they had a turn: each hands on one message before any other line goes on, so
        # that no release waits until another one's messages are through.
        self._opened: dict[Line, None] = {}
        # Lines that handed something on since the manager was told their local offset; the last of them apart, since
        # messages come in long runs of one partition.
        self._untold: set[Line] = set()
        self._current: Line | None = None
        self._tell_at = clock()

        # Plain attributes, since the flow control reads them before every message.
        self.held_messages = 0
        """How many messages are held or left over."""
        self.pause_changes: dict[Partition, bool] = {}
        """Partitions that became full (True) or drained (False), for `take_pause_changes`."""

        manager.take_moved()  # they were moved for another gate
        for line in self._lines.values():
            line.look()
        self.seen_version = -1
        """The manager's version whose remote offsets were looked at. None at first: the source may have died between
        the last gate's look and this one's making."""
        manager.set_local_offsets([(line.key, line.expected) for line in self._lines.values()])

    def close(self) -> None:
        """Take no more messages. What is held stays."""
        self._open_lines = {}

    # What the flow control asks.

    @property
    def has_left_over(self) -> bool:
        """Whether anything is released that the last slice didn't reach, or that the next step rejected."""
        return bool(self._released)

    def take_pause_changes(self) -> Mapping[Partition, bool]:
        """Which partitions to pause (True: full) and to resume (False: drained) since the last call."""
        changes, self.pause_changes = self.pause_changes, {}
        return changes

    def tell_local_offsets(self) -> None:
        """Write the local offsets that moved to the manager, which is spared one lock a message."""
        if self._open_lines and self._current is not None:
            for line in self._untold:
                line.cell.received = line.expected
            self._manager.set_local_offsets([(line.key, line.local_offset) for line in self._untold])
            self._untold.clear()
            self._current = None
            self._tell_at = self._clock() + self._tell_interval_seconds

    def seek(self, partition: Partition, offset: int) -> None:
        """The consumer will go on at ``offset``: forget what is held at or past it, since it comes again."""
        line = self._open_lines.get(partition.index)
        if line is not None and offset != line.expected:
            self._move_position(line, offset)

    @property
    def lines(self) -> Iterator[Line]:
        """The lines of this assignment. Any thread may read, see the module's docstring."""
        return iter(self._lines.values())

    # Holding.

    def _hold(self, line: Line, offset: int, message: Message[Any]) -> None:
        if offset < line.expected:
            self._move_position(line, offset)
        if line.is_at_limit:
            raise MessageRejected
        was_full = line.is_full
        line.append(offset, message, self._clock())
        self.held_messages += 1
        if line.is_full and not was_full:
            self.pause_changes[line.partition] = True
        self._received(line, offset)

    def _received(self, line: Line, offset: int) -> None:
        """Note that the message at ``offset`` was taken, and let it prove a published offset that waits for proof."""
        line.expected = line.cell.received = offset + 1
        self._untold.add(line)
        self._current = line
        if self._source.unproven:
            self._prove(line)
        if line.is_released:
            self._released[line] = None

    def _prove(self, line: Line) -> None:
        """What the line has received proves what leaders published below."""
        line.cell.received = line.expected
        lowest = self._source.unproven.get(line.key)
        if lowest is not None and lowest <= line.expected:
            self._source.received(*line.key, line.expected)

    def _move_position(self, line: Line, offset: int) -> None:
        """The partition is read from ``offset`` on. Further back than before, every remote offset needs proof again."""
        self.tell_local_offsets()  # else what the line had received would be told later, as if it had come again
        while line.held and line.held[-1].offset >= offset:
            self._take_out(line, len(line.held) - 1)
        if offset < line.expected:
            logger.info("%s[%d]: reading again from %d, back from %d", *line.key, offset, line.expected)
            line.cell.received = None
            self._source.assign({line.key: offset}, self._watermarks)
        line.expected = offset
        self._manager.set_local_offset(*line.key, line.local_offset)

    def _take_out(self, line: Line, index: int) -> None:
        """Remove one message from the line; at the low mark, ask for more."""
        was_full = line.is_full
        line.take_out(index)
        self.held_messages -= 1
        if was_full and not line.is_full:
            self.pause_changes[line.partition] = False

    def _take_out_named(self, invalid: InvalidMessage) -> None:
        """The message that the exception names leaves its line, if it is in one; every other stays."""
        line = self._lines.get(invalid.partition.index)
        if line is None or line.partition != invalid.partition:
            return
        for index, held in enumerate(line.held):
            if held.offset == invalid.offset:
                self._take_out(line, index)
                self._untold.add(line)
                self._current = line
                return

    def _drop_held(self) -> None:
        dropped = self.held_messages
        for line in self._lines.values():
            line.clear()
        self.held_messages = 0
        self._released.clear()
        self._opened.clear()
        self.pause_changes.clear()
        if dropped:
            logger.info("Dropped %d held messages: they stay in Kafka and are read again", dropped)

    def _forget_assignment(self) -> None:
        """The partitions are no longer the follower's, or will be another gate's."""
        for line in self._lines.values():
            line.cell.received = None
        keys = [line.key for line in self._lines.values()]
        self._manager.set_local_offsets([(key, None) for key in keys])
        self._source.revoke(keys)

    # Remote offsets.

    def _look_at_source(self) -> None:
        """Take note of the remote offsets that moved.

        :raises SourceDied: and then the version stays unseen, so that every later call raises again.
        :raises Exception: what the manager was made to fail with, likewise.
        """
        version = self._manager.version
        self._manager.check()
        self._source.check()
        if self._source.unproven:
            for untold in self._untold:
                self._prove(untold)
        for topic, index in self._manager.take_moved():
            line = self._lines.get(index)
            if line is not None and line.key[0] == topic:
                line.look()
                if line.is_released:
                    if line not in self._released:
                        line.note_release(self._clock())
                        self._released[line] = self._opened[line] = None
                else:
                    self._released.pop(line, None)
                    self._opened.pop(line, None)
        self.seen_version = version
