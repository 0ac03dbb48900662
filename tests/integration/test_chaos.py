"""A short chaos run: the whole of `tests.chaos`, with few faults. Long ones: ``python -m tests.chaos``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos import world
from tests.chaos.checker import PROMISES
from tests.chaos.ingredients import PLAIN
from tests.chaos.run import run
from tests.integration.cluster.cluster import KafkaCluster
from tests.support.sabotage import VARIABLE

Start = Callable[..., KafkaCluster]

FEW = ("follower killed", "broker killed", "leader group rewound", "commit log poisoned")


@pytest.mark.usefixtures("kafka_cluster")
def test_every_promise_holds_through_a_few_faults(tmp_path: Path) -> None:
    """Three brokers, two leader groups, followers under both group protocols, each a process of its own."""
    verdict, summary = run(tmp_path, faults=4, seed=12, only=FEW, last_rounds=1, last_stills=2, ingredients=PLAIN)
    assert verdict.violations == []
    assert summary["violations"] == dict.fromkeys(PROMISES, 0)
    assert summary["kinds"] == dict.fromkeys(FEW, 1), "each once: the seed is one with which it is so"
    assert summary["skipped"] == []
    assert summary["all_came"], "at the end, in each kind of round"
    assert verdict.rounds >= 5
    assert verdict.deliveries - verdict.duplicates > verdict.messages  # there are two follower groups


@pytest.mark.usefixtures("kafka_cluster")
def test_a_gate_that_releases_one_message_too_many_is_found(tmp_path: Path) -> None:
    """The same run, with followers whose gate is broken: it can fail."""
    verdict, _ = run(
        tmp_path,
        faults=1,
        seed=7,
        only=["follower killed"],
        environment={VARIABLE: "off by one"},
        last_rounds=1,
        last_stills=0,
        ingredients=PLAIN,
    )
    assert {violation.promise for violation in verdict.violations} == {"safety"}


@pytest.mark.usefixtures("kafka_cluster")
def test_a_broker_that_stays_away_is_restarted_and_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an operator would; its log is kept, since its folder goes away with it."""
    with world.World(tmp_path) as three_brokers:
        three_brokers.wait_until_whole()
        monkeypatch.setattr(world, "STUCK_SECONDS", 1.0)  # not before: a start may take longer
        broker = three_brokers.cluster.brokers[1]
        broker.kill()
        with broker.log.open("a") as log:
            log.write("its last words\n")  # a broker that is well may have said nothing
        assert three_brokers.wait(30.0, lambda: not three_brokers.is_whole())
        three_brokers.wait_until_whole()
        assert all(broker.is_serving for broker in three_brokers.cluster.brokers)
    repairs = [line for line in (tmp_path / "driver.jsonl").read_text().splitlines() if "operator" in line]
    assert ["restarts broker 2" in line for line in repairs] == [True]
    assert "its last words" in (tmp_path / "broker-2.log").read_text()
