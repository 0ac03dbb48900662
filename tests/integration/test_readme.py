"""Every Python block of the README and its pages runs, as it stands there, on the real broker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from confluent_kafka import Producer

from arroyo_sync.leaders.commit_log.record import CommitRecord, encode
from tests.integration.cluster.admin import Kafka
from tests.integration.cluster.clients import read
from tests.integration.cluster.waiting import wait_until
from tests.support.programs import EXAMPLES, OPERATORS, README, Program, block_with, blocks
from tests.support.readme_tables import metrics_table

FOLLOWER, LEADER = EXAMPLES / "first_follower.py", EXAMPLES / "first_leader.py"


@pytest.fixture(scope="module")
def topics(kafka: Kafka) -> Kafka:
    """The topics that the README names: the data topic and the commit log."""
    kafka.create_topic("events", 1)
    kafka.create_topic("snuba-commit-log", 1)
    return kafka


@pytest.fixture
def run(kafka: Kafka, tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Runs Python code in a process of its own, on the tests' broker. It ends with the test at the latest."""
    with ExitStack() as started:

        def start(code: str) -> subprocess.Popen[str]:
            script = tmp_path / "block.py"
            script.write_text(code.replace("localhost:9092", kafka.bootstrap_servers))
            process = subprocess.Popen(
                [sys.executable, str(script)],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env={**os.environ, "KAFKA": kafka.bootstrap_servers},
            )
            started.enter_context(process)
            started.callback(process.kill)
            return process

        yield start


@pytest.mark.parametrize("file", [FOLLOWER, LEADER], ids=lambda path: path.stem)
def test_the_readmes_first_code_is_a_file_of_the_examples(file: Path) -> None:
    """As it stands, imports included: so it is type-checked, and runs below."""
    assert f"```python\n{file.read_text()}```" in README.read_text()


def test_the_migration_pages_code_is_the_runners() -> None:
    """Both parts that it shows of ``sentry_runner.py``."""
    runner = (EXAMPLES / "sentry_runner.py").read_text()
    assert textwrap.indent(block_with("# GATE"), " " * 8) in runner
    assert textwrap.indent(block_with("configuration |= {"), " " * 4) in runner


def test_the_first_follower_is_gated(topics: Kafka, tmp_path: Path) -> None:
    """Two messages are there, the leader has committed the first."""
    producer = Producer({"bootstrap.servers": topics.bootstrap_servers})
    producer.produce("events", b"first")
    producer.produce("events", b"second")
    key, value = encode(CommitRecord("events", 0, "snuba-consumers", 1, 0.0, None))
    producer.produce("snuba-commit-log", value, key)
    producer.flush(30)
    # Unbuffered, it would write word by word, with lines of the log in between.
    with Program(tmp_path / "follower", str(FOLLOWER), KAFKA=topics.bootstrap_servers, PYTHONUNBUFFERED="") as follower:
        follower.wait_for("got first\n")
        wait_until(lambda: topics.committed_offsets("post-process-forwarder", "events") == {0: 1}, 30, "the commit")
        follower.signal(signal.SIGINT)
        assert follower.exit_status() == 0, follower.text
    assert "got second" not in follower.text


def test_a_leader_that_is_told_to_stop_ends_cleanly_with_all_published(
    topics: Kafka, run: Callable[[str], subprocess.Popen[str]]
) -> None:
    """By SIGTERM: each message is stored, and the commit log ends with what the group has committed."""
    producer = Producer({"bootstrap.servers": topics.bootstrap_servers})
    producer.produce("events", b"one more")
    producer.flush(30)
    end = topics.watermarks("events")[0][1]
    process = run(LEADER.read_text())

    def has_committed() -> bool:
        return process.poll() is not None or topics.committed_offsets("snuba-consumers", "events") == {0: end}

    try:
        wait_until(has_committed, 60, "the leader's commit")
        process.send_signal(signal.SIGTERM)
        output = process.communicate(timeout=60)[0]
    finally:
        process.kill()
    assert process.returncode == 0, output
    assert "stored one more" in output
    records = read(topics.bootstrap_servers, "snuba-commit-log", topics.watermarks("snuba-commit-log")[0][1])
    assert f'"offset": {end}' in records[-1]


def test_log_lines_arrive_after_the_readmes_configuration(run: Callable[[str], subprocess.Popen[str]]) -> None:
    """Those of a logger that existed before, too."""
    code = "import logging\nimport arroyo_sync\n" + block_with("dictConfig")
    process = run(code + 'logging.getLogger("arroyo_sync.gate.factory").info("it stands still")')
    output = process.communicate(timeout=60)[0]
    assert "INFO arroyo_sync.gate.factory: it stands still" in output


@pytest.mark.parametrize("text", ["GroupOffsetsSource(", "ManualSource()", 'getLogger("arroyo_sync").setLevel'])
def test_the_blocks_that_need_no_broker(run: Callable[[str], subprocess.Popen[str]], text: str) -> None:
    """The source for leaders without a commit log, the test of a pipeline, and a logger's level."""
    process = run(block_with(text))
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 0, output


IN_ASYNCIO = """
import threading

class Processor:
    def __init__(self):
        self.is_told = threading.Event()

    def run(self):
        self.is_told.wait()
        print("ended cleanly")

    def signal_shutdown(self):
        self.is_told.set()

async def main():
    task = asyncio.create_task(follow(Processor()))
    await asyncio.sleep(0)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        print("cancelled")

asyncio.run(main())
"""


def test_a_processor_in_asyncio_ends_with_its_task(run: Callable[[str], subprocess.Popen[str]]) -> None:
    """And only once the processor has ended."""
    output = run(block_with("async def follow") + IN_ASYNCIO).communicate(timeout=60)[0]
    assert output == "ended cleanly\ncancelled\n"


def test_the_status_command_tells_how_the_follower_stands(topics: Kafka) -> None:
    """The command as it stands there, of this environment, on the tests' broker, for a group that has published."""
    if not topics.committed_offsets("post-process-forwarder", "events"):  # the follower above may have run before
        topics.commit_offsets("post-process-forwarder", "events", {0: 0})
    producer = Producer({"bootstrap.servers": topics.bootstrap_servers})
    key, value = encode(CommitRecord("events", 0, "snuba-consumers", topics.watermarks("events")[0][1], time.time()))
    producer.produce("snuba-commit-log", value, key)
    producer.flush(30)
    [command] = [command for command in blocks("sh") if command.startswith("arroyo-sync status")]
    program, *arguments = command.replace("localhost:9092", topics.bootstrap_servers).split()
    result = subprocess.run(
        [Path(sys.executable).with_name(program), *arguments], capture_output=True, text=True, timeout=120
    )
    assert "post-process-forwarder" in result.stdout
    assert result.returncode in (0, 1), result.stdout + result.stderr


def test_the_metrics_table_is_the_codes() -> None:
    """Name, kind, unit, tags and meaning, as `metrics.py` has them."""
    assert metrics_table() in OPERATORS.read_text()


def test_every_block_is_run() -> None:
    """A block that is added needs a test. The adapter for Sentry has its own, beside the metrics.

    Five commands are the quickstart, this test run, the benchmarks, and a broker for the examples with a leader.
    """
    assert len(blocks("python")) == 10
    assert len(blocks("sh")) == 6


def test_the_place_that_the_matrix_writes_to_is_there() -> None:
    """Once, with its end. The benchmarks' has a test of its own, with their renderer."""
    _, begin, rest = README.read_text().partition("<!-- .ci/matrix writes from here -->")
    assert begin
    assert rest.count("<!-- to here -->") == 1
