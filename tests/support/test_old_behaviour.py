"""What was wrong before can be put back, and something is named that finds it."""

from __future__ import annotations

import pytest

from tests.chaos.old_behaviour import FINDERS
from tests.support.old_behaviour import OLD_BEHAVIOURS
from tests.support.sabotage import SABOTAGES, apply, sabotaged


def test_each_has_what_finds_it() -> None:
    """And none has the name of another sabotage."""
    assert set(FINDERS) == set(OLD_BEHAVIOURS)
    assert not set(OLD_BEHAVIOURS) & set(SABOTAGES)


@pytest.mark.parametrize("name", OLD_BEHAVIOURS)
def test_it_can_be_put_back_and_taken_away_again(name: str) -> None:
    """Each patches what is there: a name that is gone raises."""
    before = [(owner, attribute, getattr(owner, attribute)) for owner, attribute, _ in OLD_BEHAVIOURS[name]()]
    with sabotaged(name):
        assert all(getattr(owner, attribute) is not value for owner, attribute, value in before)
    assert all(getattr(owner, attribute) is value for owner, attribute, value in before)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(KeyError, match="no such"):
        apply("no such")
