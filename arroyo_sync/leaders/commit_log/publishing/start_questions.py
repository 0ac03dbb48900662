"""What a leader asks the brokers of the data topic: the topic's id, and what its own group has committed.

Guarantees
    - Nobody waits for an answer.
    - A topic's id is what it was soon after the first question, and stays that: a leader that lives through its topic's
      recreation goes on naming the one that it has read. If it can't be asked within a minute, reports carry none. A
      leader that was without partitions for ten begins as after a restart.

Threads
    `StartQuestions.ask`, `take_committed` and `withdraw` are the processor's. A daemon thread puts the questions; it
    ends, with its clients, when none is left. The lock guards the questions; `topic_ids` and `committed` may be read
    without it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from arroyo.types import Partition, Topic
from confluent_kafka import KafkaError

from arroyo_sync.core.log_guard import guarded_logger
from arroyo_sync.core.state import PartitionKey
from arroyo_sync.kafka.questions.asker import Asker
from arroyo_sync.kafka.topic_ids import FORGET_SECONDS

logger = guarded_logger(__name__)

TIMEOUT_SECONDS = 5.0
RETRY_SECONDS = 1.0
ID_SECONDS = 60.0
"""How long a topic's id is asked for. An answer that comes later may be another topic's."""


class _Open(NamedTuple):
    """What is asked in one go."""

    topics: Collection[str]
    partitions: Collection[PartitionKey]
    round: int


class StartQuestions:
    """See the module's docstring.

    :param configuration: librdkafka settings of the data topic's cluster.
    :param group: the leader group.
    """

    def __init__(self, configuration: Mapping[str, Any], group: str) -> None:
        self.topic_ids: dict[str, bytes] = {}
        """Per topic its id, as it is written in a header. Written by the thread; an entry doesn't change, but goes once
        there were no partitions for long."""
        self.committed: dict[Partition, int | None] = {}
        """Answers that nobody has taken yet; ``None``: nothing is committed. Replaced whole, under the lock."""
        self._configuration = dict(configuration)
        self._group = group
        self._changed = threading.Condition()
        # All of these are guarded by the lock.
        self._topics: dict[str, float | None] = {}
        """Until when each topic's id is asked for. ``None``: it isn't any more."""
        self._partitions: frozenset[PartitionKey] = frozenset()
        # Counts the changes of `_partitions` by the processor: an answer to an earlier question counts no more.
        self._round = 0
        self._asked_round = -1
        # Since when there are no partitions; ``None``: there are.
        self._withdrawn_at: float | None = None
        self._thread: threading.Thread | None = None

    def ask(self, topics: Collection[str], partitions: Collection[Partition]) -> None:
        """Ask for the ids of topics that weren't asked for before, and what the group has committed.

        Earlier questions about commits are withdrawn. Doesn't block. If no thread can be started, or it fails, that is
        logged, and the next call tries again.
        """
        error: Exception | None = None
        with self._changed:
            now = time.monotonic()
            if self._withdrawn_at is not None and now - self._withdrawn_at >= FORGET_SECONDS:
                self._topics.clear()
                self.topic_ids.clear()
            self._withdrawn_at = None
            if self._thread is None:  # what one that failed has left: by now it may be another topic's id
                self._topics = {
                    topic: None if until is not None and now >= until else until
                    for topic, until in self._topics.items()
                }
            for topic in topics:
                self._topics.setdefault(topic, now + ID_SECONDS)
            self._partitions = frozenset((partition.topic.name, partition.index) for partition in partitions)
            self._round += 1
            self.committed = {}
            self._changed.notify_all()
            if self._thread is None and self._is_open():
                thread = threading.Thread(target=self._run, name="arroyo-sync-leader-questions", daemon=True)
                try:
                    thread.start()
                    self._thread = thread
                except Exception as exc:
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
            self._withdrawn_at = time.monotonic()
            self._changed.notify_all()

    # The thread.

    def _run(self) -> None:
        asker = Asker(self._configuration, lambda error: None)
        try:
            while (asked := self._open_questions()) is not None:
                ids = asker.topic_ids(asked.topics, TIMEOUT_SECONDS) if asked.topics else {}
                commits = asker.committed(self._group, asked.partitions, TIMEOUT_SECONDS) if asked.partitions else {}
                for topic, error in self._take(asked, ids, commits):
                    self._log_given_up(topic, error)
        except Exception as error:  # such as that the client can start no more threads, or that a setting is wrong
            with self._changed:
                self._thread = None
            self._log_failed(error)
        finally:
            asker.stop(TIMEOUT_SECONDS)

    def _log_failed(self, error: Exception) -> None:
        logger.warning(
            "Group %s can't ask the brokers of its data topic until its next assignment: %s. Its reports may carry "
            "no topic id, and an idle partition that had another owner meanwhile may be silent",
            self._group,
            error,
        )

    def _log_given_up(self, topic: str, error: KafkaError) -> None:
        logger.warning(
            "The id of topic %s can't be asked, so the commit reports of group %s don't carry it, and followers can't "
            "tell by it that the topic was created anew: %s. If its cluster isn't the producer's, give "
            "CommitLogPublisher data_configuration",
            topic,
            self._group,
            error.str(),
        )

    def _open_questions(self) -> _Open | None:
        """What is to be asked next, a while after the last time; ``None``: nothing, and the thread is to end."""
        with self._changed:
            self._changed.wait_for(lambda: self._round != self._asked_round or not self._is_open(), RETRY_SECONDS)
            if not self._is_open():
                self._thread = None
                return None
            self._asked_round = self._round
            topics = [topic for topic, until in self._topics.items() if until is not None]
            return _Open(topics, self._partitions, self._round)

    def _take(
        self,
        asked: _Open,
        ids: Mapping[str, str | KafkaError],
        commits: Mapping[PartitionKey, int | KafkaError | None],
    ) -> list[tuple[str, KafkaError]]:
        """Take note of the answers. The topics that are given up, and why."""
        given_up: list[tuple[str, KafkaError]] = []
        now = time.monotonic()
        with self._changed:
            for topic, answer in ids.items():
                if topic not in self._topics:
                    continue  # forgotten meanwhile
                until = self._topics[topic]
                if not isinstance(answer, KafkaError):
                    self.topic_ids[topic] = answer.encode()
                    self._topics[topic] = None
                elif until is not None and now >= until:
                    given_up.append((topic, answer))
                    self._topics[topic] = None
            if asked.round == self._round:
                answered = {key: each for key, each in commits.items() if not isinstance(each, KafkaError)}
                self._partitions -= answered.keys()
                offsets = {Partition(Topic(key[0]), key[1]): each for key, each in answered.items()}
                self.committed = {**self.committed, **offsets}
        return given_up

    def _is_open(self) -> bool:
        """Whether anything is to be asked. Under the lock."""
        return bool(self._partitions) or any(until is not None for until in self._topics.values())
