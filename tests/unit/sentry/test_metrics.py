"""Against the real SDK, and one that lets out what a user's hook raises, as it does up to 2.66.0."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import sentry_sdk
from arroyo.utils.metrics import Metrics

from arroyo_sync.observe.metrics import REFUSED_VALUES
from arroyo_sync.sentry.metrics import SentryMetrics
from tests.support.sentry_transport import sentry

SENT: dict[str, Callable[[Metrics], None]] = {
    "increment": lambda backend: backend.increment("arroyo.consumer.run.count", 7),
    "gauge": lambda backend: backend.gauge("arroyo.consumer.dlq_buffer.len", 7),
    "timing": lambda backend: backend.timing("arroyo.consumer.latency", 7),
}


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """What arrives of an SDK that raises for everything but the count of refused values."""
    arrived: list[tuple[object, ...]] = []

    def send(name: str, value: float, **keywords: Any) -> None:
        if name != REFUSED_VALUES.name:
            raise KeyError("environment")
        arrived.append((name, value, keywords["attributes"]))

    for method in ("count", "gauge", "distribution"):
        monkeypatch.setattr(sentry_sdk.metrics, method, send)
    return arrived


@pytest.mark.parametrize("method", SENT)
def test_a_value_that_the_sdk_refuses_ends_nobody(
    counted: list[tuple[object, ...]], caplog: pytest.LogCaptureFixture, method: str
) -> None:
    """Arroyo sends its own from the processor's thread, and from the producer's, guarding neither. It is counted."""
    backend = SentryMetrics({"follower": "forwarder"})
    for _ in range(2):
        SENT[method](backend)
    assert counted == [(REFUSED_VALUES.name, 1, {"follower": "forwarder"})] * 2
    (record,) = caplog.records
    assert (record.levelno, record.exc_info is not None) == (logging.WARNING, True)
    assert record.getMessage().startswith("Sentry's SDK failed to send arroyo.consumer.")


@pytest.mark.parametrize("method", SENT)
def test_a_hook_that_raises_ends_nobody(method: str) -> None:
    """Also where it refuses the count of what it refused."""

    def raise_always(metric: object, hint: object) -> Any:
        raise KeyError("environment")

    with sentry(before_send_metric=raise_always) as transport:
        SENT[method](SentryMetrics())
        assert transport.metrics == []
