"""``bytes``: what one follower makes the brokers send and answer, beside the data.

Of 100 partitions, each with 10 commit reports a second as this package's leaders write them, evenly spread. Each report
is one record batch, as from many leaders: the worst case, for bytes and for fetches.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from confluent_kafka import Producer, TopicCollection

from arroyo_sync.leaders.commit_log.record import TOPIC_ID_HEADER, CommitRecord, encode
from tests.benchmarks.bench import LEADER_GROUP, Bench, Run
from tests.benchmarks.numbers import summarise
from tests.benchmarks.promises import CommitRecords

PARTITIONS = 100
REPORTS_PER_SECOND = 10
"""Of each partition."""
SKIP_SECONDS = 2.5
"""What the start asks isn't counted."""
TICK_SECONDS = 0.005
_ESTABLISHED = "01"


def run(bench: Bench) -> dict[str, Any]:
    """Bytes, requests and connections of the gate's clients, and the connections that a pipeline without it has."""
    contenders = ["bare", "gated"]
    seconds = bench.pick(3.0, 8.0)
    messages = int((seconds + SKIP_SECONDS) * REPORTS_PER_SECOND)
    data = bench.load("bytes", PARTITIONS, PARTITIONS * messages, b"x" * 200)
    runs: dict[str, list[Run | None]] = {name: [] for name in contenders}
    for _ in range(bench.pick(1, 3)):
        for name in contenders:
            bench.progress(name)
            made = bench.attempt(f"bytes, {name}", lambda n=name: _run(bench, n, data.topic, messages))  # type: ignore[misc]
            runs[name].append(made)
    bench.cluster.delete_topic(data.topic)
    gated = [None if each is None else each.result["traffic"] for each in runs["gated"]]
    connections = {
        name: summarise([None if run is None else run.result["connections"] for run in mine])
        for name, mine in runs.items()
    }

    def rate(kind: str, what: str) -> dict[str, Any]:
        return summarise([None if each is None else each[kind][what] for each in gated])

    received = rate("reader", "received_bytes_a_second")
    cases: dict[str, Any] = {
        "commit log": {
            "received_bytes_a_second": received,
            "fetches_a_second": rate("reader", "requests_a_second"),
        },
        "questions": {
            "received_bytes_a_second": rate("asker", "received_bytes_a_second"),
            "requests_a_second": rate("asker", "requests_a_second"),
        },
        "connections": connections,
        "repetitions": gated,
    }
    more = [
        None if a is None or b is None else a - b
        for a, b in zip(connections["gated"]["values"], connections["bare"]["values"], strict=True)
    ]
    return {
        "partitions": PARTITIONS,
        "reports_a_second": PARTITIONS * REPORTS_PER_SECOND,
        "cases": cases,
        "summary": {
            "bytes.commit_log_a_second": received["median"],
            "bytes.commit_log_fetches_a_second": cases["commit log"]["fetches_a_second"]["median"],
            "bytes.questions_a_second": cases["questions"]["requests_a_second"]["median"],
            "bytes.questions_received_a_second": cases["questions"]["received_bytes_a_second"]["median"],
            "bytes.connections_more_than_bare": summarise(more)["median"],
        },
    }


def _run(bench: Bench, name: str, topic: str, messages: int) -> Run:
    commit_log = bench.create_topic("commit-log", 1)
    options: dict[str, Any] = {"capacity": PARTITIONS * (messages + 1), "traffic": SKIP_SECONDS}
    with bench.contender(name, topic, PARTITIONS, commit_log=commit_log, **options) as contender:
        records = _publish(bench, topic, commit_log, messages)
        connections = count_connections(contender.program.pid)
        run = contender.finish(records, [messages] * PARTITIONS)
    run.result["connections"] = connections
    bench.cluster.delete_topic(commit_log)
    return run


def _publish(bench: Bench, topic: str, commit_log: str, messages: int) -> CommitRecords:
    """One report after the other, each partition's in turn, until all messages are committed."""
    producer = Producer({"bootstrap.servers": bench.cluster.bootstrap_servers, "linger.ms": 0, "log_level": 2})
    described = bench.cluster.admin.describe_topics(TopicCollection([topic]))[topic].result(10)
    topic_id = str(described.topic_id).encode()
    rows = []
    begin, sent = time.perf_counter(), 0
    while sent < PARTITIONS * messages:
        due = min(PARTITIONS * messages, int((time.perf_counter() - begin) * PARTITIONS * REPORTS_PER_SECOND))
        for number in range(sent, due):
            partition, offset = number % PARTITIONS, number // PARTITIONS + 1
            key, value = encode(CommitRecord(topic, partition, LEADER_GROUP, offset, time.time()))
            rows.append((time.perf_counter_ns(), partition, offset, 0, 0))
            producer.produce(commit_log, value, key, headers=[(TOPIC_ID_HEADER, topic_id)])
        sent = due
        producer.poll(TICK_SECONDS)
    if producer.flush(60):
        raise RuntimeError("the broker didn't take the commit records within 60 s")
    return CommitRecords.of_rows(rows)


def count_connections(pid: int) -> int:
    """The TCP connections that a process of this machine has open."""
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(descriptor)
        except FileNotFoundError:  # closed meanwhile
            continue
        if target.startswith("socket:["):
            inodes.add(target[len("socket:[") : -1])
    lines = [line.split() for table in ("tcp", "tcp6") for line in _lines(Path(f"/proc/{pid}/net/{table}"))]
    return sum(fields[3] == _ESTABLISHED and fields[9] in inodes for fields in lines)


def _lines(table: Path) -> list[str]:
    return table.read_text().splitlines()[1:] if table.exists() else []
