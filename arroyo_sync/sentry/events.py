"""Sentry events for what needs a person.

All of it does nothing while the SDK isn't initialised.

Threads: any thread may call anything.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import sentry_sdk
from sentry_sdk.scope import add_global_event_processor, global_event_processors
from sentry_sdk.types import Event, Hint

from arroyo_sync.core.checks import check_instance
from arroyo_sync.core.errors import SourceDied
from arroyo_sync.core.log_throttle import TOLD_BY_MONITOR
from arroyo_sync.observe.problems import DIED_ADVICE, Problem, ProblemKind
from arroyo_sync.observe.snapshot import Snapshot
from arroyo_sync.observe.stalls import WaitsFor

SHOWN_PARTITIONS = 10
"""How many partitions an event's context shows."""


def capture_problem(problem: Problem, snapshot: Snapshot) -> None:
    """Send an event that says what is wrong, where and for whom, and how everything stood at that moment.

    Events of one cause are one issue in Sentry: the fingerprint holds the kind, the topic and the group,
    or that it is for leaders of which none is known to be slow.
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
        "fingerprint": [
            "arroyo_sync",
            problem.kind.value,
            problem.topic or "",
            problem.group or "",
            *(["unconfirmed"] if problem.whose is WaitsFor.LEADER else []),
        ],
        "tags": {
            "arroyo_sync": problem.kind.value,
            **{name: value for name, value in tags.items() if value is not None},
        },
        "contexts": {"arroyo_sync": _context(problem, snapshot)},
    }
    sentry_sdk.capture_event(event)


class FollowerEvents:
    """The events of a follower with a monitor.

    Threads: the monitor calls `tell`; whoever ends the follower calls `tell_of_death`, after the monitor's last check.
    """

    def __init__(self) -> None:
        self._is_death_told = False

    def tell(self, problem: Problem, snapshot: Snapshot) -> None:
        """See `capture_problem`."""
        capture_problem(problem, snapshot)
        if problem.kind is ProblemKind.SOURCE_DIED:
            self._is_death_told = True

    def tell_of_death(self, death: SourceDied) -> None:
        """Tell of it if the monitor hasn't, since its checks hang or fail; so without how everything stood."""
        if not self._is_death_told:
            problem = Problem(ProblemKind.SOURCE_DIED, str(death), advice=DIED_ADVICE)
            self.tell(problem, Snapshot(time.time(), (), source_error=str(death)))


def tell_ends_once() -> None:
    """See that the end of a follower of which its monitor tells is one event: `capture_problem`'s.

    The SDK would make three of it: of our error in the log, of the exception that Arroyo logs, and of ours. So it makes
    none of a line or an error that is marked as told, see `TOLD_BY_MONITOR`: of no other follower's. Both mostly come
    before the monitor's event, which is sent by the factory's end at the latest.

    Called by a factory with a monitor; called again, it does nothing.
    """
    if _drop_repeated_ends not in global_event_processors:
        add_global_event_processor(_drop_repeated_ends)


def _drop_repeated_ends(event: Event, hint: Hint) -> Event | None:
    record = hint.get("log_record")
    exc_info = hint.get("exc_info")
    about: list[object] = [record] if exc_info is None else [record, exc_info[1]]
    if record is not None and isinstance(record.args, tuple):
        about += record.args
    return None if any(getattr(each, TOLD_BY_MONITOR, False) is True for each in about) else event


def _context(problem: Problem, snapshot: Snapshot) -> dict[str, Any]:
    wanted = frozenset(problem.partitions)
    concerned = [each for each in snapshot.partitions if not wanted or each.partition in wanted]
    told = replace(snapshot, partitions=tuple(concerned[:SHOWN_PARTITIONS])).to_json()  # there may be thousands
    return {
        "taken_at": told["taken_at"],
        "partitions_assigned": len(snapshot.partitions),
        "partitions_concerned": len(concerned),
        "partitions": {f"{each['topic']}[{each['partition']}]": each for each in told["partitions"]},
        "source": told["source"],
        "source_error": told["source_error"],
    }
