"""The factory: one source, one factory, one consumer; the gate first, and a life beyond rebalances."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from typing import Any

import pytest
from arroyo.backends.kafka import KafkaConsumer, KafkaPayload
from arroyo.processing.processor import StreamProcessor
from arroyo.processing.strategies import CommitOffsets
from arroyo.processing.strategies.abstract import ProcessingStrategy, ProcessingStrategyFactory
from arroyo.types import Commit, Partition, Topic
from confluent_kafka import KafkaError, KafkaException

from arroyo_sync.core.errors import ArroyoSyncError, ConfigurationError
from arroyo_sync.core.state import SynchronizedPartitionState
from arroyo_sync.gate import factory as factory_module
from arroyo_sync.gate.factory import SynchronizedStrategyFactory
from arroyo_sync.gate.flow_control import FlowControlledConsumer
from arroyo_sync.gate.partition_buffer import HoldLimits
from arroyo_sync.gate.strategy import SynchronizedStrategy
from arroyo_sync.kafka.arroyo_consumer import KafkaWatermarks
from arroyo_sync.testing import ManualSource
from tests.support.fakes import EVENTS, ScriptedConsumer, ScriptedStep, message, partition
from tests.support.harness import CarefulSource, NotedSource
from tests.support.pipelines import pipeline_of


class UserFactory(ProcessingStrategyFactory[KafkaPayload]):
    """Makes a step by script, and remembers what it was asked."""

    def __init__(self) -> None:
        self.step = ScriptedStep()
        self.asked: list[tuple[Commit, dict[Partition, int]]] = []
        self.shutdowns = 0

    def create_with_partitions(
        self, commit: Commit, partitions: Mapping[Partition, int]
    ) -> ProcessingStrategy[KafkaPayload]:
        self.asked.append((commit, dict(partitions)))
        return self.step

    def shutdown(self) -> None:
        self.shutdowns += 1


def no_commit(offsets: Mapping[Partition, int], force: bool = False) -> None:
    """A commit that goes nowhere."""


def make_factory(
    source: ManualSource | None = None, user: UserFactory | None = None, **settings: Any
) -> SynchronizedStrategyFactory[KafkaPayload]:
    settings.setdefault("monitor_interval", None)
    return SynchronizedStrategyFactory(user or UserFactory(), source or NotedSource(), **settings)


@pytest.fixture
def kafka_consumer() -> Iterator[KafkaConsumer]:
    """Arroyo's consumer, of a broker that isn't there."""
    consumer = KafkaConsumer(
        {
            "bootstrap.servers": "127.0.0.1:1",
            "group.id": "follower",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "log_level": 0,
        }
    )
    yield consumer
    consumer.close()


# One source, one factory, one consumer.


def test_a_second_flow_control_is_refused_with_what_to_do() -> None:
    """A factory serves one consumer; two would share its offsets."""
    factory = make_factory()
    factory.flow_control(ScriptedConsumer())
    with pytest.raises(ConfigurationError, match="a factory serves one consumer; make a source and a factory for each"):
        factory.flow_control(ScriptedConsumer())


def test_a_source_of_another_factory_is_refused_with_what_to_do() -> None:
    """Also when that factory is long gone, since the source has been started, and perhaps stopped, by then."""
    source = ManualSource()
    make_factory(source)
    gc.collect()
    with pytest.raises(ConfigurationError, match="make one source for each factory"):
        make_factory(source)
    make_factory(ManualSource())


@pytest.mark.parametrize("seconds", [0, -1, 0.0, float("nan")])
def test_a_slice_of_no_time_is_refused(seconds: float) -> None:
    """Or the loop would never rest."""
    with pytest.raises(ConfigurationError, match=r"slice_seconds=.*more than 0") as raised:
        make_factory(slice_seconds=seconds)
    assert isinstance(raised.value, ArroyoSyncError)


def test_a_setting_that_is_refused_does_not_use_up_the_source() -> None:
    """So that a notebook or a test can try again with the same one."""
    source = ManualSource()
    with pytest.raises(ConfigurationError):
        make_factory(source, slice_seconds=0)
    make_factory(source)


def test_partitions_of_several_topics_are_refused() -> None:
    """Before anything of them is handed on."""
    factory = make_factory()
    with pytest.raises(ConfigurationError, match="one topic"):
        factory.create_with_partitions(no_commit, {partition(0): 0, Partition(Topic("others"), 0): 0})


@pytest.mark.parametrize(
    ("topic", "told"),
    [pytest.param("events", ["events"], id="a topic"), pytest.param("^events.*", [], id="a pattern")],
)
def test_the_source_is_told_the_topic_before_it_is_started(topic: str, told: list[str]) -> None:
    """So it keeps nothing of any other; of a pattern it learns by the first assignment."""
    source = NotedSource()
    topics: list[str] = []

    def note(topic: str) -> None:
        assert source.starts == 0
        topics.append(topic)

    source.subscribe = note  # type: ignore[method-assign]
    flow = make_factory(source).flow_control(ScriptedConsumer())
    flow.subscribe([Topic(topic)])
    flow.poll(0.0)
    assert (topics, source.starts) == (told, 1)


class OwnSource:
    """What a source must have, and no more. It inherits nothing."""

    def __init__(self, unverified: Mapping[Any, int]) -> None:
        self.unverified = unverified

    def start(self, manager: object) -> None: ...
    def check(self) -> None: ...
    def stop(self, timeout: float) -> None: ...
    def assign(self, positions: object, watermarks: object) -> None: ...
    def revoke(self, partitions: object) -> None: ...
    def received(self, topic: str, partition: int, next_offset: int) -> None: ...


def test_a_source_that_was_written_before_topics_were_told_goes_on_as_it_is() -> None:
    """It needn't inherit the contract."""
    older: Any = OwnSource({})
    flow = make_factory(older).flow_control(ScriptedConsumer())
    flow.subscribe([Topic("events")])
    assert flow.poll(0.0) is None


def test_a_source_of_ones_own_that_has_something_unverified_needs_no_more_than_was_asked_for() -> None:
    """The follower ended with an AttributeError at its first unverified offset, days later maybe."""
    own: Any = OwnSource({("events", 0): 5})
    factory = make_factory(own)
    factory.flow_control(ScriptedConsumer())
    gate = factory.create_with_partitions(no_commit, {partition(0): 4})
    factory.manager.wake()
    gate.poll()


# What it makes.


def test_constructors_start_nothing() -> None:
    """Neither the factory's nor the wrapper's; `create_with_partitions` starts the source, with the manager."""
    source = NotedSource()
    factory = make_factory(source)
    factory.flow_control(ScriptedConsumer())
    assert source.starts == 0
    factory.create_with_partitions(no_commit, {partition(0): 4})
    assert source.manager is factory.manager


def test_the_gate_stands_before_the_users_strategy() -> None:
    """Which is made with Arroyo's commit and partitions, and gets only what is released."""
    user, source = UserFactory(), NotedSource()
    factory = make_factory(source, user)
    gate = factory.create_with_partitions(no_commit, {partition(0): 4})
    assert isinstance(gate, SynchronizedStrategy)
    assert user.asked == [(no_commit, {partition(0): 4})]
    gate.submit(message(0, 4))
    assert user.step.taken == []
    source.set_remote_offset("events", 0, 5)
    gate.poll()
    assert user.step.taken == [(0, 4)]


def test_the_source_is_told_the_positions_before_the_gate_is_made() -> None:
    """So that no offset that isn't proven can be in force when the first message comes."""
    states: list[SynchronizedPartitionState | None] = []
    source = CarefulSource()
    factory = make_factory(source, on_state_change=lambda *change: states.append(change[3][0]))
    source.set_remote_offset("events", 0, 100)
    factory.create_with_partitions(no_commit, {partition(0): 4})
    assert source.calls == [("assign", {("events", 0): 4}, None)]
    assert states == [SynchronizedPartitionState.UNKNOWN]


def test_the_limits_are_the_gates() -> None:
    """And the default ones are those of `HoldLimits`."""
    factory = make_factory(limits=HoldLimits(messages=2, resume_messages=1))
    gate = factory.create_with_partitions(no_commit, {partition(0): 0})
    assert isinstance(gate, SynchronizedStrategy)
    gate.submit(message(0, 0))
    gate.submit(message(0, 1))
    assert dict(gate.buffers.take_pause_changes()) == {partition(0): True}
    default = make_factory().create_with_partitions(no_commit, {partition(0): 0})
    assert isinstance(default, SynchronizedStrategy)
    assert [line.limits for line in default.buffers] == [HoldLimits()]


def test_offsets_outlive_a_rebalance() -> None:
    """The leaders' offsets are known to the next gate at once, though nothing new is published."""
    pipeline = pipeline_of(0)
    pipeline.release(0, 3)
    pipeline.release(1, 2)
    pipeline.run_until_quiet()
    pipeline.consumer.rebalance(1)
    pipeline.run_until_quiet()
    assert pipeline.released_of(1) == [0, 1]


def test_held_shows_what_each_partition_holds() -> None:
    """Nothing before the first assignment; afterwards the partitions of the newest one."""
    pipeline = pipeline_of(0, 1, produced=5)
    assert make_factory().held == {}
    pipeline.release(0, 2)
    pipeline.run_until_quiet()
    assert dict(pipeline.factory.held) == {("events", 0): 3, ("events", 1): 5}
    pipeline.consumer.rebalance(1)
    pipeline.run_until_quiet()
    assert dict(pipeline.factory.held) == {("events", 1): 5}


# The end.


def test_shutdown_stops_the_source_in_its_time_and_then_the_users_factory() -> None:
    """The timeout is the factory's."""
    user, source = UserFactory(), NotedSource()
    make_factory(source, user, stop_timeout=2.5).shutdown()
    assert (source.stop_timeouts, source.is_stopped, user.shutdowns) == ([2.5], True, 1)


def test_the_users_factory_is_shut_down_though_the_source_fails_to_stop() -> None:
    """What the user holds is released in any case, and the error is not swallowed."""
    user = UserFactory()

    class Stuck(ManualSource):
        def stop(self, timeout: float) -> None:
            raise TimeoutError("stuck")

    with pytest.raises(TimeoutError, match="stuck"):
        make_factory(Stuck(), user).shutdown()
    assert user.shutdowns == 1


def test_the_source_is_stopped_though_the_wait_for_the_monitor_is_broken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a second Ctrl-C. The reader would run on without a follower."""
    user, source = UserFactory(), NotedSource()
    factory = make_factory(source, user)

    def interrupt(timeout: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(factory._monitor, "stop", interrupt)
    with pytest.raises(KeyboardInterrupt):
        factory.shutdown()
    assert (source.stop_timeouts, user.shutdowns) == ([5.0], 1)


# In the wrong place.


class Wrapping(ProcessingStrategyFactory[KafkaPayload]):
    """A factory around another one, as Sentry's runner makes them, that doesn't hand ``shutdown`` on."""

    def __init__(self, inner: ProcessingStrategyFactory[KafkaPayload]) -> None:
        self.inner = inner

    def create_with_partitions(
        self, commit: Commit, partitions: Mapping[Partition, int]
    ) -> ProcessingStrategy[KafkaPayload]:
        return self.inner.create_with_partitions(commit, partitions)


class HandingOn(Wrapping):
    """As it should be."""

    def shutdown(self) -> None:
        self.inner.shutdown()


def run_and_end(wrap: Callable[[Any], Any]) -> tuple[NotedSource, UserFactory, list[str]]:
    """A pipeline whose processor is given the wrapped factory, ended as a signal ends it."""
    source, user, inner = NotedSource(), UserFactory(), ScriptedConsumer()
    factory = make_factory(source, user)
    processor = StreamProcessor(factory.flow_control(inner), EVENTS, wrap(factory))
    inner.rebalance(0)
    for _ in range(3):
        processor._run_once()
    processor.signal_shutdown()
    processor.run()
    return source, user, user.step.calls


def test_loud_a_source_that_an_outer_factory_would_leave_running_is_stopped_with_its_consumer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """And one warning says why, and what to do."""
    source, user, calls = run_and_end(Wrapping)
    assert (source.stop_timeouts, user.shutdowns) == ([5.0], 0)
    assert calls[-2:] == ["close", "join"]
    (warning,) = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert "Wrapping doesn't hand shutdown() on" in warning.getMessage()
    assert "Make SynchronizedStrategyFactory the outermost factory" in warning.getMessage()


@pytest.mark.parametrize("wrap", [lambda factory: factory, HandingOn], ids=["outermost", "wrapped"])
def test_a_factory_that_is_shut_down_needs_no_warning(
    wrap: Callable[[Any], Any], caplog: pytest.LogCaptureFixture
) -> None:
    """The source is stopped once."""
    source, user, _ = run_and_end(wrap)
    assert (source.stop_timeouts, user.shutdowns) == ([5.0], 1)
    assert [each for each in caplog.records if each.levelno >= logging.WARNING] == []


def test_a_source_that_fails_to_stop_does_not_keep_the_consumer_from_closing(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and the processor ends as it would."""

    class Stuck(NotedSource):
        def stop(self, timeout: float) -> None:
            raise TimeoutError("stuck")

    inner = ScriptedConsumer()
    flow = make_factory(Stuck()).flow_control(inner)
    flow.close()
    assert inner.closed
    assert "could not be stopped" in caplog.text


# The follower's own group.


class WithGroups(ManualSource):
    groups = frozenset({"writers", "others"})


def test_a_follower_in_a_leaders_group_is_refused() -> None:
    """It would take the leader's partitions, and wait for itself for ever."""
    consumer = ScriptedConsumer()
    consumer._KafkaConsumer__group_id = "writers"  # type: ignore[attr-defined]
    factory = make_factory(WithGroups())
    with pytest.raises(ConfigurationError, match=r"group\.id='writers' is also one of the leader groups"):
        factory.flow_control(consumer)


def test_a_follower_in_a_leaders_group_is_refused_without_the_flow_control_too() -> None:
    """At the first assignment, where the consumer is known by the commit that Arroyo hands to the factory."""
    consumer = ScriptedConsumer(is_kip848=False)
    consumer._KafkaConsumer__group_id = "writers"  # type: ignore[attr-defined]
    StreamProcessor(consumer, EVENTS, make_factory(WithGroups()))
    with pytest.raises(ConfigurationError, match=r"group\.id='writers' is also one of the leader groups"):
        consumer.assign(0)


def test_a_group_of_its_own_is_fine(kafka_consumer: KafkaConsumer) -> None:
    """And so is a consumer that doesn't tell its group."""
    make_factory(WithGroups()).flow_control(kafka_consumer)
    make_factory(WithGroups()).flow_control(ScriptedConsumer())


# Without the wrapper.


def test_kip848_without_the_flow_control_is_refused() -> None:
    """Before any message is read: a rebalance would lose what is held."""
    consumer, user = ScriptedConsumer(is_kip848=True), UserFactory()
    StreamProcessor(consumer, EVENTS, make_factory(user=user))
    with pytest.raises(ConfigurationError, match=r"group\.protocol=consumer without flow_control\(\): .*returns"):
        consumer.assign(0)
    assert user.asked == []


@pytest.mark.parametrize("is_kip848", [True, False])
def test_a_processor_with_another_consumer_than_the_flow_controls_is_refused(is_kip848: bool) -> None:
    """As where what `flow_control` returns was ignored: what is held would be lost in a rebalance, without a word."""
    consumer, user = ScriptedConsumer(is_kip848=is_kip848), UserFactory()
    factory = make_factory(user=user)
    factory.flow_control(consumer)
    StreamProcessor(consumer, EVENTS, factory)
    with pytest.raises(ConfigurationError) as raised:
        consumer.assign(0)
    assert str(raised.value) == (
        "the StreamProcessor has another consumer than the one that flow_control() returned: messages would be lost in "
        "rebalances. Give it what factory.flow_control(consumer) returns, not the consumer itself"
    )
    assert user.asked == []


def test_where_an_assignment_begins_is_durable_without_the_flow_control_too() -> None:
    """By the commit that Arroyo hands to the factory; what it raises is logged."""
    consumer = ScriptedConsumer(is_kip848=False)
    StreamProcessor(consumer, EVENTS, make_factory())
    consumer.assign(0, 1)
    assert consumer.committed == {0: 0, 1: 0}


def test_a_start_that_can_not_be_committed_without_the_flow_control_ends_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(offsets: Mapping[Partition, int], force: bool = False) -> None:
        raise RuntimeError("coordinator is away")

    make_factory().create_with_partitions(refuse, {partition(0): 4})
    assert "The positions that this assignment begins at could not be committed: coordinator is away" in caplog.messages


@pytest.mark.parametrize(
    ("code", "refusals"), [(KafkaError.ILLEGAL_GENERATION, 1), (KafkaError.REQUEST_TIMED_OUT, 2)], ids=["gone", "late"]
)
def test_a_start_stays_staged_without_the_flow_control_unless_the_group_has_moved_on(code: int, refusals: int) -> None:
    """The next commit of Arroyo's own step is another try then. It would end the processor where there is no use in
    one: the next assignment begins anew."""

    class User(UserFactory):
        def create_with_partitions(self, commit: Commit, partitions: Mapping[Partition, int]) -> CommitOffsets:
            return CommitOffsets(commit)

    consumer = ScriptedConsumer(is_kip848=False)
    StreamProcessor(consumer, EVENTS, make_factory(user=User()))
    consumer.commit_errors.extend([KafkaException(KafkaError(code)), KafkaException(KafkaError(code))])
    consumer.assign(0)
    with pytest.raises(KafkaException) if refusals == 2 else nullcontext():
        consumer.revoke(0)  # the step is joined
    assert consumer.refused == [{0: 0}] * refusals


def test_loud_one_warning_says_what_is_lost_without_the_flow_control(caplog: pytest.LogCaptureFixture) -> None:
    """Once, at the first assignment, however many follow."""
    factory = make_factory()
    assert caplog.records == []
    for _ in range(3):
        factory.create_with_partitions(no_commit, {partition(0): 0})
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert "flow_control() was never called" in warnings[0]
    assert "factory.flow_control(consumer)" in warnings[0]


def test_with_the_flow_control_there_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing to say."""
    pipeline = pipeline_of(0)
    pipeline.run()
    assert [record for record in caplog.records if record.name.startswith("arroyo_sync")] == []


# Around Arroyo's real consumer.


def test_the_source_may_ask_the_followers_own_consumer_where_partitions_end(
    kafka_consumer: KafkaConsumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only as long as it is open: a call into a closed handle could crash the process."""
    was_closed: list[bool] = []

    class Watermarks(KafkaWatermarks):
        def close(self) -> None:
            was_closed.append(kafka_consumer.closed)
            super().close()

    monkeypatch.setattr(factory_module, "KafkaWatermarks", Watermarks)
    source = NotedSource()
    factory = make_factory(source)
    flow = factory.flow_control(kafka_consumer)
    flow.subscribe([Topic("events")])
    factory.create_with_partitions(no_commit, {})
    (_, _, watermarks), *_ = source.calls
    assert watermarks is not None
    assert watermarks.cached("events", 0) is None
    flow.close()
    assert (was_closed, flow.closed) == ([False], True)
    assert watermarks.cached("events", 0) is None


def test_the_wrapper_goes_around_arroyos_consumer_unseen(kafka_consumer: KafkaConsumer) -> None:
    """Before any assignment it answers as that one does."""
    flow = make_factory().flow_control(kafka_consumer)
    assert isinstance(flow, FlowControlledConsumer)
    assert (flow.closed, dict(flow.tell()), list(flow.paused())) == (False, {}, [])
    assert flow.member_id == kafka_consumer.member_id
