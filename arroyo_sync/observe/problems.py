"""What needs a person: which problems there are, and when to tell of them.

`find_problems` is pure. `ProblemReporter` tells of each problem when it begins, again at most every
`REMINDER_SECONDS`, and once when it is over. One problem is one cause: a leader group that stands still in fifty
partitions is one.

Threads: none; the monitor's thread calls it.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from arroyo_sync.core.log_throttle import LogThrottle
from arroyo_sync.observe.snapshot import Snapshot
from arroyo_sync.observe.stalls import Stall

logger = logging.getLogger(__name__)

REMINDER_SECONDS = 900.0


class ProblemKind(Enum):
    """What is wrong. The values are part of the fingerprints of Sentry events."""

    SOURCE_DIED = "source-died"
    NEVER_REPORTED = "never-reported"
    IMPOSSIBLE_OFFSET = "impossible-offset"
    STALL = "stall"


Cause = tuple[ProblemKind, str | None, str | None]
"""Kind, topic and group: what makes a problem the same as before."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One cause, with all partitions that it concerns."""

    kind: ProblemKind
    message: str
    topic: str | None = None
    partitions: tuple[int, ...] = ()
    """The one that it is worst for comes first."""
    group: str | None = None

    @property
    def cause(self) -> Cause:
        return self.kind, self.topic, self.group


def find_problems(snapshot: Snapshot, stalls: Sequence[Stall], never_reported: Sequence[Stall]) -> list[Problem]:
    """The problems that there are now, each cause once.

    :param stalls: what stands still, longest first.
    :param never_reported: what has waited for long enough to ask whether a group publishes at all, longest first.
    """
    if snapshot.source_error is not None:
        return [Problem(ProblemKind.SOURCE_DIED, snapshot.source_error)]  # all else follows from it
    silent = [stall for stall in never_reported if _never_reported_yet(stall)]
    return [
        *_impossible(snapshot),
        *_of_stalls(ProblemKind.NEVER_REPORTED, [] if _is_replaying(snapshot) else silent),
        *_of_stalls(ProblemKind.STALL, [stall for stall in stalls if not _never_reported_yet(stall)]),
    ]


class ProblemReporter:
    """Tells of problems, and that they are over, without repeating itself.

    :param tell: called for each problem that is due, besides the log line.
    :param clock: monotonic seconds.
    """

    def __init__(self, tell: Callable[[Problem, Snapshot], None], clock: Callable[[], float]) -> None:
        self._tell = tell
        self._throttle = LogThrottle(REMINDER_SECONDS, clock)
        self._active: dict[Cause, Problem] = {}

    def update(self, problems: Iterable[Problem], snapshot: Snapshot) -> None:
        """These are the problems that there are now."""
        active = {problem.cause: problem for problem in problems}
        for cause, problem in active.items():
            if self._throttle.should_log(cause):
                # A warning: Sentry's logging integration makes an event of its own of every error.
                is_logged = problem.kind is ProblemKind.NEVER_REPORTED and _logs_silence(snapshot)
                if not is_logged:
                    logger.warning("%s", problem.message)
                self._tell(problem, snapshot)
        for cause, problem in self._active.items():
            if cause not in active:
                logger.info("Over: %s", problem.message)
        self._active = active


def _logs_silence(snapshot: Snapshot) -> bool:
    return snapshot.source is not None and snapshot.source.logs_silence


def _is_replaying(snapshot: Snapshot) -> bool:
    """Whether what the groups published before isn't all known yet."""
    return snapshot.source is not None and not snapshot.source.ready


def _never_reported_yet(stall: Stall) -> bool:
    return stall.group is not None and stall.group_offset is None


def _of_stalls(kind: ProblemKind, stalls: Sequence[Stall]) -> list[Problem]:
    by_cause: dict[tuple[str, str | None], list[Stall]] = defaultdict(list)
    for stall in stalls:
        by_cause[stall.topic, stall.group].append(stall)
    return [
        Problem(kind, f"{of_cause[0]}{_and_more(of_cause)}", topic, tuple(stall.partition for stall in of_cause), group)
        for (topic, group), of_cause in by_cause.items()
    ]


def _impossible(snapshot: Snapshot) -> list[Problem]:
    by_cause: dict[tuple[str, str], list[tuple[int, str]]] = defaultdict(list)
    for partition in snapshot.partitions:
        for leader in partition.leaders:
            if leader.is_rejected:
                end = "less" if partition.high_watermark is None else partition.high_watermark
                said = f"group {leader.group!r} has published offset {leader.published_offset} of "
                said += f"{partition.topic}[{partition.partition}], which ends at {end}: it stays shut until the group "
                said += "publishes one that can be. Was the topic deleted and created again?"
                by_cause[partition.topic, leader.group].append((partition.partition, said))
    return [
        Problem(
            ProblemKind.IMPOSSIBLE_OFFSET,
            f"{of_cause[0][1]}{_and_more(of_cause)}",
            topic,
            tuple(partition for partition, _ in of_cause),
            group,
        )
        for (topic, group), of_cause in by_cause.items()
    ]


def _and_more(of_cause: Sequence[object]) -> str:
    return f" (and {len(of_cause) - 1} more partitions likewise)" if len(of_cause) > 1 else ""
