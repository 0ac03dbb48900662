"""Every sequence of actions up to a depth, each from the root anew, each state once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from arroyo_sync.gate.partition_buffer import HoldLimits
from tests.model.fingerprint import fingerprint
from tests.model.scripted import CommitAlways
from tests.model.search import Search
from tests.model.snapshot import Snapshot
from tests.model.world import World

GROUPS = ("a", "b")


class Run(NamedTuple):
    """One turn of the processor, in which the consumer and the next step do this."""

    rebalance: str | None = None
    partitions: frozenset[int] = frozenset()
    message: int | None = None
    answer: str = "accept"
    loses_in_flight: bool = False
    place: str | None = None
    """Where in the code the other thread does the following."""
    meanwhile: Publish | Die | None = None


class Publish(NamedTuple):
    """One leader group (None: all) publishes its offset of one partition."""

    partition: int
    group: str | None
    offset: int | None


class Die(NamedTuple):
    """The source ends."""


class Ask(NamedTuple):
    """The source asks the broker where the partitions end."""


class Later(NamedTuple):
    """Time passes, more than the processor waits before it pauses everything."""


class ShutDown(NamedTuple):
    """The processor is told to end."""

    answer: str = "accept"
    loses_in_flight: bool = False


Action = Run | Publish | Die | Ask | Later | ShutDown
Path = tuple[Action, ...]


@dataclass(frozen=True)
class Setup:
    """A world to begin with, and what has happened to it."""

    is_kip848: bool = True
    partitions: int = 2
    messages: int = 2
    offsets: tuple[int | None, ...] = (None, 1, 2)
    """What leaders may publish."""
    limits: HoldLimits = field(default_factory=lambda: HoldLimits(messages=1, resume_messages=0))
    prefix: Path = ()

    def make(self) -> World:
        world = World(
            self.partitions, GROUPS, is_kip848=self.is_kip848, limits=self.limits, commit_policy=CommitAlways()
        )
        for partition in range(self.partitions):
            world.produce(partition, self.messages)
        for action in self.prefix:
            perform(world, action)
        return world


def perform(world: World, action: Action) -> None:
    """Let it happen."""
    world.places.clear()
    if isinstance(action, Run):
        _run(world, action)
    elif isinstance(action, Publish):
        _publish(world, action)
    elif isinstance(action, Die):
        world.die()
    elif isinstance(action, Ask):
        world.ask_brokers()
    elif isinstance(action, Later):
        world.clock.now += 6
    else:
        world.behaviour.answer, world.behaviour.loses_in_flight = action.answer, action.loses_in_flight
        world.shut_down()
    world.check()


def _run(world: World, action: Run) -> None:
    consumer, meanwhile = world.consumer, action.meanwhile
    if action.rebalance == "exchange":
        consumer.rebalances = [("revoke", action.partitions), ("assign", action.partitions)]
    elif action.rebalance is not None:
        consumer.rebalances = [(action.rebalance, action.partitions)]
    consumer.next_message = action.message
    world.behaviour.answer, world.behaviour.loses_in_flight = action.answer, action.loses_in_flight
    if action.place is not None and meanwhile is not None:
        world.hooks[action.place] = lambda: world.die() if isinstance(meanwhile, Die) else _publish(world, meanwhile)
    world.run_once()
    consumer.rebalances, consumer.next_message = [], None
    world.behaviour.answer, world.behaviour.loses_in_flight = "accept", False
    world.hooks.clear()


def _publish(world: World, action: Publish) -> None:
    for group in world.groups if action.group is None else [action.group]:
        world.publish(action.partition, group, action.offset)


ENDINGS = (("accept", False), ("accept", True), ("reject", False), ("one a poll", False), ("invalid", False))
"""How the next step may end: what it answers in ``join``, and whether it loses what is in flight."""

PLACES = ("check", "step poll", "step submit", "wait")
PLACES_WITH_MESSAGE = ("gate submit",)
"""Where the code may be when the source's thread does something, and what may be there with a new message only."""


class Explorer(Search[Action]):
    """Explores from one setup."""

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        self.setup = setup

    def _expand(self, path: Path) -> Iterator[Path]:
        world = self._follow(path)
        before = Snapshot(world)
        submits = world.judge.submits
        quiet, runs = [*self._quiet(world), *self._endings(world)], [*self._runs(world)]
        meanwhiles = [*self._meanwhile(world)]

        def attempt(action: Action) -> list[Path]:
            """Perform one more action. The path to the new state is empty if it was known."""
            before.restore()
            perform(world, action)
            extended = (*path, action)
            is_new = self._note(extended, fingerprint(world), world.judge.violations)
            return [extended] if is_new and not world.is_over else []

        for action in quiet:
            yield from attempt(action)
        for run in runs:
            yield from attempt(run)
            places = world.places.intersection(PLACES if run.message is None else PLACES_WITH_MESSAGE)
            if world.judge.submits > submits:
                for answer in ("slow", "reject", "invalid", "invalid earlier"):
                    yield from attempt(run._replace(answer=answer))
            if run.rebalance is None:
                for place in places:
                    for meanwhile in meanwhiles:
                        yield from attempt(run._replace(place=place, meanwhile=meanwhile))

    def _quiet(self, world: World) -> Iterator[Action]:
        """What may happen while the processor does nothing."""
        for partition, watched in world.judge.partitions.items():
            for group, leader in watched.leaders.items():
                for offset in self.setup.offsets:
                    if offset != leader.newest or leader.is_refuted:
                        yield Publish(partition, group, offset)
        if not world.judge.is_dead:
            yield Die()
        if world.source.unverified:
            yield Ask()
        if world.carried is not None and not world.judge.processor_paused:
            yield Later()

    def _endings(self, world: World) -> Iterator[Action]:
        for answer, loses_in_flight in ENDINGS if world.has_work else ENDINGS[:1]:
            yield ShutDown(answer, loses_in_flight)

    def _runs(self, world: World) -> Iterator[Run]:
        yield Run()
        is_paused = bool(world.judge.processor_paused)
        if world.carried is not None and not is_paused:
            return  # the consumer isn't polled
        readable = [index for index in world.judge.partitions if world.is_readable(index)]
        for message in readable:
            yield Run(message=message)
        for rebalance, partitions in self._rebalances(world):
            # The consumer may return a message in the poll that rebalances; only a paused processor cares.
            for following in (None, *world.judge.partitions) if is_paused else (None,):
                for answer, loses_in_flight in ENDINGS if world.has_work else ENDINGS[:1]:
                    yield Run(rebalance, partitions, following, answer, loses_in_flight)

    def _rebalances(self, world: World) -> Iterator[tuple[str, frozenset[int]]]:
        every = frozenset(world.judge.partitions)
        assigned = frozenset(each.index for each in world.consumer.offsets)
        if not self.setup.is_kip848:
            if assigned:
                yield "revoke", assigned
                yield "exchange", assigned
            else:
                yield "assign", every
            return
        for partition in every:
            yield ("revoke" if partition in assigned else "assign"), frozenset({partition})
        if not assigned:
            yield "assign", every

    def _meanwhile(self, world: World) -> Iterator[Publish | Die]:
        if world.judge.is_dead:
            return
        yield Die()
        for partition in world.judge.partitions:
            for offset in self.setup.offsets:
                if offset is not None:
                    yield Publish(partition, None, offset)

    def _follow(self, path: Path) -> World:
        world = self.setup.make()
        for action in path:
            perform(world, action)
        return world
