"""What each leader group published of each partition, what of it is proven, and the remote offset that follows.

Pure: no Kafka, no thread, no clock.

Guarantees
    1. A partition's remote offset is the minimum over all leader groups of the offset *in force*, and unknown while
       any group has none. Nothing is known until `open` was called, nor after `shut`.
    2. What a group published is a function of the last record of each commit-log partition, not of the order in which
       those partitions were read: the one with the latest broker timestamp counts, on a tie the lowest offset.
    3. For a partition that the follower doesn't read (not assigned), what was published is in force at once: it gates
       nothing.
    4. For an assigned one, a published offset comes into force only when it is *proven*: the broker's partition, since
       the assignment, was seen to reach that far (the follower received a message just below, its client fetched such
       an end, or the broker was asked). Until then the last proven one stays in force. `assign` makes
       everything unproven.
    5. An offset below the proven one (a rewind) is in force at once.
    6. An offset that a later answer of the broker refutes makes the group unknown there until it publishes again. The
       refuted offset never comes into force by itself: a recreated topic may grow past it.
    7. Whatever moves is written to the manager before the lock is released, so the manager never falls back behind a
       later decision; at most `CHUNK` partitions under one lock, about a millisecond.

Threads
    Any thread may call anything; one lock guards all. It is held while the manager is written, whose callback must
    therefore not call back from another thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, TypeVar

from arroyo_sync.core.source import LeaderOffset
from arroyo_sync.core.state import PartitionKey, SynchronizedPartitionStateManager
from arroyo_sync.leaders.published_offset import FROM_BROKER, Claim, Published, Statement, Trust

CHUNK = 100
"""How many partitions are handled under one lock: at about 5 us each, half a millisecond."""

T = TypeVar("T")


class Rewind(NamedTuple):
    """A group published a lower offset than before."""

    key: PartitionKey
    group: str
    previous: int
    offset: int


class Impossible(NamedTuple):
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
        # All below: written by any thread, under the lock.
        self._manager: SynchronizedPartitionStateManager | None = None
        self._open = False
        # Per partition, one slot a group. A key is added and never taken away, except by `forget`.
        self._claims: dict[PartitionKey, list[Claim | None]] = {}
        self._trust: dict[PartitionKey, Trust] = {}
        self._unproven: dict[PartitionKey, int] = {}
        self._number = 0
        self.unproven: Mapping[PartitionKey, int] = MappingProxyType(self._unproven)
        """Per assigned partition, the lowest published offset in doubt. Live; may be read without the lock."""

    @property
    def number(self) -> int:
        """Grows with every doubt. Note it before the broker is asked: the answer judges what was in doubt by then."""
        with self._lock:
            return self._number

    def doubts(self) -> list[PartitionKey]:
        """The partitions that want proof. None until `open`: what a replay passes over isn't worth a question."""
        with self._lock:
            return list(self._unproven) if self._open else []

    def attach(self, manager: SynchronizedPartitionStateManager) -> None:
        """Where remote offsets go, and where the gate notes what it received."""
        with self._lock:
            self._manager = manager
            for key, trust in self._trust.items():
                trust.cell = manager.cell(*key)

    def open(self) -> None:
        """Everything that was published before now is known: write all remote offsets."""
        with self._lock:
            self._open = True
        self._rewrite_all()

    def shut(self) -> None:
        """What is known can't be trusted for now: every remote offset becomes unknown, until `open`."""
        with self._lock:
            self._open = False
        self._rewrite_all()

    def apply(self, published: Sequence[Published], now: float) -> list[Rewind]:
        """Take in what the groups published, in the order of each commit-log partition.

        :param now: seconds of a monotonic clock.
        :returns: the rewinds among them, once open: what lies in the past of a replay is no news.
        """
        rewinds: list[Rewind] = []
        for chunk in _chunks(published):
            with self._lock:
                touched: dict[PartitionKey, list[Claim | None]] = {}
                for key, group, statement in chunk:
                    claims = self._claims.get(key)
                    if claims is None:
                        claims = self._claims[key] = [None] * len(self.groups)
                    index = self._index[group]
                    claim = claims[index]
                    if claim is None:
                        claim = claims[index] = Claim(statement, now)
                        previous = None
                    else:
                        previous = claim.said
                        claim.hear(statement, now)
                    said = claim.said
                    if said is previous:
                        continue
                    self._check(key, claim)
                    touched[key] = claims
                    if previous is None or previous.offset is None or said.offset is None or not self._open:
                        continue
                    if said.offset < previous.offset:
                        rewinds.append(Rewind(key, group, previous.offset, said.offset))
                self._settle(touched)
        return rewinds

    def fill_in(self, offsets: Sequence[tuple[PartitionKey, str, int]], now: float) -> int:
        """Take the groups' committed offsets where nothing was published. Any record that follows takes their place.

        :returns: how many were taken.
        """
        filled = 0
        for chunk in _chunks(offsets):
            with self._lock:
                touched: dict[PartitionKey, list[Claim | None]] = {}
                for key, group, offset in chunk:
                    claims = self._claims.setdefault(key, [None] * len(self.groups))
                    index = self._index[group]
                    if claims[index] is not None:
                        continue
                    claim = claims[index] = Claim(Statement(offset, -1, FROM_BROKER, -1), now)
                    self._check(key, claim)
                    touched[key] = claims
                    filled += 1
                self._settle(touched)
        return filled

    def forget_log_partition(self, log_partition: int) -> None:
        """Drop all that was read from one commit-log partition, which will be read again from its beginning."""
        with self._lock:
            keys = list(self._claims)
        for chunk in _chunks(keys):
            with self._lock:
                touched: dict[PartitionKey, list[Claim | None]] = {}
                for key in chunk:
                    claims = self._claims.get(key, [])
                    for index, claim in enumerate(claims):
                        if claim is None:
                            continue
                        said = claim.said
                        if claim.forget(log_partition):
                            claims[index] = None
                        elif claim.said is not said:
                            # Only then: what was refuted stays so.
                            self._check(key, claim)
                    touched[key] = claims
                self._settle(touched)

    def forget(self, keys: Iterable[PartitionKey]) -> None:
        """Drop all that is known of these partitions: their remote offsets become unknown."""
        for chunk in _chunks(list(keys)):
            with self._lock:
                self._settle({key: [] for key in chunk if self._claims.pop(key, None) is not None})

    def assign(self, cached_ends: Mapping[PartitionKey, int | None]) -> None:
        """The follower reads these partitions from now on: nothing of them is proven any more (guarantee 4).

        :param cached_ends: the partitions, with the ends that the follower's client has cached by now.
        """
        for chunk in _chunks(list(cached_ends.items())):
            with self._lock:
                self._number += 1
                for key, cached_end in chunk:
                    trust = self._trust[key] = Trust(self._number, cached_end)
                    if self._manager is not None:
                        trust.cell = self._manager.cell(*key)
                        trust.cell.received = None  # on the thread that writes it
                    for claim in self._claims.get(key, ()):
                        if claim is not None and not claim.refuted:
                            claim.uncheck()
                            self._check(key, claim)
                self._settle({key: self._claims.get(key, []) for key, _ in chunk})

    def revoke(self, keys: Iterable[PartitionKey]) -> None:
        """The follower doesn't read these partitions any more (guarantee 3)."""
        for chunk in _chunks(list(keys)):
            with self._lock:
                for key in chunk:
                    self._trust.pop(key, None)
                    for claim in self._claims.get(key, ()):
                        if claim is not None:
                            claim.uncheck()
                self._settle({key: self._claims.get(key, []) for key in chunk})

    def received(self, key: PartitionKey, next_offset: int) -> None:
        """The follower received the message below ``next_offset``: the partition reaches that far."""
        with self._lock:
            self._prove(key, next_offset)

    def cached(self, ends: Mapping[PartitionKey, int | None]) -> None:
        """What the follower's client has cached as the partitions' ends.

        An end counts if it isn't the one that was cached at the assignment, so that it was fetched since.
        """
        for chunk in _chunks(list(ends.items())):
            with self._lock:
                for key, end in chunk:
                    trust = self._trust.get(key)
                    if trust is not None and end is not None and end != trust.cached_end:
                        self._prove(key, end)

    def judge(self, ends: Mapping[PartitionKey, int], asked: int) -> list[Impossible]:
        """The broker's answer: where the partitions end. It proves what lies below, and refutes what lies beyond.

        :param asked: `number` as it was before the question was sent. What was published, and what was assigned, since
            then isn't judged: it may be younger than the answer.
        :returns: what was refuted.
        """
        refuted: list[Impossible] = []
        for chunk in _chunks(list(ends.items())):
            with self._lock:
                for key, end in chunk:
                    trust = self._trust.get(key)
                    if trust is None or trust.number > asked:
                        continue
                    self._prove(key, end)
                    claims = self._claims.get(key, [])
                    for group, claim in zip(self.groups, claims, strict=False):
                        offset = None if claim is None else claim.refute(asked)
                        if offset is not None:
                            refuted.append(Impossible(key, group, offset, end))
                    self._settle({key: claims})
        return refuted

    def published(self) -> dict[PartitionKey, dict[str, LeaderOffset]]:
        """What every group published last, as a snapshot."""
        snapshot: dict[PartitionKey, dict[str, LeaderOffset]] = {}
        with self._lock:
            keys = list(self._claims)
        for chunk in _chunks(keys):
            with self._lock:
                for key in chunk:
                    snapshot[key] = {
                        group: LeaderOffset(
                            claim.said.offset,
                            claim.said.timestamp_ms,
                            claim.heard_at_seconds,
                            claim.said.orig_message_ts,
                            claim.refuted,
                        )
                        for group, claim in zip(self.groups, self._claims.get(key, []), strict=False)
                        if claim is not None
                    }
        return snapshot

    def unheard(self, group: str) -> list[PartitionKey]:
        """The assigned partitions of which no record of the group was read, not even a tombstone. None until `open`."""
        return self._assigned_where(group, lambda claim: claim is None) if self._open else []

    def silent(self, group: str) -> list[PartitionKey]:
        """The assigned partitions of which the group is unknown, since it has published nothing."""
        return self._assigned_where(group, lambda claim: claim is None or claim.said.offset is None)

    def _assigned_where(self, group: str, is_so: Callable[[Claim | None], bool]) -> list[PartitionKey]:
        index = self._index[group]
        found: list[PartitionKey] = []
        with self._lock:
            keys = list(self._trust)
        for chunk in _chunks(keys):
            with self._lock:
                found += [key for key in chunk if is_so(self._claims[key][index] if key in self._claims else None)]
        return sorted(found)

    def was_heard(self, group: str) -> bool:
        """Whether the group has published anything."""
        index = self._index[group]
        with self._lock:
            return any(claims[index] is not None for claims in self._claims.values())

    # From here on: with the lock held.

    def _check(self, key: PartitionKey, claim: Claim) -> None:
        self._number += 1
        trust = self._trust.get(key)
        if trust is not None:
            trust.look()  # mostly the follower has what was published: then no doubt arises that would be laid to rest
        claim.check(trust, self._number)

    def _prove(self, key: PartitionKey, end: int) -> None:
        trust = self._trust.get(key)
        if trust is None or end <= trust.end:
            return
        trust.end = end
        lowest = self._unproven.get(key)
        if lowest is None or lowest > end:
            return
        claims = self._claims.get(key, [])
        for claim in claims:
            if claim is not None:
                claim.prove(end)
        self._settle({key: claims})

    def _settle(self, touched: Mapping[PartitionKey, Sequence[Claim | None]]) -> None:
        """Bring `unproven` and the manager up to date with these partitions."""
        for key, claims in touched.items():
            self._note_doubts(key, claims)
        if self._manager is not None:
            self._manager.set_remote_offsets([(key, self._remote(key, claims)) for key, claims in touched.items()])

    def _note_doubts(self, key: PartitionKey, claims: Sequence[Claim | None]) -> None:
        trust = self._trust.get(key)
        while True:
            lowest: int | None = None
            for claim in claims:
                if claim is not None and claim.doubted is not None and (lowest is None or claim.doubted < lowest):
                    lowest = claim.doubted
            if trust is None or lowest is None:
                self._unproven.pop(key, None)
                return
            self._unproven[key] = lowest
            # The gate writes what it received, then looks for doubts; here it is the other way about. So a message that
            # proves an offset is seen on one of the two sides, whichever comes first.
            trust.look()
            if trust.end < lowest:
                return
            for claim in claims:
                if claim is not None:
                    claim.prove(trust.end)

    def _remote(self, key: PartitionKey, claims: Sequence[Claim | None]) -> int | None:
        if not self._open or not claims:
            return None
        is_assigned = key in self._trust
        remote: int | None = None
        for claim in claims:
            in_force = None if claim is None else claim.in_force(is_assigned)
            if in_force is None:
                return None
            if remote is None or in_force < remote:
                remote = in_force
        return remote

    def _rewrite_all(self) -> None:
        """Takes the lock itself, chunk by chunk."""
        with self._lock:
            keys = list(self._claims)
        for chunk in _chunks(keys):
            with self._lock:
                self._settle({key: self._claims[key] for key in chunk if key in self._claims})


def _chunks(items: Sequence[T]) -> Sequence[Sequence[T]]:
    if 0 < len(items) <= CHUNK:
        return (items,)
    return [items[start : start + CHUNK] for start in range(0, len(items), CHUNK)]
