"""See it work: a producer, two leader groups that commit at different speeds, and a follower behind the gate.

    python examples/quickstart.py                              with a broker inside this process
    python examples/quickstart.py --bootstrap-servers $KAFKA   on a cluster, with topics of its own

In the middle one leader stands still for two seconds, and only its partitions wait. At the end everything is counted:
each release is held against what the leaders had really published at that moment. The exit status is 1 if a promise was
broken, and 2 if the demo could not run.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager

from demo.broker import EMBEDDED_PARTITIONS, BrokerError, Stage, embedded, on_cluster
from demo.journal import Journal, Stop, Verdict, judge, partitions
from demo.pipelines import Follower, Leader, Pipeline, Traffic
from demo.view import Picture, Row, View, open_view, print_summary
from rich.console import Console
from rich.logging import RichHandler

from arroyo_sync import Offsets, SynchronizedPartitionState, tune_interpreter

FAST, SLOW = "fast-writer", "slow-writer"
FAST_SECONDS, SLOW_SECONDS = 0.05, 0.25
"""How often each leader group publishes."""
STAND_STILL_SECONDS = 2.0
READY_SECONDS = 60.0
"""How long the pipelines may take to get their partitions."""
DRAIN_SECONDS = 15.0
"""How long the follower may go without a release when all was produced, before the rest counts as lost."""
FRAME_SECONDS = 0.1


class DemoError(Exception):
    """A pipeline ended, or never began; the message says which."""


class StandStill:
    """Has a leader stand still for a while, once."""

    def __init__(self, leaders: Sequence[Leader], begins_at: float) -> None:
        self._leaders = leaders
        self._begins_at = begins_at
        self._leader: Leader | None = None
        self._began_at = 0.0
        self.stop: Stop | None = None
        """What to judge the others by, once it is over."""

    @property
    def partitions(self) -> frozenset[int]:
        """Of the leader that stands still now."""
        return self._leader.partitions if self._leader is not None else frozenset()

    @property
    def note(self) -> str:
        if self._leader is None:
            return "all leaders run"
        return f"{self._leader.name} stands still: {partitions(self.partitions)} must wait, the others flow"

    def step(self, now: float) -> None:
        if self._leader is None and self.stop is None and now >= self._begins_at:
            self._leader = min(
                (each for each in self._leaders if each.partitions), key=lambda each: len(each.partitions)
            )
            self._leader.stand_still()
            self._began_at = now
        elif self._leader is not None and now >= self._began_at + STAND_STILL_SECONDS:
            self.stop = Stop(self._leader.name, self.partitions, self._began_at, now)
            self.end()

    def end(self) -> None:
        if self._leader is not None:
            self._leader.go_on()
            self._leader = None


class Demo:
    """All pipelines on one stage."""

    def __init__(self, stage: Stage, view: View, rate: float, seconds: float, interrupted: threading.Event) -> None:
        self._stage = stage
        self._view = view
        self._seconds = seconds
        self._interrupted = interrupted
        self._elapsed = 0.0
        self._journal = Journal([FAST, SLOW])
        self._slow = [Leader(stage, self._journal, SLOW, member, interval=SLOW_SECONDS) for member in (1, 2)]
        self._leaders = [Leader(stage, self._journal, FAST, 1, interval=FAST_SECONDS), *self._slow]
        self._follower = Follower(stage, self._journal)
        self._traffic = Traffic(stage, self._journal, rate)
        self._pipelines: list[Pipeline] = [self._traffic, self._follower, *self._leaders]
        self._stand_still = StandStill(self._slow, float("inf"))

    def run(self) -> Verdict:
        """Everything, from the first assignment to the last release. An interruption ends the traffic early.

        :raises DemoError: a pipeline failed.
        """
        try:
            # A group's members join one after the other, and commits in between are refused and tried again, in words.
            logging.getLogger().setLevel(logging.ERROR)
            for pipeline in self._pipelines[1:]:
                pipeline.start()
            is_assigned = self._wait_until_assigned()
            logging.getLogger().setLevel(logging.WARNING)
            if is_assigned:
                self._produce()
                self._drain()
                self._check()
        finally:
            self._end()
        return judge(self._journal, self._stand_still.stop)

    def _wait_until_assigned(self) -> bool:
        gives_up_at = time.monotonic() + READY_SECONDS
        while not self._interrupted.wait(FRAME_SECONDS):
            self._check()
            self._show(0.0, "the pipelines join their groups ...")
            if self._is_assigned():
                return True
            if time.monotonic() > gives_up_at:
                raise DemoError(f"the pipelines got no partitions within {READY_SECONDS:g} seconds")
        return False

    def _is_assigned(self) -> bool:
        """Each group has all partitions, and both members of the slow one have some."""
        everything = frozenset(range(self._stage.partitions))
        one, other = (leader.partitions for leader in self._slow)
        is_shared = bool(one and other) or len(everything) == 1
        is_covered = one | other == self._leaders[0].partitions == everything and not one & other
        return is_covered and is_shared and self._follower.is_assigned

    def _produce(self) -> None:
        began_at = time.monotonic()
        self._stand_still = StandStill(self._slow, began_at + max(0.0, self._seconds - STAND_STILL_SECONDS) / 2)
        self._traffic.start()
        while (elapsed := time.monotonic() - began_at) < self._seconds and not self._interrupted.is_set():
            self._check()
            self._stand_still.step(began_at + elapsed)
            self._show(elapsed, self._stand_still.note)
            self._interrupted.wait(FRAME_SECONDS)
        self._stand_still.end()
        self._elapsed = min(elapsed, self._seconds)
        self._traffic.stop()
        self._traffic.join(DRAIN_SECONDS)

    def _drain(self) -> None:
        """Wait until the follower has got everything, or nothing comes any more."""
        released, gives_up_at = -1, 0.0
        while (now := self._journal.count_released()) < self._journal.count_produced():
            self._check()
            if now > released:
                released, gives_up_at = now, time.monotonic() + DRAIN_SECONDS
            elif time.monotonic() > gives_up_at:
                break
            self._show(self._elapsed, "all is produced, the rest is being released")
            time.sleep(FRAME_SECONDS / 10)
        self._show(self._elapsed, "done")

    def _end(self) -> None:
        # Arroyo's last commit is refused when the group's other member leaves at that moment. It matters no more.
        logging.getLogger("arroyo").setLevel(logging.CRITICAL)
        for pipeline in self._pipelines:
            pipeline.stop()
        for pipeline in self._pipelines:
            pipeline.join(DRAIN_SECONDS)

    def _check(self) -> None:
        for pipeline in self._pipelines:
            if pipeline.error is not None:
                error = pipeline.error.__cause__ or pipeline.error
                raise DemoError(f"{pipeline.name} failed: {type(error).__name__}: {error}") from pipeline.error

    def _show(self, elapsed: float, note: str) -> None:
        journal, factory = self._journal, self._follower.factory
        rows = []
        for partition in range(self._stage.partitions):
            key = self._stage.events, partition
            state, offsets = factory.manager.partitions.get(
                key, (SynchronizedPartitionState.UNKNOWN, Offsets(None, None))
            )
            row = Row(
                partition=partition,
                high_watermark=journal.high_watermark(partition),
                published=[journal.published_offset(group, partition) for group in journal.groups],
                remote=offsets.remote,
                local=offsets.local,
                held=factory.held.get(key, 0),
                state=state.value,
                is_stopped=partition in self._stand_still.partitions,
            )
            rows.append(row)
        counts = journal.count_produced(), journal.count_released()
        self._view.show(Picture(elapsed, self._seconds, *counts, note, rows))


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="A producer, two leader groups and a follower behind the gate, for about ten seconds.",
        epilog="The exit status is 1 if a promise was broken, and 2 if the demo could not run.",
    )
    parser.add_argument("--bootstrap-servers", help="run on this cluster, not on a broker inside this process")
    parser.add_argument("--seconds", type=_positive, default=10.0, help="for how long to produce (default: 10)")
    parser.add_argument("--rate", type=_positive, default=400.0, help="events a second (default: 400)")
    parser.add_argument("--partitions", type=int, help=f"of the events topic (default: {EMBEDDED_PARTITIONS})")
    options = parser.parse_args(arguments)
    if options.partitions is not None and options.partitions < 1:
        parser.error(f"--partitions must be at least 1, not {options.partitions}")
    if options.bootstrap_servers is None and options.partitions not in (None, EMBEDDED_PARTITIONS):
        parser.error(
            f"--partitions needs --bootstrap-servers: the embedded broker always has {EMBEDDED_PARTITIONS} partitions"
        )
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    console = Console(highlight=False)
    handler = RichHandler(console=console) if console.is_terminal else logging.StreamHandler()
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])
    tune_interpreter()
    interrupted = threading.Event()

    def interrupt(signum: int, frame: object) -> None:
        if interrupted.is_set():
            raise KeyboardInterrupt
        interrupted.set()

    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)
    stage: AbstractContextManager[Stage] = embedded()
    if options.bootstrap_servers is not None:
        stage = on_cluster(options.bootstrap_servers, options.partitions or EMBEDDED_PARTITIONS)
    else:
        # The embedded broker's topics have four partitions and the writers' timestamps, the commit log too.
        handler.addFilter(lambda record: "message.timestamp.type=CreateTime" not in record.getMessage())
    try:
        with stage as ready, open_view(console, [FAST, SLOW]) as view:
            verdict = Demo(ready, view, options.rate, options.seconds, interrupted).run()
    except (BrokerError, DemoError) as error:
        print(f"quickstart: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    print_summary(console, verdict)
    return 1 if verdict.broken else 0


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be more than 0, not {text}")
    return value


if __name__ == "__main__":
    sys.exit(main())
