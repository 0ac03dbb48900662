"""Fixtures that every test may use: a real Kafka, shared or one's own."""

from __future__ import annotations

import importlib
import os
import signal
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from arroyo_sync.kafka import error_callbacks
from arroyo_sync.kafka.errors import LoginRefusals
from tests.integration.cluster.admin import Kafka
from tests.integration.cluster.cluster import NEVER_MISSED, KafkaCluster
from tests.integration.cluster.jars import what_to_install
from tests.support import sabotage
from tests.support.requirements import lacking

BOOTSTRAP_SERVERS_VARIABLE = "ARROYO_SYNC_TEST_BOOTSTRAP_SERVERS"


sabotage.apply_from_environment()  # to see that some test finds it: `tests.chaos.old_behaviour`

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's background job begins so, and what the tests start would inherit it: Ctrl-C would end none of them.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Two workers a core for a whole run, since most tests wait; none for a file or ``-k``, which is done sooner."""
    if config.option.file_or_dir or config.option.keyword:
        return 0
    return 2 * (os.cpu_count() or 1)


LONG_FILES = (
    "tests/unit/test_quickstart.py",
    "tests/unit/test_examples.py",
    "tests/unit/test_stored_first.py",
    "tests/properties/test_follower.py",
    "tests/integration/test_packages.py",
    "tests/model/test_two_partitions.py",
)
"""They begin in this order. A file's tests stay on one worker: begun last, a long one keeps the others waiting."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """In a checkout that is new, of a whole run: each worker begins with other files.

    In each file pytest rewrites the assertions, which takes twice as long as all else of collecting, and keeps the
    result for whoever comes later. Workers that begin with the same file all do it.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is None or session.config.option.file_or_dir:
        return
    root = Path(__file__).parents[1]
    files = sorted(Path(__file__).parent.rglob("test_*.py"))
    for file in files[int(worker.removeprefix("gw")) :: int(os.environ["PYTEST_XDIST_WORKER_COUNT"])]:
        with suppress(Exception):  # it is collected later, and then its error is told
            importlib.import_module(".".join(file.relative_to(root).with_suffix("").parts))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a real Kafka, so that ``-m "not kafka"`` runs the rest; and begin with the longest files."""
    places = {file: place for place, file in enumerate(LONG_FILES)}
    items.sort(key=lambda item: places.get(item.location[0], len(places)))
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        if {"kafka", "kafka_cluster", "java_and_maven"} & fixtures:
            item.add_marker(pytest.mark.kafka)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """At the end, whatever process ran the tests: how far the model was explored, and what was skipped and why."""
    passed = terminalreporter.getreports("passed")
    explored = [text for report in passed for name, text in report.user_properties if name == "explored"]
    if explored:
        terminalreporter.section("the model")
        for text in explored:
            terminalreporter.line(text)
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in terminalreporter.getreports("skipped"))
    if reasons:
        terminalreporter.section("not run")
        for reason, count in reasons.most_common():
            terminalreporter.line(f"{count} test{'s' * (count > 1)}: {reason}")


@pytest.fixture(scope="session")
def java_and_maven() -> None:
    """For whoever starts a cluster by `KafkaCluster` itself: skips where that can't be."""
    missing = what_to_install()
    if missing is not None:
        lacking(missing)


@pytest.fixture(scope="session")
def kafka(request: pytest.FixtureRequest) -> Iterator[Kafka]:
    """A Kafka that all tests share, so each must use topics and groups of its own (see `topic_name`).

    It is one broker of ours, or the cluster that ``ARROYO_SYNC_TEST_BOOTSTRAP_SERVERS`` names.
    """
    standing = os.environ.get(BOOTSTRAP_SERVERS_VARIABLE)
    if standing:
        yield Kafka(standing)
        return
    request.getfixturevalue("java_and_maven")
    with KafkaCluster(properties=NEVER_MISSED) as cluster:
        yield cluster


@pytest.fixture
def kafka_cluster(java_and_maven: None) -> Iterator[Callable[..., KafkaCluster]]:
    """Starts a cluster of the test's own, which it may stop, kill and pause. The arguments are `KafkaCluster`'s."""
    with ExitStack() as stack:

        def start(*args: Any, **kwargs: Any) -> KafkaCluster:
            return stack.enter_context(KafkaCluster(*args, **kwargs))

        yield start


@pytest.fixture(autouse=True)
def first_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test is in the first minute of its process, in which a login that is refused is refused for good."""
    monkeypatch.setattr(error_callbacks, "_logins", LoginRefusals())


@pytest.fixture
def topic_name() -> Callable[..., str]:
    """Makes a name that no other test has, for a topic or a group: ``topic_name("events")``."""
    return lambda prefix="topic": f"{prefix}-{uuid.uuid4().hex[:12]}"
