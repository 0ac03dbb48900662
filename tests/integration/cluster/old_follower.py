"""A follower of the old kind, as a process: Arroyo 0.2.2 with its ``SynchronizedConsumer``, the last that had one.

An environment of its own runs it, ``python old_follower.py follower SETTINGS-AS-JSON``, with the settings and the
journal of `pipeline`. It can read commit records in the legacy form alone. It ends at SIGTERM.
"""
# The old Arroyo isn't there when types are checked, so its names are Any.
# mypy: disable-error-code="import-not-found, attr-defined, misc, no-any-unimported"

from __future__ import annotations

import json
import logging
import signal
import sys
import threading
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from arroyo.backends.kafka import KafkaConsumer
from arroyo.processing import StreamProcessor
from arroyo.processing.strategies import ProcessingStrategy, ProcessingStrategyFactory
from arroyo.synchronized import SynchronizedConsumer
from arroyo.types import Position, Topic

COMMIT_EVERY_SECONDS = 1.0


class LateConsumer(KafkaConsumer):
    """The consumer of the commit log. It gives no record before the SynchronizedConsumer is whole.

    That sets attributes after it has started its thread, which fails when a record is there sooner.
    """

    is_expected = threading.Event()

    def poll(self, timeout: float | None = None) -> Any:
        """See Arroyo."""
        message = super().poll(timeout)
        if message is not None:
            self.is_expected.wait()
        return message


class Journal(ProcessingStrategy):  # type: ignore[type-arg]
    """Writes a line for each message, and commits once a second."""

    def __init__(self, file: Any, assignment: int, commit: Any) -> None:
        self._file = file
        self._assignment = assignment
        self._commit = commit
        self._positions: dict[Any, Any] = {}
        self._committed_at = time.monotonic()

    def poll(self) -> None:
        """See Arroyo."""
        if time.monotonic() - self._committed_at > COMMIT_EVERY_SECONDS:
            self._flush()

    def submit(self, message: Any) -> None:
        """See Arroyo."""
        self._file.write(f"{message.partition.index} {message.offset} {time.monotonic()} {self._assignment}\n")
        self._positions[message.partition] = Position(message.next_offset, message.timestamp)

    def close(self) -> None:
        """See Arroyo."""

    def terminate(self) -> None:
        """See Arroyo."""

    def join(self, timeout: float | None = None) -> None:
        """See Arroyo."""
        self._flush()

    def _flush(self) -> None:
        if self._positions:
            self._commit(self._positions)
            self._positions = {}
        self._committed_at = time.monotonic()


class Factory(ProcessingStrategyFactory):  # type: ignore[type-arg]
    """Numbers the assignments."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._assignments = 0

    def create_with_partitions(self, commit: Any, partitions: Mapping[Any, int]) -> Any:
        """See Arroyo."""
        self._assignments += 1
        return Journal(self._file, self._assignments, commit)


def main(settings: Mapping[str, Any]) -> None:
    """Run until SIGTERM."""
    logging.basicConfig(level=logging.INFO)
    common = {
        "bootstrap.servers": settings["bootstrap_servers"],
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        **settings["consumer"],
    }
    consumer = SynchronizedConsumer(
        KafkaConsumer({**common, "group.id": settings["group"]}),
        LateConsumer({**common, "group.id": f"commit-log-{uuid.uuid4().hex}"}),
        Topic(settings["commit_log"]),
        set(settings["leader_groups"]),
    )
    LateConsumer.is_expected.set()
    with Path(settings["journal"]).open("a", buffering=1) as file:
        processor = StreamProcessor(consumer, Topic(settings["topic"]), Factory(file))
        signal.signal(signal.SIGTERM, lambda *_: processor.signal_shutdown())
        processor.run()


if __name__ == "__main__":
    main(json.loads(sys.argv[2]))
