from __future__ import annotations

import pytest

from arroyo_sync.kafka.redaction import FILTERED, is_secret, redacted, without_secret_settings, without_secrets


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
        ("sasl.oauthbearer.assertion.private.key.passphrase", True),
        ("sasl.jaas.config", True),
        ("ARROYO_SYNC_KAFKA_SASL_PASSWORD", True),
        ("ssl.key.location", False),
        ("sasl.oauthbearer.assertion.private.key.file", False),
        ("ssl.certificate.pem", False),
        ("ssl.ca.location", False),
        ("sasl.username", False),
        ("sasl.mechanisms", False),
        ("bootstrap.servers", False),
        ("key", False),
    ],
)
def test_which_settings_are_secrets(name: str, secret: bool) -> None:
    """What opens a door is one; where it is to be found, and who knocks, is not."""
    assert is_secret(name) is secret


def test_settings_are_shown_without_their_secrets() -> None:
    """Everything else stays readable."""
    shown = redacted({"bootstrap.servers": "here:9092", "sasl.password": "hunter2"})
    assert shown == {"bootstrap.servers": "here:9092", "sasl.password": FILTERED}


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
