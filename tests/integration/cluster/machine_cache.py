"""What is made once for a machine, by whichever process needs it first, and kept in the cache folder."""

from __future__ import annotations

import fcntl
import tempfile
from collections.abc import Callable
from pathlib import Path


def make_once(target: Path, make: Callable[[Path], None]) -> Path:
    """The file or folder, which is made if it isn't there: it appears complete or not at all.

    Other processes wait meanwhile; any may be killed.

    :param make: is given the path at which to make it, in an empty folder. What it raises is raised here, and the next
        process tries again.
    """
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.with_name(f"{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            with tempfile.TemporaryDirectory(prefix=".making-", dir=target.parent) as folder:
                made = Path(folder, target.name)
                make(made)
                made.rename(target)
    return target
