"""What a contender delivered: cheap to record while it runs, complete enough to be judged afterwards."""

from __future__ import annotations

import mmap
import time
from array import array
from pathlib import Path
from typing import Protocol

STAMP_EVERY = 1_000
"""A `StampedRecorder` reads the clock once in so many messages."""


class Recorder(Protocol):
    """Keeps deliveries."""

    @property
    def count(self) -> int: ...
    def record(self, partition: int, offset: int, now: int | None = None) -> None: ...
    def save(self, path: Path) -> None: ...


class TimedRecorder:
    """Partition, offset and time (``perf_counter_ns``) of every delivery, written into arrays made beforehand.

    Written by the processor's thread only; ``count`` may be read by any. About 0.2 us a message.
    """

    def __init__(self, capacity: int) -> None:
        self.count = 0
        self.partitions = array("q", bytes(8 * capacity))
        self.offsets = array("q", bytes(8 * capacity))
        self.times = array("q", bytes(8 * capacity))

    def record(self, partition: int, offset: int, now: int | None = None) -> None:
        """Keep one delivery. A recorder that is full raises ``IndexError``: the scenario gave too little room."""
        index = self.count
        self.times[index] = time.perf_counter_ns() if now is None else now
        self.partitions[index] = partition
        self.offsets[index] = offset
        self.count = index + 1

    def save(self, path: Path) -> None:
        """Write ``path`` with the suffixes ``.partitions``, ``.offsets`` and ``.times``, as 64-bit integers."""
        for name in ("partitions", "offsets"):
            path.with_suffix(f".{name}").write_bytes(getattr(self, name)[: self.count].tobytes())
        path.with_suffix(".times").write_bytes(self.times[: self.times_count].tobytes())

    @property
    def times_count(self) -> int:
        """How many times were taken."""
        return self.count


class StampedRecorder(TimedRecorder):
    """As `TimedRecorder`, but with one time per ``STAMP_EVERY`` messages, for runs that measure throughput.

    ``times[i]`` is when delivery number ``i * STAMP_EVERY`` began.
    """

    def record(self, partition: int, offset: int, now: int | None = None) -> None:
        """Keep one delivery."""
        index = self.count
        if not index % STAMP_EVERY:
            self.times[index // STAMP_EVERY] = time.perf_counter_ns() if now is None else now
        self.partitions[index] = partition
        self.offsets[index] = offset
        self.count = index + 1

    @property
    def times_count(self) -> int:
        """How many times were taken."""
        return (self.count + STAMP_EVERY - 1) // STAMP_EVERY


class MappedRecorder:
    """As `TimedRecorder`, but in a file that others may read meanwhile, and that outlives a process that is killed.

    Rows of ``time_ns, partition, offset``. A row whose time is 0 isn't there yet: the time is written last.
    """

    def __init__(self, capacity: int, path: Path) -> None:
        self.count = 0
        with path.open("w+b") as file:
            file.truncate(8 * 3 * capacity)
            self._rows = memoryview(mmap.mmap(file.fileno(), 0)).cast("q")

    def record(self, partition: int, offset: int, now: int | None = None) -> None:
        """Keep one delivery. A recorder that is full raises ``IndexError``: the scenario gave too little room."""
        at = 3 * self.count
        rows = self._rows
        rows[at + 2] = offset
        rows[at + 1] = partition
        rows[at] = time.perf_counter_ns() if now is None else now
        self.count += 1

    def save(self, path: Path) -> None:
        """Nothing: it is written."""
