"""What becomes of a leader's report, seen from outside. The reading itself is shown on the real broker."""

from __future__ import annotations

import pytest

from arroyo_sync.core.source import LeaderOffset
from arroyo_sync.status.reader import _leader


@pytest.mark.parametrize(
    ("offset", "topic_id", "current_id", "because"),
    [
        (50, "a", "a", None),
        (50, None, "a", None),
        (50, "a", None, None),
        (50, "b", "a", "of an earlier topic of that name"),
        (500, "b", "a", "of an earlier topic of that name"),
        (500, "a", "a", "beyond the partition's end"),
    ],
    ids=["true", "without an id", "no id is known", "of another topic", "of another topic and too far", "too far"],
)
def test_a_report_of_an_earlier_topic_or_past_the_end_can_not_be_true(
    offset: int, topic_id: str | None, current_id: str | None, because: str | None
) -> None:
    """Also once the new topic has outgrown it."""
    said = LeaderOffset(offset, 1_000, 0.0, topic_id=topic_id)
    leader = _leader("writers", said, committed=None, end=100, topic_id=current_id, now=10.0)
    assert leader.is_rejected is (because is not None)
    assert because in (None, leader.why_rejected)
