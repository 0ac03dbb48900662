"""A machine that has no more threads for a moment: a question is answered with an error, and the next one is asked."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, TopicPartition
from confluent_kafka.admin import OffsetSpec

from arroyo_sync.core.state import PartitionKey
from arroyo_sync.kafka.questions.answers import deliver_answer
from arroyo_sync.kafka.questions.asker import Asker, PartitionRange
from arroyo_sync.kafka.questions.committed_offsets import GroupCommits
from arroyo_sync.leaders.commit_report import CommitReport
from arroyo_sync.leaders.leader_offsets import LeaderOffsets
from arroyo_sync.leaders.verifier import INTERVAL_SECONDS, Verifier
from tests.support.answers import Answers
from tests.support.fakes import Clock

NOWHERE = {"bootstrap.servers": "127.0.0.1:1", "log_level": 0}
FIRST = ("events", 0)
TIMEOUT_SECONDS = 30.0


@contextmanager
def no_more_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        yield


def test_what_a_group_has_committed_is_asked_for_once_there_are_threads_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The group was never asked about again, and whoever stopped the questions failed."""
    commits = GroupCommits(NOWHERE, "writers", lambda error: None, time.monotonic)
    answers = Answers()
    with no_more_threads(monkeypatch):
        commits.ask([FIRST], 0.1, answers)
        refusal = answers.wait_for(FIRST)
    assert isinstance(refusal, KafkaError)
    assert (refusal.code(), refusal.str()) == (
        KafkaError._TIMED_OUT,
        "nobody could be asked: can't start new thread",
    )
    commits.ask([FIRST], 0.1, answers)
    timed_out = answers.wait_for(FIRST)  # there is no broker
    assert isinstance(timed_out, KafkaError)
    assert "can't start new thread" not in timed_out.str()
    commits.stop()
    commits.join(TIMEOUT_SECONDS)


def test_a_question_that_fails_of_something_else_does_not_end_the_groups_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The group was never asked about again."""
    errors: list[Exception] = [MemoryError("no memory left")]

    class Consumer:
        def __init__(self, settings: object) -> None: ...

        def committed(self, wanted: list[TopicPartition], timeout: float) -> list[TopicPartition]:
            if errors:
                raise errors.pop()
            return [TopicPartition(each.topic, each.partition, 5) for each in wanted]

        def poll(self, timeout: float) -> None: ...

        def close(self) -> None: ...

    monkeypatch.setattr("arroyo_sync.kafka.questions.committed_offsets.Consumer", Consumer)
    commits = GroupCommits(NOWHERE, "writers", lambda error: None, time.monotonic)
    answers = Answers()
    try:
        commits.ask([FIRST], TIMEOUT_SECONDS, answers)
        refusal = answers.wait_for(FIRST)
        assert isinstance(refusal, KafkaError)
        assert "no memory left" in refusal.str()
        commits.ask([FIRST], TIMEOUT_SECONDS, answers)
        assert answers.wait_for(FIRST) == 5
    finally:
        commits.stop()
        commits.join(TIMEOUT_SECONDS)


def test_where_partitions_end_is_asked_for_once_there_are_threads_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose leaders are asked for by a thread."""
    asker = Asker(NOWHERE, lambda error: None)
    answers = Answers()
    try:
        with no_more_threads(monkeypatch):
            asker.ask_end_offsets([FIRST], 0.1, answers)
            refusal = answers.wait_for(FIRST)
        assert isinstance(refusal, KafkaError)
        assert refusal.str() == "nobody could be asked: can't start new thread"
        asker.ask_end_offsets([FIRST], 0.1, answers)
        unreached = answers.wait_for(FIRST)  # there is no broker
        assert isinstance(unreached, KafkaError)
        assert "can't start new thread" not in unreached.str()
    finally:
        asker.stop(TIMEOUT_SECONDS)


class EndsAlone:
    """A client that is told at once where partitions end."""

    cluster_id = None

    def __init__(self) -> None:
        self.asked = 0

    def poll(self) -> None: ...

    def describe(self, *arguments: object) -> None: ...

    def ask_offsets(
        self,
        partitions: Collection[PartitionKey],
        specs: Sequence[OffsetSpec],
        timeout: float,
        on_answer: Callable[[Mapping[PartitionKey, Any]], None],
    ) -> None:
        self.asked += 1
        ends = [SimpleNamespace(offset=0), SimpleNamespace(offset=100)]
        deliver_answer(on_answer, dict.fromkeys(partitions, ends))

    def stop(self, timeout: float) -> None: ...


class NoLookups:
    """Of which the first can't be asked."""

    def __init__(self) -> None:
        self.refusals = 1

    def ask(
        self, partitions: Sequence[PartitionKey], timestamp_ms: int, timeout: float, on_answer: Callable[..., None]
    ) -> None:
        if self.refusals:
            self.refusals -= 1
            raise RuntimeError("can't start new thread")
        on_answer(dict.fromkeys(partitions, SimpleNamespace(offset=0, timestamp_ms=1_000)))

    def stop(self, timeout: float) -> None: ...


def test_progress_a_partition_whose_look_up_could_not_be_asked_is_asked_about_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It was taken to be in flight for good, and its gate stayed shut until the next rebalance."""
    clock, client = Clock(), EndsAlone()
    asker = Asker(NOWHERE, lambda error: None, clock=clock)
    real = asker._client, asker._lookups
    asker._client, asker._lookups = client, NoLookups()  # type: ignore[assignment]
    offsets = LeaderOffsets({"g"})
    verifier = Verifier(offsets, asker, lambda timeout, on_ends: on_ends({0: 5}), clock, lambda: False)
    offsets.enable()
    offsets.assign({FIRST: None})
    verifier.assign([FIRST])
    offsets.apply([CommitReport(FIRST, "g", 50, 10_000, 0, 4)], 0.0)
    verifier.ask()
    assert caplog.messages == [], "of a moment nobody wants to know"
    clock.now += INTERVAL_SECONDS
    verifier.ask()
    verifier.ask()
    assert (client.asked, list(offsets.unanswered())) == (2, [])
    for each in real:
        each.stop(TIMEOUT_SECONDS)


def test_a_look_up_that_could_not_be_asked_leaves_the_first_message_unknown() -> None:
    """The ends are known all the same."""
    asker = Asker(NOWHERE, lambda error: None)
    real = asker._client, asker._lookups
    asker._client, asker._lookups = EndsAlone(), NoLookups()  # type: ignore[assignment]
    answers = Answers()
    asker.ask_ranges([FIRST], 1.0, answers)
    assert answers.given == {FIRST: PartitionRange(0, 100, is_first_known=False)}
    assert asker._watches[1]._unanswered.keys() == {FIRST}, "and it is told of, if it lasts"
    for each in real:
        each.stop(TIMEOUT_SECONDS)
