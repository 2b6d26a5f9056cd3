"""The console in browsers: two persons for one gift, and what others write is text and no more."""

import csv
import json
import zipfile
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Download, Page, expect

from tests.browser.served import HAND, Served, agree, find, photograph

pytestmark = pytest.mark.xdist_group("embedded servers")

TAGS = "<img src=x onerror=alert(1)><script>alert(2)</script><b>bold</b>\"'>"
FORMULA = '=HYPERLINK("http://evil.example","click")'
TURNED = "\u202egnp.exe \u2066\u200f\u001b[31m"
LONG = "W" * 10_000
HOSTILE = f"{TAGS}{TURNED}{FORMULA}"


def test_somebody_else_consents_in_another_browser(
    served: Served, browser: Browser, pytestconfig: pytest.Config
) -> None:
    """Who asks sees no button to consent; who consents sees what it will do; it is done once."""
    before, _ = served.balance()
    with (
        served.opened(browser) as asking,
        served.opened(browser, name="grace") as deciding,
    ):
        find(asking, "ada.love")
        asking.get_by_role("button", name="Give credits").click()
        asking.get_by_label("Credits").fill("20,000")
        agree(asking, "Outage of 12 May", "Ask for it")
        expect(asking.get_by_role("status")).to_contain_text("another person has to consent")
        expect(asking.get_by_role("button", name="Consent")).to_have_count(0)
        assert served.balance()[0] == before
        deciding.get_by_role("link", name="Approvals").click()
        deciding.get_by_role("link", name="20,000 promo credits given").click()
        expect(deciding.get_by_text("What consent would do now")).to_be_visible()
        photograph(deciding, pytestconfig, "console-approval")
        deciding.get_by_role("button", name="Consent").click()
        deciding.locator("main form button").dblclick()
        expect(deciding.get_by_role("status")).to_contain_text("Done")
        asking.reload()
        expect(asking.get_by_role("definition").first).to_have_text("consented")
    assert served.balance()[0] == before + 20_000


def test_what_customers_and_stripe_write_is_text_on_every_page(
    served: Served, browser: Browser
) -> None:
    """Tags make nothing, what turns a line is spelt out, 10,000 characters widen no page."""
    write_hostile(served)
    console = f"{served.address}/console"
    user = f"{console}/users/{served.user_id}"
    seq = served.sql("SELECT max(seq) FROM credit_entries WHERE reference LIKE %s", "%<img%")[0]
    event = served.sql("SELECT event_id FROM stripe_events ORDER BY event_id LIMIT 1")[0]
    with served.opened(browser, HAND) as page:
        for place in (
            f"{console}/users?q={served.user_id}",
            user,
            f"{user}/entries",
            f"{user}/entries/{seq}",
            f"{console}/payments?tab=orders",
            f"{console}/inbox",
            f"{console}/inbox/{event}",
            f"{console}/unmatched",
            f"{console}/unmatched/cs_hostile",
        ):
            page.goto(place)
            check_harmless(page)


def write_hostile(served: Served) -> None:
    """What customers fill in, callers note, and Stripe tells."""
    served.sql(
        "UPDATE users SET first_name = %s, last_name = %s, language_preference = %s,"
        " preferences = %s::jsonb",
        *(TAGS + TURNED, LONG, TAGS),
        json.dumps({"company": FORMULA + TAGS, TAGS: LONG, "turned": TURNED}),
    )
    served.program.run(
        *("credits", "spend", served.user_id, "1", "--reference", HOSTILE.replace("\x1b", "")[:255])
    )
    served.sql("UPDATE stripe_events SET error = %s, remark = %s", HOSTILE, HOSTILE + LONG)
    served.sql(
        "INSERT INTO unmatched_payments (livemode, stripe_object_id, event_id, reason, explanation,"
        " details) VALUES (false, 'cs_hostile', 'evt_1', 'USER_UNKNOWN', %s, %s::jsonb)",
        *(HOSTILE + LONG, json.dumps({"currency": TAGS, TAGS: TURNED})),
    )
    served.sql("UPDATE checkout_orders SET package_id = %s", FORMULA + TAGS)


def check_harmless(page: Page) -> None:
    """Nothing of it is a part of the page but its text."""
    made = page.locator("main img, main b, main iframe, main script:not([src^='/console/'])")
    expect(made).to_have_count(0)
    text = page.locator("body").inner_text()
    assert not set(text) & set("\u202e\u2066\u200f\u001b"), page.url
    wide = page.evaluate("() => document.documentElement.scrollWidth")
    assert wide <= HAND, page.url


def test_what_is_downloaded_runs_nothing(served: Served, browser: Browser) -> None:
    """A formula is text in every file: a spreadsheet shows it and does not follow it."""
    served.sql("UPDATE checkout_orders SET package_id = %s", FORMULA)
    with served.opened(browser) as page:
        page.goto(f"{served.address}/console/reports/payments?time_zone=UTC")
        files = {name: download(page, name).path() for name in ("csv", "json", "xlsx")}
        [row] = csv.DictReader(files["csv"].read_text().splitlines())
        assert row["package_id"] == f"'{FORMULA}"
        assert json.loads(files["json"].read_text())[0]["package_id"] == FORMULA
        assert "<f>" not in sheets(files["xlsx"])


def download(page: Page, name: str) -> Download:
    """The report as a file of this format."""
    with page.expect_download() as taken:
        page.get_by_role("link", name=name, exact=True).click()
    return taken.value


def sheets(workbook: Path) -> str:
    """The XML of all sheets."""
    with zipfile.ZipFile(workbook) as file:
        return "".join(
            file.read(name).decode() for name in file.namelist() if "worksheets/" in name
        )
