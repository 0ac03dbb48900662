"""What becomes of a question that can't be sent. What brokers answer is shown on the mock cluster and on real ones."""

from __future__ import annotations

import time

import pytest
from confluent_kafka import KafkaError, KafkaException

from arroyo_sync.core.errors import ConfigurationError
from arroyo_sync.kafka.questions.broker_watch import BrokerWatch
from arroyo_sync.kafka.questions.cluster_client import ClusterClient

NOBODY = {"bootstrap.servers": "127.0.0.1:1"}
REFUSED = {**NOBODY, "security.protocol": "nonsense"}


def client_of(settings: dict[str, str]) -> ClusterClient:
    return ClusterClient(settings, lambda error: None, BrokerWatch("", time.monotonic), time.monotonic)


def test_once_it_is_stopped_a_question_is_given_up_at_once() -> None:
    """Also one that would begin a thread of its own."""
    client = client_of(NOBODY)
    client.stop(0.0)
    with pytest.raises(KafkaException) as raised:
        client.reach(60.0)
    assert raised.value.args[0].code() == KafkaError._DESTROY
    answers: list[object] = []
    client.list_partitions("events", 60.0, answers.append)
    client.describe(["events"], 60.0, answers.append)
    assert answers[0] == []
    assert len(answers) == 2


def test_settings_that_are_refused_leave_no_question_in_flight() -> None:
    """They are told to whoever asks, and the end waits for nothing."""
    client = client_of(REFUSED)
    with pytest.raises(ConfigurationError):
        client.reach(60.0)
    with pytest.raises(ConfigurationError):
        client.list_partitions("events", 60.0, lambda found: None)
    with pytest.raises(ConfigurationError):
        client.describe(["events"], 60.0, lambda found: None)
    begun_at = time.monotonic()
    client.stop(60.0)
    assert time.monotonic() - begun_at < 30.0
