"""The source of remote offsets that reads a commit log.

The reading itself is in `reader.py`, what every source shares in `leaders/offset_source.py`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal

from arroyo.types import Topic
from confluent_kafka import KafkaError
from confluent_kafka.cimpl import Consumer  # not what a tracer has put in its place

from arroyo_sync.core.checks import check_callable, check_choice, check_flag, check_seconds, check_topic
from arroyo_sync.core.errors import BrokersUnreachable, ConfigurationError
from arroyo_sync.core.log_guard import guarded_logger
from arroyo_sync.core.source import HighWatermarks, SourceStatistics
from arroyo_sync.core.state import PartitionKey
from arroyo_sync.kafka.client_settings import reader_settings, servers_of
from arroyo_sync.kafka.making_clients import make_client
from arroyo_sync.kafka.questions.asker import Asker
from arroyo_sync.leaders.commit_log.batch_decoder import MAX_PARTITIONS, BatchDecoder
from arroyo_sync.leaders.commit_log.log_topic import FetchCheck, RangeQuestions, ReachabilityCheck, TopicIdentity
from arroyo_sync.leaders.commit_log.reader import CommitLogReader, ReaderSettings
from arroyo_sync.leaders.commit_log.recent_start import RecentStart
from arroyo_sync.leaders.offset_source import OffsetSource
from arroyo_sync.leaders.verification import LOG_END_UNKNOWN
from arroyo_sync.leaders.verifier import OnLogEnds

logger = guarded_logger(__name__)


class CommitLogConsumer(OffsetSource):
    """Turns what the leaders publish on a commit log into remote offsets, on threads of its own.

    It is assigned to all partitions of the commit log and commits nothing, so two of them never take partitions from
    one another. It is a `RemoteOffsetSource`, whose docs hold here.

    :param configuration: librdkafka settings of the commit log's cluster; those of an Arroyo consumer will do. What
        would make it a member of a group is left out.
    :param topic: the commit log.
    :param groups: the leader groups, of which the slowest counts.
    :param start: "all" reads the whole commit log before the gate opens. "recent" reads only its end, and takes the
        groups' committed offsets for the rest: much faster on a long log. Give it only if the leaders commit on the
        data topic's cluster, under the group names that they publish; `recent_start.py` says why it is safe then.
    :param lookback_seconds: how far back "recent" begins, by the records' timestamps. Much longer than the leaders take
        to commit what they have published.
    :param data_configuration: librdkafka settings of the data topic's cluster, if it isn't the commit log's. It is
        asked where partitions end, and for the groups' committed offsets.
    :param wait_for_topic: wait at the start for a commit log that doesn't exist, rather than end. One that is deleted
        later, and isn't there again within ten seconds, ends the source in any case.
    :param connect_timeout: after how many seconds without an answer of any broker, at the start, the source ends.
    :param clock: monotonic seconds.
    :param wall_clock: Unix seconds.
    :raises ConfigurationError: a setting is missing, empty or impossible.
    """

    def __init__(
        self,
        configuration: Mapping[str, Any],
        *,
        topic: Topic,
        groups: Collection[str],
        start: Literal["all", "recent"] = "all",
        lookback_seconds: float = 600.0,
        data_configuration: Mapping[str, Any] | None = None,
        wait_for_topic: bool = False,
        connect_timeout: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(configuration, groups, data_configuration, clock)
        check_topic("topic", topic)
        check_choice("start", start, ("all", "recent"))
        check_seconds("lookback_seconds", lookback_seconds)
        check_flag("wait_for_topic", wait_for_topic)
        check_seconds("connect_timeout", connect_timeout)
        check_callable("wall_clock", wall_clock, "something to call for Unix seconds")
        self.name = f"commit log {topic.name}"
        self._topic = topic.name
        self._connect_timeout = connect_timeout
        self._decoder = BatchDecoder(topic.name, self.groups, clock, wall_clock)
        # Puts the questions to the commit log's cluster, which mostly is the data topic's, too.
        self._log_asker = self._asker
        if data_configuration is not None:
            self._log_asker = Asker(self._configuration, _ignore, clock=clock)
        settings = ReaderSettings(
            topic=topic.name,
            configuration=self._configuration,
            start=start,
            lookback_seconds=lookback_seconds,
            wait_for_topic=wait_for_topic,
            connect_timeout=connect_timeout,
            clock=clock,
            wall_clock=wall_clock,
        )
        self._fetch_check = FetchCheck(self._log_asker, topic.name, clock)
        self._reader = CommitLogReader(
            settings,
            self._decoder,
            self._apply,
            self._forget_log_partition,
            self._offsets.retain_topic,
            self._set_ready,
            self._stopping,
            ReachabilityCheck(self._log_asker, topic.name, clock),
            RangeQuestions(self._log_asker, topic.name),
            self._fetch_check,
        )
        self._recent_start = (
            RecentStart(
                topic.name,
                self._offsets,
                self._asker,
                self._data_errors,
                servers_of(self._data_configuration),
                self._reader.read_all,
                self._verifier.wake,
                clock,
            )
            if start == "recent"
            else None
        )

    def stop(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        super().stop(timeout)
        self._log_asker.stop(max(0.0, deadline - time.monotonic()))

    def subscribe(self, topic: str) -> None:
        super().subscribe(topic)
        self._reader.follow(topic)

    def assign(self, positions: Mapping[PartitionKey, int], watermarks: HighWatermarks | None) -> None:
        for topic, partition in positions:
            if partition >= MAX_PARTITIONS:
                raise ConfigurationError(
                    f"{topic}[{partition}]: a topic of more than {MAX_PARTITIONS} partitions can't be followed"
                )
            self.subscribe(topic)
        super().assign(positions, watermarks)

    def statistics(self) -> SourceStatistics:
        """A snapshot of what it has done. Doesn't block."""
        decoder = self._decoder
        unheard = self._fetch_check.unheard_since
        now = self._clock()
        since = min(unheard.values(), default=now)
        return SourceStatistics(
            ready=self._is_ready,
            alive=self._is_alive,
            read=decoder.read,
            other_groups=decoder.other_groups,
            other_topics=decoder.other_topics,
            logical=decoder.logical,
            tombstones=decoder.tombstones,
            malformed=dict(decoder.malformed),
            rewinds=self._rewinds,
            impossible=self._verifier.impossible,
            unverified=self._verifier.unverified,
            lag=self._reader.lag,
            newest_timestamp_ms=decoder.newest_timestamp_ms,
            from_the_future=decoder.from_the_future,
            groups_reported=sorted(self._offsets.reported),
            groups_seen=decoder.contents.groups,
            is_foreign=decoder.contents.is_foreign,
            unheard=tuple(sorted(unheard)),
            unheard_seconds=now - since,
            unheard_because=self._reader.errors.last_since(since) if unheard else "",
        )

    def _forget_log_partition(self, log_partition: int) -> None:
        self._offsets.forget_log_partition(log_partition)
        self._offsets.ask_anew()

    def _missing(self) -> str:
        missing = self._reader.missing()
        if not self._decoder.contents.is_foreign:
            return missing
        return f"{missing}. None of its first records is a commit record: is its name right, or is it another topic's?"

    def _ask_log_ends(self, timeout: float, on_log_ends: OnLogEnds) -> None:
        def known(ends: Mapping[int, int | KafkaError]) -> None:
            log_ends = {partition: end if isinstance(end, int) else LOG_END_UNKNOWN for partition, end in ends.items()}
            on_log_ends(log_ends or None)

        self._log_asker.ask_topic_ends(self._topic, timeout, known)

    def _seen(self) -> str:
        return f" ({self._decoder.contents})"

    def _read(self) -> None:
        identity = TopicIdentity(self._log_asker, self._topic, self._clock)
        gives_up_at = self._clock() + self._connect_timeout
        while not self._stopping.is_set():  # for each topic of that name, and after one that fetches no more
            consumer = self._make_consumer(gives_up_at)
            if consumer is None:
                return
            gives_up_at = math.inf  # it is up, and rides out what comes
            try:
                self._reader.run(consumer, identity)
            finally:
                consumer.close()

    def _make_consumer(self, gives_up_at: float) -> Consumer | None:
        """``None``: it is to stop.

        :raises BrokersUnreachable: there was no token to log in with.
        """
        while not self._stopping.is_set():
            consumer = self._try_to_make_consumer(gives_up_at)
            if consumer is not None:
                return consumer
        return None

    def _try_to_make_consumer(self, gives_up_at: float) -> Consumer | None:
        try:
            return make_client(Consumer, reader_settings(self._configuration, self._reader.on_error))
        except BrokersUnreachable as error:  # after ten seconds
            if self._clock() >= gives_up_at:
                raise
            logger.warning("Commit log %s: %s It is tried again", self._topic, error)
            return None

    def _periodic_checks(self) -> float:
        seconds = super()._periodic_checks()
        return seconds if self._recent_start is None else min(seconds, self._recent_start.step())


def _ignore(error: KafkaError) -> None:
    """What is wrong with the commit log's cluster, the reader finds out by itself."""
