"""A new client is wanted: the log was deleted and created again, or nothing is fetched of it any more."""

from __future__ import annotations

from confluent_kafka import KafkaError

from tests.unit.leaders.commit_log.test_reader import Fixture, event, record, with_an_added_partition


def test_safety_a_partition_that_was_just_added_is_one_of_the_new_topics_like_the_others() -> None:
    """Its broker hadn't told its end yet. The gate opens when it was read as well: the newest report may be in it."""
    fixture = with_an_added_partition()
    fixture.step()
    assert (fixture.ready, set(fixture.client.assigned)) == ([True], {0})
    fixture.identity.is_another = True
    fixture.run(100)
    fixture.run(1)
    fixture.step(record(0, 9))
    assert fixture.ready == [True, False]


def test_progress_a_new_topic_with_fewer_partitions_is_replayed_in_full() -> None:
    """Those that it lacks were still being read, and are waited for no longer."""
    fixture = Fixture((0, 1))
    fixture.client.ends = {0: 5, 1: 5}
    fixture.run(1)
    fixture.identity.is_another = True
    fixture.client.partitions, fixture.client.ends = {0}, {0: 1}
    fixture.run(100)
    fixture.run(1)
    fixture.step(record(0, 9))
    assert fixture.ready == [False, True], fixture.reader.missing()


def test_that_the_old_topic_was_missing_says_nothing_of_the_new_one() -> None:
    """A broker that has just started may not know it for a moment: that has its own ten seconds."""
    fixture = Fixture()
    fixture.run(1)
    fixture.client.partitions.clear()
    fixture.step(event(KafkaError.UNKNOWN_TOPIC_OR_PART))
    fixture.clock.now += 0.25
    fixture.client.partitions = {0}
    fixture.identity.is_another = True
    fixture.run(100)
    fixture.run(1)
    fixture.clock.now += 10.0
    fixture.client.partitions.clear()
    fixture.step(event(KafkaError.UNKNOWN_TOPIC_OR_PART))  # raised CommitLogMissing at once
    fixture.client.partitions = {0}
    fixture.clock.now += 0.5
    fixture.step()
    assert fixture.client.assigned.keys() == {0}


def test_progress_a_client_that_fetches_no_more_is_replaced() -> None:
    """It says nothing, and knows of nothing that it hasn't read; the gate is shut until another one has read all."""
    fixture = Fixture()
    fixture.client.ends = {0: 1}
    fixture.run(1)
    fixture.step(record(0, 7))
    assert (fixture.ready, fixture.remote()) == ([True], 7)
    fixture.brokers.ends = {0: 2}
    fixture.run(1_000)
    assert not fixture.stopping.is_set(), "it went on with the client that fetches no more"
    assert (fixture.ready, fixture.remote(), fixture.client.assigned) == ([True, False], None, {})
    fixture.client.ends = {0: 2}
    fixture.run(1)
    fixture.step(record(0, 7), record(1, 9))
    assert (fixture.ready, fixture.remote()) == ([True, False, True], 9)
