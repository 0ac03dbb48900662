"""What is known of every partition: its local and remote offset, and the state that follows from the two.

Pure: no Kafka, no thread, no clock.

Guarantees
    - A partition's state is a function of its two offsets and nothing else.
    - ``version`` grows with every remote offset that moves, and before a waiter is woken. A reader that notes the
      version, then reads the offsets, then waits for another version can't miss a move.
    - A state change calls the callback once, in the order of the changes, one call at a time, and with no lock of this
      package held. So the callback, like a log handler, may take a snapshot, wait for another thread or change an
      offset; a change that it makes is delivered after it has returned.

Threads
    The source's thread writes remote offsets, the processor's thread writes local ones; anyone may read. One lock
    guards all writes. ``PartitionCell.remote``, ``PartitionCell.current`` and ``version`` are single references that
    are replaced whole, so they are read without it, also by a signal handler that interrupts the thread that has it.
    What changed is queued under the lock, and delivered after it; see `StateChanges`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, ItemsView, Iterable, Iterator, Mapping, ValuesView
from enum import Enum
from typing import NamedTuple

from arroyo_sync.core.checks import check_callable, check_partition, check_topic_name, shown
from arroyo_sync.core.errors import (
    AnotherCluster,
    InvalidOffset,
    InvalidState,
    MessageNotReady,
    PartitionTruncated,
    TopicRecreated,
)
from arroyo_sync.core.state_changes import StateChanges

PartitionKey = tuple[str, int]
"""A topic's name and a partition's index."""

MAX_OFFSET = 2**63 - 1
"""Kafka's offsets are signed 64-bit integers (protocol guide, type INT64)."""


class Offsets(NamedTuple):
    """A partition's two offsets; ``None`` is unknown."""

    local: int | None
    """The next offset that the follower will hand downstream."""
    remote: int | None
    """The next offset that the slowest leader group would read: offsets below it are released."""


class SynchronizedPartitionState(Enum):
    """Where the follower stands against its leaders in one partition.

    A partition begins as ``UNKNOWN``, since one offset is set before the other. After that any state may follow any
    other, since either offset may move anywhere or be forgotten.
    """

    UNKNOWN = "unknown"
    """Either offset is unknown: the gate is closed."""
    LOCAL_BEHIND = "local behind"
    """local < remote: the gate is open."""
    SYNCHRONIZED = "synchronized"
    """local == remote: the gate is closed until a leader commits."""
    REMOTE_BEHIND = "remote behind"
    """remote < local: the gate is closed; a leader went back."""


_State = SynchronizedPartitionState
StateAndOffsets = tuple[SynchronizedPartitionState | None, Offsets]
StateCallback = Callable[[str, int, StateAndOffsets, StateAndOffsets], None]

_NO_OFFSETS = Offsets(None, None)


class PartitionCell:
    """One partition's cell, shared by the manager (which writes it, under its lock), the gate and the source."""

    __slots__ = ("key", "remote", "received", "current")

    def __init__(self, key: PartitionKey) -> None:
        self.key = key
        self.remote: int | None = None
        """The remote offset by itself, for the gate to read once a message without the lock."""
        self.received: int | None = None
        """The offset after the last message that the gate received in this assignment, ``None`` before the first one.

        Written by the gate without the lock, read by the source: every offset up to it exists.
        """
        self.current: StateAndOffsets = (None, _NO_OFFSETS)


class _PartitionsView(Mapping[PartitionKey, tuple[SynchronizedPartitionState, Offsets]]):
    """A live, read-only view of the manager's partitions."""

    def __init__(self, cells: Mapping[PartitionKey, PartitionCell]) -> None:
        self._cells = cells

    def __getitem__(self, key: PartitionKey) -> tuple[SynchronizedPartitionState, Offsets]:
        state, offsets = self._cells[key].current
        if state is None:
            raise KeyError(key)
        return state, offsets

    def __iter__(self) -> Iterator[PartitionKey]:
        return iter(self._now())

    def __len__(self) -> int:
        return len(self._now())

    def items(self) -> ItemsView[PartitionKey, tuple[SynchronizedPartitionState, Offsets]]:
        return self._now().items()

    def values(self) -> ValuesView[tuple[SynchronizedPartitionState, Offsets]]:
        return self._now().values()

    def __repr__(self) -> str:
        return repr(self._now())

    def _now(self) -> dict[PartitionKey, tuple[SynchronizedPartitionState, Offsets]]:
        """A copy, whatever other threads add and remove meanwhile."""
        # CPython makes the list in one step.
        cells = [self._cells.get(key) for key in list(self._cells)]
        current = [(cell.key, *cell.current) for cell in cells if cell is not None]
        return {key: (state, offsets) for key, state, offsets in current if state is not None}


def ignore_state_change(topic: str, partition: int, previous: StateAndOffsets, current: StateAndOffsets) -> None:
    """The callback of a manager whose states nobody watches."""


class SynchronizedPartitionStateManager:
    """The local and remote offset of every partition, and who waits for a remote offset to move.

    :param callback: called as ``callback(topic, partition, (previous_state, previous_offsets), (state, offsets))``
        after every change of state, the first one from ``None`` with ``Offsets(None, None)``. It runs on a thread that
        moves offsets, the processor's or the source's, which waits for it: it should be quick.
    :raises ConfigurationError: the callback can't be called.
    """

    def __init__(self, callback: StateCallback = ignore_state_change) -> None:
        check_callable(
            "callback", callback, "something to call as callback(topic, partition, (state, offsets), (state, offsets))"
        )
        # Added to under the lock, delivered without it.
        self._changes: StateChanges[StateAndOffsets] = StateChanges(callback)
        self._has_listener = callback is not ignore_state_change
        self._lock = threading.RLock()
        self._moved_condition = threading.Condition(self._lock)
        # Written under the lock, by both threads. A key is taken away by `remove` alone.
        self._cells: dict[PartitionKey, PartitionCell] = {}
        # Keys whose remote offset moved since the last `take_moved`. Filled and emptied under the lock.
        self._moved: set[PartitionKey] = set()
        # Written once, under the lock; read by the processor's thread without it.
        self._failure: Exception | None = None
        self.source_logs_rewinds = False
        """Whether the source itself logs that a leader went back. Written by the source at its start."""
        self.has_monitor = False
        """Whether a monitor tells that a leader group publishes nothing, and that the source has died. Written by the
        factory, before the start."""
        self.version = 0
        """Grows whenever a remote offset moves or `wake` is called. Written under the lock, read without."""
        self.partitions: Mapping[PartitionKey, tuple[SynchronizedPartitionState, Offsets]] = _PartitionsView(
            self._cells
        )
        """``(topic, partition) -> (state, Offsets(local, remote))``, live and read-only; any thread may read it."""

    @property
    def callback_errors(self) -> int:
        """How often the callback has raised. Any thread may read it."""
        return self._changes.callback_errors

    @staticmethod
    def get_state_from_offsets(offsets: Offsets) -> SynchronizedPartitionState:
        """The state that follows from a partition's two offsets."""
        local, remote = offsets
        if local is None or remote is None:
            return _State.UNKNOWN
        if local < remote:
            return _State.LOCAL_BEHIND
        return _State.SYNCHRONIZED if local == remote else _State.REMOTE_BEHIND

    def set_local_offset(self, topic: str, partition: int, local_offset: int | None) -> None:
        """Set the next offset that the follower will hand downstream, or ``None`` when the partition is revoked.

        :raises InvalidOffset: for anything but ``None`` or an integer from 0 to 2**63 - 1.
        :raises ConfigurationError: no topic or partition can be called so.
        """
        self.set_local_offsets([(self._key(topic, partition), local_offset)])

    def set_local_offsets(self, offsets: Iterable[tuple[PartitionKey, int | None]]) -> None:
        """`set_local_offset` for several partitions under one lock."""
        try:
            with self._lock:
                for key, local in offsets:
                    cell = self._cell(key)
                    previous = cell.current[1]
                    if previous.local == local and cell.current[0] is not None:
                        continue
                    check_offset(key, local)
                    if local is not None and previous.local is not None and local < previous.local:
                        self._changes.add_step_back(key, "local", previous.local, local)
                    self._store(cell, Offsets(local, previous.remote))
        finally:
            if self._changes.undelivered:
                self.deliver()

    def set_remote_offset(self, topic: str, partition: int, remote_offset: int | None) -> None:
        """Set the next offset that the slowest leader group would read, or ``None`` when it is unknown (again).

        Wakes whoever is in `wait_for_move`, if the offset differs from the last one.

        :raises InvalidOffset: for anything but ``None`` or an integer from 0 to 2**63 - 1.
        :raises ConfigurationError: no topic or partition can be called so.
        """
        self.set_remote_offsets([(self._key(topic, partition), remote_offset)])

    def set_remote_offsets(self, offsets: Iterable[tuple[PartitionKey, int | None]]) -> None:
        """`set_remote_offset` for several partitions under one lock, with one wake-up at the end."""
        try:
            self.store_remote_offsets(offsets)
        finally:
            if self._changes.undelivered:
                self.deliver()

    def store_remote_offsets(self, offsets: Iterable[tuple[PartitionKey, int | None]]) -> None:
        """`set_remote_offsets` for a caller that holds a lock of its own: it calls `deliver` once it holds none."""
        with self._lock:
            moved = False
            try:
                for key, remote in offsets:
                    cell = self._cells.get(key) or self._cell(key)
                    previous = cell.current[1]
                    if previous.remote == remote and cell.current[0] is not None:
                        continue
                    check_offset(key, remote)
                    is_logged = not self.source_logs_rewinds
                    if remote is not None and previous.remote is not None and remote < previous.remote and is_logged:
                        self._changes.add_step_back(key, "remote", previous.remote, remote)
                    moved = True
                    cell.remote = remote
                    self._moved.add(key)
                    self._store(cell, Offsets(previous.local, remote))
            finally:
                if moved:
                    self.wake()

    def deliver(self) -> None:
        """Call the callback for every change, and log every offset that moved back. With no lock held."""
        self._changes.deliver()

    def wake(self, partitions: Iterable[PartitionKey] = ()) -> None:
        """End every `wait_for_move` though no offset moved, so that the gate asks its source again.

        :param partitions: what the gate is to read as if their remote offsets had moved.
        """
        with self._lock:
            self._moved.update(partitions)
            self.version += 1
            self._moved_condition.notify_all()

    def fail(self, error: Exception) -> None:
        """From now on `check` raises ``error``, and the gate is woken to call it. Any thread.

        Of several it is the first, unless a later one says more of what is gone: since then nothing may be committed.
        """
        with self._lock:
            if self._failure is None or _weight(error) > _weight(self._failure):
                self._failure = error
            self.wake()

    @property
    def failure(self) -> Exception | None:
        """What `fail` was given. Any thread may read it."""
        return self._failure

    def check(self) -> None:
        """Return if nobody has called `fail`. Never blocks.

        :raises Exception: what `fail` was given.
        """
        if self._failure is not None:
            raise self._failure

    def wait_for_move(self, version: int, timeout: float) -> bool:
        """Block until `version` is another one than the given, for at most ``timeout`` seconds.

        :returns: whether it is another one. Any thread may call it.
        """
        with self._lock:
            # Nothing but `wake` notifies, so one wait is enough, and leaves little to run once it is over.
            return self.version != version or self._moved_condition.wait(timeout) or self.version != version

    def remove(self, partitions: Iterable[PartitionKey]) -> None:
        """Forget these partitions; their offsets become unknown. The caller calls `deliver` once it holds no lock."""
        with self._lock:
            keys = [key for key in partitions if key in self._cells]
            self.store_remote_offsets([(key, None) for key in keys])
            for key in keys:
                cell = self._cells.pop(key)
                if cell.current[0] is not None:
                    self._store(cell, _NO_OFFSETS)
            self._moved.difference_update(keys)

    def take_moved(self) -> set[PartitionKey]:
        """The partitions whose remote offset moved since the last call. For the gate alone: it empties the set."""
        with self._lock:
            moved, self._moved = self._moved, set()
            return moved

    def cell(self, topic: str, partition: int) -> PartitionCell:
        """The partition's shared cell, made if need be. For the gate, which reads ``cell.remote`` once a message."""
        with self._lock:
            return self._cell((topic, partition))

    def validate_local_message(self, topic: str, partition: int, offset: int) -> None:
        """Return if the message at ``offset`` may go downstream now.

        :raises InvalidState: if the partition is unknown or in any state but ``LOCAL_BEHIND``.
        :raises MessageNotReady: if ``offset`` is at or past the remote offset.
        """
        cell = self._cells.get((topic, partition))
        state, offsets = cell.current if cell is not None else (None, _NO_OFFSETS)
        if state is not _State.LOCAL_BEHIND or offsets.remote is None:
            raise InvalidState(topic, partition, state)
        if offset >= offsets.remote:
            raise MessageNotReady(topic, partition, offset, offsets.remote)

    def _key(self, topic: str, partition: int) -> PartitionKey:
        if type(topic) is not str or type(partition) is not int or (topic, partition) not in self._cells:
            check_topic_name("topic", topic)
            check_partition("partition", partition)
        return topic, partition

    def _cell(self, key: PartitionKey) -> PartitionCell:
        cell = self._cells.get(key)
        if cell is None:
            cell = self._cells[key] = PartitionCell(key)
        return cell

    def _store(self, cell: PartitionCell, offsets: Offsets) -> None:
        previous = cell.current
        state = self.get_state_from_offsets(offsets)
        cell.current = (state, offsets)
        if self._has_listener and state is not previous[0]:
            self._changes.add(cell.key, previous, cell.current)


def _weight(error: Exception) -> int:
    """The cluster is more than the topic, which is more than a part of it, and either is more than anything else."""
    kinds = (PartitionTruncated, TopicRecreated, AnotherCluster)
    return max((weight for weight, kind in enumerate(kinds, 1) if isinstance(error, kind)), default=0)


def check_offset(key: PartitionKey, offset: object) -> None:
    """Return if it is an offset, or ``None``.

    :raises InvalidOffset: it isn't.
    """
    if offset is not None and (type(offset) is not int or not 0 <= offset <= MAX_OFFSET):
        raise InvalidOffset(
            f"{key[0]}[{key[1]}]: an offset is None or an integer from 0 to 2**63 - 1, not {shown(offset)}"
        )
