"""What is done over HTTP, where nobody can be asked: up to the limits, and with a key of its own.

A key with which somebody asked for something is that request's, however it stands: nobody moves
credits or money by hand with it but whoever consents.
"""

import uuid

from sqlalchemy.orm import Session

from src.common.accounts.operations import lock_user
from src.common.approvals import deeds, rules
from src.common.approvals.asking import find_asked, find_request
from src.common.approvals.operations import refund_takes_consent, takes_consent
from src.common.approvals.rules import Limits
from src.common.credits import operations as ledger
from src.common.credits import queries, requests
from src.common.credits.domain import errors
from src.common.credits.domain.commands import Result
from src.common.credits.domain.own_commands import ByHand
from src.common.models.approval import Decision
from src.common.purchases.refunds import RefundWish, get_transaction, request_refund


def execute_alone(session: Session, command: ByHand, limits: Limits) -> Result:
    """Do it, where one person may do it alone; what there was consent to answers what it did.

    Raises:
        ExceptionWithErrorType: the command's refusals. Invalid: CONSENT_NEEDED. Conflict:
            IDEMPOTENCY_KEY_REUSED. APPROVAL_DECIDED, APPROVAL_EXPIRED, nothing comes of what was
            asked for with this key.
        RetryableDatabaseError: a passing condition of the database.
    """
    requests.of_caller(command)
    session.flush()
    if lock_user(session, command.user_id) is None:
        raise errors.user_not_found()
    if deeds.is_booked(session, command):
        return ledger.execute(session, [command])[0]
    found = find_asked(session, command.user_id, command.key, command.digest)
    if found is not None:
        if found.approval.status == Decision.CONSENTED:
            return deeds.again(session, found.approval)
        raise rules.consent_needed()
    amount = queries.preview(session, command).result.amount
    if takes_consent(session, command, amount, limits):
        raise rules.consent_needed()
    return ledger.execute(session, [command])[0]


def request_alone(session: Session, wish: RefundWish, limits: Limits | None) -> None:
    """See that a refund may be paid back without asking; where limits hold, write it down.

    Args:
        session: The caller's.
        wish: The refund.
        limits: Above what nobody pays back alone; None for whoever has nobody to ask.

    Raises:
        NotFound: TRANSACTION_NOT_FOUND.
        Invalid: REFUND_EXCEEDS_PAYMENT, VALIDATION_ERROR, CONSENT_NEEDED.
        Conflict: IDEMPOTENCY_KEY_REUSED.
    """
    user_id = get_transaction(session, wish.transaction_id).user_id
    lock_user(session, user_id)
    if not deeds.is_requested(session, wish):
        if is_asked_for(session, user_id, wish.key):
            raise errors.key_reused()
        if limits is not None and refund_takes_consent(session, wish, limits):
            raise rules.consent_needed()
    if limits is not None:  # else nothing is counted: it is written down as Stripe is asked
        request_refund(session, wish)


def is_asked_for(session: Session, user_id: uuid.UUID, key: str) -> bool:
    """Whether something was asked for about this user with this key, however it stands."""
    return find_request(session, user_id, key) is not None
