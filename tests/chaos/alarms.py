"""What followers told of: was it all that needs a person, in time, and did a fault explain it? It shares no code with
the package."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from tests.chaos.evidence import CLOCK_SHIFTED, Evidence, Told

AFTERMATH_SECONDS = 120.0
"""For how long after its end a fault explains what is told."""

REMINDER_SECONDS = 900.0
"""A process tells of the same cause once in that time."""
RETURN_SECONDS = 75.0
"""Likewise, if it has said meanwhile that it is over: a minute, and some time to see it."""
WAITS_FOR = "for group"
"""Of what is told only where messages wait for a leader."""
LAST_LINE = re.compile(r"^worker\.py: ")
"""What a process's last line begins with."""
OVER = re.compile(r"^Over: |^No longer assigned here: ")

RECREATED = frozenset({"data topic recreated", "data topic outgrown"})
LOG_LOST = frozenset({"commit log deleted"})
LEADERLESS = frozenset(
    {
        *RECREATED,
        *LOG_LOST,
        "broker away",
        "broker killed",
        "broker stopped beyond its session",
        "coordinator killed",
        "commit log poisoned",
        "leader group away",
        "leader group rewound",
        "leader group silent",
        "leader killed",
        "leader stopped beyond its session",
        "network cut",
        "partition begun while shut",
        "produce refused",
        "slow follower told to end",
        "transaction hangs",
        "unclean election",
        "follower stopped beyond its session",
        "records deleted under the follower",
    }
)
"""What may keep a leader's report, or the follower's own reading, away for as long as makes a stall."""


class Alarm(NamedTuple):
    """Something that is told, and the faults that explain it. With none, it is never right."""

    pattern: re.Pattern[str]
    explained_by: frozenset[str]


BUSY_ELSEWHERE = "The follower is busy with other partitions"

WAITS_FOR_GROUP = re.compile(
    r"\[(\d+)\] has stood still for (\d+) s at \d+: .*messages? waits? for group '([^']+)', which is at (\d+)"
)

TRANSACTION = re.compile(r"transaction (that hangs|is open)")
OPEN_SECONDS, SEEN_SECONDS = 15.0, 5.0
"""For how long a transaction must have been open to explain a line that names it, and how long after its end."""

SUSPECT = re.compile(r"before (the|its) first message")
"""Of a report that may speak of an earlier topic. Where topics can't be told apart, whatever keeps a leader's commit
behind its report may make one suspect."""

EARLIER = re.compile(r"earlier topic")
"""Of a report that is of one."""

ALARMS = (
    Alarm(OVER, frozenset({"anything"})),
    # A report with a timestamp from the future counts as the oldest; without a topic's id it is suspect then.
    Alarm(SUSPECT, RECREATED | {"clock shifted"}),
    Alarm(EARLIER, RECREATED),
    Alarm(
        re.compile(r"published offset \d+(, but the partition| of \S+, which) ends at|beyond the partition's end"),
        RECREATED | {"commit log poisoned", "unclean election"},
    ),
    Alarm(re.compile(r"it was truncated, as by an unclean election"), RECREATED | {"unclean election"}),
    Alarm(re.compile(r"^Commit log .*(was deleted and created again|the position in partitions)"), LOG_LOST),
    Alarm(re.compile(r"topic 'commit-log'.*(doesn't exist|not exist)"), LOG_LOST),
    Alarm(re.compile(r"topic '?events'? .*created again|on the new topic|topic not available: events"), RECREATED),
    Alarm(
        re.compile(r"_AUTO_OFFSET_RESET"),
        RECREATED | {"records deleted under the follower", "unclean election", "leader group rewound"},
    ),
    Alarm(re.compile(r"is no commit log"), frozenset()),
    Alarm(re.compile(r"refuses access"), frozenset()),
    Alarm(re.compile(r"has stood still|is released up to|has published nothing"), LEADERLESS),
)
"""The first one that fits counts. What none fits is an alarm that nothing explains, if it is an error."""


def untold(evidence: Evidence, is_busy: Callable[[float, float, str], bool]) -> Iterator[str]:
    """What a follower group was to say and didn't, in words.

    One that ``is_busy`` all that time, in its own slow step, waits for nobody: it needn't say for whom.
    """
    for began, deadline, group, pattern in evidence.wanted:
        said = [each for each in evidence.told if each.group == group and re.search(pattern, each.text)]
        if any(began <= each.time <= deadline or _is_known(evidence, each, began, deadline) for each in said):
            continue
        if not (WAITS_FOR in pattern and is_busy(began, deadline, group)):
            yield f"{group} didn't say {pattern!r} between {began:.3f} and {deadline:.3f}"


def _is_known(evidence: Evidence, told: Told, began: float, deadline: float) -> bool:
    """Whether it isn't due once more by then: the same process has told the same cause, and may be silent for long."""
    slot = told.process.rpartition(".")[0]
    is_over = any(
        each.process == told.process and told.time < each.time < deadline and OVER.search(each.text)
        for each in evidence.told
    )
    return (
        not OVER.search(told.text)
        and deadline - (RETURN_SECONDS if is_over else REMINDER_SECONDS) <= told.time < began
        and not any(
            told.time < each.began_at <= deadline and each.name.rpartition(".")[0] == slot
            for each in evidence.followers
        )
    )


def false_alarms(evidence: Evidence) -> Iterator[str]:
    """What processes told of, or ended of, that no fault explains, in words; a line a group and pattern."""
    seen: set[tuple[str, str]] = set()
    for told in sorted(evidence.told):
        text = LAST_LINE.sub("", told.text)
        alarm = next((each for each in ALARMS if each.pattern.search(text)), None)
        if alarm is None and told.level != "ERROR":
            continue  # a warning, which asks for nobody; or a last line, judged by whether it is clear
        what = text[:40] if alarm is None else alarm.pattern.pattern
        if (told.group, what) not in seen and not (alarm is not None and _is_explained(evidence, told, alarm)):
            seen.add((told.group, what))
            yield f"{told.time:.3f}: {told.process} told of what no fault explains: {told.text}"


def _is_explained(evidence: Evidence, told: Told, alarm: Alarm) -> bool:
    explained_by = alarm.explained_by
    if alarm.pattern is SUSPECT and not evidence.ingredients.tells_topics_apart:
        explained_by |= LEADERLESS
    if BUSY_ELSEWHERE in told.text and any(
        each.group == told.group and each.step_seconds for each in evidence.ingredients.followers
    ):
        return True  # with a backlog in each, librdkafka hands out long runs of one partition after the other
    if TRANSACTION.search(told.text) and any(
        began + OPEN_SECONDS <= told.time <= ended + SEEN_SECONDS for began, ended in evidence.open_transactions
    ):
        return True  # it is what the line says, whatever made it so
    if _is_so_by_the_leaders_journal(evidence, told):
        return True
    if alarm.pattern is EARLIER and _counts_an_older_place(evidence, told):
        return True
    return "anything" in explained_by or any(
        kind in explained_by and began <= told.time <= ended + AFTERMATH_SECONDS
        for kind, began, ended in evidence.faults
    )


def _is_so_by_the_leaders_journal(evidence: Evidence, told: Told) -> bool:
    """Whether the group that is waited for had really done nothing of the partition for as long as is said.

    As one whose members are slow, and have a backlog in other partitions: librdkafka hands those out first.
    """
    said = WAITS_FOR_GROUP.search(told.text)
    if said is None:
        return False
    partition, seconds, group, offset = int(said[1]), int(said[2]), said[3], int(said[4])
    place = evidence.epoch_at(told.time), partition
    did_last, did_next = (evidence.committed_at(group, place, each) for each in (offset - 1, offset))
    return did_last <= told.time - seconds < told.time < did_next


def _counts_an_older_place(evidence: Evidence, told: Told) -> bool:
    """Whether a report of an earlier topic may count for the newest: in an older place of the commit log, if the clock
    of who reads it is wrong. See `process_faults.shift_clock`."""
    began_at = [each.began_at for each in evidence.followers if each.name == told.process]
    is_shifted = any(
        kind == CLOCK_SHIFTED and began <= at <= ended for kind, began, ended in evidence.faults for at in began_at
    )
    is_said = any(each.process == told.process and "from the future" in each.text for each in evidence.told)
    was_another = any(kind in RECREATED and began <= told.time for kind, began, _ in evidence.faults)
    return is_shifted and is_said and was_another
