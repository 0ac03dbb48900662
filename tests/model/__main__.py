"""Explore deeper than the test run does: ``python -m tests.model --deeper 2``. Exits with 1 if a promise was broken.

Each setup has a process of its own, as many at a time as there are cores.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from typing import Any

from tests.model import explore, leaders, owners
from tests.model.search import Search
from tests.model.setups import PLANS
from tests.model.world import models

SEARCHES: dict[str, tuple[Callable[[], Search[Any]], int]] = {
    **{name: (partial(explore.Explorer, plan.setup), plan.depth) for name, plan in PLANS.items()},
    **{name: (partial(leaders.Explorer, plan.setup), plan.depth) for name, plan in leaders.PLANS.items()},
    **{name: (partial(owners.Explorer, plan.setup), plan.depth) for name, plan in owners.PLANS.items()},
}
"""By name: how to begin, and how deep the test run goes."""

SMALL = {name for name, plan in PLANS.items() if plan.is_small}
"""Those of which every state is visited, however deep it is."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.model", description=__doc__)
    parser.add_argument("--deeper", type=int, default=2, help="how much deeper than the test run (default: 2)")
    parser.add_argument("--seconds", type=float, help="how long at most for each setup (default: until it is done)")
    parser.add_argument("--only", choices=SEARCHES, help="one setup", metavar="SETUP")
    options = parser.parse_args()

    is_broken = False
    with ProcessPoolExecutor(os.cpu_count()) as processes:
        names = SEARCHES if options.only is None else [options.only]
        explored = [processes.submit(run, name, options.deeper, options.seconds) for name in names]
        for each in as_completed(explored):
            text, has_violations = each.result()
            is_broken |= has_violations
            print(text, flush=True)
    return 1 if is_broken else 0


def run(name: str, deeper: int, seconds: float | None) -> tuple[str, bool]:
    """What to tell of one setup, and whether a promise was broken."""
    logging.disable(logging.CRITICAL)
    make, depth = SEARCHES[name]
    search, begin = make(), time.monotonic()
    with models(), owners.no_threads():
        search.explore(sys.maxsize if name in SMALL else depth + deeper, seconds)
    lines = [f"{name}: {search} in {time.monotonic() - begin:.0f} s"]
    for path, violations in search.violations:
        lines += [f"    {each}" for each in (*path, *violations)]
    return "\n".join(lines), bool(search.violations)


if __name__ == "__main__":
    sys.exit(main())
