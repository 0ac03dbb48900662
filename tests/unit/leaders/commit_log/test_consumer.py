"""The sources without a broker: what they refuse, what they promise before they are connected, and what they say."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest
from arroyo.types import Topic
from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, KafkaError, Message

from arroyo_sync.core.errors import ConfigurationError, NotReady, SourceDied
from arroyo_sync.core.source import NOTHING_UNVERIFIED, HighWatermarks, RemoteOffsetSource, SourceStatistics
from arroyo_sync.core.state import PartitionKey, SynchronizedPartitionStateManager
from arroyo_sync.kafka.questions.asker import PartitionRange
from arroyo_sync.leaders import offset_source as source_module
from arroyo_sync.leaders.commit_log.consumer import CommitLogConsumer
from arroyo_sync.leaders.commit_report import CommitReport
from arroyo_sync.leaders.group_offsets import GroupOffsetsSource
from arroyo_sync.leaders.offset_source import OffsetSource
from arroyo_sync.observe.snapshot import Snapshot
from tests.support.fakes import Clock
from tests.support.threads import BegunThreads

CONFIGURATION = {"bootstrap.servers": "127.0.0.1:1"}
TIMEOUT_SECONDS = 30.0
KEY = ("events", 0)


def commit_log_consumer(**changes: Any) -> CommitLogConsumer:
    arguments: dict[str, Any] = {"topic": Topic("log"), "groups": {"g"}, **changes}
    return CommitLogConsumer(arguments.pop("configuration", CONFIGURATION), **arguments)


def group_offsets_source(**changes: Any) -> GroupOffsetsSource:
    arguments: dict[str, Any] = {"groups": {"g"}, **changes}
    return GroupOffsetsSource(arguments.pop("configuration", CONFIGURATION), **arguments)


Make = Callable[..., OffsetSource]
BOTH = pytest.mark.parametrize("make", [commit_log_consumer, group_offsets_source])


@BOTH
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"groups": []}, "name at least one leader group", id="no groups"),
        pytest.param({"groups": {""}}, "'' is no name of a leader group", id="a group without a name"),
        pytest.param({"groups": [None]}, "None is no name of a leader group", id="a group that is no text"),
        pytest.param({"groups": "snuba"}, "give a collection of names, such as {'snuba'}", id="one text for groups"),
        pytest.param({"configuration": {}}, "give it 'bootstrap.servers'", id="no brokers"),
        pytest.param({"connect_timeout": 0}, "connect_timeout=0: must be more than 0", id="no time to connect"),
        pytest.param({"connect_timeout": float("nan")}, "must be more than 0", id="a time that isn't a number"),
    ],
)
def test_settings_that_cannot_work_are_refused_in_words(make: Make, changes: dict[str, Any], message: str) -> None:
    """Where the mistake is made, before anything is started."""
    with pytest.raises(ConfigurationError, match=message):
        make(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"topic": Topic("")}, "topic.name='': a topic's name is 1 to 249", id="empty topic"),
        pytest.param({"topic": Topic("a:b")}, "topic.name='a:b': a topic's name is 1 to 249", id="colon in the topic"),
        pytest.param({"topic": "log"}, "^topic='log': give an arroyo.types.Topic", id="a text for the topic"),
        pytest.param({"start": "latest"}, '^start=\'latest\': must be "all" or "recent"$', id="another start"),
        pytest.param({"lookback_seconds": -1.0}, "^lookback_seconds=-1.0: must be more than 0", id="a look ahead"),
        pytest.param({"wait_for_topic": "no"}, "^wait_for_topic='no': must be True or False", id="a text for a flag"),
        pytest.param({"connect_timeout": -1.0}, "^connect_timeout=-1.0: must be more than 0", id="a time before"),
        pytest.param(
            {"wall_clock": 0.0}, "^wall_clock=0.0: must be something to call for Unix seconds$", id="no wall clock"
        ),
        pytest.param({"clock": 0.0}, "^clock=0.0: must be something to call for monotonic seconds$", id="no clock"),
        pytest.param({"data_configuration": {}}, "data_configuration names no brokers", id="no data brokers"),
    ],
)
def test_a_commit_log_that_cannot_be_read_is_refused_in_words(changes: dict[str, Any], message: str) -> None:
    """Its own settings."""
    with pytest.raises(ConfigurationError, match=message):
        commit_log_consumer(**changes)


def test_an_interval_of_zero_is_refused() -> None:
    """It would ask without end."""
    with pytest.raises(ConfigurationError, match="interval_seconds=0: must be more than 0 seconds"):
        group_offsets_source(interval_seconds=0)


@BOTH
def test_a_source_keeps_the_contract(make: Make) -> None:
    """The type checker says so here, and nothing is in doubt before anything is known."""
    source: RemoteOffsetSource = make()
    assert source.unverified == NOTHING_UNVERIFIED
    assert issubclass(HighWatermarks, object)


@BOTH
def test_the_constructor_starts_nothing(make: Make) -> None:
    """No thread, no connection; and a source that was never started can be stopped."""
    begun = BegunThreads()
    source = make()
    assert begun() == []
    statistics = source.statistics()
    assert (statistics.alive, statistics.ready, statistics.read) == (False, False, 0)
    assert (statistics.rewinds, statistics.impossible, statistics.unverified) == (0, 0, 0)
    source.check()
    with pytest.raises(NotReady, match="it was never started"):
        source.wait_until_ready(0.0)
    source.stop(0.0)
    with pytest.raises(SourceDied, match="was stopped"):
        source.check()
    source.start(SynchronizedPartitionStateManager())
    assert begun() == []


@BOTH
def test_threads_are_named_daemons_and_end_at_stop(make: Make) -> None:
    """Arroyo may skip `shutdown`, and the process must end all the same."""
    source = make()
    begun = BegunThreads()
    source.start(SynchronizedPartitionStateManager())
    threads = begun()
    assert sorted(thread.name.partition(":")[0] for thread in threads) == ["arroyo-sync checks", "arroyo-sync reader"]
    assert all(thread.daemon for thread in threads)
    source.start(source._manager)  # type: ignore[arg-type]
    source.stop(TIMEOUT_SECONDS)
    assert not any(thread.is_alive() for thread in threads)
    source.stop(TIMEOUT_SECONDS)


def test_a_thread_that_does_not_end_in_time_is_left_and_named(caplog: pytest.LogCaptureFixture) -> None:
    """`stop` is bounded, whatever librdkafka does."""
    source = Stub()
    source.start(SynchronizedPartitionStateManager())
    assert source.is_reading.wait(TIMEOUT_SECONDS)
    source.stop(0.0)
    _, checks = source._threads
    checks.join(TIMEOUT_SECONDS)
    caplog.clear()  # it may have been named as well
    source.stop(0.01)
    assert "did not end within 0.0 s: ['arroyo-sync reader: a stub']" in caplog.text
    source.may_end.set()
    source.stop(TIMEOUT_SECONDS)


class Stub(OffsetSource):
    """A source whose reading thread does what a test says."""

    name = "a stub"

    def __init__(self, groups: tuple[str, ...] = ("g",), clock: Clock | None = None) -> None:
        super().__init__(CONFIGURATION, groups, None, clock or Clock())
        self.is_reading = threading.Event()
        self.may_end = threading.Event()
        self.error: BaseException | None = None

    def statistics(self) -> SourceStatistics:
        return SourceStatistics(ready=self._is_ready, alive=self._is_alive)

    def _missing(self) -> str:
        return "it waits for a test"

    def _read(self) -> None:
        self.is_reading.set()
        self.may_end.wait(TIMEOUT_SECONDS)
        if self.error is not None:
            raise self.error

    def publish(self, offset: int, key: PartitionKey = ("events", 0), group: str = "g") -> None:
        self._apply([CommitReport(key, group, offset, 0, 0, 0)])


@pytest.mark.parametrize(
    ("error", "message"),
    [
        pytest.param(ZeroDivisionError("a mistake"), "a mistake", id="an exception"),
        pytest.param(SystemExit("leave"), "leave", id="an exit"),
        pytest.param(None, "returned though nothing stopped it", id="a return"),
        pytest.param(MemoryError(), "MemoryError", id="an error without words"),
    ],
)
def test_however_a_thread_ends_the_source_is_dead_for_good(error: BaseException | None, message: str) -> None:
    """One exception from its cause, at every check; the gate is woken; nobody waits for it to be ready."""
    source = Stub()
    source.error = error
    manager = SynchronizedPartitionStateManager()
    source.start(manager)
    version = manager.version
    source.may_end.set()
    assert manager.wait_for_move(version, TIMEOUT_SECONDS)
    for _ in range(2):
        with pytest.raises(SourceDied, match=f"a stub has ended, nothing more is released: .*{message}") as died:
            source.check()
        assert error is None or died.value.__cause__ is error
    with pytest.raises(SourceDied, match=message):
        source.wait_until_ready(TIMEOUT_SECONDS)
    assert not source.ready
    source.stop(TIMEOUT_SECONDS)
    with pytest.raises(SourceDied, match=message):
        source.check()


@pytest.mark.parametrize("startable", [0, 1])
def test_a_thread_that_cannot_start_is_the_end_of_the_source(startable: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so at the next check, and can be stopped; the thread that did start ends."""
    source = Stub()
    start = threading.Thread.start
    started: list[threading.Thread] = []

    def start_some(thread: threading.Thread) -> None:
        if len(started) == startable:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_some)
    manager = SynchronizedPartitionStateManager()
    source.start(manager)
    source.start(manager)
    with pytest.raises(SourceDied, match="a stub has ended, nothing more is released: can't start new thread"):
        source.check()
    source.may_end.set()
    source.stop(TIMEOUT_SECONDS)
    assert len(started) == startable
    assert not any(thread.is_alive() for thread in started)


def test_a_source_serves_one_gate() -> None:
    """Shared, each gate would take the other's moves."""
    source = Stub()
    source.start(SynchronizedPartitionStateManager())
    with pytest.raises(ConfigurationError, match="make one source for each gate"):
        source.start(SynchronizedPartitionStateManager())
    source.may_end.set()
    source.stop(TIMEOUT_SECONDS)


def test_what_is_in_doubt_wakes_the_gate() -> None:
    """It may prove it with its own client. Before the source is ready there is nothing to wake for."""
    source = Stub()
    manager = SynchronizedPartitionStateManager()
    source._offsets.attach(manager)
    source._manager = manager
    source.assign({("events", 0): 0}, None)
    source._offsets.apply_answers({KEY: PartitionRange(0, 0)}, source._offsets.begin_question([KEY]), {})
    source.publish(5)
    assert dict(source.unverified) == {("events", 0): 5}
    source._set_ready(True)
    version = manager.version
    source.publish(6)
    assert manager.version > version


class Cached:
    """A follower's client, which counts who asks it."""

    def __init__(self) -> None:
        self.end: int | None = None
        self.askers: list[int] = []

    def cached(self, topic: str, partition: int) -> int | None:
        self.askers.append(threading.get_ident())
        return self.end


def test_the_followers_client_is_asked_only_when_the_gate_says_so_and_seldom() -> None:
    """Which it does on the processor's thread; for at most a hundredth of its time. A check, on any, doesn't."""
    clock = Clock()
    source = Stub(clock=clock)
    manager = SynchronizedPartitionStateManager()
    source._offsets.attach(manager)
    source._manager = manager
    source._set_ready(True)
    watermarks = Cached()
    source.assign({KEY: 0}, watermarks)
    source._offsets.apply_answers({KEY: PartitionRange(0, 0)}, source._offsets.begin_question([KEY]), {})
    assert len(watermarks.askers) == 1, "at the assignment"
    source.publish(5)
    watermarks.end = 10
    source.check()
    assert manager.cell("events", 0).remote is None

    clock.seconds_a_read = 1e-3
    source.refresh_known_ends()
    assert manager.cell("events", 0).remote == 5
    source.publish(20)
    source.refresh_known_ends()
    source.refresh_known_ends()
    assert len(watermarks.askers) == 2, "asking took a millisecond, so not again for a tenth of a second"
    clock.now += 0.1
    source.refresh_known_ends()
    assert len(watermarks.askers) == 3


def test_a_group_that_never_reports_is_warned_about_by_name(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """After a minute, once, naming the partitions, or that it is nothing at all; again if they change."""
    clock = Clock()
    source = Stub(("a", "b"), clock)
    source._offsets.attach(SynchronizedPartitionStateManager())
    source._set_ready(True)

    def warnings() -> list[str]:
        caplog.clear()
        source._warn_of_silence()
        return [record.getMessage() for record in caplog.records]

    clock.now += source_module.SILENCE_SECONDS - 1
    assert warnings() == []
    clock.now += 1
    first, second = warnings()
    assert "group 'a' has published nothing at all" in first
    assert "group 'b' has published nothing at all" in second
    assert warnings() == []

    source.assign({("events", 1): 0, ("events", 0): 0}, None)
    source.publish(5, ("events", 1), "a")
    (line,) = warnings()
    assert "group 'a' has published nothing of events[0]." in line
    assert warnings() == []
    source.publish(5, ("events", 0), "a")
    source.publish(5, ("other", 0), "b")
    over, line = warnings()
    assert over == "a stub: group 'a' has published of events[0] now"
    assert "group 'b' has published nothing of events[0], events[1]." in line
    assert all(record.levelno == logging.WARNING for record in caplog.records)


def test_errors_that_librdkafka_rides_out_are_not_logged_as_such(caplog: pytest.LogCaptureFixture) -> None:
    """It tells of all brokers as down while they serve; what isn't answered is told of by whoever asks."""
    for on_error in (commit_log_consumer()._reader.on_error, group_offsets_source()._on_data_error):
        on_error(KafkaError(KafkaError._TRANSPORT, "connection refused"))
        on_error(KafkaError(KafkaError._ALL_BROKERS_DOWN, "0/2 brokers are down"))
    assert caplog.messages == []


def test_silence_says_who_does_publish(caplog: pytest.LogCaptureFixture) -> None:
    """A wrong name is seen at once beside the right ones."""
    clock = Clock()
    source = commit_log_consumer(groups={"typo"}, clock=clock)
    source._offsets.attach(SynchronizedPartitionStateManager())
    source._set_ready(True)
    source._decoder.decode(
        [Message("log", 0, 0, b"events:0:writers", b"5", None, None, (TIMESTAMP_LOG_APPEND_TIME, 1))]
    )
    clock.now += source_module.SILENCE_SECONDS
    source._warn_of_silence()
    (line,) = caplog.messages
    assert line.startswith(
        "commit log log: group 'typo' has published nothing at all (groups seen: 'writers'; of topics: 'events'). "
    )
    assert source.statistics().groups_seen == ("writers",)


@BOTH
def test_what_a_source_tells_of_itself_is_json(make: Make) -> None:
    """Once it knows something: in a snapshot, so in status and in Sentry's events."""
    source = make()
    source._offsets.apply([CommitReport(("events", 0), "g", 5, 1, 0, 0)], 0.0)
    told = json.loads(json.dumps(Snapshot(0.0, (), source=source.statistics()).to_json()))
    assert told["source"]["groups_reported"] == ["g"]


def test_the_source_leaves_it_to_the_monitor_to_tell_of_silence(caplog: pytest.LogCaptureFixture) -> None:
    """One voice, where there is a monitor; without one, the source's."""
    clock = Clock()
    source = Stub(("typo",), clock)
    source._manager = SynchronizedPartitionStateManager()
    source._set_ready(True)
    clock.now += source_module.SILENCE_SECONDS
    source._manager.has_monitor = True
    source._warn_of_silence()
    assert caplog.messages == []
    source._manager.has_monitor = False
    source._warn_of_silence()
    assert len(caplog.messages) == 1


def test_many_silent_partitions_make_one_short_line(caplog: pytest.LogCaptureFixture) -> None:
    """The first ten, and how many more there are."""
    clock = Clock()
    source = Stub(("a",), clock)
    source._offsets.attach(SynchronizedPartitionStateManager())
    source._set_ready(True)
    source.assign({("events", partition): 0 for partition in range(1_000)}, None)
    source.publish(5, ("events", 0), "a")
    clock.now += source_module.SILENCE_SECONDS
    source._warn_of_silence()
    (line,) = caplog.messages
    assert "of events[1], events[2]," in line
    assert "events[10] and 989 more partitions. " in line


def test_rewinds_are_counted_all_and_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """What the minute leaves over is logged by the checks."""
    clock = Clock()
    source = Stub(clock=clock)
    source._offsets.attach(SynchronizedPartitionStateManager())
    source._set_ready(True)
    for offset in (9, 6, 9, 6, 9, 3):
        source.publish(offset)
    assert source._rewinds == 3
    assert [line.partition(".")[0] for line in caplog.messages] == ["events[0]: group 'g' went back from 9 to 6"]
    clock.now += 60
    source._periodic_checks()
    assert caplog.messages[1].startswith("Group 'g' went back 2 times, in 1 partitions, the furthest in events[0]")


def test_reports_of_other_partitions_wake_nobody() -> None:
    """Also while something of an assigned one waits to be verified."""
    source = Stub()
    manager = SynchronizedPartitionStateManager()
    source._offsets.attach(manager)
    source._manager = manager
    source._set_ready(True)
    source.assign({("events", 0): 0}, None)
    source.publish(5)
    assert source.unverified
    version = manager.version
    for partition in range(1, 100):
        source.publish(5, ("events", partition))
    assert manager.version == version


@pytest.mark.parametrize("how", ["subscribed", "assigned"])
def test_the_topic_is_learnt_from_the_subscription_or_the_first_assignment(how: str) -> None:
    """Reports of no other are kept from then on."""
    source = commit_log_consumer()
    if how == "subscribed":
        source.subscribe("events")
    else:
        source.assign({("events", 3): 0}, None)
    assert source._reader._wanted_data_topic == "events"


def test_a_topic_with_more_partitions_than_are_kept_is_refused() -> None:
    """In words, rather than that the gate stays shut."""
    source = commit_log_consumer()
    source.assign({("events", 2**15 - 1): 0}, None)
    with pytest.raises(
        ConfigurationError, match=r"^events\[32768\]: a topic of more than 32768 partitions can't be followed$"
    ):
        source.assign({("events", 2**15): 0}, None)
