"""Whether a run kept the promises: nothing early, nothing lost, in order. Judged from what the timed run recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.benchmarks.contenders.recorder import STAMP_EVERY
from tests.benchmarks.numbers import IntArray

NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Deliveries:
    """What one contender delivered, in the order of delivery."""

    partition: IntArray
    offset: IntArray
    time_ns: IntArray
    """One a delivery, or one per ``STAMP_EVERY`` deliveries if ``stamped``."""
    stamped: bool = False

    def __len__(self) -> int:
        return len(self.offset)

    @classmethod
    def load(cls, path: Path, stamped: bool) -> Deliveries:
        """Read what the contender's recorder saved."""
        partition, offset, time_ns = (
            np.fromfile(path.with_suffix(suffix), np.int64) for suffix in (".partitions", ".offsets", ".times")
        )
        return cls(partition, offset, time_ns, stamped)

    @property
    def latest_ns(self) -> IntArray:
        """Per delivery, the time it was made at, or the next one that was taken (the last ones: `NEVER`)."""
        if not self.stamped:
            return self.time_ns
        following = np.append(self.time_ns[1:], NEVER)
        return np.repeat(following, STAMP_EVERY)[: len(self)]


@dataclass(frozen=True)
class CommitRecords:
    """The commit records that were published, in the order of publishing."""

    time_ns: IntArray
    partition: IntArray
    offset: IntArray
    step: IntArray
    tick: IntArray

    @classmethod
    def load(cls, path: Path) -> CommitRecords:
        """Read what the feeder saved."""
        return cls(*np.fromfile(path, np.int64).reshape(-1, 5).T)

    @classmethod
    def of_rows(cls, rows: Sequence[Sequence[int]]) -> CommitRecords:
        """Of rows as the feeder writes them: time, partition, offset, step and tick."""
        return cls(*np.array(rows, np.int64).reshape(-1, 5).T)

    @classmethod
    def at_once(cls, time_ns: int, offsets: list[int]) -> CommitRecords:
        """The records of all partitions, published together at ``time_ns``."""
        count = len(offsets)
        zeros = np.zeros(count, np.int64)
        return cls(np.full(count, time_ns), np.arange(count), np.array(offsets, np.int64), zeros, zeros)


def broken_promises(deliveries: Deliveries, records: CommitRecords | None, ends: list[int]) -> list[str]:
    """Each promise that the run broke, in a sentence; none if it kept them all.

    :param records: what was published, or ``None`` for a contender without a gate, which can't be early.
    :param ends: per partition, the end of what had to be delivered, from offset 0 on.
    """
    broken: list[str] = []
    latest = deliveries.latest_ns
    for partition, end in enumerate(ends):
        mine = deliveries.partition == partition
        offsets = deliveries.offset[mine]
        steps = np.flatnonzero(offsets != np.arange(len(offsets)))
        if len(steps):
            at = int(steps[0])
            broken.append(f"order: partition {partition} delivered {offsets[at]} where {at} was due")
        if len(offsets) < end:
            broken.append(f"loss: partition {partition} delivered {len(offsets)} of {end} messages")
        if records is not None:
            early = _early(offsets, latest[mine], records, partition)
            if early:
                broken.append(f"safety: partition {partition} delivered {early} messages before their commit")
    if set(np.unique(deliveries.partition)) - set(range(len(ends))):
        broken.append("order: a partition was delivered that doesn't exist")
    return broken


def broken_by_members(
    deliveries: Deliveries, records: CommitRecords | None, starts: list[int], ends: list[int]
) -> list[str]:
    """As `broken_promises`, of what the members of a group delivered together, from ``starts`` on.

    A message may come again, since a member that was killed committed not all that it had delivered.
    """
    broken: list[str] = []
    for partition, (start, end) in enumerate(zip(starts, ends, strict=True)):
        mine = deliveries.partition == partition
        offsets = deliveries.offset[mine]
        missing = np.setdiff1d(np.arange(start, end), offsets)
        if len(missing):
            broken.append(
                f"loss: partition {partition} never delivered {len(missing)} messages, {missing[0]} the first"
            )
        if records is not None:
            early = _early(offsets, deliveries.time_ns[mine], records, partition)
            if early:
                broken.append(f"safety: partition {partition} delivered {early} messages before their commit")
    return broken


def _early(offsets: IntArray, latest_ns: IntArray, records: CommitRecords, partition: int) -> int:
    """How many of ``offsets`` were delivered before a record that covers them was published."""
    own = records.partition == partition
    published_ns = np.append(-NEVER, records.time_ns[own])
    published = np.append(0, records.offset[own])
    known = published[np.searchsorted(published_ns, latest_ns, side="right") - 1]
    return int(np.count_nonzero(offsets >= known))
