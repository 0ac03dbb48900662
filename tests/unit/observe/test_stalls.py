from __future__ import annotations

from typing import NamedTuple

import pytest

from arroyo_sync.observe.snapshot import LeaderSnapshot, PartitionSnapshot
from arroyo_sync.observe.stalls import Stall, StallWatch, WaitsFor

STALLED_AFTER = 300.0


class Look(NamedTuple):
    """What is seen of the partition at a time."""

    at: float
    local: int | None
    remote: int | None
    high: int | None = 100
    held: int = 0


def partition(look: Look, leaders: tuple[LeaderSnapshot, ...] = ()) -> PartitionSnapshot:
    return PartitionSnapshot(
        "events",
        3,
        local_offset=look.local,
        remote_offset=look.remote,
        high_watermark=look.high,
        held_messages=look.held,
        leaders=leaders,
    )


def stalls_at_last(looks: list[Look]) -> list[Stall]:
    watch = StallWatch(STALLED_AFTER)
    stalls: list[Stall] = []
    for look in looks:
        stalls = watch.update([partition(look)], look.at)
    return stalls


LEADER, FOLLOWER = WaitsFor.LEADER, WaitsFor.FOLLOWER


@pytest.mark.parametrize(
    ("looks", "waits_for", "seconds"),
    [
        pytest.param([Look(0, 50, 50), Look(299, 50, 50)], None, 0, id="rule 6: not long enough yet"),
        pytest.param([Look(0, 50, 50), Look(300, 50, 50)], LEADER, 300, id="rule 6: the leader stands still"),
        pytest.param([Look(0, 50, 80), Look(300, 50, 80)], FOLLOWER, 300, id="rule 6: the follower stands still"),
        pytest.param([Look(0, 50, None), Look(300, 50, None)], LEADER, 300, id="rule 6: nothing was ever published"),
        pytest.param([Look(0, 60, 50), Look(300, 60, 50)], LEADER, 300, id="rule 6: the leader went back and stays"),
        pytest.param([Look(0, None, 50), Look(300, None, 50)], None, 0, id="rule 1: not assigned"),
        pytest.param([Look(0, 100, 100), Look(900, 100, 100)], None, 0, id="rule 1: all is done"),
        pytest.param([Look(0, 99, 99), Look(900, 99, 99)], None, 0, id="rule 1: a transaction's marker is no message"),
        pytest.param([Look(0, 99, 99, held=1), Look(300, 99, 99, held=1)], LEADER, 300, id="one held message waits"),
        pytest.param(
            [Look(0, 7, None, high=None, held=1), Look(300, 7, None, high=None, held=1)],
            LEADER,
            300,
            id="a held message waits though the end is unknown",
        ),
        pytest.param(
            [Look(0, 50, 50), Look(100, 100, 100), Look(350, 100, 100, high=200), Look(500, 100, 100, high=200)],
            None,
            0,
            id="rule 2: an idle time is no wait",
        ),
        pytest.param([Look(0, 50, 50), Look(200, 51, 51), Look(499, 51, 51)], None, 0, id="rule 3: messages went on"),
        pytest.param([Look(0, 50, 50), Look(200, 51, 51), Look(500, 51, 51)], LEADER, 300, id="rule 3: and then stand"),
        pytest.param([Look(0, 50, 50), Look(200, 40, 50), Look(499, 40, 50)], None, 0, id="rule 3: a seek back"),
        pytest.param([Look(0, 50, 10), Look(200, 50, 20), Look(499, 50, 20)], None, 0, id="rule 4: the leader works"),
        pytest.param([Look(0, 50, None), Look(200, 50, 0), Look(499, 50, 0)], None, 0, id="rule 4: it became known"),
        pytest.param([Look(0, 50, 0), Look(200, 50, 0), Look(300, 50, 0)], LEADER, 300, id="rule 4: 0 stays 0"),
        pytest.param([Look(0, 50, 50), Look(200, 50, 80), Look(499, 50, 80)], None, 0, id="rule 4: it opened"),
        pytest.param(
            [Look(0, 50, 50), Look(200, 50, 80), Look(500, 50, 80)], FOLLOWER, 300, id="rule 4: and then stand"
        ),
        pytest.param(
            [Look(0, 50, 30), Look(100, 50, 20), Look(200, 50, 30), Look(250, 50, 20), Look(300, 50, 30)],
            LEADER,
            300,
            id="rule 4: a leader that starts over again and again",
        ),
        pytest.param(
            [Look(0, 50, 60), Look(100, 50, 70), Look(200, 50, 80), Look(300, 50, 90)],
            FOLLOWER,
            300,
            id="rule 5: the leader runs ahead, the follower stands",
        ),
        pytest.param(
            [Look(0, 50, 60), Look(100, 50, None), Look(200, 50, 70), Look(300, 50, 70)],
            FOLLOWER,
            300,
            id="rule 5: once open, the follower must move",
        ),
        pytest.param(
            [Look(0, 50, 50), Look(150, 50, None), Look(300, 50, 50)], LEADER, 300, id="rule 5: unknown in between"
        ),
    ],
)
def test_what_is_a_stall(looks: list[Look], waits_for: WaitsFor | None, seconds: float) -> None:
    """The verdict at the last of several looks, by the rules of the module's docstring."""
    stalls = stalls_at_last(looks)
    assert [(stall.waits_for, stall.waiting_seconds) for stall in stalls] == (
        [] if waits_for is None else [(waits_for, seconds)]
    )


def test_a_partition_that_is_not_seen_is_forgotten() -> None:
    """A partition that was revoked and comes back begins its wait anew."""
    watch = StallWatch(STALLED_AFTER)
    waiting = partition(Look(0, 50, 50))
    watch.update([waiting], 0)
    watch.update([], 200)
    assert watch.update([waiting], 310) == []
    assert len(watch.update([waiting], 610)) == 1


SLOW = LeaderSnapshot("slow", published_offset=50)
FAST = LeaderSnapshot("fast", published_offset=90)


@pytest.mark.parametrize(
    ("look", "leaders", "says"),
    [
        pytest.param(
            Look(0, 50, 50),
            (FAST, SLOW),
            "events[3] has stood still for 300 s at 50: 50 messages wait for group 'slow', which is at 50",
            id="for the slowest group",
        ),
        pytest.param(
            Look(0, 50, None),
            (FAST, LeaderSnapshot("silent")),
            "events[3] has stood still for 300 s at 50: 50 messages wait for group 'silent', which has published"
            " nothing",
            id="for a group that never published",
        ),
        pytest.param(
            Look(0, 50, None),
            (FAST, SLOW),
            "events[3] has stood still for 300 s at 50: 50 messages wait, and what the leaders have committed isn't"
            " known (yet)",
            id="for the source",
        ),
        pytest.param(
            Look(0, 50, 50),
            (),
            "events[3] has stood still for 300 s at 50: 50 messages wait for the leaders, which are at 50",
            id="for leaders that nobody knows by name",
        ),
        pytest.param(
            Look(0, 50, 80),
            (FAST, SLOW),
            "events[3] has stood still for 300 s at 50: 30 messages are released up to 80, but the follower doesn't"
            " hand them on",
            id="for the follower",
        ),
    ],
)
def test_a_stall_says_where_since_when_for_whom_and_how_far(
    look: Look, leaders: tuple[LeaderSnapshot, ...], says: str
) -> None:
    """One line is enough to know whom to call."""
    watch = StallWatch(STALLED_AFTER)
    watch.update([partition(look, leaders)], 0)
    (stall,) = watch.update([partition(look, leaders)], 300)
    assert str(stall) == says


def test_the_longest_stall_comes_first() -> None:
    """The first one is where it began."""
    watch = StallWatch(STALLED_AFTER)
    first = PartitionSnapshot("events", 0, 5, 5, high_watermark=10)
    second = PartitionSnapshot("events", 1, 5, 5, high_watermark=10)
    watch.update([second], 0)
    watch.update([first, second], 100)
    assert [stall.partition for stall in watch.update([first, second], 400)] == [1, 0]
