"""What the documents name is there: files, headings, modules."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from tests.support.programs import ROOT, anchors_of

PATTERNS = ("*.md", ".github/*.md", "arroyo_sync/*.md", "examples/**/*.md", "tests/README.md", "tests/mutation/*.md")
DOCUMENTS = [path for pattern in PATTERNS for path in sorted(ROOT.glob(pattern))]


def links(text: str) -> list[str]:
    """Where the links and pictures lead, within the repository."""
    return [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"\w+:", link)]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_document_links_to_is_there(document: Path) -> None:
    """A file or a folder, seen from the document."""
    missing = [link for link in links(document.read_text()) if not (document.parent / link.partition("#")[0]).exists()]
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_document_links_to_has_that_heading(document: Path) -> None:
    """Of the same document, or of another one."""
    missing = []
    for link in links(document.read_text()):
        file, _, heading = link.partition("#")
        target = document.parent / file if file else document
        if heading and heading not in anchors_of(target.read_text()):
            missing.append(link)
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_document_runs_is_there(document: Path) -> None:
    """Each ``python -m tests...`` and each ``pytest`` path."""
    text = document.read_text()
    modules = set(re.findall(r"python3? -m (tests(?:\.\w+)*|arroyo_sync)", text))
    assert [module for module in modules if importlib.util.find_spec(module) is None] == []
    assert [path for path in re.findall(r"-m pytest (tests/[\w/.]+)", text) if not (ROOT / path).exists()] == []


def test_every_folder_of_the_tests_is_described() -> None:
    """In the map of ``tests/README.md``."""
    tests = ROOT / "tests"
    described = set(re.findall(r"^\| `(\w+)/` \|", (tests / "README.md").read_text(), re.MULTILINE))
    assert described == {path.parent.name for path in tests.glob("*/*.py")}


def test_every_example_is_described() -> None:
    """In the table of ``examples/README.md``; the runner is what they share."""
    text = (ROOT / "examples" / "README.md").read_text()
    described = set(re.findall(r"\[`(\w+\.py)`\]", text))
    assert described == {path.name for path in (ROOT / "examples").glob("*.py")} - {"runner.py"}


ARCHITECTURE = (ROOT / "arroyo_sync" / "ARCHITECTURE.md").read_text()


def test_the_files_of_the_architecture_are_there() -> None:
    """Seen from the package, or from the top for tests; a bare name is found in some folder."""
    package = ROOT / "arroyo_sync"
    names = set(re.findall(r"`([\w/]+(?:\.py|/))`", ARCHITECTURE))
    missing = [
        name
        for name in names
        if not (package / name).exists() and not (ROOT / name).exists() and not list(package.rglob(name.rstrip("/")))
    ]
    assert missing == []


def test_the_architectures_map_is_that_of_the_folders() -> None:
    """Each folder, with what its own ``__init__.py`` says that it may import."""
    rows = dict(re.findall(r"^\| `([\w/]+)/` \|.*\| ([^|]+) \|$", ARCHITECTURE, re.MULTILINE))
    folders = {path.parent for path in (ROOT / "arroyo_sync").rglob("*/__init__.py")}
    said = {}
    for folder in folders:
        match = re.search(r"^May import: (.+)\.$", (folder / "__init__.py").read_text(), re.MULTILINE)
        assert match is not None
        said[str(folder.relative_to(ROOT / "arroyo_sync"))] = match[1]
    assert rows == said


def test_the_locks_of_the_architecture_are_there() -> None:
    """The classes that it names, and their locks."""
    source = "\n".join(path.read_text() for path in (ROOT / "arroyo_sync").rglob("*.py"))
    locks = re.findall(r"`(\w+)\.(_\w+)`", ARCHITECTURE)
    assert len(locks) >= 3
    assert [name for name, _ in locks if f"class {name}" not in source] == []
    assert [lock for _, lock in locks if f"self.{lock} = threading." not in source] == []
