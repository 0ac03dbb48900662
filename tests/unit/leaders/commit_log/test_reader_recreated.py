"""A new client is wanted: the log was deleted and created again, or nothing is fetched of it any more."""

from __future__ import annotations

from confluent_kafka import OFFSET_BEGINNING, KafkaError, KafkaException, Message

from arroyo_sync.kafka.errors import INCONSISTENT_TOPIC_ID
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


def test_progress_a_broker_that_knows_the_topic_by_another_id_is_believed() -> None:
    """It ended the reader. librdkafka fetches on by the old id, and whether the topic is another one its id tells."""
    fixture = Fixture()
    fixture.run(1)
    asked = fixture.identity.asked
    fixture.step(event(INCONSISTENT_TOPIC_ID))
    fixture.step()
    assert fixture.identity.asked > asked


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
    """It says nothing, and knows of nothing that it hasn't read. What was read is as true as before: the gate stays
    open, and the new one goes on where it stopped, though the brokers be away just then."""
    fixture = Fixture()
    fixture.client.ends = {0: 1}
    fixture.run(1)
    fixture.step(record(0, 7))
    assert (fixture.ready, fixture.remote()) == ([True], 7)
    fixture.brokers.ends = {0: 2}
    fixture.run(1_000)
    assert not fixture.stopping.is_set(), "it went on with the client that fetches no more"
    fixture.client.assigned.clear()  # the new one's
    fixture.client.metadata_error = KafkaException(KafkaError(KafkaError._TRANSPORT))
    fixture.run(1)
    assert (fixture.ready, fixture.remote(), fixture.client.assigned) == ([True], 7, {0: 1})
    fixture.step(record(1, 9))
    assert (fixture.ready, fixture.remote()) == ([True], 9)


def test_a_client_that_stops_in_the_middle_of_a_replay_is_replaced_and_the_replay_goes_on() -> None:
    """With the partitions whose brokers haven't told yet, and from where each was read."""
    fixture = Fixture((0, 1))
    fixture.client.ends = {0: 5, 1: 5}
    fixture.asker.errors = {1: KafkaError(KafkaError._TIMED_OUT)}
    fixture.run(1)
    fixture.step(record(0, 7), record(1, 8))
    fixture.brokers.ends = {0: 9}
    fixture.run(1_000)
    assert not fixture.stopping.is_set()
    fixture.client.assigned.clear()
    fixture.asker.errors = {}
    fixture.clock.now += 1
    fixture.run(1)
    assert (fixture.ready, fixture.client.assigned) == ([], {0: 2, 1: OFFSET_BEGINNING})
    fixture.step(record(4, 9), event(KafkaError._PARTITION_EOF, 1))
    assert (fixture.ready, fixture.remote()) == ([True], 9)


def test_a_topic_that_was_created_again_is_waited_for_as_one_that_was_there() -> None:
    """Brokers that are away for long just then, or don't know it yet for some seconds, end nothing."""
    fixture = Fixture()
    fixture.client.ends = {0: 1}
    fixture.run(1)
    fixture.step(record(0, 7))
    fixture.identity.is_another = True
    fixture.client.partitions.clear()
    fixture.client.metadata_error = KafkaException(KafkaError(KafkaError._TRANSPORT))
    attempts = 0
    poll = fixture.client.poll

    def answer_after_minutes(timeout: float) -> Message | None:
        nonlocal attempts
        attempts += 1
        if attempts == 100:
            fixture.client.metadata_error = None
        return poll(timeout)

    def create() -> None:
        if len(fixture.stopping.waits) == 10:
            fixture.client.partitions = {0}

    fixture.client.poll = answer_after_minutes  # type: ignore[method-assign]
    fixture.stopping.meanwhile = create
    fixture.run(100)
    fixture.run(1)
    fixture.step(record(0, 3))
    assert (fixture.ready, fixture.remote()) == ([True, False, True], 3)
