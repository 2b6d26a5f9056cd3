"""Unmatched payments: each with its reason, and the two or three things that settle it."""

import uuid
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from sqlalchemy.orm import Session

from src.common.accounts.queries import find_user_by_email, get_user
from src.common.approvals.payments import resolve
from src.common.approvals.rules import Limits
from src.common.async_database import run_in_async_database_transaction
from src.common.credits.domain.commands import AMOUNT_MAX
from src.common.credits.queries import balance
from src.common.exceptions import ExceptionWithErrorType, Invalid, NotFound
from src.common.models.transaction import Transaction
from src.common.purchases import unmatched
from src.common.purchases.resolutions import Ruling, find_unmatched
from src.common.purchases.rules import Reason
from src.console.audit import is_recorded, record
from src.console.forms import Form, posted
from src.console.people import Person, require
from src.console.permissions import Permission
from src.console.previews import preview
from src.console.rendering import confirm, done, render
from src.console.service import settings_of
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
    found = await run_in_async_database_transaction(
        lambda session: unmatched.open_unmatched_payments(session, LISTED_MAX)
    )
    return render(request, person, "unmatched.html", payments=found, listed_max=LISTED_MAX)


@router.get("/{stripe_object_id}", name="console_unmatched_payment")
async def show_payment(
    request: Request,
    person: Annotated[Person, require(Permission.UNMATCHED_SEE)],
    stripe_object_id: str,
) -> Response:
    """One of them, with what Stripe said and what settles it."""
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
        return await _settle(request, person, form, stripe_object_id)
    except Invalid as error:
        return await _page(request, person, stripe_object_id, problem=error, form=form)


async def _settle(request: Request, person: Person, form: Form, name: str) -> Response:
    what, reason = form.required("do"), form.reason()
    if what not in {CREDIT, CLOSE}:
        raise Invalid("do: credit or close", "VALIDATION_ERROR", field="do")
    is_credit = what == CREDIT
    limits = Limits.of(settings_of(request))
    limit = settings_of(request).credits_manual_limit

    def do(session: Session) -> dict[str, Any]:
        ruling = _ruling(session, form) if is_credit else None
        row, bought = resolve(
            session, name, resolution=reason, actor=person.actor, ruling=ruling, limits=limits
        )
        if bought is not None and bought.credits_added > limit:
            raise Invalid(
                f"credits: more than {limit:,} (CREDITS_MANUAL_LIMIT) are not given here",
                "VALIDATION_ERROR",
                field="credits",
            )
        return {"reason": row.reason, **_bought(session, bought)}

    if not form.is_confirmed:
        foreseen = await run_in_async_database_transaction(lambda session: preview(session, do))
        heading = f"Credit {name}?" if is_credit else f"Close {name}?"
        facts = {
            **_in_words(foreseen),
            "Afterwards": "Nothing automatic credits this payment any more",
            "Reason": reason,
        }
        button = "Credit it" if is_credit else "Close it"
        return confirm(request, person, form, heading=heading, facts=facts, button=button)

    def work(session: Session) -> bool:
        action = "unmatched.credit" if is_credit else "unmatched.close"
        if is_recorded(session, form.key):
            return False
        result = do(session)
        user_id = result.get("user_id")
        record(
            session,
            person,
            action,
            target=name,
            user_id=None if user_id is None else uuid.UUID(user_id),
            reason=reason,
            after=result,
            key=form.key,
        )
        return True

    is_new = await run_in_async_database_transaction(work)
    sentence = f"{name} is settled." if is_new else f"{name} was settled before by this form."
    return done(request, sentence, "console_unmatched")


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


def _ruling(session: Session, form: Form) -> Ruling:
    """Whom and how much, where the form names it; what it leaves out, the payment says."""
    written = form.text("user", length_max=320)
    amount = form.text("amount_cents")
    return Ruling(
        user_id=_user_id(session, written) if written else None,
        credits=form.integer("credits", least=1, most=AMOUNT_MAX) if form.text("credits") else None,
        amount_cents=form.integer("amount_cents", least=0, most=AMOUNT_MAX) if amount else None,
        currency=form.text("currency", length_max=3).lower() or None,
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


def _in_words(foreseen: Mapping[str, Any]) -> dict[str, str]:
    words = {"Why it was not credited": str(foreseen["reason"])}
    if "user_id" in foreseen:
        after: int = foreseen["balance"]
        given: int = foreseen["credits"]
        words |= {
            "User": str(foreseen["user_id"]),
            "Credits": f"{given:,}",
            "Paid": money(foreseen["amount_paid_cents"], foreseen["currency"]),
            "Balance afterwards": f"{after:,}",
        }
    else:
        words["Credits"] = "none"
    return words
