"""Which partitions are paused, and for whom: for the processor or the user, or for the gate, whose buffers are full.

Guarantees
    - A partition is paused on the inner consumer if and only if it is in one of two sets: ``outside``, what the
      processor or the user asked for, and ``full``, what the gate asked for. The inner consumer is called only for
      differences.

Threads: the processor's thread calls everything; any may read `Pauses.pauses` and `Pauses.resumes`.

Sources: ``arroyo/processing/processor.py`` of 2.48 pauses every partition after five seconds of rejections, and forgets
that pause when it rebuilds the strategy.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from arroyo.backends.abstract import Consumer
from arroyo.errors import ConsumerError
from arroyo.types import Partition
from confluent_kafka import KafkaException


class Pauses:
    """The pauses of one consumer.

    :param inner: the consumer that is paused and resumed.
    """

    def __init__(self, inner: Consumer[Any]) -> None:
        self._inner = inner
        self.pauses = 0
        """How many partitions were paused for the gate so far."""
        self.resumes = 0
        """How many were resumed, having drained."""
        self.is_all_paused = False
        """Whether all partitions were paused at once, from outside, and still are."""
        self._outside: set[Partition] = set()
        self._full: set[Partition] = set()
        # What `outside` held before somebody paused every partition at once, as the processor does.
        self._outside_before_all: set[Partition] | None = None

    @property
    def outside(self) -> Sequence[Partition]:
        """What was paused from outside. The gate's own pauses don't show."""
        return [*self._outside]

    def pause(self, partitions: Sequence[Partition]) -> None:
        """Pause from outside.

        :raises ConsumerError: one of them isn't assigned.
        """
        assigned = self._inner.tell().keys()
        if set(partitions) - assigned:
            raise ConsumerError("cannot pause unassigned partitions")
        if len(set(partitions)) == len(assigned):
            self.is_all_paused = True
            if self._outside_before_all is None:
                self._outside_before_all = set(self._outside)
        self._pause_inner([each for each in partitions if each not in self._outside and each not in self._full])
        self._outside.update(partitions)

    def resume(self, partitions: Sequence[Partition]) -> None:
        """Take back a `pause`; what the gate paused stays so until there is room.

        :raises ConsumerError: one of them isn't assigned.
        """
        if set(partitions) - self._inner.tell().keys():
            raise ConsumerError("cannot resume unassigned partitions")
        self._resume_inner([each for each in partitions if each in self._outside and each not in self._full])
        self._outside.difference_update(partitions)
        self.is_all_paused = False
        if not self._outside:
            self._outside_before_all = None
        elif self._outside_before_all is not None:
            self._outside_before_all.difference_update(partitions)

    def apply(self, changes: Mapping[Partition, bool]) -> None:
        """The gate's partitions that became full (True) or drained (False)."""
        full = [each for each, is_full in changes.items() if is_full and each not in self._full]
        drained = [each for each, is_full in changes.items() if not is_full and each in self._full]
        self._pause_inner([each for each in full if each not in self._outside])
        self._resume_inner([each for each in drained if each not in self._outside])
        self._full.update(full)
        self._full.difference_update(drained)
        self.pauses += len(full)
        self.resumes += len(drained)

    def begin_anew(self, retained: Iterable[Partition]) -> None:
        """The strategy is rebuilt over these retained partitions: lift the old gate's pauses and the processor's.

        Within the callbacks of a rebalance, after which their fetching is to be woken: `wake_fetching`.
        """
        if self._outside_before_all is not None:
            # The processor has forgotten its pause of everything; what was paused before it stays so.
            self._outside = self._outside_before_all
            self._outside_before_all = None
            self.is_all_paused = False
        self._full.clear()
        read_on = [each for each in retained if each not in self._outside]
        if read_on:
            self._inner.resume(read_on)

    def let_go(self, partitions: Collection[Partition]) -> None:
        """These are being revoked: lift their pauses, and forget them.

        librdkafka keeps a partition's pause for the next assignment. Arroyo lifts it there, right after the partition's
        fetching has begun, and librdkafka may take the one for outdated by the other: then it never fetches it
        (librdkafka issue 5591; measured in 2.16.0: some 50 of a million assignments).
        """
        paused = [each for each in partitions if each in self._outside or each in self._full]
        if paused:
            self._inner.resume(paused)
        self.forget(partitions)

    def forget(self, partitions: Iterable[Partition]) -> None:
        """These are assigned anew, or revoked: none of them is paused."""
        partitions = list(partitions)
        self._outside.difference_update(partitions)
        self._full.difference_update(partitions)
        if self._outside_before_all is not None:
            self._outside_before_all.difference_update(partitions)

    def _pause_inner(self, partitions: Sequence[Partition]) -> None:
        if partitions:
            self._inner.pause(_Paused(partitions))

    def _resume_inner(self, partitions: Sequence[Partition]) -> None:
        if partitions:
            self._inner.resume(partitions)
            wake_fetching(self._inner, partitions)


class _Paused(list[Partition]):
    """Of which Arroyo's consumer asks for every assigned partition whether it is among them."""

    def __init__(self, partitions: Iterable[Partition]) -> None:
        super().__init__(partitions)
        self._members = frozenset(self)

    def __contains__(self, partition: object) -> bool:
        return partition in self._members


def wake_fetching(consumer: Consumer[Any], partitions: Iterable[Partition]) -> None:
    """See that these partitions, which were resumed, are fetched at once; those that aren't assigned are left out.

    A resumed partition is fetched when librdkafka's broker thread wakes, which takes up to a second if all were paused.
    A seek, even to where it is, wakes it (measured: 3 ms instead of 700).
    """
    tell = consumer.tell()
    positions = {partition: tell[partition] for partition in partitions if partition in tell}
    for partition, position in positions.items():
        with suppress(KafkaException):  # it isn't fetched yet, as right after a rebalance, and is soon
            consumer.seek({partition: position})
