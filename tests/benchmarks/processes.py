"""The programs that a benchmark starts: contenders and feeder, each with its protocol of JSON lines."""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).parents[2]
STOP_SECONDS = 20.0
STDERR_TAIL = 3_000


class ProgramFailed(RuntimeError):
    """A contender or feeder ended, or didn't answer in time; the message holds the end of its standard error."""


class Program:
    """A child process that takes a configuration line and commands, and answers with JSON lines.

    Used from one thread. Leaving the ``with`` block ends the process.
    """

    def __init__(self, module: str, config: Mapping[str, Any], stderr: Path, python: Path | None = None) -> None:
        self.name = f"{module.rpartition('.')[2]} ({config.get('contender', 'plan')})"
        self._stderr_path = stderr
        with stderr.open("wb") as log:
            self._process = subprocess.Popen(
                [str(python or sys.executable), "-W", "ignore", "-m", module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=ROOT,
                text=True,
            )
        self._events: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, name=f"read-{self.name}", daemon=True)
        self._reader.start()
        self.send(config)

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._events.put(json.loads(line))
        self._events.put(None)

    def send(self, line: Mapping[str, Any]) -> None:
        """Write one line to the child."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(line) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._failed("ended") from None

    def receive(self, timeout: float) -> dict[str, Any]:
        """The next line that the child wrote. Blocks for at most ``timeout`` seconds.

        :raises ProgramFailed: it ended, or wrote nothing in time.
        """
        try:
            event = self._events.get(timeout=timeout)
        except queue.Empty:
            raise self._failed(f"said nothing for {timeout:g} s") from None
        if event is None:
            raise self._failed("ended")
        return event

    def expect(self, name: str, timeout: float) -> dict[str, Any]:
        """The next event of this name; others before it are passed over."""
        while (event := self.receive(timeout))["event"] != name:
            pass
        return event

    def usage(self) -> dict[str, Any]:
        """The child's CPU time and memory now."""
        self.send({"command": "usage"})
        return self.expect("usage", STOP_SECONDS)

    def kill(self) -> None:
        """End it as a machine does that fails: at once."""
        self._process.kill()
        self._process.wait()

    def _failed(self, what: str) -> ProgramFailed:
        tail = self._stderr_path.read_text(errors="replace")[-STDERR_TAIL:]
        return ProgramFailed(f"{self.name} {what} (exit code {self._process.poll()}):\n{tail}")

    def __enter__(self) -> Program:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._process.wait(STOP_SECONDS if error is None else 0.1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):
                stream.close()
