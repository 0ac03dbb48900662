"""A small TCP proxy before one broker, which can hold back one direction of every connection, or close a half of it.

Threads: it has one, which does all the work; the modes are set by any.
"""

from __future__ import annotations

import selectors
import socket
import threading
from contextlib import suppress

CHUNK = 1 << 16
TICK_SECONDS = 0.05

PASS = "pass"
HOLD_ANSWERS = "hold answers"
HOLD_REQUESTS = "hold requests"
CLOSE_HALF = "close half"
MODES = (HOLD_ANSWERS, HOLD_REQUESTS, CLOSE_HALF)


class Proxy:
    """Listens on a free loopback port and passes everything on to ``127.0.0.1:target``."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._mode = PASS
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        # Each end of a connection to the other, and whether it is the client's.
        self._others: dict[socket.socket, tuple[socket.socket, bool]] = {}
        self._ended = threading.Event()
        self._is_dirty = False
        self._thread = threading.Thread(target=self._run, name=f"proxy-{target}", daemon=True)
        self._thread.start()

    def hinder(self, mode: str) -> None:
        """From now on; new connections too. Of a half-closed one, the client sees no more answers."""
        self._mode = mode

    def heal(self) -> None:
        """Pass everything again, and cut the connections that were hindered: what they lost can't be made good."""
        self._mode = PASS
        self._is_dirty = True

    def lead_to(self, target: int) -> None:
        """To another port of the loopback, from now on. Connections to the earlier one are cut."""
        self._target = target
        self._is_dirty = True

    def close(self) -> None:
        self._ended.set()
        self._thread.join(5)
        self._selector.close()
        self._listener.close()

    def _run(self) -> None:
        while not self._ended.is_set():
            if self._is_dirty:
                self._is_dirty = False
                self._cut_all()
            mode = self._mode
            for key, _ in self._selector.select(TICK_SECONDS):
                end = key.fileobj
                assert isinstance(end, socket.socket)
                if end is self._listener:
                    self._accept()
                elif end in self._others:
                    self._pass_on(end, mode)
            if mode != PASS:
                self._ended.wait(TICK_SECONDS)  # what is held back stays readable
        self._cut_all()

    def _accept(self) -> None:
        with suppress(OSError):
            client, _ = self._listener.accept()
            try:
                broker = socket.create_connection(("127.0.0.1", self._target), timeout=1)
            except OSError:
                client.close()
                return
            for end, other, is_client in ((client, broker, True), (broker, client, False)):
                end.settimeout(2)
                self._others[end] = (other, is_client)
                self._selector.register(end, selectors.EVENT_READ)

    def _pass_on(self, end: socket.socket, mode: str) -> None:
        other, is_client = self._others[end]
        if (mode == HOLD_ANSWERS and not is_client) or (mode == HOLD_REQUESTS and is_client):
            return
        if mode == CLOSE_HALF and not is_client:
            with suppress(OSError):
                other.shutdown(socket.SHUT_WR)
                end.recv(CHUNK)
            return
        try:
            data = end.recv(CHUNK)
            if data:
                other.sendall(data)
                return
        except OSError:
            pass
        self._cut(end)

    def _cut(self, end: socket.socket) -> None:
        other, _ = self._others[end]
        for each in (end, other):
            self._others.pop(each, None)
            self._selector.unregister(each)
            each.close()

    def _cut_all(self) -> None:
        while self._others:
            self._cut(next(iter(self._others)))
