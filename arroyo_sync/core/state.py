"""What is known of every partition: its local and remote offset, and the state that follows from the two.

Pure: no Kafka, no thread, no clock.

Guarantees
    - A partition's state is a function of its two offsets and nothing else.
    - ``version`` grows with every remote offset that moves, and before a waiter is woken. A reader that notes the
      version, then looks at the offsets, then waits for another version can't miss a move.
    - A state change calls the callback once, in the order of the changes, on the thread that made the change.

Threads
    The source's thread writes remote offsets, the processor's thread writes local ones; anyone may read. One lock
    guards all writes. ``PartitionCell.remote``, ``PartitionCell.current`` and ``version`` are single references that
    are replaced whole, so they are read without it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from enum import Enum
from typing import NamedTuple

from arroyo_sync.core.errors import InvalidOffset, InvalidState, InvalidStateTransition, MessageNotReady

logger = logging.getLogger(__name__)

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
    """Where the follower stands against its leaders in one partition."""

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

TRANSITIONS: Mapping[_State | None, frozenset[_State]] = {
    None: frozenset({_State.UNKNOWN}),
    _State.UNKNOWN: frozenset({_State.LOCAL_BEHIND, _State.SYNCHRONIZED, _State.REMOTE_BEHIND}),
    _State.LOCAL_BEHIND: frozenset({_State.UNKNOWN, _State.SYNCHRONIZED, _State.REMOTE_BEHIND}),
    _State.SYNCHRONIZED: frozenset({_State.UNKNOWN, _State.LOCAL_BEHIND, _State.REMOTE_BEHIND}),
    _State.REMOTE_BEHIND: frozenset({_State.UNKNOWN, _State.LOCAL_BEHIND, _State.SYNCHRONIZED}),
}
"""Which state may follow which. A partition begins as ``UNKNOWN``, since one offset is always set before the other."""

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

    def __init__(self, cells: Mapping[PartitionKey, PartitionCell], lock: AbstractContextManager[bool]) -> None:
        self._cells = cells
        self._lock = lock

    def __getitem__(self, key: PartitionKey) -> tuple[SynchronizedPartitionState, Offsets]:
        state, offsets = self._cells[key].current
        if state is None:
            raise KeyError(key)
        return state, offsets

    def __iter__(self) -> Iterator[PartitionKey]:
        with self._lock:
            return iter([key for key, cell in self._cells.items() if cell.current[0] is not None])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return repr(dict(self))


def ignore_state_change(topic: str, partition: int, previous: StateAndOffsets, current: StateAndOffsets) -> None:
    """The callback of a manager whose states nobody watches."""


class SynchronizedPartitionStateManager:
    """The local and remote offset of every partition, and who waits for a remote offset to move.

    :param callback: called as ``callback(topic, partition, (previous_state, previous_offsets), (state, offsets))``
        after every change of state, the first one from ``None`` with ``Offsets(None, None)``. It runs on the thread
        that moved the offset, with the manager's lock held: it must be quick. What it raises comes out of the setter,
        after the change was stored.
    """

    def __init__(self, callback: StateCallback = ignore_state_change) -> None:
        self._callback = callback
        self._lock = threading.RLock()
        self._moved_condition = threading.Condition(self._lock)
        # Written under the lock, by both threads. A key is taken away by `remove` alone.
        self._cells: dict[PartitionKey, PartitionCell] = {}
        # Keys whose remote offset moved since the last `take_moved`. Filled and emptied under the lock.
        self._moved: set[PartitionKey] = set()
        # Written once, under the lock; read by the processor's thread without it.
        self._failure: Exception | None = None
        self.version = 0
        """Grows whenever a remote offset moves or `wake` is called. Written under the lock, read without."""
        self.partitions: Mapping[PartitionKey, tuple[SynchronizedPartitionState, Offsets]] = _PartitionsView(
            self._cells, self._lock
        )
        """``(topic, partition) -> (state, Offsets(local, remote))``, live and read-only; any thread may read it."""

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

        :raises ValueError: for anything but ``None`` or an integer from 0 to 2**63 - 1.
        :raises InvalidStateTransition: see `TRANSITIONS`.
        """
        self.set_local_offsets([((topic, partition), local_offset)])

    def set_local_offsets(self, offsets: Iterable[tuple[PartitionKey, int | None]]) -> None:
        """`set_local_offset` for several partitions under one lock."""
        with self._lock:
            for key, local in offsets:
                cell = self._cell(key)
                previous = cell.current[1]
                if previous.local == local and cell.current[0] is not None:
                    continue
                _check_offset(key, local)
                if local is not None and previous.local is not None and local < previous.local:
                    logger.info("%s[%d]: local offset moved back from %d to %d", *key, previous.local, local)
                self._store(cell, Offsets(local, previous.remote))

    def set_remote_offset(self, topic: str, partition: int, remote_offset: int | None) -> None:
        """Set the next offset that the slowest leader group would read, or ``None`` when it is unknown (again).

        Wakes whoever is in `wait_for_move`, if the offset differs from the last one.

        :raises ValueError: for anything but ``None`` or an integer from 0 to 2**63 - 1.
        :raises InvalidStateTransition: see `TRANSITIONS`.
        """
        self.set_remote_offsets([((topic, partition), remote_offset)])

    def set_remote_offsets(self, offsets: Iterable[tuple[PartitionKey, int | None]]) -> None:
        """`set_remote_offset` for several partitions under one lock, with one wake-up at the end."""
        with self._lock:
            moved = False
            try:
                for key, remote in offsets:
                    cell = self._cells.get(key) or self._cell(key)
                    previous = cell.current[1]
                    if previous.remote == remote and cell.current[0] is not None:
                        continue
                    _check_offset(key, remote)
                    if remote is not None and previous.remote is not None and remote < previous.remote:
                        logger.info("%s[%d]: remote offset moved back from %d to %d", *key, previous.remote, remote)
                    moved = True
                    cell.remote = remote
                    self._moved.add(key)
                    self._store(cell, Offsets(previous.local, remote))
            finally:
                if moved:
                    self.wake()

    def wake(self, partitions: Iterable[PartitionKey] = ()) -> None:
        """End every `wait_for_move` though no offset moved, so that the gate asks its source again.

        :param partitions: what the gate is to look at as if their remote offsets had moved.
        """
        with self._lock:
            self._moved.update(partitions)
            self.version += 1
            self._moved_condition.notify_all()

    def fail(self, error: Exception) -> None:
        """From now on `check` raises ``error``, the first one given; the gate is woken to call it. Any thread."""
        with self._lock:
            self._failure = self._failure or error
            self.wake()

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
        """Forget these partitions: the follower doesn't read them any more. Both their offsets become unknown first."""
        with self._lock:
            keys = [key for key in partitions if key in self._cells]
            self.set_local_offsets([(key, None) for key in keys])
            self.set_remote_offsets([(key, None) for key in keys])
            for key in keys:
                del self._cells[key]
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

    def _cell(self, key: PartitionKey) -> PartitionCell:
        cell = self._cells.get(key)
        if cell is None:
            cell = self._cells[key] = PartitionCell(key)
        return cell

    def _store(self, cell: PartitionCell, offsets: Offsets) -> None:
        previous = cell.current
        state = self.get_state_from_offsets(offsets)
        if state is not previous[0] and state not in TRANSITIONS[previous[0]]:
            cell.remote = previous[1].remote
            raise InvalidStateTransition(*cell.key, previous[0], state)
        cell.current = (state, offsets)
        if state is not previous[0]:
            self._callback(*cell.key, previous, cell.current)


def _check_offset(key: PartitionKey, offset: int | None) -> None:
    if offset is not None and (type(offset) is not int or not 0 <= offset <= MAX_OFFSET):
        raise InvalidOffset(f"{key[0]}[{key[1]}]: an offset is None or an integer from 0 to 2**63 - 1, not {offset!r}")
