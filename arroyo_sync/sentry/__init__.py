"""What this package gives to the Sentry SDK: a metrics backend, events and spans."""

from arroyo_sync.sentry.events import SentryMetrics, capture_problem, keep_secrets

__all__ = ["SentryMetrics", "capture_problem", "keep_secrets"]
