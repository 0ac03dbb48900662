"""The headers of a record, whoever wrote it.

Sources: ``c_headers_to_py`` of confluent-kafka 2.16.1, which returns a list with an exception set, and a hole in it,
where a header's name isn't UTF-8: names are free bytes for clients in C, Go or Rust.
"""

from __future__ import annotations

from operator import methodcaller
from typing import Any

from confluent_kafka import Message

Headers = list[tuple[str, bytes | None]]

_ask: Any = methodcaller("headers")
"""Called through C: the interpreter's own call, once specialised, doesn't look for the exception, takes the list, and
the process dies of its hole (CPython 3.11 and 3.13, after some thousand calls)."""


def headers_of(message: Message) -> Headers | None:
    """Names and values, in order; ``None`` if there are none, or if one of the names is no text."""
    try:
        headers = _ask(message)
    except (SystemError, UnicodeDecodeError):
        return None
    if not headers:
        return None
    pairs = headers.items() if isinstance(headers, dict) else headers
    return [(name, value.encode() if isinstance(value, str) else value) for name, value in pairs]
