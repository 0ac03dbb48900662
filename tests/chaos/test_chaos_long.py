"""What a long chaos run says of its runs together."""

from __future__ import annotations

from typing import Any

from tests.chaos.checker import PROMISES
from tests.chaos.long import COUNTS, summarise


def summary(seed: int, **more: Any) -> dict[str, Any]:
    violations = dict.fromkeys(PROMISES, 0)
    return {"seed": seed, **dict.fromkeys(COUNTS, 10), "violations": violations, "kinds": {}, "skipped": [], **more}


def test_the_runs_of_all_seeds_are_summed_up() -> None:
    """Counts, violations by promise, kinds of faults and skipped ones; the runs are in the order of their seeds."""
    violated = {**dict.fromkeys(PROMISES, 0), "order": 2}
    runs = [summary(2, violations=violated, kinds={"a": 1, "b": 2}), summary(1, kinds={"b": 3}, skipped=["b: down"])]
    told = summarise(runs, {}, 12.4)
    assert told["runs"] == [runs[1], runs[0]]
    assert told["totals"] == {
        "runs": 2,
        **dict.fromkeys(COUNTS, 20),
        "violations": violated,
        "kinds": {"a": 1, "b": 5},
        "skipped": 1,
        "seconds": 12,
    }


def test_a_run_that_ended_without_a_summary_is_told() -> None:
    """With the last thing that it said, and nothing of it is in the totals."""
    told = summarise([summary(1)], {2: "TimeoutError"}, 1.0)
    assert told["failed"] == {"2": "TimeoutError"}
    assert told["totals"]["runs"] == 1
