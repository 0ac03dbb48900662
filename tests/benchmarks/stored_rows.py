"""The picture of ``examples/stored_first.py``: how many rows a follower misses with the gate and without it.

    python -m tests.benchmarks.stored_rows --plots tests/benchmarks/results

It runs the example on a real broker, and draws what it prints, second by second. That goes beside the picture, as text.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
from matplotlib.figure import Figure

from tests.benchmarks.plots import STYLE
from tests.integration.cluster.cluster import KafkaCluster
from tests.support.programs import EXAMPLES

FOLLOWERS = ("with the gate", "without it")
FOUND, MISSED = "#2a9d4a", "#c0392b"
LINE = re.compile(r"^ *(\d+) s" + "".join(rf" +{name}: +(\d+) of +(\d+) missed" for name in FOLLOWERS) + "$", re.M)
SUMMARY = re.compile(rf"^ *({'|'.join(FOLLOWERS)}): (\d+) looked up, (\d+) not there yet$", re.M)


class Count(NamedTuple):
    """Of one follower, from the start."""

    looked_up: int
    missed: int


def curves(text: str) -> dict[str, list[tuple[int, Count]]]:
    """What the example printed of each follower: the second, and the counts by then."""
    found: dict[str, list[tuple[int, Count]]] = {name: [(0, Count(0, 0))] for name in FOLLOWERS}
    for second, *numbers in LINE.findall(text):
        for name, missed, looked_up in zip(FOLLOWERS, numbers[::2], numbers[1::2], strict=True):
            found[name].append((int(second), Count(int(looked_up), int(missed))))
    return found


def totals(text: str) -> dict[str, Count]:
    """What it printed at its end."""
    return {name: Count(int(looked_up), int(missed)) for name, looked_up, missed in SUMMARY.findall(text)}


def picture(text: str) -> Figure:
    """The rows looked up so far by each follower: those found, and above them those missed."""
    figure = Figure(figsize=(9.5, 3.0), layout="constrained")
    whole = totals(text)
    for axis, (name, curve) in zip(figure.subplots(1, 2, sharey=True), curves(text).items(), strict=True):
        seconds = [second for second, _ in curve]
        found = [count.looked_up - count.missed for _, count in curve]
        looked_up = [count.looked_up for _, count in curve]
        axis.fill_between(seconds, 0, found, color=FOUND, alpha=0.85, linewidth=0, label="found")
        axis.fill_between(seconds, found, looked_up, color=MISSED, alpha=0.85, linewidth=0, label="not there yet")
        axis.plot(seconds, looked_up, color="#333333", linewidth=1)
        axis.set_title(f"{name}: {whole[name].missed:,} of {whole[name].looked_up:,} rows not there yet", fontsize=9)
        axis.set_xlabel("seconds")
        axis.set_xlim(0, seconds[-1])
        axis.set_ylim(0)
        axis.yaxis.set_major_formatter("{x:,.0f}")
        axis.xaxis.set_major_locator(mpl.ticker.MaxNLocator(integer=True))
    figure.axes[0].set_ylabel("rows looked up so far")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False, fontsize=8)
    figure.supxlabel(
        f"500 events a second, stored once a second in SQLite; one broker on loopback, {os.cpu_count()} shared cores",
        x=0.995,
        ha="right",
        fontsize=6,
        color="#888888",
    )
    return figure


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Draw the rows that a follower misses, with the gate and without it.")
    parser.add_argument("--plots", type=Path, required=True, metavar="FOLDER", help="where picture and text go")
    parser.add_argument("--seconds", type=int, default=10, help="of traffic (default: %(default)d)")
    options = parser.parse_args(arguments)
    with KafkaCluster() as kafka:
        command = [sys.executable, str(EXAMPLES / "stored_first.py"), "--bootstrap-servers", kafka.bootstrap_servers]
        done = subprocess.run([*command, "--seconds", str(options.seconds)], stdout=subprocess.PIPE, text=True)
    print(done.stdout, end="")
    if done.returncode == 0:
        options.plots.mkdir(parents=True, exist_ok=True)
        (options.plots / "stored_first.txt").write_text(done.stdout)
        with mpl.rc_context(STYLE):
            picture(done.stdout).savefig(options.plots / "stored_first.png")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
