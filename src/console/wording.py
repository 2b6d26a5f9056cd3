"""What things of the ledger and of payments are called on a page."""

import re
from collections.abc import Mapping

from src.common.exceptions import ExceptionWithErrorType
from src.common.models.credit_entry import EntryKind
from src.common.purchases.timeline import StepKind

KINDS: Mapping[str, str] = {kind: kind.replace("_", " ") for kind in EntryKind}
"""Of entries."""
SHARES: Mapping[str, str] = {
    "spent": "spent",
    "held": "held",
    "expired": "expired",
    "gone_back": "gone back",
    "taken_back": "taken back",
    "remaining": "remaining",
}
"""Of lots, by the attribute of `LotShares`."""
STEPS: Mapping[str, str] = {
    StepKind.ORDER: "ordered",
    StepKind.EVENT: "Stripe says",
    StepKind.UNMATCHED: "credited nobody",
    StepKind.RESOLUTION: "resolved",
    StepKind.REFUND_REQUEST: "refund asked for",
    StepKind.REVERSAL: "money back",
    StepKind.PURCHASE: "purchase",
    StepKind.ENTRY: "credits",
}
LABELS: Mapping[str, str] = {
    "amount": "Credits",
    "amount_cents": "Amount",
    "by": "By",
    "credits": "Credits",
    "currency": "Currency",
    "expires_at": "Expire on",
    "expires_on": "Expire on",
    "from": "From",
    "kind": "Kind",
    "least": "Credits, at least",
    "lot": "Of lot",
    "money": "Amount",
    "most": "Credits, at most",
    "note": "What there is to say about it",
    "part": "Credits",
    "reason": "Reason",
    "since": "From",
    "time_zone": "Days begin in",
    "to": "To",
    "until": "To",
    "user": "User",
}
"""What the forms call their fields, by the name that an error gives them."""


def told(problem: ExceptionWithErrorType) -> str:
    """An error's sentence, which begins with its field as the page calls it."""
    field, _, sentence = problem.message.partition(": ")
    if field != problem.details.get("field") or field not in LABELS:
        return problem.message
    return f"{LABELS[field]}: {sentence}"


def user_named(actor: str) -> str | None:
    """The id of the user, or colleague, whom an actor names; None where it names none."""
    found = _USER.fullmatch(actor)
    return None if found is None else found[1]


_USER = re.compile(r"user:([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")


def lot_name(seq: int, source: str) -> str:
    """A lot, by the entry that made it."""
    return f"lot {seq} ({source})"
