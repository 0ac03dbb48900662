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
from tests.chaos.ingredients import WORLDS, draw, on_kafka
from tests.chaos.run import LAST_ROUNDS, run
from tests.integration.cluster import jars
from tests.support.sabotage import EVERY, VARIABLE

SHOWN = 20
"""How many violations are told in full."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Faults, and whether promises held.")
    parser.add_argument("--faults", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the summary here")
    parser.add_argument("--only", action="append", choices=sorted(FAULTS), default=[], help="these faults alone")
    parser.add_argument("--rounds", type=int, default=LAST_ROUNDS, help="quiet rounds at the end")
    parser.add_argument(
        "--sabotage", choices=sorted(EVERY), help="break leaders and followers, to see that it is found"
    )
    parser.add_argument("--world", choices=WORLDS, help="this world, not the ingredients that the seed draws")
    parser.add_argument("--keep", type=Path, help="keep the journals in this new folder")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no fault after so many seconds")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(128 + signum))  # so that all is cleaned up
    folder = options.keep or Path(tempfile.mkdtemp(prefix="arroyo-sync-chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    environment = {VARIABLE: options.sabotage} if options.sabotage else {}
    ingredients = on_kafka(WORLDS[options.world] if options.world else draw(options.seed), jars.version())
    print(f"seed {options.seed}: {json.dumps(ingredients.as_json())}", flush=True)
    verdict, summary = run(
        folder,
        options.faults,
        options.seed,
        options.only,
        environment,
        last_rounds=options.rounds,
        seconds=options.seconds,
        ingredients=ingredients,
    )
    summary["versions"] = {
        "arroyo": version("sentry-arroyo"),
        "confluent-kafka": version("confluent-kafka"),
        "librdkafka": confluent_kafka.libversion()[0],
        "kafka": jars.version(),
        "python": sys.version.split()[0],
    }
    summary["told"] = [f"{violation.promise}: {violation.what}"[:400] for violation in verdict.violations[:SHOWN]]
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
