"""What a message costs, in counts that are the same on every machine: a later change can't quietly undo the speed.

How fast that is on a real broker, `tests/benchmarks/` measures.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest
from arroyo.backends.kafka import KafkaPayload
from arroyo.processing import StreamProcessor
from arroyo.processing.strategies import ProcessingStrategy, ProcessingStrategyFactory
from arroyo.types import Commit, Partition

import arroyo_sync
from arroyo_sync import HoldLimits, SynchronizedStrategyFactory
from arroyo_sync.testing import ManualSource
from tests.support.fakes import EVENTS, Clock, ScriptedConsumer, ScriptedStep

PACKAGE = str(Path(arroyo_sync.__file__).parent)
MESSAGES = 1_000
PARTITIONS = 4
FAR = 10**9


class _Steps(ProcessingStrategyFactory[KafkaPayload]):
    def __init__(self) -> None:
        self.step = ScriptedStep()

    def create_with_partitions(
        self, commit: Commit, partitions: Mapping[Partition, int]
    ) -> ProcessingStrategy[KafkaPayload]:
        return self.step


class Follower:
    """A StreamProcessor behind the gate, stepped by hand, over partitions that have ``MESSAGES`` messages in all."""

    def __init__(self, limits: HoldLimits | None = None) -> None:
        self.source = ManualSource()
        self.steps = _Steps()
        self.clock = Clock()
        self.consumer = ScriptedConsumer(is_kip848=False)
        self.factory = SynchronizedStrategyFactory(
            self.steps, self.source, limits=limits, clock=self.clock, monitor_interval=None
        )
        self.processor = StreamProcessor(self.factory.flow_control(self.consumer), EVENTS, self.factory)
        for index in range(PARTITIONS):
            self.consumer.produce(index, *range(MESSAGES // PARTITIONS))
        self.consumer.events.append(lambda: self.consumer.assign(*range(PARTITIONS)))
        self.processor._run_once()
        self.consumer.polls.clear()

    def release(self, offset: int = FAR) -> None:
        for index in range(PARTITIONS):
            self.source.set_remote_offset(EVENTS.name, index, offset)

    def run_until(self, is_done: Callable[[], bool]) -> int:
        """Step the processor until so. Returns the number of steps."""
        for steps in range(10 * MESSAGES):
            if is_done():
                return steps
            self.processor._run_once()
        raise AssertionError("the follower made no progress")

    def run_until_delivered(self) -> int:
        return self.run_until(lambda: len(self.steps.step.taken) == MESSAGES)

    def run_until_held(self) -> int:
        return self.run_until(lambda: len(self.consumer.polls) >= MESSAGES)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The timeouts of every wait for a remote offset to move; none of them waits."""
    timeouts: list[float] = []

    def wait_for_move(self: object, version: int, timeout: float) -> bool:
        timeouts.append(timeout)
        return False

    monkeypatch.setattr(arroyo_sync.SynchronizedPartitionStateManager, "wait_for_move", wait_for_move)
    return timeouts


@contextmanager
def counting() -> Iterator[Counter[str]]:
    """Counts calls of this package, by ``file:name``, and as ``hash`` the Arroyo partitions that it hashed."""
    calls: Counter[str] = Counter()

    def profile(frame: FrameType, event: str, argument: object) -> None:
        if event != "call":
            return
        code = frame.f_code
        if code.co_filename.startswith(PACKAGE):
            calls[f"{Path(code.co_filename).stem}:{code.co_name}"] += 1
        elif code.co_name == "__hash__" and frame.f_back and frame.f_back.f_code.co_filename.startswith(PACKAGE):
            calls["hash"] += 1

    sys.setprofile(profile)
    try:
        yield calls
    finally:
        sys.setprofile(None)


def of_module(calls: Counter[str], module: str) -> int:
    return sum(count for name, count in calls.items() if name.startswith(f"{module}:"))


def test_a_released_message_costs_three_calls() -> None:
    """The wrapper's poll, the gate's poll and its submit, each once a message, and next to nothing else."""
    follower = Follower()
    follower.release()
    with counting() as calls:
        steps = follower.run_until_delivered()

    assert steps == MESSAGES
    for name in ("flow_control:poll", "strategy:poll", "strategy:submit"):
        assert calls[name] == MESSAGES
    overhead = sum(calls.values()) - 3 * MESSAGES
    assert overhead < MESSAGES / 20, calls


def test_a_released_message_is_polled_once_and_nothing_is_paused() -> None:
    """The inner consumer is asked exactly once a message, without waiting."""
    follower = Follower()
    follower.release()
    follower.run_until_delivered()

    assert follower.consumer.polls == [0.0] * MESSAGES
    assert [call for call, _ in follower.consumer.calls] == []


def test_a_released_message_takes_no_lock_and_hashes_no_partition() -> None:
    """The manager, whose methods lock, is called a few times a slice and not once a message."""
    follower = Follower()
    follower.release()
    with counting() as calls:
        follower.run_until_delivered()

    assert of_module(calls, "state") < MESSAGES / 20, calls
    assert calls["hash"] <= PARTITIONS, calls


def test_a_released_message_reads_the_clock_once() -> None:
    """To know when a slice is over; the limits, the states and the metrics need no time of their own."""
    follower = Follower()
    follower.release()
    follower.clock.reads = 0
    follower.run_until_delivered()

    assert follower.clock.reads < MESSAGES * 1.05


def test_a_held_message_costs_a_bounded_number_of_calls() -> None:
    """Holding and handing on later costs a dozen calls more a message, and neither a lock nor a hash."""
    follower = Follower()
    with counting() as calls:
        follower.run_until_held()
        follower.release()
        follower.run_until_delivered()

    assert sum(calls.values()) < 16 * MESSAGES, calls
    assert of_module(calls, "state") < MESSAGES / 20, calls
    assert calls["hash"] < MESSAGES / 20, calls


def test_what_one_commit_releases_is_handed_on_without_going_back_to_the_consumer() -> None:
    """A thousand messages that are released at once take one poll of the inner consumer, not a thousand."""
    follower = Follower()
    follower.run_until_held()
    follower.consumer.polls.clear()
    follower.release()
    follower.run_until_delivered()

    assert len(follower.consumer.polls) <= 2


def test_holding_costs_one_poll_a_wait(waits: list[float]) -> None:
    """While something is held each step of the processor waits once, soon for a quarter of a second: no busy loop."""
    follower = Follower()
    follower.run_until_held()
    for _ in range(8):
        follower.processor._run_once()
    follower.consumer.polls.clear()
    waits.clear()
    with counting() as calls:
        for _ in range(100):
            follower.processor._run_once()

    assert waits == [0.25] * 100
    assert follower.consumer.polls == [0.0] * 100
    assert sum(calls.values()) <= 5 * 100, calls


def test_a_pause_is_worth_a_whole_band(waits: list[float]) -> None:
    """A partition is paused once it is full and resumed once for the whole band, not at every message."""
    follower = Follower(HoldLimits(messages=100, resume_messages=20))
    follower.run_until(lambda: len(follower.consumer.paused_indexes()) == PARTITIONS)
    for offset in range(1, MESSAGES // PARTITIONS + 1):
        follower.release(offset)
        for _ in range(2 * PARTITIONS):
            follower.processor._run_once()

    assert len(follower.steps.step.taken) == MESSAGES
    pauses = sum(len(indexes) for call, indexes in follower.consumer.calls if call == "pause")
    band, per_partition = 80, MESSAGES // PARTITIONS
    assert pauses <= PARTITIONS * (1 + per_partition // band)
