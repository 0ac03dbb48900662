"""The judge of a chaos run in worlds that aren't plain: gaps, other beginnings, partitions that stand still, ends."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from arroyo.types import Partition, Topic

from arroyo_sync.leaders.commit_log.record import CommitRecord, Skipped, decode
from tests.chaos import rubbish, snuba_leader
from tests.chaos.checker import END_SECONDS, HEARTBEAT_SECONDS, SETTLE_SECONDS, STANDS_STILL_SECONDS, judge
from tests.chaos.evidence import AHEAD_SECONDS, ASKED_EVERY_SECONDS, CLOCK_SHIFTED, KNOWN_AFTER_SECONDS, LogRecord
from tests.chaos.faults import FAULTS
from tests.chaos.ingredients import (
    ALL,
    CREATE_TIME,
    GROUP_OFFSETS,
    LOG_APPEND_TIME,
    OURS,
    PLAIN,
    SNUBA,
    WORLDS,
    CommitLog,
    DataTopic,
    Follower,
    Leader,
    draw,
    on_kafka,
)
from tests.chaos.journal import PartitionBuffer
from tests.chaos.processes import lost_heartbeats
from tests.chaos.snuba_leader import PublishAsSnuba
from tests.chaos.tally import Tally
from tests.chaos.test_chaos_checker import FOLLOWER, LEADER, acked, broken, done, journals, out
from tests.support.fakes import message


def made_of(**changes: Any) -> PartitionBuffer:
    return ["ingredients", 0.0, replace(PLAIN, **changes).as_json()]


TRANSACTIONAL = made_of(data=DataTopic("transactional"))
COMPACTED = made_of(data=DataTopic("compacted"))
LATEST = made_of(followers=(Follower("follower", "eager", reset="latest"),))
ROUND: PartitionBuffer = ["round", 12.0, 1, 3.0, 12.0, []]


def keyed(time: float, offset: int, key: str) -> PartitionBuffer:
    return [*acked(time, offset), key]


class TestGaps:
    """Offsets without a message are nobody's loss; a message is."""

    def test_markers_and_aborted_messages_may_be_stepped_over(self) -> None:
        written = [acked(1.0, 0), acked(1.0, 4)]
        assert (
            broken(judge(journals([out(2.0, 0), out(2.1, 4)], driver=[TRANSACTIONAL, ROUND], producer=written))) == {}
        )

    def test_a_committed_message_may_not(self) -> None:
        written = [acked(1.0, 0), acked(1.0, 2), acked(1.0, 4)]
        verdict = judge(journals([out(2.0, 0), out(2.1, 4)], driver=[TRANSACTIONAL], producer=written))
        assert broken(verdict) == {"order": 1, "no loss": 1}

    def test_what_was_never_acknowledged_may_come_in_its_place(self) -> None:
        """Its acknowledgement was lost."""
        verdict = judge(journals([out(2.0, 0), out(2.1, 3)], driver=[TRANSACTIONAL], producer=[acked(1.0, 0)]))
        assert broken(verdict) == {}

    def test_a_message_whose_key_was_used_again_may_be_missing(self) -> None:
        written = [keyed(1.0, 0, "a"), acked(1.0, 1), keyed(1.0, 2, "a")]
        assert broken(judge(journals([out(2.0, 1), out(2.1, 2)], driver=[COMPACTED, ROUND], producer=written))) == {}

    def test_the_last_one_with_its_key_may_not(self) -> None:
        written = [keyed(1.0, 0, "a"), keyed(1.0, 1, "b"), acked(1.0, 2), keyed(1.0, 3, "a")]
        verdict = judge(journals([out(2.0, 2), out(2.1, 3)], driver=[COMPACTED, ROUND], producer=written))
        assert broken(verdict) == {"no loss": 1, "progress": 1}


class TestBeginnings:
    """A group that begins at the end is to get all from its first assignment on, and nothing before."""

    def test_what_lies_before_isnt_missed(self) -> None:
        assigned: PartitionBuffer = ["assigned", 1.5, 1, {"0": 5}]
        verdict = judge(
            journals([assigned, out(2.0, 5)], driver=[LATEST, ROUND], producer=[acked(1.0, 4), acked(1.0, 5)])
        )
        assert broken(verdict) == {}

    def test_a_later_beginning_is_a_loss(self) -> None:
        """The first one counts, whatever a restart resolves anew."""
        lines: list[PartitionBuffer] = [["assigned", 1.5, 1, {"0": 5}], ["assigned", 1.8, 2, {"0": 7}]]
        written = [acked(1.6, offset) for offset in (5, 6, 7)]
        verdict = judge(journals([*lines, out(2.0, 7, assignment=2)], driver=[LATEST, ROUND], producer=written))
        assert broken(verdict) == {"no loss": 1, "progress": 1}
        assert "5 to 6" in verdict.violations[0].what

    def test_a_group_that_has_not_begun_with_a_partition_by_the_end_of_a_round_is_stuck(self) -> None:
        """The driver waits for that; what lay there before is nobody's loss."""
        assert broken(judge(journals([], driver=[LATEST, ROUND], producer=[acked(1.0, 4)]))) == {"progress": 1}
        later: PartitionBuffer = ["assigned", 13.0, 1, {"0": 5}]
        assert broken(judge(journals([later], driver=[LATEST, ROUND], producer=[acked(1.0, 4)]))) == {"progress": 1}
        in_time: PartitionBuffer = ["assigned", 11.0, 1, {"0": 5}]
        assert broken(judge(journals([in_time], driver=[LATEST, ROUND], producer=[acked(1.0, 4)]))) == {}


class TestTruncation:
    """An election took away what lay beyond an offset: that is gone, and the rest isn't."""

    TRUNCATED: ClassVar[PartitionBuffer] = ["truncated", 5.0, 1, 0, 1]

    def test_what_was_taken_away_is_not_missed(self) -> None:
        committed: PartitionBuffer = ["committed", 9.0, "follower", 1, 0, 3]
        verdict = judge(journals([out(2.0, 0)], driver=[self.TRUNCATED, committed]))
        assert broken(verdict) == {}

    def test_what_lies_before_is(self) -> None:
        committed: PartitionBuffer = ["committed", 9.0, "follower", 1, 0, 3]
        assert broken(judge(journals([], driver=[self.TRUNCATED, committed]))) == {"no loss": 1}

    EPOCH: ClassVar[PartitionBuffer] = ["epoch", 6.0, 2]
    REPORTED: ClassVar[PartitionBuffer] = done(4.0, 7)
    LATER: ClassVar[PartitionBuffer] = ["begin", 7.0, "follower", "follower"]

    def early(
        self,
        *leader: PartitionBuffer,
        at: float = 8.0,
        offset: int = 3,
        begin: PartitionBuffer = LATER,
        grown_at: float | None = None,
    ) -> tuple[dict[str, int], int]:
        """What the judge finds, and counts, of one delivery of the second epoch."""
        driver = [self.TRUNCATED, self.EPOCH, ["deleted", 6.0, 2, 0, offset]]
        producer = [] if grown_at is None else [acked(grown_at, 7, epoch=2)]
        made = journals([], [*leader], driver=driver, producer=producer)
        verdict = judge({**made, FOLLOWER: [begin, out(at, offset, epoch=2)]})
        return broken(verdict), verdict.believed

    def test_a_follower_that_began_later_may_believe_what_was_reported_before(self) -> None:
        """That is counted, whether the leader reports again soon, late, or never."""
        assert self.early(self.REPORTED) == ({}, 1)
        assert self.early(self.REPORTED, done(7.9, 1, epoch=2)) == ({}, 1)
        assert self.early(self.REPORTED, done(9.0, 3, epoch=2)) == ({}, 1)

    def test_one_that_was_there_may_if_the_partition_grew_as_far_again_before_it_asked(self) -> None:
        there: PartitionBuffer = ["begin", 4.9, "follower", "follower"]
        assert self.early(self.REPORTED, begin=there) == ({"safety": 1}, 0)
        assert self.early(self.REPORTED, begin=there, grown_at=5.1 + ASKED_EVERY_SECONDS) == ({"safety": 1}, 0)
        assert self.early(self.REPORTED, begin=there, grown_at=7.0) == ({}, 1)

    def test_nor_may_it_once_it_must_have_heard_of_the_leader(self) -> None:
        heard = done(7.0, 1, epoch=2)
        assert self.early(self.REPORTED, heard, at=7.1 + KNOWN_AFTER_SECONDS) == ({"safety": 1}, 0)

    def test_nor_beyond_what_was_reported_nor_where_nothing_was_taken_away(self) -> None:
        assert self.early(self.REPORTED, offset=8) == ({"safety": 1}, 0)
        assert self.early() == ({"safety": 1}, 0)
        driver: list[PartitionBuffer] = [self.EPOCH, ["deleted", 6.0, 2, 0, 3]]
        made = journals([], [self.REPORTED], driver=driver)
        verdict = judge({**made, FOLLOWER: [self.LATER, out(8.0, 3, epoch=2)]})
        assert (broken(verdict), verdict.believed) == ({"safety": 1}, 0)


class TestStandingStill:
    """A message that came, but long after its leader had committed it."""

    CAME = 10.0 + STANDS_STILL_SECONDS + 1

    def judge(self, *driver: PartitionBuffer, leader: list[PartitionBuffer] | None = None) -> dict[str, int]:
        return broken(judge(journals([out(self.CAME, 0)], leader, driver=list(driver), producer=[acked(10.0, 0)])))

    def test_nothing_explains_it(self) -> None:
        assert self.judge() == {"progress": 1}

    def test_its_leader_does(self) -> None:
        assert self.judge(leader=[done(11.5, 0)]) == {}

    @pytest.mark.parametrize("what", ["cluster", "follower", "partition 0"])
    def test_what_hindered_it_does(self, what: str) -> None:
        assert self.judge(["hindered", 30.0, what, 31.0]) == {}

    @pytest.mark.parametrize(
        ("publishes", "source", "reports", "verdict"),
        [
            pytest.param(SNUBA, ALL, [(10.1, 5), (10.2, 0)], {}, id="and nothing is said after it"),
            pytest.param(SNUBA, ALL, [(10.1, 5), (10.2, 0), (CAME - 1, 5)], {}, id="until just before"),
            pytest.param(SNUBA, ALL, [(10.1, 5), (10.2, 0), (10.3, 1)], {"progress": 1}, id="but was set right"),
            pytest.param(SNUBA, ALL, [(10.1, 0), (10.2, 5)], {"progress": 1}, id="was the first"),
            pytest.param(SNUBA, ALL, [(10.1, 5), (CAME + 1, 0)], {"progress": 1}, id="came later"),
            pytest.param(SNUBA, GROUP_OFFSETS, [(10.1, 5), (10.2, 0)], {"progress": 1}, id="isn't read"),
            pytest.param(OURS, ALL, [(10.1, 5), (10.2, 0)], {"progress": 1}, id="of one that has a heartbeat"),
        ],
    )
    def test_a_late_record_of_a_leader_without_a_heartbeat_does(
        self, publishes: str, source: str, reports: list[tuple[float, int]], verdict: dict[str, int]
    ) -> None:
        """As of the member that had the partition before: what is committed is past it."""
        world = made_of(
            leaders=(Leader("writers", 1, publishes),), followers=(Follower("follower", "eager", source=source),)
        )
        log = [
            LogRecord(1000.0 + at, b"events:0:writers", b'{"offset": %d, "orig_message_ts": 7.0}' % offset)
            for at, offset in reports
        ]
        made = journals([out(self.CAME, 0)], driver=[world], producer=[acked(10.0, 0)])
        assert broken(judge(made, log)) == verdict

    @pytest.mark.parametrize(
        ("worked_seconds", "assigned", "verdict"),
        [
            pytest.param(0.1, {"0": 0, "1": 0}, {}, id="all the time"),
            pytest.param(0.003, {"0": 0, "1": 0}, {"progress": 1}, id="now and then"),
            pytest.param(0.1, {"1": 0}, {"progress": 1}, id="in a process that never had the partition"),
        ],
    )
    def test_a_slow_step_that_worked_on_other_partitions_all_the_while_does(
        self, worked_seconds: float, assigned: dict[str, int], verdict: dict[str, int]
    ) -> None:
        """Not one that had nothing to do for most of it, nor another member's."""
        others = [[*out(11.0 + number / 10, number, partition=1), worked_seconds] for number in range(90)]
        second: list[PartitionBuffer] = [["begin", 0.5, "follower", "follower"], ["assigned", 1.0, 1, assigned]]
        made = journals(
            [out(self.CAME, 0)], [done(1.0, 99), done(1.0, 99, partition=1)],
            producer=[acked(10.0, 0)], **{"follower-2.1": [*second, *others]},
        )  # fmt: skip
        assert broken(judge(made)) == verdict

    @pytest.mark.parametrize(
        ("step_seconds", "deliveries", "verdict"),
        [
            pytest.param(0.1, 90, {}, id="all the time"),
            pytest.param(0.1, 45, {"progress": 1}, id="half of the time"),
            pytest.param(0.0, 90, {"progress": 1}, id="with a step that isn't slow"),
        ],
    )
    def test_a_round_may_be_too_short_for_a_slow_step_that_worked_all_the_while(
        self, step_seconds: float, deliveries: int, verdict: dict[str, int]
    ) -> None:
        """Over a backlog of other partitions: it is there at the end of the round, and isn't standing still."""
        world = made_of(followers=(replace(PLAIN.followers[0], group="follower", step_seconds=step_seconds),))
        line: PartitionBuffer = ["round", 20.0, 1, 10.5, 20.0, []]
        assigned: PartitionBuffer = ["assigned", 1.0, 1, {"0": 0, "1": 0}]
        others = [[*out(11.0 + number / 10, number, partition=1), 0.1] for number in range(deliveries)]
        made = journals(
            [assigned, *others, out(25.0, 0)], [done(1.0, 99), done(1.0, 99, partition=1)],
            driver=[world, line], producer=[acked(10.0, 0)],
        )  # fmt: skip
        assert broken(judge(made)) == verdict

    @pytest.mark.parametrize("what", ["another", "partition 1"])
    def test_what_hindered_another_does_not(self, what: str) -> None:
        assert self.judge(["hindered", 30.0, what, 40.0]) == {"progress": 1}

    def test_what_was_over_long_before_does_not(self) -> None:
        assert self.judge(["hindered", 1.0, "cluster", 10.0 - SETTLE_SECONDS]) == {"progress": 1}


class TestClocksAhead:
    """A leader whose clock was ahead, where leaders write the time of their reports, and the place of a key moved."""

    ENDED_AT = 10.0
    UNTIL = ENDED_AT + AHEAD_SECONDS

    def judge(
        self, publishes: str = SNUBA, *, leader: list[PartitionBuffer] | None = None, log: str = CREATE_TIME
    ) -> dict[str, int]:
        """A message that was committed at 20, by the process after it, isn't there at the end of a round at 80."""
        world = made_of(leaders=(Leader("writers", 1, publishes),), commit_log=CommitLog(timestamps=log))
        driver: list[PartitionBuffer] = [
            *(world, ["started", 2.0, LEADER], ["fault", 3.0, 1, CLOCK_SHIFTED, "", 1.0]),
            ["started", self.ENDED_AT, "leader-1.2"],
            ["round", 80.0, 1, 30.0, 80.0, []],
        ]
        later: list[PartitionBuffer] = [["begin", 10.5, "writers", "leader"], done(20.0, 0), *(leader or [])]
        made = journals([], [done(5.0, -1)], driver=driver, producer=[acked(19.0, 0)], **{"leader-1.2": later})
        return broken(judge(made))

    def test_its_reports_count_until_that_time_has_come(self) -> None:
        assert self.judge(OURS) == {}
        assert self.judge() == {}

    def test_where_the_brokers_write_the_time_they_do_not(self) -> None:
        assert self.judge(log=LOG_APPEND_TIME) == {"progress": 1}

    @pytest.mark.parametrize(
        ("publishes", "again", "came", "verdict"),
        [
            pytest.param(SNUBA, [], 300.0, {}, id="no heartbeat, and no message since"),
            pytest.param(SNUBA, [done(UNTIL + 1, 1)], 300.0, {"progress": 1}, id="no heartbeat, but a message"),
            pytest.param(SNUBA, [done(UNTIL + 1, 1)], UNTIL + 10, {}, id="the message is on its way"),
            pytest.param(OURS, [], 300.0, {"progress": 1}, id="a heartbeat"),
            pytest.param(OURS, [], UNTIL + HEARTBEAT_SECONDS + 10, {}, id="the heartbeat is on its way"),
        ],
    )
    def test_then_the_next_report_counts(
        self, publishes: str, again: list[PartitionBuffer], came: float, verdict: dict[str, int]
    ) -> None:
        world = made_of(leaders=(Leader("writers", 1, publishes),))
        driver: list[PartitionBuffer] = [
            *(world, ["started", 2.0, LEADER], ["fault", 3.0, 1, CLOCK_SHIFTED, "", 1.0]),
            ["started", self.ENDED_AT, "leader-1.2"],
        ]
        later: list[PartitionBuffer] = [["begin", 10.5, "writers", "leader"], done(20.0, 0), *again]
        made = journals([out(came, 0)], [], driver=driver, producer=[acked(19.0, 0)], **{"leader-1.2": later})
        assert broken(judge(made)) == verdict


class TestEnds:
    """A process that is asked to end has one message's work in flight."""

    def stopped(self, seconds: float, *driver: PartitionBuffer) -> dict[str, int]:
        line: PartitionBuffer = ["stopped", 10.0, FOLLOWER, seconds]
        return broken(judge(journals([], driver=[line, *driver])))

    def test_one_that_ends_in_time_is_fine(self) -> None:
        assert self.stopped(END_SECONDS) == {}

    def test_one_that_takes_long_is_told(self) -> None:
        assert self.stopped(END_SECONDS + 0.1) == {"out of the way": 1}

    def test_a_broker_that_is_away_explains_it(self) -> None:
        assert self.stopped(END_SECONDS + 0.1, ["hindered", 11.0, "cluster", 12.0]) == {}

    def test_a_leader_is_held_to_it_too(self) -> None:
        line: PartitionBuffer = ["stopped", 10.0, LEADER, END_SECONDS + 0.1]
        assert broken(judge(journals([], driver=[line]))) == {"out of the way": 1}

    def test_but_not_one_that_publishes_by_other_means(self) -> None:
        """What the brokers don't take of it for ten seconds is nothing of ours."""
        line: PartitionBuffer = ["stopped", 10.0, LEADER, END_SECONDS + 0.1]
        world = made_of(leaders=(Leader("writers", 1, SNUBA),))
        assert broken(judge(journals([], driver=[world, line]))) == {}


def told(time: float, text: str, level: str = "WARNING") -> PartitionBuffer:
    return ["told", time, level, "arroyo_sync", text]


RECREATED: PartitionBuffer = ["fault", 20.0, 1, "data topic recreated", "", 10.0]
EARLIER = "events[0]: group 'writers' published offset 3 of an earlier topic of that name"


class TestAlarms:
    """What needs a person is told, by name and in time; what is well isn't called ill."""

    WANTED: ClassVar[PartitionBuffer] = ["wanted", 10.0, "for group 'writers'", "follower", 30.0]

    @pytest.mark.parametrize("time", [10.0, 29.9])
    def test_what_is_said_in_time_is_fine(self, time: float) -> None:
        away: PartitionBuffer = ["fault", 20.0, 1, "leader group away", "", 9.0]
        said = told(time, "events[0] has stood still: 3 messages wait for group 'writers'")
        assert broken(judge(journals([said], driver=[self.WANTED, away]))) == {}

    @pytest.mark.parametrize(
        "said",
        [
            pytest.param([], id="never"),
            pytest.param([told(31.0, "3 messages wait for group 'writers'")], id="too late"),
            pytest.param([told(-871.0, "3 messages wait for group 'writers'")], id="long before it began"),
            pytest.param([told(20.0, "3 messages wait for group 'others'")], id="another name"),
        ],
    )
    def test_what_is_not_said_is_missed(self, said: list[PartitionBuffer]) -> None:
        verdict = judge(journals(said, driver=[self.WANTED]))
        assert broken(verdict) == {"loud": 1}
        assert "follower didn't say" in verdict.violations[0].what

    @pytest.mark.parametrize(
        ("step_seconds", "deliveries", "pattern", "verdict"),
        [
            pytest.param(0.1, 200, "for group 'writers'", {}, id="all the time"),
            pytest.param(0.1, 100, "for group 'writers'", {"loud": 1}, id="half of the time"),
            pytest.param(0.0, 200, "for group 'writers'", {"loud": 1}, id="with a step that isn't slow"),
            pytest.param(0.1, 200, "is gone", {"loud": 1}, id="what has nothing to do with messages"),
        ],
    )
    def test_who_works_through_a_backlog_all_the_while_waits_for_nobody(
        self, step_seconds: float, deliveries: int, pattern: str, verdict: dict[str, int]
    ) -> None:
        world = made_of(followers=(replace(PLAIN.followers[0], group="follower", step_seconds=step_seconds),))
        assigned: PartitionBuffer = ["assigned", 1.0, 1, {"0": 0}]
        work = [[*out(10.0 + number / 10, number), 0.1] for number in range(deliveries)]
        producer = [acked(2.0, offset) for offset in range(deliveries)]
        wanted: PartitionBuffer = ["wanted", 10.0, pattern, "follower", 30.0]
        made = journals([assigned, *work], [done(3.0, deliveries)], driver=[world, wanted], producer=producer)
        assert broken(judge(made)) == verdict

    @pytest.mark.parametrize(
        ("said", "is_fine"),
        [
            pytest.param([told(1.0, "3 messages wait for group 'writers'")], True, id="it was told"),
            pytest.param([told(1.0, "Over: 3 messages wait for group 'writers'")], False, id="it was over"),
            pytest.param(
                [told(1.0, "3 messages wait for group 'writers'"), told(2.0, "Over: 3 messages wait")],
                True,
                id="it was told, and over a moment ago",
            ),
            pytest.param(
                [told(-60.0, "3 messages wait for group 'writers'"), told(2.0, "Over: 3 messages wait")],
                False,
                id="it was told, and over since",
            ),
        ],
    )
    def test_a_process_need_not_say_the_same_again_within_a_quarter_of_an_hour(
        self, said: list[PartitionBuffer], is_fine: bool
    ) -> None:
        away: PartitionBuffer = ["fault", 20.0, 1, "leader group away", "", -900.0]
        verdict = judge(journals(said, driver=[self.WANTED, away]))
        assert broken(verdict) == ({} if is_fine else {"loud": 1})

    def test_its_next_one_needs(self) -> None:
        """It knows nothing of what was told."""
        said: list[PartitionBuffer] = [told(1.0, "3 messages wait for group 'writers'")]
        restarted: list[PartitionBuffer] = [["begin", 5.0, "follower", "follower"]]
        verdict = judge(journals(said, driver=[self.WANTED], **{"follower-1.2": restarted}))
        assert broken(verdict) == {"loud": 1}

    def test_the_last_line_of_a_process_says_it_too(self) -> None:
        ended: PartitionBuffer = ["exit", 20.0, FOLLOWER, 1, "worker.py: 3 wait for group 'writers'", True]
        assert broken(judge(journals([], driver=[self.WANTED, ended]))) == {}

    def test_what_a_fault_explains_is_no_false_alarm(self) -> None:
        assert broken(judge(journals([told(15.0, EARLIER, "ERROR")], driver=[RECREATED]))) == {}

    @pytest.mark.parametrize(
        ("opened", "text", "is_explained"),
        [
            pytest.param([10.0, 45.0], "a transaction that hangs", True, id="it is open"),
            pytest.param([10.0, 45.0], "A transaction is open from offset 5 on", True, id="in other words"),
            pytest.param([20.0, 45.0], "a transaction that hangs", False, id="not for long yet"),
            pytest.param([1.0, 24.0], "a transaction that hangs", False, id="no longer"),
            pytest.param([10.0, 45.0], "the follower's own steps", False, id="the line says something else"),
            pytest.param(None, "a transaction that hangs", False, id="there is none"),
        ],
    )
    def test_a_transaction_that_is_open_explains_what_is_told_of_it(
        self, opened: list[float] | None, text: str, is_explained: bool
    ) -> None:
        """A producer whose commit isn't answered leaves one open, without any fault of the driver's."""
        said = told(30.0, f"events[0] has stood still for 20 s at 4: 2 messages are released up to 6: {text}")
        lines: list[PartitionBuffer] = [] if opened is None else [["open", opened[1], opened[0]]]
        verdict = judge(journals([said], producer=lines))
        assert broken(verdict) == ({} if is_explained else {"loud": 1})

    @pytest.mark.parametrize(
        "driver",
        [
            pytest.param([], id="nothing happened"),
            pytest.param([["fault", 20.0, 1, "broker killed", "", 10.0]], id="something else did"),
            pytest.param([["fault", 20.0, 1, "data topic recreated", "", 16.0]], id="it happened later"),
            pytest.param([["fault", -110.0, 1, "data topic recreated", "", -120.0]], id="it was over long ago"),
        ],
    )
    def test_what_no_fault_explains_is_one(self, driver: list[PartitionBuffer]) -> None:
        verdict = judge(journals([told(15.0, EARLIER, "ERROR"), told(16.0, EARLIER, "ERROR")], driver=driver))
        assert broken(verdict) == {"loud": 1}, "and it is told once"

    @pytest.mark.parametrize(
        ("clock", "publishes", "fault", "is_explained"),
        [
            pytest.param("absurd", SNUBA, "coordinator killed", True, id="the commit stayed behind"),
            pytest.param("absurd", SNUBA, "told to end twice", False, id="nothing keeps it away"),
            pytest.param("absurd", "arroyo_sync", "coordinator killed", False, id="the reports have ids"),
            pytest.param("right", SNUBA, "coordinator killed", False, id="timestamps are true"),
        ],
    )
    def test_where_topics_can_not_be_told_apart_a_suspicion_is_explained_by_more(
        self, clock: str, publishes: str, fault: str, is_explained: bool
    ) -> None:
        """The first message's timestamp is all that speaks against the report, and says nothing."""
        world = made_of(data=DataTopic(clock=clock), leaders=(Leader("writers", 1, publishes),))
        driver: list[PartitionBuffer] = [world, ["fault", 20.0, 1, fault, "", 10.0]]
        for said in (
            "group 'writers' published offset 3 before the first message that is there was written: it may speak of",
            "group 'writers' has published offset 3 of events[0], that is from before its first message",
        ):
            verdict = judge(journals([told(25.0, said, "ERROR")], driver=driver))
            assert broken(verdict) == ({} if is_explained else {"loud": 1})

    @pytest.mark.parametrize(
        ("recreated", "shifted", "is_said", "is_explained"),
        [
            pytest.param((-900.0, -890.0), (0.0, 3.0), True, True, id="its clock is wrong, there was another topic"),
            pytest.param((-900.0, -890.0), (1.0, 3.0), True, False, id="it began at another time"),
            pytest.param((-900.0, -890.0), (0.0, 3.0), False, False, id="another one's clock is"),
            pytest.param((16.0, 20.0), (0.0, 3.0), True, False, id="there was no other topic yet"),
        ],
    )
    def test_a_wrong_clock_explains_that_a_report_of_an_earlier_topic_counts(
        self, recreated: tuple[float, float], shifted: tuple[float, float], is_said: bool, is_explained: bool
    ) -> None:
        """It lies in an older place of the commit log; to such a clock all are from the future."""
        driver: list[PartitionBuffer] = [
            ["fault", ended, 1, kind, "", began]
            for kind, (began, ended) in (("data topic recreated", recreated), ("clock shifted", shifted))
        ]
        said = [told(14.0, "has a timestamp from the future", "WARNING")] if is_said else []
        verdict = judge(journals([*said, told(15.0, EARLIER)], driver=driver))
        assert broken(verdict) == ({} if is_explained else {"loud": 1})

    @pytest.mark.parametrize(("step_seconds", "is_explained"), [(0.003, True), (0.0, False)])
    def test_a_slow_step_explains_that_a_partition_waits_behind_others(
        self, step_seconds: float, is_explained: bool
    ) -> None:
        """librdkafka hands out long runs of one; the line says just that."""
        world = made_of(followers=(replace(PLAIN.followers[0], group="follower", step_seconds=step_seconds),))
        said = (
            "events[4] has stood still for 15 s at 2383: ... The follower is busy with other partitions: what is here"
        )
        verdict = judge(journals([told(25.0, said)], driver=[world]))
        assert broken(verdict) == ({} if is_explained else {"loud": 1})

    @pytest.mark.parametrize(
        ("leader", "is_explained"),
        [
            pytest.param([done(4.0, 9), done(26.0, 20)], True, id="it is so"),
            pytest.param([done(6.0, 9), done(26.0, 20)], False, id="not for so long"),
            pytest.param([done(4.0, 9), done(24.0, 20)], False, id="it has gone on"),
            pytest.param([done(4.0, 9, partition=1), done(26.0, 20, partition=1)], False, id="another partition"),
        ],
    )
    @pytest.mark.parametrize("group", ["writers", "others"])
    def test_a_leader_that_has_really_done_nothing_of_the_partition_is_rightly_named(
        self, leader: list[PartitionBuffer], group: str, is_explained: bool
    ) -> None:
        """Its members may have a backlog in others, long after whatever made it."""
        said = f"events[0] has stood still for 20 s at 10: up to 7 messages wait for group '{group}', which is at 10."
        verdict = judge(journals([told(25.0, said)], leader))
        assert broken(verdict) == ({} if is_explained and group == "writers" else {"loud": 1})

    @pytest.mark.parametrize("kind", ["data topic recreated", "broker killed"])
    def test_a_process_that_ends_of_what_no_fault_explains_is_one(self, kind: str) -> None:
        """Its last line is clear, and wrong."""
        line = "worker.py: topic 'events' was deleted and created again (its id was a and is b). Restart the follower"
        driver: list[PartitionBuffer] = [
            ["exit", 25.0, FOLLOWER, 1, line, True],
            ["fault", 20.0, 1, kind, "", 10.0],
        ]
        assert broken(judge(journals([], driver=driver))) == ({} if kind == "data topic recreated" else {"loud": 1})

    def test_what_a_leader_tells_of_counts_too(self) -> None:
        made = journals([])
        made[LEADER].append(told(15.0, "out of cheese", "ERROR"))
        assert broken(judge(made)) == {"loud": 1}

    def test_an_error_that_nobody_expects_is_one(self) -> None:
        assert broken(judge(journals([told(15.0, "out of cheese", "ERROR")]))) == {"loud": 1}

    def test_a_warning_that_asks_for_nobody_is_none(self) -> None:
        assert broken(judge(journals([told(15.0, "Skipped a record"), told(15.0, "Over: all is well")]))) == {}


def test_the_same_seed_draws_the_same_world() -> None:
    """And among a hundred seeds every ingredient is drawn."""
    assert draw(5) == draw(5)
    worlds = [draw(seed) for seed in range(100)]
    assert {each.data.kind for each in worlds} == {each.data.kind for each in WORLDS.values()}
    assert {each.commit_log.partitions for each in worlds} == {1, 2, 3, 4}
    for name in ("reset", "source", "has_dead_letters", "has_auto_commit", "is_static", "step_seconds"):
        drawn = {getattr(follower, name) for each in worlds for follower in each.followers}
        assert len(drawn) > 1, name


def test_the_driver_waits_for_what_the_judge_would_miss(tmp_path: Any) -> None:
    """By group: from where it began, and not for what may be compacted away or was deleted."""
    tally = Tally(tmp_path, {"f": "late", "g": "early"}, ["writers"], ["late", "early"], {"late"})
    producer = [keyed(1.0, 0, "a"), acked(1.0, 1), keyed(1.0, 2, "a"), acked(1.0, 3), acked(1.0, 4)]
    lines = {
        "producer": producer,
        "f": [["assigned", 1.0, 1, {"0": 3}], out(2.0, 4)],
        "g": [["assigned", 1.0, 1, {"0": 0}], out(2.0, 3)],
    }

    def add(name: str, *written: PartitionBuffer) -> None:
        with (tmp_path / f"{name}.jsonl").open("a") as file:
            file.write("".join(f"{json.dumps(line)}\n" for line in written))

    for name, written in lines.items():
        add(name, *written)
    tally.look()
    assert tally.assigned == {"late", "early"}
    assert tally.missing(1, {(1, 0): 2}) == {"late": {(1, 0, 3)}, "early": {(1, 0, 2), (1, 0, 4)}}
    add("producer", acked(1.0, 0, partition=1))
    tally.look()
    assert tally.missing(1, {}, still=[0]) == {"late": {(1, 1, 0)}, "early": {(1, 1, 0)}}, "nobody has begun with it"
    add("f", ["assigned", 1.0, 2, {"1": 1}])
    tally.look()
    assert tally.missing(1, {}, still=[0]) == {"late": set(), "early": {(1, 1, 0)}}


def test_every_fault_fits_some_world_that_a_seed_draws() -> None:
    worlds = [draw(seed) for seed in range(1, 17)]
    assert [name for name, fault in FAULTS.items() if not any(fault.fits(each) for each in worlds)] == []


def test_what_others_write_to_a_shared_commit_log_says_nothing_of_a_followed_group() -> None:
    """It is of another topic or group, or it can't be read. So what it moves is a fault of the follower."""
    random = Random(1)
    for _ in range(2_000):
        key, value = rubbish.foreign(random, "events", ["writer-a", "writer-b"])
        decoded = decode(key, value, None)
        if not isinstance(decoded, Skipped):
            assert isinstance(decoded, CommitRecord)
            assert decoded.topic != "events" or decoded.group not in ("writer-a", "writer-b"), (key, value)


class TestLeaderLikeSnubas:
    """Some of its records are older than the one before, and the end of each partition is right."""

    @pytest.fixture
    def now(self, monkeypatch: pytest.MonkeyPatch) -> list[float]:
        """Seconds."""
        now = [0.0]
        monkeypatch.setattr(snuba_leader, "time", SimpleNamespace(monotonic=lambda: now[0]))
        return now

    @pytest.fixture
    def published(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
        """Partitions and next offsets."""
        published: list[tuple[int, int]] = []

        def publish(step: object, partition: Partition, offset: int, timestamp: object) -> None:
            published.append((partition.index, offset))

        monkeypatch.setattr(PublishAsSnuba, "_publish", publish)
        return published

    @pytest.fixture
    def step(self) -> PublishAsSnuba:
        return PublishAsSnuba(lambda offsets, force=False: None, None, Topic("log"), "g")  # type: ignore[arg-type]

    def test_the_last_record_is_the_newest(self, step: PublishAsSnuba, published: list[tuple[int, int]]) -> None:
        for offset in range(100):
            step.submit(message(0, offset))
        step.join()
        assert published[-1] == (0, 100)
        assert any(second < first for first, second in itertools.pairwise(published))

    @pytest.mark.parametrize("count", range(1, 2 * snuba_leader.GATHERED + 1))
    def test_a_quiet_partition_settles_while_another_is_busy(
        self, step: PublishAsSnuba, now: list[float], published: list[tuple[int, int]], count: int
    ) -> None:
        """Its leader has committed all of it: a follower that gets it late would be blamed for the leader."""
        for offset in range(count):
            step.submit(message(1, offset))
        for offset in range(30):
            now[0] += 0.01
            step.submit(message(0, offset))
            step.poll()
        of_quiet = [next_offset for partition, next_offset in published if partition == 1]
        assert of_quiet[-1:] == [count]


def test_the_driver_knows_of_which_epoch_an_assignment_was_though_it_reads_of_it_late(tmp_path: Any) -> None:
    """Else a group that begins at the end would be taken to begin where it had come on the topic before."""
    tally = Tally(tmp_path, {"f": "late"}, ["writers"], ["late"], {"late"})
    lines = {
        "driver": [["epoch", 0.0, 1], ["epoch", 5.0, 2]],
        "f": [["assigned", 4.0, 1, {"0": 900}], ["assigned", 6.0, 2, {"0": 0}]],
        "producer": [acked(7.0, 0, epoch=2)],
    }
    for name, written in lines.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in written))
    tally.look()
    assert tally.missing(2, {}) == {"late": {(2, 0, 0)}}


@pytest.mark.parametrize(("version", "protocols"), [("3.6.2", {"eager"}), ("4.4.0", {"eager", "kip848"})])
def test_before_kafka_4_all_followers_are_eager(version: str, protocols: set[str]) -> None:
    world = on_kafka(draw(1), version)
    assert {follower.protocol for follower in world.followers} == protocols
    assert world.data == draw(1).data


class TestNobodys:
    """Under KIP-848 a partition has no owner while a member doesn't know that it has it, by librdkafka's fault."""

    KIP848 = made_of(followers=(Follower("follower", "kip848"),))
    UNHEARD: ClassVar[PartitionBuffer] = ["unheard", 999.0, FOLLOWER]
    HAS_IT: ClassVar[PartitionBuffer] = ["assigned", 0.6, 1, {"0": 0, "1": 0}]
    LIVES: ClassVar[PartitionBuffer] = ["held", 900.0, 0]

    def found(self, *follower: PartitionBuffer, driver: list[PartitionBuffer]) -> tuple[dict[str, int], int]:
        """Of a message that was there at 2, and that a round waited for from 3 to 12."""
        made = journals([self.HAS_IT, *follower, self.LIVES], driver=[ROUND, *driver], producer=[acked(2.0, 0)])
        verdict = judge(made)
        return broken(verdict), verdict.nobodys

    def test_what_waits_for_an_owner_is_counted_apart(self) -> None:
        gone: PartitionBuffer = ["assigned", 1.5, 2, {"1": 0}]
        assert self.found(gone, driver=[self.KIP848, self.UNHEARD]) == ({}, 1)

    def test_not_where_nobody_has_lost_an_answer_or_the_protocol_has_none(self) -> None:
        gone: PartitionBuffer = ["assigned", 1.5, 2, {"1": 0}]
        assert self.found(gone, driver=[self.KIP848]) == ({"progress": 1}, 0)
        assert self.found(gone, driver=[self.UNHEARD]) == ({"progress": 1}, 0)

    def test_not_where_somebody_has_it(self) -> None:
        """For part of the round is enough, or by another one."""
        assert self.found(driver=[self.KIP848, self.UNHEARD]) == ({"progress": 1}, 0)
        later: PartitionBuffer = ["assigned", 3.5, 2, {"1": 0}]
        assert self.found(later, driver=[self.KIP848, self.UNHEARD]) == ({"progress": 1}, 0)
        again: list[PartitionBuffer] = [["assigned", 1.5, 2, {"1": 0}], ["assigned", 8.0, 3, {"0": 0}]]
        assert self.found(*again, driver=[self.KIP848, self.UNHEARD]) == ({"progress": 1}, 0)

    def test_who_had_it_before_the_round_may_have_been_at_it(self) -> None:
        """A slow member that was killed on the way, and whose partition nobody has got."""
        killed: PartitionBuffer = ["assigned", 2.5, 2, {"1": 0}]
        assert self.found(killed, driver=[self.KIP848, self.UNHEARD]) == ({}, 1)
        assert self.found(killed, driver=[self.KIP848]) == ({"progress": 1}, 0)

    def test_a_member_that_never_had_any_changes_nothing(self) -> None:
        gone: PartitionBuffer = ["assigned", 1.5, 2, {"1": 0}]
        made = journals([self.HAS_IT, gone, self.LIVES], driver=[ROUND, self.KIP848, self.UNHEARD])
        made["producer"] = [acked(2.0, 0)]
        made["follower-2.1"] = [["begin", 0.7, "follower", "follower"], ["held", 5.0, 0]]
        assert judge(made).nobodys == 1

    @pytest.mark.parametrize("is_unheard", [True, False])
    def test_a_long_wait_is_explained_as_far_as_it_had_no_owner(self, is_unheard: bool) -> None:
        came = 2.0 + 3 * STANDS_STILL_SECONDS
        follower: list[PartitionBuffer] = [
            *(self.HAS_IT, ["assigned", 1.5, 2, {"1": 0}], ["assigned", came - 1.0, 3, {"0": 0}]),
            *(out(came, 0), ["held", came + 1.0, 0]),
        ]
        driver = [self.KIP848, *([self.UNHEARD] if is_unheard else [])]
        verdict = judge(journals(follower, driver=driver, producer=[acked(2.0, 0)]))
        assert (broken(verdict), verdict.nobodys) == (({}, 1) if is_unheard else ({"progress": 1}, 0))

    def test_only_librdkafka_s_own_line_tells_of_a_lost_answer(self, tmp_path: Path) -> None:
        line = "%5|1795.307|REQTMOUT|rdkafka#consumer-1| [thrd:x]: Coordinator/3: Timed out {} in flight (after 491ms)"
        (tmp_path / "follower-1.1.log").write_text(f"x\n{line.format('ConsumerGroupHeartbeatRequest')}\n")
        (tmp_path / "follower-1.2.log").write_text(f"{line.format('FetchRequest')}\n")
        (tmp_path / "follower-1.3.log").write_text("said ConsumerGroupHeartbeatRequest in flight\n")
        assert list(lost_heartbeats(tmp_path)) == ["follower-1.1"]
