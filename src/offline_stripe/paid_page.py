"""What can be done to a session that has ended: refund, dispute, send its webhooks again."""

from typing import Any

from markupsafe import Markup

from src.html_pages import NOTHING, facts, money
from src.offline_stripe import refunds
from src.offline_stripe.account import Object
from src.offline_stripe.errors import refused
from src.offline_stripe.server import OfflineStripe
from src.offline_stripe.webhooks import retry_event

ACTIONS = {
    "refund": "The money goes back.",
    "dispute": "The payment is disputed.",
    "resend": "The webhook is sent again.",
}
"""What can be done, and what is said afterwards."""
_SENTENCE = Markup("<p>{}</p>")
_DONE = Markup("<p role=status>{}</p>")
_FORM = Markup("<form method=post>{}</form>")
_REFUND = Markup("<button name=action value=refund>Refund {}</button>")
_DISPUTE = Markup("<button name=action value=dispute>Dispute it</button>")
_RESEND = Markup(
    "<form method=post><input type=hidden name=event value={event}>"
    "<button name=action value=resend>Send {event_type} again</button></form>"
)


def content(offline: OfflineStripe, session: Object, query: dict[str, Any]) -> Markup:
    """What became of the session, and buttons for what may happen next."""
    words = {"complete": "This payment is complete.", "expired": "This offer has expired."}
    if session["status"] == "complete" and session["payment_status"] == "unpaid":
        words["complete"] = "This payment has failed."
    done = ACTIONS.get(str(query.get("done")))
    charge = _charge_of(offline, session)
    resends = (
        _RESEND.format(event=each["id"], event_type=each["type"])
        for each in _events_of(offline, session)
    )
    return NOTHING.join(
        (
            _DONE.format(done) if done else NOTHING,
            _SENTENCE.format(words[session["status"]]),
            _money_back(offline, charge) if charge else NOTHING,
            *resends,
        )
    )


def press(offline: OfflineStripe, session: Object, action: str, event: str | None) -> None:
    """Do one of `ACTIONS`; `event` is what to send again.

    Raises:
        StripeError: it cannot be done to this session, or no more.
    """
    if action == "resend":
        events = [each["id"] for each in _events_of(offline, session)]
        if event is None or event not in events:
            raise refused("This session has no such event", param="event")
        retry_event(offline.account, {}, event)
        return
    charge = _charge_of(offline, session)
    if charge is None:
        raise refused("Nothing was paid")
    if action == "refund":
        refunds.create(offline.account, {"charge": charge["id"]})
    else:
        offline.open_dispute(charge["id"])


def _money_back(offline: OfflineStripe, charge: Object) -> Markup:
    """What was refunded and disputed so far, and what still can be."""
    account, currency = offline.account, charge["currency"]
    found: dict[str, str | Markup] = {}
    for kind, name in (("refund", "Refunded"), ("dispute", "Disputed")):
        ours = [each for each in account.all(kind) if each["charge"] == charge["id"]]
        if ours:
            found[name] = ", ".join(
                f"{money(each['amount'], currency)} ({each['status']})" for each in ours
            )
    left = charge["amount_captured"] - charge["amount_refunded"]
    buttons = (
        _REFUND.format(money(left, currency)) if left else NOTHING,
        _DISPUTE if not charge["disputed"] else NOTHING,
    )
    return (facts(found) if found else NOTHING) + (
        _FORM.format(NOTHING.join(buttons)) if any(buttons) else NOTHING
    )


def _charge_of(offline: OfflineStripe, session: Object) -> Object | None:
    """The charge that took the money; None where none did."""
    if session["status"] != "complete" or session["payment_intent"] is None:
        return None
    intent = offline.get(session["payment_intent"])
    charge = offline.get(intent["latest_charge"]) if intent["latest_charge"] else None
    return charge if charge and charge["status"] == "succeeded" else None


def _events_of(offline: OfflineStripe, session: Object) -> list[Object]:
    """What was told about the session itself, in order."""
    return [
        each
        for each in offline.account.all("event")
        if each["data"]["object"].get("id") == session["id"]
    ]
