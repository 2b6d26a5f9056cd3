"""A TCP proxy that can be cut: what it is sent afterwards goes nowhere, and nobody is told."""

import socket
import threading
from contextlib import suppress


class Wire:
    """Carries connections to a port of this machine until it is cut."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._is_whole = threading.Event()
        self._is_whole.set()
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Swallow whatever either side says from now on, in new connections too."""
        self._is_whole.clear()

    def mend(self) -> None:
        """Carry again. What was open is closed: words are missing in it."""
        self._close_connections()
        self._is_whole.set()

    def close(self) -> None:
        """Close everything."""
        self._sockets.append(self._listener)
        self._close_connections()

    def _close_connections(self) -> None:
        while self._sockets:
            each = self._sockets.pop()
            with suppress(OSError):  # an end that is closed already
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target_port))
            except ConnectionRefusedError:
                continue
            except OSError:  # closed
                return
            self._sockets += [client, server]
            for ends in ((client, server), (server, client)):
                threading.Thread(target=self._carry, args=ends, daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                if self._is_whole.is_set():
                    target.sendall(data)
            if self._is_whole.is_set():
                target.shutdown(socket.SHUT_WR)
