"""What the factory shows and watches, under Arroyo's real processor on its local broker."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import pytest
import sentry_sdk
from arroyo.backends.local.backend import LocalBroker
from arroyo.backends.local.storages.memory import MemoryMessageStorage
from arroyo.processing.processor import StreamProcessor
from arroyo.processing.strategies.abstract import ProcessingStrategy, ProcessingStrategyFactory
from arroyo.types import Commit, Partition, Topic
from arroyo.utils.clock import MockedClock

from arroyo_sync.core.errors import ConfigurationError, FollowerStalled, SourceDied
from arroyo_sync.core.source import LeaderOffset, SourceStatistics
from arroyo_sync.core.state import PartitionKey, SynchronizedPartitionState
from arroyo_sync.gate.factory import SynchronizedStrategyFactory
from arroyo_sync.observe import monitor
from arroyo_sync.observe.stalls import Stall, WaitsFor
from arroyo_sync.testing import ManualSource, RecordingStep
from tests.support.sentry_transport import CatchingTransport, sentry
from tests.support.threads import BegunThreads

TOPIC = Topic("events")
KEY = ("events", 0)


class TellingSource(ManualSource):
    """A source that says what its leaders published."""

    groups = ("writers", "indexers")

    def __init__(self, now: float) -> None:
        super().__init__()
        self.offsets = {"writers": LeaderOffset(2, 1_000, now - 1.0, 0.5)}
        self.reported: Collection[str] = ()

    def published(self) -> Mapping[PartitionKey, Mapping[str, LeaderOffset]]:
        return {KEY: self.offsets}

    def statistics(self) -> SourceStatistics:
        return SourceStatistics(ready=True, alive=True, read=7, groups_reported=self.reported)

    def death(self) -> SourceDied | None:
        try:
            self.check()
        except SourceDied as died:
            return died
        return None


class PartialSource(TellingSource):
    """One that can tell of some partitions alone, and notes of which it is asked."""

    def __init__(self, now: float) -> None:
        super().__init__(now)
        self.asked: list[Collection[PartitionKey] | None] = []
        self.impossible: list[PartitionKey] = []

    def published(
        self, partitions: Collection[PartitionKey] | None = None
    ) -> Mapping[PartitionKey, Mapping[str, LeaderOffset]]:
        self.asked.append(partitions)
        return {KEY: self.offsets} if partitions is None or KEY in partitions else {}

    def rejected(self) -> Collection[PartitionKey]:
        return self.impossible


class StepFactory(ProcessingStrategyFactory[bytes]):
    def __init__(self) -> None:
        self.step = RecordingStep()
        self.is_shut_down = False

    def create_with_partitions(self, commit: Commit, partitions: Mapping[Partition, int]) -> ProcessingStrategy[bytes]:
        return self.step

    def shutdown(self) -> None:
        self.is_shut_down = True


class World:
    """A follower of one partition with five messages, and a clock that moves when it is told."""

    def __init__(self, source: ManualSource, **keywords: Any) -> None:
        self.now = 1000.0
        self.source = source
        self.steps = StepFactory()
        broker: LocalBroker[bytes] = LocalBroker(MemoryMessageStorage(), MockedClock())
        broker.create_topic(TOPIC, 1)
        producer = broker.get_producer()
        for number in range(5):
            producer.produce(Partition(TOPIC, 0), str(number).encode()).result()
        self.factory = SynchronizedStrategyFactory(
            self.steps, source, clock=lambda: self.now, **{"monitor_interval": 0.001, **keywords}
        )
        self.processor = StreamProcessor(
            self.factory.flow_control(broker.get_consumer("followers")), TOPIC, self.factory
        )

    def run_until_held(self, count: int) -> None:
        for _ in range(20):
            self.processor._run_once()
            if self.factory.held.get(KEY) == count:
                self.now += 1.0
                self.processor._run_once()  # the gate tells its offsets once a slice
                return
        raise AssertionError(f"{self.factory.held} are held, not {count}")

    def run_until(self, is_so: Callable[[], bool]) -> None:
        for _ in range(2000):
            if is_so():
                return
            self.processor._run_once()
        raise AssertionError("it never was so")


@pytest.fixture
def make() -> Iterator[Callable[..., World]]:
    worlds: list[World] = []

    def make(source: ManualSource | None = None, **keywords: Any) -> World:
        worlds.append(World(source or ManualSource(), **keywords))
        return worlds[-1]

    yield make
    for world in worlds:
        world.factory.shutdown()


def test_a_snapshot_shows_offsets_what_is_held_and_what_every_leader_published(make: Callable[..., World]) -> None:
    """Also a leader that published nothing, and how old the others' announcements are."""
    world = make(TellingSource(now=1000.0), monitor_interval=None)
    world.source.set_remote_offset(*KEY, 2)
    world.run_until_held(3)
    world.now = 1004.0
    snapshot = world.factory.snapshot()
    (partition,) = snapshot.partitions
    assert partition.key == KEY
    assert partition.state is SynchronizedPartitionState.SYNCHRONIZED
    assert (partition.local_offset, partition.remote_offset) == (2, 2)
    assert (partition.held_messages, partition.oldest_held_seconds, partition.is_full) == (3, 4.0, False)
    assert partition.held_bytes is not None
    assert partition.held_bytes > 1500
    indexers, writers = partition.leaders
    assert (indexers.group, indexers.published_offset, indexers.age_seconds) == ("indexers", None, None)
    assert (writers.group, writers.published_offset, writers.published_at) == ("writers", 2, 1.0)
    assert writers.age_seconds == pytest.approx(snapshot.taken_at - 1.0)
    read_at_ms = (snapshot.taken_at - 5.0) * 1000
    assert writers.record_latency_ms == pytest.approx(read_at_ms - 1000.0)
    assert writers.message_latency_ms == pytest.approx(read_at_ms - 500.0)
    assert snapshot.source == SourceStatistics(ready=True, alive=True, read=7)
    assert snapshot.source_error is None


def test_how_far_the_follower_is_in_all_is_seen_whichever_partitions_are_shown(make: Callable[..., World]) -> None:
    """By that the monitor tells a follower that is busy elsewhere from one that hangs."""
    world = make(source := PartialSource(now=1000.0), monitor_interval=None)
    assert world.factory.snapshot().local_offsets == 0
    source.set_remote_offset(*KEY, 2)
    world.run_until_held(3)
    observed = world.factory._observe({}, ())
    assert (observed.partitions, observed.local_offsets) == ((), 2)
    assert world.factory._survey(source, {}).local_offsets == world.factory.snapshot().local_offsets == 2


@pytest.mark.parametrize(
    ("known", "shown"), [({}, None), ({KEY: 100}, 100), ({KEY: 3}, 5)], ids=["unknown", "known", "old"]
)
def test_the_high_watermark_is_the_monitors_and_at_least_what_was_received(
    make: Callable[..., World], known: Mapping[PartitionKey, int], shown: int | None
) -> None:
    """What was received exists, whatever was known when it was last asked."""
    world = make(monitor_interval=None)
    world.factory._monitor.ends = known
    world.run_until_held(5)
    assert world.factory.snapshot().partitions[0].high_watermark == shown


@pytest.mark.parametrize(
    ("read_at", "latency_seconds"),
    [
        pytest.param(1003.75, 0.25, id="from the record that released them"),
        pytest.param(900.0, 4.0, id="no longer than they were held, if it came before them"),
        pytest.param(1004.5, None, id="not from a record that came later"),
    ],
)
def test_a_snapshot_shows_the_last_release(
    make: Callable[..., World], read_at: float, latency_seconds: float | None
) -> None:
    """When held messages were released, how long the oldest had been held, and how long after the record was read."""
    source = TellingSource(now=1000.0)
    world = make(source, monitor_interval=None)
    world.source.set_remote_offset(*KEY, 2)
    world.run_until_held(3)
    assert world.factory.snapshot().partitions[0].last_release is None
    world.now = 1004.0
    source.offsets = {"writers": LeaderOffset(5, 1_000, read_at), "indexers": LeaderOffset(9, 1_000, 1.0)}
    source.set_remote_offset(*KEY, 5)
    world.run_until(lambda: len(world.steps.step.messages) == 5)
    world.now = 1005.0
    snapshot = world.factory.snapshot()
    release = snapshot.partitions[0].last_release
    assert release is not None
    assert release.at == pytest.approx(snapshot.taken_at - 1.0)
    assert (release.hold_seconds, release.latency_seconds) == (4.0, latency_seconds)


def test_before_the_first_assignment_and_after_the_end_there_are_no_partitions(make: Callable[..., World]) -> None:
    """A snapshot may be taken at any time, and revoked partitions don't stay in it."""
    world = make(monitor_interval=None)
    assert world.factory.snapshot().partitions == ()
    world.run_until_held(5)
    world.processor._shutdown()
    assert world.factory.snapshot().partitions == ()


def test_a_source_that_tells_nothing_of_itself_leaves_that_unknown(make: Callable[..., World]) -> None:
    """Any source will do; of its death one learns all the same."""
    world = make(monitor_interval=None)
    world.run_until_held(5)
    world.source.die(RuntimeError("no more"))
    snapshot = world.factory.snapshot()
    assert snapshot.source is None
    assert snapshot.source_error == "the source has ended: no more"
    assert snapshot.partitions[0].leaders == ()


def test_the_monitor_lives_from_the_first_poll_to_the_shutdown(make: Callable[..., World]) -> None:
    """It begins with the source, not in a constructor, and ends with it."""
    begun = BegunThreads()
    world = make(monitor_interval=3600.0)
    assert begun() == []
    world.processor._run_once()
    assert [thread.name for thread in begun()] == ["arroyo-sync monitor"]
    world.processor._shutdown()
    assert begun() == []
    assert world.source.is_stopped
    assert world.steps.is_shut_down


def test_the_monitor_asks_the_source_about_some_partitions_and_whoever_wants_a_snapshot_about_all(
    make: Callable[..., World],
) -> None:
    """What stands still is found all the same."""
    source = PartialSource(now=1000.0)
    world = make(source, monitor_interval=3600.0, stalled_after=300.0)
    world.source.set_remote_offset(*KEY, 2)
    world.run_until_held(3)
    monitor = world.factory._monitor
    monitor.check_once()
    world.now += 14.0
    monitor.check_once()
    assert source.asked == [{KEY}, {KEY}]
    world.now += 300.0
    monitor.check_once()
    (stall,) = world.factory.stalls
    assert (stall.group, stall.behind, stall.local_offset) == ("indexers", 3, 2)
    (partition,) = world.factory.snapshot().partitions
    assert [leader.has_reported for leader in partition.leaders] == [False, True]
    assert source.asked[-1] is None


@pytest.mark.parametrize("interval", [3600.0, None])
def test_silence_is_the_monitors_to_tell_where_there_is_one(make: Callable[..., World], interval: float | None) -> None:
    """Else the source tells of it."""
    world = make(monitor_interval=interval)
    assert world.factory.manager.has_monitor is (interval is not None)


def test_a_group_that_reported_of_another_partition_has_reported(make: Callable[..., World]) -> None:
    """Its name is right, though nothing is known of the partitions that are assigned here."""
    source = TellingSource(now=1000.0)
    source.reported = ("indexers",)
    world = make(source, monitor_interval=None)
    world.run_until_held(3)
    (partition,) = world.factory.snapshot().partitions
    assert {leader.group: leader.has_reported for leader in partition.leaders} == {"indexers": True, "writers": True}


def test_on_stall_raise_ends_the_processor(make: Callable[..., World]) -> None:
    """The error comes out of the processor's loop, from the gate's poll, and says for whom the partition waits."""
    world = make(stalled_after=300.0, on_stall="raise", monitor_interval=3600.0)
    world.source.set_remote_offset(*KEY, 2)
    world.run_until_held(3)
    world.factory._monitor.check_once()
    world.now += 300.0
    world.factory._monitor.check_once()
    with pytest.raises(FollowerStalled, match=r"events\[0\] has stood still for 300 s at 2: 3 messages wait") as raised:
        world.run_until(lambda: False)
    stall = raised.value.stall
    assert isinstance(stall, Stall)
    assert (stall.partition, stall.waits_for) == (0, WaitsFor.LEADER)


def test_on_stall_raise_leaves_a_dead_source_its_own_error(make: Callable[..., World]) -> None:
    """The source is asked as without it."""
    world = make(on_stall="raise")
    world.run_until_held(5)
    world.source.die(RuntimeError("no more"))
    with pytest.raises(SourceDied, match="no more"):
        world.run_until(lambda: False)


def test_a_called_on_stall_leaves_the_follower_running(make: Callable[..., World]) -> None:
    """And what is released later goes through."""
    stalls: list[Stall] = []
    world = make(stalled_after=300.0, on_stall=stalls.append, monitor_interval=3600.0)
    world.source.set_remote_offset(*KEY, 2)
    world.run_until_held(3)
    world.factory._monitor.check_once()
    world.now += 300.0
    world.factory._monitor.check_once()
    assert len(stalls) == 1
    assert [stall.partition for stall in world.factory.stalls] == [0]
    world.source.set_remote_offset(*KEY, 5)
    world.run_until(lambda: len(world.steps.step.messages) == 5)


@pytest.fixture
def transport() -> Iterator[CatchingTransport]:
    with sentry() as transport:
        yield transport


def end(world: World, error_type: type[Exception] = SourceDied) -> None:
    """As under a runner that sends what comes out of the processor to Sentry."""
    with pytest.raises(error_type) as raised:
        world.processor.run()
    sentry_sdk.capture_exception(raised.value)


def told(transport: CatchingTransport) -> list[str]:
    """What each event is about: a problem's kind, or the type of the exception that came up."""
    return [
        each["exception"]["values"][-1]["type"] if "exception" in each else each["fingerprint"][1]
        for each in transport.events
    ]


def test_the_death_of_a_source_is_one_event(make: Callable[..., World], transport: CatchingTransport) -> None:
    """The monitor's, which comes last; not the exception that Arroyo logs before it, and the runner sends after it."""
    world = make(monitor_interval=3600.0)
    world.run_until_held(5)
    world.source.die(RuntimeError("no more"))
    end(world)
    assert told(transport) == ["source-died"]


def test_a_stall_that_ends_the_follower_is_one_event(make: Callable[..., World], transport: CatchingTransport) -> None:
    """The monitor tells of it before it ends the processor."""
    world = make(stalled_after=300.0, on_stall="raise", monitor_interval=3600.0)
    world.source.set_remote_offset(*KEY, 2)
    world.run_until_held(3)
    world.factory._monitor.check_once()
    world.now += 300.0
    world.factory._monitor.check_once()
    end(world, FollowerStalled)
    assert told(transport) == ["stall"]


def test_the_end_of_a_follower_without_a_monitor_is_left_to_arroyo(
    make: Callable[..., World], transport: CatchingTransport
) -> None:
    """Also beside one that has a monitor: nobody else would tell of it."""
    make(monitor_interval=3600.0)
    world = make(monitor_interval=None)
    world.run_until_held(5)
    world.source.die(RuntimeError("no more"))
    end(world)
    assert told(transport) == ["SourceDied"]


def test_a_death_is_told_though_the_monitor_hangs(
    make: Callable[..., World], transport: CatchingTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a call of the user's; and once, though it looks a last time when that comes back."""
    monkeypatch.setattr(monitor, "LATE_SECONDS", float("inf"))  # time that passes at once is no freeze
    hangs, goes_on = threading.Event(), threading.Event()

    def hang(stall: Stall) -> None:
        hangs.set()
        assert goes_on.wait(10)

    begun = BegunThreads()
    world = make(stalled_after=300.0, on_stall=hang, stop_timeout=0.01)
    world.source.set_remote_offset(*KEY, 2)
    world.run_until_held(3)
    world.factory._monitor.check_once()
    world.now += 300.0
    assert hangs.wait(10)
    world.source.die(RuntimeError("no more"))
    end(world)
    (thread,) = (each for each in begun() if each.name == "arroyo-sync monitor")  # Sentry's SDK has its own
    goes_on.set()
    thread.join(10)
    assert told(transport) == ["stall", "source-died"]


def test_a_death_is_told_though_the_monitors_look_fails(
    make: Callable[..., World], transport: CatchingTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A source of a user's may be unable to say how it stands."""
    world = make(TellingSource(now=1000.0), monitor_interval=3600.0)
    world.run_until_held(5)
    monkeypatch.setattr(world.source, "statistics", lambda: 1 / 0)
    world.source.die(RuntimeError("no more"))
    end(world)
    assert told(transport) == ["ZeroDivisionError", "source-died"]


def test_a_source_that_cannot_even_say_why_it_died_is_stopped_all_the_same(
    make: Callable[..., World], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What can't be told is logged, and keeps nothing from ending."""
    world = make(TellingSource(now=1000.0), monitor_interval=3600.0)
    world.run_until_held(5)
    monkeypatch.setattr(world.source, "death", lambda: 1 / 0)
    world.processor._shutdown()
    assert world.source.is_stopped
    assert "Couldn't tell Sentry whether the source has died" in caplog.messages


def test_the_factorys_spans_know_how_long_a_message_was_held(make: Callable[..., World]) -> None:
    """From the gate: 0 for one that went straight through."""
    with sentry(traces_sample_rate=1.0) as transport:
        world = make(monitor_interval=None, sentry_spans=1.0)
        world.source.set_remote_offset(*KEY, 2)
        world.run_until_held(3)
        world.now = 1004.0
        world.source.set_remote_offset(*KEY, 5)
        world.run_until(lambda: len(world.steps.step.messages) == 5)
        spans = [span["data"] for each in transport.transactions for span in each["spans"]]
    assert [(span["messaging.kafka.offset"], span["arroyo_sync.hold_time"]) for span in spans] == [
        (0, 0.0),
        (1, 0.0),
        (2, 4000.0),
        (3, 4000.0),
        (4, 4000.0),
    ]


def test_without_spans_there_is_no_step_for_them(make: Callable[..., World]) -> None:
    """The gate hands straight to the user's step."""
    world = make(monitor_interval=None)
    world.run_until_held(5)
    gate = world.factory._gate
    assert gate is not None
    assert gate._next_step is world.steps.step


@pytest.mark.parametrize(
    ("keywords", "says"),
    [
        ({"stalled_after": 0}, "stalled_after=0: must be more than 0 seconds"),
        ({"stalled_after": float("nan")}, "stalled_after=nan: must be more than 0 seconds"),
        ({"monitor_interval": -1}, "monitor_interval=-1: must be more than 0 seconds"),
        ({"sentry_spans": 0}, "sentry_spans=0: must be above 0 and up to 1"),
        ({"on_stall": "explode"}, "on_stall='explode': must be \"raise\", something to call with a Stall, or None"),
    ],
)
def test_an_impossible_setting_is_an_error_that_says_so(keywords: dict[str, Any], says: str) -> None:
    """When the factory is made, not an hour later."""
    with pytest.raises(ConfigurationError) as raised:
        SynchronizedStrategyFactory(StepFactory(), ManualSource(), **keywords)
    assert says in str(raised.value)
