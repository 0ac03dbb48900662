"""What one record of the commit log, or one answer of the broker, says: one type from the decoder to the offsets."""

from __future__ import annotations

from typing import NamedTuple

from arroyo_sync.core.state import PartitionKey

FROM_BROKER = -1
"""In place of a commit-log partition: the offset is the group's commit on the broker, and no record was read."""


class CommitReport(NamedTuple):
    """One group's next offset of one partition, and where that was written."""

    key: PartitionKey
    group: str
    offset: int | None
    """The next offset that the group would read; ``None``: unknown again."""
    timestamp_ms: int
    """The broker's timestamp of the record, Unix milliseconds; -1 if it has none."""
    log_partition: int
    log_offset: int
    orig_message_ts: float | None = None
    """When the message before ``offset`` was written, Unix seconds, if the record says so. For metrics alone."""
    topic_id: str | None = None
    """The id of the topic that the group read, if the record says so."""

    def repeats(self, previous: CommitReport | None) -> bool:
        """Whether the brokers were merely asked again for what the group has committed: that is no other report."""
        return (
            previous is not None
            and previous.log_partition == self.log_partition == FROM_BROKER
            and previous.offset == self.offset
        )
