"""The page at `/`: links to the documentation, the pay page and the rest."""

from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from markupsafe import Markup

from src.api.src.dependencies import SettingsOf
from src.api.src.pages import page
from src.api.src.routes import API_PREFIX
from src.html_pages import NOTHING

router = APIRouter()

PLACES = (
    ("docs", "The API, to read and to try"),
    ("redoc", "The API, to read"),
    ("openapi.json", "The API's OpenAPI document"),
    (f"{API_PREFIX[1:]}/packages", "What is on sale"),
    ("livez", "Is the process alive?"),
    ("readyz", "Can requests be served?"),
    ("metrics", "Prometheus metrics"),
)
"""Relative, so that the links hold where a proxy serves us below a path of its own."""

_PLACE = Markup('<dt><a href="{place}">{place}</a></dt><dd>{meaning}</dd>')
_PLACES = Markup("<dl>{places}</dl>")


@router.get("/", include_in_schema=False)
async def show_places(settings: SettingsOf) -> HTMLResponse:
    """Links; on a developer's machine to the offline Stripe as well."""
    places = list(PLACES)
    if settings.stripe_api_base_url is not None:
        places.append((settings.stripe_api_base_url, "The offline Stripe: no card, no money"))
    shown = (_PLACE.format(place=place, meaning=meaning) for place, meaning in places)
    return page("FlashSlides AI", _PLACES.format(places=NOTHING.join(shown)))
