"""A world's state as a hash, by which the exploration knows where it has been.

Two worlds with one fingerprint must behave alike from there on, so everything that can matter is in it, the private
parts of the package's objects too. `COVERED` and `LEFT_OUT` name all attributes, and a test fails when a class has
another one. The partitions may be exchanged, and so may the groups within a partition: neither changes the fingerprint.
"""

from __future__ import annotations

from typing import Any

from arroyo_sync.core.state import Partition, SynchronizedPartitionStateManager
from arroyo_sync.gate.flow_control import FlowControlledConsumer
from arroyo_sync.gate.partition_buffer import Line
from arroyo_sync.gate.strategy import SynchronizedStrategy
from arroyo_sync.leaders.leader_offsets import LeaderOffsets
from arroyo_sync.leaders.published_offset import Claim, Trust
from tests.model.scripted import PARTITIONS, TOPIC
from tests.model.world import World

COVERED: dict[type, str] = {
    SynchronizedStrategy: "_lines _open_lines _released _opened _untold _current pause_changes was_rejected owes_poll "
    "_streams _poll_at _tell_at seen_version",
    Line: "expected open_until held is_full",
    Partition: "remote received current",
    SynchronizedPartitionStateManager: "_moved version _cells",
    FlowControlledConsumer: "_gate _outside _full _outside_before_all _is_all_paused _resume_offsets",
    LeaderOffsets: "_claims _trust _open",
    Claim: "said proven doubted refuted",
    Trust: "end",
}
"""What is in the fingerprint."""

LEFT_OUT: dict[type, str] = {
    SynchronizedStrategy: "_next_step _next_submit _next_poll _manager _source _slice_seconds _watermarks _clock "
    "_tell_interval_seconds _poll_interval_seconds held_messages _is_next_closed _has_deadline _deadline",
    Line: "cell partition key limits held_bytes release",
    Partition: "key",
    SynchronizedPartitionStateManager: "_callback _lock _moved_condition partitions wait_for_move",
    FlowControlledConsumer: "_newly_assigned _inner _inner_poll _manager _check_source _slice_seconds _wait_seconds "
    "_rejected_wait_seconds _on_close _inner_stage_offsets pauses resumes",
    LeaderOffsets: "groups _index _lock _manager _unproven _number unproven",
    Claim: "rivals heard_at_seconds number",
    Trust: "cell number cached_end",
}
"""What never changes, or follows from the others, or is the same between two actions, or counts or dates something."""


def fingerprint(world: World) -> int:
    """See the module. Only for worlds between two actions, of one commit-log partition."""
    gate: Any = world.factory._gate if world.judge.has_strategy else None
    message: Any = world.processor._StreamProcessor__message  # type: ignore[attr-defined]
    backpressure_since: Any = world.processor._StreamProcessor__backpressure_timestamp  # type: ignore[attr-defined]
    flow = world.flow
    whole = (
        (world.judge.is_dead, world.judge.was_rejected),
        world.is_over,
        gate is None,
        message is None,
        world.processor._StreamProcessor__is_paused,  # type: ignore[attr-defined]
        backpressure_since is not None and world.clock.now - backpressure_since > 5,
        flow is not None
        and (flow._gate is gate, flow._gate is None, flow._outside_before_all is None, flow._is_all_paused),
        gate is not None
        and (
            (gate.was_rejected, gate.seen_version == world.manager.version, gate._current is None),
            (gate.owes_poll, gate._streams, *(_until(world, each) for each in (gate._poll_at, gate._tell_at))),
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
    claims = leaders._claims.get(key, ())
    parts.append(tuple(sorted(hash(c and (c.said.offset, c.proven, c.doubted, c.refuted)) for c in claims)))
    trust = leaders._trust.get(key)
    parts.append(trust and trust.end)
    cell = world.manager._cells.get(key)
    parts.append(cell and (cell.remote, cell.received, cell.current))
    parts.append(key in world.manager._moved)
    flow = world.flow
    if flow is not None:
        parts.append((partition in flow._outside, partition in flow._full, flow._resume_offsets.get(index)))
        parts.append(flow._outside_before_all is not None and partition in flow._outside_before_all)
    if gate is not None and index in gate._lines:
        line = gate._lines[index]
        released = list(gate._released)
        parts.append((line.expected, line.open_until, line.is_full, *(held.offset for held in line.held)))
        parts.append((released.index(line) if line in gate._released else None, line in gate._opened))
        parts.append((line in gate._untold, line is gate._current, gate.pause_changes.get(partition)))
        if world.step.last is not None and world.step.last[0] == partition:
            parts.append(world.step.last[1])
    return hash(tuple(parts))
