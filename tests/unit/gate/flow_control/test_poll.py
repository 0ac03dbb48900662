"""The consumer around the user's: when it polls, when it waits and for how long, and what it passes on."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import pytest
from arroyo.backends.kafka import KafkaConsumer
from arroyo.errors import ConsumerError
from arroyo.processing.strategies.abstract import MessageRejected
from arroyo.types import Partition, Topic
from confluent_kafka import KafkaError, KafkaException

from arroyo_sync.core.errors import ConfigurationError, SourceDied, TopicRecreated
from arroyo_sync.core.state import SynchronizedPartitionStateManager
from arroyo_sync.gate import flow_control
from arroyo_sync.gate.flow_control import FlowControlledConsumer
from arroyo_sync.kafka import commits
from arroyo_sync.kafka.errors import FRESH_SECONDS, LoginRefusals
from tests.support.fakes import EVENTS, At, Clock, ScriptedConsumer, partition
from tests.support.harness import TIMEOUT_SECONDS, GateHarness
from tests.support.pipelines import Pipeline, pause_at_once


def assigned(*indexes: int, **settings: Any) -> Pipeline:
    """A pipeline with these partitions, nothing produced, and empty records of what was called."""
    pipeline = Pipeline(**settings)
    pipeline.start(*indexes)
    pipeline.consumer.polls.clear()
    pipeline.waits.clear()
    return pipeline


def holding(*offsets: int, **settings: Any) -> Pipeline:
    """A pipeline that holds these messages of partition 0; partition 1 has none."""
    pipeline = assigned(0, 1, **settings)
    pipeline.produce(0, offsets)
    pipeline.run(len(offsets))
    assert pipeline.held(0) == len(offsets)
    pipeline.consumer.polls.clear()
    pipeline.waits.clear()
    return pipeline


# Polling.


@pytest.mark.parametrize("timeout", [0.1, 0.0])
def test_while_the_processor_has_paused_everything_it_waits_as_long_as_that_asks(timeout: float) -> None:
    """Nothing can come but a rebalance. A held message made it 200 tries of the rejected one in a second, not ten."""
    pipeline = open_beside_a_held_one()
    pipeline.flow.pause([partition(0), partition(1)])
    assert pipeline.flow.poll(timeout) is None
    assert pipeline.waits == [timeout]


@pytest.mark.parametrize("timeout", [1.0, 0.1, 0.0, None], ids=repr)
def test_with_nothing_held_it_polls_as_the_processor_asks(timeout: float | None) -> None:
    """Once without waiting, then for the time that was asked for: no wake-up is missed, since nothing waits for one."""
    pipeline = assigned(0)
    assert pipeline.flow.poll(timeout) is None
    assert pipeline.consumer.polls == [0.0, timeout]
    assert pipeline.waits == []


def test_a_message_that_is_there_costs_one_poll() -> None:
    """Whatever is held."""
    for pipeline in (assigned(0, 1), holding(0, 1)):
        pipeline.produce(1, [0])
        value = pipeline.flow.poll(1.0)
        assert value is not None
        assert (value.partition, value.offset) == (partition(1), 0)
        assert pipeline.consumer.polls == [0.0]
        assert pipeline.waits == []


def test_progress_while_something_is_held_no_poll_blocks_in_the_consumer() -> None:
    """It waits for a remote offset instead, and gives the processor its turn."""
    pipeline = holding(0, slice_seconds=0.004)
    assert pipeline.flow.poll(1.0) is None
    assert pipeline.consumer.polls == [0.0]
    assert pipeline.waits == [0.020]


def open_beside_a_held_one(**settings: Any) -> Pipeline:
    """Partition 0 is held, and the next messages of partition 1 are released already."""
    pipeline = holding(0, **settings)
    pipeline.release(1, 100)
    pipeline.run()
    pipeline.consumer.polls.clear()
    pipeline.waits.clear()
    return pipeline


def test_independence_waits_begin_short_after_a_message_and_double_up_to_a_slice() -> None:
    """A message doesn't end a wait: where messages stream in beside one that is held, a dry moment costs little."""
    pipeline = open_beside_a_held_one(slice_seconds=0.003)
    pipeline.produce(1, [0])
    pipeline.run_until(lambda: len(pipeline.waits) == 6)
    assert pipeline.waits == [0.00025, 0.0005, 0.001, 0.002, 0.003, 0.003]
    pipeline.produce(1, [1])
    pipeline.run_until(lambda: len(pipeline.waits) == 8)
    assert pipeline.waits[6:] == [0.00025, 0.0005]


def test_independence_no_wait_is_longer_than_a_slice_while_a_partition_is_open() -> None:
    """However long none of its messages comes: behind a transaction's marker or a gap it is open for ever."""
    pipeline = open_beside_a_held_one(slice_seconds=0.003)
    pipeline.run(50)
    assert max(pipeline.waits) == 0.003


def test_after_a_message_that_was_held_the_wait_is_a_slice_at_once() -> None:
    """The next one would most likely be held as well, and its remote offset ends the wait."""
    pipeline = open_beside_a_held_one(slice_seconds=0.003)
    pipeline.produce(1, [0])
    pipeline.run_until(lambda: len(pipeline.waits) == 1)
    pipeline.produce(0, [1])
    pipeline.run_until(lambda: len(pipeline.waits) == 2)
    assert pipeline.waits == [0.00025, 0.003]


def test_while_every_partition_is_closed_the_waits_are_longer() -> None:
    """Whatever comes is held; from 20 ms after a message they double up to a quarter of a second."""
    pipeline = holding(0)
    pipeline.run_until(lambda: len(pipeline.waits) == 6)
    assert pipeline.waits == [0.020, 0.040, 0.080, 0.160, 0.25, 0.25]
    pipeline.produce(1, [0])
    pipeline.run_until(lambda: len(pipeline.waits) == 8)
    assert pipeline.waits[6:] == [0.020, 0.040]
    assert pipeline.held(1) == 1


def test_independence_a_report_that_overtook_its_message_makes_the_waits_short() -> None:
    """The message that is to verify it comes soon, though its partition isn't open before; partition 0 is held."""
    pipeline = holding(0, 1)
    pipeline.run_until(lambda: pipeline.waits[-2:] == [0.25, 0.25])
    pipeline.waits.clear()
    pipeline.source.doubted["events", 1] = 1
    pipeline.manager.wake()
    pipeline.run_until(lambda: len(pipeline.waits) == 8)
    assert pipeline.waits == [0.25, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.25]  # the first one ends at once


@pytest.mark.parametrize("how", ["its remote offset moves", "what it held goes through", "a seek back"])
def test_independence_a_partition_that_opens_brings_the_waits_back_to_a_slice(how: str) -> None:
    """By whatever it opens, partition 0 being held all the time."""
    pipeline = holding(0, 1)
    pipeline.produce(1, [0] if how != "its remote offset moves" else [])
    if how == "a seek back":
        pipeline.release(1, 1)
    pipeline.run_until(lambda: pipeline.waits[-2:] == [0.25, 0.25])
    if how == "a seek back":
        pipeline.consumer.pause([partition(1)])  # else it is read again at once, and the partition closed again
        pipeline.flow.seek({partition(1): 0})
    else:
        pipeline.release(1, 5)
    pipeline.waits.clear()
    pipeline.run_until(lambda: len(pipeline.waits) == 9)
    assert max(pipeline.waits[1:]) <= 0.005  # the first one ends at once, since a remote offset has moved


def test_a_wait_is_no_longer_than_the_poll_that_was_asked_for() -> None:
    """The caller's timeout counts where it is shorter than a slice."""
    pipeline = holding(0, slice_seconds=0.004)
    pipeline.flow.poll(0.0001)
    pipeline.flow.poll(0.0)
    assert pipeline.waits == [0.0001, 0.0]


def test_holding_is_no_busy_loop() -> None:
    """While nothing moves and nothing comes, every round of the processor waits once, soon for a whole slice."""
    pipeline = open_beside_a_held_one(slice_seconds=0.005)
    pipeline.run(50)
    assert pipeline.waits[5:] == [0.005] * 45
    assert pipeline.consumer.polls == [0.0] * 50


def test_nothing_but_a_move_ends_a_wait() -> None:
    """What the gate has seen already doesn't: the wait lasts until its time is up."""
    pipeline = holding(0, waits_really=True, slice_seconds=0.001)
    pipeline.release(0, 0)
    pipeline.run()
    ended_by_a_move: list[bool] = []
    wait_for_move = pipeline.manager.wait_for_move

    def watched(version: int, timeout: float) -> bool:
        ended_by_a_move.append(wait_for_move(version, timeout))
        return ended_by_a_move[-1]

    pipeline.manager.wait_for_move = watched  # type: ignore[method-assign]
    pipeline.run(3)
    assert ended_by_a_move == [False] * 3


def test_by_default_it_waits_5_ms_at_most_and_10_ms_after_a_rejection() -> None:
    """For whoever makes one without the factory. Another partition is open."""
    harness = GateHarness({0: 0, 1: 0})
    harness.release(1, 1)
    harness.gate.poll()
    flow = FlowControlledConsumer(ScriptedConsumer(), harness.manager, lambda: None)
    flow.attach(harness.gate)
    waits: list[float] = []
    harness.manager.wait_for_move = lambda version, timeout: waits.append(timeout) or False  # type: ignore[method-assign, func-returns-value]
    harness.hold(0, 0)
    for _ in range(7):
        flow.poll(1.0)
    harness.step.room = 0
    harness.release(0, 1)
    harness.gate.poll()
    flow.poll(1.0)
    assert waits[-3:] == [0.005, 0.005, 0.010]


def test_progress_the_wait_ends_as_soon_as_a_remote_offset_moves() -> None:
    """From another thread, as the reader does it, during a wait that would otherwise last too long."""
    pipeline = holding(0, waits_really=True, slice_seconds=2 * TIMEOUT_SECONDS)
    is_waiting = threading.Event()
    pipeline.on_wait = is_waiting.set
    polling = threading.Thread(target=lambda: pipeline.flow.poll(2 * TIMEOUT_SECONDS), daemon=True)
    polling.start()
    assert is_waiting.wait(TIMEOUT_SECONDS)
    pipeline.release(0, 1)
    polling.join(TIMEOUT_SECONDS)
    assert not polling.is_alive()
    pipeline.processor._run_once()
    assert pipeline.released == [(0, 0)]


@pytest.mark.parametrize("moment", ["before the poll", "as the wait begins"])
def test_progress_no_wake_up_is_lost_between_the_gates_look_and_the_wait(moment: str) -> None:
    """The offset moves when the gate has looked and the wrapper hasn't begun to wait: it doesn't wait then."""
    pipeline = holding(0, waits_really=True, slice_seconds=2 * TIMEOUT_SECONDS)
    if moment == "before the poll":
        pipeline.release(0, 1)
    else:
        pipeline.on_wait = lambda: pipeline.release(0, 1)
    finished = threading.Event()

    def poll() -> None:
        pipeline.flow.poll(2 * TIMEOUT_SECONDS)
        finished.set()

    threading.Thread(target=poll, daemon=True).start()
    assert finished.wait(TIMEOUT_SECONDS)


def test_progress_while_something_is_left_over_it_does_not_wait() -> None:
    """The next slice comes at once, but new messages come before it."""
    pipeline = holding(0, 1, 2, 3, clock=(clock := Clock()), slice_seconds=0.004)
    pipeline.release(0, 4)
    clock.seconds_a_read = 0.002
    pipeline.run_until(lambda: bool(pipeline.released))
    pipeline.waits.clear()
    assert pipeline.held(0) > 0
    assert pipeline.flow.poll(1.0) is None
    assert pipeline.waits == []
    pipeline.run_until(lambda: pipeline.held(0) == 0)
    assert pipeline.waits == []


def test_after_a_rejection_it_waits_10_ms_at_most() -> None:
    """So that a step that is full isn't asked without end; Arroyo waits as long. Other partitions read on."""
    pipeline = holding(0, 1)

    def reject(at: At) -> None:
        if at[0] == 0:
            raise MessageRejected

    pipeline.step.before_submit = reject
    pipeline.release(0, 2)
    pipeline.release(1, 9)
    pipeline.run(3)
    assert pipeline.waits[-1] == 0.010
    pipeline.produce(1, [0, 1])
    pipeline.run(2)
    assert pipeline.released == [(1, 0), (1, 1)]
    pipeline.step.before_submit = lambda at: None
    pipeline.run_until_quiet()
    assert pipeline.released_of(0) == [0, 1]


def test_local_offsets_are_told_before_it_waits_for_messages() -> None:
    """Or a partition that has caught up would show as behind until the next message."""
    pipeline = assigned(0)
    pipeline.release(0, 2)
    pipeline.produce(0, [0, 1])
    pipeline.run(2)
    pipeline.flow.poll(1.0)
    assert pipeline.manager.partitions["events", 0][1].local == 2


def test_progress_what_was_released_as_another_message_came_goes_on_without_a_wait() -> None:
    """The gate looks at the remote offsets with every message, and forwards what opened in the processor's poll."""
    harness = GateHarness({0: 0, 1: 0})
    flow = FlowControlledConsumer(ScriptedConsumer(), harness.manager, lambda: None)
    flow.attach(harness.gate)
    waits: list[float] = []
    harness.manager.wait_for_move = lambda version, timeout: waits.append(timeout) or False  # type: ignore[method-assign, func-returns-value]
    harness.hold(0, 0)
    harness.release(0, 1)
    harness.hold(1, 0)
    assert flow.poll(1.0) is None
    assert waits == []


def test_each_poll_without_a_message_is_counted() -> None:
    """While something is assigned; one with a message isn't."""
    assert Pipeline().flow.empty_polls == 0
    pipeline = assigned(0)
    before = pipeline.flow.empty_polls
    pipeline.run(3)
    pipeline.produce(0, [0])
    pipeline.run(1)
    assert pipeline.flow.empty_polls == before + 3


def test_polls_for_a_rebalance_alone_are_not_counted_as_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a step rejects, all is paused: a follower that can't go on would pass for one that is given nothing."""
    pause_at_once(monkeypatch)
    pipeline = assigned(0)
    pipeline.produce(0, [0])
    pipeline.release(0, 1)
    pipeline.reject_partition(0)
    pipeline.run_until(lambda: pipeline.consumer.paused_indexes() == {0})
    polls, empty_polls = len(pipeline.consumer.polls), pipeline.flow.empty_polls
    pipeline.run(5)
    assert len(pipeline.consumer.polls) > polls
    assert pipeline.flow.empty_polls == empty_polls
    pipeline.accept()
    pipeline.run(3)
    assert pipeline.released == [(0, 0)]
    assert pipeline.flow.empty_polls > empty_polls


# The source.


def test_the_source_is_started_by_the_first_poll_and_by_nothing_before() -> None:
    """Constructors start nothing, nor does `subscribe`, which the processor's constructor calls."""
    pipeline = Pipeline()
    assert pipeline.source.starts == 0
    assert pipeline.consumer.subscribed == [EVENTS]
    pipeline.run()
    assert pipeline.source.manager is pipeline.manager


def test_a_dead_source_is_noticed_without_any_partition() -> None:
    """There is no gate then to notice it: before the first assignment, and after the last partition was revoked."""
    unassigned = Pipeline()
    unassigned.run()
    unassigned.source.die(ValueError("broken"))
    revoked = assigned(0)
    revoked.consumer.rebalance()
    revoked.run(3)
    revoked.source.die(ValueError("broken"))
    for pipeline in (unassigned, revoked):
        with pytest.raises(SourceDied, match="broken"):
            pipeline.run()


def test_a_dead_source_ends_the_processor_while_it_holds() -> None:
    """In the next round, and nothing is released any more."""
    pipeline = holding(0)
    pipeline.release(0, 1)
    pipeline.source.die(ValueError("broken"))
    with pytest.raises(SourceDied, match="broken"):
        pipeline.processor.run()
    assert pipeline.released == []
    assert pipeline.consumer.closed


def test_a_source_that_dies_in_a_rebalance_is_noticed() -> None:
    """Between the last look of the old gate, or of none, and the first look of the new one."""
    pipeline = Pipeline()
    pipeline.produce(0, [0])

    def die_and_assign() -> None:
        pipeline.source.die(ValueError("broken"))
        pipeline.consumer.assign(0)

    pipeline.consumer.events.append(die_and_assign)
    with pytest.raises(SourceDied):
        pipeline.run(5)


# The rest.


def test_order_what_is_held_past_a_seek_back_goes_on_once() -> None:
    """The gate hears of the seek at once, not with the next message: what is released meanwhile isn't doubled."""
    pipeline = holding(*range(10))
    pipeline.flow.seek({partition(0): 4})
    pipeline.release(0, 10)
    pipeline.run_until_quiet()
    assert pipeline.released == [(0, offset) for offset in range(10)]


def test_several_topics_are_refused() -> None:
    """The gate knows a partition by its index."""
    pipeline = Pipeline()
    with pytest.raises(ConfigurationError, match=r"one topic, not \['a', 'b'\]"):
        pipeline.flow.subscribe([Topic("a"), Topic("b")])
    with pytest.raises(ConfigurationError, match="one topic"):
        pipeline.flow.subscribe([])


def _kafka_error(code: int, text: str = "") -> KafkaException:
    return KafkaException(KafkaError(code, text))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        pytest.param(
            _kafka_error(KafkaError._STATE, "Failed to set assignment: Local: Erroneous state"),
            ConfigurationError,
            id="cooperative-sticky",
        ),
        pytest.param(
            _kafka_error(KafkaError._STATE, "Operation not valid in state Init"), KafkaException, id="another client's"
        ),
        pytest.param(_kafka_error(KafkaError._TRANSPORT), KafkaException, id="another error of Kafka"),
        pytest.param(KafkaException("odd"), KafkaException, id="an error without a code"),
        pytest.param(RuntimeError("mine"), RuntimeError, id="the user's error"),
    ],
)
def test_the_refused_assignment_of_cooperative_sticky_is_one_clear_line(
    error: Exception, expected: type[Exception]
) -> None:
    """librdkafka's "Erroneous state" says nothing to a user; every other error is passed on as it is."""
    pipeline = Pipeline()

    def fail() -> None:
        raise error

    pipeline.consumer.events.append(fail)
    with pytest.raises(expected) as raised:
        pipeline.run()
    if expected is ConfigurationError:
        assert str(raised.value) == (
            "Arroyo doesn't work with partition.assignment.strategy=cooperative-sticky, nor with group.protocol "
            "in capitals: use range or roundrobin, or group.protocol=consumer (KIP-848)"
        )
        assert raised.value.__cause__ is error
    else:
        assert raised.value is error


@pytest.mark.parametrize("when", ["unassigned", "at once", "waiting"])
@pytest.mark.parametrize(("code", "is_ridden_out"), [("_AUTHENTICATION", True), ("_FAIL", False)])
def test_a_login_that_is_refused_as_the_client_looks_for_the_group_is_no_end(
    when: str, code: str, is_ridden_out: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client looks again, and its own callback tells whether that is over. Nothing is lost meanwhile."""
    clock = Clock()
    logins = LoginRefusals(clock)
    monkeypatch.setattr(flow_control, "LoginRefusals", lambda _: logins)
    pipeline = Pipeline() if when == "unassigned" else assigned(0)
    clock.now += FRESH_SECONDS + 1.0
    error = ConsumerError(str(KafkaError(getattr(KafkaError, code), "FindCoordinator response error: no login")))

    def fail() -> None:
        raise error

    (pipeline.consumer.events_while_waiting if when == "waiting" else pipeline.consumer.events).append(fail)
    if is_ridden_out:
        assert pipeline.flow.poll(1.0) is None
        if when == "unassigned":
            pipeline.start(0)
        pipeline.produce(0, [0])
        value = pipeline.flow.poll(1.0)
        assert value is not None
        assert value.offset == 0
    else:
        with pytest.raises(ConsumerError) as raised:
            pipeline.flow.poll(1.0)
        assert raised.value is error


@pytest.mark.parametrize("is_start_pending", [False, True])
def test_a_commit_returns_when_it_is_made_though_it_met_a_refused_login(
    is_start_pending: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step that announces what is committed, as a leader's, does so as it returns."""
    monkeypatch.setattr(commits, "_NEXT_TRY_SECONDS", 0.0)
    pipeline = Pipeline(clock=Clock())
    if is_start_pending:
        pipeline.consumer.commit_errors.append(RuntimeError("coordinator is away"))
    pipeline.start(0)
    pipeline.consumer.commit_errors.append(KafkaException(KafkaError(KafkaError._AUTHENTICATION, "Commit failed")))
    pipeline.flow.stage_offsets({partition(0): 1})
    assert pipeline.flow.commit_offsets() == {partition(0): 1}
    assert pipeline.consumer.committed == {0: 1}


def test_what_needs_no_thought_is_the_inner_consumers() -> None:
    """Positions, commits, the member id, whether it is closed, unsubscribing."""
    pipeline = assigned(0)
    pipeline.produce(0, [0, 1])
    pipeline.flow.poll(0.0)
    assert pipeline.flow.tell() == {partition(0): 1}
    pipeline.flow.stage_offsets({partition(0): 1})
    pipeline.consumer.on_commit = lambda offsets: None
    assert pipeline.flow.commit_offsets() == {partition(0): 1}
    assert pipeline.consumer.committed == {0: 1}
    assert pipeline.flow.member_id == "scripted-member"
    pipeline.flow.unsubscribe()
    assert pipeline.consumer.subscribed == []
    assert not pipeline.flow.closed
    pipeline.flow.close()
    assert pipeline.flow.closed
    with pytest.raises(RuntimeError, match="closed"):
        pipeline.flow.paused()


def test_it_has_every_public_method_of_arroyos_consumer() -> None:
    """So that it stands wherever that one stood."""
    missing = {name for name in dir(KafkaConsumer) if not name.startswith("_")} - set(dir(FlowControlledConsumer))
    assert missing == {"LOGICAL_OFFSETS"}


def test_closing_ends_what_uses_the_consumer_first_and_stops_the_source_last() -> None:
    """A call into a closed handle could crash the process; while it closes, the last partitions are revoked."""
    order: list[object] = []

    class Inner(ScriptedConsumer):
        def close(self, timeout: float | None = None) -> None:
            order.append(("close", timeout))

    flow = FlowControlledConsumer(
        Inner(),
        SynchronizedPartitionStateManager(),
        lambda: None,
        before_close=lambda: order.append("before"),
        after_close=lambda: order.append("after"),
    )
    flow.close(2.5)
    assert order == ["before", ("close", 2.5), "after"]


def test_closing_hands_out_the_rebalances_first_and_is_not_kept_by_what_a_callback_raises(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Left in the queue, they may keep librdkafka from ever closing."""
    order: list[object] = []

    class Inner(ScriptedConsumer):
        def close(self, timeout: float | None = None) -> None:
            order.append("close")
            super().close(timeout)

    def hand_out(consumer: object) -> None:
        order.append(consumer)
        raise LookupError("in a callback")

    monkeypatch.setattr(flow_control, "hand_out_rebalances", hand_out)
    inner = Inner()
    flow = FlowControlledConsumer(
        inner, SynchronizedPartitionStateManager(), lambda: None, after_close=lambda: order.append("after")
    )
    with pytest.raises(LookupError, match="in a callback"):
        flow.close()
    assert order == [inner, "close", "after"]
    flow.close()
    assert order == [inner, "close", "after", "close"]


def test_a_consumer_whose_closing_failed_is_only_closed_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arroyo's consumer says that it isn't closed when a callback has raised meanwhile, and the processor closes it
    again. Its client is: whatever is asked of it raises, which hid the error and kept the factory from shutting down.
    """
    handed_out: list[object] = []
    monkeypatch.setattr(flow_control, "hand_out_rebalances", handed_out.append)

    class Inner(ScriptedConsumer):
        def close(self, timeout: float | None = None) -> None:
            if not timeouts:
                timeouts.append(timeout)
                raise LookupError("in a callback")
            timeouts.append(timeout)

    timeouts: list[float | None] = []
    inner = Inner()
    flow = FlowControlledConsumer(inner, SynchronizedPartitionStateManager(), lambda: None)
    with pytest.raises(LookupError, match="in a callback"):
        flow.close(2.5)
    flow.close(1.5)
    assert (handed_out, timeouts) == ([inner], [2.5, 1.5])


@pytest.mark.parametrize("is_kip848", [False, True], ids=["eager", "KIP-848"])
def test_under_auto_commit_nothing_is_staged_of_what_is_gone(is_kip848: bool) -> None:
    """librdkafka would commit it as the consumer is closed, on another cluster, or past what the new topic holds."""
    staged: list[dict[int, int]] = []

    class Inner(ScriptedConsumer):
        _KafkaConsumer__use_auto_commit = True

        def stage_offsets(self, offsets: Mapping[Partition, int]) -> None:
            staged.append({each.index: offset for each, offset in offsets.items()})

    inner = Inner(is_kip848=is_kip848)
    manager = SynchronizedPartitionStateManager()
    flow = FlowControlledConsumer(inner, manager, lambda: None)
    flow.stage_offsets({partition(0): 5})
    manager.fail(TopicRecreated("events", "one", "two"))
    flow.stage_offsets({partition(0): 6})
    assert staged == [{0: 5}]


# Which protocol the consumer follows, and what the wrapper wasn't told.


def test_under_eager_assignment_staging_goes_straight_to_the_inner_consumer() -> None:
    """No partition is retained then, so nothing is noted of what is staged, which would cost 4 % a message."""
    eager, retaining = ScriptedConsumer(is_kip848=False), ScriptedConsumer(is_kip848=True)
    manager = SynchronizedPartitionStateManager()
    assert FlowControlledConsumer(eager, manager, lambda: None).stage_offsets == eager.stage_offsets
    assert FlowControlledConsumer(retaining, manager, lambda: None).stage_offsets != retaining.stage_offsets


def test_no_loss_a_consumer_that_does_not_say_its_protocol_is_taken_to_retain_partitions() -> None:
    """As one that the user wrapped: what is staged is noted, and what was not is read again in a rebuild."""
    inner = ScriptedConsumer()
    del inner._KafkaConsumer__is_kip848
    flow = FlowControlledConsumer(inner, SynchronizedPartitionStateManager(), lambda: None)
    inner.produce(0, *range(9))
    flow.subscribe([EVENTS])
    inner.assign(0)
    for _ in range(6):
        flow.poll()
    flow.stage_offsets({partition(0): 4})
    inner.assign(1)
    assert inner.tell() == {partition(0): 4, partition(1): 0}


def test_a_partition_whose_assignment_it_was_not_told_of_is_where_the_inner_consumer_is() -> None:
    """The user's consumer may have had it before it was wrapped: seeks, rebuilds and revocations are no errors."""
    inner = ScriptedConsumer()
    inner.produce(0, *range(9))
    inner.assign(0, 1, 2)
    inner.poll()
    flow = FlowControlledConsumer(inner, SynchronizedPartitionStateManager(), lambda: None)
    assigned: list[dict[Partition, int]] = []
    flow.subscribe([EVENTS], on_assign=lambda offsets: assigned.append(dict(offsets)))
    flow.seek({partition(1): 5})
    assert dict(flow.tell()) == {partition(0): 1, partition(1): 5, partition(2): 0}
    inner.revoke(2)
    assert dict(flow.tell()) == {partition(0): 1, partition(1): 5}
    assert assigned == [{partition(0): 1, partition(1): 5}]
