"""Which of Kafka's errors end a source, and which are ridden out; and the errors that stand in place of an answer."""

from __future__ import annotations

import time
from collections.abc import Callable

from arroyo.errors import ConsumerError
from confluent_kafka import KafkaError, KafkaException

from arroyo_sync.core.log_guard import guarded_logger
from arroyo_sync.core.log_throttle import LOG_INTERVAL_SECONDS, LogThrottle

logger = guarded_logger(__name__)

ENDS = frozenset(
    {
        KafkaError._AUTHENTICATION,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.UNSUPPORTED_SASL_MECHANISM,
        KafkaError.ILLEGAL_SASL_STATE,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.SECURITY_DISABLED,
        KafkaError.TOPIC_EXCEPTION,
        KafkaError._FATAL,
    }
)
"""They don't go away by waiting: someone must change a setting or a permission. But see `ClientErrors`."""

_LOGIN_REFUSED = frozenset({KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED})
_PERMISSION_REFUSED = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    }
)
FRESH_SECONDS = 60.0
PARDON_SECONDS = 60.0
AGAIN_SECONDS = 45.0
"""What wasn't refused for so long isn't any more: librdkafka tells of the same refused login every 30 s."""
RENEWAL_SECONDS = 20.0
"""After which time a client that was refused a permission is replaced by another one. librdkafka tells of it only once
in a client's life, for each partition and for the group, whether that lasts, or is over and begins again."""

POSITION_IS_GONE = frozenset(
    {KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._LOG_TRUNCATION}
)
"""The partition doesn't hold the offset at which it is read, so librdkafka stopped reading it."""

INCONSISTENT_TOPIC_ID = 103
"""The broker's error of that code, which the oldest confluent-kafka that is supported has no name for."""

TOPIC_IS_GONE = frozenset(
    {
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.UNKNOWN_TOPIC_ID,
        INCONSISTENT_TOPIC_ID,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
    }
)
"""The broker doesn't know the topic, or another of that name. In the first moments of a broker or a topic this need not
be so."""

_TRANSIENT = frozenset(
    {
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._RESOLVE,
        KafkaError._SSL,
        KafkaError._TIMED_OUT,
        KafkaError._TIMED_OUT_QUEUE,
        KafkaError._WAIT_CACHE,
        KafkaError._WAIT_COORD,
        KafkaError._PARTITION_EOF,
    }
)

# The broker's errors that Kafka's protocol guide calls retriable. librdkafka flags only those that it retries itself:
# it tells of the others, and fetches on.
_RETRIABLE = frozenset(
    {
        KafkaError.INVALID_MSG,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.LISTENER_NOT_FOUND,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.BROKER_NOT_AVAILABLE,
        KafkaError.REPLICA_NOT_AVAILABLE,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
        KafkaError.KAFKA_STORAGE_ERROR,
        KafkaError.FETCH_SESSION_ID_NOT_FOUND,
        KafkaError.INVALID_FETCH_SESSION_EPOCH,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError.UNSTABLE_OFFSET_COMMIT,
        KafkaError.THROTTLING_QUOTA_EXCEEDED,
        KafkaError.REBOOTSTRAP_REQUIRED,
        # Not by the guide, but Java's consumer goes on after it, too: Azure's Event Hubs answers with it now and then.
        KafkaError.UNKNOWN,
    }
)


# librdkafka calls these a failed authentication, too, though nobody refused the token (OAUTHBEARER): it couldn't be
# fetched. It is fetched again every ten seconds, and the connections that there are go on.
_HAS_NO_TOKEN = ("Failed to acquire SASL OAUTHBEARER token", "OAUTHBEARER cannot log in because there is no token")

# So it calls a login during which the connection broke, or no answer came in time (what a broker says begins with
# "Broker: "), and what MSK answers with IAM to more new connections in a second than it takes.
_NOT_REFUSED = ("mechanism handshake failed: Local: ", "Too many connects")

# And so it calls the end of a login that can't be prolonged (KIP-368), with which the broker closes the connection: MSK
# says the first of credentials that are about to expire, and Kafka the second where the next token, as of a role that
# was assumed again, has another principal. The next connection logs in anew.
_HAS_ENDED = ("Session too short", "Cannot change principals during re-authentication")

_token_throttle = LogThrottle(LOG_INTERVAL_SECONDS, time.monotonic)


def has_no_token(error: KafkaError) -> bool:
    """Whether a client could fetch no token to log in with. Whoever gives them out may be back in a moment."""
    return _login_failed_of(error, _HAS_NO_TOKEN)


def log_missing_token(error: KafkaError) -> None:
    """Say so, if the error says that, or that a login has ended: once a minute, whichever client it is, for they all
    need one."""
    if has_no_token(error) and _token_throttle.should_log("token"):
        logger.warning(
            "There is no token to log in to Kafka with: %s. It is tried again every ten seconds. Open connections go "
            "on until their token expires",
            error.str(),
        )
    elif _login_failed_of(error, _HAS_ENDED) and _token_throttle.should_log("login"):
        logger.warning(
            "A login to Kafka has ended: %s. The client logs in anew. If this goes on, see whether oauth_cb gives "
            "tokens of credentials that have expired",
            error.str(),
        )


def log_refused_login(error: KafkaError) -> None:
    """Say that a login was refused to a client that can go on: once a minute, whichever it is."""
    if _token_throttle.should_log("refused"):
        logger.warning(
            "Kafka refuses a login: %s. The client logs in anew. If it is refused for a minute, it can't go on",
            error.str(),
        )


def kafka_error_of(error: Exception) -> KafkaError | None:
    """The ``KafkaError`` that an exception of confluent-kafka's or Arroyo's holds; ``None``: none."""
    held = error.args[0] if error.args else None
    return held if isinstance(held, KafkaError) else None


def code_of(error: Exception) -> int | None:
    """The code of that error; ``None``: there is none."""
    held = kafka_error_of(error)
    return None if held is None else held.code()


def is_silence(answer: object) -> bool:
    """Whether no broker has said anything: it could not be reached, or didn't answer in time."""
    silence = (KafkaError._TIMED_OUT, KafkaError._TIMED_OUT_QUEUE, KafkaError._TRANSPORT)
    return isinstance(answer, KafkaError) and answer.code() in silence


def is_fatal(error: KafkaError) -> bool:
    """Whether an error that isn't about one partition can't be ridden out. librdkafka tells of most as information."""
    passes = _HAS_NO_TOKEN + _NOT_REFUSED + _HAS_ENDED
    return error.fatal() or (error.code() in ENDS and not _login_failed_of(error, passes))


def _login_failed_of(error: KafkaError, texts: tuple[str, ...]) -> bool:
    return error.code() == KafkaError._AUTHENTICATION and any(each in error.str() for each in texts)


def is_failed_login(error: KafkaError) -> bool:
    """Whether something failed since a login did. That the clients tell, too, and which one: see `LoginRefusals`."""
    return error.code() in _LOGIN_REFUSED and not error.fatal()


def is_refused_permission(error: KafkaError) -> bool:
    """Whether a permission is refused. A client that had it may be granted it again: see `ClientErrors`."""
    return error.code() in _PERMISSION_REFUSED and not error.fatal()


def is_fatal_for_reading(error: KafkaError) -> bool:
    """Whether an error with which a partition stopped can't be ridden out."""
    return is_fatal(error) or not (error.retriable() or error.code() in _TRANSIENT or error.code() in _RETRIABLE)


class _Refusals:
    """What is refused, by its name: since when, and when it was last.

    Threads: any may call anything.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._refused: dict[str, tuple[float, float]] = {}

    def add(self, what: str) -> bool:
        """It is refused. Returns whether that has gone on for `PARDON_SECONDS`."""
        now = self._clock()
        since, last_at = self._refused.get(what, (now, now))
        since = now if now > last_at + AGAIN_SECONDS else since
        self._refused[what] = since, now
        return now >= since + PARDON_SECONDS

    def end(self, what: str) -> None:
        """It isn't, or not any more."""
        self._refused.pop(what, None)


class LoginRefusals:
    """Tells a login that is refused for good from one that is refused now and then.

    Where logins end and begin anew all the time (KIP-368), one of them may be refused, and the next go well: as the
    keys of the tokens are changed, a broker restarts, or MSK's IAM is busy. librdkafka logs in again by itself. So any
    refusal is final in the first `FRESH_SECONDS`, in which a wrong password is found, and later what a broker goes on
    with for `PARDON_SECONDS`.

    Threads: any may call anything.

    :param clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._fresh_until = clock() + FRESH_SECONDS
        self._refusals = _Refusals(clock)
        """By broker, as librdkafka calls it."""

    @property
    def is_fresh(self) -> bool:
        """Whether nothing tells yet that a login can go well."""
        return self._clock() <= self._fresh_until

    def ends(self, error: KafkaError) -> bool:
        """Whether a client can't go on after this error. A refusal after which it can is logged."""
        if not is_fatal(error):
            return False
        if not is_failed_login(error) or self.is_fresh:
            return True
        if self._refusals.add(error.str().partition(": ")[0]):
            return True
        log_refused_login(error)
        return False

    def ride_out(self, error: ConsumerError) -> None:
        """Return if Arroyo's consumer can go on after it has raised that: its client looked for the group, and the
        login of the connection was refused. It looks again. Arroyo keeps no more of its error than the text.

        :raises ConsumerError: ``error``; it can't.
        """
        text = str(error)
        code = next((code for code in _LOGIN_REFUSED if f"code={KafkaError(code).name()}," in text), None)
        if code is None or type(error) is not ConsumerError or self.ends(KafkaError(code, text)):
            raise error


_ANYTHING = "what was asked"
"""Of which is said that it is refused, where it isn't known."""


class ClientErrors:
    """Collects what clients tell of by the way, in their ``error_cb``, and what they answer to calls.

    A permission that was granted may be refused for a moment, or for minutes, where a broker or what it asks for the
    permissions restarts (librdkafka#2544, redpanda#26281). So that it is refused is final as with a login: in the first
    `FRESH_SECONDS`, in which a wrong configuration is found, and later what is refused again and again for
    `PARDON_SECONDS`. Whoever asks must ask again, and with another client after `RENEWAL_SECONDS`.

    Threads: written by those that poll the clients, read by any.

    :param clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._logins = LoginRefusals(clock)
        self._permissions = _Refusals(clock)
        self._throttle = LogThrottle(LOG_INTERVAL_SECONDS, clock)
        self._last_at = clock()
        self.fatal: KafkaError | None = None
        """The first that can't be ridden out. Others follow from it."""
        self._last: KafkaError | None = None

    def add(self, error: KafkaError) -> None:
        """Take in what a client tells."""
        if self._last is None or error.code() != KafkaError._ALL_BROKERS_DOWN:  # which says nothing of the cause
            self._last, self._last_at = error, self._clock()
        if self.fatal is None and self._ends(error, _ANYTHING):
            self.fatal = error

    def raise_final(self, answer: KafkaError, what: str) -> None:
        """Return if an error that is a question's answer, or a partition's, can be ridden out. Then that is to be asked
        again. Of a login that failed meanwhile the client tells apart.

        :param what: what it is about, for the log; see `granted`.
        :raises KafkaException: ``answer``; it can't.
        """
        if self._ends_answer(answer, what):
            raise KafkaException(answer) from None

    def granted(self, what: str) -> None:
        """That was answered: whether it was refused before doesn't count any more."""
        self._permissions.end(what)

    def _ends_answer(self, answer: KafkaError, what: str) -> bool:
        return not is_failed_login(answer) and self._ends(answer, what)

    def _ends(self, error: KafkaError, what: str) -> bool:
        if not is_refused_permission(error) or self._logins.is_fresh:
            return self._logins.ends(error)
        self._last, self._last_at = error, self._clock()
        if self._permissions.add(what):
            return True
        if self._throttle.should_log(error.code()):
            logger.warning(
                "Kafka refuses a permission for %s: %s. It is asked again. If that lasts for a minute, the source ends",
                what,
                error.str(),
            )
        return False

    def reason(self, error: KafkaError) -> KafkaError:
        """Why a call failed with ``error``: what a client told meanwhile says more than that the time was over."""
        return self._last or error

    def last_since(self, at: float) -> str:
        """What was told last, if not before; else nothing."""
        return self._last.str() if self._last is not None and self._last_at >= at else ""

    def raise_fatal(self, error: KafkaException | None = None, what: str = _ANYTHING) -> None:
        """Return if all that was told can be ridden out, and so can ``error``, with which a call failed.

        :param what: what the call was about; see `raise_final`.
        :raises KafkaException: what can't.
        """
        if self.fatal is not None:
            raise KafkaException(self.fatal) from error
        if error is not None and (self._ends if self._logins.is_fresh else self._ends_answer)(error.args[0], what):
            raise error


def no_answer() -> KafkaError:
    """Of a broker that didn't answer."""
    return KafkaError(KafkaError._TIMED_OUT, "the broker didn't answer in time")


def no_token() -> KafkaError:
    """In place of an answer while a client has no token to log in with, so that nobody could be asked."""
    return KafkaError(KafkaError._TIMED_OUT, "nobody could be asked: there is no token to log in with")


def stopped() -> KafkaError:
    """In place of an answer once the asker was stopped."""
    return KafkaError(KafkaError._DESTROY, "it was stopped")
