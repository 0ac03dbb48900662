"""A world that was put back is the one that it was."""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue
from types import MappingProxyType
from typing import Any

import pytest

from tests.model.explore import Explorer, perform
from tests.model.fingerprint import fingerprint
from tests.model.setups import PLANS
from tests.model.snapshot import Snapshot


class Slotted:
    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value


class SlottedToo(Slotted):
    __slots__ = ("other",)

    def __init__(self, value: object, other: object) -> None:
        super().__init__(value)
        self.other = other


@dataclass
class Plain:
    """Holds one thing."""

    value: Any = 1
    further: dict[str, Any] = field(default_factory=dict)


def counting() -> Callable[[], int]:
    """Counts its calls in a closure."""
    calls = 0

    def call() -> int:
        nonlocal calls
        calls += 1
        return calls

    return call


def a_queue() -> SimpleQueue[int]:
    queue: SimpleQueue[int] = SimpleQueue()
    queue.put(1)
    return queue


@pytest.mark.parametrize(
    ("made", "change", "look"),
    [
        pytest.param({"a": 1, "b": 2}, lambda it: it.pop("a"), lambda it: list(it.items()), id="dict"),
        pytest.param(OrderedDict(a=1, b=2), lambda it: it.move_to_end("a"), list, id="order"),
        pytest.param(Counter("aab"), lambda it: it.update("bbb"), dict, id="Counter"),
        pytest.param([3, 1, 2], lambda it: it.sort(), list, id="list"),
        pytest.param(deque([1, 2], maxlen=2), lambda it: it.append(3), list, id="deque"),
        pytest.param({1, 2}, lambda it: it.discard(1), sorted, id="set"),
        pytest.param(a_queue(), lambda it: it.put(2), lambda it: it.qsize(), id="queue"),
        pytest.param(([1],), lambda it: it[0].clear(), lambda it: list(it[0]), id="in a tuple"),
        pytest.param(Plain(), lambda it: setattr(it, "value", 2), lambda it: it.value, id="attribute"),
        pytest.param(Plain(), lambda it: setattr(it, "new", 2), lambda it: sorted(vars(it)), id="new attribute"),
        pytest.param(Plain(further={"a": []}), lambda it: it.further["a"].append(1), lambda it: str(it), id="deep"),
        pytest.param(SlottedToo(1, 2), lambda it: setattr(it, "value", 3), lambda it: it.value, id="inherited slot"),
        pytest.param(SlottedToo(1, []), lambda it: it.other.append(3), lambda it: list(it.other), id="in a slot"),
        pytest.param([counting()], lambda it: it[0](), lambda it: it[0].__closure__[0].cell_contents, id="closure"),
        pytest.param(Plain([1]).value.append, lambda it: it(2), lambda it: list(it.__self__), id="built-in method"),
        pytest.param(MappingProxyType({"a": [1]}), lambda it: it["a"].clear(), lambda it: list(it["a"]), id="a view"),
        pytest.param(partial(list.append, [1]), lambda it: it(2), lambda it: list(it.args[0]), id="partial"),
    ],
)
def test_what_has_changed_is_put_back(
    made: Any, change: Callable[[Any], object], look: Callable[[Any], object]
) -> None:
    """In the objects that were there, as often as one likes."""
    before = look(made)
    snapshot = Snapshot(made)
    for _ in range(2):
        change(made)
        assert look(made) != before
        snapshot.restore()
        assert look(made) == before


def test_what_can_not_be_put_back_is_refused() -> None:
    """By name: it would otherwise go on from where it was left."""
    with pytest.raises(TypeError, match="can't keep a generator"):
        Snapshot({"a": [1], "b": (each for each in "b")})


@pytest.mark.parametrize("name", PLANS)
def test_a_world_that_was_put_back_goes_on_as_one_made_anew(name: str) -> None:
    """After some of the actions that may come first, every one after that."""
    search = Explorer(PLANS[name].setup)
    for path in list(search._expand(()))[::3]:
        found = Explorer(search.setup)
        for further in list(found._expand(path)):  # not one by one: the newest world's clock is Arroyo's
            world = search.setup.make()
            for action in further:
                perform(world, action)
            assert fingerprint(world) in found.states, further
