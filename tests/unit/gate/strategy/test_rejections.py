"""What the next step rejects or finds invalid: nothing is lost, doubled or out of order, and Arroyo hears of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import pytest
from arroyo.dlq import InvalidMessage
from arroyo.processing.strategies.abstract import MessageRejected
from arroyo.types import Partition, Topic

from arroyo_sync.gate.partition_buffer import BufferedMessage
from tests.support.fakes import At, partition
from tests.support.harness import GateHarness


def invalid(at: At) -> InvalidMessage:
    return InvalidMessage(partition(at[0]), at[1])


def gate_with_downstream(taken: list[int], held: list[int]) -> GateHarness:
    """Partition 0 with these messages gone on, and these held; partition 1 with two that are held."""
    harness = GateHarness({0: 0, 1: 0})
    harness.release(0, len(taken))
    harness.submit(0, *taken)
    harness.hold(0, *held)
    harness.hold(1, 0, 1)
    harness.step.taken.clear()
    return harness


# Rejections.


def test_a_rejected_message_was_not_taken() -> None:
    """Out of submit the rejection goes up, and Arroyo submits the message again: it goes on once."""
    harness = GateHarness()
    harness.release(0, 1)
    harness.step.refuse((0, 0), MessageRejected(), MessageRejected())
    for _ in range(2):
        with pytest.raises(MessageRejected):
            harness.submit(0, 0)
        assert harness.held() == {}
    harness.submit(0, 0)
    assert harness.step.taken == [(0, 0)]


def test_a_rejection_in_poll_leaves_the_head_in_line_and_stays_inside() -> None:
    """Out of poll it would end the processor. The rest follows with later polls, in order."""
    harness = GateHarness()
    harness.hold(0, *range(4))
    harness.release(0, 4)
    for room in (1, 0, 2, 0, 1):
        harness.step.room = room
        harness.gate.poll()
        assert harness.step.room == 0
        assert harness.gate.drain.was_rejected is (len(harness.step.taken) < 4)
        assert bool(harness.gate.buffers.released) is (len(harness.step.taken) < 4)
    assert harness.step.taken == [(0, offset) for offset in range(4)]
    assert harness.gate.buffers.held_messages == 0


def test_a_new_message_waits_behind_a_rejected_one() -> None:
    """Though it is released and the step would take it by now."""
    harness = GateHarness()
    harness.hold(0, 0)
    harness.step.room = 0
    harness.release(0, 2)
    harness.gate.poll()
    harness.step.room = None
    harness.submit(0, 1)
    assert harness.step.taken == []
    harness.gate.poll()
    assert harness.step.taken == [(0, 0), (0, 1)]


def test_a_rejection_ends_the_slice() -> None:
    """The step is left alone until the next poll, and it is polled before it is asked again."""
    harness = GateHarness({0: 0, 1: 0})
    harness.hold(0, 0)
    harness.hold(1, 0)
    harness.release(0, 1)
    harness.release(1, 1)
    attempts: list[At] = []
    harness.step.before_submit = attempts.append
    harness.step.room = 0
    harness.gate.poll()
    assert len(attempts) == 1
    harness.step.room_after_poll = 1
    harness.gate.poll()
    assert len(harness.step.taken) >= 1


def test_a_rejection_counts_until_the_next_poll_and_a_new_message_s_counts_too() -> None:
    """It says whether to leave the step alone for a moment: not once the message that was rejected has gone on."""
    harness = GateHarness({0: 0, 1: 0})
    harness.hold(0, 0)
    harness.step.room = 0
    harness.release(0, 1)
    harness.release(1, 1)
    harness.gate.poll()
    assert harness.gate.drain.was_rejected
    with pytest.raises(MessageRejected):
        harness.submit(1, 0)
    harness.gate.poll()  # which leaves the room to that message
    assert not harness.gate.drain.was_rejected
    with pytest.raises(MessageRejected):
        harness.submit(1, 0)
    assert harness.gate.drain.was_rejected
    harness.gate.poll()
    assert harness.gate.drain.was_rejected


# Invalid messages. The exception always goes up, so that Arroyo's dead letters work.


def test_the_submitted_message_found_invalid_is_done_with() -> None:
    """Arroyo drops it, so the gate must count it as received, and the next one goes on."""
    harness = GateHarness()
    harness.release(0, 2)
    harness.step.refuse((0, 0), invalid((0, 0)))
    with pytest.raises(InvalidMessage):
        harness.submit(0, 0)
    harness.gate.buffers.report_local_offsets()
    assert harness.local(0) == 1
    harness.submit(0, 1)
    assert harness.step.taken == [(0, 1)]


def test_the_last_message_found_invalid_does_not_leave_the_local_offset_behind() -> None:
    """Or the partition would never be synchronized."""
    harness = GateHarness()
    harness.release(0, 1)
    harness.step.refuse((0, 0), invalid((0, 0)))
    with pytest.raises(InvalidMessage):
        harness.submit(0, 0)
    harness.clock.now += 1.0
    harness.gate.poll()
    assert harness.local(0) == 1


def test_an_earlier_message_found_invalid_leaves_the_submitted_one_untaken() -> None:
    """Arroyo submits that one again, so it must not have been kept, or it would go on twice."""
    harness = gate_with_downstream(taken=[0, 1], held=[])
    harness.release(0, 3)
    harness.step.refuse((0, 2), invalid((0, 1)))
    with pytest.raises(InvalidMessage) as raised:
        harness.submit(0, 2)
    assert raised.value.offset == 1
    assert harness.held() == {1: [0, 1]}
    harness.submit(0, 2)
    harness.gate.poll()
    assert harness.step.taken == [(0, 2)]


def test_the_head_found_invalid_in_poll_leaves_the_line() -> None:
    """It alone; the next poll goes on with the rest."""
    harness = gate_with_downstream(taken=[], held=[0, 1, 2])
    harness.release(0, 3)
    harness.step.refuse((0, 1), invalid((0, 1)))
    with pytest.raises(InvalidMessage):
        harness.gate.poll()
    assert harness.held() == {0: [2], 1: [0, 1]}
    harness.poll_until_empty()
    assert harness.step.taken == [(0, 0), (0, 2)]


def test_an_earlier_message_found_invalid_in_poll_leaves_the_head_in_line() -> None:
    """The named one is not in line any more; the head was not taken and is handed on with the next poll."""
    harness = gate_with_downstream(taken=[0, 1], held=[2, 3])
    harness.release(0, 4)
    harness.step.refuse((0, 2), invalid((0, 0)))
    with pytest.raises(InvalidMessage) as raised:
        harness.gate.poll()
    assert raised.value.offset == 0
    assert harness.held() == {0: [2, 3], 1: [0, 1]}
    harness.poll_until_empty()
    assert harness.step.taken == [(0, 2), (0, 3)]


def test_a_message_of_another_partition_found_invalid_leaves_both_lines_alone() -> None:
    """A partition that the gate doesn't have, and an offset that it doesn't hold, change nothing."""
    for named in (invalid((1, 7)), invalid((5, 0)), InvalidMessage(Partition(Topic("others"), 1), 0)):
        harness = gate_with_downstream(taken=[], held=[0])
        harness.release(0, 1)
        harness.step.refuse((0, 0), named)
        with pytest.raises(InvalidMessage):
            harness.gate.poll()
        assert harness.held() == {0: [0], 1: [0, 1]}
        harness.poll_until_empty()
        assert harness.step.taken == [(0, 0)]


@pytest.mark.parametrize("where", ["poll", "poll between two messages", "submit", "submit of a held one"])
@pytest.mark.parametrize("named", [(0, 1), (1, 0)], ids=["the same partition", "another partition"])
def test_a_held_message_found_invalid_leaves_its_line(where: str, named: At) -> None:
    """A step may know it from an attempt that it rejected in the end. Arroyo drops it, so it must not go on."""
    harness = GateHarness({0: 0, 1: 0, 2: 0})
    harness.hold(0, 0, 1, 2)
    harness.hold(1, 0, 1)
    if where == "poll":
        harness.step.poll_errors = [invalid(named)]
    elif where == "poll between two messages":
        harness.release(0, 1)
        harness.step.before_submit = lambda at: harness.step.poll_errors.append(invalid(named))
    elif where == "submit":
        harness.release(2, 1)
        harness.step.refuse((2, 0), invalid(named))
    else:
        harness.release(0, 3)
        harness.step.refuse((0, 0), invalid(named))
    with pytest.raises(InvalidMessage):
        harness.submit(2, 0) if where == "submit" else harness.gate.poll()
    harness.step.before_submit = lambda at: None
    assert harness.gate.buffers.held_messages == sum(len(offsets) for offsets in harness.held().values())
    harness.release(0, 3)
    harness.release(1, 2)
    harness.poll_until_empty()
    assert named not in harness.step.taken
    assert sorted([*harness.step.taken, named]) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]


def test_an_invalid_message_makes_room_in_a_full_partition() -> None:
    """It leaves the line as any other does, so that the partition may be resumed."""
    harness = gate_with_downstream(taken=[], held=[0])
    before = harness.gate.buffers.held_messages
    harness.release(0, 1)
    harness.step.refuse((0, 0), invalid((0, 0)))
    with pytest.raises(InvalidMessage):
        harness.gate.poll()
    assert harness.gate.buffers.held_messages == before - 1


def test_whoever_names_a_message_that_was_handed_on_looks_at_no_line() -> None:
    """As most do, of a step with threads or a dead-letter queue: a long line cost each a millisecond."""
    harness = gate_with_downstream([0, 1, 2], list(range(3, 100)))
    looked_at: list[int] = []

    class Line(deque[BufferedMessage]):
        def __iter__(self) -> Iterator[BufferedMessage]:
            for each in super().__iter__():
                looked_at.append(each.offset)
                yield each

    buffer = harness.gate.buffers.by_index[0]
    buffer.held = Line(buffer.held)
    for offset in (1, 2):
        harness.step.poll_errors = [invalid((0, offset))]
        with pytest.raises(InvalidMessage):
            harness.gate.poll()
    assert looked_at == [3, 3]
    harness.step.poll_errors = [invalid((0, 5))]
    with pytest.raises(InvalidMessage):
        harness.gate.poll()
    assert harness.held()[0] == [3, 4, *range(6, 100)]


def test_a_line_whose_only_message_is_found_invalid_as_it_opens_has_no_turn() -> None:
    """The step's poll, which comes before its turn, names it: nothing is left of the line."""
    harness = GateHarness()
    harness.hold(0, 0)
    harness.release(0, 1)
    harness.step.poll_errors = [InvalidMessage(partition(0), 0)]
    with pytest.raises(InvalidMessage):
        harness.gate.poll()
    buffers = harness.gate.buffers
    assert (dict(buffers.opened), dict(buffers.released), harness.held()) == ({}, {}, {})


def test_a_line_that_closes_again_before_its_turn_has_none() -> None:
    """A leader went back at once."""
    harness = GateHarness()
    harness.hold(0, 0)
    buffers = harness.gate.buffers
    for remote, opened in ((1, 1), (0, 0)):
        harness.release(0, remote)
        buffers.refresh_remote_offsets()
        assert (len(buffers.opened), len(buffers.released)) == (opened, opened)
    harness.gate.poll()
    assert (harness.step.taken, harness.held()) == ([], {0: [0]})
