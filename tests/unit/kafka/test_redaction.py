"""No secret shows, in whatever form settings come before people's eyes; and what is none stays readable."""

from __future__ import annotations

import argparse
import functools
import json
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Any

import pytest

from arroyo_sync.kafka.redaction import FILTERED, is_secret, without_secret_settings, without_secrets
from arroyo_sync.leaders.commit_log.reader import ReaderSettings
from arroyo_sync.status.reader import StatusQuery


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("sasl.password", True),
        ("ssl.key.password", True),
        ("ssl.keystore.password", True),
        ("ssl.key.pem", True),
        ("ssl_key", True),
        ("sasl.oauthbearer.client.secret", True),
        ("sasl.oauthbearer.config", True),
        ("ARROYO_SYNC_KAFKA_SASL_OAUTHBEARER_CONFIG", True),
        ("--sasl-oauthbearer-config", True),
        ("sasl.oauthbearer.assertion.private.key.passphrase", True),
        ("sasl.jaas.config", True),
        ("ARROYO_SYNC_KAFKA_SASL_PASSWORD", True),
        ("sasl.passwd", True),
        ("sasl_passwd", True),
        ("db.pwd", True),
        ("db_pass", True),
        ("ssl.keystore.key", True),
        ("ssl.key.passphrase", True),
        ("ssl_private_key", True),
        ("token", True),
        ("access_token", True),
        ("SENTRY_AUTH_TOKEN", True),
        ("refreshToken", True),
        ("api_key", True),
        ("X-Api-Key", True),
        ("aws.secret.access.key", True),
        ("Authorization", True),
        ("sasl.oauthbearer.client.id", False),
        ("sasl.oauthbearer.scope", False),
        ("ssl.key.location", False),
        ("ssl.keystore.location", False),
        ("sasl.oauthbearer.token.endpoint.url", False),
        ("sasl.oauthbearer.assertion.algorithm", False),
        ("delegation.token.max.lifetime.ms", False),
        ("max_tokens", False),
        ("tokenizer", False),
        ("compass", False),
        ("passengers", False),
        ("secretary.name", False),
        ("partition.assignment.strategy", False),
        ("sasl.oauthbearer.assertion.private.key.file", False),
        ("ssl.certificate.pem", False),
        ("ssl.ca.location", False),
        ("sasl.username", False),
        ("sasl.mechanisms", False),
        ("bootstrap.servers", False),
        ("sasl.kerberos.kinit.cmd", False),
        ("oauth_cb", False),
        ("key", False),
    ],
)
def test_which_settings_are_secrets(name: str, secret: bool) -> None:
    """What opens a door is one; where it is to be found, and who knocks, is not."""
    assert is_secret(name) is secret


def test_a_text_is_shown_without_the_secrets_among_the_settings() -> None:
    """librdkafka's own errors quote values; a secret that holds another one goes whole."""
    settings = {"sasl.password": "hunter2", "ssl.key.password": "hunter2hunter2", "sasl.username": "me"}
    text = 'Invalid value "hunter2hunter2" of me, not hunter2'
    assert without_secrets(text, settings) == f'Invalid value "{FILTERED}" of me, not {FILTERED}'


def test_an_empty_secret_filters_nothing() -> None:
    """It is in every text."""
    assert without_secrets("all is well", {"sasl.password": ""}) == "all is well"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param({"sasl.password": "'hunter2'"}, {"sasl.password": FILTERED}, id="a setting"),
        pytest.param(
            {"frames": [{"vars": {"config": {"sasl.password": "hunter2", "group.id": "g"}}}]},
            {"frames": [{"vars": {"config": {"sasl.password": FILTERED, "group.id": "g"}}}]},
            id="a setting in a traceback's variable",
        ),
        pytest.param(
            "{'group.id': 'g', 'sasl.password': 'hun\\'ter2', 'x': 1}",
            f"{{'group.id': 'g', 'sasl.password': '{FILTERED}', 'x': 1}}",
            id="settings that were made a text",
        ),
        pytest.param('{"ssl.key.pem": "-----BEGIN"}', f'{{"ssl.key.pem": "{FILTERED}"}}', id="JSON as a text"),
        pytest.param({"password": None, "n": 1}, {"password": None, "n": 1}, id="nothing to filter"),
    ],
)
def test_nested_values_are_shown_without_secret_settings(value: object, expected: object) -> None:
    """Whatever the depth, and also where a dictionary was cut off into a text."""
    assert without_secret_settings(value) == expected


SECRET = "hunter2+/x"
"""With characters that end a word."""


@dataclass
class Settings:
    group_id: str
    sasl_password: str


def shown_settings(name: str, secret: str) -> dict[str, Any]:
    """A setting in every form in which it may come before somebody's eyes."""
    config = {"group.id": "followers", name: secret}
    return {
        "mapping": config,
        "mapping of bytes": {b"group.id": b"followers", name.encode(): secret.encode()},
        "mapping of what the SDK made": {"group.id": "'followers'", f"'{name}'": f"'{secret}'"},
        "pairs": [*config.items()],
        "pairs in a tuple": tuple(config.items()),
        "pairs of what the SDK made": [["'group.id'", "'followers'"], [f"'{name}'", f"'{secret}'"]],
        "pairs of bytes": [(b"group.id", b"followers"), (name.encode(), secret.encode())],
        "arguments": ["follower", "--group.id", "followers", f"--{name}", secret],
        "one argument": ["follower", "--group.id=followers", f"-X{name}={secret}"],
        "name=value": f"group.id=followers\n{name}={secret}\nclient.id=me",
        "name = value": f"group.id = followers, {name} = {secret}",
        "name: value": f"group.id: followers, {name}: {secret}",
        "quoted value": f'followers: {name}="{secret}";',
        "repr": repr(config),
        "repr of pairs": repr([*config.items()]),
        "repr of an OrderedDict": repr(OrderedDict(config)),
        "repr of bytes": repr({key.encode(): value.encode() for key, value in config.items()}),
        "repr of a repr": repr({"settings": repr(config), "it's": 1}),
        "JSON": json.dumps(config),
        "JSON in JSON": json.dumps({"settings": json.dumps(config)}),
        "cut off": repr(config)[:-3],
        "bytes": f"group.id=followers {name}={secret}".encode(),
        "deep": {"followers": [{"vars": ({"one": [config]},)}]},
    }


FORMS = [*shown_settings("sasl.password", SECRET)]


NAMES = [
    "sasl.password",
    "sasl.passwd",
    "ssl.keystore.key",
    "api_token",
    "ssl_private_key",
    "sasl.kerberos.kinit.cmd",
    "KAFKA_KINIT_CMD",
]


def assert_hidden(value: object, *what: object) -> None:
    """No part of the secret shows, and what stands beside it does."""
    shown = repr(without_secret_settings(value))
    assert "hunter2" not in shown, what
    assert "Filtered" in shown, what
    assert "followers" in shown, what


@pytest.mark.parametrize("form", FORMS)
def test_a_secret_does_not_show_in_any_form(form: str) -> None:
    for name in NAMES:
        assert_hidden(shown_settings(name, SECRET)[form], name)


COMMANDS = [
    "echo hunter2 | kinit me",
    "kinit -t \"%{sasl.kerberos.keytab}\" 'me' hunter2",
    '"kinit" -w hunter2 me',
    "'/usr/bin/kinit' -w \"hunter2\"; true",
]
"""As a shell takes them: a password in one has no name beside it."""


@pytest.mark.parametrize("form", FORMS)
def test_no_word_of_a_command_shows_in_any_form(form: str) -> None:
    """It has blanks and quotes, and in a file or a line none around it."""
    name = "sasl.kerberos.kinit.cmd"
    for command in COMMANDS:
        settings = shown_settings(name, command)
        settings["quoted value"] = f"followers: {name}={json.dumps(command)}"
        assert_hidden(settings[form], command)


def test_what_follows_a_command_shows() -> None:
    """And that there is none."""
    for text, expected in (
        ("{'kinit_cmd': 'echo hunter2', 'group.id': 'g'}", f"{{'kinit_cmd': '{FILTERED}', 'group.id': 'g'}}"),
        ("kinit.cmd=echo hunter2\ngroup.id=g", f"kinit.cmd={FILTERED}\ngroup.id=g"),
        ("{'kinit_cmd': None, 'group.id': 'g'}", "{'kinit_cmd': None, 'group.id': 'g'}"),
        ("Invalid sasl.kerberos.kinit.cmd value: no such", "Invalid sasl.kerberos.kinit.cmd value: no such"),
    ):
        assert without_secret_settings(text) == expected
    settings = {"sasl.kerberos.kinit.cmd": "echo hunter2"}
    assert without_secrets("refresh failed: echo hunter2", settings) == f"refresh failed: {FILTERED}"


def test_a_password_with_quotes_does_not_show_where_it_is_escaped_twice() -> None:
    """What ends it has as many backslashes as what begins it."""
    for secret in ('hun"ter2', "hun'ter2", "hun'te\"r2"):
        config = {"sasl.password": secret, "group.id": "followers"}
        for text in (json.dumps({"settings": json.dumps(config)}), repr({"settings": repr(config), "it's": 1})):
            shown = without_secret_settings(text)
            assert "ter2" not in shown
            assert "r2" not in shown.replace("followers", "")
            assert "followers" in shown


@dataclass
class Token:
    """With fields that aren't called secrets."""

    client: str
    word: str

    def fetch(self, config: str) -> None: ...

    def __call__(self, config: str) -> None: ...


def fetch(*args: object, **kwargs: object) -> None: ...


def callbacks(secret: str) -> dict[str, Callable[..., None]]:
    """Ways to give a function what it logs in with."""
    return {
        "partial": functools.partial(fetch, "me", secret),
        "partial with a name": functools.partial(fetch, client="me", word=secret),
        "partial of a method": functools.partial(Token("me", secret).fetch, "me"),
        "bound method": Token("me", secret).fetch,
        "callable object": Token("me", secret),
    }


def shown_callback(callback: object, name: str = "oauth_cb") -> dict[str, Any]:
    """The setting in every form in which it may come before somebody's eyes."""
    config = {"group.id": "followers", name: callback}
    return {
        "mapping": config,
        "mapping of what the SDK made": {"group.id": "'followers'", f"'{name}'": repr(callback)},
        "pairs": [*config.items()],
        "pairs of what the SDK made": [["'group.id'", "'followers'"], [f"'{name}'", repr(callback)]],
        "arguments": ["followers", f"--{name}", callback],
        "name=value": f"group.id=followers\n{name}={callback!r}\nclient.id=me",
        "name = value": f"{name} = {callback!r}, group.id = followers",
        "name: value": f"group.id: followers, {name}: {callback!r}",
        "repr": repr({name: callback, "group.id": "followers"}),
        "repr of pairs": repr([*config.items()]),
        "repr of a repr": repr({"settings": repr(config), "it's": 1}),
        "JSON": json.dumps(config, default=repr),
        "JSON in JSON": json.dumps({"settings": json.dumps(config, default=repr)}),
        "JSON of a repr": json.dumps({"settings": repr(config)}),
        "cut off": repr(config)[:-4],
        "object": ("followers", Opaque(repr(config))),
    }


class Opaque:
    """Whatever shows this as its ``repr``."""

    def __init__(self, shown: str) -> None:
        self.shown = shown

    def __repr__(self) -> str:
        return self.shown


CALLBACK_FORMS = [*shown_callback(fetch)]


@pytest.mark.parametrize("kind", [*callbacks("")])
@pytest.mark.parametrize("form", CALLBACK_FORMS)
def test_what_a_function_was_made_with_does_not_show_in_any_form(form: str, kind: str) -> None:
    """It has no name beside it."""
    for secret in ("hunter2", "a')hunter2", "a\"b'(hunter2", "]}>, hunter2", "\\hunter2\\"):
        assert_hidden(shown_callback(callbacks(secret)[kind])[form], secret)


@pytest.mark.parametrize("form", CALLBACK_FORMS)
def test_which_function_it_is_shows_in_every_form(form: str) -> None:
    """Whoever reads it must know whom to ask; and a function shows no more than that."""
    plains = [fetch, len, Lock().acquire, Token, Opaque("None"), Opaque("app.tokens:fetch")]
    for plain in plains:
        for name in ("oauth_cb", "error_cb"):
            value = shown_callback(plain, name)[form]
            if not (form == "cut off" and name == "oauth_cb"):
                assert without_secret_settings(value) == value
    shown = repr(without_secret_settings(shown_callback(callbacks("hunter2")["partial"])[form]))
    assert "<function fetch at 0x" in shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("functools.partial(<function f at 0x7f>)", "functools.partial(<function f at 0x7f>)"),
        (
            "made functools.partial(<function A.<locals>.<lambda> at 0x7f>, 'hunter2', [1, (2,)]) of it (1)",
            f"made functools.partial(<function A.<locals>.<lambda> at 0x7f>, {FILTERED}) of it (1)",
        ),
        (
            "functools.partial(<bound method A.f of <a.A object at 0x7f>>, x=')', y=<Edge a->b>)",
            f"functools.partial(<bound method A.f of <a.A object at 0x7f>>, {FILTERED})",
        ),
        ("functools.partial(<class 'a.A'>, {'x': 1})", f"functools.partial(<class 'a.A'>, {FILTERED})"),
        ("functools.partial(<bound method A.f of A('hunter2')>)", f"functools.partial({FILTERED})"),
        ("functools.partial(<function f at 0x7f>, 'hunt", f"functools.partial(<function f at 0x7f>, {FILTERED}"),
        (
            "functools.partial(f, 1), functools.partialmethod(g, 2)",
            f"functools.partial(f, {FILTERED}), functools.partialmethod(g, {FILTERED})",
        ),
        ("oauth_cb=<bound method A.f of <a.A object at 0x7f>>", "oauth_cb=<bound method A.f of <a.A object at 0x7f>>"),
        ("oauth_cb=A('hunter2')(1), x=1", f"oauth_cb={FILTERED}, x=1"),
        ("A(oauth_cb=<A me, hunter2>)", f"A(oauth_cb={FILTERED})"),
        ("argument --oauth-cb: 'my-module:fetch' can't be had", "argument --oauth-cb: 'my-module:fetch' can't be had"),
        ("Does oauth_cb raise, and is it (so)?", "Does oauth_cb raise, and is it (so)?"),
    ],
)
def test_a_function_in_a_text_is_shown_without_what_it_was_made_with(text: str, expected: str) -> None:
    assert without_secret_settings(text) == expected
    assert without_secret_settings(expected) == expected


def test_an_object_is_shown_as_it_is_unless_its_repr_shows_a_secret() -> None:
    """The SDK makes the ``repr`` of it afterwards. One that has none is its business."""

    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError("no")

        def __eq__(self, other: object) -> bool:
            raise RuntimeError("no")

    broken, plain = Broken(), object()
    shown = without_secret_settings([broken, plain, Settings("g", "hunter2"), {"oauth_cb": broken, "x": broken}])
    assert shown[0] is broken
    assert shown[1] is plain
    assert shown[2] == f"Settings(group_id='g', sasl_password='{FILTERED}')"
    assert shown[3]["oauth_cb"] is broken
    assert shown[3]["x"] is broken


@pytest.mark.parametrize("form", FORMS)
def test_what_is_no_secret_shows_in_every_form(form: str) -> None:
    """Byte for byte."""
    value = shown_settings("client.id", "hunter2")[form]
    assert without_secret_settings(value) == value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("kafka://me:hunter2@here:9092/x", f"kafka://me:{FILTERED}@here:9092/x"),
        ("redis://:hun/ter:2@here", f"redis://:{FILTERED}@here"),
        ("at https://me:hunter2@here and http://there:80/x", f"at https://me:{FILTERED}@here and http://there:80/x"),
        ("http://here:80/x?password=hunter2&x=1", f"http://here:80/x?password={FILTERED}&x=1"),
        ("Authorization: Bearer abcdef.ghi", f"Authorization: {FILTERED} {FILTERED}"),
        ("got Bearer abcdef.ghi back", f"got Bearer {FILTERED} back"),
        (
            'org.apache.kafka.PlainLoginModule required username="me" password="hunter2";',
            f'org.apache.kafka.PlainLoginModule required username="me" password="{FILTERED}";',
        ),
        (repr(Settings("g", "hunter2")), f"Settings(group_id='g', sasl_password='{FILTERED}')"),
        (repr(argparse.Namespace(api_key="hunter2", x=1)), f"Namespace(api_key='{FILTERED}', x=1)"),
        ("{'sasl.password': None, 'n': 1}", "{'sasl.password': None, 'n': 1}"),
        ("check user, password and permissions: it failed", "check user, password and permissions: it failed"),
        ("events[3]: group 'writers' went back from 5 to 3", "events[3]: group 'writers' went back from 5 to 3"),
        ("broker:9092, at 10:31:05", "broker:9092, at 10:31:05"),
    ],
)
def test_a_text_is_shown_without_what_it_names_a_secret(text: str, expected: str) -> None:
    """URLs with a password, JAAS, an object's repr; and an ordinary line stays as it is."""
    assert without_secret_settings(text) == expected


@pytest.mark.parametrize("secret", ["hunter2", b"hunter2", 1234567], ids=repr)
def test_a_text_is_shown_without_the_secrets_among_the_settings_whatever_type_they_have(secret: object) -> None:
    assert without_secrets("is it hunter2 or 1234567?", {"sasl.password": secret}).count(FILTERED) == 1


def test_what_is_nested_too_deeply_is_not_shown() -> None:
    """A structure that holds itself would have no end."""
    endless: list[object] = []
    endless.append({"again": endless})
    assert FILTERED in repr(without_secret_settings(endless))


def test_our_own_settings_do_not_show_in_their_repr() -> None:
    """Which a debugger, a log line and Sentry's SDK show."""
    settings = {"bootstrap.servers": "here", "sasl.password": "hunter2"}
    for each in (
        StatusQuery("events", "g", ("w",), settings, commit_log_settings=settings),
        ReaderSettings("log", settings, "all", 1.0, False, 1.0, float, float),
    ):
        assert "hunter2" not in repr(each)


IN_A_PROCESS = """\
import json, sys
from arroyo_sync.kafka.redaction import without_secret_settings
json.dump([without_secret_settings(each) for each in json.load(sys.stdin)], sys.stdout)
"""


def test_a_long_text_takes_no_long_time() -> None:
    """What is searched grows with the text, not with its square, which would take minutes.

    In a process, since a search that takes so long holds the interpreter's lock, and no thread could end the wait.
    """
    unchanged = [
        "a" * 200_000,
        "password" * 40_000,
        "'" * 50_000,
        "x://" * 100_000,
        "\\'" * 50_000,
        "oauth_cb=app:fetch " * 20_000,
        "functools.partial(f) " * 20_000,
        "kinit.cmd " * 20_000,
        "([{<" * 50_000,
    ]
    filtered = {
        "password='" * 20_000: f"password='{FILTERED}'" * 10_000,
        "functools.partial(" * 20_000: f"functools.partial({FILTERED}",
        "functools.partial(f, '" * 20_000: f"functools.partial(f, {FILTERED}",
        "functools.partial(f, " + "<" * 100_000 + ")" * 100_000: f"functools.partial(f, {FILTERED})",
        "functools.partial(<function " + "a" * 200_000: f"functools.partial({FILTERED}",
        "oauth_cb=(" * 20_000: f"oauth_cb={FILTERED}",
        "oauth_cb=a('x') " * 20_000: f"oauth_cb={FILTERED} " * 20_000,
        "kinit.cmd='x' y\n" * 20_000: f"kinit.cmd='{FILTERED}'\n" * 20_000,
        "kinit.cmd=\\'x\\' y" * 20_000: f"kinit.cmd=\\'{FILTERED}\\'",
    }
    texts = [*unchanged, *filtered]
    command = [sys.executable, "-c", IN_A_PROCESS]
    done = subprocess.run(command, input=json.dumps(texts), capture_output=True, text=True, timeout=60.0)
    assert done.returncode == 0, done.stderr
    expected = [*unchanged, *filtered.values()]
    # Only whether each is right: to show a difference of such texts takes pytest long as well.
    is_right = [shown == text for shown, text in zip(json.loads(done.stdout), expected, strict=True)]
    assert all(is_right), is_right


@pytest.mark.parametrize("secret", ["&k9", "(k9", "[k9", "{k9", ",k9", "k9,rest9", "'k9", "k9 rest9"])
@pytest.mark.parametrize(
    "name",
    [
        "--kafka-password",
        "sasl.password",
        "ARROYO_SYNC_KAFKA_SASL_PASSWORD",
        "--setting=sasl.password",
        "-e=DB_PASSWORD",
    ],
)
def test_an_argument_of_a_command_is_filtered_to_its_end(name: str, secret: str) -> None:
    """Sentry's SDK sends them with every event, as they are or as their repr."""
    argument = f"{name}={secret}"
    for item in (argument, repr(argument)):
        shown = without_secret_settings({"sys.argv": ["forwarder.py", item, "--topic=events"]})["sys.argv"]
        assert shown[0::2] == ["forwarder.py", "--topic=events"]
        assert "9" not in shown[1]
        assert name in shown[1]


def test_the_body_of_a_private_key_is_not_shown_whatever_it_is_called() -> None:
    """Also one that was cut off, or of which the line ends are escaped."""
    body = "MIIEvQ+k9/x=="
    begin, end = ("-".join(["-----BEGIN PRIVATE KEY", "----"]), "-".join(["-----END PRIVATE KEY", "----"]))
    for lines in (f"{begin}\n{body}\n{end}", f"{begin}\\n{body}\\n{end}", f"{begin}\n{body}"):
        shown = without_secrets(f"ssl.key.pem={lines}", {}), without_secrets(f"it holds {lines}", {})
        assert body not in "".join(shown)
    assert without_secrets(f"{begin} and {end} and more", {}).endswith(f"{end} and more")
