from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Collection, Mapping
from dataclasses import replace
from types import SimpleNamespace

import pytest
from arroyo.utils.metrics import DummyMetricsBackend

from arroyo_sync.core.errors import FollowerStalled
from arroyo_sync.core.source import SourceStatistics
from arroyo_sync.core.state import PartitionKey
from arroyo_sync.observe.evaluation import evaluate
from arroyo_sync.observe.metrics import COMMIT_LOG_LATENCY
from arroyo_sync.observe.metrics_reporter import GateCounts, MetricsReporter
from arroyo_sync.observe.monitor import ASK_TIMEOUT_SECONDS, Monitor, OnStall
from arroyo_sync.observe.problems import SILENCE_SECONDS, Problem, ProblemKind
from arroyo_sync.observe.snapshot import LeaderSnapshot, PartitionSnapshot, Snapshot
from arroyo_sync.observe.stalls import Stall
from arroyo_sync.observe.verdict import Grade, Verdict
from arroyo_sync.observe.waits import WAITING_AFTER_SECONDS, Survey
from tests.support.metrics_backend import RecordingMetrics
from tests.support.threads import BegunThreads

WAITING = PartitionSnapshot("events", 3, 50, 50, high_watermark=100, leaders=(LeaderSnapshot("writers", 50),))
DONE = PartitionSnapshot("events", 3, 100, 100, high_watermark=100, leaders=(LeaderSnapshot("writers", 100),))
STALLED_AFTER = 300.0
SELDOM = 600.0
"""An interval of which no look here is late."""


class Follower:
    """What is watched, and what came of it; also the clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.snapshot = Snapshot(0.0, (WAITING,))
        self.given_ends: list[Mapping[PartitionKey, int]] = []
        self.asked: list[Collection[PartitionKey]] = []
        self.timeouts: set[float] = set()
        self.errors: list[Exception] = []
        self.told: list[Problem] = []
        self.backend = RecordingMetrics()
        self.looked = threading.Event()
        self.was_asked = threading.Event()

    def observe(self, ends: Mapping[PartitionKey, int], partitions: Collection[PartitionKey] | None) -> Snapshot:
        self.given_ends.append(ends)
        self.looked.set()
        return self.snapshot

    def ask_ends(self, partitions: Collection[PartitionKey], timeout: float) -> Mapping[PartitionKey, int]:
        self.asked.append(partitions)
        self.timeouts.add(timeout)
        self.was_asked.set()
        return {key: 500 + len(self.asked) for key in partitions if key[1] != 9}

    def monitor(self, on_stall: OnStall = None, interval: float | None = SELDOM) -> Monitor:
        return Monitor(
            self.observe,
            ask_ends=self.ask_ends,
            gate_counts=GateCounts,
            end=self.errors.append,
            tell=lambda problem, snapshot: self.told.append(problem),
            stalled_after=STALLED_AFTER,
            on_stall=on_stall,
            interval=interval,
            clock=lambda: self.now,
            reporter=MetricsReporter(lambda: self.backend),
        )

    def show(self, *partitions: PartitionSnapshot) -> None:
        self.snapshot = Snapshot(self.now, partitions)


@pytest.fixture
def follower() -> Follower:
    return Follower()


@pytest.fixture
def told(follower: Follower) -> list[Problem]:
    """The problems that went to Sentry."""
    return follower.told


def look_at(follower: Follower, monitor: Monitor, *times: float) -> None:
    for now in times:
        follower.now = now
        monitor.check_once()


def test_a_stall_is_told_counted_and_over(follower: Follower, told: list[Problem]) -> None:
    """At 300 s, not before; once it moves, the gauge is 0 again."""
    monitor = follower.monitor()
    look_at(follower, monitor, 0, 299)
    assert told == []
    look_at(follower, monitor, 300, 301)
    assert [problem.kind for problem in told] == [ProblemKind.STALL]
    follower.show(DONE)
    look_at(follower, monitor, 302)
    for_leader = [value for value, tags in follower.backend.of("arroyo_sync.stalled") if tags["waits_for"] == "leader"]
    assert for_leader == [0, 0, 1, 1, 0]


def test_a_silent_group_is_told_before_it_is_a_stall(follower: Follower, told: list[Problem]) -> None:
    """Messages wait for a heartbeat and a half for a group that has published nothing: its name may be wrong."""
    monitor = follower.monitor()
    follower.show(PartitionSnapshot("events", 3, 50, None, high_watermark=100, leaders=(LeaderSnapshot("typo"),)))
    look_at(follower, monitor, 0, WAITING_AFTER_SECONDS - 1)
    assert told == []
    look_at(follower, monitor, WAITING_AFTER_SECONDS)
    assert [(problem.kind, problem.group) for problem in told] == [(ProblemKind.NEVER_REPORTED, "typo")]
    for_leader = [value for value, tags in follower.backend.of("arroyo_sync.waiting") if tags["waits_for"] == "leader"]
    assert for_leader == [0, 0, 1]


def test_a_wait_is_told_in_the_log_and_counted_after_a_heartbeat_and_a_half(
    follower: Follower, told: list[Problem], caplog: pytest.LogCaptureFixture
) -> None:
    """Before it is a stall, and without an event."""
    monitor = follower.monitor()
    look_at(follower, monitor, 0, WAITING_AFTER_SECONDS - 1)
    assert caplog.messages == []
    look_at(follower, monitor, WAITING_AFTER_SECONDS)
    assert caplog.messages[0].startswith("events[3] has stood still for 15 s at 50: up to 50 messages wait for group")
    follower.show(DONE)
    look_at(follower, monitor, 16)
    assert caplog.messages[1].startswith("Over: events[3]")
    for_leader = [value for value, tags in follower.backend.of("arroyo_sync.waiting") if tags["waits_for"] == "leader"]
    assert for_leader == [0, 0, 1, 0]
    assert told == []


def test_a_replay_ends_no_follower_and_is_told_when_it_lasts(
    follower: Follower, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever waits, since it can't be a leader's fault yet; the wait begins after it."""
    monitor = follower.monitor("raise")
    held = replace(WAITING, remote_offset=None, held_messages=50)
    follower.snapshot = Snapshot(0.0, (held,), SourceStatistics(ready=False, alive=True, lag=7))
    look_at(follower, monitor, 0, 299)
    assert caplog.messages == []
    look_at(follower, monitor, 300)
    assert "7 records to go" in caplog.text
    follower.snapshot = Snapshot(0.0, (held,), SourceStatistics(ready=True, alive=True))
    look_at(follower, monitor, 301, 600)
    assert (follower.errors, monitor.stalls) == ([], ())
    look_at(follower, monitor, 601)
    assert [stall.waiting_seconds for stall in monitor.stalls] == [300]


READY = SourceStatistics(ready=True, alive=True)


def test_a_stall_is_not_over_since_a_replay_hides_it(follower: Follower, caplog: pytest.LogCaptureFixture) -> None:
    """As of a commit log that was made anew. Where it goes on after that, the last line about it stays true."""
    monitor = follower.monitor()
    follower.snapshot = Snapshot(0.0, (WAITING,), READY)
    look_at(follower, monitor, 0, 300)
    caplog.clear()
    follower.snapshot = Snapshot(0.0, (WAITING,), replace(READY, ready=False))
    look_at(follower, monitor, 301, 302)
    follower.snapshot = Snapshot(0.0, (WAITING,), READY)
    look_at(follower, monitor, 303, 304, 303 + WAITING_AFTER_SECONDS, 303 + SILENCE_SECONDS, 603)
    assert [line.partition(" at ")[0] for line in caplog.messages] == ["events[3] has stood still for 15 s"]
    follower.show(DONE)
    look_at(follower, monitor, 604, 605)
    assert [line.partition(" at ")[0] for line in caplog.messages[1:]] == ["Over: events[3] has stood still for 300 s"]


def test_a_stall_is_not_over_since_the_source_died(follower: Follower, caplog: pytest.LogCaptureFixture) -> None:
    """Else "Over" would be the last line of a follower that ends while its leader hangs."""
    monitor = follower.monitor()
    follower.snapshot = Snapshot(0.0, (WAITING,), READY)
    look_at(follower, monitor, 0, 300)
    caplog.clear()
    follower.snapshot = Snapshot(0.0, (WAITING,), replace(READY, alive=False), "it died")
    look_at(follower, monitor, 301, 302)
    assert [line.partition(".")[0] for line in caplog.messages] == ["it died"]


def test_on_stall_is_called_once_for_each_partition_that_begins_to_stand_still(follower: Follower) -> None:
    """And again when it stands still again."""
    stalls: list[Stall] = []
    monitor = follower.monitor(stalls.append)
    look_at(follower, monitor, 0, 300, 301)
    follower.show(DONE)
    look_at(follower, monitor, 302)
    follower.show(WAITING)
    look_at(follower, monitor, 400, 700)
    assert [(stall.partition, stall.group, stall.waiting_seconds) for stall in stalls] == [
        (3, "writers", 300),
        (3, "writers", 300),
    ]


@pytest.mark.parametrize("away", [1, 100])
def test_on_stall_is_not_called_again_since_the_partition_was_away(follower: Follower, away: int) -> None:
    """In a rebalance, for some looks: it goes on waiting. What stands still at a look are assigned ones alone."""
    calls: list[float] = []
    monitor = follower.monitor(lambda stall: calls.append(follower.now))
    look_at(follower, monitor, 0, 300)
    for begin in (310, 450):
        follower.show()
        look_at(follower, monitor, *range(begin, begin + away))
        assert monitor.stalls == ()
        follower.show(WAITING)
        look_at(follower, monitor, begin + away, begin + away + 1)
        assert len(monitor.stalls) == 1
    assert calls == [300]


def test_on_stall_is_called_again_for_a_partition_that_was_away_for_long(follower: Follower) -> None:
    """So long that it waits anew."""
    calls: list[float] = []
    monitor = follower.monitor(lambda stall: calls.append(follower.now))
    look_at(follower, monitor, 0, 300)
    follower.show()
    look_at(follower, monitor, 310, 599, 600)
    follower.show(WAITING)
    look_at(follower, monitor, 601, 900, 901)
    assert calls == [300, 901]


def test_on_stall_is_called_again_where_the_partition_moved_while_it_was_away(follower: Follower) -> None:
    """As soon as it stands still anew."""
    calls: list[float] = []
    monitor = follower.monitor(lambda stall: calls.append(follower.now))
    look_at(follower, monitor, 0, 300)
    follower.show()
    look_at(follower, monitor, 310)
    follower.show(replace(WAITING, local_offset=60, remote_offset=60))
    look_at(follower, monitor, 320, 619)
    assert calls == [300]
    look_at(follower, monitor, 620)
    assert calls == [300, 620]


def test_on_stall_is_called_once_in_a_wait_that_is_no_stall_for_a_while(follower: Follower) -> None:
    """Nothing has moved meanwhile: the consumer asked once more, and got nothing."""
    calls: list[float] = []
    monitor = follower.monitor(lambda stall: calls.append(follower.now))
    released = replace(WAITING, remote_offset=80, held_messages=0)
    for follower.now, empty_polls, stalls in ((0, 5, 0), (300, 5, 1), (301, 6, 0), (310, 6, 1)):
        follower.snapshot = Snapshot(follower.now, (released,), empty_polls=empty_polls)
        monitor.check_once()
        assert len(monitor.stalls) == stalls
    assert calls == [300]


def test_raise_ends_the_processor_with_the_stall(follower: Follower) -> None:
    """The error says which partition, and for whom it waits."""
    look_at(follower, follower.monitor("raise"), 0, 300, 301)
    (error,) = follower.errors
    assert isinstance(error, FollowerStalled)
    assert isinstance(error.stall, Stall)
    assert str(error) == str(error.stall)


def test_by_default_a_stall_ends_nothing(follower: Follower) -> None:
    """It is the leader that is ill."""
    look_at(follower, follower.monitor(), 0, 300)
    assert follower.errors == []


def test_what_on_stall_raises_is_logged_and_the_next_look_takes_place(
    follower: Follower, caplog: pytest.LogCaptureFixture
) -> None:
    """A fault in the alarm doesn't end the watch, and doesn't keep the metrics back."""

    def fail(stall: Stall) -> None:
        raise RuntimeError("the pager is down")

    monitor = follower.monitor(fail)
    look_at(follower, monitor, 0, 300)
    assert "on_stall raised; the follower goes on" in caplog.messages
    assert follower.backend.of("arroyo_sync.stalled")[-2:] == [
        (1, {"waits_for": "leader"}),
        (0, {"waits_for": "follower"}),
    ]


@pytest.mark.parametrize("error", [KeyboardInterrupt, GeneratorExit])
def test_nothing_that_is_raised_ends_the_looks(
    follower: Follower, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: type[BaseException]
) -> None:
    """Whoever's code it comes from."""
    monitor = follower.monitor()
    turns = [False, False, True]

    def fail() -> None:
        raise error

    monkeypatch.setattr(monitor, "_stopping", SimpleNamespace(wait=lambda interval: turns.pop(0)))
    monkeypatch.setattr(monitor, "_check", fail)
    monitor._run()
    assert turns == []
    assert caplog.messages == ["The monitor's check failed; it goes on"], "once a minute"


def test_a_monitor_whose_thread_could_not_start_can_be_stopped(
    follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else nobody stops the source, which runs on without a follower; and it may start later."""
    monitor = follower.monitor()

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError):
            monitor.start()
    monitor.stop(1.0)


def test_on_stall_can_not_end_the_looks(
    follower: Follower, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """On the monitor's thread a SystemExit would end that alone, without a word, and the metrics with it."""

    def end(stall: Stall) -> None:
        sys.exit(1)

    monitor = follower.monitor(end)
    times = [300.0, 301.0]

    def wait(interval: float) -> bool:
        if times:
            follower.now = times.pop(0)
            return False
        return True

    look_at(follower, monitor, 0)
    monkeypatch.setattr(monitor, "_stopping", SimpleNamespace(wait=wait))
    monitor._run()
    assert "on_stall raised; the follower goes on" in caplog.messages
    assert len(follower.backend.of("arroyo_sync.stalled")) == 8, "at each of four looks, with the last one"
    assert monitor.stalls


def test_a_look_that_fails_is_logged_once_a_minute_and_the_next_one_takes_place(
    follower: Follower, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever goes wrong in it; what a metrics backend raises isn't among it, see the reporter."""
    monitor = follower.monitor()
    caplog.set_level(logging.ERROR)
    follower.snapshot = None  # type: ignore[assignment]
    look_at(follower, monitor, 0, 1, 59)
    assert caplog.messages == ["The monitor's check failed; it goes on"]
    assert caplog.records[0].exc_info is not None, "with where it failed"
    look_at(follower, monitor, 60)
    assert len(caplog.records) == 2
    assert len(follower.given_ends) == 4


def test_the_broker_is_asked_where_the_assigned_partitions_end(follower: Follower) -> None:
    """By the source, which has the client; and nothing is asked while nothing is assigned."""
    monitor = follower.monitor()
    monitor.refresh_ends()
    look_at(follower, monitor, 0)
    monitor.refresh_ends()
    look_at(follower, monitor, 1)
    assert follower.given_ends == [{}, {("events", 3): 501}]
    follower.show(WAITING, PartitionSnapshot("events", 9, 50, 50))
    look_at(follower, monitor, 2)
    monitor.refresh_ends()
    assert follower.asked[-1] == (("events", 3), ("events", 9))
    assert monitor.ends == {("events", 3): 502}
    follower.show()
    look_at(follower, monitor, 3)
    monitor.refresh_ends()
    assert (monitor.ends, len(follower.asked)) == ({}, 2)
    assert follower.timeouts == {ASK_TIMEOUT_SECONDS}


def test_while_no_end_moves_most_looks_do_without_asking(follower: Follower) -> None:
    """An idle follower costs little; once something moves, or others are assigned, every look asks again."""
    ends = {("events", 3): 500}
    asked = []

    def ask(partitions: Collection[PartitionKey], timeout: float) -> Mapping[PartitionKey, int]:
        asked.append(look)
        return {key: end for key, end in ends.items() if key in partitions}

    follower.ask_ends = ask  # type: ignore[method-assign]
    monitor = follower.monitor()
    for look in range(30):
        if look == 20:
            ends["events", 3] = 501
        if look == 25:
            follower.show(WAITING, PartitionSnapshot("events", 9, 50, 50))
            ends["events", 9] = 7
        look_at(follower, monitor, look)
        monitor.refresh_ends()
    # At 0 it was not known; from 1 on it was the same. The movement is found at 22, the other partition at once.
    assert asked == [0, 1, 3, 6, 10, 14, 18, 22, 23, 25, 26, 28]


def test_what_no_broker_tells_is_asked_for_at_every_look(follower: Follower) -> None:
    """An end that isn't known is not one that didn't move."""
    asked = []
    follower.ask_ends = lambda partitions, timeout: asked.append(partitions) or {}  # type: ignore[method-assign,func-returns-value]
    monitor = follower.monitor()
    look_at(follower, monitor, 0)
    for _ in range(5):
        monitor.refresh_ends()
    assert len(asked) == 5


def test_it_looks_by_itself_on_a_thread_of_its_own_until_it_is_stopped(follower: Follower) -> None:
    """A named daemon thread, which ends."""
    begun = BegunThreads()
    monitor = follower.monitor(interval=0.001)
    monitor.start()
    monitor.start()
    assert follower.looked.wait(10)
    threads = begun()
    assert [(thread.name, thread.daemon) for thread in threads] == [("arroyo-sync monitor", True)]
    assert follower.was_asked.wait(10)
    monitor.stop(10)
    assert not threads[0].is_alive()


def test_it_goes_on_without_ends_that_can_not_be_asked_for(
    follower: Follower, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then nobody knows where partitions end; all else is watched."""

    def fail(partitions: Collection[PartitionKey], timeout: float) -> Mapping[PartitionKey, int]:
        raise RuntimeError("no such setting")

    monkeypatch.setattr(follower, "ask_ends", fail)
    monitor = follower.monitor(interval=0.001)
    monitor.start()
    assert follower.looked.wait(10)
    follower.looked.clear()
    assert follower.looked.wait(10)
    follower.looked.clear()
    assert follower.looked.wait(10), "since the first look, it has known of a partition to ask about"
    monitor.stop(10)
    assert caplog.messages.count("Can't ask where the partitions end; the monitor goes on without") == 1


def test_it_takes_a_last_look_when_it_is_stopped(follower: Follower, told: list[Problem]) -> None:
    """So what ended the follower is told, though a second has not passed."""
    monitor = follower.monitor(interval=3600.0)
    monitor.start()
    follower.snapshot = Snapshot(0.0, (), source_error="it died")
    monitor.stop(10)
    monitor.stop(10)
    assert [problem.message for problem in told] == ["it died"]
    assert follower.backend.of("arroyo_sync.reader.alive") == [(0, {})]


def test_what_ends_the_last_look_keeps_nobody_who_stops_the_monitor(
    follower: Follower, caplog: pytest.LogCaptureFixture
) -> None:
    """A metrics backend that calls ``sys.exit``: the source is still to be stopped."""
    looking: list[str] = []

    def leave(ends: object, partitions: object) -> Snapshot:
        looking.append(threading.current_thread().name)
        sys.exit(1)

    follower.observe = leave  # type: ignore[method-assign]
    monitor = follower.monitor(interval=3600.0)
    monitor.start()
    monitor.stop(10)
    assert looking == ["arroyo-sync monitor"], "on its thread, as every one"
    assert caplog.messages == ["The monitor's check failed; it goes on"]


@pytest.mark.parametrize("timeout", [0.0, 0.01])
def test_a_last_look_that_hangs_keeps_nobody_who_stops_the_monitor(
    follower: Follower, caplog: pytest.LogCaptureFixture, timeout: float
) -> None:
    """For no longer than they say. What it sees afterwards isn't reported: the source is stopped, which looks dead."""
    goes_on = threading.Event()

    def hang(ends: object, partitions: object) -> Snapshot:
        assert goes_on.wait(10)
        return Snapshot(0.0, (), source_error="it was stopped")

    follower.observe = hang  # type: ignore[method-assign]
    monitor = follower.monitor(interval=3600.0)
    monitor.start()
    monitor.stop(timeout)
    assert monitor._thread is not None
    assert monitor._thread.is_alive()
    goes_on.set()
    monitor._thread.join(10)
    assert not monitor._thread.is_alive()
    assert (follower.told, follower.backend.of("arroyo_sync.reader.alive")) == ([], [])
    late = (
        "The monitor's last check wasn't done within 0.0 s (stop_timeout): a metrics backend, on_stall or Sentry's SDK "
        "hangs. The follower ends without it"
    )
    assert caplog.messages == ([late] if timeout else []), "of no time nobody is told that it passed"


def test_with_no_interval_it_never_looks(follower: Follower) -> None:
    """For those who watch by themselves."""
    monitor = follower.monitor(interval=None)
    monitor.start()
    monitor.stop(10)
    assert follower.given_ends == []


@pytest.mark.parametrize("is_wanted", [pytest.param(True, id="metrics"), pytest.param(False, id="no metrics backend")])
def test_the_metrics_of_many_partitions_take_turns(monkeypatch: pytest.MonkeyPatch, is_wanted: bool) -> None:
    """A look takes a snapshot of those that have their turn, and of none without a metrics backend; of what has waited
    for long besides, and of the first in any case."""
    monkeypatch.setattr("arroyo_sync.observe.monitor.SENT_AT_ONCE", 2)
    keys = [("events", index) for index in range(3)]
    asked: list[set[PartitionKey]] = []
    backend = RecordingMetrics()
    now = 0.0

    def observe(ends: Mapping[PartitionKey, int], partitions: Collection[PartitionKey] | None) -> Snapshot:
        if partitions is None:  # to tell of a problem
            partitions = keys
        else:
            asked.append(set(partitions))
        return Snapshot(now, tuple(PartitionSnapshot(*key, 50, 50, held_messages=1) for key in sorted(partitions)))

    monitor = Monitor(
        observe,
        survey=lambda ends: Survey(keys, [(keys[0], 50, 50, None, True)], (), True, None),
        ask_ends=None,
        gate_counts=GateCounts,
        end=lambda error: None,
        tell=lambda problem, snapshot: None,
        stalled_after=STALLED_AFTER,
        interval=SELDOM,
        clock=lambda: now,
        reporter=MetricsReporter(lambda: backend if is_wanted else DummyMetricsBackend()),
    )
    for _ in range(3):
        monitor.check_once()
    assert asked == ([{*keys[:2]}, {keys[0], keys[2]}, {*keys[:2]}] if is_wanted else [{keys[0]}] * 3)
    sent = [tags["partition"] for _, tags in backend.of("arroyo_sync.local_offset")]
    assert sent == (["0", "1", "0", "2", "0", "1"] if is_wanted else [])
    now = WAITING_AFTER_SECONDS
    monitor.check_once()
    assert asked[3] == ({keys[0], keys[2]} if is_wanted else {keys[0]})
    assert [value for value, tags in backend.of("arroyo_sync.waiting") if tags["waits_for"] == "leader"] == (
        [0, 0, 0, 1] if is_wanted else []
    )


def test_partitions_that_have_waited_for_long_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """First those without a verdict, then the oldest one's; who waits no more is forgotten at once."""
    monkeypatch.setattr("arroyo_sync.observe.monitor.JUDGED_AT_ONCE", 2)
    keys = [("events", index) for index in range(6)]
    waiting = keys[1:]  # since the first is looked at in any case
    judged: list[set[PartitionKey]] = []
    backend = RecordingMetrics()
    now = 0.0

    def observe(ends: Mapping[PartitionKey, int], partitions: Collection[PartitionKey] | None) -> Snapshot:
        partitions = keys if partitions is None else partitions
        held = {key: int(key in waiting) for key in partitions}
        return Snapshot(now, tuple(PartitionSnapshot(*key, 50, 50, held_messages=held[key]) for key in sorted(held)))

    def count_judged(verdicts: list[Verdict], waits: object) -> tuple[list[Verdict], object]:
        judged.append({each.key for each in verdicts if each.waiting_seconds})
        return verdicts, waits

    monkeypatch.setattr("arroyo_sync.observe.monitor.evaluate", lambda *given: count_judged(*evaluate(*given)))
    stalls: list[Stall] = []
    monitor = Monitor(
        observe,
        survey=lambda ends: Survey(keys, [(key, 50, 50, None, True) for key in waiting], (), True, None),
        ask_ends=None,
        gate_counts=GateCounts,
        end=lambda error: None,
        tell=lambda problem, snapshot: None,
        stalled_after=STALLED_AFTER,
        on_stall=stalls.append,
        interval=SELDOM,
        clock=lambda: now,
        reporter=MetricsReporter(lambda: backend),
    )

    def waiting_for_leader() -> float:
        monitor.check_once()
        return [value for value, tags in backend.of("arroyo_sync.waiting") if tags["waits_for"] == "leader"][-1]

    assert waiting_for_leader() == 0
    monkeypatch.setattr(MetricsReporter, "is_wanted", False)
    now = WAITING_AFTER_SECONDS
    for _ in range(3):
        monitor.check_once()
    first, second, third = judged[1:]
    assert first.union(second, third) == set(waiting)
    assert len(third - first - second) == 1, "the last one without a verdict"
    assert len(third & first) == 1, "one whose verdict is among the oldest"
    monkeypatch.setattr(MetricsReporter, "is_wanted", True)
    assert waiting_for_leader() == 5
    waiting = keys[1:4]
    assert waiting_for_leader() == 3
    now = STALLED_AFTER
    for _ in range(3):
        monitor.check_once()
    assert sorted(stall.partition for stall in stalls) == [1, 2, 3]


def test_each_partition_that_begins_to_stand_still_is_told_of_though_the_call_fails(
    follower: Follower, caplog: pytest.LogCaptureFixture
) -> None:
    """The next one's call is made; that they fail is logged once a minute."""
    called: list[int] = []

    def fail(stall: Stall) -> None:
        called.append(stall.partition)
        raise RuntimeError("the pager is down")

    monitor = follower.monitor(fail)
    follower.show(WAITING, replace(WAITING, partition=4))
    look_at(follower, monitor, 0, 300, 301)
    assert called == [3, 4]
    assert caplog.messages.count("on_stall raised; the follower goes on") == 1


def test_the_first_stall_alone_ends_the_processor(follower: Follower) -> None:
    """It ends once, by the partition that has waited for longest; all of them are known to whoever asks."""
    monitor = follower.monitor("raise")
    follower.show(WAITING)
    look_at(follower, monitor, 0)
    follower.show(WAITING, replace(WAITING, partition=2))
    look_at(follower, monitor, 1, 301)
    (error,) = follower.errors
    assert str(error).startswith("events[3] has stood still")
    assert [stall.partition for stall in monitor.stalls] == [3, 2]


def test_a_verdict_can_be_asked_for_at_any_time(follower: Follower) -> None:
    """With how long a wait has lasted by now, since the last look but no further; asking is no look."""
    monitor = follower.monitor()
    look_at(follower, monitor, 0)
    monitor.refresh_ends()
    follower.now = 300.0
    for _ in range(2):
        (verdict,) = monitor.verdicts()
        assert (verdict.grade, verdict.waiting_seconds) == (Grade.STALLED, 300.0)
    assert (monitor.stalls, follower.errors) == ((), [])
    assert follower.given_ends == [{}, {("events", 3): 501}, {("events", 3): 501}]


def test_waits_for_the_follower_and_for_leaders_are_counted_apart(follower: Follower) -> None:
    """Whom to call depends on it. A group of which it isn't known whether it is right counts, too."""
    monitor = follower.monitor()
    follower.show(
        WAITING,
        replace(WAITING, partition=4, remote_offset=80),
        PartitionSnapshot("events", 5, 50, None, high_watermark=100, leaders=(LeaderSnapshot("typo"),)),
        replace(DONE, partition=6),
    )
    look_at(follower, monitor, 0, WAITING_AFTER_SECONDS, STALLED_AFTER)
    waiting = [(tags["waits_for"], value) for value, tags in follower.backend.of("arroyo_sync.waiting")]
    assert waiting == [("leader", 0), ("follower", 0), ("leader", 2), ("follower", 1), ("leader", 0), ("follower", 0)]
    stalled = [(tags["waits_for"], value) for value, tags in follower.backend.of("arroyo_sync.stalled")]
    assert stalled[-2:] == [("leader", 2), ("follower", 1)]


class Surveyed:
    """A follower of some partitions, of which these wait for the leader; it is looked at through surveys."""

    def __init__(self, count: int, waiting: Collection[int] = (), stalled_after: float = STALLED_AFTER) -> None:
        self.keys = [("events", index) for index in range(count)]
        self.waiting = [("events", index) for index in waiting]
        self.rejected: list[PartitionKey] = []
        self.now = 0.0
        self.shown: list[set[PartitionKey]] = []
        self.given_ends: list[Mapping[PartitionKey, int]] = []
        self.backend: RecordingMetrics | DummyMetricsBackend = DummyMetricsBackend()
        self.monitor = Monitor(
            self._observe,
            survey=self._survey,
            ask_ends=lambda keys, timeout: dict.fromkeys(keys, 100),
            gate_counts=lambda: GateCounts(pauses=3, resumes=2),
            end=lambda error: None,
            tell=lambda problem, snapshot: None,
            stalled_after=stalled_after,
            interval=SELDOM,
            clock=lambda: self.now,
            reporter=MetricsReporter(lambda: self.backend),
        )

    def _survey(self, ends: Mapping[PartitionKey, int]) -> Survey:
        self.given_ends.append(ends)
        return Survey(self.keys, [(key, 50, 50, None, True) for key in self.waiting], self.rejected, True, None)

    def _observe(self, ends: Mapping[PartitionKey, int], partitions: Collection[PartitionKey] | None) -> Snapshot:
        self.given_ends.append(ends)
        if partitions is not None:
            self.shown.append(set(partitions))
        keys = sorted(self.keys if partitions is None else partitions)
        leaders = (LeaderSnapshot("g", 50, self.now, record_latency_ms=7.0),)
        return Snapshot(
            self.now,
            tuple(
                PartitionSnapshot(*key, 50, 50, leaders=leaders, held_messages=int(key in self.waiting)) for key in keys
            ),
        )

    def look(self, *times: float) -> None:
        for self.now in times:
            self.monitor.check_once()


def test_all_stalls_are_known_though_their_partitions_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """The verdict of the last turn stands meanwhile, and no look judges more than it may."""
    monkeypatch.setattr("arroyo_sync.observe.monitor.JUDGED_AT_ONCE", 2)
    follower = Surveyed(6, waiting=range(1, 6))
    follower.look(0.0, 300.0, 301.0, 302.0)
    assert {stall.partition for stall in follower.monitor.stalls} == {1, 2, 3, 4, 5}
    assert [len(shown - {follower.keys[0]}) for shown in follower.shown] == [0, 2, 2, 2]


def test_a_stall_that_is_called_one_early_is_found_early() -> None:
    """What is worth judging follows from it."""
    follower = Surveyed(3, waiting=[2], stalled_after=5.0)
    follower.look(0.0, 4.9)
    assert not follower.monitor.stalls
    follower.look(5.0)
    (stall,) = follower.monitor.stalls
    assert stall.partition == 2


def test_a_look_shows_the_partitions_with_a_report_that_cannot_be() -> None:
    """Though nothing waits there: somebody is to be told."""
    follower = Surveyed(3)
    follower.rejected = [follower.keys[2]]
    follower.look(0.0)
    assert follower.shown == [{follower.keys[0], follower.keys[2]}]


def test_every_look_goes_by_the_ends_that_were_asked_for_last() -> None:
    """The survey, the snapshot, and the snapshot of all that goes with what is told."""
    follower = Surveyed(2, waiting=[1])
    follower.look(0.0)
    assert follower.given_ends == [{}, {}]
    follower.monitor.refresh_ends()
    follower.look(STALLED_AFTER)
    assert follower.given_ends[2:] == [dict.fromkeys(follower.keys, 100)] * 3


def test_as_many_partitions_as_are_sent_at_once_are_sent_at_each_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """No look is left out; with them goes what the gate has counted."""
    monkeypatch.setattr("arroyo_sync.observe.monitor.SENT_AT_ONCE", 2)
    follower = Surveyed(2)
    follower.backend = backend = RecordingMetrics()
    follower.look(0.0, 1.0, 2.0)
    assert follower.shown == [set(follower.keys)] * 3
    assert [value for value, _ in backend.of("arroyo_sync.pauses")] == [3]


@pytest.mark.parametrize(("count", "times"), [(2, 4), (3, 10)])
def test_of_so_many_partitions_that_they_are_asked_about_in_turns_every_look_asks(
    count: int, times: int, follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time it is some of them; up to that number, most looks do without while nothing moves."""
    monkeypatch.setattr("arroyo_sync.observe.monitor.ENDS_AT_ONCE", 2)
    asked: list[Collection[PartitionKey]] = []

    def ask(partitions: Collection[PartitionKey], timeout: float) -> Mapping[PartitionKey, int]:
        asked.append(partitions)
        return dict.fromkeys(partitions, 7)

    follower.ask_ends = ask  # type: ignore[method-assign]
    monitor = follower.monitor()
    follower.show(*(replace(WAITING, partition=index) for index in range(count)))
    for look in range(10):
        look_at(follower, monitor, look)
        monitor.refresh_ends()
    assert len(asked) == times


def test_a_check_that_hangs_keeps_nobody_who_stops_the_monitor(follower: Follower) -> None:
    """For no longer than they say."""
    goes_on = threading.Event()
    looks: list[int] = []

    def observe(ends: object, partitions: object) -> Snapshot:
        looks.append(1)
        follower.looked.set()
        assert goes_on.wait(10)
        return follower.snapshot

    follower.observe = observe  # type: ignore[method-assign]
    monitor = follower.monitor(interval=0.001)
    monitor.start()
    assert follower.looked.wait(10)
    monitor.stop(0.01)
    assert len(looks) == 1
    goes_on.set()
    assert monitor._thread is not None
    monitor._thread.join(10)


def test_a_replay_is_told_of_by_how_long_it_has_lasted_and_not_by_when(
    follower: Follower, caplog: pytest.LogCaptureFixture
) -> None:
    """The clock may have begun long before."""
    monitor = follower.monitor()
    follower.snapshot = Snapshot(0.0, (), SourceStatistics(ready=False, alive=True))
    look_at(follower, monitor, 1000, 1299)
    assert caplog.messages == []
    look_at(follower, monitor, 1300)
    assert len(caplog.messages) == 1


def test_a_group_that_has_never_reported_is_told_of_though_nothing_waits(
    follower: Follower, caplog: pytest.LogCaptureFixture
) -> None:
    """Some time after the source is ready: its name may be wrong, which is better known before messages wait."""
    done = replace(DONE, leaders=(LeaderSnapshot("typo"),))
    monitor = follower.monitor()
    follower.snapshot = Snapshot(0.0, (done,), SourceStatistics(ready=False, alive=True))
    look_at(follower, monitor, 0)
    follower.snapshot = Snapshot(0.0, (done,), SourceStatistics(ready=True, alive=True))
    look_at(follower, monitor, 100, 100 + SILENCE_SECONDS - 1)
    assert caplog.messages == []
    look_at(follower, monitor, 100 + SILENCE_SECONDS)
    assert [line.partition(" so far")[0] for line in caplog.messages] == [
        "group 'typo' has published nothing of events"
    ]


def test_a_stall_that_follows_another_is_called_for_too(follower: Follower) -> None:
    """Whichever has lasted longer."""
    stalls: list[Stall] = []
    monitor = follower.monitor(stalls.append)
    look_at(follower, monitor, 0)
    follower.show(WAITING, replace(WAITING, partition=2))
    look_at(follower, monitor, 1, 300)
    assert [stall.partition for stall in stalls] == [3]
    look_at(follower, monitor, 301)
    assert [stall.partition for stall in stalls] == [3, 2]


def test_partitions_that_wait_for_their_turn_are_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was reported between two of its turns is new, and its latency is sent."""
    monkeypatch.setattr("arroyo_sync.observe.monitor.SENT_AT_ONCE", 1)
    follower = Surveyed(3)
    follower.backend = backend = RecordingMetrics()
    follower.look(*map(float, range(6)))
    sent = [tags["partition"] for _, tags in backend.of(COMMIT_LOG_LATENCY.name)]
    assert sorted(sent) == ["0"] * 5 + ["1", "2"]


# A process that was frozen.

HELD = PartitionSnapshot(
    "events", 3, 50, 50, high_watermark=100, leaders=(LeaderSnapshot("writers", 50),), held_messages=9
)


@pytest.mark.parametrize("away", [False, True], ids=["assigned", "taken away, and back"])
def test_what_passes_while_the_process_is_frozen_makes_no_wait_older(follower: Follower, away: bool) -> None:
    """By SIGSTOP, a paused container or a machine: nothing could move then. What waited goes on as old as it was."""
    monitor = follower.monitor("raise", interval=1.0)
    follower.show(HELD)
    look_at(follower, monitor, 0, 8, 10)
    follower.show(*([] if away else [HELD]))
    look_at(follower, monitor, 10 + 600)
    follower.show(HELD)
    look_at(follower, monitor, *range(611, 600 + 300))
    assert (follower.errors, follower.told) == ([], [])
    look_at(follower, monitor, 600 + 300)
    assert [stall.waiting_seconds for stall in monitor.stalls] == [300]
    assert len(follower.errors) == 1


def test_a_verdict_that_is_asked_for_before_the_first_look_after_a_freeze_knows_of_it(follower: Follower) -> None:
    """As by a health check, which may be the first to run."""
    monitor = follower.monitor(interval=1.0)
    follower.show(HELD)
    look_at(follower, monitor, 0, 8)
    follower.now = 608.0
    for _ in range(2):
        (verdict,) = monitor.verdicts()
        assert (verdict.grade, verdict.waiting_seconds) == (Grade.OK, 8.0)


def test_a_freeze_makes_no_replay_longer_and_no_readiness(follower: Follower, caplog: pytest.LogCaptureFixture) -> None:
    """Neither is told of sooner by it."""
    monitor = follower.monitor(interval=1.0)
    follower.snapshot = Snapshot(0.0, (HELD,), SourceStatistics(ready=False, alive=True))
    look_at(follower, monitor, 0, 1, 601)
    silent = replace(DONE, leaders=(LeaderSnapshot("typo"),))
    follower.snapshot = Snapshot(0.0, (silent,), SourceStatistics(ready=True, alive=True))
    look_at(follower, monitor, 602, 603, 1203, 1204)
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("interval", "seconds", "is_late"), [(1.0, 8.0, False), (1.0, 8.1, True), (10.0, 35.0, False), (10.0, 36.0, True)]
)
def test_a_look_is_late_after_five_seconds_and_three_intervals(
    follower: Follower, interval: float, seconds: float, is_late: bool
) -> None:
    """Less than that counts as time in which something could have moved."""
    monitor = follower.monitor(interval=interval)
    look_at(follower, monitor, 0, seconds)
    (verdict,) = monitor.verdicts()
    assert verdict.waiting_seconds == (0.0 if is_late else seconds)


def test_looks_that_are_always_late_find_what_stands_still(follower: Follower) -> None:
    """A metrics backend that hangs makes every look slow: what is called frozen each time would never be told of."""
    monitor = follower.monitor(interval=1.0)
    look_at(follower, monitor, *range(0, 331, 10))
    assert [stall.waiting_seconds for stall in monitor.stalls] == [320]


def test_who_looks_by_themselves_may_look_seldom(follower: Follower) -> None:
    """Without an interval no look is late."""
    monitor = follower.monitor(interval=None)
    look_at(follower, monitor, 0, 300)
    assert [stall.waiting_seconds for stall in monitor.stalls] == [300]


def test_a_log_that_fails_costs_the_lines_alone(follower: Follower, told: list[Problem]) -> None:
    """The event is sent, the stall is acted on, and the metrics go out."""

    class Broken(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            raise OSError("no socket")

    broken, monitor = Broken(), follower.monitor(on_stall="raise")
    problems_logger = logging.getLogger("arroyo_sync.observe.problems")
    problems_logger.addFilter(broken)
    try:
        look_at(follower, monitor, 0, STALLED_AFTER)
    finally:
        problems_logger.removeFilter(broken)
    assert [problem.kind for problem in told] == [ProblemKind.STALL]
    assert [type(error) for error in follower.errors] == [FollowerStalled]
    for_leader = [value for value, tags in follower.backend.of("arroyo_sync.stalled") if tags["waits_for"] == "leader"]
    assert for_leader == [0, 1]


def test_what_a_stopped_monitor_reported_counts_no_more(follower: Follower) -> None:
    """For the gauges that tell of all followers of the process."""
    stopped, other = follower.monitor(), follower.monitor()
    stopped.start()
    look_at(follower, stopped, 0, STALLED_AFTER)
    stopped.stop(timeout=5.0)
    follower.show(DONE)
    look_at(follower, other, STALLED_AFTER + 1)
    for_leader = [value for value, tags in follower.backend.of("arroyo_sync.stalled") if tags["waits_for"] == "leader"]
    assert for_leader == [0, 1, 1, 0]
