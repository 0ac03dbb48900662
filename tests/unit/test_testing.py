"""What users test their pipelines with: a source moved by hand, and a step that records."""

from __future__ import annotations

import threading

import pytest
from arroyo.backends.kafka import KafkaPayload
from arroyo.processing.strategies.run_task import RunTask

from arroyo_sync.core.errors import SourceDied
from arroyo_sync.core.state import Offsets, SynchronizedPartitionState, SynchronizedPartitionStateManager
from arroyo_sync.gate.strategy import SynchronizedStrategy
from arroyo_sync.testing import ManualSource, RecordingStep
from tests.support.fakes import message, partition
from tests.support.harness import TIMEOUT_SECONDS

KEY = ("events", 0)


def test_a_pipeline_behind_the_gate_can_be_tested_in_a_few_lines() -> None:
    """The whole of what a user writes, with no Kafka."""
    source, step = ManualSource(), RecordingStep()
    manager = SynchronizedPartitionStateManager()
    source.start(manager)
    task: RunTask[KafkaPayload, int] = RunTask(lambda message: len(message.payload.value), step)
    gate = SynchronizedStrategy(task, manager, source, {partition(0): 0})
    gate.submit(message(0, 0, b"abc"))
    assert step.messages == []
    source.set_remote_offset("events", 0, 1)
    gate.poll()
    assert [each.payload for each in step.messages] == [3]


def test_offsets_that_are_set_before_the_start_count_from_the_start_on() -> None:
    """The last one of each partition."""
    source, manager = ManualSource(), SynchronizedPartitionStateManager()
    source.set_remote_offset("events", 0, 3)
    source.set_remote_offset("events", 0, 5)
    source.set_remote_offset("events", 1, None)
    source.start(manager)
    assert manager.partitions[KEY] == (SynchronizedPartitionState.UNKNOWN, Offsets(None, 5))
    assert manager.partitions["events", 1][1].remote is None


def test_a_second_start_does_nothing() -> None:
    """As the contract of a source has it: what was set since stays."""
    source, manager = ManualSource(), SynchronizedPartitionStateManager()
    source.set_remote_offset("events", 0, 3)
    source.start(manager)
    source.set_remote_offset("events", 0, 9)
    source.start(manager)
    source.start(SynchronizedPartitionStateManager())
    assert source.manager is manager
    assert manager.partitions[KEY][1].remote == 9


def test_it_is_alive_until_it_dies_and_then_says_why() -> None:
    """With its cause, and again with every call."""
    source = ManualSource()
    source.check()
    cause = ValueError("broken")
    source.die(cause)
    for _ in range(2):
        with pytest.raises(SourceDied, match="broken") as raised:
            source.check()
        assert raised.value.__cause__ is cause


def test_its_death_wakes_whoever_waits_for_it() -> None:
    """So that the pipeline ends at once, as it does with a real source."""
    source, manager = ManualSource(), SynchronizedPartitionStateManager()
    source.start(manager)
    version = manager.version
    waiting = threading.Thread(target=lambda: manager.wait_for_move(version, 3 * TIMEOUT_SECONDS), daemon=True)
    waiting.start()
    source.die(ValueError("broken"))
    waiting.join(TIMEOUT_SECONDS)
    assert not waiting.is_alive()
    assert manager.version > version


def test_it_may_die_before_it_is_started() -> None:
    """A gate that is made then finds out at its first look."""
    source, manager = ManualSource(), SynchronizedPartitionStateManager()
    source.die(ValueError("broken"))
    source.start(manager)
    gate = SynchronizedStrategy(RecordingStep(), manager, source, {partition(0): 0})
    with pytest.raises(SourceDied, match="broken"):
        gate.poll()


def test_what_it_sets_is_trusted() -> None:
    """It has no doubts, and takes nothing back when an assignment begins or ends."""
    source, manager = ManualSource(), SynchronizedPartitionStateManager()
    source.start(manager)
    source.set_remote_offset("events", 0, 5)
    source.assign({KEY: 0}, None)
    source.received("events", 0, 1)
    source.revoke([KEY])
    assert dict(source.unverified) == {}
    assert manager.partitions[KEY][1].remote == 5


def test_it_notes_that_it_was_stopped() -> None:
    """So that a test can see that the pipeline ended cleanly."""
    source = ManualSource()
    assert not source.is_stopped
    source.stop(1.0)
    assert source.is_stopped


def test_a_recording_step_keeps_what_it_was_given_and_how_it_ended() -> None:
    """Messages in order, polls counted, closed or terminated."""
    step = RecordingStep()
    messages = [message(0, 0), message(1, 0)]
    for each in messages:
        step.submit(each)
    step.poll()
    step.poll()
    assert (step.messages, step.polls, step.is_closed, step.is_terminated) == (messages, 2, False, False)
    step.close()
    step.join()
    step.terminate()
    assert (step.is_closed, step.is_terminated) == (True, True)
