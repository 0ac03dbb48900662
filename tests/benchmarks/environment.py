"""Where the numbers come from: machine, versions, settings."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import confluent_kafka

from tests.benchmarks.bench import CONSUMER_SETTINGS, Bench
from tests.benchmarks.peer_environment import PEER

PACKAGES = ("arroyo-sync", "sentry-arroyo", "confluent-kafka", "numpy")


def describe(bench: Bench) -> dict[str, Any]:
    """What one must know to read the numbers."""
    return {
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "librdkafka": confluent_kafka.libversion()[0],
        "peer": PEER,
        "kafka": "Apache Kafka, one broker in KRaft mode, on loopback, same machine",
        "java": subprocess.run(["java", "-version"], capture_output=True, text=True).stderr.splitlines()[0],
        "cpu": _cpu(),
        "cpus": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "quick": bench.quick,
        "repetitions": bench.repetitions,
        "seed": bench.seed,
        "consumer_settings": CONSUMER_SETTINGS,
    }


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
