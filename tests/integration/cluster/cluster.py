"""A Kafka cluster of one broker or three, run from Apache Kafka's own jars on free loopback ports.

    with KafkaCluster(brokers=3) as cluster:
        cluster.create_topic("events", partitions=4)
        cluster.brokers[0].kill()

Guarantees
    - Entered, the cluster serves. Left, its processes and data are gone, also when this process was killed.
    - Ports, paths and ids stay the same while it lives: a broker that comes back finds its data and its clients.
    - All waiting has a time limit, and the error holds the end of the broker's log.

Threads: it has none. Use it from one thread at a time.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from confluent_kafka import ElectionType
from confluent_kafka.admin import ClusterMetadata, PartitionMetadata

from tests.integration.cluster import class_archive
from tests.integration.cluster.admin import Kafka
from tests.integration.cluster.broker import Broker, PortTaken
from tests.integration.cluster.guard import Guard
from tests.integration.cluster.jars import fetch, java, what_to_install
from tests.integration.cluster.ports import Ports
from tests.integration.cluster.settings import CONTROLLER, PLAINTEXT, Node, server_properties
from tests.integration.cluster.storage import Storage, new_id

PORT_ATTEMPTS = 5
FORMAT_TIMEOUT_SECONDS = 300.0
START_TIMEOUT_SECONDS = 180.0
"""For brokers to serve, and to catch up: on a machine with much else to do a JVM alone may take a minute to start."""
LONG_LIVED = "-XX:TieredStopAtLevel=4"
"""The JVM option for a broker that is measured or runs for long. From the slow compiler a short test gains nothing."""


NEVER_MISSED = {
    "broker.session.timeout.ms": "60000",
    # For long it does nothing: the default, and no records that only keep the controllers' log alive.
    "broker.heartbeat.interval.ms": "2000",
    "metadata.max.idle.interval.ms": "0",
}
"""Properties for brokers that no test kills: one that stands still for some seconds leads on. Else even the only broker
leads nothing for a moment then, of which Arroyo may end. One that was killed comes back only after this time."""


class KafkaCluster(Kafka):
    """``brokers`` brokers with node ids from 1, each of them also a controller.

    :param properties: server properties, over those in `tests.integration.cluster.settings`.
    :param features: levels of Kafka's features, over those that are new storage's default.
    :param listeners: further listeners for clients, by name, with their security protocol (``{"SASL":
        "SASL_PLAINTEXT"}``). What they need goes into ``properties``. The plain one stays, for the brokers themselves.
    :param advertise: called with node id, listener and port, returns the port that clients are told: a proxy's.
    :param min_insync_replicas: by default 1 of 1 and 2 of 3.
    :param heap_mb: of each broker, in MiB.
    :param jvm_options: further options of each JVM, such as ``-Dlog4j2.level=INFO`` for a full log.
    :param environment: further variables for each JVM.
    :param shares_classes: start from the archive of classes, which is made first if it isn't there.
    """

    def __init__(
        self,
        brokers: int = 1,
        *,
        properties: Mapping[str, str] | None = None,
        features: Mapping[str, int] | None = None,
        listeners: Mapping[str, str] | None = None,
        advertise: Callable[[int, str, int], int] | None = None,
        min_insync_replicas: int | None = None,
        heap_mb: int = 400,
        jvm_options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        start_timeout: float = START_TIMEOUT_SECONDS,
        shares_classes: bool = True,
    ) -> None:
        super().__init__("")
        self.brokers: list[Broker] = []
        self._count = brokers
        self._properties = dict(properties or {})
        levels = (features or {}).items()
        self._features = [option for name, level in levels for option in ("--feature", f"{name}={level}")]
        self._protocols = {PLAINTEXT: "PLAINTEXT", **(listeners or {})}
        self._advertise = advertise or (lambda node_id, listener, port: port)
        self._min_insync_replicas = min_insync_replicas or (brokers + 1) // 2
        self._jvm_options = [
            f"-Xmx{heap_mb}m",
            "-XX:+UseSerialGC",
            "-XX:-UsePerfData",
            "-XX:TieredStopAtLevel=1",  # see LONG_LIVED
            "-Dlog4j2.level=WARN",
            *jvm_options,
        ]
        self._environment = {**os.environ, **(environment or {})}
        self._start_timeout = start_timeout
        self._shares_classes = shares_classes
        self._nodes: list[Node] = []
        self._ports = Ports()
        self._guard: Guard | None = None

    @property
    def bootstrap_servers(self) -> str:
        """The addresses for clients, without authentication."""
        return self.bootstrap_servers_of(PLAINTEXT)

    def bootstrap_servers_of(self, listener: str) -> str:
        """The addresses for clients of one of the ``listeners``."""
        if not self._nodes:
            raise RuntimeError("the cluster is not started: call start(), or use it in a with statement")
        return ",".join(f"127.0.0.1:{node.advertised[listener]}" for node in self._nodes)

    def start(self) -> None:
        """Start all brokers and wait until they serve. For the first time on a machine, this fetches the jars.

        :raises RuntimeError: Java or Maven is missing, or a broker ended by itself.
        """
        if self._guard is not None:
            raise RuntimeError("the cluster is started already")
        missing = what_to_install()
        if missing is not None:
            raise RuntimeError(missing)
        jars = fetch()
        if self._shares_classes:
            self._jvm_options += class_archive.options(jars, Path(str(java())), run_a_broker)
            self._shares_classes = False  # once is enough, if it is started again
        for _ in range(PORT_ATTEMPTS - 1):
            with suppress(PortTaken):
                return self._start(jars)
        self._start(jars)

    def stop(self) -> None:
        """Kill all brokers and remove their data. Called again, it does nothing."""
        for broker in self.brokers:
            broker.kill()
        if self._guard is not None:
            self._guard.close()
        self._ports.release()
        self.brokers, self._nodes, self._guard, self._admin = [], [], None, None

    def __enter__(self) -> KafkaCluster:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def wait_until_ready(self, timeout: float = START_TIMEOUT_SECONDS) -> None:
        """Wait until all brokers that should serve do, and know each other as members."""
        serving = self._serving()
        for broker in serving:
            broker.wait_until_ready(timeout)
        ids = {broker.node_id for broker in serving}
        self._wait_until_all_see(lambda metadata: ids <= set(metadata.brokers), f"brokers {ids}", timeout)

    def wait_until_in_sync(self, timeout: float = START_TIMEOUT_SECONDS) -> None:
        """Wait until every partition has a leader and all its replicas are in sync, so that any one broker may fail."""

        def is_in_sync(metadata: ClusterMetadata) -> bool:
            return all(each.leader >= 0 and set(each.isrs) == set(each.replicas) for each in _partitions(metadata))

        self._wait_until_all_see(is_in_sync, "all replicas in sync", timeout)

    def wait_until_replaced(self, away: Broker, timeout: float = START_TIMEOUT_SECONDS) -> None:
        """Wait until the others see that it leads nothing, as when it stands still for longer than its session."""

        def leads_nothing(metadata: ClusterMetadata) -> bool:
            return all(each.leader != away.node_id for each in _partitions(metadata))

        self._wait_until_all_see(leads_nothing, f"other leaders than {away}", timeout)

    def restore(self) -> None:
        """For the next test: all brokers serve, and each leads the partitions that it led when they were made."""
        for broker in self.brokers:
            if not broker.is_running:
                broker.start()
            elif broker.is_paused:
                broker.resume()
        self.wait_until_ready()
        self.wait_until_in_sync()
        self.admin.elect_leaders(ElectionType.PREFERRED).result(START_TIMEOUT_SECONDS)

        def is_as_at_first(metadata: ClusterMetadata) -> bool:
            return all(each.leader == each.replicas[0] for each in _partitions(metadata))

        self._wait_until_all_see(is_as_at_first, "the first replicas to lead", START_TIMEOUT_SECONDS)

    def _serving(self) -> list[Broker]:
        return [broker for broker in self.brokers if broker.is_serving]

    def _addresses(self) -> list[str]:
        return [broker.address for broker in self._serving()]

    def _log_of(self, address: str) -> str:
        return "".join(f"\n{broker.log_tail()}" for broker in self.brokers if broker.address == address)

    def _start(self, jars: Path) -> None:
        """Start on ports that are free now, or leave nothing behind."""
        try:
            self._start_brokers(jars)
        except BaseException:
            self.stop()
            raise

    def _start_brokers(self, jars: Path) -> None:
        directory = Path(tempfile.mkdtemp(prefix="arroyo-sync-kafka-"))
        self._guard = Guard(directory)
        self._nodes = self._place(directory)
        for node in self._nodes:
            self._write_properties(node)
        # Of the server properties, none that a test sets makes a difference to it.
        storage = Storage.of(jars, self._features, lambda folder: self._format(self._nodes[0], jars, folder))
        cluster_id = new_id()
        for node in self._nodes:
            storage.write(node.data, node.node_id, cluster_id)
        self.brokers = [self._broker(node, jars, self._guard) for node in self._nodes]
        for broker in self.brokers:
            broker.start()
        self.wait_until_ready(self._start_timeout)

    def _place(self, directory: Path) -> list[Node]:
        ports = iter(self._ports.take(self._count * (len(self._protocols) + 1)))
        nodes = []
        for node_id in range(1, self._count + 1):
            own = {name: next(ports) for name in (*self._protocols, CONTROLLER)}
            advertised = {name: self._advertise(node_id, name, own[name]) for name in self._protocols}
            nodes.append(Node(node_id, directory / f"broker-{node_id}", own, advertised))
        return nodes

    def _write_properties(self, node: Node) -> None:
        node.temporary.mkdir(parents=True)
        node.properties.write_text(
            server_properties(node, self._nodes, self._protocols, self._min_insync_replicas, self._properties)
        )

    def _format(self, node: Node, jars: Path, folder: Path) -> None:
        jvm = [option for option in self._jvm(node, jars) if not option.startswith(class_archive.MAKE)]
        tool = [*jvm, "kafka.tools.StorageTool", "format", f"--cluster-id={new_id()}", "-c", str(node.properties)]
        formatting = subprocess.run(
            [*tool, *self._features],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self._environment,
            timeout=FORMAT_TIMEOUT_SECONDS,
        )
        if formatting.returncode != 0:
            raise RuntimeError(f"Kafka could not format its storage:\n{formatting.stdout}")
        shutil.move(node.data, folder)

    def _broker(self, node: Node, jars: Path, guard: Guard) -> Broker:
        return Broker(
            node.node_id,
            f"127.0.0.1:{node.ports[PLAINTEXT]}",
            log=node.directory / "broker.log",
            command=[*self._jvm(node, jars), "kafka.Kafka", str(node.properties)],
            environment=self._environment,
            guard=guard,
        )

    def _jvm(self, node: Node, jars: Path) -> list[str]:
        return [str(java()), *self._jvm_options, f"-Djava.io.tmpdir={node.temporary}", "-cp", f"{jars}/*"]


def _partitions(metadata: ClusterMetadata) -> list[PartitionMetadata]:
    return [each for topic in metadata.topics.values() for each in topic.partitions.values()]


def run_a_broker(jvm_options: Sequence[str]) -> None:
    """Start one and let it end in peace, without the archive of classes."""
    with KafkaCluster(jvm_options=jvm_options, shares_classes=False) as cluster:
        cluster.create_topic("events", partitions=1)
        cluster.brokers[0].stop()
