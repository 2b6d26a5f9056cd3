"""Paying a purchase back: shown before it is done, once for each form, above limits by request."""

import uuid
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Request
from fastapi.responses import Response
from sqlalchemy.orm import Session

from src.common.approvals.asking import Asked
from src.common.approvals.operations import refund_takes_consent, request_or_ask
from src.common.approvals.queries import RefundPreview, preview_refund
from src.common.approvals.rules import Limits
from src.common.async_database import run_in_async_database_transaction
from src.common.exceptions import ExceptionWithErrorType
from src.common.models.transaction import Transaction
from src.common.purchases.refunds import RefundWish, get_transaction, refundable_cents
from src.common.stripe.gateway import configured
from src.common.stripe.refunds import refund_payment
from src.console.audit import record
from src.console.forms import Form, posted
from src.console.money_forms import FormPage, answer_problem, show_form
from src.console.people import Person, require
from src.console.permissions import Permission
from src.console.rendering import confirm, done, path_of
from src.console.service import gateway_of, settings_of
from src.html_pages import money

router = APIRouter(prefix="/purchases/{transaction_id}")

PAGE = FormPage("Refund a purchase", "console_refund", ("money", "reason"))
CENTS_MAX = 2**31 - 1
Refunder = Annotated[Person, require(Permission.PAYMENTS_REFUND)]


@router.get("/refund", name="console_refund")
async def show_refund(request: Request, person: Refunder, transaction_id: uuid.UUID) -> Response:
    """The form."""
    bought = await run_in_async_database_transaction(
        lambda session: _read(session, get_transaction(session, transaction_id))
    )
    return await show_form(
        request, person, PAGE, bought.user_id, target="purchase", left=bought.left
    )


@router.post("/refund", name="console_refund_do")
async def refund(
    request: Request,
    person: Refunder,
    transaction_id: uuid.UUID,
    form: Annotated[Form, posted()],
) -> Response:
    """Show what it will do, then write it down or ask for it, then ask Stripe."""
    bought = await run_in_async_database_transaction(
        lambda session: _read(session, get_transaction(session, transaction_id))
    )
    try:
        wish = _wish(person, transaction_id, form, bought.currency)
        gateway = configured(gateway_of(request))
        settings = settings_of(request)
        limits = Limits.of(settings)
        if not form.is_confirmed:
            foreseen, asks = await run_in_async_database_transaction(
                lambda session: (
                    preview_refund(session, wish),
                    refund_takes_consent(session, wish, limits),
                )
            )
            return _show_before(request, person, form, transaction_id, foreseen, asks=asks)
        begun = await run_in_async_database_transaction(
            lambda session: _begin(session, person, form, wish, limits)
        )
        if isinstance(begun, Asked):
            return done(
                request,
                "It was asked for: another person has to consent.",
                "console_approval",
                approval_id=begun.approval.approval_id,
            )
        refunded = await refund_payment(run_in_async_database_transaction, gateway, settings, begun)
    except ExceptionWithErrorType as error:
        return await answer_problem(
            request,
            person,
            form,
            PAGE,
            bought.user_id,
            error,
            target="purchase",
            left=bought.left,
        )
    sentence = f"Paid back: refund {refunded.refund_id}."
    return done(request, sentence, "console_payment", name=transaction_id)


@dataclass(frozen=True)
class _Bought:
    """What of a purchase its form says."""

    user_id: uuid.UUID
    currency: str
    left: str
    """What there is to pay back, in words."""


def _read(session: Session, bought: Transaction) -> _Bought:
    left = money(refundable_cents(session, bought), bought.currency)
    return _Bought(bought.user_id, bought.currency, left)


def _wish(person: Person, transaction_id: uuid.UUID, form: Form, currency: str) -> RefundWish:
    """What is paid back; all that is left where no amount is written."""
    cents = form.money("money", currency, least=1, most=CENTS_MAX) if form.text("money") else None
    return RefundWish(
        transaction_id=transaction_id,
        key=f"console:{form.key}",
        actor=person.actor,
        amount_cents=cents,
        reason=form.reason(),
    )


def _begin(
    session: Session, person: Person, form: Form, wish: RefundWish, limits: Limits
) -> Asked | RefundWish:
    """Write the refund or the request down, and record it; the same form again finds it."""
    begun = request_or_ask(session, wish, limits)
    record(
        session,
        person,
        "payments.refund",
        user_id=get_transaction(session, wish.transaction_id).user_id,
        target=str(wish.transaction_id),
        reason=wish.reason,
        after={"asked_for": str(begun.approval.approval_id)}
        if isinstance(begun, Asked)
        else {"amount_cents": wish.amount_cents},
        key=form.key,
    )
    return begun


def _show_before(
    request: Request,
    person: Person,
    form: Form,
    transaction_id: uuid.UUID,
    foreseen: RefundPreview,
    *,
    asks: bool,
) -> Response:
    return confirm(
        request,
        person,
        form,
        heading="Refund this purchase?",
        facts={
            "Paid back": money(foreseen.amount_cents, foreseen.currency),
            "Credits that go with it": f"{foreseen.credits:,}",
            "Balance now": f"{foreseen.balance:,}",
            "Reason": form.reason(),
            "Done": "once another person consents" if asks else "at once, by Stripe",
        },
        button="Ask for it" if asks else "Pay it back",
        cancel=path_of(request, "console_payment", name=transaction_id),
        warning="What was spent of them the user will owe."
        if foreseen.credits > foreseen.balance
        else None,
    )
