from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import pytest

from arroyo_sync.core.source import SourceStatistics
from arroyo_sync.observe.evaluation import IDLE_SECONDS, MAYBE_UNREPORTED, evaluate, proven_since
from arroyo_sync.observe.snapshot import LeaderSnapshot, NextMessage, PartitionSnapshot, Snapshot
from arroyo_sync.observe.stalls import WaitsFor
from arroyo_sync.observe.verdict import Grade, Verdict, worst, worst_first
from arroyo_sync.observe.waits import NO_WAITS, Limits

LIMITS = Limits(stalled_after=300.0, waiting_after=15.0)
OK, WAITING, STALLED, UNKNOWN = Grade.OK, Grade.WAITING, Grade.STALLED, Grade.UNKNOWN
LEADER, FOLLOWER = WaitsFor.LEADER, WaitsFor.FOLLOWER


class Look(NamedTuple):
    """What is seen of the partition at a time."""

    at: float
    local: int | None
    remote: int | None
    high: int | None = 100
    held: int | None = None
    """``None``: it is seen from outside."""
    published: int | None = -1
    """By the one leader group; -1: the remote offset."""
    committed: int | None = None
    low: int | None = None
    found: NextMessage | None = None
    is_full: bool = False
    is_rejected: bool = False
    has_reported: bool = True
    ready: bool = True
    polls: int | None = None
    error: str | None = None
    source_error: str | None = None
    received: bool | None = None
    """Whether a message has come since the assignment."""
    others: int | None = None
    """Where the follower's local offsets are in all, those of other partitions included."""


def snapshot(look: Look) -> Snapshot:
    published = look.remote if look.published == -1 else look.published
    leader = LeaderSnapshot(
        "writers",
        published,
        committed_offset=look.committed,
        is_rejected=look.is_rejected,
        has_reported=look.has_reported,
    )
    partition = PartitionSnapshot(
        "events",
        3,
        local_offset=look.local,
        remote_offset=look.remote,
        low_watermark=look.low,
        high_watermark=look.high,
        held_messages=look.held,
        has_received=look.received,
        is_full=None if look.held is None else look.is_full,
        leaders=(leader,),
        next_message=look.found,
        error=look.error,
    )
    source = SourceStatistics(ready=look.ready, alive=True, lag=7)
    return Snapshot(
        look.at,
        (partition,),
        source,
        source_error=look.source_error,
        empty_polls=look.polls,
        local_offsets=look.others,
    )


def verdict_at_last(looks: list[Look], proven: float | None = None) -> Verdict:
    waits = NO_WAITS
    for look in looks:
        since = {} if proven is None else {("events", 3): proven}
        (verdict,), waits = evaluate(snapshot(look), waits, look.at, LIMITS, since)
    return verdict


def lasting(look: Look, seconds: float = 300.0) -> list[Look]:
    """The same, seen twice."""
    return [look, look._replace(at=look.at + seconds)]


NOTHING_THERE = NextMessage(None)
IN_TRANSACTION = NextMessage(None, open_from=55)
UNFETCHED = NextMessage(None, error="no answer within 3 s")
EMPTY = Look(0, 2, 4, high=4, held=0, polls=7, others=8)
"""Open at offsets of which nothing has come, such as a transaction's markers."""
STANDS_AT_31 = [Look(400, 50, 31), Look(559, 50, 31)]


@pytest.mark.parametrize(
    ("looks", "grade", "whom", "seconds"),
    [
        pytest.param(lasting(Look(0, 50, 50, source_error="it died")), UNKNOWN, None, None, id="1: the source ended"),
        pytest.param(lasting(Look(0, 50, None, held=9, ready=False)), UNKNOWN, None, None, id="2: it replays"),
        pytest.param(lasting(Look(0, 50, None, held=0, ready=False)), OK, None, None, id="2: and nothing waits"),
        pytest.param(
            [Look(0, 50, None, held=9, ready=False), Look(400, 50, 50, held=9), Look(414, 50, 50, held=9)],
            OK,
            LEADER,
            14,
            id="2: no wait begins in a replay",
        ),
        pytest.param(
            [Look(0, 50, 50, held=9), Look(200, 50, None, held=9, ready=False), Look(310, 50, 50, held=9)],
            OK,
            LEADER,
            0,
            id="2: no wait goes on in a replay",
        ),
        pytest.param([Look(0, 5, 50, low=20)], STALLED, None, None, id="3: committed below the beginning"),
        pytest.param([Look(0, 101, 50, low=20)], STALLED, None, None, id="3: committed beyond the end"),
        pytest.param([Look(0, 20, 20, low=20, high=20)], OK, None, None, id="3: at both"),
        pytest.param([Look(0, 101, 50, held=0)], OK, None, None, id="3: from inside it runs"),
        pytest.param([Look(0, 50, 50, error="no broker")], UNKNOWN, None, None, id="4: not answered"),
        pytest.param([Look(0, 50, 50, high=None)], UNKNOWN, None, None, id="4: no end"),
        pytest.param([Look(0, None, 50)], UNKNOWN, None, None, id="4: no position"),
        pytest.param(
            [Look(0, 50, 50), Look(200, 50, 50, error="no broker"), Look(300, 50, 50)],
            STALLED,
            LEADER,
            300,
            id="4: a wait goes on while it isn't answered",
        ),
        pytest.param(
            [Look(0, 50, 50), Look(200, 50, None, error="no broker"), Look(300, 50, 60)],
            OK,
            FOLLOWER,
            0,
            id="4: and ends with progress",
        ),
        pytest.param(
            [Look(0, 50, 50), Look(200, 50, 50, error="no"), Look(300, 50, 50, error="no"), Look(301, 50, 50)],
            OK,
            LEADER,
            0,
            id="4: nobody knows what was in so long a time",
        ),
        pytest.param(lasting(Look(0, 100, 100)), OK, None, None, id="5: all is done"),
        pytest.param(lasting(Look(0, None, 50, low=50, high=50)), OK, None, None, id="5: nothing to begin with"),
        pytest.param(lasting(Look(0, 99, 99)), OK, None, None, id="5: a transaction's marker, nobody looked"),
        pytest.param(lasting(Look(0, 99, 100)), OK, None, None, id="5: a released marker, nobody looked"),
        pytest.param(lasting(Look(0, 50, 60, high=50, held=0)), OK, None, None, id="5: released, and isn't there yet"),
        pytest.param(lasting(Look(0, 50, 50, found=NOTHING_THERE)), OK, None, None, id="5: nothing is there"),
        pytest.param(
            lasting(Look(0, 2, 2, high=4, held=0)), OK, None, None, id="5: two interleaved transactions, from inside"
        ),
        pytest.param(
            lasting(Look(0, 1, 1, high=22, held=0)), OK, None, None, id="5: 1 message and 20 aborted, from inside"
        ),
        pytest.param(
            lasting(Look(0, 1, 1, high=22, found=NOTHING_THERE)), OK, None, None, id="5: the same, from outside"
        ),
        pytest.param(
            lasting(Look(0, 100, None, has_reported=False)), UNKNOWN, None, None, id="5: done, never reported"
        ),
        pytest.param([Look(0, 50, 50)], OK, LEADER, 0, id="6: the wait begins now"),
        pytest.param(
            [Look(0, 50, 50), Look(100, 100, 100), Look(350, 100, 100, high=200), Look(360, 100, 100, high=200)],
            OK,
            LEADER,
            10,
            id="6: an idle time is no wait",
        ),
        pytest.param([Look(0, 50, 50), Look(200, 51, 51), Look(214, 51, 51)], OK, LEADER, 14, id="7: messages went on"),
        pytest.param([Look(0, 50, 50), Look(200, 51, 51), Look(500, 51, 51)], STALLED, LEADER, 300, id="7: and stand"),
        pytest.param([Look(0, 50, 50), Look(200, 40, 50), Look(499, 40, 50)], WAITING, FOLLOWER, 299, id="7: a seek"),
        pytest.param([Look(0, 50, 10), Look(200, 50, 20), Look(499, 50, 20)], WAITING, LEADER, 299, id="8: it works"),
        pytest.param([Look(0, 50, None), Look(200, 50, 0), Look(499, 50, 0)], WAITING, LEADER, 299, id="8: now known"),
        pytest.param([Look(0, 50, 0), Look(200, 50, 0), Look(300, 50, 0)], STALLED, LEADER, 300, id="8: 0 stays 0"),
        pytest.param([Look(0, 50, 50), Look(200, 50, 80), Look(214, 50, 80)], OK, FOLLOWER, 14, id="8: it opened"),
        pytest.param(
            [Look(0, 50, 50), Look(200, 50, 80), Look(500, 50, 80)], STALLED, FOLLOWER, 300, id="8: and stands"
        ),
        pytest.param(
            [Look(0, 50, 30), Look(100, 50, 20), Look(200, 50, 30), Look(250, 50, 20), Look(300, 50, 30)],
            STALLED,
            LEADER,
            300,
            id="8: a leader that starts over again and again",
        ),
        pytest.param(
            [Look(0, 50, 30), Look(100, 50, 20), Look(200, 50, 25), Look(250, 50, 10), Look(300, 50, 25)],
            STALLED,
            LEADER,
            300,
            id="8: or falls deeper still",
        ),
        pytest.param(
            [
                Look(0, 50, 30),
                Look(100, 50, 20),
                Look(200, 50, 30),
                Look(250, 50, 20),
                Look(260, 50, 31),
                *STANDS_AT_31,
            ],
            WAITING,
            LEADER,
            299,
            id="8: until it gets further than before",
        ),
        pytest.param(
            [Look(0, 50, 50), Look(100, 50, 10), Look(300, 50, 20), Look(500, 50, 30), Look(799, 50, 30)],
            WAITING,
            LEADER,
            299,
            id="8: it works through a rewind",
        ),
        pytest.param(
            [Look(0, 50, 50), Look(100, 50, 10), Look(300, 50, 10)],
            STALLED,
            LEADER,
            300,
            id="8: it went back and stays",
        ),
        pytest.param(
            [
                Look(0, 50, 50),
                Look(9, 50, 10),
                Look(100, 50, 20),
                Look(110, 50, 19),
                Look(200, 50, 21),
                Look(499, 50, 21),
            ],
            WAITING,
            LEADER,
            299,
            id="8: its reports come a little out of order meanwhile",
        ),
        pytest.param(
            [
                Look(0, 50, 50),
                Look(9, 50, 10),
                Look(100, 50, 20),
                Look(110, 50, 19),
                Look(200, 50, 20),
                Look(400, 50, 20),
            ],
            STALLED,
            LEADER,
            300,
            id="8: and what came before isn't new",
        ),
        pytest.param(
            [Look(0, 50, 30), Look(1, 50, 20), Look(150, 50, 30), Look(301, 50, 20), Look(302, 50, 21)],
            OK,
            LEADER,
            0,
            id="8: it falls once in a while",
        ),
        pytest.param(
            [
                Look(0, 50, 30),
                Look(1, 50, 20),
                Look(150, 50, 25),
                Look(200, 50, 20),
                Look(500, 50, 22),
                Look(510, 50, 22),
            ],
            OK,
            LEADER,
            10,
            id="8: it has started over, and has not fallen since for long enough",
        ),
        pytest.param(
            [Look(0, 50, 20), Look(100, 50, None), Look(200, 50, 20), Look(250, 50, None), Look(300, 50, 20)],
            STALLED,
            LEADER,
            300,
            id="8: not to be known is no step back",
        ),
        pytest.param(
            [Look(0, 50, 60), Look(100, 50, 70), Look(200, 50, 80), Look(300, 50, 90)],
            STALLED,
            FOLLOWER,
            300,
            id="9: the leader runs ahead, the follower stands",
        ),
        pytest.param(
            [Look(0, 0, 1), Look(200, 0, 2), Look(300, 0, 2)], STALLED, FOLLOWER, 300, id="9: at offset 0, too"
        ),
        pytest.param(
            [Look(0, 50, 60), Look(100, 50, None), Look(200, 50, 70), Look(300, 50, 70)],
            STALLED,
            FOLLOWER,
            300,
            id="9: once open, the follower must move",
        ),
        pytest.param(
            [Look(0, 50, 50), Look(150, 50, None), Look(300, 50, 50)], STALLED, LEADER, 300, id="9: unknown in between"
        ),
        pytest.param(
            [Look(0, 2, 4, high=4, held=0, polls=5), Look(300, 2, 4, high=4, held=0, polls=900)],
            OK,
            FOLLOWER,
            300,
            id="10: released markers, and the consumer is given nothing",
        ),
        pytest.param(
            [Look(0, 2, 4, high=4, held=0, polls=5), Look(9, 2, 4, 4, 0, polls=6), Look(300, 2, 4, 4, 0, polls=6)],
            STALLED,
            FOLLOWER,
            300,
            id="10: the next step hangs with the message in its hand",
        ),
        pytest.param(
            [Look(0, 2, 4, 4, 0, polls=5), Look(295, 2, 4, 4, 0, polls=6), Look(300, 2, 4, 4, 0, polls=6)],
            OK,
            FOLLOWER,
            300,
            id="10: it was given nothing five seconds ago",
        ),
        pytest.param(
            [Look(0, 2, 4, 4, 0, polls=5), Look(294, 2, 4, 4, 0, polls=6), Look(300, 2, 4, 4, 0, polls=6)],
            STALLED,
            FOLLOWER,
            300,
            id="10: and has asked for nothing for longer",
        ),
        pytest.param(
            [Look(0, 2, 4, high=4, held=2, polls=5), Look(300, 2, 4, high=4, held=2, polls=900)],
            STALLED,
            FOLLOWER,
            300,
            id="10: what is buffered is a message",
        ),
        pytest.param(
            [EMPTY, EMPTY._replace(at=240, others=9), EMPTY._replace(at=300, others=9)],
            WAITING,
            FOLLOWER,
            300,
            id="11: it is busy elsewhere, where it took a message a minute ago",
        ),
        pytest.param(
            [EMPTY, EMPTY._replace(at=239, others=9), EMPTY._replace(at=300, others=9)],
            STALLED,
            FOLLOWER,
            300,
            id="11: it has taken none for longer, so its step hangs",
        ),
        pytest.param(lasting(EMPTY), STALLED, FOLLOWER, 300, id="11: it has never taken one"),
        pytest.param(
            [EMPTY._replace(others=None), EMPTY._replace(at=299), EMPTY._replace(at=300)],
            STALLED,
            FOLLOWER,
            300,
            id="11: where it was before isn't known",
        ),
        pytest.param(
            [EMPTY, EMPTY._replace(at=5, others=9), EMPTY._replace(at=14, others=10)],
            OK,
            FOLLOWER,
            14,
            id="11: it is busy elsewhere, and that not for long",
        ),
        pytest.param(
            [EMPTY, EMPTY._replace(at=290, others=9), EMPTY._replace(at=300, others=9, polls=8)],
            OK,
            FOLLOWER,
            300,
            id="10: it was busy elsewhere, and is given nothing now",
        ),
        pytest.param(
            [EMPTY._replace(held=1), EMPTY._replace(at=300, held=1, others=9)],
            STALLED,
            FOLLOWER,
            300,
            id="11: it is busy elsewhere, but what is buffered is a message",
        ),
        pytest.param(
            [Look(0, 50, 50, held=9, others=8), Look(300, 50, 50, held=9, others=9)],
            STALLED,
            LEADER,
            300,
            id="11: it is busy elsewhere, which excuses no leader",
        ),
        pytest.param(lasting(Look(0, 50, 50), 299), WAITING, LEADER, 299, id="11: not long enough yet"),
        pytest.param(lasting(Look(0, 50, 50)), STALLED, LEADER, 300, id="11: the leader stands still"),
        pytest.param(lasting(Look(0, 50, 80)), STALLED, FOLLOWER, 300, id="11: the follower stands still"),
        pytest.param(lasting(Look(0, 60, 50)), STALLED, LEADER, 300, id="11: the leader went back and stays"),
        pytest.param(lasting(Look(0, 99, 99, held=1)), STALLED, LEADER, 300, id="11: one held message waits"),
        pytest.param(
            lasting(Look(0, 99, 99, found=NextMessage(99))), STALLED, LEADER, 300, id="11: one message is there"
        ),
        pytest.param(
            lasting(Look(0, 50, 60, found=NextMessage(59))), STALLED, FOLLOWER, 300, id="11: a released one is there"
        ),
        pytest.param(
            lasting(Look(0, 50, 80, found=IN_TRANSACTION)), WAITING, FOLLOWER, 300, id="11: a transaction is open"
        ),
        pytest.param(
            lasting(Look(0, 50, 50, found=IN_TRANSACTION)), WAITING, LEADER, 300, id="11: the leader gets no further"
        ),
        pytest.param(
            lasting(Look(0, 50, 60, found=IN_TRANSACTION), 14),
            OK,
            FOLLOWER,
            14,
            id="13: as transactions are, for a while",
        ),
        pytest.param(
            lasting(Look(0, 50, None, found=IN_TRANSACTION, has_reported=False), 14),
            UNKNOWN,
            LEADER,
            14,
            id="12: whom it waits for may not be there at all",
        ),
        pytest.param(lasting(Look(0, 50, 99)), STALLED, FOLLOWER, 300, id="11: all but the last are released"),
        pytest.param(
            lasting(Look(0, 7, None, high=None, held=1)), STALLED, LEADER, 300, id="11: held, the end unknown"
        ),
        pytest.param(
            lasting(Look(0, 50, 60, found=NextMessage(60))), STALLED, LEADER, 300, id="11: released offsets are a gap"
        ),
        pytest.param(
            lasting(Look(0, 99, 99, held=1, committed=100)), WAITING, LEADER, 300, id="11: done, not reported"
        ),
        pytest.param(
            lasting(Look(0, 0, 0, high=1, held=1, committed=1)), WAITING, LEADER, 300, id="11: the first one of all"
        ),
        pytest.param(
            lasting(Look(0, 99, 99, held=1, committed=99)), STALLED, LEADER, 300, id="11: it hasn't committed this one"
        ),
        pytest.param(
            lasting(Look(0, 60, 50, held=9, committed=60)), STALLED, LEADER, 300, id="11: nor, after it went back"
        ),
        pytest.param(
            lasting(Look(0, 50, None, held=9, committed=60)), STALLED, LEADER, 300, id="11: what it reports is unknown"
        ),
        pytest.param(
            [Look(0, 98, 98, 99, 1, committed=99), Look(300, 98, 98, 100, 2, committed=100)],
            STALLED,
            LEADER,
            300,
            id="11: and new ones arrive: it doesn't publish",
        ),
        pytest.param(
            lasting(Look(0, 50, None, published=5000, is_rejected=True)), STALLED, LEADER, 300, id="11: past the end"
        ),
        pytest.param(
            lasting(Look(0, 50, None, has_reported=False), 299), UNKNOWN, LEADER, 299, id="12: it has never reported"
        ),
        pytest.param(
            lasting(Look(0, 50, None, has_reported=False)), STALLED, LEADER, 300, id="11: and that for too long"
        ),
        pytest.param(
            lasting(Look(0, 50, None, published=5000, is_rejected=True), 1), UNKNOWN, LEADER, 1, id="12: past the end"
        ),
        pytest.param(
            [Look(0, 100, None, published=5000, is_rejected=True)], UNKNOWN, None, None, id="12: and nothing waits"
        ),
        pytest.param(
            lasting(Look(0, 50, None, held=9, published=5000, is_rejected=True), 20),
            WAITING,
            LEADER,
            20,
            id="12: seen from inside",
        ),
        pytest.param(lasting(Look(0, 50, None), 20), WAITING, LEADER, 20, id="12: it reported of another partition"),
        pytest.param(lasting(Look(0, 99, 99, found=UNFETCHED)), UNKNOWN, None, None, id="12: one wasn't fetched"),
        pytest.param(lasting(Look(0, 99, 100, found=UNFETCHED), 1), UNKNOWN, None, None, id="12: that is released"),
        pytest.param(
            [Look(0, 98, 99, 99, found=UNFETCHED), Look(5, 99, 100, found=UNFETCHED)],
            *(OK, None, None),
            id="12: but the follower makes progress",
        ),
        pytest.param(
            lasting(Look(0, 99, None, published=5000, is_rejected=True, found=UNFETCHED)),
            *(UNKNOWN, None, None),
            id="12: and the report can't be true",
        ),
        pytest.param(lasting(Look(0, 98, 98, found=UNFETCHED)), STALLED, LEADER, 300, id="11: two weren't fetched"),
        pytest.param(lasting(Look(0, 50, 50), 14), OK, LEADER, 14, id="13: it may be working"),
        pytest.param(lasting(Look(0, 50, 50), 15), WAITING, LEADER, 15, id="13: no progress for 15 s"),
        pytest.param(lasting(Look(0, 50, 80), 15), WAITING, FOLLOWER, 15, id="13: nor by the follower"),
    ],
)
def test_the_verdict(looks: list[Look], grade: Grade, whom: WaitsFor | None, seconds: float | None) -> None:
    """At the last of several snapshots, by the rules of the module's docstring, whose numbers the cases have."""
    verdict = verdict_at_last(looks)
    assert (verdict.grade, verdict.waits_for, verdict.waiting_seconds) == (grade, whom, seconds)


@pytest.mark.parametrize(
    ("look", "says"),
    [
        (Look(0, 50, 50, source_error="it died"), "can't be told: it died"),
        (
            Look(0, 50, None, held=9, ready=False),
            "waits for the start: what leaders published is being read, 7 records",
        ),
        (Look(0, 5, 50, low=20), "the follower has committed 5, and the partition begins at 20"),
        (Look(0, 101, 50), "the follower has committed 101, and the partition ends at 100"),
        (Look(0, 50, 50, error="no broker"), "can't be told: no broker"),
        (Look(0, 50, 50, high=None), "where the partition ends isn't known"),
        (Look(0, None, 50), "can't be told: where the follower is isn't known"),
        (Look(0, 50, None, has_reported=False), "group 'writers' has never reported"),
        (Look(0, 100, None, has_reported=False), "group 'writers' has never reported"),
        (
            Look(0, 50, None, published=5000, is_rejected=True),
            "published 5000, which is beyond the partition's end: it ends at 100. Was",
        ),
        (
            Look(0, 100, None, published=5000, is_rejected=True),
            "published 5000, which is beyond the partition's end: it ends at 100.",
        ),
        (
            Look(0, 99, None, published=5000, is_rejected=True, found=UNFETCHED),
            "published 5000, which is beyond the partition's end: it ends at 100.",
        ),
        (Look(0, 99, 99, found=UNFETCHED), "its first waiting message couldn't be fetched (no answer within 3 s)"),
        (
            Look(0, 99, 99, held=1),
            "either the leader stands still, or these are messages that it reports only with its",
        ),
        (Look(0, 99, 99, held=1, committed=100), "It has committed up to 100 on the brokers: either it reports"),
    ],
)
def test_why_is_said(look: Look, says: str) -> None:
    """Where it isn't plain from the numbers."""
    assert says in verdict_at_last(lasting(look, 20)).reason


GETS_NOTHING_OF_WHAT_COMES = (
    "The partition grows, and the follower's consumer gets nothing of it: a transaction that hangs, or its client no "
    "longer fetches this partition, which a restart mends"
)


def given_nothing(seconds: float, high: int, grown_for: float = IDLE_SECONDS) -> Verdict:
    """Of an open partition, for so long, at whose end ``high`` is; the consumer has asked all the time."""
    looks = [Look(0, 2, 10, 10, 0, polls=5), Look(seconds - grown_for, 2, high, high, 0, polls=7)]
    return verdict_at_last([*looks, Look(seconds, 2, high, high, 0, polls=9)])


def test_a_partition_that_grows_and_of_which_nothing_is_fetched_waits() -> None:
    """The other partitions' empty polls don't excuse it for ever; where nothing new arrives there may be no message."""
    assert given_nothing(LIMITS.stalled_after - 1, high=5000).grade is OK
    assert given_nothing(LIMITS.stalled_after, high=10).grade is OK
    verdict = given_nothing(LIMITS.stalled_after, high=5000)
    assert (verdict.grade, verdict.reason) == (WAITING, GETS_NOTHING_OF_WHAT_COMES)


def test_what_comes_after_a_pause_is_on_its_way_for_a_moment() -> None:
    """The end of a transaction was all that was left of the last messages, so the wait is as old as they are."""
    verdict = given_nothing(LIMITS.stalled_after + 10, high=5000, grown_for=IDLE_SECONDS - 1)
    assert (verdict.grade, verdict.reason) == (OK, IDLE)


def test_a_stall_that_is_called_early_is_called_so_of_a_hung_step_too() -> None:
    """That another partition's message was taken a minute ago is no excuse for longer than a stall takes."""
    waits, early = NO_WAITS, Limits(stalled_after=10.0)
    for at, others in ((0.0, 8), (5.0, 9), (14.0, 9), (16.0, 9)):
        (verdict,), waits = evaluate(snapshot(EMPTY._replace(at=at, others=others)), waits, at, early)
        assert (verdict.grade is STALLED) is (at == 16.0)


ELSEWHERE = (
    "The follower is busy with other partitions: what is here waits behind theirs, or these offsets hold no messages, "
    "or its client no longer fetches this partition, which a restart mends"
)
IDLE = "The follower's consumer gets nothing: these offsets hold no messages, or their broker doesn't answer"


@pytest.mark.parametrize(
    ("looks", "reason"),
    [
        pytest.param(lasting(Look(0, 100, 100), 20), "", id="nothing waits"),
        pytest.param(lasting(Look(0, 50, 80), 20), "", id="the follower is slow"),
        pytest.param(lasting(Look(0, 99, 99, held=1), 14), "", id="it has only just come"),
        pytest.param([Look(0, 2, 4, 4, 0, polls=5), Look(20, 2, 4, 4, 0, polls=9)], IDLE, id="it is given nothing"),
        pytest.param([EMPTY, EMPTY._replace(at=20, others=9)], ELSEWHERE, id="it is busy elsewhere"),
        pytest.param([EMPTY, EMPTY._replace(at=14, others=9)], "", id="it is busy elsewhere, and that not for long"),
        pytest.param(lasting(Look(0, 50, 50, held=10, high=60), 20), MAYBE_UNREPORTED, id="ten are left"),
        pytest.param(lasting(Look(0, 50, 50, held=11, high=61), 20), "", id="more than that"),
        pytest.param(
            lasting(Look(0, 99, 99, held=1, committed=99), 20), MAYBE_UNREPORTED, id="the last one isn't committed"
        ),
        pytest.param(lasting(Look(0, 50, None, held=9), 20), "", id="what the leader has reported is unknown"),
        pytest.param(lasting(Look(0, 50, None, held=9, published=5000, is_rejected=True), 20), "", id="or can't be"),
        pytest.param(
            [Look(0, 98, 98, 99, 1, committed=99), Look(20, 98, 98, 100, 2, committed=100)],
            "It has committed up to 100 on the brokers and doesn't report it: is PublishCommitLog its last step, and "
            "the commit log the same?",
            id="it goes on without a report",
        ),
    ],
)
def test_what_may_be_the_reason_is_said_where_it_may_be_and_nowhere_else(looks: list[Look], reason: str) -> None:
    """A guess why a leader is silent fits only a few trailing messages that it hasn't reported."""
    assert verdict_at_last(looks).reason == reason


@pytest.mark.parametrize(
    ("look", "group", "group_offset"),
    [
        pytest.param(Look(0, 60, 50), "writers", 50, id="for the leader"),
        pytest.param(Look(0, 50, 80), None, None, id="for the follower, though the leader isn't done either"),
        pytest.param(Look(0, None, 50, low=50), "writers", 50, id="a follower that hasn't begun"),
        pytest.param(Look(0, 100, 100), None, None, id="nothing waits"),
        pytest.param(Look(0, 50, 80, error="no broker"), None, None, id="it can't be told"),
    ],
)
def test_a_verdict_says_where_the_follower_is_and_which_group_it_waits_for(
    look: Look, group: str | None, group_offset: int | None
) -> None:
    """Where it waits for none, none is named: nobody is called for another's fault."""
    verdict = verdict_at_last([look])
    where = look.low if look.local is None else look.local
    assert (verdict.local_offset, verdict.remote_offset) == (where, look.remote)
    assert (verdict.group, verdict.group_offset) == (group, group_offset)


@pytest.mark.parametrize(("lag", "left"), [(7, ", 7 records to go"), (None, "")])
def test_a_replay_says_how_much_is_left_if_that_is_known(lag: int | None, left: str) -> None:
    """A source that can't tell is waited for all the same."""
    seen = replace(snapshot(Look(0, 50, None)), source=SourceStatistics(ready=False, alive=True, lag=lag))
    (verdict,), _ = evaluate(seen, NO_WAITS, 0, LIMITS)
    assert verdict.reason == f"waits for the start: what leaders published is being read{left}"


def test_a_report_that_is_rejected_for_another_reason_is_not_called_past_the_end() -> None:
    """What is said leads people to what they do about it."""
    (partition,) = snapshot(Look(0, 50, None, published=5000, is_rejected=True)).partitions
    leader = replace(partition.leaders[0], rejected_because="of an earlier topic of that name")
    (verdict,), _ = evaluate(Snapshot(0, (replace(partition, leaders=(leader,)),)), NO_WAITS, 0, LIMITS)
    assert verdict.reason == (
        "group 'writers' has published 5000, which is of an earlier topic of that name. Was the topic deleted and "
        "created again? Then restart the leader. If it goes on: is the topic a mirror (see FOLLOWERS.md), or on "
        "another cluster than the commit log, and CommitLogPublisher not told which, by data_configuration?"
    )


@pytest.mark.parametrize(
    ("look", "behind", "is_exact"),
    [
        pytest.param(Look(0, 50, 50), 50, False, id="from outside these are offsets"),
        pytest.param(Look(0, 50, 50, held=9), 9, True, id="from inside what is held"),
        pytest.param(Look(0, 50, 50, held=9, is_full=True), 50, False, id="and what a full partition doesn't fetch"),
        pytest.param(Look(0, 99, 99, found=NextMessage(99)), 1, True, id="one that was seen"),
        pytest.param(Look(0, 50, 50, found=NextMessage(50)), 50, False, id="and what comes after it"),
        pytest.param(Look(0, 99, 99, found=NextMessage(None, open_from=99)), 1, False, id="or one that isn't shown"),
        pytest.param(Look(0, 50, 80), 30, False, id="released"),
        pytest.param(Look(0, 50, 80, held=9), 30, False, id="from inside, too, since they aren't all fetched"),
        pytest.param(Look(0, 50, 51, held=0), 1, False, id="one offset that may hold none"),
    ],
)
def test_how_many_wait_and_whether_that_is_certain(look: Look, behind: int, is_exact: bool) -> None:
    """Offsets may hold no messages: markers, aborted ones, compacted ones."""
    verdict = verdict_at_last([look])
    assert (verdict.behind, verdict.is_exact) == (behind, is_exact)


REPORTED_AT = 1000.0


@pytest.mark.parametrize(
    ("found", "since"),
    [
        pytest.param(NextMessage(50, 900.0), 1000.0, id="older than the last report"),
        pytest.param(NextMessage(50, -3e9), 1000.0, id="of long ago: mirrored"),
        pytest.param(NextMessage(50, 1200.0), 1200.0, id="it came after the last report"),
        pytest.param(NextMessage(50, 1300.0), 1300.0, id="it came this moment"),
        pytest.param(NextMessage(50, 1300.5), 1300.0, id="it came this moment, and its clock is a little ahead"),
        pytest.param(NextMessage(50, 1360.0), 1300.0, id="as far ahead as clocks may be"),
        pytest.param(NextMessage(50, 1360.5), 1000.0, id="further"),
        pytest.param(NextMessage(50, 9e9), 1000.0, id="from the future"),
        pytest.param(NextMessage(50, None), 1000.0, id="no timestamp"),
        pytest.param(None, 1000.0, id="nobody looked"),
        pytest.param(NOTHING_THERE, None, id="nothing waits"),
    ],
)
def test_a_wait_is_proven_since_the_leaders_last_report_and_never_older(
    found: NextMessage | None, since: float | None
) -> None:
    """Producers' timestamps can make it shorter, never longer."""
    leader = LeaderSnapshot("writers", 50, published_at=REPORTED_AT)
    partition = PartitionSnapshot("events", 3, 50, 50, 0, 100, (leader,), next_message=found)
    assert proven_since(partition, 1300.0) == since


@pytest.mark.parametrize(
    ("found", "since"),
    [
        pytest.param(NextMessage(50, 900.0), 900.0, id="it came after the offset"),
        pytest.param(NextMessage(50, 500.0), 700.0, id="it was there before"),
        pytest.param(NextMessage(50, 1200.0), 1200.0, id="it came after the last report"),
        pytest.param(NextMessage(50, None), 1000.0, id="no timestamp"),
        pytest.param(None, 1000.0, id="nobody looked"),
    ],
)
def test_a_report_that_repeats_its_offset_proves_that_the_leader_has_stood_there_while_the_message_waited(
    found: NextMessage | None, since: float
) -> None:
    """Since the offset was first reported, here at 700: heartbeats of a leader that hangs make its stall no younger."""
    leader = LeaderSnapshot("writers", 50, published_at=REPORTED_AT)
    partition = PartitionSnapshot("events", 3, 50, 50, 0, 100, (leader,), next_message=found)
    assert proven_since(partition, 1300.0, stands_since=700.0) == since
    assert proven_since(partition, 1300.0, stands_since=9e9) == proven_since(partition, 1300.0), "its own clock errs"


@pytest.mark.parametrize(
    "leaders", [(), (LeaderSnapshot("writers", 50),)], ids=["no leader is known by name", "it has no timestamp"]
)
def test_nothing_is_proven_without_a_report_that_says_when(leaders: tuple[LeaderSnapshot, ...]) -> None:
    """The wait begins with the first look, then."""
    assert proven_since(PartitionSnapshot("events", 3, 50, 50, 0, 100, leaders), 1300.0) is None


def test_nothing_is_proven_of_a_follower_or_by_a_report_from_the_future() -> None:
    """A follower that began a moment ago has an old commit too."""
    leader = LeaderSnapshot("writers", 80, published_at=REPORTED_AT)
    partition = PartitionSnapshot("events", 3, 50, 80, 0, 100, (leader,))
    assert proven_since(partition, 1300.0) is None
    late = replace(partition, remote_offset=50, leaders=(replace(leader, published_offset=50),))
    assert proven_since(late, 900.0) == 900.0


def test_nothing_is_proven_by_an_old_report_where_a_transaction_is_open() -> None:
    """It may have begun a moment ago."""
    leader = LeaderSnapshot("writers", 50, published_at=REPORTED_AT)
    partition = PartitionSnapshot("events", 3, 50, 50, 0, 100, (leader,), next_message=IN_TRANSACTION)
    assert proven_since(partition, 9e3) is None


def test_nothing_is_proven_by_a_report_that_can_not_be_true() -> None:
    """It is of an earlier topic, as a rule: what waits in this one may have come a moment ago."""
    leader = LeaderSnapshot("writers", 5000, published_at=REPORTED_AT, is_rejected=True)
    partition = PartitionSnapshot("events", 3, 50, None, 0, 100, (leader,), next_message=NextMessage(50, 900.0))
    assert proven_since(partition, 9e3) is None


def test_a_wait_begins_when_it_is_proven_to_have_begun() -> None:
    """At the first look; what is seen later counts by itself."""
    assert verdict_at_last([Look(400, 50, 50)], proven=50.0).grade is STALLED
    assert verdict_at_last([Look(400, 50, 50), Look(405, 50, 60)], proven=50.0).waiting_seconds == 0.0


@pytest.mark.parametrize(
    ("back_after", "local", "seconds"),
    [
        pytest.param(290, 50, 290, id="as it was"),
        pytest.param(290, 60, 0, id="somebody else has moved it"),
        pytest.param(301, 50, 0, id="when it has been away for as long as makes a stall"),
        pytest.param(600, 50, 0, id="after a long time"),
    ],
)
def test_a_rebalance_is_no_progress(back_after: float, local: int, seconds: float) -> None:
    """A partition that is revoked and comes back goes on waiting, else a group that flaps would hide every stall."""
    _, waits = evaluate(snapshot(Look(1000, 50, 50)), NO_WAITS, 1000, LIMITS)
    for at in (1200.0, 1000 + back_after - 1):
        verdicts, waits = evaluate(Snapshot(at, ()), waits, at, LIMITS)
        assert verdicts == []
    (verdict,), waits = evaluate(snapshot(Look(1000 + back_after, local, local)), waits, 1000 + back_after, LIMITS)
    assert verdict.waiting_seconds == seconds


SLOW = LeaderSnapshot("slow", published_offset=50)
FAST = LeaderSnapshot("fast", published_offset=90)


@pytest.mark.parametrize(
    ("remote", "leaders", "says"),
    [
        pytest.param(
            50,
            (FAST, SLOW),
            "events[3] has stood still for 300 s at 50: up to 50 messages wait for group 'slow', which is at 50",
            id="for the slowest group",
        ),
        pytest.param(
            None,
            (FAST, LeaderSnapshot("silent")),
            "events[3] has stood still for 300 s at 50: up to 50 messages wait for group 'silent', which has published"
            " nothing",
            id="for a group that never published",
        ),
        pytest.param(
            None,
            (FAST, SLOW),
            "events[3] has stood still for 300 s at 50: up to 50 messages wait, and what the leaders have committed"
            " isn't known (yet)",
            id="for the source",
        ),
        pytest.param(
            50,
            (),
            "events[3] has stood still for 300 s at 50: up to 50 messages wait for the leaders, which are at 50",
            id="for leaders that nobody knows by name",
        ),
        pytest.param(
            80,
            (FAST, SLOW),
            "events[3] has stood still for 300 s at 50: up to 30 messages are released up to 80, but the follower"
            " doesn't pass them on",
            id="for the follower",
        ),
    ],
)
def test_a_stall_says_where_since_when_for_whom_and_how_far(
    remote: int | None, leaders: tuple[LeaderSnapshot, ...], says: str
) -> None:
    """One line is enough to know whom to call."""
    partition = PartitionSnapshot("events", 3, 50, remote, high_watermark=100, leaders=leaders)
    seen = Snapshot(0.0, (partition,))
    _, waits = evaluate(seen, NO_WAITS, 0, LIMITS)
    (verdict,), _ = evaluate(seen, waits, 300, LIMITS)
    assert verdict.grade is STALLED
    assert str(verdict.stall) == says


def test_the_worst_comes_first_and_of_those_the_longest() -> None:
    """The first one is where it began."""
    verdicts = [
        Verdict("events", 0, OK),
        Verdict("events", 1, WAITING, waiting_seconds=20.0),
        Verdict("events", 2, STALLED, waiting_seconds=300.0),
        Verdict("events", 3, UNKNOWN),
        Verdict("events", 4, STALLED, waiting_seconds=400.0),
    ]
    assert [each.partition for each in worst_first(verdicts)] == [4, 2, 3, 1, 0]
    assert worst(verdicts) is STALLED
    assert worst([]) is OK


def test_a_transaction_that_hangs_is_named_with_what_to_do() -> None:
    """Neither the follower nor its leader can do anything about it."""
    verdict = verdict_at_last(lasting(Look(0, 50, 80, found=IN_TRANSACTION)))
    assert verdict.reason == (
        "A transaction is open from offset 55 on, and who reads committed messages alone gets no further. If that "
        "lasts, it hangs: kafka-transactions.sh find-hanging names it, and its abort ends it"
    )


def test_a_group_without_a_report_or_a_commit_is_named_in_the_words_of_where_it_was_looked_for() -> None:
    """Without a commit log a leader needn't publish."""
    silent = snapshot(Look(0, 100, None, has_reported=False))
    for source, said in (
        (silent.source, "reported: is its name right, and does it publish"),
        (None, "committed nothing"),
    ):
        ((verdict,), _) = evaluate(replace(silent, source=source), NO_WAITS, 0.0, LIMITS)
        assert (verdict.grade, said in verdict.reason) == (UNKNOWN, True)


@pytest.mark.parametrize(
    ("between", "seconds"),
    [
        pytest.param(Look(200, 50, 50, held=0, received=False), 300.0, id="nothing has come yet"),
        pytest.param(Look(200, 50, None, held=0, received=False), 300.0, id="nor has the source proven anything anew"),
        pytest.param(Look(200, None, 50, held=0, received=False), 0.0, id="nobody knows where it begins"),
        pytest.param(Look(200, 50, 50, held=0, received=True), 0.0, id="it was handed on, or is gone"),
        pytest.param(Look(200, 50, 50, held=0), 0.0, id="it isn't known whether it has come"),
        pytest.param(Look(200, 45, 50, held=0, received=False), 0.0, id="it begins elsewhere"),
        pytest.param(Look(200, 50, 60, held=0, high=50, received=False), 0.0, id="the gate is open"),
        pytest.param(Look(200, 50, 60, held=0, received=False), 100.0, id="and it is there"),
    ],
)
def test_that_nothing_has_come_yet_of_a_partition_that_came_back_is_no_progress(between: Look, seconds: float) -> None:
    """The wait was forgotten, if a look fell between an assignment and its first message: with a rebalance a minute few
    stalls were ever told."""
    waits = NO_WAITS
    for look in [Look(0, 50, 50, held=9), between]:
        (verdict,), waits = evaluate(snapshot(look), waits, look.at, LIMITS)
    (last,), _ = evaluate(snapshot(Look(300, 50, between.remote, held=9)), waits, 300, LIMITS)
    assert last.waiting_seconds == seconds
    if seconds == 300.0:
        assert (verdict.grade, verdict.waits_for, verdict.waiting_seconds) == (WAITING, LEADER, 200)


def test_what_never_comes_again_does_not_wait_for_ever() -> None:
    """It may be deleted meanwhile."""
    waits = NO_WAITS
    looks = [Look(0, 50, 50, held=9), *(Look(at, 50, 50, held=0, received=False) for at in (100, 200, 299, 300))]
    verdicts = []
    for look in looks:
        (verdict,), waits = evaluate(snapshot(look), waits, look.at, LIMITS)
        verdicts.append((verdict.grade, verdict.waiting_seconds))
    assert verdicts[1:] == [(WAITING, 100), (WAITING, 200), (WAITING, 299), (OK, None)]
