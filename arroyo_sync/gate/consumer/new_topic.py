"""What is left to do when the data topic was deleted and created again: the group begins at the new topic's beginning.

A living consumer reads on in the middle of the new topic without a word, and what it commits there would make a restart
skip all that lies before. The source notices, and makes the manager fail with `TopicRecreated`.

Guarantees
    - From then on nothing is committed but where ``auto.offset.reset`` says on the new topic (with ``error``: its
      beginning), of the partitions that this consumer has, before it is closed.
    - With ``latest`` that isn't past where the assignment began. It may have begun on the new topic already, before
      that was noticed: what has come since is the group's, and the end is beyond it by now.
    - That takes `TIMEOUT_SECONDS` at most, and raises nothing. `NewTopic.give_up` ends it sooner, also in a pause.

Threads: the processor's thread calls everything but `NewTopic.give_up`, which any may call, and a signal handler.
"""

from __future__ import annotations

import logging
import time
from queue import Empty, SimpleQueue
from typing import Any

from arroyo.backends.abstract import Consumer
from arroyo.types import Partition

from arroyo_sync.core.errors import TopicRecreated
from arroyo_sync.core.state import SynchronizedPartitionStateManager
from arroyo_sync.gate.consumer.start_positions import StartPositions
from arroyo_sync.kafka.arroyo_consumer import commit_staged, reset_offset

logger = logging.getLogger(__name__)

TIMEOUT_SECONDS = 15.0
QUERY_TIMEOUT_SECONDS = 5.0
RETRY_SECONDS = 0.5


class NewTopic:
    """Knows whether the topic was created again, and commits where to begin on the new one.

    :param inner: Arroyo's consumer.
    :param start: knows where its partitions began.
    """

    def __init__(self, inner: Consumer[Any], manager: SynchronizedPartitionStateManager, start: StartPositions) -> None:
        self._inner = inner
        self._manager = manager
        self._start = start
        # An event that a signal handler may set while the thread that it interrupts waits for it: a lock wouldn't do.
        self._given_up: SimpleQueue[None] = SimpleQueue()

    @property
    def is_there(self) -> bool:
        """Whether the topic that is read isn't the one that was assigned, so that nothing may be committed."""
        return isinstance(self._manager.failure, TopicRecreated)

    def commit_beginnings(self) -> None:
        """Commit where the assigned partitions begin on the new topic, if there is one."""
        if not self.is_there:
            return
        pending = list(self._inner.tell())
        deadline = time.monotonic() + TIMEOUT_SECONDS
        error: Exception | None = None
        while pending and time.monotonic() < deadline:
            if error is not None and self._has_given_up(min(RETRY_SECONDS, deadline - time.monotonic())):
                break
            try:
                beginnings = {partition: self._beginning(partition) for partition in pending}
                self._inner.stage_offsets(beginnings)
                commit_staged(self._inner)
            except Exception as exc:
                error = exc
                continue
            logger.warning("The group begins on the new topic at %s", _named(beginnings))
            return
        if pending:
            logger.error(
                "Couldn't commit where the group begins on the new topic: %s. Its commits of %s are of the earlier "
                "one: reset them before you restart, or messages are skipped",
                error,
                ", ".join(f"{each.topic.name}[{each.index}]" for each in pending),
            )

    def give_up(self) -> None:
        """Let `commit_beginnings` try no more."""
        self._given_up.put(None)

    def _has_given_up(self, timeout: float) -> bool:
        """Whether `give_up` was called, or is within so many seconds."""
        try:
            self._given_up.get(timeout=max(0.0, timeout))
        except Empty:
            return False
        return True

    def _beginning(self, partition: Partition) -> int:
        began_at = self._start.positions.get(partition)
        return reset_offset(self._inner, partition, QUERY_TIMEOUT_SECONDS, latest_at_most=began_at)


def _named(offsets: dict[Partition, int]) -> str:
    return ", ".join(
        f"{each.topic.name}[{each.index}]: {offset}"
        for each, offset in sorted(offsets.items(), key=lambda item: item[0].index)
    )
