"""The command's start and end: Ctrl-C is exit status 130 without a traceback, whenever it comes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import arroyo_sync

PROGRAM = """\
import os, signal, sys

wanted = sys.argv.pop(1)
signal.signal(signal.SIGINT, signal.default_int_handler)  # what started the tests may ignore it

class InterruptedAt:
    def find_spec(self, name, path=None, target=None):
        if name == wanted:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, InterruptedAt())
{before}
from arroyo_sync.__main__ import main
{after}
sys.exit(main())
"""
"""Ctrl-C at the moment at which a certain module is imported."""


def run(tmp_path: Path, *arguments: str, before: str = "", after: str = "") -> tuple[int, str]:
    """The exit status, and what is on standard error."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(before=before, after=after))
    environment = {**os.environ, "PYTHONPATH": str(Path(arroyo_sync.__file__).parents[1])}
    command = [sys.executable, str(program), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    return done.returncode, done.stderr


@pytest.mark.parametrize("module", ["arroyo_sync.status.command", "confluent_kafka.cimpl", "sentry_sdk"])
def test_an_interrupt_while_it_loads_ends_it_as_later(tmp_path: Path, module: str) -> None:
    """Whichever module is being imported."""
    assert run(tmp_path, module, "--version") == (130, "")


def test_an_interrupt_that_is_ignored_stays_ignored(tmp_path: Path) -> None:
    """As in the background of a script."""
    before = "signal.signal(signal.SIGINT, signal.SIG_IGN)"
    assert run(tmp_path, "confluent_kafka", "--version", before=before) == (0, "")


def test_an_interrupt_at_the_very_end_is_no_traceback_either(tmp_path: Path) -> None:
    """When the command has returned, and Python ends."""
    after = "import atexit; atexit.register(lambda: [os.kill(os.getpid(), signal.SIGINT)])"
    assert run(tmp_path, "nothing", "--version", after=after) == (130, "")
