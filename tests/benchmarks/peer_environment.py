"""The peer's virtual environment: made once, outside the checkout, and used again."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from importlib.metadata import version
from pathlib import Path

PEER = "sentry-arroyo==0.2.2"
"""The last release that shipped ``SynchronizedConsumer``."""

_DONE = "benchmark-ready"


def peer_python() -> Path:
    """The peer's interpreter. The first time, this makes its environment (half a minute, from PyPI)."""
    base = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    confluent = f"confluent-kafka=={version('confluent-kafka')}"
    home = base / "arroyo-sync" / f"peer-{sys.version_info[0]}.{sys.version_info[1]}-{version('confluent-kafka')}"
    python = home / "bin" / "python"
    if not (home / _DONE).exists():
        venv.create(home, with_pip=True, clear=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        # The peer pins a confluent-kafka of 2021, which has no wheels for today's Python: hence without dependencies.
        subprocess.run([*install, confluent], check=True, env=environment)
        subprocess.run([*install, "--no-deps", PEER], check=True, env=environment)
        (home / _DONE).touch()
    return python
