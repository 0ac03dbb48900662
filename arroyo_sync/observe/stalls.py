"""Which partitions stand still while messages wait, since when, and whose fault it is.

Pure: what is seen and the time go in, what and why comes out.

A partition *waits* when a message is held, or when its watermark says that messages exist that the follower hasn't got.
It makes *progress* when the offset moves that it waits for. The rules, in this order:

    1. Not read by the follower (no local offset), or nothing waits: it doesn't wait.
    2. It didn't wait before: the wait begins now.
    3. The local offset is another one (messages went on; or a seek or a new assignment): progress, the wait begins now.
    4. The remote offset is higher than ever in this wait, and the gate was not open in it before: progress, likewise.
       So a leader that works through its backlog is no stall, however long the follower must wait; but one that
       crashes and starts over, again and again, is.
    5. Otherwise nothing moved and the wait goes on. Once the gate is open, it is the follower that must move, and a
       remote offset that runs further ahead is no progress.
    6. A wait that lasts for ``stalled_after`` seconds is a stall.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from arroyo_sync.core.state import PartitionKey, SynchronizedPartitionState
from arroyo_sync.observe.snapshot import PartitionSnapshot

TRANSACTION_MARKER_MESSAGES = 1
"""A transaction ends with a marker, which has an offset and is no message. So a watermark that is ahead by only this,
with nothing held, is no sign that something waits."""


class WaitsFor(Enum):
    """Who must move next."""

    LEADER = "leader"
    """Gated: a leader group must commit, or the source must learn that it did."""
    FOLLOWER = "follower"
    """Slow: messages are released, and the follower doesn't hand them on."""


@dataclass(frozen=True, slots=True)
class Wait:
    """One partition's wait, as of its last look."""

    since: float
    local_offset: int
    highest_remote: int
    """The highest remote offset in this wait, -1 if it was never known."""


@dataclass(frozen=True, slots=True)
class Stall:
    """A wait that has lasted too long."""

    topic: str
    partition: int
    waits_for: WaitsFor
    waiting_seconds: float
    local_offset: int
    remote_offset: int | None
    behind: int
    """How many messages wait, as far as is known."""
    group: str | None = None
    """The slowest leader group, if the wait is for one. ``None``: the follower is slow, or the source isn't ready."""
    group_offset: int | None = None
    """What that group published last, a *next* offset. ``None``: nothing."""

    def __str__(self) -> str:
        where = (
            f"{self.topic}[{self.partition}] has stood still for {self.waiting_seconds:.0f} s at {self.local_offset}"
        )
        if self.waits_for is WaitsFor.FOLLOWER:
            return (
                f"{where}: {self.behind} messages are released up to {self.remote_offset}, "
                "but the follower doesn't hand them on"
            )
        if self.group is None and self.remote_offset is None:
            return f"{where}: {self.behind} messages wait, and what the leaders have committed isn't known (yet)"
        if self.group is None:
            return f"{where}: {self.behind} messages wait for the leaders, which are at {self.remote_offset}"
        if self.group_offset is None:
            return f"{where}: {self.behind} messages wait for group {self.group!r}, which has published nothing"
        return f"{where}: {self.behind} messages wait for group {self.group!r}, which is at {self.group_offset}"


class StallWatch:
    """Remembers since when each partition waits. Not thread-safe.

    :param stalled_after: seconds.
    """

    def __init__(self, stalled_after: float) -> None:
        self._stalled_after = stalled_after
        self._waits: dict[PartitionKey, Wait] = {}

    def update(self, partitions: Iterable[PartitionSnapshot], now: float) -> list[Stall]:
        """The partitions that stand still, longest first. Those not given are forgotten.

        :param now: seconds, of the clock that all looks share.
        """
        waits: dict[PartitionKey, Wait] = {}
        stalls: list[Stall] = []
        for partition in partitions:
            wait = next_wait(self._waits.get(partition.key), partition, now)
            if wait is not None:
                waits[partition.key] = wait
                if now - wait.since >= self._stalled_after:
                    stalls.append(stall_of(partition, now - wait.since))
        self._waits = waits
        return sorted(stalls, key=lambda stall: -stall.waiting_seconds)


def is_waiting(partition: PartitionSnapshot) -> bool:
    """Whether messages exist that the follower hasn't got, as far as can be told."""
    if partition.held_messages:
        return True
    return (partition.gated_lag or 0) + (partition.released_lag or 0) > TRANSACTION_MARKER_MESSAGES


def next_wait(previous: Wait | None, partition: PartitionSnapshot, now: float) -> Wait | None:
    """What is left of a wait at another look. The module's docstring has the rules."""
    local = partition.local_offset
    if local is None or not is_waiting(partition):
        return None
    remote = -1 if partition.remote_offset is None else partition.remote_offset
    if previous is None or local != previous.local_offset:
        return Wait(now, local, remote)
    was_open = local < previous.highest_remote
    if remote > previous.highest_remote and not was_open:
        return Wait(now, local, remote)
    return Wait(previous.since, local, max(remote, previous.highest_remote))


def stall_of(partition: PartitionSnapshot, waiting_seconds: float) -> Stall:
    """The stall of a partition that waits, and has for so long."""
    is_slow = partition.state is SynchronizedPartitionState.LOCAL_BEHIND
    leader = None if is_slow else partition.blocked_by
    lag = partition.released_lag if is_slow else partition.gated_lag
    return Stall(
        *partition.key,
        waits_for=WaitsFor.FOLLOWER if is_slow else WaitsFor.LEADER,
        waiting_seconds=waiting_seconds,
        local_offset=partition.local_offset or 0,
        remote_offset=partition.remote_offset,
        behind=lag or 0,
        group=None if leader is None else leader.group,
        group_offset=None if leader is None else leader.published_offset,
    )
