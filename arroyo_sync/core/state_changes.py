"""What a state manager has changed, on its way to the callback and the log: queued under a lock, delivered without.

Guarantees
    - Every change is delivered once, in the order in which it was added, one call at a time. A change that the callback
      makes is delivered after it has returned.
    - The callback and the log handlers are called with no lock of this package held that anybody waits for.

Threads
    Whoever changed something delivers the queue afterwards, unless another thread is at it, which then delivers this
    too.

Failures
    What the callback raises is counted, logged at most once a minute, and changes nothing. One of the `INTERRUPTIONS`
    comes out; that change counts as delivered, and those behind it are delivered with the next one.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

from arroyo_sync.core.interruptions import INTERRUPTIONS
from arroyo_sync.core.log_guard import guarded_logger
from arroyo_sync.core.log_throttle import LOG_INTERVAL_SECONDS, LogThrottle

logger = guarded_logger(__name__)

TState = TypeVar("TState")

Key = tuple[str, int]


class _StepBack(NamedTuple):
    """An offset that moved backwards, to be logged."""

    key: Key
    side: str
    previous: int
    offset: int


class DeliveryOnExit:
    """Stands before a lock in a ``with``: once that is released, what was changed under it is delivered."""

    def __init__(self, deliver: Callable[[], None]) -> None:
        self._deliver = deliver

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self._deliver()


class StateChanges(Generic[TState]):
    """See the module's docstring.

    :param callback: called as ``callback(topic, partition, previous, current)``.
    """

    def __init__(self, callback: Callable[[str, int, TState, TState], None]) -> None:
        self._callback = callback
        self._throttle = LogThrottle(LOG_INTERVAL_SECONDS, time.monotonic)
        self.undelivered: deque[tuple[Key, TState, TState] | _StepBack] = deque()
        """Appended to under the manager's lock, taken from by whoever holds `_delivering`."""
        self._delivering = threading.Lock()
        self.callback_errors = 0
        """How often the callback has raised. Written by whoever delivers; any thread may read it."""

    def add(self, key: Key, previous: TState, current: TState) -> None:
        """A partition's state has changed."""
        self.undelivered.append((key, previous, current))

    def add_step_back(self, key: Key, side: str, previous: int, offset: int) -> None:
        """An offset has moved back."""
        self.undelivered.append(_StepBack(key, side, previous, offset))

    def deliver(self) -> None:
        """Call the callback for every change, and log every step back.

        Returns at once while another thread delivers, or this one further up in its stack: that call goes on with what
        was added meanwhile.
        """
        # Looked at again after the release: what another thread added just before, it left to this one.
        while self.undelivered and self._delivering.acquire(blocking=False):
            try:
                while self.undelivered:
                    self.deliver_one()
            finally:
                self._delivering.release()

    def deliver_one(self) -> None:
        """Deliver the oldest. For `deliver`, one call at a time."""
        event = self.undelivered.popleft()
        if isinstance(event, _StepBack):
            logger.info("%s[%d]: %s offset moved back from %d to %d", *event.key, *event[1:])
            return
        key, previous, current = event
        try:
            self._callback(*key, previous, current)
        except INTERRUPTIONS:
            raise
        except Exception:
            self.callback_errors += 1
            if self._throttle.should_log("callback"):
                logger.exception(
                    "The callback for state changes raised (%d times so far); nothing else is changed by that",
                    self.callback_errors,
                )
