"""A process of its own: ``python -m tests.integration.cluster.pipeline leader|follower SETTINGS-AS-JSON``.

Each writes a journal, one line an event, with times of the monotonic clock that all processes share:

    leader      ``partition next_offset time assignment``   written before the offset is passed to ``commit``
    follower    ``partition offset time assignment``        written when the message comes out of the gate

The assignment counts the process's strategies from 1. A message was early if no line of some leader group that covers
it is older. It ends cleanly at SIGTERM.
"""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from arroyo.backends.kafka import KafkaConsumer, KafkaPayload, KafkaProducer
from arroyo.processing.processor import StreamProcessor
from arroyo.processing.strategies.abstract import ProcessingStrategy, ProcessingStrategyFactory
from arroyo.processing.strategies.commit import CommitOffsets
from arroyo.types import BrokerValue, Commit, Message, Partition, Topic

from tests.integration.cluster.followers import consumer_settings
from tests.support.passing_step import PassingStep


@dataclass(frozen=True)
class PipelineSettings:
    """What a process is told."""

    bootstrap_servers: str
    topic: str
    group: str
    journal: str
    commit_log: str
    protocol: str = "eager"
    leader_groups: tuple[str, ...] = ()
    """For a follower: the groups to wait for."""
    delay_every: int = 0
    """For a leader: pause for 5 ms after so many messages, so that leaders differ in speed; 0 for never."""
    consumer: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the consumer that count over those of `consumer_settings`."""
    finishes_below: int | None = None
    """For a leader: it never comes to an end with messages from this offset on."""


class Event(NamedTuple):
    """A line of a journal."""

    partition: int
    offset: int
    time: float
    assignment: int


OWN = (sys.executable, "-m", "tests.integration.cluster.pipeline")


class PipelineProcess:
    """Starts one of these processes and ends it.

    :param command: another program that takes the same arguments and writes the same journal.
    """

    def __init__(self, role: str, settings: PipelineSettings, command: Sequence[str] = OWN) -> None:
        self.settings = settings
        self.journal = Path(settings.journal)
        self._log = self.journal.with_suffix(".log").open("w")
        self._process = subprocess.Popen(
            [*command, role, json.dumps(asdict(settings))],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def events(self) -> list[Event]:
        """The whole lines of the journal so far."""
        if not self.journal.exists():
            return []
        whole = self.journal.read_text().rpartition("\n")[0]
        lines = (line.split() for line in whole.splitlines())
        return [Event(int(p), int(o), float(t), int(a)) for p, o, t, a in lines]

    def count(self) -> int:
        """How many lines the journal has."""
        return self.journal.read_bytes().count(b"\n") if self.journal.exists() else 0

    def stop(self) -> None:
        """SIGTERM, then the exit status must be 0."""
        self._process.terminate()
        try:
            status = self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise
        finally:
            self._log.close()
        assert status == 0, f"exit status {status}: {self.journal.with_suffix('.log').read_text()[-3000:]}"

    def pause(self) -> None:
        """Let it stand still (SIGSTOP)."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on (SIGCONT)."""
        self._process.send_signal(signal.SIGCONT)

    def __enter__(self) -> PipelineProcess:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self.is_running:
            self._process.kill()
            self._process.wait(30)
        self._log.close()


class _Journal(PassingStep):
    """Writes a line for each message, with ``ahead`` added to its offset, then hands it on."""

    def __init__(
        self,
        file: TextIO,
        assignment: int,
        ahead: int,
        settings: PipelineSettings,
        next_step: ProcessingStrategy[KafkaPayload],
    ) -> None:
        super().__init__(next_step)
        self._file = file
        self._assignment = assignment
        self._ahead = ahead
        self._delay_every = settings.delay_every
        self._finishes_below = settings.finishes_below
        self._count = 0

    def submit(self, message: Message[KafkaPayload]) -> None:
        value = message.value
        assert isinstance(value, BrokerValue)
        if self._finishes_below is not None and value.offset >= self._finishes_below:
            return
        self._file.write(
            f"{value.partition.index} {value.offset + self._ahead} {time.monotonic()} {self._assignment}\n"
        )
        self._count += 1
        if self._delay_every and self._count % self._delay_every == 0:
            time.sleep(0.005)
        super().submit(message)

    def poll(self) -> None:
        self._file.flush()
        super().poll()

    def join(self, timeout: float | None = None) -> None:
        self._file.flush()
        super().join(timeout)


class _Factory(ProcessingStrategyFactory[KafkaPayload]):
    def __init__(self, role: str, settings: PipelineSettings) -> None:
        self._settings = settings
        self._is_leader = role == "leader"
        self._file = Path(settings.journal).open("a", buffering=1 << 16)  # noqa: SIM115 - closed in shutdown
        self._assignments = 0
        self._producer = KafkaProducer({"bootstrap.servers": settings.bootstrap_servers}) if self._is_leader else None
        self._publisher: Any = None
        if self._producer is not None:
            from arroyo_sync import CommitLogPublisher

            self._publisher = CommitLogPublisher(
                self._producer, Topic(settings.commit_log), settings.group, interval=0.02
            )

    def create_with_partitions(
        self, commit: Commit, partitions: Mapping[Partition, int]
    ) -> ProcessingStrategy[KafkaPayload]:
        self._assignments += 1
        if self._producer is None:
            return _Journal(self._file, self._assignments, 0, self._settings, CommitOffsets(commit))
        publish = self._publisher.step(commit, partitions)
        return _Journal(self._file, self._assignments, 1, self._settings, publish)

    def shutdown(self) -> None:
        self._file.close()
        if self._producer is not None:
            self._producer.close().result(10)


def main(role: str, settings: PipelineSettings) -> None:
    """Run until SIGTERM."""
    logging.basicConfig(level=logging.INFO)
    factory: ProcessingStrategyFactory[KafkaPayload] = _Factory(role, settings)
    consumer: Any = KafkaConsumer(
        {**consumer_settings(settings.bootstrap_servers, settings.group, settings.protocol), **settings.consumer}
    )
    if role == "follower":
        from arroyo_sync import CommitLogConsumer, SynchronizedStrategyFactory

        source = CommitLogConsumer(
            {"bootstrap.servers": settings.bootstrap_servers},
            topic=Topic(settings.commit_log),
            groups=set(settings.leader_groups),
        )
        gated: SynchronizedStrategyFactory[KafkaPayload] = SynchronizedStrategyFactory(factory, source)
        consumer = gated.flow_control(consumer)
        factory = gated
    processor = StreamProcessor(consumer, Topic(settings.topic), factory)
    signal.signal(signal.SIGTERM, lambda *_: processor.signal_shutdown())
    processor.run()


if __name__ == "__main__":
    arguments = json.loads(sys.argv[2])
    main(sys.argv[1], PipelineSettings(**{**arguments, "leader_groups": tuple(arguments["leader_groups"])}))
