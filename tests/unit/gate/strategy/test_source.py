"""The gate and its source: when it looks, what it does once the source is dead, and what it proves to it."""

from __future__ import annotations

import pytest

from arroyo_sync.core.errors import SourceDied
from arroyo_sync.core.state import SynchronizedPartitionStateManager
from arroyo_sync.gate.strategy import SynchronizedStrategy
from arroyo_sync.testing import ManualSource
from tests.support.fakes import At, ScriptedStep, message, partition
from tests.support.harness import GateHarness, NotedSource


@pytest.mark.parametrize("call", ["submit", "poll"])
def test_a_dead_source_comes_out_with_its_cause(call: str) -> None:
    """Out of both, again and again; nothing is released, not even what was released before."""
    harness = GateHarness()
    harness.hold(0, 0, 1)
    harness.release(0, 2)
    cause = ValueError("no such topic")
    harness.source.die(cause)
    for _ in range(2):
        with pytest.raises(SourceDied, match="no such topic") as raised:
            harness.submit(0, 2) if call == "submit" else harness.gate.poll()
        assert raised.value.__cause__ is cause
    assert harness.step.taken == []


def test_a_source_that_died_before_the_gate_was_made_is_noticed() -> None:
    """Its wake-up came too early for this gate, which looks all the same."""
    source = ManualSource()
    manager = SynchronizedPartitionStateManager()
    source.start(manager)
    source.set_remote_offset("events", 0, 9)
    source.die(ValueError("gone"))
    step = ScriptedStep()
    gate = SynchronizedStrategy(step, manager, source, {partition(0): 0})
    with pytest.raises(SourceDied):
        gate.submit(message(0, 0))
    with pytest.raises(SourceDied):
        gate.poll()
    assert step.taken == []


def test_the_source_is_asked_when_something_moved_and_not_once_a_message() -> None:
    """A look costs a lock; what moves, or a source that dies, wakes the gate."""
    harness = GateHarness()
    harness.release(0, 50)
    harness.gate.poll()
    checks = harness.source.checks
    for offset in range(60):
        harness.submit(0, offset)
        harness.gate.poll()
    assert harness.source.checks == checks
    assert harness.gate.buffers.seen_version == harness.manager.version
    harness.release(0, 51)
    harness.gate.poll()
    assert harness.source.checks == checks + 1


def test_the_source_hears_what_proves_a_doubted_offset() -> None:
    """Only of a partition whose published offset is in doubt, and only when the message reaches it."""
    harness = GateHarness({0: 0, 1: 0})
    harness.hold(0, 0)
    harness.source.doubted = {("events", 0): 3}
    harness.hold(0, 1)
    harness.hold(1, 0)
    assert harness.source.calls == []
    harness.hold(0, 2)
    assert harness.source.calls == [("received", ("events", 0), 3)]


def test_what_went_straight_through_proves_a_doubted_offset_too() -> None:
    """The source is woken when it begins to doubt, and the cell tells it the truth by the time it is asked."""
    in_the_cell: list[int | None] = []

    class Source(NotedSource):
        def received(self, topic: str, partition: int, next_offset: int) -> None:
            super().received(topic, partition, next_offset)
            in_the_cell.append(harness.manager.cell(topic, partition).received)

    harness = GateHarness(source=Source())
    harness.release(0, 9)
    harness.submit(0, 0, 1, 2)
    harness.source.doubted = {("events", 0): 3}
    harness.manager.wake([("events", 0)])
    harness.gate.poll()
    assert harness.source.calls == [("received", ("events", 0), 3)]
    assert in_the_cell == [3]


def test_an_offset_that_was_sought_is_not_received() -> None:
    """Only the message that comes there shows that the partition reaches that far."""
    harness = GateHarness()
    harness.hold(0, 0, 1)
    cell = harness.manager.cell("events", 0)
    harness.gate.buffers.seek(partition(0), 900)
    harness.source.doubted = {("events", 0): 900}
    harness.manager.wake([("events", 0)])
    harness.gate.poll()
    harness.gate.buffers.report_local_offsets()
    assert (harness.source.calls, cell.received) == ([], 2)
    harness.hold(0, 900)
    assert harness.source.calls == [("received", ("events", 0), 901)]


def test_the_followers_client_is_asked_when_something_is_unverified() -> None:
    """On the processor's thread, when the gate reads remote offsets; and never without need."""
    harness = GateHarness()
    harness.manager.wake()
    harness.gate.poll()
    assert harness.source.refreshes == 0
    harness.source.doubted = {("events", 0): 3}
    harness.manager.wake()
    harness.gate.poll()
    assert harness.source.refreshes == 1


def test_the_cell_says_how_far_the_partition_was_received() -> None:
    """Held or forwarded: every offset up to it exists, which is what the source proves published offsets by."""
    harness = GateHarness({0: 4})
    cell = harness.manager.cell("events", 0)
    assert cell.received is None
    harness.release(0, 6)
    harness.submit(0, 4)
    harness.gate.buffers.report_local_offsets()
    assert cell.received == 5
    harness.submit(0, 8)
    harness.gate.buffers.report_local_offsets()
    assert cell.received == 9
    harness.gate.close()
    harness.gate.join()
    assert cell.received is None


def test_a_drain_waits_for_the_source_once_and_for_a_third_of_a_millisecond() -> None:
    """Before it begins, for other lines that open at the same time; its later slices begin at once."""
    harness = GateHarness({0: 0, 1: 0}, slice_seconds=0.5)
    waits: list[float] = []

    def wait(version: int, timeout: float) -> bool:
        waits.append(timeout)
        return False

    def take_a_quarter_second(at: At) -> None:
        harness.clock.now += 0.25

    harness.manager.wait_for_move = wait  # type: ignore[method-assign]
    harness.step.before_submit = take_a_quarter_second
    harness.hold(0, *range(20))
    harness.hold(1, 0)
    harness.release(0, 20)
    harness.poll_until_empty()
    assert len(harness.step.taken) == 20
    assert waits == [0.0003]
