"""The reader against a real broker: replay, what may lie on a commit log, and how it changes while it is read."""

from __future__ import annotations

import itertools
import logging
import random
import threading
import time
from collections.abc import Callable, Collection
from typing import Any

import pytest
from arroyo.types import Topic
from confluent_kafka import Producer

from arroyo_sync.core.errors import NotReady
from arroyo_sync.core.state import PartitionKey, SynchronizedPartitionState
from arroyo_sync.kafka.questions.asker import Asker
from arroyo_sync.kafka.questions.committed_offsets import Commits
from arroyo_sync.leaders.commit_log import batch_decoder
from arroyo_sync.leaders.commit_log import reader as commit_log_reader
from arroyo_sync.leaders.commit_log.consumer import CommitLogConsumer
from arroyo_sync.leaders.commit_log.record import LOGICAL_OFFSETS
from tests.integration.cluster.admin import Kafka
from tests.integration.cluster.reading import EVENTS, TIMEOUT_SECONDS, CommitLog, Remote, reading
from tests.integration.cluster.waiting import wait_until

Names = Callable[..., str]

LITTLE_AHEAD = {"queued.min.messages": 1, "fetch.message.max.bytes": 100}
"""Settings with which a client fetches one record after the other."""


# 1. Ready means replayed.


def test_nothing_is_known_before_the_whole_log_was_read(kafka: Kafka, log: CommitLog) -> None:
    """An old record that lies above the newest one never becomes a remote offset."""
    for index in range(20_000):
        log.write(b"%s:0:g" % EVENTS.encode(), b"%d" % (1_000_000 - index))
    log.publish(7)
    with reading(kafka, log.topic, is_ready=False) as (source, remote):
        remote.assign(source, 0, reach=2_000_000)
        source.wait_until_ready(TIMEOUT_SECONDS)
        assert remote.history == [((EVENTS, 0), None)] * (len(remote.history) - 1) + [((EVENTS, 0), 7)]
        assert source.statistics().read == 20_001
        assert source.statistics().rewinds == 0, "the past isn't news"


def test_a_record_that_arrives_later_counts_at_once(kafka: Kafka, log: CommitLog) -> None:
    """And its statistics say so."""
    with reading(kafka, log.topic) as (source, remote):
        log.publish(7)
        remote.wait_for(7)
        log.publish(8)
        remote.wait_for(8)
        wait_until(lambda: source.statistics().lag == 0, TIMEOUT_SECONDS, "the lag to be gone")
        statistics = source.statistics()
    assert (statistics.alive, statistics.read, statistics.malformed) == (True, 2, {})
    assert not source.statistics().alive


@pytest.mark.parametrize("partitions", [1, 4, 16])
def test_a_log_of_any_number_of_partitions_is_read_whole(kafka: Kafka, topic_name: Names, partitions: int) -> None:
    """64 data partitions, two groups, spread over the commit log by their keys; some of its partitions stay empty."""
    topic = topic_name("commit-log")
    kafka.create_topic(topic, partitions)
    log = CommitLog(kafka, topic)
    for offset, partition, group in itertools.product((5, 3, 9), range(64), ("a", "b")):
        log.write(f"{EVENTS}:{partition}:{group}".encode(), b"%d" % (offset + partition + (group == "b")))
    log.flush()
    with reading(kafka, topic, "a", "b") as (_, remote):
        assert [remote[partition] for partition in range(64)] == [9 + partition for partition in range(64)]


def test_a_long_replay_tells_how_far_it_is(
    kafka: Kafka, log: CommitLog, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In records, partitions, percent and rate; and when it is done."""
    monkeypatch.setattr(commit_log_reader, "PROGRESS_SECONDS", 0.0)
    monkeypatch.setattr(batch_decoder, "BATCH", 500)
    for index in range(5_000):
        log.write(b"%s:%d:g" % (EVENTS.encode(), index % 7), b"%d" % index)
    log.flush()
    with caplog.at_level(logging.INFO), reading(kafka, log.topic):
        pass
    lines = [record.getMessage() for record in caplog.records if "replayed" in record.getMessage()]
    assert any("% replayed" in line and "0 of 1 partitions" in line and "records/s" in line for line in lines), lines
    assert "replayed (5000 records, 1 of 1 partitions" in lines[-1]


def test_a_timeout_names_what_is_missing(kafka: Kafka, log: CommitLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """The partition, and how far it was read; before the start, that it wasn't started."""
    for index in range(30_000):
        log.write(b"%s:%d:g" % (EVENTS.encode(), index % 7), b"%d" % index)
    log.flush()
    source = CommitLogConsumer({"bootstrap.servers": kafka.bootstrap_servers}, topic=Topic(log.topic), groups=["g"])
    with pytest.raises(NotReady, match="it was never started"):
        source.wait_until_ready(0.0)
    source.stop(1.0)

    stuck = threading.Event()
    monkeypatch.setattr(commit_log_reader.CommitLogReader, "_process", lambda self, *_: stuck.wait(TIMEOUT_SECONDS))
    with reading(kafka, log.topic, is_ready=False) as (source, remote):
        remote.wait_until(lambda: "still has to read partitions" in source._missing(), "the replay to begin")
        with pytest.raises(NotReady, match=r"still has to read partitions 0 \(read up to 0 of 30000\)"):
            source.wait_until_ready(0.0)
        stuck.set()


def test_a_log_that_ends_in_offsets_without_records_is_replayed_all_the_same(kafka: Kafka, topic_name: Names) -> None:
    """Their records were deleted: the partition's end is met, though the last offset never is. A setting of the user
    that would break this doesn't count."""
    topic = topic_name("commit-log")
    kafka.create_topic(topic)
    log = CommitLog(kafka, topic)
    for offset in range(10):
        log.publish(offset)
    kafka.delete_records(topic, {0: 10})
    with reading(kafka, topic, settings={"enable.partition.eof": False}) as (source, remote):
        assert (source.statistics().read, remote[0]) == (0, None)
        log.publish(11)
        remote.wait_for(11)


def test_two_readers_take_nothing_from_one_another(kafka: Kafka, log: CommitLog) -> None:
    """Though their settings name the same group, and are those of an Arroyo consumer."""
    settings = {
        "group.id": "shared",
        "group.instance.id": "same",
        "auto.offset.reset": "latest",
        "enable.auto.commit": True,
        "arroyo.strict.offset.reset": False,
        "partition.assignment.strategy": "cooperative-sticky",
        "session.timeout.ms": 6000,
    }
    log.publish(5)
    with (
        reading(kafka, log.topic, settings=settings) as (_, first),
        reading(kafka, log.topic, settings=settings) as (_, second),
    ):
        log.publish(6)
        first.wait_for(6)
        second.wait_for(6)
    assert kafka.committed_offsets("shared", log.topic) == {}


# 5. Rewinds, and 3. of the design: unknown again.


def test_a_rewind_is_obeyed_counted_and_logged_once(
    kafka: Kafka, log: CommitLog, caplog: pytest.LogCaptureFixture
) -> None:
    """The state says REMOTE_BEHIND, and the line names topic, partition, group and both offsets."""
    with reading(kafka, log.topic) as (source, remote):
        remote.assign(source, 0, reach=10)
        remote.manager.set_local_offset(EVENTS, 0, 8)
        log.publish(10)
        remote.wait_for(10)
        log.publish(4)
        remote.wait_for(4)
        log.publish(5)
        remote.wait_for(5)
        assert remote.manager.partitions[EVENTS, 0][0] is SynchronizedPartitionState.REMOTE_BEHIND
        assert source.statistics().rewinds == 1
    lines = [record.getMessage() for record in caplog.records if "went back" in record.getMessage()]
    (line,) = lines
    assert line.startswith("events[0]: group 'g' went back from 10 to 4. ")


def test_a_tombstone_shuts_the_gate_until_the_group_publishes_again(kafka: Kafka, log: CommitLog) -> None:
    """Of the partition and group that it names."""
    with reading(kafka, log.topic, "a", "b") as (source, remote):
        for group in ("a", "b"):
            log.publish(10, group=group)
        remote.wait_for(10)
        log.publish(None, group="a")
        remote.wait_for(None)
        log.publish(12, group="a")
        remote.wait_for(10)
        assert source.statistics().tombstones == 1


# 6. Any record is survivable.


def test_no_record_ends_the_reader_or_hides_the_next_one(
    kafka: Kafka, topic_name: Names, caplog: pytest.LogCaptureFixture
) -> None:
    """Every strange record that a topic can hold, each after a good one of the same key, and all counted."""
    topic = topic_name("commit-log")
    kafka.create_topic(topic, config={"max.message.bytes": str(3 * 2**20)})
    log = CommitLog(kafka, topic)
    good, followed = b'{"offset": 5, "orig_message_ts": 1.0}', b"events:0:a:b"
    log.write(followed, good)
    strange_values: dict[str, list[bytes]] = {
        "value": [b"", b"\xff\xfe", b"{", b"[]", b"null", b'"5"', b"x" * 2**20, b"[" * 2**19],
        "offset": [
            b"{}",
            b'{"offset": -5}',
            b'{"offset": 5.0}',
            b'{"offset": true}',
            b'{"offset": "5"}',
            b'{"offset": 9223372036854775808}',
            b'{"offset": NaN}',
            b'{"offset": null}',
        ],
        "timestamp": [b'{"offset": 9, "orig_message_ts": "now"}'],
    }
    for value in itertools.chain(*strange_values.values(), [b"%d" % offset for offset in LOGICAL_OFFSETS]):
        log.write(followed, value)
    log.write(followed, b"9", headers=[("orig_message_ts", b"yesterday")])
    strange_keys = [None, b"", b"\xff", b"events", b"events:0", b"events:x:a:b", b":0:a:b", b"k" * 2**20]
    for key in strange_keys:
        log.write(key, good)
        log.write(key, None)
    for key in (b"events:0:unknown", b"events:0:b", b"events:0:a:b:c", b"other:0:c:a:b"):
        log.write(key, b"not even JSON")
    log.write(b"events:1:a:b", b"8", headers=[("orig_message_ts", b"2023-11-14T22:13:20.250000Z")])
    log.write(b"events:2:a:b", b"9", headers=[("other", None)])
    log.write(b"events:3:a:b", b'{"offset": 7, "unknown": {"field": [1]}, "padding": "' + b"x" * 2**20 + b'"}')
    log.flush()
    with reading(kafka, topic, "a:b") as (source, remote):
        assert [remote[partition] for partition in range(4)] == [5, 8, 9, 7]
        statistics = source.statistics()
        assert statistics.malformed == {
            "value": len(strange_values["value"]),
            "offset": len(strange_values["offset"]),
            "timestamp": 2,
            "key": 2 * len(strange_keys),
        }
        assert (statistics.logical, statistics.other_groups) == (len(LOGICAL_OFFSETS), 4)
        log.write(followed, b"6")
        log.flush()
        remote.wait_for(6)
    lines = [record.getMessage() for record in caplog.records if "Skipped a record" in record.getMessage()]
    assert len(lines) == len(statistics.malformed), "one line a reason a minute"
    assert all(topic in line and len(line) < 500 for line in lines)


# 7. Partitions that come, records that go.


@pytest.mark.parametrize("order", list(itertools.permutations(range(2))), ids=str)
def test_a_key_in_two_partitions_counts_by_its_time(kafka: Kafka, topic_name: Names, order: tuple[int, ...]) -> None:
    """As after an expansion, with a rewind among them, whichever partition is written (and so read) first."""
    topic = topic_name("commit-log")
    kafka.create_topic(topic, 2, {"retention.ms": "-1"})  # the records are of 1970
    log = CommitLog(kafka, topic)
    written = {0: [(10, 1_000), (90, 2_000)], 1: [(95, 3_000), (50, 4_000)]}
    for log_partition in order:
        for offset, timestamp_ms in written[log_partition]:
            log.publish(offset, log_partition=log_partition, timestamp_ms=timestamp_ms)
    with reading(kafka, topic) as (_, remote):
        assert remote[0] == 50
        log.publish(99, log_partition=0, timestamp_ms=3_500)
        log.publish(1, partition=1, log_partition=0)
        remote.wait_for(1, partition=1)
        assert remote[0] == 50, "a late record of the old partition is older"
        log.publish(51, log_partition=0, timestamp_ms=4_000)
        log.publish(2, partition=1, log_partition=0)
        remote.wait_for(2, partition=1)
        assert remote[0] == 50, "on a tie the lower offset counts"


def test_partitions_added_to_the_commit_log_are_read_once_they_are_found(kafka: Kafka, log: CommitLog) -> None:
    """From their beginning, and what they held counts only as a whole: 90 was never the last word of any partition."""
    log.publish(10)
    with reading(kafka, log.topic, settings=LITTLE_AHEAD) as (source, remote):
        remote.assign(source, 0, reach=100)
        kafka.add_partitions(log.topic, 3)
        log.renew()
        log.publish(90, log_partition=2)
        log.publish(20, log_partition=2)
        remote.wait_for(20)
        assert [offset for key, offset in remote.history if key == (EVENTS, 0)] == [None, 10, 20]
        assert source.ready
        log.publish(21, log_partition=2)
        remote.wait_for(21)
        log.publish(5, partition=1, log_partition=1)
        remote.wait_for(5, partition=1)


def test_partitions_added_to_the_data_topic_need_nothing(kafka: Kafka, log: CommitLog) -> None:
    """Their keys appear on the commit log."""
    log.publish(10, partition=0)
    with reading(kafka, log.topic) as (_, remote):
        log.publish(1, partition=17)
        remote.wait_for(1, partition=17)


def test_compacted_and_deleted_segments_are_no_obstacle(kafka: Kafka, topic_name: Names) -> None:
    """Gaps of all sizes between the offsets of a real, compacted log, the beginning of which is gone."""
    topic = topic_name("commit-log")
    compacting = {
        "cleanup.policy": "compact,delete",
        "segment.ms": "50",
        "min.cleanable.dirty.ratio": "0.01",
        "max.compaction.lag.ms": "100",
    }
    kafka.create_topic(topic, config=compacting)
    log = CommitLog(kafka, topic)
    for index in range(6_000):
        log.write(b"%s:%d:g" % (EVENTS.encode(), index % 5), b"%d" % index)
    log.flush()
    kafka.delete_records(topic, {0: 100})

    def is_compacted() -> bool:
        log.publish(1, partition=9)  # lets the broker close the segment before it
        with reading(kafka, topic) as (source, _):
            return source.statistics().read < 3_000

    wait_until(is_compacted, 2 * TIMEOUT_SECONDS, "the broker to compact the log")
    with reading(kafka, topic) as (_, remote):
        assert [remote[partition] for partition in range(5)] == [5995, 5996, 5997, 5998, 5999]


def test_a_position_that_is_gone_shuts_the_gate_until_its_partition_was_read_again(
    kafka: Kafka, topic_name: Names, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The records were deleted under the reader: what only they said is unknown, the rest is as before."""
    topic = topic_name("commit-log")
    kafka.create_topic(topic, 2)
    log = CommitLog(kafka, topic)
    log.publish(10, partition=0, log_partition=0)
    log.publish(20, partition=1, log_partition=1)
    with reading(kafka, topic, settings=LITTLE_AHEAD) as (source, remote):
        remote.assign(source, 1, reach=100)
        assert (remote[0], remote[1]) == (10, 20)
        # A reader that stands still while its next records are written and deleted.
        proceed = threading.Event()
        process: Callable[..., None] = source._reader._process

        def wait_first(*arguments: object) -> None:
            proceed.wait(TIMEOUT_SECONDS)
            process(*arguments)

        monkeypatch.setattr(source._reader, "_process", wait_first)
        for offset in range(30, 70):
            log.publish(offset, partition=0, log_partition=0)
        kafka.delete_records(topic, {0: 41})
        log.publish(25, partition=1, log_partition=1)
        proceed.set()
        remote.wait_until(
            lambda: any("is gone" in record.getMessage() for record in caplog.records), "the position to be missed"
        )
        remote.wait_for(25, partition=1)
        remote.wait_until(lambda: source.ready and remote[0] is None, "the gate to open without what is gone")
        log.publish(400, partition=0, log_partition=0)
        remote.wait_for(400)
    shut = remote.history.index(((EVENTS, 1), None), remote.history.index(((EVENTS, 1), 20)))
    assert remote.history[shut:].index(((EVENTS, 1), 25)), "the other partition was shut as well, and opened again"


def test_a_commit_log_that_is_created_again_is_read_from_its_beginning(
    kafka: Kafka, log: CommitLog, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the new one has grown past the reader's position, so that the client alone would go on in its middle."""
    monkeypatch.setattr(commit_log_reader, "MISSING_SECONDS", TIMEOUT_SECONDS)
    for offset in range(10):
        log.publish(offset, partition=1)
    log.publish(1_000)
    with reading(kafka, log.topic) as (source, remote):
        remote.assign(source, 0, reach=1_000)
        assert remote[0] == 1_000
        kafka.recreate_topic(log.topic)
        log.renew()
        for offset in range(50):
            log.write(f"{EVENTS}:{2 if offset else 0}:g".encode(), b"%d" % (offset + 1))
        log.flush()
        remote.wait_for(50, partition=2)
        # It may be read twice: once its position is gone, and once the topic's id has told that it is another one.
        remote.wait_until(
            lambda: source.ready and (remote[0], remote[1]) == (1, None), "what the old log said to be forgotten"
        )
    assert ((EVENTS, 0), None) in remote.history[-100:]
    assert any("created again" in record.getMessage() or "is gone" in record.getMessage() for record in caplog.records)


# 2. A start that reads only the end.


def aged(seconds: float) -> int:
    """A record's timestamp."""
    return int((time.time() - seconds) * 1000)


class Field:
    """A data topic of eight partitions with messages, and what two leader groups say of it."""

    def __init__(self, kafka: Kafka, log: CommitLog, name: str) -> None:
        self.kafka = kafka
        self.log = log
        self.name = name
        self.groups = f"{name}-a", f"{name}-b"
        self.keys = {(name, partition): 0 for partition in range(8)}
        kafka.create_topic(name, 8)
        data = Producer({"bootstrap.servers": kafka.bootstrap_servers})
        for index in range(8_000):
            data.produce(name, b"x", partition=index % 8, timestamp=aged(7_200))  # before anything was published of it
        assert data.flush(TIMEOUT_SECONDS) == 0

    def write(self, offset: int, partition: int, group: str, age_seconds: float) -> None:
        self.log.write(f"{self.name}:{partition}:{group}".encode(), b"%d" % offset, timestamp_ms=aged(age_seconds))

    def remotes(self, remote: Remote) -> dict[int, int | None]:
        return {partition: remote.of((self.name, partition)) for partition in range(8)}


@pytest.fixture
def field(kafka: Kafka, log: CommitLog, topic_name: Names) -> Field:
    return Field(kafka, log, topic_name("events"))


def test_a_recent_start_reads_only_the_end_and_takes_the_rest_from_the_groups(field: Field) -> None:
    """What was published lately counts, be it lower than what the group has committed; the rest is its commit."""
    first, second = field.groups
    for index in range(5_000):
        field.write(1_000 + index, index % 3, first, 3_600)
    field.log.flush()
    field.log.publish(30, 1, first, field.name)
    field.log.publish(31, 1, second, field.name)
    for group in field.groups:
        field.kafka.commit_offsets(group, field.name, {0: 70, 1: 71})
    with reading(field.kafka, field.log.topic, *field.groups, start="recent") as (source, remote):
        source.assign(field.keys, None)
        remote.wait_for(70, 0, field.name)
        remote.wait_for(30, 1, field.name)
        assert field.remotes(remote) == {0: 70, 1: 30, **dict.fromkeys(range(2, 8))}
        assert source.statistics().read == 2
        assert source.statistics().rewinds == 0
        field.log.publish(60, 0, first, field.name)
        remote.wait_for(60, 0, field.name)


def test_a_recent_start_reads_all_if_nothing_of_a_group_can_be_seen(
    field: Field, caplog: pytest.LogCaptureFixture
) -> None:
    """As where the leaders commit on another cluster: nothing is guessed, and the gate is shut meanwhile."""
    seen, unseen = field.groups
    field.kafka.commit_offsets(seen, field.name, {0: 70})
    for group in field.groups:
        field.write(50, 0, group, 3_600)
    field.log.flush()
    with reading(field.kafka, field.log.topic, seen, unseen, start="recent") as (source, remote):
        source.assign(field.keys, None)
        remote.wait_for(50, 0, field.name)
        source.wait_until_ready(TIMEOUT_SECONDS)
        assert source.statistics().read == 2
        assert {offset for key, offset in remote.history if key == (field.name, 0)} == {None, 50}
    (line,) = [each.getMessage() for each in caplog.records if "read from its beginning" in each.getMessage()]
    assert unseen in line


def test_a_recent_start_sees_a_leader_that_goes_back_while_its_commit_is_asked_for(
    field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether its record is read before or after the commit is taken: the lower offset counts in the end."""
    group, _ = field.groups
    field.kafka.commit_offsets(group, field.name, {0: 70, 1: 70})
    ask = Asker.ask_committed

    def go_back(
        self: Asker,
        group: str,
        partitions: Collection[PartitionKey],
        timeout: float,
        on_answer: Callable[[Commits], None],
    ) -> None:
        def answer_later(committed: Commits) -> None:
            field.log.publish(40, 0, group, field.name)
            remote.wait_until(lambda: (field.name, 0) in source.published(), "the record to be read")
            on_answer(committed)

        ask(self, group, partitions, timeout, answer_later)

    monkeypatch.setattr(Asker, "ask_committed", go_back)
    with reading(field.kafka, field.log.topic, group, start="recent") as (source, remote):
        source.assign(field.keys, None)
        remote.wait_for(40, 0, field.name)
        remote.wait_for(70, 1, field.name)
        assert ((field.name, 0), 70) not in remote.history
        field.log.publish(39, 1, group, field.name)
        remote.wait_for(39, 1, field.name)


def test_a_recent_start_ends_as_a_full_replay_would(field: Field) -> None:
    """For leaders that commit what they publish, wherever the look back begins."""
    source = random.Random(3)
    group, _ = field.groups
    last: dict[int, int | None] = dict.fromkeys(range(8))
    for age in range(200, 0, -1):
        partition, offset = source.randrange(8), source.randrange(1_000)  # rewinds among them
        last[partition] = offset
        field.write(offset, partition, group, age)
    field.log.flush()
    field.kafka.commit_offsets(group, field.name, {key: offset for key, offset in last.items() if offset is not None})
    for lookback_seconds in (1e-3, 50.0, 199.5, 1e6):
        arguments: dict[str, Any] = {"start": "recent", "lookback_seconds": lookback_seconds}
        with reading(field.kafka, field.log.topic, group, **arguments) as (reader, remote):
            reader.assign(field.keys, None)
            remote.wait_until(lambda remote=remote: field.remotes(remote) == last, f"the end, from {lookback_seconds}")  # type: ignore[misc]


def test_a_recent_start_asks_nothing_of_groups_that_published_lately(
    field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A leader with heartbeats is known from the end of the log alone."""
    asked: list[object] = []
    monkeypatch.setattr(Asker, "ask_committed", lambda self, *arguments: asked.append(arguments))
    group, _ = field.groups
    for partition in range(8):
        field.write(partition, partition, group, 10)
    field.log.flush()
    with reading(field.kafka, field.log.topic, group, start="recent") as (source, remote):
        source.assign(field.keys, None)
        remote.wait_for(7, 7, field.name)
    assert asked == []
