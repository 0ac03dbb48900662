"""Breaks one thing at a time on a real broker, and measures when log, metric, event and status told of it.

Each fault has a topic of two partitions, to which ten messages a second are written, a leader group that publishes on a
commit log, and a follower, all as processes of their own. ``arroyo-sync status`` looks again and again; the seconds are
those at which a look *began* that told of the fault, and how many looks before it, since the fault, didn't.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException, Producer

from tests.benchmarks.faults_told.process import Settings
from tests.integration.cluster.cluster import KafkaCluster
from tests.integration.cluster.waiting import wait_until
from tests.support.threads import repeated

PARTITIONS = 2
WAIT_SECONDS = 120.0
STATUS_SECONDS = 120.0
DOWN_SECONDS = 12.0
"""For how long the broker is away, at least."""
GRADES = ("waiting", "stalled", "unknown")


class Process:
    """A leader or a follower, and its journal."""

    def __init__(self, role: str, settings: Settings) -> None:
        self.journal = Path(settings.journal)
        self._errors = self.journal.with_suffix(".err").open("w")
        command = [sys.executable, "-m", "tests.benchmarks.faults_told.process", role, json.dumps(asdict(settings))]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self._errors, stderr=self._errors)

    @property
    def told(self) -> list[tuple[float, str, str]]:
        """The whole lines of the journal."""
        whole = self.journal.read_text().rpartition("\n")[0] if self.journal.exists() else ""
        return [tuple(json.loads(line)) for line in whole.splitlines()]

    def send(self, signum: signal.Signals) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signum)

    def end(self) -> None:
        self.send(signal.SIGKILL)
        self._process.wait(60)
        self._errors.close()


@dataclass
class Look:
    """One of status."""

    began_at: float
    grade: str
    text: str


@dataclass
class World:
    """One fault's."""

    cluster: KafkaCluster
    folder: Path
    settings: Settings
    processes: list[Process] = field(default_factory=list)

    @property
    def follower(self) -> Process:
        return self.processes[0]

    @property
    def leaders(self) -> list[Process]:
        return self.processes[1:]

    def start(self, role: str, **changes: Any) -> Process:
        changes = {"group": "forwarder" if role == "follower" else "writers", **changes}
        journal = str(self.folder / f"{role}-{len(self.processes)}.journal")
        process = Process(role, replace(self.settings, **changes, journal=journal))
        self.processes.append(process)
        return process

    def status(self) -> Look:
        began_at = time.time()
        command = [sys.executable, "-m", "arroyo_sync", "status", "--json", "--no-members", "--timeout", "5"]
        command += ["--bootstrap-servers", self.settings.bootstrap_servers, "--topic", self.settings.topic]
        command += ["--commit-log", self.settings.commit_log, "--follower-group", "forwarder"]
        command += ["--stalled-after", str(self.settings.stalled_after)]
        command += [part for group in self.settings.leader_groups for part in ("--leader-group", group)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=STATUS_SECONDS)
        if not done.stdout:
            return Look(began_at, "unknown", done.stderr.strip())
        answer = json.loads(done.stdout)
        reasons = [each.get("reason") or each.get("group") or each["grade"] for each in answer["verdicts"]]
        return Look(began_at, answer["grade"], f"{done.returncode} {reasons[:1]}")


@contextmanager
def written(world: World) -> Iterator[None]:
    """Ten messages a second, for as long as it is entered."""
    producer = Producer({"bootstrap.servers": world.settings.bootstrap_servers, "linger.ms": 0, "log_level": 0})

    def write() -> None:
        with suppress(KafkaException):  # the topic is away for a moment
            producer.produce(world.settings.topic, b"x", partition=int(time.monotonic() * 10) % PARTITIONS)
        producer.poll(0)

    with repeated(write, 0.1):
        yield


def stop_leader(world: World) -> None:
    world.leaders[0].send(signal.SIGKILL)


def do_nothing(world: World) -> None:
    """The fault is there from the start."""


def delete_commit_log(world: World) -> None:
    world.cluster.delete_topic(world.settings.commit_log)


def recreate_topic(world: World) -> None:
    world.cluster.recreate_topic(world.settings.topic)


def hang_leader(world: World) -> None:
    world.leaders[0].send(signal.SIGUSR1)


def hang_follower(world: World) -> None:
    world.follower.send(signal.SIGUSR1)


def pause_broker(world: World) -> None:
    """It stands still, with its connections open: a JVM that starts anew takes longer than Arroyo's commits wait."""
    world.cluster.brokers[0].pause()


def resume_broker(world: World) -> None:
    world.cluster.brokers[0].resume()


@dataclass(frozen=True)
class Fault:
    """What is broken, and how the follower's log tells of it."""

    name: str
    breaks: Callable[[World], None]
    log: str
    """In the line that tells of it."""
    leaders: int = 1
    leader_group: str = "writers"
    """The follower's and status's word for it."""
    mends: Callable[[World], None] | None = None
    """Called `DOWN_SECONDS` later, once the look at that moment is over."""


FAULTS = (
    Fault("leader stopped", stop_leader, "has stood still"),
    Fault("leader group misspelt", do_nothing, "which has published nothing", leader_group="writer"),
    Fault("commit log deleted", delete_commit_log, "doesn't exist any more"),
    Fault("data topic recreated", recreate_topic, "deleted and created again"),
    Fault("one hung leader member", hang_leader, "has stood still", leaders=2),
    Fault("follower slow", hang_follower, "the follower doesn't pass them on"),
    Fault("broker down and back", pause_broker, "don't answer", mends=resume_broker),
)


@dataclass
class Told:
    """Seconds after the fault; ``None``: it wasn't told."""

    fault: str
    log: float | None
    waiting: float | None
    stalled: float | None
    event: float | None
    status: dict[str, float | None]
    looks_before: int
    """How many looks, begun after the fault, called all well before one that didn't."""
    over: float | None
    leader: float | None
    """The first line of a leader's log."""
    lines: list[str]


def seconds_told(lines: Sequence[tuple[float, str, str]], since: float, kind: str, *texts: str) -> float | None:
    """After how many seconds a line of this kind that holds all of the texts was written first."""
    times = [at - since for at, what, text in lines if what == kind and at >= since and all(t in text for t in texts)]
    return min(times, default=None)


def measure(cluster: KafkaCluster, fault: Fault, folder: Path, stalled_after: float, seconds: float) -> Told:
    """Start, break, look for so many seconds, and end."""
    name = fault.name.replace(" ", "-")
    folder.mkdir()
    settings = Settings(
        cluster.bootstrap_servers, name, f"{name}-commits", "", (fault.leader_group,), stalled_after, ""
    )
    cluster.create_topic(settings.topic, PARTITIONS)
    cluster.create_topic(settings.commit_log)
    world = World(cluster, folder, settings)
    looks: list[Look] = []
    try:

        def is_well(looks: list[Look]) -> bool:
            looks.append(world.status())
            return looks[-1].grade == "ok"

        world.start("follower")
        for _ in range(fault.leaders):
            world.start("leader", leader_groups=())
        with written(world):
            if fault.leader_group == "writers":
                wait_until(lambda: is_well(looks), WAIT_SECONDS, lambda: f"all to be well before: {looks[-1]}")
                looks.clear()
            began_at = time.time()
            fault.breaks(world)
            over_at = None
            while time.time() < began_at + seconds:
                looks.append(world.status())
                if fault.mends is not None and over_at is None and time.time() > began_at + DOWN_SECONDS:
                    fault.mends(world)
                    over_at = time.time()
    finally:
        for process in world.processes:
            process.end()
    told = world.follower.told
    if fault.leader_group != "writers":  # what is told counts from when messages wait
        began_at = min([at for at, kind, text in told if kind == "metric"], default=began_at)
    found = {
        grade: next((max(0.0, each.began_at - began_at) for each in looks if each.grade == grade), None)
        for grade in GRADES
    }
    return Told(
        fault.name,
        seconds_told(told, began_at, "log", fault.log),
        seconds_told(told, began_at, "metric", "arroyo_sync.waiting", " 1")
        or seconds_told(told, began_at, "metric", "arroyo_sync.waiting", " 2"),
        seconds_told(told, began_at, "metric", "arroyo_sync.stalled", " 1")
        or seconds_told(told, began_at, "metric", "arroyo_sync.stalled", " 2"),
        seconds_told(told, began_at, "event", ""),
        found,
        next((index for index, each in enumerate(looks) if each.grade != "ok"), len(looks)),
        None if over_at is None else seconds_told(told, over_at, "log", "answer again"),
        min(filter(None, (seconds_told(each.told, began_at, "log", "") for each in world.leaders)), default=None),
        [f"{at - began_at:7.1f} {kind} {text}" for at, kind, text in told if at >= began_at]
        + [
            f"{at - began_at:7.1f} leader {number} {kind} {text}"
            for number, each in enumerate(world.leaders)
            for at, kind, text in each.told
            if at >= began_at
        ]
        + [f"{each.began_at - began_at:7.1f} status {each.grade} {each.text}" for each in looks],
    )


def table(results: Sequence[Told]) -> str:
    """For people."""

    def cell(seconds: float | None) -> str:
        return "-" if seconds is None else f"{seconds:.1f}"

    header = ["fault", "log", "waiting", "stalled", "event", "leader's log", "status", "looks before", "over"]
    rows = [
        [
            each.fault,
            *map(cell, (each.log, each.waiting, each.stalled, each.event, each.leader)),
            ", ".join(f"{grade} {seconds:.1f}" for grade, seconds in each.status.items() if seconds is not None) or "-",
            str(each.looks_before),
            cell(each.over),
        ]
        for each in results
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, ["---"] * len(header), *rows])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fault", action="append", choices=[each.name for each in FAULTS], help="only this one")
    parser.add_argument("--stalled-after", type=float, default=40.0, metavar="SECONDS")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each fault")
    parser.add_argument("--json", type=Path, metavar="FILE", help="with every line that was told")
    options = parser.parse_args(arguments)
    results = []
    with tempfile.TemporaryDirectory() as folder, KafkaCluster() as cluster:
        for number, fault in enumerate(each for each in FAULTS if not options.fault or each.name in options.fault):
            told = measure(cluster, fault, Path(folder) / str(number), options.stalled_after, options.seconds)
            results.append(told)
            print(table([told]).splitlines()[-1], flush=True)
            if options.json is not None:
                options.json.write_text(json.dumps([asdict(each) for each in results], indent=1))
    print("\n" + table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
