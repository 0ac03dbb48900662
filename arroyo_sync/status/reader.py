"""Reads from the brokers how a follower and its leaders stand. It joins no group and writes nothing.

Guarantees
    - What it shows of one partition fits together: commits are asked for first, then what leaders published is read,
      and the ends last, so that an offset is never past the next one because it was asked for earlier.
    - What the follower doesn't believe of a leader isn't believed here, see `answers/leader.py`.
    - Answers are partial: a broker that is down costs its own partitions an answer, and a group's coordinator that
      group. `PartitionSnapshot.error` says so.
    - Every call to the brokers has a time limit.

Threads: one calls it. Groups are asked side by side, on threads that end with the answer; the `CommitLogConsumer` that
reads the commit log has its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any

from arroyo.types import Topic
from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Consumer, KafkaError, KafkaException, TopicPartition

from arroyo_sync.core.checks import check_group, check_topic_name
from arroyo_sync.core.errors import ConfigurationError
from arroyo_sync.core.source import LeaderOffset
from arroyo_sync.core.state import PartitionKey, SynchronizedPartitionStateManager
from arroyo_sync.kafka.client_settings import check_configuration, reader_settings, servers_of
from arroyo_sync.kafka.errors import ClientErrors, is_fatal, is_fatal_for_reading
from arroyo_sync.kafka.making_clients import make_client
from arroyo_sync.kafka.questions.asker import GRACE_SECONDS, Asker, PartitionRange
from arroyo_sync.kafka.questions.first_answer import FirstAnswer
from arroyo_sync.kafka.questions.topic_watch import NO_TOPIC_IDS
from arroyo_sync.leaders.commit_log.consumer import CommitLogConsumer
from arroyo_sync.observe.snapshot import NextMessage, PartitionSnapshot, Snapshot, in_order
from arroyo_sync.status.answers.leader import Known, known_id, leader_snapshot, names_topic_id, needs_first_message
from arroyo_sync.status.answers.log_records import GroupsOnLog, reported_since
from arroyo_sync.status.check import Reported
from arroyo_sync.status.commit_log import (
    ASK_TIMEOUT_SECONDS,
    PARTIAL_TIMEOUT_SECONDS,
    STOP_TIMEOUT_SECONDS,
    LogScan,
    wait_for_partitions,
)

FETCH_TIMEOUT_SECONDS = 3.0
RETRY_SECONDS = 0.1
ELECTION_SECONDS = 3.0
"""For how long a partition is asked about again that nobody leads: a new leader is found within two or so."""
MAX_TAIL_RECORDS = 50_000
"""Of the commit log, to see for how long a group has reported the same offset: about a second's work."""

FETCH_SETTINGS = {
    "auto.offset.reset": "earliest",
    # One message of each partition is wanted; a broker sends at least one, however large.
    "max.partition.fetch.bytes": 65_536,
    "queued.min.messages": 1,
}


@dataclass(frozen=True)
class StatusQuery:
    """What to look at. Settings are librdkafka's; ``repr`` doesn't show them."""

    topic: str
    follower_group: str
    leader_groups: tuple[str, ...]
    settings: Mapping[str, Any] = field(repr=False)
    """Of the cluster of the data topic and the groups."""
    commit_log: str | None = None
    """``None``: the leaders publish none, what they commit on the broker counts."""
    commit_log_settings: Mapping[str, Any] | None = field(default=None, repr=False)
    """Of the commit log's cluster, if it is another one."""
    reads_all: bool = True
    """Whether the whole commit log is read, or only its last ten minutes."""
    timeout: float = 30.0
    """Seconds for each of: connecting, reading the commit log."""


class StatusReader:
    """Reads a follower's status; `close` ends its clients.

    :raises ConfigurationError: no brokers, no groups, an empty name, or librdkafka refuses a setting.
    :raises BrokersUnreachable: there was no token to log in with.
    """

    def __init__(self, query: StatusQuery, wall_clock: Callable[[], float] = time.time) -> None:
        check_configuration("the settings", query.settings)
        check_topic_name("topic", query.topic)
        check_group("follower_group", query.follower_group)
        self._query = query
        self.timeout = query.timeout
        """Seconds for each of: connecting, reading the commit log."""
        self._wall_clock = wall_clock
        self._errors = ClientErrors()
        self._commit_log = self._make_commit_log()
        settings = {**reader_settings(query.settings, self._errors.add), **FETCH_SETTINGS}
        self._consumer = make_client(Consumer, settings)
        self._asker = Asker(query.settings, self._errors.add)
        self._manager = SynchronizedPartitionStateManager()  # the source wants one; nobody looks at it
        self._ends: Mapping[PartitionKey, int] = {}

    def __enter__(self) -> StatusReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the clients."""
        if self._commit_log is not None:
            self._commit_log.stop(STOP_TIMEOUT_SECONDS)
        self._asker.stop(STOP_TIMEOUT_SECONDS)
        self._consumer.close()

    def read(self) -> Snapshot:
        """How everything stands now. Blocks; the first call until the commit log was read.

        :raises BrokersUnreachable: no broker answered in time.
        :raises KafkaException: the brokers refuse to tell, for want of a permission or of the right password.
        :raises TopicMissing: the data topic doesn't exist.
        :raises SourceDied: the commit log can't be read, see its cause.
        :raises NotReady: it wasn't read in time.
        """
        indexes = self._connect()
        if self._commit_log is not None:
            self._commit_log.subscribe(self._query.topic)
            self._commit_log.start(self._manager)
            self._commit_log.wait_until_ready(self.timeout)
        topic = self._query.topic
        keys = [(topic, index) for index in indexes]
        commits = self._ask_commits(keys)
        published = None if self._commit_log is None else self._commit_log.published()
        topic_id = None if published is None else self._ask_topic_id(published)
        ranges = self._ask_ranges(keys)
        now = self._wall_clock()
        suspects = {
            key: ranges[key]
            for key in keys
            for group, latest in (published or {}).get(key, {}).items()
            if needs_first_message(group, latest, commits[group][key], Known(key, ranges[key], topic_id, now))
        }
        ranges.update(self._with_first_messages(suspects))
        self._ends = {key: each.end for key, each in ranges.items() if isinstance(each, PartitionRange)}
        is_empty = all(isinstance(each, PartitionRange) and each.begin == each.end for each in ranges.values())
        partitions = (
            self._partition(
                Known(key, ranges[key], topic_id, now),
                {group: of_group[key] for group, of_group in commits.items()},
                None if published is None else published.get(key, {}),
                is_topic_empty=is_empty,
            )
            for key in keys
        )
        source = None if self._commit_log is None else self._commit_log.statistics()
        return Snapshot(taken_at=now, partitions=in_order(partitions), source=source, topic_id=known_id(topic_id))

    def find_messages(self, positions: Mapping[PartitionKey, int]) -> dict[PartitionKey, NextMessage]:
        """The first message at or past each position. Blocks for at most three seconds.

        Where it couldn't be fetched in time, `NextMessage.error` says why. The partition's end, as `read` has told it,
        tells whether a transaction that is open hides the rest.
        """
        wanted = dict(positions)
        errors: dict[int | None, str] = {}  # ``None``: of all partitions
        found: dict[PartitionKey, NextMessage] = {}
        self._consumer.assign([TopicPartition(*key, offset) for key, offset in wanted.items()])
        deadline = time.monotonic() + FETCH_TIMEOUT_SECONDS
        while wanted and time.monotonic() < deadline:
            message = self._consumer.poll(0.1)
            if message is None:
                continue
            error, key = message.error(), (message.topic() or "", message.partition() or 0)
            if error is not None and error.code() != KafkaError._PARTITION_EOF:
                errors[message.partition()] = error.str()
                continue
            if wanted.pop(key, None) is None:
                continue
            self._consumer.incremental_unassign([TopicPartition(*key)])
            if error is not None:
                found[key] = NextMessage(None, open_from=_open_from(message.offset(), self._ends.get(key)))
                continue
            kind, timestamp_ms = message.timestamp()
            written_at = timestamp_ms / 1000 if kind != TIMESTAMP_NOT_AVAILABLE and timestamp_ms > 0 else None
            found[key] = NextMessage(message.offset(), written_at)
        self._consumer.unassign()
        silence = errors.get(None, f"no answer within {FETCH_TIMEOUT_SECONDS:g} s")
        return found | {key: NextMessage(None, error=errors.get(key[1], silence)) for key in wanted}

    def groups_on_log(self) -> GroupsOnLog:
        """The groups that have reported on the commit log of the data topic; none if there is no commit log.

        Of a log that can't be read within the timeout they are those that were met so far.
        """
        if self._query.commit_log is None:
            return GroupsOnLog(())
        deadline, names = time.monotonic() + self.timeout, set()
        with self._log_scan(self._query.commit_log) as scan:
            for record in scan.read_to_end():
                if record.topic == self._query.topic and record.group is not None and record.refused is None:
                    names.add(record.group)
                if time.monotonic() >= deadline:
                    return GroupsOnLog(names, is_all=False)
            return GroupsOnLog(names, is_all=not scan.missing)

    def reported_since(self, since: float) -> Reported:
        """What the end of the commit log tells of how long the groups have reported the same; see `check.Reported`.

        Nothing, if there is no commit log.

        :param since: Unix seconds; what was written before isn't read.
        """
        if self._query.commit_log is None:
            return {}
        with self._log_scan(self._query.commit_log) as scan:
            records = list(scan.read_to_end(since, MAX_TAIL_RECORDS))
            found = reported_since(records, self._wall_clock(), scan.cut)
            return {} if scan.missing else found  # what wasn't read may hold another offset

    def _log_scan(self, commit_log: str) -> LogScan:
        return LogScan(self._query.commit_log_settings or self._query.settings, commit_log, self.timeout)

    def _make_commit_log(self) -> CommitLogConsumer | None:
        query = self._query
        if query.commit_log is None:
            if not query.leader_groups:
                raise ConfigurationError("name at least one leader group")
            return None
        return CommitLogConsumer(
            query.settings if query.commit_log_settings is None else query.commit_log_settings,
            topic=Topic(query.commit_log),
            groups=query.leader_groups,
            start="all" if query.reads_all else "recent",
            data_configuration=query.settings,
            connect_timeout=query.timeout,
        )

    def _connect(self) -> list[int]:
        """The data topic's partitions, once a broker answers."""
        settings = self._query.settings
        first_answer = FirstAnswer(settings, self.timeout, self._errors)
        return wait_for_partitions(self._consumer, self._query.topic, servers_of(settings), first_answer)

    def _ask_commits(self, keys: list[PartitionKey]) -> dict[str, Mapping[PartitionKey, int | KafkaError | None]]:
        """What each group has committed on the brokers, the follower's among them."""
        groups = sorted({self._query.follower_group, *self._query.leader_groups})
        with ThreadPoolExecutor(len(groups), "arroyo-sync status") as pool:
            answers = list(pool.map(lambda group: self._ask_commits_of(group, keys), groups))
        return dict(zip(groups, answers, strict=True))

    def _ask_commits_of(self, group: str, keys: list[PartitionKey]) -> Mapping[PartitionKey, int | KafkaError | None]:
        """Blocks until there is an answer for each, or for the timeout.

        :raises KafkaException: the brokers refuse to tell.
        """
        deadline = time.monotonic() + min(self.timeout, PARTIAL_TIMEOUT_SECONDS)
        while True:
            answers = self._asker.committed(group, keys, max(RETRY_SECONDS, deadline - time.monotonic()))
            errors = [each for each in answers.values() if isinstance(each, KafkaError)]
            refusals = [error for error in errors if is_fatal_for_reading(error)]
            if refusals and self._is_only_shown(group):
                return answers
            if refusals:
                raise KafkaException(refusals[0])
            if not errors or time.monotonic() >= deadline:
                return answers
            time.sleep(RETRY_SECONDS)

    def _ask_ranges(self, keys: list[PartitionKey]) -> dict[PartitionKey, PartitionRange | KafkaError]:
        """Where they begin and end. Of a partition without a leader the error comes at once, so it is asked again."""
        deadline = time.monotonic() + min(self.timeout, ELECTION_SECONDS)
        ranges = self._asker.ranges(keys, min(self.timeout, PARTIAL_TIMEOUT_SECONDS))
        while (left := [key for key in keys if _may_be_told(ranges[key])]) and time.monotonic() < deadline:
            time.sleep(RETRY_SECONDS)
            ranges.update(self._asker.ranges(left, max(RETRY_SECONDS, deadline - time.monotonic())))
        return ranges

    def _ask_topic_id(self, published: Mapping[PartitionKey, Mapping[str, LeaderOffset]]) -> str | KafkaError | None:
        """``None``: the brokers know no ids, or don't permit to ask. Asked again where a report can't do without."""
        is_needed = any(names_topic_id(of_groups) for of_groups in published.values())
        timeout = min(self.timeout, PARTIAL_TIMEOUT_SECONDS if is_needed else ASK_TIMEOUT_SECONDS)
        deadline = time.monotonic() + timeout
        while True:
            left = max(RETRY_SECONDS, deadline - time.monotonic())
            answer = self._asker.topic_ids([self._query.topic], left)[self._query.topic]
            if isinstance(answer, str):
                return answer
            if answer.code() in NO_TOPIC_IDS:
                return None
            if is_fatal(answer) or time.monotonic() >= deadline:
                return answer
            time.sleep(RETRY_SECONDS)

    def _with_first_messages(
        self, ranges: Mapping[PartitionKey, PartitionRange | KafkaError]
    ) -> dict[PartitionKey, PartitionRange]:
        """These, asked anew with the time of the first message. Where that isn't told, it says so."""
        known = {key: each for key, each in ranges.items() if isinstance(each, PartitionRange)}
        found = {key: each._replace(is_first_known=False) for key, each in known.items()}
        left = set(known)
        if not left:
            return found
        timeout = min(self.timeout, PARTIAL_TIMEOUT_SECONDS)
        deadline = time.monotonic() + timeout + GRACE_SECONDS
        answers: SimpleQueue[Mapping[PartitionKey, PartitionRange | KafkaError]] = SimpleQueue()
        self._asker.ask_ranges(sorted(left), timeout, answers.put)
        while left:
            try:
                answered = answers.get(timeout=max(0.0, deadline - time.monotonic()))
            except Empty:
                break
            told = {key: each for key, each in answered.items() if isinstance(each, PartitionRange)}
            found.update(told)
            left -= answered.keys() - {key for key, each in told.items() if each.is_look_up_pending}
        self._asker.poll()
        return found

    def _is_only_shown(self, group: str) -> bool:
        """Whether nothing follows from what the group has committed: a leader whose reports are all read."""
        reads_reports = self._commit_log is not None and self._query.reads_all
        return reads_reports and group != self._query.follower_group

    def _partition(
        self,
        known: Known,
        commits: Mapping[str, int | KafkaError | None],
        published: Mapping[str, LeaderOffset] | None,
        *,
        is_topic_empty: bool = False,
    ) -> PartitionSnapshot:
        leaders, range = [], known.range
        errors = [] if isinstance(range, PartitionRange) else [f"where it ends: {range.str()}"]
        end = range.end if isinstance(range, PartitionRange) else None
        if isinstance(known.topic_id, KafkaError) and names_topic_id(published or {}):
            errors.append(f"the topic's id, which a report names: {known.topic_id.str()}")
        for group in sorted(self._query.leader_groups):
            commit = commits[group]
            latest = None if published is None else published.get(group)
            if latest is None and (commit is not None or is_topic_empty) and not self._is_only_shown(group):
                # Nothing was published, or not lately: what it has committed counts. Nothing at all is right only where
                # there is nothing, in any partition.
                latest = LeaderOffset(None if isinstance(commit, KafkaError) else commit, -1, 0.0)
                if isinstance(commit, KafkaError):
                    errors.append(f"what group {group!r} has committed: {commit.str()}")
            leaders.append(leader_snapshot(group, latest, commit, known))
        offsets = [None if leader.is_rejected else leader.published_offset for leader in leaders]
        published_offsets = [offset for offset in offsets if offset is not None]
        local = commits[self._query.follower_group]
        if isinstance(local, KafkaError):
            errors.append(f"what group {self._query.follower_group!r} has committed: {local.str()}")
        return PartitionSnapshot(
            *known.key,
            local_offset=None if isinstance(local, KafkaError) else local,
            remote_offset=min(published_offsets) if len(published_offsets) == len(offsets) > 0 else None,
            low_watermark=range.begin if isinstance(range, PartitionRange) else None,
            high_watermark=end,
            leaders=tuple(leaders),
            error="; ".join(errors) or None,
        )


def _open_from(read_to: int | None, end: int | None) -> int | None:
    """A consumer that sees committed messages alone is at its end before the first transaction that is open."""
    return read_to if read_to is not None and end is not None and read_to < end else None


def _may_be_told(answer: PartitionRange | KafkaError) -> bool:
    """Whether it isn't an answer, and another question may have one."""
    return isinstance(answer, KafkaError) and not is_fatal(answer)
