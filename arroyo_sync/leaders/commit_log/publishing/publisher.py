"""The leader's side: commit, and announce on the commit log what was committed.

A `CommitLogPublisher` makes the last step of a leader's pipeline, where ``CommitOffsets`` would stand. The step does
all that ``CommitOffsets`` does, and publishes per partition the newest committed offset: followers may go that far.

Guarantees
    - No offset is published before it was passed to ``commit``, and none after the step's ``join`` or ``terminate`` has
      returned.
    - Every assigned partition is reported: at the start of its assignment, after each commit, and once a heartbeat
      while the pipeline is polled. So an idle partition is never silent, also after a restart, a rebalance, or when the
      commit log was created anew.
    - A partition's records reach the commit log in the order of its commits.
    - ``submit`` and ``poll`` never wait for the broker, ``join`` for a second at most, and a commit log that can't be
      written never ends the pipeline.

Where a partition starts
    Arroyo makes the step anew in each rebalance, and its mapping doesn't tell a new partition from one that was
    retained. What a partition starts from is found by what the step before left of it:

    - *No trace*: it is newly assigned, since a step has every partition that its consumer has. The mapping holds what
      the group has committed, or where ``auto.offset.reset`` begins. That is committed, then published.
    - *The same offset*: whether it was retained or not, that is what the group has committed.
    - *Another offset, or none yet*: either it was retained (KIP-848), and the mapping holds Arroyo's position, past
      work that isn't committed; or all partitions were revoked, somebody else had this one meanwhile, and the mapping
      holds what they have committed. Arroyo tells a strategy of neither. So the brokers are asked what the group has
      committed, and until they answer or the pipeline commits, nothing of it is published or committed. If that is
      nothing, since where it started could not be committed before the rebalance, that is committed now.

What a follower sees
    - *A leader dies between its commit and its report*: the report comes late. Whoever gets the partition next reports
      it at its start.
    - *A leader dies between its report and the broker's copy of the commit* (Arroyo commits once a second, and with
      ``arroyo.enable.auto.commit`` librdkafka every five): the next owner starts further back, and reports that. The
      gate is shut until the leader has come that far again.
    - *Two members have a partition in turn*: the first one's last record may arrive after the second one's first. Then
      the remote offset is where the first had come, until the second one's next report, at most a heartbeat later.

Failures
    See `ReportWriter` for what can't be delivered. What ``commit`` raises for the start of an assignment is logged, and
    it is tried again once a second; what it raises for messages comes out, as from ``CommitOffsets``.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from arroyo.backends.abstract import Producer
from arroyo.backends.kafka import KafkaPayload
from arroyo.processing.strategies.commit import CommitOffsets
from arroyo.types import Commit, Message, Partition, Topic

from arroyo_sync.core.checks import (
    check_callable,
    check_group,
    check_positions,
    check_producer,
    check_seconds,
    check_topic,
)
from arroyo_sync.core.log_throttle import LogThrottle
from arroyo_sync.kafka.client_settings import check_configuration
from arroyo_sync.kafka.redaction import keep_secrets
from arroyo_sync.leaders.commit_log.publishing.publish_queue import PublishQueue, QueuedPartition
from arroyo_sync.leaders.commit_log.publishing.report_writer import SECONDS_BETWEEN_LOGS, ReportWriter
from arroyo_sync.leaders.commit_log.publishing.start_questions import StartQuestions

logger = logging.getLogger(__name__)

COMMIT_RETRY_SECONDS = 1.0
"""How often the start of an assignment is committed while that fails."""
START_PATIENCE_SECONDS = 5.0
"""For how long that fails before it is told of."""

Offsets = Mapping[Partition, int]
ReceivedTimestamps = Callable[[Message[Any]], Iterable[float]]


class CommitLogPublisher:
    """Makes the steps that commit and publish, one for each assignment. One publisher for each ``StreamProcessor``.

    The constructor connects to nothing and starts nothing.

    Threads: `step` is called by the processor's, from ``create_with_partitions``; the attributes may be read by any.

    :param producer: an Arroyo producer for the commit log's cluster, with any partitioner that goes by the key. It
        outlives the steps: close it after the processor has ended.
    :param topic: the commit log.
    :param group: this pipeline's consumer group, the leader group.
    :param interval: seconds. A partition is published at most this often; its first commit after a pause, at once.
    :param heartbeat: seconds. A partition that was not published for this long is published again with the same offset,
        so that its record doesn't expire and a leader that is idle can be told from one that is gone.
    :param received_timestamps: how to tell when the events of a message were first received by the whole system: a
        function from the message (maybe a batch) to Unix seconds, of which there may be none. Each record then carries
        the 99th percentile of the times since the last record, as Snuba's subscription scheduler reads it
        (getsentry/arroyo#295, getsentry/snuba#4922). Times that aren't finite are dropped and counted.
    :param data_configuration: librdkafka settings of the data topic's cluster, if that isn't the producer's. There the
        topic's id is asked, which every report then carries, and what the group has committed, where that is in
        question (see above). Both are asked on a thread of their own and never waited for.
    :param clock: monotonic, seconds.
    :raises ConfigurationError: an argument can't be right; the message names it.
    """

    def __init__(
        self,
        producer: Producer[KafkaPayload],
        topic: Topic,
        group: str,
        *,
        interval: float = 0.1,
        heartbeat: float = 10.0,
        received_timestamps: ReceivedTimestamps | None = None,
        data_configuration: Mapping[str, Any] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        keep_secrets()  # before anything can fail with settings in its variables
        check_producer("producer", producer)
        check_topic("topic", topic)
        check_group("group", group)
        check_seconds("interval", interval)
        check_seconds("heartbeat", heartbeat)
        check_callable("received_timestamps", received_timestamps, "called with a message", may_be_none=True)
        check_callable("clock", clock, "called with nothing, for monotonic seconds")
        if data_configuration is None:
            data_configuration = _settings_of(producer)
        else:
            check_configuration("data_configuration", data_configuration)
        self.dropped_timestamps = 0
        """How many times of `received_timestamps` weren't finite numbers. Written by the processor's thread."""
        self._group = group
        self._received_timestamps = received_timestamps
        self._clock = clock
        self._throttle = LogThrottle(SECONDS_BETWEEN_LOGS, clock)
        self._questions = None if data_configuration is None else StartQuestions(data_configuration, group)
        topic_ids: Mapping[str, bytes] = {} if self._questions is None else self._questions.topic_ids
        self._queue = PublishQueue(interval, heartbeat)
        self._writer = ReportWriter(producer, topic, group, self._queue, topic_ids, clock)
        self._step: PublishStep | None = None

    @property
    def failed_deliveries(self) -> int:
        """How many records the producer refused or could not deliver."""
        return self._writer.failed_deliveries

    def step(self, commit: Commit, partitions: Mapping[Partition, int]) -> PublishStep:
        """The last step of the pipeline, for what ``create_with_partitions`` was called with.

        It commits where the new partitions start, which blocks as long as Arroyo's commit does, and publishes that. The
        ``orig_message_ts`` of such a report is the wall clock's time, since the message before isn't known.
        """
        check_callable("commit", commit, "the function that Arroyo hands to create_with_partitions")
        check_positions("partitions", partitions)
        previous = self._step
        if previous is not None and not previous.has_ended:
            # Its partitions may still be somebody's: they are remembered, so the brokers decide where they start.
            logger.warning(
                "The step of group %s was made anew before the last one was joined, which publishes nothing more: make "
                "a CommitLogPublisher for each StreamProcessor, and let every step join the next one",
                self._group,
            )
            previous.terminate()
        else:
            # No lock is needed for the queue: between two steps there is no other thread.
            self._queue.keep_only(partitions.keys())
        starts: dict[Partition, int] = {}
        in_question: list[Partition] = []
        for partition, offset in partitions.items():
            known = self._queue.partitions.get(partition)
            if known is None:
                starts[partition] = offset
                self._queue.add(partition)
            elif known.is_unclear or known.newest is None or known.newest[0] != offset:
                self._queue.mark_unclear(known)
                in_question.append(partition)
        if self._questions is not None:
            self._questions.ask({partition.topic.name for partition in partitions}, in_question)
        before = {} if previous is None else previous.uncommitted_starts
        self._step = PublishStep(commit, self, starts, {each: before[each] for each in in_question if each in before})
        return self._step

    def _received(self, message: Message[Any]) -> list[float]:
        """What `received_timestamps` says of the message. What it raises is logged, and so is what is no time."""
        if self._received_timestamps is None:
            return []
        try:
            times = [float(time) for time in self._received_timestamps(message)]
        except Exception as error:
            if self._throttle.should_log("raised"):
                logger.warning("received_timestamps failed: %s: %s", type(error).__name__, error, exc_info=error)
            return []
        finite = [time for time in times if math.isfinite(time)]
        if len(finite) < len(times):
            self.dropped_timestamps += len(times) - len(finite)
            if self._throttle.should_log("dropped"):
                logger.warning(
                    "received_timestamps returned what is no time, such as NaN: dropped (%d so far)",
                    self.dropped_timestamps,
                )
        return finite


class PublishStep(CommitOffsets):
    """Commits offsets and publishes them, for one assignment. `CommitLogPublisher.step` makes it.

    :param starts: where newly assigned partitions start, to be committed.
    :param starts_before: where partitions in question started, which the step before could not commit.
    """

    def __init__(self, commit: Commit, publisher: CommitLogPublisher, starts: Offsets, starts_before: Offsets) -> None:
        super().__init__(commit)
        self.has_ended = False
        """Whether it was joined or terminated. Written by the processor's thread."""
        self._commit = commit
        self._publisher = publisher
        self._writer = publisher._writer
        self._queue = publisher._queue
        self._partitions = self._queue.partitions
        self._takes_times = publisher._received_timestamps is not None
        self._starts = dict(starts)
        """Offsets that are still to be committed."""
        self._starts_before = dict(starts_before)
        """The same, if the brokers answer that the group has committed nothing."""
        self._starts_due_at = -math.inf
        self._unable_since: float | None = None
        self._only_starts = True
        """Whether nothing but `starts` was passed to ``commit`` while they are still to be committed."""
        self._writer.begin()
        self._commit_starts()

    @property
    def failed_deliveries(self) -> int:
        """How many records the producer refused or could not deliver, for all steps of the publisher."""
        return self._writer.failed_deliveries

    @property
    def uncommitted_starts(self) -> Mapping[Partition, int]:
        """Where partitions started of which nothing was committed since."""
        return {**self._starts_before, **self._starts}

    def submit(self, message: Message[Any]) -> None:
        """Commit the message's offsets, and publish those whose partition is due. Never waits for delivery.

        :raises: what ``commit`` raises, and then nothing of this message is published.
        """
        super().submit(message)
        if self.has_ended:
            return
        received = self._publisher._received(message) if self._takes_times else ()
        timestamp = message.timestamp
        for partition, offset in message.committable.items():
            queued = self._partitions.get(partition)
            if queued is None:
                queued = self._writer.add(partition)
            queued.newest = (offset, timestamp)
            if received or not queued.pending:
                self._writer.report(queued, received)
        if self._starts or self._starts_before:
            self._only_starts = False
            for partition in message.committable:
                self._starts.pop(partition, None)
                self._starts_before.pop(partition, None)

    def poll(self) -> None:
        """Let Arroyo commit, and publish what is due: new offsets, retries, heartbeats. Never waits for delivery."""
        if self._starts:
            self._commit_starts()
        else:
            super().poll()
        if self.has_ended:
            return
        questions = self._publisher._questions
        if questions is not None and questions.committed:
            self._take_answers(questions)
        self._writer.poll()

    def close(self) -> None:
        """Nothing yet: the steps before this one hand on their last messages in their `join`."""

    def terminate(self) -> None:
        """Publish nothing more. What is in flight may still arrive."""
        self._end()

    def join(self, timeout: float | None = None) -> None:
        """Commit all that is staged, publish every partition's offset once more, and wait for the deliveries.

        Blocks for at most ``timeout`` seconds after the commit, and never for more than one: a commit log that can't be
        written holds up no rebalance. What wasn't confirmed in time is logged; it may still arrive.
        """
        try:
            super().join(timeout)
        except Exception as error:
            if not self._starts or not self._only_starts:
                raise
            # Nothing of the pipeline's own was to be committed. A member that was missed may not commit.
            self._log_unable_to_start(error)
        if not self.has_ended:
            self._writer.finish(timeout)
            self._end()

    def _commit_starts(self) -> None:
        """Commit where newly assigned partitions start, and then publish it. What fails is tried again in `poll`."""
        now = self._publisher._clock()
        if not self._starts or now < self._starts_due_at:
            return
        try:
            self._commit(dict(self._starts), force=True)
        except Exception as error:
            # Not raised: it would end the processor, out of the assignment, for partitions that may be idle. Arroyo
            # commits what it has staged with the first message, and what it raises then comes out.
            self._starts_due_at = now + COMMIT_RETRY_SECONDS
            self._log_unable_to_start(error)
            return
        self._unable_since = None
        starts, self._starts = self._starts, {}
        for partition, offset in starts.items():
            self._publish(self._writer.add(partition), offset)

    def _log_unable_to_start(self, error: Exception) -> None:
        now = self._publisher._clock()
        self._unable_since = now if self._unable_since is None else self._unable_since
        # While its group forms, a member that is well may not commit.
        is_long = now - self._unable_since >= START_PATIENCE_SECONDS
        if is_long and self._publisher._throttle.should_log("start"):
            logger.warning(
                "Group %s can't commit where it starts, it is tried again while it has the partitions: %s: %s",
                self._publisher._group,
                type(error).__name__,
                error,
            )

    def _take_answers(self, questions: StartQuestions) -> None:
        for partition, offset in questions.take_committed().items():
            queued = self._partitions.get(partition)
            start = self._starts_before.pop(partition, None)
            if queued is None or not queued.is_unclear:
                continue
            if offset is not None:
                self._publish(queued, offset)
            elif start is not None:
                self._starts[partition] = start

    def _publish(self, queued: QueuedPartition, offset: int) -> None:
        queued.newest = (offset, None)
        self._writer.report(queued)

    def _end(self) -> None:
        self.has_ended = True
        if self._publisher._questions is not None:
            self._publisher._questions.withdraw()
        self._writer.stop()


class PublishCommitLog(PublishStep):
    """The step without a publisher: it reports only what it commits itself, and no topic's id.

    So a partition that is idle since its assignment isn't reported: use `CommitLogPublisher`, which takes the same
    arguments but for ``commit``.

    :param commit: what Arroyo hands to ``create_with_partitions``.
    :raises ConfigurationError: an argument can't be right; the message names it.
    """

    def __init__(
        self,
        commit: Commit,
        producer: Producer[KafkaPayload],
        topic: Topic,
        group: str,
        *,
        interval: float = 0.1,
        heartbeat: float = 10.0,
        received_timestamps: ReceivedTimestamps | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        keep_secrets()
        check_callable("commit", commit, "the function that Arroyo hands to create_with_partitions")
        publisher = CommitLogPublisher(
            producer,
            topic,
            group,
            interval=interval,
            heartbeat=heartbeat,
            received_timestamps=received_timestamps,
            clock=clock,
        )
        super().__init__(commit, publisher, {}, {})


def _settings_of(producer: Producer[KafkaPayload]) -> Mapping[str, Any] | None:
    """The settings that the producer was made with, if it shows them: Arroyo's ``KafkaProducer`` does."""
    get_config = getattr(producer, "get_config", None)
    settings = get_config() if callable(get_config) else None
    if not isinstance(settings, Mapping) or not settings:
        return None
    # Two clients can't have it at a time.
    return {name: value for name, value in settings.items() if name != "transactional.id"}
