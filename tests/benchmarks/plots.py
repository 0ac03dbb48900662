"""The pictures: latency curves, throughput bars, curves of scale."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tests.benchmarks.numbers import CURVE_POINTS

COLOURS = {
    "floor": "#7f7f7f",
    "bare": "#4c78a8",
    "busy_floor": "#404040",
    "gated": "#2a9d4a",
    "plain": "#8e5bb5",
    "unwrapped": "#e6a817",
    "peer_bare": "#c9a0a0",
    "peer": "#c0392b",
}
LABELS = {
    "floor": "floor: a bare consumer of the commit log",
    "bare": "Arroyo without a gate",
    "busy_floor": "busy floor: such a consumer beside a pipeline",
    "gated": "arroyo-sync",
    "plain": "arroyo-sync, the README's lines alone",
    "unwrapped": "arroyo-sync without flow control",
    "peer_bare": "Arroyo 0.2.2 without a gate",
    "peer": "SynchronizedConsumer (Arroyo 0.2.2)",
}
STYLE: Any = {
    "font.size": 9,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.dpi": 150,
}


def draw(document: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draw what was measured into ``folder``: one PNG for each scenario that has a picture. Returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    scenarios = document["scenarios"]
    drawn: list[Path] = []
    with mpl.rc_context(STYLE):
        for name, picture in PICTURES.items():
            if name in scenarios:
                figure = picture(scenarios[name]["cases"])
                engine = figure.get_layout_engine()
                assert engine is not None
                engine.set(rect=(0, 0.04, 1, 0.96))  # type: ignore[call-arg]  # room for the line below
                figure.text(0.995, 0.005, _origin(document), ha="right", va="bottom", fontsize=6, color="#888888")
                drawn.append(folder / f"{name}.png")
                figure.savefig(drawn[-1])
    return drawn


def _origin(document: Mapping[str, Any]) -> str:
    where = document["environment"]
    kind = "quick run" if where["quick"] else f"{where['repetitions']} repetitions"
    return f"{where['cpus']} shared cores, broker on loopback, Python {where['python']}, {kind}"


def latency_curves(cases: Mapping[str, Any]) -> Figure:
    """ECDFs on a logarithmic axis, one panel a case."""
    columns = min(3, len(cases))
    rows = -(-len(cases) // columns)
    figure = Figure(figsize=(3.4 * columns, 2.5 * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for axis, (title, case) in zip(axes.flat, cases.items(), strict=False):
        for name, entry in case.items():
            if name in COLOURS:
                _curve(axis, name, entry["repetitions"])
        axis.set_xscale("log")
        axis.set_title(title, fontsize=9)
    for axis in axes[-1]:
        axis.set_xlabel("commit record produced → follower's code, ms")
    for axis in axes[:, 0]:
        axis.set_ylabel("share released")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(3, len(labels)), frameon=False, fontsize=8)
    return figure


def _curve(axis: Axes, name: str, repetitions: list[Any]) -> None:
    """Every repetition's curve thinly, named once."""
    label: str | None = LABELS[name]
    for entry in repetitions:
        curve = entry and entry.get("first_ms", entry)["curve"]
        if curve:
            shares = [point / 100 for point in CURVE_POINTS]
            axis.plot(curve, shares, color=COLOURS[name], alpha=0.6, linewidth=1.2, label=label)
            label = None


def throughput_bars(cases: Mapping[str, Any]) -> Figure:
    """Messages per second, the bar at the median, the whisker from the lowest to the highest repetition."""
    titles = {"nothing": "follower does nothing, 200 B", "json": "follower parses 2 kB of JSON"}
    figure = Figure(figsize=(9.5, 3.2), layout="constrained")
    axes = figure.subplots(1, len(cases), squeeze=False)[0]
    for axis, (case, found) in zip(axes, cases.items(), strict=True):
        for place, (name, entry) in enumerate(reversed(found.items())):
            speed = entry["messages_per_second"]
            if speed["median"] is None:
                continue
            whisker = [[speed["median"] - speed["low"]], [speed["high"] - speed["median"]]]
            axis.barh(place, speed["median"], xerr=whisker, color=COLOURS[name], ecolor="#333333", capsize=2)
        names = [_with_ratio(name, found[name]["over_bare"]["median"]) for name in reversed(found)]
        axis.set_yticks(range(len(found)), names)
        axis.set_title(titles[case], fontsize=9)
        axis.set_xlabel("messages per second")
        axis.xaxis.set_major_formatter(lambda value, _: f"{value / 1_000:g}k")
        axis.xaxis.set_major_locator(mpl.ticker.MaxNLocator(5))
        axis.grid(axis="y", visible=False)
    figure.suptitle("catching up, the leaders far ahead", fontsize=10)
    return figure


def cpu_bars(cases: Mapping[str, Any]) -> Figure:
    """CPU time a message while tailing, a group of bars each rate and interval, with whiskers as above."""
    tailing = {name.removeprefix("tailing, "): case for name, case in cases.items() if name.startswith("tailing, ")}
    names = [name for name in COLOURS if all(name in case for case in tailing.values())]
    figure = Figure(figsize=(9.5, 3.2), layout="constrained")
    axis = figure.subplots()
    width = 0.8 / max(1, len(names))
    for place, name in enumerate(names):
        costs = [(at, case[name]["cpu_us_per_message"]) for at, case in enumerate(tailing.values())]
        known = [
            (at + (place - len(names) / 2 + 0.5) * width, cost) for at, cost in costs if cost["median"] is not None
        ]
        whiskers = [
            [cost["median"] - cost["low"] for _, cost in known],
            [cost["high"] - cost["median"] for _, cost in known],
        ]
        axis.bar(
            [at for at, _ in known],
            [cost["median"] for _, cost in known],
            width,
            yerr=whiskers,
            color=COLOURS[name],
            ecolor="#333333",
            capsize=2,
            label=LABELS[name],
        )
    axis.set_xticks(range(len(tailing)), [name.replace(", ", "\n") for name in tailing])
    axis.set_ylabel("CPU, us a message")
    axis.grid(axis="x", visible=False)
    figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=8)
    return figure


def _with_ratio(name: str, ratio: float | None) -> str:
    return LABELS[name] if ratio is None or "bare" in name else f"{LABELS[name]}\n{ratio:.2f} of that without a gate"


def scale_curves(cases: Mapping[str, Any]) -> Figure:
    """Costs against the number of partitions: single calls, a whole follower, one on the broker.

    What grows with the partitions has logarithmic axes, where it is a straight slope; what should be flat begins at 0.
    """
    figure = Figure(figsize=(9.5, 8), layout="constrained")
    axes = figure.subplots(3, 3, sharex=True)
    groups = sorted({point["groups"] for point in cases["calls"]})
    titles = {"submit_us": "submit", "poll_us": "poll, nothing moved", "move_us": "one remote offset moves"}
    for axis, (cost, title) in zip(axes[0], titles.items(), strict=True):
        for number, group in enumerate(groups):
            mine = [each for each in cases["calls"] if each["groups"] == group]
            label = f"{group} leader group{'s' if group > 1 else ''}"
            _by_partitions(axis, mine, cost, label, mpl.colormaps["viridis"](0.15 + 0.5 * number))
        axis.set_title(f"{title}, µs", fontsize=9)
    whole = cases["in process"]
    states = {"idle_cpu": "idle", "one_moves_cpu": "one partition moves", "all_move_cpu": "all move"}
    for number, (state, label) in enumerate(states.items()):
        _by_partitions(axes[1, 0], whole, state, label, mpl.colormaps["viridis"](0.1 + 0.35 * number), 100)
    axes[1, 0].set_title("follower without Kafka, % of a core", fontsize=9)
    _by_partitions(axes[1, 1], whole, "look_ms", "a look of the monitor", COLOURS["gated"])
    _by_partitions(axes[1, 1], whole, "look_with_metrics_ms", "a look, with metrics", COLOURS["unwrapped"])
    _by_partitions(axes[1, 1], whole, "look_all_wait_ms", "a look, all wait for 15 s or more", COLOURS["peer"])
    _by_partitions(axes[1, 1], whole, "first_release_ms", "assignment to first release", COLOURS["bare"])
    axes[1, 1].set_title("follower without Kafka, ms", fontsize=9)
    large = [each for each in whole if each["partitions"] >= 100]  # with few the process's own memory is all that shows
    _by_partitions(axes[1, 2], large, "bytes_a_partition", "kB a partition", COLOURS["gated"], 1e-3)
    axes[1, 2].set_title("memory, kB a partition", fontsize=9)
    for axis, (state, label) in zip(axes[2], states.items(), strict=True):
        for name in ("bare", "gated"):
            mine = [each for each in cases["on the broker"] if each["contender"] == name]
            _by_partitions(axis, mine, state, LABELS[name], COLOURS[name], 100)
        axis.set_title(f"on the broker, {label}, % of a core", fontsize=9)
        axis.set_xlabel("partitions")
    for axis in axes.flat:
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
        axis.set_ylim(bottom=0)
    for axis in (*axes[1, :2], *axes[2]):
        _use_decades(axis)
    for axis in (axes[0, 0], axes[1, 0], axes[1, 1], axes[2, 0]):
        axis.legend(frameon=False, fontsize=6.5, loc="upper left")
    return figure


def _use_decades(axis: Axes) -> None:
    """A logarithmic axis of whole decades, so that a slope isn't the zoom's, and one more for the legend."""
    heights = [float(height) for line in axis.get_lines() for height in np.asarray(line.get_ydata()) if height > 0]
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.yaxis.set_minor_formatter(mpl.ticker.NullFormatter())
    if heights:
        axis.set_ylim(10 ** math.floor(math.log10(min(heights))), 10 ** math.ceil(math.log10(max(heights)) + 1))


def _by_partitions(axis: Axes, points: Any, cost: str, label: str, colour: Any, scale: float = 1.0) -> None:
    """A line through the medians, its whiskers from the lowest to the highest."""
    known = sorted((each for each in points if each[cost]["median"]), key=lambda each: each["partitions"])
    middle = [each[cost]["median"] * scale for each in known]
    below = [(each[cost]["median"] - each[cost]["low"]) * scale for each in known]
    above = [(each[cost]["high"] - each[cost]["median"]) * scale for each in known]
    partitions = [each["partitions"] for each in known]
    axis.errorbar(partitions, middle, [below, above], marker="o", markersize=3, capsize=2, label=label, color=colour)


def restart_bars(cases: Mapping[str, Any]) -> Figure:
    """How long nothing comes, by event and protocol: the bar at the median, the whisker from lowest to highest."""
    columns = min(3, len(cases))
    rows = -(-len(cases) // columns)
    figure = Figure(figsize=(3.6 * columns, 1.7 * rows + 0.4), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    ordered = sorted(cases.items(), key=lambda case: case[0].rpartition(", ")[2])
    for axis, (title, found) in zip(axes.flat, ordered, strict=False):
        for place, (label, entry) in enumerate(reversed(found.items())):
            silent = entry["silent_seconds"]
            if silent["median"] is not None:
                whisker = [[silent["median"] - silent["low"]], [silent["high"] - silent["median"]]]
                colour = COLOURS[label.partition(",")[0]]
                axis.barh(place, silent["median"], xerr=whisker, color=colour, ecolor="#333333", capsize=2)
        axis.set_yticks(range(len(found)), list(reversed(found)))
        axis.set_title(title, fontsize=9)
        axis.grid(axis="y", visible=False)
    for axis in axes[-1]:
        axis.set_xlabel("longest time without a message, s")
    return figure


PICTURES = {
    "release_latency": latency_curves,
    "idle_release": latency_curves,
    "catch_up": throughput_bars,
    "overhead": cpu_bars,
    "scale": scale_curves,
    "restart": restart_bars,
}
