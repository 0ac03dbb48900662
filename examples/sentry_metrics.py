"""Inside Sentry: arroyo_sync's metrics under their own names, beside the backend that Sentry has configured.

Import it before the factory is made. ``arroyo_sync/MIGRATION.md`` shows the same lines, and says why.
"""

from arroyo.utils.metric_defs import MetricName
from arroyo.utils.metrics import Metrics, Tags, configure_metrics, get_metrics
from sentry.utils.metrics import backend


class SentryBackend(Metrics):
    """arroyo_sync's metrics under their own names, timings with their unit; all others as before."""

    def __init__(self, others: Metrics) -> None:
        self._others = others

    def increment(self, name: MetricName, value: float = 1, tags: Tags | None = None) -> None:
        if _is_ours(name):
            backend.incr(name, amount=value, tags=tags)
        else:
            self._others.increment(name, value, tags)

    def gauge(self, name: MetricName, value: float, tags: Tags | None = None) -> None:
        if _is_ours(name):
            backend.gauge(name, value, tags=tags)
        else:
            self._others.gauge(name, value, tags)

    def timing(self, name: MetricName, value: float, tags: Tags | None = None) -> None:
        if _is_ours(name):
            backend.distribution(name, value, tags=tags, unit="millisecond")
        else:
            self._others.timing(name, value, tags)


def _is_ours(name: str) -> bool:
    return name.startswith(("arroyo_sync.", "commit_log_"))


configure_metrics(SentryBackend(get_metrics()), force=True)
