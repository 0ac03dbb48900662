"""Whatever takes Kafka settings sees to it, before anything can fail, that no Sentry event shows a password."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import sentry_sdk
from arroyo.types import Topic
from sentry_sdk.scope import global_event_processors

from arroyo_sync import (
    CommitLogConsumer,
    CommitLogPublisher,
    GroupOffsetsSource,
    PublishCommitLog,
    SynchronizedStrategyFactory,
)
from arroyo_sync.core.errors import ConfigurationError
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


REFUSED: dict[str, Callable[[dict[str, str]], object]] = {
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
    settings = {"bootstrap.servers": "here:9092", "sasl.username": "somebody", "sasl.password": SECRET}
    try:
        REFUSED[name](settings)
    except ConfigurationError:
        sentry_sdk.capture_exception()
    assert "somebody" in transport.everything, "the settings are in the frames"
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
