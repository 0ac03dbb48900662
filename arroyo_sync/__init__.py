"""Synchronizes offsets between Kafka consumer groups: a follower sees a message only after its leaders committed it."""

from arroyo_sync.access import log_if_refused, raise_if_refused
from arroyo_sync.errors import (
    AccessRefused,
    ArroyoSyncError,
    ConfigurationError,
    FollowerStalled,
    InvalidOffset,
    InvalidState,
    InvalidStateTransition,
    MessageNotReady,
    NotReady,
    SourceDied,
    StepRejectedInPoll,
    UnexpectedMessage,
)
from arroyo_sync.factory import SynchronizedStrategyFactory
from arroyo_sync.flow_control import FlowControlledConsumer
from arroyo_sync.group_offsets import GroupOffsetsSource
from arroyo_sync.interpreter import tune_interpreter
from arroyo_sync.leader import PublishCommitLog
from arroyo_sync.line import HoldLimits
from arroyo_sync.remote import CommitLogConsumer, HighWatermarks, RemoteOffsetSource
from arroyo_sync.snapshot import LeaderSnapshot, PartitionSnapshot, Snapshot
from arroyo_sync.stalls import Stall
from arroyo_sync.state import Offsets, SynchronizedPartitionState, SynchronizedPartitionStateManager
from arroyo_sync.strategy import SynchronizedStrategy

__all__ = [
    "AccessRefused",
    "ArroyoSyncError",
    "CommitLogConsumer",
    "ConfigurationError",
    "FlowControlledConsumer",
    "FollowerStalled",
    "GroupOffsetsSource",
    "HighWatermarks",
    "HoldLimits",
    "InvalidOffset",
    "InvalidState",
    "InvalidStateTransition",
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
