"""One Kafka broker as a process of its own, which can be stopped, killed, paused and started again with its data."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.integration.cluster.admin import metadata_of
from tests.integration.cluster.guard import Guard
from tests.integration.cluster.waiting import wait_until


class PortTaken(RuntimeError):
    """A broker ended because another process listens on its port."""


class Broker:
    """A broker's process. Not thread-safe.

    ``start`` and ``resume`` don't wait until it serves; ``wait_until_ready`` does. All else waits for its effect.
    """

    def __init__(
        self,
        node_id: int,
        address: str,
        log: Path,
        command: Sequence[str],
        environment: Mapping[str, str],
        guard: Guard,
    ) -> None:
        self.node_id = node_id
        self.address = address
        self.is_paused = False
        self.log = log
        self._command = command
        self._environment = environment
        self._guard = guard
        self._process: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        return f"Broker(node_id={self.node_id}, address={self.address!r}, pid={self.pid})"

    @property
    def pid(self) -> int | None:
        """The process id, ``None`` when it isn't running."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @property
    def is_running(self) -> bool:
        """Whether the process exists, be it paused."""
        return self.pid is not None

    @property
    def is_serving(self) -> bool:
        """Whether the process exists and isn't paused."""
        return self.is_running and not self.is_paused

    def start(self) -> None:
        """Start the process, with the data that it has. Doesn't wait until it is ready."""
        if self.is_running:
            raise RuntimeError(f"{self} runs already")
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.log.parent,
                env=dict(self._environment),
                start_new_session=True,  # so that Ctrl-C doesn't reach it before the test is done
            )
        self._guard.watch(self._process.pid)
        self.is_paused = False

    def stop(self, timeout: float = 60.0) -> None:
        """Ask it to end (SIGTERM) and wait until it has, having handed over what it leads."""
        if not self.is_running:
            return
        self.resume()
        self._send(signal.SIGTERM)
        try:
            self._reap(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise TimeoutError(f"{self} did not stop within {timeout} s\n{self.log_tail()}") from None

    def kill(self) -> None:
        """End it with no warning (SIGKILL)."""
        if self.is_running:
            self._send(signal.SIGKILL)
            self._reap(timeout=60.0)

    def pause(self) -> None:
        """Stand still (SIGSTOP): connections stay open, and nothing answers."""
        pid = self._send(signal.SIGSTOP)
        os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        self.is_paused = True

    def resume(self) -> None:
        """Go on (SIGCONT)."""
        self._send(signal.SIGCONT)
        self.is_paused = False

    def wait_until_ready(self, timeout: float = 60.0) -> None:
        """Wait until it serves and knows itself to be a member of the cluster.

        :raises PortTaken: it ended since another process has its port.
        :raises RuntimeError: it ended for another reason; its log is in the message.
        :raises TimeoutError: with the end of its log.
        """

        def is_ready() -> bool:
            if not self.is_running:
                error = PortTaken if "Address already in use" in self.log.read_text(errors="replace") else RuntimeError
                raise error(f"{self} ended by itself\n{self.log_tail()}")
            metadata = metadata_of(self.address)
            return metadata is not None and self.node_id in metadata.brokers

        wait_until(is_ready, timeout, lambda: f"{self} to be ready\n{self.log_tail()}")

    def log_tail(self, lines: int = 60) -> str:
        """The last lines of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def _send(self, signum: signal.Signals) -> int:
        pid = self.pid
        if pid is None:
            raise RuntimeError(f"{self} is not running\n{self.log_tail()}")
        os.kill(pid, signum)
        return pid

    def _reap(self, timeout: float) -> None:
        assert self._process is not None
        self._process.wait(timeout)
        self._guard.forget(self._process.pid)
