"""A broker starts quickly from an archive of its classes, and without one where Java makes none."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.integration.cluster import class_archive
from tests.integration.cluster.cluster import run_a_broker
from tests.integration.cluster.jars import fetch, java


@pytest.fixture
def jars(tmp_path: Path) -> Path:
    """The folder of some Kafka's jars, with nothing beside it."""
    (tmp_path / "cache" / "kafka-4").mkdir(parents=True)
    return tmp_path / "cache" / "kafka-4"


@pytest.fixture
def some_java(tmp_path: Path) -> Path:
    (tmp_path / "java").touch()
    return tmp_path / "java"


def archive_in(options: list[str]) -> Path:
    return Path(options[0].removeprefix("-XX:SharedArchiveFile="))


def test_it_is_made_once_by_a_broker_that_ends(jars: Path, some_java: Path) -> None:
    """With the option by which a JVM writes it; the second broker finds it there."""
    runs = []

    def run(options: list[str]) -> None:
        runs.append(options)
        Path(options[0].removeprefix(class_archive.MAKE)).write_text("classes")

    first, second = (class_archive.options(jars, some_java, run) for _ in range(2))
    assert first == second
    assert archive_in(first).read_text() == "classes"
    assert len(runs) == 1


def test_another_java_has_another(jars: Path, some_java: Path) -> None:
    """One that was upgraded too: it couldn't use the old one's."""
    before = class_archive.options(jars, some_java, lambda options: None)
    some_java.write_text("upgraded")
    assert archive_in(class_archive.options(jars, some_java, lambda options: None)) != archive_in(before)


def test_a_java_that_makes_none_is_asked_once(jars: Path, some_java: Path) -> None:
    """An empty file stands for it, which every JVM passes over."""
    runs: list[list[str]] = []
    for _ in range(2):
        archive = archive_in(class_archive.options(jars, some_java, runs.append))
        assert archive.read_bytes() == b""
    assert len(runs) == 1


def test_a_broker_that_fails_leaves_nothing(jars: Path, some_java: Path) -> None:
    """The next process tries again."""

    def fail(options: list[str]) -> None:
        raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        class_archive.options(jars, some_java, fail)
    assert list(jars.parent.glob("*.jsa")) == []


@pytest.mark.usefixtures("kafka_cluster")
def test_the_brokers_jvm_takes_it() -> None:
    """By a JVM that must share classes (``-Xshare:on``), or ends; Kafka says how it is used."""
    jars, program = fetch(), Path(str(java()))
    options = [*class_archive.options(jars, program, run_a_broker), "-XX:+UseSerialGC", "-Xshare:on"]
    result = subprocess.run(
        [program, *options, "-cp", f"{jars}/*", "kafka.Kafka"], capture_output=True, text=True, timeout=60
    )
    assert "kafka.Kafka server.properties" in result.stdout + result.stderr
