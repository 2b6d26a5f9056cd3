"""Unmatched payments: each with its reason, and the two or three things that settle it."""

import uuid
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from sqlalchemy import select
from sqlalchemy.orm import Session

from src.common.accounts.queries import find_user_by_email, get_user
from src.common.approvals.asking import Asked
from src.common.approvals.payments import (
    PaymentPreview,
    Settled,
    Settlement,
    foresee,
    resolve_or_ask,
)
from src.common.approvals.rules import Limits
from src.common.async_database import read_from_async_database, run_in_async_database_transaction
from src.common.credits.domain import errors
from src.common.credits.domain.commands import AMOUNT_MAX
from src.common.credits.queries import balance
from src.common.exceptions import ExceptionWithErrorType, Invalid, NotFound
from src.common.models.approval import Approval, Decision
from src.common.models.console_action import ConsoleAction
from src.common.models.transaction import Transaction
from src.common.purchases import unmatched
from src.common.purchases.resolutions import Ruling, find_unmatched, payment_of
from src.common.purchases.rules import Reason
from src.console.audit import is_recorded, record
from src.console.forms import Form, posted
from src.console.people import Person, require
from src.console.permissions import Permission
from src.console.rendering import confirm, done, path_of, render
from src.console.service import settings_of
from src.console.whose import in_each_group, routed_to_unmatched
from src.html_pages import money

router = APIRouter(prefix="/unmatched")

LISTED_MAX = 100
CREDIT, CLOSE = "credit", "close"
_REPLAY = "Mend what the reason names, then replay the event: it is judged anew."
_CREDIT = "Credit it by hand below, to whom and with how much you decide."
_REFUND = "Refund it at Stripe, then close it here with a note that says so."
_CLOSE = "Close it with a note, where nothing is to be credited."
_ELSEWHERE = (
    "Look where this payment was made: another deployment uses the same Stripe account. Set "
    "another account, or another webhook, for one of them."
)
_WAIT = "Wait: Stripe sends another event once the money has come, and that one credits it."
WAYS_OUT: Mapping[Reason, Sequence[str]] = {
    Reason.MODE_NOT_PAYMENT: (_CLOSE,),
    Reason.NOT_PAID: (_WAIT, _CLOSE),
    Reason.ENVIRONMENT_MISMATCH: (_ELSEWHERE, _CLOSE),
    Reason.LIVEMODE_MISMATCH: ("Set the Stripe key of the other mode, then replay it.", _CLOSE),
    Reason.ORDER_REQUIRED: (_CREDIT, _REFUND),
    Reason.ORDER_UNKNOWN: (_CREDIT, _REFUND),
    Reason.ORDER_MISMATCH: (_CREDIT, _REFUND),
    Reason.USER_UNKNOWN: (
        "Find out who paid, in Stripe's dashboard, then credit it to them below.",
        _REFUND,
    ),
    Reason.PACKAGE_UNKNOWN: (
        "Put the package on sale again, then replay the event.",
        _CREDIT,
        _REFUND,
    ),
    Reason.CREDITS_MISMATCH: (_CREDIT, _REFUND),
    Reason.CURRENCY_MISMATCH: (_CREDIT, _REFUND, _CLOSE),
    Reason.AMOUNT_MISMATCH: (_CREDIT, _REFUND),
    Reason.BALANCE_LIMIT_EXCEEDED: (_REFUND, _REPLAY),
    Reason.PAYMENT_CONFLICT: (
        "Compare it with the purchase of the same payment: what differs is in the sentence above.",
        _REFUND,
        _CLOSE,
    ),
    Reason.TRANSACTION_WITHOUT_CREDIT: (_CREDIT, _CLOSE),
}
"""What settles a payment, by why it was not credited."""


@router.get("", name="console_unmatched")
async def show_unmatched(
    request: Request, person: Annotated[Person, require(Permission.UNMATCHED_SEE)]
) -> Response:
    """Those that wait for somebody, oldest first."""
    noted = await read_from_async_database(lambda session: unmatched.noted(session, LISTED_MAX))
    derived = await in_each_group(lambda session: unmatched.derived(session, LISTED_MAX))
    payments = [*noted, *(each for some in derived.values() for each in some)]
    found = unmatched.oldest(payments, LISTED_MAX)
    return render(request, person, "unmatched.html", payments=found, listed_max=LISTED_MAX)


@router.get("/{stripe_object_id}", name="console_unmatched_payment")
async def show_payment(
    request: Request,
    person: Annotated[Person, require(Permission.UNMATCHED_SEE)],
    stripe_object_id: str,
) -> Response:
    """One of them, with what Stripe said and what settles it."""
    async with routed_to_unmatched(stripe_object_id):
        return await _page(request, person, stripe_object_id)


@router.post("/{stripe_object_id}", name="console_unmatched_settle")
async def settle(
    request: Request,
    person: Annotated[Person, require(Permission.UNMATCHED_SETTLE)],
    form: Annotated[Form, posted()],
    stripe_object_id: str,
) -> Response:
    """Credit it by hand, or close it with a note."""
    try:
        user = form.text("user", length_max=320) if form.text("do") == CREDIT else ""
        async with routed_to_unmatched(stripe_object_id, user):
            return await _settle(request, person, form, stripe_object_id)
    except Invalid as error:
        async with routed_to_unmatched(stripe_object_id):
            return await _page(request, person, stripe_object_id, problem=error, form=form)


async def _settle(request: Request, person: Person, form: Form, name: str) -> Response:
    what, reason = form.required("do"), form.reason()
    if what not in {CREDIT, CLOSE}:
        raise Invalid("do: credit or close", "VALIDATION_ERROR", field="do")
    settings = settings_of(request)
    limits = Limits.of(settings)
    is_credit = what == CREDIT

    def wish(session: Session) -> Settlement:
        ruling = _ruling(session, form, name) if is_credit else None
        return Settlement(name, reason, person.actor, f"console:{form.key}", ruling)

    if not form.is_confirmed:
        found = await run_in_async_database_transaction(
            lambda session: foresee(session, wish(session), limits)
        )
        facts = {**_in_words(found), "Reason": reason}
        limit = settings.credits_manual_limit
        return confirm(
            request,
            person,
            form,
            heading=f"Credit {name}?" if is_credit else f"Close {name}?",
            facts=facts,
            button="Ask for it" if found.asks else "Credit it" if is_credit else "Close it",
            cancel=path_of(request, "console_unmatched_payment", stripe_object_id=name),
            warning=f"This is more than {limit:,} credits." if found.credits > limit else None,
        )
    outcome = await run_in_async_database_transaction(
        lambda session: _do(session, person, form, wish(session), limits)
    )
    if isinstance(outcome, Asked):
        approval_id = outcome.approval.approval_id
        sentence = "It was asked for: another person has to consent."
        return done(request, sentence, "console_approval", approval_id=approval_id)
    is_new = outcome is not None
    sentence = f"{name} is settled." if is_new else f"{name} was settled before by this form."
    return done(request, sentence, "console_unmatched")


def _do(
    session: Session, person: Person, form: Form, settlement: Settlement, limits: Limits
) -> Settled | Asked | None:
    """Settle it or ask for it, and record it; None where this form settled it before."""
    is_done = is_recorded(session, form.key)
    asked_id = _asked_by(session, form)
    if is_done and asked_id is None:
        return None
    outcome = resolve_or_ask(session, settlement, limits)
    if asked_id is not None and not _is_what_was_asked(session, outcome, asked_id):
        raise errors.key_reused()  # else it would be done, and the trail would not have it
    purchase = None if isinstance(outcome, Asked) else outcome.purchase
    user_id = outcome.approval.user_id if isinstance(outcome, Asked) else None
    record(
        session,
        person,
        "unmatched.close" if settlement.ruling is None else "unmatched.credit",
        target=settlement.stripe_object_id,
        user_id=user_id if purchase is None else purchase.user_id,
        reason=settlement.resolution,
        after={"asked_for": str(outcome.approval.approval_id)}
        if isinstance(outcome, Asked)
        else {"reason": outcome.row.reason, **_bought(session, purchase)},
        key=form.key,
    )
    return outcome


def _asked_by(session: Session, form: Form) -> uuid.UUID | None:
    """The request that this form made: it finds that again, whatever became of it."""
    made = select(ConsoleAction.after["asked_for"].astext).where(ConsoleAction.form_key == form.key)
    found = session.scalars(made).one_or_none()
    return None if found is None else uuid.UUID(found)


def _is_what_was_asked(session: Session, outcome: Settled | Asked, asked_id: uuid.UUID) -> bool:
    """Whether it is that very request, or what another person consented to."""
    if isinstance(outcome, Asked):
        return outcome.approval.approval_id == asked_id
    return session.get_one(Approval, asked_id).status == Decision.CONSENTED


async def _page(
    request: Request,
    person: Person,
    name: str,
    *,
    problem: ExceptionWithErrorType | None = None,
    form: Form | None = None,
) -> Response:
    payment = await run_in_async_database_transaction(lambda session: find_unmatched(session, name))
    return render(
        request,
        person,
        "unmatched_payment.html",
        problem=problem,
        form=form,
        payment=payment,
        said={key: value for key, value in payment.details.items() if value is not None},
        ways_out=WAYS_OUT.get(Reason(payment.reason), (_CLOSE,)),
        may_settle=person.may(Permission.UNMATCHED_SETTLE) and payment.status == "open",
        is_payment="kind" not in payment.details,
        has_event=payment.event_id.startswith("evt_"),
    )


def _ruling(session: Session, form: Form, name: str) -> Ruling:
    """Whom and how much, where the form names it; what it leaves out, the payment says."""
    written = form.text("user", length_max=320)
    currency = form.text("currency", length_max=3).lower() or None
    cents = None
    if form.text("money"):
        said = currency or payment_of(find_unmatched(session, name)).currency
        if said is None:
            sentence = "currency: say it, as Stripe did not"
            raise Invalid(sentence, "VALIDATION_ERROR", field="currency")
        cents = form.money("money", said, least=0, most=AMOUNT_MAX)
    return Ruling(
        user_id=_user_id(session, written) if written else None,
        credits=form.integer("credits", least=1, most=AMOUNT_MAX) if form.text("credits") else None,
        amount_cents=cents,
        currency=currency,
    )


def _user_id(session: Session, written: str) -> uuid.UUID:
    try:
        return get_user(session, uuid.UUID(written)).user_id
    except ValueError:
        found = find_user_by_email(session, written)
    except NotFound:
        found = None
    if found is None:
        sentence = "user: there is nobody with this id or address"
        raise Invalid(sentence, "VALIDATION_ERROR", field="user")
    return found.user_id


def _bought(session: Session, bought: Transaction | None) -> dict[str, Any]:
    if bought is None:
        return {}
    return {
        "user_id": str(bought.user_id),
        "credits": bought.credits_added,
        "amount_paid_cents": bought.amount_paid_cents,
        "currency": bought.currency,
        "balance": balance(session, bought.user_id).balance,
    }


def _in_words(found: PaymentPreview) -> dict[str, str]:
    words = {"Why it was not credited": found.reason}
    if found.user_id is None:
        return words | {"Credits": "none", **_FOR_GOOD}
    return words | {
        "User": str(found.user_id),
        "Credits": f"{found.credits:,}",
        "Paid": money(found.amount_paid_cents, found.currency),
        "Balance afterwards": f"{found.balance:,}",
        **_FOR_GOOD,
        "Done": "once another person consents" if found.asks else "at once",
    }


_FOR_GOOD = {"Afterwards": "Nothing automatic credits this payment any more"}
