"""What every source of remote offsets shares: its life, the trust in its offsets, and what it can tell of itself.

Guarantees
    - Once a thread of the source has ended, for whatever reason, `OffsetSource.check` raises why, and the gate is woken
      to ask. Nothing makes the source alive again.
    - The constructor starts nothing and connects to nothing. `OffsetSource.stop` returns within its timeout, whatever
      the brokers do; the threads are daemons.

Threads
    The *reading* thread (`OffsetSource._read`, a subclass's) brings in what the leaders published. The *checking*
    thread asks the brokers about pending offsets (`Verifier`) and, without a monitor, looks for silent groups. The
    processor's thread alone calls `assign`, `revoke`, `received`, `refresh_known_ends`, `check_topic` and
    `check_cluster`. All else may be called by any thread.

Failures
    A data topic that was deleted and created again makes the manager fail with `TopicRecreated`, one that has lost what
    the follower may have read with `PartitionTruncated`, and an address that leads to another cluster now with
    `AnotherCluster`; so the gate raises it.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from confluent_kafka import KafkaError

from arroyo_sync.core.checks import check_callable, check_groups, check_seconds, check_threads
from arroyo_sync.core.errors import (
    WHAT_WAS_READ_IS_GONE,
    ArroyoSyncError,
    ConfigurationError,
    NotReady,
    SourceDied,
    TopicRecreated,
)
from arroyo_sync.core.log_guard import guarded_logger
from arroyo_sync.core.log_throttle import TOLD_BY_MONITOR, mark_told
from arroyo_sync.core.source import HighWatermarks, LeaderOffset, SourceStatistics
from arroyo_sync.core.state import PartitionKey, SynchronizedPartitionStateManager
from arroyo_sync.kafka.client_settings import check_configuration
from arroyo_sync.kafka.errors import ClientErrors, log_missing_token
from arroyo_sync.kafka.questions.asker import Asker
from arroyo_sync.kafka.questions.end_offsets import LastEndOffsets
from arroyo_sync.kafka.redaction import keep_secrets
from arroyo_sync.leaders.commit_report import CommitReport
from arroyo_sync.leaders.leader_log import RewindLog, SilenceLog
from arroyo_sync.leaders.leader_offsets import LeaderOffsets
from arroyo_sync.leaders.verifier import OnLogEnds, Verifier

logger = guarded_logger(__name__)

SILENCE_SECONDS = 60.0
"""How long after the start a group that has published nothing is warned about."""
PERIODIC_CHECK_SECONDS = 5.0
POLL_SECONDS = 1.0
"""How often the clients that ask are heard at most. The checks may come with every batch of reports."""


class OffsetSource(ABC):
    """The parts of a `RemoteOffsetSource` that don't depend on where the offsets come from.

    :param configuration: librdkafka settings of the cluster that tells what the leaders committed.
    :param groups: the leader groups, of which the slowest counts.
    :param data_configuration: librdkafka settings of the data topic's cluster, if it is another one.
    :param clock: monotonic seconds.
    :raises ConfigurationError: no groups, an empty name, or settings that name no brokers.
    """

    name: str
    """What the source is called in messages and in its threads' names."""

    advice = (
        "The gate stays shut. If the data topic is on another cluster, give the source its settings as "
        "data_configuration"
    )
    """At the end of the line about a data topic that isn't there, where no other cluster was named."""

    def __init__(
        self,
        configuration: Mapping[str, Any],
        groups: Collection[str],
        data_configuration: Mapping[str, Any] | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        keep_secrets()  # before anything can fail with settings in its variables
        check_threads()
        check_groups("groups", groups)
        check_configuration("configuration", configuration)
        if data_configuration is not None:
            check_configuration("data_configuration", data_configuration)
        check_callable("clock", clock, "something to call for monotonic seconds")
        self._configuration = dict(configuration)
        self._data_configuration = dict(configuration if data_configuration is None else data_configuration)
        self._has_data_configuration = data_configuration is not None
        self._clock = clock
        self._offsets = LeaderOffsets(groups)
        # Puts all questions to the data topic's cluster. Any thread may use it; `stop` ends it.
        self._asker = Asker(
            self._data_configuration,
            self._on_data_error,
            advice="" if self._has_data_configuration else self.advice,
            clock=clock,
        )
        self._ends = LastEndOffsets(self._asker)
        self._verifier = Verifier(self._offsets, self._asker, self._ask_log_ends, clock, self._has_monitor)
        self._stopping = threading.Event()
        # Guards what follows, and is notified when any of it changes. Read without it.
        self._changed = threading.Condition()
        self._manager: SynchronizedPartitionStateManager | None = None
        self._threads: list[threading.Thread] = []
        self._error: BaseException | None = None
        self._is_ready = False
        self._ready_since: float | None = None
        # What clients of the data topic's cluster tell. Written by the threads that ask, read by the source's own.
        self._data_errors = ClientErrors(clock)
        self._poll_at = clock()  # the checking thread's
        self._silence_log = SilenceLog(lambda: self.name)  # the checking thread's
        # The reading thread's.
        self._rewinds = 0
        self._rewind_log = RewindLog(clock)
        # The processor's thread's: its own client, and when that may be asked again.
        self._watermarks: HighWatermarks | None = None
        self._cache_at = 0.0

    # The gate's side: the contract of `RemoteOffsetSource`, whose docs hold here.

    @property
    def unverified(self) -> Mapping[PartitionKey, int]:
        return self._offsets.unverified

    def start(self, manager: SynchronizedPartitionStateManager) -> None:
        """Start the threads, at the first call. Never blocks. If one can't start, `check` says so.

        :raises ConfigurationError: it was started for another manager.
        """
        with self._changed:
            if self._manager is not None or self._stopping.is_set():
                if manager is not self._manager and self._manager is not None:
                    raise ConfigurationError(f"{self.name} was started before: make one source for each gate")
                return
            self._manager = manager
            self._offsets.attach(manager)
            try:
                for what, run in (("reader", self._read), ("checks", self._check)):
                    thread = threading.Thread(
                        target=self._run, args=(run,), name=f"arroyo-sync {what}: {self.name}", daemon=True
                    )
                    thread.start()
                    self._threads.append(thread)
                return
            except Exception as error:  # the machine has no more threads, or no more memory
                cause = error
        self._die(cause)

    def check(self) -> None:
        death = self.death()
        if death is not None:
            raise death

    def stop(self, timeout: float) -> None:
        """End the threads, which close their clients. If they don't within ``timeout`` seconds, log and return.

        A client that is just being made, which waits for its token (``oauth_cb``), is waited for some 15 seconds more.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            self._stopping.set()
            self._changed.notify_all()
        self._verifier.stop()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))
        self._asker.stop(max(0.0, deadline - time.monotonic()))
        late = [thread.name for thread in self._threads if thread.is_alive()]
        if late:
            logger.warning("%s did not end within %.1f s: %s. They end with the process", self.name, timeout, late)

    def subscribe(self, topic: str) -> None:
        self._verifier.subscribe(topic)

    def assign(self, positions: Mapping[PartitionKey, int], watermarks: HighWatermarks | None) -> None:
        self._watermarks = watermarks
        cached_ends = {key: watermarks.cached(*key) if watermarks is not None else None for key in positions}
        self._offsets.assign(cached_ends, positions)
        self._asker.forget(positions)  # a question of before they were revoked may have failed since
        self._verifier.assign(positions)
        self._verifier.wake()

    def revoke(self, partitions: Collection[PartitionKey]) -> None:
        self._offsets.revoke(partitions)
        self._verifier.revoke(partitions)
        self._asker.forget(partitions)

    def received(self, topic: str, partition: int, next_offset: int) -> None:
        self._offsets.received((topic, partition), next_offset)

    def check_topic(self, timeout: float) -> None:
        try:
            self._verifier.check_topics(timeout)
        except (TopicRecreated, ConfigurationError) as error:
            self._die(error)

    def check_cluster(self, cluster_id: str) -> None:
        self._verifier.expect_cluster(cluster_id)

    def refresh_known_ends(self) -> None:
        """Take the ends that the follower's own client knows of all it fetched: on the processor's thread alone.

        It spends at most a hundredth of that thread's time.
        """
        watermarks = self._watermarks
        began = self._clock()
        if watermarks is None or began < self._cache_at:
            return
        self._offsets.cached({key: watermarks.cached(*key) for key in self._offsets.unverified_partitions()})
        ended = self._clock()
        self._cache_at = ended + 100 * (ended - began)

    # For people. All of this but `wait_until_ready` may be called at any time, also by a signal handler.

    def death(self) -> SourceDied | None:
        """What `check` raises, if the source has ended."""
        error = self._error
        if error is not None:
            death = SourceDied(f"{self.name} has ended, nothing more is released: {_reason(error)}")
            death.__cause__ = error
            return death
        if self._stopping.is_set():
            return SourceDied(f"{self.name} was stopped, nothing more is released")
        return None

    @property
    def groups(self) -> Collection[str]:
        """The leader groups."""
        return self._offsets.groups

    def end_offsets(self, partitions: Collection[PartitionKey], timeout: float) -> Mapping[PartitionKey, int]:
        return self._ends.ask(partitions, timeout)

    @property
    def ready(self) -> bool:
        """Whether all that was published before the start is known. May become false again: see the subclass."""
        return self._is_ready

    def wait_until_ready(self, timeout: float) -> None:
        """Block until `ready`, for at most ``timeout`` seconds.

        :raises NotReady: it wasn't in time; the message names what is missing.
        :raises SourceDied: it has ended, from its cause.
        """
        check_seconds("timeout", timeout, may_be_zero=True)
        with self._changed:
            self._changed.wait_for(lambda: self._is_ready or self._error or self._stopping.is_set(), timeout)
        self.check()
        if not self._is_ready:
            what = self._missing() if self._threads else "it was never started"
            raise NotReady(f"{self.name} wasn't ready after {timeout:g} s: {what}")

    @property
    def _is_alive(self) -> bool:
        return bool(self._threads) and not self._stopping.is_set()

    @abstractmethod
    def statistics(self) -> SourceStatistics:
        """A snapshot of what it has done. Never blocks for long."""

    def published(
        self, partitions: Collection[PartitionKey] | None = None
    ) -> dict[PartitionKey, dict[str, LeaderOffset]]:
        """What every leader group published last in every partition, or in these, trusted or not. A snapshot."""
        return self._offsets.published(partitions)

    def rejected(self) -> Collection[PartitionKey]:
        """The assigned partitions of which a leader published what can't be, or may be of an earlier topic."""
        return self._offsets.rejected()

    # The subclass's side.

    @abstractmethod
    def _read(self) -> None:
        """Bring in what the leaders publish, until ``_stopping`` is set. What it raises ends the source."""

    @abstractmethod
    def _missing(self) -> str:
        """What must still happen before it is ready."""

    def _ask_log_ends(self, timeout: float, on_log_ends: OnLogEnds) -> None:
        """Where the log of commit reports ends, if there is one; see `Verifier`."""
        on_log_ends({})

    def _set_ready(self, is_ready: bool) -> None:
        """Open or shut the gate. Opening comes after everything was applied, shutting before anything is forgotten."""
        if is_ready:
            self._offsets.enable()
        with self._changed:
            self._is_ready = is_ready
            self._ready_since = self._clock() if is_ready else None
            self._changed.notify_all()
        if not is_ready:
            self._offsets.disable()
        self._verifier.wake()

    def _apply(self, reports: Sequence[CommitReport], is_current: Callable[[CommitReport], bool] | None = None) -> None:
        """Take in what the groups published, log rewinds, and see that what is pending is checked."""
        epoch = self._offsets.epoch
        rewinds = self._offsets.apply(reports, self._clock(), is_current)
        if rewinds:
            self._rewinds += len(rewinds)
            self._rewind_log.add(rewinds)
        is_new = self._offsets.epoch != epoch  # a report of an assigned partition was among them
        if is_new and self._is_ready and self._offsets.unverified and self._manager is not None:
            self._manager.wake()
            self._verifier.wake()

    def _run(self, run: Callable[[], None]) -> None:
        try:
            run()
            if not self._stopping.is_set():
                raise RuntimeError(f"a thread of {self.name} returned though nothing stopped it")
        except BaseException as error:
            self._die(error)

    def _die(self, error: BaseException) -> None:
        with self._changed:
            is_first = self._error is None and not self._stopping.is_set()
            if is_first:
                self._error = error
                self._is_ready = False
                self._stopping.set()
                self._changed.notify_all()
        assert self._manager is not None
        is_told = is_first and self._has_monitor()
        if isinstance(error, WHAT_WAS_READ_IS_GONE):
            if is_told:
                mark_told(error)
            # Before anything else is released, and whatever it had died of before: the gate raises it, and the flow
            # control commits nothing more.
            self._manager.fail(error)
            self._offsets.disable()
        if not is_first:
            logger.debug("%s: %s while it ended", self.name, error)
            return
        is_expected = isinstance(error, ArroyoSyncError)
        logger.error(
            "%s has ended, nothing more is released: %s",
            self.name,
            _reason(error),
            exc_info=None if is_expected else error,
            extra={TOLD_BY_MONITOR: True} if is_told else None,
        )
        self._verifier.stop()
        self._manager.wake()

    def _has_monitor(self) -> bool:
        return self._manager is not None and self._manager.has_monitor

    def _check(self) -> None:
        self._verifier.run(self._periodic_checks)

    def _on_data_error(self, error: KafkaError) -> None:
        """Told by a client of the data topic's cluster. What isn't told here comes out of the question it spoiled."""
        self._data_errors.add(error)
        log_missing_token(error)

    def _periodic_checks(self) -> float:
        """Called by the checking thread, now and then and when something changed.

        :returns: in how many seconds it wants to be called again at the latest.
        """
        now = self._clock()
        if now >= self._poll_at:
            self._poll_at = now + POLL_SECONDS
            self._asker.poll()  # whether anything is asked or not
        self._data_errors.raise_fatal()
        self._rewind_log.log_due()
        self._warn_of_silence()
        return PERIODIC_CHECK_SECONDS

    def _warn_of_silence(self) -> None:
        if self._has_monitor():
            return  # it knows, too, for how long messages have been waiting for the group
        ready_since = self._ready_since
        if ready_since is None or self._clock() - ready_since < SILENCE_SECONDS:
            return
        for group in self._offsets.groups:
            silent = self._offsets.partitions_unknown(group) if group in self._offsets.reported else None
            self._silence_log.update(group, silent, self._seen, self._offsets.assigned)

    def _seen(self) -> str:
        """Who does publish, to follow "has published nothing at all"."""
        return ""


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__  # a MemoryError says nothing
