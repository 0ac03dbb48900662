"""The checks of arguments: what each takes, what it refuses, and in which words."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from arroyo.types import Topic

from arroyo_sync.core import checks
from arroyo_sync.core.errors import ConfigurationError

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "None"),
        (True, "True"),
        (-7, "-7"),
        (NAN, "nan"),
        ("a\nb\ud800", r"'a\nb\ud800'"),
        (b"a\0", r"b'a\x00'"),
        ("x" * 1_000, f"'{'x' * 60}'... (length 1000)"),
        (1 << 100_000, "<int of 100001 bits>"),
        ({"sasl.password": "hunter2"}, "<dict>"),
        (["hunter2"], "<list>"),
        (Path, "<class Path>"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_is_shown_short_on_one_line_and_without_what_it_contains(value: object, expected: str) -> None:
    """Settings that are given in another argument's place hold a password, and a text may hold a megabyte."""
    assert checks.shown(value) == expected


Check = Callable[[str, Any], None]


def seconds_or_none_at_all(argument: str, value: object) -> None:
    checks.check_seconds(argument, value, may_be_zero=True)


def count(argument: str, value: object) -> None:
    checks.check_integer(argument, value, 1, 10)


def choice(argument: str, value: object) -> None:
    checks.check_choice(argument, value, ("all", "recent"))


def called(argument: str, value: object) -> None:
    checks.check_callable(argument, value, "called with a stall")


def instance(argument: str, value: object) -> None:
    checks.check_instance(argument, value, Topic)


def members(argument: str, value: object) -> None:
    checks.check_members(argument, value, ("submit", "poll"), "a step")


class Step:
    submit = poll = None


class Failing:
    @property
    def submit(self) -> None:
        raise RuntimeError("not yet")


TAKEN: list[tuple[Check, list[object]]] = [
    (checks.check_seconds, [1, 0.001, checks.MAX_SECONDS]),
    (seconds_or_none_at_all, [0, 0.0, 1]),
    (checks.check_share, [1, 0.001]),
    (count, [1, 10]),
    (checks.check_flag, [True, False]),
    (choice, ["all", "recent"]),
    (called, [print, lambda: None]),
    (instance, [Topic("a")]),
    (members, [Step()]),
    (checks.check_topic, [Topic("a"), Topic("A.b_c-9"), Topic("..."), Topic("x" * 249)]),
    (checks.check_topic_name, ["a", "x" * 249]),
    (checks.check_partition, [0, 2**31 - 1]),
    (checks.check_group, ["g", "a:b c", "gruppe-ä", "x" * checks.MAX_GROUP_BYTES]),
    (checks.check_groups, [["a"], ("a", "b"), {"a"}, frozenset("a"), {"a": 1}.keys()]),
    (checks.check_path, ["/tmp/health", Path("health")]),
]

REFUSED: list[tuple[Check, list[object]]] = [
    (checks.check_seconds, [0, -1, NAN, INF, -INF, True, None, "1", 10**400, 1e300, 1j, [1.0]]),
    (seconds_or_none_at_all, [-1, NAN, INF, False, None]),
    (checks.check_share, [0, 1.001, NAN, True, None, "0.5"]),
    (count, [0, 11, 1.0, True, None, "1", NAN]),
    (checks.check_flag, [0, 1, None, "no", "True"]),
    (choice, ["", "ALL", None, True, b"all", ["all"]]),
    (called, [None, "print", 1, Step]),
    (instance, [None, "a", Topic]),
    (members, [None, Step, Failing(), 1]),
    (checks.check_topic, [None, "a", b"a", Topic, *map(Topic, ["", "a:b", ".", "..", "a b", "ä", "a\n", "x" * 250])]),
    (checks.check_topic, [Topic(None), Topic(b"a"), Topic(1)]),  # type: ignore[arg-type]
    (checks.check_topic_name, [None, b"a", "", "a\n", Topic("a")]),
    (checks.check_partition, [-1, 2**31, True, 1.0, None, "0"]),
    (checks.check_group, [None, b"g", "", "a\n", "a\0", "a\x85", "a\u2028", "a\ud800", "x" * 2**15, "ä" * 2**14]),
    (checks.check_groups, [None, "a", b"a", [], {""}, ["a", None], [b"a"], {"a": 1}, (each for each in "a"), 1]),
    (checks.check_path, [None, "", b"/tmp", 1, "a\0b"]),
]


def cases(table: list[tuple[Check, list[object]]]) -> list[Any]:
    return [
        pytest.param(check, value, id=f"{check.__name__} {str(value)[:20].encode('ascii', 'backslashreplace')!r}")
        for check, values in table
        for value in values
    ]


@pytest.mark.parametrize(("check", "value"), cases(TAKEN))
def test_what_can_be_right_is_taken(check: Check, value: object) -> None:
    """Up to the ends of the range."""
    check("argument", value)


@pytest.mark.parametrize(("check", "value"), cases(REFUSED))
def test_what_cannot_be_right_is_refused_by_name(check: Check, value: object) -> None:
    """With the one error of a wrong setting, short, on one line, and fit for every encoding."""
    with pytest.raises(ConfigurationError, match=r"^argument") as raised:
        check("argument", value)
    assert len(str(raised.value)) < 300
    assert str(raised.value).isprintable()
    str(raised.value).encode()


@pytest.mark.parametrize(
    ("check", "value", "message"),
    [
        (checks.check_seconds, NAN, "argument=nan: must be more than 0 seconds, and at most 1000000000"),
        (seconds_or_none_at_all, None, "argument=None: must be 0 seconds or more, and at most 1000000000"),
        (count, "3", "argument='3': must be an integer from 1 to 10"),
        (choice, "latest", """argument='latest': must be "all" or "recent\""""),
        (called, "print", "argument='print': must be called with a stall"),
        (instance, {}, "argument=<dict>: give an arroyo.types.Topic"),
        (members, Step, "argument=<class Step>: must be a step; this is a class, give an object of it"),
        (members, object(), "argument=<object>: must be a step; this has no 'submit'"),
        (checks.check_topic, Topic("a:b"), f"argument.name='a:b': a topic's name is {checks.TOPIC_NAME}"),
        (checks.check_group, "a\0", rf"argument='a\x00': a consumer group's name is {checks.GROUP_NAME}"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_refusal_says_what_is_allowed(check: Check, value: object, message: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        check("argument", value)
    assert str(raised.value) == message


def test_a_refusal_may_say_of_what_the_argument_is_one() -> None:
    """Where its name alone is too common."""
    with pytest.raises(ConfigurationError, match=r"^HoldLimits\(bytes=0\): must be an integer from 1 to"):
        checks.check_integer("bytes", 0, 1, of="HoldLimits")


@pytest.mark.parametrize(
    ("module", "function"), [("gevent.monkey", "is_module_patched"), ("eventlet.patcher", "is_monkey_patched")]
)
@pytest.mark.parametrize("is_patched", [True, False])
def test_threads_that_are_none_are_refused(
    monkeypatch: pytest.MonkeyPatch, module: str, function: str, is_patched: bool
) -> None:
    """Kafka's client would never give their turn away."""
    checks.check_threads()
    monkeypatch.setitem(sys.modules, module, SimpleNamespace(**{function: lambda name: is_patched}))
    if not is_patched:
        checks.check_threads()
        return
    with pytest.raises(ConfigurationError, match=f"^{module.partition('.')[0]} has patched Python's threads"):
        checks.check_threads()
