"""Whether the brokers that are asked are of the cluster that they were of, and of the follower's."""

from __future__ import annotations

from typing import cast

import pytest
from confluent_kafka import KafkaError, KafkaException

from arroyo_sync.core.errors import AnotherCluster, ConfigurationError
from arroyo_sync.kafka.questions.asker import Asker
from arroyo_sync.kafka.questions.topic_watch import ClusterWatch


class Brokers:
    """They tell of their cluster when they are reached, if they can be."""

    def __init__(self) -> None:
        self.cluster_id: str | None = None
        self.next_id: str | None = "one"
        self.timeouts: list[float] = []
        self.watch = ClusterWatch(cast(Asker, self))

    def reach(self, timeout: float) -> None:
        self.timeouts.append(timeout)
        if self.next_id is None:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))
        self.cluster_id = self.next_id


@pytest.fixture
def brokers() -> Brokers:
    return Brokers()


def test_brokers_that_have_told_nothing_yet_may_be_of_any_cluster(brokers: Brokers) -> None:
    """Also where the follower has told of its own."""
    brokers.watch.check()
    brokers.watch.expect("one")
    brokers.watch.check()


def test_brokers_of_another_cluster_than_before_are_told_by_both_names(brokers: Brokers) -> None:
    """However long they told nothing in between; the first one that was asked is the one that counts."""
    for each in ("one", None, "one"):
        brokers.cluster_id = each
        brokers.watch.check()
    brokers.cluster_id = "two"
    for _ in range(2):
        with pytest.raises(AnotherCluster) as raised:
            brokers.watch.check()
        assert (raised.value.before, raised.value.now) == ("one", "two")


def test_brokers_of_another_cluster_than_the_followers_are_told_with_what_to_do(brokers: Brokers) -> None:
    """Before the follower has told of its own, any is right."""
    brokers.cluster_id = "one"
    brokers.watch.check()
    brokers.watch.expect("one")
    brokers.watch.check()
    brokers.watch.expect("two")
    with pytest.raises(ConfigurationError) as raised:
        brokers.watch.check()
    assert str(raised.value) == (
        "the follower reads the data topic from the cluster 'two', but the source asks the cluster 'one' about it, "
        "where a topic of that name is another one. Give the source the settings of the follower's consumer: as "
        "data_configuration, if the commit log is on another cluster"
    )


def test_a_broker_is_waited_for_no_longer_than_was_asked_for(brokers: Brokers) -> None:
    """It is said whether one has told; if it is of another cluster, that comes up."""
    brokers.next_id = None
    assert brokers.watch.ask_and_check(2.5) is False
    brokers.next_id = "one"
    assert brokers.watch.ask_and_check(1.5) is True
    brokers.next_id = "two"
    with pytest.raises(AnotherCluster):
        brokers.watch.ask_and_check(0.5)
    assert brokers.timeouts == [2.5, 1.5, 0.5]
