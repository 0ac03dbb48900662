"""What a fault is: a function that does its harm, waits, and heals it, or sees to it that it is healed soon."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import NamedTuple

from tests.chaos.ingredients import Ingredients
from tests.chaos.processes import Slot
from tests.chaos.world import World

Do = Callable[[World, Random], None]


class InVain(Exception):
    """What leaders or followers were waited for to do, and didn't: no fault of the cluster, but of theirs."""


class Fault(NamedTuple):
    do: Do
    weight: int
    needs_whole: bool = False
    """It needs all brokers, or takes one away."""
    fits: Callable[[Ingredients], bool] = lambda ingredients: True
    """Whether it can befall a world of these ingredients."""


def running(world: World, role: str) -> list[Slot]:
    return [slot for slot in world.slots if slot.role == role and slot.is_running and not slot.is_paused]
