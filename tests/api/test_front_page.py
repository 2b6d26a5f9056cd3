"""What a visitor finds: the page at `/`, documentation without the internet, what is on sale."""

from html.parser import HTMLParser
from urllib.parse import urljoin

import pytest
from pydantic import SecretStr

from src.common.packages import DEFAULT_PACKAGES, Package
from tests.fixtures.api import Api, StartApi

OFFLINE_STRIPE = "http://127.0.0.1:12111"


class References(HTMLParser):
    """Every address that a page links to or loads."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what this element refers to."""
        del tag
        self.found += [value or "" for name, value in attrs if name in {"href", "src"}]


@pytest.mark.parametrize(
    ("page", "script"),
    [("/docs", "swagger-ui-bundle.js"), ("/redoc", "redoc.standalone.js")],
)
async def test_documentation_is_loaded_from_here_alone(api: Api, page: str, script: str) -> None:
    """Each file the page refers to is one of ours, and answered, its script among them."""
    answer = await api.client.get(page)
    assert answer.status_code == 200
    references = [each for each in References(answer.text).found if not each.startswith("data:")]
    assert any(each.endswith(script) for each in references)
    assert "cdn" not in answer.text
    for reference in references:
        assert reference.startswith("/")
        assert not reference.startswith("//")
        file = await api.client.get(reference)
        assert (file.status_code, len(file.content) > 1_000) == (200, True), reference


async def test_every_place_on_the_front_page_answers(api: Api) -> None:
    """`/` names the documentation, what is on sale and the probes, and its links hold."""
    answer = await api.client.get("/")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/html")
    places = References(answer.text).found
    assert {"docs", "redoc", "openapi.json", "api/v1/packages", "readyz"} <= set(places)
    for place in places:
        assert (await api.client.get(urljoin("/", place))).status_code == 200, place
    assert "/" not in api.app.openapi()["paths"]


async def test_the_front_page_names_the_offline_stripe_where_there_is_one(api: Api) -> None:
    """Its pay pages are for a browser, too; without one nothing is said of it."""
    assert OFFLINE_STRIPE not in (await api.client.get("/")).text
    api.app.state.settings = api.app.state.settings.model_copy(
        update={"stripe_api_base_url": OFFLINE_STRIPE, "stripe_secret_key": SecretStr("sk_test_a")}
    )
    page = (await api.client.get("/")).text
    assert OFFLINE_STRIPE in References(page).found
    assert "sk_test_a" not in page


async def test_what_is_on_sale_is_the_settings(api: Api) -> None:
    """Without a token; in the order of the settings; and what a checkout takes."""
    answer = await api.get("/packages")
    assert answer.status_code == 200
    assert answer.json() == {"packages": [each.model_dump() for each in DEFAULT_PACKAGES]}
    pens = Package(package_id="pens", name="Pens", credits=3, price_cents=700, currency="eur")
    api.app.state.settings = api.app.state.settings.model_copy(update={"credit_packages": (pens,)})
    assert (await api.get("/packages")).json() == {"packages": [pens.model_dump()]}


async def test_what_is_on_sale_may_be_cached_by_anybody(start_api: StartApi) -> None:
    """For a minute; apart for each origin, of which only the configured ones may read it."""
    api = await start_api(CORS_ORIGINS="https://app.example.com")
    for headers in ({}, {"Origin": "https://app.example.com"}, {"Origin": "https://other.example"}):
        answer = await api.get("/packages", headers=headers)
        assert answer.headers["Cache-Control"] == "public, max-age=60"
        assert "Origin" in answer.headers["Vary"]
