"""Which errors end a source."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
from arroyo.errors import ConsumerError, OffsetOutOfRange, TransportError
from confluent_kafka import KafkaError, KafkaException

from arroyo_sync.core.log_throttle import LOG_INTERVAL_SECONDS, LogThrottle
from arroyo_sync.kafka import errors
from arroyo_sync.kafka.errors import (
    FRESH_SECONDS,
    PARDON_SECONDS,
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


def refused(broker: str) -> KafkaError:
    """As librdkafka tells of it."""
    return KafkaError(
        KafkaError._AUTHENTICATION, f"{broker}SASL authentication error: [id]: Access denied (after 107ms)"
    )


@pytest.mark.parametrize("after", [0.0, FRESH_SECONDS])
def test_a_first_login_that_is_refused_ends_a_client(after: float, caplog: pytest.LogCaptureFixture) -> None:
    """As a wrong password's is, at whatever time of the process: also if a question's answer tells of it."""
    clock = Clock()
    collected, logins, error = ClientErrors(clock), LoginRefusals(clock), refused("sasl_ssl://kafka:9092/bootstrap: ")
    clock.now += after
    with pytest.raises(KafkaException):
        collected.raise_fatal(KafkaException(error))
    collected.add(error)
    assert collected.fatal is error
    assert logins.ends(error)
    assert caplog.messages == []


@pytest.mark.parametrize(
    "broker", ["sasl_ssl://b-1.kafka:9098/1", "sasl_ssl://kafka:9092/bootstrap", "GroupCoordinator"]
)
@pytest.mark.parametrize(
    ("refused_at", "ends_at"),
    [
        pytest.param([0.0], None, id="once"),
        pytest.param([0.0, 3_600.0, 7_200.0], None, id="once an hour"),
        pytest.param([0.0, 30.0, 59.0], None, id="for less than a minute"),
        pytest.param([0.0, 30.0, 60.0], 60.0, id="for a minute, as often as librdkafka tells of it"),
        pytest.param([0.0, 46.0, 92.0], None, id="now and then, with logins that went well in between"),
    ],
)
def test_a_later_login_that_is_refused_ends_a_client_if_that_goes_on(
    broker: str, refused_at: list[float], ends_at: float | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Else librdkafka logs in anew, and that goes well."""
    clock = Clock()
    logins, collected, error = LoginRefusals(clock), ClientErrors(clock), refused(f"{broker}: ")
    began = clock.now + FRESH_SECONDS + 1.0
    for after in refused_at:
        clock.now = began + after
        collected.add(error)
        assert logins.ends(error) == (after == ends_at) == (collected.fatal is error)
    (line,) = caplog.messages
    assert line.startswith(f"Kafka refuses a login: {broker}: SASL authentication error: [id]: Access denied")


def test_each_broker_refuses_for_itself() -> None:
    """As those of a cluster that is restarted one by one."""
    clock = Clock()
    logins = LoginRefusals(clock)
    clock.now += FRESH_SECONDS + 1.0
    for number in range(5):
        assert not logins.ends(refused(f"sasl_ssl://kafka:9092/{number}: "))
        clock.now += 40.0


def test_a_refused_permission_ends_a_client_of_the_follower_s_at_any_time() -> None:
    """It isn't replaced, as a source's is, and would tell of it no more. So does an error that librdkafka itself
    can't go on after. What passes is no refusal."""
    clock = Clock()
    logins = LoginRefusals(clock)
    clock.now += FRESH_SECONDS + 1.0
    name = "sasl_ssl://kafka:9092/1: "
    assert logins.ends(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED, name))
    assert logins.ends(KafkaError(KafkaError._AUTHENTICATION, name, True))
    for _ in range(5):
        clock.now += 30.0
        assert not logins.ends(KafkaError(KafkaError._AUTHENTICATION, f"{name}Too many connects"))
    assert not logins.ends(refused(name))


def raised_by_arroyo(error: KafkaError, kind: type[ConsumerError] = ConsumerError) -> ConsumerError:
    return kind(str(error))


@pytest.mark.parametrize("code", [KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED])
def test_arroyo_s_consumer_goes_on_after_its_search_for_the_group_met_a_refused_login(code: int) -> None:
    """As after any other that is refused later. In its first minute that ends it."""
    clock = Clock()
    logins = LoginRefusals(clock)
    error = raised_by_arroyo(KafkaError(code, "FindCoordinator response error: Local: Authentication failure"))
    with pytest.raises(ConsumerError) as raised:
        logins.ride_out(error)
    assert raised.value is error
    clock.now += FRESH_SECONDS + 1.0
    logins.ride_out(error)


@pytest.mark.parametrize(
    "error",
    [
        raised_by_arroyo(KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED, "FindCoordinator response error")),
        raised_by_arroyo(KafkaError(KafkaError._AUTHENTICATION), OffsetOutOfRange),
        ConsumerError("cannot seek on unassigned partitions"),
    ],
)
def test_whatever_else_arroyo_s_consumer_raises_is_not_ridden_out(error: ConsumerError) -> None:
    clock = Clock()
    logins = LoginRefusals(clock)
    clock.now += FRESH_SECONDS + 1.0
    with pytest.raises(ConsumerError) as raised:
        logins.ride_out(error)
    assert raised.value is error


@pytest.mark.parametrize("after", [0.0, FRESH_SECONDS + 1.0], ids=["in its first minute", "later"])
def test_a_login_that_fails_while_something_is_asked_says_nothing_of_the_next_one(after: float) -> None:
    """The client tells of it apart, and of which broker it is."""
    clock = Clock()
    collected = ClientErrors(clock)
    clock.now += after
    collected.raise_final(KafkaError(KafkaError._AUTHENTICATION, "Local: Authentication failure"), "it")
    collected.raise_final(KafkaError(KafkaError._TIMED_OUT), "it")
    for final in (KafkaError(KafkaError._AUTHENTICATION, "fatal", True), KafkaError(KafkaError.SECURITY_DISABLED)):
        with pytest.raises(KafkaException) as raised:
            collected.raise_final(final, "it")
        assert raised.value.args == (final,)


def test_of_a_later_question_that_a_login_spoiled_another_one_is_asked() -> None:
    clock = Clock()
    collected = ClientErrors(clock)
    clock.now += FRESH_SECONDS + 1.0
    collected.raise_fatal(KafkaException(KafkaError(KafkaError._AUTHENTICATION)))


PERMISSIONS = ["TOPIC_AUTHORIZATION_FAILED", "GROUP_AUTHORIZATION_FAILED", "CLUSTER_AUTHORIZATION_FAILED"]


@pytest.mark.parametrize("name", PERMISSIONS)
@pytest.mark.parametrize("after", [0.0, FRESH_SECONDS])
def test_a_permission_that_is_refused_in_the_first_minute_ends_a_client(name: str, after: float) -> None:
    """As it does where it was never granted, however that is told."""
    clock = Clock()
    collected = ClientErrors(clock)
    error = KafkaError(getattr(KafkaError, name), "not yours")
    clock.now += after
    with pytest.raises(KafkaException):
        collected.raise_final(error, "topic log")
    with pytest.raises(KafkaException):
        collected.raise_fatal(KafkaException(error))
    collected.add(error)
    assert collected.fatal is error


@pytest.mark.parametrize("name", PERMISSIONS)
@pytest.mark.parametrize(
    ("refused_at", "ends_at"),
    [
        pytest.param([0.0], None, id="once"),
        pytest.param([0.0, 3_600.0, 7_200.0], None, id="once an hour"),
        pytest.param([0.0, 30.0, 59.0], None, id="for less than a minute"),
        pytest.param([0.0, 30.0, 60.0], 60.0, id="for a minute"),
        pytest.param([0.0, 46.0, 92.0], None, id="now and then"),
    ],
)
def test_a_permission_that_is_refused_later_ends_a_client_if_that_goes_on(
    name: str, refused_at: list[float], ends_at: float | None
) -> None:
    """A broker, or what it asks for the permissions, may restart, and grant them again."""
    clock = Clock()
    answered, called, told = (ClientErrors(clock) for _ in range(3))
    began = clock.now + FRESH_SECONDS + 1.0
    error = KafkaError(getattr(KafkaError, name), "not yours")
    for after in refused_at:
        clock.now = began + after
        told.add(error)
        assert (told.fatal is error) == (after == ends_at)
        with pytest.raises(KafkaException) if after == ends_at else nullcontext():
            answered.raise_final(error, "topic log")
        with pytest.raises(KafkaException) if after == ends_at else nullcontext():
            called.raise_fatal(KafkaException(error), "topic log")


def test_what_is_granted_in_between_is_not_refused_for_a_minute() -> None:
    """What else is refused doesn't matter to it, nor what else is granted."""
    clock = Clock()
    collected = ClientErrors(clock)
    error = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED, "not yours")
    began = clock.now + FRESH_SECONDS + 1.0
    for after in range(0, 600, 20):
        clock.now = began + after
        collected.raise_final(error, "topic log")
        collected.granted("topic log")
        collected.granted("group g")
        if after < PARDON_SECONDS:
            collected.raise_final(error, "group g[0]")
        elif after == PARDON_SECONDS:
            with pytest.raises(KafkaException):
                collected.raise_final(error, "group g[0]")


def test_a_refused_permission_is_a_warning_once_a_minute_that_names_what_is_refused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each kind by itself. It is the reason why nothing is heard, too."""
    clock = Clock()
    collected = ClientErrors(clock)
    clock.now += FRESH_SECONDS + 1.0
    began = clock.now
    topic, group = PERMISSIONS[:2]
    for what, name in (("topic log", topic), ("topic log[0]", topic), ("group 'g'", group)):
        collected.raise_final(KafkaError(getattr(KafkaError, name), f"no {what}"), what)
    again = "It is asked again. If that lasts for a minute, the source ends"
    assert caplog.messages == [
        f"Kafka refuses a permission for topic log: no topic log. {again}",
        f"Kafka refuses a permission for group 'g': no group 'g'. {again}",
    ]
    assert {record.levelname for record in caplog.records} == {"WARNING"}
    assert collected.last_since(began) == "no group 'g'"
    clock.now += LOG_INTERVAL_SECONDS
    collected.raise_final(KafkaError(getattr(KafkaError, topic), "no topic log"), "topic log")
    assert len(caplog.messages) == 3


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
