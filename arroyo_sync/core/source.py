"""Where remote offsets come from: the contract between a source and the gate, and what a source reports of itself.

Values and protocols alone: no Kafka client, no thread. `arroyo_sync.leaders` has the sources, `arroyo_sync.testing` one
for tests.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple, Protocol, runtime_checkable

from arroyo_sync.core.checks import check_members
from arroyo_sync.core.errors import SourceDied
from arroyo_sync.core.log_throttle import mark_told
from arroyo_sync.core.state import PartitionKey, SynchronizedPartitionStateManager

BEYOND_END = "beyond the partition's end"
EARLIER_TOPIC = "of an earlier topic of that name"
"""Why a published offset can't be true of its partition, to follow "which is"."""

CLOCK_TOLERANCE_SECONDS = 60.0
"""By how much two clocks that are kept in time may differ, and then some. A timestamp further ahead can't be true."""

NOTHING_UNVERIFIED: Mapping[PartitionKey, int] = MappingProxyType({})

ENDS_AT_ONCE = 100
"""Of so many partitions a source asks the brokers at once where they end; more take turns. An answer costs some 30 us
for each."""


class HighWatermarks(Protocol):
    """The ends of partitions that a client has cached. Who may ask depends on the client behind it."""

    def cached(self, topic: str, partition: int) -> int | None:
        """The end offset that the client saw last, or ``None``. Never blocks."""
        ...


def check_source(argument: str, value: object) -> None:
    """Return if it is a `RemoteOffsetSource`, inherited or not.

    :raises ConfigurationError: it isn't.
    """
    members = ("start", "check", "stop", "assign", "revoke", "received", "unverified")
    check_members(argument, value, members, "a source of remote offsets, such as a CommitLogConsumer")


def check_follower(manager: SynchronizedPartitionStateManager, source: RemoteOffsetSource) -> None:
    """Return while nothing ends the follower. Never blocks. Called by the processor's thread.

    :raises SourceDied: the source has ended; with a monitor, it is marked as told.
    :raises Exception: what the manager was made to fail with.
    """
    manager.check()
    try:
        source.check()
    except SourceDied as death:
        if manager.has_monitor:
            mark_told(death)
        raise


class RemoteOffsetSource(Protocol):
    """What opens the gate: it writes to the state manager how far the leaders have committed.

    Only `start`, `check` and `stop` must be written. A class that inherits from this one gets the rest, which is for
    sources that recognize impossible offsets.
    """

    @property
    def unverified(self) -> Mapping[PartitionKey, int]:
        """Per assigned partition with a published offset that isn't verified yet: how far the partition must reach for
        one to be verified. Live; empty when all is well.

        The gate reads it once a message, and calls `received` when a message reaches that far. A source that adds to
        it afterwards calls ``manager.wake`` with these partitions, so that the gate compares what it has received.
        """
        return NOTHING_UNVERIFIED

    def start(self, manager: SynchronizedPartitionStateManager) -> None:
        """Begin to write remote offsets to ``manager``. Called again, it does nothing. Doesn't wait for the broker."""
        ...

    def check(self) -> None:
        """Return if the source is alive. Never blocks.

        :raises SourceDied: from its cause, when it has ended. A source that dies calls ``manager.wake()`` afterwards,
            so that the gate checks at once.
        """
        ...

    def stop(self, timeout: float) -> None:
        """End, within ``timeout`` seconds, and release all that was taken. Called again, it does nothing."""
        ...

    def subscribe(self, topic: str) -> None:
        """The follower will read this topic: a source may drop what it learns about any other. Never blocks.

        Called before `start` where the topic is known by then. It isn't for a subscription to a pattern, nor without
        the flow control: there the first assignment names it.
        """
        return

    def assign(self, positions: Mapping[PartitionKey, int], watermarks: HighWatermarks | None) -> None:
        """Trust begins anew for these partitions, which the follower reads from these positions on.

        Called on the processor's thread at an assignment and when the follower's position moved back, before anything
        of them is released. When it returns, the manager holds no remote offset of them that isn't verified. Never
        blocks.

        :param watermarks: what the follower's own client has cached. It is used only on this thread, here and in
            `refresh_known_ends`; a client lets in one thread at a time.
        """
        return

    def revoke(self, partitions: Collection[PartitionKey]) -> None:
        """The follower no longer reads these partitions. Never blocks."""
        return

    def received(self, topic: str, partition: int, next_offset: int) -> None:
        """The follower has received the message below ``next_offset``: the partition reaches that far."""
        return

    def check_topic(self, timeout: float) -> None:
        """Ask the brokers now whether the data topic is still the one that was assigned; if it isn't, have the manager
        fail with `TopicRecreated`, or with `AnotherCluster`.

        Called on the processor's thread once the pipeline's last offset of an assignment is committed: at a revocation,
        and before the consumer is closed. Blocks for two seconds more than ``timeout`` at most, or for six where the
        brokers are slow. What it raises is logged, but for `TopicMissing`: the topic was deleted, and nothing that is
        staged of it is committed any more.
        """
        return

    def check_cluster(self, cluster_id: str) -> None:
        """The follower reads the data topic from the cluster of this id (Kafka's ``cluster.id``). A source that asks
        another one about it ends: a topic of that name is another topic there.

        Called on the processor's thread, before the first assignment if the brokers answer by then. Never blocks.
        """
        return

    def refresh_known_ends(self) -> None:
        """The follower's own client may have fetched further ends. Called on the processor's thread when the gate reads
        remote offsets while something is `unverified`. Never blocks."""
        return


class LeaderOffset(NamedTuple):
    """What is known of one group in one partition, for people."""

    offset: int | None
    timestamp_ms: int
    read_at_seconds: float
    """When its last record was read, on the clock that was given to `LeaderOffsets.apply`."""
    orig_message_ts: float | None = None
    """When the message before ``offset`` was written, Unix seconds, if the record holds it."""
    rejected: bool = False
    """Whether the offset can't be true of the partition, so that the group counts as unknown there."""
    rejected_because: str | None = None
    """Why, to follow "which is"."""
    topic_id: str | None = None
    """The id of the topic that the group read, if the record holds it."""

    @property
    def published_at(self) -> float | None:
        """When its last record was written, Unix seconds. ``None``: it has no timestamp."""
        return self.timestamp_ms / 1000 if self.timestamp_ms >= 0 else None


@dataclass(frozen=True, slots=True)
class SourceStatistics:
    """What a source has done so far. Counts are since its start."""

    ready: bool
    """Whether all that was published before the start is known, so that the gate may open."""
    alive: bool
    """Whether it was started and has neither ended nor been stopped."""
    read: int = 0
    """Records of the commit log, or answers of the broker, that were read."""
    other_groups: int = 0
    """Records of groups that aren't followed: skipped."""
    other_topics: int = 0
    """Records of followed groups about other topics, or about more partitions than are kept: skipped."""
    logical: int = 0
    """Records of followed groups whose offset is a logical one: skipped."""
    tombstones: int = 0
    """Records that made a group's offset unknown again."""
    malformed: Mapping[str, int] = field(default_factory=dict)
    """Records that couldn't be read, by reason (`SkipReason`)."""
    rewinds: int = 0
    """How often a group published a lower offset than before."""
    impossible: int = 0
    """Published offsets that were rejected: beyond the end of their partition, or of an earlier topic of its name."""
    unverified: int = 0
    """Assigned partitions in which a published offset has waited for proof for long, now. For a second or so it is
    nothing: a follower that is slow has some such at any time."""
    lag: int | None = None
    """How many offsets of the commit log are still to be read, now. ``None``: unknown, or there is no commit log."""
    newest_timestamp_ms: int | None = None
    """The latest broker timestamp of any record that was read, Unix milliseconds. None of the future counts."""
    from_the_future: int = 0
    """Records with a timestamp from the future, which count as old as the record before."""
    groups_reported: Collection[str] = ()
    """The leader groups that have published something, of whatever partition."""
    groups_seen: Sequence[str] | None = None
    """The first groups that were seen on the commit log, followed or not. ``None``: there is no commit log."""
    is_foreign: bool = False
    """Whether none of the first records is a commit record: this is no commit log."""
    unheard: Sequence[int] = ()
    """The commit log's partitions of which neither a record nor a broker's answer has come for a while."""
    unheard_seconds: float = 0.0
    """For how long, of the one for which it is longest."""
    unheard_because: str = ""
    """What the client has told of its connections since, if it has."""


@runtime_checkable
class ObservableSource(Protocol):
    """A source that reports whom it follows, what it has done and what the leaders published.

    All of it may be called at any time: by any thread, a callback, a log handler, or a signal handler that interrupted
    the source itself. So it waits for no lock without a limit, and never calls `RemoteOffsetSource.check`.
    """

    @property
    def groups(self) -> Collection[str]: ...
    def death(self) -> SourceDied | None: ...
    def statistics(self) -> SourceStatistics: ...
    def published(self) -> Mapping[PartitionKey, Mapping[str, LeaderOffset]]: ...


@runtime_checkable
class SelectiveSource(ObservableSource, Protocol):
    """A source that can also tell of some partitions alone, so that the monitor asks about the ones it must look at."""

    def published(
        self, partitions: Collection[PartitionKey] | None = None
    ) -> Mapping[PartitionKey, Mapping[str, LeaderOffset]]: ...
    def rejected(self) -> Collection[PartitionKey]:
        """The partitions of which a leader has published what can't be: see `LeaderOffset.rejected`."""
        ...


@runtime_checkable
class EndOffsetsSource(Protocol):
    """A source that can ask where the data topic's partitions end."""

    def end_offsets(self, partitions: Collection[PartitionKey], timeout: float) -> Mapping[PartitionKey, int]:
        """Where the partitions end, or ended when their brokers answered last. Those without any answer are missing.

        Blocks until the brokers have answered, for at most ``timeout`` seconds. For one thread, which is not the
        processor's.
        """
        ...
