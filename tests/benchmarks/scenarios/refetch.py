"""``refetch``: how often a message travels from the broker when the backlog is deep and the leaders advance steadily.

A pause makes librdkafka throw away what it had prefetched. Counted by its own statistics: messages received
(``rxmsgs``) per message that was released, is held, or is still prefetched at the end.
"""

from __future__ import annotations

from typing import Any

from tests.benchmarks.bench import Bench, Data, Run
from tests.benchmarks.latency import released
from tests.benchmarks.numbers import distribution, median_of_ratios, summarise

LEADERS_PER_SECOND = 8_000
INTERVAL_SECONDS = 0.1


def run(bench: Bench) -> dict[str, Any]:
    """200 B in 4 partitions, beside the peer; and 2 kB in 16."""
    backlog, release = bench.pick((60_000, 20_000), (140_000, 70_000))
    cases = {
        "200 B, 4 partitions": _case(bench, ["gated", "plain", "peer"], 4, 200, backlog, release),
    }
    if not bench.quick:
        cases["2 kB, 16 partitions"] = _case(bench, ["gated", "plain"], 16, 2_000, backlog, release)
    first = cases["200 B, 4 partitions"]
    return {
        "cases": cases,
        "summary": {
            "refetch.gated": first["gated"]["received_per_message"]["median"],
            "refetch.plain": first["plain"]["received_per_message"]["median"],
            "refetch.peer": first["peer"]["received_per_message"]["median"],
        },
    }


def _case(
    bench: Bench, contenders: list[str], partitions: int, payload_bytes: int, backlog: int, release: int
) -> dict[str, Any]:
    data = bench.load("refetch", partitions, backlog, b"x" * payload_bytes)
    runs: dict[str, list[dict[str, Any] | None]] = {name: [] for name in contenders}
    for _, name in bench.alternating(contenders, ["peer"]):
        what = f"refetch, {payload_bytes} B, {partitions} partitions, {name}"
        made = bench.attempt(what, lambda n=name: _run(bench, n, data, release))  # type: ignore[misc]
        runs[name].append(None if made is None else _counts(made, partitions, payload_bytes))
    bench.cluster.delete_topic(data.topic)
    found: dict[str, Any] = {
        name: {
            "received_per_message": _summary(mine, "received_per_message"),
            "first_p50_ms": _summary(mine, "first_p50_ms"),
            "first_p99_ms": _summary(mine, "first_p99_ms"),
            "held_and_prefetched_bytes": _summary(mine, "held_and_prefetched_bytes"),
            "repetitions": mine,
        }
        for name, mine in runs.items()
    }
    received = {
        name: [None if each is None else each["received_per_message"] for each in mine] for name, mine in runs.items()
    }
    found["plain"]["over_gated"] = median_of_ratios(received["plain"], received["gated"])
    return found


def _summary(runs: list[dict[str, Any] | None], what: str) -> dict[str, Any]:
    return summarise([None if each is None else each[what] for each in runs])


def _run(bench: Bench, name: str, data: Data, release: int) -> Run:
    partitions = len(data.ends)
    commit_log = bench.create_topic("commit-log", 1)
    step = {
        "kind": "advance",
        "rate": LEADERS_PER_SECOND,
        "messages": release,
        "interval_seconds": INTERVAL_SECONDS,
        "seconds": release / LEADERS_PER_SECOND,
    }
    options: dict[str, Any] = {"capacity": sum(data.ends), "statistics": True}
    with bench.contender(name, data.topic, partitions, commit_log=commit_log, **options) as contender:
        feeder = bench.feed(name, data.topic, partitions, commit_log, steps=[step], start=data.ends)
        records, published = feeder.finish()
        run = contender.finish(records, published)
    bench.cluster.delete_topic(commit_log)
    return run


def _counts(run: Run, partitions: int, payload_bytes: int) -> dict[str, Any]:
    assert run.records is not None
    result = run.result
    first = distribution(released(run.deliveries, run.records, 0, range(partitions)).first_ms)
    delivered = len(run.deliveries)
    held = result["position"] - delivered
    useful = result["position"] + result["prefetched"]
    return {
        "received": result["rxmsgs"],
        "released": delivered,
        "held": held,
        "prefetched": result["prefetched"],
        "received_per_message": result["rxmsgs"] / useful,
        "held_and_prefetched_bytes": held * (payload_bytes + 500) + result["prefetched_bytes"],
        "peak_rss_bytes": result["peak_rss_bytes"],
        "cpu_seconds": result["cpu_seconds"],
        "first_p50_ms": first["p50"],
        "first_p99_ms": first["p99"],
    }
