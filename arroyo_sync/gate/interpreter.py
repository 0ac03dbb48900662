"""What a follower's program should ask of CPython, once, at its start."""

from __future__ import annotations

import gc
import sys

SWITCH_INTERVAL_SECONDS = 0.0005
GC_THRESHOLDS = (50_000, 50, 100)


def tune_interpreter() -> None:
    """Set the whole process up for prompt releases. To be called once, before the processor runs; any thread may.

    - The switch interval becomes half a millisecond. The commit log is read by a thread of its own, and while your
      steps compute, CPython lets that thread in only after this interval, which is 5 ms by default. Threads switch only
      where one waits, so it costs no speed.
    - The garbage collector's thresholds become ``(50_000, 50, 100)``, by default ``(700, 10, 10)`` (2,000 since 3.12).
      A held message is five objects that the collector walks over: with 10,000 held in a partition, collections of 10
      to 50 ms came about once a second. Nothing held is garbage, and what is handed on is freed without the collector.

    Values that are already further in this direction stay.
    """
    sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_INTERVAL_SECONDS))
    if gc.get_threshold()[0] != 0:  # 0: the program has switched it off
        gc.set_threshold(*map(max, gc.get_threshold(), GC_THRESHOLDS))
