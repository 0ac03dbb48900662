"""The record format: every form that was ever written, and everything else that a topic may hold."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import FrozenInstanceError, fields

import pytest
from arroyo.backends.kafka import KafkaPayload
from arroyo.backends.kafka.commit import CommitCodec
from arroyo.commit import Commit
from arroyo.types import Partition, Topic

from arroyo_sync.leaders.commit_log.record import (
    CommitKey,
    CommitRecord,
    Skipped,
    SkipReason,
    Tombstone,
    decode,
    decode_key,
    decode_usual,
    encode,
)
from tests.support.slow_decoder import Accepted, slow_decode

FUZZ_RECORDS = int(os.environ.get("ARROYO_SYNC_TEST_FUZZ_RECORDS", "50000"))

KEY = b"events:3:snuba-consumers"
VALUE = b'{"offset": 42, "orig_message_ts": 1700000000.25, "received_p99": null}'
RECORD = CommitRecord("events", 3, "snuba-consumers", 42, 1700000000.25, None)

Headers = list[tuple[str, bytes | None]]


@pytest.mark.parametrize(
    ("key", "value", "headers", "record"),
    [
        pytest.param(KEY, VALUE, None, RECORD, id="Arroyo's JSON"),
        pytest.param(
            KEY,
            b'{"offset":42,"orig_message_ts":1700000000.25,"received_p99":1700000001.5}',
            [],
            CommitRecord("events", 3, "snuba-consumers", 42, 1700000000.25, 1700000001.5),
            id="Snuba's JSON, compact and with received_p99",
        ),
        pytest.param(KEY, b'{"offset": 42}', None, CommitRecord("events", 3, "snuba-consumers", 42), id="no times"),
        pytest.param(
            KEY,
            b'{"offset": 42, "orig_message_ts": 1700000000, "received_p99": 0}',
            None,
            CommitRecord("events", 3, "snuba-consumers", 42, 1700000000.0, 0.0),
            id="times without a fraction",
        ),
        pytest.param(
            KEY, b'{"offset": 0}', None, CommitRecord("events", 3, "snuba-consumers", 0), id="the first offset"
        ),
        pytest.param(
            KEY,
            b'{"received_p99": -5, "offset": 42, "orig_message_ts": 1700000000}',
            None,
            CommitRecord("events", 3, "snuba-consumers", 42, 1700000000.0, -5.0),
            id="whole seconds, in another order",
        ),
        pytest.param(
            KEY,
            b'{"new": {"a": [1, null]}, "offset": 42, "orig_message_ts": 1700000000.25, "x": NaN}',
            None,
            RECORD,
            id="unknown fields are ignored",
        ),
        pytest.param(
            KEY,
            b"42",
            [("orig_message_ts", b"2023-11-14T22:13:20.250000Z")],
            RECORD,
            id="legacy",
        ),
        pytest.param(KEY, b"42", None, CommitRecord("events", 3, "snuba-consumers", 42), id="legacy without header"),
        pytest.param(
            KEY,
            b"42",
            [("other", b"\xff")],
            CommitRecord("events", 3, "snuba-consumers", 42),
            id="legacy, other header",
        ),
        pytest.param(
            KEY,
            b"42",
            [("orig_message_ts", None)],
            CommitRecord("events", 3, "snuba-consumers", 42),
            id="legacy, header without a value",
        ),
        pytest.param(
            b"events:3:a:b::c",
            VALUE,
            None,
            CommitRecord("events", 3, "a:b::c", 42, 1700000000.25),
            id="colons in group",
        ),
        pytest.param(
            "events:0:группа".encode(),
            b"0",
            None,
            CommitRecord("events", 0, "группа", 0),
            id="a group that isn't ASCII",
        ),
        pytest.param(
            b"e:2147483647:g",
            b"9223372036854775807",
            None,
            CommitRecord("e", 2**31 - 1, "g", 2**63 - 1),
            id="the greatest numbers",
        ),
        pytest.param(
            KEY,
            b'{"offset": 42, "orig_message_ts": 1700000000.25, "padding": "' + b"x" * 2**20 + b'"}',
            None,
            RECORD,
            id="a megabyte",
        ),
    ],
)
def test_every_form_that_was_ever_written_is_read(
    key: bytes, value: bytes, headers: Headers | None, record: CommitRecord
) -> None:
    """Literal records of all forms, with what they say."""
    assert decode(key, value, headers) == record


@pytest.mark.parametrize(
    ("key", "value", "headers", "reason"),
    [
        pytest.param(None, VALUE, None, SkipReason.KEY, id="no key"),
        pytest.param(b"", VALUE, None, SkipReason.KEY, id="empty key"),
        pytest.param(b"events", VALUE, None, SkipReason.KEY, id="key without colons"),
        pytest.param(b"events:3", VALUE, None, SkipReason.KEY, id="key without group"),
        pytest.param(b"events:3:", VALUE, None, SkipReason.KEY, id="empty group"),
        pytest.param(b":3:g", VALUE, None, SkipReason.KEY, id="empty topic"),
        pytest.param(b"events::g", VALUE, None, SkipReason.KEY, id="empty partition"),
        pytest.param(b"events:-1:g", VALUE, None, SkipReason.KEY, id="negative partition"),
        pytest.param(b"events:2147483648:g", VALUE, None, SkipReason.KEY, id="partition of 2**31"),
        pytest.param(b"events:00000000003:g", VALUE, None, SkipReason.KEY, id="partition of eleven digits"),
        pytest.param(b"events:" + b"1" * 5000 + b":g", VALUE, None, SkipReason.KEY, id="endless partition"),
        pytest.param("events:٣:g".encode(), VALUE, None, SkipReason.KEY, id="partition in Arabic digits"),
        pytest.param(b"events:3:\xff", VALUE, None, SkipReason.KEY, id="group isn't UTF-8"),
        pytest.param(b"\xff:3:g", VALUE, None, SkipReason.KEY, id="topic isn't UTF-8"),
        pytest.param("события:0:g".encode(), VALUE, None, SkipReason.KEY, id="topic isn't ASCII"),
        pytest.param(b"a b:0:g", VALUE, None, SkipReason.KEY, id="blank in the topic"),
        pytest.param(b"a\n:0:g", VALUE, None, SkipReason.KEY, id="line feed in the topic"),
        pytest.param(b"e" * 250 + b":0:g", VALUE, None, SkipReason.KEY, id="topic of 250 characters"),
        pytest.param(b"events:007:g", VALUE, None, SkipReason.KEY, id="leading zeros"),
        pytest.param(b"events:00:g", VALUE, None, SkipReason.KEY, id="two zeros"),
        pytest.param(b"events:+7:g", VALUE, None, SkipReason.KEY, id="plus sign"),
        pytest.param(b"events:7_0:g", VALUE, None, SkipReason.KEY, id="underscore in the partition"),
        pytest.param(b"events: 7:g", VALUE, None, SkipReason.KEY, id="blank before the partition"),
        pytest.param(b"events:7\n:g", VALUE, None, SkipReason.KEY, id="line feed after the partition"),
        pytest.param(b"x" * 2**20, VALUE, None, SkipReason.KEY, id="a megabyte of key"),
        pytest.param(KEY, b"", None, SkipReason.VALUE, id="empty value"),
        pytest.param(KEY, b"\xff\xfe{", None, SkipReason.VALUE, id="value isn't UTF-8"),
        pytest.param(KEY, b"{", None, SkipReason.VALUE, id="half an object"),
        pytest.param(KEY, b"null", None, SkipReason.VALUE, id="JSON null"),
        pytest.param(KEY, b"[42]", None, SkipReason.VALUE, id="a list"),
        pytest.param(KEY, b'"42"', None, SkipReason.VALUE, id="a string"),
        pytest.param(KEY, b"true", None, SkipReason.VALUE, id="a boolean"),
        pytest.param(KEY, b"4.5", None, SkipReason.VALUE, id="a number that isn't digits"),
        pytest.param(KEY, b"[" * 2**20, None, SkipReason.VALUE, id="a megabyte of nesting"),
        pytest.param(KEY, '{"offset": 42}'.encode("utf-16"), None, SkipReason.VALUE, id="UTF-16"),
        pytest.param(KEY, "٤٢".encode(), None, SkipReason.VALUE, id="Arabic digits"),
        pytest.param(KEY, b"{}", None, SkipReason.OFFSET, id="no offset"),
        pytest.param(KEY, b'{"offset": null}', None, SkipReason.OFFSET, id="offset null"),
        pytest.param(KEY, b'{"offset": "42"}', None, SkipReason.OFFSET, id="offset in a string"),
        pytest.param(KEY, b'{"offset": 42.0}', None, SkipReason.OFFSET, id="offset a float"),
        pytest.param(KEY, b'{"offset": true}', None, SkipReason.OFFSET, id="offset a boolean"),
        pytest.param(KEY, b'{"offset": NaN}', None, SkipReason.OFFSET, id="offset NaN"),
        pytest.param(KEY, b'{"offset": -3}', None, SkipReason.OFFSET, id="offset negative"),
        pytest.param(KEY, b'{"offset": 9223372036854775808}', None, SkipReason.OFFSET, id="offset 2**63"),
        pytest.param(KEY, b'{"offset": [42]}', None, SkipReason.OFFSET, id="offset a list"),
        pytest.param(KEY, b"9223372036854775808", None, SkipReason.OFFSET, id="legacy 2**63"),
        pytest.param(KEY, b"-3", None, SkipReason.OFFSET, id="legacy negative"),
        pytest.param(KEY, b'{"offset": ' + b"9" * 5000 + b"}", None, SkipReason.VALUE, id="endless offset"),
        pytest.param(KEY, b'{"offset": 1, "orig_message_ts": "x"}', None, SkipReason.TIMESTAMP, id="time a string"),
        pytest.param(KEY, b'{"offset": 1, "orig_message_ts": true}', None, SkipReason.TIMESTAMP, id="time a boolean"),
        pytest.param(KEY, b'{"offset": 1, "orig_message_ts": NaN}', None, SkipReason.TIMESTAMP, id="time NaN"),
        pytest.param(KEY, b'{"offset": 1, "received_p99": 1e999}', None, SkipReason.TIMESTAMP, id="time infinite"),
        pytest.param(
            KEY, b'{"offset": 1, "received_p99": 1' + b"0" * 400 + b"}", None, SkipReason.TIMESTAMP, id="time too great"
        ),
        pytest.param(KEY, b"1", [("orig_message_ts", b"yesterday")], SkipReason.TIMESTAMP, id="header isn't a time"),
        pytest.param(
            KEY, b"1", [("orig_message_ts", b"2023-02-30T00:00:00.0Z")], SkipReason.TIMESTAMP, id="header no such day"
        ),
        pytest.param(KEY, b"1", [("orig_message_ts", b"\xff")], SkipReason.TIMESTAMP, id="header isn't UTF-8"),
        *[
            pytest.param(KEY, value % offset, None, SkipReason.LOGICAL_OFFSET, id=f"logical {offset} {form}")
            for offset in (-1, -2, -1000, -1001)
            for form, value in (("JSON", b'{"offset": %d, "orig_message_ts": 1.0}'), ("legacy", b"%d"))
        ],
    ],
)
def test_anything_else_is_skipped_with_a_reason(
    key: bytes | None, value: bytes, headers: Headers | None, reason: SkipReason
) -> None:
    """What tells nothing doesn't raise, and says why in short."""
    skipped = decode(key, value, headers)
    assert isinstance(skipped, Skipped)
    assert skipped.reason is reason
    assert len(skipped.detail) < 300, "a log line must stay a line"


def test_what_is_decoded_are_values() -> None:
    """Equal ones hash alike, so that they can be keys, and nobody changes them under one that holds them."""
    for value in (b"42", b"?", None):
        first, second = (decode(KEY, value, None) for _ in range(2))
        assert len({first, second}) == 1
        for field in fields(first):
            with pytest.raises(FrozenInstanceError):
                setattr(first, field.name, None)


def test_a_tombstone_says_whose_offset_is_unknown_again() -> None:
    """Only a missing value is a tombstone: an empty one isn't."""
    assert decode(KEY, None, None) == Tombstone(CommitKey("events", 3, "snuba-consumers"))


def test_the_bytes_are_those_of_arroyos_own_codec() -> None:
    """Other readers can't tell our records from Arroyo's."""
    for offset, orig_message_ts, received_p99 in ((0, 0.0, None), (42, 1700000000.123456, 1.5), (2**62, 1e9, 0.1)):
        commit = Commit("snuba:consumers", Partition(Topic("events"), 7), offset, orig_message_ts, received_p99)
        payload = CommitCodec().encode(commit)
        record = CommitRecord("events", 7, "snuba:consumers", offset, orig_message_ts, received_p99)
        assert encode(record) == (payload.key, payload.value)


def test_arroyos_own_codec_reads_what_we_write_and_we_read_what_it_writes() -> None:
    """A round trip both ways, with groups that Arroyo's codec can read."""
    commit = Commit("group", Partition(Topic("events"), 7), 42, 1700000000.5, 1700000001.5)
    record = CommitRecord("events", 7, "group", 42, 1700000000.5, 1700000001.5)
    key, value = encode(record)
    assert CommitCodec().decode(KafkaPayload(key, value, [])) == commit
    payload = CommitCodec().encode(commit)
    assert decode(payload.key, payload.value, None) == record


def test_decode_gives_back_what_was_encoded() -> None:
    """For records of all kinds, with colons and other alphabets in the group, and times in whole seconds."""
    source = random.Random(1)
    for _ in range(2_000):
        record = CommitRecord(
            source.choice(["events", "a.b_c-d", "e" * 249]),
            source.randrange(2**31),
            source.choice(["g", "a:b", "::", "группа"]),
            source.choice([0, 1, 2**53 + 1, 2**63 - 1, source.randrange(2**63)]),
            source.choice([0.0, 5, 1700000000.123456, source.random() * 2e9]),
            source.choice([None, 1700000000.5]),
        )
        assert decode(*encode(record), None) == record


@pytest.mark.parametrize("partition", [0, 2**31 - 1])
@pytest.mark.parametrize("offset", [0, 2**63 - 1])
def test_the_ends_of_both_ranges_are_written_and_read(partition: int, offset: int) -> None:
    """The least and the greatest index and offset that Kafka's protocol knows."""
    record = CommitRecord("events", partition, "g", offset, 0.0)
    assert decode(*encode(record), None) == record


def test_only_the_first_two_colons_of_a_key_separate() -> None:
    """A group's name may hold colons, and does in the field."""
    assert decode_key(b"events:3:a:b") == CommitKey("events", 3, "a:b")


@pytest.fixture(params=["UTC", "America/Los_Angeles", "Asia/Kathmandu"])
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The process's time zone."""
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("fraction", "seconds"),
    [(b"2", 0.2), (b"25", 0.25), (b"025", 0.025), (b"000001", 0.000001), (b"25000", 0.25), (b"250000", 0.25)],
)
def test_a_legacy_time_is_utc_wherever_it_is_read(zone: str, fraction: bytes, seconds: float) -> None:
    """Arroyo's codec takes it for local time; ours gives the same seconds in every time zone, with its fraction."""
    decoded = decode(b"e:0:g", b"1", [("orig_message_ts", b"2023-11-14T22:13:20.%sZ" % fraction)])
    assert decoded == CommitRecord("e", 0, "g", 1, 1700000000 + seconds), zone


@pytest.mark.parametrize("number", [b"007", b"00", b"-1", b"1000000000000000000", b"9223372036854775808", b"1.0", b""])
def test_only_what_surely_is_an_offset_is_read_the_fast_way(number: bytes) -> None:
    """All else is left to the JSON decoder, which reads it or refuses it as ever."""
    assert decode_usual(b'{"offset": %s, "orig_message_ts": 1.5, "received_p99": null}' % number) is None


@pytest.mark.parametrize("number", [b"01", b".5", b"1.", b"-1.5", b"1e5", b"NaN", b"null", b"1" * 400, b"true", b""])
def test_only_what_surely_is_a_time_is_read_the_fast_way(number: bytes) -> None:
    """A null, too, is left to the JSON decoder where Arroyo writes none."""
    assert decode_usual(b'{"offset": 1, "orig_message_ts": %s, "received_p99": null}' % number) is None


def test_what_arroyo_and_snuba_write_is_read_the_fast_way() -> None:
    """Snuba's consumer in Rust writes no blanks."""
    assert decode_usual(b'{"offset": 42, "orig_message_ts": 1700000000.25, "received_p99": 1}') == (
        42,
        1700000000.25,
        1,
    )
    assert decode_usual(b'{"offset":0,"orig_message_ts":1.5,"received_p99":null}') == (0, 1.5, None)
    assert decode_usual(b'{"offset": 1, "orig_message_ts": 1.5, "received_p99": null}\n') is None


def test_generated_records_are_read_as_by_the_slow_decoder() -> None:
    """Valid, mutated and random records: nothing raises, and what is accepted, and what it says, are the same.

    ``ARROYO_SYNC_TEST_FUZZ_RECORDS`` sets how many: see tests/README.md.
    """
    began = time.monotonic()
    outcomes: Counter[str] = Counter()
    for key, value, headers in generated_records(random.Random(20260101), FUZZ_RECORDS):
        decoded = decode(key, value, headers)
        expected = slow_decode(key, value, headers)
        assert accepted(decoded) == expected, (key, value, headers, decoded)
        outcomes[decoded.reason.value if isinstance(decoded, Skipped) else type(decoded).__name__] += 1
    print(f"{FUZZ_RECORDS} records in {time.monotonic() - began:.1f} s: {dict(outcomes)}")
    assert set(outcomes) == {"CommitRecord", "Tombstone", *(reason.value for reason in SkipReason)}, outcomes


def accepted(decoded: CommitRecord | Tombstone | Skipped) -> Accepted | None:
    """In the slow decoder's terms."""
    if isinstance(decoded, Skipped):
        return None
    if isinstance(decoded, Tombstone):
        return decoded.key.topic, decoded.key.partition, decoded.key.group, None, None, None
    return (
        decoded.topic,
        decoded.partition,
        decoded.group,
        decoded.offset,
        decoded.orig_message_ts,
        decoded.received_p99,
    )


_ODD_KEYS = [b"events:007:g", b"events:00:g", "événements:0:g".encode(), b"e" * 250 + b":0:g", b"events:2147483648:g"]
_KEYS = [b"%s:%d:%s" % (topic, n, group) for topic in (b"events", b"t") for n in range(8) for group in (b"g", b"a:b")]
_NUMBERS = [b"0", b"-1", b"-2", b"-1000", b"-7", b"9223372036854775807", b"9223372036854775808", b"1.0", b"1e3"]
_ODD = [*_NUMBERS, b"NaN", b"-Infinity", b"1e999", b"null", b"true", b'"5"', b"[]", b"{}", b'"\\ud800"', b"007"]
_TIMES = [b"1700000000.5", b"1700000000", b"null", b"0", b"-1.5", b"1e308", b"1E5"]
_HEADER_TIMES = [b"2023-11-14T22:13:20.250000Z", b"2024-02-29T00:00:00.1Z", b"0001-01-01T00:00:00.000000Z"]


def generated_records(source: random.Random, count: int) -> Iterator[tuple[bytes | None, bytes | None, Headers | None]]:
    """Half of them valid, the rest mutated, odd or random."""
    choice, number, uniform = source.choice, source.getrandbits, source.random
    for _ in range(count):
        kind = uniform()
        key: bytes | None = choice(_KEYS)
        headers: Headers | None = None
        if kind < 0.25:
            offset, time_field = number(40), choice(_TIMES)
            value: bytes | None = b'{"offset": %d, "orig_message_ts": %s, "received_p99": null}' % (offset, time_field)
        elif kind < 0.45:
            value = b"%d" % number(34)
            headers = [("orig_message_ts", choice(_HEADER_TIMES))] if kind < 0.40 else None
        elif kind < 0.70:
            value = b'{"offset": %s, "orig_message_ts": %s, "received_p99": %s}' % (
                choice(_ODD) if kind < 0.6 else b"%d" % number(62),
                choice(_ODD if kind < 0.65 else _TIMES),
                choice(_TIMES),
            )
        elif kind < 0.72:
            value = None
        elif kind < 0.75:
            value = choice(_ODD)
        elif kind < 0.95:
            value = mutated(source, b'{"offset": %d, "orig_message_ts": 1700000000.5}' % number(30))
            if kind < 0.80:
                value, headers = b"1", [("orig_message_ts", mutated(source, choice(_HEADER_TIMES)))]
            if kind > 0.90:
                key = mutated(source, choice(_KEYS)) if kind < 0.94 else choice(_ODD_KEYS)
        else:
            key = source.randbytes(number(5)) or None
            value = source.randbytes(number(6))
        yield key, value, headers


def mutated(source: random.Random, data: bytes) -> bytes:
    """One to three bytes changed, taken out or put in."""
    changed = bytearray(data)
    for _ in range(1 + source.getrandbits(1) * 2):
        at = source.randrange(len(changed))
        how = source.getrandbits(2)
        if how == 0:
            changed[at] = source.getrandbits(8)
        elif how == 1:
            changed[at] = source.choice(b'0123456789:{}",-.e')
        elif how == 2:
            del changed[at]
        else:
            changed.insert(at, source.choice(b'0123456789:{}",-.e'))
    return bytes(changed)
