"""The consumer that the factory makes: what the gate wants, where the user's settings are silent."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import ANY

import pytest
from arroyo.backends.kafka.configuration import build_kafka_consumer_configuration
from confluent_kafka import KafkaError

from arroyo_sync.core.errors import AccessRefused, ConfigurationError
from arroyo_sync.gate.data_consumer import data_consumer_settings
from arroyo_sync.gate.factory import SynchronizedStrategyFactory
from arroyo_sync.gate.flow_control import FlowControlledConsumer
from arroyo_sync.kafka import arroyo_consumer
from tests.support.harness import NotedSource
from tests.unit.gate.test_factory import UserFactory

LEAST: dict[str, Any] = {"bootstrap.servers": "127.0.0.1:1", "group.id": "follower"}
WANTED: dict[str, Any] = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "queued.min.messages": 1_000,
    "fetch.queue.backoff.ms": 10,
    "max.partition.fetch.bytes": 300_000,
    "error_cb": ANY,
    "group.protocol": "classic",
}

Make = Callable[..., FlowControlledConsumer[Any]]


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes a consumer with a factory of its own."""
    made: list[FlowControlledConsumer[Any]] = []

    def make(**settings: Any) -> FlowControlledConsumer[Any]:
        factory = SynchronizedStrategyFactory(UserFactory(), NotedSource(), monitor_interval=None)
        made.append(factory.consumer({**LEAST, "log_level": 0, **settings}))
        return made[-1]

    yield make
    for consumer in made:
        consumer.close()


def test_it_takes_where_the_brokers_are_and_the_group_and_nothing_else(make: Make) -> None:
    """The flow control is around it."""
    consumer = make()
    assert isinstance(consumer, FlowControlledConsumer)
    assert arroyo_consumer.group_of(consumer._inner) == "follower"


def test_what_the_user_leaves_out_is_what_the_gate_wants() -> None:
    assert data_consumer_settings(LEAST) == {**LEAST, **WANTED}


def test_a_consumers_first_minute_is_its_own() -> None:
    """However old the process is: a login that is refused in it is refused for good."""
    first, second = (data_consumer_settings(LEAST)["error_cb"] for _ in range(2))
    assert first is not second
    for error_cb in (first, second):
        with pytest.raises(AccessRefused):
            error_cb(KafkaError(KafkaError._AUTHENTICATION, "sasl_ssl://kafka:9092/bootstrap: wrong password"))


@pytest.mark.parametrize("value", [False, "false", "F", "0", 0])
def test_that_auto_commit_is_off_may_be_said_as_arroyo_takes_it(value: object) -> None:
    """Text is what a file or the environment has. Arroyo then refused a setting that the user had never given."""
    settings = data_consumer_settings({**LEAST, "arroyo.enable.auto.commit": value})
    assert settings == {**LEAST, **WANTED, "arroyo.enable.auto.commit": value}


@pytest.mark.parametrize("value", [True, "true", "1", 1, "perhaps"])
def test_with_auto_commit_or_what_arroyo_refuses_its_own_settings_are_left_alone(value: object) -> None:
    settings = data_consumer_settings({**LEAST, "arroyo.enable.auto.commit": value})
    assert settings.keys() & {"enable.auto.commit", "enable.auto.offset.store"} == set()


def test_the_protocol_is_spelled_as_arroyo_compares_it() -> None:
    """librdkafka takes it in any case: Arroyo would assign as under the classic one, which librdkafka refuses."""
    assert data_consumer_settings({**LEAST, "group.protocol": "CONSUMER"})["group.protocol"] == "consumer"


def test_the_protocol_is_named_where_the_user_names_none() -> None:
    """librdkafka announces another default, and Arroyo goes by what is in the settings."""
    assert data_consumer_settings(LEAST)["group.protocol"] == "classic"


def test_settings_of_topics_are_seen_by_arroyo(make: Make) -> None:
    """librdkafka let its own ``auto.offset.reset`` beat the one that Arroyo gives it: a lost position was stepped over
    in silence, and Arroyo began by another setting than the user's.
    """
    of_topics = {"auto.offset.reset": "earliest", "message.timeout.ms": None}
    settings = data_consumer_settings({**LEAST, "auto.offset.reset": "latest", "default.topic.config": of_topics})
    assert settings == {**LEAST, **WANTED, "auto.offset.reset": "earliest"}
    with pytest.raises(ConfigurationError, match=r"invalid value for 'auto.offset.reset'"):
        make(**{"default.topic.config": {"auto.offset.reset": "whenever"}})


@pytest.mark.parametrize("of_topics", [None, {}])
def test_no_settings_of_topics_are_none(of_topics: object) -> None:
    """As any setting that is ``None``."""
    assert data_consumer_settings({**LEAST, "default.topic.config": of_topics}) == {**LEAST, **WANTED}


def test_a_setting_that_is_none_is_left_out() -> None:
    """As Arroyo's own builder of settings takes it."""
    assert data_consumer_settings({**LEAST, "queued.min.messages": None}) == {**LEAST, **WANTED}


@pytest.mark.parametrize(
    "own",
    [
        {"queued.min.messages": 5_000},
        {"fetch.queue.backoff.ms": "50"},
        {"max.partition.fetch.bytes": 2**20},
        {"error_cb": print},
        {"auto.offset.reset": "latest"},
    ],
    ids=str,
)
def test_the_users_own_value_wins(own: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    assert data_consumer_settings({**LEAST, **own}) == {**LEAST, **WANTED, **own}
    assert caplog.records == []


def test_the_other_name_of_a_setting_is_a_value_of_the_users() -> None:
    """librdkafka takes whichever comes last."""
    settings = data_consumer_settings({**LEAST, "fetch.message.max.bytes": 500_000})
    assert "max.partition.fetch.bytes" not in settings


@pytest.mark.parametrize(
    "own",
    [
        {"queued.min.messages": 100_000},
        {"fetch.queue.backoff.ms": 1_000},
        {"max.partition.fetch.bytes": "50000000"},
        {"fetch.message.max.bytes": 50_000_000},
    ],
    ids=str,
)
def test_a_costly_value_wins_too_with_one_line_of_warning(
    own: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """It names the setting, its value, what it costs, and what it would be."""
    ((name, value),) = own.items()
    assert data_consumer_settings({**LEAST, **own})[name] == value
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith(f"{name}={value} costs a follower much: ")


def test_under_auto_commit_arroyo_sets_the_two_itself() -> None:
    settings = data_consumer_settings({**LEAST, "arroyo.enable.auto.commit": True})
    assert not {"enable.auto.commit", "enable.auto.offset.store"} & settings.keys()


def test_settings_from_arroyos_builder_are_fine(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """What Sentry's runners use."""
    built = build_kafka_consumer_configuration(
        {"bootstrap.servers": "127.0.0.1:1"}, "follower", enable_auto_commit=False
    )
    make(**built, **{"log_level": 0} if "log_level" not in built else {})
    assert [each for each in caplog.records if each.name.startswith("arroyo_sync")] == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"auto.offset.reset": "never"}, "Arroyo refuses the configuration: invalid value for 'auto.offset.reset'"),
        ({"no.such.setting": 1}, "librdkafka refuses the configuration: No such configuration property"),
        ({"queued.min.messages": "many"}, "librdkafka refuses the configuration"),
        ({"bootstrap.servers": ""}, "names no brokers"),
    ],
    ids=str,
)
def test_what_can_not_be_right_is_refused_with_the_reason(make: Make, wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        make(**wrong)


def test_a_refused_configuration_does_not_use_the_factory_up() -> None:
    """So that a notebook or a test can try again with the same one."""
    factory = SynchronizedStrategyFactory(UserFactory(), NotedSource(), monitor_interval=None)
    with pytest.raises(ConfigurationError):
        factory.consumer({})
    factory.consumer({**LEAST, "log_level": 0}).close()
