"""Programs that tests run as processes of their own, and whose output they wait for."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.integration.cluster.waiting import wait_until

EXAMPLES = Path(__file__).parents[2] / "examples"
ROOT = EXAMPLES.parent
README = ROOT / "README.md"
OPERATORS = EXAMPLES / "production" / "README.md"
PAGES = (
    README,
    *(ROOT / "arroyo_sync" / f"{name}.md" for name in ("FOLLOWERS", "LEADERS", "MIGRATION")),
    OPERATORS,
    EXAMPLES / "README.md",
)
"""What a user reads."""
SECONDS = 180.0


def anchors_of(text: str) -> set[str]:
    """Where links to its headings may lead, as GitHub and GitLab make them."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def blocks(language: str) -> list[str]:
    """Every block of code in these pages that is marked so: ``python`` or ``sh``."""
    pattern = re.compile(rf"^```{language}\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    return [block for page in PAGES for block in pattern.findall(page.read_text())]


def block_with(text: str) -> str:
    """The one Python block that has this in it."""
    (block,) = (block for block in blocks("python") if text in block)
    return block


@contextmanager
def ending(process: subprocess.Popen[str], seconds: float = SECONDS) -> Iterator[None]:
    """Ends the process at the end, or after so many seconds: whoever reads a pipe of it has the pipe's end by then."""
    timer = threading.Timer(seconds, process.kill)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        process.kill()


class Program:
    """A Python process with its output in a file. Leaving the context ends it, if it has not ended.

    :param arguments: of Python.
    :param own_group: whether it leads a process group of its own, for `signal_group`.
    :param variables: of the environment.
    :param folder: the working directory; the output goes there too.
    """

    def __init__(self, folder: Path, *arguments: str, own_group: bool = False, **variables: str) -> None:
        folder.mkdir(exist_ok=True)
        self._output = output = folder / "output.txt"
        with output.open("w") as file:
            self._process = subprocess.Popen(
                [sys.executable, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=folder,
                start_new_session=own_group,
                env={
                    **os.environ,
                    "PYTHONPATH": f"{EXAMPLES}{os.pathsep}{EXAMPLES.parent}",
                    "PYTHONUNBUFFERED": "1",
                    **variables,
                },
            )

    @property
    def text(self) -> str:
        """All it has written so far, errors too."""
        return self._output.read_text()

    def wait_for(self, pattern: str) -> None:
        """Wait until it has written something that matches."""

        def is_there() -> bool:
            return self._process.poll() is not None or re.search(pattern, self.text) is not None

        wait_until(is_there, SECONDS, lambda: f"{pattern} in {self.text}")
        assert re.search(pattern, self.text), f"ended without {pattern}: {self.text}"

    def signal_group(self, signum: signal.Signals) -> None:
        """To the program and to all that it started, as a terminal's Ctrl-C does."""
        os.killpg(self._process.pid, signum)

    def signal(self, signum: signal.Signals) -> None:
        self._process.send_signal(signum)

    def exit_status(self) -> int:
        try:
            return self._process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running: {self.text}") from None

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(SECONDS)
