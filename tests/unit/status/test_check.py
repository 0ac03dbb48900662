from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from arroyo_sync.core.state import PartitionKey
from arroyo_sync.observe.snapshot import LeaderSnapshot, PartitionSnapshot, Snapshot
from arroyo_sync.observe.stalls import WaitsFor
from arroyo_sync.status.check import MAX_FETCHED, ExitStatus, Status, StatusCheck

NOW = 10_000.0
STALLED_AFTER = 300.0
LOOK_AGAIN = 5.0


def partition(
    local: int | None, remote: int | None, high: int = 100, index: int = 0, group_offset: int | None = None
) -> PartitionSnapshot:
    leader = LeaderSnapshot("writers", remote if group_offset is None else group_offset)
    return PartitionSnapshot("events", index, local, remote, 0, high, (leader,))


class Brokers:
    """What is read, look after look, and how old the messages at the positions are."""

    def __init__(self, *looks: list[PartitionSnapshot], ages: Mapping[int, float] | None = None) -> None:
        self.looks = list(looks)
        self.ages = {0: 1000.0} if ages is None else ages
        self.now = NOW
        self.slept: list[float] = []
        self.asked: list[Mapping[PartitionKey, int]] = []
        self.check = StatusCheck(self, "forwarder", STALLED_AFTER, LOOK_AGAIN, self.sleep)

    def read(self) -> Snapshot:
        looked = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        return Snapshot(self.now, tuple(looked))

    def written_at(self, positions: Mapping[PartitionKey, int]) -> Mapping[PartitionKey, float]:
        self.asked.append(positions)
        return {key: NOW - self.ages[key[1]] for key in positions if key[1] in self.ages}

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.mark.parametrize(
    ("looks", "exit_status", "waits_for"),
    [
        pytest.param([[partition(100, 100)]], 0, None, id="nothing waits"),
        pytest.param([[partition(50, 50)]], 1, WaitsFor.LEADER, id="the leader doesn't move between two looks"),
        pytest.param([[partition(50, 80)]], 1, WaitsFor.FOLLOWER, id="the follower doesn't move between two looks"),
        pytest.param([[partition(50, None)]], 1, WaitsFor.LEADER, id="a leader never published, and messages are old"),
        pytest.param([[partition(50, 50)], [partition(50, 60)]], 0, None, id="the leader works through its backlog"),
        pytest.param([[partition(50, 80)], [partition(60, 80)]], 0, None, id="the follower works through its backlog"),
        pytest.param([[partition(50, 80)], [partition(50, 90)]], 1, WaitsFor.FOLLOWER, id="only the leader moves"),
        pytest.param([[partition(99, 99)]], 0, None, id="a transaction's marker is no message"),
        pytest.param(
            [[partition(None, 80), partition(5, 5, 5, 1)]], 1, WaitsFor.FOLLOWER, id="one was never committed"
        ),
        pytest.param([[partition(None, 80)]], 1, WaitsFor.FOLLOWER, id="nothing was ever committed, messages are old"),
    ],
)
def test_the_verdict(looks: list[list[PartitionSnapshot]], exit_status: int, waits_for: WaitsFor | None) -> None:
    """The message at the position is old enough: a second look tells."""
    status = Brokers(*looks).check.check_once()
    assert status.exit_status == exit_status
    assert [stall.waits_for for stall in status.stalls] == ([] if waits_for is None else [waits_for])


def test_young_messages_are_no_stall_and_need_no_second_look() -> None:
    """The leader just hasn't got there yet."""
    brokers = Brokers([partition(50, 50)], ages={0: 299.0})
    assert brokers.check.check_once().exit_status is ExitStatus.GOING_ON
    assert brokers.slept == []


def test_a_stall_is_as_old_as_its_oldest_message() -> None:
    """As of the second look."""
    brokers = Brokers([partition(50, 50)])
    (stall,) = brokers.check.check_once().stalls
    assert stall.waiting_seconds == 1000.0 + LOOK_AGAIN
    assert brokers.slept == [LOOK_AGAIN]
    assert (stall.group, stall.group_offset, stall.behind) == ("writers", 50, 50)


def test_a_position_with_no_message_does_not_wait() -> None:
    """What lies there is a transaction's marker, or was compacted away."""
    brokers = Brokers([partition(50, 50)], ages={})
    assert brokers.check.check_once().exit_status is ExitStatus.GOING_ON


def test_of_many_partitions_only_some_messages_are_fetched_those_of_the_longest_lag_first() -> None:
    """A thousand partitions that wait for one leader don't fetch a thousand messages."""
    count = MAX_FETCHED + 50
    brokers = Brokers([partition(50, 50, 100 + index, index) for index in range(count)], ages={})
    brokers.check.check_once()
    assert {key[1] for key in brokers.asked[0]} == set(range(50, count))


def test_watching_needs_no_second_look_later_on() -> None:
    """What the watch has seen is what counts: a partition that moved is as old as its last move."""
    brokers = Brokers([partition(50, 50)], [partition(50, 60)], [partition(60, 60)])
    assert brokers.check.check_once().exit_status is ExitStatus.GOING_ON
    brokers.now += 200
    assert brokers.check.check_once().exit_status is ExitStatus.GOING_ON
    brokers.now += 299
    assert brokers.check.check_once().exit_status is ExitStatus.GOING_ON
    brokers.now += 1
    (stall,) = brokers.check.check_once().stalls
    assert stall.waiting_seconds == 300.0
    assert brokers.slept == [LOOK_AGAIN]


def test_a_follower_that_has_committed_nothing_can_not_be_told() -> None:
    """Its name may be wrong."""
    status = Brokers([partition(None, 0, 0)]).check.check_once()
    assert status.exit_status is ExitStatus.UNKNOWN
    assert status.doubts == ("group 'forwarder' has committed nothing of events: is its name right, and has it run?",)


def test_the_exit_statuses_are_those_that_are_documented() -> None:
    """They are an interface: 0 all right, 1 stalled, 2 can't tell."""
    assert [(each.name, each.value) for each in ExitStatus] == [("GOING_ON", 0), ("STALLED", 1), ("UNKNOWN", 2)]


def test_json_tells_the_verdict_and_everything_it_rests_on() -> None:
    """For scripts."""
    status = Brokers([partition(50, 50), partition(None, 0, 0, 1)]).check.check_once()
    told = json.loads(json.dumps(status.to_json()))
    assert told["status"] == "stalled"
    assert told["stalls"] == [
        {
            "topic": "events",
            "partition": 0,
            "waits_for": "leader",
            "group": "writers",
            "group_offset": 50,
            "behind": 50,
            "waiting_seconds": 1005.0,
        }
    ]
    assert [each["gated_lag"] for each in told["partitions"]] == [50, 0]
    assert Status(Snapshot(NOW, ())).to_json()["status"] == "going_on"
