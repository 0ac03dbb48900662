"""The partitions of the commit log: which there are, how far each was read, and whether all were replayed.

    found ──begin──> replaying ──end reached──> live
      ^                                          │
      └───────────────── forget ─────────────────┘

A partition that is added while the gate is open is replayed apart: what it reports is staged, since its first records
are older than its last one, and is taken once it was replayed.

Pure: no Kafka. Written by the reading thread alone; `LogPartitions.missing` may be asked by any.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from arroyo_sync.core.state import PartitionKey
from arroyo_sync.leaders.commit_log.replay import OffsetRange, Progress, Replay
from arroyo_sync.leaders.commit_report import CommitReport

_SHOWN = 5


class LogPartitions:
    """Each partition is in one of `found` and `positions`, from when it is found until it is forgotten."""

    def __init__(self) -> None:
        self.found: set[int] = set()
        """Those that aren't read yet."""
        self.positions: dict[int, int] = {}
        """Of those that are read, the offset of the next record."""
        self._replay = Replay()
        self._added = Replay()
        self._staged: dict[int, dict[tuple[PartitionKey, str], CommitReport]] = {}

    def restart(self, partitions: Iterable[int]) -> None:
        """These are all the partitions that there are; none is being read, and what was replayed before is void."""
        self.found = set(partitions)
        self._replay, self._added = Replay(), Replay()
        self._staged.clear()

    def find(self, partitions: Iterable[int], is_open: bool) -> list[int]:
        """These are all the partitions that there are.

        :param is_open: whether the gate is open, and stays so while added partitions are replayed.
        :returns: those that are new.
        """
        added = set(partitions) - self.found - self.positions.keys()
        self.found |= added
        if is_open:
            self._staged.update((partition, {}) for partition in added)
        return sorted(added)

    def begin(self, ranges: Mapping[int, OffsetRange]) -> None:
        """Those that were found are read from now on, and replayed up to these ends."""
        self.found -= ranges.keys()
        self.positions.update((partition, range_.start) for partition, range_ in ranges.items())
        self._added.add({partition: range_ for partition, range_ in ranges.items() if partition in self._staged})
        self._replay.add({partition: range_ for partition, range_ in ranges.items() if partition not in self._staged})

    def forget(self, partitions: Iterable[int]) -> list[int]:
        """These are to be read again from their beginning.

        :returns: those that were being read.
        """
        if self._replay.is_done:
            self._replay = Replay()
        read = []
        for partition in partitions:
            if self.positions.pop(partition, None) is not None:
                read.append(partition)
            self._staged.pop(partition, None)
            self.found.add(partition)
        return read

    def passed(self, partition: int, reports: Sequence[CommitReport], next_offset: int) -> Sequence[CommitReport]:
        """Every record below ``next_offset`` was read.

        :returns: the reports that count now; others are staged.
        """
        self.positions[partition] = next_offset
        self._replay.passed(partition, next_offset)
        staged = self._staged.get(partition)
        if staged is None:
            return reports
        staged.update(((each.key, each.group), each) for each in reports)
        self._added.passed(partition, next_offset)
        return ()

    def reached_end(self, partition: int) -> None:
        """The partition's end was met."""
        self._replay.reached_end(partition)
        self._added.reached_end(partition)

    def take_staged(self) -> list[CommitReport]:
        """What added partitions reported that are replayed by now."""
        done = [each for each in self._staged if each in self.positions and not self._added.is_pending(each)]
        return [report for partition in done for report in self._staged.pop(partition).values()]

    def retain_topic(self, topic: str) -> None:
        """Drop what is staged of other data topics."""
        for partition, staged in self._staged.items():
            self._staged[partition] = {key: report for key, report in staged.items() if report.key[0] == topic}

    @property
    def is_replayed(self) -> bool:
        """Whether every partition was replayed, but for those that are replayed apart."""
        return self._replay.is_done and not (self.found - self._staged.keys())

    def progress(self) -> Progress:
        """How much is replayed."""
        return self._replay.progress()

    def missing(self) -> str | None:
        """What is still to be read, ``None`` if that isn't known. Any thread may ask."""
        pending = self._replay.missing()
        if not pending:
            return None
        shown = [f"{key} (read up to {start} of {end})" for key, (start, end) in sorted(pending.items())[:_SHOWN]]
        more = f" and {len(pending) - _SHOWN} more" if len(pending) > _SHOWN else ""
        return f"it still has to read partitions {', '.join(shown)}{more}"
