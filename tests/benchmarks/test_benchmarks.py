"""The benchmarks' own logic: a wrong judge or a wrong percentile would make every number worthless."""

from __future__ import annotations

import io
import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from arroyo_sync.kafka import making_clients
from arroyo_sync.leaders.commit_log import consumer
from tests.benchmarks import commit_records
from tests.benchmarks.contenders.recorder import STAMP_EVERY, MappedRecorder, StampedRecorder, TimedRecorder
from tests.benchmarks.contenders.traffic import Traffic
from tests.benchmarks.latency import arrival_ms, released, throughput
from tests.benchmarks.numbers import CURVE_POINTS, distribution, greatest, least, median_of_ratios, ratio, summarise
from tests.benchmarks.processes import ROOT
from tests.benchmarks.promises import CommitRecords, Deliveries, broken_by_members, broken_promises
from tests.benchmarks.report import render
from tests.benchmarks.scenarios.restart import Case, compare, longest_silence, sorted_deliveries
from tests.benchmarks.scenarios.scale.follower import LOOKS, Follower, NoMetrics
from tests.benchmarks.scenarios.traffic import count_connections
from tests.benchmarks.targets import TARGETS, Target

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


def test_what_a_mapped_recorder_noted_is_there_at_once(tmp_path: Path) -> None:
    """Without being saved, as after a kill, and nothing of the room left over."""
    recorder = MappedRecorder(10, tmp_path / "run")
    recorder.record(1, 5, now=70)
    recorder.record(0, 6, now=80)

    made = sorted_deliveries(np.fromfile(tmp_path / "run", np.int64).reshape(-1, 3))

    assert (made.partition.tolist(), made.offset.tolist(), made.time_ns.tolist()) == ([1, 0], [5, 6], [70, 80])


@pytest.mark.parametrize(
    ("made", "promise"),
    [
        pytest.param(deliveries((0, 5, 11), (0, 6, 12), (0, 5, 13), (0, 6, 14)), None, id="some twice"),
        pytest.param(deliveries((0, 5, 11)), "loss", id="the last one missing"),
        pytest.param(deliveries((0, 5, 9), (0, 6, 12)), "safety", id="before its record"),
    ],
)
def test_members_are_judged_together(made: Deliveries, promise: str | None) -> None:
    """What one of them left out the other may deliver, and may repeat; nobody may be early."""
    broken = broken_by_members(made, records((10, 0, 7, 0, 0)), [5], [7])
    assert [each.split(":")[0] for each in broken] == ([] if promise is None else [promise])


def test_a_silence_is_that_of_the_worst_partition() -> None:
    """Only silences that ended after the event count, the one that it began in among them."""
    rows = [(0, 0, 0), (0, 1, 500), (0, 2, 1_000), (1, 0, 0), (1, 1, 900), (1, 2, 4_000)]
    made = deliveries(*rows)

    assert longest_silence(made, 450 * MS) == pytest.approx(3.1)
    assert longest_silence(deliveries(*rows[:5]), 450 * MS) == pytest.approx(0.9)
    assert longest_silence(deliveries(*rows[:5]), 950 * MS) == pytest.approx(0.5)
    assert longest_silence(made, 5_000 * MS) == 0.0


def test_a_restart_is_compared_with_the_one_without_a_gate_of_the_same_round_and_protocol() -> None:
    """A round in which either broke a promise counts in neither median."""
    bare, recent, kip848 = Case("bare", "eager"), Case("gated", "eager", "recent"), Case("bare", "KIP-848")
    found: dict[Case, dict[str, list[float | None]]] = {
        bare: {"clean restart": [1.0, 2.0, None]},
        recent: {"clean restart": [1.5, 2.1, 9.0]},
        Case("gated", "KIP-848"): {"clean restart": [4.0, 4.0, 4.0]},
        kip848: {"clean restart": [1.0, 1.0, 1.0]},
    }
    result = compare(found)
    assert result["cases"]["clean restart, eager"]["gated, recent"]["minus_bare_seconds"]["median"] == pytest.approx(
        0.3
    )
    assert result["summary"] == {
        "restart.worst_gated_minus_bare_seconds": 3.0,
        "restart.worst_gated_recent_minus_bare_seconds": pytest.approx(0.3),
    }


def test_traffic_is_counted_without_the_start() -> None:
    """Rates between the first statistics after the time that is skipped and the last ones, over all brokers."""
    traffic = Traffic()
    made: dict[str, Any] = {}

    def made_by(client: object, settings: dict[str, Any]) -> None:
        made.update(settings)

    traffic._watched(made_by, "reader")("any client", {"a": 1})
    for seconds, requests in ((0, 100), (3, 130), (5, 150)):
        brokers = {name: {"req": {"Fetch": requests // 2, "Metadata": 7}} for name in ("one", "other")}
        counts = {"ts": seconds * 1e6, "tx": requests, "tx_bytes": 2 * requests, "rx_bytes": 10 * requests}
        made["stats_cb"](json.dumps({**counts, "brokers": brokers}))

    assert made["a"] == 1
    assert traffic.snapshot(2.5) == {
        "reader": {
            "requests_a_second": 10.0,
            "sent_bytes_a_second": 20.0,
            "received_bytes_a_second": 100.0,
            "requests_by_kind": {"Fetch": 10.0},
            "seconds": 2.0,
        }
    }
    assert traffic.snapshot(60.0) == {}


def test_the_clients_of_a_follower_are_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the package makes them: the reader's consumer, and the administrator's client."""
    for module in (making_clients, consumer):
        monkeypatch.setitem(vars(module), "make_client", making_clients.make_client)  # put back afterwards
    Traffic().install()
    made: list[set[str]] = []

    def kind(settings: dict[str, Any]) -> object:
        made.append(settings.keys() & {"a", "stats_cb"})
        return object()

    vars(consumer)["make_client"](kind, {"a": 1})
    making_clients.LazyClient(kind, {"a": 1}).get()
    assert made == [{"a", "stats_cb"}] * 2


def test_the_connections_of_a_process_are_counted() -> None:
    """Those that are established, at both their ends where these are its own, and no listening ones."""
    program = f"""
import os, socket
from {count_connections.__module__} import count_connections

counts = [count_connections(os.getpid())]
with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
    with server.accept()[0]:
        counts.append(count_connections(os.getpid()))
print(counts, count_connections(os.getpid()))
"""  # a process of its own: other tests' clients may connect at any time
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        output = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
        ).stdout
    assert output == "[0, 2] 0\n", "and none of another process"


def test_a_follower_without_kafka_holds_what_its_leaders_have_not_committed() -> None:
    """The whole one that `scale` measures: each partition has released one message and holds one; then it moves on."""
    follower = Follower(3)
    follower.begin()
    for moving in ([], [0, 2]):
        follower.move(moving)
        for _ in range(20):
            follower.processor._run_once()
        follower.wait_until_held()
    assert follower.counts.released == 5
    assert len(follower.looks_ms(NoMetrics())) == LOOKS
    follower.processor._shutdown()


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
    from tests.benchmarks.plots import draw  # here, since each worker would import matplotlib

    spread = summarise([1.0, 2.0])
    curve = distribution(np.arange(1, 101, dtype=np.float64))
    latency = {"gated": {"repetitions": [{"first_ms": curve}, None]}, "floor": {"repetitions": [{"first_ms": curve}]}}
    bars = {"gated": {"messages_per_second": spread, "over_bare": spread}}
    cpu = {"bare": {"cpu_us_per_message": spread}, "gated": {"cpu_us_per_message": summarise([None])}}
    scale = {
        "calls": [{"partitions": 1, "groups": 3, "submit_us": spread, "poll_us": spread, "move_us": spread}],
        "in process": [
            {
                "partitions": partitions,
                **dict.fromkeys(("idle_cpu", "one_moves_cpu", "all_move_cpu"), spread),
                **dict.fromkeys(("look_ms", "look_with_metrics_ms", "look_all_wait_ms"), spread),
                **dict.fromkeys(("first_release_ms", "bytes_a_partition"), spread),
            }
            for partitions in (1, 100)
        ],
        "on the broker": [
            {
                "contender": "gated",
                "partitions": 10,
                "idle_cpu": spread,
                "one_moves_cpu": spread,
                "all_move_cpu": spread,
            }
        ],
    }
    silences: dict[str, Any] = {
        "bare": {"silent_seconds": summarise([None])},
        "gated, all": {"silent_seconds": spread, "minus_bare_seconds": summarise([None])},
    }
    document = {
        "environment": {"quick": True, "repetitions": 2, "cpus": 2, "python": "3"},
        "scenarios": {
            "release_latency": {"cases": {"1,000/s, every 10 ms": latency}},
            "catch_up": {"cases": {"nothing": bars, "json": bars}},
            "overhead": {"cases": {"tailing, 5,000/s, every 10 ms": cpu, "idle, nothing there": {}}},
            "scale": {"cases": scale},
            "restart": {"cases": {"clean restart, eager": silences}},
        },
    }

    drawn = draw(document, tmp_path / "plots")

    assert sorted(each.name for each in drawn) == [
        "catch_up.png",
        "overhead.png",
        "release_latency.png",
        "restart.png",
        "scale.png",
    ]
    assert all(each.read_bytes().startswith(b"\x89PNG") for each in drawn)
