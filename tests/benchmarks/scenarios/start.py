"""``replay`` and ``start``: how fast a commit log is read, and how long a follower waits before its gate may open.

The commit log of ``start`` is a day old: its records' timestamps are spread over 24 hours. A full start reads it all; a
recent one only the last ten minutes, and takes the leader's committed offsets from the broker for the rest.
"""

from __future__ import annotations

import time
from typing import Any, Literal

from arroyo.types import Topic
from confluent_kafka import Producer

from arroyo_sync.core.state import SynchronizedPartitionStateManager
from arroyo_sync.leaders.commit_log.consumer import CommitLogConsumer
from arroyo_sync.leaders.commit_log.record import CommitRecord, encode
from tests.benchmarks import replay
from tests.benchmarks.bench import Bench
from tests.benchmarks.numbers import least, summarise

DATA_PARTITIONS = 16
LOG_PARTITIONS = 4
GROUPS = ("followed", "other", "third")
DAY_SECONDS = 24 * 3600
READY_SECONDS = 120.0


def run_replay(bench: Bench) -> dict[str, Any]:
    """The reader's rate over that of a bare consumer, by the reader's own benchmark."""
    bench.progress("replay of 1 and 16 commit-log partitions")
    found = replay.run(bench.cluster, bench.repetitions, bench.pick(200_000, 1_000_000))
    found.pop("summary")
    ratio = least(each["ratio_to_bare"] for each in found["replay"].values())
    return {"cases": found, "summary": {"replay.over_bare_consume": ratio}}


def run(bench: Bench) -> dict[str, Any]:
    """Seconds until ready, full and recent, alternating."""
    records = bench.pick(200_000, 1_000_000)
    data, commit_log = bench.create_topic("start-data", DATA_PARTITIONS), bench.create_topic("start", LOG_PARTITIONS)
    bench.progress(f"writing {records:,} commit records")
    _write(bench, data, commit_log, records)
    seconds: dict[str, list[float | None]] = {"all": [], "recent": []}
    for _, start in bench.alternating(list(seconds)):
        seconds[start].append(_seconds_to_ready(bench, commit_log, "recent" if start == "recent" else "all"))
    bench.cluster.delete_topic(commit_log)
    cases = {start: {"seconds_to_ready": summarise(mine)} for start, mine in seconds.items()}
    return {
        "records": records,
        "cases": cases,
        "summary": {"start.recent_seconds": cases["recent"]["seconds_to_ready"]["median"]},
    }


def _write(bench: Bench, data: str, commit_log: str, records: int) -> None:
    """Every group commits every data partition in turn, ever further; the broker knows the followed group's offsets."""
    producer = Producer({"bootstrap.servers": bench.cluster.bootstrap_servers, "linger.ms": 20})
    keys = [(partition, group) for partition in range(DATA_PARTITIONS) for group in GROUPS]
    begin = time.time() - DAY_SECONDS
    for index in range(records):
        partition, group = keys[index % len(keys)]
        seconds = begin + DAY_SECONDS * index / records
        key, value = encode(CommitRecord(data, partition, group, index, seconds))
        while True:
            try:
                producer.produce(commit_log, value, key, timestamp=int(seconds * 1_000))
                break
            except BufferError:
                producer.poll(0.1)
    if producer.flush(60):
        raise RuntimeError("the broker didn't take all records of the commit log within 60 s")
    bench.cluster.commit_offsets(GROUPS[0], data, dict.fromkeys(range(DATA_PARTITIONS), records))


def _seconds_to_ready(bench: Bench, commit_log: str, start: Literal["all", "recent"]) -> float:
    source = CommitLogConsumer(
        {"bootstrap.servers": bench.cluster.bootstrap_servers},
        topic=Topic(commit_log),
        groups={GROUPS[0]},
        start=start,
    )
    begin = time.perf_counter()
    source.start(SynchronizedPartitionStateManager())
    source.wait_until_ready(READY_SECONDS)
    elapsed = time.perf_counter() - begin
    source.stop(10.0)
    return elapsed
