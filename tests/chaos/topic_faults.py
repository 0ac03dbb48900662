"""Faults of the data topic: grown, truncated from its beginning, deleted and created again, with a transaction that
hangs."""

from __future__ import annotations

import time
from random import Random

from tests.chaos.fault import InVain, running
from tests.chaos.ingredients import GROUP_OFFSETS
from tests.chaos.world import RATE, TOPIC, World

MAX_PARTITIONS = 8
LONG, SHORT = 300, 50
"""Messages a partition: at least of the old topic, and twice of the new one, before the leaders have begun with it."""
OUTGROWN = 100
"""Messages a partition by which a new topic outgrows the old one before its leaders begin with it."""
HUNG_SECONDS = (3.0, 8.0)
BEGIN_SECONDS = 90.0
"""So long it may take until leaders begin with a topic that was created again, and twice as long as its messages keep
the slowest."""
BEGUN_SECONDS = 5.0
"""By then a partition that was added is assigned: clients look for such once a second."""


def add_data_partition(world: World, random: Random) -> None:
    count = len(world.questions.ends(TOPIC))
    if count < MAX_PARTITIONS:
        world.cluster.add_partitions(TOPIC, count + 1)
    world.wait(2.0)


def begin_shut(world: World, random: Random) -> None:
    """A partition is added while a leader group is away; followers that have begun with it are killed.

    They have released nothing of it, so where they began is all that says what is to come.
    """
    count = len(world.questions.ends(TOPIC))
    members, began = world.members(random.choice(list(world.leader_groups))), time.monotonic()
    world.stop(*members)
    if count < MAX_PARTITIONS:
        world.cluster.add_partitions(TOPIC, count + 1)
    world.wait(BEGUN_SECONDS)
    world.producer.say(f"burst {SHORT}")
    world.wait(2.0)
    for slot in running(world, "follower"):
        slot.kill()
        world.hindered(slot.group, began)
    world.wait(2.0)
    world.start(*members)
    world.wait(1.0)


def recreate_topic(world: World, random: Random) -> None:
    """Under the old commit log: followers go on with it, later start anew, and the leaders come last.

    A topic that has outgrown the old offsets by then can't always be told from the old one (`outgrow_topic`). So the
    old one is made long first, and the new one is kept short until every leader group has published anew.
    """
    partitions, began = _make_long(world), time.monotonic()
    everything = dict.fromkeys(range(partitions), 0)
    world.producer.stop(35)
    world.recreate_data_topic(partitions)
    world.stop(*world.leaders)
    for group in world.leader_groups:
        world.set_offsets(group, everything)
    world.start_producer(rate=0)
    world.producer.say(f"burst {SHORT}")
    world.wait(1.0)
    for group in world.follower_groups:
        wanted = [slot for slot in world.members(group) if slot.is_wanted]
        world.stop(*world.members(group))
        world.set_offsets(group, everything)
        world.start(*wanted)
    world.wait(random.uniform(1.5, 3.0))
    world.start(*world.leaders)
    world.producer.say(f"burst {SHORT}")
    _wait_until_all_began(world, partitions, 2 * SHORT)
    world.hindered("cluster", began)
    world.producer.say(f"rate {RATE}")


def outgrow_topic(world: World, random: Random) -> None:
    """Deleted and created again, and soon longer than all that the leaders have reported.

    The followers are restarted first, or live through it; nobody sets their offsets. The leaders hang meanwhile, or are
    stopped; then an operator starts them anew at the beginning. None hangs if its reports carry no topic's id: what one
    goes on to publish looks like the new topic's. (FOLLOWERS.md says so.)
    """
    partitions, began = _make_long(world), time.monotonic()
    do_followers_live, do_leaders_hang = random.random() < 0.5, random.random() < 0.5
    do_leaders_hang = do_leaders_hang and world.ingredients.reports_have_ids
    followers = [slot for slot in world.slots if slot.role == "follower" and slot.is_wanted]
    world.producer.stop(35)
    longest = max(high for _, high in world.questions.ends(TOPIC).values())
    if do_leaders_hang:
        for slot in world.leaders:
            slot.pause()
    else:
        world.stop(*world.leaders)
    if not do_followers_live:
        world.stop(*followers)
    world.recreate_data_topic(partitions)
    world.start_producer(rate=0)
    world.producer.say(f"burst {longest + OUTGROWN}")
    world.wait(2.0)
    world.start(*followers)
    world.wait(random.uniform(4.0, 6.0))
    if do_leaders_hang:
        for slot in world.leaders:
            slot.go_on()
        world.wait(2.0)
    world.stop(*world.leaders)
    for group in world.leader_groups:
        world.set_offsets(group, dict.fromkeys(range(partitions), 0))
    world.start(*world.leaders)
    groups = [each.group for each in world.ingredients.followers if each.source != GROUP_OFFSETS]
    if groups:
        world.wants_told("earlier topic|deleted and created again", began, 60.0, *groups)
    _wait_until_all_began(world, partitions, longest + OUTGROWN)
    world.hindered("cluster", began)
    world.producer.say(f"rate {RATE}")


def delete_records(world: World, random: Random) -> None:
    """Under a follower that stands still meanwhile."""
    group = random.choice(world.follower_groups)
    slots, began = [slot for slot in world.members(group) if slot.is_running], time.monotonic()
    for slot in slots:
        slot.pause()
    try:
        world.wait(1.2)
        committed = [world.questions.committed(each) for each in world.leader_groups]
        partition = random.choice(sorted(set(committed[0]) & set(committed[1])) or [0])
        before = min(offsets.get(partition, 0) for offsets in committed)
        for epoch in world.epochs_there:
            world.gone_below[epoch, partition] = max(before, world.gone_below.get((epoch, partition), 0))
            world.journal.write("deleted", epoch, partition, before)
        world.cluster.delete_records(TOPIC, {partition: before})
    finally:
        for slot in slots:
            slot.go_on()
        world.hindered(group, began)
    world.wait(1.0)


def hang_transaction(world: World, random: Random) -> None:
    """Nothing behind it can be read, by whoever reads committed messages, until it ends."""
    seconds, began = random.uniform(*HUNG_SECONDS), time.monotonic()
    world.producer.say(f"hang {seconds}")
    world.later(seconds + 1.0, lambda: world.hindered("cluster", began))
    world.wait(2.0)


def _make_long(world: World) -> int:
    """Until all leaders have committed `LONG` messages of each partition; how many partitions there are."""
    ends = world.questions.ends(TOPIC)
    partitions = len(ends)

    def is_long() -> bool:
        committed = [world.questions.committed(group) for group in world.leader_groups]
        return all(offsets.get(p, 0) >= LONG for offsets in committed for p in range(partitions))

    world.producer.say(f"burst {LONG}")
    backlog = sum(high - low for low, high in ends.values())  # at most: a group may have been set back
    if not world.wait(60.0 + 2 * _slowest_seconds(world) * backlog, is_long):
        raise _not_done(world, partitions, "the leaders didn't get far enough")
    return partitions


def _wait_until_all_began(world: World, partitions: int, messages: int) -> None:
    """Until all leaders have begun with each partition: one may do so only once it has worked off others.

    :param messages: how many each partition has.
    """

    def all_began() -> bool:
        world.look()
        done = world.tally.done
        began = [{p for e, p, _ in done[group] if e == world.epoch} for group in world.leader_groups]
        return all(each >= set(range(partitions)) for each in began)

    if not world.wait(BEGIN_SECONDS + 2 * _slowest_seconds(world) * messages * partitions, all_began):
        raise _not_done(world, partitions, "the leaders didn't begin with the new topic")
    world.wait(1.0)


def _not_done(world: World, partitions: int, what: str) -> Exception:
    """It is the leaders' own if there was something to do: a transaction that isn't committed keeps them from it."""
    world.look()
    written = {partition for partition, _ in world.tally.acked.get(world.epoch, ())}
    if written >= set(range(partitions)):
        return InVain(what)
    return TimeoutError(f"{what}: only of partitions {sorted(written)} anything was acknowledged")


def _slowest_seconds(world: World) -> float:
    """How long the slowest leader takes over a message."""
    return max(world.delay_seconds(group) for group in world.leader_groups)
