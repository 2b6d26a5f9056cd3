"""The page at `/`: where the things that people look for are."""

from html import escape

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from src.api.src.dependencies import SettingsOf
from src.api.src.routes import API_PREFIX

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

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>FlashSlides AI</title></head>
<body>
<h1>FlashSlides AI</h1>
<dl>
{entries}
</dl>
</body>
</html>
"""


@router.get("/", include_in_schema=False)
async def show_places(settings: SettingsOf) -> HTMLResponse:
    """Links; on a developer's machine to the offline Stripe as well."""
    places = list(PLACES)
    if settings.stripe_api_base_url is not None:
        places.append((settings.stripe_api_base_url, "The offline Stripe: no card, no money"))
    entries = "\n".join(
        f'<dt><a href="{escape(place)}">{escape(place)}</a></dt><dd>{escape(meaning)}</dd>'
        for place, meaning in places
    )
    return HTMLResponse(_PAGE.format(entries=entries))
