"""Disputes: an inquiry, the funds withdrawn, evidence, won or lost, the funds reinstated.

Source: Stripe's documentation, "How disputes work" and "Test disputes".
"""

from src.offline_stripe import balance
from src.offline_stripe.account import Account, Object
from src.offline_stripe.catalog import merged_metadata
from src.offline_stripe.errors import invalid, refused
from src.offline_stripe.listing import matches, page

FEE_CENTS = 1_500
ANSWER_SECONDS = 9 * 86_400
INQUIRY = ("warning_needs_response", "warning_under_review")
APPEALED = ("appeal_needs_response", "appeal_under_review")
OPEN = (*INQUIRY, "needs_response", "under_review", *APPEALED)
_TEXTS = [
    "access_activity_log",
    "billing_address",
    "cancellation_policy",
    "cancellation_policy_disclosure",
    "cancellation_rebuttal",
    "customer_communication",
    "customer_email_address",
    "customer_name",
    "customer_purchase_ip",
    "customer_signature",
    "duplicate_charge_documentation",
    "duplicate_charge_explanation",
    "duplicate_charge_id",
    "product_description",
    "receipt",
    "refund_policy",
    "refund_policy_disclosure",
    "refund_refusal_explanation",
    "service_date",
    "service_documentation",
    "shipping_address",
    "shipping_carrier",
    "shipping_date",
    "shipping_documentation",
    "shipping_tracking_number",
    "uncategorized_file",
    "uncategorized_text",
]


def open_dispute(
    account: Account,
    charge_id: str,
    *,
    inquiry: bool = False,
    amount: int | None = None,
    reason: str = "fraudulent",
) -> Object:
    """The cardholder's bank asks (an inquiry) or takes the money back, all of it or `amount`.

    Raises:
        StripeError: the charge took no money, is disputed already, or for less than `amount`.
    """
    charged = account.get("charge", charge_id)
    disputed = charged["amount_captured"] if amount is None else amount
    if charged["disputed"] or charged["status"] != "succeeded":
        raise refused("This charge cannot be disputed", "charge_not_disputable")
    if not 1 <= disputed <= charged["amount_captured"]:
        raise invalid("A dispute is for at most what was captured", "amount")
    card = charged["payment_method_details"].get("card")
    dispute = account.add(
        {
            "id": account.new_id("du"),
            "object": "dispute",
            "amount": disputed,
            "balance_transactions": [],
            "charge": charge_id,
            "created": account.now(),
            "currency": charged["currency"],
            "enhanced_eligibility_types": [],
            "evidence": dict.fromkeys(_TEXTS) | {"enhanced_evidence": {}},
            "evidence_details": {
                "due_by": account.now() + ANSWER_SECONDS,
                "enhanced_eligibility": {},
                "has_evidence": False,
                "past_due": False,
                "submission_count": 0,
                "submission_method": "not_submitted",
            },
            "intended_submission_method": None,
            "is_charge_refundable": inquiry,
            "livemode": False,
            "metadata": {},
            "network_reason_code": "10.4",
            "payment_intent": charged["payment_intent"],
            **({"payment_method_details": _details(card, inquiry=inquiry)} if card else {}),
            "reason": reason,
            "status": "warning_needs_response" if inquiry else "needs_response",
        }
    )
    charged["disputed"] = True
    if not inquiry:
        _move(account, dispute, -disputed, fee=FEE_CENTS)
    account.emit("charge.dispute.created", dispute)
    if not inquiry:
        account.emit("charge.dispute.funds_withdrawn", dispute)
    return dispute


def escalate(account: Account, dispute_id: str) -> Object:
    """An inquiry becomes a dispute: the money is taken."""
    dispute = _in_status(account, dispute_id, INQUIRY)
    if details := dispute.get("payment_method_details"):
        details["card"]["case_type"] = "chargeback"
    _move(account, dispute, -dispute["amount"], fee=FEE_CENTS)
    account.change(
        dispute, "charge.dispute.updated", status="needs_response", is_charge_refundable=False
    )
    account.emit("charge.dispute.funds_withdrawn", dispute)
    return dispute


def win(account: Account, dispute_id: str) -> Object:
    """The bank sides with us: the dispute is closed and the money comes back."""
    dispute = _in_status(account, dispute_id, OPEN)
    if dispute["status"] in INQUIRY:
        return account.change(dispute, "charge.dispute.closed", status="warning_closed")
    account.change(dispute, "charge.dispute.closed", status="won")
    return reinstate(account, dispute_id) if _withdrawn(dispute) else dispute


def lose(account: Account, dispute_id: str) -> Object:
    """The bank sides with the cardholder, or nobody answered."""
    dispute = _in_status(account, dispute_id, ("needs_response", "under_review", *APPEALED))
    return account.change(dispute, "charge.dispute.closed", status="lost")


def reinstate(account: Account, dispute_id: str, amount: int | None = None) -> Object:
    """The money that was withdrawn comes back, or a part, before the decision or after it.

    Raises:
        StripeError: nothing of the dispute, or less than `amount`, is withdrawn.
    """
    dispute = account.get("dispute", dispute_id)
    withdrawn = _withdrawn(dispute)
    if not withdrawn:
        raise refused("Nothing of this dispute is withdrawn", "dispute_not_withdrawn")
    amount = withdrawn if amount is None else amount
    if not 1 <= amount <= withdrawn:
        raise invalid("At most what is withdrawn can come back", "amount")
    _move(account, dispute, amount)
    account.emit("charge.dispute.funds_reinstated", dispute)
    return dispute


def appeal(account: Account, dispute_id: str) -> Object:
    """The bank does not accept that we have won: the money is taken once more."""
    dispute = _in_status(account, dispute_id, ("won",))
    _move(account, dispute, _withdrawn(dispute) - dispute["amount"], fee=FEE_CENTS)
    account.change(dispute, "charge.dispute.updated", status=APPEALED[0])
    account.emit("charge.dispute.funds_withdrawn", dispute)
    return dispute


def update(account: Account, parameters: Object, object_id: str) -> Object:
    """`POST /v1/disputes/{id}`: evidence; Stripe's magic words decide a test dispute at once."""
    dispute = account.get("dispute", object_id)
    evidence: Object = parameters.get("evidence") or {}
    if evidence and dispute["status"] not in OPEN:
        raise refused("This dispute is already closed", "dispute_already_closed")
    fields: Object = {}
    if "metadata" in parameters:
        fields["metadata"] = merged_metadata(dispute, parameters)
    if evidence:
        submitted = parameters.get("submit", True)
        details = dispute["evidence_details"]
        fields["evidence"] = dispute["evidence"] | evidence
        fields["evidence_details"] = details | {
            "has_evidence": True,
            "submission_count": details["submission_count"] + submitted,
            "submission_method": "manual" if submitted else details["submission_method"],
        }
        if submitted:
            before = dispute["status"].removesuffix("needs_response").removesuffix("under_review")
            fields["status"] = f"{before}under_review"
    account.change(dispute, "charge.dispute.updated", **fields)
    words = evidence.get("uncategorized_text")
    if words == "winning_evidence":
        win(account, object_id)
    elif words == "losing_evidence" and dispute["status"] not in INQUIRY:
        lose(account, object_id)
    return dispute


def close(account: Account, _parameters: Object, object_id: str) -> Object:
    """`POST /v1/disputes/{id}/close`: accepted as lost."""
    dispute = _in_status(account, object_id, OPEN)
    if dispute["status"] in INQUIRY:
        return win(account, object_id)
    return lose(account, object_id)


def list_disputes(account: Account, parameters: Object) -> Object:
    """`GET /v1/disputes`."""
    found = (each for each in account.all("dispute") if matches(each, parameters))
    return page(found, parameters, "/v1/disputes")


def _details(card: Object, *, inquiry: bool) -> Object:
    return {
        "card": {
            "brand": card["brand"],
            "case_type": "inquiry" if inquiry else "chargeback",
            "network": card["brand"],
            "network_reason_code": "10.4",
        },
        "type": "card",
    }


def _in_status(account: Account, dispute_id: str, statuses: tuple[str, ...]) -> Object:
    dispute = account.get("dispute", dispute_id)
    if dispute["status"] not in statuses:
        raise refused(
            f"This dispute has the status {dispute['status']}", "dispute_unexpected_state"
        )
    return dispute


def _withdrawn(dispute: Object) -> int:
    moved: list[Object] = dispute["balance_transactions"]
    return -sum(int(each["amount"]) for each in moved)


def _move(account: Account, dispute: Object, amount: int, *, fee: int = 0) -> None:
    booked = balance.book(
        account,
        dispute,
        kind="adjustment",
        amount=amount,
        fee=fee,
        description=f"Chargeback {'withdrawal' if amount < 0 else 'reversal'} "
        f"for {dispute['charge']}",
    )
    dispute["balance_transactions"] = [*dispute["balance_transactions"], booked]
