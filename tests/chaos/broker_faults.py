"""Faults of brokers and of the network between them and the followers."""

from __future__ import annotations

import time
from random import Random

from tests.chaos.proxy import MODES
from tests.chaos.world import RATE, TOPIC, World
from tests.integration.cluster.broker import Broker
from tests.integration.cluster.coordinators import OFFSETS_TOPIC, coordinator_of

AWAY_SECONDS = 30.0
"""For how long at least the broker of some partitions is away."""
OTHERS_SECONDS = 40.0
"""For how long what the others' leaders committed meanwhile may take: clients miss a broker first."""
BEGUN_SECONDS = 30.0
BURST = 20


def kill_broker(world: World, random: Random) -> None:
    _kill(world, random, random.choice(world.cluster.brokers))


def kill_coordinator(world: World, random: Random) -> None:
    """The broker that leads the offsets of a leader's or a follower's group."""
    group = random.choice([*world.leader_groups, *world.follower_groups])
    if OFFSETS_TOPIC in world.cluster.admin.list_topics(timeout=10).topics:
        node_id = coordinator_of(world.cluster, group)
        _kill(world, random, next(each for each in world.cluster.brokers if each.node_id == node_id))


def _kill(world: World, random: Random, broker: Broker) -> None:
    broker.kill()
    world.later(random.uniform(0.5, 2.0), broker.start)
    world.wait(2.5)


def pause_broker(world: World, random: Random) -> None:
    broker = random.choice(world.cluster.brokers)
    broker.pause()
    world.later(random.uniform(3.5, 5.0), broker.resume)
    world.wait(2.5)


def miss_broker(world: World, random: Random) -> None:
    """Of a topic whose partitions have one replica: those of the other brokers go on, and a rebalance comes, too.

    Every follower group has begun with every partition before. Where it has no committed offset Arroyo asks the
    partition's broker, and ends if that is away (FOLLOWERS.md, other pitfalls).
    """
    led = world.questions.leaders(TOPIC)

    def have_begun() -> bool:
        return all(world.questions.committed(group).keys() >= led.keys() for group in world.follower_groups)

    if not world.wait(BEGUN_SECONDS, have_begun):
        raise TimeoutError("a follower group hasn't begun with all partitions")
    broker = random.choice(world.cluster.brokers)
    still = sorted(partition for partition, leader in led.items() if leader == broker.node_id)
    began = time.monotonic()
    broker.kill()
    world.wait(3.0)
    second = world.members(random.choice(world.follower_groups))[1]
    if second.is_wanted:
        world.stop(second)
    else:
        world.start(second)
    world.wait(8.0)
    world.producer.say(f"burst {BURST}")
    world.wait(4.0)
    acked_by = time.monotonic()

    def has_come() -> bool:
        world.look()
        return not any(world.tally.missing(world.epoch, world.gone_below, still).values())

    if len(still) < len(led):
        world.producer.say("rate 0")
        world.wait(OTHERS_SECONDS, has_come)
        world.journal.write("round", f"{len(still)} away", acked_by, acked_by + OTHERS_SECONDS, still)
        world.producer.say(f"rate {RATE}")
    world.wait(max(0.0, began + AWAY_SECONDS - time.monotonic()))
    broker.start()
    for partition in still:
        world.journal.write("hindered", f"partition {partition}", time.monotonic(), at=began)


def cut_network(world: World, random: Random) -> None:
    """Between the followers of a group and one broker."""
    group, began = random.choice(world.follower_groups), time.monotonic()
    proxy = world.proxies[random.choice(world.cluster.brokers).node_id, group]
    proxy.hinder(random.choice(MODES))

    def heal() -> None:
        proxy.heal()
        world.hindered(group, began)

    world.later(random.uniform(1.5, 4.5), heal)
    world.wait(2.0)


def elect_unclean(world: World, random: Random) -> None:
    """Of a topic with two replicas: what the survivor lacks is gone, and other messages take its offsets.

    One broker is stopped, messages are written, the others with them are stopped, the first one leads what it has. To
    the journals that is another epoch, which begins where the survivor ended.
    """
    survivor = random.choice(world.cluster.brokers)
    survivor.kill()
    world.wait(4.0)
    world.producer.say("rate 0\nburst 20")
    world.wait(3.0)
    world.producer.stop(35)
    replicas = world.cluster.admin.list_topics(TOPIC, timeout=10).topics[TOPIC].partitions
    lost = {p for p, each in replicas.items() if survivor.node_id in each.replicas and each.leader != survivor.node_id}
    ends = {partition: high for partition, (_, high) in world.questions.ends(TOPIC).items()}
    world.cluster.set_topic_config(TOPIC, {"unclean.leader.election.enable": "true"})
    others = [each for each in world.cluster.brokers if each is not survivor]
    first = next((each for each in others if any(replicas[p].leader == each.node_id for p in lost)), others[0])
    began = time.monotonic()
    first.kill()
    survivor.start()

    def leads() -> bool:
        leaders = world.questions.leaders(TOPIC)
        return all(leaders[p] == survivor.node_id for p in lost if first.node_id in replicas[p].replicas)

    try:
        if not world.wait(60.0, leads):
            raise TimeoutError("the survivor wasn't elected")
    finally:
        first.start()
        world.wait_until_whole()
        world.cluster.set_topic_config(TOPIC, {"unclean.leader.election.enable": "false"})
    now = {partition: high for partition, (_, high) in world.questions.ends(TOPIC).items()}
    world.stop(*world.leaders)
    for group in world.leader_groups:
        beyond = {p: now[p] for p, offset in world.questions.committed(group).items() if offset > now[p]}
        world.set_offsets(group, beyond)
    world.begin_epoch()
    for partition, high in now.items():
        world.gone_below[world.epoch, partition] = high
        world.journal.write("deleted", world.epoch, partition, high)
        if high < ends.get(partition, 0):
            world.journal.write("truncated", world.epoch - 1, partition, high, at=began)
    world.wait(6.0)  # followers that are beyond the end find that out, and begin at the end
    world.start_producer(rate=0)
    world.producer.say(f"burst {3 * BURST}")
    world.wait(3.0)
    world.start(*world.leaders)
    world.hindered("cluster", began)
    world.producer.say(f"rate {RATE}")
    world.wait(2.0)
