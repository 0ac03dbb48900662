"""What the package did before, put back piece by piece: each fault that was found in it in other people's worlds.

`OLD_BEHAVIOURS` is part of what `tests.support.sabotage` can apply, by the same names. `tests/chaos/old_behaviour.py`
has what finds each of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext, suppress
from functools import wraps
from typing import Any, NamedTuple

from confluent_kafka import IsolationLevel, KafkaError, KafkaException

from arroyo_sync.core.state import PartitionKey
from arroyo_sync.gate import factory, partition_buffer
from arroyo_sync.gate.consumer import beginning_questions, rebalances, replaced_log, start_positions
from arroyo_sync.gate.consumer.pauses import Pauses
from arroyo_sync.gate.consumer.rebalances import Rebalances
from arroyo_sync.gate.consumer.start_positions import StartPositions
from arroyo_sync.gate.partition_buffer import PartitionBuffer
from arroyo_sync.gate.partition_buffers import PartitionBuffers
from arroyo_sync.gate.strategy import SynchronizedStrategy
from arroyo_sync.kafka import making_clients
from arroyo_sync.kafka.arroyo_consumer import PRIVATE_ATTRIBUTES, client_of, reset_offset, uses_auto_commit
from arroyo_sync.kafka.questions import cluster_client
from arroyo_sync.kafka.questions.asker import Asker, PartitionRange
from arroyo_sync.kafka.questions.broker_watch import BrokerWatch
from arroyo_sync.kafka.questions.topic_watch import ClusterWatch, TopicWatch
from arroyo_sync.leaders import published_offset, verification
from arroyo_sync.leaders.assigned_partitions import AssignedPartitions, Question, Truncation
from arroyo_sync.leaders.commit_log import record
from arroyo_sync.leaders.commit_log.batch_decoder import BatchDecoder
from arroyo_sync.leaders.commit_log.contents import LogContents
from arroyo_sync.leaders.commit_log.log_topic import FetchCheck
from arroyo_sync.leaders.commit_log.plausible_timestamps import PlausibleTimestamps
from arroyo_sync.leaders.commit_log.publishing import report_writer
from arroyo_sync.leaders.commit_log.publishing.publish_step import PublishStep
from arroyo_sync.leaders.commit_log.publishing.received_times import ReceivedTimes
from arroyo_sync.leaders.commit_log.recent_start import RecentStart
from arroyo_sync.leaders.leader_log import RewindLog, _Pending
from arroyo_sync.leaders.verification import KnownEnd
from arroyo_sync.leaders.verifier import Verifier
from arroyo_sync.observe import problems


class Patch(NamedTuple):
    owner: Any
    name: str
    replacement: object


# What the leaders have committed.


def _believes_an_earlier_topic() -> list[Patch]:
    """Whatever is written in the commit log counts, if the partition reaches that far."""
    verify = verification.verify

    def believing(report: Any, known_end: Any, topic_id: Any, **more: Any) -> Any:
        return verify(report._replace(topic_id=None), known_end, topic_id, **more)

    return [
        Patch(published_offset, "verify", believing),
        Patch(verification, "_is_suspect", lambda report, answer, offset: False),
        *_reads_on_in_a_new_topic(),
    ]


def _reads_on_in_a_new_topic() -> list[Patch]:
    """A topic's id is asked once: that it is another one later is nobody's business."""

    apply = TopicWatch._apply

    def first_alone(watch: TopicWatch, answers: Mapping[str, str | KafkaError]) -> None:
        apply(watch, {topic: watch.ids.get(topic, answer) for topic, answer in answers.items()})

    return [Patch(TopicWatch, "_apply", first_alone), *_asks_no_more_as_it_ends()]


def _never_takes_an_end_back() -> list[Patch]:
    """A partition that was truncated still counts as long as it was."""
    return [Patch(AssignedPartitions, "_lower", lambda partitions, key, known_end, answer, question: None)]


def _takes_an_alias_of_a_key() -> list[Patch]:
    """A partition's index with leading zeros is the same index."""
    return [Patch(record, "_KEY", re.compile(rb"([^:]+):([0-9]+):(.+)", re.DOTALL))]


def _believes_timestamps_from_the_future() -> list[Patch]:
    return [Patch(PlausibleTimestamps, "of", lambda timestamps, message: (message.timestamp()[1], False))]


def _counts_a_seek_as_received() -> list[Patch]:
    """What was sought is told to the source as if it had been read."""

    def note_received(buffer: PartitionBuffer) -> None:
        buffer.cell.received = buffer.expected

    return [Patch(PartitionBuffer, "note_received", note_received)]


def _asks_all_or_none() -> list[Patch]:
    """A question about several partitions is answered when the last broker answers, and for none if one doesn't."""
    ask_ranges = Asker.ask_ranges

    def all_or_none(
        asker: Any, partitions: Collection[Any], timeout: float, on_answer: Callable[[Any], None], **how: Any
    ) -> None:
        answers: dict[Any, Any] = {}

        def gather(some: Mapping[Any, Any]) -> None:
            answers.update(some)
            if len(answers) == len(set(partitions)) and not any(
                isinstance(each, PartitionRange) and each.is_look_up_pending for each in answers.values()
            ):
                error = next((each for each in answers.values() if isinstance(each, KafkaError)), None)
                on_answer(answers if error is None else dict.fromkeys(answers, error))

        ask_ranges(asker, partitions, timeout, gather, **how)

    return [Patch(Asker, "ask_ranges", all_or_none)]


def _asks_for_the_last_stable_offset() -> list[Patch]:
    """What lies behind an open transaction doesn't exist."""

    class Committed:
        READ_UNCOMMITTED = IsolationLevel.READ_COMMITTED

    return [Patch(cluster_client, "IsolationLevel", Committed)]


def _reads_all_for_one_partition() -> list[Patch]:
    """A partition without a commit makes a recent start read the whole commit log."""
    take = RecentStart._take

    def take_or_read_all(recent: Any, group: str, answer: Mapping[Any, Any]) -> None:
        take(recent, group, answer)
        if None in answer.values() and not recent._is_over:
            recent._is_over = True
            recent._read_all()

    return [Patch(RecentStart, "_take", take_or_read_all)]


def _keeps_reports_of_any_topic() -> list[Patch]:
    return [Patch(BatchDecoder, "_is_kept", lambda decoder, key: True)]


def _logs_every_rewind() -> list[Patch]:
    def add(log: Any, rewinds: Any) -> None:
        for rewind in rewinds:
            pending = _Pending(rewind)
            pending.add(rewind)
            pending.log()

    return [Patch(RewindLog, "add", add)]


def _takes_any_topic_for_a_commit_log() -> list[Patch]:
    return [Patch(LogContents, "conclude", lambda contents: None)]


def _never_says_that_a_broker_is_back() -> list[Patch]:
    update = BrokerWatch.update

    def forget(watch: Any, answers: Mapping[Any, Any]) -> None:
        for key, error in answers.items():
            if error is None:
                watch._told.discard(key)
        update(watch, answers)

    return [Patch(BrokerWatch, "update", forget)]


# The follower's process.


def _forgets_where_it_began() -> list[Patch]:
    """Where an assignment begins lives in the process's memory alone."""
    return [
        Patch(StartPositions, "commit", lambda start, positions: None),
        Patch(StartPositions, "stage", lambda start, positions: None),
    ]


def _skips_the_new_topic() -> list[Patch]:
    """With ``latest`` a group begins at the end of the new topic, wherever it had begun there."""

    def at_the_end(consumer: Any, partition: Any, timeout: float, *, latest_at_most: int | None = None) -> int:
        return reset_offset(consumer, partition, timeout)

    return [Patch(beginning_questions, "reset_offset", at_the_end)]


def _asks_no_more_as_it_ends() -> list[Patch]:
    """What the follower ends with, or hands over, is of whatever topic it was told of by then."""
    return [Patch(Verifier, "check_topics", lambda verifier, timeout: None)]


def _leaves_it_to_auto_commit() -> list[Patch]:
    """librdkafka is asked to commit what is staged, and does so where that is more than its last commit."""

    def commit_staged(consumer: Any, offsets: object) -> None:
        client = client_of(consumer) if uses_auto_commit(consumer) else None
        if client is None:
            consumer.commit_offsets()
            return
        with suppress(KafkaException):
            client.commit(asynchronous=False)

    return [Patch(each, "commit_staged", commit_staged) for each in (replaced_log, start_positions)]


def _joins_its_backlog_first() -> list[Patch]:
    """Whatever is released is forwarded before the next step is joined, with what is left of the time."""
    join = SynchronizedStrategy.join

    def forward_and_join(gate: Any, timeout: float | None = None) -> None:
        deadline = None if timeout is None else gate._clock() + timeout
        while gate.buffers.released and (deadline is None or gate._clock() < deadline):
            gate.drain.forward_slice()
        join(gate, None if deadline is None else max(0.0, deadline - gate._clock()))

    return [Patch(SynchronizedStrategy, "join", forward_and_join)]


def _weighs_no_headers() -> list[Patch]:
    return [Patch(partition_buffer, "payload_bytes", lambda payload: len(payload.value) + len(payload.key or b""))]


def _takes_its_own_group_for_a_leader() -> list[Patch]:
    return [Patch(factory.SynchronizedStrategyFactory, "_check_group", lambda made, consumer: None)]


def _says_nothing_of_wrappers() -> list[Patch]:
    """What isn't a consumer's message ends the processor with whatever Python says."""

    def raw(gate: Any, message: Any) -> Exception:
        return AttributeError(f"{type(message.value).__name__!r} object has no attribute 'partition'")

    return [Patch(SynchronizedStrategy, "_unexpected", raw)]


def _hides_incremental_rebalances() -> list[Patch]:
    """The processor isn't told of retained partitions, so what it buffered of them lies there twice."""
    subscribe = Rebalances.subscribe

    def hiding(rebalances: Any, topics: Any, on_assign: Any, on_revoke: Any, on_nothing_left: Any) -> None:
        def revoke(partitions: Any) -> None:
            tell = rebalances._inner.tell()
            if on_revoke is not None and set(partitions) >= set(tell):
                on_revoke(partitions)

        subscribe(rebalances, topics, on_assign, revoke, on_nothing_left)

    return [Patch(Rebalances, "subscribe", hiding)]


def _takes_what_was_sought_away() -> list[Patch]:
    """A message that the processor carries over a seek goes on before what was sought."""
    return [Patch(PartitionBuffers, "discard_carried", lambda buffers, partition, offset: None)]


def _keeps_no_secrets() -> list[Patch]:
    return [Patch(factory, "keep_secrets", lambda: None)]


def _checks_no_seconds() -> list[Patch]:
    return [Patch(factory, "check_seconds", lambda *arguments, **more: None)]


def _lifts_no_pauses() -> list[Patch]:
    """What a full buffer of the old gate had paused stays so for the next."""
    return [Patch(Pauses, "begin_anew", lambda pauses, retained: None)]


def _sleeps_after_a_rebalance() -> list[Patch]:
    """What a rebalance leaves here is fetched once librdkafka's thread wakes by itself."""

    def forget(rebalances: Any) -> None:
        rebalances.retained = ()

    return [Patch(Rebalances, "wake_retained", forget)]


def _ends_with_an_added_partition() -> list[Patch]:
    """Arroyo asks where it begins, and the client doesn't know it yet."""
    return [Patch(factory, "wait_for_added_partitions", lambda consumer: None)]


def _lists_topics_in_a_callback() -> list[Patch]:
    """To have the client learn of an added partition at once. The callback after that aborts the process."""

    def look_for_added_partitions(consumer: Any) -> None:
        name, client = PRIVATE_ATTRIBUTES[4], client_of(consumer)
        resolve = getattr(consumer, name, None)
        if client is None or resolve is None:
            return

        def resolve_known(partition: Any) -> Any:
            client.list_topics(partition.topic, timeout=1.0)
            return resolve(partition)

        setattr(consumer, name, wraps(resolve)(resolve_known))

    return [Patch(factory, "wait_for_added_partitions", look_for_added_partitions)]


def _hands_on_what_was_truncated() -> list[Patch]:
    """What is held of it, once the leaders are past what has taken its place."""
    return [Patch(Verifier, "_refuse_lost_messages", lambda verifier, truncations: None)]


def _hands_on_what_was_grown_over() -> list[Patch]:
    """What lies below where a truncated partition ends counted as still there, though it may have grown since."""
    lower = AssignedPartitions._lower

    def lower_of_old(
        assigned: AssignedPartitions, key: PartitionKey, known_end: KnownEnd, answer: PartitionRange, question: Question
    ) -> Truncation:
        truncation = lower(assigned, key, known_end, answer, question)
        is_past = truncation.read_to is not None and truncation.read_to > truncation.end
        return truncation if is_past else truncation._replace(read_to=None)

    return [Patch(AssignedPartitions, "_lower", lower_of_old)]


def _lets_go_of_a_client_in_use() -> list[Patch]:
    """Then the thread that asks it, which may be one of librdkafka's, is the last one."""
    return [Patch(making_clients, "LET_GO_SECONDS", 0.0)]


def _asks_while_it_closes() -> list[Patch]:
    """For the group's commits, of an assignment that lay in the client's queue."""
    return [Patch(rebalances, "declining_assignments", lambda consumer, is_closing: nullcontext())]


def _over_is_its_last_word() -> list[Patch]:
    """Of what comes back, for a quarter of an hour."""
    return [Patch(problems, "RETURN_SECONDS", problems.REMINDER_SECONDS)]


def _waits_for_a_silent_client() -> list[Patch]:
    """A client that fetches the commit log no more says nothing, and is waited for."""
    return [Patch(FetchCheck, "has_stopped", lambda check, consumer, positions: False)]


def _believes_another_cluster() -> list[Patch]:
    """What it says of a topic of that name."""
    return [Patch(ClusterWatch, "check", lambda watch: None)]


def _blames_leaders_while_it_replays() -> list[Patch]:
    """For what they published of an earlier topic, though the newer reports weren't read yet."""
    return [Patch(problems, "_is_replaying", lambda snapshot: False)]


# The leader's step.


def _reports_nothing_at_its_start() -> list[Patch]:
    """A partition is reported with its next commit, and an idle one never."""

    def forget(step: Any) -> None:
        step._starts = {}

    return [Patch(PublishStep, "_commit_starts", forget)]


def _waits_for_a_dead_commit_log() -> list[Patch]:
    """For as long as the pipeline may take."""
    return [Patch(report_writer, "FINISH_SECONDS", 60.0)]


def _takes_nan_for_a_time() -> list[Patch]:
    def raw(received: Any, message: Any) -> list[float]:
        return [float(time) for time in received._timestamps_of(message)]

    return [Patch(ReceivedTimes, "of", raw)]


OLD_BEHAVIOURS: Mapping[str, Callable[[], list[Patch]]] = {
    "believes an earlier topic": _believes_an_earlier_topic,
    "reads on in a new topic": _reads_on_in_a_new_topic,
    "never takes an end back": _never_takes_an_end_back,
    "takes an alias of a key": _takes_an_alias_of_a_key,
    "believes timestamps from the future": _believes_timestamps_from_the_future,
    "counts a seek as received": _counts_a_seek_as_received,
    "asks all or none": _asks_all_or_none,
    "asks for the last stable offset": _asks_for_the_last_stable_offset,
    "reads all for one partition": _reads_all_for_one_partition,
    "keeps reports of any topic": _keeps_reports_of_any_topic,
    "logs every rewind": _logs_every_rewind,
    "takes any topic for a commit log": _takes_any_topic_for_a_commit_log,
    "never says that a broker is back": _never_says_that_a_broker_is_back,
    "forgets where it began": _forgets_where_it_began,
    "skips the new topic": _skips_the_new_topic,
    "asks no more as it ends": _asks_no_more_as_it_ends,
    "leaves it to auto-commit": _leaves_it_to_auto_commit,
    "joins its backlog first": _joins_its_backlog_first,
    "weighs no headers": _weighs_no_headers,
    "takes its own group for a leader": _takes_its_own_group_for_a_leader,
    "says nothing of wrappers": _says_nothing_of_wrappers,
    "hides incremental rebalances": _hides_incremental_rebalances,
    "takes what was sought away": _takes_what_was_sought_away,
    "keeps no secrets": _keeps_no_secrets,
    "checks no seconds": _checks_no_seconds,
    "lifts no pauses": _lifts_no_pauses,
    "sleeps after a rebalance": _sleeps_after_a_rebalance,
    "ends with an added partition": _ends_with_an_added_partition,
    "lists topics in a callback": _lists_topics_in_a_callback,
    "hands on what was truncated": _hands_on_what_was_truncated,
    "hands on what was grown over": _hands_on_what_was_grown_over,
    "lets go of a client in use": _lets_go_of_a_client_in_use,
    "asks while it closes": _asks_while_it_closes,
    "over is its last word": _over_is_its_last_word,
    "blames leaders while it replays": _blames_leaders_while_it_replays,
    "waits for a silent client": _waits_for_a_silent_client,
    "believes another cluster": _believes_another_cluster,
    "reports nothing at its start": _reports_nothing_at_its_start,
    "waits for a dead commit log": _waits_for_a_dead_commit_log,
    "takes NaN for a time": _takes_nan_for_a_time,
}
