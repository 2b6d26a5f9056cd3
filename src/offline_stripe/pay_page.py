"""The page on which somebody pays: plain HTML, no script, nothing from elsewhere.

Each way of paying is one of Stripe's test methods; a person clicks, a program posts `method=visa`.
"""

from dataclasses import dataclass
from typing import Any, NotRequired, cast

from markupsafe import Markup
from typing_extensions import TypedDict

from src import html_pages
from src.html_pages import NOTHING, facts, money
from src.offline_stripe import paid_page
from src.offline_stripe.account import Object
from src.offline_stripe.cards import METHODS
from src.offline_stripe.checkout import line_items_of
from src.offline_stripe.due import session_of
from src.offline_stripe.errors import StripeError
from src.offline_stripe.forms import parse_form
from src.offline_stripe.parameters import parse_parameters
from src.offline_stripe.server import OfflineStripe
from src.offline_stripe.wire import Request, Response, html_response, see_other

SESSION_PLACE = "{CHECKOUT_SESSION_ID}"


class _Form(TypedDict):
    action: NotRequired[str]
    email: NotRequired[str]
    event: NotRequired[str]
    method: NotRequired[str]
    promotion_code: NotRequired[str]


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
_ALERT = Markup("<p role=alert>{}</p>")
_NOTE = Markup("<p class=note>This is the offline Stripe: no card, no bank, no money.</p>")
_BACK = Markup('<p><a href="{}">Back to the payment</a></p>')
_RADIO = Markup("<label><input type=radio name=method value={method}{checked}> {label}</label>")
_CHECKED = Markup(" checked")
_FORM = Markup(
    "<form method=post><fieldset><legend>How to pay</legend>{radios}</fieldset>"
    '<p><label>E-mail (optional) <input type=email name=email value="{email}" autocomplete=email>'
    "</label></p><button class=main name=action value=pay>Pay {amount}</button> {cancel}</form>"
)
_CODE = Markup(
    "<form method=post><p><label>Promotion code <input name=promotion_code autocomplete=off "
    "required></label></p><button name=action value=enter_code>Apply</button></form>"
)
_CANCEL = Markup("<button name=action value=cancel formnovalidate>Back to the shop</button>")
_AUTHENTICATE = Markup(
    "<p>The bank asks for 3-D Secure: is it really you?</p><form method=post>"
    "<button class=main name=action value=authenticate>Yes, it is me</button> "
    "<button name=action value=fail_authentication>No</button></form>"
)
_SETTLE = Markup(
    "<p>The bank takes some days to confirm this payment; here it does so after three minutes, or "
    "when you decide.</p><form method=post>"
    "<button class=main name=action value=settle>The money arrives</button> "
    "<button name=action value=fail>The debit fails</button></form>"
)


def answer(offline: OfflineStripe, request: Request) -> Response:
    """Show a session's page, or do what its buttons say."""
    session_id = request.path.rstrip("/").rsplit("/", 1)[-1]
    try:
        with offline.lock:
            session = offline.account.get("checkout.session", session_id)
            offline.advance(0)
            if request.method == "POST":
                return _pressed(offline, session, request)
            return _page(offline, session, parse_form(request.query))
    except StripeError as error:
        return _not_there(error, request.path)


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
            form = _form_of(request)
            action: Object = intent["next_action"] or {"redirect_to_url": {}}
            back: str | None = action["redirect_to_url"].get("return_url")
            offline.authenticate(intent_id, passed=form.get("action") == "authenticate")
            return see_other(back or "/")
    except StripeError as error:
        return _not_there(error, request.path)


def _pressed(offline: OfflineStripe, session: Object, request: Request) -> Response:
    form = _form_of(request)
    action = form.get("action", "pay")
    if action == "cancel":
        return see_other(session["cancel_url"] or session["url"] or request.path)
    if action in paid_page.ACTIONS:
        paid_page.press(offline, session, action, form.get("event"))
        return see_other(f"{request.path}?done={action}")
    code = form.get("promotion_code")
    if action == "enter_code":
        offline.enter_code(session["id"], code or "")
    elif action == "pay":
        method = form.get("method", "visa")
        offline.pay(session["id"], method, email=form.get("email"), promotion_code=code)
        offline.account.private(session["id"])["chosen"] = method
    elif action in ("authenticate", "fail_authentication"):
        offline.authenticate(session["id"], passed=action == "authenticate")
    elif action in ("settle", "fail"):
        offline.settle_payment(session["id"], succeeded=action == "settle")
    if session["status"] == "complete" and action in ("pay", "authenticate"):
        return see_other(session["success_url"].replace(SESSION_PLACE, session["id"]))
    return see_other(request.path)


def _form_of(request: Request) -> _Form:
    """What was pressed and filled in; what was left empty is left out.

    Raises:
        StripeError: it is none of our forms.
    """
    form = parse_form(request.body.decode("utf-8", "replace"))
    filled = {name: value for name, value in form.items() if value}
    return cast("_Form", parse_parameters(filled, _Form))


def _page(offline: OfflineStripe, session: Object, query: dict[str, Any]) -> Response:
    intent = offline.get(session["payment_intent"]) if session["payment_intent"] else None
    status = intent["status"] if intent else None
    if session["status"] == "open" and status == "requires_action":
        return _shown(offline, session, "Confirm it is you", _AUTHENTICATE)
    if session["status"] == "open":
        error = intent["last_payment_error"] if intent else None
        alert = _ALERT.format(error["message"]) if error else NOTHING
        takes_code = session["allow_promotion_codes"] and not session["discounts"]
        code = _CODE if takes_code else NOTHING
        return _shown(offline, session, "Pay", alert + code + _choices(offline, session))
    if status == "processing":
        return _shown(offline, session, "On its way", _SETTLE)
    return _shown(offline, session, "Nothing to pay", paid_page.content(offline, session, query))


def _choices(offline: OfflineStripe, session: Object) -> Markup:
    offered = [each for each in CHOICES if each.kind in session["payment_method_types"]]
    methods = [each.method for each in offered]
    chosen = offline.account.private(session["id"]).get("chosen")
    checked = chosen if chosen in methods else methods[0] if methods else None
    radios = (
        _RADIO.format(
            method=each.method,
            label=each.label,
            checked=_CHECKED if each.method == checked else NOTHING,
        )
        for each in offered
    )
    return _FORM.format(
        radios=NOTHING.join(radios),
        email=email_of(offline, session) or "",
        amount=money(session["amount_total"], session["currency"]),
        cancel=_CANCEL if session["cancel_url"] else NOTHING,
    )


def _not_there(error: StripeError, path: str) -> Response:
    content = _ALERT.format(error) + (_BACK.format(path) if error.status < 404 else NOTHING)  # noqa: PLR2004  not found
    return html_response(error.status, document("This cannot be done", content))


def _shown(offline: OfflineStripe, session: Object, title: str, content: Markup) -> Response:
    discount: int = session["total_details"]["amount_discount"]
    known = {
        "What": bought_by(offline, session),
        "Discount": money(discount, session["currency"]) if discount else None,
        "Total": money(session["amount_total"], session["currency"]),
        "For": email_of(offline, session),
        "Order": session["client_reference_id"],
    }
    bought = facts({name: value for name, value in known.items() if value})
    return html_response(200, document(title, bought + content))


def bought_by(offline: OfflineStripe, session: Object) -> str:
    """What a session sells, in words."""
    items = line_items_of(offline.account, session)["data"]
    return ", ".join(
        f"{each['quantity']} × {each['description']}"  # noqa: RUF001  that is the sign for times
        if each["quantity"] > 1
        else str(each["description"])
        for each in items
    )


def email_of(offline: OfflineStripe, session: Object) -> str | None:
    """Whose session it is, as far as anybody has said."""
    if session["customer_details"]:
        return session["customer_details"]["email"] or None
    customer = offline.account.find("customer", session["customer"] or "") or {}
    found: str | None = session["customer_email"] or customer.get("email")
    return found


def document(title: str, content: Markup) -> str:
    """A whole page."""
    return html_pages.document(title, content + _NOTE, site="offline Stripe")
