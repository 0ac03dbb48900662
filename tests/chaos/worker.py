"""One process of a run, made of the examples' code: ``python -m tests.chaos.worker ROLE SETTINGS-AS-JSON``.

The examples run whole, with their own flags, signals and error messages. Put under them are: a journal, the group
protocol and quick timeouts (they have no flags for these), and a low limit for held messages.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "examples"))

import leader
import post_process_forwarder
import runner
from arroyo.backends.kafka import KafkaPayload
from arroyo.processing.strategies.abstract import ProcessingStrategy
from arroyo.types import Commit, Partition

from arroyo_sync.gate.factory import SynchronizedStrategyFactory
from arroyo_sync.gate.partition_buffer import HoldLimits
from tests.chaos import handlers, producer
from tests.support import sabotage

SAMPLE_SECONDS = 0.2
SHARED = tuple(
    f"arroyo_sync/{name}.py"
    for name in (
        "core/state",
        "leaders/offset_source",
        "leaders/leader_offsets",
        "gate/strategy",
        "gate/flow_control",
    )
)
PREEMPTED_CHANCE, PREEMPTED_SECONDS = 0.02, 0.002
"""At each call and return, and for how long at most."""


class JournallingFactory(post_process_forwarder.ForwarderFactory):
    """Notes each assignment."""

    def create_with_partitions(
        self, commit: Commit, partitions: Mapping[Partition, int]
    ) -> ProcessingStrategy[KafkaPayload]:
        handlers.begin_assignment({partition.index: offset for partition, offset in partitions.items()})
        return super().create_with_partitions(commit, partitions)


def run_follower(settings: Mapping[str, Any]) -> int:
    sabotage.apply_from_environment()
    if settings.get("is_preempted"):
        preempt_at_random()
    made: list[SynchronizedStrategyFactory[KafkaPayload]] = []
    limits = HoldLimits(messages=settings["limit"], resume_messages=settings["limit"] // 5)

    def make(*arguments: Any) -> SynchronizedStrategyFactory[KafkaPayload]:
        made.append(SynchronizedStrategyFactory(*arguments, limits=limits))
        return made[0]

    def sample() -> None:
        while True:
            time.sleep(SAMPLE_SECONDS)
            if made:
                handlers.journal.write("held", max(made[0].held.values(), default=0))

    example = vars(post_process_forwarder)
    example["SynchronizedStrategyFactory"] = make
    example["ForwarderFactory"] = JournallingFactory
    example["consumer_settings"] = functools.partial(_with, settings["consumer"])
    handlers.journal.write("limit", limits.messages)
    threading.Thread(target=sample, name="sample", daemon=True).start()
    groups = [each for group in settings["leader_groups"] for each in ("--synchronize-commit-group", group)]
    return post_process_forwarder.run_post_process_forwarder(
        [*_flags(settings), "--synchronize-commit-log-topic", settings["commit_log"], *groups]
    )


def preempt_at_random() -> None:
    """Let any thread lose the processor for a moment, wherever it calls or returns in what threads share.

    So they meet at every point, as they would on a busy machine once in a great many times.
    """
    random = Random()

    def maybe_wait(frame: FrameType, event: str, argument: object) -> None:
        if random.random() < PREEMPTED_CHANCE and frame.f_code.co_filename.endswith(SHARED):
            time.sleep(random.uniform(0, PREEMPTED_SECONDS))

    threading.setprofile(maybe_wait)
    sys.setprofile(maybe_wait)


def run_leader(settings: Mapping[str, Any]) -> int:
    vars(leader)["consumer_settings"] = functools.partial(_with, settings["consumer"])
    return leader.run_leader([*_flags(settings), "--commit-log-topic", settings["commit_log"]])


def _with(more: Mapping[str, Any], options: Any) -> dict[str, Any]:
    return {**runner.consumer_settings(options), **more}


def _flags(settings: Mapping[str, Any]) -> list[str]:
    return [
        *("--bootstrap-servers", settings["bootstrap_servers"], "--topic", settings["topic"]),
        *("--consumer-group", settings["group"], "--handler", f"tests.chaos.handlers:{settings['handler']}"),
        *("--join-timeout", "3"),
    ]


def _end_with(parent: int) -> None:
    """End when the driver has: nobody else would end us."""
    while os.getppid() == parent:
        time.sleep(SAMPLE_SECONDS)
    os._exit(1)


def main(role: str, settings: Mapping[str, Any]) -> int:
    threading.Thread(target=_end_with, args=(os.getppid(),), name="end-with-driver", daemon=True).start()
    handlers.journal.write("begin", settings.get("group", ""), role)
    if role == "producer":
        return producer.run(settings, handlers.journal)
    return run_follower(settings) if role == "follower" else run_leader(settings)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], json.loads(sys.argv[2])))
