"""The storage of a broker that is new, as Kafka's own tool formats it.

The tool is a JVM of its own, and takes as long as half of a broker's start. So it is run once, and what it has made is
copied for the cluster's other brokers, and for the next clusters of this process that are like it.
"""

from __future__ import annotations

import base64
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_IDENTITY = "meta.properties"


@dataclass(frozen=True)
class Storage:
    """What is in a formatted folder: whose it is, and the levels of Kafka's features."""

    files: Mapping[str, bytes]

    @classmethod
    def read(cls, folder: Path) -> Storage:
        return cls({file.name: file.read_bytes() for file in folder.iterdir()})

    def write(self, folder: Path, node_id: int, cluster_id: str) -> None:
        """Make the folder another broker's, or the same one's in another cluster. Two may not have the same ids.

        Brokers before Kafka 3.7 give their folders no id.
        """
        identity = self.files[_IDENTITY].decode()
        for name, value in {"node.id": node_id, "cluster.id": cluster_id, "directory.id": new_id()}.items():
            identity = re.sub(rf"(?m)^{re.escape(name)}=.*$", f"{name}={value}", identity)
        folder.mkdir(exist_ok=True)
        for name, contents in {**self.files, _IDENTITY: identity.encode()}.items():
            (folder / name).write_bytes(contents)


def new_id() -> str:
    """A random id as Kafka writes it (``org.apache.kafka.common.Uuid``), which never begins with a dash."""
    while (new := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
        pass
    return new
