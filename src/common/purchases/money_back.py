"""Records refunds and disputes, and has the ledger take or return the credits.

On the caller's open session, never committing. The credits themselves are the ledger's to move:
`src.common.credits.money_back` (rule 5).
"""

import datetime as dt
import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, and_, exists, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from src.common.accounts.operations import lock_user
from src.common.credits.domain.commands import STRIPE_ACTOR
from src.common.credits.domain.own_commands import reversal_key
from src.common.credits.domain.reversals import credits_to_be_back
from src.common.credits.domain.reversed_money import MoneyBack, is_stray, money_back
from src.common.credits.money_back import lot_of_purchase, settle_reversals
from src.common.models.stripe_reversal import StripeReversal
from src.common.models.transaction import Transaction
from src.common.purchases import apart, unmatched
from src.common.purchases import reversals as rules
from src.common.purchases.locks import lock_payment
from src.common.purchases.refunds import accept_request
from src.common.purchases.reversals import Reversal
from src.common.purchases.whose import sees_users


def record_reversal(session: Session, reversal: Reversal) -> bool:
    """Note a snapshot of a refund, dispute or credit note, and take or give back its credits.

    A stale or repeated snapshot changes nothing. One whose payment has not arrived waits for it.

    Returns:
        Whether anything changed.

    Raises:
        Invalid: BALANCE_LIMIT_EXCEEDED, credits that come back do not fit into the balance.
    """
    lock_payment(session, reversal.payment_name or reversal.reversal_id)
    transaction = _find_transaction(session, reversal)
    if transaction is not None:
        lock_user(session, transaction.user_id)
    apart.take_along(session, reversal, transaction)
    changed = _write(session, reversal, transaction)
    if transaction is None:
        return changed
    if changed:
        settle_user(session, transaction.user_id, cause=reversal.reversal_id, about=transaction)
    if reversal.request is None:
        return changed
    # In one database transaction with the sums: it is either still asked for, or paid back.
    return accept_request(session, transaction, reversal.request, reversal.reversal_id) or changed


def has_reversals(session: Session, transaction: Transaction) -> ColumnElement[bool]:
    """Whether anything went back of this payment or of its user's others; part of a statement."""
    of_user = exists().where(
        StripeReversal.transaction_id == Transaction.transaction_id,
        Transaction.user_id == transaction.user_id,
    )
    waits = exists().where(_waits_for(transaction))
    return or_(of_user, waits, *apart.waits(session, _names_of(transaction)))


def adopt_reversals(
    session: Session, transaction: Transaction, *, now: dt.datetime | None = None
) -> None:
    """Take up the refunds and disputes that arrived before their payment, which now has a row.

    Called when a purchase was credited, with its payment and its user locked: what was owed for
    other payments may be taken from its credits too.
    """
    apart.take_along_all(session, transaction, _names_of(transaction))
    session.execute(
        update(StripeReversal)
        .where(_waits_for(transaction))
        .values(transaction_id=transaction.transaction_id)
    )
    settle_user(
        session,
        transaction.user_id,
        cause=transaction.stripe_session_id,
        about=transaction,
        now=now,
    )


def adopt_reversals_of(
    session: Session, transaction_ids: Sequence[uuid.UUID], *, now: dt.datetime | None = None
) -> None:
    """The same for purchases that application code wrote, which the ledger has just booked.

    Their payments are not locked: a refund that is told this very moment may still wait for its
    payment afterwards, until that payment's own event.
    """
    purchases = session.scalars(
        select(Transaction)
        .where(Transaction.transaction_id.in_(transaction_ids))
        .order_by(Transaction.user_id, Transaction.transaction_id)
    ).all()
    for transaction in purchases:
        adopt_reversals(session, transaction, now=now)


def _waits_for(transaction: Transaction) -> ColumnElement[bool]:
    """Whether a reversal that came before its payment is of this one."""
    return and_(
        StripeReversal.payment_intent_id.in_(_names_of(transaction)),
        StripeReversal.transaction_id.is_(None),
    )


def _names_of(transaction: Transaction) -> list[str]:
    names = (transaction.payment_intent_id, transaction.invoice_id)
    return [each for each in names if each is not None]


def settle_user(
    session: Session,
    user_id: uuid.UUID,
    *,
    cause: str,
    about: Transaction | None = None,
    now: dt.datetime | None = None,
) -> None:
    """Recompute what went back of each of a user's payments, and the credits that makes.

    The user is locked. `cause` names what changed; `about` is the payment it is about. `now`
    replaces the database's clock, in tests.
    """
    by_payment: defaultdict[tuple[uuid.UUID, str], list[StripeReversal]] = defaultdict(list)
    found = session.execute(
        select(StripeReversal, Transaction.transaction_id, Transaction.currency)
        .join(Transaction, Transaction.transaction_id == StripeReversal.transaction_id)
        .where(Transaction.user_id == user_id)
        .execution_options(populate_existing=True)
    ).all()
    if not found:
        return
    for reversal, transaction_id, currency in found:
        by_payment[transaction_id, currency].append(reversal)
        if is_stray(reversal, currency):
            unmatched.note_stray(session, reversal, currency, cause)
    sums = {
        transaction_id: money_back(rows, currency)
        for (transaction_id, currency), rows in by_payment.items()
    }
    _write_sums(session, sums)
    lots, to_be_back = _credits_to_be_back(session, user_id, sums)
    settle_reversals(
        session,
        user_id,
        to_be_back,
        key=reversal_key(cause),
        actor=STRIPE_ACTOR,
        now=now,
        related_seq=lots.get(about.transaction_id) if about else None,
    )


def _find_transaction(session: Session, reversal: Reversal) -> Transaction | None:
    """The purchase it takes from: by its PaymentIntent, else by what application code called it.

    That is the session somebody looked up, the PaymentIntent again, or the invoice.
    """
    if not sees_users(session):
        return None
    if reversal.payment_intent_id is not None:
        found = session.scalars(
            select(Transaction).where(Transaction.payment_intent_id == reversal.payment_intent_id)
        ).one_or_none()
        if found is not None:
            return found
    names = (reversal.stripe_session_id, reversal.payment_intent_id, reversal.invoice_id)
    same: list[ColumnElement[bool]] = [
        Transaction.stripe_session_id.in_([each for each in names if each is not None])
    ]
    if reversal.invoice_id is not None:
        same.append(Transaction.invoice_id == reversal.invoice_id)
    return session.scalars(select(Transaction).where(or_(*same)).limit(1)).one_or_none()


def _write(session: Session, reversal: Reversal, transaction: Transaction | None) -> bool:
    """Insert the reversal or bring it up to date; whether that changed anything."""
    transaction_id = transaction.transaction_id if transaction else None
    state = {
        "status": reversal.status,
        "amount_cents": reversal.amount_cents,
        "moved_cents": reversal.moved_cents,
        "currency": reversal.currency,
    }
    inserted = session.execute(
        insert(StripeReversal)
        .values(
            livemode=reversal.livemode,
            reversal_id=reversal.reversal_id,
            kind=str(reversal.kind),
            payment_intent_id=reversal.payment_name,
            stripe_account=reversal.stripe_account,
            transaction_id=transaction_id,
            **state,
        )
        .on_conflict_do_nothing()
        .returning(StripeReversal.reversal_id)
    ).one_or_none()
    if inserted is not None:
        return True
    known = session.scalars(
        select(StripeReversal)
        .where(
            StripeReversal.livemode == reversal.livemode,
            StripeReversal.reversal_id == reversal.reversal_id,
        )
        .with_for_update()
        .execution_options(populate_existing=True)
    ).one()
    changes: dict[str, Any] = dict(state) if rules.supersedes(reversal, known) else {}
    if known.transaction_id is None and transaction_id is not None:
        changes["transaction_id"] = transaction_id
    if known.stripe_account != reversal.stripe_account:
        changes["stripe_account"] = reversal.stripe_account
    is_vague = known.payment_intent_id in (None, reversal.invoice_id)
    if is_vague and reversal.payment_name not in (None, known.payment_intent_id):
        changes["payment_intent_id"] = reversal.payment_name
    for name, value in changes.items():
        setattr(known, name, value)
    session.flush()
    return bool(changes)


def _write_sums(session: Session, sums: Mapping[uuid.UUID, MoneyBack]) -> None:
    for transaction_id, back in sums.items():
        session.execute(
            update(Transaction)
            .where(Transaction.transaction_id == transaction_id)
            .values(refunded_cents=back.refunded_cents, disputed_cents=back.disputed_cents)
        )


def _credits_to_be_back(
    session: Session, user_id: uuid.UUID, sums: Mapping[uuid.UUID, MoneyBack]
) -> tuple[dict[uuid.UUID, int], dict[int, int]]:
    """By payment with money back: its lot. By lot: how many of its credits are to be back."""
    lots: dict[uuid.UUID, int] = {}
    to_be_back: defaultdict[int, int] = defaultdict(int)
    payments = session.scalars(
        select(Transaction)
        .where(Transaction.user_id == user_id, Transaction.transaction_id.in_(list(sums)))
        .order_by(Transaction.transaction_id)
    )
    for payment in payments:
        seq = lot_of_purchase(session, payment)
        if seq is not None:
            lots[payment.transaction_id] = seq
            to_be_back[seq] += credits_to_be_back(
                payment.credits_added,
                payment.amount_paid_cents,
                sums[payment.transaction_id].total_cents,
            )
    return lots, {seq: amount for seq, amount in to_be_back.items() if amount}
