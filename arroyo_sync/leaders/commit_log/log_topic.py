"""What the brokers tell of the commit-log topic: its partitions, where they begin and end, and whether it is the same.

Threads: for the reading thread. The classes never block; the functions block for at most their ``timeout``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException

from arroyo_sync.core.log_guard import guarded_logger
from arroyo_sync.core.state import PartitionKey
from arroyo_sync.kafka.arroyo_consumer import KafkaWatermarks
from arroyo_sync.kafka.errors import RENEWAL_SECONDS, TOPIC_IS_GONE
from arroyo_sync.kafka.questions.asker import Asker, PartitionRange
from arroyo_sync.kafka.questions.time_lookups import FoundOffset
from arroyo_sync.leaders.commit_log.replay import OffsetRange

logger = guarded_logger(__name__)

IDENTITY_SECONDS = 3.0
"""How often a topic's id is asked for."""
IDENTITY_TIMEOUT_SECONDS = 5.0

WAIT_ADVICE = " Create it, or give wait_for_topic=True to wait for it"
"""At the end of the error of a commit log that doesn't exist, for those who write Python."""

REACHABILITY_SECONDS = 1.0
"""How often the brokers are asked until all of them have answered, and for how long."""

FETCH_CHECK_SECONDS = 10.0
"""How often the brokers' ends are held against those that the reading client has fetched."""
FETCH_CHECK_TIMEOUT_SECONDS = 5.0
UNFETCHED_CHECKS = 9
"""After how many checks, one after the other, a partition counts as fetched no more: longer than librdkafka waits for a
response (``socket.timeout.ms``, a minute) before it tries again by itself. Each new client that doesn't help is given
twice as many as the one before, `MOST_UNFETCHED_CHECKS` at most."""
MOST_UNFETCHED_CHECKS = 60
LATE_SECONDS = 5.0
"""The reading thread comes by several times a second. So long a time in which it didn't is one in which the process was
frozen, or that thread was kept from reading: nothing could be heard then."""


def list_partitions(consumer: Consumer, topic: str, timeout: float) -> list[int]:
    """The topic's partitions. Empty: there is no such topic.

    :raises KafkaException: the brokers didn't answer, or don't permit it.
    """
    metadata = consumer.list_topics(topic, timeout=timeout).topics.get(topic)
    if metadata is None:
        return []
    if metadata.error is not None:
        if metadata.error.code() in TOPIC_IS_GONE:
            return []
        raise KafkaException(metadata.error)
    return sorted(metadata.partitions)


class RangeQuestions:
    """Asks from where to where partitions of the log are to be read, and keeps the answers until they are taken.

    Each partition has its own answer: one whose broker is down keeps no other waiting. It never blocks.

    :param asker: asks the commit log's cluster.
    """

    def __init__(self, asker: Asker, topic: str) -> None:
        self._asker = asker
        self._topic = topic
        # Of each partition the question that isn't answered yet.
        self._asked: dict[int, object] = {}
        # Those that aren't to be read from their beginning.
        self._recent: set[int] = set()
        # Written by the threads that answer, emptied by the reading one; a deque takes both.
        self._answers: deque[tuple[object, int, OffsetRange | KafkaError]] = deque()

    def restart(self, recent: Collection[int]) -> None:
        """Nothing is read yet. Of these the end will do; all others are read from their beginning."""
        self._asked.clear()
        self._recent = set(recent)

    def ask(self, partitions: Collection[int], since_ms: int, timeout: float) -> None:
        """Ask about those whose last question was answered.

        :param since_ms: where "recent" begins, Unix milliseconds.
        """
        self._ask(sorted(self._recent.intersection(partitions)), since_ms, timeout)
        self._ask(sorted(set(partitions) - self._recent), None, timeout)

    def forget(self, partitions: Collection[int]) -> None:
        """These are to be read from their beginning. What was asked about them before doesn't count."""
        self._recent.difference_update(partitions)
        for partition in partitions:
            self._asked.pop(partition, None)

    def begin(self, partition: int, range_: OffsetRange) -> int:
        """From where on to read. "Beginning" rather than its offset, which may be deleted before it is fetched."""
        return range_.start if partition in self._recent else OFFSET_BEGINNING

    def take(self) -> tuple[dict[int, OffsetRange], dict[int, KafkaError]]:
        """What was answered since the last call: the ranges, and of which partitions why there is none."""
        ranges: dict[int, OffsetRange] = {}
        errors: dict[int, KafkaError] = {}
        while self._answers:
            question, partition, answer = self._answers.popleft()
            if self._asked.get(partition) is not question:
                continue
            del self._asked[partition]
            if isinstance(answer, KafkaError):
                errors[partition] = answer
            else:
                ranges[partition] = answer
        return ranges, errors

    def _ask(self, partitions: Collection[int], since_ms: int | None, timeout: float) -> None:
        question = object()
        keys = [(self._topic, partition) for partition in partitions if partition not in self._asked]
        self._asked.update((partition, question) for _, partition in keys)

        def note(key: PartitionKey, answer: OffsetRange | KafkaError) -> None:
            self._answers.append((question, key[1], answer))

        def take_ranges(answers: Mapping[PartitionKey, PartitionRange | KafkaError]) -> None:
            ranges: dict[PartitionKey, OffsetRange] = {}
            for key, each in answers.items():
                if isinstance(each, KafkaError):
                    note(key, each)
                elif since_ms is None:
                    note(key, OffsetRange(each.begin, each.end))
                else:
                    ranges[key] = OffsetRange(each.begin, each.end)
            if since_ms is None or not ranges:
                return

            def take_found(found: Mapping[PartitionKey, FoundOffset | KafkaError]) -> None:
                for key, each in found.items():
                    note(key, each if isinstance(each, KafkaError) else ranges[key].later(each.offset))

            # After the end: what arrives in between lies past it, and is read.
            self._asker.ask_offsets_for_time(list(ranges), since_ms, timeout, take_found)

        if keys:
            self._asker.ask_ranges(keys, timeout, take_ranges, with_first_messages=False)


class TopicIdentity:
    """Notices that a topic was deleted, or deleted and created again under the same name.

    A consumer may go on in the middle of the new topic without a word: only the topic's id tells. If the brokers know
    no ids, or don't answer, it goes unnoticed. Of a topic that is gone librdkafka tells half a minute later.

    :param asker: asks the commit log's cluster.
    :param clock: monotonic seconds.
    """

    def __init__(self, asker: Asker, topic: str, clock: Callable[[], float]) -> None:
        self._asker = asker
        self._topic = topic
        self._clock = clock
        self._is_asked = False
        self._ask_at = 0.0
        self._is_missing = False
        self._known_id: str | None = None
        # Written by the thread that answers, emptied by the reading one; a deque takes both.
        self._answers: deque[str | KafkaError] = deque()

    def ask(self) -> None:
        """Ask the brokers, unless the last question isn't answered yet."""
        if not self._is_asked:
            self._is_asked = True
            self._ask_at = self._clock() + IDENTITY_SECONDS
            self._asker.ask_topic_ids([self._topic], IDENTITY_TIMEOUT_SECONDS, self._note_answer)

    def has_changed(self) -> bool:
        """Whether an answer has arrived that tells of another topic than the answer before. Each is told once.

        Called all the time: it asks now and then.
        """
        if not self._answers:
            if self._clock() >= self._ask_at:
                self.ask()
            return False
        self._is_asked = False
        answer = self._answers.popleft()
        if isinstance(answer, KafkaError):
            logger.debug("Can't ask for the id of %s: %s", self._topic, answer)
            self._is_missing = answer.code() in TOPIC_IS_GONE
            return False
        previous, self._known_id = self._known_id, answer
        return previous is not None and previous != answer

    def take_missing(self) -> bool:
        """Whether the last answer was that there is no such topic. Each is told once."""
        is_missing, self._is_missing = self._is_missing, False
        return is_missing

    def _note_answer(self, answers: Mapping[str, str | KafkaError]) -> None:
        """Called by the asker, on any thread."""
        self._answers.append(answers[self._topic])


class ReachabilityCheck:
    """Asks the log's brokers, after an error of the client, until all of them answer.

    The asker says which of them don't, and that they do again. The client's word isn't enough: librdkafka says that all
    brokers are down whenever it happens to be connected to none (as after idle connections were closed, with texts such
    as "0/2 brokers are down"), and never that they are back.

    :param asker: asks the commit log's cluster.
    :param clock: monotonic seconds.
    """

    def __init__(self, asker: Asker, topic: str, clock: Callable[[], float]) -> None:
        self._asker = asker
        self._topic = topic
        self._clock = clock
        self._is_wanted = False
        self._ask_at = 0.0
        self._asked: frozenset[int] = frozenset()
        # Of the newest question; added to by the threads that answer.
        self._answered: set[int] = set()

    def want(self) -> None:
        """The client told of an error: the brokers are to be asked."""
        self._is_wanted = True

    def ask(self, partitions: Collection[int]) -> None:
        """Ask about these partitions, if that is wanted and it is time to."""
        now = self._clock()
        if not self._is_wanted or now < self._ask_at:
            return
        if self._asked and self._asked <= self._answered:
            self._is_wanted, self._asked = False, frozenset()
            return
        self._ask_at = now + REACHABILITY_SECONDS
        self._asked, self._answered = frozenset(partitions), set()
        answered = self._answered

        def note(answers: Mapping[PartitionKey, int | KafkaError]) -> None:
            answered.update(partition for (_, partition), end in answers.items() if not isinstance(end, KafkaError))

        if partitions:
            self._asker.ask_end_offsets([(self._topic, each) for each in partitions], REACHABILITY_SECONDS, note)


class FetchCheck:
    """Notices that the reading client fetches a partition no more, and tells how much is still to be read.

    A client may stop for good and say nothing: of all partitions, having lost all brokers (librdkafka#5301), or of one
    (librdkafka#4492). Whatever it fetches tells it where the partition ends, also where it gets no record (in an open
    transaction, behind a compacted one). So it is the brokers' word against what the client knows: where that stays
    less, and no record comes, nothing is fetched. Where all was read that does no harm, and need not be so: some
    brokers (not Kafka's) name the last offset in their responses, not the next one.

    And a client that was refused a partition for a moment says so only once, also if that is refused for good later. So
    a new one is wanted then, too.

    A broker that doesn't answer proves nothing, nor does a process that stood still: each check counts the answer to
    the one before, and the client has been polled in between. And such a time makes no silence longer.

    :param asker: asks the commit log's cluster, with a client of its own.
    :param clock: monotonic seconds.
    """

    def __init__(self, asker: Asker, topic: str, clock: Callable[[], float]) -> None:
        self._asker = asker
        self._topic = topic
        self._clock = clock
        self._patience = UNFETCHED_CHECKS
        self._missed_since: Mapping[int, float] = {}
        # When the reading thread came by last, and what was unheard then. Replaced whole by it; any may read it.
        self._unheard: tuple[float, Mapping[int, float]] = clock(), {}
        self.restart()

    @property
    def unheard_since(self) -> Mapping[int, float]:
        """Of each partition of which neither a record nor a broker's answer has come at two checks in a row, since
        when, by the clock. Time in which nothing could be heard is left out. Any thread may ask.
        """
        came_at, unheard = self._unheard
        return _without(self._clock() - came_at, unheard)

    def restart(self) -> None:
        """There is a new client, which has fetched nothing yet."""
        self._check_at = 0.0
        self._ends: Mapping[int, int] = {}
        self._positions: dict[int, int] = {}
        self._unfetched: dict[int, int] = {}
        self._refused: dict[int, float] = {}
        # Of the newest question; added to by the threads that answer.
        self._answers: dict[int, int] = {}

    def refused(self, partition: int) -> None:
        """The client may not fetch it, and will not say so again: whoever has told where it ends, it is unheard."""
        self._refused.setdefault(partition, self._clock())

    def has_stopped(self, consumer: Consumer, positions: Mapping[int, int]) -> bool:
        """Whether a partition is fetched no more, so that a new client is wanted, which is logged.

        Called all the time: it asks now and then.

        :param positions: of the partitions that are read, the offset of the next record.
        """
        now = self._clock()
        came_at, unheard = self._unheard
        self._missed_since = _without(now - came_at, self._missed_since)
        self._unheard = now, _without(now - came_at, unheard)
        if not positions:
            self._missed_since = {}
            self._unheard = now, {}
        if now < self._check_at or not positions:
            return False
        self._check_at = now + FETCH_CHECK_SECONDS
        self._ends = dict(self._answers)
        self._note_unheard(now, positions)
        if any(now >= at + RENEWAL_SECONDS for at in self._refused.values()):
            return True  # what is refused was logged
        fetched = KafkaWatermarks(consumer)
        behind = {
            partition
            for partition, position in positions.items()
            if self._positions.get(partition) == position < self._ends.get(partition, 0)
            and (fetched.cached(self._topic, partition) or 0) < self._ends[partition]
        }
        self._unfetched = {partition: self._unfetched.get(partition, 0) + 1 for partition in behind}
        if not behind and positions.keys() <= self._ends.keys():
            self._patience = UNFETCHED_CHECKS
        unfetched = sorted(each for each, checks in self._unfetched.items() if checks >= self._patience)
        if not unfetched:
            self._ask(positions)
            return False
        self._patience = min(2 * self._patience, MOST_UNFETCHED_CHECKS)
        logger.warning(
            "Commit log %s: there is more in partitions %s, which this process's client fetches no more. A new one "
            "goes on where it stopped",
            self._topic,
            unfetched,
        )
        return True

    def _note_unheard(self, now: float, positions: Mapping[int, int]) -> None:
        """A new client has asked nothing yet: what the one before had missed may still be so."""
        last_check = now - FETCH_CHECK_SECONDS if self._positions else now
        self._missed_since = {
            partition: self._missed_since.get(partition, last_check)
            for partition, position in positions.items()
            if self._positions.get(partition, position) == position
            and (partition not in self._ends or partition in self._refused)
        }
        self._unheard = (
            now,
            {
                partition: since
                for partition, since in self._missed_since.items()
                if now - since >= 2 * FETCH_CHECK_SECONDS
            },
        )

    def lag(self, consumer: Consumer, positions: Mapping[int, int]) -> int | None:
        """How many offsets are still to be read; ``None``: unknown. It never blocks: the client knows the ends from
        what it fetched, or the brokers told some seconds ago of further ones.
        """
        lag, fetched = 0, KafkaWatermarks(consumer)
        for partition, position in positions.items():
            end = fetched.cached(self._topic, partition)
            if end is None:
                return None
            lag += max(0, end - position, self._ends.get(partition, 0) - position)
        return lag

    def _ask(self, positions: Mapping[int, int]) -> None:
        self._positions = dict(positions)
        answers: dict[int, int] = {}
        self._answers = answers

        def note(ends: Mapping[PartitionKey, int | KafkaError]) -> None:
            answers.update((partition, end) for (_, partition), end in ends.items() if isinstance(end, int))

        self._asker.ask_end_offsets([(self._topic, each) for each in positions], FETCH_CHECK_TIMEOUT_SECONDS, note)


def _without(seconds: float, since: Mapping[int, float]) -> Mapping[int, float]:
    """The same as if these seconds hadn't passed, if they are so many that nothing could be heard in them."""
    return {each: at + seconds for each, at in since.items()} if seconds > LATE_SECONDS else since
