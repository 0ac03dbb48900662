"""What Arroyo's signal handlers raise: on the main thread, in the middle of whatever runs there, and once."""

from __future__ import annotations

from typing import Final

from arroyo.processing.strategies.run_task_with_multiprocessing import ChildProcessTerminated

INTERRUPTIONS: Final = (ChildProcessTerminated,)
"""A guard around others' code that runs on the processor's thread lets these out: ``except INTERRUPTIONS: raise``.

This one says that a worker of the pipeline's has died (``RunTaskWithMultiprocessing``), whose batch never comes. The
processor ends of it; kept from it, it would wait for that batch for ever.
"""
