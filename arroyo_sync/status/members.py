"""Who is in a consumer group: the members' client ids, hosts and partitions.

Only a group's coordinator knows, and librdkafka's administrator client may abort the whole process when a coordinator
goes away during the question (librdkafka issue 4605). So a process of its own asks: an abort, a hang or an error costs
this answer alone. The settings go through its standard input, since they may hold passwords; a function by its name.

Run as ``python -m arroyo_sync.status.members``: it reads ``{"settings": {...}, "groups": [...], "topic": ...,
"timeout": ...}`` and writes one line, ``{group: [member, ...] or "why not"}``.

Threads: one for each question reads what its process writes, and ends with it.
"""

from __future__ import annotations

import concurrent.futures
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from arroyo_sync.kafka.client_settings import admin_settings
from arroyo_sync.status.settings import OAuthCallback

SECONDS_TO_START = 5.0
"""What a process takes to begin, on a busy machine."""
SECONDS_TO_END = 1.0
"""What the reading takes to end once the process was killed. Longer only if the process has started others."""


@dataclass(frozen=True, slots=True)
class Member:
    """One member of a group, as its coordinator knows it."""

    client_id: str
    host: str
    partitions: tuple[int, ...] = ()
    """Of the data topic."""


Members = Mapping[str, Sequence[Member] | str]
"""By group its members, or why they can't be told. A group that is missing wasn't asked about."""


class MembersQuestion:
    """A question to a process of its own. Begin it, do something else, and take the answer.

    :param settings: librdkafka's, of the cluster where the groups are.
    :param timeout: seconds for the brokers' answer.
    :param clock: monotonic seconds.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        groups: Collection[str],
        topic: str,
        timeout: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._groups = sorted(groups)
        self._clock = clock
        self._deadline = clock() + timeout + SECONDS_TO_START
        question = {"settings": _as_json(settings), "groups": self._groups, "topic": topic, "timeout": timeout}
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the command, which ends this one
        )
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(question).encode())
            self._process.stdin.close()
        except OSError:  # it has ended already; `answer` says so
            pass
        self._process.stdin = None
        # Written by the reading thread, read once that has ended.
        self._output = b""
        self._reading = threading.Thread(target=self._read_output, name="arroyo-sync members", daemon=True)
        self._reading.start()

    @property
    def has_answer(self) -> bool:
        """Whether `answer` wouldn't block: the process has ended, or its time is over."""
        return not self._reading.is_alive() or self._clock() >= self._deadline

    def answer(self) -> dict[str, tuple[Member, ...] | str]:
        """By group its members, or why they can't be told. Blocks until the timeout at most."""
        try:
            # One that has ended is heard also when the time is over, since something else was done meanwhile.
            self._reading.join(max(0.0, self._deadline - self._clock()))
            if self._reading.is_alive():
                return dict.fromkeys(self._groups, "the brokers didn't answer in time")
        finally:
            self.close()
        if self._process.returncode:
            return dict.fromkeys(self._groups, f"the process that asked ended with {self._process.returncode}")
        try:
            return {group: _read(said) for group, said in json.loads(self._output).items()}
        except (ValueError, TypeError, AttributeError):
            return dict.fromkeys(self._groups, "the answer can't be read")

    def close(self) -> None:
        """End the process, if it still runs."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._reading.join(SECONDS_TO_END)

    def _read_output(self) -> None:
        """Until the process has ended, which it can't while more than a pipe takes is left in it."""
        self._output, _ = self._process.communicate()


def _as_json(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, ``oauth_cb`` by its name."""
    return {name: value.name if isinstance(value, OAuthCallback) else value for name, value in settings.items()}


def _read(said: str | Sequence[Mapping[str, Any]]) -> tuple[Member, ...] | str:
    if isinstance(said, str):
        return said
    return tuple(Member(each["client_id"], each["host"], tuple(each["partitions"])) for each in said)


def describe(
    settings: Mapping[str, Any], groups: Sequence[str], topic: str, timeout: float
) -> dict[str, list[dict[str, Any]] | str]:
    """The members of each group. May abort the process."""
    admin = AdminClient(admin_settings(settings))  # held, since its end would leave the futures unanswered
    futures = admin.describe_consumer_groups(list(groups), request_timeout=timeout)
    answers: dict[str, list[dict[str, Any]] | str] = {}
    for group, future in futures.items():
        try:
            described = future.result(timeout)
        except KafkaException as error:
            answers[group] = error.args[0].str()
            continue
        except concurrent.futures.TimeoutError:
            answers[group] = "the brokers didn't answer in time"
            continue
        members = []
        for each in described.members:
            assigned = [] if each.assignment is None else each.assignment.topic_partitions
            partitions = tuple(sorted(one.partition for one in assigned if one.topic == topic))
            members.append(asdict(Member(each.client_id, each.host.lstrip("/"), partitions)))
        answers[group] = sorted(members, key=lambda member: (member["partitions"], member["client_id"]))
    return answers


def main() -> None:
    question = json.load(sys.stdin)
    settings = question["settings"]
    if "oauth_cb" in settings:
        settings["oauth_cb"] = OAuthCallback(settings["oauth_cb"])
    print(json.dumps(describe(settings, question["groups"], question["topic"], question["timeout"])))


if __name__ == "__main__":
    main()
