"""Somebody's HTTP endpoint that keeps checkpoints, as the how-to page tells them to write it."""

import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Receiver:
    """What it was sent, and how it answers."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.kept: dict[int, bytes] = {}
        self.fails = False
        """Whether it answers 503 to everything."""
        self.lies = False
        """Whether it says of everything that it has it already."""
        self.url = ""


class _Handler(BaseHTTPRequestHandler):
    receiving: Receiver

    def do_GET(self) -> None:
        """Which there are, or one of them."""
        kept = self.receiving.kept
        number = self._number()
        if number == 0 and kept:
            held = {"oldest": min(kept), "newest": max(kept)}
            self._answer(200, json.dumps(held).encode())
        elif number in kept:
            self._answer(200, kept[number])
        else:
            self._answer(404)

    def do_PUT(self) -> None:
        """Keep one that is not there yet."""
        kept = self.receiving.kept
        body = self.rfile.read(int(self.headers["Content-Length"]))
        number = self._number()
        if number in kept or self.receiving.lies:
            self._answer(412 if self.headers["If-None-Match"] == "*" else 400)
            return
        if not self._is_refused():
            kept[number] = body
        self._answer(201)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  its name there
        """Say nothing."""

    def _number(self) -> int:
        """The one that is asked for; 0 for the endpoint itself."""
        return int(self.path.removeprefix("/anchors").strip("/") or 0)

    def _is_refused(self) -> bool:
        told = self.headers["Authorization"]
        return self.receiving.fails or told != f"Bearer {self.receiving.token}"

    def _answer(self, status: int, body: bytes = b"") -> None:
        status, body = (503, b"") if self._is_refused() else (status, body)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def receiver(token: str) -> Generator[Receiver]:
    """Run one on loopback."""
    receiving = Receiver(token)
    handler = type("Handler", (_Handler,), {"receiving": receiving})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    receiving.url = f"http://127.0.0.1:{server.server_port}/anchors"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield receiving
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
