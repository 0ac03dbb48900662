"""What a long chaos run says of its runs together."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.chaos import long
from tests.chaos.checker import PROMISES
from tests.chaos.long import COUNTS, main, summarise


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


def test_it_goes_on_after_a_violation_and_where_an_earlier_call_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The summary is written after each run; a seed that has one isn't run again, unless it was of fewer faults."""
    result, ran, written = tmp_path / "long.json", list[int](), list[int]()
    write = long.write

    def count(path: Path, told: Any) -> None:
        written.append(len(told["runs"]) + len(told["failed"]))
        write(path, told)

    def run(seed: int, faults: int, folder: Path) -> dict[str, Any] | str:
        ran.append(seed)
        violations = {**dict.fromkeys(PROMISES, 0), "safety": int(seed == 1)}
        return "it broke off" if seed == 2 else summary(seed, violations=violations, faults=faults, seconds=60)

    def call(seeds: str, faults: int = 10) -> int:
        arguments = ["long", "--faults", str(faults), "--seeds", seeds, "--json", str(result)]
        monkeypatch.setattr(sys, "argv", arguments)
        return main()

    monkeypatch.setattr(long, "run", run)
    monkeypatch.setattr(long, "write", count)
    assert call("1,2,3") == 1
    assert (ran, written) == ([1, 2, 3], [1, 2, 3])
    told = json.loads(result.read_text())
    assert (list(told["failed"]), told["totals"]["violations"]["safety"]) == (["2"], 1)
    ran.clear()
    assert call("1,2,3,4") == 1
    assert ran == [2, 4]
    assert [each["seed"] for each in json.loads(result.read_text())["runs"]] == [1, 3, 4]
    ran.clear()
    assert call("3", faults=20) == 0
    assert ran == [3], "the others were of fewer faults"
