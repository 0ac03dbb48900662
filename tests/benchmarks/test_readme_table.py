"""The README's table of numbers is what was measured, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.__main__ import main
from tests.benchmarks.readme import BEGIN, END, README, marked, table

RESULTS = Path(__file__).parent / "results" / "full.json"


def median(value: float | None) -> dict[str, Any]:
    return {"median": value, "low": value, "high": value}


def overhead(**waiting: float) -> dict[str, Any]:
    """Results of `overhead` alone: a microsecond more for each contender of the tailing, and what one waits with."""
    names = ("bare", "gated", "plain", "peer")
    tailing = {name: {"cpu_us_per_message": median(20.0 + number)} for number, name in enumerate(names)}
    idle = {
        name: {"cpu_fraction": median(fraction), "peak_rss_bytes": median(50e6)} for name, fraction in waiting.items()
    }
    cases = {
        "tailing, 5,000/s, every 10 ms": tailing,
        "tailing, 5,000/s, every 1000 ms": tailing,
        "idle, nothing there": {**idle, "bare": dict(idle["gated"])},
        "idle, 1,000,000 messages waiting": idle,
    }
    return {"scenarios": {"overhead": {"cases": cases}}}


def rows(document: dict[str, Any]) -> dict[str, list[str]]:
    cells = [line.strip("| ").split(" | ") for line in table(document).splitlines()[2:]]
    return {what: values for what, *values in cells}


def test_a_row_has_plain_and_what_stands_beside_it() -> None:
    """The numbers of `plain` are the plugin's, since they are what the README's lines give."""
    found = rows(overhead(gated=0.004, plain=0.003, peer=0.002))

    assert found["CPU a message, 5,000 messages/s, a record every 10 ms, 1 s"] == [
        "22.0, 22.0 us",
        "bare 20.0, 20.0 us; peer 23.0, 23.0 us",
    ]


def test_what_is_cheaper_elsewhere_is_said() -> None:
    """The peer waits for less; where the pipeline without a gate has nothing to wait for, that is said, too."""
    found = rows(overhead(gated=0.004, plain=0.003, peer=0.002))

    assert found["of a core while it only waits, 1,000,000 messages waiting"] == [
        "0.30%",
        "bare 0.40%, where nothing waits; peer 0.20%",
    ]


def test_a_restart_and_bytes_have_rows() -> None:
    """By both starts of the reader; what a pipeline without a gate doesn't need is said."""

    def silence(seconds: float | None) -> dict[str, Any]:
        return {"silent_seconds": median(seconds)}

    restart = {"bare": silence(1.5), "gated, all": silence(2.25), "gated, recent": silence(1.6), "peer": silence(None)}
    log = {"received_bytes_a_second": median(130_000), "fetches_a_second": median(200)}
    questions = {"received_bytes_a_second": median(5_000), "requests_a_second": median(1.5)}
    connections = {"bare": median(2), "gated": median(6)}
    sent = {"commit log": log, "questions": questions, "connections": connections, "repetitions": []}
    found = rows({"scenarios": {"restart": {"cases": {"clean restart, eager": restart}}, "bytes": {"cases": sent}}})

    assert found["gap in deliveries, clean restart, eager"] == ["2.25 s (all); 1.60 s (recent)", "bare 1.50 s; peer -"]
    read = found["what a follower reads of the commit log, 100 partitions, 10 reports a second each"]
    assert read == ["130 kB/s in 200 fetches/s", "bare nothing"]
    assert found["connections"] == ["6", "bare 2"]


def test_what_was_not_measured_has_no_row_and_a_broken_one_no_number() -> None:
    """A run of one scenario, without the peer, with a contender all of whose runs were broken."""
    document = overhead(gated=0.004)
    document["scenarios"]["overhead"]["cases"]["idle, nothing there"]["gated"]["peak_rss_bytes"] = median(None)
    found = rows(document)

    assert len(found) == 5
    assert found["memory at most, nothing there"] == ["-", "bare 50 MB"]


def test_the_readmes_table_is_that_of_the_committed_results() -> None:
    """It is never edited by hand."""
    is_there = marked(json.loads(RESULTS.read_text())) in README.read_text()
    assert is_there, "run python -m tests.benchmarks --readme tests/benchmarks/results/full.json"


def test_the_command_replaces_the_table_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands before and after it stays."""
    results, readme = tmp_path / "results.json", tmp_path / "README.md"
    document = overhead(gated=0.004)
    results.write_text(json.dumps(document))
    readme.write_text(f"before\n{BEGIN}\n| old |\n{END}\nafter\n")
    monkeypatch.setattr("tests.benchmarks.readme.README", readme)

    assert main(["--readme", str(results)]) == 0

    assert readme.read_text() == f"before\n{marked(document)}\nafter\n"


def test_a_document_without_a_place_for_the_table_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather than left as it is in silence."""
    results, readme = tmp_path / "results.json", tmp_path / "README.md"
    results.write_text(json.dumps(overhead(gated=0.004)))
    readme.write_text("nothing\n")
    monkeypatch.setattr("tests.benchmarks.readme.README", readme)

    with pytest.raises(ValueError, match="has no lines"):
        main(["--readme", str(results)])
