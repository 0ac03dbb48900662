"""`package_version`: one answer, for ``arroyo_sync.__version__`` and the command alike."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError

import pytest

from arroyo_sync.core import version
from arroyo_sync.core.version import package_version


def test_it_is_the_installed_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(version, "version", {"arroyo-sync": "1.2.3"}.__getitem__)
    assert package_version() == "1.2.3"


def test_a_copy_that_nobody_has_installed_has_a_version_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that parses as a version, for whoever compares it."""

    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(version, "version", missing)
    assert package_version() == "0+unknown"
