"""What a leader asks the brokers of the data topic: the topic's id, and what its own group has committed.

Guarantees
    - Nobody waits for an answer.
    - A topic's id is that of the topic that the group began to read: it is taken if the brokers answer, after they told
      it, that the group has committed in every partition as far as it began, and no further than this process has come.
      They forget a topic's commits with the topic, so of one that was created again meanwhile they don't. (But for the
      moment from its creation to that, or if another member has come as far by then.) Nor do the brokers of another
      cluster with a topic of that name, also where the group has committed once, before it moved; unless it took its
      offsets along, or this process passes within that minute where it had come to there.
    - It stays that: a leader that lives through its topic's recreation goes on naming the one that it has read. If it
      isn't known within a minute, reports carry none. A leader that was without partitions for ten asks anew.
    - That the group's commits can't be asked for is told after some seconds, then once a minute; and its end. What the
      pipeline has committed itself meanwhile isn't asked for any more.
    - A refused login is told at once, then once a minute; and its end. It is tried ever less often, lest the brokers
      lock the account.

Threads
    `StartQuestions.ask`, `take_committed` and `withdraw` are the processor's. A daemon thread puts the questions, and
    tells that an id is known; it ends, with its clients, when none is left. The lock guards the questions; `topic_ids`
    and `committed` may be read without it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple, TypeVar

from arroyo.types import Partition, Topic
from confluent_kafka import KafkaError

from arroyo_sync.core.interruptions import INTERRUPTIONS
from arroyo_sync.core.log_guard import guarded_logger
from arroyo_sync.core.log_throttle import LastingFailure
from arroyo_sync.core.state import PartitionKey
from arroyo_sync.kafka.error_callbacks import what_ended
from arroyo_sync.kafka.errors import AGAIN_SECONDS, ClientErrors, is_failed_login, is_silence, log_missing_token
from arroyo_sync.kafka.questions.asker import Asker
from arroyo_sync.kafka.questions.broker_watch import named_partitions

logger = guarded_logger(__name__)

TIMEOUT_SECONDS = 5.0
RETRY_SECONDS = 1.0
ID_SECONDS = 60.0
"""How long a topic's id is asked for."""
COMMITS_PATIENCE_SECONDS = 5.0
"""For how long the group's commits can't be asked for before it is told of."""
MOST_DOUBLINGS = 6
"""Of the time until brokers are asked again that go on refusing the login."""

_AFTER_REFUSAL = {"reconnect.backoff.ms": 10_000, "reconnect.backoff.max.ms": 10_000}
"""By default a client whose login is refused tries again several times a second."""

_ADVICE = ". If its cluster isn't the producer's, give CommitLogPublisher data_configuration"

K = TypeVar("K")
V = TypeVar("V")


class _Open(NamedTuple):
    """What is asked in one go."""

    topics: Collection[str]
    partitions: frozenset[PartitionKey]
    """What the group has committed of these is asked."""
    begins: Mapping[PartitionKey, int | None]
    """A topic's id is believed if the group has committed as far in each of these partitions of it. ``None``: what
    the group has committed there is in question, and anything will do."""
    round: int


class StartQuestions:
    """See the module's docstring.

    :param configuration: librdkafka settings of the data topic's cluster.
    :param has_data_configuration: whether they are `CommitLogPublisher`'s ``data_configuration``, not the producer's.
    :param group: the leader group.
    :param topic_ids: gets the ids.
    :param reached: how far this process has committed a partition, if that isn't in question. Any thread calls it.
    :param on_id: called when one is known, on the thread; the lock isn't held.
    """

    def __init__(
        self,
        configuration: Mapping[str, Any],
        has_data_configuration: bool,
        group: str,
        topic_ids: dict[str, bytes],
        reached: Callable[[Partition], int | None],
        on_id: Callable[[], None],
    ) -> None:
        self.topic_ids = topic_ids
        """Per topic its id, as it is written in a header. Written by the thread; an entry doesn't change, but goes once
        there were no partitions for long."""
        self.committed: dict[Partition, int | None] = {}
        """Answers that nobody has taken yet; ``None``: nothing is committed. Replaced whole, under the lock."""
        self._configuration = dict(configuration)
        self._has_data_configuration = has_data_configuration
        self._group = group
        self._reached = reached
        self._on_id = on_id
        # These are the thread's: that the group's commits can't be asked for; that the login is refused, and in how
        # many rounds since it wasn't.
        self._failure = LastingFailure(COMMITS_PATIENCE_SECONDS, time.monotonic)
        self._refusal = LastingFailure(0.0, time.monotonic)
        self._refusals = 0
        self._changed = threading.Condition()
        # All of these are guarded by the lock.
        self._topics: dict[str, float | None] = {}
        """Until when each topic's id is asked for. ``None``: it isn't any more."""
        self._partitions: frozenset[PartitionKey] = frozenset()
        self._begins: dict[PartitionKey, int | None] = {}
        # Counts the changes of `_partitions` by the processor: an answer to an earlier question counts no more.
        self._round = 0
        self._asked_round = -1
        # Whether there are no partitions.
        self._is_withdrawn = False
        self._thread: threading.Thread | None = None

    def ask(
        self, topics: Collection[str], partitions: Collection[Partition], begins: Mapping[Partition, int | None]
    ) -> None:
        """Ask for the ids of topics that weren't asked for before, and what the group has committed.

        Earlier questions about commits are withdrawn. Doesn't block. If no thread can be started, or it fails, that is
        logged, and the next call tries again.

        :param partitions: those of which it isn't known what the group has committed.
        :param begins: how far it has committed, or is about to; ``None``: that is in question.
        """
        error: Exception | None = None
        with self._changed:
            now = time.monotonic()
            self._is_withdrawn = False
            if self._thread is None:  # what one that failed has left: by now it may be another topic's id
                self._topics = {
                    topic: None if until is not None and now >= until else until
                    for topic, until in self._topics.items()
                }
            for topic in topics:
                self._topics.setdefault(topic, now + ID_SECONDS)
            self._partitions = frozenset((partition.topic.name, partition.index) for partition in partitions)
            self._begins = {(partition.topic.name, partition.index): offset for partition, offset in begins.items()}
            self._round += 1
            self.committed = {}
            self._changed.notify_all()
            if self._thread is None and self._is_open():
                self._thread = threading.Thread(target=self._run, name="arroyo-sync-leader-questions", daemon=True)
                try:
                    self._thread.start()
                except INTERRUPTIONS:
                    raise  # it may run by now
                except Exception as exc:
                    self._thread = None
                    error = exc
        if error is not None:
            self._log_failed(error)

    def take_committed(self) -> Mapping[Partition, int | None]:
        """What was answered since, each once. ``None``: the group has committed nothing."""
        with self._changed:
            committed, self.committed = self.committed, {}
            return committed

    def withdraw(self) -> None:
        """The partitions may be somebody else's from now on: what was asked about them counts no more."""
        with self._changed:
            self._partitions = frozenset()
            self._round += 1
            self.committed = {}
            self._is_withdrawn = True
            self._changed.notify_all()

    def forget(self) -> None:
        """There were no partitions for long: by now a topic may be another one of its name."""
        with self._changed:
            self._topics.clear()
            self.topic_ids.clear()

    # The thread.

    def _run(self) -> None:
        asker, errors = self._make_asker()
        try:
            while (asked := self._open_questions()) is not None:
                ids = asker.topic_ids(asked.topics, TIMEOUT_SECONDS) if asked.topics else {}
                told = {topic for topic, each in ids.items() if not isinstance(each, KafkaError)}
                keys = asked.partitions | {key for key in asked.begins if key[0] in told}
                commits = asker.committed(self._group, keys, TIMEOUT_SECONDS) if keys else {}
                ids, commits = _with_reasons(ids, errors), _with_reasons(commits, errors)
                is_known, given_up = self._take(asked, ids, commits)
                if is_known:
                    self._on_id()
                for topic, why in given_up:
                    self._log_given_up(topic, why)
                self._log_inability({key: each for key, each in commits.items() if key in asked.partitions})
                if self._is_refused([*ids.values(), *commits.values()], errors):
                    asker.stop(TIMEOUT_SECONDS)  # a client tries to log in, whether it is asked or not
                    asker, errors = self._make_asker()
        except Exception as error:  # such as that the client can start no more threads, or that a setting is wrong
            with self._changed:
                self._thread = None
            self._log_failed(error)
        finally:
            asker.stop(TIMEOUT_SECONDS)

    def _make_asker(self) -> tuple[Asker, ClientErrors]:
        """It makes its clients when it is asked; and what they tell."""
        errors = ClientErrors(time.monotonic)

        def on_error(error: KafkaError) -> None:
            errors.add(error)
            log_missing_token(error)

        return Asker({**self._configuration, **(_AFTER_REFUSAL if self._refusals else {})}, on_error), errors

    def _is_refused(self, answers: Collection[object], errors: ClientErrors) -> bool:
        """Whether nothing can be asked with these clients any more. Tells that, and its end."""
        failed = [each for each in answers if isinstance(each, KafkaError)]
        if failed and errors.fatal is not None:
            self._refusals += 1
            if self._refusal.should_log():
                logger.error(
                    "Group %s can't ask the brokers of its data topic with %s: %s. They are asked again, but less and "
                    "less often",
                    self._group,
                    "data_configuration" if self._has_data_configuration else "its producer's settings",
                    what_ended(errors.fatal),
                )
            return True
        if len(failed) < len(answers):
            self._refusals = 0
            if self._refusal.end():
                logger.warning("Group %s can ask the brokers of its data topic again", self._group)
        return False

    def _log_failed(self, error: Exception) -> None:
        logger.warning(
            "Group %s can't ask the brokers of its data topic until its next assignment: %s. Its reports may carry "
            "no topic id, and an idle partition that had another owner meanwhile may be silent",
            self._group,
            error,
        )

    def _log_given_up(self, topic: str, why: str) -> None:
        logger.warning(
            "The id of topic %s isn't known, so the commit reports of group %s don't carry it, and followers can't "
            "tell by it that the topic was created anew: %s%s",
            topic,
            self._group,
            why,
            "" if self._has_data_configuration else _ADVICE,
        )

    def _log_inability(self, commits: Mapping[PartitionKey, int | KafkaError | None]) -> None:
        """Tell that what the group has committed can't be asked for, and when it can again."""
        failed = {key: each for key, each in commits.items() if isinstance(each, KafkaError)}
        if not failed:
            if self._failure.end():
                over = "It is known again what group %s has committed"
                nobody = "What group %s has committed needn't be asked for any more: no partition waits for it"
                logger.warning(over if commits else nobody, self._group)
            return
        if self._failure.should_log():
            logger.warning(
                "What group %s has committed in %s can't be asked for: %s. It is asked again while the group has these "
                "partitions. Of one that is idle nothing is reported until then, and its followers may wait",
                self._group,
                named_partitions(failed),
                next(iter(failed.values())).str(),
            )

    def _open_questions(self) -> _Open | None:
        """What is to be asked next, a while after the last time; ``None``: nothing, and the thread is to end."""
        seconds = RETRY_SECONDS * 2 ** min(self._refusals, MOST_DOUBLINGS)
        with self._changed:
            self._changed.wait_for(lambda: self._round != self._asked_round or not self._is_open(), seconds)
            if not self._is_open() and not self._failure.goes_on:  # else once more, to say that it is over
                self._thread = None
                return None
            self._asked_round = self._round
            topics = [topic for topic, until in self._topics.items() if until is not None]
            return _Open(topics, self._in_question(), self._begins, self._round)

    def _take(
        self,
        asked: _Open,
        ids: Mapping[str, str | KafkaError],
        commits: Mapping[PartitionKey, int | KafkaError | None],
    ) -> tuple[bool, list[tuple[str, str]]]:
        """Take note of the answers. Whether a topic's id is known now, and the topics that are given up, and why."""
        is_known = False
        given_up: list[tuple[str, str]] = []
        now = time.monotonic()
        with self._changed:
            for topic, answer in ids.items():
                until = self._topics.get(topic)
                if until is None:
                    continue  # forgotten meanwhile
                why = self._why_not(topic, answer, asked.begins, commits)
                if not isinstance(answer, KafkaError) and not why:
                    self.topic_ids[topic] = answer.encode()
                    self._topics[topic] = None
                    is_known = True
                elif now >= until and self._is_withdrawn:
                    del self._topics[topic]  # without partitions it couldn't be known: the next ones ask anew
                elif now >= until:
                    given_up.append((topic, why))
                    self._topics[topic] = None
            if asked.round == self._round:
                answered = {
                    key: each
                    for key, each in commits.items()
                    if key in self._partitions and not isinstance(each, KafkaError)
                }
                self._partitions -= answered.keys()
                offsets = {Partition(Topic(key[0]), key[1]): each for key, each in answered.items()}
                self.committed = {**self.committed, **offsets}
        return is_known, given_up

    def _in_question(self) -> frozenset[PartitionKey]:
        """The partitions that are to be asked about. Under the lock.

        What the pipeline has committed meanwhile is reported, whatever the answer would be.
        """
        return frozenset(key for key in self._partitions if self._reached(Partition(Topic(key[0]), key[1])) is None)

    def _is_open(self) -> bool:
        """Whether anything is to be asked. Under the lock."""
        return bool(self._in_question()) or any(until is not None for until in self._topics.values())

    def _why_not(
        self,
        topic: str,
        answer: str | KafkaError,
        begins: Mapping[PartitionKey, int | None],
        commits: Mapping[PartitionKey, int | KafkaError | None],
    ) -> str:
        """Why this isn't taken for the id of the topic that the group reads; empty: it is."""
        if isinstance(answer, KafkaError):
            return answer.str()
        for key, begin in begins.items():
            if key[0] != topic:
                continue
            committed = commits.get(key)
            if isinstance(committed, KafkaError):
                return f"what the group has committed there can't be asked ({committed.str()})"
            if committed is None or committed < (begin or 0):
                return f"the group began at {begin or 0} in partition {key[1]}, and hasn't committed that there"
            reached = self._reached(Partition(Topic(topic), key[1]))  # after the answer, so it is no less
            furthest = begin if begin is None or reached is None else max(begin, reached)
            if furthest is not None and committed > furthest:
                return (
                    f"the group has come to {furthest} in partition {key[1]}, and has committed {committed} there, as "
                    "on a cluster that it has left"
                )
        return ""


def _with_reasons(answers: Mapping[K, V | KafkaError], errors: ClientErrors) -> dict[K, V | KafkaError]:
    """What a client has told by the way says more than that the time was over."""
    reason = errors.last_since(time.monotonic() - AGAIN_SECONDS)  # it tells the same again every 30 s
    return {
        key: KafkaError(each.code(), reason)
        if reason and isinstance(each, KafkaError) and (is_silence(each) or is_failed_login(each))
        else each
        for key, each in answers.items()
    }
