"""Draws what `stored_rows` has counted."""

from __future__ import annotations

import os
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from tests.benchmarks.plots import STYLE
from tests.benchmarks.stored_rows import curves, totals

FOUND, MISSED = "#2a9d4a", "#c0392b"


def draw(text: str, file: Path) -> None:
    """The picture of what the example printed."""
    with mpl.rc_context(STYLE):
        picture(text).savefig(file)


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
