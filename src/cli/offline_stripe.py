"""Serve the offline Stripe over HTTP: its API, its pay page, its webhooks, its state in a file."""

import asyncio
import contextlib
import os
import secrets
import socket
import threading
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import Response as HttpResponse
from starlette.routing import Route

from src.common.exceptions import SettingsError
from src.common.http_clients import open_http_client
from src.common.settings import Settings
from src.offline_stripe import DEFAULT_PORT, OfflineStripe, Request, State, load_state
from src.offline_stripe.sender import deliver_webhooks
from src.offline_stripe.site import answer

HOST = "127.0.0.1"
SAVE_EVERY_SECONDS = 1
START_TIMEOUT_SECONDS = 30
WEBHOOK_TIMEOUT_SECONDS = 10
METHODS = ["GET", "POST", "DELETE", "PUT", "PATCH"]


def refuse_outside_local(settings: Settings) -> None:
    """Payments that nobody made are for a developer's machine.

    Raises:
        SettingsError: ENV is not `local`.
    """
    if not settings.is_local:
        raise SettingsError(f"ENV is {settings.env}: the offline Stripe is for ENV=local only")


def open_account(port: int, state_file: Path | None) -> OfflineStripe:
    """A new account, or the one in the file.

    Raises:
        SettingsError: the file holds something else.
    """
    state = State(seed=secrets.token_hex(8))
    if state_file is not None and state_file.exists():
        try:
            state = load_state(state_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise SettingsError(
                f"{state_file} is no state of an offline Stripe; delete it to start afresh"
            ) from None
    offline = OfflineStripe(state=state, public_url=f"http://{HOST}:{port}")
    offline.webhooks.requeue()
    return offline


def create_app(offline: OfflineStripe, state_file: Path | None = None) -> Starlette:
    """The application; while it runs, webhooks go out and the state is kept."""

    async def respond(request: HttpRequest) -> HttpResponse:
        response = answer(
            offline,
            Request(
                method=request.method,
                path=request.url.path,
                query=request.url.query,
                headers={name.lower(): value for name, value in request.headers.items()},
                body=await request.body(),
            ),
        )
        if response.delay_seconds:
            await asyncio.sleep(response.delay_seconds)
        return HttpResponse(response.body, response.status, dict(response.headers))

    def lifespan(_app: Starlette) -> AbstractAsyncContextManager[None]:
        return _at_work(offline, state_file)

    return Starlette(routes=[Route("/{path:path}", respond, methods=METHODS)], lifespan=lifespan)


def listen(port: int | None) -> socket.socket:
    """A listening socket on loopback: at this port, or without one at the usual port if it is free.

    Raises:
        SettingsError: the port that was asked for is taken.
    """
    try:
        # It listens at once: a port that is only bound can be bound by the next process as well.
        return socket.create_server((HOST, DEFAULT_PORT if port is None else port))
    except OSError as error:
        if port is not None:
            raise SettingsError(
                f"--port: cannot listen on {HOST}:{port} ({error.strerror}); choose another"
            ) from None
        return socket.create_server((HOST, 0))


def server_of(offline: OfflineStripe, state_file: Path | None) -> uvicorn.Server:
    """A server of the application, not yet running."""
    return uvicorn.Server(
        uvicorn.Config(
            create_app(offline, state_file),
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="on",
        )
    )


@contextmanager
def running(
    offline: OfflineStripe, listening: socket.socket, state_file: Path | None
) -> Generator[None]:
    """Serve in a thread of this process until the block is left.

    Raises:
        SettingsError: it did not start; its log says why.
    """
    server = server_of(offline, state_file)
    thread = threading.Thread(
        target=server.run, kwargs={"sockets": [listening]}, name="offline-stripe", daemon=True
    )
    thread.start()
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while not server.started and thread.is_alive() and time.monotonic() < deadline:
        time.sleep(0.01)
    try:
        if not server.started:
            raise SettingsError("The offline Stripe did not start")
        yield
    finally:
        server.should_exit = True
        thread.join(START_TIMEOUT_SECONDS)
        listening.close()


async def _deliver(offline: OfflineStripe) -> None:
    async with open_http_client(timeout=WEBHOOK_TIMEOUT_SECONDS) as client:
        await deliver_webhooks(offline, client)


@asynccontextmanager
async def _at_work(offline: OfflineStripe, state_file: Path | None) -> AsyncGenerator[None]:
    tasks = [asyncio.create_task(_deliver(offline))]
    if state_file is not None:
        tasks.append(asyncio.create_task(_keep(offline, state_file)))
    try:
        yield
    finally:
        try:
            for task in tasks:
                task.cancel()
            for task in tasks:
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        finally:
            if state_file is not None:
                _save(offline, state_file)


async def _keep(offline: OfflineStripe, path: Path) -> None:
    saved = -1
    while True:
        if offline.account.state.sequence != saved:
            saved = offline.account.state.sequence
            _save(offline, path)
        await asyncio.sleep(SAVE_EVERY_SECONDS)


def _save(offline: OfflineStripe, path: Path) -> None:
    """Write so that a reader sees the old state or the new one; it holds the webhooks' secrets."""
    scratch = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(offline.dump())
    scratch.replace(path)
