"""What is needed of Arroyo's classes and not public there: the one place that touches their private parts.

Where an attribute is missing (another Arroyo, another consumer), the answer is ``None``, and the package goes on
without: nothing is proven from the client's cache, every partition may be a retained one, the group isn't compared,
staged offsets are committed by the consumer's own method alone, and none is taken back, a partition that was just added
may end the consumer, and a rebalance may keep it from closing. If one of Arroyo's own classes lacks one, that is logged
once, since the versions that are supported have all.

Threads: any; nothing here blocks or calls the broker, except `reset_offset`, `end_offset`, `first_offset_since`
and `cluster_of`, and, inside the assignment, what `wait_for_added_partitions` puts into the consumer.

Sources: ``arroyo/backends/kafka/consumer.py`` and ``arroyo/processing/processor.py``, 2.38.5 to 2.48.0
(``tests/unit/kafka/test_arroyo_consumer.py`` holds the installed version against it).
"""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import confluent_kafka
from arroyo.backends.abstract import Consumer
from arroyo.backends.kafka import KafkaConsumer, KafkaProducer
from arroyo.processing.processor import StreamProcessor
from arroyo.types import Partition
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.cimpl import Consumer as ClientClass

from arroyo_sync.core.interruptions import INTERRUPTIONS
from arroyo_sync.core.log_guard import guarded_logger
from arroyo_sync.core.log_throttle import LogThrottle
from arroyo_sync.kafka.errors import code_of

logger = guarded_logger(__name__)

PRIVATE_ATTRIBUTES = (
    "_KafkaConsumer__consumer",
    "_KafkaConsumer__is_kip848",
    "_KafkaConsumer__group_id",
    "_KafkaConsumer__use_auto_commit",
    "_KafkaConsumer__resolve_partition_starting_offset",
    "_KafkaConsumer__staged_offsets",
)
"""Of ``KafkaConsumer``, as Python mangles their names."""

ASSIGN_METHOD = "_KafkaConsumer__assign"
"""Likewise."""

PROCESSOR_ATTRIBUTES = ("_StreamProcessor__consumer", "_StreamProcessor__processor_factory")
"""Of ``StreamProcessor``."""

PRODUCER_ATTRIBUTE = "_KafkaProducer__configuration"
"""Of ``KafkaProducer``, which has no ``get_config`` in 2.38.5."""

ADDED_SECONDS = 10.0
"""For how long a partition that the client doesn't know is waited for."""
_LOOK_SECONDS = 0.1
_MAX_EVENTS = 1_000
"""Rebalances and errors that a client may have queued while nobody polled."""

_OnRebalance = Callable[[confluent_kafka.Consumer, list[TopicPartition]], None]

_throttle = LogThrottle(float("inf"), time.monotonic)


def client_of(consumer: object) -> confluent_kafka.Consumer | None:
    """The confluent-kafka client behind Arroyo's consumer, whose cached end offsets are wanted."""
    client = _private(consumer, PRIVATE_ATTRIBUTES[0])
    # Not the package's name: a tracer may have put a subclass of its own there since Arroyo has taken it.
    return client if isinstance(client, ClientClass) else None


def is_kip848(consumer: object) -> bool | None:
    """Whether the consumer follows KIP-848 (``group.protocol=consumer``), under which partitions are retained."""
    answer = _private(consumer, PRIVATE_ATTRIBUTES[1])
    return answer if isinstance(answer, bool) else None


def group_of(consumer: object) -> str | None:
    """The consumer's ``group.id``."""
    group = _private(consumer, PRIVATE_ATTRIBUTES[2])
    return group if isinstance(group, str) else None


def uses_auto_commit(consumer: object) -> bool | None:
    """Whether librdkafka commits what is staged, and when it likes (``arroyo.enable.auto.commit``)."""
    answer = _private(consumer, PRIVATE_ATTRIBUTES[3])
    return answer if isinstance(answer, bool) else None


def staged_offsets(consumer: object) -> Mapping[Partition, int] | None:
    """What is staged and not committed yet, live; ``None`` where librdkafka keeps that, under
    ``arroyo.enable.auto.commit``, and doesn't tell.
    """
    answer = _staged(consumer)
    return None if answer is None else MappingProxyType(answer)


def unstage_offsets(consumer: object, offsets: Mapping[Partition, int]) -> None:
    """Let these offsets not be committed, as far as just they are staged. Without effect where `staged_offsets` is
    ``None``: librdkafka takes back whatever is staged, as ``commits.drop_staged`` has it, or nothing.
    """
    staged = _staged(consumer)
    if staged is None:
        return
    for partition, offset in offsets.items():
        if staged.get(partition) == offset:
            del staged[partition]


def _staged(consumer: object) -> dict[Partition, int] | None:
    answer = None if uses_auto_commit(consumer) else _private(consumer, PRIVATE_ATTRIBUTES[5])
    return answer if isinstance(answer, dict) else None


def resets_to_end(consumer: object) -> bool | None:
    """Whether ``auto.offset.reset`` is ``latest``; ``None``: it can't be told."""
    resolve = _private(consumer, PRIVATE_ATTRIBUTES[4])
    reset = str(getattr(resolve, "__name__", "")).rpartition("_")[2]
    return {"latest": True, "earliest": False, "error": False}.get(reset)


def wait_for_added_partitions(consumer: object) -> None:
    """Have the consumer wait when it is assigned a partition that its client doesn't know: Arroyo would end.

    Under KIP-848 the brokers assign a partition as soon as it is added. The client learns of it some 0.8 s later
    (2.16.0), and until then can't say where it begins. Nothing here makes it look at once: ``list_topics`` would, but
    in a callback it lets the next one of the same poll abort the process (``CallState_get``, confluent-kafka 2.16.1).
    """
    resolve = _private(consumer, PRIVATE_ATTRIBUTES[4])
    if not callable(resolve):
        return

    @functools.wraps(resolve)
    def resolve_known(partition: TopicPartition) -> object:
        gives_up_at = time.monotonic() + ADDED_SECONDS
        while True:
            try:
                return resolve(partition)
            except KafkaException as exc:
                if code_of(exc) != KafkaError._UNKNOWN_PARTITION or time.monotonic() >= gives_up_at:
                    raise
            time.sleep(_LOOK_SECONDS)

    setattr(_behind_proxies(consumer), PRIVATE_ATTRIBUTES[4], resolve_known)


@contextmanager
def declining_assignments(consumer: object, is_closing: Callable[[], bool]) -> Iterator[None]:
    """Have the consumer, which subscribes within this context, take no assignment any more while it closes.

    An assignment may lie in librdkafka's queue when the consumer is closed, since nobody polls while the work in flight
    is waited for. Closing hands it out, and Arroyo then asks for the group's commits, without a timeout. librdkafka
    answers no such question any more, so the process would never end (librdkafka#4041 is of this kind; seen with
    2.16.0, eager and KIP-848). A callback may do nothing: the client assigns by itself then, and revokes as it closes.
    """
    client = client_of(consumer)
    if client is None:
        yield
        return
    owner = _behind_proxies(consumer)
    setattr(owner, PRIVATE_ATTRIBUTES[0], _Subscriber(client, is_closing))
    try:
        yield
    finally:
        setattr(owner, PRIVATE_ATTRIBUTES[0], client)


class _Subscriber:
    """Stands where the client is while Arroyo subscribes, so as to stand before its rebalance callbacks for good.

    Partitions that were declined are no news to Arroyo as they are revoked: it warns of each that it doesn't know.
    """

    def __init__(self, client: confluent_kafka.Consumer, is_closing: Callable[[], bool]) -> None:
        self._client = client
        self._is_closing = is_closing
        self._declined: set[tuple[str, int]] = set()

    def subscribe(self, topics: list[str], *, on_assign: _OnRebalance, on_revoke: _OnRebalance) -> None:
        def assigned(client: confluent_kafka.Consumer, partitions: list[TopicPartition]) -> None:
            if self._is_closing():
                self._declined.update((each.topic, each.partition) for each in partitions)
            else:
                on_assign(client, partitions)

        def revoked(client: confluent_kafka.Consumer, partitions: list[TopicPartition]) -> None:
            known = [each for each in partitions if (each.topic, each.partition) not in self._declined]
            if known or not partitions:
                on_revoke(client, known)

        self._client.subscribe(topics, on_assign=assigned, on_revoke=revoked)


def hand_out_rebalances(consumer: object) -> None:
    """Have the client call back for what rebalances lie in its queue, so that closing it hands none of them out.

    Under KIP-848 librdkafka may never return from closing otherwise: the assignment is answered for, and then the group
    ends and may drop the answer to the revocation, which is waited for (librdkafka#4884 is of this kind; seen with
    2.16.0, in one of 171 such closings). The interpreter's lock is held then, so nothing in the process goes on.

    Right before closing, on the consumer's own thread. It pauses all partitions, so that no message is in the way.

    :raises Exception: what a callback raised first.
    """
    client = client_of(consumer)
    if client is None:
        return
    client.pause(client.assignment())
    error: Exception | None = None
    for _ in range(_MAX_EVENTS):
        try:
            if client.poll(0) is None:
                break
        except Exception as exc:  # what lies behind it is handed out all the same
            error = error or exc
    if error is not None:
        raise error


def reset_offset(
    consumer: Consumer[Any], partition: Partition, timeout: float, *, latest_at_most: int | None = None
) -> int:
    """Where ``auto.offset.reset`` says that a partition without a commit begins; with ``error``, at its beginning.

    Blocks for at most ``timeout`` seconds. On the consumer's own thread.

    :param latest_at_most: ``latest`` doesn't go past this offset, if the partition still has it.
    :raises KafkaException: the broker didn't answer.
    :raises LookupError: this isn't Arroyo's ``KafkaConsumer``.
    """
    begin, end = _bounds(consumer, partition, timeout)
    is_latest = resets_to_end(consumer)
    if is_latest is None:
        raise LookupError(f"this {type(consumer).__name__} doesn't tell its auto.offset.reset")
    if not is_latest:
        return begin
    return end if latest_at_most is None else max(begin, min(end, latest_at_most))


def end_offset(consumer: Consumer[Any], partition: Partition, timeout: float) -> int:
    """Where the partition ends, as its leader says. One just elected doesn't while it may be behind (KIP-207).

    Blocks for at most ``timeout`` seconds. On the consumer's own thread.

    :raises KafkaException: the broker didn't answer.
    :raises LookupError: this isn't Arroyo's ``KafkaConsumer``.
    """
    return _bounds(consumer, partition, timeout)[1]


def first_offset_since(consumer: Consumer[Any], partition: Partition, timestamp_ms: int, timeout: float) -> int | None:
    """The first message of the partition that is as young as that, by its timestamp; ``None``: there is none.

    Blocks for at most ``timeout`` seconds. On the consumer's own thread.

    :raises KafkaException: the broker didn't answer, or can't tell.
    :raises LookupError: this isn't Arroyo's ``KafkaConsumer``.
    """
    asked = [TopicPartition(partition.topic.name, partition.index, timestamp_ms)]
    (answer,) = client_to_ask(consumer).offsets_for_times(asked, timeout=timeout)
    if answer.error is not None:
        raise KafkaException(answer.error)
    return answer.offset if answer.offset >= 0 else None


def _bounds(consumer: Consumer[Any], partition: Partition, timeout: float) -> tuple[int, int]:
    asked = TopicPartition(partition.topic.name, partition.index)
    bounds = client_to_ask(consumer).get_watermark_offsets(asked, timeout=timeout)
    if bounds is None:
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
    return int(bounds[0]), int(bounds[1])


def begin_earlier(consumer: Consumer[Any], offsets: Mapping[Partition, int], earlier: Mapping[Partition, int]) -> None:
    """Within the callback of an assignment: have it begin at other offsets.

    Under the eager protocol librdkafka refuses to seek there, and is assigned the partitions once more.

    :param offsets: of all partitions that are being assigned.
    :param earlier: those among them that aren't the assignment's own.
    """
    assign = _private(consumer, ASSIGN_METHOD)
    if is_kip848(consumer) is False and callable(assign):
        assign(offsets)
    else:
        consumer.seek(earlier)


def cluster_of(consumer: object, topic: str, timeout: float) -> str | None:
    """The id of the cluster that the consumer is connected to (Kafka's ``cluster.id``); ``None``: the brokers don't
    tell, or this isn't Arroyo's ``KafkaConsumer``.

    Blocks until a broker answers, for at most ``timeout`` seconds. On the consumer's own thread, and in none of its
    callbacks: see `wait_for_added_partitions`.

    :param topic: of which the brokers tell as well. They need tell of something.
    :raises KafkaException: no broker answered.
    """
    client = client_of(consumer)
    return None if client is None else client.list_topics(topic, timeout=timeout).cluster_id


def consumer_behind(commit: object) -> object | None:
    """The consumer of the processor whose ``commit`` this is; ``None`` if somebody has wrapped it."""
    return _of_processor(commit, PROCESSOR_ATTRIBUTES[0])


def outermost_factory(commit: object) -> object | None:
    """The factory that the processor was given whose ``commit`` this is; ``None`` if somebody has wrapped it."""
    return _of_processor(commit, PROCESSOR_ATTRIBUTES[1])


def _of_processor(commit: object, name: str) -> object | None:
    processor = getattr(commit, "__self__", None)  # it is a method of the processor's
    return _private(processor, name) if isinstance(processor, StreamProcessor) else None


def _behind_proxies(consumer: object) -> object:
    """Arroyo's consumer, whose private parts these are: on a proxy that hands all on (``__getattr__``) they are read as
    on the consumer itself, but what is set there changes nothing.
    """
    resolve = _private(consumer, PRIVATE_ATTRIBUTES[4])
    return getattr(inspect.unwrap(resolve) if callable(resolve) else None, "__self__", consumer)


def client_to_ask(consumer: object) -> confluent_kafka.Consumer:
    """The client behind Arroyo's consumer.

    :raises LookupError: this is another one.
    """
    client = client_of(consumer)
    if client is None:
        raise LookupError(f"{type(consumer).__name__} has no client to ask")
    return client


def producer_settings(producer: object) -> Mapping[str, Any] | None:
    """The settings that Arroyo's producer was made with; ``None`` where another one doesn't show them."""
    get_config = getattr(producer, "get_config", None)
    settings = get_config() if callable(get_config) else _private(producer, PRODUCER_ATTRIBUTE)
    return settings if isinstance(settings, Mapping) and settings else None


def _private(owner: object, name: str) -> object:
    try:
        return getattr(owner, name)
    except AttributeError:
        if isinstance(owner, KafkaConsumer | KafkaProducer | StreamProcessor) and _throttle.should_log(name):
            class_name, _, attribute = name.removeprefix("_").partition("__")
            logger.warning(
                "This Arroyo's %s has no __%s: arroyo_sync goes on without it, and is slower or checks less. "
                "Use a version of sentry-arroyo that it supports",
                class_name,
                attribute,
            )
        return None


class KafkaWatermarks:
    """`HighWatermarks` from a consumer's own handle.

    Threads: a confluent-kafka consumer lets in one thread at a time (since 2.16: others wait, and one that polls
    without end may keep them waiting for ever). So this is for the thread that polls the consumer.

    :param consumer: the handle. It is never closed from here.
    """

    def __init__(self, consumer: confluent_kafka.Consumer) -> None:
        self._consumer = consumer
        self._is_closed = False

    def cached(self, topic: str, partition: int) -> int | None:
        """The end offset in the last fetch response, ``None`` before the first one or when closed. Never blocks."""
        if self._is_closed:
            return None
        try:
            ends = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), cached=True)
        except INTERRUPTIONS:
            raise
        except (KafkaException, RuntimeError):  # the latter: the client was closed
            return None
        return ends[1] if ends is not None and ends[1] >= 0 else None

    def close(self) -> None:
        """Leave the client alone from now on: it is about to be closed."""
        self._is_closed = True
