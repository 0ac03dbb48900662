"""``python -m arroyo_sync`` is the command ``arroyo-sync``."""

from __future__ import annotations

import sys

from arroyo_sync.status.command import main

if __name__ == "__main__":
    sys.exit(main())
