"""Moving a user's credits by hand: give, take, undo an entry, release a hold.

Each is shown before it is done, wants a reason and is done once for each form. Above the limits of
rule 13 it becomes a request that another person consents to.
"""

import datetime as dt
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeAlias

from fastapi import APIRouter, Request
from fastapi.responses import Response
from sqlalchemy.orm import Session

from src.common.accounts.operations import lock_user
from src.common.approvals.asking import Asked
from src.common.approvals.operations import execute_or_ask, takes_consent
from src.common.approvals.rules import Limits
from src.common.async_database import run_in_async_database_transaction
from src.common.credits import ledger
from src.common.credits.domain.commands import (
    AMOUNT_MAX,
    REFERENCE_LENGTH_MAX,
    Adjust,
    Grant,
    Release,
    Result,
    Reverse,
)
from src.common.exceptions import ExceptionWithErrorType, Invalid
from src.common.models.credit_entry import CreditEntry
from src.common.models.credit_lot import LotSource
from src.console.audit import record
from src.console.forms import Form, posted
from src.console.money_forms import FormPage, answer_problem, see_user, show_form
from src.console.people import Person, require
from src.console.permissions import Permission
from src.console.rendering import confirm, done, path_of
from src.console.service import settings_of

router = APIRouter(prefix="/users/{user_id}")
Move: TypeAlias = Grant | Adjust | Reverse | Release
Make: TypeAlias = Callable[[str, str], Move]
"""Makes the command of a key and an actor."""
SOURCES = [str(source) for source in sorted(Grant.sources)]
KEY_PREFIX = "console:"

GIVE = FormPage("Give credits", "console_give", ("amount", "source", "expires_on", "reason"))
TAKE = FormPage("Take credits", "console_take", ("amount", "reason"))
REVERSE = FormPage("Undo an entry", "console_reverse", ("part", "reason"))
RELEASE = FormPage("Release a hold", "console_release", ("reason",))
Giver = Annotated[Person, require(Permission.CREDITS_GIVE)]
Taker = Annotated[Person, require(Permission.CREDITS_TAKE)]
Reverser = Annotated[Person, require(Permission.CREDITS_REVERSE)]
Releaser = Annotated[Person, require(Permission.HOLDS_RELEASE)]
OurForm = Annotated[Form, posted()]


@router.get("/give", name="console_give")
async def show_give(request: Request, person: Giver, user_id: uuid.UUID) -> Response:
    """The form."""
    return await show_form(request, person, GIVE, user_id, sources=SOURCES)


@router.post("/give", name="console_give_do")
async def give(request: Request, person: Giver, user_id: uuid.UUID, form: OurForm) -> Response:
    """Give credits that nobody paid for."""

    def make(key: str, actor: str) -> Grant:
        return Grant(
            user_id=user_id,
            key=key,
            actor=actor,
            amount=form.integer("amount", least=1, most=AMOUNT_MAX),
            source=_source(form),
            expires_at=_expiry(form),
            reference=_reason(form),
        )

    return await _move(request, person, form, _Wish(GIVE, user_id, "credits.give", make))


@router.get("/take", name="console_take")
async def show_take(request: Request, person: Taker, user_id: uuid.UUID) -> Response:
    """The form."""
    return await show_form(request, person, TAKE, user_id)


@router.post("/take", name="console_take_do")
async def take(request: Request, person: Taker, user_id: uuid.UUID, form: OurForm) -> Response:
    """Take credits back, never below a balance of 0."""

    def make(key: str, actor: str) -> Adjust:
        amount = -form.integer("amount", least=1, most=AMOUNT_MAX)
        return Adjust(user_id=user_id, key=key, actor=actor, amount=amount, reason=_reason(form))

    return await _move(request, person, form, _Wish(TAKE, user_id, "credits.take", make))


@router.get("/entries/{seq}/reverse", name="console_reverse")
async def show_reverse(
    request: Request, person: Reverser, user_id: uuid.UUID, seq: int
) -> Response:
    """The form."""
    return await show_form(request, person, REVERSE, user_id, target=f"entry {seq}")


@router.post("/entries/{seq}/reverse", name="console_reverse_do")
async def reverse(
    request: Request, person: Reverser, user_id: uuid.UUID, seq: int, form: OurForm
) -> Response:
    """Undo an entry, whole or in part, in the lots that it moved."""

    def make(key: str, actor: str) -> Reverse:
        return Reverse(
            user_id=user_id,
            key=key,
            actor=actor,
            seq=seq,
            amount=form.integer("part", least=1, most=AMOUNT_MAX) if form.text("part") else None,
            reason=_reason(form),
        )

    wish = _Wish(REVERSE, user_id, "credits.reverse", make, f"entry {seq}", {"seq": seq})
    return await _move(request, person, form, wish)


@router.get("/holds/{seq}/release", name="console_release")
async def show_release(
    request: Request, person: Releaser, user_id: uuid.UUID, seq: int
) -> Response:
    """The form."""
    return await show_form(request, person, RELEASE, user_id, target=f"hold {seq}")


@router.post("/holds/{seq}/release", name="console_release_do")
async def release(
    request: Request, person: Releaser, user_id: uuid.UUID, seq: int, form: OurForm
) -> Response:
    """Give up a hold: what was not captured goes back to its lots."""

    def make(key: str, actor: str) -> Release:
        return Release(user_id=user_id, key=key, actor=actor, hold_seq=seq, reference=_reason(form))

    wish = _Wish(RELEASE, user_id, "holds.release", make, f"hold {seq}", {"seq": seq})
    return await _move(request, person, form, wish)


@dataclass(frozen=True)
class _Wish:
    """What a form asks for."""

    page: FormPage
    user_id: uuid.UUID
    action: str
    """What the audit trail calls it."""
    make: Make
    target: str | None = None
    place: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What the address of the form has beside the user."""


@dataclass(frozen=True)
class _Foreseen:
    """What a command would do."""

    email: str | None
    """Whose credits it moves."""
    before: int
    after: int
    amount: int
    lots: str
    asks: bool
    """Whether it would become a request."""


async def _move(request: Request, person: Person, form: Form, wish: _Wish) -> Response:
    """Show what it will do, or do it, or show the form again with what is wrong."""
    try:
        command = wish.make(f"{KEY_PREFIX}{form.key}", person.actor)
        if not form.is_confirmed:
            return await _show_before(request, person, form, wish, command)
        limits = Limits.of(settings_of(request))
        outcome = await run_in_async_database_transaction(
            lambda session: _execute(session, person, form, wish, command, limits)
        )
    except ExceptionWithErrorType as error:
        return await answer_problem(
            request,
            person,
            form,
            wish.page,
            wish.user_id,
            error,
            target=wish.target,
            sources=SOURCES,
        )
    if isinstance(outcome, Asked):
        approval_id = outcome.approval.approval_id
        return done(
            request,
            "It was asked for: another person has to consent.",
            "console_approval",
            approval_id=approval_id,
        )
    return done(
        request,
        f"Done: {outcome.amount:+,} credits, entry {outcome.seq}. The balance is"
        f" {outcome.balance:,}.",
        "console_user",
        user_id=wish.user_id,
    )


async def _show_before(
    request: Request, person: Person, form: Form, wish: _Wish, command: Move
) -> Response:
    settings = settings_of(request)
    found = await run_in_async_database_transaction(
        lambda session: _foresee(session, person, wish, command, Limits.of(settings))
    )
    limit = settings.credits_manual_limit
    return confirm(
        request,
        person,
        form,
        heading=f"{wish.page.title}?",
        facts={
            "User": found.email or str(wish.user_id),
            "About": wish.target or "the balance",
            "Credits": f"{found.amount:+,}",
            "Balance now": f"{found.before:,}",
            "Balance afterwards": f"{found.after:,}",
            "Lots": found.lots or "none",
            "Reason": _reason(form),
            "Done": "once another person consents" if found.asks else "at once",
        },
        button="Ask for it" if found.asks else "Do it",
        cancel=path_of(request, "console_user", user_id=wish.user_id),
        warning=f"This is more than {limit:,} credits." if found.amount > limit else None,
    )


def _foresee(
    session: Session, person: Person, wish: _Wish, command: Move, limits: Limits
) -> _Foreseen:
    before = ledger.balance(session, command.user_id)
    preview = ledger.preview(session, command)
    amount = preview.result.amount
    lots = [
        f"{posting.amount:+,} in lot {posting.lot_seq}"
        for entry in preview.entries
        for posting in entry.postings
    ]
    return _Foreseen(
        email=see_user(session, person, wish.user_id, wish.page.title),
        before=before.balance,
        after=preview.result.balance,
        amount=amount,
        lots=", ".join(lots),
        asks=takes_consent(session, command, amount, limits),
    )


def _execute(
    session: Session, person: Person, form: Form, wish: _Wish, command: Move, limits: Limits
) -> Result | Asked:
    """Do it or ask for it, and record it; the same form again finds what it did."""
    lock_user(session, wish.user_id)  # so that the balance below is what it decided upon
    outcome = execute_or_ask(session, command, limits)
    after = (
        {"asked_for": str(outcome.approval.approval_id)}
        if isinstance(outcome, Asked)
        else {"entry": outcome.seq, "credits": outcome.amount, "balance": outcome.balance}
    )
    record(
        session,
        person,
        wish.action,
        user_id=wish.user_id,
        target=wish.target,
        reason=_reason(form),
        before={"balance": _balance_before(session, wish.user_id, outcome)},
        after=after,
        key=form.key,
    )
    return outcome


def _balance_before(session: Session, user_id: uuid.UUID, outcome: Result | Asked) -> int:
    """What the operation saw, after all that was due; the user's row is locked still."""
    if isinstance(outcome, Asked):
        return ledger.balance(session, user_id).balance
    entry = session.get_one(CreditEntry, (user_id, outcome.seq))
    return entry.balance_after - entry.amount


def _source(form: Form) -> LotSource:
    source = form.text("source") or str(LotSource.PROMO)
    if source not in SOURCES:
        raise Invalid(f"source: one of {', '.join(SOURCES)}", "VALIDATION_ERROR", field="source")
    return LotSource(source)


def _reason(form: Form) -> str:
    """As long as the journal keeps it."""
    return form.reason(length_max=REFERENCE_LENGTH_MAX)


def _expiry(form: Form) -> dt.datetime | None:
    """The first moment of a day in UTC; None where none is named."""
    written = form.text("expires_on", length_max=10)
    if not written:
        return None
    try:
        day = dt.date.fromisoformat(written)
    except ValueError:
        day = None
    if day is None or not _YEAR_MIN <= day.year <= _YEAR_MAX:
        raise Invalid(
            f"expires_on: a day, such as 2030-01-31, of the years {_YEAR_MIN} to {_YEAR_MAX}",
            "VALIDATION_ERROR",
            field="expires_on",
        )
    return dt.datetime.combine(day, dt.time.min, dt.UTC)


_YEAR_MIN, _YEAR_MAX = 2_000, 9_000
