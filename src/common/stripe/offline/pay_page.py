"""The page on which somebody pays: plain HTML, no script, nothing from elsewhere.

Each way of paying is one of Stripe's test methods; a person clicks, a program posts `method=visa`.
"""

import html
from dataclasses import dataclass

from src.common.stripe.offline.account import Object
from src.common.stripe.offline.cards import METHODS
from src.common.stripe.offline.due import session_of
from src.common.stripe.offline.errors import StripeError
from src.common.stripe.offline.forms import parse_form
from src.common.stripe.offline.server import OfflineStripe
from src.common.stripe.offline.wire import Request, Response, html_response, see_other

SESSION_PLACE = "{CHECKOUT_SESSION_ID}"


@dataclass(frozen=True)
class Choice:
    """One way to pay."""

    method: str
    label: str

    @property
    def kind(self) -> str:
        """The type of payment method that it is."""
        return "card" if METHODS[self.method].is_card else "sepa_debit"


CHOICES = (
    Choice("visa", "Card that works (4242 4242 4242 4242)"),
    Choice("chargeDeclined", "Card that is declined (4000 0000 0000 0002)"),
    Choice("chargeDeclinedInsufficientFunds", "Card without funds (4000 0000 0000 9995)"),
    Choice("authenticationRequired", "Card that asks for 3-D Secure (4000 0027 6000 3184)"),
    Choice("sepa", "Bank debit, confirmed some days later (AT61 1904 3002 3457 3201)"),
    Choice("createDispute", "Card whose payment is disputed at once (4000 0000 0000 0259)"),
    Choice("createDisputeInquiry", "Card whose bank asks about it (4000 0000 0000 1976)"),
    Choice("pendingRefund", "Card whose refunds are pending (4000 0000 0000 7726)"),
    Choice("refundFail", "Card whose refunds fail (4000 0000 0000 5126)"),
)
_STYLE = """
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 34rem; margin: 2rem auto; padding: 0 1rem;
  color: #1a1a1a; background: #fff; }
fieldset { border: 1px solid #767676; border-radius: .5rem; margin: 1rem 0; padding: 1rem; }
label { display: block; padding: .25rem 0; }
button { font: inherit; padding: .5rem 1.25rem; border-radius: .5rem; border: 1px solid #1a1a1a;
  background: #fff; color: #1a1a1a; }
button.main { background: #1a4fd0; border-color: #1a4fd0; color: #fff; }
[role=alert] { border-left: .3rem solid #b00020; padding-left: .75rem; color: #b00020; }
.note { color: #595959; }
"""


def answer(offline: OfflineStripe, request: Request) -> Response:
    """Show a session's page, or do what its buttons say."""
    session_id = request.path.rstrip("/").rsplit("/", 1)[-1]
    try:
        with offline.lock:
            session = offline.account.get("checkout.session", session_id)
            offline.advance(0)
            if request.method == "POST":
                return _pressed(offline, session, request)
            return _page(offline, session)
    except StripeError as error:
        return _not_there(error)


def authenticate(offline: OfflineStripe, request: Request) -> Response:
    """3-D Secure of a PaymentIntent; a session's own page asks for it there."""
    intent_id = request.path.rstrip("/").rsplit("/", 1)[-1]
    try:
        with offline.lock:
            intent = offline.account.get("payment_intent", intent_id)
            if (session := session_of(offline.account, intent_id)) is not None:
                return see_other(f"/c/pay/{session['id']}")
            if request.method != "POST":
                return html_response(200, document("Confirm it is you", _AUTHENTICATE))
            form = parse_form(request.body.decode("utf-8", "replace"))
            action: Object = intent["next_action"] or {"redirect_to_url": {}}
            back: str | None = action["redirect_to_url"].get("return_url")
            offline.authenticate(intent_id, passed=form.get("action") == "authenticate")
            return see_other(back or "/")
    except StripeError as error:
        return _not_there(error)


def _pressed(offline: OfflineStripe, session: Object, request: Request) -> Response:
    form = parse_form(request.body.decode("utf-8", "replace"))
    action = form.get("action", "pay")
    if action == "cancel":
        return see_other(session["cancel_url"] or session["url"] or request.path)
    if action == "pay":
        offline.pay(session["id"], form.get("method", "visa"), email=form.get("email") or None)
    elif action in ("authenticate", "fail_authentication"):
        offline.authenticate(session["id"], passed=action == "authenticate")
    elif action in ("settle", "fail"):
        offline.settle_payment(session["id"], succeeded=action == "settle")
    if session["status"] == "complete" and action in ("pay", "authenticate"):
        return see_other(session["success_url"].replace(SESSION_PLACE, session["id"]))
    return see_other(request.path)


def _page(offline: OfflineStripe, session: Object) -> Response:
    intent = offline.get(session["payment_intent"]) if session["payment_intent"] else None
    status = intent["status"] if intent else None
    if session["status"] == "open" and status == "requires_action":
        return _shown(session, "Confirm it is you", _AUTHENTICATE)
    if session["status"] == "open":
        error = intent["last_payment_error"] if intent else None
        alert = f"<p role=alert>{html.escape(error['message'])}</p>" if error else ""
        return _shown(session, "Pay", alert + _choices(session))
    if status == "processing":
        return _shown(session, "On its way", _SETTLE)
    words = {"complete": "This payment is complete.", "expired": "This offer has expired."}
    if session["status"] == "complete" and session["payment_status"] == "unpaid":
        words["complete"] = "This payment has failed."
    return _shown(session, "Nothing to pay", f"<p>{words[session['status']]}</p>")


def _choices(session: Object) -> str:
    offered = [each for each in CHOICES if each.kind in session["payment_method_types"]]
    radios = "".join(
        f'<label><input type=radio name=method value="{each.method}"{" checked" * (not number)}> '
        f"{each.label}</label>"
        for number, each in enumerate(offered)
    )
    email = html.escape(session["customer_email"] or "", quote=True)
    cancel = "<button name=action value=cancel formnovalidate>Back to the shop</button>"
    return (
        f"<form method=post><fieldset><legend>How to pay</legend>{radios}</fieldset>"
        f'<p><label>E-mail (optional) <input type=email name=email value="{email}" '
        "autocomplete=email></label></p>"
        f"<button class=main name=action value=pay>Pay {money(session)}</button> "
        f"{cancel if session['cancel_url'] else ''}</form>"
    )


_AUTHENTICATE = (
    "<p>The bank asks for 3-D Secure: is it really you?</p><form method=post>"
    "<button class=main name=action value=authenticate>Yes, it is me</button> "
    "<button name=action value=fail_authentication>No</button></form>"
)
_SETTLE = (
    "<p>The bank takes some days to confirm this payment; here it does so after three minutes, or "
    "when you decide.</p><form method=post>"
    "<button class=main name=action value=settle>The money arrives</button> "
    "<button name=action value=fail>The debit fails</button></form>"
)


def _not_there(error: StripeError) -> Response:
    message = f"<p role=alert>{html.escape(str(error))}</p>"
    return html_response(error.status, document("This cannot be done", message))


def _shown(session: Object, title: str, content: str) -> Response:
    return html_response(200, document(title, f"<p><strong>{money(session)}</strong></p>{content}"))


def money(session: Object) -> str:
    """As Stripe writes an amount: in whole units where the currency has cents."""
    amount, currency = session["amount_total"], html.escape(session["currency"].upper())
    return f"{amount // 100}.{amount % 100:02} {currency}"


def document(title: str, content: str) -> str:
    """A whole page; `content` is HTML."""
    return (
        f"<!doctype html><html lang=en><head><meta charset=utf-8><title>{title} (offline Stripe)"
        '</title><meta name=viewport content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body><main><h1>{title}</h1>{content}"
        "<p class=note>This is the offline Stripe: no card, no bank, no money.</p>"
        "</main></body></html>"
    )
