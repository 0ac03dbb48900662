"""``arroyo-sync status`` on the real broker, beside what Kafka's own tools say of the same cluster."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer

from arroyo_sync.leaders.commit_log.record import CommitRecord, encode
from tests.integration.cluster.admin import Kafka
from tests.integration.cluster.cluster import KafkaCluster
from tests.integration.cluster.followers import produce_numbered
from tests.integration.cluster.jars import fetch, java
from tests.integration.cluster.waiting import wait_until
from tests.support.programs import ending
from tests.support.requirements import require_program
from tests.support.threads import repeated

PARTITIONS = 3
TIMEOUT_SECONDS = 120.0
CONSUMER_GROUPS = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"


class World:
    """A data topic of 100 messages a partition, two leader groups that publish their commits, and a follower group."""

    def __init__(self, kafka: Kafka, name: Callable[..., str]) -> None:
        self.kafka = kafka
        self.topic, self.commit_log = name("events"), name("commits")
        self.writers, self.indexers, self.follower = name("writers"), name("indexers:blue"), name("forwarder")
        kafka.create_topic(self.topic, PARTITIONS)
        kafka.create_topic(self.commit_log, 2, {"cleanup.policy": "compact,delete"})
        produce_numbered(kafka.bootstrap_servers, self.topic, range(PARTITIONS), 100)

    def publish(self, group: str, offsets: Mapping[int, int], age_seconds: float = 0.0) -> None:
        producer = Producer({"bootstrap.servers": self.kafka.bootstrap_servers, "linger.ms": 0, "log_level": 0})
        for partition, offset in offsets.items():
            key, value = encode(CommitRecord(self.topic, partition, group, offset, time.time()))
            written_at = time.time() - age_seconds
            producer.produce(self.commit_log, value, key, timestamp=round(written_at * 1000))
        assert producer.flush(30) == 0

    def arguments(self, *more: str, with_commit_log: bool = True) -> list[str]:
        arguments = ["status", "--bootstrap-servers", self.kafka.bootstrap_servers, "--topic", self.topic]
        arguments += ["--leader-group", self.writers, "--leader-group", self.indexers]
        arguments += ["--follower-group", self.follower]
        if with_commit_log:
            arguments += ["--commit-log", self.commit_log]
        return [sys.executable, "-m", "arroyo_sync", *arguments, *more]

    def status(self, *more: str, with_commit_log: bool = True) -> tuple[int, Any]:
        """The exit status and the JSON, from a process of its own."""
        command = self.arguments("--json", *more, with_commit_log=with_commit_log)
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS)
        assert done.stderr == ""
        return done.returncode, json.loads(done.stdout)


@pytest.fixture
def world(kafka: Kafka, topic_name: Callable[..., str]) -> World:
    return World(kafka, topic_name)


def test_status_says_what_kafka_consumer_groups_says(world: World) -> None:
    """Committed offsets and log ends, for the follower and both leader groups, at the same moment."""
    world.kafka.commit_offsets(world.follower, world.topic, {0: 100, 1: 40})
    world.kafka.commit_offsets(world.writers, world.topic, {0: 100, 1: 60, 2: 70})
    world.kafka.commit_offsets(world.indexers, world.topic, {0: 100, 1: 50})
    world.publish(world.writers, {0: 100, 1: 60, 2: 70})
    world.publish(world.indexers, {0: 100, 1: 50})
    _, told = world.status()

    groups = [world.follower, world.writers, world.indexers]
    command = [str(java()), "-cp", f"{fetch()}/*", CONSUMER_GROUPS, "--bootstrap-server", world.kafka.bootstrap_servers]
    command += ["--timeout", "60000"]  # by default five seconds, and the JVM is cold
    command += ["--describe", *(part for group in groups for part in ("--group", group))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS)
    line = re.compile(rf"^(\S+)\s+{world.topic}\s+(\d+)\s+(\d+|-)\s+(\d+)\s+(\d+|-)\s", re.MULTILINE)
    theirs = {(group, int(index)): (offset, end) for group, index, offset, end, _ in line.findall(done.stdout)}
    assert len(theirs) == 7, done.stdout + done.stderr

    ours: dict[tuple[str, int], tuple[str, str]] = {}
    for partition in told["partitions"]:
        end, index = str(partition["high_watermark"]), partition["partition"]
        commits = {each["group"]: each["committed_offset"] for each in partition["leaders"]}
        for group, offset in {**commits, world.follower: partition["local_offset"]}.items():
            if offset is not None:
                ours[group, index] = (str(offset), end)
    assert ours == theirs


def test_status_says_what_kcat_says(world: World) -> None:
    """Low and high watermarks of the data topic, records having been deleted; and the records of the commit log."""
    kcat = require_program("the comparison with another client", "kcat", "kcat", "kafkacat")
    world.kafka.delete_records(world.topic, {1: 25})
    world.publish(world.writers, {0: 1, 1: 61, 2: 71})
    world.publish(world.writers, {0: 100})
    _, told = world.status()

    server = ["-b", world.kafka.bootstrap_servers, "-m", str(round(TIMEOUT_SECONDS))]
    theirs = {}
    for index in range(PARTITIONS):
        ends = []
        for place in (-2, -1):
            query = [kcat, *server, "-Q", "-t", f"{world.topic}:{index}:{place}"]
            answer = subprocess.run(query, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=True).stdout
            ends.append(int(answer.split()[-1]))
        theirs[index] = tuple(ends)
    ours = {each["partition"]: (each["low_watermark"], each["high_watermark"]) for each in told["partitions"]}
    assert ours == theirs == {0: (0, 100), 1: (25, 100), 2: (0, 100)}

    consume = [kcat, *server, "-C", "-e", "-q", "-t", world.commit_log, "-f", "%k %s\n"]
    records = subprocess.run(consume, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=True).stdout
    last = dict(line.split(" ", 1) for line in records.splitlines())
    published = {
        f"{world.topic}:{each['partition']}:{leader['group']}": leader["published_offset"]
        for each in told["partitions"]
        for leader in each["leaders"]
        if leader["published_offset"] is not None
    }
    assert published == {key: json.loads(value)["offset"] for key, value in last.items()}


def test_the_lags_and_who_is_waited_for(world: World) -> None:
    """Gated and slow, the group that blocks, and a group of a name with a colon that never published of a partition."""
    world.kafka.commit_offsets(world.follower, world.topic, {0: 100, 1: 40, 2: 10})
    world.publish(world.writers, {0: 100, 1: 60, 2: 70})
    world.publish(world.indexers, {0: 100, 1: 50})
    exit_status, told = world.status()
    assert [
        (each["state"], each["remote_offset"], each["gated_lag"], each["released_lag"], each["blocked_by"])
        for each in told["partitions"]
    ] == [
        ("SYNCHRONIZED", 100, 0, 0, None),
        ("LOCAL_BEHIND", 50, 50, 10, world.indexers),
        ("UNKNOWN", None, 90, 0, world.indexers),
    ]
    assert exit_status == 0  # nothing has stood still for five minutes
    (writers,) = (each for each in told["partitions"][1]["leaders"] if each["group"] == world.writers)
    assert 0 <= writers["age_seconds"] < TIMEOUT_SECONDS


SOON = ("--stalled-after", "0.001", "--look-again", "0.5")


def test_the_exit_status_serves_as_a_check(world: World) -> None:
    """1 while the follower waits for a leader, or for itself; 0 once all is done; 2 when it can't be told."""
    done = dict.fromkeys(range(PARTITIONS), 100)
    world.kafka.commit_offsets(world.follower, world.topic, {**done, 2: 70})
    world.publish(world.writers, done)
    world.publish(world.indexers, {**done, 2: 70})
    exit_status, told = world.status(*SOON)
    assert (exit_status, told["status"]) == (1, "stalled")
    assert [(each["partition"], each["waits_for"], each["group"], each["behind"]) for each in told["stalls"]] == [
        (2, "leader", world.indexers, 30)
    ]

    world.publish(world.indexers, done)
    exit_status, told = world.status(*SOON)
    assert [(each["partition"], each["waits_for"]) for each in told["stalls"]] == [(2, "follower")]
    assert exit_status == 1

    world.kafka.commit_offsets(world.follower, world.topic, done)
    assert world.status(*SOON)[0] == 0

    nobody = world.arguments("--json", "--follower-group", "nobody")
    assert subprocess.run(nobody, capture_output=True, timeout=TIMEOUT_SECONDS).returncode == 2
    missing = subprocess.run(
        world.arguments("--json", "--topic", "nowhere"), capture_output=True, text=True, timeout=TIMEOUT_SECONDS
    )
    assert missing.returncode == 2
    assert "topic 'nowhere' doesn't exist" in missing.stderr


def test_a_leader_that_heartbeats_and_does_not_move_is_told_at_one_look(world: World) -> None:
    """Its last report is a second old, but the commit log tells that it has been the same for 400 seconds."""
    done = dict.fromkeys(range(PARTITIONS), 100)
    world.kafka.commit_offsets(world.follower, world.topic, done)
    world.publish(world.indexers, {**done, 1: 101})
    world.publish(world.writers, done, age_seconds=400)
    world.publish(world.writers, done, age_seconds=1)
    producer = Producer({"bootstrap.servers": world.kafka.bootstrap_servers, "log_level": 0})
    producer.produce(world.topic, b"hangs", partition=1, timestamp=round((time.time() - 350) * 1000))
    assert producer.flush(30) == 0
    # However long the look takes to begin.
    with repeated(lambda: world.publish(world.writers, done), 1.0, TIMEOUT_SECONDS):
        exit_status, told = world.status("--look-again", "0.5")
    assert [(each["partition"], each["group"]) for each in told["stalls"]] == [(1, world.writers)]
    assert 350 <= told["stalls"][0]["waiting_seconds"] < 350 + TIMEOUT_SECONDS
    assert exit_status == 1


def test_a_commit_log_that_does_not_exist_is_one_line(world: World) -> None:
    """And exit status 2."""
    done = subprocess.run(
        world.arguments("--json", "--commit-log", "nowhere"), capture_output=True, text=True, timeout=TIMEOUT_SECONDS
    )
    assert done.returncode == 2
    assert done.stderr.startswith("arroyo-sync: topic 'nowhere' doesn't exist")
    assert done.stderr.endswith(". Is the name right?\n"), "no argument of the Python class"
    assert done.stderr.count("\n") == 1


def test_an_impossible_offset_is_shown_as_one_and_opens_nothing(world: World) -> None:
    """The data topic was deleted and created again under an old commit log."""
    world.publish(world.writers, {0: 5000})
    world.publish(world.indexers, {0: 50})
    _, told = world.status()
    first = told["partitions"][0]
    assert (first["remote_offset"], first["state"], first["blocked_by"]) == (None, "UNKNOWN", world.writers)
    assert [each["is_rejected"] for each in first["leaders"] if each["group"] == world.writers] == [True]


def test_an_old_report_that_the_new_topic_has_outgrown_is_not_the_followers_stall(world: World) -> None:
    """The follower holds what the report would release. What the leader's group has committed lifts the suspicion."""
    done = dict.fromkeys(range(PARTITIONS), 100)
    world.publish(world.writers, {**done, 0: 42}, age_seconds=60)
    world.publish(world.indexers, done, age_seconds=60)
    world.kafka.recreate_topic(world.topic)
    produce_numbered(world.kafka.bootstrap_servers, world.topic, range(PARTITIONS), 100)
    world.kafka.commit_offsets(world.follower, world.topic, {**done, 0: 0})
    world.kafka.commit_offsets(world.writers, world.topic, {**done, 0: 41})
    world.kafka.commit_offsets(world.indexers, world.topic, done)
    exit_status, told = world.status(*SOON)
    assert (exit_status, grades(told)) == (2, {0: "unknown", 1: "ok", 2: "ok"})
    assert (told["verdicts"][0]["group"], told["partitions"][0]["remote_offset"]) == (world.writers, None)
    said = f"group '{world.writers}' has published 42, which is from before its first message"
    assert told["verdicts"][0]["reason"].startswith(said)
    world.kafka.commit_offsets(world.writers, world.topic, {0: 42})
    exit_status, told = world.status(*SOON)
    assert (exit_status, [each["waits_for"] for each in told["stalls"]]) == (1, ["follower"])


@pytest.mark.parametrize("with_commit_log", [True, False], ids=["recent", "no commit log"])
def test_what_leaders_commit_on_the_broker_counts_where_they_publish_nothing(
    world: World, with_commit_log: bool
) -> None:
    """Without a commit log, and with the recent end of one that says nothing of a partition."""
    commits = {0: 30, 1: 40, 2: 50}
    world.kafka.commit_offsets(world.follower, world.topic, commits)
    world.kafka.commit_offsets(world.writers, world.topic, commits)
    world.kafka.commit_offsets(world.indexers, world.topic, dict.fromkeys(commits, 90))
    more = ["--recent"] if with_commit_log else []
    _, told = world.status(*more, with_commit_log=with_commit_log)
    assert [each["remote_offset"] for each in told["partitions"]] == [30, 40, 50]


def test_it_reads_only(world: World) -> None:
    """It makes no group, joins none, and creates no topic."""

    def groups() -> set[str]:
        return {each.group_id for each in world.kafka.admin.list_consumer_groups().result(30).valid}

    def topics() -> set[str]:
        return set(world.kafka.admin.list_topics(timeout=30).topics)

    world.kafka.commit_offsets(world.follower, world.topic, {0: 10})
    before = groups(), topics()
    world.status(*SOON)
    assert (groups(), topics()) == before
    assert world.kafka.committed_offsets(world.follower, world.topic) == {0: 10}


def test_watch_looks_again_and_again_until_it_is_interrupted(world: World) -> None:
    """Each line of JSON is a later look, and shows what was published in between."""
    world.publish(world.writers, {0: 10})
    world.publish(world.indexers, {0: 100})
    command = world.arguments("--json", "--watch", "0.1")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process, ending(process):
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["partitions"][0]["remote_offset"] == 10
        world.publish(world.writers, {0: 20})
        looks = (json.loads(line) for line in process.stdout)
        assert any(look["partitions"][0]["remote_offset"] == 20 for look in looks), "the watch has ended"
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.wait(TIMEOUT_SECONDS) in (0, 2)  # the last look's


def test_the_table_shows_the_same(world: World) -> None:
    """For people, whole, with the legend."""
    world.kafka.commit_offsets(world.follower, world.topic, {1: 40})
    world.publish(world.writers, {1: 60})
    world.publish(world.indexers, {1: 50})
    done = subprocess.run(world.arguments(), capture_output=True, text=True, timeout=TIMEOUT_SECONDS)
    assert done.returncode == 0, done.stderr
    rows = [" ".join(line.split()) for line in done.stdout.splitlines()]
    row = r"1 waiting \S+ (s|min) ~10 \S+ (s|min) 40 50 100 50 \S+ s - 60 \S+ s - 0 LOCAL_BEHIND "
    row += r"the follower \(no members\)"
    assert any(re.fullmatch(row, each) for each in rows), done.stdout
    assert any("Every offset is the next one" in row for row in rows)


def grades(told: Mapping[str, Any]) -> dict[int, str]:
    return {each["partition"]: each["grade"] for each in told["verdicts"]}


def test_a_leader_that_stopped_is_told_at_the_next_look(world: World) -> None:
    """It waits since its last report, whatever producers wrote as their messages' time; then it stands still."""
    done = dict.fromkeys(range(PARTITIONS), 100)
    world.kafka.commit_offsets(world.follower, world.topic, done)
    for group in (world.writers, world.indexers):
        world.publish(group, done, age_seconds=40)
        world.kafka.commit_offsets(group, world.topic, done)  # else so old a report is of an earlier topic
    long_ago, in_the_future = 1, round(time.time() * 1000) + 1_800_000  # brokers take an hour
    producer = Producer({"bootstrap.servers": world.kafka.bootstrap_servers, "log_level": 0})
    producer.produce(world.topic, b"late", partition=1, timestamp=long_ago)
    producer.produce(world.topic, b"late", partition=2, timestamp=in_the_future)
    assert producer.flush(30) == 0
    exit_status, told = world.status("--look-again", "0.5")
    assert (exit_status, grades(told)) == (0, {0: "ok", 1: "waiting", 2: "waiting"})
    for verdict in told["verdicts"][:2]:
        assert 40 <= verdict["waiting_seconds"] < 40 + TIMEOUT_SECONDS
        assert (verdict["waits_for"], verdict["behind"], verdict["behind_is_exact"]) == ("leader", 1, True)
        assert verdict["group"] in (world.writers, world.indexers)
    exit_status, told = world.status("--look-again", "0.5", "--stalled-after", "30")
    assert (exit_status, grades(told)) == (1, {0: "ok", 1: "stalled", 2: "stalled"})


def test_offsets_that_hold_no_message_do_not_wait(world: World) -> None:
    """Two interleaved transactions of a message each; a message and twenty aborted ones; a marker."""
    name = f"{world.topic}-transactions"
    world.kafka.create_topic(name, PARTITIONS)
    settings = {"bootstrap.servers": world.kafka.bootstrap_servers, "log_level": 0}
    first, second = (Producer({**settings, "transactional.id": f"{name}-{each}"}) for each in range(2))
    for producer in (first, second):
        producer.init_transactions(60)
        producer.begin_transaction()
        producer.produce(name, b"one", partition=0)
        assert producer.flush(30) == 0
    first.produce(name, b"one", partition=2)
    for producer in (first, second):
        producer.commit_transaction(60)
    for aborts in (False, True):
        first.begin_transaction()
        for _ in range(20 if aborts else 1):
            first.produce(name, b"one", partition=1)
        first.flush(30)
        if aborts:
            first.abort_transaction(60)
        else:
            first.commit_transaction(60)
    ends = {0: 4, 1: 23, 2: 2}
    # A transaction has ended before its markers are written.
    wait_until(
        lambda: {index: end for index, (_, end) in world.kafka.watermarks(name).items()} == ends,
        TIMEOUT_SECONDS,
        lambda: f"the markers: {world.kafka.watermarks(name)}",
    )
    world.topic = name
    received = {0: 2, 1: 1, 2: 1}
    world.kafka.commit_offsets(world.follower, name, received)
    world.publish(world.writers, received)
    world.publish(world.indexers, received)
    exit_status, told = world.status(*SOON)
    assert {each["partition"]: each["high_watermark"] for each in told["partitions"]} == ends
    assert (exit_status, grades(told)) == (0, {0: "ok", 1: "ok", 2: "ok"})


def test_a_transaction_that_hangs_is_not_ok_and_is_named(world: World) -> None:
    """Nobody who reads committed messages gets past its beginning, however much comes after it."""
    name = f"{world.topic}-hanging"
    world.kafka.create_topic(name, PARTITIONS)
    settings = {"bootstrap.servers": world.kafka.bootstrap_servers, "log_level": 0}
    # It hangs for longer than the test takes.
    producer = Producer({**settings, "transactional.id": f"{name}-one", "transaction.timeout.ms": 600_000})
    producer.init_transactions(60)
    producer.begin_transaction()
    producer.produce(name, b"one", partition=0)
    assert producer.flush(30) == 0
    produce_numbered(world.kafka.bootstrap_servers, name, [0], 9)
    world.topic = name
    done = dict.fromkeys(range(PARTITIONS), 0)
    world.kafka.commit_offsets(world.follower, name, done)
    world.publish(world.writers, done)
    world.publish(world.indexers, done)
    exit_status, told = world.status(*SOON, "--no-members")
    producer.abort_transaction(60)
    assert (exit_status, grades(told)) == (0, {0: "waiting", 1: "ok", 2: "ok"})
    (reason,) = [each["reason"] for each in told["verdicts"] if each["partition"] == 0]
    assert reason.startswith("A transaction is open from offset 0 on")


def test_a_name_that_nobody_commits_under_is_exit_status_2_without_a_commit_log(world: World) -> None:
    """Nobody else's name is known there."""
    done = dict.fromkeys(range(PARTITIONS), 100)
    for group in (world.follower, world.writers, world.indexers):
        world.kafka.commit_offsets(group, world.topic, done)
    assert world.status(with_commit_log=False)[0] == 0
    exit_status, told = world.status("--leader-group", "typo", with_commit_log=False)
    assert (exit_status, set(grades(told).values())) == (2, {"unknown"})
    assert told["doubts"] == ["group 'typo' has committed nothing of this topic: is its name right, and has it run?"]


def test_what_can_not_be_right_is_exit_status_2_and_says_what_is_there(world: World) -> None:
    """A group that never reported, several groups in one flag, and names that are each other's."""
    done = dict.fromkeys(range(PARTITIONS), 100)
    world.kafka.commit_offsets(world.follower, world.topic, done)
    world.publish(world.writers, done)
    world.publish(world.indexers, done)
    exit_status, told = world.status("--leader-group", "typo")
    names = ", ".join(repr(each) for each in sorted((world.writers, world.indexers)))
    assert (exit_status, set(grades(told).values())) == (2, {"unknown"})
    assert told["doubts"] == [f"group 'typo' has never reported of this topic: is its name right? These have: {names}"]
    exit_status, told = world.status("--leader-group", "a,b")
    assert exit_status == 2
    assert told["doubts"][0].endswith("are these several groups? Give --leader-group for each")
    for flag, name in (("--leader-group", world.follower), ("--commit-log", world.topic)):
        wrong = subprocess.run(
            world.arguments("--json", flag, name), capture_output=True, text=True, timeout=TIMEOUT_SECONDS
        )
        assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)


def test_a_follower_that_can_not_start_is_exit_status_1_with_its_reason(world: World) -> None:
    """Its offset was deleted, or was never there."""
    world.kafka.delete_records(world.topic, {0: 50})
    world.kafka.commit_offsets(world.follower, world.topic, {0: 20, 1: 500, 2: 100})
    for group in (world.writers, world.indexers):
        world.publish(group, dict.fromkeys(range(PARTITIONS), 100))
    exit_status, told = world.status()
    assert (exit_status, grades(told)) == (1, {0: "stalled", 1: "stalled", 2: "ok"})
    reasons = {each["partition"]: each["reason"] for each in told["verdicts"]}
    assert "has committed 20, and the partition begins at 50" in reasons[0]
    assert "has committed 500, and the partition ends at 100" in reasons[1]


def test_the_members_of_the_groups_are_shown(world: World) -> None:
    """With client id, host and partitions; a group without members is said to have none."""
    settings = {"bootstrap.servers": world.kafka.bootstrap_servers, "group.id": world.writers, "client.id": "writer-7"}
    member = Consumer({**settings, "auto.offset.reset": "earliest", "log_level": 0})
    try:
        member.subscribe([world.topic])
        wait_until(lambda: member.poll(0.1) is not None, 60, "the member has partitions")
        _, told = world.status()
    finally:
        member.close()
    assert told["members"][world.writers] == [
        {"client_id": "writer-7", "host": "127.0.0.1", "partitions": list(range(PARTITIONS))}
    ]
    assert told["members"][world.indexers] == []


def test_groups_and_tail_show_the_commit_log(world: World) -> None:
    """Each group with its partitions; each record, also one that is refused, with the reason."""
    world.publish(world.writers, {0: 10, 2: 30})
    world.publish(world.indexers, {1: 20})
    producer = Producer({"bootstrap.servers": world.kafka.bootstrap_servers, "log_level": 0})
    producer.produce(world.commit_log, b"nonsense", b"no key")
    assert producer.flush(30) == 0

    def lines(*arguments: str) -> list[dict[str, Any]]:
        command = [sys.executable, "-m", "arroyo_sync", *arguments, "--json", "--commit-log", world.commit_log]
        command += ["--bootstrap-servers", world.kafka.bootstrap_servers]
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS)
        assert (done.returncode, done.stderr) == (0, "")
        return [json.loads(line) for line in done.stdout.splitlines()]

    found = {each["group"]: (each["topic"], each["partitions"], each["records"]) for each in lines("groups")}
    assert found == {world.writers: (world.topic, [0, 2], 2), world.indexers: (world.topic, [1], 1)}
    records = lines("tail")
    assert {(each["group"], each["partition"], each["offset"]) for each in records} == {
        (world.writers, 0, 10),
        (world.writers, 2, 30),
        (world.indexers, 1, 20),
        (None, None, None),
    }
    assert [each["refused"] for each in records if each["group"] is None] == [
        "key: not topic:partition:group: b'no key'"
    ]
    assert [each["offset"] for each in lines("tail", "--group", world.writers, "--partition", "2")] == [30]


def test_a_watch_goes_on_when_its_broker_goes_away_and_comes_back(
    kafka_cluster: Callable[..., KafkaCluster], topic_name: Callable[..., str]
) -> None:
    """It says since when it is blind, sees again, and ends with the last look's exit status."""
    cluster = kafka_cluster()
    world = World(cluster, topic_name)
    done = dict.fromkeys(range(PARTITIONS), 100)
    world.kafka.commit_offsets(world.follower, world.topic, done)
    world.publish(world.writers, done)
    world.publish(world.indexers, done)
    command = world.arguments("--json", "--watch", "0.1", "--timeout", "60", "--no-members")
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process,
        ending(process, 3 * TIMEOUT_SECONDS),
    ):
        assert process.stdout is not None
        looks = (json.loads(line) for line in process.stdout)
        assert next(looks)["status"] == "going_on"
        cluster.brokers[0].kill()
        blind = next(each for each in looks if "blind_since" in each)
        assert (blind["status"], blind["grade"]) == ("unknown", "unknown")
        assert "answered" in blind["blind_reason"]
        cluster.brokers[0].start()
        # A broker that has just come back may answer a part of the questions first: then it can't be told yet.
        seen = (each["status"] for each in looks if "blind_since" not in each)
        assert next(each for each in seen if each != "unknown") == "going_on"
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.wait(TIMEOUT_SECONDS) == 0
