"""A follower's process: the example whole, with what a run's ingredients put under it."""

from __future__ import annotations

import functools
import sys
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from random import Random
from types import FrameType
from typing import Any

import post_process_forwarder
from arroyo.backends.abstract import ProducerFuture
from arroyo.backends.kafka import KafkaPayload, KafkaProducer
from arroyo.dlq import DlqPolicy, KafkaDlqProducer
from arroyo.processing.processor import StreamProcessor
from arroyo.processing.strategies.abstract import ProcessingStrategy
from arroyo.types import BrokerValue, Commit, Partition, Topic

from arroyo_sync import CommitLogConsumer, GroupOffsetsSource, RemoteOffsetSource
from arroyo_sync.gate.factory import SynchronizedStrategyFactory
from arroyo_sync.gate.partition_buffer import HoldLimits
from tests.chaos import handlers
from tests.chaos.ingredients import GROUP_OFFSETS, RECENT
from tests.support import sabotage

SAMPLE_SECONDS = 0.2
STALLED_AFTER_SECONDS = 20.0
GROUP_OFFSETS_SECONDS = 0.3
DEAD_LETTERS_BUFFERED, DEAD_LETTERS_SECONDS = 1_000, 10.0
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


class JournallingDlqProducer(KafkaDlqProducer):
    """Notes each dead letter that the brokers refused: Arroyo drops it with the next one, and commits past it."""

    def produce(
        self, value: BrokerValue[KafkaPayload], reason: str | None = None
    ) -> ProducerFuture[BrokerValue[KafkaPayload]]:
        future = super().produce(value, reason)
        assert isinstance(future, Future)
        future.add_done_callback(functools.partial(self._note, value.payload.value.decode()))
        return future

    @staticmethod
    def _note(payload: str, future: Future[BrokerValue[KafkaPayload]]) -> None:
        error = future.exception()
        if error is not None:
            handlers.journal.write("refused", payload, str(error))


def run(settings: Mapping[str, Any], flags: list[str], consumer_settings: Any) -> int:
    """The exit status.

    :param consumer_settings: in place of the example's function of that name.
    """
    sabotage.apply_from_environment()
    if settings.get("is_preempted"):
        preempt_at_random()
    handlers.note_what_is_told()
    made: list[SynchronizedStrategyFactory[KafkaPayload]] = []
    limits = HoldLimits(messages=settings["limit"], resume_messages=settings["limit"] // 5)

    def make(*arguments: Any) -> SynchronizedStrategyFactory[KafkaPayload]:
        made.append(SynchronizedStrategyFactory(*arguments, limits=limits, stalled_after=STALLED_AFTER_SECONDS))
        return made[0]

    def sample() -> None:
        while True:
            time.sleep(SAMPLE_SECONDS)
            if made:
                handlers.journal.write("held", max(made[0].held.values(), default=0))

    example = vars(post_process_forwarder)
    example["SynchronizedStrategyFactory"] = make
    example["ForwarderFactory"] = JournallingFactory
    example["CommitLogConsumer"] = functools.partial(_source, settings.get("source"))
    example["consumer_settings"] = consumer_settings
    producer = KafkaProducer({"bootstrap.servers": settings["bootstrap_servers"]})
    if settings.get("dead_letters"):
        policy = DlqPolicy(
            JournallingDlqProducer(producer, Topic(settings["dead_letters"])),
            max_buffered_messages_per_partition=DEAD_LETTERS_BUFFERED,
        )
        example["StreamProcessor"] = functools.partial(StreamProcessor, dlq_policy=policy)
    handlers.journal.write("limit", limits.messages)
    threading.Thread(target=sample, name="sample", daemon=True).start()
    groups = [each for group in settings["leader_groups"] for each in ("--synchronize-commit-group", group)]
    try:
        return post_process_forwarder.run_post_process_forwarder(
            [*flags, "--synchronize-commit-log-topic", settings["commit_log"], *groups]
        )
    finally:
        # Without a word: the runner has said why it ends, and the judge goes by the last line.
        with suppress(FutureTimeoutError):
            producer.close().result(DEAD_LETTERS_SECONDS)


def _source(kind: str | None, configuration: Mapping[str, Any], *, topic: Topic, groups: Any) -> RemoteOffsetSource:
    """In place of the example's `CommitLogConsumer`."""
    if kind == GROUP_OFFSETS:
        return GroupOffsetsSource(configuration, groups=groups, interval_seconds=GROUP_OFFSETS_SECONDS)
    return CommitLogConsumer(configuration, topic=topic, groups=groups, start="recent" if kind == RECENT else "all")


def preempt_at_random() -> None:
    """Let any thread lose the processor for a moment, wherever it calls or returns in what threads share.

    So they meet at every point, as they would on a busy machine once in a great many times.
    """
    # All of it local: at the interpreter's end the module's own names are None.
    random, sleep, chance, seconds, shared = Random(), time.sleep, PREEMPTED_CHANCE, PREEMPTED_SECONDS, SHARED

    def maybe_wait(frame: FrameType, event: str, argument: object) -> None:
        if random.random() < chance and frame.f_code.co_filename.endswith(shared):
            sleep(random.uniform(0, seconds))

    threading.setprofile(maybe_wait)
    sys.setprofile(maybe_wait)
