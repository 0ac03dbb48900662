from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

import pytest

from arroyo_sync.core.errors import BrokersUnreachable, NotReady
from arroyo_sync.core.source import SourceStatistics
from arroyo_sync.core.state import PartitionKey
from arroyo_sync.observe.snapshot import LeaderSnapshot, NextMessage, PartitionSnapshot, Snapshot
from arroyo_sync.status.answers.log_records import GroupsOnLog
from arroyo_sync.status.check import ExitStatus, Reported, StatusCheck
from arroyo_sync.status.watch import Watch, rates

AWAY = BrokersUnreachable("no broker answered")
READING = NotReady("commit log wasn't ready after 5 s: it still has to read partitions 0 (read up to 40 of 900)")


def snapshot(at: float, local: int = 100, high: int = 100, read: int = 0) -> Snapshot:
    partition = PartitionSnapshot("events", 0, local, local, 0, high, (LeaderSnapshot("writers", local),))
    return Snapshot(at, (partition,), SourceStatistics(True, True, read=read))


class World:
    """What is read, look after look; also the clock, which stands at the look's time."""

    def __init__(self, *looks: Snapshot | Exception) -> None:
        self.looks = list(looks)
        self.now = 0.0
        self.closed: list[int] = []
        self.opened = 1
        self.slept: list[float] = []
        check = StatusCheck(self, "forwarder", 300.0, 5.0, self.slept.append)
        self.watch = Watch(check, self, self.open, str, sleep=self.slept.append, wall_clock=lambda: self.now)

    def open(self) -> World:
        self.opened += 1
        return self

    def read(self) -> Snapshot:
        look = self.looks.pop(0)
        if isinstance(look, Exception):
            raise look
        self.now = look.taken_at
        return look

    def find_messages(self, positions: Mapping[PartitionKey, int]) -> Mapping[PartitionKey, NextMessage]:
        return {key: NextMessage(position) for key, position in positions.items()}

    def groups_on_log(self) -> GroupsOnLog:
        return GroupsOnLog(())

    def reported_since(self, since: float) -> Reported:
        return {}

    def close(self) -> None:
        self.closed.append(self.opened)


def test_one_look_is_one_look() -> None:
    """Without an interval nothing is waited for."""
    world = World(snapshot(0.0))
    (seen,) = world.watch.looks(None)
    assert seen.exit_status is ExitStatus.GOING_ON
    assert world.slept == []


def test_what_keeps_the_first_look_from_being_had_is_raised() -> None:
    """A wrong address is no reason to watch."""
    with pytest.raises(BrokersUnreachable):
        next(World(AWAY).watch.looks(2.0))


def test_it_goes_on_while_the_brokers_are_away_and_says_since_when_it_is_blind() -> None:
    """With what was seen last; it looks with a new reader, and says when it sees again."""
    world = World(snapshot(1000.0), AWAY, AWAY, snapshot(1012.0))
    seen = list(islice(world.watch.looks(2.0), 4))
    assert [each.blind_since for each in seen] == [None, 1000.0, 1000.0, None]
    assert [each.exit_status for each in seen] == [0, 2, 2, 0]
    assert seen[2].blind_reason == "no broker answered"
    assert (world.closed, world.opened) == ([1, 2], 3)
    assert seen[3].notes[-1] == "00:16:52 no longer blind, after 12 s"
    assert world.watch.last is seen[3]


@pytest.mark.parametrize(
    ("looks", "opened", "change"),
    [
        pytest.param((AWAY, READING, READING), 2, "blind: the brokers don't answer", id="after the brokers were away"),
        pytest.param((READING, READING), 1, "blind: the commit log is being read", id="anew, by itself"),
    ],
)
def test_a_reader_that_still_reads_the_commit_log_is_kept(
    looks: tuple[Exception, ...], opened: int, change: str
) -> None:
    """A new one would begin again, so that a log which takes longer to read than a look may was never read to its end.
    Meanwhile the watch shows how far it is.
    """
    world = World(snapshot(1000.0), *looks, snapshot(1012.0))
    seen = list(islice(world.watch.looks(2.0), len(looks) + 2))
    assert seen[-2].blind_reason == str(READING)
    assert seen[-2].notes[0].endswith(change)
    assert seen[-1].blind_since is None
    assert (world.closed, world.opened) == ([1] if AWAY in looks else [], opened)


def test_rates_and_what_changed_are_told() -> None:
    """From one look to the next."""
    world = World(snapshot(0.0), snapshot(2.0, high=150, read=8), snapshot(30.0, high=150, read=8))
    seen = list(islice(world.watch.looks(2.0), 3))
    assert seen[0].notes == ()
    assert seen[1].notes == ("25.0 messages a second, 4.0 reports a second",)
    assert seen[2].notes == ("0.0 messages a second, 0.0 reports a second", "00:00:30 events[0] was ok, is waiting")


def test_rates_need_time_to_have_passed() -> None:
    """A clock that was set back tells nothing."""
    assert rates(snapshot(5.0), snapshot(5.0)) is None
    assert rates(snapshot(5.0), snapshot(4.0)) is None
