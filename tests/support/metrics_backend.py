"""Metrics backends for tests: one that remembers what it was sent, and one that takes only what every backend takes."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from arroyo.utils.metrics import Metrics, Tags


class Sent(NamedTuple):
    kind: str
    name: str
    value: float
    tags: dict[str, str]


class RecordingMetrics(Metrics):
    """A fake of Arroyo's ``Metrics``."""

    def __init__(self) -> None:
        self.sent: list[Sent] = []

    def increment(self, name: str, value: float = 1, tags: Tags | None = None) -> None:
        self.record("increment", name, value, tags)

    def gauge(self, name: str, value: float, tags: Tags | None = None) -> None:
        self.record("gauge", name, value, tags)

    def timing(self, name: str, value: float, tags: Tags | None = None) -> None:
        self.record("timing", name, value, tags)

    def record(self, kind: str, name: str, value: float, tags: Tags | None) -> None:
        self.sent.append(Sent(kind, name, value, dict(tags or {})))

    def of(self, name: str) -> list[tuple[float, dict[str, str]]]:
        """The values and tags that were sent under a name."""
        return [(each.value, each.tags) for each in self.sent if each.name == name]


MAY_HAVE_A_GROUP = {"commit_log_latency", "commit_log_msg_latency"}
"""The metrics that Sentry's middleware exempts from its rule about tags."""


class StrictMetrics(RecordingMetrics):
    """Raises on what some real backend refuses, drops or garbles.

    A name is of letters, digits, dots and underscores (Prometheus, StatsD). A value is a finite number, and no boolean
    (DogStatsD writes "True"). A tag is text and not empty, and none is named as Sentry's middleware refuses.
    """

    def record(self, kind: str, name: str, value: float, tags: Tags | None) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*", name):
            raise ValueError(f"name: {name!r}")
        if type(value) not in (int, float) or not math.isfinite(value):
            raise TypeError(f"{name}: {value!r} is no number")
        for tag, text in (tags or {}).items():
            if not re.fullmatch(r"[a-z][a-z0-9_]*", tag) or not isinstance(text, str) or not text:
                raise TypeError(f"{name}: tag {tag!r}={text!r}")
            if name not in MAY_HAVE_A_GROUP and (tag in {"event", "project", "group"} or tag.endswith("_id")):
                raise ValueError(f"{name}: Sentry refuses a tag named {tag!r}")
        super().record(kind, name, value, tags)
