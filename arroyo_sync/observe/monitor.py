"""Watches a follower: reports metrics, finds what stands still, and tells of what needs a person.

Guarantees
    - Nothing of this runs on the processor's or the source's thread, and none of them waits for it. It has no Kafka
      client: the source asks the brokers for it.
    - A check costs two microseconds or so for each assigned partition, which it walks by their offsets alone, and more
      for those that have waited for long, and for those whose metrics are sent, of which it takes a snapshot: at most
      `JUDGED_AT_ONCE` and `SENT_AT_ONCE`. It takes one of all when something is to be told, and if the source can't
      tell of some partitions alone.
    - That a partition waits no more is known at the next check; that its wait has become a stall, when it has its turn.
    - Whatever a check raises (a metrics backend, the user's ``on_stall``) is logged, at most once a minute, and the
      next check takes place all the same.
    - While the process is frozen (SIGSTOP, a paused container) no wait becomes older, nor a replay: nothing can move
      then. A freeze is known by a check that comes late, and which isn't the second in a row.
    - When it is stopped it checks a last time, so that what ended the follower is reported. `Monitor.stop` waits for
      that no longer than it is told. A check that isn't done by then reports nothing of what it sees later: the source
      is stopped meanwhile, which looks like its death.

Threads
    One daemon thread, begun by `Monitor.start`, makes all checks: once in ``interval`` seconds, and the last one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import islice
from typing import Literal

from arroyo_sync.core.errors import FollowerStalled
from arroyo_sync.core.log_guard import guarded_logger
from arroyo_sync.core.log_throttle import LOG_INTERVAL_SECONDS, LogThrottle
from arroyo_sync.core.source import ENDS_AT_ONCE
from arroyo_sync.core.state import PartitionKey
from arroyo_sync.observe.evaluation import evaluate
from arroyo_sync.observe.metrics_reporter import GateCounts, MetricsReporter
from arroyo_sync.observe.problems import Problem, ProblemReporter, find_problems
from arroyo_sync.observe.snapshot import Snapshot
from arroyo_sync.observe.stalls import Stall, WaitsFor
from arroyo_sync.observe.verdict import Grade, Verdict, worst_first
from arroyo_sync.observe.waits import NO_WAITS, WAITING_AFTER_SECONDS, Limits, Survey, Waits, follow_waits, later

logger = guarded_logger(__name__)

ASK_TIMEOUT_SECONDS = 0.5
"""How long a check may wait for the brokers. What a slow one answers later is there at the next check."""

SENT_AT_ONCE = 250
"""Of so many partitions a check sends the metrics; more take turns."""

JUDGED_AT_ONCE = 100
"""Of the partitions that have waited for long, a check judges so many: some 40 us of the interpreter for each. More
take turns, and keep the verdict of their last one meanwhile."""

UNMOVED_SKIPS = 3
"""While no partition's end moves, up to so many looks in a row do without asking for them anew."""

LATE_SECONDS = 5.0
LATE_INTERVALS = 3
"""A check that comes so many seconds and intervals after the last one is late: a busy machine makes it less so."""

Ends = Mapping[PartitionKey, int]
OnStall = Callable[[Stall], object] | Literal["raise"] | None
"""What to do about a partition that stands still, besides telling of it."""


class Monitor:
    """See the module's docstring.

    :param observe: takes a snapshot, given where the partitions end, of these partitions; ``None``: of all.
    :param survey: walks all partitions, likewise. ``None``: the source can't tell of some partitions alone.
    :param ask_ends: asks where partitions end, for so many seconds at most: a source's ``end_offsets``.
    :param gate_counts: what the gate has counted.
    :param end: sees that the processor ends with an error.
    :param tell: called for each problem that is due to be told, besides the log line: Sentry's events.
    :param stalled_after: seconds without progress, while messages wait, that make a stall.
    :param on_stall: called for each partition that begins to stand still, once in a wait, though it be taken away and
        come back meanwhile; on the monitor's thread. Or "raise", and the processor ends with `FollowerStalled`.
    :param interval: seconds between two checks; ``None``: there are none.
    :param clock: monotonic seconds.
    """

    def __init__(
        self,
        observe: Callable[[Ends, Collection[PartitionKey] | None], Snapshot],
        *,
        survey: Callable[[Ends], Survey] | None = None,
        ask_ends: Callable[[Collection[PartitionKey], float], Ends] | None,
        gate_counts: Callable[[], GateCounts],
        end: Callable[[Exception], None],
        tell: Callable[[Problem, Snapshot], None],
        stalled_after: float,
        on_stall: OnStall = None,
        interval: float | None = 1.0,
        clock: Callable[[], float] = time.monotonic,
        reporter: MetricsReporter | None = None,
    ) -> None:
        self._observe = observe
        self._survey = survey
        self._ask_ends = ask_ends
        self._gate_counts = gate_counts
        self._end = end
        self._on_stall = on_stall
        self._interval = interval
        self._clock = clock
        self._reporter = reporter or MetricsReporter()
        self._limits = Limits(stalled_after, min(WAITING_AFTER_SECONDS, stalled_after))
        self._problem_reporter = ProblemReporter(tell, clock)
        self._throttle = LogThrottle(LOG_INTERVAL_SECONDS, clock)
        # From here on: written by `_check`, on the monitor's thread.
        self._waits: Waits = NO_WAITS
        self._checked_at: float | None = None
        self._was_late = False
        self._is_ready = False
        self._ready_changed_at: float | None = None
        self.stalls: tuple[Stall, ...] = ()
        """What stood still at the last check, longest first. Replaced whole; any thread may read it."""
        # The partitions with a stall that was acted on, as long as the same wait goes on.
        self._acted_on: set[PartitionKey] = set()
        self._keys: Collection[PartitionKey] = ()
        self._turn = 0
        # Of the partitions that have waited for long, the last verdicts, the oldest first.
        self._judged: dict[PartitionKey, Verdict] = {}
        self.ends: Ends = {}
        """Where the partitions end, as of the last check. Replaced whole by the monitor's thread; any may read it."""
        # How many looks go without asking for the ends, and how many still do.
        self._skips = self._skips_left = 0
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        # Nothing is reported any more. Set by whoever calls `stop`, before the source is stopped; read by the thread.
        self._is_over = False

    def start(self) -> None:
        """Begin to check. Called again, it does nothing. Called by the processor's thread alone."""
        if self._thread is None and self._interval is not None:
            thread = threading.Thread(target=self._run, name="arroyo-sync monitor", daemon=True)
            thread.start()
            self._thread = thread

    def stop(self, timeout: float) -> None:
        """See that the thread checks a last time and ends. Blocks for ``timeout`` seconds at most.

        If it hasn't ended by then it ends when what it waits for comes back, or with the process; it reports nothing of
        what it sees from now on.
        """
        if self._thread is None or self._stopping.is_set():
            return
        self._stopping.set()
        try:
            self._thread.join(timeout)
            if timeout and self._thread.is_alive():
                logger.warning(
                    "The monitor's last check wasn't done within %.1f s (stop_timeout): a metrics backend, on_stall or "
                    "Sentry's SDK hangs. The follower ends without it",
                    timeout,
                )
        finally:
            self._is_over = True
            self._reporter.end()

    def verdicts(self) -> list[Verdict]:
        """How each partition stands now, the worst first. How long it has waited is known as of the last check.

        Any thread may call it.
        """
        now = self._clock()
        frozen_seconds = self._frozen_seconds(now)  # before the waits are read, which the next check moves
        return evaluate(self._observe(self.ends, None), later(self._waits, frozen_seconds), now, self._limits)[0]

    def check_once(self) -> None:
        """Look once. Never raises. One call at a time; what it calls may call the follower back, no lock is held."""
        self._check_but_for(Exception)

    def _run(self) -> None:
        while not self._stopping.wait(self._interval):
            self.refresh_ends()
            self._check_but_for(BaseException)  # somebody's SystemExit would end nothing but this thread
        self._check_but_for(BaseException)

    def _check_but_for(self, errors: type[BaseException]) -> None:
        """Look once. These errors are logged."""
        try:
            self._check()
        except errors:
            if self._throttle.should_log("check"):
                logger.exception("The monitor's check failed; it goes on")

    def refresh_ends(self) -> None:
        """Ask where the partitions of the last check end, every fourth time while none moves.

        Blocks, for half a second at most. Never raises.
        """
        if self._ask_ends is None:
            return
        # Of more of them the source asks about some at a time, in turns: then no look does without.
        is_known = len(self._keys) <= ENDS_AT_ONCE and self.ends.keys() == set(self._keys)
        if is_known and self._skips_left:
            self._skips_left -= 1
            return
        try:
            ends = self._ask_ends(self._keys, ASK_TIMEOUT_SECONDS) if self._keys else {}
            is_unmoved = is_known and ends == self.ends
            self._skips = self._skips_left = min(self._skips + 1, UNMOVED_SKIPS) if is_unmoved else 0
            self.ends = ends
        except Exception:
            if self._throttle.should_log("ends"):
                logger.exception("Can't ask where the partitions end; the monitor goes on without")

    def _check(self) -> None:
        now = self._clock()
        self._leave_out_freeze(now)
        is_wanted = self._reporter.is_wanted
        waits = self._waits
        if self._survey is None:
            snapshot = whole = self._observe(self.ends, None)
            self._keys = tuple(partition.key for partition in snapshot.partitions)
        else:
            survey = self._survey(self.ends)
            self._keys = survey.assigned
            waits, long = follow_waits(survey, waits, now, self._limits)
            sent = self._next_sent() if is_wanted else ()
            # With one in any case, which shows the groups that have never reported.
            shown = self._next_judged(long).union(survey.rejected, sent, survey.assigned[:1])
            snapshot, whole = self._observe(self.ends, shown), None
        if self._is_over:
            return
        verdicts, self._waits = evaluate(snapshot, waits, now, self._limits)
        if whole is None:
            verdicts = self._with_earlier(verdicts, long)
        replaying, ready = self._readiness(snapshot, now)
        problems = find_problems(snapshot, verdicts, self._limits, replaying_seconds=replaying, ready_seconds=ready)
        self._problem_reporter.update(
            problems,
            lambda: whole or self._observe(self.ends, None),
            ready if snapshot.source_error is None else 0.0,
        )
        self._act_on([verdict.stall for verdict in verdicts if verdict.grade is Grade.STALLED], now)
        if is_wanted:
            self._reporter.report(
                snapshot,
                stalled=_count([each for each in verdicts if each.grade is Grade.STALLED]),
                waiting=_count([each for each in verdicts if self._waits_long(each)]),
                gate=self._gate_counts(),
                assigned=self._keys,
            )

    def _leave_out_freeze(self, now: float) -> None:
        """See that the time since the last check doesn't count, if the process was frozen in it."""
        frozen_seconds = self._frozen_seconds(now)
        if frozen_seconds:
            self._waits = later(self._waits, frozen_seconds)
            if self._ready_changed_at is not None:
                self._ready_changed_at += frozen_seconds
        self._was_late, self._checked_at = self._is_late(now), now

    def _frozen_seconds(self, now: float) -> float:
        """Twice in a row it is the check that is slow, as with a metrics backend that hangs: that time counts."""
        if self._checked_at is None or self._was_late or not self._is_late(now):
            return 0.0
        return now - self._checked_at

    def _is_late(self, now: float) -> bool:
        if self._checked_at is None or self._interval is None:
            return False
        return now - self._checked_at > LATE_SECONDS + LATE_INTERVALS * self._interval

    def _next_sent(self) -> Iterable[PartitionKey]:
        """The assigned partitions whose metrics have their turn."""
        begin = self._turn if self._turn < len(self._keys) else 0
        self._turn = begin + SENT_AT_ONCE
        return islice(self._keys, begin, self._turn)

    def _next_judged(self, long: set[PartitionKey]) -> set[PartitionKey]:
        """Those of the partitions that have waited for long whose turn it is: first those without a verdict."""
        if len(long) <= JUDGED_AT_ONCE:
            return long
        due = set(islice((key for key in long if key not in self._judged), JUDGED_AT_ONCE))
        return due.union(islice((key for key in self._judged if key in long), JUDGED_AT_ONCE - len(due)))

    def _with_earlier(self, verdicts: Sequence[Verdict], long: Collection[PartitionKey]) -> list[Verdict]:
        """These verdicts, and the last ones of the partitions that wait for their turn."""
        latest = {verdict.key: verdict for verdict in verdicts}
        earlier = {key: verdict for key, verdict in self._judged.items() if key in long and key not in latest}
        self._judged = {**earlier, **{key: verdict for key, verdict in latest.items() if key in long}}
        return worst_first([*earlier.values(), *verdicts]) if earlier else list(verdicts)

    def _waits_on(self, key: PartitionKey, now: float) -> bool:
        """Whether the wait that was a stall goes on. It does while the partition is away, for as long as it is kept."""
        wait = self._waits.get(key)
        return wait is not None and now - wait.since >= self._limits.stalled_after

    def _waits_long(self, verdict: Verdict) -> bool:
        """Whether it waits for long enough to be counted; also for a group of which it isn't known if it is right."""
        is_long = (verdict.waiting_seconds or 0.0) >= self._limits.waiting_after
        return verdict.grade is Grade.WAITING or (verdict.grade is Grade.UNKNOWN and is_long)

    def _readiness(self, snapshot: Snapshot, now: float) -> tuple[float, float]:
        """For how many seconds the source hasn't been ready, and has been: one of them is 0."""
        is_ready = snapshot.source is None or snapshot.source.ready
        if self._ready_changed_at is None or is_ready != self._is_ready:
            self._is_ready, self._ready_changed_at = is_ready, now
        seconds = now - self._ready_changed_at
        return (0.0, seconds) if is_ready else (seconds, 0.0)

    def _act_on(self, stalls: list[Stall], now: float) -> None:
        self.stalls = tuple(stalls)
        if self._on_stall is None:
            return
        before = {key for key in self._acted_on if self._waits_on(key, now)}
        self._acted_on = before.union((stall.topic, stall.partition) for stall in stalls)
        for stall in stalls:
            if (stall.topic, stall.partition) in before:
                continue
            if self._on_stall == "raise":
                self._end(FollowerStalled(stall))
                return
            try:
                self._on_stall(stall)
            except (Exception, SystemExit):  # which would end nothing but this thread
                if self._throttle.should_log("on_stall"):
                    logger.exception("on_stall raised; the follower goes on")


def _count(verdicts: Sequence[Verdict]) -> tuple[int, int]:
    """How many are because of a leader, and because of the follower."""
    for_leader = sum(verdict.waits_for is WaitsFor.LEADER for verdict in verdicts)
    return for_leader, len(verdicts) - for_leader
