"""A source around another that can be ended from outside, so that the processor ends with an error of one's own."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from arroyo_sync.core.state import PartitionKey, SynchronizedPartitionStateManager
from arroyo_sync.leaders.commit_log.consumer import HighWatermarks, RemoteOffsetSource


class EndableSource(RemoteOffsetSource):
    """What it is asked, it asks ``inner``. Threads: as `RemoteOffsetSource`; `end` may be called by any."""

    def __init__(self, inner: RemoteOffsetSource) -> None:
        self._inner = inner
        self._manager: SynchronizedPartitionStateManager | None = None
        # Written once, by `end`'s thread; read by the processor's.
        self._error: Exception | None = None

    def end(self, error: Exception) -> None:
        """From now on `check` raises this, and the gate is woken to call it."""
        self._error = error
        if self._manager is not None:
            self._manager.wake()

    @property
    def unproven(self) -> Mapping[PartitionKey, int]:
        return self._inner.unproven

    def start(self, manager: SynchronizedPartitionStateManager) -> None:
        self._manager = manager
        self._inner.start(manager)

    def check(self) -> None:
        """As the inner source's.

        :raises Exception: what `end` was given.
        """
        if self._error is not None:
            raise self._error
        self._inner.check()

    def stop(self, timeout: float) -> None:
        self._inner.stop(timeout)

    def assign(self, positions: Mapping[PartitionKey, int], watermarks: HighWatermarks | None) -> None:
        self._inner.assign(positions, watermarks)

    def revoke(self, partitions: Collection[PartitionKey]) -> None:
        self._inner.revoke(partitions)

    def received(self, topic: str, partition: int, next_offset: int) -> None:
        self._inner.received(topic, partition, next_offset)
