"""Commit records as leaders write them: today's JSON, and the legacy form, which is all that the peer can read."""

from __future__ import annotations

import json
import time
from typing import Literal

Format = Literal["json", "legacy"]

_LEGACY_HEADERS: list[tuple[str, str | bytes | None]] = [("orig_message_ts", b"2026-01-01T00:00:00.000000Z")]


def encode(record_format: Format, topic: str, partition: int, group: str, offset: int) -> tuple[bytes, bytes]:
    """The key and value of one record: ``group`` has committed ``offset`` (the next one to read)."""
    key = f"{topic}:{partition}:{group}".encode()
    if record_format == "legacy":
        return key, str(offset).encode()
    return key, json.dumps({"offset": offset, "orig_message_ts": time.time(), "received_p99": None}).encode()


def headers(record_format: Format) -> list[tuple[str, str | bytes | None]]:
    """The record's headers: the legacy form keeps the message's timestamp there."""
    return _LEGACY_HEADERS if record_format == "legacy" else []
