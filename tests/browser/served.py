"""A running service, browsers at its console, and what a page must be for everybody."""

import re
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, LiteralString

import httpx
import psycopg
import pytest
from playwright.sync_api import Browser, Locator, Page, expect
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from scripts.npm import npm_package
from tests.cli.processes import PATIENCE_SECONDS, Program
from tests.fixtures.browser import PATIENCE_MS

AXE = "axe-core@4.13.0"
EMAIL = "ada.lovelace@example.com"
_LOOKS_AGAIN, _BETWEEN_LOOKS_MS = 20, 500
DESK, HAND = 1280, 390
"""Widths of a window, in CSS pixels."""
TABS_MAX = 80
TALLEST_BUTTON = """() => Math.max(
  0, ...[...document.querySelectorAll("main button, main [role=button]")].map(b => b.offsetHeight)
)"""
BUTTON_HEIGHT_MAX = 80
"""In CSS pixels: two lines of text; a taller one was stretched by what stands beside it."""
Scheme = Literal["light", "dark"]
LOOKS: tuple[tuple[int, Scheme], ...] = (
    (DESK, "light"),
    (DESK, "dark"),
    (HAND, "light"),
    (HAND, "dark"),
)


@dataclass
class Served:
    """A running service with a user who has bought and spent."""

    program: Program
    port: int
    user_id: str

    @property
    def address(self) -> str:
        """Where it is."""
        return f"http://localhost:{self.port}"

    @contextmanager
    def opened(
        self, browser: Browser, width: int = DESK, scheme: Scheme = "light", name: str = "ada"
    ) -> Generator[Page]:
        """The console in a browser of this width and scheme, signed in by a link of their own.

        What a page complains of fails the test: errors, dialogs, requests to other hosts.
        """
        complaints: list[str] = []
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme=scheme,
            reduced_motion="reduce",  # else colours are looked at on their way from one to another
            service_workers="block",
        )
        context.set_default_timeout(PATIENCE_MS)
        # Before any script of the page's, which the policy would not let in afterwards.
        context.add_init_script(path=npm_package(AXE) / "node_modules" / "axe-core" / "axe.min.js")
        page = context.new_page()
        page.on("console", lambda said: complaints.extend(_error_of(said)))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(dialog.message))
        page.on("request", lambda asked: complaints.extend(_stranger_of(asked)))
        options = ("--name", name, "--port", str(self.port))
        page.goto(self.program.run("console", "link", *options).strip())
        yield page
        context.close()
        assert complaints == []

    def sql(self, statement: LiteralString, *values: object) -> Any:
        """What the database says, past the service."""
        url = self.program.run("db", "url", "--show-password").strip()
        with psycopg.connect(url) as connection:
            done = connection.execute(statement, values)
            return done.fetchone() if done.description else None

    def balance(self) -> tuple[int, int]:
        """The user's, and their debt."""
        shown = self.program.run_json("credits", "show", EMAIL)
        return shown["balance"], shown["debt"]


def _error_of(said: Any) -> list[str]:
    return [said.text] if said.type == "error" else []


def _stranger_of(asked: Any) -> list[str]:
    is_ours = re.match(r"http://(localhost|127\.0\.0\.1)[:/]|data:", asked.url)
    return [] if is_ours else [asked.url]


def faults(page: Page, *, only_colors: bool = False) -> list[str]:
    """What axe-core finds that keeps somebody from using the page, once it is there as it stays.

    On a busy machine its text is there before its styles and colours.
    """
    page.wait_for_load_state("load")
    found = _faults_now(page, only_colors=only_colors)
    for _ in range(_LOOKS_AGAIN):
        if not found:
            break
        page.wait_for_timeout(_BETWEEN_LOOKS_MS)
        found = _faults_now(page, only_colors=only_colors)
    return found


def _faults_now(page: Page, *, only_colors: bool) -> list[str]:
    rules = "{runOnly: ['color-contrast']}" if only_colors else "{}"
    found: dict[str, Any] = page.evaluate(f"() => axe.run({rules})")
    return [
        f"{each['id']}: {node['html']}"
        for each in found["violations"]
        if each["impact"] in {"serious", "critical"}
        for node in each["nodes"]
    ]


def check_for_everybody(page: Page) -> None:
    """At a desk and in a hand, light and dark: nothing keeps anybody out, nothing is too wide.

    The page is loaded once: what the width changes, and what the colours do, is looked at in turns.
    """
    for width, scheme in LOOKS:
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=scheme)
        where = f"{page.url} at {width}, {scheme}"
        found = faults(page, only_colors=scheme == "dark")
        assert found == [], f"{where}: {found}"
        assert page.evaluate("() => document.documentElement.scrollWidth") <= width, where
        assert page.evaluate(TALLEST_BUTTON) <= BUTTON_HEIGHT_MAX, where


def tab_to(page: Page, wanted: Locator) -> None:
    """Press Tab until it has the focus."""
    for _ in range(TABS_MAX):
        if wanted.evaluate("element => element === document.activeElement"):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"Tab does not reach {wanted}")


def buy(program: Program, address: str) -> None:
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


def find(page: Page, part: str) -> None:
    """By half an e-mail, from any page to the user's."""
    page.get_by_role("link", name="Users", exact=True).click()
    page.get_by_role("searchbox").fill(part)
    page.get_by_role("button", name="Search").click()
    page.get_by_role("link", name=EMAIL).click()
    expect(page.get_by_role("heading", level=1)).to_have_text(EMAIL)


def agree(page: Page, reason: str, button: str | None = None) -> None:
    """Say why, look at what it will do, and have it done."""
    page.get_by_label("Reason").fill(reason)
    page.get_by_role("button", name="Show what it will do").click()
    expect(page.get_by_text("Nothing was done yet")).to_be_visible()
    buttons = page.locator("main form button")
    (buttons if button is None else page.get_by_role("button", name=button)).click()


def photograph(page: Page, config: pytest.Config, name: str) -> None:
    """For the documentation, where `--screenshots` asks for it."""
    folder: str | None = config.option.screenshots
    if folder is not None:
        page.screenshot(path=Path(folder) / f"{name}.png")
