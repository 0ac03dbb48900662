"""Whether an argument of a public constructor or function can be right.

Every check returns, or raises `ConfigurationError` with the argument's name, its value and what is allowed.

Guarantees
    - A value is shown in at most about a hundred characters, and only if it is a number, a text or bytes; of everything
      else the type is shown. So no message holds the settings, and with them the password, that were given by mistake.
    - No iterator is consumed.

Pure. Any thread may call anything.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Collection, Mapping
from typing import TypeGuard

from arroyo.types import Partition, Topic

from arroyo_sync.core.errors import ConfigurationError
from arroyo_sync.core.interruptions import INTERRUPTIONS

MAX_SECONDS = 1_000_000_000
"""About thirty years. CPython's locks and librdkafka overflow further up, with errors that name nobody."""

MAX_COUNT = 2**63 - 1
MAX_PARTITION = 2**31 - 1
"""Kafka's partition indexes are signed 32-bit integers (protocol guide, type INT32)."""

MAX_GROUP_BYTES = 2**15 - 1
"""The longest STRING of Kafka's protocol."""

TOPIC_NAME = "1 to 249 of the characters a-z, A-Z, 0-9, '.', '_' and '-', but neither '.' nor '..'"
_TOPIC_NAME = re.compile(r"(?!\.{1,2}\Z)[a-zA-Z0-9._-]{1,249}")  # org.apache.kafka.common.internals.Topic

GROUP_NAME = f"a text of 1 to {MAX_GROUP_BYTES} bytes in UTF-8, without control characters"
_NO_NAME = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

_SHOWN_LENGTH = 60


def shown(value: object) -> str:
    """The value for a message: short, on one line, and without anything that it contains.

    >>> shown("events"), shown(float("nan")), shown({"sasl.password": "hunter2"})
    ("'events'", 'nan', '<dict>')
    """
    if value is None or value is True or value is False:
        return str(value)
    if isinstance(value, int):
        return int.__repr__(value) if value.bit_length() <= 128 else f"<int of {value.bit_length()} bits>"
    if isinstance(value, float):
        return float.__repr__(value)
    for kind in (str, bytes):
        if isinstance(value, kind):
            text = kind.__repr__(value[:_SHOWN_LENGTH])
            return text if len(value) <= _SHOWN_LENGTH else f"{text}... (length {len(value)})"
    return f"<class {value.__name__}>" if isinstance(value, type) else f"<{type(value).__name__}>"


def refused(argument: str, value: object, allowed: str, *, of: str = "") -> ConfigurationError:
    """The error, for a check that is made where it is needed.

    :param of: what the argument is one of, if its name alone wouldn't say.
    """
    what = f"{argument}={shown(value)}"
    return ConfigurationError(f"{of}({what}): {allowed}" if of else f"{what}: {allowed}")


def check_seconds(argument: str, value: object, *, may_be_zero: bool = False) -> None:
    """A finite number of seconds, above 0."""
    if _is_number(value) and (0 < value <= MAX_SECONDS or (may_be_zero and value == 0)):
        return
    least = "0 seconds or more" if may_be_zero else "more than 0 seconds"
    raise refused(argument, value, f"must be {least}, and at most {MAX_SECONDS}")


def check_share(argument: str, value: object) -> None:
    """A part of a whole, such as a sample rate."""
    if not (_is_number(value) and 0 < value <= 1):
        raise refused(argument, value, "must be above 0 and up to 1")


def check_integer(argument: str, value: object, least: int, most: int = MAX_COUNT, *, of: str = "") -> None:
    """An integer, and no bool."""
    if not _is_integer(value) or not least <= value <= most:
        raise refused(argument, value, f"must be an integer from {least} to {most}", of=of)


def check_flag(argument: str, value: object) -> None:
    """True or False: a text such as "no" would count as true."""
    if type(value) is not bool:
        raise refused(argument, value, "must be True or False")


def check_choice(argument: str, value: object, choices: Collection[str]) -> None:
    """One of these texts."""
    if not isinstance(value, str) or value not in choices:
        quoted = [f'"{each}"' for each in choices]
        raise refused(argument, value, f"must be {' or '.join(quoted)}")


def check_callable(argument: str, value: object, what: str, *, may_be_none: bool = False) -> None:
    """Something that can be called, and no class.

    :param what: what it is called with, and what for.
    """
    if (value is None and may_be_none) or (callable(value) and not isinstance(value, type)):
        return
    raise refused(argument, value, f"must be {what}{' or None' if may_be_none else ''}")


def check_instance(argument: str, value: object, kind: type, *, may_be_none: bool = False) -> None:
    """An object of this class or of one that inherits from it."""
    if (value is None and may_be_none) or isinstance(value, kind):
        return
    name = f"{kind.__module__}.{kind.__name__}"
    raise refused(argument, value, f"give an {name}{' or None' if may_be_none else ''}")


def check_threads() -> None:
    """Threads are the operating system's.

    Patched by gevent or eventlet they take turns in one, and confluent-kafka, whose calls wait in C, never gives its
    turn away (confluent-kafka-python#612): the source and the pipeline would wait for each other for ever.

    :raises ConfigurationError: they are patched.
    """
    for module, function, name in (
        ("gevent.monkey", "is_module_patched", "threading"),
        ("eventlet.patcher", "is_monkey_patched", "thread"),
    ):
        is_patched = getattr(sys.modules.get(module), function, None)
        if is_patched is not None and is_patched(name):
            raise ConfigurationError(
                f"{module.partition('.')[0]} has patched Python's threads, and Kafka's client waits in C, where they "
                "would never have a turn again: don't patch threads in a process that follows"
            )


def check_members(argument: str, value: object, members: Collection[str], what: str) -> None:
    """An object that has all of these members: for contracts that needn't be inherited.

    :param what: what it should be, and what it may be mistaken for.
    """
    if isinstance(value, type):
        raise refused(argument, value, f"must be {what}; this is a class, give an object of it")
    missing = [each for each in members if not _has(value, each)]
    if missing:
        raise refused(argument, value, f"must be {what}; this has no {missing[0]!r}")


def check_step(argument: str, value: object) -> None:
    """A step of a pipeline. Arroyo's own class needn't be inherited."""
    members = ("submit", "poll", "close", "terminate", "join")
    check_members(argument, value, members, "a step: an arroyo ProcessingStrategy")


def check_producer(argument: str, value: object) -> None:
    """A producer by Arroyo's contract. confluent-kafka's has a ``produce`` too, which takes other arguments."""
    what = "an Arroyo producer, such as arroyo.backends.kafka.KafkaProducer"
    if any(each.__module__.partition(".")[0] in ("confluent_kafka", "cimpl") for each in type(value).__mro__):
        raise refused(argument, value, f"must be {what}")
    check_members(argument, value, ("produce",), what)


def check_consumer(argument: str, value: object) -> None:
    """A consumer by Arroyo's contract."""
    members = ("poll", "subscribe", "pause", "resume", "tell", "seek", "stage_offsets", "commit_offsets", "close")
    check_members(argument, value, members, "an Arroyo consumer, such as arroyo.backends.kafka.KafkaConsumer")


def check_topic(argument: str, value: object) -> None:
    """A topic that Kafka could have."""
    if not isinstance(value, Topic):
        raise refused(argument, value, "give an arroyo.types.Topic")
    if not is_topic_name(value.name):
        raise refused(f"{argument}.name", value.name, f"a topic's name is {TOPIC_NAME}")


def check_topic_name(argument: str, value: object) -> None:
    """The name of a topic that Kafka could have."""
    if not is_topic_name(value):
        raise refused(argument, value, f"a topic's name is {TOPIC_NAME}")


def is_topic_name(value: object) -> bool:
    """Whether a topic can have this name, by Kafka's own rule."""
    return isinstance(value, str) and _TOPIC_NAME.fullmatch(value) is not None


def check_partition(argument: str, value: object) -> None:
    """A partition's index."""
    check_integer(argument, value, 0, MAX_PARTITION)


def check_group(argument: str, value: object) -> None:
    """The name of a consumer group."""
    if not is_group_name(value):
        raise refused(argument, value, f"a consumer group's name is {GROUP_NAME}")


def is_group_name(value: object) -> bool:
    """Whether this can be the name of a consumer group. Kafka takes any text; a control character is a mistake."""
    return isinstance(value, str) and _NO_NAME.search(value) is None and 0 < len(value.encode()) <= MAX_GROUP_BYTES


def check_groups(argument: str, value: object) -> None:
    """A collection of leader groups' names, not empty."""
    if isinstance(value, (str, bytes)):
        raise refused(argument, value, f"give a collection of names, such as {{{shown(value)}}}")
    if not isinstance(value, Collection) or isinstance(value, Mapping):
        raise refused(argument, value, "give a collection of names, such as a set")
    if not value:
        raise ConfigurationError(
            f"{argument} is empty: name at least one leader group, or nothing would ever be released"
        )
    for group in value:
        if not is_group_name(group):
            raise ConfigurationError(
                f"{argument}: {shown(group)} is no name of a leader group: a consumer group's name is {GROUP_NAME}"
            )


def check_text(argument: str, value: object, *, may_be_empty: bool = False) -> None:
    """A text on one line that can be sent: a name, or what a tag holds."""
    if not isinstance(value, str) or _NO_NAME.search(value) is not None or not (value or may_be_empty):
        which = "" if may_be_empty else ", not empty"
        raise refused(argument, value, f"must be a text without control characters{which}")


def check_path(argument: str, value: object) -> None:
    """The path of a file."""
    try:
        is_path = (
            isinstance(value, (str, os.PathLike)) and len(os.fsencode(value)) > 0 and b"\0" not in os.fsencode(value)
        )
    except UnicodeEncodeError:
        is_path = False
    if not is_path:
        raise refused(argument, value, "must be the path of a file")


def check_mapping(argument: str, value: object, what: str) -> None:
    """A mapping.

    :param what: of what to what.
    """
    if not isinstance(value, Mapping):
        raise refused(argument, value, f"must be a mapping of {what}")


def check_positions(argument: str, value: object) -> None:
    """A mapping of partitions to offsets, as Arroyo hands it to ``create_with_partitions``."""
    check_mapping(argument, value, "partitions to offsets, as Arroyo hands it to create_with_partitions")
    assert isinstance(value, Mapping)
    for partition, offset in value.items():
        check_instance(f"{argument}'s keys", partition, Partition)
        check_integer(f"{argument}'s values", offset, 0)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_integer(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _has(value: object, member: str) -> bool:
    try:
        return hasattr(value, member)
    except INTERRUPTIONS:
        raise
    except Exception:  # a property that fails
        return False
