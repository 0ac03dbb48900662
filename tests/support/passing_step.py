"""A step that hands everything on, for those that only look."""

from __future__ import annotations

from typing import Any

from arroyo.processing.strategies.abstract import ProcessingStrategy
from arroyo.types import Message


class PassingStep(ProcessingStrategy[Any]):
    """Subclasses see to what comes in `submit`."""

    def __init__(self, next_step: ProcessingStrategy[Any]) -> None:
        self._next_step = next_step

    def submit(self, message: Message[Any]) -> None:
        self._next_step.submit(message)

    def poll(self) -> None:
        self._next_step.poll()

    def close(self) -> None:
        self._next_step.close()

    def terminate(self) -> None:
        self._next_step.terminate()

    def join(self, timeout: float | None = None) -> None:
        self._next_step.join(timeout)
