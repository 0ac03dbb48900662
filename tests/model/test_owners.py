"""Two members of a leader group that have a partition in turn, on the package's publisher."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.model import owners
from tests.model.search import assert_kept


@pytest.mark.parametrize("name", owners.PLANS)
def test_every_sequence_of_two_owners_reports_what_the_group_has_done(
    name: str, record_property: Callable[[str, object], None]
) -> None:
    """No report of what isn't done, in whatever order they arrive; and a heartbeat later the owner's offset counts."""
    setup, depth = owners.PLANS[name]
    assert_kept(owners.Explorer(setup), depth, name, record_property)


def test_a_late_record_of_the_first_owner_counts_until_the_second_ones_next() -> None:
    """The remote offset goes where the first one was, and back within a heartbeat."""
    world = owners.World()
    for name, arguments in owners.PLANS["two owners, the first one's record is late"].setup.prefix:
        getattr(world, name)(*arguments)
    one, other = world.members.values()
    assert [record.offset for record in one.on_its_way] == [0]
    assert [record.offset for record in other.on_its_way] == [1]
    world.deliver("other")
    assert world.remote == 1
    world.deliver("one")
    assert world.remote == 0
    for _ in range(2):
        world.wait()
        world.poll("other")
    world.deliver("other")
    assert world.remote == 1
    assert world.violations == []


def test_the_fingerprint_knows_every_attribute() -> None:
    """A new attribute must be in the fingerprint, or be known not to matter, else states are skipped."""
    world = owners.World()
    world.assign("one", 0, False)
    publisher = world.members["one"].publisher
    queued = publisher._queue.partitions[owners.PARTITION]
    instances = [publisher, publisher._step, publisher._queue, queued, publisher._writer, publisher._questions]
    assert [type(each) for each in instances] == list(owners.COVERED)
    for each in instances:
        names = getattr(type(each), "__slots__", None) or vars(each)
        expected = {*owners.COVERED[type(each)].split(), *owners.LEFT_OUT[type(each)].split()}
        assert set(names) == expected, type(each)
