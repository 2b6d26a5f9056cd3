"""The console in a browser: every page at a desk and in a hand, light and dark, for everybody."""

import re
from collections.abc import Generator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, Page, expect

from scripts.npm import npm_package
from src.local_postgres import free_port
from tests.cli.processes import Program
from tests.fixtures.browser import PATIENCE_MS
from tests.fixtures.folders import copy_data, folder_for_data

AXE = "axe-core@4.13.0"
WIDTHS = (1280, 390)
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
PAGES_MIN = 8


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


@pytest.mark.xdist_group("embedded servers")
def test_every_page_is_usable_by_everybody(program: Program, browser: Browser) -> None:
    """No script or style is refused by the policy, and nothing is asked of another host.

    Charts are drawn, with their figures as a table, and no page is wider than the window.
    """
    port = free_port()
    complaints: list[str] = []
    with program.serve(port):
        user = program.run_json("user", "create", "ada@example.com")["user_id"]
        program.run("credits", "grant", user, "100", "--yes", "--key", "a")
        [link] = re.findall(r"Console +(http\S+)", program.said())
        state: Any = None
        for width, scheme in product(WIDTHS, SCHEMES):
            with opened(browser, width, scheme, complaints) as page:
                if state is None:
                    page.goto(link)
                    state = page.context.cookies()
                page.context.add_cookies(state)
                page.goto(f"http://localhost:{port}/console/")
                look_at_every_page(page, width)
    assert complaints == []


def look_at_every_page(page: Page, width: int) -> None:
    """Each page of the navigation, and each report."""
    expect(page.get_by_role("heading", level=1)).to_have_text("Overview")
    expect(page.locator("figure canvas").first).to_be_visible()
    expect(page.locator("figure table").first).to_contain_text("100", use_inner_text=False)
    places = page.locator("header nav li a").evaluate_all("links => links.map(a => a.href)")
    assert len(places) >= PAGES_MIN
    report = page.url + "reports/liability"
    for place in [*places, report]:
        page.goto(place)
        assert faults(page) == [], place
        wide = page.evaluate("() => document.documentElement.scrollWidth")
        assert wide <= width, place


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
