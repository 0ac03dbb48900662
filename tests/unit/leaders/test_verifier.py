"""When the broker is asked where partitions end, and what its answers do."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Mapping
from typing import cast

import pytest
from confluent_kafka import KafkaError

from arroyo_sync.core.state import PartitionKey, SynchronizedPartitionStateManager
from arroyo_sync.kafka.asker import Asker
from arroyo_sync.leaders.commit_report import CommitReport
from arroyo_sync.leaders.leader_offsets import LeaderOffsets
from arroyo_sync.leaders.verifier import INTERVAL_SECONDS, Verifier
from tests.support.fakes import Clock

FIRST, SECOND = ("events", 0), ("events", 1)
TIMEOUT_SECONDS = 30.0


class Broker:
    """Answers where partitions end, as far as it knows."""

    def __init__(self) -> None:
        self.ends: dict[PartitionKey, int] = {}
        self.questions: list[set[PartitionKey]] = []
        self.asked = threading.Event()

    def ask_end_offsets(
        self,
        partitions: Collection[PartitionKey],
        timeout: float,
        on_answer: Callable[[Mapping[PartitionKey, int | KafkaError]], None],
    ) -> None:
        self.questions.append(set(partitions))
        self.asked.set()
        for key in partitions:  # each by a broker of its own
            on_answer({key: self.ends.get(key, KafkaError(KafkaError._TIMED_OUT))})


class Fixture:
    def __init__(self) -> None:
        self.clock = Clock()
        self.broker = Broker()
        self.manager = SynchronizedPartitionStateManager()
        self.offsets = LeaderOffsets(["g"])
        self.offsets.attach(self.manager)
        self.offsets.enable()
        self.verifier = Verifier(self.offsets, cast(Asker, self.broker), self.clock)

    def assign(self, *keys: PartitionKey) -> None:
        self.offsets.assign(dict.fromkeys(keys))
        self.verifier.assign(keys)

    def publish(self, offset: int, key: PartitionKey = FIRST) -> None:
        self.offsets.apply([CommitReport(key, "g", offset, 0, 0, 0)], 0.0)

    def remote(self, key: PartitionKey = FIRST) -> int | None:
        return self.manager.cell(*key).remote


def test_nothing_in_doubt_asks_nothing() -> None:
    """However often it is called."""
    fixture = Fixture()
    fixture.assign(FIRST)
    assert fixture.verifier.ask() == float("inf")
    assert fixture.broker.questions == []


def test_all_partitions_in_doubt_are_in_one_question() -> None:
    """And those that the broker can't tell of are asked about again."""
    fixture = Fixture()
    fixture.assign(FIRST, SECOND)
    fixture.publish(5, FIRST)
    fixture.publish(6, SECOND)
    fixture.broker.ends = {FIRST: 10}
    assert fixture.verifier.ask() == INTERVAL_SECONDS
    assert fixture.broker.questions == [{FIRST, SECOND}]
    assert (fixture.remote(FIRST), fixture.remote(SECOND)) == (5, None)
    fixture.clock.now += INTERVAL_SECONDS
    fixture.broker.ends = {SECOND: 10}
    fixture.verifier.ask()
    assert fixture.broker.questions[1:] == [{SECOND}]
    assert fixture.remote(SECOND) == 6


def test_a_partition_is_asked_about_once_a_second() -> None:
    """It says when it wants to be called again; other partitions needn't wait for that one."""
    fixture = Fixture()
    fixture.assign(FIRST, SECOND)
    fixture.broker.ends = {FIRST: 5, SECOND: 5}
    fixture.publish(5, FIRST)
    fixture.verifier.ask()
    fixture.clock.now += 0.25
    fixture.broker.ends = {FIRST: 9, SECOND: 9}
    fixture.publish(9, FIRST)
    assert fixture.verifier.ask() == INTERVAL_SECONDS - 0.25
    fixture.publish(9, SECOND)
    assert fixture.verifier.ask() == INTERVAL_SECONDS - 0.25
    assert fixture.broker.questions == [{FIRST}, {SECOND}]
    fixture.clock.now += INTERVAL_SECONDS - 0.25
    fixture.verifier.ask()
    assert fixture.broker.questions == [{FIRST}, {SECOND}, {FIRST}]
    assert (fixture.remote(FIRST), fixture.remote(SECOND)) == (9, 9)


def test_a_partition_that_is_assigned_anew_is_asked_about_at_once() -> None:
    """Nothing is released before."""
    fixture = Fixture()
    fixture.broker.ends = {FIRST: 5}
    fixture.assign(FIRST)
    fixture.publish(5)
    fixture.verifier.ask()
    fixture.assign(FIRST)
    assert fixture.remote() is None
    fixture.verifier.ask()
    assert len(fixture.broker.questions) == 2
    assert fixture.remote() == 5
    fixture.verifier.revoke([FIRST])
    fixture.verifier.ask()
    assert len(fixture.broker.questions) == 2


def test_an_answer_judges_only_what_was_published_before_the_question() -> None:
    """What a leader publishes while the broker thinks may lie beyond its answer, and is true."""
    fixture = Fixture()
    fixture.assign(FIRST)
    fixture.publish(5)
    ask = fixture.broker.ask_end_offsets

    def publish_meanwhile(
        partitions: Collection[PartitionKey],
        timeout: float,
        on_answer: Callable[[Mapping[PartitionKey, int | KafkaError]], None],
    ) -> None:
        fixture.publish(8)
        ask(partitions, timeout, on_answer)

    fixture.broker.ask_end_offsets = publish_meanwhile  # type: ignore[method-assign]
    fixture.broker.ends = {FIRST: 6}
    fixture.verifier.ask()
    assert (fixture.remote(), fixture.verifier.impossible) == (5, 0)
    assert dict(fixture.offsets.unverified) == {FIRST: 8}


def test_an_impossible_offset_is_counted_each_time_and_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """A heartbeat repeats it every few seconds."""
    fixture = Fixture()
    fixture.broker.ends = {FIRST: 6}
    fixture.assign(FIRST)
    for _ in range(3):
        fixture.publish(1_000)
        fixture.verifier.ask()
        fixture.clock.now += INTERVAL_SECONDS
    assert fixture.verifier.impossible == 3
    assert fixture.remote() is None
    (line,) = caplog.records
    assert line.levelno == logging.ERROR
    assert line.getMessage().startswith("events[0]: group 'g' published offset 1000, but the partition ends at 6.")


def test_the_thread_asks_when_it_is_woken() -> None:
    """It calls the periodic_checks, too, and ends when it is told to."""
    fixture = Fixture()
    fixture.broker.ends = {FIRST: 5}
    fixture.assign(FIRST)
    periodic_checks = threading.Semaphore(0)

    def keep_house() -> float:
        periodic_checks.release()
        return 3_600.0

    thread = threading.Thread(target=fixture.verifier.run, args=(keep_house,))
    thread.start()
    assert periodic_checks.acquire(timeout=TIMEOUT_SECONDS)
    fixture.publish(5)
    fixture.verifier.wake()
    assert fixture.broker.asked.wait(TIMEOUT_SECONDS)
    assert periodic_checks.acquire(timeout=TIMEOUT_SECONDS)
    assert fixture.remote() == 5
    fixture.verifier.stop()
    thread.join(TIMEOUT_SECONDS)
    assert not thread.is_alive()
