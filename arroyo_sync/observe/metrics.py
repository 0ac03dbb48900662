"""The metrics of this package: name, kind, unit, tags and meaning of each. `MetricsReporter` sends them.

They go to whatever backend ``arroyo.utils.metrics.configure_metrics`` was given, at most once a second for a series.

Sources
    ``commit_log_latency`` and ``commit_log_msg_latency``, their tags and what they measure are those of Sentry's own
    consumer: getsentry/arroyo#38 and ``src/sentry/consumers/synchronized.py`` of getsentry/sentry, where both are
    taken when a record is read: "now" less the record's broker timestamp, and less its ``orig_message_ts``.
    Elsewhere a leader group is the tag ``leader_group``: Sentry's middleware (``src/sentry/metrics/middleware.py``)
    refuses a tag named ``group`` on any metric but a few, these two among them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """How a metric is sent, by the methods of Arroyo's ``Metrics``."""

    COUNTER = "increment"
    GAUGE = "gauge"
    TIMING = "timing"


@dataclass(frozen=True, slots=True)
class MetricDef:
    """One metric."""

    name: str
    kind: Kind
    unit: str
    """As Sentry names units; counters and gauges of things are named after the thing."""
    tags: tuple[str, ...]
    meaning: str


_PARTITION = ("topic", "partition")
_LEADER_GROUP = ("topic", "partition", "leader_group")

REMOTE_OFFSET = MetricDef(
    "arroyo_sync.remote_offset",
    Kind.GAUGE,
    "offset",
    _PARTITION,
    "The next offset that the slowest leader group would read: lower ones are released. Not sent while it is unknown.",
)
LOCAL_OFFSET = MetricDef(
    "arroyo_sync.local_offset", Kind.GAUGE, "offset", _PARTITION, "The next offset that the follower hands downstream."
)
GATED_LAG = MetricDef(
    "arroyo_sync.lag.gated",
    Kind.GAUGE,
    "message",
    _PARTITION,
    "Messages that exist, but that the follower may not have yet: the slowest leader hasn't committed them.",
)
LEADER_LAG = MetricDef(
    "arroyo_sync.lag.leader",
    Kind.GAUGE,
    "message",
    _LEADER_GROUP,
    "The same for each leader group by itself: the group with the most is the one that is waited for.",
)
RELEASED_LAG = MetricDef(
    "arroyo_sync.lag.released",
    Kind.GAUGE,
    "message",
    _PARTITION,
    "Messages that are released, but that the follower hasn't handed downstream yet: the follower is slow.",
)
HELD_MESSAGES = MetricDef(
    "arroyo_sync.held.messages",
    Kind.GAUGE,
    "message",
    _PARTITION,
    "Messages in the gate: they wait for a leader or, once released, for the follower's own steps.",
)
HELD_BYTES = MetricDef("arroyo_sync.held.bytes", Kind.GAUGE, "byte", _PARTITION, "What they weigh, headers included.")
OLDEST_HELD = MetricDef(
    "arroyo_sync.held.oldest",
    Kind.GAUGE,
    "second",
    _PARTITION,
    "For how long the oldest of them has been held; 0 if nothing is.",
)
IS_PAUSED = MetricDef(
    "arroyo_sync.paused", Kind.GAUGE, "boolean", _PARTITION, "1 while the gate holds all that it may, else 0."
)
PAUSES = MetricDef("arroyo_sync.pauses", Kind.COUNTER, "pause", (), "Partitions that the gate paused, being full.")
RESUMES = MetricDef("arroyo_sync.resumes", Kind.COUNTER, "resume", (), "Partitions that it resumed, having drained.")
STALLED = MetricDef(
    "arroyo_sync.stalled",
    Kind.GAUGE,
    "partition",
    ("waits_for",),
    "Partitions that have stood still for `stalled_after` seconds while messages wait: for a `leader`, or for the "
    "`follower` itself.",
)
WAITING = MetricDef(
    "arroyo_sync.waiting",
    Kind.GAUGE,
    "partition",
    ("waits_for",),
    "Partitions that have made no progress for 15 seconds while messages wait, and aren't counted as stalled (yet).",
)
HOLD_TIME = MetricDef(
    "arroyo_sync.hold_time",
    Kind.TIMING,
    "millisecond",
    (),
    "For how long the oldest message of a partition was held when it was released: of the last release of each "
    "partition in each second, the longest.",
)
RELEASE_LATENCY = MetricDef(
    "arroyo_sync.release_latency",
    Kind.TIMING,
    "millisecond",
    (),
    "From when a commit-log record was read to when the gate released what it covers: likewise the longest.",
)
READER_ALIVE = MetricDef(
    "arroyo_sync.reader.alive", Kind.GAUGE, "boolean", (), "1 while the source of remote offsets runs, 0 once it died."
)
READER_READY = MetricDef(
    "arroyo_sync.reader.ready",
    Kind.GAUGE,
    "boolean",
    (),
    "1 once the source has replayed what was there at its start, else 0: nothing is released before.",
)
COMMIT_LOG_LAG = MetricDef(
    "arroyo_sync.commit_log.lag",
    Kind.GAUGE,
    "record",
    (),
    "Records of the commit log that the reader hasn't read yet.",
)
RECORDS_READ = MetricDef("arroyo_sync.commit_log.read", Kind.COUNTER, "record", (), "Records read, of whatever group.")
RECORDS_SKIPPED = MetricDef(
    "arroyo_sync.commit_log.skipped",
    Kind.COUNTER,
    "record",
    ("reason",),
    "Records that this follower has no use for: `other_group`, `other_topic` (or more partitions than are kept), or "
    "`logical_offset` (-1 and the like).",
)
RECORDS_MALFORMED = MetricDef(
    "arroyo_sync.commit_log.malformed",
    Kind.COUNTER,
    "record",
    ("reason",),
    "Records that can't be read: bad `key`, `value`, `offset` or `timestamp`.",
)
TOMBSTONES = MetricDef(
    "arroyo_sync.commit_log.tombstones",
    Kind.COUNTER,
    "record",
    (),
    "Records that took a group's offset back.",
)
REWINDS = MetricDef("arroyo_sync.rewinds", Kind.COUNTER, "rewind", (), "Leader groups that went back, per partition.")
IMPOSSIBLE_OFFSETS = MetricDef(
    "arroyo_sync.impossible_offsets",
    Kind.COUNTER,
    "offset",
    (),
    "Published offsets that were rejected: beyond the end of their partition, or of an earlier topic of that name.",
)
UNVERIFIED = MetricDef(
    "arroyo_sync.unverified",
    Kind.GAUGE,
    "partition",
    (),
    "Partitions in which a published offset has stayed unverified for 15 seconds: whether the partition reaches that "
    "far, or whether the report is of this topic. What is verified within a second or so doesn't count.",
)
REFUSED_VALUES = MetricDef(
    "arroyo_sync.refused_values",
    Kind.COUNTER,
    "value",
    (),
    "Values of these metrics that the metrics backend refused to take; the log says which, and why.",
)
COMMIT_LOG_LATENCY = MetricDef(
    "commit_log_latency",
    Kind.TIMING,
    "millisecond",
    ("partition", "group"),
    "From when a commit-log record was written to when it was read; the last one in each second.",
)
COMMIT_LOG_MSG_LATENCY = MetricDef(
    "commit_log_msg_latency",
    Kind.TIMING,
    "millisecond",
    ("partition", "group"),
    "From when the last message was written that the record covers to when the record was read; likewise, and once for "
    "each offset. Near 0 for the reports with which a leader begins, which cover none.",
)

METRICS: tuple[MetricDef, ...] = tuple(each for each in list(globals().values()) if isinstance(each, MetricDef))
"""All of them, in the order above."""

METRICS_BY_NAME = {metric.name: metric for metric in METRICS}
