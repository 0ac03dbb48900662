"""What is logged of leader groups: that they published less than before, or what can't be, or nothing."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple

from confluent_kafka import KafkaError

from arroyo_sync.core.log_guard import guarded_logger
from arroyo_sync.core.log_throttle import LOG_INTERVAL_SECONDS, LogThrottle
from arroyo_sync.core.state import PartitionKey
from arroyo_sync.leaders.assigned_partitions import Rejection, Truncation
from arroyo_sync.leaders.verification import Reason

logger = guarded_logger(__name__)

EVENT_INTERVAL_SECONDS = 900.0
"""How often one cause is an error at most: as often as a monitor tells of it."""

_SHOWN = 10
_IS_IT_RIGHT = "The gate stays shut there until it does: is the group's name right, and does it publish?"
_MEANING = (
    "After a restart that is normal, and so is a little of it where reports are published from several threads. What "
    "lies in between waits until it is committed again"
)


class Rewind(NamedTuple):
    """A group published a lower offset than before."""

    key: PartitionKey
    group: str
    previous: int
    offset: int


class RewindLog:
    """The rewinds that aren't logged yet, by group: at most one line a minute for each.

    A leader that is restarted goes back a little, and one that publishes from several threads does so out of order.
    Either is made good by its next reports, so one line says how much there was of it, and which was the worst.

    Threads: any thread may call anything; one lock guards all.

    :param clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._pending: dict[str, _Pending] = {}
        self._last_logged: dict[str, float] = {}

    def add(self, rewinds: Iterable[Rewind]) -> None:
        """Log them now, or with others once a minute has passed since the group's last line."""
        with self._lock:
            for rewind in rewinds:
                pending = self._pending.get(rewind.group)
                if pending is None:
                    pending = self._pending[rewind.group] = _Pending(rewind)
                pending.add(rewind)
        self.log_due()

    def log_due(self) -> None:
        """Log what has waited for long enough. To be called now and then."""
        with self._lock:
            if not self._pending:
                return
            now = self._clock()
            due = [
                group
                for group in self._pending
                if group not in self._last_logged or now - self._last_logged[group] >= LOG_INTERVAL_SECONDS
            ]
            logged = [self._pending.pop(group) for group in due]
            self._last_logged.update(dict.fromkeys(due, now))
        for each in logged:
            each.log()


class _Pending:
    """Rewinds of one group."""

    def __init__(self, first: Rewind) -> None:
        self._count = 0
        self._partitions: set[PartitionKey] = set()
        self._worst = first

    def add(self, rewind: Rewind) -> None:
        self._count += 1
        self._partitions.add(rewind.key)
        if rewind.previous - rewind.offset > self._worst.previous - self._worst.offset:
            self._worst = rewind

    def log(self) -> None:
        worst = self._worst
        if self._count == 1:
            logger.warning(
                "%s[%d]: group %r went back from %d to %d. %s",
                *worst.key,
                worst.group,
                worst.previous,
                worst.offset,
                _MEANING,
            )
        else:
            logger.warning(
                "Group %r went back %d times, in %d partitions, the furthest in %s[%d] from %d to %d. %s",
                worst.group,
                self._count,
                len(self._partitions),
                *worst.key,
                worst.previous,
                worst.offset,
                _MEANING,
            )


class Doubt(NamedTuple):
    """A group published an offset that can't be true of the partition, or may not be."""

    key: PartitionKey
    group: str
    reason: Reason
    says: str
    """The rest of the sentence that begins with the group, and what to do."""


def why_rejected(rejection: Rejection) -> str:
    """What a `Doubt` says of it."""
    if rejection.reason is Reason.EARLIER_TOPIC:
        return (
            f"published offset {rejection.offset} of an earlier topic of that name: its report carries another topic "
            "id. Restart that leader (or is the topic a mirror? See FOLLOWERS.md). The group counts as unknown there "
            "until it publishes of this topic"
        )
    return (
        f"published offset {rejection.offset}, but the partition ends at {rejection.end}. Was the topic deleted and "
        "created again under an old commit log? The group counts as unknown there until it publishes a possible offset"
    )


def why_suspect(offset: int, committed: int | KafkaError | None) -> str:
    """What a `Doubt` says of an offset that may be of an earlier topic, by what its group has committed."""
    if isinstance(committed, KafkaError):
        commit = f"what it has committed can't be asked for ({committed.str()})"
    else:
        commit = "hasn't committed that far on the brokers"
    return (
        f"published offset {offset} before the first message that is there was written, and {commit}: it may speak of "
        "an earlier topic of that name, unless the topic's timestamps aren't the time of writing. The group counts as "
        "unknown there until it publishes again, or its commit reaches that far"
    )


def log_truncations(truncations: Sequence[Truncation]) -> None:
    """Those of one answer: an unclean election may truncate all partitions that a broker leads."""
    first, *others = truncations
    logger.error(
        "%s[%d]: ends at %d, though it reached to %d before: it was truncated, as by an unclean election. What its "
        "leaders published is verified anew%s",
        *first.key,
        first.end,
        first.previous_end,
        f". Likewise {named_partitions([each.key for each in others])}" if others else "",
    )


class DoubtLog:
    """Logs doubts: each cause, that is a topic, group and reason, once a minute at most, with all its partitions.

    A monitor tells of them, too, and makes the Sentry event: then they are warnings, of which the SDK makes none. Else
    they are errors, once in `EVENT_INTERVAL_SECONDS` for each cause. An idle leader's heartbeats repeat them for days.

    Threads: one.

    :param clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._throttle = LogThrottle(LOG_INTERVAL_SECONDS, clock)
        self._errors = LogThrottle(EVENT_INTERVAL_SECONDS, clock)
        self._clock = clock
        self._partitions: dict[tuple[str, str, Reason], dict[PartitionKey, float]] = {}
        """By cause, those that were doubted since its last line, and when. They are named in the next one, which comes
        with another doubt: by itself it could come when all is over. It names those that were doubted lately."""

    def log(self, doubts: Iterable[Doubt], *, is_monitored: bool) -> None:
        """Those of one look."""
        firsts: dict[tuple[str, str, Reason], Doubt] = {}
        now = self._clock()
        for doubt in doubts:
            cause = (doubt.key[0], doubt.group, doubt.reason)
            firsts.setdefault(cause, doubt)
            self._partitions.setdefault(cause, {})[doubt.key] = now
        for cause, first in firsts.items():
            if not self._throttle.should_log(cause):
                continue
            doubted = self._partitions.pop(cause)
            others = sorted(
                key for key, at in doubted.items() if key != first.key and now - at < 2 * LOG_INTERVAL_SECONDS
            )
            is_event = not is_monitored and self._errors.should_log(cause)
            logger.log(
                logging.ERROR if is_event else logging.WARNING,
                "%s[%d]: group %r %s%s",
                *first.key,
                first.group,
                first.says,
                f". Likewise {named_partitions(others)}" if others else "",
            )


class SilenceLog:
    """Logs of which partitions a group has published nothing, whenever that is another answer, and that it does now.

    Threads: one.

    :param name: what the source is called.
    """

    def __init__(self, name: Callable[[], str]) -> None:
        self._name = name
        # Of which partitions each group was last said to be silent; ``None``: of everything.
        self._told: dict[str, Sequence[PartitionKey] | None] = {}

    def update(
        self,
        group: str,
        silent: Sequence[PartitionKey] | None,
        seen: Callable[[], str],
        assigned: Callable[[], Collection[PartitionKey]],
    ) -> None:
        """Log what has changed.

        :param silent: the assigned partitions of which the group has published nothing; ``None``: nothing at all.
        :param seen: who does publish, to follow "has published nothing at all".
        :param assigned: the assigned partitions. Of one that was taken away nobody knows here whether it is over.
        """
        told = self._told.get(group, [])
        if silent == told:
            return
        self._told[group] = silent
        if silent is None:
            logger.warning("%s: group %r has published nothing at all%s. %s", self._name(), group, seen(), _IS_IT_RIGHT)
        elif silent:
            logger.warning(
                "%s: group %r has published nothing of %s. %s",
                self._name(),
                group,
                named_partitions(silent),
                _IS_IT_RIGHT,
            )
        elif told is None:
            logger.warning("%s: group %r publishes now", self._name(), group)
        elif over := sorted(set(told).intersection(assigned())):
            logger.warning("%s: group %r has published of %s now", self._name(), group, named_partitions(over))


def named_partitions(partitions: Sequence[PartitionKey]) -> str:
    """Some of them, for a line."""
    named = ", ".join(f"{topic}[{partition}]" for topic, partition in partitions[:_SHOWN])
    return named if len(partitions) <= _SHOWN else f"{named} and {len(partitions) - _SHOWN} more partitions"
