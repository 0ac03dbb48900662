"""The command ``arroyo-sync``, which is ``python -m arroyo_sync`` too.

It loads next to nothing before it can be interrupted: Kafka's client and all else take half a second.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

INTERRUPTED = 130
"""The exit status after Ctrl-C, as a shell gives it to whatever ends so."""
UNKNOWN = 2
"""`ExitStatus.UNKNOWN`, which isn't loaded yet."""


def main() -> int:
    """Run the command, and return its exit status."""
    # If it is ignored, as in a script's background jobs, that stays so.
    is_ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_ours:
        signal.signal(signal.SIGINT, _end)
    try:
        from arroyo_sync.status.command import main as run
    except ImportError as error:  # a traceback would end with 1, which says that something stands still
        print(f"arroyo-sync can't be loaded: {error}", file=sys.stderr)
        return UNKNOWN
    if is_ours:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return run()
    finally:
        if is_ours:  # what is left is Python's own end
            signal.signal(signal.SIGINT, _end)


def _end(signum: int, frame: FrameType | None) -> None:
    """At once and without a word: there is nothing to close yet, or any more."""
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    sys.exit(main())
