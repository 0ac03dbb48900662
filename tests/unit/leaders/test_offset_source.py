"""What every source of remote offsets does about its topic. Most of it is tested with one of the sources."""

from __future__ import annotations

import pytest

from arroyo_sync.core.errors import SourceDied, TopicRecreated
from arroyo_sync.core.state import SynchronizedPartitionStateManager
from arroyo_sync.leaders.group_offsets import GroupOffsetsSource
from arroyo_sync.leaders.verifier import Verifier

RECREATED = TopicRecreated("events", "one", "two")


@pytest.mark.parametrize("earlier", [None, RuntimeError("the commit log is gone")])
def test_a_topic_that_is_found_to_be_another_fails_the_manager(
    monkeypatch: pytest.MonkeyPatch, earlier: Exception | None
) -> None:
    """Whatever the source had died of before: nothing of the earlier topic may be committed."""

    def check_topics(verifier: Verifier, timeout: float) -> None:
        assert timeout == 2.5
        raise RECREATED

    source = GroupOffsetsSource({"bootstrap.servers": "127.0.0.1:1"}, groups={"g"})
    source.check_topic(2.5)
    manager = SynchronizedPartitionStateManager()
    source.start(manager)
    try:
        if earlier is not None:
            source._die(earlier)
        monkeypatch.setattr(Verifier, "check_topics", check_topics)
        source.check_topic(2.5)
        assert manager.failure is RECREATED
        with pytest.raises(SourceDied) as died:
            source.check()
        assert died.value.__cause__ is (earlier or RECREATED)
    finally:
        source.stop(10.0)
