"""Where the demo runs: on a broker inside this process, or on a real cluster, with topics of its own.

The embedded broker is librdkafka's mock cluster. It makes topics when they are first asked for, always of four
partitions, and answers a fetch that finds nothing only after ``fetch.wait.max.ms``, so that is set low. Of two members
that join a group, one now and then gets no answer; it asks again when its session has timed out, so that is short.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

logger = logging.getLogger(__name__)

EMBEDDED_PARTITIONS = 4
EMBEDDED_SETTINGS = {"fetch.wait.max.ms": 5, "session.timeout.ms": 3000, "heartbeat.interval.ms": 300}
TIMEOUT_SECONDS = 10.0

# librdkafka's own log would tear the table apart. What matters comes out of the clients as errors.
QUIET = {"log_level": 2}


class BrokerError(Exception):
    """The cluster can't be used; the message says why in one line."""


@dataclass(frozen=True)
class Stage:
    """A cluster with the demo's topics on it."""

    bootstrap_servers: str
    partitions: int
    events: str
    commit_log: str
    run: str
    """Part of all names, so that two demos on one cluster don't meet."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """For every consumer."""

    def group(self, name: str) -> str:
        return f"{self.run}-{name}"

    def consumer_settings(self, group: str, client_id: str) -> dict[str, Any]:
        """Of an Arroyo consumer."""
        return {
            **QUIET,
            "bootstrap.servers": self.bootstrap_servers,
            "group.id": self.group(group),
            "client.id": client_id,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            **self.settings,
        }

    def producer_settings(self) -> dict[str, Any]:
        return {**QUIET, "bootstrap.servers": self.bootstrap_servers}


@contextmanager
def embedded() -> Iterator[Stage]:
    """A broker in this process, for as long as the context lasts."""
    run = _run()
    names = f"{run}-events", f"{run}-commit-log"
    broker, address = embedded_broker(*names)
    yield Stage(address, EMBEDDED_PARTITIONS, *names, run, settings=EMBEDDED_SETTINGS)
    del broker  # it lives as long as this producer


def embedded_broker(*topics: str) -> tuple[Producer, str]:
    """A broker with these topics, and its address. It lives as long as the producer that is returned."""
    broker = Producer({"bootstrap.servers": "none", "test.mock.num.brokers": 1, "log_level": 0})
    brokers = broker.list_topics(timeout=TIMEOUT_SECONDS).brokers.values()
    for topic in topics:
        broker.list_topics(topic, timeout=TIMEOUT_SECONDS)
    return broker, ",".join(f"{each.host}:{each.port}" for each in brokers)


@contextmanager
def on_cluster(bootstrap_servers: str, partitions: int) -> Iterator[Stage]:
    """Two new topics on a cluster that stands already. They, and the demo's groups, are deleted at the end.

    :raises BrokerError: no broker answered in time, or it refused.
    """
    run = _run()
    stage = Stage(bootstrap_servers, partitions, f"{run}-events", f"{run}-commit-log", run)
    admin = AdminClient({**QUIET, "bootstrap.servers": bootstrap_servers})
    try:
        admin.list_topics(timeout=TIMEOUT_SECONDS)
        events = NewTopic(stage.events, partitions)
        commit_log = NewTopic(stage.commit_log, 1, config={"cleanup.policy": "compact,delete"})
        for future in admin.create_topics([events, commit_log]).values():
            future.result(TIMEOUT_SECONDS)
    except KafkaException as error:
        raise BrokerError(f"--bootstrap-servers {bootstrap_servers}: {error.args[0].str()}") from error
    try:
        _wait_until_led(admin, stage)
        yield stage
    finally:
        _delete(admin, stage)


def _wait_until_led(admin: AdminClient, stage: Stage) -> None:
    """A new partition may be announced before its leader serves it, and Arroyo's consumer would end on that."""
    keys = [(stage.commit_log, 0), *((stage.events, partition) for partition in range(stage.partitions))]
    latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
    gives_up_at = time.monotonic() + TIMEOUT_SECONDS
    while _errors(admin.list_offsets({TopicPartition(*key): latest for key in keys}).values()):
        if time.monotonic() > gives_up_at:
            raise BrokerError(f"the partitions of {stage.events} are not served after {TIMEOUT_SECONDS:g} seconds")
        time.sleep(0.1)


def _delete(admin: AdminClient, stage: Stage) -> None:
    groups = [each.group_id for each in admin.list_consumer_groups().result(TIMEOUT_SECONDS).valid]
    own = [each for each in groups if each.startswith(stage.run)]
    deletions = admin.delete_topics([stage.events, stage.commit_log])
    if own:
        deletions |= admin.delete_consumer_groups(own)
    for error in _errors(deletions.values()):
        logger.warning("Not everything of %s was deleted: %s", stage.run, error.args[0].str())


def _errors(futures: Iterable[Future[Any]]) -> list[KafkaException]:
    """What the requests failed with; none if they all succeeded."""
    errors = (future.exception(TIMEOUT_SECONDS) for future in futures)
    return [error for error in errors if isinstance(error, KafkaException)]


def _run() -> str:
    return f"arroyo-sync-demo-{uuid.uuid4().hex[:8]}"
