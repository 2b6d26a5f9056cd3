"""What is at which address: Stripe's API, the pay page, the controls, and a page that says so."""

import html

from src.common.stripe.offline import control, pay_page
from src.common.stripe.offline.server import OfflineStripe
from src.common.stripe.offline.wire import Request, Response, html_response

SHOWN_MAX = 20


def answer(offline: OfflineStripe, request: Request) -> Response:
    """Answer any request to the offline Stripe."""
    if request.path.startswith("/c/pay/"):
        return pay_page.answer(offline, request)
    if request.path.startswith("/authenticate/"):
        return pay_page.authenticate(offline, request)
    if request.path.startswith("/_offline/"):
        return control.answer(offline, request)
    if request.path == "/":
        return _start_page(offline)
    return offline.handle(request)


def _start_page(offline: OfflineStripe) -> Response:
    """The newest sessions, to find one's way to their pay pages."""
    with offline.lock:
        sessions = list(offline.account.all("checkout.session"))[::-1][:SHOWN_MAX]
    rows = "".join(
        f'<li><a href="/c/pay/{each["id"]}">{html.escape(each["id"][:24])}…</a> '
        f"{pay_page.money(each)}, {each['status']}, {each['payment_status']}</li>"
        for each in sessions
    )
    found = f"<ul>{rows}</ul>" if rows else "<p>No Checkout Session yet.</p>"
    return html_response(200, pay_page.document("Checkout Sessions", found))
