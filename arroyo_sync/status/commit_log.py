"""Reads a commit log record by record, for people: ``arroyo-sync groups`` and ``arroyo-sync tail``.

Every record is shown, also those that a follower refuses. It is in no group and commits nothing. A log partition whose
broker is down, or that no longer holds where it is read, costs its own records alone; `LogScan.missing` names it.

Threads: for one thread. Every call to the brokers has a time limit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from arroyo_sync.core.errors import BrokersUnreachable, MalformedRecord, TopicMissing
from arroyo_sync.kafka.client_settings import (
    check_configuration,
    concerns_group,
    reader_settings,
    servers_of,
)
from arroyo_sync.kafka.errors import POSITION_IS_GONE, ClientErrors, is_fatal
from arroyo_sync.kafka.headers import headers_of
from arroyo_sync.kafka.making_clients import make_client
from arroyo_sync.kafka.questions.asker import Asker
from arroyo_sync.kafka.questions.first_answer import FirstAnswer
from arroyo_sync.leaders.commit_log.log_topic import RangeQuestions, list_partitions
from arroyo_sync.leaders.commit_log.record import CommitRecord, Skipped, decode, decode_key, decode_topic_id
from arroyo_sync.leaders.commit_log.replay import OffsetRange
from arroyo_sync.status.answers.log_records import LogRecord

ASK_TIMEOUT_SECONDS = 1.0
PARTIAL_TIMEOUT_SECONDS = 10.0
"""For an answer that may be missing: the others are shown without it."""
PARTITIONS_SECONDS = 30.0
"""How often added partitions are looked for."""
POLL_SECONDS = 0.1
STOP_TIMEOUT_SECONDS = 5.0


class LogScan:
    """Use it in a ``with`` statement.

    :param timeout: seconds to connect, and without any record, while the end isn't reached.
    :param clock: monotonic seconds.
    :raises ConfigurationError: no brokers, or librdkafka refuses a setting.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        topic: str,
        timeout: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        check_configuration("the settings", settings)
        self.missing: dict[int, str] = {}
        """After `read_to_end`: the log partitions that weren't read, or not to their end, and why."""
        self.cut: frozenset[int] = frozenset()
        """After `read_to_end`: those of which not all was read that was wanted, since it was too much."""
        self._settings = settings
        self._servers = servers_of(settings)
        self._topic = topic
        self._timeout = timeout
        self._clock = clock
        self._errors = ClientErrors()
        self._consumer = make_client(Consumer, reader_settings(settings, self._errors.add))
        self._asker = Asker(settings, self._errors.add)
        # Of each partition, where to read on.
        self._positions: dict[int, int] = {}

    def __enter__(self) -> LogScan:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._asker.stop(STOP_TIMEOUT_SECONDS)
        self._consumer.close()

    def read_to_end(self, since: float | None = None, at_most: int | None = None) -> Iterator[LogRecord]:
        """Every record up to where the log ended at the start, each partition's in their order.

        :param since: Unix seconds; without the records before, by their timestamps.
        :param at_most: about so many, the last ones of each partition.
        :raises BrokersUnreachable: no broker answered, or nothing came at all, in time.
        :raises TopicMissing: there is no such topic.
        :raises KafkaException: the brokers refuse to tell.
        """
        ranges = self._ask_ranges(self._connect(), since)
        if at_most is not None:
            most = at_most // max(1, len(ranges))
            self.cut = frozenset(each for each, (start, end) in ranges.items() if end - start > most)
            ranges = {each: OffsetRange(max(start, end - most), end) for each, (start, end) in ranges.items()}
        left = {partition: range_ for partition, range_ in ranges.items() if range_.start < range_.end}
        self._positions = dict.fromkeys(self.missing, OFFSET_END) | {each: start for each, (start, _) in ranges.items()}
        self._assign(left)
        deadline = self._clock() + self._timeout
        has_any = len(left) < len(ranges)
        while left:
            message = self._poll()
            if message is None:
                if self._clock() < deadline:
                    continue
                reason = f"nothing came for {self._timeout:g} s"
                if not has_any:
                    raise BrokersUnreachable(f"{self._topic}: {reason} from {self._servers}")
                self.missing.update(dict.fromkeys(left, reason))
                return
            deadline = self._clock() + self._timeout
            has_any = True
            partition, offset = message.partition() or 0, message.offset() or 0
            range_ = left.get(partition)
            error = message.error()
            is_record = error is None
            if range_ is None:
                continue
            if error is not None and error.code() in POSITION_IS_GONE:
                self.missing[partition] = error.str()
                self._positions[partition] = OFFSET_BEGINNING
                del left[partition]
                continue
            self._positions[partition] = min(range_.end, offset + (1 if is_record else 0))
            if self._positions[partition] == range_.end:
                del left[partition]
            if is_record and offset < range_.end:
                yield record_of(message)

    def follow(self, tell: Callable[[str], None]) -> Iterator[LogRecord]:
        """After `read_to_end`: what is written from then on, without end. Brokers that are away are waited for.

        A partition that is added is read from its beginning, and so is one that no longer holds where it was read.

        :param tell: is given a line about the latter.
        """
        self._assign(self._positions)
        look_at = self._clock() + PARTITIONS_SECONDS
        while True:
            message = self._poll()
            if self._clock() >= look_at:
                self._find_added()
                look_at = self._clock() + PARTITIONS_SECONDS
            error = None if message is None else message.error()
            if message is not None and error is None:
                yield record_of(message)
            elif message is not None and error is not None and error.code() in POSITION_IS_GONE:
                partition = message.partition() or 0
                tell(f"{self._topic}[{partition}] is read from its beginning: {error.str()}")
                # librdkafka has stopped it, and refuses to seek.
                self._consumer.incremental_unassign([TopicPartition(self._topic, partition)])
                self._add([partition])

    def _find_added(self) -> None:
        try:
            partitions = list_partitions(self._consumer, self._topic, ASK_TIMEOUT_SECONDS)
        except KafkaException:  # as while the brokers are away
            return
        self._add(set(partitions) - self._positions.keys())

    def _add(self, partitions: Iterable[int]) -> None:
        """Read these, too, each from its beginning."""
        self._positions.update(dict.fromkeys(partitions, OFFSET_BEGINNING))
        self._consumer.incremental_assign([TopicPartition(self._topic, each, OFFSET_BEGINNING) for each in partitions])

    def _assign(self, partitions: Iterable[int]) -> None:
        self._consumer.assign([TopicPartition(self._topic, each, self._positions[each]) for each in partitions])

    def _poll(self) -> Message | None:
        """A record, or that a partition's end was met, or its position is gone. Other errors are ridden out.

        :raises KafkaException: what can't be, such as a login that is refused from now on.
        """
        message = self._consumer.poll(POLL_SECONDS)
        self._errors.raise_fatal()
        error = None if message is None else message.error()
        if error is None or error.code() == KafkaError._PARTITION_EOF or error.code() in POSITION_IS_GONE:
            return message
        if is_fatal(error) and not concerns_group(error):
            raise KafkaException(error)
        return None

    def _connect(self) -> list[int]:
        """The log's partitions, once a broker answers."""
        first_answer = FirstAnswer(self._settings, self._timeout, self._errors, clock=self._clock)
        return wait_for_partitions(self._consumer, self._topic, self._servers, first_answer)

    def _ask_ranges(self, partitions: Collection[int], since: float | None) -> dict[int, OffsetRange]:
        """From where to where the partitions are to be read. Those whose brokers don't answer are `missing`."""
        questions = RangeQuestions(self._asker, self._topic)
        questions.restart(() if since is None else partitions)
        began_at = self._clock()
        first_answer = FirstAnswer(self._settings, self._timeout, self._errors, clock=self._clock)
        ranges: dict[int, OffsetRange] = {}
        errors: dict[int, KafkaError] = {}
        while left := [each for each in partitions if each not in ranges]:
            questions.ask(left, round((since or 0.0) * 1000), ASK_TIMEOUT_SECONDS)
            self._consumer.poll(POLL_SECONDS)  # nothing is assigned: it waits, and hears of errors
            answered, failed = questions.take()
            ranges |= answered
            errors |= failed
            for error in failed.values():
                if is_fatal(error):  # all else passes, also what librdkafka calls "No leaders found" (_NOENT)
                    raise KafkaException(error)
            if not answered and ranges and self._clock() - began_at >= min(self._timeout, PARTIAL_TIMEOUT_SECONDS):
                break
            if not ranges and failed:
                first_answer.failed(KafkaException(next(iter(failed.values()))))
        self.missing = {each: errors[each].str() if each in errors else "no answer" for each in left}
        return ranges


def wait_for_partitions(consumer: Consumer, topic: str, servers: str, first_answer: FirstAnswer) -> list[int]:
    """The topic's partitions. Blocks until a broker answers.

    :param consumer: tells ``first_answer`` by the way what is wrong.
    :raises BrokersUnreachable, KafkaException: see `FirstAnswer.failed`.
    :raises TopicMissing: there is no such topic.
    """
    while True:
        try:
            partitions = list_partitions(consumer, topic, ASK_TIMEOUT_SECONDS)
        except KafkaException as error:
            consumer.poll(0)  # the client tells more by the way than its answer does
            first_answer.failed(error)
            continue
        if not partitions:
            raise TopicMissing(f"topic {topic!r} doesn't exist at {servers}: is the name right?")
        return partitions


def record_of(message: Message) -> LogRecord:
    """What a record says, or why it is refused. Raises for no record."""
    kind, timestamp_ms = message.timestamp()
    place = message.partition() or 0, message.offset() or 0, None if kind == TIMESTAMP_NOT_AVAILABLE else timestamp_ms
    headers = headers_of(message) or []
    decoded = decode(_bytes(message.key()), _bytes(message.value()), headers)
    if isinstance(decoded, Skipped):
        topic, partition, group = _key_of(message)
        refused = f"{decoded.reason.value}: {decoded.detail}"
        return LogRecord(*place, topic, partition, group, refused=refused)
    if isinstance(decoded, CommitRecord):
        return LogRecord(
            *place,
            decoded.topic,
            decoded.partition,
            decoded.group,
            decoded.offset,
            decoded.orig_message_ts,
            decoded.received_p99,
            decode_topic_id(headers),
        )
    return LogRecord(*place, decoded.key.topic, decoded.key.partition, decoded.key.group)


def _key_of(message: Message) -> tuple[str, int, str] | tuple[None, None, None]:
    """Whom a refused record is about: the topic, the partition and the group; ``None``, if its key can't be read."""
    try:
        key = decode_key(_bytes(message.key()))
    except MalformedRecord:
        return None, None, None
    return key.topic, key.partition, key.group


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value
