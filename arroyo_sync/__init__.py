"""Synchronizes offsets between Kafka consumer groups: a follower sees a message only after its leaders committed it."""

from arroyo_sync.core.errors import (
    AccessRefused,
    ArroyoSyncError,
    ConfigurationError,
    FollowerStalled,
    InvalidOffset,
    InvalidState,
    MessageNotReady,
    NotReady,
    SourceDied,
    StepRejectedInPoll,
    UnexpectedMessage,
)
from arroyo_sync.core.source import HighWatermarks, RemoteOffsetSource
from arroyo_sync.core.state import Offsets, SynchronizedPartitionState, SynchronizedPartitionStateManager
from arroyo_sync.gate.factory import SynchronizedStrategyFactory
from arroyo_sync.gate.flow_control import FlowControlledConsumer
from arroyo_sync.gate.interpreter import tune_interpreter
from arroyo_sync.gate.partition_buffer import HoldLimits
from arroyo_sync.gate.strategy import SynchronizedStrategy
from arroyo_sync.kafka.error_callbacks import log_if_refused, raise_if_refused
from arroyo_sync.leaders.commit_log.consumer import CommitLogConsumer
from arroyo_sync.leaders.commit_log.publisher import CommitLogPublisher, PublishCommitLog
from arroyo_sync.leaders.group_offsets import GroupOffsetsSource
from arroyo_sync.observe.snapshot import LeaderSnapshot, PartitionSnapshot, Snapshot
from arroyo_sync.observe.stalls import Stall

__all__ = [
    "AccessRefused",
    "ArroyoSyncError",
    "CommitLogConsumer",
    "CommitLogPublisher",
    "ConfigurationError",
    "FlowControlledConsumer",
    "FollowerStalled",
    "GroupOffsetsSource",
    "HighWatermarks",
    "HoldLimits",
    "InvalidOffset",
    "InvalidState",
    "LeaderSnapshot",
    "MessageNotReady",
    "NotReady",
    "Offsets",
    "PartitionSnapshot",
    "PublishCommitLog",
    "RemoteOffsetSource",
    "Snapshot",
    "SourceDied",
    "Stall",
    "StepRejectedInPoll",
    "SynchronizedPartitionState",
    "SynchronizedPartitionStateManager",
    "SynchronizedStrategy",
    "SynchronizedStrategyFactory",
    "UnexpectedMessage",
    "log_if_refused",
    "raise_if_refused",
    "tune_interpreter",
]
