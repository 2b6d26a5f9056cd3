"""The documentation site: it builds without a warning, and no page asks another host."""

import functools
import http.server
import re
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Literal

import pytest
from mkdocs.commands.build import build
from mkdocs.config import load_config  # pyright: ignore[reportUnknownVariableType]
from playwright.sync_api import Page, expect

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


@pytest.fixture(scope="module")
def address(site: Path) -> Generator[str]:
    """Where it is served."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  its name there
            """Say nothing."""

    handler = functools.partial(Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
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
        ("/reference/rooms/", 4),
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
    expect(page.locator("div.mermaid")).to_have_count(pictures)
    expect(page.locator("pre.mermaid")).to_have_count(0)


@pytest.mark.xdist_group("documentation site")
def test_a_narrow_screen_shows_pictures_that_can_be_read(address: str, page: Page) -> None:
    """They scroll sideways in their frame, as wide code does; the page itself does not."""
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(f"{address}/reference/schema/")
    expect(page.locator("div.mermaid")).to_have_count(2)
    frames = page.locator("div.picture")
    drawn = frames.evaluate_all("all => all.map(each => each.scrollWidth > each.clientWidth)")
    assert drawn == [True, True]
    assert page.evaluate("document.documentElement.scrollWidth") == 390


CONTRASTS = """() => {
  const channels = (color) => {
    if (color === "none") return [0, 0, 0, 0];
    const canvas = document.createElement("canvas").getContext("2d");
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const luminance = (rgb) => {
    const [r, g, b] = rgb.slice(0, 3).map((each) => {
      const part = each / 255;
      return part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (a, b) => {
    const [dark, light] = [luminance(a), luminance(b)].sort((x, y) => x - y);
    return (light + 0.05) / (dark + 0.05);
  };
  const page = channels(getComputedStyle(document.body).backgroundColor);
  return [...document.querySelectorAll("div.mermaid")].flatMap((host) => {
    const drawn = (host.shadowRoot ?? host).querySelector("svg");
    const boxes = [...drawn.querySelectorAll("rect, polygon")];
    return [...drawn.querySelectorAll("text, tspan, foreignObject span, foreignObject p")]
      .filter((text) => text.textContent.trim() && !text.querySelector("tspan, span, p"))
      .map((text) => {
        const style = getComputedStyle(text);
        const color = channels(text.closest("text") ? style.fill : style.color);
        const at = text.getBoundingClientRect();
        const [x, y] = [at.x + at.width / 2, at.y + at.height / 2];
        const behind = boxes
          .filter((box) => {
            const around = box.getBoundingClientRect();
            return around.x <= x && x <= around.right && around.y <= y && y <= around.bottom;
          })
          .map((box) => channels(getComputedStyle(box).fill))
          .filter((fill) => fill[3] > 200);
        return [text.textContent.trim(), contrast(color, behind.at(-1) ?? page)];
      });
  });
}"""
"""Each text of a page's pictures, and how much it stands out from what is drawn behind it."""
OPEN = """
  const attach = Element.prototype.attachShadow;
  Element.prototype.attachShadow = function (init) {
    return attach.call(this, { ...init, mode: "open" });
  };
"""
"""The theme draws in closed shadow trees, where no test could look."""
LEGIBLE = 4.5
"""The contrast that WCAG 2 asks of text (level AA)."""


@pytest.mark.xdist_group("documentation site")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", ["/", "/explanation/ledger/", "/reference/states/"])
def test_texts_of_pictures_can_be_read(
    address: str, page: Page, path: str, scheme: Literal["light", "dark"]
) -> None:
    """Whichever colours a reader's system asks for."""
    page.add_init_script(OPEN)
    page.emulate_media(color_scheme=scheme)
    page.goto(f"{address}{path}")
    expect(page.locator("div.mermaid").first).to_be_visible()
    expect(page.locator("pre.mermaid")).to_have_count(0)
    found: list[tuple[str, float]] = page.evaluate(CONTRASTS)
    assert len(found) > 5
    assert max(contrast for _, contrast in found) <= 21
    assert [each for each in found if each[1] < LEGIBLE] == []
