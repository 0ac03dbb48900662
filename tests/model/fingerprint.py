"""A world's state as a hash, by which the exploration knows where it has been.

Two worlds with one fingerprint must behave alike from there on, so everything that can matter is in it, the private
parts of the package's objects too. `COVERED` and `LEFT_OUT` name all attributes, and a test fails when a class has
another one. The partitions may be exchanged, and so may the groups within a partition: neither changes the fingerprint.
"""

from __future__ import annotations

from typing import Any

from arroyo_sync.core.state import PartitionCell, SynchronizedPartitionStateManager
from arroyo_sync.gate.consumer.pauses import Pauses
from arroyo_sync.gate.consumer.rebalances import Rebalances
from arroyo_sync.gate.drain import Drain
from arroyo_sync.gate.flow_control import FlowControlledConsumer
from arroyo_sync.gate.partition_buffer import PartitionBuffer
from arroyo_sync.gate.partition_buffers import PartitionBuffers
from arroyo_sync.gate.strategy import SynchronizedStrategy
from arroyo_sync.leaders.assigned_partitions import AssignedPartitions
from arroyo_sync.leaders.leader_offsets import LeaderOffsets
from arroyo_sync.leaders.offset_table import OffsetTable
from arroyo_sync.leaders.published_offset import PublishedOffset
from arroyo_sync.leaders.verification import KnownEnd
from tests.model.scripted import PARTITIONS, TOPIC
from tests.model.world import World

COVERED: dict[type, str] = {
    SynchronizedStrategy: "buffers drain _messages_follow _gives_way _gave_way",
    PartitionBuffers: "_all by_index released opened _unreported last_forwarded pause_changes _report_at seen_version",
    Drain: "was_rejected needs_poll poll_at",
    PartitionBuffer: "expected position pass_through_below held is_full carried",
    PartitionCell: "remote received current",
    SynchronizedPartitionStateManager: "_moved version _cells",
    FlowControlledConsumer: "_buffers _drain _pauses _rebalances",
    Rebalances: "resume_offsets retained",
    Pauses: "_outside _full _outside_before_all is_all_paused",
    LeaderOffsets: "_table _assigned _enabled",
    OffsetTable: "_rows",
    AssignedPartitions: "known_ends",
    PublishedOffset: "latest ruling in_force lowest_unreached",
    KnownEnd: "end",
}
"""What is in the fingerprint."""

LEFT_OUT: dict[type, str] = {
    SynchronizedStrategy: "_next_step _next_submit _next_poll _manager _clock _is_next_closed _has_deadline _deadline",
    PartitionBuffers: "_manager _source _report_interval_seconds _watermarks _clock held_messages on_start_elsewhere "
    "_positions _maybe_open",
    Drain: "_next_submit _next_poll _manager _buffers _slice_seconds _poll_interval_seconds _clock _slice_ends_at",
    PartitionBuffer: "cell partition key limits held_bytes release",
    PartitionCell: "key",
    SynchronizedPartitionStateManager: "_changes _has_listener "
    "_lock _moved_condition _failure source_logs_rewinds has_monitor partitions wait_for_move",
    FlowControlledConsumer: "_inner _inner_poll _manager _check_source _waits _rejected_wait_seconds _before_close "
    "_cluster_question _logins _clock _is_closing _is_let_go _is_subscribed _after_close _on_subscribe "
    "_inner_stage_offsets _start _replaced_log _resume_offsets empty_polls",
    Rebalances: "_inner _pauses _start _leave _is_replaced _is_closing _hidden",
    Pauses: "_inner pauses resumes",
    LeaderOffsets: "groups _lock _delivery_on_exit _manager _rejections unverified",
    OffsetTable: "groups _index reported",
    AssignedPartitions: "_table _topic_ids _unverified _reached epoch topics unverified unanswered suspect rejected",
    PublishedOffset: "latest_by_log_partition read_at_seconds epoch committed is_told is_long_suspect",
    KnownEnd: "cell begins_at epoch received_before cached_before is_lowered answer log_ends",
}
"""What never changes, or follows from the others, or is the same between two actions, or counts or dates something. And
how far a partition once reached, since none is truncated here."""


def fingerprint(world: World) -> int:
    """See the module. Only for worlds between two actions, of one commit-log partition."""
    gate: Any = world.factory._gate if world.judge.has_strategy else None
    buffers: Any = None if gate is None else gate.buffers
    message: Any = world.processor._StreamProcessor__message  # type: ignore[attr-defined]
    backpressure_since: Any = world.processor._StreamProcessor__backpressure_timestamp  # type: ignore[attr-defined]
    flow = world.flow
    whole = (
        (world.judge.is_dead, world.judge.was_rejected),
        (world.judge.was_offer_rejected, world.judge.was_room_left, world.judge.was_message_taken),
        world.is_over,
        gate is None,
        message is None,
        world.processor._StreamProcessor__is_paused,  # type: ignore[attr-defined]
        backpressure_since is not None and world.clock.now - backpressure_since > 5,
        flow is not None
        and (
            flow._buffers is buffers,
            flow._buffers is None,
            flow._pauses._outside_before_all is None,
            flow._pauses.is_all_paused,
        ),
        gate is not None
        and (
            (gate.drain.was_rejected, buffers.seen_version == world.manager.version, buffers.last_forwarded is None),
            (gate.drain.needs_poll, gate._messages_follow, gate._gives_way, gate._gave_way),
            tuple(_until(world, each) for each in (gate.drain.poll_at, buffers._report_at)),
        ),
        world.judge.has_strategy and world.step.has_room,
    )
    each = [_partition(world, gate, message, index) for index in world.judge.partitions]
    return hash((whole, tuple(sorted(each))))


def _until(world: World, moment: float) -> int:
    """In how many milliseconds it comes; 0 if it has passed."""
    return max(0, round((moment - world.clock.now) * 1000))


def _partition(world: World, gate: Any, message: Any, index: int) -> int:
    key, partition = (TOPIC.name, index), PARTITIONS[index]
    watched = world.judge.partitions[index]
    parts: list[Any] = [
        tuple(sorted(hash((each.newest, each.last_possible, each.is_refuted)) for each in watched.leaders.values())),
        (watched.end, watched.reach, watched.is_assigned, watched.next_offset, watched.is_full),
        (*watched.waiting, None, *watched.in_flight, None, *sorted(watched.through)),
        (index in world.judge.user_paused, index in world.judge.processor_paused),
        (world.consumer.offsets.get(partition), world.consumer.staged.get(partition)),
        (partition in world.consumer.paused_set, world.brokers.committed[index]),
        message.offset if message is not None and message.partition == partition else None,
    ]
    leaders = world.source.leaders
    parts.append(tuple(sorted(hash(each and _of_slot(each)) for each in leaders._table.row(key))))
    known_end = leaders._assigned.known_ends.get(key)
    parts.append(known_end and known_end.end)
    cell = world.manager._cells.get(key)
    parts.append(cell and (cell.remote, cell.received, cell.current))
    parts.append(key in world.manager._moved)
    flow = world.flow
    if flow is not None:
        pauses = flow._pauses
        parts.append(
            (partition in pauses._outside, partition in pauses._full, flow._rebalances.resume_offsets.get(index))
        )
        parts.append(partition in flow._rebalances.retained)
        parts.append(pauses._outside_before_all is not None and partition in pauses._outside_before_all)
    if gate is not None and index in gate.buffers._all:
        buffers = gate.buffers
        buffer = buffers._all[index]
        released = list(buffers.released)
        parts.append(
            (
                (buffer.expected, buffer.position, buffer.pass_through_below, buffer.is_full, buffer.carried),
                *(held.offset for held in buffer.held),
            )
        )
        parts.append((released.index(buffer) if buffer in released else None, buffer in buffers.opened))
        parts.append(
            (buffer in buffers._unreported, buffer is buffers.last_forwarded, buffers.pause_changes.get(partition))
        )
        if world.step.last is not None and world.step.last[0] == partition:
            parts.append(world.step.last[1])
    return hash(tuple(parts))


def _of_slot(slot: PublishedOffset) -> object:
    return slot.latest.offset, hash(slot.ruling), slot.in_force, slot.lowest_unreached
