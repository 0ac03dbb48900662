"""Fixtures of several files here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.integration.cluster.admin import Kafka
from tests.integration.cluster.cluster import KafkaCluster
from tests.integration.cluster.reading import CommitLog


@pytest.fixture
def log(kafka: Kafka, topic_name: Callable[..., str]) -> CommitLog:
    """A commit log of one partition."""
    topic = topic_name("commit-log")
    kafka.create_topic(topic)
    return CommitLog(kafka, topic)


@pytest.fixture(scope="module")
def three_brokers_settings() -> dict[str, Any]:
    """The arguments of `KafkaCluster` for `three_brokers`: a file may have a fixture of this name with its own."""
    return {}


@pytest.fixture(scope="module")
def cluster_of_the_file(java_and_maven: None, three_brokers_settings: dict[str, Any]) -> Iterator[KafkaCluster]:
    with KafkaCluster(brokers=3, **three_brokers_settings) as cluster:
        yield cluster


@pytest.fixture
def three_brokers(cluster_of_the_file: KafkaCluster) -> Iterator[KafkaCluster]:
    """A file's tests share them, and may kill and pause them; each must have topics and groups of its own."""
    yield cluster_of_the_file
    cluster_of_the_file.restore()
