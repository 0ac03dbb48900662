"""An archive of the broker's classes, with which a JVM starts in a third of the time (Java's class data sharing).

It is made once for each Kafka and Java, beside the jars: a broker is started, stopped, and writes it as it ends. A JVM
that can't use an archive starts without it, just slower.
"""

from __future__ import annotations

import fcntl
import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path

MAKE = "-XX:ArchiveClassesAtExit="
"""The JVM option, with a path behind it, that makes one. It takes seconds, so only a broker gets it."""

_QUIETLY = "-Xlog:disable"  # else the JVM warns into the broker's log that it can't use an archive


def options(jars: Path, java: Path, run_a_broker: Callable[[list[str]], None]) -> list[str]:
    """JVM options that use the archive.

    :param run_a_broker: starts a broker with further JVM options and lets it end in peace. Called if there is no
        archive yet; other processes wait meanwhile.
    """
    archive = _archive(jars, java)
    if not archive.exists():
        with archive.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not archive.exists():
                _make(archive, run_a_broker)
    return [f"-XX:SharedArchiveFile={archive}", _QUIETLY]


def _archive(jars: Path, java: Path) -> Path:
    """Another Java, or one that was upgraded, has another archive."""
    status = java.resolve().stat()
    digest = hashlib.sha256(f"{java.resolve()} {status.st_size} {status.st_mtime_ns}".encode()).hexdigest()[:8]
    return jars.with_name(f"{jars.name}-java-{digest}.jsa")


def _make(archive: Path, run_a_broker: Callable[[list[str]], None]) -> None:
    """It appears complete or not at all. A JVM that makes none leaves an empty one, so that it isn't asked again."""
    with tempfile.TemporaryDirectory(prefix=".archiving-", dir=archive.parent) as folder:
        made = Path(folder, archive.name)
        run_a_broker([f"{MAKE}{made}", _QUIETLY])
        made.touch()
        made.rename(archive)
