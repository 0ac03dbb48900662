"""Arroyo's private attributes are where the one module that touches them looks, and it goes on where they aren't."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import confluent_kafka
import pytest
from arroyo.backends.kafka import KafkaConsumer, KafkaPayload, KafkaProducer
from arroyo.processing.processor import StreamProcessor
from arroyo.processing.strategies.abstract import ProcessingStrategy, ProcessingStrategyFactory
from arroyo.types import Commit, Partition, Topic
from confluent_kafka import KafkaError, KafkaException, TopicPartition, cimpl

from arroyo_sync.core.log_throttle import LogThrottle
from arroyo_sync.kafka import arroyo_consumer
from arroyo_sync.kafka.questions import committed_offsets
from arroyo_sync.leaders.commit_log import consumer as commit_log_consumer
from arroyo_sync.leaders.commit_log.publishing.publisher import CommitLogPublisher
from arroyo_sync.sentry import PublishSpans
from arroyo_sync.testing import RecordingStep
from tests.support.fakes import EVENTS, ScriptedConsumer

QUESTIONS = (
    arroyo_consumer.client_of,
    arroyo_consumer.is_kip848,
    arroyo_consumer.group_of,
    arroyo_consumer.uses_auto_commit,
    arroyo_consumer.resets_to_end,
    arroyo_consumer.staged_offsets,
)
CONFIGURATION: dict[str, Any] = {
    "test.mock.num.brokers": 1,
    "bootstrap.servers": "127.0.0.1:1",
    "group.id": "follower",
    "auto.offset.reset": "earliest",
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
}


@pytest.fixture
def consumer() -> Iterator[KafkaConsumer]:
    consumer = KafkaConsumer(CONFIGURATION)
    yield consumer
    consumer.close()


class _Client(confluent_kafka.Consumer):
    """Notes what Arroyo subscribes with."""

    callbacks: dict[str, Any]

    def subscribe(self, topics: list[str], **callbacks: Any) -> None:  # type: ignore[override]
        self.callbacks = {**callbacks, "topics": topics}


PutClient = Callable[[type[_Client]], _Client]


@pytest.fixture
def put_client(consumer: KafkaConsumer) -> Iterator[PutClient]:
    """Puts a client of this kind into the consumer, which has its own back at the end. Both are closed then."""
    clients: list[_Client] = []
    with pytest.MonkeyPatch.context() as patched:

        def put(kind: type[_Client]) -> _Client:
            client = kind({"group.id": "follower"})
            clients.append(client)
            patched.setattr(consumer, arroyo_consumer.PRIVATE_ATTRIBUTES[0], client)
            return client

        yield put
    for client in clients:
        client.close()


def test_the_installed_arroyo_has_them_all(consumer: KafkaConsumer) -> None:
    """In the lowest and in the newest version that is supported: ``.ci/run`` runs this with both."""
    assert isinstance(arroyo_consumer.client_of(consumer), confluent_kafka.Consumer)
    assert arroyo_consumer.is_kip848(consumer) is False
    assert arroyo_consumer.group_of(consumer) == "follower"
    assert arroyo_consumer.uses_auto_commit(consumer) is False
    assert arroyo_consumer.resets_to_end(consumer) is False
    assert arroyo_consumer.staged_offsets(consumer) == {}
    assert callable(getattr(consumer, arroyo_consumer.ASSIGN_METHOD))


def test_what_is_not_known_of_arroyo_is_not_guessed(consumer: KafkaConsumer) -> None:
    """Where a resolver has another name, a group with `latest` would be set to the beginning of a new topic."""
    consumer._KafkaConsumer__resolve_partition_starting_offset = functools.partial(print)  # type: ignore[attr-defined]
    assert arroyo_consumer.resets_to_end(consumer) is None


def test_our_own_clients_are_none_of_a_tracers() -> None:
    """It would make spans of the commit log, and read headers in a way that some records end."""
    for module in (commit_log_consumer, committed_offsets):
        assert module.Consumer is cimpl.Consumer


def test_the_client_is_known_though_a_tracer_has_taken_its_class_place(
    consumer: KafkaConsumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As OpenTelemetry's does, after Arroyo was imported."""

    class Instrumented(confluent_kafka.Consumer):
        pass

    monkeypatch.setattr(confluent_kafka, "Consumer", Instrumented)
    assert arroyo_consumer.client_of(consumer) is not None
    later = KafkaConsumer(CONFIGURATION)
    later._KafkaConsumer__consumer.close()  # type: ignore[attr-defined]
    later._KafkaConsumer__consumer = client = Instrumented(CONFIGURATION)  # type: ignore[attr-defined]
    try:
        assert arroyo_consumer.client_of(later) is client
    finally:
        later.close()


class _Proxy:
    """Hands on whatever it hasn't."""

    __slots__ = ("_behind",)

    def __init__(self, behind: object) -> None:
        self._behind = behind

    def __getattr__(self, name: str) -> Any:
        return getattr(self._behind, name)


def test_what_is_put_into_a_consumer_goes_past_a_proxy(consumer: KafkaConsumer, put_client: PutClient) -> None:
    """On the proxy it would change nothing, if it can be set there at all."""
    name = arroyo_consumer.PRIVATE_ATTRIBUTES[4]
    before = getattr(consumer, name)
    proxy = _Proxy(_Proxy(consumer))
    arroyo_consumer.wait_for_added_partitions(proxy)
    assert getattr(consumer, name) != before
    assert getattr(consumer, name).__wrapped__ == before
    client = put_client(_Client)
    with arroyo_consumer.declining_assignments(proxy, lambda: True):
        consumer.subscribe([EVENTS])
    assert arroyo_consumer.client_of(consumer) is client
    client.callbacks["on_assign"](client, [TopicPartition("events", 0)])  # else the brokers would be asked


@pytest.mark.parametrize(
    ("auto_offset_reset", "offset"), [("earliest", 3), ("latest", 9), ("error", 3), ("smallest", 3), ("largest", 9)]
)
def test_where_a_partition_without_a_commit_begins(
    monkeypatch: pytest.MonkeyPatch, auto_offset_reset: str, offset: int
) -> None:
    """By the setting that Arroyo keeps to itself."""
    consumer = KafkaConsumer({**CONFIGURATION, "auto.offset.reset": auto_offset_reset})
    client = SimpleNamespace(get_watermark_offsets=lambda partition, timeout: (3, 9))
    monkeypatch.setattr(arroyo_consumer, "client_of", lambda consumer: client)
    try:
        assert arroyo_consumer.reset_offset(consumer, Partition(EVENTS, 0), 1.0) == offset
    finally:
        consumer.close()


@pytest.mark.parametrize(
    ("auto_offset_reset", "at_most", "offset"),
    [("latest", 5, 5), ("latest", 12, 9), ("latest", 0, 3), ("earliest", 5, 3), ("earliest", 0, 3)],
)
def test_latest_does_not_go_past_an_offset_that_the_partition_has(
    monkeypatch: pytest.MonkeyPatch, auto_offset_reset: str, at_most: int, offset: int
) -> None:
    """Nor before its beginning, where a consumer would find nothing."""
    consumer = KafkaConsumer({**CONFIGURATION, "auto.offset.reset": auto_offset_reset})
    client = SimpleNamespace(get_watermark_offsets=lambda partition, timeout: (3, 9))
    monkeypatch.setattr(arroyo_consumer, "client_of", lambda consumer: client)
    try:
        partition = Partition(EVENTS, 0)
        assert arroyo_consumer.reset_offset(consumer, partition, 1.0, latest_at_most=at_most) == offset
    finally:
        consumer.close()


def test_where_a_partition_ends_is_asked_of_its_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within the time that is given, and not of the client's memory. No answer is an error."""
    asked: list[tuple[TopicPartition, float]] = []
    answers: list[tuple[int, int] | None] = [(3, 9), None]

    def get_watermark_offsets(partition: TopicPartition, timeout: float) -> tuple[int, int] | None:
        asked.append((partition, timeout))
        return answers.pop(0)

    client = SimpleNamespace(get_watermark_offsets=get_watermark_offsets)
    monkeypatch.setattr(arroyo_consumer, "client_of", lambda consumer: client)
    assert arroyo_consumer.end_offset(ScriptedConsumer(), Partition(EVENTS, 4), 1.5) == 9
    assert asked == [(TopicPartition("events", 4), 1.5)]
    with pytest.raises(KafkaException, match="_TIMED_OUT"):
        arroyo_consumer.end_offset(ScriptedConsumer(), Partition(EVENTS, 4), 1.5)


class TestAddedPartition:
    """One that the client doesn't know yet: Arroyo alone would end in the assignment (KIP-848, real broker:
    ``tests/integration/test_rebalance.py``)."""

    @pytest.fixture
    def now(self, monkeypatch: pytest.MonkeyPatch) -> list[float]:
        """Seconds."""
        now = [0.0]

        def sleep(seconds: float) -> None:
            now[0] += seconds

        monkeypatch.setattr(arroyo_consumer, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
        return now

    def resolve(
        self,
        consumer: KafkaConsumer,
        monkeypatch: pytest.MonkeyPatch,
        now: list[float],
        error: int,
        known_at: float = float("inf"),
    ) -> Any:
        """Arroyo's method, under our hand."""

        def _KafkaConsumer__resolve_partition_offset_latest(partition: TopicPartition) -> TopicPartition:
            if now[0] < known_at:
                raise KafkaException(KafkaError(error))
            return TopicPartition(partition.topic, partition.partition, 7)

        name = arroyo_consumer.PRIVATE_ATTRIBUTES[4]
        monkeypatch.setattr(consumer, name, _KafkaConsumer__resolve_partition_offset_latest)
        # To have the client itself look for it is fatal in a callback.
        monkeypatch.setattr(arroyo_consumer, "client_of", lambda consumer: SimpleNamespace())
        arroyo_consumer.wait_for_added_partitions(consumer)
        return getattr(consumer, name)

    def test_it_is_resolved_once_the_metadata_has_it(
        self, consumer: KafkaConsumer, monkeypatch: pytest.MonkeyPatch, now: list[float]
    ) -> None:
        """And where ``auto.offset.reset`` says that it begins can still be told."""
        resolve = self.resolve(consumer, monkeypatch, now, KafkaError._UNKNOWN_PARTITION, known_at=0.75)
        assert resolve(TopicPartition("events", 1)).offset == 7
        assert now[0] == pytest.approx(0.8)
        assert arroyo_consumer.resets_to_end(consumer) is True

    def test_the_search_has_an_end(
        self, consumer: KafkaConsumer, monkeypatch: pytest.MonkeyPatch, now: list[float]
    ) -> None:
        """What Arroyo would have raised comes up then."""
        resolve = self.resolve(consumer, monkeypatch, now, KafkaError._UNKNOWN_PARTITION)
        with pytest.raises(KafkaException, match="_UNKNOWN_PARTITION"):
            resolve(TopicPartition("events", 1))
        assert now[0] == pytest.approx(arroyo_consumer.ADDED_SECONDS, abs=0.2)

    def test_any_other_error_comes_up_at_once(
        self, consumer: KafkaConsumer, monkeypatch: pytest.MonkeyPatch, now: list[float]
    ) -> None:
        resolve = self.resolve(consumer, monkeypatch, now, KafkaError._TRANSPORT)
        with pytest.raises(KafkaException, match="_TRANSPORT"):
            resolve(TopicPartition("events", 1))
        assert now[0] == 0.0

    def test_another_consumer_is_left_alone(self) -> None:
        consumer = ScriptedConsumer()
        before = dict(vars(consumer))
        arroyo_consumer.wait_for_added_partitions(consumer)
        assert vars(consumer) == before


class TestDecliningAssignments:
    """Real brokers, and a consumer that would never close: ``tests/integration/test_rebalance.py``."""

    def test_an_assignment_while_it_closes_asks_nothing(self, consumer: KafkaConsumer, put_client: PutClient) -> None:
        """Before, it is Arroyo's."""
        asked: list[list[TopicPartition]] = []

        class Client(_Client):
            def committed(self, partitions: list[TopicPartition], *args: Any) -> list[TopicPartition]:
                asked.append(partitions)
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT))

        is_closing = [False]
        client = put_client(Client)
        with arroyo_consumer.declining_assignments(consumer, lambda: is_closing[0]):
            consumer.subscribe([EVENTS])
        assert arroyo_consumer.client_of(consumer) is client
        assert client.callbacks["topics"] == ["events"]
        partitions = [TopicPartition("events", 0)]
        with pytest.raises(KafkaException, match="_TIMED_OUT"):
            client.callbacks["on_assign"](client, partitions)
        is_closing[0] = True
        client.callbacks["on_assign"](client, partitions)
        assert asked == [partitions]

    def test_what_was_declined_is_revoked_without_a_warning(
        self, consumer: KafkaConsumer, put_client: PutClient, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Arroyo warns of each partition that it doesn't know. What it knows, it is told of."""
        is_closing = [False]
        client = put_client(_Client)
        revoked: list[list[Partition]] = []
        with arroyo_consumer.declining_assignments(consumer, lambda: is_closing[0]):
            consumer.subscribe([EVENTS], on_revoke=lambda partitions: revoked.append(list(partitions)))
        is_closing[0] = True
        client.callbacks["on_assign"](client, [TopicPartition("events", 1)])
        client.callbacks["on_revoke"](client, [TopicPartition("events", 1)])
        assert (revoked, caplog.messages) == ([], [])
        client.callbacks["on_revoke"](client, [TopicPartition("events", 0), TopicPartition("events", 1)])
        assert revoked == [[Partition(EVENTS, 0)]]
        client.callbacks["on_revoke"](client, [])
        assert revoked[1:] == [[]]

    def test_a_subscription_that_is_refused_leaves_the_client_where_it_was(
        self, consumer: KafkaConsumer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        client = arroyo_consumer.client_of(consumer)
        with pytest.raises(KafkaException), arroyo_consumer.declining_assignments(consumer, lambda: False):
            consumer.subscribe([Topic("")])
        assert arroyo_consumer.client_of(consumer) is client

    def test_another_consumer_is_left_alone(self) -> None:
        consumer = ScriptedConsumer()
        before = dict(vars(consumer))
        with arroyo_consumer.declining_assignments(consumer, lambda: True):
            assert vars(consumer) == before


class TestHandingOutRebalances:
    """Real brokers: ``tests/integration/test_rebalance.py``, though what it is for is too rare for a test."""

    def test_what_is_queued_comes_before_the_closing_and_no_message_is_in_its_way(
        self, consumer: KafkaConsumer, put_client: PutClient
    ) -> None:
        calls: list[object] = []
        queued: list[object] = ["an assignment", "an error", None, "what comes later"]

        class Client(_Client):
            def assignment(self) -> list[TopicPartition]:
                return [TopicPartition("events", 3)]

            def pause(self, partitions: list[TopicPartition]) -> None:
                calls.append([each.partition for each in partitions])

            def poll(self, timeout: float | None = -1) -> Any:
                calls.append(timeout)
                return queued.pop(0)

        put_client(Client)
        arroyo_consumer.hand_out_rebalances(consumer)
        assert calls == [[3], 0, 0, 0]

    def test_an_error_that_a_callback_raises_leaves_none_in_the_queue(
        self, consumer: KafkaConsumer, put_client: PutClient
    ) -> None:
        """The next one would come out of the closing, which would not be done then. The first is raised at the end."""
        first, second = KafkaException("refused"), KafkaException("refused again")
        queued: list[object] = [first, "an assignment", second, None]

        class Client(_Client):
            def poll(self, timeout: float | None = -1) -> Any:
                event = queued.pop(0)
                if isinstance(event, Exception):
                    raise event
                return event

        put_client(Client)
        with pytest.raises(KafkaException) as raised:
            arroyo_consumer.hand_out_rebalances(consumer)
        assert (raised.value, queued) == (first, [])

    def test_a_client_that_never_has_done_is_closed_all_the_same(
        self, consumer: KafkaConsumer, put_client: PutClient
    ) -> None:
        polls: list[float | None] = []

        class Client(_Client):
            def poll(self, timeout: float | None = -1) -> Any:
                polls.append(timeout)
                return "an error"

        put_client(Client)
        arroyo_consumer.hand_out_rebalances(consumer)
        assert len(polls) == 1_000

    def test_another_consumer_is_left_alone(self) -> None:
        consumer = ScriptedConsumer()
        before = dict(vars(consumer))
        arroyo_consumer.hand_out_rebalances(consumer)
        assert vars(consumer) == before


def test_where_another_consumer_would_begin_is_not_known() -> None:
    """Nor where a partition ends. Nothing is made up."""
    for ask in (arroyo_consumer.reset_offset, arroyo_consumer.end_offset):
        with pytest.raises(LookupError, match="ScriptedConsumer has no client"):
            ask(ScriptedConsumer(), Partition(EVENTS, 0), 1.0)


def test_a_consumer_of_the_new_protocol_is_known() -> None:
    settings = {name: value for name, value in CONFIGURATION.items() if name != "partition.assignment.strategy"}
    consumer = KafkaConsumer({**settings, "group.protocol": "consumer"})
    try:
        assert arroyo_consumer.is_kip848(consumer) is True
    finally:
        consumer.close()


def test_another_consumer_answers_nothing_and_nothing_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    assert [ask(object()) for ask in QUESTIONS] == [None] * len(QUESTIONS)
    assert (arroyo_consumer.consumer_behind(print), arroyo_consumer.outermost_factory(print)) == (None, None)
    assert caplog.records == []


@pytest.mark.parametrize("name", arroyo_consumer.PRIVATE_ATTRIBUTES)
def test_an_arroyo_without_one_of_them_is_told_of_once(
    name: str, consumer: KafkaConsumer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(arroyo_consumer, "_throttle", LogThrottle(float("inf"), lambda: 0.0))
    value = consumer.__dict__.pop(name)
    try:
        for _ in range(2):
            assert [ask(consumer) for ask in QUESTIONS].count(None) == 1
    finally:
        consumer.__dict__[name] = value
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert name.removeprefix("_KafkaConsumer") in record.getMessage()


def test_a_producer_shows_its_settings_also_where_it_has_no_method_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the oldest one that is supported: a leader's publisher asked no broker with it, and said nothing of that."""
    settings = {"bootstrap.servers": "127.0.0.1:1", "log_level": 0, "message.timeout.ms": 10_000}
    producer = KafkaProducer(settings)
    try:
        assert arroyo_consumer.producer_settings(producer) == settings
        monkeypatch.delattr(KafkaProducer, "get_config", raising=False)
        assert arroyo_consumer.producer_settings(producer) == settings
        assert PublishSpans(producer, 1.0).get_config() == settings
        publisher = CommitLogPublisher(producer, Topic("commits"), "writers")
        assert publisher._questions is not None
        assert publisher._queue._delivery_timeout == 10.0
    finally:
        producer.close().result()


def test_another_producer_shows_none(caplog: pytest.LogCaptureFixture) -> None:
    class Silent:
        """Of somebody's own."""

    class Odd:
        def get_config(self) -> str:
            return "bootstrap.servers"

    assert [arroyo_consumer.producer_settings(each) for each in (Silent(), Odd())] == [None, None]
    assert caplog.records == []


class Steps(ProcessingStrategyFactory[KafkaPayload]):
    """Keeps the ``commit`` that Arroyo gives it."""

    def create_with_partitions(
        self, commit: Commit, partitions: Mapping[Partition, int]
    ) -> ProcessingStrategy[KafkaPayload]:
        self.commit = commit
        return RecordingStep()


def test_a_processor_is_known_by_its_commit() -> None:
    """Its consumer and its factory; where a factory has wrapped the commit, neither is known."""
    inner, steps = ScriptedConsumer(), Steps()
    StreamProcessor(inner, EVENTS, steps)
    inner.assign(0)
    assert arroyo_consumer.consumer_behind(steps.commit) is inner
    assert arroyo_consumer.outermost_factory(steps.commit) is steps
    assert arroyo_consumer.consumer_behind(lambda *args: steps.commit(*args)) is None


@pytest.mark.parametrize("name", arroyo_consumer.PROCESSOR_ATTRIBUTES)
def test_a_processor_without_one_of_them_is_told_of_once(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(arroyo_consumer, "_throttle", LogThrottle(float("inf"), lambda: 0.0))
    inner, steps = ScriptedConsumer(), Steps()
    processor = StreamProcessor(inner, EVENTS, steps)
    inner.assign(0)
    del processor.__dict__[name]
    for _ in range(2):
        answers = [ask(steps.commit) for ask in (arroyo_consumer.consumer_behind, arroyo_consumer.outermost_factory)]
        assert answers.count(None) == 1
    (record,) = [each for each in caplog.records if each.name == arroyo_consumer.logger.name]
    assert "StreamProcessor has no __" in record.getMessage()


# What is staged.


def test_what_is_staged_can_be_taken_back(consumer: KafkaConsumer) -> None:
    """But not what was staged over it."""
    consumer.stage_offsets({Partition(EVENTS, index): 4 + index for index in range(3)})
    arroyo_consumer.unstage_offsets(
        consumer, {Partition(EVENTS, 0): 4, Partition(EVENTS, 1): 4, Partition(EVENTS, 7): 4}
    )
    assert arroyo_consumer.staged_offsets(consumer) == {Partition(EVENTS, 1): 5, Partition(EVENTS, 2): 6}


def test_under_auto_commit_nothing_can_be_taken_back() -> None:
    """librdkafka has it."""
    consumer = ScriptedConsumer()
    consumer._KafkaConsumer__use_auto_commit = True  # type: ignore[attr-defined]
    consumer.stage_offsets({Partition(EVENTS, 0): 4})
    assert arroyo_consumer.staged_offsets(consumer) is None
    arroyo_consumer.unstage_offsets(consumer, {Partition(EVENTS, 0): 4})
    assert consumer._staged == {Partition(EVENTS, 0): 4}
