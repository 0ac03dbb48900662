"""How far the commit log has been read, against how far it must be read before anything counts.

A partition is replayed once everything was read that it held when the replay began: the reader has passed the end
offset that it had then, or has met the partition's end, whichever comes first (the last offsets before the end may hold
no records, when they were compacted away or mark transactions).

Pure. Written by the reader's thread alone; `missing` and `progress` may be asked by any.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from arroyo_sync.core.log_guard import guarded_logger
from arroyo_sync.core.log_throttle import LOG_INTERVAL_SECONDS, LogThrottle

logger = guarded_logger(__name__)


class OffsetRange(NamedTuple):
    """What of a partition is to be read: the offsets from ``start`` up to ``end``, which is not among them."""

    start: int
    end: int

    def later(self, found: int | None) -> OffsetRange:
        """Without what lies before an offset that was looked up by time.

        :param found: ``None``: nothing is that late. What arrived since lies past the end, so the end will do.
        """
        return OffsetRange(self.end if found is None else min(found, self.end), self.end)


class Progress(NamedTuple):
    """How much of a replay is done."""

    replayed_partitions: int
    partitions: int
    fraction: float
    """Of the offsets, from 0.0 to 1.0. Compaction leaves gaps between them, so it is an estimate."""


class Replay:
    """The replay of some commit-log partitions.

    >>> replay = Replay({0: OffsetRange(0, 100), 1: OffsetRange(7, 7)})
    >>> replay.missing()
    {0: OffsetRange(start=0, end=100)}
    >>> replay.passed(0, 100)
    >>> replay.is_done
    True
    """

    def __init__(self, ranges: Mapping[int, OffsetRange] = {}) -> None:
        # Replaced whole, so that other threads may read it.
        self._pending: Mapping[int, OffsetRange] = {}
        self._total = 0
        self._done = 0
        self._done_partitions = 0
        self.add(ranges)

    @property
    def is_done(self) -> bool:
        return not self._pending

    def add(self, ranges: Mapping[int, OffsetRange]) -> None:
        """These are to be replayed (again), too. What holds nothing is done at once."""
        others = {key: range_ for key, range_ in self._pending.items() if key not in ranges}
        self._done_partitions += sum(1 for range_ in ranges.values() if range_.start >= range_.end)
        self._total += sum(max(0, range_.end - range_.start) for range_ in ranges.values())
        self._pending = {**others, **{key: range_ for key, range_ in ranges.items() if range_.start < range_.end}}

    def is_pending(self, partition: int) -> bool:
        """Whether the partition isn't replayed yet."""
        return partition in self._pending

    def passed(self, partition: int, next_offset: int) -> None:
        """Everything below ``next_offset`` was read."""
        range_ = self._pending.get(partition)
        if range_ is None:
            return
        self._done += max(0, min(next_offset, range_.end) - range_.start)
        rest = OffsetRange(next_offset, range_.end)
        self._pending = {**self._pending, partition: rest}
        if rest.start >= rest.end:
            self._finish(partition)

    def reached_end(self, partition: int) -> None:
        """The reader met the partition's end."""
        if partition in self._pending:
            self._finish(partition)

    def missing(self) -> Mapping[int, OffsetRange]:
        """What is still to be read."""
        return self._pending

    def progress(self) -> Progress:
        """How much is done."""
        fraction = 1.0 if self.is_done else self._done / self._total
        return Progress(self._done_partitions, self._done_partitions + len(self._pending), fraction)

    def _finish(self, partition: int) -> None:
        self._pending = {key: range_ for key, range_ in self._pending.items() if key != partition}
        self._done_partitions += 1


class ReplayLog:
    """Logs why a replay begins anew, how far it is, now and then, and when it is done.

    :param topic: the commit log.
    :param clock: monotonic seconds.
    """

    def __init__(self, topic: str, interval_seconds: float, clock: Callable[[], float]) -> None:
        self._topic = topic
        self._interval_seconds = interval_seconds
        self._clock = clock
        self._throttle = LogThrottle(LOG_INTERVAL_SECONDS, clock)
        self._began_at = self._last_logged = 0.0
        self._began_read = 0

    def begin(self, read: int) -> None:
        """A replay begins, when so many records were read."""
        self._began_at = self._last_logged = self._clock()
        self._began_read = read

    def log_gone(self, partitions: Collection[int]) -> None:
        """Log why these are to be read once more; of each partition once a minute, since that may be gone, too."""
        due = [each for each in partitions if self._throttle.should_log(each)]
        if due:
            logger.error(
                "Commit log %s: the position in partitions %s is gone. They are read again from their beginning, and "
                "the gate is shut until then",
                self._topic,
                sorted(partitions),
            )

    def log_progress(self, read: int, progress: Progress, missing: Callable[[], str]) -> None:
        """Log it, if it is time."""
        if self._clock() - self._last_logged < self._interval_seconds:
            return
        self._last_logged = self._clock()
        if progress.partitions:
            self._log(f"{progress.fraction:.0%} replayed", read, progress)
        else:
            logger.info("Commit log %s: not replayed yet, %s", self._topic, missing())

    def log_end(self, read: int, progress: Progress) -> None:
        """The replay is done."""
        self._log("replayed", read, progress)

    def _log(self, what: str, read: int, progress: Progress) -> None:
        seconds = max(self._clock() - self._began_at, 1e-3)
        records = read - self._began_read
        logger.info(
            "Commit log %s: %s (%d records, %d of %d partitions, %.1f s, %.0f records/s)",
            self._topic,
            what,
            records,
            progress.replayed_partitions,
            progress.partitions,
            seconds,
            records / seconds,
        )
