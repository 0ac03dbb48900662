"""Picks out of a batch of commit-log records what the followed groups published last.

A commit log mostly repeats itself: of each key only the last record of a batch counts, so only that one is parsed.
Records of other groups and about other topics aren't parsed at all. If the last record of a key can't be read, the one
before counts.

Guarantees
    - No record makes it raise.
    - What it keeps is bounded, whatever is written: of the followed topic, the partitions below `MAX_PARTITIONS`; while
      no topic is known, that many partitions of any.
    - Every record is counted once, except that of the records of one key only those up to the last one that can be read
      are parsed: what was superseded unseen isn't counted as malformed.

Not thread-safe: for the reading thread. The counts may be read by any.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from confluent_kafka import Message

from arroyo_sync.core.errors import MalformedRecord
from arroyo_sync.core.log_guard import guarded_logger
from arroyo_sync.core.log_throttle import LOG_INTERVAL_SECONDS, LogThrottle
from arroyo_sync.core.state import PartitionKey
from arroyo_sync.kafka.headers import headers_of
from arroyo_sync.leaders.commit_log.contents import LogContents
from arroyo_sync.leaders.commit_log.plausible_timestamps import PlausibleTimestamps
from arroyo_sync.leaders.commit_log.record import (
    CommitKey,
    Skipped,
    SkipReason,
    decode_key,
    decode_topic_id,
    decode_unusual,
    decode_usual,
)
from arroyo_sync.leaders.commit_report import CommitReport

logger = guarded_logger(__name__)

KNOWN_KEYS = 10_000
"""How many keys' parts are remembered, of about 500 bytes each: no topic's name has more than 249 characters."""

BATCH = 10_000
"""How many records are taken at once, if so many are there: about ten milliseconds of work."""
BATCH_BYTES = 16_000_000
"""How many bytes of them: fewer are taken if they are large."""
SAMPLED = 64
"""Of so many records of a batch, one is measured."""

MAX_PARTITIONS = 2**15
"""Of how many partitions reports are kept: of more than any topic has, and they take 25 MB."""

MAX_TIME_SECONDS = 1e11
"""A message isn't written later than this, in the year 5138. In milliseconds it is still a number to count with."""


class BatchSize:
    """How many records may be taken at once."""

    def __init__(self) -> None:
        self._record_bytes = 1

    def measure(self, batch: Sequence[Message]) -> None:
        """The next ones may be as large as these."""
        sample = batch[::SAMPLED]
        self._record_bytes = 1 + sum(map(bytes_of, sample)) // len(sample)

    def beside(self, first: Message) -> int:
        """How many may be taken with this one."""
        return max(1, min(BATCH, BATCH_BYTES // max(self._record_bytes, bytes_of(first))))


class Decoded(NamedTuple):
    """What a batch held."""

    reports: list[CommitReport]
    next_offset: int | None
    """The offset after the last record, ``None`` if there is no record."""
    events: list[Message]
    """Messages that are no records: errors, and the partition's end."""


class BatchDecoder:
    """Decodes batches and counts what it found.

    :param name: of the commit log, for log lines.
    :param groups: the leader groups that are followed.
    :param clock: monotonic seconds.
    :param wall_clock: Unix seconds.
    """

    def __init__(
        self,
        name: str,
        groups: Iterable[str],
        clock: Callable[[], float],
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._name = name
        self._groups = frozenset(groups)
        # A cheap first look: a group's name may itself end like this, so it is looked at again once it is parsed.
        self._endings = tuple(f":{group}".encode() for group in self._groups)
        # The parts of followed keys: a commit log repeats few keys for ever.
        self._known: dict[bytes | None, CommitKey] = {}
        self._topic: str | None = None
        # While no topic is known: the partitions that reports were kept of.
        self._kept: set[PartitionKey] = set()
        self._timestamps = PlausibleTimestamps(wall_clock)
        self._has_warned = False
        self._throttle = LogThrottle(LOG_INTERVAL_SECONDS, clock)
        self.contents = LogContents(name)
        self.read = 0
        self.other_groups = 0
        self.other_topics = 0
        """Records of followed groups about other topics, or about more partitions than `MAX_PARTITIONS`."""
        self.logical = 0
        self.tombstones = 0
        self.from_the_future = 0
        self.malformed: Counter[str] = Counter()
        self.newest_timestamp_ms: int | None = None
        self.is_incomplete = False
        """Whether partitions were dropped before the topic was known: some of them may be of it."""

    def follow(self, topic: str) -> None:
        """From now on, only reports about this topic count."""
        self._topic = topic
        self._known.clear()
        self._kept.clear()
        self.is_incomplete = False

    def check_timestamps(self, log_partitions: int) -> None:
        """Warn, once, if records of several commit-log partitions are compared by their writers' clocks.

        :param log_partitions: how many there are.
        """
        if log_partitions < 2 or self._has_warned or not self._timestamps.has_create_time:
            return
        self._has_warned = True
        logger.warning(
            "Commit log %s has %d partitions and message.timestamp.type=CreateTime: of a group's reports in two of "
            "them the later one counts, by the clocks of the leaders' machines. Set the topic's "
            "message.timestamp.type to LogAppendTime",
            self._name,
            log_partitions,
        )

    def forget(self, log_partition: int) -> None:
        """That commit-log partition is read again from its beginning."""
        self._timestamps.forget(log_partition)

    def decode(self, messages: Sequence[Message]) -> Decoded:
        """What one commit-log partition's records say in the end, given in their order; events may be among them."""
        keys = [message.key() for message in messages]
        last = dict(zip(keys, messages, strict=True))
        events: list[Message] = []
        if None in last:  # an event, or a record without a key
            events = [message for message in messages if message.error() is not None]
            messages = [message for message in messages if message.error() is None]
            keys = [message.key() for message in messages]
            last = dict(zip(keys, messages, strict=True))
        counts = Counter(keys) if len(last) < len(keys) else _ONE_OF_EACH
        self.read += len(messages)
        self.contents.judge(keys)
        self._timestamps.begin(messages)
        reports: list[CommitReport] = []
        skipped: list[bytes | None] = []
        earlier: dict[bytes | None, list[Message]] | None = None
        for key, message in last.items():
            commit_key = self._known.get(key) or self._followed(key, message, counts.get(key, 1))
            if commit_key is None:
                skipped.append(key)
                continue
            report = self._report(commit_key, message)
            if report is None and counts.get(key, 1) > 1:
                if earlier is None:
                    earlier = _by_key(keys, messages)
                candidates = (self._report(commit_key, each) for each in reversed(earlier[key][:-1]))
                report = next((each for each in candidates if each is not None), None)
            if report is not None:
                reports.append(report)
        self._timestamps.end()
        self.contents.update(skipped)
        next_offset = (messages[-1].offset() or 0) + 1 if messages else None
        return Decoded(reports, next_offset, events)

    def _followed(self, key: bytes | None, message: Message, count: int) -> CommitKey | None:
        """The key, if its group and topic are followed. All records with this key are counted if they aren't."""
        if key is not None and not key.endswith(self._endings) and key.count(b":") >= 2:
            self.other_groups += count
            return None
        try:
            commit_key = decode_key(key)
        except MalformedRecord as error:
            self._count_malformed(SkipReason.KEY, error.detail, message, count)
            return None
        if commit_key.group not in self._groups:
            self.other_groups += count
            return None
        if not self._is_kept(commit_key):
            self.other_topics += count
            return None
        if len(self._known) >= KNOWN_KEYS:
            self._known.clear()
        self._known[key] = commit_key
        self.contents.update([key])
        return commit_key

    def _is_kept(self, key: CommitKey) -> bool:
        """Whether reports about this partition are kept."""
        if self._topic is not None:
            if key.topic != self._topic:
                return False
            is_kept = key.partition < MAX_PARTITIONS
        else:
            partition = key.topic, key.partition
            is_kept = partition in self._kept or len(self._kept) < MAX_PARTITIONS
            if is_kept:
                self._kept.add(partition)
            else:
                self.is_incomplete = True
        if not is_kept and self._throttle.should_log("partitions"):
            logger.warning(
                "Commit log %s: reports of group %r about more than %d partitions are dropped, such as %s[%d]. Who "
                "writes them?",
                self._name,
                key.group,
                MAX_PARTITIONS,
                key.topic,
                key.partition,
            )
        return is_kept

    def _report(self, key: CommitKey, message: Message) -> CommitReport | None:
        """What the record reports, ``None`` if it was skipped."""
        timestamp_ms, is_from_the_future = self._timestamps.of(message)
        if is_from_the_future:
            self._count_from_the_future(key, message)
        if self.newest_timestamp_ms is None or timestamp_ms > self.newest_timestamp_ms:
            self.newest_timestamp_ms = timestamp_ms
        offset: int | None = None
        orig_message_ts: float | None = None
        headers = headers_of(message)
        value = message.value()
        if value is None:
            self.tombstones += 1
        elif (usual := decode_usual(value)) is not None:
            offset, orig_message_ts, _ = usual
        else:
            decoded = decode_unusual(key, value, headers)
            if isinstance(decoded, Skipped):
                if decoded.reason.is_malformed:
                    self._count_malformed(decoded.reason, decoded.detail, message, 1)
                else:
                    self.logical += 1
                return None
            offset, orig_message_ts = decoded.offset, decoded.orig_message_ts
        if orig_message_ts is not None and not 0 <= orig_message_ts <= MAX_TIME_SECONDS:
            orig_message_ts = None
        return CommitReport(
            (key.topic, key.partition),
            key.group,
            offset,
            timestamp_ms,
            message.partition() or 0,
            message.offset() or 0,
            orig_message_ts,
            None if headers is None else decode_topic_id(headers),
        )

    def _count_from_the_future(self, key: CommitKey, message: Message) -> None:
        self.from_the_future += 1
        if self._throttle.should_log("future"):
            logger.warning(
                "Commit log %s[%s]: the record of %s at offset %s has a timestamp from the future, %s ms. "
                "It counts as old as the record before it. Is the clock of its writer right, and that of this machine?",
                self._name,
                message.partition(),
                key,
                message.offset(),
                message.timestamp()[1],
            )

    def _count_malformed(self, reason: SkipReason, detail: str, message: Message, count: int) -> None:
        self.malformed[reason.value] += count
        if self._throttle.should_log(reason):
            logger.warning(
                "Skipped a record of %s[%s] at offset %s (%s): %s. More of this kind are only counted for a minute",
                self._name,
                message.partition(),
                message.offset(),
                reason.value,
                detail,
            )


_ONE_OF_EACH: Mapping[bytes | None, int] = {}
"""How often a key is in a batch that repeats none."""


def _by_key(keys: Sequence[bytes | None], messages: Sequence[Message]) -> dict[bytes | None, list[Message]]:
    index: dict[bytes | None, list[Message]] = defaultdict(list)
    for key, message in zip(keys, messages, strict=True):
        index[key].append(message)
    return index


def bytes_of(message: Message) -> int:
    """How many bytes its key and value have."""
    return len(message.key() or b"") + len(message.value() or b"")
