"""Seeks of the user's: what the gate holds and what the processor carries, and nothing lost or doubled."""

from __future__ import annotations

import pytest
from arroyo.dlq import InvalidMessage

from arroyo_sync.core.state import SynchronizedPartitionStateManager
from arroyo_sync.gate.flow_control import FlowControlledConsumer
from tests.support.fakes import EVENTS, ScriptedConsumer, partition
from tests.support.pipelines import Pipeline, pipeline_of


def test_no_loss_a_seek_back_by_one_reads_the_last_message_again() -> None:
    """The processor carries none: the last one that it was given went on."""
    pipeline = pipeline_of(0, produced=5)
    pipeline.release(0, 20)
    pipeline.run_until_quiet()
    pipeline.flow.seek({partition(0): 4})
    pipeline.checks[-1].forget_order(0)
    pipeline.run_until_quiet()
    assert pipeline.released_of(0) == [0, 1, 2, 3, 4, 4]


def test_no_loss_seeks_of_several_partitions_count_in_a_rebuild_though_there_is_no_gate_yet() -> None:
    """What was read since is read again, of each."""
    inner = ScriptedConsumer()
    inner.committed = {0: 10, 1: 10}
    flow = FlowControlledConsumer(inner, SynchronizedPartitionStateManager(), lambda: None)
    flow.subscribe([EVENTS])
    inner.assign(0, 1)
    flow.seek({partition(0): 3, partition(1): 4})
    inner.seek({partition(0): 6, partition(1): 6})  # as it does by reading on
    inner.assign(2)
    assert inner.tell() == {partition(0): 3, partition(1): 4, partition(2): 0}


# While the processor carries a message.


def carrying(offset: int, *, room: int) -> Pipeline:
    """The processor carries this message, which the user's step, having taken so many, has rejected."""
    pipeline = pipeline_of(0)
    pipeline.release(0, 20)
    pipeline.step.room = room
    pipeline.run_until(lambda: pipeline.consumer.tell()[partition(0)] == offset + 1)
    pipeline.run(3)
    assert pipeline.released_of(0) == list(range(offset))
    return pipeline


@pytest.mark.parametrize("to", [0, 3, 5, 6, 12], ids=lambda to: f"to {to}")
def test_order_the_message_that_the_processor_carries_is_not_handed_on_before_a_seek(to: int) -> None:
    """Wherever the seek goes, what comes next is what lies there, each message once."""
    pipeline = carrying(5, room=5)
    pipeline.flow.seek({partition(0): to})
    pipeline.invalid = {(0, offset) for offset in range(5, to)}  # the user skipped them
    pipeline.steps[-1].room = None
    pipeline.checks[-1].forget_order(0)
    pipeline.run_until_quiet()
    assert pipeline.released_of(0)[5:] == list(range(to, 20))
    assert pipeline.consumer.committed == {0: 20}


def test_a_seek_to_the_message_that_the_processor_carries_lets_it_through_at_once() -> None:
    """It is what lies there, and nothing is to be thrown away."""
    pipeline = carrying(5, room=5)
    pipeline.flow.seek({partition(0): 5})
    pipeline.step.room = None
    pipeline.run()
    assert pipeline.released_of(0) == list(range(6))
    assert pipeline.held(0) == 0


@pytest.mark.parametrize("then", [3, 5, 8], ids=lambda to: f"to {to}")
def test_order_a_second_seek_counts_over_the_first(then: int) -> None:
    """The processor still carries the same message."""
    pipeline = carrying(5, room=5)
    pipeline.flow.seek({partition(0): 1})
    pipeline.flow.seek({partition(0): then})
    pipeline.invalid = {(0, offset) for offset in range(5, then)}
    pipeline.steps[-1].room = None
    pipeline.checks[-1].forget_order(0)
    pipeline.run_until_quiet()
    assert pipeline.released_of(0)[5:] == list(range(then, 20))


def test_no_loss_a_carried_message_that_was_found_invalid_does_not_stand_for_another() -> None:
    """The processor carries it no more, so what is read at its offset is not it."""
    pipeline = carrying(5, room=5)
    pipeline.flow.seek({partition(0): 5 - 1})
    pipeline.step.poll_errors = [InvalidMessage(partition(0), 5)]
    pipeline.run()
    pipeline.step.room = None
    pipeline.checks[-1].forget_order(0)
    pipeline.run_until_quiet()
    assert pipeline.released_of(0)[5:] == list(range(4, 20))
