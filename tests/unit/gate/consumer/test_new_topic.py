"""What the flow control does once the data topic was deleted and created again."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest
from arroyo.types import Partition

from arroyo_sync.core.errors import PartitionTruncated, TopicRecreated
from arroyo_sync.core.state import SynchronizedPartitionStateManager
from arroyo_sync.gate.consumer import new_topic
from arroyo_sync.gate.flow_control import FlowControlledConsumer
from tests.support.fakes import EVENTS, ScriptedConsumer, partition
from tests.support.threads import PATIENCE_SECONDS

RECREATED = TopicRecreated("events", "one", "two")


class Flow:
    """A flow control around a scripted consumer that has two partitions."""

    def __init__(self) -> None:
        self.inner = ScriptedConsumer()
        self.inner.committed = {0: 423, 1: 10}
        self.manager = SynchronizedPartitionStateManager()
        self.flow: FlowControlledConsumer[Any] = FlowControlledConsumer(self.inner, self.manager, lambda: None)
        self.flow.subscribe([EVENTS])
        self.inner.assign(0, 1)


@pytest.fixture
def flow() -> Flow:
    return Flow()


@pytest.fixture
def beginnings(monkeypatch: pytest.MonkeyPatch) -> dict[int, list[int | Exception]]:
    """Where each partition begins on the new topic, one answer a question."""
    answers: dict[int, list[int | Exception]] = {0: [0], 1: [5]}

    def reset_offset(
        consumer: object, partition: Partition, timeout: float, *, latest_at_most: int | None = None
    ) -> int:
        answer = answers[partition.index].pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(new_topic, "reset_offset", reset_offset)
    monkeypatch.setattr(new_topic, "RETRY_SECONDS", 0.01)
    return answers


def test_nothing_staged_is_committed_any_more(flow: Flow, beginnings: object) -> None:
    """It is of a topic that isn't there."""
    flow.flow.stage_offsets({partition(0): 430})
    flow.manager.fail(RECREATED)
    assert flow.flow.commit_offsets() is None
    assert flow.inner.committed == {0: 423, 1: 10}


def test_where_the_new_topic_begins_is_committed_before_the_consumer_is_closed(
    flow: Flow, beginnings: object, caplog: pytest.LogCaptureFixture
) -> None:
    """In place of what was staged."""
    caplog.set_level(logging.WARNING)
    flow.flow.stage_offsets({partition(0): 430})
    flow.manager.fail(RECREATED)
    flow.flow.close()
    assert (flow.inner.committed, flow.inner.is_closed) == ({0: 0, 1: 5}, True)
    assert [each.getMessage() for each in caplog.records] == [
        "The group begins on the new topic at events[0]: 0, events[1]: 5"
    ]


@pytest.mark.parametrize(
    ("committed", "begins_at"),
    [(430, 400), (380, 380), (None, 400)],
    ids=["the group was past its end", "it was behind", "it has committed nothing"],
)
def test_where_a_truncated_partition_ends_is_committed_of_it_alone(
    flow: Flow, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, committed: int | None, begins_at: int
) -> None:
    """And nothing of what was staged past it: a restart reads what takes the place of what was lost."""
    caplog.set_level(logging.WARNING)
    monkeypatch.setattr(new_topic, "committed_offset", lambda consumer, partition, timeout: committed)
    flow.flow.stage_offsets({partition(0): 450, partition(1): 12})
    flow.manager.fail(PartitionTruncated("events", {0: 400, 7: 1}, {0: 498, 7: 5}))
    assert flow.flow.commit_offsets() is None
    flow.flow.close()
    assert (flow.inner.committed, flow.inner.is_closed) == ({0: begins_at, 1: 12}, True)
    assert caplog.messages == [f"The group goes on at events[0]: {begins_at}"]


def test_the_end_of_the_new_topic_is_not_past_where_each_assignment_began(
    flow: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have begun on the new topic already. What was staged since, or assigned before, doesn't count."""

    def reset_offset(
        consumer: object, partition: Partition, timeout: float, *, latest_at_most: int | None = None
    ) -> int:
        return 900 if latest_at_most is None else min(900, latest_at_most)

    monkeypatch.setattr(new_topic, "reset_offset", reset_offset)
    flow.inner.revoke(1)
    flow.inner.committed[1] = 70
    flow.inner.assign(1)
    flow.flow.stage_offsets({partition(0): 430, partition(1): 71})
    flow.manager.fail(RECREATED)
    flow.flow.close()
    assert flow.inner.committed == {0: 423, 1: 70}


@pytest.mark.parametrize("failure", [None, RuntimeError("another")])
def test_a_consumer_whose_topic_is_the_same_commits_nothing_when_it_is_closed(
    flow: Flow, beginnings: object, failure: Exception | None
) -> None:
    """However it ends."""
    if failure is not None:
        flow.manager.fail(failure)
    flow.flow.stage_offsets({partition(0): 430})
    flow.flow.commit_offsets()
    flow.flow.close()
    assert flow.inner.committed == {0: 430, 1: 10}


def test_a_question_that_fails_is_asked_again(flow: Flow, beginnings: dict[int, list[int | Exception]]) -> None:
    """The leaders of a topic that was just created may not be known yet."""
    beginnings[0].insert(0, RuntimeError("no leader"))
    flow.manager.fail(RECREATED)
    flow.flow.close()
    assert flow.inner.committed == {0: 0, 1: 5}


def test_a_question_that_fails_is_asked_again_after_a_pause_which_another_close_ends(
    flow: Flow, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, and the consumer is closed all the same."""
    monkeypatch.setattr(new_topic, "RETRY_SECONDS", 1_000.0)
    monkeypatch.setattr(new_topic, "TIMEOUT_SECONDS", 1_000.0)
    asked: list[int] = []
    is_asked = threading.Event()

    def reset_offset(
        consumer: object, partition: Partition, timeout: float, *, latest_at_most: int | None = None
    ) -> int:
        asked.append(partition.index)
        is_asked.set()
        raise RuntimeError("no broker")

    monkeypatch.setattr(new_topic, "reset_offset", reset_offset)
    flow.manager.fail(RECREATED)
    closing = threading.Thread(target=flow.flow.close, daemon=True)
    closing.start()
    assert is_asked.wait(PATIENCE_SECONDS)
    flow.flow.close()
    closing.join(PATIENCE_SECONDS)
    assert not closing.is_alive()
    assert flow.inner.is_closed
    assert asked == [0]
    assert "Couldn't commit where the group begins" in caplog.text


def test_what_can_not_be_committed_is_told_and_the_consumer_closed(
    flow: Flow,
    beginnings: dict[int, list[int | Exception]],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A person must reset the group's offsets."""
    monkeypatch.setattr(new_topic, "TIMEOUT_SECONDS", 0.05)
    beginnings[0] = [RuntimeError("no broker")] * 100_000
    flow.manager.fail(RECREATED)
    flow.flow.close()
    assert flow.inner.is_closed
    (line,) = [each.getMessage() for each in caplog.records if each.levelno == logging.ERROR]
    assert "no broker" in line
    assert "reset them before you restart" in line
