"""The command line: ``arroyo-sync status``, or ``python -m arroyo_sync status``."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from confluent_kafka import KafkaException

from arroyo_sync.core.errors import ArroyoSyncError, SourceDied
from arroyo_sync.kafka.redaction import keep_secrets, without_secrets
from arroyo_sync.status.check import ExitStatus, Status, StatusCheck
from arroyo_sync.status.reader import StatusQuery, StatusReader
from arroyo_sync.status.settings import ENVIRONMENT_PREFIX, flag_settings, kafka_settings

if TYPE_CHECKING:
    from rich.console import Console

FILE_COLUMNS = 200
"""How wide the table may be where there is no terminal."""

EPILOG = f"""\
exit status: 0 if nothing stands still, 1 if something does, 2 if it can't be told (brokers unreachable, access refused,
a topic missing, the follower has committed nothing, a wrong argument).

settings: flags count over the environment, which counts over --config. A password never goes on the command line: put
it into the file, or into the environment, where sasl.password is called {ENVIRONMENT_PREFIX}SASL_PASSWORD, and so on.

It only reads: it joins no group, commits nothing and creates nothing.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command, and return its exit status."""
    keep_secrets()  # before anything can fail with settings in its variables
    options = _parser().parse_args(arguments)
    logging.getLogger("arroyo_sync").addHandler(logging.NullHandler())  # what goes wrong is told once, at the end
    settings: Mapping[str, str] = {}
    try:
        settings = _settings(options.config, options.X, options.bootstrap_servers)
        query = _query(options, settings)
        console = None if options.json else _console()
        with StatusReader(query) as reader:
            check = StatusCheck(reader, query.follower_group, options.stalled_after, options.look_again)
            return _watch(check, query, options.watch, console)
    except KafkaException as error:
        return _fail(error.args[0].str(), settings)
    except SourceDied as error:
        return _fail(str(error.__cause__ or error), settings)
    except ArroyoSyncError as error:
        return _fail(str(error), settings)
    except KeyboardInterrupt:
        return 130


def _watch(check: StatusCheck, query: StatusQuery, interval: float | None, console: Console | None) -> int:
    status = check.check_once()
    _show(status, query, console)
    while interval is not None:
        time.sleep(interval)
        status = check.check_once()
        if console is not None and console.is_terminal:
            console.clear()
        _show(status, query, console)
    return int(status.exit_status)


def _show(status: Status, query: StatusQuery, console: Console | None) -> None:
    if console is None:
        print(json.dumps(status.to_json()), flush=True)
        return
    from arroyo_sync.status.table import print_status

    print_status(console, status, follower_group=query.follower_group, uses_commit_log=query.commit_log is not None)


def _console() -> Console:
    try:
        from rich.console import Console
    except ImportError:
        raise ArroyoSyncError(
            "the table needs rich: pip install 'arroyo-sync[status]', or use --json, which needs nothing more"
        ) from None
    return Console(width=None if sys.stdout.isatty() else FILE_COLUMNS)


def _fail(reason: str, settings: Mapping[str, str]) -> int:
    print(f"arroyo-sync: {without_secrets(reason, settings)}", file=sys.stderr)
    return int(ExitStatus.UNKNOWN)


def _settings(files: Sequence[Path], pairs: Sequence[str], bootstrap_servers: str | None) -> dict[str, str]:
    flags: dict[str, str | None] = {**flag_settings(pairs), "bootstrap.servers": bootstrap_servers}
    return kafka_settings(files, os.environ, flags)


def _query(options: argparse.Namespace, settings: Mapping[str, str]) -> StatusQuery:
    commit_log_settings = None
    if options.commit_log_config or options.commit_log_bootstrap_servers:
        # Another cluster has other credentials: those of the environment are the data cluster's.
        flags = {"bootstrap.servers": options.commit_log_bootstrap_servers}
        commit_log_settings = kafka_settings(options.commit_log_config, {}, flags)
    return StatusQuery(
        topic=options.topic,
        follower_group=options.follower_group,
        leader_groups=tuple(options.leader_group),
        settings=settings,
        commit_log=options.commit_log,
        commit_log_settings=commit_log_settings,
        reads_all=not options.recent,
        timeout=options.timeout,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="arroyo-sync")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    status = commands.add_parser(
        "status",
        help="show how a follower and its leaders stand",
        description="Show how a follower and its leaders stand, partition by partition, and whom it waits for.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = status.add_argument
    add("--topic", required=True, metavar="NAME", help="the data topic")
    add("--follower-group", "--consumer-group", required=True, metavar="NAME", help="the follower's consumer group")
    add(
        "--leader-group",
        "--synchronize-commit-group",
        action="append",
        required=True,
        metavar="NAME",
        help="a leader group; may be given more than once",
    )
    add(
        "--commit-log",
        "--synchronize-commit-log-topic",
        metavar="NAME",
        help="the topic on which the leaders publish; without it, what they commit on the broker counts",
    )
    add("--bootstrap-servers", metavar="HOST:PORT,...", help="brokers of the cluster")
    add("--config", action="append", default=[], type=Path, metavar="FILE", help="librdkafka settings, name=value")
    add("-X", action="append", default=[], metavar="NAME=VALUE", help="one librdkafka setting, not a secret")
    add("--commit-log-bootstrap-servers", metavar="HOST:PORT,...", help="if the commit log is on another cluster")
    add("--commit-log-config", action="append", default=[], type=Path, metavar="FILE", help="settings of that cluster")
    add("--recent", action="store_true", help="read only the commit log's last ten minutes, and the leaders' commits")
    add("--stalled-after", type=_seconds, default=300.0, metavar="SECONDS", help="without progress (default 300)")
    add(
        "--look-again",
        type=_seconds,
        default=5.0,
        metavar="SECONDS",
        help="look a second time after this, before something is called stalled (default 5)",
    )
    add("--timeout", type=_seconds, default=30.0, metavar="SECONDS", help="for the brokers' answers (default 30)")
    add("--json", action="store_true", help="one line of JSON for each look, instead of the table")
    add(
        "--watch",
        nargs="?",
        type=_seconds,
        const=2.0,
        metavar="SECONDS",
        help="look again and again, by default every 2 s, until interrupted",
    )
    return parser


def _seconds(text: str) -> float:
    seconds = float(text)
    if not seconds > 0:
        raise argparse.ArgumentTypeError(f"more than 0 seconds, not {text}")
    return seconds
