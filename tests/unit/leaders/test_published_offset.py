"""For how long something has been pending."""

from __future__ import annotations

from arroyo_sync.leaders.published_offset import PendingReports

KEY, OTHER = ("events", 0), ("events", 1)


def test_what_is_pending_counts_once_the_time_is_reached() -> None:
    """From the look on that found it first, each by itself; and no more when a look doesn't find it."""
    pending = PendingReports()
    pending.look({(KEY, "g"): None}, 10.0)
    pending.look({(KEY, "g"): None, (OTHER, "g"): 7}, 12.0)
    assert pending.partitions(24.9, 15.0) == set()
    assert pending.partitions(25.0, 15.0) == {KEY}
    assert pending.partitions(27.0, 15.0) == {KEY, OTHER}
    pending.look({(OTHER, "g"): 7}, 27.0)
    assert pending.partitions(27.0, 15.0) == {OTHER}


def test_what_was_verified_in_between_is_pending_since_then() -> None:
    """The offset in force grows, or there is one at last; one that falls, or is gone, was verified by nothing."""
    pending = PendingReports()
    places = (KEY, "grows"), (KEY, "falls"), (OTHER, "is there"), (OTHER, "is gone")
    pending.look(dict(zip(places, (5, 5, None, 5), strict=True)), 0.0)
    pending.look(dict(zip(places, (6, 4, 0, None), strict=True)), 10.0)
    assert pending.partitions(15.0, 15.0) == {KEY, OTHER}
    pending.look({places[0]: 6, places[2]: 0}, 15.0)
    assert pending.partitions(24.9, 15.0) == set()
    assert pending.partitions(25.0, 15.0) == {KEY, OTHER}
