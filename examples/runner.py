"""What the examples share, the quickstart aside: flags, settings, the handler, and a clean end."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import TimeoutError
from contextlib import contextmanager, suppress
from typing import Any

from arroyo.backends.abstract import Producer
from arroyo.backends.kafka import KafkaPayload
from arroyo.errors import ConsumerError
from arroyo.processing.processor import StreamProcessor
from arroyo.types import BrokerValue, FilteredPayload, Message, Topic
from arroyo.utils.retries import RetryException
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from arroyo_sync import ArroyoSyncError, BrokersUnreachable, CommitLogConsumer, tune_interpreter

logger = logging.getLogger(__name__)

Event = BrokerValue[KafkaPayload]
Handler = Callable[[Event], object]

DEFAULT_SESSION_TIMEOUT_MS = 45_000
BROKER_SECONDS = 30.0
"""How long no broker may answer at the start."""
PRODUCER_CLOSE_SECONDS = 10.0
SIGNALS = (signal.SIGTERM, signal.SIGINT)
TOLD_IN_ONE_LINE = (ArroyoSyncError, ConsumerError, KafkaException, RetryException)
"""The last one: Arroyo has tried to commit several times; its cause says why it couldn't."""


def add_consumer_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of every consumer, named as Sentry's operators know them."""
    parser.add_argument("--bootstrap-servers", required=True, metavar="HOST:PORT,...", help="the Kafka cluster")
    parser.add_argument("--topic", required=True, help="the topic with the events")
    parser.add_argument("--consumer-group", required=True, help="the group to consume it under")
    parser.add_argument(
        "--auto-offset-reset",
        choices=("earliest", "latest", "error"),
        default="earliest",
        help="where to begin when the group has no committed offset (default: earliest)",
    )
    parser.add_argument(
        "--no-strict-offset-reset",
        action="store_true",
        help="when a committed offset is gone from the topic, go by --auto-offset-reset; without this flag, end",
    )
    parser.add_argument(
        "--max-poll-interval-ms",
        type=positive_int,
        metavar="MS",
        help="for how long an event may be worked on before the group takes the partitions away (default: 300000)",
    )
    parser.add_argument(
        "--join-timeout",
        type=seconds,
        metavar="SECONDS",
        help="how long work in progress may take to end, at the end and in a rebalance (default: 25)",
    )
    parser.add_argument("--group-instance-id", metavar="ID", help="be a static member of the group under this id")
    parser.add_argument(
        "--healthcheck-file-path", metavar="FILE", help="touch this file about once a second while all is well"
    )


def add_commit_log_flag(parser: argparse.ArgumentParser) -> None:
    """Where a follower reads what its leaders have committed."""
    parser.add_argument(
        "--synchronize-commit-log-topic",
        required=True,
        metavar="TOPIC",
        help="the commit log, where the leader groups publish commits",
    )


def add_leader_groups_flag(parser: argparse.ArgumentParser) -> None:
    """Whom a follower waits for."""
    parser.add_argument(
        "--synchronize-commit-group",
        required=True,
        action="append",
        metavar="GROUP",
        help="a leader group to wait for; may be given more than once, and then the slowest counts",
    )


def add_handler_flag(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument(
        "--handler",
        metavar="MODULE:FUNCTION",
        help=f"called with each event, an arroyo.types.BrokerValue (default: {default})",
    )


def consumer_settings(options: argparse.Namespace) -> dict[str, Any]:
    """The settings of an Arroyo ``KafkaConsumer`` that follow from the flags."""
    settings: dict[str, Any] = {
        "bootstrap.servers": options.bootstrap_servers,
        "group.id": options.consumer_group,
        "auto.offset.reset": options.auto_offset_reset,
        "arroyo.strict.offset.reset": not options.no_strict_offset_reset,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
    }
    if options.max_poll_interval_ms is not None:
        settings["max.poll.interval.ms"] = options.max_poll_interval_ms
        # librdkafka refuses a session timeout above the poll interval.
        settings["session.timeout.ms"] = min(DEFAULT_SESSION_TIMEOUT_MS, options.max_poll_interval_ms)
    if options.group_instance_id is not None:
        settings["group.instance.id"] = options.group_instance_id
    return settings


def commit_log_of(options: argparse.Namespace) -> CommitLogConsumer:
    """The source of remote offsets that follows from the flags; the commit log is taken to be on the same cluster."""
    topic = Topic(options.synchronize_commit_log_topic)
    return CommitLogConsumer(consumer_settings(options), topic=topic, groups=options.synchronize_commit_group)


def load_handler(parser: argparse.ArgumentParser, name: str | None, default: Handler) -> Handler:
    """The function that ``--handler module:function`` names; the working directory is searched too.

    Ends the process with one line if there is none.
    """
    if name is None:
        return default
    module_name, colon, function_name = name.partition(":")
    if not (module_name and colon and function_name):
        parser.error(f"--handler {name}: give it as MODULE:FUNCTION")
    sys.path.insert(0, os.getcwd())
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError) as error:
        parser.error(f"--handler {name}: {error}")
    if not callable(function):
        parser.error(f"--handler {name}: {function_name} can't be called")
    handler: Handler = function
    return handler


def call(handler: Handler) -> Callable[[Message[FilteredPayload | KafkaPayload]], FilteredPayload | KafkaPayload]:
    """The handler as a function for ``RunTask``. What it raises ends the processor, and the event is read again."""

    def run(message: Message[FilteredPayload | KafkaPayload]) -> FilteredPayload | KafkaPayload:
        event: Any = message.value
        handler(event)
        return message.payload

    return run


def print_event(event: Event) -> None:
    """One line on standard output: ``topic:partition:offset value``."""
    value = event.payload.value.decode("utf-8", "backslashreplace").replace("\n", "\\n")
    # The line's end is written with it, so that no other thread's line comes between.
    print(f"{event.partition.topic.name}:{event.partition.index}:{event.offset} {value}\n", end="", flush=True)


def do_nothing(event: Event) -> None:
    """A handler that only lets its events be committed."""


class Shutdown:
    """Whether SIGTERM or Ctrl-C came, and the processor that it ends."""

    def __init__(self) -> None:
        self.is_requested = False
        self._processor: StreamProcessor[Any] | None = None

    def request(self, signum: int, frame: object) -> None:
        """The signal handler: have the processor finish what it has begun, commit, and return from ``run``.

        The next signal ends the process at once: what has been begun may hang.
        """
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        self.is_requested = True
        if self._processor is not None:
            self._processor.signal_shutdown()

    def watch(self, processor: StreamProcessor[Any]) -> None:
        """End this processor, also if the signal came before it was made."""
        self._processor = processor
        if self.is_requested:
            processor.signal_shutdown()


@contextmanager
def shutdown_signals() -> Iterator[Shutdown]:
    """Within the context the first SIGTERM or SIGINT (Ctrl-C) shuts down cleanly; the second ends the process."""
    shutdown = Shutdown()
    before = {each: signal.signal(each, shutdown.request) for each in SIGNALS}
    try:
        yield shutdown
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@contextmanager
def every_second(call: Callable[[], object]) -> Iterator[None]:
    """Within the context it is called once a second, on a thread of its own, and a last time at the end."""
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(1.0):
            call()
        call()

    thread = threading.Thread(target=run, name="every second", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def close_producer(producer: Producer[KafkaPayload], what: str) -> None:
    """Give what is in flight a while to arrive. If it doesn't, that must not hide why the processor ended."""
    try:
        producer.close().result(PRODUCER_CLOSE_SECONDS)
    except TimeoutError:
        logger.warning("%s were not delivered within %g seconds", what, PRODUCER_CLOSE_SECONDS)
    except Exception as error:  # what has ended the producer's own thread
        logger.warning("%s may not have been delivered: %r", what, error)


def wait_for_brokers(settings: Mapping[str, Any], shutdown: Shutdown) -> bool:
    """Wait until a broker answers, or a signal comes. Returns whether one answered.

    :raises BrokersUnreachable: none did in time.
    """
    admin = AdminClient({"bootstrap.servers": settings["bootstrap.servers"], "log_level": 2})
    gives_up_at = time.monotonic() + BROKER_SECONDS
    is_told = False
    while not shutdown.is_requested:
        with suppress(KafkaException):
            admin.list_topics(timeout=1.0)
            return True
        if not shutdown.is_requested and not is_told:
            is_told = True
            logger.warning("No broker of %s answers yet", settings["bootstrap.servers"])
        if time.monotonic() > gives_up_at:
            raise BrokersUnreachable(
                f"no broker of {settings['bootstrap.servers']} answered within {BROKER_SECONDS:g} seconds"
            )
    return False


def run_processor(program: str, build: Callable[[], StreamProcessor[Any]]) -> int:
    """Run what it builds until SIGTERM or Ctrl-C. Returns the exit status: 0 after a clean end, 1 after an error."""
    tune_interpreter()
    with shutdown_signals() as shutdown:

        def run() -> None:
            processor = build()
            shutdown.watch(processor)
            processor.run()

        return run_and_report(program, run)


def run_and_report(program: str, run: Callable[[], None]) -> int:
    """Run it; the exit status. What Kafka or this package has to complain of is one line on standard error."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # Arroyo logs the traceback of whatever ends its processor. These are told below.
    logging.getLogger("arroyo.processing.processor").addFilter(
        lambda record: not (record.exc_info and isinstance(record.exc_info[1], TOLD_IN_ONE_LINE))
    )
    try:
        run()
    except TOLD_IN_ONE_LINE as error:
        print(f"{program}: {_in_words(error)}", file=sys.stderr)
        return 1
    return 0


def _in_words(error: Exception) -> str:
    """Arroyo and confluent-kafka raise with librdkafka's error object, or with its representation."""
    if isinstance(error, RetryException) and isinstance(error.__cause__, Exception):
        return f"gave up after several attempts: {_in_words(error.__cause__)}"
    kafka_error = error.args[0] if error.args else None
    return kafka_error.str() if isinstance(kafka_error, KafkaError) else str(error)


def positive_int(text: str) -> int:
    value = int(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"must be more than 0, not {text}")
    return value


def seconds(text: str) -> float:
    value = float(text)
    if not value >= 0:
        raise argparse.ArgumentTypeError(f"must not be negative, not {text}")
    return value
