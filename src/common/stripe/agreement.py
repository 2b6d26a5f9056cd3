"""Which of Stripe's objects plainly agree with what is recorded: a whole page by one look.

What settling would change is what we lack (decision 0016). Here the functions that settling asks
say of what is plain that it would change nothing. Whatever they do not say so of, `differences.py`
compares by itself, with its locks and in its own database transaction.
"""

from collections.abc import Iterable
from typing import Any

from src.common.models.checkout_order import OrderStatus
from src.common.purchases import rules
from src.common.purchases.orders import is_as_far
from src.common.purchases.recorded import Asked, Recorded
from src.common.purchases.reversals import Reversal, supersedes
from src.common.purchases.rules import Mismatch, Payment, Terms
from src.common.stripe.lookup import Facts
from src.common.stripe.wire import CheckoutSession, PaymentIntent
from src.common.stripe.wire_money_back import Dispute, Refund


def asked_of(objects: Iterable[Any]) -> Asked:
    """What the books are asked about these objects of Stripe's, none of which is kept."""
    asked = Asked()
    for each in objects:
        match each:
            case CheckoutSession():
                asked.payments.append(each.as_payment())
            case PaymentIntent():
                asked.payment_intents.append(each.id)
            case Refund() | Dispute():
                asked.reversals.append(each.id)
                if each.payment_intent is not None:
                    asked.payment_intents.append(each.payment_intent)
            case _:
                pass
    return asked


def are_anothers(facts: Facts, env: str) -> bool:
    """Whether they are of another deployment of ours, on the same account."""
    return any(each.env not in (None, env) for each in facts.payments)


def agree(facts: Facts, recorded: Recorded, terms: Terms) -> bool:
    """Whether settling these facts would plainly change nothing."""
    return are_anothers(facts, terms.env) or (
        all(_payment_agrees(each, recorded, terms) for each in facts.payments)
        and all(_reversal_agrees(each, recorded) for each in facts.reversals)
        and all(_end_agrees(*each, recorded) for each in facts.ended)
    )


def _payment_agrees(payment: Payment, recorded: Recorded, terms: Terms) -> bool:
    if payment.stripe_session_id == payment.payment_intent_id:
        return False  # its order may call it by a session that nobody looked for
    order = recorded.order_of(payment)
    purchases = recorded.purchases_of(payment)
    if not purchases:
        is_noted = recorded.is_unmatched(payment)
        return is_noted and isinstance(rules.judge(payment, order, terms), Mismatch)
    if len(purchases) > 1:
        return False
    [purchase] = purchases
    row = purchase.row
    return (
        purchase.is_credited
        and rules.is_same_purchase(row, payment, order)
        and row.stripe_account == payment.stripe_account
        and (order is None or order.status == OrderStatus.PAID)
        and not rules.learnt_from(row, payment)
    )


def _reversal_agrees(reversal: Reversal, recorded: Recorded) -> bool:
    known = recorded.reversals.get((reversal.livemode, reversal.reversal_id))
    return (
        known is not None
        and known.transaction_id is not None
        and known.transaction_id not in recorded.refunds_asked_for
        and (known.status, known.amount_cents) == (reversal.status, reversal.amount_cents)
        and known.stripe_account == reversal.stripe_account
        and known.payment_intent_id == reversal.payment_name
        and not supersedes(reversal, known)
    )


def _end_agrees(payment: Payment, status: OrderStatus, recorded: Recorded) -> bool:
    if status is not OrderStatus.EXPIRED:
        return False
    order = recorded.order_of(payment)
    if order is None or order.stripe_session_id not in (None, payment.stripe_session_id):
        return True
    return is_as_far(order, status)
