"""The handlers that the examples' processes call with each event, and what they share with `worker.py`.

A payload is ``epoch partition number``, and behind it a ``!`` if the message after it is to find it invalid, or ``!!``
if it is to find itself so.
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

from arroyo.backends.kafka import KafkaPayload
from arroyo.dlq import InvalidMessage
from arroyo.types import BrokerValue

from tests.chaos.journal import Journal

JOURNAL_VARIABLE = "CHAOS_JOURNAL"
DELAY_VARIABLE = "CHAOS_DELAY_SECONDS"
"""How long a leader or a follower takes over each event."""

journal = Journal(Path(os.environ.get(JOURNAL_VARIABLE, os.devnull)))
_delay_seconds = float(os.environ.get(DELAY_VARIABLE, "0"))
assignment = 0
_last: dict[int, tuple[int, bool]] = {}


class JournallingHandler(logging.Handler):
    """Notes what the package tells of, from warnings on."""

    def emit(self, record: logging.LogRecord) -> None:
        journal.write("told", record.levelname, record.name, record.getMessage())


def note_what_is_told() -> None:
    logging.getLogger("arroyo_sync").addHandler(JournallingHandler(logging.WARNING))


def begin_assignment(positions: dict[int, int]) -> None:
    """A new strategy: what the old one saw is forgotten."""
    global assignment
    assignment += 1
    _last.clear()
    _next.clear()
    journal.write("assigned", assignment, positions)


def read(event: BrokerValue[KafkaPayload]) -> tuple[int, int, int, bytes]:
    """Epoch, partition, number, and its mark."""
    epoch, partition, number, *mark = event.payload.value.split()
    return int(epoch), int(partition), int(number), mark[0] if mark else b""


def work(event: BrokerValue[KafkaPayload]) -> None:
    """A leader's."""
    epoch, partition, _, _ = read(event)
    if _delay_seconds:
        time.sleep(_delay_seconds)
    journal.write("done", epoch, partition, event.offset)


def receive(event: BrokerValue[KafkaPayload]) -> None:
    """A follower's. First given the message after an invalid one, it names that one, and doesn't take this.

    The one that it names was committed, so that Arroyo finds no dead letter. One that names itself becomes one.

    :raises InvalidMessage: for an earlier message than this, or for this one.
    """
    epoch, partition, number, mark = read(event)
    last = _last.pop(partition, None)
    if last is not None and last[1] and last[0] == event.offset - 1:
        raise InvalidMessage(event.partition, last[0], log_exception=False)
    began = time.monotonic()
    if _delay_seconds:
        time.sleep(_delay_seconds)
    journal.write("out", assignment, epoch, partition, event.offset, number, time.monotonic() - began)
    if mark == b"!!":
        journal.write("invalid", epoch, partition, event.offset, event.payload.value.decode())
        raise InvalidMessage(event.partition, event.offset, log_exception=False)
    _last[partition] = (event.offset, mark == b"!")


_counts: dict[int, int] = {}
_next: dict[int, int] = {}


def count(event: BrokerValue[KafkaPayload]) -> None:
    """A soak's: a line for each thousand events, and for each that doesn't follow the one before."""
    partition, offset = event.partition.index, event.offset
    if _next.get(partition, offset) != offset:
        journal.write("gap", assignment, partition, _next[partition], offset)
    _next[partition] = offset + 1
    _counts[partition] = _counts.get(partition, 0) + 1
    if _counts[partition] % 1000 == 0:
        journal.write("count", assignment, partition, offset, _counts[partition])
