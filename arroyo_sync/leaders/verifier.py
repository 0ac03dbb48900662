"""Asks the brokers what `LeaderOffsets` needs to know of the data topic, and applies the answers.

It asks
    - what each partition's beginning, first message and end are: at once when trust in it began, and before that where
      the commit log ends, by which later reports are told from earlier ones; once in `INTERVAL_SECONDS` while an offset
      is pending there; and every `REFRESH_SECONDS` of all assigned partitions, which finds a log that was truncated;
      many of them in turns, since the answers take this process's time;
    - for the data topic's id: see `TopicWatch`;
    - once in `INTERVAL_SECONDS` what a group has committed, while a report of it is suspect.

Guarantees
    - All partitions that are due are in one request for each broker, and each broker's answer counts when it comes.
    - While the follower keeps up, nothing but the id and the refresh is asked: the messages it receives verify what is
      published.

Threads
    `run` has a thread to itself, which applies the answers. Everything else may be called by any thread and never
    blocks. The answers come on threads of the asker.

Failures
    What isn't answered is asked again, and has longer to be answered. A data topic with another id ends `run` with
    `TopicRecreated`; one that has lost messages that the follower may have read, with `PartitionTruncated`; brokers of
    another cluster than the follower's, or than before, with `ConfigurationError`. That is found before an end that
    they tell counts, if the follower's is known by then.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeVar

from confluent_kafka import KafkaError

from arroyo_sync.core.errors import ArroyoSyncError, PartitionTruncated, TopicMissing
from arroyo_sync.core.log_guard import guarded_logger
from arroyo_sync.core.state import PartitionKey
from arroyo_sync.kafka.errors import is_silence
from arroyo_sync.kafka.questions.answers import Patience
from arroyo_sync.kafka.questions.asker import Asker, PartitionRange
from arroyo_sync.kafka.questions.topic_watch import ClusterWatch, TopicWatch
from arroyo_sync.leaders.assigned_partitions import Question, Truncation
from arroyo_sync.leaders.leader_log import Doubt, DoubtLog, log_truncations, why_rejected, why_suspect
from arroyo_sync.leaders.leader_offsets import LeaderOffsets
from arroyo_sync.leaders.published_offset import PendingReports
from arroyo_sync.leaders.verification import LOG_END_UNKNOWN, Reason, TopicId

logger = guarded_logger(__name__)

INTERVAL_SECONDS = 1.0
REFRESH_SECONDS = 30.0
REFRESHED_AT_ONCE = 100
"""Of the assigned partitions, each `INTERVAL_SECONDS`, or more where they wouldn't all have had their turn in time."""
QUERY_TIMEOUT_SECONDS = 1.0
"""Of questions that have an answer, or none, without consequence for the next."""
SUSPICION_PATIENCE_SECONDS = 15.0
"""From when on a report counts as unverified, and a suspicion is told of: a heartbeat and a half of a leader. One that
is well has reported again by then, or its commit has arrived, and that is no news."""

T = TypeVar("T")

OnLogEnds = Callable[[Mapping[int, int] | None], None]
"""``None``: nobody tells which partitions there are."""


class Verifier:
    """Verifies and rejects what is pending in a `LeaderOffsets`.

    :param brokers: of the data topic's cluster.
    :param ask_log_ends: asks where the commit log's partitions end; `LOG_END_UNKNOWN` for those that don't answer. It
        is given the time it has, in seconds, and calls back once.
    :param clock: monotonic seconds.
    :param has_monitor: whether a monitor makes an event of what is rejected.
    """

    def __init__(
        self,
        offsets: LeaderOffsets,
        brokers: Asker,
        ask_log_ends: Callable[[float, OnLogEnds], None],
        clock: Callable[[], float],
        has_monitor: Callable[[], bool],
    ) -> None:
        self._offsets = offsets
        self._brokers = brokers
        self._ask_log_ends = ask_log_ends
        self._clock = clock
        self._has_monitor = has_monitor
        self._doubt_log = DoubtLog(clock)
        self._doubts: list[Doubt] = []
        """Of `run`'s thread: those that aren't logged yet."""
        self.impossible = 0
        """How many published offsets were rejected. Written by `run`'s thread."""
        self.unverified = 0
        """In how many partitions a report has been pending for `SUSPICION_PATIENCE_SECONDS`, with none verified in
        between: a follower that is slow, or full, has some pending at any time. Written by `run`'s thread."""
        self._pending = PendingReports()
        self._look_at = clock()
        """When to look next what is pending. With `_pending`, of `run`'s thread."""
        self._cluster = ClusterWatch(brokers)
        self._topics = TopicWatch(
            brokers, self._cluster, offsets.topics, self._set_id, self._forget_id, self._doubt_id, self._later
        )
        self._log_patience, self._patience = Patience(), Patience()
        self._silent: frozenset[PartitionKey] = frozenset()
        """Of `run`'s thread: those of which no broker has told when they were last asked."""
        self._committed_at: dict[str, float] = {}
        """Of `run`'s thread: when the groups with a suspect report were asked what they have committed."""
        self._suspect_since: dict[tuple[PartitionKey, str], float] = {}
        """Of `run`'s thread: since when each suspect report has been one."""
        self._condition = threading.Condition()
        # Guarded by the condition.
        self._is_woken = False
        self._is_stopped = False
        self._asked_at: dict[PartitionKey, float] = {}
        self._in_flight: set[PartitionKey] = set()
        """Those whose first answer since trust began is on its way: a look-up by time may take long."""
        self._refreshed_at = clock()
        self._to_refresh: list[PartitionKey] = []
        self._turn_size = REFRESHED_AT_ONCE
        self._turn_at = clock()
        self._answers: list[Callable[[], None]] = []
        """What is to be done with answers that have come."""

    def subscribe(self, topic: str) -> None:
        """Partitions of this one will be assigned."""
        self._topics.subscribe(topic)

    def assign(self, keys: Collection[PartitionKey]) -> None:
        """These may be asked about at once, since trust in them begins anew."""
        self._topics.hurry()
        with self._condition:
            self._in_flight.difference_update(keys)
            for key in keys:
                self._asked_at.pop(key, None)

    def revoke(self, keys: Collection[PartitionKey]) -> None:
        """These aren't asked about any more."""
        with self._condition:
            self._in_flight.difference_update(keys)
            for key in keys:
                self._asked_at.pop(key, None)
            if self._to_refresh:
                gone = set(keys)
                self._to_refresh = [key for key in self._to_refresh if key not in gone]

    def expect_cluster(self, cluster_id: str) -> None:
        """The follower reads the data topic from this one."""
        self._cluster.expect(cluster_id)
        self.wake()

    def wake(self) -> None:
        """Something may be pending."""
        with self._condition:
            self._is_woken = True
            self._condition.notify_all()

    def stop(self) -> None:
        """Let `run` return."""
        with self._condition:
            self._is_stopped = True
            self._condition.notify_all()

    def run(self, periodic_checks: Callable[[], float]) -> None:
        """Until `stop`: ask what is to be asked. Call ``periodic_checks`` when woken, and as often as that says.

        :param periodic_checks: returns in how many seconds it wants to be called again at the latest.
        :raises TopicRecreated: the data topic has another id than before.
        :raises PartitionTruncated: messages that the follower may have read are gone from the data topic.
        :raises ConfigurationError: the brokers are of another cluster than the follower's, or than before.
        :raises Exception: whatever ``periodic_checks`` raises.
        """
        while not self._is_stopped:
            wait_seconds = min(self.ask(), periodic_checks())
            with self._condition:
                self._condition.wait_for(lambda: self._is_woken or self._is_stopped, wait_seconds)
                self._is_woken = False

    def check_topics(self, timeout: float) -> None:
        """Ask now whether the data topics are those of which the ids were first told. What isn't answered may be.

        Blocks until the brokers have answered; see `TopicWatch.check` for how long. Any thread may call it.

        :raises TopicRecreated: one has another id.
        :raises TopicMissing: one was deleted, and isn't there at the moment.
        :raises AnotherCluster, ConfigurationError: the brokers are of another cluster than before, or than the
            follower's.
        """
        self._topics.check(timeout)

    def ask(self) -> float:
        """Apply the answers that have come, and ask what is due.

        :returns: in how many seconds something is due again.
        :raises TopicRecreated, PartitionTruncated, ConfigurationError: see `run`.
        """
        self._apply_answers()
        now = self._clock()
        next_at = self._ask_due(now)
        next_at = min(next_at, self._topics.ask(now))
        if self._offsets.topics():
            next_at = min(next_at, self._turn_at if self._to_refresh else self._refreshed_at + REFRESH_SECONDS)
        self._apply_answers()
        if now >= self._look_at:
            self._look_at = now + INTERVAL_SECONDS
            self._pending.look(self._offsets.pending(), now)
            self.unverified = len(self._pending.partitions(now, SUSPICION_PATIENCE_SECONDS))
        suspects = self._offsets.suspects()
        self._committed_at = {group: at for group, at in self._committed_at.items() if group in suspects}
        self._suspect_since = {
            (key, group): self._suspect_since.get((key, group), now)
            for group, offsets in suspects.items()
            for key in offsets
        }
        for group, offsets in suspects.items():
            if now >= self._committed_at.get(group, float("-inf")) + INTERVAL_SECONDS:
                self._committed_at[group] = now
                self._ask_committed(group, offsets)
        if suspects:
            next_at = min(next_at, now + INTERVAL_SECONDS)
            self._apply_answers()
        rejections = self._offsets.take_rejections()
        self.impossible += len(rejections)
        for each in rejections:
            self._doubts.append(Doubt(each.key, each.group, each.reason, why_rejected(each)))
        doubts, self._doubts = self._doubts, []
        self._doubt_log.log(doubts, is_monitored=self._has_monitor())
        return max(0.0, next_at - now)

    def _ask_due(self, now: float) -> float:
        """Ask about the partitions that are due. Returns when another one is."""
        unanswered = set(self._offsets.unanswered())
        wanted = unanswered.union(self._offsets.unverified_partitions())
        is_refresh_due = not self._to_refresh and now >= self._refreshed_at + REFRESH_SECONDS
        assigned = self._offsets.assigned() if is_refresh_due else None
        with self._condition:
            wanted -= self._in_flight
            due = {key for key in wanted if now >= self._asked_at.get(key, float("-inf")) + INTERVAL_SECONDS}
            due.update(key for key in self._next_to_refresh(now, assigned) if key not in self._in_flight)
            self._asked_at.update(dict.fromkeys(due, now))
            next_at = min((self._asked_at[key] + INTERVAL_SECONDS for key in wanted), default=float("inf"))
        first, others = due & unanswered, due - unanswered
        if first:
            # First of all, so that what is assigned anew meanwhile is in flight no more, and asked about again.
            with self._condition:
                self._in_flight.update(first)
            # Before all else: what is published or assigned after this isn't judged by this answer.
            question = self._offsets.begin_question(first)
            self._ask_log_ends(self._log_patience.seconds, lambda log_ends: self._ask_first(first, question, log_ends))
        if others:
            self._ask_ranges(others, self._offsets.begin_question(others), None)
        return next_at

    def _next_to_refresh(self, now: float, assigned: list[PartitionKey] | None) -> list[PartitionKey]:
        """Whose turn it is of the assigned partitions; ``None``: the round goes on. With the condition held."""
        if assigned is not None:
            self._refreshed_at, self._to_refresh = now, assigned
            turns = int(REFRESH_SECONDS / INTERVAL_SECONDS)
            self._turn_size = max(REFRESHED_AT_ONCE, -(-len(assigned) // turns))
        if not self._to_refresh or now < self._turn_at:
            return []
        self._turn_at = now + INTERVAL_SECONDS
        turn, self._to_refresh = self._to_refresh[: self._turn_size], self._to_refresh[self._turn_size :]
        return turn

    def _ask_first(
        self, keys: Collection[PartitionKey], question: Question, log_ends: Mapping[int, int] | None
    ) -> None:
        """Ask about partitions in which trust has just begun, once it is known where the log ends."""
        self._log_patience.note(log_ends is not None and LOG_END_UNKNOWN not in log_ends.values())
        is_asked = False
        try:
            if log_ends is not None:
                self._ask_ranges(keys, question, log_ends)
                is_asked = True
        finally:
            if not is_asked:
                self._end_flight(keys)

    def _end_flight(self, keys: Collection[PartitionKey]) -> None:
        with self._condition:
            self._in_flight.difference_update(keys)

    def _ask_ranges(
        self, keys: Collection[PartitionKey], question: Question, log_ends: Mapping[int, int] | None
    ) -> None:
        is_first = log_ends is not None

        def apply(answers: Mapping[PartitionKey, PartitionRange | KafkaError]) -> None:
            answered = [key for key, each in answers.items() if not _is_to_be_continued(each)]
            self._end_flight(answered if is_first else ())
            self._note_silence({key for key, each in answers.items() if is_silence(each)}, answers)
            ranges = {key: each for key, each in answers.items() if not isinstance(each, KafkaError)}
            truncations = self._offsets.apply_answers(ranges, question, log_ends)
            self._refuse_lost_messages(truncations)
            if truncations:
                log_truncations(truncations)
                self.assign([each.key for each in truncations])

        seconds = self._patience.seconds
        self._brokers.ask_ranges(sorted(keys), seconds, self._later(apply), with_first_messages=is_first)

    def _refuse_lost_messages(self, truncations: Sequence[Truncation]) -> None:
        """The follower may have handed on, or hold, what isn't there any more; others come at the same offsets.

        :raises PartitionTruncated: it has read of a partition that was truncated.
        :raises TopicRecreated, ConfigurationError: it is another topic, which ends at less as well.
        """
        if all(each.read_to is None for each in truncations):
            return
        self._offsets.disable()  # before anything else is asked
        topic = next(each.key[0] for each in truncations if each.read_to is not None)
        others: list[Truncation] = []
        try:
            others = self._others_truncated(truncations)
            self.check_topics(QUERY_TIMEOUT_SECONDS)
        except TopicMissing:
            pass
        except ArroyoSyncError:
            raise
        except Exception as error:  # such as that nothing can be asked any more
            logger.debug("Can't ask whether %s is another topic: %s", topic, error)
        read = [each for each in (*truncations, *others) if each.key[0] == topic]
        read_to = {each.key[1]: each.read_to for each in read if each.read_to is not None}
        raise PartitionTruncated(topic, {each.key[1]: each.end for each in read if each.key[1] in read_to}, read_to)

    def _others_truncated(self, truncations: Sequence[Truncation]) -> list[Truncation]:
        """Of all other partitions, those whose brokers tell it now: later they may have grown as far again."""
        others = sorted(set(self._offsets.assigned()).difference(each.key for each in truncations))
        question = self._offsets.begin_question(others)
        answers = self._brokers.ranges(others, QUERY_TIMEOUT_SECONDS) if others else {}
        ranges = {key: each for key, each in answers.items() if not isinstance(each, KafkaError)}
        return self._offsets.apply_answers(ranges, question, None)

    def _note_silence(self, silent: Collection[PartitionKey], asked: Collection[PartitionKey]) -> None:
        """That others answer makes the brokers of those no faster, of which nobody tells."""
        heard = self._silent.intersection(asked).difference(silent)
        if silent or heard:
            self._patience.note(not silent)
        self._silent = self._silent.union(silent) - heard

    def _ask_committed(self, group: str, offsets: Mapping[PartitionKey, int]) -> None:
        question = self._offsets.begin_question(offsets)

        def apply(answers: Mapping[PartitionKey, int | KafkaError | None]) -> None:
            self._offsets.apply_committed(
                group, {key: None if isinstance(each, KafkaError) else each for key, each in answers.items()}, question
            )
            still_suspect = self._offsets.suspects().get(group, {})
            now = self._clock()
            long_suspect = [
                key
                for key in answers
                if key in still_suspect
                and now - self._suspect_since.get((key, group), now) >= SUSPICION_PATIENCE_SECONDS
            ]
            self._offsets.mark_long_suspect(group, long_suspect)
            for key in long_suspect:
                why = why_suspect(still_suspect[key], answers[key])
                self._doubts.append(Doubt(key, group, Reason.BEFORE_FIRST_MESSAGE, why))

        self._brokers.ask_committed(group, list(offsets), QUERY_TIMEOUT_SECONDS, self._later(apply))

    def _set_id(self, topic: str, value: str | None) -> None:
        self._offsets.set_topic_id(topic, TopicId(value))

    def _forget_id(self, topic: str) -> None:
        self._offsets.set_topic_id(topic, None)

    def _doubt_id(self, topic: str) -> None:
        """Reports of the id that was known wait for another answer, and all others for where the partitions end now."""
        self._offsets.set_topic_id(topic, None)
        self._offsets.ask_anew()

    # Answers.

    def _later(self, apply: Callable[[T], None]) -> Callable[[T], None]:
        """``apply``, on `run`'s thread."""

        def on_answer(answers: T) -> None:
            with self._condition:
                self._answers.append(lambda: apply(answers))
            self.wake()

        return on_answer

    def _apply_answers(self) -> None:
        while True:
            with self._condition:
                answers, self._answers = self._answers, []
            if not answers:
                return
            self._cluster.check()
            for apply in answers:
                apply()


def _is_to_be_continued(answer: PartitionRange | KafkaError) -> bool:
    return isinstance(answer, PartitionRange) and answer.is_look_up_pending
