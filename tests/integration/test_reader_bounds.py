"""What somebody else writes to the commit log: what is kept of it, and what is said of it, on a real Kafka."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from arroyo.types import Topic

from arroyo_sync.leaders.commit_log.consumer import CommitLogConsumer
from tests.integration.cluster.admin import Kafka
from tests.integration.cluster.reading import EVENTS, QUICK, CommitLog, Remote, reading, running

Names = Callable[..., str]

HOUR_MS = 3_600_000


@pytest.fixture
def compressed_log(kafka: Kafka, topic_name: Names) -> CommitLog:
    """A commit log of which a fetch of the usual size holds gigabytes."""
    topic = topic_name("commit-log")
    kafka.create_topic(topic, 1, {"compression.type": "zstd"})
    return CommitLog(kafka, topic)


@contextmanager
def traced() -> Iterator[None]:
    """Counts the bytes of Python objects, records among them, from here on."""
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("is_subscribed", [True, False], ids=["subscribed before the start", "assigned later"])
def test_reports_of_other_topics_leave_nothing_behind(kafka: Kafka, log: CommitLog, is_subscribed: bool) -> None:
    """Whether the data topic is known at the start or only when the log was read: with more than there is room for."""
    log.publish(7)
    for index in range(50_000):
        log.write(b"made-up-%d:0:g" % index, b"5")
    log.publish(8, partition=1)
    source = CommitLogConsumer(
        {"bootstrap.servers": kafka.bootstrap_servers, **QUICK}, topic=Topic(log.topic), groups={"g"}
    )
    if is_subscribed:
        source.subscribe(EVENTS)
    with running(source) as remote:
        for partition in (0, 1):
            remote.assign(source, partition, reach=10)
        remote.wait_for(7)
        remote.wait_for(8, partition=1)
        assert source._offsets.published().keys() == {(EVENTS, 0), (EVENTS, 1)}
        assert {topic for topic, _ in source._offsets._table._rows} == {EVENTS}
        assert len(remote.manager.partitions) == 2
        assert source.statistics().other_topics >= 50_000


def test_keys_that_no_topic_can_have_are_refused_and_not_kept(kafka: Kafka, compressed_log: CommitLog) -> None:
    """3,000 topics' names of 100,000 characters are 300 MB, compressed to nothing on the broker."""
    log = compressed_log
    for index in range(3_000):
        log.write(b"x" * 100_000 + b"%d:0:g" % index, b"5")
        if index % 100 == 0:
            log.flush()
    log.publish(8)
    with traced(), reading(kafka, log.topic) as (source, remote):
        remote.wait_for(8)
        assert source.statistics().malformed == {"key": 3_000}
        size, peak = tracemalloc.get_traced_memory()
    print(f"{size / 1e6:.1f} MB are kept, {peak / 1e6:.1f} MB were needed")
    assert size < 3_000_000
    assert peak < 80_000_000


def test_large_records_are_read_a_few_at_a_time(kafka: Kafka, compressed_log: CommitLog) -> None:
    """300 records of 0.9 MB."""
    log = compressed_log
    for index in range(300):
        log.write(b"events:0:g", b'{"offset": %d, "padding": "' % index + b"x" * 900_000 + b'"}')
        if index % 20 == 0:
            log.flush()
    log.flush()
    with traced(), reading(kafka, log.topic) as (source, remote):
        assert (remote[0], source.statistics().read) == (299, 300)
        _, peak = tracemalloc.get_traced_memory()
    print(f"{peak / 1e6:.1f} MB were needed")
    assert peak < 80_000_000


def test_a_data_topic_given_as_commit_log_is_called_so(
    kafka: Kafka, log: CommitLog, caplog: pytest.LogCaptureFixture
) -> None:
    """In one line, beside the one for the first record that can't be read."""
    for index in range(1_500):
        log.write(b"user-%d" % index, b'{"event": "click"}')
    log.flush()
    with reading(kafka, log.topic) as (source, _):
        assert source.statistics().is_foreign
    lines = [line for line in caplog.messages if "no commit log" in line]
    assert lines == [
        f"Topic {log.topic} is no commit log: none of the first 1,000 records is a commit record, whose key would be "
        "topic:partition:group. Nothing is released. Was another topic's name given by mistake?"
    ]


@pytest.mark.parametrize("is_replayed", [True, False], ids=["in the replay", "live"])
@pytest.mark.parametrize("offset", [4, 900], ids=["a low offset", "a high offset"])
def test_a_report_from_the_future_counts_until_the_groups_next_one(
    kafka: Kafka, topic_name: Names, offset: int, is_replayed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """One key in two partitions of a log with CreateTime, which is warned about once."""
    topic = topic_name("commit-log")
    kafka.create_topic(topic, 2, {"message.timestamp.after.max.ms": str(2**63 - 1)})
    log = CommitLog(kafka, topic)
    now_ms = int(time.time() * 1000)

    def write_future(remote: Remote | None) -> None:
        log.publish(10, log_partition=0, timestamp_ms=now_ms - 5_000)
        log.publish(offset, log_partition=0, timestamp_ms=now_ms + 1_000 * HOUR_MS)
        if remote is not None:
            remote.wait_for(offset)

    if is_replayed:
        write_future(None)
    with reading(kafka, topic) as (source, remote):
        if not is_replayed:
            write_future(remote)
        assert remote[0] == offset
        log.publish(11, log_partition=1, timestamp_ms=now_ms - 4_000)
        remote.wait_for(11)
        log.publish(6, log_partition=1, timestamp_ms=now_ms - 3_000)
        remote.wait_for(6)
        assert source.statistics().from_the_future == 1
    assert sum("message.timestamp.type=CreateTime" in line for line in caplog.messages) == 1
    assert sum("timestamp from the future" in line for line in caplog.messages) == 1
