"""What things of the ledger and of payments are called on a page."""

from collections.abc import Mapping

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


def lot_name(seq: int, source: str) -> str:
    """A lot, by the entry that made it."""
    return f"lot {seq} ({source})"
