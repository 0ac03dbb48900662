"""``python -m tests.chaos --faults N --seed S --json FILE``: see `tests.chaos`.

The exit status is 0 if no promise was violated; then the journals are removed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import confluent_kafka

from tests.chaos.faults import FAULTS
from tests.chaos.run import LAST_ROUNDS, run
from tests.integration.cluster import jars
from tests.support.sabotage import SABOTAGES, VARIABLE

SHOWN = 20
"""How many violations are told in full."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Faults, and whether promises held.")
    parser.add_argument("--faults", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the summary here")
    parser.add_argument("--only", action="append", choices=sorted(FAULTS), default=[], help="these faults alone")
    parser.add_argument("--rounds", type=int, default=LAST_ROUNDS, help="quiet rounds at the end")
    parser.add_argument("--sabotage", choices=sorted(SABOTAGES), help="break the followers, to see that it is found")
    parser.add_argument("--keep", type=Path, help="keep the journals in this new folder")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no fault after so many seconds")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(128 + signum))  # so that all is cleaned up
    folder = options.keep or Path(tempfile.mkdtemp(prefix="arroyo-sync-chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    environment = {VARIABLE: options.sabotage} if options.sabotage else {}
    verdict, summary = run(
        folder,
        options.faults,
        options.seed,
        options.only,
        environment,
        last_rounds=options.rounds,
        seconds=options.seconds,
    )
    summary["versions"] = {
        "arroyo": version("sentry-arroyo"),
        "confluent-kafka": version("confluent-kafka"),
        "librdkafka": confluent_kafka.libversion()[0],
        "kafka": jars.version(),
        "python": sys.version.split()[0],
    }
    if options.sabotage:
        summary["sabotage"] = options.sabotage
    text = json.dumps(summary, indent=2)
    print(text)
    for violation in verdict.violations[:SHOWN]:
        print(f"{violation.promise}: {violation.what}")
    if options.json:
        options.json.write_text(text + "\n")
    if verdict.violations or options.keep:
        print(f"journals: {folder}")
    else:
        shutil.rmtree(folder)
    return 1 if verdict.violations else 0


if __name__ == "__main__":
    sys.exit(main())
