"""Which errors end a source."""

from __future__ import annotations

import pytest
from arroyo.errors import TransportError
from confluent_kafka import KafkaError, KafkaException

from arroyo_sync.core.log_throttle import LOG_INTERVAL_SECONDS, LogThrottle
from arroyo_sync.kafka import errors
from arroyo_sync.kafka.errors import (
    FRESH_SECONDS,
    POSITION_IS_GONE,
    TOPIC_IS_GONE,
    ClientErrors,
    LoginRefusals,
    code_of,
    is_fatal,
    is_fatal_for_reading,
    log_missing_token,
)
from tests.support.fakes import Clock


@pytest.fixture(autouse=True)
def anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """What another test has logged doesn't count."""
    monkeypatch.setattr(errors, "_token_throttle", LogThrottle(LOG_INTERVAL_SECONDS, lambda: 0.0))


@pytest.mark.parametrize(
    ("code", "source", "reading"),
    [
        (KafkaError._AUTHENTICATION, True, True),
        (KafkaError.SASL_AUTHENTICATION_FAILED, True, True),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, True, True),
        (KafkaError.GROUP_AUTHORIZATION_FAILED, True, True),
        (KafkaError._TRANSPORT, False, False),
        (KafkaError._ALL_BROKERS_DOWN, False, False),
        (KafkaError._RESOLVE, False, False),
        (KafkaError._TIMED_OUT, False, False),
        (KafkaError.LEADER_NOT_AVAILABLE, False, False),
        (KafkaError.NOT_LEADER_FOR_PARTITION, False, False),
        (KafkaError.KAFKA_STORAGE_ERROR, False, False),
        (KafkaError.LISTENER_NOT_FOUND, False, False),
        (KafkaError.INVALID_MSG, False, False),
        (KafkaError.UNKNOWN, False, False),
        # As information librdkafka goes on after these; a partition that stopped with one doesn't.
        (KafkaError._BAD_MSG, False, True),
        (KafkaError._AUTO_OFFSET_RESET, False, True),
    ],
)
def test_only_what_a_person_must_mend_ends_a_source(code: int, source: bool, reading: bool) -> None:
    """Everything that librdkafka retries by itself is ridden out."""
    error = KafkaError(code)
    assert (is_fatal(error), is_fatal_for_reading(error)) == (source, reading)


def test_a_fatal_error_ends_whatever_its_code() -> None:
    """librdkafka says itself that nothing will work any more."""
    error = KafkaError(KafkaError._TRANSPORT, "over", True)
    assert error.fatal()
    assert is_fatal(error)


@pytest.mark.parametrize(
    "text",
    [
        "Failed to acquire SASL OAUTHBEARER token: OAuth callback raised exception",
        "Failed to initialize SASL authentication: OAUTHBEARER cannot log in because there is no token available",
    ],
)
def test_a_token_that_could_not_be_fetched_is_waited_for(text: str, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody has refused anything, though librdkafka calls it a failed authentication. It is logged once a minute."""
    error = KafkaError(KafkaError._AUTHENTICATION, text)
    assert not is_fatal(error)
    for _ in range(2):
        log_missing_token(error)
        log_missing_token(KafkaError(KafkaError._AUTHENTICATION, "SASL authentication error: invalid_token"))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert text.split()[-1] in caplog.text


HANDSHAKE = "sasl_ssl://kafka:9093/bootstrap: SASL PLAIN mechanism handshake failed: "


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        (HANDSHAKE + "Local: Broker transport failure: broker's supported mechanisms: (n/a) (after 0ms)", False),
        (HANDSHAKE + "Local: Timed out: broker's supported mechanisms: (n/a) (after 3050ms in state AUTH)", False),
        ("SASL authentication error: [0f6a]: Too many connects (after 3ms in state AUTH_REQ)", False),
        (HANDSHAKE + "Broker: Unsupported SASL mechanism: broker's supported mechanisms: SCRAM-SHA-256", True),
        ("SASL authentication error: Authentication failed: Invalid username or password", True),
    ],
    ids=["cut off", "no answer", "too many at once", "another mechanism", "wrong password"],
)
def test_a_login_that_nobody_refused_is_tried_again(text: str, ends: bool) -> None:
    """A broker that restarts cuts a handshake, and librdkafka calls that a failed authentication, as it does the answer
    of MSK (IAM) to too many new connections in a second."""
    assert is_fatal(KafkaError(KafkaError._AUTHENTICATION, text)) == ends


@pytest.mark.parametrize(
    "text",
    [
        "SASL authentication error: [0f6a]: Session too short (after 220ms in state AUTH_REQ)",
        "SASL authentication error: Cannot change principals during re-authentication from IAM.a: IAM.b (after 9ms)",
    ],
    ids=["credentials that are about to expire", "another principal"],
)
def test_a_login_that_can_not_be_prolonged_is_made_anew(text: str, caplog: pytest.LogCaptureFixture) -> None:
    """With tokens that have an end (KIP-368, MSK's IAM) it is every hour or so. It is logged once a minute."""
    error = KafkaError(KafkaError._AUTHENTICATION, text)
    assert not is_fatal(error)
    for _ in range(2):
        log_missing_token(error)
    (line,) = caplog.messages
    assert line == (
        f"A login to Kafka has ended: {text}. The client logs in anew. If this goes on, see whether oauth_cb gives "
        "tokens of credentials that have expired"
    )


REFUSED = KafkaError(KafkaError._AUTHENTICATION, "SASL authentication error: [id]: Access denied (after 107ms)")


@pytest.mark.parametrize(
    ("refused_at", "ends_at"),
    [
        pytest.param([0.0], 0.0, id="the first login, as with a wrong password"),
        pytest.param([FRESH_SECONDS], FRESH_SECONDS, id="one of the first"),
        pytest.param([3_600.0, 7_200.0, 10_800.0], None, id="once an hour"),
        pytest.param([3_600.0, 3_601.0, 3_659.0], None, id="for less than a minute"),
        pytest.param([3_600.0, 3_630.0, 3_660.0], 3_660.0, id="for a minute"),
        pytest.param([3_600.0, 3_660.1, 3_720.2], None, id="now and then, with a minute in between"),
    ],
)
def test_a_refused_login_ends_a_client_at_first_or_if_it_goes_on(
    refused_at: list[float], ends_at: float | None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In between librdkafka logs in anew, and that goes well."""
    clock = Clock()
    clock.now = 0.0
    monkeypatch.setattr(errors, "_token_throttle", LogThrottle(LOG_INTERVAL_SECONDS, clock))
    logins, collected = LoginRefusals(clock), ClientErrors(clock)
    for clock.now in refused_at:
        collected.add(REFUSED)
        assert logins.ends(REFUSED) == (clock.now == ends_at) == (collected.fatal is REFUSED)
    assert bool(caplog.messages) == (refused_at[0] != ends_at)
    assert all("Kafka refuses a login" in line and "Access denied" in line for line in caplog.messages)


def test_a_refused_permission_ends_a_client_at_any_time() -> None:
    """So does an error that librdkafka itself can't go on after. What passes is no refusal."""
    clock = Clock()
    logins = LoginRefusals(clock)
    clock.now += 3_600.0
    assert logins.ends(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))
    assert logins.ends(KafkaError(KafkaError._AUTHENTICATION, "fatal", True))
    for _ in range(5):
        clock.now += 30.0
        assert not logins.ends(KafkaError(KafkaError._AUTHENTICATION, "Too many connects"))
    assert not logins.ends(REFUSED)


def test_what_is_handled_apart_is_apart() -> None:
    """A position and a topic may come back."""
    assert not POSITION_IS_GONE & TOPIC_IS_GONE


def test_that_all_brokers_are_down_does_not_hide_why() -> None:
    """Older librdkafkas tell it last, after the error of the one broker that there is."""
    cause = KafkaError(KafkaError._SSL, "certificate verify failed")
    consequence = KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down")
    timeout = KafkaError(KafkaError._TIMED_OUT, "the time is over")
    errors = ClientErrors()
    assert errors.reason(timeout) is timeout
    for error, reason in ((consequence, consequence), (cause, cause), (consequence, cause)):
        errors.add(error)
        assert errors.reason(timeout) is reason


def test_the_first_error_that_can_not_be_ridden_out_is_raised() -> None:
    """Others follow from it. It wins over the error of the call that it spoiled, which counts by itself otherwise."""
    first, second = KafkaError(KafkaError._AUTHENTICATION, "wrong"), KafkaError(KafkaError._AUTHENTICATION, "again")
    refused = KafkaException(KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED))
    timeout = KafkaException(KafkaError(KafkaError._TIMED_OUT))
    errors = ClientErrors()
    errors.add(KafkaError(KafkaError._TRANSPORT))
    errors.raise_fatal()
    errors.raise_fatal(timeout)
    with pytest.raises(KafkaException) as raised:
        errors.raise_fatal(refused)
    assert raised.value is refused
    errors.add(first)
    errors.add(second)
    with pytest.raises(KafkaException) as raised:
        errors.raise_fatal(timeout)
    assert raised.value.args == (first,)
    assert raised.value.__cause__ is timeout


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KafkaException(KafkaError(KafkaError._STATE)), KafkaError._STATE),
        (TransportError(KafkaError(KafkaError.INVALID_TIMESTAMP)), KafkaError.INVALID_TIMESTAMP),
        (KafkaException("text alone"), None),
        (RuntimeError(), None),
    ],
)
def test_an_exception_may_hold_an_error_of_kafka(error: Exception, code: int | None) -> None:
    """A user's consumer may raise any."""
    assert code_of(error) == code
