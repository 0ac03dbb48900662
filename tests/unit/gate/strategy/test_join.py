"""The end of a gate: what is buffered stays in Kafka, and the time is the work's that is in flight below."""

from __future__ import annotations

import logging

import pytest
from arroyo.dlq import InvalidMessage
from arroyo.processing.strategies.abstract import MessageRejected

from arroyo_sync.core.errors import StepRejectedInPoll
from tests.support.fakes import partition
from tests.support.harness import GateHarness


@pytest.fixture
def harness() -> GateHarness:
    """A gate whose waits pass on its clock."""
    harness = GateHarness({0: 0, 1: 0})

    def wait(version: int, timeout: float) -> bool:
        harness.clock.now += timeout
        return False

    harness.manager.wait_for_move = wait  # type: ignore[method-assign]
    return harness


@pytest.mark.parametrize("how", ["join", "terminate"])
def test_everything_that_is_buffered_is_dropped_released_or_not(
    harness: GateHarness, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    """It is read again from Kafka, and the log says how much that is; nothing more goes downstream."""
    caplog.set_level(logging.INFO)
    harness.hold(0, *range(10))
    harness.hold(1, 0, 1)
    harness.step.room = 1
    harness.release(0, 4)
    harness.gate.poll()
    assert harness.step.taken == [(0, 0)]
    harness.step.room = None
    harness.gate.close()
    harness.gate.join(10.0) if how == "join" else harness.gate.terminate()
    assert harness.step.taken == [(0, 0)]
    assert harness.held() == {}
    assert harness.gate.buffers.held_messages == 0
    assert "Dropped 11 buffered messages: they stay in Kafka and are read again" in caplog.messages
    end = ["close", "join"] if how == "join" else ["terminate"]
    assert harness.step.calls[-len(end) :] == end


def test_a_source_that_can_not_be_told_keeps_no_step_from_its_end(harness: GateHarness) -> None:
    """One of the user's own may raise as partitions are taken away; a step that isn't ended keeps its processes."""

    def revoke(partitions: object) -> None:
        raise RuntimeError("the source is broken")

    harness.source.revoke = revoke  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="broken"):
        harness.gate.terminate()
    assert harness.step.calls[-1] == "terminate"


def test_the_whole_timeout_is_for_the_work_in_flight_below(harness: GateHarness) -> None:
    """However much is released and however slow the step is: the backlog is in Kafka, the work would be done again."""
    harness.hold(0, *range(200))
    harness.release(0, 200)
    harness.step.before_submit = lambda at: pytest.fail("submitted in join")
    start = harness.clock.now
    harness.gate.close()
    harness.gate.join(10.0)
    assert harness.step.join_timeouts == [10.0]
    assert harness.clock.now == start


def test_join_without_a_timeout_has_no_deadline(harness: GateHarness) -> None:
    """The next step may take as long as it likes."""
    harness.gate.close()
    harness.gate.join()
    assert harness.step.join_timeouts == [None]


def test_one_deadline_holds_over_several_calls(harness: GateHarness) -> None:
    """Arroyo calls again, with the whole timeout, after every InvalidMessage: they must not add up."""

    class Slow(InvalidMessage):
        """Found after three seconds."""

    join = harness.step.join

    def slow_join(timeout: float | None = None) -> None:
        harness.clock.now += 3.0
        join(timeout)

    harness.step.join = slow_join  # type: ignore[method-assign]
    harness.step.join_errors = [Slow(partition(0), offset) for offset in range(4)]
    harness.gate.close()
    raised = 0
    while raised < 10:
        try:
            harness.gate.join(10.0)
            break
        except InvalidMessage:
            raised += 1
    assert raised == 4
    assert harness.step.join_timeouts == [pytest.approx(each) for each in (10.0, 7.0, 4.0, 1.0, 0.0)]


def test_the_next_step_is_closed_once(harness: GateHarness) -> None:
    """However often `join` is called, and never by `close`."""
    harness.gate.close()
    assert "close" not in harness.step.calls
    harness.step.join_errors = [InvalidMessage(partition(0), 0), InvalidMessage(partition(0), 1)]
    for _ in range(2):
        with pytest.raises(InvalidMessage):
            harness.gate.join(5.0)
    harness.gate.join(5.0)
    assert harness.step.calls == ["close", "join", "join", "join"]


@pytest.mark.parametrize("failure", ["the source died", "the monitor ends the follower"])
def test_the_next_step_is_closed_and_joined_whatever_has_failed(
    harness: GateHarness, caplog: pytest.LogCaptureFixture, failure: str
) -> None:
    """Nothing is asked of the source by then, so nothing that it has met comes out of `join`."""
    harness.hold(0, 0, 1)
    harness.release(0, 2)
    if failure == "the source died":
        harness.source.die(ValueError("broken"))
    else:
        harness.manager.fail(ValueError("stalled"))
    harness.gate.close()
    harness.gate.join(5.0)
    assert harness.step.taken == []
    assert harness.step.calls[-2:] == ["close", "join"]
    assert harness.local(0) is None
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_a_step_that_rejects_out_of_its_join_ends_the_pipeline(harness: GateHarness) -> None:
    """Such a step has lost the message, so the processor must read it again after a restart."""
    harness.step.join_errors = [MessageRejected()]
    harness.gate.close()
    with pytest.raises(StepRejectedInPoll, match="out of join"):
        harness.gate.join(5.0)


def test_the_assignment_is_forgotten_when_all_is_done(harness: GateHarness) -> None:
    """No local offset is left, so the states say unknown; the source hears that nothing is followed any more."""
    harness.release(0, 1)
    harness.submit(0, 0)
    harness.gate.close()
    harness.gate.join(5.0)
    assert (harness.local(0), harness.local(1)) == (None, None)
    assert harness.source.calls == [("revoke", {("events", 0), ("events", 1)})]
