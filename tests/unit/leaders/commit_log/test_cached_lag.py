"""How far the reader is behind, and which partitions there are, as its own client tells."""

from __future__ import annotations

from typing import cast

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import PartitionMetadata, TopicMetadata

from arroyo_sync.leaders.commit_log.log_topic import cached_lag, list_partitions

UNKNOWN_END = -1001
"""What librdkafka says of a partition of which nothing was fetched yet."""


class Client:
    """Knows these ends, and a topic ``log`` of two partitions."""

    def __init__(self, *ends: int | None) -> None:
        self.ends = ends
        self.listed: list[tuple[str, float]] = []

    def get_watermark_offsets(self, partition: TopicPartition, cached: bool) -> tuple[int, int] | None:
        assert (partition.topic, cached) == ("log", True)
        end = self.ends[partition.partition]
        return None if end is None else (0, end)

    def list_topics(self, topic: str, timeout: float) -> Client:
        self.listed.append((topic, timeout))
        return self

    @property
    def topics(self) -> dict[str, TopicMetadata]:
        metadata = TopicMetadata()
        metadata.error = None
        metadata.partitions = {each: PartitionMetadata() for each in (1, 0)}
        return {"log": metadata}


@pytest.mark.parametrize(
    ("ends", "lag"),
    [
        pytest.param([10, 20], 10 - 4 + 20 - 5, id="the sum of all partitions"),
        pytest.param([10, 3], 10 - 4, id="what is read already is ahead of what the client knew"),
        pytest.param([0, 6], 1, id="an empty partition has an end"),
        pytest.param([10, UNKNOWN_END], None, id="nothing was fetched of one"),
        pytest.param([UNKNOWN_END, 10], None, id="nothing was fetched of the first"),
        pytest.param([10, None], None, id="the client has no answer"),
    ],
)
def test_the_lag_is_how_many_offsets_are_still_to_be_read(ends: list[int | None], lag: int | None) -> None:
    """Unknown if that of any partition is: half a sum would look like a reader that keeps up."""
    assert cached_lag(cast(Consumer, Client(*ends)), "log", {0: 4, 1: 5}) == lag


def test_the_partitions_of_that_topic_alone_are_asked_for() -> None:
    """A cluster may have thousands of topics; without a name the brokers list them all."""
    client = Client()
    assert list_partitions(cast(Consumer, client), "log", 1.5) == [0, 1]
    assert client.listed == [("log", 1.5)]
    assert list_partitions(cast(Consumer, client), "other", 1.5) == []
