"""Keeps secrets out of whatever people read: logs, errors, output and Sentry events.

Pure. Any thread may call anything.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

FILTERED = "[Filtered]"
"""What stands in the place of a secret; Sentry's own word for it."""

_SECRET_NAME = re.compile(
    r"password|passphrase|secret|jaas|credential|private[._]key|oauthbearer\.config|ssl[._]key(\.pem)?$", re.IGNORECASE
)
_PLACE_NAME = re.compile(r"[._](location|file|path)$", re.IGNORECASE)

# A setting inside a text that shows a whole dictionary: 'sasl.password': 'hunter2'.
_SHOWN_SETTING = re.compile(
    r"""(?P<name>(?P<quote>['"])[\w.\-]*(?:password|passphrase|secret|jaas|private[._]key|oauthbearer\.config|ssl[._]key)"""
    r"""[\w.\-]*(?P=quote)\s*[:=]\s*)(?P<value>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")""",
    re.IGNORECASE,
)


def is_secret(name: str) -> bool:
    """Whether a setting of this name (librdkafka's, Java's, ours) holds a secret, not where one is to be found."""
    return bool(_SECRET_NAME.search(name)) and not _PLACE_NAME.search(name)


def redacted(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, to be shown.

    >>> redacted({"sasl.username": "me", "sasl.password": "hunter2"})
    {'sasl.username': 'me', 'sasl.password': '[Filtered]'}
    """
    return {name: FILTERED if is_secret(name) else value for name, value in settings.items()}


def without_secrets(text: str, settings: Mapping[str, Any]) -> str:
    """The text without any of the secrets that are among the settings."""
    secrets = {str(value) for name, value in settings.items() if is_secret(name) and value}
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, FILTERED)
    return text


def without_secret_settings(value: Any) -> Any:
    """A copy of nested lists and dictionaries in which no secret setting shows, by its name, also inside of texts."""
    if isinstance(value, str):
        return _SHOWN_SETTING.sub(_filter_value, value)
    if type(value) is dict:
        return {
            name: FILTERED if isinstance(name, str) and is_secret(name) and each else without_secret_settings(each)
            for name, each in value.items()
        }
    if type(value) is list:
        return [without_secret_settings(each) for each in value]
    return value


def _filter_value(match: re.Match[str]) -> str:
    quote = match["value"][0]
    return f"{match['name']}{quote}{FILTERED}{quote}"
