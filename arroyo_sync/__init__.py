"""Synchronizes offsets between Kafka consumer groups: a follower sees a message only after its leaders committed it."""

from importlib.metadata import PackageNotFoundError, version

from arroyo_sync.core.errors import (
    AccessRefused,
    ArroyoSyncError,
    BrokersUnreachable,
    CommitLogMissing,
    ConfigurationError,
    FollowerStalled,
    InvalidOffset,
    InvalidState,
    MalformedRecord,
    MessageNotReady,
    NotReady,
    SourceDied,
    StepRejectedInPoll,
    TopicMissing,
    TopicRecreated,
    UnexpectedMessage,
)
from arroyo_sync.core.source import HighWatermarks, RemoteOffsetSource, SourceStatistics
from arroyo_sync.core.state import Offsets, SynchronizedPartitionState, SynchronizedPartitionStateManager
from arroyo_sync.gate.factory import SynchronizedStrategyFactory
from arroyo_sync.gate.flow_control import FlowControlledConsumer
from arroyo_sync.gate.interpreter import tune_interpreter
from arroyo_sync.gate.partition_buffer import HoldLimits
from arroyo_sync.gate.strategy import SynchronizedStrategy
from arroyo_sync.kafka.error_callbacks import log_if_refused, raise_if_refused
from arroyo_sync.leaders.commit_log.consumer import CommitLogConsumer
from arroyo_sync.leaders.commit_log.publishing.publisher import CommitLogPublisher, PublishCommitLog
from arroyo_sync.leaders.group_offsets import GroupOffsetsSource
from arroyo_sync.observe.healthcheck import HealthcheckUnlessStalled
from arroyo_sync.observe.metrics import METRICS, MetricDef
from arroyo_sync.observe.snapshot import LeaderSnapshot, PartitionSnapshot, Snapshot
from arroyo_sync.observe.stalls import Stall, WaitsFor

try:
    __version__ = version("arroyo-sync")
except PackageNotFoundError:  # a copy of the sources that nobody has installed
    __version__ = "0+unknown"

__all__ = [
    "METRICS",
    "AccessRefused",
    "ArroyoSyncError",
    "BrokersUnreachable",
    "CommitLogConsumer",
    "CommitLogMissing",
    "CommitLogPublisher",
    "ConfigurationError",
    "FlowControlledConsumer",
    "FollowerStalled",
    "GroupOffsetsSource",
    "HealthcheckUnlessStalled",
    "HighWatermarks",
    "HoldLimits",
    "InvalidOffset",
    "InvalidState",
    "LeaderSnapshot",
    "MalformedRecord",
    "MessageNotReady",
    "MetricDef",
    "NotReady",
    "Offsets",
    "PartitionSnapshot",
    "PublishCommitLog",
    "RemoteOffsetSource",
    "Snapshot",
    "SourceDied",
    "SourceStatistics",
    "Stall",
    "StepRejectedInPoll",
    "SynchronizedPartitionState",
    "SynchronizedPartitionStateManager",
    "SynchronizedStrategy",
    "SynchronizedStrategyFactory",
    "TopicMissing",
    "TopicRecreated",
    "UnexpectedMessage",
    "WaitsFor",
    "__version__",
    "log_if_refused",
    "raise_if_refused",
    "tune_interpreter",
]
