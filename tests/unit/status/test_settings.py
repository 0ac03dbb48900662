from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from arroyo_sync.core.errors import ConfigurationError
from arroyo_sync.status.settings import (
    OAuthCallback,
    environment_settings,
    flag_settings,
    kafka_settings,
    read_properties,
    with_oauth_cb,
)


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "kafka.properties"
    file.write_text(text)
    return file


def test_a_file_in_librdkafkas_form(tmp_path: Path) -> None:
    """Comments, blank lines, blanks around names and values, and an equals sign in a value."""
    file = written(
        tmp_path,
        """\
# our cluster
bootstrap.servers=one:9092,two:9092

   security.protocol = SASL_SSL
sasl.password=a=b # not a comment
ssl.endpoint.identification.algorithm=
""",
    )
    assert read_properties(file) == {
        "bootstrap.servers": "one:9092,two:9092",
        "security.protocol": "SASL_SSL",
        "sasl.password": "a=b # not a comment",
        "ssl.endpoint.identification.algorithm": "",
    }


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    """As editors on Windows write it: it is no part of the first setting's name."""
    file = tmp_path / "kafka.properties"
    file.write_text("bootstrap.servers=one:9092\n", encoding="utf-8-sig")
    assert read_properties(file) == {"bootstrap.servers": "one:9092"}


def test_a_line_that_is_no_setting_is_named_but_not_shown(tmp_path: Path) -> None:
    """It may be a password that someone put there by itself."""
    file = written(tmp_path, "bootstrap.servers=one:9092\nhunter2\n")
    with pytest.raises(
        ConfigurationError, match=r"kafka\.properties, line 2, is no setting: write name=value"
    ) as raised:
        read_properties(file)
    assert "hunter2" not in str(raised.value)


def test_a_file_that_can_not_be_read_is_named_with_the_reason(tmp_path: Path) -> None:
    """Missing, or not text."""
    with pytest.raises(ConfigurationError, match=r"nowhere: No such file"):
        read_properties(tmp_path / "nowhere")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match=r"binary: it isn't UTF-8"):
        read_properties(tmp_path / "binary")


def test_the_environment_names_settings_in_capitals_behind_a_prefix() -> None:
    """Underscores stand for dots; everything else of the environment is none of our business."""
    environment = {
        "ARROYO_SYNC_KAFKA_SASL_PASSWORD": "hunter2",
        "ARROYO_SYNC_KAFKA_BOOTSTRAP_SERVERS": "one:9092",
        "ARROYO_SYNC_KAFKA_": "nothing",
        "ARROYO_SYNC_TEST_BOOTSTRAP_SERVERS": "two:9092",
        "SASL_PASSWORD": "another",
    }
    assert environment_settings(environment) == {"sasl.password": "hunter2", "bootstrap.servers": "one:9092"}


def test_flags_count_over_the_environment_and_that_over_files(tmp_path: Path) -> None:
    """A flag that wasn't given changes nothing; of two files the later counts."""
    first = written(tmp_path, "a=file\nb=file\nc=file\nd=file\n")
    second = tmp_path / "second"
    second.write_text("b=second\n")
    settings = kafka_settings(
        [first, second],
        {"ARROYO_SYNC_KAFKA_C": "environment", "ARROYO_SYNC_KAFKA_D": "environment"},
        {"d": "flag", "a": None},
    )
    assert settings == {"a": "file", "b": "second", "c": "environment", "d": "flag"}


def test_settings_on_the_command_line() -> None:
    """Name and value; a value may hold an equals sign."""
    assert flag_settings(["security.protocol=SASL_SSL", "debug = a=b"]) == {
        "security.protocol": "SASL_SSL",
        "debug": "a=b",
    }


@pytest.mark.parametrize("pair", ["security.protocol", "=SASL_SSL"])
def test_a_flag_that_is_no_setting_is_an_error(pair: str) -> None:
    """The message shows the form."""
    with pytest.raises(ConfigurationError, match="-X takes name=value"):
        flag_settings([pair])


def test_a_secret_on_the_command_line_is_refused_and_not_repeated() -> None:
    """Every user of the machine can read command lines; the message says where to put it."""
    with pytest.raises(ConfigurationError, match="ARROYO_SYNC_KAFKA_SASL_PASSWORD") as raised:
        flag_settings(["sasl.password=hunter2"])
    assert "hunter2" not in str(raised.value)


@pytest.fixture
def issuer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a function in a module that lies in the working directory."""
    (tmp_path / "the_issuer.py").write_text("def token(configuration): return 'a token', 0.0\nnumber = 1\n")
    (tmp_path / "a_script.py").write_text("import sys\ndef token(configuration): ...\nsys.exit(0)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return "the_issuer:token"


def test_oauth_cb_is_found_by_its_name(issuer: str) -> None:
    """And keeps it, so that another process finds it, too."""
    function = OAuthCallback(issuer)
    assert function("") == ("a token", 0.0)
    assert function.name == issuer


@pytest.mark.parametrize(
    ("name", "why"),
    [
        pytest.param("the_issuer", "give it as MODULE:FUNCTION", id="no function"),
        pytest.param("nowhere:token", "No module named 'nowhere'", id="no module"),
        pytest.param("the_issuer:nothing", "has no attribute 'nothing'", id="not in it"),
        pytest.param("the_issuer:number", "can't be called", id="no function of that name"),
        pytest.param("a_script:token", "can't be had: SystemExit: 0", id="a script that ends: its status was ours"),
    ],
)
def test_an_oauth_cb_that_can_not_be_had_is_refused_with_the_reason(issuer: str, name: str, why: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=why):
        OAuthCallback(name)


@pytest.mark.parametrize(
    ("settings", "is_given"),
    [
        pytest.param({"sasl.mechanism": "OAUTHBEARER"}, True, id="asked for"),
        pytest.param({"sasl.mechanisms": "oauthbearer"}, True, id="by its other name"),
        pytest.param({"sasl.mechanism": "PLAIN"}, False, id="another mechanism"),
        pytest.param({}, False, id="no login"),
    ],
)
def test_oauth_cb_is_given_where_a_token_is_asked_for(settings: dict[str, str], is_given: bool, issuer: str) -> None:
    """A client that asks for none would wait ten seconds for it."""
    oauth_cb = OAuthCallback(issuer)
    assert with_oauth_cb(settings, oauth_cb).get("oauth_cb") is (oauth_cb if is_given else None)
    assert with_oauth_cb(settings, None) == settings
