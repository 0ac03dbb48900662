"""``scale``: what a follower costs by the number of its partitions: single calls, a whole follower, one on the broker.

Each partition holds one message, as it does where the leaders stand still. Then one partition moves, then all do, each
once a second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tests.benchmarks.bench import Bench
from tests.benchmarks.numbers import ratio, summarise
from tests.benchmarks.processes import Program
from tests.benchmarks.scenarios.scale.calls import measure_calls
from tests.benchmarks.scenarios.scale.on_broker import IDLE, measure_on_broker

PARTITIONS = (1, 100, 1_000, 10_000)
MEASURE_SECONDS = 60.0


def run(bench: Bench) -> dict[str, Any]:
    """All three, and the two numbers that have a target."""
    calls = measure_calls(bench)
    in_process = _measure_in_process(bench)
    on_broker = measure_on_broker(bench)
    idle = {(each["contender"], each["partitions"]): each[IDLE]["median"] for each in on_broker}
    beyond_bare = {count: _minus(idle.get(("gated", count)), idle.get(("bare", count))) for count in (10, 1_000)}
    return {
        "cases": {"calls": calls, "in process": in_process, "on the broker": on_broker},
        "summary": {
            "scale.monitor_look_ms_10000": _at(in_process, 10_000)["look_ms"]["median"],
            "scale.idle_cpu_1000_over_10": ratio(idle.get(("gated", 1_000)), idle.get(("gated", 10))),
            # Of it that is the gate's: without one, librdkafka alone costs far more with 1,000 partitions than with 10.
            "scale.idle_cpu_beyond_bare_1000_over_10": ratio(beyond_bare[1_000], beyond_bare[10]),
        },
    }


def _minus(left: float | None, right: float | None) -> float | None:
    return None if left is None or right is None else left - right


def _at(points: Sequence[Mapping[str, Any]], partitions: int) -> Mapping[str, Any]:
    return next(each for each in points if each["partitions"] == partitions)


def _measure_in_process(bench: Bench) -> list[dict[str, Any]]:
    """A whole follower with no broker, by the number of partitions."""
    found: dict[int, list[dict[str, Any]]] = {}
    for round_ in range(bench.pick(1, 2)):
        for partitions in bench.pick((10_000,), PARTITIONS):
            bench.progress(f"round {round_ + 1}: {partitions} partitions, in process")
            config = {"partitions": partitions, "seconds": bench.pick(0.5, 2.0)}
            log = bench.work / f"{bench.name('scale')}.log"
            with Program("tests.benchmarks.scenarios.scale.follower", config, log) as program:
                measured = program.expect("measured", MEASURE_SECONDS)
            found.setdefault(partitions, []).append(measured)
    return [
        {
            "partitions": partitions,
            **{
                name: summarise([ms for each in mine for ms in each[name]])
                for name in ("look_ms", "look_all_wait_ms", "look_with_metrics_ms")
            },
            **{
                name: summarise([each[name] for each in mine])
                for name in ("idle_cpu", "one_moves_cpu", "all_move_cpu", "first_release_ms", "bytes_a_partition")
            },
        }
        for partitions, mine in found.items()
    ]
