"""Which of Kafka's errors end a source, and which are ridden out."""

from __future__ import annotations

from confluent_kafka import KafkaError

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
"""They don't go away by waiting: someone must change a setting or a permission."""

POSITION_IS_GONE = frozenset(
    {KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._LOG_TRUNCATION}
)
"""The partition doesn't hold the offset at which it is read, so librdkafka stopped reading it."""

TOPIC_IS_GONE = frozenset(
    {
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.UNKNOWN_TOPIC_ID,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
    }
)
"""The broker doesn't know the topic. In the first moments of a broker or a topic this need not be so."""

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

# The broker's errors that Kafka's protocol guide calls retriable. librdkafka flags only those that it retries itself.
_RETRIABLE = frozenset(
    {
        KafkaError.LEADER_NOT_AVAILABLE,
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
    }
)


def is_fatal(error: KafkaError) -> bool:
    """Whether an error that isn't about one partition can't be ridden out. librdkafka tells of most as information."""
    return error.fatal() or error.code() in ENDS


def is_fatal_for_reading(error: KafkaError) -> bool:
    """Whether an error with which a partition stopped can't be ridden out."""
    return is_fatal(error) or not (error.retriable() or error.code() in _TRANSIENT or error.code() in _RETRIABLE)


def more_telling(last: KafkaError | None, error: KafkaError) -> KafkaError:
    """Of two errors in a row, the one to show: that all brokers are down only follows from what came before."""
    if last is not None and error.code() == KafkaError._ALL_BROKERS_DOWN:
        return last
    return error
