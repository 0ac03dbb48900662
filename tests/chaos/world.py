"""The world of a run: a cluster of three brokers, its topics, and the processes, tended while time passes.

All of it is driven by one thread: whoever waits, waits with `World.wait`, which starts again what has ended.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition

from tests.chaos.evidence import LogRecord
from tests.chaos.journal import Journal, Tail
from tests.chaos.processes import Slot
from tests.chaos.proxy import Proxy
from tests.integration.cluster.cluster import KafkaCluster

TOPIC, COMMIT_LOG = "events", "commit-log"
LEADER_GROUPS = {"writer-a": 1, "writer-b": 2}
FOLLOWER_GROUPS = ("eager", "kip848")
PARTITIONS, LOG_PARTITIONS = 4, 2
RATE = 150
"""Messages a second."""
HELD_LIMIT = 100
WRITER_B_SECONDS = 0.002
"""How long the second leader group takes over a message: it is the slower one."""
TICK_SECONDS = 0.05
STUCK_SECONDS = 25.0
"""After so long a replica isn't waited for any more."""
WHOLE_SECONDS = 0.3
ASK_SECONDS = 10.0

QUICK = {"topic.metadata.refresh.interval.ms": 1000, "reconnect.backoff.ms": 50, "reconnect.backoff.max.ms": 500}
EAGER = {**QUICK, "session.timeout.ms": 3000, "heartbeat.interval.ms": 300}
KIP848 = {**QUICK, "group.protocol": "consumer"}
LEADER = {**QUICK, "session.timeout.ms": 6000, "heartbeat.interval.ms": 500}
STALE = ("range", "reset", "Unknown topic", "unknown topic")
"""In the last line of a process whose committed offset isn't in the topic: an operator must set it."""


class World:
    """Entered, it runs; left, all of it is gone but the journals in ``folder``.

    :param sabotage: what the followers are broken with, if anything; see ``tests/support/sabotage.py``.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.epoch = 1
        self.journal = Journal(folder / "driver.jsonl")
        self.slots: list[Slot] = []
        self.proxies: dict[tuple[int, str], Proxy] = {}
        self.acked: dict[int, set[tuple[int, int]]] = {}
        """By epoch, partition and offset of what was acknowledged. Up to date after `look`."""
        self.came: dict[str, set[tuple[int, int, int]]] = {group: set() for group in FOLLOWER_GROUPS}
        """By follower group, epoch, partition and offset of what came through."""
        self.done: dict[str, set[tuple[int, int, int]]] = {group: set() for group in LEADER_GROUPS}
        self.deleted: dict[tuple[int, int], int] = {}
        """By epoch and partition, the offset below which records were deleted."""
        self._environment = dict(environment or {})
        self._tail = Tail(folder)
        self._groups_of: dict[str, str] = {}
        self._later: list[tuple[float, Callable[[], None]]] = []
        self._whole_at = 0.0
        self._what_is_broken = ""
        self._lacking: set[int] = set()
        self._broken_at: float | None = None
        self._stack = ExitStack()
        self.cluster = KafkaCluster(
            3,
            properties={
                "group.consumer.session.timeout.ms": "3000",
                "offsets.topic.num.partitions": "2",
                "delete.topic.enable": "true",
            },
            listeners={group.upper(): "PLAINTEXT" for group in FOLLOWER_GROUPS},
            advertise=self._advertise,
            min_insync_replicas=2,
            heap_mb=320,
        )

    def __enter__(self) -> World:
        try:
            self._stack.enter_context(self.cluster)
            self.journal.write("clock", time.time())
            self.cluster.create_topic(TOPIC, PARTITIONS)
            self.create_commit_log()
            self.journal.write("epoch", self.epoch)
            self._make_slots()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for slot in self.slots:
            slot.ask_to_stop()
        for slot in self.slots:
            slot.wait_until_stopped()
        self._stack.close()
        for proxy in self.proxies.values():
            proxy.close()
        self.journal.close()

    def create_commit_log(self, partitions: int = LOG_PARTITIONS) -> None:
        self.cluster.create_topic(COMMIT_LOG, partitions, {"cleanup.policy": "compact,delete"})

    # Processes.

    @property
    def producer(self) -> Slot:
        return self.slots[0]

    def members(self, group: str) -> list[Slot]:
        return [slot for slot in self.slots if slot.group == group]

    def start(self, *slots: Slot) -> None:
        for slot in slots:
            slot.start(self._environment if slot.role == "follower" else None)
            self._groups_of[slot.journal] = slot.group
            self.journal.write("started", slot.journal)

    def stop(self, *slots: Slot) -> None:
        for slot in slots:
            slot.ask_to_stop()
        for slot in slots:
            slot.wait_until_stopped()

    def start_producer(self, rate: int = RATE) -> None:
        self.producer.settings.update(epoch=self.epoch, rate=rate)
        self.start(self.producer)

    def _make_slots(self) -> None:
        def settings(group: str, bootstrap_servers: str, consumer: Mapping[str, Any], **more: object) -> dict[str, Any]:
            return {
                "bootstrap_servers": bootstrap_servers,
                "topic": TOPIC,
                "group": group,
                "commit_log": COMMIT_LOG,
                "consumer": dict(consumer),
                **more,
            }

        own = self.cluster.bootstrap_servers
        self.slots.append(Slot(self.folder, "producer", "producer", settings("", own, {})))
        for group, members in LEADER_GROUPS.items():
            for member in range(1, members + 1):
                name = f"{group}-{member}"
                self.slots.append(Slot(self.folder, name, "leader", settings(group, own, LEADER, handler="work")))
                self.slots[-1].delay_seconds = WRITER_B_SECONDS if members > 1 else 0.0
        for group in FOLLOWER_GROUPS:
            consumer = KIP848 if group == "kip848" else EAGER
            more = {
                "handler": "receive",
                "limit": HELD_LIMIT,
                "leader_groups": list(LEADER_GROUPS),
                "is_preempted": True,
            }
            servers = self.cluster.bootstrap_servers_of(group.upper())
            self.slots += [
                Slot(self.folder, f"{group}-{member}", "follower", settings(group, servers, consumer, **more))
                for member in (1, 2)
            ]

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
        """Bring `acked`, `came` and `done` up to date with the journals."""
        for name, line in self._tail.new_lines():
            if line[0] == "acked":
                self.acked.setdefault(line[2], set()).add((line[3], line[4]))
            elif line[0] == "out":
                self.came[self._groups_of[name]].add((line[3], line[4], line[5]))
            elif line[0] == "done":
                self.done[self._groups_of[name]].add((line[2], line[3], line[4]))

    def _tend(self) -> None:
        now = time.monotonic()
        for each in [each for each in self._later if each[0] <= now]:
            self._later.remove(each)
            each[1]()
        for slot in self.slots:
            ended = slot.ended_by_itself() if slot.is_wanted else None
            if ended is not None:
                self.journal.write("exit", slot.journal, *ended)
                if any(word in ended[1] for word in STALE):
                    self.set_stale_offsets(slot.group)
            if slot.is_due:
                self.start(slot)
        self.is_whole()

    # The operator.

    def is_whole(self) -> bool:
        """Whether all brokers serve and all replicas are in sync, so that any one of them may fail."""
        now = time.monotonic()
        if now >= self._whole_at:
            self._whole_at = now + WHOLE_SECONDS
            self._what_is_broken = self._ask_what_is_broken()
            if self._what_is_broken and self._broken_at is None:
                self._broken_at = now - 2 * WHOLE_SECONDS
            elif not self._what_is_broken and self._broken_at is not None:
                self.journal.write("hindered", "cluster", now, at=self._broken_at)
                self._broken_at = None
        return not self._what_is_broken

    def _ask_what_is_broken(self) -> str:
        """What isn't as it should be, in words; nothing if all is."""
        silent = [broker.node_id for broker in self.cluster.brokers if not broker.is_serving]
        self._lacking = set(silent)
        if silent:
            return f"brokers {silent} don't serve"
        try:
            metadata = self.cluster.admin.list_topics(timeout=1.0)
        except KafkaException as error:
            return f"no metadata: {error.args[0]}"
        if len(metadata.brokers) != 3:
            return f"of three brokers the cluster knows {sorted(metadata.brokers)}"
        broken: list[str] = []
        for name, topic in metadata.topics.items():
            for index, each in topic.partitions.items():
                if len(each.isrs) != 3 or each.leader < 0:
                    broken.append(f"{name}[{index}] led by {each.leader}, in sync {each.isrs}")
                    self._lacking.update(set(each.replicas) - set(each.isrs))
        return f"{len(broken)} partitions, as {broken[0]}" if broken else ""

    def wait_until_whole(self, seconds: float = 60.0) -> None:
        """Wait for it, and restart brokers whose replicas stay away, as an operator has to.

        A broker that was killed right after a topic was created anew may take its own replicas of it for stray ones;
        then it lacks them until its next start (KAFKA-14616, KAFKA-16814).
        """
        if self.wait(STUCK_SECONDS, self.is_whole):
            return
        self._keep_broker_logs()
        for broker in self.cluster.brokers:
            if broker.node_id in self._lacking:
                self.journal.write("operator", f"restarts broker {broker.node_id}", self._what_is_broken)
                broker.stop()
                broker.start()
        if not self.wait(seconds, self.is_whole):
            self._keep_broker_logs()
            raise TimeoutError(f"the cluster didn't become whole again: {self._what_is_broken}")

    def _keep_broker_logs(self) -> None:
        """Their own folders go away with them."""
        for broker in self.cluster.brokers:
            shutil.copy(broker.log, self.folder / f"broker-{broker.node_id}.log")

    def hindered(self, what: str, began: float) -> None:
        self.journal.write("hindered", what, time.monotonic(), at=began)

    # These three ask with consumers. An administrator's client of librdkafka 2.16 crashes now and then when a broker
    # goes under such a request (``rd_kafka_enq_once_del_source_return: refcnt > 0``), and the driver with it.

    def ends(self, topic: str) -> dict[int, tuple[int, int]]:
        """Per partition, the offset of the first record and the one after the last."""
        with self._consumer("ends") as consumer:
            partitions = consumer.list_topics(topic, timeout=ASK_SECONDS).topics[topic].partitions
            return {p: consumer.get_watermark_offsets(TopicPartition(topic, p), ASK_SECONDS) for p in partitions}

    def committed(self, group: str) -> dict[int, int]:
        """Per partition of the data topic, what a group has committed; partitions without are missing."""
        with self._consumer(group) as consumer:
            partitions = consumer.list_topics(TOPIC, timeout=ASK_SECONDS).topics[TOPIC].partitions
            answers = consumer.committed([TopicPartition(TOPIC, p) for p in partitions], timeout=ASK_SECONDS)
            return {each.partition: each.offset for each in answers if each.offset >= 0}

    @contextmanager
    def _consumer(self, group: str) -> Iterator[Consumer]:
        """One that is no member of the group."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.cluster.bootstrap_servers,
                "group.id": group,
                "enable.auto.commit": False,
                "log_level": 2,
            }
        )
        try:
            yield consumer
        finally:
            consumer.close()

    def set_offsets(self, group: str, offsets: Mapping[int, int], seconds: float = 20.0) -> None:
        """As soon as the group has no members: those that were killed are missed after a while."""

        def is_set() -> bool:
            try:
                with self._consumer(group) as consumer:
                    partitions = [TopicPartition(TOPIC, partition, offset) for partition, offset in offsets.items()]
                    answers = consumer.commit(offsets=partitions, asynchronous=False) or []
            except KafkaException:
                return False
            return not any(each.error for each in answers)

        if offsets and not self.wait(seconds, is_set):
            raise TimeoutError(f"the offsets of {group} could not be set")

    def set_stale_offsets(self, group: str) -> None:
        """Set the group's offsets that aren't in the topic to the nearest one that is."""
        members = [slot for slot in self.members(group) if slot.is_wanted]
        self.stop(*self.members(group))
        with suppress(KafkaException, KeyError, TimeoutError):
            ends = self.ends(TOPIC)
            committed = self.committed(group)
            near = {p: min(max(offset, ends[p][0]), ends[p][1]) for p, offset in committed.items() if p in ends}
            near.update({p: low for p, (low, _) in ends.items() if p not in committed and low > 0})
            self.set_offsets(group, {p: o for p, o in near.items() if committed.get(p) != o})
        self.start(*members)

    def read_commit_log(self) -> list[LogRecord]:
        """Everything that is in it."""
        ends = self.ends(COMMIT_LOG)
        left = {partition for partition, (low, high) in ends.items() if low < high}
        consumer = Consumer(
            {
                "bootstrap.servers": self.cluster.bootstrap_servers,
                "group.id": "checker",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
            }
        )
        consumer.assign([TopicPartition(COMMIT_LOG, partition, OFFSET_BEGINNING) for partition in left])
        records: list[LogRecord] = []
        deadline = time.monotonic() + 60
        try:
            while left and time.monotonic() < deadline:
                for message in consumer.consume(10_000, 0.2):
                    if message.error() is not None:
                        left.discard(message.partition() or 0)
                        continue
                    records.append(LogRecord(message.timestamp()[1] / 1000, message.key(), message.value()))
        finally:
            consumer.close()
        return records

    def _advertise(self, node_id: int, listener: str, port: int) -> int:
        if listener.lower() not in FOLLOWER_GROUPS:
            return port
        proxy = self.proxies[node_id, listener.lower()] = Proxy(port)
        return proxy.port
