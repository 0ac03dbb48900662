"""One administrator's client, which asks each broker about the partitions that it leads.

librdkafka could ask all leaders with one call, but then answers all partitions at once, when the last broker has
answered or is given up (tried: with one broker of three killed, the others' answers come after 10 ms in calls of their
own, and after the timeout in a common one).

Threads
    Any thread may call anything; nothing blocks but `ClusterClient.reach` and `ClusterClient.stop`. Callbacks run on
    the client's own thread, or on the caller's for what is known at once. They must be quick and may not call what
    blocks. They may ask on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, ClusterMetadata, ListOffsetsResultInfo, OffsetSpec, TopicDescription

from arroyo_sync.core.interruptions import INTERRUPTIONS
from arroyo_sync.core.log_guard import guarded_logger
from arroyo_sync.core.state import PartitionKey
from arroyo_sync.kafka.client_settings import admin_settings
from arroyo_sync.kafka.errors import no_answer, no_token, stopped
from arroyo_sync.kafka.making_clients import LazyClient
from arroyo_sync.kafka.questions.answers import deliver_answer, result_of, unable_to_ask
from arroyo_sync.kafka.questions.broker_watch import BrokerWatch
from arroyo_sync.kafka.questions.partition_leaders import PartitionLeaders
from arroyo_sync.kafka.topic_ids import settled_cluster_id

logger = guarded_logger(__name__)

LEAST_SECONDS = 0.1
"""A question that was delayed has so long for its answer, though its time be over."""
FIND_SECONDS = 5.0
"""For how long at most any broker is asked who leads, since nothing can end that before."""

ANY_TOPIC = "__consumer_offsets"
"""Asked for where any broker's answer will do. It needn't exist."""

Offset = ListOffsetsResultInfo | KafkaError
OnOffsets = Callable[[Mapping[PartitionKey, Sequence[Offset] | KafkaError]], None]
"""Called once for each broker: per partition an answer for each spec, or why nothing could be asked."""
OnFound = Callable[[Mapping[str, Collection[int]]], None]
OnDescribed = Callable[[Mapping[str, TopicDescription | KafkaError]], None]

V = TypeVar("V")


class ClusterClient:
    """See the module's docstring.

    :param configuration: librdkafka settings of the cluster.
    :param on_error: told, on a thread that asks, of what isn't about one question.
    :param watch: says what can't be asked about.
    :param clock: monotonic seconds.
    """

    def __init__(
        self,
        configuration: Mapping[str, Any],
        on_error: Callable[[KafkaError], None],
        watch: BrokerWatch,
        clock: Callable[[], float],
    ) -> None:
        self._leaders = PartitionLeaders(clock)
        self._client = LazyClient(AdminClient, {**admin_settings(configuration), "error_cb": on_error}, clock)
        self._watch = watch
        self._clock = clock
        self.cluster_id: str | None = None
        """Of the cluster that the brokers belong to, once one has told who leads a topic. Any thread may read it."""
        # Guards what follows; written and read by any thread. Notified when a question is over.
        self._changed = threading.Condition()
        self._is_stopped = False
        # The questions that aren't answered yet; the values answer them with an error.
        self._in_flight: dict[object, Callable[[], None]] = {}

    def ask_offsets(
        self, partitions: Collection[PartitionKey], specs: Sequence[OffsetSpec], timeout: float, on_answer: OnOffsets
    ) -> None:
        """Ask each leading broker about its partitions, and first who leads those of which that isn't known.

        :raises ConfigurationError: librdkafka refuses the settings.
        """
        deadline = self._clock() + timeout
        led, unknown, to_find = self._leaders.look_up(partitions)
        for leader_id, keys in led.items():
            self._ask_broker(leader_id, keys, specs, timeout, on_answer)

        def ask_the_others() -> None:
            self._leaders.end_search(to_find)
            self._ask_found(unknown, specs, max(LEAST_SECONDS, deadline - self._clock()), on_answer)

        to_find.update(topic for topic, _ in unknown)
        if to_find:
            self._leaders.begin_search(to_find)
            self._find_leaders(to_find, timeout, ask_the_others)

    def describe(self, topics: Collection[str], timeout: float, on_answer: OnDescribed) -> None:
        """Ask for the topics' ids, partitions and leaders. The callback is called once.

        It waits for the controller, and asks others only once that has been silent for half of the time.

        :raises ConfigurationError: librdkafka refuses the settings.
        """
        names = sorted(set(topics))

        def settle(answers: Mapping[str, TopicDescription | KafkaError]) -> None:
            if all(isinstance(each, KafkaError) and each.code() == KafkaError._TIMED_OUT for each in answers.values()):
                self._find_brokers(names, timeout / 4, lambda _: self._describe(names, timeout / 4, on_answer))
            else:
                on_answer(answers)

        self._describe(names, timeout / 2, settle)

    def list_partitions(self, topic: str, timeout: float, on_answer: Callable[[Collection[int]], None]) -> None:
        """Ask any broker for the topic's partitions. Empty: none answered, or there is no such topic."""
        self._find_brokers([topic], timeout, lambda found: on_answer(found.get(topic, [])))

    def reach(self, timeout: float) -> None:
        """Block until a broker answers, for at most ``timeout`` seconds.

        :raises KafkaException: none did.
        :raises ConfigurationError: librdkafka refuses the settings.
        """
        question = object()
        if not self._begin_question(question, lambda: None):
            raise KafkaException(stopped())
        try:
            self._list_topics(ANY_TOPIC, timeout)
        finally:
            if self._client.client is not None:  # `on_error` may have several to hear
                self._client.use(lambda admin: admin.poll(timeout / 10))
            self._end_question(question)

    def poll(self) -> None:
        """Let ``on_error`` be told of what has happened. Doesn't block."""
        if self._client.client is not None:
            self._client.use(lambda admin: admin.poll(0))

    def stop(self, timeout: float) -> None:
        """Answer questions with an error from now on, and close the client, once no question is in flight any more.

        Blocks, for at most ``timeout`` seconds and as long as librdkafka takes to make a client and to end its threads.
        """
        with self._changed:
            self._is_stopped = True
            self._changed.wait_for(lambda: not self._in_flight, timeout)
            unanswered, self._in_flight = self._in_flight, {}
        self._client.close()
        for give_up in unanswered.values():
            give_up()

    def _describe(self, names: Sequence[str], timeout: float, on_answer: OnDescribed) -> None:
        """Ask the broker that counts as the controller for now."""
        question = object()

        def give_up() -> None:
            deliver_answer(on_answer, dict.fromkeys(names, self._why_unasked()))

        def send(admin: AdminClient) -> Mapping[str, Future[TopicDescription]]:
            return admin.describe_topics(TopicCollection(list(names)), request_timeout=timeout)

        futures = self._send(question, give_up, send)
        if futures is None:
            return
        found: dict[str, TopicDescription | KafkaError] = {}

        def settle(topic: str, future: Future[TopicDescription]) -> None:
            found[topic] = answer = result_of(future)
            if not isinstance(answer, KafkaError):
                leaders = {each.id: each.leader for each in answer.partitions}
                self._leaders.confirm(
                    topic, {index: -1 if each is None else each.id for index, each in leaders.items()}
                )
            if len(found) == len(futures) and self._end_question(question):
                deliver_answer(on_answer, found)

        for topic, future in futures.items():
            future.add_done_callback(partial(settle, topic))

    def _find_leaders(self, names: Collection[str], timeout: float, then: Callable[[], None]) -> None:
        """Ask any broker for the topics' leaders, and another one if that is silent; in three quarters of the time."""

        def ask_again(found: Mapping[str, Collection[int]]) -> None:
            missing = [name for name in names if name not in found]
            if missing:
                self._find_brokers(missing, timeout / 4, lambda _: then())
            else:
                then()

        self._find_brokers(sorted(names), timeout / 2, ask_again)

    def _find_brokers(self, names: Sequence[str], timeout: float, then: OnFound) -> None:
        """Ask any broker for the topics' leaders and for the controller, on a thread made for it, since it blocks.

        ``then`` gets the partitions of the topics that were found.

        librdkafka sends `describe` to the broker that it takes for the controller. While that one is down it doesn't
        look for another by itself.
        """
        question, found = object(), dict[str, list[int]]()

        def run() -> None:
            seconds = min(timeout, FIND_SECONDS)
            try:
                for name in names:
                    topic = self._list_topics(name, seconds).topics[name]
                    if topic.error is None:
                        self._leaders.keep(name, {each.id: each.leader for each in topic.partitions.values()})
                        found[name] = sorted(topic.partitions)
                    else:
                        self._leaders.keep_error(name, topic.error, is_answer=True)
            except KafkaException as error:
                logger.debug("No broker tells who leads %s: %s", names, error)
                for name in set(names) - found.keys():
                    self._leaders.keep_error(name, error.args[0])
            finally:
                try:
                    then(found)
                finally:
                    self._end_question(question)

        def begin(_: AdminClient) -> bool | None:
            try:
                threading.Thread(target=run, name="arroyo-sync brokers", daemon=True).start()
            except INTERRUPTIONS:
                raise
            except RuntimeError as error:  # the machine has no more of them at the moment
                for name in names:
                    self._leaders.keep_error(name, unable_to_ask(error))
                return None
            return True

        if self._send(question, lambda: None, begin) is None:
            then(found)

    def _ask_found(
        self, partitions: Collection[PartitionKey], specs: Sequence[OffsetSpec], timeout: float, on_answer: OnOffsets
    ) -> None:
        """Ask about partitions whose leaders were just asked for."""
        led, errors = self._leaders.look_up_found(partitions)
        if errors:
            self._watch.update(errors)
            deliver_answer(on_answer, errors)
        for leader_id, keys in led.items():
            self._ask_broker(leader_id, keys, specs, timeout, on_answer)

    def _ask_broker(
        self,
        leader_id: int,
        keys: Sequence[PartitionKey],
        specs: Sequence[OffsetSpec],
        timeout: float,
        on_answer: OnOffsets,
    ) -> None:
        """One request for each spec, all at once. The answers are told together."""
        question = object()

        def give_up() -> None:
            deliver_answer(on_answer, dict.fromkeys(keys, self._why_unasked()))

        def send(admin: AdminClient) -> list[Mapping[TopicPartition, Future[ListOffsetsResultInfo]]]:
            return [
                admin.list_offsets(
                    {TopicPartition(*key): spec for key in keys},
                    isolation_level=IsolationLevel.READ_UNCOMMITTED,
                    request_timeout=timeout,
                )
                for spec in specs
            ]

        sent = self._send(question, give_up, send)
        if sent is None:
            return
        found: dict[PartitionKey, list[Offset]] = {key: [no_answer()] * len(specs) for key in keys}
        pending = len(keys) * len(specs)
        lock = threading.Lock()  # some may be answered on this thread while others are on the client's

        def settle(key: PartitionKey, index: int, future: Future[ListOffsetsResultInfo]) -> None:
            nonlocal pending
            with lock:
                found[key][index] = _offset(future)
                pending -= 1
                if pending:
                    return
            if self._end_question(question):
                self._note_answered(found)
                deliver_answer(on_answer, found)

        for index, futures in enumerate(sent):
            for partition, future in futures.items():
                future.add_done_callback(partial(settle, (partition.topic, partition.partition), index))

    def _note_answered(self, found: Mapping[PartitionKey, Sequence[Offset]]) -> None:
        errors = {
            key: next((each for each in answers if isinstance(each, KafkaError)), None)
            for key, answers in found.items()
        }
        self._watch.update(errors)
        self._leaders.note_unanswered({key: error for key, error in errors.items() if error is not None})

    def _list_topics(self, name: str, timeout: float) -> ClusterMetadata:
        """Blocks, so it isn't for a thread of librdkafka. `stop` doesn't wait for it longer than for any question.

        :raises KafkaException: no broker answered, or the client was closed.
        """
        admin = self._client.get()
        if admin is None:
            raise KafkaException(self._why_unasked())
        metadata = admin.list_topics(name, timeout=timeout)
        self.cluster_id = settled_cluster_id(metadata.cluster_id)
        return metadata

    def _send(self, question: object, give_up: Callable[[], None], ask: Callable[[AdminClient], V]) -> V | None:
        """Have ``ask`` send a question, which is in flight until `_end_question`. Takes the lock.

        :param give_up: called if it isn't answered before the client is closed, or if there is none; then this returns
            ``None``.
        :raises ConfigurationError: librdkafka refuses the settings.
        """
        if not self._begin_question(question, give_up):
            give_up()
            return None
        try:
            sent = self._client.use(ask)
        except Exception:
            self._end_question(question)
            raise
        if sent is None and self._end_question(question):
            give_up()
        return sent

    def _why_unasked(self) -> KafkaError:
        """Why there is no client."""
        return stopped() if self._is_stopped else no_token()

    def _begin_question(self, question: object, give_up: Callable[[], None]) -> bool:
        """Whether it is in flight from now on, until `_end_question`: not after `stop`. Takes the lock."""
        with self._changed:
            if not self._is_stopped:
                self._in_flight[question] = give_up
            return not self._is_stopped

    def _end_question(self, question: object) -> bool:
        """Whether it was in flight until now: else it was given up. Takes the lock."""
        with self._changed:
            self._changed.notify_all()
            return self._in_flight.pop(question, None) is not None


def _offset(future: Future[ListOffsetsResultInfo]) -> Offset:
    answer = result_of(future)
    # For a broker that didn't answer, librdkafka may leave -1001 and no error; -1: no message is that late.
    return no_answer() if not isinstance(answer, KafkaError) and answer.offset < -1 else answer
