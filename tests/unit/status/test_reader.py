"""What becomes of a leader's report, seen from outside, and of settings that no client can be made of.

The reading itself is shown on the real broker.
"""

from __future__ import annotations

import traceback
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError

from arroyo_sync.core.errors import ArroyoSyncError, BrokersUnreachable, ConfigurationError
from arroyo_sync.core.source import LeaderOffset
from arroyo_sync.kafka.questions.asker import PartitionRange
from arroyo_sync.observe.evaluation import groups_without_report
from arroyo_sync.observe.snapshot import Snapshot
from arroyo_sync.status.reader import StatusQuery, StatusReader, _leader, _open_from
from tests.support.fakes import Clock

QUERY = StatusQuery(
    topic="events",
    follower_group="follower",
    leader_groups=("writers",),
    settings={"bootstrap.servers": "127.0.0.1:1"},
)
UNLED = KafkaError(KafkaError._NOENT, "No leaders found")
REFUSED = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)
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
    leader = _leader("writers", said, committed=None, end=100, topic_id=current_id, now=10.0)
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
        partition = reader._partition(("events", 0), commits, {} if uses_commit_log else None, FOUND, None, 10.0)
        empty = reader._partition(
            ("events", 1), commits, {} if uses_commit_log else None, PartitionRange(7, 7), None, 10.0
        )
        of_empty_topic = reader._partition(
            *(("events", 1), commits, {} if uses_commit_log else None, PartitionRange(7, 7), None, 10.0),
            is_topic_empty=True,
        )
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
