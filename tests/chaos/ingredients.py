"""What a run's world is made of, drawn from its seed: topics, clocks, leaders and followers as other people have them.

The same seed draws the same ingredients, whatever else a run does. `PLAIN` is the world of the first runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from random import Random
from typing import Any

from tests.integration.cluster import jars

TRANSACTIONAL, COMPACTED, ONE_REPLICA, TWO_REPLICAS = "transactional", "compacted", "one replica", "two replicas"
CREATE_TIME, LOG_APPEND_TIME = "CreateTime", "LogAppendTime"
OURS, SNUBA = "arroyo_sync", "snuba"
ALL, RECENT, GROUP_OFFSETS = "all", "recent", "group offsets"


@dataclass(frozen=True)
class DataTopic:
    kind: str = "plain"
    """"plain", or one of `TRANSACTIONAL` (commits, aborts, two interleaved producers), `COMPACTED`, `ONE_REPLICA` and
    `TWO_REPLICAS`."""
    timestamps: str = CREATE_TIME
    clock: str = "right"
    """What producers write as the time: "right", "skewed" by hours, or "absurd" (1970, the year 5138)."""
    headers: int = 0
    """Of each message."""

    @property
    def has_gaps(self) -> bool:
        """Whether some offsets hold no message that a consumer gets."""
        return self.kind in (TRANSACTIONAL, COMPACTED)

    @property
    def replicas(self) -> int:
        return {ONE_REPLICA: 1, TWO_REPLICAS: 2}.get(self.kind, 3)

    @property
    def has_true_times(self) -> bool:
        """Whether a message's timestamp is about when it was written."""
        return self.timestamps == LOG_APPEND_TIME or self.clock == "right"


@dataclass(frozen=True)
class CommitLog:
    timestamps: str = CREATE_TIME
    partitions: int = 2
    is_shared: bool = False
    """With reports of other topics and groups, and with rubbish, all the time."""


@dataclass(frozen=True)
class Leader:
    group: str
    members: int
    publishes: str = OURS
    """`SNUBA`: Arroyo's codec, no topic id, no heartbeat, no report at the start, and not in order."""
    isolation: str = "read_committed"


@dataclass(frozen=True)
class Follower:
    group: str
    protocol: str
    reset: str = "earliest"
    source: str = ALL
    step_seconds: float = 0.0
    has_dead_letters: bool = False
    has_auto_commit: bool = False
    is_static: bool = False


@dataclass(frozen=True)
class Ingredients:
    data: DataTopic
    commit_log: CommitLog
    leaders: tuple[Leader, ...]
    followers: tuple[Follower, ...]

    @property
    def leader_groups(self) -> dict[str, int]:
        """By name, how many members."""
        return {leader.group: leader.members for leader in self.leaders}

    @property
    def follower_groups(self) -> tuple[str, ...]:
        return tuple(follower.group for follower in self.followers)

    @property
    def from_the_end(self) -> set[str]:
        """The follower groups that begin at the end of the topic."""
        return {follower.group for follower in self.followers if follower.reset == "latest"}

    @property
    def reports_have_ids(self) -> bool:
        """Whether every report names the topic that it is about."""
        return all(leader.publishes == OURS for leader in self.leaders)

    @property
    def tells_topics_apart(self) -> bool:
        """Whether an old report can be told from one of a new topic, however long that is. (FOLLOWERS.md says when
        not.) Where it can't, one of the same topic is suspect, too, until its group's commit reaches as far."""
        return self.reports_have_ids or self.data.has_true_times

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, ingredients: Mapping[str, Any]) -> Ingredients:
        return cls(
            DataTopic(**ingredients["data"]),
            CommitLog(**ingredients["commit_log"]),
            tuple(Leader(**each) for each in ingredients["leaders"]),
            tuple(Follower(**each) for each in ingredients["followers"]),
        )


PLAIN = Ingredients(
    DataTopic(),
    CommitLog(),
    (Leader("writer-a", 1), Leader("writer-b", 2)),
    (Follower("eager", "eager"), Follower("kip848", "kip848")),
)

WORLDS: Mapping[str, Ingredients] = {
    "plain": PLAIN,
    "transactional": replace(
        PLAIN,
        data=DataTopic(TRANSACTIONAL),
        leaders=tuple(replace(each, isolation="read_uncommitted") for each in PLAIN.leaders),
    ),
    "compacted": replace(PLAIN, data=DataTopic(COMPACTED)),
    "one replica": replace(PLAIN, data=DataTopic(ONE_REPLICA)),
    "two replicas": replace(PLAIN, data=DataTopic(TWO_REPLICAS)),
    "shared commit log": replace(PLAIN, commit_log=CommitLog(is_shared=True)),
    "snuba": replace(PLAIN, leaders=tuple(replace(each, publishes=SNUBA) for each in PLAIN.leaders)),
    "from the end": replace(PLAIN, followers=tuple(replace(each, reset="latest") for each in PLAIN.followers)),
}
"""Worlds with one ingredient each that isn't plain, by name: for a look at that one."""

KINDS = ("plain", TRANSACTIONAL, COMPACTED, ONE_REPLICA, TWO_REPLICAS, TRANSACTIONAL)
"""By turns, so that six seeds that follow each other have them all."""


def on_kafka(ingredients: Ingredients, version: str) -> Ingredients:
    """The same world on this Kafka: before 4.0 there is no KIP-848."""
    if jars.major(version) >= 4:
        return ingredients
    return replace(ingredients, followers=tuple(replace(each, protocol="eager") for each in ingredients.followers))


def draw(seed: int) -> Ingredients:
    """The ingredients of the run with this seed."""
    random = Random(f"ingredients {seed}")  # not the faults' sequence: they stay the same when an ingredient is added
    kind = KINDS[seed % len(KINDS)]
    data = DataTopic(
        kind,
        random.choice([CREATE_TIME, CREATE_TIME, LOG_APPEND_TIME]),
        random.choice(["right", "skewed", "absurd"]),
        random.choice([0, 1, 20]),
    )
    commit_log = CommitLog(random.choice([CREATE_TIME, LOG_APPEND_TIME]), random.randint(1, 4), random.random() < 0.6)
    reads = ["read_committed", "read_uncommitted"] if kind == TRANSACTIONAL else ["read_committed"]
    leaders = tuple(
        Leader(each.group, each.members, random.choice([OURS, OURS, SNUBA]), random.choice(reads))
        for each in PLAIN.leaders
    )
    followers = tuple(
        Follower(
            each.group,
            each.protocol,
            random.choice(["earliest", "latest"]),
            random.choice([ALL, ALL, RECENT, GROUP_OFFSETS]),
            random.choice([0.0, 0.0, 0.003]),
            random.random() < 0.4,
            random.random() < 0.3,
            random.random() < 0.3,
        )
        for each in PLAIN.followers
    )
    return Ingredients(data, commit_log, leaders, followers)
