"""A metrics backend that remembers what it was sent."""

from __future__ import annotations

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
        self.sent.append(Sent("increment", name, value, dict(tags or {})))

    def gauge(self, name: str, value: float, tags: Tags | None = None) -> None:
        self.sent.append(Sent("gauge", name, value, dict(tags or {})))

    def timing(self, name: str, value: float, tags: Tags | None = None) -> None:
        self.sent.append(Sent("timing", name, value, dict(tags or {})))

    def of(self, name: str) -> list[tuple[float, dict[str, str]]]:
        """The values and tags that were sent under a name."""
        return [(each.value, each.tags) for each in self.sent if each.name == name]
