"""What a machine may lack. The tests that need it are skipped in words, which pytest repeats at its end."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest


def lacking(what: str) -> NoReturn:
    """Skip the test that runs. With ``CI=true`` it fails: a skip would hide that nothing was tested.

    :param what: says what is needed, what for, and how to get it.
    """
    if os.environ.get("CI") == "true":
        pytest.fail(what, pytrace=False)
    pytest.skip(what)


def require_program(what_for: str, package: str, *names: str) -> str:
    """The path of the first of these programs that is there.

    :param package: Debian's.
    """
    for name in names:
        path = shutil.which(name)
        if path is not None:
            return path
    lacking(f"{what_for} needs {names[0]} (Debian: {package}): install it, then run again")
