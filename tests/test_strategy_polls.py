"""How often the gate polls the next step: as Arroyo does, but once a millisecond while messages stream through."""

from __future__ import annotations

import pytest
from arroyo.dlq import InvalidMessage
from arroyo.processing.strategies import MessageRejected

from arroyo_sync.flow_control import FlowControlledConsumer
from arroyo_sync.strategy import POLL_INTERVAL_SECONDS
from tests.fakes import ScriptedConsumer, partition
from tests.harness import GateHarness


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
    assert harness.gate.owes_poll
    harness.clock.now += 0.001
    harness.gate.poll()
    assert harness.step.polls == polls + 1
    assert harness.gate.owes_poll is False


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
    assert not harness.gate.owes_poll
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


def test_the_consumer_does_not_wait_while_a_poll_is_owed(harness: GateHarness) -> None:
    """It hands control back at once, so the last messages' results are looked after before a second of waiting."""
    inner = ScriptedConsumer(is_kip848=False)
    consumer = FlowControlledConsumer(inner, harness.manager, lambda: None)
    consumer.attach(harness.gate)
    streaming(harness, 5)
    harness.gate.poll()
    assert harness.gate.owes_poll
    assert consumer.poll(1.0) is None
    assert inner.polls == [0.0]
    harness.gate.poll()
    assert consumer.poll(1.0) is None
    assert inner.polls == [0.0, 0.0, 1.0]
