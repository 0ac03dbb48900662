"""For how long to wait for a remote offset to move before the consumer is polled again, while the gate holds something.

Guarantees
    - While a partition is open, whose next message would be handed on as it comes, no wait is longer than a slice.
    - Where a report has overtaken its message, which is to verify it, the message waits in the client for about as long
      again as it came late: waits begin with a slice then, and double.

Threads: the processor's thread calls everything.
"""

from __future__ import annotations

from typing import Any, Protocol

from arroyo.types import BrokerValue

FIRST_WAIT_SECONDS = 0.00025
"""How long the first wait is after a message that was not held. What arrives doesn't end a wait, so waits begin short
and double, up to the slice: a consumer that ran dry for a fetch's round trip, beside a held partition, loses little.
After a message that was held there is no hurry: the next one would most likely be held as well."""

CLOSED_WAIT_SECONDS = 0.020
"""How long the first wait after a message is while every partition is closed: whatever arrives would only be held. A
remote offset that moves ends the wait, and so does a published offset that waits for a message to verify it."""

CLOSED_IDLE_WAIT_SECONDS = 0.250
"""Up to how long these waits double while no message comes either. Each is a turn for the next step, which Arroyo would
poll once a second then, and for a rebalance."""


class Buffers(Protocol):
    """What is asked of the gate's partition buffers."""

    seen_version: int

    @property
    def is_verification_pending(self) -> bool: ...
    def has_open(self) -> bool: ...
    def is_newest_held(self, index: int, offset: int) -> bool: ...


class PollWaits:
    """Decides on one wait after the other.

    :param slice_seconds: the longest wait while a partition is open.
    """

    def __init__(self, slice_seconds: float) -> None:
        self._slice_seconds = slice_seconds
        self._open_seconds = FIRST_WAIT_SECONDS
        self._closed_seconds = CLOSED_WAIT_SECONDS
        self._seen_version = -1
        self.last_message: BrokerValue[Any] | None = None
        """The last message, if none of these waits came after it. Written by the consumer's poll, once a message."""

    def next_seconds(self, buffers: Buffers) -> float:
        """How long the wait that begins now may last."""
        last, self.last_message = self.last_message, None
        if not buffers.has_open():
            is_news, self._seen_version = buffers.seen_version != self._seen_version, buffers.seen_version
            if is_news and buffers.is_verification_pending:
                self._closed_seconds = 0.0
            elif last is not None:
                self._closed_seconds = CLOSED_WAIT_SECONDS
            seconds = max(self._slice_seconds, self._closed_seconds)
            self._closed_seconds = min(2 * seconds, CLOSED_IDLE_WAIT_SECONDS)
            return seconds
        if last is not None:
            is_held = buffers.is_newest_held(last.partition.index, last.offset)
            self._open_seconds = self._slice_seconds if is_held else FIRST_WAIT_SECONDS
        seconds = min(self._open_seconds, self._slice_seconds)
        self._open_seconds = 2 * seconds
        return seconds
