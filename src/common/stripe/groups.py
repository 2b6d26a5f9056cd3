"""In which group of users it is settled what Stripe tells (decision 0066).

A payment that is noted in the directory is its user's; another is whose metadata names it. What is
nobody's of ours, as far as anybody knows, is settled where nobody's tables are seen: it is noted as
unmatched, or waits.
"""

import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from sqlalchemy import Connection
from sqlalchemy.orm import Session

from src.common.postgres.routes import route_of
from src.common.purchases.locks import lock_payment
from src.common.purchases.recorded import Asked
from src.common.purchases.reversals import Reversal
from src.common.purchases.rules import Payment
from src.common.purchases.whose import groups_of_payments
from src.common.sharding.directory import groups_of
from src.common.stripe.lookup import Facts


class GroupBecameKnown(Exception):
    """The facts are of another group than they were looked up to be: begin again there."""


class Whose(NamedTuple):
    """What tells whose something of Stripe's is: its names, else whom the metadata names."""

    names: tuple[str, ...]
    user_id: uuid.UUID | None

    @classmethod
    def of(cls, piece: Payment | Reversal) -> "Whose":
        """Of a payment, or of money back."""
        names = [piece.stripe_session_id, piece.payment_intent_id, piece.invoice_id]
        if isinstance(piece, Reversal):
            names.append(piece.reversal_id)
        named = tuple(each for each in names if each is not None)
        return cls(named, piece.user_id if isinstance(piece, Payment) else None)

    @classmethod
    def called(cls, name: str) -> "Whose":
        """Of what has this name alone."""
        return cls((name,), None)


def look_up_groups(connection: Connection, asked: Collection[Whose]) -> dict[Whose, str]:
    """The groups of these; what is nobody's of ours, as far as anybody knows, is missing."""
    names, users = names_and_users(asked)
    by_name: Mapping[str, str] = groups_of_payments(connection, names) if names else {}
    by_user = groups_of(connection, users) if users else {}
    return all_picked(asked, by_name, by_user)


def names_and_users(asked: Iterable[Whose]) -> tuple[list[str], list[uuid.UUID]]:
    """All that the directory is asked about these, in order."""
    names = {name for each in asked for name in each.names}
    users = {each.user_id for each in asked if each.user_id is not None}
    return sorted(names), sorted(users)


def all_picked(
    asked: Iterable[Whose], by_name: Mapping[str, str], by_user: Mapping[uuid.UUID, str]
) -> dict[Whose, str]:
    """The groups, of those that the directory found."""
    found = ((each, _picked(each, by_name, by_user)) for each in asked)
    return {each: group for each, group in found if group is not None}


def _picked(
    whose: Whose, by_name: Mapping[str, str], by_user: Mapping[uuid.UUID, str]
) -> str | None:
    noted = (by_name[name] for name in whose.names if name in by_name)
    return next(noted, by_user.get(whose.user_id) if whose.user_id is not None else None)


def parted(connection: Connection, facts: Facts) -> dict[str | None, Facts]:
    """These facts by the group that each is about; under None what is nobody's of ours.

    None of Stripe's objects is of two users. But its names may be, where somebody forged them, or
    several payments paid one invoice.
    """
    pieces: list[Payment | Reversal] = [*facts.payments, *facts.reversals]
    pieces += [payment for payment, _ in facts.ended]
    known = look_up_groups(connection, {Whose.of(each) for each in pieces})

    def of(piece: Payment | Reversal) -> str | None:
        return known.get(Whose.of(piece))

    found = {of(each) for each in pieces} or {None}
    if len(found) == 1:
        return {found.pop(): facts}
    return {
        group: Facts(
            tuple(each for each in facts.payments if of(each) == group),
            tuple(each for each in facts.reversals if of(each) == group),
            tuple(each for each in facts.ended if of(each[0]) == group),
        )
        for group in sorted(found, key=lambda group: group or "")
    }


def asked_by_group(connection: Connection, asked: Asked) -> dict[str | None, Asked]:
    """The same of what is asked of the books."""
    pieces = [Whose.of(each) for each in asked.payments]
    pieces += map(Whose.called, (*asked.payment_intents, *asked.reversals))
    known = look_up_groups(connection, {*pieces})
    found: dict[str | None, Asked] = {}

    def of(whose: Whose) -> Asked:
        return found.setdefault(known.get(whose), Asked())

    for payment in asked.payments:
        of(Whose.of(payment)).payments.append(payment)
    for name in asked.payment_intents:
        of(Whose.called(name)).payment_intents.append(name)
    for name in asked.reversals:
        of(Whose.called(name)).reversals.append(name)
    return found


def keep_to_group(session: Session, facts: Facts) -> None:
    """Lock the payments of these facts, and see that this session still sees whose they are.

    Before any lock of a user's. Whoever writes a purchase, or has money back wait for one, has the
    payment's lock: so what was nobody's payment may be somebody's now, and stays what it is then.

    Raises:
        GroupBecameKnown: they are of another group.
    """
    for name in _locked_names(facts):
        lock_payment(session, name)
    connection = session.connection()
    if parted(connection, facts).keys() != {route_of(connection)}:
        raise GroupBecameKnown


def _locked_names(facts: Facts) -> Iterator[str]:
    """As whoever settles each locks it, in that order."""
    for payment in facts.payments:
        yield payment.payment_intent_id or payment.stripe_session_id
        if payment.invoice_id is not None:
            yield payment.invoice_id
    for reversal in facts.reversals:
        yield reversal.payment_name or reversal.reversal_id
    for payment, _ in facts.ended:
        yield payment.payment_intent_id or payment.stripe_session_id
