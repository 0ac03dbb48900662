"""What becomes of the user's settings."""

from __future__ import annotations

from typing import Any

import pytest
from arroyo.backends.kafka.configuration import build_kafka_consumer_configuration
from confluent_kafka import Consumer, KafkaError, Producer
from confluent_kafka.admin import AdminClient

from arroyo_sync.core.errors import ConfigurationError
from arroyo_sync.kafka.client_settings import (
    METADATA_MAX_AGE_SECONDS,
    admin_settings,
    check_configuration,
    delivery_timeout_seconds,
    linger_of,
    metadata_refresh_seconds,
    query_settings,
    reader_settings,
    servers_of,
)

ARROYO: dict[str, Any] = {
    "bootstrap.servers": "kafka:9092",
    "group.id": "followers",
    "group.instance.id": "pod-1",
    "group.protocol": "consumer",
    "auto.offset.reset": "earliest",
    "enable.auto.commit": True,
    "enable.partition.eof": False,
    "arroyo.strict.offset.reset": False,
    "sasl.password": "secret",
    "fetch.wait.max.ms": 7,
    "statistics.interval.ms": 1000,
}


def ignore(error: KafkaError) -> None:
    pass


def asking(configuration: dict[str, Any]) -> dict[str, Any]:
    """Of a consumer that asks what a group has committed."""
    return query_settings(configuration, "writers", ignore)


def test_the_reader_is_apart_and_sees_every_end() -> None:
    """Settings that would make it a member of a group, commit, or step over a gap don't come through."""
    first = reader_settings(ARROYO, ignore)
    assert not {"group.instance.id", "group.protocol", "arroyo.strict.offset.reset"} & first.keys()
    assert (first["auto.offset.reset"], first["enable.auto.commit"]) == ("error", False)
    assert first["enable.partition.eof"]
    assert (first["sasl.password"], first["fetch.wait.max.ms"]) == ("secret", 7)


def reading(configuration: dict[str, Any]) -> dict[str, Any]:
    """Of the consumer that reads the commit log."""
    return reader_settings(configuration, ignore)


@pytest.mark.parametrize("make", [reading, asking, admin_settings])
def test_a_dictionary_of_topic_settings_does_not_beat_ours(make: Any) -> None:
    """To librdkafka an `auto.offset.reset` in it counts for more than one beside it: a position in the commit log that
    is gone was stepped over in silence. Nothing else in it is of use to a client that reads or asks."""
    assert make({**ARROYO, "default.topic.config": {"auto.offset.reset": "latest"}}).keys() == make(ARROYO).keys()


def test_the_reader_reads_of_the_leaders() -> None:
    """A replica that lags would have its end before the one that the leader told, and the replay end too early."""
    assert "client.rack" not in reader_settings({**ARROYO, "client.rack": "zone-a"}, ignore)


def test_the_readers_statistics_are_not_told_as_the_followers() -> None:
    """Arroyo's builder has every consumer report the same gauges, which have no tag that tells two apart."""
    arroyo = build_kafka_consumer_configuration({}, "followers", bootstrap_servers=["kafka:9092"])
    assert {"stats_cb", "statistics.interval.ms"} <= arroyo.keys()
    assert not {"stats_cb", "statistics.interval.ms"} & reader_settings(arroyo, ignore).keys()


def test_the_readers_group_is_the_one_that_the_user_may_use() -> None:
    """It never joins it. Without one it is a name that nobody else has."""
    assert reader_settings(ARROYO, ignore)["group.id"] == ARROYO["group.id"]
    names = {reader_settings({"bootstrap.servers": "kafka:9092"}, ignore)["group.id"] for _ in range(2)}
    assert len(names) == 2
    assert all(name.startswith("arroyo-sync-") for name in names)


def test_that_a_group_may_not_be_used_is_told_to_nobody() -> None:
    """An assigned consumer needs none, and a question about one has it as its answer."""
    seen: list[int] = []

    def note(error: KafkaError) -> None:
        seen.append(error.code())

    for settings in (
        reader_settings({**ARROYO, "error_cb": note}, note),
        query_settings(ARROYO, "writers", note),
    ):
        settings["error_cb"](KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED))
        assert seen == []
        settings["error_cb"](KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))
        assert set(seen) == {KafkaError.TOPIC_AUTHORIZATION_FAILED}
        seen.clear()


def test_the_users_error_callback_is_called_as_well() -> None:
    """After ours."""
    seen: list[str] = []
    settings = reader_settings(
        {**ARROYO, "error_cb": lambda error: seen.append("theirs")}, lambda error: seen.append("ours")
    )
    settings["error_cb"](KafkaError(KafkaError._TRANSPORT))
    assert seen == ["ours", "theirs"]


@pytest.mark.parametrize("make", [asking, admin_settings])
def test_a_client_that_only_asks_tells_the_user_nothing(make: Any) -> None:
    """It isn't the user's, and seldom polled: events would pile up."""
    callback = list[KafkaError]().append
    settings = make({**ARROYO, "error_cb": callback, "stats_cb": callback})
    assert settings.get("error_cb") is not callback
    assert not {"stats_cb", "statistics.interval.ms", "group.protocol"} & settings.keys()
    assert settings["sasl.password"] == "secret"


def test_an_administrators_client_has_no_consumers_settings() -> None:
    """It would warn of each, but for the one that keeps it from creating topics."""
    assert admin_settings(ARROYO).keys() == {
        "allow.auto.create.topics",
        "metadata.max.age.ms",
        "log_level",
        "socket.timeout.ms",
        "bootstrap.servers",
        "sasl.password",
    }


def test_an_administrators_client_keeps_who_leads_for_as_long_as_we_go_by() -> None:
    """Were it less, it would look leaders up by itself, and a race in that corrupts its memory."""
    user = {"metadata.max.age.ms": 1000, "topic.metadata.refresh.interval.ms": 1000}
    assert admin_settings({**ARROYO, **user})["metadata.max.age.ms"] == 1000 * METADATA_MAX_AGE_SECONDS


@pytest.mark.parametrize(
    ("value", "seconds"), [(500, 0.5), ("2000", 2.0), (-1, 300.0), (0, 300.0), ("soon", 300.0), (None, 300.0)]
)
def test_partitions_are_looked_for_as_often_as_librdkafka_does(value: object, seconds: float) -> None:
    """What it refuses, it will refuse itself; never isn't possible here."""
    assert metadata_refresh_seconds({"topic.metadata.refresh.interval.ms": value}) == seconds
    assert metadata_refresh_seconds({}) == 300.0


@pytest.mark.parametrize(
    ("configuration", "seconds"),
    [
        pytest.param({}, 300.0, id="librdkafka's"),
        pytest.param({"message.timeout.ms": 10_000}, 10.0, id="given"),
        pytest.param({"delivery.timeout.ms": "10500"}, 10.5, id="by its other name, as a text"),
        pytest.param({"message.timeout.ms": 10_000, "delivery.timeout.ms": 20_000}, 20.0, id="both: the longer one"),
        pytest.param({"default.topic.config": {"message.timeout.ms": 600_000}}, 600.0, id="of the topic"),
        pytest.param(
            {"message.timeout.ms": 10_000, "default.topic.config": {"message.timeout.ms": 20_000}},
            20.0,
            id="of the topic, which counts",
        ),
        pytest.param({"message.timeout.ms": 0}, 300.0, id="without end"),
        pytest.param({"message.timeout.ms": "soon"}, 300.0, id="not a number"),
        pytest.param({"message.timeout.ms": None, "default.topic.config": None}, 300.0, id="nothing"),
    ],
)
def test_a_producer_gives_a_record_up_when_its_settings_say(configuration: dict[str, Any], seconds: float) -> None:
    """However they are written. One that never gives up is asked after as long as the others."""
    assert delivery_timeout_seconds(configuration) == seconds


@pytest.mark.parametrize(
    ("configuration", "expected"),
    [
        pytest.param({}, ("linger.ms", 0.005), id="librdkafka's"),
        pytest.param({"linger.ms": "800.5"}, ("linger.ms", 0.8005), id="given, as a text"),
        pytest.param(
            {"linger.ms": 5, "queue.buffering.max.ms": 800}, ("queue.buffering.max.ms", 0.8), id="both: the last one"
        ),
        pytest.param({"queue.buffering.max.ms": 800, "linger.ms": 5}, ("linger.ms", 0.005), id="the other way round"),
        pytest.param({"linger.ms": 5, "default.topic.config": {"linger.ms": 800}}, ("linger.ms", 0.8), id="in another"),
        pytest.param({"linger.ms": "soon"}, ("linger.ms", 0.0), id="not a number"),
        pytest.param({"linger.ms": None}, ("linger.ms", 0.0), id="nothing"),
        pytest.param({"linger.ms": 10**400}, ("linger.ms", 0.0), id="too much"),
    ],
)
def test_a_producer_keeps_a_record_as_long_as_librdkafka_does(
    configuration: dict[str, Any], expected: tuple[str, float]
) -> None:
    """The setting has two names."""
    assert linger_of(configuration) == expected


def test_brokers_must_be_named() -> None:
    """By either of librdkafka's names, or a mock cluster."""
    with pytest.raises(ConfigurationError, match="data_configuration names no brokers"):
        check_configuration("data_configuration", {"group.id": "g"})
    for configuration in ({"bootstrap.servers": "a"}, {"metadata.broker.list": "a"}, {"test.mock.num.brokers": 1}):
        check_configuration("configuration", configuration)
        assert servers_of(configuration)


def test_settings_of_topics_are_a_dictionary() -> None:
    """What isn't is refused by name."""
    for right in (None, {}, {"auto.offset.reset": "latest"}):
        check_configuration("configuration", {"bootstrap.servers": "a", "default.topic.config": right})
    with pytest.raises(ConfigurationError, match=r"configuration\['default.topic.config'\] is <str>: give a dict"):
        check_configuration("configuration", {"bootstrap.servers": "a", "default.topic.config": "latest"})


@pytest.mark.parametrize("make", [asking, admin_settings])
def test_a_broker_that_stands_still_is_given_up_soon_unless_the_user_says_otherwise(make: Any) -> None:
    """Whoever only asks has other brokers to ask."""
    assert make(ARROYO)["socket.timeout.ms"] == 3_000
    assert make({**ARROYO, "socket.timeout.ms": 60_000})["socket.timeout.ms"] == 60_000


def test_whoever_asks_for_commits_sees_those_from_before_a_transaction_that_hangs() -> None:
    """Whatever the user's consumer reads."""
    assert asking({**ARROYO, "isolation.level": "read_committed"})["isolation.level"] == "read_uncommitted"


@pytest.mark.parametrize(
    "sizes",
    [
        pytest.param({"receive.message.max.bytes": 1_000_000}, id="small answers"),
        pytest.param({"message.max.bytes": 100_000_000, "receive.message.max.bytes": 60_000_000}, id="large records"),
    ],
)
def test_whoever_asks_takes_the_sizes_of_a_producer(sizes: dict[str, Any]) -> None:
    """librdkafka makes no consumer that takes answers of less than 50 MiB, unless it fetches less: what the group of a
    producer with these has committed couldn't be asked for."""
    settings = {"bootstrap.servers": "127.0.0.1:1", "log_level": 0, **sizes}
    Producer(settings)
    AdminClient(admin_settings(settings))
    Consumer(asking(settings)).close()
