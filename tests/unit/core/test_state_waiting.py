"""Waiting for a remote offset to move: no wake-up is lost, and none comes without a cause."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from functools import partial
from itertools import count
from queue import SimpleQueue
from types import FrameType
from typing import Any, TypeVar

import pytest

from arroyo_sync.core import state, state_changes
from arroyo_sync.core.errors import InvalidOffset
from arroyo_sync.core.state import Offsets, SynchronizedPartitionState, SynchronizedPartitionStateManager

KEY = ("events", 0)
LONG_SECONDS = 30.0
"""Never waited out, unless a wake-up is lost."""

Result = TypeVar("Result")
TraceFunction = Callable[[FrameType, str, Any], Any]


def with_another_thread_before_line(
    number: int, other: Callable[[], object], call: Callable[[], Result]
) -> tuple[bool, Result]:
    """Run ``call`` with ``other`` just before its line with this number of `state.py`, as if a thread came in between.

    :returns: whether there is such a line, and the result.
    """
    lines = count(1)
    reached = False

    def trace(frame: FrameType, event: str, argument: object) -> TraceFunction | None:
        nonlocal reached
        if frame.f_code.co_filename not in (state.__file__, state_changes.__file__):
            return None
        if event == "line" and next(lines) == number:
            reached = True
            other()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        result = call()
    finally:
        sys.settrace(before)
    return reached, result


def test_the_version_grows_with_every_remote_offset_that_moves_and_with_nothing_else() -> None:
    """Local offsets and an offset that is published again wake nobody."""
    manager = SynchronizedPartitionStateManager()
    versions = [manager.version]

    def note() -> None:
        versions.append(manager.version)

    manager.set_remote_offset(*KEY, 4)
    note()
    manager.set_remote_offset(*KEY, 4)
    manager.set_local_offset(*KEY, 1)
    manager.set_local_offset(*KEY, 4)
    note()
    manager.set_remote_offset(*KEY, 3)
    note()
    manager.set_remote_offset(*KEY, None)
    note()
    assert versions[0] < versions[1] == versions[2] < versions[3] < versions[4]


def test_many_offsets_wake_once() -> None:
    """A batch of records is one move: the gate looks once at all of them."""
    manager = SynchronizedPartitionStateManager()
    manager.set_remote_offsets([(("events", index), 10) for index in range(100)])
    assert manager.version == 1
    assert manager.take_moved() == {("events", index) for index in range(100)}


def test_moved_partitions_are_taken_once() -> None:
    """The gate looks only at partitions that moved since it last looked, and a local offset is no move."""
    manager = SynchronizedPartitionStateManager()
    assert manager.take_moved() == set()
    manager.set_remote_offset("events", 0, 1)
    manager.set_local_offset("events", 1, 1)
    manager.set_remote_offset("events", 2, 1)
    assert manager.take_moved() == {("events", 0), ("events", 2)}
    assert manager.take_moved() == set()


def test_a_batch_with_a_wrong_offset_wakes_for_those_before_it() -> None:
    """What was stored before the error counts, so the gate hears of it."""
    manager = SynchronizedPartitionStateManager()
    with pytest.raises(InvalidOffset, match=r"events\[1\]"):
        manager.set_remote_offsets([(("events", 0), 7), (("events", 1), -1)])
    assert dict(manager.partitions) == {KEY: (SynchronizedPartitionState.UNKNOWN, Offsets(None, 7))}
    assert manager.wait_for_move(0, 0.0)


def test_a_wait_ends_without_a_move_after_its_timeout() -> None:
    """And says so."""
    assert not SynchronizedPartitionStateManager().wait_for_move(0, 0.001)


def test_a_wait_that_a_move_ends_at_its_last_moment_tells_of_the_move(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time is up, but another thread has the lock and moves an offset before the waiter gets it back."""
    manager = SynchronizedPartitionStateManager()

    def wait_too_long(condition: threading.Condition, timeout: float | None = None) -> bool:
        manager.set_remote_offset(*KEY, 1)
        return False

    monkeypatch.setattr(threading.Condition, "wait", wait_too_long)
    assert manager.wait_for_move(0, 0.001)


def test_a_wait_for_a_version_that_is_past_does_not_block() -> None:
    """Whoever notes the version first, then looks, then waits, can't miss a move in between."""
    manager = SynchronizedPartitionStateManager()
    noted = manager.version
    manager.set_remote_offset(*KEY, 1)
    assert manager.wait_for_move(noted, LONG_SECONDS)


@pytest.mark.parametrize(
    "move",
    [
        pytest.param(lambda manager: manager.set_remote_offset("events", 0, 5), id="a remote offset moves"),
        pytest.param(lambda manager: manager.set_remote_offset("events", 0, None), id="a remote offset is forgotten"),
        pytest.param(lambda manager: manager.wake(), id="wake"),
    ],
)
def test_a_waiting_thread_is_woken(
    monkeypatch: pytest.MonkeyPatch, move: Callable[[SynchronizedPartitionStateManager], None]
) -> None:
    """Every waiter, by every move, and by `wake` though no offset moved."""
    waiting: SimpleQueue[None] = SimpleQueue()
    wait = threading.Condition.wait

    def noted_wait(condition: threading.Condition, timeout: float | None = None) -> bool:
        waiting.put(None)  # the lock is held here, so a move comes after the wait has begun
        return wait(condition, timeout)

    manager = SynchronizedPartitionStateManager()
    manager.set_remote_offset(*KEY, 1)
    version = manager.version
    results: list[bool] = []

    def follow() -> None:
        results.append(manager.wait_for_move(version, LONG_SECONDS))

    threads = [threading.Thread(target=follow, daemon=True) for _ in range(2)]
    monkeypatch.setattr(threading.Condition, "wait", noted_wait)
    for thread in threads:
        thread.start()
        waiting.get(timeout=LONG_SECONDS)
    monkeypatch.undo()
    move(manager)
    for thread in threads:
        thread.join(LONG_SECONDS / 3)
    assert results == [True, True]


def test_a_wait_never_sleeps_through_a_move_that_came_before_its_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread moves the offset before each line in turn, up to the sleep; the waiter noted the version before,
    as the gate does.
    """
    slept: list[float | None] = []

    def note_sleep(condition: threading.Condition, timeout: float | None = None) -> bool:
        slept.append(timeout)
        return False

    monkeypatch.setattr(threading.Condition, "wait", note_sleep)
    for line in count(1):
        manager = SynchronizedPartitionStateManager()
        noted = manager.version
        slept.clear()
        reached, moved = with_another_thread_before_line(
            line,
            partial(lambda manager: None if slept else manager.set_remote_offset(*KEY, 1), manager),
            partial(manager.wait_for_move, noted, 0.001),
        )
        if manager.version == noted or not reached:
            break
        assert (moved, slept) == (True, []), f"slept through a move before line {line}"
    assert line > 2


def test_whoever_sees_a_new_version_sees_its_offset() -> None:
    """Another thread looks before each line of a move, as the gate does: version first, then the offset, no lock.

    The other order would let it note the new version beside the old offset, and then wait for nothing.
    """
    looks: list[tuple[int, int | None]] = []
    for line in count(1):
        manager = SynchronizedPartitionStateManager()
        cell = manager.cell(*KEY)
        look = partial(lambda manager, cell: looks.append((manager.version, cell.remote)), manager, cell)
        reached, _ = with_another_thread_before_line(line, look, partial(manager.set_remote_offset, *KEY, 7))
        if not reached:
            break
    assert (0, None) in looks
    assert (1, None) not in looks


def test_no_change_is_left_undelivered_whenever_another_one_comes() -> None:
    """Another thread changes an offset before each line of a change: whoever comes second may leave its own to the
    first, which must then not have looked for the last time.
    """
    for line in count(1):
        told: list[int] = []
        manager = SynchronizedPartitionStateManager(lambda topic, partition, *states, told=told: told.append(partition))
        other = partial(manager.set_remote_offset, "events", 1, 1)
        reached, _ = with_another_thread_before_line(line, other, partial(manager.set_remote_offset, *KEY, 1))
        if not reached:
            break
        assert sorted(told) == [0, 1], f"left before line {line}"
    assert line > 20
