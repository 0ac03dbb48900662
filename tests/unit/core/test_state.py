"""The state manager: every change of an offset, what it does to the state, and who hears of it."""

from __future__ import annotations

import logging

import pytest
from arroyo.processing.strategies.run_task_with_multiprocessing import ChildProcessTerminated

from arroyo_sync.core.errors import (
    ArroyoSyncError,
    ConfigurationError,
    InvalidOffset,
    InvalidState,
    MessageNotReady,
    PartitionTruncated,
    TopicRecreated,
)
from arroyo_sync.core.state import (
    Offsets,
    StateAndOffsets,
    SynchronizedPartitionState,
    SynchronizedPartitionStateManager,
)

KEY = ("events", 0)
UNKNOWN, LOCAL_BEHIND, SYNCHRONIZED, REMOTE_BEHIND = SynchronizedPartitionState

Change = tuple[str, int, StateAndOffsets, StateAndOffsets]

STARTS: dict[str, list[tuple[str, int | None]]] = {
    "never seen": [],
    "both forgotten": [("local", 5), ("local", None)],
    "local only, 5": [("local", 5)],
    "remote only, 5": [("remote", 5)],
    "local behind, 4 of 5": [("local", 4), ("remote", 5)],
    "synchronized, 5 of 5": [("local", 5), ("remote", 5)],
    "remote behind, 6 of 5": [("local", 6), ("remote", 5)],
}
"""How to bring a partition into each state, once for each reason to be in it."""

CHANGES: list[tuple[str, int | None]] = [(side, to) for side in ("local", "remote") for to in (None, 4, 5, 6)]

# The state after the change: U(nknown), L(ocal behind), S(ynchronized), R(emote behind). A small letter means that the
# state was that one before, so nobody is told.
OUTCOMES: dict[str, str] = {
    #                        local to             remote to
    #                        None  4  5  6        None  4  5  6
    "never seen":            "U    U  U  U        U     U  U  U",
    "both forgotten":        "u    u  u  u        u     u  u  u",
    "local only, 5":         "u    u  u  u        u     R  S  L",
    "remote only, 5":        "u    L  S  R        u     u  u  u",
    "local behind, 4 of 5":  "U    l  S  R        U     S  l  l",
    "synchronized, 5 of 5":  "U    L  s  R        U     R  s  L",
    "remote behind, 6 of 5": "U    L  S  r        U     r  r  S",
}  # fmt: skip

TABLE = [
    pytest.param(start, change, outcome, id=f"{start}: {change[0]} to {change[1]}")
    for start, row in OUTCOMES.items()
    for change, outcome in zip(CHANGES, row.split(), strict=True)
]
NAMES = {"U": UNKNOWN, "L": LOCAL_BEHIND, "S": SYNCHRONIZED, "R": REMOTE_BEHIND}


def make_change(manager: SynchronizedPartitionStateManager, side: str, to: int | None) -> None:
    (manager.set_local_offset if side == "local" else manager.set_remote_offset)(*KEY, to)


def recording_manager() -> tuple[SynchronizedPartitionStateManager, list[Change]]:
    changes: list[Change] = []
    return SynchronizedPartitionStateManager(lambda *change: changes.append(change)), changes


@pytest.mark.parametrize(("start", "change", "outcome"), TABLE)
def test_every_change_of_an_offset_has_its_outcome(start: str, change: tuple[str, int | None], outcome: str) -> None:
    """The whole state machine: the new state, the offsets stored, and the one call of the callback or none."""
    manager, changes = recording_manager()
    for each in STARTS[start]:
        make_change(manager, *each)
    before = manager.partitions.get(KEY, (None, Offsets(None, None)))
    changes.clear()

    make_change(manager, *change)

    side, to = change
    offsets = before[1]._replace(**{side: to})
    assert manager.partitions[KEY] == (NAMES[outcome.upper()], offsets)
    assert changes == ([(*KEY, before, (NAMES[outcome], offsets))] if outcome.isupper() else [])


def test_states_follow_from_the_offsets_alone() -> None:
    """The same two offsets give the same state whichever way they were reached, and the pure function agrees."""
    for start, changes in STARTS.items():
        manager = SynchronizedPartitionStateManager()
        for change in [*changes, ("local", 7), ("remote", 7)]:
            make_change(manager, *change)
        assert manager.partitions[KEY] == (SYNCHRONIZED, Offsets(7, 7)), start
    assert SynchronizedPartitionStateManager.get_state_from_offsets(Offsets(0, None)) is UNKNOWN
    assert SynchronizedPartitionStateManager.get_state_from_offsets(Offsets(0, 0)) is SYNCHRONIZED
    assert SynchronizedPartitionStateManager.get_state_from_offsets(Offsets(0, 1)) is LOCAL_BEHIND
    assert SynchronizedPartitionStateManager.get_state_from_offsets(Offsets(1, 0)) is REMOTE_BEHIND


def test_a_partition_begins_as_unknown_and_any_state_may_follow_any_other() -> None:
    """As the states' own docs say: either offset may move anywhere or be forgotten, and none follows itself."""
    seen: set[tuple[SynchronizedPartitionState | None, SynchronizedPartitionState | None]] = set()
    for start in STARTS.values():
        for change in CHANGES:
            manager, changes = recording_manager()
            for each in [*start, change]:
                make_change(manager, *each)
            seen |= {(before[0], after[0]) for _, _, before, after in changes}
    states = set(SynchronizedPartitionState)
    assert seen == {(None, UNKNOWN), *((one, other) for one in states for other in states if one is not other)}


@pytest.mark.parametrize("offset", [-1, -2, -1000, -1001, 2**63, 1.0, True, "7"], ids=repr)
@pytest.mark.parametrize("side", ["local", "remote"])
def test_what_is_no_offset_is_refused(side: str, offset: object) -> None:
    """Logical offsets, floats and the like are an error that names the partition, and change nothing."""
    manager, changes = recording_manager()
    make_change(manager, side, 3)
    before, version = dict(manager.partitions), manager.version
    changes.clear()

    with pytest.raises(InvalidOffset, match=r"events\[0\]") as raised:
        make_change(manager, side, offset)  # type: ignore[arg-type]
    assert str(raised.value).endswith(f", not {offset!r}")

    assert isinstance(raised.value, ArroyoSyncError)
    assert isinstance(raised.value, ValueError)
    assert (dict(manager.partitions), manager.version, changes) == (before, version, [])


@pytest.mark.parametrize("offset", [0, 2**63 - 1], ids=["0", "2**63 - 1"])
def test_the_ends_of_the_range_are_offsets(offset: int) -> None:
    """0 is an offset and never means unknown; the largest of the protocol is one too."""
    manager = SynchronizedPartitionStateManager()
    manager.set_local_offset(*KEY, offset)
    manager.set_remote_offset(*KEY, offset)
    assert manager.partitions[KEY] == (SYNCHRONIZED, Offsets(offset, offset))


def test_an_offset_that_moves_back_is_logged_and_obeyed(caplog: pytest.LogCaptureFixture) -> None:
    """A leader that crashed or a partition that is read again is normal: one line each, no warning, no refusal."""
    caplog.set_level(logging.INFO)
    manager = SynchronizedPartitionStateManager()
    for to in (8, 3):
        manager.set_local_offset(*KEY, to)
        manager.set_remote_offset(*KEY, to)
    assert manager.partitions[KEY][1] == Offsets(3, 3)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", "events[0]: local offset moved back from 8 to 3"),
        ("INFO", "events[0]: remote offset moved back from 8 to 3"),
    ]


def test_a_callback_that_can_not_be_called_is_refused() -> None:
    """At once, not at the first change; and the error says how it is called."""
    with pytest.raises(ConfigurationError) as raised:
        SynchronizedPartitionStateManager(3)  # type: ignore[arg-type]
    assert str(raised.value) == (
        "callback=3: must be something to call as callback(topic, partition, (state, offsets), (state, offsets))"
    )


def test_the_callback_hears_the_changes_in_their_order() -> None:
    """A listener that only follows the callback knows the state of every partition at any time."""
    manager, changes = recording_manager()
    manager.set_local_offsets([(("events", 0), 1), (("events", 1), 9)])
    manager.set_remote_offsets([(("events", 1), 4), (("events", 0), 4)])
    manager.set_local_offset("events", 0, 4)
    assert [(index, before[0], after[0]) for _, index, before, after in changes] == [
        (0, None, UNKNOWN),
        (1, None, UNKNOWN),
        (1, UNKNOWN, REMOTE_BEHIND),
        (0, UNKNOWN, LOCAL_BEHIND),
        (0, LOCAL_BEHIND, SYNCHRONIZED),
    ]


@pytest.mark.parametrize("side", ["local", "remote"])
def test_an_offset_that_stands_still_hides_none_of_those_set_with_it(side: str) -> None:
    """Most of a batch is as it was; what has changed counts, wherever it stands in the batch."""
    manager = SynchronizedPartitionStateManager()
    set_offsets = manager.set_local_offsets if side == "local" else manager.set_remote_offsets
    set_offsets([(("events", 0), 3), (("events", 1), 3)])
    set_offsets([(("events", 0), 3), (("events", 1), 4), (("events", 2), 5)])
    assert {key: getattr(offsets, side) for key, (_, offsets) in manager.partitions.items()} == {
        ("events", 0): 3,
        ("events", 1): 4,
        ("events", 2): 5,
    }


def test_what_the_callback_raises_is_counted_and_logged_once_a_minute_and_changes_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The change counts, whoever waits for the offset is woken, and later changes are delivered."""
    told: list[object] = []

    def fail(*change: object) -> None:
        told.append(change)
        raise RuntimeError("listener")

    manager = SynchronizedPartitionStateManager(fail)
    for offset in (4, 5):
        manager.set_remote_offset(*KEY, offset)
        manager.set_local_offset(*KEY, offset)
    assert manager.partitions[KEY] == (SYNCHRONIZED, Offsets(5, 5))
    assert manager.wait_for_move(0, 0.0)
    assert manager.take_moved() == {KEY}
    assert (manager.callback_errors, len(told)) == (4, 4)
    (record,) = caplog.records
    assert record.exc_info is not None
    assert "callback for state changes raised (1 times so far)" in record.getMessage()


def test_a_change_that_the_callback_makes_is_delivered_after_it_has_returned() -> None:
    """In the order of the changes, never within another call."""
    calls: list[str] = []
    manager: SynchronizedPartitionStateManager

    def follow(topic: str, partition: int, previous: StateAndOffsets, current: StateAndOffsets) -> None:
        calls.append(f"begin {partition}")
        if partition < 3:
            manager.set_remote_offsets([((topic, partition + 1), 1), ((topic, partition + 10), 1)])
        calls.append(f"end {partition}")

    manager = SynchronizedPartitionStateManager(follow)
    manager.set_remote_offset("events", 0, 1)
    order = [0, 1, 10, 2, 11, 3, 12]
    assert calls == [f"{what} {partition}" for partition in order for what in ("begin", "end")]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, ChildProcessTerminated])
def test_what_ends_the_process_comes_out_of_the_setter_and_later_changes_are_delivered(
    kind: type[BaseException],
) -> None:
    """What a signal handler raises in the callback isn't swallowed, and leaves the manager in order."""
    told: list[int] = []

    def interrupted(topic: str, partition: int, previous: StateAndOffsets, current: StateAndOffsets) -> None:
        told.append(partition)
        if partition == 0:
            raise kind

    manager = SynchronizedPartitionStateManager(interrupted)
    with pytest.raises(kind):
        manager.set_remote_offsets([(("events", 0), 1), (("events", 1), 1)])
    manager.set_remote_offset("events", 2, 1)
    assert told == [0, 1, 2]
    assert len(manager.partitions) == 3


@pytest.mark.parametrize("topic", ["", "a:b", None, b"events", ["events"]], ids=repr)
@pytest.mark.parametrize("side", ["local", "remote"])
def test_what_is_no_topic_is_refused(side: str, topic: object) -> None:
    """By name, before anything is stored."""
    manager = SynchronizedPartitionStateManager()
    with pytest.raises(ConfigurationError, match=r"^topic="):
        getattr(manager, f"set_{side}_offset")(topic, 0, 1)
    assert dict(manager.partitions) == {}


@pytest.mark.parametrize("partition", [-1, 2**31, True, 1.0, None, "0"], ids=repr)
@pytest.mark.parametrize("side", ["local", "remote"])
def test_what_is_no_partition_is_refused(side: str, partition: object) -> None:
    """Also where Python would take it for one that is there: ``True == 1``."""
    manager = SynchronizedPartitionStateManager()
    manager.set_local_offset("events", 1, 1)
    with pytest.raises(ConfigurationError, match=r"^partition="):
        getattr(manager, f"set_{side}_offset")("events", partition, 1)
    assert list(manager.partitions) == [("events", 1)]


def test_a_revoked_partition_forgets_its_local_offset_and_a_tombstone_the_remote_one() -> None:
    """None is no error, also for a partition that never had an offset, and both can be set anew."""
    manager = SynchronizedPartitionStateManager()
    manager.set_local_offset("events", 7, None)
    manager.set_local_offset(*KEY, 5)
    manager.set_remote_offset(*KEY, 5)
    manager.set_local_offset(*KEY, None)
    assert manager.partitions[KEY] == (UNKNOWN, Offsets(None, 5))
    manager.set_remote_offset(*KEY, None)
    assert manager.partitions[KEY] == (UNKNOWN, Offsets(None, None))
    assert manager.cell(*KEY).remote is None
    manager.set_local_offset(*KEY, 1)
    manager.set_remote_offset(*KEY, 2)
    assert manager.partitions[KEY] == (LOCAL_BEHIND, Offsets(1, 2))


def test_partitions_that_are_removed_are_forgotten() -> None:
    """Whoever watched them hears that their offsets are unknown; one that comes back begins anew."""
    manager, changes = recording_manager()
    other = ("events", 1)
    for key in (KEY, other):
        manager.set_local_offset(*key, 3)
        manager.set_remote_offset(*key, 5)
    cell = manager.cell(*KEY)
    changes.clear()
    manager.remove([KEY, ("events", 7)])
    manager.deliver()
    assert changes == [("events", 0, (LOCAL_BEHIND, Offsets(3, 5)), (UNKNOWN, Offsets(3, None)))]
    assert dict(manager.partitions) == {other: (LOCAL_BEHIND, Offsets(3, 5))}
    assert manager.take_moved() == {other}
    assert (cell.remote, cell.current) == (None, (UNKNOWN, Offsets(None, None)))
    assert manager.cell(*KEY).current == (None, Offsets(None, None))
    assert manager.cell(*KEY) is not cell


def test_partitions_are_a_live_read_only_view() -> None:
    """It shows what is set, a partition nobody set is a KeyError, and iterating stands a partition that is added."""
    manager = SynchronizedPartitionStateManager()
    view = manager.partitions
    manager.cell("events", 9)
    with pytest.raises(KeyError, match=r"\('events', 9\)"):
        view["events", 9]
    assert (len(view), list(view)) == (0, [])

    manager.set_remote_offset(*KEY, 1)
    assert dict(view) == {KEY: (UNKNOWN, Offsets(None, 1))}
    for index, key in enumerate(view):
        manager.set_remote_offset("events", index + 1, 1)
        assert key == KEY
    assert len(view) == 2
    assert not hasattr(view, "__setitem__")


def test_partitions_print_as_what_is_known_of_each() -> None:
    """In a debugger or a log line, with no need to ask for them one by one."""
    manager = SynchronizedPartitionStateManager()
    assert repr(manager.partitions) == "{}"
    manager.set_remote_offset(*KEY, 1)
    assert repr(manager.partitions) == repr({KEY: (UNKNOWN, Offsets(None, 1))})


MUST_COMMIT_MORE = "not LOCAL_BEHIND: its leaders must commit more first"
NOT_RELEASED = "the remote offset is 5, so offsets below 5 are"


@pytest.mark.parametrize(
    ("local", "remote", "offset", "error"),
    [
        pytest.param(None, 5, 0, f"events[0] is UNKNOWN, {MUST_COMMIT_MORE}", id="local unknown"),
        pytest.param(0, None, 0, f"events[0] is UNKNOWN, {MUST_COMMIT_MORE}", id="remote unknown"),
        pytest.param(5, 5, 4, f"events[0] is SYNCHRONIZED, {MUST_COMMIT_MORE}", id="synchronized"),
        pytest.param(6, 5, 4, f"events[0] is REMOTE_BEHIND, {MUST_COMMIT_MORE}", id="remote behind"),
        pytest.param(3, 5, 3, None, id="released"),
        pytest.param(3, 5, 4, None, id="the last one released"),
        pytest.param(3, 5, 5, f"events[0] offset 5 is not released: {NOT_RELEASED}", id="at the remote offset"),
        pytest.param(3, 5, 6, f"events[0] offset 6 is not released: {NOT_RELEASED}", id="past the remote offset"),
    ],
)
def test_a_message_is_valid_only_below_the_remote_offset_of_an_open_partition(
    local: int | None, remote: int | None, offset: int, error: str | None
) -> None:
    """The rule of release, asked of the manager: both errors name the partition and why it is closed."""
    manager = SynchronizedPartitionStateManager()
    manager.set_local_offset(*KEY, local)
    manager.set_remote_offset(*KEY, remote)
    if error is None:
        manager.validate_local_message(*KEY, offset)
        return
    with pytest.raises((InvalidState, MessageNotReady)) as raised:
        manager.validate_local_message(*KEY, offset)
    assert str(raised.value) == error
    if isinstance(raised.value, MessageNotReady):
        assert (raised.value.offset, raised.value.remote_offset) == (offset, remote)
    else:
        assert isinstance(raised.value, InvalidState)
        assert raised.value.state is manager.partitions[KEY][0]


def test_a_message_of_an_unheard_partition_is_invalid() -> None:
    """Nothing known is a closed gate, not an error of its own."""
    with pytest.raises(InvalidState) as raised:
        SynchronizedPartitionStateManager().validate_local_message("events", 3, 0)
    assert (raised.value.topic, raised.value.partition, raised.value.state) == ("events", 3, None)


def test_of_several_failures_it_is_the_first_unless_a_later_one_says_that_more_is_gone() -> None:
    """Else the follower would commit what is of an earlier topic, since it had stalled before."""
    stalled, other = RuntimeError("stalled"), RuntimeError("another")
    truncated, recreated = PartitionTruncated("events", {0: 1}, {0: 2}), TopicRecreated("events", "one", "two")
    manager = SynchronizedPartitionStateManager()
    seen = []
    for error in (stalled, other, truncated, stalled, recreated, truncated):
        manager.fail(error)
        seen.append(manager.failure)
    assert seen == [stalled, stalled, truncated, truncated, recreated, recreated]
    with pytest.raises(TopicRecreated):
        manager.check()
