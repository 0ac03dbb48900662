"""Arroyo's ``Healthcheck``, for those who want a follower that stands still to look unhealthy.

By default it doesn't: it is a leader that is ill, and to restart the follower heals nothing. Arroyo's ``Healthcheck``
touches its file as long as the pipeline is polled, which the gate does also while everything waits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from arroyo.processing.strategies.abstract import ProcessingStrategy
from arroyo.processing.strategies.healthcheck import Healthcheck

from arroyo_sync.core.checks import check_callable, check_path, check_step
from arroyo_sync.observe.stalls import Stall

TPayload = TypeVar("TPayload")


class HealthcheckUnlessStalled(Healthcheck[TPayload]):
    """Touches the file at every poll, at most once a second, unless something stands still.

    ::

        HealthcheckUnlessStalled("/tmp/health.txt", next_step, lambda: factory.stalls)

    Threads: the processor's.

    :param stalls: returns what stands still.
    :raises ConfigurationError: an argument can't be right; the message names it.
    """

    def __init__(
        self, healthcheck_file: str, next_step: ProcessingStrategy[TPayload], stalls: Callable[[], Sequence[Stall]]
    ) -> None:
        check_path("healthcheck_file", healthcheck_file)
        check_step("next_step", next_step)
        check_callable("stalls", stalls, "something to call for the stalls, such as lambda: factory.stalls")
        super().__init__(healthcheck_file, next_step)
        self._next_step = next_step
        self._stalls = stalls

    def poll(self) -> None:
        """Poll the next step, and touch the file."""
        if self._stalls():
            self._next_step.poll()
        else:
            super().poll()
