"""What the flow control does once the data topic was deleted and created again."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from arroyo.types import Partition
from confluent_kafka import KafkaError, KafkaException

from arroyo_sync.core.errors import AnotherCluster, PartitionTruncated, TopicMissing, TopicRecreated
from arroyo_sync.core.state import SynchronizedPartitionStateManager
from arroyo_sync.gate.consumer import beginning_questions, replaced_log
from arroyo_sync.gate.consumer.beginning_questions import LOOK_BACK_SECONDS
from arroyo_sync.gate.consumer.replaced_log import ReplacedLog
from arroyo_sync.gate.consumer.start_positions import QUERY_TIMEOUT_SECONDS, RETRY_SECONDS, StartPositions
from arroyo_sync.gate.flow_control import FlowControlledConsumer
from arroyo_sync.kafka.commits import drop_staged
from tests.support.fakes import EVENTS, Clock, ScriptedConsumer, partition
from tests.support.pipelines import Pipeline
from tests.support.threads import PATIENCE_SECONDS

RECREATED = TopicRecreated("events", "one", "two")
NOTICED_AT = 1_000.0 + LOOK_BACK_SECONDS
"""Unix seconds."""
CAN_NOT_TELL = KafkaException(KafkaError(KafkaError.UNSUPPORTED_VERSION))


def truncated(ends: Mapping[int, int], read_to: Mapping[int, int]) -> PartitionTruncated:
    error = PartitionTruncated("events", ends, read_to)
    error.noticed_at = NOTICED_AT
    return error


class Flow:
    """A flow control around a scripted consumer that has two partitions."""

    def __init__(self, on_revoke: Callable[[object], None] | None = None) -> None:
        self.inner = ScriptedConsumer()
        self.inner.committed = {0: 423, 1: 10}
        self.manager = SynchronizedPartitionStateManager()
        self.is_another = False
        self.checks = 0
        self.flow: FlowControlledConsumer[Any] = FlowControlledConsumer(
            self.inner, self.manager, lambda: None, check_topic=self.check_topic
        )
        self.flow.subscribe([EVENTS], on_revoke=on_revoke)
        self.inner.assign(0, 1)

    def check_topic(self, timeout: float) -> None:
        """As the source does: it may learn of the new topic by this question only."""
        assert timeout == replaced_log.CHECK_SECONDS
        self.checks += 1
        if self.is_another:
            self.manager.fail(RECREATED)


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
        assert (consumer is None, partition.topic.name) == (False, "events")
        assert 0.0 < timeout <= QUERY_TIMEOUT_SECONDS
        answer = answers[partition.index].pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(beginning_questions, "reset_offset", reset_offset)
    monkeypatch.setattr(replaced_log, "RETRY_SECONDS", 0.01)
    return answers


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the clock shows, in its one item. Pauses take no time of the test's."""
    now = [100.0]

    def pause(log: ReplacedLog, timeout: float) -> bool:
        now[0] += timeout
        return False

    for module in (replaced_log, beginning_questions):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(replaced_log, "RETRY_SECONDS", 0.5)
    monkeypatch.setattr(ReplacedLog, "_has_given_up", pause)
    return now


def be_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A question that fails is asked again after so long that only `ReplacedLog.give_up` can end it."""
    for name in ("RETRY_SECONDS", "TIMEOUT_SECONDS"):
        monkeypatch.setattr(replaced_log, name, 1_000.0)


def test_a_coordinator_that_is_away_is_asked_once_the_beginning_is_staged(
    flow: Flow, beginnings: dict[int, list[int | Exception]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under auto-commit librdkafka commits what is staged as the consumer is closed: of the earlier topic, else. And a
    commit would wait for the coordinator for minutes."""
    staged: list[tuple[dict[Partition, int], list[Partition], float]] = []

    def ask(
        consumer: ScriptedConsumer, partitions: Collection[Partition], timeout: float
    ) -> dict[Partition, int | None]:
        staged.append((dict(consumer._staged), list(partitions), timeout))
        return {}

    monkeypatch.setattr(replaced_log, "committed_so_far", ask)
    flow.manager.fail(RECREATED)
    flow.flow.close()
    assert staged == [({partition(0): 0, partition(1): 5}, [partition(0), partition(1)], QUERY_TIMEOUT_SECONDS)]


def test_what_was_committed_before_is_told(
    flow: Flow,
    beginnings: dict[int, list[int | Exception]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Brokers may tell another id of a topic that is the same, and then a person must put it back."""
    before = {partition(0): 423, partition(1): None}
    monkeypatch.setattr(replaced_log, "committed_so_far", lambda consumer, partitions, timeout: before)
    flow.manager.fail(RECREATED)
    flow.flow.close()
    assert caplog.messages == ["The group begins on the new topic at events[0]: 0 (before: 423), events[1]: 5"]


@pytest.mark.parametrize("is_revoked", [True, False], ids=["revoked", "closed"])
def test_of_a_topic_that_was_deleted_nothing_staged_is_committed(
    flow: Flow, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, is_revoked: bool
) -> None:
    """Under KIP-848 its partitions are revoked at once. What librdkafka commits then may reach the new topic."""
    dropped: list[list[Partition]] = []

    def drop(consumer: ScriptedConsumer, partitions: Collection[Partition]) -> None:
        dropped.append(list(partitions))
        drop_staged(consumer, partitions)

    def check_topic(timeout: float) -> None:
        raise TopicMissing("gone")

    monkeypatch.setattr(replaced_log, "drop_staged", drop)
    monkeypatch.setattr(flow.flow._replaced_log, "_check_topic", check_topic)
    flow.flow.stage_offsets({partition(0): 430})
    flow.inner.revoke(0) if is_revoked else flow.flow.close()
    assert [sorted(each) for each in dropped] == [[partition(0), partition(1)]]
    assert flow.inner._staged == {}
    assert flow.inner.committed == {0: 423, 1: 10}
    assert caplog.messages == []


def test_nothing_staged_is_committed_any_more(flow: Flow, beginnings: object) -> None:
    """It is of a topic that isn't there."""
    flow.flow.stage_offsets({partition(0): 430})
    flow.manager.fail(RECREATED)
    assert flow.flow.commit_offsets() is None
    assert flow.inner.committed == {0: 423, 1: 10}


def test_where_an_assignment_began_is_not_committed_any_more_by_a_poll_without_a_message() -> None:
    """Though it is still to be committed: it is of a topic that isn't there."""
    pipeline = Pipeline(clock=(clock := Clock()))
    pipeline.consumer.commit_errors.append(RuntimeError("coordinator is away"))
    pipeline.start(0)
    pipeline.manager.fail(RECREATED)
    clock.now += RETRY_SECONDS
    pipeline.flow.poll(0.0)
    assert pipeline.consumer.committed == {}


def test_where_the_new_topic_begins_is_committed_before_the_consumer_is_closed(
    flow: Flow, beginnings: object, caplog: pytest.LogCaptureFixture
) -> None:
    """In place of what was staged. That it is another topic is known, so nobody is asked."""
    caplog.set_level(logging.WARNING)
    flow.flow.stage_offsets({partition(0): 430})
    flow.manager.fail(RECREATED)
    flow.flow.close()
    assert (flow.inner.committed, flow.inner.is_closed, flow.checks) == ({0: 0, 1: 5}, True, 0)
    assert [each.getMessage() for each in caplog.records] == [
        "The group begins on the new topic at events[0]: 0, events[1]: 5"
    ]


def test_the_beginnings_are_committed_by_name(flow: Flow, beginnings: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """They lie before what was committed, which librdkafka's auto-commit takes for nothing to do."""
    named: list[dict[Partition, int]] = []
    monkeypatch.setattr(replaced_log, "commit_staged", lambda consumer, by_name: named.append(dict(by_name)))
    flow.manager.fail(RECREATED)
    flow.flow.close()
    assert named == [{partition(0): 0, partition(1): 5}]


@pytest.fixture(autouse=True)
def since(monkeypatch: pytest.MonkeyPatch) -> list[int | Exception | None]:
    """In its one item, from where on messages are young enough to take the place of what is gone."""
    found: list[int | Exception | None] = [None]

    def first_offset_since(consumer: object, partition: Partition, timestamp_ms: int, timeout: float) -> int | None:
        assert (consumer is None, partition.topic.name, timestamp_ms) == (False, "events", 1_000_000)
        assert timeout > 0.0
        if isinstance(found[0], Exception):
            raise found[0]
        return found[0]

    monkeypatch.setattr(beginning_questions, "first_offset_since", first_offset_since)
    return found


def reset_to(offset: int) -> Callable[..., int]:
    """As ``earliest`` finds the partition's beginning there."""
    return lambda consumer, partition, timeout, latest_at_most: offset


def reset_to_latest(consumer: object, partition: Partition, timeout: float, *, latest_at_most: int | None) -> int:
    """As ``latest`` finds the end beyond."""
    return 1_000 if latest_at_most is None else latest_at_most


@pytest.mark.parametrize(
    ("committed", "written_since", "begins_at"),
    [
        pytest.param(430, None, 400, id="the group was past its end"),
        pytest.param(380, None, 380, id="it was behind"),
        pytest.param(430, 390, 390, id="it may have been truncated there, and have grown since"),
        pytest.param(380, 390, 380, id="it was behind that, too"),
        pytest.param(430, 410, 400, id="what is young came later"),
        pytest.param(430, CAN_NOT_TELL, 400, id="nobody can tell"),
        pytest.param(None, 390, 3, id="it has committed nothing"),
    ],
)
def test_where_a_truncated_partition_goes_on_is_committed_of_it_alone(
    flow: Flow,
    since: list[int | Exception | None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    committed: int | None,
    written_since: int | Exception | None,
    begins_at: int,
) -> None:
    """And nothing of what was staged past it: a restart reads what takes the place of what was lost."""
    caplog.set_level(logging.WARNING)
    since[0] = written_since
    monkeypatch.setattr(beginning_questions, "committed_offset", lambda consumer, partition, timeout: committed)
    monkeypatch.setattr(beginning_questions, "reset_offset", reset_to(3))
    monkeypatch.setattr(beginning_questions, "end_offset", lambda consumer, partition, timeout: 500)
    flow.flow.stage_offsets({partition(0): 450, partition(1): 12})
    flow.manager.fail(truncated({0: 400, 7: 1}, {0: 498, 7: 5}))
    assert flow.flow.commit_offsets() is None
    flow.flow.close()
    assert (flow.inner.committed, flow.inner.is_closed) == ({0: begins_at, 1: 12}, True)
    said = [f"The group goes on at events[0]: {begins_at}"]
    if written_since is CAN_NOT_TELL:
        said.insert(0, f"The brokers can't look up by time what may have come in place of what is gone: {CAN_NOT_TELL}")
    assert caplog.messages == said


@pytest.mark.parametrize("written_since", [None, CAN_NOT_TELL])
def test_what_an_open_transaction_has_written_since_is_not_skipped(
    flow: Flow,
    since: list[int | Exception | None],
    ends: dict[int, list[int | Exception]],
    written_since: int | Exception | None,
) -> None:
    """The brokers look up by time only what may be read. The source was told of all that is there."""
    since[0] = written_since
    ends[0], ends[1] = [390], [1_000]
    flow.flow.stage_offsets({partition(0): 423})
    flow.flow.commit_offsets()
    flow.manager.fail(TRUNCATED)
    flow.flow.close()
    assert flow.inner.committed == {0: 390, 1: 10}


def test_with_latest_and_nothing_committed_what_has_come_since_is_not_skipped(
    flow: Flow,
    since: list[int | Exception | None],
    ends: dict[int, list[int | Exception]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where the assignment began may be gone, too."""
    since[0], ends[1] = 390, [1_000]
    monkeypatch.setattr(beginning_questions, "committed_offset", lambda consumer, partition, timeout: None)
    flow.manager.fail(TRUNCATED)
    flow.flow.close()
    assert flow.inner.committed[0] == 390


@pytest.mark.parametrize("code", [KafkaError._TIMED_OUT, KafkaError.NOT_LEADER_FOR_PARTITION])
def test_while_nobody_tells_what_has_come_since_it_is_asked_again(
    flow: Flow,
    ends: dict[int, list[int | Exception]],
    since: list[int | Exception | None],
    monkeypatch: pytest.MonkeyPatch,
    code: int,
) -> None:
    """To go on at the end might skip it."""
    since[0] = KafkaException(KafkaError(code))
    ends[1] = [500] * 2

    def pause(log: ReplacedLog, timeout: float) -> bool:
        since[0] = 390
        return False

    monkeypatch.setattr(ReplacedLog, "_has_given_up", pause)
    flow.manager.fail(TRUNCATED)
    flow.flow.close()
    assert flow.inner.committed == {0: 390, 1: 10}


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch, flow: Flow) -> dict[int, list[int | Exception]]:
    """Where each partition ends, one answer a question. What the group has committed can be asked."""
    answers: dict[int, list[int | Exception]] = {}

    def end_offset(consumer: object, partition: Partition, timeout: float) -> int:
        if partition.index not in answers:
            return 1_000  # it has grown since
        answer = answers[partition.index].pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def committed_offset(consumer: object, partition: Partition, timeout: float) -> int | None:
        return flow.inner.committed.get(partition.index)

    monkeypatch.setattr(beginning_questions, "end_offset", end_offset)
    monkeypatch.setattr(beginning_questions, "committed_offset", committed_offset)
    monkeypatch.setattr(beginning_questions, "reset_offset", reset_to_latest)
    return answers


TRUNCATED = truncated({0: 400}, {0: 498})


@pytest.mark.parametrize(
    ("staged", "read_to", "end", "goes_on"),
    [
        (None, 10, 10, 10),
        (None, 10, 7, 7),
        (12, 12, 12, 12),
        (12, 12, 11, 10),
        (12, 12, 7, 7),
        (None, 12, 11, 10),
        (12, 9, 11, 10),
    ],
    ids=[
        "it is whole",
        "the commit is past its end",
        "what is staged is whole",
        "what is staged is past its end",
        "both are",
        "what was read is",
        "what is staged is, though it was to be read again",
    ],
)
def test_another_partition_that_was_truncated_goes_on_where_it_ends(
    flow: Flow,
    ends: dict[int, list[int | Exception]],
    staged: int | None,
    read_to: int,
    end: int,
    goes_on: int,
) -> None:
    """The source fails by the answer of the first broker, and the others' come no more. The group has committed 10."""
    ends[1] = [end]
    flow.inner.seek({partition(1): read_to})
    if staged is not None:
        flow.flow.stage_offsets({partition(1): staged})
    flow.manager.fail(TRUNCATED)
    flow.flow.close()
    assert flow.inner.committed == {0: 400, 1: goes_on}


def test_under_auto_commit_another_partition_that_was_read_past_its_end_goes_on_there(
    flow: Flow, ends: dict[int, list[int | Exception]]
) -> None:
    """What is staged of it isn't shown then, and may lie as far."""
    flow.inner._KafkaConsumer__use_auto_commit = True  # type: ignore[attr-defined]
    ends[1] = [11]
    flow.inner.seek({partition(1): 12})
    flow.flow.stage_offsets({partition(1): 12})
    flow.manager.fail(TRUNCATED)
    flow.flow.close()
    assert flow.inner.committed == {0: 400, 1: 10}


def test_another_partition_of_which_nothing_is_committed_goes_on_where_it_ends(
    flow: Flow, ends: dict[int, list[int | Exception]]
) -> None:
    """If it ends before where the assignment began, whose commit failed."""
    del flow.inner.committed[1]
    ends[1] = [7]
    flow.manager.fail(TRUNCATED)
    flow.flow.close()
    assert flow.inner.committed == {0: 400, 1: 7}


def test_another_partition_that_can_not_be_asked_is_left_alone(
    flow: Flow, ends: dict[int, list[int | Exception]], seconds: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    """It may be whole, so it holds nobody up for long. What was staged of it may lie beyond its end."""
    ends[1] = [RuntimeError("no broker")] * 100
    flow.flow.stage_offsets({partition(1): 12})
    flow.manager.fail(TRUNCATED)
    flow.flow.close()
    assert flow.inner.committed == {0: 400, 1: 10}
    (line,) = [each.getMessage() for each in caplog.records if each.levelno == logging.ERROR]
    assert line == (
        "Couldn't commit where the group begins: no broker. Reset what it has committed of events[1] past the end, as "
        "of a truncated partition, before you restart, or messages are skipped"
    )
    assert seconds[0] - 100.0 == QUERY_TIMEOUT_SECONDS


def test_a_partition_that_is_known_to_be_truncated_is_asked_first(
    flow: Flow, ends: dict[int, list[int | Exception]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others may not answer."""
    asked: list[int] = []

    def committed_offset(consumer: object, partition: Partition, timeout: float) -> int:
        asked.append(partition.index)
        return 3

    ends[0] = [500]
    monkeypatch.setattr(beginning_questions, "committed_offset", committed_offset)
    flow.manager.fail(truncated({1: 7}, {1: 10}))
    flow.flow.close()
    assert asked == [1, 0]


def test_both_kinds_of_partitions_that_are_left_are_told(
    flow: Flow,
    ends: dict[int, list[int | Exception]],
    seconds: list[float],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The coordinator of the group is away."""

    def committed_offset(consumer: object, partition: Partition, timeout: float) -> int | None:
        raise RuntimeError("no coordinator")

    monkeypatch.setattr(beginning_questions, "committed_offset", committed_offset)
    flow.manager.fail(TRUNCATED)
    flow.flow.close()
    first, second = [each.getMessage() for each in caplog.records if each.levelno == logging.ERROR]
    assert "Its commits of events[0] are of what was there before" in first
    assert "committed of events[1] past the end" in second


def test_the_second_question_of_a_partition_has_what_the_first_has_left(
    flow: Flow, seconds: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a moment, if that is nothing."""
    timeouts: list[float] = []

    def ask(consumer: object, partition: Partition, timeout: float) -> int:
        if partition.index:
            timeouts.append(timeout)
        seconds[0] += 1.0 if partition.index == 1 else 3.0 if partition.index else 0.0
        return 10

    monkeypatch.setattr(beginning_questions, "committed_offset", ask)
    monkeypatch.setattr(beginning_questions, "end_offset", ask)
    flow.inner.assign(2)
    flow.manager.fail(TRUNCATED)
    flow.flow.close()
    assert timeouts == [2.5, 1.5, 3.0, beginning_questions.SHORTEST_QUERY_SECONDS]


def test_a_truncated_partition_of_which_nothing_is_committed_begins_where_it_would_have(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """But no later than where it ended. There is no source to ask once more."""
    caplog.set_level(logging.WARNING)
    monkeypatch.setattr(replaced_log, "TIMEOUT_SECONDS", 0.05)
    monkeypatch.setattr(beginning_questions, "committed_offset", lambda consumer, partition, timeout: None)
    monkeypatch.setattr(beginning_questions, "reset_offset", reset_to_latest)
    monkeypatch.setattr(beginning_questions, "end_offset", lambda consumer, partition, timeout: 1_000)
    inner, manager = ScriptedConsumer(), SynchronizedPartitionStateManager()
    inner.assign(0, 1)
    start = StartPositions(inner, Clock())
    start.positions[partition(1)] = 423
    manager.fail(truncated({0: 400, 1: 410}, {0: 498, 1: 498}))
    ReplacedLog(inner, manager, None, start).leave([partition(0), partition(1)])
    assert inner.committed == {0: 400, 1: 410}
    assert caplog.messages == ["The group goes on at events[0]: 400, events[1]: 410"]


def test_the_end_of_the_new_topic_is_not_past_where_each_assignment_began(
    flow: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have begun on the new topic already. What was staged since, or assigned before, doesn't count."""

    def reset_offset(
        consumer: object, partition: Partition, timeout: float, *, latest_at_most: int | None = None
    ) -> int:
        return 900 if latest_at_most is None else min(900, latest_at_most)

    monkeypatch.setattr(beginning_questions, "reset_offset", reset_offset)
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


@pytest.mark.parametrize(
    ("failure", "question"),
    [
        (RECREATED, "reset_offset"),
        (truncated(dict.fromkeys(range(3), 3), dict.fromkeys(range(3), 5)), "committed_offset"),
    ],
)
def test_questions_share_five_seconds_and_have_no_more_than_is_left(
    flow: Flow, monkeypatch: pytest.MonkeyPatch, seconds: list[float], failure: Exception, question: str
) -> None:
    """A third of them for the first of three; one after 13.5 of the 15 seconds what is left, shared; then none."""
    asked: list[tuple[int, float]] = []

    def ask(consumer: object, partition: Partition, timeout: float, *, latest_at_most: int | None = None) -> int:
        assert consumer is flow.inner
        asked.append((partition.index, timeout))
        seconds[0] += 13.0
        return 3

    flow.inner.assign(2)
    flow.manager.fail(failure)
    monkeypatch.setattr(beginning_questions, question, ask)
    monkeypatch.setattr(beginning_questions, "end_offset", lambda consumer, partition, timeout: 1_000)
    flow.flow.close()
    assert asked == [(0, 5 / 3), (1, 1.5 / 2)]
    assert flow.inner.committed == {0: 3, 1: 3, 2: 0}


def test_a_question_has_a_moment_at_least(flow: Flow, monkeypatch: pytest.MonkeyPatch, seconds: list[float]) -> None:
    """However many there are."""
    asked: list[float] = []

    def reset_offset(consumer: object, partition: Partition, timeout: float, **other: object) -> int:
        asked.append(timeout)
        return 3

    flow.inner.assign(*range(2, 80))
    flow.manager.fail(RECREATED)
    monkeypatch.setattr(beginning_questions, "reset_offset", reset_offset)
    flow.flow.close()
    assert (len(asked), asked[0], asked[-1]) == (80, beginning_questions.SHORTEST_QUERY_SECONDS, 5.0)


def test_what_has_answered_is_committed_before_the_rest_is_asked_again(
    flow: Flow, beginnings: dict[int, list[int | Exception]], caplog: pytest.LogCaptureFixture
) -> None:
    """One partition that can't be asked costs the others nothing, and what was staged of it is of the earlier topic."""
    caplog.set_level(logging.WARNING)
    commits: list[Mapping[int, int]] = []
    flow.inner.on_commit = commits.append
    beginnings[0] = [RuntimeError("no leader"), 2]
    flow.flow.stage_offsets({partition(0): 430, partition(1): 430})
    flow.manager.fail(RECREATED)
    flow.flow.close()
    assert commits == [{1: 5}, {0: 2}]
    assert caplog.messages == [
        "The group begins on the new topic at events[1]: 5",
        "The group begins on the new topic at events[0]: 2",
    ]


def test_what_librdkafka_has_stored_of_a_partition_that_can_not_be_asked_is_not_committed(
    flow: Flow, beginnings: dict[int, list[int | Exception]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under auto-commit it would commit that as it closes, whatever is staged by name."""
    dropped: list[list[Partition]] = []
    monkeypatch.setattr(replaced_log, "drop_staged", lambda consumer, partitions: dropped.append(list(partitions)))
    beginnings[0] = [RuntimeError("no leader"), 2]
    flow.manager.fail(RECREATED)
    flow.flow.close()
    assert dropped == [[partition(0)], []]


def test_only_what_is_left_is_told_to_be_reset(
    flow: Flow,
    beginnings: dict[int, list[int | Exception]],
    seconds: list[float],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """And nothing is committed of it, now or as another partition is assigned."""
    beginnings[0] = [RuntimeError("no broker")] * 100
    flow.flow._start.stage({partition(0): 424})
    flow.flow.stage_offsets({partition(0): 430})
    flow.manager.fail(RECREATED)
    flow.inner.revoke(1)
    flow.inner.assign(1)
    assert flow.inner.committed == {0: 423, 1: 5}
    (line,) = [each.getMessage() for each in caplog.records if each.levelno == logging.ERROR]
    assert line == (
        "Couldn't commit where the group begins: no broker. Its commits of events[0] are of what was there before: "
        "reset them before you restart, or messages are skipped"
    )


def test_brokers_that_are_down_leave_the_others_time(
    flow: Flow, monkeypatch: pytest.MonkeyPatch, seconds: list[float]
) -> None:
    """Of 300 partitions 120 are led by one of them, and come first: each takes all the time that it is given."""
    committed_after: dict[int, float] = {}

    def reset_offset(consumer: object, partition: Partition, timeout: float, **other: object) -> int:
        if partition.index < 120:
            seconds[0] += timeout
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        seconds[0] += 0.001
        return 3

    def note(offsets: Mapping[int, int]) -> None:
        committed_after.update(dict.fromkeys(offsets, seconds[0] - 100.0))

    flow.inner.assign(*range(2, 300))
    flow.inner.on_commit = note
    flow.manager.fail(RECREATED)
    monkeypatch.setattr(beginning_questions, "reset_offset", reset_offset)
    flow.flow.close()
    assert committed_after.keys() == set(range(120, 300))
    assert seconds[0] == pytest.approx(115.0, abs=2 * beginning_questions.SHORTEST_QUERY_SECONDS)


@pytest.mark.parametrize(("count", "takes"), [(2, 2.0), (17, 0.3), (20, 0.3), (64, 0.1)])
def test_brokers_that_are_slow_are_given_longer(
    flow: Flow, monkeypatch: pytest.MonkeyPatch, seconds: list[float], count: int, takes: float
) -> None:
    """Equal shares of the time would be too short for each, round after round, and nothing ever committed."""

    def reset_offset(consumer: object, partition: Partition, timeout: float, **other: object) -> int:
        seconds[0] += min(takes, timeout)
        if timeout < takes:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        return 3

    flow.inner.assign(*range(2, count))
    flow.manager.fail(RECREATED)
    monkeypatch.setattr(beginning_questions, "reset_offset", reset_offset)
    flow.flow.close()
    assert flow.inner.committed == dict.fromkeys(range(count), 3)


def test_partitions_that_are_only_maybe_truncated_take_no_time_of_those_that_are(
    flow: Flow, monkeypatch: pytest.MonkeyPatch, seconds: list[float]
) -> None:
    """Of sixty the brokers take a while to tell; of the one that is truncated they have told a moment ago."""

    def committed_offset(consumer: object, partition: Partition, timeout: float) -> int:
        seconds[0] += min(0.3, timeout)
        if timeout < 0.3:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        return 430

    flow.inner.assign(*range(2, 60))
    monkeypatch.setattr(beginning_questions, "committed_offset", committed_offset)
    monkeypatch.setattr(beginning_questions, "end_offset", lambda consumer, partition, timeout: 500)
    flow.manager.fail(TRUNCATED)
    flow.flow.close()
    assert flow.inner.committed[0] == 400


UNKNOWN_PARTITION = KafkaException(KafkaError(KafkaError._UNKNOWN_PARTITION))


def test_a_partition_that_the_new_topic_does_not_have_is_given_up(
    flow: Flow,
    beginnings: dict[int, list[int | Exception]],
    seconds: list[float],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The topic has fewer now. Not at once: the client may not have heard of it yet."""
    caplog.set_level(logging.WARNING)
    beginnings[0] = [0, 0]
    beginnings[1] = [UNKNOWN_PARTITION] * 100
    flow.flow.stage_offsets({partition(1): 430})
    flow.manager.fail(RECREATED)
    flow.flow.close()
    assert flow.inner.committed == {0: 0, 1: 10}
    assert caplog.messages == [
        "The group begins on the new topic at events[0]: 0",
        "The new topic has no events[1]: nothing is committed of it",
    ]
    assert seconds == [pytest.approx(100.0 + beginning_questions.GONE_SECONDS, abs=0.1)]


@pytest.mark.parametrize("answer", [UNKNOWN_PARTITION, RuntimeError("no broker")], ids=["unknown", "another error"])
def test_a_partition_is_not_given_up_before_the_client_has_heard_of_the_topic(
    flow: Flow,
    beginnings: dict[int, list[int | Exception]],
    seconds: list[float],
    caplog: pytest.LogCaptureFixture,
    answer: Exception,
) -> None:
    """Each topic has a partition 0. One that isn't known yet gives the same answer as one that is no more."""
    beginnings[0] = [answer] * 100
    beginnings[1] = [UNKNOWN_PARTITION] * 100
    flow.manager.fail(RECREATED)
    flow.flow.close()
    assert [each.levelname for each in caplog.records] == ["ERROR"]
    assert "commits of events[0], events[1] are" in caplog.text


def test_a_partition_that_becomes_known_is_committed(
    flow: Flow,
    beginnings: dict[int, list[int | Exception]],
    seconds: list[float],
) -> None:
    """It wasn't unknown all the while."""
    beginnings[0] = [0, 0]
    beginnings[1] = [*[UNKNOWN_PARTITION] * 5, RuntimeError("no leader"), *[UNKNOWN_PARTITION] * 5, 2]
    flow.manager.fail(RECREATED)
    flow.flow.close()
    assert flow.inner.committed == {0: 0, 1: 2}


def test_a_question_that_fails_is_asked_again(flow: Flow, beginnings: dict[int, list[int | Exception]]) -> None:
    """The leaders of a topic that was just created may not be known yet."""
    beginnings[0].insert(0, RuntimeError("no leader"))
    flow.manager.fail(RECREATED)
    flow.flow.close()
    assert flow.inner.committed == {0: 0, 1: 5}


def test_a_commit_that_fails_is_tried_again(flow: Flow, beginnings: dict[int, list[int | Exception]]) -> None:
    """The coordinator of the group may be about to be another broker."""
    beginnings.update({0: [0, 0], 1: [5, 5]})
    flow.inner.commit_errors.append(RuntimeError("coordinator is away"))
    flow.manager.fail(RECREATED)
    flow.flow.close()
    assert flow.inner.committed == {0: 0, 1: 5}


def test_an_error_is_told_rather_than_that_a_turn_did_not_come(
    flow: Flow, monkeypatch: pytest.MonkeyPatch, seconds: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    """The newest one. By it a person may see what is wrong with the brokers."""
    errors = [RuntimeError("no leader"), RuntimeError("no broker")]

    def reset_offset(consumer: object, partition: Partition, timeout: float, **other: object) -> int:
        seconds[0] += 10.0
        raise errors.pop(0)

    monkeypatch.setattr(beginning_questions, "reset_offset", reset_offset)
    flow.manager.fail(RECREATED)
    flow.flow.close()
    assert "Couldn't commit where the group begins: no broker. " in caplog.text


def test_a_question_that_fails_is_asked_again_after_a_pause_which_another_close_ends(
    flow: Flow, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, and the consumer is closed all the same."""
    be_patient(monkeypatch)
    asked: list[int] = []
    is_asked = threading.Event()

    def reset_offset(
        consumer: object, partition: Partition, timeout: float, *, latest_at_most: int | None = None
    ) -> int:
        asked.append(partition.index)
        if partition.index == 1:
            is_asked.set()
        raise RuntimeError("no broker")

    monkeypatch.setattr(beginning_questions, "reset_offset", reset_offset)
    flow.manager.fail(RECREATED)
    closing = threading.Thread(target=flow.flow.close, daemon=True)
    closing.start()
    assert is_asked.wait(PATIENCE_SECONDS)
    flow.flow.close()
    closing.join(PATIENCE_SECONDS)
    assert not closing.is_alive()
    assert flow.inner.is_closed
    assert asked == [0, 1]
    assert "Couldn't commit where the group begins" in caplog.text


def test_what_can_not_be_committed_is_told_and_the_consumer_closed(
    flow: Flow,
    beginnings: dict[int, list[int | Exception]],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A person must reset the group's offsets."""
    monkeypatch.setattr(replaced_log, "TIMEOUT_SECONDS", 0.05)
    beginnings[0] = [RuntimeError("no broker")] * 100_000
    flow.manager.fail(RECREATED)
    flow.flow.close()
    assert flow.inner.is_closed
    (line,) = [each.getMessage() for each in caplog.records if each.levelno == logging.ERROR]
    assert line == (
        "Couldn't commit where the group begins: no broker. Its commits of events[0] are of what was there before: "
        "reset them before you restart, or messages are skipped"
    )


def test_a_pause_takes_no_more_time_than_is_left(
    flow: Flow, beginnings: dict[int, list[int | Exception]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rebalance waits for it."""
    be_patient(monkeypatch)
    monkeypatch.setattr(replaced_log, "TIMEOUT_SECONDS", 0.05)
    beginnings[0] = [RuntimeError("no broker")] * 10
    flow.manager.fail(RECREATED)
    closing = threading.Thread(target=flow.flow.close, daemon=True)
    closing.start()
    closing.join(PATIENCE_SECONDS)
    assert not closing.is_alive()
    assert flow.inner.committed == {0: 423, 1: 5}


def test_no_try_begins_once_a_pause_has_taken_what_was_left(
    flow: Flow, beginnings: dict[int, list[int | Exception]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pause ends when the time does, and with it all tries."""
    monkeypatch.setattr(replaced_log, "RETRY_SECONDS", 1_000.0)
    monkeypatch.setattr(replaced_log, "TIMEOUT_SECONDS", 0.05)
    beginnings[0] = [RuntimeError("no broker"), 0]
    flow.manager.fail(RECREATED)
    flow.flow.close()
    assert beginnings[0] == [0]


def test_whether_the_topic_is_another_is_asked_once_more_before_the_consumer_is_closed(
    flow: Flow, beginnings: object
) -> None:
    """The client may have come to its end, out of range, before the source noticed."""
    flow.flow.stage_offsets({partition(0): 430})
    flow.flow.commit_offsets()
    flow.is_another = True
    flow.flow.close()
    assert (flow.inner.committed, flow.inner.is_closed, flow.checks) == ({0: 0, 1: 5}, True, 1)


def test_a_revoked_partition_is_handed_over_at_the_beginning_of_the_new_topic(
    flow: Flow, beginnings: dict[int, list[int | Exception]]
) -> None:
    """Whoever has it next may never have known the earlier one. What stays here begins anew as well."""
    flow.is_another = True
    flow.inner.revoke(0)
    assert (flow.inner.committed, flow.checks) == ({0: 0, 1: 5}, 1)


def test_where_an_assignment_began_is_not_committed_over_the_beginning_of_the_new_topic(
    flow: Flow, beginnings: dict[int, list[int | Exception]]
) -> None:
    """Though its commit failed, and another assignment tries again what is pending."""
    beginnings.update({0: [0, 0], 1: [5, 5], 2: [0], 3: [0]})
    flow.flow._start.stage({partition(0): 424})
    flow.inner.commit_errors.extend([RuntimeError("coordinator is away")] * 2)
    flow.inner.assign(2)
    flow.is_another = True
    flow.inner.revoke(2)
    flow.inner.assign(3)
    flow.flow.close()
    assert flow.inner.committed == {0: 0, 1: 5, 2: 0, 3: 0}


def test_what_is_staged_of_the_earlier_topic_is_not_committed_with_where_an_assignment_begins(
    flow: Flow, beginnings: dict[int, list[int | Exception]]
) -> None:
    """KIP-848 assigns one partition more while the others are kept, and the follower is about to end."""
    flow.flow.stage_offsets({partition(0): 430})
    flow.manager.fail(RECREATED)
    flow.inner.assign(2)
    assert flow.inner.committed == {0: 423, 1: 10}
    beginnings[2] = [7]
    flow.flow.close()
    assert flow.inner.committed == {0: 0, 1: 5, 2: 7}


def test_a_partition_of_the_same_topic_is_handed_over_as_it_is(flow: Flow, beginnings: object) -> None:
    """And closing asks once, though it revokes what is left."""
    flow.flow.stage_offsets({partition(0): 430})
    flow.flow.commit_offsets()
    flow.inner.revoke(0)
    assert (flow.inner.committed, flow.checks) == ({0: 430, 1: 10}, 1)
    flow.flow.close()
    assert (flow.inner.committed, flow.checks) == ({0: 430, 1: 10}, 2)


def test_nothing_is_committed_on_another_cluster(flow: Flow, beginnings: dict[int, list[int | Exception]]) -> None:
    """What is committed there is the group's, mirrored; nor is anybody asked about the topic. It outweighs the rest."""
    flow.flow.stage_offsets({partition(0): 430})
    flow.manager.fail(RECREATED)
    flow.manager.fail(AnotherCluster("one", "two"))
    flow.manager.fail(TRUNCATED)
    assert isinstance(flow.manager.failure, AnotherCluster)
    assert flow.flow.commit_offsets() is None
    flow.inner.assign(2)
    flow.inner.revoke(1)
    flow.flow.close()
    assert (flow.inner.committed, flow.checks) == ({0: 423, 1: 10}, 0)


def test_a_consumer_without_partitions_asks_nothing(flow: Flow) -> None:
    """Nothing of its commits is the last word. Nor does one that is closed already."""
    flow.inner.revoke(0, 1)
    assert flow.checks == 1
    flow.flow.close()
    flow.flow.close()
    assert flow.checks == 1


def test_a_source_that_can_not_check_ends_nothing(
    flow: Flow, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Another's may raise."""

    def check_topic(timeout: float) -> None:
        raise RuntimeError("no broker")

    flow.flow._replaced_log._check_topic = check_topic
    flow.flow.close()
    assert flow.inner.is_closed
    assert caplog.messages == ["The source couldn't check whether the topic is still the same"]


def test_a_commit_is_not_tried_again_once_the_group_has_taken_the_partitions_away(
    flow: Flow, beginnings: object, caplog: pytest.LogCaptureFixture
) -> None:
    """The broker would answer the same for as long as it is tried. Another member may have seen to it: no alarm."""
    commits: list[Mapping[int, int]] = []

    def refuse(offsets: Mapping[int, int]) -> None:
        commits.append(offsets)
        raise KafkaException(KafkaError(KafkaError.UNKNOWN_MEMBER_ID))

    flow.inner.on_commit = refuse
    flow.manager.fail(RECREATED)
    flow.flow.close()
    assert commits == [{0: 0, 1: 5}]
    assert flow.inner.is_closed
    (line,) = caplog.records
    assert line.levelno == logging.WARNING
    assert line.getMessage() == (
        "The group has taken events[0], events[1] away from this follower, which can't commit where they begin: "
        "whoever has them now does. If nobody has, reset them before you restart: "
        'KafkaError{code=UNKNOWN_MEMBER_ID,val=25,str="Broker: Unknown member"}'
    )


@pytest.mark.parametrize("error", [LookupError("no client"), KafkaException("text alone")])
def test_whatever_a_consumer_raises_it_is_closed(
    flow: Flow,
    beginnings: dict[int, list[int | Exception]],
    seconds: list[float],
    caplog: pytest.LogCaptureFixture,
    error: Exception,
) -> None:
    """One that can't be asked is asked once; what may get better, again."""
    beginnings[0] = [error] * 100
    flow.manager.fail(RECREATED)
    flow.flow.close()
    assert flow.inner.is_closed
    assert (len(beginnings[0]) == 99) == isinstance(error, LookupError)
    assert "Couldn't commit where the group begins" in caplog.text


@pytest.mark.parametrize("earlier", [RuntimeError("stalled"), truncated({0: 10}, {0: 423})])
def test_a_new_topic_counts_whatever_the_follower_has_failed_of_before(
    flow: Flow, beginnings: object, earlier: Exception
) -> None:
    """One that ends at less than was read looks like a truncated partition until its id is known."""
    flow.manager.fail(earlier)
    flow.is_another = True
    flow.flow.close()
    assert flow.inner.committed == {0: 0, 1: 5}
    assert flow.manager.failure is RECREATED


def test_a_revocation_in_which_the_steps_raise_is_handed_over_as_well(beginnings: object) -> None:
    """Arroyo forgets these partitions then, so closing can't make up for it."""

    def on_revoke(partitions: object) -> None:
        raise RuntimeError("a step that can't end")

    flow = Flow(on_revoke)
    flow.is_another = True
    with pytest.raises(RuntimeError, match="a step that can't end"):
        flow.inner.revoke(0)
    assert (flow.inner.committed, flow.checks) == ({0: 0, 1: 5}, 1)


def test_a_close_within_a_revocation_ends_what_that_tries(
    flow: Flow, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As a signal handler may."""
    be_patient(monkeypatch)
    asked: list[int] = []

    def reset_offset(consumer: object, partition: Partition, timeout: float, *, latest_at_most: int | None) -> int:
        asked.append(partition.index)
        flow.flow.close()
        raise RuntimeError("no broker")

    monkeypatch.setattr(beginning_questions, "reset_offset", reset_offset)
    flow.manager.fail(RECREATED)
    flow.inner.revoke(0, 1)
    assert flow.inner.is_closed
    assert asked == [0]
