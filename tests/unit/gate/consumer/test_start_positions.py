"""Where an assignment begins is committed before its gate exists, and a commit that fails ends nothing."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import pytest
from arroyo.types import Partition

from arroyo_sync.gate.consumer import start_positions
from arroyo_sync.gate.consumer.start_positions import RETRY_SECONDS, StartPositions
from tests.support.fakes import Clock, ScriptedConsumer, ScriptedStep, partition
from tests.support.pipelines import Pipeline, both_protocols


class FailingConsumer(ScriptedConsumer):
    """Its commits, or its stagings, fail as often as it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.failing_commits = 0
        self.failing_stagings = 0
        self.attempts = 0

    def stage_offsets(self, offsets: Mapping[Any, int]) -> None:
        if self.failing_stagings:
            self.failing_stagings -= 1
            raise RuntimeError("cannot store")
        super().stage_offsets(offsets)

    def commit_offsets(self) -> Mapping[Any, int]:
        self.attempts += 1
        if self.failing_commits:
            self.failing_commits -= 1
            raise RuntimeError("coordinator is away")
        return super().commit_offsets()


@pytest.fixture
def inner() -> FailingConsumer:
    inner = FailingConsumer()
    inner.assign(0, 1)
    return inner


@both_protocols
def test_the_positions_are_committed_before_the_gate_exists(is_kip848: bool) -> None:
    """Inside the assignment callback, so that no moment is left in which a crash could forget them."""
    committed_at_making: list[dict[int, int]] = []
    pipeline = Pipeline(is_kip848=is_kip848)
    make = pipeline.user_factory.create_with_partitions

    def noting(commit: Any, partitions: Any) -> Any:
        committed_at_making.append(dict(pipeline.consumer.committed))
        return make(commit, partitions)

    pipeline.user_factory.create_with_partitions = noting  # type: ignore[method-assign]
    pipeline.start(0, 1)
    assert committed_at_making == [{0: 0, 1: 0}]


def test_a_retained_partition_is_not_committed_anew() -> None:
    """What was staged for it counts, and its position is past what is held."""
    pipeline = Pipeline()
    pipeline.produce(0, range(9))
    pipeline.start(0)
    pipeline.run_until_quiet()
    assert pipeline.held(0) == 9
    pipeline.consumer.rebalance(0, 1)
    pipeline.run_until_quiet()
    assert pipeline.consumer.committed == {0: 0, 1: 0}


def test_the_first_message_that_is_held_past_the_position_is_committed() -> None:
    """The client began elsewhere by itself, as after an expired commit without strict resets."""
    pipeline = Pipeline()
    pipeline.produce(0, [15, 16, 30, 31])
    pipeline.start(0)
    pipeline.run_until_quiet()
    assert pipeline.held(0) == 4
    assert pipeline.consumer.committed == {0: 15}
    pipeline.consumer.rebalance(0, 1)
    pipeline.run_until(lambda: not pipeline.consumer.events)
    assert pipeline.assignments[1] == {0: 15, 1: 0}


def test_a_gap_behind_messages_in_flight_is_not_committed() -> None:
    """They have not gone through yet."""
    pipeline = Pipeline(build=lambda commit: ScriptedStep())
    pipeline.produce(0, [0, 15])
    pipeline.start(0)
    pipeline.release(0, 1)
    pipeline.run_until_quiet()
    assert (pipeline.released_of(0), pipeline.held(0)) == ([0], 1)
    assert pipeline.consumer.committed == {0: 0}


def test_what_the_commit_raises_ends_nothing_and_is_tried_again(
    inner: FailingConsumer, caplog: pytest.LogCaptureFixture
) -> None:
    """After a pause, since one may block for long; and the log says it once a minute."""
    clock = Clock()
    start = StartPositions(inner, clock)
    inner.failing_commits = 2
    start.commit({partition(0): 4})
    start.commit_if_due()
    assert (start.is_pending, inner.attempts, inner.committed) == (True, 1, {})
    for _ in range(2):
        clock.now += RETRY_SECONDS
        start.commit_if_due()
    assert (start.is_pending, inner.attempts, inner.committed) == (False, 3, {0: 4})
    clock.now += RETRY_SECONDS
    start.commit_if_due()
    assert inner.attempts == 3
    (record,) = caplog.records
    assert (record.levelno, record.getMessage()) == (
        logging.WARNING,
        "The positions that this assignment begins at could not be committed; it is tried again every 5 s. Until then "
        "a restart begins where auto.offset.reset says: coordinator is away",
    )


def test_a_later_offset_of_the_partitions_is_not_taken_back_by_the_next_try(inner: FailingConsumer) -> None:
    """What went through meanwhile is staged over it."""
    clock = Clock()
    start = StartPositions(inner, clock)
    inner.failing_commits = 1
    start.commit({partition(0): 4})
    inner.stage_offsets({partition(0): 7})
    clock.now += RETRY_SECONDS
    start.commit_if_due()
    assert inner.committed == {0: 7}


def test_what_could_not_be_staged_is_staged_with_the_next_try(inner: FailingConsumer) -> None:
    """Unless it was revoked by then."""
    clock = Clock()
    start = StartPositions(inner, clock)
    inner.failing_stagings = 1
    start.commit({partition(0): 4, partition(1): 5})
    start.forget([partition(1)])
    clock.now += RETRY_SECONDS
    start.commit_if_due()
    assert (start.is_pending, inner.committed) == (False, {0: 4})


def test_positions_are_named_with_the_first_try_alone(inner: FailingConsumer, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a consumer whose commits librdkafka makes: by the next it may have committed more, which isn't taken back."""
    clock = Clock()
    named: list[dict[Partition, int]] = []

    def commit_staged(consumer: object, offsets: Mapping[Partition, int]) -> None:
        named.append(dict(offsets))
        if len(named) == 1:
            raise RuntimeError("coordinator is away")

    monkeypatch.setattr(start_positions, "commit_staged", commit_staged)
    start = StartPositions(inner, clock)
    start.commit({partition(0): 4, partition(1): 5})
    clock.now += RETRY_SECONDS
    start.commit_if_due()
    start.commit({partition(1): 7})
    assert named == [{partition(0): 4, partition(1): 5}, {}, {partition(1): 7}]


def test_a_new_assignment_tries_at_once_whatever_failed_before(inner: FailingConsumer) -> None:
    """Its own positions, and with them what is still staged."""
    start = StartPositions(inner, Clock())
    inner.failing_commits = 1
    start.commit({partition(0): 4})
    start.commit({partition(1): 5})
    assert (start.is_pending, inner.committed) == (False, {0: 4, 1: 5})


def test_the_consumer_tries_again_while_no_message_comes() -> None:
    """An assignment whose commit failed goes on, and is durable a few seconds later though everything is held."""
    clock = Clock()
    pipeline = Pipeline(clock=clock)
    commit_offsets = pipeline.consumer.commit_offsets
    attempts: list[float] = []

    def fail_once() -> Mapping[Any, int]:
        attempts.append(clock.now)
        if len(attempts) == 1:
            raise RuntimeError("coordinator is away")
        return commit_offsets()

    pipeline.consumer.commit_offsets = fail_once  # type: ignore[method-assign]
    pipeline.produce(0, range(9))
    pipeline.start(0)
    pipeline.run_until_quiet()
    assert (pipeline.held(0), pipeline.consumer.committed) == (9, {})
    clock.now += RETRY_SECONDS
    pipeline.run()
    assert pipeline.consumer.committed == {0: 0}
    assert len(attempts) == 2
