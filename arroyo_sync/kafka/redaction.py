"""Keeps secrets out of whatever people read: logs, errors, output and Sentry events.

A secret is known by its name: a setting of librdkafka, of Java's clients, of this package, or of the user's own.
It is found wherever a name stands beside a value: in mappings, in pairs, in lists of arguments, and in texts that show
one of these, such as the ``repr`` of an object or a URL. What is found once too often costs a reader little.

Threads: any may call anything.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

from sentry_sdk.scope import add_global_event_processor, global_event_processors
from sentry_sdk.types import Event, Hint

from arroyo_sync.core.log_throttle import TOLD_BY_MONITOR, mark_told

_PACKAGE = __name__.partition(".")[0]

FILTERED = "[Filtered]"
"""What stands in the place of a secret; Sentry's own word for it."""

MAX_DEPTH = 40
"""How deeply nested values are gone through. Sentry's SDK cuts off what is nested more than a few times."""

_SECRET = (
    r"(?:passw|passwd|passphrase|passcode|secret|jaas|credential|private[._-]?key|api[._-]?key|access[._-]?key"
    r"|oauthbearer[._-]config|ssl[._](?:keystore[._])?key(?![._](?:location|file|path))|authorization)"
)
# These are parts of harmless names too, and count only at the end of one: max_tokens, compass, pwd.
_SECRET_END = r"(?:token|pwd|(?<![a-z])pass)"
_SECRET_NAME = re.compile(rf"{_SECRET}|{_SECRET_END}$", re.IGNORECASE)
# Where a secret is to be found, or what is said about it, is none.
_ABOUT = re.compile(r"[._-](?:location|file|path|url|uri|type|algorithm|ms|seconds|size|class|name)$", re.IGNORECASE)

_IN_NAME = r"[\w.\-]"
_MAX_NAME = 60
_QUOTED = r"'(?:[^'\\]|\\.)*(?:'|\Z)|\"(?:[^\"\\]|\\.)*(?:\"|\Z)"
# From the word in a name on: password=hunter2, password = "hunter2", passwd', b'hunter2'. A name in quotes, which are
# escaped within another repr, may have a comma behind it: ('sasl.password', 'hunter2'). Every repetition that may fail
# has a limit, so that the search takes no longer than the text is long.
_NAMED = re.compile(
    rf"(?P<name>(?:{_SECRET}|{_SECRET_END}(?!{_IN_NAME})){_IN_NAME}{{0,{_MAX_NAME}}})"
    r"(?P<between>(?:\\{0,8}['\"]\s{0,9}[:=,]|\s{0,9}[:=])\s{0,9}(?:[bu](?=['\"]))?)"
    rf"(?P<value>(?P<escaped>\\+['\"]).*?(?:(?P=escaped)|\Z)|{_QUOTED}|[^\s,;&)\]}}'\"\[({{]+)",
    re.IGNORECASE | re.DOTALL,
)
_BEFORE = re.compile(rf"{_IN_NAME}{{0,{_MAX_NAME}}}\Z")
# Authorization: Bearer hunter2.
_SCHEME = re.compile(r"\b(?P<before>(?:Bearer|Basic)\s{1,9})(?P<value>[\w+/=.~\-]{6,})")
_PEM = re.compile(
    r"(?P<before>-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----).*?(?P<after>-----END [A-Z ]{0,40}PRIVATE KEY-----|\Z)",
    re.DOTALL,
)
# An item of a list that is name=value, as a command's argument is, also as its repr: the value ends where it does.
_ASSIGNED = re.compile(r"(?P<before>(?:b?['\"])?(?P<name>[\w.\-]{1,200})=)(?P<value>.+)", re.DOTALL)
# librdkafka: "Unrecognized sasl.oauthbearer.config beginning at: hunter2 ...".
_REST = re.compile(r"(?P<before>sasl\.oauthbearer\.config beginning at: ).+", re.DOTALL)
_URL = re.compile(
    r"(?P<before>\b[a-z][a-z0-9+.\-]{0,20}://[^\s/:@'\"]{0,100}:)(?P<value>[^\s'\"]{1,200})(?=@)", re.IGNORECASE
)


def is_secret(name: str) -> bool:
    """Whether a setting of this name holds a secret, not where one is to be found.

    >>> is_secret("sasl.password"), is_secret("ssl.key.location"), is_secret("group.id")
    (True, False, False)
    """
    return _SECRET_NAME.search(name) is not None and _ABOUT.search(name) is None


def without_secrets(text: str, settings: Mapping[str, Any]) -> str:
    """The text without any of the secrets that are among the settings, and without those that it names itself."""
    secrets = {_text(value) for name, value in settings.items() if is_secret(name) and value}
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, FILTERED)
    return _filter_text(text)


def without_secret_settings(value: Any) -> Any:
    """A copy of nested mappings, lists and tuples in which no secret shows, by its name, also inside of texts."""
    return _filter(value, MAX_DEPTH)


def keep_secrets() -> None:
    """See that nothing that Sentry's SDK sends of this package shows a password that stands in Kafka settings.

    The SDK sends the local variables of a traceback, and filters them by whole names such as ``password``: a setting
    named ``sasl.password`` would go out. That goes for events and transactions, whoever makes them. Sentry's logs have
    no such processor: what this package logs is filtered before any handler gets it, so breadcrumbs, Sentry's logs and
    log files show the same. Called by whatever takes settings, before anything can fail. Called again, it does nothing
    new. It may be called before or after the SDK is initialised.
    """
    if _filter_event not in global_event_processors:
        add_global_event_processor(_filter_event)
    # A filter of a parent isn't asked about its children's records.
    for name in list(logging.Logger.manager.loggerDict):
        if name.startswith(f"{_PACKAGE}."):
            logging.getLogger(name).addFilter(_filter_record)


def _filter_record(record: logging.LogRecord) -> bool:
    try:
        message = record.getMessage()
    except Exception:  # the handler says so
        return True
    args = record.args if isinstance(record.args, tuple) else ()
    # Sentry's logs hold the arguments, too, each as its repr.
    if any(
        _shows_secret(text) for text in (message, *(repr(arg) for arg in args if not isinstance(arg, (int, float))))
    ):
        record.msg, record.args = _filter_text(message), ()
    if record.exc_info and not record.exc_text:
        trace = logging.Formatter().formatException(record.exc_info)
        if _shows_secret(trace):
            record.exc_text = _filter_text(trace)  # a formatter takes it in place of its own
            error = record.exc_info[1]
            if error is not None:  # a formatter of another kind, as for JSON, goes by the exception itself
                copy = _filter_error(error, {})
                record.exc_info = (type(copy), copy, copy.__traceback__)
    return True


def _filter_error(error: BaseException, seen: dict[int, BaseException]) -> BaseException:
    """The error itself if neither its text nor that of its causes shows a secret, else a copy by which none does.

    :param seen: by the id of what it was made of, what was returned before.
    """
    if id(error) in seen:
        return seen[id(error)]
    seen[id(error)] = error
    cause, context = (
        None if each is None or len(seen) > MAX_DEPTH else _filter_error(each, seen)
        for each in (error.__cause__, error.__context__)
    )
    notes = [str(each) for each in getattr(error, "__notes__", ())]
    is_shown = any(map(_shows_secret, (str(error), repr(error), *notes)))
    if cause is error.__cause__ and context is error.__context__ and not is_shown:
        return error
    kind = type(error)
    copy: BaseException = type(kind.__name__, (Exception,), {"__module__": kind.__module__})(_filter_text(str(error)))
    copy.__cause__, copy.__context__ = cause, context
    copy.__suppress_context__, copy.__traceback__ = error.__suppress_context__, error.__traceback__
    if notes:
        setattr(copy, "__notes__", [_filter_text(each) for each in notes])  # noqa: B010 - since Python 3.11
    if getattr(error, TOLD_BY_MONITOR, False) is True:
        mark_told(copy)
    seen[id(error)] = copy
    return copy


def _shows_secret(text: str) -> bool:
    return _filter_text(text) != text


def _filter_event(event: Event, hint: Hint) -> Event:
    filtered: Event = without_secret_settings(dict(event))
    return filtered


def _filter(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return _filter_text(value)
    if isinstance(value, (bytes, bytearray)):
        return _filter_text(value.decode("latin-1")).encode("latin-1")
    if not isinstance(value, (dict, list, tuple)):
        return value
    if depth == 0:
        return FILTERED
    if isinstance(value, dict):
        return {
            name: FILTERED if _names_secret(name) and _is_given(each) else _filter(each, depth - 1)
            for name, each in value.items()
        }
    items = _filter_items(value, depth - 1)
    return items if isinstance(value, list) else tuple(items)


def _filter_items(items: Sequence[Any], depth: int) -> list[Any]:
    """What follows the name of a secret is one: in a pair, and in a list of a command's arguments."""
    return [
        FILTERED
        if index > 0 and _names_secret(items[index - 1]) and _is_given(each)
        else _filter_assigned(_filter(each, depth))
        for index, each in enumerate(items)
    ]


def _filter_assigned(item: Any) -> Any:
    found = _ASSIGNED.fullmatch(item) if isinstance(item, str) else None
    if found is None or not _is_given(found["value"]):
        return item
    if is_secret(found["name"]):
        return found["before"] + FILTERED
    inner = _ASSIGNED.fullmatch(found["value"])  # as in --setting=sasl.password=...
    if inner is None or not is_secret(inner["name"]) or not _is_given(inner["value"]):
        return item
    return found["before"] + inner["before"] + FILTERED


def _names_secret(name: object) -> bool:
    """Whether it is the name of a secret and nothing more, also as the ``repr`` that the SDK makes of a text."""
    if isinstance(name, (bytes, bytearray)):
        name = name.decode("latin-1")
    if not isinstance(name, str) or len(name) > 200:
        return False
    bare = (
        name.removeprefix("b").strip("'\"").lstrip("-") if name[:2] in ("b'", 'b"') else name.strip("'\"").lstrip("-")
    )
    return re.fullmatch(r"[\w.\-]+", bare) is not None and is_secret(bare)


def _is_given(value: object) -> bool:
    """Whether there is a secret: to show that there is none helps whoever looks for the mistake."""
    return value not in (None, "", b"", "None", "''", '""', True, False)


def _filter_text(text: str) -> str:
    text = _PEM.sub(rf"\g<before>{FILTERED}\g<after>", text)
    text = _URL.sub(rf"\g<before>{FILTERED}", text)
    text = _SCHEME.sub(rf"\g<before>{FILTERED}", text)
    text = _REST.sub(rf"\g<before>{FILTERED}", text)
    return _NAMED.sub(_filter_named, text)


def _filter_named(match: re.Match[str]) -> str:
    text, value, start = match.string, match["value"], match.start()
    before = _BEFORE.search(text[max(0, start - _MAX_NAME) : start])
    name = (before[0] if before is not None else "") + match["name"]
    if not is_secret(name) or value in ("None", "True", "False", "null", "''", '""', FILTERED):
        return match[0]
    quote = match["escaped"] or (value[0] if value[0] in "'\"" else "")
    return f"{match['name']}{match['between']}{quote}{FILTERED}{quote}"


def _text(value: object) -> str:
    return bytes(value).decode("latin-1") if isinstance(value, (bytes, bytearray)) else str(value)
