"""When a data topic's id is asked for, what it is given up for, and when another one ends the follower."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError, KafkaException

from arroyo_sync.core.errors import TopicMissing, TopicRecreated
from arroyo_sync.kafka.errors import is_silence
from arroyo_sync.kafka.questions.answers import LEAST_SECONDS, MOST_SECONDS, Patience
from arroyo_sync.kafka.questions.asker import Asker
from arroyo_sync.kafka.questions.topic_watch import (
    INTERVAL_SECONDS,
    LOST_SECONDS,
    REACH_SECONDS,
    UNREAD_SECONDS,
    ClusterWatch,
    OnIds,
    TopicWatch,
)
from arroyo_sync.kafka.topic_ids import FORGET_SECONDS

SILENCE = KafkaError(KafkaError._TIMED_OUT)
MISSING = KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)


class World:
    """The brokers, which answer when they are told to, and who is told of ids."""

    def __init__(self) -> None:
        self.now = 0.0
        self.read: set[str] = set()
        self.told: list[tuple[str, str | None]] = []
        self.asked: list[tuple[set[str], float]] = []
        self.open: list[OnIds] = []
        self.reached: list[float] = []
        self.is_reachable = True
        self.watch = TopicWatch(
            cast(Asker, self),
            ClusterWatch(cast(Asker, self)),
            lambda: self.read,
            lambda topic, value: self.told.append((topic, value)),
            lambda topic: self.told.append((topic, "forgotten")),
            lambda topic: self.told.append((topic, "doubted")),
            lambda apply: apply,
        )

    cluster_id = "one"

    def reach(self, timeout: float) -> None:
        """They are of the same cluster as before, if they are there."""
        self.reached.append(timeout)
        if not self.is_reachable:
            raise KafkaException(SILENCE)

    def ask_topic_ids(self, topics: Collection[str], timeout: float, on_answer: OnIds) -> None:
        self.asked.append((set(topics), timeout))
        self.open.append(on_answer)

    def ask(self, seconds: float = 0.0) -> float:
        """After so many seconds; in how many it is due again."""
        self.now += seconds
        return self.watch.ask(self.now) - self.now

    def answer(self, **answers: str | KafkaError) -> None:
        self.open.pop()(answers)

    def learn(self, **answers: str | KafkaError) -> None:
        """As soon as it may be it is asked, and answered."""
        self.ask(INTERVAL_SECONDS if self.read else UNREAD_SECONDS)
        self.answer(**answers)


@pytest.fixture
def world() -> World:
    return World()


def test_a_topic_is_asked_about_before_anything_of_it_is_assigned(world: World) -> None:
    """So its id is known before it is told where the follower begins, as a rule. Seldom, by one that never is given
    anything; and at once when it is."""
    assert world.ask() == float("inf")
    world.watch.subscribe("events")
    assert world.ask() == UNREAD_SECONDS
    assert world.asked == [({"events"}, LEAST_SECONDS)]
    world.answer(events="one")
    assert world.told == [("events", "one")]
    assert [world.ask(UNREAD_SECONDS - 1.0), len(world.asked)] == [1.0, 1]
    world.read = {"events"}
    world.watch.hurry()
    assert [world.ask(), len(world.asked)] == [INTERVAL_SECONDS, 2]


def test_all_topics_that_are_subscribed_to_are_asked_about(world: World) -> None:
    """In one question."""
    world.watch.subscribe("events")
    world.watch.subscribe("more")
    world.ask()
    assert world.asked == [({"events", "more"}, LEAST_SECONDS)]


def test_a_topic_that_is_created_again_before_it_is_read_is_another_one(world: World) -> None:
    """A member that has nothing of it needn't end."""
    world.watch.subscribe("events")
    world.learn(events="one")
    world.learn(events="two")
    assert world.told == [("events", "one"), ("events", "two")]
    assert world.watch.ids == {"events": "two"}


@pytest.mark.parametrize("is_given_back", [False, True])
def test_one_that_is_created_again_once_it_is_read_ends_the_follower(world: World, is_given_back: bool) -> None:
    """Also if it was assigned since the question; but not while it is given back, when nobody could commit where its
    group begins."""
    world.watch.subscribe("events")
    world.learn(events="one")
    world.read = {"events"}
    if is_given_back:
        world.learn(events=SILENCE)
        world.read = set()
        world.learn(events="two")
        assert world.watch.ids == {"events": "one"}
        world.read = {"events"}
    with pytest.raises(TopicRecreated, match=r"'events' .* was one and is two"):
        world.learn(events="two")


def test_another_id_counts_once_a_broker_has_told_that_the_cluster_is_the_same(world: World) -> None:
    """Until then it is asked for again. The broker has as long as the slowest needed, and a second at least."""
    world.read = {"events"}
    world.learn(events="one")
    world.is_reachable = False
    world.learn(events="two")
    world.learn(events=SILENCE)
    world.learn(events=SILENCE)
    world.learn(events=SILENCE)
    world.is_reachable = True
    with pytest.raises(TopicRecreated):
        world.learn(events="two")
    assert world.reached == [REACH_SECONDS, MOST_SECONDS / 2]
    assert world.told == [("events", "one"), ("events", "doubted")]


def test_an_id_that_is_in_doubt_counts_again_when_it_is_told_again(world: World) -> None:
    """What had the other one was another cluster, which is gone. The next other one is a doubt of its own."""
    world.read = {"events"}
    world.learn(events="one")
    world.is_reachable = False
    for _ in range(2):
        world.learn(events="two")
        world.learn(events="two")
        world.learn(events="one")
    assert world.told == [("events", "one"), *[("events", "doubted"), ("events", "one")] * 2]


@pytest.mark.parametrize(("seconds", "is_forgotten"), [(FORGET_SECONDS, True), (FORGET_SECONDS - 1.0, False)])
def test_what_was_not_read_for_long_is_forgotten(world: World, seconds: float, is_forgotten: bool) -> None:
    """Who is given a partition then begins as after a restart. And forgotten once."""
    world.read = {"events"}
    world.learn(events="one")
    world.read = set()
    world.ask()
    for _ in range(2):
        world.ask(seconds / 2)
    assert world.told[1:] == ([("events", "forgotten")] if is_forgotten else [])
    assert world.watch.ids == ({} if is_forgotten else {"events": "one"})
    for _ in range(2):
        world.ask(FORGET_SECONDS)
    assert world.told[1:] == [("events", "forgotten")]


def test_what_was_read_while_nobody_told_its_id_is_forgotten_as_well(world: World) -> None:
    """There is none to forget."""
    world.read = {"events"}
    world.learn(events=SILENCE)
    world.read = set()
    world.ask()
    world.ask(FORGET_SECONDS)
    assert (world.told, world.watch.ids) == ([("events", "forgotten")], {})


def test_of_several_topics_each_is_taken_by_itself(world: World) -> None:
    """One that isn't read at the moment says nothing of the next."""
    world.read = {"events"}
    world.learn(events="one")
    world.read = {"more"}
    world.learn(events="two", more="id")
    assert world.watch.ids == {"events": "one", "more": "id"}


def test_nothing_is_asked_while_a_question_is_open(world: World) -> None:
    """However long it takes; but one that is lost is put again."""
    world.read = {"events"}
    world.ask()
    world.watch.hurry()
    assert [world.ask(LOST_SECONDS - 1.0), len(world.asked)] == [INTERVAL_SECONDS, 2], "something was assigned"
    assert [world.ask(LOST_SECONDS - 1.0), len(world.asked)] == [INTERVAL_SECONDS, 2]
    world.ask(1.0)
    assert len(world.asked) == 3


def test_it_is_asked_once_a_second_however_often_it_is_called(world: World) -> None:
    world.read = {"events"}
    world.ask()
    world.answer(events="one")
    assert [world.ask(0.25), world.ask(0.5), len(world.asked)] == [0.75, 0.25, 1]
    assert [world.ask(0.25), len(world.asked)] == [INTERVAL_SECONDS, 2]


def test_the_brokers_have_the_longer_the_longer_they_are_silent(world: World) -> None:
    """Slow ones would never be heard else."""
    world.read = {"events", "more"}
    for answers in (
        {"events": SILENCE, "more": SILENCE},
        {"events": SILENCE, "more": SILENCE},
        {"events": SILENCE, "more": MISSING},
        {"events": "one", "more": SILENCE},
        {"events": "one", "more": "two"},
    ):
        world.learn(**answers)
    assert [timeout for _, timeout in world.asked] == [1.0, 2.0, 4.0, 2.0, 1.0]
    assert world.told == [("events", "one"), ("events", "one"), ("more", "two")]


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        pytest.param(KafkaError(KafkaError._UNSUPPORTED_FEATURE), True, id="old brokers"),
        pytest.param(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED), True, id="not permitted"),
        pytest.param(SILENCE, False, id="silence"),
        pytest.param(MISSING, False, id="no such topic"),
    ],
)
def test_what_can_not_be_asked_for_is_told_unless_it_is_known(world: World, answer: KafkaError, told: bool) -> None:
    world.read = {"events"}
    world.learn(events=answer)
    assert world.told == ([("events", None)] if told else [])
    world.learn(events="one")
    world.told.clear()
    world.learn(events=answer)
    assert world.told == []


def test_between_the_turns_only_what_is_known_is_compared(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What isn't answered may be the same."""
    asked: list[tuple[set[str], float]] = []
    answers: dict[str, str | KafkaError] = {"events": SILENCE}

    def topic_ids(topics: Collection[str], timeout: float) -> Mapping[str, str | KafkaError]:
        asked.append((set(topics), timeout))
        return answers

    world.topic_ids = topic_ids  # type: ignore[attr-defined]
    world.watch.check(2.5)
    assert (asked, world.reached) == ([], [REACH_SECONDS])
    world.read = {"events"}
    world.learn(events="one")
    world.watch.check(2.5)
    answers["events"] = "two"
    with pytest.raises(TopicRecreated):
        world.watch.check(2.5)
    assert asked == [({"events"}, 2.5)] * 2
    assert world.reached == [REACH_SECONDS] * 2


def test_a_topic_that_was_deleted_is_none_to_commit_of(world: World) -> None:
    """It may be there again in the next moment, as another one. One of which nothing is known may not be there yet."""
    answers: dict[str, str | KafkaError] = {"events": MISSING}
    world.topic_ids = lambda topics, timeout: answers  # type: ignore[attr-defined]
    world.watch.check(2.5)
    world.read = {"events"}
    world.learn(events="one")
    with pytest.raises(TopicMissing, match="'events' was deleted"):
        world.watch.check(2.5)
    answers["events"] = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)
    world.watch.check(2.5)


def test_slow_brokers_have_longer_to_say_at_the_end_whether_the_topic_is_the_same(world: World) -> None:
    """As long as they have needed before: else what is gone with an earlier topic is taken for a truncation."""
    world.read = {"events"}
    world.learn(events="one")
    world.learn(events=SILENCE)
    world.learn(events=SILENCE)
    asked: list[float] = []

    def topic_ids(topics: Collection[str], timeout: float) -> Mapping[str, str | KafkaError]:
        asked.append(timeout)
        return {"events": "one"}

    world.topic_ids = topic_ids  # type: ignore[attr-defined]
    world.watch.check(2.5)
    assert asked == [MOST_SECONDS]


def test_patience_has_its_limits() -> None:
    """One that is gone costs little time where others answer, and none costs all."""
    patience = Patience()
    seen: list[float] = []
    for is_answered in [False] * 5 + [True] * 5:
        patience.note(is_answered)
        seen.append(patience.seconds)
    assert seen == [2.0, MOST_SECONDS, MOST_SECONDS, 4.0, 4.0, 2.0, LEAST_SECONDS, 1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("code", "silent"),
    [
        (KafkaError._TIMED_OUT, True),
        (KafkaError._TIMED_OUT_QUEUE, True),
        (KafkaError._TRANSPORT, True),
        (KafkaError.REQUEST_TIMED_OUT, False),
        (KafkaError.NOT_LEADER_FOR_PARTITION, False),
    ],
)
def test_what_a_broker_has_said_is_no_silence(code: Any, silent: bool) -> None:
    assert is_silence(KafkaError(code)) is silent
