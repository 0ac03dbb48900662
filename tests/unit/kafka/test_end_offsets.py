"""Where partitions end, as one client knows it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from arroyo_sync.core.source import HighWatermarks
from arroyo_sync.kafka.end_offsets import LATEST_TIMESTAMP, KafkaWatermarks
from tests.support.fakes import Clock


class Client:
    """Answers as librdkafka does."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[Any] = []

    def get_watermark_offsets(self, partition: TopicPartition, cached: bool) -> Any:
        assert cached, "else it would block"
        self.asked.append((partition.topic, partition.partition))
        return self._next()

    def offsets_for_times(self, partitions: Sequence[TopicPartition], timeout: float) -> Any:
        self.asked += [(each.topic, each.partition, each.offset) for each in partitions]
        return self._next()

    def poll(self, timeout: float) -> None:
        self.asked.append("poll")

    def _next(self) -> Any:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def watermarks(client: Client, **arguments: Any) -> KafkaWatermarks:
    return KafkaWatermarks(cast(Consumer, client), clock=Clock(), **arguments)


def partition(topic: str, index: int, offset: int, error: int | None = None) -> TopicPartition:
    made = TopicPartition(topic, index, offset)
    if error is None:
        return made

    class Failed:
        topic, partition, offset = made.topic, made.partition, made.offset

    Failed.error = KafkaError(error)  # type: ignore[attr-defined]
    return cast(TopicPartition, Failed)


def test_the_cached_end_is_what_was_fetched_last() -> None:
    """Or unknown: before the first fetch, for a partition that isn't read, when the client was closed."""
    client = Client(
        (3, 17), (-1001, -1001), None, KafkaException(KafkaError(KafkaError._UNKNOWN_PARTITION)), RuntimeError()
    )
    made: HighWatermarks = watermarks(client)
    assert [made.cached("events", 0) for _ in range(5)] == [17, None, None, None, None]
    assert client.asked == [("events", 0)] * 5


def test_a_question_tells_what_the_broker_could_tell(caplog: pytest.LogCaptureFixture) -> None:
    """The others are missing, and one line names their topic."""
    client = Client(
        [
            partition("events", 0, 10),
            partition("events", 1, -1, KafkaError.LEADER_NOT_AVAILABLE),
            partition("events", 2, -1, KafkaError.LEADER_NOT_AVAILABLE),
            partition("empty", 0, 0),
        ]
    )
    keys = [("events", 0), ("events", 1), ("events", 2), ("empty", 0)]
    made = watermarks(client, advice="Give it another configuration")
    assert made.query(keys, 1.0) == {("events", 0): 10, ("empty", 0): 0}
    assert client.asked == [(*key, LATEST_TIMESTAMP) for key in keys]
    (line,) = caplog.records
    assert line.getMessage().startswith("Can't ask where the partitions of events end")
    assert "another configuration" not in line.getMessage()


@pytest.mark.parametrize("as_a_whole", [True, False])
def test_a_topic_that_is_not_there_comes_with_advice(caplog: pytest.LogCaptureFixture, as_a_whole: bool) -> None:
    """librdkafka tells of it in either way, depending on what else was asked."""
    client = Client(
        KafkaException(KafkaError(KafkaError._UNKNOWN_PARTITION))
        if as_a_whole
        else [partition("events", 0, -1, KafkaError.UNKNOWN_TOPIC_OR_PART)]
    )
    assert watermarks(client, advice="Give it another configuration").query([("events", 0)], 1.0) == {}
    (line,) = caplog.records
    assert "events" in line.getMessage()
    assert line.getMessage().endswith(". Give it another configuration")


def test_failures_are_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """They come every second."""
    clock = Clock()
    errors = [KafkaException(KafkaError(KafkaError._TIMED_OUT)) for _ in range(4)]
    made = KafkaWatermarks(cast(Consumer, Client(*errors)), clock=clock)
    for _ in range(3):
        assert made.query([("events", 0)], 1.0) == {}
    assert len(caplog.records) == 1
    clock.now += 60
    made.query([("events", 0)], 1.0)
    assert len(caplog.records) == 2


@pytest.mark.parametrize("is_polled", [True, False])
def test_a_client_that_nobody_polls_tells_its_errors_with_the_question_that_failed(is_polled: bool) -> None:
    """And one that is polled isn't polled from here: a message might be lost."""
    client = Client(KafkaException(KafkaError(KafkaError._TRANSPORT)))
    watermarks(client, is_polled=is_polled).query([("events", 0)], 1.0)
    assert client.asked[1:] == ([] if is_polled else ["poll"])


def test_a_closed_client_is_left_alone() -> None:
    """A call into it might crash the process."""
    client = Client()
    made = watermarks(client)
    made.close()
    assert made.cached("events", 0) is None
    assert made.query([("events", 0)], 1.0) == {}
    assert client.asked == []
