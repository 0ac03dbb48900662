"""Every public constructor and function refuses what can't be right, by name, at once, in words.

`tests/support/hostile.py` has the arguments and the values.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from itertools import groupby

import pytest

import arroyo_sync
import arroyo_sync.sentry
import arroyo_sync.testing
from arroyo_sync.core.errors import ArroyoSyncError, ConfigurationError, InvalidOffset
from tests.support import hostile
from tests.support.hostile import TARGETS, Outcome


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


def is_clear(outcome: Outcome, argument: str) -> bool:
    """Whether it is an error of ours, in one short line that names the argument; of an offset, its partition."""
    message = str(outcome.error)
    is_named = argument.partition("'s ")[0].partition("[")[0].partition(".")[0] in message
    return (
        outcome.what == "clear"
        and (isinstance(outcome.error, InvalidOffset) or (isinstance(outcome.error, ConfigurationError) and is_named))
        and len(message) < 300
        and message.isprintable()
    )


CASES = {target: [*cases] for target, cases in groupby(hostile.cases(), key=lambda case: case.target)}


@pytest.mark.parametrize("target", CASES)
def test_what_cannot_be_right_is_refused_by_name(target: str) -> None:
    """And what can be is taken. The wrong ones of all that was tried are listed."""
    wrong: dict[str, Outcome] = {}
    for case in CASES[target]:
        outcome = hostile.outcome_of(case)
        if not (outcome.what == "taken" if case.is_taken else is_clear(outcome, case.argument)):
            wrong[case.id] = outcome
    assert wrong == {}


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
