"""The verdict on a follower, from outside: is it all right, does it stand still, or can't it be told?

From outside nobody has watched, so the first look can't know what moved. It takes the age of the oldest message that
waits in each partition. If one is old enough for a stall, a second look shows whether its partition moves after all:
one that works through an old backlog does. The rules of a wait are those of `stalls.py`.

Pure, but for `StatusCheck.check_once`, which asks the reader and blocks as it does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any, Protocol

from arroyo_sync.core.state import PartitionKey
from arroyo_sync.observe.snapshot import PartitionSnapshot, Snapshot
from arroyo_sync.observe.stalls import Stall, Wait, is_waiting, next_wait, stall_of

MAX_FETCHED = 100
"""Of how many partitions the oldest waiting message is fetched, those with the longest lag first."""


class ExitStatus(IntEnum):
    """What the command ends with, so that it serves as a check."""

    GOING_ON = 0
    STALLED = 1
    UNKNOWN = 2
    """Something that the verdict needs couldn't be read, or an argument was wrong."""


@dataclass(frozen=True, slots=True)
class Status:
    """One look, and what it means."""

    snapshot: Snapshot
    stalls: tuple[Stall, ...] = ()
    """What stands still, longest first."""
    doubts: tuple[str, ...] = ()
    """Why it can't be told."""

    @property
    def exit_status(self) -> ExitStatus:
        if self.stalls:
            return ExitStatus.STALLED
        return ExitStatus.UNKNOWN if self.doubts else ExitStatus.GOING_ON

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON takes it."""
        return {
            "status": self.exit_status.name.lower(),
            "stalls": [
                {
                    "topic": stall.topic,
                    "partition": stall.partition,
                    "waits_for": stall.waits_for.value,
                    "group": stall.group,
                    "group_offset": stall.group_offset,
                    "behind": stall.behind,
                    "waiting_seconds": stall.waiting_seconds,
                }
                for stall in self.stalls
            ],
            "doubts": list(self.doubts),
            **self.snapshot.to_json(),
        }


class Reader(Protocol):
    """What is asked of `StatusReader`."""

    def read(self) -> Snapshot: ...
    def written_at(self, positions: Mapping[PartitionKey, int]) -> Mapping[PartitionKey, float]: ...


class StatusCheck:
    """Looks, once or again and again. Not thread-safe.

    :param follower_group: for messages.
    :param stalled_after: seconds.
    :param look_again: after how many seconds the second look is taken, if it is needed. Longer than the leaders and the
        follower take from one commit to the next.
    """

    def __init__(
        self,
        reader: Reader,
        follower_group: str,
        stalled_after: float,
        look_again: float,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._reader = reader
        self._follower_group = follower_group
        self._stalled_after = stalled_after
        self._look_again = look_again
        self._sleep = sleep
        self._waits: dict[PartitionKey, Wait] | None = None

    def check_once(self) -> Status:
        """Look now. Blocks, also for ``look_again`` seconds at the first time, if something may stand still."""
        snapshot = self._reader.read()
        if self._waits is None:
            self._waits = self._first_waits(snapshot)
            if any(snapshot.taken_at - wait.since >= self._stalled_after for wait in self._waits.values()):
                self._sleep(self._look_again)
                snapshot = self._reader.read()
        now = snapshot.taken_at
        seen = {partition.key: _with_position(partition) for partition in snapshot.partitions}
        waits = {key: next_wait(self._waits.get(key), partition, now) for key, partition in seen.items()}
        self._waits = {key: wait for key, wait in waits.items() if wait is not None}
        stalls = [
            stall_of(seen[key], now - wait.since)
            for key, wait in self._waits.items()
            if now - wait.since >= self._stalled_after
        ]
        stalls.sort(key=lambda stall: -stall.waiting_seconds)
        return Status(snapshot, tuple(stalls), tuple(self._doubts(snapshot)))

    def _first_waits(self, snapshot: Snapshot) -> dict[PartitionKey, Wait]:
        waiting = [_with_position(partition) for partition in snapshot.partitions if is_waiting(partition)]
        waiting.sort(key=lambda partition: -(partition.gated_lag or 0) - (partition.released_lag or 0))
        positions = {each.key: each.local_offset for each in waiting[:MAX_FETCHED] if each.local_offset is not None}
        since = self._reader.written_at(positions) if positions else {}
        waits = {each.key: next_wait(None, each, since[each.key]) for each in waiting if each.key in since}
        return {key: wait for key, wait in waits.items() if wait is not None}

    def _doubts(self, snapshot: Snapshot) -> list[str]:
        if snapshot.partitions and all(each.local_offset is None for each in snapshot.partitions):
            topic = snapshot.partitions[0].topic
            return [
                f"group {self._follower_group!r} has committed nothing of {topic}: is its name right, and has it run?"
            ]
        return []


def _with_position(partition: PartitionSnapshot) -> PartitionSnapshot:
    """Where nothing is committed, the follower will begin at the first message, as far as can be told."""
    return replace(partition, local_offset=partition.position)
