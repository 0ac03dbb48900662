"""How long the consumer waits for a message; that the waits end in time is shown on the flow control."""

from __future__ import annotations

import pytest

from arroyo_sync.gate.consumer.poll_waits import CLOSED_WAIT_SECONDS, PollWaits

SLICE_SECONDS = CLOSED_WAIT_SECONDS / 5


class ClosedBuffers:
    """Every partition is closed, and a published offset waits for a message to verify it."""

    is_verification_pending = True

    def __init__(self, seen_version: int) -> None:
        self.seen_version = seen_version

    def has_open(self) -> bool:
        return False

    def is_newest_held(self, index: int, offset: int) -> bool:
        raise AssertionError("no message came")


@pytest.mark.parametrize("version", range(3))
def test_the_first_wait_is_short_if_a_published_offset_waits_for_a_message(version: int) -> None:
    """Whatever has moved before: the message may be there already. The same news makes no further wait short."""
    waits = PollWaits(SLICE_SECONDS)
    buffers = ClosedBuffers(version)
    assert [waits.next_seconds(buffers) for _ in range(3)] == [SLICE_SECONDS, 2 * SLICE_SECONDS, 4 * SLICE_SECONDS]
    buffers.seen_version += 1
    assert waits.next_seconds(buffers) == SLICE_SECONDS
