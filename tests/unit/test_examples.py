"""The examples without a cluster: the first pipelines on their broker, everyone's flags, and how they end."""

from __future__ import annotations

import io
import re
import signal
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from arroyo.backends.abstract import Producer, ProducerFuture
from arroyo.backends.kafka import KafkaPayload
from arroyo.types import BrokerValue, Partition, Topic
from arroyo.utils.retries import RetryException
from confluent_kafka import KafkaError, KafkaException
from rich.console import Console

from arroyo_sync import log_if_refused
from arroyo_sync.observe.metrics_reporter import MetricsReporter
from tests.support.every_metric import report_everything
from tests.support.fakes import Clock
from tests.support.programs import EXAMPLES, Program

sys.path.insert(0, str(EXAMPLES))

import leader
import metrics_to_terminal
import post_process_forwarder
import runner
from demo.broker import embedded

UNUSED_PORT = "127.0.0.1:1"

FORWARDER_FLAGS = ["--bootstrap-servers", UNUSED_PORT, "--topic", "events", "--consumer-group", "forwarder"]
SYNCHRONIZED_FLAGS = [
    *FORWARDER_FLAGS,
    "--synchronize-commit-log-topic",
    "commit-log",
    "--synchronize-commit-group",
    "writers",
]
LEADER_FLAGS = [*FORWARDER_FLAGS, "--commit-log-topic", "commit-log"]


# The metrics on a terminal.


def test_the_metrics_of_many_partitions_fit_a_terminal() -> None:
    """Of 24 lines, with those that wait for most, and how the follower is altogether."""
    metrics = metrics_to_terminal.TerminalMetrics()
    report_everything(MetricsReporter(lambda: metrics))
    for partition in range(64):
        tags = {"topic": "events", "partition": str(partition)}
        metrics.gauge("arroyo_sync.lag.gated", 1_000_000 + partition, tags)
        metrics.gauge("arroyo_sync.held.oldest", 1.25, tags)
    for waits_for in ("leader", "follower"):
        metrics.gauge("arroyo_sync.stalled", 2, {"waits_for": waits_for})
    terminal = io.StringIO()
    Console(file=terminal, width=80, height=24).print(metrics_to_terminal.picture(metrics))
    lines = terminal.getvalue().splitlines()
    assert len(lines) < 24
    assert max(map(len, lines)) <= 80
    assert lines[3].split()[:2] == ["events:63", "1,000,063"]
    assert any(line.split() == ["stalled", "4", "partition"] for line in lines)
    assert any("and 54 partitions" in line for line in lines)


def test_what_is_no_longer_assigned_is_shown_no_more() -> None:
    """Nothing tells of it but that no values come. What was counted is as true as before."""
    clock = Clock()
    metrics = metrics_to_terminal.TerminalMetrics(clock)
    metrics.increment("arroyo_sync.pauses", 3)
    for partition in ("0", "1"):
        metrics.gauge("arroyo_sync.lag.gated", 7, {"topic": "events", "partition": partition})
    for _ in range(2):
        clock.now += metrics_to_terminal.FORGOTTEN_SECONDS
        assert len(metrics.rows()) == 3
        metrics.gauge("arroyo_sync.lag.gated", 8, {"topic": "events", "partition": "0"})
        metrics.gauge("arroyo_sync.lag.gated", 7, {"topic": "events", "partition": "1"})
    clock.now += metrics_to_terminal.FORGOTTEN_SECONDS
    metrics.gauge("arroyo_sync.lag.gated", 9, {"topic": "events", "partition": "0"})
    clock.now += 0.1
    assert [row[:3] for row in metrics.rows()] == [
        ("arroyo_sync.lag.gated", "partition=0 topic=events", "9"),
        ("arroyo_sync.pauses", "", "3"),
    ]
    terminal = io.StringIO()
    Console(file=terminal, width=80, height=24).print(metrics_to_terminal.picture(metrics))
    assert re.findall(r"events:\d", terminal.getvalue()) == ["events:0"]


# A broker for the examples.


def test_the_first_leader_and_the_first_follower_on_the_examples_broker(tmp_path: Path) -> None:
    """What the README shows first, on the broker that comes with it: each event is stored before it is got."""
    with Program(tmp_path / "broker", str(EXAMPLES / "broker.py"), "--rate", "50") as broker:
        broker.wait_for(r"export KAFKA=\S+\n")
        [address] = re.findall(r"export KAFKA=(\S+)\n", broker.text)
        with (
            Program(tmp_path / "follower", str(EXAMPLES / "first_follower.py"), KAFKA=address) as follower,
            Program(tmp_path / "leader", str(EXAMPLES / "first_leader.py"), KAFKA=address) as leader,
        ):
            follower.wait_for(r'got \{"id": 9\}')
            for program in (follower, leader, broker):
                program.signal(signal.SIGTERM)
                assert program.exit_status() == 0, program.text
    got, stored = (
        set(re.findall(word + r' (\{"id": \d+\})', program.text))  # a log line may come before the line's end
        for word, program in (("got", follower), ("stored", leader))
    )
    assert got
    assert got <= stored


# The leader and the forwarder.


def test_one_of_several_topics_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    """And exit status 1: the other topic's processor is shut down."""
    with embedded() as stage:
        arguments = ["--bootstrap-servers", stage.bootstrap_servers, "--consumer-group", stage.group("forwarder")]
        arguments += ["--follow", f"{stage.events}=writers", "--follow", "not-there=writers"]
        arguments += ["--synchronize-commit-log-topic", stage.commit_log]
        with Program(tmp_path, str(EXAMPLES / "several_topics.py"), *arguments) as program:
            assert program.exit_status() == 1
    told = [line for line in program.text.splitlines() if "message.timestamp.type=CreateTime" not in line]
    assert [line.partition(": ")[0] for line in told] == ["several_topics.py"]
    assert "not-there" in told[0]


@pytest.mark.parametrize(
    ("main", "arguments", "complaint"),
    [
        pytest.param(
            post_process_forwarder.run_post_process_forwarder,
            [*FORWARDER_FLAGS, "--synchronize-commit-log-topic", "commit-log"],
            "required: --synchronize-commit-group",
            id="no group",
        ),
        pytest.param(
            post_process_forwarder.run_post_process_forwarder,
            [*FORWARDER_FLAGS, "--synchronize-commit-group", "writers"],
            "required: --synchronize-commit-log-topic",
            id="no commit log",
        ),
        pytest.param(
            post_process_forwarder.run_post_process_forwarder,
            [*SYNCHRONIZED_FLAGS, "--handler", "print"],
            "--handler print: give it as MODULE:FUNCTION",
            id="handler without a module",
        ),
        pytest.param(
            post_process_forwarder.run_post_process_forwarder,
            [*SYNCHRONIZED_FLAGS, "--handler", "no_such_module:f"],
            "--handler no_such_module:f: No module named",
            id="handler that is not there",
        ),
        pytest.param(
            post_process_forwarder.run_post_process_forwarder,
            [*SYNCHRONIZED_FLAGS, "--handler", "os:sep"],
            "--handler os:sep: sep can't be called",
            id="handler that is no function",
        ),
        pytest.param(
            leader.run_leader,
            [*LEADER_FLAGS, "--max-poll-interval-ms", "0"],
            "--max-poll-interval-ms: must be more than 0",
            id="no poll interval",
        ),
        pytest.param(
            leader.run_leader, [*LEADER_FLAGS, "--join-timeout", "-1"], "must not be negative", id="negative timeout"
        ),
        pytest.param(leader.run_leader, FORWARDER_FLAGS, "--commit-log-topic", id="leader without a commit log"),
    ],
)
def test_wrong_flags_are_refused(
    main: Callable[[Sequence[str]], int],
    arguments: list[str],
    complaint: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With exit status 2 and a line that names the flag; half a synchronization names the missing half."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(SystemExit) as exit_info:
        main(arguments)
    assert exit_info.value.code == 2
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        pytest.param(["--synchronize-commit-log-topic", "a:b"], "topic.name='a:b'", id="colon in the commit log"),
        pytest.param(["--synchronize-commit-log-topic", ""], "topic", id="empty commit log"),
        pytest.param(["--bootstrap-servers", ""], "names no brokers", id="no brokers"),
    ],
)
def test_settings_that_are_refused_are_one_line(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With exit status 1, and no traceback."""
    assert post_process_forwarder.run_post_process_forwarder([*SYNCHRONIZED_FLAGS, *arguments]) == 1
    error = capsys.readouterr().err
    assert complaint in error
    assert error.count("\n") == 1


def test_the_flags_become_the_consumers_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each under librdkafka's or Arroyo's name; several leader groups, the join timeout and the handler arrive too."""
    seen: dict[str, Any] = {}

    def run_streaming_consumer(settings: Any, topic: str, log: str, groups: Any, factory: Any, **options: Any) -> None:
        seen.update(settings, topic=topic, log=log, groups=list(groups), join_timeout=options["join_timeout"])

    monkeypatch.setattr(post_process_forwarder, "run_streaming_consumer", run_streaming_consumer)
    flags = [
        *SYNCHRONIZED_FLAGS,
        *("--synchronize-commit-group", "others", "--auto-offset-reset", "latest", "--no-strict-offset-reset"),
        *("--max-poll-interval-ms", "30000", "--join-timeout", "2.5", "--group-instance-id", "pod-1"),
    ]
    assert post_process_forwarder.run_post_process_forwarder(flags) == 0
    expected = {
        "topic": "events",
        "log": "commit-log",
        "groups": ["writers", "others"],
        "join_timeout": 2.5,
        "bootstrap.servers": UNUSED_PORT,
        "group.id": "forwarder",
        "auto.offset.reset": "latest",
        "arroyo.strict.offset.reset": False,
        "max.poll.interval.ms": 30000,
        "session.timeout.ms": 30000,
        "group.instance.id": "pod-1",
    }
    assert {name: seen[name] for name in expected} == expected


def test_the_default_handler_prints_one_line_an_event(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever is in it."""
    payload = KafkaPayload(None, b"two\nlines \xff", [])
    runner.print_event(BrokerValue(payload, Partition(Topic("events"), 3), 7, None))  # type: ignore[arg-type]
    assert capsys.readouterr().out == "events:3:7 two\\nlines \\xff\n"


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    ("script", "flags", "waits"),
    [
        pytest.param("post_process_forwarder.py", SYNCHRONIZED_FLAGS, "Connection refused", id="forwarder"),
        pytest.param("leader.py", LEADER_FLAGS, "No broker of 127.0.0.1:1 answers yet", id="leader"),
    ],
)
def test_a_signal_ends_it_cleanly_while_no_broker_answers(
    script: str, flags: list[str], waits: str, signum: signal.Signals, tmp_path: Path
) -> None:
    """Exit status 0 and no traceback."""
    with Program(tmp_path, str(EXAMPLES / script), *flags) as program:
        program.wait_for(waits)
        program.signal(signum)
        assert program.exit_status() == 0, program.text
        assert "Traceback" not in program.text


def test_a_leader_gives_up_on_brokers_that_never_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With one line after a bounded time, not a hang."""
    monkeypatch.setattr(runner, "BROKER_SECONDS", 0.0)
    assert leader.run_leader(LEADER_FLAGS) == 1
    assert (
        capsys.readouterr().err == f"{Path(sys.argv[0]).name}: no broker of {UNUSED_PORT} answered within 0 seconds\n"
    )


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_there_is_a_processor_ends_it_when_there_is(signum: signal.Signals) -> None:
    """No moment is too early for SIGTERM."""

    class Processor:
        shutdowns = 0

        def signal_shutdown(self) -> None:
            self.shutdowns += 1

    processor: Any = Processor()
    with runner.shutdown_signals() as shutdown:
        signal.raise_signal(signum)
        assert shutdown.is_requested
        shutdown.watch(processor)
        assert processor.shutdowns == 1


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_a_handler_that_hangs(tmp_path: Path, signum: signal.Signals) -> None:
    """At once, whatever has been begun."""
    hangs = """
import threading
import runner

with runner.shutdown_signals() as shutdown:
    print("began")
    while not shutdown.is_requested:
        threading.Event().wait(0.01)
    print("was asked to end")
    threading.Event().wait()
"""
    with Program(tmp_path / "leader", "-c", hangs) as program:
        program.wait_for("began")
        program.signal(signum)
        program.wait_for("was asked to end")
        program.signal(signum)
        assert program.exit_status() == -signum


@pytest.mark.parametrize(
    ("error", "told"),
    [
        pytest.param(None, "were not delivered within 0 seconds", id="brokers that are away"),
        pytest.param(OSError("statsd"), "may not have been delivered: OSError('statsd')", id="its thread has ended"),
    ],
)
def test_a_leader_whose_last_records_cannot_be_delivered_still_tells_why_it_ended(
    error: Exception | None, told: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The wait for its producer has an end, which is logged: no error takes the place of the processor's."""
    monkeypatch.setattr(runner, "PRODUCER_CLOSE_SECONDS", 0.0)

    class UnableProducer(Producer[KafkaPayload]):
        def produce(
            self, destination: Topic | Partition, payload: KafkaPayload
        ) -> ProducerFuture[BrokerValue[KafkaPayload]]:
            return Future()

        def close(self) -> Future[None]:
            future: Future[None] = Future()
            if error is not None:
                future.set_exception(error)
            return future

    producer: Any = UnableProducer()
    leader.LeaderFactory(producer, "commit-log", "writers", runner.do_nothing, None).shutdown()
    assert caplog.messages == [f"The last commits for commit-log {told}"]


def test_a_leader_does_not_wait_for_minutes_for_a_record_that_cannot_arrive() -> None:
    """Followers wait for it as long as its producer does: at most one record of a partition is in flight."""
    settings = leader.producer_settings("localhost:9092")
    assert settings == {
        "bootstrap.servers": "localhost:9092",
        "message.timeout.ms": 10_000,
        "error_cb": log_if_refused,
    }


def test_commits_that_arroyo_has_given_up_are_one_line_with_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    """Arroyo's own error says nothing; its cause does."""

    def run() -> None:
        try:
            raise KafkaException(KafkaError(KafkaError.NOT_COORDINATOR))
        except KafkaException as error:
            raise RetryException from error

    assert runner.run_and_report("leader.py", run) == 1
    assert capsys.readouterr().err == "leader.py: gave up after several attempts: Broker: Not coordinator\n"
