"""The producer of a run: numbered messages to every partition, at a rate or in bursts, as its standard input tells.

Lines it understands: ``rate MESSAGES-A-SECOND`` (0: pause) and ``burst MESSAGES-A-PARTITION``. It ends at the end of
its input, when all is acknowledged. It is idempotent, so a partition's order is that of the numbers.
"""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from tests.chaos.journal import Journal

INVALID_EVERY = 23
"""Every so many messages of a partition one is found invalid by the next."""
PARTITIONS_SECONDS = 0.5
STEP_SECONDS = 0.01
FLUSH_SECONDS = 30.0


class _Numbered:
    def __init__(self, settings: Mapping[str, Any], journal: Journal) -> None:
        self._topic = settings["topic"]
        self._epoch = settings["epoch"]
        self._is_journalled = not settings.get("quiet", False)
        self._journal = journal
        self._producer = Producer(
            {
                "bootstrap.servers": settings["bootstrap_servers"],
                "enable.idempotence": True,
                "linger.ms": 5,
                "log_level": 2,
                "topic.metadata.refresh.interval.ms": 1000,
            }
        )
        self._numbers: dict[int, int] = {}
        self._partitions_at = 0.0
        self._turn = 0

    def poll(self) -> None:
        self._producer.poll(0)
        now = time.monotonic()
        if now >= self._partitions_at:
            self._partitions_at = now + PARTITIONS_SECONDS
            try:
                partitions = self._producer.list_topics(self._topic, timeout=1.0).topics[self._topic].partitions
            except (KafkaException, KeyError):
                return
            for partition in partitions:
                self._numbers.setdefault(partition, 0)

    def send(self, count: int) -> None:
        partitions = sorted(self._numbers)
        for _ in range(count if partitions else 0):
            self._turn += 1
            self._send(partitions[self._turn % len(partitions)])

    def burst(self, count: int) -> None:
        for _ in range(count):
            for partition in sorted(self._numbers):
                self._send(partition)

    def flush(self) -> None:
        self._producer.flush(FLUSH_SECONDS)

    def _send(self, partition: int) -> None:
        self._numbers[partition] = number = self._numbers[partition] + 1
        mark = " !" if number % INVALID_EVERY == 0 else ""

        def on_delivery(error: KafkaError | None, message: Message) -> None:
            if error is None and self._is_journalled:
                self._journal.write("acked", self._epoch, partition, message.offset(), number)

        value = f"{self._epoch} {partition} {number}{mark}".encode()
        with suppress(BufferError, KafkaException):  # it was not sent, so nobody will miss it
            self._producer.produce(self._topic, value, partition=partition, on_delivery=on_delivery)


def run(settings: Mapping[str, Any], journal: Journal) -> int:
    """Until the end of standard input."""
    numbered = _Numbered(settings, journal)
    rate, due, began, text = float(settings["rate"]), 0.0, time.monotonic(), b""
    while True:
        readable, _, _ = select.select([sys.stdin], [], [], STEP_SECONDS)
        if readable:
            read = os.read(sys.stdin.fileno(), 4096)
            if not read:
                break
            *lines, text = (text + read).split(b"\n")
            for line in lines:
                word, value = line.split()
                if word == b"rate":
                    rate = float(value)
                else:
                    numbered.poll()
                    numbered.burst(int(value))
        now = time.monotonic()
        due += rate * min(now - began, 1.0)
        began = now
        numbered.poll()
        numbered.send(int(due))
        due -= int(due)
    numbered.flush()
    journal.write("flushed")
    return 0
