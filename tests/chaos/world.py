"""The world of a run: a cluster of three brokers, its topics, and the processes, tended while time passes.

All of it is driven by one thread: whoever waits, waits with `World.wait`, which starts again what has ended.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from confluent_kafka import KafkaException

from tests.chaos.ingredients import COMPACTED, PLAIN, Follower, Ingredients, Leader
from tests.chaos.journal import Journal
from tests.chaos.processes import FED, JOIN_SECONDS, Slot, stop_together
from tests.chaos.proxy import Proxy
from tests.chaos.questions import Questions
from tests.chaos.tally import Tally
from tests.chaos.wholeness import Wholeness
from tests.integration.cluster import jars
from tests.integration.cluster.cluster import START_TIMEOUT_SECONDS, KafkaCluster

TOPIC, COMMIT_LOG = "events", "commit-log"
PARTITIONS = 4
RATE = 150
"""Messages a second."""
HELD_LIMIT = 100
WRITER_B_SECONDS = 0.002
"""How long the second leader group takes over a message: it is the slower one."""
TICK_SECONDS = 0.05
TOPICS_SECONDS = 10.0
STUCK_SECONDS = 25.0
"""After so long a replica isn't waited for any more."""
WITHOUT_ELIGIBLE_REPLICAS = {"eligible.leader.replicas.version": 0}
"""With them (KIP-966, the default from Kafka 4.1 on) three of six runs broke off: some time after a topic was deleted,
a broker that was killed can't come back, since the controllers throw "Topic ID ... existed in isrMembers, but not in
the topics map" (4.3.1, 4.4.0). Without them the same seed ran to its end."""
ANY_TIME = str(2**62)
"""Of how far a timestamp may lie from the broker's own."""

QUICK = {"topic.metadata.refresh.interval.ms": 1000, "reconnect.backoff.ms": 50, "reconnect.backoff.max.ms": 500}
EAGER = {**QUICK, "session.timeout.ms": 3000, "heartbeat.interval.ms": 300}
KIP848 = {**QUICK, "group.protocol": "consumer"}
LEADER = {**QUICK, "session.timeout.ms": 6000, "heartbeat.interval.ms": 500}
STALE = ("range", "reset", "Unknown topic", "unknown topic")
"""In the last line of a process whose committed offset isn't in the topic: an operator must set it."""


def dead_letters_of(group: str) -> str:
    """The topic for a follower group's dead letters."""
    return f"dead-letters-{group}"


class World:
    """Entered, it runs; left, all of it is gone but the journals in ``folder``.

    :param environment: of leaders and followers; it may name what they are broken with (``tests/support/sabotage.py``).
    """

    def __init__(
        self, folder: Path, environment: Mapping[str, str] | None = None, ingredients: Ingredients = PLAIN
    ) -> None:
        self.folder = folder
        self.ingredients = ingredients
        self.epoch = 1
        self.journal = Journal(folder / "driver.jsonl")
        self.slots: list[Slot] = []
        self.proxies: dict[tuple[int, str], Proxy] = {}
        self.epochs_there = [1]
        """Those whose messages the data topic may hold. An election begins another one of the same topic."""
        self.gone_below: dict[tuple[int, int], int] = {}
        """By epoch and partition, the offset below which records were deleted."""
        self.leader_groups = ingredients.leader_groups
        self.follower_groups = ingredients.follower_groups
        self._environment = dict(environment or {})
        self._groups_of: dict[str, str] = {}
        self.tally = Tally(folder, self._groups_of, self.leader_groups, self.follower_groups, ingredients.from_the_end)
        self._later: list[tuple[float, Callable[[], None]]] = []
        self._stale: set[str] = set()
        """The groups of which a process has ended since its committed offset isn't in the topic."""
        self._stack = ExitStack()
        self.cluster = KafkaCluster(
            3,
            properties={
                "group.consumer.session.timeout.ms": "3000",
                "offsets.topic.num.partitions": "2",
                "delete.topic.enable": "true",
            },
            features=WITHOUT_ELIGIBLE_REPLICAS if jars.major(jars.version()) >= 4 else None,
            listeners={group.upper(): "PLAINTEXT" for group in self.follower_groups},
            advertise=self._advertise,
            min_insync_replicas=2,
            heap_mb=320,
        )
        self._wholeness = Wholeness(
            self.cluster, lambda since, until: self.journal.write("hindered", "cluster", until, at=since)
        )
        self.is_whole = self._wholeness.is_whole

    def __enter__(self) -> World:
        try:
            self._stack.enter_context(self.cluster)
            self.questions = Questions(self.cluster.bootstrap_servers, TOPIC)
            self.journal.write("clock", time.time())
            self.journal.write("ingredients", self.ingredients.as_json())
            self.create_data_topic(PARTITIONS)
            self.create_commit_log()
            for group in self.follower_groups:
                self.cluster.create_topic(dead_letters_of(group))
            self.journal.write("epoch", self.epoch)
            self._make_slots()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        stop_together(self.slots)
        self._stack.close()
        for proxy in self.proxies.values():
            proxy.close()
        self.journal.close()

    # Topics.

    def create_data_topic(self, partitions: int) -> None:
        data = self.ingredients.data
        settings = {
            "message.timestamp.type": data.timestamps,
            "message.timestamp.before.max.ms": ANY_TIME,
            "message.timestamp.after.max.ms": ANY_TIME,
            "retention.ms": "-1",  # a message that says it is from 1970 stays
        }
        if data.replicas < 3:
            settings["min.insync.replicas"] = "1"
        if data.kind == COMPACTED:
            settings |= {"cleanup.policy": "compact", "segment.ms": "3000", "min.cleanable.dirty.ratio": "0.01"}
        self.cluster.create_topic(TOPIC, partitions, settings, replication=data.replicas)

    def delete_topic(self, name: str) -> None:
        """It is gone then, also if some broker took too long to show it; so it can be created again.

        :raises TimeoutError: it is still there.
        """
        try:
            self.cluster.delete_topic(name)
        except TimeoutError:
            self.wait_until_whole()
            if name in self.cluster.admin.list_topics(timeout=TOPICS_SECONDS).topics:
                raise

    def recreate_data_topic(self, partitions: int) -> None:
        """Deleted and created again, empty: another epoch."""
        self.delete_topic(TOPIC)
        self.create_data_topic(partitions)
        self.epochs_there.clear()
        self.begin_epoch()

    def begin_epoch(self) -> None:
        self._stale.clear()  # of the topic before
        self.epoch += 1
        self.epochs_there.append(self.epoch)
        self.journal.write("epoch", self.epoch)

    def create_commit_log(self, partitions: int | None = None) -> None:
        log = self.ingredients.commit_log
        settings = {"cleanup.policy": "compact,delete", "message.timestamp.type": log.timestamps}
        self.cluster.create_topic(COMMIT_LOG, partitions or log.partitions, settings)

    # Processes.

    @property
    def producer(self) -> Slot:
        return self.slots[0]

    @property
    def leaders(self) -> list[Slot]:
        return [slot for slot in self.slots if slot.role == "leader"]

    def members(self, group: str) -> list[Slot]:
        return [slot for slot in self.slots if slot.group == group]

    def start(self, *slots: Slot, environment: Mapping[str, str] | None = None) -> None:
        for slot in slots:
            self._note_end(slot)
            own = {} if slot.role in FED else self._environment
            slot.start({**own, **(environment or {})})
            self._groups_of[slot.journal] = slot.group
            self.journal.write("started", slot.journal)

    def stop(self, *slots: Slot) -> None:
        """Stop them and, where they end by themselves, note how long that took, and whether it was well."""
        for slot in slots:
            self._note_end(slot)
        asked = [slot for slot in slots if slot.is_running and slot.role not in FED]
        began = time.monotonic()
        stop_together(slots)
        for slot in asked:
            self.journal.write("stopped", slot.journal, slot.took_seconds, at=began)
            if slot.unclear_end is not None:
                self.journal.write("exit", slot.journal, *slot.unclear_end, False)

    def start_producer(self, rate: int = RATE) -> None:
        self.producer.settings.update(epoch=self.epoch, rate=rate)
        self.start(self.producer)

    def _make_slots(self) -> None:
        common = {"topic": TOPIC, "commit_log": COMMIT_LOG}
        own = {**common, "bootstrap_servers": self.cluster.bootstrap_servers}
        data = self.ingredients.data
        producer = {**own, "kind": data.kind, "clock": data.clock, "headers": data.headers}
        self.slots.append(Slot(self.folder, "producer", "producer", producer))
        self._add_rubbish(own)
        for leader in self.ingredients.leaders:
            settings = self._leader_settings(own, leader)
            for member in range(1, leader.members + 1):
                self.slots.append(Slot(self.folder, f"{leader.group}-{member}", "leader", settings))
                self.slots[-1].delay_seconds = self.delay_seconds(leader.group)
        for follower in self.ingredients.followers:
            servers = self.cluster.bootstrap_servers_of(follower.group.upper())
            for member in (1, 2):
                name = f"{follower.group}-{member}"
                settings = self._follower_settings({**common, "bootstrap_servers": servers}, follower, name)
                self.slots.append(Slot(self.folder, name, "follower", settings))
                self.slots[-1].delay_seconds = follower.step_seconds

    def delay_seconds(self, group: str) -> float:
        """How long a leader of this group takes over a message."""
        return WRITER_B_SECONDS if self.leader_groups[group] > 1 else 0.0

    def _add_rubbish(self, settings: Mapping[str, Any]) -> None:
        if self.ingredients.commit_log.is_shared:
            groups = list(self.leader_groups)
            self.slots.append(Slot(self.folder, "rubbish", "rubbish", {**settings, "leader_groups": groups}))

    def _leader_settings(self, settings: Mapping[str, Any], leader: Leader) -> dict[str, Any]:
        consumer = {**LEADER, "isolation.level": leader.isolation}
        more = {"group": leader.group, "handler": "work", "publishes": leader.publishes, "consumer": consumer}
        return {**settings, **more, "join_seconds": JOIN_SECONDS}

    def _follower_settings(self, settings: Mapping[str, Any], follower: Follower, name: str) -> dict[str, Any]:
        consumer: dict[str, Any] = dict(KIP848 if follower.protocol == "kip848" else EAGER)
        if follower.has_auto_commit:
            consumer |= {"arroyo.enable.auto.commit": True, "auto.commit.interval.ms": 500}
        return {
            **settings,
            "group": follower.group,
            "consumer": consumer,
            "handler": "receive",
            "limit": HELD_LIMIT,
            "leader_groups": list(self.leader_groups),
            "is_preempted": True,
            "reset": follower.reset,
            "source": follower.source,
            "dead_letters": dead_letters_of(follower.group) if follower.has_dead_letters else None,
            "instance_id": name if follower.is_static else None,
            "join_seconds": JOIN_SECONDS,
        }

    # Time.

    def wait(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Let time pass, and tend to what happens. Returns whether ``until`` came true."""
        deadline = time.monotonic() + seconds
        while True:
            self._tend()
            if until():
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(TICK_SECONDS)

    def later(self, seconds: float, do: Callable[[], None]) -> None:
        """Do it while somebody waits, after so many seconds."""
        self._later.append((time.monotonic() + seconds, do))

    def finish_later(self) -> None:
        """Do at once what was put off."""
        while self._later:
            self._later.pop(0)[1]()

    def look(self) -> None:
        """Bring `tally` up to date with the journals."""
        self.tally.look()

    def _tend(self) -> None:
        now = time.monotonic()
        for each in [each for each in self._later if each[0] <= now]:
            self._later.remove(each)
            each[1]()
        for slot in self.slots:
            self._note_end(slot)
            while self._stale:
                self.set_stale_offsets(self._stale.pop())
            if slot.is_due:
                self.start(slot)
        self.is_whole()

    def _note_end(self, slot: Slot) -> None:
        """Note it, if its process has ended by itself."""
        ended = slot.ended_by_itself() if slot.is_wanted else None
        if ended is not None:
            self.journal.write("exit", slot.journal, *ended)
            if any(word in ended[1] for word in STALE):
                self._stale.add(slot.group)

    # The operator.

    def wait_until_whole(self, seconds: float = START_TIMEOUT_SECONDS) -> None:
        """Wait for it, and restart brokers whose replicas stay away, as an operator has to.

        A broker that was killed right after a topic was created anew may take its own replicas of it for stray ones;
        then it lacks them until its next start (KAFKA-14616, KAFKA-16814).
        """
        if self.wait(STUCK_SECONDS, self.is_whole):
            return
        self._keep_broker_logs()
        for broker in self.cluster.brokers:
            if broker.node_id in self._wholeness.lacking:
                self.journal.write("operator", f"restarts broker {broker.node_id}", self._wholeness.what_is_broken)
                broker.stop()
                broker.start()
        if not self.wait(seconds, self.is_whole):
            self._keep_broker_logs()
            broken = f"the cluster didn't become whole again: {self._wholeness.what_is_broken}"
            logs = [each.log_tail(20) for each in self.cluster.brokers if each.node_id in self._wholeness.lacking]
            raise TimeoutError("\n".join([broken, *logs]))

    def _keep_broker_logs(self) -> None:
        """Their own folders go away with them."""
        for broker in self.cluster.brokers:
            shutil.copy(broker.log, self.folder / f"broker-{broker.node_id}.log")

    def hindered(self, what: str, began: float) -> None:
        self.journal.write("hindered", what, time.monotonic(), at=began)

    def wants_told(self, pattern: str, began: float, seconds: float, *groups: str) -> None:
        """Each of these follower groups (none: all) must say what the pattern finds, within so many seconds."""
        for group in groups or self.follower_groups:
            self.journal.write("wanted", pattern, group, began + seconds, at=began)

    def set_offsets(self, group: str, offsets: Mapping[int, int], seconds: float = 20.0) -> None:
        """As soon as the group has no members: those that were killed are missed after a while."""
        if offsets and not self.wait(seconds, lambda: self.questions.commit(group, offsets)):
            raise TimeoutError(f"the offsets of {group} could not be set")
        for partition, offset in offsets.items():
            self.journal.write("set", group, self.epoch, partition, offset)

    def set_stale_offsets(self, group: str) -> None:
        """Set the group's offsets that aren't in the topic to the nearest one that is.

        Partition by partition: one whose broker is away has nothing to do with another's records that are gone.
        """
        members = [slot for slot in self.members(group) if slot.is_wanted]
        self.stop(*self.members(group))
        with suppress(KafkaException, KeyError, TimeoutError):
            ends = self.questions.reachable_ends(TOPIC)
            committed = self.questions.committed(group)
            near = {p: min(max(offset, ends[p][0]), ends[p][1]) for p, offset in committed.items() if p in ends}
            near.update({p: low for p, (low, _) in ends.items() if p not in committed and low > 0})
            self.set_offsets(group, {p: o for p, o in near.items() if committed.get(p) != o})
        self.start(*members)

    def _advertise(self, node_id: int, listener: str, port: int) -> int:
        if listener.lower() not in self.follower_groups:
            return port
        proxy = self.proxies[node_id, listener.lower()] = Proxy(port)
        return proxy.port
