"""A data topic that is deleted and created again, on a real Kafka: old reports release nothing of the new one."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from arroyo.backends.kafka import KafkaConsumer, KafkaPayload
from arroyo.processing.strategies.abstract import ProcessingStrategy
from arroyo.processing.strategies.run_task import RunTask
from arroyo.types import BrokerValue, Commit, Message, Partition, Topic
from confluent_kafka import KafkaException, TopicCollection

from arroyo_sync.core.errors import TopicMissing, TopicRecreated
from arroyo_sync.core.source import RemoteOffsetSource
from arroyo_sync.kafka.arroyo_consumer import staged_offsets
from arroyo_sync.kafka.commits import commit_staged
from arroyo_sync.kafka.questions import topic_watch
from arroyo_sync.kafka.topic_ids import canonical_topic_id
from arroyo_sync.leaders.commit_log.consumer import CommitLogConsumer
from arroyo_sync.leaders.commit_log.record import TOPIC_ID_HEADER, CommitRecord, encode
from arroyo_sync.leaders.group_offsets import GroupOffsetsSource
from arroyo_sync.testing import ManualSource
from tests.integration.cluster.admin import Kafka
from tests.integration.cluster.followers import PROTOCOLS, Follower, patient_settings, produce_numbered
from tests.integration.cluster.leaders import Leader
from tests.integration.cluster.reading import QUICK, CommitLog
from tests.integration.cluster.waiting import wait_until

TIMEOUT_SECONDS = 60.0
LEADER = "writers"
HANGS_AT = 423
SELDOM = {"topic.metadata.refresh.interval.ms": 600_000}
"""A look at the topics while there is none of that name would end an eager consumer."""

Names = Callable[..., str]


class World:
    """A data topic of one partition, its commit log, and followers of one group after the other."""

    def __init__(self, kafka: Kafka, names: Names) -> None:
        self.kafka = kafka
        self.topic, self.group, log = names("events"), names("follower"), names("commit-log")
        kafka.create_topic(self.topic)
        kafka.create_topic(log)
        self.log = CommitLog(kafka, log)

    @property
    def topic_id(self) -> str:
        described = self.kafka.admin.describe_topics(TopicCollection([self.topic]))[self.topic].result(TIMEOUT_SECONDS)
        return canonical_topic_id(str(described.topic_id))

    @property
    def is_there(self) -> bool:
        """Whether the broker knows the topic."""
        return self.topic in self.kafka.admin.list_topics(timeout=TIMEOUT_SECONDS).topics

    @property
    def committed(self) -> dict[int, int]:
        """What the followers' group has committed, by partition."""
        return self.kafka.committed_offsets(self.group, self.topic)

    def produce(self, count: int) -> None:
        produce_numbered(self.kafka.bootstrap_servers, self.topic, [0], count)

    def recreate(self) -> None:
        self.kafka.recreate_topic(self.topic)

    def report(self, offset: int, topic_id: str | None = None) -> None:
        """As a leader does; one of ours names the topic's id."""
        key, value = encode(CommitRecord(self.topic, 0, LEADER, offset, 0.0))
        headers = [] if topic_id is None else [(TOPIC_ID_HEADER, topic_id.encode())]
        self.log.write(key, value, headers=headers)
        self.log.flush()

    def source(self, start: Any = "all") -> CommitLogConsumer:
        configuration = {"bootstrap.servers": self.kafka.bootstrap_servers, **QUICK}
        return CommitLogConsumer(configuration, topic=Topic(self.log.topic), groups={LEADER}, start=start)

    @contextmanager
    def follower(
        self,
        protocol: str = "eager",
        source: RemoteOffsetSource | None = None,
        is_strict: bool = True,
        reset: str = "earliest",
        settings: Mapping[str, Any] | None = None,
    ) -> Iterator[Follower]:
        """:param is_strict: it ends if its position is beyond the end, else it begins anew."""
        settings = {
            **patient_settings(self.kafka.bootstrap_servers, self.group, protocol),
            "arroyo.strict.offset.reset": is_strict,
            "auto.offset.reset": reset,
            **(settings or {}),
        }
        follower = Follower(settings, self.topic, source=source or self.source())
        follower.start()
        try:
            yield follower
        finally:
            follower.processor.signal_shutdown()
            follower.wait_until_ended()

    def offsets(self, follower: Follower) -> list[int]:
        return [offset for _, offset in follower.received]


@pytest.fixture
def world(kafka: Kafka, topic_name: Names) -> World:
    return World(kafka, topic_name)


def told(caplog: pytest.LogCaptureFixture, *parts: str) -> bool:
    """Whether a line that a person must act on names the leader group and these."""
    lines = [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
    return any(all(part in line for part in (repr(LEADER), *parts)) for line in lines)


@pytest.mark.parametrize("start", ["all", "recent"])
@pytest.mark.parametrize("has_id", [True, False], ids=["with the topic's id", "without an id"])
def test_a_follower_that_is_restarted_first_releases_nothing_of_the_new_topic(
    world: World, caplog: pytest.LogCaptureFixture, has_id: bool, start: str
) -> None:
    """However far it has grown: the reports are of the earlier one, which a line says. It goes on with the leader."""
    world.produce(423)
    world.report(423, world.topic_id if has_id else None)
    world.recreate()
    world.produce(791)
    with world.follower(source=world.source(start)) as follower:
        wait_until(lambda: told(caplog, "423", "earlier topic"), TIMEOUT_SECONDS, "a line that names the group")
        assert follower.received == []
        world.report(100, world.topic_id if has_id else None)
        follower.wait_until_received(100, TIMEOUT_SECONDS)
        world.report(791, world.topic_id if has_id else None)
        follower.wait_until_received(791, TIMEOUT_SECONDS)
        assert world.offsets(follower) == list(range(791))


def test_a_leader_that_lives_through_it_is_told_from_one_that_reads_the_new_topic(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """Its heartbeat repeats what it had committed of the earlier topic, or commits one more: both carry the old id."""
    earlier = world.topic_id
    world.produce(423)
    world.report(423, earlier)
    world.recreate()
    world.produce(900)
    with world.follower() as follower:
        for rejected, offset in ((1, 423), (2, 424)):
            world.report(offset, earlier)
            wait_until(
                lambda rejected=rejected: follower.factory.snapshot().source.impossible >= rejected,  # type: ignore[misc, union-attr]
                TIMEOUT_SECONDS,
                "the report to be rejected",
            )
        wait_until(lambda: told(caplog, "another topic id"), TIMEOUT_SECONDS, "a line that names the group")
        assert follower.received == []
        world.report(900, world.topic_id)
        follower.wait_until_received(900, TIMEOUT_SECONDS)
        assert world.offsets(follower) == list(range(900))


class HangingLeader(Leader):
    """A leader whose handler hangs in the message at `HANGS_AT` until it is told to go on."""

    def __init__(self, *arguments: Any) -> None:
        self.hangs, self.may_go_on = threading.Event(), threading.Event()
        super().__init__(*arguments)

    def create_with_partitions(
        self, commit: Commit, partitions: Mapping[Partition, int]
    ) -> ProcessingStrategy[KafkaPayload]:
        step: ProcessingStrategy[Any] = super().create_with_partitions(commit, partitions)
        return RunTask(self._handle, step)

    def _handle(self, message: Message[KafkaPayload]) -> KafkaPayload:
        assert isinstance(message.value, BrokerValue)
        if message.value.offset == HANGS_AT and not self.may_go_on.is_set():
            self.hangs.set()
            assert self.may_go_on.wait(5 * TIMEOUT_SECONDS)  # longer than all that the test waits for meanwhile
        return message.payload


def test_a_leader_that_hangs_meanwhile_commits_a_message_of_the_earlier_topic(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """What it then reports is of that one, as its topic id says. Restarted at the new beginning, it releases all."""
    servers = world.kafka.bootstrap_servers
    # A strict one would end if its client asked for messages of the new topic before there are as many.
    leader_settings: dict[str, Any] = {
        **patient_settings(servers, LEADER, "eager"),
        **SELDOM,
        "arroyo.strict.offset.reset": False,
    }
    arguments = leader_settings, world.topic, world.log.topic, {"bootstrap.servers": servers}
    world.produce(HANGS_AT + 1)
    leader = HangingLeader(*arguments)
    with leader:
        assert leader.hangs.wait(TIMEOUT_SECONDS)
        leader.wait_for_published_with_id((0, HANGS_AT))  # the first report is written before the id is known
        world.recreate()
        world.produce(900)
        with world.follower() as follower:
            wait_until(lambda: told(caplog, str(HANGS_AT), "another topic id"), TIMEOUT_SECONDS, "its last report")
            leader.may_go_on.set()
            leader.wait_for_published((0, HANGS_AT + 1))
            wait_until(
                lambda: follower.factory.snapshot().source.impossible >= 2,  # type: ignore[union-attr]
                TIMEOUT_SECONDS,
                "the report of that message to be rejected",
            )
            assert follower.received == []
            leader.stop()
            world.kafka.commit_offsets(LEADER, world.topic, {0: 0})
            with Leader(*arguments) as restarted:
                restarted.wait_for_published((0, 900))
                follower.wait_until_received(900, TIMEOUT_SECONDS)
            assert world.offsets(follower) == list(range(900))


def test_reports_are_not_outgrown_by_a_topic_that_is_empty_at_first(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """What was beyond the end when the follower started stays so."""
    world.produce(423)
    world.report(423)
    world.recreate()
    with world.follower() as follower:
        wait_until(lambda: told(caplog, "423", "ends at 0"), TIMEOUT_SECONDS, "a line that names the group")
        world.produce(900)
        wait_until(lambda: follower.held == 900, TIMEOUT_SECONDS, "all messages to be held")
        assert follower.received == []
        world.report(500)
        follower.wait_until_received(500, TIMEOUT_SECONDS)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_living_follower_ends_and_begins_at_the_new_topics_beginning(world: World, protocol: str) -> None:
    """It would read on in the middle. Restarted, it gets every message of the new topic."""
    world.produce(423)
    world.report(423, world.topic_id)
    # A strict one may find its position beyond the end before all is written; that ends it, too.
    with world.follower(protocol, is_strict=False, settings=SELDOM) as follower:
        follower.wait_until_received(423, TIMEOUT_SECONDS)
        wait_until(lambda: world.committed == {0: 423}, TIMEOUT_SECONDS, "its commit")
        world.recreate()
        world.produce(900)
        error = follower.wait_until_ended()
        assert isinstance(error, TopicRecreated), error
        assert error.topic_id == world.topic_id
        assert len(follower.received) == 423
    assert world.committed == {0: 0}
    world.report(900, world.topic_id)
    with world.follower(protocol) as follower:
        follower.wait_until_received(900, TIMEOUT_SECONDS)
        assert world.offsets(follower) == list(range(900))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_follower_that_ends_before_it_is_noticed_begins_at_the_new_topics_beginning(
    world: World, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out of range, as Arroyo ends it, or with the commit that it makes: the topic's id is asked once more."""
    world.produce(423)
    world.report(423, world.topic_id)
    source = world.source()
    with world.follower(protocol, source, settings=SELDOM) as follower:
        follower.wait_until_received(423, TIMEOUT_SECONDS)
        wait_until(lambda: world.committed == {0: 423}, TIMEOUT_SECONDS, "its commit")
        wait_until(lambda: bool(source._verifier._topics.ids), TIMEOUT_SECONDS, "it to know the topic's id")
        monkeypatch.setattr(topic_watch, "INTERVAL_SECONDS", 1_000.0)
        world.recreate()
        world.produce(10)
        assert follower.wait_until_ended() is not None
    assert world.committed == {0: 0}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_is_staged_of_a_deleted_topic_does_not_reach_the_next_one_of_its_name(world: World, protocol: str) -> None:
    """That is created after the source has asked, and before librdkafka commits what it has stored: as its partitions
    are revoked, which KIP-848 does at once, or at the end."""
    world.produce(423)
    world.report(423, world.topic_id)
    source = world.source()
    settings = {"arroyo.enable.auto.commit": True, "auto.commit.interval.ms": 600_000, **SELDOM}
    with world.follower(protocol, source, is_strict=False, settings=settings) as follower:
        follower.wait_until_received(423, TIMEOUT_SECONDS)
        wait_until(lambda: bool(source._verifier._topics.ids), TIMEOUT_SECONDS, "it to know the topic's id")
        assert follower.flow is not None
        log = follower.flow._replaced_log
        check_topic, answers = log._check_topic, list[Exception | None]()

        def create_after(timeout: float) -> None:
            assert check_topic is not None
            try:
                check_topic(max(timeout, TIMEOUT_SECONDS))  # a broker may stand still for longer than the gate asks
            except TopicMissing as missing:
                if not answers:
                    world.kafka.create_topic(world.topic)
                    world.produce(900)
                answers.append(missing)
                raise

        log._check_topic = create_after
        world.kafka.admin.delete_topics([world.topic])[world.topic].result(TIMEOUT_SECONDS)
        # That it is deleted, the broker may show a moment later; and by then it may be created.
        wait_until(lambda: bool(answers) or not world.is_there, TIMEOUT_SECONDS, "the topic to be gone")
    assert answers
    assert world.committed.get(0, 0) == 0


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("is_auto", [False, True], ids=["Arroyo's commits", "auto-commit"])
def test_the_beginning_is_committed_though_more_was_committed_there(world: World, protocol: str, is_auto: bool) -> None:
    """And is there before the client closes: librdkafka's auto-commit doesn't go back until then, if it ever does."""
    source = ManualSource()
    settings = {"arroyo.enable.auto.commit": is_auto, "auto.commit.interval.ms": 200} if is_auto else {}
    world.produce(90)
    with world.follower(protocol, source=source, settings=settings) as follower:
        wait_until(lambda: follower.held == 90, TIMEOUT_SECONDS, "all messages to be held")
        source.set_remote_offset(world.topic, 0, 60)
        follower.wait_until_received(60, TIMEOUT_SECONDS)
        wait_until(lambda: world.committed == {0: 60}, TIMEOUT_SECONDS, "its commit")
        assert follower.flow is not None
        assert source.manager is not None
        inner, at_close = follower.flow._inner, []
        close = inner.close

        def close_noting(timeout: float | None = None) -> None:
            at_close.append(world.committed)
            close(timeout)

        inner.close = close_noting  # type: ignore[method-assign]
        source.manager.fail(TopicRecreated(world.topic, "earlier", world.topic_id))
        assert isinstance(follower.wait_until_ended(), TopicRecreated)
    assert at_close == [{0: 0}]
    assert world.committed == {0: 0}


@contextmanager
def not_polling(follower: Follower) -> Iterator[None]:
    """Within, the follower's processor stands before its next poll."""
    flow = follower.flow
    assert flow is not None
    poll, stands, may_go_on = flow.poll, threading.Event(), threading.Event()

    def wait_and_poll(timeout: float | None = None) -> Any:
        stands.set()
        assert may_go_on.wait(5 * TIMEOUT_SECONDS)
        return poll(timeout)

    flow.poll = wait_and_poll  # type: ignore[method-assign]
    try:
        assert stands.wait(TIMEOUT_SECONDS)
        yield
    finally:
        may_go_on.set()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_topic_that_has_fewer_partitions_now_begins_anew_in_those(
    world: World, protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The others have no beginning. The follower doesn't wait for them until its time is up."""
    source = ManualSource()
    world.kafka.add_partitions(world.topic, 3)
    produce_numbered(world.kafka.bootstrap_servers, world.topic, [0, 1, 2], 90)
    # Whether it is given the lost partition's end or not, a strict one would end.
    with world.follower(protocol, source=source, is_strict=False, settings=SELDOM) as follower:
        wait_until(lambda: follower.held == 270, TIMEOUT_SECONDS, "all messages to be held")
        for index in range(3):
            source.set_remote_offset(world.topic, index, 60)
        follower.wait_until_received(180, TIMEOUT_SECONDS)
        wait_until(lambda: world.committed == {0: 60, 1: 60, 2: 60}, TIMEOUT_SECONDS, "its commits")
        # A KIP-848 group soon takes away a partition that is gone, of which the follower hears by polling.
        with not_polling(follower):
            world.kafka.recreate_topic(world.topic, 2)
            assert source.manager is not None
            source.manager.fail(TopicRecreated(world.topic, "earlier", world.topic_id))
        error = follower.wait_until_ended()
        assert isinstance(error, TopicRecreated), error
    assert {index: world.committed.get(index) for index in range(2)} == {0: 0, 1: 0}
    assert f"The new topic has no {world.topic}[2]" in caplog.text
    assert not [each for each in caplog.records if each.levelno >= logging.ERROR and "commit" in each.getMessage()]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("is_auto", [False, True], ids=["Arroyo's commits", "auto-commit"])
def test_what_the_brokers_refuse_of_a_single_partition_is_raised(world: World, protocol: str, is_auto: bool) -> None:
    """As of one that the topic hasn't any more. Arroyo looks at no partition's result, and would take it for committed;
    librdkafka raises it, and leaves what is staged."""
    world.kafka.add_partitions(world.topic, 2)
    settings = patient_settings(world.kafka.bootstrap_servers, world.group, protocol)
    if is_auto:
        settings |= {"arroyo.enable.auto.commit": True, "auto.commit.interval.ms": 60_000}
    consumer = KafkaConsumer(settings)
    consumer.subscribe([Topic(world.topic)])
    try:
        offsets = {Partition(Topic(world.topic), index): 0 for index in range(2)}
        wait_until(lambda: consumer.poll(0.1) is None and len(consumer.tell()) == 2, TIMEOUT_SECONDS, "the assignment")
        world.kafka.recreate_topic(world.topic, 1)
        consumer.stage_offsets(offsets)
        with pytest.raises(KafkaException, match="UNKNOWN_TOPIC_OR_PART"):
            commit_staged(consumer, offsets)
        assert world.committed == {0: 0}
        assert staged_offsets(consumer) == (None if is_auto else offsets)
    finally:
        consumer.close()


def test_a_follower_that_began_on_the_new_topic_loses_nothing_of_it_with_latest(world: World) -> None:
    """It was assigned anew before it was noticed. The end of the topic is past where it began by the time it ends."""
    source = ManualSource()
    with world.follower(source=source, reset="latest") as follower:
        wait_until(lambda: follower.assignments == [{0: 0}], TIMEOUT_SECONDS, "the assignment")
        world.produce(90)
        wait_until(lambda: follower.held == 90, TIMEOUT_SECONDS, "all messages to be held")
        assert source.manager is not None
        source.manager.fail(TopicRecreated(world.topic, "earlier", world.topic_id))
        assert isinstance(follower.wait_until_ended(), TopicRecreated)
    assert world.committed == {0: 0}


def test_group_offsets_of_the_earlier_topic_release_nothing(world: World) -> None:
    """A deleted topic takes its groups' commits with it; what a leader commits on the new one counts."""
    configuration = {"bootstrap.servers": world.kafka.bootstrap_servers, **QUICK}
    world.produce(423)
    world.kafka.commit_offsets(LEADER, world.topic, {0: 423})
    world.recreate()
    world.produce(900)
    with world.follower(source=GroupOffsetsSource(configuration, groups={LEADER})) as follower:
        wait_until(lambda: follower.held == 900, TIMEOUT_SECONDS, "all messages to be held")
        assert follower.received == []
        world.kafka.commit_offsets(LEADER, world.topic, {0: 7})
        follower.wait_until_received(7, TIMEOUT_SECONDS)
        assert world.offsets(follower) == list(range(7))


def test_a_suspect_report_is_lifted_by_the_groups_own_commit(world: World) -> None:
    """A topic whose timestamps aren't the time of writing looks like a new one. The group's commit shows it isn't."""
    world.report(50)
    world.produce(100)  # after the report, as the timestamps of mirrored messages would say
    source = world.source()
    with world.follower(source=source) as follower:
        wait_until(lambda: follower.held == 100, TIMEOUT_SECONDS, "all messages to be held")
        wait_until(lambda: bool(source._offsets.suspects()), TIMEOUT_SECONDS, "the report to be suspect")
        assert follower.received == []
        world.kafka.commit_offsets(LEADER, world.topic, {0: 50})
        follower.wait_until_received(50, TIMEOUT_SECONDS)
        assert world.offsets(follower) == list(range(50))
