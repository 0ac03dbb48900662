"""Two members of a leader group that have a partition in turn: the package's publisher, and what a follower hears.

Each member has a real `CommitLogPublisher` of its own; Arroyo, the coordinator and the producer are the model's.
What the publisher hands over is under way until it is delivered, or fails: so late that another member may have the
partition by then. A member may be stopped past its session and wake up, may crash, may be assigned other partitions
meanwhile, may be told of a rebalance in which it keeps the partition (KIP-848), and may go back. The commit log is read
by a real `LeaderOffsets`.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

from arroyo.backends.abstract import Producer
from arroyo.backends.kafka import KafkaPayload
from arroyo.types import BrokerValue, Message, Partition, Topic

from arroyo_sync.core.state import SynchronizedPartitionStateManager
from arroyo_sync.kafka.questions.asker import PartitionRange
from arroyo_sync.leaders.commit_log.publishing import report_writer, start_questions
from arroyo_sync.leaders.commit_log.publishing.publish_queue import Delivery, PublishQueue, QueuedPartition
from arroyo_sync.leaders.commit_log.publishing.publish_step import PublishStep
from arroyo_sync.leaders.commit_log.publishing.publisher import CommitLogPublisher
from arroyo_sync.leaders.commit_log.publishing.report_writer import ReportWriter
from arroyo_sync.leaders.commit_log.publishing.start_questions import StartQuestions
from arroyo_sync.leaders.commit_report import CommitReport
from arroyo_sync.leaders.leader_offsets import LeaderOffsets
from tests.model.judge import Violation
from tests.model.scripted import PARTITIONS, SOME_TIME, TOPIC, Clock
from tests.model.search import NamedAction, NamedActions

KEY = (TOPIC.name, 0)
PARTITION = PARTITIONS[0]
GROUP = "a"
MEMBERS = ("one", "other")
END = 2
"""Where the partition ends."""
INTERVAL_SECONDS = 1.0
HEARTBEAT_SECONDS = 2.0


class CommitFailed(Exception):
    """The coordinator takes no commit of this member."""


class Record(NamedTuple):
    """One that is under way to the commit log."""

    offset: int
    delivery: Delivery
    is_orphan: bool
    """Whether the process that sent it is gone."""


class Sender(Producer[KafkaPayload]):
    """A member's producer: what it takes is under way until the world says otherwise."""

    def __init__(self, member: Member) -> None:
        self._member = member

    def produce(self, destination: Topic | Partition, payload: KafkaPayload) -> Delivery:
        delivery: Delivery = Future()
        self._member.produced(json.loads(payload.value)["offset"], delivery)
        return delivery

    def close(self) -> Future[None]:
        raise AssertionError("the producer outlives the steps")


class Member:
    """One process of the leader group: a publisher under what Arroyo does with it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.on_its_way: deque[Record] = deque()
        """Records, in the order in which the producer took them."""
        self.arrives_at_once = False
        self.is_being_made = False
        """Whether its next step is being made."""
        self.start_process()

    def start_process(self) -> None:
        self.publisher = CommitLogPublisher(
            Sender(self),
            Topic("commit-log"),
            GROUP,
            interval=INTERVAL_SECONDS,
            heartbeat=HEARTBEAT_SECONDS,
            data_configuration={"bootstrap.servers": "nowhere:1"},
            clock=self.world.clock,
        )
        self.on_its_way = deque(record._replace(is_orphan=True) for record in self.on_its_way)
        self.answer: tuple[Any, int | None] | None = None
        """What was asked of the brokers, and what they have answered, on its way."""
        self.assignment_ended()

    def assignment_ended(self) -> None:
        self.step: PublishStep | None = None
        self.start = 0
        """Where its assignment began."""
        self.works_from = 0
        """The same, or where it went back to."""
        self.position = 0
        """The next message that its consumer reads."""
        self.has_worked = False
        """Whether it has done messages: from then on no start may be committed."""
        self.staged: int | None = None
        self.is_due = False
        """Whether the commit policy says so."""
        self.is_refused = False
        """Whether the coordinator takes no commit, though the member has the partition: its group is forming."""
        self.truth: int | None = None
        """What it may publish: what it passed to commit last, or else what the group had committed at its start."""

    @property
    def is_owner(self) -> bool:
        return self.world.owner is self

    @property
    def questions(self) -> StartQuestions:
        assert self.publisher._questions is not None
        return self.publisher._questions

    def commit(self, offsets: Mapping[Partition, int], force: bool = False) -> None:
        """Arroyo's."""
        self.staged = offsets.get(PARTITION, self.staged)
        if self.staged is None or not (force or self.is_due):
            return
        if not self.is_owner or self.is_refused:
            raise CommitFailed
        if self.world.committed is None or not (self.has_worked or self.staged > self.works_from):
            self.world.passed.update(range(self.start))
            self.truth = self.staged
        self.world.committed, self.staged = self.staged, None

    def produced(self, offset: int, delivery: Delivery) -> None:
        if self.step is None and not self.is_being_made:
            self.world.violation("Out of the way", "a record after the end of its step")
        if offset != self.truth:
            self.world.violation("Safety", f"{offset} is published, and {self.truth} was committed")
        self.on_its_way.append(Record(offset, delivery, is_orphan=False))
        if self.arrives_at_once:
            self.deliver_all()

    def make_step(self, positions: Mapping[Partition, int]) -> None:
        self.truth = self.world.committed
        self.is_being_made = True
        self.step = self.publisher.step(self.commit, positions)
        self.is_being_made = False

    def work(self) -> None:
        """All that was read is done."""
        assert self.step is not None
        self.has_worked = True
        skipped = range(self.start if self.world.committed is None else 0)
        self.world.passed.update(skipped, range(self.works_from, self.position))
        self.truth = self.position
        self.step.submit(Message(BrokerValue(b"", PARTITION, self.position - 1, SOME_TIME)))

    def end_step(self, *, arrives: bool) -> None:
        """As Arroyo ends it when partitions are revoked. What is raised there ends the process."""
        assert self.step is not None
        if arrives:
            self.deliver_all()
        self.arrives_at_once = arrives
        self.step.close()
        try:
            self.step.join(1.0 if arrives else 0.0)
        except CommitFailed:
            self.step.terminate()
            self.start_process()
        self.arrives_at_once, self.step = False, None

    def deliver(self) -> None:
        record = self.on_its_way.popleft()
        self.world.note(record.offset)
        record.delivery.set_result(
            BrokerValue(KafkaPayload(None, b"", []), Partition(Topic("commit-log"), 0), 0, SOME_TIME)
        )

    def deliver_all(self) -> None:
        while self.on_its_way:
            self.deliver()

    def ask(self) -> None:
        """Its questions' thread asks, and the brokers answer; that is on its way."""
        asked = self.questions._open_questions()
        self.answer = asked, self.world.committed

    def take_answer(self) -> None:
        assert self.answer is not None
        (asked, committed), self.answer = self.answer, None
        commits = dict.fromkeys([*asked.partitions, *asked.begins], committed)
        is_known, _ = self.questions._take(asked, dict.fromkeys(asked.topics, "id"), commits)
        if is_known:
            self.questions._on_id()


class World:
    """The group, its coordinator and the follower, and all that can happen."""

    def __init__(self) -> None:
        self.clock = _ScriptedCondition.clock = Clock()
        self.violations: list[Violation] = []
        self.committed: int | None = None
        """The brokers' copy."""
        self.passed: set[int] = set()
        """The messages that some member has done and passed to commit, or that the group skipped at its start."""
        self.owner: Member | None = None
        """By the coordinator."""
        self.members = {name: Member(self) for name in MEMBERS}
        self.manager = SynchronizedPartitionStateManager()
        self.follower = LeaderOffsets([GROUP])
        self.follower.attach(self.manager)
        self.follower.enable()
        self.follower.assign({KEY: None})
        self.follower.apply_answers({KEY: PartitionRange(0, END)}, self.follower.begin_question([KEY]), {0: 0})
        self.records = 0

    # Actions.

    def assign(self, name: str, start: int, is_refused: bool) -> None:
        """The coordinator gives the partition to this member. Where nothing is committed, it begins at the start."""
        member = self.owner = self.members[name]
        member.start = member.works_from = member.position = start if self.committed is None else self.committed
        member.is_refused = is_refused
        member.make_step({PARTITION: member.position})

    def revoke(self, name: str, arrives: bool) -> None:
        """It is told to give the partition back, or that it has lost it; what is in flight in its pipeline is lost."""
        member = self.members[name]
        member.end_step(arrives=arrives)
        self._lost(member)

    def retain(self, name: str, arrives: bool) -> None:
        """A rebalance in which it keeps the partition: under KIP-848 its step is made anew, and told the position."""
        member = self.members[name]
        member.end_step(arrives=arrives)
        if member.publisher._step is None:  # it ended
            self._lost(member)
        else:
            member.make_step({PARTITION: member.position})

    def expel(self, name: str) -> None:
        """It was stopped past its session, and doesn't know."""
        self.owner = None

    def crash(self, name: str) -> None:
        member = self.members[name]
        if member.is_owner:
            self.owner = None
        if member.step is not None:
            member.step.ended_at = self.clock.now  # nothing of it runs
        member.start_process()

    def have_another(self, name: str) -> None:
        """It is assigned another partition alone, and gives that back."""
        member = self.members[name]
        member.make_step({})
        member.end_step(arrives=True)
        member.assignment_ended()

    def accepted(self, name: str) -> None:
        """The group has formed: its commits are taken again."""
        self.members[name].is_refused = False

    def read(self, name: str) -> None:
        self.members[name].position += 1

    def work(self, name: str) -> None:
        self.members[name].work()

    def seek(self, name: str) -> None:
        """The pipeline goes back to the beginning."""
        member = self.members[name]
        member.works_from = member.position = 0

    def poll(self, name: str) -> None:
        """Arroyo polls the step, and commits what is staged. What that raises ends the process."""
        member = self.members[name]
        assert member.step is not None
        member.is_due = True
        try:
            member.step.poll()
            member.is_due = False
        except CommitFailed:
            member.step.terminate()
            self.crash(name)

    def publish(self, name: str) -> None:
        """The publisher's own thread does what is due."""
        self.members[name].publisher._writer._publish()

    def deliver(self, name: str) -> None:
        self.members[name].deliver()

    def fail(self, name: str) -> None:
        """The record was lost, and the producer says so."""
        self.members[name].on_its_way.popleft().delivery.set_exception(CommitFailed())

    def ask(self, name: str) -> None:
        self.members[name].ask()

    def take_answer(self, name: str) -> None:
        self.members[name].take_answer()

    def wait(self) -> None:
        self.clock.now += INTERVAL_SECONDS

    # Judging.

    def violation(self, promise: str, detail: str) -> None:
        self.violations.append(Violation(promise, detail))

    def note(self, offset: int) -> None:
        """A record has reached the commit log, and the follower."""
        self.records += 1
        self.follower.apply([CommitReport(KEY, GROUP, offset, self.records, 0, self.records)], 0.0)

    @property
    def remote(self) -> int | None:
        return self.manager.cell(*KEY).remote

    def check(self) -> None:
        """Nothing is released that nobody has done."""
        if self.remote is not None and not self.passed.issuperset(range(self.remote)):
            self.violation("Safety", f"the remote offset is {self.remote}, done is {sorted(self.passed)}")

    def settle(self) -> None:
        """The other member has noticed, all is delivered, and a heartbeat has gone by: the owner's offset is known."""
        owner = self.owner
        if owner is None:
            return
        for name, member in self.members.items():
            if member is not owner and member.step is not None:
                self.revoke(name, arrives=False)
            member.deliver_all()
        owner.is_refused = False
        for _ in range(2):
            if owner.answer is not None:
                owner.take_answer()
            if is_open(owner):
                owner.ask()
                owner.take_answer()
            self.clock.now += HEARTBEAT_SECONDS
            self.poll(next(name for name, member in self.members.items() if member is owner))
            owner.deliver_all()
        self.check()
        if self.remote is None or self.remote != owner.truth:
            self.violation("Progress", f"the remote offset is {self.remote}, and the owner is at {owner.truth}")

    def _lost(self, member: Member) -> None:
        if member.is_owner:
            self.owner = None
        member.assignment_ended()

    def fingerprint(self) -> int:
        each = sorted(hash(_of_member(member, self.clock.now)) for member in self.members.values())
        return hash((self.committed, frozenset(self.passed), self.remote, *each))


def is_open(member: Member) -> bool:
    """Whether its questions' thread has anything to ask that it hasn't asked yet."""
    questions = member.questions
    return questions._is_open() and questions._round != questions._asked_round


COVERED: dict[type, str] = {
    CommitLogPublisher: "_queue _writer _questions _step",
    PublishStep: "ended_at _starts _starts_before _starts_due_at _only_starts",
    PublishQueue: "partitions due_at heartbeat_due_at _waiting",
    QueuedPartition: "newest pending is_unclear is_hurried lacks_id is_in_flight delivery handed_over_at",
    ReportWriter: "_is_active _thread",
    StartQuestions: "committed topic_ids _partitions _begins _round _asked_round",
}
"""What is in the fingerprint."""

LEFT_OUT: dict[type, str] = {
    CommitLogPublisher: "_shared _received _producer _is_blindness_told",
    PublishStep: "_commit _shared _writer _partitions _received "
    "_CommitOffsets__commit _CommitOffsets__metrics _CommitOffsets__last_record_time",
    PublishQueue: "_interval _heartbeat _delivery_timeout",
    QueuedPartition: "partition last_seconds received last_p99 answer_due_at is_answer_late taken confirmed",
    ReportWriter: "failed_deliveries queue _producer _topic _group _topic_ids _clock _log _lock _changed "
    "_failing _is_untold _is_untold_logged _waits_until",
    StartQuestions: "_configuration _has_data_configuration _group _reached _on_id _changed _topics _thread "
    "_is_withdrawn _failure _refusal _refusals",
}
"""What never changes, or follows from the others, is for the log or metrics alone, or matters minutes later."""


def _of_member(member: Member, now: float) -> object:
    publisher, step, queue, questions = member.publisher, member.step, member.publisher._queue, member.questions
    queued = queue.partitions.get(PARTITION)
    answer = member.answer and (
        (member.answer[0].round == questions._round, bool(member.answer[0].topics), member.answer[1]),
        tuple(member.answer[0].begins.values()),
    )
    return (
        (member.is_owner, member.start, member.works_from, member.position, member.has_worked),
        (member.staged, member.is_refused, member.truth, answer),
        tuple((record.offset, record.is_orphan) for record in member.on_its_way),
        (publisher._step is None, publisher._writer._is_active, publisher._writer._thread is None),
        (tuple(questions.committed.values()), bool(questions._partitions), questions._round == questions._asked_round),
        (bool(questions.topic_ids), tuple(questions._begins.values())),
        step and (step.has_ended, _until(step._starts_due_at, now), step._only_starts),
        step and (tuple(step._starts.values()), tuple(step._starts_before.values())),
        publisher._step and tuple(publisher._step.uncommitted_starts.values()),  # also once it has ended
        (_until(queue.due_at, now), _until(queue.heartbeat_due_at, now)),
        queued
        and (
            (queued.newest and queued.newest[0], queued.pending, queued.is_unclear, queued.is_in_flight),
            (queued.lacks_id, queued.is_hurried),
            (queued.delivery is None, min(HEARTBEAT_SECONDS, now - queued.handed_over_at), queued in queue._waiting),
        ),
    )


def _until(moment: float, now: float) -> float:
    return max(0.0, moment - now)


@dataclass(frozen=True)
class Setup:
    prefix: tuple[NamedAction, ...] = ()
    """What has happened before."""
    starts: tuple[int, ...] = (0,)
    """Where ``auto.offset.reset`` may begin."""
    left_out: frozenset[str] = frozenset()
    """Actions that have nothing to do with what is explored."""


class Plan(NamedTuple):
    setup: Setup
    depth: int
    """How deep the test run explores it."""


def _of(name: str, *actions: str) -> tuple[NamedAction, ...]:
    return tuple((action, (name,)) for action in actions)


FIRST: NamedAction = ("assign", ("one", 0, False))
SECOND: NamedAction = ("assign", ("other", 0, False))

PLANS: Mapping[str, Plan] = {
    "two owners": Plan(Setup(starts=(0, 1)), 3),
    # The first one's last record is under way, and the second one has the partition.
    "two owners, the first one's record is late": Plan(
        Setup((FIRST, *_of("one", "read", "work"), ("revoke", ("one", False)), SECOND)), 3
    ),
    # The first one was stopped with something to publish, the second one has done more.
    "two owners, the first one wakes up": Plan(
        Setup(
            (
                *(FIRST, *_of("one", "deliver", "read", "work", "expel"), SECOND),
                *_of("other", "deliver", "read", "work", "read", "work"),
            )
        ),
        2,
    ),
}


class Explorer(NamedActions[World]):
    """Explores what two members may do in turn, and settles each state that is new."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup.prefix, setup.left_out)
        self.setup = setup

    def _make(self) -> World:
        return World()

    def _settle(self, world: World) -> None:
        world.settle()

    def _actions(self, world: World) -> Iterator[NamedAction]:
        for name, member in world.members.items():
            yield from self._of_process(name, member)
            if member.step is not None:
                yield from self._of_assignment(name, member)
            elif world.owner is None:
                for start in self.setup.starts if world.committed is None else (0,):
                    yield "assign", (name, start, False)
                    yield "assign", (name, start, True)
        yield "wait", ()

    def _of_process(self, name: str, member: Member) -> Iterator[NamedAction]:
        if member.on_its_way:
            yield "deliver", (name,)
            yield "fail", (name,)
        if member.answer is not None:
            yield "take_answer", (name,)
        elif is_open(member):
            yield "ask", (name,)
        if member.publisher._step is not None:
            yield "crash", (name,)
            if member.step is None and member.publisher._queue.partitions:
                yield "have_another", (name,)

    def _of_assignment(self, name: str, member: Member) -> Iterator[NamedAction]:
        for arrives in (False, True):
            yield "revoke", (name, arrives)
            if member.is_owner:
                yield "retain", (name, arrives)
        if member.is_owner:
            yield "expel", (name,)
        if member.is_refused:
            yield "accepted", (name,)
        if member.position < END:
            yield "read", (name,)
        if member.position != (member.start if member.truth is None else member.truth):
            yield "work", (name,)
        if member.position:
            yield "seek", (name,)
        yield "poll", (name,)
        if member.publisher._writer._thread is not None and member.publisher._queue.waiting:
            yield "publish", (name,)


class _NoThread:
    """What its thread would do is done by actions."""

    def __init__(self, **_: object) -> None: ...

    def start(self) -> None: ...

    def is_alive(self) -> bool:
        return False

    def join(self) -> None: ...


class _ScriptedCondition(threading.Condition):
    """Whoever waits does so for an interval of the model's time."""

    clock: Clock

    def wait(self, timeout: float | None = None) -> bool:
        self.clock.now += INTERVAL_SECONDS
        return False


@contextmanager
def no_threads() -> Iterator[None]:
    """Within, publishers start no threads."""
    modules: tuple[Any, ...] = (report_writer, start_questions)
    scripted = SimpleNamespace(Thread=_NoThread, Lock=threading.Lock, Condition=_ScriptedCondition)
    for module in modules:
        module.threading = scripted
    try:
        yield
    finally:
        for module in modules:
            module.threading = threading
