"""The README's tables that the code defines, as Markdown: ``python -m tests.support.readme_tables``."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Sequence

from arroyo_sync.gate.factory import SynchronizedStrategyFactory
from arroyo_sync.observe.metrics import METRICS
from arroyo_sync.status.arguments import parser


def metrics_table() -> str:
    """Every metric: name, kind, unit, tags, meaning."""
    rows = [
        (f"`{each.name}`", each.kind.name.lower(), each.unit, ", ".join(f"`{tag}`" for tag in each.tags), each.meaning)
        for each in METRICS
    ]
    return _table(("metric", "kind", "unit", "tags", "meaning"), rows)


def factory_defaults() -> dict[str, object]:
    """The keywords of the factory with their defaults."""
    parameters = inspect.signature(SynchronizedStrategyFactory.__init__).parameters.values()
    return {each.name: each.default for each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY}


def status_flags() -> str:
    """Every flag of ``arroyo-sync status``, as its help has it."""
    commands = next(each for each in parser(print)._actions if isinstance(each, argparse._SubParsersAction))
    rows = [
        (", ".join(f"`{flag}`" for flag in each.option_strings), each.help or "")
        for each in commands.choices["status"]._actions
        if each.dest != "help"
    ]
    return _table(("flag", "meaning"), rows)


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines: list[tuple[str, ...]] = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    print(metrics_table())
    print(status_flags())
    for name, default in factory_defaults().items():
        print(f"{name} = {default}")
