"""Finds what we lack of what Stripe says, by settling it in a savepoint that is undone.

See decision 0016.
"""

from sqlalchemy.orm import Session

from src.common.models.stripe_reversal import StripeReversal
from src.common.purchases import unmatched
from src.common.purchases.operations import find_purchase
from src.common.purchases.reversals import Reversal
from src.common.purchases.rules import Payment, Terms
from src.common.stripe import inbox
from src.common.stripe.findings import concerns_others, failure_of
from src.common.stripe.inbox import EventAnswer
from src.common.stripe.lookup import Facts


class _Undo(Exception):
    """Leaves a savepoint, with nothing of it done."""


def difference(session: Session, facts: Facts, terms: Terms) -> str | None:
    """How what we have differs from these facts, in words; None where it does not."""
    for reversal in facts.reversals:
        found = _differing_reversal(session, reversal)
        if found is not None:
            return found
    are_noted = all(unmatched.is_noted(session, each) for each in facts.payments)
    answer = EventAnswer.ALREADY_PROCESSED
    try:
        with session.begin_nested():
            answer = inbox.apply(session, facts, terms, cause="reconcile")
            raise _Undo  # noqa: TRY301  nothing of it stays
    except _Undo:
        session.expire_all()
    except Exception as error:
        session.expire_all()
        if concerns_others(error):
            raise
        return failure_of(error)
    if answer is EventAnswer.PROCESSED:
        return "missing"
    if answer is EventAnswer.UNMATCHED:
        return None if are_noted else "missing: it belongs among the unmatched payments"
    accounts = (_differing_account(session, each) for each in facts.payments)
    return next((each for each in accounts if each is not None), None)


def _differing_reversal(session: Session, reversal: Reversal) -> str | None:
    known = session.get(StripeReversal, (reversal.livemode, reversal.reversal_id))
    if known is None:
        return "missing"
    if (known.status, known.amount_cents) != (reversal.status, reversal.amount_cents):
        return f"different: {known.status} here, {reversal.status} at Stripe"
    return _accounts_differ(known.stripe_account, reversal.stripe_account)


def _differing_account(session: Session, payment: Payment) -> str | None:
    """Whose payment a credited purchase is: what settling would note, and call no change."""
    known = find_purchase(session, payment)
    return _accounts_differ(known.stripe_account, payment.stripe_account) if known else None


def _accounts_differ(here: str | None, at_stripe: str | None) -> str | None:
    if here == at_stripe:
        return None
    return f"different: {here or 'our own account'} here, {at_stripe or 'our own'} at Stripe"
