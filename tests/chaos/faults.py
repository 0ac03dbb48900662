"""The faults, each a function that does its harm, waits, and heals it, or sees to it that it is healed soon."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import NamedTuple

from confluent_kafka import KafkaException, Producer

from tests.chaos.processes import Slot
from tests.chaos.proxy import MODES
from tests.chaos.world import (
    COMMIT_LOG,
    FOLLOWER_GROUPS,
    LEADER_GROUPS,
    PARTITIONS,
    RATE,
    TOPIC,
    WRITER_B_SECONDS,
    World,
)

REWOUND_SECONDS = 0.006
"""How long a leader that was set back takes over a message, so that it stays behind for a while."""
MAX_PARTITIONS = 8
LONG, SHORT = 300, 50
"""Messages a partition: at least of the old topic, and twice of the new one, before the leaders have begun with it."""
MAX_LOG_PARTITIONS = 6

Do = Callable[[World, Random], None]


class Fault(NamedTuple):
    do: Do
    weight: int
    needs_whole: bool = False
    """It needs all brokers, or takes one away."""


def _running(world: World, role: str) -> list[Slot]:
    return [slot for slot in world.slots if slot.role == role and slot.is_running and not slot.is_paused]


def _kill(role: str) -> Do:
    def kill(world: World, random: Random) -> None:
        slots = _running(world, role)
        if slots:
            random.choice(slots).kill()
        world.wait(random.uniform(0.5, 1.5))

    return kill


def _pause(role: str, seconds: float) -> Do:
    def pause(world: World, random: Random) -> None:
        slots = _running(world, role)
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

    return pause


def kill_broker(world: World, random: Random) -> None:
    broker = random.choice(world.cluster.brokers)
    broker.kill()
    world.later(random.uniform(0.5, 2.0), broker.start)
    world.wait(2.5)


def pause_broker(world: World, random: Random) -> None:
    broker = random.choice(world.cluster.brokers)
    broker.pause()
    world.later(random.uniform(3.5, 5.0), broker.resume)
    world.wait(2.5)


def grow_or_shrink(world: World, random: Random) -> None:
    slot = world.members(random.choice(FOLLOWER_GROUPS))[1]
    if slot.is_wanted:
        slot.stop()
    else:
        world.start(slot)
    world.wait(random.uniform(1.0, 2.5))


def rewind_leader(world: World, random: Random) -> None:
    """Set it back while it is stopped; it works more slowly then. A follower may start anew."""
    group = random.choice(list(LEADER_GROUPS))
    members = world.members(group)
    world.stop(*members)
    try:
        committed = world.committed(group)
        first = {partition: low for partition, (low, _) in world.ends(TOPIC).items()}
        back = {p: max(first.get(p, 0), offset - random.randrange(10, 150)) for p, offset in committed.items()}
        world.set_offsets(group, back)
        for partition, offset in back.items():
            world.journal.write("rewound", group, world.epoch, partition, offset)
    finally:
        for slot in members:
            slot.delay_seconds = REWOUND_SECONDS
        world.start(*members)
        for slot in members:
            slot.delay_seconds = WRITER_B_SECONDS if len(members) > 1 else 0.0
    world.wait(1.5)
    if random.random() < 0.5:
        _kill("follower")(world, random)


def silence_leader(world: World, random: Random) -> None:
    members = world.members(random.choice(list(LEADER_GROUPS)))
    world.stop(*members)
    world.wait(random.uniform(2.5, 5.0))
    world.start(*members)


def poison_commit_log(world: World, random: Random) -> None:
    """Records that nobody can read, that tell of what can't be, or that take back what was said."""
    producer = Producer({"bootstrap.servers": world.cluster.bootstrap_servers, "log_level": 2})
    group, partition = random.choice(list(LEADER_GROUPS)), random.randrange(PARTITIONS)
    key = f"{TOPIC}:{partition}:{group}".encode()
    records: list[tuple[bytes, bytes | None]] = [
        (b"", b"an empty key"),
        (b"\xff\xfe", b"not text"),
        (b"no colons", b"1"),
        (f"{TOPIC}:one:{group}".encode(), b"1"),
        (key, b"{"),
        (key, b'{"offset": true, "orig_message_ts": 1.0}'),
        (key, b'{"offset": 1e400, "orig_message_ts": 1.0}'),
        (key, b"9" * 5000),
        (key, b'{"offset": -1, "orig_message_ts": 1.0, "received_p99": null}'),
        (key, b'{"offset": 999999999999, "orig_message_ts": 1.0, "received_p99": null}'),
        (key, b"999999999999"),
        (key, None),
        (f"{TOPIC}:0:somebody-else".encode(), b'{"offset": 999999, "orig_message_ts": 1.0, "received_p99": null}'),
        (f"{TOPIC}:99999:{group}".encode(), b'{"offset": 5, "orig_message_ts": 1.0, "received_p99": null}'),
    ]
    log_partitions = len(world.ends(COMMIT_LOG))
    for record_key, value in random.sample(records, 6):
        with suppress(KafkaException):
            producer.produce(COMMIT_LOG, value, record_key, partition=random.randrange(log_partitions))
    producer.flush(5)
    world.wait(0.8)


def add_log_partition(world: World, random: Random) -> None:
    count = len(world.ends(COMMIT_LOG))
    if count < MAX_LOG_PARTITIONS:
        world.cluster.add_partitions(COMMIT_LOG, count + 1)
    slots = _running(world, "leader")
    if slots:
        random.choice(slots).kill()  # its successor's producer knows the new partition
    world.wait(1.0)


def add_data_partition(world: World, random: Random) -> None:
    count = len(world.ends(TOPIC))
    if count < MAX_PARTITIONS:
        world.cluster.add_partitions(TOPIC, count + 1)
    world.wait(2.0)


def recreate_topic(world: World, random: Random) -> None:
    """Under the old commit log: followers go on with it, later start anew, and the leaders come last.

    A topic that has outgrown the old offsets by then can't be told from the old one (the README says so). So the old
    one is made long first, and the new one is kept short until every leader group has published anew.
    """
    partitions = len(world.ends(TOPIC))
    everything = dict.fromkeys(range(partitions), 0)

    def is_long() -> bool:
        committed = [world.committed(group) for group in LEADER_GROUPS]
        return all(offsets.get(p, 0) >= LONG for offsets in committed for p in everything)

    world.producer.say(f"burst {LONG}")
    if not world.wait(30.0, is_long):
        raise TimeoutError("the leaders didn't get far enough")
    leaders = [slot for slot in world.slots if slot.role == "leader"]
    world.producer.stop(35)
    world.cluster.recreate_topic(TOPIC, partitions)
    world.epoch += 1
    world.journal.write("epoch", world.epoch)
    world.stop(*leaders)
    for group in LEADER_GROUPS:
        world.set_offsets(group, everything)
    world.start_producer(rate=0)
    world.producer.say(f"burst {SHORT}")
    world.wait(1.0)
    for group in FOLLOWER_GROUPS:
        wanted = [slot for slot in world.members(group) if slot.is_wanted]
        world.stop(*world.members(group))
        world.set_offsets(group, everything)
        world.start(*wanted)
    world.wait(random.uniform(1.5, 3.0))
    world.start(*leaders)
    world.producer.say(f"burst {SHORT}")

    def all_began() -> bool:
        world.look()
        began = [{p for e, p, _ in world.done[group] if e == world.epoch} for group in LEADER_GROUPS]
        return all(each >= everything.keys() for each in began)

    if not world.wait(90.0, all_began):
        raise TimeoutError("the leaders didn't begin with the new topic")
    world.wait(1.0)
    world.producer.say(f"rate {RATE}")


def delete_records(world: World, random: Random) -> None:
    """Under a follower that stands still meanwhile."""
    group = random.choice(FOLLOWER_GROUPS)
    slots, began = [slot for slot in world.members(group) if slot.is_running], time.monotonic()
    for slot in slots:
        slot.pause()
    try:
        world.wait(1.2)
        committed = [world.committed(each) for each in LEADER_GROUPS]
        partition = random.choice(sorted(set(committed[0]) & set(committed[1])) or [0])
        before = min(offsets.get(partition, 0) for offsets in committed)
        world.deleted[world.epoch, partition] = before
        world.journal.write("deleted", world.epoch, partition, before)
        world.cluster.delete_records(TOPIC, {partition: before})
    finally:
        for slot in slots:
            slot.go_on()
        world.hindered(group, began)
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


def cut_network(world: World, random: Random) -> None:
    """Between the followers of a group and one broker."""
    group, began = random.choice(FOLLOWER_GROUPS), time.monotonic()
    proxy = world.proxies[random.choice(world.cluster.brokers).node_id, group]
    proxy.hinder(random.choice(MODES))

    def heal() -> None:
        proxy.heal()
        world.hindered(group, began)

    world.later(random.uniform(1.5, 4.5), heal)
    world.wait(2.0)


def lose_commit_log(world: World, random: Random) -> None:
    """Deleted, missed for a while, and created again, empty.

    With as many partitions as before: a record on its way to one that is gone stays so for librdkafka's five minutes,
    and the leader waits for it. The leaders are started anew, as an operator must: librdkafka's producers take the new
    topic's leader epochs for old ones, and go on sending to brokers that lead no more (librdkafka#4898, open).
    """
    partitions = len(world.ends(COMMIT_LOG))
    world.cluster.delete_topic(COMMIT_LOG)
    world.wait(random.choice([2.5, 12.0]))  # a reader that misses it for ten seconds dies
    world.create_commit_log(partitions)
    members = [slot for group in LEADER_GROUPS for slot in world.members(group)]
    world.stop(*members)
    world.start(*members)
    world.wait(1.0)


FAULTS: dict[str, Fault] = {
    "follower killed": Fault(_kill("follower"), 4),
    "leader killed": Fault(_kill("leader"), 3),
    "broker killed": Fault(kill_broker, 3, needs_whole=True),
    "follower stopped beyond its session": Fault(_pause("follower", 3.6), 3),
    "leader stopped beyond its session": Fault(_pause("leader", 6.6), 2),
    "broker stopped beyond its session": Fault(pause_broker, 2, needs_whole=True),
    "follower group grown or shrunk": Fault(grow_or_shrink, 6),
    "leader group rewound": Fault(rewind_leader, 3, needs_whole=True),
    "leader group silent": Fault(silence_leader, 2),
    "commit log poisoned": Fault(poison_commit_log, 3),
    "commit-log partition added": Fault(add_log_partition, 2, needs_whole=True),
    "data partition added": Fault(add_data_partition, 2, needs_whole=True),
    "data topic recreated": Fault(recreate_topic, 1, needs_whole=True),
    "records deleted under the follower": Fault(delete_records, 2, needs_whole=True),
    "produce refused": Fault(refuse_leaders, 2, needs_whole=True),
    "network cut": Fault(cut_network, 3),
    "commit log deleted": Fault(lose_commit_log, 1, needs_whole=True),
}
