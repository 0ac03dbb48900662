"""The reading thread's work, step by step, against a client that does what its script says."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from functools import partial
from threading import Event
from typing import Any, cast

import pytest
from confluent_kafka import (
    OFFSET_BEGINNING,
    TIMESTAMP_CREATE_TIME,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)
from confluent_kafka.admin import PartitionMetadata, TopicMetadata

from arroyo_sync.core.errors import BrokersUnreachable, CommitLogMissing
from arroyo_sync.core.state import PartitionKey, SynchronizedPartitionStateManager
from arroyo_sync.kafka.errors import FRESH_SECONDS
from arroyo_sync.kafka.questions.asker import Asker, PartitionRange
from arroyo_sync.kafka.questions.time_lookups import FoundOffset
from arroyo_sync.leaders.commit_log import batch_decoder
from arroyo_sync.leaders.commit_log.batch_decoder import BATCH, BATCH_BYTES, BatchDecoder
from arroyo_sync.leaders.commit_log.log_topic import FetchCheck, RangeQuestions, ReachabilityCheck, TopicIdentity
from arroyo_sync.leaders.commit_log.reader import (
    MISSING_SECONDS,
    PROGRESS_SECONDS,
    CommitLogReader,
    ReaderSettings,
)
from arroyo_sync.leaders.commit_report import CommitReport
from arroyo_sync.leaders.leader_offsets import LeaderOffsets
from tests.support.assigned import read_without_end
from tests.support.fakes import Clock

TOPIC = "log"


class Answers:
    """What `list_topics` returns."""

    def __init__(self, topic: TopicMetadata) -> None:
        self.topics = {TOPIC: topic}


class ScriptedClient:
    """A consumer of a topic with these partitions; messages are given to `messages`."""

    def __init__(self, clock: Clock, partitions: Collection[int] = (0,)) -> None:
        self.clock = clock
        self.partitions = set(partitions)
        self.ends: dict[int, int] = {}
        self.begins: dict[int, int] = {}
        self.since: dict[int, int] = {}
        self.messages: list[Message] = []
        self.assigned: dict[int, int] = {}
        self.metadata_error: KafkaException | None = None
        self.topic_error: KafkaError | None = None
        self.listed: list[tuple[str, float]] = []
        """The topics whose partitions were asked for, and for how long at most."""
        self.polls: list[float] = []
        self.lag_asked = 0

    def list_topics(self, topic: str, timeout: float) -> Answers:
        self.listed.append((topic, timeout))
        if self.metadata_error is not None:
            self.clock.now += timeout
            raise self.metadata_error
        metadata = TopicMetadata()
        metadata.error = self.topic_error
        metadata.partitions = {partition: PartitionMetadata() for partition in self.partitions}
        return Answers(metadata)

    def incremental_assign(self, partitions: Sequence[TopicPartition]) -> None:
        self.assigned.update((each.partition, each.offset) for each in partitions)

    def incremental_unassign(self, partitions: Sequence[TopicPartition]) -> None:
        for each in partitions:
            del self.assigned[each.partition]

    def poll(self, timeout: float) -> Message | None:
        self.polls.append(timeout)
        if not self.messages:
            self.clock.now += timeout
            return None
        return self.messages.pop(0)

    def consume(self, count: int, timeout: float) -> list[Message]:
        assert timeout == 0, "no batch is waited for"
        taken, self.messages = self.messages[:count], self.messages[count:]
        return taken

    def get_watermark_offsets(self, partition: TopicPartition, cached: bool) -> tuple[int, int]:
        assert cached
        self.lag_asked += 1
        return 0, self.ends.get(partition.partition, -1001)


class ScriptedAsker:
    """Answers what the client's script says, at once; about some partitions late, or with an error."""

    def __init__(self, client: ScriptedClient) -> None:
        self.client = client
        self.questions: list[list[PartitionKey]] = []
        self.range_timeouts: list[float] = []
        self.silent: set[int] = set()
        self.errors: dict[int, KafkaError] = {}
        self.late: set[int] = set()
        self.answers: list[Callable[[], None]] = []

    def ask_ranges(
        self,
        partitions: Collection[PartitionKey],
        timeout: float,
        on_answer: Callable[[Any], None],
        with_first_messages: bool,
    ) -> None:
        assert not with_first_messages
        self.range_timeouts.append(timeout)
        begins, ends = self.client.begins, self.client.ends
        for key in partitions:  # each by a broker of its own
            range_ = PartitionRange(begins.get(key[1], 0), ends.get(key[1], 0))
            answer = {key: self.errors.get(key[1], range_)}
            if key[1] in self.late:
                self.answers.append(partial(on_answer, answer))
            else:
                on_answer(answer)

    def ask_offsets_for_time(
        self, partitions: Collection[PartitionKey], timestamp_ms: int, timeout: float, on_answer: Callable[[Any], None]
    ) -> None:
        assert timestamp_ms == 1_700_000_000_000 - 600_000
        since = self.client.since
        found = {key: since.get(key[1], 0) for key in partitions}
        on_answer({key: FoundOffset(None if offset < 0 else offset, 0) for key, offset in found.items()})

    def ask_end_offsets(self, partitions: list[PartitionKey], timeout: float, on_answer: Callable[[Any], None]) -> None:
        self.questions.append(partitions)
        timed_out = KafkaError(KafkaError._TIMED_OUT)
        on_answer({key: timed_out if key[1] in self.silent else 7 for key in partitions})


class SeparateBrokers:
    """Tell where the log ends, whatever the client knows. At first they don't answer."""

    def __init__(self) -> None:
        self.ends: dict[int, int] = {}

    def ask_end_offsets(
        self, partitions: Collection[PartitionKey], timeout: float, on_answer: Callable[[Any], None]
    ) -> None:
        on_answer({key: self.ends[key[1]] for key in partitions if key[1] in self.ends})


class Stopping(Event):
    """Whoever waits for it to be set lets the clock go on, and has a test do something meanwhile."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock
        self.waits: list[float | None] = []
        self.meanwhile: Callable[[], None] = lambda: None

    def wait(self, timeout: float | None = None) -> bool:
        assert len(self.waits) < 1_000, "it waits without end"
        self.waits.append(timeout)
        self.clock.now += timeout or 0.0
        self.meanwhile()
        return self.is_set()


class NoIdentity:
    """A topic that stays the same, until a test says otherwise."""

    def __init__(self) -> None:
        self.is_another = False
        self.is_missing = False
        self.asked = 0

    def ask(self) -> None:
        self.asked += 1

    def take_missing(self) -> bool:
        return self.is_missing

    def has_changed(self) -> bool:
        is_another, self.is_another = self.is_another, False
        return is_another


class Fixture:
    """A reader that is stepped by hand."""

    def __init__(self, partitions: Collection[int] = (0,), start: Any = "all", wait_for_topic: bool = False) -> None:
        self.clock = Clock()
        self.client = ScriptedClient(self.clock, partitions)
        self.identity = NoIdentity()
        self.asker = ScriptedAsker(self.client)
        self.brokers = SeparateBrokers()
        self.manager = SynchronizedPartitionStateManager()
        self.offsets = LeaderOffsets(["g"])
        self.offsets.attach(self.manager)
        read_without_end(self.offsets, *[("events", partition) for partition in range(4)])
        self.ready: list[bool] = []
        self.stopping = Stopping(self.clock)
        settings = ReaderSettings(
            topic=TOPIC,
            configuration={"bootstrap.servers": "kafka:9092", "topic.metadata.refresh.interval.ms": 10_000},
            start=start,
            lookback_seconds=600.0,
            wait_for_topic=wait_for_topic,
            connect_timeout=30.0,
            clock=self.clock,
            wall_clock=lambda: 1_700_000_000.0,
        )
        self.fetch_check = FetchCheck(cast(Asker, self.brokers), TOPIC, self.clock)
        self.reader = CommitLogReader(
            settings,
            BatchDecoder(TOPIC, ["g"], self.clock),
            self.apply,
            self.offsets.forget_log_partition,
            self.offsets.retain_topic,
            self.set_ready,
            self.stopping,
            ReachabilityCheck(cast(Asker, self.asker), TOPIC, self.clock),
            RangeQuestions(cast(Asker, self.asker), TOPIC),
            self.fetch_check,
        )
        self.consumer = cast(Consumer, self.client)

    def apply(self, published: Sequence[CommitReport]) -> None:
        self.offsets.apply(published, 0.0)

    def set_ready(self, is_ready: bool) -> None:
        self.ready.append(is_ready)
        if is_ready:
            self.offsets.enable()
        else:
            self.offsets.disable()

    def run(self, steps: int) -> None:
        """As many steps, then stop. Without its real clock: waits for nothing."""
        left = iter(range(steps))
        step = self.reader._step

        def counted(consumer: Consumer, identity: TopicIdentity) -> None:
            if next(left, None) is None:
                assert not self.stopping.is_set(), "it goes on though it was stopped"
                self.stopping.set()
                return
            step(consumer, identity)

        self.reader._step = counted  # type: ignore[method-assign]
        try:
            self.stopping.clear()
            self.reader.run(self.consumer, cast(TopicIdentity, self.identity))
        finally:
            self.reader._step = step  # type: ignore[method-assign]

    def step(self, *messages: Message) -> None:
        self.client.messages += messages
        self.reader._step(self.consumer, cast(TopicIdentity, self.identity))

    def remote(self, partition: int = 0) -> int | None:
        return self.manager.cell("events", partition).remote


def record(log_offset: int, offset: int, partition: int = 0, log_partition: int = 0) -> Message:
    key = b"events:%d:g" % partition
    return Message(
        TOPIC, log_partition, log_offset, key, b"%d" % offset, None, None, (TIMESTAMP_CREATE_TIME, log_offset)
    )


def event(code: int, log_partition: int = 0, log_offset: int = 0) -> Message:
    return Message(TOPIC, log_partition, log_offset, None, None, None, KafkaError(code), (0, -1))


def test_it_opens_when_every_partition_was_replayed() -> None:
    """By passing its end or meeting it; empty ones need nothing."""
    fixture = Fixture((0, 1, 2))
    fixture.client.ends = {0: 2, 1: 5, 2: 0}
    fixture.run(1)
    assert fixture.client.assigned == dict.fromkeys(range(3), OFFSET_BEGINNING)
    fixture.step(record(0, 7), record(1, 6))
    assert (fixture.ready, fixture.remote()) == ([], None)
    assert fixture.reader.missing() == "it still has to read partitions 1 (read up to 0 of 5)"
    fixture.step(event(KafkaError._PARTITION_EOF, 1))
    assert (fixture.ready, fixture.remote()) == ([True], 6)


def test_where_the_log_ends_is_asked_until_every_partition_has_told() -> None:
    """Half an answer would open the gate too soon."""
    fixture = Fixture()
    fixture.client.ends = {0: 1}
    fixture.asker.errors = {0: KafkaError(KafkaError.LEADER_NOT_AVAILABLE)}
    fixture.run(3)
    assert (fixture.client.assigned, fixture.ready) == ({}, [])
    assert "the ends of partitions [0]" in fixture.reader.missing()
    fixture.asker.errors = {}
    fixture.clock.now += 1
    fixture.step(record(0, 7))
    assert fixture.ready == [True]


def test_partitions_are_read_while_the_broker_of_another_is_down_and_the_gate_waits_for_that_one() -> None:
    """The newest report of any data partition may lie in it, so none opens; once it is back it alone is to be read."""
    fixture = Fixture((0, 1))
    fixture.client.ends = {0: 1, 1: 1}
    fixture.asker.errors = {1: KafkaError(KafkaError._TIMED_OUT)}
    fixture.run(1)
    assert fixture.client.assigned == {0: OFFSET_BEGINNING}
    fixture.step(record(0, 7))
    assert (fixture.ready, fixture.remote()) == ([], None)
    assert "it waits for the ends of partitions [1]" in fixture.reader.missing()
    fixture.asker.errors = {}
    fixture.clock.now += 1
    fixture.step(record(0, 5, log_partition=1))
    assert fixture.client.assigned == dict.fromkeys(range(2), OFFSET_BEGINNING)
    assert (fixture.ready, fixture.remote()) == ([True], 5)


def test_a_partition_whose_answer_is_late_begins_where_the_others_did() -> None:
    """At a recent start, not at the beginning; and it is asked about once until it has answered."""
    fixture = Fixture((0, 1), start="recent")
    fixture.client.ends, fixture.client.since = {0: 100, 1: 100}, {0: 40, 1: 50}
    fixture.asker.late = {1}
    fixture.run(1)
    fixture.clock.now += 1
    fixture.step()
    assert (fixture.client.assigned, len(fixture.asker.answers)) == ({0: 40}, 1)
    fixture.asker.answers.pop()()
    fixture.step()
    assert fixture.client.assigned == {0: 40, 1: 50}


def test_an_answer_to_a_question_from_before_all_is_read_again_does_not_count() -> None:
    """It may be about an earlier topic, whose end would open the gate too soon."""
    fixture = Fixture(start="recent")
    fixture.client.ends, fixture.client.since = {0: 0}, {0: 0}
    fixture.asker.late = {0}
    fixture.run(1)
    (before,) = fixture.asker.answers
    fixture.reader.read_all()
    fixture.step()
    fixture.client.ends = {0: 1}
    before()
    fixture.step()
    assert (fixture.client.assigned, fixture.ready) == ({}, [False])
    fixture.asker.answers[-1]()
    fixture.step()
    assert fixture.client.assigned == {0: OFFSET_BEGINNING}


def with_an_added_partition() -> Fixture:
    """The gate is open, and partition 1 was found since; its broker is down."""
    fixture = Fixture()
    fixture.client.ends = {0: 1, 1: 1}
    fixture.run(1)
    fixture.step(record(0, 7))
    fixture.client.partitions = {0, 1}
    fixture.asker.errors = {1: KafkaError(KafkaError._TIMED_OUT)}
    fixture.clock.now += 10
    fixture.step()
    return fixture


def test_the_gate_stays_open_while_the_broker_of_an_added_partition_is_down() -> None:
    """What it holds counts once it was read."""
    fixture = with_an_added_partition()
    fixture.step(record(1, 8))
    assert (set(fixture.client.assigned), fixture.ready, fixture.remote()) == ({0}, [True], 8)


def test_an_error_that_trying_again_does_not_mend_comes_out() -> None:
    """Of one partition as of all."""
    fixture = Fixture((0, 1))
    fixture.asker.errors = {1: KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)}
    with pytest.raises(KafkaException):
        fixture.run(1)


def test_the_ends_of_an_added_partition_may_be_refused_for_a_moment() -> None:
    """They are asked for again, and the others are read meanwhile."""
    fixture = with_an_added_partition()
    fixture.clock.now += FRESH_SECONDS + 1.0
    fixture.asker.errors = {1: KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)}
    fixture.step(record(1, 8))
    assert (set(fixture.client.assigned), fixture.ready, fixture.remote()) == ({0}, [True], 8)
    fixture.asker.errors = {}
    fixture.clock.now += 1
    fixture.step()
    assert set(fixture.client.assigned) == {0, 1}


def test_a_recent_start_begins_where_the_look_back_does_but_never_past_the_end() -> None:
    """The end was asked for first: what arrives meanwhile lies past it, and is read."""
    fixture = Fixture((0, 1, 2), start="recent")
    fixture.client.ends = {0: 100, 1: 100, 2: 100}
    fixture.client.since = {0: 40, 1: -1, 2: 150}
    fixture.run(1)
    assert fixture.client.assigned == {0: 40, 1: 100, 2: 100}


def test_read_all_begins_again_with_the_gate_shut() -> None:
    """Called by another thread, done at the next step."""
    fixture = Fixture(start="recent")
    fixture.client.ends, fixture.client.since = {0: 3}, {0: -1}
    fixture.run(1)
    assert fixture.ready == [True]
    fixture.reader.read_all()
    fixture.step()
    assert (fixture.ready, fixture.client.assigned) == ([True, False], {})
    fixture.step()
    assert fixture.client.assigned == {0: OFFSET_BEGINNING}
    fixture.step(record(0, 5), record(2, 7))
    assert (fixture.ready, fixture.remote()) == ([True, False, True], 7)


def test_a_position_that_is_gone_forgets_its_partition_alone() -> None:
    """The gate shuts, and opens once that partition was read again; the topic's identity is asked for at once."""
    fixture = Fixture((0, 1))
    fixture.client.ends = {0: 1, 1: 1}
    fixture.run(1)
    fixture.step(record(0, 7, partition=0), record(0, 9, partition=1, log_partition=1))
    assert (fixture.remote(0), fixture.remote(1)) == (7, 9)
    asked = fixture.identity.asked
    fixture.client.ends = fixture.client.begins = {0: 50, 1: 1}
    fixture.step(record(1, 8), event(KafkaError._AUTO_OFFSET_RESET))
    assert (fixture.remote(0), fixture.remote(1), fixture.identity.asked) == (None, None, asked + 1)
    assert fixture.client.assigned == {1: OFFSET_BEGINNING}
    fixture.step()
    assert fixture.client.assigned == {0: OFFSET_BEGINNING, 1: OFFSET_BEGINNING}
    assert (fixture.remote(0), fixture.remote(1)) == (None, 9)
    assert fixture.ready == [True, False, True]


def test_a_topic_that_is_another_one_is_read_from_its_beginning() -> None:
    """By another client, which `run` ends for; as many partitions as it has by then; what the old one said is void."""
    fixture = Fixture((0, 1))
    fixture.client.ends = {0: 1, 1: 1}
    fixture.run(1)
    fixture.step(record(0, 7), record(0, 9, 1, 1))
    fixture.identity.is_another = True
    fixture.client.partitions, fixture.client.ends = {0}, {0: 1}
    fixture.client.messages.append(record(0, 3))
    fixture.run(100)
    assert not fixture.stopping.is_set()
    assert fixture.ready == [True, False]
    fixture.run(3)
    assert fixture.ready == [True, False, True]
    assert fixture.client.assigned == {0: OFFSET_BEGINNING}
    assert (fixture.remote(0), fixture.remote(1)) == (3, None)


def test_an_added_partition_counts_once_it_was_replayed_and_leaves_the_gate_open() -> None:
    """Its first records are older than its last one."""
    fixture = Fixture()
    fixture.run(1)
    fixture.step(record(0, 7))
    fixture.client.partitions.add(1)
    fixture.client.begins, fixture.client.ends = {1: 5}, {0: 1, 1: 7}
    fixture.clock.now += 10
    fixture.step()
    fixture.step()
    assert fixture.client.assigned == {0: OFFSET_BEGINNING, 1: OFFSET_BEGINNING}
    fixture.step(record(5, 90, log_partition=1))
    assert fixture.remote() == 7
    fixture.step(record(6, 8, log_partition=1))
    assert (fixture.remote(), fixture.ready) == (8, [True])
    fixture.step(record(7, 90, log_partition=1))
    assert fixture.remote() == 90


def test_a_topic_that_is_gone_is_waited_for_a_while() -> None:
    """It may be about to be created again, and a broker that has just started may not know it yet."""
    fixture = Fixture()
    fixture.run(1)
    fixture.client.partitions.clear()
    fixture.step(event(KafkaError.UNKNOWN_TOPIC_OR_PART))
    fixture.clock.now += MISSING_SECONDS - 1
    fixture.step()
    fixture.client.partitions.add(0)
    fixture.clock.now += 1
    fixture.step()
    fixture.client.partitions.clear()
    fixture.step(event(KafkaError.UNKNOWN_TOPIC_OR_PART))
    fixture.clock.now += MISSING_SECONDS - 1
    fixture.step()
    fixture.clock.now += 1
    with pytest.raises(CommitLogMissing, match="was it deleted"):
        fixture.step()


@pytest.mark.parametrize("teller", ["the client", "the topic's id"])
def test_a_topic_that_is_gone_is_noticed_between_two_looks_at_the_partitions(teller: str) -> None:
    """These are five minutes apart by default; librdkafka's errors of partitions may come by way of its callback."""
    fixture = Fixture()
    fixture.run(1)
    fixture.client.partitions.clear()
    if teller == "the client":
        fixture.reader.on_error(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART))
    else:
        fixture.identity.is_missing = True
    fixture.step()
    fixture.clock.now += MISSING_SECONDS
    with pytest.raises(CommitLogMissing, match="was it deleted"):
        fixture.step()
    assert fixture.asker.questions == [], "nobody is told that brokers don't answer"


def test_a_topic_that_was_never_there_ends_it_unless_it_is_waited_for() -> None:
    """Both kinds of answers count."""
    fixture = Fixture(())
    with pytest.raises(CommitLogMissing, match=r"doesn't exist at kafka:9092.*wait_for_topic=True"):
        fixture.run(1)
    fixture = Fixture()
    fixture.client.topic_error = KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)
    with pytest.raises(CommitLogMissing):
        fixture.run(1)
    fixture.client.topic_error = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)
    with pytest.raises(KafkaException):
        fixture.run(1)


def test_brokers_that_never_answer_end_it_after_the_timeout() -> None:
    """With the last error that librdkafka told of."""
    fixture = Fixture()
    fixture.client.metadata_error = KafkaException(KafkaError(KafkaError._TRANSPORT))
    fixture.reader.on_error(KafkaError(KafkaError._TRANSPORT, "connection refused"))
    began = fixture.clock.now
    with pytest.raises(BrokersUnreachable, match="no broker of kafka:9092 answered within 30 s: connection refused"):
        fixture.run(1)
    assert 30.0 <= fixture.clock.now - began < 35.0


def test_brokers_that_do_not_answer_at_the_start_are_told_of_and_that_they_do(caplog: pytest.LogCaptureFixture) -> None:
    """A line each; a moment without an answer is none."""
    fixture = Fixture()
    attempts = iter([None] * 2)
    fixture.client.metadata_error = KafkaException(KafkaError(KafkaError._TRANSPORT, "connection refused"))
    poll = fixture.client.poll

    def answer_later(timeout: float) -> Message | None:
        if next(attempts, 0) == 0:
            fixture.client.metadata_error = None
        return poll(timeout)

    fixture.client.poll = answer_later  # type: ignore[method-assign]
    fixture.run(1)
    assert [line for line in caplog.messages if "answer" in line] == [
        "Commit log log: no broker of kafka:9092 answers: connection refused. It is tried again",
        "Commit log log: kafka:9092 answers now",
    ]


def test_an_error_of_the_client_is_a_question_to_the_brokers_and_no_line(caplog: pytest.LogCaptureFixture) -> None:
    """librdkafka calls brokers "down" to which it isn't connected; the asker tells of those that don't answer."""
    fixture = Fixture((0, 1))
    fixture.run(1)
    asker = fixture.asker
    asker.silent = {1}
    for _ in range(3):
        fixture.reader.on_error(KafkaError(KafkaError._ALL_BROKERS_DOWN, "0/2 brokers are down"))
    fixture.stopping.clear()

    def seconds(count: int) -> int:
        """How many questions it asks in so many seconds."""
        asker.questions.clear()
        for _ in range(count):
            fixture.step()
            fixture.clock.now += 1.0
        return len(asker.questions)

    assert seconds(5) == 5
    assert asker.questions[0] == [("log", 0), ("log", 1)]
    asker.silent = set()
    assert seconds(5) == 1
    assert seconds(5) == 0
    fixture.reader.on_error(KafkaError(KafkaError._TRANSPORT, "connection refused"))
    assert seconds(5) == 1
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_brokers_that_are_lost_later_are_waited_for() -> None:
    """For as long as it takes."""
    fixture = Fixture()
    fixture.run(1)
    fixture.client.metadata_error = KafkaException(KafkaError(KafkaError._TRANSPORT))
    for _ in range(20):
        fixture.clock.now += 100
        fixture.step(event(KafkaError._TRANSPORT), event(KafkaError.NOT_LEADER_FOR_PARTITION))
    assert fixture.ready == [True]


def test_the_first_error_that_ends_it_counts() -> None:
    """After a refused password, all brokers are "down"."""
    fixture = Fixture()
    fixture.run(1)
    fixture.reader.on_error(KafkaError(KafkaError._AUTHENTICATION, "wrong password"))
    fixture.reader.on_error(KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down"))
    with pytest.raises(KafkaException, match="wrong password"):
        fixture.step()


@pytest.mark.parametrize("code", [KafkaError._BAD_MSG, KafkaError.TOPIC_AUTHORIZATION_FAILED])
def test_a_partition_that_can_never_be_read_again_ends_it(code: int) -> None:
    """It would stand still in silence."""
    fixture = Fixture()
    fixture.run(1)
    with pytest.raises(KafkaException):
        fixture.step(event(code))


def test_progress_and_lag_are_told_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    """While it replays, and how far behind it is at any time."""
    caplog.set_level("INFO")
    fixture = Fixture()
    fixture.client.ends = {0: 4}
    fixture.run(1)
    fixture.clock.now += PROGRESS_SECONDS
    fixture.step(record(0, 7))
    assert fixture.reader.lag == 3
    assert "25% replayed (1 records, 0 of 1 partitions, " in caplog.messages[-1]
    fixture.step(record(3, 7))
    assert "replayed (2 records, 1 of 1 partitions, " in caplog.messages[-1]
    fixture.clock.now += 1
    fixture.step()
    assert fixture.reader.lag == 0


def test_a_replay_whose_partitions_are_unknown_says_what_it_waits_for(caplog: pytest.LogCaptureFixture) -> None:
    """Of no partitions nothing is replayed, and not all."""
    caplog.set_level("INFO")
    fixture = Fixture()
    fixture.asker.errors = {0: KafkaError(KafkaError.LEADER_NOT_AVAILABLE)}
    fixture.run(1)
    fixture.clock.now += PROGRESS_SECONDS
    fixture.step()
    assert caplog.messages[-1].startswith("Commit log log: not replayed yet, it waits for the ends of partitions [0]")


def test_fewer_records_are_taken_at_once_when_they_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the size of the first one, and of those of the batch before."""
    fixture = Fixture()
    fixture.client.ends = {0: 100}
    fixture.run(1)
    taken: list[int] = []
    consume = fixture.client.consume

    def count(count: int, timeout: float) -> list[Message]:
        taken.append(count)
        return consume(count, timeout)

    monkeypatch.setattr(fixture.client, "consume", count)
    large = Message(TOPIC, 0, 3, b"k" * 400_000, b"v" * 400_000, None, None, (TIMESTAMP_CREATE_TIME, 1))
    for messages in ([record(0, 7)], [record(1, 7)], [large], [record(4, 7)], [record(5, 7)]):
        fixture.step(*messages)
    assert taken == [BATCH, BATCH, BATCH_BYTES // 800_000, BATCH_BYTES // 800_001, BATCH]


def test_what_was_read_of_other_topics_is_dropped_once_the_topic_is_known() -> None:
    """And nothing is read again, since nothing of it was left out."""
    fixture = Fixture()
    fixture.client.ends = {0: 2}
    fixture.run(1)
    other = Message(TOPIC, 0, 1, b"other:0:g", b"5", None, None, (TIMESTAMP_CREATE_TIME, 1))
    fixture.step(record(0, 7), other)
    assert set(fixture.offsets._table.keys()) == {("events", 0), ("other", 0)}
    fixture.reader.follow("events")
    fixture.step(other)
    assert set(fixture.offsets._table.keys()) == {("events", 0)}
    assert (fixture.remote(), fixture.ready) == (7, [True])


def test_the_log_is_read_again_if_reports_of_the_topic_may_have_been_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Made-up partitions before it had used up the room."""
    monkeypatch.setattr(batch_decoder, "MAX_PARTITIONS", 2)
    fixture = Fixture()
    fixture.client.ends = {0: 3}
    fixture.run(1)
    others = [
        Message(TOPIC, 0, index, b"other:%d:g" % index, b"5", None, None, (TIMESTAMP_CREATE_TIME, 1))
        for index in range(2)
    ]
    fixture.step(*others, record(2, 7))
    assert (fixture.remote(), fixture.ready) == (None, [True])
    fixture.reader.follow("events")
    fixture.step()
    assert fixture.ready == [True, False]
    fixture.step()
    fixture.step(*others, record(2, 7))
    assert (fixture.remote(), fixture.ready) == (7, [True, False, True])
    assert fixture.offsets.published().keys() == {("events", 0)}


def test_a_follower_that_turns_to_another_topic_has_the_log_read_again() -> None:
    """Of that topic nothing was kept."""
    fixture = Fixture()
    fixture.reader.follow("other")
    fixture.client.ends = {0: 1}
    fixture.run(1)
    fixture.step(record(0, 7))
    assert (fixture.remote(), fixture.ready) == (None, [True])
    fixture.reader.follow("events")
    fixture.step()
    fixture.step()
    fixture.step(record(0, 7))
    assert (fixture.remote(), fixture.ready) == (7, [True, False, True])


def test_a_topic_that_is_no_commit_log_is_called_so_when_it_was_read(caplog: pytest.LogCaptureFixture) -> None:
    """Though it has fewer than a thousand records."""
    fixture = Fixture()
    fixture.client.ends = {0: 20}
    fixture.run(1)
    fixture.step(*[Message(TOPIC, 0, each, b"k", b"v", None, None, (TIMESTAMP_CREATE_TIME, 1)) for each in range(20)])
    assert fixture.ready == [True]
    assert any("Topic log is no commit log: none of the first 20 records" in line for line in caplog.messages)
