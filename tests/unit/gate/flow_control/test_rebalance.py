"""Rebalances, under eager assignment and KIP-848: no promise is broken when Arroyo rebuilds its strategy."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from arroyo_sync.core.errors import SourceDied
from arroyo_sync.core.state import SynchronizedPartitionState
from arroyo_sync.gate.partition_buffer import HoldLimits
from tests.support.fakes import partition
from tests.support.pipelines import Pipeline, both_protocols, pause_at_once, pipeline_of


def seeks(pipeline: Pipeline) -> list[dict[int, int]]:
    return [offsets for call, offsets in pipeline.consumer.calls if call == "seek" and isinstance(offsets, dict)]


# What is read again.


@both_protocols
def test_no_loss_what_the_old_gate_held_is_read_again(is_kip848: bool) -> None:
    """A partition that stays, or comes back, goes on from the last offset that went through and no later one."""
    pipeline = pipeline_of(0, is_kip848=is_kip848)
    pipeline.release(0, 5)
    pipeline.run_until_quiet()
    assert pipeline.held(0) == 15
    pipeline.consumer.rebalance(0, 1)
    pipeline.run_until(lambda: len(pipeline.assignments) == 2)
    assert pipeline.assignments[1] == {0: 5, 1: 0}
    pipeline.release(0, 20)
    pipeline.release(1, 20)
    pipeline.run_until_quiet()
    assert pipeline.released_of(0) == pipeline.released_of(1) == list(range(20))


@both_protocols
def test_no_loss_when_a_partition_is_taken_away(is_kip848: bool) -> None:
    """The partitions that stay are read again from where they were; the one that went is another member's."""
    pipeline = pipeline_of(0, 1, is_kip848=is_kip848)
    pipeline.release(0, 5)
    pipeline.release(1, 7)
    pipeline.run_until_quiet()
    pipeline.consumer.rebalance(0)
    pipeline.run_until(lambda: len(pipeline.assignments) == 2)
    assert pipeline.assignments[1] == {0: 5}
    assert pipeline.consumer.committed == {0: 5, 1: 7}
    pipeline.release(0, 20)
    pipeline.release(1, 20)
    pipeline.run_until_quiet()
    assert pipeline.released_of(0) == list(range(20))
    assert pipeline.released_of(1) == list(range(7))


def test_no_loss_a_partition_with_nothing_staged_is_read_from_its_assignment_on() -> None:
    """Nothing has gone through yet, so that is where the first message lies that may not be lost."""
    pipeline = Pipeline()
    pipeline.produce(0, range(20))
    pipeline.consumer.committed = {0: 8}
    pipeline.start(0)
    pipeline.run_until_quiet()
    assert pipeline.held(0) == 12
    pipeline.consumer.rebalance(0, 1)
    pipeline.run_until(lambda: len(pipeline.assignments) == 2)
    assert pipeline.assignments == [{0: 8}, {0: 8, 1: 0}]
    assert seeks(pipeline) == [{0: 8}]


def test_nothing_is_read_again_that_went_through() -> None:
    """With nothing held there is nothing to seek, and no message comes twice."""
    pipeline = pipeline_of(0)
    pipeline.release(0, 20)
    pipeline.run_until_quiet()
    pipeline.consumer.rebalance(0, 1)
    pipeline.run_until_quiet()
    assert seeks(pipeline) == []
    assert pipeline.released_of(0) == list(range(20))


@both_protocols
def test_no_loss_what_is_released_meanwhile_goes_through_the_new_gate(is_kip848: bool) -> None:
    """The old one drops it, since a rebalance waits for the work in flight and no backlog; it is read again, once."""
    pipeline = pipeline_of(0, is_kip848=is_kip848)
    pipeline.run_until_quiet()
    pipeline.release(0, 12)
    pipeline.consumer.events.extend([] if is_kip848 else [lambda: pipeline.consumer.revoke(0)])
    pipeline.consumer.events.append(lambda: pipeline.consumer.assign(*[1] if is_kip848 else [0, 1]))
    pipeline.run_until(lambda: len(pipeline.assignments) == 2)
    assert pipeline.released_of(0) == []
    assert pipeline.assignments[1] == {0: 0, 1: 0}
    pipeline.run_until_quiet()
    assert pipeline.released_of(0) == list(range(12))


@pytest.mark.parametrize("new", [(0, 1), (0,)], ids=["one more", "one less"])
def test_no_loss_the_message_that_the_processor_carried_is_read_again(new: tuple[int, ...]) -> None:
    """It was polled and rejected, so the consumer's position is past it, and Arroyo forgets it in the rebuild."""
    pipeline = pipeline_of(0, *({2} - set(new)) if len(new) == 1 else ())
    pipeline.release(0, 20)
    pipeline.release(2, 0)
    pipeline.reject_partition(0)
    pipeline.run(5)
    assert pipeline.consumer.tell()[partition(0)] == 1
    assert pipeline.held(0) == 0
    pipeline.rebalance_now(*new)
    pipeline.accept()
    assert pipeline.assignments[1][0] == 0
    pipeline.run_until_quiet()
    assert pipeline.released_of(0) == list(range(20))


def test_no_loss_also_when_the_processor_had_paused_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pause is lifted with the rebuild, in which Arroyo forgets it, or nothing would ever be read again."""
    pause_at_once(monkeypatch)
    pipeline = pipeline_of(0, 1)
    pipeline.release(0, 20)
    pipeline.release(1, 3)
    pipeline.reject_partition(0)
    pipeline.run_until(lambda: len(pipeline.flow.paused()) == 2)
    assert pipeline.consumer.paused_indexes() == {0, 1}
    pipeline.consumer.rebalance(0, 1, 2)
    pipeline.run_until(lambda: len(pipeline.assignments) == 2)
    assert (pipeline.consumer.paused_indexes(), list(pipeline.flow.paused())) == (set(), [])
    pipeline.release(1, 20)
    pipeline.release(2, 20)
    pipeline.run_until_quiet()
    assert [pipeline.released_of(index) for index in range(3)] == [list(range(20))] * 3


@both_protocols
def test_no_loss_of_a_message_that_comes_with_the_rebalance_itself(
    monkeypatch: pytest.MonkeyPatch, is_kip848: bool
) -> None:
    """A paused processor expects none from its poll, and drops what comes: it must not be given any.

    The rebalance lifts the pause within that very poll, and librdkafka may have a message before the poll is over.
    """
    pause_at_once(monkeypatch)
    pipeline = pipeline_of(0, is_kip848=is_kip848)
    pipeline.release(0, 20)
    pipeline.release(1, 20)
    pipeline.reject_partition(0)
    pipeline.run_until(lambda: len(pipeline.flow.paused()) == 1)

    def rebalance() -> None:
        if not is_kip848:
            pipeline.consumer.revoke(0)
        pipeline.consumer.assign(1) if is_kip848 else pipeline.consumer.assign(0, 1)

    pipeline.consumer.events_while_waiting.append(rebalance)
    pipeline.run_until_quiet()
    assert pipeline.released_of(0) == pipeline.released_of(1) == list(range(20))


def test_no_loss_after_a_seek_back_from_outside() -> None:
    """What is held since then lies below the last offset staged: it is read again from where the seek went."""
    pipeline = pipeline_of(0)
    pipeline.release(0, 20)
    pipeline.run_until_quiet()
    pipeline.release(0, 5)
    pipeline.flow.seek({partition(0): 5})
    pipeline.run_until_quiet()
    assert pipeline.held(0) == 15
    pipeline.consumer.rebalance(0, 1)
    pipeline.run_until(lambda: len(pipeline.assignments) == 2)
    assert pipeline.assignments[1] == {0: 5, 1: 0}
    pipeline.release(0, 20)
    pipeline.run_until_quiet()
    assert pipeline.released_of(0) == [*range(20), *range(5, 20)]


def test_no_loss_after_a_seek_forward_from_outside() -> None:
    """What was held before the seek is read again; the seek doesn't count as having gone through."""
    pipeline = pipeline_of(0)
    pipeline.release(0, 2)
    pipeline.run_until(lambda: pipeline.held(0) == 3)
    pipeline.flow.seek({partition(0): 15})
    pipeline.invalid = {(0, offset) for offset in range(5, 15)}  # the user skipped them
    pipeline.run_until_quiet()
    pipeline.consumer.rebalance(0, 1)
    pipeline.run_until(lambda: len(pipeline.assignments) == 2)
    pipeline.release(0, 20)
    pipeline.run_until_quiet()
    assert {2, 3, 4} <= set(pipeline.released_of(0))


# States and the source.


@both_protocols
def test_the_new_gate_takes_its_local_offsets_from_where_it_really_reads(is_kip848: bool) -> None:
    """And a partition that is gone has none."""
    pipeline = pipeline_of(0, 1, is_kip848=is_kip848)
    pipeline.release(0, 5)
    pipeline.release(1, 5)
    pipeline.run_until_quiet()
    pipeline.consumer.rebalance(0)
    pipeline.run_until(lambda: len(pipeline.assignments) == 2)
    assert pipeline.manager.partitions["events", 0] == (SynchronizedPartitionState.SYNCHRONIZED, (5, 5))
    assert pipeline.manager.partitions["events", 1] == (SynchronizedPartitionState.UNKNOWN, (None, 5))
    assert pipeline.factory.held == {("events", 0): 0}


def test_the_source_hears_of_every_assignment_before_anything_is_released() -> None:
    """With the positions that messages will really come from, and of every revocation."""
    pipeline = pipeline_of(0)
    pipeline.release(0, 5)
    pipeline.run_until_quiet()
    pipeline.consumer.rebalance(0, 1)
    pipeline.run_until(lambda: len(pipeline.assignments) == 2)
    assert [call[:2] for call in pipeline.source.calls] == [
        ("assign", {("events", 0): 0}),
        ("revoke", {("events", 0)}),
        ("assign", {("events", 0): 5, ("events", 1): 0}),
    ]


def test_after_the_last_partition_is_gone_the_consumer_polls_as_before_the_first() -> None:
    """No gate is asked any more; the source still is."""
    pipeline = pipeline_of(0)
    pipeline.run_until_quiet()
    pipeline.consumer.rebalance()
    pipeline.run(3)
    pipeline.consumer.polls.clear()
    pipeline.waits.clear()
    pipeline.run(2)
    assert (pipeline.consumer.polls, pipeline.waits) == ([1.0, 1.0], [])
    pipeline.source.die(ValueError("broken"))
    with pytest.raises(SourceDied):
        pipeline.run()


@both_protocols
def test_a_clean_end_commits_what_went_through(is_kip848: bool) -> None:
    """What is buffered stays in Kafka, released or not; the source and the user's factory are shut down."""
    pipeline = pipeline_of(0, is_kip848=is_kip848)
    pipeline.release(0, 6)
    pipeline.run_until_quiet()
    pipeline.release(0, 9)
    pipeline.stop()
    assert pipeline.released == [(0, offset) for offset in range(6)]
    assert pipeline.consumer.committed == {0: 6}
    assert (pipeline.source.stop_timeouts, pipeline.user_factory.shutdowns) == ([5.0], 1)
    assert pipeline.flow.closed


# All together.


@pytest.mark.parametrize(
    ("is_kip848", "is_wrapped"),
    [
        pytest.param(False, True, id="eager"),
        pytest.param(True, True, id="KIP-848"),
        pytest.param(False, False, id="eager without the wrapper"),
    ],
)
@pytest.mark.parametrize("seed", range(8))
def test_the_promises_hold_through_any_number_of_rebalances(
    monkeypatch: pytest.MonkeyPatch, is_kip848: bool, is_wrapped: bool, seed: int
) -> None:
    """Rebalances, releases, leaders that go back, rejections and full partitions in a random order (by seed).

    Safety, order and no loss are checked as messages go through and at each commit, and at the end nothing is missing.
    Without the wrapper this holds under eager assignment.
    """
    pause_at_once(monkeypatch)
    pipeline = Pipeline(is_kip848=is_kip848, is_wrapped=is_wrapped, limits=HoldLimits(5, 2), join_timeout=0.0)
    _run_at_random(pipeline, random.Random(seed))


def _run_at_random(pipeline: Pipeline, dice: random.Random) -> None:
    produced = [0, 0, 0]
    actions: list[Callable[[int], None]] = [
        lambda index: _produce(pipeline, produced, index, dice.randrange(6)),
        lambda index: pipeline.release(index, dice.randrange(produced[index] + 1)),
        lambda index: pipeline.release(index, produced[index]),
        lambda index: pipeline.consumer.rebalance(*dice.sample(range(3), dice.randrange(4))),
        lambda index: _set_room(pipeline, dice.choice([None, 0, 1, 3])),
    ]
    pipeline.start(0, 1, 2)
    for _ in range(400):
        dice.choice(actions)(dice.randrange(3))
        pipeline.run(dice.randrange(6))
    pipeline.consumer.rebalance(0, 1, 2)
    pipeline.run_until(lambda: not pipeline.consumer.events)
    _set_room(pipeline, None)
    for index in range(3):
        pipeline.release(index, produced[index])
    pipeline.run_until_quiet()
    assert [sorted(set(pipeline.released_of(index))) for index in range(3)] == [list(range(each)) for each in produced]


def _produce(pipeline: Pipeline, produced: list[int], index: int, count: int) -> None:
    pipeline.produce(index, range(produced[index], produced[index] + count))
    produced[index] += count


def _set_room(pipeline: Pipeline, room: int | None) -> None:
    for step in pipeline.steps[-1:]:
        step.room = room
