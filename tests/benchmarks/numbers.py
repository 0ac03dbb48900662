"""The few statistics that are reported: medians with their spread, percentiles, curves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

CURVE_POINTS = tuple(float(q) for q in [*np.arange(0, 99, 1), *np.arange(99, 100.01, 0.1).round(1)])
"""The percentiles kept of each distribution, finer in the tail."""


def summarise(values: Sequence[float | None]) -> dict[str, Any]:
    """Median, lowest, highest and the values themselves, in the order of the repetitions (``None``: a broken run)."""
    known = [value for value in values if value is not None]
    if not known:
        return {"median": None, "low": None, "high": None, "values": list(values)}
    return {
        "median": float(np.median(known)),
        "low": float(min(known)),
        "high": float(max(known)),
        "values": [None if value is None else float(value) for value in values],
    }


def distribution(values: FloatArray) -> dict[str, Any]:
    """p50, p99, greatest, how many, and the curve at `CURVE_POINTS`."""
    if not len(values):
        return {"count": 0, "p50": None, "p99": None, "max": None, "curve": []}
    p50, p99 = np.percentile(values, (50, 99))
    curve = np.percentile(values, CURVE_POINTS)
    return {
        "count": len(values),
        "p50": float(p50),
        "p99": float(p99),
        "max": float(values.max()),
        "curve": [float(f"{value:.4g}") for value in curve],
    }


def ratio(upper: float | None, lower: float | None) -> float | None:
    """``upper / lower``, or ``None`` where either is missing (a run was broken) or ``lower`` is zero."""
    if upper is None or lower is None or not lower:
        return None
    return upper / lower


def median_of_ratios(upper: Sequence[float | None], lower: Sequence[float | None]) -> dict[str, Any]:
    """`summarise` of the ratios of runs of the same repetition; one may have fewer."""
    return summarise([ratio(a, b) for a, b in zip(upper, lower, strict=False)])


def greatest(summaries: Iterable[Mapping[str, Any]]) -> float | None:
    """The greatest median, leaving out those that are missing."""
    return max((each["median"] for each in summaries if each["median"] is not None), default=None)


def least(summaries: Iterable[Mapping[str, Any]]) -> float | None:
    """The least median, leaving out those that are missing."""
    return min((each["median"] for each in summaries if each["median"] is not None), default=None)
