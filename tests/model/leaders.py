"""The published offsets of the leader groups, explored: `LeaderOffsets` against an obvious reference of its guarantees.

One partition, two groups, a commit log of two partitions (so that an older record may be read after a newer one), a
data topic that grows, and that is deleted and created anew while the partition isn't assigned.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from arroyo_sync.core.state import SynchronizedPartitionStateManager
from arroyo_sync.leaders.commit_report import FROM_BROKER, CommitReport
from arroyo_sync.leaders.leader_offsets import LeaderOffsets
from arroyo_sync.leaders.published_offset import PublishedOffset
from tests.model.judge import Violation
from tests.model.search import Search

KEY = ("events", 0)
GROUPS = ("a", "b")


class Record(NamedTuple):
    """One record of the commit log."""

    timestamp: int
    offset: int | None


@dataclass
class Group:
    """The reference: what one group published."""

    last: dict[int, Record] = field(default_factory=dict)
    """The last record of each partition of the commit log."""
    in_force: int | None = None
    """While the partition is assigned: the offset that counts."""
    doubts: list[int] = field(default_factory=list)
    """While it is assigned: what was published since, and isn't proven."""
    is_refuted: bool = False
    is_younger: bool = False
    """Whether the newest offset was published after the question that is under way was asked."""

    @property
    def newest(self) -> Record | None:
        return max(self.last.values(), key=self._rank, default=None)

    @property
    def offset(self) -> int | None:
        return None if self.newest is None else self.newest.offset

    @staticmethod
    def _rank(record: Record) -> tuple[int, float]:
        """The latest timestamp; on a tie the lowest offset; "unknown" is lower than any."""
        return record.timestamp, 1 if record.offset is None else -record.offset

    def judge_anew(self, is_assigned: bool, reach: int) -> None:
        """The newest offset is another one, or is doubted anew."""
        self.is_refuted = False
        if not is_assigned or self.offset is None:
            self.in_force, self.doubts = None, []
        elif self.offset <= reach:
            self.in_force, self.doubts = self.offset, []
        else:
            self.doubts.append(self.offset)
            self.is_younger = True

    def reached(self, reach: int) -> None:
        """The lowest of the doubted offsets comes into force once it is proven; the newest, if that is."""
        if self.offset is None or not any(each <= reach for each in self.doubts):
            return
        if self.offset <= reach:
            self.in_force, self.doubts = self.offset, []
        else:
            self.in_force, self.doubts = min(self.doubts), [self.offset]


class World:
    """The reference and the real thing, side by side."""

    def __init__(self) -> None:
        self.manager = SynchronizedPartitionStateManager()
        self.real = LeaderOffsets(GROUPS)
        self.real.attach(self.manager)
        self.cell = self.manager.cell(*KEY)
        self.real.enable()
        self.is_open = True
        self.groups = {name: Group() for name in GROUPS}
        self.log_offset = 0
        self.end = 1
        """Where the partition truly ends."""
        self.cached = 0
        """Where the follower's client last saw it end; an earlier topic's, until it fetches."""
        self.is_assigned = False
        self.reach = 0
        self.received = 0
        """The offset after the last message that the follower received."""
        self.cached_before: int | None = None
        """What the client had cached at the assignment."""
        self.question: int | None = None
        """The one under way: when it was asked."""
        self.asked_before_assignment = False
        self.violations: list[Violation] = []

    # Actions.

    def publish(self, name: str, log_partition: int, record: Record) -> None:
        self.log_offset += 1
        report = CommitReport(KEY, name, record.offset, record.timestamp, log_partition, self.log_offset)
        self.real.apply([report], 0.0)
        group = self.groups[name]
        before = group.newest
        group.last.pop(FROM_BROKER, None)
        group.last[log_partition] = Record(*record)  # another one, though it may say the same
        if group.newest is not before:
            group.judge_anew(self.is_assigned, self.reach)

    def seed_from_committed(self, name: str, offset: int) -> None:
        self.real.seed_from_committed([(KEY, name, offset)], 0.0)
        group = self.groups[name]
        if not group.last:
            group.last[FROM_BROKER] = Record(-1, offset)
            group.judge_anew(self.is_assigned, self.reach)

    def forget_log_partition(self, log_partition: int) -> None:
        self.real.forget_log_partition(log_partition)
        for group in self.groups.values():
            before = group.newest
            group.last.pop(log_partition, None)
            if group.newest is not before:
                group.judge_anew(self.is_assigned, self.reach)

    def assign(self) -> None:
        self.real.assign({KEY: self.cached})
        self.is_assigned, self.reach, self.received = True, 0, 0
        self.cached_before, self.asked_before_assignment = self.cached, True
        for group in self.groups.values():
            if not group.is_refuted:
                group.in_force, group.doubts = None, []
                group.judge_anew(True, 0)

    def revoke(self) -> None:
        self.real.revoke([KEY])
        self.is_assigned = False
        for group in self.groups.values():
            group.in_force, group.doubts = None, []

    def receive(self) -> None:
        """One more message, as the gate notes it: first its cell, then, if a doubt is resolved by it, the source."""
        self.received += 1
        self.cell.received = self.received
        if self.real.unverified.get(KEY, self.received + 1) <= self.received:
            self.real.received(KEY, self.received)
        self._reached(self.received)

    def grow(self) -> None:
        self.end += 1

    def fetch(self) -> None:
        """The follower's client learns the true end, and the source looks at it."""
        self.cached = self.end
        self.look_at_cache()

    def look_at_cache(self) -> None:
        self.real.cached({KEY: self.cached})
        if self.cached != self.cached_before:
            self._reached(self.cached)

    def ask(self) -> None:
        self.question = self.real.epoch
        self.asked_before_assignment = False
        for group in self.groups.values():
            group.is_younger = False

    def answer(self) -> None:
        assert self.question is not None
        epoch, self.question = self.question, None
        self.real.apply_end_offsets({KEY: self.end}, epoch)
        if not self.is_assigned or self.asked_before_assignment:
            return
        self._reached(self.end)
        for group in self.groups.values():
            if group.doubts and group.offset is not None:
                if group.is_younger:
                    group.doubts = [group.offset]
                else:
                    group.in_force, group.doubts, group.is_refuted = None, [], True

    def recreate(self) -> None:
        self.end = 0

    def shut(self) -> None:
        self.real.disable()
        self.is_open = False

    def open(self) -> None:
        self.real.enable()
        self.is_open = True

    def forget(self) -> None:
        self.real.forget([KEY])
        self.groups = {name: Group() for name in GROUPS}

    def _reached(self, offset: int) -> None:
        if self.is_assigned and offset > self.reach:
            self.reach = offset
            for group in self.groups.values():
                group.reached(offset)

    # Judging.

    def check(self) -> None:
        offsets = [group.offset for group in self.groups.values()]
        known = [offset for offset in offsets if offset is not None]
        remote = self.real.remote(KEY)
        if self.cell.remote != (remote if self.is_assigned else None):
            self.violations.append(Violation("State", f"the manager has {self.cell.remote}, not {remote}"))
        if remote is not None and (len(known) < len(offsets) or remote > min(known)):
            self.violations.append(Violation("Safety", f"the remote offset is {remote}, published are {offsets}"))
        if remote is not None and self.is_assigned and remote > self.end:
            self.violations.append(
                Violation("Safety", f"the remote offset is {remote}, the partition ends at {self.end}")
            )
        if remote != self._expected():
            self.violations.append(Violation("State", f"the remote offset is {remote}, not {self._expected()}"))
        doubts = [each for group in self.groups.values() for each in group.doubts]
        if self.real.unverified.get(KEY) != min(doubts, default=None):
            self.violations.append(Violation("Progress", f"in doubt is {dict(self.real.unverified)}, not {doubts}"))

    def _expected(self) -> int | None:
        in_force = []
        for group in self.groups.values():
            offset = group.in_force if self.is_assigned else group.offset
            if offset is None or group.is_refuted or not self.is_open:
                return None
            in_force.append(offset)
        return min(in_force)

    def fingerprint(self) -> int:
        epoch = self.question or 0
        trust = self.real._known_ends.get(KEY)
        claims = self.real._published.get(KEY) or [None] * len(GROUPS)
        each = sorted(
            hash(
                (
                    tuple(sorted(group.last.items(), key=hash)),
                    group.in_force,
                    tuple(group.doubts),
                    group.is_refuted,
                    group.is_younger,
                    _of_claim(claim, epoch),
                )
            )
            for group, claim in zip(self.groups.values(), claims, strict=True)
        )
        return hash(
            (
                tuple(each),
                (self.end, self.cached, self.is_assigned, self.reach, self.received, self.is_open),
                (self.cached_before, self.question is None, self.asked_before_assignment),
                (self.cell.remote, self.cell.received, self.cell.current),
                trust and (trust.end, trust.cached_end, trust.epoch > epoch),
            )
        )


def _of_claim(claim: PublishedOffset | None, question: int) -> object:
    if claim is None:
        return None
    rivals = None if claim.latest_by_log_partition is None else tuple(sorted(claim.latest_by_log_partition))
    return claim.latest[:3], rivals, claim.verified, claim.pending, claim.rejected, claim.epoch > question


Action = tuple[str, tuple[object, ...]]
"""A method of `World` and its arguments."""


@dataclass(frozen=True)
class Setup:
    records: tuple[Record, ...]
    """What leaders may publish. The partition ends at 1, and at 2 when it has grown: 3 is impossible."""
    log_partitions: tuple[int, ...] = (0,)
    is_short: bool = False
    """Whether to leave out what has nothing to do with records in two partitions of the commit log."""


class Plan(NamedTuple):
    setup: Setup
    depth: int
    """How deep the test run explores it."""


PLANS: Mapping[str, Plan] = {
    "published offsets": Plan(Setup(tuple(Record(1, offset) for offset in (None, 1, 2, 3))), 5),
    "records in two partitions of the commit log": Plan(
        Setup((Record(1, 1), Record(1, 2), Record(2, 1), Record(2, 2), Record(2, None)), (0, 1), is_short=True), 4
    ),
}


class Explorer(Search[Action]):
    """Explores what the leaders may publish, and what may be learnt of the partition's end."""

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        self.setup = setup

    def _expand(self, path: tuple[Action, ...]) -> Iterator[tuple[Action, ...]]:
        for action in self._actions(self._follow(path)):
            if self.setup.is_short and action[0] in (
                "seed_from_committed",
                "recreate",
                "fetch",
                "look_at_cache",
                "shut",
                "forget",
            ):
                continue
            extended = (*path, action)
            world = self._follow(extended)
            world.check()
            if self._note(extended, world.fingerprint(), world.violations):
                yield extended

    def _follow(self, path: tuple[Action, ...]) -> World:
        world = World()
        for name, arguments in path:
            getattr(world, name)(*arguments)
        return world

    def _actions(self, world: World) -> Iterator[Action]:
        for name, group in world.groups.items():
            for log_partition in self.setup.log_partitions:
                for record in self.setup.records:
                    yield "publish", (name, log_partition, record)
            if not group.last:
                yield "seed_from_committed", (name, 2)
        for log_partition in self.setup.log_partitions:
            yield "forget_log_partition", (log_partition,)
        yield "assign", ()
        if world.is_assigned:
            yield "revoke", ()
            if world.received < world.end:
                yield "receive", ()
        elif world.end:
            yield "recreate", ()
        if world.end < 2:
            yield "grow", ()
        yield "fetch", ()
        yield "look_at_cache", ()
        yield ("ask", ()) if world.question is None else ("answer", ())
        yield ("shut", ()) if world.is_open else ("open", ())
        yield "forget", ()
