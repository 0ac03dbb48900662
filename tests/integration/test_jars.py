"""What a machine without Java, Maven or jars gets to hear, and how the jars come."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import BOOTSTRAP_SERVERS_VARIABLE
from tests.integration.cluster import jars
from tests.integration.cluster.admin import Kafka

A_TEST_ON_KAFKA = "tests/integration/test_admin.py::TestTopics::test_a_created_topic_can_be_used_at_once"
CHECKOUT = Path(__file__).parents[2]


def run_a_test_on_kafka(tmp_path: Path, **environment: str) -> str:
    """Pytest's output on a machine that has neither Java nor Maven, and has never fetched the jars."""
    ours = ("CI", "JAVA_HOME", "PYTEST_ADDOPTS", BOOTSTRAP_SERVERS_VARIABLE)
    bare = {key: value for key, value in os.environ.items() if key not in ours}
    pytest_run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", A_TEST_ON_KAFKA],
        cwd=CHECKOUT,
        env={**bare, "PATH": str(tmp_path), jars.CACHE_VARIABLE: str(tmp_path), **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        timeout=120,
    )
    return pytest_run.stdout


@pytest.fixture
def empty_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is all of ``PATH`` and the cache."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv(jars.CACHE_VARIABLE, str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    return tmp_path


def write_program(path: Path, script: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


class TestWhatToInstall:
    def test_it_names_all_that_is_missing_in_one_line(self, empty_machine: Path) -> None:
        """With neither Java nor Maven, both are named."""
        missing = jars.what_to_install()
        assert missing is not None
        assert "Java" in missing
        assert "Maven" in missing
        assert "\n" not in missing

    def test_java_may_be_named_by_java_home(self, empty_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A Java that is not on the path will do, if ``JAVA_HOME`` tells where it is."""
        write_program(empty_machine / "jdk" / "bin" / "java", "")
        monkeypatch.setenv("JAVA_HOME", str(empty_machine / "jdk"))
        missing = jars.what_to_install()
        assert missing is not None
        assert "Java" not in missing

    def test_maven_is_not_needed_once_the_jars_are_there(self, empty_machine: Path) -> None:
        """Only the fetching needs it."""
        write_program(empty_machine / "java", "")
        assert "Maven" in str(jars.what_to_install())
        jars.folder().mkdir(parents=True)
        assert jars.what_to_install() is None


class TestVersion:
    def test_the_variable_chooses_another_kafka(self, empty_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its jars lie in a folder of their own, and Maven is told."""
        monkeypatch.delenv(jars.VERSION_VARIABLE, raising=False)
        usual = jars.folder()
        monkeypatch.setenv(jars.VERSION_VARIABLE, "3.6.2")
        write_program(
            empty_machine / "mvn", 'for each; do :; done\n/bin/mkdir "${each#*=}"\necho "$@" > "${each#*=}/arguments"'
        )
        folder = jars.fetch()
        assert folder != usual
        assert folder.name.startswith("kafka-3.6.2-")
        assert "-Dkafka.version=3.6.2" in (folder / "arguments").read_text().split()

    def test_what_is_no_version_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Before Maven is asked for it."""
        monkeypatch.setenv(jars.VERSION_VARIABLE, "latest")
        with pytest.raises(ValueError, match="ARROYO_SYNC_KAFKA_VERSION='latest': give a version"):
            jars.version()


class TestFetch:
    def test_the_folder_appears_complete_or_not_at_all(self, empty_machine: Path) -> None:
        """A Maven that fails midway leaves nothing that looks like a cache; its words are in the error."""
        write_program(
            empty_machine / "mvn", 'for each; do :; done\n/bin/mkdir "${each#*=}"\necho no such repository\nexit 1'
        )
        with pytest.raises(RuntimeError, match="no such repository"):
            jars.fetch()
        assert [each.name for each in empty_machine.iterdir()] == ["mvn"]

    def test_they_are_fetched_once(self, empty_machine: Path) -> None:
        """The second call finds what the first has fetched."""
        fetch_a_jar = 'for each; do :; done\n/bin/mkdir "${each#*=}"\necho jar > "${each#*=}/kafka.jar"'
        write_program(empty_machine / "mvn", fetch_a_jar)
        folder = jars.fetch()
        assert [each.name for each in folder.iterdir()] == ["kafka.jar"]
        (empty_machine / "mvn").unlink()
        assert jars.fetch() == folder


class TestWithoutJava:
    def test_real_kafka_tests_skip_and_say_what_to_install(self, tmp_path: Path) -> None:
        """On a contributor's machine the rest of the tests is worth running."""
        output = run_a_test_on_kafka(tmp_path)
        assert re.search(r"SKIPPED.*install", output), output
        assert "1 skipped" in output

    def test_real_kafka_tests_fail_in_ci(self, tmp_path: Path) -> None:
        """Where everything must be installed, a skip would hide that nothing was tested."""
        output = run_a_test_on_kafka(tmp_path, CI="true")
        assert re.search(r"(?m)^(E +)?a real Kafka needs Java.*install", output), output
        assert "1 error" in output

    def test_a_standing_cluster_needs_no_java(self, tmp_path: Path, kafka: Kafka) -> None:
        """The variable points the shared Kafka at a cluster that runs already."""
        output = run_a_test_on_kafka(tmp_path, **{BOOTSTRAP_SERVERS_VARIABLE: kafka.bootstrap_servers})
        assert "1 passed" in output, output
