"""An archive of the broker's classes, with which a JVM starts in a third of the time (Java's class data sharing).

It is made once for each Kafka and Java, beside the jars: a broker is started, stopped, and writes it as it ends. A JVM
that can't use an archive starts without it, just slower.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from tests.integration.cluster.machine_cache import make_once

MAKE = "-XX:ArchiveClassesAtExit="
"""The JVM option, with a path behind it, that makes one. It takes seconds, so only a broker gets it."""

_QUIETLY = "-Xlog:disable"  # else the JVM warns into the broker's log that it can't use an archive


def options(jars: Path, java: Path, run_a_broker: Callable[[list[str]], None]) -> list[str]:
    """JVM options that use the archive.

    :param run_a_broker: starts a broker with further JVM options and lets it end in peace. Called if there is no
        archive yet; other processes wait meanwhile.
    """

    def make(archive: Path) -> None:
        run_a_broker([f"{MAKE}{archive}", _QUIETLY])
        archive.touch()  # a JVM that makes none leaves an empty one, so that it isn't asked again

    archive = make_once(_archive(jars, java), make)
    return [f"-XX:SharedArchiveFile={archive}", _QUIETLY]


def _archive(jars: Path, java: Path) -> Path:
    """Another Java, or one that was upgraded, has another archive."""
    status = java.resolve().stat()
    digest = hashlib.sha256(f"{java.resolve()} {status.st_size} {status.st_mtime_ns}".encode()).hexdigest()[:8]
    return jars.with_name(f"{jars.name}-java-{digest}.jsa")
