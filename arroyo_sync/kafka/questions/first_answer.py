"""At a start: waiting for any broker to answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from arroyo_sync.core.errors import BrokersUnreachable
from arroyo_sync.core.log_guard import guarded_logger
from arroyo_sync.kafka.client_settings import servers_of
from arroyo_sync.kafka.errors import ClientErrors
from arroyo_sync.kafka.questions.broker_watch import PATIENCE_SECONDS

logger = guarded_logger(__name__)


class FirstAnswer:
    """Whoever asks until a broker answers tells it how that went, and learns when to give up. It never blocks.

    That nobody answers is logged once it has lasted, and then that somebody does.

    Threads: one.

    :param configuration: librdkafka settings of the cluster.
    :param timeout: after how many seconds without an answer to give up.
    :param errors: what the client that asks tells by the way.
    :param name: who waits, for the log. ``None``: nothing is logged.
    :param clock: monotonic seconds.
    """

    def __init__(
        self,
        configuration: Mapping[str, Any],
        timeout: float,
        errors: ClientErrors,
        *,
        name: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._servers = servers_of(configuration)
        self._timeout = timeout
        self._errors = errors
        self._name = name
        self._clock = clock
        self._silent_since: float | None = clock()
        self._is_told = False

    def failed(self, error: KafkaException) -> KafkaError:
        """A question had no answer, and is to be put again.

        :returns: why, as far as the client has told.
        :raises KafkaException: to ask again doesn't help.
        :raises BrokersUnreachable: there is no time left.
        """
        self._errors.raise_fatal(error, self._name or self._servers)
        reason = self._errors.reason(error.args[0])
        now = self._clock()
        if self._silent_since is None:
            self._silent_since = now
        silent_seconds = now - self._silent_since
        if silent_seconds >= self._timeout:
            raise BrokersUnreachable(
                f"no broker of {self._servers} answered within {self._timeout:g} s: {reason.str()}"
            ) from error
        if self._name is not None and not self._is_told and silent_seconds >= PATIENCE_SECONDS:
            self._is_told = True
            logger.warning(
                "%s: no broker of %s answers: %s. It is tried again", self._name, self._servers, reason.str()
            )
        return reason

    def arrived(self) -> None:
        """There was an answer. When there is none again, there is as much time for the next."""
        self._silent_since = None
        if self._is_told:
            self._is_told = False
            logger.warning("%s: %s answers now", self._name, self._servers)
