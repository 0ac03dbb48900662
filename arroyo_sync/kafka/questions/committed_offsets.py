"""What a consumer group has committed on the brokers.

Asked by a consumer that names the group and never joins it. The administrator's client could ask without a consumer for
each group, but a broker that goes away during such a question aborts the whole process (librdkafka issue 4605).
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.cimpl import Consumer  # not what a tracer has put in its place

from arroyo_sync.core.errors import BrokersUnreachable, ConfigurationError
from arroyo_sync.core.state import PartitionKey
from arroyo_sync.kafka.client_settings import concerns_group, query_settings
from arroyo_sync.kafka.errors import RENEWAL_SECONDS, stopped
from arroyo_sync.kafka.making_clients import make_client
from arroyo_sync.kafka.questions.answers import deliver_answer, unable_to_ask

FIRST_SECONDS = 1.0
"""After how long without an answer it is looked whether the group may be asked about at all."""
IDLE_SECONDS = 10.0
"""After how long without a question the thread ends and the consumer is closed; the next question makes new ones."""

Commits = Mapping[PartitionKey, int | KafkaError | None]
"""Per partition the committed offset, ``None`` where there is no commit, or why that can't be told."""


class _Question(NamedTuple):
    partitions: Collection[PartitionKey]
    deadline: float
    on_answer: Callable[[Commits], None]


class GroupCommits:
    """Asks for one group's commits, with a consumer and a thread that are there while they are needed.

    Guarantees
        - Its questions are answered in their order, each at its deadline at the latest, a question in the consumer's
          hands a little later. After `stop`, those that wait are answered with an error.
        - A consumer that may not look at the group is replaced after `RENEWAL_SECONDS`: it tells of that only once.
        - The last stable commit counts: a transaction that hangs hides no partition.

    Threads: any may call `ask` and `stop`. Callbacks run on the group's thread.

    :param configuration: librdkafka settings of the cluster where the group commits.
    :param on_error: told, on the group's thread, of every error that isn't about one question.
    :param clock: monotonic seconds.
    """

    def __init__(
        self,
        configuration: Mapping[str, Any],
        group: str,
        on_error: Callable[[KafkaError], None],
        clock: Callable[[], float],
    ) -> None:
        self._settings = query_settings(configuration, group, on_error)
        self._group = group
        self._clock = clock
        # Guards what follows; written by any thread.
        self._changed = threading.Condition()
        self._questions: deque[_Question] = deque()
        self._thread: threading.Thread | None = None
        self._ending: list[threading.Thread] = []
        self._is_stopped = False
        # The group's thread's: that it may not be looked at, until there was an answer; and when another consumer is
        # to ask, since this one tells of that no more.
        self._refused: KafkaError | None = None
        self._renew_at = math.inf

    def ask(self, partitions: Collection[PartitionKey], timeout: float, on_answer: Callable[[Commits], None]) -> None:
        """Ask what the group has committed of the partitions. Returns at once."""
        question = _Question(tuple(partitions), self._clock() + timeout, on_answer)
        refusal = stopped()
        with self._changed:
            if not self._is_stopped:
                try:
                    self._begin_thread()
                except RuntimeError as error:  # the machine has no more of them at the moment
                    refusal = unable_to_ask(error)
                else:
                    self._questions.append(question)
                    self._changed.notify_all()
                    return
        _answer(question, refusal)

    def _begin_thread(self) -> None:
        """Have a thread that looks for questions. Under the lock.

        :raises RuntimeError: it can't be started.
        """
        if self._thread is None:
            self._ending = [each for each in self._ending if each.is_alive()]
            thread = threading.Thread(target=self._run, name=f"arroyo-sync commits of {self._group}", daemon=True)
            thread.start()
            self._thread = thread

    def stop(self) -> None:
        """End, as soon as the question in the consumer's hands is answered. Doesn't block."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()

    def join(self, timeout: float) -> None:
        """Block until it has ended, for at most ``timeout`` seconds."""
        with self._changed:
            threads = [*self._ending, *([] if self._thread is None else [self._thread])]
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(timeout)

    def _run(self) -> None:
        consumer: Consumer | None = None
        try:
            while (question := self._next()) is not None:
                if self._is_stopped:
                    _answer(question, stopped())
                    continue
                try:
                    if consumer is not None and self._clock() >= self._renew_at:
                        renewed, consumer = consumer, None
                        renewed.close()
                    if consumer is None:
                        self._refused, self._renew_at = None, math.inf
                        consumer = make_client(Consumer, self._settings)
                    _answer(question, self._ask(consumer, question))
                except KafkaException as error:
                    _answer(question, error.args[0])
                except ConfigurationError as error:
                    _answer(question, KafkaError(KafkaError._INVALID_ARG, str(error)))
                except BrokersUnreachable as error:
                    _answer(question, KafkaError(KafkaError._TRANSPORT, str(error)))
                except Exception as error:  # such as that there is no memory left: the next question may go better
                    _answer(question, unable_to_ask(error))
        finally:
            if consumer is not None:
                consumer.close()

    def _next(self) -> _Question | None:
        """The next question; ``None``: the thread is to end, and will not look again."""
        with self._changed:
            self._changed.wait_for(lambda: self._questions or self._is_stopped, IDLE_SECONDS)
            if self._questions:
                return self._questions.popleft()
            if self._thread is not None:
                self._ending.append(self._thread)
            self._thread = None
            return None

    def _ask(self, consumer: Consumer, question: _Question) -> Commits | KafkaError:
        seconds = question.deadline - self._clock()
        if seconds <= 0:
            return KafkaError(KafkaError._TIMED_OUT, "an earlier question took all the time")
        wanted = [TopicPartition(topic, partition) for topic, partition in question.partitions]
        answer = self._ask_once(consumer, wanted, min(seconds, FIRST_SECONDS))
        if isinstance(answer, KafkaError) and self._refused is None and seconds > FIRST_SECONDS:
            answer = self._ask_once(consumer, wanted, seconds - FIRST_SECONDS)
        return self._refused or answer

    def _ask_once(self, consumer: Consumer, wanted: list[TopicPartition], seconds: float) -> Commits | KafkaError:
        try:
            answers = consumer.committed(wanted, timeout=seconds)
        except KafkaException as error:
            failure: KafkaError = error.args[0]
            self._poll_events(consumer)
            return failure
        self._poll_events(consumer)
        self._refused = None
        return {(each.topic, each.partition): _offset_of(each) for each in answers}

    def _poll_events(self, consumer: Consumer) -> None:
        """Let ``on_error`` be told, and keep that the group may not be looked at.

        librdkafka tells that once, by the way, and lets every question run out of time.
        """
        while (event := consumer.poll(0)) is not None:
            error = event.error()
            if error is not None and concerns_group(error):
                advice = f"The user must be allowed to describe group {self._group!r}"
                self._refused = KafkaError(error.code(), f"{error.str()} {advice}")
                self._renew_at = self._clock() + RENEWAL_SECONDS


def _offset_of(answer: TopicPartition) -> int | KafkaError | None:
    if answer.error is not None:
        return answer.error
    return answer.offset if answer.offset >= 0 else None


def _answer(question: _Question, answer: Commits | KafkaError) -> None:
    if isinstance(answer, KafkaError):
        answer = dict.fromkeys(question.partitions, answer)
    deliver_answer(question.on_answer, answer)
