"""Where remote offsets come from: the contract between a source and the gate."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Protocol

from arroyo_sync.state import PartitionKey, SynchronizedPartitionStateManager

NOTHING_UNPROVEN: Mapping[PartitionKey, int] = MappingProxyType({})


class HighWatermarks(Protocol):
    """The broker's end offsets of the data topic's partitions. Any thread may ask."""

    def cached(self, topic: str, partition: int) -> int | None:
        """The end offset that the client saw last, or ``None``. Never blocks."""
        ...

    def query(self, partitions: Collection[PartitionKey], timeout: float) -> Mapping[PartitionKey, int]:
        """Ask the broker, for at most ``timeout`` seconds. Partitions it couldn't tell of are missing in the answer."""
        ...


class RemoteOffsetSource(Protocol):
    """What opens the gate: it tells the state manager how far the leaders have committed.

    Only `start`, `check` and `stop` must be written. A class that inherits from this one gets the rest, which is for
    sources that can tell impossible offsets.
    """

    @property
    def unproven(self) -> Mapping[PartitionKey, int]:
        """Per assigned partition, the lowest published offset that isn't proven to exist. Live; empty when all is well.

        The gate looks at it once a message, and calls `received` when a message proves such an offset.
        """
        return NOTHING_UNPROVEN

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

    def assign(self, positions: Mapping[PartitionKey, int], watermarks: HighWatermarks | None) -> None:
        """Trust begins anew for these partitions, which the follower reads from these positions on.

        Called on the processor's thread at an assignment and when the follower's position moved back, before anything
        of them is released. When it returns, the manager holds no remote offset of them that isn't proven. Never
        blocks.
        """
        return

    def revoke(self, partitions: Collection[PartitionKey]) -> None:
        """The follower no longer reads these partitions. Never blocks."""
        return

    def received(self, topic: str, partition: int, next_offset: int) -> None:
        """The follower has received every message below ``next_offset``, so offsets up to it are proven."""
        return
