"""What each leader group published of each partition, what of it is proven, and the remote offset that follows.

Pure: no Kafka, no thread, no clock.

Guarantees
    1. A partition's remote offset is the minimum over all leader groups of the offset *in force*, and unknown while
       any group has none. Nothing is known until `enable` was called, nor after `disable`.
    2. What a group published is a function of the last record of each commit-log partition, not of the order in which
       those partitions were read: the one with the latest broker timestamp counts, on a tie the lowest offset.
    3. The manager has remote offsets of assigned partitions alone. What is published of any other is kept, wakes
       nobody, and is in force for `remote` at once, since it gates nothing.
    4. For an assigned one, a published offset comes into force only when it is *proven*: the broker's partition, since
       the assignment, was seen to reach that far (the follower received a message just below, its client fetched such
       an end, or the broker was asked). Until then the last proven one stays in force. `assign` makes
       everything unverified.
    5. An offset below the proven one (a rewind) is in force at once.
    6. An offset that a later answer of the broker refutes makes the group unknown there until it publishes again. The
       refuted offset never comes into force by itself: a recreated topic may grow past it.
    7. Whatever moves is written to the manager before the lock is released, so the manager never falls back behind a
       later decision; at most `CHUNK` partitions under one lock, about a millisecond. The manager's callback is called
       once it is released.

Threads
    Any thread may call anything; one lock guards all. A signal handler, which may have interrupted the thread that
    holds it, may call `published` alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, TypeVar

from arroyo_sync.core.source import LeaderOffset
from arroyo_sync.core.state import PartitionKey, SynchronizedPartitionStateManager
from arroyo_sync.leaders.commit_report import FROM_BROKER, CommitReport
from arroyo_sync.leaders.published_offset import KnownEnd, PublishedOffset
from arroyo_sync.leaders.rewinds import Rewind

CHUNK = 100
"""How many partitions are handled under one lock: at about 5 us each, half a millisecond."""

READ_WAIT_SECONDS = 0.05
"""For how long a snapshot waits for the lock, which is held for about a millisecond. It is held for longer only if the
snapshot is a signal handler's that interrupted its holder, or one whom its holder waits for."""

T = TypeVar("T")


class OffsetBeyondEnd(NamedTuple):
    """A group published an offset beyond the partition's end."""

    key: PartitionKey
    group: str
    offset: int
    end: int


class LeaderOffsets:
    """The published offsets of all leader groups in all partitions; writes remote offsets.

    :param groups: the leader groups; a record of any other may not be applied.
    """

    def __init__(self, groups: Iterable[str]) -> None:
        self.groups = tuple(sorted(set(groups)))
        self._index = {group: index for index, group in enumerate(self.groups)}
        self._lock = threading.Lock()
        self._delivered = _Delivered(self)
        # All below: written by any thread, under the lock.
        self._manager: SynchronizedPartitionStateManager | None = None
        self._enabled = False
        # Per partition, one slot a group. A key is added and never taken away, except by `forget`.
        self._published: dict[PartitionKey, list[PublishedOffset | None]] = {}
        self._known_ends: dict[PartitionKey, KnownEnd] = {}
        self._unverified: dict[PartitionKey, int] = {}
        self._epoch = 0
        self.unverified: Mapping[PartitionKey, int] = MappingProxyType(self._unverified)
        """Per assigned partition, the lowest published offset in doubt. Live; may be read without the lock."""

    @property
    def epoch(self) -> int:
        """Grows with every doubt. Note it before the broker is asked: the answer judges what was in doubt by then."""
        with self._lock:
            return self._epoch

    def unverified_partitions(self) -> list[PartitionKey]:
        """Those to be verified. None until `enable`: what a replay passes over isn't worth a question."""
        with self._lock:
            return list(self._unverified) if self._enabled else []

    def attach(self, manager: SynchronizedPartitionStateManager) -> None:
        """Where remote offsets go, and where the gate notes what it received."""
        with self._lock:
            self._manager = manager
            for key, known_end in self._known_ends.items():
                known_end.cell = manager.cell(*key)

    def enable(self) -> None:
        """Everything that was published before now is known: write all remote offsets."""
        with self._lock:
            self._enabled = True
        self._rewrite_all()

    def disable(self) -> None:
        """What is known can't be trusted for now: every remote offset becomes unknown, until `enable`."""
        with self._lock:
            self._enabled = False
        self._rewrite_all()

    def apply(
        self, reports: Sequence[CommitReport], now: float, is_current: Callable[[CommitReport], bool] | None = None
    ) -> list[Rewind]:
        """Take in what the groups published, in the order of each commit-log partition.

        :param now: seconds of a monotonic clock.
        :param is_current: whether a report still counts, asked under the lock: after an `assign`, `revoke` or `forget`.
        :returns: the rewinds among them, once open: what lies in the past of a replay is no news.
        """
        rewinds: list[Rewind] = []
        for chunk in _chunks(reports):
            with self._delivered, self._lock:
                touched: dict[PartitionKey, list[PublishedOffset | None]] = {}
                for report in chunk:
                    if is_current is not None and not is_current(report):
                        continue
                    key, group = report.key, report.group
                    published_offsets = self._published.get(key)
                    if published_offsets is None:
                        published_offsets = self._published[key] = [None] * len(self.groups)
                    index = self._index[group]
                    published_offset = published_offsets[index]
                    if published_offset is None:
                        published_offset = published_offsets[index] = PublishedOffset(report, now)
                        previous = None
                    else:
                        previous = published_offset.latest
                        published_offset.update(report, now)
                    latest = published_offset.latest
                    if latest is previous:
                        continue
                    self._check(key, published_offset)
                    touched[key] = published_offsets
                    if previous is None or previous.offset is None or latest.offset is None or not self._enabled:
                        continue
                    if latest.offset < previous.offset:
                        rewinds.append(Rewind(key, group, previous.offset, latest.offset))
                self._settle(touched)
        return rewinds

    def seed_from_committed(self, offsets: Sequence[tuple[PartitionKey, str, int]], now: float) -> int:
        """Take the groups' committed offsets where nothing was published. Any record that follows takes their place.

        :returns: how many were taken.
        """
        filled = 0
        for chunk in _chunks(offsets):
            with self._delivered, self._lock:
                touched: dict[PartitionKey, list[PublishedOffset | None]] = {}
                for key, group, offset in chunk:
                    published_offsets = self._published.setdefault(key, [None] * len(self.groups))
                    index = self._index[group]
                    if published_offsets[index] is not None:
                        continue
                    report = CommitReport(key, group, offset, -1, FROM_BROKER, -1)
                    published_offset = published_offsets[index] = PublishedOffset(report, now)
                    self._check(key, published_offset)
                    touched[key] = published_offsets
                    filled += 1
                self._settle(touched)
        return filled

    def forget_log_partition(self, log_partition: int) -> None:
        """Drop all that was read from one commit-log partition, which will be read again from its beginning."""
        with self._lock:
            keys = list(self._published)
        for chunk in _chunks(keys):
            with self._delivered, self._lock:
                touched: dict[PartitionKey, list[PublishedOffset | None]] = {}
                for key in chunk:
                    published_offsets = self._published.get(key, [])
                    for index, published_offset in enumerate(published_offsets):
                        if published_offset is None:
                            continue
                        latest = published_offset.latest
                        if published_offset.forget(log_partition):
                            published_offsets[index] = None
                        elif published_offset.latest is not latest:
                            # Only then: what was refuted stays so.
                            self._check(key, published_offset)
                    touched[key] = published_offsets
                self._settle(touched)

    def forget(self, keys: Iterable[PartitionKey]) -> None:
        """Drop all that is known of these partitions: their remote offsets become unknown."""
        for chunk in _chunks(list(keys)):
            with self._delivered, self._lock:
                self._settle({key: [] for key in chunk if self._published.pop(key, None) is not None})

    def assign(self, cached_ends: Mapping[PartitionKey, int | None]) -> None:
        """The follower reads these partitions from now on: nothing of them is proven any more (guarantee 4).

        :param cached_ends: the partitions, with the ends that the follower's client has cached by now.
        """
        for chunk in _chunks(list(cached_ends.items())):
            with self._delivered, self._lock:
                self._epoch += 1
                for key, cached_end in chunk:
                    known_end = self._known_ends[key] = KnownEnd(self._epoch, cached_end)
                    if self._manager is not None:
                        known_end.cell = self._manager.cell(*key)
                        known_end.cell.received = None  # on the thread that writes it
                    for published_offset in self._published.get(key, ()):
                        if published_offset is not None and not published_offset.rejected:
                            published_offset.uncheck()
                            self._check(key, published_offset)
                self._settle({key: self._published.get(key, []) for key, _ in chunk})

    def revoke(self, keys: Iterable[PartitionKey]) -> None:
        """The follower doesn't read these partitions any more: the manager has no remote offset of them."""
        for chunk in _chunks(list(keys)):
            with self._delivered, self._lock:
                for key in chunk:
                    self._known_ends.pop(key, None)
                    for published_offset in self._published.get(key, ()):
                        if published_offset is not None:
                            published_offset.uncheck()
                    self._unverified.pop(key, None)
                self._write([(key, None) for key in chunk])

    def received(self, key: PartitionKey, next_offset: int) -> None:
        """The follower received the message below ``next_offset``: the partition reaches that far."""
        with self._delivered, self._lock:
            self._verify(key, next_offset)

    def cached(self, ends: Mapping[PartitionKey, int | None]) -> None:
        """What the follower's client has cached as the partitions' ends.

        An end counts if it isn't the one that was cached at the assignment, so that it was fetched since.
        """
        for chunk in _chunks(list(ends.items())):
            with self._delivered, self._lock:
                for key, end in chunk:
                    known_end = self._known_ends.get(key)
                    if known_end is not None and end is not None and end != known_end.cached_end:
                        self._verify(key, end)

    def apply_end_offsets(self, ends: Mapping[PartitionKey, int], asked: int) -> list[OffsetBeyondEnd]:
        """The broker's answer: where the partitions end. It proves what lies below, and refutes what lies beyond.

        :param asked: `number` as it was before the question was sent. What was published, and what was assigned, since
            then isn't judged: it may be younger than the answer.
        :returns: what was refuted.
        """
        rejected: list[OffsetBeyondEnd] = []
        for chunk in _chunks(list(ends.items())):
            with self._delivered, self._lock:
                for key, end in chunk:
                    known_end = self._known_ends.get(key)
                    if known_end is None or known_end.epoch > asked:
                        continue
                    self._verify(key, end)
                    published_offsets = self._published.get(key, [])
                    for group, published_offset in zip(self.groups, published_offsets, strict=False):
                        offset = None if published_offset is None else published_offset.reject(asked)
                        if offset is not None:
                            rejected.append(OffsetBeyondEnd(key, group, offset, end))
                    self._settle({key: published_offsets})
        return rejected

    def retain_topic(self, topic: str) -> None:
        """Drop all that is known of other topics. On the thread that applies reports."""
        self.forget([key for key in list(self._published) if key[0] != topic])

    def remote(self, key: PartitionKey) -> int | None:
        """The remote offset that follows now, be the partition assigned or not."""
        with self._lock:
            return self._remote(key, self._published.get(key, ()))

    def published(self) -> dict[PartitionKey, dict[str, LeaderOffset]]:
        """What every group published last of each assigned partition, as a snapshot; of all while none is assigned.

        Never blocks for long, whoever calls it; see the module.
        """
        snapshot: dict[PartitionKey, dict[str, LeaderOffset]] = {}
        is_free = True
        known = list(self._known_ends or self._published)  # which CPython makes in one step
        for chunk in _chunks([key for key in known if key in self._published]):
            is_free = is_free and self._lock.acquire(timeout=READ_WAIT_SECONDS)
            try:
                for key in chunk:
                    snapshot[key] = {
                        group: LeaderOffset(
                            published_offset.latest.offset,
                            published_offset.latest.timestamp_ms,
                            published_offset.heard_at_seconds,
                            published_offset.latest.orig_message_ts,
                            published_offset.rejected,
                        )
                        for group, published_offset in zip(self.groups, self._published.get(key, []), strict=False)
                        if published_offset is not None
                    }
            finally:
                if is_free:
                    self._lock.release()
        return snapshot

    def partitions_without_report(self, group: str) -> list[PartitionKey]:
        """The assigned partitions without any record of the group, not even a tombstone. None until `enable`."""
        return self._assigned_where(group, lambda published_offset: published_offset is None) if self._enabled else []

    def partitions_unknown(self, group: str) -> list[PartitionKey]:
        """The assigned partitions of which the group is unknown, since it has published nothing."""
        return self._assigned_where(
            group, lambda published_offset: published_offset is None or published_offset.latest.offset is None
        )

    def _assigned_where(self, group: str, is_so: Callable[[PublishedOffset | None], bool]) -> list[PartitionKey]:
        index = self._index[group]
        found: list[PartitionKey] = []
        with self._lock:
            keys = list(self._known_ends)
        for chunk in _chunks(keys):
            with self._lock:
                rows = [(key, self._published.get(key)) for key in chunk]
                found += [key for key, row in rows if is_so(None if row is None else row[index])]
        return sorted(found)

    def has_reported(self, group: str) -> bool:
        """Whether the group has published anything."""
        with self._lock:
            return any(
                published_offsets[self._index[group]] is not None for published_offsets in self._published.values()
            )

    # From here on: with the lock held.

    def _check(self, key: PartitionKey, published_offset: PublishedOffset) -> None:
        known_end = self._known_ends.get(key)
        if known_end is not None:
            self._epoch += 1
            known_end.refresh()  # mostly the follower has received what was published, and nothing needs to be asked
        published_offset.check(known_end, self._epoch)

    def _verify(self, key: PartitionKey, end: int) -> None:
        known_end = self._known_ends.get(key)
        if known_end is None or end <= known_end.end:
            return
        known_end.end = end
        lowest = self._unverified.get(key)
        if lowest is None or lowest > end:
            return
        published_offsets = self._published.get(key, [])
        for published_offset in published_offsets:
            if published_offset is not None:
                published_offset.verify(end)
        self._settle({key: published_offsets})

    def _settle(self, touched: Mapping[PartitionKey, Sequence[PublishedOffset | None]]) -> None:
        """Bring `unverified` and the manager up to date with these partitions."""
        assigned = [key for key in touched if key in self._known_ends]
        for key in assigned:
            self._update_unverified(key, touched[key])
        self._write([(key, self._remote(key, touched[key])) for key in assigned])

    def _write(self, remotes: Sequence[tuple[PartitionKey, int | None]]) -> None:
        if self._manager is not None and remotes:
            self._manager.store_remote_offsets(remotes)

    def _update_unverified(self, key: PartitionKey, published_offsets: Sequence[PublishedOffset | None]) -> None:
        known_end = self._known_ends.get(key)
        while True:
            lowest: int | None = None
            for published_offset in published_offsets:
                if (
                    published_offset is not None
                    and published_offset.pending is not None
                    and (lowest is None or published_offset.pending < lowest)
                ):
                    lowest = published_offset.pending
            if known_end is None or lowest is None:
                self._unverified.pop(key, None)
                return
            self._unverified[key] = lowest
            # The gate writes what it received, then looks for doubts; here it is the other way about. So a message that
            # proves an offset is seen on one of the two sides, whichever comes first.
            known_end.refresh()
            if known_end.end < lowest:
                return
            for published_offset in published_offsets:
                if published_offset is not None:
                    published_offset.verify(known_end.end)

    def _remote(self, key: PartitionKey, published_offsets: Sequence[PublishedOffset | None]) -> int | None:
        if not self._enabled or not published_offsets:
            return None
        is_assigned = key in self._known_ends
        remote: int | None = None
        for published_offset in published_offsets:
            in_force = None if published_offset is None else published_offset.in_force(is_assigned)
            if in_force is None:
                return None
            if remote is None or in_force < remote:
                remote = in_force
        return remote

    def _rewrite_all(self) -> None:
        """Takes the lock itself, chunk by chunk."""
        with self._lock:
            keys = list(self._known_ends)
        for chunk in _chunks(keys):
            with self._delivered, self._lock:
                self._settle({key: self._published.get(key, []) for key in chunk})


class _Delivered:
    """Stands before the lock in a ``with``: once that is released, the manager delivers what was changed under it."""

    def __init__(self, offsets: LeaderOffsets) -> None:
        self._offsets = offsets

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        manager = self._offsets._manager
        if manager is not None:
            manager.deliver()


def _chunks(items: Sequence[T]) -> Sequence[Sequence[T]]:
    return [items[start : start + CHUNK] for start in range(0, len(items), CHUNK)]
