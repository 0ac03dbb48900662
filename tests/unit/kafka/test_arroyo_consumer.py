"""Arroyo's private attributes are where the one module that touches them looks, and it goes on where they aren't."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import confluent_kafka
import pytest
from arroyo.backends.kafka import KafkaConsumer

from arroyo_sync.core.log_throttle import LogThrottle
from arroyo_sync.kafka import arroyo_consumer

QUESTIONS = (arroyo_consumer.client_of, arroyo_consumer.is_kip848, arroyo_consumer.group_of)
CONFIGURATION: dict[str, Any] = {
    "test.mock.num.brokers": 1,
    "bootstrap.servers": "127.0.0.1:1",
    "group.id": "follower",
    "auto.offset.reset": "earliest",
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
}


@pytest.fixture
def consumer() -> Iterator[KafkaConsumer]:
    consumer = KafkaConsumer(CONFIGURATION)
    yield consumer
    consumer.close()


def test_the_installed_arroyo_has_them_all(consumer: KafkaConsumer) -> None:
    """In the lowest and in the newest version that is supported: ``.ci/run`` runs this with both."""
    assert isinstance(arroyo_consumer.client_of(consumer), confluent_kafka.Consumer)
    assert arroyo_consumer.is_kip848(consumer) is False
    assert arroyo_consumer.group_of(consumer) == "follower"


def test_a_consumer_of_the_new_protocol_is_known() -> None:
    settings = {name: value for name, value in CONFIGURATION.items() if name != "partition.assignment.strategy"}
    consumer = KafkaConsumer({**settings, "group.protocol": "consumer"})
    try:
        assert arroyo_consumer.is_kip848(consumer) is True
    finally:
        consumer.close()


def test_another_consumer_answers_nothing_and_nothing_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    answers = [
        ask(object()) for ask in (arroyo_consumer.client_of, arroyo_consumer.is_kip848, arroyo_consumer.group_of)
    ]
    assert answers == [None, None, None]
    assert caplog.records == []


@pytest.mark.parametrize("name", arroyo_consumer.PRIVATE_ATTRIBUTES)
def test_an_arroyo_without_one_of_them_is_told_of_once(
    name: str, consumer: KafkaConsumer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(arroyo_consumer, "_throttle", LogThrottle(float("inf"), lambda: 0.0))
    value = consumer.__dict__.pop(name)
    try:
        for _ in range(2):
            assert [ask(consumer) for ask in QUESTIONS].count(None) == 1
    finally:
        consumer.__dict__[name] = value
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert name.removeprefix("_KafkaConsumer") in record.getMessage()
