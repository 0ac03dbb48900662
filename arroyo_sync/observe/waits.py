"""How long messages have waited in each partition, from one look to the next: rules 6 to 9 of `evaluation.py`.

Pure. A look from inside walks all partitions by their offsets alone (`follow_waits`), which takes about a microsecond
each, so that a snapshot is needed of those only that have waited for long.

Threads: none.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from arroyo_sync.core.state import PartitionKey

WAITING_AFTER_SECONDS = 15.0
"""A heartbeat and a half of a leader (`PublishCommitLog`): by then it would have said that it is alive."""


@dataclass(frozen=True, slots=True)
class Limits:
    """From when on a wait is worth saying, and a stall. Seconds."""

    stalled_after: float
    waiting_after: float = WAITING_AFTER_SECONDS


class Rewind(NamedTuple):
    """That the remote offset went back while something waited."""

    at: float
    remote: int
    """Where it went back to."""
    since: float
    """Since when it had waited by then, and `highest_remote`: what holds again if what came after it doesn't count."""
    highest_remote: int


class Wait(NamedTuple):
    """One partition's wait, as of the last look."""

    since: float
    seen_at: float
    """When something was last seen to wait there."""
    local_offset: int
    highest_remote: int
    """The highest remote offset in this wait, or since the remote offset went back; -1 if it was never known."""
    remote: int
    """The last one that was known, likewise."""
    end: int | None = None
    """Where the partition ended when the wait began, or when that was known first."""
    empty_polls: int | None = None
    """What `Snapshot.empty_polls` was at the last look."""
    idle_at: float | None = None
    """When the follower's consumer was last seen to ask and to get nothing."""
    local_offsets: int | None = None
    """What `Snapshot.local_offsets` was at the last look."""
    busy_at: float | None = None
    """When the follower was last seen to hand on messages of other partitions."""
    rewind: Rewind | None = None
    """``None``: it hasn't gone back, or not for as long as makes a stall."""
    grown_at: float | None = None
    """When the partition was first seen to end later than that."""


Waits = Mapping[PartitionKey, Wait]
NO_WAITS: Waits = MappingProxyType({})


Standing = tuple[PartitionKey, int, "int | None", "int | None", bool]
"""A partition in which messages may wait, seen from inside: its local and remote offset, the high watermark, and
whether the gate holds messages of it. A plain tuple: there may be ten thousand of them in a second."""


class Survey(NamedTuple):
    """What a look from inside reads of all partitions."""

    assigned: Sequence[PartitionKey]
    standings: Collection[Standing]
    """Those where the gate is open or holds something. In the others nothing waits."""
    rejected: Collection[PartitionKey]
    """Those of which a leader has published what can't be."""
    is_known: bool
    """Whether the source knows what was published: it is ready, and alive. Else nothing can be said of any wait."""
    empty_polls: int | None
    """As in a snapshot."""
    local_offsets: int | None = None
    """Likewise."""
    unreceived: Collection[Standing] = ()
    """Of the others those of which no message has come since they were assigned."""


class Look(NamedTuple):
    """What is the same for all partitions at one look."""

    now: float
    stalled_after: float
    empty_polls: int | None
    """As in a snapshot."""
    local_offsets: int | None
    """Likewise."""


def follow_waits(survey: Survey, waits: Waits, now: float, limits: Limits) -> tuple[Waits, set[PartitionKey]]:
    """The waits as of this survey, and which partitions have waited for so long that it is worth saying.

    The waits are those that `evaluate` would return for a snapshot of everything.
    """
    going_on: dict[PartitionKey, Wait] = {}
    look = Look(now, limits.stalled_after, survey.empty_polls, survey.local_offsets)
    if survey.is_known:
        for key, local, remote, end, has_held in survey.standings:
            # What is released beyond the end isn't there yet, as far as that is known.
            if has_held or (remote is not None and local < remote and (end is None or local < end)):
                going_on[key] = next_wait(waits.get(key), look, local, remote, end, now)
        for key, local, remote, end, _ in survey.unreceived:
            previous = waits.get(key)
            if previous is not None and waits_still(previous, local, now, limits.stalled_after):
                wait = next_wait(previous, look, local, remote, end, now)
                going_on[key] = wait._replace(seen_at=previous.seen_at)
    long = {key for key, wait in going_on.items() if now - wait.since >= limits.waiting_after}
    gone = waits.keys() - going_on.keys()
    if gone:
        gone.difference_update(survey.assigned)
        # A partition that comes back as it was goes on waiting: a rebalance is no progress.
        going_on.update((key, waits[key]) for key in gone if now - waits[key].seen_at < limits.stalled_after)
    return going_on, long


def waits_still(wait: Wait, local_offset: int, now: float, stalled_after: float) -> bool:
    """Whether what waited in a partition still does, as far as can be told: it was taken away and came back, the gate
    is shut, and no message of it has come yet. What was held then has to be fetched again.
    """
    return wait.local_offset == local_offset and now - wait.seen_at < stalled_after


def next_wait(
    previous: Wait | None, look: Look, local: int, remote: int | None, end: int | None, proven: float
) -> Wait:
    """What is left of a wait at another look.

    :param proven: since when it is proven that there is no progress, if it didn't wait before.
    """
    now, stalled_after, empty_polls, local_offsets = look
    if remote is None:
        remote = -1 if previous is None else previous.remote
    if previous is None:
        return Wait(min(now, proven), now, local, remote, remote, end, empty_polls, None, local_offsets)
    if local != previous.local_offset:
        return Wait(now, now, local, remote, remote, end, empty_polls, None, local_offsets)
    since, highest, rewind = previous.since, previous.highest_remote, previous.rewind
    if rewind is not None and now - rewind.at >= stalled_after:
        highest, rewind = min(highest, previous.remote), None
    if remote < previous.remote:
        if rewind is None:
            rewind = Rewind(now, remote, since, highest)
            highest = remote
        elif remote <= rewind.remote:  # it starts over again and again
            since, highest = rewind.since, rewind.highest_remote
            rewind = Rewind(now, remote, since, highest)
    was_open = local < highest
    if remote > highest and not was_open:
        if rewind is not None and remote > rewind.highest_remote:
            rewind = None
        return Wait(now, now, local, remote, remote, end, empty_polls, None, local_offsets, None, rewind)
    highest = max(remote, highest)
    first_end = end if previous.end is None else previous.end
    is_idle = empty_polls is not None and previous.empty_polls is not None and empty_polls > previous.empty_polls
    idle_at = now if is_idle else previous.idle_at
    is_busy = previous.local_offsets is not None and local_offsets != previous.local_offsets
    busy_at = now if is_busy else previous.busy_at
    grown_at = previous.grown_at
    if grown_at is None and end is not None and first_end is not None and end > first_end:
        grown_at = now
    return Wait(
        since, now, local, highest, remote, first_end, empty_polls, idle_at, local_offsets, busy_at, rewind, grown_at
    )


def later(waits: Waits, seconds: float) -> Waits:
    """These waits as if so much time hadn't passed."""
    if not seconds:
        return waits

    def moved(at: float | None) -> float | None:
        return None if at is None else at + seconds

    return {
        key: wait._replace(
            since=wait.since + seconds,
            seen_at=wait.seen_at + seconds,
            idle_at=moved(wait.idle_at),
            busy_at=moved(wait.busy_at),
            grown_at=moved(wait.grown_at),
            rewind=wait.rewind and wait.rewind._replace(at=wait.rewind.at + seconds, since=wait.rewind.since + seconds),
        )
        for key, wait in waits.items()
    }
