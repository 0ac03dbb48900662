"""The command line: ``python -m tests.benchmarks``."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from tests.benchmarks import readme
from tests.benchmarks.bench import Bench
from tests.benchmarks.environment import describe
from tests.benchmarks.report import render
from tests.benchmarks.scenarios import (
    catch_up,
    idle_release,
    independence,
    interpreter,
    overhead,
    refetch,
    release_latency,
    restart,
    scale,
    start,
    traffic,
)
from tests.benchmarks.summary import summary
from tests.integration.cluster.cluster import LONG_LIVED, KafkaCluster

SCENARIOS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "catch_up": catch_up.run,
    "release_latency": release_latency.run,
    "idle_release": idle_release.run,
    "independence": independence.run,
    "refetch": refetch.run,
    "replay": start.run_replay,
    "start": start.run,
    "overhead": overhead.run,
    "scale": scale.run,
    "restart": restart.run,
    "bytes": traffic.run,
    "interpreter": interpreter.run,
}
ON_REQUEST = frozenset({"interpreter"})
"""They run only where ``--only`` names them."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks that were asked for. Returns the exit code: 1 if a promise was broken."""
    options = _parse(arguments)
    if options.readme:
        readme.write(json.loads(options.readme.read_text()))
        return 0
    console = Console()
    names = options.only or [name for name in SCENARIOS if name not in ON_REQUEST]
    results: dict[str, Any] = {}
    document: dict[str, Any] = {}
    started = time.monotonic()
    columns = (TextColumn("{task.fields[scenario]:>16}"), BarColumn(), TextColumn("{task.description}"))
    with (
        tempfile.TemporaryDirectory(prefix="arroyo-sync-bench-") as work,
        Progress(*columns, TimeElapsedColumn(), console=console) as progress,
    ):
        task = progress.add_task("starting the broker", total=len(names), scenario="")

        def tell(text: str) -> None:
            progress.update(task, description=text.splitlines()[0][:100])
            if text.startswith("BROKEN") or not console.is_terminal:
                line = f"{time.monotonic() - started:6.1f} s  {text}"
                progress.console.print(line, highlight=False, markup=False)

        with KafkaCluster(brokers=1, heap_mb=1_000, jvm_options=[LONG_LIVED]) as cluster:
            bench = Bench(cluster, Path(work), options.quick, options.seed, tell)
            bench.repetitions = options.repetitions or bench.repetitions
            environment = describe(bench)
            for name in names:
                progress.update(task, scenario=name)
                began = time.monotonic()
                results[name] = SCENARIOS[name](bench)
                results[name]["seconds"] = round(time.monotonic() - began, 1)
                progress.advance(task)
                document = _document(results, bench.broken, environment, time.monotonic() - started)
                if options.json:  # after each: a long run that is interrupted has shown something
                    options.json.parent.mkdir(parents=True, exist_ok=True)
                    options.json.write_text(json.dumps(document, indent=1) + "\n")
    render(document, console)
    if options.plots:
        from tests.benchmarks.plots import draw

        draw(document, options.plots)
    return 1 if document["broken"] else 0


def _document(
    results: dict[str, Any], broken: list[str], environment: dict[str, Any], seconds: float
) -> dict[str, Any]:
    return {
        "summary": summary(results, broken),
        "broken": broken,
        "seconds": round(seconds, 1),
        "environment": environment,
        "scenarios": results,
    }


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m tests.benchmarks", description="Beside the peer and the floor.")
    parser.add_argument("--quick", action="store_true", help="2 short repetitions of less: about four minutes")
    parser.add_argument("--repetitions", metavar="N", type=int, help="so many of all (default: 4, of --quick 2)")
    parser.add_argument("--only", metavar="NAME", action="append", choices=SCENARIOS, help=f"of {', '.join(SCENARIOS)}")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write everything that was measured")
    parser.add_argument("--plots", metavar="DIR", type=Path, help="write PNG pictures")
    parser.add_argument(
        "--readme", metavar="FILE", type=Path, help="measure nothing: write the README's table from these results"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the leaders' timing (default: %(default)s)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
