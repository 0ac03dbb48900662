"""Partitions that a rebalance of KIP-848 leaves here are fetched again at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from arroyo_sync.gate.consumer import rebalances
from tests.support.fakes import EVENTS, ScriptedConsumer
from tests.support.pipelines import Pipeline, pipeline_of


def test_retained_partitions_are_fetched_once_others_were_revoked() -> None:
    pipeline = Pipeline()
    pipeline.start(0, 1)
    pipeline.run_until_quiet()
    pipeline.consumer.rebalance(0)
    pipeline.produce(0, range(5))
    pipeline.release(0, 5)
    pipeline.run_until_quiet()
    assert pipeline.released_of(0) == list(range(5))


def test_retained_partitions_are_fetched_once_others_were_assigned() -> None:
    pipeline = Pipeline()
    pipeline.start(0)
    pipeline.run_until_quiet()
    pipeline.consumer.rebalance(0, 1)
    pipeline.produce(0, range(5))
    pipeline.release(0, 5)
    pipeline.run_until_quiet()
    assert pipeline.released_of(0) == list(range(5))


def test_closing_makes_no_strategy_though_others_were_revoked_first() -> None:
    """What lay in the client's queue is handed out in its close; the rest is revoked next."""
    pipeline = Pipeline()
    pipeline.start(0, 1)
    pipeline.run_until_quiet()
    made = len(pipeline.steps)
    close = pipeline.consumer.close

    def hand_out_and_close(timeout: float | None = None) -> None:
        pipeline.consumer.revoke(1)
        close(timeout)

    pipeline.consumer.close = hand_out_and_close  # type: ignore[method-assign]
    pipeline.stop()
    assert len(pipeline.steps) == made


def test_the_inner_consumer_subscribes_as_one_that_declines_assignments_while_it_closes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What that does to Arroyo's own is in `test_arroyo_consumer.py`."""
    subscribed: list[tuple[object, Callable[[], bool]]] = []

    @contextmanager
    def declining_assignments(consumer: ScriptedConsumer, is_closing: Callable[[], bool]) -> Iterator[None]:
        assert consumer.subscribed == []
        yield
        assert consumer.subscribed == [EVENTS]
        subscribed.append((consumer, is_closing))

    monkeypatch.setattr(rebalances, "declining_assignments", declining_assignments)
    pipeline = Pipeline()
    ((consumer, is_closing),) = subscribed
    assert (consumer, is_closing()) == (pipeline.consumer, False)
    seen: list[bool] = []
    pipeline.consumer.close = lambda timeout=None: seen.append(is_closing())  # type: ignore[method-assign]
    pipeline.stop()
    assert seen == [True]


def test_a_rebalance_in_the_poll_that_a_message_comes_in() -> None:
    """Of another partition: the next poll without one wakes those that were retained."""
    pipeline = pipeline_of(0, 1)
    pipeline.release(0, 20)
    pipeline.release(1, 20)
    pipeline.run_until_quiet()

    def assign_and_produce() -> None:
        pipeline.consumer.assign(2)
        pipeline.produce(0, range(20, 25))
        pipeline.produce(2, range(5))

    pipeline.consumer.events_while_waiting.append(assign_and_produce)
    pipeline.release(0, 25)
    pipeline.release(2, 5)
    pipeline.run_until_quiet()
    assert pipeline.released_of(0) == list(range(25))
    assert pipeline.released_of(2) == list(range(5))
