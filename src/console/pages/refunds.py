"""Paying a purchase back: shown before it is done, once for each form, above limits by request."""

import uuid
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
from src.common.purchases.refunds import RefundWish, get_transaction
from src.common.stripe.gateway import configured
from src.common.stripe.refunds import refund_payment
from src.console.audit import record
from src.console.forms import Form, posted
from src.console.money_forms import FormPage, answer_problem, show_form
from src.console.people import Person, require
from src.console.permissions import Permission
from src.console.rendering import confirm, done
from src.console.service import gateway_of, settings_of
from src.html_pages import money

router = APIRouter(prefix="/purchases/{transaction_id}")

PAGE = FormPage("Refund a purchase", "console_refund", ("amount_cents", "reason"))
CENTS_MAX = 2**31 - 1
Refunder = Annotated[Person, require(Permission.PAYMENTS_REFUND)]


@router.get("/refund", name="console_refund")
async def show_refund(request: Request, person: Refunder, transaction_id: uuid.UUID) -> Response:
    """The form."""
    user_id = await run_in_async_database_transaction(
        lambda session: get_transaction(session, transaction_id).user_id
    )
    return await show_form(request, person, PAGE, user_id, target="purchase")


@router.post("/refund", name="console_refund_do")
async def refund(
    request: Request,
    person: Refunder,
    transaction_id: uuid.UUID,
    form: Annotated[Form, posted()],
) -> Response:
    """Show what it will do, then write it down or ask for it, then ask Stripe."""
    try:
        wish = _wish(person, transaction_id, form)
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
            return _show_before(request, person, form, foreseen, asks=asks)
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
        user_id = await run_in_async_database_transaction(
            lambda session: _buyer(session, transaction_id)
        )
        return await answer_problem(request, person, form, PAGE, user_id, error, target="purchase")
    sentence = f"Paid back: refund {refunded.refund_id}."
    return done(request, sentence, "console_payment", name=transaction_id)


def _buyer(session: Session, transaction_id: uuid.UUID) -> uuid.UUID | None:
    """Whose purchase it is; None where there is none."""
    bought = session.get(Transaction, transaction_id)
    return None if bought is None else bought.user_id


def _wish(person: Person, transaction_id: uuid.UUID, form: Form) -> RefundWish:
    amount = form.text("amount_cents")
    return RefundWish(
        transaction_id=transaction_id,
        key=f"console:{form.key}",
        actor=person.actor,
        amount_cents=form.integer("amount_cents", least=1, most=CENTS_MAX) if amount else None,
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
    request: Request, person: Person, form: Form, foreseen: RefundPreview, *, asks: bool
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
        warning="What was spent of them the user will owe."
        if foreseen.credits > foreseen.balance
        else None,
    )
