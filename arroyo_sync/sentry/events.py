"""Sentry events for what needs a person.

All of it does nothing while the SDK isn't initialised.

Threads: any thread may call anything.
"""

from __future__ import annotations

from typing import Any

import sentry_sdk
from sentry_sdk.scope import add_global_event_processor, global_event_processors
from sentry_sdk.types import Event, Hint

from arroyo_sync.core.checks import check_instance
from arroyo_sync.core.errors import FollowerStalled, SourceDied
from arroyo_sync.core.log_throttle import TOLD_BY_MONITOR
from arroyo_sync.observe.problems import Problem
from arroyo_sync.observe.snapshot import Snapshot

SHOWN_PARTITIONS = 10
"""How many partitions an event's context shows."""


def capture_problem(problem: Problem, snapshot: Snapshot) -> None:
    """Send an event that says what is wrong, where and for whom, and how everything stood at that moment.

    Events of one cause are one issue in Sentry: the fingerprint holds the kind, the topic and the group.
    """
    check_instance("problem", problem, Problem)
    check_instance("snapshot", snapshot, Snapshot)
    if not sentry_sdk.is_initialized():
        return
    tags = {
        "topic": problem.topic,
        "partition": str(problem.partitions[0]) if problem.partitions else None,
        "group": problem.group,
    }
    event: Event = {
        "level": "error",
        "logger": "arroyo_sync",
        "message": str(problem),
        "fingerprint": ["arroyo_sync", problem.kind.value, problem.topic or "", problem.group or ""],
        "tags": {
            "arroyo_sync": problem.kind.value,
            **{name: value for name, value in tags.items() if value is not None},
        },
        "contexts": {"arroyo_sync": _context(problem, snapshot)},
    }
    sentry_sdk.capture_event(event)


def tell_ends_once() -> None:
    """See that the end of a follower (its source died, or ``on_stall="raise"``) is one event: `capture_problem`'s.

    The SDK would make three of it: of our error in the log, of the exception that Arroyo logs, and of ours. Called by a
    factory with a monitor, which sends that event; called again, it does nothing.
    """
    if _drop_repeated_ends not in global_event_processors:
        add_global_event_processor(_drop_repeated_ends)


def _drop_repeated_ends(event: Event, hint: Hint) -> Event | None:
    record = hint.get("log_record")
    exc_info = hint.get("exc_info")
    errors: list[object] = [] if exc_info is None else [exc_info[1]]
    if record is not None:
        errors += record.args if isinstance(record.args, tuple) else []
        if getattr(record, TOLD_BY_MONITOR, False):
            return None
    return None if any(isinstance(error, (SourceDied, FollowerStalled)) for error in errors) else event


def _context(problem: Problem, snapshot: Snapshot) -> dict[str, Any]:
    told = snapshot.to_json()
    concerned = [
        each for each in told["partitions"] if not problem.partitions or each["partition"] in problem.partitions
    ]
    return {
        "taken_at": told["taken_at"],
        "partitions_assigned": len(snapshot.partitions),
        "partitions_concerned": len(concerned),
        "partitions": {f"{each['topic']}[{each['partition']}]": each for each in concerned[:SHOWN_PARTITIONS]},
        "source": told["source"],
        "source_error": told["source_error"],
    }
