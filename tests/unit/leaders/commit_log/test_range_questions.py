"""From where to where the log's partitions are to be read, as the brokers tell it partition by partition."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, cast

from confluent_kafka import OFFSET_BEGINNING, KafkaError

from arroyo_sync.core.state import PartitionKey
from arroyo_sync.kafka.questions.asker import Asker, PartitionRange
from arroyo_sync.kafka.questions.time_lookups import FoundOffset
from arroyo_sync.leaders.commit_log.log_topic import RangeQuestions
from arroyo_sync.leaders.commit_log.replay import OffsetRange

TIMED_OUT = KafkaError(KafkaError._TIMED_OUT)

OnAnswer = Callable[[Any], None]


class PatientAsker:
    """Keeps what it is asked. A test gives the answers."""

    def __init__(self) -> None:
        self.ranges: list[tuple[list[PartitionKey], float, bool]] = []
        """Partitions, timeout, and whether their first messages are wanted."""
        self.times: list[tuple[list[PartitionKey], int, float]] = []
        """Partitions, Unix milliseconds, timeout."""
        self.on_ranges: list[OnAnswer] = []
        self.on_found: list[OnAnswer] = []

    def ask_ranges(
        self, partitions: Collection[PartitionKey], timeout: float, on_answer: OnAnswer, with_first_messages: bool
    ) -> None:
        self.ranges.append((list(partitions), timeout, with_first_messages))
        self.on_ranges.append(on_answer)

    def ask_offsets_for_time(
        self, partitions: Collection[PartitionKey], timestamp_ms: int, timeout: float, on_answer: OnAnswer
    ) -> None:
        self.times.append((list(partitions), timestamp_ms, timeout))
        self.on_found.append(on_answer)


def asked(*partitions: int, recent: Collection[int] = ()) -> tuple[RangeQuestions, PatientAsker]:
    """Questions that have just been put about these partitions, since 5000 ms for those that are read recently."""
    asker = PatientAsker()
    questions = RangeQuestions(cast(Asker, asker), "log")
    questions.restart(recent)
    questions.ask(partitions, 5_000, 1.5)
    return questions, asker


def test_no_question_takes_longer_than_its_caller_says() -> None:
    """Neither that about the ends nor the look-up after it; when the first messages were written costs nothing."""
    _, asker = asked(0, 1, 2, recent=(1,))
    assert asker.ranges == [([("log", 1)], 1.5, False), ([("log", 0), ("log", 2)], 1.5, False)]
    asker.on_ranges[0]({("log", 1): PartitionRange(3, 9)})
    assert asker.times == [([("log", 1)], 5_000, 1.5)]


def test_nothing_is_looked_up_by_time_in_partitions_that_are_read_from_their_beginning() -> None:
    """The answer about their ends is all that is needed."""
    questions, asker = asked(0)
    asker.on_ranges[0]({("log", 0): PartitionRange(3, 9)})
    assert asker.times == []
    assert questions.take() == ({0: OffsetRange(3, 9)}, {})
    assert questions.begin(0, OffsetRange(3, 9)) == OFFSET_BEGINNING


def test_a_partition_whose_broker_does_not_answer_is_not_looked_up_by_time() -> None:
    """Its error is told; the others of the same answer are looked up."""
    questions, asker = asked(0, recent=(0,))
    asker.on_ranges[0]({("log", 0): TIMED_OUT})
    assert asker.times == []
    assert questions.take() == ({}, {0: TIMED_OUT})

    questions, asker = asked(0, 1, recent=(0, 1))
    asker.on_ranges[0]({("log", 0): TIMED_OUT, ("log", 1): PartitionRange(3, 9)})
    assert [keys for keys, _, _ in asker.times] == [[("log", 1)]]
    assert questions.take() == ({}, {0: TIMED_OUT})


def test_a_look_up_by_time_that_fails_is_the_partitions_error_and_it_is_asked_again() -> None:
    """Without an answer it isn't known where "recent" begins; another partition's answer counts all the same."""
    questions, asker = asked(0, 1, recent=(0, 1))
    asker.on_ranges[0]({("log", each): PartitionRange(3, 9) for each in (0, 1)})
    asker.on_found[0]({("log", 0): TIMED_OUT, ("log", 1): FoundOffset(7)})
    assert questions.take() == ({1: OffsetRange(7, 9)}, {0: TIMED_OUT})
    questions.ask((0,), 5_000, 1.5)
    assert [keys for keys, _, _ in asker.ranges[1:]] == [[("log", 0)]]


def test_an_answer_that_does_not_count_any_more_hides_none_that_does() -> None:
    """One partition was forgotten meanwhile, and its answer came first."""
    questions, asker = asked(0, 1)
    questions.forget((0,))
    asker.on_ranges[0]({("log", 0): PartitionRange(0, 5), ("log", 1): PartitionRange(3, 9)})
    assert questions.take() == ({1: OffsetRange(3, 9)}, {})


def test_a_partition_is_asked_about_once_until_it_has_answered() -> None:
    """However often it is wanted; then it may be asked about again."""
    questions, asker = asked(0)
    questions.ask((0,), 5_000, 1.5)
    assert len(asker.ranges) == 1
    asker.on_ranges[0]({("log", 0): TIMED_OUT})
    questions.take()
    questions.ask((0,), 5_000, 1.5)
    assert len(asker.ranges) == 2


def test_what_nobody_calls_recent_is_read_from_its_beginning() -> None:
    """Also where `restart` was never called."""
    asker = PatientAsker()
    questions = RangeQuestions(cast(Asker, asker), "log")
    questions.forget((0,))
    questions.ask((0,), 5_000, 1.5)
    assert [keys for keys, _, _ in asker.ranges] == [[("log", 0)]]
    assert questions.begin(0, OffsetRange(3, 9)) == OFFSET_BEGINNING
