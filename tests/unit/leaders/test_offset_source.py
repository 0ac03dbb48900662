"""What every source of remote offsets does, whatever brings in its offsets. See also the tests of its two kinds."""

from __future__ import annotations

import copy
import logging
import re
import threading
from collections.abc import Callable, Mapping
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError, KafkaException

from arroyo_sync.core.errors import (
    AnotherCluster,
    ArroyoSyncError,
    ConfigurationError,
    NotReady,
    SourceDied,
    TopicRecreated,
)
from arroyo_sync.core.log_throttle import TOLD_BY_MONITOR
from arroyo_sync.core.source import SourceStatistics
from arroyo_sync.core.state import PartitionKey, SynchronizedPartitionStateManager
from arroyo_sync.kafka.questions.asker import PartitionRange
from arroyo_sync.leaders import offset_source
from arroyo_sync.leaders.commit_report import CommitReport
from arroyo_sync.leaders.group_offsets import GroupOffsetsSource
from arroyo_sync.leaders.offset_source import POLL_SECONDS, SILENCE_SECONDS, OffsetSource
from arroyo_sync.leaders.verifier import Verifier
from tests.support.fakes import Clock
from tests.support.scripted_asker import ScriptedAsker, asker_of
from tests.support.threads import PATIENCE_SECONDS

CONFIGURATION = {"bootstrap.servers": "127.0.0.1:1"}
KEY, OTHER = ("events", 0), ("events", 1)
ADVICE = "The gate stays shut there until it does: is the group's name right, and does it publish?"


@pytest.fixture
def _scripted_asker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offset_source, "Asker", ScriptedAsker)


scripted = pytest.mark.usefixtures("_scripted_asker")


class Stub(OffsetSource):
    """A source whose reading thread does what a test says, by default nothing until it is stopped."""

    name = "a stub"

    def __init__(
        self,
        *groups: str,
        clock: Clock | None = None,
        configuration: Mapping[str, Any] = CONFIGURATION,
        data_configuration: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(configuration, groups or ["g"], data_configuration, clock or Clock())
        self.read: Callable[[], object] = lambda: self._stopping.wait(PATIENCE_SECONDS)

    def statistics(self) -> SourceStatistics:
        return SourceStatistics(ready=self._is_ready, alive=self._is_alive)

    def _missing(self) -> str:
        return "it waits for a test"

    def _read(self) -> None:
        self.read()

    def publish(self, offset: int, key: PartitionKey = KEY, group: str = "g") -> None:
        self._apply([CommitReport(key, group, offset, 0, 0, 0)])

    def attach(self) -> SynchronizedPartitionStateManager:
        """As `start` does, but for the threads."""
        self._manager = SynchronizedPartitionStateManager()
        self._offsets.attach(self._manager)
        return self._manager


# What it is made of.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param({"groups": []}, "groups is empty: name at least one leader group", id="no groups"),
        pytest.param({"configuration": {}}, "configuration names no brokers: give it", id="no brokers"),
        pytest.param({"clock": 5}, "clock=5: must be something to call for monotonic seconds", id="no clock"),
    ],
)
def test_what_is_refused_is_named(arguments: dict[str, Any], message: str) -> None:
    """By the argument's own name, with what it should be."""
    arguments = {"configuration": CONFIGURATION, "groups": ["g"], **arguments}
    with pytest.raises(ConfigurationError, match=f"^{re.escape(message)}"):
        GroupOffsetsSource(arguments.pop("configuration"), **arguments)


@scripted
def test_the_data_topics_cluster_is_asked() -> None:
    """The settings' own where no other is given; then a topic that isn't there may be on another one."""
    asker = asker_of(Stub())
    assert (asker.configuration, asker.advice) == (CONFIGURATION, OffsetSource.advice)
    data_configuration = {"bootstrap.servers": "127.0.0.1:2"}
    asker = asker_of(Stub(data_configuration=data_configuration))
    assert (asker.configuration, asker.advice) == (data_configuration, "")


@scripted
def test_the_asker_waits_by_the_sources_clock() -> None:
    """One clock for all of a source."""
    clock = Clock()
    assert asker_of(Stub(clock=clock)).clock is clock


# Its life.


@scripted
def test_a_source_that_runs_says_what_it_waits_for() -> None:
    """One that doesn't, that it was never started."""
    source = Stub()
    with pytest.raises(NotReady, match=r"^a stub wasn't ready after 0 s: it was never started$"):
        source.wait_until_ready(0.0)
    source.start(SynchronizedPartitionStateManager())
    try:
        with pytest.raises(NotReady, match=r"^a stub wasn't ready after 0\.001 s: it waits for a test$"):
            source.wait_until_ready(0.001)
    finally:
        source.stop(PATIENCE_SECONDS)


def test_a_time_that_is_none_is_refused_by_name() -> None:
    """Nothing is waited for."""
    with pytest.raises(ConfigurationError, match=r"^timeout=-1: must be 0 seconds or more"):
        Stub().wait_until_ready(-1)


class Waits(threading.Condition):
    """Waits for nothing, and notes whether it would have had to."""

    def __init__(self) -> None:
        super().__init__()
        self.is_over: list[bool] = []

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        self.is_over.append(bool(predicate()))
        return predicate()


def test_nobody_waits_for_what_is_ready_or_has_ended() -> None:
    """Whether it was stopped or died."""
    source = Stub()
    source._changed = waits = Waits()
    with pytest.raises(NotReady):
        source.wait_until_ready(PATIENCE_SECONDS)
    source._set_ready(True)
    source.wait_until_ready(PATIENCE_SECONDS)
    source._set_ready(False)
    with pytest.raises(NotReady):
        source.wait_until_ready(PATIENCE_SECONDS)
    source.stop(0.0)
    with pytest.raises(SourceDied, match="a stub was stopped, nothing more is released"):
        source.wait_until_ready(PATIENCE_SECONDS)
    source = Stub()
    source._changed = waits_of_the_dead = Waits()
    source.attach()
    source._die(RuntimeError("gone"))
    with pytest.raises(SourceDied, match="gone"):
        source.wait_until_ready(PATIENCE_SECONDS)
    assert (waits.is_over, waits_of_the_dead.is_over) == ([False, True, False, True], [True])


def test_the_gate_is_told_of_a_death_that_cannot_be_logged() -> None:
    """A log filter that fails must not leave a follower that waits for ever for a source that has ended."""
    source = Stub()
    manager = source.attach()
    before = manager.version

    class Broken(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            raise AttributeError("no request on this thread")

    broken = Broken()
    offset_source.logger.addFilter(broken)
    try:
        source._die(RuntimeError("gone"))
    finally:
        offset_source.logger.removeFilter(broken)
    assert manager.version > before
    with pytest.raises(SourceDied, match="gone"):
        source.check()


class StuckThread:
    """One that doesn't end, and notes for how long it is waited for."""

    name = "a thread"

    def __init__(self) -> None:
        self.timeouts: list[float] = []

    def join(self, timeout: float) -> None:
        self.timeouts.append(timeout)

    def is_alive(self) -> bool:
        return True


@scripted
def test_a_stop_takes_no_longer_than_it_may(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever doesn't end in time: the threads and then the asker have what is left of it. A line names them."""
    source = Stub()
    threads = [StuckThread(), StuckThread()]
    source._threads = cast(list[threading.Thread], threads)
    source.stop(0.0)
    assert [thread.timeouts for thread in threads] == [[0.0], [0.0]]
    assert asker_of(source).stop_timeouts == [0.0]
    late = "a stub did not end within 0.0 s: ['a thread', 'a thread']. They end with the process"
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [("WARNING", late)]
    source.stop(3_600.0)
    first, second, asker = threads[0].timeouts[1], threads[1].timeouts[1], asker_of(source).stop_timeouts[1]
    assert 3_600.0 >= first >= second >= asker > 0


@scripted
@pytest.mark.parametrize("has_monitor", [True, False])
@pytest.mark.parametrize(
    ("error", "message"),
    [
        pytest.param(ZeroDivisionError("a mistake"), "a mistake", id="unexpected"),
        pytest.param(ArroyoSyncError("no broker"), "no broker", id="expected"),
    ],
)
def test_an_end_is_told_once_with_a_traceback_if_nobody_expected_it(
    error: Exception, message: str, has_monitor: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """By an error's line that is the monitor's to send on, if there is one. The gate is shut, and woken to ask."""
    caplog.set_level(logging.DEBUG, "arroyo_sync")
    source = Stub()
    manager = source.attach()
    manager.has_monitor = has_monitor
    source._set_ready(True)
    version = manager.version
    source._die(error)
    (record,) = caplog.records
    assert record.getMessage() == f"a stub has ended, nothing more is released: {message}"
    assert (record.levelname, getattr(record, TOLD_BY_MONITOR, False)) == ("ERROR", has_monitor)
    assert (record.exc_info[1] if record.exc_info else None) is (None if message == "no broker" else error)
    assert (source.ready, source.statistics()) == (False, SourceStatistics(ready=False, alive=False))
    assert manager.version > version

    source._die(RuntimeError("the client is closed"))
    assert [(each.levelname, each.getMessage()) for each in caplog.records[1:]] == [
        ("DEBUG", "a stub: the client is closed while it ended")
    ]
    with pytest.raises(SourceDied) as died:
        source.check()
    assert died.value.__cause__ is error


@scripted
def test_an_error_of_a_thread_that_was_stopped_is_no_death(caplog: pytest.LogCaptureFixture) -> None:
    """Clients that are closed under it may fail."""
    source = Stub()
    source.attach()
    source.stop(0.0)
    source._die(RuntimeError("the client is closed"))
    assert caplog.messages == []
    with pytest.raises(SourceDied, match=r"^a stub was stopped, nothing more is released$"):
        source.check()


@scripted
def test_a_refused_login_that_a_client_tells_of_ends_the_source() -> None:
    """Found by the checks; what is ridden out ends nothing."""
    source = Stub()
    manager = SynchronizedPartitionStateManager()
    source.start(manager)
    try:
        asker = asker_of(source)
        asker.on_error(KafkaError(KafkaError._TRANSPORT, "connection refused"))
        source._verifier.wake()
        source.check()
        version = manager.version
        asker.on_error(KafkaError(KafkaError._AUTHENTICATION, "wrong password"))
        source._verifier.wake()
        assert manager.wait_for_move(version, PATIENCE_SECONDS)
        with pytest.raises(SourceDied, match="wrong password") as died:
            source.check()
        assert isinstance(died.value.__cause__, KafkaException)
    finally:
        source.stop(PATIENCE_SECONDS)


@scripted
def test_a_client_that_nobody_asks_anything_is_heard_all_the_same() -> None:
    """Else a login that was refused days ago ends the source when it is asked at last."""
    source = Stub()
    asker_of(source).told.append(KafkaError(KafkaError._AUTHENTICATION, "wrong password"))
    with pytest.raises(KafkaException, match="wrong password"):
        source._periodic_checks()


@scripted
def test_the_clients_that_ask_are_heard_once_a_second_at_most() -> None:
    """The checks may come with every batch of reports."""
    clock = Clock()
    source = Stub(clock=clock)
    source._periodic_checks()
    told = asker_of(source).told
    told.append(KafkaError(KafkaError._TRANSPORT, "connection refused"))
    clock.now += POLL_SECONDS / 2
    source._periodic_checks()
    assert told, "nobody has heard it yet"
    clock.now += POLL_SECONDS / 2
    source._periodic_checks()
    assert not told


@pytest.mark.parametrize("has_monitor", [True, False])
@pytest.mark.parametrize("earlier", [None, RuntimeError("the commit log is gone")])
@pytest.mark.parametrize("found", [TopicRecreated("events", "one", "two"), AnotherCluster("one", "two")])
def test_a_topic_that_is_found_to_be_another_fails_the_manager(
    monkeypatch: pytest.MonkeyPatch, earlier: Exception | None, has_monitor: bool, found: ArroyoSyncError
) -> None:
    """Whatever the source had died of before: nothing of the earlier topic may be committed. What the source died of is
    the monitor's to tell, if there is one."""
    found = copy.copy(found)  # it notes who tells of it

    def check_topics(verifier: Verifier, timeout: float) -> None:
        assert timeout == 2.5
        raise found

    source = GroupOffsetsSource({"bootstrap.servers": "127.0.0.1:1"}, groups={"g"})
    source.check_topic(2.5)
    manager = SynchronizedPartitionStateManager()
    manager.has_monitor = has_monitor
    source.start(manager)
    try:
        if earlier is not None:
            source._die(earlier)
        monkeypatch.setattr(Verifier, "check_topics", check_topics)
        source.check_topic(2.5)
        assert manager.failure is found
        assert getattr(found, TOLD_BY_MONITOR, False) is (has_monitor and earlier is None)
        with pytest.raises(SourceDied) as died:
            source.check()
        assert died.value.__cause__ is (earlier or found)
    finally:
        source.stop(10.0)


# The trust in its offsets.


@scripted
def test_the_brokers_answers_prove_what_was_published() -> None:
    """Of the assigned partitions, which reach that far; a message that was received does, too."""
    source = Stub()
    manager = source.attach()
    asker_of(source).ranges = {KEY: PartitionRange(0, 10)}
    source._set_ready(True)
    source.assign({KEY: 0}, None)
    source.publish(7)
    assert manager.cell(*KEY).remote is None
    source._verifier.ask()
    assert manager.cell(*KEY).remote == 7
    source.publish(12)
    source.received("events", 1, 12)
    assert manager.cell(*KEY).remote == 7
    source.received("events", 0, 12)
    assert manager.cell(*KEY).remote == 12


@scripted
def test_the_topic_is_watched_from_its_subscription_on() -> None:
    """So its id is known before it is told where the follower begins."""
    source = Stub()
    source.attach()
    source.subscribe("events")
    source._verifier.ask()
    assert source._verifier._topics.ids == {"events": "first"}


@scripted
def test_brokers_of_another_cluster_than_the_followers_prove_nothing() -> None:
    """A topic of that name may be there as well, and reach further."""
    source = Stub()
    manager = source.attach()
    asker_of(source).cluster_id = "another"
    source.check_cluster("one")
    source._set_ready(True)
    source.assign({KEY: 0}, None)
    source.publish(7)
    with pytest.raises(ConfigurationError, match="from the cluster 'one', but the source asks the cluster 'another' "):
        source._verifier.ask()
    assert manager.cell(*KEY).remote is None


@scripted
def test_what_was_published_is_told_of_the_partitions_that_are_asked_for() -> None:
    """With when it was read. Of all, if none is named."""
    clock = Clock()
    source = Stub(clock=clock)
    source.publish(5)
    clock.now += 1
    source.publish(6, OTHER)
    told = source.published([OTHER])
    assert told.keys() == {OTHER}
    assert (told[OTHER]["g"].offset, told[OTHER]["g"].read_at_seconds) == (6, clock.now)
    assert source.published().keys() == {KEY, OTHER}


@scripted
def test_where_partitions_end_is_asked_of_the_brokers() -> None:
    """Within the time that is given."""
    source = Stub()
    asker_of(source).ranges = {KEY: PartitionRange(0, 10), OTHER: PartitionRange(0, 20)}
    assert source.end_offsets([KEY, OTHER], PATIENCE_SECONDS) == {KEY: 10, OTHER: 20}


class Cached:
    """A follower's client, which counts how often it is asked."""

    def __init__(self) -> None:
        self.questions = 0

    def cached(self, topic: str, partition: int) -> int | None:
        self.questions += 1
        return self.questions


def test_the_followers_client_is_asked_for_a_hundredth_of_the_time() -> None:
    """At any moment if asking takes no time, else again once a hundred times as long has passed, and not before."""
    clock = Clock()
    clock.now = 0.0
    source = Stub(clock=clock)
    source.attach()
    source.refresh_known_ends()
    source._set_ready(True)
    watermarks = Cached()
    source.assign({KEY: 0}, watermarks)
    source._offsets.apply_answers({KEY: PartitionRange(0, 0)}, source._offsets.begin_question([KEY]), {})
    source.publish(100)
    source.refresh_known_ends()
    source.refresh_known_ends()
    assert watermarks.questions == 3
    clock.seconds_a_read = 2.0**-10
    source.refresh_known_ends()
    assert watermarks.questions == 4
    clock.now += 98 * clock.seconds_a_read
    source.refresh_known_ends()
    assert watermarks.questions == 4
    source.refresh_known_ends()
    assert watermarks.questions == 5


def test_where_an_assignment_begins_is_known_with_it() -> None:
    """The brokers may be asked about it before there is a gate."""
    source = Stub(clock=Clock())
    source.attach()
    source.assign({KEY: 70, OTHER: 80}, None)
    known = source._offsets.begin_question([KEY, OTHER]).known
    assert (known[KEY].position, known[OTHER].position) == (70, 80)


# Silence.


def test_silence_is_told_in_words_that_a_person_can_act_on(caplog: pytest.LogCaptureFixture) -> None:
    """Who is silent, of what, and what to look at. A source that isn't ready blames nobody."""
    clock = Clock()
    source = Stub("a", clock=clock)
    source.attach()
    source._set_ready(True)
    source._set_ready(False)
    clock.now += SILENCE_SECONDS
    source._warn_of_silence()
    assert caplog.messages == []
    source._set_ready(True)
    clock.now += SILENCE_SECONDS
    source._warn_of_silence()
    assert caplog.messages == [f"a stub: group 'a' has published nothing at all. {ADVICE}"]
    source.assign({KEY: 0}, None)
    source.publish(5, OTHER, "a")
    source._warn_of_silence()
    assert caplog.messages[1:] == [f"a stub: group 'a' has published nothing of events[0]. {ADVICE}"]
    source.publish(5, KEY, "a")
    for _ in range(2):
        source._warn_of_silence()
        assert caplog.messages[2:] == ["a stub: group 'a' has published of events[0] now"]


def test_that_a_silence_is_over_is_told_of_a_group_that_had_published_nothing_at_all(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Once. It is no news of a group that was never told of."""
    clock = Clock()
    source = Stub("a", "b", clock=clock)
    source.attach()
    source._set_ready(True)
    source.publish(5, OTHER, "b")
    clock.now += SILENCE_SECONDS
    source._warn_of_silence()
    caplog.clear()
    source.publish(5, OTHER, "a")
    for _ in range(2):
        source._warn_of_silence()
    assert caplog.messages == ["a stub: group 'a' publishes now"]


def test_of_a_partition_that_was_taken_away_meanwhile_nobody_is_said_to_have_published(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The silence goes on, for whoever has it now."""
    clock = Clock()
    source = Stub("a", clock=clock)
    source.attach()
    source._set_ready(True)
    source.assign({KEY: 0, OTHER: 0}, None)
    source.publish(5, ("elsewhere", 0), "a")
    clock.now += SILENCE_SECONDS
    source._warn_of_silence()
    caplog.clear()
    source.revoke([KEY])
    source.publish(5, OTHER, "a")
    source._warn_of_silence()
    assert caplog.messages == [f"a stub: group 'a' has published of {OTHER[0]}[{OTHER[1]}] now"]
    caplog.clear()
    source.assign({KEY: 0}, None)
    source._warn_of_silence()
    source.revoke([KEY])
    caplog.clear()
    source._warn_of_silence()
    assert caplog.messages == []


@pytest.mark.parametrize(("count", "end"), [(10, "events[9]."), (11, "events[9] and 1 more partitions.")])
def test_up_to_ten_silent_partitions_are_named(count: int, end: str, caplog: pytest.LogCaptureFixture) -> None:
    """And how many more there are, if there are."""
    clock = Clock()
    source = Stub("a", clock=clock)
    source.attach()
    source._set_ready(True)
    source.assign({("events", partition): 0 for partition in range(count)}, None)
    source.publish(5, ("other", 0), "a")
    clock.now += SILENCE_SECONDS
    source._warn_of_silence()
    named = ", ".join(f"events[{partition}]" for partition in range(9))
    assert caplog.messages == [f"a stub: group 'a' has published nothing of {named}, {end} {ADVICE}"]


@scripted
def test_what_was_told_of_a_revoked_partition_is_forgotten() -> None:
    """Somebody else has it now: the next outage is one of its own."""
    source = Stub()
    source.attach()
    source.assign({KEY: 0, OTHER: 0}, None)
    asker_of(source).forgotten.clear()
    source.revoke([KEY])
    assert asker_of(source).forgotten == [KEY]


@scripted
def test_a_partition_that_comes_back_begins_anew_for_who_tells_of_silence() -> None:
    """A question of before it was revoked may have failed since, and counted from then on, for hours."""
    source = Stub()
    source.attach()
    source.assign({KEY: 0}, None)
    source.revoke([KEY])
    source.assign({KEY: 0}, None)
    assert asker_of(source).forgotten == [KEY, KEY, KEY]
