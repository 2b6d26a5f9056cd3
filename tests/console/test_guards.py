"""What keeps other pages and hosts out, on every answer of the console."""

import re
from pathlib import Path

import pytest

from src.console.guards import POLICY
from src.console.permissions import Role
from src.console.rendering import FOLDER
from tests.fixtures.console import PAGE, Console

TEMPLATES = sorted((FOLDER / "templates").rglob("*.html"))
OWN_FILES = [*TEMPLATES, *sorted((FOLDER / "static").glob("*.*"))]


def test_the_policy_lets_nothing_of_another_host_in() -> None:
    """No host, no scheme but that of inline images, and neither inline scripts nor styles."""
    assert "'unsafe" not in POLICY
    words = set(re.split(r"[; ]+", POLICY))
    assert {each for each in words if ":" in each or "*" in each} == {"data:"}
    for directive in ("default-src 'none'", "base-uri 'none'", "frame-ancestors 'none'"):
        assert directive in POLICY


@pytest.mark.parametrize(
    "path", ["/", "/sign-in", "/nothing", "/static/console.css", "/static/nothing"]
)
@pytest.mark.parametrize("is_signed_in", [True, False])
async def test_every_answer_has_the_headers(
    console: Console, path: str, *, is_signed_in: bool
) -> None:
    """Pages, files, redirections and errors."""
    if is_signed_in:
        await console.sign_in(Role.ADMIN)
    answer = await console.get(path)
    assert answer.headers["content-security-policy"] == POLICY
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "same-origin"


async def test_pages_are_kept_by_no_cache_and_files_are_asked_for_again(console: Console) -> None:
    """What is about a person is in no cache."""
    await console.sign_in(Role.ADMIN)
    assert (await console.get(PAGE)).headers["cache-control"] == "no-store"
    file = await console.get("/static/console.css")
    assert file.headers["cache-control"] == "no-cache"
    again = await console.get(
        "/static/console.css", headers={"If-None-Match": file.headers["etag"]}
    )
    assert again.status_code == 304


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_no_template_has_what_the_policy_refuses(template: Path) -> None:
    """Inline scripts, handlers, styles; nor does any switch the escaping off."""
    text = template.read_text(encoding="utf-8")
    assert not re.search(r"<script(?![^>]* src=)", text)
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", text)
    assert not re.search(r"\|\s*safe\b|autoescape|Markup", text)


@pytest.mark.parametrize("file", OWN_FILES, ids=lambda path: path.name)
def test_no_page_names_another_host(file: Path) -> None:
    """In an address that a browser would follow by itself or at a click."""
    text = file.read_text(encoding="utf-8")
    assert not re.findall(r"(?:src|href|action|url\(|import)\W{0,3}(?:https?:)?//", text)


FOREIGN = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Origin": "https://elsewhere.example"},
    {"Origin": "null"},
]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
async def test_what_another_page_sends_is_refused(
    console: Console, headers: dict[str, str]
) -> None:
    """Even if it knows the token."""
    await console.sign_in(Role.ADMIN)
    hidden = console.hidden(await console.get(PAGE), "/sign-in/out")
    sent = await console.client.post("/console/sign-in/out", data=hidden, headers=headers)
    assert sent.status_code == 403
    assert (await console.get(PAGE)).status_code == 200


@pytest.mark.parametrize("token", [None, "", "0" * 64, "of another session"])
async def test_a_form_without_this_session_s_token_is_refused(
    console: Console, token: str | None
) -> None:
    """None, a wrong one, and one that was right in another session."""
    await console.sign_in(Role.ADMIN)
    hidden = console.hidden(await console.get(PAGE), "/sign-in/out")
    if token == "of another session":
        await console.sign_in(Role.ADMIN)
    elif token is None:
        del hidden["form_token"]
    else:
        hidden["form_token"] = token
    sent = await console.client.post("/console/sign-in/out", data=hidden)
    assert sent.status_code == 403
    assert "Nothing was done" in sent.text
    assert (await console.get(PAGE)).status_code == 200


async def test_a_form_without_a_key_is_refused(console: Console) -> None:
    """And says so, as a page."""
    await console.sign_in(Role.ADMIN)
    hidden = console.hidden(await console.get(PAGE), "/sign-in/out")
    sent = await console.client.post("/console/sign-in/out", data={**hidden, "form_key": "1"})
    assert sent.status_code == 422
    assert "form_key" in sent.text


async def test_errors_are_pages(console: Console) -> None:
    """Of an address that is none, and of a method that it does not take."""
    await console.sign_in(Role.ADMIN)
    missing = await console.get("/nothing")
    assert missing.status_code == 404
    assert "<h1>There is no such page</h1>" in missing.text
    refused = await console.client.put("/console/")
    assert refused.status_code == 405
