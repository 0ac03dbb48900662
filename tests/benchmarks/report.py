"""The table in the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from tests.benchmarks.targets import TARGETS


def render(document: dict[str, Any], console: Console) -> None:
    """Print the summary beside its targets, and what was broken."""
    table = Table("number", "measured", "target", "", title="summary (medians)")
    for name, value in document["summary"].items():
        target = TARGETS.get(name)
        met = "" if target is None or value is None else ("ok" if target.is_met(value) else "[red]missed")
        table.add_row(name, "-" if value is None else f"{value:.4g}", str(target or ""), met)
    console.print(table)
    for each in document["broken"]:
        console.print(f"broken: {each}", style="red", markup=False)
