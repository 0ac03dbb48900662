"""Who leads each partition, and when that is asked for."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError

from arroyo_sync.core.state import PartitionKey
from arroyo_sync.kafka.errors import no_answer
from arroyo_sync.kafka.questions.partition_leaders import KEPT_SECONDS, LEADERS_SECONDS, PartitionLeaders
from tests.support.fakes import Clock

FIRST, SECOND, THIRD, OTHER = ("events", 0), ("events", 1), ("events", 2), ("others", 0)
REFUSED = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED, "not for you")


class Fixture:
    def __init__(self) -> None:
        self.clock = Clock()
        self.leaders = PartitionLeaders(self.clock)

    def due(self, *partitions: PartitionKey) -> set[str]:
        return self.leaders.look_up(partitions).due

    def why_not_led(self, key: PartitionKey) -> tuple[int, str]:
        led, errors = self.leaders.look_up_found([key])
        assert led == {}
        assert errors.keys() == {key}
        return errors[key].code(), errors[key].str()


@pytest.fixture
def fixture() -> Fixture:
    return Fixture()


def test_leaders_that_nobody_told_of_are_unknown_and_due(fixture: Fixture) -> None:
    assert fixture.leaders.look_up([FIRST, OTHER]) == ({}, [FIRST, OTHER], {"events", "others"})


def test_partitions_are_told_by_the_broker_that_leads_them(fixture: Fixture) -> None:
    """Broker 0 is one as any other; those that nobody leads, or that the topic hasn't, are unknown but not due."""
    fixture.leaders.keep("events", {0: 0, 1: 7, 2: -1})
    fixture.leaders.keep("others", {0: 7})
    partitions = [FIRST, SECOND, THIRD, ("events", 3), OTHER]
    led, unknown = {0: [FIRST], 7: [SECOND, OTHER]}, [THIRD, ("events", 3)]
    assert fixture.leaders.look_up(partitions) == (led, unknown, set())
    fixture.leaders.confirm("events", {0: 0, 1: 7, 2: -1})
    assert fixture.leaders.look_up(partitions) == (led, unknown, set()), "told once more"
    found, errors = fixture.leaders.look_up_found(partitions)
    assert (found, list(errors)) == (led, unknown)


def test_leaders_are_due_again_once_they_are_old(fixture: Fixture) -> None:
    """They count until others are told of."""
    fixture.leaders.keep("events", {0: 1})
    fixture.clock.now += LEADERS_SECONDS - 0.001
    assert fixture.due(FIRST) == set()
    fixture.clock.now += 0.001
    assert fixture.leaders.look_up([FIRST]) == ({1: [FIRST]}, [], {"events"})
    fixture.leaders.keep("events", {0: 2})
    assert fixture.leaders.look_up([FIRST]) == ({2: [FIRST]}, [], set())


def test_a_topic_without_an_answer_is_due_until_its_leaders_are_told(fixture: Fixture) -> None:
    """An error doesn't tell them."""
    fixture.leaders.keep("events", {0: 1})
    fixture.leaders.keep("others", {0: 1})
    fixture.leaders.note_unanswered({FIRST: no_answer()})
    assert fixture.due(FIRST, OTHER) == {"events"}
    fixture.leaders.keep_error("events", REFUSED)
    assert fixture.due(FIRST, OTHER) == {"events"}
    fixture.leaders.keep("events", {0: 1})
    assert fixture.due(FIRST, OTHER) == set()


def test_an_error_keeps_who_led(fixture: Fixture) -> None:
    """It is as new as an answer, and asked for again when it is old."""
    fixture.leaders.keep("events", {0: 1})
    fixture.clock.now += LEADERS_SECONDS
    fixture.leaders.keep_error("events", REFUSED)
    assert fixture.leaders.look_up([FIRST]) == ({1: [FIRST]}, [], set())
    assert fixture.leaders.look_up_found([FIRST]) == ({1: [FIRST]}, {})
    fixture.clock.now += LEADERS_SECONDS
    assert fixture.due(FIRST) == {"events"}


def test_of_a_topic_that_a_broker_does_not_know_nobody_is_asked(fixture: Fixture) -> None:
    """Its answer takes the place of who led, in the client, which would look them up by itself. No answer doesn't."""
    unknown = KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART, "no such topic")
    fixture.leaders.keep("events", {0: 1})
    fixture.leaders.keep_error("events", unknown, is_answer=True)
    assert fixture.leaders.look_up([FIRST]) == ({}, [FIRST], set())
    assert fixture.why_not_led(FIRST) == (unknown.code(), unknown.str())
    fixture.leaders.keep("events", {0: 2})
    assert fixture.leaders.look_up([FIRST]) == ({2: [FIRST]}, [], set())


def test_leaders_that_are_sought_are_not_due_as_well(fixture: Fixture) -> None:
    """Until the search is over; one that found nothing leaves them due."""
    fixture.leaders.begin_search({"events"})
    assert fixture.leaders.look_up([FIRST, OTHER]) == ({}, [FIRST, OTHER], {"others"})
    fixture.leaders.begin_search({"others"})
    assert fixture.due(FIRST, OTHER) == set()
    fixture.leaders.end_search({"events"})
    assert fixture.due(FIRST, OTHER) == {"events"}


def test_it_is_told_why_nobody_leads_a_partition(fixture: Fixture) -> None:
    """No broker told; the topic hasn't it; nobody does; or what the brokers said instead, until they tell."""
    assert fixture.why_not_led(FIRST) == (no_answer().code(), no_answer().str())
    fixture.leaders.keep_error("others", REFUSED)
    assert fixture.why_not_led(OTHER) == (REFUSED.code(), "not for you")
    fixture.leaders.keep("events", {0: -1})
    assert fixture.why_not_led(SECOND) == (KafkaError.UNKNOWN_TOPIC_OR_PART, "topic events has no partition 1")
    no_leader = KafkaError.LEADER_NOT_AVAILABLE, "no broker leads the partition at the moment"
    assert fixture.why_not_led(FIRST) == no_leader
    fixture.leaders.keep_error("events", REFUSED)
    for key in (FIRST, SECOND):
        assert fixture.why_not_led(key) == (REFUSED.code(), "not for you")
    fixture.leaders.keep("events", {0: -1})
    assert fixture.why_not_led(FIRST) == no_leader


@pytest.mark.parametrize("code", [KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.UNKNOWN_TOPIC_OR_PART])
def test_of_a_topic_that_the_client_has_forgotten_nobody_is_asked_before_it_has_looked_up_who_leads(
    fixture: Fixture, code: int
) -> None:
    """It would look it up by itself then, and a race in that corrupts its memory. Of other topics it goes on."""
    fixture.leaders.keep("events", {0: 1, 1: 2})
    fixture.leaders.keep("others", {0: 1})
    fixture.leaders.note_unanswered({FIRST: KafkaError(code), OTHER: no_answer()})
    assert fixture.leaders.look_up([FIRST, SECOND, OTHER]) == ({1: [OTHER]}, [FIRST, SECOND], {"events", "others"})
    assert fixture.why_not_led(SECOND) == (no_answer().code(), no_answer().str())
    fixture.leaders.keep_error("events", REFUSED)
    assert fixture.why_not_led(SECOND) == (REFUSED.code(), "not for you")
    fixture.leaders.keep("events", {0: 2, 1: 2})
    assert fixture.leaders.look_up([FIRST, SECOND]) == ({2: [FIRST, SECOND]}, [], set())


def test_leaders_that_the_client_has_not_looked_up_only_tell_that_it_must(fixture: Fixture) -> None:
    """As those that come with a topic's id: the client doesn't take them in, so the same ones change nothing."""
    fixture.leaders.confirm("events", {0: 1})
    assert fixture.leaders.look_up([FIRST]) == ({}, [FIRST], {"events"})
    fixture.leaders.keep("events", {0: 1, 1: -1})
    fixture.clock.now += LEADERS_SECONDS
    fixture.leaders.confirm("events", {0: 1, 1: -1})
    assert fixture.leaders.look_up([FIRST]) == ({1: [FIRST]}, [], {"events"})
    fixture.leaders.keep("events", {0: 1, 1: -1})
    fixture.leaders.confirm("events", {0: 2, 1: -1})
    assert fixture.leaders.look_up([FIRST]) == ({}, [FIRST], {"events"})
    fixture.leaders.confirm("events", {0: 1, 1: -1})
    assert fixture.leaders.look_up([FIRST]) == ({}, [FIRST], {"events"}), "until it has"
    fixture.leaders.keep("events", {0: 2, 1: -1})
    fixture.leaders.note_unanswered({FIRST: no_answer()})
    fixture.leaders.confirm("events", {0: 2, 1: -1})
    assert fixture.due(FIRST) == {"events"}, "who didn't answer may lead no more"


@pytest.mark.parametrize("beside", ["nothing", "the same leaders", "a refusal"])
def test_what_the_client_looked_up_long_ago_it_looks_up_before_anybody_is_asked(fixture: Fixture, beside: str) -> None:
    """It keeps it for a quarter of an hour, whatever it was told of the topic since. An error tells no leaders."""
    fixture.leaders.keep("events", {0: 1})
    fixture.clock.now += KEPT_SECONDS - 0.001
    if beside == "the same leaders":
        fixture.leaders.confirm("events", {0: 1})
    elif beside == "a refusal":
        fixture.leaders.keep_error("events", REFUSED)
    assert fixture.leaders.look_up([FIRST]).led == {1: [FIRST]}
    assert fixture.leaders.look_up_found([FIRST]) == ({1: [FIRST]}, {})
    fixture.clock.now += 0.001
    assert fixture.leaders.look_up([FIRST])[:2] == ({}, [FIRST])
    expected = REFUSED if beside == "a refusal" else no_answer()
    assert fixture.why_not_led(FIRST) == (expected.code(), expected.str())
    fixture.leaders.keep("events", {0: 2})
    assert fixture.leaders.look_up([FIRST]) == ({2: [FIRST]}, [], set())


def test_a_refusal_of_a_topic_that_nobody_told_of_is_told_until_its_leaders_are(fixture: Fixture) -> None:
    """The first one, too, is as new as an answer."""
    fixture.leaders.keep_error("events", REFUSED)
    assert fixture.leaders.look_up([FIRST]) == ({}, [FIRST], set())
    assert fixture.why_not_led(FIRST) == (REFUSED.code(), "not for you")
