"""What other people write to a commit log that they share: reports of other topics and groups, and rubbish."""

from __future__ import annotations

import json
import os
import select
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from random import Random
from typing import Any

from confluent_kafka import KafkaException, Producer

from tests.chaos.journal import Journal

STEP_SECONDS = 0.1
RECORDS_A_STEP = 5
FOREIGN_TIMESTAMP = 1.0
"""``orig_message_ts`` of what no leader wrote; the judge knows it by that."""

Record = tuple[bytes | None, bytes | None]


def report(topic: str, partition: int | str, group: str, offset: int) -> Record:
    value = {"offset": offset, "orig_message_ts": FOREIGN_TIMESTAMP, "received_p99": None}
    return f"{topic}:{partition}:{group}".encode(), json.dumps(value).encode()


def foreign(random: Random, topic: str, groups: Sequence[str]) -> Record:
    """A record that says nothing of a followed group in this topic."""
    group, partition, offset = random.choice(groups), random.randrange(100), random.randrange(10**6)
    return random.choice(
        [
            report(topic, partition, f"{group}-other", offset),
            report(f"{topic}-other", partition, group, offset),
            report(topic, partition, "somebody:else", offset),
            (None, b"no key"),
            (b"\xff\xfe", b"not text"),
            (b"no colons", b"1"),
            report(topic, f"0{partition % 4}", group, offset % 3000),
            (f"{topic}:one:{group}".encode(), b"1"),
            (f"{topic}:{partition}:".encode(), b"1"),
            (f"{'x' * 300}:{partition}:{group}".encode(), b"1"),
        ]
    )


def wrong(random: Random, topic: str, group: str, partition: int) -> list[Record]:
    """Records about a followed group that can't be read or can't be true, and one that takes back what was said."""
    key = f"{topic}:{partition}:{group}".encode()
    return [
        (key, b"{"),
        (key, b'{"offset": true, "orig_message_ts": 1.0}'),
        (key, b'{"offset": 1e400, "orig_message_ts": 1.0}'),
        (key, b"9" * 5000),
        report(topic, partition, group, -1),
        report(topic, partition, group, 999_999_999_999),
        (key, b"999999999999"),
        (key, None),
        report(topic, 99_999, group, 5),
    ]


def run(settings: Mapping[str, Any], journal: Journal) -> int:
    """Write some all the time, until the end of standard input."""
    random = Random(os.getpid())
    producer = Producer({"bootstrap.servers": settings["bootstrap_servers"], "log_level": 2})
    while True:
        readable, _, _ = select.select([sys.stdin], [], [], STEP_SECONDS)
        if readable and not os.read(sys.stdin.fileno(), 4096):
            break
        for _ in range(RECORDS_A_STEP):
            key, value = foreign(random, settings["topic"], settings["leader_groups"])
            with suppress(BufferError, KafkaException):
                producer.produce(settings["commit_log"], value, key)
        producer.poll(0)
    producer.flush(1.0)
    journal.write("flushed")
    return 0
