"""What Arroyo's handler of SIGCHLD raises comes out of whatever it interrupts: a worker has died.

Kept from it, the processor would wait for that worker's batch for ever, and all would look alive.
"""

from __future__ import annotations

import ast
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sentry_sdk
from arroyo.backends.kafka import KafkaPayload
from arroyo.processing.strategies.commit import CommitOffsets
from arroyo.processing.strategies.run_task_with_multiprocessing import ChildProcessTerminated
from arroyo.types import Message, Value
from confluent_kafka import KafkaError, KafkaException

import arroyo_sync
from arroyo_sync.core import log_guard
from arroyo_sync.core.checks import check_step
from arroyo_sync.core.errors import TopicRecreated
from arroyo_sync.core.log_guard import guarded_logger
from arroyo_sync.core.log_throttle import LogThrottle
from arroyo_sync.core.state import SynchronizedPartitionStateManager
from arroyo_sync.gate import factory
from arroyo_sync.gate.consumer import beginning_questions, cluster_question, start_positions
from arroyo_sync.gate.consumer.beginning_questions import BeginningQuestions
from arroyo_sync.gate.consumer.cluster_question import ClusterQuestion
from arroyo_sync.gate.consumer.rebalance_protocol import refuse_old_brokers
from arroyo_sync.gate.consumer.replaced_log import ReplacedLog
from arroyo_sync.gate.consumer.start_positions import StartPositions, commit_once
from arroyo_sync.kafka.arroyo_consumer import KafkaWatermarks
from arroyo_sync.kafka.questions.answers import deliver_answer
from arroyo_sync.kafka.questions.asker import Asker
from arroyo_sync.kafka.redaction import _filter_record, _repr
from arroyo_sync.leaders.commit_log.publishing.publish_queue import PublishQueue
from arroyo_sync.leaders.commit_log.publishing.publisher import CommitLogPublisher
from arroyo_sync.leaders.commit_log.publishing.received_times import ReceivedTimes
from arroyo_sync.leaders.commit_log.publishing.start_questions import StartQuestions
from arroyo_sync.sentry import PublishSpans, SentryMetrics
from tests.support.dead_worker import worker_dies, worker_dies_as_threads_start
from tests.support.fakes import Clock, ScriptedConsumer, partition
from tests.support.leader import COMMIT_LOG, EVENTS, Leader, make_future
from tests.support.sentry_transport import sentry
from tests.support.threads import PATIENCE_SECONDS
from tests.unit.test_user_code import follower

PACKAGE = Path(arroyo_sync.__file__).parent
NOBODY = {"bootstrap.servers": "127.0.0.1:1", "log_level": 0}
UNKNOWN_PARTITION = KafkaException(KafkaError(KafkaError._UNKNOWN_PARTITION))


def fails(*_: object, **__: object) -> Any:
    raise ValueError("a failure")


class Failing:
    """What it is to be told or asked fails: it is told so, and a worker dies as it is."""

    def __init__(self) -> None:
        self.calls = iter([fails, worker_dies])

    def __call__(self, *_: object, **__: object) -> Any:
        next(self.calls)()


Site = Callable[[pytest.MonkeyPatch], object]
SITES: list[Site] = []


def site(run: Site) -> Site:
    """What runs others' code in which a worker dies."""
    SITES.append(run)
    return run


# A leader.


def publisher_of(produce: Callable[..., Any]) -> CommitLogPublisher:
    return CommitLogPublisher(SimpleNamespace(produce=produce), COMMIT_LOG, "writers")  # type: ignore[arg-type]


@site
def the_user_s_received_timestamps(_: pytest.MonkeyPatch) -> None:
    ReceivedTimes(worker_dies, LogThrottle(60.0, Clock())).of(Message(Value(b"", {})))


@site
def a_producer(_: pytest.MonkeyPatch) -> None:
    publisher = publisher_of(worker_dies)
    try:
        publisher.step(lambda offsets, force=False: None, {EVENTS[0]: 1})
    finally:
        publisher._writer.stop()


@site
def the_end_of_a_delivery(_: pytest.MonkeyPatch) -> None:
    queue = PublishQueue(1.0, 10.0)
    queued = queue.add(EVENTS[0])
    queued.newest = (1, None)
    queue.mark_pending(queued)
    queue.update(0.0)
    queue.handed_over(queued, SimpleNamespace(done=lambda: True, result=worker_dies))  # type: ignore[arg-type]
    queue.update(0.1)


@site
def the_start_of_the_thread_that_publishes(monkeypatch: pytest.MonkeyPatch) -> None:
    leader = Leader(make_future)
    worker_dies_as_threads_start(monkeypatch)
    try:
        leader.commit(0, 1)
    finally:
        leader.step.terminate()


@site
def the_start_of_the_thread_that_asks_for_a_leader(monkeypatch: pytest.MonkeyPatch) -> None:
    questions = StartQuestions(NOBODY, False, "writers", {}, lambda partition: None, lambda: None)
    monkeypatch.setattr(questions, "_run", lambda: None)
    worker_dies_as_threads_start(monkeypatch)
    questions.ask(["events"], [], {})


@site
def the_commit_of_where_a_leader_starts(_: pytest.MonkeyPatch) -> None:
    publisher_of(fails).step(worker_dies, {EVENTS[0]: 1})


@site
def the_last_commit_of_where_a_leader_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    step = publisher_of(fails).step(fails, {EVENTS[0]: 1})
    monkeypatch.setattr(CommitOffsets, "join", worker_dies)
    step.join()


# Sentry's SDK. What interrupts a hook of the user's it keeps to itself after 2.66.0.


@site
def a_metric_for_sentry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentry_sdk.metrics, "gauge", worker_dies)
    SentryMetrics().gauge("arroyo.some", 1)


@site
def the_count_of_a_metric_that_sentry_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentry_sdk.metrics, "gauge", fails)
    monkeypatch.setattr(sentry_sdk.metrics, "count", worker_dies)
    SentryMetrics().gauge("arroyo.some", 1)


def publish_in_a_span() -> None:
    producer = SimpleNamespace(produce=lambda destination, payload: make_future())
    with sentry(traces_sample_rate=1.0):
        PublishSpans(producer, 1.0).produce(COMMIT_LOG, KafkaPayload(None, b"", []))  # type: ignore[arg-type]


@site
def what_begins_a_span(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentry_sdk, "start_transaction", worker_dies)
    publish_in_a_span()


@site
def what_ends_a_span(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentry_sdk.tracing.Transaction, "__exit__", worker_dies)
    publish_in_a_span()


# The log.


def line_with_filter(filtered: Callable[[logging.LogRecord], bool]) -> None:
    logger = guarded_logger("arroyo_sync.some")
    logger.addFilter(filtered)
    try:
        logger.warning("a line")
    finally:
        logger.removeFilter(filtered)


@site
def a_handler_or_filter_of_the_log(_: pytest.MonkeyPatch) -> None:
    line_with_filter(worker_dies)


@site
def a_filter_of_the_log_as_a_lost_line_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_guard, "_throttle", LogThrottle(60.0, Clock()))
    line_with_filter(Failing())


@site
def the_factory_of_log_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging, "_logRecordFactory", worker_dies)
    guarded_logger("arroyo_sync.some").warning("a line")


@site
def the_factory_of_log_records_as_its_failure_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_guard, "_throttle", LogThrottle(60.0, Clock()))
    monkeypatch.setattr(logging, "_logRecordFactory", Failing())
    guarded_logger("arroyo_sync.some").warning("a line")


@site
def the_text_of_what_is_logged(_: pytest.MonkeyPatch) -> None:
    class Shown:
        __str__ = worker_dies

    _filter_record(logging.LogRecord("arroyo_sync.some", logging.WARNING, __file__, 1, "%s", (Shown(),), None))


@site
def the_text_of_what_is_sent_to_sentry(_: pytest.MonkeyPatch) -> None:
    class Shown:
        __repr__ = worker_dies

    _repr(Shown())


# A follower.


@site
def the_user_s_on_state_change(_: pytest.MonkeyPatch) -> None:
    manager = SynchronizedPartitionStateManager(worker_dies)
    manager.set_local_offset("events", 0, 1)
    manager.set_remote_offset("events", 0, 2)


@site
def a_property_of_the_user_s_step(_: pytest.MonkeyPatch) -> None:
    class Step:
        submit = property(worker_dies)

    check_step("next_step", Step())


@site
def the_end_of_a_source_as_the_consumer_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    with follower() as (made, _):
        monkeypatch.setattr(made._monitor, "stop", worker_dies)
        made._consumer_closed()


@site
def the_event_of_a_source_that_has_died(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(factory, "death_of", worker_dies)
    with follower() as (made, _):
        made.manager.has_monitor = True


@site
def the_question_whether_the_topic_is_the_same(_: pytest.MonkeyPatch) -> None:
    inner, manager = ScriptedConsumer(), SynchronizedPartitionStateManager()
    ReplacedLog(inner, manager, worker_dies, StartPositions(inner, Clock())).leave([partition(0)])


@site
def the_commit_of_where_a_new_topic_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    inner, manager = ScriptedConsumer(), SynchronizedPartitionStateManager()
    manager.fail(TopicRecreated("events", "one", "two"))
    log = ReplacedLog(inner, manager, None, StartPositions(inner, Clock()))
    monkeypatch.setattr(BeginningQuestions, "ask", lambda *_: ({partition(0): 1}, {}))
    monkeypatch.setattr(log, "_commit", worker_dies)
    log.leave([partition(0)])


def beginnings() -> BeginningQuestions:
    return BeginningQuestions(ScriptedConsumer(), TopicRecreated("events", "one", "two"), {}, lambda: False)


@site
def the_question_where_a_partition_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beginning_questions, "reset_offset", worker_dies)
    beginnings().ask([partition(0)], float("inf"))


@site
def the_question_whether_a_new_topic_has_a_partition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beginning_questions, "reset_offset", worker_dies)
    monkeypatch.setattr(beginning_questions, "GONE_SECONDS", 0.0)
    beginnings().gone({partition(3): UNKNOWN_PARTITION}, float("inf"))


@site
def the_source_that_is_told_of_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_question, "cluster_of", lambda *_: "the cluster")
    question = ClusterQuestion(ScriptedConsumer(), worker_dies, Clock())
    question.begin("events")
    question.ask_if_due()


@site
def the_question_what_is_committed_where_it_began(monkeypatch: pytest.MonkeyPatch) -> None:
    start = StartPositions(ScriptedConsumer(), Clock())
    start.commit({partition(0): 4})
    start.stage({partition(0): 4})
    monkeypatch.setattr(start_positions, "committed_offsets", worker_dies)
    start.earlier({partition(0): 9})


@site
def the_staging_of_where_a_partition_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    inner = ScriptedConsumer()
    inner._staged[partition(0)] = 3
    monkeypatch.setattr(inner, "stage_offsets", worker_dies)
    StartPositions(inner, Clock()).stage({partition(0): 4})


@site
def the_commit_of_where_a_follower_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    inner = ScriptedConsumer()
    monkeypatch.setattr(inner, "commit_offsets", worker_dies)
    StartPositions(inner, Clock()).commit({partition(0): 4})


@site
def the_commit_of_where_a_follower_without_flow_control_begins(_: pytest.MonkeyPatch) -> None:
    commit_once(worker_dies, object(), {partition(0): 4})


# Kafka's client.


@site
def the_start_of_a_thread_that_asks_for_the_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arroyo_sync.gate.consumer.rebalance_protocol.broker_without_kip848", lambda *_: None)
    worker_dies_as_threads_start(monkeypatch)
    refuse_old_brokers(NOBODY, lambda error: None)


@site
def the_start_of_a_thread_that_asks_for_leaders(monkeypatch: pytest.MonkeyPatch) -> None:
    asker = Asker(NOBODY, lambda error: None)
    try:
        with monkeypatch.context() as patched:
            worker_dies_as_threads_start(patched)
            asker.ask_end_offsets([("events", 0)], 0.1, lambda answers: None)
    finally:
        asker.stop(PATIENCE_SECONDS)


@site
def what_is_done_with_an_answer(_: pytest.MonkeyPatch) -> None:
    deliver_answer(worker_dies, None)


@site
def the_ends_that_the_client_knows(_: pytest.MonkeyPatch) -> None:
    KafkaWatermarks(SimpleNamespace(get_watermark_offsets=worker_dies)).cached("events", 0)  # type: ignore[arg-type]


@pytest.mark.parametrize("run", SITES, ids=lambda run: run.__name__)
def test_a_dead_worker_of_the_pipeline_comes_out_of(run: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ChildProcessTerminated):
        run(monkeypatch)


# The same by reading: of guards that come later, too.

BROAD = {"Exception", "BaseException", "RuntimeError", "errors"}
"""What catches it; the last one is a variable."""

KEEPING = {
    "kafka.arroyo_consumer hand_out_rebalances": "raises what it has caught, once the rest is handed out",
    "kafka.questions.asker Asker.ask_offsets_for_time": "on the source's threads",
    "kafka.questions.committed_offsets GroupCommits.ask": "on the source's threads, or the leader's for questions",
    "kafka.questions.committed_offsets GroupCommits._run": "its own thread",
    "leaders.commit_log.publishing.report_writer ReportWriter._pass": "its own thread",
    "leaders.commit_log.publishing.start_questions StartQuestions._run": "its own thread",
    "leaders.offset_source OffsetSource.start": "the source dies of it, which the gate raises",
    "leaders.offset_source OffsetSource._run": "its own threads",
    "leaders.verifier Verifier._refuse_lost_messages": "the source's thread",
    "observe.metrics_reporter MetricsReporter._send": "the monitor's thread",
    "observe.monitor Monitor._act_on": "the monitor's thread",
    "observe.monitor Monitor._check_but_for": "the monitor's thread",
    "observe.monitor Monitor.refresh_ends": "the monitor's thread",
}
"""Guards that keep what interrupts them, and why they may."""


def names_in(node: ast.expr | None) -> set[str]:
    """What an ``except`` names; a bare one catches all."""
    return {"BaseException"} if node is None else {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}


def is_raise(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Raise) and statement.exc is None


def keeping(tree: ast.AST, function: str = "") -> Iterator[str]:
    """The functions with guards that keep what interrupts them."""
    for node in ast.iter_child_nodes(tree):
        inside = function
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            inside = f"{function}.{node.name}".lstrip(".")
        elif isinstance(node, ast.Try):
            for handler in node.handlers:
                if names_in(handler.type) == {"INTERRUPTIONS"} and is_raise(handler.body[0]):
                    break
                if names_in(handler.type) & BROAD and not is_raise(handler.body[-1]):
                    yield function
        elif isinstance(node, ast.Call) and names_in(node.func) == {"suppress"}:
            yield from [function] * any(names_in(each) & BROAD for each in node.args)
        yield from keeping(node, inside)


def test_no_other_guard_on_the_processor_s_thread_keeps_what_interrupts_it() -> None:
    """The command (``status``) is a process of its own."""
    found = {
        f"{'.'.join(path.relative_to(PACKAGE).with_suffix('').parts)} {function}"
        for path in PACKAGE.rglob("*.py")
        if path.relative_to(PACKAGE).parts[0] != "status"
        for function in keeping(ast.parse(path.read_text()))
    }
    assert found == KEEPING.keys()


@pytest.mark.parametrize(
    ("guard", "is_kept"),
    [
        ("try: ...\nexcept INTERRUPTIONS: raise\nexcept Exception: ...", False),
        ("try: ...\nexcept Exception: ...\nexcept INTERRUPTIONS: raise", True),
        ("try: ...\nexcept (ValueError, RuntimeError): ...", True),
        ("try: ...\nexcept: ...", True),
        ("try: ...\nexcept Exception:\n  undo()\n  raise", False),
        ("try: ...\nexcept ValueError: ...", False),
        ("with suppress(Exception): ...", True),
        ("with suppress(ValueError): ...", False),
    ],
)
def test_a_guard_that_keeps_what_interrupts_it_is_found(guard: str, is_kept: bool) -> None:
    assert list(keeping(ast.parse(guard))) == [""] * is_kept
