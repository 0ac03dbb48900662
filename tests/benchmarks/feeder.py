"""The leaders, played by one small process: it produces data and commit records, and notes when.

It reads a plan (JSON) from its first line of standard input and writes the records it published to a file, as rows of
``time_ns, partition, offset, step, tick``: the time just before ``produce`` was called, on the clock that all processes
of one machine share. It prints a line of JSON as each step begins, ``{"event": "step", ...}``, and one at the end.

A plan's ``steps`` are played in order:

``stream``
    data at ``rate`` messages a second over all partitions; every ``interval_seconds`` the leaders commit what was
    acknowledged and is at least ``lag_seconds`` old. It ends earlier when another line comes in.
``hold``
    ``messages`` per partition at once, silence for ``seconds``, then commits that release one message each,
    ``gap_seconds`` apart.
``advance``
    no data: the leaders go through what is there at ``rate`` messages a second until ``messages`` are committed.
``finish``
    the leaders commit all that was produced.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from array import array
from collections import deque
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaError, Message, Producer

from tests.benchmarks import commit_records
from tests.benchmarks.contenders.child import emit

DATA_TICK_SECONDS = 0.005
COMMIT_JITTER_SECONDS = 0.004
"""Each commit comes up to so much later than its turn, so that commits and data ticks don't keep in step."""


class Feeder:
    """Plays one plan. Single-threaded."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self.plan = plan
        self.random = random.Random(plan["seed"])
        self.topic: str = plan["topic"]
        self.partitions: int = plan["partitions"]
        self.moving = [p for p in range(self.partitions) if p not in plan.get("stopped", [])]
        servers = {"bootstrap.servers": plan["bootstrap_servers"]}
        self.data = Producer({**servers, "linger.ms": 2, "queue.buffering.max.messages": 1_000_000})
        self.log = Producer({**servers, "linger.ms": 0})
        self.payload = b"x" * plan["payload_bytes"]
        start = plan.get("start", [0] * self.partitions)
        self.produced = list(start)
        self.acknowledged = list(start)
        self.published = [0] * self.partitions
        self.rows = array("q")
        self.step = 0
        self.tick = 0
        self.is_told_to_end = threading.Event()
        """Ends a ``stream``."""

    def play(self) -> None:
        """Play all steps, then wait until everything has arrived at the broker."""
        self.log.list_topics(self.plan["commit_log_topic"], 10)
        self.data.list_topics(self.topic, 10)
        kinds = {"stream": self.stream, "hold": self.hold, "advance": self.advance, "finish": self.finish}
        for number, step in enumerate(self.plan["steps"]):
            self.step = number
            emit("step", number=number)
            kinds[step["kind"]](step)
        self._settle()

    def stream(self, step: dict[str, Any]) -> None:
        """See the module."""
        rate, interval, lag = step["rate"], step["interval_seconds"], step["lag_seconds"]
        begun = time.perf_counter()
        end = begun + step["seconds"]
        sent, next_data, turn = 0, begun, begun + interval
        next_commit = turn + self.random.uniform(0, COMMIT_JITTER_SECONDS)
        history: deque[tuple[float, list[int]]] = deque()
        ripe = list(self.published)
        while (now := time.perf_counter()) < end and not self.is_told_to_end.is_set():
            if now >= next_data:
                due = int((now - begun) * rate)
                for number in range(sent, due):
                    self._produce(number % self.partitions)
                sent = due
                self.data.poll(0)
                history.append((now, list(self.acknowledged)))
                next_data += DATA_TICK_SECONDS
            if now >= next_commit:
                while history and history[0][0] <= now - lag:
                    ripe = history.popleft()[1]
                self._commit(ripe)
                turn += interval
                next_commit = turn + self.random.uniform(0, COMMIT_JITTER_SECONDS)
            pause = min(next_data, next_commit, end) - time.perf_counter()
            if pause > 0:
                time.sleep(pause)

    def hold(self, step: dict[str, Any]) -> None:
        """See the module."""
        count = step["messages"]
        for partition in range(self.partitions):
            for _ in range(count):
                self._produce(partition)
        self._settle()
        time.sleep(step["seconds"])
        turns = self.moving * count
        self.random.shuffle(turns)
        for partition in turns:
            offsets = list(self.published)
            offsets[partition] += 1
            self._commit(offsets)
            time.sleep(step["gap_seconds"] * self.random.uniform(0.75, 1.25))

    def advance(self, step: dict[str, Any]) -> None:
        """See the module."""
        begun = time.perf_counter()
        base = list(self.published)
        done = 0
        while done < step["messages"]:
            time.sleep(step["interval_seconds"])
            done = min(step["messages"], int((time.perf_counter() - begun) * step["rate"]))
            share = done // len(self.moving)
            self._commit([min(base[p] + share, self.produced[p]) for p in range(self.partitions)])

    def finish(self, step: dict[str, Any]) -> None:
        """See the module."""
        self._settle()
        self._commit(self.acknowledged)

    def _produce(self, partition: int) -> None:
        self.data.produce(self.topic, self.payload, partition=partition, on_delivery=self._delivered)
        self.produced[partition] += 1

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        partition, offset = message.partition(), message.offset()
        if error is not None or partition is None or offset is None:
            raise RuntimeError(f"the broker refused a message: {error}")
        self.acknowledged[partition] = max(self.acknowledged[partition], offset + 1)

    def _commit(self, offsets: list[int]) -> None:
        """Publish the leaders' offsets of the partitions whose offset grew, one record each, all at once."""
        for partition in self.moving:
            offset = offsets[partition]
            if offset <= self.published[partition]:
                continue
            key, value = commit_records.encode(
                self.plan["record_format"], self.topic, partition, self.plan["leader_group"], offset
            )
            headers = commit_records.headers(self.plan["record_format"])
            now = time.perf_counter_ns()
            self.log.produce(self.plan["commit_log_topic"], value, key, 0, headers=headers)
            self.rows.extend((now, partition, offset, self.step, self.tick))
            self.published[partition] = offset
        self.tick += 1
        self.log.poll(0)

    def _settle(self) -> None:
        if self.data.flush(60) or self.log.flush(60):
            raise RuntimeError("the broker didn't take all messages within 60 s")


def main() -> None:
    """Play the plan on standard input."""
    plan = json.loads(sys.stdin.readline())
    feeder = Feeder(plan)

    def read_command() -> None:
        if sys.stdin.readline():
            feeder.is_told_to_end.set()

    threading.Thread(target=read_command, name="feeder-commands", daemon=True).start()
    feeder.play()
    Path(plan["out"]).write_bytes(feeder.rows.tobytes())
    emit("result", produced=feeder.produced, published=feeder.published)


if __name__ == "__main__":
    main()
