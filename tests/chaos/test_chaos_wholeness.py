"""When the driver of a chaos run takes the cluster for whole, and what it does when it isn't."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests.chaos import wholeness
from tests.chaos.faults import FAULTS
from tests.chaos.ingredients import PLAIN
from tests.chaos.run import Run
from tests.chaos.wholeness import LOOK_SECONDS, Wholeness
from tests.chaos.world import World


class Cluster:
    """Three brokers that all take each other for alive, one of them just started again."""

    def __init__(self) -> None:
        self.brokers = [
            SimpleNamespace(node_id=node_id, address=f"b:{node_id}", pid=node_id, is_serving=True)
            for node_id in (1, 2, 3)
        ]
        partition = SimpleNamespace(leader=1, replicas=[1, 2, 3], isrs=[1, 2, 3])
        topic = SimpleNamespace(partitions={0: partition})
        self._metadata = SimpleNamespace(brokers=dict.fromkeys((1, 2, 3)), topics={"events": topic})
        self.admin = SimpleNamespace(list_topics=lambda timeout: self._metadata)
        self.answering = {"b:1", "b:2", "b:3"}
        self.asked: list[str] = []

    def metadata_of(self, address: str) -> object:
        self.asked.append(address)
        return self._metadata if address in self.answering else None


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    cluster = Cluster()
    monkeypatch.setattr(wholeness, "metadata_of", cluster.metadata_of)
    return cluster


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds."""
    now = [0.0]
    monkeypatch.setattr(wholeness, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_a_broker_that_was_started_again_lacks_until_it_answers(cluster: Cluster, now: list[float]) -> None:
    """The others take it for alive as long as they haven't missed it, while it reads its logs."""
    noted: list[tuple[float, float]] = []
    whole: Any = Wholeness(cluster, lambda since, until: noted.append((since, until)))  # type: ignore[arg-type]
    assert whole.is_whole()
    cluster.brokers[2].pid, cluster.answering = 33, {"b:1", "b:2"}
    now[0] += LOOK_SECONDS
    assert (whole.is_whole(), whole.lacking) == (False, {3})
    cluster.answering.add("b:3")
    now[0] += LOOK_SECONDS
    assert whole.is_whole()
    assert len(noted) == 1
    cluster.asked.clear()
    now[0] += LOOK_SECONDS
    assert whole.is_whole()
    assert cluster.asked == [], "once it has answered, the cluster is asked alone"


def test_a_run_whose_cluster_is_broken_for_good_ends() -> None:
    """It would wait for ever, with faults left that need a whole one: a broker may end by itself."""

    class Broken(Exception): ...

    def wait_until_whole() -> None:
        raise Broken

    world: Any = SimpleNamespace(
        ingredients=PLAIN, is_whole=lambda: False, wait=lambda seconds: None, wait_until_whole=wait_until_whole
    )
    run = Run(world, 1, [name for name, fault in FAULTS.items() if fault.needs_whole])
    with pytest.raises(Broken):
        run.faults(1)


@pytest.mark.parametrize("is_gone", [True, False])
def test_a_topic_whose_deletion_some_broker_doesn_t_show_is_deleted_if_it_is_gone(is_gone: bool) -> None:
    """Else it would be missing for the rest of the run: half a fault."""

    def delete_topic(name: str) -> None:
        raise TimeoutError

    topics = {} if is_gone else {"commit-log": None}
    admin = SimpleNamespace(list_topics=lambda timeout: SimpleNamespace(topics=topics))
    waited: list[bool] = []
    world: Any = SimpleNamespace(
        cluster=SimpleNamespace(delete_topic=delete_topic, admin=admin), wait_until_whole=lambda: waited.append(True)
    )
    if is_gone:
        World.delete_topic(world, "commit-log")
    else:
        with pytest.raises(TimeoutError):
            World.delete_topic(world, "commit-log")
    assert waited
