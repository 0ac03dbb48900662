"""What can't be right, for every argument of every public constructor and function; and what becomes of it.

`tests/unit/test_hostile_arguments.py` asserts the outcomes. As a program (``python tests/support/hostile.py``) it
counts them, also for an earlier version of the package that ``PYTHONPATH`` names: what isn't there is left out.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import logging
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from arroyo.backends.abstract import Producer
from arroyo.backends.local.backend import LocalBroker, LocalProducer
from arroyo.backends.local.storages.memory import MemoryMessageStorage
from arroyo.processing.strategies.abstract import ProcessingStrategy, ProcessingStrategyFactory
from arroyo.processing.strategies.noop import Noop
from arroyo.types import Partition, Topic
from arroyo.utils.clock import MockedClock
from confluent_kafka import KafkaError
from confluent_kafka import Producer as ConfluentProducer

import arroyo_sync
from arroyo_sync.testing import ManualSource

EVENTS = Topic("events")

Make = Callable[[], object]


class _Other:
    """Nothing that anybody asked for."""


KINDS: Mapping[str, Make] = {
    "None": lambda: None,
    "bool": lambda: True,
    "text": lambda: "no",
    "empty text": lambda: "",
    "text with a control character": lambda: "a\0b",
    "text with a lone surrogate": lambda: "a\ud800",
    "bytes": lambda: b"events",
    "negative": lambda: -1,
    "zero": lambda: 0,
    "fraction": lambda: 0.5,
    "NaN": lambda: float("nan"),
    "infinity": lambda: float("inf"),
    "huge": lambda: 10**400,
    "empty list": list,
    "empty mapping": dict,
    "generator": lambda: (each for each in ["events"]),
    "another object": _Other,
    "a class": lambda: _Other,
}
"""One hostile value of each kind. Whether a kind may be right for an argument, `Target.taken` says."""

ANYTHING = frozenset(KINDS)


class Steps(ProcessingStrategyFactory[Any]):
    """The user's factory."""

    def create_with_partitions(self, commit: object, partitions: object) -> ProcessingStrategy[Any]:
        return Noop()


@dataclass(frozen=True)
class Target:
    """A constructor or function, and arguments that are right."""

    call: Callable[..., object]
    right: Callable[[], dict[str, Any]]
    """All of its arguments, with values that it takes."""
    taken: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Per argument the kinds that are rightly taken."""
    more: Mapping[str, Mapping[str, Make]] = field(default_factory=dict)
    """Per argument further values that can't be right."""
    inner: Mapping[str, tuple[str, Callable[[object], object], frozenset[str]]] = field(default_factory=dict)
    """What can be wrong within an argument: its argument, how it is made of a hostile value, and the kinds taken."""


class Case(NamedTuple):
    target: str
    argument: str
    kind: str
    arguments: Callable[[], dict[str, Any]]
    is_taken: bool

    @property
    def id(self) -> str:
        return f"{self.target} {self.argument}: {self.kind}"


def kinds(*names: str) -> frozenset[str]:
    assert set(names) <= ANYTHING, names
    return frozenset(names)


def no_commit(offsets: Mapping[Partition, int], force: bool = False) -> None:
    pass


def kafka_error() -> KafkaError:
    return KafkaError(KafkaError._TRANSPORT)


def local_producer() -> Producer[Any]:
    broker: LocalBroker[Any] = LocalBroker(MemoryMessageStorage(), MockedClock())
    return LocalProducer(broker)


def local_consumer() -> object:
    broker: LocalBroker[Any] = LocalBroker(MemoryMessageStorage(), MockedClock())
    broker.create_topic(EVENTS, 1)
    return broker.get_consumer("follower")


def snapshot() -> object:
    return arroyo_sync.Snapshot(0.0, ())


def problem() -> object:
    problems = _module("observe.problems", "problems")
    return problems.Problem(problems.ProblemKind.STALL, "it stands still")


def _takes(argument: str) -> bool:
    return argument in inspect.signature(arroyo_sync.FlowControlledConsumer).parameters


def make_manager() -> Any:
    return arroyo_sync.SynchronizedPartitionStateManager()


def _module(*names: str) -> Any:
    """The first of these modules that is there."""
    found = [name for name in names if _has_module(name)]
    return importlib.import_module(f"arroyo_sync.{found[0]}")


def _has_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(f"arroyo_sync.{name}") is not None
    except ModuleNotFoundError:  # of what it stands in
        return False


SETTINGS = {"bootstrap.servers": "127.0.0.1:1"}
CALLBACKS = ("error_cb", "stats_cb", "throttle_cb", "oauth_cb", "on_commit", "logger")
HOSTILE_SETTINGS: Mapping[str, Make] = {
    "no brokers": lambda: {"group.id": "g"},
    **{f"a text for {name}": lambda name=name: {**SETTINGS, name: "print"} for name in CALLBACKS},  # type: ignore[misc]
}
SETTING_VALUE = kinds("None", "bool", "text", "empty text", "zero", "negative", "fraction")
IN_SETTINGS = {
    "['bootstrap.servers']": ("configuration", lambda value: {"bootstrap.servers": value}, kinds("text")),
    "['client.id']": (
        "configuration",
        lambda value: {**SETTINGS, "client.id": value},
        SETTING_VALUE,
    ),
    "'s names": ("configuration", lambda value: {**SETTINGS, value: "x"}, kinds("text")),
}
IN_GROUPS = {"'s names": ("groups", lambda value: [value], kinds("text"))}
IN_TOPIC = {".name": ("topic", lambda value: Topic(value), kinds("text"))}


def named(argument: str, inner: Mapping[str, Any]) -> dict[str, Any]:
    """What can be wrong within this argument, by name."""
    return {f"{argument}{what}": (argument, make, taken) for what, (_, make, taken) in inner.items()}


def publisher_arguments() -> dict[str, Any]:
    return {
        "producer": local_producer(),
        "topic": Topic("commit-log"),
        "group": "writers",
        "interval": 0.1,
        "heartbeat": 10.0,
        "received_timestamps": None,
        "clock": lambda: 0.0,
    }


PUBLISHER_TAKEN = {
    "group": kinds("text"),
    "interval": kinds("fraction"),
    "heartbeat": kinds("fraction"),
    "received_timestamps": kinds("None"),
}
PUBLISHER_MORE: Mapping[str, Mapping[str, Make]] = {
    "producer": {"a plain confluent producer": lambda: ConfluentProducer({"log_level": 0})}
}

TARGETS: Mapping[str, Target] = {
    "HoldLimits": Target(
        lambda **arguments: arroyo_sync.HoldLimits(**arguments),
        lambda: {"messages": 10, "resume_messages": 1, "bytes": 10, "resume_bytes": 1},
        {"resume_messages": kinds("zero"), "resume_bytes": kinds("zero")},
    ),
    "SynchronizedStrategyFactory": Target(
        lambda **arguments: arroyo_sync.SynchronizedStrategyFactory(**arguments),
        lambda: {
            "factory": Steps(),
            "source": ManualSource(),
            "limits": None,
            "on_state_change": lambda *change: None,
            "slice_seconds": 0.005,
            "stop_timeout": 5.0,
            "stalled_after": 300.0,
            "on_stall": None,
            "monitor_interval": None,
            "sentry_spans": None,
            "clock": lambda: 0.0,
        },
        {
            "limits": kinds("None"),
            "slice_seconds": kinds("fraction"),
            "stop_timeout": kinds("zero", "fraction"),
            "stalled_after": kinds("fraction"),
            "on_stall": kinds("None"),
            "monitor_interval": kinds("None", "fraction"),
            "sentry_spans": kinds("None", "fraction"),
        },
        {
            "factory": {"a source": ManualSource, "a step": Noop, "its class": lambda: Steps},
            "source": {"a factory": Steps, "its class": lambda: ManualSource},
            "limits": {"a pair": lambda: (10, 5)},
            "sentry_spans": {"more than all": lambda: 1.1},
        },
    ),
    "SynchronizedStrategyFactory.flow_control": Target(
        lambda **arguments: arroyo_sync.SynchronizedStrategyFactory(
            Steps(), ManualSource(), monitor_interval=None
        ).flow_control(**arguments),
        lambda: {"consumer": local_consumer()},
        more={"consumer": {"a confluent client": lambda: ConfluentProducer({"log_level": 0})}},
    ),
    "SynchronizedStrategyFactory.consumer": Target(
        lambda **arguments: (
            arroyo_sync.SynchronizedStrategyFactory(Steps(), ManualSource(), monitor_interval=None)
            .consumer(**arguments)
            .close()
        ),
        lambda: {"configuration": {**SETTINGS, "group.id": "follower"}},
        more={"configuration": HOSTILE_SETTINGS},
    ),
    "SynchronizedStrategy": Target(
        lambda **arguments: arroyo_sync.SynchronizedStrategy(**arguments),
        lambda: {
            "next_step": Noop(),
            "manager": make_manager(),
            "source": ManualSource(),
            "positions": {Partition(EVENTS, 0): 0},
            "limits": None,
            "slice_seconds": 0.005,
            "poll_interval_seconds": 0.0,
            "watermarks": None,
            "clock": lambda: 0.0,
        },
        {
            "positions": kinds("empty mapping"),
            "limits": kinds("None"),
            "slice_seconds": kinds("fraction"),
            "poll_interval_seconds": kinds("zero", "fraction"),
            "watermarks": kinds("None"),
        },
        {"next_step": {"a factory": Steps}, "source": {"a factory": Steps}},
        {
            "positions's keys": ("positions", lambda value: {value: 0}, kinds()),
            "positions's values": ("positions", lambda value: {Partition(EVENTS, 0): value}, kinds("zero")),
        },
    ),
    "FlowControlledConsumer": Target(
        lambda **arguments: arroyo_sync.FlowControlledConsumer(**arguments),
        lambda: {
            "inner": local_consumer(),
            "manager": make_manager(),
            "check_source": lambda: None,
            "slice_seconds": 0.005,
            "rejected_wait_seconds": 0.01,
            **{name: None for name in ("on_close", "before_close", "after_close") if _takes(name)},
        },
        {
            "slice_seconds": kinds("fraction"),
            "rejected_wait_seconds": kinds("fraction"),
            "on_close": kinds("None"),
            "before_close": kinds("None"),
            "after_close": kinds("None"),
        },
    ),
    "SynchronizedPartitionStateManager": Target(
        lambda **arguments: arroyo_sync.SynchronizedPartitionStateManager(**arguments),
        lambda: {"callback": lambda *change: None},
    ),
    "SynchronizedPartitionStateManager.set_local_offset": Target(
        lambda **arguments: make_manager().set_local_offset(**arguments),
        lambda: {"topic": "events", "partition": 0, "local_offset": 1},
        {"topic": kinds("text"), "partition": kinds("zero"), "local_offset": kinds("None", "zero")},
    ),
    "SynchronizedPartitionStateManager.set_remote_offset": Target(
        lambda **arguments: make_manager().set_remote_offset(**arguments),
        lambda: {"topic": "events", "partition": 0, "remote_offset": 1},
        {"topic": kinds("text"), "partition": kinds("zero"), "remote_offset": kinds("None", "zero")},
    ),
    "CommitLogConsumer": Target(
        lambda **arguments: arroyo_sync.CommitLogConsumer(**arguments),
        lambda: {
            "configuration": SETTINGS,
            "topic": Topic("commit-log"),
            "groups": ["writers"],
            "start": "all",
            "lookback_seconds": 600.0,
            "data_configuration": None,
            "wait_for_topic": False,
            "connect_timeout": 30.0,
            "clock": lambda: 0.0,
            "wall_clock": lambda: 0.0,
        },
        {
            "lookback_seconds": kinds("fraction"),
            "data_configuration": kinds("None"),
            "wait_for_topic": kinds("bool"),
            "connect_timeout": kinds("fraction"),
        },
        {
            "configuration": HOSTILE_SETTINGS,
            "data_configuration": HOSTILE_SETTINGS,
            "topic": {"its name": lambda: "commit-log"},
            "groups": {"a mapping": lambda: {"writers": 1}},
        },
        {
            **named("configuration", IN_SETTINGS),
            **named("data_configuration", IN_SETTINGS),
            **named("groups", IN_GROUPS),
            **named("topic", IN_TOPIC),
        },
    ),
    "CommitLogConsumer.wait_until_ready": Target(
        lambda **arguments: _not_ready(
            arroyo_sync.CommitLogConsumer(SETTINGS, topic=Topic("commit-log"), groups=["writers"]), **arguments
        ),
        lambda: {"timeout": 0.0},
        {"timeout": kinds("zero", "fraction")},
    ),
    "GroupOffsetsSource": Target(
        lambda **arguments: arroyo_sync.GroupOffsetsSource(**arguments),
        lambda: {
            "configuration": SETTINGS,
            "groups": ["writers"],
            "interval_seconds": 0.5,
            "connect_timeout": 30.0,
            "clock": lambda: 0.0,
        },
        {"interval_seconds": kinds("fraction"), "connect_timeout": kinds("fraction")},
        {"configuration": HOSTILE_SETTINGS},
        {**named("configuration", IN_SETTINGS), **named("groups", IN_GROUPS)},
    ),
    "PublishCommitLog": Target(
        lambda **arguments: arroyo_sync.PublishCommitLog(**arguments),
        lambda: {"commit": no_commit, **publisher_arguments()},
        PUBLISHER_TAKEN,
        PUBLISHER_MORE,
        named("topic", IN_TOPIC),
    ),
    "CommitLogPublisher": Target(
        lambda **arguments: arroyo_sync.CommitLogPublisher(**arguments),
        lambda: {**publisher_arguments(), "data_configuration": None},
        {**PUBLISHER_TAKEN, "data_configuration": kinds("None")},
        {**PUBLISHER_MORE, "data_configuration": HOSTILE_SETTINGS},
        {**named("topic", IN_TOPIC), **named("data_configuration", IN_SETTINGS)},
    ),
    "CommitLogPublisher.step": Target(
        lambda **arguments: arroyo_sync.CommitLogPublisher(**publisher_arguments()).step(**arguments),
        lambda: {"commit": no_commit, "partitions": {}},
        {"partitions": kinds("empty mapping")},
        inner={
            "partitions's keys": ("partitions", lambda value: {value: 0}, kinds()),
            "partitions's values": ("partitions", lambda value: {Partition(EVENTS, 0): value}, kinds("zero")),
        },
    ),
    "raise_if_refused": Target(
        lambda **arguments: arroyo_sync.raise_if_refused(**arguments), lambda: {"error": kafka_error()}
    ),
    "log_if_refused": Target(
        lambda **arguments: arroyo_sync.log_if_refused(**arguments), lambda: {"error": kafka_error()}
    ),
    "testing.ManualSource.set_remote_offset": Target(
        lambda **arguments: ManualSource().set_remote_offset(**arguments),
        lambda: {"topic": "events", "partition": 0, "remote_offset": 1},
        {"topic": kinds("text"), "partition": kinds("zero"), "remote_offset": kinds("None", "zero")},
    ),
    "testing.ManualSource.start": Target(
        lambda **arguments: ManualSource().start(**arguments), lambda: {"manager": make_manager()}
    ),
    "testing.ManualSource.die": Target(
        lambda **arguments: ManualSource().die(**arguments), lambda: {"cause": RuntimeError("gone")}
    ),
    "sentry.SentryMetrics": Target(
        lambda **arguments: _module("sentry").SentryMetrics(**arguments),
        lambda: {"tags": None},
        {"tags": kinds("None", "empty mapping")},
        inner={
            "tags's names": ("tags", lambda value: {value: "x"}, kinds("text")),
            "tags's values": ("tags", lambda value: {"x": value}, kinds("text", "empty text")),
        },
    ),
    "sentry.ProcessSpans": Target(
        lambda **arguments: _module("sentry", "sentry_spans").ProcessSpans(**arguments),
        lambda: {"next_step": Noop(), "sample_rate": 0.5, "hold_seconds": lambda partition, offset: 0.0},
        {"sample_rate": kinds("fraction")},
        {"next_step": {"a factory": Steps}},
    ),
    "sentry.PublishSpans": Target(
        lambda **arguments: _module("sentry", "sentry_spans").PublishSpans(**arguments),
        lambda: {"producer": local_producer(), "sample_rate": 0.5},
        {"sample_rate": kinds("fraction")},
        PUBLISHER_MORE,
    ),
    "sentry.capture_problem": Target(
        lambda **arguments: _module("sentry").capture_problem(**arguments),
        lambda: {"problem": problem(), "snapshot": snapshot()},
    ),
    "HealthcheckUnlessStalled": Target(
        lambda **arguments: _module("observe.healthcheck", "healthcheck").HealthcheckUnlessStalled(**arguments),
        lambda: {"healthcheck_file": "/tmp/health", "next_step": Noop(), "stalls": lambda: ()},
        {"healthcheck_file": kinds("text")},
        {"next_step": {"a factory": Steps}},
    ),
}
"""Everything that a user constructs or calls with arguments of their own, by its public name."""

MADE_BY_THE_PACKAGE = {
    "METRICS",
    "MetricDef",
    "SourceStatistics",
    "WaitsFor",
    "__version__",
    "LeaderSnapshot",
    "PartitionSnapshot",
    "Snapshot",
    "Stall",
    "Offsets",
    "SynchronizedPartitionState",
    "HighWatermarks",
    "RemoteOffsetSource",
    "tune_interpreter",
    "keep_secrets",
    "RecordingStep",
}
"""Public names without arguments to check: values and errors that the package makes, contracts, and what takes none."""


def _not_ready(source: Any, timeout: float) -> None:
    with contextlib.suppress(arroyo_sync.NotReady):
        source.wait_until_ready(timeout)


def cases() -> Iterator[Case]:
    """Each hostile value of each argument."""
    for name, target in TARGETS.items():
        if not _is_there(name):
            continue
        for argument in target.right():
            for kind, make in {**KINDS, **target.more.get(argument, {})}.items():
                yield Case(name, argument, kind, _with(target, argument, make), kind in target.taken.get(argument, ()))
        for what, (argument, wrap, taken) in target.inner.items():
            for kind, make in KINDS.items():
                try:
                    wrap(make())
                except TypeError:  # Python itself lets nobody make this: it isn't hashable
                    continue
                yield Case(name, what, kind, _with(target, argument, _within(wrap, make)), kind in taken)


def _is_there(name: str) -> bool:
    """Whether this version of the package has it."""
    first = name.partition(".")[0]
    return first in ("testing", "sentry", "HealthcheckUnlessStalled") or hasattr(arroyo_sync, first)


def _within(wrap: Callable[[object], object], make: Make) -> Make:
    return lambda: wrap(make())


def _with(target: Target, argument: str, make: Make) -> Callable[[], dict[str, Any]]:
    return lambda: {**target.right(), argument: make()}


class Outcome(NamedTuple):
    what: str
    """"clear", "raw", "taken" or "hangs"."""
    error: BaseException | None = None


def outcome_of(case: Case) -> Outcome:
    """What becomes of it. An error is clear if it is ours and names the argument."""
    arguments = case.arguments()
    signal.setitimer(signal.ITIMER_REAL, PATIENCE_SECONDS)
    try:
        TARGETS[case.target].call(**arguments)
    except arroyo_sync.ArroyoSyncError as error:
        return Outcome("clear", error)
    except _Hangs:
        return Outcome("hangs")
    except Exception as error:
        return Outcome("raw", error)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
    return Outcome("taken")


PATIENCE_SECONDS = 5.0


class _Hangs(BaseException):
    pass


def hang(number: int, frame: object) -> None:
    raise _Hangs


def main() -> None:
    """Count."""
    logging.disable()
    signal.signal(signal.SIGALRM, hang)
    counts: Counter[str] = Counter()
    for case in cases():
        what, error = outcome_of(case)
        if case.is_taken != (what == "taken"):
            what = {"taken": "taken wrongly", "clear": "refused wrongly"}.get(what, what)
            print(f"{case.id}: {what} {error!r}"[:160].encode("ascii", "backslashreplace").decode())
        counts[what] += 1
    print(f"{sum(counts.values())} values: {dict(sorted(counts.items()))}, from {arroyo_sync.__file__}")


if __name__ == "__main__":
    main()
