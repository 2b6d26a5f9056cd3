"""Served over HTTP, it is Stripe to Stripe's own library and Stripe's own command line."""

import asyncio
import json
import os
import shlex
import subprocess
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import httpx
import pytest
import stripe

from scripts.npm import npm_package
from src.cli import offline_stripe
from src.common.exceptions import SettingsError
from src.local_postgres import free_port
from src.offline_stripe import OfflineStripe
from src.offline_stripe.due import SETTLED_AFTER_SECONDS
from tests.fixtures.api import until
from tests.offline_stripe.shop import Shop

CLI_PACKAGE = "@stripe/cli@1.52.0"
PAGE = (Path(__file__).parents[2] / "docs/offline-stripe.md").read_text(encoding="utf-8")
KEY = "sk_test_1234567890123456"
IMITATED = (
    *("balance", "charge", "checkout", "coupon", "credit_note", "customer", "invoice"),
    *("invoiceitem", "payment_intent", "payment_method", "payout", "price", "product"),
    *("promotion_code", "test_helpers"),
)
"""What triggers' names begin with that are about something the offline Stripe has."""
NOT_IMITATED = {
    "customer.discount": "customers have no coupons in this API version",
    "customer.source": "sources are older than payment methods",
    "customer.subscription": "no subscriptions",
    "payment_intent.partially_funded": "no bank transfers",
    "payment_method.updated": "it makes a SetupIntent first",
}


@dataclass(frozen=True)
class Served:
    """An offline Stripe at an address."""

    offline: OfflineStripe
    url: str
    state_file: Path


@pytest.fixture
def served(tmp_path: Path) -> Generator[Served]:
    """Served in a thread, at a port of its own, its state kept."""
    listening = offline_stripe.listen(0)
    port: int = listening.getsockname()[1]
    state_file = tmp_path / "state.json"
    offline = offline_stripe.open_account(port, state_file)
    with offline_stripe.running(offline, listening, state_file):
        yield Served(offline, f"http://127.0.0.1:{port}", state_file)


@pytest.fixture(scope="session")
def stripe_cli() -> Path:
    """Stripe's command line, from its npm package."""
    folder = npm_package(CLI_PACKAGE)
    (binary,) = folder.glob("node_modules/@stripe/cli-*/bin/stripe*")
    return binary


@pytest.fixture
async def client(served: Served) -> AsyncGenerator[stripe.StripeClient]:
    """Stripe's library, sent elsewhere."""
    connections = stripe.HTTPXClient(allow_sync_methods=True)
    yield stripe.StripeClient(
        KEY, base_addresses={"api": served.url}, http_client=connections, max_network_retries=0
    )
    connections.close()  # type: ignore[no-untyped-call]  # the library's own
    await connections.close_async()  # type: ignore[no-untyped-call]


the_library_s_own_warning = pytest.mark.filterwarnings(
    "ignore:Use 'content=<...>' to upload raw:DeprecationWarning"
)


@the_library_s_own_warning
async def test_stripe_s_library_buys(served: Served, client: stripe.StripeClient) -> None:
    """An offer by the sync client, paid by a browser's requests, refunded by the async client."""
    session = Shop(served.offline, client).offer()
    assert session.url is not None
    assert session.url.startswith(served.url)
    async with httpx.AsyncClient(trust_env=False) as browser:
        assert "Pay 5.00 USD" in (await browser.get(session.url)).text
        led = await browser.post(session.url, data={"action": "pay", "method": "visa"})
    assert led.headers["Location"].startswith("https://shop.test/thanks")
    paid = await client.v1.checkout.sessions.retrieve_async(session.id)
    assert (paid.payment_status, paid.status) == ("paid", "complete")
    refund = await client.v1.refunds.create_async({"payment_intent": str(paid.payment_intent)})
    assert refund.status == "succeeded"
    with pytest.raises(stripe.InvalidRequestError) as again:
        await client.v1.refunds.create_async({"payment_intent": str(paid.payment_intent)})
    assert again.value.code == "charge_already_refunded"


async def test_a_promotion_code_is_made_as_the_page_says(served: Served) -> None:
    """Its commands, at this address."""
    commands = [each for each in PAGE.splitlines() if each.startswith("curl -u sk_test_1: ")]
    async with httpx.AsyncClient(trust_env=False, auth=("sk_test_1", "")) as curl:
        for command in commands:
            *_, url = words = shlex.split(command)
            fields = [word for option, word in pairwise(words) if option == "-d"]
            form = dict(field.split("=", 1) for field in fields)
            answer = await curl.post(url.replace("http://127.0.0.1:12111", served.url), data=form)
            assert answer.status_code == 200, answer.text
    assert len(commands) == 2
    assert "-d promotion_code=SUMMER26" in PAGE
    with served.offline.lock:
        (code,) = served.offline.account.all("promotion_code")
        assert (code["code"], code["promotion"]["coupon"]) == ("SUMMER26", "SUMMER")


@the_library_s_own_warning
async def test_the_state_is_kept_for_its_owner_alone(
    served: Served, client: stripe.StripeClient
) -> None:
    """Within a second or two, in a file that only its owner reads."""
    customer = await client.v1.customers.create_async({"name": "Ada"})

    async def is_kept() -> bool:
        return served.state_file.exists() and customer.id in served.state_file.read_text()

    await until(is_kept)
    assert served.state_file.stat().st_mode & 0o077 == 0


def triggers_of(words: str) -> list[str]:
    """The events that the command line's help names and that the offline Stripe imitates."""
    events = words.partition("Supported events:")[2].partition("Usage:")[0].split()
    assert len(events) > 100
    return [
        each
        for each in events
        if each.partition(".")[0] in IMITATED and not each.startswith(tuple(NOT_IMITATED))
    ]


@pytest.mark.xdist_group("stripe command line")
@pytest.mark.timeout(300)
def test_stripe_s_command_line_drives_it(served: Served, stripe_cli: Path, tmp_path: Path) -> None:
    """Each `stripe trigger` makes the event it names; `events list` and `customers create` work."""

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [str(stripe_cli), *arguments, "--api-base", served.url, "--api-key", KEY],
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
            env={**os.environ, "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
            | {"STRIPE_CLI_TELEMETRY_OPTOUT": "1", "NO_PROXY": "127.0.0.1"},
        )
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    def count(event_type: str, seconds: int = 0) -> int:
        served.offline.advance(seconds)
        events = list(served.offline.account.all("event"))
        return [each["type"] for each in events].count(event_type)

    for event_type in triggers_of(run("trigger", "--help")):
        before = count(event_type)
        assert "Trigger succeeded" in run("trigger", event_type)
        assert count(event_type, SETTLED_AFTER_SECONDS) == before + 1, event_type
    listed = json.loads(run("events", "list", "--limit", "1"))
    newest = [each["id"] for each in served.offline.account.all("event")][-1]
    assert listed["data"][0]["id"] == newest
    made = json.loads(run("customers", "create", "--email=ada@example.com"))
    assert served.offline.get(made["id"])["email"] == "ada@example.com"


def test_two_that_start_at_once_have_a_port_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither takes a port that the other has but does not serve yet: its calls would go there."""
    monkeypatch.setattr(offline_stripe, "DEFAULT_PORT", free_port())
    with offline_stripe.listen(None) as first, offline_stripe.listen(None) as second:
        assert first.getsockname() != second.getsockname()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # on purpose
def test_an_offline_stripe_that_does_not_start_says_so() -> None:
    """Nobody is left to find out by asking a server that is not there."""
    closed = offline_stripe.listen(0)
    offline = offline_stripe.open_account(1, None)
    closed.close()
    with (
        pytest.raises(SettingsError, match="did not start"),
        offline_stripe.running(offline, closed, None),
    ):
        pass


async def test_the_state_is_kept_though_the_sender_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last save is made at the end, whatever became of the rest."""

    async def fail(*_: object) -> None:
        raise RuntimeError("the sender is broken")

    monkeypatch.setattr(offline_stripe, "deliver_webhooks", fail)
    state_file = tmp_path / "state.json"
    offline = offline_stripe.open_account(0, state_file)
    app = offline_stripe.create_app(offline, state_file)

    async def serve() -> None:
        async with app.router.lifespan_context(app):
            await asyncio.sleep(0)
            offline.add_endpoint("http://shop.test/late", secret="whsec_late")

    with pytest.raises(RuntimeError, match="broken"):
        await serve()
    assert "http://shop.test/late" in state_file.read_text(encoding="utf-8")
