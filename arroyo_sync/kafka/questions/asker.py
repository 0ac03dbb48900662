"""Puts every question to the brokers of one cluster: where partitions end and begin, topics' ids, groups' commits.

Guarantees
    - Answers are partial: each partition or topic has its value or its own `KafkaError`. A broker that is down costs
      its own partitions an answer and delays no other's; a group's coordinator that is down costs that group alone.
    - Every question is answered, at the latest soon after its timeout, also when the asker is stopped meanwhile. A
      look-up by time may take longer; no other question waits for it.
    - Ends are high watermarks (``read_uncommitted``): a leader that reads uncommitted messages may rightly be past the
      last stable offset. Of commits the last stable one counts, so that a transaction that hangs hides nothing.
    - The administrator's client makes no request to a group's coordinator: a coordinator that goes away during such a
      request may abort the whole process (librdkafka issue 4605).
    - The constructor connects to nothing and starts nothing. The first question makes the administrator's client, the
      first look-up by time another one, the first question about a group that group's consumer and thread. `Asker.stop`
      leaves none of them behind.

Threads
    Any thread may call anything. What is named ``ask_...`` returns at once; its callback is called on the client's own
    thread, on the group's thread for commits, or on the caller's for what is known at once. A callback must be quick
    and may not call what blocks; what it raises is logged.

Failures
    What isn't about one question (a refused login, a broker that can't be reached) is told to ``on_error``, on a thread
    that asks. Where librdkafka refuses the settings, a question raises `ConfigurationError`, but one about a group's
    commits is answered with an error.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from confluent_kafka import KafkaError
from confluent_kafka.admin import ListOffsetsResultInfo, OffsetSpec, TopicDescription

from arroyo_sync.core.state import PartitionKey
from arroyo_sync.kafka.errors import no_answer, stopped
from arroyo_sync.kafka.questions.answers import deliver_answer, unable_to_ask
from arroyo_sync.kafka.questions.broker_watch import LOOK_UP_FAILS, BrokerWatch
from arroyo_sync.kafka.questions.cluster_client import ClusterClient
from arroyo_sync.kafka.questions.committed_offsets import GroupCommits
from arroyo_sync.kafka.questions.time_lookups import FoundOffset, TimeLookups, read_each
from arroyo_sync.kafka.topic_ids import canonical_topic_id

GRACE_SECONDS = 1.0
"""How much longer than its timeout a blocking question waits. librdkafka ends each by then, if only with an error."""

NO_TOPIC_ID = "AAAAAAAAAAAAAAAAAAAAAA"
"""The nil UUID: the brokers know no ids (before Kafka 2.8)."""

_LATEST = OffsetSpec.latest()  # type: ignore[no-untyped-call] # confluent-kafka gives it no types
_EARLIEST = OffsetSpec.earliest()  # type: ignore[no-untyped-call] # likewise

K = TypeVar("K")
V = TypeVar("V")


class PartitionRange(NamedTuple):
    """What is there of a partition."""

    begin: int
    """The first offset that is there, or would be if the partition is empty."""
    end: int
    """The offset after the last message: the high watermark."""
    first_timestamp_ms: int | None = None
    """When the first message was written (with ``CreateTime``: when its writer says that it was), Unix milliseconds.
    ``None``: there is no message, or none has a timestamp."""
    is_first_known: bool = True
    """``False``: the first message couldn't be looked up, so ``first_timestamp_ms`` says nothing."""
    is_look_up_pending: bool = False
    """Whether it is being looked up, and another answer comes."""


class Asker:
    """See the module's docstring.

    :param configuration: librdkafka settings of the cluster.
    :param on_error: told of what isn't about one question.
    :param advice: added to the log line about a topic that isn't there.
    :param clock: monotonic seconds.
    """

    def __init__(
        self,
        configuration: Mapping[str, Any],
        on_error: Callable[[KafkaError], None],
        *,
        advice: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._configuration = dict(configuration)
        self._on_error = on_error
        self._clock = clock
        # A watch for each, since a look-up may have no answer of a broker that answers all else.
        self._watches = BrokerWatch(advice, clock), BrokerWatch(advice, clock, LOOK_UP_FAILS)
        self._client, lookups = (ClusterClient(self._configuration, on_error, watch, clock) for watch in self._watches)
        self._lookups = TimeLookups(lookups)
        # Guards what follows; written and read by any thread.
        self._lock = threading.Lock()
        self._is_stopped = False
        self._groups: dict[str, GroupCommits] = {}

    @property
    def cluster_id(self) -> str | None:
        """The cluster's own id (Kafka's ``cluster.id``); ``None`` until a broker has told who leads a topic."""
        return self._client.cluster_id

    def forget(self, partitions: Collection[PartitionKey]) -> None:
        """They are somebody else's now, or were meanwhile: whether they were answered about before says nothing."""
        for watch in self._watches:
            watch.forget(partitions)

    # These block, until the last broker has answered or the timeout is over.

    def end_offsets(self, partitions: Collection[PartitionKey], timeout: float) -> dict[PartitionKey, int | KafkaError]:
        """Where the partitions end.

        :raises ConfigurationError: librdkafka refuses the settings.
        """
        return self._wait(partitions, lambda on_answer: self.ask_end_offsets(partitions, timeout, on_answer), timeout)

    def ranges(
        self, partitions: Collection[PartitionKey], timeout: float
    ) -> dict[PartitionKey, PartitionRange | KafkaError]:
        """Where the partitions begin and end. Their first messages aren't looked for.

        :raises ConfigurationError: librdkafka refuses the settings.
        """
        return self._wait(
            partitions,
            lambda on_answer: self.ask_ranges(partitions, timeout, on_answer, with_first_messages=False),
            timeout,
        )

    def topic_ids(self, topics: Collection[str], timeout: float) -> dict[str, str | KafkaError]:
        """The ids that the topics were given when they were created.

        :raises ConfigurationError: librdkafka refuses the settings.
        """
        return self._wait(topics, lambda on_answer: self.ask_topic_ids(topics, timeout, on_answer), timeout)

    def reach(self, timeout: float) -> None:
        """Return if a broker answers at all. Blocks likewise.

        :raises KafkaException: none did.
        :raises ConfigurationError: librdkafka refuses the settings.
        """
        self._client.reach(timeout)

    def committed(
        self, group: str, partitions: Collection[PartitionKey], timeout: float
    ) -> dict[PartitionKey, int | KafkaError | None]:
        """What the group has committed; ``None``: nothing."""
        return self._wait(
            partitions, lambda on_answer: self.ask_committed(group, partitions, timeout, on_answer), timeout
        )

    # These return at once. A callback gets each partition once, but for what `ask_ranges` says, together with those
    # that the same broker leads.

    def ask_end_offsets(
        self,
        partitions: Collection[PartitionKey],
        timeout: float,
        on_answer: Callable[[Mapping[PartitionKey, int | KafkaError]], None],
    ) -> None:
        """Ask where the partitions end; each broker's answer comes when it has one.

        :raises ConfigurationError: librdkafka refuses the settings.
        """
        self._client.poll()
        self._client.ask_offsets(partitions, [_LATEST], timeout, read_each(_offset, on_answer))

    def ask_ranges(
        self,
        partitions: Collection[PartitionKey],
        timeout: float,
        on_answer: Callable[[Mapping[PartitionKey, PartitionRange | KafkaError]], None],
        *,
        with_first_messages: bool = True,
    ) -> None:
        """Ask what is there of the partitions; each broker's answer comes when it has one.

        :param with_first_messages: whether to look up when the first ones were written, too. Then a partition that has
            any is answered about twice: at once, and when that was found, or couldn't be.
        :raises ConfigurationError: librdkafka refuses the settings.
        """

        def look_up(ranges: Mapping[PartitionKey, PartitionRange | KafkaError]) -> None:
            # An empty one has none. What came to it meanwhile lies past its end.
            filled = {
                key: each for key, each in ranges.items() if isinstance(each, PartitionRange) and each.begin < each.end
            }
            # A look-up may take a broker seconds, and most that asks needs but the ends.
            pending = {
                key: each._replace(is_first_known=False, is_look_up_pending=True) for key, each in filled.items()
            }
            on_answer({**ranges, **pending})

            def add(found: Mapping[PartitionKey, FoundOffset | KafkaError]) -> None:
                on_answer({key: _with_first(filled[key], each) for key, each in found.items()})

            self.ask_offsets_for_time(list(filled), 0, timeout, add)

        self._client.poll()
        each = read_each(_range, look_up if with_first_messages else on_answer)
        self._client.ask_offsets(partitions, [_EARLIEST, _LATEST], timeout, each)

    def ask_offsets_for_time(
        self,
        partitions: Collection[PartitionKey],
        timestamp_ms: int,
        timeout: float,
        on_answer: Callable[[Mapping[PartitionKey, FoundOffset | KafkaError]], None],
    ) -> None:
        """Ask for the partitions' first offsets that were written at that time or later; see `TimeLookups`.

        Never raises: callbacks of other questions ask, and this one's client is made with its first question.
        """
        try:
            self._lookups.ask(partitions, timestamp_ms, timeout, on_answer)
        except Exception as error:  # such as that the client can start no threads
            refusal = unable_to_ask(error)
            self._watches[1].update(dict.fromkeys(partitions, refusal))
            deliver_answer(on_answer, dict.fromkeys(partitions, refusal))

    def ask_topic_ends(
        self,
        topic: str,
        timeout: float,
        on_answer: Callable[[Mapping[int, int | KafkaError]], None],
    ) -> None:
        """Ask where all partitions of the topic end. The callback is called once; with nothing, if nobody tells which
        partitions there are, which counts as no answer about the first one.

        :raises ConfigurationError: librdkafka refuses the settings.
        """
        self._client.poll()

        def ask_ends(partitions: Collection[int]) -> None:
            keys = [(topic, partition) for partition in partitions]
            if not keys:
                self._watches[0].update({(topic, 0): no_answer()})
                on_answer({})
                return
            ends: dict[int, int | KafkaError] = {}
            lock = threading.Lock()

            def collect(answers: Mapping[PartitionKey, int | KafkaError]) -> None:
                with lock:
                    ends.update((partition, end) for (_, partition), end in answers.items())
                    if len(ends) < len(keys):
                        return
                on_answer(ends)

            self._client.ask_offsets(keys, [_LATEST], timeout / 2, read_each(_offset, collect))

        # Of any broker: the controller may be down, and a mock cluster has none to ask.
        self._client.list_partitions(topic, timeout / 2, ask_ends)

    def ask_topic_ids(
        self, topics: Collection[str], timeout: float, on_answer: Callable[[Mapping[str, str | KafkaError]], None]
    ) -> None:
        """Ask for the topics' ids.

        :raises ConfigurationError: librdkafka refuses the settings.
        """
        self._client.poll()
        self._client.describe(
            topics, timeout, lambda answers: on_answer({topic: _id_of(each) for topic, each in answers.items()})
        )

    def ask_committed(
        self,
        group: str,
        partitions: Collection[PartitionKey],
        timeout: float,
        on_answer: Callable[[Mapping[PartitionKey, int | KafkaError | None]], None],
    ) -> None:
        """Ask what the group has committed. A group's questions wait for one another, and for no other group's."""
        with self._lock:
            commits = self._groups.get(group)
            if commits is None and not self._is_stopped:
                commits = GroupCommits(self._configuration, group, self._on_error, self._clock)
                self._groups[group] = commits
        if commits is None:
            deliver_answer(on_answer, dict.fromkeys(partitions, stopped()))
        else:
            commits.ask(partitions, timeout, on_answer)

    def poll(self) -> None:
        """Let ``on_error`` be told of what has happened. Most questions do so for their client, but none for the one
        that looks up by time. Doesn't block.
        """
        self._client.poll()
        self._lookups.poll()

    def stop(self, timeout: float) -> None:
        """Answer questions with an error from now on, and end the clients and threads.

        Blocks, for at most ``timeout`` seconds and as long as librdkafka takes to end a client's threads. Called again,
        it does nothing.
        """
        deadline = time.monotonic() + timeout
        with self._lock:
            self._is_stopped = True
            groups = list(self._groups.values())
        for commits in groups:
            commits.stop()
        for commits in groups:
            commits.join(max(0.0, deadline - time.monotonic()))
        self._client.stop(max(0.0, deadline - time.monotonic()))
        self._lookups.stop(0.0)  # nobody waits for one any more

    def _wait(
        self, subjects: Collection[K], ask: Callable[[Callable[[Any], None]], None], timeout: float
    ) -> dict[K, Any]:
        """Ask, and block until every subject has its answer. One that has none in time counts as timed out."""
        found: dict[K, Any] = {}
        changed = threading.Condition()

        def on_answer(answers: Mapping[K, Any]) -> None:
            with changed:
                found.update(answers)
                changed.notify_all()

        count = len(set(subjects))
        ask(on_answer)
        with changed:
            changed.wait_for(lambda: len(found) >= count, timeout + GRACE_SECONDS)
            answers = dict(found)
        self._client.poll()
        return {subject: answers.get(subject, no_answer()) for subject in subjects}


def _offset(infos: Sequence[ListOffsetsResultInfo]) -> int | KafkaError:
    return infos[0].offset if infos[0].offset >= 0 else no_answer()


def _range(infos: Sequence[ListOffsetsResultInfo]) -> PartitionRange | KafkaError:
    begin, end = infos
    return no_answer() if begin.offset < 0 or end.offset < 0 else PartitionRange(begin.offset, end.offset)


def _with_first(each: PartitionRange, found: FoundOffset | KafkaError) -> PartitionRange:
    if isinstance(found, KafkaError):
        return each._replace(is_first_known=False)
    return each._replace(first_timestamp_ms=found.timestamp_ms)


def _id_of(described: TopicDescription | KafkaError) -> str | KafkaError:
    if isinstance(described, KafkaError):
        return described
    topic_id = canonical_topic_id(str(described.topic_id))
    if topic_id == NO_TOPIC_ID:
        return KafkaError(KafkaError._UNSUPPORTED_FEATURE, "the brokers know no topic ids")
    return topic_id
