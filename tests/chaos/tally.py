"""What the journals of a run say so far, kept up to date for the driver: what is to come through, and what has."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from tests.chaos.evidence import Place
from tests.chaos.journal import Tail

Message = tuple[int, int, int]
"""Epoch, partition and offset."""


class Tally:
    """Up to date after `look`.

    :param groups_of: by journal, the group of the process that writes it. Live.
    :param from_the_end: the follower groups that begin at the end: they get what comes after their first assignment.
    """

    def __init__(
        self,
        folder: Path,
        groups_of: Mapping[str, str],
        leaders: Iterable[str],
        followers: Iterable[str],
        from_the_end: Collection[str],
    ) -> None:
        self.acked: dict[int, set[tuple[int, int]]] = {}
        """By epoch, partition and offset of what was acknowledged and may not be compacted away."""
        self.acknowledged = 0
        """How many messages were, of all epochs."""
        self.came: dict[str, set[Message]] = {group: set() for group in followers}
        """By follower group, what came through."""
        self.done: dict[str, set[Message]] = {group: set() for group in leaders}
        self.assigned: set[str] = set()
        """The groups of which some member had an assignment."""
        self._tail = Tail(folder)
        self._groups_of = groups_of
        self._from_the_end = from_the_end
        self._last_of_key: dict[tuple[Place, str], int] = {}
        self._begins: dict[str, dict[Place, int]] = defaultdict(dict)
        self._lowest: dict[str, dict[Place, int]] = defaultdict(dict)
        """By follower group, the lowest offset that came."""
        self._epochs: list[tuple[float, int]] = []
        """When each of the topic's epochs began. What is read late is still of its own."""

    def look(self) -> None:
        """Take in what the journals say by now."""
        lines = list(self._tail.new_lines())
        self._epochs += [(line[1], line[2]) for _, line in lines if line[0] == "epoch"]
        for name, line in lines:
            if line[0] == "acked":
                _, _, of_epoch, partition, offset, _, *key = line
                acked = self.acked.setdefault(of_epoch, set())
                acked.add((partition, offset))
                self.acknowledged += 1
                if key:
                    superseded = self._last_of_key.get(((of_epoch, partition), key[0]))
                    self._last_of_key[(of_epoch, partition), key[0]] = offset
                    if superseded is not None:
                        acked.discard((partition, superseded))
            elif line[0] == "out":
                group, epoch, partition, offset = self._groups_of[name], *line[3:6]
                self.came[group].add((epoch, partition, offset))
                lowest = self._lowest[group]
                lowest[epoch, partition] = min(offset, lowest.get((epoch, partition), offset))
            elif line[0] == "done":
                self.done[self._groups_of[name]].add((line[2], line[3], line[4]))
            elif line[0] == "assigned":
                self.assigned.add(self._groups_of[name])
                epoch = max((each for each in self._epochs if each[0] <= line[1]), default=(0.0, 1))[1]
                for partition, offset in line[3].items():
                    self._begins[self._groups_of[name]].setdefault((epoch, int(partition)), offset)

    def missing(
        self, epoch: int, gone_below: Mapping[Place, int], still: Collection[int] = ()
    ) -> dict[str, set[Message]]:
        """By follower group, what of the epoch is to come through and hasn't, but for partitions that stand still."""
        wanted = {
            (epoch, partition, offset)
            for partition, offset in self.acked.get(epoch, ())
            if partition not in still and offset >= gone_below.get((epoch, partition), 0)
        }
        missing: dict[str, set[Message]] = {}
        for group, came in self.came.items():
            lacks = wanted - came
            if group in self._from_the_end:
                # Until it has begun with a partition, all of that is to come. What came tells of that as well: an
                # assignment just before an epoch was noted counts for the one before.
                begins = {**self._lowest[group], **self._begins[group]}
                lacks = {each for each in lacks if each[2] >= begins.get(each[:2], 0)}
            missing[group] = lacks
        return missing
