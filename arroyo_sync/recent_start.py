"""A start that reads only the end of the commit log, and takes the leader groups' commits for the rest.

Why this is safe
    The order is: (1) ask where the commit log ends, E, and where the records of the last ``lookback_seconds`` begin, S,
    which is never past E; (2) ask the brokers for the leader groups' committed offsets, C; (3) read from S on, and once
    E is passed, take C for the groups and partitions of which no record was read. A record always takes the place of C.

    - Whatever a leader publishes after (2) lies at or past E, so past S: it is read, and counts. So a leader that goes
      back after its C was read shuts the gate as soon as its record arrives, just as for a reader that has read all.
    - Where C is used, the leader has published nothing for ``lookback_seconds``: it has committed nothing new for that
      long. The broker's copy lags behind by the leader's commit policy, a second or so, and has caught up long since.
      So C is what the leader published last. If the leader's publishing failed, C is later; but then, too, the leader
      has done the work below C before it committed it.
    - Timestamps that are wrong only move S. Wherever it lies up to E, the two points above hold.

    They need that C is the leaders' own: read from the cluster where they commit, under the names that they publish.
    Only the user knows that, so the default is to read all. If nothing can be seen of a group, all is read, too.

Threads: for the reading thread. It blocks, for at most `COMMITTED_TIMEOUT_SECONDS` and a little more.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from confluent_kafka import Consumer, KafkaException
from confluent_kafka.admin import AdminClient

from arroyo_sync.client_settings import admin_settings, servers_of
from arroyo_sync.commit_log_topic import ask_starts
from arroyo_sync.committed_offsets import CommittedOffsets
from arroyo_sync.replay import Span
from arroyo_sync.state import PartitionKey

logger = logging.getLogger(__name__)

ASK_TIMEOUT_SECONDS = 1.0
COMMITTED_TIMEOUT_SECONDS = 10.0


class RecentStart(NamedTuple):
    """What to read, and what to take for the groups and partitions of which that tells nothing."""

    spans: Mapping[int, Span]
    committed: list[tuple[PartitionKey, str, int]]


def plan_recent_start(
    consumer: Consumer,
    topic: str,
    spans: Mapping[int, Span],
    since_ms: int,
    groups: Collection[str],
    data_configuration: Mapping[str, Any],
) -> RecentStart | None:
    """Ask for S and then for C.

    :param spans: all partitions of the commit log, with their ends E.
    :param since_ms: when the records to be read begin, Unix milliseconds.
    :returns: ``None`` if nothing can be seen of a group's commits.
    :raises KafkaException: the commit log's brokers didn't answer for every partition.
    """
    recent = ask_starts(consumer, topic, spans, since_ms, ASK_TIMEOUT_SECONDS)
    answers = CommittedOffsets(AdminClient(admin_settings(data_configuration))).ask(groups, COMMITTED_TIMEOUT_SECONDS)
    committed: list[tuple[PartitionKey, str, int]] = []
    for group, answer in answers.items():
        if isinstance(answer, KafkaException) or not answer:
            logger.warning(
                "Commit log %s is read from its beginning, since the commits of group %r can't be seen at %s: %s",
                topic,
                group,
                servers_of(data_configuration),
                answer.args[0].str() if isinstance(answer, KafkaException) else "it has none there",
            )
            return None
        committed += [(key, group, offset) for key, offset in answer.items()]
    return RecentStart(recent, committed)
