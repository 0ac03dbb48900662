"""What a fault of processes does to a real one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from tests.chaos.process_faults import term_twice
from tests.chaos.processes import Slot, uncaught
from tests.chaos.world import World
from tests.integration.cluster.waiting import wait_until


class First(Random):
    """Draws the first of a choice, and the least number."""

    def random(self) -> float:
        return 0.0

    def getrandbits(self, k: int, /) -> int:
        return 0


class Waits:
    """In place of a `World`: while it waits first, the process ends. It looks for such ends as that does."""

    def __init__(self, slot: Slot) -> None:
        self.slots = [slot]
        self.ended_by_itself: list[object] = []
        self._waited = 0

    def start(self, slot: Slot) -> None:
        slot.start()

    def wait(self, seconds: float) -> None:
        (slot,) = self.slots
        self._waited += 1
        if self._waited == 1:
            wait_until(lambda: not slot.is_running, 60.0, "the end of the process")
            if slot.is_wanted:
                self.ended_by_itself.append(slot.ended_by_itself())


@pytest.fixture
def leader(tmp_path: Path) -> Iterator[Slot]:
    slot = Slot(tmp_path, "leader-1", "leader", {})
    slot.start()
    yield slot
    slot.kill()


def test_a_process_that_ends_before_the_second_signal_has_not_ended_by_itself(leader: Slot) -> None:
    """It was asked to; and it is started again."""
    world: Any = Waits(leader)
    term_twice(world, First())
    assert world.ended_by_itself == []
    assert (leader.is_wanted, leader.journal) == (True, "leader-1.2")


def test_a_process_that_is_asked_to_end_before_it_has_begun_ends_well(leader: Slot) -> None:
    leader.stop()
    assert leader.unclear_end is None


def test_a_process_that_is_asked_to_end_and_ends_with_a_traceback_does_not(leader: Slot) -> None:
    """Ours ends so because its settings are missing; that it was asked to, meanwhile, excuses nothing."""
    wait_until(lambda: not leader.is_running, 60.0, "the end of the process")
    leader.wait_until_stopped()
    assert leader.unclear_end == (1, "KeyError: 'consumer'")


def test_a_process_that_does_not_end_says_where_its_threads_are_before_it_is_killed(tmp_path: Path) -> None:
    """This one ends with its input, which stays open here."""
    settings = {"bootstrap_servers": "127.0.0.1:1", "commit_log": "commit-log", "topic": "events", "groups": []}
    slot = Slot(tmp_path, "rubbish", "rubbish", settings)
    slot.start()
    journal = tmp_path / "rubbish.1.jsonl"
    wait_until(lambda: journal.exists() and journal.stat().st_size > 0, 60.0, "its first line")
    slot.wait_until_stopped(0.0)
    assert "most recent call first" in (tmp_path / "rubbish.1.log").read_text()


def test_a_thread_that_ended_and_a_process_that_crashed_are_found_in_what_they_wrote(tmp_path: Path) -> None:
    """Though the process went on, and ended well, or was killed."""
    (tmp_path / "well-1.1.log").write_text("WARNING all is well\n")
    (tmp_path / "well-1.1.crash").write_text("")
    (tmp_path / "thread-1.1.log").write_text(
        'WARNING one\nException in thread arroyo-sync verifier:\nTraceback (most recent call last):\n  File "x"\n'
        "KeyError: 'x'\nWARNING two\n"
    )
    (tmp_path / "broker-1.log").write_text('Exception in thread "main" java.lang.OutOfMemoryError\n')
    (tmp_path / "crash-1.1.crash").write_text("Fatal Python error: Segmentation fault\n\nThread 0x1\n")
    assert list(uncaught(tmp_path)) == [
        ("thread-1.1", "Exception in thread arroyo-sync verifier: KeyError: 'x'"),
        ("crash-1.1", "Fatal Python error: Segmentation fault"),
    ]


@pytest.mark.parametrize("do", ["start", "stop"])
def test_a_crash_just_before_a_process_is_stopped_or_started_is_noted(tmp_path: Path, leader: Slot, do: str) -> None:
    """A fault may do that before anybody has looked."""
    written: list[tuple[object, ...]] = []
    (tmp_path / "world").mkdir()
    world = World(tmp_path / "world")
    wait_until(lambda: not leader.is_running, 60.0, "the end of the process")
    world.journal = SimpleNamespace(write=lambda *values, at=None: written.append(values))  # type: ignore[assignment]
    getattr(world, do)(leader)
    assert ("exit", "leader-1.1", 1, "KeyError: 'consumer'", False) in written


def test_an_end_that_is_not_well_is_noted_for_the_judge() -> None:
    written: list[tuple[object, ...]] = []
    slot = SimpleNamespace(
        is_running=True, role="leader", journal="leader-1.1", took_seconds=1.0, unclear_end=(1, "KeyError: 'x'")
    )
    slot.ask_to_stop = lambda: setattr(slot, "is_running", False)
    slot.wait_until_stopped = lambda *timeout: None
    world: Any = SimpleNamespace(
        journal=SimpleNamespace(write=lambda *values, at=None: written.append(values)), _note_end=lambda slot: ""
    )
    World.stop(world, slot)  # type: ignore[arg-type]
    assert written == [("stopped", "leader-1.1", 1.0), ("exit", "leader-1.1", 1, "KeyError: 'x'", False)]
