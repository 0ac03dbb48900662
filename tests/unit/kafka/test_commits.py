"""What is staged is committed, whoever commits for Arroyo, and what was refused is known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import confluent_kafka
import pytest
from arroyo.types import Partition
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from arroyo_sync.kafka.commits import commit_staged
from tests.support.fakes import EVENTS, ScriptedConsumer


class AutoCommitting(ScriptedConsumer):
    """As Arroyo's consumer under ``arroyo.enable.auto.commit``: its own commit does nothing."""

    def __init__(self, client: object) -> None:
        super().__init__()
        self._KafkaConsumer__consumer = client
        self._KafkaConsumer__use_auto_commit = True

    def commit_offsets(self) -> Mapping[Partition, int]:
        raise AssertionError("does nothing in Arroyo")


class Client(confluent_kafka.Consumer):
    """A client whose commits have these outcomes, in turn."""

    outcomes: list[list[TopicPartition] | Exception]
    offsets: list[list[TopicPartition] | None]
    """What each was to commit; ``None``: what is staged."""

    def commit(self, *, asynchronous: bool, offsets: list[TopicPartition] | None = None) -> Any:  # type: ignore[override]
        assert not asynchronous
        self.offsets.append(offsets)
        outcome = self.outcomes[len(self.offsets) - 1]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


@pytest.fixture
def client() -> Iterator[Client]:
    client = Client({"bootstrap.servers": "127.0.0.1:1", "group.id": "follower", "log_level": 0})
    client.offsets = []
    yield client
    client.close()


def test_a_consumer_that_commits_itself_is_asked_to() -> None:
    consumer = ScriptedConsumer()
    consumer.assign(0)
    consumer.stage_offsets({Partition(EVENTS, 0): 4})
    commit_staged(consumer)
    assert consumer.committed == {0: 4}


NOTHING_MORE = KafkaException(KafkaError(KafkaError._NO_OFFSET))


def test_under_auto_commit_the_client_commits_and_is_waited_for(client: Client) -> None:
    """Also when librdkafka has committed all of it meanwhile."""
    client.outcomes = [[TopicPartition("events", 0, 4)], NOTHING_MORE]
    for _ in client.outcomes:
        commit_staged(AutoCommitting(client))
    assert client.offsets == [None, None]


def test_under_auto_commit_offsets_can_be_named(client: Client) -> None:
    """Of what is staged librdkafka commits nothing that lies before its last commit. The others are committed too."""
    client.outcomes = [[TopicPartition("events", 0, 4)], NOTHING_MORE]
    commit_staged(AutoCommitting(client), {Partition(EVENTS, 0): 4})
    assert client.offsets == [[TopicPartition("events", 0, 4)], None]


@pytest.mark.parametrize("by_name", [{}, {Partition(EVENTS, 0): 4}], ids=["what is staged", "by name"])
@pytest.mark.parametrize("is_of_one_partition", [True, False])
def test_a_commit_that_fails_raises(
    client: Client, is_of_one_partition: bool, by_name: Mapping[Partition, int]
) -> None:
    """As a whole, or for one partition, which the client doesn't raise."""
    error = KafkaError(KafkaError.UNKNOWN_MEMBER_ID)
    if is_of_one_partition:
        refused = SimpleNamespace(error=error)
        client.outcomes = [[TopicPartition("events", 0, 4), refused]]  # type: ignore[list-item]
    else:
        client.outcomes = [KafkaException(error)]
    with pytest.raises(KafkaException) as raised:
        commit_staged(AutoCommitting(client), by_name)
    assert raised.value.args[0].code() == KafkaError.UNKNOWN_MEMBER_ID
