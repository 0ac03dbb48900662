"""The verdict on a follower, from outside: is it all right, does it stand still, or can't it be told?

The rules are those of `observe/evaluation.py`. From outside nobody has watched, so the first look at a partition can
prove little: that a leader has stood still since its last report, or since it reported that offset first, if the commit
log still tells. Where that isn't enough, a second look shows whether anything moves.

Pure, but for `StatusCheck.check_once`, which asks the reader and blocks as it does.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any, Protocol

from arroyo_sync.core.state import PartitionKey
from arroyo_sync.observe.evaluation import evaluate, groups_without_report, is_unfetched, proven_since
from arroyo_sync.observe.snapshot import NextMessage, PartitionSnapshot, Snapshot
from arroyo_sync.observe.stalls import Stall, WaitsFor
from arroyo_sync.observe.verdict import Grade, Verdict, worst, worst_first
from arroyo_sync.observe.waits import NO_WAITS, WAITING_AFTER_SECONDS, Limits, Waits
from arroyo_sync.status.answers.doubts import (
    committed_unreported,
    has_committed_nothing,
    is_seen,
    never_reported,
    unheard,
    unseen_for_long,
    without_blame,
    without_follower,
)
from arroyo_sync.status.answers.log_records import GroupsOnLog, Repeated
from arroyo_sync.status.members import Members

Reported = Mapping[tuple[PartitionKey, str], Repeated]
"""Of each partition and group, what it reported last, and since when."""

FETCHED_AT_ONCE = 100
"""Of how many partitions the first waiting message is fetched at once, those with the longest lag first."""
FETCH_SECONDS = 5.0
"""For how long a look goes on to fetch those of further ones."""

NAMES_SECONDS = 60.0
"""For how long it is taken as known which groups report, for which the whole commit log is read; and at least
`NAMES_TIMES` as long as that took."""
NAMES_TIMES = 10


class ExitStatus(IntEnum):
    """What the command ends with, so that it serves as a check."""

    GOING_ON = 0
    STALLED = 1
    UNKNOWN = 2
    """Something that the verdict needs couldn't be read, or an argument was wrong."""


@dataclass(frozen=True, slots=True)
class Status:
    """One look, and what it means."""

    snapshot: Snapshot
    verdicts: tuple[Verdict, ...] = ()
    """One for each partition, the worst first."""
    doubts: tuple[str, ...] = ()
    """Why it can't be told, as far as it concerns more than a partition."""

    @property
    def stalls(self) -> tuple[Stall, ...]:
        """What stands still, longest first."""
        return tuple(verdict.stall for verdict in self.verdicts if verdict.grade is Grade.STALLED)

    @property
    def grade(self) -> Grade:
        """The worst."""
        grade = worst(self.verdicts)
        return Grade.UNKNOWN if self.doubts and grade is not Grade.STALLED else grade

    @property
    def exit_status(self) -> ExitStatus:
        if self.grade is Grade.STALLED:
            return ExitStatus.STALLED
        return ExitStatus.UNKNOWN if self.grade is Grade.UNKNOWN else ExitStatus.GOING_ON

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON takes it."""
        return {
            "status": self.exit_status.name.lower(),
            "grade": self.grade.value,
            "stalls": [
                {
                    "topic": stall.topic,
                    "partition": stall.partition,
                    "waits_for": stall.waits_for.value,
                    "group": stall.group,
                    "group_offset": stall.group_offset,
                    "behind": stall.behind,
                    "waiting_seconds": stall.waiting_seconds,
                }
                for stall in self.stalls
            ],
            "verdicts": [
                {
                    "topic": verdict.topic,
                    "partition": verdict.partition,
                    "grade": verdict.grade.value,
                    "waits_for": None if verdict.waits_for is None else verdict.waits_for.value,
                    "group": verdict.group,
                    "group_offset": verdict.group_offset,
                    "behind": verdict.behind,
                    "behind_is_exact": verdict.is_exact,
                    "waiting_seconds": verdict.waiting_seconds,
                    "reason": verdict.reason,
                }
                for verdict in self.verdicts
            ],
            "doubts": list(self.doubts),
            **self.snapshot.to_json(),
        }


def with_stopped_groups(status: Status, members: Members, follower_group: str, patience: float) -> Status:
    """The same, with a doubt for each group without members for which messages wait, and of which nothing is proven.

    One call has seen of a follower, and of a leader without a commit log, no more than its two looks, and can't prove
    that it stalls. A restart leaves a group without members for a moment, too: it is told of only where a message that
    waits was found, and was written before ``patience`` seconds, or has no time.
    """
    partitions = {each.key: each for each in status.snapshot.partitions}
    waiting: dict[str, int] = {}
    for verdict in status.verdicts:
        group = _unproven(verdict, partitions[verdict.key], follower_group)
        if verdict.grade is Grade.WAITING and group is not None and members.get(group) == ():
            message = partitions[verdict.key].next_message
            is_found = message is not None and message.offset is not None
            written_at = None if message is None else message.written_at
            # One from far in the future has another unit, or none: a clock that errs does so by less.
            if is_found and (written_at is None or abs(status.snapshot.taken_at - written_at) >= patience):
                waiting[group] = waiting.get(group, 0) + verdict.behind
    doubts = (
        f"up to {behind} messages wait for group {group!r}, which has no members: it is stopped, or no consumer group"
        for group, behind in sorted(waiting.items())
    )
    return replace(status, doubts=(*status.doubts, *doubts))


def _unproven(verdict: Verdict, partition: PartitionSnapshot, follower_group: str) -> str | None:
    """The group that is waited for, unless its reports tell for how long it has stood still."""
    if verdict.waits_for is WaitsFor.FOLLOWER:
        return follower_group
    leader = partition.blocked_by
    if leader is None:
        return None
    has_committed_more = (leader.committed_offset or 0) > (leader.published_offset or 0)
    is_told = leader.published_at is not None and not has_committed_more  # else a report that is due excuses it
    return None if is_told else leader.group


class Reader(Protocol):
    """What is asked of `StatusReader`."""

    def read(self) -> Snapshot: ...
    def find_messages(self, positions: Mapping[PartitionKey, int]) -> Mapping[PartitionKey, NextMessage]: ...
    def groups_on_log(self) -> GroupsOnLog: ...
    def reported_since(self, since: float) -> Reported: ...


@dataclass(frozen=True, slots=True)
class _Found:
    """The first waiting message of a partition, and what was known when it was looked for."""

    message: NextMessage
    position: int
    """Where the follower was."""
    end: int | None
    topic_id: str | None


class StatusCheck:
    """Looks, once or again and again. Not thread-safe.

    :param follower_group: for messages.
    :param stalled_after: seconds.
    :param look_again: after how many seconds the second look is taken, if it is needed. Longer than the leaders and the
        follower take from one commit to the next.
    :param clock: monotonic seconds.
    """

    def __init__(
        self,
        reader: Reader,
        follower_group: str,
        stalled_after: float,
        look_again: float,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reader = reader
        self._follower_group = follower_group
        self._first_limits = Limits(stalled_after, min(WAITING_AFTER_SECONDS, stalled_after))
        # What didn't move from one look to the next waits.
        self._limits = Limits(stalled_after, min(WAITING_AFTER_SECONDS, look_again, stalled_after))
        self._look_again = look_again
        self._sleep = sleep
        self._clock = clock
        self._waits: Waits | None = None
        self._told: Collection[PartitionKey] = ()
        """The partitions of which the last look told how they stand."""
        self._unproven: set[PartitionKey] = set()
        """The partitions of which the commit log's end didn't tell at the last look since when its leader stands."""
        self._found: dict[PartitionKey, _Found] = {}
        # The groups that report, and until when that counts.
        self._names = GroupsOnLog(())
        self._names_until = -math.inf

    def use(self, reader: Reader) -> None:
        """Ask this reader from now on; what was seen before counts as ever."""
        self._reader = reader

    def check_once(self) -> Status:
        """Look now. Blocks, also for ``look_again`` seconds at the first time, if something may stand still."""
        snapshot = self._read()
        proven = self._proven(snapshot)
        if self._waits is None:
            verdicts, waits = evaluate(snapshot, NO_WAITS, snapshot.taken_at, self._first_limits, proven)
            self._waits = waits
            unseen = {each.key for each in snapshot.partitions if _lag(each) and not is_seen(each, snapshot.taken_at)}
            unseen |= self._unproven
            may_stand_still = any(_may_stand_still(each, unseen) for each in verdicts)
            if not may_stand_still and not any(map(is_unfetched, snapshot.partitions)):
                return self._status(snapshot, verdicts)
            self._sleep(self._look_again)
            snapshot = self._read()
            proven = self._proven(snapshot, unseen)
            # What is proven only now may be older than the first look could know.
            self._waits = {
                key: wait._replace(since=min(wait.since, proven.get(key, wait.since))) for key, wait in waits.items()
            }
            verdicts, self._waits = evaluate(snapshot, self._waits, snapshot.taken_at, self._limits, proven)
            doubts = unseen_for_long(snapshot, verdicts, self._unproven)
            doubts += committed_unreported(snapshot, verdicts, self._limits.stalled_after)
            return self._status(snapshot, verdicts, doubts)
        # A watch has seen by itself since when what waits does so.
        verdicts, self._waits = evaluate(snapshot, self._waits, snapshot.taken_at, self._limits, proven)
        return self._status(snapshot, verdicts)

    def _status(self, snapshot: Snapshot, verdicts: Sequence[Verdict], more_doubts: Sequence[str] = ()) -> Status:
        doubts = [*self._doubts(snapshot), *more_doubts]
        if has_committed_nothing(snapshot):
            verdicts = worst_first(map(without_follower, verdicts))
        doubt = unheard(snapshot)
        if doubt and any(verdict.waits_for is WaitsFor.LEADER for verdict in verdicts):
            doubts.append(doubt)
            verdicts = worst_first(map(without_blame, verdicts))
        return Status(snapshot, tuple(verdicts), tuple(doubts))

    def _proven(self, snapshot: Snapshot, unseen: Collection[PartitionKey] = ()) -> dict[PartitionKey, float]:
        """Since when each partition's leader is proven to have made no progress, where no look before tells.

        :param unseen: the partitions of which the look before couldn't know since when a message waits.

        A leader whose last report is fresh may have repeated the same offset for long. Then the end of the commit log
        is read once more, and the second look shows whether it is so.
        """
        now = snapshot.taken_at
        partitions = [each for each in snapshot.partitions if each.key not in self._told or each.key in unseen]
        self._told = {each.key for each in snapshot.partitions if each.error is None}
        proven = {each.key: proven_since(each, now) for each in partitions}
        fresh = [
            each
            for each in partitions
            if (since := proven[each.key]) is not None
            and now - since < WAITING_AFTER_SECONDS
            and (each.lag_seconds(now) or 0.0) >= WAITING_AFTER_SECONDS
        ]
        self._unproven = set()
        if fresh:
            reported = self._reader.reported_since(now - self._limits.stalled_after - WAITING_AFTER_SECONDS)
            for each in fresh:
                leader = each.blocked_by
                if leader is None:
                    continue
                repeated = reported.get((each.key, leader.group))
                if repeated is None:
                    self._unproven.add(each.key)
                elif repeated.offset == leader.published_offset:
                    proven[each.key] = proven_since(each, now, repeated.since)
                    if repeated.is_older:
                        self._unproven.add(each.key)
        return {key: since for key, since in proven.items() if since is not None}

    def _read(self) -> Snapshot:
        snapshot = self._reader.read()
        lagging = [each for each in snapshot.partitions if _lag(each)]
        known = {each.key: self._found[each.key].message for each in lagging if self._is_known(each, snapshot.topic_id)}
        unknown = sorted((each for each in lagging if each.key not in known), key=_lag, reverse=True)
        ends = {each.key: each.high_watermark for each in snapshot.partitions}
        began_at = self._clock()
        for start in range(0, len(unknown), FETCHED_AT_ONCE):
            if start and self._clock() - began_at >= FETCH_SECONDS:
                break
            part = unknown[start : start + FETCHED_AT_ONCE]
            positions = {each.key: each.position for each in part if each.position is not None}
            found = self._reader.find_messages(positions)
            self._found.update(
                {
                    key: _Found(each, positions[key], ends[key], snapshot.topic_id)
                    for key, each in found.items()
                    if each.error is None
                }
            )
            known.update(found)
        no_time = NextMessage(None, error="there was no time to look for it")
        known = {each.key: no_time for each in unknown} | known
        partitions = [
            replace(each, next_message=known[each.key]) if each.key in known else each for each in snapshot.partitions
        ]
        return replace(snapshot, partitions=tuple(partitions))

    def _is_known(self, partition: PartitionSnapshot, topic_id: str | None) -> bool:
        """Whether what was found before still holds: nothing new was written, and it isn't passed yet.

        Of a topic that was created again it doesn't, nor where the follower has gone back: others may come before it.
        """
        found, position, end = self._found.get(partition.key), partition.position, partition.high_watermark
        if found is None or position is None or position < found.position:
            return False
        if None not in (topic_id, found.topic_id) and topic_id != found.topic_id:
            return False
        if found.message.offset is None:
            return end == found.end
        return position <= found.message.offset and (end is None or found.message.offset < end)

    def _doubts(self, snapshot: Snapshot) -> list[str]:
        doubts = []
        topic = snapshot.partitions[0].topic if snapshot.partitions else ""
        if has_committed_nothing(snapshot):
            doubts.append(
                f"group {self._follower_group!r} has committed nothing of {topic}: is its name right, and has it run?"
            )
        silent = sorted(groups_without_report(snapshot))
        if silent and snapshot.source is not None and snapshot.source.is_foreign:
            doubts.append("the commit log holds no commit records: is its name right, or is it another topic's?")
        elif silent:
            names = None if snapshot.source is None else self._groups_on_log()
            doubts += [never_reported(group, names) for group in silent]
        return doubts

    def _groups_on_log(self) -> GroupsOnLog:
        """The groups that report, as they were known lately."""
        began_at = self._clock()
        if began_at >= self._names_until:
            self._names = self._reader.groups_on_log()
            now = self._clock()
            self._names_until = now + max(NAMES_SECONDS, NAMES_TIMES * (now - began_at))
        return self._names


def _may_stand_still(verdict: Verdict, unseen: Collection[PartitionKey]) -> bool:
    """Whether a second look is wanted: something waits, and the first look doesn't show a leader that reports.

    :param unseen: the partitions of which it isn't known since when a message waits: the report may be a heartbeat.
    """
    if verdict.waits_for is None or verdict.grade is Grade.UNKNOWN:
        return False
    is_fresh = verdict.waiting_seconds is not None and 0 < verdict.waiting_seconds < WAITING_AFTER_SECONDS
    is_certain = is_fresh and verdict.key not in unseen
    return verdict.waits_for is WaitsFor.FOLLOWER or not is_certain or verdict.grade is Grade.STALLED


def _lag(partition: PartitionSnapshot) -> int:
    return (partition.gated_lag or 0) + (partition.released_lag or 0)
