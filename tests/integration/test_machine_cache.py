"""What is kept for all processes of a machine is made once, and is never seen half made."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.integration.cluster.machine_cache import make_once
from tests.integration.cluster.storage import Storage

WORKERS = 8


def test_whoever_needs_it_at_once_waits_for_the_one_that_makes_it(tmp_path: Path) -> None:
    """Each gets it whole."""
    all_are_here = threading.Barrier(WORKERS)
    made: list[Path] = []

    def make(path: Path) -> None:
        made.append(path)
        path.mkdir()
        assert not (tmp_path / "kept").exists(), "half made, it isn't seen"
        (path / "contents").touch()

    def need(_: int) -> list[str]:
        all_are_here.wait(60)
        return [each.name for each in make_once(tmp_path / "kept", make).iterdir()]

    with ThreadPoolExecutor(WORKERS) as workers:
        assert list(workers.map(need, range(WORKERS))) == [["contents"]] * WORKERS
    assert len(made) == 1


def test_one_that_fails_leaves_nothing_and_the_next_one_tries_again(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        path.touch()
        raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError, match="the disk is full"):
        make_once(tmp_path / "kept", fail)
    assert [each.name for each in tmp_path.iterdir()] == ["kept.lock"]
    assert make_once(tmp_path / "kept", Path.touch).is_file()


def test_other_choices_have_another_storage(tmp_path: Path) -> None:
    """It is read as the tool has made it, and written as another broker's; also what lies in a folder in it."""

    def storage(*choices: str) -> Storage:
        def make(folder: Path) -> None:
            runs.append(choices)
            folder.mkdir()
            (folder / "meta.properties").write_text(f"node.id=7\ncluster.id=tools\nchoices={choices}\n")
            (folder / "metadata").mkdir()
            (folder / "metadata" / "checkpoint").write_text("levels")

        return Storage.of(tmp_path / "kafka-4", choices, make)

    runs: list[tuple[str, ...]] = []
    plain, again, other = storage(), storage(), storage("--feature", "x=0")
    assert runs == [(), ("--feature", "x=0")]
    assert plain == again != other
    plain.write(tmp_path / "data", 2, "ours")
    assert (tmp_path / "data" / "meta.properties").read_text() == "node.id=2\ncluster.id=ours\nchoices=()\n"
    assert (tmp_path / "data" / "metadata" / "checkpoint").read_text() == "levels"
