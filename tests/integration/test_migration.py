"""From Sentry's SynchronizedConsumer to the gate and back, on the real broker: followers of both kinds in one group."""

from __future__ import annotations

import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
from confluent_kafka import Producer

from tests.benchmarks.commit_records import encode, headers
from tests.benchmarks.peer_environment import peer_python
from tests.integration.cluster.admin import Kafka
from tests.integration.cluster.followers import PATIENT, PROTOCOLS, produce_numbered
from tests.integration.cluster.pipeline import OWN, Event, PipelineProcess, PipelineSettings
from tests.integration.cluster.waiting import wait_until
from tests.support.requirements import lacking

SECONDS = 90.0
PARTITIONS = range(4)
COUNT = 6_000
"""Of each partition."""
OLD_FOLLOWER = Path(__file__).parent / "cluster" / "old_follower.py"


class Group:
    """A data topic, a commit log that the test writes, and one group for followers of both kinds."""

    def __init__(self, kafka: Kafka, topic_name: Callable[..., str], folder: Path, running: ExitStack) -> None:
        self._running = running
        self._kafka = kafka
        self._topic, self._commit_log, self._group = (
            topic_name(each) for each in ("events", "commit-log", "forwarder")
        )
        self._folder = folder
        self._producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
        self._published: list[float] = []
        """By offset: just before when it was said to be committed, of all partitions."""
        self.followers: list[PipelineProcess] = []
        kafka.create_topic(self._topic, len(PARTITIONS))
        kafka.create_topic(self._commit_log)
        produce_numbered(kafka.bootstrap_servers, self._topic, PARTITIONS, COUNT)

    def start(self, command: Sequence[str]) -> PipelineProcess:
        settings = PipelineSettings(
            self._kafka.bootstrap_servers,
            self._topic,
            self._group,
            str(self._folder / f"follower-{len(self.followers)}"),
            self._commit_log,
            leader_groups=("writers",),
            consumer={**PROTOCOLS["eager"], **PATIENT["eager"]},
        )
        self.followers.append(self._running.enter_context(PipelineProcess("follower", settings, command)))
        return self.followers[-1]

    def release(self, count: int) -> None:
        """Another so many messages of each partition, as a leader's records in the form that both kinds can read."""
        self._published += [time.monotonic()] * count
        for partition in PARTITIONS:
            key, value = encode("legacy", self._topic, partition, "writers", len(self._published))
            self._producer.produce(self._commit_log, value, key, headers=headers("legacy"))
        assert self._producer.flush(SECONDS) == 0

    def release_until_all_deliver(self, *followers: PipelineProcess) -> None:
        """Each of them, after this began: so each has partitions, and the gate or its like open."""
        before = [follower.count() for follower in followers]

        def do_all_deliver() -> bool:
            assert all(follower.is_running for follower in followers)
            self.release(1)
            return all(follower.count() > count for follower, count in zip(followers, before, strict=True))

        wait_until(do_all_deliver, SECONDS, "every follower to deliver")
        assert len(self._published) < COUNT

    def wait_until_all_is_delivered(self) -> None:
        """All that is released."""
        expected = {(partition, offset) for partition in PARTITIONS for offset in range(len(self._published))}
        wait_until(lambda: {event[:2] for event in self._events()} == expected, SECONDS, "all that is released")

    def check(self) -> None:
        """Nothing early by either kind; in each assignment every partition in order, without a gap."""
        early = [event for event in self._events() if event.time < self._published[event.offset]]
        assert early == []
        for follower in self.followers:
            offsets: dict[tuple[int, int], list[int]] = defaultdict(list)
            for event in follower.events():
                offsets[event.assignment, event.partition].append(event.offset)
            for each in offsets.values():
                assert each == list(range(each[0], each[-1] + 1))

    def committed(self) -> dict[int, int]:
        return self._kafka.committed_offsets(self._group, self._topic)

    def released(self) -> dict[int, int]:
        return dict.fromkeys(PARTITIONS, len(self._published))

    def _events(self) -> list[Event]:
        return [event for follower in self.followers for event in follower.events()]


@pytest.fixture(scope="module")
def old_kind() -> tuple[str, str]:
    """The command of a follower of the old kind. The first time, its environment is made."""
    try:
        return str(peer_python()), str(OLD_FOLLOWER)
    except subprocess.CalledProcessError:
        lacking("a follower of the old kind needs a package index that pip reaches: go online, then run again")


def test_followers_of_both_kinds_share_a_group_forward_and_back(
    kafka: Kafka, topic_name: Callable[..., str], tmp_path: Path, old_kind: tuple[str, str]
) -> None:
    """Rolled forward pod by pod and back again: nothing comes early, nothing is lost, and each goes on where it was."""
    with ExitStack() as running:
        group = Group(kafka, topic_name, tmp_path, running)
        old = group.start(old_kind)
        group.release_until_all_deliver(old)

        new = group.start(OWN)
        group.release_until_all_deliver(old, new)
        old.stop()
        group.release(10)
        group.wait_until_all_is_delivered()

        back = group.start(old_kind)
        group.release_until_all_deliver(new, back)
        new.stop()
        group.release(10)
        group.wait_until_all_is_delivered()
        back.stop()
    group.check()
    assert group.committed() == group.released()
