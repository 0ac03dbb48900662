from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

import pytest

import arroyo_sync
from arroyo_sync.core.errors import ArroyoSyncError
from arroyo_sync.observe.snapshot import LeaderSnapshot, PartitionSnapshot, Snapshot
from arroyo_sync.status.answers.log_records import LogRecord
from arroyo_sync.status.command import _MembersOf, fitted, main
from arroyo_sync.status.reader import StatusQuery

REQUIRED = ["status", "--topic", "events", "--follower-group", "forwarder", "--leader-group", "writers"]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings of the machine's own."""
    monkeypatch.delenv("ARROYO_SYNC_KAFKA_BOOTSTRAP_SERVERS", raising=False)


def test_it_can_be_run_as_a_module() -> None:
    """``python -m arroyo_sync``; its help explains the exit statuses and where passwords go."""
    command = [sys.executable, "-m", "arroyo_sync", "status", "--help"]
    help_text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert "0 if nothing stands still, 1 if something does, 2 if it can't be told" in " ".join(help_text.split())
    assert "ARROYO_SYNC_KAFKA_SASL_PASSWORD" in help_text


def test_a_missing_argument_is_exit_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    """The same as for everything else that keeps it from telling."""
    with pytest.raises(SystemExit) as raised:
        main(["status", "--topic", "events"])
    assert raised.value.code == 2
    assert "--follower-group" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param([], "no brokers: give --bootstrap-servers", id="no brokers"),
        pytest.param(
            ["--bootstrap-servers", "127.0.0.1:1", "--commit-log-bootstrap-servers", ""],
            "no broker of 127.0.0.1:1",
            id="an empty flag is none",
        ),
        pytest.param(["-X", "error_cb=print"], "error_cb: it takes a function", id="a callback as text"),
        pytest.param(["-X", "oauth_cb=print"], "give it with --oauth-cb", id="the token's function as text"),
        pytest.param(
            ["--bootstrap-servers", "h:1", "--oauth-cb", "json:loads"],
            "sasl.mechanism=OAUTHBEARER",
            id="a token that nobody asks for",
        ),
        pytest.param(["-X", "client.id=\udcff"], "setting client.id isn't UTF-8", id="a setting that isn't UTF-8"),
        pytest.param(
            ["--bootstrap-servers", "127.0.0.1:1", "--leader-group", "forwarder"],
            "--leader-group forwarder is the --follower-group too",
            id="the follower's own group as leader",
        ),
        pytest.param(
            ["--bootstrap-servers", "127.0.0.1:1", "--commit-log", "events"],
            "--commit-log events is the --topic too",
            id="the data topic as commit log",
        ),
        pytest.param(["--bootstrap-servers", "127.0.0.1:1", "-X", "nonsense=1"], '"nonsense"', id="unknown setting"),
        pytest.param(["-X", "nonsense"], "-X takes name=value", id="no setting"),
        pytest.param(["--config", "/nowhere"], "/nowhere: No such file", id="no file"),
        pytest.param(
            ["--bootstrap-servers", "127.0.0.1:1"],
            "no broker of 127.0.0.1:1 answered within 0.1 s",
            id="no broker",
        ),
    ],
)
def test_what_keeps_it_from_telling_is_one_line_and_exit_status_2(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """On standard error, without a traceback."""
    assert main([*REQUIRED, "--timeout", "0.1", *arguments]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("arroyo-sync: ")
    assert says in output.err
    assert output.err.count("\n") == 1


def test_no_password_is_in_what_it_says_however_wrong_the_settings_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """librdkafka itself quotes values that it doesn't like."""
    file = tmp_path / "kafka.properties"
    file.write_text("bootstrap.servers=127.0.0.1:1\nsecurity.protocol=SASL_SSL\nssl.key.pem=swordfish\n")
    monkeypatch.setenv("ARROYO_SYNC_KAFKA_SASL_PASSWORD", "hunter2")
    assert main([*REQUIRED, "--config", str(file), "-X", "sasl.mechanisms=nonsense", "--timeout", "0.1"]) == 2
    assert main([*REQUIRED, "--config", str(file), "-X", "sasl.mechanisms=PLAIN", "--timeout", "0.1"]) == 2
    output = capsys.readouterr()
    assert "swordfish" not in output.out + output.err
    assert "hunter2" not in output.out + output.err


def test_a_password_on_the_command_line_is_refused_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    """What it says of it went through the filter, which took a word of it for the password."""
    assert main([*REQUIRED, "-X", "sasl.password=hunter2"]) == 2
    assert capsys.readouterr().err.startswith(
        "arroyo-sync: -X sasl.password can be read by anyone on this machine, as every command line can. Put it into "
        "the environment as ARROYO_SYNC_KAFKA_SASL_PASSWORD"
    )


def test_a_password_that_an_error_quotes_is_filtered(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever made the error."""

    def fail(query: object) -> None:
        raise ArroyoSyncError("can't log in\nwith hunter2")

    monkeypatch.setattr("arroyo_sync.status.command.StatusReader", fail)
    monkeypatch.setenv("ARROYO_SYNC_KAFKA_SASL_PASSWORD", "hunter2")
    assert main([*REQUIRED, "--bootstrap-servers", "127.0.0.1:1", "--json"]) == 2
    assert capsys.readouterr().err == "arroyo-sync: can't log in with [Filtered]\n"


def test_without_rich_it_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table needs it, and JSON doesn't."""
    monkeypatch.setitem(sys.modules, "rich.console", None)
    assert main([*REQUIRED, "--bootstrap-servers", "127.0.0.1:1"]) == 2
    assert "pip install '.[status]'. --json" in capsys.readouterr().err
    assert main([*REQUIRED, "--bootstrap-servers", "127.0.0.1:1", "--json", "--timeout", "0.1"]) == 2
    assert "no broker" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--timeout", "--watch", "--stalled-after", "--look-again"])
@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("0", "more than 0 seconds and up to"),
        ("-1", "more than 0 seconds and up to"),
        ("inf", "more than 0 seconds and up to"),
        ("nan", "more than 0 seconds and up to"),
        ("1e300", "more than 0 seconds and up to"),
        ("abc", "'abc' is no number of seconds"),
    ],
)
def test_times_are_more_than_0_and_finite(flag: str, value: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An argument like any other, in words."""
    said = refused([*REQUIRED, f"{flag}={value}"], capsys)
    assert f"argument {flag}: {says}" in said
    assert said.endswith(f"{value}\n" if "is no" not in says else f"{says}\n")


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What is said of arguments that are refused, with exit status 2."""
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    assert raised.value.code == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--topic", ""], "argument --topic: '' can't be a topic: its name is 1 to 249 of"),
        (["--topic", "t" * 5000], "argument --topic: 'tttttt"),
        (["--topic", "t" * 5000], "(length 5000) can't be a topic: its name is 1 to 249"),
        (["--topic", "."], "argument --topic: '.' can't be a topic"),
        (["--topic", ".."], "argument --topic: '..' can't be a topic"),
        (["--topic", "\n"], "argument --topic: '\\n' can't be a topic"),
        (["--topic", "events\n"], "argument --topic: 'events\\n' can't be a topic"),
        (["--commit-log", "a:b"], "'a:b' can't be a topic"),
        (["--topic", "\udcff"], "can't be a topic"),
        (
            ["--leader-group", "\udcff"],
            "/--synchronize-commit-group: '\\udcff' can't be a group: its name is a text of 1",
        ),
        (["--leader-group", "a\0b"], "argument --leader-group/--synchronize-commit-group: 'a\\x00b' can't be a group"),
        (
            ["--leader-group", "a\x1bb"],
            "argument --leader-group/--synchronize-commit-group: 'a\\x1bb' can't be a group",
        ),
        (["--leader-group", "\n"], "argument --leader-group/--synchronize-commit-group: '\\n' can't be a group"),
        (["--follower-group", ""], "argument --follower-group/--consumer-group: '' can't be a group"),
        (["--follower-group", "g" * 40_000], "(length 40000) can't be a group"),
        (["--verdict", "ill"], "'ill' is no grade: give some of stalled, unknown, waiting, ok"),
        (["--partition", "-1"], "'-1' is no partition"),
        (["--partition", "\n"], "argument --partition: '\\n' is no partition"),
        (
            ["--partition", "9999999999"],
            "argument --partition: '9999999999' is no partition: give its number, at most 2147",
        ),
    ],
)
def test_names_that_can_not_be_are_refused_before_a_client_gets_them(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """librdkafka ends the process for some of them."""
    assert says in refused([*REQUIRED, *arguments], capsys)


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    """As the installer knows it."""
    with pytest.raises(SystemExit) as raised:
        main(["--version"])
    assert raised.value.code == 0
    assert capsys.readouterr().out == f"arroyo-sync {version('arroyo-sync')}\n"
    assert arroyo_sync.__version__ == version("arroyo-sync")


@pytest.mark.parametrize(("screen_lines", "shown"), [(24, 5), (6, 5), (5, 4), (2, 1), (1, 1)])
def test_what_does_not_fit_the_screen_is_counted(screen_lines: int, shown: int) -> None:
    """In the last line; the one below it is the cursor's."""
    lines = ["a", "b", "c", "d", "e"]
    fitting = fitted(lines, screen_lines)
    assert len(fitting) == shown
    if shown < len(lines):
        assert fitting[:-1] == lines[: shown - 1]
        assert fitting[-1].startswith(f"... and {len(lines) - shown + 1} more lines")


def test_a_client_that_can_not_be_loaded_is_one_line_and_exit_status_2(tmp_path: Path) -> None:
    """Such as in an image that lacks a shared library. 1 would say that something stands still."""
    (tmp_path / "confluent_kafka.py").write_text("raise ImportError('librdkafka.so.1: no such file')")
    run = subprocess.run(
        [sys.executable, "-m", "arroyo_sync", "--version"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        timeout=60,
        check=False,
    )
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr == "arroyo-sync can't be loaded: librdkafka.so.1: no such file\n"


@pytest.mark.parametrize("flags", [["--partition", "3"], ["--partition", "0", "--partition", "9"]])
def test_a_partition_that_the_topic_has_not_is_no_partition_that_is_well(
    flags: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it is shown, and a check with a number that was mistyped never failed."""

    class Reader:
        timeout = 1.0

        def __init__(self, query: object) -> None: ...

        def read(self) -> Snapshot:
            leader = LeaderSnapshot("writers", 100)
            return Snapshot(
                0.0, tuple(PartitionSnapshot("events", each, 100, 100, 0, 100, (leader,)) for each in range(3))
            )

        def close(self) -> None: ...

    monkeypatch.setattr("arroyo_sync.status.command.StatusReader", Reader)
    arguments = [*REQUIRED, "--bootstrap-servers", "127.0.0.1:1", "--json", "--no-members"]
    assert main([*arguments, "--partition", "2"]) == 0
    capsys.readouterr()
    assert main([*arguments, *flags]) == 2
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", f"arroyo-sync: {flags[-2]} {flags[-1]}: topic 'events' has 0 to 2\n")


class Scan:
    """A commit log with these records, for `LogScan`."""

    def __init__(self, *records: LogRecord) -> None:
        self.records = records
        self.missing: dict[int, str] = {}

    def __enter__(self) -> Scan:
        return self

    def __exit__(self, *_: object) -> None: ...

    def read_to_end(self) -> Iterator[LogRecord]:
        return iter(self.records)


ON_LOG = ["--commit-log", "log", "--bootstrap-servers", "127.0.0.1:1"]


@pytest.mark.parametrize(
    ("span_ms", "rate"),
    [
        (10 * 86_400_000, "less than 0.001 a second"),
        (45_000, "0.022 a second"),
        (500, "2 a second"),
        (100, "10 a second"),
        (8, "125 a second"),
        (1, "1000 a second"),
    ],
)
def test_a_rate_is_a_number_for_people(
    span_ms: int, rate: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hundreds of reports a second were "1.3e+02"."""
    records = [LogRecord(0, offset, 1700000000000 + offset * span_ms, "events", 3, "writers", 42) for offset in (0, 1)]
    monkeypatch.setattr("arroyo_sync.status.command.LogScan", lambda *_: Scan(*records))
    assert main(["groups", *ON_LOG]) == 0
    assert capsys.readouterr().out.startswith(f"writers  events  partitions 3  2 records, {rate}, newest ")


def test_a_topic_without_reports_is_no_commit_log(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the data topic given by mistake: no group reports on it, which sounded as if all were well."""
    refused = LogRecord(0, 0, 1, refused="key: no key")
    monkeypatch.setattr("arroyo_sync.status.command.LogScan", lambda *_: Scan(refused, refused))
    assert main(["groups", *ON_LOG]) == 2
    told = capsys.readouterr()
    assert told.out == "No group reports on log.\n"
    assert told.err.startswith("arroyo-sync: log holds 2 records, and none is a group's report: is its name right?")
    assert main(["groups", *ON_LOG, "--json"]) == 2
    told = capsys.readouterr()
    assert (told.out, "none is a group's report" in told.err) == ("", True)
    monkeypatch.setattr("arroyo_sync.status.command.LogScan", lambda *_: Scan())
    assert main(["groups", *ON_LOG]) == 0
    assert capsys.readouterr().err == ""


def test_a_tail_that_finds_nothing_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A group's name may be wrong; silence told nothing."""
    records = [LogRecord(0, offset, 1, "events", 3, "writers", 42) for offset in (0, 1)]
    monkeypatch.setattr("arroyo_sync.status.command.LogScan", lambda *_: Scan(*records))
    assert main(["tail", *ON_LOG, "--group", "typo"]) == 0
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "arroyo-sync: none of the 2 records of log is one of these\n")
    assert main(["tail", *ON_LOG, "--group", "writers"]) == 0
    assert capsys.readouterr().err == ""


def test_a_leader_group_that_is_given_twice_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its partitions were counted twice."""
    queries: list[StatusQuery] = []

    def note(query: StatusQuery) -> None:
        queries.append(query)
        broken(query)

    monkeypatch.setattr("arroyo_sync.status.command.StatusReader", note)
    arguments = [*REQUIRED, "--leader-group", "others", "--leader-group", "others"]
    assert main([*arguments, "--bootstrap-servers", "127.0.0.1:1", "--json", "--no-members"]) == 2
    assert queries[0].leader_groups[-1:] == ("others",)
    assert len(set(queries[0].leader_groups)) == len(queries[0].leader_groups)


@pytest.mark.parametrize(
    ("at_ms", "says"),
    [
        pytest.param((1, 2), "newest years ago\n", id="sound"),
        pytest.param((1, 9_000_000_000_000), "newest years ago, by a clock that is ahead\n", id="ahead"),
        pytest.param((9_000_000_000_000,), "newest at an unknown time, by a clock that is ahead\n", id="all are"),
    ],
)
def test_of_a_group_whose_clock_is_ahead_it_is_told(
    at_ms: tuple[int, ...], says: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its newest report isn't of this moment at each look."""
    records = [LogRecord(0, offset, ms, "events", 3, "writers", 42) for offset, ms in enumerate(at_ms)]
    monkeypatch.setattr("arroyo_sync.status.command.LogScan", lambda *_: Scan(*records))
    assert main(["groups", *ON_LOG]) == 0
    assert capsys.readouterr().out.endswith(says)


def broken(query: object) -> None:
    raise RuntimeError("a fault of ours")


def test_a_fault_of_ours_is_one_line_and_exit_status_2_and_debug_shows_where(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """1 means that something stands still, and nothing else."""
    monkeypatch.setattr("arroyo_sync.status.command.StatusReader", broken)
    arguments = [*REQUIRED, "--bootstrap-servers", "127.0.0.1:1", "--json", "--no-members"]
    assert main(arguments) == 2
    assert capsys.readouterr().err == "arroyo-sync: RuntimeError: a fault of ours (--debug shows where)\n"
    assert main([*arguments, "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_process_that_can_not_be_started_costs_the_members_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under a limit of processes. It ended a watch."""
    monkeypatch.setattr("subprocess.Popen", unstartable)
    members = _MembersOf(StatusQuery("events", "forwarder", ("writers",), {"bootstrap.servers": "127.0.0.1:1"}))
    said = "no process could be started to ask for them: [Errno 11] too many"
    assert members.answer(is_last=False) == {"forwarder": said, "writers": said}
    members.close()


def unstartable(*_: object, **__: object) -> NoReturn:
    raise OSError(errno.EAGAIN, "too many")


PROGRAM = """\
import sys
from arroyo_sync.observe.snapshot import LeaderSnapshot, PartitionSnapshot, Snapshot
from arroyo_sync.status import command
from arroyo_sync.status.answers.log_records import GroupsOnLog

class Reader:
    timeout = 1.0
    def __init__(self, query): pass
    def read(self):
        leader = LeaderSnapshot("writers", 100)
        each = [PartitionSnapshot("events", index, 100, 100, 0, 100, (leader,)) for index in range(300)]
        return Snapshot(0.0, tuple(each))
    def groups_on_log(self): return GroupsOnLog(())
    def close(self): pass

command.StatusReader = Reader
sys.exit(command.main())
"""
"""The command with a reader that needs no brokers, and much to say."""

OUTPUTS = {
    "a closed pipe": ("| true", 0, ""),
    "a full disk": ("> /dev/full", 2, "arroyo-sync: the output can't be written: No space left on device\n"),
    "a closed output": (">&-", 2, "arroyo-sync: the output can't be written: standard output is closed\n"),
    "no output at all": (">&- 2>&-", 2, ""),
}


def redirected(arguments: str, redirection: str) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of Python with these arguments, in bash."""
    script = f"set -o pipefail; {sys.executable} {arguments} {redirection}"
    environment = {**os.environ, "PYTHONPATH": str(Path(arroyo_sync.__file__).parents[1]), "PYTHONUNBUFFERED": ""}
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=120, env=environment)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("output", "more"),
    [
        *(("a closed pipe", more) for more in ("", "--json", "--watch 0.01")),
        ("a full disk", ""),
        ("a closed output", "--json"),
        ("no output at all", "--watch 0.01"),
    ],
)
def test_an_output_that_fails_is_no_traceback_and_not_exit_status_1(tmp_path: Path, output: str, more: str) -> None:
    """Whoever reads, or doesn't: a pipe that is closed leaves the verdict as it is."""
    redirection, exit_status, says = OUTPUTS[output]
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    flags = " ".join([*REQUIRED, "--no-members", "--bootstrap-servers 127.0.0.1:1", more])
    assert redirected(f"{program} {flags}", redirection) == (exit_status, "", says)


@pytest.mark.parametrize("arguments", ["--print-completion bash", "--help", "--version"])
@pytest.mark.parametrize(
    ("redirection", "exit_status", "says"), [OUTPUTS["a closed pipe"], OUTPUTS["a full disk"]], ids=["pipe", "disk"]
)
def test_what_the_arguments_alone_are_answered_with_fails_alike(
    arguments: str, redirection: str, exit_status: int, says: str
) -> None:
    """It is written while they are read, or when Python ends."""
    assert redirected(f"-m arroyo_sync {arguments}", redirection) == (exit_status, "", says)


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full"], ids=["no standard error", "a full disk"])
@pytest.mark.parametrize("wrong", ["--config /nowhere", "--config /nowhere --debug", "--timeout 0"])
def test_what_goes_wrong_is_never_among_the_output(wrong: str, redirection: str) -> None:
    """Without a standard error nobody is told, and what reads the JSON goes undisturbed. The exit status says it."""
    flags = " ".join([*REQUIRED, "--json", wrong])
    assert redirected(f"-m arroyo_sync {flags}", redirection) == (2, "", "")
