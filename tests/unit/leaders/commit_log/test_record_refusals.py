"""What is wrong with a commit-log record, in words: those of a skipped one and those of one that isn't written."""

from __future__ import annotations

from typing import Any

import pytest

from arroyo_sync.core.errors import MalformedRecord
from arroyo_sync.leaders.commit_log.record import CommitRecord, Skipped, SkipReason, decode, decode_key, encode

KEY = b"events:3:snuba-consumers"
WHOSE = "events[3] of group 'snuba-consumers'"
NO_OFFSET = "no offset from 0 to 2**63 - 1"


@pytest.mark.parametrize(
    ("key", "value", "headers", "detail"),
    [
        pytest.param(None, b"42", None, "no key", id="no key"),
        pytest.param(b"events:3", b"42", None, "not topic:partition:group: b'events:3'", id="no group"),
        pytest.param(b":3:g", b"42", None, "not topic:partition:group: b':3:g'", id="an empty topic"),
        pytest.param(b"events:3:", b"42", None, "not topic:partition:group: b'events:3:'", id="an empty group"),
        pytest.param(b"events::g", b"42", None, "no partition index in b'events::g'", id="an empty partition"),
        pytest.param(b"a b:x:g:c", b"42", None, "no topic's name in b'a b:x:g:c'", id="a blank in the topic"),
        pytest.param(b"events:x:g:", b"42", None, "no partition index in b'events:x:g:'", id="a colon in the group"),
        pytest.param(b"events:x:g", b"42", None, "no partition index in b'events:x:g'", id="no partition"),
        pytest.param(b"events:07:g", b"42", None, "no partition index in b'events:07:g'", id="leading zero"),
        pytest.param(b"a\n:0:g", b"42", None, r"no topic's name in b'a\n:0:g'", id="line feed in the topic"),
        pytest.param(b"events:3:\xff", b"42", None, r"not UTF-8: b'events:3:\xff'", id="key isn't UTF-8"),
        pytest.param(KEY, b"{", None, f"{WHOSE}: JSONDecodeError in b'{{'", id="no JSON"),
        pytest.param(KEY, b"\xff", None, rf"{WHOSE}: UnicodeDecodeError in b'\xff'", id="value isn't UTF-8"),
        pytest.param(KEY, b"[4]", None, f"{WHOSE}: not a JSON object: b'[4]'", id="a list"),
        pytest.param(
            KEY, b'{"offset": -3}', None, f"{WHOSE}: {NO_OFFSET} in b'{{\"offset\": -3}}'", id="negative offset"
        ),
        pytest.param(KEY, b"-3", None, f"{WHOSE}: {NO_OFFSET} in b'-3'", id="legacy, negative offset"),
        pytest.param(KEY, b'{"offset": -1001}', None, f"{WHOSE}: -1001 is no position", id="logical offset"),
        pytest.param(KEY, b"-1", None, f"{WHOSE}: -1 is no position", id="legacy, logical offset"),
        pytest.param(
            KEY,
            b'{"offset": 1, "received_p99": ""}',
            None,
            f'{WHOSE}: received_p99 is not a finite number in b\'{{"offset": 1, "received_p99": ""}}\'',
            id="no time",
        ),
        pytest.param(
            KEY,
            b"1",
            [("orig_message_ts", b"noon")],
            f"{WHOSE}: not a UTC time in the header: b'noon'",
            id="header isn't a time",
        ),
    ],
)
def test_what_is_skipped_is_named_and_shown(
    key: bytes | None, value: bytes, headers: list[tuple[str, bytes | None]] | None, detail: str
) -> None:
    """Whoever reads the log line knows whose record it was and what is wrong with it, without fetching it."""
    skipped = decode(key, value, headers)
    assert isinstance(skipped, Skipped)
    assert skipped.detail == detail


@pytest.mark.parametrize(
    ("length", "shown"),
    [(80, repr(b"x" * 80)), (81, f"{b'x' * 80!r}... (81 bytes)")],
    ids=["80 bytes", "81 bytes"],
)
def test_a_long_key_is_shown_by_its_first_80_bytes_and_its_length(length: int, shown: str) -> None:
    """A shorter one is shown whole."""
    with pytest.raises(MalformedRecord) as raised:
        decode_key(b"x" * length)
    assert raised.value.detail == f"not topic:partition:group: {shown}"


def test_a_record_with_a_logical_offset_is_not_malformed() -> None:
    """It is well-formed and tells nothing; of every other that is skipped an operator should hear."""
    assert [reason for reason in SkipReason if not reason.is_malformed] == [SkipReason.LOGICAL_OFFSET]


INDEX = "not a partition's index: "
OFFSET = "t[0] of group 'g': an offset is an integer from 0 to 2**63 - 1, not "
TIME = "t[0] of group 'g': not a finite time in seconds: "


@pytest.mark.parametrize(
    ("change", "reason", "said"),
    [
        pytest.param(
            {"topic": "a:b"},
            SkipReason.KEY,
            "the topic's name 'a:b' holds ':', which separates the parts of a record's key, topic:partition:group",
            id="colon in the topic",
        ),
        pytest.param(
            {"topic": "ü"},
            SkipReason.KEY,
            "the topic's name 'ü' isn't 1 to 249 letters of ASCII, digits, '.', '_' and '-'",
            id="topic that isn't ASCII",
        ),
        pytest.param({"topic": ""}, SkipReason.KEY, "the topic's name is empty", id="empty topic"),
        pytest.param({"group": ""}, SkipReason.KEY, "the group's name is empty", id="empty group"),
        pytest.param(
            {"group": "\ud800"},
            SkipReason.KEY,
            r"CommitKey(topic='t', partition=0, group='\ud800') can't be written in UTF-8",
            id="group that isn't text",
        ),
        pytest.param({"partition": -1}, SkipReason.KEY, f"{INDEX}-1", id="negative partition"),
        pytest.param({"partition": True}, SkipReason.KEY, f"{INDEX}True", id="boolean partition"),
        pytest.param({"partition": 2**31}, SkipReason.KEY, f"{INDEX}2147483648", id="partition of 2**31"),
        pytest.param({"offset": -1}, SkipReason.OFFSET, f"{OFFSET}-1", id="negative offset"),
        pytest.param({"offset": 2**63}, SkipReason.OFFSET, f"{OFFSET}9223372036854775808", id="offset 2**63"),
        pytest.param({"offset": True}, SkipReason.OFFSET, f"{OFFSET}True", id="boolean offset"),
        pytest.param({"offset": 1.0}, SkipReason.OFFSET, f"{OFFSET}1.0", id="float offset"),
        pytest.param(
            {"orig_message_ts": None},
            SkipReason.TIMESTAMP,
            "t[0] of group 'g': orig_message_ts is missing, Arroyo requires it",
            id="no time",
        ),
        pytest.param({"orig_message_ts": float("nan")}, SkipReason.TIMESTAMP, f"{TIME}nan", id="NaN"),
        pytest.param({"received_p99": float("inf")}, SkipReason.TIMESTAMP, f"{TIME}inf", id="infinite"),
    ],
)
def test_what_no_reader_could_take_is_refused_by_encode(change: dict[str, Any], reason: SkipReason, said: str) -> None:
    """The mistake shows where it is made, in words that name the record, and not on every follower."""
    fields: dict[str, Any] = {
        "topic": "t",
        "partition": 0,
        "group": "g",
        "offset": 1,
        "orig_message_ts": 1.0,
        "received_p99": None,
    }
    with pytest.raises(MalformedRecord) as raised:
        encode(CommitRecord(**{**fields, **change}))
    assert (raised.value.reason, raised.value.detail) == (reason.value, said)
