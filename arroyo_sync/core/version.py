"""This package's own version."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def package_version() -> str:
    """The installed one's."""
    try:
        return version("arroyo-sync")
    except PackageNotFoundError:  # a copy of the sources that nobody has installed
        return "0+unknown"
