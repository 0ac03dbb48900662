"""What is paused when Arroyo rebuilds its strategy, and what is not any more afterwards."""

from __future__ import annotations

import pytest

from arroyo_sync.gate.partition_buffer import HoldLimits
from tests.support.fakes import partition
from tests.support.pipelines import both_protocols, pause_at_once, pipeline_of


@both_protocols
def test_a_partition_that_the_gate_had_paused_reads_on_after_a_rebalance(is_kip848: bool) -> None:
    """The new gate is empty, so it starts with no pauses; Arroyo resumes only what is newly assigned."""
    limits = HoldLimits(messages=4, resume_messages=2)
    pipeline = pipeline_of(0, is_kip848=is_kip848, limits=limits)
    pipeline.run_until_quiet()
    assert pipeline.consumer.paused_indexes() == {0}
    pipeline.consumer.rebalance(0, 1)
    pipeline.run_until(lambda: len(pipeline.assignments) == 2)
    assert pipeline.consumer.paused_indexes() == set()
    pipeline.release(0, 20)
    pipeline.run_until_quiet()
    assert pipeline.released_of(0) == list(range(20))


@both_protocols
@pytest.mark.parametrize("who", ["gate", "user", "processor"])
def test_no_partition_is_revoked_while_it_is_paused(is_kip848: bool, who: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever paused it. librdkafka would keep the pause, and to lift it later may end the partition's fetching."""
    pause_at_once(monkeypatch)
    pipeline = pipeline_of(0, 1, is_kip848=is_kip848, limits=HoldLimits(messages=4, resume_messages=2))
    if who == "gate":
        pipeline.run_until_quiet()
    elif who == "user":
        pipeline.flow.pause([partition(0)])
    else:
        pipeline.release(0, 20)
        pipeline.reject_partition(0)
        pipeline.run_until(lambda: len(pipeline.flow.paused()) == 2)
    assert 0 in pipeline.consumer.paused_indexes()
    pipeline.consumer.rebalance(1)
    pipeline.run_until(lambda: len(pipeline.assignments) == 2)
    assert pipeline.consumer.revoked_paused == set()


def test_a_retained_partition_that_the_user_paused_stays_paused() -> None:
    """Only the gate's and the processor's pauses end with the old strategy."""
    pipeline = pipeline_of(0, 1)
    pipeline.flow.pause([partition(0)])
    pipeline.consumer.rebalance(0, 1, 2)
    pipeline.run_until(lambda: len(pipeline.assignments) == 2)
    assert pipeline.consumer.paused_indexes() == {0}
    assert list(pipeline.flow.paused()) == [partition(0)]
    pipeline.release(0, 20)
    pipeline.flow.resume([partition(0)])
    pipeline.run_until_quiet()
    assert pipeline.released_of(0) == list(range(20))


def test_the_users_pause_outlives_the_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processor paused all on top of it; the rebuild takes back that, and leaves the user's."""
    pause_at_once(monkeypatch)
    pipeline = pipeline_of(0, 1)
    pipeline.flow.pause([partition(1)])
    pipeline.release(0, 20)
    pipeline.reject_partition(0)
    pipeline.run_until(lambda: len(pipeline.flow.paused()) == 2)
    pipeline.consumer.rebalance(0, 1, 2)
    pipeline.run_until(lambda: len(pipeline.assignments) == 2)
    assert pipeline.consumer.paused_indexes() == {1}


def test_a_resume_of_one_partition_does_not_make_the_processors_pause_the_users(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The rest of the processor's pause is still lifted with the rebuild, or those partitions would stand for good."""
    pause_at_once(monkeypatch)
    pipeline = pipeline_of(0, 1)
    pipeline.release(0, 20)
    pipeline.release(1, 20)
    pipeline.reject_partition(0)
    pipeline.run_until(lambda: len(pipeline.flow.paused()) == 2)
    pipeline.flow.resume([partition(1)])
    pipeline.rebalance_now(0, 1, 2)
    pipeline.accept()
    pipeline.run_until_quiet()
    assert pipeline.consumer.paused_indexes() == set()
    assert pipeline.released_of(0) == list(range(20))


@pytest.mark.parametrize("how", ["resumed", "revoked"])
def test_the_users_pause_that_ended_during_the_processors_is_not_brought_back(
    monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Neither of a partition that the user resumed meanwhile nor of one that was revoked."""
    pause_at_once(monkeypatch)
    pipeline = pipeline_of(0, 1)
    pipeline.flow.pause([partition(1)])
    pipeline.release(0, 20)
    pipeline.reject_partition(0)
    pipeline.run_until(lambda: len(pipeline.flow.paused()) == 2)
    if how == "resumed":
        pipeline.flow.resume([partition(1)])
        pipeline.rebalance_now(0, 1, 2)
    else:
        pipeline.rebalance_now(0)
    assert (list(pipeline.flow.paused()), pipeline.consumer.paused_indexes()) == ([], set())


@both_protocols
def test_a_partition_that_comes_back_is_not_paused(is_kip848: bool) -> None:
    """Whoever paused it before it was revoked: both sets forget it."""
    pipeline = pipeline_of(0, 1, is_kip848=is_kip848, limits=HoldLimits(messages=4, resume_messages=2))
    pipeline.run_until_quiet()
    pipeline.flow.pause([partition(1)])
    pipeline.consumer.rebalance(0)
    pipeline.run_until_quiet()
    assert list(pipeline.flow.paused()) == []
    pipeline.consumer.rebalance(0, 1)
    pipeline.release(1, 20)
    pipeline.run_until_quiet()
    assert pipeline.released_of(1) == list(range(20))


def test_a_pause_that_the_user_asks_for_after_the_processors_ended_outlives_a_rebalance(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The processor paused everything and resumed it: nothing of that is left that could take the user's back."""
    pause_at_once(monkeypatch)
    pipeline = pipeline_of(0, 1)
    pipeline.release(0, 20)
    pipeline.reject_partition(0)
    pipeline.run_until(lambda: len(pipeline.flow.paused()) == 2)
    pipeline.accept()
    pipeline.run_until_quiet()
    assert list(pipeline.flow.paused()) == []
    pipeline.flow.pause([partition(0)])
    pipeline.consumer.rebalance(0, 1, 2)
    pipeline.run_until(lambda: len(pipeline.assignments) == 2)
    assert list(pipeline.flow.paused()) == [partition(0)]
    assert pipeline.consumer.paused_indexes() == {0}


def test_every_pause_of_the_processor_ends_with_the_rebuild_that_follows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one as the first, or its partitions would stand for good."""
    pause_at_once(monkeypatch)
    pipeline = pipeline_of(0)
    pipeline.release(0, 20)
    for more in (1, 2):
        pipeline.reject_partition(0)
        pipeline.run_until(lambda: pipeline.consumer.tell().keys() == set(pipeline.flow.paused()))
        pipeline.rebalance_now(*range(more + 1))
        assert (list(pipeline.flow.paused()), pipeline.consumer.paused_indexes()) == ([], set())
    pipeline.accept()
    pipeline.run_until_quiet()
    assert pipeline.released_of(0) == list(range(20))
