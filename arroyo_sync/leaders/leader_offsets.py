"""What each leader group published of each partition, what of it is verified, and the remote offset that follows.

Pure: no Kafka, no thread, no clock.

Guarantees
    1. An assigned partition's remote offset is the minimum over all leader groups of the offset *in force*, and unknown
       while any group has none. Nothing is known until `enable` was called, nor after `disable`.
    2. What a group published is a function of the last record of each commit-log partition, not of the order in which
       those partitions were read: the one with the latest broker timestamp counts, on a tie the lowest offset.
    3. Only assigned partitions are written to the manager. Of the others it is kept what was published, no more.
    4. A published offset comes into force only when it is *verified*; `arroyo_sync.leaders.verification` has the
       rules. Until then the last verified one stays in force. `assign` begins anew: nothing is verified before the
       brokers have answered a question that was sent afterwards.
    5. An offset below the verified one (a rewind) is in force at once.
    6. An offset that is rejected makes the group unknown there until it publishes again. It never comes into force by
       itself: a topic that was created again may grow past it.
    7. An answer below what was known *before its question was sent* lowers the known end, and trust begins anew: the
       log was truncated. What was received since the question counts.
    8. Whatever moves is written to the manager before the lock is released, so the manager never falls back behind a
       later decision; at most `CHUNK` partitions under one lock, about a millisecond. The manager's callback is called
       once it is released.
    9. Where a message that the gate receives could verify an offset, `unverified` says so before the gate is woken to
       look there. So such a message is seen, whichever comes first.

Threads
    Any thread may call anything; one lock guards all. A signal handler, which may have interrupted the thread that
    holds it, may call `published`, `rejected` and `reported` alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from arroyo_sync.core.source import LeaderOffset
from arroyo_sync.core.state import PartitionKey, SynchronizedPartitionStateManager
from arroyo_sync.core.state_changes import DeliveryOnExit
from arroyo_sync.kafka.questions.asker import PartitionRange
from arroyo_sync.leaders.assigned_partitions import AssignedPartitions, Known, Question, Rejection, Truncation
from arroyo_sync.leaders.commit_report import FROM_BROKER, CommitReport
from arroyo_sync.leaders.leader_log import Rewind
from arroyo_sync.leaders.offset_table import OffsetTable, chunks
from arroyo_sync.leaders.published_offset import PublishedOffset
from arroyo_sync.leaders.verification import SUSPECT, KnownEnd, TopicId

READ_WAIT_SECONDS = 0.05
"""For how long a snapshot waits for the lock, which is held for about a millisecond. It is held for longer only if the
snapshot is a signal handler's that interrupted its holder, or one whom its holder waits for."""


class LeaderOffsets:
    """The published offsets of all leader groups in all partitions; writes remote offsets.

    :param groups: the leader groups; a report of any other may not be applied.
    """

    def __init__(self, groups: Iterable[str]) -> None:
        self._lock = threading.Lock()
        self._delivery_on_exit = DeliveryOnExit(self._deliver)
        # All below: written by any thread, under the lock.
        self._table = OffsetTable(groups)
        self._assigned = AssignedPartitions(self._table)
        self._manager: SynchronizedPartitionStateManager | None = None
        self._enabled = False
        self._rejections: list[Rejection] = []
        self.groups = self._table.groups
        self.unverified = self._assigned.unverified
        """Per assigned partition with a pending offset: which end would verify one, `MAX_OFFSET` if none would. Live;
        may be read without the lock."""

    @property
    def reported(self) -> frozenset[str]:
        """The groups that have published anything, also of what was forgotten since. Takes no lock."""
        return self._table.reported

    @property
    def epoch(self) -> int:
        """Grows with every report of an assigned partition that counts."""
        return self._assigned.epoch

    def attach(self, manager: SynchronizedPartitionStateManager) -> None:
        """Where remote offsets go, and where the gate notes what it received."""
        with self._lock:
            self._manager = manager
            manager.source_logs_rewinds = True  # see `RewindLog`
            for key, known_end in self._assigned.known_ends.items():
                known_end.cell = manager.cell(*key)

    def enable(self) -> None:
        """Everything that was published before now is known: write all remote offsets."""
        self._switch(True)

    def disable(self) -> None:
        """What is known can't be trusted for now: every remote offset becomes unknown, until `enable`."""
        self._switch(False)

    # What the groups publish.

    def apply(
        self, reports: Sequence[CommitReport], now: float, is_current: Callable[[CommitReport], bool] | None = None
    ) -> list[Rewind]:
        """Take in what the groups published, in the order of each commit-log partition.

        :param now: seconds of a monotonic clock.
        :param is_current: whether a report still counts, asked under the lock: after an `assign`, `revoke` or `forget`.
        :returns: the rewinds among them, once enabled: what lies in the past of a replay is no news.
        """
        rewinds: list[Rewind] = []
        for chunk in chunks(reports):
            with self._delivery_on_exit, self._lock:
                touched: set[PartitionKey] = set()
                for report in chunk:
                    if is_current is not None and not is_current(report):
                        continue
                    published_offset, previous = self._table.take(report, now)
                    latest = published_offset.latest
                    if latest is previous or (published_offset.is_rejected and latest.repeats(previous)):
                        continue
                    self._assigned.check(report.key, published_offset)
                    touched.add(report.key)
                    if previous is None or previous.offset is None or latest.offset is None or not self._enabled:
                        continue
                    if latest.offset < previous.offset:
                        rewinds.append(Rewind(report.key, report.group, previous.offset, latest.offset))
                self._settle(touched)
        return rewinds

    def seed_from_committed(self, offsets: Sequence[tuple[PartitionKey, str, int]], now: float) -> int:
        """Take the groups' committed offsets where nothing was published. Any record that follows takes their place.

        :returns: how many.
        """
        filled = 0
        for chunk in chunks(offsets):
            with self._delivery_on_exit, self._lock:
                touched: set[PartitionKey] = set()
                for key, group, offset in chunk:
                    if self._table.slot(key, group) is None:
                        report = CommitReport(key, group, offset, -1, FROM_BROKER, -1)
                        self._assigned.check(key, self._table.take(report, now).published_offset)
                        touched.add(key)
                        filled += 1
                self._settle(touched)
        return filled

    def forget_log_partition(self, log_partition: int) -> None:
        """Drop all that was read from one commit-log partition, which will be read again from its beginning."""

        def forget(key: PartitionKey) -> None:
            # Only where another report counts now: what was rejected stays so.
            for published_offset in self._table.forget_log_partition(key, log_partition):
                self._assigned.check(key, published_offset)

        self._for_each(self._keys(self._table.keys), forget)

    def ask_anew(self) -> None:
        """Trust begins anew, in all partitions: the commit log isn't the one whose ends were asked.

        One that was created anew has lower offsets: what is written to it would count as older than the answers.
        """
        self._for_each(self._keys(self._assigned_keys), self._assigned.ask_anew)

    def forget(self, keys: Iterable[PartitionKey]) -> None:
        """Drop all that was published of these partitions: their remote offsets become unknown."""
        self._for_each(list(keys), self._table.drop)

    def retain_topic(self, topic: str) -> None:
        """Drop all that was published of other topics. On the thread that applies reports."""
        self.forget([key for key in self._keys(self._table.keys) if key[0] != topic])
        with self._lock:
            self._table.recount_reported()

    # What the follower reads.

    def assign(self, cached_ends: Mapping[PartitionKey, int | None], begins: Mapping[PartitionKey, int] = {}) -> None:
        """The follower reads these partitions from now on: nothing of them is verified any more (guarantee 4).

        :param cached_ends: the partitions, with the ends that the follower's client has cached by now.
        :param begins: where in them it begins.
        """

        def assign(key: PartitionKey) -> None:
            self._assigned.remember(key)
            cell = None
            if self._manager is not None:
                cell = self._manager.cell(*key)
                cell.received = None  # on the thread that writes it
            known_end = KnownEnd(cell, cached_before=cached_ends[key], begins_at=begins.get(key))
            self._assigned.begin_trust(key, known_end)

        self._for_each(list(cached_ends), assign)

    def revoke(self, keys: Iterable[PartitionKey]) -> None:
        """The follower doesn't read these partitions any more: they leave the manager."""
        for chunk in chunks(list(keys)):
            with self._delivery_on_exit, self._lock:
                for key in chunk:
                    self._assigned.end_trust(key)
                if self._manager is not None:
                    self._manager.remove(chunk)

    def received(self, key: PartitionKey, next_offset: int) -> None:
        """The follower received the message below ``next_offset``: the partition reaches that far."""
        with self._delivery_on_exit, self._lock:
            if self._assigned.reach(key, next_offset):
                self._settle([key])

    def cached(self, ends: Mapping[PartitionKey, int | None]) -> None:
        """What the follower's client has cached as the partitions' ends.

        An end counts if it isn't the one that was cached when trust began, so that it was fetched since.
        """
        for chunk in chunks(list(ends.items())):
            with self._delivery_on_exit, self._lock:
                for key, end in chunk:
                    known_end = self._assigned.known_ends.get(key)
                    if known_end is None or end is None:
                        continue
                    if self._assigned.reach(key, known_end.fetched(end)):
                        self._settle([key])

    # What the brokers are asked.

    def assigned(self) -> list[PartitionKey]:
        """The assigned partitions."""
        return self._keys(self._assigned_keys)

    def topics(self) -> set[str]:
        """Of what topics partitions are assigned."""
        with self._lock:
            return {topic for topic, count in self._assigned.topics.items() if count}

    def unanswered(self) -> list[PartitionKey]:
        """Those that the brokers haven't answered about since trust began, or not what waits. None until `enable`."""
        return self._keys(lambda: self._assigned.unanswered if self._enabled else ())

    def unverified_partitions(self) -> list[PartitionKey]:
        """Those of them with a pending offset. None until `enable`: what a replay passes over isn't asked about."""
        return self._keys(lambda: self.unverified if self._enabled else ())

    def pending(self) -> dict[tuple[PartitionKey, str], int | None]:
        """The groups with a pending offset in them, each with what is in force there meanwhile."""
        found: dict[tuple[PartitionKey, str], int | None] = {}
        for chunk in chunks(self.unverified_partitions()):
            with self._lock:
                filled = [((key, group), each) for key in chunk for group, each in self._table.filled(key)]
                found.update({place: each.in_force for place, each in filled if each.is_pending})
        return found

    def suspects(self) -> dict[str, dict[PartitionKey, int]]:
        """Per group the partitions where its own commit would lift the suspicion, and from which offset on."""
        found: dict[str, dict[PartitionKey, int]] = {}
        for chunk in chunks(self._keys(lambda: self._assigned.suspect if self._enabled else ())):
            with self._lock:
                for key in chunk:
                    for group, each in self._table.filled(key):
                        if each.ruling is SUSPECT and each.latest.offset is not None:
                            found.setdefault(group, {})[key] = each.latest.offset
        return found

    def mark_long_suspect(self, group: str, keys: Collection[PartitionKey]) -> None:
        """The group's reports have been suspect for long: people see them as rejected, though a commit may lift it."""
        for chunk in chunks(list(keys)):
            with self._lock:
                for published_offset in filter(None, (self._table.slot(key, group) for key in chunk)):
                    published_offset.is_long_suspect = True

    def begin_question(self, keys: Collection[PartitionKey]) -> Question:
        """To be called before the brokers are asked about these partitions, and given with the answers."""
        with self._lock:
            epoch = self._assigned.epoch
        known: dict[PartitionKey, Known] = {}
        for chunk in chunks(list(keys)):
            with self._lock:
                for key in chunk:
                    if (each := self._assigned.known(key)) is not None:
                        known[key] = each
        return Question(epoch, known)

    def apply_answers(
        self, answers: Mapping[PartitionKey, PartitionRange], question: Question, log_ends: Mapping[int, int] | None
    ) -> list[Truncation]:
        """What the brokers answered. It verifies what lies below the end, and rejects what can't be.

        :param log_ends: where the commit log's partitions ended between the question's beginning and its being sent.
            ``None``: that wasn't asked, so the answer can't be the first one since trust began.
        """
        truncations: list[Truncation] = []

        def apply(key: PartitionKey) -> None:
            truncation = self._assigned.apply_answer(key, answers[key], question, log_ends)
            if truncation is not None:
                truncations.append(truncation)

        self._for_each(list(answers), apply)
        return truncations

    def apply_committed(self, group: str, committed: Mapping[PartitionKey, int | None], question: Question) -> None:
        """What the group itself has committed on the brokers: a suspicion up to there is lifted."""
        self._for_each(
            list(committed), lambda key: self._assigned.apply_committed(key, group, committed[key], question)
        )

    def set_topic_id(self, topic: str, topic_id: TopicId | None) -> None:
        """The data topic's id is known: reports with another one are rejected. ``None``: it isn't known any more."""
        self._for_each(self._keys(lambda: self._assigned.set_topic_id(topic, topic_id)), self._assigned.judge)

    def take_rejections(self) -> list[Rejection]:
        """What was rejected since the last call, each report once. Nothing of what a replay passes over."""
        with self._lock:
            rejections, self._rejections = self._rejections, []
        return rejections

    # For people.

    def published(self, keys: Collection[PartitionKey] | None = None) -> dict[PartitionKey, dict[str, LeaderOffset]]:
        """What every group published last of these partitions, as a snapshot.

        Never blocks for long, whoever calls it; see the module.

        :param keys: ``None``: the assigned ones, or all while none is assigned.
        """
        snapshot: dict[PartitionKey, dict[str, LeaderOffset]] = {}
        is_free = True
        if keys is None:
            keys = list(self._assigned.known_ends) or self._table.keys()  # CPython makes each in one step
        for chunk in chunks(list(keys)):
            is_free = is_free and self._lock.acquire(timeout=READ_WAIT_SECONDS)
            try:
                snapshot.update((key, self._table.snapshot(key)) for key in chunk if self._table.row(key))
            finally:
                if is_free:
                    self._lock.release()
        return snapshot

    def rejected(self) -> list[PartitionKey]:
        """The assigned partitions of which a group's report is rejected, or suspect. Never blocks, whoever calls it."""
        return [*self._assigned.rejected.copy(), *self._assigned.suspect.copy()]  # each in one step

    def partitions_without_report(self, group: str) -> list[PartitionKey]:
        """The assigned partitions without any record of the group, not even a tombstone. None until `enable`."""
        return self._where(self._assigned_keys, group, lambda each: each is None) if self._enabled else []

    def partitions_reported(self, group: str) -> list[PartitionKey]:
        """Those of which the group has published anything, assigned or not."""
        return self._where(self._table.keys, group, lambda each: each is not None)

    def partitions_unknown(self, group: str) -> list[PartitionKey]:
        """The assigned partitions of which the group is unknown, since it has published nothing."""
        return self._where(self._assigned_keys, group, lambda each: each is None or each.latest.offset is None)

    def _where(
        self, keys: Callable[[], Iterable[PartitionKey]], group: str, is_so: Callable[[PublishedOffset | None], bool]
    ) -> list[PartitionKey]:
        found: list[PartitionKey] = []
        for chunk in chunks(self._keys(keys)):
            with self._lock:
                found += [key for key in chunk if is_so(self._table.slot(key, group))]
        return sorted(found)

    def _assigned_keys(self) -> Iterable[PartitionKey]:
        return self._assigned.known_ends

    def _keys(self, keys: Callable[[], Iterable[PartitionKey]]) -> list[PartitionKey]:
        with self._lock:
            return list(keys())

    def _for_each(self, keys: Sequence[PartitionKey], change: Callable[[PartitionKey], object]) -> None:
        for chunk in chunks(keys):
            with self._delivery_on_exit, self._lock:
                for key in chunk:
                    change(key)
                self._settle(chunk)

    def _switch(self, enabled: bool) -> None:
        with self._lock:
            self._enabled = enabled
        self._for_each(self._keys(self._assigned_keys), lambda key: None)

    def _settle(self, keys: Iterable[PartitionKey]) -> None:
        """Bring `unverified`, the rejections and the manager up to date with these partitions. With the lock held."""
        remote_offsets: list[tuple[PartitionKey, int | None]] = []
        newly_unverified: list[PartitionKey] = []
        for key in keys:
            if key not in self._assigned.known_ends:
                continue
            remote_offset, is_newly_unverified, is_rejected = self._assigned.outcome(key)
            remote_offsets.append((key, remote_offset if self._enabled else None))
            if is_newly_unverified:
                newly_unverified.append(key)
            if is_rejected and self._enabled:
                self._rejections += self._assigned.take_rejections(key)
        if self._manager is not None and remote_offsets:
            self._manager.store_remote_offsets(remote_offsets)
            if newly_unverified:
                self._manager.wake(newly_unverified)

    def _deliver(self) -> None:
        if self._manager is not None:
            self._manager.deliver()
