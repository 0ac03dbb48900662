"""A soak: ``python -m tests.chaos.soak --minutes 30 --json FILE``.

A producer, a leader, a follower and, under a group of its own, a consumer without a gate, at a steady rate; a second
follower that joins each minute and leaves half a minute later; and every five minutes a fault: the second follower is
killed, or the broker, the leader or the follower stands still for a while. Memory, threads and file descriptors of the
first three are sampled. One that ends is told of, and started again as its operator would. The slope of the memory is
that of the least-squares lines through the samples of each process after its warm-up, which have it in common.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

from tests.chaos.journal import read_all
from tests.chaos.processes import Slot
from tests.chaos.world import COMMIT_LOG, QUICK, TOPIC
from tests.integration.cluster.broker import Broker
from tests.integration.cluster.cluster import LONG_LIVED, KafkaCluster

WARM_UP_SECONDS = 180.0
SAMPLE_SECONDS = 2.0
STAY_SECONDS, AWAY_SECONDS = 30.0, 30.0
FAULT_EVERY_SECONDS = 300.0
STANDS_STILL_SECONDS = 10.0
DRAIN_SECONDS = 60.0
PAGE_BYTES = 4096
SESSION_MS = "45000"
SESSION = {"group.consumer.session.timeout.ms": SESSION_MS}


class Sample(NamedTuple):
    seconds: float
    rss_bytes: int
    threads: int
    descriptors: int


def take_sample(pid: int, began: float) -> Sample:
    """From Linux's own accounts."""
    process = Path(f"/proc/{pid}")
    rss_pages = int((process / "statm").read_text().split()[1])
    return Sample(
        time.monotonic() - began,
        rss_pages * PAGE_BYTES,
        len(list((process / "task").iterdir())),
        len(list((process / "fd").iterdir())),
    )


class Life(NamedTuple):
    """Of one process: its samples, whose seconds count from ``began``."""

    pid: int
    began: float
    samples: list[Sample]


def slope(lives: Sequence[Sequence[Sample]]) -> float:
    """Bytes a second, by least squares: the slope that the processes have in common, each from a start of its own."""
    above = below = 0.0
    for samples in lives:
        mean_x = sum(each.seconds for each in samples) / len(samples)
        mean_y = sum(each.rss_bytes for each in samples) / len(samples)
        above += sum((each.seconds - mean_x) * (each.rss_bytes - mean_y) for each in samples)
        below += sum((each.seconds - mean_x) ** 2 for each in samples)
    return above / below if below else 0.0


def summarise(lives: Sequence[Life]) -> dict[str, Any]:
    """Of the samples after the warm-ups; the longest life's halves for comparison."""
    steady = [[each for each in life.samples if each.seconds >= WARM_UP_SECONDS] or life.samples for life in lives]
    longest = max(steady, key=len)
    middle = len(longest) // 2
    halves = longest[:middle], longest[middle:]

    def mean_mib(some: Sequence[Sample]) -> float:
        return round(sum(each.rss_bytes for each in some) / len(some) / 2**20, 2)

    return {
        "processes": len(lives),
        "samples": sum(map(len, steady)),
        "rss_slope_kib_per_hour": round(slope(steady) * 3600 / 1024, 1),
        "rss_mean_mib_by_half": [mean_mib(half) for half in halves],
        "rss_max_mib": round(max(each.rss_bytes for life in steady for each in life) / 2**20, 2),
        "threads_max_by_half": [max(each.threads for each in half) for half in halves],
        "descriptors_max_by_half": [max(each.descriptors for each in half) for half in halves],
    }


def soak(seconds: float, rate: int, protocol: str, folder: Path) -> dict[str, Any]:
    """Blocks for a little longer than ``seconds``."""
    # A session as long as in production: a busy machine must not lose a member, since the follower then ends.
    with KafkaCluster(heap_mb=512, jvm_options=[LONG_LIVED], properties=SESSION) as cluster:
        cluster.create_topic(TOPIC, 4, {"retention.ms": "300000", "segment.bytes": str(16 * 2**20)})
        cluster.create_topic(COMMIT_LOG, 2, {"cleanup.policy": "compact,delete"})

        def slot(name: str, role: str, group: str, consumer: dict[str, Any]) -> Slot:
            settings = {
                "bootstrap_servers": cluster.bootstrap_servers,
                "topic": TOPIC,
                "commit_log": COMMIT_LOG,
                "group": group,
                "consumer": consumer,
                "handler": "count",
            }
            more = {"limit": 5000, "leader_groups": ["writer"], "epoch": 1, "rate": rate, "quiet": True}
            return Slot(folder, name, role, {**settings, **more})

        eager = {**QUICK, "session.timeout.ms": int(SESSION_MS)}
        follower_settings = {**QUICK, "group.protocol": "consumer"} if protocol == "kip848" else eager
        leader = slot("leader", "leader", "writer", eager)
        steady = slot("steady", "follower", "follower", follower_settings)
        guest = slot("guest", "follower", "follower", follower_settings)
        producer = slot("producer", "producer", "", {})
        bare = slot("bare", "bare", "bare", follower_settings)
        slots = [leader, steady, guest, bare, producer]
        try:
            for each in (leader, steady, bare, producer):
                each.start()
            watch = _Watch((leader, steady, bare), guest, _faults(cluster.brokers[0], leader, steady, guest))
            watch.run(seconds)
            guest.stop()
            producer.stop(DRAIN_SECONDS)
            ends = {partition: high for partition, (_, high) in cluster.watermarks(TOPIC).items()}
            deadline = time.monotonic() + DRAIN_SECONDS
            while cluster.committed_offsets("follower", TOPIC) != ends and time.monotonic() < deadline:
                time.sleep(0.5)
            left = {p: end - cluster.committed_offsets("follower", TOPIC).get(p, 0) for p, end in ends.items()}
        finally:
            for each in slots:
                each.stop()
    journals = read_all(folder)
    return {
        "minutes": round(seconds / 60, 1),
        "protocol": protocol,
        "messages": sum(ends.values()),
        "messages_per_second": round(sum(ends.values()) / seconds),
        "guest_visits": watch.visits,
        "ends": dict(watch.ends),
        "faults": dict(watch.faults),
        "assignments": sum(
            line[0] == "assigned" for name, lines in journals.items() if name.startswith("steady.") for line in lines
        ),
        "gaps": sum(line[0] == "gap" for lines in journals.values() for line in lines),
        "not_committed_at_the_end": sum(left.values()),
        "follower": summarise(watch.lives["steady"]),
        "leader": summarise(watch.lives["leader"]),
        "bare": summarise(watch.lives["bare"]),
    }


Fault = tuple[str, Callable[[], None], Callable[[], None]]
"""What it is called, what does it, and what heals it a while later."""


def _faults(broker: Broker, leader: Slot, steady: Slot, guest: Slot) -> list[Fault]:
    return [
        ("broker stands still", broker.pause, broker.resume),
        ("second follower killed", guest.kill, lambda: None),
        ("follower stands still", steady.pause, steady.go_on),
        ("leader stands still", leader.pause, leader.go_on),
    ]


class _Watch:
    """Samples the processes that live throughout, and does what is to happen beside them."""

    def __init__(self, watched: Sequence[Slot], guest: Slot, faults: Sequence[Fault]) -> None:
        self.lives: dict[str, list[Life]] = {slot.name: [] for slot in watched}
        self.ends: Counter[str] = Counter()
        self.visits = 0
        self.faults: Counter[str] = Counter()
        self._watched = watched
        self._guest = guest
        self._next_faults = cycle(faults)
        self._heal: Callable[[], None] | None = None

    def run(self, seconds: float) -> None:
        """Blocks for so long."""
        began = time.monotonic()
        change_at, fault_at = began + AWAY_SECONDS, began + FAULT_EVERY_SECONDS
        while (now := time.monotonic()) < began + seconds:
            for slot in self._watched:
                self._sample(slot)
            if now >= change_at:
                change_at = now + self._let_guest_come_or_go()
            if now >= fault_at:
                fault_at = now + self._do_or_heal()
            time.sleep(SAMPLE_SECONDS)
        if self._heal is not None:
            self._heal()

    def _sample(self, slot: Slot) -> None:
        if (end := slot.ended_by_itself()) is not None:
            self.ends[f"{slot.name}: {end[1]}"] += 1
        if slot.is_due:
            slot.start()
        if slot.pid is not None:
            lives = self.lives[slot.name]
            if not lives or lives[-1].pid != slot.pid:
                lives.append(Life(slot.pid, time.monotonic(), []))
            lives[-1].samples.append(take_sample(slot.pid, lives[-1].began))

    def _let_guest_come_or_go(self) -> float:
        """Returns for how long it stays or is away."""
        if self._guest.is_running:
            self._guest.stop()
            return AWAY_SECONDS
        self._guest.start()
        self.visits += 1
        return STAY_SECONDS

    def _do_or_heal(self) -> float:
        """Returns the seconds until the next call."""
        if self._heal is not None:
            self._heal()
            self._heal = None
            return FAULT_EVERY_SECONDS - STANDS_STILL_SECONDS
        name, do, self._heal = next(self._next_faults)
        self.faults[name] += 1
        do()
        return STANDS_STILL_SECONDS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.soak")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rate", type=int, default=2000, help="messages a second")
    parser.add_argument("--protocol", choices=("eager", "kip848"), default="kip848")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="arroyo-sync-soak-") as folder:
        summary = soak(options.minutes * 60, options.rate, options.protocol, Path(folder))
    text = json.dumps(summary, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")
    return 0 if summary["gaps"] == summary["not_committed_at_the_end"] == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
