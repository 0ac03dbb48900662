"""`PublishCommitLog` against a producer whose deliveries are scripted, and a clock that is moved by hand."""

from __future__ import annotations

import json
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from arroyo.backends.abstract import SimpleProducerFuture
from arroyo.backends.kafka import KafkaPayload
from arroyo.backends.kafka.commit import CommitCodec
from arroyo.errors import TransportError
from arroyo.processing.strategies.commit import CommitOffsets
from arroyo.processing.strategies.run_task_with_multiprocessing import ChildProcessTerminated
from arroyo.types import FILTERED_PAYLOAD, BaseValue, BrokerValue, Message, Partition, Topic, Value
from arroyo.utils import metrics
from confluent_kafka import KafkaError, KafkaException

from arroyo_sync.core import log_guard
from arroyo_sync.core.errors import ConfigurationError
from arroyo_sync.core.log_throttle import LOG_INTERVAL_SECONDS, LogThrottle
from arroyo_sync.leaders.commit_log.publishing import delivery_log, report_writer
from arroyo_sync.leaders.commit_log.publishing.publish_queue import MAX_RECEIVED_TIMES, QueuedPartition
from arroyo_sync.leaders.commit_log.publishing.publish_step import PublishStep
from arroyo_sync.leaders.commit_log.publishing.publisher import CommitLogPublisher, PublishCommitLog
from tests.integration.cluster.waiting import wait_until
from tests.support.dead_worker import worker_dies, worker_dies_as_threads_start
from tests.support.fakes import Clock
from tests.support.leader import (
    COMMIT_LOG,
    EVENTS,
    NAIVE_UTC,
    SYSLOG_IS_GONE,
    UNIX_SECONDS,
    Commits,
    Leader,
    ScriptedProducer,
    log_handler_that_raises,
    make_future,
)
from tests.support.threads import BegunThreads


@pytest.fixture(params=[make_future, SimpleProducerFuture], ids=["Future", "SimpleProducerFuture"])
def leader(request: pytest.FixtureRequest) -> Iterator[Leader]:
    leader = Leader(request.param)
    yield leader
    leader.step.terminate()


@contextmanager
def local_time_zone(name: str) -> Iterator[None]:
    before = os.environ.get("TZ")
    os.environ["TZ"] = name
    time.tzset()
    try:
        yield
    finally:
        if before is None:
            del os.environ["TZ"]
        else:
            os.environ["TZ"] = before
        time.tzset()


class ConfiguredProducer(ScriptedProducer):
    """One that tells its settings, as Arroyo's does."""

    def __init__(self, commits: Commits, settings: Mapping[str, Any]) -> None:
        super().__init__(commits, make_future)
        self._settings = settings

    def get_config(self) -> dict[str, Any]:
        return {"bootstrap.servers": "nowhere:1", **self._settings}


def published(leader: Leader) -> dict[str, Any]:
    """The value of the newest record."""
    value = json.loads(leader.producer.payloads[-1].value)
    assert isinstance(value, dict)
    return value


def test_it_is_a_commit_offsets_and_makes_the_same_calls(leader: Leader) -> None:
    """Every call of ``commit`` that ``CommitOffsets`` makes is made, with the same arguments, and no other."""
    commits = Commits()
    message = Message(BrokerValue(b"", EVENTS[0], 41, NAIVE_UTC))
    leader.producer.delivers_at_once = True
    assert isinstance(leader.step, CommitOffsets)
    for step in (CommitOffsets(commits), leader.step):
        step.poll()
        step.submit(message)
        step.poll()
        step.close()
        step.join(1.0)
    assert leader.commits.calls == commits.calls


def test_consumer_latency_is_measured(leader: Leader, monkeypatch: pytest.MonkeyPatch) -> None:
    """The metric of ``CommitOffsets``, ``arroyo.consumer.latency``, is recorded."""
    recorded: list[str] = []

    class Recorder(metrics.DummyMetricsBackend):
        def timing(self, name: metrics.MetricName, value: float, tags: metrics.Tags | None = None) -> None:
            recorded.append(name)

    monkeypatch.setattr(metrics, "_metrics_backend", Recorder())
    measured = Leader(make_future)  # the fixture's was made before the backend
    measured.commit(0, 1)
    measured.step.terminate()
    assert recorded == ["arroyo.consumer.latency"]


def test_the_first_commit_is_published_at_once(leader: Leader) -> None:
    """A commit after a pause doesn't wait for the interval, nor for `poll`."""
    leader.commit(0, 42)
    assert leader.producer.take() == [(0, 42)]


def test_a_record_is_what_arroyos_codec_reads(leader: Leader) -> None:
    """Arroyo's own codec finds group, partition, next offset and time in it."""
    leader.commit(1, 42)
    commit = CommitCodec().decode(leader.producer.payloads[0])
    assert (commit.group, commit.partition, commit.offset) == ("writers", EVENTS[1], 42)
    assert (commit.orig_message_ts, commit.received_p99) == (UNIX_SECONDS, None)


def test_a_partition_is_published_at_most_once_an_interval_with_the_newest_offset(leader: Leader) -> None:
    """Commits within the interval make one record, the newest, when the interval is over."""
    leader.producer.delivers_at_once = True
    leader.commit(0, 1)
    leader.commit(0, 2)
    leader.commit(0, 3)
    assert leader.producer.take() == [(0, 1)]
    assert leader.after(9.9) == []
    assert leader.after(0.2) == [(0, 3)]
    assert leader.after(50.0) == []


def test_partitions_do_not_wait_for_each_other(leader: Leader) -> None:
    """Each partition has its own interval, and one whose record is stuck delays no other."""
    leader.commit(0, 1)
    leader.clock.now += 5.0
    leader.commit(1, 10)
    assert leader.producer.take() == [(0, 1), (1, 10)]
    leader.producer.in_flight.pop(1)[1].set_result(
        BrokerValue(leader.producer.payloads[1], Partition(COMMIT_LOG, 0), 0, NAIVE_UTC)
    )
    leader.commit(0, 2)
    leader.commit(1, 11)
    assert leader.after(20.0) == [(1, 11)], "partition 0 has a record in flight"


def test_at_most_one_record_of_a_partition_is_in_flight(leader: Leader) -> None:
    """So the producer can't reorder them, and an outage piles nothing up: afterwards goes the newest offset alone."""
    leader.commit(0, 1)
    for offset in range(2, 50):
        leader.commit(0, offset)
        leader.clock.now += 5.0
        leader.step.poll()
    assert leader.producer.take() == [(0, 1)]
    leader.producer.deliver()
    assert leader.after(0.0) == []
    assert leader.after(20.0) == [(0, 49)]


def test_nothing_is_published_that_commit_refused(leader: Leader) -> None:
    """What ``commit`` raises comes out of `submit`, and the offset is not published, then or later."""
    leader.commits.error = RuntimeError("no commit")
    with pytest.raises(RuntimeError, match="no commit"):
        leader.commit(0, 1)
    leader.commits.error = None
    assert leader.after(1000.0) == []


def test_an_offset_that_goes_back_is_published(leader: Leader) -> None:
    """The newest commit counts, not the highest: a leader that was rewound must close its followers' gates."""
    leader.producer.delivers_at_once = True
    leader.commit(0, 50)
    leader.commit(0, 7)
    assert leader.producer.take() == [(0, 50)]
    assert leader.after(11.0) == [(0, 7)]


def test_a_heartbeat_repeats_the_offset_of_an_idle_partition(leader: Leader) -> None:
    """A partition not published for ``heartbeat`` seconds is published again; one that was, is not."""
    leader.producer.delivers_at_once = True
    leader.commit(0, 5)
    leader.commit(1, 6)
    assert leader.producer.take() == [(0, 5), (1, 6)]
    leader.clock.now += 60.0
    leader.commit(1, 7)
    assert leader.producer.take() == [(1, 7)]
    assert leader.after(39.0) == []
    assert leader.after(15.0) == [(0, 5)]
    assert leader.after(40.0) == []
    assert leader.after(10.0) == [(1, 7)]


def test_nothing_committed_makes_no_heartbeat(leader: Leader) -> None:
    """A pipeline that committed nothing has nothing to say, however long it waits."""
    assert leader.after(1000.0) == []
    leader.step.join(0.0)
    assert leader.producer.take() == []


def test_a_failed_delivery_is_counted_and_retried_with_the_newest_offset(leader: Leader) -> None:
    """The retry waits for the interval, and carries what was committed meanwhile."""
    leader.commit(0, 1)
    leader.commit(0, 2)
    leader.producer.fail(RuntimeError("broker gone"))
    assert leader.producer.take() == [(0, 1)]
    assert leader.after(15.0) == []
    assert leader.step.failed_deliveries == 1
    leader.commit(0, 3)
    assert leader.after(11.0) == [(0, 3)]
    leader.producer.deliver()
    assert leader.after(11.0) == []
    assert leader.step.failed_deliveries == 1


def test_a_commit_finds_out_what_became_of_the_record_before(leader: Leader, caplog: pytest.LogCaptureFixture) -> None:
    """A busy pipeline may commit far more often than it polls: failures are counted and told, and so is their end."""
    caplog.set_level(logging.INFO)
    leader.commit(0, 1)
    leader.producer.fail(RuntimeError("broker gone"))
    leader.commit(0, 2)
    assert leader.step.failed_deliveries == 1
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert leader.after(11.0) == [(0, 1), (0, 2)]
    leader.producer.deliver()
    leader.commit(0, 3)
    assert leader.step.failed_deliveries == 1
    assert caplog.messages[1:] == ["Commits of group writers are published to commit-log again"]


def test_a_failed_delivery_is_retried_though_nothing_new_was_committed(leader: Leader) -> None:
    """The last offset of a burst isn't lost with its record."""
    leader.commit(0, 1)
    leader.producer.fail(RuntimeError("broker gone"))
    leader.producer.take()
    leader.after(11.0)
    assert leader.after(11.0) == [(0, 1)]


@pytest.mark.parametrize(
    "error", [BufferError("queue full"), RuntimeError("producer has been closed")], ids=["full", "closed"]
)
def test_a_refused_record_is_a_failed_delivery(leader: Leader, error: Exception) -> None:
    """A full queue or a closed producer ends no pipeline: counted, and retried after the interval."""
    leader.producer.refuses = error
    leader.commit(0, 1)
    leader.commit(0, 2)
    assert leader.after(5.0) == []
    assert leader.step.failed_deliveries == 1, "not asked again within the interval"
    assert leader.after(6.0) == []
    assert leader.step.failed_deliveries == 2
    leader.producer.refuses = None
    assert leader.after(11.0) == [(0, 2)]


def test_failures_are_logged_once_a_minute_and_their_end_once(leader: Leader, caplog: pytest.LogCaptureFixture) -> None:
    """A broken commit log is said, not shouted: with partition, group, topic and cause, and when it works again."""
    leader.producer.refuses = BufferError("queue full")
    leader.commit(0, 1)
    for _ in range(11):
        leader.after(10.5)
    assert leader.step.failed_deliveries == 12
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == 2
    assert warnings[0] == (
        "events[0]: a commit of group writers could not be published to commit-log, so followers wait; the newest "
        "offset is published as soon as it can be (1 failed so far): BufferError: queue full"
    )
    leader.producer.refuses = None
    leader.producer.delivers_at_once = True
    leader.after(10.5)
    leader.after(10.5)
    leader.commit(0, 2)
    leader.after(10.5)
    assert [(record.levelname, record.getMessage()) for record in caplog.records[2:]] == [
        ("WARNING", "Commits of group writers are published to commit-log again")
    ]


def test_as_long_as_one_partition_fails_it_is_not_said_to_be_over(
    leader: Leader, caplog: pytest.LogCaptureFixture
) -> None:
    """As where one broker of the commit log is down: whoever reads "again" last believes that all followers go on."""

    def deliver(failing: set[int]) -> None:
        for partition, future in leader.producer.in_flight:
            if partition in failing:
                future.set_exception(TimeoutError("broker gone"))
            else:
                future.set_result(BrokerValue(leader.producer.payloads[-1], Partition(COMMIT_LOG, 0), 0, NAIVE_UTC))
        leader.producer.in_flight.clear()

    for offset, failing in enumerate([{0, 1}, {0}, {0}, set(), {1}, set()], 1):
        leader.commit(0, offset)
        leader.commit(1, offset)
        leader.after(10.5)
        assert len(leader.producer.in_flight) == 2
        deliver(failing)
    leader.after(10.5)
    assert [line.partition(":")[0] for line in caplog.messages] == [
        "events[0]", "Commits of group writers are published to commit-log again",
    ]  # fmt: skip


def test_a_failure_that_was_not_told_is_not_said_to_be_over(leader: Leader, caplog: pytest.LogCaptureFixture) -> None:
    """The line comes once a minute; and what fails for a moment is none after it."""
    for _ in range(3):
        leader.producer.refuses = BufferError("queue full")
        leader.commit(0, 1)
        leader.after(10.0)
        leader.producer.refuses = None
        leader.producer.delivers_at_once = True
        leader.after(10.0)
        leader.after(0.0)
    assert len(caplog.messages) == 2


def test_what_failed_of_a_partition_that_is_gone_keeps_nothing_failing(caplog: pytest.LogCaptureFixture) -> None:
    """Its next owner reports it."""
    leader = Leader(make_future)
    publisher = CommitLogPublisher(leader.producer, COMMIT_LOG, "writers", interval=10.0, clock=leader.clock)
    leader.step = publisher.step(leader.commits, {EVENTS[0]: 0, EVENTS[1]: 0})  # type: ignore[assignment]
    leader.producer.fail(TimeoutError("broker gone"))
    leader.producer.delivers_at_once = True
    leader.producer.refuses = BufferError("queue full")
    leader.after(10.0)
    leader.step.terminate()
    caplog.clear()
    leader.producer.refuses = None
    leader.step = publisher.step(leader.commits, {EVENTS[1]: 0})  # type: ignore[assignment]
    leader.after(10.0)
    leader.after(10.0)
    assert caplog.messages == ["Commits of group writers are published to commit-log again"]


def test_a_clock_that_the_brokers_refuse_is_named(leader: Leader, caplog: pytest.LogCaptureFixture) -> None:
    """Their own words don't say whose timestamp it is."""
    leader.producer.refuses = TransportError(KafkaError(KafkaError.INVALID_TIMESTAMP))
    leader.commit(0, 1)
    (line,) = caplog.messages
    assert line.endswith(
        "Broker: Invalid timestamp\"}. The brokers refuse this machine's time: set its clock right, or the topic's "
        "message.timestamp.type to LogAppendTime"
    )


def test_a_producer_that_has_failed_for_good_is_called_so(leader: Leader, caplog: pytest.LogCaptureFixture) -> None:
    """librdkafka accepts nothing more then, and says why to nobody but standard error: Arroyo's thread ends of it."""
    leader.producer.refuses = KafkaException(KafkaError(KafkaError._FATAL, "Unable to produce message"))
    leader.commit(0, 1)
    (line,) = caplog.messages
    assert line.endswith(
        'Unable to produce message"}. It never can be: this producer has failed for good, as one with '
        "enable.idempotence does that may not write so. librdkafka has written why to standard error; restart this "
        "leader once that is mended"
    )


SILENCE = (
    "events[0]: the producer hasn't said for 310 seconds what became of a commit of group writers for commit-log, and "
    "followers may wait; the newest offset is published again (1 failed so far). If its brokers are well, its own "
    "thread has ended, as by what a metrics backend raises in a delivery callback: restart this leader. Or its "
    "settings have delivery.report.only.error: leave that out"
)


def test_a_producer_that_says_nothing_more_is_told_of_and_its_records_are_published_again(
    leader: Leader, caplog: pytest.LogCaptureFixture
) -> None:
    """What raises in its callback ends Arroyo's thread without a word, and librdkafka goes on sending.

    A partition with a record in flight would be silent for ever, heartbeats too, and nobody would know why.
    """
    caplog.set_level(logging.INFO)
    leader.commit(0, 1)
    leader.commit(0, 2)
    assert leader.producer.take() == [(0, 1)]
    ((_, late),) = leader.producer.in_flight
    leader.producer.in_flight.clear()
    assert [leader.after(300.0), leader.after(9.9)] == [[], []]
    assert leader.step.failed_deliveries == 0
    assert leader.after(1.2) == []
    assert leader.step.failed_deliveries == 1
    assert caplog.messages == [SILENCE]
    assert leader.after(10.1) == [(0, 2)]
    late.set_result(BrokerValue(leader.producer.payloads[0], Partition(COMMIT_LOG, 0), 0, NAIVE_UTC))
    leader.commit(0, 3)
    assert leader.after(20.0) == [], "the second one is in flight, whatever became of the first"
    leader.producer.deliver()
    assert leader.after(2.0) == [(0, 3)]
    assert leader.step.failed_deliveries == 1
    assert caplog.messages[1:] == ["Commits of group writers are published to commit-log again"]


def test_a_silent_producer_is_told_of_once_a_minute_whatever_else_fails(caplog: pytest.LogCaptureFixture) -> None:
    """All partitions fall silent at about the same time; and its line isn't lost behind another failure's."""
    leader = Leader(make_future)
    leader.commit(0, 1)
    leader.commit(1, 1)
    leader.producer.in_flight.clear()
    leader.after(300.0)
    leader.producer.refuses = BufferError("queue full")
    leader.commit(2, 1)
    leader.after(11.0)
    assert leader.step.failed_deliveries == 4
    told = [" ".join(message.split()[:4]) for message in caplog.messages]
    assert told == ["events[2]: a commit of", "events[0]: the producer hasn't"]
    leader.step.terminate()


@pytest.mark.parametrize(
    ("settings", "seconds"),
    [
        pytest.param({"message.timeout.ms": 20_000}, 20.0, id="given"),
        pytest.param({}, 300.0, id="librdkafka's"),
    ],
)
def test_the_producer_has_as_long_as_its_settings_say(settings: dict[str, Any], seconds: float) -> None:
    """librdkafka gives a record up after ``message.timeout.ms`` and says so: only then may the next one be sent."""

    clock, commits = Clock(), Commits()
    producer = ConfiguredProducer(commits, settings)
    step = PublishCommitLog(commits, producer, COMMIT_LOG, "writers", clock=clock)
    step.submit(Message(Value(b"", {EVENTS[0]: 1})))
    failed = []
    for wait in (seconds, 9.9, 0.2):
        clock.now += wait
        step.poll()
        failed.append(step.failed_deliveries)
    assert failed == [0, 0, 1]
    step.terminate()


@pytest.mark.parametrize(
    "make", [CommitLogPublisher, lambda *args: PublishCommitLog(Commits(), *args)], ids=["publisher", "step"]
)
def test_a_producer_that_tells_only_of_failures_is_refused(make: Callable[..., object]) -> None:
    """Nobody would hear that a record was delivered: nothing more is published until it must have failed."""
    name, commits = "delivery.report.only.error", Commits()
    for settings in ({name: True}, {name: False, "default.topic.config": {name: True}}):
        with pytest.raises(ConfigurationError, match=rf"^the producer has {name}=True, .* Leave the setting out$"):
            make(ConfiguredProducer(commits, settings), COMMIT_LOG, "writers")
    make(ConfiguredProducer(commits, {name: False}), COMMIT_LOG, "writers")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        pytest.param({}, None, id="librdkafka's"),
        pytest.param({"linger.ms": 500}, None, id="as long as may be"),
        pytest.param({"linger.ms": 501}, "linger.ms=501", id="longer"),
        pytest.param({"queue.buffering.max.ms": "2000.0"}, "queue.buffering.max.ms=2000", id="by its other name"),
    ],
)
def test_a_producer_that_keeps_reports_for_too_long_is_warned_of(
    settings: dict[str, Any], told: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Two in a row are waited for at an end, for a second at most: what isn't confirmed by then would be told of."""
    CommitLogPublisher(ConfiguredProducer(Commits(), settings), COMMIT_LOG, "writers")
    expected = (
        f"{told} keeps each report of group writers in its producer for that time: followers wait for it, each "
        "rebalance and each end of this leader takes up to 1 s longer, and the log says that its last offsets were not "
        "confirmed, which arrive later. Leave it out, or give 500 at most"
    )
    assert caplog.messages == ([] if told is None else [expected])


def test_nothing_is_said_while_all_is_well(leader: Leader, caplog: pytest.LogCaptureFixture) -> None:
    """A line that it works again is for those who have read that it doesn't."""
    caplog.set_level(logging.INFO)
    leader.producer.delivers_at_once = True
    leader.commit(0, 1)
    leader.after(11.0)
    leader.step.join(1.0)
    assert caplog.messages == []


def test_a_batch_publishes_each_of_its_partitions(leader: Leader) -> None:
    """A `Value` over several partitions is published partition by partition, with its one timestamp (aware or not)."""
    timestamp = datetime(2024, 1, 2, 4, 4, 5, 500_000, timezone(timedelta(hours=1)))
    leader.step.submit(Message(Value([b"", b""], {EVENTS[0]: 5, EVENTS[2]: 9}, timestamp)))
    assert leader.producer.take() == [(0, 5), (2, 9)]
    assert [json.loads(each.value)["orig_message_ts"] for each in leader.producer.payloads] == [UNIX_SECONDS] * 2


def test_filtered_messages_are_published(leader: Leader) -> None:
    """A message that a filter dropped was dealt with, so followers may pass it."""
    leader.step.submit(Message(Value(FILTERED_PAYLOAD, {EVENTS[0]: 5})))
    assert leader.producer.take() == [(0, 5)]


def test_without_a_timestamp_the_partitions_last_one_stands(leader: Leader) -> None:
    """``orig_message_ts`` may not run ahead of the messages; only if none was ever known, it is the wall clock's."""
    leader.producer.delivers_at_once = True
    leader.commit(0, 1)
    leader.step.submit(Message(Value(FILTERED_PAYLOAD, {EVENTS[0]: 5, EVENTS[1]: 5})))
    assert leader.producer.take() == [(0, 1), (1, 5)]
    assert leader.after(11.0) == [(0, 5)]
    assert published(leader)["orig_message_ts"] == UNIX_SECONDS
    value = json.loads(leader.producer.payloads[1].value)
    assert abs(value["orig_message_ts"] - time.time()) < 600


def test_timestamps_are_utc_in_any_time_zone(leader: Leader) -> None:
    """Arroyo's broker timestamps are naive and in UTC; taking them for local time would shift them by hours."""
    with local_time_zone("Asia/Kathmandu"):
        leader.commit(0, 1)
    assert published(leader)["orig_message_ts"] == UNIX_SECONDS


def test_received_p99_is_the_percentile_since_the_last_record() -> None:
    """Of 200 received times the second newest is published, then that of the next ones; with none, the last one."""

    def received(message: Message[Any]) -> Iterable[float]:
        return [float(message.payload)] if message.payload else []

    leader = Leader(make_future, received_timestamps=received)
    leader.producer.delivers_at_once = True

    def commit(next_offset: int, received_at: int | None) -> None:
        leader.step.submit(Message(BrokerValue(received_at, EVENTS[0], next_offset - 1, NAIVE_UTC)))

    commit(1, 7000)
    assert published(leader)["received_p99"] == 7000.0
    commit(2, 6000)
    leader.after(11.0)
    assert published(leader)["received_p99"] == 6000.0
    for offset in range(3, 203):
        commit(offset, 1000 + offset)
    leader.after(11.0)
    assert published(leader)["received_p99"] == 1201.0
    commit(250, None)
    leader.after(11.0)
    assert published(leader) == {"offset": 250, "orig_message_ts": UNIX_SECONDS, "received_p99": 1201.0}
    for offset in range(300, 300 + 2 * MAX_RECEIVED_TIMES):
        commit(offset, 9 if offset < 300 + MAX_RECEIVED_TIMES else 2)
    leader.after(11.0)
    assert published(leader)["received_p99"] == 2.0
    leader.step.terminate()


def test_join_publishes_the_newest_offset_once_more(leader: Leader) -> None:
    """Within the interval, and though nothing is new: the last word of an assignment is its newest offset."""
    leader.producer.delivers_at_once = True
    leader.commit(0, 1)
    leader.commit(0, 2)
    leader.commit(1, 5)
    leader.producer.take()
    leader.step.close()
    leader.step.join(10.0)
    assert sorted(leader.producer.take()) == [(0, 2), (1, 5)]
    assert leader.commits.calls[-1] == ({}, True)


def test_join_commits_before_it_publishes(leader: Leader) -> None:
    """When the last commit fails, its error comes out and nothing more is published."""
    leader.commit(0, 1)
    leader.commit(0, 2)
    leader.producer.take()
    leader.commits.error = RuntimeError("no commit")
    with pytest.raises(RuntimeError, match="no commit"):
        leader.step.join(10.0)
    leader.step.terminate()
    assert leader.producer.take() == []


def test_join_waits_for_its_deliveries(leader: Leader) -> None:
    """It returns after the record in flight and then the last one were delivered, not before."""
    leader.commit(0, 1)
    leader.commit(0, 2)
    leader.producer.take()
    joined = threading.Event()

    def join() -> None:
        leader.step.join(60.0)
        joined.set()

    thread = threading.Thread(target=join, daemon=True)
    thread.start()
    with leader.producer.published:
        leader.producer.deliver()
        assert leader.producer.published.wait_for(lambda: leader.producer.records, 60.0)
        assert leader.producer.take() == [(0, 2)]
        assert not joined.is_set()
        leader.producer.deliver()
    assert joined.wait(60.0)
    thread.join()


def test_join_gives_up_at_its_timeout_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """A broker that doesn't answer holds up a rebalance no longer than the timeout; the log names what is unsure."""
    leader = Leader(make_future, clock=time.monotonic)
    leader.commit(0, 1)
    leader.commit(0, 2)
    leader.step.join(0.05)
    assert caplog.messages == [
        "The last offsets of group writers were not confirmed by commit-log before its pipeline ended. Followers may "
        "wait until the next owner of these partitions reports them: events[0] offset 2"
    ]
    assert leader.producer.take() == [(0, 1)]


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        pytest.param(3, ": events[0] offset 1, events[1] offset 2, events[2] offset 3", id="all of them"),
        pytest.param(2, ": events[0] offset 1, events[1] offset 2 and 1 more", id="and how many more"),
    ],
)
def test_what_is_unsure_is_named_in_a_line_of_bounded_length(
    shown: int, text: str, leader: Leader, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A leader may have thousands of partitions."""
    monkeypatch.setattr(delivery_log, "SHOWN_PARTITIONS", shown)
    for partition in range(3):
        leader.commit(partition, partition + 1)
    leader.step.join(0.0)
    (line,) = caplog.messages
    assert line.endswith(text)


class TickingClock(Clock):
    """Each look at it takes a hundredth of a second."""

    def __call__(self) -> float:
        self.now += 0.01
        return self.now


@pytest.mark.parametrize(("timeout", "most"), [(60.0, 1.0), (None, 1.0), (0.3, 0.3)])
def test_join_waits_for_a_second_at_most(timeout: float | None, most: float) -> None:
    """However long it may: a commit log that can't be written holds up no rebalance. And for as long as it may."""
    clock = TickingClock()
    leader = Leader(make_future, clock=clock)
    leader.commit(0, 1)
    before = clock.now
    leader.step.join(timeout)
    assert most <= clock.now - before < most + 0.1


def test_what_no_reader_could_take_is_counted_and_not_tried_again(
    leader: Leader, caplog: pytest.LogCaptureFixture
) -> None:
    """The partition goes on with what is committed next."""
    leader.producer.delivers_at_once = True
    leader.step.submit(Message(Value(b"", {EVENTS[0]: -5})))
    assert [leader.after(11.0), leader.after(11.0)] == [[], []]
    assert leader.step.failed_deliveries == 1
    assert "events[0] of group 'writers': an offset is an integer from 0 to 2**63 - 1, not -5" in caplog.text
    leader.commit(0, 3)
    assert leader.producer.take() == [(0, 3)]


@pytest.mark.parametrize("kind", [PublishCommitLog, CommitLogPublisher])
def test_by_default_a_partition_is_published_ten_times_a_second_at_most_and_again_after_ten_seconds(kind: Any) -> None:
    """So a follower waits for a tenth of a second, and knows in ten seconds who is gone."""
    clock, commits = Clock(), Commits()
    producer = ScriptedProducer(commits, make_future)
    producer.delivers_at_once = True
    step: PublishStep
    if kind is PublishCommitLog:
        step = PublishCommitLog(commits, producer, COMMIT_LOG, "writers", clock=clock)
    else:
        step = CommitLogPublisher(producer, COMMIT_LOG, "writers", clock=clock).step(commits, {})
    for offset in (1, 2):
        step.submit(Message(Value(b"", {EVENTS[0]: offset})))
    published = []
    for seconds in (0.09, 0.011, 9.9, 0.11):
        clock.now += seconds
        step.poll()
        published.append(producer.take())
    assert published == [[(0, 1)], [(0, 2)], [], [(0, 2)]]
    step.terminate()


def test_join_retries_a_failed_delivery_within_its_timeout() -> None:
    """A refusal in `join` costs an interval, not the offset."""
    leader = Leader(make_future, clock=time.monotonic, interval=0.02)
    leader.producer.delivers_at_once = True
    leader.producer.refuses = BufferError("queue full")
    leader.producer.refusals = 3
    leader.commit(0, 1)
    leader.step.join(60.0)
    assert leader.producer.take() == [(0, 1)]


def test_join_without_a_timeout_ends_when_a_delivery_has_failed(
    leader: Leader, caplog: pytest.LogCaptureFixture
) -> None:
    """It doesn't wait for a broker that never comes back, and says what is unsure."""
    leader.commit(0, 1)
    leader.producer.deliver()
    leader.commit(0, 2)
    leader.producer.refuses = BufferError("queue full")
    leader.step.join(None)
    assert leader.step.failed_deliveries == 1
    assert caplog.messages[-1].endswith("reports them: events[0] offset 2")


def test_join_names_no_offset_that_is_known_to_have_arrived(leader: Leader, caplog: pytest.LogCaptureFixture) -> None:
    """It is said once more at the end, and whether that arrives changes nothing."""
    leader.commit(0, 1)
    leader.commit(1, 5)
    leader.producer.deliver()
    leader.commit(0, 2)
    leader.step.join(0.0)
    assert leader.producer.take() == [(0, 1), (1, 5), (0, 2), (1, 5)]
    (line,) = caplog.messages
    assert line.endswith("reports them: events[0] offset 2")


def test_nothing_is_published_after_terminate(leader: Leader) -> None:
    """Neither what was pending nor a heartbeat nor a retry, and `join` publishes nothing either."""
    leader.commit(0, 1)
    leader.commit(0, 2)
    leader.producer.take()
    leader.step.terminate()
    leader.producer.fail(RuntimeError("broker gone"))
    assert leader.after(1000.0) == []
    leader.commit(0, 3)
    leader.commit(1, 1)
    leader.step.join(1.0)
    assert leader.producer.take() == []


def test_no_heartbeat_after_join(leader: Leader) -> None:
    """Its partitions may belong to another member by now."""
    leader.producer.delivers_at_once = True
    leader.commit(0, 1)
    leader.step.join(10.0)
    leader.producer.take()
    assert leader.after(1000.0) == []
    leader.step.join(10.0)
    assert leader.producer.take() == []


def test_the_end_of_a_burst_is_published_though_nobody_polls() -> None:
    """Arroyo may not call ``poll`` for a second, so the thread publishes what came within the interval."""
    leader = Leader(make_future, clock=time.monotonic, interval=0.02)
    leader.producer.delivers_at_once = True
    leader.commit(0, 1)
    leader.commit(0, 2)
    with leader.producer.published:
        assert leader.producer.published.wait_for(lambda: (0, 2) in leader.producer.records, 60.0)
    leader.step.terminate()


def test_the_end_of_another_burst_is_published_after_a_pause(caplog: pytest.LogCaptureFixture) -> None:
    """The thread, which had nothing left to do, is woken by its first commit."""
    leader = Leader(make_future, clock=time.monotonic, interval=0.02)
    leader.producer.delivers_at_once = True
    queue = leader.step._writer.queue
    for offset in (1, 3):
        leader.commit(0, offset)
        leader.commit(0, offset + 1)
        with leader.producer.published:
            newest = (0, offset + 1)
            assert leader.producer.published.wait_for(lambda: newest in leader.producer.records, 60.0)  # noqa: B023
        wait_until(lambda: not queue.waiting, 60.0, "the thread to have nothing left to do")
        wait_until(lambda: leader.step._writer._waits_until == math.inf, 60.0, "the thread to wait until it is woken")
    leader.step.terminate()
    assert caplog.messages == []


@pytest.mark.parametrize("begins_with", ["commit", "heartbeat"])
def test_the_end_of_a_burst_is_not_late_since_another_partitions_record_is_stuck(begins_with: str) -> None:
    """The thread, which looks seldom after that one, is woken by what is due sooner, whoever published last."""
    later = 0.0

    def clock() -> float:
        return time.monotonic() + later

    commits = Commits()
    producer = ConfiguredProducer(commits, {"message.timeout.ms": 10**12})
    step = PublishCommitLog(commits, producer, COMMIT_LOG, "writers", interval=0.02, heartbeat=1e6, clock=clock)
    queue = step._writer.queue
    producer.delivers_at_once = True
    step.submit(Message(Value(b"", {EVENTS[1]: 1})))
    producer.delivers_at_once = False
    step.submit(Message(Value(b"", {EVENTS[0]: 1})))
    producer.in_flight.clear()
    producer.delivers_at_once = True
    later = 2e6 if begins_with == "heartbeat" else 1e5
    wait_until(lambda: queue.due_at > clock() + 1e3, 60.0, "the thread to look seldom")
    if begins_with == "heartbeat":
        step.poll()
        assert producer.take()[2:] == [(1, 1)]
    else:
        step.submit(Message(Value(b"", {EVENTS[1]: 2})))
    step.submit(Message(Value(b"", {EVENTS[1]: 3})))
    with producer.published:
        assert producer.published.wait_for(lambda: (1, 3) in producer.records, 60.0)
    step.terminate()


def test_the_thread_may_look_when_all_is_to_be_published_once_more() -> None:
    """Between that and the publication it must not wait for ever, which no lock can: it died of an OverflowError."""
    leader = Leader(make_future, clock=time.monotonic, interval=0.02)
    leader.producer.delivers_at_once = True
    leader.commit(0, 1)
    writer = leader.step._writer
    wait_until(lambda: not writer.queue.waiting, 60.0, "the thread to have nothing left to do")
    with writer._lock:
        writer.queue.mark_all()
        writer._changed.notify_all()
    with leader.producer.published:
        assert leader.producer.published.wait_for(lambda: len(leader.producer.records) == 2, 60.0)
    leader.step.terminate()


def test_the_thread_sends_no_heartbeat() -> None:
    """A pipeline that hangs in a step must not look alive: heartbeats come from ``poll`` alone."""
    leader = Leader(make_future, clock=time.monotonic, interval=0.001, heartbeat=0.001)
    leader.commit(0, 1)
    leader.producer.deliver()
    leader.commit(1, 1)  # stays in flight, which keeps the thread awake
    with leader.producer.published:
        assert not leader.producer.published.wait_for(lambda: len(leader.producer.records) > 2, 0.05)
    leader.step.poll()
    assert leader.producer.take() == [(0, 1), (1, 1), (0, 1)]
    leader.step.terminate()


@pytest.mark.parametrize("end", ["join", "terminate"])
def test_the_thread_ends_with_the_step(end: str) -> None:
    """Each assignment makes a step, so a thread that stayed would be a leak."""
    leader = Leader(make_future, clock=time.monotonic)
    leader.producer.delivers_at_once = True
    begun = BegunThreads()
    leader.commit(0, 1)
    (thread,) = begun()
    assert thread.name == "arroyo-sync-publish-commit-log"
    assert thread.daemon, "a leader that ends without a join isn't kept alive by it"
    if end == "join":
        leader.step.join(60.0)
    else:
        leader.step.terminate()
    assert not thread.is_alive()


def test_a_producer_that_tells_nothing_of_its_records_is_taken_at_its_word(
    leader: Leader, caplog: pytest.LogCaptureFixture
) -> None:
    """As Arroyo's `FutureTrackingProducer`: each record counted as in flight, for the five minutes of its time-out."""
    produce = leader.producer.produce

    def tell_nothing(destination: Topic | Partition, payload: KafkaPayload) -> None:
        produce(destination, payload)
        leader.producer.in_flight.clear()

    leader.producer.produce = tell_nothing  # type: ignore[method-assign, assignment]
    leader.commit(0, 1)
    assert leader.producer.take() == [(0, 1)]
    for offset in (2, 3):
        leader.commit(0, offset)
        assert leader.after(10.0) == [(0, offset)]
    assert leader.step.failed_deliveries == 0
    (line,) = caplog.messages
    assert line == (
        "The producer of group writers, a ScriptedProducer, doesn't tell what becomes of a record: one that doesn't "
        "arrive counts as delivered, and is only repeated by the next heartbeat. Give the KafkaProducer itself"
    )


def test_a_log_handler_that_raises_ends_no_pipeline_and_costs_no_record(
    leader: Leader, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was taken together with the failure that couldn't be logged is handed over all the same.

    It was lost with the line, and counted as in flight from then on: its partition was silent for good.
    """
    monkeypatch.setattr(log_guard, "_throttle", LogThrottle(LOG_INTERVAL_SECONDS, leader.clock))
    leader.commit(0, 1)
    leader.commit(1, 1)
    leader.commit(1, 2)
    leader.producer.take()
    (_, failed), (_, delivered) = leader.producer.in_flight
    leader.producer.in_flight.clear()
    failed.set_exception(RuntimeError("broker gone"))
    delivered.set_result(BrokerValue(leader.producer.payloads[1], Partition(COMMIT_LOG, 0), 0, NAIVE_UTC))
    with log_handler_that_raises(SYSLOG_IS_GONE, times=1):
        assert leader.after(10.0) == [(1, 2)]
    assert caplog.messages == [
        "A line of the log is lost, since a handler or filter failed: OSError: syslog socket is gone"
    ]
    leader.producer.deliver()
    assert leader.after(10.1) == [(0, 1)]


def commit_for_two_partitions(leader: Leader) -> None:
    """Their second offsets are published together, after the interval."""
    for offset in (1, 2):
        leader.commit(0, offset)
        leader.commit(1, offset)
    leader.producer.deliver()
    assert leader.producer.take() == [(0, 1), (1, 1)]


def test_what_no_producer_got_since_a_worker_of_the_pipeline_died_is_due_again(leader: Leader) -> None:
    """It counted as in flight until the time-out of a delivery; so did what was taken together with it."""
    commit_for_two_partitions(leader)
    leader.producer.refuses, leader.producer.refusals = ChildProcessTerminated(17), 1
    with pytest.raises(ChildProcessTerminated):
        leader.after(10.0)
    assert leader.step.failed_deliveries == 0
    assert leader.after(9.9) == []
    assert leader.after(0.2) == [(0, 2), (1, 2)]


def test_what_a_producer_got_before_a_worker_of_the_pipeline_died_is_not_published_again(leader: Leader) -> None:
    """It was taken together with what no producer got."""
    commit_for_two_partitions(leader)

    def die_at_the_next() -> None:
        leader.producer.refuses, leader.producer.refusals = ChildProcessTerminated(17), 1

    leader.producer.on_produce = die_at_the_next
    with pytest.raises(ChildProcessTerminated):
        leader.after(10.0)
    leader.producer.on_produce = None
    assert leader.producer.take() == [(0, 2)]
    leader.producer.deliver()
    assert leader.after(10.1) == [(1, 2)]


def test_a_thread_that_began_as_a_worker_of_the_pipeline_died_ends_with_its_step(
    leader: Leader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was forgotten, and the next commit began another one."""
    begun = BegunThreads()
    with monkeypatch.context() as patched:
        worker_dies_as_threads_start(patched)
        with pytest.raises(ChildProcessTerminated):
            leader.commit(0, 1)
    leader.commit(0, 2)
    assert leader.producer.take() == [(0, 2)]
    (thread,) = begun()
    leader.step.terminate()
    assert not thread.is_alive()


def test_a_thread_that_never_began_as_a_worker_of_the_pipeline_died_is_not_waited_for(
    leader: Leader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It can't be."""
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", worker_dies)
        with pytest.raises(ChildProcessTerminated):
            leader.commit(0, 1)
    leader.step.terminate()


def test_nothing_that_is_logged_can_end_the_pipeline(leader: Leader) -> None:
    """Neither in ``submit`` nor in ``poll`` nor in ``join``, after which the step has ended as ever."""
    leader.producer.refuses = BufferError("queue full")
    with log_handler_that_raises(SYSLOG_IS_GONE):
        leader.commit(0, 1)
        leader.clock.now += 60.0
        leader.after(10.0)
        leader.step.join(0.0)
    leader.producer.refuses = None
    assert leader.after(1000.0) == []


@pytest.mark.parametrize("error", [SYSLOG_IS_GONE, SystemExit(1)], ids=["OSError", "SystemExit"])
def test_the_thread_outlives_a_log_handler(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """It died of what the handler raised, and nobody noticed: what was committed last waited for the next ``poll``."""
    monkeypatch.setattr(report_writer, "FAILED_PASS_SECONDS", 0.001)
    leader = Leader(make_future, clock=time.monotonic, interval=0.02)
    leader.producer.delivers_at_once = True
    leader.commit(0, 1)
    leader.producer.refuses = BufferError("queue full")
    leader.producer.refusals = 3
    with log_handler_that_raises(error, spared=threading.current_thread()), leader.producer.published:
        leader.commit(0, 2)
        assert leader.producer.published.wait_for(lambda: (0, 2) in leader.producer.records, 60.0)
    leader.step.terminate()


def test_whatever_ends_a_pass_the_next_one_comes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And what it was is told."""
    monkeypatch.setattr(report_writer, "FAILED_PASS_SECONDS", 0.001)
    seconds = [1000.0]  # so that no time passes between the two commits, and the second one is left to the thread
    leader = Leader(make_future, clock=lambda: seconds[0], interval=0.02)
    leader.producer.delivers_at_once = True
    publish = leader.step._writer._publish
    failures = [RuntimeError("no such thing"), SystemExit(1)]

    def fail_first() -> None:
        if failures:
            raise failures.pop(0)
        publish()

    monkeypatch.setattr(leader.step._writer, "_publish", fail_first)
    leader.commit(0, 1)
    leader.commit(0, 2)
    seconds[0] += 1.0
    with leader.producer.published:
        assert leader.producer.published.wait_for(lambda: (0, 2) in leader.producer.records, 60.0)
    leader.step.terminate()
    assert caplog.messages == [
        "The thread that publishes the commits of group writers to commit-log failed, and goes on: RuntimeError: no "
        "such thing"
    ]
    assert caplog.records[0].exc_info is not None, "with where it was raised"


def test_a_thread_that_always_fails_rests_in_between_and_ends_with_its_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it fails of, here the clock: it doesn't spin, and the pipeline's end doesn't wait for it."""
    processor = threading.current_thread()
    rests: list[float | None] = []
    has_rested = threading.Event()

    def clock() -> float:
        if threading.current_thread() is not processor:
            raise RuntimeError("no time")
        return 1000.0

    leader = Leader(make_future, clock=clock)
    writer = leader.step._writer
    wait = writer._changed.wait

    def rest(timeout: float | None = None) -> bool:
        rests.append(timeout)
        has_rested.set()
        return wait(timeout)

    monkeypatch.setattr(writer._changed, "wait", rest)
    leader.commit(0, 1)
    thread = writer._thread
    assert thread is not None
    assert has_rested.wait(60.0)
    leader.step.terminate()
    assert not thread.is_alive()
    assert set(rests) == {1.0}


def test_a_step_that_commits_nothing_starts_no_thread() -> None:
    """Constructors start nothing."""
    begun = BegunThreads()
    leader = Leader(make_future)
    leader.step.poll()
    assert begun() == []


class NotedLock:
    """A lock that says when a thread comes for it."""

    def __init__(self, lock: threading.Lock, on_come: Callable[[], None]) -> None:
        self._lock = lock
        self._on_come = on_come

    def __enter__(self) -> None:
        self._on_come()
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_a_commit_during_a_publication_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the processor commits while the thread publishes that partition is published next.

    The processor takes no lock when it finds the partition pending, so a publisher must clear that before it reads the
    newest offset. The other way round, what is committed just after the reading is lost. Here that is done after each.
    """
    leader = Leader(make_future)
    writer, publisher = leader.step._writer, threading.current_thread()
    slot = QueuedPartition.__dict__["newest"]
    processors: list[threading.Thread] = []
    has_come = threading.Event()  # the processor: to the lock, as it does if all is right, or to its end without

    def commit(offset: int) -> None:
        leader.commit(0, offset)
        has_come.set()

    def note() -> None:
        if threading.current_thread() in processors:
            has_come.set()

    def read(queued: QueuedPartition) -> object:
        newest: object = slot.__get__(queued)
        if threading.current_thread() is publisher and not leader.producer.payloads:
            has_come.clear()
            processors.append(threading.Thread(target=commit, args=[2 + len(processors)], daemon=True))
            processors[-1].start()
            assert has_come.wait(60.0)
        return newest

    monkeypatch.setattr(QueuedPartition, "newest", property(read, slot.__set__))
    monkeypatch.setattr(writer, "_lock", NotedLock(writer._lock, note))
    try:
        leader.commit(0, 1)
        for processor in processors:
            processor.join(60.0)
            assert not processor.is_alive()
        last = (0, 1 + len(processors))
        (published,) = leader.producer.take()
        assert published < last
        leader.producer.deliver()
        leader.clock.now += 11.0
        leader.step.poll()  # or the thread publishes it, if it comes first
        with leader.producer.published:
            assert leader.producer.published.wait_for(lambda: last in leader.producer.records, 60.0)
        assert leader.producer.take() == [last]
    finally:
        leader.step.terminate()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        pytest.param({"topic": Topic("")}, "^topic.name=.*a topic's name is", id="empty topic"),
        pytest.param({"topic": Topic("a:b")}, "^topic.name=.*a topic's name is", id="colon in the topic"),
        pytest.param({"group": ""}, "^group=.*a consumer group's name is", id="empty group"),
        pytest.param({"group": b"writers"}, "group=b'writers'", id="bytes for a group"),
        pytest.param({"interval": 0.0}, "^interval=.*must be more than 0", id="no interval"),
        pytest.param({"heartbeat": -1.0}, "^heartbeat=.*must be more than 0", id="negative heartbeat"),
        pytest.param({"interval": float("nan")}, "interval=nan.*must be more than 0", id="nan"),
        pytest.param(
            {"received_timestamps": 7},
            "^received_timestamps=7: must be called with a message or None$",
            id="no function",
        ),
        pytest.param(
            {"clock": 7.0}, "^clock=7.0: must be called with nothing, for monotonic seconds$", id="a time for a clock"
        ),
        pytest.param(
            {"commit": None},
            "^commit=None: must be the function that Arroyo hands to create_with_partitions$",
            id="no commit",
        ),
    ],
)
def test_bad_settings_are_refused(arguments: dict[str, Any], complaint: str) -> None:
    """Each with one line that names the setting."""
    commits = Commits()
    keywords = {"commit": commits, "topic": COMMIT_LOG, "group": "writers", **arguments}
    with pytest.raises(ConfigurationError, match=complaint):
        PublishCommitLog(producer=ScriptedProducer(commits, make_future), **keywords)


def test_a_value_that_is_no_broker_value_is_taken() -> None:
    """Whatever the steps before made of the message: only its committable and its timestamp are looked at."""

    class Custom(BaseValue[str]):
        @property
        def committable(self) -> Mapping[Partition, int]:
            return {EVENTS[0]: 3}

        @property
        def timestamp(self) -> datetime | None:
            return None

    leader = Leader(make_future)
    leader.step.submit(Message(Custom()))
    assert leader.producer.take() == [(0, 3)]
    leader.step.terminate()
