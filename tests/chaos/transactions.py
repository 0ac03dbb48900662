"""Transactions of a run's producer: two producers whose messages interleave, some aborted, and some that hang."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

LAST_SECONDS = (0.05, 0.4)
"""How long a transaction lasts, at least and at most."""
ABORTED_CHANCE = 0.15
END_SECONDS = 20.0
LONG_SECONDS = 5.0
"""One that was open for so long may be told of."""
TIMEOUT_MS = 60_000

Said = tuple[object, ...]
Note = Callable[[int, int | None, Said], None]
NoteOpen = Callable[[float], None]
Numbered = tuple[str, dict[str, Any], Said]


class _Transaction:
    """One producer, and the transaction that is open, if one is.

    A producer that fails is made anew under the same id; what it had sent then counts as never sent.
    """

    def __init__(
        self, configuration: Mapping[str, Any], transactional_id: str, note: Note, note_open: NoteOpen
    ) -> None:
        self._configuration = {
            **configuration,
            "transactional.id": transactional_id,
            "transaction.timeout.ms": TIMEOUT_MS,
        }
        self._note = note
        self._note_open = note_open
        self._begun_at = 0.0
        # Of one whose end isn't known: it is open until the brokers end it, at the latest for the next producer.
        self._left_open_since: float | None = None
        self._random = Random()
        self._producer: Producer | None = None
        self._delivered: list[tuple[int, int | None, Said]] = []
        self.ends_at: float | None = None
        """When the open one is to end; ``None``: none is open."""

    def send(self, numbered: Numbered, seconds: float | None = None) -> None:
        """In the open transaction, or a new one, which lasts for so long."""
        topic, message, said = numbered
        try:
            producer = self._begin(seconds)

            def on_delivery(error: KafkaError | None, delivered: Message) -> None:
                if error is None:
                    self._delivered.append((delivered.partition() or 0, delivered.offset(), said))

            producer.produce(topic, on_delivery=on_delivery, **message)
        except (BufferError, KafkaException):
            self._forget()

    def poll(self) -> None:
        if self._producer is not None:
            self._producer.poll(0)
        if self.ends_at is not None and time.monotonic() >= self.ends_at:
            self.end(self._random.random() >= ABORTED_CHANCE)

    def end(self, is_committed: bool) -> None:
        if self._producer is None or self.ends_at is None:
            return
        try:
            if is_committed:
                self._producer.commit_transaction(END_SECONDS)
            else:
                self._producer.abort_transaction(END_SECONDS)
        except KafkaException:
            self._forget()  # whether it is there can't be told: nobody will miss it
            return
        if time.monotonic() - self._begun_at >= LONG_SECONDS:
            self._note_open(self._begun_at)
        delivered, self._delivered, self.ends_at = self._delivered, [], None
        for each in delivered if is_committed else ():
            self._note(*each)

    def _begin(self, seconds: float | None) -> Producer:
        if self._producer is None:
            producer = Producer(self._configuration)
            producer.init_transactions(END_SECONDS)
            self._producer = producer
            if self._left_open_since is not None:
                self._note_open(self._left_open_since)
                self._left_open_since = None
        if self.ends_at is None:
            self._producer.begin_transaction()
            self._begun_at = time.monotonic()
            self.ends_at = time.monotonic() + (self._random.uniform(*LAST_SECONDS) if seconds is None else seconds)
        return self._producer

    def _forget(self) -> None:
        if self.ends_at is not None and self._left_open_since is None:
            self._left_open_since = self._begun_at
        self._producer, self._delivered, self.ends_at = None, [], None


class Transactions:
    """
    :param note: called for each message of a transaction that was committed.
    :param note_open: called with when one began that is over now, and was open for long.
    """

    def __init__(self, configuration: Mapping[str, Any], name: str, note: Note, note_open: NoteOpen) -> None:
        self._interleaved = [_Transaction(configuration, f"{name}-{number}", note, note_open) for number in (1, 2)]
        self._hanging = _Transaction(configuration, f"{name}-hanging", note, note_open)
        self._turn = 0

    def send(self, topic: str, message: dict[str, Any], said: Said) -> None:
        self._turn += 1
        self._interleaved[self._turn % 2].send((topic, message, said))

    def hang(self, seconds: float, messages: Mapping[int, Numbered]) -> None:
        if self._hanging.ends_at is None:
            for numbered in messages.values():
                self._hanging.send(numbered, seconds)

    def poll(self) -> None:
        for each in (*self._interleaved, self._hanging):
            each.poll()

    def close(self) -> None:
        for each in (*self._interleaved, self._hanging):
            each.end(True)
