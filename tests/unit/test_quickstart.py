"""The quickstart on its embedded broker: what it shows, and how it judges."""

from __future__ import annotations

import io
import json
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.support.programs import EXAMPLES, Program

sys.path.insert(0, str(EXAMPLES))

import quickstart
from demo.journal import Journal, Publication, Release, Stop, judge, partitions
from demo.view import Picture, Row, open_view

UNUSED_PORT = "127.0.0.1:1"

# The gate is left out: whatever the follower's consumer reads goes straight to the strategy behind.
WITHOUT_THE_GATE = """
import sys
import demo.pipelines
import quickstart
from arroyo.backends.kafka import KafkaConsumer

class NoGate(demo.pipelines.SynchronizedStrategyFactory):
    def create_with_partitions(self, commit, partitions):
        return self._factory.create_with_partitions(commit, partitions)

    def consumer(self, configuration):
        return KafkaConsumer(configuration)

demo.pipelines.SynchronizedStrategyFactory = NoGate
sys.exit(quickstart.main(["--seconds", "3"]))
"""


def counts(summary: str) -> dict[str, int]:
    """The numbers of the summary."""
    found = re.findall(
        r"^(?:ok|BROKEN)? +(produced|released early|released|lost|out of order) +([\d,]+)", summary, re.MULTILINE
    )
    return {name: int(number.replace(",", "")) for name, number in found}


def test_summary_numbers_are_found() -> None:
    """The pattern that these tests read the summary with, on a summary as it is printed."""
    text = "        produced         4,017\nBROKEN  released early       2  by\nok      lost                 0  x\n"
    assert json.dumps(counts(text)) == '{"produced": 4017, "released early": 2, "lost": 0}'


def test_the_quickstart_keeps_every_promise(tmp_path: Path) -> None:
    """On the embedded broker: everything produced is released, nothing early, lost or out of order, and it exits 0."""
    with Program(tmp_path, str(EXAMPLES / "quickstart.py"), "--seconds", "5", "--rate", "200") as program:
        assert program.exit_status() == 0, program.text
        summary = counts(program.text)
        produced = summary.pop("produced")
        assert produced > 0
        assert summary == {"released": produced, "released early": 0, "lost": 0, "out of order": 0}
        assert "Every promise was kept." in program.text
        assert re.search(r"slow-writer/\d stands still: partitions \d, \d must wait", program.text)
        assert re.search(r"While slow-writer/\d stood still for \d", program.text)
        assert re.search(r"release latency  p50 [\d.]+ ms, p99 [\d.]+ ms", program.text)
        assert max(map(len, program.text[program.text.rindex("  produced") :].splitlines())) <= 80
        assert "Traceback" not in program.text


def test_the_quickstart_notices_a_gate_that_does_not_hold(tmp_path: Path) -> None:
    """With the gate left out the follower gets messages early; it is counted, said, and the exit status is 1."""
    with Program(tmp_path, "-c", WITHOUT_THE_GATE) as program:
        assert program.exit_status() == 1, program.text
        assert counts(program.text)["released early"] > 0
        assert "BROKEN  Safety" in program.text
        assert "Every promise was kept." not in program.text


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_quickstart_ends_cleanly(tmp_path: Path, signum: signal.Signals) -> None:
    """It stops producing, waits for what is on its way, counts, and exits 0."""
    with Program(tmp_path, str(EXAMPLES / "quickstart.py"), "--seconds", "600") as program:
        program.wait_for(r"produced [1-9]")
        program.signal(signum)
        assert program.exit_status() == 0, program.text
        summary = counts(program.text)
        assert summary["produced"] == summary["released"] > 0
        assert "Traceback" not in program.text


def test_a_cluster_that_does_not_answer_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And exit status 2: nothing was shown."""
    monkeypatch.setattr("demo.broker.TIMEOUT_SECONDS", 0.5)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    assert quickstart.main(["--bootstrap-servers", UNUSED_PORT]) == 2
    assert capsys.readouterr().err.startswith(f"quickstart: --bootstrap-servers {UNUSED_PORT}: ")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        pytest.param(
            ["--partitions", "8"], "--partitions needs --bootstrap-servers", id="partitions without a cluster"
        ),
        pytest.param(["--partitions", "0", "--bootstrap-servers", "x"], "at least 1", id="no partitions"),
        pytest.param(["--rate", "0"], "--rate: must be more than 0", id="no rate"),
        pytest.param(["--seconds", "nan"], "--seconds: must be more than 0", id="not a number"),
    ],
)
def test_wrong_flags_of_the_quickstart_are_refused(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With exit status 2 and a line that names the flag."""
    with pytest.raises(SystemExit) as exit_info:
        quickstart.main(arguments)
    assert exit_info.value.code == 2
    assert complaint in capsys.readouterr().err


# How it judges.


def journal_of(
    produced: Sequence[int], published: Mapping[str, Sequence[tuple[int, float]]], released: Sequence[tuple[int, float]]
) -> Journal:
    """What happened in partition 0."""
    journal = Journal(["a", "b"])
    journal.produced[0] += produced
    for group, publications in published.items():
        journal.published[group, 0] += [Publication(*each) for each in publications]
    journal.released[0] += [Release(offset, at, 1) for offset, at in released]
    return journal


KEPT: dict[str, Any] = {
    "produced": [0, 1, 2],
    "published": {"a": [(1, 1.0), (3, 3.0)], "b": [(2, 2.0), (3, 4.0)]},
    "released": [(0, 2.5), (1, 3.5), (2, 4.5)],
}


def test_a_run_that_kept_its_promises_is_judged_so() -> None:
    """And a release's latency counts from when the slower leader published what covers it."""
    verdict = judge(journal_of(**KEPT))
    assert (verdict.produced, verdict.released, verdict.broken) == (3, 3, [])
    assert (verdict.early, verdict.lost, verdict.out_of_order) == (0, 0, 0)
    assert verdict.latencies_ms == [500.0, 500.0, 500.0]


@pytest.mark.parametrize(
    ("happened", "broken"),
    [
        pytest.param({"released": [(0, 1.5), (1, 3.5), (2, 4.5)]}, "Safety: 1 ", id="the slower leader came later"),
        pytest.param({"released": [(0, 0.5), (1, 0.5), (2, 0.5)]}, "Safety: 3 ", id="before any leader"),
        pytest.param({"released": [(0, 2.5), (2, 3.5), (1, 4.5)]}, "Safety: 1 ", id="at the remote offset"),
        pytest.param({"published": {"a": [(3, 1.0)]}}, "Safety: 3 ", id="a leader that never published"),
        pytest.param(
            {"published": {"a": [(3, 1.0)], "b": [(3, 1.0), (1, 2.0), (3, 4.0)]}},
            "Safety: 1 ",
            id="a leader that went back",
        ),
        pytest.param({"released": [(0, 2.5), (1, 3.5)]}, "No loss: 1 ", id="one is missing"),
        pytest.param({"released": [(0, 4.5), (2, 4.5), (1, 4.6)]}, "Order: 1 ", id="two are swapped"),
        pytest.param({"released": [(0, 4.5), (0, 4.5), (1, 4.5), (2, 4.5)]}, "Order: 1 ", id="one came twice"),
    ],
)
def test_each_broken_promise_is_found(happened: dict[str, Any], broken: str) -> None:
    """From what happened alone."""
    verdict = judge(journal_of(**{**KEPT, **happened}))
    assert any(each.startswith(broken) for each in verdict.broken), verdict.broken


def test_a_new_assignment_may_begin_further_back() -> None:
    """A rebalance starts again from the committed offsets, so repetition is no disorder."""
    journal = journal_of(**KEPT)
    journal.released[0].append(Release(1, 5.0, 2))
    assert judge(journal).broken == []


@pytest.mark.parametrize(
    ("published_at", "released_at", "is_kept"),
    [
        pytest.param([0.9, 1.9, 2.9, 3.9], [1.0, 2.0, 3.0, 4.0], True, id="it goes on"),
        pytest.param([0.8, 1.2, 1.9, 3.9], [0.9, 3.1, 3.1, 4.0], False, id="it waits until the other leader goes on"),
        pytest.param([0.8, 3.0, 3.1, 3.9], [0.9, 3.1, 3.2, 4.0], True, id="its own leader was late"),
        pytest.param([0.8, 1.9, 3.1, 3.9], [0.9, 3.1, 3.2, 4.0], True, id="it is late, but not for so long"),
        pytest.param([0.0, 3.0, 3.1, 3.9], [0.9, 3.1, 5.2, 5.3], True, id="it was late before and afterwards"),
    ],
)
def test_partitions_whose_leader_works_may_not_wait(
    published_at: list[float], released_at: list[float], is_kept: bool
) -> None:
    """While the leader of partition 0 stands still from 1.0 to 3.0, partition 1 must go on, if its leader does."""
    journal = Journal(["a"])
    for partition, published, released in ((0, [0.8, 0.8], [0.9, 3.1]), (1, published_at, released_at)):
        journal.produced[partition] += range(len(released))
        journal.published["a", partition] += [Publication(offset, at) for offset, at in enumerate(published, 1)]
        journal.released[partition] += [Release(offset, at, 1) for offset, at in enumerate(released)]
    verdict = judge(journal, Stop("a/1", frozenset({0}), 1.0, 3.0))
    assert verdict.broken == (
        [] if is_kept else ["Independence: partition 1 waited though no leader of theirs had stopped"]
    )


@pytest.mark.parametrize(
    ("indexes", "words"),
    [
        ([2], "partition 2"),
        ([3, 1], "partitions 1, 3"),
        ([0, 1, 2, 3], "partitions 0-3"),
        ([0, 2, 3], "partitions 0, 2, 3"),
    ],
)
def test_partitions_are_named_in_words(indexes: list[int], words: str) -> None:
    """Short, for a line of text."""
    assert partitions(indexes) == words


def rows(text: str) -> list[str]:
    return [" ".join(line.replace("│", "").split()) for line in text.splitlines() if re.match(r"│? +\d+ +\d", line)]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        pytest.param(Row(0, 500, [500, 366], 366, 366, 134, "synchronized", True), "slow-writer", id="waits"),
        pytest.param(Row(0, 500, [500, None], None, 0, 134, "unknown", True), "slow-writer", id="never reported"),
        pytest.param(Row(0, 500, [500, 500], 500, 500, 0, "synchronized", False), "synchronized", id="done"),
        pytest.param(Row(0, 500, [500, 480], 480, 400, 80, "local behind", False), "local behind", id="released"),
    ],
)
def test_the_live_table_says_for_whom_held_messages_wait(row: Row, says: str) -> None:
    """A green "synchronized" beside 134 held messages would look well."""
    terminal = io.StringIO()
    console = Console(file=terminal, force_terminal=True, width=80, height=30, color_system=None)
    with open_view(console, ["fast-writer", "slow-writer"]) as view:
        view.show(Picture(3.0, 10.0, 400, 390, "", [row]))
    (line,) = rows(re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", terminal.getvalue()))[:1]
    assert line.endswith(says)


@pytest.mark.parametrize("width", [80, 120])
def test_the_live_table_fits_the_terminal(width: int) -> None:
    """All of a partition's numbers are in one line, no line is wider than the terminal, and no word is cut."""
    terminal = io.StringIO()
    console = Console(file=terminal, force_terminal=True, width=width, height=30, color_system=None)
    row = Row(7, 123_456, [123_455, 123_450], 123_450, 123_449, 1_006, "remote behind", is_stopped=True)
    waiting = Row(8, 123_456, [123_455, 123_450], 123_450, 123_450, 1_006, "synchronized", is_stopped=True)
    with open_view(console, ["fast-writer", "slow-writer"]) as view:
        view.show(Picture(3.0, 10.0, 400, 390, "slow-writer/1 stands still: partitions 0-7 must wait", [row, waiting]))
    lines = re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", terminal.getvalue()).splitlines()
    assert max(map(len, lines)) <= width
    line = next(line for line in lines if "123,456" in line)
    for text in ("7", "123,455", "123,450", "123,449", "1,006", "remote behind"):
        assert text in line
    assert any(line.rstrip(" │").endswith("slow-writer") for line in lines)
    assert "watermark" in "".join(lines)
