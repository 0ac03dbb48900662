"""A StreamProcessor on a thread of the test's process, and the plainest strategies to run in one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from arroyo.backends.kafka import KafkaPayload
from arroyo.processing.processor import StreamProcessor
from arroyo.processing.strategies.abstract import ProcessingStrategy, ProcessingStrategyFactory
from arroyo.processing.strategies.run_task import RunTask
from arroyo.types import BrokerValue, Commit, Message, Partition

WAIT_SECONDS = 60.0


class Running:
    """Runs the processor while entered. Leaving it raises what the processor died of, unless that was waited for."""

    def __init__(self, processor: StreamProcessor[Any]) -> None:
        self._processor = processor
        self._thread = threading.Thread(target=self._run, name="processor", daemon=True)
        self._error: BaseException | None = None
        self._is_told = False

    def __enter__(self) -> Running:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._processor.signal_shutdown()
        self._thread.join(WAIT_SECONDS)
        assert not self._thread.is_alive(), "the processor did not end"
        if self._error is not None and not self._is_told:
            raise self._error

    def wait_for_end(self) -> BaseException | None:
        """Wait until the processor ends by itself, and return what it died of."""
        self._thread.join(WAIT_SECONDS)
        assert not self._thread.is_alive(), "the processor did not end"
        self._is_told = True
        return self._error

    def _run(self) -> None:
        try:
            self._processor.run()
        except BaseException as error:
            self._error = error


class LastStep(ProcessingStrategyFactory[KafkaPayload]):
    """Notes every message in ``received``, as partition and offset, and hands it to the step that is made last."""

    def __init__(self, make_last: Callable[[Commit], ProcessingStrategy[Any]]) -> None:
        self.received: list[tuple[int, int]] = []
        self._make_last = make_last

    def create_with_partitions(
        self, commit: Commit, partitions: Mapping[Partition, int]
    ) -> ProcessingStrategy[KafkaPayload]:
        def note(message: Message[KafkaPayload]) -> KafkaPayload:
            assert isinstance(message.value, BrokerValue)
            self.received.append((message.value.partition.index, message.value.offset))
            return message.payload

        return RunTask(note, self._make_last(commit))
