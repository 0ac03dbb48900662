"""Topics' ids are compared as text, so all of it is in one form."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import Uuid

from arroyo_sync.kafka.questions.asker import _id_of
from arroyo_sync.kafka.topic_ids import settled_cluster_id
from arroyo_sync.leaders.commit_log.record import MAX_TOPIC_ID_BYTES, TOPIC_ID_HEADER, decode_topic_id

UUID = Uuid(0x7BFFBEEFBFFFFFFE, -0x1000000005040010)
AS_KAFKA_WRITES_IT = str(UUID).replace("+", "-").replace("/", "_").rstrip("=")


def test_the_brokers_answer_is_told_as_kafkas_tools_show_it() -> None:
    """librdkafka writes another alphabet."""
    assert {"+", "/"} & set(str(UUID)), "else this shows nothing"
    described: Any = SimpleNamespace(topic_id=UUID)
    assert _id_of(described) == AS_KAFKA_WRITES_IT


@pytest.mark.parametrize("written", [str(UUID), AS_KAFKA_WRITES_IT, f"{AS_KAFKA_WRITES_IT}=="])
def test_a_report_may_carry_it_in_either_form(written: str) -> None:
    """Whoever else writes it may have it from Kafka's own tools, or from librdkafka."""
    assert decode_topic_id([(TOPIC_ID_HEADER, written.encode())]) == AS_KAFKA_WRITES_IT


@pytest.mark.parametrize(
    ("told", "counts"),
    [
        ("redpanda.initializing", None),
        ("redpanda.5c0d", "redpanda.5c0d"),
        ("MkU3OEVBNTcwNTJENDM2Qk", "MkU3OEVBNTcwNTJENDM2Qk"),
    ],
)
def test_a_cluster_that_has_no_id_yet_tells_none(told: str, counts: str | None) -> None:
    """Else the one that it has later would be another one's."""
    assert settled_cluster_id(told) == counts
    assert settled_cluster_id(None) is None


@pytest.mark.parametrize(("length", "is_read"), [(MAX_TOPIC_ID_BYTES, True), (MAX_TOPIC_ID_BYTES + 1, False)])
def test_an_id_that_is_too_long_is_none(length: int, is_read: bool) -> None:
    """It is kept for each partition, and anybody may write it."""
    written = "x" * length
    assert decode_topic_id([(TOPIC_ID_HEADER, written.encode())]) == (written if is_read else None)
