"""Every Python block of the README runs, as it stands there, on the real broker."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import Producer

from arroyo_sync.leaders.commit_log.record import CommitRecord, encode
from tests.integration.cluster.admin import Kafka
from tests.integration.cluster.clients import read
from tests.integration.cluster.waiting import wait_until
from tests.support.readme_tables import metrics_table

README = Path(__file__).parents[2] / "README.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
COMMANDS = re.findall(r"^```sh\n(.*?)\n```$", README.read_text(), re.MULTILINE | re.DOTALL)

YOUR_OWN_FACTORY = """
from arroyo.processing.strategies import CommitOffsets, ProcessingStrategyFactory, RunTask

class ForwarderFactory(ProcessingStrategyFactory):
    def create_with_partitions(self, commit, partitions):
        return RunTask(lambda message: print("got", message.payload.value.decode(), flush=True), CommitOffsets(commit))
"""


def block_with(text: str) -> str:
    blocks: list[str] = [block for block in BLOCKS if text in block]
    assert len(blocks) == 1
    return blocks[0]


@pytest.fixture(scope="module")
def topics(kafka: Kafka) -> Kafka:
    """The topics that the README names: the data topic and the commit log."""
    kafka.create_topic("events", 1)
    kafka.create_topic("snuba-commit-log", 1)
    return kafka


@pytest.fixture
def run(kafka: Kafka, tmp_path: Path) -> Callable[[str], subprocess.Popen[str]]:
    """Runs Python code in a process of its own, on the tests' broker instead of the README's."""

    def start(code: str) -> subprocess.Popen[str]:
        script = tmp_path / "block.py"
        script.write_text(code.replace("localhost:9092", kafka.bootstrap_servers))
        return subprocess.Popen(
            [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    return start


def test_the_six_lines_gate_a_follower(topics: Kafka, run: Callable[[str], subprocess.Popen[str]]) -> None:
    """The block that shows the use of it all: two messages are there, the leader has committed the first."""
    producer = Producer({"bootstrap.servers": topics.bootstrap_servers})
    producer.produce("events", b"first")
    producer.produce("events", b"second")
    key, value = encode(CommitRecord("events", 0, "snuba-consumers", 1, 0.0, None))
    producer.produce("snuba-commit-log", value, key)
    producer.flush(30)
    process = run(YOUR_OWN_FACTORY + block_with("ForwarderFactory(), commit_log"))
    try:
        assert process.stdout is not None
        lines = iter(process.stdout)
        assert "got first\n" in lines
        wait_until(lambda: topics.committed_offsets("post-process-forwarder", "events") == {0: 1}, 30, "the commit")
    finally:
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=30)[0]
    assert "got second" not in rest


def test_the_leaders_side_publishes(topics: Kafka, run: Callable[[str], subprocess.Popen[str]]) -> None:
    """The factory of the README's leader makes a step that publishes what it commits."""
    before = topics.watermarks("snuba-commit-log")[0][1]
    code = "from arroyo import Topic\n" + block_with("publisher.step(commit")
    process = run(
        code
        + """
from datetime import datetime
from arroyo.types import BrokerValue, Message, Partition

step = LeaderFactory().create_with_partitions(lambda offsets, force=False: None, {})
step.submit(Message(BrokerValue(b"", Partition(Topic("events"), 0), 41, datetime(2026, 1, 1))))
step.close()
step.join(10)
producer.close().result(60)
"""
    )
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 0, output
    assert '"offset": 42' in read(topics.bootstrap_servers, "snuba-commit-log", before + 1)[-1]


def test_a_leader_that_is_told_to_stop_ends_cleanly_with_all_published(
    topics: Kafka, run: Callable[[str], subprocess.Popen[str]]
) -> None:
    """By SIGTERM: the commit log ends with what the group has committed."""
    producer = Producer({"bootstrap.servers": topics.bootstrap_servers})
    producer.produce("events", b"one more")
    producer.flush(30)
    end = topics.watermarks("events")[0][1]
    factory, processor = block_with("CommitLogPublisher("), block_with("LeaderFactory(), join_timeout")
    process = run("from arroyo import Topic\n" + factory + processor)

    def has_committed() -> bool:
        return process.poll() is not None or topics.committed_offsets("snuba-consumers", "events") == {0: end}

    try:
        wait_until(has_committed, 60, "the leader's commit")
        process.send_signal(signal.SIGTERM)
        output = process.communicate(timeout=60)[0]
    finally:
        process.kill()
    assert process.returncode == 0, output
    records = read(topics.bootstrap_servers, "snuba-commit-log", topics.watermarks("snuba-commit-log")[0][1])
    assert f'"offset": {end}' in records[-1]


def test_log_lines_arrive_after_the_readmes_configuration(run: Callable[[str], subprocess.Popen[str]]) -> None:
    """Those of a logger that existed before, too."""
    code = "import logging\nimport arroyo_sync\n" + block_with("dictConfig")
    process = run(code + 'logging.getLogger("arroyo_sync.gate.factory").info("it stands still")')
    output = process.communicate(timeout=60)[0]
    assert "INFO arroyo_sync.gate.factory: it stands still" in output


@pytest.mark.parametrize("text", ["GroupOffsetsSource(", "ManualSource()"])
def test_the_blocks_that_need_no_broker(run: Callable[[str], subprocess.Popen[str]], text: str) -> None:
    """The source for leaders without a commit log, and the test of a pipeline with its assertions."""
    process = run(block_with(text))
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 0, output


def test_the_status_command_tells_how_the_follower_stands(topics: Kafka) -> None:
    """The command as it stands there, of this environment, on the tests' broker."""
    if not topics.committed_offsets("post-process-forwarder", "events"):  # the follower above may have run before
        topics.commit_offsets("post-process-forwarder", "events", {0: 0})
    [command] = [command for command in COMMANDS if command.startswith("arroyo-sync status")]
    program, *arguments = command.replace("localhost:9092", topics.bootstrap_servers).split()
    result = subprocess.run(
        [Path(sys.executable).with_name(program), *arguments], capture_output=True, text=True, timeout=120
    )
    assert "post-process-forwarder" in result.stdout
    assert result.returncode in (0, 1), result.stderr


def test_the_metrics_table_is_the_codes() -> None:
    """Name, kind, unit, tags and meaning, as `metrics.py` has them."""
    assert metrics_table() in README.read_text()


def test_every_block_is_run() -> None:
    """A block that is added needs a test. The adapter for Sentry has its own, beside the metrics.

    Three commands are the quickstart, this test run and the benchmarks.
    """
    assert len(BLOCKS) == 7
    assert len(COMMANDS) == 4
    assert COMMANDS[-1].startswith(".venv/bin/python -m tests.benchmarks --json")
