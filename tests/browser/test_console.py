"""The console in a browser: every page for everybody, and a day's work by mouse and by keyboard."""

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.served import (
    EMAIL,
    Served,
    agree,
    check_for_everybody,
    faults,
    find,
    photograph,
    tab_to,
    until,
)

pytestmark = pytest.mark.xdist_group("embedded servers")

PAGES_MIN = 8


def test_every_page_is_usable_by_everybody(
    served: Served, browser: Browser, pytestconfig: pytest.Config
) -> None:
    """No script or style is refused by the policy, and nothing is asked of another host.

    Charts are drawn, with their figures as a table, and no page is wider than the window.
    """
    with served.opened(browser) as page:
        expect(page.get_by_role("heading", level=1)).to_have_text("Overview")
        expect(page.locator("figure canvas").first).to_be_visible()
        photograph(page, pytestconfig, "console-overview")
        for place in places(page, served.user_id):
            page.goto(place)
            check_for_everybody(page)
        expect(page.locator("figure canvas").first).to_be_visible()
        table = page.locator("figure table").first
        expect(table).to_contain_text("spend -30", use_inner_text=False)
        page.get_by_role("link", name="cs_").click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("Payment")
        assert faults(page) == []


def places(page: Page, user_id: str) -> list[str]:
    """Each page of the navigation, a report, and all about a user; theirs is the last."""
    found: list[str] = page.locator("header nav li a").evaluate_all("all => all.map(a => a.href)")
    assert len(found) >= PAGES_MIN
    console = page.url
    found.append(f"{console}reports/liability?time_zone=UTC")
    parts = ("/entries/2", "/give", "/change", "/entries?lot=1", "/lots", "/holds", "")
    return found + [f"{console}users/{user_id}{part}" for part in parts]


def test_a_day_s_work(served: Served, browser: Browser, pytestconfig: pytest.Config) -> None:
    """Find, give, undo, refund until Stripe's webhook has come, replay, download."""
    before, _ = served.balance()
    with served.opened(browser) as page:
        find(page, "ada.love")
        expect(page.locator("figure canvas").first).to_be_visible()
        photograph(page, pytestconfig, "console-user")
        give(page, 25, before + 25)
        undo(page, before + 25 + 30)
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
    assert served.balance() == (before + 25 + 30 - 1_000, 0)


def give(page: Page, amount: int, balance: int) -> None:
    """Some credits, seen first, and then on the page where it began."""
    page.get_by_role("button", name="Give credits").click()
    page.get_by_label("Credits").fill(str(amount))
    agree(page, "For a broken deck", "Do it")
    expect(page.get_by_role("definition").first).to_contain_text(f"{balance:,} credits")


def undo(page: Page, balance: int) -> None:
    """The spend of the user's second entry."""
    page.get_by_role("region", name="Entries").get_by_role("link", name="2", exact=True).click()
    page.get_by_role("button", name="Undo this entry").click()
    agree(page, "Spend of a job that failed", "Do it")
    expect(page.get_by_role("definition").first).to_contain_text(f"{balance:,} credits")


def refund(page: Page) -> None:
    """All of the user's purchase, to the payment's own page."""
    page.get_by_role("region", name="Purchases").get_by_role("link").first.click()
    page.get_by_role("button", name="Refund it").click()
    agree(page, "Asked for within a day")
    expect(page.get_by_role("status")).to_contain_text("Paid back")


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


def test_the_keyboard_alone_is_enough(served: Served, browser: Browser) -> None:
    """Past the navigation, to somebody, to a gift that is shown, and out; no mouse is touched."""
    with served.opened(browser) as page:
        page.keyboard.press("Tab")
        expect(page.get_by_text("Skip to the content")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("main")).to_be_focused()
        page.goto(f"{served.address}/console/users")
        tab_to(page, page.get_by_role("searchbox"))
        page.keyboard.type("ada.love")
        page.keyboard.press("Enter")
        tab_to(page, page.get_by_role("link", name=EMAIL))
        page.keyboard.press("Enter")
        tab_to(page, page.get_by_role("button", name="Give credits"))
        page.keyboard.press("Enter")
        tab_to(page, page.get_by_label("Credits"))
        page.keyboard.type("3")
        tab_to(page, page.get_by_label("Reason"))
        page.keyboard.type("A late delivery")
        page.keyboard.press("Enter")
        expect(page.get_by_text("Nothing was done yet")).to_be_visible()
        before = served.balance()[0]
        tab_to(page, page.get_by_role("button", name="Do it"))
        page.keyboard.press("Enter")
        expect(page.get_by_role("status")).to_contain_text("Done: +3 credits")
        assert served.balance()[0] == before + 3
        tab_to(page, page.get_by_role("button", name="Sign out"))
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
