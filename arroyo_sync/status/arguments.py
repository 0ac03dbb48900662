"""The command line's arguments: what may be given, and what can't be right. Messages name flags.

Pure. Threads: none.
"""

from __future__ import annotations

import argparse
import math
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from arroyo_sync.core.checks import GROUP_NAME, MAX_PARTITION, TOPIC_NAME, is_group_name, is_topic_name, shown
from arroyo_sync.core.errors import ConfigurationError
from arroyo_sync.core.version import package_version
from arroyo_sync.observe.verdict import Grade
from arroyo_sync.status.settings import (
    ENVIRONMENT_PREFIX,
    OAuthCallback,
    flag_settings,
    kafka_settings,
    takes_token,
    with_oauth_cb,
)

MAX_SECONDS = 86_400.0
MAX_STALLED_AFTER_SECONDS = 366 * 86_400.0
COMPLETED_SHELLS = ("bash", "zsh", "fish")

LEGEND = (
    "Every offset is the next one: a group at 42 has done everything up to 41; a topic that ends at 42 holds "
    "up to 41. published: what a leader reported last on the commit log, and how long ago; this counts. "
    "committed: its commit on the broker, which comes up to a second later, by its commit policy. remote: the "
    "lowest published offset; messages below it are released. follower: what the follower has committed. "
    "since: for how long no progress was seen, or none can have been made. waiting: messages; ~ if some of "
    "these offsets may hold none. written: how long ago the first waiting message was written, by its "
    "timestamp."
)
LEGEND_WITHOUT_COMMIT_LOG = LEGEND.replace(
    "published: what a leader reported last on the commit log, and how long ago; this counts. committed: its commit on "
    "the broker, which comes up to a second later, by its commit policy. remote: the lowest published offset",
    "committed: the leader's commit on the broker. remote: the lowest of them",
)

SETTINGS_EPILOG = f"""\
settings: flags count over the environment, which counts over --config. A password never goes on the command line: put
it into the file, or into the environment, where sasl.password is called {ENVIRONMENT_PREFIX}SASL_PASSWORD, and so on.

It only reads: it joins no group, commits nothing and creates nothing.
"""
EPILOG = f"""\
exit status: 0 if nothing stands still, 1 if something does, 2 if it can't be told (brokers unreachable, access
refused, a topic missing, the follower has committed nothing, a leader group that has never reported, or what can't be
true or may be of an earlier topic, a topic's id or a waiting message that isn't told, a wait for leaders while part of
the commit log isn't heard, a group without members for which messages have waited for long, a wrong argument). One call
sees by a leader's reports for how long it has stood still, but of the follower, and of leaders without a commit log,
only its own --look-again seconds: such a wait becomes a stall in a --watch, or where --stalled-after is no longer than
--look-again.

{textwrap.fill(f"columns: {LEGEND}", 118)}

{SETTINGS_EPILOG}"""


def parser(write: Callable[[str], None]) -> argparse.ArgumentParser:
    """Of the whole command.

    :param write: to standard output.
    """
    whole = argparse.ArgumentParser(prog="arroyo-sync")
    whole.add_argument("--version", action="version", version=f"arroyo-sync {package_version()}")
    whole.add_argument(
        "--print-completion",
        action=_PrintCompletion,
        choices=COMPLETED_SHELLS,
        write=write,
        help="a script that completes this command in your shell, to put where the shell looks for such; needs shtab",
    )
    commands = whole.add_subparsers(required=True, metavar="COMMAND", dest="command")
    _add_status(commands)
    groups = _command(commands, "groups", "show which groups report on a commit log, of what, and how long ago")
    _add_log(groups)
    tail = _command(commands, "tail", "show a commit log's records, decoded, one a line")
    _add_log(tail)
    add = tail.add_argument
    add("--group", action="append", type=_group, metavar="NAME", help="only this group's; may be given more than once")
    add("--topic", type=_topic, metavar="NAME", help="only of this data topic")
    add("--partition", action="append", type=_index, metavar="N", help="only of this partition of it; likewise")
    add("-n", "--records", type=_count, default=10, metavar="N", help="the last so many (default 10); 0: all")
    add("-f", "--follow", action="store_true", help="and what is written from now on, until interrupted")
    return whole


class _PrintCompletion(argparse.Action):
    """Made from the parser itself, so that it knows every flag, command and grade."""

    def __init__(self, *given: Any, write: Callable[[str], None], **named: Any) -> None:
        super().__init__(*given, **named)
        self._write = write

    def __call__(self, whole: argparse.ArgumentParser, *given: object) -> None:
        try:
            import shtab
        except ImportError:
            whole.error(
                "--print-completion needs shtab, the extra `completion`: in a checkout pip install '.[completion]'"
            )
        for each in _actions(whole):
            if each.type is Path:
                each.complete = shtab.FILE  # type: ignore[attr-defined] # where shtab looks for it
            elif each.type is _grades:
                each.choices = [grade.value for grade in Grade]
        self._write(shtab.complete(whole, shell=str(given[1])) + "\n")
        whole.exit()


def _actions(whole: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in whole._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)


def settings_of(options: argparse.Namespace, environment: Mapping[str, str]) -> dict[str, Any]:
    """librdkafka's settings for the cluster of the data topic, or of the commit log if there is no other.

    :raises ConfigurationError: one can't be.
    """
    flags: dict[str, str | None] = {**flag_settings(options.X), "bootstrap.servers": options.bootstrap_servers}
    settings = checked(kafka_settings(options.config, environment, flags))
    if not settings.get("bootstrap.servers") and not settings.get("metadata.broker.list"):
        raise ConfigurationError("no brokers: give --bootstrap-servers, or bootstrap.servers in a --config file")
    if options.oauth_cb is not None and not takes_token(settings):
        raise ConfigurationError("--oauth-cb is of no use without the setting sasl.mechanism=OAUTHBEARER")
    return with_oauth_cb(settings, options.oauth_cb)


def commit_log_settings_of(options: argparse.Namespace) -> dict[str, Any] | None:
    """Those of the commit log's cluster, if it is another one.

    :raises ConfigurationError: one can't be.
    """
    if not options.commit_log_config and not options.commit_log_bootstrap_servers:
        return None
    # Another cluster has other credentials: those of the environment are the data cluster's.
    flags = {"bootstrap.servers": options.commit_log_bootstrap_servers}
    settings = checked(kafka_settings(options.commit_log_config, {}, flags))
    if not settings.get("bootstrap.servers") and not settings.get("metadata.broker.list"):
        raise ConfigurationError("no brokers of the commit log: give --commit-log-bootstrap-servers")
    return with_oauth_cb(settings, options.oauth_cb)


def checked(settings: dict[str, str]) -> dict[str, str]:
    """The same, if librdkafka's clients can take them as text.

    :raises ConfigurationError: one wants a function, or can't be written in UTF-8.
    """
    for name, value in settings.items():
        if name.endswith("_cb") or name in ("logger", "on_commit", "on_delivery"):
            instead = "give it with --oauth-cb" if name == "oauth_cb" else "leave it out"
            raise ConfigurationError(f"setting {name}: it takes a function, which can't be given as text: {instead}")
        try:
            (name + value).encode()
        except UnicodeEncodeError:
            raise ConfigurationError(f"setting {name} isn't UTF-8") from None
        if "\0" in name + value:
            raise ConfigurationError(f"setting {name} holds a zero byte")
    return settings


def check_names(options: argparse.Namespace) -> None:
    """Return if the names of a status can be right together.

    :raises ConfigurationError: they can't; the message names the flags.
    """
    if options.follower_group in options.leader_group:
        raise ConfigurationError(
            f"--leader-group {options.follower_group} is the --follower-group too: a follower doesn't wait for itself"
        )
    if options.commit_log == options.topic and commit_log_settings_of(options) is None:
        raise ConfigurationError(
            f"--commit-log {options.commit_log} is the --topic too: give the topic on which the leaders publish"
        )


def _add_status(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    about = "show how a follower and its leaders stand, partition by partition, and whom it waits for"
    status = _command(commands, "status", about, EPILOG)
    add = status.add_argument
    add("--topic", required=True, type=_topic, metavar="NAME", help="the data topic")
    add(
        "--follower-group",
        "--consumer-group",
        required=True,
        type=_group,
        metavar="NAME",
        help="the follower's consumer group",
    )
    add(
        "--leader-group",
        "--synchronize-commit-group",
        action="append",
        required=True,
        type=_group,
        metavar="NAME",
        help="a leader group; may be given more than once",
    )
    add(
        "--commit-log",
        "--synchronize-commit-log-topic",
        type=_topic,
        metavar="NAME",
        help="the topic on which the leaders publish; without it, what they commit on the broker counts",
    )
    add("--commit-log-bootstrap-servers", metavar="HOST:PORT,...", help="if the commit log is on another cluster")
    add("--commit-log-config", action="append", default=[], type=Path, metavar="FILE", help="settings of that cluster")
    add("--recent", action="store_true", help="read only the commit log's last ten minutes, and the leaders' commits")
    add(
        "--stalled-after",
        type=_long,
        default=300.0,
        metavar="SECONDS",
        help="without progress (default 300)",
    )
    add(
        "--look-again",
        type=_seconds,
        default=5.0,
        metavar="SECONDS",
        help="look a second time after this, where the first look can't tell whether anything moves (default 5)",
    )
    add("--partition", action="append", type=_index, metavar="N", help="show this one; may be given more than once")
    add(
        "--verdict",
        type=_grades,
        metavar="GRADE,...",
        help=f"show those of these grades: {', '.join(grade.value for grade in Grade)}",
    )
    add("--all", action="store_true", help="show every partition, not only the worst")
    add("--wide", action="store_true", help="show every column, however wide the terminal is")
    add("--no-members", action="store_true", help="don't ask who is in the groups")
    add("--json", action="store_true", help="one line of JSON for each look, instead of the table")
    add(
        "--watch",
        nargs="?",
        type=_seconds,
        const=2.0,
        metavar="SECONDS",
        help="look again and again, by default every 2 s, until interrupted; ends with the last look's exit status",
    )


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    about: str,
    epilog: str = SETTINGS_EPILOG,
) -> argparse.ArgumentParser:
    command = commands.add_parser(
        name,
        help=about,
        description=f"{about[0].upper()}{about[1:]}.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = command.add_argument
    add("--bootstrap-servers", metavar="HOST:PORT,...", help="brokers of the cluster")
    add("--config", action="append", default=[], type=Path, metavar="FILE", help="librdkafka settings, name=value")
    add("-X", action="append", default=[], metavar="NAME=VALUE", help="one librdkafka setting, not a secret")
    add(
        "--oauth-cb",
        type=OAuthCallback,
        metavar="MODULE:FUNCTION",
        help="librdkafka's oauth_cb, which fetches the token that OAUTHBEARER logs in with (such as for MSK's IAM)",
    )
    add("--timeout", type=_seconds, default=30.0, metavar="SECONDS", help="for the brokers' answers (default 30)")
    add("--debug", action="store_true", help="with the traceback of what goes wrong")
    return command


def _add_log(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--commit-log", required=True, type=_topic, metavar="NAME", help="the topic on which the leaders publish")
    add("--json", action="store_true", help="a line of JSON for each")


def _seconds(text: str) -> float:
    return _seconds_up_to(text, MAX_SECONDS)


def _long(text: str) -> float:
    return _seconds_up_to(text, MAX_STALLED_AFTER_SECONDS)


def _seconds_up_to(text: str, most: float) -> float:
    try:
        seconds = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds") from None
    if math.isnan(seconds) or not 0 < seconds <= most:
        raise argparse.ArgumentTypeError(f"more than 0 seconds and up to {most:,.0f}, not {text}")
    return seconds


def _index(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,10}", text) or int(text) > MAX_PARTITION:
        raise argparse.ArgumentTypeError(f"{shown(text)} is no partition: give its number, at most {MAX_PARTITION}")
    return int(text)


def _count(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of records")
    return int(text)


def _grades(text: str) -> frozenset[Grade]:
    known = {grade.value: grade for grade in Grade}
    names = [each.strip().lower() for each in text.split(",")]
    unknown = [each for each in names if each not in known]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is no grade: give some of {', '.join(known)}")
    return frozenset(known[each] for each in names)


def _topic(text: str) -> str:
    if not is_topic_name(text):
        raise argparse.ArgumentTypeError(f"{shown(text)} can't be a topic: its name is {TOPIC_NAME}")
    return text


def _group(text: str) -> str:
    if not is_group_name(text):
        raise argparse.ArgumentTypeError(f"{shown(text)} can't be a group: its name is {GROUP_NAME}")
    return text
