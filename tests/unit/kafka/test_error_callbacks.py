from __future__ import annotations

import pytest
from confluent_kafka import KafkaError

from arroyo_sync.core.errors import AccessRefused
from arroyo_sync.core.log_throttle import LOG_INTERVAL_SECONDS, LogThrottle
from arroyo_sync.kafka import error_callbacks as access
from arroyo_sync.kafka import errors
from arroyo_sync.kafka.error_callbacks import log_if_refused, raise_if_refused

REFUSED = KafkaError(KafkaError._AUTHENTICATION, "SASL authentication error: wrong password")
PASSING = KafkaError(KafkaError._TRANSPORT, "connection lost")


def test_a_refused_login_is_raised_with_librdkafkas_reason() -> None:
    """Out of the consumer's poll, so the processor ends with it."""
    with pytest.raises(AccessRefused, match=r"check user, password and permissions: .*wrong password"):
        raise_if_refused(REFUSED)


def test_what_may_pass_is_ridden_out(caplog: pytest.LogCaptureFixture) -> None:
    """A broker that restarts is none of our business."""
    raise_if_refused(PASSING)
    log_if_refused(PASSING)
    assert caplog.records == []


def test_that_there_is_no_token_is_logged_and_ridden_out(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever gives them out may be back in a moment, and librdkafka asks again."""
    monkeypatch.setattr(errors, "_token_throttle", LogThrottle(LOG_INTERVAL_SECONDS, lambda: 0.0))
    error = KafkaError(KafkaError._AUTHENTICATION, "Failed to acquire SASL OAUTHBEARER token: the issuer is down")
    raise_if_refused(error)
    log_if_refused(error)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "issuer is down" in caplog.text


def test_a_producers_refused_login_is_logged_once_a_minute(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """librdkafka tries three times a second."""
    now = [0.0]
    monkeypatch.setattr(access, "_throttle", LogThrottle(LOG_INTERVAL_SECONDS, lambda: now[0]))
    for now[0] in (0.0, 1.0, LOG_INTERVAL_SECONDS - 1, LOG_INTERVAL_SECONDS):
        log_if_refused(REFUSED)
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]
    assert "wrong password" in caplog.text
