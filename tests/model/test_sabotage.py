"""The model notices every sabotaged build of the package."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.model import leaders, owners
from tests.model.explore import Explorer
from tests.model.setups import PLANS
from tests.support.sabotage import SABOTAGES, VARIABLE, apply_from_environment, sabotaged

TIMING = frozenset({"forgets to notify"})
"""What has no place in a model without time: `tests/unit/test_threads.py` notices it."""


@dataclass(frozen=True)
class Noticed:
    promise: str
    plan: str
    depth: int = 3


NOTICED = {
    "off by one": Noticed("Safety", "one ahead, one behind"),
    "forgets a partition in a rebalance": Noticed("No loss", "two partitions"),
    "doesn't seek back": Noticed("No loss", "two partitions"),
    "drops what was not named": Noticed("No loss", "left over"),
    "polls by version alone": Noticed("Progress", "left over"),
    "loses a wake-up": Noticed("Progress", "one ahead, one behind"),
    "trusts a dead reader": Noticed("Safety", "left over"),
    "takes the wrong record": Noticed("State", "records in two partitions of the commit log"),
    "stays paused": Noticed("Independence", "left over"),
    "never is full": Noticed("Independence", "two partitions"),
    "sleeps through": Noticed("Progress", "two partitions"),
    "one holds up all": Noticed("Progress", "left over"),
    "swallows the death": Noticed("Loud", "two partitions"),
    "trusts its memory": Noticed("Safety", "two owners, the first one's record is late", 5),
    "trusts the mapping": Noticed("Safety", "two owners, the first one's record is late"),
    "forgets a start": Noticed("Progress", "two owners"),
    "believes a late answer": Noticed("Progress", "published offsets", 4),
    "takes a part for the whole": Noticed("Progress", "answers that lack something"),
}
OLD = {
    "never takes an end back": Noticed("Progress", "a log that is truncated"),
    "believes an earlier topic": Noticed("Progress", "reports that are older than the topic", 4),
}
"""What the package did once."""


def test_all_are_listed() -> None:
    """No sabotage is forgotten here."""
    assert set(NOTICED) | TIMING == set(SABOTAGES)


@pytest.mark.parametrize("name", [*NOTICED, *OLD])
def test_the_model_notices(name: str) -> None:
    """The exploration finds a sequence of actions that breaks the promise, and none without the sabotage."""
    noticed = {**NOTICED, **OLD}[name]
    with sabotaged(name):
        search: Explorer | leaders.Explorer | owners.Explorer
        if noticed.plan in PLANS:
            search = Explorer(PLANS[noticed.plan].setup)
        elif noticed.plan in owners.PLANS:
            search = owners.Explorer(owners.PLANS[noticed.plan].setup)
        else:
            search = leaders.Explorer(leaders.PLANS[noticed.plan].setup)
        search.explore(noticed.depth)
    promises = {violation.promise for _, violations in search.violations for violation in violations}
    assert noticed.promise in promises, search


def test_the_environment_names_a_sabotage(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process of its own can be sabotaged through its environment; an unknown name is an error."""
    monkeypatch.delenv(VARIABLE, raising=False)
    assert apply_from_environment() is None
    monkeypatch.setenv(VARIABLE, "no such")
    with pytest.raises(KeyError, match="no such"):
        apply_from_environment()
