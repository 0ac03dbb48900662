"""Every sequence of published offsets gives the reference's remote offset. ``python -m tests.model`` goes deeper."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.model import leaders
from tests.model.search import assert_kept


@pytest.mark.parametrize("name", leaders.PLANS)
def test_every_sequence_of_published_offsets_gives_the_remote_offset_of_the_reference(
    name: str, record_property: Callable[[str, object], None]
) -> None:
    """What two groups publish, in whatever order, and what is learnt of the partition's end meanwhile."""
    setup, depth = leaders.PLANS[name]
    assert_kept(leaders.Explorer(setup), depth, name, record_property)
