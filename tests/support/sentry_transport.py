"""A real Sentry SDK whose transport keeps the envelopes in memory instead of sending them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sentry_sdk
from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import Transport

DSN = "http://public@127.0.0.1:9/1"


class CatchingTransport(Transport):
    """Keeps every envelope."""

    def __init__(self) -> None:
        super().__init__()
        self.envelopes: list[Envelope] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        self.envelopes.append(envelope)

    def items(self, kind: str) -> list[Any]:
        """The payloads of one kind of item, in the order in which they were captured."""
        sentry_sdk.flush()
        items = [item for envelope in list(self.envelopes) for item in envelope.items if item.type == kind]
        return [json.loads(item.payload.get_bytes()) for item in items]

    @property
    def events(self) -> list[Any]:
        return self.items("event")

    @property
    def transactions(self) -> list[Any]:
        return self.items("transaction")

    @property
    def logs(self) -> list[Any]:
        return [log for batch in self.items("log") for log in batch["items"]]

    @property
    def metrics(self) -> list[Any]:
        return [metric for batch in self.items("trace_metric") for metric in batch["items"]]

    @property
    def everything(self) -> str:
        """All that would have left the process."""
        sentry_sdk.flush()
        return "\n".join(envelope.serialize().decode() for envelope in list(self.envelopes))


@contextmanager
def sentry(**options: Any) -> Iterator[CatchingTransport]:
    """Initialise the SDK with its default integrations, and leave it uninitialised afterwards."""
    transport = CatchingTransport()
    sentry_sdk.init(dsn=DSN, transport=transport, **options)
    try:
        yield transport
    finally:
        sentry_sdk.get_client().close()
        sentry_sdk.get_global_scope().set_client(None)
        sentry_sdk.get_isolation_scope().clear()
        sentry_sdk.get_current_scope().clear()
