"""How often the gate polls the next step: as Arroyo does, but once a millisecond while messages follow each other."""

from __future__ import annotations

import pytest
from arroyo.dlq import InvalidMessage
from arroyo.processing.strategies import MessageRejected

from arroyo_sync.gate.flow_control import FlowControlledConsumer
from arroyo_sync.gate.strategy import POLL_INTERVAL_SECONDS
from tests.support.fakes import EVENTS, At, ScriptedConsumer, partition
from tests.support.harness import GateHarness


def streaming(harness: GateHarness, count: int) -> None:
    """The processor's loop over released messages: a poll, then a submit."""
    for offset in range(count):
        harness.gate.poll()
        harness.submit(0, offset)


def test_without_an_interval_the_next_step_is_polled_before_every_message() -> None:
    """As Arroyo does it: for a consumer that doesn't look whether a poll is owed."""
    harness = GateHarness({0: 0})
    harness.release(0, 1_000)
    streaming(harness, 50)
    assert harness.step.polls == 50


@pytest.fixture
def harness() -> GateHarness:
    """A gate whose partition 0 is released far ahead."""
    harness = GateHarness({0: 0, 1: 0}, poll_interval_seconds=POLL_INTERVAL_SECONDS)
    harness.release(0, 1_000)
    return harness


def test_while_messages_stream_through_the_next_step_is_polled_once_an_interval(harness: GateHarness) -> None:
    """Fifty messages in no time: the poll before the first one, and the next one when a millisecond is over."""
    streaming(harness, 50)
    polls = harness.step.polls
    assert polls <= 2
    assert harness.gate.drain.needs_poll
    harness.clock.now += 0.001
    harness.gate.poll()
    assert harness.step.polls == polls + 1
    assert harness.gate.drain.needs_poll is False


def test_while_messages_are_held_the_next_step_is_polled_once_an_interval(harness: GateHarness) -> None:
    """It learns nothing from a message that it doesn't get; before the consumer waits, it is polled."""
    for offset in range(50):
        harness.gate.poll()
        harness.submit(1, offset)
    assert harness.step.polls <= 2
    assert harness.gate.drain.needs_poll
    polls = harness.step.polls
    harness.clock.now += POLL_INTERVAL_SECONDS
    harness.gate.poll()
    assert harness.step.polls == polls + 1


def test_a_slow_pipeline_is_polled_before_every_message(harness: GateHarness) -> None:
    """A step that takes a millisecond or more a message sees what it sees without the gate."""
    for offset in range(20):
        harness.gate.poll()
        harness.submit(0, offset)
        harness.clock.now += POLL_INTERVAL_SECONDS
    assert harness.step.polls == 20


def test_an_idle_processor_polls_the_next_step_every_time(harness: GateHarness) -> None:
    """With no message in between nothing is left out, however soon the polls follow."""
    streaming(harness, 5)
    before = harness.step.polls
    harness.gate.poll()  # this one may still be of the stream
    for _ in range(5):
        harness.gate.poll()
    assert harness.step.polls == before + 5


def test_what_is_owed_is_polled_before_a_rejection_goes_up(harness: GateHarness) -> None:
    """A step that makes room when it is polled takes the message, as it would have if it had been polled before it."""
    harness.step.room, harness.step.room_after_poll = 3, 3
    streaming(harness, 30)
    assert [offset for _, offset in harness.step.taken] == list(range(30))


def test_a_step_that_is_full_though_polled_rejects(harness: GateHarness) -> None:
    """Then the processor waits and tries again; nothing was kept."""
    streaming(harness, 3)
    harness.step.room = 0
    harness.gate.poll()
    with pytest.raises(MessageRejected):
        harness.submit(0, 3)
    assert not harness.gate.drain.needs_poll
    harness.step.room = None
    harness.submit(0, 3)
    assert [offset for _, offset in harness.step.taken] == [0, 1, 2, 3]


def test_what_an_owed_poll_raises_comes_out_of_submit_and_keeps_nothing(harness: GateHarness) -> None:
    """It names an earlier message, so Arroyo submits this one again."""
    streaming(harness, 3)
    harness.step.room, harness.step.room_after_poll = 0, None
    harness.gate.poll()
    harness.step.poll_errors = [InvalidMessage(partition(0), 1)]
    with pytest.raises(InvalidMessage):
        harness.submit(0, 3)
    harness.step.room = None
    harness.submit(0, 3)
    assert [offset for _, offset in harness.step.taken] == [0, 1, 2, 3]


def test_a_message_that_is_rejected_twice_goes_up_and_the_poll_in_between_hands_on_nothing(
    harness: GateHarness,
) -> None:
    """The room that it makes is the message's. So is that of the next poll, and not of the one after it."""
    streaming(harness, 3)
    harness.hold(1, *range(9))
    harness.gate.poll()
    assert harness.gate.drain.needs_poll
    harness.release(1, 9)
    polls = harness.step.polls
    harness.step.refuse((0, 3), *(MessageRejected() for _ in range(3)))
    with pytest.raises(MessageRejected):
        harness.submit(0, 3)
    assert harness.step.polls == polls + 1
    assert len(harness.step.errors[0, 3]) == 1
    assert harness.held() == {1: list(range(9))}
    for taken in ([], [(1, offset) for offset in range(9)]):
        harness.step.taken.clear()
        harness.gate.poll()
        assert harness.step.taken == taken


def test_progress_room_is_not_left_twice_in_a_row_to_a_message_that_is_rejected_though_a_poll_was_owed() -> None:
    """The step may reject the messages of its partition alone: what another one holds has the room of every other poll,
    of those that the processor makes."""
    harness = GateHarness({0: 0, 1: 0}, poll_interval_seconds=1.0)
    harness.hold(0, 0)
    harness.gate.poll()
    harness.release(0, 1)
    harness.release(1, 9)
    harness.submit(1, 0)
    harness.step.room = 0
    with pytest.raises(MessageRejected):
        harness.submit(1, 1)
    harness.gate.poll()
    assert harness.gate.drain.needs_poll
    with pytest.raises(MessageRejected):
        harness.submit(1, 1)
    assert harness.step.taken == [(1, 0)]
    harness.step.room = 1
    harness.gate.poll()
    assert harness.step.taken == [(1, 0), (0, 0)]


def test_the_consumer_does_not_wait_while_a_poll_is_owed(harness: GateHarness) -> None:
    """It hands control back at once, so the last messages' results are looked after before a second of waiting."""
    inner = ScriptedConsumer(is_kip848=False)
    consumer = FlowControlledConsumer(inner, harness.manager, lambda: None)
    consumer.attach(harness.gate)
    streaming(harness, 5)
    harness.gate.poll()
    assert harness.gate.drain.needs_poll
    assert consumer.poll(1.0) is None
    assert inner.polls == [0.0]
    harness.gate.poll()
    assert consumer.poll(1.0) is None
    assert inner.polls == [0.0, 0.0, 1.0]


def released_at_once(harness: GateHarness, count: int) -> None:
    """So many messages of partition 1 are held, then released, while the consumer brings nothing more."""
    harness.hold(1, *range(count))
    harness.gate.poll()
    harness.step.polls = 0
    harness.release(1, count)


def test_what_was_held_is_handed_on_with_one_poll_an_interval(harness: GateHarness) -> None:
    """Fifty messages in no time, and the consumer doesn't wait before the poll that is owed."""
    released_at_once(harness, 50)
    harness.gate.poll()
    assert len(harness.step.taken) == 50
    assert harness.step.polls <= 2
    assert harness.gate.drain.needs_poll
    polls = harness.step.polls
    harness.gate.poll()
    assert harness.step.polls == polls + 1
    assert not harness.gate.drain.needs_poll


def test_a_partition_is_open_once_all_that_it_held_was_handed_on() -> None:
    """Though the flow control had looked before, when its messages were released and not handed on yet."""
    harness = GateHarness()
    harness.hold(0, 0)
    harness.release(0, 5)
    harness.gate.buffers.refresh_remote_offsets()
    assert not harness.gate.buffers.has_open()
    harness.poll_until_empty()
    assert harness.gate.buffers.has_open()


def test_without_an_interval_the_next_step_is_polled_after_every_message_that_was_held() -> None:
    harness = GateHarness({0: 0, 1: 0})
    released_at_once(harness, 50)
    harness.gate.poll()
    assert harness.step.polls == 1 + 50


def test_a_slow_step_is_polled_after_every_message_that_was_held(harness: GateHarness) -> None:
    """It takes a millisecond a message, and sees what it sees without the gate."""
    released_at_once(harness, 4)

    def take_a_millisecond(_: At) -> None:
        harness.clock.now += POLL_INTERVAL_SECONDS

    harness.step.before_submit = take_a_millisecond
    harness.gate.poll()
    assert harness.step.polls == 1 + 4
    assert not harness.gate.drain.needs_poll


def test_a_step_that_is_full_is_polled_before_its_rejection_ends_the_slice(harness: GateHarness) -> None:
    """Room for three, made anew by each poll: all is handed on in one slice, each rejection being followed by one."""
    harness.step.room, harness.step.room_after_poll = 3, 3
    released_at_once(harness, 30)
    harness.gate.poll()
    assert [offset for _, offset in harness.step.taken] == list(range(30))
    assert not harness.gate.drain.was_rejected


def test_a_step_that_is_full_though_polled_ends_the_slice(harness: GateHarness) -> None:
    """What it didn't take is left over, and no poll is owed."""
    harness.step.room = 3
    released_at_once(harness, 30)
    harness.gate.poll()
    assert harness.gate.drain.was_rejected
    assert harness.gate.buffers.released
    assert not harness.gate.drain.needs_poll
    assert harness.held() == {1: list(range(3, 30))}


def test_safety_a_leader_that_goes_back_while_a_full_step_is_polled_holds_the_message(harness: GateHarness) -> None:
    """It was released when it was rejected, and isn't when there is room."""
    released_at_once(harness, 4)
    harness.step.room_after_poll = 9

    def go_back(at: At) -> None:
        if at == (1, 2) and harness.manager.cell(EVENTS.name, 1).remote == 4:
            harness.step.room = 0
            harness.release(1, 2)

    harness.step.before_submit = go_back
    harness.gate.poll()
    assert harness.step.taken == [(1, 0), (1, 1)]
    harness.gate.poll()
    assert not harness.gate.buffers.released
    assert harness.held() == {1: [2, 3]}
