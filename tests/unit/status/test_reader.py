"""What becomes of a leader's report, seen from outside, and of settings that no client can be made of.

The reading itself is shown on the real broker.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError

from arroyo_sync.core.errors import ArroyoSyncError, BrokersUnreachable, ConfigurationError
from arroyo_sync.core.source import LeaderOffset, SourceStatistics
from arroyo_sync.core.state import PartitionKey
from arroyo_sync.kafka.questions.asker import PartitionRange
from arroyo_sync.leaders.verification import Reason
from arroyo_sync.observe.evaluation import groups_without_report
from arroyo_sync.observe.snapshot import NextMessage, PartitionSnapshot, Snapshot
from arroyo_sync.observe.verdict import Grade
from arroyo_sync.status.answers.leader import Known, leader_snapshot
from arroyo_sync.status.answers.log_records import LogRecord
from arroyo_sync.status.check import ExitStatus, StatusCheck
from arroyo_sync.status.reader import StatusQuery, StatusReader, _open_from
from tests.support.fakes import Clock

QUERY = StatusQuery(
    topic="events",
    follower_group="follower",
    leader_groups=("writers",),
    settings={"bootstrap.servers": "127.0.0.1:1"},
)
UNLED = KafkaError(KafkaError._NOENT, "No leaders found")
REFUSED = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)
EVENTS = ("events", 0)
FOUND = PartitionRange(0, 100)


@pytest.mark.parametrize(
    ("offset", "topic_id", "current_id", "because"),
    [
        (50, "a", "a", None),
        (50, None, "a", None),
        (50, "a", None, None),
        (50, "b", "a", "of an earlier topic of that name"),
        (500, "b", "a", "of an earlier topic of that name"),
        (500, "a", "a", "beyond the partition's end"),
    ],
    ids=["true", "without an id", "no id is known", "of another topic", "of another topic and too far", "too far"],
)
def test_a_report_of_an_earlier_topic_or_past_the_end_can_not_be_true(
    offset: int, topic_id: str | None, current_id: str | None, because: str | None
) -> None:
    """Also once the new topic has outgrown it."""
    said = LeaderOffset(offset, 1_000, 0.0, topic_id=topic_id)
    leader = leader_snapshot("writers", said, None, Known(EVENTS, PartitionRange(0, 100, 500), current_id, 10.0))
    assert leader.is_rejected is (because is not None)
    assert because in (None, leader.why_rejected)


def without_token(settings: dict[str, Any]) -> object:
    """As confluent-kafka 2.16 does if ``oauth_cb`` gave none."""
    raise SystemError("<class 'cimpl.Consumer'> returned NULL without setting an exception")


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        (
            {"security.protocol": "hunter2"},
            ConfigurationError,
            "librdkafka refuses the configuration: .*security.protocol",
        ),
        ({"oauth_cb": lambda configuration: None}, BrokersUnreachable, "no token to log in to 127.0.0.1:1 with"),
    ],
    ids=["a setting that is refused", "no token"],
)
def test_a_client_that_can_not_be_made_is_told_without_secrets(
    settings: dict[str, Any], error: type[ArroyoSyncError], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does librdkafka's own error go along, which may show the value."""
    if "oauth_cb" in settings:
        monkeypatch.setattr("arroyo_sync.status.reader.Consumer", without_token)
    query = StatusQuery(
        topic="events",
        follower_group="follower",
        leader_groups=("writers",),
        settings={"bootstrap.servers": "127.0.0.1:1", "sasl.password": "hunter2", **settings},
    )
    with pytest.raises(error, match=says) as raised:
        StatusReader(query)
    assert "hunter2" not in "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize(
    ("answers", "told", "questions"),
    [
        ([UNLED, UNLED, FOUND], FOUND, 3),
        ([UNLED], UNLED, 4),
        ([REFUSED], REFUSED, 1),
    ],
    ids=["while a leader is elected", "as long as that takes", "not where it doesn't help"],
)
def test_a_partition_that_nobody_leads_is_asked_about_again(
    answers: list[PartitionRange | KafkaError],
    told: PartitionRange | KafkaError,
    questions: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its error comes at once, and in a rolling restart a check would flap. The others aren't asked again."""
    clock = Clock()

    def sleep(seconds: float) -> None:
        clock.now += seconds

    monkeypatch.setattr("arroyo_sync.status.reader.time", SimpleNamespace(monotonic=clock, sleep=sleep))
    monkeypatch.setattr("arroyo_sync.status.reader.ELECTION_SECONDS", 0.25)
    monkeypatch.setattr("arroyo_sync.status.reader.RETRY_SECONDS", 0.1)
    asked: list[list[tuple[str, int]]] = []

    def ranges(keys: list[tuple[str, int]], timeout: float) -> dict[tuple[str, int], PartitionRange | KafkaError]:
        assert len(asked) < 10, "it is asked for ever"
        asked.append(list(keys))
        answer = answers[min(len(asked), len(answers)) - 1]
        return {key: answer if key == ("events", 1) else FOUND for key in keys}

    with StatusReader(QUERY) as reader:
        monkeypatch.setattr(reader._asker, "ranges", ranges)
        assert reader._ask_ranges([("events", 0), ("events", 1)]) == {("events", 0): FOUND, ("events", 1): told}
    assert asked[0] == [("events", 0), ("events", 1)]
    assert asked[1:] == [[("events", 1)]] * (questions - 1)


@pytest.mark.parametrize("uses_commit_log", [True, False], ids=["--recent", "no commit log"])
@pytest.mark.parametrize(
    ("committed", "is_silent"), [(None, True), (40, False), (REFUSED, False)], ids=["nothing", "something", "untold"]
)
def test_a_group_that_has_committed_nothing_has_not_reported(
    uses_commit_log: bool, committed: int | KafkaError | None, is_silent: bool
) -> None:
    """Its commit stands for the report that isn't read. A name that was misspelled was "ok", with exit status 0."""
    query = replace(QUERY, commit_log="commits" if uses_commit_log else None, reads_all=False)
    with StatusReader(query) as reader:
        commits = {"follower": 40, "writers": committed}
        published: Mapping[str, LeaderOffset] | None = {} if uses_commit_log else None
        nothing = Known(("events", 1), PartitionRange(7, 7), None, 10.0)
        partition = reader._partition(Known(EVENTS, FOUND, None, 10.0), commits, published)
        empty = reader._partition(nothing, commits, published)
        of_empty_topic = reader._partition(nothing, commits, published, is_topic_empty=True)
    silent = groups_without_report(Snapshot(10.0, (partition, empty)))
    assert silent == ({"writers"} if is_silent else frozenset())
    silent = groups_without_report(Snapshot(10.0, (of_empty_topic,)))
    assert silent == frozenset(), "where nothing is, there is nothing to commit"
    assert (partition.error is not None) is (committed is REFUSED)


@pytest.mark.parametrize(
    ("read_to", "end", "open_from"),
    [(40, 100, 40), (100, 100, None), (120, 100, None), (40, None, None), (None, 100, None)],
    ids=["a transaction is open", "markers to the end", "it has grown since", "no end is known", "no offset is told"],
)
def test_a_reader_of_what_is_committed_ends_before_a_transaction_that_is_open(
    read_to: int | None, end: int | None, open_from: int | None
) -> None:
    """Where it found nothing it took all of it for markers, and a transaction that hung for a day was "ok"."""
    assert _open_from(read_to, end) == open_from


NOW = 10_000.0
REPORT = LeaderOffset(423, 9_000_000, 0.0)
"""Of a leader that names no topic id, a thousand seconds ago."""
YOUNGER = PartitionRange(0, 1000, 9_500_000)
"""A topic that was created again after that, and has outgrown it."""


@dataclass
class Brokers:
    """What they answer about one partition, and what its leader has published."""

    report: LeaderOffset = REPORT
    range: PartitionRange = YOUNGER
    committed: int | KafkaError | None = None
    topic_ids: list[str | KafkaError] = field(default_factory=lambda: ["new"])
    """One answer after the other, the last one again and again."""
    ids_asked: list[float] = field(default_factory=list)
    """How many seconds there were for each."""
    asked_first: list[Collection[PartitionKey]] = field(default_factory=list)
    """Of which partitions the first message was looked up, each time."""

    def read_by(self, reader: StatusReader, monkeypatch: pytest.MonkeyPatch) -> StatusReader:
        """The same reader, which asks these from now on."""
        assert reader._commit_log is not None
        for name, answer in {"subscribe": None, "start": None, "wait_until_ready": None}.items():
            monkeypatch.setattr(reader._commit_log, name, lambda *_, answer=answer: answer)
        monkeypatch.setattr(reader._commit_log, "published", lambda: {EVENTS: {"writers": self.report}})
        statistics = SourceStatistics(ready=True, alive=True)
        monkeypatch.setattr(reader._commit_log, "statistics", lambda: statistics)
        monkeypatch.setattr(reader, "_connect", lambda: [0])
        monkeypatch.setattr(reader, "find_messages", lambda positions: {EVENTS: NextMessage(0, NOW - 400.0)})
        for name in ("committed", "ranges", "ask_ranges", "topic_ids"):
            monkeypatch.setattr(reader._asker, name, getattr(self, f"_{name}"))
        return reader

    def _committed(self, group: str, keys: Collection[PartitionKey], timeout: float) -> Mapping[PartitionKey, object]:
        return dict.fromkeys(keys, 0 if group == "follower" else self.committed)

    def _ranges(self, keys: Collection[PartitionKey], timeout: float) -> Mapping[PartitionKey, PartitionRange]:
        return dict.fromkeys(keys, self.range._replace(first_timestamp_ms=None, is_first_known=True))

    def _ask_ranges(
        self,
        keys: Collection[PartitionKey],
        timeout: float,
        on_answer: Callable[[Mapping[PartitionKey, PartitionRange]], None],
    ) -> None:
        self.asked_first.append(keys)
        on_answer(dict.fromkeys(keys, self.range._replace(is_first_known=False, is_look_up_pending=True)))
        on_answer(dict.fromkeys(keys, self.range))

    def _topic_ids(self, topics: Collection[str], timeout: float) -> Mapping[str, str | KafkaError]:
        self.ids_asked.append(timeout)
        assert len(self.ids_asked) < 100, "it is asked for ever"
        return dict.fromkeys(topics, self.topic_ids.pop(0) if len(self.topic_ids) > 1 else self.topic_ids[0])


def snapshot_of(brokers: Brokers, monkeypatch: pytest.MonkeyPatch) -> Snapshot:
    with StatusReader(replace(QUERY, commit_log="commits"), lambda: NOW) as reader:
        return brokers.read_by(reader, monkeypatch).read()


def partition_of(brokers: Brokers, monkeypatch: pytest.MonkeyPatch) -> PartitionSnapshot:
    (partition,) = snapshot_of(brokers, monkeypatch).partitions
    return partition


UNDATED = YOUNGER._replace(first_timestamp_ms=None, is_first_known=False)


@pytest.mark.parametrize(
    ("brokers", "reason", "looks_up"),
    [
        pytest.param(Brokers(), Reason.BEFORE_FIRST_MESSAGE, True, id="older than the first message"),
        pytest.param(
            Brokers(range=YOUNGER._replace(first_timestamp_ms=None)),
            *(Reason.BEFORE_FIRST_MESSAGE, True),
            id="the first message has no time",
        ),
        pytest.param(Brokers(committed=422), Reason.BEFORE_FIRST_MESSAGE, True, id="its group has committed less"),
        pytest.param(Brokers(committed=REFUSED), Reason.BEFORE_FIRST_MESSAGE, True, id="its group can't be asked"),
        pytest.param(Brokers(range=UNDATED), Reason.FIRST_MESSAGE_UNKNOWN, True, id="the first one isn't told"),
        pytest.param(Brokers(range=YOUNGER._replace(first_timestamp_ms=8_000_000)), None, True, id="it isn't younger"),
        pytest.param(Brokers(committed=423), None, False, id="its group has committed as far"),
        pytest.param(Brokers(REPORT._replace(topic_id="new")), None, False, id="it names this topic"),
        pytest.param(Brokers(range=YOUNGER._replace(begin=423)), None, False, id="of what was there nothing is left"),
        pytest.param(Brokers(REPORT._replace(timestamp_ms=9_990_000)), None, False, id="the commit may be on its way"),
    ],
)
def test_a_report_that_the_follower_does_not_believe_is_not_believed(
    brokers: Brokers, reason: Reason | None, looks_up: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the follower's own rule. The brokers look up first messages only where it comes down to them."""
    partition = partition_of(brokers, monkeypatch)
    (leader,) = partition.leaders
    assert (leader.is_rejected, leader.rejected_because) == (
        reason is not None,
        None if reason is None else reason.value,
    )
    assert partition.remote_offset == (423 if reason is None else None)
    assert brokers.asked_first == ([[EVENTS]] if looks_up else [])


def test_the_follower_is_not_blamed_for_a_report_that_it_does_not_believe(monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds the new topic's messages, as it should. It was "stalled", and waited for itself."""
    with StatusReader(replace(QUERY, commit_log="commits"), lambda: NOW) as reader:
        Brokers().read_by(reader, monkeypatch)
        status = StatusCheck(reader, "follower", 300.0, 0.0, lambda _: None).check_once()
    (verdict,) = status.verdicts
    assert (verdict.grade, verdict.group, status.exit_status) == (Grade.UNKNOWN, "writers", ExitStatus.UNKNOWN)
    assert "published 423, which is from before its first message, by that one's timestamp. Was" in verdict.reason


def test_a_first_message_that_is_never_told_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is known by then is shown."""
    monkeypatch.setattr("arroyo_sync.status.reader.PARTIAL_TIMEOUT_SECONDS", 0.01)
    monkeypatch.setattr("arroyo_sync.status.reader.GRACE_SECONDS", 0.01)
    brokers = Brokers()
    brokers._ask_ranges = lambda keys, timeout, on_answer: None  # type: ignore[method-assign]
    (leader,) = partition_of(brokers, monkeypatch).leaders
    assert leader.rejected_because == Reason.FIRST_MESSAGE_UNKNOWN.value


SILENT = KafkaError(KafkaError._TIMED_OUT, "no answer")
NO_IDS = KafkaError(KafkaError._UNSUPPORTED_FEATURE)
WITH_ID = REPORT._replace(topic_id="old", timestamp_ms=9_990_000)
"""Of a topic that was deleted; the new one has outgrown it."""


@pytest.mark.parametrize(
    ("report", "answers", "asked", "reason", "error"),
    [
        pytest.param(WITH_ID, [SILENT, SILENT, "new"], 3, "of an earlier topic of that name", None, id="told at last"),
        pytest.param(WITH_ID, [SILENT, SILENT, "old"], 3, None, None, id="and it is this topic's"),
        pytest.param(WITH_ID, [SILENT], 5, None, "the topic's id, which a report names: no answer", id="never told"),
        pytest.param(WITH_ID, [NO_IDS], 1, None, None, id="the brokers know none"),
        pytest.param(WITH_ID, [REFUSED], 1, None, None, id="it may not be asked for"),
        pytest.param(
            WITH_ID,
            [KafkaError(KafkaError._AUTHENTICATION, "refused")],
            *(1, None, "the topic's id, which a report names: refused"),
            id="asking again doesn't help",
        ),
        pytest.param(REPORT._replace(timestamp_ms=9_990_000), [SILENT], 3, None, None, id="no report names one"),
    ],
)
def test_a_topic_id_that_is_not_told_is_asked_for_again_and_missed_where_a_report_names_one(
    report: LeaderOffset,
    answers: list[str | KafkaError],
    asked: int,
    reason: str | None,
    error: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first question has a connection to make. Without an answer the report of an earlier topic was believed."""
    clock = Clock()

    def sleep(seconds: float) -> None:
        clock.now += seconds

    monkeypatch.setattr("arroyo_sync.status.reader.time", SimpleNamespace(monotonic=clock, sleep=sleep, time=clock))
    monkeypatch.setattr("arroyo_sync.status.reader.RETRY_SECONDS", 0.1)
    monkeypatch.setattr("arroyo_sync.status.reader.PARTIAL_TIMEOUT_SECONDS", 0.35)
    monkeypatch.setattr("arroyo_sync.status.reader.ASK_TIMEOUT_SECONDS", 0.15)
    brokers = Brokers(report, topic_ids=list(answers))
    snapshot = snapshot_of(brokers, monkeypatch)
    (partition,) = snapshot.partitions
    (leader,) = partition.leaders
    assert (leader.rejected_because, partition.error) == (reason, error)
    assert snapshot.topic_id == (answers[-1] if isinstance(answers[-1], str) else None)
    assert len(brokers.ids_asked) == asked
    assert brokers.ids_asked[0] == pytest.approx(0.15 if report.topic_id is None else 0.35)


def test_exit_status_2_where_the_topic_id_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was 0, and the follower was waited for."""
    monkeypatch.setattr("arroyo_sync.status.reader.PARTIAL_TIMEOUT_SECONDS", 0.0)
    with StatusReader(replace(QUERY, commit_log="commits"), lambda: NOW) as reader:
        Brokers(WITH_ID, topic_ids=[SILENT]).read_by(reader, monkeypatch)
        status = StatusCheck(reader, "follower", 300.0, 0.0, lambda _: None).check_once()
    (verdict,) = status.verdicts
    assert (verdict.reason, status.exit_status) == (
        "can't be told: the topic's id, which a report names: no answer",
        ExitStatus.UNKNOWN,
    )


class Messages:
    """A consumer's polls, one after the other; ``None``: nothing came."""

    def __init__(self, *polled: SimpleNamespace | None) -> None:
        self._polled = list(polled)

    def poll(self, timeout: float) -> SimpleNamespace | None:
        return self._polled.pop(0) if self._polled else None

    def assign(self, _: object) -> None: ...
    def incremental_unassign(self, _: object) -> None: ...
    def unassign(self) -> None: ...
    def close(self) -> None: ...


def polled(partition: int | None, offset: int | None = None, code: int | None = None) -> SimpleNamespace:
    error = None if code is None else KafkaError(code, "it is refused")
    values = {"error": error, "topic": "events", "partition": partition, "offset": offset, "timestamp": (1, 9_000_000)}
    return SimpleNamespace(**{name: lambda value=value: value for name, value in values.items()})


DENIED = KafkaError.TOPIC_AUTHORIZATION_FAILED


@pytest.mark.parametrize(
    ("messages", "found"),
    [
        pytest.param([polled(0, 7)], NextMessage(7, 9_000.0), id="it is there"),
        pytest.param([polled(0, code=DENIED), polled(0, 7)], NextMessage(7, 9_000.0), id="at last"),
        pytest.param([], NextMessage(None, error="no answer within 0.05 s"), id="no answer in time"),
        pytest.param([polled(1, 7), polled(0, code=DENIED)], NextMessage(None, error="it is refused"), id="refused"),
        pytest.param([polled(None, code=DENIED)], NextMessage(None, error="it is refused"), id="all of the topic is"),
        pytest.param(
            [polled(1, code=DENIED)], NextMessage(None, error="no answer within 0.05 s"), id="another one is refused"
        ),
    ],
)
def test_a_message_that_could_not_be_fetched_is_told_from_one_that_nobody_looked_for(
    messages: list[SimpleNamespace], found: NextMessage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With why."""
    monkeypatch.setattr("arroyo_sync.status.reader.FETCH_TIMEOUT_SECONDS", 0.05)
    with StatusReader(QUERY) as reader:
        reader._consumer.close()
        monkeypatch.setattr(reader, "_consumer", Messages(*messages))
        assert reader.find_messages({EVENTS: 5}) == {EVENTS: found}


class Scan:
    """Of a commit log. Each record takes a second."""

    def __init__(self, records: Iterable[LogRecord], clock: Clock, missing: Mapping[int, str]) -> None:
        self.records, self.clock, self.missing, self.cut = records, clock, missing, frozenset({0})

    def __enter__(self) -> Scan:
        return self

    def __exit__(self, *_: object) -> None: ...

    def read_to_end(self, since: float | None = None, at_most: int | None = None) -> Iterator[LogRecord]:
        for record in self.records:
            self.clock.now += 1.0
            yield record


@pytest.fixture
def reader_of(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., StatusReader]]:
    """Reads these records."""
    with StatusReader(replace(QUERY, commit_log="commits", timeout=3.0), lambda: NOW) as reader:

        def make(*records: LogRecord, missing: Mapping[int, str] | None = None) -> StatusReader:
            clock = Clock()
            monkeypatch.setattr("arroyo_sync.status.reader.time", SimpleNamespace(monotonic=clock))
            monkeypatch.setattr(reader, "_log_scan", lambda _: Scan(records, clock, missing or {}))
            return reader

        yield make
        monkeypatch.undo()


def reported(group: str, topic: str = "events", refused: str | None = None) -> LogRecord:
    return LogRecord(0, 0, round(NOW * 1000) - 9_000, topic, 0, group, 7, refused=refused)


def test_the_groups_on_a_log_that_takes_too_long_are_those_that_were_met(
    reader_of: Callable[..., StatusReader],
) -> None:
    """Rather than to read for half an hour, to name them in a line."""
    few = reported("a"), reported("b", refused="offset: none")
    assert reader_of(*few).groups_on_log() == ({"a"}, True)
    assert reader_of(*few, missing={1: "no answer"}).groups_on_log() == ({"a"}, False)
    many = reported("a"), reported("b", "others"), reported("c"), reported("d")
    assert reader_of(*many).groups_on_log() == ({"a", "c"}, False)


def test_since_when_a_report_is_repeated_where_not_all_was_read(reader_of: Callable[..., StatusReader]) -> None:
    """Of a partition that was cut it may be for longer; nothing is told where one is missing."""
    assert reader_of(reported("a")).reported_since(0.0) == {(EVENTS, "a"): (7, NOW - 9.0, True)}
    assert reader_of(reported("a"), missing={1: "no answer"}).reported_since(0.0) == {}
