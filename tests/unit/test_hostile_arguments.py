"""Every public constructor and function refuses what can't be right, by name, at once, in words.

`tests/support/hostile.py` has the arguments and the values.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

import arroyo_sync
import arroyo_sync.sentry
import arroyo_sync.testing
from arroyo_sync.core.errors import ArroyoSyncError, ConfigurationError, InvalidOffset
from tests.support import hostile
from tests.support.hostile import TARGETS, Case


@pytest.fixture(autouse=True)
def ends_if_it_hangs() -> Iterator[None]:
    """A case that blocks is told as one that hangs."""
    before = signal.signal(signal.SIGALRM, hostile.hang)
    yield
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_right_is_taken(name: str) -> None:
    """Else the refusals below would prove nothing."""
    TARGETS[name].call(**TARGETS[name].right())


@pytest.mark.parametrize("case", [*hostile.cases()], ids=lambda case: case.id)
def test_what_cannot_be_right_is_refused_by_name(case: Case) -> None:
    """With one short line that says which argument it is, and what was given."""
    outcome = hostile.outcome_of(case)
    if case.is_taken:
        assert outcome.what == "taken", repr(outcome.error)
        return
    assert outcome.what == "clear", repr(outcome.error)
    assert isinstance(outcome.error, (ConfigurationError, InvalidOffset))
    message = str(outcome.error)
    argument = case.argument.partition("'s ")[0].partition("[")[0].partition(".")[0]
    if isinstance(outcome.error, ConfigurationError):
        assert argument in message
    assert len(message) < 300
    assert message.isprintable()


def test_every_public_name_is_tried_or_needs_no_try() -> None:
    """A new one has to be added to the table, or to what takes no arguments of the user's."""
    names = {*arroyo_sync.__all__, *arroyo_sync.sentry.__all__, "ManualSource", "RecordingStep"}
    public = {name: getattr(arroyo_sync, name, None) or getattr(arroyo_sync.sentry, name, None) for name in names}
    errors = {
        name for name, each in public.items() if isinstance(each, type) and issubclass(each, (ArroyoSyncError, Warning))
    }
    tried = {part for name in TARGETS for part in name.split(".")}
    assert names - errors - tried == hostile.MADE_BY_THE_PACKAGE


def test_no_refusal_shows_the_settings() -> None:
    """Which hold the password; also where they were given for another argument."""
    settings = {"bootstrap.servers": "here:9092", "sasl.password": "hunter2", "error_cb": "hunter2"}
    for name, target in TARGETS.items():
        for argument in target.right().keys() - {"tags"}:
            with pytest.raises(ArroyoSyncError) as raised:
                TARGETS[name].call(**{**target.right(), argument: settings})
            assert "hunter2" not in str(raised.value), (name, argument)
            assert "here" not in str(raised.value), (name, argument)
