"""Ends what a test run leaves behind: a small process that outlives its parent, kills its brokers, removes their data.

A killed parent can't clean up, and a broker that lives on holds its ports and some hundred megabytes. So each cluster
has a guard, which learns the process ids through a pipe and acts when the pipe ends, however the parent ended.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

REMOVAL_TIMEOUT_SECONDS = 10.0


class Guard:
    """Removes ``directory``, and kills the processes named to it, when it is closed or this process is gone."""

    def __init__(self, directory: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, str(directory)],
            stdin=subprocess.PIPE,
            text=True,
            start_new_session=True,  # so that Ctrl-C doesn't reach it
        )

    def watch(self, pid: int) -> None:
        """Kill this process in the end."""
        self._say(f"watch {pid}")

    def forget(self, pid: int) -> None:
        """Don't: it has ended, and its id may come to name another process."""
        self._say(f"forget {pid}")

    def close(self) -> None:
        """Have the work done now. Blocks until it is."""
        self._say("end")
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(REMOVAL_TIMEOUT_SECONDS * 2)

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()


def main(directory: str) -> None:
    pids: set[int] = set()
    for line in sys.stdin:
        word, *pid = line.split()
        if word == "end":  # not only the end of the pipe: a child that the parent forked may hold it open
            break
        if word == "watch":
            pids.add(int(pid[0]))
        else:
            pids.discard(int(pid[0]))
    for each in pids:
        with suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)
    deadline = time.monotonic() + REMOVAL_TIMEOUT_SECONDS
    while os.path.exists(directory) and time.monotonic() < deadline:  # a dying broker may still write
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1])
