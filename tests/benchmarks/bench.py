"""The bench: one broker, a working directory, and the ways to run a contender on them."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from confluent_kafka import Producer

from tests.benchmarks.commit_records import Format, encode, headers
from tests.benchmarks.numbers import ratio
from tests.benchmarks.peer_environment import peer_python
from tests.benchmarks.processes import Program, ProgramFailed
from tests.benchmarks.promises import CommitRecords, Deliveries, broken_promises
from tests.integration.cluster.cluster import KafkaCluster

T = TypeVar("T")

LEADER_GROUP = "leaders"
UNRELEASED = 500
"""So many messages per partition stay unreleased when the leaders are far ahead, so that an open gate would show."""
BATCH_BYTES = 16_384
"""Of the producer's batches of a backlog: Kafka's own default."""
SELDOM_REPETITIONS = 2
"""Of a full run; of a quick one it is one."""
READY_SECONDS = 30.0
FINISH_SECONDS = 60.0
SLOWEST_PER_SECOND = 20_000
"""A contender that delivers a backlog more slowly than this has failed."""

README_SETTINGS: dict[str, Any] = {
    "queued.min.messages": 1_000,
    "fetch.queue.backoff.ms": 10,
    "max.partition.fetch.bytes": 300_000,
}
"""What the README tells a user to set on the data consumer."""

CONSUMER_SETTINGS: dict[str, dict[str, Any]] = {
    "bare": README_SETTINGS,
    "gated": README_SETTINGS,
    "plain": {},
    "unwrapped": README_SETTINGS,
    "peer": README_SETTINGS,
    "peer_defaults": {},
    "peer_bare": README_SETTINGS,
    "floor": {},
    "busy_floor": README_SETTINGS,
}

MODULES = {
    "floor": "floor",
    "busy_floor": "busy_floor",
    "peer": "peer",
    "peer_defaults": "peer",
    "peer_bare": "peer",
}
FLOORS = frozenset({"floor", "busy_floor"})
"""They deliver the records of the commit log."""
UNGATED = FLOORS | {"bare", "peer_bare"}


@dataclass
class Run:
    """One contender's run: what it delivered, what it used, and which promises it broke."""

    contender: str
    deliveries: Deliveries
    result: dict[str, Any]
    broken: list[str] = field(default_factory=list)
    records: CommitRecords | None = None
    own_cpu_seconds: float = 0.0
    """User + system time of the process since its partitions were assigned."""
    published: list[int] = field(default_factory=list)
    usage: list[dict[str, Any]] = field(default_factory=list)
    """The process's usage as each step of the feeder's plan began, and the messages that it had delivered."""

    def cpu_us_per_message(self, step: int) -> float | None:
        """What a message cost that was delivered during one step of the feeder's plan, which isn't the last one."""
        before, after = self.usage[step : step + 2]
        return ratio((after["cpu_seconds"] - before["cpu_seconds"]) * 1e6, after["messages"] - before["messages"])


@dataclass
class Data:
    """A data topic and where its partitions end."""

    topic: str
    ends: list[int]
    payload_bytes: int


class Bench:
    """What a scenario works with. Single-threaded.

    :param progress: called with a text when something begins.
    """

    def __init__(
        self, cluster: KafkaCluster, work: Path, quick: bool, seed: int, progress: Callable[[str], None]
    ) -> None:
        self.cluster = cluster
        self.work = work
        self.quick = quick
        self.seed = seed
        self.repetitions = 2 if quick else 4
        self.progress = progress
        self.broken: list[str] = []
        self.shared: dict[str, Any] = {}
        """What one scenario has measured for another, too."""
        self._numbers = itertools.count()

    def pick(self, quick: T, full: T) -> T:
        """The first for a quick run, the second for a full one."""
        return quick if self.quick else full

    def alternating(
        self, contenders: Sequence[str], seldom: Collection[str] = (), at_most: int = 4
    ) -> Iterator[tuple[int, str]]:
        """Every contender once a repetition, each repetition beginning with the next one.

        :param seldom: those of them that run in the first `SELDOM_REPETITIONS` only (in a quick run: in the first),
            being far from any bound.
        :param at_most: so many repetitions, though the bench does more.
        """
        repetitions = min(self.repetitions, at_most)
        seldom_repetitions = self.pick(1, SELDOM_REPETITIONS)
        for repetition in range(repetitions):
            shift = repetition % len(contenders)
            for contender in [*contenders[shift:], *contenders[:shift]]:
                if contender in seldom and repetition >= seldom_repetitions:
                    continue
                self.progress(f"repetition {repetition + 1} of {repetitions}: {contender}")
                yield repetition, contender

    def name(self, prefix: str) -> str:
        """A name that is used once."""
        return f"{prefix}-{next(self._numbers)}"

    def create_topic(self, prefix: str, partitions: int) -> str:
        """A new topic of this bench."""
        name = self.name(prefix)
        self.cluster.create_topic(name, partitions)
        return name

    @contextmanager
    def contender(
        self, name: str, topic: str, partitions: int, *, commit_log: str, capacity: int, **options: Any
    ) -> Iterator[Contender]:
        """Start a contender on ``topic`` and wait until it has its partitions."""
        config = {
            "contender": name,
            "bootstrap_servers": self.cluster.bootstrap_servers,
            "topic": topic,
            "partitions": partitions,
            "commit_log_topic": commit_log,
            "leader_groups": [LEADER_GROUP],
            "group_id": self.name(f"{name}-followers"),
            "consumer": CONSUMER_SETTINGS[name],
            "follower": "nothing",
            "record": "times",
            "capacity": capacity,
            "out": str(self.work / self.name(name)),
            **options,
        }
        python = peer_python() if name.startswith("peer") else None
        module = f"tests.benchmarks.contenders.{MODULES.get(name, 'pipeline')}"
        with Program(module, config, self.work / f"{config['group_id']}.log", python) as program:
            program.expect("ready", READY_SECONDS)
            yield Contender(name, config, program)

    def record_format(self, contender: str) -> Format:
        """The form of commit record that leaders of this contender write."""
        return "legacy" if contender in ("peer", "peer_defaults") else "json"

    def feed(self, contender: str, topic: str, partitions: int, commit_log: str, **plan: Any) -> Feeder:
        """Start the feeder with a plan, see ``feeder.py``."""
        full = {
            "bootstrap_servers": self.cluster.bootstrap_servers,
            "topic": topic,
            "partitions": partitions,
            "commit_log_topic": commit_log,
            "leader_group": LEADER_GROUP,
            "record_format": self.record_format(contender),
            "payload_bytes": 200,
            "seed": self.seed,
            "out": str(self.work / self.name("records")),
            **plan,
        }
        return Feeder(full, Program("tests.benchmarks.feeder", full, self.work / f"{Path(full['out']).name}.log"))

    def load(self, prefix: str, partitions: int, messages: int, payload: bytes) -> Data:
        """A new topic with so many messages of one payload, spread evenly."""
        topic = self.create_topic(prefix, partitions)
        self.progress(f"loading {messages:,} messages of {len(payload):,} B")
        producer = Producer(
            {
                "bootstrap.servers": self.cluster.bootstrap_servers,
                "log_level": 2,
                "linger.ms": 5,
                # As large as the producers of a steady stream make them; the broker hands out whole batches.
                "batch.size": BATCH_BYTES,
                "queue.buffering.max.messages": 100_000,
                "queue.buffering.max.kbytes": 500_000,
            }
        )
        for number in range(messages):
            while True:
                try:
                    producer.produce(topic, payload, partition=number % partitions)
                    break
                except BufferError:
                    producer.poll(0.01)
        if producer.flush(120):
            raise RuntimeError("the broker didn't take all messages within 120 s")
        return Data(topic, [len(range(p, messages, partitions)) for p in range(partitions)], len(payload))

    def publish(self, contender: str, topic: str, commit_log: str, offsets: list[int]) -> CommitRecords:
        """Publish each partition's offset (0: none), all at once, and wait until the broker has the records."""
        producer = Producer({"bootstrap.servers": self.cluster.bootstrap_servers, "linger.ms": 0, "log_level": 2})
        producer.list_topics(commit_log, 10)
        form = self.record_format(contender)
        now = time.perf_counter_ns()
        for partition, offset in enumerate(offsets):
            if not offset:
                continue
            key, value = encode(form, topic, partition, LEADER_GROUP, offset)
            producer.produce(commit_log, value, key, headers=headers(form))
        if producer.flush(10):
            raise RuntimeError("the broker didn't take the commit records within 10 s")
        return CommitRecords.at_once(now, offsets)

    def catch_up(
        self,
        contender: str,
        data: Data,
        *,
        follower: str = "nothing",
        record: str = "stamps",
        stopped: Collection[int] = (),
    ) -> Run:
        """One run through data that is there, the leaders far ahead: opened in one go, nearly to the end.

        :param stopped: partitions whose leader commits nothing.
        """
        partitions = len(data.ends)
        gated = contender not in UNGATED
        ends = [0 if p in stopped else end - UNRELEASED for p, end in enumerate(data.ends)] if gated else data.ends
        commit_log = self.create_topic("commit-log", 1)
        options: dict[str, Any] = {
            "commit_log": commit_log,
            "capacity": sum(data.ends),
            "follower": follower,
            "record": record,
        }
        with self.contender(contender, data.topic, partitions, **options) as running:
            records = self.publish(contender, data.topic, commit_log, ends) if gated else None
            run = running.finish(records, ends, FINISH_SECONDS + sum(ends) / SLOWEST_PER_SECOND)
        self.cluster.delete_topic(commit_log)
        return run

    def attempt(self, what: str, run: Callable[[], Run]) -> Run | None:
        """Make one run. One that failed or broke a promise is noted as broken and gives ``None``: it isn't timed."""
        try:
            made = run()
        except ProgramFailed as error:
            self.broken.append(f"{what}: {error}")
            self.progress(f"BROKEN: {what}: {error}")
            return None
        self.broken.extend(f"{what}: {each}" for each in made.broken)
        for each in made.broken:
            self.progress(f"BROKEN: {what}: {each}")
        return None if made.broken else made


class Contender:
    """A contender that runs."""

    def __init__(self, name: str, config: dict[str, Any], program: Program) -> None:
        self.name = name
        self.config = config
        self.program = program
        self._cpu_before = program.usage()["cpu_seconds"]

    def finish(self, records: CommitRecords | None, ends: list[int], timeout: float = FINISH_SECONDS) -> Run:
        """Wait until all up to ``ends`` is delivered, end the run and judge it."""
        self.program.send({"command": "finish", "expect": sum(ends), "timeout_seconds": timeout})
        result = self.program.expect("result", timeout + FINISH_SECONDS)
        deliveries = Deliveries.load(Path(self.config["out"]), self.config["record"] == "stamps")
        judged = None if self.name in UNGATED else records
        broken = broken_promises(deliveries, judged, ends)
        cpu = result["cpu_seconds"] - self._cpu_before
        return Run(self.name, deliveries, result, broken, records, cpu)


class Feeder:
    """A feeder at work."""

    def __init__(self, plan: dict[str, Any], program: Program) -> None:
        self.plan = plan
        self.program = program

    def end_stream(self) -> None:
        """Go on to the next step."""
        self.program.send({"command": "end"})

    def finish(self, on_step: Callable[[], None] = lambda: None) -> tuple[CommitRecords, list[int]]:
        """Wait until the plan was played. The records, and the end that was published per partition.

        :param on_step: called as each step begins.
        """
        seconds = sum(step.get("seconds", 30) for step in self.plan["steps"])
        with self.program:
            while (done := self.program.receive(2 * seconds + FINISH_SECONDS))["event"] == "step":
                on_step()
        return CommitRecords.load(Path(self.plan["out"])), done["published"]
