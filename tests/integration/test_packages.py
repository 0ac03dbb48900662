"""The packages as a stranger gets them: built, checked, installed into an empty environment, and tried there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import Producer

from arroyo_sync.leaders.commit_log.record import CommitRecord, encode
from tests.conftest import BOOTSTRAP_SERVERS_VARIABLE
from tests.integration.cluster.admin import Kafka
from tests.support.requirements import lacking

pytestmark = pytest.mark.packages

ROOT = Path(__file__).parents[2]
MINUTES = 60.0

PIPELINE = """
from datetime import datetime
from pathlib import Path

from arroyo import Message, Topic
from arroyo.types import BrokerValue, Partition

import arroyo_sync
from arroyo_sync import SynchronizedPartitionStateManager, SynchronizedStrategy
from arroyo_sync.sentry import SentryMetrics
from arroyo_sync.testing import ManualSource, RecordingStep

partition = Partition(Topic("events"), 0)
manager, source, step = SynchronizedPartitionStateManager(), ManualSource(), RecordingStep()
source.start(manager)
gate = SynchronizedStrategy(step, manager, source, {partition: 0})
for offset in range(3):
    gate.submit(Message(BrokerValue(b"", partition, offset, datetime.now())))
source.set_remote_offset("events", 0, 2)
gate.poll()
print(arroyo_sync.__version__, len(step.messages), Path(arroyo_sync.__file__).parent)
"""


def run(*command: str | Path, folder: Path, **variables: str) -> str:
    """What it writes; no path of this process's leads it to other sources."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | variables
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=10 * MINUTES)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def modules(folder: Path) -> set[str]:
    """The Python files in it."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*.py")}


@pytest.fixture(scope="module")
def package_index(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skips on a machine from which pip reaches none."""
    ask = ["pip", "download", "--no-deps", "--retries", "0", "--timeout", "20", "hatchling"]
    folder = tmp_path_factory.mktemp("index")
    if subprocess.run([sys.executable, "-m", *ask], cwd=folder, capture_output=True, timeout=MINUTES).returncode != 0:
        lacking("wheel and sdist need a package index that pip reaches: go online, then run again")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, package_index: None) -> Path:
    """The folder with wheel and sdist, the wheel made from the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT, folder=folder)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (wheel,) = built.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def sdist(built: Path) -> Path:
    """Unpacked."""
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(built / "sdist", filter="data")
    (root,) = (built / "sdist").iterdir()
    return root


def test_the_package_index_takes_them(built: Path) -> None:
    """By twine's own check of the metadata and of how the README is shown."""
    run(sys.executable, "-m", "twine", "check", "--strict", *built.glob("arroyo_sync-*"), folder=built)


def test_the_readme_of_the_wheel_stands_alone(wheel: Path) -> None:
    """Where the index shows it there are no other files, and headings have no addresses: no link leads to either."""
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        description = archive.read(metadata).decode().partition("\n\n")[2]
    assert description.startswith("# arroyo_sync\n")
    assert "```python" in description
    assert re.findall(r"\]\((?!https://)[^)]*\)", description) == []


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    """Every module of every folder, and the mark that it is typed."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == {f"arroyo_sync/{name}" for name in [*modules(ROOT / "arroyo_sync"), "py.typed"]}


def test_the_wheel_works_in_an_empty_environment(
    wheel: Path, kafka: Kafka, topic_name: Callable[..., str], tmp_path: Path
) -> None:
    """A pipeline with the testing kit; and the command, which finds a leader on a real Kafka."""
    run(sys.executable, "-m", "venv", tmp_path / "venv", folder=tmp_path)
    bin_folder = tmp_path / "venv" / "bin"
    run(bin_folder / "pip", "install", "--quiet", "--disable-pip-version-check", wheel, folder=tmp_path)
    # -I: what is imported is what was installed.
    version, released, folder = run(bin_folder / "python", "-I", "-c", PIPELINE, folder=tmp_path).split()
    assert version == wheel.name.split("-")[1]
    assert released == "2"
    assert Path(folder).is_relative_to(tmp_path / "venv")
    data, commit_log = topic_name("events"), topic_name("commits")
    for each in (data, commit_log):
        kafka.create_topic(each)
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "log_level": 0})
    key, value = encode(CommitRecord(data, 0, "writers", 7, time.time()))
    producer.produce(commit_log, value, key)
    assert producer.flush(30) == 0
    command: list[str | Path] = [bin_folder / "arroyo-sync", "groups", "--bootstrap-servers", kafka.bootstrap_servers]
    found = run(*command, "--commit-log", commit_log, "--json", folder=tmp_path)
    assert data in found
    assert "writers" in found


def test_the_sdist_holds_tests_and_examples_which_work_from_there(sdist: Path, kafka: Kafka) -> None:
    """Whoever packages it for a distribution runs the tests; here a few do, fast ones and some on a real Kafka."""
    for folder in ("arroyo_sync", "examples", "tests"):
        assert modules(sdist / folder) == modules(ROOT / folder) != set()
    production = {path.name for path in (ROOT / "examples" / "production").iterdir() if path.is_file()}
    assert production <= {path.name for path in (sdist / "examples" / "production").iterdir()}
    assert (sdist / "CHANGELOG.md").exists()
    tests = ["tests/unit/core", "tests/integration/test_admin.py"]
    output = run(
        *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests),
        folder=sdist,
        **{BOOTSTRAP_SERVERS_VARIABLE: kafka.bootstrap_servers},
    )
    assert " passed" in output
    assert " skipped" not in output
