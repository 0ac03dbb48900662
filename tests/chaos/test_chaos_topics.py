"""What a fault of the data topic does to the processes of a run."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from tests.chaos import topic_faults
from tests.chaos.commit_log_faults import lose_commit_log
from tests.chaos.fault import InVain
from tests.chaos.ingredients import OURS, PLAIN, SNUBA
from tests.chaos.test_chaos_processes import First
from tests.chaos.topic_faults import delete_records, outgrow_topic


def nothing(*arguments: Any, **more: Any) -> None: ...


class Leader:
    """In place of a `Slot`."""

    role = "leader"

    def __init__(self) -> None:
        self.is_paused = False

    def pause(self) -> None:
        self.is_paused = True

    def go_on(self) -> None:
        self.is_paused = False


@pytest.mark.parametrize(("publishes", "do_hang"), [(OURS, True), (SNUBA, False)])
def test_only_leaders_whose_reports_name_their_topic_hang_while_it_is_outgrown(
    monkeypatch: pytest.MonkeyPatch, publishes: str, do_hang: bool
) -> None:
    """What another one goes on to publish can't be told from a report of the new topic."""
    monkeypatch.setattr(topic_faults, "_make_long", lambda world: 1)
    monkeypatch.setattr(topic_faults, "_wait_until_all_began", lambda world, partitions, messages: None)
    leader, hung = Leader(), []

    world: Any = SimpleNamespace(
        ingredients=replace(PLAIN, leaders=tuple(replace(each, publishes=publishes) for each in PLAIN.leaders)),
        slots=[leader],
        leaders=[leader],
        leader_groups=PLAIN.leader_groups,
        questions=SimpleNamespace(ends=lambda topic: {0: (0, 300)}),
        producer=SimpleNamespace(stop=nothing, say=nothing),
        recreate_data_topic=lambda partitions: hung.append(leader.is_paused),
        **dict.fromkeys(("start_producer", "wait", "start", "stop", "set_offsets", "wants_told", "hindered"), nothing),
    )
    outgrow_topic(world, First())
    assert hung == [do_hang]


@pytest.mark.parametrize(
    ("after", "must_tell"),
    [("follower-1.1", ["group"]), ("follower-1.2", []), (None, [])],
    ids=["lives", "anew", "ended"],
)
def test_who_lives_through_a_new_commit_log_must_tell(after: str | None, must_tell: list[str]) -> None:
    """One that was just ending, and its next process, may have seen one of the two alone."""
    slot = SimpleNamespace(group="group", journal="follower-1.1", is_running=True)
    told: list[str] = []

    def create_commit_log(partitions: int) -> None:
        slot.is_running, slot.journal = after is not None, after or slot.journal

    def wants_told(pattern: str, began: float, seconds: float, *groups: str) -> None:
        told.extend(groups)

    world: Any = SimpleNamespace(
        ingredients=replace(PLAIN, followers=(replace(PLAIN.followers[0], group="group", source="all"),)),
        leaders=[],
        members=lambda group: [slot],
        questions=SimpleNamespace(ends=lambda topic: {0: (0, 300)}),
        create_commit_log=create_commit_log,
        wants_told=wants_told,
        **dict.fromkeys(("delete_topic", "wait", "start", "stop", "hindered"), nothing),
    )
    lose_commit_log(world, First())
    assert told == must_tell


def test_records_are_deleted_of_every_epoch_whose_messages_the_topic_holds() -> None:
    """After an election it holds those of the epoch before, too, and the judge goes by what a message says."""
    deleted: list[tuple[object, ...]] = []
    world: Any = SimpleNamespace(
        follower_groups=["follower"],
        members=lambda group: [],
        leader_groups=["a", "b"],
        epochs_there=[3, 4],
        gone_below={(4, 7): 1341},
        questions=SimpleNamespace(committed=lambda group: {7: 1191}),
        journal=SimpleNamespace(write=lambda *line: deleted.append(line)),
        cluster=SimpleNamespace(delete_records=nothing),
        wait=nothing,
        hindered=nothing,
    )
    delete_records(world, First())
    assert deleted == [("deleted", 3, 7, 1191), ("deleted", 4, 7, 1191)]
    assert world.gone_below == {(3, 7): 1191, (4, 7): 1341}


@pytest.mark.parametrize(("written", "error"), [({0, 1}, InVain), ({0}, TimeoutError)])
def test_leaders_are_waited_for_in_vain_only_where_there_is_something_to_do(
    written: set[int], error: type[Exception]
) -> None:
    """Those that read committed messages don't begin before a transaction ends."""
    world: Any = SimpleNamespace(
        epoch=2,
        tally=SimpleNamespace(done={"a": set()}, acked={2: {(partition, 0) for partition in written}}),
        leader_groups={"a": 1},
        delay_seconds=lambda group: 0.0,
        wait=lambda seconds, until: until(),
        look=nothing,
    )
    with pytest.raises(error, match="didn't begin"):
        topic_faults._wait_until_all_began(world, 2, 10)
