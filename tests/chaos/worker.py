"""One process of a run, made of the examples' code: ``python -m tests.chaos.worker ROLE SETTINGS-AS-JSON``.

The examples run whole, with their own flags, signals and error messages. Put under them are: a journal, the group
protocol and quick timeouts (they have no flags for these), a low limit for held messages, and a run's ingredients.
"""

from __future__ import annotations

import faulthandler
import functools
import json
import os
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.chaos import clock  # noqa: F401 - before whoever keeps the time's function

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "examples"))

import leader
import runner

from tests.chaos import bare, followers, handlers, producer, rubbish
from tests.chaos.ingredients import SNUBA
from tests.chaos.processes import STACKS_SIGNAL
from tests.chaos.snuba_leader import SnubaPublisher
from tests.support import sabotage

LOOK_SECONDS = 0.2


def run_leader(settings: Mapping[str, Any]) -> int:
    sabotage.apply_from_environment()
    handlers.note_what_is_told()
    example = vars(leader)
    example["consumer_settings"] = functools.partial(_with, settings["consumer"])
    if settings.get("publishes") == SNUBA:
        example["CommitLogPublisher"] = SnubaPublisher
    return leader.run_leader([*_flags(settings), "--commit-log-topic", settings["commit_log"]])


def run_follower(settings: Mapping[str, Any]) -> int:
    flags = [*_flags(settings), "--auto-offset-reset", settings.get("reset", "earliest")]
    if settings.get("instance_id"):
        flags += ["--group-instance-id", settings["instance_id"]]
    return followers.run(settings, flags, functools.partial(_with, settings["consumer"]))


def _with(more: Mapping[str, Any], options: Any) -> dict[str, Any]:
    return {**runner.consumer_settings(options), **more}


def _flags(settings: Mapping[str, Any]) -> list[str]:
    return [
        *("--bootstrap-servers", settings["bootstrap_servers"], "--topic", settings["topic"]),
        *("--consumer-group", settings["group"], "--handler", f"tests.chaos.handlers:{settings['handler']}"),
        *("--join-timeout", str(settings.get("join_seconds", 3))),
    ]


def _end_with(parent: int) -> None:
    """End when the driver has: nobody else would end us."""
    while os.getppid() == parent:
        time.sleep(LOOK_SECONDS)
    os._exit(1)


ROLES = {"producer": producer.run, "rubbish": rubbish.run}
PIPELINES = {"leader": run_leader, "follower": run_follower, "bare": bare.run}


def main(role: str, settings: Mapping[str, Any]) -> int:
    faulthandler.register(STACKS_SIGNAL)
    faulthandler.enable(handlers.journal.path.with_suffix(".crash").open("w"))  # not its log: its last line says why
    threading.Thread(target=_end_with, args=(os.getppid(),), name="end-with-driver", daemon=True).start()
    handlers.journal.write("begin", settings.get("group", ""), role)
    if role in ROLES:
        return ROLES[role](settings, handlers.journal)
    return PIPELINES[role](settings)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], json.loads(sys.argv[2])))
