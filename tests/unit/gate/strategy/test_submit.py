"""The gate: what it takes, what it refuses, what it tells the manager and the source."""

from __future__ import annotations

import logging
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import pytest
from arroyo.processing.strategies.abstract import MessageRejected
from arroyo.types import Message, Partition, Topic, Value

from arroyo_sync.core.errors import ConfigurationError, StepRejectedInPoll, UnexpectedMessage
from arroyo_sync.core.state import SynchronizedPartitionState, SynchronizedPartitionStateManager
from arroyo_sync.gate.partition_buffer import HoldLimits, Release
from arroyo_sync.gate.strategy import SynchronizedStrategy
from arroyo_sync.testing import ManualSource, RecordingStep
from tests.support.fakes import At, Clock, ScriptedStep, message, partition
from tests.support.harness import GateHarness, NotedSource

UNKNOWN, LOCAL_BEHIND, SYNCHRONIZED, REMOTE_BEHIND = SynchronizedPartitionState
NOON = datetime(2024, 1, 2, 12)


def test_a_gate_takes_one_topic() -> None:
    """It knows a partition by its index, so a second topic is refused when it is made."""
    positions = {Partition(Topic("events"), 0): 0, Partition(Topic("others"), 0): 0}
    with pytest.raises(ConfigurationError, match=r"one topic, not \['events', 'others'\]"):
        SynchronizedStrategy(ScriptedStep(), SynchronizedPartitionStateManager(), ManualSource(), positions)


@pytest.mark.parametrize(
    ("unexpected", "said"),
    [
        pytest.param(
            Message(Value([1], {partition(0): 2}, NOON)),
            r"not Value: it stands first in the pipeline, before any step that changes or batches messages\. If "
            "another factory wraps it, make SynchronizedStrategyFactory the outermost factory$",
            id="a batch",
        ),
        pytest.param(Message(SimpleNamespace(offset=2)), "not SimpleNamespace: it stands first", id="no partition"),  # type: ignore[arg-type]
        pytest.param(
            Message(SimpleNamespace(partition=partition(0))),  # type: ignore[arg-type]
            "not SimpleNamespace: it stands first",
            id="no offset",
        ),
        pytest.param(
            message(3, 0), r"events\[3\] offset 0 is of no partition that is assigned: \[0, 1\]", id="foreign"
        ),
    ],
)
def test_anything_but_a_consumers_message_of_an_assigned_partition_is_refused(
    unexpected: Message[Any], said: str
) -> None:
    """The error says what the gate takes, or which partitions it has."""
    harness = GateHarness({0: 0, 1: 0})
    with pytest.raises(UnexpectedMessage, match=said):
        harness.gate.submit(unexpected)
    assert harness.held() == {}


def test_a_closed_gate_takes_nothing_and_says_so() -> None:
    """What it holds stays for `join` to decide on, and the next step isn't closed yet."""
    harness = GateHarness()
    harness.hold(0, 0)
    harness.gate.close()
    with pytest.raises(UnexpectedMessage, match=r"closed and takes no more messages: events\[0\] offset 1"):
        harness.submit(0, 1)
    assert harness.held() == {0: [0]}
    assert harness.step.calls == []


def test_a_released_message_goes_on_at_once() -> None:
    """With nothing of its partition before it, `submit` itself hands it on."""
    harness = GateHarness()
    harness.release(0, 2)
    harness.submit(0, 0, 1)
    assert harness.step.taken == [(0, 0), (0, 1)]
    assert (harness.held(), harness.gate.buffers.held_messages, bool(harness.gate.buffers.released)) == (
        {},
        0,
        False,
    )


def test_offsets_that_were_known_before_the_gate_was_made_count_from_its_first_message_on() -> None:
    """After a rebalance nothing needs to move again before messages go straight through."""
    source = NotedSource()
    source.set_remote_offset("events", 0, 2)
    harness = GateHarness(source=source)
    harness.submit(0, 0, 1)
    harness.hold(0, 2)
    assert harness.step.taken == [(0, 0), (0, 1)]


def test_submit_hands_on_its_own_message_only() -> None:
    """Messages of other partitions that were released meanwhile wait for `poll`, so one submit costs one message."""
    harness = GateHarness({0: 0, 1: 0})
    harness.hold(0, 0, 1)
    harness.release(0, 2)
    harness.release(1, 1)
    harness.submit(1, 0)
    assert harness.step.taken == [(1, 0)]
    assert (harness.held(), bool(harness.gate.buffers.released)) == ({0: [0, 1]}, True)


def test_a_released_message_waits_behind_its_partitions_held_ones() -> None:
    """It is held, though it is released itself, and goes on after them."""
    harness = GateHarness()
    harness.hold(0, 0)
    harness.release(0, 2)
    harness.submit(0, 1)
    assert harness.step.taken == []
    harness.gate.poll()
    assert harness.step.taken == [(0, 0), (0, 1)]


def test_left_over_messages_and_new_ones_go_on_in_order() -> None:
    """A slice that ended in the middle of a line lets no new message overtake."""
    harness = GateHarness()
    harness.hold(0, *range(10))
    harness.release(0, 20)

    def take_a_slice(at: object) -> None:
        harness.clock.now += 0.002

    harness.step.before_submit = take_a_slice
    harness.gate.poll()
    assert 0 < len(harness.step.taken) < 10
    harness.submit(0, *range(10, 13))
    harness.poll_until_empty()
    harness.submit(0, 13)
    assert harness.step.taken == [(0, offset) for offset in range(14)]


def test_gaps_in_the_offsets_are_no_matter() -> None:
    """Compaction and transactions leave gaps: the next offset is what counts."""
    harness = GateHarness({0: 3})
    harness.release(0, 9)
    harness.submit(0, 5, 8)
    harness.hold(0, 20)
    harness.release(0, 21)
    harness.gate.poll()
    harness.gate.buffers.report_local_offsets()
    assert harness.step.taken == [(0, 5), (0, 8), (0, 20)]
    assert harness.local(0) == 21


def test_a_first_message_behind_a_gap_is_held_where_nobody_wants_to_know_of_that() -> None:
    """A gate without the flow control, which would commit where it begins."""
    harness = GateHarness({0: 3})
    harness.hold(0, 5)
    assert harness.held() == {0: [5]}


def test_the_gates_positions_are_the_first_local_offsets() -> None:
    """Which opens a partition whose remote offset is known, before any message has come."""
    harness = GateHarness({0: 7, 1: 0})
    harness.release(0, 9)
    assert harness.manager.partitions["events", 0] == (LOCAL_BEHIND, (7, 9))
    assert harness.manager.partitions["events", 1] == (UNKNOWN, (0, None))


def test_local_offsets_are_told_when_a_slice_is_over() -> None:
    """Not once a message, which would cost a lock each; they are the next offset to go downstream."""
    harness = GateHarness({0: 0, 1: 0}, slice_seconds=0.005)
    harness.release(0, 5)
    harness.release(1, 1)
    harness.submit(0, 0)
    harness.gate.poll()
    harness.submit(0, 1)
    harness.submit(1, 0, 1, 2)
    harness.gate.poll()
    assert (harness.local(0), harness.local(1)) == (1, 0)
    harness.clock.now += 0.005
    harness.gate.poll()
    assert (harness.local(0), harness.local(1)) == (2, 1)
    harness.submit(0, 2)
    harness.gate.buffers.report_local_offsets()
    assert harness.local(0) == 3


def test_a_gate_that_had_nothing_to_tell_tells_the_next_local_offset_at_once() -> None:
    """The interval is there for messages that stream; idle polls don't begin one."""
    harness = GateHarness(slice_seconds=0.005)
    harness.release(0, 5)
    harness.gate.poll()
    for offset in range(3):
        harness.submit(0, offset)
        harness.gate.poll()
        assert harness.local(0) == offset + 1
        harness.clock.now += 0.005
        harness.gate.poll()


def test_the_states_follow_the_offsets_through_a_whole_life() -> None:
    """Assigned, released, caught up, a leader that went back, and revoked."""
    harness = GateHarness()
    harness.release(0, 2)
    harness.submit(0, 0, 1)
    harness.gate.buffers.report_local_offsets()
    harness.release(0, 1)
    harness.gate.close()
    harness.gate.join()
    assert [state for _, state in harness.states] == [UNKNOWN, LOCAL_BEHIND, SYNCHRONIZED, REMOTE_BEHIND, UNKNOWN]
    assert harness.local(0) is None
    assert harness.source.calls[-1] == ("revoke", {("events", 0)})


def test_a_new_gate_was_not_rejected_and_owes_nothing() -> None:
    """So the consumer around it waits for nothing that hasn't happened."""
    gate = GateHarness().gate
    assert (gate.drain.was_rejected, gate.drain.needs_poll) == (False, False)


def test_by_default_a_slice_is_5_ms_and_the_next_step_is_polled_before_every_message() -> None:
    """For whoever makes a gate without the factory."""
    clock, step, source = Clock(), ScriptedStep(), ManualSource()
    manager = SynchronizedPartitionStateManager()
    source.start(manager)
    gate = SynchronizedStrategy(step, manager, source, {partition(0): 0}, clock=clock)
    source.set_remote_offset("events", 0, 4)
    for offset in range(4):
        gate.submit(message(0, offset))
        gate.poll()
    assert step.polls == 4

    for offset in range(4, 20):
        gate.submit(message(0, offset))
    source.set_remote_offset("events", 0, 20)

    def take_two_milliseconds(at: At) -> None:
        clock.now += 0.002

    step.before_submit = take_two_milliseconds
    gate.poll()  # a round, since messages came
    step.taken.clear()
    gate.poll()
    assert len(step.taken) == 3


def test_a_line_notes_its_release_once_for_each_time_that_it_opens() -> None:
    """When it opened, and how long its oldest message had waited; a remote offset that moves on doesn't open it."""
    harness = GateHarness()
    (line,) = harness.gate.buffers
    harness.hold(0, 0, 1, 2)
    harness.clock.now += 3.0
    harness.step.room = 0
    harness.release(0, 1)
    harness.gate.poll()
    first = Release(at=harness.clock.now, hold_seconds=3.0)
    assert line.release == first
    harness.clock.now += 1.0
    harness.release(0, 2)
    harness.gate.poll()
    assert line.release == first
    harness.step.room = None
    harness.gate.poll()
    harness.clock.now += 1.0
    harness.release(0, 3)
    harness.gate.poll()
    assert line.release == Release(at=harness.clock.now, hold_seconds=5.0)


def test_a_step_that_rejects_out_of_poll_ends_the_pipeline_with_what_to_do() -> None:
    """Arroyo allows it only out of submit; such a step has lost the message, so going on would lose it for good."""
    harness = GateHarness()
    harness.step.poll_errors = [MessageRejected()]
    with pytest.raises(StepRejectedInPoll) as raised:
        harness.gate.poll()
    assert str(raised.value) == (
        f"{harness.step!r} raised MessageRejected out of poll(), where Arroyo allows it only out of submit(): "
        "a step behind it rejected a message that it had already taken out of its queue. "
        "Put a step that can hold on to it in between, or give the rejecting step a larger buffer; "
        "the message is read again after a restart"
    )
    assert isinstance(raised.value.__cause__, MessageRejected)


def test_the_next_step_is_polled_with_every_poll() -> None:
    """Also when nothing is held, since its own work, and its commits, may depend on it."""
    harness = GateHarness()
    harness.gate.poll()
    harness.gate.poll()
    assert harness.step.polls == 2


def test_limits_are_told_as_pauses_and_resumes_once_each() -> None:
    """Full at the high mark, drained at the low mark, and nothing in between."""
    harness = GateHarness({0: 0, 1: 0}, limits=HoldLimits(messages=3, resume_messages=1))
    harness.hold(0, 0, 1)
    assert dict(harness.gate.buffers.take_pause_changes()) == {}
    harness.hold(0, 2)
    assert dict(harness.gate.buffers.take_pause_changes()) == {partition(0): True}
    assert dict(harness.gate.buffers.take_pause_changes()) == {}
    harness.release(0, 1)
    harness.gate.poll()
    harness.hold(0, 3)
    assert dict(harness.gate.buffers.take_pause_changes()) == {}
    harness.release(0, 3)
    harness.gate.poll()
    assert dict(harness.gate.buffers.take_pause_changes()) == {partition(0): False}


def test_terminate_drops_what_is_held_and_terminates_the_next_step(caplog: pytest.LogCaptureFixture) -> None:
    """It hands on nothing more and forgets the assignment; the log says that what was dropped is read again."""
    caplog.set_level(logging.INFO)
    harness = GateHarness()
    harness.hold(0, 0, 1)
    harness.release(0, 2)
    harness.gate.terminate()
    assert (harness.step.taken, harness.step.calls, harness.held()) == ([], ["terminate"], {})
    assert harness.gate.buffers.held_messages == 0
    assert harness.local(0) is None
    said = [record.getMessage() for record in caplog.records]
    assert said == ["Dropped 2 buffered messages: they stay in Kafka and are read again"]
    with pytest.raises(UnexpectedMessage, match="closed"):
        harness.submit(0, 2)


@pytest.mark.parametrize("how", ["join", "terminate"])
def test_a_gate_that_has_ended_asks_nothing_more_of_the_consumer(how: str) -> None:
    """No pause of a partition that may be another member's by then, and no turn for what it has dropped."""
    harness = GateHarness({0: 0, 1: 0}, limits=HoldLimits(messages=2, resume_messages=0))
    harness.hold(0, 0, 1)
    harness.hold(1, 0, 1)
    harness.step.room = 0
    harness.release(0, 2)
    harness.gate.poll()
    assert harness.gate.buffers.released
    harness.gate.close()
    harness.gate.join(0.0) if how == "join" else harness.gate.terminate()
    assert (harness.gate.buffers.held_messages, bool(harness.gate.buffers.released)) == (0, False)
    assert dict(harness.gate.buffers.take_pause_changes()) == {}


def test_a_gate_that_has_ended_tells_no_local_offset_any_more() -> None:
    """Of a message that went on before: its partition may be another member's by now."""
    harness = GateHarness()
    harness.release(0, 5)
    harness.submit(0, 0)
    harness.gate.close()
    harness.gate.join()
    harness.gate.buffers.report_local_offsets()
    assert harness.local(0) is None


def test_a_step_that_was_terminated_is_not_closed_any_more() -> None:
    """Whoever joins the gate after that waits for the step to end, and no more."""
    harness = GateHarness()
    harness.hold(0, 0)
    harness.gate.terminate()
    harness.release(0, 1)
    harness.gate.join(1.0)
    assert (harness.step.taken, harness.step.calls) == ([], ["terminate", "join"])


def test_a_gate_of_no_partitions_is_harmless() -> None:
    """It polls and joins its step."""
    gate = SynchronizedStrategy(step := ScriptedStep(), SynchronizedPartitionStateManager(), ManualSource(), {})
    gate.poll()
    gate.close()
    gate.join(0.0)
    assert step.calls == ["poll", "close", "join"]
    assert list(gate.buffers) == []


def test_the_message_handed_on_is_the_one_submitted() -> None:
    """The very object, whether it was held or not."""
    step = RecordingStep()
    manager = SynchronizedPartitionStateManager()
    gate = SynchronizedStrategy(step, manager, ManualSource(), {partition(0): 0})
    manager.set_remote_offset("events", 0, 1)
    messages = [message(0, 0), message(0, 1)]
    for each in messages:
        gate.submit(each)
    manager.set_remote_offset("events", 0, 2)
    gate.poll()
    assert [id(each) for each in step.messages] == [id(each) for each in messages]
