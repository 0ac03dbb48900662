"""The command ``arroyo-sync`` under generated arguments, on a real broker: an exit status, a line, and no traceback."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import Producer
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from arroyo_sync.leaders.commit_log.record import CommitRecord, encode
from arroyo_sync.status.command import main
from tests.integration.cluster.admin import Kafka

EXAMPLES = int(os.environ.get("ARROYO_SYNC_TEST_COMMAND_LINES", "50"))
PATIENCE_SECONDS = "3"
BROKER_SECONDS = "60"
"""Where nothing speaks against the broker: it may stand still for longer than that."""
STATUSES = {0, 1, 2}

Names = Callable[..., str]


class Scene:
    """A topic with a follower and two leaders, of which one has said nothing, and files of settings."""

    def __init__(self, kafka: Kafka, names: Names, folder: Path) -> None:
        self.servers = kafka.bootstrap_servers
        self.topic, self.log, self.empty = names("events"), names("commit-log"), names("empty")
        self.group, self.leader = names("follower"), names("leader")
        kafka.create_topic(self.topic, 3)
        kafka.create_topic(self.log)
        kafka.create_topic(self.empty)
        producer = Producer({"bootstrap.servers": self.servers})
        for number in range(30):
            producer.produce(self.topic, b"x", partition=number % 3)
        for partition in range(3):
            key, value = encode(CommitRecord(self.topic, partition, self.leader, 5 + partition, 1.0))
            producer.produce(self.log, value, key)
        producer.produce(self.log, b"\xff{", b"rubbish")
        assert producer.flush(30) == 0
        kafka.commit_offsets(self.group, self.topic, {0: 2, 1: 6, 2: 7})
        kafka.commit_offsets(self.leader, self.topic, {0: 5, 1: 6, 2: 7})
        self.files = {
            name: str(folder / name) for name in ("good", "binary", "no-name", "empty-file", "not-there", "folder")
        }
        Path(self.files["good"]).write_text("# settings\nclient.id = command line\n")
        Path(self.files["binary"]).write_bytes(b"\xff\xfe\x00=1\n")
        Path(self.files["no-name"]).write_text("=value\nnothing\n")
        Path(self.files["empty-file"]).write_text("")
        Path(self.files["folder"]).mkdir()

    def command_lines(self) -> st.SearchStrategy[list[str]]:
        """Mostly right ones, each with a few flags that may be wrong."""
        text = st.text(max_size=12)
        topics = st.sampled_from([self.topic, self.log, self.empty, "no-such-topic", "a:b", ""]) | text
        groups = st.sampled_from([self.group, self.leader, "nobody", "a:b", ""]) | text
        numbers = st.sampled_from(["0", "1", "-1", "007", "1e3", "nan", "inf", "2147483648", "x", ""]) | text
        seconds = st.sampled_from(["0.05", "0.2", "1", "0", "-1", "nan", "inf", "1e9", "soon"])
        set_names = st.sampled_from(
            [
                "client.id",
                "debug",
                "nonsense",
                "fetch.min.bytes",
                "security.protocol",
                "error_cb",
                "group.id",
                "",
                "a b",
            ]
        )
        set_values = st.sampled_from(["", "1", "-1", "all", "ssl", "sasl_ssl", "plaintext", "nan"]) | text
        files = st.sampled_from(sorted(self.files.values()))

        def flag(name: str, values: st.SearchStrategy[str]) -> st.SearchStrategy[list[str]]:
            return st.builds(
                lambda value, joined: [f"{name}={value}"] if joined else [name, value], values, st.booleans()
            )

        common = [
            flag("-X", st.builds(lambda name, value: f"{name}={value}", set_names, set_values) | text),
            flag("--config", files),
            flag("--timeout", seconds),
            flag(
                "--bootstrap-servers", st.sampled_from([self.servers, "127.0.0.1:1", ":", "nowhere.invalid:9092", ""])
            ),
            st.sampled_from([["--json"], ["--nonsense"], ["stray"], ["--"], [""]]),
        ]
        of_status = [
            flag("--topic", topics),
            flag("--follower-group", groups),
            flag("--leader-group", groups),
            flag("--commit-log", topics),
            flag("--commit-log-bootstrap-servers", st.sampled_from([self.servers, "127.0.0.1:1", ""])),
            flag("--commit-log-config", files),
            flag("--partition", numbers),
            flag("--stalled-after", seconds),
            flag("--verdict", st.sampled_from(["ok", "stalled,waiting", "ok,", "ill", ""])),
            flag("--watch", st.sampled_from(["0", "-1", "nan", "often"])),  # right ones end with a signal alone
            st.sampled_from([["--recent"], ["--all"], ["--wide"]]),
        ]
        of_tail = [flag("--group", groups), flag("--topic", topics), flag("--partition", numbers), flag("-n", numbers)]
        right = ["--topic", self.topic, "--follower-group", self.group, "--leader-group", self.leader]
        log = ["--commit-log", self.log]
        stalled = [*right, *log, "--stalled-after", "0.01"]  # of partition 0 the follower is behind its leader

        elsewhere = ("-X", "--config", "--bootstrap-servers", "--commit-log-bootstrap-servers", "--commit-log-config")

        def line(command: list[str], base: list[str], extra: list[list[str]]) -> list[str]:
            is_there = not any(word.startswith(elsewhere) for flags in extra for word in flags)
            patience = BROKER_SECONDS if is_there else PATIENCE_SECONDS
            own = ["--bootstrap-servers", self.servers, "--timeout", patience]
            return [*command, *own, *base, *(word for flags in extra for word in flags)]

        look = ["--look-again", "0.05", "--no-members"]
        return st.one_of(
            st.builds(
                line,
                st.just(["status", *look]),
                st.sampled_from([right, [*right, *log], stalled, stalled, right[:4]]),
                st.lists(st.one_of(*common, *of_status), max_size=3),
            ),
            st.builds(
                line, st.just(["tail"]), st.sampled_from([log, []]), st.lists(st.one_of(*common, *of_tail), max_size=3)
            ),
            st.builds(line, st.just(["groups"]), st.sampled_from([log, []]), st.lists(st.one_of(*common), max_size=3)),
            st.lists(
                st.sampled_from(["status", "groups", "tail", "--version", "--help", "-h", "x"]) | text, max_size=3
            ),
        )


def run(arguments: list[str]) -> int:
    """The exit status that the process would have."""
    try:
        return main(arguments)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)


def test_whatever_is_given_ends_with_a_known_status_and_no_traceback(
    kafka: Kafka, topic_name: Names, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """``ARROYO_SYNC_TEST_COMMAND_LINES`` sets how many. A failure shows the arguments."""
    monkeypatch.delenv("ARROYO_SYNC_KAFKA_BOOTSTRAP_SERVERS", raising=False)
    scene = Scene(kafka, topic_name, tmp_path)
    statuses: Counter[int] = Counter()

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(scene.command_lines())
    def try_one(arguments: list[str]) -> None:
        status = run(arguments)
        said = capsys.readouterr()
        statuses[status] += 1
        assert status in STATUSES, arguments
        assert "Traceback" not in said.out + said.err, (arguments, said.err)
        assert status != 2 or said.out or said.err, arguments

    try_one()
    with capsys.disabled():
        print(f"\n{sum(statuses.values())} command lines: {dict(statuses)}")
    assert set(statuses) == STATUSES, statuses
