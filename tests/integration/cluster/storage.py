"""The storage of a broker that is new, as Kafka's own tool formats it.

The tool is a JVM of its own, and takes as long as half of a broker's start. So it is run once for each Kafka and each
choice of its features, and what it has made is kept beside the jars, and copied for each broker.
"""

from __future__ import annotations

import base64
import hashlib
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.integration.cluster.machine_cache import make_once

_IDENTITY = "meta.properties"


@dataclass(frozen=True)
class Storage:
    """What is in a formatted folder: whose it is, and the levels of Kafka's features."""

    files: Mapping[str, bytes]
    """By path in the folder: from Kafka 4.4 on there is a folder in it."""

    @classmethod
    def of(cls, jars: Path, choices: Sequence[str], make: Callable[[Path], None]) -> Storage:
        """What the tool makes of these choices.

        :param choices: all that makes a difference to the tool, beside the Kafka.
        :param make: runs the tool, and leaves what it has made at this path. Called if that isn't kept yet.
        """
        digest = hashlib.sha256("\n".join(choices).encode()).hexdigest()[:8]
        folder = make_once(jars.with_name(f"{jars.name}-storage-{digest}"), make)
        files = [each for each in folder.rglob("*") if each.is_file()]
        return cls({str(file.relative_to(folder)): file.read_bytes() for file in files})

    def write(self, folder: Path, node_id: int, cluster_id: str) -> None:
        """Make the folder another broker's, or the same one's in another cluster. Two may not have the same ids.

        Brokers before Kafka 3.7 give their folders no id.
        """
        identity = self.files[_IDENTITY].decode()
        for name, value in {"node.id": node_id, "cluster.id": cluster_id, "directory.id": new_id()}.items():
            identity = re.sub(rf"(?m)^{re.escape(name)}=.*$", f"{name}={value}", identity)
        folder.mkdir(exist_ok=True)
        for name, contents in {**self.files, _IDENTITY: identity.encode()}.items():
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(contents)


def new_id() -> str:
    """A random id as Kafka writes it (``org.apache.kafka.common.Uuid``), which never begins with a dash."""
    while (new := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
        pass
    return new
