"""What a follower's program asks of CPython."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator

import pytest

from arroyo_sync import tune_interpreter


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    interval, thresholds = sys.getswitchinterval(), gc.get_threshold()
    yield
    sys.setswitchinterval(interval)
    gc.set_threshold(*thresholds)


def test_threads_switch_sooner_and_the_collector_comes_more_seldom() -> None:
    """The values that the README's numbers were measured with."""
    sys.setswitchinterval(0.005)
    gc.set_threshold(700, 10, 10)
    tune_interpreter()
    assert sys.getswitchinterval() == pytest.approx(0.0005, abs=2e-6)
    assert gc.get_threshold() == (50_000, 50, 100)


def test_what_a_program_has_set_further_stays() -> None:
    """Each value by itself."""
    sys.setswitchinterval(0.0001)
    gc.set_threshold(100_000, 10, 1_000)
    tune_interpreter()
    assert sys.getswitchinterval() == pytest.approx(0.0001, abs=2e-6)
    assert gc.get_threshold() == (100_000, 50, 1_000)


def test_a_collector_that_is_off_stays_off() -> None:
    """A first threshold of 0 switches it off, `gc` says."""
    gc.set_threshold(0, 10, 10)
    tune_interpreter()
    assert gc.get_threshold()[0] == 0
