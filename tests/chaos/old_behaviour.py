"""``python -m tests.chaos.old_behaviour --json FILE``: what was wrong with the package before is found, fault by fault.

Each of `tests.support.old_behaviour` is put back, and what should find it is run: a short chaos run, or where a run
can't see it (it has no user's seek, weighs no headers, reads no exception's words) the tests of another level. The
table says for each by which level, what, and whether it was found. The exit status is 0 if all were.
With ``--control`` the same runs and tests go over the package as it is, and nothing may be found.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tests.chaos.processes import ROOT
from tests.support.sabotage import VARIABLE

TIMEOUT_SECONDS = 1800.0


class Chaos(NamedTuple):
    """A run that finds it: its world, its seed, and the faults alone that it is made of."""

    world: str
    faults: int
    only: tuple[str, ...]
    seed: int = 3

    def command(self, result: Path) -> list[str]:
        only = [each for kind in self.only for each in ("--only", kind)]
        return [
            *(sys.executable, "-m", "tests.chaos", "--world", self.world, "--seed", str(self.seed), "--rounds", "1"),
            *("--faults", str(self.faults), "--json", str(result), *only),
        ]

    def __str__(self) -> str:
        return f"chaos, world {self.world!r}, seed {self.seed}, {self.faults} x {', '.join(self.only)}"


class Tests(NamedTuple):
    """Tests that find it."""

    where: str

    @property
    def level(self) -> str:
        return self.where.split("/")[1]

    def command(self) -> list[str]:
        return [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *self.where.split()]

    def __str__(self) -> str:
        return self.where


class Line(NamedTuple):
    """One line of what was found in other people's worlds, and what finds it."""

    was: str
    found_by: Chaos | Tests


UNIT, REAL = "tests/unit", "tests/integration"
LOG = f"{UNIT}/leaders/commit_log"
FINDERS: Mapping[str, Line] = {
    "believes an earlier topic": Line(
        "a data topic that was deleted and created again, restarted first",
        Chaos("plain", 2, ("data topic outgrown",)),
    ),
    "reads on in a new topic": Line(
        "a living follower reads on in the middle of a new topic", Chaos("plain", 2, ("data topic outgrown",), seed=1)
    ),
    "never takes an end back": Line("truncation by an unclean election", Tests(f"{REAL}/test_truncation.py")),
    "takes an alias of a key": Line(
        "a key with leading zeros", Chaos("shared commit log", 2, ("follower killed", "leader killed"))
    ),
    "believes timestamps from the future": Line(
        "a timestamp from the future", Tests(f"{LOG}/test_plausible_timestamps.py {LOG}/test_batch_decoder.py")
    ),
    "counts a seek as received": Line("a user's seek forward", Tests(f"{UNIT}/gate")),
    "asks all or none": Line(
        "one partition's broker is down, then a rebalance", Chaos("one replica", 1, ("broker away",))
    ),
    "asks for the last stable offset": Line(
        "a leader that reads uncommitted messages", Chaos("transactional", 2, ("transaction hangs",))
    ),
    "reads all for one partition": Line(
        "recent, and a partition without a commit", Tests(f"{LOG}/test_recent_start.py")
    ),
    "keeps reports of any topic": Line("keys that nobody reads", Tests(f"{LOG}/test_batch_decoder.py")),
    "logs every rewind": Line(
        "rewinds, and a pool that publishes out of order", Tests(f"{UNIT}/leaders/test_leader_log.py")
    ),
    "takes any topic for a commit log": Line("a wrong commit log", Tests(f"{LOG}/test_contents.py")),
    "never says that a broker is back": Line(
        "a broker that is back", Tests(f"{UNIT}/kafka/questions/test_broker_watch.py")
    ),
    "forgets where it began": Line(
        "auto.offset.reset=latest, and nothing released yet",
        Chaos("from the end", 2, ("partition begun while shut",)),
    ),
    "skips the new topic": Line(
        "latest, and a new topic on which the follower had begun",
        Tests(f"{REAL}/test_recreated_topic.py -k began_on_the_new_topic"),
    ),
    "asks no more as it ends": Line(
        "a new topic that the follower doesn't live to notice",
        Tests(f"{REAL}/test_recreated_topic.py -k before_it_is_noticed"),
    ),
    "leaves it to auto-commit": Line(
        "auto-commit, and an offset that lies before the last one",
        Tests(f"{REAL}/test_recreated_topic.py -k though_more_was_committed"),
    ),
    "joins its backlog first": Line(
        "join spends its timeout on the backlog", Chaos("plain", 2, ("slow follower told to end",))
    ),
    "weighs no headers": Line("what headers weigh", Tests(f"{UNIT}/gate/test_held_bytes.py")),
    "takes its own group for a leader": Line(
        "the same group for leader and follower", Tests(f"{UNIT}/gate/test_factory.py")
    ),
    "says nothing of wrappers": Line("wrapped in the wrong order", Tests(f"{UNIT}/gate")),
    "hides incremental rebalances": Line("dead letters under KIP-848", Tests(f"{UNIT}/gate/test_dead_letters.py")),
    "takes what was sought away": Line("a user's seek while the processor carries a message", Tests(f"{UNIT}/gate")),
    "keeps no secrets": Line("secrets in Sentry's events", Tests(f"{UNIT}/sentry/test_secrets.py")),
    "checks no seconds": Line("arguments that can't be right", Tests(f"{UNIT}/test_hostile_arguments.py")),
    "lifts no pauses": Line("pauses that outlive a rebuild", Tests(f"{UNIT}/gate")),
    "sleeps after a rebalance": Line("a member joins under KIP-848", Tests(f"{UNIT}/gate/consumer/test_rebalances.py")),
    "ends with an added partition": Line(
        "a partition is added under KIP-848", Tests(f"{REAL}/test_rebalance.py -k partition_that_is_added")
    ),
    "lists topics in a callback": Line(
        "an added partition, and a callback that follows in the same poll",
        Tests(f"{REAL}/test_rebalance.py -k partition_that_is_added"),
    ),
    "hands on what was truncated": Line(
        "truncation of what the follower holds", Tests(f"{UNIT}/leaders/test_verifier.py")
    ),
    "hands on what was grown over": Line(
        "truncation of what the follower holds, below where the partition has grown to",
        Tests(f"{UNIT}/leaders/test_verifier.py"),
    ),
    "lets go of a client in use": Line(
        "the end of a client that is just asked", Tests(f"{UNIT}/kafka/test_making_clients.py")
    ),
    "asks while it closes": Line(
        "an assignment lies in the client's queue at the end", Tests(f"{REAL}/test_rebalance.py -k lies_in_its_client")
    ),
    "over is its last word": Line(
        "a partition stands still again after it was over", Tests(f"{UNIT}/observe/test_problems.py")
    ),
    "blames leaders while it replays": Line(
        "a commit log that begins with reports of an earlier topic",
        Tests(f"{UNIT}/observe/test_problems.py -k before_everything"),
    ),
    "waits for a silent client": Line(
        "a client of librdkafka's that has lost all brokers, or a partition, for good",
        Tests(f"{REAL}/test_reader_failures.py -k fetches_no_more"),
    ),
    "believes another cluster": Line(
        "a topic of that name on the commit log's cluster", Tests(f"{REAL}/test_other_cluster.py")
    ),
    "reports nothing at its start": Line(
        "an idle partition after a restart", Tests(f"{REAL}/test_leader_starts.py -k idle_leader_is_reported_at")
    ),
    "waits for a dead commit log": Line(
        "a dead commit log holds the leader up", Tests(f"{REAL}/test_leader_starts.py -k dead_commit_log")
    ),
    "takes NaN for a time": Line("a time that isn't a number", Tests(f"{LOG}/publishing")),
}


def find(name: str, is_control: bool = False) -> dict[str, Any]:
    """Put it back (or not: a control) and look. Blocks for as long as that takes."""
    line, began = FINDERS[name], time.monotonic()
    row: dict[str, Any] = {"was": line.was, "by": str(line.found_by)}
    with tempfile.TemporaryDirectory(prefix="arroyo-sync-old-") as folder:
        result = Path(folder) / "summary.json"
        is_chaos = isinstance(line.found_by, Chaos)
        command = line.found_by.command(result) if isinstance(line.found_by, Chaos) else line.found_by.command()
        environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
        if is_chaos:
            command += [] if is_control else ["--sabotage", name]
        elif not is_control:
            environment[VARIABLE] = name
        ended = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=TIMEOUT_SECONDS
        )
        if isinstance(line.found_by, Chaos):
            summary = json.loads(result.read_text()) if result.exists() else None
            counts = {} if summary is None else {key: n for key, n in summary["violations"].items() if n}
            row |= {"level": "chaos", "found": bool(counts), "violations": counts}
            row["first"] = (summary["told"] or [""])[0] if summary is not None else ended.stderr[-300:]
        else:
            failed = [each for each in ended.stdout.splitlines() if each.startswith("FAILED")]
            aborted = [each for each in ended.stderr.splitlines() if "Fatal Python error" in each]
            failed += aborted
            row |= {"level": line.found_by.level, "found": ended.returncode in (1, -signal.SIGABRT) and bool(failed)}
            row["first"] = failed[0][:300] if failed else ended.stdout[-300:]
    row["seconds"] = round(time.monotonic() - began)
    return row


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.old_behaviour", description="What was, is found.")
    parser.add_argument("--only", action="append", choices=FINDERS, default=[], help="these alone")
    parser.add_argument("--control", action="store_true", help="with nothing put back: nothing is to be found")
    parser.add_argument("--json", type=Path, help="write the table here, beside what it has of others")
    options = parser.parse_args()
    table: dict[str, Any] = {}
    if options.json and options.json.exists():
        table = json.loads(options.json.read_text())
    is_as_wanted = True
    for name in options.only or FINDERS:
        table[name] = find(name, options.control)
        is_as_wanted = is_as_wanted and table[name]["found"] != options.control
        print(f"{name}: {json.dumps(table[name])}", flush=True)
        if options.json:
            options.json.write_text(
                json.dumps({each: table[each] for each in FINDERS if each in table}, indent=2) + "\n"
            )
    return 0 if is_as_wanted else 1


if __name__ == "__main__":
    sys.exit(main())
