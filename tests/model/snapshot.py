"""The state of a world, kept so that it can be put back in place.

A world can't be copied, since its parts know each other by bound methods and closures; and to make one anew and walk
the path to a state again costs several times what the next action costs. So what is mutable is put back in the same
objects.
"""

from __future__ import annotations

import gc
import logging
import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from datetime import datetime
from enum import Enum
from functools import cache, partial
from queue import SimpleQueue
from types import (
    BuiltinFunctionType,
    CellType,
    FunctionType,
    MappingProxyType,
    MemberDescriptorType,
    MethodDescriptorType,
    MethodType,
    ModuleType,
    NoneType,
)
from typing import Any

UNCHANGING = (
    *(NoneType, bool, int, float, str, bytes, range, datetime, Enum),
    *(type, ModuleType, MethodDescriptorType, logging.Logger, type(threading.Lock()), type(threading.RLock())),
)
"""Neither kept nor looked into: values, what a process has once, and locks, which nobody holds between two actions."""


class Snapshot:
    """Everything mutable that can be reached from ``root``, as it is now. What is made later isn't in it.

    :raises TypeError: something there has a state that can't be put back, as a generator has.
    """

    def __init__(self, root: object) -> None:
        self._containers: list[tuple[Callable[[], object], Callable[[Any], object], Any]] = []
        """How each is emptied, and how it is filled with what was in it."""
        self._cells: list[tuple[CellType, Any]] = []
        self._slots: list[tuple[MemberDescriptorType, object, Any]] = []
        seen: set[int] = set()
        self._seen: list[object] = []  # as long as these live, no id is another object's
        pending: list[object] = [root]
        while pending:
            each = pending.pop()
            if not isinstance(each, UNCHANGING) and id(each) not in seen:
                seen.add(id(each))
                self._seen.append(each)
                pending.extend(self._keep(each))

    def restore(self) -> None:
        """Put it all back, in the objects that were there."""
        for clear, fill, content in self._containers:
            clear()
            fill(content)
        for cell, value in self._cells:
            cell.cell_contents = value
        for slot, owner, value in self._slots:
            slot.__set__(owner, value)

    def _keep(self, each: Any) -> Iterable[object]:
        """Keep the state of this one object, if it has any. Returns what it refers to."""
        if isinstance(each, MethodType):
            return each.__self__, each.__func__
        if isinstance(each, BuiltinFunctionType):
            return (each.__self__,)
        if isinstance(each, partial):
            return each.func, *each.args, *each.keywords.values()
        if isinstance(each, MappingProxyType):
            return gc.get_referents(each)
        if isinstance(each, FunctionType):
            cells = [(cell, cell.cell_contents) for cell in each.__closure__ or ()]
            self._cells += cells
            return [value for _, value in cells]
        kind: Any = type(each)
        slots = _slots(kind)
        referred: list[object] = []
        if isinstance(each, dict):
            self._containers.append((each.clear, each.update, dict(each)))
            referred += [*each.keys(), *each.values()]
        elif isinstance(each, (list, deque)):
            self._containers.append((each.clear, each.extend, list(each)))
            referred += each
        elif isinstance(each, set):
            self._containers.append((each.clear, each.update, set(each)))
            referred += each
        elif isinstance(each, SimpleQueue):
            content = _emptied(each)
            _filled(each, content)
            self._containers.append((partial(_emptied, each), partial(_filled, each), content))
            return content
        elif isinstance(each, (tuple, frozenset)):
            referred += each
        elif not hasattr(each, "__dict__") and not slots:
            raise TypeError(f"a snapshot can't keep a {kind.__qualname__}: {each!r}")
        attributes = getattr(each, "__dict__", None)
        if attributes is not None:
            self._containers.append((attributes.clear, attributes.update, dict(attributes)))
            referred += attributes.values()
        for slot in slots:
            self._slots.append((slot, each, slot.__get__(each)))
            referred.append(slot.__get__(each))
        return referred


def _emptied(queue: SimpleQueue[object]) -> list[object]:
    """What was in it."""
    return [queue.get_nowait() for _ in range(queue.qsize())]


def _filled(queue: SimpleQueue[object], content: Iterable[object]) -> None:
    for each in content:
        queue.put(each)


@cache
def _slots(kind: Hashable) -> list[MemberDescriptorType]:
    """The slots of a class and of those that it stands on, which are all set."""
    assert isinstance(kind, type)
    own = (vars(base).values() for base in kind.__mro__ if "__slots__" in vars(base))
    return [each for values in own for each in values if isinstance(each, MemberDescriptorType)]
