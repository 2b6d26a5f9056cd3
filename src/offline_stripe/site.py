"""What is at which address: Stripe's API, the pay page, the controls, and a page that says so."""

from markupsafe import Markup

from src.html_pages import NOTHING, money
from src.offline_stripe import control, pay_page
from src.offline_stripe.account import Object
from src.offline_stripe.server import OfflineStripe
from src.offline_stripe.wire import Request, Response, html_response

SHOWN_MAX = 20

_SESSION = Markup('<li><a href="/c/pay/{session_id}">{what}</a>: {price}, {state}</li>')
_SESSIONS = Markup("<ul>{}</ul>")
_NONE = Markup("<p>No Checkout Session yet.</p>")


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
        rows = [_row(offline, each) for each in sessions]
    found = _SESSIONS.format(NOTHING.join(rows)) if rows else _NONE
    return html_response(200, pay_page.document("Checkout Sessions", found))


def _row(offline: OfflineStripe, session: Object) -> Markup:
    words = (session["status"], session["payment_status"], pay_page.email_of(offline, session))
    return _SESSION.format(
        session_id=session["id"],
        what=pay_page.bought_by(offline, session),
        price=money(session["amount_total"], session["currency"]),
        state=", ".join(word for word in words if word),
    )
