"""Where an assignment begins is committed before its gate exists, and a commit that fails ends nothing."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Any, ClassVar

import pytest
from arroyo.processing.strategies import CommitOffsets
from arroyo.processing.strategies.run_task_with_multiprocessing import ChildProcessTerminated
from arroyo.types import Partition
from confluent_kafka import KafkaError, KafkaException

from arroyo_sync.gate.consumer import rebalances, start_positions
from arroyo_sync.gate.consumer.start_positions import RETRY_SECONDS, StartPositions
from tests.support.fakes import Clock, ScriptedConsumer, ScriptedStep, partition
from tests.support.pipelines import Pipeline, both_protocols

MOVED_ON = KafkaException(KafkaError(KafkaError.ILLEGAL_GENERATION))
"""The group has moved on without this member."""


def answer_nothing(consumer: object, partitions: Collection[Partition], timeout: float) -> dict[Partition, int | None]:
    """The group has committed nothing of them."""
    return dict.fromkeys(partitions)


class FailingConsumer(ScriptedConsumer):
    """Its commits, or its stagings, fail as often as it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.failing_commits = 0
        self.failing_stagings = 0
        self.attempts = 0

    def stage_offsets(self, offsets: Mapping[Any, int]) -> None:
        if self.failing_stagings:
            self.failing_stagings -= 1
            raise RuntimeError("cannot store")
        super().stage_offsets(offsets)

    def commit_offsets(self) -> Mapping[Any, int]:
        self.attempts += 1
        if self.failing_commits:
            self.failing_commits -= 1
            raise RuntimeError("coordinator is away")
        return super().commit_offsets()

    def staged(self) -> dict[int, int]:
        """By the partition's index."""
        return {each.index: offset for each, offset in self._staged.items()}

    def auto_commit(self) -> None:
        """From now on librdkafka would keep what is staged, and no attribute of Arroyo's shows it."""
        self._KafkaConsumer__use_auto_commit = True


@pytest.fixture
def inner() -> FailingConsumer:
    inner = FailingConsumer()
    inner.assign(0, 1)
    return inner


@both_protocols
def test_the_positions_are_committed_before_the_gate_exists(is_kip848: bool) -> None:
    """Inside the assignment callback, so that no moment is left in which a crash could forget them."""
    committed_at_making: list[dict[int, int]] = []
    pipeline = Pipeline(is_kip848=is_kip848)
    make = pipeline.user_factory.create_with_partitions

    def noting(commit: Any, partitions: Any) -> Any:
        committed_at_making.append(dict(pipeline.consumer.committed))
        return make(commit, partitions)

    pipeline.user_factory.create_with_partitions = noting  # type: ignore[method-assign]
    pipeline.start(0, 1)
    assert committed_at_making == [{0: 0, 1: 0}]


def test_a_retained_partition_is_not_committed_anew() -> None:
    """What was staged for it counts, and its position is past what is held."""
    pipeline = Pipeline()
    pipeline.produce(0, range(9))
    pipeline.start(0)
    pipeline.run_until_quiet()
    assert pipeline.held(0) == 9
    pipeline.consumer.rebalance(0, 1)
    pipeline.run_until_quiet()
    assert pipeline.consumer.committed == {0: 0, 1: 0}


def test_the_first_message_that_is_held_past_the_position_is_committed() -> None:
    """The client began elsewhere by itself, as after an expired commit without strict resets."""
    pipeline = Pipeline()
    pipeline.produce(0, [15, 16, 30, 31])
    pipeline.start(0)
    pipeline.run_until_quiet()
    assert pipeline.held(0) == 4
    assert pipeline.consumer.committed == {0: 15}
    pipeline.consumer.rebalance(0, 1)
    pipeline.run_until(lambda: not pipeline.consumer.events)
    assert pipeline.assignments[1] == {0: 15, 1: 0}


def test_a_gap_behind_messages_in_flight_is_not_committed() -> None:
    """They have not gone through yet."""
    pipeline = Pipeline(build=lambda commit: ScriptedStep())
    pipeline.produce(0, [0, 15])
    pipeline.start(0)
    pipeline.release(0, 1)
    pipeline.run_until_quiet()
    assert (pipeline.released_of(0), pipeline.held(0)) == ([0], 1)
    assert pipeline.consumer.committed == {0: 0}


def test_before_an_assignment_nothing_is_committed(inner: FailingConsumer) -> None:
    """Each poll without a message asks."""
    StartPositions(inner, Clock()).commit_if_due()
    assert inner.attempts == 0


def test_what_the_commit_raises_ends_nothing_and_is_tried_again(
    inner: FailingConsumer, caplog: pytest.LogCaptureFixture
) -> None:
    """After a pause, since one may block for long; and the log says it once a minute."""
    clock = Clock()
    start = StartPositions(inner, clock)
    inner.failing_commits = 2
    start.commit({partition(0): 4})
    start.commit_if_due()
    assert (start.is_pending, inner.attempts, inner.committed) == (True, 1, {})
    for _ in range(2):
        clock.now += RETRY_SECONDS
        start.commit_if_due()
    assert (start.is_pending, inner.attempts, inner.committed) == (False, 3, {0: 4})
    clock.now += RETRY_SECONDS
    start.commit_if_due()
    assert inner.attempts == 3
    record, _ = caplog.records
    assert (record.levelno, record.getMessage()) == (
        logging.WARNING,
        "The positions that this assignment begins at could not be committed; it is tried again every 5 s. Until then "
        "a restart begins where auto.offset.reset says, in a partition of which the group has committed nothing: "
        "coordinator is away",
    )


def test_a_later_offset_of_the_partitions_is_not_taken_back_by_the_next_try(inner: FailingConsumer) -> None:
    """What went through meanwhile is staged over it."""
    clock = Clock()
    start = StartPositions(inner, clock)
    inner.failing_commits = 1
    start.commit({partition(0): 4})
    inner.stage_offsets({partition(0): 7})
    clock.now += RETRY_SECONDS
    start.commit_if_due()
    assert inner.committed == {0: 7}


def test_what_could_not_be_staged_is_staged_with_the_next_try(inner: FailingConsumer) -> None:
    """Unless it was revoked by then."""
    clock = Clock()
    inner.auto_commit()  # Arroyo's own staging can't fail
    start = StartPositions(inner, clock)
    inner.failing_stagings = 1
    start.commit({partition(0): 4, partition(1): 5})
    start.forget([partition(1)])
    clock.now += RETRY_SECONDS
    start.commit_if_due()
    assert (start.is_pending, inner.committed) == (False, {0: 4})


def test_positions_are_named_with_the_first_try_alone(inner: FailingConsumer, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a consumer whose commits librdkafka makes: by the next it may have committed more, which isn't taken back."""
    clock = Clock()
    named: list[dict[Partition, int]] = []

    def commit_staged(consumer: object, offsets: Mapping[Partition, int]) -> None:
        named.append(dict(offsets))
        if len(named) == 1:
            raise RuntimeError("coordinator is away")

    monkeypatch.setattr(start_positions, "commit_staged", commit_staged)
    inner.auto_commit()
    start = StartPositions(inner, clock)
    start.commit({partition(0): 4, partition(1): 5})
    clock.now += RETRY_SECONDS
    start.commit_if_due()
    start.commit({partition(1): 7})
    assert named == [{partition(0): 4, partition(1): 5}, {}, {partition(1): 7}]


def test_a_first_message_past_the_position_is_never_named(
    inner: FailingConsumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lies past what was committed of this assignment, so librdkafka commits it as it is staged, or what was staged
    over it. By name it would take that back. It is staged at once, or if that fails with the next try."""
    clock = Clock()
    named: list[dict[Partition, int]] = []
    monkeypatch.setattr(start_positions, "commit_staged", lambda consumer, offsets: named.append(dict(offsets)))
    inner.auto_commit()
    start = StartPositions(inner, clock)
    start.commit({partition(0): 4, partition(1): 5})
    start.stage({partition(0): 15})
    assert inner.staged() == {0: 15, 1: 5}
    inner.failing_stagings = 1
    start.stage({partition(1): 25})
    assert inner.staged() == {0: 15, 1: 5}
    start.commit_if_due()
    assert inner.staged() == {0: 15, 1: 25}
    assert named == [{partition(0): 4, partition(1): 5}, {}]


def test_a_new_assignment_tries_at_once_whatever_failed_before(inner: FailingConsumer) -> None:
    """Its own positions, and with them what is still staged."""
    start = StartPositions(inner, Clock())
    inner.failing_commits = 1
    start.commit({partition(0): 4})
    start.commit({partition(1): 5})
    assert (start.is_pending, inner.committed) == (False, {0: 4, 1: 5})


def test_the_consumer_tries_again_while_no_message_comes() -> None:
    """An assignment whose commit failed goes on, and is durable a few seconds later though everything is held."""
    clock = Clock()
    pipeline = Pipeline(clock=clock)
    commit_offsets = pipeline.consumer.commit_offsets
    attempts: list[float] = []

    def fail_once() -> Mapping[Any, int]:
        attempts.append(clock.now)
        if len(attempts) == 1:
            raise RuntimeError("coordinator is away")
        return commit_offsets()

    pipeline.consumer.commit_offsets = fail_once  # type: ignore[method-assign]
    pipeline.produce(0, range(9))
    pipeline.start(0)
    pipeline.run_until_quiet()
    assert (pipeline.held(0), pipeline.consumer.committed) == (9, {})
    clock.now += RETRY_SECONDS
    pipeline.run()
    assert pipeline.consumer.committed == {0: 0}
    assert len(attempts) == 2


# Beside the commits of the pipeline.


@both_protocols
def test_a_commit_of_the_pipeline_does_not_send_what_could_not_be_committed(is_kip848: bool) -> None:
    """Bare Arroyo has nothing staged then, so nothing of it can fail: not in Arroyo's own step, and not as the
    partitions are revoked. Under KIP-848 that step is joined in the same callback in which the commit failed."""
    clock = Clock()
    pipeline = Pipeline(is_kip848=is_kip848, build=CommitOffsets, clock=clock)
    pipeline.start(0)
    pipeline.consumer.commit_errors.extend([MOVED_ON, MOVED_ON])
    pipeline.consumer.rebalance(0, 1)
    pipeline.run_until(lambda: not pipeline.consumer.events)
    pipeline.processor._StreamProcessor__commit({}, force=True)  # type: ignore[attr-defined]
    pipeline.run(5)
    refused = {1: 0} if is_kip848 else {0: 0, 1: 0}
    assert pipeline.consumer.refused == [refused]
    pipeline.consumer.rebalance(2)
    pipeline.run_until(lambda: not pipeline.consumer.events)
    assert pipeline.assignments[-1] == {2: 0}
    assert pipeline.consumer.refused == [refused, refused]  # once more as they are given up, and that ends nothing
    assert pipeline.consumer.committed[2] == 0


@both_protocols
def test_a_first_message_past_the_position_is_not_sent_with_a_commit_of_the_pipeline(is_kip848: bool) -> None:
    """It is committed as the pipeline commits, but what that raises isn't the pipeline's."""
    clock = Clock()
    pipeline = Pipeline(is_kip848=is_kip848, build=CommitOffsets, clock=clock)
    pipeline.start(0)
    pipeline.consumer.commit_errors.extend([MOVED_ON, MOVED_ON])
    pipeline.produce(0, [15, 16])
    pipeline.run()
    assert (pipeline.held(0), pipeline.consumer.refused) == (1, [])
    for _ in range(2):
        pipeline.processor._StreamProcessor__commit({}, force=True)  # type: ignore[attr-defined]
    assert pipeline.consumer.refused == [{0: 15}]
    pipeline.consumer.commit_errors.clear()
    clock.now += RETRY_SECONDS
    pipeline.processor._StreamProcessor__commit({}, force=True)  # type: ignore[attr-defined]
    assert pipeline.consumer.committed == {0: 15}


def test_a_commit_that_the_pipeline_would_have_made_anyway_fails_as_ever() -> None:
    """Its own offsets are its own."""
    pipeline = Pipeline(build=CommitOffsets)
    pipeline.produce(0, [0])
    pipeline.start(0)
    pipeline.release(0, 1)
    pipeline.consumer.commit_errors.append(MOVED_ON)
    with pytest.raises(KafkaException, match="ILLEGAL_GENERATION"):
        pipeline.run(3)


@both_protocols
@pytest.mark.parametrize("is_auto_commit", [False, True], ids=["", "auto-commit"])
def test_no_commit_goes_back_to_the_first_message(is_kip848: bool, is_auto_commit: bool) -> None:
    """The pipeline may have committed past it before a poll without a message came."""
    commits: list[int] = []
    pipeline = Pipeline(is_kip848=is_kip848)
    check = pipeline.consumer.on_commit

    def note(offsets: Mapping[int, int]) -> None:
        check(offsets)
        commits.extend(offsets.values())

    pipeline.consumer.on_commit = note
    pipeline.consumer.committed[0] = 100
    if is_auto_commit:
        pipeline.consumer._KafkaConsumer__use_auto_commit = True  # type: ignore[attr-defined]
    pipeline.produce(0, range(101, 120))
    pipeline.start(0)
    pipeline.run(3)
    assert pipeline.held(0) == 3
    pipeline.release(0, 120)
    pipeline.run_until_quiet()
    pipeline.stop()
    assert commits == sorted(commits)
    assert pipeline.consumer.committed == {0: 120}


def test_a_start_gives_way_to_what_was_staged_since(inner: FailingConsumer) -> None:
    """And to that alone: other partitions' starts go on being tried."""
    clock = Clock()
    start = StartPositions(inner, clock)
    inner.failing_commits = 1
    start.commit({partition(0): 4, partition(1): 5})
    assert inner.staged() == {}
    inner.stage_offsets({partition(0): 7})
    start.give_way()
    inner.commit_offsets()
    clock.now += RETRY_SECONDS
    start.commit_if_due()
    assert (inner.committed, start.is_pending) == ({0: 7, 1: 5}, False)


def test_a_commit_that_fails_leaves_what_others_have_staged(inner: FailingConsumer) -> None:
    """It is the pipeline's to commit."""
    start = StartPositions(inner, Clock())
    inner.stage_offsets({partition(1): 9})
    inner.failing_commits = 1
    start.commit({partition(0): 4})
    assert inner.staged() == {1: 9}


def test_a_first_message_goes_over_what_was_staged_before_it(inner: FailingConsumer) -> None:
    """The pipeline sends something of the partition anyway, and that offset may have expired."""
    start = StartPositions(inner, Clock())
    inner.stage_offsets({partition(0): 9})
    start.stage({partition(0): 15})
    inner.commit_offsets()
    assert inner.committed == {0: 15}


def test_what_a_commit_returns_is_what_the_pipeline_has_staged_though_a_start_is_pending() -> None:
    """Arroyo's consumer says so, too. The start follows, when it is time."""
    pipeline = Pipeline(clock=(clock := Clock()))
    pipeline.consumer.commit_errors.append(RuntimeError("coordinator is away"))
    pipeline.start(0, 1)
    pipeline.flow.stage_offsets({partition(0): 7})
    clock.now += RETRY_SECONDS
    assert pipeline.flow.commit_offsets() == {partition(0): 7}
    assert pipeline.consumer.committed == {0: 7, 1: 0}


@both_protocols
@pytest.mark.parametrize("ends", [False, True], ids=["rebalance", "end"])
def test_no_loss_what_is_not_committed_yet_is_before_it_is_given_up(is_kip848: bool, ends: bool) -> None:
    """However short ago it failed, and though the step commits nothing as it is joined: whoever reads the partition
    next would begin where ``auto.offset.reset`` says then."""
    pipeline = Pipeline(is_kip848=is_kip848, build=lambda commit: ScriptedStep(), clock=Clock())
    pipeline.consumer.commit_errors.append(RuntimeError("coordinator is away"))
    pipeline.start(0)
    pipeline.produce(0, [15])
    pipeline.run()
    assert (pipeline.held(0), pipeline.consumer.committed) == (1, {})
    if ends:
        pipeline.stop()
    else:
        pipeline.consumer.rebalance(1)
        pipeline.run_until(lambda: not pipeline.consumer.events)
    assert pipeline.consumer.committed[0] == 15


def test_a_last_try_that_fails_is_told(inner: FailingConsumer, caplog: pytest.LogCaptureFixture) -> None:
    """What it says of a next try would not be true."""
    start = StartPositions(inner, Clock())
    inner.failing_commits = 2
    start.commit({partition(0): 4})
    start.commit_at_last()
    start.forget([partition(0)])
    assert [record.getMessage() for record in caplog.records][1:] == [
        "The positions that this assignment began at could not be committed before its partitions are given up: "
        "of one that the group has committed nothing of, whoever reads it next begins where auto.offset.reset says: "
        "coordinator is away"
    ]


def test_what_is_committed_at_last_is_told_where_its_failure_was(
    inner: FailingConsumer, caplog: pytest.LogCaptureFixture
) -> None:
    """Else whoever has read that a restart would lose something goes on avoiding one."""
    clock = Clock()
    start = StartPositions(inner, clock)
    inner.failing_commits = 2
    start.commit({partition(0): 4})
    for _ in range(3):
        clock.now += RETRY_SECONDS
        start.commit_if_due()
    start.commit({partition(1): 5})
    assert [(record.levelname, record.getMessage()) for record in caplog.records][1:] == [
        ("WARNING", "The positions that this assignment began at are committed now: a restart begins there")
    ]


def test_after_the_last_word_of_a_failure_none_follows(
    inner: FailingConsumer, caplog: pytest.LogCaptureFixture
) -> None:
    """The next assignment's commit is about others."""
    start = StartPositions(inner, Clock())
    inner.failing_commits = 2
    start.commit({partition(0): 4})
    start.commit_at_last()
    start.forget([partition(0)])
    start.commit({partition(1): 5})
    assert "given up" in caplog.messages[-1]


def test_what_is_left_of_an_assignment_is_told_to_be_committed_after_a_part_was_given_up(
    inner: FailingConsumer, caplog: pytest.LogCaptureFixture
) -> None:
    """Under KIP-848 the others are retained, and it goes on being tried for them."""
    clock = Clock()
    start = StartPositions(inner, clock)
    inner.failing_commits = 2
    start.commit({partition(0): 4, partition(1): 5})
    start.commit_at_last()
    start.forget([partition(0)])
    clock.now += RETRY_SECONDS
    start.commit_if_due()
    assert inner.committed == {1: 5}
    assert caplog.messages[2:] == [
        "The positions that this assignment began at are committed now: a restart begins there"
    ]


def test_a_dead_worker_of_the_pipeline_is_no_failed_commit(inner: FailingConsumer) -> None:
    """Arroyo's handler of SIGCHLD raises wherever the processor's thread is; kept from it, it waits for that worker."""

    def commit() -> Mapping[Any, int]:
        raise ChildProcessTerminated(17)

    inner.commit_offsets = commit  # type: ignore[method-assign]
    with pytest.raises(ChildProcessTerminated):
        StartPositions(inner, Clock()).commit({partition(0): 4})


SILENT = KafkaException(KafkaError(KafkaError._WAIT_COORD))


def test_a_coordinator_that_is_away_is_not_waited_for_by_a_commit(
    inner: FailingConsumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That one would block for minutes, and with it all that other partitions wait for. So it is asked first, for so
    long: a distant one gets its time."""
    asked: list[tuple[Partition, float]] = []

    def ask(consumer: object, of: Partition, timeout: float) -> None:
        assert consumer is inner
        asked.append((of, timeout))
        if is_away:
            raise SILENT

    monkeypatch.setattr(start_positions, "check_coordinator", ask)
    is_away, clock = True, Clock()
    start = StartPositions(inner, clock)
    start.commit({partition(0): 4, partition(1): 9})
    for _ in range(6):
        clock.now += RETRY_SECONDS
        start.commit_if_due()
    start.commit_at_last()
    assert asked == [(partition(0), seconds) for seconds in (5.0, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0)]
    assert (inner.attempts, inner.staged(), start.is_pending) == (0, {}, True)
    is_away = False
    clock.now += RETRY_SECONDS
    start.commit_if_due()
    assert (inner.committed, start.is_pending) == ({0: 4, 1: 9}, False)
    assert asked[8:] == [(partition(0), 1.0)], "once, whatever it is asked about"
    is_away = True
    start.commit({partition(1): 5})
    clock.now += RETRY_SECONDS
    start.commit_if_due()
    assert asked[-2:] == [(partition(1), 5.0), (partition(1), 0.1)]


def test_under_auto_commit_a_coordinator_that_was_away_sets_nothing_back(
    inner: FailingConsumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is staged there can't be seen: staged anew, a beginning took the place of all that had gone through since,
    and was committed by name over it."""
    is_away, named = True, list[dict[Partition, int]]()

    def ask(consumer: object, of: Partition, timeout: float) -> None:
        if is_away:
            raise SILENT

    def commit(consumer: FailingConsumer, by_name: dict[Partition, int]) -> None:
        named.append(by_name)
        consumer.commit_offsets()

    monkeypatch.setattr(start_positions, "check_coordinator", ask)
    monkeypatch.setattr(start_positions, "commit_staged", commit)
    inner.auto_commit()
    clock = Clock()
    start = StartPositions(inner, clock)
    start.commit({partition(0): 4})
    assert inner.staged() == {0: 4}, "else librdkafka has nothing to commit"
    inner.stage_offsets({partition(0): 150})
    is_away = False
    clock.now += RETRY_SECONDS
    start.commit_if_due()
    assert (inner.committed, named) == ({0: 150}, [{}])


def test_a_dead_worker_is_no_failed_commit_without_the_flow_control_either() -> None:
    def commit(offsets: Mapping[Partition, int], force: bool = False) -> None:
        raise ChildProcessTerminated(17)

    with pytest.raises(ChildProcessTerminated):
        start_positions.commit_once(commit, object(), {partition(0): 4})


def test_a_last_try_is_made_of_what_is_pending_alone(inner: FailingConsumer) -> None:
    start = StartPositions(inner, Clock())
    start.commit({partition(0): 4})
    start.commit_at_last()
    assert inner.attempts == 1


class TestEarlierBeginnings:
    """A first position that couldn't be committed, and a next assignment that would begin later, as with ``latest``."""

    COMMITTED: ClassVar[dict[str, int | Exception | None]] = {
        "nothing is committed": None,
        "nobody answers": MOVED_ON,
        "somebody has committed": 12,
        "another consumer": LookupError(),
    }

    @pytest.mark.parametrize("committed", COMMITTED.values(), ids=COMMITTED)
    @pytest.mark.parametrize("is_revoked", [True, False], ids=["revoked", "assigned twice"])
    @pytest.mark.parametrize("is_auto_commit", [False, True], ids=["", "auto-commit"])
    def test_it_begins_there_unless_somebody_has_committed_since(
        self,
        inner: FailingConsumer,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        is_auto_commit: bool,
        is_revoked: bool,
        committed: int | Exception | None,
    ) -> None:
        """What came in between would be lost: nobody else is given it."""
        caplog.set_level(logging.DEBUG)

        def answer(consumer: object, asked: Collection[Partition], timeout: float) -> dict[Partition, int | None]:
            questions.append((consumer, [*asked], timeout))
            if isinstance(committed, Exception):
                raise committed
            return dict.fromkeys(asked, committed)

        monkeypatch.setattr(start_positions, "committed_offsets", answer)
        monkeypatch.setattr(start_positions, "commit_staged", lambda consumer, by_name: consumer.commit_offsets())
        if is_auto_commit:
            inner.auto_commit()
        start = StartPositions(inner, Clock())
        inner.failing_commits = 1
        start.commit({partition(0): 8, partition(1): 5})
        if is_revoked:
            start.forget([partition(0), partition(1)])
        is_ours = committed is None or isinstance(committed, KafkaException)
        questions: list[tuple[object, list[Partition], float]] = []
        again = {partition(0): 16, partition(1): 5}
        assert start.earlier(again) == ({partition(0): 8} if is_ours else {})
        told = [each.getMessage() for each in caplog.records if each.levelno == logging.DEBUG]
        unknown = [f"Can't ask what is committed of {[partition(0)]}: {MOVED_ON}"]
        assert told == (unknown if committed is MOVED_ON else [])
        start.commit(again)
        assert start.earlier({partition(0): 30}) == {}, "what is committed is the group's"
        assert questions == [(inner, [partition(0)], start_positions.QUERY_TIMEOUT_SECONDS)]

    def test_what_a_later_try_has_committed_under_auto_commit_is_the_group_s(
        self, inner: FailingConsumer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Also once the group's offsets have expired: where it begins then is as far as it has come."""
        monkeypatch.setattr(start_positions, "committed_offsets", answer_nothing)
        monkeypatch.setattr(start_positions, "commit_staged", lambda consumer, by_name: consumer.commit_offsets())
        inner.auto_commit()
        clock = Clock()
        start = StartPositions(inner, clock)
        inner.failing_commits = 1
        start.commit({partition(0): 8})
        clock.now += RETRY_SECONDS
        start.commit_if_due()
        start.forget([partition(0)])
        assert start.earlier({partition(0): 16}) == {}

    def test_what_another_partition_is_assigned_forgets_nothing_of_this_one(
        self, inner: FailingConsumer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Under KIP-848 they come one after the other."""
        monkeypatch.setattr(start_positions, "committed_offsets", answer_nothing)
        start = StartPositions(inner, Clock())
        inner.failing_commits = 1
        start.commit({partition(0): 8})
        start.forget([partition(0)])
        assert start.earlier({partition(1): 5}) == {}
        assert start.earlier({partition(0): 16}) == {partition(0): 8}

    @both_protocols
    def test_the_gate_and_the_consumer_begin_there(self, is_kip848: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nothing is left out: the first message is the one there."""
        monkeypatch.setattr(start_positions, "committed_offsets", answer_nothing)
        pipeline = Pipeline(is_kip848=is_kip848)
        pipeline.produce(0, range(9))
        pipeline.consumer.commit_errors.extend([MOVED_ON, MOVED_ON])
        pipeline.start(0)
        pipeline.consumer.rebalance()
        pipeline.run_until(lambda: not pipeline.consumer.events)
        assert pipeline.consumer.committed == {}
        resolved = dict(pipeline.consumer.committed)
        pipeline.consumer.committed[0] = 7  # in place of `latest`
        pipeline.consumer.rebalance(0)
        pipeline.run_until(lambda: not pipeline.consumer.events)
        assert (resolved, pipeline.assignments[-1]) == ({}, {0: 0})
        pipeline.release(0, 9)
        pipeline.run_until_quiet()
        assert pipeline.released_of(0) == list(range(9))

    def test_all_that_are_assigned_are_named_beside_those_that_begin_earlier(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An eager consumer is assigned all of them once more; see `begin_earlier`."""
        begun: list[tuple[object, ...]] = []
        monkeypatch.setattr(start_positions, "committed_offsets", answer_nothing)
        monkeypatch.setattr(rebalances, "begin_earlier", lambda *arguments: begun.append(arguments))
        pipeline = Pipeline(is_kip848=False)
        pipeline.consumer.commit_errors.extend([MOVED_ON, MOVED_ON])
        pipeline.start(0)
        pipeline.start()
        pipeline.consumer.committed.update({0: 7, 1: 3})  # in place of `latest`
        pipeline.start(0, 1)
        assert begun == [(pipeline.consumer, {partition(0): 0, partition(1): 3}, {partition(0): 0})]

    def test_the_brokers_are_asked_once_of_all(self, inner: FailingConsumer, monkeypatch: pytest.MonkeyPatch) -> None:
        """One after the other, each with its time, may take longer than ``max.poll.interval.ms``."""
        asked: list[list[Partition]] = []

        def answer(consumer: object, partitions: Collection[Partition], timeout: float) -> dict[Partition, int | None]:
            asked.append([*partitions])
            return {each: 9 if each.index == 1 else None for each in partitions}

        monkeypatch.setattr(start_positions, "committed_offsets", answer)
        inner.assign(2)
        start = StartPositions(inner, Clock())
        inner.failing_commits = 1
        start.commit({partition(index): 8 for index in range(3)})
        start.forget([partition(index) for index in range(3)])
        later = {partition(0): 16, partition(1): 16, partition(2): 16, partition(3): 16}
        assert start.earlier(later) == {partition(0): 8, partition(2): 8}
        assert asked == [[partition(0), partition(1), partition(2)]]
