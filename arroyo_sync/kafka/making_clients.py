"""Makes librdkafka's clients: at once, or when somebody first needs one. What can't be made is told without secrets."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from confluent_kafka import KafkaError, KafkaException

from arroyo_sync.core.errors import BrokersUnreachable, ConfigurationError
from arroyo_sync.core.log_guard import guarded_logger
from arroyo_sync.core.log_throttle import LastingFailure
from arroyo_sync.kafka.client_settings import servers_of
from arroyo_sync.kafka.redaction import without_secrets

logger = guarded_logger(__name__)

LET_GO_SECONDS = 15.0
"""For how long at most a closed client is waited for that is just being made, or asked. A token has ten seconds."""

V = TypeVar("V")
TClient = TypeVar("TClient")


def make_client(kind: Callable[[dict[str, Any]], TClient], settings: dict[str, Any]) -> TClient:
    """A client of this kind. With an ``oauth_cb`` it blocks until it has its first token, for at most ten seconds.

    :raises ConfigurationError: librdkafka refuses the settings.
    :raises BrokersUnreachable: there was no token to log in with.
    """
    try:
        return kind(settings)
    except KafkaException as error:
        kafka_error: KafkaError = error.args[0]
    except SystemError:
        # Without a token confluent-kafka 2.16 destroys the client, which calls ``error_cb`` with an exception set, or
        # clears that one: Python makes this of both.
        if settings.get("oauth_cb") is None:
            raise
        kafka_error = KafkaError(KafkaError.SASL_AUTHENTICATION_FAILED, "OAuth token not set in time")
    # Outside: the error of librdkafka would go along, and it may show the value.
    reason = without_secrets(kafka_error.str(), settings)
    if kafka_error.code() == KafkaError.SASL_AUTHENTICATION_FAILED:  # nothing was sent yet: only a token was asked for
        raise BrokersUnreachable(
            f"there is no token to log in to {servers_of(settings)} with: {reason}. Does oauth_cb raise, and is what "
            "it asks up?"
        )
    # As of threads that can't be started, but of files that it reads, too.
    if kafka_error.code() == KafkaError.NO_ERROR:
        raise ConfigurationError(f"librdkafka can make no client of the configuration: {reason}")
    raise ConfigurationError(f"librdkafka refuses the configuration: {reason}")


class LazyClient(Generic[TClient]):
    """A client that is made when somebody first needs it. Any thread may call anything.

    :param kind: its class.
    :param settings: librdkafka's.
    :param clock: monotonic seconds.
    """

    def __init__(
        self,
        kind: Callable[[dict[str, Any]], TClient],
        settings: dict[str, Any],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kind = kind
        self._settings = settings
        # Held while the client is made. The user's code may fetch its token then: only who needs the client waits.
        self._making = threading.Lock()
        self._failure = LastingFailure(0.0, clock)  # guarded by that lock
        self._is_closed = self._has_given_up = False
        self._users = 0  # how many threads are in `use`; guarded by the condition
        self._is_let_go = threading.Condition()
        self.client: TClient | None = None
        """Once it is made, and until `close`. Written while it is made and by `close`; read without the lock."""

    def get(self) -> TClient | None:
        """The client; ``None`` if it was closed, or if there is no token to log in with, which is logged once a minute.

        Not for a thread of librdkafka, nor for a callback that may run on one: see `use`.

        :raises ConfigurationError: librdkafka refuses the settings.
        """
        client, line = self._get()
        if line:
            logger.warning("%s", line)
        return client

    def _get(self) -> tuple[TClient | None, str]:
        """See `get`; and what is to be logged, without the lock."""
        line = ""
        with self._making:
            if self.client is None and not self._is_closed:
                try:
                    self.client = make_client(self._kind, self._settings)
                except BrokersUnreachable as error:
                    return None, f"{error} The next question tries again" if self._failure.should_log() else ""
                if self._failure.end():
                    line = f"There is a token to log in to {servers_of(self._settings)} with now"
            if not self._is_closed:
                return self.client, line
            if not self._users or self._has_given_up:  # else `close` still waits, and takes it
                self.client = None
        return None, ""

    def use(self, ask: Callable[[TClient], V]) -> V | None:
        """What ``ask`` makes of the client, which it may not keep; ``None`` where `get` gives none.

        A client that is let go of is destroyed, and librdkafka aborts the process if that happens on a thread of its
        own. So `close` waits for whoever is in here, and then lets go of it.

        :raises ConfigurationError: librdkafka refuses the settings.
        """
        with self._is_let_go:
            if self._is_closed:
                return None
            self._users += 1
        client = None
        try:
            client = self.get()
            return None if client is None else ask(client)
        finally:
            client = None
            with self._is_let_go:
                self._users -= 1
                self._is_let_go.notify_all()

    def close(self) -> None:
        """Let go of the client, and make none any more. Blocks while it is made or used, and destroyed."""
        with self._is_let_go:
            self._is_closed = True
            self._is_let_go.wait_for(lambda: not self._users, LET_GO_SECONDS)
        self._has_given_up = True  # what is still being made is let go of by who makes it
        self.client = None
