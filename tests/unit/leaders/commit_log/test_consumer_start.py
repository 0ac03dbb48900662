"""How a source on a commit log starts: what it waits for and for how long, and from where it reads."""

from __future__ import annotations

from collections import deque

import pytest
from confluent_kafka import OFFSET_BEGINNING, KafkaError, KafkaException

from arroyo_sync.core.errors import BrokersUnreachable, CommitLogMissing
from arroyo_sync.kafka.questions.asker import PartitionRange
from arroyo_sync.leaders import offset_source
from arroyo_sync.leaders.commit_log import reader as reader_module
from arroyo_sync.leaders.commit_log.log_topic import IDENTITY_SECONDS
from arroyo_sync.leaders.commit_log.recent_start import RETRY_SECONDS, TIMEOUT_SECONDS
from tests.support.scripted_source import (
    KEY,
    NO_ANSWER,
    NOW_MS,
    OTHER,
    ScriptedSource,
    record,
)

NO_TOKEN = KafkaError(KafkaError.SASL_AUTHENTICATION_FAILED, "the issuer is down")


@pytest.fixture
def fixture(monkeypatch: pytest.MonkeyPatch) -> ScriptedSource:
    return ScriptedSource(monkeypatch)


def test_a_missing_token_is_waited_for_as_long_as_for_brokers(
    fixture: ScriptedSource, caplog: pytest.LogCaptureFixture
) -> None:
    """That is half a minute, in which each attempt takes ten seconds. The source ends with what is missing."""

    def fail() -> None:
        fixture.clock.now += 10.0
        raise KafkaException(NO_TOKEN)

    fixture.before_client = fail
    with pytest.raises(BrokersUnreachable, match="there is no token to log in to log:9092 with: the issuer is down"):
        fixture.read()
    line = (
        "Commit log log: there is no token to log in to log:9092 with: the issuer is down. Does oauth_cb raise, and is "
        "what it asks up? It is tried again"
    )
    assert caplog.messages == [line, line]
    assert fixture.life == []


def test_once_there_is_a_token_the_log_is_read(fixture: ScriptedSource) -> None:
    """By the client that was made at last."""
    failures = iter([NO_TOKEN, NO_TOKEN])

    def fail() -> None:
        error = next(failures, None)
        if error is not None:
            raise KafkaException(error)

    fixture.before_client = fail
    fixture.read(None, record(0))
    assert fixture.source.ready
    assert fixture.life == ["client 0 is made", "client 0 is closed"]


def test_a_source_that_is_stopped_without_a_token_ends_at_once(fixture: ScriptedSource) -> None:
    """Quietly: it was asked to."""

    def stop_and_fail() -> None:
        fixture.source._stopping.set()
        raise KafkaException(NO_TOKEN)

    fixture.before_client = stop_and_fail
    fixture.read()
    assert fixture.life == []


def test_a_token_that_is_missing_once_the_log_was_read_is_waited_for_as_long_as_it_takes(
    fixture: ScriptedSource,
) -> None:
    """The next client needs one, too; by then the source rides out what comes."""
    failures = iter([NO_TOKEN] * 10)

    def fail() -> None:
        for error in failures:
            fixture.clock.now += 10.0
            raise KafkaException(error)

    def create_anew() -> None:
        fixture.log.topic_id = "second"
        fixture.clock.now += IDENTITY_SECONDS
        fixture.before_client = fail

    wait = fixture.wait(IDENTITY_SECONDS)
    fixture.read(wait, None, create_anew, None, None, wait, None, None)
    assert next(failures, None) is None
    assert fixture.life == ["client 0 is made", "client 0 is closed", "client 1 is made", "client 1 is closed"]


def test_brokers_of_the_log_that_do_not_answer_end_the_source_in_time(fixture: ScriptedSource) -> None:
    """After as long as was given for it."""
    fixture.make(connect_timeout=5.0)
    fixture.metadata_error = NO_ANSWER
    began = fixture.clock.now
    with pytest.raises(BrokersUnreachable, match="no broker of log:9092 answered within 5 s: nobody answers"):
        fixture.read(*[None] * 10)
    assert fixture.clock.now >= began + 5.0


def test_meanwhile_it_says_what_it_waits_for(fixture: ScriptedSource) -> None:
    """To whoever waits for it to be ready."""
    assert fixture.source._missing() == "it waits for a broker's answer"
    fixture.metadata_error = NO_ANSWER
    fixture.read(None)
    assert fixture.source._missing() == "it waits for an answer of log:9092: nobody answers"


@pytest.mark.parametrize("waits", [False, True], ids=["by default", "if it shall wait"])
def test_a_log_that_does_not_exist_is_waited_for_if_that_is_asked_for(
    fixture: ScriptedSource, waits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its name is taken for a mistake."""
    monkeypatch.setattr(reader_module, "RETRY_SECONDS", 0.0)
    fixture.make(**({"wait_for_topic": True} if waits else {}))
    answers: deque[tuple[int, ...]] = deque([(), (), ()])
    fixture.listed = lambda: answers.popleft() if answers else (0,)
    if waits:
        fixture.read(None)
        assert fixture.source.ready
    else:
        with pytest.raises(CommitLogMissing, match="topic 'log' doesn't exist at log:9092"):
            fixture.read(None)


def test_the_whole_log_is_read_unless_something_else_is_asked_for(fixture: ScriptedSource) -> None:
    """And no group is asked for its commits."""
    fixture.source.assign({KEY: 0}, None)
    fixture.read(None, fixture.source._periodic_checks, None)
    assert fixture.source._periodic_checks() == offset_source.PERIODIC_CHECK_SECONDS
    assert fixture.data.questions == fixture.log.asked("offsets since") == []


@pytest.mark.parametrize("lookback_seconds", [None, 45.0])
def test_a_recent_start_reads_the_logs_end_and_takes_commits_for_the_rest(
    fixture: ScriptedSource, lookback_seconds: float | None
) -> None:
    """It reads the last ten minutes, or as much as was asked for, by the wall clock."""
    fixture.make(start="recent", **({} if lookback_seconds is None else {"lookback_seconds": lookback_seconds}))
    fixture.log.ranges = {("log", each): PartitionRange(0, 50) for each in (0, 1)}
    fixture.log.first_since = {("log", 0): 40, ("log", 1): 30}
    fixture.data.committed = {"g": {KEY: 12, OTHER: 12}}
    fixture.source.assign({KEY: 0, OTHER: 0}, None)
    last = record(49, b"events:0:else", log_partition=1)
    fixture.read(None, record(49, value=b"7"), last, fixture.source._periodic_checks, fixture.verify)
    since_ms = NOW_MS - int((lookback_seconds or 600.0) * 1_000)
    assert fixture.log.asked("offsets since") == [([("log", 0), ("log", 1)], since_ms)]
    assert fixture.clients[0].assigned == {0: 40, 1: 30}
    assert (fixture.remote(KEY), fixture.remote(OTHER)) == (7, 12)


def test_the_checks_of_a_recent_start_come_again_in_time_for_its_questions(fixture: ScriptedSource) -> None:
    """The groups' commits are asked of the data topic's cluster, and again soon if it doesn't tell."""
    fixture.make(start="recent")
    fixture.source.assign({KEY: 0}, None)
    fixture.data.committed = {"g": {KEY: NO_ANSWER}}
    waits: list[float] = []

    def check() -> None:
        waits.append(fixture.source._periodic_checks())

    def answer() -> None:
        fixture.clock.now += RETRY_SECONDS
        fixture.data.committed = {"g": {KEY: 12}}

    fixture.read(None, None, check, answer, check, fixture.verify)
    assert waits == [RETRY_SECONDS, offset_source.PERIODIC_CHECK_SECONDS]
    assert fixture.data.asked("commits") == [("g", [KEY], TIMEOUT_SECONDS)] * 2
    assert fixture.remote() == 12


def test_where_the_data_brokers_know_no_commits_all_is_read_after_all(
    fixture: ScriptedSource, caplog: pytest.LogCaptureFixture
) -> None:
    """The line names them, since it is there that the groups should have committed."""
    fixture.make(start="recent")
    fixture.log.first_since = {("log", 0): 0, ("log", 1): 0}
    fixture.source.assign({KEY: 0}, None)
    ready: list[bool] = []
    fixture.read(
        None,
        lambda: ready.append(fixture.source.ready),
        fixture.source._periodic_checks,
        lambda: ready.append(fixture.source.ready),
        None,
    )
    assert ready == [True, False]
    assert fixture.clients[0].assigned == {0: OFFSET_BEGINNING, 1: OFFSET_BEGINNING}
    assert caplog.messages == [
        "Commit log log is read from its beginning, since group 'g' has committed nothing at data:9092 of the "
        "partitions that are assigned, or that it has reported of",
    ]
