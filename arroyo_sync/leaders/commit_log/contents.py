"""What a commit log holds, as far as it helps to find a wrong name: who publishes on it, and whether it is one at all.

Not thread-safe: for the reading thread. `LogContents.groups` and `LogContents.is_foreign` may be read by any.
"""

from __future__ import annotations

from collections.abc import Iterable

from arroyo_sync.core.errors import MalformedRecord
from arroyo_sync.core.log_guard import guarded_logger
from arroyo_sync.leaders.commit_log.record import decode_key, is_key

logger = guarded_logger(__name__)

JUDGED_RECORDS = 1_000
"""After how many records without a commit record among them the topic is called no commit log."""
LEAST_RECORDS = 10
"""With how many it is called so when there are no more of them."""
MAX_NAMES = 20
"""How many names are kept, of groups and of topics each."""
MAX_NAME_LENGTH = 100
KEYS_PER_BATCH = 100
"""How many keys of a batch are looked at for names: at most a tenth of a millisecond."""


class LogContents:
    """The names on a commit log.

    :param name: of the commit log, for log lines.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._topics: dict[str, None] = {}
        # As they stand in keys: mostly all are known.
        self._known_groups: set[bytes] = set()
        self._known_topics: set[bytes] = set()
        self._judged = 0
        self.groups: tuple[str, ...] = ()
        """The first groups that were seen, whether they are followed or not. Replaced whole."""
        self.is_foreign = False
        """Whether none of the first records is a commit record."""
        self._is_judged = False

    def update(self, keys: Iterable[bytes | None]) -> None:
        """Take in the names of these keys, each given once."""
        if len(self.groups) >= MAX_NAMES and len(self._topics) >= MAX_NAMES:
            return
        for key, _ in zip(keys, range(KEYS_PER_BATCH), strict=False):
            topic, _, rest = (key or b"").partition(b":")
            if topic not in self._known_topics or rest.partition(b":")[2] not in self._known_groups:
                self._add(key)

    def _add(self, key: bytes | None) -> None:
        try:
            commit_key = decode_key(key)
        except MalformedRecord:
            return
        group, topic = commit_key.group[:MAX_NAME_LENGTH], commit_key.topic[:MAX_NAME_LENGTH]
        if group not in self.groups and len(self.groups) < MAX_NAMES:
            self.groups = (*self.groups, group)
            self._known_groups.add(group.encode())
        if topic not in self._topics and len(self._topics) < MAX_NAMES:
            self._topics[topic] = None
            self._known_topics.add(topic.encode())

    def judge(self, keys: Iterable[bytes | None]) -> None:
        """Look for a commit record among the first records of the log, and say so if there is none."""
        if self._is_judged:
            return
        for key in keys:
            if is_key(key):
                self._is_judged = True
                if self.is_foreign:
                    self.is_foreign = False
                    logger.warning("Topic %s is a commit log: a commit record has come after all", self._name)
                return
            self._judged += 1
            if self._judged >= JUDGED_RECORDS:
                self.conclude()
                return

    def conclude(self) -> None:
        """All records that there are have been read."""
        if self._is_judged or self._judged < LEAST_RECORDS:
            return
        self._is_judged = self._judged >= JUDGED_RECORDS
        if not self.is_foreign:
            self.is_foreign = True
            logger.error(
                "Topic %s is no commit log: none of the first %s records is a commit record, whose key would be "
                "topic:partition:group. Nothing is released. Was another topic's name given by mistake?",
                self._name,
                f"{self._judged:,}",
            )

    def __str__(self) -> str:
        """Who publishes of what, for a log line."""
        if not self.groups:
            return "no group publishes on it"
        return f"groups seen: {_listed(self.groups)}; of topics: {_listed(self._topics)}"


def _listed(names: Iterable[str]) -> str:
    listed = [repr(name) for name in sorted(names)]
    return ", ".join(listed) + (" and maybe more" if len(listed) >= MAX_NAMES else "")
