"""Reads all partitions of the commit log, from their first record to whatever arrives.

    found ──ends known──> replaying ──end reached──> live
      ^                                               │
      └──────── its position is gone: forgotten ──────┘

Guarantees
    - The gate is opened once every partition that was found at the start, or forgotten since, was replayed: an old
      record may lie above the newest one. A partition that is added later is read from its beginning; what it says
      counts once it was replayed, and the gate stays open meanwhile.
    - When a position is gone (its records were deleted before they were read, or the topic was deleted and created
      again), the gate shuts, what was read there is forgotten, and it is read again from its beginning.
    - A record is applied as soon as it is here; no batch is waited for.

Failures
    Restarting brokers, elections and lost connections are logged and ridden out. Failed authentication, missing
    permission, a topic that doesn't exist or was deleted, and fatal errors come out of `CommitLogReader.run`.

Threads: everything runs on the reading thread, but for what says that any thread may call it. The consumer is used by
no other: it lets in one at a time, and one that polls without end would keep all others waiting.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from threading import Event
from typing import Any, Literal

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from arroyo_sync.core.errors import CommitLogMissing
from arroyo_sync.core.log_throttle import LOG_INTERVAL_SECONDS, LogThrottle
from arroyo_sync.core.state import PartitionKey
from arroyo_sync.kafka.client_settings import metadata_refresh_seconds, servers_of
from arroyo_sync.kafka.errors import (
    POSITION_IS_GONE,
    TOPIC_IS_GONE,
    ClientErrors,
    is_fatal,
    is_fatal_for_reading,
    no_broker_answered,
)
from arroyo_sync.leaders.commit_log.batch_decoder import BatchDecoder
from arroyo_sync.leaders.commit_log.log_topic import TopicIdentity, ask_spans, ask_starts, list_partitions
from arroyo_sync.leaders.commit_log.replay import Replay
from arroyo_sync.leaders.commit_report import CommitReport

logger = logging.getLogger(__name__)

BATCH = 10_000
"""How many records are taken at once, if so many are there: about ten milliseconds of work."""
POLL_SECONDS = 0.1
ASK_TIMEOUT_SECONDS = 1.0
RETRY_SECONDS = 0.5
PROGRESS_SECONDS = 5.0
LAG_SECONDS = 1.0
MISSING_ANSWERS = 2
"""How often, one after the other, the brokers must say at the start that there is no such topic: one may be new."""
MISSING_SECONDS = 10.0
"""For how long a topic that was there must be gone before it counts as deleted: it may be about to be created again."""


@dataclass(frozen=True)
class ReaderSettings:
    """See `CommitLogConsumer`."""

    topic: str
    configuration: Mapping[str, Any]
    start: Literal["all", "recent"]
    lookback_seconds: float
    wait_for_topic: bool
    connect_timeout: float
    clock: Callable[[], float]
    wall_clock: Callable[[], float]


class CommitLogReader:
    """The reading thread's work.

    :param apply: takes in what the groups published.
    :param forget: drops what was read of a commit-log partition.
    :param set_ready: opens and shuts the gate.
    :param stopping: ends `run`.
    """

    def __init__(
        self,
        settings: ReaderSettings,
        decoder: BatchDecoder,
        apply: Callable[[Sequence[CommitReport]], None],
        forget: Callable[[int], None],
        set_ready: Callable[[bool], None],
        stopping: Event,
    ) -> None:
        self._settings = settings
        self._topic = settings.topic
        self._clock = settings.clock
        self._decoder = decoder
        self._apply = apply
        self._forget_log_partition = forget
        self._set_ready = set_ready
        self._stopping = stopping
        self._throttle = LogThrottle(LOG_INTERVAL_SECONDS, settings.clock)
        self._reads_all = settings.start == "all"
        self._must_read_all = Event()
        self._errors = ClientErrors()
        self.lag: int | None = None
        """How many offsets are still to be read, as far as the client knew a moment ago. Any thread may read it."""
        self._lag_at = 0.0
        self._is_open = False
        self._waits_for = "a broker's answer"
        # Every partition is in one of these two, from when it is found until it is forgotten.
        self._found: set[int] = set()
        self._positions: dict[int, int] = {}
        self._assign_at = self._refresh_at = 0.0
        self._missing_since: float | None = None
        self._replay = Replay()
        # Partitions that were added while the gate was open, and what they have said so far.
        self._added = Replay()
        self._staged: dict[int, dict[tuple[PartitionKey, str], CommitReport]] = {}
        self._began_at = self._last_logged = 0.0
        self._began_read = 0

    def on_error(self, error: KafkaError) -> None:
        """Told by librdkafka, out of ``poll``, of an error that isn't about one partition."""
        self._errors.add(error)
        if not is_fatal(error) and self._throttle.should_log(error.code()):
            logger.warning("Commit log %s: %s. It is tried again", self._topic, error.str())

    def run(self, consumer: Consumer, identity: TopicIdentity) -> None:
        """Read until ``stopping`` is set, or the topic turns out to have been deleted and created again.

        In the latter case it forgets what it read, and wants to be called again, with a new client: one that knew the
        old topic takes the new one's leader epochs for outdated, and asks brokers that lead no more (librdkafka#4898).
        Blocks; each call to the brokers has a timeout of about a second.

        :param consumer: used by nobody else, and not closed from here. Its ``error_cb`` is `on_error`.
        :raises KafkaException: an error that can't be ridden out.
        :raises BrokersUnreachable: no broker answered at the start.
        :raises CommitLogMissing: the topic doesn't exist, or not any more.
        """
        self._found = set(self._wait_for_topic(consumer))
        identity.ask()
        self._refresh_at = self._clock() + metadata_refresh_seconds(self._settings.configuration)
        self._begin_progress()
        while not (self._stopping.is_set() or identity.has_changed()):
            self._step(consumer, identity)
        if not self._stopping.is_set():
            logger.error("Commit log %s was deleted and created again: it is read from its beginning", self._topic)
            self._forget(consumer, list(self._positions))

    def read_all(self) -> None:
        """Shut the gate and begin again, from the beginning of every partition. Any thread may call it."""
        self._must_read_all.set()

    def missing(self) -> str:
        """What must still happen before the gate opens. Any thread may ask."""
        pending = self._replay.missing()
        if not pending:
            return f"it waits for {self._waits_for}"
        shown = ", ".join(f"{key} (read up to {span.start} of {span.end})" for key, span in sorted(pending.items())[:5])
        more = f" and {len(pending) - 5} more" if len(pending) > 5 else ""
        return f"it still has to read partitions {shown}{more}"

    def _step(self, consumer: Consumer, identity: TopicIdentity) -> None:
        if self._found and self._clock() >= self._assign_at:
            self._assign_found(consumer)
        first = consumer.poll(POLL_SECONDS)
        if first is not None:
            self._process(consumer, identity, [first, *consumer.consume(BATCH, 0)])
        self._errors.raise_fatal()
        if self._must_read_all.is_set():
            self._must_read_all.clear()
            self._forget(consumer, list(self._positions))
        if not self._is_open:
            self._open_or_log_progress()
        now = self._clock()
        if now >= self._lag_at:
            self._lag_at = now + LAG_SECONDS
            self.lag = self._measure_lag(consumer)
        if now >= self._refresh_at:
            self._refresh_metadata(consumer, identity)

    def _measure_lag(self, consumer: Consumer) -> int | None:
        """Never blocks: the client knows the ends from what it fetched."""
        lag = 0
        for partition, position in self._positions.items():
            ends = consumer.get_watermark_offsets(TopicPartition(self._topic, partition), cached=True)
            if ends is None or ends[1] < 0:
                return None
            lag += max(0, ends[1] - position)
        return lag

    # Finding partitions.

    def _wait_for_topic(self, consumer: Consumer) -> list[int]:
        """Block until the brokers tell of the topic's partitions. None: it is to stop."""
        settings = self._settings
        servers = servers_of(settings.configuration)
        deadline = self._clock() + settings.connect_timeout
        missing_answers = 0
        while not self._stopping.is_set():
            try:
                partitions = list_partitions(consumer, self._topic, ASK_TIMEOUT_SECONDS)
            except KafkaException as error:
                consumer.poll(POLL_SECONDS)  # for `on_error`
                self._errors.raise_fatal(error)
                reason = self._errors.reason(error.args[0])
                self._waits_for = f"an answer of {servers}: {reason.str()}"
                if self._clock() < deadline:
                    continue
                raise no_broker_answered(settings.configuration, settings.connect_timeout, reason) from error
            if partitions:
                return partitions
            missing_answers += 1
            if not settings.wait_for_topic and missing_answers >= MISSING_ANSWERS:
                raise CommitLogMissing(
                    f"topic {self._topic!r} doesn't exist at {servers}. Is the name right? Create it, or give "
                    "wait_for_topic=True to wait for it"
                )
            self._waits_for = "the topic to exist"
            if settings.wait_for_topic and self._throttle.should_log("missing"):
                logger.warning("Commit log %s doesn't exist: waiting for it, nothing is released", self._topic)
            self._stopping.wait(RETRY_SECONDS)
        return []

    def _refresh_metadata(self, consumer: Consumer, identity: TopicIdentity) -> None:
        """Look for partitions that were added, and whether the topic is still the same."""
        self._refresh_at = self._clock() + metadata_refresh_seconds(self._settings.configuration)
        identity.ask()
        try:
            partitions = list_partitions(consumer, self._topic, ASK_TIMEOUT_SECONDS)
        except KafkaException as error:
            if is_fatal(error.args[0]):
                raise
            if self._throttle.should_log("metadata"):
                logger.warning("Commit log %s: can't look for added partitions: %s", self._topic, error)
            return
        if partitions:
            self._missing_since = None
        else:
            now = self._clock()
            self._missing_since = now if self._missing_since is None else self._missing_since
            if now - self._missing_since >= MISSING_SECONDS:
                raise CommitLogMissing(f"topic {self._topic!r} doesn't exist any more: was it deleted?")
            self._refresh_at = now + RETRY_SECONDS
        added = set(partitions) - self._found - self._positions.keys()
        if added:
            logger.info("Commit log %s: partitions %s were added", self._topic, sorted(added))
            self._found |= added
            if self._is_open:
                self._staged.update((partition, {}) for partition in added)

    def _assign_found(self, consumer: Consumer) -> None:
        """Begin to read what was found, once the brokers tell where it begins and ends."""
        self._assign_at = self._clock() + RETRY_SECONDS
        try:
            spans = ask_spans(consumer, self._topic, self._found, ASK_TIMEOUT_SECONDS)
            if not self._reads_all:
                since_ms = int((self._settings.wall_clock() - self._settings.lookback_seconds) * 1000)
                spans = ask_starts(consumer, self._topic, spans, since_ms, ASK_TIMEOUT_SECONDS)
        except KafkaException as error:
            if is_fatal(error.args[0]):
                raise
            self._waits_for = f"the ends of partitions {sorted(self._found)}: {error.args[0].str()}"
            if self._throttle.should_log("ends"):
                logger.warning("Commit log %s: can't ask where its partitions end: %s", self._topic, error)
            return
        # "Beginning" rather than its offset, which may be deleted before it is fetched.
        consumer.incremental_assign(
            [
                TopicPartition(self._topic, partition, OFFSET_BEGINNING if self._reads_all else span.start)
                for partition, span in spans.items()
            ]
        )
        self._reads_all = True  # what is found later is read from its beginning
        self._found.clear()
        self._positions.update((partition, span.start) for partition, span in spans.items())
        self._added.add({partition: span for partition, span in spans.items() if partition in self._staged})
        self._replay.add({partition: span for partition, span in spans.items() if partition not in self._staged})
        self._apply_staged()

    def _forget(self, consumer: Consumer, partitions: Iterable[int]) -> None:
        """Shut the gate, and read these partitions again from their beginning."""
        self._is_open = False
        self._set_ready(False)
        self._begin_progress()
        if self._replay.is_done:
            self._replay = Replay()
        for partition in partitions:
            if self._positions.pop(partition, None) is not None:
                consumer.incremental_unassign([TopicPartition(self._topic, partition)])
            self._staged.pop(partition, None)
            self._forget_log_partition(partition)
            self._found.add(partition)
        self._assign_at = 0.0

    # Reading.

    def _process(self, consumer: Consumer, identity: TopicIdentity, batch: list[Message]) -> None:
        events: list[Message] = []
        for partition, run in groupby(batch, Message.partition):
            decoded = self._decoder.decode(list(run))
            events += decoded.events
            if decoded.next_offset is None or partition is None:
                continue
            staged = self._staged.get(partition)
            if staged is None:
                self._apply(decoded.reports)
            else:
                staged.update(((each.key, each.group), each) for each in decoded.reports)
                self._added.passed(partition, decoded.next_offset)
            self._positions[partition] = decoded.next_offset
            if not self._is_open:
                self._replay.passed(partition, decoded.next_offset)
        gone: set[int] = set()
        for event in events:
            self._handle(event, gone)
        if self._staged:
            self._apply_staged()
        if gone:
            logger.error(
                "Commit log %s: the position in partitions %s is gone. They are read again from their beginning, and "
                "the gate is shut until then",
                self._topic,
                sorted(gone),
            )
            identity.ask()
            self._forget(consumer, gone)

    def _handle(self, event: Message, gone: set[int]) -> None:
        error, partition = event.error(), event.partition()
        if error is None or partition is None:
            return
        code = error.code()
        if code == KafkaError._PARTITION_EOF:
            self._replay.reached_end(partition)
            self._added.reached_end(partition)
        elif code in POSITION_IS_GONE:
            gone.add(partition)
        elif code in TOPIC_IS_GONE:
            self._refresh_at = 0.0
        elif is_fatal_for_reading(error):
            raise KafkaException(error)
        elif self._throttle.should_log(code):
            logger.warning("Commit log %s[%d]: %s. It is tried again", self._topic, partition, error.str())

    def _apply_staged(self) -> None:
        for partition in [each for each in self._staged if each in self._positions]:
            if not self._added.is_pending(partition):
                self._apply(list(self._staged.pop(partition).values()))

    # Opening the gate.

    def _begin_progress(self) -> None:
        self._began_at = self._last_logged = self._clock()
        self._began_read = self._decoder.read

    def _open_or_log_progress(self) -> None:
        if self._replay.is_done and not (self._found - self._staged.keys()):
            self._is_open = True
            self._set_ready(True)
            self._log_progress("replayed")
        elif self._clock() - self._last_logged >= PROGRESS_SECONDS:
            self._last_logged = self._clock()
            self._log_progress(f"{self._replay.progress().fraction:.0%} replayed")

    def _log_progress(self, what: str) -> None:
        progress = self._replay.progress()
        read = self._decoder.read - self._began_read
        seconds = max(self._clock() - self._began_at, 1e-3)
        logger.info(
            "Commit log %s: %s (%d records, %d of %d partitions, %.1f s, %.0f records/s)",
            self._topic,
            what,
            read,
            progress.replayed_partitions,
            progress.partitions,
            seconds,
            read / seconds,
        )
