"""``python -m tests.chaos.long --faults N --seeds 1,2,3 --streams 2 --json FILE``: runs of `tests.chaos`, summed up.

Each run is a process of its own with a cluster of its own, ``--streams`` of them at a time. The summary is written anew
after each run, and a violation or a run that breaks off stops none of the others. Given the same ``--json`` again, it
goes on: seeds that have a summary there are not run again. Where something was violated the journals are kept; the
summary names their folder. The exit status is 0 if every run ended and nothing was violated.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from tests.chaos.checker import PROMISES
from tests.chaos.processes import ROOT

COUNTS = (
    "faults",
    "messages",
    "deliveries",
    "duplicates",
    "rounds",
    "late_leaders",
    "believed",
    "nobodys",
    "rewinds",
    "assignments",
    "dead_letters",
)

START_SECONDS, FAULT_SECONDS = 1800.0, 60.0
"""A run that takes longer than this, with so much for each fault, hangs: it is ended, and the next one begins."""


def summarise(runs: Sequence[Mapping[str, Any]], failed: Mapping[int, str], seconds: float) -> dict[str, Any]:
    """What the runs found together, and each of them.

    :param failed: by seed, how a run ended that has no summary.
    """
    kinds: Counter[str] = Counter()
    for each in runs:
        kinds.update(each["kinds"])
    return {
        "totals": {
            "runs": len(runs),
            **{name: sum(each.get(name, 0) for each in runs) for name in COUNTS},
            "violations": {promise: sum(each["violations"].get(promise, 0) for each in runs) for promise in PROMISES},
            "kinds": dict(sorted(kinds.items())),
            "skipped": sum(len(each["skipped"]) for each in runs),
            "seconds": round(seconds),
        },
        "failed": {str(seed): line for seed, line in sorted(failed.items())},
        "runs": sorted(runs, key=lambda each: int(each["seed"])),
    }


def runs_before(path: Path, faults: int) -> list[dict[str, Any]]:
    """The runs that an earlier call has left in its summary, but for those with another number of faults."""
    if not path.exists():
        return []
    return [each for each in json.loads(path.read_text())["runs"] if each["faults"] >= faults]


def write(path: Path, summary: Mapping[str, Any]) -> None:
    """Whole or not at all."""
    draft = path.with_name(path.name + ".new")
    draft.write_text(json.dumps(summary, indent=2) + "\n")
    draft.replace(path)


_processes: list[subprocess.Popen[bytes]] = []
_is_ending = False


def _end_runs(signum: int, frame: object) -> None:
    global _is_ending
    _is_ending = True
    for process in _processes:
        process.terminate()


def run(seed: int, faults: int, folder: Path) -> dict[str, Any] | str:
    """The summary of one run, or how one ended that has none. Blocks until it has ended."""
    if _is_ending:
        return "it was not started"
    result, log = folder / f"{seed}.json", folder / f"{seed}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.chaos", "--seed", str(seed), "--faults", str(faults)),
                *("--json", str(result)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
        )
        _processes.append(process)
        try:
            status = process.wait(START_SECONDS + FAULT_SECONDS * faults)
        except subprocess.TimeoutExpired:
            process.terminate()
            status = process.wait()
    lines = log.read_text(errors="replace").splitlines()
    if result.exists():
        summary: dict[str, Any] = json.loads(result.read_text())
        summary["journals"] = next((line for line in lines if line.startswith("journals: ")), "")
        return summary
    last_line = "".join(lines[-1:])
    return f"it ended with status {status}: {last_line}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.long", description="Several runs, and their sum.")
    parser.add_argument("--faults", type=int, default=100, help="of each run")
    parser.add_argument("--seeds", required=True, help="one run for each, such as 1,2,3")
    parser.add_argument("--streams", type=int, default=1, help="so many runs at a time")
    parser.add_argument("--json", type=Path, required=True, help="write the summary here")
    options = parser.parse_args()
    runs = runs_before(options.json, options.faults)
    before = {each["seed"] for each in runs}
    seeds = [seed for seed in (int(seed) for seed in options.seeds.split(",")) if seed not in before]
    folder = Path(tempfile.mkdtemp(prefix="arroyo-sync-chaos-long-"))
    print(f"logs: {folder}", flush=True)
    began = time.monotonic()
    seconds_before = sum(each["seconds"] for each in runs)
    failed: dict[int, str] = {}
    signal.signal(signal.SIGTERM, _end_runs)
    with ThreadPoolExecutor(options.streams) as pool:
        futures = {pool.submit(run, seed, options.faults, folder): seed for seed in seeds}
        for future in as_completed(futures):
            seed, outcome = futures[future], future.result()
            if isinstance(outcome, str):
                failed[seed] = outcome
                print(f"seed {seed}: no summary: {outcome}", flush=True)
            else:
                runs.append(outcome)
                named = ("faults", "messages", "duplicates", "seconds", "believed", "nobodys", "violations")
                told = {name: outcome[name] for name in named}
                print(f"seed {seed}: {json.dumps(told)}", flush=True)
            summary = summarise(runs, failed, seconds_before + time.monotonic() - began)
            write(options.json, summary)
    summary = summarise(runs, failed, seconds_before + time.monotonic() - began)
    violated = any(summary["totals"]["violations"].values())
    return 1 if failed or violated else 0


if __name__ == "__main__":
    sys.exit(main())
