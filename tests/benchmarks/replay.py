"""How fast the commit log is replayed, what its state costs, and what one remote offset that moves costs.

    python -m tests.benchmarks.replay [repetitions]

Replay is measured on a real broker, against a bare consumer with the same settings that discards what it reads.
"""

from __future__ import annotations

import gc
import json
import sys
import time
import tracemalloc
import uuid
from collections.abc import Callable
from typing import Any

from arroyo.types import Topic
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition

from arroyo_sync.core.state import SynchronizedPartitionStateManager
from arroyo_sync.kafka.client_settings import reader_settings
from arroyo_sync.leaders.commit_log.batch_decoder import BATCH
from arroyo_sync.leaders.commit_log.consumer import CommitLogConsumer
from arroyo_sync.leaders.commit_log.record import CommitRecord, encode
from arroyo_sync.leaders.commit_report import CommitReport
from arroyo_sync.leaders.leader_offsets import LeaderOffsets
from tests.benchmarks.numbers import median_of_ratios, summarise
from tests.integration.cluster.admin import Kafka
from tests.integration.cluster.cluster import LONG_LIVED, KafkaCluster

RECORDS = 1_000_000
DATA_PARTITIONS = 16
GROUPS = ("followed", "other", "third")
LOG_PARTITIONS = (1, 16)
READY_SECONDS = 120.0
STATE_PARTITIONS = 10_000
STATE_GROUPS = 10
MOVES = 20_000


def run(cluster: Kafka, repetitions: int, records: int = RECORDS) -> dict[str, Any]:
    """All the numbers, and a summary of those with a target."""
    replays = {
        f"{count} commit-log partitions": _replay(cluster, count, repetitions, records) for count in LOG_PARTITIONS
    }
    memory = measure_state(STATE_PARTITIONS, STATE_GROUPS)
    moves = {
        name: summarise([measure_move(known, moving) for _ in range(repetitions)])
        for name, known, moving in (
            ("10 known", 10, 10),
            ("10,000 known, 10 move", STATE_PARTITIONS, 10),
            ("10,000 known, all move in turn", STATE_PARTITIONS, STATE_PARTITIONS),
        )
    }
    return {
        "replay": replays,
        "state_bytes": memory,
        "move_us": moves,
        "summary": {
            "replay.ratio_to_bare": min(each["ratio_to_bare"]["median"] for each in replays.values()),
            "replay.state_mb": memory / 1e6,
            "replay.move_ratio": moves["10,000 known, 10 move"]["median"] / moves["10 known"]["median"],
        },
    }


def write_commit_log(bootstrap_servers: str, topic: str, records: int) -> None:
    """Fill the commit log: every group commits every data partition in turn, ever further."""
    producer = Producer({"bootstrap.servers": bootstrap_servers, "linger.ms": 20, "compression.type": "lz4"})
    keys = [(partition, group) for partition in range(DATA_PARTITIONS) for group in GROUPS]
    for index in range(records):
        partition, group = keys[index % len(keys)]
        key, value = encode(CommitRecord("events", partition, group, index, 1_700_000_000.0 + index))
        while True:
            try:
                producer.produce(topic, key=key, value=value)
                break
            except BufferError:
                producer.poll(0.1)
    if producer.flush(60):
        raise RuntimeError("the broker didn't take all records of the commit log")


def measure_bare(bootstrap_servers: str, topic: str, partitions: int, records: int) -> float:
    """Records per second of a consumer that discards what it reads."""
    consumer = Consumer(reader_settings({"bootstrap.servers": bootstrap_servers}, lambda error: None))
    began = time.perf_counter()
    # librdkafka waits half a second before it fetches from a topic that it hasn't heard of, so it is asked first.
    consumer.list_topics(topic, READY_SECONDS)
    consumer.assign([TopicPartition(topic, each, OFFSET_BEGINNING) for each in range(partitions)])
    count = 0
    while count < records:
        first = consumer.poll(1.0)
        if first is not None:
            count += 1 + len(consumer.consume(BATCH, 0))
    elapsed = time.perf_counter() - began
    consumer.close()
    return records / elapsed


def measure_reader(bootstrap_servers: str, topic: str, records: int) -> float:
    """Records per second of a `CommitLogConsumer`, from its start until it is ready."""
    manager = SynchronizedPartitionStateManager()
    source = CommitLogConsumer({"bootstrap.servers": bootstrap_servers}, topic=Topic(topic), groups={GROUPS[0]})
    began = time.perf_counter()
    source.start(manager)
    source.wait_until_ready(READY_SECONDS)
    elapsed = time.perf_counter() - began
    read = source.statistics().read
    source.stop(10.0)
    known = len(source.published())
    if read != records or known != DATA_PARTITIONS:
        raise RuntimeError(f"{read} of {records} records were read, {known} partitions are known")
    return records / elapsed


def measure_state(partitions: int, groups: int) -> int:
    """Bytes of Python objects for the state of so many partitions and groups, the manager's included."""
    names = [f"leader-group-{index}" for index in range(groups)]
    gc.collect()
    tracemalloc.start()
    offsets = LeaderOffsets(names)
    offsets.attach(SynchronizedPartitionStateManager())
    offsets.enable()
    offsets.assign({("events", partition): None for partition in range(partitions)})
    for partition in range(partitions):
        for index, name in enumerate(names):
            # Numbers too great to be shared by the interpreter, as in the field.
            position = 1_000_000 + partition * groups + index
            report = CommitReport(
                ("events", partition), name, 10**9 + position, 1_700_000_000_000 + position, partition % 16, position
            )
            offsets.apply([report], float(position))
    gc.collect()
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return size


def measure_move(known: int, moving: int) -> float:
    """Microseconds for one record that moves one remote offset, with so many partitions known and moving in turn."""
    manager = SynchronizedPartitionStateManager()
    offsets = LeaderOffsets(GROUPS[:1])
    offsets.attach(manager)
    offsets.enable()
    offsets.assign({("events", partition): None for partition in range(known)})
    for partition in range(known):
        manager.cell("events", partition).received = 10**9  # so nothing has to be verified

    def record(partition: int, index: int) -> list[CommitReport]:
        report = CommitReport(("events", partition), GROUPS[0], index, 1_700_000_000_000 + index, 0, index)
        return [report]

    for partition in range(known):
        offsets.apply(record(partition, 0), 0.0)
    published = [record(index % moving, index + 1) for index in range(MOVES)]
    return _microseconds_each(lambda: [offsets.apply(each, 0.0) for each in published], MOVES)


def _microseconds_each(work: Callable[[], object], count: int) -> float:
    gc.collect()
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) / count * 1e6


def _replay(cluster: Kafka, partitions: int, repetitions: int, records: int) -> dict[str, Any]:
    topic = f"replay-{partitions}-{uuid.uuid4().hex[:8]}"
    cluster.create_topic(topic, partitions)
    write_commit_log(cluster.bootstrap_servers, topic, records)
    bare: list[float | None] = []
    reader: list[float | None] = []
    measure_bare(cluster.bootstrap_servers, topic, partitions, records)  # warms the page cache
    for _ in range(repetitions):
        bare.append(measure_bare(cluster.bootstrap_servers, topic, partitions, records))
        reader.append(measure_reader(cluster.bootstrap_servers, topic, records))
    cluster.delete_topic(topic)
    return {
        "bare_records_per_second": summarise(bare),
        "reader_records_per_second": summarise(reader),
        "ratio_to_bare": median_of_ratios(reader, bare),
    }


if __name__ == "__main__":
    with KafkaCluster(jvm_options=[LONG_LIVED]) as own_cluster:
        print(json.dumps(run(own_cluster, int(sys.argv[1]) if len(sys.argv) > 1 else 5), indent=2))
