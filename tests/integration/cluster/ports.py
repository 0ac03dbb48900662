"""The ports of a cluster's brokers."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack

# Below the ports that Linux gives to outgoing connections (from 32768 on): no client can take the port of a broker that
# is down for a moment.
_RANGE = range(20_000, 32_000)


class Ports:
    """Loopback ports that no other cluster takes while these are held, be their brokers up or down.

    What holds one is a UDP socket of the same number, which is in no broker's way and ends with its process.
    """

    def __init__(self) -> None:
        self._held = ExitStack()

    def take(self, count: int) -> list[int]:
        """Some on which nothing listens now. A process that is no cluster may take them before they are used."""
        ports: list[int] = []
        while len(ports) < count:
            port = random.choice(_RANGE)
            udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            try:
                udp.bind(("127.0.0.1", port))
                with socket.socket() as tcp:
                    tcp.bind(("127.0.0.1", port))
            except OSError:
                udp.close()
                continue
            self._held.enter_context(udp)
            ports.append(port)
        return ports

    def release(self) -> None:
        """Others may have them."""
        self._held.close()
