"""An independent decoder of commit-log records: slow, obvious, and written from the format's description alone."""

from __future__ import annotations

import calendar
import json
from collections.abc import Iterable
from typing import Any

DIGITS = "0123456789"
TOPIC_CHARACTERS = DIGITS + "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ._-"

Accepted = tuple[str, int, str, int | None, float | None, float | None]
"""Topic, partition, group, offset (``None``: a tombstone), orig_message_ts, received_p99."""


class Refused(Exception):
    pass


def slow_decode(
    key: bytes | None, value: bytes | None, headers: Iterable[tuple[str, bytes | None]] | None
) -> Accepted | None:
    """What the record says, ``None`` if it is to be skipped."""
    try:
        topic, partition, group = _key(key)
        if value is None:
            return topic, partition, group, None, None, None
        offset, orig_message_ts, received_p99 = _value(value, list(headers or []))
        if not 0 <= offset < 2**63:
            return None
        return topic, partition, group, offset, orig_message_ts, received_p99
    except Refused:
        return None


def _key(key: bytes | None) -> tuple[str, int, str]:
    if key is None:
        raise Refused
    parts = _text(key).split(":", 2)
    if len(parts) != 3 or "" in parts:
        raise Refused
    topic, partition, group = parts
    if len(topic) > 249 or any(character not in TOPIC_CHARACTERS for character in topic):
        raise Refused
    if partition != "0" and partition.startswith("0"):
        raise Refused
    if any(character not in DIGITS for character in partition) or len(partition) > 10 or int(partition) >= 2**31:
        raise Refused
    return topic, int(partition), group


def _value(value: bytes, headers: list[tuple[str, bytes | None]]) -> tuple[int, float | None, float | None]:
    text = _text(value)
    unsigned = text[1:] if text[:1] == "-" else text
    if 1 <= len(unsigned) <= 19 and all(character in DIGITS for character in unsigned):
        return int(text), _header_time(headers), None
    fields = _object(text)
    offset = fields.get("offset")
    if not isinstance(offset, int) or isinstance(offset, bool):
        raise Refused
    return offset, _time(fields.get("orig_message_ts")), _time(fields.get("received_p99"))


def _object(text: str) -> dict[str, Any]:
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        raise Refused from None
    if not isinstance(fields, dict):
        raise Refused
    return fields


def _time(time: object) -> float | None:
    if time is None:
        return None
    if isinstance(time, bool) or not isinstance(time, (int, float)):
        raise Refused
    try:
        seconds = float(time)
    except OverflowError:
        raise Refused from None
    if not float("-inf") < seconds < float("inf"):  # NaN compares as false
        raise Refused
    return seconds


def _header_time(headers: list[tuple[str, bytes | None]]) -> float | None:
    given = [value for name, value in headers if name == "orig_message_ts"]
    if not given or given[-1] is None:
        return None
    text = _text(given[-1])
    # 2026-01-31T23:59:59.000001Z, with one to six digits of fraction
    shape = "".join("0" if character in DIGITS else character for character in text)
    if not (shape[:20] == "0000-00-00T00:00:00." and shape[-1] == "Z" and 1 <= len(shape) - 21 <= 6):
        raise Refused
    if set(shape[20:-1]) != {"0"}:
        raise Refused
    year, month, day = int(text[0:4]), int(text[5:7]), int(text[8:10])
    hour, minute, second = int(text[11:13]), int(text[14:16]), int(text[17:19])
    if not (year >= 1 and 1 <= month <= 12 and 1 <= day <= calendar.monthrange(year, month)[1]):
        raise Refused
    if hour > 23 or minute > 59 or second > 59:
        raise Refused
    microseconds = int(text[20:-1].ljust(6, "0"))
    whole_seconds = calendar.timegm((year, month, day, hour, minute, second))
    # One rounding, as when a datetime is converted.
    return (whole_seconds * 10**6 + microseconds) / 10**6


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise Refused from None
