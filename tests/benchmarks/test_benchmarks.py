"""The benchmarks' own logic: a wrong judge or a wrong percentile would make every number worthless."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from rich.console import Console

from tests.benchmarks import commit_records
from tests.benchmarks.bench import Bench, Run
from tests.benchmarks.contenders.recorder import STAMP_EVERY, StampedRecorder, TimedRecorder
from tests.benchmarks.latency import arrival_ms, released, throughput
from tests.benchmarks.numbers import CURVE_POINTS, distribution, greatest, least, median_of_ratios, ratio, summarise
from tests.benchmarks.plots import draw
from tests.benchmarks.promises import CommitRecords, Deliveries, broken_promises
from tests.benchmarks.report import render
from tests.benchmarks.summary import summary
from tests.benchmarks.targets import TARGETS, Target, plain_name
from tests.integration.cluster.cluster import KafkaCluster

MS = 1_000_000


def deliveries(*rows: tuple[int, int, int]) -> Deliveries:
    """Rows of partition, offset and time in milliseconds."""
    partition, offset, time_ms = np.array(rows, np.int64).reshape(-1, 3).T
    return Deliveries(partition, offset, time_ms * MS)


def records(*rows: tuple[int, int, int, int, int]) -> CommitRecords:
    """Rows of time in milliseconds, partition, offset, step and tick."""
    time_ms, partition, offset, step, tick = np.array(rows, np.int64).reshape(-1, 5).T
    return CommitRecords(time_ms * MS, partition, offset, step, tick)


TWO_RECORDS = records((10, 0, 2, 0, 0), (20, 0, 3, 0, 1))
KEPT = deliveries((0, 0, 11), (0, 1, 12), (0, 2, 21))


def test_a_run_that_keeps_its_promises_is_not_broken() -> None:
    """Everything in order, complete, and each message after the record that covers it."""
    assert broken_promises(KEPT, TWO_RECORDS, [3]) == []


@pytest.mark.parametrize(
    ("made", "promise"),
    [
        pytest.param(deliveries((0, 0, 11), (0, 1, 12), (0, 2, 19)), "safety", id="before its record"),
        pytest.param(deliveries((0, 0, 9), (0, 1, 12), (0, 2, 21)), "safety", id="before any record"),
        pytest.param(deliveries((0, 0, 11), (0, 1, 12), (0, 2, 21), (0, 3, 22)), "safety", id="past the last record"),
        pytest.param(deliveries((0, 0, 11), (0, 1, 12)), "loss", id="the last one missing"),
        pytest.param(deliveries((0, 0, 11), (0, 2, 21)), "order", id="one left out"),
        pytest.param(deliveries((0, 1, 11), (0, 0, 12), (0, 2, 21)), "order", id="two swapped"),
        pytest.param(deliveries((0, 0, 11), (0, 0, 12), (0, 1, 13), (0, 2, 21)), "order", id="one twice"),
        pytest.param(deliveries((0, 0, 11), (0, 1, 12), (0, 2, 21), (7, 0, 22)), "order", id="unknown partition"),
    ],
)
def test_a_run_that_breaks_a_promise_is_found(made: Deliveries, promise: str) -> None:
    """Each way to break one is named by its promise."""
    assert any(each.startswith(promise) for each in broken_promises(made, TWO_RECORDS, [3]))


def test_a_contender_without_a_gate_is_never_early() -> None:
    """Its order and completeness are judged all the same."""
    assert broken_promises(deliveries((0, 0, 1), (0, 1, 2)), None, [2]) == []
    assert broken_promises(deliveries((0, 0, 1)), None, [2]) != []


def test_with_one_time_in_a_thousand_only_what_is_early_for_certain_counts(tmp_path: Path) -> None:
    """A delivery counts as made at the next time taken, so one that isn't early is never called so."""
    recorder = StampedRecorder(2 * STAMP_EVERY)
    for offset in range(2 * STAMP_EVERY):
        recorder.record(0, offset, now=(offset // STAMP_EVERY) * 10 * MS)
    recorder.save(tmp_path / "run")
    made = Deliveries.load(tmp_path / "run", stamped=True)
    half = STAMP_EVERY // 2

    possible = records((5, 0, 2 * STAMP_EVERY, 0, 0))
    assert broken_promises(made, possible, [2 * STAMP_EVERY]) == []
    impossible = records((0, 0, half, 0, 0), (11, 0, 2 * STAMP_EVERY, 0, 1))
    assert broken_promises(made, impossible, [2 * STAMP_EVERY]) == [
        f"safety: partition 0 delivered {STAMP_EVERY - half} messages before their commit"
    ]


def test_what_a_recorder_saves_is_what_was_delivered(tmp_path: Path) -> None:
    """Saved and read again, only what was recorded and nothing of the room left over."""
    recorder = TimedRecorder(10)
    recorder.record(1, 5, now=70)
    recorder.record(0, 6, now=80)
    recorder.save(tmp_path / "run")

    made = Deliveries.load(tmp_path / "run", stamped=False)

    assert made.partition.tolist() == [1, 0]
    assert made.offset.tolist() == [5, 6]
    assert made.time_ns.tolist() == [70, 80]


def test_latency_is_counted_from_the_record_that_releases() -> None:
    """The first message a record releases, and every message, of the asked step and partitions only."""
    published = records((10, 0, 1, 0, 0), (20, 0, 3, 1, 1), (20, 1, 1, 1, 1), (30, 0, 4, 1, 2))
    made = deliveries((0, 0, 11), (0, 1, 22), (1, 0, 23), (0, 2, 25), (0, 3, 39))

    both = released(made, published, 1, range(2))
    assert both.first_ms.tolist() == [2.0, 3.0, 9.0]
    assert sorted(both.all_ms.tolist()) == [2.0, 3.0, 5.0, 9.0]
    assert released(made, published, 1, [1]).first_ms.tolist() == [3.0]
    assert released(made, published, 0, range(2)).first_ms.tolist() == [1.0]


def test_drain_is_the_rate_of_a_large_commit_over_all_partitions() -> None:
    """1,000 messages released by two records of one tick, from the first delivered to the last, 999 steps in 999 ms."""
    rows = [(number % 2, number // 2, 100 + number) for number in range(1_000)]
    published = records((90, 0, 500, 0, 0), (90, 1, 500, 0, 0))

    assert released(deliveries(*rows), published, 0, range(2)).drain.tolist() == [pytest.approx(1_000)]


def test_the_floor_is_matched_record_by_record() -> None:
    """Offset n of the commit log is the feeder's record n."""
    published = records((10, 0, 1, 0, 0), (20, 0, 3, 1, 1))
    assert arrival_ms(deliveries((0, 0, 11), (0, 1, 23)), published, 1).tolist() == [3.0]


def test_throughput_leaves_out_what_was_there_before() -> None:
    """Five messages at once, then one a millisecond."""
    rows = [(0, offset, 0) for offset in range(5)] + [(0, 5 + number, number) for number in range(11)]
    assert throughput(deliveries(*rows), skip=5) == pytest.approx(1_000)


def test_medians_leave_out_broken_runs() -> None:
    """A broken run is None: it stays in the list of values and counts in no median and no ratio."""
    assert summarise([3.0, None, 1.0, 2.0]) == {"median": 2.0, "low": 1.0, "high": 3.0, "values": [3.0, None, 1.0, 2.0]}
    assert summarise([None])["median"] is None
    assert median_of_ratios([2.0, None, 9.0], [1.0, 1.0, 3.0])["median"] == 2.5
    assert ratio(1.0, 0.0) is None


def test_the_worst_case_is_the_greatest_or_least_median() -> None:
    """Cases with nothing but broken runs don't count."""
    cases: list[dict[str, Any]] = [{"median": 1.0}, {"median": None}, {"median": 3.0}]
    assert (greatest(cases), least(cases)) == (3.0, 1.0)
    assert greatest([{"median": None}]) is None


def test_a_distribution_has_its_percentiles_and_a_curve() -> None:
    """The curve rises and has a point for each of `CURVE_POINTS`."""
    found = distribution(np.arange(1, 101, dtype=np.float64))
    assert found["count"] == 100
    assert found["p50"] == pytest.approx(50.5)
    assert found["max"] == 100
    assert len(found["curve"]) == len(CURVE_POINTS)
    assert found["curve"] == sorted(found["curve"])
    assert distribution(np.empty(0))["p99"] is None


def test_the_first_ones_are_compared_where_one_ran_less_often() -> None:
    """A contender that runs seldom is compared with the runs of its own repetitions."""
    assert median_of_ratios([2.0, 4.0], [1.0, 2.0, 9.0])["values"] == [2.0, 2.0]


class _NoCluster:
    """For a bench that measures nothing."""


def test_contenders_take_turns_and_some_run_less_often() -> None:
    """Each repetition begins with the next one; those that run seldom run in the first two."""
    bench = Bench(cast(KafkaCluster, _NoCluster()), Path(), False, 1, lambda text: None)
    assert list(bench.alternating(["a", "b", "c"], ["c"], at_most=3)) == [
        (0, "a"), (0, "b"), (0, "c"),
        (1, "b"), (1, "c"), (1, "a"),
        (2, "a"), (2, "b"),
    ]  # fmt: skip


def test_what_a_message_costs_is_that_of_its_step() -> None:
    """CPU time between the beginnings of two steps, over the messages that were delivered meanwhile."""
    usage = [{"cpu_seconds": 1.0 + step * step, "messages": 100_000 * step} for step in range(4)]
    run = Run("gated", KEPT, {}, usage=usage)
    assert [run.cpu_us_per_message(step) for step in range(3)] == [10.0, 30.0, 50.0]
    assert Run("gated", KEPT, {}, usage=[usage[0], usage[0]]).cpu_us_per_message(0) is None  # nothing came


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


@pytest.mark.parametrize(
    ("target", "met", "missed"),
    [
        pytest.param(Target("at least", 0.95), 0.95, 0.949, id="at least"),
        pytest.param(Target("at most", 1.2), 1.2, 1.201, id="at most"),
    ],
)
def test_a_target_is_met_up_to_its_bound(target: Target, met: float, missed: float) -> None:
    """The bound itself is good enough."""
    assert target.is_met(met)
    assert not target.is_met(missed)


def test_the_table_shows_what_was_missed() -> None:
    """Past its target: marked; within: ok; without a target: neither. Broken runs are listed."""
    output = io.StringIO()
    document = {
        "summary": {
            "refetch.gated": 1.3,
            "refetch.peer": 20.0,
            "promises_broken": 1,
            "idle_release.p99_over_floor_p99": 1,
        },
        "broken": ["catch_up, nothing, peer: loss"],
    }
    render(document, Console(file=output, width=120))

    lines = output.getvalue().splitlines()
    assert any("refetch.gated" in line and "missed" in line for line in lines)
    assert any("refetch.peer" in line and "missed" not in line and "ok" not in line for line in lines)
    assert any("idle_release" in line and "ok" in line for line in lines)
    assert "broken: catch_up, nothing, peer: loss" in lines
    assert "promises_broken" in TARGETS


def test_commit_records_have_both_forms() -> None:
    """The key is the same; the legacy form's value is the offset in digits, with the header that the peer reads."""
    key, value = commit_records.encode("json", "events", 3, "leaders", 42)
    assert (key, json.loads(value)["offset"]) == (b"events:3:leaders", 42)
    assert commit_records.encode("legacy", "events", 3, "leaders", 42) == (b"events:3:leaders", b"42")
    assert [name for name, _ in commit_records.headers("legacy")] == ["orig_message_ts"]


def test_each_picture_is_drawn(tmp_path: Path) -> None:
    """From results with a broken run among them, one PNG a scenario that has a picture."""
    spread = summarise([1.0, 2.0])
    curve = distribution(np.arange(1, 101, dtype=np.float64))
    latency = {"gated": {"repetitions": [{"first_ms": curve}, None]}, "floor": {"repetitions": [{"first_ms": curve}]}}
    bars = {"gated": {"messages_per_second": spread, "over_bare": spread}}
    cpu = {"bare": {"cpu_us_per_message": spread}, "gated": {"cpu_us_per_message": summarise([None])}}
    point = {"partitions": 1, "groups": 3, "submit_us": spread, "poll_us": spread, "move_us": spread}
    document = {
        "environment": {"quick": True, "repetitions": 2, "cpus": 2, "python": "3"},
        "scenarios": {
            "release_latency": {"cases": {"1,000/s, every 10 ms": latency}},
            "catch_up": {"cases": {"nothing": bars, "json": bars}},
            "overhead": {"cases": {"tailing, 5,000/s, every 10 ms": cpu, "idle, nothing there": {}}},
            "scale": {"cases": {"points": [point]}},
        },
    }

    drawn = draw(document, tmp_path / "plots")

    assert sorted(each.name for each in drawn) == ["catch_up.png", "overhead.png", "release_latency.png", "scale.png"]
    assert all(each.read_bytes().startswith(b"\x89PNG") for each in drawn)
