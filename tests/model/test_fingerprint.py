"""The fingerprint tells worlds apart that may go on differently, and no others: else the exploration skips states."""

from __future__ import annotations

from tests.model.explore import Explorer, Run, Setup, perform
from tests.model.fingerprint import COVERED, LEFT_OUT, fingerprint
from tests.model.setups import PLANS, Plan


def test_the_fingerprint_knows_every_attribute() -> None:
    """A new attribute of the gate must be in the fingerprint, or be known not to matter, else states are skipped."""
    world = PLANS["two partitions"].setup.make()
    world.publish(0, "a", 2)
    key = ("events", 0)
    gate, leader_offsets = world.factory._gate, world.source.leaders
    assert gate is not None
    assert world.flow is not None
    instances = [
        *(gate, gate.buffers, gate.drain, gate.buffers._all[0], world.manager.cell(*key), world.manager),
        *(world.flow, world.flow._rebalances, world.flow._pauses),
        *(leader_offsets, leader_offsets._table, leader_offsets._assigned),
        *(leader_offsets._table.slot(key, "a"), leader_offsets._assigned.known_ends[key]),
    ]
    assert [type(each) for each in instances] == list(COVERED)
    for each in instances:
        names = getattr(type(each), "__slots__", None) or vars(each)
        assert set(names) == {*COVERED[type(each)].split(), *LEFT_OUT[type(each)].split()}, type(each)


class _Twice(Explorer):
    """Notes, of some states, a second path that leads there."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.first: dict[int, tuple[object, ...]] = {}
        self.second: dict[int, tuple[object, ...]] = {}

    def _note(self, path: tuple[object, ...], state: int, violations: list[object]) -> bool:  # type: ignore[override]
        if self.first.setdefault(state, path) != path and self.transitions % 7 == 0:
            self.second.setdefault(state, path)
        return super()._note(path, state, violations)  # type: ignore[arg-type]


def test_worlds_with_one_fingerprint_go_on_alike() -> None:
    """What the exploration skips, it has seen: two paths to one fingerprint have the same next states."""
    search = _Twice(PLANS["two partitions"].setup)
    search.explore(2)
    assert len(search.second) > 10
    for state, path in search.second.items():
        if search._follow(path).is_over:  # type: ignore[arg-type]
            continue
        following = []
        for each in (search.first[state], path):
            after = Explorer(search.setup)
            list(after._expand(each))  # type: ignore[arg-type]
            following.append(after.states)
        assert following[0] == following[1], (search.first[state], path)


def test_the_partitions_may_be_exchanged() -> None:
    """The fingerprint takes the one partition for the other, so each state is explored once, not twice."""
    plan: Plan = PLANS["two partitions"]
    states = []
    for partition in (0, 1):
        world = plan.setup.make()
        perform(world, Run(message=partition))
        states.append(fingerprint(world))
    assert states[0] == states[1]
