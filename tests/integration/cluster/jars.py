"""The jars of the Kafka broker, which Maven fetches once into a cache folder outside the checkout."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

from tests.integration.cluster.machine_cache import make_once

CACHE_VARIABLE = "ARROYO_SYNC_CACHE"
VERSION_VARIABLE = "ARROYO_SYNC_KAFKA_VERSION"
"""Another Kafka than the one that pom.xml names, such as ``3.6.2``."""
FETCH_TIMEOUT_SECONDS = 600.0

_POM = Path(__file__).with_name("pom.xml")


def java() -> str | None:
    """The Java to run: that of ``JAVA_HOME``, else the one on ``PATH``, else ``None``."""
    home = os.environ.get("JAVA_HOME")
    return shutil.which(str(Path(home, "bin", "java"))) if home else shutil.which("java")


def what_to_install() -> str | None:
    """One line that says what this machine lacks to run a broker, or ``None`` if it lacks nothing."""
    missing = []
    if java() is None:
        missing.append("Java 17 or later (Debian: openjdk-17-jre-headless)")
    if not folder().is_dir() and shutil.which("mvn") is None:
        missing.append("Maven (Debian: maven)")
    return f"a real Kafka needs {' and '.join(missing)}: install it, then run again" if missing else None


def version() -> str:
    """The Kafka to run: ``ARROYO_SYNC_KAFKA_VERSION``, else the one that pom.xml names.

    :raises ValueError: the variable holds no version.
    """
    wanted = os.environ.get(VERSION_VARIABLE)
    if wanted:
        if re.fullmatch(r"[0-9]+(\.[0-9]+)+", wanted) is None:
            raise ValueError(f"{VERSION_VARIABLE}={wanted!r}: give a version of Apache Kafka such as 3.6.2")
        return wanted
    named = re.search(r"<kafka\.version>(.+?)</kafka\.version>", _POM.read_text())
    assert named is not None, "pom.xml names no kafka.version"
    return named[1]


def major(version: str) -> int:
    """What stands before the first point."""
    return int(version.split(".")[0])


def folder() -> Path:
    """Where the jars lie, or will: ``ARROYO_SYNC_CACHE``, else ``arroyo-sync`` in the user's cache folder."""
    pom = _POM.read_bytes()
    parent = os.environ.get(CACHE_VARIABLE)
    if not parent:
        parent = str(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "arroyo-sync"))
    # The digest makes a changed pom fetch anew.
    return Path(parent, f"kafka-{version()}-{hashlib.sha256(pom).hexdigest()[:8]}")


def fetch() -> Path:
    """The folder that holds the jars. Blocks for up to ten minutes if they must be fetched first.

    :raises RuntimeError: with Maven's output, when it failed.
    """
    return make_once(folder(), _fetch)


def _fetch(target: Path) -> None:
    command = ["mvn", "-q", "-B", "-f", str(_POM), "dependency:copy-dependencies"]
    command += [f"-Dkafka.version={version()}", "-DincludeScope=runtime", f"-DoutputDirectory={target}"]
    maven = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=FETCH_TIMEOUT_SECONDS,
    )
    if maven.returncode != 0:
        raise RuntimeError(f"Maven could not fetch Kafka's jars:\n{maven.stdout}")
