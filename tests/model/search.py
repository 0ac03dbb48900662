"""Every sequence of actions up to a depth, breadth first, each state once.

The path to a state is walked, and what may happen then is tried in turn in the same world, which is put back each time.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any, Generic, Protocol, TypeVar

from tests.model.judge import Violation
from tests.model.snapshot import Snapshot

TAction = TypeVar("TAction")

COLLECT_AFTER = 20_000
"""How many new objects there are before the youngest are collected; Python's own number is 700."""


class Search(Generic[TAction]):
    """What an exploration has seen. The subclass says which actions there are, and performs them."""

    def __init__(self) -> None:
        self.states: set[int] = set()
        self.transitions = 0
        self.depth = 0
        """How deep it went completely."""
        self.is_complete = False
        """Whether there is nothing more, however deep it went."""
        self.violations: list[tuple[tuple[TAction, ...], list[Violation]]] = []

    def explore(self, depth: int, seconds: float | None = None) -> None:
        """Explore to this depth, until something is violated, or until the time is over."""
        end = None if seconds is None else time.monotonic() + seconds
        with _rare_collections():
            self._explore(depth, end)

    def _explore(self, depth: int, end: float | None) -> None:
        frontier: list[tuple[TAction, ...]] = [()]
        while frontier and self.depth < depth:
            following: list[tuple[TAction, ...]] = []
            for path in frontier:
                if self.violations or (end is not None and time.monotonic() > end):
                    return
                following.extend(self._expand(path))
            self.depth += 1
            frontier = following
        self.is_complete = not frontier

    def _expand(self, path: tuple[TAction, ...]) -> Iterator[tuple[TAction, ...]]:
        """Perform every action after this path; the paths to new states."""
        raise NotImplementedError

    def _note(self, path: tuple[TAction, ...], state: int, violations: list[Violation]) -> bool:
        """One more transition. Returns whether its state is new, and worth going on from."""
        self.transitions += 1
        if violations:
            self.violations.append((path, list(violations)))  # the world, which is put back, has its own
            return False
        is_new = state not in self.states
        self.states.add(state)
        return is_new

    def __str__(self) -> str:
        depth = "completely" if self.is_complete else f"to depth {self.depth}"
        return f"explored {depth}: {len(self.states)} states, {self.transitions} transitions"


NamedAction = tuple[str, tuple[Any, ...]]
"""A method of the world, and its arguments."""


class JudgedWorld(Protocol):
    """One whose methods are the actions."""

    violations: list[Violation]

    def check(self) -> None: ...
    def fingerprint(self) -> int: ...


TWorld = TypeVar("TWorld", bound=JudgedWorld)


class NamedActions(Search[NamedAction], Generic[TWorld]):
    """Explores a world whose methods are the actions.

    :param prefix: what has happened before.
    :param left_out: methods that have nothing to do with what is explored.
    """

    def __init__(self, prefix: tuple[NamedAction, ...], left_out: Collection[str]) -> None:
        super().__init__()
        self._prefix = prefix
        self._left_out = left_out

    def _make(self) -> TWorld:
        """The world, before anything has happened."""
        raise NotImplementedError

    def _actions(self, world: TWorld) -> Iterator[NamedAction]:
        """What may happen now."""
        raise NotImplementedError

    def _settle(self, world: TWorld) -> None:
        """Let happen what must, from a state that is new, and judge how that ends."""

    def _expand(self, path: tuple[NamedAction, ...]) -> Iterator[tuple[NamedAction, ...]]:
        world = self._make()
        for name, arguments in (*self._prefix, *path):
            getattr(world, name)(*arguments)
        before = Snapshot(world)
        for action in [each for each in self._actions(world) if each[0] not in self._left_out]:
            before.restore()
            name, arguments = action
            getattr(world, name)(*arguments)
            world.check()
            state = world.fingerprint()
            if state not in self.states and not world.violations:
                self._settle(world)
            extended = (*path, action)
            if self._note(extended, state, world.violations):
                yield extended


def assert_kept(
    search: Search[Any],
    depth: int,
    name: str,
    record_property: Callable[[str, object], None],
) -> None:
    """Explore to this depth, and tell how far that was. Nothing may be violated, and there must be more beyond it."""
    search.explore(depth)
    record_property("explored", f"{name}: {search}")
    assert search.violations == [], search.violations[0]
    assert (search.depth, search.is_complete) == (depth, False)


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Within, garbage is collected less often, and without a look at what was there before.

    An exploration makes worlds by the ten thousand, each of many objects and with cycles.
    """
    thresholds = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()
