"""The busy floor: the floor in a process that has a follower's work to do beside it.

A bare consumer of the commit log on one thread, and on another Arroyo's pipeline over the data topic, with no gate
between them: what a gate can't do without, and nothing that it adds.
"""

from __future__ import annotations

import threading

from arroyo.processing import StreamProcessor
from arroyo.types import Topic

from arroyo_sync import tune_interpreter
from tests.benchmarks.contenders.child import main
from tests.benchmarks.contenders.floor import Floor
from tests.benchmarks.contenders.pipeline import FollowerFactory, data_consumer
from tests.benchmarks.contenders.recorder import TimedRecorder

ASSIGNED_SECONDS = 30.0


class BusyFloor(Floor):
    """The records that come are its deliveries; what the pipeline delivers isn't asked for."""

    def run(self) -> None:
        """See `Contender`."""
        config = self.config
        tune_interpreter()
        assigned = threading.Event()
        self._delivered = TimedRecorder(config["capacity"])
        factory = FollowerFactory(self._delivered, None, lambda partitions: assigned.set())
        processor = StreamProcessor(data_consumer(config), Topic(config["topic"]), factory)
        failures: list[BaseException] = []

        def follow() -> None:
            try:
                processor.run()
            except BaseException as exc:
                failures.append(exc)
                self.stop()

        thread = threading.Thread(target=follow, name="busy-floor-pipeline")
        thread.start()
        if not assigned.wait(ASSIGNED_SECONDS):
            failures.append(RuntimeError(f"the pipeline had no partitions within {ASSIGNED_SECONDS:g} s"))
        else:
            super().run()
        processor.signal_shutdown()
        thread.join()
        if failures:
            raise failures[0]

    def messages(self) -> int:
        """See `Contender`."""
        return self._delivered.count


if __name__ == "__main__":
    main(BusyFloor)
