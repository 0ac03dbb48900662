"""What the model found, each in a few lines of its own."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from arroyo.types import BrokerValue, Message, Partition, Topic

from arroyo_sync.core.errors import SourceDied
from arroyo_sync.core.state import SynchronizedPartitionStateManager
from arroyo_sync.gate.strategy import SynchronizedStrategy
from arroyo_sync.kafka.questions.asker import PartitionRange
from arroyo_sync.leaders.commit_report import CommitReport
from arroyo_sync.leaders.leader_offsets import LeaderOffsets
from arroyo_sync.testing import ManualSource, RecordingStep
from tests.model.explore import Ask, Later, Publish, Run, Setup, perform
from tests.model.setups import PLANS
from tests.model.world import models

TOPIC = "events"
PARTITION = Partition(Topic(TOPIC), 0)


def message(offset: int) -> Message[Any]:
    return Message(BrokerValue(b"", PARTITION, offset, datetime(2024, 1, 1)))


def started_source() -> tuple[SynchronizedPartitionStateManager, ManualSource]:
    manager, source = SynchronizedPartitionStateManager(), ManualSource()
    source.start(manager)
    return manager, source


@pytest.mark.parametrize("call", ["poll", "submit"])
def test_a_gate_made_after_the_source_died_releases_nothing(call: str) -> None:
    """Promise 1: a rebalance after the death made a gate that never asked, and released on stale trust."""
    manager, source = started_source()
    source.set_remote_offset(TOPIC, 0, 3)
    source.die(RuntimeError("gone"))
    step = RecordingStep()
    gate = SynchronizedStrategy(step, manager, source, {PARTITION: 0})
    with pytest.raises(SourceDied):
        gate.poll() if call == "poll" else gate.submit(message(0))
    assert step.messages == []


@pytest.mark.parametrize("is_kip848", [True, False], ids=["KIP-848", "eager"])
def test_a_message_that_comes_while_the_processor_has_paused_everything_is_read_again(is_kip848: bool) -> None:
    """Promise 3: the processor polls for a rebalance alone then, and threw away the message that came with one."""
    both = frozenset({0, 1})
    setup = Setup(
        is_kip848=is_kip848,
        prefix=(
            *(Run("assign", both), Publish(0, None, 2), Publish(1, None, 2), Ask()),
            *(Run(message=0, answer="reject"), Later(), Run(answer="reject")),
        ),
    )
    rebalance = ("revoke", frozenset({0})) if is_kip848 else ("exchange", both)
    with models():
        world = setup.make()
        assert world.judge.processor_paused == both
        perform(world, Run(*rebalance, message=1, answer="reject"))
        perform(world, Ask())
        for _ in range(2):
            perform(world, Run(message=1))
    assert world.judge.partitions[1].in_flight == [1]
    assert world.judge.partitions[1].through == {0}
    assert world.judge.violations == []


@pytest.mark.parametrize(
    ("plan", "first"),
    [
        pytest.param("left over", Run(answer="slow"), id="left over"),
        pytest.param(
            "one ahead, one behind",
            Run(place="step poll", meanwhile=Publish(1, None, 2)),
            id="released while the step is polled",
        ),
    ],
)
def test_a_rejection_that_is_over_keeps_no_released_message_waiting(plan: str, first: Run) -> None:
    """Promise 4: the step had taken the message meanwhile, and another partition's waited for 10 ms once more."""
    with models():
        world = PLANS[plan].setup.make()
        perform(world, first)
        # Of two that are left over either may go first.
        index = next((index for index, each in world.judge.partitions.items() if each.in_flight), 0)
        for action in (Run(message=index, answer="reject"), Run(), Run()):
            perform(world, action)
    assert world.has_work
    assert not any(watched.waiting for watched in world.judge.partitions.values())
    assert world.judge.violations == []


def test_what_was_refuted_stays_so_when_another_commit_log_partition_is_read_again() -> None:
    """Promise 1: it was doubted anew, and came into force once a recreated topic had grown past it."""
    key = (TOPIC, 0)
    manager = SynchronizedPartitionStateManager()
    leaders = LeaderOffsets(["a"])
    leaders.attach(manager)
    leaders.enable()
    leaders.assign({key: None})
    leaders.apply([CommitReport(key, "a", 7, 0, 0, 0)], 0.0)
    leaders.apply_answers({key: PartitionRange(0, 3)}, leaders.begin_question([key]), {})
    assert leaders.take_rejections() != []

    leaders.forget_log_partition(1)
    leaders.received(key, 7)

    assert manager.partitions[key][1].remote is None
