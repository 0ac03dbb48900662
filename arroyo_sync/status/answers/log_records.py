"""What the records of a commit log say, one by one and together, for people.

Pure: no question to a broker, no thread, no clock.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import Any, NamedTuple

from arroyo_sync.core.source import CLOCK_TOLERANCE_SECONDS
from arroyo_sync.core.state import PartitionKey

NO_TIME = -1


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One record of the commit log."""

    log_partition: int
    log_offset: int
    timestamp_ms: int | None
    """When it was written, Unix milliseconds."""
    topic: str | None = None
    partition: int | None = None
    group: str | None = None
    offset: int | None = None
    """The *next* offset that the group would read. ``None``: unknown again (a tombstone), or the record is refused."""
    orig_message_ts: float | None = None
    received_p99: float | None = None
    topic_id: str | None = None
    refused: str | None = None
    """Why a follower takes nothing from it: `SkipReason`, and what is wrong."""

    def is_ahead(self, now: float) -> bool:
        """Whether its time can't be true: the writer set it, by a clock that is ahead.

        :param now: Unix seconds.
        """
        return self.timestamp_ms is not None and self.timestamp_ms > (now + CLOCK_TOLERANCE_SECONDS) * 1000

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which records are wanted. ``None``: any."""

    groups: Collection[str] | None = None
    topic: str | None = None
    partitions: Collection[int] | None = None
    """Of the data topic."""

    def takes(self, record: LogRecord) -> bool:
        """Whether it is one of them. A refused record of an unreadable key is, unless something is asked for."""
        return (
            (self.groups is None or record.group in self.groups)
            and (self.topic is None or record.topic == self.topic)
            and (self.partitions is None or record.partition in self.partitions)
        )


class Counted:
    """Counts records as they are read."""

    def __init__(self) -> None:
        self.count = 0

    def through(self, records: Iterable[LogRecord]) -> Iterator[LogRecord]:
        for record in records:
            self.count += 1
            yield record


@dataclass(frozen=True, slots=True)
class GroupOnLog:
    """What one group reports of one topic."""

    group: str
    topic: str
    partitions: tuple[int, ...]
    records: int
    newest_at: float | None
    """When the newest report was written, Unix seconds; at least so late, if its clock is ahead."""
    records_a_second: float | None
    """From the first to the last record that is still there; of a compacted log that is too few."""
    clock_is_ahead: bool = False
    """Whether a report has a time from the future."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def groups_of(records: Iterable[LogRecord], now: float) -> list[GroupOnLog]:
    """Which groups report on a commit log, by topic and name. Refused records count for nobody.

    :param now: Unix seconds.
    """
    partitions: dict[tuple[str, str], set[int]] = defaultdict(set)
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    counts: Counter[tuple[str, str]] = Counter()
    ahead: set[tuple[str, str]] = set()
    for order_ms, record in _in_order(records, now):
        if record.refused is not None or record.topic is None or record.group is None or record.partition is None:
            continue
        key = record.topic, record.group
        partitions[key].add(record.partition)
        counts[key] += 1
        timestamp_ms = record.timestamp_ms
        if record.is_ahead(now):
            ahead.add(key)
            timestamp_ms = order_ms
        if timestamp_ms is not None and timestamp_ms != NO_TIME:
            seconds = timestamp_ms / 1000
            first, last = (times[key] or [seconds, seconds])[:2]
            times[key] = [min(first, seconds), max(last, seconds)]
    found = []
    for key in sorted(partitions):
        of_key = times.get(key, [])
        lasted = of_key[1] - of_key[0] if of_key else 0.0
        found.append(
            GroupOnLog(
                key[1],
                key[0],
                tuple(sorted(partitions[key])),
                counts[key],
                newest_at=of_key[1] if of_key else None,
                records_a_second=(counts[key] - 1) / lasted if lasted > 0 else None,
                clock_is_ahead=key in ahead,
            )
        )
    return found


class GroupsOnLog(NamedTuple):
    """The groups that report on a commit log of one topic."""

    names: Collection[str]
    is_all: bool = True
    """Whether all of the log was read."""


class Repeated(NamedTuple):
    """What a group reported of a partition last, and since when it has reported just that."""

    offset: int | None
    since: float
    """Unix seconds of the first such report, without another one between."""
    is_older: bool = False
    """Whether it may have reported it before, too: that was its first record where the reading began."""


def reported_since(
    records: Iterable[LogRecord], now: float, cut: Collection[int] = ()
) -> dict[tuple[PartitionKey, str], Repeated]:
    """Of each partition and group, the offset that it reported last, and when it did so first without another between.

    Records without a time are left out. One from the future tells the offset; since when, the next that can be true.

    :param now: Unix seconds.
    :param cut: the log partitions that weren't read from as far back as was wanted.
    """
    found: dict[tuple[PartitionKey, str], tuple[int | None, float | None, bool]] = {}
    timed = [
        (order_ms, each.log_offset, each) for order_ms, each in _in_order(records, now) if each.timestamp_ms is not None
    ]
    for _, _, record in sorted(timed, key=lambda each: each[:2]):
        if record.refused is not None or record.topic is None or record.partition is None or record.group is None:
            continue
        key = (record.topic, record.partition), record.group
        seconds = None if record.timestamp_ms is None or record.is_ahead(now) else record.timestamp_ms / 1000
        offset, since, is_older = found.get(key, (record.offset, None, record.log_partition in cut))
        if offset != record.offset or since is None:
            found[key] = record.offset, seconds, is_older and offset == record.offset
    return {
        key: Repeated(offset, since, is_older) for key, (offset, since, is_older) in found.items() if since is not None
    }


def last_of(records: Iterable[LogRecord], filter: Filter, count: int | None, now: float) -> list[LogRecord]:
    """The last so many that are wanted, in the order in which they were written; ``None``: all.

    :param now: Unix seconds.
    """

    def place(each: tuple[int, LogRecord]) -> tuple[int, int, int]:
        order_ms, record = each
        return order_ms, record.log_partition, record.log_offset

    wanted = (each for each in _in_order(records, now) if filter.takes(each[1]))
    last = sorted(wanted if count is None else heapq.nlargest(count, wanted, place), key=place)
    return [record for _, record in last]


def _in_order(records: Iterable[LogRecord], now: float) -> Iterator[tuple[int, LogRecord]]:
    """The records, each with a time by which those of several log partitions are in order: `NO_TIME` is the oldest.

    Where the writers set the times, clocks differ. So within a log partition none counts as older than the one before
    it, and a time from the future as the latest that can be true before it, as for a follower.

    :param records: those of each log partition in their order.
    """
    latest: dict[int, int] = {}
    for record in records:
        order_ms = latest.get(record.log_partition, NO_TIME)
        if record.timestamp_ms is not None and not record.is_ahead(now):
            order_ms = latest[record.log_partition] = max(order_ms, record.timestamp_ms)
        yield order_ms, record


def record_line(record: LogRecord, now: float) -> str:
    """One line for people. Names in it may hold anything.

    :param now: Unix seconds.
    """
    at = "no time" if record.timestamp_ms is None else utc(record.timestamp_ms / 1000)
    at += " by a clock that is ahead" if record.is_ahead(now) else ""
    line = f"{at}  {record.log_partition}@{record.log_offset}  "
    if record.refused is not None:
        return f"{line}refused, {record.refused}"
    line += f"{record.topic}[{record.partition}]  {record.group}  "
    if record.offset is None:
        return f"{line}tombstone: its offset is unknown again"
    written = "" if record.orig_message_ts is None else f"  message of {utc(record.orig_message_ts)}"
    return f"{line}{record.offset}{written}"


def utc(seconds: float) -> str:
    """A time of day with its date, or the number where there is no such date.

    >>> utc(1700000000.25), utc(9e20)
    ('2023-11-14 22:13:20.250', '9e+20')
    """
    try:
        return datetime.fromtimestamp(seconds, timezone.utc).isoformat(" ", "milliseconds").removesuffix("+00:00")
    except (ValueError, OverflowError, OSError):
        return repr(seconds)
