"""The numbers to reach, by the names of the summary."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Target(NamedTuple):
    """A bound on a number of the summary."""

    bound: Literal["at least", "at most"]
    value: float

    def is_met(self, measured: float) -> bool:
        """Whether the measured number keeps to it."""
        return measured >= self.value if self.bound == "at least" else measured <= self.value

    def __str__(self) -> str:
        return f"{self.bound} {self.value:g}"


TARGETS: dict[str, Target] = {
    "catch_up.gated_over_bare": Target("at least", 0.95),
    "catch_up.gated_over_bare_json": Target("at least", 0.98),
    "release_latency.worst_first_p50_over_floor": Target("at most", 1.2),
    "release_latency.worst_first_p99_over_floor": Target("at most", 1.3),
    "release_latency.least_drain_over_bare": Target("at least", 0.9),
    "release_latency.least_peer_p50_over_gated_p50": Target("at least", 100),
    "idle_release.p99_over_floor_p99": Target("at most", 1.5),
    "independence.throughput_ratio": Target("at least", 0.99),
    "independence.p99_ratio": Target("at most", 1.2),
    "independence.far_ahead_throughput_ratio": Target("at least", 0.99),
    "refetch.gated": Target("at most", 1.1),
    "replay.over_bare_consume": Target("at least", 0.8),
    "start.recent_seconds": Target("at most", 2.0),
    "overhead.idle_cpu_fraction": Target("at most", 0.03),
    "scale.monitor_look_ms_10000": Target("at most", 20),
    "scale.idle_cpu_1000_over_10": Target("at most", 2),
    "restart.worst_gated_minus_bare_seconds": Target("at most", 0.2),
    "promises_broken": Target("at most", 0),
}
"""``catch_up.peer_over_its_bare`` and ``refetch.peer`` are there to compare with: they have no target."""
