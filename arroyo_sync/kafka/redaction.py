"""Keeps secrets out of whatever people read: logs, errors, output and Sentry events.

A secret is known by its name: a setting of librdkafka, of Java's clients, of this package, or of the user's own.
It is found wherever a name stands beside a value: in mappings, in pairs, in lists of arguments, and in texts that show
one of these, such as the ``repr`` of an object or a URL. What is found once too often costs a reader little.

A function is often made with a secret that has no name there: of a ``functools.partial`` no argument is shown, and of
an ``oauth_cb`` only which one it is.

Threads: any may call anything.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

from sentry_sdk.scope import add_global_event_processor, global_event_processors
from sentry_sdk.types import Event, Hint

from arroyo_sync.core.interruptions import INTERRUPTIONS
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

# A command line of the user's, which may hold one. It may stand on a command line itself: most hold none.
_COMMAND = r"kinit[._-]cmd"
_COMMAND_NAME = re.compile(_COMMAND, re.IGNORECASE)
_CALLBACK = r"oauth[._-]cb"
_CALLBACK_NAME = re.compile(rf"{_CALLBACK}$", re.IGNORECASE)

_IN_NAME = r"[\w.\-]"
_MAX_NAME = 60
_QUOTED = r"'(?:[^'\\]|\\.)*(?:'|\Z)|\"(?:[^\"\\]|\\.)*(?:\"|\Z)"
# Quotes that are escaped within another repr: what ends it has as many backslashes.
_ESCAPED = r"(?P<escaped>\\+['\"]).*?(?:(?<!\\)(?P=escaped)|\Z)"
_BETWEEN = r"(?P<between>(?:\\{0,8}['\"]\s{0,9}[:=,]|\s{0,9}[:=])\s{0,9}(?:[bu](?=['\"]))?)"
# From the word in a name on: password=hunter2, password = "hunter2", passwd', b'hunter2'. A name in quotes, which are
# escaped within another repr, may have a comma behind it: ('sasl.password', 'hunter2'). Every repetition that may fail
# has a limit, so that the search takes no longer than the text is long.
_NAMED = re.compile(
    rf"(?P<name>(?:{_SECRET}|{_SECRET_END}(?!{_IN_NAME})){_IN_NAME}{{0,{_MAX_NAME}}}){_BETWEEN}"
    rf"(?P<value>{_ESCAPED}|{_QUOTED}|[^\s,;&)\]}}'\"\[({{]+)",
    re.IGNORECASE | re.DOTALL,
)
# A command is words, some of them in quotes: but for one that is in quotes as a whole, it ends with the line.
_NAMED_COMMAND = re.compile(
    rf"(?P<name>{_COMMAND}){_BETWEEN}"
    rf"(?P<value>(?:None|null)\b|(?:{_ESCAPED}|{_QUOTED})(?=\s{{0,9}}(?:[,;)\]}}\n\\'\"]|\Z))|[^\n]+)",
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

_FUNCTION_NAME = r"(?:[\w.]|<locals>|<lambda>)+"
_OBJECT = rf"{_FUNCTION_NAME} object at 0x[0-9a-fA-F]+"
# What shows nothing but which function it is, as its repr does or app.tokens:fetch.
_FUNCTION = (
    rf"(?:<function {_FUNCTION_NAME} at 0x[0-9a-fA-F]+>|<{_OBJECT}>|<bound method {_FUNCTION_NAME} of <{_OBJECT}>>"
    rf"|<built-in (?:function {_FUNCTION_NAME}|method {_FUNCTION_NAME} of {_OBJECT})>"
    rf"|<class \\{{0,8}}'{_FUNCTION_NAME}\\{{0,8}}'>|[\w.:/\-]+)"
)
_FUNCTION_ALONE = re.compile(rf"{_FUNCTION}(?=\Z|,)")
_PARTIAL = re.compile(r"functools\.partial(?:method)?\(")
_CALLBACK_SHOWN = re.compile(
    rf"{_FUNCTION}|functools\.partial(?:method)?\({_FUNCTION}(?:, {re.escape(FILTERED)})?\)?|{re.escape(FILTERED)}"
)
_NAMED_CALLBACK = re.compile(rf"{_CALLBACK}{_BETWEEN}(?P<quoted>{_ESCAPED}|{_QUOTED})?", re.IGNORECASE | re.DOTALL)
# What the end of a repr is found by. The arrow of a name such as <Edge a->b> is no bracket.
_BRACKET = re.compile(rf"{_ESCAPED}|{_QUOTED}|[(\[{{<)\]}}]|(?<![-=])>", re.DOTALL)
_CLOSED_BY = {"(": ")", "[": "]", "{": "}", "<": ">"}
_BARE = re.compile(r"[^\s,;&)\]}>'\"(\[{<]*")


def is_secret(name: str) -> bool:
    """Whether a setting of this name holds a secret, not where one is to be found.

    >>> is_secret("sasl.password"), is_secret("ssl.key.location"), is_secret("group.id")
    (True, False, False)
    """
    return _SECRET_NAME.search(name) is not None and _ABOUT.search(name) is None


def without_secrets(text: str, settings: Mapping[str, Any]) -> str:
    """The text without any of the secrets that are among the settings, and without those that it names itself."""
    secrets = {_text(value) for name, value in settings.items() if _may_hold_secret(name) and value}
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
    except INTERRUPTIONS:
        raise
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
        return _filter_object(value)
    if depth == 0:
        return FILTERED
    if isinstance(value, dict):
        return {name: _filter_value(name, each, depth - 1) for name, each in value.items()}
    items = _filter_items(value, depth - 1)
    return items if isinstance(value, list) else tuple(items)


def _filter_items(items: Sequence[Any], depth: int) -> list[Any]:
    """What follows the name of a secret is one: in a pair, and in a list of a command's arguments."""
    return [
        _filter_assigned(_filter_value(items[index - 1] if index > 0 else None, each, depth))
        for index, each in enumerate(items)
    ]


def _filter_value(name: object, value: Any, depth: int) -> Any:
    """What stands beside this name."""
    bare = _bare_name(name)
    if bare is not None and _may_hold_secret(bare) and _is_given(value):
        return FILTERED
    if bare is not None and _CALLBACK_NAME.search(bare) is not None:
        return _filter_callback(value)
    return _filter(value, depth)


def _filter_object(value: object) -> object:
    """Itself, or its ``repr`` without what that shows of secrets: the SDK would send the whole of it."""
    if value is None or isinstance(value, (int, float)):
        return value
    text = _repr(value)
    shown = _filter_text(text)
    return value if shown == text else shown


def _filter_callback(value: object) -> object:
    """Itself, if it shows nothing but which function it is, or what may be shown of its ``repr``."""
    bare = _text(value).strip("'\"") if isinstance(value, (str, bytes, bytearray)) else _repr(value)
    shown = _shown_callback(bare)
    return value if shown == bare else shown


def _repr(value: object) -> str:
    try:
        return repr(value)
    except INTERRUPTIONS:
        raise
    except Exception:  # the SDK says so in its place
        return ""


def _filter_assigned(item: Any) -> Any:
    found = _ASSIGNED.fullmatch(item) if isinstance(item, str) else None
    if found is None or not _is_given(found["value"]):
        return item
    if _may_hold_secret(found["name"]):
        return found["before"] + FILTERED
    inner = _ASSIGNED.fullmatch(found["value"])  # as in --setting=sasl.password=...
    if inner is None or not _may_hold_secret(inner["name"]) or not _is_given(inner["value"]):
        return item
    return found["before"] + inner["before"] + FILTERED


def _may_hold_secret(name: str) -> bool:
    """Whether what stands under this name isn't shown."""
    return is_secret(name) or _COMMAND_NAME.search(name) is not None


def _bare_name(name: object) -> str | None:
    """It, if it is a name and nothing more, also as the ``repr`` that the SDK makes of a text."""
    if isinstance(name, (bytes, bytearray)):
        name = name.decode("latin-1")
    if not isinstance(name, str) or len(name) > 200:
        return None
    bare = (
        name.removeprefix("b").strip("'\"").lstrip("-") if name[:2] in ("b'", 'b"') else name.strip("'\"").lstrip("-")
    )
    return bare if re.fullmatch(r"[\w.\-]+", bare) is not None else None


def _is_given(value: object) -> bool:
    """Whether there is a secret: to show that there is none helps whoever looks for the mistake."""
    return value not in (None, "", b"", "None", "''", '""', True, False)


def _filter_text(text: str) -> str:
    text = _PEM.sub(rf"\g<before>{FILTERED}\g<after>", text)
    text = _URL.sub(rf"\g<before>{FILTERED}", text)
    text = _SCHEME.sub(rf"\g<before>{FILTERED}", text)
    text = _REST.sub(rf"\g<before>{FILTERED}", text)
    text = _NAMED.sub(_filter_named, text)
    text = _NAMED_COMMAND.sub(_filter_named, text)
    return _filter_callbacks(_filter_partials(text))


def _filter_named(match: re.Match[str]) -> str:
    text, value, start = match.string, match["value"], match.start()
    before = _BEFORE.search(text[max(0, start - _MAX_NAME) : start])
    name = (before[0] if before is not None else "") + match["name"]
    if not _may_hold_secret(name) or value in ("None", "True", "False", "null", "''", '""', FILTERED):
        return match[0]
    quote = match["escaped"] or (value[0] if value[0] in "'\"" else "")
    return f"{match['name']}{match['between']}{quote}{FILTERED}{quote}"


def _filter_partials(text: str) -> str:
    """Without what functions were made with, whatever the name: where it is cut off, without all that follows."""
    parts, done = [], 0
    while (found := _PARTIAL.search(text, done)) is not None:
        end = _closed_at(text, found.end() - 1)
        inner = text[found.end() : end].removesuffix(")")
        function = _FUNCTION_ALONE.match(inner)
        shown = FILTERED if function is None else inner if function[0] == inner else f"{function[0]}, {FILTERED}"
        parts += [text[done : found.end()], shown, ")" if text[end - 1] == ")" else ""]
        done = end
    return "".join(parts) + text[done:]


def _filter_callbacks(text: str) -> str:
    """Without what an ``oauth_cb`` shows, but for which function it is."""
    parts, done = [], 0
    while (found := _NAMED_CALLBACK.search(text, done)) is not None:
        start, end = found.end("between"), found.end() if found["quoted"] else _bare_end(text, found.end())
        quote = found["escaped"] or (found["quoted"] or "")[:1]
        value = text[start:end].removeprefix(quote).removesuffix(quote)
        parts += [text[done:start], quote, _shown_callback(value), quote]
        done = end
    return "".join(parts) + text[done:]


def _shown_callback(text: str) -> str:
    shown = _filter_partials(text)
    return shown if not shown or _CALLBACK_SHOWN.fullmatch(shown) is not None else FILTERED


def _bare_end(text: str, start: int) -> int:
    """Where the ``repr`` ends that begins here and isn't in quotes."""
    while (bare := _BARE.match(text, start)) is not None:
        start = bare.end()
        if text[start : start + 1] not in _CLOSED_BY:
            break
        start = _closed_at(text, start)
    return start


def _closed_at(text: str, start: int) -> int:
    """Behind the bracket that closes the one here, or the end of the text."""
    closing: list[str] = []
    for found in _BRACKET.finditer(text, start):
        if found[0] in _CLOSED_BY:
            closing.append(_CLOSED_BY[found[0]])
        elif found[0] == closing[-1]:
            closing.pop()
            if not closing:
                return found.end()
    return len(text)


def _text(value: object) -> str:
    return bytes(value).decode("latin-1") if isinstance(value, (bytes, bytearray)) else str(value)
