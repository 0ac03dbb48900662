"""Every metric through what users have: DogStatsD's client, and Sentry's own backend inside Sentry."""

from __future__ import annotations

import re
import runpy
import socket
import subprocess
import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from arroyo.utils import metrics as arroyo_metrics
from arroyo.utils.metrics import Metrics, Tags, configure_metrics, get_metrics

from arroyo_sync.observe.metrics import METRICS, REFUSED_VALUES, Kind
from arroyo_sync.observe.metrics_reporter import MetricsReporter, send
from tests.support.every_metric import report_everything
from tests.support.metrics_backend import MAY_HAVE_A_GROUP, RecordingMetrics
from tests.support.programs import EXAMPLES, block_with

sys.path.insert(0, str(EXAMPLES / "production"))

from forwarder import StatsdMetrics

SECONDS = 30.0
ADAPTER = EXAMPLES / "sentry_metrics.py"
LETTERS = {"c": Kind.COUNTER, "g": Kind.GAUGE, "ms": Kind.TIMING}


@pytest.fixture
def server() -> Iterator[socket.socket]:
    """Where a StatsD server would listen."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        udp.settimeout(SECONDS)
        yield udp


def test_every_metric_through_the_dogstatsd_client(server: socket.socket) -> None:
    """Each arrives as a number of its kind, with its tags and those of the backend."""
    backend = StatsdMetrics("127.0.0.1", server.getsockname()[1], {"follower": "forwarder"})
    reporter = MetricsReporter(lambda: backend)
    arrived = set()
    report_everything(reporter)
    send(backend, REFUSED_VALUES, 1)
    send(backend, REFUSED_VALUES, 99)  # the last one: on the loopback datagrams keep their order
    backend.close()
    while True:
        datagram = server.recv(65536).decode()
        for line in datagram.splitlines():
            match = re.fullmatch(r"([a-z_.]+):([0-9.]+)\|(c|g|ms)\|#(.+)", line)
            assert match, line
            names = [tag.partition(":")[0] for tag in match[4].split(",")]
            assert names[-1] == "follower"
            arrived.add((match[1], LETTERS[match[3]], tuple(names[:-1])))
        if f"{REFUSED_VALUES.name}:99" in datagram:
            break
    assert arrived == {(metric.name, metric.kind, metric.tags) for metric in METRICS}
    assert reporter.refused == 0


def test_arroyos_own_timings_are_seconds_there_as_they_are_here(server: socket.socket) -> None:
    """A server that reads milliseconds made a thousandth of them: ten minutes of latency were 0.6 s."""
    backend = StatsdMetrics("127.0.0.1", server.getsockname()[1])
    backend.timing("arroyo.consumer.latency", 600.0)
    backend.timing("arroyo_sync.hold_time", 250.0)
    backend.timing("commit_log_latency", 3.0)
    backend.close()
    sent = [server.recv(65536).decode().splitlines()[0] for _ in range(3)]
    assert [line.rpartition("|#")[0] or line for line in sent] == [
        "arroyo.consumer.latency:600.0|h",
        "arroyo_sync.hold_time:250.0|ms",
        "commit_log_latency:3.0|ms",
    ]


def test_a_server_that_is_away_is_no_flood_of_lines(server: socket.socket) -> None:
    """UDP on one machine tells that nobody listens, and the client logged every second value."""
    port = server.getsockname()[1]
    server.close()
    program = (
        "import logging.config, forwarder\n"
        "logging.config.dictConfig(forwarder.LOGGING)\n"
        f"backend = forwarder.StatsdMetrics('127.0.0.1', {port})\n"
        "for value in range(200):\n    backend.gauge('arroyo_sync.lag', value)\n"
        "logging.getLogger('arroyo_sync').info('the end')\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=True,
        cwd=EXAMPLES / "production",
    )
    (line,) = run.stderr.splitlines()
    assert line.endswith("the end")


class BadMetricTags(RuntimeError):
    """As Sentry names it."""


class SentrysBackend:
    """A stand-in for Sentry's backend behind its middleware, with the signatures of ``MiddlewareWrapper``.

    Sentry itself is no package that can be installed. What it refuses is in its ``src/sentry/metrics/middleware.py``.
    """

    def __init__(self) -> None:
        self.sent: list[tuple[str, str, float, dict[str, str], str | None]] = []

    def _record(self, method: str, key: str, value: float, tags: Tags | None, unit: str | None) -> None:
        bad = {tag for tag in tags or {} if tag.endswith("_id") or tag in {"event", "project", "group"}}
        if bad and key not in MAY_HAVE_A_GROUP:
            raise BadMetricTags(f"discarded illegal metric tags: {sorted(bad)} for metric {key!r}")
        self.sent.append((method, key, value, dict(tags or {}), unit))

    def incr(
        self,
        key: str,
        instance: str | None = None,
        tags: Mapping[str, str] | None = None,
        amount: float = 1,
        sample_rate: float = 1,
        unit: str | None = None,
    ) -> None:
        self._record("incr", key, amount, tags, unit)

    def gauge(
        self,
        key: str,
        value: float,
        instance: str | None = None,
        tags: Mapping[str, str] | None = None,
        sample_rate: float = 1,
        unit: str | None = None,
    ) -> None:
        self._record("gauge", key, value, tags, unit)

    def distribution(
        self,
        key: str,
        value: float,
        instance: str | None = None,
        tags: Mapping[str, str] | None = None,
        sample_rate: float = 1,
        unit: str | None = None,
    ) -> None:
        self._record("distribution", key, value, tags, unit)


class SentrysWrapper(RecordingMetrics):
    """What Sentry's ``initialize_arroyo_main`` configures: names get a prefix, and tags are judged by the result."""

    def record(self, kind: str, name: str, value: float, tags: Tags | None) -> None:
        if "group" in (tags or {}):
            raise BadMetricTags(name)
        super().record(kind, f"consumer.{name}", value, tags)


@pytest.fixture
def inside_sentry(monkeypatch: pytest.MonkeyPatch) -> tuple[SentrysBackend, SentrysWrapper]:
    """Sentry's module of metrics can be imported, and Arroyo's metrics are configured already."""
    backend, wrapper = SentrysBackend(), SentrysWrapper()
    module: Any = types.ModuleType("sentry.utils.metrics")
    module.backend = backend
    for name in ("sentry", "sentry.utils"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "sentry.utils.metrics", module)
    monkeypatch.setattr(arroyo_metrics, "_metrics_backend", None)
    configure_metrics(wrapper)
    return backend, wrapper


def test_the_migration_page_shows_the_adapter_as_it_is() -> None:
    """The file is type-checked and run; whoever reads the page copies the same."""
    assert ADAPTER.read_text().partition('"""\n\n')[2] == block_with("sentry.utils.metrics")


def test_every_metric_through_the_adapter_for_sentry(
    inside_sentry: tuple[SentrysBackend, SentrysWrapper],
) -> None:
    """Under its own name, so that Sentry's dashboards go on working; timings are distributions with their unit."""
    backend, wrapper = inside_sentry
    runpy.run_path(str(ADAPTER))
    reporter = MetricsReporter()
    report_everything(reporter)
    send(get_metrics(), REFUSED_VALUES, 1)
    methods = {Kind.COUNTER: "incr", Kind.GAUGE: "gauge", Kind.TIMING: "distribution"}
    assert {(method, name, tuple(tags), unit) for method, name, _, tags, unit in backend.sent} == {
        (methods[each.kind], each.name, each.tags, "millisecond" if each.kind is Kind.TIMING else None)
        for each in METRICS
    }
    assert (reporter.refused, wrapper.sent) == (0, [])


def test_arroyos_own_metrics_go_on_as_before_inside_sentry(
    inside_sentry: tuple[SentrysBackend, SentrysWrapper],
) -> None:
    """The adapter hands on what isn't ours: with Sentry's prefix."""
    backend, wrapper = inside_sentry
    runpy.run_path(str(ADAPTER))
    metrics: Metrics = get_metrics()
    metrics.increment("arroyo.consumer.run.count", 2, {"a": "b"})
    metrics.gauge("arroyo.consumer.librdkafka.total_queue_size", 3)
    metrics.timing("arroyo.consumer.poll.time", 4)
    assert [(each.kind, each.name, each.value) for each in wrapper.sent] == [
        ("increment", "consumer.arroyo.consumer.run.count", 2),
        ("gauge", "consumer.arroyo.consumer.librdkafka.total_queue_size", 3),
        ("timing", "consumer.arroyo.consumer.poll.time", 4),
    ]
    assert backend.sent == []


def test_without_the_adapter_sentry_refuses_its_own_two_under_a_prefix(
    inside_sentry: tuple[SentrysBackend, SentrysWrapper],
) -> None:
    """Why the page on migration gives one; and nothing else is lost by it."""
    _, wrapper = inside_sentry
    reporter = MetricsReporter()
    report_everything(reporter)
    names = {each.name.removeprefix("consumer.") for each in wrapper.sent}
    assert {metric.name for metric in METRICS} - names == MAY_HAVE_A_GROUP
    assert reporter.refused > 0
