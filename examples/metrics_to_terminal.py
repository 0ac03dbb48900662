"""The metrics without a metrics service: a table on the terminal, once a second; plain lines where there is none.

    python examples/metrics_to_terminal.py --bootstrap-servers localhost:9092 \\
        --topic events --consumer-group post-process-forwarder \\
        --synchronize-commit-log-topic snuba-commit-log --synchronize-commit-group snuba-consumers

`TerminalMetrics` is all that Arroyo asks of a backend. One that sends to a service looks the same. Watch
``arroyo_sync.lag.gated`` (events wait for a leader) beside ``arroyo_sync.lag.released`` (the follower itself is slow).
SIGTERM and Ctrl-C end it cleanly.
"""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Sequence

from arroyo.backends.kafka import KafkaConsumer, KafkaPayload
from arroyo.processing.processor import StreamProcessor
from arroyo.types import Topic
from arroyo.utils.metrics import Metrics, Tags, configure_metrics
from post_process_forwarder import ForwarderFactory
from rich.console import Console
from rich.live import Live
from rich.table import Table
from runner import (
    add_commit_log_flag,
    add_consumer_flags,
    add_handler_flag,
    add_leader_groups_flag,
    commit_log_of,
    consumer_settings,
    do_nothing,
    every_second,
    load_handler,
    run_processor,
)

from arroyo_sync import METRICS, SynchronizedStrategyFactory

UNITS = {metric.name: metric.unit for metric in METRICS}


class TerminalMetrics(Metrics):
    """Remembers the newest value of each series, a counter's sum. Any thread may call it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[tuple[str, str], float] = {}  # by name and tags; guarded by `_lock`

    def increment(self, name: str, value: float = 1, tags: Tags | None = None) -> None:
        with self._lock:
            key = _series(name, tags)
            self._values[key] = self._values.get(key, 0) + value

    def gauge(self, name: str, value: float, tags: Tags | None = None) -> None:
        with self._lock:
            self._values[_series(name, tags)] = value

    def timing(self, name: str, value: float, tags: Tags | None = None) -> None:
        self.gauge(name, value, tags)

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Name, tags, value and unit of each series of this package; Arroyo sends its own metrics here too."""
        with self._lock:
            values = sorted(self._values.items())
        return [(name, tags, f"{value:,.10g}", UNITS[name]) for (name, tags), value in values if name in UNITS]


def _series(name: str, tags: Tags | None) -> tuple[str, str]:
    return name, " ".join(f"{tag}={value}" for tag, value in sorted((tags or {}).items()))


def show(metrics: TerminalMetrics, live: Live | None) -> None:
    """Once more, in place on a terminal."""
    if live is None:
        print("\n".join(" ".join(filter(None, row)) for row in metrics.rows()), flush=True)
        return
    table = Table("metric", "tags", "value", "unit")
    for row in metrics.rows():
        table.add_row(*row)
    live.update(table, refresh=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="A follower that shows its metrics once a second.")
    add_consumer_flags(parser)
    add_commit_log_flag(parser)
    add_leader_groups_flag(parser)
    add_handler_flag(parser, default="do nothing")
    options = parser.parse_args(arguments)
    handler = load_handler(parser, options.handler, do_nothing)
    metrics = TerminalMetrics()
    configure_metrics(metrics)  # before anything that asks for the backend is made

    def build() -> StreamProcessor[KafkaPayload]:
        factory = SynchronizedStrategyFactory(
            ForwarderFactory(handler, options.healthcheck_file_path), commit_log_of(options)
        )
        consumer = factory.flow_control(KafkaConsumer(consumer_settings(options)))
        return StreamProcessor(consumer, Topic(options.topic), factory, join_timeout=options.join_timeout)

    console = Console()
    if not console.is_terminal:
        with every_second(lambda: show(metrics, None)):
            return run_processor(parser.prog, build)
    with Live(console=console, auto_refresh=False) as live, every_second(lambda: show(metrics, live)):
        return run_processor(parser.prog, build)


if __name__ == "__main__":
    sys.exit(main())
