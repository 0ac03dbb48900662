"""SASL/SCRAM and TLS on a real broker: consumer, reader, leader and status; and what a wrong password comes to."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from arroyo.backends.kafka import KafkaConsumer, KafkaPayload, KafkaProducer
from arroyo.processing.processor import StreamProcessor
from arroyo.processing.strategies.commit import CommitOffsets
from arroyo.types import Topic

from arroyo_sync.core.errors import AccessRefused, SourceDied
from arroyo_sync.core.log_throttle import LOG_INTERVAL_SECONDS, LogThrottle
from arroyo_sync.core.state import SynchronizedPartitionStateManager
from arroyo_sync.gate.factory import SynchronizedStrategyFactory
from arroyo_sync.kafka import error_callbacks as access
from arroyo_sync.kafka.error_callbacks import log_if_refused, raise_if_refused
from arroyo_sync.kafka.errors import LoginRefusals
from arroyo_sync.leaders.commit_log.consumer import CommitLogConsumer
from arroyo_sync.leaders.commit_log.publishing.publisher import PublishCommitLog
from tests.integration.cluster.certificates import Authority, Certificate
from tests.integration.cluster.cluster import KafkaCluster
from tests.integration.cluster.followers import patient_settings, produce_numbered
from tests.integration.cluster.running import LastStep, Running
from tests.integration.cluster.settings import scram
from tests.integration.cluster.waiting import wait_until
from tests.support.sentry_transport import sentry

USER = "alice"
PASSWORD = "-".join(["white", "rabbit"])  # spelled so, since Sentry events also show the lines of source
WRONG_PASSWORD = "-".join(["queen", "of", "hearts"])
MESSAGES = 20


class Secured(NamedTuple):
    """A broker that asks for a password, for a certificate, and for both."""

    cluster: KafkaCluster
    authority: Authority
    client: Certificate
    stranger: Authority

    def settings(self, listener: str, password: str = PASSWORD, authority: Authority | None = None) -> dict[str, Any]:
        """A client's settings for one of the listeners."""
        settings = {"bootstrap.servers": self.cluster.bootstrap_servers_of(listener)}
        if listener != "TLS":
            settings["security.protocol"] = "SASL_SSL" if listener == "BOTH" else "SASL_PLAINTEXT"
            settings.update({"sasl.mechanisms": "SCRAM-SHA-256", "sasl.username": USER, "sasl.password": password})
        if listener != "SASL":
            settings.setdefault("security.protocol", "SSL")
            settings["ssl.ca.location"] = str((authority or self.authority).root.certificate)
            settings["ssl.certificate.location"] = str(self.client.certificate)
            settings["ssl.key.location"] = str(self.client.key)
        return settings


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory, java_and_maven: None) -> Iterator[Secured]:
    directory = tmp_path_factory.mktemp("certificates")
    authority, stranger = Authority(directory, "authority"), Authority(directory, "stranger")
    server, client = authority.issue("server"), authority.issue("client")
    properties = {
        **scram("SASL"),
        **scram("BOTH"),
        "listener.name.tls.ssl.client.auth": "required",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.certificate.chain": server.certificate.read_text(),
        "ssl.keystore.key": server.key.read_text(),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.certificates": authority.root.certificate.read_text(),
    }
    listeners = {"SASL": "SASL_PLAINTEXT", "TLS": "SSL", "BOTH": "SASL_SSL"}
    with KafkaCluster(listeners=listeners, properties=properties) as cluster:
        cluster.add_user(USER, PASSWORD)
        for topic in ("events", "commits"):
            cluster.create_topic(topic)
        produce_numbered(cluster.bootstrap_servers, "events", [0], MESSAGES)
        yield Secured(cluster, authority, client, stranger)


def consumer(settings: dict[str, Any], group: str) -> KafkaConsumer:
    # What came would come again if its partitions were taken away.
    own = {**patient_settings(settings["bootstrap.servers"], group, "eager"), **settings, "log_level": 0}
    return KafkaConsumer({**own, "error_cb": raise_if_refused})


def reader(settings: dict[str, Any], group: str, **keywords: Any) -> CommitLogConsumer:
    return CommitLogConsumer(settings, topic=Topic("commits"), groups={group}, **keywords)


def status(
    settings: dict[str, Any], leader: str, follower: str, directory: Path, seconds: int = 60
) -> subprocess.CompletedProcess[str]:
    """The command, with the password in the environment and everything else in a file."""
    file = directory / "kafka.properties"
    file.write_text("".join(f"{name}={value}\n" for name, value in settings.items() if name != "sasl.password"))
    command = [sys.executable, "-m", "arroyo_sync", "status", "--json", "--config", str(file)]
    command += ["--timeout", str(seconds)]
    command += ["--topic", "events", "--commit-log", "commits", "--leader-group", leader, "--follower-group", follower]
    environment = {**os.environ, "ARROYO_SYNC_KAFKA_SASL_PASSWORD": settings.get("sasl.password", "")}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


@pytest.mark.parametrize("listener", ["SASL", "TLS", "BOTH"])
def test_leader_reader_consumer_and_status_work(secured: Secured, listener: str, tmp_path: Path) -> None:
    """Every message goes through the gate, and the status shows it: with a password, a certificate, and with both."""
    settings = secured.settings(listener)
    leader_group, follower_group = f"writers-{listener}", f"forwarder-{listener}"
    producer = KafkaProducer({**settings, "error_cb": log_if_refused})
    leader = LastStep(lambda commit: PublishCommitLog(commit, producer, Topic("commits"), leader_group))
    follower = LastStep(CommitOffsets)
    factory = SynchronizedStrategyFactory(follower, reader(settings, leader_group))
    with ExitStack() as stack:
        stack.callback(lambda: producer.close().result(30))
        flow = factory.flow_control(consumer(settings, follower_group))
        stack.enter_context(Running(StreamProcessor(flow, Topic("events"), factory)))
        leading = consumer(settings, leader_group)
        stack.enter_context(Running(StreamProcessor(leading, Topic("events"), leader)))
        wait_until(lambda: len(follower.received) == MESSAGES, 60, "all messages behind the gate")
    assert follower.received == [(0, offset) for offset in range(MESSAGES)]

    done = status(settings, leader_group, follower_group, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    (partition,) = json.loads(done.stdout)["partitions"]
    assert (partition["local_offset"], partition["remote_offset"], partition["high_watermark"]) == (MESSAGES,) * 3


def assert_no_password(text: str) -> None:
    assert PASSWORD not in text
    assert WRONG_PASSWORD not in text


@pytest.mark.parametrize("listener", ["SASL", "BOTH"])
def test_a_readers_wrong_password_ends_the_follower_with_one_clear_error(
    secured: Secured, listener: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The cause is in it, and the password in nothing: not in the error, nor the log, nor what Sentry gets."""
    caplog.set_level(logging.DEBUG)
    wrong = secured.settings(listener, WRONG_PASSWORD)
    with sentry() as transport:
        factory = SynchronizedStrategyFactory(LastStep(CommitOffsets), reader(wrong, "writers"))
        flow = factory.flow_control(consumer(secured.settings(listener), "refused-reader"))
        with Running(StreamProcessor(flow, Topic("events"), factory)) as running:
            error = running.wait_for_end()
        events = transport.events
        assert_no_password(transport.everything)
    assert isinstance(error, SourceDied)
    assert "commit log commits has ended" in str(error)
    assert "SASL authentication error: Authentication failed" in str(error)
    assert_no_password(f"{error!r} {error.__cause__!r}")
    assert_no_password(caplog.text)
    assert ["arroyo_sync", "source-died", "", ""] in [event.get("fingerprint") for event in events]


def test_a_consumers_wrong_password_ends_the_follower_with_one_clear_error(
    secured: Secured, caplog: pytest.LogCaptureFixture
) -> None:
    """Only with `raise_if_refused`: without it librdkafka tries again for ever."""
    caplog.set_level(logging.DEBUG)
    factory = SynchronizedStrategyFactory(LastStep(CommitOffsets), reader(secured.settings("SASL"), "writers"))
    with sentry() as transport:
        flow = factory.flow_control(consumer(secured.settings("SASL", WRONG_PASSWORD), "refused-consumer"))
        with Running(StreamProcessor(flow, Topic("events"), factory)) as running:
            error = running.wait_for_end()
        assert_no_password(transport.everything)
    assert isinstance(error, AccessRefused)
    assert "SASL authentication error: Authentication failed" in str(error)
    assert_no_password(f"{error!r} {caplog.text}")


def test_a_leaders_wrong_password_is_one_line_in_its_log(
    secured: Secured, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pipeline goes on, as for every commit log that can't be written."""
    monkeypatch.setattr(access, "_throttle", LogThrottle(LOG_INTERVAL_SECONDS, lambda: 0.0))
    monkeypatch.setattr(access, "_producer_logins", LoginRefusals())  # of a process that has just begun
    settings = {**secured.settings("SASL", WRONG_PASSWORD), "log_level": 0, "message.timeout.ms": 3000}
    producer = KafkaProducer({**settings, "error_cb": log_if_refused})
    try:
        future = producer.produce(Topic("commits"), KafkaPayload(b"events:0:writers", b"{}", []))
        wait_until(lambda: "Kafka refuses access" in caplog.text, 30, "a line in the log")
        wait_until(future.done, 30, "the record has failed")
    finally:
        producer.close().result(30)
    lines = [record.message for record in caplog.records if "Kafka refuses access" in record.message]
    assert len(lines) == 1
    assert "SASL authentication error: Authentication failed" in lines[0]
    assert_no_password(caplog.text)


@pytest.mark.parametrize("listener", ["SASL", "BOTH"])
def test_a_wrong_password_of_the_status_is_one_line(secured: Secured, listener: str, tmp_path: Path) -> None:
    """And exit status 2."""
    done = status(secured.settings(listener, WRONG_PASSWORD), "writers", "forwarder", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "SASL authentication error: Authentication failed" in done.stderr
    assert_no_password(done.stderr)


def test_a_broker_that_is_not_trusted_is_one_clear_error(secured: Secured, tmp_path: Path) -> None:
    """The certificate's fault is named, after the time for connecting; it may be one broker's alone."""
    settings = secured.settings("TLS", authority=secured.stranger)
    now = 0.0  # it stands still until a first connection has failed
    source = reader(settings, "writers", connect_timeout=3.0, clock=lambda: now)
    source.start(SynchronizedPartitionStateManager())
    try:
        wait_until(lambda: "certificate verify failed" in source._missing(), 60, "a first attempt")
        now = 3.0
        with pytest.raises(SourceDied, match="certificate verify failed"):
            source.wait_until_ready(60)
    finally:
        source.stop(10)
    done = status(settings, "writers", "forwarder", tmp_path, seconds=10)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "certificate verify failed" in done.stderr
