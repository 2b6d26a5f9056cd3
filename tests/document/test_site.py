"""The documentation site: it builds without a warning, and no page asks another host."""

import functools
import http.server
import re
import threading
from collections.abc import Generator
from pathlib import Path

import pytest
from mkdocs.commands.build import build
from mkdocs.config import load_config  # pyright: ignore[reportUnknownVariableType]
from playwright.sync_api import Page, expect

from tests.fixtures.browser import PATIENCE_MS

ROOT = Path(__file__).parents[2]
ASKED = re.compile(
    r"<(?:script|img|link|iframe)\b[^>]*?\b(?:src|href)=\"?(https?:)?//", re.IGNORECASE
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built strictly: a broken link, or a page outside the navigation, is an error."""
    folder = tmp_path_factory.mktemp("site")
    build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder), strict=True))
    return folder


@pytest.fixture
def address(site: Path) -> Generator[str]:
    """Where it is served."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  its name there
            """Say nothing."""

    handler = functools.partial(Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        serving.join()


@pytest.mark.xdist_group("documentation site")
def test_no_page_names_a_script_a_style_or_a_picture_of_another_host(site: Path) -> None:
    """Whatever a page loads is ours."""
    pages = list(site.rglob("*.html"))
    assert len(pages) > len(list((ROOT / "docs/decisions").glob("*.md")))
    assert [page for page in pages if ASKED.search(page.read_text())] == []


@pytest.mark.xdist_group("documentation site")
@pytest.mark.parametrize(
    ("path", "pictures"),
    [
        ("/", 1),
        ("/explanation/ledger/", 1),
        ("/explanation/payments/", 1),
        ("/reference/rooms/", 3),
        ("/reference/schema/", 2),
        ("/reference/states/", 6),
    ],
)
def test_pages_are_drawn_without_another_host(
    address: str, page: Page, path: str, pictures: int
) -> None:
    """Pictures too: what Mermaid has drawn takes the place of its source."""
    page.goto(f"{address}{path}")
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    expect(page.locator("div.mermaid")).to_have_count(pictures, timeout=PATIENCE_MS)
    expect(page.locator("pre.mermaid")).to_have_count(0)


@pytest.mark.xdist_group("documentation site")
def test_a_narrow_screen_shows_pictures_that_can_be_read(address: str, page: Page) -> None:
    """They scroll sideways in their frame, as wide code does; the page itself does not."""
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(f"{address}/reference/schema/")
    expect(page.locator("div.mermaid")).to_have_count(2, timeout=PATIENCE_MS)
    frames = page.locator("div.picture")
    drawn = frames.evaluate_all("all => all.map(each => each.scrollWidth > each.clientWidth)")
    assert drawn == [True, True]
    assert page.evaluate("document.documentElement.scrollWidth") == 390
