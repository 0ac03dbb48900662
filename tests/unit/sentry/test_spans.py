"""Against the real SDK; only the transport is ours, and keeps the envelopes."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import sentry_sdk
from arroyo.backends.abstract import Producer
from arroyo.backends.kafka import KafkaPayload
from arroyo.dlq import InvalidMessage
from arroyo.processing.strategies.abstract import MessageRejected
from arroyo.types import BrokerValue, Message, Partition, Topic

from arroyo_sync import CommitLogPublisher
from arroyo_sync.core.errors import ConfigurationError
from arroyo_sync.sentry.spans import ProcessSpans, PublishSpans
from arroyo_sync.testing import RecordingStep
from tests.support.sentry_transport import CatchingTransport, sentry

PARTITION = Partition(Topic("events"), 3)
TRACE_ID = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def transport() -> Iterator[CatchingTransport]:
    with sentry(traces_sample_rate=1.0) as transport:
        yield transport


def message(headers: list[tuple[str, bytes]] | None = None, age_seconds: float = 2.0) -> Message[Any]:
    written = datetime.now(timezone.utc).replace(tzinfo=None) - timedelta(seconds=age_seconds)
    return Message(BrokerValue(KafkaPayload(None, b"12345", headers or []), PARTITION, 41, written))


def spans(step: Any, sample_rate: float = 1.0) -> ProcessSpans[Any]:
    return ProcessSpans(step, sample_rate, lambda partition, offset: 0.25 if (partition, offset) == (3, 41) else 0.0)


def process_spans(transport: CatchingTransport) -> list[Any]:
    return [span for each in transport.transactions for span in each["spans"] if span["op"] == "queue.process"]


def test_a_released_message_is_a_span_with_the_attributes_of_the_conventions(transport: CatchingTransport) -> None:
    """What Sentry's queue module shows: where it came from, its size, how long it waited and how long it was held."""
    step = RecordingStep()
    spans(step).submit(message())
    assert len(step.messages) == 1
    (span,) = process_spans(transport)
    data = dict(span["data"])
    latency_ms = data.pop("messaging.message.receive.latency")
    assert 2000 <= latency_ms < 60_000
    expected = {
        "messaging.system": "kafka",
        "messaging.destination.name": "events",
        "messaging.destination.partition.id": "3",
        "messaging.kafka.offset": 41,
        "messaging.message.id": "events:3:41",
        "messaging.message.body.size": 5,
        "arroyo_sync.hold_time": 250.0,
    }
    assert {name: data[name] for name in expected} == expected


@pytest.fixture
def tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine nine hours ahead."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("tokyo")
def test_the_receive_latency_is_the_same_in_every_time_zone(transport: CatchingTransport) -> None:
    """Arroyo's timestamps are naive, and in UTC."""
    spans(RecordingStep()).submit(message(age_seconds=2.0))
    (span,) = process_spans(transport)
    assert 2000 <= span["data"]["messaging.message.receive.latency"] < 60_000


def test_a_span_goes_on_with_the_messages_trace(transport: CatchingTransport) -> None:
    """The producer's trace, by the headers that the SDK put there."""
    headers = [
        ("sentry-trace", f"{TRACE_ID}-0123456789abcdef-1".encode()),
        ("baggage", f"sentry-trace_id={TRACE_ID},sentry-release=1.2".encode()),
        ("other", b"\xff"),
    ]
    spans(RecordingStep()).submit(message(headers))
    (transaction,) = transport.transactions
    assert transaction["contexts"]["trace"]["trace_id"] == TRACE_ID
    assert transaction["contexts"]["trace"]["parent_span_id"] == "0123456789abcdef"


def test_the_producers_sampling_decision_holds(transport: CatchingTransport) -> None:
    """A trace that the producer didn't sample isn't begun here."""
    spans(RecordingStep()).submit(message([("sentry-trace", f"{TRACE_ID}-0123456789abcdef-0".encode())]))
    assert transport.transactions == []


def test_each_message_has_a_trace_of_its_own(transport: CatchingTransport) -> None:
    """And what comes after, on the same thread, is in none of them."""
    step = spans(RecordingStep())
    step.submit(message([("sentry-trace", f"{TRACE_ID}-0123456789abcdef-1".encode())]))
    step.submit(message())
    first, second = (each["contexts"]["trace"]["trace_id"] for each in transport.transactions[:2])
    assert first == TRACE_ID
    assert second != TRACE_ID
    assert sentry_sdk.get_current_span() is None
    spans(RecordingStep()).submit(message([("sentry-trace", f"{TRACE_ID}-0123456789abcdef-1".encode())]))
    sentry_sdk.capture_message("afterwards")
    assert transport.events[0]["contexts"]["trace"]["trace_id"] != TRACE_ID


def test_the_users_spans_are_inside(transport: CatchingTransport) -> None:
    """What the step does shows where the message shows."""

    class Step(RecordingStep):
        def submit(self, message: Message[Any]) -> None:
            with sentry_sdk.start_span(op="db", name="insert"):
                super().submit(message)

    spans(Step()).submit(message())
    (transaction,) = transport.transactions
    process, insert = sorted(transaction["spans"], key=lambda span: span["op"], reverse=True)
    assert insert["parent_span_id"] == process["span_id"]


class FailingStep(RecordingStep):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def submit(self, message: Message[Any]) -> None:
        raise self.error


def test_a_rejected_message_makes_no_span(transport: CatchingTransport) -> None:
    """It is submitted again, perhaps a hundred times a second; the one that is taken counts."""
    with pytest.raises(MessageRejected):
        spans(FailingStep(MessageRejected())).submit(message())
    assert transport.transactions == []


def test_an_invalid_message_is_a_span_that_failed(transport: CatchingTransport) -> None:
    """The error goes up untouched."""
    error = InvalidMessage(PARTITION, 41)
    with pytest.raises(InvalidMessage) as raised:
        spans(FailingStep(error)).submit(message())
    assert raised.value is error
    (span,) = process_spans(transport)
    assert (span.get("status") or span["tags"]["status"]) == "internal_error"  # older SDKs have it among the tags


def fail(*_: object, **__: object) -> Any:
    raise KeyError("wsgi_environ")


class FailingExit:
    """A scope that the SDK can't leave."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        fail()


FAILURES: dict[str, Callable[[pytest.MonkeyPatch], object]] = {
    "before there is one": lambda patch: patch.setattr(sentry_sdk, "start_transaction", fail),
    "in the middle": lambda patch: patch.setattr(sentry_sdk, "start_span", fail),
    "at the end": lambda patch: patch.setattr(sentry_sdk, "isolation_scope", FailingExit),
}


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("error", [None, MessageRejected(), InvalidMessage(PARTITION, 41)], ids=repr)
def test_a_span_that_fails_costs_no_message(
    transport: CatchingTransport,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    failure: str,
    error: Exception | None,
) -> None:
    """It goes to the next step once, whose own error goes up as it is; the span's is logged once a minute."""
    submitted: list[Message[Any]] = []

    class Step(RecordingStep):
        def submit(self, message: Message[Any]) -> None:
            submitted.append(message)
            if error is not None:
                raise error

    FAILURES[failure](monkeypatch)
    step = spans(Step())
    for _ in range(2):
        raised: Exception | None = None
        try:
            step.submit(message())
        except Exception as exc:
            raised = exc
        assert raised is error
    assert len(submitted) == 2
    assert error is None or (error.__context__, error.__cause__) == (None, None)
    assert sentry_sdk.get_current_span() is None
    (record,) = [each for each in caplog.records if each.name.startswith("arroyo_sync")]
    assert record.getMessage().startswith("Sentry's SDK failed to send a span, and the message goes on without it")
    assert (record.levelno, record.exc_info is not None) == (logging.WARNING, True)


def test_a_sampler_that_raises_costs_no_message() -> None:
    """One written for web requests finds no request here. Up to 2.66.0 the SDK lets out what it raises."""
    step = RecordingStep()
    producer = FakeProducer()
    with sentry(traces_sampler=lambda context: context["wsgi_environ"]):
        spans(step).submit(message())
        PublishSpans(producer, 1.0).produce(Topic("commits"), RECORD)
    assert (len(step.messages), len(producer.produced)) == (1, 1)


@pytest.mark.parametrize("error", [None, BufferError("the queue is full")], ids=repr)
def test_a_span_that_fails_costs_no_published_commit(
    transport: CatchingTransport,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception | None,
) -> None:
    """Likewise: once to the producer, whose own error goes up."""

    class Failing(FakeProducer):
        def produce(self, destination: Topic | Partition, payload: KafkaPayload) -> Future[BrokerValue[KafkaPayload]]:
            future = super().produce(destination, payload)
            if error is not None:
                raise error
            return future

    monkeypatch.setattr(sentry_sdk, "start_transaction", fail)
    producer = Failing()
    publish = PublishSpans(producer, 1.0)
    for _ in range(2):
        raised: Exception | None = None
        try:
            publish.produce(Topic("commits"), RECORD)
        except Exception as exc:
            raised = exc
        assert raised is error
    assert len(producer.produced) == 2
    (line,) = caplog.messages
    assert line.startswith("Sentry's SDK failed to send a span, and the record is published without it")


def test_some_messages_are_picked(transport: CatchingTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of those that aren't, Sentry hears nothing; every message goes through."""
    draws = iter([0.24, 0.25, 0.9])
    monkeypatch.setattr(random, "random", lambda: next(draws))
    step = RecordingStep()
    sampled = spans(step, 0.25)
    for _ in range(3):
        sampled.submit(message())
    assert len(step.messages) == 3
    assert len(process_spans(transport)) == 1


def test_nothing_is_sent_while_sentry_is_not_initialised_or_streams_spans() -> None:
    """The message goes through, and there is no warning."""
    step = RecordingStep()
    spans(step).submit(message())
    with sentry(traces_sample_rate=1.0, _experiments={"trace_lifecycle": "stream"}) as transport:
        spans(step).submit(message())
        assert transport.transactions == []
    assert len(step.messages) == 2


def test_the_setting_counts_over_the_experiment_that_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the SDK takes them."""
    with sentry(traces_sample_rate=1.0, _experiments={"trace_lifecycle": "stream"}) as transport:
        options = sentry_sdk.get_client().options
        for mode, count in (("static", 1), ("stream", 0), (None, 0)):
            monkeypatch.setitem(options, "trace_lifecycle", mode)
            before = len(transport.transactions)
            spans(RecordingStep()).submit(message())
            assert len(transport.transactions) == before + count, mode


def test_the_rest_of_a_step_is_the_next_steps() -> None:
    """Poll, close, terminate and join are passed on."""
    step = RecordingStep()
    sampled = spans(step)
    sampled.poll()
    sampled.close()
    sampled.join(1.0)
    sampled.terminate()
    assert (step.polls, step.is_closed, step.is_terminated) == (1, True, True)


class FakeProducer(Producer[KafkaPayload]):
    def __init__(self) -> None:
        self.produced: list[tuple[Topic | Partition, KafkaPayload]] = []
        self.is_closed = False

    def produce(self, destination: Topic | Partition, payload: KafkaPayload) -> Future[BrokerValue[KafkaPayload]]:
        self.produced.append((destination, payload))
        return Future()

    def close(self) -> Future[None]:
        self.is_closed = True
        return Future()


RECORD = KafkaPayload(b"events:3:writers", b'{"offset": 42}', [])


def test_a_published_commit_is_a_span_and_stays_as_it_is(transport: CatchingTransport) -> None:
    """Its bytes and headers are what other readers expect."""
    producer = FakeProducer()
    PublishSpans(producer, 1.0).produce(Topic("commits"), RECORD)
    assert producer.produced == [(Topic("commits"), RECORD)]
    (transaction,) = transport.transactions
    trace = transaction["contexts"]["trace"]
    assert (trace["op"], transaction["transaction"]) == ("queue.publish", "commits")
    data = trace["data"]
    assert data["messaging.system"] == "kafka"
    assert data["messaging.destination.name"] == "commits"
    assert data["messaging.message.id"] == "events:3:writers"
    assert data["messaging.message.body.size"] == len(RECORD.value)


def test_a_leaders_step_publishes_through_it(transport: CatchingTransport) -> None:
    """Where an assignment starts, and each commit; and the publisher learns the producer's settings through it."""

    class TellingProducer(FakeProducer):
        def get_config(self) -> dict[str, Any]:
            return {"bootstrap.servers": "127.0.0.1:1"}

    producer = TellingProducer()
    spans = PublishSpans(producer, 1.0)
    assert spans.get_config() == producer.get_config()
    assert PublishSpans(FakeProducer(), 1.0).get_config() == {}
    publisher = CommitLogPublisher(PublishSpans(FakeProducer(), 1.0), Topic("commits"), "writers")
    step = publisher.step(lambda offsets, force=False: None, {PARTITION: 41})
    step.terminate()
    (transaction,) = transport.transactions
    assert transaction["contexts"]["trace"]["data"]["messaging.message.id"] == "events:3:writers"


def test_a_published_commit_is_part_of_the_span_that_it_happens_in(transport: CatchingTransport) -> None:
    """The leader's own transaction shows it."""
    with sentry_sdk.start_transaction(op="leader", name="write"):
        PublishSpans(FakeProducer(), 1.0).produce(Partition(Topic("commits"), 0), RECORD)
    (transaction,) = transport.transactions
    assert [span["op"] for span in transaction["spans"]] == ["queue.publish"]


def test_without_sentry_a_commit_is_published_all_the_same() -> None:
    """And the producer is closed through it."""
    producer = FakeProducer()
    publish = PublishSpans(producer, 1.0)
    publish.produce(Topic("commits"), RECORD)
    publish.close()
    assert len(producer.produced) == 1
    assert producer.is_closed


@pytest.mark.parametrize("sample_rate", [0.0, -0.1, 1.1, float("nan")])
def test_an_impossible_sample_rate_is_an_error_that_says_so(sample_rate: float) -> None:
    """To have no spans, ask for none."""
    with pytest.raises(ConfigurationError, match="above 0 and up to 1"):
        PublishSpans(FakeProducer(), sample_rate)
    with pytest.raises(ConfigurationError, match="above 0 and up to 1"):
        spans(RecordingStep(), sample_rate)
