"""The promises, judged from the outside: from what Kafka, the leaders, the processor and the next step see.

Shares no code with the package, and is as plain as can be: lists and sets of offsets, nothing kept in step by hand that
can be computed anew.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Violation:
    promise: str
    detail: str


@dataclass
class Leader:
    """What one leader group published last of one partition."""

    newest: int | None = None
    last_possible: int | None = None
    """The newest one that lay within the partition; what lies beyond may not take its place."""
    is_refuted: bool = False
    """The broker was asked after an impossible offset: nothing of this group counts until it publishes again."""


@dataclass
class Watched:
    """One partition, as it is known outside the gate."""

    leaders: dict[str, Leader]
    end: int = 0
    reach: int = 0
    """Every offset below was taken by the gate, or told by the broker, since the partition was assigned."""
    is_assigned: bool = False
    next_offset: int = 0
    """The next offset that the processor will offer to the gate."""
    waiting: list[int] = field(default_factory=list)
    """Taken by the gate, not yet gone downstream."""
    in_flight: list[int] = field(default_factory=list)
    """Accepted by the next step, not yet finished."""
    through: set[int] = field(default_factory=set)
    """Finished, or invalid and handed to the processor, or skipped by the user's seek."""
    is_full: bool = False
    left_at: int | None = None
    """What the last gate would have handed on next, if the partition is retained since."""

    @property
    def may_release(self) -> int | None:
        """Safety: nothing at or past this may go downstream."""
        lowest: int | None = None
        for leader in self.leaders.values():
            if leader.newest is None or leader.is_refuted:
                return None
            allowed = leader.newest if leader.newest <= self.end else leader.last_possible
            if allowed is None:
                return None
            lowest = allowed if lowest is None else min(lowest, allowed)
        return lowest

    @property
    def must_release(self) -> int:
        """Progress: everything below must go downstream. What isn't proven by messages or the broker may wait."""
        proven = []
        for leader in self.leaders.values():
            if leader.newest is None or leader.is_refuted or leader.newest > self.reach:
                return 0
            proven.append(leader.newest)
        return min(proven)

    @property
    def local(self) -> int:
        return self.waiting[0] if self.waiting else self.next_offset

    def is_due(self, known: int) -> bool:
        """Whether the oldest waiting message should have gone, by what is published now and what was known before."""
        return bool(self.waiting) and self.waiting[0] < min(known, self.must_release)

    def missing_below(self, offset: int) -> list[int]:
        """The messages below that haven't even been accepted."""
        return [each for each in range(offset) if each not in self.through and each not in self.in_flight]


ROUND_MESSAGES = 2
"""So many of a partition go on between two messages that the consumer brings."""


class Judge:
    """Collects violations.

    :param limit: how many messages a partition may hold.
    :param resume: a full partition takes messages again once it holds no more than this.
    :param is_wrapped: whether the flow control is there; without it nothing is promised of time and pauses.
    """

    def __init__(
        self, partitions: Iterable[int], groups: Iterable[str], limit: int, resume: int, is_wrapped: bool = True
    ) -> None:
        names = list(groups)
        self.partitions = {index: Watched({name: Leader() for name in names}) for index in partitions}
        self.limit = limit
        self.resume = resume
        self.is_wrapped = is_wrapped
        self.violations: list[Violation] = []
        self.is_dead = False
        self.user_paused: set[int] = set()
        self.processor_paused: set[int] = set()
        self.has_strategy = False
        # Of the call to the gate that is running.
        self.must_refuse = False
        self.known: dict[int, int] = {}
        self.offer: tuple[int, int] | None = None
        self.was_interrupted = False
        self.was_rejected = False
        """Whether the next step rejected the last message that it was given."""
        self.was_offer_rejected = False
        """Whether it rejected the processor's message since the last poll. The next one may leave the room to that."""
        self.was_room_left = False
        """Whether the last poll did."""
        self.was_message_taken = False
        """Whether the gate took a message since the last poll: then the next one need only forward a round."""
        self.forwarded: Counter[int] = Counter()
        """How many messages of each partition went on in the call that is running."""
        self.submits = 0
        self.states: dict[int, object] = {}

    def violation(self, promise: str, detail: str) -> None:
        self.violations.append(Violation(promise, detail))

    # Kafka and the leaders.

    def produced(self, partition: int, end: int) -> None:
        self.partitions[partition].end = end

    def published(self, partition: int, group: str, offset: int | None) -> None:
        leader = self.partitions[partition].leaders[group]
        leader.newest, leader.is_refuted = offset, False
        if offset is None or offset <= self.partitions[partition].end:
            leader.last_possible = offset

    def broker_told_ends(self, partitions: Collection[int]) -> None:
        for index in partitions:
            watched = self.partitions[index]
            if watched.is_assigned:
                watched.reach = watched.end
                for leader in watched.leaders.values():
                    if leader.newest is not None and leader.newest > watched.end:
                        leader.is_refuted = True

    def source_died(self) -> None:
        self.is_dead = True

    def follower_started(self) -> None:
        """A new process, which knows nothing, and is told by the commit log what was published last."""
        self.strategy_ended()
        self.is_dead = self.was_rejected = False
        self.was_offer_rejected = self.was_room_left = self.was_message_taken = False
        self.user_paused.clear()
        self.states.clear()
        for watched in self.partitions.values():
            watched.left_at = None
            for leader in watched.leaders.values():
                leader.is_refuted = False
                if leader.newest is not None and leader.newest > watched.end:
                    leader.last_possible = None

    # The consumer.

    def strategy_made(self, positions: Mapping[int, int], consumer_positions: Mapping[int, int]) -> None:
        """A new assignment begins, retained partitions included."""
        self.was_offer_rejected = self.was_room_left = self.was_message_taken = False
        for partition, watched in self.partitions.items():
            watched.is_assigned = partition in positions
            watched.waiting, watched.in_flight, watched.is_full = [], [], False
            if not watched.is_assigned:
                continue
            watched.reach = 0
            watched.next_offset = positions[partition]
            if watched.left_at is not None and watched.left_at < positions[partition]:
                self.violation("No loss", f"p{partition} goes on at {positions[partition]}, past {watched.left_at}")
            if missing := watched.missing_below(positions[partition]):
                self.violation("No loss", f"p{partition} goes on at {positions[partition]}, {missing} are left out")
            if consumer_positions[partition] != positions[partition]:
                self.violation(
                    "Order", f"p{partition}: the gate begins at {positions[partition]}, the consumer elsewhere"
                )
        self.processor_paused.clear()
        self.has_strategy = True

    def moved(self, partitions: Iterable[int]) -> None:
        """These are assigned or revoked: nobody has paused them."""
        for partition in partitions:
            self.partitions[partition].left_at = None
        self.user_paused.difference_update(partitions)

    def strategy_ended(self) -> None:
        for watched in self.partitions.values():
            watched.left_at = watched.local if watched.is_assigned else None
            watched.waiting, watched.in_flight, watched.is_full = [], [], False
            watched.is_assigned = False
        self.processor_paused.clear()
        self.has_strategy = False

    def inner_polled(self, timeout: float | None, paused: Iterable[int], states: Mapping[int, object]) -> None:
        """The inner consumer is polled: the moment at which pauses count."""
        if not self.is_wrapped or not self.has_strategy:
            return
        outside = self.user_paused | self.processor_paused
        expected = outside | {partition for partition, watched in self.partitions.items() if watched.is_full}
        if set(paused) != expected:
            self.violation("Independence", f"paused are {sorted(paused)}, but should be {sorted(expected)}")
        if timeout == 0:
            return
        for partition, watched in self.partitions.items():
            if watched.waiting:
                self.violation("Progress", f"blocks for {timeout} s while p{partition} holds {watched.waiting}")
            if watched.is_assigned:
                self._check_state(partition, watched, states.get(partition))

    def slept(self, seconds: float) -> None:
        """The wrapper waited so long, for nothing; or the gate did for a moment, before a line that opened drains."""
        if seconds < 0.001:
            return
        if seconds > (0.010 if self._is_any_open() else 0.250):
            self.violation("Progress", f"sleeps for {seconds} s while something is held")
        for partition, watched in self.partitions.items():
            if watched.is_due(watched.must_release) and not self.was_rejected:
                self.violation("Progress", f"sleeps while p{partition} has released messages: {watched.waiting}")

    def _is_any_open(self) -> bool:
        """Whether a partition's next message would go through as it comes.

        None comes while the processor has paused all: the one that was rejected is tried as often as without a gate.
        """
        return any(
            watched.is_assigned and not watched.waiting and watched.next_offset < watched.must_release
            for index, watched in self.partitions.items()
            if index not in self.processor_paused
        )

    def user_sought(self, partition: int, offset: int) -> None:
        watched = self.partitions[partition]
        watched.through.update(range(watched.next_offset, offset))
        watched.waiting = [each for each in watched.waiting if each < offset]
        if offset < watched.next_offset:
            watched.reach = 0
        watched.next_offset = offset
        self._mark_full(watched)

    def staged(self, partition: int, offset: int) -> None:
        watched = self.partitions[partition]
        if missing := [each for each in range(offset) if each not in watched.through]:
            self.violation("No loss", f"p{partition}: {offset} is committed, {missing} have not gone through")

    # The gate, called by the processor.

    def call_begins(self, partition: int | None = None, offset: int | None = None) -> None:
        self.must_refuse = self.is_dead
        self.known = {index: watched.must_release for index, watched in self.partitions.items()}
        self.was_interrupted = False
        self.forwarded.clear()
        if partition is not None and offset is not None and offset == self.partitions[partition].next_offset:
            self.offer = (partition, offset)  # else the processor carried it over a seek: it must not be handed on

    def offer_ended(self, partition: int, offset: int, was_taken: bool) -> None:
        """``submit`` returned: the message went on, or is held. Or it raised, and the processor keeps the message."""
        watched = self.partitions[partition]
        self.was_offer_rejected = not was_taken and self.was_rejected
        self.was_message_taken = was_taken
        if was_taken and offset == watched.next_offset:
            if self.offer is not None:
                watched.waiting.append(offset)
            watched.reach = max(watched.reach, offset + 1)
            watched.next_offset = offset + 1
            self._mark_full(watched)
            if len(watched.waiting) > self.limit:
                self.violation("Bounded", f"p{partition} holds {watched.waiting}, the limit is {self.limit}")
        self.offer = None

    def poll_ended(self) -> None:
        """Nothing released may be left when ``poll`` returns, unless the next step or the slice ended it.

        Or two messages of the partition went on, and others come; or the room is left to a message that was rejected,
        which happens once at a time.
        """
        may_leave_room = self.was_offer_rejected and not self.was_room_left
        is_round, self.was_message_taken = self.was_message_taken, False
        self.was_offer_rejected = self.was_room_left = False
        if self.must_refuse or self.was_interrupted:
            return
        for partition, watched in self.partitions.items():
            if not watched.is_due(self.known[partition]) or (is_round and self.forwarded[partition] >= ROUND_MESSAGES):
                continue
            if may_leave_room and not self.forwarded:
                self.was_room_left = True
            else:
                self.violation("Progress", f"p{partition} still holds {watched.waiting}, {watched.must_release} is due")

    # The next step.

    def submitted(self, partition: int, offset: int) -> None:
        watched = self.partitions[partition]
        self.submits += 1
        if self.must_refuse:
            self.violation("Safety", f"p{partition} offset {offset} was released by a gate whose source is dead")
        remote = watched.may_release
        if remote is None or offset >= remote:
            self.violation("Safety", f"p{partition} offset {offset} was released, the remote offset is {remote}")
        if not watched.is_assigned:
            self.violation("Order", f"p{partition} offset {offset} was released, the partition isn't assigned")
        if watched.waiting:
            due: int | None = watched.waiting[0]
        else:
            due = self.offer[1] if self.offer is not None and self.offer[0] == partition else None
        if offset != due:
            self.violation("Order", f"p{partition} offset {offset} was released, due was {due}")
        if missing := watched.missing_below(offset):
            self.violation("No loss", f"p{partition} offset {offset} was released, {missing} never were")

    def rejected(self) -> None:
        self.was_interrupted = self.was_rejected = True

    def accepted(self, partition: int, offset: int) -> None:
        self.was_rejected = False
        self.forwarded[partition] += 1
        self._take_out(partition, offset)
        self.partitions[partition].in_flight.append(offset)

    def finished(self, partition: int, offset: int) -> None:
        watched = self.partitions[partition]
        watched.in_flight.remove(offset)
        watched.through.add(offset)

    def invalid(self, partition: int, offset: int) -> None:
        """The next step named this message in an InvalidMessage."""
        self.was_rejected = False
        watched = self.partitions[partition]
        self._take_out(partition, offset)
        watched.in_flight = [each for each in watched.in_flight if each != offset]
        watched.through.add(offset)
        self.was_interrupted = True

    def slice_ended(self) -> None:
        self.was_interrupted = True

    # The state manager.

    def state_changed(self, partition: int, previous: object, state: object, offsets: tuple[int | None, ...]) -> None:
        before = self.states.get(partition)
        if previous is None and getattr(before, "name", None) == "UNKNOWN":
            before = None  # it wasn't assigned meanwhile, so it had left the manager
        if previous is not before:
            self.violation("State", f"p{partition}: from {previous}, but was {before}")
        if state is previous or getattr(state, "name", None) != state_of(*offsets):
            self.violation("State", f"p{partition}: to {state} with {offsets}")
        self.states[partition] = state

    def _check_state(self, partition: int, watched: Watched, entry: object) -> None:
        if not isinstance(entry, tuple):
            self.violation("State", f"p{partition} is assigned, and has no state")
            return
        state, (local, remote) = entry
        if local != watched.local:
            self.violation("State", f"p{partition}: the local offset is {local}, and should be {watched.local}")
        allowed = watched.may_release
        if remote is not None and (allowed is None or remote > allowed) and not self.is_dead:
            self.violation("Safety", f"p{partition}: the remote offset is {remote}, at most {allowed} is true")
        if (remote or 0) < watched.must_release and not self.is_dead:
            self.violation("Progress", f"p{partition}: the remote offset is {remote}, not {watched.must_release}")
        if getattr(state, "name", None) != state_of(local, remote):
            self.violation("State", f"p{partition}: {state} with {local} and {remote}")

    def _take_out(self, partition: int, offset: int) -> None:
        watched = self.partitions[partition]
        if offset in watched.waiting:
            watched.waiting.remove(offset)
            self._mark_full(watched)
        elif self.offer == (partition, offset):
            self.offer = None

    def _mark_full(self, watched: Watched) -> None:
        if len(watched.waiting) >= self.limit:
            watched.is_full = True
        elif len(watched.waiting) <= self.resume:
            watched.is_full = False


def state_of(local: int | None, remote: int | None) -> str:
    """The state's name, from the design's table."""
    if local is None or remote is None:
        return "UNKNOWN"
    return "LOCAL_BEHIND" if local < remote else "SYNCHRONIZED" if local == remote else "REMOTE_BEHIND"
