"""Takes snapshots of a running follower, and surveys, which tell only where messages may wait.

Threads: any thread may take one at any time, also in a callback, a log handler or a signal handler. It reads what the
processor's and the source's threads write, without a lock, so its parts may be of slightly different moments.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from arroyo_sync.core.errors import SourceDied
from arroyo_sync.core.source import LeaderOffset, ObservableSource, RemoteOffsetSource, SelectiveSource
from arroyo_sync.core.state import PartitionKey, SynchronizedPartitionState
from arroyo_sync.gate.partition_buffer import PartitionBuffer
from arroyo_sync.observe.snapshot import LeaderSnapshot, PartitionSnapshot, ReleaseSnapshot, Snapshot, in_order
from arroyo_sync.observe.waits import Standing, Survey

OPEN_STATE = SynchronizedPartitionState.LOCAL_BEHIND
"""In which something is released and not handed on yet."""


def take_snapshot(
    buffers: Iterable[PartitionBuffer],
    source: RemoteOffsetSource,
    ends: Mapping[PartitionKey, int],
    partitions: Collection[PartitionKey] | None = None,
    *,
    now: float,
    wall_now: float,
    empty_polls: int | None = None,
) -> Snapshot:
    """A follower's partitions, and its source. Never blocks for long.

    :param buffers: of the gate.
    :param ends: where the partitions end, as far as it is known.
    :param partitions: of these alone, which takes a `SelectiveSource`; ``None``: of all.
    :param now: seconds, of the clock that the gate and the source have.
    :param wall_now: Unix seconds.
    :param empty_polls: how often the follower's consumer had no message.
    """
    observable = source if isinstance(source, ObservableSource) else None
    groups = () if observable is None else sorted(observable.groups)
    statistics = None if observable is None else observable.statistics()
    published: Mapping[PartitionKey, Mapping[str, LeaderOffset]] = {}
    if isinstance(source, SelectiveSource):
        published = source.published(partitions)
    elif observable is not None:
        published = observable.published()
    reported = {group for of_partition in published.values() for group in of_partition}
    if statistics is not None:
        reported.update(statistics.groups_reported)
    shown = []
    local_offsets = 0
    for buffer in buffers:
        # The manager's, not the buffer's own, which passes everything that is dropped when a gate is closed.
        local_offset = buffer.cell.current[1].local
        if local_offset is None:
            continue  # revoked
        local_offsets += local_offset
        if partitions is not None and buffer.key not in partitions:
            continue
        by_group = published.get(buffer.key, {})
        leaders = [_leader(group, by_group.get(group), group in reported, now, wall_now) for group in groups]
        release = _release(buffer, by_group.values(), now, wall_now)
        shown.append(_partition(buffer, local_offset, _high_watermark(buffer, ends), leaders, release, now))
    death = death_of(source)
    return Snapshot(
        taken_at=wall_now,
        partitions=in_order(shown),
        source=statistics,
        source_error=None if death is None else str(death),
        empty_polls=empty_polls,
        local_offsets=local_offsets,
    )


def survey(
    buffers: Iterable[PartitionBuffer],
    source: SelectiveSource,
    ends: Mapping[PartitionKey, int],
    empty_polls: int | None,
) -> Survey:
    """The offsets of a follower's partitions, as far as something may wait there. Never blocks."""
    assigned: list[PartitionKey] = []
    standings: list[Standing] = []
    unreceived: list[Standing] = []
    local_offsets = 0
    for buffer in buffers:
        cell = buffer.cell
        state, (local_offset, remote_offset) = cell.current
        if local_offset is None:
            continue  # revoked
        key = cell.key
        assigned.append(key)
        local_offsets += local_offset
        has_held = bool(buffer.held)
        if has_held or state is OPEN_STATE:
            standings.append((key, local_offset, remote_offset, _high_watermark(buffer, ends), has_held))
        elif cell.received is None:
            unreceived.append((key, local_offset, remote_offset, ends.get(key), has_held))
    is_known = source.death() is None and source.statistics().ready
    return Survey(assigned, standings, source.rejected(), is_known, empty_polls, local_offsets, unreceived)


def _high_watermark(buffer: PartitionBuffer, ends: Mapping[PartitionKey, int]) -> int | None:
    """What was received exists, whatever was known when it was last asked."""
    end = ends.get(buffer.key)
    return None if end is None else max(end, buffer.cell.received or 0)


def _partition(
    buffer: PartitionBuffer,
    local_offset: int,
    high_watermark: int | None,
    leaders: list[LeaderSnapshot],
    release: ReleaseSnapshot | None,
    now: float,
) -> PartitionSnapshot:
    held_messages = len(buffer.held)
    try:
        oldest_seconds = max(0.0, now - buffer.held[0].since)
    except IndexError:
        oldest_seconds = None
    return PartitionSnapshot(
        *buffer.key,
        local_offset=local_offset,
        remote_offset=buffer.cell.remote,
        high_watermark=high_watermark,
        leaders=tuple(leaders),
        held_messages=held_messages,
        has_received=buffer.cell.received is not None,
        held_bytes=buffer.held_bytes,
        oldest_held_seconds=oldest_seconds,
        is_full=buffer.is_full,
        last_release=release,
    )


def _release(
    buffer: PartitionBuffer, published: Iterable[LeaderOffset], now: float, wall_now: float
) -> ReleaseSnapshot | None:
    release, remote = buffer.release, buffer.cell.remote
    if release is None:
        return None
    # It was released by the record that moved the remote offset to where it is, unless that came later.
    read_at = max((each.read_at_seconds for each in published if each.offset == remote), default=None)
    latency_seconds = None
    if read_at is not None and read_at <= release.at:
        # A message that came after the record didn't wait for it, but for proof.
        latency_seconds = min(release.at - read_at, release.hold_seconds)
    return ReleaseSnapshot(wall_now - (now - release.at), release.hold_seconds, latency_seconds)


def _leader(group: str, leader: LeaderOffset | None, has_reported: bool, now: float, wall_now: float) -> LeaderSnapshot:
    if leader is None:
        return LeaderSnapshot(group, has_reported=has_reported)
    read_seconds_ago = max(0.0, now - leader.read_at_seconds)
    read_at = wall_now - read_seconds_ago
    published_at = leader.published_at
    return LeaderSnapshot(
        group,
        published_offset=leader.offset,
        published_at=published_at,
        age_seconds=read_seconds_ago if published_at is None else max(0.0, wall_now - published_at),
        record_latency_ms=_milliseconds_between(published_at, read_at),
        message_latency_ms=_milliseconds_between(leader.orig_message_ts, read_at),
        is_rejected=leader.rejected,
        rejected_because=leader.rejected_because if leader.rejected else None,
        has_reported=True,
    )


def _milliseconds_between(earlier: float | None, later: float) -> float | None:
    return None if earlier is None else (later - earlier) * 1000


def death_of(source: RemoteOffsetSource) -> SourceDied | None:
    """With what the source has ended, if it has."""
    if isinstance(source, ObservableSource):
        return source.death()
    try:
        source.check()
    except SourceDied as death:
        return death
    return None
