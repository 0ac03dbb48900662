"""Rebalances as the processor sees them: every one as an eager one, retained partitions read again, starts committed.

Guarantees
    - The positions that an assignment begins at are committed before the gate exists; see `StartPositions`.
    - Partitions that are retained (KIP-848) are read again from the last offset that was staged for them, so nothing
      that the old gate held, and nothing that the processor carried, is lost.
    - They are fetched as soon as the rebalance is over.
    - What is committed of revoked partitions is of the topic that is there now; see `ReplacedLog.leave`.
    - The processor is told that they were revoked, and then assigned. Else it would keep what it buffered of them for
      the dead-letter queue, and buffer it once more as it is read again.

Threads: the processor's thread calls everything; the callbacks run inside the consumer's poll.

Source: ``arroyo/processing/processor.py`` of 2.48 empties its dead-letter buffer for revoked partitions alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from arroyo.backends.abstract import Consumer
from arroyo.types import Partition, Topic

from arroyo_sync.gate.consumer.pauses import Pauses, wake_fetching
from arroyo_sync.gate.consumer.start_positions import StartPositions
from arroyo_sync.kafka.arroyo_consumer import begin_earlier, declining_assignments

OnAssign = Callable[[Mapping[Partition, int]], None]
OnRevoke = Callable[[Sequence[Partition]], None]


class Rebalances:
    """Stands between the inner consumer's callbacks and the processor's.

    :param inner: the user's consumer.
    :param pauses: its pauses, of which those of the old gate and of the processor end with a rebuild.
    :param start: commits where an assignment begins.
    :param leave: called with all partitions once the processor has let go of those that are revoked.
    :param is_replaced: whether nothing may be committed any more; see `ReplacedLog`.
    :param is_closing: whether it is being closed. Closing hands out what lay in the client's queue, and then revokes
        all; no strategy is made in between.
    """

    def __init__(
        self,
        inner: Consumer[Any],
        pauses: Pauses,
        start: StartPositions,
        leave: Callable[[Collection[Partition]], None],
        is_replaced: Callable[[], bool],
        is_closing: Callable[[], bool],
    ) -> None:
        self._inner = inner
        self._leave = leave
        self._pauses = pauses
        self._start = start
        self._is_replaced = is_replaced
        self._is_closing = is_closing
        self.resume_offsets: dict[int, int] = {}
        """Per partition index the offset to go back to: the last one staged, or the one the assignment began at. By
        index, since it is written once a message and Arroyo's Partition is slow to hash."""
        self.retained: Collection[Partition] = ()
        """What the last rebalance left here, until `wake_retained`. Read by each poll without a message."""
        self._hidden: Collection[Partition] = ()  # partitions that `tell` leaves out; see `_hiding`

    def subscribe(
        self,
        topics: Sequence[Topic],
        on_assign: OnAssign | None,
        on_revoke: OnRevoke | None,
        on_nothing_left: Callable[[], None],
    ) -> None:
        """Subscribe the inner consumer.

        :param on_assign: the processor's, as ``on_revoke``.
        :param on_nothing_left: called when no partition is assigned any more.
        """

        def assigned(offsets: Mapping[Partition, int]) -> None:
            self._pauses.forget(offsets)
            earlier = self._start.earlier(offsets)
            if earlier:
                offsets = {**offsets, **earlier}
                begin_earlier(self._inner, offsets, earlier)
            for partition, offset in offsets.items():
                self.resume_offsets[partition.index] = offset
            if self._is_replaced():
                self._start.note(offsets)
            else:
                self._start.commit(offsets)
            retained = [each for each in self._inner.tell() if each not in offsets]
            if retained and on_revoke is not None:
                with self._hiding(offsets):
                    on_revoke(retained)
            retained_offsets = self._rewind(retained)
            if on_assign is not None:
                on_assign({**retained_offsets, **offsets})

        def revoked(partitions: Sequence[Partition]) -> None:
            if self._is_closing():
                self._pauses.forget(partitions)
            else:
                self._pauses.let_go(partitions)
            gone = set(partitions)
            retained = [each for each in self._inner.tell() if each not in gone]
            try:
                if on_revoke is not None:
                    on_revoke([*partitions, *retained])
            finally:
                if not self._is_closing():
                    self._leave([*partitions, *retained])
                self._start.forget(partitions)
            for partition in partitions:
                self.resume_offsets.pop(partition.index, None)
            if not retained or self._is_closing():
                on_nothing_left()
                return
            retained_offsets = self._rewind(retained)
            if on_assign is not None:
                with self._hiding(gone):
                    on_assign(retained_offsets)

        with declining_assignments(self._inner, self._is_closing):
            self._inner.subscribe(topics, on_assign=assigned, on_revoke=revoked)

    def tell(self) -> Mapping[Partition, int]:
        """The inner consumer's positions, of the partitions that are assigned as far as the processor knows."""
        tell = self._inner.tell()
        return {each: tell[each] for each in tell if each not in self._hidden} if self._hidden else tell

    def wake_retained(self) -> None:
        """The poll that the rebalance was in has returned: let the retained partitions be fetched again at once.

        librdkafka pauses them until the callbacks have returned, so no seek within them is of use.
        """
        retained, self.retained = self.retained, ()
        wake_fetching(self._inner, retained)

    def sought(self, partition: Partition, offset: int) -> None:
        """The partition is read on from here. What is held since lies below the last offset staged."""
        self.resume_offsets[partition.index] = min(offset, self.resume_offsets.get(partition.index, offset))

    def begin_elsewhere(self, partition: Partition, offset: int) -> None:
        """The first message of the assignment is held, and lies past the position that it was to begin at."""
        self.resume_offsets[partition.index] = offset
        if not self._is_replaced():
            self._start.stage({partition: offset})

    @contextmanager
    def _hiding(self, partitions: Collection[Partition]) -> Iterator[None]:
        """Within, `tell` leaves these out, which the inner consumer has already, or still."""
        self._hidden = partitions
        try:
            yield
        finally:
            self._hidden = ()

    def _rewind(self, retained: Collection[Partition]) -> Mapping[Partition, int]:
        """Seek retained partitions back, and lift the pauses of the old gate and of the processor, before a new gate.

        :returns: the offsets that their messages will begin at.
        """
        tell = self._inner.tell()
        back = {each: min(tell[each], self.resume_offsets.get(each.index, tell[each])) for each in retained}
        moved = {each: offset for each, offset in back.items() if offset != tell[each]}
        if moved:
            self._inner.seek(moved)
        self._pauses.begin_anew(retained)
        self.retained = retained
        return back
