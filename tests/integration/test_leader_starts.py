"""Each partition of a leader is reported, on a real broker: idle, restarted, rebalanced, killed, with a dead log."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from arroyo.backends.kafka import KafkaPayload
from arroyo.backends.kafka.commit import CommitCodec
from arroyo.errors import OffsetOutOfRange
from confluent_kafka import KafkaError, TopicCollection

from arroyo_sync.kafka.questions.asker import Asker
from arroyo_sync.kafka.topic_ids import canonical_topic_id
from arroyo_sync.leaders.commit_log.publishing.report_writer import FINISH_SECONDS
from tests.integration.cluster.admin import Kafka
from tests.integration.cluster.cluster import KafkaCluster
from tests.integration.cluster.followers import PROTOCOLS, patient_settings, produce_numbered
from tests.integration.cluster.leaders import (
    JOIN_TIMEOUT_SECONDS,
    CommitLog,
    Leader,
    all_at,
    reports,
)
from tests.integration.cluster.pipeline import PipelineProcess, PipelineSettings
from tests.integration.cluster.reading import Remote, reading
from tests.integration.cluster.waiting import wait_until
from tests.support.programs import EXAMPLES, Program

SECONDS = 60.0
DEAD_CLUSTER = "127.0.0.1:1"

HANDLERS = """
import os, signal

def die(event):
    os.kill(os.getpid(), signal.SIGKILL)

def work(event):
    print(event.offset)
"""

protocols = pytest.mark.parametrize("protocol", list(PROTOCOLS))


class Follower:
    """What a follower sees: the remote offsets of the first partition."""

    def __init__(self, remote: Remote, events: str) -> None:
        self._remote = remote
        self._events = events

    def wait_for(self, remote_offset: int) -> None:
        self._remote.wait_for(remote_offset, topic=self._events)

    @property
    def saw(self) -> list[int]:
        """Each remote offset that is another than the one before."""
        offsets = [offset for key, offset in list(self._remote.history) if key == (self._events, 0)]
        return [each for each, before in zip(offsets, [None, *offsets], strict=False) if each not in (before, None)]


class Scene:
    """An events topic, a commit log and a leader group, and what is started for them."""

    def __init__(self, kafka: Kafka, topic_name: Callable[..., str], stack: ExitStack) -> None:
        self.kafka = kafka
        self.events, self.log_topic, self.group = (topic_name(each) for each in ("events", "commit-log", "writers"))
        self.partitions = 0
        self._stack = stack

    def create(self, partitions: int, messages: int, log_config: Mapping[str, str] | None = None) -> None:
        self.partitions = partitions
        self.kafka.create_topic(self.events, partitions=partitions)
        self.kafka.create_topic(self.log_topic, config=log_config)
        self.produce(messages)

    def produce(self, messages: int) -> None:
        """So many to each partition."""
        produce_numbered(self.kafka.bootstrap_servers, self.events, range(self.partitions), messages)

    def leader(
        self, protocol: str = "eager", *, client_id: str = "leader", log_servers: str | None = None, **options: Any
    ) -> Leader:
        """A member of the group; ``producer`` has further settings of its producer, the rest is `Leader`'s."""
        settings = {
            **patient_settings(self.kafka.bootstrap_servers, self.group, protocol),
            "client.id": client_id,
        }
        producer = {
            "bootstrap.servers": log_servers or self.kafka.bootstrap_servers,
            "message.timeout.ms": 10_000,
            **options.pop("producer", {}),
        }
        return self._stack.enter_context(Leader(settings, self.events, self.log_topic, producer, **options))

    def log(self) -> CommitLog:
        log = CommitLog(self.kafka.bootstrap_servers, self.log_topic)
        self._stack.callback(log.close)
        return log

    def follower(self) -> Follower:
        """Somebody who follows the leader group, from now on."""
        source, remote = self._stack.enter_context(reading(self.kafka, self.log_topic, self.group))
        source.assign({(self.events, partition): 0 for partition in range(self.partitions)}, None)
        return Follower(remote, self.events)

    def all_at(self, offset: int) -> dict[str, int]:
        """What the commit log says when each partition's newest report is of this offset."""
        return reports(self.events, self.group, all_at(range(self.partitions), offset))

    def wait_for_commits(self, offset: int) -> None:
        """On the broker, of all partitions."""
        expected = all_at(range(self.partitions), offset)
        wait_until(
            lambda: self.committed() == expected, SECONDS, lambda: f"commits of {expected}, not {self.committed()}"
        )

    def members(self) -> int:
        """How many the group has."""
        described = self.kafka.admin.describe_consumer_groups([self.group])[self.group].result(SECONDS)
        return len(described.members)

    def committed(self) -> dict[int, int]:
        return self.kafka.committed_offsets(self.group, self.events)


@pytest.fixture
def scene(kafka: Kafka, topic_name: Callable[..., str]) -> Iterator[Scene]:
    with ExitStack() as stack:
        yield Scene(kafka, topic_name, stack)


@protocols
def test_an_idle_leader_is_reported_at_the_first_roll_out(scene: Scene, protocol: str) -> None:
    """Its group has committed everything before it published for the first time."""
    scene.create(partitions=3, messages=20)
    scene.kafka.commit_offsets(scene.group, scene.events, all_at(range(3), 20))
    scene.leader(protocol)
    scene.log().wait_for(scene.all_at(20))


def test_an_idle_leader_is_reported_after_a_restart_on_a_commit_log_that_was_created_anew(scene: Scene) -> None:
    """Nothing of the old log is left, and no message comes."""
    scene.create(partitions=3, messages=20)
    leader = scene.leader()
    scene.log().wait_for(scene.all_at(20))
    leader.stop()
    scene.kafka.recreate_topic(scene.log_topic)
    scene.leader()
    scene.log().wait_for(scene.all_at(20))


def test_an_idle_leader_that_lives_on_is_reported_on_a_commit_log_that_is_created_anew(scene: Scene) -> None:
    """By its next heartbeat."""
    scene.create(partitions=3, messages=20)
    scene.leader()
    scene.log().wait_for(scene.all_at(20))
    scene.kafka.recreate_topic(scene.log_topic)
    scene.log().wait_for(scene.all_at(20))


def test_a_member_that_takes_over_idle_reports_what_its_predecessor_could_not(scene: Scene) -> None:
    """The predecessor committed, and its commit log was down: the commits on the broker tell."""
    scene.create(partitions=3, messages=20)
    data_configuration = {"bootstrap.servers": scene.kafka.bootstrap_servers}
    first = scene.leader(log_servers=DEAD_CLUSTER, data_configuration=data_configuration)
    scene.wait_for_commits(20)
    log = scene.log()
    assert log.newest() == {}
    scene.leader()
    wait_until(lambda: len(log.newest()) > 0, SECONDS, "reports of what the second member was assigned")
    first.stop()
    log.wait_for(scene.all_at(20))


def test_an_only_partition_that_was_elsewhere_in_between_is_reported_as_it_is_now(scene: Scene) -> None:
    """A at 10, B to 20, back to A, idle: no step of A was without it, and none may report 10 again."""
    scene.create(partitions=1, messages=10)
    first = scene.leader(client_id="b")
    first.wait_for_published((0, 10))
    scene.wait_for_commits(10)
    # The assignor takes the members in the order of their ids.
    second = scene.leader(client_id="a")
    wait_until(lambda: bool(second.assignments), SECONDS, "the second member to take the partition over")
    scene.produce(10)
    second.wait_for_published((0, 20))
    scene.wait_for_commits(20)
    assert len(first.assignments) == 1
    second.stop()
    wait_until(
        lambda: (0, 20) in first.published_by_step(1),
        SECONDS,
        lambda: f"the first member to report 20, not {first.published[-5:]} with {first.assignments}",
    )
    assert first.assignments == [{0: 0}, {0: 20}]
    assert set(first.published_by_step(1)) == {(0, 20)}
    assert scene.committed() == {0: 20}


@protocols
def test_a_member_that_was_missed_and_comes_back_reports_what_others_have_committed(
    scene: Scene, protocol: str, tmp_path: Path
) -> None:
    """It stood still for longer than the session: it loses its only partition without a word, and gets it again."""
    scene.create(partitions=1, messages=10)
    journal = str(tmp_path / "first.txt")
    settings = PipelineSettings(
        scene.kafka.bootstrap_servers,
        scene.events,
        scene.group,
        journal,
        scene.log_topic,
        protocol,
        # Else it might commit before it learns that it was missed, which ends Arroyo's processor.
        finishes_below=10,
    )
    log = scene.log()
    with PipelineProcess("leader", settings) as first:
        log.wait_for(scene.all_at(10))
        scene.wait_for_commits(10)
        first.pause()
        second = scene.leader(protocol)
        wait_until(lambda: bool(second.assignments), SECONDS, "the second member to take the partition over")
        scene.produce(10)
        log.wait_for(scene.all_at(20))
        first.resume()
        wait_until(lambda: scene.members() == 2, SECONDS, "the first member to come back")
        if protocol == "eager":  # it counts as a member when it asks for partitions, before it is told of any
            wait_until(lambda: len(second.assignments) >= 2, SECONDS, "the end of the rebalance")
        # Also what the first one has written before it knew that it was missed.
        log.read_to_end()
        log.wait_for(scene.all_at(20))
        before = len(log.records)
        second.stop()
        second.producer.close().result(SECONDS)
        log.read_to_end()
        by_both = len(log.records)
        wait_until(lambda: log.newest() != {} and len(log.records) > by_both, SECONDS, "a report of the first member")
        assert {offset for _, offset in log.records[before:]} == {20}
        assert scene.committed() == {0: 20}


def test_a_partition_that_was_retained_goes_on_with_what_was_committed(scene: Scene) -> None:
    """KIP-848: the mapping is past the work in flight, which is neither committed nor published, then or later."""
    scene.create(partitions=2, messages=30)
    first = scene.leader("kip848", finishes_below=10)
    first.wait_for_published((0, 10), (1, 10))
    wait_until(lambda: {(0, 29), (1, 29)} <= set(first.in_flight), SECONDS, "the work in flight")
    scene.leader("kip848", finishes_below=10)
    wait_until(lambda: len(first.assignments) == 2, SECONDS, "the partitions to be shared")
    assert len(first.assignments[1]) == 1
    assert set(first.assignments[1].values()) == {30}, "Arroyo's position"
    (retained,) = first.assignments[1]
    wait_until(
        lambda: first.published_by_step(1).count((retained, 10)) >= 2, SECONDS, "the retained partition's heartbeats"
    )
    assert set(first.published_by_step(1)) == {(retained, 10)}
    assert max(offset for _, offset in first.published) == 10
    assert scene.committed() == {0: 10, 1: 10}


def test_a_leader_with_latest_that_is_killed_at_its_first_message_has_published_what_it_had_committed(
    scene: Scene, tmp_path: Path
) -> None:
    """And no more; the next one goes on at the message that killed it, though nothing was released by its work."""
    scene.create(partitions=1, messages=10)
    handlers = tmp_path / "leader"
    handlers.mkdir()
    (handlers / "handlers.py").write_text(HANDLERS)
    arguments = [
        str(EXAMPLES / "leader.py"),
        *("--bootstrap-servers", scene.kafka.bootstrap_servers, "--topic", scene.events),
        *("--consumer-group", scene.group, "--commit-log-topic", scene.log_topic, "--auto-offset-reset", "latest"),
        *("--max-poll-interval-ms", "6000", "--handler"),
    ]
    log = scene.log()
    with Program(handlers, *arguments, "handlers:die") as program:
        log.wait_for(scene.all_at(10))
        assert scene.committed() == {0: 10}
        scene.produce(1)
        assert program.exit_status() == -signal.SIGKILL
    log.read_to_end()
    assert {offset for _, offset in log.records} == {10}
    assert scene.committed() == {0: 10}
    with Program(handlers, *arguments, "handlers:work") as program:
        program.wait_for(r"^10$")
        log.wait_for(scene.all_at(11))


def test_reports_carry_the_topics_id_as_the_brokers_give_it(scene: Scene) -> None:
    """As text in a header, which Arroyo's own codec passes over."""
    scene.create(partitions=1, messages=20)
    scene.leader()
    described = scene.kafka.admin.describe_topics(TopicCollection([scene.events]))[scene.events].result(SECONDS)
    log = scene.log()
    expected = [("topic_id", canonical_topic_id(str(described.topic_id)).encode())]
    wait_until(lambda: log.newest() != {} and log.headers[-1] == expected, SECONDS, "a report with the topic's id")
    key = f"{scene.events}:0:{scene.group}".encode()
    commit = CommitCodec().decode(KafkaPayload(key, b'{"offset": 20, "orig_message_ts": 1.0}', [*log.headers[-1]]))
    assert commit.offset == 20


def test_an_idle_leader_says_at_once_of_which_topic_it_speaks(scene: Scene) -> None:
    """Where it starts is reported before the brokers have told the topic's id. It may hang before its heartbeat."""
    scene.create(partitions=3, messages=20)
    scene.kafka.commit_offsets(scene.group, scene.events, all_at(range(3), 20))
    scene.leader(heartbeat=3_600.0)
    log = scene.log()

    def named() -> dict[str, int]:
        """By key, the newest report, of those that carry an id."""
        log.read()
        return {key: offset for (key, offset), headers in zip(log.records, log.headers, strict=True) if headers}

    wait_until(lambda: named() == scene.all_at(20), SECONDS, lambda: f"reports with an id, not {named()}")


def test_a_leader_whose_topic_is_created_again_before_it_is_asked_for_takes_no_other_ones_id(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of one that hung at its start. What it reports is of the topic before; with the new one's id, followers would
    believe it."""
    may_ask, asked, ask = threading.Event(), threading.Semaphore(0), Asker.topic_ids

    def ask_late(asker: Asker, topics: Collection[str], timeout: float) -> dict[str, str | KafkaError]:
        assert may_ask.wait(SECONDS)
        answers = ask(asker, topics, timeout)
        if not any(isinstance(each, KafkaError) for each in answers.values()):
            asked.release()
        return answers

    monkeypatch.setattr(Asker, "topic_ids", ask_late)
    scene.create(partitions=1, messages=20)
    scene.kafka.commit_offsets(scene.group, scene.events, {0: 20})
    leader = scene.leader(heartbeat=0.2)
    log = scene.log()
    log.wait_for(scene.all_at(20))
    scene.kafka.recreate_topic(scene.events)
    wait_until(lambda: scene.committed() == {}, SECONDS, "the group's commits to go with the topic")
    may_ask.set()
    for _ in range(3):
        assert asked.acquire(timeout=SECONDS)
    questions = leader.publisher._shared.questions
    assert questions is not None
    assert questions.topic_ids == {}
    with suppress(OffsetOutOfRange):  # how Arroyo ends it, as soon as it has noticed
        leader.stop()
    assert log.newest() == scene.all_at(20)
    assert not any(log.headers)


@pytest.mark.parametrize("what", ["paused", "killed", "topic missing"])
def test_a_dead_commit_log_holds_a_leader_up_for_a_second_at_most(
    what: str, scene: Scene, kafka_cluster: Callable[..., KafkaCluster]
) -> None:
    """Of the 50 seconds that the end of a pipeline may take; its commits are on the broker."""
    scene.create(partitions=3, messages=20)
    log_cluster = scene.kafka if what == "topic missing" else kafka_cluster()
    if what == "topic missing":
        scene.kafka.delete_topic(scene.log_topic)
    else:
        log_cluster.create_topic(scene.log_topic)
    data_configuration = {"bootstrap.servers": scene.kafka.bootstrap_servers}
    leader = scene.leader(log_servers=log_cluster.bootstrap_servers, data_configuration=data_configuration)
    leader.wait_for_published((0, 20), (1, 20), (2, 20))
    if isinstance(log_cluster, KafkaCluster) and what != "topic missing":
        broker = log_cluster.brokers[0]
        broker.pause() if what == "paused" else broker.kill()
    scene.produce(20)
    scene.wait_for_commits(40)
    leader.stop()
    assert len(leader.join_seconds) == 1
    assert leader.join_seconds[0] < JOIN_TIMEOUT_SECONDS / 2, f"{FINISH_SECONDS} s, and what the machine takes"


class MemberProcess:
    """A leader that is a process of its own, which can be killed."""

    def __init__(self, scene: Scene, folder: Path) -> None:
        folder.mkdir()
        self._program = Program(
            folder,
            str(EXAMPLES / "leader.py"),
            *("--bootstrap-servers", scene.kafka.bootstrap_servers, "--topic", scene.events),
            *("--consumer-group", scene.group, "--commit-log-topic", scene.log_topic),
            *("--max-poll-interval-ms", "6000"),
        )

    def __enter__(self) -> MemberProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self._program.__exit__()

    def kill(self) -> None:
        self._program.signal(signal.SIGKILL)
        assert self._program.exit_status() == -signal.SIGKILL


def test_what_a_leader_that_died_had_committed_and_not_reported_is_reported_by_the_next_one(
    scene: Scene, tmp_path: Path
) -> None:
    """Late, at the next one's start, though that one is idle. Here the log takes no record before the leader died."""
    scene.create(partitions=1, messages=20, log_config={"max.message.bytes": "10"})
    follower = scene.follower()
    with MemberProcess(scene, tmp_path / "leader") as member:
        scene.wait_for_commits(20)
        member.kill()
    scene.kafka.set_topic_config(scene.log_topic, {"max.message.bytes": "1000000"})
    assert follower.saw == []
    scene.leader()
    follower.wait_for(20)
    assert follower.saw == [20]


def test_what_a_leader_that_died_had_reported_before_the_broker_had_it_goes_back_and_comes_again(
    scene: Scene, tmp_path: Path
) -> None:
    """The next owner starts from the broker's copy and reports that first, so followers wait; then it comes as far."""
    scene.create(partitions=1, messages=20)
    follower = scene.follower()
    with MemberProcess(scene, tmp_path / "leader") as member:
        follower.wait_for(20)
        member.kill()
    # The broker's copy lags by the commit policy: it may be this one.
    wait_until(lambda: scene.members() == 0, SECONDS, "the group to miss its member")
    scene.kafka.commit_offsets(scene.group, scene.events, {0: 15})
    before = len(follower.saw)
    next_owner = scene.leader(finishes_below=15)
    follower.wait_for(15)
    next_owner.stop()
    scene.leader()
    follower.wait_for(20)
    offsets = follower.saw[before:]
    assert offsets[0] == 15
    assert offsets == sorted(offsets)


def test_a_report_that_arrives_after_the_next_owners_is_set_right_within_a_heartbeat(scene: Scene) -> None:
    """Two members have the partition in turn, and the first one's producer keeps its records for a while."""
    scene.create(partitions=1, messages=10)
    follower = scene.follower()
    first = scene.leader(producer={"linger.ms": 600_000, "message.timeout.ms": 900_000})
    first.wait_for_published((0, 0))
    scene.wait_for_commits(10)
    first.stop()
    assert follower.saw == []
    skipped_seconds = 0.0
    second = scene.leader(heartbeat=3_600.0, clock=lambda: time.monotonic() + skipped_seconds)
    scene.produce(10)
    follower.wait_for(20)
    assert second.published[0] == (0, 10)
    before = len(follower.saw)
    first.close_producer()
    follower.wait_for(0)  # a heartbeat that comes right after it might hide it
    skipped_seconds = 3_600.0
    wait_until(lambda: len(follower.saw) >= before + 2, SECONDS, "the first one's report, and another one")
    assert follower.saw[before:] == [0, 20]
