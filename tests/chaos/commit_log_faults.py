"""Faults of the commit log: poisoned, grown, refused, and deleted and created again."""

from __future__ import annotations

import time
from contextlib import suppress
from random import Random

from confluent_kafka import KafkaException, Producer

from tests.chaos import rubbish
from tests.chaos.fault import running
from tests.chaos.ingredients import GROUP_OFFSETS
from tests.chaos.world import COMMIT_LOG, PARTITIONS, TOPIC, World

MAX_PARTITIONS = 6
TOLD_SECONDS = 40.0


def poison_commit_log(world: World, random: Random) -> None:
    """Records that nobody can read, that tell of what can't be, or that take back what was said."""
    producer = Producer({"bootstrap.servers": world.cluster.bootstrap_servers, "log_level": 2})
    groups = list(world.leader_groups)
    records = rubbish.wrong(random, TOPIC, random.choice(groups), random.randrange(PARTITIONS))
    records += [rubbish.foreign(random, TOPIC, groups) for _ in range(6)]
    log_partitions = len(world.questions.ends(COMMIT_LOG))
    for key, value in random.sample(records, 6):
        with suppress(KafkaException):
            producer.produce(COMMIT_LOG, value, key, partition=random.randrange(log_partitions))
    producer.flush(5)
    world.wait(0.8)


def add_log_partition(world: World, random: Random) -> None:
    count = len(world.questions.ends(COMMIT_LOG))
    if count < MAX_PARTITIONS:
        world.cluster.add_partitions(COMMIT_LOG, count + 1)
    slots = running(world, "leader")
    if slots:
        random.choice(slots).kill()  # its successor's producer knows the new partition
    world.wait(1.0)


def refuse_leaders(world: World, random: Random) -> None:
    """The brokers refuse what the leaders publish: for good, or as if a replica were missing."""
    name, bad, good = random.choice([("max.message.bytes", "1", "1048588"), ("min.insync.replicas", "3", "2")])
    began = time.monotonic()
    world.cluster.set_topic_config(COMMIT_LOG, {name: bad})
    if name == "min.insync.replicas" and world.is_whole():
        broker = random.choice(world.cluster.brokers)
        broker.pause()
        world.later(3.5, broker.resume)
    seconds = 2.5 if name == "max.message.bytes" else 5.0

    def heal() -> None:
        with suppress(KafkaException, TimeoutError):
            world.cluster.set_topic_config(COMMIT_LOG, {name: good})
            world.hindered("cluster", began)
            return
        world.later(1.0, heal)

    world.later(seconds, heal)
    world.wait(2.5)


def lose_commit_log(world: World, random: Random) -> None:
    """Deleted, missed for a while, and created again, empty.

    With as many partitions as before: a record on its way to one that is gone stays so for librdkafka's five minutes,
    and the leader waits for it. The leaders are started anew, as an operator must: librdkafka's producers take the new
    topic's leader epochs for old ones, and go on sending to brokers that lead no more (librdkafka#4898, open).
    Whoever lives through it has to tell: one that was just ending, and its next process, may have seen one log alone.
    """
    partitions, began = len(world.questions.ends(COMMIT_LOG)), time.monotonic()
    readers = [each.group for each in world.ingredients.followers if each.source != GROUP_OFFSETS]
    living = [(slot, slot.journal) for group in readers for slot in world.members(group) if slot.is_running]
    world.delete_topic(COMMIT_LOG)
    world.wait(random.choice([2.5, 12.0]))  # a reader that misses it for ten seconds dies
    world.create_commit_log(partitions)
    world.stop(*world.leaders)
    world.start(*world.leaders)
    groups = {slot.group for slot, journal in living if slot.is_running and slot.journal == journal}
    if groups:
        wanted = "deleted and created again|doesn't exist|does not exist|is gone|not exist any more"
        world.wants_told(wanted, began, TOLD_SECONDS, *sorted(groups))
    world.hindered("cluster", began)
    world.wait(1.0)
