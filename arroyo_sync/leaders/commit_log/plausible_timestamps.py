"""The timestamps by which records of several commit-log partitions are compared: none is from the future.

Of one group's records in two partitions of the commit log the later one counts. Where the writer sets the timestamps
(``message.timestamp.type=CreateTime``), one whose clock is wrong could make its record the latest for years. So a
timestamp from the future counts as the plausible one before it in the same commit-log partition, or as older than all
if there is none. The group's next report then takes its place.

Not thread-safe: for the reading thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from confluent_kafka import TIMESTAMP_CREATE_TIME, TIMESTAMP_NOT_AVAILABLE, Message

from arroyo_sync.core.source import CLOCK_TOLERANCE_SECONDS

NO_TIMESTAMP = -1
"""Older than all."""


class PlausibleTimestamps:
    """Gives each record of a batch the timestamp that counts.

    :param wall_clock: Unix seconds.
    """

    def __init__(self, wall_clock: Callable[[], float]) -> None:
        self._wall_clock = wall_clock
        self.has_create_time = False
        """Whether some writer sets the timestamps, and not the broker."""
        # Per commit-log partition, the last plausible timestamp of the batches before.
        self._last: dict[int, int] = {}
        self._batch: Sequence[Message] = ()
        self._limit_ms = 0
        # By log offset, those of the whole batch. Made when the first one from the future is met.
        self._replaced: dict[int | None, int] | None = None

    def begin(self, batch: Sequence[Message]) -> None:
        """`of` will be asked for records of this batch, which is of one commit-log partition, in its order."""
        self._batch = batch
        self._limit_ms = int((self._wall_clock() + CLOCK_TOLERANCE_SECONDS) * 1000)
        self._replaced = None

    def of(self, message: Message) -> tuple[int, bool]:
        """The timestamp that counts, Unix milliseconds, or `NO_TIMESTAMP`; and whether its own is from the future."""
        kind, timestamp_ms = message.timestamp()
        if kind == TIMESTAMP_NOT_AVAILABLE:
            return NO_TIMESTAMP, False
        if kind == TIMESTAMP_CREATE_TIME:
            self.has_create_time = True
        if timestamp_ms <= self._limit_ms:
            return timestamp_ms, False
        if self._replaced is None:
            self._replaced = self._replace()
        return self._replaced[message.offset()], True

    def end(self) -> None:
        """The batch was read."""
        for message in reversed(self._batch):
            kind, timestamp_ms = message.timestamp()
            if kind != TIMESTAMP_NOT_AVAILABLE and timestamp_ms <= self._limit_ms:
                self._last[message.partition() or 0] = timestamp_ms
                break
        self._batch = ()
        self._replaced = None

    def forget(self, log_partition: int) -> None:
        """That commit-log partition is read again from its beginning."""
        self._last.pop(log_partition, None)

    def _replace(self) -> dict[int | None, int]:
        last = self._last.get(self._batch[0].partition() or 0, NO_TIMESTAMP)
        replaced: dict[int | None, int] = {}
        for message in self._batch:
            kind, timestamp_ms = message.timestamp()
            if kind != TIMESTAMP_NOT_AVAILABLE:
                if timestamp_ms <= self._limit_ms:
                    last = timestamp_ms
                replaced[message.offset()] = last
        return replaced
