"""Watches a follower: reports metrics, finds what stands still, and tells of what needs a person.

Guarantees
    - Nothing of this runs on the processor's or the source's thread, and none of them waits for it.
    - Whatever a look raises (a metrics backend, the user's ``on_stall``) is logged, at most once a minute, and the next
      look takes place all the same.
    - `Monitor.stop` takes a last look, so that what ended the follower is told.

Threads
    One daemon thread, begun by `Monitor.start`, looks once in ``interval`` seconds; the last look, in `Monitor.stop`,
    is on the caller's.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import Literal

from arroyo_sync.errors import FollowerStalled
from arroyo_sync.metrics_reporter import GateCounts, MetricsReporter
from arroyo_sync.observe import NO_ENDS
from arroyo_sync.problems import Bulletin, find_problems
from arroyo_sync.rate_limit import OncePer
from arroyo_sync.sentry import capture_problem, keep_secrets
from arroyo_sync.snapshot import Snapshot
from arroyo_sync.stalls import Stall, StallWatch, WaitsFor
from arroyo_sync.state import PartitionKey

logger = logging.getLogger(__name__)

SILENCE_SECONDS = 60.0
"""How long messages wait for a group that has published nothing before somebody is told."""

ASK_SECONDS = 10.0
"""How often the broker is asked where full partitions end: they are paused, so the client doesn't learn it itself."""
ASK_TIMEOUT_SECONDS = 2.0
LOG_INTERVAL_SECONDS = 60.0

OnStall = Callable[[Stall], object] | Literal["raise"] | None
"""What to do about a partition that stands still, besides telling of it."""


class Monitor:
    """See the module's docstring.

    :param observe: takes a snapshot, given where those partitions end that the client isn't fetching.
    :param ask_ends: asks the broker where partitions end, for at most so many seconds.
    :param gate_counts: what the gate has counted.
    :param end: sees that the processor ends with an error.
    :param stalled_after: seconds without progress, while messages wait, that make a stall.
    :param on_stall: called once for each partition that begins to stand still, on the monitor's thread; or "raise", and
        the processor ends with `FollowerStalled`.
    :param interval: seconds between two looks; ``None``: none are taken.
    :param clock: monotonic seconds.
    """

    def __init__(
        self,
        observe: Callable[[Mapping[PartitionKey, int]], Snapshot],
        *,
        ask_ends: Callable[[Collection[PartitionKey], float], Mapping[PartitionKey, int]],
        gate_counts: Callable[[], GateCounts],
        end: Callable[[Exception], None],
        stalled_after: float,
        on_stall: OnStall = None,
        interval: float | None = 1.0,
        clock: Callable[[], float] = time.monotonic,
        reporter: MetricsReporter | None = None,
    ) -> None:
        self._observe = observe
        self._ask_ends = ask_ends
        self._gate_counts = gate_counts
        self._end = end
        self._on_stall = on_stall
        self._interval = interval
        self._clock = clock
        self._reporter = reporter or MetricsReporter()
        self._stalls = StallWatch(stalled_after)
        self._silences = StallWatch(min(SILENCE_SECONDS, stalled_after))
        self._bulletin = Bulletin(capture_problem, clock)
        self._once = OncePer(LOG_INTERVAL_SECONDS, clock)
        # Only one look at a time; guards what is below.
        self._looking = threading.Lock()
        self._stalled: set[PartitionKey] = set()
        self._ends: Mapping[PartitionKey, int] = NO_ENDS
        self._ask_at = clock()
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()

    def start(self) -> None:
        """Begin to look. Called again, it does nothing. Called by the processor's thread alone."""
        if self._thread is None and self._interval is not None:
            keep_secrets()
            self._thread = threading.Thread(target=self._run, name="arroyo-sync monitor", daemon=True)
            self._thread.start()

    def stop(self, timeout: float) -> None:
        """Take a last look and end the thread, within ``timeout`` seconds unless the last look blocks."""
        if self._thread is None or self._stopping.is_set():
            return
        self._stopping.set()
        self._thread.join(timeout)
        if not self._thread.is_alive():
            self.look()

    def look(self) -> None:
        """Look once. Never raises."""
        with self._looking:
            try:
                self._look()
            except Exception:
                if self._once.is_due("look"):
                    logger.exception("The monitor's look failed; it goes on")

    def _run(self) -> None:
        while not self._stopping.wait(self._interval):
            self.look()

    def _look(self) -> None:
        now = self._clock()
        snapshot = self._observe(self._ends)
        self._ask_full_ends(snapshot, now)
        stalls = self._stalls.look(snapshot.partitions, now)
        silences = self._silences.look(snapshot.partitions, now)
        self._bulletin.update(find_problems(snapshot, stalls, silences), snapshot)
        self._act_on(stalls)
        if self._reporter.is_wanted:
            for_leader = sum(stall.waits_for is WaitsFor.LEADER for stall in stalls)
            self._reporter.report(snapshot, stalled=(for_leader, len(stalls) - for_leader), gate=self._gate_counts())

    def _ask_full_ends(self, snapshot: Snapshot, now: float) -> None:
        full = [partition.key for partition in snapshot.partitions if partition.is_full]
        if not full or self._stopping.is_set():
            self._ends = NO_ENDS
        elif now >= self._ask_at:
            self._ask_at = now + ASK_SECONDS
            self._ends = self._ask_ends(full, ASK_TIMEOUT_SECONDS)
        else:
            self._ends = {key: self._ends[key] for key in full if key in self._ends}

    def _act_on(self, stalls: list[Stall]) -> None:
        begun = [stall for stall in stalls if (stall.topic, stall.partition) not in self._stalled]
        self._stalled = {(stall.topic, stall.partition) for stall in stalls}
        if self._on_stall is None:
            return
        for stall in begun:
            if self._on_stall == "raise":
                self._end(FollowerStalled(stall))
                return
            try:
                self._on_stall(stall)
            except Exception:
                if self._once.is_due("on_stall"):
                    logger.exception("on_stall raised; the follower goes on")
