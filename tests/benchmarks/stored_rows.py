"""The picture of ``examples/stored_first.py``: how many rows a follower misses with the gate and without it.

    python -m tests.benchmarks.stored_rows --plots tests/benchmarks/results

It runs the example on a real broker, and draws what it prints, second by second. That goes beside the picture, as text.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.integration.cluster.cluster import KafkaCluster
from tests.support.programs import EXAMPLES

FOLLOWERS = ("with the gate", "without it")
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
        from tests.benchmarks.stored_rows_picture import draw

        draw(done.stdout, options.plots / "stored_first.png")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
