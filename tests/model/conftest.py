"""All tests of the model are in the model's time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.model import owners
from tests.model.world import models


@pytest.fixture(autouse=True)
def _models() -> Iterator[None]:
    with models(), owners.no_threads():
        yield
