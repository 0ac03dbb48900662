from __future__ import annotations

import pytest

from arroyo_sync.core.log_throttle import LOG_INTERVAL_SECONDS
from arroyo_sync.sentry.failures import Failures


def test_failures_are_logged_once_a_minute_with_how_many_there_were(caplog: pytest.LogCaptureFixture) -> None:
    """A hook that raises does so for every message."""
    seconds = iter((0.0, LOG_INTERVAL_SECONDS - 1, LOG_INTERVAL_SECONDS))
    failures = Failures("the message goes on without it", lambda: next(seconds))
    for _ in range(3):
        failures.note("a span", KeyError("wsgi_environ"))
    first, second = caplog.messages
    assert first.endswith("Failures so far: 1")
    assert second.endswith("Failures so far: 3")
    assert "KeyError: 'wsgi_environ'" in caplog.text
