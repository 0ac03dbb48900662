"""A source for leaders that publish no commit log: it asks the brokers what their groups have committed.

Slower than a commit log by the leaders' commit policy (a second or so) and by ``interval_seconds``, and each question
costs the brokers a request a group. Everything else is the same: see `OffsetSource` for its guarantees and threads.

    - The gate stays shut until every group was asked once.
    - Only partitions that the follower reads are asked about, and at once when they are assigned; what is known of the
      others is forgotten.
    - A group that has nothing committed (any more) is unknown there.

Failures
    Brokers that don't answer are logged and asked again; what the groups had committed before stays in force meanwhile.
    Failed authentication and missing permission end the source, and so does a start at which no broker answers in time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from arroyo_sync.claim import Statement
from arroyo_sync.client_settings import admin_settings, servers_of
from arroyo_sync.committed_offsets import CommittedOffsets
from arroyo_sync.errors import BrokersUnreachable, ConfigurationError
from arroyo_sync.kafka_errors import ends_the_source
from arroyo_sync.leader_offsets import CHUNK, Published
from arroyo_sync.rate_limit import OncePer
from arroyo_sync.source import OffsetSource, SourceStatistics
from arroyo_sync.state import PartitionKey
from arroyo_sync.watermarks import HighWatermarks

logger = logging.getLogger(__name__)

REQUEST_TIMEOUT_SECONDS = 2.0
POLL_SECONDS = 0.1
LOG_INTERVAL_SECONDS = 60.0


class GroupOffsetsSource(OffsetSource):
    """Turns the offsets that leader groups commit on the brokers into remote offsets. A `RemoteOffsetSource`.

    :param configuration: librdkafka settings of the data topic's cluster, where the groups commit.
    :param groups: the leader groups, of which the slowest counts.
    :param interval_seconds: how often they are asked.
    :param connect_timeout: after how many seconds without an answer, at the start, the source ends.
    :param clock: monotonic seconds.
    :raises ConfigurationError: a setting is missing, empty or impossible.
    """

    def __init__(
        self,
        configuration: Mapping[str, Any],
        *,
        groups: Collection[str],
        interval_seconds: float = 0.5,
        connect_timeout: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(configuration, groups, None, clock)
        for name, seconds in (("interval_seconds", interval_seconds), ("connect_timeout", connect_timeout)):
            if not seconds > 0:
                raise ConfigurationError(f"{name}={seconds!r}: must be more than 0 seconds")
        self.name = f"group offsets of {', '.join(self._offsets.groups)}"
        self._interval_seconds = interval_seconds
        self._connect_timeout = connect_timeout
        self._once = OncePer(LOG_INTERVAL_SECONDS, clock)
        # The partitions that the follower reads, each with the number of its assignment. Guarded by `_changed`.
        self._assigned: dict[PartitionKey, int] = {}
        self._assignments = 0
        # The reading thread's.
        self._answers = 0
        self._known: set[tuple[PartitionKey, str]] = set()
        self._last_error: KafkaError | None = None
        self._end: KafkaError | None = None

    def assign(self, positions: Mapping[PartitionKey, int], watermarks: HighWatermarks | None) -> None:
        super().assign(positions, watermarks)
        with self._changed:
            self._assignments += 1
            self._assigned.update(dict.fromkeys(positions, self._assignments))
            self._changed.notify_all()

    def revoke(self, partitions: Collection[PartitionKey]) -> None:
        with self._changed:
            for key in partitions:
                self._assigned.pop(key, None)
        super().revoke(partitions)
        self._offsets.forget(partitions)

    def statistics(self) -> SourceStatistics:
        """A snapshot of what it has done. Doesn't block."""
        return SourceStatistics(
            ready=self._is_ready,
            alive=self._is_alive,
            read=self._answers,
            rewinds=self._rewinds,
            impossible=self._verifier.impossible,
            unproven=len(self.unproven),
        )

    def _missing(self) -> str:
        reason = f" ({self._last_error.str()})" if self._last_error is not None else ""
        return f"it waits for an answer of {servers_of(self._configuration)}{reason}"

    def _on_error(self, error: KafkaError) -> None:
        """Told by librdkafka out of ``poll``."""
        self._last_error = error
        if ends_the_source(error):
            self._end = self._end or error  # others follow it: that all brokers are down, for one
        elif self._once.is_due(error.code()):
            logger.warning("%s: %s. It is tried again", self.name, error.str())

    def _read(self) -> None:
        settings: dict[str, Any] = {**admin_settings(self._configuration), "error_cb": self._on_error}
        try:
            admin = AdminClient(settings)
        except KafkaException as error:
            raise ConfigurationError(f"librdkafka refuses the configuration: {error.args[0].str()}") from error
        committed = CommittedOffsets(admin)
        deadline = self._clock() + self._connect_timeout
        while not self._stopping.is_set():
            with self._changed:
                asked = dict(self._assigned)
                assignments = self._assignments
            # The first question is about everything, so that it can be asked before anything is assigned.
            is_answered = self._ask(admin, committed, asked) if asked or not self._is_ready else True
            if is_answered and not self._is_ready:
                self._set_ready(True)
            elif not self._is_ready and self._clock() >= deadline:
                reason = self._last_error.str() if self._last_error is not None else "no answer"
                raise BrokersUnreachable(
                    f"no broker of {servers_of(self._configuration)} told what {', '.join(self._offsets.groups)} "
                    f"committed within {self._connect_timeout:g} s: {reason}"
                )
            with self._changed:
                self._changed.wait_for(
                    lambda before=assignments: self._assignments != before or self._stopping.is_set(),  # type: ignore[misc]
                    self._interval_seconds,
                )

    def _ask(self, admin: AdminClient, committed: CommittedOffsets, asked: Mapping[PartitionKey, int]) -> bool:
        """Ask what all groups have committed, and take it in.

        :returns: whether every group's answer came.
        """
        answers = committed.ask(self._offsets.groups, REQUEST_TIMEOUT_SECONDS, list(asked) or None)
        admin.poll(0.0 if self._is_ready else POLL_SECONDS)  # for `_on_error`
        if self._end is not None:
            raise KafkaException(self._end)
        is_complete = True
        for group, answer in answers.items():
            if not isinstance(answer, KafkaException):
                self._take_in(group, answer, asked)
                continue
            is_complete = False
            error: KafkaError = answer.args[0]
            if ends_the_source(error):
                raise answer
            if self._once.is_due((group, error.code())):
                logger.warning(
                    "%s: can't ask what group %r has committed: %s. It is tried again", self.name, group, error.str()
                )
        return is_complete

    def _take_in(self, group: str, offsets: Mapping[PartitionKey, int], asked: Mapping[PartitionKey, int]) -> None:
        self._answers += 1
        published = []
        for key in asked:
            offset = offsets.get(key)
            if offset is not None:
                self._known.add((key, group))
            elif (key, group) not in self._known:
                continue
            else:
                self._known.discard((key, group))
            published.append(Published(key, group, Statement(offset, -1, 0, self._answers)))
        for start in range(0, len(published), CHUNK):
            with self._changed:
                # What was assigned anew meanwhile is asked about again: this answer may be older than that.
                self._apply(
                    [
                        each
                        for each in published[start : start + CHUNK]
                        if self._assigned.get(each.key) == asked[each.key]
                    ]
                )
