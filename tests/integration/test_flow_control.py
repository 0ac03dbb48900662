"""Promises 4 to 6 on the real broker. Each of these fails when the mechanism that it names is taken out."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

import arroyo.processing.processor
import pytest

from arroyo_sync.gate.partition_buffer import HoldLimits
from tests.integration.cluster.admin import Kafka
from tests.integration.cluster.followers import Follower, patient_settings, produce_numbered, running
from tests.integration.cluster.waiting import wait_until

PARTITIONS = 4
ALL = range(PARTITIONS)
WAIT_SECONDS = 60
POLL_SECONDS = 85
"""So that the processor still ends in time after the test has failed."""
SMALL = HoldLimits(messages=100, resume_messages=20)


def offsets_by_partition(follower: Follower) -> list[list[int]]:
    return [[offset for index, offset in follower.received if index == partition] for partition in ALL]


def test_progress_a_release_wakes_the_processor_though_nothing_new_arrives(
    kafka: Kafka, topic_name: Callable[..., str]
) -> None:
    """Slice and poll last longer than the test waits for anything, so only the wake-up can end them."""
    topic = topic_name("events")
    kafka.create_topic(topic, PARTITIONS)
    produce_numbered(kafka.bootstrap_servers, topic, ALL, 10)
    settings = patient_settings(kafka.bootstrap_servers, topic_name("follower"), "eager")
    follower = Follower(settings, topic, slice_seconds=600)
    manager, waits = follower.factory.manager, threading.Event()
    wait_for_move = manager.wait_for_move

    def note_and_wait(version: int, timeout: float) -> bool:
        waits.set()
        # The processor polls for a second, and the wait ends with the poll: it would hide a wake-up that is lost.
        return wait_for_move(version, POLL_SECONDS)

    manager.wait_for_move = note_and_wait  # type: ignore[method-assign]
    with running(follower):
        # New data doesn't end a wait, so each release brings in what arrived meanwhile.
        for remote_offset in range(1, 11):
            assert waits.wait(WAIT_SECONDS), "the processor waits"
            waits.clear()
            follower.release(ALL, remote_offset)
            wait_until(lambda: waits.is_set() or follower.held == 0, WAIT_SECONDS, "the release was taken note of")
        follower.release(ALL, 11)
        follower.wait_until_received(PARTITIONS * 10, WAIT_SECONDS)


def test_independence_a_partition_that_waits_stops_no_other(kafka: Kafka, topic_name: Callable[..., str]) -> None:
    """Partition 3 is never released, and full long before the others are through: it alone is paused."""
    topic, count = topic_name("events"), 3000
    kafka.create_topic(topic, PARTITIONS)
    produce_numbered(kafka.bootstrap_servers, topic, [3], count)
    settings = patient_settings(kafka.bootstrap_servers, topic_name("follower"), "eager")
    follower = Follower(settings, topic, limits=SMALL)
    with running(follower):
        wait_until(lambda: follower.held == SMALL.messages, 60, "partition 3 is full")
        follower.release(ALL[:-1], count)
        produce_numbered(kafka.bootstrap_servers, topic, ALL[:-1], count)
        follower.wait_until_received((PARTITIONS - 1) * count)
        assert follower.factory.held[topic, 3] == SMALL.messages
        # And it goes on as soon as it may, from where it was.
        follower.release(ALL, count)
        follower.wait_until_received(PARTITIONS * count)
    assert offsets_by_partition(follower) == [list(range(count))] * PARTITIONS


def test_bounded_a_backlog_stays_in_kafka(kafka: Kafka, topic_name: Callable[..., str]) -> None:
    """No partition ever holds more than its limit, while a backlog thirty times as long passes in small steps."""
    topic, count = topic_name("events"), 3000
    kafka.create_topic(topic, PARTITIONS)
    produce_numbered(kafka.bootstrap_servers, topic, ALL, count)
    settings = patient_settings(kafka.bootstrap_servers, topic_name("follower"), "eager")
    follower = Follower(settings, topic, limits=SMALL)
    most_held = 0

    def is_through(remote_offset: int) -> bool:
        nonlocal most_held
        most_held = max(most_held, *follower.factory.held.values())
        return len(follower.received) >= PARTITIONS * remote_offset

    with running(follower):
        wait_until(lambda: follower.held == PARTITIONS * SMALL.messages, 60, "every partition is full")
        for remote_offset in range(0, count + 1, 500):
            follower.release(ALL, remote_offset)
            wait_until(partial(is_through, remote_offset), 60, f"everything below {remote_offset}")
    assert most_held == SMALL.messages
    assert offsets_by_partition(follower) == [list(range(count))] * PARTITIONS


@pytest.mark.parametrize("protocol", ["eager", "kip848"])
def test_arroyos_own_back_pressure_and_the_gates_pauses_go_together(
    kafka: Kafka, topic_name: Callable[..., str], monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    """While partition 3 is full, the step behind rejects until Arroyo has paused everything, and a member joins.

    Arroyo asserts that nothing arrives while it is paused, and under KIP-848 forgets that pause in the rebalance.
    """
    monkeypatch.setattr(arroyo.processing.processor, "BACKPRESSURE_THRESHOLD", 0.1)
    topic, count = topic_name("events"), 2000
    kafka.create_topic(topic, PARTITIONS)
    produce_numbered(kafka.bootstrap_servers, topic, [3], count)
    settings = patient_settings(kafka.bootstrap_servers, topic_name("follower"), protocol)
    follower = Follower(settings, topic, limits=SMALL)
    flow = follower.flow
    assert flow is not None
    with running(follower):
        wait_until(lambda: follower.held == SMALL.messages, 60, "partition 3 is full")
        follower.is_blocked = True
        follower.release(ALL[:-1], count)
        produce_numbered(kafka.bootstrap_servers, topic, ALL[:-1], count)
        wait_until(lambda: len(flow.paused()) == PARTITIONS, 60, "Arroyo has paused everything")
        other = Follower(settings, topic, limits=SMALL)
        with running(other):
            wait_until(lambda: len(other.assigned) == 2 == len(follower.assigned), 120, "each has two partitions")
        wait_until(lambda: len(follower.assigned) == PARTITIONS, 120, "the other one has left")
        follower.is_blocked = False
        follower.release(ALL, count)
        follower.wait_until_received(PARTITIONS * count)
    assert offsets_by_partition(follower) == [list(range(count))] * PARTITIONS
