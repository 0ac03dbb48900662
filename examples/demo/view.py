"""What the demo shows: a live table on a terminal, plain lines elsewhere, and the summary."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import floor
from typing import Protocol

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from demo.journal import Stop, Verdict, partitions

PLAIN_SECONDS = 1.0
"""How often the plain view prints."""
STATE_STYLES = {
    "unknown": "dim",
    "local behind": "green",
    "synchronized": "cyan",
    "remote behind": "bold red",
}
BAR_COLUMNS = 24
WIDE_COLUMNS = 104


@dataclass(frozen=True)
class Row:
    """One partition at one moment. Offsets are *next* offsets; ``None`` is unknown."""

    partition: int
    high_watermark: int
    published: Sequence[int | None]
    """By each leader group, in their order."""
    remote: int | None
    local: int | None
    held: int
    state: str
    is_stopped: bool
    """Its leader stands still."""

    def waits_for(self, groups: Sequence[str]) -> str | None:
        """The leader group that held messages wait for: the one that has published least. ``None``: none wait."""
        if not self.held or (self.remote is not None and self.local is not None and self.local < self.remote):
            return None
        published = zip(groups, self.published, strict=True)
        return min(published, key=lambda each: -1 if each[1] is None else each[1], default=(None, None))[0]


@dataclass(frozen=True)
class Picture:
    """Everything at one moment."""

    elapsed: float
    total: float
    produced: int
    released: int
    note: str
    rows: Sequence[Row]


class View(Protocol):
    def show(self, picture: Picture) -> None: ...


@contextmanager
def open_view(console: Console, groups: Sequence[str]) -> Iterator[View]:
    """The live table if there is a terminal, else plain lines."""
    if not console.is_terminal:
        yield _PlainView(console, groups)
        return
    with Live(console=console, auto_refresh=False, transient=False) as live:
        yield _LiveView(live, console, groups)


class _PlainView:
    def __init__(self, console: Console, groups: Sequence[str]) -> None:
        self._console = console
        self._groups = groups
        self._due_at = 0.0

    def show(self, picture: Picture) -> None:
        if picture.elapsed < self._due_at:
            return
        self._due_at = floor(picture.elapsed / PLAIN_SECONDS + 1) * PLAIN_SECONDS
        lines = [
            f"{picture.elapsed:5.1f} s  produced {picture.produced}  released {picture.released}  {picture.note}",
            *(self._line(row) for row in picture.rows),
        ]
        self._console.print("\n".join(lines), soft_wrap=True)

    def _line(self, row: Row) -> str:
        leaders = "  ".join(
            f"{group} {_number(offset):>5}" for group, offset in zip(self._groups, row.published, strict=True)
        )
        group = row.waits_for(self._groups)
        return (
            f"         partition {row.partition:<2}  high watermark {row.high_watermark:>5}  {leaders}  "
            f"remote {_number(row.remote):>5}  local {_number(row.local):>5}  held {row.held:>4}  "
            f"{row.state if group is None else f'waits for {group}'}"
        )


class _LiveView:
    def __init__(self, live: Live, console: Console, groups: Sequence[str]) -> None:
        self._live = live
        self._console = console
        self._groups = groups
        self._most_held = 1

    def show(self, picture: Picture) -> None:
        note = Text(f" {picture.note}", style="bold yellow" if any(row.is_stopped for row in picture.rows) else "dim")
        panel = Panel(
            Group(self._progress(picture), self._table(picture), note),
            title="[bold]arroyo_sync[/]  an event passes when every leader has committed it",
            title_align="left",
            border_style="blue",
            box=box.ROUNDED,
            padding=(0, 1),
            expand=False,
        )
        self._live.update(panel, refresh=True)

    def _progress(self, picture: Picture) -> Table:
        elapsed = min(picture.elapsed, picture.total)
        line = Table.grid(padding=(0, 3, 0, 0))
        line.add_row(
            ProgressBar(picture.total, elapsed, width=20, style="dim", complete_style="blue", finished_style="blue"),
            Text(f"{elapsed:4.1f} of {picture.total:g} s"),
            Text.assemble((f"{picture.produced:,}", "bold"), " produced"),
            Text.assemble((f"{picture.released:,}", "bold green"), " released"),
        )
        return line

    def _table(self, picture: Picture) -> Table:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
        is_wide = self._console.width >= WIDE_COLUMNS
        table.add_column("parti-\ntion", justify="right", no_wrap=True)
        table.add_column("high\nwatermark", justify="right", no_wrap=True)
        for group in self._groups:
            table.add_column(group.replace("-", "-\n", 1), justify="right", no_wrap=True)
        table.add_column("remote\noffset", justify="right", no_wrap=True)
        table.add_column("local\noffset", justify="right", no_wrap=True)
        table.add_column("\nheld", justify="right", no_wrap=True)
        if is_wide:
            table.add_column("", width=BAR_COLUMNS)
        table.add_column("state, or\nwaits for", min_width=13)
        self._most_held = max([self._most_held, *(row.held for row in picture.rows)])
        for row in picture.rows:
            bar = [self._bar(row)] if is_wide else []
            table.add_row(
                str(row.partition),
                f"{row.high_watermark:,}",
                *(self._published(row, offset) for offset in row.published),
                Text(_number(row.remote), style="bold"),
                Text(_number(row.local), style="bold"),
                Text(f"{row.held:,}", style="yellow" if row.is_stopped else ""),
                *bar,
                self._state(row),
            )
        return table

    def _state(self, row: Row) -> Text:
        """Or for whom it waits: "synchronized" alone would look well beside held messages."""
        group = row.waits_for(self._groups)
        if group is None:
            return Text(row.state, style=STATE_STYLES.get(row.state, ""))
        return Text(group, style="bold yellow" if row.is_stopped else "yellow")

    def _published(self, row: Row, offset: int | None) -> Text:
        """The slowest leader's offset stands out: it is the one that counts."""
        is_slowest = offset is not None and offset == row.remote and offset < row.high_watermark
        return Text(_number(offset), style="yellow" if is_slowest and row.is_stopped else "")

    def _bar(self, row: Row) -> Text:
        length = round(BAR_COLUMNS * row.held / self._most_held) or (1 if row.held else 0)
        return Text("━" * length, style="yellow" if row.is_stopped else "blue")


def print_summary(console: Console, verdict: Verdict) -> None:
    """The counts, each with whether its promise was kept."""
    lines = [
        _line("", "produced", verdict.produced, ""),
        _line("", "released", verdict.released, ""),
        _line("ok", "released early", verdict.early, "by what the leaders had published at that moment"),
        _line("ok", "lost", verdict.lost, "produced, but never released"),
        _line("ok", "out of order", verdict.out_of_order, "within a partition"),
    ]
    p50, p99 = verdict.latency_ms(0.5), verdict.latency_ms(0.99)
    if p50 is not None and p99 is not None:
        lines.append(f"        release latency  p50 {p50:.1f} ms, p99 {p99:.1f} ms  [dim]after the last record[/]")
    if verdict.stop is not None:
        lines += ["", _waits(verdict, verdict.stop)]
    lines.append("")
    lines += [f"[bold red]BROKEN[/]  {broken}" for broken in verdict.broken]
    if not verdict.broken:
        lines.append("[bold green]Every promise was kept.[/]")
    console.print("\n" + "\n".join(lines), soft_wrap=True)


def _line(mark: str, name: str, count: int, meaning: str) -> str:
    if mark:
        mark = "[bold red]BROKEN[/]  " if count else "[green]ok[/]      "
    return f"{mark or ' ' * 8}{name:<15}{count:>7,}" + (f"  [dim]{meaning}[/]" if meaning else "")


def _waits(verdict: Verdict, stop: Stop) -> str:
    stopped = [wait for partition, wait in verdict.waits.items() if partition in stop.partitions]
    others = {partition: wait for partition, wait in verdict.waits.items() if partition not in stop.partitions}
    text = (
        f"While {stop.who} stood still for {stop.ended_at - stop.began_at:.1f} s, {partitions(stop.partitions)} "
        f"waited for {max(stopped, default=0.0):.1f} s"
    )
    if others:
        text += f",\nand {partitions(others)} never for more than {max(others.values()):.1f} s"
    return f"{text}."


def _number(offset: int | None) -> str:
    return "-" if offset is None else f"{offset:,}"
