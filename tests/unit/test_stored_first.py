"""The example with a database: behind the gate no row is missed, without it some are, and it says so."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.stored_rows import curves
from tests.support import postgresql
from tests.support.programs import EXAMPLES, Program
from tests.support.requirements import lacking

SUMMARY = r"^ *(with the gate|without it): (\d+) looked up, (\d+) not there yet$"

# Both followers are plain ones, each of a group of its own.
WITHOUT_THE_GATE = """
import sys
import stored_first as example


def plain(stage, reader):
    consumer = example.KafkaConsumer(stage.consumer_settings("gated", "gated"))
    return example.StreamProcessor(consumer, example.Topic(stage.events), reader)


example.gated = plain
sys.exit(example.main(["--seconds", "2"]))
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
        last = {name: curve[-1][1] for name, curve in curves(program.text).items()}
        assert last == counts(program.text), "the last line has all"
        assert max(map(len, program.text.splitlines())) <= 80
        assert "Traceback" not in program.text


@pytest.fixture
def address() -> Iterator[str]:
    """Of a PostgreSQL of the test's own."""
    missing = postgresql.what_to_install()
    if missing is not None:
        lacking(missing)
    with postgresql.running() as address:
        yield address


def test_the_gated_follower_never_misses_a_row_of_postgresql(tmp_path: Path, address: str) -> None:
    """Neither in a database that is a server; and the table is dropped at the end."""
    arguments = (str(EXAMPLES / "stored_first.py"), "--seconds", "2", "--postgresql")
    with Program(tmp_path, *arguments, address) as program:
        assert program.exit_status() == 0, program.text
        events, misses = counts(program.text)["with the gate"]
        assert (events > 0, misses) == (True, 0)
        assert counts(program.text)["without it"][1] > 0
    psycopg: Any = importlib.import_module("psycopg")
    with psycopg.connect(address) as connection:
        assert connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall() == []


def test_a_postgresql_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    """As is a driver that isn't."""
    arguments = (str(EXAMPLES / "stored_first.py"), "--postgresql", f"postgresql:///events?host={tmp_path}")
    with Program(tmp_path, *arguments) as program:
        assert program.exit_status() == 2
        assert program.text.count("\n") == 1
        assert program.text.startswith(("--postgresql: ", "PostgreSQL needs its driver"))


def test_a_gate_that_does_not_hold_is_noticed(tmp_path: Path) -> None:
    """With the plain follower in place of the gated one it exits 1."""
    with Program(tmp_path, "-c", WITHOUT_THE_GATE) as program:
        assert program.exit_status() == 1, program.text
        events, misses = counts(program.text)["with the gate"]
        assert f"{events} events were produced." in program.text, "it misses rows, not events"
        assert misses > 0
