"""Builds of the package that break a promise, to show that what judges the promises would notice.

``with sabotaged("off by one"):`` patches the real classes for a while; a follower in a process of its own calls
`apply_from_environment`, which patches them for good with what ``ARROYO_SYNC_SABOTAGE`` names. Patch before the gate is
made: it binds some of its methods.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from arroyo.dlq import InvalidMessage

from arroyo_sync.core.errors import SourceDied
from arroyo_sync.core.state import SynchronizedPartitionStateManager
from arroyo_sync.gate.consumer.pauses import Pauses
from arroyo_sync.gate.consumer.rebalances import Rebalances
from arroyo_sync.gate.drain import Drain
from arroyo_sync.gate.flow_control import FlowControlledConsumer
from arroyo_sync.gate.partition_buffer import PartitionBuffer
from arroyo_sync.gate.partition_buffers import PartitionBuffers
from arroyo_sync.gate.strategy import SynchronizedStrategy
from arroyo_sync.leaders import published_offset as claim
from arroyo_sync.leaders.assigned_partitions import AssignedPartitions, Question
from arroyo_sync.leaders.commit_log.publishing.publish_step import PublishStep
from arroyo_sync.leaders.commit_log.publishing.publisher import CommitLogPublisher
from arroyo_sync.leaders.commit_report import CommitReport
from arroyo_sync.leaders.verification import LOG_END_UNKNOWN, KnownEnd
from tests.support.old_behaviour import OLD_BEHAVIOURS, Patch

VARIABLE = "ARROYO_SYNC_SABOTAGE"


def _off_by_one() -> list[Patch]:
    """Releases the message at the remote offset too."""

    def is_released(line: PartitionBuffer) -> bool:
        remote = line.cell.remote
        return bool(line.held) and remote is not None and line.held[0].offset <= remote

    return [Patch(PartitionBuffer, "is_released", property(is_released))]


def _forgets_a_partition() -> list[Patch]:
    """In a rebalance one of the retained partitions is neither sought back nor resumed."""
    rewind = Rebalances._rewind

    def forgetful(rebalances: Any, retained: Collection[Any]) -> Mapping[Any, int]:
        forgotten = max(retained, key=lambda partition: partition.index, default=None)
        tell = {each: rebalances.tell()[each] for each in retained}
        return {**tell, **rewind(rebalances, [each for each in retained if each != forgotten])}

    return [Patch(Rebalances, "_rewind", forgetful)]


def _does_not_seek_back() -> list[Patch]:
    """When the strategy is rebuilt, reading goes on where the consumer stands: past what the old gate held."""
    rewind = Rebalances._rewind

    def stays(rebalances: Any, retained: Collection[Any]) -> Mapping[Any, int]:
        rebalances.resume_offsets.clear()
        return rewind(rebalances, retained)

    return [Patch(Rebalances, "_rewind", stays)]


def _drops_what_was_not_named() -> list[Patch]:
    """The message whose submit raised InvalidMessage leaves its line, whichever the exception names."""
    forward = Drain._forward_oldest

    def drops(drain: Any, buffer: PartitionBuffer) -> bool:
        submitted = buffer.held[0]
        try:
            return forward(drain, buffer)
        except InvalidMessage as invalid:
            if invalid.offset != submitted.offset or invalid.partition != buffer.partition:
                drain._buffers.remove(buffer, 0)
            raise

    return [Patch(Drain, "_forward_oldest", drops)]


def _polls_by_version_alone() -> list[Patch]:
    """Without a remote offset that moved nothing is forwarded, so what was pending release stays."""
    poll = SynchronizedStrategy.poll

    def by_version(gate: Any) -> None:
        if gate._manager.version != gate.buffers.seen_version:
            poll(gate)
            return
        pending, gate.buffers.released = gate.buffers.released, {}
        try:
            poll(gate)
        finally:
            gate.buffers.released = pending

    return [Patch(SynchronizedStrategy, "poll", by_version)]


def _loses_a_wake_up() -> list[Patch]:
    """What moves while the gate looks counts as seen, and never is."""

    refresh = PartitionBuffers.refresh_remote_offsets

    def looks_too_early(buffers: Any) -> None:
        manager = buffers._manager
        moved = manager.take_moved()
        buffers._source.check()
        meanwhile = manager.take_moved()
        manager._moved |= moved
        refresh(buffers)
        manager._moved |= meanwhile
        buffers.seen_version = manager.version

    return [Patch(PartitionBuffers, "refresh_remote_offsets", looks_too_early)]


def _trusts_a_dead_reader() -> list[Patch]:
    """The gate goes on with the remote offsets that a dead source has left."""
    refresh = PartitionBuffers.refresh_remote_offsets

    def trusting(buffers: Any) -> None:
        check, buffers._source.check = buffers._source.check, lambda: None
        try:
            refresh(buffers)
        finally:
            buffers._source.check = check

    return [Patch(PartitionBuffers, "refresh_remote_offsets", trusting)]


def _takes_the_wrong_record() -> list[Patch]:
    """Of the records of one key in two partitions of the commit log the older one counts."""
    precedence = claim._precedence

    def reverse(report: CommitReport) -> tuple[int, float]:
        timestamp_ms, offset = precedence(report)
        return -timestamp_ms, -offset

    return [Patch(claim, "_precedence", reverse)]


def _stays_paused() -> list[Patch]:
    """A partition that has drained is never resumed."""
    return [Patch(Pauses, "_resume_inner", lambda pauses, partitions: None)]


def _never_is_full() -> list[Patch]:
    """No limit holds."""
    return [Patch(PartitionBuffer, "is_at_limit", property(lambda line: False))]


def _sleeps_through() -> list[Patch]:
    """While something is held the consumer is polled as if nothing were: until a message comes, or for a second."""

    def poll(flow: Any, timeout: float | None = None) -> object:
        if flow._buffers is not None and flow._buffers.pause_changes:
            flow._pauses.apply(flow._buffers.take_pause_changes())
        return flow._inner_poll(timeout)

    return [Patch(FlowControlledConsumer, "poll", poll)]


def _one_holds_up_all() -> list[Patch]:
    """While one partition waits, the others do too."""
    is_released = PartitionBuffer.is_released

    def in_step(forward: Callable[[Drain], None]) -> Callable[[Drain], None]:
        def forwards_in_step(drain: Drain) -> None:
            waiting = [buffer for buffer in drain._buffers.by_index.values() if buffer.held]
            if all(is_released.fget(buffer) for buffer in waiting):  # type: ignore[attr-defined]
                forward(drain)

        return forwards_in_step

    return [
        Patch(Drain, "forward_slice", in_step(Drain.forward_slice)),
        Patch(Drain, "forward_round", in_step(Drain.forward_round)),
    ]


def _forgets_to_notify() -> list[Patch]:
    """A remote offset that moves wakes nobody."""

    def wake(manager: Any) -> None:
        with manager._lock:
            manager.version += 1

    return [Patch(SynchronizedPartitionStateManager, "wake", wake)]


def _swallows_the_death() -> list[Patch]:
    """A dead source releases nothing more, and nobody hears of it."""
    refresh = PartitionBuffers.refresh_remote_offsets

    def silent(buffers: Any) -> None:
        try:
            refresh(buffers)
        except SourceDied:
            buffers.released.clear()
            buffers.opened.clear()

    return [Patch(PartitionBuffers, "refresh_remote_offsets", silent)]


def _trusts_its_memory() -> list[Patch]:
    """A leader's publisher goes on with what it had published of a partition, whoever had that meanwhile."""
    step = CommitLogPublisher.step

    def trusting(publisher: Any, commit: Any, partitions: Any) -> Any:
        made = step(publisher, commit, partitions)
        for queued in publisher._queue.partitions.values():
            queued.is_unclear = queued.newest is None
        return made

    return [Patch(CommitLogPublisher, "step", trusting)]


def _trusts_the_mapping() -> list[Patch]:
    """Each partition counts as newly assigned, and a retained one starts past the work in flight."""
    step = CommitLogPublisher.step

    def trusting(publisher: Any, commit: Any, partitions: Any) -> Any:
        publisher._queue.keep_only(())
        return step(publisher, commit, partitions)

    return [Patch(CommitLogPublisher, "step", trusting)]


def _forgets_a_start() -> list[Patch]:
    """A start that could not be committed before the next rebalance never is."""
    return [Patch(PublishStep, "uncommitted_starts", {})]


def _believes_a_late_answer() -> list[Patch]:
    """An answer counts for what was assigned, or published, since the question."""
    apply_answer = AssignedPartitions.apply_answer

    def believing(assigned: Any, key: Any, answer: Any, question: Question, log_ends: Any) -> Any:
        return apply_answer(assigned, key, answer, question._replace(epoch=assigned.epoch), log_ends)

    return [Patch(AssignedPartitions, "apply_answer", believing)]


def _takes_a_part_for_the_whole() -> list[Patch]:
    """Where nobody says where the commit log ends, nothing was in it."""
    take_first_answer = KnownEnd.take_first_answer

    def take(known_end: KnownEnd, answer: Any, log_ends: Mapping[int, int]) -> bool:
        known = {partition: 0 if end == LOG_END_UNKNOWN else end for partition, end in log_ends.items()}
        return take_first_answer(known_end, answer, known)

    return [Patch(KnownEnd, "take_first_answer", take)]


SABOTAGES: Mapping[str, Callable[[], list[Patch]]] = {
    "off by one": _off_by_one,
    "forgets a partition in a rebalance": _forgets_a_partition,
    "doesn't seek back": _does_not_seek_back,
    "drops what was not named": _drops_what_was_not_named,
    "polls by version alone": _polls_by_version_alone,
    "loses a wake-up": _loses_a_wake_up,
    "trusts a dead reader": _trusts_a_dead_reader,
    "takes the wrong record": _takes_the_wrong_record,
    "stays paused": _stays_paused,
    "never is full": _never_is_full,
    "sleeps through": _sleeps_through,
    "one holds up all": _one_holds_up_all,
    "forgets to notify": _forgets_to_notify,
    "swallows the death": _swallows_the_death,
    "trusts its memory": _trusts_its_memory,
    "trusts the mapping": _trusts_the_mapping,
    "forgets a start": _forgets_a_start,
    "believes a late answer": _believes_a_late_answer,
    "takes a part for the whole": _takes_a_part_for_the_whole,
}
"""Breaks that the model knows of."""
EVERY: Mapping[str, Callable[[], list[Patch]]] = {**SABOTAGES, **OLD_BEHAVIOURS}


def apply(name: str) -> list[Patch]:
    """Patch the package. Returns what undoes it."""
    patches = EVERY[name]()
    undo = [Patch(owner, attribute, getattr(owner, attribute)) for owner, attribute, _ in patches]
    for owner, attribute, replacement in patches:
        setattr(owner, attribute, replacement)
    return undo


def apply_from_environment() -> str | None:
    """Patch the package with the sabotage that the environment names, if any; returns its name."""
    name = os.environ.get(VARIABLE)
    if name:
        apply(name)
    return name or None


@contextmanager
def sabotaged(name: str) -> Iterator[None]:
    """The sabotage, for as long as this lasts."""
    undo = apply(name)
    try:
        yield
    finally:
        for owner, attribute, original in undo:
            setattr(owner, attribute, original)
