"""The start of the source that asks for the groups' commits: it is ready once a broker is reached."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from arroyo_sync.core.errors import BrokersUnreachable, NotReady
from arroyo_sync.core.state import SynchronizedPartitionStateManager
from arroyo_sync.leaders import offset_source
from arroyo_sync.leaders.group_offsets import GroupOffsetsSource
from tests.support.fakes import Clock
from tests.support.scripted_asker import ScriptedAsker, asker_of
from tests.support.threads import PATIENCE_SECONDS

CONFIGURATION = {"bootstrap.servers": "kafka:9092"}
NAME = "group offsets of a, b"
NO_ANSWER = KafkaError(KafkaError._TRANSPORT, "no answer")
REFUSED = KafkaError(KafkaError._TRANSPORT, "connection refused")


@pytest.fixture(autouse=True)
def _scripted_asker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offset_source, "Asker", ScriptedAsker)


def source_of(**arguments: Any) -> tuple[GroupOffsetsSource, ScriptedAsker, Clock]:
    """A source that was not started, its asker, and its clock. An attempt to reach a broker takes a second."""
    clock = Clock()
    source = GroupOffsetsSource(CONFIGURATION, groups=["b", "a"], clock=clock, **arguments)
    return source, asker_of(source), clock


@pytest.mark.parametrize(
    ("arguments", "seconds"), [pytest.param({}, 30, id="by default"), pytest.param({"connect_timeout": 5}, 5, id="set")]
)
def test_brokers_that_never_answer_end_it_after_the_timeout(arguments: dict[str, Any], seconds: int) -> None:
    """With their address, and the last error that a client told of, which says more than that there was no answer."""
    source, asker, clock = source_of(**arguments)
    asker.unreachable = [NO_ANSWER] * 100
    asker.on_error(REFUSED)
    began = clock.now
    with pytest.raises(BrokersUnreachable) as raised:
        source._read()
    assert str(raised.value) == f"no broker of kafka:9092 answered within {seconds} s: connection refused"
    assert clock.now - began == seconds
    assert isinstance(raised.value.__cause__, KafkaException)
    assert not source.ready


def test_a_start_without_an_answer_says_why_if_nobody_else_does() -> None:
    """By the question's own error."""
    source, asker, _ = source_of(connect_timeout=2.5)
    asker.unreachable = [NO_ANSWER] * 3
    with pytest.raises(BrokersUnreachable, match=r"within 2\.5 s: no answer$"):
        source._read()


def test_brokers_that_do_not_answer_at_the_start_are_told_of_and_that_they_do(caplog: pytest.LogCaptureFixture) -> None:
    """One line after three seconds, however long it takes then, and one when it is over."""
    source, asker, clock = source_of()
    asker.unreachable = [NO_ANSWER] * 10
    began = clock.now
    told: list[tuple[float, list[str]]] = []
    asker.before_reach = lambda: told.append((clock.now - began, list(caplog.messages)))
    source._reach()
    line = f"{NAME}: no broker of kafka:9092 answers: no answer. It is tried again"
    assert told == [(second, [line] if second >= 3 else []) for second in range(11)]
    assert caplog.messages == [line, f"{NAME}: kafka:9092 answers now"]
    assert source.ready


def test_a_moment_without_an_answer_is_told_of_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    """Nor is a start at which all is well."""
    source, asker, _ = source_of()
    asker.unreachable = [NO_ANSWER] * 2
    source._reach()
    assert source.ready
    source, asker, _ = source_of()
    source._reach()
    assert source.ready
    assert caplog.messages == []


@pytest.mark.parametrize("teller", ["the answer", "a client"])
def test_a_refused_login_ends_it_at_once(teller: str) -> None:
    """Whoever tells of it: waiting doesn't mend it."""
    source, asker, clock = source_of()
    refused = KafkaError(KafkaError._AUTHENTICATION, "wrong password")
    asker.unreachable = [refused if teller == "the answer" else NO_ANSWER] * 100
    if teller == "a client":
        asker.on_error(refused)
    began = clock.now
    with pytest.raises(KafkaException, match="wrong password"):
        source._read()
    assert clock.now - began == 1


def test_a_source_that_is_stopped_at_its_start_tries_no_more() -> None:
    """And never becomes ready."""
    source, asker, _ = source_of()
    asker.unreachable = [NO_ANSWER] * 100
    asker.before_reach = source._stopping.set
    source._read()
    assert (len(asker.unreachable), source.ready) == (99, False)


def test_who_waits_for_it_is_told_what_it_waits_for() -> None:
    """The brokers, and why they don't answer, once that is known."""
    source, asker, _ = source_of()
    attempts = [threading.Event(), threading.Event()]
    may_go_on = [threading.Event(), threading.Event()]
    asker.unreachable = [REFUSED]
    numbers = iter(range(2))

    def wait() -> None:
        number = next(numbers)
        attempts[number].set()
        assert may_go_on[number].wait(PATIENCE_SECONDS)

    asker.before_reach = wait
    source.start(SynchronizedPartitionStateManager())
    try:
        for attempt, go_on, reason in zip(attempts, may_go_on, ["", " (connection refused)"], strict=True):
            assert attempt.wait(PATIENCE_SECONDS)
            with pytest.raises(NotReady) as raised:
                source.wait_until_ready(0.0)
            missing = f"it waits for an answer of kafka:9092{reason}"
            assert str(raised.value) == f"{NAME} wasn't ready after 0 s: {missing}"
            go_on.set()
        source.wait_until_ready(PATIENCE_SECONDS)
        assert source.statistics().alive
    finally:
        for go_on in may_go_on:
            go_on.set()
        source.stop(PATIENCE_SECONDS)


def test_what_is_said_of_a_topic_that_is_not_there_names_no_argument_that_this_source_has_not() -> None:
    """It has one cluster: the data topic's."""
    _, asker, _ = source_of()
    assert asker.advice.startswith("The gate stays shut. If the data topic is on another cluster,")
    assert "data_configuration" not in asker.advice
