from __future__ import annotations

import pytest

from arroyo_sync.observe.metrics import COMMIT_LOG_LATENCY, GATED_LAG, METRICS, RECORDS_READ, Kind, MetricDef
from arroyo_sync.observe.metrics_reporter import send
from tests.support.metrics_backend import RecordingMetrics, Sent


def test_names_are_unique_and_ours_have_our_prefix() -> None:
    """Two metrics never share a series; only Sentry's own two go without the prefix."""
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)
    assert {name for name in names if not name.startswith("arroyo_sync.")} == {
        "commit_log_latency",
        "commit_log_msg_latency",
    }


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_every_metric_is_described(metric: MetricDef) -> None:
    """The README's table is made of these: each has a unit and a sentence."""
    assert metric.unit
    assert metric.meaning.endswith(".")


def test_timings_are_in_milliseconds() -> None:
    """As Sentry's own two and statsd have it: one unit for all timings."""
    assert {metric.unit for metric in METRICS if metric.kind is Kind.TIMING} == {"millisecond"}


@pytest.mark.parametrize(
    ("metric", "tag_values", "sent"),
    [
        (GATED_LAG, ("events", 3), Sent("gauge", "arroyo_sync.lag.gated", 7, {"topic": "events", "partition": "3"})),
        (RECORDS_READ, (), Sent("increment", "arroyo_sync.commit_log.read", 7, {})),
        (
            COMMIT_LOG_LATENCY,
            (3, "writers"),
            Sent("timing", "commit_log_latency", 7, {"partition": "3", "group": "writers"}),
        ),
    ],
    ids=["gauge", "counter", "timing"],
)
def test_a_metric_is_sent_by_its_kind_with_its_tags(
    metric: MetricDef, tag_values: tuple[object, ...], sent: Sent
) -> None:
    """Tags are text, named as the definition says."""
    backend = RecordingMetrics()
    send(backend, metric, 7, *tag_values)
    assert backend.sent == [sent]


def test_a_missing_tag_is_an_error() -> None:
    """A series without its tags would be another series."""
    with pytest.raises(ValueError, match="zip"):
        send(RecordingMetrics(), GATED_LAG, 7, "events")
