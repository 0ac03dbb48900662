"""Synchronizes offsets between Kafka consumer groups: a follower sees a message only after its leaders committed it."""

from arroyo_sync.errors import (
    ArroyoSyncError,
    ConfigurationError,
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
from arroyo_sync.leader import PublishCommitLog
from arroyo_sync.line import HoldLimits
from arroyo_sync.remote import CommitLogConsumer, HighWatermarks, RemoteOffsetSource
from arroyo_sync.state import Offsets, SynchronizedPartitionState, SynchronizedPartitionStateManager
from arroyo_sync.strategy import SynchronizedStrategy

__all__ = [
    "ArroyoSyncError",
    "CommitLogConsumer",
    "ConfigurationError",
    "FlowControlledConsumer",
    "HighWatermarks",
    "HoldLimits",
    "InvalidOffset",
    "InvalidState",
    "InvalidStateTransition",
    "MessageNotReady",
    "NotReady",
    "Offsets",
    "PublishCommitLog",
    "RemoteOffsetSource",
    "SourceDied",
    "StepRejectedInPoll",
    "SynchronizedPartitionState",
    "SynchronizedPartitionStateManager",
    "SynchronizedStrategy",
    "SynchronizedStrategyFactory",
    "UnexpectedMessage",
]
