"""Which member of a follower group has a partition, and when none has, as their journals say.

Under KIP-848 a partition may be nobody's for long though members live. librdkafka (2.16.0) gives a heartbeat up that
isn't answered within the heartbeat's interval, as while a replica of the offsets' topic is down. If the answer was a
new assignment, the group's coordinator takes it for told, and says it again only to a request that says all, which
librdkafka doesn't send then. So a member keeps what it should give up, or doesn't take what it should have, until
``max.poll.interval.ms`` is over or another change comes. Bare consumers show it; `LOST` is what its log says.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

LOST = re.compile(r"^%\d\|[\d.]+\|REQTMOUT\|.*ConsumerGroupHeartbeatRequest in flight", re.MULTILINE)
"""A line of librdkafka's."""


def lost_heartbeats(folder: Path) -> Iterator[str]:
    """The processes of the run whose logs tell of such a heartbeat."""
    for log in sorted(folder.glob("*.log")):
        if LOST.search(log.read_text(errors="replace")):
            yield log.stem


class Member(NamedTuple):
    """What a process's journal says of what it had."""

    began_at: float
    ended_at: float
    assignments: Sequence[tuple[float, frozenset[int]]]
    """Since when, and which partitions; in order."""
    has_lost_heartbeat: bool

    def holds(self, partition: int) -> Iterator[tuple[float, float]]:
        """When it had the partition."""
        ends = [*(since for since, _ in self.assignments[1:]), self.ended_at]
        for (since, partitions), until in zip(self.assignments, ends, strict=True):
            if partition in partitions and since < until:
                yield since, until


def times_without_owner(
    members: Mapping[str, Member], partition: int, begin: float, end: float
) -> Iterator[tuple[float, float]]:
    """When in that time no member had the partition, while one lived that has lost a heartbeat."""
    at = begin
    held = sorted(each for member in members.values() for each in member.holds(partition))
    for since, until in [*held, (end, end)]:
        gap = at, min(since, end)
        is_explained = any(
            each.has_lost_heartbeat and each.began_at < gap[1] and each.ended_at > gap[0] for each in members.values()
        )
        if gap[0] < gap[1] and is_explained:
            yield gap
        at = max(at, until)
        if at >= end:
            return
