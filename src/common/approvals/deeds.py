"""What is done once there is consent: each form's operation, in the consent's database transaction.

Credits are moved with a key made from the request, and a refund is written down with it. A payment
is settled once by itself, and a key is one row.
"""

import uuid
from dataclasses import replace

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from src.common.accounts import api_keys
from src.common.approvals import forms
from src.common.approvals.forms import CreditsForm, KeyForm, PaymentForm, RefundForm
from src.common.credits import operations as ledger
from src.common.credits.domain import errors
from src.common.credits.domain.commands import Result
from src.common.credits.domain.own_commands import ByHand, approval_key, approved
from src.common.models.approval import Approval, ApprovalOperation
from src.common.models.credit_entry import CreditEntry
from src.common.models.refund_request import RefundRequest
from src.common.purchases import resolutions
from src.common.purchases.refunds import RefundWish, request_refund
from src.common.purchases.resolutions import Ruling


def execute(session: Session, approval: Approval) -> None:
    """Do it, unless it was done meanwhile without consent, with the requester's own key.

    Raises:
        ExceptionWithErrorType: what the operation is refused with, now.
        Conflict: APPROVAL_UNREADABLE, IDEMPOTENCY_KEY_REUSED.
    """
    form = forms.read(approval.command)
    match form:
        case RefundForm():
            wish = refund_wish(approval, form)
            if is_requested(session, replace(wish, key=approval.idempotency_key)):
                raise errors.key_reused()
            request_refund(session, wish)
        case PaymentForm():
            resolutions.resolve(
                session,
                form.stripe_object_id,
                resolution=approval.reason or "",
                actor=approval.requester,
                ruling=ruling_of(approval, form),
            )
        case KeyForm():
            api_keys.write_api_key(session, form.facts)
        case _:
            command = command_of(approval, form)
            if is_booked(session, command):
                raise errors.key_reused()
            ledger.execute(session, [approved(command, approval.approval_id)])


def again(session: Session, approval: Approval) -> Result:
    """What was done to credits once there was consent, as its entry says."""
    form = forms.read(approval.command)
    assert isinstance(form, CreditsForm)  # noqa: S101  its digest is a command's
    command = approved(command_of(approval, form), approval.approval_id)
    return ledger.execute(session, [command])[0]


def lock_before_user(session: Session, approval: Approval) -> None:
    """Lock what is locked before any user's row: the payment, where one is to be credited."""
    if approval.command.get("operation") == ApprovalOperation.PAYMENT:
        resolutions.lock(session, str(approval.command.get("stripe_object_id")))


def refund_wish(approval: Approval, form: RefundForm) -> RefundWish:
    """The refund that was asked for, with its own key."""
    assert approval.transaction_id is not None  # noqa: S101  a constraint says so
    return RefundWish(
        transaction_id=approval.transaction_id,
        key=approval_key(approval.approval_id),
        actor=approval.requester,
        amount_cents=form.amount_cents,
        reason=approval.reason,
        is_own=True,
    )


def ruling_of(approval: Approval, form: PaymentForm) -> Ruling:
    """Whom and with how much a payment is to be credited, as it was asked for."""
    return Ruling(approval.user_id, form.amount, form.amount_cents, form.currency)


def command_of(approval: Approval, form: CreditsForm) -> ByHand:
    """The command that was asked for, with the requester's key."""
    return forms.command_of(
        form,
        user_id=user_of(approval),
        actor=approval.requester,
        reason=approval.reason or "",
        key=approval.idempotency_key,
    )


def user_of(approval: Approval) -> uuid.UUID:
    """Whose credits or money it is about; there is one wherever credits or money are moved."""
    assert approval.user_id is not None  # noqa: S101  a constraint says so
    return approval.user_id


def is_booked(session: Session, command: ByHand) -> bool:
    """Whether an entry has the command's key."""
    return session.scalars(
        select(
            exists().where(
                CreditEntry.user_id == command.user_id,
                CreditEntry.idempotency_key == command.key,
            )
        )
    ).one()


def is_requested(session: Session, wish: RefundWish) -> bool:
    """Whether a refund of this purchase has the wish's key."""
    return session.get(RefundRequest, (wish.transaction_id, wish.key)) is not None
