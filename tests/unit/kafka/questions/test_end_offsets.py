"""Where partitions end, as one client has cached it, and as the brokers said last."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, cast

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from arroyo_sync.core.source import ENDS_AT_ONCE, HighWatermarks
from arroyo_sync.core.state import PartitionKey
from arroyo_sync.kafka.arroyo_consumer import KafkaWatermarks
from arroyo_sync.kafka.questions.asker import Asker
from arroyo_sync.kafka.questions.end_offsets import LastEndOffsets

FIRST, SECOND = ("events", 0), ("events", 1)


class Client:
    """Answers as librdkafka does."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[Any] = []

    def get_watermark_offsets(self, partition: TopicPartition, cached: bool) -> Any:
        assert cached, "else it would block"
        self.asked.append((partition.topic, partition.partition))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


OnAnswer = Callable[[Mapping[PartitionKey, int | KafkaError]], None]


class Brokers:
    """Of one partition each. They answer when they are told to."""

    def __init__(self) -> None:
        self.answers: dict[PartitionKey, int | KafkaError] = {}
        self.waiting: list[OnAnswer] = []
        self.asked: list[list[PartitionKey]] = []

    def ask_end_offsets(self, partitions: Collection[PartitionKey], timeout: float, on_answer: OnAnswer) -> None:
        self.waiting.append(on_answer)
        self.asked.append(list(partitions))
        for key in partitions:
            if key in self.answers:
                on_answer({key: self.answers[key]})


def test_the_cached_end_is_what_was_fetched_last() -> None:
    """Or unknown: before the first fetch, for a partition that isn't read, when the client was closed."""
    client = Client(
        (3, 17), (-1001, -1001), None, KafkaException(KafkaError(KafkaError._UNKNOWN_PARTITION)), RuntimeError()
    )
    made: HighWatermarks = KafkaWatermarks(cast(Consumer, client))
    assert [made.cached("events", 0) for _ in range(5)] == [17, None, None, None, None]
    assert client.asked == [("events", 0)] * 5


def test_a_closed_client_is_left_alone() -> None:
    """A call into it might crash the process."""
    client = Client()
    made = KafkaWatermarks(cast(Consumer, client))
    made.close()
    assert made.cached("events", 0) is None
    assert client.asked == []


def test_a_broker_that_is_silent_or_fails_leaves_what_it_said_last() -> None:
    """A late answer is there for the next question, and partitions that nobody asks about any more are forgotten."""
    brokers = Brokers()
    ends = LastEndOffsets(cast(Asker, brokers))
    brokers.answers = {FIRST: 10}
    assert ends.ask([FIRST, SECOND], 0.0) == {FIRST: 10}
    brokers.waiting[0]({SECOND: 20})
    brokers.answers = {FIRST: KafkaError(KafkaError._TIMED_OUT)}
    assert ends.ask([FIRST, SECOND], 0.0) == {FIRST: 10, SECOND: 20}
    assert ends.ask([SECOND], 0.0) == {SECOND: 20}
    assert ends.ask([FIRST, SECOND], 0.0) == {SECOND: 20}


def test_many_partitions_take_turns() -> None:
    """So that a question costs the same however many there are; each has its turn, and keeps its answer meanwhile."""
    brokers = Brokers()
    ends = LastEndOffsets(cast(Asker, brokers))
    keys = [("events", index) for index in range(2 * ENDS_AT_ONCE + 50)]
    brokers.answers = dict.fromkeys(keys, 7)
    known = [len(ends.ask(keys, 0.0)) for _ in range(3)]
    assert known == [ENDS_AT_ONCE, 2 * ENDS_AT_ONCE, len(keys)]
    assert [len(asked) for asked in brokers.asked] == [ENDS_AT_ONCE] * 3
    ends.ask(keys[:10], 0.0)
    assert brokers.asked[-1] == keys[:10]
