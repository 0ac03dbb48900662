"""A soak: ``python -m tests.chaos.soak --minutes 30 --json FILE``.

A producer, a leader and a follower at a steady rate, and a second follower that joins each minute and leaves half a
minute later. Memory, threads and file descriptors of the processes that live throughout are sampled; the slope of the
memory is that of the least-squares line through the samples after the warm-up.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.chaos.journal import read_all
from tests.chaos.processes import Slot
from tests.chaos.world import COMMIT_LOG, QUICK, TOPIC
from tests.integration.cluster.cluster import LONG_LIVED, KafkaCluster

WARM_UP_SECONDS = 180.0
SAMPLE_SECONDS = 2.0
STAY_SECONDS, AWAY_SECONDS = 30.0, 30.0
DRAIN_SECONDS = 30.0
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


def slope(samples: Sequence[Sample]) -> float:
    """Bytes a second, by least squares."""
    count = len(samples)
    mean_x = sum(each.seconds for each in samples) / count
    mean_y = sum(each.rss_bytes for each in samples) / count
    spread = sum((each.seconds - mean_x) ** 2 for each in samples)
    return sum((each.seconds - mean_x) * (each.rss_bytes - mean_y) for each in samples) / spread


def summarise(samples: Sequence[Sample]) -> dict[str, Any]:
    """Of the samples after the warm-up, and its halves for comparison."""
    steady = [each for each in samples if each.seconds >= WARM_UP_SECONDS] or list(samples)
    middle = len(steady) // 2
    halves = steady[:middle], steady[middle:]

    def mean_mib(some: Sequence[Sample]) -> float:
        return round(sum(each.rss_bytes for each in some) / len(some) / 2**20, 2)

    return {
        "samples": len(steady),
        "rss_slope_kib_per_hour": round(slope(steady) * 3600 / 1024, 1),
        "rss_mean_mib_by_half": [mean_mib(half) for half in halves],
        "rss_max_mib": round(max(each.rss_bytes for each in steady) / 2**20, 2),
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
        slots = [leader, steady, guest, producer]
        try:
            for each in (leader, steady, producer):
                each.start()
            samples, visits = _watch(seconds, leader, steady, guest)
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
        "guest_visits": visits,
        "assignments": sum(line[0] == "assigned" for line in journals.get("steady.1", [])),
        "gaps": sum(line[0] == "gap" for lines in journals.values() for line in lines),
        "not_committed_at_the_end": sum(left.values()),
        "follower": summarise(samples["steady"]),
        "leader": summarise(samples["leader"]),
    }


def _watch(seconds: float, leader: Slot, steady: Slot, guest: Slot) -> tuple[dict[str, list[Sample]], int]:
    began = time.monotonic()
    samples: dict[str, list[Sample]] = {"leader": [], "steady": []}
    visits, change_at = 0, began + AWAY_SECONDS
    while (now := time.monotonic()) < began + seconds:
        for slot in (leader, steady):
            if slot.pid is None:
                raise RuntimeError(f"{slot.name} ended: {slot.ended_by_itself()}")
            samples[slot.name].append(take_sample(slot.pid, began))
        if now >= change_at:
            if guest.is_running:
                guest.stop()
                change_at = now + AWAY_SECONDS
            else:
                guest.start()
                visits += 1
                change_at = now + STAY_SECONDS
        time.sleep(SAMPLE_SECONDS)
    return samples, visits


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
