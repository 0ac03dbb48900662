"""Which brokers can serve ``group.protocol=consumer``, by their own settings."""

from __future__ import annotations

import pytest

from arroyo_sync.gate.consumer.rebalance_protocol import broker_without_kip848, lacks_kip848


@pytest.mark.parametrize(
    ("settings", "lacks"),
    [
        ({"inter.broker.protocol.version": "3.6-IV2"}, True),
        ({"inter.broker.protocol.version": "3.9-IV0", "group.coordinator.rebalance.protocols": "classic"}, True),
        ({"inter.broker.protocol.version": "3.8", "group.coordinator.rebalance.protocols": "classic,consumer"}, False),
        ({"group.coordinator.rebalance.protocols": "classic,consumer"}, False),
        ({"group.coordinator.rebalance.protocols": "classic, consumer, streams"}, False),
        ({"group.coordinator.rebalance.protocols": "classic"}, True),
        ({"group.coordinator.rebalance.protocols": ""}, False),
        ({"group.coordinator.rebalance.protocols": None}, False),
        ({}, False),
    ],
    ids=["3.6", "3.9", "3.8 switched on", "4.0", "4.4", "4.0, off", "empty", "hidden", "without it"],
)
def test_a_broker_lacks_it_only_where_its_settings_say_so(settings: dict[str, str | None], lacks: bool) -> None:
    """What can't be told isn't refused."""
    assert lacks_kip848(settings) is lacks


def test_brokers_that_do_not_answer_refuse_nothing() -> None:
    assert broker_without_kip848({"bootstrap.servers": "127.0.0.1:1"}, 0.1) is None
