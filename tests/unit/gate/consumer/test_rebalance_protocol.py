"""Which brokers can serve ``group.protocol=consumer``, by their own settings."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import ConfigResource

from arroyo_sync.gate.consumer.rebalance_protocol import broker_without_kip848, lacks_kip848, refuse_old_brokers


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


def test_a_client_that_can_not_be_made_refuses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the machine has no thread to spare: neither librdkafka, nor Python for the question itself."""

    def refuse(*arguments: object) -> object:
        raise RuntimeError("can't start new thread")

    refused: list[object] = []
    with monkeypatch.context() as patched:
        patched.setattr("threading.Thread.start", refuse)
        refuse_old_brokers({"bootstrap.servers": "127.0.0.1:1"}, refused.append)
    assert broker_without_kip848({"bootstrap.servers": "127.0.0.1:1", "security.protocol": "nonsense"}, 0.1) is None
    assert refused == []


def described(old: str | None, monkeypatch: pytest.MonkeyPatch) -> str | None:
    """Which of three brokers is refused, if this one is of before 4.0."""

    class Admin:
        def __init__(self, settings: dict[str, Any]) -> None: ...

        def list_topics(self, timeout: float) -> object:
            brokers = {each: SimpleNamespace(id=each, host=f"kafka-{each}", port=9092) for each in range(3)}
            return SimpleNamespace(brokers=brokers)

        def describe_configs(
            self, resources: list[ConfigResource], request_timeout: float
        ) -> dict[ConfigResource, Future[dict[str, object]]]:
            futures: dict[ConfigResource, Future[dict[str, object]]] = {each: Future() for each in resources}
            for resource, future in futures.items():
                if len(resources) > 1:  # as librdkafka does
                    future.set_exception(KafkaException(KafkaError(KafkaError._CONFLICT)))
                else:
                    is_old = f"kafka-{resource.name}:9092" == old
                    future.set_result({"inter.broker.protocol.version": SimpleNamespace(value="3.9")} if is_old else {})
            return futures

    monkeypatch.setattr("arroyo_sync.gate.consumer.rebalance_protocol.AdminClient", Admin)
    return broker_without_kip848({"bootstrap.servers": "127.0.0.1:1"}, 0.1)


@pytest.mark.parametrize("old", ["kafka-0:9092", "kafka-2:9092", None])
def test_each_broker_of_a_cluster_is_asked_by_itself(old: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """All at once librdkafka refuses, so that no cluster of more than one broker was ever told of."""
    assert described(old, monkeypatch) == old
