"""What all leader groups published of all partitions, assigned or not: one row a partition, one slot a group.

Not thread-safe: `LeaderOffsets` guards every use with its lock.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from arroyo_sync.core.source import LeaderOffset
from arroyo_sync.core.state import PartitionKey
from arroyo_sync.leaders.commit_report import CommitReport
from arroyo_sync.leaders.published_offset import PublishedOffset
from arroyo_sync.leaders.verification import SUSPECT

Row = Sequence[PublishedOffset | None]

CHUNK = 100
"""How many partitions are handled under one lock: at about 5 us each, half a millisecond."""

T = TypeVar("T")


class Change(NamedTuple):
    """What a report did to its slot."""

    published_offset: PublishedOffset
    previous: CommitReport | None
    """The report that counted before; the same one, if this one doesn't count."""


class OffsetTable:
    """The published offsets.

    :param groups: the leader groups; a report of any other may not be taken in.
    """

    def __init__(self, groups: Iterable[str]) -> None:
        self.groups = tuple(sorted(set(groups)))
        self._index = {group: index for index, group in enumerate(self.groups)}
        self._rows: dict[PartitionKey, list[PublishedOffset | None]] = {}
        self.reported: frozenset[str] = frozenset()
        """The groups that have published anything, also of what was dropped since. Replaced whole; read without the
        lock."""

    def keys(self) -> list[PartitionKey]:
        """Every partition of which anything was published."""
        return list(self._rows)

    def row(self, key: PartitionKey) -> Row:
        """The partition's slots in the order of the groups; empty, if nothing was published of it."""
        return self._rows.get(key, ())

    def slot(self, key: PartitionKey, group: str) -> PublishedOffset | None:
        """What the group published of the partition."""
        row = self._rows.get(key)
        return None if row is None else row[self._index[group]]

    def filled(self, key: PartitionKey) -> Iterator[tuple[str, PublishedOffset]]:
        """The groups that published of the partition, with what they did."""
        for group, published_offset in zip(self.groups, self._rows.get(key, ()), strict=False):
            if published_offset is not None:
                yield group, published_offset

    def take(self, report: CommitReport, now: float) -> Change:
        """Put a report into its slot."""
        if report.group not in self.reported:
            self.reported |= {report.group}
        row = self._rows.get(report.key)
        if row is None:
            row = self._rows[report.key] = [None] * len(self.groups)
        index = self._index[report.group]
        published_offset = row[index]
        if published_offset is None:
            published_offset = row[index] = PublishedOffset(report, now)
            return Change(published_offset, None)
        previous = published_offset.latest
        published_offset.update(report, now)
        return Change(published_offset, previous)

    def forget_log_partition(self, key: PartitionKey, log_partition: int) -> list[PublishedOffset]:
        """Drop what that commit-log partition said of a partition. Returns where another report counts now."""
        changed: list[PublishedOffset] = []
        row = self._rows.get(key, [])
        for index, published_offset in enumerate(row):
            if published_offset is None:
                continue
            latest = published_offset.latest
            if published_offset.forget(log_partition):
                row[index] = None
            elif published_offset.latest is not latest:
                changed.append(published_offset)
        return changed

    def recount_reported(self) -> None:
        """What was dropped doesn't count: it was of another topic."""
        self.reported = frozenset(group for key in self._rows for group, _ in self.filled(key))

    def drop(self, key: PartitionKey) -> None:
        """Forget all that was published of the partition."""
        self._rows.pop(key, None)

    def snapshot(self, key: PartitionKey) -> dict[str, LeaderOffset]:
        """What every group published last of the partition."""
        return {
            group: LeaderOffset(
                each.latest.offset,
                each.latest.timestamp_ms,
                each.read_at_seconds,
                each.latest.orig_message_ts,
                each.is_rejected or (each.is_long_suspect and each.ruling is SUSPECT),
                each.ruling.reason.value if each.ruling.reason is not None else None,
                each.latest.topic_id,
            )
            for group, each in self.filled(key)
        }


def chunks(items: Sequence[T]) -> Sequence[Sequence[T]]:
    """The items in parts of at most `CHUNK`."""
    if 0 < len(items) <= CHUNK:
        return (items,)
    return [items[start : start + CHUNK] for start in range(0, len(items), CHUNK)]
