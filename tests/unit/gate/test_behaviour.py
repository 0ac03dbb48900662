"""Rules of behaviour that every strategy of Arroyo keeps, kept by the gate with each of them behind it.

Called as Arroyo's processor calls a strategy. The rules are those of Arroyo's own suite for its strategies
(``tests/processing/strategies/test_all.py``): dead letters, ``poll``, ``terminate``, ``join``; and rejections.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast
from unittest.mock import Mock, call

import pytest
from arroyo.backends.kafka import KafkaPayload
from arroyo.backends.local.backend import LocalBroker
from arroyo.backends.local.storages.memory import MemoryMessageStorage
from arroyo.dlq import InvalidMessage
from arroyo.processing.strategies.abstract import MessageRejected, ProcessingStrategy
from arroyo.processing.strategies.batching import BatchStep, UnbatchStep
from arroyo.processing.strategies.filter import FilterStep
from arroyo.processing.strategies.guard import StrategyGuard
from arroyo.processing.strategies.healthcheck import Healthcheck
from arroyo.processing.strategies.produce import Produce
from arroyo.processing.strategies.reduce import Reduce
from arroyo.processing.strategies.run_task import RunTask
from arroyo.processing.strategies.run_task_in_threads import RunTaskInThreads
from arroyo.processing.strategies.run_task_with_multiprocessing import MultiprocessingPool, RunTaskWithMultiprocessing
from arroyo.types import BaseValue, BrokerValue, FilteredPayload, Message, Topic

from tests.support.fakes import At, message
from tests.support.harness import TIMEOUT_SECONDS, GateHarness

INVALID = b"invalid"


class Scene:
    """What the strategies need to be made."""

    def __init__(self, pool: MultiprocessingPool, folder: Path) -> None:
        self.pool = pool
        self.folder = folder


Build = Callable[[Any, Scene], ProcessingStrategy[Any]]


def check(message: Message[KafkaPayload]) -> KafkaPayload:
    """A task that finds some messages invalid."""
    if message.payload.value == INVALID:
        raise InvalidMessage.from_value(cast(BrokerValue[KafkaPayload], message.value))
    return message.payload


def count(so_far: int, value: BaseValue[KafkaPayload]) -> int:
    return so_far + 1


def run_task(next_step: Any, scene: Scene) -> ProcessingStrategy[Any]:
    return RunTask(check, next_step)


def run_task_in_threads(next_step: Any, scene: Scene) -> ProcessingStrategy[Any]:
    return RunTaskInThreads(check, 1, 10, next_step)


def run_task_with_multiprocessing(next_step: Any, scene: Scene) -> ProcessingStrategy[Any]:
    return RunTaskWithMultiprocessing(check, next_step, 10, 60.0, scene.pool, 16_384, 16_384)


def guarded_task(next_step: Any, scene: Scene) -> ProcessingStrategy[Any]:
    return StrategyGuard(lambda inner: RunTask(check, inner), next_step)


def healthcheck(next_step: Any, scene: Scene) -> ProcessingStrategy[Any]:
    return Healthcheck(str(scene.folder / "health"), RunTask(check, next_step))


def filter_step(next_step: Any, scene: Scene) -> ProcessingStrategy[Any]:
    return FilterStep(lambda message: True, next_step)


def reduce(next_step: Any, scene: Scene) -> ProcessingStrategy[Any]:
    return Reduce(1, 1.0, count, lambda: 0, next_step)


def batch(next_step: Any, scene: Scene) -> ProcessingStrategy[Any]:
    return BatchStep(2, 60.0, UnbatchStep(next_step))


def produce(next_step: Any, scene: Scene) -> ProcessingStrategy[Any]:
    broker: LocalBroker[KafkaPayload] = LocalBroker(MemoryMessageStorage())
    broker.create_topic(Topic("copies"), 1)
    return Produce(broker.get_producer(), Topic("copies"), next_step)


CHECKING: list[Build] = [run_task, run_task_in_threads, run_task_with_multiprocessing, guarded_task, healthcheck]
ALL: list[Build] = [*CHECKING, filter_step, reduce, batch, produce]


def each_of(strategies: list[Build]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("build", strategies, ids=[each.__name__ for each in strategies])


@pytest.fixture(scope="module")
def pool() -> Iterator[MultiprocessingPool]:
    pool = MultiprocessingPool(1)
    yield pool
    pool.close()


@pytest.fixture
def scene(pool: MultiprocessingPool, tmp_path: Path) -> Scene:
    return Scene(pool, tmp_path)


class LastStep(ProcessingStrategy[Any]):
    """Takes everything; is not to be polled, or given anything, once closed."""

    def __init__(self) -> None:
        self.is_closed = False

    def submit(self, message: Message[Any]) -> None:
        assert not self.is_closed, "submitted after close"

    def poll(self) -> None:
        assert not self.is_closed, "polled after close"

    def close(self) -> None:
        self.is_closed = True

    def terminate(self) -> None: ...

    def join(self, timeout: float | None = None) -> None: ...


class Processor:
    """Calls a gate as Arroyo's does, without a consumer."""

    def __init__(self, build: Build, scene: Scene) -> None:
        self.last = Mock(wraps=LastStep())
        self.harness = GateHarness({0: 0, 1: 0}, step=build(self.last, scene))
        self.gate = self.harness.gate
        self.invalid: list[InvalidMessage] = []

    def protected(self, method: Callable[..., object], *args: object) -> InvalidMessage | None:
        try:
            method(*args)
        except InvalidMessage as invalid:
            self.invalid.append(invalid)
            return invalid
        return None

    def give(self, message: Message[KafkaPayload]) -> None:
        """A turn with this message; another one if an exception named an earlier one."""
        value = cast(BrokerValue[KafkaPayload], message.value)
        while True:
            named = self.protected(self.gate.poll) or self.protected(self.gate.submit, message)
            if named is None or (named.partition, named.offset) == (value.partition, value.offset):
                return

    def release_all(self) -> None:
        for index in range(2):
            self.harness.release(index, 100)

    def run_until_nothing_is_buffered(self) -> None:
        for _ in range(100):
            self.protected(self.gate.poll)
            if not self.gate.buffers.held_messages:
                return
        raise AssertionError("still buffered")

    def end(self, timeout: float | None = None) -> None:
        """As Arroyo does it, and as its suite does, which polls between two joins."""
        self.gate.close()
        for _ in range(100):
            if self.protected(self.gate.join, timeout) is None:
                return
            self.protected(self.gate.poll)
        raise AssertionError("join raises for ever")

    @property
    def joined_with(self) -> list[float | None]:
        """The timeouts of the last step's joins."""
        return [each.kwargs["timeout"] if each.kwargs else each.args[0] for each in self.last.join.call_args_list]

    @property
    def forwarded(self) -> list[Message[Any]]:
        return [each.args[0] for each in self.last.submit.call_args_list]


PATTERNS: dict[str, Sequence[tuple[int, int, bool]]] = {
    "one invalid": [(0, 0, True), (0, 1, False), (0, 2, True)],
    "the last one invalid": [(0, 0, True), (0, 1, False), (0, 2, True), (0, 3, False)],
    "two partitions": [(0, 0, True), (1, 0, True), (0, 1, False), (1, 1, False)],
    "all invalid": [(0, 0, False), (0, 1, False), (1, 0, False)],
}


@each_of(CHECKING)
@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
@pytest.mark.parametrize("is_held_first", [True, False], ids=["held", "released on arrival"])
def test_dead_letters(
    build: Build, scene: Scene, pattern: Sequence[tuple[int, int, bool]], is_held_first: bool
) -> None:
    """Each invalid message is named once, and the steps behind get a filtered one in its place; all others arrive."""
    processor = Processor(build, scene)
    messages = [message(index, offset, b"" if is_valid else INVALID) for index, offset, is_valid in pattern]
    if not is_held_first:
        processor.release_all()
    for each in messages:
        processor.give(each)
    processor.release_all()
    processor.run_until_nothing_is_buffered()
    processor.end(TIMEOUT_SECONDS)
    wrong = [(each.partition.index, each.offset) for each in processor.invalid]
    assert sorted(wrong) == sorted((index, offset) for index, offset, is_valid in pattern if not is_valid)
    assert not any(each.needs_commit for each in processor.invalid)
    passed = [each for each in processor.forwarded if not isinstance(each.payload, FilteredPayload)]
    assert sorted(where(each) for each in passed) == sorted(
        (index, offset) for index, offset, is_valid in pattern if is_valid
    )
    filtered: dict[int, int] = {}
    for each in processor.forwarded:
        if isinstance(each.payload, FilteredPayload):
            filtered |= {each_partition.index: end for each_partition, end in each.committable.items()}
    last_invalid = {index: offset + 1 for index, offset, is_valid in pattern if not is_valid}
    assert filtered == last_invalid


def where(message: Message[Any]) -> At:
    """Which message of the consumer it came from."""
    ((of, next_offset),) = message.committable.items()
    return of.index, next_offset - 1


@each_of(ALL)
def test_poll_reaches_the_last_step(build: Build, scene: Scene) -> None:
    """Whether anything is held or not, so that what works there in the background goes on."""
    processor = Processor(build, scene)
    processor.gate.poll()
    assert processor.last.poll.called
    processor.give(message(0, 0))
    processor.last.poll.reset_mock()
    processor.gate.poll()
    assert processor.last.poll.called
    assert processor.forwarded == []
    processor.end(TIMEOUT_SECONDS)


@each_of(ALL)
def test_terminate(build: Build, scene: Scene) -> None:
    """Reaches the last step once, at once, and closes and joins nothing; what is held stays in Kafka."""
    processor = Processor(build, scene)
    processor.give(message(0, 0))
    processor.gate.terminate()
    assert processor.last.terminate.call_args_list == [call()]
    assert not processor.last.close.called
    assert not processor.last.join.called
    assert processor.forwarded == []


@each_of(ALL)
def test_join_without_a_timeout(build: Build, scene: Scene) -> None:
    """Closes the last step once, then joins it once."""
    processor = Processor(build, scene)
    processor.gate.close()
    processor.gate.join()
    assert processor.last.close.call_args_list == [call()]
    assert processor.joined_with == [None]


def test_the_gate_gives_the_timeout_as_arroyos_processor_does(scene: Scene) -> None:
    """By position: the step behind the gate is the first one without it, and may name it as it likes."""
    processor = Processor(lambda next_step, scene: next_step, scene)
    processor.gate.close()
    processor.gate.join()
    assert processor.last.join.call_args_list == [call(None)]


@each_of(ALL)
@pytest.mark.parametrize("is_keyword", [True, False])
def test_join_with_a_timeout(build: Build, scene: Scene, is_keyword: bool) -> None:
    """No step gets more than the timeout, and what is in flight arrives within it; what is held doesn't."""
    processor = Processor(build, scene)
    processor.harness.release(0, 1)
    processor.give(message(0, 0))
    processor.give(message(0, 1))
    processor.gate.close()
    processor.gate.join(timeout=TIMEOUT_SECONDS) if is_keyword else processor.gate.join(TIMEOUT_SECONDS)
    assert len(processor.forwarded) == 1
    assert processor.last.close.call_count == 1
    (timeout,) = processor.joined_with
    assert timeout is not None
    assert 0 <= timeout <= TIMEOUT_SECONDS


@each_of([run_task, guarded_task, healthcheck, filter_step])
@pytest.mark.parametrize("is_held_first", [True, False], ids=["held", "released on arrival"])
def test_a_rejected_message_is_offered_again(build: Build, scene: Scene, is_held_first: bool) -> None:
    """Once there is room, and in its place."""
    processor = Processor(build, scene)
    processor.last.submit.side_effect = MessageRejected
    if is_held_first:
        processor.give(message(0, 0))
        processor.release_all()
        processor.gate.poll()
    else:
        processor.release_all()
        with pytest.raises(MessageRejected):
            processor.gate.submit(message(0, 0))
    processor.last.submit.reset_mock(side_effect=True)
    if not is_held_first:
        processor.give(message(0, 0))
    processor.give(message(0, 1))
    assert [where(each) for each in processor.forwarded] == [(0, 0), (0, 1)]
    assert processor.invalid == []
