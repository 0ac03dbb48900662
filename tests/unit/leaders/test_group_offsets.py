"""The source that asks for the groups' commits: what it says of groups without any. The rest is tested on Kafka."""

from __future__ import annotations

import pytest

from arroyo_sync.core.state import SynchronizedPartitionStateManager
from arroyo_sync.leaders import offset_source
from arroyo_sync.leaders.group_offsets import GroupOffsetsSource
from tests.support.fakes import Clock

KEY = ("events", 0)


def test_silence_is_told_of_partitions_that_are_assigned_for_long(caplog: pytest.LogCaptureFixture) -> None:
    """What was told of a revoked partition is forgotten, which is nobody's silence; nor is a question on its way."""
    clock = Clock()
    source = GroupOffsetsSource({"bootstrap.servers": "127.0.0.1:1"}, groups={"g"}, clock=clock)
    source._offsets.attach(SynchronizedPartitionStateManager())

    def warnings() -> list[str]:
        caplog.clear()
        source._warn_of_silence()
        return [record.getMessage() for record in caplog.records]

    source._set_ready(True)
    clock.now += offset_source.SILENCE_SECONDS
    assert warnings() == []
    source.assign({KEY: 0}, None)
    assert warnings() == []
    clock.now += offset_source.SILENCE_SECONDS
    (line,) = warnings()
    assert "group 'g' has published nothing at all" in line
    source.revoke([KEY])
    assert warnings() == []
