"""A process whose wall clock is wrong: imported before all else, it shifts Python's by what the environment says.

Its monotonic clock is everybody's, as on a real machine with a wrong date. The records that it produces carry its time.
(Debian's libfaketime 0.9.10 doesn't serve: under it Python's ``time.sleep`` raises EINVAL, and no broker is reached.)
"""

from __future__ import annotations

import os
import time
from typing import Any

import confluent_kafka
from confluent_kafka import Producer

SHIFT_VARIABLE = "CHAOS_CLOCK_SHIFT_SECONDS"


class StampingProducer(Producer):
    """One that writes Python's time where librdkafka would write the machine's."""

    def produce(self, *arguments: Any, **more: Any) -> None:
        super().produce(*arguments, **{"timestamp": int(time.time() * 1000), **more})


def shift_from_environment() -> None:
    """For good, if the environment says so. Whoever has kept ``time.time`` before keeps the right one."""
    seconds = float(os.environ.get(SHIFT_VARIABLE, "0"))
    if not seconds:
        return
    right = time.time
    time.time = lambda: right() + seconds
    vars(confluent_kafka)["Producer"] = StampingProducer


shift_from_environment()
