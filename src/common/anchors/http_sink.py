"""An HTTP endpoint that keeps checkpoints: somebody else's, such as an auditor's.

| request | answer |
|---|---|
| `GET URL` | `{"oldest": 1, "newest": 42}`; 404 where it has none yet |
| `GET URL/42` | the checkpoint as it was put |
| `PUT URL/42` with `If-None-Match: *` | 2xx once it is kept; 412 where there is one already |
"""

import json
import tempfile
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

import httpx

from src.common.anchors.records import (
    Record,
    checkpoint_of,
    lines_of,
    note_in,
    read_record,
    unreadable,
)
from src.common.anchors.sinks import SinkTaken, SinkUnavailable
from src.common.http_clients import open_sync_http_client

_TIMEOUT = httpx.Timeout(30, connect=5)
_IN_MEMORY_OCTETS = 8 << 20


class HttpSink:
    """An endpoint, and the token it asks for."""

    def __init__(self, url: str, *, token: str | None) -> None:
        self._url = url.rstrip("/")
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}

    @property
    def name(self) -> str:
        """Its address."""
        return self._url

    def newest(self, known: int | None) -> str | None:  # noqa: ARG002  it says so itself
        """As `Sink.newest`."""
        with self._client() as client:
            held = self._held(client)
            if held is None:
                return None
            with self._reading(client, held[1]) as lines:
                note = note_in(next(lines, b""))
            if note is None:
                raise unreadable(f"{self._url}/{held[1]} does not begin with a note")
            return note

    def append(self, note: str, leaves: Iterable[bytes]) -> None:
        """As `Sink.append`."""
        number = checkpoint_of(note).number
        with tempfile.SpooledTemporaryFile(_IN_MEMORY_OCTETS) as body, self._client() as client:
            for line in lines_of(note, leaves):
                body.write(line)
            length = body.tell()
            body.seek(0)
            headers = {
                "Content-Type": "application/jsonl",
                "Content-Length": str(length),
                "If-None-Match": "*",
            }
            answer = client.put(f"{self._url}/{number}", content=body, headers=headers)
        if answer.status_code == HTTPStatus.PRECONDITION_FAILED:
            raise SinkTaken(self.name, number)
        if not answer.is_success:
            raise SinkUnavailable(self.name, f"it answers {answer.status_code}")

    def records(self) -> Iterator[Record]:
        """As `Sink.records`."""
        with self._client() as client:
            held = self._held(client)
            if held is None:
                return
            for number in range(held[0], held[1] + 1):
                with self._reading(client, number) as lines:
                    yield read_record(lines)

    def _held(self, client: httpx.Client) -> tuple[int, int] | None:
        """The numbers of the oldest and the newest checkpoint."""
        answer = client.get(self._url)
        if answer.status_code == HTTPStatus.NOT_FOUND:
            return None
        if not answer.is_success:
            raise SinkUnavailable(self.name, f"it answers {answer.status_code}")
        try:
            said: Any = json.loads(answer.content)
            oldest, newest = said["oldest"], said["newest"]
        except (ValueError, KeyError, TypeError):
            raise unreadable(f"{self._url} does not say which it has") from None
        if not (type(oldest) is type(newest) is int and 0 < oldest <= newest):
            raise unreadable(f"{self._url} does not say which it has")
        return oldest, newest

    @contextmanager
    def _reading(self, client: httpx.Client, number: int) -> Generator[Iterator[bytes]]:
        with client.stream("GET", f"{self._url}/{number}") as answer:
            if not answer.is_success:
                raise SinkUnavailable(self.name, f"for {number} it answers {answer.status_code}")
            yield (f"{line}\n".encode() for line in answer.iter_lines())

    @contextmanager
    def _client(self) -> Generator[httpx.Client]:
        try:
            with open_sync_http_client(timeout=_TIMEOUT, headers=self._headers) as client:
                yield client
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise SinkUnavailable(self.name, type(error).__name__) from None
