"""Who runs how often, what a message costs, and the numbers that follow from several scenarios."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np

from tests.benchmarks.bench import Bench, Run
from tests.benchmarks.promises import Deliveries
from tests.benchmarks.summary import summary
from tests.benchmarks.targets import TARGETS, plain_name
from tests.integration.cluster.cluster import KafkaCluster

NOTHING = Deliveries(*np.empty((3, 0), np.int64))


class _NoCluster:
    """For a bench that measures nothing."""


def test_contenders_take_turns_and_some_run_less_often() -> None:
    """Each repetition begins with the next one; those that run seldom run in the first two, in a quick run once."""
    bench = Bench(cast(KafkaCluster, _NoCluster()), Path(), False, 1, lambda text: None)
    quick = Bench(cast(KafkaCluster, _NoCluster()), Path(), True, 1, lambda text: None)
    assert list(quick.alternating(["a", "b"], ["b"])) == [(0, "a"), (0, "b"), (1, "a")]
    assert list(bench.alternating(["a", "b", "c"], ["c"], at_most=3)) == [
        (0, "a"), (0, "b"), (0, "c"),
        (1, "b"), (1, "c"), (1, "a"),
        (2, "a"), (2, "b"),
    ]  # fmt: skip


def test_what_a_message_costs_is_that_of_its_step() -> None:
    """CPU time between the beginnings of two steps, over the messages that were delivered meanwhile."""
    usage = [{"cpu_seconds": 1.0 + step * step, "messages": 100_000 * step} for step in range(4)]
    run = Run("gated", NOTHING, {}, usage=usage)
    assert [run.cpu_us_per_message(step) for step in range(3)] == [10.0, 30.0, 50.0]
    assert Run("gated", NOTHING, {}, usage=[usage[0], usage[0]]).cpu_us_per_message(0) is None  # nothing came


def test_the_worst_ratio_of_plain_is_that_of_all_scenarios_that_ran() -> None:
    """Speeds, first messages and what is received again; without any of them there is no such number."""
    results: dict[str, Any] = {
        "catch_up": {"summary": {"a": 1}, "cases": {"json": {"gated": {"over_plain": {"median": 1.1}}}}},
        "release_latency": {
            "summary": {},
            "cases": {"5,000/s, every 10 ms": {"plain": {"first_p50_over_gated": {"median": 1.2}}}},
        },
        "refetch": {"summary": {}, "cases": {"200 B": {"plain": {"over_gated": {"median": 1.0}}}}},
    }
    assert summary(results, ["broken"]) == {"a": 1, "plain.worst_ratio_to_gated": 1.2, "promises_broken": 1}
    del results["release_latency"]
    assert summary(results, [])["plain.worst_ratio_to_gated"] == 1.1
    assert summary({"start": {"summary": {"b": 2}}}, []) == {"b": 2, "promises_broken": 0}


def test_plain_has_the_targets_of_gated() -> None:
    """By the names that the scenarios give them."""
    assert plain_name("catch_up.gated_over_bare") == "catch_up.plain_over_bare"
    assert plain_name("overhead.idle_cpu_fraction") == "overhead.plain_idle_cpu_fraction"
    assert TARGETS["refetch.plain"] == TARGETS["refetch.gated"]
