"""``release_latency``: from the producing of a commit record to the follower's code, while data keeps coming.

The runs are those of `tailing`. Bare's speed, for the drain, is taken on the messages of the gated run.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.benchmarks.bench import FLOORS, Bench, Run
from tests.benchmarks.latency import Released, arrival_ms, released
from tests.benchmarks.numbers import distribution, greatest, least, median_of_ratios, summarise
from tests.benchmarks.scenarios import tailing
from tests.benchmarks.scenarios.tailing import PARTITIONS


def run(bench: Bench) -> dict[str, Any]:
    """All rates and intervals, for the floors, the gate as it is used in three ways, and the peer."""
    cases: dict[str, Any] = {}
    for made in tailing.runs(bench):
        runs = {name: mine for name, mine in made.runs.items() if name != "bare"}
        for case, step in made.steps.items():
            cases[case] = _case(runs, step, made.bare_speeds)
    return {"cases": cases, "summary": _summary(cases)}


def first_ms(run: Run, step: int) -> Any:
    """Per record of a step, the latency of the first message that it releases; a floor's: of the record itself."""
    assert run.records is not None
    if run.contender in FLOORS:
        return arrival_ms(run.deliveries, run.records, step)
    return _released(run, step).first_ms


def _released(run: Run, step: int) -> Released:
    assert run.records is not None
    return released(run.deliveries, run.records, step, range(PARTITIONS))


def _case(runs: dict[str, list[Run | None]], step: int, bare: list[float | None]) -> dict[str, Any]:
    """One rate and interval: every contender's latencies, and the ratios of runs of the same repetition."""
    found: dict[str, Any] = {}
    for name, mine in runs.items():
        repetitions = [{"first_ms": distribution(first_ms(each, step))} if each is not None else None for each in mine]
        if name not in FLOORS:
            for entry, each in zip(repetitions, mine, strict=True):
                if entry is not None and each is not None:
                    details = _released(each, step)
                    drain = float(np.median(details.drain)) if len(details.drain) else None
                    entry |= {"all_ms": distribution(details.all_ms), "drain_per_second": drain}  # type: ignore[dict-item]
        found[name] = {"repetitions": repetitions}
    for name in runs:
        for quantile in ("p50", "p99"):
            values = _values(found, name, "first_ms", quantile)
            found[name][f"first_{quantile}_ms"] = summarise(values)
            for floor in sorted(FLOORS):
                found[name][f"first_{quantile}_over_{floor}"] = median_of_ratios(
                    values, _values(found, floor, "first_ms", quantile)
                )
    found["plain"]["first_p50_over_gated"] = median_of_ratios(
        _values(found, "plain", "first_ms", "p50"), _values(found, "gated", "first_ms", "p50")
    )
    drains = [None if each is None else each["drain_per_second"] for each in found["gated"]["repetitions"]]
    found["bare_per_second"] = summarise(bare)
    found["drain_over_bare"] = median_of_ratios(drains, bare)
    found["peer_p50_over_gated_p50"] = median_of_ratios(
        _values(found, "peer", "all_ms", "p50"), _values(found, "gated", "all_ms", "p50")
    )
    return found


def _values(found: dict[str, Any], name: str, what: str, quantile: str) -> list[float | None]:
    return [None if each is None else each[what][quantile] for each in found[name]["repetitions"]]


def _summary(cases: dict[str, Any]) -> dict[str, float | None]:
    each = list(cases.values())
    worst = {
        f"release_latency.{prefix}worst_first_{quantile}_over_{floor}": greatest(
            case[name][f"first_{quantile}_over_{floor}"] for case in each
        )
        for prefix, name in (("", "gated"), ("plain_", "plain"))
        for floor in ("busy_floor", "floor")
        for quantile in ("p50", "p99")
    }
    return worst | {
        "release_latency.least_drain_over_bare": least(c["drain_over_bare"] for c in each),
        "release_latency.least_peer_p50_over_gated_p50": least(c["peer_p50_over_gated_p50"] for c in each),
    }
