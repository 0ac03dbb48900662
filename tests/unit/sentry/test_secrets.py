"""Whatever takes Kafka settings sees to it, before anything can fail, that nothing sent to Sentry shows a password."""

from __future__ import annotations

import functools
import logging
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sentry_sdk
from arroyo.backends.kafka import KafkaPayload
from arroyo.types import Topic
from confluent_kafka import Consumer
from sentry_sdk.scope import global_event_processors

from arroyo_sync import (
    CommitLogConsumer,
    CommitLogPublisher,
    GroupOffsetsSource,
    PublishCommitLog,
    SynchronizedStrategyFactory,
)
from arroyo_sync.core.errors import ConfigurationError, SourceDied
from arroyo_sync.core.log_throttle import TOLD_BY_MONITOR, mark_told
from arroyo_sync.core.state import SynchronizedPartitionStateManager
from arroyo_sync.kafka.making_clients import make_client
from arroyo_sync.sentry import PublishSpans
from arroyo_sync.status.command import main
from arroyo_sync.testing import ManualSource
from tests.support.hostile import Steps, local_producer
from tests.support.sentry_transport import CatchingTransport, sentry

SECRET = "-".join(["correct", "horse"])  # spelled so, since events also show the lines of source


@pytest.fixture
def transport(monkeypatch: pytest.MonkeyPatch) -> Iterator[CatchingTransport]:
    """Of a process in which nobody has asked for anything yet."""
    before = list(global_event_processors)
    global_event_processors.clear()
    with sentry() as transport:
        yield transport
    global_event_processors[:] = before


def fetch_token(*_: str) -> None: ...


REFUSED: dict[str, Callable[[dict[str, Any]], object]] = {
    "CommitLogConsumer: brokers": lambda settings: CommitLogConsumer(
        {**settings, "bootstrap.servers": ""}, topic=Topic("log"), groups=["w"]
    ),
    "CommitLogConsumer: a password that is no text": lambda settings: CommitLogConsumer(
        {**settings, "sasl.password": [settings["sasl.password"]]}, topic=Topic("log"), groups=["w"]
    ),
    "CommitLogConsumer: groups": lambda settings: CommitLogConsumer(settings, topic=Topic("log"), groups=[]),
    "GroupOffsetsSource": lambda settings: GroupOffsetsSource(settings, groups=[]),
    "CommitLogPublisher": lambda settings: CommitLogPublisher(
        local_producer(), Topic("log"), "", data_configuration=settings
    ),
    "PublishCommitLog": lambda settings: PublishCommitLog(settings, local_producer(), Topic("log"), "w"),  # type: ignore[arg-type]
    "SynchronizedStrategyFactory": lambda settings: SynchronizedStrategyFactory(
        Steps(),
        settings,  # type: ignore[arg-type]
        monitor_interval=None,
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_sends_no_password(transport: CatchingTransport, name: str) -> None:
    """Neither of the frame that refuses, nor of the caller's."""
    settings = {
        "bootstrap.servers": "here:9092",
        "sasl.username": "somebody",
        "sasl.password": SECRET,
        "sasl.kerberos.kinit.cmd": f"echo {SECRET} | kinit somebody",
        "oauth_cb": functools.partial(fetch_token, "somebody", SECRET),
    }
    try:
        REFUSED[name](settings)
    except ConfigurationError:
        sentry_sdk.capture_exception()
    assert "somebody" in transport.everything, "the settings are in the frames"
    assert "function fetch_token" in transport.everything
    assert SECRET not in transport.everything


def test_a_function_that_an_event_is_given_sends_no_password(transport: CatchingTransport) -> None:
    """The SDK makes a text of it only afterwards."""
    SynchronizedStrategyFactory(Steps(), ManualSource(), monitor_interval=None)
    callback = functools.partial(fetch_token, "somebody", SECRET)
    sentry_sdk.capture_event({"extra": {"settings": {"oauth_cb": callback}, "what": callback, "several": [callback]}})
    assert transport.everything.count("function fetch_token") == 3
    assert SECRET not in transport.everything


def test_a_follower_without_a_monitor_sends_no_password_either(transport: CatchingTransport) -> None:
    """With the monitor goes what it sends, not what is kept back."""
    SynchronizedStrategyFactory(Steps(), ManualSource(), monitor_interval=None)
    settings = [("sasl.username", "somebody"), ("sasl.password", SECRET)]
    try:
        raise RuntimeError(f"{len(settings)} settings")
    except RuntimeError:
        sentry_sdk.capture_exception()
    assert "somebody" in transport.everything
    assert SECRET not in transport.everything


def test_the_status_command_sends_no_password(
    transport: CatchingTransport, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where it can't even read its arguments."""
    with pytest.raises(SystemExit):
        main(["status"])
    capsys.readouterr()
    settings = {"sasl.username": "somebody", "sasl.password": SECRET}
    sentry_sdk.capture_event({"extra": {"settings": settings, "text": repr(settings), "pairs": [*settings.items()]}})
    assert "somebody" in transport.everything
    assert SECRET not in transport.everything


LOGGER = logging.getLogger("arroyo_sync.observe.problems")
SETTINGS = f"the settings are sasl.password={SECRET}"
RECORDS: dict[str, Callable[[], None]] = {
    "in the text": lambda: LOGGER.warning(SETTINGS),
    "in an argument": lambda: LOGGER.warning("the settings are %s", {"sasl.password": SECRET}),
    "in an argument's repr": lambda: LOGGER.warning("%s is in the way", Opaque()),
    "in named arguments": lambda: LOGGER.warning(
        "the settings are %(settings)s", {"settings": f"ssl.key.pem={SECRET}"}
    ),
    "in an exception": lambda: LOGGER.warning("it failed", exc_info=RuntimeError(f"sasl.password={SECRET}")),
    "in librdkafka's words": lambda: LOGGER.warning(
        "%s", f"Failed to acquire SASL OAUTHBEARER token: Unrecognized sasl.oauthbearer.config beginning at: {SECRET} x"
    ),
}


class Opaque:
    """Such as an error: a handler shows its text, and Sentry's logs its repr."""

    def __str__(self) -> str:
        return "something"

    def __repr__(self) -> str:
        return f"Opaque({{'sasl.password': '{SECRET}'}})"


@pytest.mark.parametrize("name", RECORDS)
def test_what_the_package_logs_is_without_secrets_wherever_it_goes(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """The log, a breadcrumb of a later event, and Sentry's logs, for which the SDK has no processor of events."""
    SynchronizedStrategyFactory(Steps(), ManualSource(), monitor_interval=None)
    with sentry(enable_logs=True) as transport:
        RECORDS[name]()
        sentry_sdk.capture_message("later")
        assert len(transport.logs) == 1
        assert len(transport.events[-1]["breadcrumbs"]["values"]) == 1
        assert SECRET not in transport.everything
    assert len(caplog.records) == 1
    assert SECRET not in caplog.text


def test_what_is_no_secret_is_logged_as_it_was_given() -> None:
    """With its template and arguments, by which Sentry groups."""
    SynchronizedStrategyFactory(Steps(), ManualSource(), monitor_interval=None)
    with sentry(enable_logs=True) as transport:
        LOGGER.warning("%s of %d", "one", 2)
        (log,) = transport.logs
    assert log["body"] == "one of 2"
    assert log["attributes"]["sentry.message.template"]["value"] == "%s of %d"


def test_a_source_that_dies_of_its_settings_shows_none_of_them(caplog: pytest.LogCaptureFixture) -> None:
    """librdkafka shows what it can't read of sasl.oauthbearer.config: in the log, in the error, in Sentry."""
    settings = {
        "bootstrap.servers": "127.0.0.1:1",
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanisms": "OAUTHBEARER",
        "enable.sasl.oauthbearer.unsecure.jwt": True,
        "sasl.oauthbearer.config": f"{SECRET} principal=somebody",
    }
    with sentry(enable_logs=True) as transport:
        source = CommitLogConsumer(settings, topic=Topic("log"), groups=["w"], connect_timeout=1.0)
        source.start(SynchronizedPartitionStateManager())
        with pytest.raises(SourceDied) as died:
            source.wait_until_ready(60.0)
        sentry_sdk.capture_exception(died.value)
        source.stop(60.0)
        assert "beginning at" in transport.everything
        assert SECRET not in transport.everything
    assert SECRET not in caplog.text


def test_a_refused_setting_shows_in_neither_the_error_nor_what_it_came_from() -> None:
    """librdkafka's own error would go along as its cause."""
    settings = {"sasl.password": SECRET, "security.protocol": SECRET}
    with pytest.raises(ConfigurationError, match=r"security\.protocol") as refused:
        make_client(Consumer, {"group.id": "g", **settings})
    assert SECRET not in "".join(traceback.format_exception(refused.value))


def test_spans_hold_no_settings() -> None:
    """Of the producer that they go round: topic, key and sizes alone, also where it fails."""
    producer = local_producer()
    producer.get_config = lambda: {"sasl.password": SECRET}  # type: ignore[attr-defined]

    def fail(*_: object) -> None:
        raise RuntimeError(f"sasl.password={SECRET}")

    producer.produce = fail  # type: ignore[assignment,method-assign]
    with sentry(traces_sample_rate=1.0) as transport:
        with pytest.raises(RuntimeError):
            PublishSpans(producer, 1.0).produce(Topic("log"), KafkaPayload(b"events:0:w", b"7", []))
        assert len(transport.transactions) == 1
        assert SECRET not in transport.everything


class _Json(logging.Formatter):
    """As those for JSON do, it goes by the exception, whatever text of it another formatter would take."""

    def format(self, record: logging.LogRecord) -> str:
        return self.formatException(record.exc_info) if record.exc_info else ""


def _failed(error: BaseException, cause: BaseException | None = None) -> BaseException:
    try:
        raise error from cause
    except BaseException as raised:
        return raised


@pytest.mark.parametrize(
    "error",
    [
        _failed(ConnectionError(f"no answer of postgresql://somebody:{SECRET}@db/events")),
        _failed(KeyError("events"), _failed(ValueError(f"sasl.password={SECRET}"))),
        _failed(ValueError(f"sasl.password={SECRET}"), _failed(KeyError("events"), ValueError(f"api_key={SECRET}"))),
    ],
    ids=["itself", "its cause", "both"],
)
def test_a_formatter_that_goes_by_the_exception_shows_no_secret(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """What kind it is, where it was raised, and that it was told of elsewhere, it does show."""
    SynchronizedStrategyFactory(Steps(), ManualSource(), monitor_interval=None)
    mark_told(error)
    LOGGER.warning("it failed", exc_info=error)
    (record,) = caplog.records
    shown = _Json().format(record)
    assert SECRET in "".join(traceback.format_exception(error))
    assert SECRET not in shown
    assert type(error).__name__ in shown
    assert "in _failed" in shown
    assert record.exc_info is not None
    assert getattr(record.exc_info[1], TOLD_BY_MONITOR)


def test_an_exception_that_shows_no_secret_is_logged_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    """Also with causes that lead to each other."""
    SynchronizedStrategyFactory(Steps(), ManualSource(), monitor_interval=None)
    error, cause = KeyError("events"), ValueError("no")
    error.__cause__, cause.__cause__ = cause, error
    LOGGER.warning("it failed", exc_info=error)
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[1] is error
