"""Arroyo's metrics, ours among them, for the Sentry SDK. Any thread may call anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import sentry_sdk
from arroyo.utils.metrics import Metrics

from arroyo_sync.core.checks import check_mapping, check_text
from arroyo_sync.core.interruptions import INTERRUPTIONS
from arroyo_sync.observe.metrics import METRICS_BY_NAME, REFUSED_VALUES
from arroyo_sync.sentry.failures import Failures

ARROYO_TIMING_UNITS = {"arroyo.consumer.latency": "second"}
"""Of Arroyo's own timings, those whose unit its ``metric_defs`` gives."""


class SentryMetrics(Metrics):
    """Sends Arroyo's metrics, ours among them, to ``sentry_sdk.metrics``::

        arroyo.utils.metrics.configure_metrics(SentryMetrics())

    A counter becomes a count, a gauge a gauge, and a timing a distribution; tags become attributes. Never blocks: the
    SDK sends from a thread of its own. A value for which it raises is left out, counted as
    ``arroyo_sync.refused_values``, and logged at most once a minute: Arroyo guards no call of its own.

    :param tags: added to every metric, such as the follower's name.
    """

    def __init__(self, tags: Mapping[str, str] | None = None) -> None:
        if tags is not None:
            check_mapping("tags", tags, "names to texts")
            for name, value in tags.items():
                check_text("tags's names", name)
                check_text("tags's values", value, may_be_empty=True)
        self._tags = dict(tags or {})
        self._failures = Failures("all that it takes is sent")

    def increment(self, name: str, value: float = 1, tags: Mapping[str, str] | None = None) -> None:
        """Count ``value`` more."""
        self._send(sentry_sdk.metrics.count, name, value, tags)

    def gauge(self, name: str, value: float, tags: Mapping[str, str] | None = None) -> None:
        """The value is this now."""
        self._send(sentry_sdk.metrics.gauge, name, value, tags, unit=_unit(name))

    def timing(self, name: str, value: float, tags: Mapping[str, str] | None = None) -> None:
        """It took this long once."""
        self._send(sentry_sdk.metrics.distribution, name, value, tags, unit=_unit(name))

    def _send(
        self, send: Callable[..., None], name: str, value: float, tags: Mapping[str, str] | None, **unit: str | None
    ) -> None:
        try:
            send(name, value, attributes={**self._tags, **(tags or {})}, **unit)
        except INTERRUPTIONS:
            raise
        except Exception as error:
            try:
                sentry_sdk.metrics.count(REFUSED_VALUES.name, 1, attributes=self._tags)
            except INTERRUPTIONS:
                raise
            except Exception:
                pass  # a hook may refuse this one, too: then the log alone tells
            self._failures.note(name, error)


def _unit(name: str) -> str | None:
    metric = METRICS_BY_NAME.get(name)
    return metric.unit if metric is not None else ARROYO_TIMING_UNITS.get(name)
