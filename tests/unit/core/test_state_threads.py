"""Real threads at the state manager, which the interpreter switches as often as it can."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable
from contextlib import nullcontext, suppress
from functools import partial

import pytest

from arroyo_sync.core.state import Offsets, PartitionKey, StateAndOffsets, SynchronizedPartitionStateManager
from arroyo_sync.testing import ManualSource
from tests.model.judge import state_of
from tests.support.threads import PATIENCE_SECONDS, in_threads, switch_interval

__all__ = ["switch_interval"]

TOPIC = "events"

pytestmark = pytest.mark.usefixtures("switch_interval")


class WithoutLock(SynchronizedPartitionStateManager):
    """A manager that guards nothing."""

    def __init__(self, callback: Callable[[str, int, StateAndOffsets, StateAndOffsets], None]) -> None:
        super().__init__(callback)
        self._lock = nullcontext()  # type: ignore[assignment]

    def wake(self, partitions: Iterable[PartitionKey] = ()) -> None:
        self.version += 1


def torn(manager_class: type[SynchronizedPartitionStateManager], writes: int) -> list[str]:
    """Write offsets from three threads while a fourth one reads; what didn't fit together."""
    keys = [(TOPIC, 0), (TOPIC, 1)]
    found: list[str] = []
    last: dict[int, object] = {}
    taken: set[tuple[str, int]] = set()

    def changed(topic: str, partition: int, previous: StateAndOffsets, current: StateAndOffsets) -> None:
        if previous[0] is not last.get(partition):
            found.append(f"from {previous[0]}, which was {last.get(partition)}")
        last[partition] = current[0]
        look(*current)

    def look(state: object, offsets: Offsets) -> None:
        if getattr(state, "name", None) != state_of(*offsets):
            found.append(f"{state} with {offsets}")

    manager = manager_class(changed)
    writers = 3

    def write(seed: int, write_offsets: Callable[[list[tuple[tuple[str, int], int | None]]], None]) -> None:
        nonlocal writers
        numbers = random.Random(seed)
        for _ in range(writes):
            write_offsets([(key, numbers.choice((None, 0, 1, 2))) for key in keys])
        writers -= 1

    def read() -> None:
        version = 0
        while writers:
            for state, offsets in manager.partitions.values():
                look(state, offsets)
            taken.update(manager.take_moved())
            if manager.version < version:
                found.append(f"version {manager.version} after {version}")
            version = manager.version

    try:
        in_threads(
            partial(write, 1, manager.set_remote_offsets),
            partial(write, 2, manager.set_remote_offsets),
            partial(write, 3, manager.set_local_offsets),
            read,
        )
    except RuntimeError as error:  # as from a dictionary that changes while it is read
        return [str(error)]
    beside = [(manager.cell(*key).remote, manager.partitions[key][1].remote) for key in keys]
    found.extend(f"{remote} beside {offset}" for remote, offset in beside if remote != offset)
    if taken | manager.take_moved() != set(keys):
        found.append(f"moved are {taken}")
    return found


def test_no_state_is_torn() -> None:
    """State and offsets fit together whenever they are read, and the callback hears every change, in order.

    Without the lock 12 of 20 runs of 100 writes were torn, and 20 of 20 of 3,000.
    """
    assert torn(SynchronizedPartitionStateManager, 10_000) == []


def test_a_torn_state_is_noticed() -> None:
    """As many writes as above find a manager without a lock out."""
    assert torn(WithoutLock, 10_000) != []


class Overtaking(SynchronizedPartitionStateManager):
    """A manager whose threads each deliver what they find, at the same time."""

    def deliver(self) -> None:
        with suppress(IndexError):  # another thread was quicker
            while True:
                self._changes.deliver_one()


def disorder(manager_class: type[SynchronizedPartitionStateManager], writes: int) -> list[str]:
    """Move offsets from three threads, and from the callback; what a listener would have been told wrongly."""
    keys = [(TOPIC, index) for index in range(4)]
    found: list[str] = []
    told: dict[tuple[str, int], StateAndOffsets] = {}
    calls = 0

    def changed(topic: str, partition: int, previous: StateAndOffsets, current: StateAndOffsets) -> None:
        nonlocal calls
        calls += 1
        if calls > 1:
            found.append("two calls at once")
        last = told.get((topic, partition), (None,))[0]
        if previous[0] is not last:
            found.append(f"from {previous[0]} after {last}")
        told[topic, partition] = current
        if partition == 0:
            manager.set_local_offset(topic, 3, current[1].remote)
        calls -= 1

    manager = manager_class(changed)

    def write(seed: int) -> None:
        numbers = random.Random(seed)
        for _ in range(writes):
            offsets = [(key, numbers.choice((None, 0, 1, 2))) for key in numbers.sample(keys[:3], 2)]
            numbers.choice((manager.set_remote_offsets, manager.set_local_offsets))(offsets)

    in_threads(*(partial(write, seed) for seed in range(3)))
    if manager.callback_errors:
        found.append("the callback failed")
    for key, (state, _) in manager.partitions.items():
        if told[key][0] is not state:
            found.append(f"{key} is {state}, the last that was told is {told[key][0]}")
    return found


def test_changes_are_told_in_order_one_at_a_time_and_to_the_last() -> None:
    """Whichever thread made them and whichever tells them, also those that the callback itself makes.

    Without the one that delivers 20 of 20 runs of 1,000 writes were out of order.
    """
    assert disorder(SynchronizedPartitionStateManager, 3_000) == []


def test_changes_that_overtake_each_other_are_noticed() -> None:
    """As many writes as above find a manager out whose threads deliver at the same time."""
    assert disorder(Overtaking, 3_000) != []


def test_no_offset_is_lost_while_a_manual_source_starts() -> None:
    """One that is set while the source is given its manager comes after those that were set before."""
    source = ManualSource()
    source.set_remote_offset(TOPIC, 0, 1)
    other = threading.Thread(target=partial(source.set_remote_offset, TOPIC, 0, 2), daemon=True)

    class Interrupted(SynchronizedPartitionStateManager):
        """The other thread comes just before the first offsets are written. It must wait, so it isn't waited for."""

        def store_remote_offsets(self, offsets: Iterable[tuple[tuple[str, int], int | None]]) -> None:
            if other.ident is None:
                other.start()
                other.join(0.05)
            super().store_remote_offsets(offsets)

    manager = Interrupted()
    source.start(manager)
    other.join(PATIENCE_SECONDS)
    assert manager.partitions[TOPIC, 0][1].remote == 2
