"""The schedule of a leader's reports, with times that are given."""

from __future__ import annotations

from concurrent.futures import Future
from itertools import pairwise
from typing import Any

import pytest
from arroyo.processing.strategies.run_task_with_multiprocessing import ChildProcessTerminated
from arroyo.types import Partition, Topic

from arroyo_sync.leaders.commit_log.publishing.publish_queue import NoAnswer, PublishQueue, QueuedPartition
from tests.support.dead_worker import worker_dies

EVENTS = [Partition(Topic("events"), index) for index in range(3)]
INTERVAL, HEARTBEAT, DELIVERY_TIMEOUT = 10.0, 100.0, 200.0


@pytest.fixture
def queue() -> PublishQueue:
    return PublishQueue(INTERVAL, HEARTBEAT, DELIVERY_TIMEOUT)


def commit(queue: PublishQueue, index: int, offset: int) -> QueuedPartition:
    queued = queue.add(EVENTS[index])
    queued.newest = (offset, None)
    queue.mark_pending(queued)
    return queued


def take(queue: PublishQueue, now: float, *, delivered: bool = True) -> list[tuple[int, int]]:
    """What is due, each handed over to a producer that delivers it at once, or never."""
    reports = queue.update(now)[1]
    for report in reports:
        delivery: Future[Any] = Future()
        if delivered:
            delivery.set_result(None)
        queue.handed_over(report.queued, delivery)
    return [(report.queued.partition.index, report.offset) for report in reports]


def test_a_first_commit_is_due_at_once_and_the_next_one_after_an_interval(queue: PublishQueue) -> None:
    """And the newest of those in between is taken."""
    commit(queue, 0, 1)
    assert take(queue, 0.0) == [(0, 1)]
    commit(queue, 0, 2)
    commit(queue, 0, 3)
    assert take(queue, 9.9) == []
    assert take(queue, 10.0) == [(0, 3)]


def test_what_is_in_flight_is_not_overtaken(queue: PublishQueue) -> None:
    """From when a record is taken, also before the producer has it, until its delivery has ended."""
    queued = commit(queue, 0, 1)
    (report,) = queue.update(0.0)[1]
    commit(queue, 0, 2)
    assert queue.update(50.0) == ([], [])
    delivery: Future[Any] = Future()
    queue.handed_over(report.queued, delivery)
    assert queue.update(60.0) == ([], [])
    delivery.set_result(None)
    outcomes, (report,) = queue.update(70.0)
    assert [(outcome.queued, outcome.error) for outcome in outcomes] == [(queued, None)]
    assert report.offset == 2


def test_what_failed_is_due_again_after_an_interval_with_the_newest_offset(queue: PublishQueue) -> None:
    """Whether the producer refused it or its delivery failed."""
    queued = commit(queue, 0, 1)
    (report,) = queue.update(0.0)[1]
    delivery: Future[Any] = Future()
    queue.handed_over(report.queued, delivery)
    error = RuntimeError("broker gone")
    delivery.set_exception(error)
    assert queue.update(20.0) == ([(queued, error)], [])
    queued.newest = (2, None)
    assert queue.update(29.9) == ([], [])
    (report,) = queue.update(30.0)[1]
    assert report.offset == 2
    queue.failed(queued, 31.0)
    assert queue.update(40.9) == ([], [])
    assert take(queue, 41.0) == [(0, 2)]


def test_an_interrupted_look_at_how_a_delivery_ended_is_taken_again(queue: PublishQueue) -> None:
    """Else nobody would know that it failed."""

    class Interrupted(Future[Any]):
        looks = 0

        def result(self, timeout: float | None = None) -> Any:
            self.looks += 1
            return worker_dies() if self.looks == 1 else super().result(timeout)

    queued = commit(queue, 0, 1)
    queue.update(0.0)
    delivery, error = Interrupted(), RuntimeError("broker gone")
    queue.handed_over(queued, delivery)
    delivery.set_exception(error)
    with pytest.raises(ChildProcessTerminated):
        queue.update(20.0)
    assert queue.update(20.0) == ([(queued, error)], [])
    assert take(queue, 30.0) == [(0, 1)]


def test_a_record_that_is_never_answered_has_failed_in_the_end(queue: PublishQueue) -> None:
    """A producer whose own thread has ended says nothing more: without an end the partition would be silent for ever.

    Ten seconds after the producer must have given the record up, so that it can't overtake the next one; also when the
    end of an assignment has set the interval aside meanwhile.
    """
    queued = commit(queue, 0, 1)
    assert take(queue, 0.0, delivered=False) == [(0, 1)]
    queued.newest = (2, None)
    queue.mark_all()
    assert queue.update(199.9) == ([], [])
    assert queue.update(200.0) == ([], [])
    assert queue.update(209.9) == ([], [])
    ((failed, error),), due = queue.update(210.0)
    assert (failed, str(error), due) == (queued, "no answer in 210 seconds", [])
    assert isinstance(error, NoAnswer)
    assert queue.update(219.9) == ([], [])
    assert take(queue, 220.0, delivered=False) == [(0, 2)]
    assert queue.update(429.9) == ([], []), "the next one has as much time"


def test_a_record_that_no_producer_took_has_failed_in_the_end(queue: PublishQueue) -> None:
    """Whatever ended whoever had taken it."""
    queued = commit(queue, 0, 1)
    queue.update(0.0)
    queue.update(200.0)
    ((failed, error),), _ = queue.update(210.0)
    assert failed is queued
    assert isinstance(error, NoAnswer)


def test_a_process_that_was_stopped_hears_of_its_deliveries_first(queue: PublishQueue) -> None:
    """They wait for the producer's thread then, which may be a little later than whoever looks here: all is well."""
    queued = commit(queue, 0, 1)
    (report,) = queue.update(0.0)[1]
    delivery: Future[Any] = Future()
    queue.handed_over(report.queued, delivery)
    assert queue.update(5000.0) == ([], [])
    assert queue.update(5009.9) == ([], [])
    delivery.set_result(None)
    assert queue.update(5010.0) == ([(queued, None)], [])


def test_an_answer_after_all_changes_nothing(queue: PublishQueue) -> None:
    """The record that was published in its stead is still in flight, whatever the first one's end was."""
    queued = commit(queue, 0, 1)
    (report,) = queue.update(0.0)[1]
    first: Future[Any] = Future()
    queue.handed_over(report.queued, first)
    queue.update(200.0)
    queue.update(210.0)
    assert take(queue, 220.0, delivered=False) == [(0, 1)]
    commit(queue, 0, 2)
    first.set_exception(RuntimeError("timed out"))
    assert queue.update(300.0) == ([], [])
    assert queued.is_in_flight


def test_what_can_never_be_published_is_not_due_again(queue: PublishQueue) -> None:
    """Until something else is committed."""
    queued = commit(queue, 0, 1)
    queue.update(0.0)
    queue.give_up(queued)
    assert queue.update(1000.0) == ([], [])
    assert list(queue.waiting) == []
    commit(queue, 0, 2)
    assert take(queue, 1000.0) == [(0, 2)]


def test_what_is_silent_for_a_heartbeat_is_due_again(queue: PublishQueue) -> None:
    """Each partition by itself; one of which nothing is known isn't."""
    commit(queue, 0, 1)
    assert take(queue, 0.0) == [(0, 1)]
    commit(queue, 1, 5)
    assert take(queue, 60.0) == [(1, 5)]
    queue.add(EVENTS[2])
    queue.mark_heartbeats(99.0)
    assert take(queue, 99.0) == []
    queue.mark_heartbeats(100.0)
    assert take(queue, 100.0) == [(0, 1)]


def test_what_is_unclear_is_never_due(queue: PublishQueue) -> None:
    """Not as a retry, not as a heartbeat, not at the end, until something of it is committed."""
    queued = commit(queue, 0, 1)
    queue.update(0.0)
    queue.mark_unclear(queued)
    queue.failed(queued, 1.0)
    queue.mark_heartbeats(1000.0)
    queue.mark_all()
    assert queue.update(1000.0) == ([], [])
    commit(queue, 0, 7)
    assert take(queue, 1000.0) == [(0, 7)]


def test_what_is_hurried_while_a_record_is_in_flight_is_looked_for_soon(queue: PublishQueue) -> None:
    """However long a heartbeat is: as soon as that record has ended, whatever the interval."""
    commit(queue, 0, 1)
    (report,) = queue.update(0.0)[1]
    delivery: Future[Any] = Future()
    queue.handed_over(report.queued, delivery)
    assert queue.mark_now(report.queued)
    assert queue.update(1.0) == ([], [])
    assert queue.due_at == 1.0 + INTERVAL / 10
    delivery.set_result(None)
    assert take(queue, 2.0) == [(0, 1)]
    commit(queue, 0, 2)
    assert take(queue, 11.9) == [], "that was for once"
    assert take(queue, 12.0) == [(0, 2)]


def test_what_was_hurried_and_failed_waits_for_an_interval(queue: PublishQueue) -> None:
    """A producer that refuses isn't asked without end."""
    commit(queue, 0, 1)
    (report,) = queue.update(0.0)[1]
    queue.mark_now(report.queued)
    queue.failed(report.queued, 1.0)
    assert take(queue, 10.9) == []
    assert take(queue, 11.0) == [(0, 1)]


def test_at_the_end_all_are_due_whatever_the_interval(queue: PublishQueue) -> None:
    """One whose record is in flight, after that."""
    commit(queue, 0, 1)
    assert take(queue, 0.0) == [(0, 1)]
    commit(queue, 1, 5)
    assert take(queue, 0.0, delivered=False) == [(1, 5)]
    queue.mark_all()
    assert queue.due_at == -float("inf")
    assert take(queue, 0.0) == [(0, 1)]
    assert [queued.partition.index for queued in queue.waiting] == [1, 0]


def test_partitions_that_are_gone_are_forgotten(queue: PublishQueue) -> None:
    """With what they had to publish."""
    commit(queue, 0, 1)
    kept = commit(queue, 1, 5)
    queue.keep_only([EVENTS[1], EVENTS[2]])
    assert queue.partitions == {EVENTS[1]: kept}
    assert take(queue, 0.0) == [(1, 5)]


def test_it_says_when_something_is_due_next(queue: PublishQueue) -> None:
    """So that nobody goes through all of it in vain; at most ten times an interval while a record is in flight."""
    assert queue.due_at == float("inf")
    commit(queue, 0, 1)
    assert take(queue, 0.0, delivered=False) == [(0, 1)]
    assert queue.due_at == 10.0
    queue.update(5.0)
    assert queue.due_at == 15.0, "to see what became of the record"
    commit(queue, 0, 2)
    queue.update(5.0)
    assert queue.due_at == 10.0
    queue.update(10.0)
    assert queue.due_at == 11.0


def test_an_interval_may_be_short() -> None:
    """No time of the schedule's own is longer: what is new is due an interval later, what is hurried is looked for."""
    queue = PublishQueue(0.1, HEARTBEAT, DELIVERY_TIMEOUT)
    commit(queue, 0, 1)
    assert take(queue, 0.0) == [(0, 1)]
    commit(queue, 0, 2)
    queue.update(0.05)
    assert queue.due_at == 0.1
    assert take(queue, 0.1, delivered=False) == [(0, 2)]
    assert queue.mark_now(queue.partitions[EVENTS[0]])
    queue.update(0.2)
    assert queue.due_at == pytest.approx(0.21)


@pytest.mark.parametrize("is_pending", [True, False], ids=["something new", "nothing new"])
def test_what_is_in_flight_in_an_outage_is_looked_at_ever_less_often(is_pending: bool) -> None:
    """With 5,000 partitions a look takes 6 ms, under the lock that commits take, and nothing has changed.

    An answer is seen later by an interval, or a tenth of the time that it took, and by a tenth of a heartbeat at most.
    """
    interval, heartbeat = 0.1, 10.0
    queue = PublishQueue(interval, heartbeat)
    commit(queue, 0, 1)
    assert take(queue, 0.0, delivered=False) == [(0, 1)]
    if is_pending:
        commit(queue, 0, 2)
    looks = [0.0]
    while looks[-1] < 60.0:
        looks.append(queue.due_at)
        assert queue.update(queue.due_at) == ([], [])
    assert len(looks) < 120, "600, or 6,000 while something new is to be published"
    for before, after in pairwise(looks):
        assert after - before <= min(max(interval, before / 10), heartbeat / 10) + 1e-9


def test_it_says_when_the_next_heartbeat_is_due(queue: PublishQueue) -> None:
    """That of the partition that has been silent for longest, as of the last look at them."""
    assert queue.heartbeat_due_at == float("inf")
    commit(queue, 0, 1)
    assert take(queue, 0.0) == [(0, 1)]
    commit(queue, 1, 5)
    assert take(queue, 60.0) == [(1, 5)]
    assert queue.heartbeat_due_at == 100.0
    queue.mark_heartbeats(100.0)
    assert take(queue, 100.0) == [(0, 1)]
    assert queue.heartbeat_due_at == 160.0
    queue.mark_heartbeats(160.0)
    assert take(queue, 160.0) == [(1, 5)]
    assert queue.heartbeat_due_at == 200.0


def test_a_record_that_stays_in_flight_is_looked_at_a_hundred_times_a_heartbeat_at_most(queue: PublishQueue) -> None:
    """Its heartbeat is overdue all the while, and can't be sent; neither can that of a partition of which nothing is
    known."""
    commit(queue, 0, 1)
    assert take(queue, 0.0, delivered=False) == [(0, 1)]
    queue.mark_unclear(commit(queue, 1, 5))
    queue.mark_heartbeats(150.0)
    assert take(queue, 150.0) == []
    assert queue.heartbeat_due_at == 151.0


def test_where_nothing_is_published_the_next_look_is_a_heartbeat_later(queue: PublishQueue) -> None:
    """Whatever is committed meanwhile has a heartbeat of its own, from then on."""
    queue.heartbeat_due_at = 0.0
    queue.add(EVENTS[0])
    queue.mark_heartbeats(7.0)
    assert queue.heartbeat_due_at == 107.0


def test_one_partition_that_has_nothing_to_repeat_keeps_no_other_silent(queue: PublishQueue) -> None:
    """Whichever it had first."""
    queue.mark_unclear(commit(queue, 0, 1))
    queue.add(EVENTS[1])
    commit(queue, 2, 5)
    assert take(queue, 0.0) == [(2, 5)]
    assert take(queue, 1.0) == []
    queue.mark_heartbeats(100.0)
    assert take(queue, 100.0) == [(2, 5)]


def test_how_far_a_partition_was_committed_is_not_known_while_that_is_in_question(queue: PublishQueue) -> None:
    """Nor of one that isn't there, or in which nothing was committed."""
    queued = commit(queue, 0, 7)
    queue.add(EVENTS[1])
    assert [queue.reached(each) for each in EVENTS] == [7, None, None]
    queue.mark_unclear(queued)
    assert queue.reached(EVENTS[0]) is None


def test_what_is_unconfirmed_is_what_waits_and_was_not_delivered_as_it_is(queue: PublishQueue) -> None:
    """An earlier offset that arrived says nothing of the newest."""
    first, second = commit(queue, 0, 1), commit(queue, 1, 5)
    assert queue.unconfirmed == [first, second]
    take(queue, 0.0)
    commit(queue, 0, 2)
    queue.update(1.0)
    queue.mark_all()
    assert list(queue.waiting) == [first, second]
    assert queue.unconfirmed == [first]
