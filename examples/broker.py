"""A broker for the other examples, where no Kafka is at hand: the quickstart's, with events on it, until Ctrl-C.

    python examples/broker.py

It prints its address for the variable KAFKA. Set that in another terminal, and run an example there. The broker is
librdkafka's mock cluster, which lives in this process: topics come into being when they are first asked for, with four
partitions each, and are gone at the end. It produces a few events a second to the topics that it is given.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from confluent_kafka import Producer
from demo.broker import TIMEOUT_SECONDS, embedded_broker

TOPICS = ("events", "snuba-commit-log")

EXPLANATION = """\
The broker listens until Ctrl-C, and {rate:g} events a second arrive in {topics}.
In other terminals, in this folder:

export KAFKA={address}
{python} {examples}/first_leader.py
{python} {examples}/first_follower.py

The follower will warn that its commit log has no LogAppendTime: this broker knows none.
"""


def produce(broker: Producer, topics: Sequence[str], rate: float, ended: threading.Event) -> None:
    """JSON objects with an id, to one topic after the other."""
    number = 0
    while not ended.wait(1 / rate):
        for topic in topics:
            broker.produce(topic, json.dumps({"id": number}), key=str(number))
        broker.poll(0)
        number += 1
    broker.flush(TIMEOUT_SECONDS)


def shown(path: Path) -> Path:
    """Seen from the working directory, if it lies below."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="A broker with events on it, for the other examples.")
    parser.add_argument("--rate", type=float, default=5.0, help="events a second (default: %(default)g)")
    parser.add_argument("--topic", action="append", help=f"where they go; may be given again (default: {TOPICS[0]})")
    options = parser.parse_args(arguments)
    if not options.rate > 0:
        parser.error(f"--rate must be more than 0, not {options.rate:g}")
    topics = options.topic or TOPICS[:1]
    ended = threading.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda *_: ended.set())
    broker, address = embedded_broker(*topics, *TOPICS)
    words = {"python": shown(Path(sys.executable)), "examples": shown(Path(__file__).resolve().parent)}
    print(EXPLANATION.format(rate=options.rate, topics=" and ".join(topics), address=address, **words), flush=True)
    produce(broker, topics, options.rate, ended)
    return 0


if __name__ == "__main__":
    sys.exit(main())
