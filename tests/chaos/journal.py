"""What the processes of a run write down: append-only files outside Kafka, one JSON array a line.

Each line is ``[kind, time, ...]``; times are of ``CLOCK_MONOTONIC``, which all processes of a machine share:

    clock     wall_time                              driver: the wall clock at that time
    epoch     epoch                                  driver: the data topic was created for the epoch-th time
    deleted   epoch partition before                 driver: records below this offset were deleted, begun at that time
    rewound   group epoch partition offset           driver: a leader group without members was set back
    ingredients as JSON                              driver: what the world is made of
    truncated epoch partition end                    driver: an election took away what lay beyond
    set       group epoch partition offset           driver: a group without members was set there
    fault     number kind what began                 driver: a fault that is over, and when it began
    skipped   kind began                             driver: one that the cluster refused half-way
    wanted    pattern group deadline                 driver: from then on until the deadline, that group is to say this
    stopped   name seconds                           driver: a process was asked to end then, and took so long
    stuck     text                                   driver: what somebody waited for in vain during a fault, or before
    uncaught  name line                              driver: at the end, what a log tells of an exception in a thread,
                                                     or that a process crashed
    unheard   name                                   driver: at the end, a process of which librdkafka's log says that a
                                                     heartbeat of KIP-848 had no answer (see `ownership`)
    ended                                            driver: the run came to its end
    hindered  what until                             driver: "cluster", a group or "partition N" could not work from
                                                     then on
    exit      name status line clear                 driver: a process ended by itself, with this last line; or it was
                                                     asked to, and that isn't a clear one
    started   name                                   driver
    round     number acked_by deadline still         driver: all that was acknowledged until ``acked_by`` was to come
                                                     through until ``deadline``; ``still``: no leader worked
    committed group epoch partition offset           driver: at the end, on the brokers
    acked     epoch partition offset number [key]    producer: the broker has the message; a key: other messages have
                                                     it, too, and may replace it in a compacted topic
    open      began                                  producer: a transaction was open from then on until now
    begin     group role                             leader, follower: the first line
    assigned  assignment positions                   follower: a strategy was made
    out       assignment epoch partition offset number worked    follower: a message came out of the gate, and the
                                                     step took so many seconds over it
    invalid   epoch partition offset payload         follower: a message that came out named itself as invalid
    refused   payload error                          follower: the brokers took no dead letter of this
    done      epoch partition offset                 leader: written before the offset after this one goes to ``commit``
    told      level logger text                      leader, follower: what it told of, from warnings on
    held      messages                               follower: the most that any partition held, as told by itself
    limit     messages                               follower: what a partition may hold

A line is written with one call, so that a killed process leaves whole lines. It is on the disk within `SYNC_SECONDS`.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SYNC_SECONDS = 0.2

PartitionBuffer = list[Any]


class Journal:
    """Writes lines. Any thread may."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._synced_at = 0.0
        self._lock = threading.Lock()

    def write(self, kind: str, *values: object, at: float | None = None) -> None:
        now = time.monotonic()
        line = json.dumps([kind, now if at is None else at, *values], separators=(",", ":")) + "\n"
        os.write(self._file, line.encode())
        if now - self._synced_at >= SYNC_SECONDS and self._lock.acquire(blocking=False):
            try:
                self._synced_at = now
                os.fdatasync(self._file)
            finally:
                self._lock.release()

    def close(self) -> None:
        os.fdatasync(self._file)
        os.close(self._file)


class Tail:
    """Reads the lines that were added to the files of a folder since the last look."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[Path, int] = {}

    def new_lines(self) -> Iterator[tuple[str, PartitionBuffer]]:
        """Name of the file without its ending, and line."""
        for path in sorted(self._folder.glob("*.jsonl")):
            begin = self._read.get(path, 0)
            with path.open("rb") as file:
                file.seek(begin)
                whole, newline, _ = file.read().rpartition(b"\n")
            self._read[path] = begin + len(whole) + len(newline)
            for line in whole.splitlines():
                yield path.stem, json.loads(line)


def read_all(folder: Path) -> dict[str, list[PartitionBuffer]]:
    """All whole lines of every journal, by the file's name without its ending."""
    journals: dict[str, list[PartitionBuffer]] = {}
    for name, line in Tail(folder).new_lines():
        journals.setdefault(name, []).append(line)
    return journals
