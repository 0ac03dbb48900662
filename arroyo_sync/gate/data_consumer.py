"""Arroyo's consumer of the data topic, with the settings that the gate wants wherever the user's are silent.

A pause makes librdkafka throw away what it had prefetched of the partition, and fetch it again: so it is to prefetch
little, to refill that soon, and to get little with one response. ``FOLLOWERS.md`` has the numbers.

Threads: any; a consumer that was made connects at once, as librdkafka's clients do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from arroyo.backends.kafka import KafkaConsumer
from arroyo.backends.kafka.consumer import as_kafka_configuration_bool

from arroyo_sync.core.errors import ConfigurationError
from arroyo_sync.core.log_guard import guarded_logger
from arroyo_sync.kafka.client_settings import TOPIC_SETTINGS, check_configuration
from arroyo_sync.kafka.error_callbacks import raising_if_refused
from arroyo_sync.kafka.making_clients import make_client

logger = guarded_logger(__name__)


class _Wanted(NamedTuple):
    """A setting of librdkafka's."""

    names: tuple[str, ...]
    """Its name, and the others that it has."""
    value: int
    costly_above: int
    cost: str


WANTED = (
    _Wanted(("queued.min.messages",), 1_000, 10_000, "a pause throws so many prefetched messages away"),
    _Wanted(("fetch.queue.backoff.ms",), 10, 100, "a small prefetch queue is refilled no sooner than after this"),
    _Wanted(
        ("max.partition.fetch.bytes", "fetch.message.max.bytes"),
        300_000,
        2**20,
        "a pause throws so much of one response away",
    ),
)


def data_consumer_settings(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """The user's settings, and what the gate wants where they are silent. A costly value of the user's is logged."""
    # Arroyo looks for these in here alone, while librdkafka lets them beat what is in here: so `auto.offset.reset`
    # would step over a lost position in silence, where Arroyo wants an error.
    given = {**configuration, **(configuration.get(TOPIC_SETTINGS) or {}), TOPIC_SETTINGS: None}
    settings: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if "group.protocol" in settings:  # librdkafka takes it in any case, Arroyo compares
        settings["group.protocol"] = str(settings["group.protocol"]).lower()
    else:
        # librdkafka's own default "will change to `consumer` in next releases", and Arroyo goes by what is in here.
        settings["group.protocol"] = "classic"
    if not _is_true(settings.get("arroyo.enable.auto.commit", False)):
        settings.setdefault("enable.auto.commit", False)  # Arroyo's consumer asks for both
        settings.setdefault("enable.auto.offset.store", False)
    settings.setdefault("error_cb", raising_if_refused())
    for wanted in WANTED:
        names = [name for name in wanted.names if name in settings]
        if not names:
            settings[wanted.names[0]] = wanted.value
        for name in names:
            if _number(settings[name]) > wanted.costly_above:
                logger.warning(
                    "%s=%s costs a follower much: %s. Leave it out, and it is %d",
                    name,
                    settings[name],
                    wanted.cost,
                    wanted.value,
                )
    return settings


def make_data_consumer(configuration: Mapping[str, Any]) -> KafkaConsumer:
    """Arroyo's consumer with `data_consumer_settings`.

    :raises ConfigurationError: the settings can't be right, or Arroyo or librdkafka refuses them.
    """
    check_configuration("configuration", configuration)
    settings = data_consumer_settings(configuration)
    try:
        return make_client(KafkaConsumer, settings)
    except ConfigurationError:
        raise
    except ValueError as exc:
        raise ConfigurationError(f"Arroyo refuses the configuration: {exc}") from exc


def _is_true(value: object) -> bool:
    try:
        return as_kafka_configuration_bool(value)
    except (TypeError, ValueError):
        return True  # Arroyo says what is wrong with it


def _number(value: object) -> float:
    try:
        return float(str(value))
    except ValueError:
        return 0.0  # librdkafka says what is wrong with it
