"""The user's code may do what it likes, whenever it is called: no lock of ours is held, and a snapshot never waits.

A whole follower without Kafka: the source is a real `OffsetSource` whose reports the test hands in.
"""

from __future__ import annotations

import ast
import logging
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any
from unittest.mock import patch

import pytest
from arroyo.backends.kafka import KafkaPayload
from arroyo.processing.strategies.abstract import ProcessingStrategy, ProcessingStrategyFactory
from arroyo.types import Commit, Partition

import arroyo_sync
from arroyo_sync import Snapshot, SynchronizedStrategyFactory
from arroyo_sync.core.source import SourceStatistics
from arroyo_sync.core.state import PartitionKey
from arroyo_sync.kafka.questions.asker import Asker, PartitionRange
from arroyo_sync.kafka.questions.broker_watch import BrokerWatch
from arroyo_sync.leaders.commit_report import CommitReport
from arroyo_sync.leaders.offset_source import OffsetSource
from arroyo_sync.testing import RecordingStep
from tests.support.fakes import message, partition
from tests.support.threads import PATIENCE_SECONDS

PACKAGE = Path(arroyo_sync.__file__).parent
KEY = ("events", 0)


class _Brokers(Asker):
    """Brokers whose partitions end far away, and which answer at once."""

    cluster_id = None

    def __init__(self, *arguments: object, **keywords: object) -> None:
        self._watches = BrokerWatch("", time.monotonic), BrokerWatch("", time.monotonic)

    def ask_ranges(
        self,
        partitions: Collection[PartitionKey],
        timeout: float,
        on_answer: Callable[[Any], None],
        *,
        with_first_messages: bool = True,
    ) -> None:
        on_answer(dict.fromkeys(partitions, PartitionRange(0, 10**9, 0)))

    def ask_topic_ids(self, topics: Collection[str], timeout: float, on_answer: Callable[[Any], None]) -> None:
        on_answer(dict.fromkeys(topics, "its id"))

    def poll(self) -> None:
        pass

    def stop(self, timeout: float) -> None:
        pass


class HandedSource(OffsetSource):
    """A source that reads what a test hands it."""

    name = "handed"

    def __init__(self) -> None:
        with patch("arroyo_sync.leaders.offset_source.Asker", _Brokers):
            super().__init__({"bootstrap.servers": "127.0.0.1:1"}, ["writers"], None)
        self._reports: queue.SimpleQueue[CommitReport | None] = queue.SimpleQueue()
        self._count = 0

    def publish(self, offset: int, index: int = 0) -> None:
        """A commit report, taken in by the reading thread."""
        self._count += 1
        self._reports.put(CommitReport(("events", index), "writers", offset, self._count, 0, self._count))

    def stop(self, timeout: float) -> None:
        self._reports.put(None)
        super().stop(timeout)

    def statistics(self) -> SourceStatistics:
        return SourceStatistics(ready=self.ready, alive=True, unverified=len(self.unverified))

    def _read(self) -> None:
        self._set_ready(True)
        while (report := self._reports.get()) is not None:
            self._apply([report])
        self._stopping.wait()

    def _missing(self) -> str:
        return "nothing"


class _Steps(ProcessingStrategyFactory[KafkaPayload]):
    def create_with_partitions(
        self, commit: Commit, partitions: Mapping[Partition, int]
    ) -> ProcessingStrategy[KafkaPayload]:
        return RecordingStep()


@contextmanager
def follower(**settings: Any) -> Iterator[tuple[SynchronizedStrategyFactory[KafkaPayload], HandedSource]]:
    source = HandedSource()
    factory = SynchronizedStrategyFactory(_Steps(), source, **{"monitor_interval": None, **settings})
    try:
        yield factory, source
    finally:
        factory.shutdown()


def no_commit(offsets: Mapping[Partition, int], force: bool = False) -> None:
    pass


def follow(factory: SynchronizedStrategyFactory[KafkaPayload], source: HandedSource) -> None:
    """What a processor does, with leaders that go on, stop and go back meanwhile."""
    gate = factory.create_with_partitions(no_commit, {partition(0): 0, partition(1): 0})
    for offset in range(3):
        gate.submit(message(0, offset))
        source.publish(offset + 1)
        source.publish(3 - offset, 1)
        gate.poll()
    gate.close()
    gate.join(0.0)


def within_patience(call: Callable[[], object]) -> None:
    """Run it on a thread that may hang."""
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive(), "it hangs"


@contextmanager
def interrupted_if_it_hangs() -> Iterator[None]:
    """For what must run on the main thread: a blocked lock of CPython's lets signal handlers run, and raise."""

    def end(number: int, frame: FrameType | None) -> None:
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


# The three that hung.


def test_the_callback_for_state_changes_may_take_a_snapshot() -> None:
    """On the processor's thread and on the reader's, at the first change and at every other."""
    snapshots: list[tuple[str, Snapshot]] = []
    is_released = threading.Event()

    def changed(topic: str, index: int, previous: object, current: Any) -> None:
        snapshots.append((threading.current_thread().name, factory.snapshot()))
        if current[1].remote is not None:
            is_released.set()

    with follower(on_state_change=changed) as (factory, source):
        within_patience(lambda: factory.create_with_partitions(no_commit, {partition(0): 0}))
        source.publish(5)
        assert is_released.wait(PATIENCE_SECONDS)
    assert factory.manager.callback_errors == 0
    assert len({name for name, _ in snapshots}) > 1
    first = snapshots[0][1].partition(*KEY)
    assert first is None or first.remote_offset is None


def test_a_log_handler_may_take_a_snapshot() -> None:
    """For whatever is logged: here, that the group's offset and the local one went back."""
    lines: set[str] = set()
    expected = "events[0]: group 'writers' went back from 5 to 3. "
    is_released, has_logged = threading.Event(), threading.Event()

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            factory.snapshot()
            lines.add(record.getMessage())
            if record.getMessage().startswith(expected):
                has_logged.set()

    def changed(topic: str, index: int, previous: object, current: Any) -> None:
        if current[1].remote is not None:
            is_released.set()

    handler = Handler()
    logger = logging.getLogger("arroyo_sync")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        with follower(on_state_change=changed) as (factory, source):
            within_patience(lambda: factory.create_with_partitions(no_commit, {partition(0): 0}))
            source.publish(5)
            assert is_released.wait(PATIENCE_SECONDS)
            source.publish(3)
            assert has_logged.wait(PATIENCE_SECONDS)
            factory.manager.set_local_offset("events", 0, 5)
            within_patience(lambda: factory.manager.set_local_offset("events", 0, 3))
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    assert "events[0]: local offset moved back from 5 to 3" in lines


def test_a_signal_handler_may_take_a_snapshot_at_every_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the main thread does just then, and whichever lock it holds: it is interrupted at each line of ours."""
    monkeypatch.setattr("arroyo_sync.leaders.leader_offsets.READ_WAIT_SECONDS", 0.0005)  # it comes to that often
    snapshots: list[Snapshot] = []

    def handle(number: int, frame: FrameType | None) -> None:
        snapshots.append(factory.snapshot())

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        if not Path(frame.f_code.co_filename).is_relative_to(PACKAGE):
            return None
        if event == "line":
            signal.raise_signal(signal.SIGUSR1)
        return trace

    before = signal.signal(signal.SIGUSR1, handle)
    traced = sys.gettrace()
    try:
        with interrupted_if_it_hangs(), follower() as (factory, source):
            sys.settrace(trace)
            try:
                follow(factory, source)
            finally:
                sys.settrace(traced)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert len(snapshots) > 300
    assert any(each.partition(*KEY) is not None for each in snapshots)


# And beyond.


def test_the_callback_may_wait_for_another_thread_that_uses_the_follower() -> None:
    """It would wait for ever if a lock of ours were held: the manager's, or the one around the published offsets."""
    is_done = threading.Event()
    waited: list[bool] = []

    def changed(topic: str, index: int, previous: object, current: Any) -> None:
        other = threading.Thread(target=use, daemon=True)
        other.start()
        other.join(PATIENCE_SECONDS)
        waited.append(not other.is_alive())
        if current[1].remote is not None:
            is_done.set()

    def use() -> None:
        factory.snapshot()
        source.received("events", 0, 1)
        source.unverified.get(KEY)
        factory.manager.set_local_offset("others", 0, 1)
        factory.manager.take_moved()

    with follower(on_state_change=changed) as (factory, source):
        within_patience(lambda: factory.create_with_partitions(no_commit, {partition(0): 0}))
        source.publish(5)
        assert is_done.wait(PATIENCE_SECONDS)
    assert all(waited)


def test_a_snapshot_never_lets_the_source_do_its_work() -> None:
    """To ask whether it is alive must not verify offsets, as `check` does: the asker may have interrupted that."""
    with follower() as (factory, source):
        factory.create_with_partitions(no_commit, {partition(0): 0})
        source.check = lambda: pytest.fail("a snapshot called check")  # type: ignore[method-assign]
        assert factory.snapshot().source_error is None
        source.stop(PATIENCE_SECONDS)
        assert factory.snapshot().source_error == "handed was stopped, nothing more is released"


# No line is logged under a lock: found in the source, since not every line is easily provoked.


def logs_under_a_lock(source: str) -> list[str]:
    """The methods that log, or call a method of theirs that does, in a ``with`` of a lock that their class made."""
    found = set()
    for owner in ast.walk(ast.parse(source)):
        if not isinstance(owner, ast.ClassDef):
            continue
        methods = {each.name: each for each in owner.body if isinstance(each, ast.FunctionDef)}
        locks = _locks(owner)
        for name, method in methods.items():
            blocks = [each for each in ast.walk(method) if isinstance(each, ast.With)]
            locked = [each for each in blocks if any(ast.unparse(item.context_expr) in locks for item in each.items)]
            if any(_logs(statement, methods, {name}) for block in locked for statement in block.body):
                found.add(f"{owner.name}.{name}")
    return sorted(found)


def _locks(owner: ast.ClassDef) -> set[str]:
    makers = ("threading.Lock", "threading.RLock", "threading.Condition")
    return {
        ast.unparse(node.targets[0])
        for node in ast.walk(owner)
        if isinstance(node, ast.Assign) and ast.unparse(node.value).startswith(makers)
    }


def _logs(node: ast.AST, methods: Mapping[str, ast.FunctionDef], seen: set[str]) -> bool:
    for call in ast.walk(node):
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
            continue
        owner, name = ast.unparse(call.func.value), call.func.attr
        if owner == "logger":
            return True
        if owner == "self" and name in methods and name not in seen and _logs(methods[name], methods, {*seen, name}):
            return True
    return False


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_is_logged_under_a_lock(path: Path) -> None:
    """A log handler is the user's code."""
    assert logs_under_a_lock(path.read_text()) == []


def test_a_log_line_under_a_lock_is_found() -> None:
    """Also in another method, and only if it is under the lock."""
    source = """
class Some:
    def __init__(self):
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._file = open("x")
    def direct(self):
        with self._lock:
            logger.info("x")
    def indirect(self):
        with self._changed:
            self._further(1)
    def _further(self, number):
        return number or self._last()
    def _last(self):
        logger.warning("x")
    def fine(self):
        with self._lock:
            x = 1
        logger.info("x")
        with self._file:
            self._last()
"""
    assert logs_under_a_lock(source) == ["Some.direct", "Some.indirect"]
