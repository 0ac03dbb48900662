"""A run: faults in a seeded order, quiet rounds in between, and the verdict."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

from confluent_kafka import KafkaException

from tests.chaos.checker import Verdict, judge
from tests.chaos.evidence import LogRecord
from tests.chaos.fault import InVain
from tests.chaos.faults import FAULTS
from tests.chaos.ingredients import Ingredients, draw
from tests.chaos.journal import read_all
from tests.chaos.processes import FED, lost_heartbeats, uncaught
from tests.chaos.world import COMMIT_LOG, RATE, TOPIC, World, dead_letters_of

FAULTS_A_ROUND = 12
"""After so many faults all is healed, and in a quiet round everything must come through."""
RECOVERY_SECONDS = 0.3
BURST = 60
"""Messages a partition."""
BURSTS = 3
"""So often one is asked for, if nothing of it is acknowledged: the producer may have ended meanwhile."""
FIRST_ROUND_SECONDS = 90.0
"""For the round after faults: dead members are missed, leaders that were set back catch up, and a quiet partition is
published again by its heartbeat only."""
BACKLOG_SECONDS, STANDS_SECONDS = 120.0, 5.0
"""For how long at most followers with slow steps may work off what they have, and when they don't any more."""
ROUND_SECONDS = 15.0
STILL_SECONDS = 4.5
"""A leader stands still for less than its session's timeout."""
LAST_SECONDS = 4.0
"""For the last commits before all is still: nothing that moves later may be needed."""
ATTEMPTS = 3
"""At a round of a few seconds. The judge sees each, and lets no message pass whose leaders were in time."""
ASSIGNED_SECONDS = 60.0
LAST_ROUNDS = 5
STILLS, LAST_STILLS = 5, 60
"""How often all stands still in a quiet time between faults, and at the end of a run."""


class _Steady:
    """A count that is looked at again and again, and for how long it has been the same."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._since = time.monotonic()

    def seconds_at(self, count: int) -> float:
        if count != self._count:
            self._count, self._since = count, time.monotonic()
        return time.monotonic() - self._since


class Run:
    """Drives a world. Its methods block for as long as what they do takes."""

    def __init__(self, world: World, seed: int, only: Collection[str] = ()) -> None:
        self._world = world
        self._random = Random(seed)
        self._kinds = [
            name
            for name, fault in FAULTS.items()
            for _ in range(fault.weight)
            if name in only or (not only and fault.fits(world.ingredients))
        ]
        self._bag: list[str] = []
        self._rounds = 0
        self._is_in_vain = False
        self.done = 0
        self.skipped: list[str] = []
        """Faults that the cluster refused, for instance since a broker was still down."""

    def begin(self) -> None:
        world = self._world
        world.start(*world.leaders)
        world.start(*(world.members(group)[0] for group in world.follower_groups))
        world.start(*(slot for slot in world.slots if slot.role in FED and slot is not world.producer))

        def all_assigned() -> bool:
            world.look()
            return world.tally.assigned == set(world.follower_groups)

        if not world.wait(ASSIGNED_SECONDS, all_assigned):  # who begins at the end has its beginning then
            world.journal.write("stuck", f"of {world.follower_groups}, only {world.tally.assigned} have begun")
        world.start_producer()
        self._round(FIRST_ROUND_SECONDS)
        world.producer.say(f"rate {RATE}")

    def faults(self, count: int, seconds: float = float("inf")) -> None:
        """So many, or as many as there is time for."""
        deadline = time.monotonic() + seconds
        while self.done < count and time.monotonic() < deadline:
            self._fault()
            self._world.wait(RECOVERY_SECONDS)
            if self.done % FAULTS_A_ROUND == 0 and self.done < count:
                self.quiet()

    def quiet(self, rounds: int = 1, stills: int = STILLS) -> bool:
        """Heal everything; then all must come through, round by round. Returns whether it did.

        In large bursts, while a leader stands still, and ``stills`` times in stillness. After a round in which it
        didn't, there are no more. But the last ones are short, so that a leader may be late, and then nothing is
        judged: they are tried `ATTEMPTS` times.
        """
        world = self._world
        world.finish_later()
        for proxy in world.proxies.values():
            proxy.heal()
        for broker in world.cluster.brokers:
            if not broker.is_running:
                broker.start()
        world.wait_until_whole()
        if any(follower.step_seconds for follower in world.ingredients.followers):
            self._let_backlog_pass()
        all_came = (
            self._round(FIRST_ROUND_SECONDS)
            and all(self._round(ROUND_SECONDS) for _ in range(rounds - 1))
            and _comes_at_last(self._round_with_a_leader_standing_still)
            and all(_comes_at_last(self._round_in_stillness) for _ in range(stills))
        )
        world.producer.say(f"rate {RATE}")
        return all_came

    def end(self) -> None:
        """Note what the followers have committed, once they have stopped, and what no log may tell of."""
        world = self._world
        world.stop(*world.slots)
        for name, line in uncaught(world.folder):
            world.journal.write("uncaught", name, line)
        for name in lost_heartbeats(world.folder):
            world.journal.write("unheard", name)
        world.journal.write("ended")
        for group in world.follower_groups:
            for partition, offset in world.questions.committed(group).items():
                world.journal.write("committed", group, world.epoch, partition, offset)

    def _fault(self) -> None:
        world = self._world
        name = self._next_kind()
        began = time.monotonic()
        try:
            FAULTS[name].do(world, self._random)
        except (KafkaException, TimeoutError, KeyError, OSError, RuntimeError, InVain) as error:
            if isinstance(error, InVain):
                world.journal.write("stuck", f"{name}: {error}")
            self.skipped.append(f"{name}: {error}"[:300])
            for slot in world.slots:
                slot.go_on()
                if slot.role == "leader" or slot.name.endswith("-1"):
                    world.start(slot)
            if not world.producer.is_running:
                world.start_producer()
            world.journal.write("skipped", name, began)
            return
        self.done += 1
        world.journal.write("fault", self.done, name, "", began)

    def _next_kind(self) -> str:
        while True:
            for index, name in enumerate(self._bag):
                if self._world.is_whole() or not FAULTS[name].needs_whole:
                    return self._bag.pop(index)
            if self._bag:
                self._world.wait_until_whole()
            else:
                self._bag = list(self._kinds)
                self._random.shuffle(self._bag)

    def _let_backlog_pass(self) -> None:
        """Wait while what the faults have held up is worked off: a slow step takes its time, and that is no fault."""
        world = self._world
        world.producer.say("rate 0")
        came = _Steady(-1)

        def is_over() -> bool:
            is_missing = self._missing(())
            return came.seconds_at(sum(map(len, world.tally.came.values()))) > STANDS_SECONDS or not is_missing

        world.wait(BACKLOG_SECONDS, is_over)

    def _round(self, seconds: float) -> bool:
        """Whether all came through; so the others."""
        return self._all_come(self._burst(), seconds)

    def _round_with_a_leader_standing_still(self) -> bool:
        world = self._world
        slot = world.members("writer-b")[0]
        deadline = time.monotonic() + STILL_SECONDS
        slot.pause()
        try:
            world.look()
            tally = world.tally
            before = set(tally.done["writer-b"])
            acked_before = set(tally.acked.get(world.epoch, ()))
            self._burst()
            world.wait(0.5)
            world.look()
            acked_by = time.monotonic()
            still = {p for e, p, _ in tally.came["eager"] if e == world.epoch}
            still |= {p for p, _ in tally.acked[world.epoch]}
            still -= {partition for _, partition, _ in tally.done["writer-b"] - before}
            if {p for p, _ in tally.acked[world.epoch] - acked_before} <= still:
                return True  # the other member stands still, too, or there is none: nobody has to go on
            return self._all_come(acked_by, deadline - time.monotonic(), still)
        finally:
            slot.go_on()

    def _round_in_stillness(self) -> bool:
        """Everything is held and nothing moves; then the slowest leader group commits, and again nothing moves.

        The last of these commits must release its message, though no later one wakes the follower.
        """
        world = self._world
        slots = world.members("writer-b")
        for slot in slots:
            slot.pause()
        try:
            acked_by = self._burst(1, 0.1)
        finally:
            for slot in slots:
                slot.go_on()
        return self._all_come(acked_by, LAST_SECONDS)

    def _burst(self, count: int = BURST, settled_seconds: float = 0.3) -> float:
        """Have a burst produced, so many messages a partition; by when all of it was acknowledged.

        If nothing was, it is asked for again, since the producer may have ended meanwhile; if that goes on, the judge
        is told: the rounds would judge nothing.
        """
        world = self._world
        for _ in range(BURSTS):
            if not world.producer.is_running:
                world.start_producer(rate=0)
            world.look()
            before = world.tally.acknowledged
            self._produce(count, settled_seconds, before)
            if world.tally.acknowledged > before:
                return time.monotonic()
        world.journal.write("stuck", "nothing is acknowledged any more")
        self._is_in_vain = True
        return time.monotonic()

    def _produce(self, count: int, settled_seconds: float, before: int) -> None:
        world = self._world
        with suppress(OSError):  # it may have ended since
            world.producer.say(f"rate 0\nburst {count}")
        acknowledged = _Steady(before)

        def is_over() -> bool:
            world.look()
            seconds = acknowledged.seconds_at(world.tally.acknowledged)
            return world.tally.acknowledged > before and seconds > settled_seconds

        world.wait(30.0, is_over)

    def _missing(self, still: Collection[int]) -> bool:
        world = self._world
        world.look()
        return any(world.tally.missing(world.epoch, world.gone_below, still).values())

    def _all_come(self, acked_by: float, seconds: float, still: Collection[int] = ()) -> bool:
        """Wait until all that was acknowledged by then came through, and note the round for the judge."""
        world = self._world
        deadline = time.monotonic() + seconds
        all_came = world.wait(seconds, lambda: not self._missing(still))
        self._rounds += 1
        world.journal.write("round", self._rounds, acked_by, min(deadline, time.monotonic()), sorted(still))
        if not all_came:
            self._keep_status()
        return all_came and not self._is_in_vain

    def _keep_status(self) -> None:
        """What an operator would look at now, ``status-GROUP-ROUND.json``: among others, which member the group's
        coordinator has given each partition to. With KIP-848 that isn't always what the member knows.
        """
        world = self._world
        leaders = [flag for group in world.leader_groups for flag in ("--leader-group", group)]
        where = ["--bootstrap-servers", world.cluster.bootstrap_servers, "--topic", TOPIC, "--commit-log", COMMIT_LOG]
        for group in world.follower_groups:
            command = [sys.executable, "-m", "arroyo_sync", "status", *where, *leaders, "--follower-group", group]
            with (world.folder / f"status-{group}-{self._rounds}.json").open("w") as file:
                subprocess.run([*command, "--json", "--all"], stdout=file, stderr=subprocess.STDOUT, timeout=120.0)


def _comes_at_last(attempt: Callable[[], bool]) -> bool:
    return any(attempt() for _ in range(ATTEMPTS))


def run(
    folder: Path,
    faults: int,
    seed: int,
    only: Collection[str] = (),
    environment: Mapping[str, str] | None = None,
    last_rounds: int = LAST_ROUNDS,
    last_stills: int = LAST_STILLS,
    seconds: float = float("inf"),
    ingredients: Ingredients | None = None,
) -> tuple[Verdict, dict[str, Any]]:
    """A whole run; its journals are in ``folder``. Returns the verdict, and the summary for JSON.

    :param ingredients: of its world; ``None``: those that the seed draws.
    """
    began = time.monotonic()
    commit_log: list[LogRecord] = []
    ingredients = draw(seed) if ingredients is None else ingredients
    with World(folder, environment, ingredients) as world:
        driver = Run(world, seed, only)
        driver.begin()
        driver.faults(faults, seconds)
        all_came = driver.quiet(last_rounds, last_stills)
        driver.end()
        commit_log = world.questions.read_all(COMMIT_LOG)
        dead_letters = {
            each.group: world.questions.read_all(dead_letters_of(each.group))
            for each in ingredients.followers
            if each.has_dead_letters and not each.has_auto_commit  # librdkafka commits when it likes
        }
    journals = read_all(folder)
    verdict = judge(journals, commit_log, dead_letters)
    kinds: dict[str, int] = {}
    exits: dict[str, int] = {}
    repairs: list[str] = []
    for line in journals["driver"]:
        if line[0] == "fault":
            kinds[line[3]] = kinds.get(line[3], 0) + 1
        elif line[0] == "operator":
            repairs.append(f"{line[1]}: {line[2]}")
        elif line[0] == "exit":
            exits[line[4]] = exits.get(line[4], 0) + 1
    summary = {
        "faults": driver.done,
        "seed": seed,
        "messages": verdict.messages,
        "duplicates": verdict.duplicates,
        "violations": verdict.counts(),
        "deliveries": verdict.deliveries,
        "dead_letters": sum(map(len, dead_letters.values())),
        "late_leaders": verdict.late_leaders,
        "believed": verdict.believed,
        "nobodys": verdict.nobodys,
        "rewinds": verdict.rewinds,
        "rounds": verdict.rounds,
        "all_came": all_came,
        "assignments": verdict.assignments,
        "release_ms": {
            "p50": round(verdict.release_seconds[0] * 1000),
            "p99": round(verdict.release_seconds[1] * 1000),
        },
        "kinds": dict(sorted(kinds.items())),
        "skipped": driver.skipped,
        "exits": dict(sorted(exits.items())),
        "repairs": repairs,
        "ingredients": ingredients.as_json(),
        "seconds": round(time.monotonic() - began),
    }
    return verdict, summary
