"""What really happened, noted where it happened, and whether the promises were kept.

Nothing here knows the gate, so it can't be wrong in the same way. Every event has a time of the monotonic clock: a
publication that of just before it is handed to the producer, a release that of just after the gate let the message go.
So a message that was released by right can't look early.

Threads: each event is noted by the thread that it happens on (appending to a list is atomic). `judge` comes at the end.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple


class Release(NamedTuple):
    offset: int
    at: float
    assignment: int
    """Which of the follower's assignments it was: a new one may begin again further back."""


class Publication(NamedTuple):
    next_offset: int
    at: float


@dataclass
class Journal:
    """All events, per partition."""

    groups: Sequence[str]
    """The leader groups."""
    produced: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    """The offsets that the broker has acknowledged."""
    published: dict[tuple[str, int], list[Publication]] = field(default_factory=lambda: defaultdict(list))
    """By leader group and partition."""
    released: dict[int, list[Release]] = field(default_factory=lambda: defaultdict(list))

    def count_produced(self) -> int:
        return sum(len(offsets) for offsets in list(self.produced.values()))

    def count_released(self) -> int:
        return sum(len(releases) for releases in list(self.released.values()))

    def high_watermark(self, partition: int) -> int:
        """The end of the partition, since nobody else writes to it."""
        offsets = self.produced.get(partition)
        return offsets[-1] + 1 if offsets else 0

    def published_offset(self, group: str, partition: int) -> int | None:
        publications = self.published.get((group, partition))
        return publications[-1].next_offset if publications else None


HELD_UP = 0.75
"""A message that went on so much of a stop's time after its leaders had published past it was held up by the stop. The
first one was published some moments after that began."""


@dataclass(frozen=True)
class Stop:
    """A time during which the leader of some partitions stood still."""

    who: str
    partitions: frozenset[int]
    began_at: float
    ended_at: float


@dataclass(frozen=True)
class Verdict:
    """What the summary says. All of it is counted."""

    produced: int
    released: int
    early: int
    """Released though some leader group had published no offset past it."""
    lost: int
    out_of_order: int
    latencies_ms: Sequence[float]
    """From when the last leader published the covering offset to the release, sorted."""
    waits: Mapping[int, float]
    """Per partition the longest time without a release that touches the stop, in seconds."""
    delays: Mapping[int, float]
    """Per partition the longest time of that kind from when a message's last leader published past it to its release:
    on a busy machine leaders take their time as well, for which no follower is to blame."""
    stop: Stop | None

    @property
    def broken(self) -> list[str]:
        """The promises that were broken, in words."""
        found = []
        if self.early:
            found.append(f"Safety: {self.early} messages were released before every leader had committed them")
        if self.lost:
            found.append(f"No loss: {self.lost} messages were never released")
        if self.out_of_order:
            found.append(f"Order: {self.out_of_order} messages came out of order")
        if self.stop is not None:
            longest = HELD_UP * (self.stop.ended_at - self.stop.began_at)
            stuck = [
                each for each, delay in self.delays.items() if each not in self.stop.partitions and delay > longest
            ]
            if stuck:
                found.append(f"Independence: {partitions(stuck)} waited though no leader of theirs had stopped")
        return found

    def latency_ms(self, quantile: float) -> float | None:
        if not self.latencies_ms:
            return None
        return self.latencies_ms[min(int(len(self.latencies_ms) * quantile), len(self.latencies_ms) - 1)]


def judge(journal: Journal, stop: Stop | None = None) -> Verdict:
    """Count what was promised against what happened."""
    early = out_of_order = lost = 0
    latencies: list[float] = []
    delays: dict[int, float] = {}
    for partition, releases in journal.released.items():
        covers = [_Cover(journal.published[group, partition]) for group in journal.groups]
        for release in releases:
            if not all(cover.published_at(release.at) > release.offset for cover in covers):
                early += 1
                continue
            covered_at = max(cover.first_past(release.offset) for cover in covers)
            latencies.append((release.at - covered_at) * 1000)
            if stop is not None and release.at > stop.began_at and covered_at < stop.ended_at:
                delays[partition] = max(release.at - covered_at, delays.get(partition, 0.0))
        out_of_order += sum(
            after.assignment == before.assignment and after.offset <= before.offset
            for before, after in pairwise(releases)
        )
    for partition, offsets in journal.produced.items():
        lost += len(set(offsets) - {release.offset for release in journal.released[partition]})
    return Verdict(
        produced=journal.count_produced(),
        released=journal.count_released(),
        early=early,
        lost=lost,
        out_of_order=out_of_order,
        latencies_ms=sorted(latencies),
        waits={} if stop is None else {each: _longest_wait(journal.released[each], stop) for each in journal.produced},
        delays=delays,
        stop=stop,
    )


def partitions(indexes: Iterable[int]) -> str:
    """In words: ``partition 2``, ``partitions 0, 2`` or ``partitions 0-3``."""
    listed = sorted(indexes)
    if len(listed) > 2 and listed[-1] - listed[0] == len(listed) - 1:
        return f"partitions {listed[0]}-{listed[-1]}"
    return f"partition{'s' if len(listed) != 1 else ''} {', '.join(map(str, listed))}"


class _Cover:
    """One leader group's publications of one partition."""

    def __init__(self, publications: Sequence[Publication]) -> None:
        ordered = sorted(publications, key=lambda each: each.at)
        self._times = [each.at for each in ordered]
        self._offsets = [each.next_offset for each in ordered]
        self._highest: list[int] = []
        for offset in self._offsets:
            self._highest.append(max(offset, self._highest[-1] if self._highest else 0))

    def published_at(self, time: float) -> int:
        """The offset that stood at that time."""
        index = bisect_right(self._times, time)
        return self._offsets[index - 1] if index else 0

    def first_past(self, offset: int) -> float:
        """When an offset past this one was published first."""
        return self._times[bisect_left(self._highest, offset + 1)]


def _longest_wait(releases: Sequence[Release], stop: Stop) -> float:
    """The longest time between two releases that has something in common with the stop."""
    times = [release.at for release in releases]
    waits = [after - before for before, after in pairwise(times) if after > stop.began_at and before < stop.ended_at]
    return max(waits, default=stop.ended_at - stop.began_at)
