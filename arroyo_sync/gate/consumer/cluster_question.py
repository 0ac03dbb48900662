"""Which cluster the follower reads from: told to the source, which may ask another one about a topic of that name.

Threads: the processor's thread calls everything.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from arroyo.backends.abstract import Consumer
from confluent_kafka import KafkaException

from arroyo_sync.kafka.arroyo_consumer import cluster_of

logger = logging.getLogger(__name__)

TIMEOUT_SECONDS = 1.0
RETRY_SECONDS = 5.0


class ClusterQuestion:
    """Asks the consumer's brokers for their cluster's id, until they have answered once.

    :param check_cluster: `RemoteOffsetSource.check_cluster`. What it raises is logged.
    :param clock: monotonic seconds.
    """

    def __init__(
        self, inner: Consumer[Any], check_cluster: Callable[[str], None] | None, clock: Callable[[], float]
    ) -> None:
        self._inner = inner
        self._check_cluster = check_cluster
        self._clock = clock
        self._topic: str | None = None
        self._ask_at = 0.0

    def begin(self, topic: str) -> None:
        """The consumer is subscribed to this topic. Of a pattern it isn't asked: that is no topic."""
        if not topic.startswith("^"):
            self._topic = topic

    def ask_if_due(self) -> None:
        """Ask, if it isn't known yet. For a poll while nothing is assigned, which has nothing else to do.

        Blocks until a broker answers, for at most `TIMEOUT_SECONDS`.
        """
        if self._topic is None or self._check_cluster is None or self._clock() < self._ask_at:
            return
        try:
            cluster_id = cluster_of(self._inner, self._topic, TIMEOUT_SECONDS)
        except KafkaException as exc:
            self._ask_at = self._clock() + RETRY_SECONDS
            logger.debug("Can't ask which cluster the follower reads from: %s", exc)
            return
        self._topic = None
        if cluster_id is None:
            return
        try:
            self._check_cluster(cluster_id)
        except Exception:
            logger.exception("The source couldn't check which cluster the follower reads from")
