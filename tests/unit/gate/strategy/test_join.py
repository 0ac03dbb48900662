"""The end of a gate: what is released goes on, what is held stays in Kafka, and the next step is closed once."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
from arroyo.dlq import InvalidMessage
from arroyo.processing.strategies.abstract import MessageRejected

from arroyo_sync.core.errors import StepRejectedInPoll
from tests.support.fakes import At, partition
from tests.support.harness import GateHarness


@pytest.fixture
def harness() -> GateHarness:
    """A gate whose waits pass on its clock."""
    harness = GateHarness({0: 0, 1: 0})

    def wait(version: int, timeout: float) -> bool:
        assert version == harness.manager.version, "it would end at once, having seen nothing move"
        harness.clock.now += timeout
        return False

    harness.manager.wait_for_move = wait  # type: ignore[method-assign]
    return harness


def taking(harness: GateHarness, seconds: float) -> Callable[[At], None]:
    """Let every message take so long."""

    def take(at: At) -> None:
        harness.clock.now += seconds

    return take


def test_join_hands_on_what_is_released_and_drops_what_is_held(
    harness: GateHarness, caplog: pytest.LogCaptureFixture
) -> None:
    """Also what became released after the last poll; the rest is read again, and the log says how much that is."""
    caplog.set_level(logging.INFO)
    harness.hold(0, *range(10))
    harness.hold(1, 0, 1)
    harness.gate.poll()
    harness.release(0, 4)
    harness.gate.close()
    harness.gate.join(10.0)
    assert harness.step.taken == [(0, offset) for offset in range(4)]
    assert harness.held() == {}
    assert harness.gate.buffers.held_messages == 0
    assert "Dropped 8 held messages: they stay in Kafka and are read again" in caplog.messages
    assert harness.step.calls[-2:] == ["close", "join"]


def test_join_hands_on_all_that_is_released_however_many_slices_it_takes(harness: GateHarness) -> None:
    """The slice is for `poll`; `join` has its deadline."""
    harness.hold(0, *range(100))
    harness.release(0, 100)
    harness.step.before_submit = taking(harness, 0.004)
    harness.gate.close()
    harness.gate.join(10.0)
    assert len(harness.step.taken) == 100


def test_join_without_a_timeout_has_no_deadline(harness: GateHarness) -> None:
    """It waits for the next step however long it takes."""
    harness.hold(0, 0, 1)
    harness.release(0, 2)
    harness.step.refuse((0, 0), *[MessageRejected()] * 1_000)
    harness.gate.close()
    harness.gate.join()
    assert harness.step.taken == [(0, 0), (0, 1)]
    assert harness.step.join_timeouts == [None]


def test_join_polls_a_step_that_is_full_so_that_it_can_make_room(harness: GateHarness) -> None:
    """Some steps make room only in their poll, and nobody else calls it by then."""
    harness.hold(0, *range(5))
    harness.step.room, harness.step.room_after_poll = 1, 1
    harness.gate.poll()
    harness.step.room, harness.step.room_after_poll = 0, 1
    harness.release(0, 5)
    harness.gate.close()
    harness.gate.join(1.0)
    assert harness.step.taken == [(0, offset) for offset in range(5)]


def test_join_gives_a_step_up_that_goes_on_rejecting(harness: GateHarness, caplog: pytest.LogCaptureFixture) -> None:
    """At its deadline, with a warning; what was not taken is not committed, so it is read again."""
    harness.hold(0, 0, 1)
    harness.release(0, 2)
    harness.step.room = 0
    start = harness.clock.now
    harness.gate.close()
    harness.gate.join(3.005)
    assert harness.step.taken == []
    assert harness.clock.now - start == pytest.approx(3.005)
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        "Timed out: the next step did not take all that was released"
    ]
    assert harness.step.calls[-2:] == ["close", "join"]
    assert harness.step.join_timeouts == [0.0]


def test_the_next_step_is_joined_with_what_is_left_of_the_time(harness: GateHarness) -> None:
    """The whole chain keeps to the timeout that Arroyo gave."""
    harness.hold(0, *range(10))
    harness.release(0, 10)
    harness.step.before_submit = taking(harness, 0.5)
    harness.gate.close()
    harness.gate.join(20.0)
    assert harness.step.join_timeouts == [pytest.approx(15.0)]


def test_one_deadline_holds_over_several_calls(harness: GateHarness) -> None:
    """Arroyo calls again, with the whole timeout, after every InvalidMessage: they must not add up."""
    harness.hold(0, *range(4))
    harness.release(0, 4)
    harness.step.before_submit = taking(harness, 2.0)
    for offset in (1, 2):
        harness.step.refuse((0, offset), InvalidMessage(partition(0), offset))
    harness.step.join_errors = [InvalidMessage(partition(0), 0)]
    harness.gate.close()
    raised = 0
    while raised < 10:
        try:
            harness.gate.join(10.0)
            break
        except InvalidMessage:
            raised += 1
    assert raised == 3
    assert harness.step.taken == [(0, 0), (0, 3)]
    assert harness.step.join_timeouts == [pytest.approx(2.0), pytest.approx(2.0)]


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


def test_an_invalid_message_in_join_leaves_the_rest_in_line(harness: GateHarness) -> None:
    """It goes up for the dead letters, and the next call hands on what is left."""
    harness.hold(0, 0, 1, 2)
    harness.release(0, 3)
    harness.step.refuse((0, 1), InvalidMessage(partition(0), 1))
    harness.gate.close()
    with pytest.raises(InvalidMessage):
        harness.gate.join(5.0)
    assert harness.held() == {0: [2]}
    assert "close" not in harness.step.calls
    harness.gate.join(5.0)
    assert harness.step.taken == [(0, 0), (0, 2)]


def test_a_leader_that_goes_back_during_join_is_obeyed(harness: GateHarness) -> None:
    """Safety has no exception at the end."""
    harness.hold(0, *range(6))
    harness.release(0, 6)

    def go_back(at: At) -> None:
        if at == (0, 2):
            harness.release(0, 1)

    harness.step.before_submit = go_back
    harness.gate.close()
    harness.gate.join(5.0)
    assert harness.step.taken == [(0, 0), (0, 1), (0, 2)]


def test_nothing_is_released_in_join_once_the_source_is_dead(
    harness: GateHarness, caplog: pytest.LogCaptureFixture
) -> None:
    """The step is closed and joined all the same, and the cause is logged in one line."""
    harness.hold(0, 0, 1)
    harness.release(0, 2)
    harness.source.die(ValueError("broken"))
    harness.gate.close()
    harness.gate.join(5.0)
    assert harness.step.taken == []
    assert harness.step.calls[-2:] == ["close", "join"]
    (said,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert said.getMessage().startswith("While the gate was joined: ")
    assert said.getMessage().endswith("broken")
    assert said.exc_info is None
    assert harness.local(0) is None


def test_a_source_that_dies_in_the_middle_of_join_stops_the_release(harness: GateHarness) -> None:
    """It is asked before every slice."""
    harness.hold(0, *range(100))
    harness.release(0, 100)

    def die_early(at: At) -> None:
        harness.clock.now += 0.004
        if at == (0, 3):
            harness.source.die(ValueError("broken"))

    harness.step.before_submit = die_early
    harness.gate.close()
    harness.gate.join(5.0)
    assert 4 <= len(harness.step.taken) <= 6


@pytest.mark.parametrize("where", ["poll", "join"])
def test_a_step_that_rejects_out_of_its_poll_or_join_ends_the_pipeline(harness: GateHarness, where: str) -> None:
    """Such a step has lost the message, so the processor must read it again after a restart."""
    harness.hold(0, 0)
    harness.release(0, 1)
    if where == "poll":
        harness.step.room = 0
        harness.step.poll_errors = [MessageRejected()]
    else:
        harness.step.join_errors = [MessageRejected()]
    harness.gate.close()
    with pytest.raises(StepRejectedInPoll, match=f"out of {where}"):
        harness.gate.join(5.0)


def test_the_assignment_is_forgotten_when_all_is_done(harness: GateHarness) -> None:
    """No local offset is left, so the states say unknown; the source hears that nothing is followed any more."""
    harness.release(0, 1)
    harness.submit(0, 0)
    harness.gate.close()
    harness.gate.join(5.0)
    assert (harness.local(0), harness.local(1)) == (None, None)
    assert harness.source.calls == [("revoke", {("events", 0), ("events", 1)})]
