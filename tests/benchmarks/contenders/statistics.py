"""What librdkafka says of itself: messages received from the broker, and those still prefetched."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

INTERVAL_MS = 200


class Statistics:
    """Keeps librdkafka's latest statistics. Written on the thread that polls the consumer, read by any.

    :param position: how many messages that thread has taken from the consumer, noted together with the statistics.
    """

    def __init__(self, position: Callable[[], int]) -> None:
        self._ask_position = position
        self._position = 0
        self.latest: dict[str, Any] = {}
        self.peak_queue_bytes = 0
        self._news = threading.Event()

    def settings(self) -> dict[str, Any]:
        """The consumer settings that make librdkafka report here."""
        return {"statistics.interval.ms": INTERVAL_MS, "stats_cb": self._take}

    def _take(self, text: str) -> None:
        self._position = self._ask_position()
        self.latest = json.loads(text)
        self.peak_queue_bytes = max(self.peak_queue_bytes, self._total("fetchq_size"))
        self._news.set()

    def _total(self, field: str) -> int:
        topics = self.latest.get("topics", {}).values()
        return sum(
            int(partition[field])
            for topic in topics
            for index, partition in topic["partitions"].items()
            if index != "-1"
        )

    def snapshot(self) -> dict[str, object]:
        """Fresh counts: waits for two reports, so that the later one covers what was received before the call."""
        for _ in range(2):
            self._news.clear()
            self._news.wait(10 * INTERVAL_MS / 1_000)
        return {
            "position": self._position,
            "rxmsgs": int(self.latest.get("rxmsgs", 0)),
            "rxmsg_bytes": int(self.latest.get("rxmsg_bytes", 0)),
            "prefetched": self._total("fetchq_cnt"),
            "prefetched_bytes": self._total("fetchq_size"),
            "peak_prefetched_bytes": self.peak_queue_bytes,
        }
