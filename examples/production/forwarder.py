r"""A follower as it runs in production: secrets from the environment, metrics to StatsD, logs, probes, and a clean end.

    ARROYO_SYNC_KAFKA_BOOTSTRAP_SERVERS=localhost:9092 python examples/production/forwarder.py \
        --topic events --consumer-group post-process-forwarder \
        --commit-log-topic snuba-commit-log --leader-group snuba-consumers --healthcheck-file /tmp/healthy

Copy it and put your own work into `handle`. Beside it lie a Kubernetes manifest that runs it, the mapping for
Prometheus' StatsD exporter, alert rules and a Grafana dashboard. It needs ``pip install '.[examples]'`` in a checkout
of arroyo_sync.

Each variable ``ARROYO_SYNC_KAFKA_...`` is a setting of librdkafka's, in capitals and with underscores for dots. The
command ``arroyo-sync status`` reads the same ones, so it works inside the pod as it is.
"""

from __future__ import annotations

import argparse
import logging
import logging.config
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from arroyo.backends.kafka import KafkaPayload
from arroyo.processing.processor import StreamProcessor
from arroyo.processing.strategies import CommitOffsets, RunTask
from arroyo.processing.strategies.abstract import ProcessingStrategy, ProcessingStrategyFactory
from arroyo.processing.strategies.healthcheck import Healthcheck
from arroyo.types import Commit, Message, Partition, Topic
from arroyo.utils.metrics import Metrics, Tags, configure_metrics
from datadog.dogstatsd.base import DogStatsd

from arroyo_sync import CommitLogConsumer, SynchronizedStrategyFactory, tune_interpreter

logger = logging.getLogger("forwarder")

ENVIRONMENT_PREFIX = "ARROYO_SYNC_KAFKA_"

LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,  # the default, True, silences arroyo and arroyo_sync, which are imported by now
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    # Where nobody listens, every second value would be a line. The alert "No metrics" tells of that.
    "loggers": {"datadog.dogstatsd": {"level": "ERROR"}},
    "root": {"level": "INFO", "handlers": ["stderr"]},  # arroyo_sync is no child of arroyo: the root has both
}


def handle(message: Message[KafkaPayload]) -> None:
    """Your work. What it raises ends the process, and the message is read again."""
    logger.info("released: %s", message.value)


class ForwarderFactory(ProcessingStrategyFactory[KafkaPayload]):
    """What stands behind the gate. The file is touched while the follower waits for a leader, too."""

    def __init__(self, healthcheck_file: str) -> None:
        self._healthcheck_file = healthcheck_file

    def create_with_partitions(
        self, commit: Commit, partitions: Mapping[Partition, int]
    ) -> ProcessingStrategy[KafkaPayload]:
        return Healthcheck(self._healthcheck_file, RunTask(handle, CommitOffsets(commit)))


class StatsdMetrics(Metrics):
    """Arroyo's metrics, arroyo_sync's among them, to a server that reads DogStatsD's tags.

    Such as Prometheus' StatsD exporter, Datadog's agent, Telegraf, Vector. UDP, so nobody waits for the server.
    """

    def __init__(self, host: str, port: int, tags: Mapping[str, str] | None = None) -> None:
        self._client = DogStatsd(
            host=host,
            port=port,
            constant_tags=_as_list(tags) or [],
            disable_telemetry=True,
            origin_detection_enabled=False,  # a field that only Datadog's agent reads
        )

    def close(self) -> None:
        self._client.close_socket()

    def increment(self, name: str, value: float = 1, tags: Tags | None = None) -> None:
        self._client.increment(name, value, tags=_as_list(tags))

    def gauge(self, name: str, value: float, tags: Tags | None = None) -> None:
        self._client.gauge(name, value, tags=_as_list(tags))

    def timing(self, name: str, value: float, tags: Tags | None = None) -> None:
        # A server takes a timing for milliseconds, as ours are. Arroyo's own are seconds.
        is_ours = name.startswith(("arroyo_sync.", "commit_log_"))
        (self._client.timing if is_ours else self._client.histogram)(name, value, tags=_as_list(tags))


def _as_list(tags: Tags | None) -> list[str] | None:
    return None if tags is None else [f"{name}:{value}" for name, value in tags.items()]


def kafka_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """``ARROYO_SYNC_KAFKA_SASL_PASSWORD`` is ``sasl.password``."""
    return {
        name.removeprefix(ENVIRONMENT_PREFIX).lower().replace("_", "."): value
        for name, value in environment.items()
        if name.startswith(ENVIRONMENT_PREFIX)
    }


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    logging.config.dictConfig(LOGGING)
    configure_metrics(StatsdMetrics(options.statsd_host, options.statsd_port, {"follower": options.consumer_group}))
    tune_interpreter()
    settings = kafka_settings(os.environ)
    commit_log = CommitLogConsumer(settings, topic=Topic(options.commit_log_topic), groups=set(options.leader_group))
    factory = SynchronizedStrategyFactory(ForwarderFactory(options.healthcheck_file), commit_log)
    consumer = factory.consumer({**settings, "group.id": options.consumer_group, "auto.offset.reset": "earliest"})
    processor = StreamProcessor(consumer, Topic(options.topic), factory, join_timeout=options.join_timeout)
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda *_: processor.signal_shutdown())
    processor.run()  # what ends it is raised, and the exit status is 1: Kubernetes starts it again
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Handle each event once every leader group has committed it.")
    parser.add_argument("--topic", required=True)
    parser.add_argument("--consumer-group", required=True)
    parser.add_argument("--commit-log-topic", required=True)
    parser.add_argument("--leader-group", required=True, action="append", help="may be given more than once")
    parser.add_argument("--healthcheck-file", required=True, help="touched about once a second while all is well")
    parser.add_argument(
        "--join-timeout", type=float, default=25.0, help="seconds that work in progress may take to end (default: 25)"
    )
    parser.add_argument("--statsd-host", default="127.0.0.1")
    parser.add_argument("--statsd-port", type=int, default=9125)
    return parser


if __name__ == "__main__":
    sys.exit(main())
