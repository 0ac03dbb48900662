r"""A runner shaped as Sentry's ``sentry run consumer``: its flags, its wrappers in their order, and the gate put in.

    python examples/sentry_runner.py --bootstrap-servers $KAFKA --topic events \
        --consumer-group post-process-forwarder --synchronize-commit-log-topic snuba-commit-log \
        --synchronize-commit-group snuba-consumers --enforce-schema --stale-threshold-sec 600 \
        --dlq-topic events-dlq --mode multiprocess

KAFKA is a broker's address, such as `examples/broker.py` prints; `examples/first_leader.py` can be the leader.

What to copy into such a runner is in `get_stream_processor` below, where it says GATE. The wrappers make the strategy
validate the schema, send stale messages to the dead-letter queue, touch the healthcheck file, and time the join. The
gate comes last, around them all, so that it stands first in the pipeline and gets the consumer's own messages. Wrapped
by one of the others it would get their values instead, and it says so.

Two things differ from the consumer that Sentry wraps (SynchronizedConsumer), since the gate holds messages behind the
consumer, where a seek or a pause doesn't reach: a message that was received before a user's seek past it is still
delivered, and a held message is released though the user has paused its partition.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from functools import partial
from typing import Any

from arroyo.backends.abstract import Consumer
from arroyo.backends.kafka import KafkaConsumer, KafkaPayload, KafkaProducer
from arroyo.backends.kafka.configuration import build_kafka_consumer_configuration
from arroyo.commit import ONCE_PER_SECOND
from arroyo.dlq import DlqLimit, DlqPolicy, InvalidMessage, KafkaDlqProducer
from arroyo.processing.processor import StreamProcessor
from arroyo.processing.strategies import CommitOffsets, RunTaskInThreads, RunTaskWithMultiprocessing
from arroyo.processing.strategies.abstract import ProcessingStrategy, ProcessingStrategyFactory
from arroyo.processing.strategies.healthcheck import Healthcheck
from arroyo.processing.strategies.run_task_with_multiprocessing import MultiprocessingPool
from arroyo.types import BrokerValue, Commit, FilteredPayload, Message, Partition, Topic
from runner import add_consumer_flags, close_producer, positive_int, run_processor, seconds

from arroyo_sync import CommitLogConsumer, HoldLimits, SynchronizedStrategyFactory, raise_if_refused

logger = logging.getLogger("sentry_runner")

LIMITS = HoldLimits(messages=5_000, resume_messages=1_000)
DLQ_BUFFERED = 10_000
"""Arroyo copies every message until it is committed, held ones too: what the gate holds and what is in flight."""

Payload = FilteredPayload | KafkaPayload

# Python runs this file once more in each process that Arroyo starts: the pool's, and that of the shared memory. A
# SIGTERM to the whole process group (from a supervisor, say) would end them in the middle of their work, and Arroyo
# would fail or hang. In groups of their own they go on until this program's processor has finished with them.
if __name__ == "__mp_main__":
    os.setpgrp()


def process(message: Message[Payload]) -> Payload:
    """What the consumer does with a message, in a thread or in a process: one line on standard output."""
    value = message.value
    if isinstance(value, BrokerValue) and not isinstance(message.payload, FilteredPayload):
        text = message.payload.value.decode("utf-8", "backslashreplace")
        print(f"{value.partition.topic.name}:{value.partition.index}:{value.offset} {text}\n", end="", flush=True)
    return message.payload


class ProcessingFactory(ProcessingStrategyFactory[KafkaPayload]):
    """The innermost factory, which a consumer's definition names: threads, or processes, and then the commit."""

    def __init__(self, mode: str, concurrency: int) -> None:
        self._mode = mode
        self._concurrency = concurrency
        # The pool outlives rebalances.
        self._pool = MultiprocessingPool(concurrency) if mode == "multiprocess" else None

    def create_with_partitions(
        self, commit: Commit, partitions: Mapping[Partition, int]
    ) -> ProcessingStrategy[KafkaPayload]:
        step: ProcessingStrategy[Any] = CommitOffsets(commit)
        if self._pool is not None:
            return RunTaskWithMultiprocessing(
                process, step, max_batch_size=100, max_batch_time=0.1, pool=self._pool, input_block_size=2**20
            )
        return RunTaskInThreads(process, self._concurrency, 1_000, step)

    def shutdown(self) -> None:
        if self._pool is not None:
            self._pool.close()


class Wrapper(ProcessingStrategyFactory[KafkaPayload]):
    """A factory around another: it puts a step before the other's strategy.

    It hands `shutdown` on. One that doesn't leaves whatever it wraps running.
    """

    def __init__(
        self,
        inner: ProcessingStrategyFactory[KafkaPayload],
        wrap: Callable[[ProcessingStrategy[KafkaPayload]], ProcessingStrategy[KafkaPayload]],
    ) -> None:
        self._inner = inner
        self._wrap = wrap

    def create_with_partitions(
        self, commit: Commit, partitions: Mapping[Partition, int]
    ) -> ProcessingStrategy[KafkaPayload]:
        return self._wrap(self._inner.create_with_partitions(commit, partitions))

    def shutdown(self) -> None:
        self._inner.shutdown()


class PassOn(ProcessingStrategy[KafkaPayload]):
    """A step that hands everything on; the base of those below."""

    def __init__(self, next_step: ProcessingStrategy[KafkaPayload]) -> None:
        self._next_step = next_step

    def submit(self, message: Message[KafkaPayload]) -> None:
        self._next_step.submit(message)

    def poll(self) -> None:
        self._next_step.poll()

    def close(self) -> None:
        self._next_step.close()

    def terminate(self) -> None:
        self._next_step.terminate()

    def join(self, timeout: float | None = None) -> None:
        self._next_step.join(timeout)


class ValidateSchema(PassOn):
    """What isn't a JSON object goes to the dead-letter queue or, if the schema isn't enforced, is logged."""

    def __init__(self, is_enforced: bool, next_step: ProcessingStrategy[KafkaPayload]) -> None:
        super().__init__(next_step)
        self._is_enforced = is_enforced

    def submit(self, message: Message[KafkaPayload]) -> None:
        reason = self._what_is_wrong(message)
        if reason is not None:
            if self._is_enforced:
                raise _invalid(message, reason)
            logger.warning("Invalid message: %s", reason)
        super().submit(message)

    def _what_is_wrong(self, message: Message[KafkaPayload]) -> str | None:
        try:
            value = json.loads(message.payload.value)
        except ValueError as error:
            return str(error)
        return None if isinstance(value, dict) else "no JSON object"


class StaleToDeadLetters(PassOn):
    """A message that is older than the threshold goes to the dead-letter queue: newer ones are worth more."""

    def __init__(self, threshold_seconds: float, next_step: ProcessingStrategy[KafkaPayload]) -> None:
        super().__init__(next_step)
        self._threshold_seconds = threshold_seconds

    def submit(self, message: Message[KafkaPayload]) -> None:
        if message.timestamp is not None:
            age = (datetime.now(timezone.utc) - message.timestamp.replace(tzinfo=timezone.utc)).total_seconds()
            if age > self._threshold_seconds:
                raise _invalid(message, "stale")
        super().submit(message)


class TimeJoin(PassOn):
    """Logs how long the strategy took to end: the time in which a rebalance, or a deployment, waits."""

    def join(self, timeout: float | None = None) -> None:
        began_at = time.monotonic()
        super().join(timeout)
        logger.warning("The strategy was joined in %.1f s", time.monotonic() - began_at)


def _invalid(message: Message[KafkaPayload], reason: str) -> InvalidMessage:
    value: Any = message.value
    return InvalidMessage(value.partition, value.offset, reason=reason, log_exception=False)


def consumer_configuration(options: argparse.Namespace) -> dict[str, Any]:
    """Arroyo's own builder, as Sentry calls it.

    It overwrites ``queued.min.messages``, so what the gate wants of its consumer is set after it; see "Settings of the
    data consumer" in ``arroyo_sync/FOLLOWERS.md``.
    """
    configuration: dict[str, Any] = dict(
        build_kafka_consumer_configuration(
            {"bootstrap.servers": options.bootstrap_servers},
            options.consumer_group,
            auto_offset_reset=options.auto_offset_reset,
            strict_offset_reset=not options.no_strict_offset_reset,
            enable_auto_commit=options.enable_auto_commit,
        )
    )
    configuration |= {
        "queued.min.messages": 1000,
        "fetch.queue.backoff.ms": 10,
        "max.partition.fetch.bytes": 300_000,
        "error_cb": raise_if_refused,
    }
    if options.max_poll_interval_ms is not None:
        configuration["max.poll.interval.ms"] = options.max_poll_interval_ms
        configuration["session.timeout.ms"] = min(45_000, options.max_poll_interval_ms)
    if options.group_instance_id is not None:
        configuration["group.instance.id"] = options.group_instance_id
    return configuration


def get_stream_processor(
    options: argparse.Namespace, dlq_producer: KafkaProducer | None
) -> StreamProcessor[KafkaPayload]:
    """The processor that follows from the flags."""
    consumer: Consumer[KafkaPayload] = KafkaConsumer(consumer_configuration(options))
    factory: ProcessingStrategyFactory[KafkaPayload] = ProcessingFactory(options.mode, options.concurrency)
    factory = Wrapper(factory, partial(ValidateSchema, options.enforce_schema))
    if options.stale_threshold_sec is not None:
        factory = Wrapper(factory, partial(StaleToDeadLetters, options.stale_threshold_sec))
    if options.healthcheck_file_path is not None:
        factory = Wrapper(factory, lambda step: Healthcheck(options.healthcheck_file_path, step))
    factory = Wrapper(factory, TimeJoin)
    if options.synchronize_commit_group:
        # GATE: after all wrappers, so outermost. Where Sentry makes its SynchronizedConsumer.
        commit_log = CommitLogConsumer(
            {"bootstrap.servers": options.bootstrap_servers},
            topic=Topic(options.synchronize_commit_log_topic),
            groups=options.synchronize_commit_group,
        )
        factory = synchronized = SynchronizedStrategyFactory(factory, commit_log, limits=LIMITS)
        consumer = synchronized.flow_control(consumer)
    dlq_policy = None
    if dlq_producer is not None:
        dlq = KafkaDlqProducer(dlq_producer, Topic(options.dlq_topic))
        dlq_policy = DlqPolicy(dlq, DlqLimit(), max_buffered_messages_per_partition=DLQ_BUFFERED)
    return StreamProcessor(
        consumer,
        Topic(options.topic),
        factory,
        commit_policy=ONCE_PER_SECOND,
        join_timeout=options.join_timeout,
        dlq_policy=dlq_policy,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Run a consumer as Sentry's runner does, with the gate where it asks.")
    add_consumer_flags(parser)
    add = parser.add_argument
    add("--synchronize-commit-log-topic", metavar="TOPIC", help="the commit log; with a group: the gate is put in")
    add("--synchronize-commit-group", metavar="GROUP", action="append", help="a leader group; may be given more often")
    add("--enable-auto-commit", action="store_true", help="arroyo.enable.auto.commit, as Sentry now sets it")
    add("--enforce-schema", action="store_true", help="what isn't valid goes to the dead-letter queue")
    add("--stale-threshold-sec", type=seconds, metavar="SECONDS", help="what is older goes to the dead-letter queue")
    add("--dlq-topic", metavar="TOPIC", help="the dead-letter queue")
    add("--mode", choices=("threads", "multiprocess"), default="threads", help="how messages are worked on")
    add("--concurrency", type=positive_int, default=2, help="threads or processes (default: %(default)d)")
    options = parser.parse_args(arguments)
    if bool(options.synchronize_commit_log_topic) != bool(options.synchronize_commit_group):
        parser.error("give --synchronize-commit-log-topic and --synchronize-commit-group together, or neither")
    producer = KafkaProducer({"bootstrap.servers": options.bootstrap_servers}) if options.dlq_topic else None
    try:
        return run_processor(parser.prog, lambda: get_stream_processor(options, producer))
    finally:
        if producer is not None:
            close_producer(producer, "The last dead letters")


if __name__ == "__main__":
    sys.exit(main())
