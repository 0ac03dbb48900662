"""The script that ``--print-completion`` prints, as bash uses it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from arroyo_sync.status.command import main

COMPLETE = """\
source "$1"; shift
function=$(complete -p arroyo-sync | sed 's/.*-F \\([^ ]*\\).*/\\1/')
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
$function arroyo-sync "${@: -1}" "${@: -2:1}"
printf '%s\\n' "${COMPREPLY[@]}"
"""
"""What bash does at a press of Tab behind these words."""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For bash, printed by the command."""
    path = tmp_path_factory.mktemp("completion") / "arroyo-sync"
    command = [sys.executable, "-m", "arroyo_sync", "--print-completion", "bash"]
    path.write_text(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout)
    return path


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([""], {"status", "groups", "tail"}),
        (["st"], {"status"}),
        (["tail", "--fo"], {"--follow"}),
        (["status", "--topic", "events", "--leader"], {"--leader-group"}),
        (["status", "--verdict", ""], {"stalled", "unknown", "waiting", "ok"}),
        (["status", "--config", "{folder}/arroyo"], {"{folder}/arroyo-sync"}),
    ],
    ids=["commands", "a command", "a flag", "a later flag", "grades", "files"],
)
def test_bash_completes_commands_flags_grades_and_files(script: Path, words: list[str], expected: set[str]) -> None:
    """Whatever comes before."""
    given = [word.format(folder=script.parent) for word in words]
    command = ["bash", "-c", COMPLETE, "bash", str(script), "arroyo-sync", *given]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert set(done.stdout.split()) == {word.format(folder=script.parent) for word in expected}


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_have_a_script_too(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With every command in it."""
    with pytest.raises(SystemExit) as raised:
        main(["--print-completion", shell])
    assert raised.value.code == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("status", "groups", "tail", "leader-group"))


def test_without_shtab_it_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for the table."""
    monkeypatch.setitem(sys.modules, "shtab", None)
    with pytest.raises(SystemExit) as raised:
        main(["--print-completion", "bash"])
    assert raised.value.code == 2
    assert "pip install '.[completion]'" in capsys.readouterr().err
