"""Whether the brokers know KIP-848 (``group.protocol=consumer``).

librdkafka doesn't tell: against an older broker such a consumer waits for ever, without an error or a log line (tried
with librdkafka 2.14 on Kafka 3.6.2 and 3.9.1). So the broker's own settings are asked.

Threads: `broker_without_kip848` blocks. `refuse_old_brokers` calls it on a daemon thread of its own, which ends with
the answer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, ConfigEntry, ConfigResource

from arroyo_sync.core.errors import BrokersUnreachable, ConfigurationError
from arroyo_sync.core.interruptions import INTERRUPTIONS
from arroyo_sync.kafka.client_settings import admin_settings
from arroyo_sync.kafka.making_clients import make_client

ASK_TIMEOUT_SECONDS = 10.0

PROTOCOLS_SETTING = "group.coordinator.rebalance.protocols"
"""The rebalance protocols that a broker's coordinator serves; brokers have it since 3.7."""

BEFORE_4_SETTING = "inter.broker.protocol.version"
"""A setting that every broker before 4.0 has, and none since (Kafka's upgrade notes for 4.0)."""


def lacks_kip848(broker_settings: Mapping[str, str | None]) -> bool:
    """Whether a broker with these settings can't serve ``group.protocol=consumer``. Pure.

    >>> lacks_kip848({"group.coordinator.rebalance.protocols": "classic,consumer"})
    False
    >>> lacks_kip848({"group.coordinator.rebalance.protocols": "classic"})
    True
    >>> lacks_kip848({"inter.broker.protocol.version": "3.6-IV2"})
    True
    """
    protocols = broker_settings.get(PROTOCOLS_SETTING)
    if protocols:
        return "consumer" not in [name.strip() for name in protocols.split(",")]
    return BEFORE_4_SETTING in broker_settings


def broker_without_kip848(configuration: Mapping[str, Any], timeout: float) -> str | None:
    """The address of a broker that can't serve ``group.protocol=consumer``.

    ``None``: all can, or it can't be told (no answer, no token to log in with, or no permission to read a broker's
    settings).

    :param configuration: librdkafka settings of the cluster.
    :param timeout: seconds, for each of two questions.
    """
    try:
        admin = make_client(AdminClient, admin_settings(configuration))
        brokers = admin.list_topics(timeout=timeout).brokers
    except (BrokersUnreachable, ConfigurationError, KafkaException):  # librdkafka may have no thread to spare
        return None
    answers: dict[str, Future[dict[str, ConfigEntry]]] = {}
    for broker in brokers.values():  # librdkafka takes one of them a call; all are asked before the first has answered
        resource = ConfigResource(ConfigResource.Type.BROKER, str(broker.id))
        answers[f"{broker.host}:{broker.port}"] = admin.describe_configs([resource], request_timeout=timeout)[resource]
    for address, answer in answers.items():
        try:
            settings = answer.result()
        except KafkaException:
            continue
        if lacks_kip848({name: entry.value for name, entry in settings.items()}):
            return address
    return None


def refuse_old_brokers(configuration: Mapping[str, Any], refuse: Callable[[ConfigurationError], object]) -> None:
    """Ask whether all brokers know KIP-848, without waiting for the answer.

    :param refuse: called with the error if one doesn't, on another thread.
    """

    def ask() -> None:
        broker = broker_without_kip848(configuration, ASK_TIMEOUT_SECONDS)
        if broker is not None:
            refuse(
                ConfigurationError(
                    f"broker {broker} doesn't know group.protocol=consumer (KIP-848), and librdkafka would wait for "
                    "ever: it needs Kafka 4.0 or later. Leave group.protocol out, or switch the protocol on "
                    f"({PROTOCOLS_SETTING})"
                )
            )

    try:
        threading.Thread(target=ask, name="arroyo-sync: do the brokers know KIP-848?", daemon=True).start()
    except INTERRUPTIONS:
        raise
    except RuntimeError:
        pass  # the machine has no thread to spare: then it isn't told
