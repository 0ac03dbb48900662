"""The worlds that the exploration begins with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from tests.model.explore import Ask, Later, Publish, Run, Setup

BOTH = frozenset({0, 1})


class Plan(NamedTuple):
    setup: Setup
    depth: int
    """How deep the test run explores it."""
    is_small: bool = False
    """Whether it has so few states that `python -m tests.model` visits every one."""


assigned = Run("assign", BOTH)
released = (assigned, Publish(0, None, 2), Publish(1, None, 2), Ask())

ONE_PARTITION: Mapping[str, Plan] = {
    "one partition, one message": Plan(
        Setup(partitions=1, messages=1, offsets=(None, 0, 1), prefix=(Run("assign", frozenset({0})),)),
        4,
        is_small=True,
    ),
    # The gate may hold one of them, so it becomes full and drains. 17 is everything.
    "one partition, two messages": Plan(Setup(partitions=1, prefix=(Run("assign", frozenset({0})),)), 4),
}
TWO_PARTITIONS: Mapping[str, Plan] = {
    "two partitions": Plan(Setup(prefix=(assigned,)), 2),
    "two partitions, eager": Plan(Setup(is_kip848=False, prefix=(assigned,)), 2),
}
UNDER_WAY: Mapping[str, Plan] = {
    # Both have a message left over, which the next step rejected.
    "left over": Plan(Setup(prefix=(assigned, Run(message=0), Run(message=1), *released[1:], Run(answer="reject"))), 2),
    # The leaders of one partition are ahead, those of the other behind the follower.
    "one ahead, one behind": Plan(
        Setup(prefix=(*released, Run(message=0), Run(message=1), Run(), Publish(1, None, 1), Run(message=1))), 2
    ),
    # The next step has rejected a message for so long that the processor has paused everything.
    "paused by the processor": Plan(
        Setup(prefix=(*released, Run(message=0, answer="reject"), Later(), Run(answer="reject"))), 2
    ),
}
"""Those in which something has happened before."""

PLANS: Mapping[str, Plan] = {**ONE_PARTITION, **TWO_PARTITIONS, **UNDER_WAY}
"""Each kind has a test file of its own, so that several workers share them.

The test run looks whether the model works at all, and `.ci/run` goes two steps deeper, at least as deep as
the sabotages need to be noticed.
"""
