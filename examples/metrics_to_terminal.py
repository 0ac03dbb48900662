r"""The metrics without a metrics service: a table on the terminal, once a second; all as lines where there is none.

    python examples/metrics_to_terminal.py --bootstrap-servers $KAFKA \
        --topic events --consumer-group post-process-forwarder \
        --synchronize-commit-log-topic snuba-commit-log --synchronize-commit-group snuba-consumers

KAFKA is a broker's address, such as `examples/broker.py` prints; `examples/first_leader.py` can be the leader.

`TerminalMetrics` is all that Arroyo asks of a backend. One that sends to a service looks the same. Watch the column
"gated" (``arroyo_sync.lag.gated``: events wait for a leader) beside "slow" (``arroyo_sync.lag.released``: the leaders
have committed them, and the follower hasn't got to them yet).
SIGTERM and Ctrl-C end it cleanly.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Callable, Sequence

from arroyo.backends.kafka import KafkaPayload
from arroyo.processing.processor import StreamProcessor
from arroyo.types import Topic
from arroyo.utils.metrics import Metrics, Tags, configure_metrics
from post_process_forwarder import ForwarderFactory
from rich.box import SIMPLE
from rich.console import Console, Group
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
OF_A_PARTITION = {
    "gated": "arroyo_sync.lag.gated",
    "slow": "arroyo_sync.lag.released",
    "held": "arroyo_sync.held.messages",
    "oldest, s": "arroyo_sync.held.oldest",
    "next": "arroyo_sync.local_offset",
    "released to": "arroyo_sync.remote_offset",
}
OF_ALL = (
    "arroyo_sync.reader.alive",
    "arroyo_sync.reader.ready",
    "arroyo_sync.waiting",
    "arroyo_sync.stalled",
    "arroyo_sync.release_latency",
)
ROWS = 10
"""The table's partitions. With its frame, and what is below it, that fits a terminal of 24 lines."""
FORGOTTEN_SECONDS = 60.0
"""Nothing tells that a partition was taken away: no more values of it come. Of many partitions 250 have their turn each
second, so that those of 15,000 come as often."""


class TerminalMetrics(Metrics):
    """Remembers the newest value of each series, a counter's sum. Any thread may call it.

    A series that is no counter's is forgotten when no value has come for a minute.

    :param clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        # By name and tags; guarded by the lock.
        self._values: dict[tuple[str, str], float] = {}
        self._set_at: dict[tuple[str, str], float] = {}

    def increment(self, name: str, value: float = 1, tags: Tags | None = None) -> None:
        with self._lock:
            key = _series(name, tags)
            self._values[key] = self._values.get(key, 0) + value

    def gauge(self, name: str, value: float, tags: Tags | None = None) -> None:
        with self._lock:
            key = _series(name, tags)
            self._values[key], self._set_at[key] = value, self._clock()

    def timing(self, name: str, value: float, tags: Tags | None = None) -> None:
        self.gauge(name, value, tags)

    def values(self) -> dict[tuple[str, str], float]:
        """By name and tags."""
        with self._lock:
            oldest = self._clock() - FORGOTTEN_SECONDS
            for key in [key for key, set_at in self._set_at.items() if set_at < oldest]:
                del self._values[key], self._set_at[key]
            return dict(self._values)

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Name, tags, value and unit of each series of this package; Arroyo sends its own metrics here too."""
        values = sorted(self.values().items())
        return [(name, tags, f"{value:,.10g}", UNITS[name]) for (name, tags), value in values if name in UNITS]


def _series(name: str, tags: Tags | None) -> tuple[str, str]:
    return name, " ".join(f"{tag}={value}" for tag, value in sorted((tags or {}).items()))


def picture(metrics: TerminalMetrics) -> Group:
    """The partitions with the most events that wait for a leader, and how the follower is altogether."""
    partitions: dict[str, dict[str, float]] = {}
    below: dict[str, float] = {}
    for (name, tags), value in metrics.values().items():
        if name in OF_A_PARTITION.values():
            partitions.setdefault(tags, {})[name] = value
        elif name in OF_ALL:
            below[name] = below.get(name, 0) + value
    table = Table(*("partition", *OF_A_PARTITION), box=SIMPLE)
    for column in table.columns:
        column.no_wrap = True
        column.justify = "left" if column.header == "partition" else "right"
    gated = OF_A_PARTITION["gated"]
    most_first = sorted(partitions.items(), key=lambda item: (-item[1].get(gated, 0), item[0]))
    for tags, values in most_first[:ROWS]:
        table.add_row(_partition(tags), *(_text(values.get(name)) for name in OF_A_PARTITION.values()))
    lines = [f"{name.removeprefix('arroyo_sync.'):>16} {_text(below.get(name)):>7} {UNITS[name]}" for name in OF_ALL]
    left_out = len(partitions) - ROWS
    rest = [f"  and {left_out} partitions with less to wait for"] if left_out > 0 else []
    return Group(table, *rest, *lines)


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:,.{0 if value == int(value) else 1}f}"


def _partition(tags: str) -> str:
    values = dict(tag.split("=", 1) for tag in tags.split(" "))
    return f"{values['topic']}:{values['partition']}"


def show(metrics: TerminalMetrics, live: Live | None) -> None:
    """Once more, in place on a terminal."""
    if live is None:
        print("\n".join(" ".join(filter(None, row)) for row in metrics.rows()), flush=True)
    else:
        live.update(picture(metrics), refresh=True)


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
        consumer = factory.consumer(consumer_settings(options))
        return StreamProcessor(consumer, Topic(options.topic), factory, join_timeout=options.join_timeout)

    console = Console()
    if not console.is_terminal:
        with every_second(lambda: show(metrics, None)):
            return run_processor(parser.prog, build)
    with Live(console=console, auto_refresh=False) as live, every_second(lambda: show(metrics, live)):
        return run_processor(parser.prog, build)


if __name__ == "__main__":
    sys.exit(main())
