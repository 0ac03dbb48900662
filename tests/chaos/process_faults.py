"""Faults of processes, and what their operators do with them."""

from __future__ import annotations

import time
from random import Random

from tests.chaos.clock import SHIFT_VARIABLE
from tests.chaos.fault import Do, running
from tests.chaos.ingredients import LOG_APPEND_TIME
from tests.chaos.processes import Slot
from tests.chaos.world import RATE, TOPIC, World

REWOUND_SECONDS = 0.006
"""How long a leader that was set back takes over a message, so that it stays behind for a while."""
SLOW_STEP_SECONDS = 0.08
SLOW_BURST = 60
"""Messages a partition: together some twenty seconds' work of a slow step."""
BEGUN = 10
"""So many messages have come before it is told to end."""
HELD_SECONDS = 3.0
"""For so long its leader stands still: less than its session's timeout."""
JOINED_SECONDS = 0.4
AWAY_SECONDS = 32.0
"""For so long a leader group is missing: longer than it takes until its stall is told."""
TOLD_SECONDS = 45.0
SHIFTS = (-7200.0, -90.0, 90.0, 7200.0)
"""Seconds by which a clock is wrong."""
REFUSED_SECONDS = 3600.0
"""From when on brokers refuse a record from the future (``message.timestamp.after.max.ms``, Kafka 4.0)."""
BEHIND_SECONDS = (3.0, 10.0)
"""For how long a follower's clock is behind."""


def kill(role: str) -> Do:
    def kill_one(world: World, random: Random) -> None:
        slots = running(world, role)
        if slots:
            slot, began = random.choice(slots), time.monotonic()
            slot.kill()
            if role == "follower":
                world.hindered(slot.group, began)
        world.wait(random.uniform(0.5, 1.5))

    return kill_one


def pause(role: str, seconds: float) -> Do:
    def pause_one(world: World, random: Random) -> None:
        slots = running(world, role)
        if not slots:
            return
        slot, began = random.choice(slots), time.monotonic()
        slot.pause()

        def go_on() -> None:
            slot.go_on()
            if slot.role == "follower":
                world.hindered(slot.group, began)

        world.later(seconds, go_on)
        world.wait(2.0)

    return pause_one


def grow_or_shrink(world: World, random: Random) -> None:
    slot = world.members(random.choice(world.follower_groups))[1]
    if slot.is_wanted:
        world.stop(slot)
    else:
        world.start(slot)
    world.wait(random.uniform(1.0, 2.5))


def signal_in_join(world: World, random: Random) -> None:
    """A second member comes; while the first one joins its old strategy for it, it is told to end."""
    first, second = world.members(random.choice(world.follower_groups))
    began = time.monotonic()
    if second.is_wanted:
        world.stop(second)
    world.start(first)
    world.producer.say("burst 5")
    world.start(second)
    second_began = _assignments(world, second)
    world.wait(10.0, lambda: _assignments(world, second) > second_began)
    world.wait(random.uniform(0.0, JOINED_SECONDS))
    world.hindered(first.group, began)  # which doesn't explain how long it takes to end
    world.stop(first)
    began = time.monotonic()
    world.start(first)
    world.hindered(first.group, began)
    world.wait(0.5)


def end_slow_follower(world: World, random: Random) -> None:
    """With work for many seconds held and then released: what it has begun is one message's, and it ends with that."""
    group = random.choice(world.follower_groups)
    slot, began = world.members(group)[0], time.monotonic()
    leaders = world.members("writer-b")
    own_seconds = slot.delay_seconds
    world.stop(*world.members(group))
    slot.delay_seconds = SLOW_STEP_SECONDS
    try:
        world.start(slot)
        world.wait(20.0, lambda: _assignments(world, slot) > 0)
        world.look()
        before = len(world.tally.came[group])

        def has_begun() -> bool:
            world.look()
            return len(world.tally.came[group]) > before + BEGUN

        for leader in leaders:
            leader.pause()
        world.producer.say(f"burst {SLOW_BURST}")
        world.wait(HELD_SECONDS)
        for leader in leaders:
            leader.go_on()
        world.wait(20.0, has_begun)
        world.hindered(group, began)  # which doesn't explain how long it takes to end
        world.stop(slot)
    finally:
        began = time.monotonic()
        for leader in leaders:
            leader.go_on()
        slot.delay_seconds = own_seconds
        world.start(slot)
        world.hindered(group, began)
    world.wait(0.5)


def rewind_leader(world: World, random: Random) -> None:
    """Set it back while it is stopped; it works more slowly then. A follower may start anew."""
    group = random.choice(list(world.leader_groups))
    members = world.members(group)
    world.stop(*members)
    try:
        committed = world.questions.committed(group)
        first = {partition: low for partition, (low, _) in world.questions.ends(TOPIC).items()}
        back = {p: max(first.get(p, 0), offset - random.randrange(10, 150)) for p, offset in committed.items()}
        world.set_offsets(group, back)
        for partition, offset in back.items():
            world.journal.write("rewound", group, world.epoch, partition, offset)
    finally:
        for slot in members:
            slot.delay_seconds = REWOUND_SECONDS
        world.start(*members)
        for slot in members:
            slot.delay_seconds = world.delay_seconds(group)
    world.wait(1.5)
    if random.random() < 0.5:
        kill("follower")(world, random)


def silence_leader(world: World, random: Random) -> None:
    members = world.members(random.choice(list(world.leader_groups)))
    world.stop(*members)
    world.wait(random.uniform(2.5, 5.0))
    world.start(*members)


def lose_leader(world: World, random: Random) -> None:
    """For so long that somebody should hear of it: by name, from every follower group.

    Where the data topic's timestamps say nothing, its last report may be called one of an earlier topic instead.
    """
    group = random.choice(list(world.leader_groups))
    members = world.members(group)
    for slot in world.slots:
        if slot.role == "follower" and slot.name.endswith("-1"):
            world.start(slot)
    began = time.monotonic()
    world.stop(*members)
    world.producer.say("burst 5")
    world.wait(AWAY_SECONDS)
    world.start(*members)
    published = "nothing" if world.ingredients.tells_topics_apart else "(nothing|offset)"
    world.wants_told(f"for group '{group}'|group '{group}' has published {published}", began, TOLD_SECONDS)


def restart_idle(world: World, random: Random) -> None:
    """The leaders are restarted while there is nothing to do, and again."""
    group = random.choice(list(world.leader_groups))
    world.producer.say("rate 0")
    world.wait(1.5)
    for _ in range(2):
        members = world.members(group)
        world.stop(*members)
        world.start(*members)
        world.wait(1.0)
    world.producer.say(f"rate {RATE}")
    world.wait(0.5)


def shift_clock(world: World, random: Random) -> None:
    """One process is started anew with another clock; it keeps it until its next start.

    Where leaders write the time of their reports none of them is behind: an older report would rightly count for as
    long, once its key has got another place in the commit log. Nor is one ahead by more than an hour: brokers refuse
    its reports, as it says. To a follower that is behind all reports are from the future, so that the older place may
    count for as long: it says so, and gets its right clock back.
    """
    slots = running(world, "follower") + running(world, "leader")
    if not slots:
        return
    slot, began = random.choice(slots), time.monotonic()
    is_free = slot.role == "follower" or world.ingredients.commit_log.timestamps == LOG_APPEND_TIME
    seconds = random.choice([each for each in SHIFTS if is_free or 0 < each < REFUSED_SECONDS])
    world.stop(slot)
    world.start(slot, environment={SHIFT_VARIABLE: str(seconds)})
    if slot.role == "follower" and seconds < 0:
        world.wait(random.uniform(*BEHIND_SECONDS))
        world.stop(slot)
        world.start(slot)
    if slot.role == "follower":
        world.hindered(slot.group, began)
    world.wait(2.5)


def term_twice(world: World, random: Random) -> None:
    """Two signals shortly after each other: the second ends the process at once. It is started again."""
    slots = running(world, random.choice(["leader", "follower"]))
    if slots:
        slot, began = random.choice(slots), time.monotonic()
        slot.ask_to_stop()  # it isn't wanted any more, so that an end before the second signal is none by itself
        world.wait(random.uniform(0.0, 0.2))
        slot.kill()
        world.start(slot)
        if slot.role == "follower":
            world.hindered(slot.group, began)
    world.wait(0.5)


def _assignments(world: World, slot: Slot) -> int:
    path = world.folder / f"{slot.journal}.jsonl"
    return path.read_bytes().count(b'["assigned"') if path.exists() else 0
