"""Kafka settings for the command line: from a file in librdkafka's properties form, from the environment, from flags.

The later counts: file, environment, flags. The form of the file is that of ``kcat -F``: a ``name=value`` on each line,
``#`` at the start of a line for a comment, blanks around both removed, nothing quoted or escaped.

In the environment a setting is called by its name in capitals, with underscores for dots, after the prefix
``ARROYO_SYNC_KAFKA_``: ``ARROYO_SYNC_KAFKA_SASL_PASSWORD`` is ``sasl.password``.

No secret is in any message from here.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from arroyo_sync.core.errors import ConfigurationError
from arroyo_sync.kafka.redaction import is_secret

ENVIRONMENT_PREFIX = "ARROYO_SYNC_KAFKA_"


def kafka_settings(
    files: Iterable[Path], environment: Mapping[str, str], flags: Mapping[str, str | None]
) -> dict[str, str]:
    """All settings together.

    :param flags: by librdkafka's names; those that are ``None`` weren't given.
    :raises ConfigurationError: a file can't be read or isn't in the form.
    """
    settings: dict[str, str] = {}
    for file in files:
        settings.update(read_properties(file))
    settings.update(environment_settings(environment))
    settings.update({name: value for name, value in flags.items() if value is not None})
    return settings


def read_properties(file: Path) -> dict[str, str]:
    """The settings of a file.

    :raises ConfigurationError: it can't be read, or a line isn't a setting; the message names file and line.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")  # as some editors begin it
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it isn't UTF-8"
        raise ConfigurationError(f"can't read the settings in {file}: {reason}") from None
    settings: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        name, equals, value = stripped.partition("=")
        if not equals or not name.strip():
            # The line isn't shown: it may be a password that someone put there by itself.
            raise ConfigurationError(f"{file}, line {number}, is no setting: write name=value")
        settings[name.strip()] = value.strip()
    return settings


def environment_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """The settings of the environment."""
    return {
        name[len(ENVIRONMENT_PREFIX) :].lower().replace("_", "."): value
        for name, value in environment.items()
        if name.startswith(ENVIRONMENT_PREFIX) and len(name) > len(ENVIRONMENT_PREFIX)
    }


def flag_settings(pairs: Iterable[str]) -> dict[str, str]:
    """The settings of ``-X name=value`` flags.

    :raises ConfigurationError: one isn't of that form, or is a secret: every user of the machine sees command lines.
    """
    settings: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        name = name.strip()
        if not equals or not name:
            raise ConfigurationError("-X takes name=value, such as -X security.protocol=SASL_SSL")
        if is_secret(name):
            variable = ENVIRONMENT_PREFIX + name.upper().replace(".", "_")
            raise ConfigurationError(
                f"-X {name} can be read by anyone on this machine, as every command line can. "
                f"Put it into the environment as {variable}, or into a file given with --config"
            )
        settings[name] = value.strip()
    return settings


class OAuthCallback:
    """librdkafka's ``oauth_cb``, given as ``module:function``. The working directory is searched, too.

    :raises argparse.ArgumentTypeError: there is none; the message says why.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        module, colon, function = name.partition(":")
        if not (module and colon and function):
            raise argparse.ArgumentTypeError(f"{name!r} names no function: give it as MODULE:FUNCTION")
        if os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())
        try:
            self._function: Callable[[str], object] = getattr(importlib.import_module(module), function)
        except (Exception, SystemExit) as error:  # whatever the module raises; a script may end where it is read
            raise argparse.ArgumentTypeError(f"{name!r} can't be had: {type(error).__name__}: {error}") from None
        if not callable(self._function):
            raise argparse.ArgumentTypeError(f"{name!r} can't be called")

    def __call__(self, configuration: str) -> object:
        return self._function(configuration)


def takes_token(settings: Mapping[str, str]) -> bool:
    """Whether a client of these settings logs in with a token that it fetches by a function."""
    mechanism = settings.get("sasl.mechanism") or settings.get("sasl.mechanisms") or ""
    return mechanism.upper() == "OAUTHBEARER"


def with_oauth_cb(settings: Mapping[str, str], oauth_cb: OAuthCallback | None) -> dict[str, Any]:
    """The settings, with the function where it is asked: else a client would wait in vain for it to be called."""
    return {**settings, "oauth_cb": oauth_cb} if oauth_cb is not None and takes_token(settings) else dict(settings)
