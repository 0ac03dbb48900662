"""Optional spans for Sentry's queue module: ``queue.process`` for released messages, ``queue.publish`` for commits.

They are asked for with a sample rate, of which the SDK's own sampling takes its part afterwards. Without one this
module is in nobody's way; with one, a message that isn't picked costs a random number.

A picked message is a transaction of its own, which goes on with the trace of the message's ``sentry-trace`` and
``baggage`` headers. The span covers the ``submit`` of the step behind the gate, so what a step does later, on another
thread or in a batch, isn't in it.

What the SDK raises, such as a user's ``traces_sampler``, costs the span alone, and is logged at most once a minute.

Sources
    Names of operations and attributes: Sentry's "Queues" module for Python, and getsentry/sentry-conventions#474 for
    those of Kafka. Times are in milliseconds, as the SDK's own integration for Celery sends them.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import ExitStack
from datetime import timezone
from typing import Any, TypeVar

import sentry_sdk
from arroyo.backends.abstract import Producer, ProducerFuture
from arroyo.backends.kafka import KafkaPayload
from arroyo.processing.strategies.abstract import MessageRejected, ProcessingStrategy
from arroyo.types import BrokerValue, Message, Partition, Topic
from sentry_sdk.tracing import NoOpSpan, Span, Transaction

from arroyo_sync.core.checks import check_callable, check_producer, check_share, check_step
from arroyo_sync.core.interruptions import INTERRUPTIONS
from arroyo_sync.kafka.arroyo_consumer import producer_settings
from arroyo_sync.sentry.failures import Failures

TPayload = TypeVar("TPayload")
TSpan = TypeVar("TSpan")

TRACE_HEADERS = frozenset({"sentry-trace", "baggage"})

HoldSeconds = Callable[[int, int], float]
"""Tells for how long the message of a partition and an offset, which is being handed on, was held."""


class ProcessSpans(ProcessingStrategy[TPayload]):
    """A step that submits to the next one, some messages within a ``queue.process`` span.

    Threads: the processor's. It buffers nothing, and raises what the next step raises.

    :param sample_rate: the part of the messages that are picked, above 0 and up to 1.
    :param hold_seconds: see `HoldSeconds`.
    """

    def __init__(self, next_step: ProcessingStrategy[TPayload], sample_rate: float, hold_seconds: HoldSeconds) -> None:
        check_step("next_step", next_step)
        check_share("sample_rate", sample_rate)
        check_callable("hold_seconds", hold_seconds, "something to call with a partition's index and an offset")
        self._next_step = next_step
        self._next_submit = next_step.submit
        self._sample_rate = sample_rate
        self._hold_seconds = hold_seconds
        self._failures = Failures("the message goes on without it")
        self.poll = next_step.poll  # type: ignore[method-assign] # one call less each poll

    def submit(self, message: Message[TPayload]) -> None:
        """Submit to the next step.

        :raises: what the next step raises.
        """
        if random.random() >= self._sample_rate or not _has_spans():
            self._next_submit(message)
            return
        assert isinstance(message.value, BrokerValue)  # the gate takes nothing else
        value = message.value
        with _Guarded(self._failures) as spans:
            transaction = spans.begin(lambda entered: self._begin(entered, value))
            try:
                self._next_submit(message)
            except MessageRejected:
                if transaction is not None:
                    transaction.sampled = False  # it comes again, perhaps a hundred times a second
                raise

    def poll(self) -> None:
        """Poll the next step."""
        self._next_step.poll()

    def close(self) -> None:
        """Close the next step."""
        self._next_step.close()

    def terminate(self) -> None:
        """Terminate the next step."""
        self._next_step.terminate()

    def join(self, timeout: float | None = None) -> None:
        """Join the next step."""
        self._next_step.join(timeout)

    def _begin(self, entered: ExitStack, value: BrokerValue[TPayload]) -> Transaction | NoOpSpan:
        entered.enter_context(sentry_sdk.isolation_scope())
        topic = value.partition.topic.name
        transaction = sentry_sdk.start_transaction(
            sentry_sdk.continue_trace(_trace_headers(value.payload), op="queue.task", name=topic, source="task")
        )
        entered.enter_context(transaction)
        span = entered.enter_context(sentry_sdk.start_span(op="queue.process", name=topic))
        if transaction.sampled:
            self._describe(span, value)
        return transaction

    def _describe(self, span: Span, value: BrokerValue[TPayload]) -> None:
        partition = value.partition
        written_at = value.timestamp.replace(tzinfo=timezone.utc).timestamp()  # Arroyo's is naive, and in UTC
        _set(
            span,
            {
                "messaging.system": "kafka",
                "messaging.destination.name": partition.topic.name,
                "messaging.destination.partition.id": str(partition.index),
                "messaging.kafka.offset": value.offset,
                "messaging.message.id": f"{partition.topic.name}:{partition.index}:{value.offset}",
                "messaging.message.body.size": _body_bytes(value.payload),
                "messaging.message.receive.latency": max(0.0, time.time() - written_at) * 1000,
                "arroyo_sync.hold_time": self._hold_seconds(partition.index, value.offset) * 1000,
            },
        )


class PublishSpans(Producer[KafkaPayload]):
    """A producer for `CommitLogPublisher` that makes ``queue.publish`` spans. The records stay as they are.

    A span covers the hand-over to the producer, and is a child of the current span, or a transaction of its own.

    :param sample_rate: the part of the records that are picked, above 0 and up to 1.
    """

    def __init__(self, producer: Producer[KafkaPayload], sample_rate: float) -> None:
        check_producer("producer", producer)
        check_share("sample_rate", sample_rate)
        self._producer = producer
        self._sample_rate = sample_rate
        self._failures = Failures("the record is published without it")

    def produce(
        self, destination: Topic | Partition, payload: KafkaPayload
    ) -> ProducerFuture[BrokerValue[KafkaPayload]]:
        """Hand the record to the producer.

        :raises: what the producer raises.
        """
        if random.random() >= self._sample_rate or not _has_spans():
            return self._producer.produce(destination, payload)
        with _Guarded(self._failures) as spans:
            spans.begin(lambda entered: _begin_publish(entered, destination, payload))
            return self._producer.produce(destination, payload)

    def get_config(self) -> dict[str, Any]:
        """The producer's settings, if it shows them: `CommitLogPublisher` asks the same cluster."""
        return dict(producer_settings(self._producer) or {})

    def close(self) -> Future[None]:
        """Close the producer."""
        return self._producer.close()


class _Guarded:
    """Around a piece of work: what the SDK raises before or after it is noted, and the work's own errors go up."""

    def __init__(self, failures: Failures) -> None:
        self._failures = failures
        self._entered = ExitStack()

    def begin(self, enter: Callable[[ExitStack], TSpan]) -> TSpan | None:
        """What ``enter`` returns, having entered its spans; ``None``, and all of them left again, if it raises."""
        try:
            with ExitStack() as entered:
                span = enter(entered)
                self._entered = entered.pop_all()
                return span
        except INTERRUPTIONS:
            raise
        except Exception as error:
            self._failures.note("a span", error)
            return None

    def __enter__(self) -> _Guarded:
        return self

    def __exit__(self, *raised: Any) -> None:
        try:
            self._entered.__exit__(*raised)
        except INTERRUPTIONS:
            raise
        except Exception as error:
            self._failures.note("a span", error)


def _begin_publish(entered: ExitStack, destination: Topic | Partition, payload: KafkaPayload) -> None:
    topic = destination.name if isinstance(destination, Topic) else destination.topic.name
    span = entered.enter_context(
        sentry_sdk.start_span(op="queue.publish", name=topic)
        if sentry_sdk.get_current_span() is not None
        else sentry_sdk.start_transaction(op="queue.publish", name=topic, source="task")
    )
    _set(
        span,
        {
            "messaging.system": "kafka",
            "messaging.destination.name": topic,
            "messaging.message.id": (payload.key or b"").decode(errors="replace"),
            "messaging.message.body.size": len(payload.value),
        },
    )


def _has_spans() -> bool:
    if not sentry_sdk.is_initialized():
        return False
    options = sentry_sdk.get_client().options
    # In the SDK's stream mode there are no transactions: it would only warn about each. The setting was an experiment.
    mode = options.get("trace_lifecycle")
    if mode is None:
        mode = (options.get("_experiments") or {}).get("trace_lifecycle")
    return bool(mode != "stream")


def _set(span: Span, attributes: Mapping[str, str | int | float]) -> None:
    for name, value in attributes.items():
        span.set_data(name, value)


def _trace_headers(payload: object) -> dict[str, Any]:
    if not isinstance(payload, KafkaPayload):
        return {}
    return {
        name.lower(): value.decode(errors="replace")
        for name, value in payload.headers
        if name.lower() in TRACE_HEADERS and value is not None
    }


def _body_bytes(payload: object) -> int:
    body = payload.value if isinstance(payload, KafkaPayload) else payload
    return len(body) if isinstance(body, (bytes, str)) else 0
