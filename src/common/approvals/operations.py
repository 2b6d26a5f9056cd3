"""Asking for a second person's consent, and deciding: on the caller's open session (rule 13).

Nothing here commits. The user's row is locked first, then the request's. What is consented to is
done in the same database transaction as the consent, with a key made from the request: credits are
moved, and a refund is written down for Stripe to be asked (`refunds.py`).
"""

import uuid

from sqlalchemy.orm import Session

from src.common.accounts.operations import lock_user
from src.common.approvals import askers, asking, deeds, forms, moved, rules
from src.common.approvals.asking import Asked, Request
from src.common.approvals.forms import RefundForm
from src.common.approvals.rules import Limits
from src.common.credits import operations as ledger
from src.common.credits import queries, requests
from src.common.credits.domain import errors
from src.common.credits.domain.arguments import check_text
from src.common.credits.domain.commands import (
    KEY_LENGTH_MAX,
    REFERENCE_LENGTH_MAX,
    Grant,
    Result,
    Reverse,
)
from src.common.credits.domain.digest import digest_of
from src.common.credits.domain.own_commands import ByHand
from src.common.exceptions import Invalid
from src.common.models.approval import Approval, Decision
from src.common.purchases.refunds import (
    RefundWish,
    get_transaction,
    refundable_amount,
    request_refund,
)


def execute_or_ask(session: Session, command: ByHand, limits: Limits | None) -> Result | Asked:
    """Do it, or ask for another person's consent where that takes it.

    With one key it is done once or asked once; whoever repeats what there was consent to is
    answered what it did. What would be refused now is not asked for.

    Args:
        session: In a database transaction of the caller's.
        command: A grant, adjustment, reversal or release, whose actor is the person who asks.
        limits: Above what it takes another person; None where nothing does. A request of before is
            found all the same.

    Raises:
        ExceptionWithErrorType: the command's refusals. Invalid: VALIDATION_ERROR, there is no
            reason. Conflict: IDEMPOTENCY_KEY_REUSED. APPROVAL_DECIDED, APPROVAL_EXPIRED, nothing
            comes of what was asked for with this key.
        RetryableDatabaseError: a passing condition of the database.
    """
    requests.of_caller(command)
    session.flush()
    if lock_user(session, command.user_id) is None:
        raise errors.user_not_found()
    if deeds.is_booked(session, command):  # a replay, or another request's key
        return ledger.execute(session, [command])[0]
    found = asking.find_asked(session, command.user_id, command.key, command.digest)
    if found is not None:
        is_done = found.approval.status == Decision.CONSENTED
        return deeds.again(session, found.approval) if is_done else found
    amount = queries.preview(session, command).result.amount
    if limits is None or not takes_consent(session, command, amount, limits):
        return ledger.execute(session, [command])[0]
    if command.metadata is not None:
        raise Invalid(
            "metadata: is not kept with a request that takes consent",
            "VALIDATION_ERROR",
            field="metadata",
        )
    field = "reference" if isinstance(command, Grant) else "reason"
    request = Request(
        user_id=command.user_id,
        form=forms.form_of(command, amount),
        reason=rules.check_reason(command.noted, field),
        requester=command.actor,
        key=command.key,
        digest=command.digest,
    )
    return asking.ask(session, request, limits)


def takes_consent(session: Session, command: ByHand, amount: int, limits: Limits) -> bool:
    """Whether a command that moves `amount` credits, signed, takes another person's consent now.

    So it is where that, with what its actor gave the user lately, is more than the limit; credits
    that are taken are summed apart.
    """
    if isinstance(command, Reverse) and amount < 0:
        return False
    user_id, actor = command.user_id, command.actor
    before = moved.credits_moved(session, user_id, actor, gives=amount > 0)
    if amount > 0:
        before += moved.credits_of_payments(session, user_id, actor, limits)
    return before + abs(amount) > limits.credits_above


def refund_takes_consent(session: Session, wish: RefundWish, limits: Limits) -> bool:
    """Whether a refund takes another person's consent now, as `takes_consent` says of credits.

    Raises:
        NotFound: TRANSACTION_NOT_FOUND.
        Invalid: REFUND_EXCEEDS_PAYMENT, VALIDATION_ERROR.
    """
    transaction = get_transaction(session, wish.transaction_id)
    amount_cents = refundable_amount(session, transaction, wish)
    before = moved.cents_paid_back(session, transaction.user_id, wish.actor, transaction.currency)
    return before + amount_cents > limits.refund_cents_above


def request_or_ask(session: Session, wish: RefundWish, limits: Limits | None) -> Asked | RefundWish:
    """Write a refund down, or ask for another person's consent where that takes it.

    Returns:
        What was asked for; else the refund that may go on: what is wished for, or what there was
        consent to with its key.

    Raises:
        NotFound: TRANSACTION_NOT_FOUND.
        Invalid: REFUND_EXCEEDS_PAYMENT, VALIDATION_ERROR.
        Conflict: IDEMPOTENCY_KEY_REUSED. APPROVAL_DECIDED, APPROVAL_EXPIRED, as `execute_or_ask`.
    """
    transaction = get_transaction(session, wish.transaction_id)
    lock_user(session, transaction.user_id)
    session.refresh(transaction)
    if deeds.is_requested(session, wish):
        return wish
    digest = digest_of(
        wish.actor, "refund", str(wish.transaction_id), wish.amount_cents, wish.reason
    )
    found = asking.find_asked(session, transaction.user_id, wish.key, digest)
    if found is not None:
        if found.approval.status == Decision.CONSENTED:
            form = forms.read(found.approval.command)
            assert isinstance(form, RefundForm)  # noqa: S101  its digest is a refund's
            return deeds.refund_wish(found.approval, form)
        return found
    if limits is None:  # nothing to be counted: it is written down as Stripe is asked
        return wish
    amount_cents = refundable_amount(session, transaction, wish)
    if not refund_takes_consent(session, wish, limits):
        request_refund(session, wish)
        return wish
    request = Request(
        user_id=transaction.user_id,
        transaction_id=wish.transaction_id,
        form=RefundForm(amount_cents=amount_cents),
        reason=rules.check_reason(wish.reason, "reason"),
        requester=wish.actor,
        key=wish.key,
        digest=digest,
    )
    return asking.ask(session, request, limits)


def consent(
    session: Session, approval_id: uuid.UUID, *, decider: str, note: str | None = None
) -> Approval:
    """Consent to what another person asked for, and do it.

    A refund is written down; Stripe is asked afterwards. Whoever consents again is answered the
    same, and nothing more is done. What is refused leaves the request open: the balance may suffice
    later, and nobody has to ask anew.

    Raises:
        NotFound: APPROVAL_NOT_FOUND.
        Forbidden: APPROVAL_IS_OWN.
        Conflict: APPROVAL_DECIDED, APPROVAL_EXPIRED, APPROVAL_UNREADABLE. APPROVAL_ASKER_LEFT,
            whoever asked may not any more.
        ExceptionWithErrorType: what the operation is refused with, now.
    """
    return _decide(session, approval_id, Decision.CONSENTED, decider, note)


def refuse(
    session: Session, approval_id: uuid.UUID, *, decider: str, note: str | None = None
) -> Approval:
    """Refuse what another person asked for. It is never done.

    Raises:
        NotFound: APPROVAL_NOT_FOUND.
        Forbidden: APPROVAL_IS_OWN, whoever asked withdraws.
        Conflict: APPROVAL_DECIDED, APPROVAL_EXPIRED.
    """
    return _decide(session, approval_id, Decision.REFUSED, decider, note)


def withdraw(
    session: Session, approval_id: uuid.UUID, *, decider: str, note: str | None = None
) -> Approval:
    """Take back what one asked for oneself. It is never done.

    Raises:
        NotFound: APPROVAL_NOT_FOUND.
        Forbidden: FORBIDDEN, somebody else asked for it.
        Conflict: APPROVAL_DECIDED, APPROVAL_EXPIRED.
    """
    return _decide(session, approval_id, Decision.WITHDRAWN, decider, note)


def _decide(
    session: Session,
    approval_id: uuid.UUID,
    decision: Decision,
    decider: str,
    note: str | None,
) -> Approval:
    """Do what was consented to, and note the decision; the same again changes nothing."""
    check_text("decider", decider, KEY_LENGTH_MAX)
    if note is not None:
        check_text("note", note, REFERENCE_LENGTH_MAX)
    approval = _locked(session, approval_id, decision)
    if (approval.status, approval.decider) == (decision, decider):
        return approval
    now = asking.clock(session)
    rules.check_decision(approval, decision, decider, now)
    if decision is Decision.CONSENTED:
        askers.check_asker(session, approval)
        deeds.execute(session, approval)
    approval.status, approval.decider = decision, decider
    approval.decided_at, approval.note = now, note
    session.flush()
    return approval


def _locked(session: Session, approval_id: uuid.UUID, decision: Decision) -> Approval:
    """The request, after its payment and its user, as everybody locks them."""
    found = session.get(Approval, approval_id)
    if found is None:
        raise asking.approval_not_found()
    if decision is Decision.CONSENTED:
        deeds.lock_before_user(session, found)
    if found.user_id is not None:
        lock_user(session, found.user_id)
    return session.get_one(Approval, approval_id, with_for_update=True, populate_existing=True)
