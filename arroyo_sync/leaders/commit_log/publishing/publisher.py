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
    - ``submit`` and ``poll`` never wait for the commit log, ``join`` for a second at most; Arroyo's own commit blocks
      as ever. A commit log that can't be written never ends the pipeline, nor does a line of this package's that can't
      be logged.

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

import time
from collections.abc import Callable, Mapping
from typing import Any

from arroyo.backends.abstract import Producer
from arroyo.backends.kafka import KafkaPayload
from arroyo.types import Commit, Partition, Topic

from arroyo_sync.core.checks import (
    check_callable,
    check_group,
    check_positions,
    check_producer,
    check_seconds,
    check_topic,
)
from arroyo_sync.core.errors import ConfigurationError
from arroyo_sync.core.log_guard import guarded_logger
from arroyo_sync.core.log_throttle import LOG_INTERVAL_SECONDS, LastingFailure, LogThrottle
from arroyo_sync.kafka.arroyo_consumer import producer_settings
from arroyo_sync.kafka.client_settings import (
    ONLY_ERRORS_SETTING,
    check_configuration,
    delivery_timeout_seconds,
    linger_of,
    tells_only_failures,
)
from arroyo_sync.kafka.redaction import keep_secrets
from arroyo_sync.kafka.topic_ids import FORGET_SECONDS
from arroyo_sync.leaders.commit_log.publishing.publish_queue import PublishQueue
from arroyo_sync.leaders.commit_log.publishing.publish_step import START_PATIENCE_SECONDS, PublishStep, SharedParts
from arroyo_sync.leaders.commit_log.publishing.received_times import ReceivedTimes, ReceivedTimestamps
from arroyo_sync.leaders.commit_log.publishing.report_writer import FINISH_SECONDS, MAX_LINGER_SECONDS, ReportWriter
from arroyo_sync.leaders.commit_log.publishing.start_questions import StartQuestions

logger = guarded_logger(__name__)


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
        settings = _settings_of(producer)
        _check_settings(settings or {}, group)
        has_data_configuration = data_configuration is not None
        if data_configuration is None:
            data_configuration = settings
        else:
            check_configuration("data_configuration", data_configuration)
        self._received = (
            None
            if received_timestamps is None
            else ReceivedTimes(received_timestamps, LogThrottle(LOG_INTERVAL_SECONDS, clock))
        )
        start_failure = LastingFailure(START_PATIENCE_SECONDS, clock)
        topic_ids: dict[str, bytes] = {}
        self._queue = PublishQueue(interval, heartbeat, delivery_timeout_seconds(settings or {}))
        self._writer = ReportWriter(producer, topic, group, self._queue, topic_ids, clock)
        self._questions = (
            None
            if data_configuration is None
            else StartQuestions(
                data_configuration,
                has_data_configuration,
                group,
                topic_ids,
                self._queue.reached,
                self._writer.repeat_with_ids,
            )
        )
        self._shared = SharedParts(
            group, self._queue, self._writer, self._questions, self._received, start_failure, clock
        )
        self._step: PublishStep | None = None
        self._producer = producer
        self._is_blindness_told = False

    @property
    def dropped_timestamps(self) -> int:
        """How many times of ``received_timestamps`` weren't finite numbers."""
        return 0 if self._received is None else self._received.dropped

    @property
    def failed_deliveries(self) -> int:
        """How many records the producer refused, could not deliver or never answered."""
        return self._writer.failed_deliveries

    def step(self, commit: Commit, partitions: Mapping[Partition, int]) -> PublishStep:
        """The last step of the pipeline, for what ``create_with_partitions`` was called with.

        It commits where the new partitions start, which blocks as long as Arroyo's commit does, and publishes that. The
        ``orig_message_ts`` of such a report is the wall clock's time, since the message before isn't known.
        """
        check_callable("commit", commit, "the function that Arroyo hands to create_with_partitions")
        check_positions("partitions", partitions)
        if self._questions is None and not self._is_blindness_told:
            self._is_blindness_told = True
            logger.warning(
                "Group %s can't ask the brokers of its data topic, since its producer, a %s, doesn't show its "
                "settings: its reports carry no topic id, and an idle partition that had another owner meanwhile may "
                "be silent. Give CommitLogPublisher data_configuration",
                self._shared.group,
                type(self._producer).__name__,
            )
        previous = self._step
        if previous is not None and not previous.has_ended:
            # Its partitions may still be somebody's: they are remembered, so the brokers decide where they start.
            logger.warning(
                "The step of group %s was made anew before the last one was joined, which publishes nothing more: "
                "make a CommitLogPublisher for each StreamProcessor, and let every step join the next one",
                self._shared.group,
            )
            previous.terminate()
            for partition, queued in self._queue.partitions.items():
                if partition not in partitions:  # somebody else's, unless it is that other step's
                    self._queue.mark_unclear(queued)
        else:
            # No lock is needed for the queue: between two steps there is no other thread.
            self._forget_if_long_ago(previous)
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
        before = {} if previous is None else previous.uncommitted_starts
        # A lower offset than before is where it is read from now: of a new topic, or since the pipeline went back.
        starts_before = {each: min(before[each], partitions[each]) for each in in_question if each in before}
        self._step = PublishStep(commit, self._shared, starts, starts_before)
        unclear = frozenset(in_question)
        if self._questions is not None:  # after the starts are committed, which is what a topic's id is believed by
            begins = {each: None if each in unclear else offset for each, offset in partitions.items()}
            self._questions.ask({partition.topic.name for partition in partitions}, in_question, begins)
        return self._step

    def _forget_if_long_ago(self, previous: PublishStep | None) -> None:
        """After a while without partitions a topic of that name may be another one, and its offsets, too."""
        if previous is None or previous.ended_at is None or self._shared.clock() - previous.ended_at < FORGET_SECONDS:
            return
        self._queue.keep_only(())
        if self._questions is not None:
            self._questions.forget()


class PublishCommitLog(PublishStep):
    """The step without a publisher: it reports only what it commits itself, and no topic's id.

    So a partition that is idle since its assignment isn't reported: use `CommitLogPublisher`, which takes the same
    arguments but for ``commit``, and ``data_configuration`` beside.

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
        super().__init__(commit, publisher._shared, {}, {})


def _check_settings(settings: Mapping[str, Any], group: str) -> None:
    """Return if a producer of these settings says what becomes of each record. One that says it late is warned of.

    :raises ConfigurationError: it doesn't.
    """
    if tells_only_failures(settings):
        raise ConfigurationError(
            f"the producer has {ONLY_ERRORS_SETTING}=True, and tells nothing of a report that arrives: each would be "
            "waited for until it must have failed, and nothing published meanwhile. Leave the setting out"
        )
    name, seconds = linger_of(settings)
    if seconds > MAX_LINGER_SECONDS:
        logger.warning(
            "%s=%g keeps each report of group %s in its producer for that time: followers wait for it, each rebalance "
            "and each end of this leader takes up to %g s longer, and the log says that its last offsets were not "
            "confirmed, which arrive later. Leave it out, or give %g at most",
            name,
            seconds * 1000,
            group,
            FINISH_SECONDS,
            MAX_LINGER_SECONDS * 1000,
        )


def _settings_of(producer: Producer[KafkaPayload]) -> Mapping[str, Any] | None:
    """The settings that the producer was made with, if it shows them: Arroyo's ``KafkaProducer`` does."""
    settings = producer_settings(producer)
    if settings is None:
        return None
    # Two clients can't have it at a time.
    return {name: value for name, value in settings.items() if name != "transactional.id"}
