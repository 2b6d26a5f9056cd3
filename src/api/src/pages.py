"""Answers that are pages for a browser."""

from fastapi.responses import HTMLResponse
from markupsafe import Markup

from src.html_pages import POLICY, document

SITE = "FlashSlides"
_HEADERS = {"Content-Security-Policy": POLICY, "Referrer-Policy": "no-referrer"}
"""An address may hold what is nobody else's business, such as a Checkout Session's id."""


def page(heading: str, content: Markup, *, status: int = 200) -> HTMLResponse:
    """A page of ours."""
    return HTMLResponse(document(heading, content, site=SITE), status, _HEADERS)
