from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from arroyo_sync.core.errors import ArroyoSyncError
from arroyo_sync.status.command import main

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
        pytest.param([], "names no brokers: give it 'bootstrap.servers'", id="no brokers"),
        pytest.param(["--bootstrap-servers", "127.0.0.1:1", "-X", "nonsense=1"], '"nonsense"', id="unknown setting"),
        pytest.param(["-X", "nonsense"], "-X takes name=value", id="no setting"),
        pytest.param(["--config", "/nowhere"], "/nowhere: No such file", id="no file"),
        pytest.param(
            ["--bootstrap-servers", "127.0.0.1:1", "--timeout", "0.1"],
            "no broker of 127.0.0.1:1 answered within 0.1 s",
            id="no broker",
        ),
        pytest.param(
            ["--bootstrap-servers", "127.0.0.1:1", "--commit-log", "a:b"], "a:b", id="an impossible commit log"
        ),
        pytest.param(["--bootstrap-servers", "127.0.0.1:1", "--topic", ""], "the topic's name is empty", id="no topic"),
    ],
)
def test_what_keeps_it_from_telling_is_one_line_and_exit_status_2(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """On standard error, without a traceback."""
    assert main([*REQUIRED, *arguments]) == 2
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


def test_a_password_that_an_error_quotes_is_filtered(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever made the error."""

    def fail(query: object) -> None:
        raise ArroyoSyncError("can't log in with hunter2")

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
    assert "pip install 'arroyo-sync[status]', or use --json" in capsys.readouterr().err
    assert main([*REQUIRED, "--bootstrap-servers", "127.0.0.1:1", "--json", "--timeout", "0.1"]) == 2
    assert "no broker" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--timeout", "--watch", "--stalled-after", "--look-again"])
def test_times_are_more_than_0(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An argument like any other."""
    with pytest.raises(SystemExit) as raised:
        main([*REQUIRED, flag, "0"])
    assert raised.value.code == 2
    assert "more than 0 seconds" in capsys.readouterr().err
