"""A look that walks all partitions by their offsets alone finds what one that takes a snapshot of all finds."""

from __future__ import annotations

import logging
import random
from collections.abc import Collection, Mapping
from dataclasses import replace

import pytest
from arroyo.utils.metrics import DummyMetricsBackend

from arroyo_sync.core.source import SourceStatistics
from arroyo_sync.core.state import PartitionKey, SynchronizedPartitionState
from arroyo_sync.observe.metrics_reporter import GateCounts, MetricsReporter
from arroyo_sync.observe.monitor import Monitor
from arroyo_sync.observe.problems import Problem
from arroyo_sync.observe.snapshot import LeaderSnapshot, PartitionSnapshot, Snapshot
from arroyo_sync.observe.waits import Rewind, Standing, Survey, Wait, later

STALLED_AFTER = 40.0


class Follower:
    """A follower whose partitions do anything, seen by two monitors: with a survey, and without."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.now = 0.0
        self.is_ready = True
        self.polls = 0
        self.partitions = {index: self._partition(index) for index in range(4)}
        self.away: dict[int, PartitionSnapshot] = {}
        self.looked_at: Collection[PartitionKey] | None = None
        self.told: dict[str, list[str]] = {"survey": [], "snapshot": []}
        self.brief = self._monitor("survey")
        self.whole = self._monitor("snapshot")

    def _monitor(self, name: str) -> Monitor:
        def tell(problem: Problem, snapshot: Snapshot) -> None:
            self.told[name].append(f"{problem} of {len(snapshot.partitions)}")

        return Monitor(
            self.observe,
            survey=self.survey if name == "survey" else None,
            ask_ends=None,
            gate_counts=GateCounts,
            end=lambda error: None,
            tell=tell,
            stalled_after=STALLED_AFTER,
            interval=None,
            clock=lambda: self.now,
            reporter=MetricsReporter(DummyMetricsBackend),
        )

    @staticmethod
    def _partition(index: int) -> PartitionSnapshot:
        leaders = (LeaderSnapshot("writers", 50, has_reported=True), LeaderSnapshot("typo"))
        return PartitionSnapshot(
            "events", index, 50, 50, high_watermark=60, leaders=leaders, held_messages=0, has_received=False
        )

    def act(self) -> None:
        """Something happens, and time passes: sometimes enough for a stall."""
        for _ in range(self._random.randrange(3)):
            index = self._random.randrange(4)
            if index in self.away:
                held = self._random.choice([0, 0, 3])
                back = replace(self.away.pop(index), held_messages=held, has_received=held > 0)
                self.partitions[index] = back
                continue
            now = self.partitions[index]
            writers, typo = now.leaders
            writers = replace(writers, is_rejected=self._random.random() < 0.3)
            self.partitions[index] = self._random.choice(
                [
                    replace(now, local_offset=self._random.randrange(45, 60)),
                    replace(now, remote_offset=self._random.choice([None, *range(45, 62)])),
                    replace(now, held_messages=self._random.choice([0, 0, 3]), has_received=True),
                    replace(now, high_watermark=self._random.choice([None, 50, 55, 60, 70])),
                    replace(now, leaders=(writers, typo)),
                ]
            )
            if self._random.random() < 0.1:
                self.away[index] = self.partitions.pop(index)
        if self._random.random() < 0.1:
            self.is_ready = not self.is_ready
        self.polls += self._random.choice([0, 0, 1])
        self.now += self._random.choice([1, 1, 1, 5, 20])

    def observe(self, ends: Mapping[PartitionKey, int], partitions: Collection[PartitionKey] | None) -> Snapshot:
        self.looked_at = partitions
        shown = [each for _, each in sorted(self.partitions.items()) if partitions is None or each.key in partitions]
        source = SourceStatistics(ready=self.is_ready, alive=True)
        return Snapshot(self.now, tuple(shown), source, empty_polls=self.polls, local_offsets=self._local_offsets())

    def _local_offsets(self) -> int:
        return sum(each.local_offset or 0 for each in self.partitions.values())

    def survey(self, ends: Mapping[PartitionKey, int]) -> Survey:
        standings: list[Standing] = []
        unreceived: list[Standing] = []
        for each in self.partitions.values():
            assert each.local_offset is not None
            has_held = bool(each.held_messages)
            standing = each.key, each.local_offset, each.remote_offset, each.high_watermark, has_held
            if has_held or each.state is SynchronizedPartitionState.LOCAL_BEHIND:
                standings.append(standing)
            elif not each.has_received:
                unreceived.append(standing)
        return Survey(
            [each.key for each in self.partitions.values()],
            standings,
            [each.key for each in self.partitions.values() if each.leaders[0].is_rejected],
            self.is_ready,
            self.polls,
            self._local_offsets(),
            unreceived,
        )


@pytest.mark.parametrize("seed", range(40))
def test_both_find_the_same(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    """The same stalls at the same time, the same events with everything in them, the same lines."""
    caplog.set_level(logging.WARNING)
    follower = Follower(seed)
    for _ in range(150):
        follower.act()
        follower.brief.check_once()
        lines = caplog.messages
        caplog.clear()
        follower.whole.check_once()
        assert caplog.messages == lines
        caplog.clear()
        assert follower.brief.stalls == follower.whole.stalls
        assert follower.brief.verdicts() == follower.whole.verdicts()
    assert follower.told["survey"] == follower.told["snapshot"]


def test_the_random_followers_stall_wait_and_are_rejected() -> None:
    """Else the test above would prove little."""
    told = []
    for seed in range(40):
        follower = Follower(seed)
        for _ in range(150):
            follower.act()
            follower.brief.check_once()
        told += follower.told["survey"]
    for what in ("has stood still", "beyond the partition's end", "typo", "the follower doesn't pass them on"):
        assert any(what in each for each in told), what


def test_it_takes_a_snapshot_of_those_alone_that_have_waited_for_long_or_are_rejected() -> None:
    """So that a look costs what is ill; none of those that moved; and of the first one, which shows the groups."""
    follower = Follower(0)
    waiting = replace(follower.partitions[1], held_messages=3)
    follower.partitions[1] = waiting
    follower.partitions[2] = replace(waiting, partition=2)
    leaders = follower.partitions[3].leaders
    follower.partitions[3] = replace(
        follower.partitions[3], leaders=(replace(leaders[0], is_rejected=True), leaders[1])
    )
    follower.brief.check_once()
    follower.now = 14.0
    follower.brief.check_once()
    assert follower.looked_at == {("events", 0), ("events", 3)}
    follower.now = 15.0
    follower.partitions[2] = replace(follower.partitions[2], local_offset=51)
    follower.brief.check_once()
    follower.brief.check_once()  # the first one told of the new wait, with a snapshot of all
    assert follower.looked_at == {("events", 0), ("events", 1), ("events", 3)}


def test_waits_that_are_put_off_are_so_in_all_their_times() -> None:
    """And in nothing else: what isn't known stays so."""
    wait = Wait(1.0, 2.0, 50, 40, 30, 60, 7, 3.0, 90, 4.0, Rewind(5.0, 20, 0.5, 45), 6.0)
    bare = Wait(1.0, 2.0, 50, 40, 30)
    assert later({("events", 0): wait, ("events", 1): bare}, 100.0) == {
        ("events", 0): Wait(101.0, 102.0, 50, 40, 30, 60, 7, 103.0, 90, 104.0, Rewind(105.0, 20, 100.5, 45), 106.0),
        ("events", 1): Wait(101.0, 102.0, 50, 40, 30),
    }
