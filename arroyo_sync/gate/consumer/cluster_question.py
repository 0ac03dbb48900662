"""Which cluster the follower reads from: told to the source, which may ask another one about a topic of that name.

Threads: the processor's thread calls everything.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from arroyo.backends.abstract import Consumer
from confluent_kafka import KafkaException

from arroyo_sync.core.interruptions import INTERRUPTIONS
from arroyo_sync.core.log_guard import guarded_logger
from arroyo_sync.kafka.arroyo_consumer import cluster_of
from arroyo_sync.kafka.topic_ids import settled_cluster_id

logger = guarded_logger(__name__)

TIMEOUT_SECONDS = 1.0
ASSIGNED_TIMEOUT_SECONDS = 0.1
"""While messages may be there: by then the client has connections, and an answer takes some milliseconds."""
RETRY_SECONDS = 1.0
"""Between a question and the next: as long as one takes at most, so that the processor polls half of the time."""


class ClusterQuestion:
    """Asks the consumer's brokers for their cluster's id, until they have answered once, and have one.

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
        self.is_pending = False
        """Whether it is still to be asked. Read by the consumer's poll when no message came."""

    def begin(self, topic: str) -> None:
        """The consumer is subscribed to this topic. Of a pattern it isn't asked: that is no topic."""
        if not topic.startswith("^"):
            self._topic = topic
            self.is_pending = self._check_cluster is not None

    def ask_if_due(self, timeout: float = TIMEOUT_SECONDS) -> None:
        """Ask, if it isn't known yet. In no callback of the consumer's.

        Blocks until a broker answers, for at most ``timeout`` seconds.
        """
        if not self.is_pending or self._clock() < self._ask_at:
            return
        assert self._topic is not None
        assert self._check_cluster is not None
        try:
            cluster_id = cluster_of(self._inner, self._topic, timeout)
        except KafkaException as exc:
            self._ask_at = self._clock() + RETRY_SECONDS
            logger.debug("Can't ask which cluster the follower reads from: %s", exc)
            return
        if cluster_id is not None and settled_cluster_id(cluster_id) is None:
            self._ask_at = self._clock() + RETRY_SECONDS
            return
        self.is_pending = False
        if cluster_id is None:
            return
        try:
            self._check_cluster(cluster_id)
        except INTERRUPTIONS:
            raise
        except Exception:
            logger.exception("The source couldn't check which cluster the follower reads from")
