"""Partitions that a follower reads, and of which the brokers have answered all that is to be known."""

from __future__ import annotations

from arroyo_sync.core.state import PartitionKey
from arroyo_sync.kafka.questions.asker import PartitionRange
from arroyo_sync.leaders.leader_offsets import LeaderOffsets

FAR = 10**15
"""Where such a partition ends: further than any test goes."""


def read_without_end(offsets: LeaderOffsets, *keys: PartitionKey) -> None:
    """Assign the partitions: whatever is published of them is verified."""
    offsets.assign(dict.fromkeys(keys))
    offsets.apply_answers(dict.fromkeys(keys, PartitionRange(0, FAR)), offsets.begin_question(keys), {})


def unassigned_remote(offsets: LeaderOffsets, key: PartitionKey) -> int | None:
    """What the remote offset of a partition would be, if it were assigned and all that was published verified."""
    row = offsets._table.row(key)
    known = [each.latest.offset for each in row if each is not None and each.latest.offset is not None]
    return min(known) if offsets._enabled and row and len(known) == len(row) else None
