"""The gate's seven promises, by their names."""

from __future__ import annotations

import logging
from collections import Counter
from contextlib import suppress

import pytest
from arroyo.dlq import InvalidMessage
from arroyo.processing.strategies.abstract import MessageRejected

from arroyo_sync.core.errors import SourceDied
from arroyo_sync.core.state import SynchronizedPartitionState
from arroyo_sync.gate.partition_buffer import MESSAGE_OVERHEAD_BYTES, HoldLimits
from arroyo_sync.gate.strategy import POLL_INTERVAL_SECONDS
from tests.support.fakes import At, partition
from tests.support.harness import GateHarness

# 1. Safety.


@pytest.mark.parametrize(
    ("remote", "taken"), [(None, 0), (0, 0), (3, 0), (4, 1), (5, 2), (6, 3), (9, 3)], ids=lambda value: str(value)
)
@pytest.mark.parametrize("is_held_first", [False, True], ids=["submitted", "held"])
def test_safety_nothing_goes_on_at_or_past_the_remote_offset(
    remote: int | None, taken: int, is_held_first: bool
) -> None:
    """Of the messages 3, 4 and 5 exactly those below it go on, whichever comes first, they or the offset."""
    harness = GateHarness({0: 3})
    if is_held_first:
        harness.hold(0, 3, 4, 5)
        harness.release(0, remote)
    else:
        harness.release(0, remote)
        harness.submit(0, 3, 4, 5)
    harness.poll_until_empty()
    assert harness.step.taken == [(0, offset) for offset in (3, 4, 5)[:taken]]


@pytest.mark.parametrize("remote", [3, None], ids=["back", "unknown again"])
def test_safety_a_leader_that_goes_back_closes_the_gate_in_the_middle_of_a_slice(remote: int | None) -> None:
    """The remote offset is read for every message, not once a poll."""
    harness = GateHarness()
    harness.hold(0, *range(10))
    harness.release(0, 10)

    def go_back(at: At) -> None:
        if at == (0, 4):
            harness.release(0, remote)

    harness.step.before_submit = go_back
    harness.poll_until_empty()
    assert harness.step.taken == [(0, offset) for offset in range(5)]
    assert harness.held() == {0: [5, 6, 7, 8, 9]}


@pytest.mark.parametrize("look", ["poll", "submit"])
@pytest.mark.parametrize("remote", [1, None], ids=["back", "unknown again"])
def test_safety_a_leader_that_went_back_holds_what_it_had_released(remote: int | None, look: str) -> None:
    """Left-over messages wait again, and nothing counts as left over that may not go on."""
    harness = GateHarness()
    harness.hold(0, 0, 1, 2)
    harness.step.room = 1
    harness.release(0, 3)
    harness.gate.poll()
    assert harness.gate.buffers.released
    harness.step.room = None
    harness.release(0, remote)
    if look == "poll":
        harness.gate.poll()
    else:
        harness.submit(0, 3)
    assert harness.step.taken == [(0, 0)]
    assert not harness.gate.buffers.released
    harness.submit(0, 4)
    assert harness.step.taken == [(0, 0)]


# 2. Order.


def test_order_is_kept_whatever_moves_in_between() -> None:
    """Releases, rejections and polls in any mixture: each partition's messages go on in offset order, each once."""
    harness = GateHarness({0: 0, 1: 0})
    for offset in range(60):
        for index in (0, 1):
            harness.submit(index, offset)
            if offset % (3 + index) == 0:
                harness.release(index, offset - 2 * index if offset > 5 else 0)
            harness.step.room = offset % 4 if offset % 3 else None
            harness.gate.poll()
            harness.step.room = None
    harness.release(0, 60)
    harness.release(1, 60)
    harness.poll_until_empty()
    for index in (0, 1):
        assert [offset for each, offset in harness.step.taken if each == index] == list(range(60))


# 3. No loss.


def test_no_loss_the_local_offset_never_passes_a_message_that_waits() -> None:
    """BufferedMessage, left over or rejected: the manager is told the oldest message that has not gone on."""
    harness = GateHarness()
    harness.release(0, 1)
    harness.submit(0, 0)
    harness.hold(0, 1, 2, 3)
    harness.gate.buffers.report_local_offsets()
    assert harness.local(0) == 1
    harness.step.room = 1
    harness.release(0, 4)
    harness.gate.poll()
    harness.gate.buffers.report_local_offsets()
    assert harness.local(0) == 2
    harness.step.refuse((0, 2), InvalidMessage(partition(0), 2))
    with pytest.raises(InvalidMessage):
        harness.gate.poll()
    harness.gate.buffers.report_local_offsets()
    assert harness.local(0) == 3


# 4. Progress.


def test_progress_a_poll_after_the_remote_offset_moved_hands_on() -> None:
    """Without a new message, and without the clock moving."""
    harness = GateHarness()
    harness.hold(0, 0, 1, 2)
    harness.gate.poll()
    for remote in (1, 2, 3):
        harness.release(0, remote)
        harness.gate.poll()
        assert harness.step.taken == [(0, offset) for offset in range(remote)]


def test_progress_a_remote_offset_that_moved_ahead_of_the_messages_holds_none() -> None:
    """Catching up costs no waiting at all."""
    harness = GateHarness()
    harness.release(0, 1_000)
    harness.submit(0, *range(1_000))
    assert len(harness.step.taken) == 1_000


def test_progress_a_poll_ends_with_its_slice_and_the_next_one_goes_on() -> None:
    """So that the processor, and the consumer's rebalances, have their turn however much was released."""
    harness = GateHarness(slice_seconds=0.005)
    harness.hold(0, *range(100))
    harness.release(0, 100)

    def take_a_millisecond(at: At) -> None:
        harness.clock.now += 0.001

    harness.step.before_submit = take_a_millisecond
    harness.gate.poll()
    assert 1 <= len(harness.step.taken) <= 6
    assert harness.gate.buffers.released
    harness.poll_until_empty()
    assert harness.step.taken == [(0, offset) for offset in range(100)]


def test_progress_a_slice_is_over_when_its_time_is() -> None:
    """At the very moment, and not a message later."""
    harness = GateHarness(slice_seconds=0.5)
    harness.hold(0, *range(10))
    harness.release(0, 10)

    def take_a_quarter_second(at: At) -> None:
        harness.clock.now += 0.25

    harness.step.before_submit = take_a_quarter_second
    harness.gate.poll()
    assert harness.step.taken == [(0, 0), (0, 1)]


def test_progress_one_poll_hands_on_what_was_released_in_every_partition() -> None:
    """A partition that has nothing more to hand on ends its own turn, and not the slice."""
    harness = GateHarness({0: 0, 1: 0, 2: 0})
    for index in range(3):
        harness.hold(index, 0, 1)
        harness.release(index, 1 + index % 2)
    harness.gate.poll()
    assert sorted(harness.step.taken) == [(0, 0), (1, 0), (1, 1), (2, 0)]
    assert not harness.gate.buffers.released


# 5. Independence.


def test_independence_a_partition_that_waits_delays_no_other() -> None:
    """The others' messages go on at once, new ones and held ones, for however long it waits."""
    harness = GateHarness({0: 0, 1: 0, 2: 0})
    harness.hold(0, *range(500))
    harness.hold(1, 0, 1)
    harness.release(2, 10)
    harness.submit(2, *range(10))
    assert harness.step.taken == [(2, offset) for offset in range(10)]
    harness.release(1, 2)
    harness.gate.poll()
    assert harness.step.taken[10:] == [(1, 0), (1, 1)]


def test_independence_a_long_line_leaves_turns_to_the_others() -> None:
    """Messages are released in all partitions in turns, and not one partition to its end."""
    harness = GateHarness({0: 0, 1: 0})
    for index in (0, 1):
        harness.hold(index, *range(500))
        harness.release(index, 500)
    harness.gate.poll()  # each line hands on one message as it opens, and a few in a round, whatever the turns are
    harness.step.taken.clear()
    harness.poll_until_empty()
    assert {index for index, _ in harness.step.taken[:200]} == {0, 1}


@pytest.mark.parametrize("why", ["slices end", "the next step rejects"])
def test_independence_a_long_line_does_not_use_up_every_slice(why: str) -> None:
    """However few messages a slice lets through, each line has its turn after a few slices."""
    harness = GateHarness({0: 0, 1: 0}, slice_seconds=0.005)
    harness.hold(0, *range(1_000))
    harness.hold(1, 0, 1, 2)

    def take_two_milliseconds(at: At) -> None:
        harness.clock.now += 0.002

    def poll() -> None:
        if why == "the next step rejects":
            harness.step.room = 3
        harness.gate.poll()

    if why == "slices end":
        harness.step.before_submit = take_two_milliseconds
    harness.release(0, 1_000)
    poll()
    harness.release(1, 3)  # last, so that the long line stands before it in the queue
    poll()
    assert harness.step.taken[3] == (1, 0)
    harness.step.taken.clear()  # a line hands on one message as it opens, whatever the turns are
    for _ in range(4):
        poll()
    assert {index for index, _ in harness.step.taken} == {0, 1}


@pytest.mark.parametrize("why", ["slices end", "the next step rejects"])
def test_independence_long_lines_share_the_slices(why: str) -> None:
    """Whatever ends a line's turn, the other is next: neither waits until the other is through."""
    harness = GateHarness({0: 0, 1: 0}, slice_seconds=0.5)
    for index in (0, 1):
        harness.hold(index, *range(500))
        harness.release(index, 500)

    def take_a_quarter_second(at: At) -> None:
        harness.clock.now += 0.25

    if why == "slices end":
        harness.step.before_submit = take_a_quarter_second
    for _ in range(20):
        if why == "the next step rejects":
            harness.step.room = 2
        harness.gate.poll()
    taken = Counter(index for index, _ in harness.step.taken)
    assert taken.total() == 40
    assert min(taken[0], taken[1]) >= 19, taken


def test_independence_every_line_that_opens_hands_on_one_message_before_any_hands_on_a_second() -> None:
    """Leaders commit all partitions at once: no release waits until another one's messages are through."""
    harness = GateHarness({0: 0, 1: 0, 2: 0})
    for index in range(3):
        harness.hold(index, *range(100))
    for index in range(3):
        harness.release(index, 100)
    harness.poll_until_empty()
    assert sorted(harness.step.taken[:3]) == [(0, 0), (1, 0), (2, 0)]


def turns_of_the_processor(harness: GateHarness, at: At, count: int, room: int | None = None) -> int:
    """How many turns it takes to hand a message to the gate that the consumer has just brought.

    :param room: of the next step, anew in each turn.
    """
    for turn in range(1, count + 1):
        harness.step.room = room
        harness.gate.poll()
        with suppress(MessageRejected):
            harness.submit(*at)
            return turn
    raise AssertionError(f"not taken in {count} turns")


@pytest.mark.parametrize("room", [1, 3, 50])
def test_independence_what_comes_need_not_wait_until_all_that_is_released_is_through(room: int) -> None:
    """Of a step that rejects, a drain took all the room that there was, and nothing else was received meanwhile."""
    harness = GateHarness({0: 0, 1: 0}, poll_interval_seconds=POLL_INTERVAL_SECONDS)
    harness.hold(0, *range(1_000))
    harness.release(0, 1_000)
    harness.release(1, 100)
    turns = [turns_of_the_processor(harness, (1, offset), 2, room) for offset in range(100)]
    of_the_line = sum(index == 0 for index, _ in harness.step.taken)
    assert of_the_line >= 100, "nor the other way round"
    assert sum(turns) <= (100 if room > 3 else 200), "with room for both, at once"


def test_independence_a_partition_that_the_next_step_rejects_holds_up_no_line() -> None:
    """The room is left to its message every other time at most."""
    harness = GateHarness({0: 0, 1: 0})
    harness.hold(0, *range(100))
    harness.release(0, 100)
    harness.release(1, 1)
    harness.step.refuse((1, 0), *(MessageRejected() for _ in range(9)))
    assert turns_of_the_processor(harness, (1, 0), 10) == 10
    assert harness.step.taken[:100] == [(0, offset) for offset in range(100)]


@pytest.mark.parametrize("is_held", [False, True])
def test_independence_while_messages_come_a_line_hands_on_two_for_each(is_held: bool) -> None:
    """It was a slice for each: an open partition got one message in five milliseconds, however fast the step is.

    Two, so that it gets shorter though the messages are its own partition's.
    """
    harness = GateHarness({0: 0, 1: 0, 2: 0})
    for index in (0, 1):
        harness.hold(index, *range(100))
        harness.release(index, 200)
    harness.gate.poll()
    harness.step.taken.clear()
    index = 0 if is_held else 2
    harness.release(2, 200)
    for offset in range(100, 120) if is_held else range(20):
        harness.submit(index, offset)
        harness.gate.poll()
    assert len([at for at in harness.step.taken if at[0] == 1]) == 40
    assert len([at for at in harness.step.taken if at[0] == 0]) == 40
    assert len([at for at in harness.step.taken if at[0] == 2]) == (0 if is_held else 20)
    harness.gate.poll()  # the consumer had none
    assert harness.held() == {}


def test_independence_a_line_that_drained_with_a_round_and_opens_again_is_next() -> None:
    """It counted as one that drains, since nobody had looked whether more of it was released."""
    harness = GateHarness({0: 0, 1: 0, 2: 0})
    for index in (0, 1):
        harness.hold(index, *range(100))
    harness.gate.poll()
    harness.release(0, 100)
    harness.release(2, 100)
    harness.submit(2, 0)
    harness.gate.poll()
    harness.release(1, 3)
    harness.submit(2, 1)
    harness.gate.poll()
    assert [at for at in harness.step.taken if at[0] == 1] == [(1, 0), (1, 1), (1, 2)]
    harness.clock.now += 1.0
    harness.step.taken.clear()
    harness.release(1, 6)
    harness.gate.poll()
    assert harness.step.taken[0] == (1, 3)
    (opened,) = [buffer for buffer in harness.gate.buffers if buffer.partition.index == 1]
    assert opened.release is not None
    assert opened.release.at == harness.clock.now


@pytest.mark.parametrize("lines", [1, 4, 100])
def test_independence_however_many_lines_drain_a_message_that_comes_waits_for_eight(lines: int) -> None:
    """And no line for ever: they take turns from one round to the next."""
    harness = GateHarness(dict.fromkeys(range(lines + 1), 0))
    for index in range(lines):
        harness.hold(index, *range(30))
        harness.release(index, 30)
    harness.release(lines, 1_000)
    harness.submit(lines, 0)
    harness.gate.poll()  # each has its first message
    for offset in range(1, 51):
        before = len(harness.step.taken)
        harness.submit(lines, offset)
        harness.gate.poll()
        assert len(harness.step.taken) - before <= 1 + 2 * 4
    if lines == 100:
        of_each = Counter(index for index, _ in harness.step.taken)
        assert {of_each[index] for index in range(lines)} == {5, 7}


@pytest.mark.parametrize("count", [1, 5, 60])
def test_independence_lines_that_open_beside_a_long_one_give_it_no_more_turns(count: int) -> None:
    """Each has its one message; of the long one two more go on, for the message that came."""
    harness = GateHarness(dict.fromkeys(range(count + 2), 0))
    for index in range(count + 1):
        harness.hold(index, *range(300))
    harness.release(0, 300)
    harness.release(count + 1, 9)
    harness.submit(count + 1, 0)
    for index in range(1, count + 1):
        harness.release(index, 1)
    harness.step.taken.clear()
    harness.gate.poll()
    assert Counter(index for index, _ in harness.step.taken) == {
        index: 1 + 2 * (index == 0) for index in range(count + 1)
    }


def test_independence_a_line_that_drained_as_the_slice_ended_and_opens_again_is_next() -> None:
    """Of a slow step every message ends one."""
    harness = GateHarness({0: 0, 1: 0})
    for index in range(2):
        harness.hold(index, *range(100))
    harness.gate.poll()
    harness.release(0, 100)
    harness.release(1, 1)

    def take_long(at: At) -> None:
        harness.clock.now += 0.01

    harness.step.before_submit = take_long
    for _ in range(2):
        harness.gate.poll()
    assert (1, 0) in harness.step.taken
    harness.release(1, 2)
    harness.step.taken.clear()
    harness.gate.poll()
    assert harness.step.taken == [(1, 1)]


def test_progress_a_drain_waits_for_no_other_where_all_have_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a partition still holds, having forwarded all that was released, won't open in the next moment."""
    harness = GateHarness({0: 0, 1: 0})
    for index in range(2):
        harness.hold(index, *range(100))
    harness.gate.poll()
    waits: list[float] = []
    monkeypatch.setattr(harness.manager, "wait_for_move", lambda version, timeout: waits.append(timeout))
    for offset in range(1, 50):
        harness.release(0, offset)
        harness.release(1, offset)
        harness.gate.poll()
    assert len(harness.step.taken) == 2 * 49
    assert waits == []


def test_independence_a_line_that_opens_while_another_drains_is_next() -> None:
    """The gate sees it at the drain's next message, not when its slice ends."""
    harness = GateHarness({0: 0, 1: 0})
    for index in range(2):
        harness.hold(index, *range(100))
    harness.gate.poll()

    def open_the_other(at: At) -> None:
        if at == (0, 9):
            harness.release(1, 100)

    harness.step.before_submit = open_the_other
    harness.release(0, 100)
    harness.gate.poll()
    assert harness.step.taken[:11] == [*((0, offset) for offset in range(10)), (1, 0)]


@pytest.mark.parametrize("held", [1, 100])
def test_independence_a_drain_begins_when_the_others_had_a_moment_to_open(
    held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A leader's commit of several partitions comes in several fetches, which the source's thread can take in now."""
    harness = GateHarness({0: 0, 1: 0, 2: 0})
    waits: list[float] = []

    def open_the_next(version: int, timeout: float) -> bool:
        waits.append(timeout)
        harness.release(len(waits), held)
        return True

    monkeypatch.setattr(harness.manager, "wait_for_move", open_the_next)
    for index in range(3):
        harness.hold(index, *range(held))
    harness.release(0, held)
    harness.poll_until_empty()
    assert harness.step.taken[:3] == [(0, 0), (1, 0), (2, 0)]
    assert len(harness.step.taken) == 3 * held
    assert len(waits) == 2, "none is left that could open"
    assert max(waits) < 0.001


def test_a_line_that_opens_and_shuts_before_its_turn_hands_on_nothing() -> None:
    """Leaders commit two partitions, and go back in the one whose turn has not come."""
    harness = GateHarness({0: 0, 1: 0})
    for index in range(2):
        harness.hold(index, *range(3))

    def shut_the_other(at: At) -> None:
        if at[1] == 0:
            harness.release(1 - at[0], 0)

    harness.step.before_submit = shut_the_other
    for index in range(2):
        harness.release(index, 3)
    harness.poll_until_empty()
    taken = {index for index, _ in harness.step.taken}
    assert len(taken) == 1
    assert list(harness.held().values()) == [[0, 1, 2]]


# 6. Bounded.


def test_bounded_a_full_partition_rejects_and_keeps_nothing_of_it() -> None:
    """Without a consumer that pauses, Arroyo carries the message and tries again; other partitions are not full."""
    harness = GateHarness({0: 0, 1: 0}, limits=HoldLimits(messages=3, resume_messages=1))
    harness.hold(0, 0, 1, 2)
    for _ in range(3):
        with pytest.raises(MessageRejected):
            harness.submit(0, 3)
    harness.hold(1, 0)
    assert harness.gate.buffers.held_messages == 4
    harness.release(0, 1)
    harness.gate.poll()
    harness.hold(0, 3)
    assert harness.held() == {0: [1, 2, 3], 1: [0]}


def test_bounded_in_bytes_too() -> None:
    """Payload and overhead count; one message may pass the limit, or it could never be read."""
    weight = MESSAGE_OVERHEAD_BYTES + 1_000
    harness = GateHarness(limits=HoldLimits(bytes=2 * weight, resume_bytes=weight))
    harness.submit(0, 0, 1, value=b"x" * 1_000)
    with pytest.raises(MessageRejected):
        harness.submit(0, 2)
    harness.release(0, 2)
    harness.gate.poll()
    harness.submit(0, 2, value=b"x" * 10 * weight)
    assert harness.held() == {0: [2]}
    with pytest.raises(MessageRejected):
        harness.submit(0, 3)


def test_bounded_released_messages_pass_a_full_partition_by() -> None:
    """The limit is for what is held: another partition's released messages are never rejected for it."""
    harness = GateHarness({0: 0, 1: 0}, limits=HoldLimits(messages=1, resume_messages=0))
    harness.hold(0, 0)
    harness.release(1, 5)
    harness.submit(1, *range(5))
    assert harness.gate.buffers.held_messages == 1


# 7. Loud.


def test_loud_a_leader_that_went_back_behind_the_follower_is_a_state_and_a_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whoever watches the states sees it at once."""
    caplog.set_level(logging.INFO)
    harness = GateHarness()
    harness.release(0, 2)
    harness.submit(0, 0, 1)
    harness.gate.buffers.report_local_offsets()
    harness.release(0, 1)
    assert harness.states[-1] == (0, SynchronizedPartitionState.REMOTE_BEHIND)
    assert "events[0]: remote offset moved back from 2 to 1" in caplog.text


def test_loud_a_dead_source_is_never_swallowed() -> None:
    """The same error out of every call, so the processor ends whichever it makes first."""
    harness = GateHarness()
    harness.source.die(OSError("broken"))
    for call in (harness.gate.poll, lambda: harness.submit(0, 0), harness.gate.poll):
        with pytest.raises(SourceDied, match="broken"):
            call()
