"""What is known of every partition at one moment: the gate, the leaders, the two lags, and who is waited for.

Plain immutable values, with no Kafka, thread or clock in them. A follower's own (``factory.snapshot()``) knows what the
gate holds; one taken from outside (``arroyo-sync status``) knows what the groups have committed on the broker. What a
snapshot's maker can't know is ``None``.

The two lags add up to everything that the follower hasn't got yet, ``high watermark - local offset``:

    local ────── released ──────> remote ──────── gated ────────> high watermark
           released, not handed                    waits for a
           on yet: the follower                    leader
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any

from arroyo_sync.core.source import BEYOND_END, CLOCK_TOLERANCE_SECONDS, SourceStatistics
from arroyo_sync.core.state import Offsets, PartitionKey, SynchronizedPartitionState, SynchronizedPartitionStateManager

MAX_BELIEVED_SECONDS = 30 * 86_400.0
"""A message that waits isn't older: mirrored and imported messages bring timestamps of long ago, or none."""


@dataclass(frozen=True, slots=True)
class LeaderSnapshot:
    """One leader group in one partition. Offsets are *next* offsets: the group has done everything below."""

    group: str
    published_offset: int | None = None
    """What it published last. ``None``: nothing, or it took it back."""
    published_at: float | None = None
    """When that report was written (a heartbeat counts), by the broker's clock, Unix seconds."""
    age_seconds: float | None = None
    """How long ago that is."""
    record_latency_ms: float | None = None
    """How long after it was written the report was read."""
    message_latency_ms: float | None = None
    """How long after the last message that it covers was written the report was read."""
    committed_offset: int | None = None
    """What it has committed on the broker, which lags by the commit policy. ``None``: nothing, or it wasn't asked."""
    is_rejected: bool = False
    """Whether what it published can't be true of the partition: that is beyond its end, or of an earlier topic."""
    rejected_because: str | None = None
    """Why it can't, to follow "which is"; ``None``: it isn't rejected, or the partition ends before."""
    has_reported: bool = False
    """Whether it has published anything at all, of whatever partition of the topic."""

    @property
    def why_rejected(self) -> str:
        """Of one that is rejected: why, to follow "which is"."""
        return self.rejected_because or BEYOND_END


@dataclass(frozen=True, slots=True)
class NextMessage:
    """The first message that exists at or past where the follower is, as it was looked for."""

    offset: int | None
    """``None``: there is none, whatever the offsets up to the end or to `open_from` hold."""
    written_at: float | None = None
    """When it was written, by its timestamp, Unix seconds. ``None``: it has none."""
    open_from: int | None = None
    """Where a transaction begins that is open: what comes from there on isn't shown yet. ``None``: all is shown."""
    error: str | None = None
    """Why it couldn't be fetched: then nothing is known of it. ``None``: it could."""


@dataclass(frozen=True, slots=True)
class ReleaseSnapshot:
    """A moment at which held messages were released."""

    at: float
    """Unix seconds, as good as the machine's clock."""
    hold_seconds: float
    """How long the oldest of them had been held."""
    latency_seconds: float | None
    """How long after the record that released them was read. ``None``: it can't be told which record that was."""


@dataclass(frozen=True, slots=True)
class PartitionSnapshot:
    """One partition of the data topic."""

    topic: str
    partition: int
    local_offset: int | None = None
    """The next offset that goes downstream; seen from outside, the follower group's committed offset."""
    remote_offset: int | None = None
    """The next offset that the slowest leader would read: offsets below it are released. ``None``: unknown, closed."""
    low_watermark: int | None = None
    """The offset of the first record that still exists."""
    high_watermark: int | None = None
    """The offset after the last record."""
    leaders: tuple[LeaderSnapshot, ...] = ()
    held_messages: int | None = None
    has_received: bool | None = None
    """Whether a message of it has come since it was assigned. ``None``: nobody knows, as from outside."""
    held_bytes: int | None = None
    oldest_held_seconds: float | None = None
    """How long the oldest held message has been held. ``None``: nothing is."""
    is_full: bool | None = None
    """Whether the gate has paused the partition, since it holds as much as it may."""
    last_release: ReleaseSnapshot | None = None
    """The last time that held messages were released. ``None``: none were, in this assignment."""
    next_message: NextMessage | None = None
    """``None``: nobody looked for it."""
    error: str | None = None
    """Why something of this partition could not be asked. ``None``: everything could."""

    @property
    def key(self) -> PartitionKey:
        return self.topic, self.partition

    @property
    def state(self) -> SynchronizedPartitionState:
        """The state that follows from the local and the remote offset."""
        return SynchronizedPartitionStateManager.get_state_from_offsets(Offsets(self.local_offset, self.remote_offset))

    @property
    def position(self) -> int | None:
        """Where the follower is, or will begin as far as can be told: the local offset, else the low watermark."""
        return self.low_watermark if self.local_offset is None else self.local_offset

    @property
    def gated_lag(self) -> int | None:
        """How many messages exist that the follower may not have yet, since a leader hasn't committed them."""
        return self._gated_by(self.remote_offset)

    @property
    def released_lag(self) -> int | None:
        """How many messages are released, but not yet handed on (from outside: not yet committed)."""
        if self.remote_offset is None:
            return 0
        if self.position is None:
            return None
        end = self.remote_offset if self.high_watermark is None else min(self.remote_offset, self.high_watermark)
        return max(0, end - self.position)

    def gated_lag_of(self, leader: LeaderSnapshot) -> int | None:
        """How many of the messages that the follower hasn't got wait for this leader. The slowest has the most.

        All wait for one whose report can't be true, as for one that has published nothing.
        """
        return self._gated_by(None if leader.is_rejected else leader.published_offset)

    def lag_seconds(self, now: float) -> float | None:
        """How long ago the first waiting message was written. ``None``: unknown, or its timestamp can't be believed.

        One that a clock a little ahead has written counts as written now.

        :param now: Unix seconds.
        """
        written_at = None if self.next_message is None else self.next_message.written_at
        if written_at is None or not -CLOCK_TOLERANCE_SECONDS <= now - written_at <= MAX_BELIEVED_SECONDS:
            return None
        return max(0.0, now - written_at)

    @property
    def slowest_leader(self) -> LeaderSnapshot | None:
        """The leader that holds the remote offset where it is, whether or not anything waits for it.

        That is one that has published nothing, then one whose report is rejected, then the lowest offset.
        """
        return min(self.leaders, key=self._rank, default=None)

    @property
    def blocked_by(self) -> LeaderSnapshot | None:
        """The leader that messages wait for. ``None``: nothing waits for a leader, or it can't be told for which."""
        if not self.gated_lag:
            return None
        slowest = self.slowest_leader
        if slowest is None or (self.remote_offset is None and self._rank(slowest)[0] == _ORDINARY):
            return None  # none of them is to blame: the source itself isn't ready
        return slowest

    def to_json(self) -> dict[str, Any]:
        """Everything, derived values included, as JSON takes it."""
        blocked_by = self.blocked_by
        return {
            **{name: value for name, value in asdict(self).items() if name != "leaders"},
            "state": self.state.name,
            "gated_lag": self.gated_lag,
            "released_lag": self.released_lag,
            "blocked_by": None if blocked_by is None else blocked_by.group,
            "leaders": [{**asdict(leader), "gated_lag": self.gated_lag_of(leader)} for leader in self.leaders],
        }

    def _gated_by(self, offset: int | None) -> int | None:
        if self.high_watermark is None or self.position is None:
            # What is held exists, even where nobody knows how much more there is.
            is_closed = offset is None or (self.local_offset is not None and offset <= self.local_offset)
            return self.held_messages if is_closed else None
        return max(0, self.high_watermark - max(self.position, offset or 0))

    def _rank(self, leader: LeaderSnapshot) -> tuple[int, int, str]:
        offset = leader.published_offset
        if offset is None:
            return _SILENT, 0, leader.group
        if leader.is_rejected:
            return _IMPOSSIBLE, 0, leader.group
        return _ORDINARY, offset, leader.group


_SILENT, _IMPOSSIBLE, _ORDINARY = range(3)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A follower and its leaders at one moment."""

    taken_at: float
    """Unix seconds."""
    partitions: tuple[PartitionSnapshot, ...]
    """By topic and partition."""
    source: SourceStatistics | None = None
    """What the source has done so far. ``None``: it doesn't tell, or this is seen from outside."""
    source_error: str | None = None
    """What the source died of."""
    empty_polls: int | None = None
    """How often the follower's consumer was asked for a message and had none. Not asked while everything is paused, as
    where a step rejects. ``None``: nobody counts."""
    local_offsets: int | None = None
    """The sum of the local offsets of all that is assigned, shown or not: it moves when the follower hands on messages
    of whatever partition. ``None``: nobody counts."""
    topic_id: str | None = None
    """The data topic's id, seen from outside. ``None``: the brokers don't tell it, or nobody asked."""

    def partition(self, topic: str, partition: int) -> PartitionSnapshot | None:
        """One of the partitions, if it is among them."""
        return next((each for each in self.partitions if each.key == (topic, partition)), None)

    def to_json(self) -> dict[str, Any]:
        """Everything, derived values included, as JSON takes it."""
        return {
            "taken_at": self.taken_at,
            "partitions": [each.to_json() for each in self.partitions],
            "source": None if self.source is None else _plain(self.source),
            "source_error": self.source_error,
        }


def in_order(partitions: Iterable[PartitionSnapshot]) -> tuple[PartitionSnapshot, ...]:
    """Sorted by topic and partition."""
    return tuple(sorted(partitions, key=lambda each: each.key))


def _plain(statistics: SourceStatistics) -> dict[str, Any]:
    values = {field.name: getattr(statistics, field.name) for field in fields(statistics)}
    return {
        **values,
        "malformed": dict(statistics.malformed),
        "groups_reported": sorted(statistics.groups_reported),  # JSON has no sets
    }
