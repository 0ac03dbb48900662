"""The examples on a real broker, as processes: the quickstart, the leader, and the post-process forwarder."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.cluster.admin import Kafka
from tests.integration.cluster.followers import produce_numbered
from tests.integration.cluster.waiting import wait_until
from tests.support.programs import EXAMPLES, Program

SECONDS = 180.0
COUNT = 300
STOPS_AT = 100

# A leader's handler that works up to an offset, and then waits until it may go on.
HANDLER = f"""
import pathlib, time

def work(event):
    while event.offset == {STOPS_AT} and not pathlib.Path("go-on").exists():
        time.sleep(0.01)
"""


def test_the_quickstart_keeps_every_promise_and_leaves_nothing_behind(kafka: Kafka, tmp_path: Path) -> None:
    """On a cluster with topics of its own, of any number of partitions; at the end they and its groups are gone."""
    flags = ["--bootstrap-servers", kafka.bootstrap_servers, "--partitions", "6", "--seconds", "12"]
    before = demo_topics(kafka)
    with Program(tmp_path / "quickstart", str(EXAMPLES / "quickstart.py"), *flags) as program:
        program.wait_for(r"partition 5 ")
        program.wait_for(r"produced [1-9]")
        topics = demo_topics(kafka) - before
        assert len(topics) == 2
        assert program.exit_status() == 0, program.text
    assert "Every promise was kept." in program.text
    assert re.search(r"slow-writer/\d stands still: partitions \d-\d must wait", program.text)
    wait_until(lambda: not topics & demo_topics(kafka), SECONDS, "the topics to be deleted")
    run = min(topics).removesuffix("-commit-log")
    assert [each for each in groups(kafka) if each.startswith(run)] == []


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_the_forwarder_hands_on_what_both_leaders_have_committed(
    kafka: Kafka, topic_name: Callable[..., str], tmp_path: Path, signum: signal.Signals
) -> None:
    """While one of two leaders stands still at an offset, nothing from there on is handed on; then all is, in order.

    All three processes end cleanly at the signal, and what was handed on is committed. The forwarder that waits looks
    healthy.
    """
    events, commit_log, forwarder_group = topic_name("events"), topic_name("commit-log"), topic_name("forwarder")
    fast, slow = topic_name("fast"), topic_name("slow")
    kafka.create_topic(events)
    kafka.create_topic(commit_log)
    produce_numbered(kafka.bootstrap_servers, events, [0], COUNT)

    flags = ["--bootstrap-servers", kafka.bootstrap_servers, "--topic", events]
    leader = [str(EXAMPLES / "leader.py"), *flags, "--commit-log-topic", commit_log]
    forwarder = [
        *(str(EXAMPLES / "post_process_forwarder.py"), *flags, "--consumer-group", forwarder_group),
        *("--synchronize-commit-log-topic", commit_log),
        *("--synchronize-commit-group", fast, "--synchronize-commit-group", slow),
        *("--healthcheck-file-path", "healthy"),
    ]
    slow_folder = tmp_path / "slow"
    slow_folder.mkdir()
    (slow_folder / "handlers.py").write_text(HANDLER)
    with (
        Program(tmp_path / "fast", *leader, "--consumer-group", fast) as fast_leader,
        Program(slow_folder, *leader, "--consumer-group", slow, "--handler", "handlers:work") as slow_leader,
        Program(tmp_path / "forwarder", *forwarder) as follower,
    ):
        wait_until(lambda: kafka.committed_offsets(fast, events) == {0: COUNT}, SECONDS, "the fast leader")
        follower.wait_for(rf"{events}:0:{STOPS_AT - 1} ")
        healthy = tmp_path / "forwarder" / "healthy"
        healthy.unlink(missing_ok=True)
        wait_until(healthy.exists, SECONDS, "the healthcheck file to be touched while the forwarder waits")
        assert follower.text.splitlines() == [f"{events}:0:{offset} {offset}" for offset in range(STOPS_AT)]

        (slow_folder / "go-on").touch()
        follower.wait_for(rf"{events}:0:{COUNT - 1} ")
        for program in (follower, fast_leader, slow_leader):
            program.signal(signum)
        for program in (follower, fast_leader, slow_leader):
            assert program.exit_status() == 0, program.text
    assert follower.text.splitlines() == [f"{events}:0:{offset} {offset}" for offset in range(COUNT)]
    assert fast_leader.text == slow_leader.text == ""
    for group in (fast, slow, forwarder_group):
        assert kafka.committed_offsets(group, events) == {0: COUNT}


def test_a_forwarder_that_was_killed_goes_on_where_it_had_committed(
    kafka: Kafka, topic_name: Callable[..., str], tmp_path: Path
) -> None:
    """Nothing is lost over a kill -9: the next one begins at the committed offset, and hands on the rest in order."""
    events, commit_log, group, writers = (topic_name(each) for each in ("events", "commit-log", "forwarder", "writers"))
    kafka.create_topic(events)
    kafka.create_topic(commit_log)
    flags = ["--bootstrap-servers", kafka.bootstrap_servers, "--topic", events]
    forwarder = [
        *(str(EXAMPLES / "post_process_forwarder.py"), *flags, "--consumer-group", group),
        *("--synchronize-commit-log-topic", commit_log, "--synchronize-commit-group", writers),
        *("--group-instance-id", "only-one", "--max-poll-interval-ms", "45000"),
    ]
    leader = [str(EXAMPLES / "leader.py"), *flags, "--commit-log-topic", commit_log, "--consumer-group", writers]
    with Program(tmp_path / "leader", *leader):
        with Program(tmp_path / "first", *forwarder) as first:
            produce_numbered(kafka.bootstrap_servers, events, [0], COUNT)
            first.wait_for(rf"{events}:0:{COUNT - 1} ")
            wait_until(lambda: bool(kafka.committed_offsets(group, events)), SECONDS, "a commit")
        committed = kafka.committed_offsets(group, events)[0]
        produce_numbered(kafka.bootstrap_servers, events, [0], COUNT)
        with Program(tmp_path / "second", *forwarder) as second:
            second.wait_for(rf"{events}:0:{2 * COUNT - 1} ")
    offsets = [int(offset) for offset in re.findall(rf"^{events}:0:(\d+) ", second.text, re.MULTILINE)]
    assert offsets == list(range(committed, 2 * COUNT))


def demo_topics(kafka: Kafka) -> set[str]:
    return {each for each in kafka.admin.list_topics(timeout=SECONDS).topics if each.startswith("arroyo-sync-demo-")}


def groups(kafka: Kafka) -> list[str]:
    return [each.group_id for each in kafka.admin.list_consumer_groups().result(SECONDS).valid]
