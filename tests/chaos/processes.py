"""The processes of a run: each in a slot that starts it, ends it, and starts it again when it has ended by itself."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.chaos.handlers import DELAY_VARIABLE, JOURNAL_VARIABLE

ROOT = Path(__file__).resolve().parent.parent.parent
RESTART_SECONDS = 0.3
JOIN_SECONDS = 15.0
"""How long a pipeline may wait for its work in flight."""
STOP_SECONDS = 30.0
TICK_SECONDS = 0.02
FINE_ENDS = (0, -signal.SIGTERM, -signal.SIGKILL)
"""Of a process that was asked to end: SIGTERM, before it had begun; SIGKILL is ours, and how long it took is judged."""
STACKS_SIGNAL = signal.SIGUSR1
"""Has a worker write into its log where each of its threads is: one that doesn't end is asked before it is killed."""
STACKS_SECONDS = 1.0
THREAD_ENDED = "Exception in thread "
LOST_HEARTBEAT = re.compile(r"^%\d\|[\d.]+\|REQTMOUT\|.*ConsumerGroupHeartbeatRequest in flight", re.MULTILINE)
"""A line of librdkafka's."""
FED = frozenset({"producer", "rubbish"})
"""The roles whose processes end with their input."""


class Slot:
    """One member of a group, or the producer. ``name`` and a number name the files of each of its processes."""

    def __init__(self, folder: Path, name: str, role: str, settings: dict[str, Any]) -> None:
        self.name = name
        self.role = role
        self.settings = settings
        self.group: str = settings.get("group", "")
        self.is_wanted = False
        self.delay_seconds = 0.0
        self.is_paused = False
        self.took_seconds = 0.0
        """How long the last process took to end, once it was asked to."""
        self.unclear_end: tuple[int, str] | None = None
        """If that one ended neither well nor with one clear line: its status and last line."""
        self._folder = folder
        self._asked_at = 0.0
        self._number = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._ended_at = 0.0

    @property
    def pid(self) -> int | None:
        return self._process.pid if self.is_running and self._process is not None else None

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def journal(self) -> str:
        """The name of its process's journal."""
        return f"{self.name}.{self._number}"

    def start(self, environment: Mapping[str, str] | None = None) -> None:
        """Start a process, if none runs."""
        self.is_wanted = True
        if self.is_running:
            return
        self._number += 1
        self.is_paused = False
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.worker", self.role, json.dumps(self.settings)],
                stdin=subprocess.PIPE if self.role in FED else subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env={
                    **os.environ,
                    JOURNAL_VARIABLE: str(self._folder / f"{self.journal}.jsonl"),
                    DELAY_VARIABLE: str(self.delay_seconds),
                    **(environment or {}),
                },
            )

    def say(self, line: str) -> None:
        """To the producer."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())
        self._process.stdin.flush()

    def kill(self) -> None:
        """SIGKILL. It stays wanted, so it is started again. An end by itself is left for whoever notes it."""
        if self._process is not None and self.is_running:
            self._process.kill()
            self._process.wait(10)
            self._forget()

    def stop(self, timeout: float = STOP_SECONDS) -> None:
        """End it, and want it no more: SIGTERM (or the end of its input), and SIGKILL if that takes long."""
        self.ask_to_stop()
        self.wait_until_stopped(timeout)

    def ask_to_stop(self) -> None:
        self.is_wanted = False
        if self._process is None or not self.is_running:
            return
        if self.is_paused:
            self.go_on()
        self._asked_at = time.monotonic()
        if self._process.stdin is not None:
            self._process.stdin.close()
        else:
            self._process.terminate()

    def wait_until_stopped(self, timeout: float = STOP_SECONDS) -> None:
        if self._process is None:
            return
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.send_signal(STACKS_SIGNAL)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(STACKS_SECONDS)
            self._process.kill()
            self._process.wait(10)
        self.took_seconds = time.monotonic() - self._asked_at
        status, last_line, is_clear = self._end()
        self.unclear_end = None if is_clear or status in FINE_ENDS else (status, last_line)
        self._forget()

    def pause(self) -> None:
        """SIGSTOP."""
        if self._process is not None and self.is_running:
            self._process.send_signal(signal.SIGSTOP)
            self.is_paused = True

    def go_on(self) -> None:
        """SIGCONT, if it was paused."""
        if self._process is not None and self.is_running and self.is_paused:
            self._process.send_signal(signal.SIGCONT)
        self.is_paused = False

    def ended_by_itself(self) -> tuple[int, str, bool] | None:
        """Once for each such end: exit status, last line, and whether that is all there is to say."""
        if self._process is None or self._process.poll() is None:
            return None
        end = self._end()
        self._forget()
        return end

    @property
    def is_due(self) -> bool:
        """Whether it is to be started again."""
        return self.is_wanted and self._process is None and time.monotonic() >= self._ended_at + RESTART_SECONDS

    def _end(self) -> tuple[int, str, bool]:
        assert self._process is not None
        status = self._process.returncode
        text = self._log.read_text(errors="replace")
        lines = [line for line in text.splitlines() if line.strip() and not line.startswith("%")]  # librdkafka's own
        last_line = lines[-1] if lines else ""
        is_clear = status == 1 and "Traceback" not in text and last_line.startswith("worker.py: ")
        return status, last_line, is_clear

    @property
    def _log(self) -> Path:
        return self._folder / f"{self.journal}.log"

    def _forget(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
        self._process = None
        self.is_paused = False
        self._ended_at = time.monotonic()


def uncaught(folder: Path) -> Iterator[tuple[str, str]]:
    """Of each process of the folder that shows what none may, its journal's name and a line: an exception that ended a
    thread, or what `faulthandler` wrote as it crashed. Also of those that were killed, or ended well."""
    for log in _logs(folder):
        lines = log.read_text(errors="replace").splitlines()
        found = next((at for at, line in enumerate(lines) if line.startswith(THREAD_ENDED)), None)
        if found is not None:
            last = next((line for line in lines[found + 1 :] if line and not line.startswith((" ", "Traceback"))), "")
            yield log.stem, f"{lines[found]} {last}"
    for crash in sorted(folder.glob("*.crash")):
        text = crash.read_text(errors="replace")
        if text.startswith("Fatal"):
            yield crash.stem, text.splitlines()[0]


def lost_heartbeats(folder: Path) -> Iterator[str]:
    """The journals' names of the processes whose librdkafka has given a heartbeat of KIP-848 up (see `ownership`)."""
    return (log.stem for log in _logs(folder) if LOST_HEARTBEAT.search(log.read_text(errors="replace")))


def _logs(folder: Path) -> list[Path]:
    """But for the brokers'."""
    return sorted(each for each in folder.glob("*.log") if not each.name.startswith("broker-"))


def stop_together(slots: Sequence[Slot], timeout: float = STOP_SECONDS) -> None:
    """Ask all of them to end, and wait: each knows how long it took."""
    for slot in slots:
        slot.ask_to_stop()
    pending, deadline = list(slots), time.monotonic() + timeout
    while pending and time.monotonic() < deadline:
        for slot in [each for each in pending if not each.is_running]:
            slot.wait_until_stopped()
            pending.remove(slot)
        time.sleep(TICK_SECONDS)
    for slot in pending:
        slot.wait_until_stopped(0.0)
