"""Error callbacks for the Kafka clients that Arroyo makes, so that a wrong password is one clear error.

librdkafka takes a refused login for something that may pass: it tries again without end, and tells nobody but the
client's ``error_cb``, which Arroyo doesn't set. So a consumer with a wrong password is silent for ever, and a producer
until its records time out. Set these::

    consumer = KafkaConsumer({**config, "error_cb": raise_if_refused})
    producer = KafkaProducer({**config, "error_cb": log_if_refused})

The source needs none of this: it ends by itself, with the same kind of message.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from confluent_kafka import KafkaError

from arroyo_sync.core.checks import check_instance
from arroyo_sync.core.errors import AccessRefused
from arroyo_sync.core.log_guard import guarded_logger
from arroyo_sync.core.log_throttle import LOG_INTERVAL_SECONDS, LogThrottle
from arroyo_sync.kafka.errors import ENDS, LoginRefusals, log_missing_token

logger = guarded_logger(__name__)

_REFUSALS = ENDS - {KafkaError.TOPIC_EXCEPTION, KafkaError._FATAL}

_throttle = LogThrottle(LOG_INTERVAL_SECONDS, time.monotonic)
_logins = LoginRefusals()
"""Of the consumers of the process that share `raise_if_refused`."""
_producer_logins = LoginRefusals()
"""Of its producers."""


def raise_if_refused(error: KafkaError) -> None:
    """For a consumer: what it raises comes out of the consumer's ``poll``, and ends the processor.

    :raises AccessRefused: the brokers refuse a permission, or the login: in the first minute of the process, or for a
        minute. Or the client has failed for good, as one whose ``group.instance.id`` another consumer has. All else
        librdkafka rides out; that a login is refused in between, or no token can be fetched (OAUTHBEARER), is logged.
    """
    check_instance("error", error, KafkaError)
    _raise_if_refused(error, _logins)


def raising_if_refused() -> Callable[[KafkaError], None]:
    """`raise_if_refused` for one consumer, which is about to be made: its first minute is what counts."""
    logins = LoginRefusals()
    return lambda error: _raise_if_refused(error, logins)


def _raise_if_refused(error: KafkaError, logins: LoginRefusals) -> None:
    log_missing_token(error)
    if logins.ends(error):
        raise AccessRefused(what_ended(error))


def log_if_refused(error: KafkaError) -> None:
    """For a producer, whose callbacks run on a thread that must go on: logs as an error what `raise_if_refused` would
    raise, at most once a minute."""
    check_instance("error", error, KafkaError)
    log_missing_token(error)
    if _producer_logins.ends(error) and _throttle.should_log(error.code()):
        logger.error("%s", what_ended(error))


def what_ended(error: KafkaError) -> str:
    """For people, of an error after which a client can't go on."""
    if error.code() in _REFUSALS:
        return f"Kafka refuses access, check user, password and permissions: {error.str()}"
    return f"The Kafka client has failed for good, and only a new one can go on: {error.str()}"
