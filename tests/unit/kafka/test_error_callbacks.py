from __future__ import annotations

import pytest
from confluent_kafka import KafkaError

from arroyo_sync.core.errors import AccessRefused
from arroyo_sync.core.log_throttle import LOG_INTERVAL_SECONDS, LogThrottle
from arroyo_sync.kafka import error_callbacks as access
from arroyo_sync.kafka import errors
from arroyo_sync.kafka.error_callbacks import log_if_refused, raise_if_refused
from arroyo_sync.kafka.errors import FRESH_SECONDS, PARDON_SECONDS, LoginRefusals

REFUSED = KafkaError(KafkaError._AUTHENTICATION, "SASL authentication error: wrong password")
LOST = KafkaError(KafkaError._TRANSPORT, "connection lost")
LOST_IN_HANDSHAKE = KafkaError(
    KafkaError._AUTHENTICATION, "SASL PLAIN mechanism handshake failed: Local: Broker transport failure: broker's ..."
)


def test_a_refused_login_is_raised_with_librdkafkas_reason() -> None:
    """Out of the consumer's poll, so the processor ends with it."""
    with pytest.raises(AccessRefused, match=r"check user, password and permissions: .*wrong password"):
        raise_if_refused(REFUSED)


@pytest.mark.parametrize("passing", [LOST, LOST_IN_HANDSHAKE], ids=["at work", "in a login"])
def test_what_may_pass_is_ridden_out(passing: KafkaError, caplog: pytest.LogCaptureFixture) -> None:
    """A broker that restarts is none of our business, even if it does so during a login."""
    raise_if_refused(passing)
    log_if_refused(passing)
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
    monkeypatch.setattr(access, "_producer_logins", LoginRefusals(lambda: now[0]))
    for now[0] in (0.0, 1.0, LOG_INTERVAL_SECONDS - 1, LOG_INTERVAL_SECONDS):
        log_if_refused(REFUSED)
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]
    assert "wrong password" in caplog.text


def test_a_login_of_a_producer_that_is_refused_now_and_then_is_no_error(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As while the keys of the tokens change: the client logs in anew. What lasts is one."""
    now = [0.0]
    monkeypatch.setattr(access, "_throttle", LogThrottle(LOG_INTERVAL_SECONDS, lambda: now[0]))
    monkeypatch.setattr(errors, "_token_throttle", LogThrottle(LOG_INTERVAL_SECONDS, lambda: now[0]))
    monkeypatch.setattr(access, "_producer_logins", LoginRefusals(lambda: now[0]))
    began = FRESH_SECONDS + 1
    for now[0] in (began, began + PARDON_SECONDS / 2, began + PARDON_SECONDS):
        log_if_refused(REFUSED)
    assert [record.levelname for record in caplog.records] == ["WARNING", "ERROR"]
    assert "The client logs in anew" in caplog.messages[0]


@pytest.mark.parametrize(
    ("code", "is_refusal"),
    [
        (KafkaError._AUTHENTICATION, True),
        (KafkaError.SASL_AUTHENTICATION_FAILED, True),
        (KafkaError.UNSUPPORTED_SASL_MECHANISM, True),
        (KafkaError.ILLEGAL_SASL_STATE, True),
        (KafkaError.SECURITY_DISABLED, True),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, True),
        (KafkaError.GROUP_AUTHORIZATION_FAILED, True),
        (KafkaError.CLUSTER_AUTHORIZATION_FAILED, True),
        (KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, False),
        (KafkaError.FENCED_INSTANCE_ID, False),
        (KafkaError.TOPIC_EXCEPTION, False),
        (KafkaError._FATAL, False),
    ],
)
def test_only_a_refused_login_or_permission_is_called_one(
    code: int, is_refusal: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has lost a sequence of records would look for a password in vain. So is what librdkafka calls fatal."""
    monkeypatch.setattr(access, "_throttle", LogThrottle(LOG_INTERVAL_SECONDS, lambda: 0.0))
    error = KafkaError(code, "the brokers' reason", True)
    text = (
        "Kafka refuses access, check user, password and permissions: the brokers' reason"
        if is_refusal
        else "The Kafka client has failed for good, and only a new one can go on: the brokers' reason"
    )
    with pytest.raises(AccessRefused) as raised:
        raise_if_refused(error)
    log_if_refused(error)
    assert [str(raised.value), *caplog.messages] == [text, text]
