"""Rebalances on the real broker while messages are held: nothing lost, nothing early, in order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from arroyo_sync.core.errors import ConfigurationError
from tests.integration.cluster.admin import Kafka
from tests.integration.cluster.followers import Follower, consumer_settings, produce_numbered
from tests.integration.cluster.waiting import wait_until

PARTITIONS = 4
PER_PARTITION = 500
RELEASED = 100


def is_in_order(follower: Follower) -> bool:
    """Promise 2: within every assignment each partition's offsets rise by one, each once."""
    for delivered in follower.deliveries:
        for partition in range(PARTITIONS):
            offsets = [offset for index, offset in delivered if index == partition]
            if offsets and offsets != list(range(offsets[0], offsets[0] + len(offsets))):
                return False
    return True


@pytest.mark.parametrize(("protocol", "wrapped"), [("eager", True), ("kip848", True), ("eager", False)])
def test_no_loss_when_a_member_joins_and_leaves_while_messages_are_held(
    kafka: Kafka, topic_name: Callable[..., str], protocol: str, wrapped: bool
) -> None:
    """Promises 1 to 3: what the old gates held, and what the processors carried, is read again by whoever owns it then.

    Under eager assignment without the consumer wrapper too.
    """
    topic, group = topic_name("events"), topic_name("follower")
    kafka.create_topic(topic, PARTITIONS)
    produce_numbered(kafka.bootstrap_servers, topic, range(PARTITIONS), PER_PARTITION)
    settings = consumer_settings(kafka.bootstrap_servers, group, protocol)

    first = Follower(settings, topic, wrapped=wrapped)
    first.start()
    try:
        first.release(range(PARTITIONS), RELEASED)
        first.wait_until_received(PARTITIONS * RELEASED)
        wait_until(lambda: first.held == PARTITIONS * (PER_PARTITION - RELEASED), 30, "the rest is held")

        second = Follower(settings, topic, wrapped=wrapped)
        second.release(range(PARTITIONS), RELEASED)
        second.start()
        try:
            wait_until(lambda: len(second.assigned) == 2 and len(first.assigned) == 2, 60, "each has two partitions")
            wait_until(
                lambda: first.held == second.held == 2 * (PER_PARTITION - RELEASED),
                30,
                "each holds its partitions' rest",
            )
            for follower in (first, second):
                follower.release(range(PARTITIONS), 2 * RELEASED)
            second.wait_until_received(2 * RELEASED)
        finally:
            second.stop()
        wait_until(lambda: len(first.assigned) == PARTITIONS, 60, "the first has all partitions again")
        first.release(range(PARTITIONS), PER_PARTITION)
        wait_until(
            lambda: {(p, PER_PARTITION - 1) for p in range(PARTITIONS)} <= set(first.received), 30, "the last of each"
        )
    finally:
        first.stop()

    seen = Counter(first.received) + Counter(second.received)
    assert is_in_order(first)
    assert is_in_order(second)
    missing = [(p, o) for p in range(PARTITIONS) for o in range(PER_PARTITION) if not seen[p, o]]
    assert missing == []
    assert kafka.committed_offsets(group, topic) == dict.fromkeys(range(PARTITIONS), PER_PARTITION)


def test_cooperative_sticky_is_refused_with_one_clear_line(kafka: Kafka, topic_name: Callable[..., str]) -> None:
    """Arroyo itself can't work with it: the processor ends with the reason instead of librdkafka's."""
    topic = topic_name("events")
    kafka.create_topic(topic, PARTITIONS)
    settings = consumer_settings(kafka.bootstrap_servers, topic_name("follower"), "eager")
    follower = Follower({**settings, "partition.assignment.strategy": "cooperative-sticky"}, topic)
    follower.start()
    wait_until(lambda: follower.error is not None, 60, "the processor has ended")
    with pytest.raises(ConfigurationError, match=r"cooperative-sticky: use range or roundrobin, or group\.protocol"):
        follower.stop()
