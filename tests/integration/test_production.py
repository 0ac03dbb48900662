"""The production example on a real broker, as its manifest runs it: metrics, probe, and SIGTERM."""

from __future__ import annotations

import importlib.util
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import Producer

from tests.integration.cluster.admin import Kafka
from tests.integration.cluster.followers import produce_numbered
from tests.integration.cluster.waiting import wait_until
from tests.support.programs import EXAMPLES, Program

SECONDS = 60.0


def test_the_forwarder_sends_metrics_looks_healthy_while_it_waits_and_ends_cleanly(
    kafka: Kafka, topic_name: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of ten messages the leader has committed four: these are handled and committed, and the rest stays in Kafka."""
    events, commit_log, group = topic_name("events"), topic_name("commit-log"), topic_name("forwarder")
    for topic in (events, commit_log):
        kafka.create_topic(topic)
    produce_numbered(kafka.bootstrap_servers, events, [0], 10)
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    value = json.dumps({"offset": 4, "orig_message_ts": 0.0, "received_p99": None})
    producer.produce(commit_log, value, f"{events}:0:writers")
    assert producer.flush(SECONDS) == 0
    monkeypatch.setenv("ARROYO_SYNC_KAFKA_BOOTSTRAP_SERVERS", kafka.bootstrap_servers)
    healthy = tmp_path / "healthy"

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(SECONDS)
        flags = ["--topic", events, "--consumer-group", group, "--commit-log-topic", commit_log]
        flags += ["--leader-group", "writers", "--healthcheck-file", str(healthy)]
        flags += ["--statsd-port", str(server.getsockname()[1])]
        with Program(tmp_path / "program", str(EXAMPLES / "production" / "forwarder.py"), *flags) as program:
            program.wait_for(r"released: .* offset=3,")
            wait_for_metric(server, f"arroyo_sync.held.messages:6|g|#topic:{events},partition:0,follower:{group}")
            wait_until(healthy.exists, SECONDS, "the file of the probe")
            if importlib.util.find_spec("arroyo.healthcheck") is not None:  # since sentry-arroyo 2.46
                probe = [sys.executable, "-m", "arroyo.healthcheck", str(healthy)]
                assert subprocess.run(probe, timeout=SECONDS).returncode == 0
                wait_until(healthy.exists, SECONDS, "the file again, while six messages wait for the leader")
            program.signal(signal.SIGTERM)
            assert program.exit_status() == 0, program.text
        assert "Traceback" not in program.text
        assert "INFO arroyo_sync." in program.text  # its log lines come through
    assert kafka.committed_offsets(group, events) == {0: 4}


def wait_for_metric(server: socket.socket, line: str) -> None:
    """Receive until it came; with no datagram within `SECONDS` the socket raises."""
    while line not in server.recv(65536).decode():
        pass
