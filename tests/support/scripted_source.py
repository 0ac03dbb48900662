"""A source on a commit log whose brokers and clients do what a script says, read on the test's own thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from arroyo.types import Topic
from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import PartitionMetadata, TopicMetadata

from arroyo_sync.core.state import PartitionKey, SynchronizedPartitionStateManager
from arroyo_sync.kafka.questions.asker import PartitionRange
from arroyo_sync.leaders import offset_source
from arroyo_sync.leaders.commit_log import consumer as consumer_module
from arroyo_sync.leaders.commit_log.consumer import CommitLogConsumer
from tests.support.fakes import Clock
from tests.support.scripted_asker import ScriptedAsker

LOG = {"bootstrap.servers": "log:9092"}
DATA = {"bootstrap.servers": "data:9092"}
KEY = ("events", 0)
OTHER = ("events", 1)
WALL_CLOCK_SECONDS = 1_700_000_000.0
NOW_MS = 1_700_000_000_000
NO_PERMISSION = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED, "not permitted")
NO_ANSWER = KafkaError(KafkaError._TIMED_OUT, "nobody answers")


class ScriptedClient:
    """A consumer of the commit log. Each poll is the next part of the script; once there is none, the source stops."""

    def __init__(self, world: ScriptedSource, settings: dict[str, Any]) -> None:
        self.world = world
        self.settings = settings
        self.assigned: dict[int, int] = {}
        world.life.append(f"client {len(world.clients)} is made")

    def list_topics(self, topic: str, timeout: float) -> SimpleNamespace:
        if self.world.metadata_error is not None:
            self.world.clock.now += timeout
            raise KafkaException(self.world.metadata_error)
        metadata = TopicMetadata()
        metadata.partitions = {each: PartitionMetadata() for each in self.world.listed()}
        return SimpleNamespace(topics={topic: metadata})

    def incremental_assign(self, partitions: Sequence[TopicPartition]) -> None:
        self.assigned.update((each.partition, each.offset) for each in partitions)

    def incremental_unassign(self, partitions: Sequence[TopicPartition]) -> None:
        for each in partitions:
            del self.assigned[each.partition]

    def poll(self, timeout: float) -> Message | None:
        self.world.clock.now += timeout
        if not self.world.script:
            self.world.source._stopping.set()
            return None
        part = self.world.script.popleft()
        if callable(part):
            part()
            return None
        return part

    def consume(self, count: int, timeout: float) -> list[Message]:
        return []

    def get_watermark_offsets(self, partition: TopicPartition, cached: bool) -> tuple[int, int]:
        return 0, 100

    def close(self) -> None:
        self.world.life.append(f"client {self.world.clients.index(self)} is closed")


class ScriptedSource:
    """A source with its brokers, on a commit log of two partitions."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch
        self.clock = Clock()
        self.asked: dict[str, ScriptedAsker] = {}
        self.clients: list[ScriptedClient] = []
        self.life: list[str] = []
        self.script: deque[Message | Callable[[], object] | None] = deque()
        self.before_client: Callable[[], None] = lambda: None
        self.listed: Callable[[], Collection[int]] = lambda: (0, 1)
        self.metadata_error: KafkaError | None = None
        self.manager = SynchronizedPartitionStateManager()
        self.source: CommitLogConsumer
        for module in (offset_source, consumer_module):
            monkeypatch.setattr(module, "Asker", self._make_asker)
        monkeypatch.setattr(consumer_module, "Consumer", self._make_client)
        self.make()

    def make(self, **changes: Any) -> None:
        self.asked.clear()
        arguments: dict[str, Any] = {
            "topic": Topic("log"),
            "groups": {"g"},
            "data_configuration": DATA,
            "clock": self.clock,
            "wall_clock": lambda: WALL_CLOCK_SECONDS,
            **changes,
        }
        self.source = CommitLogConsumer(LOG, **arguments)
        self.source._offsets.attach(self.manager)
        self.source._manager = self.manager
        self.data.ranges = {key: PartitionRange(0, 1_000, NOW_MS - 1_000_000) for key in (KEY, OTHER)}

    @property
    def log(self) -> ScriptedAsker:
        return self.asked["log:9092"]

    @property
    def data(self) -> ScriptedAsker:
        return self.asked.get("data:9092") or self.log

    def read(self, *script: Message | Callable[[], object] | None) -> None:
        """What the reading thread does, until the script is over."""
        self.script.extend(script)
        self.source._read()

    def wait(self, seconds: float) -> Callable[[], None]:
        """A part of a script in which nothing comes for so long."""

        def wait() -> None:
            self.clock.now += seconds

        return wait

    def verify(self) -> None:
        """What the checking thread does about what is published."""
        self.source._verifier.ask()

    def tell(self, error: KafkaError) -> None:
        """As the newest client does, when it is polled."""
        self.clients[-1].settings["error_cb"](error)

    def remote(self, key: PartitionKey = KEY) -> int | None:
        return self.manager.cell(*key).remote

    def _make_asker(self, configuration: Mapping[str, Any], *arguments: Any, **options: Any) -> ScriptedAsker:
        assert options["clock"] is self.clock
        asker = ScriptedAsker(configuration, *arguments, **options)
        asker.other_ranges = PartitionRange(0, 0)
        servers = configuration["bootstrap.servers"]
        assert servers not in self.asked, "one asks all of a cluster"
        self.asked[servers] = asker
        return asker

    def _make_client(self, settings: dict[str, Any]) -> ScriptedClient:
        self.before_client()
        client = ScriptedClient(self, settings)
        self.clients.append(client)
        return client


def record(
    log_offset: int,
    key: bytes | None = b"events:0:g",
    value: bytes | None = b"7",
    *,
    timestamp_ms: int = NOW_MS,
    log_partition: int = 0,
) -> Message:
    kind = TIMESTAMP_LOG_APPEND_TIME
    return Message("log", log_partition, log_offset, key, value, None, None, (kind, timestamp_ms))


def position_is_gone(log_partition: int) -> Message:
    return Message("log", log_partition, 0, None, None, None, KafkaError(KafkaError.OFFSET_OUT_OF_RANGE), (0, -1))
