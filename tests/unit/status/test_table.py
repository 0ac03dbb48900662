from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arroyo_sync.observe.snapshot import LeaderSnapshot, NextMessage, PartitionSnapshot, Snapshot
from arroyo_sync.observe.stalls import WaitsFor
from arroyo_sync.observe.verdict import Grade, Verdict, worst_first
from arroyo_sync.status.check import Status
from arroyo_sync.status.members import Member, Members
from arroyo_sync.status.summary import View, shown_name
from arroyo_sync.status.table import MIN_COLUMNS, rendered, status_lines

NOW = 1700000000.0
LEADERS = (
    LeaderSnapshot("indexers", 900, age_seconds=4.25, committed_offset=890),
    LeaderSnapshot("writers", 600, age_seconds=7200.0, committed_offset=None),
)
SILENT = (LEADERS[0], LeaderSnapshot("writers"))
REJECTED = (LEADERS[0], LeaderSnapshot("writers", 5000, age_seconds=65.0, is_rejected=True))
SNAPSHOT = Snapshot(
    NOW,
    (
        PartitionSnapshot("events", 0, 400, 600, 7, 1000, LEADERS, next_message=NextMessage(400, NOW - 9.0)),
        PartitionSnapshot("events", 1, 600, 600, 7, 1000, LEADERS, next_message=NextMessage(600, NOW - 4e8)),
        PartitionSnapshot("events", 2, None, None, 7, 1000, SILENT),
        PartitionSnapshot("events", 3, 1000, None, 7, 1001, REJECTED),
    ),
)
LEADER, FOLLOWER = WaitsFor.LEADER, WaitsFor.FOLLOWER
VERDICTS = (
    Verdict("events", 1, Grade.STALLED, LEADER, "writers", 600, 300.0, 400, False, 600, 600),
    Verdict("events", 2, Grade.UNKNOWN, LEADER, "writers", None, 1.0, 993, False, 7, None, "it has never reported"),
    Verdict("events", 3, Grade.WAITING, LEADER, "writers", 5000, 20.0, 1, True, 1000, None),
    Verdict("events", 0, Grade.OK, FOLLOWER, None, None, 0.5, 200, False, 400, 600),
)
STATUS = Status(SNAPSHOT, VERDICTS)
ALL_OK = replace(STATUS, verdicts=tuple(replace(each, grade=Grade.OK) for each in VERDICTS))
VIEW = View("forwarder")


def shown(status: Status = STATUS, view: View = VIEW, width: int = 160, members: Members | None = None) -> list[str]:
    return [" ".join(line.plain.split()) for line in status_lines(status, view, width, members)]


def rows(lines: list[str]) -> list[str]:
    return [line for line in lines if re.match(r"\d+ (stalled|unknown|waiting|ok) ", line)]


def test_a_row_for_each_partition_the_worst_first() -> None:
    """The verdict, since when, how many wait, offsets, every leader's report and its age, and for whom it waits."""
    lines = shown()
    header = next(line for line in lines if line.startswith("part "))
    assert header == "part verdict since waiting written follower remote end indexers writers begin state waits for"
    assert rows(lines) == [
        "1 stalled 5 min ~400 - 600 600 1000 900 4.2 s 600 2.0 h 7 SYNCHRONIZED writers",
        "2 unknown 1.0 s ~993 - - ? 1000 900 4.2 s - - 7 UNKNOWN writers (never reported)",
        "3 waiting 20 s 1 - 1000 ? 1001 900 4.2 s 5000 65 s 7 UNKNOWN writers (not believed)",
        "0 ok 0.5 s ~200 9.0 s 400 600 1000 900 4.2 s 600 2.0 h 7 LOCAL_BEHIND the follower",
    ]


def test_at_80_columns_what_has_no_room_stands_below_for_the_worst() -> None:
    """No offset of a group is lost."""
    lines = shown(width=80)
    assert rows(lines)[0] == "1 stalled 5 min ~400 - 600 1000 writers"
    assert "events[1] stalled for 5 min: up to 400 messages wait for group 'writers', which" in lines
    assert "indexers: published 900 4.2 s ago, committed 890" in lines
    assert "writers: published 600 2.0 h ago, committed nothing" in lines


def test_a_line_for_each_grade_and_for_each_group() -> None:
    """With how many, for how long, and who is in the group."""
    members: Members = {
        "writers": [Member("w-1", "10.0.0.1", (0, 1)), Member("w-2", "10.0.0.2", (2, 3))],
        "indexers": [],
        "forwarder": "the brokers didn't answer in time",
    }
    lines = shown(members=members, width=200)
    assert lines[:2] == ["events, followed by forwarder", "2023-11-14 22:13:20 UTC stalled"]
    assert lines[2:9] == [
        "stalled: partition 1, for up to 5 min, ~400 messages",
        "unknown: partition 2, for up to 1.0 s, ~993 messages",
        "waiting: partition 3, for up to 20 s, 1 messages",
        "ok: partition 0, ~200 messages",
        "leader indexers: reported 4 of 4 partitions, last 4.2 s ago, the oldest 4.2 s; it has no members: stopped, or"
        " not a consumer group",
        "leader writers: reported 3 of 4 partitions, last 65 s ago, the oldest 2.0 h; waited for in 3 partitions (1-3);"
        " 2 members: w-1@10.0.0.1 has 0-1, w-2@10.0.0.2 has 2-3",
        "follower forwarder: its members can't be told: the brokers didn't answer in time",
    ]
    assert rows(lines)[0].endswith("writers (w-1@10.0.0.1)")


def test_a_leader_without_members_is_said_where_it_is_waited_for() -> None:
    """Stopped, not slow."""
    assert rows(shown(members={"writers": []}))[0].endswith("writers (no members)")
    slow = replace(VERDICTS[3], grade=Grade.WAITING)
    status = replace(STATUS, verdicts=(slow,))
    assert rows(shown(status, members={"forwarder": []}))[0].endswith("the follower (no members)")
    member = Member("f-1", "10.0.0.3", (0,))
    assert rows(shown(status, members={"forwarder": [member]}))[0].endswith("the follower (f-1@10.0.0.3)")


def test_all_is_well_is_green_and_a_stall_is_not() -> None:
    """In words and in colour."""
    assert any(line.endswith("ok: nothing stands still") for line in shown(ALL_OK))
    styles = {line.plain.split("  ")[-1]: line.style for line in status_lines(ALL_OK, VIEW, 80)[:2]}
    assert styles["ok: nothing stands still"] == "bold green"
    assert str(status_lines(STATUS, VIEW, 80)[1].style) == "bold red"


def test_doubts_notes_and_blindness_are_said() -> None:
    """Before everything else."""
    view = replace(VIEW, notes=("5.0 messages a second",), blind="since 12:00:00 UTC (7 s): no broker answered")
    lines = shown(replace(ALL_OK, doubts=("nobody knows",)), view)
    assert lines[1:5] == [
        "Blind since 12:00:00 UTC (7 s): no broker answered. What follows is of 2023-11-14 22:13:20 UTC",
        "2023-11-14 22:13:20 UTC can't tell",
        "can't tell: nobody knows",
        "5.0 messages a second",
    ]


def test_only_what_is_asked_for_is_shown_and_never_nothing() -> None:
    """Partitions, grades, and how many; what is left out is counted."""
    assert [row.split()[0] for row in rows(shown(view=replace(VIEW, partitions=[0, 3])))] == ["3", "0"]
    grades = [Grade.STALLED, Grade.WAITING]
    assert [row.split()[0] for row in rows(shown(view=replace(VIEW, grades=grades)))] == ["1", "3"]
    lines = shown(view=replace(VIEW, max_rows=1))
    assert [row.split()[0] for row in rows(lines)] == ["1"]
    assert "3 more partitions are left out: --all shows them" in lines
    assert "4 other partitions were not asked for" in shown(view=replace(VIEW, partitions=[9]))
    both = shown(view=replace(VIEW, partitions=[0, 3], max_rows=1))
    assert "1 more partitions are left out: --all shows them" in both
    assert "2 other partitions were not asked for" in both
    assert any("nothing stands still" in line for line in shown(Status(Snapshot(0.0, ()))))


def test_without_a_commit_log_the_commits_on_the_broker_are_shown_and_explained() -> None:
    """Nothing is said of publishing."""
    lines = shown(view=replace(VIEW, uses_commit_log=False), width=80)
    text = " ".join(lines)
    assert "published" not in text
    assert "committed: the leader's commit on the broker" in text
    assert "leader writers: committed 3 of 4 partitions" in text


def test_the_legend_explains_the_next_offset_and_the_brokers_delay() -> None:
    """Being off by one, and taking a commit's delay for a fault, are what operators report most."""
    text = " ".join(shown())
    assert "Every offset is the next one: a group at 42 has done everything up to 41" in text
    assert "comes up to a second later, by its commit policy" in text


def test_the_legend_gives_way_to_what_it_explains() -> None:
    """On a screen that is too low for both."""
    assert len(shown(view=replace(VIEW, screen_lines=60), width=80)) > 35
    lines = shown(view=replace(VIEW, screen_lines=35), width=80)
    assert len(lines) <= 35
    assert lines[-1] == "--help says what the columns mean"
    assert lines[0] == "events, followed by forwarder"


def test_names_are_shown_without_what_a_terminal_would_obey() -> None:
    """No markup, no escape sequences; long ones are shortened in the middle, and come whole with --wide."""
    nasty = "[bold red]\x1b[2J\n\x00:" + "x" * 5000
    leader = LeaderSnapshot(nasty, 50)
    partition = PartitionSnapshot("events", 0, 50, 50, 0, 100, (leader,))
    verdict = Verdict("events", 0, Grade.STALLED, LEADER, nasty, 50, 300.0, 50, False, 50, 50)
    text = rendered(status_lines(Status(Snapshot(NOW, (partition,)), (verdict,)), VIEW, 80), is_terminal=False)
    assert "[bold red]\\x1b[2J\\n\\x00:" in text
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 80
    wide = status_lines(Status(Snapshot(NOW, (partition,)), (verdict,)), replace(VIEW, is_wide=True), 80)
    assert shown_name(nasty, 10_000) in rendered(wide, is_terminal=False)


NAMES = st.one_of(st.sampled_from(["writers", "a" * 249, "[red]x[/]", "a b"]), st.text(min_size=1, max_size=40))


@st.composite
def statuses(draw: st.DrawFn) -> Status:
    """Of few or many partitions and groups, with offsets of few or many digits."""
    groups = draw(st.lists(NAMES, min_size=1, max_size=5, unique=True))
    base = 10 ** draw(st.sampled_from([0, 3, 9, 15]))
    partitions, verdicts = [], []
    for index in range(draw(st.sampled_from([1, 3, 12]))):
        offset = st.one_of(st.none(), st.integers(base, base * 9))
        leaders = tuple(
            LeaderSnapshot(group, draw(offset), age_seconds=draw(st.floats(0, 1e10)), committed_offset=draw(offset))
            for group in groups
        )
        high = draw(st.one_of(st.none(), st.integers(base, base * 9)))
        local, remote = draw(offset), draw(offset)
        partitions.append(PartitionSnapshot("events", index, local, remote, 0, high, leaders))
        whom = draw(st.sampled_from([None, LEADER, FOLLOWER]))
        verdicts.append(
            Verdict(
                "events",
                index,
                draw(st.sampled_from(list(Grade))),
                whom,
                groups[0] if whom is LEADER else None,
                leaders[0].published_offset,
                draw(st.floats(0, 1e10)),
                draw(st.integers(0, base * 9)),
                draw(st.booleans()),
                local,
                remote,
                draw(st.sampled_from(["", "a reason of some length that doesn't fit into a column of the table"])),
            )
        )
    return Status(Snapshot(NOW, tuple(partitions)), tuple(worst_first(verdicts)))


@settings(max_examples=100, deadline=None)
@given(status=statuses(), width=st.sampled_from([80, 81, 100, 120, 200]), uses_commit_log=st.booleans())
def test_no_line_is_too_wide_no_number_is_cut_and_nothing_is_left_unsaid(
    status: Status, width: int, uses_commit_log: bool
) -> None:
    """Whatever the number of groups and partitions, the digits of the offsets and the names."""
    view = replace(VIEW, uses_commit_log=uses_commit_log, max_rows=None)
    text = rendered(status_lines(status, view, width), is_terminal=False)
    assert max(map(len, text.splitlines())) <= width
    numbers = set(re.findall(r"\d+", text))
    for partition, verdict in zip(
        sorted(status.snapshot.partitions, key=lambda each: each.key),
        sorted(status.verdicts, key=lambda each: each.key),
        strict=True,
    ):
        assert str(verdict.behind) in numbers
        if len(status.verdicts) == 1 and verdict.grade is not Grade.OK:
            for leader in partition.leaders:
                assert leader.published_offset is None or str(leader.published_offset) in numbers
    assert MIN_COLUMNS == 80


@pytest.mark.parametrize("count", [1, 200])
@pytest.mark.parametrize("groups", [1, 5])
@pytest.mark.parametrize("digits", [4, 16])
def test_it_fits_80_columns(count: int, groups: int, digits: int) -> None:
    """The corners, each with every partition stalled."""
    offset = 10 ** (digits - 1)
    leaders = tuple(LeaderSnapshot(f"group-{each}", offset, age_seconds=1.0) for each in range(groups))
    partitions = tuple(
        PartitionSnapshot("events", index, offset, offset, 0, 2 * offset, leaders) for index in range(count)
    )
    verdicts = tuple(
        Verdict("events", index, Grade.STALLED, LEADER, "group-0", offset, 300.0, offset, False, offset, offset)
        for index in range(count)
    )
    status = Status(Snapshot(NOW, partitions), verdicts)
    text = rendered(status_lines(status, View("forwarder", max_rows=None), 80), is_terminal=False)
    assert max(map(len, text.splitlines())) <= 80
    assert len(rows([" ".join(line.split()) for line in text.splitlines()])) == count
