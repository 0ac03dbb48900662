"""What the gate's own clients send and receive, by librdkafka's statistics.

The package hands no statistics on, so the making of its clients is changed, in this process.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

INTERVAL_MS = 500


class Traffic:
    """Keeps the statistics of each kind of client. They are taken on the threads that poll the clients."""

    def __init__(self) -> None:
        self._taken: dict[str, list[dict[str, Any]]] = {"reader": [], "asker": []}

    def install(self) -> None:
        """Watch every client that is made from now on."""
        from arroyo_sync.kafka import making_clients
        from arroyo_sync.leaders.commit_log import consumer

        make = making_clients.make_client
        for module, kind in ((consumer, "reader"), (making_clients, "asker")):  # there `LazyClient` makes it
            vars(module)["make_client"] = self._watched(make, kind)

    def _watched(self, make: Callable[..., Any], kind: str) -> Callable[..., Any]:
        taken = self._taken[kind]

        def make_client(client: Any, settings: dict[str, Any]) -> Any:
            statistics = {
                "statistics.interval.ms": INTERVAL_MS,
                "stats_cb": lambda text: taken.append(json.loads(text)),
            }
            return make(client, {**settings, **statistics})

        return make_client

    def snapshot(self, skip_seconds: float) -> dict[str, Any]:
        """Rates a second of each kind of client, without what was before so many seconds had passed."""
        found: dict[str, Any] = {}
        for kind, taken in self._taken.items():
            if not taken:
                continue
            last = taken[-1]
            first = next((each for each in taken if each["ts"] - taken[0]["ts"] >= skip_seconds * 1e6), last)
            seconds = (last["ts"] - first["ts"]) / 1e6
            if not seconds:
                continue
            rates = {name: (last[name] - first[name]) / seconds for name in ("tx", "tx_bytes", "rx_bytes")}
            by_kind = {name: count - _requests(first).get(name, 0) for name, count in _requests(last).items()}
            found[kind] = {
                "requests_a_second": rates["tx"],
                "sent_bytes_a_second": rates["tx_bytes"],
                "received_bytes_a_second": rates["rx_bytes"],
                "requests_by_kind": {name: count / seconds for name, count in by_kind.items() if count},
                "seconds": seconds,
            }
        return found


def _requests(statistics: dict[str, Any]) -> dict[str, int]:
    """How often each kind was sent, to all brokers together."""
    counts: dict[str, int] = {}
    for broker in statistics["brokers"].values():
        for name, count in broker["req"].items():
            counts[name] = counts.get(name, 0) + count
    return counts
