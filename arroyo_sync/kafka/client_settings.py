"""The librdkafka settings of this package's own clients, made from the user's.

The user's settings may be those of an Arroyo consumer. What would break the client is replaced, what it doesn't know is
left out, and everything else wins over our defaults.
"""

from __future__ import annotations

import math
import os
import re
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from confluent_kafka import KafkaError

from arroyo_sync.core.checks import check_mapping, check_text
from arroyo_sync.core.errors import ConfigurationError

METADATA_REFRESH_SETTING = "topic.metadata.refresh.interval.ms"
DEFAULT_METADATA_REFRESH_SECONDS = 300.0
METADATA_MAX_AGE_SECONDS = 900.0
"""After this an administrator's client forgets who leads a topic's partitions."""
DELIVERY_TIMEOUT_SETTINGS = ("message.timeout.ms", "delivery.timeout.ms")
DEFAULT_DELIVERY_TIMEOUT_SECONDS = 300.0
ONLY_ERRORS_SETTING = "delivery.report.only.error"
LINGER_SETTINGS = ("linger.ms", "queue.buffering.max.ms")
DEFAULT_LINGER_MS = 5

_ARROYO_PREFIX = "arroyo."

# The reader is assigned, never a member of a group.
_MEMBERSHIP_SETTINGS = {
    "group.instance.id",
    "group.protocol",
    "group.protocol.type",
    "group.remote.assignor",
    "partition.assignment.strategy",
    "session.timeout.ms",
    "heartbeat.interval.ms",
    "max.poll.interval.ms",
    "on_commit",
    "auto.commit.interval.ms",
}

# Arroyo's builder of consumer settings sets them: the numbers of two clients would take turns in the same gauges.
_STATISTICS_SETTINGS = {"stats_cb", "statistics.interval.ms"}

# Events that only a client whose `poll` is called can get rid of.
_EVENT_SETTINGS = _STATISTICS_SETTINGS | {"error_cb", "throttle_cb", "logger", "on_delivery"}

# A consumer's alone: an administrator's client would log a warning for each.
_CONSUMER_SETTINGS = _MEMBERSHIP_SETTINGS | {
    "group.id",
    "coordinator.query.interval.ms",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "queued.min.messages",
    "queued.max.messages.kbytes",
    "fetch.wait.max.ms",
    "fetch.queue.backoff.ms",
    "fetch.message.max.bytes",
    "max.partition.fetch.bytes",
    "fetch.max.bytes",
    "fetch.min.bytes",
    "fetch.error.backoff.ms",
    "isolation.level",
    "enable.partition.eof",
    "check.crcs",
    "auto.offset.reset",
    "consume.callback.max.messages",
    "offset.store.method",
}

TOPIC_SETTINGS = "default.topic.config"
"""Settings in a setting, which beat those beside it. What reads or asks needs only `auto.offset.reset`, and its own."""

# librdkafka writes a line to standard error for every attempt to connect, twenty a second. What goes wrong is told to
# us as well, and is logged by us.
_QUIET = {"log_level": 2}

_QUESTION_DEFAULTS = {
    **_QUIET,
    # A broker that stands still keeps its connections. librdkafka asks it again and again, also for what any broker
    # could tell, until a request has taken as long as this (a minute by default) and the connection is closed.
    "socket.timeout.ms": 3_000,
}

_READER_DEFAULTS = {
    **_QUIET,
    # A fetch that finds nothing is answered after this: new partitions join the next one, and such an answer tells the
    # end of a partition whose last offsets hold no records. Each costs the broker and this process something.
    "fetch.wait.max.ms": 250,
    # By default a partition whose queue is full isn't fetched for a second: a replay would run dry.
    "fetch.queue.backoff.ms": 10,
}


def check_configuration(argument: str, configuration: object) -> None:
    """Return if it can be settings of librdkafka. Which settings there are, librdkafka knows.

    :raises ConfigurationError: it isn't a mapping of names to values, or names no brokers. No value is shown but the
        brokers': any other may be a secret that stands under the wrong name.
    """
    check_mapping(argument, configuration, "librdkafka's settings, by name")
    assert isinstance(configuration, Mapping)
    # Each value is looked at in a function of its own that raises nothing: the variables of a frame in a traceback are
    # sent to Sentry, where a password in one called "value" would show.
    for name in configuration:
        check_text(f"{argument}'s names", name)
        mistake = _mistake_in(name, configuration[name])
        if mistake is not None:
            raise ConfigurationError(f"{argument}[{name!r}] is {mistake}")
    given = [configuration[name] for name in SERVERS_SETTINGS if configuration.get(name)]
    if not given and not configuration.get("test.mock.num.brokers"):
        raise ConfigurationError(f"{argument} names no brokers: give it 'bootstrap.servers'")
    for servers in given:
        check_text(f"{argument}['bootstrap.servers']", servers)


def _mistake_in(name: str, value: object) -> str | None:
    if name in _CALLBACK_SETTINGS:
        is_right, allowed = value is None or callable(value), "give something to call"
    elif name == "logger":
        is_right, allowed = value is None or hasattr(value, "log"), "give a logging.Logger"
    elif name == TOPIC_SETTINGS:
        is_right, allowed = value is None or isinstance(value, dict), "give a dict of settings"
    else:
        # Whatever it is, confluent-kafka makes a text of it: of bytes "b'...'", of None nothing.
        is_right = value is None or isinstance(value, (str, int, float, os.PathLike))
        is_right = is_right and (not isinstance(value, str) or _NOT_SENT.search(value) is None)
        is_right = is_right and (not isinstance(value, float) or math.isfinite(value))
        is_right = is_right and (not isinstance(value, int) or value.bit_length() < 64)
        allowed = "must be a text, a number or a bool, as librdkafka reads it"
    return None if is_right else f"<{type(value).__name__}>: {allowed}"


SERVERS_SETTINGS = ("bootstrap.servers", "metadata.broker.list")

_CALLBACK_SETTINGS = {"error_cb", "stats_cb", "throttle_cb", "oauth_cb", "on_commit", "on_delivery"}

_NOT_SENT = re.compile("[\0\ud800-\udfff]")
"""librdkafka reads a text up to the first zero, and confluent-kafka encodes it in UTF-8."""


def servers_of(configuration: Mapping[str, Any]) -> str:
    """The brokers it names, for messages."""
    return str(
        configuration.get("bootstrap.servers") or configuration.get("metadata.broker.list") or "the mock cluster"
    )


def reader_settings(configuration: Mapping[str, Any], on_error: Callable[[KafkaError], None]) -> dict[str, Any]:
    """For the consumer that reads the commit log.

    :param on_error: called from ``poll`` for every error that isn't about one partition, before the user's
        ``error_cb``.
    """
    user_callback = configuration.get("error_cb")

    def error_cb(error: KafkaError) -> None:
        on_error(error)
        if user_callback is not None:
            user_callback(error)

    return {
        **_READER_DEFAULTS,
        # A replica that lags (`client.rack`) has its end before the one that the leader told at the start.
        **_own(configuration, _MEMBERSHIP_SETTINGS | _STATISTICS_SETTINGS | {"client.rack"}),
        **_apart(configuration),
        # The end of a partition is told even if its last offsets hold no records.
        "enable.partition.eof": True,
        "error_cb": but_for_group(error_cb),
    }


def concerns_group(error: KafkaError) -> bool:
    """Whether a broker refuses the use of a consumer's group, which a consumer that is assigned doesn't need.

    librdkafka looks for the coordinator of every group nevertheless, and tells of the refusal as of any other.
    """
    return error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED


def but_for_group(on_error: Callable[[KafkaError], None]) -> Callable[[KafkaError], None]:
    """Told of all but what `concerns_group`. A question about a group has that as its answer."""

    def error_cb(error: KafkaError) -> None:
        if not concerns_group(error):
            on_error(error)

    return error_cb


def query_settings(
    configuration: Mapping[str, Any], group: str, on_error: Callable[[KafkaError], None]
) -> dict[str, Any]:
    """For a consumer that reads nothing, and only asks what the group has committed.

    :param on_error: called from ``poll`` for every error that isn't about one question.
    """
    return {
        **_QUESTION_DEFAULTS,
        # librdkafka refuses a consumer that takes answers of less than 50 MiB, its default of `fetch.max.bytes`. A
        # producer or an administrator's client may, and this one fetches nothing.
        **_own(configuration, _MEMBERSHIP_SETTINGS | _EVENT_SETTINGS | {"receive.message.max.bytes"}),
        **_apart(configuration),
        "group.id": group,
        "error_cb": but_for_group(on_error),
        # Else a transaction that hangs hides what the group has committed before.
        "isolation.level": "read_uncommitted",
    }


def admin_settings(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """For an administrator's client. It creates no topic by asking about it, which librdkafka's would."""
    own = _own(configuration, _CONSUMER_SETTINGS | _EVENT_SETTINGS)
    return {
        **_QUESTION_DEFAULTS,
        **own,
        "allow.auto.create.topics": False,
        "metadata.max.age.ms": round(METADATA_MAX_AGE_SECONDS * 1000),
    }


def metadata_refresh_seconds(configuration: Mapping[str, Any]) -> float:
    """How often the client looks for added partitions."""
    return _seconds(configuration.get(METADATA_REFRESH_SETTING)) or DEFAULT_METADATA_REFRESH_SECONDS


def delivery_timeout_seconds(configuration: Mapping[str, Any]) -> float:
    """After which time a producer gives a record up and says so. The default also for one that never does."""
    settings = _with_topic_settings(configuration)
    longest = max(_seconds(settings.get(name)) or 0.0 for name in DELIVERY_TIMEOUT_SETTINGS)
    return longest or DEFAULT_DELIVERY_TIMEOUT_SECONDS


def tells_only_failures(configuration: Mapping[str, Any]) -> bool:
    """Whether a producer says nothing of a record that was delivered."""
    return _with_topic_settings(configuration).get(ONLY_ERRORS_SETTING) is True  # confluent-kafka takes no other type


def linger_of(configuration: Mapping[str, Any]) -> tuple[str, float]:
    """By which setting a producer keeps a record to send it with later ones, and for how many seconds."""
    settings = _with_topic_settings(configuration)
    given = [name for name in settings if name in LINGER_SETTINGS]
    name = given[-1] if given else LINGER_SETTINGS[0]  # two names of one setting: the last one counts
    try:
        return name, float(settings.get(name, DEFAULT_LINGER_MS)) / 1000
    except (TypeError, ValueError, OverflowError):  # librdkafka refuses it, too
        return name, 0.0


def _with_topic_settings(configuration: Mapping[str, Any]) -> Mapping[str, Any]:
    """As a client takes them: those in the setting beat those beside it."""
    topic = configuration.get(TOPIC_SETTINGS)
    return {**configuration, **topic} if isinstance(topic, Mapping) else configuration


def _seconds(value: Any) -> float | None:
    """Of a setting in milliseconds; ``None`` if it says nothing, or never."""
    try:
        milliseconds = int(value)
    except (TypeError, ValueError):
        return None
    return milliseconds / 1000 if milliseconds > 0 else None


def _own(configuration: Mapping[str, Any], without: set[str]) -> dict[str, Any]:
    return {
        name: value
        for name, value in configuration.items()
        if name not in without and name != TOPIC_SETTINGS and not name.startswith(_ARROYO_PREFIX)
    }


def _apart(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """No other consumer can take its partitions, and it leaves nothing behind: it never joins its group.

    The group is the user's, who may use it: a broker with access rules notes everything else as refused.
    """
    return {
        "group.id": configuration.get("group.id") or f"arroyo-sync-{uuid.uuid4()}",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        # An offset that isn't there is an error to us, not something to step over.
        "auto.offset.reset": "error",
        "allow.auto.create.topics": False,
    }
