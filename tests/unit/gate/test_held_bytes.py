"""`HoldLimits.bytes` are bytes of the process's memory, however many headers the messages have."""

from __future__ import annotations

import gc
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
from arroyo.backends.kafka import KafkaPayload
from arroyo.types import BrokerValue, Message, Partition, Topic

from arroyo_sync.core.state import PartitionCell, SynchronizedPartitionStateManager
from arroyo_sync.gate.partition_buffer import HoldLimits, PartitionBuffer
from arroyo_sync.gate.strategy import SynchronizedStrategy
from arroyo_sync.testing import ManualSource, RecordingStep
from tests.support.fakes import message, partition

ROOT = Path(__file__).parents[3]
LINUX_PAGE_BYTES = 4096
MEASURED_BYTES = 10_000_000
"""How much is held: much more than what the process needs meanwhile for itself."""


def consumed(offset: int, headers: int, name: str, value_bytes: int) -> Message[KafkaPayload]:
    """A message made as Arroyo's consumer and confluent-kafka make one: every part of it is an object of its own."""
    pairs = [
        (f"{name}{number:04}".encode().decode(), f"{number:0{value_bytes}}".encode()[:value_bytes])
        for number in range(headers)
    ]
    payload = KafkaPayload(f"key {offset}".encode(), bytes(200), pairs)
    topic = Topic(b"ingest-events".decode())
    return Message(BrokerValue(payload, Partition(topic, 0), offset, datetime.fromtimestamp(offset)))


def measure(headers: int, name: str, value_bytes: int) -> tuple[int, int]:
    """Hold messages; by how much the process's memory grew, and what was counted."""
    buffer = PartitionBuffer(Partition(Topic("events"), 0), PartitionCell(("events", 0)), 0, HoldLimits())
    for offset in range(10):
        buffer.append(offset, consumed(offset, headers, name, value_bytes), 0.5 + offset)
    gc.collect()
    began, counted = resident_bytes(), buffer.held_bytes
    offset = 1_000
    while buffer.held_bytes < counted + MEASURED_BYTES:
        offset += 1
        buffer.append(offset, consumed(offset, headers, name, value_bytes), 0.5 + offset)
    gc.collect()
    return resident_bytes() - began, buffer.held_bytes - counted


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * LINUX_PAGE_BYTES


@pytest.mark.parametrize(
    ("headers", "name", "value_bytes"),
    [
        pytest.param(0, "", 1, id="no headers"),
        pytest.param(1, "sentry-trace-", 40, id="1 header"),
        pytest.param(10, "sentry-trace-", 40, id="10 headers"),
        pytest.param(100, "x-", 20, id="100 headers"),
        pytest.param(1_000, "x-", 8, id="1,000 headers"),
        pytest.param(1_000, "größe-", 1, id="1,000 headers with names that aren't ASCII, and values of one byte"),
        pytest.param(100, "長さ-", 200, id="100 headers with wide names and long values"),
    ],
)
def test_what_is_counted_is_what_the_process_grows_by(headers: int, name: str, value_bytes: int) -> None:
    """Within 1.3 of the resident memory, in a process of its own."""
    call = "from tests.support import sabotage; sabotage.apply_from_environment(); "
    call += f"import {__name__} as t; print(*t.measure({headers}, {name!r}, {value_bytes}))"
    output = subprocess.run(
        [sys.executable, "-c", call], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120
    ).stdout
    grown, counted = map(int, output.split())
    assert 1 / 1.3 < grown / counted < 1.3, f"{grown / counted:.2f}"


def test_only_what_is_held_is_weighed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once; a message that is released passes, whatever headers it has."""
    weighed: list[object] = []

    def weigh(payload: object) -> int:
        weighed.append(payload)
        return 1

    monkeypatch.setattr("arroyo_sync.gate.partition_buffer.payload_bytes", weigh)
    source, manager, step = ManualSource(), SynchronizedPartitionStateManager(), RecordingStep()
    source.start(manager)
    source.set_remote_offset("events", 0, 1)
    gate: SynchronizedStrategy[KafkaPayload] = SynchronizedStrategy(step, manager, source, {partition(0): 0})
    messages = [message(0, offset) for offset in range(3)]
    gate.submit(messages[0])
    assert weighed == []
    gate.submit(messages[1])
    gate.submit(messages[2])
    source.set_remote_offset("events", 0, 3)
    gate.poll()
    assert step.messages == messages
    assert weighed == [each.payload for each in messages[1:]]
