"""The smaller examples on a real broker, each as a process: it does what it is there to show, and ends cleanly."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from tests.integration.cluster.admin import Kafka
from tests.integration.cluster.followers import produce_numbered
from tests.integration.cluster.waiting import wait_until
from tests.support.programs import EXAMPLES, Program

SECONDS = 180.0
COUNT = 300
RELEASED = 120


class Scene:
    """A data topic of one partition, a commit log, and the examples on them."""

    def __init__(self, kafka: Kafka, topic_name: Callable[..., str], folder: Path) -> None:
        self.kafka = kafka
        self.events = topic_name("events")
        self.commit_log = topic_name("commit-log")
        self.dead_letters = topic_name("dead-letters")
        self.follower = topic_name("follower")
        self.fast, self.slow = topic_name("fast"), topic_name("slow")
        self._folder = folder
        for topic in (self.events, self.commit_log, self.dead_letters):
            kafka.create_topic(topic)

    def run(self, script: str, *flags: str, commit_log: bool = True, groups: Iterable[str] = ()) -> Program:
        """Start an example as a follower of these groups, or of the slow one."""
        arguments = ["--bootstrap-servers", self.kafka.bootstrap_servers, "--topic", self.events]
        arguments += ["--consumer-group", self.follower, *flags]
        if commit_log:
            arguments += ["--synchronize-commit-log-topic", self.commit_log]
        for group in groups or [self.slow]:
            arguments += ["--synchronize-commit-group", group]
        return Program(self._folder / "program", str(EXAMPLES / script), *arguments)

    def publish(self, group: str, offset: int) -> None:
        """What a leader writes to the commit log when it has committed up to there."""
        producer = Producer({"bootstrap.servers": self.kafka.bootstrap_servers})
        key, value = f"{self.events}:0:{group}", {"offset": offset, "orig_message_ts": 0.0, "received_p99": None}
        producer.produce(self.commit_log, json.dumps(value), key)
        assert producer.flush(SECONDS) == 0

    def produce(self, values: Iterable[str]) -> None:
        producer = Producer({"bootstrap.servers": self.kafka.bootstrap_servers})
        for value in values:
            producer.produce(self.events, value)
        assert producer.flush(SECONDS) == 0

    def lines(self, offsets: Iterable[int]) -> list[str]:
        """What ``print_event`` writes of `produce_numbered` messages."""
        return [f"{self.events}:0:{offset} {offset}" for offset in offsets]

    def handed_on(self, program: Program) -> list[str]:
        """What ``print_event`` has written, without what is on standard error."""
        return [line for line in program.text.splitlines() if line.startswith(f"{self.events}:0:")]

    def end(self, program: Program, committed: int) -> None:
        """SIGTERM it: it exits 0, with all that it has handed on committed and nothing that it hasn't."""
        program.signal(signal.SIGTERM)
        assert program.exit_status() == 0, program.text
        assert "Traceback" not in program.text
        assert self.committed() == {0: committed}

    def committed(self) -> dict[int, int]:
        """What the follower has."""
        return self.kafka.committed_offsets(self.follower, self.events)


@pytest.fixture
def scene(kafka: Kafka, topic_name: Callable[..., str], tmp_path: Path) -> Scene:
    return Scene(kafka, topic_name, tmp_path)


def test_batches_hold_only_what_the_leader_has_committed(scene: Scene) -> None:
    """Full batches, then a short one when its time is over, up to the leader's offset and not past it."""
    produce_numbered(scene.kafka.bootstrap_servers, scene.events, [0], COUNT)
    with scene.run("batching.py", "--batch-size", "50", "--batch-seconds", "2") as program:
        scene.publish(scene.slow, RELEASED)
        program.wait_for(rf"-{RELEASED - 1}\n")
        assert batches(program.text)[0] == (50, 0, 49)
        scene.publish(scene.slow, COUNT)
        program.wait_for(rf"-{COUNT - 1}\n")
        scene.end(program, committed=COUNT)
    found = batches(program.text)
    assert all(size == last - first + 1 <= 50 for size, first, last in found)
    assert [each for _, first, last in found for each in range(first, last + 1)] == list(range(COUNT))
    assert any(last == RELEASED - 1 for _, _, last in found)


def test_a_batch_that_has_begun_is_written_at_the_end(scene: Scene) -> None:
    """SIGTERM does not wait for its time to be over, and doesn't drop it."""
    released = 220
    produce_numbered(scene.kafka.bootstrap_servers, scene.events, [0], COUNT)
    scene.publish(scene.slow, released)
    with scene.run("batching.py", "--batch-size", "100", "--batch-seconds", "600") as program:
        program.wait_for(r"batch of 100: 0:100-199\n")
        # A second after the first batch's commit. By then the next one has begun, which nothing tells of: a commit that
        # is due is made before the batch's first message is handed on.
        wait_until(lambda: scene.committed() == {0: 200}, SECONDS, "the second batch's commit")
        scene.end(program, committed=released)
    assert batches(program.text) == [(100, 0, 99), (100, 100, 199), (released - 200, 200, released - 1)]


def test_the_slowest_of_several_leaders_counts_and_is_named(scene: Scene) -> None:
    """A group without a record keeps the partition closed; then the lower offset counts, whichever group has it."""
    produce_numbered(scene.kafka.bootstrap_servers, scene.events, [0], COUNT)
    scene.publish(scene.fast, COUNT)
    with scene.run("several_leaders.py", groups=[scene.fast, scene.slow]) as program:
        where = f"{scene.events}:0 "
        program.wait_for(
            f"{where}{COUNT} wait for {scene.slow}: {scene.fast} at {COUNT}, {scene.slow} has published nothing\n"
        )
        assert scene.handed_on(program) == []
        scene.publish(scene.slow, RELEASED)
        program.wait_for(f"{scene.events}:0:{RELEASED - 1} ")
        program.wait_for(
            f"{where}{COUNT - RELEASED} wait for {scene.slow}: {scene.fast} at {COUNT}, {scene.slow} at {RELEASED}\n"
        )
        assert scene.handed_on(program) == scene.lines(range(RELEASED))
        scene.publish(scene.slow, COUNT)
        program.wait_for(f"{scene.events}:0:{COUNT - 1} ")
        scene.end(program, committed=COUNT)
    assert scene.handed_on(program) == scene.lines(range(COUNT))


def test_a_leader_without_a_commit_log_is_followed_by_what_it_commits(scene: Scene) -> None:
    """No commit log is named, and nothing past the group's offset on the broker is handed on."""
    produce_numbered(scene.kafka.bootstrap_servers, scene.events, [0], COUNT)
    scene.kafka.commit_offsets(scene.slow, scene.events, {0: RELEASED})
    with scene.run("group_offsets.py", "--interval-seconds", "0.1", commit_log=False) as program:
        program.wait_for(f"{scene.events}:0:{RELEASED - 1} ")
        assert scene.handed_on(program) == scene.lines(range(RELEASED))
        scene.kafka.commit_offsets(scene.slow, scene.events, {0: COUNT})
        program.wait_for(f"{scene.events}:0:{COUNT - 1} ")
        scene.end(program, committed=COUNT)
    assert scene.handed_on(program) == scene.lines(range(COUNT))


def test_an_invalid_event_becomes_a_dead_letter_and_nothing_else_is_lost(scene: Scene) -> None:
    """Also when it was held behind others for a while; one that isn't released yet is no dead letter yet."""
    invalid = [7, RELEASED - 1, RELEASED + 1]
    scene.produce("{" if offset in invalid else str(offset) for offset in range(COUNT))
    with scene.run("dead_letters.py", "--dead-letter-topic", scene.dead_letters) as program:
        scene.publish(scene.slow, RELEASED)
        program.wait_for(f"{scene.events}:0:{RELEASED - 2} ")
        wait_until(lambda: dead_letters(scene) == invalid[:2], SECONDS, "the first two dead letters")
        scene.publish(scene.slow, COUNT)
        program.wait_for(f"{scene.events}:0:{COUNT - 1} ")
        scene.end(program, committed=COUNT)
    assert dead_letters(scene) == invalid
    assert scene.handed_on(program) == scene.lines(offset for offset in range(COUNT) if offset not in invalid)


def test_the_metrics_tell_what_waits_and_what_is_done(scene: Scene) -> None:
    """As lines, since this is no terminal: what is gated while the leader stands, and nothing once it went on."""
    produce_numbered(scene.kafka.bootstrap_servers, scene.events, [0], COUNT)
    tags = f"partition=0 topic={scene.events}"
    with scene.run("metrics_to_terminal.py") as program:
        scene.publish(scene.slow, RELEASED)
        program.wait_for(f"arroyo_sync.lag.gated {tags} {COUNT - RELEASED} message\n")
        program.wait_for(f"arroyo_sync.local_offset {tags} {RELEASED} offset\n")
        scene.publish(scene.slow, COUNT)
        program.wait_for(f"arroyo_sync.lag.gated {tags} 0 message\n")
        program.wait_for(f"arroyo_sync.local_offset {tags} {COUNT} offset\n")
        program.wait_for("arroyo_sync.reader.alive 1 boolean\n")
        scene.end(program, committed=COUNT)


def test_several_topics_are_followed_in_one_process(
    kafka: Kafka, topic_name: Callable[..., str], tmp_path: Path
) -> None:
    """Each behind a gate of its own: one leader stands still, and the other topic's events come through."""
    events, others, commit_log = topic_name("events"), topic_name("others"), topic_name("commit-log")
    for topic in (events, others, commit_log):
        kafka.create_topic(topic)
    for topic in (events, others):
        produce_numbered(kafka.bootstrap_servers, topic, [0], COUNT)

    def publish(topic: str, group: str, offset: int) -> None:
        producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
        value = json.dumps({"offset": offset, "orig_message_ts": 0.0, "received_p99": None})
        producer.produce(commit_log, value, f"{topic}:0:{group}")
        assert producer.flush(SECONDS) == 0

    publish(events, "writers", RELEASED)
    publish(others, "other-writers", COUNT)
    group = topic_name("follower")
    arguments = ["--bootstrap-servers", kafka.bootstrap_servers, "--follow", f"{events}=writers"]
    arguments += ["--follow", f"{others}=other-writers"]
    arguments += ["--consumer-group", group, "--synchronize-commit-log-topic", commit_log]
    with Program(tmp_path, str(EXAMPLES / "several_topics.py"), *arguments) as program:
        program.wait_for(f"{events}:0:{RELEASED - 1} ")
        program.wait_for(f"{others}:0:{COUNT - 1} ")
        program.signal(signal.SIGTERM)
        assert program.exit_status() == 0, program.text
    for topic, count in ((events, RELEASED), (others, COUNT)):
        own = [line for line in program.text.splitlines() if line.startswith(topic)]
        assert own == [f"{topic}:0:{offset} {offset}" for offset in range(count)]
        assert kafka.committed_offsets(f"{group}-{topic}", topic) == {0: count}


def batches(text: str) -> list[tuple[int, int, int]]:
    """Size, first and last offset of each batch."""
    return [(int(a), int(b), int(c)) for a, b, c in re.findall(r"^batch of (\d+): 0:(\d+)-(\d+)$", text, re.MULTILINE)]


def dead_letters(scene: Scene) -> list[int]:
    """The offsets that they had in the data topic, as Arroyo puts them into a header."""
    consumer = Consumer({"bootstrap.servers": scene.kafka.bootstrap_servers, "group.id": scene.follower + "-reader"})
    consumer.assign([TopicPartition(scene.dead_letters, 0, 0)])
    try:
        count = scene.kafka.watermarks(scene.dead_letters)[0][1]
        messages = consumer.consume(count, SECONDS) if count else []
    finally:
        consumer.close()
    headers: list[dict[str, Any]] = [dict(message.headers() or []) for message in messages]
    return [int(each["original_offset"]) for each in headers]
