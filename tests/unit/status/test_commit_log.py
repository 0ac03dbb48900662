from __future__ import annotations

import pytest
from confluent_kafka import TIMESTAMP_CREATE_TIME, TIMESTAMP_NOT_AVAILABLE

from arroyo_sync.status.commit_log import (
    Filter,
    GroupOnLog,
    LogRecord,
    groups_of,
    last_of,
    record_line,
    record_of,
    reported_since,
)

VALUE = b'{"offset": 42, "orig_message_ts": 1700000000.5, "received_p99": null}'


class FakeMessage:
    """What is asked of confluent-kafka's message."""

    def __init__(
        self, key: bytes | None, value: bytes | None, headers: object = None, kind: int = TIMESTAMP_CREATE_TIME
    ) -> None:
        self.parts = key, value, headers, (kind, 1700000001000)

    def key(self) -> bytes | None:
        return self.parts[0]

    def value(self) -> bytes | None:
        return self.parts[1]

    def headers(self) -> object:
        return self.parts[2]

    def timestamp(self) -> tuple[int, int]:
        return self.parts[3]

    def partition(self) -> int:
        return 1

    def offset(self) -> int:
        return 7


@pytest.mark.parametrize(
    ("message", "line"),
    [
        pytest.param(
            FakeMessage(b"events:3:writers", VALUE),
            "2023-11-14 22:13:21.000  1@7  events[3]  writers  42  message of 2023-11-14 22:13:20.500",
            id="a report",
        ),
        pytest.param(
            FakeMessage(b"events:3:writers", b"42"),
            "2023-11-14 22:13:21.000  1@7  events[3]  writers  42",
            id="a legacy one",
        ),
        pytest.param(
            FakeMessage(b"events:3:writers", None),
            "2023-11-14 22:13:21.000  1@7  events[3]  writers  tombstone: its offset is unknown again",
            id="a tombstone",
        ),
        pytest.param(
            FakeMessage(b"nonsense", VALUE, kind=TIMESTAMP_NOT_AVAILABLE),
            "no time  1@7  refused, key: not topic:partition:group: b'nonsense'",
            id="a refused key",
        ),
        pytest.param(
            FakeMessage(b"events:3:writers", b'{"offset": -5}'),
            "2023-11-14 22:13:21.000  1@7  refused, offset: events[3] of group 'writers': no offset from 0 to 2**63 - 1"
            " in b'{\"offset\": -5}'",
            id="a refused offset",
        ),
        pytest.param(FakeMessage(None, None), "2023-11-14 22:13:21.000  1@7  refused, key: no key", id="nothing"),
    ],
)
def test_a_record_is_one_line(message: FakeMessage, line: str) -> None:
    """Also one that a follower refuses, with the reason."""
    assert record_line(record_of(message)) == line  # type: ignore[arg-type]


def test_the_topics_id_is_among_the_json() -> None:
    """It decides which topic a report counts for."""
    record = record_of(FakeMessage(b"events:3:writers", VALUE, [("topic_id", b"abc")]))  # type: ignore[arg-type]
    assert record.to_json()["topic_id"] == "abc"
    assert record.to_json()["refused"] is None


def report(group: str, partition: int, seconds: float, topic: str = "events") -> LogRecord:
    return LogRecord(0, 0, round(seconds * 1000), topic, partition, group, 42)


def test_groups_are_counted_by_topic_with_their_partitions_rate_and_newest_report() -> None:
    """What is refused counts for nobody."""
    records = [
        report("writers", 1, 100.0),
        report("writers", 0, 104.0),
        report("writers", 0, 102.0),
        report("others", 5, 1.0, "else"),
        LogRecord(0, 0, None, "events", 2, "timeless", 42),
        LogRecord(0, 0, 9, refused="key: no key"),
    ]
    assert groups_of(records) == [
        GroupOnLog("others", "else", (5,), 1, 1.0, None),
        GroupOnLog("timeless", "events", (2,), 1, None, None),
        GroupOnLog("writers", "events", (0, 1), 3, 104.0, 0.5),
    ]


def test_the_last_records_that_are_wanted_in_the_order_of_their_time() -> None:
    """By group, topic and partition."""
    records = [report("a", 0, 3.0), report("b", 0, 1.0), report("a", 1, 2.0), report("a", 0, 4.0, "else")]
    assert last_of(records, Filter(), 2) == [records[2], records[3]]
    assert last_of(records, Filter(groups=["a"]), None) == [records[2], records[0], records[3]]
    assert last_of(records, Filter(topic="events", partitions=[0]), None) == [records[1], records[0]]


def test_since_when_a_group_reports_the_same_offset() -> None:
    """Since the first record of it without another one between, whichever log partition they lie in."""
    rows = [(0, 1, 5, 10.0), (0, 2, 6, 20.0), (1, 1, 6, 30.0), (0, 3, 6, 40.0), (0, 9, 7, None)]
    records = [
        LogRecord(log_partition, log_offset, None if at is None else round(at * 1000), "events", 3, "writers", offset)
        for log_partition, log_offset, offset, at in rows
    ]
    others = [LogRecord(0, 4, 50_000, refused="key: no key"), LogRecord(0, 5, 60_000, "events", 3, "others", 1)]
    assert reported_since([*reversed(records), *others]) == {
        (("events", 3), "writers"): (6, 20.0),
        (("events", 3), "others"): (1, 60.0),
    }
    back = LogRecord(0, 6, 70_000, "events", 3, "writers", 5)
    assert reported_since([*records, back])[("events", 3), "writers"] == (5, 70.0)
