"""``restart``: for how long nothing comes of a partition when the group's members change, while messages keep coming.

Three events, one after the other in the same run: the only member is stopped and started anew; another one joins; that
one is killed, and missed after a session timeout of 6 s. The longest time between two deliveries of the same partition
counts, by whichever member; in the worst partition. Python's start is part of a restart, for every contender. The one
without a gate imports this package as well; what that takes is measured by itself.

The commit log holds a million records of the day before, about the partitions that are read. The peer knows no KIP-848,
and takes part in the first round alone: it needs half a minute to read them.
Members beat every half second, so that it isn't chance that decides when one hears of a rebalance.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from confluent_kafka import Producer

from tests.benchmarks import commit_records
from tests.benchmarks.bench import CONSUMER_SETTINGS, LEADER_GROUP, UNGATED, Bench, Contender, Feeder
from tests.benchmarks.numbers import IntArray, greatest, summarise
from tests.benchmarks.processes import STOP_SECONDS, ProgramFailed
from tests.benchmarks.promises import Deliveries, broken_by_members

PARTITIONS = 4
LOG_PARTITIONS = 1
GROUPS = (LEADER_GROUP, "other", "third")
RATE = 400
INTERVAL_SECONDS = 0.020
LOADED = 1_000
"""Messages of each partition that were there before, and of which the commit log speaks."""
DAY_SECONDS = 24 * 3600.0
CAPACITY = 500_000
LATEST_SECONDS = 90.0
"""How long to wait until messages flow again."""
SETTLE_SECONDS = 1.0
"""From when the members have their partitions, or one was killed: until then what flows may flow from before."""
FLOWING_SECONDS = 0.5
"""Messages flow where each partition had one within this time."""
STOP_TOLD_SECONDS = 600.0

PROTOCOLS: dict[str, dict[str, Any]] = {
    "eager": {"session.timeout.ms": 6_000, "heartbeat.interval.ms": 500},
    # The broker says how often members beat, and after how long one is missed: 0.3 s and 6 s.
    "KIP-848": {"group.protocol": "consumer"},
}
RESTART, JOIN, KILL = "clean restart", "a member joins", "a member is killed"


class Case(NamedTuple):
    """One contender under one protocol."""

    contender: str
    protocol: str
    start: str = "all"

    @property
    def label(self) -> str:
        return f"{self.contender}, {self.start}" if self.contender == "gated" else self.contender

    @property
    def is_gated(self) -> bool:
        """Whether it is this project's gate, whose silence is held against bare's."""
        return self.contender in ("gated", "plain")


BARE, RECENT = Case("bare", "eager"), Case("gated", "eager", "recent")
ALL_OF_EAGER = [BARE, Case("gated", "eager"), RECENT, Case("plain", "eager"), Case("peer", "eager")]
ALL_OF_KIP848 = [Case("bare", "KIP-848"), Case("gated", "KIP-848"), Case("gated", "KIP-848", "recent")]


@dataclass
class Place:
    """The topics that all runs share, and how far the data topic was written."""

    topic: str
    logs: dict[commit_records.Format, str]
    """By the records' form."""
    ends: list[int] = field(default_factory=lambda: [LOADED] * PARTITIONS)


def run(bench: Bench) -> dict[str, Any]:
    """The silence of every contender at every event, alternating; and the gate's beyond that without one."""
    cases = bench.pick([BARE, RECENT], [*ALL_OF_EAGER, *ALL_OF_KIP848])
    events = bench.pick((RESTART,), (RESTART, JOIN, KILL))
    records = bench.pick(50_000, 1_000_000)
    place = _prepare(bench, records, {bench.record_format(case.contender) for case in cases})
    found: dict[Case, dict[str, list[float | None]]] = {case: {event: [] for event in events} for case in cases}
    for round_ in range(bench.pick(1, 2)):
        for case in cases if round_ % 2 == 0 else reversed(cases):
            if round_ > 0 and case.contender == "peer":
                continue
            bench.progress(f"round {round_ + 1}: {case.label}, {case.protocol}")
            silences = _attempt(bench, case, place, events)
            for event in events:
                found[case][event].append(None if silences is None else silences[event])
    for topic in (place.topic, *place.logs.values()):
        bench.cluster.delete_topic(topic)
    result = compare(found)
    result["summary"]["restart.import_cpu_seconds"] = import_seconds(bench.pick(2, 5))
    return {"records": records, **result}


def import_seconds(attempts: int) -> float:
    """How much CPU time the import of this package takes beyond that of Arroyo, at best."""
    arroyo = "import arroyo.backends.kafka, arroyo.processing.strategies"
    gated = f"{arroyo}; from arroyo_sync import CommitLogConsumer, SynchronizedStrategyFactory"
    least = {}
    for program in (arroyo, gated):
        taken = []
        for _ in range(attempts):
            process = os.posix_spawn(sys.executable, [sys.executable, "-c", program], os.environ)
            usage = os.wait4(process, 0)[2]
            taken.append(usage.ru_utime + usage.ru_stime)
        least[program] = min(taken)
    return least[gated] - least[arroyo]


def compare(found: dict[Case, dict[str, list[float | None]]]) -> dict[str, Any]:
    """The silences of each event, and how much longer the gate's are than those without it, by round."""
    cases: dict[str, Any] = {}
    beyond: dict[str, list[dict[str, Any]]] = {"all": [], "recent": []}
    for case, by_event in found.items():
        bare = found[Case("bare", case.protocol)]
        for event, seconds in by_event.items():
            entry: dict[str, Any] = {"silent_seconds": summarise(seconds)}
            if case.is_gated:
                differences = [
                    None if a is None or b is None else a - b for a, b in zip(seconds, bare[event], strict=True)
                ]
                entry["minus_bare_seconds"] = summarise(differences)
                beyond[case.start].append(entry["minus_bare_seconds"])
            cases.setdefault(f"{event}, {case.protocol}", {})[case.label] = entry
    return {
        "cases": cases,
        "summary": {
            "restart.worst_gated_minus_bare_seconds": greatest([*beyond["all"], *beyond["recent"]]),
            "restart.worst_gated_recent_minus_bare_seconds": greatest(beyond["recent"]),
        },
    }


def _prepare(bench: Bench, records: int, forms: set[commit_records.Format]) -> Place:
    topic = bench.create_topic("restart", PARTITIONS)
    place = Place(topic, {form: bench.create_topic("restart-log", LOG_PARTITIONS) for form in sorted(forms)})
    producer = Producer({"bootstrap.servers": bench.cluster.bootstrap_servers, "linger.ms": 20, "log_level": 2})
    begin = time.time() - DAY_SECONDS
    for partition in range(PARTITIONS):
        for _ in range(LOADED):
            # Before the first record that speaks of it.
            producer.produce(topic, b"x" * 200, partition=partition, timestamp=int((begin - 60) * 1_000))
    for form, log in place.logs.items():
        bench.progress(f"writing {records:,} commit records, {form}")
        keys = [(partition, group) for partition in range(PARTITIONS) for group in GROUPS]
        headers = commit_records.headers(form)
        for index in range(records):
            partition, group = keys[index % len(keys)]
            offset = 1 + index * LOADED // records
            key, value = commit_records.encode(form, topic, partition, group, offset)
            timestamp = int((begin + DAY_SECONDS * index / records) * 1_000)
            while True:
                try:
                    producer.produce(log, value, key, headers=headers, timestamp=timestamp)
                    break
                except BufferError:
                    producer.poll(0.1)
    if producer.flush(120):
        raise RuntimeError("the broker didn't take all records within 120 s")
    return place


# One run.


class Silences:
    """Watches what the members of one group deliver."""

    def __init__(self) -> None:
        self._paths: list[Path] = []

    def add(self, member: Contender) -> None:
        """Watch this one too, from its start."""
        self._paths.append(Path(member.config["out"]))

    def deliveries(self) -> Deliveries:
        """What was delivered so far, by time."""
        rows = [np.fromfile(path, np.int64).reshape(-1, 3) for path in self._paths]
        return sorted_deliveries(np.concatenate(rows) if rows else np.empty((0, 3), np.int64))

    def wait_until_flowing(self) -> Deliveries:
        """Wait a moment, and until every partition delivers. What was delivered so far.

        :raises ProgramFailed: it doesn't happen.
        """
        time.sleep(SETTLE_SECONDS)
        deadline = time.monotonic() + LATEST_SECONDS
        while time.monotonic() < deadline:
            made = self.deliveries()
            recent = made.partition[made.time_ns > time.perf_counter_ns() - FLOWING_SECONDS * 1e9]
            if len(np.unique(recent)) == PARTITIONS:
                return made
            time.sleep(0.1)
        raise ProgramFailed(f"messages don't flow {LATEST_SECONDS:g} s after the event")


def sorted_deliveries(rows: IntArray) -> Deliveries:
    """The rows of `MappedRecorder` that are there, by time."""
    rows = rows[rows[:, 0] > 0]
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    return Deliveries(rows[:, 1], rows[:, 2], rows[:, 0])


def longest_silence(made: Deliveries, begin_ns: int) -> float:
    """The longest time without a delivery that ended after ``begin_ns``, in seconds, in the worst partition."""
    longest = 0
    for partition in np.unique(made.partition):
        times = made.time_ns[made.partition == partition]
        gaps, ended_at = np.diff(times), times[1:]
        longest = max(longest, int(gaps[ended_at >= begin_ns].max(initial=0)))
    return longest / 1e9


def _attempt(bench: Bench, case: Case, place: Place, events: tuple[str, ...]) -> dict[str, float] | None:
    """One run, by event. One that failed or broke a promise is noted as broken.

    The peer's is only told of: on a busy machine it may need longer to read the commit log than anybody waits here.
    """
    what = f"restart, {case.label}, {case.protocol}"
    try:
        silences, broken = _run(bench, case, place, events)
    except ProgramFailed as error:
        silences, broken = {}, [str(error)]
    if case.contender != "peer":
        bench.broken.extend(f"{what}: {each}" for each in broken)
    for each in broken:
        bench.progress(f"BROKEN: {what}: {each}")
    return None if broken else silences


def _run(bench: Bench, case: Case, place: Place, events: tuple[str, ...]) -> tuple[dict[str, float], list[str]]:
    group, starts = bench.name("restart-followers"), list(place.ends)
    ends = dict(enumerate(place.ends))
    bench.cluster.commit_offsets(group, place.topic, ends)
    bench.cluster.commit_offsets(LEADER_GROUP, place.topic, ends)
    commit_log = place.logs[bench.record_format(case.contender)]
    steps = [
        {
            "kind": "stream",
            "seconds": STOP_TOLD_SECONDS,
            "rate": RATE,
            "interval_seconds": INTERVAL_SECONDS,
            "lag_seconds": 0.0,
        },
        {"kind": "finish"},
    ]
    watched = Silences()
    silences: dict[str, float] = {}
    with ExitStack() as stack:

        def start() -> Contender:
            member = stack.enter_context(
                bench.contender(
                    case.contender,
                    place.topic,
                    PARTITIONS,
                    commit_log=commit_log,
                    capacity=CAPACITY,
                    group_id=group,
                    record="mapped",
                    start=case.start,
                    consumer={**CONSUMER_SETTINGS[case.contender], **PROTOCOLS[case.protocol]},
                )
            )
            watched.add(member)
            return member

        first = start()
        feeder = bench.feed(case.contender, place.topic, PARTITIONS, commit_log, steps=steps, start=place.ends)
        stack.enter_context(feeder.program)
        watched.wait_until_flowing()
        for event in events:
            began = time.perf_counter_ns()
            if event == RESTART:
                _stop(first)
                first = start()
            elif event == JOIN:
                second = start()
            else:
                second.program.kill()
            silences[event] = longest_silence(watched.wait_until_flowing(), began)
        broken = _end(bench, case, place, feeder, first, watched, starts)
    return silences, broken


def _end(
    bench: Bench, case: Case, place: Place, feeder: Feeder, last: Contender, watched: Silences, starts: list[int]
) -> list[str]:
    """End the run and judge it."""
    feeder.end_stream()
    records, published = feeder.finish()
    place.ends = published
    deadline = time.monotonic() + LATEST_SECONDS
    judged = None if case.contender in UNGATED else records
    while broken := broken_by_members(watched.deliveries(), judged, starts, published):
        if time.monotonic() > deadline or not all(each.startswith("loss") for each in broken):
            break
        time.sleep(0.1)
    _stop(last)
    return broken


def _stop(member: Contender) -> None:
    member.program.send({"command": "finish", "expect": 0, "timeout_seconds": 0})
    member.program.expect("result", STOP_SECONDS)
