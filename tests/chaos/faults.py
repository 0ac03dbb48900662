"""The faults that a run draws from, by name."""

from __future__ import annotations

from tests.chaos.broker_faults import (
    cut_network,
    elect_unclean,
    kill_broker,
    kill_coordinator,
    miss_broker,
    pause_broker,
)
from tests.chaos.commit_log_faults import add_log_partition, lose_commit_log, poison_commit_log, refuse_leaders
from tests.chaos.fault import Fault
from tests.chaos.ingredients import ONE_REPLICA, TRANSACTIONAL, TWO_REPLICAS
from tests.chaos.process_faults import (
    end_slow_follower,
    grow_or_shrink,
    kill,
    lose_leader,
    pause,
    restart_idle,
    rewind_leader,
    shift_clock,
    signal_in_join,
    silence_leader,
    term_twice,
)
from tests.chaos.topic_faults import (
    add_data_partition,
    begin_shut,
    delete_records,
    hang_transaction,
    outgrow_topic,
    recreate_topic,
)

FAULTS: dict[str, Fault] = {
    "follower killed": Fault(kill("follower"), 4),
    "leader killed": Fault(kill("leader"), 3),
    "broker killed": Fault(kill_broker, 3, needs_whole=True),
    "coordinator killed": Fault(kill_coordinator, 2, needs_whole=True),
    "broker away": Fault(miss_broker, 2, needs_whole=True, fits=lambda each: each.data.kind == ONE_REPLICA),
    "unclean election": Fault(elect_unclean, 1, needs_whole=True, fits=lambda each: each.data.kind == TWO_REPLICAS),
    "follower stopped beyond its session": Fault(pause("follower", 3.6), 3),
    "leader stopped beyond its session": Fault(pause("leader", 6.6), 2),
    "broker stopped beyond its session": Fault(pause_broker, 2, needs_whole=True),
    "follower group grown or shrunk": Fault(grow_or_shrink, 6),
    "signal in a join": Fault(signal_in_join, 2),
    "slow follower told to end": Fault(end_slow_follower, 1),
    "told to end twice": Fault(term_twice, 1),
    "clock shifted": Fault(shift_clock, 2),
    "leader group rewound": Fault(rewind_leader, 3, needs_whole=True),
    "leader group silent": Fault(silence_leader, 2),
    "leader group away": Fault(lose_leader, 1),
    "leader group restarted idle": Fault(restart_idle, 2),
    "commit log poisoned": Fault(poison_commit_log, 3),
    "commit-log partition added": Fault(add_log_partition, 2, needs_whole=True),
    "data partition added": Fault(add_data_partition, 2, needs_whole=True),
    "partition begun while shut": Fault(begin_shut, 1, needs_whole=True),
    "data topic recreated": Fault(recreate_topic, 1, needs_whole=True),
    "data topic outgrown": Fault(outgrow_topic, 1, needs_whole=True, fits=lambda each: each.tells_topics_apart),
    "transaction hangs": Fault(hang_transaction, 2, fits=lambda each: each.data.kind == TRANSACTIONAL),
    "records deleted under the follower": Fault(
        delete_records, 2, needs_whole=True, fits=lambda each: each.data.kind != "compacted"
    ),
    "produce refused": Fault(refuse_leaders, 2, needs_whole=True),
    "network cut": Fault(cut_network, 3),
    "commit log deleted": Fault(lose_commit_log, 1, needs_whole=True),
}
