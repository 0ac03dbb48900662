"""Pauses of single partitions for the gate, beside those that the processor and the user ask for."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from arroyo.errors import ConsumerError
from arroyo.types import Partition
from confluent_kafka import KafkaError, KafkaException

from arroyo_sync.gate.consumer.pauses import Pauses, wake_fetching
from arroyo_sync.gate.flow_control import FlowControlledConsumer
from arroyo_sync.gate.partition_buffer import MESSAGE_OVERHEAD_BYTES, HoldLimits
from tests.support import pipelines
from tests.support.fakes import ScriptedConsumer, partition
from tests.support.harness import GateHarness
from tests.support.pipelines import Pipeline, pause_at_once

LIMITS = HoldLimits(messages=4, resume_messages=2)


def pipeline_of(*indexes: int, produced: int = 20) -> Pipeline:
    """With limits of 4 messages down to 2."""
    return pipelines.pipeline_of(*indexes, produced=produced, limits=LIMITS)


def pauses_and_resumes(pipeline: Pipeline) -> list[tuple[str, Any]]:
    return [call for call in pipeline.consumer.calls if call[0] != "seek"]


# The gate's pauses.


def test_a_partition_that_is_not_fetched_yet_ends_no_processor_as_it_is_woken() -> None:
    """librdkafka refuses to seek there, as when one rebalance follows another; it is fetched soon enough."""
    pipeline = pipeline_of(0)
    refused: list[object] = []

    def seek(offsets: object) -> None:
        refused.append(offsets)
        raise KafkaException(KafkaError(KafkaError._STATE))

    pipeline.consumer.seek = seek  # type: ignore[method-assign]
    wake_fetching(pipeline.consumer, [partition(0), partition(1)])
    assert refused == [{partition(0): pipeline.consumer.tell()[partition(0)]}]


def test_each_partition_is_woken_by_itself() -> None:
    """One that isn't fetched yet keeps no other asleep."""
    pipeline = pipeline_of(0, 1)
    sought: list[int] = []

    def seek(offsets: dict[Partition, int]) -> None:
        sought.extend(each.index for each in offsets)
        raise KafkaException(KafkaError(KafkaError._STATE))

    pipeline.consumer.seek = seek  # type: ignore[method-assign, assignment]
    wake_fetching(pipeline.consumer, [partition(0), partition(1)])
    assert sought == [0, 1]


def test_bounded_a_full_partition_is_paused_alone_and_nothing_of_it_arrives() -> None:
    """At its limit exactly; the others read on, and the processor never sees a rejection."""
    pipeline = pipeline_of(0, 1)
    pipeline.release(1, 20)
    pipeline.run_until_quiet()
    assert (pipeline.held(0), pipeline.held(1)) == (4, 0)
    assert pipeline.released == [(1, offset) for offset in range(20)]
    assert pauses_and_resumes(pipeline) == [("pause", [0])]
    assert pipeline.consumer.tell()[partition(0)] == 4


def test_bounded_in_bytes() -> None:
    """Large messages fill a partition long before their number does."""
    weight = MESSAGE_OVERHEAD_BYTES + 10_000
    pipeline = Pipeline(limits=HoldLimits(bytes=3 * weight, resume_bytes=weight))
    pipeline.start(0)
    pipeline.produce(0, range(20), value=b"x" * 10_000)
    pipeline.run_until_quiet()
    assert pipeline.held(0) == 3
    pipeline.release(0, 20)
    pipeline.run_until_quiet()
    assert pipeline.released == [(0, offset) for offset in range(20)]


def test_a_message_larger_than_the_limit_is_held_alone_and_goes_on() -> None:
    """The partition is paused for it, and resumed after it."""
    pipeline = Pipeline(limits=HoldLimits(bytes=1_000, resume_bytes=0))
    pipeline.start(0)
    pipeline.produce(0, range(3), value=b"x" * 100_000)
    pipeline.run_until_quiet()
    assert pipeline.held(0) == 1
    for remote in (1, 2, 3):
        pipeline.release(0, remote)
        pipeline.run_until_quiet()
    assert pipeline.released == [(0, 0), (0, 1), (0, 2)]


def test_a_full_partition_is_resumed_when_it_has_drained_and_not_before() -> None:
    """At the low mark, once, whatever other partitions do meanwhile."""
    pipeline = pipeline_of(0, 1)
    pipeline.run_until_quiet()
    assert pipeline.consumer.paused_indexes() == {0, 1}
    pipeline.consumer.calls.clear()
    pipeline.release(0, 1)
    pipeline.run_until_quiet()
    assert (pipeline.held(0), pauses_and_resumes(pipeline)) == (3, [])
    pipeline.release(1, 20)
    pipeline.run_until_quiet()
    assert pipeline.consumer.paused_indexes() == {0}
    pipeline.consumer.calls.clear()
    pipeline.release(0, 2)
    pipeline.run_until_quiet()
    assert pauses_and_resumes(pipeline) == [("resume", [0]), ("pause", [0])]
    assert pipeline.held(0) == 4


def test_bounded_no_partition_ever_holds_more_than_its_limit() -> None:
    """Over a long run with leaders that move in jerks, looked at in every round."""
    pipeline = pipeline_of(0, 1, 2, produced=300)
    for round_number in range(1_500):
        index = round_number % 3
        if round_number % 7 == 0:
            pipeline.release(index, round_number // 4)
        pipeline.run()
        assert max(pipeline.held(index) for index in range(3)) <= LIMITS.messages
    for index in range(3):
        pipeline.release(index, 300)
    pipeline.run_until_quiet()
    assert [pipeline.released_of(index) for index in range(3)] == [list(range(300))] * 3


def test_pauses_and_resumes_are_counted() -> None:
    """By partition, for the metrics."""
    pipeline = pipeline_of(0, 1)
    pipeline.run_until_quiet()
    pipeline.release(0, 4)
    pipeline.run_until_quiet()
    assert (pipeline.flow.pauses, pipeline.flow.resumes) == (3, 1)
    pipeline.release(0, 20)
    pipeline.release(1, 20)
    pipeline.run_until_quiet()
    assert (pipeline.flow.pauses, pipeline.flow.resumes) == (3, 3)


def test_only_what_differs_from_the_last_look_is_paused_resumed_and_counted() -> None:
    """A partition may fill and drain, or drain and fill, between two polls: the consumer hears of neither."""
    harness = GateHarness({0: 0}, limits=LIMITS)
    inner = ScriptedConsumer()
    inner.assign(0)
    flow = FlowControlledConsumer(inner, harness.manager, lambda: None)
    flow.attach(harness.gate)

    harness.hold(0, 0, 1, 2, 3)
    harness.release(0, 2)
    harness.gate.poll()
    flow.poll(0.0)
    assert (inner.calls, flow.pauses, flow.resumes) == ([], 0, 0)

    harness.hold(0, 4, 5)
    flow.poll(0.0)
    assert (inner.calls, flow.pauses, flow.resumes) == ([("pause", [0])], 1, 0)
    harness.release(0, 4)
    harness.gate.poll()
    harness.hold(0, 6, 7)
    flow.poll(0.0)
    assert (inner.calls, flow.pauses, flow.resumes) == ([("pause", [0])], 1, 0)


# Pauses from outside, and both together.


def test_paused_shows_what_was_asked_from_outside() -> None:
    """The processor and the user see their own pauses, and none that they didn't make."""
    pipeline = pipeline_of(0, 1)
    pipeline.run_until_quiet()
    assert pipeline.consumer.paused_indexes() == {0, 1}
    assert list(pipeline.flow.paused()) == []
    pipeline.flow.pause([partition(1)])
    assert list(pipeline.flow.paused()) == [partition(1)]


@pytest.mark.parametrize("last", ["the gate", "outside"])
@pytest.mark.parametrize("first", ["the gate", "outside"])
def test_a_partition_is_paused_while_either_asks_for_it(first: str, last: str) -> None:
    """The consumer hears of the first that comes and of the last that goes, and of nothing in between."""
    pipeline = pipeline_of(0, 1)
    pipeline.release(1, 99)
    pipeline.run_until(lambda: pipeline.held(0) == 4)
    if first == "the gate":
        pipeline.run()
    pipeline.flow.pause([partition(0)])
    pipeline.flow.pause([partition(0)])
    pipeline.run_until_quiet()
    assert pauses_and_resumes(pipeline) == [("pause", [0])]

    pipeline.consumer.calls.clear()
    if last == "the gate":
        pipeline.flow.resume([partition(0)])
        pipeline.run_until_quiet()
        assert pauses_and_resumes(pipeline) == []
        pipeline.release(0, 4)
    else:
        pipeline.release(0, 4)
        pipeline.run_until_quiet()
        assert pauses_and_resumes(pipeline) == []
        pipeline.flow.resume([partition(0)])
    pipeline.run_until(lambda: pauses_and_resumes(pipeline) != [])  # a slice may end before all four have gone on
    assert pauses_and_resumes(pipeline) == [("resume", [0])]


@pytest.mark.parametrize("action", ["pause", "resume"])
def test_partitions_that_are_not_assigned_are_an_error_and_none_is_touched(action: str) -> None:
    """As Arroyo's consumer has it."""
    pipeline = pipeline_of(0)
    with pytest.raises(ConsumerError, match=f"^cannot {action} unassigned partitions$"):
        getattr(pipeline.flow, action)([partition(0), partition(7)])
    assert (list(pipeline.flow.paused()), pauses_and_resumes(pipeline)) == ([], [])


def test_a_user_that_paused_everything_may_resume_a_part() -> None:
    """Pausing all partitions is the processor's habit, but not its alone: the resumed one is read."""
    pipeline = pipeline_of(0, 1)
    pipeline.release(0, 99)
    pipeline.release(1, 99)
    pipeline.flow.pause([partition(0), partition(1)])
    pipeline.run_until_quiet()
    assert pipeline.released == []
    pipeline.flow.resume([partition(1)])
    pipeline.run_until_quiet()
    assert pipeline.released == [(1, offset) for offset in range(20)]


# The processor's own back-pressure: it pauses every partition, asserts that nothing arrives, and resumes every one.


def test_nothing_arrives_while_the_processor_is_paused_though_the_gate_drains(monkeypatch: pytest.MonkeyPatch) -> None:
    """A partition that drains meanwhile stays paused until the processor resumes; then both sets are empty."""
    pause_at_once(monkeypatch)
    pipeline = pipeline_of(0, 1)
    pipeline.run_until(lambda: pipeline.held(0) == 4)
    pipeline.release(1, 99)
    pipeline.reject_partition(1)
    pipeline.run_until(lambda: len(pipeline.flow.paused()) == 2)
    assert pipeline.consumer.paused_indexes() == {0, 1}
    read = dict(pipeline.consumer.tell())
    pipeline.release(0, 4)
    pipeline.run_until(lambda: pipeline.held(0) == 0)
    pipeline.run(20)
    assert dict(pipeline.consumer.tell()) == read
    assert pipeline.consumer.paused_indexes() == {0, 1}

    pipeline.accept()
    pipeline.release(0, 99)
    pipeline.run_until_quiet()
    assert list(pipeline.flow.paused()) == []
    assert pipeline.consumer.paused_indexes() == set()
    assert pipeline.released_of(0) == pipeline.released_of(1) == list(range(20))


def test_a_full_partition_stays_paused_when_the_processor_resumes_every_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its resume names all partitions; the gate's are left out."""
    pause_at_once(monkeypatch)
    pipeline = pipeline_of(0, 1)
    pipeline.run_until(lambda: pipeline.held(0) == 4)
    pipeline.release(1, 99)
    pipeline.reject_partition(1)
    pipeline.run_until(lambda: len(pipeline.flow.paused()) == 2)
    pipeline.accept()
    pipeline.run_until_quiet()
    assert pipeline.consumer.paused_indexes() == {0}
    assert pipeline.held(0) == 4
    assert pipeline.released_of(1) == list(range(20))


def test_progress_a_paused_processor_still_hands_on_what_is_released(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its polls of the paused consumer wait for remote offsets, as all others do, and not for messages."""
    pause_at_once(monkeypatch)
    pipeline = pipeline_of(0, 1)
    pipeline.run_until(lambda: pipeline.held(0) == 4)
    pipeline.release(1, 99)
    pipeline.reject_partition(1)
    pipeline.run_until(lambda: len(pipeline.flow.paused()) == 2)
    pipeline.consumer.polls.clear()
    pipeline.run(3)
    assert pipeline.consumer.polls == [0.0] * 3
    pipeline.release(0, 3)
    pipeline.run_until(lambda: pipeline.released_of(0) == [0, 1, 2])


def test_the_users_own_pause_is_not_lifted_by_the_gate() -> None:
    """It stays when the partition fills and drains, until the user takes it back."""
    pipeline = pipeline_of(0, 1)
    pipeline.run(3)
    pipeline.flow.pause([partition(0)])
    held = pipeline.held(0)
    pipeline.release(0, 99)
    pipeline.release(1, 99)
    pipeline.run_until_quiet()
    assert pipeline.released_of(0) == list(range(held))
    assert pipeline.released_of(1) == list(range(20))
    pipeline.flow.resume([partition(0)])
    pipeline.run_until_quiet()
    assert pipeline.released_of(0) == list(range(20))


def test_many_partitions_are_paused_without_comparing_each_with_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arroyo asks for every assigned partition whether it is among them: 60 ms for 1,000 of 1,000."""
    paused: list[Sequence[Partition]] = []
    inner: Any = SimpleNamespace(pause=paused.append)
    Pauses(inner).apply({partition(index): True for index in range(1_000)})
    (partitions,) = paused
    assert list(partitions) == [partition(index) for index in range(1_000)]
    compared = 0
    is_equal = Partition.__eq__

    def count(one: Partition, other: object) -> bool:
        nonlocal compared
        compared += 1
        return bool(is_equal(one, other))

    monkeypatch.setattr(Partition, "__eq__", count)
    assert all(partition(index) in partitions for index in range(1_000))
    assert compared <= 1_100
