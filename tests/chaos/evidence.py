"""The journals of a run, sorted for the judge. It shares no code with the package."""

from __future__ import annotations

import bisect
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

from tests.chaos.ingredients import CREATE_TIME, PLAIN, Ingredients
from tests.chaos.ownership import Member, seconds_without_owner

PartitionBuffer = list[Any]
Place = tuple[int, int]
"""Epoch and partition: of the data topic as it was created for the epoch-th time."""

APART_SECONDS = 0.5
"""How far a record's wall clock may lie from ours."""
POISON_TIMESTAMP = 1.0
"""In the strange records that the run itself writes."""
KNOWN_AFTER_SECONDS = 3.0
"""A follower that nothing hinders knows a record that has been in the commit log for so long."""
ASKED_EVERY_SECONDS = 30.0
"""How often a follower asks where its partitions end."""

CLOCK_SHIFTED, AHEAD_SECONDS = "clock shifted", 90.0
"""The fault's name, and by how much a leader's clock may be ahead where brokers take the time from it."""

WRITTEN_SECONDS = 10.0
"""Within which the brokers have a dead letter, one of them being away."""


class Delivery(NamedTuple):
    """A message that came out of a gate."""

    time: float
    process: str
    assignment: int
    epoch: int
    partition: int
    offset: int
    worked_seconds: float = 0.0
    """How long the step took over it."""

    @property
    def place(self) -> Place:
        return self.epoch, self.partition


class Rewind(NamedTuple):
    """A leader group's partition that was set back to an offset, and when the group published again, if it did."""

    time: float
    published_at: float | None
    offset: int


class Round(NamedTuple):
    number: int
    acked_by: float
    deadline: float
    still: frozenset[int]


class LogRecord(NamedTuple):
    """A record of the commit log: Unix seconds, key and value."""

    wall_time: float
    key: bytes | None
    value: bytes | None


class Told(NamedTuple):
    """What a follower's process said, from warnings on, or with its last line."""

    time: float
    process: str
    group: str
    level: str
    text: str


class Wanted(NamedTuple):
    """What a follower group must say within a time."""

    began: float
    deadline: float
    group: str
    pattern: str


class Stopped(NamedTuple):
    """A process that was asked to end at that time, and how long it took."""

    time: float
    process: str
    seconds: float


class Complaint(NamedTuple):
    """Something that no process of the package may ever show."""

    time: float
    process: str
    line: str


class Reach:
    """By when something had reached which offset."""

    def __init__(self, steps: Sequence[tuple[float, int]]) -> None:
        self._offsets: list[int] = []
        self._times: list[float] = []
        for time, offset in sorted(steps):
            if not self._offsets or offset > self._offsets[-1]:
                self._offsets.append(offset)
                self._times.append(time)

    def time_of(self, offset: int) -> float:
        """When it first reached this offset or one beyond; infinity: never."""
        index = bisect.bisect_left(self._offsets, offset)
        return self._times[index] if index < len(self._times) else float("inf")


@dataclass
class Follower:
    name: str
    group: str
    began_at: float
    deliveries: list[Delivery] = field(default_factory=list)
    held: list[tuple[float, int]] = field(default_factory=list)
    limit: int | None = None
    assignments: int = 0


class Evidence:
    """What the journals and the commit log say."""

    def __init__(
        self,
        journals: Mapping[str, Sequence[PartitionBuffer]],
        commit_log: Sequence[LogRecord] = (),
        dead_letters: Mapping[str, Sequence[LogRecord]] = MappingProxyType({}),
    ) -> None:
        self.invalid: dict[str, list[tuple[Place, int, str]]] = defaultdict(list)
        """By follower group: the messages that named themselves as invalid, with their payloads. Not those of processes
        that were killed soon after: Arroyo waits for a dead letter before it commits the same partition, but not before
        a commit of another one takes its offset along."""
        self.refused: dict[str, set[str]] = defaultdict(set)
        """By follower group: the payloads of which the brokers took no dead letter at least once. Arroyo drops those,
        and commits past them."""
        self.dead_letters = {
            group: {(each.value or b"").decode() for each in letters} for group, letters in dead_letters.items()
        }
        """The payloads, by the groups that have a topic for them."""
        self.followers: list[Follower] = []
        self.acked: dict[Place, list[tuple[int, float]]] = defaultdict(list)
        self.epochs: list[tuple[float, int]] = []
        self.deleted: dict[Place, list[tuple[float, int]]] = defaultdict(list)
        self.faults: list[tuple[str, float, float]] = []
        """Kind, beginning and end; those that were skipped half-way, too."""
        self.open_transactions: list[tuple[float, float]] = []
        """From when until when the producer had one that was open for long."""
        self.told: list[Told] = []
        self.wanted: list[Wanted] = []
        self.stopped: list[Stopped] = []
        self.group_of: dict[str, str] = {}
        """By process."""
        self.exits: list[PartitionBuffer] = []
        self.in_vain: list[tuple[float, str]] = []
        """What the driver has waited for, and until when."""
        self.complaints: list[Complaint] = []
        self.rounds: list[Round] = []
        self.committed: list[tuple[str, Place, int]] = []
        self.leader_groups: set[str] = set()
        self.hindered: list[tuple[float, float, str]] = []
        """Since, until, and what: "cluster", a follower group, or a partition."""
        self.ingredients = PLAIN
        self.clocks_ahead: list[tuple[str, float]] = []
        """Leader groups of which a process's clock was ahead, and until when what it reported was from the future."""
        self._started: list[tuple[float, str]] = []
        self.is_whole_run = False
        """Whether the driver came to the end: then each group of the world was there, and each round had something."""
        self._assigned: list[tuple[float, str, int, int]] = []
        # By process, when it got which partitions.
        self._assigned_to: dict[str, list[tuple[float, frozenset[int]]]] = defaultdict(list)
        self._superseded: dict[Place, set[int]] = defaultdict(set)
        self._last_of_key: dict[tuple[Place, str], int] = {}
        self._unheard: set[str] = set()
        # By process, the time of its last line.
        self._ended_at: dict[str, float] = {}
        # By place, the time of the election that took away what lay beyond an offset, and that offset.
        self._truncated: dict[Place, tuple[float, int]] = {}
        self._done: dict[tuple[str, Place], list[tuple[float, int]]] = defaultdict(list)
        self._wall_ahead = 0.0
        rewound: list[tuple[float, str, Place, int]] = []
        for name, lines in journals.items():
            self._take_in(name, lines, rewound)
        self._acked_offsets = {place: {offset for offset, _ in acked} for place, acked in self.acked.items()}
        self._begins: dict[tuple[str, Place], int] = {}
        self._begins_at: dict[tuple[str, Place], float] = {}
        for at, of, partition, offset in sorted(self._assigned):
            key = of, (self.epoch_at(at), partition)
            self._begins.setdefault(key, offset)
            self._begins_at.setdefault(key, at)
        self._note_clocks_ahead()
        self.told += [
            Told(time, name, self.group_of.get(name, ""), "EXIT", last_line)
            for _, time, name, _, last_line, _ in self.exits
        ]
        self._rewinds: dict[tuple[str, Place], list[Rewind]] = defaultdict(list)
        self._reports = _reports(commit_log, self._wall_ahead)
        for time, group, place, offset in sorted(rewound):
            later = [each for each, _ in self._reports.get((group, place[1]), ()) if each > time]
            self._rewinds[group, place].append(Rewind(time, min(later, default=None), offset))
        # By group and place the reach since each rewind; the first one is since the beginning.
        self._reaches: dict[tuple[str, Place], list[Reach]] = {}
        for key, steps in self._done.items():
            # What lies below where a group was set back to it needn't commit again.
            since = [(float("-inf"), -1), *((each.time, each.offset - 1) for each in self._rewinds.get(key, ()))]
            self._reaches[key] = [Reach([begin, *(step for step in steps if step[0] > begin[0])]) for begin in since]

    def committed_at(self, group: str, place: Place, offset: int) -> float:
        """When a leader group first passed the message to ``commit``; infinity: never."""
        reaches = self._reaches.get((group, place))
        return reaches[0].time_of(offset) if reaches else float("inf")

    def committed_since_rewind(self, group: str, delivery: Delivery, follower: Follower) -> float | None:
        """The same since the last rewind that the follower knew of when it made the delivery; ``None``: of none."""
        key = group, delivery.place
        for index, rewind in reversed(list(enumerate(self._rewinds.get(key, ())))):
            if self._is_known(rewind, delivery.time, follower):
                reaches = self._reaches.get(key)
                return reaches[index + 1].time_of(delivery.offset) if reaches else float("inf")
        return None

    def is_told_of_what_is_gone(self, group: str, delivery: Delivery, follower: Follower) -> bool:
        """Whether the group's last word that the follower can know of is from before an election that took away the
        message at this offset, and nothing tells the follower that this is another one: it has begun since, or the
        partition has grown as far again before it asked."""
        before = delivery.epoch - 1, delivery.partition
        if before not in self._truncated:
            return False
        time, end = self._truncated[before]
        reported = max((offset for _, offset in self._done.get((group, before), ())), default=-1)
        grown_at = min((at for offset, at in self.acked[delivery.place] if offset >= reported), default=float("inf"))
        is_hidden = follower.began_at > time or grown_at < time + ASKED_EVERY_SECONDS
        heard_by = self.next_done(group, delivery.place, time) + KNOWN_AFTER_SECONDS
        return is_hidden and end <= delivery.offset <= reported and delivery.time < heard_by

    @property
    def rewinds(self) -> int:
        return sum(len(each) for each in self._rewinds.values())

    def first_offset(self, place: Place, time: float) -> int:
        """Below it, by then, records may have been deleted."""
        return max((before for since, before in self.deleted.get(place, ()) if since <= time), default=0)

    def begins(self, group: str, place: Place) -> float:
        """From which offset on a follower group is to get messages; infinity: it never was told of any."""
        return self._begins.get((group, place), float("inf")) if group in self.ingredients.from_the_end else 0

    def has_begun(self, group: str, place: Place, time: float) -> bool:
        """Whether it was told of any by then; one that begins at the beginning needn't be."""
        return group not in self.ingredients.from_the_end or self._begins_at.get((group, place), float("inf")) <= time

    def had(self, process: str, partition: int, time: float) -> bool:
        """Whether the partition was among those of the process's last assignment by then."""
        assignments = self._assigned_to.get(process, [])
        index = bisect.bisect_right(assignments, time, key=lambda each: each[0])
        return index > 0 and partition in assignments[index - 1][1]

    def seconds_without_owner(self, group: str, partition: int, begin: float, end: float) -> float:
        """For how much of that time no member of the group had the partition, and librdkafka is to blame (see
        `ownership`)."""
        if not any(each.group == group and each.protocol == "kip848" for each in self.ingredients.followers):
            return 0.0
        members = [
            Member(each.began_at, self._ended_at[each.name], self._assigned_to[each.name], each.name in self._unheard)
            for each in self.followers
            if each.group == group
        ]
        return seconds_without_owner(members, partition, begin, end)

    def must_come(self, place: Place, offset: int) -> bool:
        """Whether there is a message at this offset, as far as is known, which nobody but a deletion takes away.

        A compacted topic loses those whose key is used again; one with transactions has none where they were aborted,
        or end.
        """
        if place in self._truncated and offset >= self._truncated[place][1]:
            return False
        if not self.ingredients.data.has_gaps:
            return True
        return offset in self._acked_offsets.get(place, ()) and offset not in self._superseded[place]

    def is_hindered(self, begin: float, end: float, *what: str) -> bool:
        return any(each in what and since < end and until > begin for since, until, each in self.hindered)

    def epoch_at(self, time: float) -> int:
        return max((each for each in self.epochs if each[0] <= time), default=(0.0, 1))[1]

    def _is_known(self, rewind: Rewind, time: float, follower: Follower) -> bool:
        if rewind.published_at is None:
            return False
        begin = rewind.published_at - APART_SECONDS
        if follower.began_at > rewind.published_at + 2 * APART_SECONDS:
            return not self.is_hindered(begin, follower.began_at, "cluster")  # it was in the log, and is replayed
        if time < rewind.published_at + KNOWN_AFTER_SECONDS:
            return False
        return not self.is_hindered(begin, time, "cluster", follower.group)

    def _take_in(
        self, name: str, lines: Sequence[PartitionBuffer], rewound: list[tuple[float, str, Place, int]]
    ) -> None:
        follower = Follower(name, "", 0.0)
        group = ""
        self._ended_at[name] = max((line[1] for line in lines), default=0.0)
        for line in lines:
            kind, time, *values = line
            match kind, values:
                case "begin", [group, role]:
                    self.group_of[name] = group
                    if role == "leader":
                        self.leader_groups.add(group)
                    elif role == "follower":
                        follower = Follower(name, group, time)
                        self.followers.append(follower)
                case "out", [assignment, epoch, partition, offset, _, *worked]:
                    follower.deliveries.append(Delivery(time, name, assignment, epoch, partition, offset, *worked))
                case "invalid", [epoch, partition, offset, payload] if lines[-1][1] > time + WRITTEN_SECONDS:
                    self.invalid[group].append(((epoch, partition), offset, payload))
                case "refused", [payload, _]:
                    self.refused[group].add(payload)
                case "done", [epoch, partition, offset]:
                    self._done[group, (epoch, partition)].append((time, offset))
                case "acked", [epoch, partition, offset, _, *key]:
                    self.acked[epoch, partition].append((offset, time))
                    if key:
                        self._supersede((epoch, partition), key[0], offset)
                case "open", [began]:
                    self.open_transactions.append((began, time))
                case "held", [messages]:
                    follower.held.append((time, messages))
                case "limit", [messages]:
                    follower.limit = messages
                case "assigned", [_, positions]:
                    follower.assignments += 1
                    self._assigned += [(time, group, int(index), offset) for index, offset in positions.items()]
                    self._assigned_to[name].append((time, frozenset(map(int, positions))))
                case "told", [level, _, text]:
                    self.told.append(Told(time, name, group, level, text))
                case "clock", [wall_time]:
                    self._wall_ahead = wall_time - time
                case "epoch", [epoch]:
                    self.epochs.append((time, epoch))
                case "deleted", [epoch, partition, before]:
                    self.deleted[epoch, partition].append((time, before))
                case "rewound", [of, epoch, partition, offset]:
                    rewound.append((time, of, (epoch, partition), offset))
                case "fault", [_, what, _, began]:
                    self.faults.append((what, began, time))
                case "skipped", [what, began]:
                    self.faults.append((what, began, time))
                case "ingredients", [ingredients]:
                    self.ingredients = Ingredients.from_json(ingredients)
                case "unheard", [process]:
                    self._unheard.add(process)
                case "ended", []:
                    self.is_whole_run = True
                case "truncated", [epoch, partition, end]:
                    self._truncated[epoch, partition] = time, end
                case "wanted", [pattern, of, deadline]:
                    self.wanted.append(Wanted(time, deadline, of, pattern))
                case "started", [process]:
                    self._started.append((time, process))
                case "stopped", [process, seconds]:
                    self.stopped.append(Stopped(time, process, seconds))
                case "hindered", [what, until]:
                    self.hindered.append((time, until, what))
                case "exit", _:
                    self.exits.append(line)
                case "stuck", [text]:
                    self.in_vain.append((time, text))
                case "uncaught", [process, text]:
                    self.complaints.append(Complaint(time, process, text))
                case "round", [number, acked_by, deadline, still]:
                    self.rounds.append(Round(number, acked_by, deadline, frozenset(still)))
                case "committed", [of, epoch, partition, offset]:
                    self.committed.append((of, (epoch, partition), offset))

    def _note_clocks_ahead(self) -> None:
        """Where leaders write the time of their reports, a clock that is shifted is ahead (`process_faults`)."""
        if self.ingredients.commit_log.timestamps != CREATE_TIME:
            return
        for kind, began, ended in self.faults:
            for at, process in self._started if kind == CLOCK_SHIFTED else ():
                group = self.group_of.get(process, "")
                if began <= at <= ended and group in self.leader_groups:
                    slot = process.rpartition(".")[0]
                    later = [then for then, other in self._started if then > at and other.startswith(f"{slot}.")]
                    self.clocks_ahead.append((group, min(later, default=float("inf")) + AHEAD_SECONDS))

    def next_done(self, group: str, place: Place, time: float) -> float:
        """When the leader group next passed a message of the place to ``commit``; infinity: never."""
        return min((at for at, _ in self._done.get((group, place), ()) if at > time), default=float("inf"))

    def reports_past(self, group: str, place: Place, offset: int, before: float) -> float:
        """Since when, until ``before``, the group's last record has been past the offset, as the commit log has them.

        Two members that have a partition in turn may be in each other's way there: the first one's last record comes
        after the second one's. Who has no heartbeat sets that right with its next commit.
        """
        is_past, since = True, float("-inf")
        for time, reported in self._reports.get((group, place[1]), ()):
            if time > before:
                break
            if reported > offset and not is_past:
                since = time
            is_past = reported > offset
        return since if is_past else before

    def _supersede(self, place: Place, key: str, offset: int) -> None:
        """A message with this key was there: any older one may be compacted away."""
        older = self._last_of_key.get((place, key))
        if older is not None:
            self._superseded[place].add(min(older, offset))
        self._last_of_key[place, key] = offset if older is None else max(older, offset)


def _reports(commit_log: Sequence[LogRecord], wall_ahead: float) -> dict[tuple[str, int], list[tuple[float, int]]]:
    """By leader group and partition, what its records say and when they were written, on our clock, in that order."""
    reports: dict[tuple[str, int], list[tuple[float, int]]] = defaultdict(list)
    for record in sorted(commit_log, key=lambda each: each.wall_time):
        try:
            _, partition, group = (record.key or b"").decode().split(":", 2)
            value = json.loads(record.value or b"")
            if value["orig_message_ts"] == POISON_TIMESTAMP:
                continue
            index, offset = int(partition), int(value["offset"])
        except (ValueError, TypeError, KeyError, OverflowError):
            continue  # another strange record
        reports[group, index].append((record.wall_time - wall_ahead, offset))
    return reports
