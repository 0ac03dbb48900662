"""The child's side of the protocol between the harness and a contender: JSON lines on standard input and output.

The first line in is the configuration. Then each line in is a command, each line out an event:

``usage``
    answers ``{"event": "usage", ...}``: CPU time, peak memory and messages so far.
``finish``, with ``expect`` and ``timeout_seconds``
    waits until so many messages were delivered (or for so long), then ends the run.

Once the run has ended, the deliveries are written to files and ``{"event": "result", ...}`` is the last line.

Threads: the contender runs on the main thread, commands are read on a daemon thread.
"""

from __future__ import annotations

import json
import resource
import sys
import threading
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from tests.benchmarks.contenders.recorder import MappedRecorder, Recorder, StampedRecorder, TimedRecorder

CHECK_EVERY_SECONDS = 0.02
"""How often the command thread looks whether all is delivered: rarely enough to cost the main thread nothing."""


def emit(event: str, **fields: object) -> None:
    """Send one event to the harness."""
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


def usage() -> dict[str, float]:
    """This process's own CPU time (user + system), and its memory now and at its highest."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    status = Path("/proc/self/status").read_text()
    return {
        "cpu_seconds": own.ru_utime + own.ru_stime,
        # Not ru_maxrss, which begins with what the harness had in memory when it started this process.
        "peak_rss_bytes": _kib(status, "VmHWM:") * 1024,
        "rss_bytes": _kib(status, "VmRSS:") * 1024,
        "now_ns": time.perf_counter_ns(),
    }


def _kib(status: str, field: str) -> int:
    return int(status.split(field)[1].split()[0])


class Contender(ABC):
    """One program under measurement. `run` is called on the main thread, `stop` on another."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.recorder: Recorder
        if config["record"] == "mapped":
            self.recorder = MappedRecorder(config["capacity"], Path(config["out"]))
        else:
            recorder = TimedRecorder if config["record"] == "times" else StampedRecorder
            self.recorder = recorder(config["capacity"])

    @abstractmethod
    def run(self) -> None:
        """Deliver messages until `stop`; emit ``ready`` once partitions are assigned."""

    @abstractmethod
    def stop(self) -> None:
        """Make `run` return soon."""

    def messages(self) -> int:
        """How many messages of the data topic were delivered so far. Any thread may ask."""
        return self.recorder.count

    def details(self) -> dict[str, object]:
        """What else goes into the result, asked before `stop`: positions, librdkafka's counts."""
        return {}


def main(make: type[Contender]) -> None:
    """Serve one run: read the configuration, run the contender, write what it delivered."""
    config: dict[str, Any] = json.loads(sys.stdin.readline())
    contender = make(config)
    collected: dict[str, object] = {}

    def serve() -> None:
        recorder = contender.recorder
        for line in sys.stdin:
            command = json.loads(line)
            if command["command"] == "usage":
                emit("usage", messages=contender.messages(), **usage())
                continue
            deadline = time.monotonic() + command["timeout_seconds"]
            while recorder.count < command["expect"] and time.monotonic() < deadline:
                time.sleep(CHECK_EVERY_SECONDS)
            collected.update(usage(), **contender.details())
            contender.stop()
            return

    threading.Thread(target=serve, name="benchmark-commands", daemon=True).start()
    contender.run()
    contender.recorder.save(Path(config["out"]))
    emit("result", delivered=contender.recorder.count, **collected)
