"""Arroyo's dead letters behind the gate, under Arroyo's own processor: an invalid message goes there, and only it."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import pytest
from arroyo.backends.abstract import ProducerFuture
from arroyo.backends.kafka import KafkaPayload
from arroyo.dlq import DlqPolicy, InvalidMessage, NoopDlqProducer
from arroyo.processing.strategies.abstract import MessageRejected, ProcessingStrategy
from arroyo.processing.strategies.commit import CommitOffsets
from arroyo.processing.strategies.run_task import RunTask
from arroyo.processing.strategies.run_task_in_threads import RunTaskInThreads
from arroyo.types import BrokerValue, Commit, Message

from arroyo_sync.gate.partition_buffer import HoldLimits
from tests.support.fakes import At, at, partition
from tests.support.pipelines import BuildStrategy, Pipeline, both_protocols

MESSAGES = 20
INVALID = {(0, 3), (0, 4), (0, 11), (1, 0), (1, 19)}
VALID = {(index, offset) for index in range(2) for offset in range(MESSAGES)} - INVALID


class DeadLetters(NoopDlqProducer):
    """A topic of dead letters."""

    def __init__(self) -> None:
        self.messages: list[At] = []

    def produce(
        self, value: BrokerValue[KafkaPayload], reason: str | None = None
    ) -> ProducerFuture[BrokerValue[KafkaPayload]]:
        self.messages.append((value.partition.index, value.offset))
        future: Future[BrokerValue[KafkaPayload]] = Future()
        future.set_result(value)
        return future


def invalid(which: At) -> InvalidMessage:
    return InvalidMessage(partition(which[0]), which[1], log_exception=False)


def check(message: Message[KafkaPayload]) -> KafkaPayload:
    """A task that finds some messages invalid."""
    if at(message) in INVALID:
        raise invalid(at(message))
    return message.payload


class Late(ProcessingStrategy[KafkaPayload]):
    """Looks at a message when the next one comes, so the exception out of submit names an earlier one; or in join."""

    def __init__(self, commit: Commit) -> None:
        self._commit = commit
        self._waiting: dict[int, Message[KafkaPayload]] = {}

    def submit(self, message: Message[KafkaPayload]) -> None:
        index = at(message)[0]
        self._check(index)
        self._waiting[index] = message

    def poll(self) -> None:
        pass

    def close(self) -> None:
        pass

    def terminate(self) -> None:
        pass

    def join(self, timeout: float | None = None) -> None:
        for index in sorted(self._waiting):
            self._check(index)

    def _check(self, index: int) -> None:
        waiting = self._waiting.pop(index, None)
        if waiting is not None:
            if at(waiting) in INVALID:
                raise invalid(at(waiting))
            self._commit(waiting.committable)


def late(commit: Commit) -> ProcessingStrategy[KafkaPayload]:
    return Late(commit)


def task(commit: Commit) -> ProcessingStrategy[KafkaPayload]:
    return RunTask(check, CommitOffsets(commit))


def threads(commit: Commit) -> ProcessingStrategy[KafkaPayload]:
    return RunTaskInThreads(check, 2, 3, CommitOffsets(commit))


every_way = pytest.mark.parametrize(
    "build",
    [
        pytest.param(task, id="out of submit, this message"),
        pytest.param(threads, id="out of poll, an earlier message"),
        pytest.param(late, id="out of submit and join, an earlier message"),
    ],
)


def pipeline_with(build: BuildStrategy, **settings: Any) -> tuple[Pipeline, DeadLetters]:
    letters = DeadLetters()
    buffered = settings.pop("max_buffered", None)
    policy = DlqPolicy(letters, max_buffered_messages_per_partition=buffered)
    pipeline = Pipeline(build=build, dlq_policy=policy, **settings)
    pipeline.invalid = set(INVALID)
    for index in range(2):
        pipeline.produce(index, range(MESSAGES))
    pipeline.start(0, 1)
    return pipeline, letters


def release_all(pipeline: Pipeline) -> None:
    for index in range(2):
        pipeline.release(index, MESSAGES)


def run_to_the_end(pipeline: Pipeline, letters: DeadLetters) -> None:
    """Release everything, wait until all has gone through the gate, and end."""
    release_all(pipeline)
    pipeline.run_until(
        lambda: {*pipeline.released, *letters.messages} == VALID | INVALID and not pipeline.held(0) + pipeline.held(1)
    )
    pipeline.stop()


@every_way
@both_protocols
@pytest.mark.parametrize("is_held_first", [True, False], ids=["held", "released on arrival"])
def test_invalid_messages_become_dead_letters_and_all_others_go_through(
    build: BuildStrategy, is_kip848: bool, is_held_first: bool
) -> None:
    """Each once, whichever call the exception comes out of and whether the message was held before."""
    pipeline, letters = pipeline_with(build, is_kip848=is_kip848)
    if is_held_first:
        pipeline.run_until(lambda: pipeline.held(0) + pipeline.held(1) == 2 * MESSAGES)
    run_to_the_end(pipeline, letters)
    assert sorted(letters.messages) == sorted(INVALID)
    assert set(pipeline.released) | INVALID == VALID | INVALID
    assert len(pipeline.released) == len(set(pipeline.released))
    assert pipeline.consumer.committed == {0: MESSAGES, 1: 19 if build is late else MESSAGES}


@every_way
@both_protocols
@pytest.mark.parametrize("max_buffered", [None, MESSAGES], ids=["any number buffered", "as many as are held"])
def test_no_dead_letter_is_lost_in_a_rebalance(build: BuildStrategy, is_kip848: bool, max_buffered: int | None) -> None:
    """Also of a retained partition Arroyo forgets what it buffered, and buffers it once, as it is read again."""
    pipeline, letters = pipeline_with(build, is_kip848=is_kip848, max_buffered=max_buffered)
    pipeline.run_until(lambda: pipeline.held(0) + pipeline.held(1) == 2 * MESSAGES)
    pipeline.release(0, 2)
    pipeline.run_until(lambda: pipeline.held(0) == MESSAGES - 2)
    pipeline.consumer.rebalance(0, 1, 2)
    pipeline.run_until_quiet()
    run_to_the_end(pipeline, letters)
    assert set(letters.messages) == INVALID
    assert set(pipeline.released) >= VALID


@pytest.mark.parametrize(("max_buffered", "is_found"), [(None, True), (MESSAGES, True), (MESSAGES - 4, False)])
def test_a_buffer_smaller_than_what_is_held_loses_dead_letters(max_buffered: int | None, is_found: bool) -> None:
    """Arroyo buffers held messages too, and drops the oldest of too many: why the README gives the least number."""
    pipeline, letters = pipeline_with(task, max_buffered=max_buffered)
    pipeline.run_until(lambda: pipeline.held(0) + pipeline.held(1) == 2 * MESSAGES)
    release_all(pipeline)
    pipeline.run_until_quiet()
    assert ((0, 3) in letters.messages) is is_found
    assert set(pipeline.released) == VALID


@both_protocols
@pytest.mark.parametrize("rebalances", [1, 3])
def test_a_buffer_for_what_is_held_is_enough_however_many_rebalances_there_are(
    is_kip848: bool, rebalances: int
) -> None:
    """Under KIP-848 too: a retained partition's messages would otherwise be buffered once more in each."""
    pipeline, letters = pipeline_with(task, is_kip848=is_kip848, max_buffered=MESSAGES)
    for _ in range(rebalances):
        pipeline.run_until(lambda: pipeline.held(0) + pipeline.held(1) == 2 * MESSAGES)
        pipeline.consumer.rebalance(0, 1, 2)
        pipeline.run_until_quiet()
        pipeline.consumer.rebalance(0, 1)
        pipeline.run_until_quiet()
    release_all(pipeline)
    pipeline.run_until_quiet()
    assert set(letters.messages) == INVALID
    assert set(pipeline.released) >= VALID


@both_protocols
def test_a_dead_letter_that_is_read_again_is_found_again(is_kip848: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing behind it was committed before the rebalance, so it comes again, as every message then."""
    pipeline = Pipeline(dlq_policy=DlqPolicy(letters := DeadLetters()), is_kip848=is_kip848)
    pipeline.produce(0, range(MESSAGES))
    pipeline.start(0)
    pipeline.run_until(lambda: pipeline.held(0) == MESSAGES)
    for assignment in range(2):
        pipeline.step.refuse((0, 0), invalid((0, 0)))
        pipeline.release(0, 1)
        pipeline.run_until(lambda: not pipeline.step.errors[0, 0])
        assert letters.messages == [(0, 0)] * (assignment + 1)
        pipeline.consumer.rebalance(*range(assignment + 2))
        pipeline.run_until(lambda: not pipeline.consumer.events)
    assert [record for record in caplog.records if "not found in buffer" in record.getMessage()] == []


def test_an_invalid_message_makes_room_in_a_full_partition() -> None:
    """A partition full of invalid messages is paused, drained and resumed as any other."""
    letters = DeadLetters()

    def refuse(message: Message[KafkaPayload]) -> KafkaPayload:
        raise invalid(at(message))

    pipeline = Pipeline(
        build=lambda commit: RunTask(refuse, CommitOffsets(commit)),
        dlq_policy=DlqPolicy(letters),
        limits=HoldLimits(messages=4, resume_messages=2),
    )
    pipeline.invalid = {(0, offset) for offset in range(MESSAGES)}
    pipeline.produce(0, range(MESSAGES))
    pipeline.start(0)
    pipeline.run_until(lambda: pipeline.held(0) == 4)
    pipeline.release(0, MESSAGES)
    pipeline.run_until_quiet()
    assert letters.messages == [(0, offset) for offset in range(MESSAGES)]
    pipeline.stop()
    assert pipeline.consumer.committed == {0: MESSAGES}


def test_the_carried_message_found_invalid_is_not_submitted_again() -> None:
    """It was rejected first, so the processor carries it; then it is found invalid, and the next one comes."""
    pipeline = Pipeline(dlq_policy=DlqPolicy(letters := DeadLetters()))
    pipeline.invalid = {(0, 1)}
    pipeline.produce(0, range(3))
    pipeline.start(0)
    pipeline.release(0, 3)
    pipeline.step.refuse((0, 1), MessageRejected(), MessageRejected(), invalid((0, 1)))
    pipeline.run_until(lambda: len(pipeline.released) == 2)
    assert pipeline.released == [(0, 0), (0, 2)]
    assert letters.messages == [(0, 1)]


def test_without_a_policy_an_invalid_message_is_dropped_and_the_rest_goes_on() -> None:
    """As in Arroyo without the gate."""
    pipeline = Pipeline()
    pipeline.invalid = {(0, 1)}
    pipeline.produce(0, range(3))
    pipeline.start(0)
    pipeline.run_until(lambda: pipeline.held(0) == 3)
    pipeline.step.refuse((0, 1), invalid((0, 1)))
    pipeline.release(0, 3)
    pipeline.run_until_quiet()
    assert pipeline.released == [(0, 0), (0, 2)]
