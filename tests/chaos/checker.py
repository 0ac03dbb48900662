"""The judge of a run: per promise, what was violated, with the events. It shares no code with the package.

    safety        a message came through before some leader group had passed it to ``commit``; after a rewind that the
                  follower knew of, before it was passed again
    order         within an assignment and partition the next offset didn't follow the last
    no loss       a later message came through, or was committed, and this one never did before; or it was committed,
                  found invalid, and is no dead letter where the group has them
    progress      in a quiet time, when all worked, a message that all leaders had committed didn't come through; or
                  nothing did, since nothing was acknowledged; or a group never took part
    independence  the same, while a leader of other partitions stood still
    bounded       a partition held more than its limit
    loud          a process ended by itself without one clear line, or not well though asked to; one of its threads
                  ended with an exception; a fault that needs a person wasn't told of, by name and in time; something
                  was told, or a process ended of something, that no fault explains (`tests.chaos.alarms`)
    out of the way  a process took longer to end than its work in flight explains; or a leader group had not committed,
                  at the end of a long round, what was acknowledged before it

A follower that begins at the end of its topic is to get all from where it was first assigned. A message of a compacted
topic whose key was used again may be missing, and so may what a transaction aborted.

What isn't judged: offsets that a group published before it was rewound, or before an election took messages away, and
that a follower may still believe (`Verdict.believed` counts what the latter released); progress while faults last;
anything of messages whose records were deleted before they came through (with them, the topic).
Messages may come through more than once, after a crash or a rebalance: these are counted.
"""

from __future__ import annotations

import bisect
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import NamedTuple

from tests.chaos.alarms import false_alarms, untold
from tests.chaos.evidence import Delivery, Evidence, Follower, LogRecord, PartitionBuffer, Place, Round
from tests.chaos.ingredients import GROUP_OFFSETS, OURS

PROMISES = ("safety", "order", "no loss", "progress", "independence", "bounded", "loud", "out of the way")
LONG_ROUND_SECONDS = 12.0
"""By the end of a round that took so long, leaders have committed what was acknowledged before it."""
REFORMED_SECONDS = 60.0
"""For so long a cluster that wasn't whole explains what the driver waits for in vain."""
LEADER_MARGIN_SECONDS = 3.0
"""A follower has at least this long to deliver what the leaders committed at the end of a round."""
BUSY_STEPS = 1.5
"""So many times as long as its step took over a message a process may have been at work on it."""
BUSY_PART = 0.75
"""What part of the time a slow follower has worked, at least, whose round wasn't long enough for its backlog."""
STANDS_STILL_SECONDS = 60.0
"""A partition that stands still for longer, while nothing that is journalled explains it, is stuck. It may take this
long after a crash: a dead member is missed, a replay is read, a quiet partition waits for a heartbeat."""
SETTLE_SECONDS = 20.0
"""For how long after its end something still explains that."""
HEARTBEAT_SECONDS = 10.0
"""Of a leader that has any."""
END_SECONDS = 10.0
"""A process may take so long to end, with one message in flight, on a busy machine."""


WRITERS = ("producer", "rubbish")
"""Processes of the world that stand in for other people's: how they end says nothing of the package. (An idempotent
producer of librdkafka may end with OUT_OF_ORDER_SEQUENCE_NUMBER after a broker was away.)"""


class Violation(NamedTuple):
    promise: str
    what: str


@dataclass(frozen=True)
class Verdict:
    violations: list[Violation]
    messages: int
    """Acknowledged by the brokers."""
    deliveries: int
    duplicates: int
    rewinds: int
    rounds: int
    assignments: int
    late_leaders: int
    """Messages that a leader had not committed by the end of a quiet round: they say nothing of the followers."""
    believed: int
    """Deliveries before the leader's commit, in place of messages that an election had taken away while the follower
    wasn't there, or between two of its questions: it can't tell, and FOLLOWERS.md says so."""
    nobodys: int
    """Messages that waited for a partition to have an owner at all, which librdkafka kept it from: see `ownership`."""
    release_seconds: tuple[float, float]
    """p50 and p99 over the quiet rounds, from the last leader's journal line to the follower's."""

    def counts(self) -> dict[str, int]:
        counted = Counter(violation.promise for violation in self.violations)
        return {promise: counted[promise] for promise in PROMISES}


def judge(
    journals: dict[str, list[PartitionBuffer]],
    commit_log: Sequence[LogRecord] = (),
    dead_letters: Mapping[str, Sequence[LogRecord]] = MappingProxyType({}),
) -> Verdict:
    """All journals of a run by file name, all records of its commit log, and by follower group its dead letters."""
    return _Judge(Evidence(journals, commit_log, dead_letters)).verdict()


class _Judge:
    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self._groups: dict[str, list[Follower]] = defaultdict(list)
        for follower in evidence.followers:
            self._groups[follower.group].append(follower)
        # By follower group: when each message came through first, and how many deliveries that makes.
        self._first: dict[str, dict[tuple[Place, int], float]] = {}
        for group, followers in self._groups.items():
            first = self._first[group] = {}
            for delivery in sorted(each for follower in followers for each in follower.deliveries):
                first.setdefault((delivery.place, delivery.offset), delivery.time)
        # By follower group and place, the lowest offset that came.
        self._lowest = {group: _lowest(first) for group, first in self._first.items()}
        self._works: dict[tuple[str, int], tuple[list[float], list[float]]] = {}
        self._late_leaders = self._believed = self._nobodys = 0
        self._release_seconds: list[float] = []

    def verdict(self) -> Verdict:
        evidence = self._evidence
        violations: list[Violation] = []
        for follower in evidence.followers:
            violations += self._early(follower)
            violations += self._out_of_order(follower)
            violations += self._over_limit(follower)
        for group in self._groups:
            violations += self._lost(group)
            violations += self._lost_letters(group)
            violations += self._stuck(group)
            violations += self._stood_still(group)
        violations += self._absent()
        violations += self._empty_rounds()
        violations += self._late()
        violations += self._in_vain()
        violations += self._unclear()
        violations += (
            Violation("loud", what) for what in (*untold(evidence, self._is_busy_everywhere), *false_alarms(evidence))
        )
        violations += self._slow_to_end()
        deliveries = sum(len(follower.deliveries) for follower in evidence.followers)
        times = sorted(self._release_seconds) or [0.0]
        return Verdict(
            violations,
            messages=sum(len(acked) for acked in evidence.acked.values()),
            deliveries=deliveries,
            duplicates=deliveries - sum(len(first) for first in self._first.values()),
            rewinds=evidence.rewinds,
            rounds=len(evidence.rounds),
            assignments=sum(follower.assignments for follower in evidence.followers),
            late_leaders=self._late_leaders,
            believed=self._believed,
            nobodys=self._nobodys,
            release_seconds=(times[len(times) // 2], times[int(len(times) * 0.99)]),
        )

    def _early(self, follower: Follower) -> Iterator[Violation]:
        for delivery in follower.deliveries:
            for group in sorted(self._evidence.leader_groups):
                committed = self._evidence.committed_at(group, delivery.place, delivery.offset)
                again = self._evidence.committed_since_rewind(group, delivery, follower)
                if committed > delivery.time and self._evidence.is_told_of_what_is_gone(group, delivery, follower):
                    self._believed += 1
                elif committed > delivery.time:
                    yield Violation("safety", f"{_at(delivery)}: {group} committed it {_when(committed)}")
                elif again is not None and again > delivery.time:
                    yield Violation(
                        "safety", f"{_at(delivery)}: {group}, which was set back, committed it again {_when(again)}"
                    )

    def _out_of_order(self, follower: Follower) -> Iterator[Violation]:
        last: dict[tuple[int, Place], int] = {}
        for delivery in follower.deliveries:
            key = delivery.assignment, delivery.place
            expected = last.get(key, delivery.offset - 1) + 1
            first = max(expected, self._evidence.first_offset(delivery.place, delivery.time))
            passed = (each for each in range(first, delivery.offset) if self._evidence.must_come(delivery.place, each))
            if delivery.offset < expected or next(passed, None) is not None:
                yield Violation("order", f"{_at(delivery)}: {expected} was next")
            last[key] = delivery.offset

    def _lost(self, group: str) -> Iterator[Violation]:
        passed: dict[Place, list[tuple[float, int, str]]] = defaultdict(list)
        for follower in self._groups[group]:
            for delivery in follower.deliveries:
                passed[delivery.place].append((delivery.time, delivery.offset, _at(delivery)))
        for of, place, offset in self._evidence.committed:
            if of == group:
                passed[place].append((float("inf"), offset, f"{group} has committed {offset} of {place}"))
        for place, events in passed.items():
            came: set[int] = set()
            begins = self._begins(group, place)
            if begins == float("inf"):
                continue
            next_missing = int(begins)
            for time, offset, what in sorted(events):
                next_missing = max(next_missing, self._evidence.first_offset(place, time))
                while next_missing in came:
                    came.discard(next_missing)
                    next_missing += 1
                missing = [
                    each
                    for each in range(next_missing, offset)
                    if each not in came and self._evidence.must_come(place, each)
                ]
                if missing:
                    yield Violation("no loss", f"{what}: {missing[0]} to {missing[-1]} ({len(missing)}) hadn't come")
                next_missing = max(next_missing, offset)
                if offset >= next_missing:
                    came.add(offset)

    def _lost_letters(self, group: str) -> Iterator[Violation]:
        """One that isn't committed is read again, and one of an earlier topic may be gone with it."""
        letters = self._evidence.dead_letters.get(group)
        committed = {place: offset for of, place, offset in self._evidence.committed if of == group}
        if letters is None:
            return
        for place, offset, payload in self._evidence.invalid.get(group, ()):
            is_there = offset >= self._evidence.first_offset(place, float("inf"))
            is_there = is_there and self._evidence.must_come(place, offset)
            is_there = is_there and payload not in self._evidence.refused[group]
            if is_there and offset < committed.get(place, 0) and payload not in letters:
                yield Violation("no loss", f"{group}: the invalid message {offset} of {place} is no dead letter")

    def _stuck(self, group: str) -> Iterator[Violation]:
        told: set[tuple[Place, int]] = set()
        unbegun: set[Place] = set()
        for each in self._evidence.rounds:
            epoch = self._evidence.epoch_at(each.acked_by)
            for place, acked in self._evidence.acked.items():
                if place[0] != epoch or place[1] in each.still:
                    continue
                if not self._has_begun(group, place, each.deadline):
                    if place not in unbegun and acked[0][1] <= each.acked_by:
                        unbegun.add(place)
                        yield Violation("progress", f"round {each.number}, {group}: no member has begun with {place}")
                    continue
                stuck = [
                    offset for offset in self._missing_in(each, group, place, acked) if (place, offset) not in told
                ]
                told.update((place, offset) for offset in stuck)
                if stuck:
                    promise = "independence" if each.still else "progress"
                    yield Violation(
                        promise,
                        f"round {each.number}, {group}: {len(stuck)} messages of {place}, from {min(stuck)} to "
                        f"{max(stuck)}, didn't come by {each.deadline:.3f}",
                    )

    def _has_begun(self, group: str, place: Place, time: float) -> bool:
        lowest = self._lowest[group].get(place)
        came = float("inf") if lowest is None else self._first[group][place, lowest]
        return self._evidence.has_begun(group, place, time) or came <= time

    def _begins(self, group: str, place: Place) -> float:
        """A topic may have been another one for a moment before the driver has noted that: what came tells, too."""
        begins = self._evidence.begins(group, place)
        return self._lowest[group].get(place, begins) if begins == float("inf") else begins

    def _missing_in(self, each: Round, group: str, place: Place, acked: Sequence[tuple[int, float]]) -> Iterator[int]:
        begins = max(self._evidence.first_offset(place, each.deadline), self._begins(group, place))
        for offset, time in acked:
            if time > each.acked_by or offset < begins or not self._evidence.must_come(place, offset):
                continue
            committed = max(self._evidence.committed_at(of, place, offset) for of in self._evidence.leader_groups)
            came = self._first[group].get((place, offset), float("inf"))
            if came <= each.deadline:
                if time > each.acked_by - 1.0:
                    self._release_seconds.append(came - committed)
            elif committed > each.deadline - LEADER_MARGIN_SECONDS:
                self._late_leaders += 1
            else:
                since = max(committed, time, self._clocks_until(place, offset))
                is_late = since <= each.deadline - LEADER_MARGIN_SECONDS
                if not is_late or self._is_busy(since, each.deadline, group, place):
                    continue
                # Who had it before the round met with faults, and may have been at it when it was killed.
                since = max(since, each.acked_by)
                if self._evidence.seconds_without_owner(group, place[1], since, each.deadline) == each.deadline - since:
                    self._nobodys += 1
                else:
                    yield offset

    def _stood_still(self, group: str) -> Iterator[Violation]:
        """Messages that came at last, but long after their leaders and brokers let them."""
        for place, acked in self._evidence.acked.items():
            worst: tuple[float, int, float] | None = None
            begins = self._begins(group, place)
            for offset, time in acked:
                came = self._first[group].get((place, offset))
                if came is None or offset < begins:
                    continue
                committed = max(self._evidence.committed_at(of, place, offset) for of in self._evidence.leader_groups)
                since = max(committed, time)
                if came - since > STANDS_STILL_SECONDS:  # of few; for all it would take long
                    since = max(since, self._clocks_until(place, offset), self._reported(group, place, offset, came))
                if came - since <= STANDS_STILL_SECONDS:
                    continue
                seconds = self._unexplained(since, came, group, place[1]) - self._worked(since, came, group, place)
                if seconds <= STANDS_STILL_SECONDS:
                    continue
                without_owner = self._evidence.seconds_without_owner(group, place[1], since, came)
                self._nobodys += without_owner > 0
                seconds -= without_owner
                if seconds > STANDS_STILL_SECONDS and (worst is None or seconds > worst[0]):
                    worst = seconds, offset, came
            if worst is not None:
                yield Violation(
                    "progress",
                    f"{group}: offset {worst[1]} of {place} came at {worst[2]:.3f}, having stood still for "
                    f"{worst[0]:.0f} s that nothing explains",
                )

    def _reported(self, group: str, place: Place, offset: int, came: float) -> float:
        """Since when the leaders that have no heartbeat have reported the message, as this follower group hears it."""
        ingredients = self._evidence.ingredients
        if any(each.group == group and each.source == GROUP_OFFSETS for each in ingredients.followers):
            return 0.0
        without_heartbeat = [each.group for each in ingredients.leaders if each.publishes != OURS]
        return max((self._evidence.reports_past(of, place, offset, came) for of in without_heartbeat), default=0.0)

    def _clocks_until(self, place: Place, offset: int) -> float:
        """Until when a report from the future may have counted for more than that of this message.

        Of a group's reports in two partitions of the commit log the later one counts, by the clock of its leader if the
        topic says so: until that time has come, and the group has reported again. Its heartbeat does, if it has one.
        """
        evidence = self._evidence
        heartbeats = {each.group for each in evidence.ingredients.leaders if each.publishes == OURS}
        return max(
            (
                until + HEARTBEAT_SECONDS if group in heartbeats else evidence.next_done(group, place, until)
                for group, until in evidence.clocks_ahead
                if evidence.committed_at(group, place, offset) < until
            ),
            default=0.0,
        )

    def _unexplained(self, begin: float, end: float, group: str, partition: int) -> float:
        """How much of that time nothing hindered the partition."""
        what = ("cluster", group, f"partition {partition}")
        seconds, at = 0.0, begin
        for since, until, each in sorted(self._evidence.hindered):
            if each in what and until + SETTLE_SECONDS > at and since < end:
                seconds += max(0.0, since - at)
                at = until + SETTLE_SECONDS
        return seconds + max(0.0, end - at)

    def _is_busy(self, begin: float, end: float, group: str, place: Place) -> bool:
        """Whether a group with a slow step has worked nearly all that time over other messages: its backlog is long."""
        if not any(each.group == group and each.step_seconds for each in self._evidence.ingredients.followers):
            return False
        seconds = self._unexplained(begin, end, group, place[1])
        return self._worked(begin, end, group, place) >= BUSY_PART * seconds

    def _is_busy_everywhere(self, begin: float, end: float, group: str) -> bool:
        epoch = self._evidence.epoch_at(end)
        places = [place for place in self._evidence.acked if place[0] == epoch]
        return bool(places) and all(self._is_busy(begin, end, group, place) for place in places)

    def _worked(self, begin: float, end: float, group: str, place: Place) -> float:
        """How much of that time the processes that had the partition spent in their own slow step, over other messages.

        What Python and the gate do beside it, on a busy machine, counts too, up to half as much.
        """
        seconds = 0.0
        for one in self._groups[group]:
            times, sums = self._work(one, place[1])
            seconds += sums[bisect.bisect_left(times, end)] - sums[bisect.bisect_right(times, begin)]
        return min(max(0.0, seconds), end - begin)

    def _work(self, one: Follower, partition: int) -> tuple[list[float], list[float]]:
        """When its deliveries were, and before each how long it had worked while it had the partition."""
        key = one.name, partition
        if key not in self._works:
            sums = [0.0]
            for each, after in pairwise([*one.deliveries, None]):
                assert each is not None
                longest = BUSY_STEPS * each.worked_seconds
                gap = longest if after is None else min(after.time - each.time, longest)
                sums.append(sums[-1] + (gap if self._evidence.had(one.name, partition, each.time) else 0.0))
            self._works[key] = [each.time for each in one.deliveries], sums
        return self._works[key]

    def _absent(self) -> Iterator[Violation]:
        """Groups of the world that no process was of, and a world in which nothing was written."""
        evidence = self._evidence
        if not evidence.is_whole_run:
            return
        there = {*evidence.leader_groups, *self._groups}
        for group in (*evidence.ingredients.leader_groups, *evidence.ingredients.follower_groups):
            if group not in there:
                yield Violation("progress", f"no process of {group} has begun")
        if not evidence.acked:
            yield Violation("progress", "nothing was acknowledged: nothing is judged")

    def _empty_rounds(self) -> Iterator[Violation]:
        """Rounds that judge nothing."""
        evidence, since = self._evidence, 0.0
        for each in evidence.rounds if evidence.is_whole_run else ():
            epoch = evidence.epoch_at(each.acked_by)
            if not any(
                place[0] == epoch and place[1] not in each.still and since < time <= each.acked_by
                for place, acked in evidence.acked.items()
                for _, time in acked
            ):
                yield Violation("progress", f"round {each.number}: nothing was acknowledged that it could judge")
            since = each.acked_by

    def _late(self) -> Iterator[Violation]:
        """Leader groups that stood still though nothing kept them from their work. A line a group."""
        evidence = self._evidence
        for group in sorted(evidence.leader_groups):
            for each in evidence.rounds:
                is_long = each.deadline - each.acked_by >= LONG_ROUND_SECONDS
                if not is_long or evidence.is_hindered(each.acked_by, each.deadline, "cluster"):
                    continue
                late = [
                    (place, offset)
                    for place, acked in evidence.acked.items()
                    if place[0] == evidence.epoch_at(each.acked_by) and place[1] not in each.still
                    for offset, time in acked
                    if time <= each.acked_by
                    and offset >= evidence.first_offset(place, each.deadline)
                    and evidence.must_come(place, offset)
                    and evidence.committed_at(group, place, offset) > each.deadline
                ]
                if late:
                    what = f"{group} had not committed {len(late)} messages, as {late[0]}, by {each.deadline:.3f}"
                    yield Violation("out of the way", f"round {each.number}: {what}")
                    break

    def _in_vain(self) -> Iterator[Violation]:
        for time, text in self._evidence.in_vain:
            if not self._evidence.is_hindered(time - REFORMED_SECONDS, time, "cluster"):
                yield Violation("progress", f"{time:.3f}: {text}")

    def _slow_to_end(self) -> Iterator[Violation]:
        """Processes of ours: a leader of another kind waits as long for its own producer as it likes."""
        others = {each.group for each in self._evidence.ingredients.leaders if each.publishes != OURS}
        for time, process, seconds in self._evidence.stopped:
            group = self._evidence.group_of.get(process, "")
            if group in others or seconds <= END_SECONDS:
                continue
            if not self._evidence.is_hindered(time, time + seconds, "cluster", group):
                yield Violation("out of the way", f"{time:.3f}: {process} took {seconds:.1f} s to end")

    def _over_limit(self, follower: Follower) -> Iterator[Violation]:
        over = [(time, held) for time, held in follower.held if follower.limit is not None and held > follower.limit]
        if over:
            yield Violation("bounded", f"{follower.name} held {over[0][1]} of at most {follower.limit} at {over[0][0]}")

    def _unclear(self) -> Iterator[Violation]:
        for _, time, name, status, last_line, is_clear in self._evidence.exits:
            if not is_clear and not name.startswith(WRITERS):
                yield Violation("loud", f"{time:.3f}: {name} ended with status {status}: {last_line}")
        for each in self._evidence.complaints:
            if not each.process.startswith(WRITERS):
                yield Violation("loud", f"{each.process}: {each.line}")


def _lowest(first: Mapping[tuple[Place, int], float]) -> dict[Place, int]:
    lowest: dict[Place, int] = {}
    for place, offset in first:
        lowest[place] = min(offset, lowest.get(place, offset))
    return lowest


def _at(delivery: Delivery) -> str:
    return (
        f"{delivery.time:.3f}: {delivery.process}, assignment {delivery.assignment}, delivered offset "
        f"{delivery.offset} of partition {delivery.partition}, epoch {delivery.epoch}"
    )


def _when(time: float) -> str:
    return "never" if time == float("inf") else f"at {time:.3f}"
