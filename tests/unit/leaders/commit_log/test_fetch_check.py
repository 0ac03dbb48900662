"""Whether the reading client still fetches, and how much is still to be read, by what the brokers and it know."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from typing import Any, cast

import pytest
from confluent_kafka import Consumer, KafkaError, TopicPartition
from confluent_kafka.admin import PartitionMetadata, TopicMetadata

from arroyo_sync.core.state import PartitionKey
from arroyo_sync.kafka.errors import RENEWAL_SECONDS
from arroyo_sync.kafka.questions.asker import Asker
from arroyo_sync.leaders.commit_log.log_topic import (
    FETCH_CHECK_SECONDS,
    FETCH_CHECK_TIMEOUT_SECONDS,
    LATE_SECONDS,
    MOST_UNFETCHED_CHECKS,
    UNFETCHED_CHECKS,
    FetchCheck,
    list_partitions,
)
from tests.support.fakes import Clock

UNKNOWN_END = -1001
"""What librdkafka says of a partition of which nothing was fetched yet."""

STEP_SECONDS = FETCH_CHECK_SECONDS / 4


class Client:
    """Knows these ends, and a topic ``log`` of two partitions."""

    def __init__(self, *ends: int | None) -> None:
        self.ends = list(ends)
        self.listed: list[tuple[str, float]] = []

    def get_watermark_offsets(self, partition: TopicPartition, cached: bool) -> tuple[int, int] | None:
        assert (partition.topic, cached) == ("log", True)
        end = self.ends[partition.partition]
        return None if end is None else (0, end)

    def list_topics(self, topic: str, timeout: float) -> Client:
        self.listed.append((topic, timeout))
        return self

    @property
    def topics(self) -> dict[str, TopicMetadata]:
        metadata = TopicMetadata()
        metadata.error = None
        metadata.partitions = {each: PartitionMetadata() for each in (1, 0)}
        return {"log": metadata}


class Brokers:
    """Tell these ends at once; of other partitions they give no answer."""

    def __init__(self, ends: dict[int, int]) -> None:
        self.ends = ends
        self.questions: list[tuple[list[PartitionKey], float]] = []

    def ask_end_offsets(
        self, partitions: Collection[PartitionKey], timeout: float, on_answer: Callable[[Any], None]
    ) -> None:
        self.questions.append((list(partitions), timeout))
        on_answer({key: self.ends.get(key[1], KafkaError(KafkaError._TIMED_OUT)) for key in partitions})


class Fixture:
    """Two partitions of which everything was read, up to 10 and 20."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.client = Client(10, 20)
        self.brokers = Brokers({0: 10, 1: 20})
        self.positions = {0: 10, 1: 20}
        self.check = FetchCheck(cast(Asker, self.brokers), "log", self.clock)

    def has_stopped(self) -> bool:
        return self.check.has_stopped(cast(Consumer, self.client), self.positions)

    def stops_after(self, at_most: float = 1e4) -> float | None:
        """Steps until the client counts as one that fetches no more: after how many seconds; ``None``: it doesn't."""
        began = self.clock.now
        while self.clock.now - began <= at_most:
            if self.has_stopped():
                return self.clock.now - began
            self.clock.now += STEP_SECONDS
        return None

    def lag(self) -> int | None:
        return self.check.lag(cast(Consumer, self.client), self.positions)


LIBRDKAFKA_SECONDS = 60.5
"""How long librdkafka waits for a response before it tries again by itself: it may still mend it."""
PATIENCE_SECONDS = UNFETCHED_CHECKS * FETCH_CHECK_SECONDS


def test_a_client_that_was_refused_a_partition_is_replaced() -> None:
    """It tells of that once, so whether it may read by now, or not again later, only another one can say."""
    fixture = Fixture()
    fixture.client.ends = [10, 20]
    assert fixture.stops_after(FETCH_CHECK_SECONDS) is None
    for _ in range(3):
        began = fixture.clock.now
        fixture.check.refused(1)
        assert fixture.stops_after(RENEWAL_SECONDS / 2) is None
        fixture.check.refused(0)
        fixture.check.refused(1)
        fixture.stops_after()
        assert began + RENEWAL_SECONDS <= fixture.clock.now <= began + RENEWAL_SECONDS + FETCH_CHECK_SECONDS
        fixture.check.restart()
    assert fixture.stops_after() is None


def test_a_partition_that_is_refused_is_unheard_though_its_end_is_told() -> None:
    """Also by the clients that follow. Once one may read it, it is heard."""
    fixture = Fixture()
    fixture.client.ends = [10, 20]
    assert fixture.stops_after(FETCH_CHECK_SECONDS) is None
    for _ in range(3):
        fixture.check.refused(1)
        fixture.stops_after()
        assert fixture.check.unheard_since.keys() <= {1}
        fixture.check.restart()
        assert not fixture.has_stopped()
    assert fixture.check.unheard_since.keys() == {1}
    assert fixture.stops_after(2 * FETCH_CHECK_SECONDS) is None
    assert fixture.check.unheard_since == {}


def test_a_partition_of_which_neither_a_record_nor_an_answer_comes_is_unheard() -> None:
    """Since the last time that something did, as far as it was looked at; either makes it heard."""
    fixture = Fixture()
    fixture.client.ends = [10, 20]
    for _ in range(9):
        assert not fixture.has_stopped()
        fixture.clock.now += STEP_SECONDS
    assert fixture.check.unheard_since == {}
    began = fixture.clock.now
    del fixture.brokers.ends[1]
    for _ in range(20):
        fixture.has_stopped()
        fixture.clock.now += STEP_SECONDS
    since = fixture.check.unheard_since
    assert since.keys() == {1}
    assert began - FETCH_CHECK_SECONDS <= since[1] <= began + FETCH_CHECK_SECONDS
    fixture.positions[1] += 1
    for _ in range(4):
        fixture.has_stopped()
        fixture.clock.now += STEP_SECONDS
    assert fixture.check.unheard_since == {}, "a record was read of it"
    for _ in range(20):
        fixture.has_stopped()
        fixture.clock.now += STEP_SECONDS
    assert fixture.check.unheard_since.keys() == {1}
    fixture.positions.clear()
    fixture.has_stopped()
    assert fixture.check.unheard_since == {}, "nothing is read any more"


def unheard_seconds(fixture: Fixture) -> float:
    """For how long nothing has been heard of the second partition, as others ask."""
    since = fixture.check.unheard_since
    assert since.keys() == {1}
    return fixture.clock.now - since[1]


def test_what_passes_while_the_process_is_frozen_makes_no_silence_longer() -> None:
    """By SIGSTOP or a paused container, where nothing can be heard. Also to who asks before the reader has come by."""
    fixture = Fixture()
    del fixture.brokers.ends[1]
    fixture.stops_after(40.0)
    fixture.has_stopped()
    heard = unheard_seconds(fixture)
    fixture.clock.now += 3600.0
    assert unheard_seconds(fixture) == heard
    for passed in (0.0, STEP_SECONDS, 2 * STEP_SECONDS):
        fixture.has_stopped()
        assert unheard_seconds(fixture) == heard + passed
        fixture.clock.now += STEP_SECONDS
    fixture.stops_after(FETCH_CHECK_SECONDS)
    assert unheard_seconds(fixture) > heard + FETCH_CHECK_SECONDS


@pytest.mark.parametrize(("seconds", "is_unheard"), [(LATE_SECONDS, True), (LATE_SECONDS + 0.1, False)])
def test_a_partition_becomes_unheard_by_time_in_which_it_could_be_heard(seconds: float, is_unheard: bool) -> None:
    """The reading thread comes by several times a second: it was away if it didn't for some seconds."""
    fixture = Fixture()
    fixture.positions = {1: 20}
    fixture.brokers.ends.clear()
    fixture.stops_after(2 * FETCH_CHECK_SECONDS - STEP_SECONDS)
    fixture.clock.now += seconds - STEP_SECONDS
    fixture.has_stopped()
    assert bool(fixture.check.unheard_since) == is_unheard


@pytest.mark.parametrize("late_seconds", [0.0, LATE_SECONDS - STEP_SECONDS])
def test_a_partition_is_unheard_from_a_new_clients_first_look_on(late_seconds: float) -> None:
    """However late the second one is; it is said with the third one."""
    fixture = Fixture()
    fixture.brokers.ends.clear()
    began = fixture.clock.now
    assert fixture.check.unheard_since == {}
    fixture.has_stopped()
    assert fixture.check.unheard_since == {}
    fixture.stops_after(FETCH_CHECK_SECONDS - STEP_SECONDS)
    fixture.clock.now += late_seconds
    fixture.has_stopped()
    assert fixture.check.unheard_since == {}
    fixture.stops_after(FETCH_CHECK_SECONDS)
    assert fixture.check.unheard_since == {0: began, 1: began}


def test_a_client_that_has_read_all_is_well_whatever_its_responses_call_the_end() -> None:
    """Not only Kafka speaks its protocol: a response may name the last offset in place of the next one."""
    fixture = Fixture()
    fixture.client.ends = [9, 19]
    assert fixture.stops_after() is None
    fixture.brokers.ends = {0: 11, 1: 20}
    assert fixture.stops_after() is not None


def test_progress_a_client_that_has_lost_all_brokers_for_good_is_noticed(caplog: pytest.LogCaptureFixture) -> None:
    """librdkafka#5301. The log has grown, as the brokers tell everybody else."""
    fixture = Fixture()
    fixture.brokers.ends = {0: 11, 1: 25}
    assert fixture.stops_after() == PATIENCE_SECONDS
    assert PATIENCE_SECONDS > LIBRDKAFKA_SECONDS
    (line,) = caplog.records
    assert line.levelno == logging.WARNING, "it mends itself"
    assert line.getMessage() == (
        "Commit log log: there is more in partitions [0, 1], which this process's client fetches no more. A new one "
        "goes on where it stopped"
    )


def test_progress_a_client_that_fetches_one_partition_no_more_is_noticed(caplog: pytest.LogCaptureFixture) -> None:
    """librdkafka#4492. The other one goes on."""
    fixture = Fixture()
    fixture.brokers.ends[1] = 21

    def grow() -> None:
        fixture.brokers.ends[0] += 1
        fixture.client.ends[0] = fixture.positions[0] = fixture.brokers.ends[0]

    began = fixture.clock.now
    while not fixture.has_stopped():
        assert fixture.clock.now - began < 100
        grow()
        fixture.clock.now += STEP_SECONDS
    assert "in partitions [1]," in caplog.text


@pytest.mark.parametrize("end", [20, 1])
def test_a_client_that_never_fetched_anything_is_noticed(end: int) -> None:
    """It knows no end at all. A single record may be the only report of a partition."""
    fixture = Fixture()
    fixture.brokers.ends[1], fixture.client.ends, fixture.positions = end, [10, UNKNOWN_END], {0: 10, 1: 0}
    assert fixture.stops_after() == PATIENCE_SECONDS


def test_where_the_end_is_known_and_no_record_comes_all_is_well() -> None:
    """In a transaction that is open or hangs, and behind compacted records: the client has fetched as far."""
    fixture = Fixture()
    fixture.brokers.ends = {0: 15, 1: 30}
    fixture.client.ends = [15, 30]
    assert fixture.stops_after() is None


def test_an_empty_log_that_nobody_publishes_on_is_well() -> None:
    """Nothing was fetched of it, and there is nothing."""
    fixture = Fixture()
    fixture.brokers.ends, fixture.client.ends, fixture.positions = {0: 0, 1: 0}, [UNKNOWN_END, None], {0: 0, 1: 0}
    assert fixture.stops_after() is None


def test_records_that_still_come_are_fetched() -> None:
    """One by one from what a response brought; or many after a minute in which the next response was on its way."""
    for seconds in (STEP_SECONDS, LIBRDKAFKA_SECONDS):
        fixture = Fixture()
        fixture.brokers.ends[1] = 10_000
        for _ in range(50):
            assert fixture.stops_after(seconds - STEP_SECONDS) is None
            fixture.positions[1] += 1


def test_brokers_that_do_not_answer_prove_nothing() -> None:
    """Nor does one answer before and after them: the client has lost them as well, and may have them back."""
    fixture = Fixture()
    for _ in range(20):
        fixture.brokers.ends = {0: 10, 1: 25}
        assert fixture.stops_after((UNFETCHED_CHECKS - 1) * FETCH_CHECK_SECONDS - STEP_SECONDS) is None
        fixture.brokers.ends = {}
        assert fixture.stops_after(2 * FETCH_CHECK_SECONDS) is None


def test_of_what_neither_the_brokers_nor_the_client_tell_nothing_is_proven() -> None:
    """A partition without a leader may be one of which nothing was ever fetched."""
    fixture = Fixture()
    fixture.brokers.ends, fixture.client.ends, fixture.positions = {0: 10}, [10, UNKNOWN_END], {0: 10, 1: 0}
    assert fixture.stops_after() is None


def test_a_process_that_stood_still_proves_nothing() -> None:
    """Its client needs a moment after it goes on; what counts is how often it was asked, not how long ago."""
    fixture = Fixture()
    fixture.brokers.ends[0] = 11
    assert not fixture.has_stopped()
    fixture.clock.now += 3600
    assert not fixture.has_stopped()
    fixture.client.ends[0], fixture.positions[0] = 11, 11
    assert fixture.stops_after() is None


def test_the_brokers_are_asked_now_and_then_about_what_is_read() -> None:
    """One request for each broker; none while nothing is read, and then at once, whatever the clock counts from."""
    fixture = Fixture()
    fixture.positions = {}
    assert fixture.stops_after(100) is None
    assert fixture.brokers.questions == []
    fixture.clock.now, fixture.positions = 0.0, {0: 10, 1: 20}
    assert fixture.stops_after(FETCH_CHECK_SECONDS) is None
    assert fixture.brokers.questions == [([("log", 0), ("log", 1)], FETCH_CHECK_TIMEOUT_SECONDS)] * 2


def test_new_clients_that_do_not_help_come_less_and_less_often() -> None:
    """Each makes the gate shut for a replay. Once one helps, the next is as soon as the first."""
    fixture = Fixture()
    fixture.brokers.ends[0] = 11
    checks = []
    for _ in range(5):
        seconds = fixture.stops_after()
        assert seconds is not None
        checks.append(seconds / FETCH_CHECK_SECONDS)
        fixture.check.restart()
    first = UNFETCHED_CHECKS
    assert checks == [first, 2 * first, 4 * first, MOST_UNFETCHED_CHECKS, MOST_UNFETCHED_CHECKS]
    fixture.client.ends[0], fixture.positions[0] = 11, 11
    assert fixture.stops_after(2 * FETCH_CHECK_SECONDS) is None
    fixture.brokers.ends[0] = 12
    assert fixture.stops_after() == PATIENCE_SECONDS + FETCH_CHECK_SECONDS - STEP_SECONDS


def test_that_half_of_the_brokers_answer_shows_no_client_that_helps() -> None:
    """The partition for whose sake it was made isn't among them."""
    fixture = Fixture()
    fixture.brokers.ends[0] = 11
    assert fixture.stops_after() == PATIENCE_SECONDS
    fixture.check.restart()
    del fixture.brokers.ends[0]
    assert fixture.stops_after(5 * FETCH_CHECK_SECONDS) is None
    fixture.brokers.ends[0] = 11
    seconds = fixture.stops_after()
    assert seconds is not None
    assert seconds > PATIENCE_SECONDS + FETCH_CHECK_SECONDS


def test_what_was_known_of_the_last_client_says_nothing_of_a_new_one() -> None:
    """Neither its checks, nor where the log of that time ended."""
    fixture = Fixture()
    fixture.brokers.ends[0] = 11
    assert fixture.stops_after(PATIENCE_SECONDS - FETCH_CHECK_SECONDS) is None
    assert fixture.lag() == 1
    fixture.check.restart()
    assert fixture.lag() == 0
    assert fixture.stops_after() == PATIENCE_SECONDS


@pytest.mark.parametrize(
    ("ends", "lag"),
    [
        pytest.param([10, 20], 10 - 4 + 20 - 5, id="the sum of all partitions"),
        pytest.param([10, 3], 10 - 4, id="what is read already is ahead of what the client knew"),
        pytest.param([0, 6], 1, id="an empty partition has an end"),
        pytest.param([10, UNKNOWN_END], None, id="nothing was fetched of one"),
        pytest.param([UNKNOWN_END, 10], None, id="nothing was fetched of the first"),
        pytest.param([10, None], None, id="the client has no answer"),
    ],
)
def test_the_lag_is_how_many_offsets_are_still_to_be_read(ends: list[int | None], lag: int | None) -> None:
    """Unknown if that of any partition is: half a sum would look like a reader that keeps up."""
    fixture = Fixture()
    fixture.client.ends, fixture.positions = ends, {0: 4, 1: 5}
    assert fixture.lag() == lag


def test_an_empty_log_has_no_lag() -> None:
    """Of which the brokers haven't told yet: the client's word will do."""
    fixture = Fixture()
    fixture.client.ends, fixture.positions = [0, 0], {0: 0, 1: 0}
    assert fixture.lag() == 0


def test_the_lag_of_a_client_that_fetches_no_more_is_the_brokers_word() -> None:
    """It would be 0 for ever by what the client knows. What the brokers told first is held against what it knows since,
    and an older answer takes nothing away."""
    fixture = Fixture()
    fixture.brokers.ends = {0: 15, 1: 20}
    assert not fixture.has_stopped()
    fixture.clock.now += FETCH_CHECK_SECONDS
    assert not fixture.has_stopped()
    assert fixture.lag() == 5
    fixture.client.ends[0] = 17
    assert fixture.lag() == 7


def test_the_partitions_of_that_topic_alone_are_asked_for() -> None:
    """A cluster may have thousands of topics; without a name the brokers list them all."""
    client = Client()
    assert list_partitions(cast(Consumer, client), "log", 1.5) == [0, 1]
    assert client.listed == [("log", 1.5)]
    assert list_partitions(cast(Consumer, client), "other", 1.5) == []
