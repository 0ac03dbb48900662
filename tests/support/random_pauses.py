"""A pytest plugin (``-p tests.support.random_pauses``): the package's threads pause at random, as on a busy machine.

A test that counts on how far another thread has come fails with it. The test's own thread doesn't pause, and each other
one for a few seconds in all.
"""

from __future__ import annotations

import random
import sys
import threading
import time
from pathlib import Path
from types import FrameType

import arroyo_sync

SHARE = 0.1
"""Of the calls and returns of the package's functions."""
PAUSE_SECONDS = 0.03
MOST_PAUSES = 50
"""Of one thread."""

_PACKAGE = str(Path(arroyo_sync.__file__).parent)
_of_thread = threading.local()


def _pause(frame: FrameType, event: str, arg: object) -> None:
    if event not in ("call", "return") or not frame.f_code.co_filename.startswith(_PACKAGE):
        return
    paused = getattr(_of_thread, "paused", 0)
    if paused == MOST_PAUSES:
        sys.setprofile(None)
    elif random.random() < SHARE:
        _of_thread.paused = paused + 1
        time.sleep(PAUSE_SECONDS)


threading.setprofile(_pause)
