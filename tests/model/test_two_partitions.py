"""Every sequence of actions on two partitions keeps the promises. ``python -m tests.model`` goes deeper."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.model.explore import Explorer
from tests.model.search import assert_kept
from tests.model.setups import TWO_PARTITIONS


@pytest.mark.parametrize("name", TWO_PARTITIONS)
def test_every_sequence_of_actions_keeps_the_promises(
    name: str, record_property: Callable[[str, object], None]
) -> None:
    """Gate, manager, flow control and published offsets under Arroyo's processor, judged after every action."""
    plan = TWO_PARTITIONS[name]
    assert_kept(Explorer(plan.setup), plan.depth, name, record_property)
