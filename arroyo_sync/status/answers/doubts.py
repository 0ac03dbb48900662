"""Why it can't be told how a follower stands, as far as that concerns more than a partition: in words, with what to do.

Pure. Threads: none.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import replace
from difflib import get_close_matches

from arroyo_sync.core.state import PartitionKey
from arroyo_sync.observe.evaluation import MAX_UNREPORTED_MESSAGES, unreported_messages
from arroyo_sync.observe.problems import unheard_partitions
from arroyo_sync.observe.snapshot import PartitionSnapshot, Snapshot
from arroyo_sync.observe.stalls import WaitsFor
from arroyo_sync.observe.verdict import Grade, Verdict
from arroyo_sync.observe.waits import WAITING_AFTER_SECONDS
from arroyo_sync.status.answers.log_records import GroupsOnLog

SHOWN_NAMES = 10
MAYBE_MORE = "There may be more: the log couldn't be read whole in time"


def never_reported(group: str, on_log: GroupsOnLog | None) -> str:
    """Why, and what to do.

    :param on_log: the groups that have; ``None``: there is no commit log.
    """
    said = f"group {group!r} has {'committed nothing' if on_log is None else 'never reported'} of this topic"
    if re.search(r"[,;\s]", group):
        return f"{said}: are these several groups? Give --leader-group for each"
    if on_log is None:
        return f"{said}: is its name right, and has it run?"
    names, is_all = on_log
    if group in names:
        return f"group {group!r} has reported of this topic, but took that back, or (with --recent) hasn't lately"
    if not names and is_all:
        return f"{said}, and no other has: is its name right, and does it publish?"
    if not names:
        return f"{said}: is its name right, and does it publish? {MAYBE_MORE}"
    # The one that was meant may be among many.
    shown = sorted(get_close_matches(group, names, SHOWN_NAMES, cutoff=0.0))
    others = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    more = "" if is_all else f". {MAYBE_MORE}"
    return f"{said}: is its name right? These have: {', '.join(map(repr, shown))}{others}{more}"


def unheard(snapshot: Snapshot) -> str:
    """That leaders may have reported what isn't heard here; else nothing."""
    source = snapshot.source
    if source is None or source.unheard_seconds < WAITING_AFTER_SECONDS:
        return ""
    return (
        f"{unheard_partitions(source)}, so leaders may have reported: look at those brokers, and whether this command "
        "reaches them"
    )


def without_blame(verdict: Verdict) -> Verdict:
    """The same, where it isn't heard whether the leaders stand still."""
    if verdict.grade is not Grade.STALLED or verdict.waits_for is not WaitsFor.LEADER:
        return verdict
    return _untold(verdict, "part of the commit log isn't heard, so its leaders may have reported")


def has_committed_nothing(snapshot: Snapshot) -> bool:
    """Whether the follower's group has committed nothing of the topic: then nobody knows where it is."""
    return bool(snapshot.partitions) and all(
        each.local_offset is None and each.error is None for each in snapshot.partitions
    )


def without_follower(verdict: Verdict) -> Verdict:
    """The same, where it isn't known whether there is a follower that could pass anything on."""
    if verdict.waits_for is not WaitsFor.FOLLOWER:
        return verdict
    return _untold(verdict, "the follower's group has committed nothing")


def _untold(verdict: Verdict, why: str) -> Verdict:
    reason = f"can't be told: {why}"
    return replace(verdict, grade=Grade.UNKNOWN, waits_for=None, group=None, group_offset=None, reason=reason)


def unseen_for_long(snapshot: Snapshot, verdicts: Collection[Verdict], unproven: Collection[PartitionKey]) -> list[str]:
    """A doubt, where a leader repeats its offset, and it isn't known for how long a message has waited meanwhile.

    :param unproven: the partitions of which the commit log's end doesn't tell since when the leader repeats it.
    """
    partitions = {each.key: each for each in snapshot.partitions}
    count = 0
    for verdict in verdicts:
        partition = partitions[verdict.key]
        reported_at = None if partition.blocked_by is None else partition.blocked_by.published_at
        if verdict.grade is Grade.WAITING and verdict.waits_for is WaitsFor.LEADER and reported_at is not None:
            is_fresh = snapshot.taken_at - reported_at < WAITING_AFTER_SECONDS
            count += is_fresh and (not is_seen(partition, snapshot.taken_at) or verdict.key in unproven)
    if not count:
        return []
    return [
        f"for how long messages wait for a leader in {count} partition{'' if count == 1 else 's'}: the first of them "
        "couldn't be fetched in time or has no time that can be true, or the end of the commit log is too busy to "
        "tell. A --watch shows it"
    ]


def committed_unreported(snapshot: Snapshot, verdicts: Collection[Verdict], stalled_after: float) -> list[str]:
    """A doubt for each leader that has committed more than it may owe a report of, where messages waited for long.

    That nothing new arrived between two looks excuses it (rule 11); it says little if they are a few seconds apart.
    """
    partitions = {each.key: each for each in snapshot.partitions}
    messages: dict[str, int] = {}
    for verdict in verdicts:
        partition = partitions[verdict.key]
        leader, found = partition.blocked_by, partition.next_message
        is_for_long = verdict.grade is Grade.WAITING and (verdict.waiting_seconds or 0.0) >= stalled_after
        is_open = found is not None and found.open_from is not None
        if is_for_long and not is_open and verdict.waits_for is WaitsFor.LEADER and leader is not None:
            unreported = unreported_messages(leader, partition)
            if unreported > MAX_UNREPORTED_MESSAGES:
                messages[leader.group] = messages.get(leader.group, 0) + unreported
    return [
        f"whether group {group!r} reports: it has committed up to {count} messages on the brokers without a report, "
        f"the first of which has waited for longer than {stalled_after:.0f} s: is the publisher's step its last one? "
        "If nothing new arrives, it may report them with its next message: a --watch shows it"
        for group, count in sorted(messages.items())
    ]


def is_seen(partition: PartitionSnapshot, now: float) -> bool:
    """Whether it is known which message waits first, and since when, or that none does.

    :param now: Unix seconds.
    """
    found = partition.next_message
    if found is None or found.error is not None:
        return False
    return found.offset is None or partition.lag_seconds(now) is not None
