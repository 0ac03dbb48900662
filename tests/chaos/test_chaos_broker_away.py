"""What the driver of a chaos run does while a broker is away that some partitions need."""

from __future__ import annotations

from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from tests.chaos import questions
from tests.chaos.broker_faults import miss_broker
from tests.chaos.questions import Questions
from tests.chaos.world import World


class Consumer:
    """Of a topic with four partitions: 1 has no leader, and that of 2 doesn't answer."""

    def __init__(self, settings: object) -> None: ...

    def close(self) -> None: ...

    def list_topics(self, topic: str, timeout: float) -> Any:
        partitions = {index: SimpleNamespace(leader=-1 if index == 1 else index) for index in range(4)}
        return SimpleNamespace(topics={topic: SimpleNamespace(partitions=partitions)})

    def get_watermark_offsets(self, partition: TopicPartition, timeout: float) -> tuple[int, int]:
        assert partition.partition != 1
        if partition.partition == 2:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        return partition.partition, 10


def test_the_ends_of_the_other_partitions_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "Consumer", Consumer)
    assert Questions("b:1", "events").reachable_ends("events") == {0: (0, 10), 3: (3, 10)}


def test_an_offset_that_is_gone_is_set_though_another_partition_s_broker_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else the follower ends again and again until that one is back, and is blamed for it."""
    monkeypatch.setattr(questions, "Consumer", Consumer)
    asked = Questions("b:1", "events")
    monkeypatch.setattr(asked, "committed", lambda group: {0: 5, 1: 5, 3: 2})
    set_to: dict[int, int] = {}
    world: Any = SimpleNamespace(
        questions=asked,
        members=lambda group: [],
        stop=lambda *slots: None,
        start=lambda *slots: None,
        set_offsets=lambda group, offsets: set_to.update(offsets),
    )
    World.set_stale_offsets(world, "eager")
    assert set_to == {3: 3}


def test_no_broker_goes_away_before_every_group_has_begun_with_its_partitions() -> None:
    """Arroyo ends where it can't ask a partition's broker where a group without a commit begins."""
    committed = {"eager": {0: 5, 1: 0}, "kip848": {0: 5}}
    world: Any = SimpleNamespace(
        follower_groups=list(committed),
        questions=SimpleNamespace(leaders=lambda topic: {0: 1, 1: 2}, committed=committed.__getitem__),
        wait=lambda seconds, until: until(),
    )
    with pytest.raises(TimeoutError, match="begun"):
        miss_broker(world, Random(1))
