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


def run_tests(path: Path, *arguments: str, **environment: str) -> str:
    """Pytest's output on a machine that has no programs but those in ``path``, and has never fetched the jars."""
    ours = ("CI", "JAVA_HOME", "PYTEST_ADDOPTS", BOOTSTRAP_SERVERS_VARIABLE)
    bare = {key: value for key, value in os.environ.items() if key not in ours}
    pytest_run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
        cwd=CHECKOUT,
        env={**bare, "PATH": str(path), jars.CACHE_VARIABLE: str(path), **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        timeout=240,
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
        assert {each.name for each in empty_machine.iterdir()} == {"mvn", f"{jars.folder().name}.lock"}

    def test_they_are_fetched_once(self, empty_machine: Path) -> None:
        """The second call finds what the first has fetched."""
        fetch_a_jar = 'for each; do :; done\n/bin/mkdir "${each#*=}"\necho jar > "${each#*=}/kafka.jar"'
        write_program(empty_machine / "mvn", fetch_a_jar)
        folder = jars.fetch()
        assert [each.name for each in folder.iterdir()] == ["kafka.jar"]
        (empty_machine / "mvn").unlink()
        assert jars.fetch() == folder


class TestWhatIsMissing:
    def test_real_kafka_tests_fail_in_ci(self, tmp_path: Path) -> None:
        """Where everything must be installed, a skip would hide that nothing was tested."""
        output = run_tests(tmp_path, A_TEST_ON_KAFKA, CI="true")
        assert re.search(r"(?m)^(E +)?a real Kafka needs Java.*install", output), output
        assert "1 error" in output

    def test_a_standing_cluster_needs_no_java(self, tmp_path: Path, kafka: Kafka) -> None:
        """The variable points the shared Kafka at a cluster that runs already."""
        output = run_tests(tmp_path, A_TEST_ON_KAFKA, **{BOOTSTRAP_SERVERS_VARIABLE: kafka.bootstrap_servers})
        assert "1 passed" in output, output

    def test_all_that_needs_a_program_or_the_network_is_skipped_and_listed_at_the_end(self, tmp_path: Path) -> None:
        """One of each kind, with what to install, though several processes run the tests."""
        output = run_tests(
            tmp_path,
            *("-n", "2", A_TEST_ON_KAFKA),
            "tests/integration/test_cluster.py",  # clusters of the tests' own
            "tests/integration/test_reader_failures.py",  # and one of a module's
            "tests/integration/test_security.py",
            "tests/integration/test_packages.py",
            "tests/unit/test_production.py",
            *(
                "-k",
                "created_topic or taken_port or comes_back or is_told or password or wheel or promtool or prometheus",
            ),
            PIP_INDEX_URL="http://127.0.0.1:9/simple",
        )
        told = output.partition(" not run ")[2]
        for pattern in (
            r"(?m)^\d+ tests: a real Kafka needs Java.* and Maven.*: install it, then run again$",
            r"(?m)^\d+ tests: .* a package index that pip reaches: go online, then run again$",
            r"(?m)^\d+ tests: .* needs promtool \(Debian: prometheus\): install it, then run again$",
            r"\d skipped",
        ):
            assert re.search(pattern, told), output
        assert re.search(r"failed|error", told) is None, output

    def test_what_java_alone_does_not_do_is_skipped_too(self, tmp_path: Path) -> None:
        """Certificates are made by ``openssl``."""
        for name in ("java", "mvn"):
            write_program(tmp_path / name, "")
        output = run_tests(tmp_path, "tests/integration/test_security.py")
        assert re.search(r"(?m)^\d+ tests: .* needs openssl \(Debian: openssl\): install it", output), output
        assert re.search(r"\d failed|\d error|\d passed", output) is None, output
