"""The runs that hypothesis makes up find sabotaged builds out, those that are far from the gate's first steps too."""

from __future__ import annotations

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.properties.test_follower import PROFILES, Follower
from tests.support.sabotage import sabotaged

ONCE = settings(PROFILES["short"], phases=[Phase.generate], report_multiple_bugs=False, max_examples=3_000)


@pytest.mark.parametrize(
    "name",
    [
        "off by one",
        "forgets a partition in a rebalance",
        "doesn't seek back",
        "drops what was not named",
        "polls by version alone",
        "trusts a dead reader",
        "stays paused",
        "never is full",
        "sleeps through",
        "one holds up all",
        "swallows the death",
    ],
)
def test_the_runs_find_it_out(name: str) -> None:
    """One of at most 3,000 runs breaks a promise; it takes a few dozen."""
    with sabotaged(name), pytest.raises(AssertionError):
        run_state_machine_as_test(Follower, settings=ONCE)
