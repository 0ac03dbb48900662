"""Which member of a follower group has a partition, and when none has, as their journals say.

Under KIP-848 a partition may be nobody's for long though members live. librdkafka (2.16.0) gives a heartbeat up that
isn't answered within the heartbeat's interval, as while a replica of the offsets' topic is down. If the answer was a
new assignment, the group's coordinator takes it for told, and says it again only to a request that says all, which
librdkafka doesn't send then. So a member keeps what it should give up, or doesn't take what it should have, until
``max.poll.interval.ms`` is over or another change comes. Bare consumers show it; `processes.lost_heartbeats`
knows what its log says.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple


class Member(NamedTuple):
    """What a process's journal says of what it had."""

    began_at: float
    ended_at: float
    assignments: Sequence[tuple[float, frozenset[int]]]
    """Since when, and which partitions; in order."""
    has_lost_heartbeat: bool

    def holds(self, partition: int) -> Iterator[tuple[float, float]]:
        """When it had the partition."""
        ends = [*(since for since, _ in self.assignments), self.ended_at][1:]
        for (since, partitions), until in zip(self.assignments, ends, strict=True):
            if partition in partitions and since < until:
                yield since, until


def seconds_without_owner(members: Collection[Member], partition: int, begin: float, end: float) -> float:
    """For how much of that time no member had the partition, while one lived that has lost a heartbeat."""
    at, seconds = begin, 0.0
    held = sorted(each for member in members for each in member.holds(partition))
    for since, until in [*held, (end, end)]:
        since = min(since, end)
        if at < since and any(
            each.has_lost_heartbeat and each.began_at < since and each.ended_at > at for each in members
        ):
            seconds += since - at
        at = max(at, until)
    return seconds
