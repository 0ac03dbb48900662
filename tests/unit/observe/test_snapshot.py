from __future__ import annotations

import json
from collections import Counter

import pytest

from arroyo_sync.core.source import SourceStatistics
from arroyo_sync.core.state import SynchronizedPartitionState as State
from arroyo_sync.observe.snapshot import MAX_BELIEVED_SECONDS, LeaderSnapshot, NextMessage, PartitionSnapshot, Snapshot


def partition(
    local: int | None, remote: int | None, high: int | None, low: int | None = 0, held: int | None = None
) -> PartitionSnapshot:
    return PartitionSnapshot(
        "events",
        0,
        local_offset=local,
        remote_offset=remote,
        high_watermark=high,
        low_watermark=low,
        held_messages=held,
    )


@pytest.mark.parametrize(
    ("local", "remote", "high", "slow", "gated"),
    [
        pytest.param(10, 30, 100, 20, 70, id="both: 20 released and not handed on, 70 wait for a leader"),
        pytest.param(30, 30, 100, 0, 70, id="synchronized: everything waits for the leader"),
        pytest.param(10, 100, 100, 90, 0, id="the leader is done: everything waits for the follower"),
        pytest.param(100, 100, 100, 0, 0, id="all done"),
        pytest.param(40, 30, 100, 0, 60, id="the leader went back: what the follower has doesn't wait"),
        pytest.param(10, None, 100, 0, 90, id="remote unknown: everything waits for a leader"),
        pytest.param(10, 500, 100, 90, 0, id="a remote offset past the end: no more than exists"),
        pytest.param(None, 30, 100, 30, 70, id="nothing committed yet: counted from the low watermark"),
        pytest.param(10, 30, None, 20, None, id="the end is unknown: what is released is known all the same"),
        pytest.param(None, None, None, 0, None, id="nothing is known"),
    ],
)
def test_the_two_lags(local: int | None, remote: int | None, high: int | None, slow: int, gated: int | None) -> None:
    """Slow is what is released and not handed on, gated what waits for a leader."""
    shown = partition(local, remote, high)
    assert (shown.released_lag, shown.gated_lag) == (slow, gated)


@pytest.mark.parametrize("remote", [None, 0, 10, 55, 100, 200])
@pytest.mark.parametrize("local", [0, 10, 55, 100])
def test_the_two_lags_add_up_to_all_that_the_follower_lacks(local: int, remote: int | None) -> None:
    """No message is counted twice, and none is forgotten, wherever the leader stands."""
    shown = partition(local, remote, high=100)
    assert shown.released_lag is not None
    assert shown.gated_lag is not None
    assert shown.released_lag + shown.gated_lag == 100 - local


def test_what_is_held_waits_though_nobody_knows_the_end() -> None:
    """BufferedMessage messages exist: with no watermark known, a closed gate still shows that they wait."""
    assert partition(local=7, remote=None, high=None, held=5).gated_lag == 5
    assert partition(local=7, remote=7, high=None, held=5).gated_lag == 5


@pytest.mark.parametrize(
    ("local", "remote", "state"),
    [
        (None, 3, State.UNKNOWN),
        (3, None, State.UNKNOWN),
        (2, 3, State.LOCAL_BEHIND),
        (3, 3, State.SYNCHRONIZED),
        (4, 3, State.REMOTE_BEHIND),
    ],
)
def test_the_state_is_the_managers(local: int | None, remote: int | None, state: State) -> None:
    """A snapshot derives the state by the manager's own rule."""
    assert partition(local, remote, 10).state is state


@pytest.mark.parametrize(
    ("written_at", "seconds"),
    [
        pytest.param(940.0, 60.0, id="a minute ago"),
        pytest.param(1000.0 - MAX_BELIEVED_SECONDS, MAX_BELIEVED_SECONDS, id="as long ago as it may be"),
        pytest.param(999.0 - MAX_BELIEVED_SECONDS, None, id="of long ago"),
        pytest.param(1060.0, 0.0, id="now, by a clock that is as far ahead as it may be"),
        pytest.param(1060.5, None, id="from the future"),
        pytest.param(None, None, id="no timestamp"),
    ],
)
def test_how_long_ago_the_first_waiting_message_was_written(written_at: float | None, seconds: float | None) -> None:
    """Where that can be believed."""
    shown = PartitionSnapshot("events", 0, next_message=NextMessage(7, written_at))
    assert shown.lag_seconds(1000.0) == seconds


SLOW = LeaderSnapshot("slow", published_offset=30)
FAST = LeaderSnapshot("fast", published_offset=90)
SILENT = LeaderSnapshot("silent")
IMPOSSIBLE = LeaderSnapshot("impossible", published_offset=10, is_rejected=True)


@pytest.mark.parametrize(
    ("leaders", "remote", "blocks"),
    [
        pytest.param((FAST, SLOW), 30, "slow", id="the lowest offset"),
        pytest.param((FAST, SLOW, SILENT), None, "silent", id="one that never published, before any other"),
        pytest.param((FAST, SLOW, IMPOSSIBLE), None, "impossible", id="one whose offset can't be"),
        pytest.param((FAST, SLOW), None, None, id="none: all published, so the source isn't ready"),
        pytest.param((), None, None, id="none: nobody knows the leaders"),
        pytest.param((FAST, SLOW), 100, None, id="none: nothing waits"),
    ],
)
def test_who_is_waited_for(leaders: tuple[LeaderSnapshot, ...], remote: int | None, blocks: str | None) -> None:
    """Messages wait for the slowest leader, and for nobody if none is to blame."""
    shown = PartitionSnapshot("events", 0, 20, remote, high_watermark=100, leaders=leaders)
    assert (shown.blocked_by and shown.blocked_by.group) == blocks


def test_each_leaders_own_part_of_the_gated_lag() -> None:
    """Every leader's lag is counted from what the follower has, so the slowest one's is the whole gated lag."""
    shown = PartitionSnapshot("events", 0, 20, 30, high_watermark=100, leaders=(FAST, SLOW, SILENT))
    assert [shown.gated_lag_of(each) for each in shown.leaders] == [10, 70, 80]


def test_all_that_the_follower_lacks_waits_for_a_leader_whose_report_can_not_be_true() -> None:
    """Its offset says nothing of this partition, and mostly lies past its end: the healthy group had the most."""
    impossible = LeaderSnapshot("impossible", published_offset=5000, is_rejected=True)
    shown = PartitionSnapshot("events", 0, 20, None, high_watermark=100, leaders=(FAST, impossible))
    assert [shown.gated_lag_of(each) for each in shown.leaders] == [10, 80]


def test_json_holds_what_is_derived_and_survives_a_round_trip() -> None:
    """What the status command prints can be read by a script: names as in the class, and the derived values."""
    shown = Snapshot(
        1700000000.0,
        (PartitionSnapshot("events", 0, 20, 30, 0, 100, leaders=(FAST, SLOW)),),
        SourceStatistics(
            ready=True, alive=True, malformed=Counter({"key": 2}), groups_reported=frozenset({"slow", "fast"})
        ),
    )
    told = json.loads(json.dumps(shown.to_json()))
    assert told["source"]["malformed"] == {"key": 2}
    assert told["source"]["groups_reported"] == ["fast", "slow"]
    (first,) = told["partitions"]
    assert {name: first[name] for name in ("state", "gated_lag", "released_lag", "blocked_by")} == {
        "state": "LOCAL_BEHIND",
        "gated_lag": 70,
        "released_lag": 10,
        "blocked_by": "slow",
    }
    assert [each["published_offset"] for each in first["leaders"]] == [90, 30]
