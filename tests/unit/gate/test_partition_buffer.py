"""A line: what a message weighs, when a partition is full, and when it has drained."""

from __future__ import annotations

import sys
from dataclasses import FrozenInstanceError

import pytest
from arroyo.backends.kafka import KafkaPayload

from arroyo_sync.core.errors import ConfigurationError
from arroyo_sync.core.state import SynchronizedPartitionStateManager
from arroyo_sync.gate.partition_buffer import (
    HEADER_OVERHEAD_BYTES,
    MESSAGE_OVERHEAD_BYTES,
    HoldLimits,
    PartitionBuffer,
    Release,
    payload_bytes,
)
from tests.support.fakes import message, partition


def make_line(limits: HoldLimits, position: int = 0) -> PartitionBuffer:
    return PartitionBuffer(partition(0), SynchronizedPartitionStateManager().cell("events", 0), position, limits)


def append(line: PartitionBuffer, *offsets: int, value: bytes = b"") -> None:
    for offset in offsets:
        line.append(offset, message(0, offset, value), now=1.0)
        line.expected = offset + 1


def in_messages(messages: int, resume_messages: int) -> HoldLimits:
    return HoldLimits(messages=messages, resume_messages=resume_messages)


def in_bytes(limit: int, resume_bytes: int) -> HoldLimits:
    return HoldLimits(bytes=limit, resume_bytes=resume_bytes)


@pytest.mark.parametrize(
    ("payload", "size"),
    [
        pytest.param(KafkaPayload(None, b"", []), 0, id="nothing"),
        pytest.param(KafkaPayload(None, b"12345", []), 5, id="value"),
        pytest.param(KafkaPayload(b"key", b"12345", []), 8, id="key and value"),
        pytest.param(
            KafkaPayload(b"key", b"12345", [("name", b"ab"), ("n", b""), ("größe", b"x")]),
            8 + 3 * HEADER_OVERHEAD_BYTES + sum(map(sys.getsizeof, ["name", b"ab", "größe"])),
            id="headers",
        ),
        pytest.param(b"1234567", 7, id="bytes"),
        pytest.param((1, 2), sys.getsizeof((1, 2)), id="any other object"),
    ],
)
def test_a_payload_weighs_its_key_value_and_headers(payload: object, size: int) -> None:
    """Whatever the consumer's payload type is, it has a size."""
    assert payload_bytes(payload) == size


def test_a_header_without_a_value_weighs_its_name() -> None:
    """Kafka's headers may have none."""
    weight = HEADER_OVERHEAD_BYTES + sys.getsizeof("name")
    assert payload_bytes(KafkaPayload(None, b"", [("name", None)])) == weight  # type: ignore[list-item]


@pytest.mark.parametrize("unit", ["messages", "bytes"])
@pytest.mark.parametrize(
    ("limit", "resume", "named"),
    [
        pytest.param(0, 0, "{unit}=0", id="a limit of zero"),
        pytest.param(-1, 0, "{unit}=-1", id="a negative limit"),
        pytest.param(10, -1, "resume_{unit}=-1", id="a negative low mark"),
        pytest.param(10, 10, "resume_{unit}=10", id="no band between the marks"),
        pytest.param(10, 11, "resume_{unit}=11", id="the marks the wrong way round"),
    ],
)
def test_limits_that_make_no_sense_are_refused_by_name(unit: str, limit: int, resume: int, named: str) -> None:
    """The message says which setting it is, and what to do."""
    with pytest.raises(ConfigurationError) as raised:
        HoldLimits(**{unit: limit, f"resume_{unit}": resume})
    assert str(raised.value).startswith(f"HoldLimits({named.format(unit=unit)}): ")


def test_by_default_a_partition_holds_10000_messages_and_16_mib() -> None:
    """And is resumed at 2,000 and 4 MiB: the marks that the README names, which were measured."""
    assert HoldLimits() == HoldLimits(10_000, 2_000, 16_777_216, 4_194_304)


def test_limits_stay_as_they_were_checked() -> None:
    """Many lines share them."""
    with pytest.raises(FrozenInstanceError):
        HoldLimits().messages = 0  # type: ignore[misc]


def test_the_smallest_limits_are_taken() -> None:
    """One message, one byte: resumed when empty."""
    assert HoldLimits(1, 0, 1, 0).messages == 1


def test_a_line_is_full_from_its_limit_in_messages_down_to_its_low_mark() -> None:
    """The band: a partition doesn't pause and resume with every message."""
    line = make_line(in_messages(4, 1))
    append(line, 0, 1, 2)
    assert (line.is_full, line.is_at_limit) == (False, False)
    append(line, 3)
    assert (line.is_full, line.is_at_limit) == (True, True)
    line.remove(0)
    line.remove(0)
    assert (line.is_full, line.is_at_limit) == (True, False)
    line.remove(0)
    assert (line.is_full, line.is_at_limit) == (False, False)


def test_a_line_past_its_limit_is_at_it() -> None:
    """However it came there: nothing more fits in."""
    line = make_line(in_messages(300, 0))
    append(line, *range(301))
    assert (line.is_full, line.is_at_limit) == (True, True)


def test_a_line_is_full_from_its_limit_in_bytes_down_to_its_low_mark() -> None:
    """Every message counts its payload and what Python needs beside it."""
    weight = MESSAGE_OVERHEAD_BYTES + 100
    line = make_line(in_bytes(3 * weight, weight))
    append(line, 0, 1, value=b"x" * 100)
    assert (line.held_bytes, line.is_full) == (2 * weight, False)
    append(line, 2, value=b"x" * 100)
    assert (line.is_full, line.is_at_limit) == (True, True)
    line.remove(0)
    assert (line.is_full, line.is_at_limit) == (True, False)
    line.remove(0)
    assert (line.held_bytes, line.is_full) == (weight, False)


def test_a_line_full_in_both_units_drains_in_both() -> None:
    """It takes more only when neither the messages nor the bytes are above their low marks."""
    weight = MESSAGE_OVERHEAD_BYTES
    line = make_line(HoldLimits(messages=3, resume_messages=2, bytes=1_000 * weight, resume_bytes=2 * weight))
    append(line, 0, value=b"x" * 5 * weight)
    append(line, 1, 2)
    line.remove(2)
    assert line.is_full, "few enough messages, but too many bytes"
    line.remove(0)
    assert not line.is_full


def test_one_message_may_pass_the_limit_in_bytes() -> None:
    """Or it could never be read; the line is full with it, and empty lines are never at their limit."""
    line = make_line(in_bytes(10, 0))
    assert not line.is_at_limit
    append(line, 0, value=b"x" * 1_000)
    assert (line.is_full, line.is_at_limit) == (True, True)
    line.remove(0)
    assert (line.is_full, line.held_bytes) == (False, 0)


def test_taking_out_of_the_middle_keeps_the_order() -> None:
    """As an invalid message does that isn't the oldest."""
    line = make_line(HoldLimits())
    append(line, 5, 6, 7)
    line.remove(1)
    assert [held.offset for held in line.held] == [5, 7]
    assert line.held_bytes == 2 * MESSAGE_OVERHEAD_BYTES == 1_300, "about 650 a message, as the README says"


def test_the_local_offset_is_the_oldest_held_message_or_else_the_expected_one() -> None:
    """It never passes what is held."""
    line = make_line(HoldLimits(), position=3)
    assert line.local_offset == 3
    append(line, 5, 9)
    assert line.local_offset == 5
    line.remove(0)
    assert line.local_offset == 9
    line.remove(0)
    assert line.local_offset == 10


@pytest.mark.parametrize(
    ("remote", "is_released"), [(None, False), (0, False), (5, False), (6, True)], ids=["unknown", "0", "at", "past"]
)
def test_a_line_is_released_by_a_remote_offset_past_its_oldest_message(remote: int | None, is_released: bool) -> None:
    """And an empty one never is."""
    line = make_line(HoldLimits())
    line.cell.remote = remote
    assert not line.is_released
    append(line, 5, 6)
    assert line.is_released is is_released


def test_a_cleared_line_holds_nothing_and_is_not_full() -> None:
    """So a full partition whose messages were dropped isn't left paused."""
    line = make_line(in_messages(1, 0))
    append(line, 0)
    line.clear()
    assert (len(line.held), line.held_bytes, line.is_full) == (0, 0, False)


def test_messages_go_straight_through_up_to_the_remote_offset_while_nothing_is_held() -> None:
    """What is held closes the way, for those that come after it too, until the last of it has gone on."""
    line = make_line(HoldLimits())
    line.cell.remote = 9
    assert line.pass_through_below == 0, "nobody has looked yet"
    line.refresh_remote_offset()
    assert line.pass_through_below == 9
    append(line, 5, 6)
    line.refresh_remote_offset()
    assert line.pass_through_below == 0
    line.remove(0)
    assert line.pass_through_below == 0
    line.remove(0)
    assert line.pass_through_below == 9


@pytest.mark.parametrize("how", ["append", "clear", "unknown"])
def test_the_way_straight_through_is_shut_at_once(how: str) -> None:
    """By a message that is held, when everything is dropped, and when the remote offset is unknown again."""
    line = make_line(HoldLimits())
    line.cell.remote = 9
    line.refresh_remote_offset()
    if how == "append":
        append(line, 0)
    elif how == "clear":
        line.clear()
    else:
        line.cell.remote = None
        line.refresh_remote_offset()
    assert line.pass_through_below == 0


def test_a_release_says_when_it_was_and_how_long_the_oldest_message_had_waited() -> None:
    """Of the last time that the line opened; the metrics are made of it."""
    line = make_line(HoldLimits())
    line.append(5, message(0, 5), now=1.0)
    line.append(6, message(0, 6), now=2.0)
    assert line.release is None
    line.record_release(4.5)
    assert line.release == Release(at=4.5, hold_seconds=3.5)
    line.remove(0)
    line.record_release(10.0)
    assert line.release == Release(at=10.0, hold_seconds=8.0)
