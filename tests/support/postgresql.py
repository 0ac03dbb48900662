"""A PostgreSQL of a test's own, where one is installed."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SECONDS = 120.0
OWNER = "nobody"
"""PostgreSQL doesn't run as root."""


def what_to_install() -> str | None:
    """``None`` if it can be started and reached, else what is missing, in words."""
    missing = [] if _programs() is not None else ["PostgreSQL (Debian: postgresql)"]
    missing += [] if importlib.util.find_spec("psycopg") is not None else ["its driver (pip: psycopg[binary])"]
    return (
        f"an example's rows in PostgreSQL need {' and '.join(missing)}: install it, then run again" if missing else None
    )


@contextmanager
def running() -> Iterator[str]:
    """Its address, for as long as the context lasts. It listens on a socket in a folder of its own."""
    programs = _programs()
    assert programs is not None
    user = OWNER if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="arroyo-sync-postgresql-") as folder:
        if user is not None:
            shutil.chown(folder, user)

        def run(program: str, *arguments: str) -> None:
            with open(Path(folder).with_suffix(".log"), "w+") as log:
                command = [str(programs / program), "-D", f"{folder}/data", *arguments]
                result = subprocess.run(command, stdout=log, stderr=log, user=user, cwd="/", timeout=SECONDS)
                log.seek(0)
                assert result.returncode == 0, log.read()
            os.unlink(log.name)

        run("initdb", "-U", "tests", "--no-sync")
        run("pg_ctl", "-w", "-l", f"{folder}/log", "-o", f"-k {folder} -c listen_addresses=", "start")
        try:
            yield f"postgresql:///postgres?host={folder}&user=tests"
        finally:
            run("pg_ctl", "-w", "-m", "immediate", "stop")


def _programs() -> Path | None:
    """The folder with its programs; Debian's isn't on the path."""
    places = [Path(found).parent for found in (shutil.which("initdb"),) if found is not None]
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((each for each in places if (each / "pg_ctl").exists()), None)
