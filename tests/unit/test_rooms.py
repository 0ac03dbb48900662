"""Each folder imports only what its ``__init__.py`` says that it may, and none grows past what a reader can hold."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import arroyo_sync

PACKAGE = Path(arroyo_sync.__file__).parent
FOLDERS = sorted(path.parent for path in PACKAGE.rglob("__init__.py") if path.parent != PACKAGE)
MAX_MODULES = 10
MAX_LINES = 400


def room_of(folder: Path) -> str:
    """``leaders.commit_log`` for that folder."""
    return ".".join(folder.relative_to(PACKAGE).parts)


ROOMS = {room_of(folder) for folder in FOLDERS}


def allowed_for(folder: Path) -> set[str]:
    """What the second paragraph of the folder's docstring names."""
    docstring = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
    match = re.search(r"^May import: (.+)\.$", docstring, re.MULTILINE)
    assert match is not None, f"{folder}/__init__.py doesn't say 'May import: ...'"
    return set() if match[1] == "nothing of ours" else set(match[1].split(", "))


def imported_modules(source: str) -> Iterator[str]:
    """The modules of this package that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            if node.module is not None and node.module.split(".")[0] == "arroyo_sync":
                yield from (f"{node.module}.{name.name}" for name in node.names)
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.split(".")[0] == "arroyo_sync")


def room_of_module(module: str) -> str:
    """The innermost room of ``arroyo_sync.leaders.commit_log.record.encode``; ``""`` for the package itself."""
    parts = module.split(".")[1:]
    return max((".".join(parts[:end]) for end in range(len(parts) + 1) if ".".join(parts[:end]) in ROOMS), default="")


def forbidden_imports(room: str, allowed: set[str], source: str) -> list[str]:
    """What a file of the room imports and may not."""
    return [each for each in imported_modules(source) if room_of_module(each) not in allowed | {room}]


@pytest.mark.parametrize("folder", FOLDERS, ids=room_of)
def test_a_folder_imports_only_what_it_says(folder: Path) -> None:
    """Both ways: what it doesn't use it doesn't name either."""
    room, allowed = room_of(folder), allowed_for(folder)
    assert allowed <= ROOMS
    used: set[str] = set()
    for path in sorted(folder.glob("*.py")):
        assert forbidden_imports(room, allowed, path.read_text()) == [], path
        used |= {room_of_module(each) for each in imported_modules(path.read_text())}
    assert used - {room} == allowed


def test_imports_run_one_way_between_folders() -> None:
    order: list[str] = []
    allowed = {room_of(folder): allowed_for(folder) for folder in FOLDERS}
    while len(order) < len(allowed):
        ready = [room for room, below in allowed.items() if room not in order and below <= set(order)]
        assert ready, f"a circle among {sorted(set(allowed) - set(order))}"
        order += ready
    assert "leaders" not in allowed["gate"]
    assert "gate" not in allowed["leaders"]


@pytest.mark.parametrize(
    ("source", "forbidden"),
    [
        ("from arroyo_sync.core.state import Offsets", []),
        ("from arroyo_sync.gate.factory import SynchronizedStrategyFactory", []),
        ("from arroyo_sync.leaders.verifier import Verifier", ["arroyo_sync.leaders.verifier.Verifier"]),
        ("import arroyo_sync.leaders.verifier", ["arroyo_sync.leaders.verifier"]),
        ("def late():\n    from arroyo_sync.leaders import verifier", ["arroyo_sync.leaders.verifier"]),
        ("from arroyo_sync import CommitLogConsumer", ["arroyo_sync.CommitLogConsumer"]),
    ],
)
def test_a_forbidden_import_is_found(source: str, forbidden: list[str]) -> None:
    """Wherever it stands; also by way of the package's own names."""
    assert forbidden_imports("gate", {"core", "kafka", "observe", "sentry"}, source) == forbidden


@pytest.mark.parametrize("folder", FOLDERS, ids=room_of)
def test_a_folder_and_its_modules_are_small(folder: Path) -> None:
    modules = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
    assert len(modules) <= MAX_MODULES
    assert {path.name: lines for path in modules if (lines := len(path.read_text().splitlines())) > MAX_LINES} == {}
