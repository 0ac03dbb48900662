"""Every error that this package raises, under one base, each saying what to do."""

from __future__ import annotations

import time
from collections.abc import Mapping


class ArroyoSyncError(Exception):
    """The base of all errors of this package. They can be pickled, as what ends a process of a pool is."""

    def __reduce__(self) -> tuple[object, ...]:
        # By default the class would be called with the message, which isn't what every constructor takes.
        return _unpickle, (type(self), self.args), self.__dict__


def _unpickle(kind: type[ArroyoSyncError], args: tuple[object, ...]) -> ArroyoSyncError:
    error = kind.__new__(kind)
    error.args = args
    return error


class ConfigurationError(ArroyoSyncError, ValueError):
    """A setting is missing, empty or contradicts another; the message names it and what to do."""


class InvalidOffset(ArroyoSyncError, ValueError):
    """Something that can't be a Kafka offset was given for one."""


class InvalidState(ArroyoSyncError, RuntimeError):
    """A message was validated while its partition's gate is closed (any state but ``LOCAL_BEHIND``)."""

    def __init__(self, topic: str, partition: int, state: object) -> None:
        self.topic = topic
        self.partition = partition
        self.state = state
        name = getattr(state, "name", state)
        super().__init__(f"{topic}[{partition}] is {name}, not LOCAL_BEHIND: its leaders must commit more first")


class MessageNotReady(ArroyoSyncError, RuntimeError):
    """A message was validated whose offset no leader has committed yet (at or past the remote offset)."""

    def __init__(self, topic: str, partition: int, offset: int, remote_offset: int) -> None:
        self.topic = topic
        self.partition = partition
        self.offset = offset
        self.remote_offset = remote_offset
        super().__init__(
            f"{topic}[{partition}] offset {offset} is not released: the remote offset is {remote_offset}, "
            f"so offsets below {remote_offset} are"
        )


class SourceDied(ArroyoSyncError, RuntimeError):
    """The remote offset source has ended, so nothing more is released. ``__cause__`` holds why."""


class FollowerStalled(ArroyoSyncError, TimeoutError):
    """A partition stood still for too long, and ``on_stall="raise"`` was asked for. ``stall`` says which and why."""

    def __init__(self, stall: object) -> None:
        self.stall = stall
        super().__init__(str(stall))


class NotReady(ArroyoSyncError, TimeoutError):
    """The remote offset source wasn't ready in time; the message names what is missing."""


class UnexpectedMessage(ArroyoSyncError, TypeError):
    """The gate was given something that is not one message of one partition of its topic."""


class StepRejectedInPoll(ArroyoSyncError, RuntimeError):
    """A step behind the gate raised ``MessageRejected`` out of ``poll`` or ``join``.

    Arroyo allows it only out of ``submit``. Steps such as ``RunTaskInThreads`` and ``Produce`` have by then taken the
    message out of their queue, so going on would lose it: the processor ends, and reads it again when it restarts.
    """


class MalformedRecord(ArroyoSyncError, ValueError):
    """A commit-log record, or a part of one, that isn't in any known form. ``reason`` is short enough for a metric."""

    def __init__(self, reason: str, detail: str) -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(f"malformed commit-log record ({reason}): {detail}")


class BrokersUnreachable(ArroyoSyncError, ConnectionError):
    """No broker answered in time; the message holds the addresses and the last error."""


class AccessRefused(ArroyoSyncError, PermissionError):
    """Kafka refuses the login, or a permission, or the client has failed for good; see `raise_if_refused`."""


class TopicMissing(ArroyoSyncError, LookupError):
    """The data topic doesn't exist, or not any more."""


class TopicRecreated(ArroyoSyncError, RuntimeError):
    """The data topic was deleted and created again while the follower was running, so the follower ends.

    Nothing more is released or committed. With the flow control, the follower's group begins on the new topic where
    ``auto.offset.reset`` says, so with ``earliest`` a restart reads it all.
    """

    def __init__(self, topic: str, previous_id: str, topic_id: str) -> None:
        self.topic = topic
        self.previous_id = previous_id
        self.topic_id = topic_id
        super().__init__(
            f"topic {topic!r} was deleted and created again (its id was {previous_id} and is {topic_id}). "
            "Restart the follower, and every leader that was running meanwhile"
        )


class PartitionTruncated(ArroyoSyncError, RuntimeError):
    """Partitions of the data topic lost messages that the follower had read, or may have, so the follower ends.

    What takes their place has the same offsets: what is held of them would go downstream in its stead, and what the
    follower has committed would skip it. Nothing more is released or committed. With the flow control, the follower's
    group goes on where each of them ends now, or up to three minutes before, but no later than it has committed, so a
    restart reads what has come there.

    :param ends: by partition, where it ended as that was noticed. It was truncated there or before: it grows.
    :param read_to: by partition, the offset after the last message that was read, or where reading began.
    :ivar noticed_at: Unix seconds.
    """

    def __init__(self, topic: str, ends: Mapping[int, int], read_to: Mapping[int, int]) -> None:
        self.topic = topic
        self.ends = dict(ends)
        self.read_to = dict(read_to)
        self.noticed_at = time.time()
        lost = [each for each in ends if read_to[each] > ends[each]]
        first = min(lost or ends)
        how = "though it was read to" if lost else "having reached further, and was read to"
        more = f" (and {len(ends) - 1} more were truncated)" if len(ends) > 1 else ""
        super().__init__(
            f"{topic}[{first}] ends at {ends[first]}, {how} {read_to[first]}{more}: it was truncated, as by an unclean "
            f"election{'' if lost else ', and what was read may be gone'}. Restart the follower, and every leader that "
            "was running meanwhile"
        )


class AnotherCluster(ConfigurationError):
    """An address leads to another cluster than before, as after a failover, so the follower ends.

    What the follower has read isn't there, though a topic of that name is. Nothing more is released or committed, and
    what its group has committed there is left as it is.
    """

    def __init__(self, before: str, now: str) -> None:
        self.before = before
        self.now = now
        super().__init__(
            f"the brokers that the source asks about the data topic were of the cluster {before!r} and are of {now!r} "
            "now, where a topic of that name is another one. Was an address pointed to another cluster? The group's "
            "offsets are left as they are: see to those of the cluster that the follower is to read, and restart it"
        )


WHAT_WAS_READ_IS_GONE = (TopicRecreated, PartitionTruncated, AnotherCluster)
"""After these nothing more is committed but where the follower's group is to begin, if that is known."""


class CommitLogMissing(ArroyoSyncError, LookupError):
    """The commit-log topic doesn't exist, or not any more."""
