"""Commands beside a running `flashslides serve` find its offline Stripe; no proxy is between."""

import socket
from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path

import pytest

from src.cli import offline_stripe
from src.cli.running_stripe import ADDRESS_FILE, announced, with_running_stripe
from src.cli.serve import put_offline_stripe_in_place
from src.common.http_clients import open_http_client
from src.common.settings import load_settings
from src.common.stripe.gateway import configured, open_gateway
from src.local_postgres import free_port
from tests.cli.conftest import RunCommand

NOBODY = "http://127.0.0.1:9"
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


@pytest.fixture
def served(data_folder: Path) -> Generator[str]:
    """The address of an offline Stripe, announced as `serve` does."""
    data_folder.mkdir(exist_ok=True)
    listening = offline_stripe.listen(0)
    offline = offline_stripe.open_account(listening.getsockname()[1], None)
    with offline_stripe.running(offline, listening, None), announced(offline.account.public_url):
        yield offline.account.public_url


@pytest.fixture
def proxied(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment names a proxy where nobody is."""
    for name in PROXIES:
        monkeypatch.setenv(name, NOBODY)
        monkeypatch.delenv(name.lower(), raising=False)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("proxied")
async def test_the_offline_stripe_is_found_and_reached_behind_a_proxy(served: str) -> None:
    """Without a setting: its address, a key of test mode, and answers."""
    settings = with_running_stripe(load_settings())
    assert settings.stripe_api_base_url == served
    assert settings.stripe_livemode is False
    async with open_gateway(settings) as gateway:
        assert await configured(gateway).retrieve_payment("pi_none") is None


@pytest.mark.usefixtures("proxied")
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_loopback_is_asked_without_the_proxy(served: str, host: str) -> None:
    """By either name."""
    async with open_http_client() as client:
        answer = await client.get(served.replace("127.0.0.1", host))
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "configured_as",
    [
        {"stripe_secret_key": "sk_test_real"},
        {"stripe_api_base_url": NOBODY},
        {"env": "staging", "database_password": "long"},
    ],
)
def test_what_is_configured_is_not_replaced(served: str, configured_as: dict[str, str]) -> None:
    """Nobody who names a Stripe is sent to another one."""
    assert served
    settings = load_settings(**configured_as)
    assert with_running_stripe(settings) is settings


def test_what_has_ended_is_not_found(data_folder: Path) -> None:
    """Neither after the block, nor by an address that somebody who was killed has left."""
    data_folder.mkdir(exist_ok=True)
    settings = load_settings()
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
    with announced(url):
        assert with_running_stripe(settings) is settings
    assert not (data_folder / ADDRESS_FILE).exists()


def test_a_second_serve_uses_the_stripe_of_the_first(
    served: str, data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It starts none of its own, and the address stays when it ends."""
    for name in ("STRIPE_SECRET_KEY", "STRIPE_API_BASE_URL"):
        monkeypatch.setenv(name, "")  # so that what serve() sets is undone
        monkeypatch.delenv(name)
    with ExitStack() as stack:
        settings = put_offline_stripe_in_place(load_settings(), stack, "127.0.0.1", free_port())
        assert settings.stripe_api_base_url == served
    assert (data_folder / ADDRESS_FILE).read_text() == served


def test_an_address_that_somebody_else_has_announced_is_left(data_folder: Path) -> None:
    """Whoever ends takes back what it said itself."""
    data_folder.mkdir(exist_ok=True)
    with announced("http://127.0.0.1:1"):
        (data_folder / ADDRESS_FILE).write_text("http://127.0.0.1:2")
    assert (data_folder / ADDRESS_FILE).read_text() == "http://127.0.0.1:2"


def test_without_a_stripe_the_two_variables_are_named(flashslides: RunCommand) -> None:
    """Where nothing is configured and nothing runs."""
    done = flashslides("stripe", "reconcile", "--since", "2026-11-01")
    assert done.exit_code != 0
    assert "STRIPE_SECRET_KEY" in done.err
    assert "STRIPE_API_BASE_URL" in done.err
