"""Partitions that a follower reads, and of which the brokers have answered all that is to be known."""

from __future__ import annotations

from arroyo_sync.core.state import PartitionKey
from arroyo_sync.kafka.asker import PartitionRange
from arroyo_sync.leaders.leader_offsets import LeaderOffsets

FAR = 10**15
"""Where such a partition ends: further than any test goes."""


def read_without_end(offsets: LeaderOffsets, *keys: PartitionKey) -> None:
    """Assign the partitions: whatever is published of them is verified."""
    offsets.assign(dict.fromkeys(keys))
    offsets.apply_answers(dict.fromkeys(keys, PartitionRange(0, FAR)), offsets.begin_question(keys), {})
