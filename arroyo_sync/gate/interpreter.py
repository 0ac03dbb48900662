"""What a follower's program may ask of CPython, once, at its start."""

from __future__ import annotations

import gc
import sys

SWITCH_INTERVAL_SECONDS = 0.0005
GC_THRESHOLDS = (50_000, 50, 100)


def tune_interpreter() -> None:
    """Set the whole process up for prompt releases. Optional; to be called once, before the processor runs; any thread
    may.

    - The switch interval becomes half a millisecond. The commit log is read by a thread of its own, and while your
      steps compute, CPython lets that thread in only after this interval, which is 5 ms by default. Threads switch only
      where one waits, so it costs no speed. Where the cores are overloaded (40 processes on two) it brings much: with a
      step that computes for 0.1 ms a message, 2,000 messages a second and a report every 10 ms, the first message that
      a report released took 1.7 ms instead of 17 (median). With a core to itself the follower shows no difference.
    - The garbage collector's thresholds become ``(50_000, 50, 100)``, by default ``(700, 10, 10)`` (2,000 since 3.12).
      A held message is five objects that the collector walks over. Nothing held is garbage, and what is handed on is
      freed without the collector. With 40,000 messages held, collections stopped the process for 24 to 37 ms instead
      of 165 to 230 of a few seconds, the longest for 5 to 17 instead of 43 to 66. What it costs: cycles of your own
      code are freed later.

    Measured by ``python -m tests.benchmarks --only interpreter``. Values that are already further in this direction
    stay.
    """
    sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_INTERVAL_SECONDS))
    if gc.get_threshold()[0] != 0:  # 0: the program has switched it off
        gc.set_threshold(*map(max, gc.get_threshold(), GC_THRESHOLDS))
