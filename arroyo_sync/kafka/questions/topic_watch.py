"""Watches over data topics' ids, by which it is known that one was deleted and created again.

Guarantees
    - A topic is asked about from when somebody subscribes to it or has partitions of it: once in `INTERVAL_SECONDS` or,
      while nothing is read, `UNREAD_SECONDS`, and when something is assigned. So its id is known, as a rule, before the
      follower is told where it begins: a topic that is created again after that has another one.
    - While nothing of it was read, another id is no news: it is simply that of the topic that there is. Of one that was
      read, and isn't at the moment, it is news as soon as it is read again, when it is known where its group begins.
    - Another id counts only once a broker has told that it is of the same cluster as before: where an address leads to
      another cluster, as after a failover, a topic of that name has another id. Until one has, nothing of the topic is
      verified any more. (In `TopicWatch.check` it counts, too, if no broker tells in time.)
    - Else nothing is asked while the last question is open. Each has the longer for its answer, the longer there was
      none.

Threads
    One calls everything but `subscribe`, `hurry` and `check`, which any may call. `ids` may be read by any.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from confluent_kafka import KafkaError, KafkaException

from arroyo_sync.core.errors import AnotherCluster, ConfigurationError, TopicMissing, TopicRecreated
from arroyo_sync.kafka.errors import is_silence
from arroyo_sync.kafka.questions.answers import Patience
from arroyo_sync.kafka.questions.asker import Asker
from arroyo_sync.kafka.topic_ids import FORGET_SECONDS

INTERVAL_SECONDS = 1.0
UNREAD_SECONDS = 5.0
"""Likewise, while nothing is read."""
REACH_SECONDS = 1.0
LOST_SECONDS = 30.0
"""A question that is open for so long has no answer any more."""

NO_TOPIC_IDS = frozenset({KafkaError._UNSUPPORTED_FEATURE, KafkaError.TOPIC_AUTHORIZATION_FAILED})
"""Errors that say that the id can't be asked for: the brokers are too old, or don't permit it."""

OnIds = Callable[[Mapping[str, str | KafkaError]], None]


class ClusterWatch:
    """Knows whether the brokers that are asked are of the cluster that they were of, and that the follower reads from.

    Threads: any may call anything.

    :param brokers: of the data topic's cluster.
    """

    def __init__(self, brokers: Asker) -> None:
        self._brokers = brokers
        self._asked: str | None = None
        """The id of the cluster that was asked first."""
        self._followers: str | None = None

    def expect(self, cluster_id: str) -> None:
        """The follower reads the data topic from this one."""
        self._followers = cluster_id

    def check(self) -> None:
        """Return if nothing speaks against the cluster. Never blocks.

        :raises AnotherCluster: the brokers are of another one than before.
        :raises ConfigurationError: they are of another one than the follower's.
        """
        asked = self._brokers.cluster_id
        before = self._asked = self._asked or asked
        if asked is not None and asked != before:
            raise AnotherCluster(str(before), str(asked))
        if asked is not None and self._followers not in (None, asked):
            raise ConfigurationError(
                f"the follower reads the data topic from the cluster {self._followers!r}, but the source asks the "
                f"cluster {asked!r} about it, where a topic of that name is another one. Give the source the settings "
                "of the follower's consumer: as data_configuration, if the commit log is on another cluster"
            )

    def ask_and_check(self, timeout: float) -> bool:
        """`check`, once a broker has answered, which tells of which cluster it is. Blocks for ``timeout`` at most.

        :returns: whether one has.
        :raises AnotherCluster, ConfigurationError: see `check`.
        """
        try:
            self._brokers.reach(timeout)
        except KafkaException:
            return False
        self.check()
        return True


class TopicWatch:
    """See the module's docstring.

    :param brokers: of the topics' cluster.
    :param cluster: knows whether they still are.
    :param read: the topics of which partitions are assigned.
    :param set_id: told of a topic's id; ``None``: it can't be asked for.
    :param forget: told that a topic's id says nothing any more.
    :param doubt: told that a topic has another id, if the cluster is the same: it may be another topic.
    :param later: has what it is given called with the answer, on the thread that calls `ask`, which it wakes.
    """

    def __init__(
        self,
        brokers: Asker,
        cluster: ClusterWatch,
        read: Callable[[], Collection[str]],
        set_id: Callable[[str, str | None], None],
        forget: Callable[[str], None],
        doubt: Callable[[str], None],
        later: Callable[[OnIds], OnIds],
    ) -> None:
        self._brokers = brokers
        self._read = read
        self._set_id = set_id
        self._forget = forget
        self._doubt = doubt
        self._doubted: set[str] = set()
        """The topics with another id, of which no broker has told yet whether the cluster is the same."""
        self._cluster = cluster
        self._later = later
        self.ids: dict[str, str] = {}
        """Each topic's id as it was first told, until nothing of it is assigned for long."""
        self._subscribed: frozenset[str] = frozenset()
        self._were_read: set[str] = set()
        """Those of which something was assigned, until their id is forgotten."""
        self._unassigned_since: dict[str, float] = {}
        """The topics that were read, and of which no partition is assigned."""
        self._asked_at = float("-inf")
        self._is_open = False
        self._patience = Patience()

    def subscribe(self, topic: str) -> None:
        """Partitions of it will be assigned."""
        self._subscribed |= {topic}

    def hurry(self) -> None:
        """Ask at once: something was assigned."""
        self._asked_at = float("-inf")

    def check(self, timeout: float) -> None:
        """Ask now whether the topics are those of which the ids were first told. What isn't answered may be.

        Blocks until the brokers have answered, for two seconds more than ``timeout`` at most, or than twice
        `MOST_SECONDS` where they are slow. Where no id is known, it is only asked whether they are of the same cluster.

        :raises TopicRecreated: one has another id.
        :raises TopicMissing: one was deleted, and isn't there at the moment.
        :raises AnotherCluster, ConfigurationError: see `ClusterWatch.check`.
        """
        known = dict(self.ids)
        if not known:
            self._cluster.ask_and_check(self._reach_seconds)
            return
        answers = self._brokers.topic_ids(known, max(timeout, self._patience.seconds))
        recreated = _recreated(known, answers)
        if recreated is not None:
            # Nobody may ask again. If no broker tells of its cluster, to go back is safer than to skip what is new.
            self._cluster.ask_and_check(self._reach_seconds)
            raise recreated
        for topic, answer in answers.items():
            if isinstance(answer, KafkaError) and answer.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise TopicMissing(f"topic {topic!r} was deleted")

    def ask(self, now: float) -> float:
        """Ask if it is due. Returns when it is next, by the same clock."""
        read = self._read()
        self._forget_unassigned(read, now)
        topics = self._subscribed.union(read)
        if not topics:
            return float("inf")
        interval = INTERVAL_SECONDS if read else UNREAD_SECONDS
        if now >= self._asked_at + (LOST_SECONDS if self._is_open else interval):
            self._asked_at, self._is_open = now, True
            self._brokers.ask_topic_ids(topics, self._patience.seconds, self._later(self._apply))
        next_at = self._asked_at + interval
        return next_at if next_at > now else now + interval

    def _apply(self, answers: Mapping[str, str | KafkaError]) -> None:
        """:raises TopicRecreated: a topic that was read has another id than before.
        :raises AnotherCluster, ConfigurationError: see `ClusterWatch.check`.
        """
        self._is_open = False
        self._patience.note(not all(map(is_silence, answers.values())))
        read = frozenset(self._read())
        self._were_read |= read
        recreated = _recreated({topic: self.ids[topic] for topic in read & self.ids.keys()}, answers)
        if recreated is not None:
            if recreated.topic not in self._doubted:  # whatever is told of the cluster: nothing goes on until then
                self._doubted.add(recreated.topic)
                self._doubt(recreated.topic)
            if not self._cluster.ask_and_check(self._reach_seconds):
                return  # all is asked again in a second, or two
            raise recreated
        for topic, answer in answers.items():
            if topic in self._were_read - read and topic in self.ids:
                continue
            if isinstance(answer, str):
                self._doubted.discard(topic)
                self.ids[topic] = answer
                self._set_id(topic, answer)
            elif topic not in self.ids and answer.code() in NO_TOPIC_IDS:
                self._set_id(topic, None)

    def _forget_unassigned(self, read: Collection[str], now: float) -> None:
        """A topic that nothing was read of for long may be another one by now, as after a restart."""
        since = self._unassigned_since
        self._unassigned_since = {each: since.get(each, now) for each in self._were_read if each not in read}
        for topic in [each for each, began in self._unassigned_since.items() if now - began >= FORGET_SECONDS]:
            del self._unassigned_since[topic]
            self._were_read.discard(topic)
            self._doubted.discard(topic)
            self.ids.pop(topic, None)
            self._forget(topic)

    @property
    def _reach_seconds(self) -> float:
        """How long a broker may take to tell of which cluster it is."""
        return max(REACH_SECONDS, self._patience.seconds)


def _recreated(known: Mapping[str, str], answers: Mapping[str, str | KafkaError]) -> TopicRecreated | None:
    """What is to be raised of the first topic that has another id than is known, if one has."""
    for topic, answer in answers.items():
        if isinstance(answer, str) and known.get(topic, answer) != answer:
            return TopicRecreated(topic, known[topic], answer)
    return None
