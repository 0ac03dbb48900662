"""Which brokers can serve ``group.protocol=consumer``, by their own settings."""

from __future__ import annotations

from typing import Any

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


def test_a_token_that_is_missing_just_then_refuses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The follower's own client has one. On a thread of its own the error would be a traceback, and a Sentry event."""

    def without_token(settings: dict[str, Any]) -> object:
        raise SystemError("returned NULL without setting an exception")

    monkeypatch.setattr("arroyo_sync.gate.consumer.rebalance_protocol.AdminClient", without_token)
    configuration = {"bootstrap.servers": "127.0.0.1:1", "oauth_cb": lambda configuration: None}
    assert broker_without_kip848(configuration, 0.1) is None
