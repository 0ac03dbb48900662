"""What needs a person: which problems there are, and when to tell of them.

`find_problems` is pure. `ProblemReporter` tells of each problem when it begins, again every `REMINDER_SECONDS`, and
once when it is over, at the level at which it began. One that comes back is told again, after `RETURN_SECONDS` at the
earliest: "over" may not be the last word of it. One problem is one cause: a leader group that stands still in fifty
partitions is one. While nothing at all is assigned, as in a rebalance, nothing is over for as long.

While the source replays, or once it has died, nobody knows whether what was told before is over, and nothing more is
said of it. After a replay that is decided once it would have been found again.

Threads: none; the monitor's thread calls it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from arroyo_sync.core.log_guard import guarded_logger
from arroyo_sync.core.log_throttle import LogThrottle
from arroyo_sync.core.source import BEYOND_END, EARLIER_TOPIC, SourceStatistics
from arroyo_sync.observe.evaluation import groups_without_report, rejected_advice
from arroyo_sync.observe.snapshot import LeaderSnapshot, PartitionSnapshot, Snapshot
from arroyo_sync.observe.stalls import WaitsFor
from arroyo_sync.observe.verdict import Grade, Verdict
from arroyo_sync.observe.waits import Limits

logger = guarded_logger(__name__)

REMINDER_SECONDS = 900.0
"""From one event or line about a problem that lasts to the next."""

RETURN_SECONDS = 60.0
"""From one line to the next about a problem that was told to be over in between. Events keep to the longer limit. And
for how long nothing has to be assigned until a problem's partitions are said to be elsewhere."""

SILENCE_SECONDS = 60.0
"""How long after the replay a group that has published nothing is told of, though no message waits for it."""

SHOWN = 10


class ProblemKind(Enum):
    """What is wrong. The values are part of the fingerprints of Sentry events."""

    SOURCE_DIED = "source-died"
    IMPOSSIBLE_OFFSET = "impossible-offset"
    NEVER_REPORTED = "never-reported"
    """A group has published nothing of the topic, and messages wait for it."""
    SILENT = "silent"
    """A group has published nothing of the topic, but no message waits for it: a log line, and no event. It may have
    nothing to do yet."""
    STALL = "stall"
    WAITING = "waiting"
    """Not yet a stall: a log line, and no event."""
    LONG_REPLAY = "long-replay"
    """The source isn't ready for as long as would make a stall: a log line, and no event, since nobody is to blame."""
    CUT_OFF = "cut-off"
    """Nothing has been heard of part of the commit log for as long as would make a stall."""


ONLY_LOGGED = frozenset({ProblemKind.WAITING, ProblemKind.SILENT, ProblemKind.LONG_REPLAY})
"""They make no event, and another problem of the same cause takes their place."""

WHAT_TO_DO = {
    WaitsFor.LEADER: "Is a member of that group stopped or hung? To restart this follower heals nothing",
    WaitsFor.FOLLOWER: "Look at the follower's own steps behind the gate: one of them is slow, rejects, or hangs",
}
UNCONFIRMED_ADVICE = (
    "The brokers have yet to confirm what the leaders published: other lines tell if they don't answer, or which "
    "report is doubted. Until then nobody can be called slow"
)
LEADERS_ADVICE = "Is a leader stopped or hung? To restart this follower heals nothing"
NEVER_REPORTED_ADVICE = "Is the group's name right, and does it publish? Once it does, this follower goes on by itself"
CUT_OFF_ADVICE = (
    "If its brokers are up, it is this follower that doesn't reach them: look at its network and its certificates, and "
    "start it again, which makes new clients"
)
REPLAY_ADVICE = "If that number doesn't fall, look at the brokers of the commit log"
DIED_ADVICE = "The follower ends with it; once the cause is mended, start it again"

Cause = tuple[ProblemKind, str | None, str | WaitsFor | None]
"""Kind, topic and `Problem.whose`: what makes a problem the same as before."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One cause, with all partitions that it concerns."""

    kind: ProblemKind
    message: str
    """What is wrong."""
    topic: str | None = None
    partitions: tuple[int, ...] = ()
    """The one that it is worst for comes first."""
    group: str | None = None
    advice: str = ""
    """What to do."""
    waits_for: WaitsFor | None = None
    """Who must move next, if messages wait."""

    def __str__(self) -> str:
        end = "" if self.message.endswith(("?", ".")) else "."
        return f"{self.message}{end} {self.advice}" if self.advice else self.message

    @property
    def cause(self) -> Cause:
        return self.kind, self.topic, self.whose

    @property
    def whose(self) -> str | WaitsFor | None:
        """The group's, if it is one's; else the follower's, or that of leaders of which nobody is known to be slow."""
        return self.waits_for if self.group is None else self.group

    def takes_place_of(self, other: Problem) -> bool:
        """Whether it is what the other one, which was told, has become: then that isn't over."""
        if self.topic != other.topic or other.topic is None:
            return False
        if self.kind is ProblemKind.IMPOSSIBLE_OFFSET:
            # Its group, or none, as long as that report was to be confirmed.
            is_theirs = other.whose in (self.group, WaitsFor.LEADER)
            return is_theirs and not set(self.partitions).isdisjoint(other.partitions)
        return other.kind in ONLY_LOGGED and self.whose == other.whose


def find_problems(
    snapshot: Snapshot,
    verdicts: Sequence[Verdict],
    limits: Limits,
    *,
    replaying_seconds: float = 0.0,
    ready_seconds: float = 0.0,
) -> list[Problem]:
    """The problems that there are now, each cause once.

    :param verdicts: on the snapshot, the worst and longest first.
    :param replaying_seconds: for how long the source hasn't been ready; 0: it is.
    :param ready_seconds: for how long it has been ready.
    """
    if snapshot.source_error is not None:  # all else follows from it
        return [Problem(ProblemKind.SOURCE_DIED, snapshot.source_error, advice=DIED_ADVICE)]
    cut_off = _cut_off(snapshot, limits)
    if replaying_seconds >= limits.stalled_after:
        return [*cut_off, _long_replay(snapshot, replaying_seconds)]
    is_replaying = _is_replaying(snapshot)
    rejected = [] if is_replaying else _rejected(snapshot)
    silent = frozenset() if is_replaying else groups_without_report(snapshot)
    explained = {(problem.topic, problem.group, each) for problem in rejected for each in problem.partitions}
    unheard = _unheard(snapshot, limits)
    by_kind: dict[ProblemKind, list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        if (verdict.topic, verdict.group, verdict.partition) in explained:
            continue
        if verdict.group in silent and (verdict.waiting_seconds or 0.0) >= limits.waiting_after:
            by_kind[ProblemKind.NEVER_REPORTED].append(verdict)
        elif verdict.grade is Grade.STALLED:
            by_kind[ProblemKind.STALL].append(verdict)
        elif verdict.grade is Grade.WAITING:
            by_kind[ProblemKind.WAITING].append(verdict)
    stalls = _by_cause(ProblemKind.STALL, by_kind[ProblemKind.STALL], unheard=unheard)
    stalled = {(problem.topic, problem.whose) for problem in stalls}
    waiting = _by_cause(ProblemKind.WAITING, by_kind[ProblemKind.WAITING], unheard=unheard)
    waited_for = {verdict.group for verdict in by_kind[ProblemKind.NEVER_REPORTED]}
    return [
        *cut_off,
        *rejected,
        *_by_cause(
            ProblemKind.NEVER_REPORTED, by_kind[ProblemKind.NEVER_REPORTED], seen=_seen(snapshot), unheard=unheard
        ),
        *(_silent(snapshot, group) for group in sorted(silent - waited_for) if ready_seconds >= SILENCE_SECONDS),
        *stalls,
        *(problem for problem in waiting if (problem.topic, problem.whose) not in stalled),
    ]


class ProblemReporter:
    """Tells of problems, and that they are over, without repeating itself.

    :param tell: called for each problem that is due and more than a log line, with how everything stands.
    :param clock: monotonic seconds.
    """

    def __init__(self, tell: Callable[[Problem, Snapshot], None], clock: Callable[[], float]) -> None:
        self._tell = tell
        self._clock = clock
        self._events = LogThrottle(REMINDER_SECONDS, clock)
        self._told: dict[Cause, Problem] = {}
        self._told_at: dict[Cause, float] = {}
        self._over_at: dict[tuple[str | None, str | WaitsFor | None], float] = {}  # by topic and `Problem.whose`
        self._undecided: set[Cause] = set()  # told before a replay, and not known since to be over or not
        self._idle_since: float | None = None  # since when nothing is assigned; None: something is, or nobody looked

    def update(
        self, problems: Iterable[Problem], observe: Callable[[], Snapshot], ready_seconds: float = float("inf")
    ) -> None:
        """These are the problems that there are now.

        :param observe: takes a snapshot of everything; called only if something is to be told.
        :param ready_seconds: for how long the source has been ready; 0: it isn't, or it has died.
        """
        active = {problem.cause: problem for problem in problems}
        concerned = {cause[1:] for cause in active}
        has_died = any(problem.kind is ProblemKind.SOURCE_DIED for problem in active.values())
        now = self._clock()
        due = {cause for cause in active if self._is_due(cause, now)}
        self._decide(active, concerned, ready_seconds)
        if not due and self._told.keys() <= active.keys() | self._undecided:
            self._told = {cause: active.get(cause, problem) for cause, problem in self._told.items()}  # as they are now
            self._idle_since = None
            return
        snapshot = observe()
        assigned = {partition.partition for partition in snapshot.partitions}
        self._idle_since = None if assigned else now if self._idle_since is None else self._idle_since
        may_come_back = self._idle_since is not None and now - self._idle_since < RETURN_SECONDS
        told: dict[Cause, Problem] = {}
        for cause, problem in active.items():
            if cause in due:
                # A warning: Sentry's logging integration makes an event of its own of every error.
                logger.warning("%s", problem)
                if problem.kind not in ONLY_LOGGED and self._events.should_log(cause):
                    self._tell(problem, snapshot)
                told[cause] = problem
                self._told_at[cause] = now
            elif cause in self._told:
                told[cause] = problem  # as it is now
        for cause, problem in self._told.items():
            # With nothing assigned, nobody looks who is silent.
            is_unseen = cause[1] is not None and not assigned and (may_come_back or not problem.partitions)
            if cause in self._undecided or is_unseen:
                told[cause] = problem
            elif cause in active or has_died:
                continue
            elif instead := [each for each in active.values() if each.takes_place_of(problem)]:
                if all(each.whose != problem.whose for each in instead):
                    self._over_at[cause[1:]] = now  # so that it is told again when it is back
            else:
                is_elsewhere = problem.partitions and not assigned.intersection(problem.partitions)
                logger.warning("%s: %s", "No longer assigned here" if is_elsewhere else "Over", problem.message)
                self._over_at[cause[1:]] = now
        self._told = told

    def _decide(self, active: Collection[Cause], concerned: Collection[object], ready_seconds: float) -> None:
        """Which of the told problems aren't known to be over, nor that they go on.

        After a replay a wait begins anew, and a group's silence is told of last: so long it may be either. Later what
        waits for the same group is most likely the same, not yet for long enough.
        """
        if ready_seconds <= 0.0:
            # A long replay is the source's own, and over with it.
            self._undecided.update(cause for cause in self._told if cause[0] is not ProblemKind.LONG_REPLAY)
        self._undecided = {
            cause
            for cause in self._undecided.difference(active)
            if (cause[0] not in ONLY_LOGGED if cause[1:] in concerned else ready_seconds < SILENCE_SECONDS)
        }

    def _is_due(self, cause: Cause, now: float) -> bool:
        told_at = self._told_at.get(cause)
        if told_at is None:
            return True
        # Something of the same topic and group may be over while this goes on.
        is_back = cause not in self._told and self._over_at.get(cause[1:], float("-inf")) >= told_at
        return now - told_at >= (RETURN_SECONDS if is_back else REMINDER_SECONDS)


def _silent(snapshot: Snapshot, group: str) -> Problem:
    topic = snapshot.partitions[0].topic
    message = f"group {group!r} has published nothing of {topic} so far"
    return Problem(ProblemKind.SILENT, message, topic, group=group, advice=_seen(snapshot) + NEVER_REPORTED_ADVICE)


def _seen(snapshot: Snapshot) -> str:
    """Who does publish: a wrong name is seen at once beside the right ones."""
    source = snapshot.source
    if source is None or source.groups_seen is None:
        return ""
    if source.is_foreign:
        return "The commit log holds no commit records: was another topic's name given? "
    if not source.groups_seen:
        return "Nobody has published anything on the commit log. "
    return f"Groups seen on the commit log: {_some([repr(group) for group in sorted(source.groups_seen)])}. "


def _some(names: Sequence[str]) -> str:
    more = len(names) - SHOWN
    return f"{', '.join(names[:SHOWN])}{f' and {more} more' if more > 0 else ''}"


def _cut_off(snapshot: Snapshot, limits: Limits) -> list[Problem]:
    """Who waits for a leader then may wait for a report that is there; and where nothing waits, nobody else tells."""
    source = snapshot.source
    if source is None or source.unheard_seconds < limits.stalled_after:
        return []
    return [Problem(ProblemKind.CUT_OFF, unheard_partitions(source), advice=CUT_OFF_ADVICE)]


def _unheard(snapshot: Snapshot, limits: Limits) -> str:
    """What to say first to whoever waits for a leader, if its reports may not be heard here; else nothing."""
    source = snapshot.source
    if source is None or source.unheard_seconds < limits.waiting_after:
        return ""
    return (
        f"{unheard_partitions(source)}, so the group may have reported: look first at those brokers, and whether this "
        "follower reaches them. Else: "
    )


def unheard_partitions(source: SourceStatistics) -> str:
    """Of which partitions of the commit log nothing is heard, and for how long."""
    which = f"partition{'s' if len(source.unheard) > 1 else ''} {_some([str(each) for each in source.unheard])}"
    because = f" ({source.unheard_because})" if source.unheard_because else ""
    return f"Nothing of {which} of the commit log has been heard for {source.unheard_seconds:.0f} s{because}"


def _by_cause(kind: ProblemKind, verdicts: Sequence[Verdict], *, seen: str = "", unheard: str = "") -> list[Problem]:
    by_cause: dict[tuple[str, str | None, WaitsFor | None], list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        by_cause[verdict.topic, verdict.group, verdict.waits_for].append(verdict)
    return [
        Problem(
            kind,
            f"{of_cause[0].stall}{_and_more(of_cause)}",
            topic,
            tuple(each.partition for each in of_cause),
            group,
            _advice(kind, of_cause[0], seen, unheard),
            waits_for,
        )
        for (topic, group, waits_for), of_cause in by_cause.items()
    ]


def _advice(kind: ProblemKind, worst: Verdict, seen: str, unheard: str) -> str:
    if worst.waits_for is not WaitsFor.LEADER:
        return "" if worst.waits_for is None else worst.reason or WHAT_TO_DO[worst.waits_for]
    if worst.group is None:
        return worst.reason or (UNCONFIRMED_ADVICE if worst.remote_offset is None else LEADERS_ADVICE)
    if kind is ProblemKind.NEVER_REPORTED:
        return unheard + seen + NEVER_REPORTED_ADVICE
    return unheard + (worst.reason or WHAT_TO_DO[WaitsFor.LEADER])


def _is_replaying(snapshot: Snapshot) -> bool:
    """Whether what a group has published last may not have been read yet; what was read may be older than the topic."""
    return snapshot.source is not None and not snapshot.source.ready


def _rejected(snapshot: Snapshot) -> list[Problem]:
    by_cause: dict[tuple[str, str], list[tuple[PartitionSnapshot, LeaderSnapshot]]] = defaultdict(list)
    for partition in snapshot.partitions:
        for leader in partition.leaders:
            if leader.is_rejected:
                by_cause[partition.topic, leader.group].append((partition, leader))
    return [
        Problem(
            ProblemKind.IMPOSSIBLE_OFFSET,
            f"{_impossible_offset(*of_cause[0])}{_and_more(of_cause)}",
            topic,
            tuple(partition.partition for partition, _ in of_cause),
            group,
            rejected_advice(of_cause[0][1].why_rejected),
        )
        for (topic, group), of_cause in by_cause.items()
    ]


def _impossible_offset(partition: PartitionSnapshot, leader: LeaderSnapshot) -> str:
    end = "" if partition.high_watermark is None else f", which ends at {partition.high_watermark}"
    is_certain = leader.why_rejected in (BEYOND_END, EARLIER_TOPIC)
    until = "publishes one that can be" if is_certain else "publishes again, or its commit reaches that far"
    return (
        f"group {leader.group!r} has published offset {leader.published_offset} of "
        f"{partition.topic}[{partition.partition}]{end}: that is {leader.why_rejected}, and the partition stays closed "
        f"until the group {until}"
    )


def _long_replay(snapshot: Snapshot, seconds: float) -> Problem:
    lag = None if snapshot.source is None else snapshot.source.lag
    left = "" if lag is None else f", {lag} records to go"
    message = f"the source has been reading what leaders published before its start for {seconds:.0f} s{left}. "
    message += "Nothing is released before its end"
    return Problem(ProblemKind.LONG_REPLAY, message, advice=REPLAY_ADVICE)


def _and_more(of_cause: Sequence[object]) -> str:
    more = len(of_cause) - 1
    return f" (and {more} more partition{'' if more == 1 else 's'} likewise)" if more else ""
