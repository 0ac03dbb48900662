"""What a gate and the consumer around the user's say of arguments that can't be right.

That they say something of whatever is wrong is in `test_hostile_arguments.py`.
"""

from __future__ import annotations

from typing import Any

import pytest

from arroyo_sync.core.errors import ConfigurationError
from arroyo_sync.core.state import SynchronizedPartitionStateManager
from arroyo_sync.gate.flow_control import FlowControlledConsumer
from arroyo_sync.gate.strategy import SynchronizedStrategy
from arroyo_sync.testing import ManualSource
from tests.support.fakes import ScriptedConsumer, ScriptedStep, partition

MANAGER = "give an arroyo_sync.core.state.SynchronizedPartitionStateManager"
CLOCK = "must be something to call for monotonic seconds"
SECONDS = "must be more than 0 seconds, and at most 1000000000"


@pytest.mark.parametrize(
    ("argument", "value", "allowed"),
    [
        ("inner", None, "must be an Arroyo consumer, such as arroyo.backends.kafka.KafkaConsumer; this has no 'poll'"),
        ("manager", None, MANAGER),
        ("check_source", None, "must be something to call without arguments"),
        ("slice_seconds", 0, SECONDS),
        ("rejected_wait_seconds", 0, SECONDS),
        ("before_close", 5, "must be something to call without arguments or None"),
        ("after_close", 5, "must be something to call without arguments or None"),
        ("clock", None, CLOCK),
    ],
)
def test_what_the_flow_control_refuses(argument: str, value: object, allowed: str) -> None:
    arguments: dict[str, Any] = {
        "inner": ScriptedConsumer(),
        "manager": SynchronizedPartitionStateManager(),
        "check_source": lambda: None,
    }
    FlowControlledConsumer(**arguments)
    with pytest.raises(ConfigurationError) as raised:
        FlowControlledConsumer(**{**arguments, argument: value})
    assert str(raised.value) == f"{argument}={value}: {allowed}"


@pytest.mark.parametrize(
    ("argument", "value", "allowed"),
    [
        ("next_step", None, "must be a step: an arroyo ProcessingStrategy; this has no 'submit'"),
        ("manager", None, MANAGER),
        ("source", None, "must be a source of remote offsets, such as a CommitLogConsumer; this has no 'start'"),
        ("positions", None, "must be a mapping of partitions to offsets, as Arroyo hands it to create_with_partitions"),
        ("limits", 5, "give an arroyo_sync.gate.partition_buffer.HoldLimits or None"),
        ("slice_seconds", 0, SECONDS),
        ("poll_interval_seconds", -1, "must be 0 seconds or more, and at most 1000000000"),
        ("watermarks", 5, "must be HighWatermarks or None; this has no 'cached'"),
        ("clock", None, CLOCK),
    ],
)
def test_what_a_gate_refuses(argument: str, value: object, allowed: str) -> None:
    arguments: dict[str, Any] = {
        "next_step": ScriptedStep(),
        "manager": SynchronizedPartitionStateManager(),
        "source": ManualSource(),
        "positions": {partition(0): 0},
    }
    SynchronizedStrategy(**arguments)
    with pytest.raises(ConfigurationError) as raised:
        SynchronizedStrategy(**{**arguments, argument: value})
    assert str(raised.value) == f"{argument}={value}: {allowed}"
