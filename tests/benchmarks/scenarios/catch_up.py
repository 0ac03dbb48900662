"""``catch_up``: messages per second with the leaders far ahead.

Every contender starts with an empty commit log; once it has its partitions, the leaders' offsets are published all at
once, short of the end of the data, so that delivering too much would show. Bare contenders read on to the end.
"""

from __future__ import annotations

import json
from typing import Any

from tests.benchmarks.bench import Bench
from tests.benchmarks.latency import throughput
from tests.benchmarks.numbers import median_of_ratios, summarise

PARTITIONS = 4
SELDOM = ("unwrapped", "peer_bare", "peer")

JSON_BYTES = 2_000

SKIP = 50_000
"""So many messages aren't timed: the gate may have held 40,000 of them, and librdkafka prefetched some."""


def json_payload() -> bytes:
    """An event of about 2 kB, as a follower would parse."""
    event: dict[str, Any] = {"event_id": "c0ffee" * 5, "project_id": 42, "platform": "python", "tags": {}, "stack": []}
    number = 0
    while len(json.dumps(event)) < JSON_BYTES:
        event["tags"][f"tag.{number}"] = f"value {number}"
        event["stack"].append({"function": f"handle_{number}", "line": 100 + number, "in_app": number % 2 == 0})
        number += 1
    return json.dumps(event).encode()


def run(bench: Bench) -> dict[str, Any]:
    """A follower that does nothing with 200 B, and one that parses 2 kB of JSON."""
    cases = {
        "nothing": _case(bench, "nothing", b"x" * 200, bench.pick(120_000, 600_000)),
        "json": _case(bench, "json", json_payload(), bench.pick(80_000, 250_000)),
    }
    return {
        "cases": cases,
        "summary": {
            "catch_up.gated_over_bare": cases["nothing"]["gated"]["over_bare"]["median"],
            "catch_up.gated_over_bare_json": cases["json"]["gated"]["over_bare"]["median"],
            "catch_up.plain_over_bare": cases["nothing"]["plain"]["over_bare"]["median"],
            "catch_up.plain_over_bare_json": cases["json"]["plain"]["over_bare"]["median"],
            "catch_up.peer_over_its_bare": cases["nothing"]["peer"]["over_bare"]["median"],
        },
    }


def _case(bench: Bench, follower: str, payload: bytes, messages: int) -> dict[str, Any]:
    data = bench.load(f"catch-up-{follower}", PARTITIONS, messages, payload)
    contenders = ["bare", "gated", "plain", "unwrapped", "peer_bare", "peer"]
    if bench.quick:
        contenders = ["bare", "gated", "plain", "peer_bare", "peer"] if follower == "nothing" else contenders[:3]
    speeds: dict[str, list[float | None]] = {name: [] for name in contenders}
    cpu: dict[str, list[float | None]] = {name: [] for name in contenders}
    for _, name in bench.alternating(contenders, SELDOM, 1 if bench.quick and follower == "json" else 4):
        made = bench.attempt(
            f"catch_up, {follower}, {name}",
            lambda n=name, d=data: bench.catch_up(n, d, follower=follower),  # type: ignore[misc]
        )
        speeds[name].append(None if made is None else throughput(made.deliveries, SKIP))
        cpu[name].append(None if made is None else made.own_cpu_seconds / len(made.deliveries) * 1e6)
    bench.cluster.delete_topic(data.topic)
    found = {
        name: {
            "messages_per_second": summarise(speeds[name]),
            "over_bare": median_of_ratios(speeds[name], speeds["peer_bare" if name.startswith("peer") else "bare"]),
            "cpu_us_per_message": summarise(cpu[name]),
        }
        for name in contenders
    }
    found["gated"]["over_plain"] = median_of_ratios(speeds["gated"], speeds["plain"])
    return found
