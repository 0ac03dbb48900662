"""The judge of a chaos run, on journals that are written out: what it finds, and what it lets pass."""

from __future__ import annotations

import pytest

from tests.chaos.checker import PROMISES, Verdict, judge
from tests.chaos.evidence import KNOWN_AFTER_SECONDS, LogRecord, Reach
from tests.chaos.journal import PartitionBuffer

FOLLOWER, LEADER, OTHER = "follower-1.1", "leader-1.1", "other-1.1"


def out(time: float, offset: int, *, assignment: int = 1, epoch: int = 1, partition: int = 0) -> PartitionBuffer:
    return ["out", time, assignment, epoch, partition, offset, offset + 1]


def done(time: float, offset: int, *, epoch: int = 1, partition: int = 0) -> PartitionBuffer:
    return ["done", time, epoch, partition, offset]


def acked(time: float, offset: int, *, epoch: int = 1, partition: int = 0) -> PartitionBuffer:
    return ["acked", time, epoch, partition, offset, offset + 1]


def journals(
    follower: list[PartitionBuffer],
    leader: list[PartitionBuffer] | None = None,
    *,
    driver: list[PartitionBuffer] | None = None,
    **more: list[PartitionBuffer],
) -> dict[str, list[PartitionBuffer]]:
    """One follower, one leader group that has committed everything at time 1 unless told otherwise."""
    return {
        "driver": [["clock", 0.0, 1000.0], ["epoch", 0.0, 1], *(driver or [])],
        LEADER: [["begin", 0.5, "writers", "leader"], *([done(1.0, 99)] if leader is None else leader)],
        FOLLOWER: [["begin", 0.5, "follower", "follower"], ["limit", 0.5, 10], *follower],
        **more,
    }


def broken(verdict: Verdict) -> dict[str, int]:
    return {promise: count for promise, count in verdict.counts().items() if count}


def test_nothing_is_found_in_a_run_in_which_all_went_well() -> None:
    """Every promise is named, with a count of zero; deliveries, messages and rounds are counted."""
    verdict = judge(
        journals(
            [out(2.0, 0), out(2.1, 1), ["held", 2.2, 10]],
            driver=[["round", 9.0, 1, 3.0, 9.0, []], ["committed", 9.5, "follower", 1, 0, 2]],
            producer=[acked(1.0, 0), acked(1.0, 1)],
        )
    )
    assert verdict.counts() == dict.fromkeys(PROMISES, 0)
    assert (verdict.messages, verdict.deliveries, verdict.duplicates, verdict.rounds) == (2, 2, 0, 1)


EARLY = {
    "before the leader committed it": [done(2.5, 0)],
    "the leader never did": [],
    "the leader committed only what is before it": [done(1.0, -1)],
    "the leader committed it of another partition": [done(1.0, 5, partition=1)],
    "the leader committed it of the topic that was deleted": [done(1.0, 5, epoch=0)],
}


@pytest.mark.parametrize("leader", EARLY.values(), ids=EARLY)
def test_a_delivery_that_some_leader_had_not_committed_is_early(leader: list[PartitionBuffer]) -> None:
    """Safety, with the event and the group named."""
    verdict = judge(journals([out(2.0, 0)], leader))
    assert broken(verdict) == {"safety": 1}
    assert FOLLOWER in verdict.violations[0].what
    assert "writers" in verdict.violations[0].what


def test_the_slowest_of_the_leader_groups_counts() -> None:
    """Safety holds against every group, not against any."""
    other: list[PartitionBuffer] = [["begin", 0.5, "slow", "leader"], done(3.0, 0)]
    verdict = judge(journals([out(2.0, 0)], **{OTHER: other}))
    assert broken(verdict) == {"safety": 1}
    assert "slow committed it at 3.000" in verdict.violations[0].what


def test_any_member_of_a_leader_group_commits_for_the_group() -> None:
    """After a rebalance another member commits; a later commit of a lower offset takes nothing back."""
    other: list[PartitionBuffer] = [["begin", 0.5, "writers", "leader"], done(1.5, 3), done(1.8, 0)]
    assert broken(judge(journals([out(2.0, 3)], [], driver=[["deleted", 0.1, 1, 0, 3]], **{OTHER: other}))) == {}


class TestRewinds:
    """The group committed all at 1, was set back at 5, published again at 6 (an older offset), and caught up at 20."""

    LEADER = (done(1.0, 99), done(6.0, 0), done(20.0, 99))
    DRIVER = (["rewound", 5.0, "writers", 1, 0, 0], ["deleted", 0.1, 1, 0, 50])

    def judge(
        self,
        deliveries: list[PartitionBuffer],
        *driver: PartitionBuffer,
        published_at: float | None = 6.0,
        late: PartitionBuffer | None = None,
    ) -> Verdict:
        record = (b"events:0:writers", b'{"offset": 1, "orig_message_ts": 7.0}')
        log = [] if published_at is None else [LogRecord(1000.0 + published_at, *record)]
        made = journals(deliveries, list(self.LEADER), driver=[*self.DRIVER, *driver])
        if late is not None:
            made["late-1.1"] = [["begin", 8.0, "late", "follower"], late]
        return judge(made, log)

    def test_who_started_after_the_record_must_obey_it(self) -> None:
        """It was in the commit log, which is read whole before the gate opens."""
        assert broken(self.judge([], late=out(9.0, 50))) == {"safety": 1}

    def test_what_lies_below_where_it_was_set_back_to_is_still_committed(self) -> None:
        record = LogRecord(1006.0, b"events:0:writers", b'{"offset": 51, "orig_message_ts": 7.0}')
        for offset, verdict in ((50, {}), (51, {"safety": 1})):
            driver: list[PartitionBuffer] = [["rewound", 5.0, "writers", 1, 0, 51], ["deleted", 0.1, 1, 0, offset]]
            made = journals([], list(self.LEADER), driver=driver)
            made["late-1.1"] = [["begin", 8.0, "late", "follower"], out(9.0, offset)]
            assert broken(judge(made, [record])) == verdict

    def test_who_could_read_the_record_for_long_must_obey_it(self) -> None:
        assert broken(self.judge([out(6.1 + KNOWN_AFTER_SECONDS, 50)])) == {"safety": 1}

    def test_who_may_not_know_of_it_yet_may_go_by_what_was_published_before(self) -> None:
        assert broken(self.judge([out(6.5, 50)])) == {}

    def test_a_record_that_was_never_published_binds_nobody(self) -> None:
        assert broken(self.judge([out(15.0, 50)], published_at=None)) == {}

    def test_a_record_older_than_the_rewind_is_not_it(self) -> None:
        assert broken(self.judge([out(15.0, 50)], published_at=4.0)) == {}

    @pytest.mark.parametrize("what", ["cluster", "follower"])
    def test_who_is_hindered_may_not_know_of_it(self, what: str) -> None:
        assert broken(self.judge([out(15.0, 50)], ["hindered", 7.0, what, 8.0])) == {}

    def test_another_group_that_is_hindered_excuses_nobody(self) -> None:
        assert broken(self.judge([out(15.0, 50)], ["hindered", 7.0, "another", 8.0])) == {"safety": 1}

    def test_when_the_group_has_committed_it_again_all_is_well(self) -> None:
        assert broken(self.judge([out(21.0, 50)])) == {}


@pytest.mark.parametrize("offsets", [(0, 2), (0, 0), (1, 0)], ids=["a gap", "twice", "backwards"])
def test_within_an_assignment_each_offset_follows_the_last(offsets: tuple[int, int]) -> None:
    """Order. (A gap is a loss, too, and so is what a first delivery leaves out.)"""
    verdict = judge(journals([out(2.0, offsets[0]), out(2.1, offsets[1])]))
    assert broken(verdict)["order"] == 1


def test_a_new_assignment_may_go_back_and_what_comes_twice_is_counted() -> None:
    """Order begins anew; duplicates are no violation."""
    verdict = judge(journals([out(2.0, 0), out(2.1, 1), out(3.0, 0, assignment=2), out(3.1, 1, assignment=2)]))
    assert broken(verdict) == {}
    assert verdict.duplicates == 2


def test_what_a_later_delivery_left_behind_is_lost() -> None:
    """No loss, across the members of a group and their assignments."""
    other: list[PartitionBuffer] = [["begin", 0.5, "follower", "follower"], out(3.0, 3)]
    verdict = judge(journals([out(2.0, 0), out(2.1, 1)], **{OTHER: other}))
    assert broken(verdict) == {"no loss": 1}
    assert "2 to 2 (1) hadn't come" in verdict.violations[0].what


def test_what_comes_later_than_its_successor_was_passed_over() -> None:
    """The offset may have been committed in between, and a crash would have made the loss final."""
    assert broken(judge(journals([out(2.0, 1), out(2.1, 0, assignment=2)]))) == {"no loss": 1}


def test_another_group_is_judged_by_itself() -> None:
    """What one follower group was given, another wasn't."""
    other: list[PartitionBuffer] = [["begin", 0.5, "another", "follower"], out(3.0, 1)]
    assert broken(judge(journals([out(2.0, 0), out(2.1, 1)], **{OTHER: other}))) == {"no loss": 1}


def test_a_committed_offset_past_a_message_that_never_came_is_a_loss() -> None:
    """Even if nothing came after it."""
    verdict = judge(journals([out(2.0, 0)], driver=[["committed", 9.0, "follower", 1, 0, 3]]))
    assert broken(verdict) == {"no loss": 1}
    assert "1 to 2 (2) hadn't come" in verdict.violations[0].what


def test_deleted_records_are_not_lost_and_may_be_stepped_over() -> None:
    """From when they were deleted."""
    deleted: PartitionBuffer = ["deleted", 2.05, 1, 0, 5]
    assert broken(judge(journals([out(2.0, 0), out(2.1, 5)], driver=[deleted]))) == {}
    too_late: PartitionBuffer = ["deleted", 2.2, 1, 0, 5]
    assert broken(judge(journals([out(2.0, 0), out(2.1, 5)], driver=[too_late]))) == {"order": 1, "no loss": 1}


def test_offsets_of_a_topic_that_was_created_again_are_others() -> None:
    """The message's epoch tells them apart: no duplicate, no gap, and the old topic's rest isn't missed."""
    verdict = judge(
        journals(
            [out(2.0, 0), out(6.0, 0, assignment=2, epoch=2)],
            [done(1.0, 99), done(5.5, 99, epoch=2)],
            driver=[["epoch", 5.0, 2], ["round", 9.0, 1, 6.0, 9.0, []]],
            producer=[acked(1.0, 0), acked(1.0, 1), acked(5.2, 0, epoch=2)],
        )
    )
    assert broken(verdict) == {}
    assert verdict.duplicates == 0


ROUND: PartitionBuffer = ["round", 12.0, 1, 3.0, 12.0, []]
STILL: PartitionBuffer = ["round", 12.0, 1, 3.0, 12.0, [1]]


def test_what_did_not_come_in_a_quiet_round_is_stuck() -> None:
    """Progress. It may have come too late."""
    for deliveries in ([], [out(12.5, 0)]):
        verdict = judge(journals(deliveries, driver=[ROUND], producer=[acked(2.0, 0)]))
        assert broken(verdict) == {"progress": 1}


def test_what_is_stuck_is_told_once() -> None:
    """A second round finds nothing new."""
    verdict = judge(journals([], driver=[ROUND, ["round", 30.0, 2, 20.0, 30.0, []]], producer=[acked(2.0, 0)]))
    assert broken(verdict) == {"progress": 1}


def test_what_the_leaders_committed_late_says_nothing_of_the_follower() -> None:
    """It is counted, so that a run in which leaders hang is seen."""
    verdict = judge(journals([], [done(11.0, 0)], driver=[ROUND], producer=[acked(2.0, 0)]))
    assert broken(verdict) == {}
    assert verdict.late_leaders == 1


def test_what_was_acknowledged_after_a_round_or_deleted_by_then_is_not_missed() -> None:
    deleted: PartitionBuffer = ["deleted", 4.0, 1, 0, 1]
    verdict = judge(journals([], driver=[ROUND, deleted], producer=[acked(2.0, 0), acked(3.5, 1)]))
    assert broken(verdict) == {}


def test_while_a_leader_stands_still_the_other_partitions_must_go_on() -> None:
    """Independence: its own partitions aren't missed."""
    produced = [acked(2.0, 0), acked(2.0, 0, partition=1)]
    leader = [done(1.0, 9), done(1.0, 9, partition=1)]
    assert broken(judge(journals([out(4.0, 0)], leader, driver=[STILL], producer=produced))) == {}
    verdict = judge(journals([out(4.0, 0, partition=1)], leader, driver=[STILL], producer=produced))
    assert broken(verdict) == {"independence": 1}


def test_a_partition_that_holds_more_than_its_limit_is_told() -> None:
    """Bounded."""
    assert broken(judge(journals([["held", 2.0, 10], ["held", 2.2, 11], ["held", 2.4, 12]]))) == {"bounded": 1}


def test_a_process_that_ended_without_one_clear_line_is_told() -> None:
    """Loud. With such a line, it may end."""
    exits: list[PartitionBuffer] = [["exit", 2.0, FOLLOWER, 1, "worker.py: Commit failed", True]]
    assert broken(judge(journals([], driver=exits))) == {}
    exits.append(["exit", 3.0, FOLLOWER, -11, "", False])
    verdict = judge(journals([], driver=exits))
    assert broken(verdict) == {"loud": 1}
    assert "status -11" in verdict.violations[0].what


ENDED: PartitionBuffer = ["ended", 99.0]


def test_a_world_in_which_nothing_was_written_or_a_group_was_missing_is_no_good_one() -> None:
    """Nothing is violated there, since nothing is judged."""
    there = {"writer-a-1.1": [["begin", 0.5, "writer-a", "leader"]], "eager-1.1": [["begin", 0.5, "eager", "follower"]]}
    verdict = judge({"driver": [["epoch", 0.0, 1], ENDED], **there})
    assert sorted(each.what for each in verdict.violations) == [
        "no process of kip848 has begun",
        "no process of writer-b has begun",
        "nothing was acknowledged: nothing is judged",
    ]


@pytest.mark.parametrize(
    ("written", "still", "count"),
    [
        pytest.param([acked(13.0, 1)], [], 0, id="something to judge"),
        pytest.param([], [], 1, id="nothing"),
        pytest.param([acked(22.0, 1)], [], 1, id="it was acknowledged too late"),
        pytest.param([acked(13.0, 1)], [0], 1, id="of partitions that stand still alone"),
        pytest.param([acked(13.0, 1, epoch=2)], [], 1, id="of another topic"),
    ],
)
def test_a_round_that_judges_nothing_is_told(written: list[PartitionBuffer], still: list[int], count: int) -> None:
    """Whatever the producer died of, or the brokers refuse."""
    second: PartitionBuffer = ["round", 30.0, 2, 20.0, 30.0, still]
    made = journals([out(2.5, 0), out(14.0, 1)], driver=[ROUND, second, ENDED], producer=[acked(2.0, 0), *written])
    found = [each.what for each in judge(made).violations if each.what.startswith("round 2: nothing")]
    assert len(found) == count


@pytest.mark.parametrize(
    ("round_seconds", "driver", "verdict"),
    [
        pytest.param(13.0, [], {"out of the way": 1}, id="nothing keeps it from that"),
        pytest.param(9.0, [], {}, id="the round was short"),
        pytest.param(13.0, [["hindered", 5.0, "cluster", 6.0]], {}, id="the cluster does"),
        pytest.param(13.0, [["deleted", 4.0, 1, 0, 1]], {}, id="it is gone"),
    ],
)
def test_a_leader_that_has_not_committed_by_the_end_of_a_long_round_stands_in_nobodys_way_but_its_own(
    round_seconds: float, driver: list[PartitionBuffer], verdict: dict[str, int]
) -> None:
    """Its last step must never keep it from its work."""
    deadline = 3.0 + round_seconds
    line: PartitionBuffer = ["round", deadline, 1, 3.0, deadline, []]
    assert broken(judge(journals([], [], driver=[line, *driver], producer=[acked(2.0, 0)]))) == verdict


@pytest.mark.parametrize("hindered", [True, False])
def test_what_was_waited_for_in_vain_is_told_unless_the_cluster_explains_it(hindered: bool) -> None:
    driver: list[PartitionBuffer] = [["stuck", 100.0, "the leaders didn't begin with the new topic"]]
    driver += [["hindered", 50.0, "cluster", 60.0]] if hindered else []
    assert broken(judge(journals([], driver=driver))) == ({} if hindered else {"progress": 1})


def test_what_a_log_tells_of_a_thread_that_ended_is_told() -> None:
    """Of a writer of the world it isn't."""
    lines: list[PartitionBuffer] = [["uncaught", 9.0, name, "Exception in thread x"] for name in (LEADER, "producer.1")]
    verdict = judge(journals([], driver=lines))
    assert broken(verdict) == {"loud": 1}
    assert LEADER in verdict.violations[0].what


def test_how_a_writer_of_the_world_ends_is_not_judged() -> None:
    """It is started again, and isn't the package's."""
    exits: list[PartitionBuffer] = [["exit", 3.0, "producer.2", 1, "OUT_OF_ORDER_SEQUENCE_NUMBER", False]]
    assert broken(judge(journals([], driver=exits))) == {}


def test_reach_tells_when_an_offset_or_one_beyond_was_reached_first() -> None:
    """Whatever order the steps are given in."""
    reach = Reach([(3.0, 5), (1.0, 2), (2.0, 1)])
    assert [reach.time_of(offset) for offset in (0, 2, 3, 5, 6)] == [1.0, 1.0, 3.0, 3.0, float("inf")]


INVALID: PartitionBuffer = ["invalid", 2.0, 1, 0, 0, "1 0 46 !!"]
LATER: PartitionBuffer = ["held", 20.0, 0]


@pytest.mark.parametrize(
    ("letters", "driver", "count"),
    [
        pytest.param([b"1 0 46 !!"], [["committed", 9.5, "follower", 1, 0, 2]], 0, id="a dead letter"),
        pytest.param([b"1 0 92 !!"], [["committed", 9.5, "follower", 1, 0, 2]], 1, id="another one"),
        pytest.param([], [["committed", 9.5, "follower", 1, 0, 0]], 0, id="it is read again"),
        pytest.param(
            [],
            [["deleted", 8.0, 1, 0, 1], ["committed", 9.5, "follower", 1, 0, 2]],
            0,
            id="it may be gone",
        ),
        pytest.param(None, [["committed", 9.5, "follower", 1, 0, 2]], 0, id="the group has no topic for them"),
    ],
)
def test_an_invalid_message_that_was_committed_is_a_dead_letter(
    letters: list[bytes] | None, driver: list[PartitionBuffer], count: int
) -> None:
    verdict = judge(
        journals([out(2.0, 0), INVALID, out(2.1, 1), LATER], driver=driver),
        dead_letters={} if letters is None else {"follower": [LogRecord(3.0, None, each) for each in letters]},
    )
    assert verdict.counts()["no loss"] == count


def test_a_dead_letter_that_the_brokers_refused_may_be_missing() -> None:
    """Arroyo forgets a letter that failed as soon as there is another, and commits past both."""
    driver: list[PartitionBuffer] = [["committed", 9.5, "follower", 1, 0, 2]]
    refused: PartitionBuffer = ["refused", 2.05, "1 0 46 !!", "Broker: Invalid timestamp"]
    verdict = judge(
        journals([out(2.0, 0), INVALID, refused, out(2.1, 1), LATER], driver=driver), dead_letters={"follower": []}
    )
    assert verdict.counts()["no loss"] == 0


def test_a_dead_letter_of_a_process_that_was_killed_soon_after_may_be_missing() -> None:
    """A commit of another partition takes its offset along, and Arroyo doesn't wait for it then."""
    driver: list[PartitionBuffer] = [["committed", 9.5, "follower", 1, 0, 2]]
    verdict = judge(journals([out(2.0, 0), INVALID, out(2.1, 1)], driver=driver), dead_letters={"follower": []})
    assert verdict.counts()["no loss"] == 0
