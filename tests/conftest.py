"""Fixtures that every test may use: a real Kafka, shared or one's own."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.integration.cluster.admin import Kafka
from tests.integration.cluster.cluster import KafkaCluster
from tests.integration.cluster.jars import what_to_install
from tests.support import sabotage

BOOTSTRAP_SERVERS_VARIABLE = "ARROYO_SYNC_TEST_BOOTSTRAP_SERVERS"


sabotage.apply_from_environment()  # to see that some test finds it: `tests.chaos.old_behaviour`


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a real Kafka, so that ``-m "not kafka"`` runs the rest."""
    for item in items:
        if {"kafka", "kafka_cluster"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.kafka)


def _require_java_and_maven() -> None:
    missing = what_to_install()
    if missing is not None and os.environ.get("CI") == "true":
        pytest.fail(missing, pytrace=False)
    if missing is not None:
        pytest.skip(missing)


@pytest.fixture(scope="session")
def kafka() -> Iterator[Kafka]:
    """A Kafka that all tests share, so each must use topics and groups of its own (see `topic_name`).

    It is one broker of ours, or the cluster that ``ARROYO_SYNC_TEST_BOOTSTRAP_SERVERS`` names.
    """
    standing = os.environ.get(BOOTSTRAP_SERVERS_VARIABLE)
    if standing:
        yield Kafka(standing)
        return
    _require_java_and_maven()
    with KafkaCluster() as cluster:
        yield cluster


@pytest.fixture
def kafka_cluster() -> Iterator[Callable[..., KafkaCluster]]:
    """Starts a cluster of the test's own, which it may stop, kill and pause. The arguments are `KafkaCluster`'s."""
    _require_java_and_maven()
    with ExitStack() as stack:

        def start(*args: Any, **kwargs: Any) -> KafkaCluster:
            return stack.enter_context(KafkaCluster(*args, **kwargs))

        yield start


@pytest.fixture
def topic_name() -> Callable[..., str]:
    """Makes a name that no other test has, for a topic or a group: ``topic_name("events")``."""
    return lambda prefix="topic": f"{prefix}-{uuid.uuid4().hex[:12]}"
