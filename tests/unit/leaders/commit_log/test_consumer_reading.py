"""What a source on a commit log reads: whom it asks what meanwhile, and what it tells of itself."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace

import pytest
from confluent_kafka import OFFSET_BEGINNING, KafkaError, KafkaException

from arroyo_sync.core.source import SourceStatistics
from arroyo_sync.core.state import PartitionKey
from arroyo_sync.kafka.questions.asker import PartitionRange
from arroyo_sync.leaders.commit_log import consumer as consumer_module
from arroyo_sync.leaders.commit_log.contents import JUDGED_RECORDS
from arroyo_sync.leaders.commit_log.log_topic import IDENTITY_SECONDS
from arroyo_sync.leaders.commit_log.reader import LAG_SECONDS
from arroyo_sync.leaders.commit_log.record import SkipReason
from arroyo_sync.leaders.verification import LOG_END_UNKNOWN
from arroyo_sync.leaders.verifier import INTERVAL_SECONDS, SUSPICION_PATIENCE_SECONDS
from tests.support.scripted_source import (
    KEY,
    NO_ANSWER,
    NO_PERMISSION,
    NOW_MS,
    OTHER,
    ScriptedSource,
    position_is_gone,
    record,
)


@pytest.fixture
def fixture(monkeypatch: pytest.MonkeyPatch) -> ScriptedSource:
    return ScriptedSource(monkeypatch)


def test_what_is_read_of_the_log_and_verified_by_the_data_brokers_is_released(fixture: ScriptedSource) -> None:
    """By one client of the commit log's cluster, which is closed at the end."""
    fixture.source.assign({KEY: 0}, None)
    fixture.read(None, record(0, value=b"7"), fixture.verify)
    assert fixture.source.ready
    assert fixture.remote() == 7
    (client,) = fixture.clients
    assert client.settings["bootstrap.servers"] == "log:9092"
    assert client.assigned == {0: OFFSET_BEGINNING, 1: OFFSET_BEGINNING}
    assert fixture.life == ["client 0 is made", "client 0 is closed"]


def test_without_a_data_configuration_one_cluster_is_asked_all(fixture: ScriptedSource) -> None:
    """The commit log's is the data topic's, too."""
    fixture.make(data_configuration=None)
    fixture.source.assign({KEY: 0}, None)
    fixture.read(None, record(0, value=b"7"), fixture.verify)
    assert list(fixture.asked) == ["log:9092"]
    assert fixture.remote() == 7
    assert fixture.log.asked("all ends")


def test_the_statistics_tell_what_was_read(fixture: ScriptedSource) -> None:
    """Each number by itself."""
    fixture.source.subscribe("events")
    fixture.source.assign({KEY: 0, OTHER: 0}, None)
    assert fixture.source.statistics().newest_timestamp_ms is None
    fixture.read(
        None,
        *[record(offset, b"events:0:else") for offset in range(5)],
        *[record(5 + offset, b"another:0:g") for offset in range(4)],
        *[record(9 + offset, value=b"-1001") for offset in range(3)],
        record(12, value=None, timestamp_ms=NOW_MS - 5),
        record(13, value=None),
        *[record(14 + offset, value=b"no number") for offset in range(6)],
        *[record(20 + offset, timestamp_ms=NOW_MS + 86_400_000) for offset in range(8)],
        record(28, value=b"9"),
        record(29, value=b"7"),
        record(30, b"events:1:g", b"2000"),
        fixture.verify,
        record(31, b"events:1:g", b"3000"),
        lambda: fixture.monkeypatch.setattr(fixture.data, "ask_ranges", lambda *_, **__: None),  # nobody answers
        fixture.wait(INTERVAL_SECONDS),
        fixture.verify,
        fixture.wait(SUSPICION_PATIENCE_SECONDS),
        fixture.verify,
        fixture.wait(LAG_SECONDS),
    )
    assert fixture.source.statistics() == SourceStatistics(
        ready=True,
        alive=False,
        read=32,
        other_groups=5,
        other_topics=4,
        logical=3,
        tombstones=2,
        malformed={SkipReason.VALUE.value: 6},
        rewinds=1,
        impossible=1,
        unverified=1,
        lag=168,
        newest_timestamp_ms=NOW_MS,
        from_the_future=8,
        groups_reported=["g"],
        groups_seen=("else", "g"),
        is_foreign=False,
    )


def test_a_topic_without_commit_records_is_told_of(fixture: ScriptedSource, caplog: pytest.LogCaptureFixture) -> None:
    """In the statistics as in the log, where it goes by its name."""
    fixture.read(*[record(offset, b"no commit") for offset in range(12)], position_is_gone(0), None)
    assert fixture.source.statistics().is_foreign
    assert any(line.startswith("Topic log is no commit log") for line in caplog.messages)


def test_whoever_waits_for_a_topic_without_commit_records_is_told_so(fixture: ScriptedSource) -> None:
    """A long data topic, whose name was given by mistake, isn't read in time; `arroyo-sync status` shows no log."""
    told: list[str] = []
    fixture.log.ranges[("log", 0)] = PartitionRange(0, 5_000)
    note = lambda: told.append(fixture.source._missing())  # noqa: E731
    fixture.read(None, note, *[record(offset, b"no commit") for offset in range(JUDGED_RECORDS)], note)
    assert told == [
        "it still has to read partitions 0 (read up to 0 of 5000)",
        "it still has to read partitions 0 (read up to 1000 of 5000). None of its first records is a commit record: is "
        "its name right, or is it another topic's?",
    ]


def test_a_position_that_is_gone_shuts_the_gate_and_drops_what_was_read_there(fixture: ScriptedSource) -> None:
    """What was read of another partition stays. And trust begins anew, since the log may be another one."""
    fixture.source.assign({KEY: 0, OTHER: 0}, None)
    states: list[tuple[bool, dict[PartitionKey, int | None]]] = []

    def note() -> None:
        published = {key: groups["g"].offset for key, groups in fixture.source.published().items() if groups}
        states.append((fixture.source.ready, published))

    fixture.log.ranges[("log", 0)] = PartitionRange(0, 1)
    fixture.read(
        None,
        record(0, value=b"7"),
        record(0, b"events:1:g", b"8", log_partition=1),
        fixture.verify,
        note,
        position_is_gone(0),
        note,
        fixture.wait(INTERVAL_SECONDS),
        record(0, value=b"6"),
        fixture.verify,
    )
    assert states == [(True, {KEY: 7, OTHER: 8}), (False, {OTHER: 8})]
    assert (fixture.remote(), fixture.remote(OTHER)) == (6, 8)
    assert fixture.log.asked("all ends") == [("log", 1.0), ("log", 1.0)]


def test_when_the_log_was_created_anew_a_client_that_knows_no_other_reads_it(
    fixture: ScriptedSource, caplog: pytest.LogCaptureFixture
) -> None:
    """The earlier one is closed before. It is noticed by the topic's id, which is asked of the log's own cluster."""

    def create_anew() -> None:
        fixture.log.topic_id = "second"
        fixture.clock.now += IDENTITY_SECONDS

    wait = fixture.wait(IDENTITY_SECONDS)
    fixture.read(wait, None, create_anew, None, None, wait, None, None)
    assert fixture.life == ["client 0 is made", "client 0 is closed", "client 1 is made", "client 1 is closed"]
    assert caplog.messages == ["Commit log log was deleted and created again: it is read from its beginning"]
    assert fixture.log.asked("ids")[0] == ["log"]


def test_what_the_client_tells_ends_the_reading_or_has_the_brokers_asked(fixture: ScriptedSource) -> None:
    """A lost connection has the log's brokers asked whether they answer; a missing permission can't be ridden out."""
    lost = KafkaError(KafkaError._TRANSPORT, "connection lost")
    with pytest.raises(KafkaException) as raised:
        fixture.read(
            None,
            lambda: fixture.tell(lost),
            None,
            lambda: fixture.tell(NO_PERMISSION),
            lambda: pytest.fail("it goes on"),
        )
    assert raised.value.args == (NO_PERMISSION,)
    assert fixture.log.asked("ends") == [[("log", 0), ("log", 1)]] * 2, "by two: whether they answer, and how far"
    assert fixture.life == ["client 0 is made", "client 0 is closed"]


def test_lines_about_bad_records_come_once_a_minute(fixture: ScriptedSource, caplog: pytest.LogCaptureFixture) -> None:
    """By the source's clock, and with the commit log's name."""
    fixture.read(None, record(3, b"bad"), record(4, b"bad"), fixture.wait(60.0), record(5, b"bad"))
    assert [line.partition(" (")[0] for line in caplog.messages] == [
        "Skipped a record of log[0] at offset 3",
        "Skipped a record of log[0] at offset 5",
    ]


def test_a_subscription_drops_what_was_read_of_other_topics(fixture: ScriptedSource) -> None:
    """And from then on nothing is kept of them."""
    fixture.read(
        None,
        record(0, b"another:0:g"),
        record(1),
        lambda: fixture.source.subscribe("events"),
        record(2, b"another:1:g"),
    )
    assert set(fixture.source.published()) == {KEY}


def test_an_assignment_asks_the_followers_client_what_it_has_cached(fixture: ScriptedSource) -> None:
    """Of each partition that is assigned."""
    asked: list[PartitionKey] = []

    class Watermarks:
        def cached(self, topic: str, partition: int) -> int | None:
            asked.append((topic, partition))
            return None

    fixture.source.assign({KEY: 0, OTHER: 0}, Watermarks())
    assert asked == [KEY, OTHER]


def test_ends_of_the_log_that_can_not_be_told_are_unknown(fixture: ScriptedSource) -> None:
    """Its own brokers are asked, and each partition that answers has its end."""
    fixture.log.log_ends = {0: 5, 1: NO_ANSWER, 2: 0}
    told: list[Mapping[int, int] | None] = []
    fixture.source._ask_log_ends(2.5, told.append)
    assert told == [{0: 5, 1: LOG_END_UNKNOWN, 2: 0}]
    assert fixture.log.questions == [("all ends", ("log", 2.5))]


def test_the_topic_is_watched_from_its_subscription_on(fixture: ScriptedSource) -> None:
    """By its id, which is asked of its own brokers."""
    fixture.source.subscribe("events")
    fixture.source._verifier.ask()
    assert fixture.data.questions == [("ids", ["events"])]


def test_where_nobody_tells_which_partitions_the_log_has_nothing_is_told(fixture: ScriptedSource) -> None:
    """That is another thing than a log that has none."""
    fixture.log.log_ends = {}
    told: list[Mapping[int, int] | None] = []
    fixture.source._ask_log_ends(2.5, told.append)
    assert told == [None]


def test_the_statistics_tell_of_what_log_partitions_nothing_is_heard(fixture: ScriptedSource) -> None:
    """For how long, of the longest, and what the client has told since; not what it told before."""
    source, clock = fixture.source, fixture.clock
    source._reader.on_error(KafkaError(KafkaError._TRANSPORT, "broker restarts"))
    since = clock.now + 10.0
    clock.now += 40.0
    source._fetch_check._unheard = clock.now, {2: since + 5.0, 0: since}
    seen = source.statistics()
    assert (seen.unheard, seen.unheard_seconds, seen.unheard_because) == ((0, 2), 30.0, "")
    source._reader.on_error(KafkaError(KafkaError._SSL, "certificate expired"))
    assert source.statistics().unheard_because == "certificate expired"
    source._fetch_check._unheard = clock.now, {}
    assert source.statistics().unheard_because == "", "all are heard of, whatever the client tells"


def test_what_the_clients_of_the_logs_brokers_tell_ends_nothing(fixture: ScriptedSource) -> None:
    """The reader finds it out by itself; what those of the data topic's tell, nobody else would."""
    fixture.log.on_error(NO_PERMISSION)
    fixture.source._periodic_checks()
    fixture.data.on_error(NO_PERMISSION)
    with pytest.raises(KafkaException):
        fixture.source._periodic_checks()


@pytest.mark.parametrize(("taken", "left"), [(2.0, 3.0), (7.0, 0.0)], ids=["in time", "too long"])
def test_a_stop_leaves_the_logs_questions_what_is_left_of_its_time(
    fixture: ScriptedSource, taken: float, left: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The data topic's brokers are let go of first, and may have taken it all."""

    def take() -> None:
        fixture.clock.now += taken

    fixture.data.while_stopping = take
    monkeypatch.setattr(consumer_module, "time", SimpleNamespace(monotonic=fixture.clock))
    fixture.source.stop(5.0)
    assert fixture.log.stop_timeouts == [left]
    assert len(fixture.data.stop_timeouts) == 1
