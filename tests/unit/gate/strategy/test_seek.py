"""The gate when its partition is read from another place: sought from outside, or found out by the next message."""

from __future__ import annotations

import logging

import pytest
from arroyo.dlq import InvalidMessage

from tests.support.fakes import partition
from tests.support.harness import CarefulSource, GateHarness


class FakeWatermarks:
    def cached(self, topic: str, partition: int) -> int | None:
        return None


@pytest.mark.parametrize("how", ["seek", "submit"])
def test_safety_reading_again_needs_proof_again_before_anything_goes_on(how: str) -> None:
    """A position that moves back may mean another topic under the old commit log: the source is asked before.

    It comes by a seek, or unannounced, as the offset of the next message.
    """
    watermarks = FakeWatermarks()
    harness = GateHarness({0: 100}, watermarks=watermarks, source=CarefulSource())
    harness.release(0, 120)
    harness.submit(0, *range(100, 110))
    if how == "seek":
        harness.gate.buffers.seek(partition(0), 5)
    harness.submit(0, 5)
    harness.gate.poll()
    assert harness.source.calls == [("assign", {("events", 0): 5}, watermarks)]
    assert harness.step.taken[-1] == (0, 109)
    assert harness.held() == {0: [5]}
    harness.release(0, 6)
    harness.gate.poll()
    assert harness.step.taken[-1] == (0, 5)


def test_order_a_seek_back_starts_a_new_one() -> None:
    """What is held at or past the new position is dropped, since it comes again; what is before it stays."""
    harness = GateHarness()
    harness.hold(0, *range(10))
    harness.gate.buffers.seek(partition(0), 6)
    assert harness.held() == {0: [0, 1, 2, 3, 4, 5]}
    harness.hold(0, *range(6, 12))
    harness.release(0, 12)
    harness.poll_until_empty()
    assert harness.step.taken == [(0, offset) for offset in range(12)]


def test_safety_what_was_received_before_a_seek_back_proves_nothing_after_it() -> None:
    """Messages that went straight through are told later than they are received; the seek comes in between."""
    harness = GateHarness({0: 0})
    harness.release(0, 10)
    harness.submit(0, *range(5))
    harness.gate.buffers.seek(partition(0), 2)
    harness.clock.now += 1
    harness.gate.poll()
    harness.gate.buffers.report_local_offsets()
    assert harness.manager.cell("events", 0).received is None
    harness.submit(0, 2)
    harness.gate.buffers.report_local_offsets()
    assert harness.manager.cell("events", 0).received == 3


def test_a_seek_back_is_told_at_once() -> None:
    """To the manager as the local offset, and to the source: nothing is received of the partition any more."""
    harness = GateHarness()
    harness.release(0, 5)
    harness.submit(0, *range(10))
    harness.gate.buffers.report_local_offsets()
    assert (harness.local(0), harness.manager.cell("events", 0).received) == (5, 10)
    harness.gate.buffers.seek(partition(0), 2)
    assert harness.local(0) == 2
    assert harness.manager.cell("events", 0).received is None


def test_the_source_sees_how_far_was_read_before_a_seek_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A partition that ends before that was truncated."""
    harness = GateHarness()
    harness.hold(0, *range(10))
    cell = harness.manager.cell("events", 0)
    seen: list[int | None] = []
    monkeypatch.setattr(harness.source, "assign", lambda positions, watermarks: seen.append(cell.received))
    harness.gate.buffers.seek(partition(0), 6)
    assert (seen, cell.received) == ([10], None)


@pytest.mark.parametrize("end", ["join", "terminate"])
def test_the_source_sees_how_far_was_read_as_partitions_are_taken_away(
    end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the next assignment one that ends before that was truncated."""
    harness = GateHarness()
    harness.hold(0, *range(10))
    cell = harness.manager.cell("events", 0)
    seen: list[int | None] = []
    monkeypatch.setattr(harness.source, "revoke", lambda partitions: seen.append(cell.received))
    harness.gate.close()
    getattr(harness.gate, end)()
    assert (seen, cell.received) == ([10], None)


def test_order_a_seek_forward_keeps_what_is_held() -> None:
    """It was read, so it goes on first, and then what comes from there on; nothing needs proof again."""
    harness = GateHarness()
    harness.hold(0, 0, 1)
    harness.gate.buffers.seek(partition(0), 50)
    harness.hold(0, 50)
    harness.release(0, 51)
    harness.poll_until_empty()
    assert harness.step.taken == [(0, 0), (0, 1), (0, 50)]
    assert harness.source.calls == []


def test_progress_a_message_that_is_read_again_and_still_proven_goes_on_with_the_next_poll() -> None:
    """No remote offset moves then, so nothing else would make the gate look at it."""
    harness = GateHarness({0: 3})
    harness.release(0, 5)
    harness.submit(0, 3, 4)
    harness.submit(0, 3, 4)
    harness.poll_until_empty()
    assert harness.step.taken == [(0, 3), (0, 4), (0, 3), (0, 4)]


def test_order_a_seek_to_the_same_place_changes_nothing() -> None:
    """Arroyo's consumer seeks to its own position with every pause."""
    harness = GateHarness()
    harness.hold(0, 0, 1)
    harness.gate.buffers.seek(partition(0), 2)
    harness.gate.buffers.seek(partition(7), 2)
    assert (harness.held(), harness.source.calls) == ({0: [0, 1]}, [])


def test_loud_reading_again_is_a_line_that_names_both_offsets(caplog: pytest.LogCaptureFixture) -> None:
    """A position that moved back without a rebalance is worth knowing."""
    caplog.set_level(logging.INFO)
    harness = GateHarness({0: 10})
    harness.hold(0, 3)
    assert "events[0]: reading again from 3, back from 10" in [record.getMessage() for record in caplog.records]


def test_what_is_held_below_a_seek_goes_on_and_what_the_processor_carries_does_not() -> None:
    """The processor carries 4, which the full gate rejected; the leaders move before it submits that again."""
    harness = GateHarness()
    harness.hold(0, 0, 1, 2, 3)
    harness.gate.buffers.seek(partition(0), 2)
    harness.gate.buffers.discard_carried(partition(0), 4)
    harness.release(0, 10)
    harness.gate.poll()
    harness.submit(0, 4)
    harness.submit(0, *range(2, 6))
    assert harness.step.taken == [(0, offset) for offset in range(6)]
    assert harness.held() == {}


def thrown_away() -> GateHarness:
    """A seek back to 3 throws 5 away, which the processor carried; 0 to 4 have been handed on."""
    harness = GateHarness()
    harness.release(0, 20)
    harness.submit(0, *range(5))
    harness.gate.buffers.seek(partition(0), 3)
    harness.gate.buffers.discard_carried(partition(0), 5)
    return harness


def test_no_loss_a_carried_message_that_was_found_invalid_is_taken_if_it_is_read_again() -> None:
    """The processor carries it no more. What lay before it is compacted away, so it comes at once."""
    harness = thrown_away()
    harness.step.poll_errors = [InvalidMessage(partition(0), 5)]
    with pytest.raises(InvalidMessage):
        harness.gate.poll()
    harness.submit(0, 5)
    harness.poll_until_empty()
    assert harness.step.taken[-2:] == [(0, 4), (0, 5)]


def test_a_partition_whose_carried_message_was_thrown_away_is_open_again() -> None:
    """So a consumer without a message waits for the next one no longer than a slice."""
    harness = thrown_away()
    assert not harness.gate.buffers.has_open()
    harness.submit(0, 5)
    assert harness.gate.buffers.has_open()
    assert harness.step.taken == [(0, offset) for offset in range(5)]


def test_no_message_is_carried_of_a_partition_that_takes_none() -> None:
    """As one that isn't assigned, or any once the gate is closed."""
    harness = GateHarness()
    harness.gate.close()
    assert [harness.gate.buffers.carried_offset(partition(index), 7) for index in (0, 3)] == [None, None]
