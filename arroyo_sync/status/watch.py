"""Looks again and again, and goes on while the brokers are away.

Threads: one. It blocks for as long as a look does.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from confluent_kafka import KafkaException

from arroyo_sync.core.errors import ArroyoSyncError, NotReady
from arroyo_sync.observe.snapshot import Snapshot
from arroyo_sync.status.check import ExitStatus, Reader, Status, StatusCheck

SHOWN_CHANGES = 4


class ClosableReader(Reader, Protocol):
    """What is asked of `StatusReader`."""

    def close(self) -> None: ...


@dataclass(frozen=True)
class Seen:
    """One look of several."""

    status: Status
    """The last one that could be had."""
    notes: tuple[str, ...] = ()
    """Rates, and what changed."""
    blind_since: float | None = None
    """Since when there has been none, Unix seconds."""
    blind_reason: str = ""

    @property
    def exit_status(self) -> ExitStatus:
        return self.status.exit_status if self.blind_since is None else ExitStatus.UNKNOWN


class Watch:
    """Looks, and remembers what was seen before.

    :param open_reader: makes the reader anew after the brokers were away: what it had read may be out of date. One that
        only hasn't read the whole commit log yet is kept, and goes on from look to look.
    :param describe: says in one line what went wrong.
    """

    def __init__(
        self,
        check: StatusCheck,
        reader: ClosableReader,
        open_reader: Callable[[], ClosableReader],
        describe: Callable[[Exception], str],
        *,
        sleep: Callable[[float], None] = time.sleep,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._check = check
        self._reader: ClosableReader | None = reader
        self._open_reader = open_reader
        self._describe = describe
        self._sleep = sleep
        self._wall_clock = wall_clock
        self._changes: deque[str] = deque(maxlen=SHOWN_CHANGES)
        self.last: Seen | None = None
        """The newest look. ``None``: there was none yet."""

    def looks(self, interval: float | None) -> Iterator[Seen]:
        """One look, or one every ``interval`` seconds without end. Only what keeps the first from being had is raised.

        :raises KafkaException, ArroyoSyncError: see `StatusReader.read`.
        """
        self.last = Seen(self._check.check_once())
        yield self.last
        while interval is not None:
            self._sleep(interval)
            self.last = self._look(self.last)
            yield self.last

    def close(self) -> None:
        """Close the reader."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _look(self, before: Seen) -> Seen:
        try:
            if self._reader is None:
                self._reader = self._open_reader()
                self._check.use(self._reader)
            status = self._check.check_once()
        except (KafkaException, ArroyoSyncError) as error:
            is_reading = isinstance(error, NotReady)
            if not is_reading:
                self.close()
            since = before.blind_since if before.blind_since is not None else before.status.snapshot.taken_at
            if before.blind_since is None:
                why = "the commit log is being read" if is_reading else "the brokers don't answer"
                self._note_change(f"blind: {why}")
            return Seen(before.status, self._notes(None), since, self._describe(error))
        if before.blind_since is not None:
            self._note_change(f"no longer blind, after {self._wall_clock() - before.blind_since:.0f} s")
        grades = {verdict.key: verdict.grade for verdict in before.status.verdicts}
        for verdict in status.verdicts:
            previous = grades.get(verdict.key, verdict.grade)
            if previous is not verdict.grade:
                self._note_change(
                    f"{verdict.topic}[{verdict.partition}] was {previous.value}, is {verdict.grade.value}"
                )
        return Seen(status, self._notes(rates(before.status.snapshot, status.snapshot)))

    def _note_change(self, change: str) -> None:
        self._changes.append(f"{time.strftime('%H:%M:%S', time.gmtime(self._wall_clock()))} {change}")

    def _notes(self, rates: str | None) -> tuple[str, ...]:
        return (*([] if rates is None else [rates]), *self._changes)


def rates(before: Snapshot, now: Snapshot) -> str | None:
    """How much is written and reported, as far as the two snapshots tell."""
    seconds = now.taken_at - before.taken_at
    if seconds <= 0:
        return None
    ends = {each.key: each.high_watermark for each in before.partitions}
    written = 0
    for partition in now.partitions:
        previous = ends.get(partition.key)
        if previous is not None and partition.high_watermark is not None:
            written += max(0, partition.high_watermark - previous)
    said = f"{written / seconds:.1f} messages a second"
    if before.source is not None and now.source is not None:
        said += f", {max(0, now.source.read - before.source.read) / seconds:.1f} reports a second"
    return said
