"""Arroyo's own strategies behind the gate, under Arroyo's own processor."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from arroyo.backends.kafka import KafkaPayload
from arroyo.backends.local.backend import LocalBroker
from arroyo.backends.local.storages.memory import MemoryMessageStorage
from arroyo.processing.strategies.abstract import ProcessingStrategy
from arroyo.processing.strategies.batching import BatchStep, UnbatchStep
from arroyo.processing.strategies.commit import CommitOffsets
from arroyo.processing.strategies.produce import Produce
from arroyo.processing.strategies.reduce import Reduce
from arroyo.processing.strategies.run_task import RunTask
from arroyo.processing.strategies.run_task_in_threads import RunTaskInThreads
from arroyo.processing.strategies.run_task_with_multiprocessing import MultiprocessingPool, RunTaskWithMultiprocessing
from arroyo.types import BaseValue, Commit, Message, Topic

from arroyo_sync.core.errors import StepRejectedInPoll
from tests.support.fakes import At, ScriptedStep, at
from tests.support.pipelines import BuildStrategy, Pipeline, both_protocols

MESSAGES = 60
"""In each partition."""
COPIES = Topic("copies")


class Seen:
    """What the user's code was given, from whichever thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.messages: list[At] = []

    def __call__(self, message: Message[KafkaPayload]) -> KafkaPayload:
        with self._lock:
            self.messages.append(at(message))
        return message.payload

    def value(self, value: BaseValue[KafkaPayload]) -> None:
        self(Message(value))


def run_task(seen: Seen, commit: Commit) -> ProcessingStrategy[KafkaPayload]:
    return RunTask(seen, CommitOffsets(commit))


def run_task_in_threads(seen: Seen, commit: Commit) -> ProcessingStrategy[KafkaPayload]:
    """With so small a queue that it rejects often."""
    return RunTaskInThreads(seen, 2, 3, CommitOffsets(commit))


def reduce(seen: Seen, commit: Commit) -> ProcessingStrategy[KafkaPayload]:
    def accumulate(count: int, value: BaseValue[KafkaPayload]) -> int:
        seen.value(value)
        return count + 1

    return Reduce(7, 0.01, accumulate, lambda: 0, CommitOffsets(commit))


def batch_step(seen: Seen, commit: Commit) -> ProcessingStrategy[KafkaPayload]:
    """A batch, and out of it again, into a step that sees single messages."""
    return BatchStep(7, 0.01, UnbatchStep(RunTask(seen, CommitOffsets(commit))))


def produce(seen: Seen, commit: Commit) -> ProcessingStrategy[KafkaPayload]:
    """With so small a buffer that it rejects often; behind a task, since it hands on what it produced."""
    broker: LocalBroker[KafkaPayload] = LocalBroker(MemoryMessageStorage())
    broker.create_topic(COPIES, 1)
    return RunTask(seen, Produce(broker.get_producer(), COPIES, CommitOffsets(commit), max_buffer_size=2))


STRATEGIES = [run_task, run_task_in_threads, reduce, batch_step, produce]
every_strategy = pytest.mark.parametrize("strategy", STRATEGIES, ids=[each.__name__ for each in STRATEGIES])


def pipeline_with(build: BuildStrategy, is_kip848: bool = True) -> Pipeline:
    """Two partitions full of messages, none of them released."""
    pipeline = Pipeline(build=build, is_kip848=is_kip848)
    for index in range(2):
        pipeline.produce(index, range(MESSAGES))
    pipeline.start(0, 1)
    return pipeline


def run_to_the_end(pipeline: Pipeline) -> None:
    """Release everything in steps, wait until all has gone through the gate, and end."""
    for remote in range(0, MESSAGES + 1, 20):
        for index in range(2):
            pipeline.release(index, remote)
            pipeline.run(3)
    pipeline.run_until(lambda: len(set(pipeline.released)) == 2 * MESSAGES)
    pipeline.stop()


@every_strategy
@both_protocols
def test_every_message_goes_through_once_and_is_committed(
    strategy: Callable[[Seen, Commit], ProcessingStrategy[KafkaPayload]], is_kip848: bool
) -> None:
    """Safety, order and no loss are checked on the way; a clean end commits all that was released."""
    seen = Seen()
    pipeline = pipeline_with(lambda commit: strategy(seen, commit), is_kip848)
    run_to_the_end(pipeline)
    everything = [(index, offset) for index in range(2) for offset in range(MESSAGES)]
    assert sorted(pipeline.released) == everything
    assert sorted(set(seen.messages)) == everything
    assert pipeline.consumer.committed == {0: MESSAGES, 1: MESSAGES}


@every_strategy
@both_protocols
def test_nothing_is_lost_in_a_rebalance(
    strategy: Callable[[Seen, Commit], ProcessingStrategy[KafkaPayload]], is_kip848: bool
) -> None:
    """Messages are held, left over, and in flight in the strategy when it is rebuilt twice."""
    seen = Seen()
    pipeline = pipeline_with(lambda commit: strategy(seen, commit), is_kip848)
    pipeline.run(2 * MESSAGES)
    pipeline.release(0, 33)
    pipeline.release(1, 7)
    pipeline.run(4)
    pipeline.consumer.rebalance(0)
    pipeline.run(5)
    pipeline.release(0, 44)
    pipeline.run(4)
    pipeline.consumer.rebalance(0, 1)
    pipeline.run(5)
    run_to_the_end(pipeline)
    assert sorted(set(seen.messages)) == [(index, offset) for index in range(2) for offset in range(MESSAGES)]
    assert pipeline.consumer.committed == {0: MESSAGES, 1: MESSAGES}
    assert len(pipeline.assignments) >= 3


@pytest.fixture
def pool() -> Iterator[MultiprocessingPool]:
    pool = MultiprocessingPool(1)
    yield pool
    pool.close()


def length(message: Message[KafkaPayload]) -> int:
    """What the other processes do."""
    return len(message.payload.value)


def test_run_task_with_multiprocessing(pool: MultiprocessingPool) -> None:
    """Also through a rebalance; its results come in the order of the offsets, each once in an assignment."""
    results: list[tuple[int, int, int]] = []

    def build(commit: Commit) -> ProcessingStrategy[KafkaPayload]:
        class Results(CommitOffsets):
            def submit(self, message: Message[int]) -> None:
                results.append((len(pipeline.assignments), at(message)[1], message.payload))
                super().submit(message)

        return RunTaskWithMultiprocessing(length, Results(commit), 5, 0.01, pool)

    pipeline = Pipeline(build=build)
    pipeline.produce(0, range(20), value=b"12345")
    pipeline.start(0)
    pipeline.run(30)
    assert pipeline.released == []
    pipeline.release(0, 11)
    pipeline.run_until(lambda: pipeline.held(0) == 9)
    pipeline.consumer.rebalance(0, 1)
    pipeline.run_until(lambda: len(pipeline.assignments) == 2)
    pipeline.release(0, 20)
    pipeline.run_until(lambda: len(results) >= 20)
    pipeline.stop()
    assert {length for _, _, length in results} == {5}
    assert [offset for _, offset, _ in results] == list(range(20))
    assert pipeline.consumer.committed == {0: 20, 1: 0}


def test_a_step_that_rejects_behind_one_with_a_queue_ends_the_processor_and_loses_nothing() -> None:
    """`RunTaskInThreads` has taken the message out of its queue by then: only reading again saves it."""
    last: Any = ScriptedStep()
    last.room = 2
    seen = Seen()
    pipeline = Pipeline(build=lambda commit: RunTaskInThreads(seen, 1, 10, last))
    pipeline.produce(0, range(5))
    pipeline.start(0)
    pipeline.release(0, 5)
    with pytest.raises(StepRejectedInPoll, match="larger buffer"):
        pipeline.run_until(lambda: False)
    assert last.taken == [(0, 0), (0, 1)]
    assert pipeline.consumer.committed == {0: 0}  # where the assignment began


def test_slow_steps_are_waited_for_without_losing_their_turn() -> None:
    """A full `RunTaskInThreads` rejects what is left over; when it has room the line goes on."""
    go = threading.Event()
    seen = Seen()

    def wait(message: Message[KafkaPayload]) -> KafkaPayload:
        assert go.wait(30.0)
        return seen(message)

    pipeline = pipeline_with(lambda commit: RunTaskInThreads(wait, 1, 2, CommitOffsets(commit)))
    pipeline.run_until(lambda: pipeline.held(0) + pipeline.held(1) == 2 * MESSAGES)
    pipeline.release(0, 10)
    pipeline.run(20)
    assert len(pipeline.released) == 3
    go.set()
    pipeline.run_until(lambda: len(seen.messages) == 10)
    assert Counter(seen.messages) == Counter((0, offset) for offset in range(10))
    pipeline.stop()
