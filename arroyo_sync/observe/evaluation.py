"""The verdict on a follower, partition by partition: all is well, it waits, it stands still, or it can't be told.

Pure: snapshots and the time go in, verdicts come out. The monitor (from inside) and ``arroyo-sync status`` (from
outside) call the same function, so the log, the metrics, Sentry, the health check and the command say the same.

A partition *waits* when a message exists that the follower hasn't passed on. It makes *progress* when the offset moves
that it waits for. The rules, of which the first that fits decides:

    1. The source has ended: UNKNOWN. The follower ends, and says why.
    2. The source isn't ready (it replays): UNKNOWN if something waits, and nobody is to blame. No wait begins or
       goes on.
    3. From outside, the follower's committed offset lies below the beginning of the partition, or beyond its end:
       STALLED at once. A follower that starts there can't.
    4. Where the partition ends, or where the follower is, can't be told: UNKNOWN. Its wait is kept for
       `Limits.stalled_after`, as that of a partition that is taken away.
    5. Nothing waits: OK, or UNKNOWN as long as a leader group has never reported at all: its name may be wrong.
    6. The partition didn't wait before: the wait begins now, or when it is proven to have begun (see `proven_since`).
    7. The local offset is another one (messages went on; or a seek or a new assignment): progress, the wait begins now.
    8. The remote offset is higher than ever in this wait, and the gate was not open in it before: progress, likewise.
       So a leader that works through its backlog is no stall, however long the follower must wait. Where the remote
       offset has gone back, "ever" begins there, so one that works through a rewind is no stall either. But if it
       falls as far once more within `Limits.stalled_after`, what came between doesn't count, nor does what comes below
       the earlier height, until it hasn't fallen for so long: a leader that crashes and starts over, again and again,
       is a stall.
    9. Otherwise nothing moved and the wait goes on. Once the gate is open, it is the follower that must move, and a
       remote offset that runs further ahead is no progress.
    10. The gate is open, nothing is buffered, and the follower's consumer asks for more and gets nothing: OK. There are
       no messages at these offsets, as far as the brokers tell the follower. But if this has lasted for
       `Limits.stalled_after`, and the partition has grown meanwhile, WAITING: a transaction that hangs, or a client
       that doesn't fetch this partition any more, looks like that.
    11. The wait has lasted for `Limits.stalled_after`: STALLED; but WAITING as long as nothing new arrives and the
       leader's group has committed the waiting messages on the brokers: it did the work, and reports it with its next
       message. Likewise WAITING as long as the gate is open, nothing is buffered, and the follower hands on messages of
       other partitions: those of this one come after them, if there are any. A step that hangs hands on none. And
       likewise, from outside, as long as a transaction is open where the first waiting message would be.
    12. It waits for a group that has never reported at all: UNKNOWN. So is it from outside, even if nothing waits,
       where a group has reported what can't be true; from inside that is a problem of its own. And so is it, from
       outside, where a single offset waits of which the message couldn't be fetched: never STALLED, and OK at progress.
    13. The wait has lasted for `Limits.waiting_after`: WAITING, else OK.

A partition that is taken away, and comes back within `Limits.stalled_after` as it was, goes on waiting: a rebalance is
no progress. Nor is it that what the gate held of it hasn't come again yet.

Offsets that hold no message (a transaction's markers, aborted messages, gaps of compaction) don't wait, as far as it
can be told. From inside, what was received and is buffered waits, and nothing else waits for a leader. From outside, a
partition whose first waiting message was looked for (`PartitionSnapshot.next_message`) waits if there is one; if nobody
looked, one offset alone is no sign that something waits; if what was looked for couldn't be fetched, it may be one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from arroyo_sync.core.source import BEYOND_END, EARLIER_TOPIC
from arroyo_sync.core.state import PartitionKey
from arroyo_sync.observe.snapshot import LeaderSnapshot, PartitionSnapshot, Snapshot
from arroyo_sync.observe.stalls import WaitsFor
from arroyo_sync.observe.verdict import Grade, Verdict, worst_first
from arroyo_sync.observe.waits import Limits, Look, Wait, Waits, next_wait, waits_still

TRANSACTION_MARKER_MESSAGES = 1
"""A transaction ends with a marker, which has an offset and is no message."""

_RECREATED = "Was the topic deleted and created again? Then restart the leader"


def rejected_advice(why: str) -> str:
    """What to do about a report that can't be true.

    :param why: `LeaderSnapshot.why_rejected`.
    """
    if why == EARLIER_TOPIC:  # by the topic's id, about which the group's offsets say nothing
        return (
            f"{_RECREATED}. If it goes on: is the topic a mirror (see FOLLOWERS.md), or on another cluster than the "
            "commit log, and CommitLogPublisher not told which, by data_configuration?"
        )
    if why == BEYOND_END:
        return f"{_RECREATED}, or reset its group's offsets"
    return (  # it is only suspect, so by its timestamp
        f"{_RECREATED}. Else wait: it is believed once the group publishes again, or has committed that far. Are the "
        "topic's timestamps not the time of writing, as of events or on a mirror? Then this comes and goes"
    )


IDLE_SECONDS = 5.0
"""Arroyo polls at least once a second; a consumer that got nothing so lately is alive and has nothing to give."""

BUSY_SECONDS = 60.0
"""A step that works on a batch may take so long, and the consumer isn't asked for anything meanwhile."""


def evaluate(
    snapshot: Snapshot,
    waits: Waits,
    now: float,
    limits: Limits,
    proven: Mapping[PartitionKey, float] = MappingProxyType({}),
) -> tuple[list[Verdict], Waits]:
    """The verdicts at this snapshot, the worst and longest first, and the waits to give with the next one.

    :param waits: what the last call returned; `NO_WAITS` at first.
    :param now: seconds, of the clock that all calls share.
    :param proven: per partition, since when it is proven that a wait makes no progress, by that clock.
    """
    never_reported = {group: _never(group, snapshot) for group in groups_without_report(snapshot)}
    told = {partition.key for partition in snapshot.partitions if partition.error is None}
    going_on = {
        key: wait for key, wait in waits.items() if key not in told and now - wait.seen_at < limits.stalled_after
    }
    look = Look(now, limits.stalled_after, snapshot.empty_polls, snapshot.local_offsets)
    verdicts: list[Verdict] = []
    for seen in snapshot.partitions:
        previous = waits.get(seen.key)
        partition = _as_before(seen, previous, now, limits)
        verdict = _before_any_wait(snapshot, partition, never_reported)
        if verdict is None:
            wait = next_wait(
                previous,
                look,
                partition.position or 0,
                partition.remote_offset,
                partition.high_watermark,
                proven.get(partition.key, now),
            )
            if partition is not seen and previous is not None:
                wait = wait._replace(seen_at=previous.seen_at)
            going_on[partition.key] = wait
            verdict = _of_wait(wait, partition, now, limits, never_reported)
        verdicts.append(verdict)
    return worst_first(verdicts), going_on


def _as_before(partition: PartitionSnapshot, wait: Wait | None, now: float, limits: Limits) -> PartitionSnapshot:
    """The same, as if it held a message, where one waited before the partition was taken away and came back."""
    position = partition.position
    if wait is None or position is None or partition.held_messages != 0 or partition.has_received is not False:
        return partition
    if _is_open(position, partition.remote_offset) or not waits_still(wait, position, now, limits.stalled_after):
        return partition
    return replace(partition, held_messages=1)


def groups_without_report(snapshot: Snapshot) -> frozenset[str]:
    """The leader groups that have reported nothing of any partition."""
    groups = {leader.group for partition in snapshot.partitions for leader in partition.leaders}
    reported = {
        leader.group
        for partition in snapshot.partitions
        for leader in partition.leaders
        if leader.has_reported or leader.published_offset is not None
    }
    return frozenset(groups - reported)


def waits_for(partition: PartitionSnapshot) -> WaitsFor | None:
    """For whom messages wait. ``None``: none do, as far as can be told."""
    position, remote = partition.position, partition.remote_offset
    if position is None:
        return None
    found = partition.next_message
    if found is not None and found.error is None:
        first = found.open_from if found.offset is None else found.offset
        if first is None:
            return None
        position = max(position, first)
        return WaitsFor.FOLLOWER if _is_open(position, remote) else WaitsFor.LEADER
    is_open = _is_open(position, remote)
    if partition.held_messages:
        return WaitsFor.FOLLOWER if is_open else WaitsFor.LEADER
    if partition.held_messages == 0:  # from inside: nothing that was received waits for a leader
        return WaitsFor.FOLLOWER if is_open and partition.released_lag else None
    if _lag(partition) <= (TRANSACTION_MARKER_MESSAGES if found is None else 0):
        return None
    return WaitsFor.FOLLOWER if is_open else WaitsFor.LEADER


def _is_open(position: int, remote_offset: int | None) -> bool:
    return remote_offset is not None and position < remote_offset


def is_unfetched(partition: PartitionSnapshot) -> bool:
    """Whether it comes down to a single message, which couldn't be fetched: if it isn't a marker, it waits."""
    found = partition.next_message
    return found is not None and found.error is not None and 0 < _lag(partition) <= TRANSACTION_MARKER_MESSAGES


def _lag(partition: PartitionSnapshot) -> int:
    return (partition.gated_lag or 0) + (partition.released_lag or 0)


def proven_since(partition: PartitionSnapshot, taken_at: float, stands_since: float | None = None) -> float | None:
    """Since when it is proven, at the first look from outside, that the leader made no progress. Unix seconds.

    That is its last report, which repeats the offset at which it stands. The message that waits may have been written
    later: its timestamp can make the wait shorter, never longer, since producers write what they like there. Of the
    follower nothing is proven: its commits have no time. Nor is anything by a report that can't be true: the partition,
    and what waits in it, may be younger.

    :param taken_at: Unix seconds of the snapshot.
    :param stands_since: when it reported that offset first, if that is known. It counts only with the time of the
        message that waits: an idle leader repeats its offset, too.
    """
    leader = partition.blocked_by
    if waits_for(partition) is not WaitsFor.LEADER or leader is None or leader.published_at is None:
        return None
    if leader.is_rejected:
        return None
    if partition.next_message is not None and partition.next_message.open_from is not None:
        return None  # the transaction may have begun this moment
    since = min(leader.published_at, taken_at)
    lag_seconds = partition.lag_seconds(taken_at)
    if lag_seconds is None:
        return since
    return max(since if stands_since is None else min(since, stands_since), taken_at - lag_seconds)


def _before_any_wait(
    snapshot: Snapshot, partition: PartitionSnapshot, never_reported: Mapping[str, str]
) -> Verdict | None:
    """The verdict where no wait begins or goes on: rules 1 to 5."""
    is_inside = partition.held_messages is not None
    local, low, high = partition.local_offset, partition.low_watermark, partition.high_watermark
    if snapshot.source_error is not None:
        return _plain(partition, Grade.UNKNOWN, f"can't be told: {snapshot.source_error}")
    if not is_inside and local is not None and low is not None and local < low:
        return _plain(partition, Grade.STALLED, CANNOT_START.format(local=local, what=f"begins at {low}"))
    if not is_inside and local is not None and high is not None and local > high:
        return _plain(partition, Grade.STALLED, CANNOT_START.format(local=local, what=f"ends at {high}"))
    if partition.error is not None:
        return _plain(partition, Grade.UNKNOWN, f"can't be told: {partition.error}")
    waits = waits_for(partition)
    if snapshot.source is not None and not snapshot.source.ready:
        if waits is None:
            return _plain(partition, Grade.OK)
        left = "" if snapshot.source.lag is None else f", {snapshot.source.lag} records to go"
        return _plain(partition, Grade.UNKNOWN, f"waits for the start: what leaders published is being read{left}")
    if partition.position is None or (high is None and not is_inside):
        what = "where the follower is" if high is not None else "where the partition ends"
        return _plain(partition, Grade.UNKNOWN, f"can't be told: {what} isn't known")
    return None if waits is not None else _where_nothing_waits(partition, never_reported)


def _where_nothing_waits(partition: PartitionSnapshot, never_reported: Mapping[str, str]) -> Verdict:
    silent = sorted(leader.group for leader in partition.leaders if leader.group in never_reported)
    if silent:
        return _plain(partition, Grade.UNKNOWN, never_reported[silent[0]])
    rejected = [leader for leader in partition.leaders if leader.is_rejected]
    if rejected and partition.held_messages is None:
        return _plain(partition, Grade.UNKNOWN, _rejected(rejected[0], partition))
    return _plain(partition, Grade.OK)


CANNOT_START = (
    "can't be read on: the follower has committed {local}, and the partition {what}. Started there, the follower ends "
    "or jumps, as auto.offset.reset says: set its group's offset (kafka-consumer-groups --reset-offsets)"
)


def _of_wait(
    wait: Wait, partition: PartitionSnapshot, now: float, limits: Limits, never_reported: Mapping[str, str]
) -> Verdict:
    """The verdict on a partition that waits: rules 10 to 13."""
    whom = waits_for(partition)
    assert whom is not None
    is_inside = partition.held_messages is not None
    leader = partition.blocked_by if whom is WaitsFor.LEADER else None
    seconds = max(0.0, now - wait.since)
    if is_unfetched(partition):
        verdict = _where_nothing_waits(partition, never_reported)
        return verdict if verdict.grade is not Grade.OK or not seconds else _unfetched(partition)
    is_idle = wait.idle_at is not None and now - wait.idle_at <= IDLE_SECONDS
    is_busy = wait.busy_at is not None and now - wait.busy_at <= min(BUSY_SECONDS, limits.stalled_after)
    has_nothing = whom is WaitsFor.FOLLOWER and partition.held_messages == 0
    is_stalled, reason = seconds >= limits.stalled_after, ""
    grade = Grade.WAITING if seconds >= limits.waiting_after else Grade.OK
    if has_nothing and is_idle:
        # What comes after a pause is on its way to the consumer for a moment.
        has_grown = is_stalled and wait.grown_at is not None and now - wait.grown_at >= IDLE_SECONDS
        grade, is_stalled = Grade.WAITING if has_grown else Grade.OK, False
        reason = GETS_NOTHING_OF_WHAT_COMES if has_grown else GETS_NOTHING
    elif has_nothing and is_busy:
        reason, is_stalled = BUSY_ELSEWHERE, False
    elif leader is not None and leader.group in never_reported:
        grade, reason = Grade.UNKNOWN, never_reported[leader.group]
    elif leader is not None and leader.is_rejected and not is_inside:
        grade, reason = Grade.UNKNOWN, _rejected(leader, partition)
    elif partition.next_message is not None and partition.next_message.open_from is not None:
        reason, is_stalled = OPEN_TRANSACTION.format(offset=partition.next_message.open_from), False
    elif leader is not None and _is_quiet(wait, partition):
        reason, is_excused = _unreported(leader, partition)
        is_stalled = is_stalled and not is_excused
    elif leader is not None and unreported_messages(leader, partition):
        reason = COMMITS_WITHOUT_REPORT.format(leader=leader)
    behind, is_exact = _behind(partition, whom)
    return Verdict(
        *partition.key,
        grade=Grade.STALLED if is_stalled else grade,
        waits_for=whom,
        group=None if leader is None else leader.group,
        group_offset=None if leader is None else leader.published_offset,
        waiting_seconds=seconds,
        behind=behind,
        is_exact=is_exact,
        local_offset=partition.position,
        remote_offset=partition.remote_offset,
        reason=reason if grade is not Grade.OK or is_stalled or is_idle else "",
    )


GETS_NOTHING = "The follower's consumer gets nothing: these offsets hold no messages, or their broker doesn't answer"
GETS_NOTHING_OF_WHAT_COMES = (
    "The partition grows, and the follower's consumer gets nothing of it: a transaction that hangs, or its client no "
    "longer fetches this partition, which a restart mends"
)
OPEN_TRANSACTION = (
    "A transaction is open from offset {offset} on, and who reads committed messages alone gets no further. If that "
    "lasts, it hangs: kafka-transactions.sh find-hanging names it, and its abort ends it"
)
BUSY_ELSEWHERE = (
    "The follower is busy with other partitions: what is here waits behind theirs, or these offsets hold no messages, "
    "or its client no longer fetches this partition, which a restart mends"
)
COMMITS_WITHOUT_REPORT = (
    "It has committed up to {leader.committed_offset} on the brokers and doesn't report it: is PublishCommitLog its "
    "last step, and the commit log the same?"
)
COMMITTED_AND_QUIET = (
    "It has committed up to {leader.committed_offset} on the brokers: either it reports these messages with its next "
    "one (as Snuba does after replacements and invalid messages), or it doesn't publish"
)
MAYBE_UNREPORTED = (
    "Nothing new has arrived since: either the leader stands still, or these are messages that it reports only with "
    "its next one (Snuba: replacements, invalid messages)"
)
MAX_UNREPORTED_MESSAGES = 10
"""So many trailing messages may be ones that a leader doesn't report before its next one."""


def _unreported(leader: LeaderSnapshot, partition: PartitionSnapshot) -> tuple[str, bool]:
    """Why a leader may not have reported the last messages of a partition, and whether that excuses it."""
    if leader.published_offset is None or leader.is_rejected:
        return "", False
    if unreported_messages(leader, partition):
        return COMMITTED_AND_QUIET.format(leader=leader), True
    behind, _ = _behind(partition, WaitsFor.LEADER)
    return (MAYBE_UNREPORTED if behind <= MAX_UNREPORTED_MESSAGES else ""), False


def _is_quiet(wait: Wait, partition: PartitionSnapshot) -> bool:
    return wait.end is not None and partition.high_watermark == wait.end


def unreported_messages(leader: LeaderSnapshot, partition: PartitionSnapshot) -> int:
    """How many of the messages that wait for its report the group has committed on the brokers, at most."""
    published, committed = leader.published_offset, leader.committed_offset
    if published is None or committed is None:
        return 0
    return max(0, committed - max(published, partition.position or 0))


def _behind(partition: PartitionSnapshot, whom: WaitsFor) -> tuple[int, bool]:
    """How many messages wait, and whether that is certain."""
    if whom is WaitsFor.LEADER and partition.held_messages is not None and not partition.is_full:
        return partition.held_messages, True
    lag = partition.gated_lag if whom is WaitsFor.LEADER else partition.released_lag
    return lag or 0, lag == 1 and partition.next_message is not None and partition.next_message.offset is not None


def _never(group: str, snapshot: Snapshot) -> str:
    if snapshot.source is None:  # from outside, without a commit log
        return f"group {group!r} has committed nothing: is its name right, and has it run?"
    return f"group {group!r} has never reported: is its name right, and does it publish?"


def _unfetched(partition: PartitionSnapshot) -> Verdict:
    why = "" if partition.next_message is None else f" ({partition.next_message.error})"
    return _plain(partition, Grade.UNKNOWN, f"can't be told: its first waiting message couldn't be fetched{why}")


def _rejected(leader: LeaderSnapshot, partition: PartitionSnapshot) -> str:
    end = f": it ends at {partition.high_watermark}" if leader.why_rejected == BEYOND_END else ""
    return (
        f"group {leader.group!r} has published {leader.published_offset}, which is {leader.why_rejected}{end}. "
        f"{rejected_advice(leader.why_rejected)}"
    )


def _plain(partition: PartitionSnapshot, grade: Grade, reason: str = "") -> Verdict:
    return Verdict(
        *partition.key,
        grade=grade,
        local_offset=partition.local_offset,
        remote_offset=partition.remote_offset,
        reason=reason,
    )
