"""The example with a database: behind the gate no row is missed, without it some are, and it says so."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.programs import EXAMPLES, Program

SUMMARY = r"^ *(with the gate|without it): (\d+) looked up, (\d+) not there yet$"

# Both followers are the plain one.
WITHOUT_THE_GATE = """
import sys
import stored_first

stored_first.gated = stored_first.plain
sys.exit(stored_first.main(["--seconds", "2"]))
"""


def counts(text: str) -> dict[str, tuple[int, int]]:
    """How many events each follower looked up, and how many rows it missed."""
    return {name: (int(events), int(misses)) for name, events, misses in re.findall(SUMMARY, text, re.MULTILINE)}


def test_the_gated_follower_never_misses_a_row(tmp_path: Path) -> None:
    """And the one without a gate does, so the database is really slower than Kafka."""
    with Program(tmp_path, str(EXAMPLES / "stored_first.py"), "--seconds", "2") as program:
        assert program.exit_status() == 0, program.text
        events, misses = counts(program.text)["with the gate"]
        assert f"{events} events were produced." in program.text
        assert (events > 0, misses) == (True, 0)
        assert counts(program.text)["without it"][1] > 0
        assert "Traceback" not in program.text


def test_a_gate_that_does_not_hold_is_noticed(tmp_path: Path) -> None:
    """With the plain follower in place of the gated one it exits 1."""
    with Program(tmp_path, "-c", WITHOUT_THE_GATE) as program:
        assert program.exit_status() == 1, program.text
        assert counts(program.text)["with the gate"][1] > 0
