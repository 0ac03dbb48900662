"""What can be done to brokers, each thing shown once on the real ones."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from confluent_kafka import KafkaException, Producer

from tests.integration.cluster.admin import TIMEOUT_SECONDS, connect
from tests.integration.cluster.clients import produce, read
from tests.integration.cluster.cluster import KafkaCluster
from tests.integration.cluster.ports import Ports
from tests.integration.cluster.settings import scram
from tests.integration.cluster.waiting import wait_until

StartCluster = Callable[..., KafkaCluster]


def is_alive(pid: int) -> bool:
    """Whether a process that isn't ours to wait for runs; one that has ended may never be reaped in a container."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


@pytest.fixture(scope="module")
def one_broker(java_and_maven: None) -> Iterator[KafkaCluster]:
    """With a listener that asks for a password, and one of which clients are told the next port."""
    with KafkaCluster(
        listeners={"SECURE": "SASL_PLAINTEXT", "PROXIED": "PLAINTEXT"},
        advertise=lambda node_id, listener, port: port + 1 if listener == "PROXIED" else port,
        properties=scram("SECURE"),
    ) as cluster:
        yield cluster


@pytest.fixture
def cluster(one_broker: KafkaCluster) -> Iterator[KafkaCluster]:
    yield one_broker
    one_broker.restore()


class TestOneBroker:
    def test_it_comes_back_with_its_data(self, cluster: KafkaCluster, topic_name: Callable[..., str]) -> None:
        """After a stop and after a kill -9, the same address serves the same records."""
        broker, address, events = cluster.brokers[0], cluster.bootstrap_servers, topic_name("events")
        cluster.create_topic(events)
        written = []
        for end, value in ((broker.stop, "stopped"), (broker.kill, "killed")):
            produce(address, events, [value])
            written.append(value)
            end()
            assert not broker.is_running
            broker.start()
            cluster.wait_until_ready()
            assert cluster.bootstrap_servers == address
            assert read(address, events, len(written)) == written

    def test_it_can_be_paused(self, cluster: KafkaCluster, topic_name: Callable[..., str]) -> None:
        """Paused it answers nothing; resumed it goes on, and has forgotten nothing."""
        broker, events = cluster.brokers[0], topic_name("events")
        cluster.create_topic(events)
        produce(cluster.bootstrap_servers, events, ["a"])
        broker.pause()
        assert not broker.is_serving
        with pytest.raises(KafkaException, match="_TRANSPORT"):
            connect(cluster.bootstrap_servers).list_topics(timeout=0.5)
        broker.resume()
        cluster.wait_until_ready()
        assert cluster.watermarks(events) == {0: (0, 1)}

    def test_further_listeners_have_their_own_security(
        self, cluster: KafkaCluster, topic_name: Callable[..., str]
    ) -> None:
        """A SASL listener beside the plain one lets in who has a password, and nobody else."""
        events = topic_name("events")
        cluster.create_topic(events)
        cluster.add_user("user", "right")
        secure = {
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "SCRAM-SHA-256",
            "sasl.username": "user",
        }
        address = cluster.bootstrap_servers_of("SECURE")
        produce(address, events, ["a"], **secure, **{"sasl.password": "right"})
        errors: list[str] = []
        refused = Producer(
            {
                "bootstrap.servers": address,
                **secure,
                "sasl.password": "wrong",
                "error_cb": lambda error: errors.append(error.name()),
                "log_level": 0,
            }
        )

        def is_refused() -> bool:
            refused.poll(0.05)
            return "_AUTHENTICATION" in errors  # others may come before, as of a connection that takes too long

        wait_until(is_refused, TIMEOUT_SECONDS, lambda: f"a refusal, not {errors}")

    def test_clients_can_be_told_another_port(self, cluster: KafkaCluster) -> None:
        """So that a proxy can stand between a broker and its clients."""
        told = int(cluster.bootstrap_servers_of("PROXIED").removeprefix("127.0.0.1:"))
        ports: list[int] = []

        def is_told() -> bool:
            """A client that has learned the other port on its own, before it asks, finds nobody there: try another."""
            with suppress(KafkaException):
                client = connect(f"127.0.0.1:{told - 1}")
                ports.extend(broker.port for broker in client.list_topics(timeout=1.0).brokers.values())
            return bool(ports)

        wait_until(is_told, TIMEOUT_SECONDS, "the port to be told")
        assert ports == [told]


class TestStarting:
    def test_a_taken_port_is_no_obstacle(self, kafka_cluster: StartCluster, monkeypatch: pytest.MonkeyPatch) -> None:
        """Another process may take a port between its choice and its use: the next ones serve."""
        chosen: list[list[int]] = []
        take = Ports.take

        def take_all_but_one(self: Ports, count: int) -> list[int]:
            ports = take(self, count)
            if not chosen:
                ports[0] = taken.getsockname()[1]
            chosen.append(ports)
            return ports

        monkeypatch.setattr(Ports, "take", take_all_but_one)
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            cluster = kafka_cluster()
            assert cluster.bootstrap_servers == f"127.0.0.1:{chosen[-1][0]}"
        assert len(chosen) == 2

    def test_no_other_cluster_takes_the_port_of_a_broker_that_is_down(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nothing listens there for seconds, while other tests start their brokers."""
        monkeypatch.setattr("tests.integration.cluster.ports._RANGE", range(20_000, 20_100))
        one, other = Ports(), Ports()
        try:
            mine = one.take(20)
            assert not set(mine) & set(other.take(20))
            with socket.socket() as broker:
                broker.bind(("127.0.0.1", mine[0]))  # they are held from other clusters, not from its brokers
            one.release()
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
                free.bind(("127.0.0.1", mine[0]))
        finally:
            one.release()
            other.release()

    def test_a_broker_that_ends_says_why(self, kafka_cluster: StartCluster) -> None:
        """The error holds the broker's own words."""
        with pytest.raises(RuntimeError, match=r"(?s)ended by itself.*ClassNotFoundException: no\.such\.Reporter"):
            kafka_cluster(properties={"metric.reporters": "no.such.Reporter"})

    def test_a_killed_parent_leaves_nothing_behind(self, kafka_cluster: StartCluster, tmp_path: Path) -> None:
        """When the process that started a cluster is killed, its brokers end, paused ones too, and their data goes."""
        script = (
            "import sys\n"
            "from tests.integration.cluster.cluster import KafkaCluster\n"
            "with KafkaCluster() as cluster:\n"
            "    cluster.brokers[0].pause()\n"
            "    print(cluster.brokers[0].pid, flush=True)\n"
            "    sys.stdin.read()\n"
        )
        parent = subprocess.Popen(
            [sys.executable, "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": str(tmp_path)},
        )
        with parent:
            assert parent.stdout is not None
            pid = int(parent.stdout.readline())
            assert is_alive(pid)
            assert len(list(tmp_path.iterdir())) == 1
            parent.send_signal(signal.SIGKILL)
            wait_until(lambda: not is_alive(pid), TIMEOUT_SECONDS, "the broker's end")
            wait_until(lambda: not list(tmp_path.iterdir()), TIMEOUT_SECONDS, "the removal of its data")
