from __future__ import annotations

from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    OFFSET_INVALID,
    TIMESTAMP_CREATE_TIME,
    TIMESTAMP_NOT_AVAILABLE,
    KafkaError,
    KafkaException,
    TopicPartition,
)

from arroyo_sync.core.errors import BrokersUnreachable
from arroyo_sync.kafka.questions.asker import PartitionRange
from arroyo_sync.kafka.questions.time_lookups import FoundOffset
from arroyo_sync.status.answers.log_records import (
    Filter,
    GroupOnLog,
    LogRecord,
    groups_of,
    last_of,
    record_line,
    reported_since,
)
from arroyo_sync.status.commit_log import PARTITIONS_SECONDS, POLL_SECONDS, LogScan, record_of

NOW = 1700000100.0

VALUE = b'{"offset": 42, "orig_message_ts": 1700000000.5, "received_p99": null}'


class FakeMessage:
    """What is asked of confluent-kafka's message."""

    def __init__(
        self,
        key: bytes | None,
        value: bytes | None,
        headers: object = None,
        kind: int = TIMESTAMP_CREATE_TIME,
        place: tuple[int, int] = (1, 7),
        error: KafkaError | None = None,
    ) -> None:
        self.parts = key, value, headers, (kind, 1700000001000)
        self.place = place
        self.its_error = error

    def error(self) -> KafkaError | None:
        return self.its_error

    def key(self) -> bytes | None:
        return self.parts[0]

    def value(self) -> bytes | None:
        return self.parts[1]

    def headers(self) -> object:
        return self.parts[2]

    def timestamp(self) -> tuple[int, int]:
        return self.parts[3]

    def partition(self) -> int:
        return self.place[0]

    def offset(self) -> int:
        return self.place[1]


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
    assert record_line(record_of(message), NOW) == line  # type: ignore[arg-type]


def test_the_topics_id_is_among_the_json() -> None:
    """It decides which topic a report counts for."""
    record = record_of(FakeMessage(b"events:3:writers", VALUE, [("topic_id", b"abc")]))  # type: ignore[arg-type]
    assert record.to_json()["topic_id"] == "abc"
    assert record.to_json()["refused"] is None


def test_a_refused_record_is_among_those_of_its_group() -> None:
    """Who looks for a leader's reports saw nothing where all of them were refused."""
    record = record_of(FakeMessage(b"events:3:writers", b'{"offset": "42"}'))  # type: ignore[arg-type]
    assert (record.refused or "").startswith("offset: ")
    assert Filter(groups={"writers"}, topic="events", partitions={3}).takes(record)
    assert not Filter(groups={"others"}).takes(record)
    assert not Filter(groups={"writers"}).takes(record_of(FakeMessage(b"nonsense", None)))  # type: ignore[arg-type]


def test_a_time_from_the_future_is_shown_as_one() -> None:
    """It is the writer's, whose clock is ahead; ours may be a little behind."""
    record = record_of(FakeMessage(b"events:3:writers", b"42"))  # type: ignore[arg-type]
    assert record_line(record, 1700000001.0 - 60.0).startswith("2023-11-14 22:13:21.000  1@7")
    assert record_line(record, 1700000001.0 - 60.5).startswith("2023-11-14 22:13:21.000 by a clock that is ahead  1@7")


def report(
    group: str, partition: int, seconds: float, topic: str = "events", place: tuple[int, int] = (0, 0)
) -> LogRecord:
    return LogRecord(*place, round(seconds * 1000), topic, partition, group, 42)


def test_groups_are_counted_by_topic_with_their_partitions_rate_and_newest_report() -> None:
    """What is refused counts for nobody, also where its key can be read."""
    records = [
        report("writers", 1, 100.0),
        report("writers", 0, 104.0),
        report("writers", 0, 102.0),
        report("others", 5, 1.0, "else"),
        LogRecord(0, 0, None, "events", 2, "timeless", 42),
        LogRecord(0, 0, 9, refused="key: no key"),
        LogRecord(0, 0, 110_000, "events", 7, "writers", refused="offset: none"),
    ]
    assert groups_of(records, NOW) == [
        GroupOnLog("others", "else", (5,), 1, 1.0, None),
        GroupOnLog("timeless", "events", (2,), 1, None, None),
        GroupOnLog("writers", "events", (0, 1), 3, 104.0, 0.5),
    ]


def test_the_last_records_that_are_wanted_in_the_order_of_their_time() -> None:
    """By group, topic and partition. In whichever order the log's partitions were read."""
    records = [
        report("a", 0, 3.0, place=(0, 0)),
        report("b", 0, 1.0, place=(1, 0)),
        report("a", 1, 2.0, place=(1, 1)),
        report("a", 0, 4.0, "else", place=(1, 2)),
    ]
    assert last_of(records, Filter(), 2, NOW) == [records[0], records[3]]
    assert last_of(records, Filter(groups=["a"]), None, NOW) == [records[2], records[0], records[3]]
    assert last_of(records, Filter(topic="events", partitions=[0]), None, NOW) == [records[1], records[0]]


FUTURE = NOW + 86_400.0


def test_a_clock_that_is_ahead_hides_nobody() -> None:
    """Whatever comes later in its log partition is later; among others its records lie where the one before does."""
    records = [
        report("sound", 0, 10.0, place=(0, 0)),
        report("ahead", 0, FUTURE, place=(0, 1)),
        report("a little", 0, NOW + 50.0, place=(0, 2)),
        report("sound", 0, 30.0, place=(0, 3)),
        report("other", 0, 20.0, place=(1, 0)),
        report("other", 0, NOW + 55.0, place=(1, 1)),
    ]
    in_order = [records[place] for place in (0, 1, 4, 2, 3, 5)]
    assert last_of(records, Filter(), None, NOW) == in_order
    assert last_of(records, Filter(), 2, NOW) == in_order[-2:]


def test_of_a_group_whose_clock_is_ahead_it_is_said() -> None:
    """Its newest report was "0 s ago" for ever. When it was written is known by the one before it, if any."""
    records = [
        report("sound", 0, 10.0, place=(0, 0)),
        report("ahead", 0, FUTURE, place=(0, 1)),
        report("nobody knows", 0, FUTURE, place=(1, 0)),
    ]
    assert groups_of(records, NOW) == [
        GroupOnLog("ahead", "events", (0,), 1, 10.0, None, clock_is_ahead=True),
        GroupOnLog("nobody knows", "events", (0,), 1, None, None, clock_is_ahead=True),
        GroupOnLog("sound", "events", (0,), 1, 10.0, None),
    ]


def test_since_when_a_group_reports_the_same_offset() -> None:
    """Since the first record of it without another one between, whichever log partition they lie in."""
    rows = [(0, 1, 5, 10.0), (0, 2, 6, 20.0), (1, 1, 6, 30.0), (0, 3, 6, 40.0), (0, 9, 7, None)]
    records = [
        LogRecord(log_partition, log_offset, None if at is None else round(at * 1000), "events", 3, "writers", offset)
        for log_partition, log_offset, offset, at in rows
    ]
    others = [
        LogRecord(0, 4, 50_000, refused="key: no key"),
        LogRecord(0, 4, 55_000, "events", 3, "writers", refused="offset: none"),
        LogRecord(0, 5, 60_000, "events", 3, "others", 1),
    ]
    assert reported_since([*records, *others], NOW) == {
        (("events", 3), "writers"): (6, 20.0, False),
        (("events", 3), "others"): (1, 60.0, False),
    }
    back = LogRecord(0, 6, 70_000, "events", 3, "writers", 5)
    assert reported_since([*records, back], NOW)[("events", 3), "writers"] == (5, 70.0, False)


@pytest.mark.parametrize(
    ("rows", "cut", "is_older"),
    [
        pytest.param([(0, 6, 10.0), (0, 6, 20.0)], {0}, True, id="the same since where the reading began"),
        pytest.param([(0, 6, 10.0), (0, 6, 20.0)], {1}, False, id="which wasn't cut"),
        pytest.param([(0, 5, 10.0), (0, 6, 20.0)], {0}, False, id="another one lies between"),
        pytest.param([(0, 6, 10.0), (0, 5, 15.0), (0, 6, 20.0)], {0}, False, id="then another, and the same again"),
        pytest.param([(0, 6, FUTURE), (0, 6, 20.0)], {0}, True, id="a clock that is ahead wrote the first"),
    ],
)
def test_where_the_log_was_cut_a_report_may_be_older(
    rows: list[tuple[int, int, float]], cut: set[int], is_older: bool
) -> None:
    """All that is read may be the last seconds of a busy log."""
    records = [
        LogRecord(log_partition, place, round(at * 1000), "events", 3, "g", offset)
        for place, (log_partition, offset, at) in enumerate(rows)
    ]
    assert reported_since(records, NOW, cut)[("events", 3), "g"].is_older is is_older


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        pytest.param([(5, 10.0), (6, FUTURE), (7, 20.0), (7, 30.0)], (7, 20.0), id="others come after it"),
        pytest.param([(5, 10.0), (6, FUTURE), (6, 20.0)], (6, 20.0), id="it is the first of its offset"),
        pytest.param([(6, 10.0), (6, FUTURE), (6, 20.0)], (6, 10.0), id="it is one of several"),
        pytest.param([(6, 10.0), (7, FUTURE)], None, id="nobody knows since when"),
    ],
)
def test_a_clock_that_is_ahead_makes_nothing_older_nor_last(
    rows: list[tuple[int, float]], found: tuple[int, float] | None
) -> None:
    """What it wrote counted as the last report until that time had come."""
    records = [
        LogRecord(0, place, round(at * 1000), "events", 3, "g", offset) for place, (offset, at) in enumerate(rows)
    ]
    repeated = reported_since(records, NOW).get((("events", 3), "g"))
    assert (None if repeated is None else repeated[:2]) == found


AWAY = KafkaError(KafkaError._TRANSPORT, "connection refused")
GONE = KafkaError(KafkaError._AUTO_OFFSET_RESET, "offset out of range")


class FakeLog:
    """A commit log: what is asked of confluent-kafka's consumer, and of the asker, by `LogScan`.

    :param records: how many each partition has.
    :param away: the partitions whose broker doesn't answer.
    :param stops: the partitions of which nothing can be read, though their broker tells where they end.
    :param gone: the partitions that no longer hold where they are read: librdkafka says so once, and stops.

    Its clock goes on while nothing comes, and has no end for those who only wait.
    """

    def __init__(
        self,
        records: dict[int, int],
        away: tuple[int, ...] = (),
        stops: tuple[int, ...] = (),
        gone: tuple[int, ...] = (),
    ) -> None:
        self.records, self.away, self.stops, self.gone = records, away, stops, set(gone)
        self.error = AWAY
        """Of a broker that doesn't answer."""
        self.now = 0.0
        self.positions: dict[int, int] = {}
        self.is_closed = self.is_stopped = False

    def list_topics(self, topic: str, timeout: float) -> Any:
        partitions = dict.fromkeys(self.records)
        return SimpleNamespace(topics={topic: SimpleNamespace(error=None, partitions=partitions)})

    def ask_ranges(self, keys: list[tuple[str, int]], timeout: float, on_answer: Any, **_: bool) -> None:
        for key in keys:
            on_answer({key: self.error if key[1] in self.away else PartitionRange(0, self.records[key[1]])})

    def ask_offsets_for_time(self, keys: Any, since_ms: int, timeout: float, on_answer: Any) -> None:
        on_answer({key: FoundOffset(since_ms // 1000, since_ms) for key in keys})

    def assign(self, places: list[TopicPartition]) -> None:
        self.positions = {}
        self.incremental_assign(places)

    def incremental_assign(self, places: list[TopicPartition]) -> None:
        assert not self.positions.keys() & {place.partition for place in places}
        for place in places:
            self.positions[place.partition] = 0 if place.offset == OFFSET_BEGINNING else place.offset

    def incremental_unassign(self, places: list[TopicPartition]) -> None:
        for place in places:
            del self.positions[place.partition]

    def poll(self, timeout: float) -> object:
        assert self.now < 1000.0, "nothing comes"
        for partition in self.gone & self.positions.keys():
            self.gone.remove(partition)
            position, self.positions[partition] = self.positions[partition], OFFSET_INVALID
            return FakeMessage(None, None, place=(partition, position), error=GONE)
        for partition, position in self.positions.items():
            if 0 <= position < self.records[partition] and partition not in {*self.away, *self.stops}:
                self.positions[partition] += 1
                return FakeMessage(b"events:%d:writers" % partition, VALUE, place=(partition, position))
        self.now += timeout
        return None

    def close(self) -> None:
        self.is_closed = True

    def stop(self, timeout: float) -> None:
        self.is_stopped = True


@pytest.fixture
def scan_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[FakeLog], LogScan]:
    """Reads this log. It waits for nothing."""

    def make(log: FakeLog, timeout: float = 0.05) -> LogScan:
        monkeypatch.setattr("arroyo_sync.status.commit_log.make_client", lambda *_: log)
        monkeypatch.setattr("arroyo_sync.status.commit_log.Asker", lambda *_: log)
        return LogScan({"bootstrap.servers": "kafka:9092"}, "log", timeout, lambda: log.now)

    return make


def places(records: Iterable[LogRecord]) -> list[tuple[int, int]]:
    return sorted((each.log_partition, each.log_offset) for each in records)


def test_a_partition_whose_broker_is_away_costs_its_own_records_alone(scan_of: Callable[[FakeLog], LogScan]) -> None:
    """It is named with the reason."""
    log = FakeLog({0: 2, 1: 2, 2: 1}, away=(1,))
    with scan_of(log) as scan:
        assert places(scan.read_to_end()) == [(0, 0), (0, 1), (2, 0)]
        assert scan.missing == {1: "connection refused"}
    assert (log.is_closed, log.is_stopped) == (True, True)


@pytest.mark.parametrize(
    "code", [KafkaError._NOENT, KafkaError.UNKNOWN_TOPIC_OR_PART], ids=["no leader", "not told yet"]
)
def test_whatever_a_broker_that_restarts_is_said_to_lack_the_others_are_shown(
    scan_of: Callable[[FakeLog], LogScan], code: int
) -> None:
    """librdkafka has many names for it, and a broker that has just become the leader may not know it yet."""
    log = FakeLog({0: 2, 1: 2}, away=(1,))
    log.error = KafkaError(code, "not found")
    with scan_of(log) as scan:
        assert places(scan.read_to_end()) == [(0, 0), (0, 1)]
        assert scan.missing == {1: "not found"}


def test_a_partition_that_stops_in_the_middle_is_named_too(scan_of: Callable[[FakeLog], LogScan]) -> None:
    """Its broker told where it ends, and went away then."""
    with scan_of(FakeLog({0: 2, 1: 2}, stops=(0,))) as scan:
        assert places(scan.read_to_end()) == [(1, 0), (1, 1)]
        assert scan.missing == {0: "nothing came for 0.05 s"}


def test_what_was_missing_is_followed_once_its_broker_is_back(scan_of: Callable[[FakeLog], LogScan]) -> None:
    """From its end, where that is all that is known; else from where the reading stopped."""
    log = FakeLog({0: 2, 1: 2, 2: 2}, away=(1,), stops=(2,))
    with scan_of(log) as scan:
        assert places(scan.read_to_end()) == [(0, 0), (0, 1)]
        log.stops = ()
        assert next(scan.follow(print)).log_offset == 0
        assert log.positions == {0: 2, 1: OFFSET_END, 2: 1}


def test_records_that_come_meanwhile_are_left_to_those_who_follow(scan_of: Callable[[FakeLog], LogScan]) -> None:
    """Each is shown once."""
    log = FakeLog({0: 1, 1: 1})
    with scan_of(log) as scan:
        records = scan.read_to_end()
        seen = [next(records)]
        log.records[0] += 1
        seen += records
        assert places(seen) == [(0, 0), (1, 0)]
        assert places([next(scan.follow(print))]) == [(0, 1)]


def test_a_login_that_is_refused_while_the_log_is_followed_is_an_error(
    scan_of: Callable[[FakeLog], LogScan],
) -> None:
    """It would be silent for ever: no message tells of it."""
    log = FakeLog({0: 1})
    with scan_of(log) as scan:
        list(scan.read_to_end())
        followed = scan.follow(print)
        log.records = {0: 2}
        assert next(followed).log_offset == 1
        scan._errors.add(KafkaError(KafkaError._AUTHENTICATION, "password expired"))
        with pytest.raises(KafkaException, match="password expired"):
            next(followed)


def test_a_position_that_is_gone_while_it_is_followed_is_told_and_read_from_the_beginning(
    scan_of: Callable[[FakeLog], LogScan],
) -> None:
    """It was truncated, created anew, or deleted faster than it was read. librdkafka reads that partition no more."""
    log = FakeLog({0: 2, 1: 1})
    told: list[str] = []
    with scan_of(log) as scan:
        assert places(scan.read_to_end()) == [(0, 0), (0, 1), (1, 0)]
        log.gone, log.records[0] = {0}, 1
        followed = scan.follow(told.append)
        assert places([next(followed)]) == [(0, 0)]
        log.records[1] += 1
        assert places([next(followed)]) == [(1, 1)]
    assert told == ["log[0] is read from its beginning: offset out of range"]


def test_a_position_that_is_gone_before_the_end_costs_its_own_records_and_no_time(
    scan_of: Callable[[FakeLog], LogScan],
) -> None:
    """It is named with the reason; and followed, from its beginning."""
    log = FakeLog({0: 2, 1: 2}, gone=(0,))
    with scan_of(log) as scan:
        assert places(scan.read_to_end()) == [(1, 0), (1, 1)]
        assert scan.missing == {0: "offset out of range"}
        asked_at = POLL_SECONDS  # it waits for the answers about where the partitions end
        assert log.now == asked_at
        assert places([next(scan.follow(print))]) == [(0, 0)]


def test_a_partition_that_is_added_is_followed(scan_of: Callable[[FakeLog], LogScan]) -> None:
    """From its beginning, once it is found. Brokers that are away just then are asked the next time."""
    log = FakeLog({0: 1})
    answers, ask = [AWAY, None], log.list_topics

    def list_topics(topic: str, timeout: float) -> Any:
        error = answers.pop(0)
        if error is not None:
            raise KafkaException(error)
        return ask(topic, timeout)

    with scan_of(log) as scan:
        assert places(scan.read_to_end()) == [(0, 0)]
        log.list_topics = list_topics  # type: ignore[method-assign]
        log.records[1] = 1
        assert places([next(scan.follow(print))]) == [(1, 0)]
        assert log.now == pytest.approx(2 * PARTITIONS_SECONDS, abs=1.0)


def test_a_time_leaves_out_what_was_written_before(scan_of: Callable[[FakeLog], LogScan]) -> None:
    """Of the fake log each record is a second younger than the one before. Not past the end."""
    with scan_of(FakeLog({0: 3, 1: 1})) as scan:
        assert places(scan.read_to_end(since=2.0)) == [(0, 2)]


@pytest.mark.parametrize(
    ("log", "says"),
    [
        pytest.param(FakeLog({0: 1, 1: 1}, away=(0, 1)), "no broker of kafka:9092 answered .*refused", id="no answer"),
        pytest.param(FakeLog({0: 1, 1: 1}, stops=(0, 1)), "log: nothing came for 0.05 s from kafka", id="no record"),
    ],
)
def test_no_answer_at_all_is_an_error(scan_of: Callable[[FakeLog], LogScan], log: FakeLog, says: str) -> None:
    """There is nothing to show."""
    with scan_of(log) as scan, pytest.raises(BrokersUnreachable, match=says):
        list(scan.read_to_end())


def test_a_refusal_is_an_error_though_others_answer(scan_of: Callable[[FakeLog], LogScan]) -> None:
    """To ask again doesn't help."""
    log = FakeLog({0: 1, 1: 1}, away=(1,))
    refused = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)
    log.ask_ranges = lambda keys, timeout, on_answer, **_: on_answer({keys[0]: refused})  # type: ignore[method-assign]
    with scan_of(log) as scan, pytest.raises(KafkaException):
        list(scan.read_to_end())


def test_what_is_too_much_to_be_read_is_said(scan_of: Callable[[FakeLog], LogScan]) -> None:
    """The last records of each partition, and which of them hold more."""
    with scan_of(FakeLog({0: 5, 1: 2, 2: 3})) as scan:
        records = [(each.log_partition, each.log_offset) for each in scan.read_to_end(at_most=6)]
    assert sorted(records) == [(0, 3), (0, 4), (1, 0), (1, 1), (2, 1), (2, 2)]
    assert scan.cut == {0, 2}
