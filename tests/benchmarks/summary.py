"""The summary: the numbers that have targets, by name, from what the scenarios found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tests.benchmarks.numbers import greatest


def summary(results: Mapping[str, Any], broken: list[str]) -> dict[str, Any]:
    """All scenarios' numbers, and those that follow from several of them."""
    found = {key: value for result in results.values() for key, value in result["summary"].items()}
    ratios = list(_plain_to_gated(results))
    if ratios:
        found["plain.worst_ratio_to_gated"] = greatest(ratios)
    return {**found, "promises_broken": len(broken)}


def _plain_to_gated(results: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """How much worse the README's lines alone do than the gate with all settings: 1 is equal, 1.1 is a tenth worse.

    Of each case of `catch_up` the time that a message takes, of `release_latency` the median first message, of
    `refetch` what is received for a message. Each is the median over the repetitions of plain's value over gated's.
    """
    for scenario, contender, ratio in (
        ("catch_up", "gated", "over_plain"),  # these are speeds
        ("release_latency", "plain", "first_p50_over_gated"),
        ("refetch", "plain", "over_gated"),
    ):
        for case in results.get(scenario, {}).get("cases", {}).values():
            yield case[contender][ratio]
