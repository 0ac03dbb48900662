"""Fixtures of several files here."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.integration.cluster.admin import Kafka
from tests.integration.cluster.reading import CommitLog


@pytest.fixture
def log(kafka: Kafka, topic_name: Callable[..., str]) -> CommitLog:
    """A commit log of one partition."""
    topic = topic_name("commit-log")
    kafka.create_topic(topic)
    return CommitLog(kafka, topic)
