"""What a fault of the data topic does to the processes of a run."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from tests.chaos import topic_faults
from tests.chaos.ingredients import OURS, PLAIN, SNUBA
from tests.chaos.test_chaos_processes import First
from tests.chaos.topic_faults import outgrow_topic


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
    monkeypatch.setattr(topic_faults, "_wait_until_all_began", lambda world, partitions: None)
    leader, hung = Leader(), []

    def nothing(*arguments: Any, **more: Any) -> None: ...

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
