"""Against the real SDK, with its default integrations; only the transport is ours, and keeps the envelopes."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace

import pytest
import sentry_sdk

from arroyo_sync.core.errors import FollowerStalled, PartitionTruncated, SourceDied, TopicRecreated
from arroyo_sync.core.log_throttle import TOLD_BY_MONITOR, mark_told
from arroyo_sync.core.source import SourceStatistics
from arroyo_sync.observe.metrics import GATED_LAG, PAUSES, RELEASE_LATENCY
from arroyo_sync.observe.metrics_reporter import send
from arroyo_sync.observe.problems import Problem, ProblemKind
from arroyo_sync.observe.snapshot import LeaderSnapshot, PartitionSnapshot, Snapshot
from arroyo_sync.observe.stalls import WaitsFor
from arroyo_sync.sentry import keep_secrets
from arroyo_sync.sentry.events import SHOWN_PARTITIONS, capture_problem, tell_ends_once
from arroyo_sync.sentry.metrics import SentryMetrics
from tests.support.sentry_transport import CatchingTransport, sentry


@pytest.fixture
def transport() -> Iterator[CatchingTransport]:
    with sentry() as transport:
        yield transport


def partition(index: int) -> PartitionSnapshot:
    leaders = (LeaderSnapshot("writers", 30), LeaderSnapshot("indexers", 90))
    return PartitionSnapshot("events", index, 10, 30, high_watermark=100, leaders=leaders, held_messages=4)


SNAPSHOT = Snapshot(
    1700000000.0, tuple(partition(index) for index in range(20)), SourceStatistics(True, True, malformed={"key": 3})
)
STALL = Problem(ProblemKind.STALL, "events[3] has stood still for 300 s", "events", (3, 5), "writers")


@pytest.mark.parametrize(
    ("metric", "tag_values", "kind", "unit"),
    [
        (PAUSES, (), "counter", None),
        (GATED_LAG, ("events", 3), "gauge", "message"),
        (RELEASE_LATENCY, (), "distribution", "millisecond"),
    ],
    ids=["counter", "gauge", "timing"],
)
def test_metrics_reach_sentry_with_kind_unit_and_tags(
    transport: CatchingTransport, metric: object, tag_values: tuple[object, ...], kind: str, unit: str | None
) -> None:
    """As `sentry_sdk.metrics` has them; tags are attributes, ours and those of the backend."""
    send(SentryMetrics({"follower": "forwarder"}), metric, 7, *tag_values)  # type: ignore[arg-type]
    (sent,) = transport.metrics
    assert (sent["type"], sent["value"], sent.get("unit")) == (kind, 7.0, unit)
    attributes = {name: each["value"] for name, each in sent["attributes"].items()}
    assert attributes["follower"] == "forwarder"
    if tag_values:
        assert (attributes["topic"], attributes["partition"]) == ("events", "3")


def test_arroyos_own_latency_gets_its_unit(transport: CatchingTransport) -> None:
    """The backend serves all of Arroyo's metrics: units are given where Arroyo says them."""
    backend = SentryMetrics()
    backend.timing("arroyo.consumer.latency", 1.5)
    backend.timing("arroyo.consumer.poll.time", 1.5)
    assert [each.get("unit") for each in transport.metrics] == ["second", None]


def test_an_event_says_what_where_and_for_whom(transport: CatchingTransport) -> None:
    """Tags to search for, and one issue for each cause: kind, topic and group are the fingerprint."""
    capture_problem(STALL, SNAPSHOT)
    (event,) = transport.events
    assert event["message"] == STALL.message
    assert event["level"] == "error"
    assert event["fingerprint"] == ["arroyo_sync", "stall", "events", "writers"]
    assert event["tags"] == {"arroyo_sync": "stall", "topic": "events", "partition": "3", "group": "writers"}


@pytest.mark.parametrize(
    ("waits_for", "end"), [(WaitsFor.FOLLOWER, []), (WaitsFor.LEADER, ["unconfirmed"])], ids=lambda each: str(each)
)
def test_a_slow_follower_and_reports_to_be_confirmed_are_two_issues(
    transport: CatchingTransport, waits_for: WaitsFor, end: list[str]
) -> None:
    """Neither is a group's, and each asks for something else."""
    capture_problem(replace(STALL, group=None, waits_for=waits_for), SNAPSHOT)
    (event,) = transport.events
    assert event["fingerprint"] == ["arroyo_sync", "stall", "events", "", *end]


def test_an_event_of_thousands_of_partitions_describes_those_that_it_shows(
    transport: CatchingTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There may be one for each of fifty groups, in a row, and each took a second of the interpreter."""
    described: list[int] = []
    to_json = PartitionSnapshot.to_json

    def note(partition: PartitionSnapshot) -> object:
        described.append(partition.partition)
        return to_json(partition)

    monkeypatch.setattr(PartitionSnapshot, "to_json", note)
    everything = Snapshot(1.0, tuple(partition(index) for index in range(1_000)))
    capture_problem(Problem(ProblemKind.STALL, "it stands", "events", tuple(range(500, 1_000)), "writers"), everything)
    (event,) = transport.events
    assert event["contexts"]["arroyo_sync"]["partitions_concerned"] == 500
    assert described == list(range(500, 500 + SHOWN_PARTITIONS))


def test_an_event_holds_the_snapshot_of_the_partitions_concerned(transport: CatchingTransport) -> None:
    """Nothing of it is cut off by the SDK."""
    capture_problem(STALL, SNAPSHOT)
    context = transport.events[0]["contexts"]["arroyo_sync"]
    assert context["partitions"] == {"events[3]": partition(3).to_json(), "events[5]": partition(5).to_json()}
    assert context["partitions_assigned"] == 20
    assert context["source"]["malformed"] == {"key": 3}


def test_an_event_about_everything_shows_some_partitions_and_says_how_many_there_are(
    transport: CatchingTransport,
) -> None:
    """A follower of a thousand partitions makes no event of a megabyte."""
    capture_problem(Problem(ProblemKind.SOURCE_DIED, "it died"), SNAPSHOT)
    (event,) = transport.events
    assert event["fingerprint"] == ["arroyo_sync", "source-died", "", ""]
    assert event["tags"] == {"arroyo_sync": "source-died"}
    assert len(event["contexts"]["arroyo_sync"]["partitions"]) == SHOWN_PARTITIONS
    assert event["contexts"]["arroyo_sync"]["partitions_concerned"] == 20


def test_nothing_happens_while_sentry_is_not_initialised() -> None:
    """No error, and nothing is kept for later."""
    capture_problem(STALL, SNAPSHOT)
    send(SentryMetrics(), PAUSES, 1)
    with sentry() as transport:
        assert transport.events == []
        assert transport.metrics == []


SECRET = "-".join(["correct", "horse"])  # spelled so, since events also show the lines of source


def fail_with(configuration: dict[str, str]) -> None:
    settings = {**configuration, "client.id": "me"}
    deeper = [{"one": {"two": {"three": {"four": {"five": settings}}}}}]
    raise RuntimeError(f"can't connect with {len(settings) + len(deeper)}")


def test_no_event_shows_a_password_of_a_tracebacks_variables(transport: CatchingTransport) -> None:
    """The SDK sends local variables, and filters only names that are nothing but "password"."""
    keep_secrets()
    try:
        fail_with({"sasl.username": "me", "sasl.password": SECRET})
    except RuntimeError:
        sentry_sdk.capture_exception()
        logging.getLogger("user").exception("it failed")
    assert "sasl.username" in transport.everything
    assert SECRET not in transport.everything
    assert len(transport.events) >= 1


ENDS = [
    SourceDied("the commit log is gone"),
    FollowerStalled("events[3] stands still"),
    TopicRecreated("events", "earlier", "later"),
    PartitionTruncated("events", {3: 5}, {3: 7}),
]


def log_end(error: Exception, by_monitor: dict[str, bool] | None) -> None:
    """What the source, the gate, Arroyo and its runner make of the end of a follower."""
    logging.getLogger("arroyo_sync").error("it has ended: %s", "gone", extra=by_monitor)
    logging.getLogger("arroyo_sync").error("while it ended: %s", error)
    try:
        raise error
    except Exception:
        logging.getLogger("arroyo").exception("Caught exception, shutting down...")
        sentry_sdk.capture_exception()


@pytest.mark.parametrize("error", ENDS, ids=lambda error: type(error).__name__)
def test_an_end_that_the_monitor_tells_of_is_one_event(transport: CatchingTransport, error: Exception) -> None:
    """Ours, with the snapshot; not the reader's line, nor the gate's, nor the exception that Arroyo logs."""
    tell_ends_once()
    tell_ends_once()
    mark_told(error)
    log_end(error, {TOLD_BY_MONITOR: True})
    capture_problem(Problem(ProblemKind.SOURCE_DIED, "it died"), SNAPSHOT)
    logging.getLogger("user").error("something else: %s", "broken")
    assert [event.get("message") or event["logentry"]["message"] for event in transport.events] == [
        "it died",
        "something else: %s",
    ]


@pytest.mark.parametrize("end", [SourceDied("gone"), FollowerStalled("events[3] stands still")], ids=repr)
def test_an_end_that_no_monitor_tells_of_is_left_to_the_sdk(transport: CatchingTransport, end: Exception) -> None:
    """Of a follower without one, beside one that has it. (The runner's is Arroyo's: the SDK sees to that.)"""
    tell_ends_once()
    log_end(end, None)
    assert [event["logentry"]["message"] for event in transport.events] == [
        "it has ended: %s",
        "while it ended: %s",
        "Caught exception, shutting down...",
    ]


def test_keeping_secrets_twice_filters_once() -> None:
    """Every factory asks for it."""
    keep_secrets()
    before = len(sentry_sdk.scope.global_event_processors)
    keep_secrets()
    assert len(sentry_sdk.scope.global_event_processors) == before
