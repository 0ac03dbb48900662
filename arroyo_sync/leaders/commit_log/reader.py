"""Reads all partitions of the commit log, from their first record to whatever arrives.

Guarantees
    - The gate is opened once every partition that was found at the start, or forgotten since, was replayed: an old
      record may lie above the newest one. A partition that is added later is read from its beginning; what it says
      counts once it was replayed, and the gate stays open meanwhile.
    - Each is read from when its broker has told where it begins and ends. One that isn't told of keeps the gate shut at
      the start, since the newest report of any partition may lie in it; but the others are read meanwhile.
    - When a position is gone (its records were deleted before they were read, or the topic was deleted and created
      again), the gate shuts, what was read there is forgotten, and it is read again from its beginning.
    - A record is applied as soon as it is here; no batch is waited for. What is taken at once is bounded, in records
      and in bytes.

Failures
    Restarting brokers, elections and lost connections are ridden out; brokers that don't answer are told of, and that
    they do again. Failed authentication, missing permission (both: at once in the first minute, later if that goes on
    for a minute), a topic that doesn't exist or was deleted, and fatal errors come out of `CommitLogReader.run`.

Threads
    Everything runs on the reading thread, but for what says that any may call it. The consumer is used by no other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from threading import Event
from typing import Any, Literal

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from arroyo_sync.core.errors import CommitLogMissing
from arroyo_sync.core.log_guard import guarded_logger
from arroyo_sync.core.log_throttle import LOG_INTERVAL_SECONDS, LogThrottle
from arroyo_sync.kafka.client_settings import concerns_group, metadata_refresh_seconds, servers_of
from arroyo_sync.kafka.errors import (
    POSITION_IS_GONE,
    TOPIC_IS_GONE,
    ClientErrors,
    is_failed_login,
    is_fatal_for_reading,
    is_refused_permission,
    log_missing_token,
)
from arroyo_sync.kafka.questions.first_answer import FirstAnswer
from arroyo_sync.leaders.commit_log.batch_decoder import BatchDecoder, BatchSize
from arroyo_sync.leaders.commit_log.log_partitions import LogPartitions
from arroyo_sync.leaders.commit_log.log_topic import (
    WAIT_ADVICE,
    FetchCheck,
    RangeQuestions,
    ReachabilityCheck,
    TopicIdentity,
    list_partitions,
)
from arroyo_sync.leaders.commit_log.replay import ReplayLog
from arroyo_sync.leaders.commit_report import CommitReport

logger = guarded_logger(__name__)

POLL_SECONDS = 0.25
"""How long a poll waits for a record. What comes ends it; `stop` and what other threads want wait for its end."""
CONNECTING_POLL_SECONDS = 0.1
ASKING_POLL_SECONDS = 0.01
"""While nothing is read yet: what is waited for is the brokers' answer, where to begin."""
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
    configuration: Mapping[str, Any] = field(repr=False)
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
    :param retain_topic: drops what was read about any other data topic.
    :param set_ready: opens and shuts the gate.
    :param stopping: ends `run`.
    :param reachability: asks the brokers after an error.
    :param ranges: asks the brokers from where to where partitions are to be read.
    :param fetch_check: notices that the client fetches no more.
    """

    def __init__(
        self,
        settings: ReaderSettings,
        decoder: BatchDecoder,
        apply: Callable[[Sequence[CommitReport]], None],
        forget: Callable[[int], None],
        retain_topic: Callable[[str], None],
        set_ready: Callable[[bool], None],
        stopping: Event,
        reachability: ReachabilityCheck,
        ranges: RangeQuestions,
        fetch_check: FetchCheck,
    ) -> None:
        self._settings = settings
        self._topic = settings.topic
        self._clock = settings.clock
        self._decoder = decoder
        self._apply = apply
        self._forget_log_partition = forget
        self._retain_topic = retain_topic
        self._set_ready = set_ready
        self._stopping = stopping
        self._reachability = reachability
        self._ranges = ranges
        self._fetch_check = fetch_check
        self._throttle = LogThrottle(LOG_INTERVAL_SECONDS, settings.clock)
        self._is_first_run = True
        self._must_read_all = Event()
        self.errors = ClientErrors(settings.clock)
        """What the client has told of its connections."""
        self.lag: int | None = None
        """How many offsets are still to be read, as far as the client knew a moment ago. Any thread may read it."""
        self._is_open = False
        self._waits_for = "a broker's answer"
        self._partitions = LogPartitions()
        self._replay_log = ReplayLog(settings.topic, PROGRESS_SECONDS, settings.clock)
        self._assign_at = self._refresh_at = self._lag_at = 0.0
        self._read_again_at = float("-inf")
        self._refresh_seconds = metadata_refresh_seconds(settings.configuration)
        self._missing_since: float | None = None
        self._batch_size = BatchSize()
        # The data topic that reports are kept of, and the one that they should be kept of, which any thread may set.
        self._data_topic: str | None = None
        self._wanted_data_topic: str | None = None

    def on_error(self, error: KafkaError) -> None:
        """Called by librdkafka, within ``poll``. That connections are lost proves nothing: see `ReachabilityCheck`."""
        self.errors.add(error)
        log_missing_token(error)
        if error.code() in TOPIC_IS_GONE or is_refused_permission(error):
            self._refresh_at = 0.0
        else:
            self._reachability.want()

    def run(self, consumer: Consumer, identity: TopicIdentity) -> None:
        """Read until ``stopping`` is set, or a new client is wanted, with which it is to be called again.

        That is when the client fetches a partition no more, or was refused one: the new one goes on where it stopped.
        And when the topic was deleted and created again: all is forgotten then, and a client that knew the old topic
        takes the new one's leader epochs for outdated, and asks brokers that lead no more (librdkafka#4898). Blocks;
        each call to the brokers has a timeout of about a second.

        :param consumer: used by nobody else, and not closed from here. Its ``error_cb`` is `on_error`.
        :raises KafkaException: an error that trying again doesn't mend.
        :raises BrokersUnreachable: no broker answered at the first call.
        :raises CommitLogMissing: the topic doesn't exist, or not any more.
        """
        self._fetch_check.restart()
        positions = self._partitions.positions
        if positions:
            consumer.incremental_assign([TopicPartition(self._topic, *each) for each in positions.items()])
        else:
            self._begin(consumer)
        identity.ask()
        self._refresh_at = self._clock() + self._refresh_seconds
        while not self._stopping.is_set():
            if identity.has_changed():
                logger.error("Commit log %s was deleted and created again: it is read from its beginning", self._topic)
                self._forget(consumer, list(positions))
                return
            if self._fetch_check.has_stopped(consumer, positions):
                return
            self._step(consumer, identity)

    def follow(self, topic: str) -> None:
        """Keep reports about this data topic alone. Any thread may call it, once it is known."""
        self._wanted_data_topic = topic

    def read_all(self) -> None:
        """Shut the gate and begin again, from the beginning of every partition. Any thread may call it."""
        self._must_read_all.set()

    def missing(self) -> str:
        """What must still happen before the gate opens. Any thread may ask."""
        return self._partitions.missing() or f"it waits for {self._waits_for}"

    def _step(self, consumer: Consumer, identity: TopicIdentity) -> None:
        if self._wanted_data_topic != self._data_topic:
            self._follow_wanted()
        if self._partitions.found:
            self._ask_about_found()
            self._assign_answered(consumer)
        first = consumer.poll(POLL_SECONDS if self._partitions.positions else ASKING_POLL_SECONDS)
        if first is not None:
            self._process(consumer, identity, [first, *consumer.consume(self._batch_size.beside(first), 0)])
        self.errors.raise_fatal()
        self._reachability.ask(self._partitions.positions)
        if self._must_read_all.is_set():
            self._must_read_all.clear()
            self._forget(consumer, [*self._partitions.positions, *self._partitions.found])
        if not self._is_open:
            self._open_or_log_progress()
        now = self._clock()
        if now >= self._lag_at:
            self._lag_at = now + LAG_SECONDS
            self.lag = self._fetch_check.lag(consumer, self._partitions.positions)
        if now >= self._refresh_at or (identity.take_missing() and self._missing_since is None):
            self._refresh_metadata(consumer, identity)

    # Finding partitions.

    def _begin(self, consumer: Consumer) -> None:
        """Nothing is read yet, or any more."""
        found = self._wait_for_topic(consumer)
        self._partitions.restart(found)
        self._missing_since = None
        self._ranges.restart(found if self._settings.start == "recent" and self._is_first_run else ())
        self._is_first_run = False
        self._replay_log.begin(self._decoder.read)

    def _wait_for_topic(self, consumer: Consumer) -> list[int]:
        """Block until a broker lists the topic's partitions. Empty: it is to stop."""
        settings = self._settings
        servers, name = servers_of(settings.configuration), f"Commit log {self._topic}"
        # What has been there may be away for a while.
        timeout = settings.connect_timeout if self._is_first_run else float("inf")
        enough = MISSING_ANSWERS if self._is_first_run else int(MISSING_SECONDS / RETRY_SECONDS)
        first_answer = FirstAnswer(settings.configuration, timeout, self.errors, name=name, clock=self._clock)
        missing_answers = 0
        while not self._stopping.is_set():
            try:
                partitions = list_partitions(consumer, self._topic, ASK_TIMEOUT_SECONDS)
            except KafkaException as error:
                consumer.poll(CONNECTING_POLL_SECONDS)  # for `on_error`
                self._waits_for = f"an answer of {servers}: {first_answer.failed(error).str()}"
                continue
            first_answer.arrived()
            if partitions:
                return partitions
            missing_answers += 1
            if not settings.wait_for_topic and missing_answers >= enough:
                raise CommitLogMissing(
                    f"topic {self._topic!r} doesn't exist at {servers}. Is the name right?{WAIT_ADVICE}"
                )
            self._waits_for = "the topic to exist"
            if settings.wait_for_topic and self._throttle.should_log("missing"):
                logger.warning("Commit log %s doesn't exist: waiting for it, nothing is released", self._topic)
            self._stopping.wait(RETRY_SECONDS)
        return []

    def _refresh_metadata(self, consumer: Consumer, identity: TopicIdentity) -> None:
        """Look for partitions that were added, and whether the topic is still the same."""
        self._refresh_at = self._clock() + self._refresh_seconds
        identity.ask()
        try:
            partitions = list_partitions(consumer, self._topic, ASK_TIMEOUT_SECONDS)
        except KafkaException as error:
            self._ride_out(error.args[0], f"commit log {self._topic}")
            self._reachability.want()
            return
        self.errors.granted(f"commit log {self._topic}")
        self._refresh_seconds = metadata_refresh_seconds(self._settings.configuration)
        if partitions:
            self._missing_since = None
        else:
            now = self._clock()
            self._missing_since = now if self._missing_since is None else self._missing_since
            if now - self._missing_since >= MISSING_SECONDS:
                raise CommitLogMissing(f"topic {self._topic!r} doesn't exist any more: was it deleted?")
            self._refresh_at = now + RETRY_SECONDS
        if added := self._partitions.find(partitions, self._is_open):
            logger.info("Commit log %s: partitions %s were added", self._topic, added)

    def _ride_out(self, error: KafkaError, what: str) -> None:
        """:raises KafkaException: it can't be ridden out."""
        self.errors.raise_final(error, what)
        if is_refused_permission(error):
            # librdkafka reads nothing of a topic that it was refused until it has looked at its partitions again.
            self._refresh_seconds = RETRY_SECONDS
            self._refresh_at = self._clock() + RETRY_SECONDS
            self._reachability.want()

    def _ask_about_found(self) -> None:
        """Ask where the partitions that were found begin and end, each until its broker has told."""
        now = self._clock()
        if now < self._assign_at:
            return
        self._assign_at = now + RETRY_SECONDS
        since_ms = int((self._settings.wall_clock() - self._settings.lookback_seconds) * 1000)
        self._ranges.ask(self._partitions.found, since_ms, ASK_TIMEOUT_SECONDS)

    def _assign_answered(self, consumer: Consumer) -> None:
        """Begin to read the partitions whose brokers have told. The gate waits for the others; the reading doesn't."""
        ranges, errors = self._ranges.take()
        for partition, error in errors.items():
            self._ride_out(error, f"commit log {self._topic}[{partition}]")
            self._waits_for = f"the ends of partitions {sorted(self._partitions.found - ranges.keys())}: {error.str()}"
            logger.debug("Commit log %s[%d]: can't ask where it ends: %s", self._topic, partition, error)
        if not ranges:
            return
        begin = self._ranges.begin
        consumer.incremental_assign([TopicPartition(self._topic, each, begin(each, ranges[each])) for each in ranges])
        self._partitions.begin(ranges)
        self._apply(self._partitions.take_staged())

    def _forget(self, consumer: Consumer, partitions: Iterable[int]) -> None:
        """Shut the gate, and read these partitions again from their beginning."""
        self._is_open = False
        self._set_ready(False)
        self._replay_log.begin(self._decoder.read)
        forgotten = list(partitions)
        self._ranges.forget(forgotten)
        for partition in self._partitions.forget(forgotten):
            consumer.incremental_unassign([TopicPartition(self._topic, partition)])
        for partition in forgotten:
            self._decoder.forget(partition)
            self._forget_log_partition(partition)
        self._assign_at = 0.0

    # Reading.

    def _process(self, consumer: Consumer, identity: TopicIdentity, batch: list[Message]) -> None:
        self._batch_size.measure(batch)
        events: list[Message] = []
        for partition, run in groupby(batch, Message.partition):
            decoded = self._decoder.decode(list(run))
            events += decoded.events
            if decoded.next_offset is None or partition is None:
                continue
            self.errors.granted(f"commit log {self._topic}[{partition}]")
            if reports := self._partitions.passed(partition, decoded.reports, decoded.next_offset):
                self._apply(reports)
        gone: set[int] = set()
        for event in events:
            self._handle(event, gone)
        if staged := self._partitions.take_staged():
            self._apply(staged)
        self._decoder.check_timestamps(len(self._partitions.positions))
        if gone:
            self._replay_log.log_gone(gone)
            identity.ask()
            self._forget(consumer, gone)
            self._assign_at = self._read_again_at = max(self._clock(), self._read_again_at + RETRY_SECONDS)

    def _handle(self, event: Message, gone: set[int]) -> None:
        error, partition = event.error(), event.partition()
        if error is None or partition is None:
            return
        code = error.code()
        if concerns_group(error) or is_failed_login(error):
            logger.debug("Commit log %s: %s", self._topic, error)
        elif code == KafkaError._PARTITION_EOF:
            self.errors.granted(f"commit log {self._topic}[{partition}]")
            self._partitions.reached_end(partition)
        elif code in POSITION_IS_GONE:
            gone.add(partition)
        elif code in TOPIC_IS_GONE:
            self._refresh_at = 0.0
        elif is_refused_permission(error):
            self._ride_out(error, f"commit log {self._topic}[{partition}]")
            self._fetch_check.refused(partition)
        elif is_fatal_for_reading(error):
            raise KafkaException(error)
        elif self._throttle.should_log(code):
            logger.warning("Commit log %s[%d]: %s. It is tried again", self._topic, partition, error.str())

    def _follow_wanted(self) -> None:
        """Drop what was kept of other data topics."""
        topic = self._wanted_data_topic
        assert topic is not None
        # Of this topic nothing was kept if another one was followed, and not all if too much was there.
        is_incomplete = self._data_topic is not None or self._decoder.is_incomplete
        self._data_topic = topic
        self._decoder.follow(topic)
        self._partitions.retain_topic(topic)
        self._retain_topic(topic)
        if is_incomplete:
            self._must_read_all.set()

    def _open_or_log_progress(self) -> None:
        if self._partitions.is_replayed:
            self._is_open = True
            self._set_ready(True)
            self._decoder.contents.conclude()
            self._replay_log.log_end(self._decoder.read, self._partitions.progress())
        else:
            self._replay_log.log_progress(self._decoder.read, self._partitions.progress(), self.missing)
