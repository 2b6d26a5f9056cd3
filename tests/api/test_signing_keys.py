"""The set of keys at a URL: rotated, silent, down, wrong, and asked for by strangers' tokens."""

import asyncio
import threading
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from src.api.src.authentication import TokenVerifier, build_verifier
from src.api.src.signing_keys import (
    LOOK_AGAIN_SECONDS,
    REFRESH_SECONDS,
    SET_BYTES_MAX,
    PublishedKeys,
    SigningKeysUnavailable,
    signing_keys_of,
    usable_keys,
)
from src.common.exceptions import SettingsError, Unauthenticated
from src.common.settings import load_settings
from tests.api.tokens import AUDIENCE, ISSUER, TRUSTED, SigningKey, jwk_set, make_token, new_key
from tests.fixtures.api import Api, StartApi, error_type_of

URL = "https://provider.example/.well-known/jwks.json"
NEW = new_key("new")


@dataclass
class Provider:
    """Whoever publishes the set."""

    body: str = field(default_factory=jwk_set)
    status: int = 200
    is_down: bool = False
    asked: int = 0
    now: float = 0.0
    answering: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.answering.set()

    async def answer(self, request: httpx.Request) -> httpx.Response:
        """The set, as it is now."""
        assert str(request.url) == URL
        self.asked += 1
        await self.answering.wait()
        if self.is_down:
            raise httpx.ConnectError("refused", request=request)
        headers = {"Location": "https://evil.example/"} if self.status == 302 else {}
        return httpx.Response(self.status, text=self.body, headers=headers)

    def publish(self, *keys: SigningKey) -> None:
        """Replace the set."""
        self.body = jwk_set(*(key.public_jwk for key in keys))

    def keys(self) -> PublishedKeys:
        """Our view of it."""
        return PublishedKeys(
            URL,
            is_local=False,
            transport=httpx.MockTransport(self.answer),
            clock=lambda: self.now,
        )


@dataclass
class Service:
    """A verifier whose keys a provider publishes."""

    provider: Provider
    verifier: TokenVerifier

    async def says(self, token: str) -> str:
        """`genuine`, or the error with which the token is answered."""
        try:
            await self.verifier.verify(token)
        except (Unauthenticated, SigningKeysUnavailable) as error:
            return error.error_type
        return "genuine"


StartService = Callable[..., Any]


@pytest.fixture
async def start() -> AsyncGenerator[StartService]:
    """Start a service whose provider is like this."""
    async with AsyncExitStack() as stack:

        async def start_service(provider: Provider) -> Service:
            keys = provider.keys()
            await stack.enter_async_context(keys.kept_fresh())
            return Service(provider, TokenVerifier(keys, ISSUER, AUDIENCE, is_local=False))

        yield start_service


async def test_a_key_that_is_added_signs_without_a_restart(start: StartService) -> None:
    """The first token of it makes us look; the next one is not waited for."""
    service = await start(Provider())
    service.provider.publish(TRUSTED, NEW)
    service.provider.now += LOOK_AGAIN_SECONDS
    assert await service.says(make_token(key=NEW)) == "genuine"
    assert await service.says(make_token(key=NEW)) == "genuine"
    assert await service.says(make_token()) == "genuine"
    assert service.provider.asked == 2


async def test_a_key_that_is_removed_signs_no_more_once_the_set_is_fetched(
    start: StartService,
) -> None:
    """Whatever made us fetch it."""
    service = await start(Provider())
    service.provider.publish(NEW)
    service.provider.now += LOOK_AGAIN_SECONDS
    assert await service.says(make_token()) == "genuine"  # five minutes at most
    assert await service.says(make_token(key=NEW)) == "genuine"
    assert await service.says(make_token()) == "AUTH_TOKEN_INVALID"


async def test_the_set_is_fetched_again_though_nobody_asks(
    start: StartService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every five minutes."""
    rested: list[float] = []
    over = asyncio.Event()

    async def rest(seconds: float) -> None:
        rested.append(seconds)
        if len(rested) > 1:
            over.set()
            await asyncio.Event().wait()

    with monkeypatch.context() as patched:
        patched.setattr("src.api.src.signing_keys.asyncio.sleep", rest)
        service = await start(Provider())
        service.provider.publish(NEW)
        await over.wait()
    assert set(rested) == {REFRESH_SECONDS}
    assert await service.says(make_token()) == "AUTH_TOKEN_INVALID"
    assert service.provider.asked == 2


@pytest.mark.parametrize("is_down", [False, True])
async def test_invented_kids_make_us_look_now_and_then(
    start: StartService, *, is_down: bool
) -> None:
    """A thousand tokens of unknown keys: one look in ten seconds, whether it is answered or not."""
    service = await start(Provider())
    service.provider.is_down = is_down
    told: set[str] = set()
    for second in range(1_000):
        service.provider.now = second / 50
        told.add(await service.says(make_token(key=SigningKey(f"x{second}", NEW.private))))
    assert service.provider.asked == 1 + 1  # at the start, and after ten of the twenty seconds
    assert told == {"AUTH_TOKEN_INVALID"} | ({"AUTH_KEYS_UNAVAILABLE"} if is_down else set())
    assert await service.says(make_token()) == "genuine"


async def test_all_who_wait_wait_for_one_answer_and_nobody_else_does(start: StartService) -> None:
    """A provider that is slow delays tokens of unknown keys only, and is asked once for all."""
    service = await start(Provider())
    service.provider.publish(TRUSTED, NEW)
    service.provider.now += LOOK_AGAIN_SECONDS
    service.provider.answering.clear()
    waiting = [asyncio.create_task(service.says(make_token(key=NEW))) for _ in range(20)]
    await asyncio.sleep(0)
    assert await service.says(make_token()) == "genuine"
    waiting.pop().cancel()  # a client that leaves takes the answer from nobody
    assert not any(task.done() for task in waiting)
    service.provider.answering.set()
    assert set(await asyncio.gather(*waiting)) == {"genuine"}
    assert service.provider.asked == 2


SYMMETRIC = {"kty": "oct", "k": "c2VjcmV0", "kid": "hs"}
TROUBLE: dict[str, dict[str, Any]] = {
    "refuses connections": {"is_down": True},
    "answers 500": {"status": 500},
    "answers 404": {"status": 404},
    "redirects": {"status": 302},
    "answers with a page": {"body": "<html>"},
    "answers with an empty set": {"body": '{"keys": []}'},
    "answers with more than we read": {"body": jwk_set() + " " * SET_BYTES_MAX},
    "publishes a key that signs": {"body": jwk_set(NEW.private_jwk, TRUSTED.public_jwk)},
    "publishes a shared secret": {"body": jwk_set(NEW.public_jwk, SYMMETRIC)},
}


@pytest.mark.parametrize("trouble", TROUBLE.values(), ids=TROUBLE.keys())
async def test_the_set_stays_while_its_provider_has_none_for_us(
    start: StartService, trouble: dict[str, Any]
) -> None:
    """Known keys go on signing; of others nobody can tell, so they are not refused for good."""
    service = await start(Provider())
    right = service.provider.body
    for name, value in trouble.items():
        setattr(service.provider, name, value)
    service.provider.now += LOOK_AGAIN_SECONDS
    assert await service.says(make_token(key=NEW)) == "AUTH_KEYS_UNAVAILABLE"
    assert await service.says(make_token()) == "genuine"
    service.provider.is_down, service.provider.status = False, 200
    service.provider.body = right
    service.provider.now += LOOK_AGAIN_SECONDS
    assert await service.says(make_token(key=NEW)) == "AUTH_TOKEN_INVALID"


async def test_a_provider_that_is_silent_is_not_waited_for(
    start: StartService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five seconds; here less."""
    monkeypatch.setattr("src.api.src.signing_keys.FETCH_TIMEOUT_SECONDS", 0.01)
    service = await start(Provider())
    service.provider.answering.clear()
    service.provider.now += LOOK_AGAIN_SECONDS
    assert await service.says(make_token(key=NEW)) == "AUTH_KEYS_UNAVAILABLE"
    assert await service.says(make_token()) == "genuine"


@pytest.mark.parametrize("trouble", TROUBLE.values(), ids=TROUBLE.keys())
async def test_a_start_needs_no_answer_but_no_wrong_one(
    start: StartService, trouble: dict[str, Any]
) -> None:
    """A provider that is down stops nobody; an address that has something else is a mistake."""
    if "body" in trouble:
        with pytest.raises(SettingsError, match="AUTH_JWT_JWKS_URL") as caught:
            await start(Provider(**trouble))
        assert NEW.private_jwk["d"] not in str(caught.value)
        return
    service = await start(Provider(**trouble))
    assert await service.says(make_token()) == "AUTH_KEYS_UNAVAILABLE"
    service.provider.is_down, service.provider.status = False, 200
    service.provider.now += LOOK_AGAIN_SECONDS
    assert await service.says(make_token()) == "genuine"


async def test_the_answer_to_a_token_that_nobody_can_check_is_503(
    api: Api, start: StartService
) -> None:
    """With Retry-After: a 401 would sign the person out."""
    service = await start(Provider(is_down=True))
    api.app.state.verifier = service.verifier
    for answer in (await api.sign_in(), await api.get("/user/x/transactions", make_token())):
        assert answer.status_code == 503
        assert error_type_of(answer) == "AUTH_KEYS_UNAVAILABLE"
        assert answer.headers["Retry-After"] == "10"
    service.provider.is_down = False
    service.provider.now += LOOK_AGAIN_SECONDS
    assert (await api.sign_in()).status_code == 200


async def test_the_running_service_honours_a_key_that_is_added(
    start_api: StartApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over a network, from its start on."""
    monkeypatch.setattr("src.api.src.signing_keys.LOOK_AGAIN_SECONDS", 0.0)
    provider = Provider()

    class Published(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(provider.body.encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the parent's
            """Nobody reads it."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Published) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/jwks"
        api = await start_api(AUTH_JWT_JWKS_URL=url, AUTH_JWT_SECRET=jwk_set(NEW.public_jwk))
        user_id = uuid.uuid4()
        new = make_token(user_id, key=NEW)
        assert (await api.sign_in(user_id)).status_code == 200
        assert (await api.call("POST", "/authenticate-jwt", new)).status_code == 401
        provider.publish(TRUSTED, NEW)
        assert (await api.call("POST", "/authenticate-jwt", new)).status_code == 200
        server.shutdown()


@pytest.mark.parametrize("other", [{"use": "enc"}, {"alg": "ECDH-ES"}, {"use": "enc", "alg": None}])
def test_a_key_for_something_else_signs_nothing(other: dict[str, Any]) -> None:
    """A set may hold keys for encryption beside (RFC 7517 §4.2, §4.4)."""
    written = jwk_set(TRUSTED.public_jwk, {**NEW.public_jwk, **other})
    assert set(usable_keys(written, "AUTH_JWT_SECRET", is_local=False)) == {"trusted"}


DEPLOYMENT: dict[str, Any] = {
    "env": "staging",
    "database_host": "nowhere.example",
    "database_password": "not-a-default-1",
    "auth_jwt_issuer": ISSUER,
}


@pytest.mark.parametrize(
    "url", [URL, "http://127.0.0.1:9/jwks", "http://localhost:9/jwks", "http://[::1]:9/jwks"]
)
def test_a_url_is_where_the_set_is_published(url: str) -> None:
    """In clear from this machine only; AUTH_JWT_SECRET beside it is not looked at."""
    settings = load_settings(**DEPLOYMENT, auth_jwt_jwks_url=url, auth_jwt_secret="no set")
    assert isinstance(signing_keys_of(settings), PublishedKeys)
    assert isinstance(build_verifier(settings).keys, PublishedKeys)


@pytest.mark.parametrize(
    "url",
    [
        "http://provider.example/jwks",
        "http://127.0.0.1.provider.example/jwks",
        "http://10.0.0.7/jwks",
        "file:///etc/jwks.json",
        "jwks.json",
    ],
)
def test_an_address_that_anybody_may_answer_for_is_refused(url: str) -> None:
    """At the start, by name; a developer's machine may ask in clear."""
    with pytest.raises(SettingsError, match="AUTH_JWT_JWKS_URL"):
        load_settings(**DEPLOYMENT, auth_jwt_jwks_url=url)
    if url.startswith("http:"):
        assert load_settings(env="local", auth_jwt_jwks_url=url).auth_jwt_jwks_url == url
