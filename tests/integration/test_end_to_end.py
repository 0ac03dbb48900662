"""The whole thing on the real broker, with real processes: leaders, their commit log, and followers behind the gate."""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from itertools import product
from pathlib import Path

import pytest
from confluent_kafka import KafkaException

from tests.integration.cluster.admin import Kafka
from tests.integration.cluster.followers import PATIENT, PROTOCOLS, produce_numbered
from tests.integration.cluster.pipeline import Event, PipelineProcess, PipelineSettings
from tests.integration.cluster.waiting import wait_until

MESSAGES = 40_000


def early_deliveries(delivered: list[Event], leaders: list[list[Event]]) -> list[Event]:
    """Promise 1: the deliveries that some leader group had not passed to ``commit`` when they were made."""
    early = []
    for leader in leaders:
        progress: dict[int, tuple[list[int], list[float]]] = defaultdict(lambda: ([], []))
        for event in leader:
            offsets, times = progress[event.partition]
            if not offsets or event.offset > offsets[-1]:
                offsets.append(event.offset)
                times.append(event.time)
        for event in delivered:
            offsets, times = progress[event.partition]
            place = bisect.bisect_right(offsets, event.offset)  # the first commit past this message
            if place == len(offsets) or times[place] > event.time:
                early.append(event)
    return early


def out_of_order(delivered: list[Event]) -> list[Event]:
    """Promise 2: one process's deliveries that don't follow the last of their partition and assignment by one."""
    last: dict[tuple[int, int], int] = {}
    broken = []
    for event in delivered:
        key = (event.assignment, event.partition)
        if key in last and event.offset != last[key] + 1:
            broken.append(event)
        last[key] = event.offset
    return broken


def shares(kafka: Kafka, group: str) -> list[int]:
    """How many partitions each member has."""
    try:
        described = kafka.admin.describe_consumer_groups([group], request_timeout=10)[group].result(60)
    except KafkaException:
        return []
    return [len(member.assignment.topic_partitions) for member in described.members]


def missing(delivered: list[Event], partitions: int, count: int) -> list[tuple[int, int]]:
    """Promise 3: what nobody was given."""
    seen = {(event.partition, event.offset) for event in delivered}
    return [each for each in product(range(partitions), range(count)) if each not in seen]


@pytest.mark.parametrize(("protocol", "partitions"), list(zip(PROTOCOLS, (4, 16), strict=True)))
def test_nothing_early_nothing_lost_with_two_leader_groups_and_followers_that_come_and_go(
    kafka: Kafka, topic_name: Callable[..., str], tmp_path: Path, protocol: str, partitions: int
) -> None:
    """40,000 messages; a second follower joins while messages are held, and leaves again before the end.

    A fifth of them come once it has its partitions: it may take so long to begin that the first has got all others.
    """
    topic, commit_log = topic_name("events"), topic_name("commit-log")
    kafka.create_topic(topic, partitions)
    kafka.create_topic(commit_log, 4)
    per_partition = MESSAGES // partitions
    at_first = per_partition * 4 // 5
    fast, slow, followers = topic_name("fast"), topic_name("slow"), topic_name("follower")

    def settings(name: str, group: str, **more: object) -> PipelineSettings:
        return PipelineSettings(
            kafka.bootstrap_servers,
            topic,
            group,
            str(tmp_path / name),
            commit_log,
            protocol=protocol,
            leader_groups=(fast, slow),
            consumer=PATIENT[protocol],
            **more,  # type: ignore[arg-type]
        )

    with ExitStack() as stack:

        def start(role: str, made: PipelineSettings) -> PipelineProcess:
            return stack.enter_context(PipelineProcess(role, made))

        first = start("follower", settings("follower-1", followers))
        leaders = [
            start("leader", settings("leader-fast", fast)),
            start("leader", settings("leader-slow", slow, delay_every=100)),
        ]
        produce_numbered(kafka.bootstrap_servers, topic, range(partitions), at_first)
        wait_until(lambda: first.count() > MESSAGES // 10, 120, "the first follower is under way")
        second = start("follower", settings("follower-2", followers))
        wait_until(lambda: shares(kafka, followers) == [partitions // 2] * 2, 120, "each follower has its partitions")
        produce_numbered(kafka.bootstrap_servers, topic, range(partitions), per_partition - at_first)
        wait_until(lambda: second.count() > MESSAGES // 20, 120, "the second follower has its share")
        second.stop()
        wait_until(
            lambda: (
                first.count() + second.count() >= MESSAGES
                and not missing(first.events() + second.events(), partitions, per_partition)
            ),
            120,
            lambda: f"{first.count()} + {second.count()} deliveries of {MESSAGES} messages",
        )
        for process in (first, *leaders):
            process.stop()

    assert early_deliveries(first.events() + second.events(), [leader.events() for leader in leaders]) == []
    assert out_of_order(first.events()) == []
    assert out_of_order(second.events()) == []
    assert kafka.committed_offsets(followers, topic) == dict.fromkeys(range(partitions), per_partition)
