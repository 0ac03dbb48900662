"""The commit-log record: bytes to commit and back.

A record says how far one leader group has committed one partition. Its key is ``topic:partition:group``, of which only
the first two colons separate: a group's name may hold colons, a topic's can't. There is one way to write a key, so that
no two keys name the same: the topic's name as Kafka allows it, the partition without leading zeros, the group not
empty. Its value has one of two forms:

    - JSON: ``{"offset": 42, "orig_message_ts": 1700000000.5, "received_p99": null}``, as Arroyo's ``CommitCodec`` and
      Snuba's Rust consumer write it. Unknown fields are ignored, either time may be missing or null.
    - Legacy: the offset in ASCII digits, with the header ``orig_message_ts`` (UTC), which may be missing.

With either, the header ``topic_id`` may name the topic that the group read by its id. Only our publishers write it, and
no other reader looks at it.

No value at all is a tombstone. The offset is the *next* one that the group would read.

Guarantees
    - `decode` raises for no input: it returns what it read, or why it skipped the record.
    - `decode(*encode(record)) == record`.

Pure: no Kafka, no clock, no state. Any thread may call anything.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from enum import Enum

from arroyo_sync.core.checks import MAX_PARTITION, is_topic_name
from arroyo_sync.core.errors import MalformedRecord
from arroyo_sync.core.state import MAX_OFFSET
from arroyo_sync.kafka.topic_ids import canonical_topic_id

LOGICAL_OFFSETS = frozenset({-1, -2, -1000, -1001})
"""librdkafka's names for end, beginning, stored and invalid. A leader that wrote one had no position to report."""

Headers = Iterable[tuple[str, bytes | None]]

TOPIC_ID_HEADER = "topic_id"
"""Where our publishers say which topic they read: its id, as text. Names come back, ids don't."""
MAX_TOPIC_ID_BYTES = 64
"""Kafka's take 22."""

_KEY = re.compile(rb"([a-zA-Z0-9._-]{1,249}):(0|[1-9][0-9]{0,9}):(.+)", re.DOTALL)

_SHOWN_BYTES = 80
# What Arroyo writes, and with no blanks Snuba's Rust consumer. What is released waits for its decoding, which takes a
# third of the time that `json.loads` takes. Nothing is matched but JSON, and no number that is too large.
_TIME = rb"((?:0|[1-9][0-9]{0,14})(?:\.[0-9]{1,20})?)"
_USUAL_VALUE = re.compile(
    rb'\{"offset": ?(0|[1-9][0-9]{0,17}), ?"orig_message_ts": ?%b, ?"received_p99": ?(?:null|%b)\}' % (_TIME, _TIME)
)
_LEGACY_VALUE = re.compile(rb"-?[0-9]{1,19}")
_LEGACY_TIME = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)\.(\d{1,6})Z", re.ASCII)


class SkipReason(str, Enum):
    """Why a record was skipped. The values are metric tags."""

    KEY = "key"
    """The key is missing, its group isn't UTF-8, or it isn't ``topic:partition:group`` in the one way to write it."""
    VALUE = "value"
    """The value is neither UTF-8 JSON of an object nor ASCII digits."""
    OFFSET = "offset"
    """The offset is missing or not an integer from 0 to 2**63 - 1."""
    TIMESTAMP = "timestamp"
    """A time is neither a finite number nor missing, or the legacy header is in another format."""
    LOGICAL_OFFSET = "logical_offset"
    """The offset is one of `LOGICAL_OFFSETS`: well-formed, but no position."""

    @property
    def is_malformed(self) -> bool:
        return self is not SkipReason.LOGICAL_OFFSET


@dataclass(frozen=True, slots=True)
class CommitKey:
    """Which group's commit of which partition a record reports."""

    topic: str
    partition: int
    group: str

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}] of group {self.group!r}"


@dataclass(frozen=True, slots=True)
class CommitRecord:
    """One leader group's commit of one partition."""

    topic: str
    partition: int
    group: str
    offset: int
    """The *next* offset that the group would read."""
    orig_message_ts: float | None = None
    """When the message before that offset was written, Unix seconds."""
    received_p99: float | None = None
    """The 99th percentile of when the committed messages were received by the whole pipeline, Unix seconds."""


@dataclass(frozen=True, slots=True)
class Tombstone:
    """The group's offset is unknown again."""

    key: CommitKey


@dataclass(frozen=True, slots=True)
class Skipped:
    """The record reports nothing, and why."""

    reason: SkipReason
    detail: str


def encode(record: CommitRecord) -> tuple[bytes, bytes]:
    """The key and the value, byte for byte what Arroyo's ``CommitCodec`` writes.

    :raises MalformedRecord: for a record that no reader could take, saying which part.
    """
    key = CommitKey(record.topic, record.partition, record.group)
    check_key_topic(record.topic)
    if not record.group:
        raise MalformedRecord(SkipReason.KEY.value, "the group's name is empty")
    if type(record.partition) is not int or not 0 <= record.partition <= MAX_PARTITION:
        raise MalformedRecord(SkipReason.KEY.value, f"not a partition's index: {record.partition!r}")
    if type(record.offset) is not int or not 0 <= record.offset <= MAX_OFFSET:
        raise MalformedRecord(
            SkipReason.OFFSET.value, f"{key}: an offset is an integer from 0 to 2**63 - 1, not {record.offset!r}"
        )
    if record.orig_message_ts is None:
        raise MalformedRecord(SkipReason.TIMESTAMP.value, f"{key}: orig_message_ts is missing, Arroyo requires it")
    for time in (record.orig_message_ts, record.received_p99):
        if time is not None and _seconds(time) is None:
            raise MalformedRecord(SkipReason.TIMESTAMP.value, f"{key}: not a finite time in seconds: {time!r}")
    value = {
        "offset": record.offset,
        "orig_message_ts": record.orig_message_ts,
        "received_p99": record.received_p99,
    }
    try:
        return f"{record.topic}:{record.partition}:{record.group}".encode(), json.dumps(value).encode()
    except UnicodeEncodeError as error:
        raise MalformedRecord(SkipReason.KEY.value, f"{key!r} can't be written in UTF-8") from error


def check_key_topic(topic: str) -> None:
    """Return if a record's key can name this topic.

    :raises MalformedRecord: if Kafka could have no topic of this name.
    """
    if not topic:
        raise MalformedRecord(SkipReason.KEY.value, "the topic's name is empty")
    if ":" in topic:
        raise MalformedRecord(
            SkipReason.KEY.value,
            f"the topic's name {topic!r} holds ':', which separates the parts of a record's key, topic:partition:group",
        )
    if not is_topic_name(topic):
        raise MalformedRecord(
            SkipReason.KEY.value,
            f"the topic's name {topic[:_SHOWN_BYTES]!r} isn't 1 to 249 letters of ASCII, digits, '.', '_' and '-'",
        )


def decode_key(key: bytes | None) -> CommitKey:
    """Which group's commit of which partition the record reports.

    :raises MalformedRecord: for anything but ``topic:partition:group`` in the one way to write it.
    """
    match = _KEY.fullmatch(key) if key else None
    if key is None or match is None or int(match[2]) > MAX_PARTITION:
        raise MalformedRecord(SkipReason.KEY.value, _wrong_in(key))
    try:
        return CommitKey(match[1].decode(), int(match[2]), match[3].decode())
    except UnicodeDecodeError:
        raise MalformedRecord(SkipReason.KEY.value, f"not UTF-8: {_shown(key)}") from None


def is_key(key: bytes | None) -> bool:
    """Whether this is the key of a commit record, as far as it can be told without its group's name."""
    return key is not None and _KEY.fullmatch(key) is not None


def _wrong_in(key: bytes | None) -> str:
    if not key:
        return "no key"
    parts = key.split(b":", 2)
    if len(parts) < 3 or not parts[0] or not parts[2]:
        return f"not topic:partition:group: {_shown(key)}"
    if not is_topic_name(parts[0].decode("latin-1")):
        return f"no topic's name in {_shown(key)}"
    return f"no partition index in {_shown(key)}"


def decode(key: bytes | None, value: bytes | None, headers: Headers | None) -> CommitRecord | Tombstone | Skipped:
    """What the record reports. Raises for no input.

    >>> decode(b"events:3:writers", b'{"offset": 42, "orig_message_ts": 1.5, "received_p99": null}', None)
    CommitRecord(topic='events', partition=3, group='writers', offset=42, orig_message_ts=1.5, received_p99=None)
    >>> decode(b"events:3:writers", b"42", None).offset
    42
    >>> decode(b"events:3:writers", None, None)
    Tombstone(key=CommitKey(topic='events', partition=3, group='writers'))
    """
    try:
        commit_key = decode_key(key)
    except MalformedRecord as error:
        return Skipped(SkipReason(error.reason), error.detail)
    if value is None:
        return Tombstone(commit_key)
    usual = decode_usual(value)
    if usual is not None:
        return CommitRecord(commit_key.topic, commit_key.partition, commit_key.group, *usual)
    return decode_unusual(commit_key, value, headers)


def decode_usual(value: bytes) -> tuple[int, float, float | None] | None:
    """The offset, orig_message_ts and received_p99 of a value as Arroyo writes it, ``None`` for any other.

    What it reads, `decode_unusual` reads alike.
    """
    match = _USUAL_VALUE.fullmatch(value)
    if match is None:
        return None
    offset, orig_message_ts, received_p99 = match.groups()
    return int(offset), float(orig_message_ts), None if received_p99 is None else float(received_p99)


def decode_unusual(key: CommitKey, value: bytes, headers: Headers | None) -> CommitRecord | Skipped:
    """What a value reports that `decode_usual` doesn't read. Raises for no input."""
    if _LEGACY_VALUE.fullmatch(value):
        return _decode_legacy(key, int(value), headers or ())
    try:
        fields = json.loads(value.decode())
    except (ValueError, RecursionError) as error:
        return Skipped(SkipReason.VALUE, f"{key}: {type(error).__name__} in {_shown(value)}")
    if type(fields) is not dict:
        return Skipped(SkipReason.VALUE, f"{key}: not a JSON object: {_shown(value)}")
    offset = fields.get("offset")
    if type(offset) is not int or not 0 <= offset <= MAX_OFFSET:
        return _skipped_offset(key, offset, value)
    times: list[float | None] = []
    for name in ("orig_message_ts", "received_p99"):
        time = fields.get(name)
        seconds = None if time is None else _seconds(time)
        if time is not None and seconds is None:
            return Skipped(SkipReason.TIMESTAMP, f"{key}: {name} is not a finite number in {_shown(value)}")
        times.append(seconds)
    return CommitRecord(key.topic, key.partition, key.group, offset, times[0], times[1])


def decode_topic_id(headers: Headers) -> str | None:
    """The id of the topic that the group read. ``None``: the record doesn't say, or not in a form that can be read.

    >>> decode_topic_id([("topic_id", b"Ozt3Tf9FRq2c5MwvPSbmGg")])
    'Ozt3Tf9FRq2c5MwvPSbmGg'
    """
    for name, value in headers:
        if name == TOPIC_ID_HEADER and value and len(value) <= MAX_TOPIC_ID_BYTES:
            try:
                text = value.decode()
            except UnicodeDecodeError:
                return None
            return canonical_topic_id(text) if text.isprintable() else None
    return None


def _decode_legacy(key: CommitKey, offset: int, headers: Headers) -> CommitRecord | Skipped:
    if not 0 <= offset <= MAX_OFFSET:
        return _skipped_offset(key, offset, str(offset).encode())
    text = dict(headers).get("orig_message_ts")
    if text is None:
        return CommitRecord(key.topic, key.partition, key.group, offset)
    try:
        match = _LEGACY_TIME.fullmatch(text.decode())
        if match is None:
            raise ValueError("another format")
        year, month, day, hour, minute, second = map(int, match.groups()[:6])
        microsecond = int(match.group(7).ljust(6, "0"))
        # The Z is meant: a naive datetime would be taken for local time.
        time = datetime(year, month, day, hour, minute, second, microsecond, timezone.utc)
    except ValueError:
        return Skipped(SkipReason.TIMESTAMP, f"{key}: not a UTC time in the header: {_shown(text)}")
    return CommitRecord(key.topic, key.partition, key.group, offset, time.timestamp())


def _skipped_offset(key: CommitKey, offset: object, value: bytes) -> Skipped:
    if type(offset) is int and offset in LOGICAL_OFFSETS:
        return Skipped(SkipReason.LOGICAL_OFFSET, f"{key}: {offset} is no position")
    return Skipped(SkipReason.OFFSET, f"{key}: no offset from 0 to 2**63 - 1 in {_shown(value)}")


def _seconds(time: object) -> float | None:
    """The time as a float, or ``None`` if it isn't a finite number (a boolean isn't one)."""
    if type(time) is float:
        return time if math.isfinite(time) else None
    if type(time) is int:
        try:
            return float(time)
        except OverflowError:
            return None
    return None


def _shown(data: bytes) -> str:
    """The start of it, as a bytes literal: safe to log whatever it is."""
    return repr(data) if len(data) <= _SHOWN_BYTES else f"{data[:_SHOWN_BYTES]!r}... ({len(data)} bytes)"
