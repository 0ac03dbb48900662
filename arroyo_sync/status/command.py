"""The command line: ``arroyo-sync``, or ``python -m arroyo_sync``.

Guarantees
    - The exit status is 1 for nothing but what stands still. Whatever else keeps the command from telling is 2, and one
      line on standard error; the traceback comes with ``--debug`` alone.
    - No password is in what it says.
"""

from __future__ import annotations

import argparse
import errno
import io
import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from shutil import get_terminal_size
from types import ModuleType
from typing import Any

from confluent_kafka import KafkaException

from arroyo_sync.core.errors import ArroyoSyncError, ConfigurationError, SourceDied
from arroyo_sync.kafka.errors import kafka_error_of
from arroyo_sync.kafka.redaction import keep_secrets, without_secrets
from arroyo_sync.leaders.commit_log.log_topic import WAIT_ADVICE
from arroyo_sync.status.answers.log_records import (
    Counted,
    Filter,
    GroupOnLog,
    LogRecord,
    groups_of,
    last_of,
    record_line,
)
from arroyo_sync.status.arguments import check_names, commit_log_settings_of, parser, settings_of
from arroyo_sync.status.check import ExitStatus, Status, StatusCheck, with_stopped_groups
from arroyo_sync.status.commit_log import LogScan
from arroyo_sync.status.members import Members, MembersQuestion
from arroyo_sync.status.reader import StatusQuery, StatusReader
from arroyo_sync.status.watch import Seen, Watch

INTERRUPTED = 130
WATCH_TIMEOUT_SECONDS = 5.0
"""For the brokers' answers, once there was one: a watch that waits longer shows nothing new meanwhile. A commit log
that takes longer is read on from look to look."""
MEMBERS_INTERVAL_SECONDS = 30.0


class OutputFailed(Exception):
    """What was to be said can't be written."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command, and return its exit status."""
    keep_secrets()  # before anything can fail with settings in its variables
    if sys.stderr is None:  # it is closed: whoever writes to it would write to the output instead
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - until the end
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name may hold what the terminal's encoding doesn't
    # What goes wrong is told once, at the end.
    logging.getLogger("arroyo_sync").addHandler(logging.NullHandler())
    options: argparse.Namespace | None = None
    settings: Mapping[str, Any] = {}
    try:
        options = _parsed(arguments)
        settings = settings_of(options, os.environ)
        run = {"status": _status, "groups": _groups, "tail": _tail}[options.command]
        return run(options, settings)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _leave_output()  # nobody reads on
        return int(ExitStatus.GOING_ON)
    except OutputFailed as failed:
        _leave_output()
        return _fail(f"the output can't be written: {failed}", settings)
    except Exception as error:
        if options is not None and options.debug:
            with suppress(OSError, ValueError):  # the standard error may be a closed pipe, or a full disk
                traceback.print_exc()
        return _fail(_describe(error), settings)


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """What is wanted.

    :raises SystemExit: the arguments are wrong, or ask for no more than a text. It has been said.
    :raises BrokenPipeError, OutputFailed: see `_write`.
    """
    try:
        return parser(_write).parse_args(arguments)
    except SystemExit:
        if sys.stdout is not None:
            _write("")  # what is left in the buffer: Python would fail on it at the end
        _flush_errors()
        raise


def _status(options: argparse.Namespace, settings: Mapping[str, Any]) -> int:
    check_names(options)
    query = StatusQuery(
        topic=options.topic,
        follower_group=options.follower_group,
        leader_groups=tuple(dict.fromkeys(options.leader_group)),
        settings=settings,
        commit_log=options.commit_log,
        commit_log_settings=commit_log_settings_of(options),
        reads_all=not options.recent,
        timeout=options.timeout,
    )
    show = _show_json if options.json else _table_shower(options, query)
    reader = StatusReader(query)
    members: _MembersOf | None = None
    in_watch = replace(query, timeout=min(query.timeout, WATCH_TIMEOUT_SECONDS))
    check = StatusCheck(reader, query.follower_group, options.stalled_after, options.look_again)
    watch = Watch(check, reader, lambda: StatusReader(in_watch), lambda error: _redacted(_describe(error), settings))
    last: Seen | None = None
    try:
        members = None if options.no_members else _MembersOf(query)
        for seen in watch.looks(options.watch):
            if last is None:
                _check_partitions(options.partition, seen.status)
            known = {} if members is None else members.answer(is_last=options.watch is None)
            status = with_stopped_groups(seen.status, known, query.follower_group, options.stalled_after)
            last = replace(seen, status=status)
            show(last, known)
            reader.timeout = in_watch.timeout
    except BrokenPipeError:
        _leave_output()  # nobody reads on; the exit status still tells
    except KeyboardInterrupt:
        if last is None or options.watch is None:
            raise
    finally:
        if members is not None:
            members.close()
        watch.close()
    return INTERRUPTED if last is None else int(last.exit_status)


def _check_partitions(wanted: Collection[int] | None, status: Status) -> None:
    """:raises ConfigurationError: the topic has no such partition, so nothing of it would be shown, and all be well."""
    partitions = status.snapshot.partitions
    missing = set(wanted or ()) - {each.partition for each in partitions}
    if missing and partitions:
        topic = partitions[0].topic
        raise ConfigurationError(f"--partition {min(missing)}: topic {topic!r} has 0 to {len(partitions) - 1}")


class _MembersOf:
    """Who is in the groups, asked beside everything else, and again now and then."""

    def __init__(self, query: StatusQuery) -> None:
        self._query = query
        self._known: Members = {}
        self._question: MembersQuestion | None = None
        self._asked_at = 0.0
        self._ask()

    def answer(self, *, is_last: bool) -> Members:
        """What is known. Waits for it if this is the last time that it is wanted."""
        if self._question is not None and (is_last or self._question.has_answer):
            self._known = self._question.answer()
            self._question = None
        elif self._question is None and time.monotonic() - self._asked_at >= MEMBERS_INTERVAL_SECONDS:
            self._ask()
        return self._known

    def close(self) -> None:
        if self._question is not None:
            self._question.close()

    def _ask(self) -> None:
        groups = {self._query.follower_group, *self._query.leader_groups}
        timeout = min(self._query.timeout, WATCH_TIMEOUT_SECONDS)
        self._asked_at = time.monotonic()
        try:
            self._question = MembersQuestion(self._query.settings, groups, self._query.topic, timeout)
        except OSError as error:  # no further process may be started: everything else can still be told
            self._known = dict.fromkeys(groups, f"no process could be started to ask for them: {error}")


def _groups(options: argparse.Namespace, settings: Mapping[str, Any]) -> int:
    records = Counted()
    with LogScan(settings, options.commit_log, options.timeout) as scan:
        found = groups_of(records.through(scan.read_to_end()), time.time())
    missing = scan.missing
    if options.json:
        _lines(json.dumps(each.to_json()) for each in found)
    else:
        _lines(_group_lines(options.commit_log, found, is_whole=not missing))
    if records.count and not found and not missing:
        return _fail(
            f"{options.commit_log} holds {records.count} records, and none is a group's report: is its name right? "
            "`tail` shows what is wrong with them",
            settings,
        )
    return _tell_missing(options.commit_log, missing, settings)


def _group_lines(commit_log: str, found: Sequence[GroupOnLog], *, is_whole: bool) -> list[str]:
    now = time.time()
    summary, _ = _tables()
    lines = [] if found or not is_whole else [f"No group reports on {commit_log}."]
    for each in found:
        rate = "" if each.records_a_second is None else f", {summary.rate(each.records_a_second)} a second"
        newest = (
            "at an unknown time" if each.newest_at is None else f"{summary.age(max(0.0, now - each.newest_at))} ago"
        )
        lines.append(f"{summary.shown_name(each.group)}  {summary.shown_name(each.topic)}  partitions ")
        lines[-1] += f"{summary.ranges(each.partitions)}  {each.records} records{rate}, newest {newest}"
        lines[-1] += ", by a clock that is ahead" if each.clock_is_ahead else ""
    return lines


def _tail(options: argparse.Namespace, settings: Mapping[str, Any]) -> int:
    wanted = Filter(options.group, options.topic, options.partition)

    def line(record: LogRecord) -> str:
        return json.dumps(record.to_json()) if options.json else _tables()[0].safe(record_line(record, time.time()))

    records = Counted()
    with LogScan(settings, options.commit_log, options.timeout) as scan:
        shown = last_of(records.through(scan.read_to_end()), wanted, options.records or None, time.time())
        _lines(map(line, shown))
        if not shown and records.count and not scan.missing:
            _tell(f"none of the {records.count} records of {options.commit_log} is one of these", settings)
        status = _tell_missing(options.commit_log, scan.missing, settings)
        if options.follow:
            with suppress(KeyboardInterrupt):
                for record in scan.follow(lambda said: _tell(said, settings)):
                    if wanted.takes(record):
                        _write(line(record) + "\n")
    return status


def _tell_missing(commit_log: str, missing: Mapping[int, str], settings: Mapping[str, str]) -> int:
    """Name the log partitions that what was said lacks. Returns the exit status."""
    if not missing:
        return int(ExitStatus.GOING_ON)
    told = "; ".join(f"{commit_log}[{partition}] ({missing[partition]})" for partition in sorted(missing))
    return _fail(f"without what is in {told}", settings)


def _show_json(seen: Seen, members: Members) -> None:
    status = seen.status.to_json()
    status["members"] = {
        group: each
        if isinstance(each, str)
        else [{"client_id": one.client_id, "host": one.host, "partitions": list(one.partitions)} for one in each]
        for group, each in members.items()
    }
    if seen.blind_since is not None:
        status["status"], status["grade"] = ExitStatus.UNKNOWN.name.lower(), "unknown"
        status["blind_since"], status["blind_reason"] = seen.blind_since, seen.blind_reason
    _write(json.dumps(status) + "\n")


def _table_shower(options: argparse.Namespace, query: StatusQuery) -> Callable[[Seen, Members], None]:
    summary, table = _tables()
    is_terminal = _is_terminal()
    redraws = is_terminal and options.watch is not None and os.environ.get("TERM", "dumb") != "dumb"
    base = summary.View(
        query.follower_group,
        uses_commit_log=query.commit_log is not None,
        partitions=options.partition,
        grades=options.verdict,
        max_rows=summary.SHOWN_PARTITIONS if is_terminal and not options.all else None,
        is_wide=options.wide or not is_terminal,
        shows_legend=options.watch is None,
    )
    drawn = False

    def show(seen: Seen, members: Members) -> None:
        nonlocal drawn
        size = get_terminal_size()
        width = max(size.columns, table.MIN_COLUMNS)
        blind = None
        if seen.blind_since is not None:
            at = time.strftime("%H:%M:%S UTC", time.gmtime(seen.blind_since))
            blind = f"since {at} ({max(0.0, time.time() - seen.blind_since):.0f} s): {seen.blind_reason}"
        view = replace(base, notes=seen.notes, blind=blind, screen_lines=size.lines if is_terminal else None)
        lines = table.status_lines(seen.status, view, width, members)
        text = table.rendered(lines, is_terminal=is_terminal)
        if not redraws:
            _write(text + "\n")
            return
        fitting = fitted(text.splitlines(), size.lines)
        # Not wrapped: lines that are wider than the screen would scroll the first ones, and the verdict, out of it.
        drawing = "".join(f"{each}\x1b[K\n" for each in fitting)
        _write(("" if drawn else "\x1b[2J") + f"\x1b[H\x1b[?7l{drawing}\x1b[J\x1b[?7h")
        drawn = True

    return show


def fitted(lines: Sequence[str], screen_lines: int) -> list[str]:
    """As many lines as the screen has, less one for the cursor; the last one says if there were more."""
    room = max(1, screen_lines - 1)
    if len(lines) <= room:
        return list(lines)
    return [*lines[: room - 1], f"... and {len(lines) - room + 1} more lines: --verdict and --partition show less"]


def _tables() -> tuple[ModuleType, ModuleType]:
    """The modules that need rich, imported when they are needed: the summary and the table."""
    try:
        import rich.console  # noqa: F401 - said of rich itself, whatever was imported before

        from arroyo_sync.status import summary, table
    except ImportError:
        raise ArroyoSyncError(
            "what it prints needs rich, the extra `status`: in a checkout pip install '.[status]'. --json needs no more"
        ) from None
    return summary, table


def _is_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()


def _lines(lines: Iterable[str]) -> None:
    for line in lines:
        _write(line + "\n")


def _write(text: str) -> None:
    """Write it now.

    :raises BrokenPipeError: nobody reads on.
    :raises OutputFailed: it can't be written for another reason.
    """
    if sys.stdout is None:
        raise OutputFailed("standard output is closed")
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputFailed(error.strerror or str(error)) from None
    except ValueError as error:  # it was closed
        raise OutputFailed(str(error)) from None


def _leave_output(descriptor: int = 1) -> None:
    """What is still buffered can't be written either: Python would say so at the end, and change the exit status."""
    with suppress(OSError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, descriptor)
        os.close(null)


def _flush_errors() -> None:
    """If nobody can be told, the exit status says it."""
    try:
        if sys.stderr is not None:
            sys.stderr.flush()
    except OSError:
        _leave_output(2)


def _describe(error: Exception) -> str:
    """What went wrong, in words."""
    if isinstance(error, KafkaException) and (held := kafka_error_of(error)) is not None:
        return held.str()
    if isinstance(error, SourceDied):
        cause = error.__cause__
        return _describe(cause) if isinstance(cause, Exception) else str(error)
    if isinstance(error, ArroyoSyncError):
        return str(error).removesuffix(WAIT_ADVICE)  # an argument's name is for those who write Python
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return f"too many open files: {error}"
    return f"{type(error).__name__}: {error} (--debug shows where)"


def _redacted(text: str, settings: Mapping[str, Any]) -> str:
    return " ".join(without_secrets(text, settings).splitlines())


def _fail(reason: str, settings: Mapping[str, Any]) -> int:
    _tell(reason, settings)
    return int(ExitStatus.UNKNOWN)


def _tell(what: str, settings: Mapping[str, Any]) -> None:
    with suppress(OSError):
        print(f"arroyo-sync: {_redacted(what, settings)}", file=sys.stderr)
    _flush_errors()
