"""What a commit log holds, for whoever gave a wrong name."""

from __future__ import annotations

import pytest

from arroyo_sync.leaders.commit_log import contents as contents_module
from arroyo_sync.leaders.commit_log import record
from arroyo_sync.leaders.commit_log.contents import (
    JUDGED_RECORDS,
    KEYS_PER_BATCH,
    LEAST_RECORDS,
    MAX_NAME_LENGTH,
    MAX_NAMES,
    LogContents,
)
from arroyo_sync.leaders.commit_log.record import CommitKey

FOREIGN = b"a user's key"


@pytest.fixture
def contents() -> LogContents:
    return LogContents("log")


def test_it_names_who_publishes_of_what(contents: LogContents) -> None:
    """Each once, in order; what is no key has no names."""
    assert str(contents) == "no group publishes on it"
    contents.update([b"events:0:writers", b"events:1:writers", b"other:0:a:b", FOREIGN, None])
    assert str(contents) == "groups seen: 'a:b', 'writers'; of topics: 'events', 'other'"


def test_names_are_few_and_short_whatever_is_written(contents: LogContents) -> None:
    """Thousands of made-up groups leave a line a line."""
    for index in range(1_000):
        contents.update([b"events:0:%d" % index + b"x" * 1_000, b"t%d:0:g" % index])
    assert len(contents.groups) == MAX_NAMES
    assert all(len(group) <= MAX_NAME_LENGTH for group in contents.groups)
    assert "and maybe more" in str(contents)
    assert len(str(contents)) < 10_000


def test_that_there_may_be_more_names_is_said_where_they_are_no_longer_noted(contents: LogContents) -> None:
    """Of groups and of topics, each by itself."""
    contents.update([b"events:0:g%d" % index for index in range(MAX_NAMES - 1)])
    assert "more" not in str(contents)
    contents.update([b"events:0:last", b"events:0:another"])
    contents.update([b"later:0:g1"])
    groups = sorted(["last", *(f"g{index}" for index in range(MAX_NAMES - 1))])
    listed = ", ".join(repr(group) for group in groups)
    assert str(contents) == f"groups seen: {listed} and maybe more; of topics: 'events', 'later'"


def test_of_many_topics_as_few_are_noted(contents: LogContents) -> None:
    """Those that were seen first, though there are few groups."""
    contents.update([b"t%d:0:g" % index for index in range(2 * MAX_NAMES)])
    listed = ", ".join(sorted(repr(f"t{index}") for index in range(MAX_NAMES)))
    assert str(contents) == f"groups seen: 'g'; of topics: {listed} and maybe more"


def test_names_are_looked_for_in_so_many_keys_of_a_batch(contents: LogContents) -> None:
    """It takes time that the records need."""
    contents.update([b"events:0:g%d" % (index // KEYS_PER_BATCH) for index in range(2 * KEYS_PER_BATCH)])
    assert contents.groups == ("g0",)


def test_a_key_is_taken_apart_once_for_each_of_its_names(
    contents: LogContents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not for each record. Nor at all once there are as many names as are kept."""
    decoded: list[bytes | None] = []

    def decode_key(key: bytes | None) -> CommitKey:
        decoded.append(key)
        return record.decode_key(key)

    monkeypatch.setattr(contents_module, "decode_key", decode_key)
    for _ in range(2):
        contents.update([b"events:0:writers", b"events:1:writers", b"events:2:a:b", b"events:3:a:b", b"more:0:a:b"])
    assert decoded == [b"events:0:writers", b"events:2:a:b", b"more:0:a:b"]
    contents.update([b"t%d:0:g%d" % (index, index) for index in range(MAX_NAMES)])
    decoded.clear()
    contents.update([b"one more:0:another"])
    assert decoded == []


def test_a_topic_without_any_commit_record_is_called_no_commit_log(
    contents: LogContents, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, after a thousand records."""
    contents.judge([FOREIGN] * (JUDGED_RECORDS - 1))
    assert (caplog.messages, contents.is_foreign) == ([], False)
    contents.judge([None] * 10)
    contents.judge([FOREIGN] * 10_000)
    contents.conclude()
    (line,) = caplog.messages
    assert line == (
        "Topic log is no commit log: none of the first 1,000 records is a commit record, whose key would be "
        "topic:partition:group. Nothing is released. Was another topic's name given by mistake?"
    )
    assert contents.is_foreign
    contents.judge([b"events:0:g"])
    assert contents.is_foreign, "a thousand records are enough"


@pytest.mark.parametrize("before", [0, JUDGED_RECORDS - 1])
def test_one_commit_record_makes_it_a_commit_log(
    contents: LogContents, before: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Of any group, followed or not, however strange the others are."""
    contents.judge([FOREIGN] * before)
    contents.judge([b"events:0:anyone"])
    contents.judge([FOREIGN] * 10_000)
    assert (caplog.messages, contents.is_foreign) == ([], False)


def test_a_short_topic_is_called_so_when_it_was_read(contents: LogContents, caplog: pytest.LogCaptureFixture) -> None:
    """Ten records are enough for that, one may be a slip; and the first commit record takes it back."""
    contents.judge([FOREIGN] * (LEAST_RECORDS - 1))
    contents.conclude()
    assert not contents.is_foreign
    contents.judge([FOREIGN])
    contents.conclude()
    contents.conclude()
    assert contents.is_foreign
    assert len(caplog.messages) == 1
    assert "none of the first 10 records" in caplog.messages[0]
    contents.judge([b"events:0:g"])
    assert contents.is_foreign is False
    assert [(each.levelname, each.message) for each in caplog.records[1:]] == [
        ("WARNING", "Topic log is a commit log: a commit record has come after all")
    ]


def test_what_a_thousand_records_say_stands(contents: LogContents) -> None:
    """A commit record that comes later was written there by mistake."""
    contents.judge([FOREIGN] * JUDGED_RECORDS)
    contents.judge([b"events:0:g"])
    assert contents.is_foreign
