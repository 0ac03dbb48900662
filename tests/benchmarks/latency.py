"""Release latency: from just before a commit record was produced to the follower's code."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tests.benchmarks.contenders.recorder import STAMP_EVERY
from tests.benchmarks.numbers import FloatArray
from tests.benchmarks.promises import CommitRecords, Deliveries

DRAIN_LEAST_MESSAGES = 500
"""A rate is taken only of commits that release so many messages at once: below, it says nothing."""


@dataclass(frozen=True)
class Released:
    """What the records of one step of the feeder's plan released. Times in milliseconds."""

    first_ms: FloatArray
    """Per record, until the first message that it releases."""
    all_ms: FloatArray
    """Per message, since the record that released it."""
    drain: FloatArray
    """Per large commit (all partitions together), messages per second from its first message to its last."""


def released(deliveries: Deliveries, records: CommitRecords, step: int, partitions: Iterable[int]) -> Released:
    """The latencies of one step, in these partitions.

    The run must have kept its promises: every offset once and in order from 0.
    """
    arrived = {p: deliveries.time_ns[deliveries.partition == p] for p in partitions}
    first: list[int] = []
    everything: list[FloatArray] = []
    bursts: dict[int, list[tuple[int, int, int]]] = {}
    previous = dict.fromkeys(arrived, 0)
    columns = (records.time_ns, records.partition, records.offset, records.step, records.tick)
    for time_ns, partition, offset, its_step, tick in zip(*(each.tolist() for each in columns), strict=True):
        if partition not in arrived:
            continue
        low, previous[partition] = previous[partition], offset
        if its_step != step or offset <= low:
            continue
        times = arrived[partition][low:offset]
        first.append(int(times[0]) - time_ns)
        everything.append((times - time_ns) / 1e6)
        bursts.setdefault(tick, []).append((int(times[0]), int(times[-1]), len(times)))
    return Released(
        np.array(first) / 1e6,
        np.concatenate(everything) if everything else np.empty(0),
        np.array([rate for burst in bursts.values() if (rate := _rate(burst)) is not None]),
    )


def _rate(burst: list[tuple[int, int, int]]) -> float | None:
    count = sum(messages for _, _, messages in burst)
    if count < DRAIN_LEAST_MESSAGES:
        return None
    return (count - 1) / (max(last for _, last, _ in burst) - min(first for first, _, _ in burst)) * 1e9


def arrival_ms(deliveries: Deliveries, records: CommitRecords, step: int) -> FloatArray:
    """The floor's: record number n of the feeder is offset n of the commit log's one partition."""
    delay = (deliveries.time_ns - records.time_ns) / 1e6
    return np.asarray(delay[records.step == step], np.float64)


def throughput(deliveries: Deliveries, skip: int = 0) -> float:
    """Messages per second, leaving out the first ``skip`` deliveries: what was there before the leaders' offsets."""
    per_time = STAMP_EVERY if deliveries.stamped else 1
    times = deliveries.time_ns[skip // per_time :]
    return (len(times) - 1) * per_time / int(times[-1] - times[0]) * 1e9
