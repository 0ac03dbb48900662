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


_GATED: dict[str, Target] = {
    "catch_up.gated_over_bare": Target("at least", 0.95),
    "catch_up.gated_over_bare_json": Target("at least", 0.98),
    "release_latency.worst_first_p50_over_busy_floor": Target("at most", 1.2),
    "release_latency.worst_first_p99_over_busy_floor": Target("at most", 1.3),
    "idle_release.p99_over_floor_p99": Target("at most", 1.5),
    "independence.throughput_ratio": Target("at least", 0.99),
    "independence.p99_ratio": Target("at most", 1.2),
    "independence.far_ahead_throughput_ratio": Target("at least", 0.99),
    "refetch.gated": Target("at most", 1.1),
    "overhead.tailing_cpu_over_bare": Target("at most", 1.05),
    "overhead.idle_cpu_fraction": Target("at most", 0.004),
}


def plain_name(name: str) -> str:
    """The name of the number that is for ``plain`` what this one is for ``gated``."""
    scenario, _, number = name.partition(".")
    return f"{scenario}.{number.replace('gated', 'plain') if 'gated' in number else f'plain_{number}'}"


TARGETS: dict[str, Target] = {
    **_GATED,
    **{plain_name(name): target for name, target in _GATED.items()},
    "plain.worst_ratio_to_gated": Target("at most", 1.1),
    "release_latency.least_drain_over_bare": Target("at least", 0.9),
    "release_latency.least_peer_p50_over_gated_p50": Target("at least", 100),
    "replay.over_bare_consume": Target("at least", 0.8),
    "start.recent_seconds": Target("at most", 2.0),
    "scale.monitor_look_ms_10000": Target("at most", 20),
    "scale.idle_cpu_1000_over_10": Target("at most", 2),
    "restart.worst_gated_minus_bare_seconds": Target("at most", 0.2),
    "promises_broken": Target("at most", 0),
}
"""``catch_up.peer_over_its_bare``, ``refetch.peer``, and the first message over the plain floor
(``release_latency.worst_first_p50_over_floor`` and its like) are there to compare with: they have no target."""
