"""The console in a browser: every page at a desk and in a hand, light and dark, for everybody."""

import re
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, LiteralString

import httpx
import psycopg
import pytest
from playwright.sync_api import Browser, Page, expect
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from scripts.npm import npm_package
from src.local_postgres import free_port
from tests.cli.processes import PATIENCE_SECONDS, Program
from tests.fixtures.browser import PATIENCE_MS
from tests.fixtures.folders import copy_data, folder_for_data

AXE = "axe-core@4.13.0"
WIDTHS = (1280, 390)
"""A desk, where it is light, and a hand, where it is dark: width and colours are independent."""
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
PAGES_MIN = 8
EMAIL = "ada.lovelace@example.com"


@pytest.fixture
def program(migrated_data: Path) -> Generator[Program]:
    """`flashslides` with a data folder of its own."""
    with folder_for_data() as folder:
        copy_data(migrated_data, folder / "data")
        yield Program(folder, {"FLASHSLIDES_DATA_DIR": str(folder / "data")})


@contextmanager
def opened(
    browser: Browser, width: int, scheme: Literal["light", "dark"], complaints: list[str]
) -> Generator[Page]:
    """A page of a browser of this width and scheme; what it complains of is collected."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, service_workers="block"
    )
    context.set_default_timeout(PATIENCE_MS)
    # Before any script of the page's, which the policy would not let in afterwards.
    context.add_init_script(path=npm_package(AXE) / "node_modules" / "axe-core" / "axe.min.js")
    page = context.new_page()
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "request",
        lambda asked: (
            None
            if re.match(r"http://(localhost|127\.0\.0\.1)[:/]|data:", asked.url)
            else complaints.append(asked.url)
        ),
    )
    yield page
    context.close()


def faults(page: Page) -> list[str]:
    """What axe-core finds that keeps somebody from using the page."""
    found: dict[str, Any] = page.evaluate("() => axe.run()")
    return [
        f"{each['id']}: {node['html']}"
        for each in found["violations"]
        if each["impact"] in {"serious", "critical"}
        for node in each["nodes"]
    ]


@dataclass
class Served:
    """A running service with a user who has bought and spent, and somebody signed in."""

    program: Program
    address: str
    cookies: Any
    user_id: str
    complaints: list[str] = field(default_factory=list[str])
    """What pages complained of; requests to other hosts are among it."""

    @contextmanager
    def opened(
        self, browser: Browser, width: int = 1280, scheme: Literal["light", "dark"] = "light"
    ) -> Generator[Page]:
        """The console in a browser of this width and scheme, signed in."""
        with opened(browser, width, scheme, self.complaints) as page:
            page.context.add_cookies(self.cookies)
            page.goto(f"{self.address}/console/")
            yield page

    def sql(self, statement: LiteralString, *values: object) -> Any:
        """What the database says, past the service."""
        url = self.program.run("db", "url", "--show-password").strip()
        with psycopg.connect(url) as connection:
            return connection.execute(statement, values).fetchone()


@pytest.fixture(scope="module")
def served(migrated_data: Path, browser: Browser) -> Generator[Served]:
    """One for the module; the link that `serve` prints has signed somebody in."""
    port = free_port()
    address = f"http://localhost:{port}"
    with folder_for_data() as folder:
        copy_data(migrated_data, folder / "data")
        program = Program(folder, {"FLASHSLIDES_DATA_DIR": str(folder / "data")})
        with program.serve(port):
            user = program.run_json("user", "create", EMAIL)["user_id"]
            program.run("credits", "grant", user, "100", "--yes", "--key", "a")
            program.run("credits", "spend", user, "30", "--key", "b")
            _buy(program, address)
            [link] = re.findall(r"Console +(http\S+)", program.said())
            with opened(browser, 1280, "light", []) as page:
                page.goto(link)
                yield Served(program, address, page.context.cookies(), user)


def _buy(program: Program, address: str) -> None:
    """The user buys 1000 credits of the offline Stripe; its webhook has come once they are here."""
    token = program.run("user", "token", EMAIL).strip()
    bearer = {"Authorization": f"Bearer {token}"}
    with httpx.Client(trust_env=False, headers=bearer) as client:
        offer = client.post(
            f"{address}/api/v1/create-checkout-session",
            headers={"Idempotency-Key": "first"},
            json={"credit_option": "1000"},
        )
        paid = httpx.post(offer.json()["url"], data={"method": "visa"}, trust_env=False)
        assert paid.status_code == 303
        until(lambda: program.run_json("credits", "show", EMAIL)["balance"] == 1_070)


def until(is_true: Callable[[], bool]) -> None:
    """Wait for it."""
    Retrying(
        retry=retry_if_result(lambda found: not found),
        wait=wait_fixed(0.1),
        stop=stop_after_delay(PATIENCE_SECONDS),
    )(is_true)


@pytest.mark.xdist_group("embedded servers")
def test_every_page_is_usable_by_everybody(served: Served, browser: Browser) -> None:
    """No script or style is refused by the policy, and nothing is asked of another host.

    Charts are drawn, with their figures as a table, and no page is wider than the window.
    """
    for width, scheme in zip(WIDTHS, SCHEMES, strict=True):
        with served.opened(browser, width, scheme) as page:
            look_at_every_page(page, width, served.user_id)
    assert served.complaints == []


def look_at_every_page(page: Page, width: int, user_id: str) -> None:
    """Each page of the navigation, a report, and all about a user."""
    expect(page.get_by_role("heading", level=1)).to_have_text("Overview")
    expect(page.locator("figure canvas").first).to_be_visible()
    places = page.locator("header nav li a").evaluate_all("links => links.map(a => a.href)")
    assert len(places) >= PAGES_MIN
    console = page.url
    places += [console + path for path in ("reports/liability", f"users/{user_id}/entries/2")]
    places += [f"{console}users/{user_id}{part}" for part in ("/entries", "/lots", "/holds", "")]
    for place in places:
        page.goto(place)
        assert faults(page) == [], place
        wide = page.evaluate("() => document.documentElement.scrollWidth")
        assert wide <= width, place
    expect(page.locator("figure canvas").first).to_be_visible()
    expect(page.locator("figure table").first).to_contain_text("spend -30", use_inner_text=False)
    page.get_by_role("link", name="cs_").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Payment")
    assert faults(page) == []


@pytest.mark.xdist_group("embedded servers")
def test_a_day_s_work(served: Served, browser: Browser, pytestconfig: pytest.Config) -> None:
    """Find, give, undo, refund until Stripe's webhook has come, replay, download."""
    with served.opened(browser) as page:
        find(page, "ada.love")
        photograph(page, pytestconfig, "console-user")
        give(page, 25)
        undo(page, "Spend of a job that failed")
        refund(page)
        until(lambda: served.sql("SELECT refunded_cents FROM transactions")[0] == 900)
        page.reload()
        expect(page.get_by_role("region", name="What happened")).to_contain_text("refund.created")
        photograph(page, pytestconfig, "console-payment")
        replay(served, page)
        page.goto(f"{served.address}/console/reports/movements")
        with page.expect_download() as taken:
            page.get_by_role("link", name="csv").click()
        assert taken.value.path().read_text().startswith("period_start,")
    balance = served.program.run_json("credits", "show", EMAIL)
    assert (balance["balance"], balance["debt"]) == (100 + 25, 0)
    assert served.complaints == []


def find(page: Page, part: str) -> None:
    """By half an e-mail, from the overview to the user's page."""
    page.get_by_role("link", name="Users", exact=True).click()
    page.get_by_role("searchbox").fill(part)
    page.get_by_role("button", name="Search").click()
    page.get_by_role("link", name=EMAIL).click()
    expect(page.get_by_role("definition").first).to_contain_text("1,070 credits")


def give(page: Page, amount: int) -> None:
    """Some credits, seen first, and then on the page where it began."""
    page.get_by_role("button", name="Give credits").click()
    page.get_by_label("Credits").fill(str(amount))
    agree(page, "For a broken deck", "Do it")
    expect(page.get_by_role("definition").first).to_contain_text("1,095 credits")


def undo(page: Page, reason: str) -> None:
    """The spend of the user's second entry."""
    page.get_by_role("region", name="Entries").get_by_role("link", name="2", exact=True).click()
    page.get_by_role("button", name="Undo this entry").click()
    agree(page, reason, "Do it")
    expect(page.get_by_role("definition").first).to_contain_text("1,125 credits")


def refund(page: Page) -> None:
    """All of the user's purchase, to the payment's own page."""
    page.get_by_role("region", name="Purchases").get_by_role("link").first.click()
    page.get_by_role("button", name="Refund it").click()
    agree(page, "Asked for within a day")
    expect(page.get_by_role("status")).to_contain_text("Paid back")


def agree(page: Page, reason: str, button: str | None = None) -> None:
    """Say why, look at what it will do, and have it done."""
    page.get_by_label("Reason").fill(reason)
    page.get_by_role("button", name="Show what it will do").click()
    expect(page.get_by_text("Nothing was done yet")).to_be_visible()
    buttons = page.locator("main form button")
    (buttons if button is None else page.get_by_role("button", name=button)).click()


def replay(served: Served, page: Page) -> None:
    """An event that was given up."""
    dead = served.sql(
        "UPDATE stripe_events SET status = 'dead', error = 'gone' WHERE type = %s"
        " RETURNING event_id",
        "checkout.session.completed",
    )[0]
    page.goto(f"{served.address}/console/inbox?status=dead")
    page.get_by_role("checkbox", name=f"Choose {dead}").check()
    page.get_by_role("button", name="Replay the chosen").click()
    page.get_by_role("button", name="Replay", exact=True).click()
    expect(page.get_by_role("status")).to_contain_text(f"{dead} is processed now")


def photograph(page: Page, config: pytest.Config, name: str) -> None:
    """For the documentation, where `--screenshots` asks for it."""
    folder: str | None = config.option.screenshots
    if folder is not None:
        page.screenshot(path=Path(folder) / f"{name}.png")


@pytest.mark.xdist_group("embedded servers")
def test_the_keyboard_alone_is_enough(program: Program, page: Page) -> None:
    """From the link to signing out: past the navigation, to a form, and out."""
    with program.serve(free_port()):
        [link] = re.findall(r"Console +(http\S+)", program.said())
        page.goto(link)
        page.keyboard.press("Tab")
        expect(page.get_by_text("Skip to the content")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("main")).to_be_focused()
        button = page.get_by_role("button", name="Sign out")
        page.keyboard.press("Shift+Tab")
        expect(button).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
