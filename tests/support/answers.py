"""The answers to a question about partitions, which come when they come."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from arroyo_sync.core.state import PartitionKey

TIMEOUT_SECONDS = 30.0
"""For an answer that must come; reached only when a test fails."""


class Answers:
    """What was answered of each partition, and a wait for it. Any thread may answer."""

    def __init__(self) -> None:
        self.given: dict[PartitionKey, Any] = {}
        self._changed = threading.Condition()

    def __call__(self, answers: Mapping[PartitionKey, Any]) -> None:
        with self._changed:
            self.given.update(answers)
            self._changed.notify_all()

    def wait_for(self, key: PartitionKey) -> object:
        """The partition's answer, which the next wait doesn't find any more."""
        with self._changed:
            assert self._changed.wait_for(lambda: key in self.given, TIMEOUT_SECONDS), f"no answer about {key}"
            return self.given.pop(key)
