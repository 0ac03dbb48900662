"""Synchronizes offsets between Kafka consumer groups: a follower sees a message only after its leaders committed it.

A public name is imported when it is first asked for: so the command can begin, and be interrupted, before Kafka's
client and all else is loaded.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from arroyo_sync.core.errors import (
        AccessRefused,
        AnotherCluster,
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
        PartitionTruncated,
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

    __version__: str

__all__ = [
    "METRICS",
    "AccessRefused",
    "AnotherCluster",
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
    "PartitionTruncated",
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

_MODULES = {
    "core.errors": (
        "AccessRefused AnotherCluster ArroyoSyncError BrokersUnreachable CommitLogMissing ConfigurationError "
        "FollowerStalled InvalidOffset InvalidState MalformedRecord MessageNotReady NotReady PartitionTruncated "
        "SourceDied StepRejectedInPoll TopicMissing TopicRecreated UnexpectedMessage"
    ),
    "core.source": "HighWatermarks RemoteOffsetSource SourceStatistics",
    "core.state": "Offsets SynchronizedPartitionState SynchronizedPartitionStateManager",
    "gate.factory": "SynchronizedStrategyFactory",
    "gate.flow_control": "FlowControlledConsumer",
    "gate.interpreter": "tune_interpreter",
    "gate.partition_buffer": "HoldLimits",
    "gate.strategy": "SynchronizedStrategy",
    "kafka.error_callbacks": "log_if_refused raise_if_refused",
    "leaders.commit_log.consumer": "CommitLogConsumer",
    "leaders.commit_log.publishing.publisher": "CommitLogPublisher PublishCommitLog",
    "leaders.group_offsets": "GroupOffsetsSource",
    "observe.healthcheck": "HealthcheckUnlessStalled",
    "observe.metrics": "METRICS MetricDef",
    "observe.snapshot": "LeaderSnapshot PartitionSnapshot Snapshot",
    "observe.stalls": "Stall WaitsFor",
}
"""Which names each module has: the imports above, as they are carried out."""

_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names.split()}

if not TYPE_CHECKING:  # a type checker would take every name for one of ours

    def __getattr__(name: str) -> object:
        if name == "__version__":
            value = import_module(f"{__name__}.core.version").package_version()
        elif name in ("sentry", "testing"):
            value = import_module(f"{__name__}.{name}")
        elif name in _MODULE_OF:
            value = getattr(_load(_MODULE_OF[name]), name)
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value
        return value

    def _load(module: str) -> ModuleType:
        try:
            return import_module(f"{__name__}.{module}")
        except AttributeError as error:  # out of `__getattr__` it would only say that there is no such name
            raise ImportError(
                f"{__name__}.{module} can't be loaded: {error}. Are sentry-arroyo and confluent-kafka of versions that "
                "arroyo-sync supports?"
            ) from error

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
