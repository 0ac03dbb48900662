"""The producer of a run: numbered messages to every partition, at a rate or in bursts, as its standard input tells.

Lines it understands: ``rate MESSAGES-A-SECOND`` (0: pause), ``burst MESSAGES-A-PARTITION`` and, of a transactional
topic, ``hang SECONDS``: a transaction with a message of each partition ends only then. It ends at the end of its input,
when all is acknowledged. It is idempotent, so a partition's order is that of the numbers.

What a compacted topic may lose carries a key that other messages have, too; the journal says which.
"""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from random import Random
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from tests.chaos.ingredients import COMPACTED, TRANSACTIONAL
from tests.chaos.journal import Journal
from tests.chaos.transactions import Transactions

INVALID_EVERY = 23
"""Every so many messages of a partition one is found invalid by the next."""
SHARED_KEYS = 20
PARTITIONS_SECONDS = 0.5
STEP_SECONDS = 0.01
FLUSH_SECONDS = 30.0
SKEW_SECONDS = 7200.0
ABSURD_MS = (1, 1_000, 99_999_999_999_999)


class _Numbered:
    def __init__(self, settings: Mapping[str, Any], journal: Journal) -> None:
        self._topic = settings["topic"]
        self._epoch = settings["epoch"]
        self._kind = settings.get("kind", "plain")
        self._clock = settings.get("clock", "right")
        self._headers: list[tuple[str, str | bytes | None]] = [
            (f"header-{number}", b"x" * number) for number in range(settings.get("headers", 0))
        ]
        self._is_journalled = not settings.get("quiet", False)
        self._journal = journal
        self._random = Random()
        configuration = {
            "bootstrap.servers": settings["bootstrap_servers"],
            "enable.idempotence": True,
            "linger.ms": 5,
            "log_level": 2,
            "topic.metadata.refresh.interval.ms": 1000,
        }
        self._producer = Producer(configuration)
        self._transactions: Transactions | None = None
        if self._kind == TRANSACTIONAL:
            name = f"{self._topic}-{self._epoch}-{os.getpid()}"
            self._transactions = Transactions(
                configuration, name, self._note, lambda began: self._journal.write("open", began)
            )
        self._numbers: dict[int, int] = {}
        self._partitions_at = 0.0
        self._turn = 0

    def poll(self) -> None:
        self._producer.poll(0)
        if self._transactions is not None:
            self._transactions.poll()
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

    def hang(self, seconds: float) -> None:
        if self._transactions is not None:
            self._transactions.hang(seconds, {partition: self._next(partition) for partition in self._numbers})

    def flush(self) -> None:
        if self._transactions is not None:
            self._transactions.close()
        self._producer.flush(FLUSH_SECONDS)

    def _next(self, partition: int) -> tuple[str, dict[str, Any], tuple[object, ...]]:
        """The topic, the message, and what the journal is to say of it."""
        self._numbers[partition] = number = self._numbers[partition] + 1
        mark = "" if number % INVALID_EVERY else " !" if number % (2 * INVALID_EVERY) else " !!"
        message: dict[str, Any] = {
            "value": f"{self._epoch} {partition} {number}{mark}".encode(),
            "partition": partition,
            "headers": self._headers,
        }
        shared_key = f"k{number % SHARED_KEYS}" if self._kind == COMPACTED and number % 2 else None
        if self._kind == COMPACTED:
            message["key"] = shared_key or f"number {number}"
        if self._clock == "skewed":
            message["timestamp"] = int((time.time() + self._random.uniform(-SKEW_SECONDS, SKEW_SECONDS)) * 1000)
        elif self._clock == "absurd":
            message["timestamp"] = self._random.choice(ABSURD_MS)
        return self._topic, message, (number,) if shared_key is None else (number, shared_key)

    def _send(self, partition: int) -> None:
        topic, message, said = self._next(partition)
        if self._transactions is not None:
            self._transactions.send(topic, message, said)
            return

        def on_delivery(error: KafkaError | None, delivered: Message) -> None:
            if error is None:
                self._note(partition, delivered.offset(), said)

        with suppress(BufferError, KafkaException):  # it was not sent, so nobody will miss it
            self._producer.produce(topic, on_delivery=on_delivery, **message)

    def _note(self, partition: int, offset: int | None, said: tuple[object, ...]) -> None:
        """The message is there, for those who read committed ones, too.

        Without an offset it was sent twice, since the first acknowledgement got lost: where it is can't be told, so
        nobody will miss it.
        """
        if self._is_journalled and offset is not None:
            self._journal.write("acked", self._epoch, partition, offset, *said)


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
                elif word == b"hang":
                    numbered.hang(float(value))
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
