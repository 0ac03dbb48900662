"""Look-ups by time of which some are slow, as in tiered storage, which the broker of the tests hasn't got."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, cast

import pytest
from confluent_kafka import KafkaError
from confluent_kafka.admin import ListOffsetsResultInfo, OffsetSpec

from arroyo_sync.core.state import PartitionKey
from arroyo_sync.kafka.questions.asker import Asker, PartitionRange
from arroyo_sync.kafka.questions.cluster_client import ClusterClient, OnOffsets
from arroyo_sync.kafka.questions.time_lookups import ALONE_SECONDS, FoundOffset, TimeLookups, _found, read_each

KEYS = [("events", index) for index in range(100)]
SLOW = KEYS[42]
TIMED_OUT = KafkaError(KafkaError._TIMED_OUT)


class Answer(NamedTuple):
    offset: int
    timestamp: int


class Broker:
    """Answers a request when it has found all partitions of it: with a slow one among them, not in time."""

    def __init__(self) -> None:
        self.slow = {SLOW}
        self.requests: list[tuple[list[PartitionKey], float]] = []
        self.in_flight: list[tuple[list[PartitionKey], OnOffsets]] = []
        self.polls = 0

    def ask_offsets(
        self, partitions: Collection[PartitionKey], specs: Sequence[OffsetSpec], timeout: float, on_answer: OnOffsets
    ) -> None:
        keys = list(partitions)
        self.requests.append((keys, timeout))
        if len(specs) == 2:  # begin and end: nothing to look for
            on_answer({key: [cast(ListOffsetsResultInfo, Answer(each, -1)) for each in (0, 9)] for key in keys})
        elif self.slow.isdisjoint(keys):
            on_answer({key: [cast(ListOffsetsResultInfo, Answer(3, 1234))] for key in keys})
        else:
            self.in_flight.append((keys, on_answer))

    def time_out(self) -> None:
        in_flight, self.in_flight = self.in_flight, []
        for keys, on_answer in in_flight:
            on_answer({key: [TIMED_OUT] for key in keys})

    def poll(self) -> None:
        self.polls += 1

    def sizes(self) -> list[int]:
        requests, self.requests = self.requests, []
        return [len(keys) for keys, _ in requests]


class Found:
    def __init__(self) -> None:
        self.answers: dict[PartitionKey, FoundOffset | KafkaError] = {}

    def __call__(self, answers: Mapping[PartitionKey, FoundOffset | KafkaError]) -> None:
        self.answers.update(answers)

    def missing(self) -> list[PartitionKey]:
        return [key for key in KEYS if not isinstance(self.answers.get(key), FoundOffset)]


def test_a_slow_partition_is_asked_about_alone_in_the_end_and_last() -> None:
    """The others of its request are answered after two that were smaller; what isn't in a slow request at once."""
    broker, found = Broker(), Found()
    lookups = TimeLookups(cast(ClusterClient, broker))
    missing = KEYS
    for sizes, left in (([100], 100), ([10] * 10, 10), ([1] * 10, 1)):
        lookups.ask(missing, 0, 1.0, found)
        broker.time_out()
        assert (broker.sizes(), len(found.missing())) == (sizes, left)
        missing = found.missing()
    assert found.answers[KEYS[0]] == FoundOffset(3, 1234)
    lookups.ask(KEYS, 0, 1.0, found)
    assert [(len(keys), keys[0], seconds) for keys, seconds in broker.requests] == [
        (99, KEYS[0], 1.0),
        (1, SLOW, ALONE_SECONDS),
    ]


def test_a_partition_that_was_slow_once_is_asked_about_with_the_others_again() -> None:
    """As soon as it was answered."""
    broker, found = Broker(), Found()
    lookups = TimeLookups(cast(ClusterClient, broker))
    for keys in (KEYS[40:45], KEYS[40:45]):
        lookups.ask(keys, 0, 1.0, found)
        broker.time_out()
    broker.slow = set()
    lookups.ask(KEYS[40:45], 0, 1.0, found)
    broker.requests.clear()
    lookups.ask(KEYS[40:45], 0, 1.0, found)
    assert broker.sizes() == [5]


def test_a_broker_that_refuses_is_no_slow_one() -> None:
    """Only a request that got no answer is split."""
    broker, found = Broker(), Found()
    lookups = TimeLookups(cast(ClusterClient, broker))
    lookups.ask(KEYS, 0, 1.0, found)
    ((keys, on_answer),) = broker.in_flight
    on_answer(dict.fromkeys(keys, KafkaError(KafkaError.NOT_LEADER_FOR_PARTITION)))
    lookups.ask(KEYS, 0, 1.0, found)
    assert broker.sizes() == [100, 100]


def test_the_client_of_the_look_ups_is_heard_too() -> None:
    """No question polls it."""
    ends, slow = Broker(), Broker()
    asker = Asker({"bootstrap.servers": "kafka:9092"}, lambda error: None)
    asker._client, asker._lookups = cast(ClusterClient, ends), TimeLookups(cast(ClusterClient, slow))
    asker.poll()
    assert (ends.polls, slow.polls) == (1, 1)


def test_a_look_up_that_can_not_be_sent_is_answered() -> None:
    """It may be asked within another question's answer: what it raised there was logged, and nobody heard of it, so
    that ``start="recent"`` waited for ever. Its client is made with its first question, which may fail."""
    asker = Asker({"bootstrap.servers": "kafka:9092"}, lambda error: None)

    def fail(*arguments: object) -> None:
        raise RuntimeError("can't start new thread")

    asker._lookups.ask = fail  # type: ignore[method-assign, assignment]
    answers: list[Mapping[PartitionKey, FoundOffset | KafkaError]] = []
    asker.ask_offsets_for_time([KEYS[0]], 5, 1.0, answers.append)
    ((key, error),) = answers[0].items()
    assert isinstance(error, KafkaError)
    assert (key, error.str()) == (KEYS[0], "nobody could be asked: can't start new thread")


def test_where_partitions_begin_and_end_does_not_wait_for_a_slow_look_up() -> None:
    """It is asked by another client. An empty partition has no first message to look for."""
    ends, slow = Broker(), Broker()
    asker = Asker({"bootstrap.servers": "kafka:9092"}, lambda error: None)
    asker._client, asker._lookups = cast(ClusterClient, ends), TimeLookups(cast(ClusterClient, slow))
    assert asker.ranges([SLOW], 1.0) == {SLOW: PartitionRange(0, 9)}
    assert slow.requests == []
    answers: dict[PartitionKey, PartitionRange | KafkaError] = {}
    asker.ask_ranges([SLOW], 1.0, answers.update)
    at_once = PartitionRange(0, 9, is_first_known=False, is_look_up_pending=True)
    assert (answers, len(slow.in_flight)) == ({SLOW: at_once}, 1)
    answers.clear()
    slow.slow = set()
    asker.ask_ranges([KEYS[0]], 1.0, answers.update)
    assert answers == {KEYS[0]: PartitionRange(0, 9, 1234)}
    slow.time_out()
    assert answers[SLOW] == PartitionRange(0, 9, None, is_first_known=False), (
        "a range is known without its first message"
    )


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (Answer(3, 1234), FoundOffset(3, 1234)),
        (Answer(3, 0), FoundOffset(3, 0)),
        (Answer(3, -1), FoundOffset(3)),
        (Answer(-1, -1), FoundOffset()),
    ],
    ids=["a message", "one of 1970", "one whose time isn't told", "none"],
)
def test_what_is_found(answer: Answer, found: FoundOffset) -> None:
    """A time that isn't told says nothing of how old the message is."""
    told: list[Mapping[PartitionKey, FoundOffset | KafkaError]] = []
    read_each(_found, told.append)({KEYS[0]: [cast(ListOffsetsResultInfo, answer)]})
    assert told == [{KEYS[0]: found}]
