"""What a batch of commit-log records says in the end, and what is counted."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
from confluent_kafka import (
    TIMESTAMP_CREATE_TIME,
    TIMESTAMP_LOG_APPEND_TIME,
    TIMESTAMP_NOT_AVAILABLE,
    KafkaError,
    Message,
)

from arroyo_sync.core.errors import MalformedRecord
from arroyo_sync.leaders.commit_log import batch_decoder as batch
from arroyo_sync.leaders.commit_log.batch_decoder import BatchDecoder
from arroyo_sync.leaders.commit_log.record import Skipped, Tombstone, decode, decode_key, decode_unusual
from arroyo_sync.leaders.commit_report import CommitReport
from tests.support.fakes import Clock

GROUPS = ("g", "a:b")


def record(
    offset: int, key: bytes | None, value: bytes | None, timestamp: tuple[int, int] = (TIMESTAMP_CREATE_TIME, 1234)
) -> Message:
    return Message("log", 3, offset, key, value, None, None, timestamp)


def decoder(*groups: str) -> BatchDecoder:
    return BatchDecoder("log", groups or GROUPS, Clock())


def test_the_last_record_of_each_key_counts() -> None:
    """With its place, its timestamp and the time of the message that it covers."""
    decoded = decoder().decode(
        [
            record(10, b"events:0:g", b"5"),
            record(11, b"events:1:g", b"7"),
            record(12, b"events:0:g", b'{"offset": 6, "orig_message_ts": 1.5}'),
        ]
    )
    said = {each.key: each for each in decoded.reports}
    assert said[("events", 0)] == CommitReport(("events", 0), "g", 6, 1234, 3, 12, 1.5)
    assert said[("events", 1)] == CommitReport(("events", 1), "g", 7, 1234, 3, 11)
    assert (decoded.next_offset, decoded.events) == (13, [])


def test_the_last_readable_record_counts_if_the_last_one_is_not() -> None:
    """Each unreadable one that is passed over is counted."""
    made = decoder()
    decoded = made.decode(
        [
            record(1, b"events:0:g", b"5"),
            record(2, b"events:0:g", b"{"),
            record(3, b"events:0:g", b"-1001"),
            record(4, b"events:0:g", b"\xff"),
            record(5, b"events:1:g", b"{"),
        ]
    )
    assert [(each.key, each.offset) for each in decoded.reports] == [(("events", 0), 5)]
    assert (dict(made.malformed), made.logical) == ({"value": 3}, 1)


def test_a_tombstone_is_a_last_word_too() -> None:
    """It isn't passed over for an older offset."""
    made = decoder()
    decoded = made.decode([record(1, b"events:0:g", b"5"), record(2, b"events:0:g", None)])
    assert [each.offset for each in decoded.reports] == [None]
    assert made.tombstones == 1


def test_other_groups_are_skipped_before_their_records_are_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A group whose name ends like a followed one's is another one."""

    def fail(*_: object) -> None:
        raise AssertionError("a record of another group was parsed")

    monkeypatch.setattr(batch, "decode_unusual", fail)
    made = decoder("b")
    keys = [b"events:0:other", b"events:0:a:b", b"events:0:b:c", b"x:y:z"]
    assert made.decode([record(index, key, b"not JSON") for index, key in enumerate(keys * 2)]).reports == []
    assert (made.other_groups, made.read, dict(made.malformed)) == (8, 8, {})


def test_every_record_with_a_strange_key_is_counted() -> None:
    """Also many of one key, and those without one."""
    made = decoder()
    keys = [None, b"", b"events", b"events:0", b":0:g", b"events:x:g", b"\xff:0:g"]
    made.decode([record(index, key, b"5") for index, key in enumerate(keys * 3)])
    assert dict(made.malformed) == {"key": 21}
    assert made.read == 21


def test_events_are_no_records() -> None:
    """They come back as they are, and count for nothing."""
    made = decoder()
    event = Message("log", 3, 99, None, b"end", None, KafkaError(KafkaError._PARTITION_EOF), (0, -1))
    decoded = made.decode([record(1, b"events:0:g", b"5"), event, record(2, None, b"5"), event])
    assert (decoded.next_offset, decoded.events, made.read) == (3, [event, event], 2)
    decoded = made.decode([event])
    assert (decoded.reports, decoded.next_offset) == ([], None)


def test_a_record_without_a_timestamp_is_older_than_all() -> None:
    """And doesn't count as the newest."""
    made = decoder()
    (report,) = made.decode([record(1, b"e:0:g", b"5", (TIMESTAMP_NOT_AVAILABLE, 0))]).reports
    assert report.timestamp_ms == -1
    made.decode([record(2, b"e:0:g", b"5", (TIMESTAMP_CREATE_TIME, 50)), record(3, b"e:1:g", b"5")])
    assert made.newest_timestamp_ms == 1234


def test_a_record_says_the_same_however_its_value_is_written() -> None:
    """Arroyo's JSON, Snuba's without blanks, and any other JSON: with its offset, its place and its time."""
    values = [
        b'{"offset": 6, "orig_message_ts": 1.5, "received_p99": null}',
        b'{"offset": 6, "orig_message_ts": 1.5, "received_p99": 2}',
        b'{"offset":6,"orig_message_ts":1.5,"received_p99":2.25}',
        b'{"orig_message_ts": 15e-1, "received_p99": null, "offset": 6}',
    ]
    for value in values:
        (report,) = decoder().decode([record(12, b"events:0:g", value)]).reports
        assert report == CommitReport(("events", 0), "g", 6, 1234, 3, 12, 1.5)


@pytest.mark.parametrize(
    ("headers", "topic_id"),
    [
        pytest.param([("topic_id", b"Ozt3Tf9FRq2c5MwvPSbmGg")], "Ozt3Tf9FRq2c5MwvPSbmGg", id="ours"),
        pytest.param([("other", b"x"), ("topic_id", b"abc")], "abc", id="beside others"),
        pytest.param({"topic_id": b"abc"}, "abc", id="as a mapping"),
        pytest.param([("topic_id", "abc")], "abc", id="as a text"),
        pytest.param(None, None, id="none"),
        pytest.param([("topic_id", None)], None, id="null"),
        pytest.param([("topic_id", b"")], None, id="empty"),
        pytest.param([("topic_id", b"\xff")], None, id="not UTF-8"),
        pytest.param([("topic_id", b"a\nb")], None, id="not printable"),
        pytest.param([("topic_id", b"x" * 65)], None, id="too long"),
    ],
)
def test_a_header_says_which_topic_the_group_read(headers: Any, topic_id: str | None) -> None:
    """Whatever the value's form. One that can't be read is as good as none."""
    for value in (b'{"offset": 6, "orig_message_ts": 1.5, "received_p99": null}', b'{"offset": 6}', b"6", None):
        message = Message("log", 3, 1, b"events:0:g", value, headers, None, (TIMESTAMP_CREATE_TIME, 1))
        (report,) = decoder().decode([message]).reports
        assert report.topic_id == topic_id


def test_remembering_keys_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither what comes again nor what was forgotten, since only a few keys are remembered, is read otherwise."""
    monkeypatch.setattr(batch, "KNOWN_KEYS", 3)
    made = decoder()
    keys = [b"e:%d:%s" % (partition, group) for partition in range(5) for group in (b"g", b"a:b", b"x")]
    keys += [b"e:%d:x:g" % partition for partition in range(5)] + [b"x:y:g"] * 5
    messages = [record(index, key, b"5") for index, key in enumerate(keys)]
    expected = made.decode(messages)
    assert len(expected.reports) == 10
    for rounds in (2, 3):
        assert made.decode(messages) == expected
        assert (made.other_groups, dict(made.malformed)) == (10 * rounds, {"key": 5 * rounds})
        assert len(made._known) <= 3


def test_headers_whose_names_are_no_text_do_not_matter() -> None:
    """confluent-kafka raises when they are asked for."""

    class Strange(Message):
        def headers(self) -> Any:
            raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no text")

    message = Strange("log", 3, 1, b"e:0:g", b"5", None, None, (TIMESTAMP_CREATE_TIME, 1))
    (report,) = decoder().decode([message]).reports
    assert report.offset == 5


def test_a_reason_is_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """With where the record is and what it looks like, in short."""
    clock = Clock()
    made = BatchDecoder("log", GROUPS, clock)
    for index in range(5):
        made.decode([record(index, b"events:0:g", b"{" * 10_000), record(index, b"k", b"")])
    assert len(caplog.records) == 2
    line = caplog.records[0].getMessage()
    with pytest.raises(MalformedRecord) as raised:
        decode_key(b"k")
    assert caplog.messages[1].startswith(f"Skipped a record of log[3] at offset 0 (key): {raised.value.detail}. More")
    assert line.startswith("Skipped a record of log[3] at offset 0 (value): events[0] of group 'g'")
    assert line.endswith(". More of this kind are only counted for a minute")
    assert len(line) < 400
    clock.now += 60
    made.decode([record(9, b"events:0:g", b"{")])
    assert len(caplog.records) == 3


def test_a_batch_says_what_its_records_say_one_by_one() -> None:
    """Random batches of all kinds of records, against the decoder for single records."""
    source = random.Random(5)
    keys = [b"e:0:g", b"e:1:g", b"e:0:a:b", b"e:0:b", b"e:0:x", b"bad", None, b"\xff:0:g"]
    values = [b"1", b"2", b"3", b"{", b"-1", None, b'{"offset": 4}', b""]
    for _ in range(2_000):
        messages = [record(index, source.choice(keys), source.choice(values)) for index in range(source.randrange(12))]
        expected: dict[tuple[object, ...], int | None] = {}
        for message in messages:
            decoded = decode(message.key(), message.value(), None)
            if isinstance(decoded, Skipped):
                continue
            key = decoded.key if isinstance(decoded, Tombstone) else decoded
            if key.group in GROUPS:
                offset = None if isinstance(decoded, Tombstone) else decoded.offset
                expected[key.topic, key.partition, key.group] = offset
        reports = decoder().decode(messages).reports
        assert {(*each.key, each.group): each.offset for each in reports} == expected
        assert len(reports) == len(expected)


def test_a_batch_full_of_unreadable_records_takes_no_quadratic_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted in values looked at: each once, though every key's last records are unreadable."""
    looked_at = itertools.count()
    monkeypatch.setattr(batch, "decode_unusual", lambda *arguments: (next(looked_at), decode_unusual(*arguments))[1])
    messages = [record(index, b"e:%d:g" % (index % 100), b"{" if index > 100 else b"1") for index in range(2_000)]
    assert len(decoder().decode(messages).reports) == 100
    assert next(looked_at) <= 2_000


# What is kept.


def test_an_alias_of_a_key_is_refused_and_moves_nothing() -> None:
    """Were it read, the batch's last word would depend on which of the two keys came first."""
    made = decoder()
    decoded = made.decode([record(1, b"e:7:g", b"10"), record(2, b"e:007:g", b"1000"), record(3, b"e:7:g", b"500")])
    assert [(each.key, each.offset) for each in decoded.reports] == [(("e", 7), 500)]
    assert dict(made.malformed) == {"key": 1}


def test_reports_of_the_followed_topic_alone_are_kept() -> None:
    """Those of others are counted, all of them, and aren't parsed."""
    made = decoder()
    messages = [record(1, b"other:0:g", b"{"), record(2, b"events:0:g", b"5"), record(3, b"other:0:g", b"{")]
    assert len(decoder().decode(messages).reports) == 1
    made.follow("events")
    assert [each.key for each in made.decode(messages).reports] == [("events", 0)]
    assert (made.other_topics, dict(made.malformed), made.read) == (2, {}, 3)
    assert list(made._known) == [b"events:0:g"]


def test_a_key_that_was_known_is_looked_at_again_when_the_topic_becomes_known() -> None:
    """It may be of another one."""
    made = decoder()
    messages = [record(1, b"other:0:g", b"5")]
    assert len(made.decode(messages).reports) == 1
    made.follow("events")
    assert made.decode(messages).reports == []


@pytest.mark.parametrize("topic", ["events", None], ids=["the topic is known", "no topic is known"])
def test_so_many_partitions_are_kept_and_no_more(
    topic: str | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The others are counted, and named once a minute. Kept ones stay so."""
    monkeypatch.setattr(batch, "MAX_PARTITIONS", 3)
    monkeypatch.setattr(batch, "KNOWN_KEYS", 2)
    made = decoder()
    if topic is not None:
        made.follow(topic)
    messages = [record(partition, b"events:%d:g" % partition, b"5") for partition in range(10)]
    for rounds in (1, 2):
        assert [each.key[1] for each in made.decode(messages).reports] == [0, 1, 2]
        assert made.other_topics == rounds * 7
    (line,) = caplog.messages
    assert line == (
        "Commit log log: reports of group 'g' about more than 3 partitions are dropped, such as events[3]. Who writes "
        "them?"
    )
    assert made.is_incomplete is (topic is None)


def test_what_was_dropped_before_the_topic_was_known_may_have_been_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """So the log must be read again then, once."""
    monkeypatch.setattr(batch, "MAX_PARTITIONS", 3)
    made = decoder()
    made.decode([record(index, b"t%d:0:g" % index, b"5") for index in range(3)])
    assert not made.is_incomplete
    made.decode([record(3, b"events:0:g", b"5")])
    assert made.is_incomplete
    made.follow("events")
    assert not made.is_incomplete
    assert len(made.decode([record(3, b"events:0:g", b"5")]).reports) == 1


def test_a_timestamp_from_the_future_is_counted_logged_and_replaced(caplog: pytest.LogCaptureFixture) -> None:
    """By that of the record before it; it is the newest that was read neither."""
    made = BatchDecoder("log", GROUPS, Clock(), lambda: 2.0)
    future = (TIMESTAMP_CREATE_TIME, 10**15)
    messages = [record(1, b"e:0:g", b"5", (TIMESTAMP_CREATE_TIME, 1_000)), record(2, b"e:1:g", b"6", future)]
    assert [each.timestamp_ms for each in made.decode(messages).reports] == [1_000, 1_000]
    made.decode([record(3, b"e:1:g", b"7", future)])
    assert (made.from_the_future, made.newest_timestamp_ms) == (2, 1_000)
    (line,) = caplog.messages
    assert line == (
        f"Commit log log[3]: the record of e[1] of group 'g' at offset 2 has a timestamp from the future, {10**15} ms. "
        "It counts as old as the record before it. Is the clock of its writer right, and that of this machine?"
    )


@pytest.mark.parametrize(
    ("log_partitions", "kind", "lines"),
    [(1, TIMESTAMP_CREATE_TIME, 0), (2, TIMESTAMP_CREATE_TIME, 1), (2, TIMESTAMP_LOG_APPEND_TIME, 0)],
)
def test_writers_clocks_are_warned_about_once_where_they_decide(
    log_partitions: int, kind: int, lines: int, caplog: pytest.LogCaptureFixture
) -> None:
    """With one partition nothing is compared, and the broker's clock is one clock."""
    made = decoder()
    for offset in range(3):
        made.decode([record(offset, b"e:0:g", b"5", (kind, 1_000))])
        made.check_timestamps(log_partitions)
    assert len(caplog.messages) == lines
    assert set(caplog.messages) <= {
        "Commit log log has 2 partitions and message.timestamp.type=CreateTime: of a group's reports in two of them "
        "the later one counts, by the clocks of the leaders' machines. Set the topic's message.timestamp.type to "
        "LogAppendTime"
    }


@pytest.mark.parametrize("time", [b"0", b"0.5", b"1e11"])
def test_a_time_that_can_be_one_is_in_the_report(time: bytes) -> None:
    """From 1970 to the year 5138."""
    value = b'{"offset": 6, "orig_message_ts": %s, "received_p99": null}' % time
    (report,) = decoder().decode([record(12, b"events:0:g", value)]).reports
    assert report.orig_message_ts == float(time)


def test_the_very_first_record_of_a_log_has_its_place() -> None:
    """Offset 0 of partition 0."""
    message = Message("log", 0, 0, b"events:0:g", b"5", None, None, (TIMESTAMP_CREATE_TIME, 7))
    decoded = decoder().decode([message])
    assert decoded.reports == [CommitReport(("events", 0), "g", 5, 7, 0, 0)]
    assert decoded.next_offset == 1


def test_tombstones_and_logical_offsets_are_counted() -> None:
    """Each of them, over all batches."""
    made = decoder()
    for _ in range(2):
        made.decode(
            [record(1, b"events:0:g", None), record(2, b"events:1:g", None), record(3, b"events:2:g", b"-1001")]
        )
    assert (made.tombstones, made.logical, dict(made.malformed), made.read) == (4, 2, {}, 6)


def test_the_one_before_counts_if_the_last_of_two_can_not_be_read() -> None:
    """As of many."""
    decoded = decoder().decode([record(1, b"events:0:g", b"5"), record(2, b"events:0:g", b"{")])
    assert [(each.offset, each.log_offset) for each in decoded.reports] == [(5, 1)]


def test_a_record_of_the_legacy_form_has_its_time_in_a_header() -> None:
    """Arroyo's before 2022."""
    headers: Any = [("orig_message_ts", b"2023-11-14T22:13:20.250000Z")]
    message = Message("log", 3, 1, b"events:0:g", b"5", headers, None, (TIMESTAMP_CREATE_TIME, 1))
    (report,) = decoder().decode([message]).reports
    assert (report.offset, report.orig_message_ts) == (5, 1700000000.25)


def test_a_topic_that_is_no_commit_log_is_named(caplog: pytest.LogCaptureFixture) -> None:
    """So whoever gave the wrong name finds it."""
    decoder().decode([record(index, b"a user's key", b"") for index in range(1_000)])
    assert any(line.startswith("Topic log is no commit log") for line in caplog.messages)


@pytest.mark.parametrize("time", [b"1e308", b"-1.5", b"1e12"])
def test_a_time_that_cannot_be_one_is_left_out_of_the_report(time: bytes) -> None:
    """The offset counts all the same: the time is for metrics alone, which can't take it."""
    value = b'{"offset": 6, "orig_message_ts": %s, "received_p99": null}' % time
    (report,) = decoder().decode([record(12, b"events:0:g", value)]).reports
    assert (report.offset, report.orig_message_ts) == (6, None)


def test_it_notes_who_publishes() -> None:
    """Whether it is followed or not."""
    made = decoder()
    made.decode([record(1, b"events:0:g", b"5"), record(2, b"events:0:other", b"5"), record(3, b"x", b"5")])
    assert set(made.contents.groups) == {"g", "other"}


def test_a_partition_that_is_read_again_has_no_timestamp_before_its_first() -> None:
    """Another partition's last one stays known."""
    made = BatchDecoder("log", GROUPS, Clock(), lambda: 2.0)
    past, future = (TIMESTAMP_CREATE_TIME, 1_000), (TIMESTAMP_CREATE_TIME, 10**15)
    for forgotten, expected in ((4, 1_000), (3, -1)):
        made.decode([record(1, b"e:0:g", b"5", past)])
        made.forget(forgotten)
        assert [each.timestamp_ms for each in made.decode([record(2, b"e:0:g", b"6", future)]).reports] == [expected]


@pytest.mark.parametrize(
    ("key", "value", "size"), [(b"abc", b"de", 5), (None, b"de", 2), (b"abc", None, 3), (None, None, 0)]
)
def test_the_size_of_a_record_is_that_of_its_key_and_value(key: bytes | None, value: bytes | None, size: int) -> None:
    """Either may be missing."""
    assert batch.bytes_of(record(1, key, value)) == size
