"""Explore deeper than the test run does: ``python -m tests.model --deeper 1``. Exits with 1 if a promise was broken."""

from __future__ import annotations

import argparse
import logging
import sys
import time

from tests.model import leaders, owners
from tests.model.explore import Explorer
from tests.model.search import Search
from tests.model.setups import PLANS
from tests.model.world import models


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.model", description=__doc__)
    parser.add_argument("--deeper", type=int, default=1, help="how much deeper than the test run (default: 1)")
    parser.add_argument("--seconds", type=float, help="how long at most for each setup (default: until it is done)")
    parser.add_argument("--only", help="one setup: " + ", ".join([*PLANS, *leaders.PLANS, *owners.PLANS]))
    options = parser.parse_args()

    searches: dict[str, tuple[Search[object], int]] = {}
    for name, plan in PLANS.items():
        searches[name] = Explorer(plan.setup), plan.depth  # type: ignore[assignment]
    for name, leaders_plan in leaders.PLANS.items():
        searches[name] = leaders.Explorer(leaders_plan.setup), leaders_plan.depth  # type: ignore[assignment]
    for name, owners_plan in owners.PLANS.items():
        searches[name] = owners.Explorer(owners_plan.setup), owners_plan.depth  # type: ignore[assignment]

    is_broken = False
    with models(), owners.no_threads():
        for name, (search, depth) in searches.items():
            if options.only not in (None, name):
                continue
            begin = time.monotonic()
            search.explore(depth + options.deeper, options.seconds)
            print(f"{name}: {search} in {time.monotonic() - begin:.0f} s", flush=True)
            for path, violations in search.violations:
                is_broken = True
                print(*path, *violations, sep="\n    ")
    return 1 if is_broken else 0


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    sys.exit(main())
