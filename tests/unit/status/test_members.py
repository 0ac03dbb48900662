from __future__ import annotations

import subprocess
import sys
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from arroyo_sync.status import members
from arroyo_sync.status.members import Member, MembersQuestion, describe
from tests.integration.cluster.waiting import wait_until
from tests.support.fakes import Clock

SETTINGS = {"bootstrap.servers": "127.0.0.1:1"}


HANGS = "import threading; threading.Event().wait()"


def question(monkeypatch: pytest.MonkeyPatch, program: str, clock: Clock | None = None) -> MembersQuestion:
    """To another process than the usual one. It has a minute."""
    start = subprocess.Popen

    def run(command: list[str], **keywords: Any) -> Any:
        assert command == [sys.executable, "-m", "arroyo_sync.status.members"]
        return start([sys.executable, "-c", program], **keywords)

    monkeypatch.setattr("arroyo_sync.status.members.subprocess.Popen", run)
    monkeypatch.setattr(members, "SECONDS_TO_START", 0.0)
    return MembersQuestion(SETTINGS, {"writers"}, "events", 60.0, clock or Clock())


@pytest.mark.parametrize(
    ("program", "answer"),
    [
        pytest.param(
            'print(\'{"writers": [{"client_id": "me", "host": "here", "partitions": [1, 2]}]}\')',
            (Member("me", "here", (1, 2)),),
            id="members",
        ),
        pytest.param("print('{\"writers\": []}')", (), id="none"),
        pytest.param('print(\'{"writers": "refused"}\')', "refused", id="refused"),
        pytest.param("import os; os.abort()", "the process that asked ended with -6", id="aborted"),
        pytest.param("1 / 0", "the process that asked ended with 1", id="failed"),
        pytest.param("print('nonsense')", "the answer can't be read", id="nonsense"),
    ],
)
def test_whatever_becomes_of_the_process_costs_its_answer_alone(
    monkeypatch: pytest.MonkeyPatch, program: str, answer: object
) -> None:
    """librdkafka may abort it."""
    assert question(monkeypatch, program).answer() == {"writers": answer}


LARGE = """\
import json
print(json.dumps({"writers": [{"client_id": "c" * 100, "host": "h", "partitions": [each]} for each in range(2000)]}))
"""
"""More than any pipe takes while nobody reads."""


def test_a_large_answer_is_taken_without_waiting_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a watch takes it. A process that can't get rid of its answer never ends."""
    large = question(monkeypatch, LARGE)
    wait_until(lambda: large.has_answer, 30, "the answer")
    answer = large.answer()["writers"]
    assert (len(answer), answer[-1]) == (2000, Member("c" * 100, "h", (1999,)))


def test_a_process_that_hangs_is_ended_after_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where nobody waits for it, as in a watch, which would else never ask again."""
    clock = Clock()
    hanging = question(monkeypatch, HANGS, clock)
    clock.now += 59.0
    assert not hanging.has_answer
    clock.now += 1.0
    assert hanging.has_answer
    assert hanging.answer() == {"writers": "the brokers didn't answer in time"}
    assert hanging._process.poll() is not None


def test_an_answer_counts_that_came_in_time_and_is_taken_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Something else was waited for meanwhile."""
    clock = Clock()
    late = question(monkeypatch, "print('{\"writers\": []}')", clock)
    wait_until(lambda: late.has_answer, 30, "the process's end")
    clock.now += 1000.0
    assert late.answer() == {"writers": ()}


def test_a_question_that_nobody_wants_answered_any_more_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the command is interrupted."""
    hanging = question(monkeypatch, HANGS)
    assert not hanging.has_answer
    hanging.close()
    hanging.close()
    assert hanging.has_answer


def test_the_real_process_says_that_no_broker_answers() -> None:
    """From end to end, without any broker."""
    (said,) = MembersQuestion(SETTINGS, {"writers"}, "events", 0.5).answer().values()
    assert isinstance(said, str)


def test_members_are_described_with_their_partitions_of_the_topic(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of their partitions; what is refused, and what isn't told in time, in words."""

    class Admin:
        def __init__(self, settings: object) -> None:
            pass

        def describe_consumer_groups(self, groups: list[str], request_timeout: float) -> dict[str, Future[Any]]:
            futures: dict[str, Future[Any]] = {group: Future() for group in groups}
            parts = [SimpleNamespace(topic=topic, partition=each) for topic, each in (("events", 4), ("else", 1))]
            one = SimpleNamespace(client_id="b", host="/10.0.0.1", assignment=SimpleNamespace(topic_partitions=parts))
            other = SimpleNamespace(client_id="a", host="10.0.0.2", assignment=None)
            futures["writers"].set_result(SimpleNamespace(members=[one, other]))
            futures["secret"].set_exception(KafkaException(KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED)))
            return futures

    monkeypatch.setattr(members, "AdminClient", Admin)
    answers = describe(SETTINGS, ["writers", "secret", "late"], "events", 0.01)
    assert answers["writers"] == [
        {"client_id": "a", "host": "10.0.0.2", "partitions": ()},
        {"client_id": "b", "host": "10.0.0.1", "partitions": (4,)},
    ]
    assert "authorization" in str(answers["secret"]).lower()
    assert answers["late"] == "the brokers didn't answer in time"
