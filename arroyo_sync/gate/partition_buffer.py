"""One partition's messages in the gate, and how many it may hold.

Threads: the processor's thread writes. Other threads may read `PartitionBuffer.local_offset`,
`PartitionBuffer.held_bytes`, `PartitionBuffer.release` and the length of `PartitionBuffer.held`, and see values that
were true a moment ago.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from sys import getsizeof
from typing import Any, NamedTuple

from arroyo.backends.kafka import KafkaPayload
from arroyo.types import Message, Partition

from arroyo_sync.core.checks import check_integer
from arroyo_sync.core.errors import ConfigurationError
from arroyo_sync.core.state import PartitionCell, PartitionKey

MESSAGE_OVERHEAD_BYTES = 650
"""What a held message weighs beside its payload: Arroyo's objects and the buffer's entry."""

HEADER_OVERHEAD_BYTES = 80
"""What a header weighs beside its name and its value: a tuple, its place in the list, and what the allocator rounds up.
Measured with 0 to 1,000 headers (``tests/unit/gate/test_held_bytes.py``)."""


@dataclass(frozen=True)
class HoldLimits:
    """How much the gate holds per partition. The rest stays in Kafka: a full partition is paused until it has drained.

    The band between the two marks is wide on purpose: a pause throws away what librdkafka had prefetched.
    """

    messages: int = 10_000
    """A partition that holds so many is full."""
    resume_messages: int = 2_000
    """A full partition takes messages again once it holds no more than this."""
    bytes: int = 16 * 2**20
    """A partition that holds so many bytes of memory is full: the contents of messages and headers, and beside them
    about 650 a message and 80 a header. One message may pass it."""
    resume_bytes: int = 4 * 2**20
    """A full partition takes messages again once it holds no more bytes than this."""

    def __post_init__(self) -> None:
        for name in ("messages", "bytes"):
            limit, resume = getattr(self, name), getattr(self, f"resume_{name}")
            check_integer(name, limit, 1, of="HoldLimits")
            check_integer(f"resume_{name}", resume, 0, of="HoldLimits")
            if resume >= limit:
                raise ConfigurationError(
                    f"HoldLimits(resume_{name}={resume}): must be below {name}={limit}, "
                    f"so that a full partition drains before it takes more: set both"
                )


def payload_bytes(payload: object) -> int:
    """What a message's payload weighs: key, value and headers of a `KafkaPayload`, else the object itself.

    It takes 0.2 to 0.3 us a header, less than it took to make the header of what was fetched.
    """
    if isinstance(payload, KafkaPayload):
        size = len(payload.value) + (len(payload.key) if payload.key else 0)
        if payload.headers:
            for name, value in payload.headers:
                # CPython has one object for each text and each bytes of up to one character, and one None.
                size += getsizeof(name) if len(name) > 1 else 0
                size += getsizeof(value) if value is not None and len(value) > 1 else 0
            size += HEADER_OVERHEAD_BYTES * len(payload.headers)
        return size
    return len(payload) if isinstance(payload, bytes) else getsizeof(payload)


class BufferedMessage(NamedTuple):
    offset: int
    size_bytes: int
    since: float
    message: Message[Any]


_new_tuple = tuple.__new__


class Release(NamedTuple):
    """When a buffer whose oldest message was not released became released, and how long that message was held."""

    at: float
    hold_seconds: float


class PartitionBuffer:
    """One partition's messages in the gate, oldest first."""

    __slots__ = (
        "partition",
        "key",
        "cell",
        "limits",
        "expected",
        "position",
        "pass_through_below",
        "held",
        "held_bytes",
        "is_full",
        "release",
        "carried",
    )

    def __init__(self, partition: Partition, cell: PartitionCell, position: int, limits: HoldLimits) -> None:
        self.partition = partition
        self.key: PartitionKey = cell.key
        self.cell = cell
        self.limits = limits
        self.expected = position
        """The offset of the message that comes next: after the last one received, or `position`."""
        self.position = position
        """Where reading began: at the assignment, or after the last seek. `expected` has been received if it is past
        this."""
        self.pass_through_below = 0
        """Messages below this offset are forwarded at once: the remote offset as `refresh_remote_offset` read it last,
        while nothing is held or carried; else 0, which no message is below."""
        self.held: deque[BufferedMessage] = deque()
        self.held_bytes = 0
        self.is_full = False
        """True from the high mark up to the low mark down: the partition is to be paused."""
        self.carried: int | None = None
        """The offset of a message that the processor carries since before a seek, and submits next: not to be taken."""
        self.release: Release | None = None
        """The last one. For metrics alone."""

    def refresh_remote_offset(self) -> None:
        """Bring `pass_through_below` up to date. To be called after the remote offset moved."""
        remote = self.cell.remote
        self.pass_through_below = 0 if self.held or remote is None or self.carried is not None else remote

    def set_carried(self, offset: int | None) -> None:
        """Note, or forget, that the processor carries this message; until then nothing passes through."""
        self.carried = offset
        self.refresh_remote_offset()

    def note_received(self) -> None:
        """Let the source know of the last message received."""
        if self.expected != self.position:
            self.cell.received = self.expected

    def record_release(self, now: float) -> None:
        """The oldest message was released now. Called once each time that the buffer opens, not once a message."""
        self.release = Release(now, now - self.held[0].since)

    @property
    def local_offset(self) -> int:
        """The next offset that goes downstream."""
        try:
            return self.held[0].offset
        except IndexError:
            return self.expected

    @property
    def is_released(self) -> bool:
        """Whether the oldest message may go downstream."""
        remote = self.cell.remote
        return bool(self.held) and remote is not None and self.held[0].offset < remote

    @property
    def is_at_limit(self) -> bool:
        """Whether the buffer holds all that it may."""
        return len(self.held) >= self.limits.messages or self.held_bytes >= self.limits.bytes

    def append(self, offset: int, message: Message[Any], now: float) -> None:
        """Hold a message behind all others."""
        # `message.payload` and the constructor of a NamedTuple would each be one call more for every held message.
        size_bytes = payload_bytes(message.value.payload) + MESSAGE_OVERHEAD_BYTES
        self.held.append(_new_tuple(BufferedMessage, (offset, size_bytes, now, message)))
        self.held_bytes += size_bytes
        self.pass_through_below = 0
        self.carried = None  # it would have come before this one
        if self.is_at_limit:
            self.is_full = True

    def remove(self, index: int) -> None:
        """Remove the message at this place, 0 being the oldest."""
        held = self.held
        if index == 0:
            self.held_bytes -= held.popleft().size_bytes
        else:
            self.held_bytes -= held[index].size_bytes
            del held[index]
        if not held:
            self.refresh_remote_offset()
        if self.is_full and len(held) <= self.limits.resume_messages and self.held_bytes <= self.limits.resume_bytes:
            self.is_full = False

    def clear(self) -> None:
        """Drop everything."""
        self.held.clear()
        self.held_bytes = 0
        self.pass_through_below = 0
        self.is_full = False
