"""What comes of a client that can't be made, and of one that several threads need."""

from __future__ import annotations

import logging
import threading
from typing import Any, ClassVar

import pytest
from confluent_kafka import KafkaError, KafkaException

from arroyo_sync.core.errors import BrokersUnreachable, ConfigurationError
from arroyo_sync.core.log_throttle import LOG_INTERVAL_SECONDS
from arroyo_sync.kafka import making_clients
from arroyo_sync.kafka.making_clients import LazyClient, make_client
from tests.integration.cluster.waiting import wait_until
from tests.support.fakes import Clock

SETTINGS = {"bootstrap.servers": "kafka:9092", "sasl.password": "hunter2"}
NO_TOKEN = KafkaError(KafkaError.SASL_AUTHENTICATION_FAILED, "OAuth token not set within 10 seconds timeout")
REFUSED = KafkaError(KafkaError._INVALID_ARG, 'Invalid value "hunter2" for sasl.password')


class Client:
    """One that can be made once the issuer is up."""

    is_up = False

    def __init__(self, settings: dict[str, Any]) -> None:
        if not self.is_up:
            raise KafkaException(NO_TOKEN)


def failing(error: KafkaError) -> Any:
    def make(settings: dict[str, Any]) -> object:
        raise KafkaException(error)

    return make


def overwritten(settings: dict[str, Any]) -> object:
    """As confluent-kafka 2.16 does if it calls a callback with its own exception set."""
    try:
        raise KafkaException(NO_TOKEN)
    except KafkaException as error:
        raise SystemError("<method 'fatal'> returned a result with an exception set") from error


def cleared(settings: dict[str, Any]) -> object:
    """The same, if the callback has cleared it."""
    raise SystemError("<class 'cimpl.Consumer'> returned NULL without setting an exception")


@pytest.mark.parametrize(
    "make", [failing(NO_TOKEN), overwritten, cleared], ids=["as it is", "as a SystemError", "cleared"]
)
def test_without_a_token_it_is_told_what_is_missing(make: Any) -> None:
    """Not that the configuration is wrong: it may be right."""
    with pytest.raises(BrokersUnreachable, match=r"no token to log in to kafka:9092 .*token not set .*oauth_cb"):
        make_client(make, {**SETTINGS, "oauth_cb": lambda configuration: None})


def test_a_refused_setting_is_told_without_its_value() -> None:
    with pytest.raises(ConfigurationError, match="librdkafka refuses the configuration: Invalid value") as raised:
        make_client(failing(REFUSED), SETTINGS)
    assert "hunter2" not in str(raised.value)


def test_another_system_error_is_passed_on() -> None:
    """No token was waited for."""

    def make(settings: dict[str, Any]) -> object:
        raise SystemError("out of order")

    with pytest.raises(SystemError, match="out of order"):
        make_client(make, SETTINGS)


def test_a_client_that_could_not_be_made_is_made_by_the_next_question(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Meanwhile it is a line in the log, and no answer."""
    lazy = LazyClient(Client, SETTINGS)
    assert lazy.get() is None
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    monkeypatch.setattr(Client, "is_up", True)
    client = lazy.get()
    assert client is not None
    assert lazy.get() is client


def test_that_there_is_no_token_is_told_once_a_minute_and_then_that_there_is_one(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A question comes each second or so."""
    clock = Clock()
    lazy = LazyClient(Client, SETTINGS, clock)
    for seconds in (0.0, 1.0, LOG_INTERVAL_SECONDS - 2.0, 1.0):
        clock.now += seconds
        assert lazy.get() is None
    assert [line.partition(" with: ")[0] for line in caplog.messages] == [
        "there is no token to log in to kafka:9092"
    ] * 2
    monkeypatch.setattr(Client, "is_up", True)
    assert lazy.get() is not None
    assert lazy.get() is not None
    assert caplog.messages[2:] == ["There is a token to log in to kafka:9092 with now"]


def test_of_a_client_that_can_be_made_at_once_nothing_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Client, "is_up", True)
    assert LazyClient(Client, SETTINGS).get() is not None
    assert caplog.messages == []


def test_after_its_end_no_client_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if it was being made when the end came."""
    made: list[Client] = []

    def make(settings: dict[str, Any]) -> Client:
        lazy.close()
        made.append(Client(settings))
        return made[-1]

    monkeypatch.setattr(Client, "is_up", True)
    lazy = LazyClient(make, SETTINGS)
    assert lazy.get() is None
    assert lazy.get() is None
    assert len(made) == 1
    assert lazy.client is None


def test_a_client_that_is_made_after_its_end_was_waited_for_is_let_go_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its token may take longer than the end waits, and nobody would take it then."""
    is_making, may_go_on = threading.Event(), threading.Event()

    def make(settings: dict[str, Any]) -> Client:
        is_making.set()
        assert may_go_on.wait(20)
        return Client(settings)

    monkeypatch.setattr(Client, "is_up", True)
    monkeypatch.setattr(making_clients, "LET_GO_SECONDS", 0.01)
    lazy = LazyClient(make, SETTINGS)
    answers: list[object] = []
    asking = threading.Thread(target=lambda: answers.append(lazy.use(lambda client: "an answer")))
    asking.start()
    assert is_making.wait(20)
    lazy.close()
    may_go_on.set()
    asking.join(20)
    assert (answers, lazy.client) == ([None], None)


class _Noted:
    """A client that says by which thread it was destroyed."""

    by: ClassVar[list[str]] = []

    def __init__(self, settings: dict[str, Any]) -> None:
        pass

    def __del__(self) -> None:
        self.by.append(threading.current_thread().name)


@pytest.mark.parametrize("is_made_first", [True, False], ids=["it is asked", "it is being made"])
def test_whoever_closes_a_client_is_the_last_to_let_go_of_it(is_made_first: bool) -> None:
    """Though another thread was just asking it. If that is one of librdkafka's, that would abort the process."""
    _Noted.by = []
    is_in_use, may_go_on = threading.Event(), threading.Event()

    def wait() -> None:
        is_in_use.set()
        assert may_go_on.wait(20)

    def make(settings: dict[str, Any]) -> _Noted:
        if not is_made_first:
            wait()
        return _Noted(settings)

    def ask(client: _Noted) -> bool:
        if is_made_first:
            wait()
        return True

    lazy = LazyClient(make, SETTINGS)
    asking = threading.Thread(target=lambda: lazy.use(ask), name="librdkafka's")
    closing = threading.Thread(target=lazy.close, name="ours")
    asking.start()
    assert is_in_use.wait(20)
    closing.start()
    wait_until(lambda: lazy._is_closed, 20, "it counts as closed")
    may_go_on.set()
    asking.join(20)
    closing.join(20)
    assert _Noted.by == ["ours"]
    assert lazy.client is None
