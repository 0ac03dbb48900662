"""Errors that go from one process to another."""

from __future__ import annotations

import copy
import pickle

import pytest

from arroyo_sync.core import errors
from arroyo_sync.core.errors import (
    AnotherCluster,
    ArroyoSyncError,
    FollowerStalled,
    InvalidState,
    MalformedRecord,
    MessageNotReady,
    PartitionTruncated,
    TopicRecreated,
)
from arroyo_sync.core.log_throttle import TOLD_BY_MONITOR, mark_told
from arroyo_sync.core.state import SynchronizedPartitionState
from arroyo_sync.observe.stalls import Stall, WaitsFor

MADE = [
    AnotherCluster("one", "two"),
    FollowerStalled(Stall("events", 0, WaitsFor.LEADER, 300.0, 1, 1, 5, "writers")),
    InvalidState("events", 0, SynchronizedPartitionState.SYNCHRONIZED),
    MalformedRecord("key", "no colon"),
    MessageNotReady("events", 0, 7, 5),
    PartitionTruncated("events", {0: 3}, {0: 9}),
    TopicRecreated("events", "an id", "another id"),
]
OTHERS = [
    kind("what is wrong")
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, ArroyoSyncError) and kind not in {type(each) for each in MADE}
]


@pytest.mark.parametrize("error", [*MADE, *OTHERS], ids=lambda error: type(error).__name__)
def test_an_error_can_be_pickled_and_copied(error: ArroyoSyncError) -> None:
    """A pool of processes pickles what ends one: without that it is broken, or waits for ever."""
    mark_told(error)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        other = pickle.loads(pickle.dumps(error, protocol))
        assert (type(other), str(other), other.args) == (type(error), str(error), error.args)
        assert vars(other) == vars(error)
        assert getattr(other, TOLD_BY_MONITOR)
    assert vars(copy.copy(error)) == vars(error)
