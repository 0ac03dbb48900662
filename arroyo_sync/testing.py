"""What a test of a pipeline behind the gate needs, with no Kafka: a source moved by hand, and a step that records.

`SynchronizedStrategy.poll` hands on what is released, for one slice: poll until everything is there. `close` and `join`
don't drain: what the gate still buffers is dropped, since it stays in Kafka.
"""

from __future__ import annotations

import threading
from typing import Any

from arroyo.processing.strategies.abstract import ProcessingStrategy
from arroyo.types import Message

from arroyo_sync.core.checks import check_instance, check_partition, check_topic_name
from arroyo_sync.core.errors import SourceDied
from arroyo_sync.core.source import RemoteOffsetSource
from arroyo_sync.core.state import SynchronizedPartitionStateManager, check_offset


class ManualSource(RemoteOffsetSource):
    """A source whose remote offsets are moved by the test: what it sets is trusted."""

    def __init__(self) -> None:
        self.manager: SynchronizedPartitionStateManager | None = None
        self.is_stopped = False
        self._cause: BaseException | None = None
        # Guards the manager's arrival: what is set meanwhile comes after what was set before.
        self._lock = threading.RLock()
        self._before_start: dict[tuple[str, int], int | None] = {}

    def set_remote_offset(self, topic: str, partition: int, remote_offset: int | None) -> None:
        """Release every message of the partition below ``remote_offset``, and no other. Any thread may call it.

        :raises ConfigurationError: no topic or partition can be called so.
        :raises InvalidOffset: for anything but ``None`` or an integer from 0 to 2**63 - 1.
        """
        check_topic_name("topic", topic)
        check_partition("partition", partition)
        check_offset((topic, partition), remote_offset)
        with self._lock:
            if self.manager is None:
                self._before_start[topic, partition] = remote_offset
                return
        self.manager.set_remote_offset(topic, partition, remote_offset)

    def die(self, cause: BaseException) -> None:
        """End as a source does that met this error."""
        check_instance("cause", cause, BaseException)
        self._cause = cause
        if self.manager is not None:
            self.manager.wake()

    def start(self, manager: SynchronizedPartitionStateManager) -> None:
        check_instance("manager", manager, SynchronizedPartitionStateManager)
        with self._lock:
            if self.manager is None:
                self.manager = manager
                manager.store_remote_offsets(self._before_start.items())
        manager.deliver()

    def check(self) -> None:
        if self._cause is not None:
            raise SourceDied(f"the source has ended: {self._cause}") from self._cause

    def stop(self, timeout: float) -> None:
        self.is_stopped = True


class RecordingStep(ProcessingStrategy[Any]):
    """A last step that keeps what it was given."""

    def __init__(self) -> None:
        self.messages: list[Message[Any]] = []
        """Every message submitted, oldest first."""
        self.polls = 0
        self.is_closed = False
        self.is_terminated = False

    def submit(self, message: Message[Any]) -> None:
        self.messages.append(message)

    def poll(self) -> None:
        self.polls += 1

    def close(self) -> None:
        self.is_closed = True

    def terminate(self) -> None:
        self.is_terminated = True

    def join(self, timeout: float | None = None) -> None:
        pass
