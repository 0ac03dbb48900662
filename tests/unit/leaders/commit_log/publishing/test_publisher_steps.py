"""`CommitLogPublisher` over several assignments: what each step starts from, and what it reports."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from arroyo.backends.kafka import KafkaPayload
from arroyo.backends.kafka.commit import CommitCodec
from arroyo.processing.strategies.run_task_with_multiprocessing import ChildProcessTerminated
from arroyo.types import FILTERED_PAYLOAD, BrokerValue, Message, Partition, Topic, Value
from arroyo.utils.retries import RetryException
from confluent_kafka import KafkaError

from arroyo_sync.core.errors import ConfigurationError
from arroyo_sync.core.log_throttle import LOG_INTERVAL_SECONDS
from arroyo_sync.core.state import PartitionKey
from arroyo_sync.kafka.errors import AGAIN_SECONDS
from arroyo_sync.kafka.topic_ids import FORGET_SECONDS
from arroyo_sync.leaders.commit_log.publishing import start_questions
from arroyo_sync.leaders.commit_log.publishing.publish_step import PublishStep
from arroyo_sync.leaders.commit_log.publishing.publisher import CommitLogPublisher
from tests.integration.cluster.waiting import wait_until
from tests.support.dead_worker import worker_dies_as_threads_start
from tests.support.fakes import Clock
from tests.support.leader import (
    COMMIT_LOG,
    EVENTS,
    NAIVE_UTC,
    SYSLOG_IS_GONE,
    Commits,
    ScriptedProducer,
    log_handler_that_raises,
    make_future,
)
from tests.support.threads import PATIENCE_SECONDS, BegunThreads

NO_ANSWER = KafkaError(KafkaError._TIMED_OUT)
REFUSED = KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED)
WRONG_PASSWORD = KafkaError(KafkaError._AUTHENTICATION, "kafka:9092/1: SASL authentication error: wrong password")
BAD_CERTIFICATE = KafkaError(KafkaError._SSL, "kafka:9092/1: SSL handshake failed: certificate verify failed")


class ScriptedAsker:
    """The brokers of the data topic: they answer when they are told to."""

    def __init__(self) -> None:
        self.ids: dict[str, str | KafkaError] = {"events": "topic-id"}
        self.commits: dict[PartitionKey, int | KafkaError | None] = {}
        """What it says of these; of others, what the group has committed."""
        self.group = Commits()
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.may_tell_ids = threading.Event()
        self.may_tell_ids.set()
        self.is_asked = threading.Event()
        self.is_stopped = threading.Event()
        self.asked: list[Collection[PartitionKey]] = []
        self.asked_ids: list[list[str]] = []
        self.ids_asked = threading.Semaphore(0)
        self.settings: list[Mapping[str, Any]] = []
        """What each client was made with."""
        self.refuses: Exception | None = None
        self.told: KafkaError | None = None
        """What its clients tell by the way, at each question."""
        self.on_error: Callable[[KafkaError], None] = lambda error: None

    def tell(self) -> None:
        if self.told is not None:
            self.on_error(self.told)

    def topic_ids(self, topics: Collection[str], timeout: float) -> dict[str, str | KafkaError]:
        assert timeout == start_questions.TIMEOUT_SECONDS
        if self.refuses is not None:
            raise self.refuses
        self.asked_ids.append(sorted(topics))
        self.ids_asked.release()
        self.tell()
        assert self.may_tell_ids.wait(PATIENCE_SECONDS)
        return {topic: self.ids[topic] for topic in topics}

    def committed(
        self, group: str, partitions: Collection[PartitionKey], timeout: float
    ) -> dict[PartitionKey, int | KafkaError | None]:
        assert (group, timeout) == ("writers", start_questions.TIMEOUT_SECONDS)
        self.asked.append(sorted(partitions))
        answers: dict[PartitionKey, int | KafkaError | None] = {}
        for key in partitions:
            history = self.group.history.get(Partition(Topic(key[0]), key[1]), [None])
            answers[key] = self.commits.get(key, history[-1])
        self.is_asked.set()
        self.tell()
        assert self.may_answer.wait(PATIENCE_SECONDS)
        return answers

    def stop(self, timeout: float) -> None:
        assert timeout == start_questions.TIMEOUT_SECONDS
        self.is_stopped.set()


class TellingProducer(ScriptedProducer):
    """One that shows its settings."""

    def get_config(self) -> Mapping[str, Any]:
        return {"bootstrap.servers": "nowhere:1"}


class Leader:
    """A publisher and what Arroyo and the brokers are to it."""

    def __init__(
        self,
        asker: ScriptedAsker,
        *,
        can_ask: bool = True,
        shows_settings: bool = False,
        knows_id: bool = True,
        **options: Any,
    ) -> None:
        self.clock = Clock()
        self.commits = Commits()
        self.asker = asker
        asker.group = self.commits
        self.producer = (TellingProducer if shows_settings else ScriptedProducer)(self.commits, make_future)
        self.producer.delivers_at_once = True
        options = {"interval": 10.0, "heartbeat": 100.0, "clock": self.clock, **options}
        if can_ask:
            options["data_configuration"] = {"bootstrap.servers": "nowhere:1"}
        self.publisher = CommitLogPublisher(self.producer, COMMIT_LOG, "writers", **options)
        if self.publisher._questions is not None and knows_id:
            self.publisher._questions.topic_ids["events"] = b"topic-id"  # from an assignment before
            self.publisher._questions._topics["events"] = None
            asker.is_stopped.set()
        self.steps: list[PublishStep] = []

    @property
    def topic_ids(self) -> Mapping[str, bytes]:
        """The topics' ids that its reports carry by now."""
        questions = self.publisher._shared.questions
        assert questions is not None
        return questions.topic_ids

    def assign(self, positions: Mapping[int, int]) -> None:
        """Arroyo makes the step anew; the mapping is its consumer's."""
        partitions = {EVENTS[index]: offset for index, offset in positions.items()}
        self.steps.append(self.publisher.step(self.commits, partitions))

    @property
    def step(self) -> PublishStep:
        return self.steps[-1]

    def commit(self, partition: int, next_offset: int) -> None:
        self.step.submit(Message(BrokerValue(b"", EVENTS[partition], next_offset - 1, NAIVE_UTC)))

    def after(self, seconds: float) -> list[tuple[int, int]]:
        """What `poll` publishes when so much time has gone by."""
        self.clock.now += seconds
        self.step.poll()
        return self.producer.take()

    def end(self) -> list[tuple[int, int]]:
        """What is published at the end of an assignment."""
        self.step.close()
        self.step.join(10.0)
        return sorted(self.producer.take())

    def wait_for_answer(self) -> None:
        """Until the brokers have answered whatever was asked."""
        assert self.asker.is_stopped.wait(PATIENCE_SECONDS)
        self.asker.is_stopped.clear()

    def end_questions(self) -> None:
        """End the assignment, and wait until nothing is asked or told any more."""
        self.step.terminate()
        questions = self.publisher._questions
        assert questions is not None
        wait_until(lambda: questions._thread is None, PATIENCE_SECONDS, "the questions to end")

    def be_assigned_in_vain(self, positions: Mapping[int, int]) -> list[tuple[int, int]]:
        """An assignment that ends before the group has formed, so that its starts can't be committed; what that
        publishes."""
        self.commits.error = RuntimeError("the group is forming")
        self.assign(positions)
        published = self.end()
        self.wait_for_answer()
        self.commits.error = None
        return published


@pytest.fixture
def asker(monkeypatch: pytest.MonkeyPatch) -> ScriptedAsker:
    asker = ScriptedAsker()

    def make(configuration: Mapping[str, Any], on_error: Callable[[KafkaError], None]) -> ScriptedAsker:
        on_error(NO_ANSWER)  # what a client tells while its brokers are away ends nothing
        asker.settings.append(configuration)
        asker.on_error = on_error
        return asker

    monkeypatch.setattr(start_questions, "Asker", make)
    monkeypatch.setattr(start_questions, "RETRY_SECONDS", 0.001)
    return asker


@pytest.fixture
def make_leader(asker: ScriptedAsker) -> Iterator[Callable[..., Leader]]:
    leaders: list[Leader] = []

    def make(**options: Any) -> Leader:
        leaders.append(Leader(asker, **options))
        return leaders[-1]

    yield make
    asker.may_answer.set()
    asker.may_tell_ids.set()
    for leader in leaders:
        for step in leader.steps:
            step.terminate()
    for thread in question_threads():  # or they ask the next test's brokers
        thread.join(PATIENCE_SECONDS)


def question_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "arroyo-sync-leader-questions"]


def headers(payload: KafkaPayload) -> dict[str, bytes]:
    return dict(payload.headers)


def test_a_new_partition_is_committed_where_it_starts_and_then_reported(make_leader: Callable[..., Leader]) -> None:
    """So an idle one is never silent: after a restart, at the first roll-out, in place of another member."""
    leader = make_leader()
    leader.assign({0: 10, 1: 0})
    assert leader.commits.calls == [({EVENTS[0]: 10, EVENTS[1]: 0}, True)]
    assert leader.producer.take() == [(0, 10), (1, 0)]
    assert leader.after(99.0) == []
    assert sorted(leader.after(1.0)) == [(0, 10), (1, 0)]


def test_where_it_starts_is_not_published_unless_it_was_committed(
    make_leader: Callable[..., Leader], caplog: pytest.LogCaptureFixture
) -> None:
    """What commit raises doesn't end the assignment; it is tried again once a second, and logged if that fails for
    long: while its group forms, a member that is well may not commit."""
    leader = make_leader()
    leader.commits.error = RuntimeError("no coordinator")
    leader.assign({0: 10})
    for _ in range(4):
        assert leader.after(1.0) == []
    assert caplog.messages == []
    assert leader.after(1.0) == []
    text = "Group writers can't commit where it starts, it is tried again while it has the partitions: RuntimeError: %s"
    assert caplog.messages == [text % "no coordinator"]
    for _ in range(59):
        leader.after(1.0)
    assert len(caplog.messages) == 1
    leader.after(1.0)
    assert len(caplog.messages) == 2, "once a minute"
    leader.commits.error = None
    assert leader.after(0.5) == []
    assert leader.after(0.5) == [(0, 10)]
    assert caplog.messages[2:] == ["Group writers has committed where it starts"]
    assert leader.commits.calls == [({EVENTS[0]: 10}, True)]
    leader.after(1.0)
    assert leader.commits.calls[1:] == [({}, False)], "from then on Arroyo commits, by its policy"


def test_a_start_that_could_not_be_committed_does_not_undo_a_later_commit(make_leader: Callable[..., Leader]) -> None:
    """The message's offset is committed, and the start's no more; another partition's start still is."""
    leader = make_leader()
    leader.commits.error = RuntimeError("no coordinator")
    leader.assign({0: 10, 1: 20})
    leader.commits.error = None
    leader.commit(0, 11)
    assert leader.producer.take() == [(0, 11)]
    assert leader.after(1.0) == [(1, 20)]
    assert leader.commits.history == {EVENTS[0]: [11], EVENTS[1]: [20]}


def test_a_start_that_could_not_be_committed_ends_no_pipeline(make_leader: Callable[..., Leader]) -> None:
    """A member that was missed may not commit; Arroyo tries so once more at the end of an assignment."""
    leader = make_leader(can_ask=False)
    leader.commits.error = RuntimeError("unknown member")
    leader.assign({0: 10})
    assert leader.end() == []
    leader.commits.error = None
    leader.assign({0: 17})
    assert leader.commits.calls == [], "it may have been retained"
    leader.commit(0, 11)
    assert leader.producer.take() == [(0, 11)]


def test_a_start_that_could_not_be_committed_is_told_of_at_the_end_as_well(
    make_leader: Callable[..., Leader], caplog: pytest.LogCaptureFixture
) -> None:
    """With the last cause: nobody polls between the last try and the end."""
    leader = make_leader(can_ask=False)
    leader.commits.error = RuntimeError("the group is forming")
    leader.assign({0: 10})
    leader.clock.now += 5.0
    leader.commits.error = RuntimeError("unknown member")
    caplog.clear()
    assert leader.end() == []
    assert [line.rpartition("partitions: ")[2] for line in caplog.messages] == ["RuntimeError: unknown member"]


@pytest.mark.parametrize("committed", [None, 14])
def test_a_start_that_could_not_be_committed_before_a_rebalance_is_committed_after_it(
    committed: int | None, make_leader: Callable[..., Leader], asker: ScriptedAsker
) -> None:
    """Unless somebody else has committed meanwhile: by then the mapping may be past work in flight."""
    asker.commits["events", 0] = committed
    leader = make_leader()
    leader.commits.by_others[EVENTS[0]] = [14]
    assert leader.be_assigned_in_vain({0: 10}) == []
    leader.assign({0: 17})
    leader.wait_for_answer()
    reports = [*leader.after(10.0), *leader.after(10.0)]
    assert reports == [(0, 10 if committed is None else committed)]
    assert leader.commits.history == ({EVENTS[0]: [10]} if committed is None else {})


def test_a_start_that_is_committed_after_a_rebalance_passes_nothing_that_is_read_from_now_on(
    make_leader: Callable[..., Leader], asker: ScriptedAsker
) -> None:
    """The topic was created again meanwhile, so the partition begins at less."""
    asker.commits["events", 0] = None
    leader = make_leader()
    leader.be_assigned_in_vain({0: 423})
    leader.assign({0: 7})
    leader.wait_for_answer()
    assert [*leader.after(10.0), *leader.after(10.0)] == [(0, 7)]
    assert leader.commits.history == {EVENTS[0]: [7]}


def test_a_start_that_the_pipeline_has_committed_past_is_not_committed_again(
    make_leader: Callable[..., Leader], asker: ScriptedAsker
) -> None:
    """The brokers' answer that nothing was committed is from before."""
    asker.commits["events", 0] = None
    leader = make_leader()
    leader.be_assigned_in_vain({0: 10})
    leader.assign({0: 10})
    leader.wait_for_answer()
    assert leader.step.uncommitted_starts == {EVENTS[0]: 10}
    leader.commit(0, 11)
    assert leader.step.uncommitted_starts == {}
    assert leader.producer.take() == [(0, 11)]
    assert [*leader.after(10.0), *leader.after(10.0)] == []
    assert leader.commits.history == {EVENTS[0]: [11]}
    leader.commits.error = RuntimeError("the group is forming")
    with pytest.raises(RuntimeError, match="forming"):
        leader.end()


def test_a_dead_worker_of_the_pipeline_is_no_failed_commit(make_leader: Callable[..., Leader]) -> None:
    """Arroyo's handler of SIGCHLD raises wherever the processor's thread is; kept from it, it waits for that worker."""
    leader = make_leader()
    leader.commits.error = ChildProcessTerminated(17)
    with pytest.raises(ChildProcessTerminated):
        leader.assign({0: 10})
    leader.commits.error = RuntimeError("no coordinator")
    leader.assign({0: 10})
    leader.commits.error = ChildProcessTerminated(17)
    with pytest.raises(ChildProcessTerminated):
        leader.end()


def test_what_the_last_of_arroyo_s_tries_raised_is_told(
    make_leader: Callable[..., Leader], caplog: pytest.LogCaptureFixture
) -> None:
    """Arroyo's own exception has no text, and was the usual one while a coordinator is away."""
    leader = make_leader()
    leader.commits.error = RetryException()
    leader.commits.error.__cause__ = RuntimeError("no coordinator")
    leader.assign({0: 10})
    leader.after(5.0)
    assert [line.rpartition("partitions: ")[2] for line in caplog.messages] == ["RuntimeError: no coordinator"]


def test_another_start_that_can_not_be_committed_is_told_after_a_while_of_its_own(
    make_leader: Callable[..., Leader], asker: ScriptedAsker, caplog: pytest.LogCaptureFixture
) -> None:
    """One was committed meanwhile, so the group was well."""
    asker.commits["events", 0] = None
    leader = make_leader()
    leader.be_assigned_in_vain({0: 10})
    leader.clock.now += 100.0
    leader.assign({0: 10, 1: 0})
    leader.wait_for_answer()
    assert leader.after(0.0) == [(1, 0)]
    leader.commits.error = RuntimeError("the group is forming again")
    for _ in range(5):
        assert leader.after(1.0) == []
    assert caplog.messages == []
    leader.after(1.0)
    assert len(caplog.messages) == 1
    assert caplog.messages[0].endswith("forming again")


def test_what_was_not_confirmed_is_told_at_each_end(
    make_leader: Callable[..., Leader], caplog: pytest.LogCaptureFixture
) -> None:
    """A process that ended within a minute of a rebalance said nothing of its last offsets. The same are told once a
    minute."""
    leader = make_leader()
    leader.producer.delivers_at_once = False
    for offset, lines in [(11, 1), (11, 1), (12, 2)]:
        leader.assign({0: 10})
        leader.commit(0, offset)
        leader.step.join(0.0)
        assert len(caplog.messages) == lines
    assert caplog.messages[1].endswith(": events[0] offset 12")


MOOT = "Where group writers starts needn't be committed any more: it commits messages there, or has lost the partitions"


@pytest.fixture
def questions_clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the clock of the leader's questions shows, in its one item."""
    now = [0.0]
    monkeypatch.setattr(start_questions, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


@pytest.fixture
def unable_leader(make_leader: Callable[..., Leader], asker: ScriptedAsker, caplog: pytest.LogCaptureFixture) -> Leader:
    """It could not commit where two partitions start, has told that, and can commit now."""
    asker.commits = {("events", 0): None, ("events", 1): None}
    leader = make_leader()
    leader.commits.error = RuntimeError("no coordinator")
    leader.assign({0: 10, 1: 0})
    leader.after(5.0)
    assert len(caplog.messages) == 1
    leader.commits.error = None
    caplog.clear()
    return leader


def test_messages_take_back_that_a_start_could_not_be_committed(
    unable_leader: Leader, caplog: pytest.LogCaptureFixture
) -> None:
    """Once there is one in each partition. Whoever was told of it waited for the end of that in vain."""
    unable_leader.commit(0, 11)
    assert caplog.messages == []
    unable_leader.commit(1, 1)
    assert caplog.messages == [MOOT]


def end_in_vain(leader: Leader) -> None:
    leader.commits.error = RuntimeError("unknown member")
    leader.end()
    leader.commits.error = None


def test_the_next_assignment_takes_back_that_a_start_could_not_be_committed(
    unable_leader: Leader, caplog: pytest.LogCaptureFixture
) -> None:
    """It commits that."""
    end_in_vain(unable_leader)
    unable_leader.wait_for_answer()
    unable_leader.assign({0: 10, 1: 0})
    assert caplog.messages == []
    unable_leader.wait_for_answer()
    assert sorted([*unable_leader.after(0.0), *unable_leader.after(0.0)]) == [(0, 10), (1, 0)]
    assert caplog.messages == ["Group writers has committed where it starts"]


def test_a_lost_partition_takes_back_that_its_start_could_not_be_committed(
    unable_leader: Leader, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever has it now commits that."""
    end_in_vain(unable_leader)
    unable_leader.assign({})
    assert caplog.messages == [MOOT]


def test_another_member_takes_back_that_a_start_could_not_be_committed(
    unable_leader: Leader, asker: ScriptedAsker, caplog: pytest.LogCaptureFixture
) -> None:
    """It had the partitions meanwhile."""
    end_in_vain(unable_leader)
    unable_leader.wait_for_answer()
    asker.commits = {("events", 0): 14, ("events", 1): 4}
    unable_leader.commits.by_others = {EVENTS[0]: [14], EVENTS[1]: [4]}
    unable_leader.assign({0: 17, 1: 7})
    assert caplog.messages == []
    unable_leader.wait_for_answer()
    unable_leader.after(0.0)
    assert caplog.messages == [MOOT]


def test_a_start_that_can_not_be_committed_after_a_rebalance_is_told_after_a_while_of_its_own(
    unable_leader: Leader, caplog: pytest.LogCaptureFixture
) -> None:
    """A group that forms anew is no failure."""
    end_in_vain(unable_leader)
    unable_leader.wait_for_answer()
    unable_leader.clock.now += 100.0
    unable_leader.commits.error = RuntimeError("the group is forming")
    unable_leader.assign({0: 10, 1: 0, 2: 3})
    unable_leader.after(4.0)
    assert caplog.messages == []
    unable_leader.after(1.0)
    assert len(caplog.messages) == 1


def test_what_commit_raises_for_messages_comes_out_at_the_end(make_leader: Callable[..., Leader]) -> None:
    """Also while a start is still to be committed."""
    leader = make_leader(can_ask=False)
    leader.commits.error = RuntimeError("unknown member")
    leader.assign({0: 10, 1: 10})
    leader.commits.error = None
    leader.commit(0, 11)
    leader.commits.error = RuntimeError("unknown member")
    with pytest.raises(RuntimeError, match="unknown member"):
        leader.end()


def test_a_retained_partition_goes_on_with_what_was_last_committed(
    make_leader: Callable[..., Leader], asker: ScriptedAsker
) -> None:
    """KIP-848: the mapping is past the work in flight, so it is neither committed nor published."""
    leader = make_leader()
    leader.assign({0: 0, 1: 0})
    leader.commit(0, 10)
    leader.after(10.0)
    assert leader.end() == [(0, 10), (1, 0)]
    asker.commits["events", 0] = 10
    leader.wait_for_answer()
    leader.assign({0: 17})
    leader.wait_for_answer()
    assert leader.after(10.0) == [(0, 10)]
    assert leader.commits.history == {EVENTS[0]: [0, 10], EVENTS[1]: [0]}
    assert leader.after(99.0) == []
    assert leader.after(1.0) == [(0, 10)], "the heartbeat"


def test_a_retained_partition_without_work_in_flight_needs_no_question(
    make_leader: Callable[..., Leader], asker: ScriptedAsker
) -> None:
    """It is where the mapping says, and isn't committed again."""
    leader = make_leader()
    leader.assign({0: 0})
    leader.commit(0, 10)
    leader.after(10.0)
    leader.end()
    leader.assign({0: 10, 1: 5})
    assert leader.producer.take() == [(1, 5)]
    assert leader.commits.history == {EVENTS[0]: [0, 10], EVENTS[1]: [5]}
    assert (0, 10) in leader.after(100.0)
    assert asker.asked == []


def test_a_partition_that_was_elsewhere_starts_from_the_mapping(make_leader: Callable[..., Leader]) -> None:
    """A at 10, B to 20, back to A, idle: a step in between didn't have it."""
    leader = make_leader(can_ask=False)
    leader.assign({0: 10, 1: 0})
    leader.end()
    leader.assign({1: 0})
    leader.end()
    leader.assign({0: 20, 1: 0})
    assert leader.producer.take() == [(0, 20)]
    assert leader.commits.history[EVENTS[0]] == [10, 20]


def test_an_only_partition_that_was_elsewhere_starts_from_what_the_group_has_committed(
    make_leader: Callable[..., Leader], asker: ScriptedAsker
) -> None:
    """A full revoke makes no step in between, so the brokers are asked; nothing is committed meanwhile."""
    leader = make_leader()
    leader.assign({0: 10})
    leader.end()
    leader.wait_for_answer()
    asker.commits["events", 0] = 20
    leader.commits.by_others[EVENTS[0]] = [20]
    leader.assign({0: 20})
    leader.wait_for_answer()
    assert leader.after(10.0) == [(0, 20)]
    assert leader.commits.history[EVENTS[0]] == [10]


def test_what_is_in_question_is_silent_until_it_is_answered_or_committed(
    make_leader: Callable[..., Leader], asker: ScriptedAsker
) -> None:
    """An answer that fails is asked for again; one that comes after a commit is late."""
    leader = make_leader()
    leader.assign({0: 10, 1: 10})
    leader.end()
    leader.wait_for_answer()
    asker.may_answer.clear()
    asker.commits = {("events", 0): NO_ANSWER, ("events", 1): 20}
    leader.commits.by_others[EVENTS[0]] = [20]
    leader.assign({0: 20, 1: 20})
    assert asker.is_asked.wait(PATIENCE_SECONDS)
    assert leader.after(1000.0) == []
    leader.commit(1, 21)
    assert leader.producer.take() == [(1, 21)]
    asker.commits["events", 0] = 20
    asker.may_answer.set()
    leader.wait_for_answer()
    assert len(asker.asked) == 2
    assert leader.after(1.0) == [(0, 20)]
    assert leader.commits.history == {EVENTS[0]: [10], EVENTS[1]: [10, 21]}
    assert leader.end() == [(0, 20), (1, 21)]
    assert asker.asked_ids == [], "nothing is asked that is known"


def test_an_answer_to_an_earlier_assignments_question_counts_no_more(
    make_leader: Callable[..., Leader], asker: ScriptedAsker
) -> None:
    """Somebody else may have committed since."""
    leader = make_leader()
    leader.assign({0: 10})
    leader.end()
    leader.wait_for_answer()
    asker.may_answer.clear()
    asker.commits["events", 0] = 20
    leader.assign({0: 20})
    assert asker.is_asked.wait(PATIENCE_SECONDS)
    leader.end()
    asker.commits["events", 0] = 30
    leader.commits.by_others[EVENTS[0]] = [30]
    leader.assign({0: 30})
    asker.may_answer.set()
    leader.wait_for_answer()
    assert leader.after(10.0) == [(0, 30)]


def test_a_group_that_has_committed_nothing_is_not_reported(
    make_leader: Callable[..., Leader], asker: ScriptedAsker
) -> None:
    """Its commits were deleted, or have expired: the first commit tells."""
    leader = make_leader()
    leader.assign({0: 10})
    leader.end()
    leader.wait_for_answer()
    asker.commits["events", 0] = None
    leader.assign({0: 20})
    leader.wait_for_answer()
    assert leader.after(1000.0) == []
    leader.commit(0, 21)
    assert leader.producer.take() == [(0, 21)]


def test_a_step_that_is_made_before_the_last_one_has_ended_is_warned_about(
    make_leader: Callable[..., Leader], caplog: pytest.LogCaptureFixture
) -> None:
    """Two processors, or a step that doesn't join the next: nothing that might be retained is committed."""
    leader = make_leader(can_ask=False)
    leader.assign({0: 10})
    caplog.clear()
    leader.assign({0: 17, 1: 0})
    assert caplog.messages == [
        "The step of group writers was made anew before the last one was joined, which publishes nothing more: make a "
        "CommitLogPublisher for each StreamProcessor, and let every step join the next one"
    ]
    assert leader.steps[0].has_ended
    assert leader.commits.history == {EVENTS[0]: [10], EVENTS[1]: [0]}
    assert leader.producer.take() == [(0, 10), (1, 0)]


@pytest.mark.parametrize("end", [PublishStep.terminate, PublishStep.join])
def test_the_end_of_a_step_that_has_been_replaced_ends_nothing_else(
    end: Callable[[PublishStep], None], make_leader: Callable[..., Leader]
) -> None:
    """As a step that forgot to join the next one, and does so in its destructor: the new one publishes, and asks."""
    leader = make_leader(knows_id=False)
    leader.asker.may_tell_ids.clear()
    leader.assign({0: 10})
    leader.assign({0: 10})
    end(leader.steps[0])
    leader.asker.may_tell_ids.set()
    leader.wait_for_answer()
    leader.commit(0, 11)  # while the first one is said again with the id, perhaps
    wait_until(lambda: (0, 11) in leader.after(10.0), PATIENCE_SECONDS, "the commit to be published")
    assert leader.publisher._writer._is_active


def test_what_is_not_assigned_any_more_has_no_heartbeat_where_a_step_was_made_too_early(
    make_leader: Callable[..., Leader],
) -> None:
    """Somebody else has it, and is further: each heartbeat would set the followers back."""
    leader = make_leader(can_ask=False)
    leader.assign({0: 10, 1: 20})
    leader.producer.take()
    leader.assign({1: 20})
    assert leader.after(10.0) == []
    assert leader.after(100.0) == [(1, 20)]
    assert leader.end() == [(1, 20)]


def test_reports_carry_the_topics_id_once_it_is_known(make_leader: Callable[..., Leader], asker: ScriptedAsker) -> None:
    """As the process first saw it: a topic that is created anew under a living leader has another one."""
    leader = make_leader(knows_id=False)
    leader.assign({0: 10})
    leader.wait_for_answer()
    asker.ids["events"] = "another-id"
    leader.commit(0, 11)
    leader.after(10.0)
    leader.end()
    leader.assign({1: 0})
    assert headers(leader.producer.payloads[-1]) == {"topic_id": b"topic-id"}
    assert headers(leader.producer.payloads[-2]) == {"topic_id": b"topic-id"}
    commit = CommitCodec().decode(leader.producer.payloads[-2])
    assert (commit.group, commit.partition, commit.offset) == ("writers", EVENTS[0], 11), "Arroyo's codec reads it"


def test_what_was_reported_before_the_id_was_known_is_reported_again_with_it(
    make_leader: Callable[..., Leader], asker: ScriptedAsker
) -> None:
    """At once, whoever polls: a leader may hang before its next heartbeat, while its topic is created again."""
    asker.may_tell_ids.clear()
    leader = make_leader(knows_id=False)
    leader.assign({0: 10, 1: 0})
    assert leader.after(0.0) == [(0, 10), (1, 0)]
    assert [headers(each) for each in leader.producer.payloads] == [{}, {}]
    asker.may_tell_ids.set()
    wait_until(lambda: len(leader.producer.records) == 2, PATIENCE_SECONDS, "both to be reported again")
    assert leader.producer.take() == [(0, 10), (1, 0)]
    assert [headers(each) for each in leader.producer.payloads[2:]] == [{"topic_id": b"topic-id"}] * 2
    assert leader.after(99.0) == []


def test_an_id_that_comes_between_two_assignments_is_said_with_the_next_one(
    make_leader: Callable[..., Leader], asker: ScriptedAsker
) -> None:
    """Of a partition that comes back as it was, which nothing else would report before its heartbeat."""
    asker.may_tell_ids.clear()
    leader = make_leader(knows_id=False)
    leader.assign({0: 10})
    assert leader.end() == [(0, 10), (0, 10)]
    asker.may_tell_ids.set()
    leader.wait_for_answer()
    assert leader.producer.take() == []
    leader.assign({0: 10})
    wait_until(lambda: bool(leader.producer.records), PATIENCE_SECONDS, "it to be reported again")
    assert headers(leader.producer.payloads[-1]) == {"topic_id": b"topic-id"}


def test_an_id_that_comes_while_a_report_is_handed_over_is_said_as_well(make_leader: Callable[..., Leader]) -> None:
    """It was made without; and who tells of the id finds nothing to repeat yet."""
    leader = make_leader(knows_id=False, can_ask=False)
    ids: Any = leader.publisher._writer._topic_ids

    def tell() -> None:
        ids["events"] = b"topic-id"
        leader.producer.on_produce = None
        leader.publisher._writer.repeat_with_ids()

    leader.producer.on_produce = tell
    leader.assign({0: 10})
    wait_until(lambda: len(leader.producer.payloads) == 2, PATIENCE_SECONDS, "it to be reported again")
    assert [headers(each) for each in leader.producer.payloads] == [{}, {"topic_id": b"topic-id"}]


@pytest.mark.parametrize(
    ("committed", "why"),
    [
        pytest.param(10, None, id="as far"),
        pytest.param(
            11,
            "the group has come to 10 in partition 0, and has committed 11 there, as on a cluster that it has left",
            id="further",
        ),
        pytest.param(9, "the group began at 10 in partition 0, and hasn't committed that there", id="less"),
        pytest.param(None, "the group began at 10 in partition 0, and hasn't committed that there", id="nothing"),
        pytest.param(
            NO_ANSWER, f"what the group has committed there can't be asked ({NO_ANSWER.str()})", id="not known"
        ),
    ],
)
def test_an_id_is_that_of_the_topic_in_which_the_group_has_committed_its_beginning(
    make_leader: Callable[..., Leader],
    asker: ScriptedAsker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    committed: int | KafkaError | None,
    why: str | None,
) -> None:
    """The topic may have been created again before the brokers were asked, while the process was stopped; or it is
    another cluster's of that name. Reports of an old topic that carry the new one's id would be believed."""
    monkeypatch.setattr(start_questions, "ID_SECONDS", 0.0)
    asker.commits["events", 0] = committed
    leader = make_leader(knows_id=False)
    leader.assign({0: 10, 1: 0})
    leader.wait_for_answer()
    leader.end()
    assert headers(leader.producer.payloads[-1]) == ({} if why else {"topic_id": b"topic-id"})
    told = "The id of topic events isn't known, so the commit reports of group writers don't carry it"
    assert [line.startswith(told) and line.endswith(f": {why}") for line in caplog.messages] == ([True] if why else [])


def test_a_group_that_begins_an_empty_partition_is_said_to_begin_at_0(
    make_leader: Callable[..., Leader],
    asker: ScriptedAsker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its first commit of all isn't there."""
    monkeypatch.setattr(start_questions, "ID_SECONDS", 0.0)
    asker.commits["events", 0] = None
    leader = make_leader(knows_id=False)
    leader.assign({0: 0})
    leader.wait_for_answer()
    leader.end()
    assert ": the group began at 0 in partition 0, and hasn't committed that there" in caplog.text


def test_each_topic_s_id_waits_for_its_own_beginnings(make_leader: Callable[..., Leader], asker: ScriptedAsker) -> None:
    """What the group has committed of another topic says nothing of it."""
    asker.ids["others"] = "others-id"
    asker.commits["others", 0] = None
    leader = make_leader(knows_id=False)
    others = Partition(Topic("others"), 0)
    leader.steps.append(leader.publisher.step(leader.commits, {EVENTS[0]: 10, others: 5}))
    wait_until(lambda: asker.asked_ids[-1:] == [["others"]], PATIENCE_SECONDS, "the one to be known")
    assert leader.topic_ids == {"events": b"topic-id"}
    asker.commits["others", 0] = 5
    leader.wait_for_answer()
    assert leader.topic_ids == {"events": b"topic-id", "others": b"others-id"}


def test_an_id_is_not_believed_where_the_group_has_committed_nothing_of_what_is_in_question(
    make_leader: Callable[..., Leader], asker: ScriptedAsker
) -> None:
    """The first assignment ended before its start was committed: now the brokers decide where it is."""
    asker.commits["events", 0] = None
    leader = make_leader(knows_id=False)
    leader.commits.error = RuntimeError("the group is forming")
    leader.assign({0: 10})
    leader.end()
    leader.assign({0: 10})
    wait_until(lambda: len(asker.asked) > 3, PATIENCE_SECONDS, "it to be asked for again")
    assert leader.topic_ids == {}
    asker.commits["events", 0] = 10
    leader.wait_for_answer()
    assert leader.topic_ids == {"events": b"topic-id"}


def test_of_a_partition_in_question_any_commit_makes_the_id_believed(
    make_leader: Callable[..., Leader], asker: ScriptedAsker
) -> None:
    """Under KIP-848 the mapping holds a position that is past what is committed."""
    asker.may_tell_ids.clear()
    leader = make_leader(knows_id=False)
    leader.assign({0: 10})
    leader.end()
    asker.commits["events", 0] = 15
    leader.commits.by_others[EVENTS[0]] = [15]
    leader.assign({0: 20})
    asker.may_tell_ids.set()
    leader.wait_for_answer()
    assert leader.topic_ids == {"events": b"topic-id"}


def test_the_time_for_an_id_does_not_end_while_nothing_is_assigned(
    make_leader: Callable[..., Leader],
    asker: ScriptedAsker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A rebalance may take longer. Nobody can commit meanwhile."""
    asker.commits["events", 0] = None
    leader = make_leader(knows_id=False)
    leader.assign({0: 10})
    leader.end()
    with monkeypatch.context() as patched:
        patched.setattr(start_questions, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + 61.0))
        leader.wait_for_answer()
    asker.commits["events", 0] = 10
    leader.assign({0: 10})
    leader.wait_for_answer()
    assert (leader.topic_ids, caplog.messages) == ({"events": b"topic-id"}, [])


def test_an_id_that_comes_as_the_step_ends_leaves_no_dead_thread_behind(make_leader: Callable[..., Leader]) -> None:
    """The next step would take it for the one that publishes."""
    leader = make_leader(knows_id=False, can_ask=False)
    writer = leader.publisher._writer
    ids: Any = writer._topic_ids

    def end() -> None:
        leader.producer.on_produce = None
        ids["events"] = b"topic-id"
        writer._thread = None
        writer.stop()

    leader.producer.on_produce = end
    leader.assign({0: 10})
    assert writer._thread is None


def test_an_id_waits_for_the_commit_of_the_beginning(make_leader: Callable[..., Leader], asker: ScriptedAsker) -> None:
    """As under auto-commit, which comes seconds later; and another partition's says nothing of it."""
    asker.commits["events", 0] = None
    leader = make_leader(knows_id=False)
    leader.assign({0: 10, 1: 5})
    wait_until(lambda: len(asker.asked) > 2, PATIENCE_SECONDS, "it to be asked for again")
    assert leader.topic_ids == {}
    asker.commits["events", 0] = 10
    leader.wait_for_answer()
    assert leader.topic_ids == {"events": b"topic-id"}


@pytest.mark.parametrize("is_configured", [True, False], ids=["told where", "by the producer's settings"])
def test_without_an_answer_reports_carry_no_id_and_that_is_said(
    is_configured: bool,
    make_leader: Callable[..., Leader],
    asker: ScriptedAsker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """After a minute nobody asks any longer. What was given isn't advised to be given."""
    monkeypatch.setattr(start_questions, "ID_SECONDS", 0.0)
    asker.ids["events"] = NO_ANSWER
    leader = make_leader(knows_id=False, can_ask=is_configured, shows_settings=not is_configured)
    leader.assign({0: 10})
    leader.wait_for_answer()
    leader.end()
    assert [headers(each) for each in leader.producer.payloads] == [{}, {}]
    assert caplog.messages == [
        "The id of topic events isn't known, so the commit reports of group writers don't carry it, and followers "
        f"can't tell by it that the topic was created anew: {NO_ANSWER.str()}"
        + ("" if is_configured else ". If its cluster isn't the producer's, give CommitLogPublisher data_configuration")
    ]
    assert len(asker.asked_ids) == 1


def test_an_id_that_could_not_be_asked_at_first_is_asked_for_again(
    make_leader: Callable[..., Leader], asker: ScriptedAsker, caplog: pytest.LogCaptureFixture
) -> None:
    """For a minute, by one thread, whatever is assigned meanwhile; an id that is known is asked for no more."""
    asker.ids = {"events": NO_ANSWER, "others": "others-id"}
    leader = make_leader(knows_id=False)
    leader.assign({0: 10})
    wait_until(lambda: len(asker.asked_ids) >= 3, PATIENCE_SECONDS, "the id to be asked for again")
    leader.end()
    both = {EVENTS[0]: 10, Partition(Topic("others"), 0): 0}
    leader.steps.append(leader.publisher.step(leader.commits, both))
    wait_until(lambda: ["events", "others"] in asker.asked_ids, PATIENCE_SECONDS, "the other topic's id")
    wait_until(lambda: asker.asked_ids[-3:] == [["events"]] * 3, PATIENCE_SECONDS, "what is known to be left out")
    assert [thread.daemon for thread in question_threads()] == [True]
    asker.ids["events"] = "topic-id"
    leader.wait_for_answer()
    assert leader.topic_ids == {"events": b"topic-id", "others": b"others-id"}
    assert caplog.messages == []


def test_what_is_new_is_asked_at_once_and_what_was_not_answered_after_a_while(
    make_leader: Callable[..., Leader], asker: ScriptedAsker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that is away isn't asked without end, and a rebalance doesn't wait for that while."""
    monkeypatch.setattr(start_questions, "RETRY_SECONDS", 3_600.0)
    asker.ids["events"] = NO_ANSWER
    leader = make_leader(knows_id=False)
    leader.assign({0: 10})
    assert asker.ids_asked.acquire(timeout=PATIENCE_SECONDS)
    assert not asker.ids_asked.acquire(timeout=0.05)
    leader.end()
    assert asker.ids_asked.acquire(timeout=PATIENCE_SECONDS), "what was withdrawn is new, too"
    assert not asker.ids_asked.acquire(timeout=0.05)
    asker.ids["events"] = "topic-id"
    leader.assign({0: 10})
    leader.wait_for_answer()


def test_settings_that_no_client_takes_are_told_of(
    make_leader: Callable[..., Leader], asker: ScriptedAsker, caplog: pytest.LogCaptureFixture
) -> None:
    """The leader goes on: only what it can't ask is missing."""
    asker.refuses = ConfigurationError("no such setting")
    leader = make_leader(knows_id=False)
    leader.assign({0: 10})
    leader.wait_for_answer()
    assert caplog.messages == [
        "Group writers can't ask the brokers of its data topic until its next assignment: no such setting. Its reports "
        "may carry no topic id, and an idle partition that had another owner meanwhile may be silent"
    ]
    assert leader.producer.take() == [(0, 10)]


def test_the_brokers_are_asked_with_the_producers_settings_where_no_others_are_given(asker: ScriptedAsker) -> None:
    """But for its transactions: two clients can't have the same id."""

    class Telling(ScriptedProducer):
        def get_config(self) -> Any:
            return settings

    settings: Any = {"bootstrap.servers": "nowhere:1", "transactional.id": "x"}
    commits = Commits()
    asker.group = commits
    publisher = CommitLogPublisher(Telling(commits, make_future), COMMIT_LOG, "writers")
    publisher.step(commits, {EVENTS[0]: 1}).terminate()
    assert asker.is_stopped.wait(PATIENCE_SECONDS)
    assert asker.settings == [{"bootstrap.servers": "nowhere:1"}]
    for settings in ({}, "bootstrap.servers", None):  # noqa: B007
        publisher = CommitLogPublisher(Telling(commits, make_future), COMMIT_LOG, "writers")
        publisher.step(commits, {EVENTS[0]: 1}).terminate()
    assert len(asker.settings) == 1


def test_without_a_way_to_ask_nobody_is_asked(
    make_leader: Callable[..., Leader], caplog: pytest.LogCaptureFixture
) -> None:
    """A producer that doesn't tell its settings, and no other settings: no thread, no id, and one line that says so."""
    begun = BegunThreads()
    leader = make_leader(can_ask=False)
    leader.assign({})
    leader.end()
    assert begun() == []
    leader.assign({0: 10})
    assert headers(leader.producer.payloads[-1]) == {}
    assert caplog.messages == [
        "Group writers can't ask the brokers of its data topic, since its producer, a ScriptedProducer, doesn't show "
        "its settings: its reports carry no topic id, and an idle partition that had another owner meanwhile may be "
        "silent. Give CommitLogPublisher data_configuration"
    ]


def test_the_users_function_is_shown_no_message_that_was_filtered_out(
    make_leader: Callable[..., Leader], caplog: pytest.LogCaptureFixture
) -> None:
    """Arroyo hands it down so that its offset is committed; a step of the user's sees nothing of it."""
    leader = make_leader(received_timestamps=lambda message: [float(message.payload.headers[0][1])])
    leader.assign({0: 0})
    leader.steps[-1].submit(Message(Value(FILTERED_PAYLOAD, {EVENTS[0]: 1})))
    assert leader.after(10.0) == [(0, 0), (0, 1)]
    assert [record.message for record in caplog.records if record.levelno == logging.WARNING] == []


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf], ids=str)
def test_times_that_are_none_are_dropped_and_counted(
    bad: float, make_leader: Callable[..., Leader], caplog: pytest.LogCaptureFixture
) -> None:
    """The report goes out, with the other times' percentile."""
    leader = make_leader(received_timestamps=lambda message: [5.0, bad])
    leader.assign({0: 0})
    leader.producer.take()
    leader.commit(0, 1)
    assert leader.after(10.0) == [(0, 1)]
    assert leader.publisher.dropped_timestamps == 1
    assert leader.publisher.failed_deliveries == 0
    assert CommitCodec().decode(leader.producer.payloads[-1]).received_p99 == 5.0
    leader.commit(0, 2)
    leader.clock.now += 60.0
    leader.commit(0, 3)
    text = "received_timestamps returned what is no time, such as NaN: dropped (%d so far)"
    assert caplog.messages == [text % 1, text % 3], "once a minute"


def test_nothing_is_said_of_times_that_are_some(
    make_leader: Callable[..., Leader], caplog: pytest.LogCaptureFixture
) -> None:
    """Nor of a message without any."""
    times = [[5.0], []]
    leader = make_leader(received_timestamps=lambda message: times.pop())
    leader.assign({0: 0})
    leader.commit(0, 1)
    leader.commit(0, 2)
    assert (leader.publisher.dropped_timestamps, caplog.messages, times) == (0, [], [])


def test_received_timestamps_that_fails_ends_nothing(
    make_leader: Callable[..., Leader], caplog: pytest.LogCaptureFixture
) -> None:
    """The message was committed; that must be reported."""

    def fail(message: Message[Any]) -> list[float]:
        raise LookupError("no such field")

    leader = make_leader(received_timestamps=fail)
    leader.assign({0: 0})
    leader.producer.take()
    leader.commit(0, 1)
    assert leader.after(10.0) == [(0, 1)]
    leader.commit(0, 2)
    assert caplog.messages == ["received_timestamps failed: LookupError: no such field"], "once a minute"
    assert caplog.records[0].exc_info is not None, "with where it was raised"


def test_nothing_that_is_logged_can_end_the_pipeline(make_leader: Callable[..., Leader]) -> None:
    """Not of a step that was made too early, nor of times that are none, nor of a start that can't be committed.

    What was committed before the line is reported all the same.
    """
    times: list[list[float] | LookupError] = [[math.inf], LookupError("no such field")]

    def received(message: Message[Any]) -> list[float]:
        each = times.pop()
        if isinstance(each, LookupError):
            raise each
        return each

    leader = make_leader(can_ask=False, received_timestamps=received)
    with log_handler_that_raises(SYSLOG_IS_GONE):
        leader.assign({0: 0})
        leader.assign({0: 0})
        leader.commit(0, 1)
        leader.commit(0, 2)
        assert leader.after(10.0) == [(0, 0), (0, 2)]
        leader.end()
        leader.commits.error = RuntimeError("unknown member")
        leader.assign({1: 5})
        leader.after(5.0)
        assert leader.end() == []
    assert times == []


@pytest.mark.parametrize("first", ["another-id", NO_ANSWER])
@pytest.mark.parametrize("is_long", [True, False])
def test_a_leader_that_had_no_partition_for_long_asks_for_the_id_anew(
    first: str | KafkaError,
    is_long: bool,
    make_leader: Callable[..., Leader],
    asker: ScriptedAsker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The topic may be another one by then, and who could ask nobody may have had a bad minute."""
    asker.ids = {"events": first}
    leader = make_leader(knows_id=False)
    with monkeypatch.context() as patched:
        patched.setattr(start_questions, "ID_SECONDS", 0.0)
        leader.assign({0: 10})
        leader.wait_for_answer()
        leader.end()
    asker.ids = {"events": "topic-id"}
    leader.clock.now += FORGET_SECONDS if is_long else FORGET_SECONDS - 1
    before = len(leader.producer.payloads)
    leader.assign({0: 10})
    if is_long:
        assert list(leader.producer.payloads[before].headers) == []
        leader.wait_for_answer()
    leader.commit(0, 11)  # while the first one is said again with the id, perhaps
    wait_until(lambda: (0, 11) in leader.after(10.0), PATIENCE_SECONDS, "the commit to be published")
    kept = [] if first is NO_ANSWER else [("topic_id", b"another-id")]
    assert list(leader.producer.payloads[-1].headers) == ([("topic_id", b"topic-id")] if is_long else kept)


@pytest.mark.parametrize("can_ask", [True, False])
def test_a_leader_that_had_no_partition_for_long_begins_as_if_it_were_the_first_time(
    can_ask: bool, make_leader: Callable[..., Leader]
) -> None:
    """What it remembers of a partition may be of a topic that is gone: nothing is in question."""
    leader = make_leader(can_ask=can_ask)
    leader.assign({0: 10})
    leader.end()
    leader.clock.now += FORGET_SECONDS
    leader.assign({0: 3})
    assert leader.commits.history[EVENTS[0]] == [10, 3]
    assert leader.producer.take()[0] == (0, 3)


@pytest.mark.parametrize("error", [NO_ANSWER, REFUSED])
def test_commits_that_can_not_be_asked_for_are_told_of_and_when_they_can(
    error: KafkaError,
    make_leader: Callable[..., Leader],
    asker: ScriptedAsker,
    questions_clock: list[float],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An idle partition in question is silent until then, and followers wait: nothing else would say why."""
    leader = make_leader()
    leader.assign({0: 10, 1: 5})
    leader.end()
    asker.commits = {("events", 0): error, ("events", 1): 5}

    def wait_for_two_rounds() -> None:
        asked = len(asker.asked)
        wait_until(lambda: len(asker.asked) >= asked + 3, PATIENCE_SECONDS, "it to be asked for again")

    leader.assign({0: 17, 1: 6})
    wait_for_two_rounds()
    questions_clock[0] = start_questions.COMMITS_PATIENCE_SECONDS - 0.1
    wait_for_two_rounds()
    assert caplog.messages == []
    questions_clock[0] = start_questions.COMMITS_PATIENCE_SECONDS
    wait_for_two_rounds()
    questions_clock[0] += LOG_INTERVAL_SECONDS - 0.1
    wait_for_two_rounds()
    line = (
        f"What group writers has committed in events[0] can't be asked for: {error.str()}. It is asked again while the "
        "group has these partitions. Of one that is idle nothing is reported until then, and its followers may wait"
    )
    assert caplog.messages == [line]
    questions_clock[0] += 0.1
    wait_for_two_rounds()
    assert caplog.messages == [line, line]
    del asker.commits["events", 0]
    leader.commits.by_others[EVENTS[0]] = [10]
    wait_until(lambda: len(caplog.messages) == 3, PATIENCE_SECONDS, "the end of it to be told")
    assert caplog.messages[2] == "It is known again what group writers has committed"
    assert (0, 10) in leader.after(10.0)


@pytest.mark.parametrize(
    ("answer", "is_explained"),
    [(NO_ANSWER, True), (KafkaError(KafkaError._AUTHENTICATION), True), (REFUSED, False)],
    ids=["silence", "a failed login", "a refused permission"],
)
@pytest.mark.parametrize("told", [WRONG_PASSWORD, BAD_CERTIFICATE], ids=["wrong password", "bad certificate"])
def test_what_a_client_tells_by_the_way_is_why_there_is_no_answer(
    told: KafkaError,
    answer: KafkaError,
    is_explained: bool,
    make_leader: Callable[..., Leader],
    asker: ScriptedAsker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """That the time was over helps nobody. What is an answer says more than that."""
    monkeypatch.setattr(start_questions, "COMMITS_PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(start_questions, "ID_SECONDS", 0.0)
    leader = make_leader()
    leader.assign({0: 10})
    leader.end()
    asker.ids["others"] = answer
    asker.commits["events", 0] = answer
    asker.told = told
    leader.steps.append(leader.publisher.step(leader.commits, {EVENTS[0]: 17, Partition(Topic("others"), 0): 0}))
    wait_until(lambda: len(caplog.messages) >= 2, PATIENCE_SECONDS, "both to be told")
    why = told.str() if is_explained else answer.str()
    assert caplog.messages[0].endswith(f"that the topic was created anew: {why}")
    assert caplog.messages[1].startswith(f"What group writers has committed in events[0] can't be asked for: {why}. It")
    leader.end_questions()


def test_what_a_client_told_long_ago_is_not_why_there_is_no_answer_now(
    make_leader: Callable[..., Leader],
    asker: ScriptedAsker,
    questions_clock: list[float],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What goes on it tells again."""
    asker.ids["events"] = NO_ANSWER
    asker.told = BAD_CERTIFICATE
    leader = make_leader(knows_id=False)
    leader.assign({0: 10})
    wait_until(lambda: len(asker.asked_ids) >= 2, PATIENCE_SECONDS, "it to be told")
    asker.told = None
    for seconds in (0.0, AGAIN_SECONDS + 1.0):
        questions_clock[0] = seconds
        asked = len(asker.asked_ids)
        wait_until(lambda: len(asker.asked_ids) >= asked + 2, PATIENCE_SECONDS, "it to be told no more")  # noqa: B023
    questions_clock[0] = start_questions.ID_SECONDS
    leader.wait_for_answer()
    (line,) = caplog.messages
    assert line.endswith(f": {NO_ANSWER.str()}")


@pytest.mark.parametrize("is_configured", [True, False], ids=["told where", "by the producer's settings"])
def test_a_refused_login_is_told_with_its_own_text_and_its_end(
    is_configured: bool,
    make_leader: Callable[..., Leader],
    asker: ScriptedAsker,
    questions_clock: list[float],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As of a wrong password: reports carry no id, and an idle partition that had another owner is silent."""
    asker.ids["events"] = NO_ANSWER
    asker.told = WRONG_PASSWORD
    leader = make_leader(knows_id=False, can_ask=is_configured, shows_settings=not is_configured)
    leader.assign({0: 10})

    def wait_for_two_rounds() -> None:
        asked = len(asker.asked_ids)
        wait_until(lambda: len(asker.asked_ids) >= asked + 3, PATIENCE_SECONDS, "it to be asked for again")

    wait_for_two_rounds()
    questions_clock[0] = LOG_INTERVAL_SECONDS - 0.1
    wait_for_two_rounds()
    settings = "data_configuration" if is_configured else "its producer's settings"
    line = (
        f"Group writers can't ask the brokers of its data topic with {settings}: Kafka refuses access, check user, "
        f"password and permissions: {WRONG_PASSWORD.str()}. They are asked again, but less and less often"
    )
    assert [(each.levelname, each.getMessage()) for each in caplog.records] == [("ERROR", line)]
    asker.told = None
    asker.ids["events"] = "topic-id"
    wait_until(lambda: len(caplog.messages) >= 2, PATIENCE_SECONDS, "the end of it to be told")
    assert caplog.messages[1:] == ["Group writers can ask the brokers of its data topic again"]
    assert leader.topic_ids == {"events": b"topic-id"}


def test_a_refused_login_is_tried_less_and_less_often(
    make_leader: Callable[..., Leader], asker: ScriptedAsker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Brokers may lock an account. Each client tries to log in until it is closed, so there is a new one each time."""
    monkeypatch.setattr(start_questions, "RETRY_SECONDS", 1.0)
    asker.commits["events", 0] = NO_ANSWER
    leader = make_leader()
    questions = leader.publisher._questions
    assert questions is not None
    waits: list[float] = []
    wait_for = questions._changed.wait_for

    def wait(predicate: Callable[[], bool], seconds: float) -> bool:
        waits.append(seconds)
        if len(waits) == 9:
            asker.told = None
        return wait_for(predicate, 0.0)

    monkeypatch.setattr(questions._changed, "wait_for", wait)
    leader.assign({0: 10})
    leader.end()
    asker.told = WRONG_PASSWORD
    leader.assign({0: 17})
    wait_until(lambda: len(waits) >= 11, PATIENCE_SECONDS, "it to be asked for again")
    assert waits[:11] == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 64.0, 64.0, 64.0, 64.0]
    ours = {"reconnect.backoff.ms": 10_000, "reconnect.backoff.max.ms": 10_000}
    given = {"bootstrap.servers": "nowhere:1"}
    assert asker.settings == [given] + [{**given, **ours}] * 8
    asker.commits["events", 0] = 17
    wait_until(lambda: questions._thread is None, PATIENCE_SECONDS, "the answer")
    leader.end()
    leader.assign({0: 20})
    wait_until(lambda: len(asker.settings) == 10, PATIENCE_SECONDS, "it to be asked anew")
    assert asker.settings[9] == given, "that refusal is over"
    leader.end_questions()


def test_brokers_that_answer_are_asked_on_though_another_one_refuses_the_login(
    make_leader: Callable[..., Leader], asker: ScriptedAsker, caplog: pytest.LogCaptureFixture
) -> None:
    """As one that is restarted while keys change."""
    asker.told = WRONG_PASSWORD
    leader = make_leader(knows_id=False)
    leader.assign({0: 10})
    leader.wait_for_answer()
    assert leader.topic_ids == {"events": b"topic-id"}
    assert caplog.messages == []
    assert len(asker.settings) == 1


@pytest.mark.parametrize("is_revoked", [False, True], ids=["it is committed", "it is given back"])
def test_that_nobody_waits_for_what_can_not_be_asked_ends_the_question(
    is_revoked: bool,
    make_leader: Callable[..., Leader],
    asker: ScriptedAsker,
    questions_clock: list[float],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It was asked for ever, and each minute a line named partitions that were reported all the while; and the next
    time that something couldn't be asked for, it was told at once, as if it had lasted since."""
    leader = make_leader()
    leader.assign({0: 10})
    leader.end()
    asker.commits = {("events", 0): REFUSED}
    leader.assign({0: 17})
    asked = len(asker.asked)
    wait_until(lambda: len(asker.asked) >= asked + 3, PATIENCE_SECONDS, "it to be asked for")
    questions_clock[0] = start_questions.COMMITS_PATIENCE_SECONDS
    wait_until(lambda: len(caplog.messages) == 1, PATIENCE_SECONDS, "that to be told")
    if is_revoked:
        leader.end()
    else:
        leader.commit(0, 18)
        leader.after(10.0)
    questions = leader.publisher._questions
    assert questions is not None
    wait_until(lambda: questions._thread is None, PATIENCE_SECONDS, "the questions to end")
    assert caplog.messages[1:] == [
        "What group writers has committed needn't be asked for any more: no partition waits for it"
    ]
    assert not questions._failure.goes_on


def test_an_old_commit_on_a_cluster_that_the_group_has_left_makes_no_id_believed(
    make_leader: Callable[..., Leader], asker: ScriptedAsker
) -> None:
    """The data topic has moved, and ``data_configuration`` was forgotten: what the commit log's cluster tells is of the
    old topic. What the group commits while it is asked is no such thing."""
    asker.commits["events", 0] = 1_000
    leader = make_leader(knows_id=False)
    leader.assign({0: 0})
    leader.commit(0, 999)
    wait_until(lambda: len(asker.asked) > 3, PATIENCE_SECONDS, "it to be asked for again")
    assert leader.topic_ids == {}
    leader.commit(0, 1_000)
    leader.wait_for_answer()
    assert leader.topic_ids == {"events": b"topic-id"}


def test_nothing_that_is_logged_can_end_the_questions(
    make_leader: Callable[..., Leader], asker: ScriptedAsker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their thread died of it, and nothing was asked for any more: what comes next is."""
    monkeypatch.setattr(start_questions, "ID_SECONDS", 0.0)
    asker.ids = {"events": NO_ANSWER, "others": "others-id"}
    leader = make_leader(knows_id=False)
    with log_handler_that_raises(SYSLOG_IS_GONE):
        leader.assign({0: 10})
        leader.wait_for_answer()
        leader.end()
    leader.steps.append(leader.publisher.step(leader.commits, {Partition(Topic("others"), 0): 0}))
    leader.wait_for_answer()


def test_neither_a_log_handler_nor_the_producer_is_called_under_the_lock(make_leader: Callable[..., Leader]) -> None:
    """Both may be anybody's code, which may wait for another thread that reports."""
    leader = make_leader()
    lock = leader.publisher._writer._lock
    seen: list[bool] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(lock.locked())

    logger = logging.getLogger("arroyo_sync.leaders.commit_log")
    handler = Handler()
    logger.addHandler(handler)
    leader.producer.on_produce = lambda: seen.append(lock.locked())
    try:
        leader.assign({0: 0})
        leader.producer.refuses = BufferError("queue full")
        leader.commit(0, 1)
        leader.after(10.0)
        leader.producer.delivers_at_once = False
        leader.producer.refuses = None
        leader.after(10.0)
        leader.producer.fail(RuntimeError("broker gone"))
        leader.clock.now += 60.0
        leader.after(10.0)
        leader.producer.deliver()
        leader.after(10.0)
        leader.step.join(0.0)
    finally:
        logger.removeHandler(handler)
    assert len(seen) >= 5
    assert not any(seen)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        pytest.param({"producer": None}, "^producer=None: must be an Arroyo producer", id="no producer"),
        pytest.param({"data_configuration": "x"}, "^data_configuration='x'", id="no mapping"),
        pytest.param({"data_configuration": {}}, "^data_configuration names no brokers", id="no brokers"),
    ],
)
def test_bad_settings_are_refused(arguments: dict[str, Any], complaint: str) -> None:
    """Each with one line that names the setting."""
    keywords = {
        "producer": ScriptedProducer(Commits(), make_future),
        "topic": COMMIT_LOG,
        "group": "writers",
        **arguments,
    }
    with pytest.raises(ConfigurationError, match=complaint):
        CommitLogPublisher(**keywords)


@pytest.mark.parametrize(
    ("commit", "partitions", "complaint"),
    [
        pytest.param(
            None,
            {},
            "^commit=None: must be the function that Arroyo hands to create_with_partitions$",
            id="no commit",
        ),
        pytest.param(Commits(), None, "^partitions=None", id="no partitions"),
        pytest.param(Commits(), [EVENTS[0]], "^partitions=<list>", id="a list"),
    ],
)
def test_a_step_needs_what_arroyo_gives(
    commit: Any, partitions: Any, complaint: str, make_leader: Callable[..., Leader]
) -> None:
    """Swapped or forgotten arguments are named."""
    with pytest.raises(ConfigurationError, match=complaint):
        make_leader().publisher.step(commit, partitions)


def test_a_machine_without_more_threads_ends_no_leader(
    make_leader: Callable[..., Leader],
    asker: ScriptedAsker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As in a container at its limit: its polls publish, and once there is one, the next assignment asks."""
    leader = make_leader(knows_id=False)

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as at_the_limit:
        at_the_limit.setattr(threading.Thread, "start", refuse)
        leader.assign({0: 5})
        assert leader.producer.take() == [(0, 5)]
        leader.commit(0, 6)
        assert leader.after(10.0) == [(0, 6)]
        assert leader.end() == [(0, 6)]
    (line,) = caplog.messages
    assert "writers can't ask the brokers of its data topic until its next assignment: can't start new thread" in line
    leader.assign({0: 6})
    wait_until(lambda: leader.producer.records == [(0, 6)], PATIENCE_SECONDS, "it to be said with the topic's id")
    leader.producer.take()
    leader.commit(0, 7)
    assert leader.after(10.0) == [(0, 7)]
    assert ("topic_id", b"topic-id") in leader.producer.payloads[-1].headers


def test_a_thread_that_began_as_a_worker_of_the_pipeline_died_is_the_only_one_that_asks(
    make_leader: Callable[..., Leader], asker: ScriptedAsker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was forgotten, and the next question began another one."""
    asker.may_tell_ids.clear()
    leader = make_leader(knows_id=False)
    questions = leader.publisher._questions
    assert questions is not None
    begun = BegunThreads()
    with monkeypatch.context() as patched:
        worker_dies_as_threads_start(patched)
        with pytest.raises(ChildProcessTerminated):
            questions.ask(["events"], [], {})
    questions.ask(["events"], [], {})
    assert len(begun()) == 1
    asker.may_tell_ids.set()
    leader.wait_for_answer()


@pytest.mark.parametrize("kind", [RuntimeError, ConfigurationError])
@pytest.mark.parametrize("is_late", [False, True])
def test_questions_that_failed_are_asked_at_the_next_assignment(
    is_late: bool,
    kind: type[Exception],
    make_leader: Callable[..., Leader],
    asker: ScriptedAsker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As where the machine had no more threads for a moment, of which the client needs some: it can't be told from one
    whose settings are wrong. A topic's id isn't, once it may be that of another one."""
    asker.refuses = kind("can't start new thread")
    leader = make_leader(knows_id=False)
    if is_late:
        monkeypatch.setattr(start_questions, "ID_SECONDS", 0.0)
    leader.assign({0: 5})
    leader.wait_for_answer()
    assert leader.end() == [(0, 5), (0, 5)]
    asker.refuses = None
    asker.commits = {("events", 0): 7}
    leader.commits.by_others[EVENTS[0]] = [7]
    leader.assign({0: 7})
    leader.wait_for_answer()
    assert leader.after(10.0) == [(0, 7)]
    headers = [] if is_late else [("topic_id", b"topic-id")]
    assert list(leader.producer.payloads[-1].headers) == headers
    (line,) = caplog.messages
    assert "writers can't ask the brokers of its data topic until its next assignment: can't start new thread" in line
