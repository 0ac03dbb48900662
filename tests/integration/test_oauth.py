"""OAUTHBEARER on a real broker: each client fetches a token with the user's ``oauth_cb``, and their issuer may fail.

The tokens are unsecured ones (RFC 7515, appendix A.5), which Kafka's default validator takes.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from arroyo.backends.kafka import KafkaConsumer, KafkaProducer
from arroyo.processing.processor import StreamProcessor
from arroyo.processing.strategies.commit import CommitOffsets
from arroyo.types import Topic

from arroyo_sync.core.errors import SourceDied
from arroyo_sync.core.log_throttle import LOG_INTERVAL_SECONDS, LogThrottle
from arroyo_sync.core.state import SynchronizedPartitionStateManager
from arroyo_sync.gate.factory import SynchronizedStrategyFactory
from arroyo_sync.kafka import errors
from arroyo_sync.kafka.error_callbacks import log_if_refused
from arroyo_sync.leaders.commit_log.consumer import CommitLogConsumer
from arroyo_sync.leaders.commit_log.publishing.publisher import PublishCommitLog
from tests.integration.cluster.cluster import NEVER_MISSED, KafkaCluster
from tests.integration.cluster.followers import patient_settings, produce_numbered
from tests.integration.cluster.reading import CommitLog
from tests.integration.cluster.running import LastStep, Running
from tests.integration.cluster.waiting import wait_until

WAIT_SECONDS = 60.0
FETCHED_ANEW_SECONDS = 2.0
"""How long a token is said to live: librdkafka fetches another one after four fifths of it."""
LIVES_SECONDS = 3600.0
MESSAGES = 20
CLIENTS = 6
"""The leader's producer and consumer; the follower's consumer, the one that reads the commit log and two that ask."""
ROOT = Path(__file__).resolve().parent.parent.parent
LOGIN_MODULE = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule"
LISTENER = {"OAUTH": "SASL_PLAINTEXT"}
PROPERTIES = {
    "listener.name.oauth.sasl.enabled.mechanisms": "OAUTHBEARER",
    "listener.name.oauth.oauthbearer.sasl.jaas.config": (
        f'{LOGIN_MODULE} required unsecuredLoginStringClaim_sub="broker";'
    ),
}


class Issuer:
    """Gives out tokens, unless it is down. Called by every client, each on a thread of its own."""

    def __init__(self) -> None:
        self.is_down = False
        self.lives_seconds = LIVES_SECONDS
        self.threads: set[int] = set()
        self.failed = threading.Event()

    def __call__(self, configuration: str) -> tuple[str, float]:
        is_down = self.is_down
        self.threads.add(threading.get_ident())
        if is_down:
            self.failed.set()
            raise ConnectionError("the issuer is down")
        now = time.time()
        claims = {"sub": "alice", "iat": now - 60, "exp": now + self.lives_seconds}
        return f"{_encoded({'alg': 'none'})}.{_encoded(claims)}.", now + FETCHED_ANEW_SECONDS

    def settings(self, cluster: KafkaCluster) -> dict[str, Any]:
        """A client's."""
        return {
            "bootstrap.servers": cluster.bootstrap_servers_of("OAUTH"),
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanisms": "OAUTHBEARER",
            "oauth_cb": self,
            "log_level": 0,
        }


def _encoded(part: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


@pytest.fixture(scope="module")
def cluster(java_and_maven: None) -> Iterator[KafkaCluster]:
    with KafkaCluster(listeners=LISTENER, properties={**PROPERTIES, **NEVER_MISSED}) as running:
        for topic in ("events", "commits"):
            running.create_topic(topic)
        yield running


@pytest.fixture(autouse=True)
def anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """What another test has logged doesn't count."""
    monkeypatch.setattr(errors, "_token_throttle", LogThrottle(LOG_INTERVAL_SECONDS, time.monotonic))


def test_a_token_that_cannot_be_fetched_for_a_while_ends_nobody(
    cluster: KafkaCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """Every client logs in with a token of its own. While there is no new one, open connections go on: one line."""
    issuer = Issuer()
    settings = issuer.settings(cluster)
    produce_numbered(cluster.bootstrap_servers, "events", [0], MESSAGES)
    producer = KafkaProducer({**settings, "error_cb": log_if_refused})
    leader = LastStep(lambda commit: PublishCommitLog(commit, producer, Topic("commits"), "writers"))
    follower = LastStep(CommitOffsets)
    source = CommitLogConsumer(settings, topic=Topic("commits"), groups={"writers"})
    factory = SynchronizedStrategyFactory(follower, source)

    def own(group: str) -> dict[str, Any]:
        return {**patient_settings(cluster.bootstrap_servers, group, "eager"), **settings}

    with ExitStack() as stack:
        stack.callback(lambda: producer.close().result(30))
        flow = factory.consumer(own("forwarder"))
        stack.enter_context(Running(StreamProcessor(flow, Topic("events"), factory)))
        leading = KafkaConsumer({**own("writers"), "error_cb": errors.log_missing_token})
        stack.enter_context(Running(StreamProcessor(leading, Topic("events"), leader)))
        wait_until(lambda: len(follower.received) == MESSAGES, WAIT_SECONDS, "all messages behind the gate")
        # One that is just being made has a line of its own.
        wait_until(lambda: len(issuer.threads) == CLIENTS, WAIT_SECONDS, "each client's first token")
        issuer.is_down = True
        assert issuer.failed.wait(WAIT_SECONDS)
        wait_until(lambda: "There is no token" in caplog.text, WAIT_SECONDS, "the line")
        produce_numbered(cluster.bootstrap_servers, "events", [0], MESSAGES)
        wait_until(lambda: len(follower.received) == 2 * MESSAGES, WAIT_SECONDS, "what was written meanwhile")
        issuer.is_down = False
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    # Nor is a line of this test what the leader says at its end, if the broker takes more than a second to confirm.
    told = [each for each in lines if "were not confirmed by commits before its pipeline ended" not in each]
    assert [each for each in told if "token" in each] == told, told
    assert len(told) == 1


def test_an_issuer_that_is_down_at_the_start_is_waited_for(
    cluster: KafkaCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """The reader says why it waits, and reads once there is a token."""
    issuer = Issuer()
    issuer.is_down = True
    settings = issuer.settings(cluster)
    source = CommitLogConsumer(settings, topic=Topic("commits"), groups={"writers"}, connect_timeout=2 * WAIT_SECONDS)
    source.start(SynchronizedPartitionStateManager())
    try:
        wait_until(lambda: "Commit log commits: there is no token" in caplog.text, WAIT_SECONDS, "the line")
        assert not source.ready
        issuer.is_down = False
        wait_until(lambda: source.ready, WAIT_SECONDS, "the reader")
    finally:
        source.stop(WAIT_SECONDS)


def test_a_token_that_is_refused_ends_the_source_with_one_clear_error(cluster: KafkaCluster) -> None:
    """It is as wrong as a wrong password."""
    issuer = Issuer()
    issuer.lives_seconds = -30.0
    source = CommitLogConsumer(issuer.settings(cluster), topic=Topic("commits"), groups={"writers"})
    source.start(SynchronizedPartitionStateManager())

    def goes_on() -> bool:
        source.check()
        return False

    try:
        with pytest.raises(SourceDied, match="invalid_token"):
            wait_until(goes_on, WAIT_SECONDS, "the source's end")
    finally:
        source.stop(WAIT_SECONDS)


def test_a_token_that_is_refused_later_ends_nobody_if_the_next_one_is_not(
    kafka_cluster: Callable[..., KafkaCluster], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The brokers end a login after two seconds (KIP-368), and refuse some, as while keys are changed. Under load
    a commit is on its way then."""
    monkeypatch.setattr(errors, "FRESH_SECONDS", 0.0)
    reauthenticate = {"listener.name.oauth.oauthbearer.connections.max.reauth.ms": "2000"}
    cluster = kafka_cluster(listeners=LISTENER, properties={**PROPERTIES, **NEVER_MISSED, **reauthenticate})
    for topic in ("events", "commits"):
        cluster.create_topic(topic)
    issuer = Issuer()
    settings = issuer.settings(cluster)
    follower = LastStep(CommitOffsets)
    source = CommitLogConsumer(settings, topic=Topic("commits"), groups={"writers"})
    factory = SynchronizedStrategyFactory(follower, source)
    log = CommitLog(cluster, "commits")
    group = patient_settings(cluster.bootstrap_servers, "forwarder", "eager")
    flow = factory.consumer({**group, **settings})
    with Running(StreamProcessor(flow, Topic("events"), factory)):
        for count in (MESSAGES, 2 * MESSAGES):
            produce_numbered(cluster.bootstrap_servers, "events", [0], MESSAGES)
            log.publish(count, group="writers", topic="events")
            wait_until(lambda: len(follower.received) == count, WAIT_SECONDS, f"{count} messages")  # noqa: B023
            if count == MESSAGES:
                issuer.lives_seconds = -30.0
                wait_until(lambda: "Kafka refuses a login" in caplog.text, WAIT_SECONDS, "a refusal")
                issuer.lives_seconds = LIVES_SECONDS
    assert cluster.committed_offsets("forwarder", "events") == {0: 2 * MESSAGES}


def test_the_status_logs_in_with_a_token(cluster: KafkaCluster, tmp_path: Path) -> None:
    """Its function is given by name. The process that asks for the members finds it, too."""
    (tmp_path / "issuer_of_tokens.py").write_text("from tests.integration.test_oauth import Issuer\ntoken = Issuer()\n")
    group = "idle-follower"
    cluster.create_topic("status")
    produce_numbered(cluster.bootstrap_servers, "status", [0], 1)
    with Running(
        StreamProcessor(
            KafkaConsumer(patient_settings(cluster.bootstrap_servers, group, "eager")),
            Topic("status"),
            member := LastStep(CommitOffsets),
        )
    ):
        wait_until(lambda: len(member.received) == 1, WAIT_SECONDS, "the member's message")
        command = [sys.executable, "-m", "arroyo_sync", "status", "--json", "--oauth-cb", "issuer_of_tokens:token"]
        command += ["--bootstrap-servers", cluster.bootstrap_servers_of("OAUTH"), "--topic", "status"]
        command += ["-X", "security.protocol=SASL_PLAINTEXT", "-X", "sasl.mechanism=OAUTHBEARER"]
        command += ["--commit-log", "commits", "--leader-group", "writers", "--follower-group", group]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            timeout=120,
        )
    assert done.stderr == ""
    status = json.loads(done.stdout)
    assert {name: len(members) for name, members in status["members"].items()} == {group: 1, "writers": 0}
