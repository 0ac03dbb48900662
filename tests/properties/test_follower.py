"""A follower in larger worlds and over longer runs than can be explored, made up by hypothesis, with the same judge.

``ARROYO_SYNC_PROPERTIES=long .venv/bin/python -m pytest tests/properties`` runs for about half an hour with new runs
each time; without it the runs are the same every time.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from arroyo.commit import CommitPolicy
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from arroyo_sync.gate.partition_buffer import MESSAGE_OVERHEAD_BYTES, HoldLimits
from tests.model.scripted import ANSWERS, PARTITIONS, CommitAlways
from tests.model.world import World, models

COMMON = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck), "print_blob": False}
PROFILES: dict[str, Any] = {
    "short": settings(derandomize=True, max_examples=120, stateful_step_count=50, **COMMON),  # type: ignore[arg-type]
    "long": settings(max_examples=10_000, stateful_step_count=200, **COMMON),  # type: ignore[arg-type]
}

PLACES = ("gate poll", "gate submit", "check", "step poll", "step submit", "wait")
IMPOSSIBLE = 10**9

some_partition = st.integers(0, 3)
some_partitions = st.sets(some_partition, min_size=1).map(frozenset)
some_group = st.sampled_from("abc")
some_offset = st.one_of(st.none(), st.integers(0, 60), st.just(IMPOSSIBLE), st.just("end"))
some_answer = st.sampled_from(ANSWERS)


@st.composite
def some_limits(draw: st.DrawFn) -> HoldLimits:
    messages = draw(st.integers(1, 6))
    resume = draw(st.integers(0, messages - 1))
    if draw(st.booleans()):
        return HoldLimits(messages=messages, resume_messages=resume)
    return HoldLimits(bytes=MESSAGE_OVERHEAD_BYTES * messages, resume_bytes=MESSAGE_OVERHEAD_BYTES * resume)


class Follower(RuleBasedStateMachine):
    """One follower, its leaders, its brokers and its user. It may crash, and is started again."""

    def __init__(self) -> None:
        super().__init__()
        self.models = models()
        self.models.__enter__()
        self.world: World
        self.make: Callable[[World | None], World]

    @initialize(
        partitions=st.integers(1, 4),
        groups=st.integers(1, 3),
        limits=some_limits(),
        kind=st.sampled_from(["KIP-848", "KIP-848", "eager", "eager and unwrapped"]),
        commit_policy=st.sampled_from([CommitAlways(), CommitPolicy(None, 3), CommitPolicy(1, None)]),
    )
    def start(self, partitions: int, groups: int, limits: HoldLimits, kind: str, commit_policy: CommitPolicy) -> None:
        self.make = lambda before: World(
            partitions,
            "abc"[:groups],
            is_kip848=kind == "KIP-848",
            is_wrapped=kind != "eager and unwrapped",
            limits=limits,
            commit_policy=commit_policy,
            before=before,
        )
        self.world = self.make(None)
        for partition in range(partitions):
            self.world.produce(partition, 10)
            self.leaders_move(partition, 0)
        self.rebalance(frozenset(range(partitions)), "accept", False, None)

    @rule(partition=some_partition, count=st.integers(1, 8), is_committed=st.booleans())
    def produce(self, partition: int, count: int, is_committed: bool) -> None:
        """Messages are produced, and perhaps every leader commits them at once."""
        partition %= self.world.partitions
        self.world.produce(partition, count)
        for group in self.world.groups if is_committed else "":
            self.publish(partition, group, "end")

    @rule(partition=some_partition, distance=st.integers(-2, 4))
    def leaders_move(self, partition: int, distance: int) -> None:
        """All leaders publish an offset near the follower's local one."""
        partition %= self.world.partitions
        offset = max(0, self.world.judge.partitions[partition].local + distance)
        for group in self.world.groups:
            self.publish(partition, group, offset)

    @rule(partition=some_partition, group=some_group, offset=some_offset)
    def publish(self, partition: int, group: str, offset: int | str | None) -> None:
        partition %= self.world.partitions
        end = self.world.brokers.ends[partition]
        if isinstance(offset, int) and offset != IMPOSSIBLE:
            offset = min(offset, end)
        if group in self.world.groups:
            self.world.publish(partition, group, end if isinstance(offset, str) else offset)

    @rule(silent=st.just(frozenset()) | some_partitions)
    def source_asks_brokers(self, silent: frozenset[int] = frozenset()) -> None:
        """Those of some partitions may be away."""
        self.world.ask_brokers(silent)

    @rule(
        messages=st.lists(st.one_of(some_partition, st.none()), min_size=1, max_size=12),
        answer=some_answer,
        is_working=st.booleans(),
    )
    def run(self, messages: list[int | None], answer: str, is_working: bool) -> None:
        for message in messages:
            self._turn(message, answer, is_working)

    @rule(
        partition=some_partition,
        held=st.integers(1, 4),
        distance=st.integers(1, 4),
        answers=st.lists(some_answer, max_size=4),
    )
    def hold_and_release(self, partition: int, held: int, distance: int, answers: list[str]) -> None:
        """Messages are held, then the leaders move."""
        for _ in range(held):
            self._turn(partition, "accept")
        self.leaders_move(partition, distance)
        for answer in answers:
            self._turn(None, answer)

    @rule(
        message=st.one_of(st.none(), some_partition),
        answer=some_answer,
        place=st.sampled_from(PLACES),
        partition=some_partition,
        group=some_group,
        offset=some_offset,
    )
    def run_and_publish_meanwhile(
        self, message: int | None, answer: str, place: str, partition: int, group: str, offset: int | str | None
    ) -> None:
        self.world.hooks[place] = lambda: self.publish(partition, group, offset)
        self._turn(message, answer)

    @rule(partitions=some_partitions, answer=some_answer, is_lost=st.booleans(), message=st.none() | some_partition)
    def rebalance(self, partitions: frozenset[int], answer: str, is_lost: bool, message: int | None) -> None:
        """Under KIP-848 each of these is taken if it is there, and given if not; else all are."""
        consumer = self.world.consumer
        partitions = frozenset(each % self.world.partitions for each in partitions)
        assigned = frozenset(each.index for each in consumer.offsets)
        if consumer.is_kip848:
            steps = [("revoke", partitions & assigned), ("assign", partitions - assigned)]
        else:
            steps = [("revoke", assigned), ("assign", partitions)]
        consumer.rebalances = [(kind, each) for kind, each in steps if each]
        self.world.behaviour.loses_in_flight = is_lost
        # Arroyo throws a message away that comes with a rebalance while it is paused; the flow control prevents it.
        self._turn(message if self.world.flow is not None else None, answer)

    @rule()
    def time_passes(self) -> None:
        self.world.clock.now += 6

    @precondition(lambda self: self.world.flow is not None)
    @rule(partition=some_partition, is_pause=st.booleans())
    def user_pauses_or_resumes(self, partition: int, is_pause: bool) -> None:
        """One partition of several: to pause all is what the processor does, and a rebalance takes it back."""
        flow, judge = self.world.flow, self.world.judge
        assert flow is not None
        partition %= self.world.partitions
        others = {each.index for each in flow.tell()} - judge.user_paused - {partition}
        if PARTITIONS[partition] not in flow.tell() or judge.processor_paused or (is_pause and not others):
            return
        if is_pause:
            judge.user_paused.add(partition)
            flow.pause([PARTITIONS[partition]])
        else:
            judge.user_paused.discard(partition)
            flow.resume([PARTITIONS[partition]])

    @precondition(lambda self: self.world.flow is not None)
    @rule(partition=some_partition, offset=st.integers(0, 60))
    def user_seeks(self, partition: int, offset: int) -> None:
        """With nothing in flight, which would be committed past the place that was gone back to."""
        world = self.world
        partition %= world.partitions
        watched = world.judge.partitions[partition]
        if not watched.is_assigned or watched.in_flight:
            return
        assert world.flow is not None
        offset = min(offset, world.brokers.ends[partition])
        world.judge.user_sought(partition, offset)
        world.flow.seek({PARTITIONS[partition]: offset})

    @precondition(lambda self: self.world.flow is not None)
    @rule(partition=some_partition, distance=st.integers(-3, 3), answer=some_answer)
    def user_seeks_while_the_processor_carries(self, partition: int, distance: int, answer: str) -> None:
        """The next step has rejected a message; then the seek goes to it, or near it, or before what is held."""
        partition %= self.world.partitions
        self.leaders_move(partition, 1)
        self._turn(partition, "accept")
        self._turn(None, "accept")
        self.leaders_move(partition, 3)
        self._turn(partition, "reject")
        carried = self.world.carried
        if carried is not None and carried.partition.index == partition:
            self.user_seeks(partition, max(0, carried.offset + distance))
        self._turn(None, answer)
        self._turn(partition, "accept")

    @rule(kind=st.sampled_from(["crash", "death", "shutdown"]), answer=some_answer, is_lost=st.booleans())
    def end(self, kind: str, answer: str, is_lost: bool) -> None:
        """The follower crashes, with no chance to do anything more, or is shut down; or its source dies."""
        if kind == "death":
            self.world.die()
            return
        if kind == "shutdown":
            self.world.behaviour.answer, self.world.behaviour.loses_in_flight = answer, is_lost
            self.world.shut_down()
        self.world = self.make(self.world)

    def _turn(self, message: int | None, answer: str, is_working: bool = False) -> None:
        world = self.world
        world.consumer.next_message = message if message is None else message % world.partitions
        world.behaviour.answer, world.behaviour.is_working = answer, is_working
        world.run_once()
        world.hooks.clear()
        world.consumer.rebalances, world.consumer.next_message = [], None
        world.behaviour.answer, world.behaviour.loses_in_flight, world.behaviour.is_working = "accept", False, False
        self._check()
        if world.is_over:
            self.world = self.make(world)

    @invariant()
    def _check(self) -> None:
        if hasattr(self, "world"):
            self.world.check()
            assert self.world.judge.violations == []

    def teardown(self) -> None:
        """In the end everything is released, and goes through without any further event."""
        try:
            if hasattr(self, "world"):
                self._settle()
        finally:
            self.models.__exit__(None, None, None)

    def _settle(self) -> None:
        self.world = world = self.make(self.world)
        for partition in range(world.partitions):
            for group in world.groups:
                self.publish(partition, group, "end")
        self.rebalance(frozenset(range(world.partitions)), "accept", False, None)
        self.source_asks_brokers()
        for partition in range(world.partitions):
            for _ in range(world.brokers.ends[partition] - world.brokers.committed[partition]):
                self._turn(partition, "accept")
        for _ in range(3):
            self._turn(None, "accept")
        for index, watched in world.judge.partitions.items():
            assert watched.through >= set(range(watched.end)), f"p{index}"
        self.end("shutdown", "accept", False)
        assert world.brokers.committed == world.brokers.ends


TestFollower = Follower.TestCase
TestFollower.settings = PROFILES[os.environ.get("ARROYO_SYNC_PROPERTIES", "short")]
