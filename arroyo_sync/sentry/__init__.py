"""For the Sentry SDK: a metrics backend, events and spans. Its public names are handed on from here.

May import: core, kafka, observe.
"""

from arroyo_sync.kafka.redaction import keep_secrets
from arroyo_sync.sentry.events import capture_problem
from arroyo_sync.sentry.metrics import SentryMetrics
from arroyo_sync.sentry.spans import ProcessSpans, PublishSpans

__all__ = ["ProcessSpans", "PublishSpans", "SentryMetrics", "capture_problem", "keep_secrets"]
